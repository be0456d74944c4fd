//! What the targets share: a sink that remembers, and packs around bytes.

use std::collections::BTreeMap;
use std::sync::Mutex;

use git_gate::pack::{
    Content, Object, ObjectFormat, ObjectId, ObjectKind, PackError, PackLimits, Refused, Sink, Verified, receive,
};
use git_gate::spool::{Spool, SpoolBudget};

/// Objects by name, and how often each was shown.
pub type Shown = BTreeMap<ObjectId, (ObjectKind, Vec<u8>, u32)>;

#[derive(Default)]
struct Remember(Mutex<Shown>);

impl Sink for Remember {
    fn object(&self, object: Object<'_>) -> Result<(), Refused> {
        let bytes = match object.content {
            Content::Bytes(bytes) => bytes.to_vec(),
            Content::Stream(stream) => {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).expect("a stream of verified bytes");
                bytes
            }
        };
        assert_eq!(bytes.len() as u64, object.size);
        let format = object.id.kind();
        let mut hasher = gix_hash::hasher(format);
        hasher.update(format!("{} {}\0", object.kind.name(), object.size).as_bytes());
        hasher.update(&bytes);
        assert_eq!(hasher.try_finalize().expect("no attack"), object.id, "another name");
        let mut shown = self.0.lock().expect("no panic in here");
        shown.entry(object.id).or_insert((object.kind, bytes, 0)).2 += 1;
        Ok(())
    }
}

/// Small limits, so that a fuzzer does not spend its time on copying.
pub fn limits() -> PackLimits {
    PackLimits {
        pack_bytes_max: 1 << 20,
        object_bytes_max: 1 << 20,
        structured_bytes_max: 1 << 18,
        inflated_bytes_max: 8 << 20,
        objects_max: 1000,
        delta_depth_max: 50,
        ..PackLimits::default()
    }
}

/// Receives a pack twice, with memory and without, and holds the answers against one another.
pub fn take(pack: &[u8], format: ObjectFormat) -> Result<(Verified, Shown), PackError> {
    let one = once(pack, format, &limits());
    let two = once(pack, format, &PackLimits { resolver_memory_bytes: 0, ..limits() });
    match (&one, &two) {
        (Ok((verified, shown)), Ok((_, again))) => {
            assert!(shown == again, "other objects without memory");
            let sum: u32 = shown.values().map(|(_, _, times)| times).sum();
            assert_eq!(sum, verified.objects(), "an entry was not shown");
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut verified.reader(), &mut bytes).expect("verified bytes");
            assert!(pack.starts_with(&bytes), "other bytes than those that came");
        }
        (Err(_), Err(_)) => {}
        _ => panic!("accepted with memory and not without, or the other way round"),
    }
    one
}

fn once(pack: &[u8], format: ObjectFormat, limits: &PackLimits) -> Result<(Verified, Shown), PackError> {
    let budget = SpoolBudget::new(64 << 20);
    let spool = Spool::create(std::path::Path::new("/dev/shm"), &budget).expect("a folder");
    let sink = Remember::default();
    let mut reader = pack;
    let verified = receive(&mut reader, spool, limits, format, &sink)?;
    assert_eq!(pack.len() - reader.len(), usize::try_from(verified.bytes()).expect("small"), "read too far");
    Ok((verified, sink.0.into_inner().expect("no panic in there")))
}

/// Puts header and checksum around entries.
pub fn pack_of(count: u32, entries: &[u8], format: ObjectFormat) -> Vec<u8> {
    let mut pack = b"PACK\0\0\0\x02".to_vec();
    pack.extend_from_slice(&count.to_be_bytes());
    pack.extend_from_slice(entries);
    let mut hasher = gix_hash::hasher(format);
    hasher.update(&pack);
    pack.extend_from_slice(hasher.try_finalize().expect("no attack").as_slice());
    pack
}

/// A zlib stream of `content`.
pub fn deflate(content: &[u8]) -> Vec<u8> {
    let mut out = vec![0; content.len() + content.len() / 8 + 128];
    let mut deflate = zlib_rs::Deflate::new(1, true, 15);
    deflate.compress(content, &mut out, zlib_rs::DeflateFlush::Finish).expect("room");
    out.truncate(usize::try_from(deflate.total_out()).expect("small"));
    out
}
