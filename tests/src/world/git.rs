//! git's objects, packs and packets, as far as the small world needs them: its forge and the hostile agent run where there
//! is no git. Objects stand whole in a pack, never as deltas.

use flate2::bufread::ZlibDecoder;
use flate2::{Compression, write::ZlibEncoder};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};

/// Objects of one pack that are read.
const OBJECTS_MAX: u32 = 1000;
/// The largest object that is read, in bytes.
const OBJECT_BYTES_MAX: u64 = 1 << 20;

/// What an object is; the number is the pack's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A commit.
    Commit = 1,
    /// A folder.
    Tree = 2,
    /// A file's content.
    Blob = 3,
}

/// An object of git.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// What is in it.
    pub content: Vec<u8>,
}

impl Object {
    /// A file's content.
    pub fn blob(text: &str) -> Self {
        Self { kind: Kind::Blob, content: text.as_bytes().to_vec() }
    }

    /// A folder with one file.
    pub fn tree(name: &str, blob: &Object) -> Self {
        let mut content = format!("100644 {name}\0").into_bytes();
        content.extend_from_slice(&blob.raw_id());
        Self { kind: Kind::Tree, content }
    }

    /// A commit of a folder, with the hex name of its parent if it has one.
    pub fn commit(tree: &Object, parent: Option<&str>, message: &str) -> Self {
        let parent = parent.map_or_else(String::new, |parent| format!("parent {parent}\n"));
        let who = "World <world@world.example> 1700000000 +0000";
        let tree = tree.id();
        Self {
            kind: Kind::Commit,
            content: format!("tree {tree}\n{parent}author {who}\ncommitter {who}\n\n{message}\n").into_bytes(),
        }
    }

    /// Its name, in hex.
    pub fn id(&self) -> String {
        self.raw_id().iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}"); // writing to a String cannot fail
            hex
        })
    }

    fn raw_id(&self) -> Vec<u8> {
        let kind = match self.kind {
            Kind::Commit => "commit",
            Kind::Tree => "tree",
            Kind::Blob => "blob",
        };
        let mut bytes = format!("{kind} {}\0", self.content.len()).into_bytes();
        bytes.extend_from_slice(&self.content);
        digest(&SHA1_FOR_LEGACY_USE_ONLY, &bytes).as_ref().to_vec()
    }
}

/// A pack of whole objects.
pub fn pack(objects: &[Object]) -> Vec<u8> {
    let into_memory = "writing into memory does not fail";
    let count = u32::try_from(objects.len()).expect("a pack of the world is small");
    let mut pack = b"PACK\0\0\0\x02".to_vec();
    pack.extend_from_slice(&count.to_be_bytes());
    for object in objects {
        let mut size = object.content.len();
        let mut byte = (object.kind as u8) << 4 | (size & 15) as u8;
        size >>= 4;
        while size > 0 {
            pack.push(byte | 0x80);
            byte = (size & 0x7f) as u8;
            size >>= 7;
        }
        pack.push(byte);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&object.content).expect(into_memory);
        pack.extend(zlib.finish().expect(into_memory));
    }
    let checksum = digest(&SHA1_FOR_LEGACY_USE_ONLY, &pack);
    pack.extend_from_slice(checksum.as_ref());
    pack
}

/// The objects of a pack; `None` when it is damaged, has deltas, or is larger than anything of this world.
pub fn unpack(pack: &[u8]) -> Option<Vec<Object>> {
    let (body, checksum) = pack.split_at_checked(pack.len().checked_sub(20)?)?;
    if digest(&SHA1_FOR_LEGACY_USE_ONLY, body).as_ref() != checksum {
        return None;
    }
    let rest = body.strip_prefix(b"PACK\0\0\0\x02")?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let count = u32::from_be_bytes(*count);
    if count > OBJECTS_MAX {
        return None;
    }
    let mut objects = Vec::new();
    for _ in 0..count {
        let (mut byte, mut left) = rest.split_first()?;
        let kind = match *byte >> 4 & 7 {
            1 => Kind::Commit,
            2 => Kind::Tree,
            3 => Kind::Blob,
            _ => return None,
        };
        let (mut size, mut shift) = (u64::from(*byte & 15), 4);
        while *byte & 0x80 != 0 {
            (byte, left) = left.split_first()?;
            size |= u64::from(*byte & 0x7f).checked_shl(shift)?;
            shift += 7;
        }
        if size > OBJECT_BYTES_MAX {
            return None;
        }
        let mut zlib = ZlibDecoder::new(left);
        let mut content = Vec::new();
        zlib.by_ref().take(size + 1).read_to_end(&mut content).ok()?;
        if content.len() as u64 != size {
            return None;
        }
        rest = left.get(usize::try_from(zlib.total_in()).ok()?..)?;
        objects.push(Object { kind, content });
    }
    rest.is_empty().then_some(objects)
}

/// The packet that ends a section.
pub const FLUSH: &[u8] = b"0000";

/// A packet.
pub fn packet(data: &[u8]) -> Vec<u8> {
    let mut packet = format!("{:04x}", data.len() + 4).into_bytes();
    packet.extend_from_slice(data);
    packet
}

/// Splits the first packet off: its data (`None` for a flush) and what follows. `None` when there is no whole packet.
pub fn split_packet(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (digits, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    match length {
        0 => Some((None, rest)),
        1..=3 => None,
        _ => rest.split_at_checked(length - 4).map(|(data, rest)| (Some(data), rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_the_names_that_git_gives_them() {
        // As `git hash-object` and `git mktree` print them.
        assert_eq!(Object::blob("hello\n").id(), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(Object::tree("a", &Object::blob("hello\n")).id(), "0976950c1fdbcb52435a433913017bf044b3a58f");
    }

    #[test]
    fn a_pack_is_read_back_and_a_damaged_one_is_not() {
        let blob = Object::blob(&"a line of some length\n".repeat(200));
        let tree = Object::tree("a", &blob);
        let objects = vec![Object::commit(&tree, Some(&tree.id()), "x"), tree, blob];
        let whole = pack(&objects);
        assert_eq!(unpack(&whole), Some(objects));
        for at in [0, 8, 11, 20, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert_eq!(unpack(&damaged), None, "{at}");
        }
        assert_eq!(unpack(&whole[..whole.len() - 1]), None);
        assert_eq!(unpack(b""), None);
    }

    #[test]
    fn packets_come_apart_as_they_were_put_together() {
        let bytes = [packet(b"a"), FLUSH.to_vec(), packet(b"")].concat();
        let (first, rest) = split_packet(&bytes).unwrap();
        let (second, rest) = split_packet(rest).unwrap();
        let (third, rest) = split_packet(rest).unwrap();
        assert_eq!((first, second, third, rest), (Some(&b"a"[..]), None, Some(&b""[..]), &b""[..]));
        for bytes in [&b""[..], b"000", b"0003", b"0006a", b"zzzz"] {
            assert_eq!(split_packet(bytes), None);
        }
    }
}
