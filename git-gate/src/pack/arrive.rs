//! The first half of receiving a pack: one thread takes it in, entry by entry, and finds where each one ends; others
//! look at the objects that are not deltas while the rest still arrives.

use std::sync::{Mutex, PoisonError};

use gix_hash::ObjectId;

use super::content::{finish, hasher};
use super::delta;
use super::entry::{self, Packed};
use super::error::Fault;
use super::incoming::Incoming;
use super::index::{Index, NONE, Names, Table};
use super::inflate::{EntryReader, Inflater};
use super::queue::Queue;
use super::show::Show;
use super::{EntryFault, ObjectKind, PackError, PackLimits};
use crate::spool::{Spool, SpoolView};

/// Blobs over this are not held in memory, but read again from the spool by whoever looks at them.
const BYTES_MAX: u64 = 4 << 20;
/// Small objects go to the workers together, about so many bytes or objects at once.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_OBJECTS: usize = 512;
/// What waits for the workers, and what they work on.
const IN_FLIGHT_BYTES: usize = 16 << 20;
/// Deltas up to this size are kept inflated until they are resolved, as long as they fit into [`KEPT_BYTES`].
const KEPT_DELTA_BYTES: usize = 64 << 10;
const KEPT_BYTES: usize = 16 << 20;
/// How much more than the ratio allows may be inflated while the pack's size is not known yet.
const SLACK_BYTES: u64 = 1 << 30;
const CHUNK: usize = 64 << 10;

/// A whole pack in the spool, its trailer right, its deltas not resolved.
pub(super) struct Arrived {
    pub(super) spool: Spool,
    pub(super) index: Index,
    pub(super) table: Table,
    /// Deltas that name their base, by that name.
    pub(super) named: Vec<(ObjectId, u32)>,
    pub(super) kept: Kept,
}

/// Small deltas, inflated on their way in.
#[derive(Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    /// Entry, start, length; ascending by entry.
    spans: Vec<(u32, u32, u32)>,
}

impl Kept {
    pub(super) fn get(&self, entry: u32) -> Option<&[u8]> {
        let place = self.spans.binary_search_by_key(&entry, |span| span.0).ok()?;
        let (_, start, len) = self.spans[place];
        Some(&self.bytes[start as usize..][..len as usize])
    }

    fn put(&mut self, entry: u32, delta: &[u8]) {
        if delta.len() > KEPT_DELTA_BYTES || self.bytes.len() + delta.len() > KEPT_BYTES {
            return;
        }
        if let (Ok(start), Ok(len)) = (u32::try_from(self.bytes.len()), u32::try_from(delta.len())) {
            self.bytes.extend_from_slice(delta);
            self.spans.push((entry, start, len));
        }
    }
}

/// What the workers get.
pub(super) enum Job {
    Batch(Batch),
    /// A blob that is in the spool as a whole, and has its name.
    Large {
        entry: u32,
        offset: u64,
        id: ObjectId,
        at: u64,
        end: u64,
        size: u64,
        spool: SpoolView,
    },
}

#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    items: Vec<Item>,
}

struct Item {
    entry: u32,
    offset: u64,
    kind: ObjectKind,
    start: usize,
    end: usize,
}

/// What the reading thread and the workers share.
pub(super) struct Shared {
    queue: Queue<Job>,
    names: Mutex<Names>,
    /// Batches that were worked on, to be filled again.
    empty: Mutex<Vec<Batch>>,
}

impl Shared {
    fn names(&self) -> std::sync::MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn empty(&self) -> std::sync::MutexGuard<'_, Vec<Batch>> {
        self.empty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a worker does with one piece.
    fn look(&self, show: Show<'_>, job: Job) -> Result<(), PackError> {
        match job {
            Job::Large { entry, offset, id, at, end, size, spool } => {
                let mut content = EntryReader::new(spool, at, end, size);
                show.blob(id, size, &mut content).map_err(|fault| fault.at(entry, offset))
            }
            Job::Batch(mut batch) => {
                let mut ids = Vec::with_capacity(batch.items.len());
                for item in &batch.items {
                    let bytes = &batch.bytes[item.start..item.end];
                    let id = show.bytes(item.kind, bytes).map_err(|fault| fault.at(item.entry, item.offset))?;
                    ids.push((item.entry, id));
                }
                let mut names = self.names();
                ids.iter().for_each(|(entry, id)| names.set(*entry, id));
                drop(names);
                batch.bytes.clear();
                batch.items.clear();
                if batch.bytes.capacity() <= 2 * BATCH_BYTES {
                    self.empty().push(batch);
                }
                Ok(())
            }
        }
    }
}

