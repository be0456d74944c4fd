//! The agent's loose objects, each deflated as it came, in one private file: a file for each would be made and removed
//! again, and a file system takes its time for that. Every byte was chosen by the agent.

use gix_hash::ObjectId;
use gix_object::Data;
use gix_zlib::Decompress;
use gix_zlib::stream::inflate;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Bytes of `<kind> <size>` and its NUL, and some of the content.
const HEAD_BYTES: usize = 64;
const CHUNK_BYTES: usize = 64 << 10;

/// A place in the file: first byte, and how many.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: u64,
    bytes: u64,
}

/// Puts objects into the file.
pub(crate) struct LooseWriter {
    output: BufWriter<File>,
    places: HashMap<ObjectId, Place>,
    end: u64,
}

/// Objects in the file, by the ids that their names say.
pub(crate) struct LooseObjects {
    file: File,
    places: HashMap<ObjectId, Place>,
}

impl LooseWriter {
    /// Makes the file.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { output: BufWriter::new(file), places: HashMap::new(), end: 0 })
    }

    /// Adds what a file of these names has.
    pub(crate) fn add(&mut self, ids: impl IntoIterator<Item = ObjectId>, content: &mut impl Read) -> io::Result<()> {
        let bytes = io::copy(content, &mut self.output)?;
        let place = Place { start: self.end, bytes };
        self.end += bytes;
        self.places.extend(ids.into_iter().map(|id| (id, place)));
        Ok(())
    }

    /// No more will be added.
    pub(crate) fn finish(self) -> io::Result<LooseObjects> {
        let file = self.output.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(LooseObjects { file, places: self.places })
    }
}

impl LooseObjects {
    /// Is there one of this name?
    pub(crate) fn has(&self, id: &ObjectId) -> bool {
        self.places.contains_key(id)
    }

    /// The object of this name, of at most `bytes_max`, inflated into `buffer`. Errors: why it cannot be read. That its content has
    /// the hash of its name is the caller's to see.
    pub(crate) fn find<'b>(
        &self,
        id: &ObjectId,
        bytes_max: usize,
        buffer: &'b mut Vec<u8>,
    ) -> Result<Option<Data<'b>>, String> {
        let Some(place) = self.places.get(id) else { return Ok(None) };
        let mut input = BufReader::new(Part { file: &self.file, place: *place });
        let mut state = Decompress::new();
        let mut inflated = |into: &mut [u8]| inflate::read(&mut input, &mut state, into).map_err(|e| e.to_string());
        let mut head = [0; HEAD_BYTES];
        let mut more = inflated(&mut head)?;
        let (kind, size, begin) = gix_object::decode::loose_header(&head[..more]).map_err(|e| e.to_string())?;
        let size = usize::try_from(size).ok().filter(|size| *size <= bytes_max);
        let size = size.ok_or_else(|| format!("it has more than {bytes_max} bytes"))?;
        buffer.clear();
        buffer.extend_from_slice(&head[begin..more]);
        let mut chunk = vec![0; if size > buffer.len() { CHUNK_BYTES } else { 1 }];
        // One look past the size that it says, so that a longer one is seen as well.
        while more > 0 && buffer.len() <= size {
            more = inflated(&mut chunk)?;
            buffer.extend_from_slice(&chunk[..more]);
        }
        if buffer.len() == size {
            Ok(Some(Data { kind, object_hash: gix_hash::Kind::Sha1, data: buffer }))
        } else {
            Err("it has another size than it says".to_owned())
        }
    }
}

