//! What one push may cost. Every limit has a name and a value, and over one of them the push is refused: a scan that was
//! cut short says nothing about what it did not see.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The limits of one push. [`Budget::default`] has those of the design; all are shared by the push's threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Work that every push may do, in units: about a byte that is searched for keywords once.
    pub work_units: u64,
    /// Work more for every byte that is given, so that a large honest push has as much as a small one.
    pub work_units_per_byte: u64,
    /// Time inside the scan, summed over threads, that every push may take.
    pub time: Duration,
    /// How many given bytes earn one second more.
    pub bytes_per_extra_second: u64,
    /// How many decoders may be stacked. Deeper text is not decoded, deeper compressed data is refused.
    pub depth_max: u32,
    /// What compressed data of one object may come to, all layers together.
    pub decoded_bytes_per_object_max: u64,
    /// What compressed data of one push may come to.
    pub decoded_bytes_max: u64,
    /// Archive entries and compressed streams that may be opened in one push.
    pub archive_entries_max: u64,
    /// Findings that are kept.
    pub findings_max: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            work_units: 32 << 30,
            work_units_per_byte: 64,
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
    #[error("the scan's limit \"{name}\" of {value} {unit} was reached, so the push cannot be judged")]
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
    /// A call of this scan did not come to its end: it panicked, or is running still.
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

/// What a push has used so far, and whether anything failed.
#[derive(Debug)]
pub(super) struct Used {
    budget: Budget,
    pub(super) given: AtomicU64,
    work: AtomicU64,
    nanoseconds: AtomicU64,
    decoded: AtomicU64,
    entries: AtomicU64,
    findings: AtomicU64,
    begun: AtomicU64,
    ended: AtomicU64,
    refused: Mutex<Option<Refused>>,
}

impl Used {
    pub(super) fn new(budget: Budget) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            budget,
            given: zero(),
            work: zero(),
            nanoseconds: zero(),
            decoded: zero(),
            entries: zero(),
            findings: zero(),
            begun: zero(),
            ended: zero(),
            refused: Mutex::new(None),
        }
    }

    #[cfg(test)]
    pub(super) fn work(&self) -> u64 {
        self.work.load(Ordering::Relaxed)
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// A call begins. Until [`Used::end`] says that it came to its end, the scan cannot be clean.
    pub(super) fn begin(&self) -> Result<(), Refused> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.refused()
    }

    /// A call came to its end, well or not. The first failure stays.
    pub(super) fn end(&self, outcome: &Result<(), Refused>) {
        match outcome {
            Ok(()) => {
                self.ended.fetch_add(1, Ordering::SeqCst);
            }
            Err(refused) => {
                let mut kept = self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                kept.get_or_insert_with(|| refused.clone());
            }
        }
    }

    /// Whether all calls came to their ends well, and how many there were.
    pub(super) fn finish(&self) -> Result<u64, Refused> {
        self.refused()?;
        let (begun, ended) = (self.begun.load(Ordering::SeqCst), self.ended.load(Ordering::SeqCst));
        if begun == ended { Ok(begun) } else { Err(Refused::Unfinished) }
    }

    pub(super) fn given(&self, bytes: u64) {
        self.given.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn finding(&self) -> Result<(), Refused> {
        count(&self.findings, 1, self.budget.findings_max, "findings", "of one push")
    }

    fn refused(&self) -> Result<(), Refused> {
        self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }
}

/// One call's account; what it uses is added to the push's now and then.
#[derive(Debug)]
pub(super) struct Meter<'a> {
    used: &'a Used,
    work: u64,
    since: Instant,
    decoded: u64,
    refused: Option<Refused>,
}

/// Work between two looks at the limits, about a millisecond's.
const SETTLE_UNITS: u64 = 1 << 18;

impl<'a> Meter<'a> {
    pub(super) fn new(used: &'a Used) -> Self {
        Self { used, work: 0, since: Instant::now(), decoded: 0, refused: None }
    }

    pub(super) fn work(&mut self, units: u64) -> Result<(), Refused> {
        self.work += units;
        if self.work >= SETTLE_UNITS { self.settle() } else { Ok(()) }
    }

    /// Adds what was used to the push's account, and looks at its limits.
    pub(super) fn settle(&mut self) -> Result<(), Refused> {
        let budget = &self.used.budget;
        let given = self.used.given.load(Ordering::Relaxed);
        let most = budget.work_units.saturating_add(budget.work_units_per_byte.saturating_mul(given));
        count(&self.used.work, std::mem::take(&mut self.work), most, "scan work", "units")?;
        let now = Instant::now();
        let spent = u64::try_from(now.duration_since(self.since).as_nanos()).unwrap_or(u64::MAX);
        self.since = now;
        let spent = self.used.nanoseconds.fetch_add(spent, Ordering::Relaxed).saturating_add(spent);
        let seconds = budget.time.as_secs().saturating_add(given / budget.bytes_per_extra_second.max(1));
        if u128::from(spent) > budget.time.as_nanos() + u128::from(seconds - budget.time.as_secs()) * 1_000_000_000 {
            return Err(Refused::Limit { name: "scan_seconds", value: seconds, unit: "seconds" });
        }
        Ok(())
    }

    /// Bytes came out of compressed data.
    pub(super) fn decoded(&mut self, bytes: u64) -> Result<(), Refused> {
        let budget = &self.used.budget;
        self.decoded = self.decoded.saturating_add(bytes);
        let most = budget.decoded_bytes_per_object_max;
        if self.decoded > most {
            return Err(Refused::Limit { name: "decode_blob_bytes", value: most, unit: "bytes" });
        }
        count(&self.used.decoded, bytes, budget.decoded_bytes_max, "decode_push_bytes", "bytes")?;
        // Decompression costs more than the search does.
        self.work(bytes.saturating_mul(4))
    }

    /// Compressed data was opened.
    pub(super) fn entry(&mut self) -> Result<(), Refused> {
        count(&self.used.entries, 1, self.used.budget.archive_entries_max, "archive_entries", "of one push")
    }

    /// Keeps a refusal for [`Meter::refused`] and gives the error that a reader can report.
    pub(super) fn refuse(&mut self, refused: Refused) -> std::io::Error {
        self.refused.get_or_insert(refused);
        std::io::Error::other("the scan has ended")
    }

    /// What a reader refused.
    pub(super) fn refused(&self) -> Result<(), Refused> {
        self.refused.clone().map_or(Ok(()), Err)
    }
}

fn count(of: &AtomicU64, more: u64, most: u64, name: &'static str, unit: &'static str) -> Result<(), Refused> {
    let all = of.fetch_add(more, Ordering::Relaxed).saturating_add(more);
    if all > most { Err(Refused::Limit { name, value: most, unit }) } else { Ok(()) }
}
