//! What one push may cost. Every limit has a name and a value, and over one of them the push is refused: a scan that was
//! cut short says nothing about what it did not see.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The limits of one push. [`Budget::default`] has those of the design; all are shared by the push's threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Work that every push may do, in units of one byte searched for keywords once.
    pub work_units: u64,
    /// Work more for every byte that is given, so that a large honest push has as much as a small one.
    pub work_units_per_byte: u64,
    /// Time inside the scan, summed over threads, that every push may take.
    pub time: Duration,
    /// How many given bytes earn one second more.
    pub bytes_per_extra_second: u64,
    /// How many decoders may be stacked.
    pub depth_max: u32,
    /// What decoders may make of one object, all layers together.
    pub decoded_bytes_per_object_max: u64,
    /// What decoders may make of one push.
    pub decoded_bytes_max: u64,
    /// Archive entries and compressed streams that may be opened in one push.
    pub archive_entries_max: u64,
    /// Findings that are kept.
    pub findings_max: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            work_units: 40 << 30,
            work_units_per_byte: 256,
            time: Duration::from_secs(120),
            bytes_per_extra_second: 4 << 20,
            depth_max: 3,
            decoded_bytes_per_object_max: 64 << 20,
            decoded_bytes_max: 1 << 30,
            archive_entries_max: 10_000,
            findings_max: 10_000,
        }
    }
}

/// Why a scan cannot say anything: the push must be refused. Holds no byte of the push.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A limit was reached.
    #[error("the scan's limit {name} of {value} {unit} was reached, so the push cannot be judged")]
    Limit {
        /// The limit, as documents call it.
        name: &'static str,
        /// What it stands at.
        value: u64,
        /// Of what.
        unit: &'static str,
    },
    /// What was to be scanned could not be read to its end.
    #[error("an object could not be read to its end")]
    Read(#[source] std::sync::Arc<ReadError>),
    /// A call of this scan did not come to its end, by a panic or because it is still running.
    #[error("a part of the scan did not come to its end")]
    Unfinished,
}

/// A reader's error, comparable by its kind alone.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ReadError(pub std::io::Error);

impl PartialEq for ReadError {
    fn eq(&self, other: &Self) -> bool {
        self.0.kind() == other.0.kind()
    }
}

impl Eq for ReadError {}

/// What a push has used so far.
#[derive(Debug, Default)]
#[allow(dead_code)]
pub(super) struct Used {
    pub(super) given: AtomicU64,
    pub(super) work: AtomicU64,
    pub(super) nanoseconds: AtomicU64,
    pub(super) decoded: AtomicU64,
    pub(super) entries: AtomicU64,
    pub(super) failed: AtomicBool,
}

impl Used {
    pub(super) fn give(&self, bytes: u64) {
        self.given.fetch_add(bytes, Ordering::Relaxed);
    }
}
