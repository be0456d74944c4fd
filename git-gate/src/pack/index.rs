//! What is remembered of each entry of a pack: about fifty bytes, so that two million of them fit beside everything else.

use gix_hash::{Kind, ObjectId};

use crate::objects::ObjectKind;

/// "No entry", where an entry's number is expected.
pub(super) const NONE: u32 = u32::MAX;

/// Where each entry of a pack is, in the pack's order.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Where each entry starts; ascending.
    offsets: Vec<u64>,
    /// Where the entries end and the trailer starts.
    pub(super) end: u64,
}

impl Index {
    pub(super) fn push(&mut self, offset: u64) {
        self.offsets.push(offset);
    }

    pub(super) fn len(&self) -> u32 {
        // Bounded by the count in the header, which has 32 bits.
        u32::try_from(self.offsets.len()).unwrap_or(NONE)
    }

    /// The entry that starts exactly at `offset`.
    pub(super) fn at(&self, offset: u64) -> Option<u32> {
        self.offsets.binary_search(&offset).ok().and_then(|entry| u32::try_from(entry).ok())
    }

    pub(super) fn offset(&self, entry: u32) -> u64 {
        self.offsets[entry as usize]
    }

    /// Where the entry's last byte was, plus one.
    pub(super) fn end_of(&self, entry: u32) -> u64 {
        self.offsets.get(entry as usize + 1).copied().unwrap_or(self.end)
    }
}

/// What each entry turned out to be.
#[derive(Debug)]
pub(super) struct Table {
    /// What it is; of a delta, once it is resolved.
    pub(super) kinds: Vec<Option<ObjectKind>>,
    /// What a delta stands on, once that is known.
    pub(super) bases: Vec<u32>,
    pub(super) names: Names,
}

/// The names of the entries, by number, with as many bytes each as the format has.
#[derive(Debug)]
pub(super) struct Names {
    bytes: Vec<u8>,
    format: Kind,
}

impl Names {
    pub(super) fn new(format: Kind) -> Self {
        Self { bytes: Vec::new(), format }
    }

    pub(super) fn set(&mut self, entry: u32, name: &ObjectId) {
        let len = self.format.len_in_bytes();
        let start = entry as usize * len;
        if self.bytes.len() < start + len {
            self.bytes.resize(start + len, 0);
        }
        self.bytes[start..start + len].copy_from_slice(name.as_slice());
    }

    pub(super) fn of(&self, entry: u32) -> &[u8] {
        let len = self.format.len_in_bytes();
        &self.bytes[entry as usize * len..][..len]
    }

    pub(super) fn id(&self, entry: u32) -> ObjectId {
        ObjectId::from_bytes_or_panic(self.of(entry))
    }

    /// All numbers in the order of the names.
    pub(super) fn order(&self) -> Vec<u32> {
        let count = u32::try_from(self.bytes.len() / self.format.len_in_bytes()).unwrap_or(NONE);
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_unstable_by(|a, b| self.of(*a).cmp(self.of(*b)));
        order
    }
}