/// A part of a file, read from its own position.
struct Part<'a> {
    file: &'a File,
    place: Place,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.place.bytes).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.file.read_at(&mut buffer[..most], self.place.start)?;
        self.place.start += n as u64;
        self.place.bytes -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gix_zlib::stream::deflate;
    use std::io::Write;

    /// What it is, its bytes, and its content or a part of the refusal.
    type Case<'a> = (&'a str, Vec<u8>, Result<&'a [u8], &'a str>);

    fn deflated(text: &[u8]) -> Vec<u8> {
        let mut output = deflate::Write::new(Vec::new(), gix_zlib::Compression::BEST_SPEED);
        output.write_all(text).unwrap();
        output.flush().unwrap();
        output.into_inner()
    }

    fn id(number: u8) -> ObjectId {
        ObjectId::try_from(&[number; 20][..]).unwrap()
    }

    #[test]
    fn objects_are_read_or_refused_by_what_they_say() {
        let long = vec![b'x'; 3 * CHUNK_BYTES];
        let with = |head: &str, content: &[u8]| deflated(&[head.as_bytes(), b"\0", content].concat());
        let whole = with("blob 5", b"hello");
        let cases: [Case<'_>; 15] = [
            ("a small one", whole.clone(), Ok(b"hello")),
            ("an empty one", with("tree 0", b""), Ok(b"")),
            ("a long one", with(&format!("blob {}", long.len()), &long), Ok(&long)),
            ("one as long as a head", with("blob 56", &[b'y'; 56]), Ok(&[b'y'; 56])),
            ("something behind its end", [whole.clone(), b"more".to_vec()].concat(), Ok(b"hello")),
            ("longer than it says", with("blob 4", b"hello"), Err("another size")),
            ("much longer", with("blob 4", &long), Err("another size")),
            ("shorter", with("blob 6", b"hello"), Err("another size")),
            ("too large", with("blob 2000000", b"hello"), Err("more than 1000000 bytes")),
            ("a size below nothing", with("blob -5", b"hello"), Err("")),
            ("another kind", with("bomb 5", b"hello"), Err("")),
            ("no head", deflated(&long), Err("")),
            ("cut", whole[..whole.len() - 6].to_vec(), Err("")),
            // Its checksum alone is missing: the content is whole, and what hashes it says whether it is right.
            ("cut at the very end", whole[..whole.len() - 2].to_vec(), Ok(b"hello")),
            ("nothing", Vec::new(), Err("")),
        ];
        let folder = tempfile::tempdir().unwrap();
        let mut writer = LooseWriter::create(&folder.path().join("loose")).unwrap();
        for (at, (_, bytes, _)) in cases.iter().enumerate() {
            writer.add([id(at as u8), id(at as u8 + 100)], &mut bytes.as_slice()).unwrap();
        }
        let objects = writer.finish().unwrap();
        let mut buffer = Vec::new();
        for (at, (name, _, expected)) in cases.iter().enumerate() {
            for at in [at as u8, at as u8 + 100] {
                match (objects.find(&id(at), 1_000_000, &mut buffer), expected) {
                    (Ok(Some(object)), Ok(content)) => assert!(object.data == *content, "{name}"),
                    (Err(error), Err(part)) => assert!(error.contains(part), "{name}: {error}"),
                    (got, _) => panic!("{name}: {got:?}"),
                }
            }
        }
        assert!(!objects.has(&id(99)) && objects.find(&id(99), 9, &mut buffer).unwrap().is_none());
    }

    #[test]
    fn broken_bytes_end_in_an_error() {
        let whole =
            deflated(b"blob 300\0".iter().copied().chain((0..300).map(|n| n as u8)).collect::<Vec<u8>>().as_slice());
        let folder = tempfile::tempdir().unwrap();
        let mut writer = LooseWriter::create(&folder.path().join("loose")).unwrap();
        for at in 0..200 {
            let mut broken = whole.clone();
            let place = at * (whole.len() - 1) / 200;
            broken[place] ^= 1 << (at % 8);
            writer.add([id(at as u8)], &mut broken.as_slice()).unwrap();
        }
        let objects = writer.finish().unwrap();
        let (mut buffer, mut refused) = (Vec::new(), 0);
        let content: Vec<u8> = (0..300).map(|n| n as u8).collect();
        for at in 0..200 {
            match objects.find(&id(at), 1_000, &mut buffer) {
                Err(_) => refused += 1,
                // What was broken was of no meaning.
                Ok(Some(object)) => assert!(object.data == content, "{at}"),
                Ok(None) => panic!("{at} is not there"),
            }
        }
        assert!(refused > 150, "{refused}");
    }
}