/// Takes the whole pack in.
pub(super) fn arrive(
    incoming: Incoming<'_>,
    limits: &PackLimits,
    show: Show<'_>,
    workers: usize,
) -> Result<Arrived, PackError> {
    let names = Mutex::new(Names::new(show.format));
    let shared = Shared { queue: Queue::new(IN_FLIGHT_BYTES), names, empty: Mutex::default() };
    let answer = std::thread::scope(|scope| {
        let mut end = EndOfWork { queue: &shared.queue, whole: false };
        for _ in 0..workers {
            let work = || shared.queue.work(|job| shared.look(show, job));
            std::thread::Builder::new().name("pack".into()).spawn_scoped(scope, work).map_err(PackError::Thread)?;
        }
        let arrival = Arrival::new(incoming, limits, show, &shared).whole()?;
        end.whole = true;
        Ok(arrival)
    });
    // A worker's error is the reason when the reading thread could hand nothing over any more.
    match (answer, shared.queue.error()) {
        (Ok(_) | Err(PackError::Stopped), Some(error)) => Err(error),
        (Ok(mut arrived), None) => {
            arrived.table.names = shared.names.into_inner().unwrap_or_else(PoisonError::into_inner);
            Ok(arrived)
        }
        (Err(error), _) => Err(error),
    }
}

/// However the reading thread leaves, the workers must not wait for it.
struct EndOfWork<'a> {
    queue: &'a Queue<Job>,
    whole: bool,
}

impl Drop for EndOfWork<'_> {
    fn drop(&mut self) {
        if self.whole { self.queue.close() } else { self.queue.stop() }
    }
}

/// The reading thread's state.
struct Arrival<'a, 'r> {
    incoming: Incoming<'r>,
    limits: &'a PackLimits,
    show: Show<'a>,
    shared: &'a Shared,
    index: Index,
    kinds: Vec<Option<ObjectKind>>,
    bases: Vec<u32>,
    named: Vec<(ObjectId, u32)>,
    kept: Kept,
    batch: Batch,
    inflater: Inflater,
    scratch: Vec<u8>,
    inflated: u64,
    /// [`Self::inflated`] when the sink was last asked.
    asked: u64,
}

impl<'a, 'r> Arrival<'a, 'r> {
    fn new(incoming: Incoming<'r>, limits: &'a PackLimits, show: Show<'a>, shared: &'a Shared) -> Self {
        Self {
            incoming,
            limits,
            show,
            shared,
            index: Index::default(),
            kinds: Vec::new(),
            bases: Vec::new(),
            named: Vec::new(),
            kept: Kept::default(),
            batch: Batch::default(),
            inflater: Inflater::new(),
            scratch: vec![0; CHUNK],
            inflated: 0,
            asked: 0,
        }
    }

    fn whole(mut self) -> Result<Arrived, PackError> {
        let count = self.header()?;
        for entry in 0..count {
            let offset = self.incoming.at();
            self.entry(entry, offset).map_err(|fault| fault.at(entry, offset))?;
        }
        self.hand_over()?;
        self.index.end = self.incoming.at();
        let spool = self.incoming.finish(self.show.format)?;
        check_ratio(self.inflated, spool.len(), self.limits, 0)?;
        let table = Table { kinds: self.kinds, bases: self.bases, names: Names::new(self.show.format) };
        Ok(Arrived { spool, index: self.index, table, named: self.named, kept: self.kept })
    }

    fn header(&mut self) -> Result<u32, PackError> {
        let mut header = [0; 12];
        self.incoming.bytes(&mut header)?;
        let [p, a, c, k, v0, v1, v2, v3, count @ ..] = header;
        if [p, a, c, k] != *b"PACK" {
            return Err(PackError::Header("it does not start with the word PACK"));
        }
        if u32::from_be_bytes([v0, v1, v2, v3]) != 2 {
            return Err(PackError::Header("its version is another"));
        }
        let count = u32::from_be_bytes(count);
        // The last number means "no entry".
        if count > self.limits.objects_max.min(NONE - 1) {
            return Err(PackError::Limit { name: "objects", limit: self.limits.objects_max.into() });
        }
        Ok(count)
    }

    fn entry(&mut self, entry: u32, offset: u64) -> Result<(), Fault> {
        let (packed, size) = entry::header(|| self.incoming.byte().map_err(Fault::from))?;
        self.account(size)?;
        let (kind, base) = match packed {
            Packed::Whole(kind) => (Some(kind), NONE),
            Packed::OffsetDelta => {
                let back = entry::distance(|| self.incoming.byte().map_err(Fault::from))?;
                let at = offset.checked_sub(back).ok_or(EntryFault::BaseOffset)?;
                (None, self.index.at(at).ok_or(EntryFault::BaseOffset)?)
            }
            Packed::NameDelta => {
                let mut name = vec![0; self.show.format.len_in_bytes()];
                self.incoming.bytes(&mut name)?;
                self.named.push((ObjectId::from_bytes_or_panic(&name), entry));
                (None, NONE)
            }
        };
        self.index.push(offset);
        self.kinds.push(kind);
        self.bases.push(base);
        self.inflater.reset();
        match kind {
            None => self.delta(entry, size),
            Some(ObjectKind::Blob) if size > BYTES_MAX => self.large(entry, offset, size),
            Some(kind) => self.small(entry, offset, kind, size),
        }
    }

