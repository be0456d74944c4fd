//! Writes packs byte by byte, right or wrong.

use git_gate::pack::{ObjectFormat, ObjectId, ObjectKind};
use zlib_rs::{Deflate, DeflateFlush, Status};

pub const COMMIT: u8 = 1;
pub const TREE: u8 = 2;
pub const BLOB: u8 = 3;
pub const TAG: u8 = 4;
pub const OFS: u8 = 6;
pub const REF: u8 = 7;

pub struct PackBuilder {
    format: ObjectFormat,
    bytes: Vec<u8>,
    pub offsets: Vec<u64>,
}

impl PackBuilder {
    pub fn new(format: ObjectFormat) -> Self {
        Self { format, bytes: b"PACK\0\0\0\x02\0\0\0\0".to_vec(), offsets: Vec::new() }
    }

    pub fn sha1() -> Self {
        Self::new(ObjectFormat::Sha1)
    }

    /// Any type, any announced size, any bytes between header and stream, any stream.
    pub fn raw(mut self, kind: u8, size: u64, between: &[u8], stream: &[u8]) -> Self {
        self.offsets.push(self.bytes.len() as u64);
        self.bytes.extend(entry_header(kind, size));
        self.bytes.extend_from_slice(between);
        self.bytes.extend_from_slice(stream);
        self
    }

    pub fn whole(self, kind: u8, content: &[u8]) -> Self {
        self.raw(kind, content.len() as u64, b"", &deflate(content))
    }

    pub fn blob(self, content: &[u8]) -> Self {
        self.whole(BLOB, content)
    }

    /// A delta on the entry of that number.
    pub fn on_entry(self, entry: usize, delta: &[u8]) -> Self {
        let back = self.bytes.len() as u64 - self.offsets[entry];
        self.on_distance(back, delta)
    }

    pub fn on_distance(self, back: u64, delta: &[u8]) -> Self {
        self.raw(OFS, delta.len() as u64, &distance(back), &deflate(delta))
    }

    pub fn on_name(self, name: &ObjectId, delta: &[u8]) -> Self {
        self.raw(REF, delta.len() as u64, name.as_slice(), &deflate(delta))
    }

    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub fn finish(self) -> Vec<u8> {
        let count = self.offsets.len() as u32;
        self.finish_saying(count)
    }

    /// Says there are so many entries.
    pub fn finish_saying(mut self, count: u32) -> Vec<u8> {
        self.bytes[8..12].copy_from_slice(&count.to_be_bytes());
        sign(&mut self.bytes, self.format);
        self.bytes
    }
}

/// Puts the checksum of `bytes` behind them.
pub fn sign(bytes: &mut Vec<u8>, format: ObjectFormat) {
    let mut hasher = gix_hash::hasher(format);
    hasher.update(bytes);
    bytes.extend_from_slice(hasher.try_finalize().unwrap().as_slice());
}

pub fn entry_header(kind: u8, size: u64) -> Vec<u8> {
    let mut first = kind << 4 | (size & 15) as u8;
    let mut rest = size >> 4;
    let mut header = Vec::new();
    while rest > 0 {
        header.push(first | 0x80);
        first = (rest & 0x7f) as u8;
        rest >>= 7;
    }
    header.push(first);
    header
}

pub fn distance(mut back: u64) -> Vec<u8> {
    let mut bytes = vec![(back & 0x7f) as u8];
    while back >> 7 > 0 {
        back = (back >> 7) - 1;
        bytes.insert(0, (back & 0x7f) as u8 | 0x80);
    }
    bytes
}

pub fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

pub fn deflate(content: &[u8]) -> Vec<u8> {
    deflate_with(content, 6)
}

pub fn deflate_with(content: &[u8], level: i32) -> Vec<u8> {
    let mut out = vec![0; content.len() + content.len() / 8 + 128];
    let mut deflate = Deflate::new(level, true, 15);
    assert_eq!(deflate.compress(content, &mut out, DeflateFlush::Finish).unwrap(), Status::StreamEnd);
    out.truncate(deflate.total_out() as usize);
    out
}

pub enum Op<'a> {
    Copy(u32, u32),
    Insert(&'a [u8]),
    Raw(&'a [u8]),
}

/// A delta that says those sizes and has those instructions.
pub fn delta(base: usize, result: usize, ops: &[Op<'_>]) -> Vec<u8> {
    let mut bytes = varint(base as u64);
    bytes.extend(varint(result as u64));
    for op in ops {
        match op {
            Op::Copy(from, len) => {
                let place = bytes.len();
                bytes.push(0x80);
                for (bit, byte) in from.to_le_bytes().iter().chain(&len.to_le_bytes()[..3]).enumerate() {
                    if *byte != 0 {
                        bytes[place] |= 1 << bit;
                        bytes.push(*byte);
                    }
                }
            }
            Op::Insert(text) => {
                for part in text.chunks(127) {
                    bytes.push(part.len() as u8);
                    bytes.extend_from_slice(part);
                }
            }
            Op::Raw(raw) => bytes.extend_from_slice(raw),
        }
    }
    bytes
}

pub fn name(format: ObjectFormat, kind: ObjectKind, content: &[u8]) -> ObjectId {
    let mut hasher = gix_hash::hasher(format);
    hasher.update(format!("{} {}\0", kind.name(), content.len()).as_bytes());
    hasher.update(content);
    hasher.try_finalize().unwrap()
}

pub fn blob_name(content: &[u8]) -> ObjectId {
    name(ObjectFormat::Sha1, ObjectKind::Blob, content)
}

/// A tree of such lines, as they are.
pub fn tree(lines: &[(&str, &[u8], ObjectId)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (mode, name, oid) in lines {
        bytes.extend_from_slice(mode.as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(name);
        bytes.push(0);
        bytes.extend_from_slice(oid.as_slice());
    }
    bytes
}

pub fn commit(tree: &ObjectId, parents: &[ObjectId]) -> Vec<u8> {
    let parents: String = parents.iter().map(|parent| format!("parent {parent}\n")).collect();
    let who = "A <a@example.org> 1700000000 +0000";
    format!("tree {tree}\n{parents}author {who}\ncommitter {who}\n\nwords\n").into_bytes()
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
