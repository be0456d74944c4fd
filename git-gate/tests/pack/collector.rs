//! A sink that remembers all it was shown, and the short way to receive a pack.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::sync::Mutex;

use git_gate::pack::{
    Content, Object, ObjectFormat, ObjectId, ObjectKind, PackError, PackLimits, Refused, Sink, Verified, receive,
};
use git_gate::spool::{Spool, SpoolBudget};

/// Objects by name.
pub type Objects = BTreeMap<ObjectId, (ObjectKind, Vec<u8>)>;

#[derive(Default)]
pub struct Collector {
    pub objects: Mutex<Objects>,
    /// How many times an object was shown, duplicates too.
    pub shown: Mutex<u64>,
    /// How many contents were streams.
    pub streams: Mutex<u64>,
    /// Refuses objects with these bytes in them.
    pub refuses: Option<&'static [u8]>,
}

impl Sink for Collector {
    fn object(&self, object: Object<'_>) -> Result<(), Refused> {
        let bytes = match object.content {
            Content::Bytes(bytes) => bytes.to_vec(),
            Content::Stream(stream) => {
                *self.streams.lock().unwrap() += 1;
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                bytes
            }
        };
        assert_eq!(bytes.len() as u64, object.size);
        *self.shown.lock().unwrap() += 1;
        if self.refuses.is_some_and(|word| bytes.windows(word.len()).any(|part| part == word)) {
            return Err(Refused("the sink has seen enough".into()));
        }
        let before = self.objects.lock().unwrap().insert(object.id, (object.kind, bytes.clone()));
        assert!(before.is_none_or(|(_, other)| other == bytes), "one name, two contents");
        Ok(())
    }
}

/// A budget that is never the reason.
pub fn budget() -> SpoolBudget {
    SpoolBudget::new(64 << 30)
}

pub fn spool() -> Spool {
    Spool::create(&std::env::temp_dir(), &budget()).unwrap()
}

/// Receives `pack` and gives everything that was shown. What follows the pack must be left alone.
pub fn take(pack: &[u8], limits: &PackLimits, format: ObjectFormat) -> Result<(Verified, Objects), PackError> {
    const AFTER: &[u8] = b"0000 what follows the pack is not its business PACK";
    let collector = Collector::default();
    let all = [pack, AFTER].concat();
    // A reader whose buffer ends anywhere, not where the pack ends.
    let mut reader = BufReader::with_capacity(37, all.as_slice());
    let answer = receive(&mut reader, spool(), limits, format, &collector);
    if let Ok(verified) = &answer {
        let mut forwarded = Vec::new();
        verified.reader().read_to_end(&mut forwarded).unwrap();
        let (received, rest) = all.split_at(forwarded.len());
        assert_eq!(forwarded, received, "other bytes than those that were received would be forwarded");
        let mut left = Vec::new();
        reader.read_to_end(&mut left).unwrap();
        assert_eq!(left, rest, "bytes behind the pack were taken");
        assert_eq!(u64::from(verified.objects()), *collector.shown.lock().unwrap(), "an entry was not shown");
    }
    answer.map(|verified| (verified, collector.objects.into_inner().unwrap()))
}

/// [`take`] of a SHA-1 pack under the usual limits.
pub fn take_sha1(pack: &[u8]) -> Result<(Verified, Objects), PackError> {
    take(pack, &PackLimits::default(), ObjectFormat::Sha1)
}

/// Everything an error says, its sources too.
pub fn words(error: &PackError) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        words = format!("{words}: {error}");
        source = error.source();
    }
    words
}