    /// Counts bytes that an entry announces, before any of them is inflated.
    fn account(&mut self, size: u64) -> Result<(), PackError> {
        let limits = self.limits;
        if size > limits.object_bytes_max {
            return Err(PackError::Limit { name: "object_bytes", limit: limits.object_bytes_max });
        }
        self.inflated = self.inflated.saturating_add(size);
        if self.inflated > limits.inflated_bytes_max {
            return Err(PackError::Limit { name: "inflated_bytes", limit: limits.inflated_bytes_max });
        }
        check_ratio(self.inflated, self.incoming.at(), limits, SLACK_BYTES)?;
        if self.inflated - self.asked > super::ASK_BYTES {
            self.asked = self.inflated;
            self.show.sink.go_on()?;
        }
        Ok(())
    }

    /// An object that fits into memory goes to the workers with others.
    fn small(&mut self, entry: u32, offset: u64, kind: ObjectKind, size: u64) -> Result<(), Fault> {
        super::check_structured(kind, size, self.limits)?;
        let size = usize::try_from(size).map_err(|_| EntryFault::Size)?;
        let start = self.batch.bytes.len();
        self.batch.bytes.resize(start + size + 1, 0);
        let mut filled = start;
        loop {
            let input = self.incoming.fill()?;
            let step = self.inflater.step(input, &mut self.batch.bytes[filled..])?;
            filled += step.made;
            self.incoming.take(step.used)?;
            if filled > start + size {
                return Err(EntryFault::TooLong.into());
            }
            if step.done {
                break;
            }
        }
        if filled < start + size {
            return Err(EntryFault::TooShort.into());
        }
        self.batch.bytes.truncate(filled);
        self.batch.items.push(Item { entry, offset, kind, start, end: filled });
        if self.batch.bytes.len() >= BATCH_BYTES || self.batch.items.len() >= BATCH_OBJECTS {
            self.hand_over()?;
        }
        Ok(())
    }

    /// A blob that does not fit is named here, and looked at later, from the spool.
    fn large(&mut self, entry: u32, offset: u64, size: u64) -> Result<(), Fault> {
        let at = self.incoming.at();
        let mut hasher = hasher(self.show.format, ObjectKind::Blob, size);
        self.stream(size, |bytes| hasher.update(bytes))?;
        let id = finish(hasher)?;
        let job = Job::Large { entry, offset, id, at, end: self.incoming.at(), size, spool: self.incoming.view()? };
        self.shared.names().set(entry, &id);
        self.hand_over()?;
        Ok(self.shared.queue.push(job, CHUNK).map_err(|_| PackError::Stopped)?)
    }

    /// Of a delta, what it will result in is counted now; the rest is for later.
    fn delta(&mut self, entry: u32, size: u64) -> Result<(), Fault> {
        let keep = usize::try_from(size).is_ok_and(|size| size <= KEPT_DELTA_BYTES);
        let mut front = Vec::new();
        self.stream(size, |bytes| {
            let room = if keep {
                bytes.len()
            } else {
                bytes.len().min(delta::SIZES_BYTES_MAX - front.len().min(delta::SIZES_BYTES_MAX))
            };
            front.extend_from_slice(&bytes[..room]);
        })?;
        let sizes = delta::sizes(&mut front.as_slice())?;
        self.account(sizes.result)?;
        if keep {
            self.kept.put(entry, &front);
        }
        Ok(())
    }

    /// Inflates an entry piece by piece, without keeping any of it.
    fn stream(&mut self, size: u64, mut each: impl FnMut(&[u8])) -> Result<(), Fault> {
        let mut left = size;
        loop {
            let input = self.incoming.fill()?;
            let step = self.inflater.step(input, &mut self.scratch)?;
            self.incoming.take(step.used)?;
            left = left.checked_sub(step.made as u64).ok_or(EntryFault::TooLong)?;
            each(&self.scratch[..step.made]);
            if step.done {
                return if left > 0 { Err(EntryFault::TooShort.into()) } else { Ok(()) };
            }
        }
    }

    fn hand_over(&mut self) -> Result<(), PackError> {
        if self.batch.items.is_empty() {
            return Ok(());
        }
        let next = self.shared.empty().pop().unwrap_or_default();
        let batch = std::mem::replace(&mut self.batch, next);
        let bytes = batch.bytes.len();
        self.shared.queue.push(Job::Batch(batch), bytes).map_err(|_| PackError::Stopped)
    }
}

fn check_ratio(inflated: u64, pack: u64, limits: &PackLimits, slack: u64) -> Result<(), PackError> {
    let allowed = pack.saturating_mul(limits.inflated_ratio_max).saturating_add(limits.inflated_extra_bytes);
    if inflated > allowed.saturating_add(slack) {
        return Err(PackError::Limit { name: "inflated_ratio", limit: limits.inflated_ratio_max });
    }
    Ok(())
}
