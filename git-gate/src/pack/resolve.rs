//! The second half of receiving a pack: every delta is carried out, from the objects that are whole up to the last that
//! stands on others. The memory for it is bounded: what has no room is built on disk.
//!
//! Each worker takes one whole object after the other and goes through everything that stands on it, depth first, the
//! smaller branches first, and lets go of a base before it follows the last branch. So no base is ever built twice, and
//! (as far as distances tell) no more than the logarithm of all entries are held at once, however long the chains are.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gix_hash::ObjectId;

use super::arrive::{Arrived, Kept};
use super::content::{Blocks, Content, DiskBase, DiskReader, Memory, MemoryBase, Writer, hasher};
use super::delta::{self, Base};
use super::error::Fault;
use super::index::{Index, Table};
use super::links::Links;
use super::show::Show;
use super::stored::{Buffers, Stored};
use super::{ASK_BYTES, ObjectKind, PackError, PackLimits, check_structured};
use crate::spool::{Piece, Scratch, Spool};

/// Longer deltas are carried out from a stream.
const DELTA_BYTES_MAX: u64 = 1 << 20;
/// So many entries a worker takes up at once.
const ROOTS: u64 = 256;
/// So many results are entered together.
const RESULTS: usize = 256;
const CHUNK: usize = 64 << 10;

/// A pack whose every entry has a kind and a name.
pub(super) struct Resolved {
    pub(super) spool: Spool,
    pub(super) index: Index,
    pub(super) table: Table,
}

/// Resolves every delta and shows what comes out.
pub(super) fn resolve(
    arrived: Arrived,
    limits: &PackLimits,
    show: Show<'_>,
    workers: usize,
) -> Result<Resolved, PackError> {
    let Arrived { spool, index, table, named, kept } = arrived;
    if table.kinds.iter().all(Option::is_some) {
        return Ok(Resolved { spool, index, table });
    }
    let links = Links::new(&table.bases, named);
    let memory = Memory::new(limits.resolver_memory_bytes);
    let whole = table.kinds.clone();
    let work = Work {
        spool: &spool,
        stored: Stored { spool: spool.view(), index: &index, format: show.format },
        links: &links,
        kept: &kept,
        memory: &memory,
        limits,
        show,
        whole: &whole,
        table: Mutex::new(table),
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        error: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        for _ in 1..workers {
            let worker = || Worker::new(&work).run();
            // With fewer threads it only takes longer.
            let _ = std::thread::Builder::new().name("deltas".into()).spawn_scoped(scope, worker);
        }
        Worker::new(&work).run();
    });
    let Work { table, error, .. } = work;
    if let Some(error) = error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let table = table.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut open = (0u32..).zip(&table.kinds).filter(|(_, kind)| kind.is_none()).map(|(entry, _)| entry);
    if let Some(entry) = open.next() {
        let count = u32::try_from(open.count()).unwrap_or(u32::MAX).saturating_add(1);
        return Err(PackError::Unresolved { count, entry, offset: index.offset(entry) });
    }
    Ok(Resolved { spool, index, table })
}

/// What the workers share.
struct Work<'a> {
    spool: &'a Spool,
    stored: Stored<'a>,
    links: &'a Links,
    kept: &'a Kept,
    memory: &'a Memory,
    limits: &'a PackLimits,
    show: Show<'a>,
    /// The kinds of those entries that are no deltas.
    whole: &'a [Option<ObjectKind>],
    table: Mutex<Table>,
    /// The first entry that no worker has taken up.
    next: AtomicU64,
    stop: AtomicBool,
    error: Mutex<Option<PackError>>,
}

impl Work<'_> {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A base, with what is still to be built on it.
struct Frame<'a> {
    content: Content<'a>,
    entry: u32,
    children: Vec<u32>,
    depth: u32,
}

struct Worker<'a> {
    work: &'a Work<'a>,
    buffers: Buffers,
    blocks: Blocks,
    /// The worker's own file, once it needs one.
    scratch: Option<Scratch>,
    delta: Vec<u8>,
    /// Built since the sink was last asked.
    built: u64,
    results: Vec<(u32, ObjectKind, u32, ObjectId)>,
}

impl<'a> Worker<'a> {
    fn new(work: &'a Work<'a>) -> Self {
        Self {
            work,
            buffers: Buffers::new(),
            blocks: Blocks::new(),
            scratch: None,
            delta: Vec::new(),
            built: 0,
            results: Vec::with_capacity(RESULTS),
        }
    }

    fn run(mut self) {
        // Also when the sink panics, the others should not go on for nothing.
        let stop = StopOnPanic(&self.work.stop);
        let answer = self.roots();
        drop(stop);
        if let Err(error) = answer {
            self.work.stop.store(true, Ordering::Release);
            self.work.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    fn roots(&mut self) -> Result<(), PackError> {
        let count = u64::from(self.work.stored.index.len());
        loop {
            let start = self.work.next.fetch_add(ROOTS, Ordering::AcqRel);
            if start >= count {
                self.enter();
                return Ok(());
            }
            let entries = (start..(start + ROOTS).min(count)).filter_map(|entry| u32::try_from(entry).ok());
            let whole = entries.filter_map(|entry| self.work.whole[entry as usize].map(|kind| (entry, kind)));
            let roots: Vec<_> = {
                let table = self.work.table();
                whole.map(|(entry, kind)| (entry, kind, table.names.id(entry))).collect()
            };
            for (entry, kind, id) in roots {
                self.root(entry, kind, &id)?;
            }
        }
    }

    /// Everything that stands on one object.
    fn root(&mut self, entry: u32, kind: ObjectKind, id: &ObjectId) -> Result<(), PackError> {
        let children = self.work.links.children(entry, id);
        if children.is_empty() {
            return Ok(());
        }
        let content = self.whole(entry).map_err(|fault| fault.at(entry, self.work.stored.index.offset(entry)))?;
        let mut frames = vec![Frame { content, entry, children, depth: 0 }];
        while let Some(frame) = frames.last_mut() {
            let Some(child) = frame.children.pop() else {
                frames.pop();
                continue;
            };
            let (base, depth) = (frame.entry, frame.depth + 1);
            let offset = self.work.stored.index.offset(child);
            if depth > self.work.limits.delta_depth_max {
                return Err(PackError::Limit { name: "delta_depth", limit: self.work.limits.delta_depth_max.into() });
            }
            let built = self.build(child, kind, &frame.content).map_err(|fault| fault.at(child, offset))?;
            if frame.children.is_empty() {
                frames.pop();
            }
            let id = self.look(kind, &built).map_err(|fault| fault.at(child, offset))?;
            self.note(child, kind, base, id)?;
            let children = self.work.links.children(child, &id);
            if !children.is_empty() {
                frames.push(Frame { content: built.content, entry: child, children, depth });
            }
        }
        Ok(())
    }

    /// An object that is whole in the pack.
    fn whole(&mut self, entry: u32) -> Result<Content<'a>, Fault> {
        let work = self.work;
        let size = work.stored.size(entry).map_err(Fault::spool)?;
        if let Some(room) = work.memory.take(size) {
            let mut bytes = Vec::new();
            let read = work.stored.read(entry, size, &mut self.buffers, &mut bytes).map_err(Fault::spool)?;
            if read.is_some() {
                return Ok(Content::Memory { bytes, _room: room });
            }
        }
        let mut stream = work.stored.stream(entry).map_err(Fault::spool)?;
        let mut piece = self.piece()?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = fill(&mut stream, &mut chunk).map_err(Fault::spool)?;
            if n == 0 {
                return Ok(Content::Disk(piece));
            }
            piece.append(&chunk[..n])?;
            self.count(n as u64)?;
        }
    }

    /// Carries out the delta `child` on `base`.
    fn build(&mut self, child: u32, kind: ObjectKind, base: &Content<'_>) -> Result<Built<'a>, Fault> {
        let work = self.work;
        if let Some(delta) = work.kept.get(child) {
            return self.build_from(kind, base, delta);
        }
        let mut delta = std::mem::take(&mut self.delta);
        let read = work.stored.read(child, DELTA_BYTES_MAX, &mut self.buffers, &mut delta).map_err(Fault::spool)?;
        if read.is_none() {
            let mut stream = work.stored.stream(child).map_err(Fault::spool)?;
            return self.build_streamed(kind, base, &mut stream);
        }
        let built = self.build_from(kind, base, &delta)?;
        self.delta = delta;
        Ok(built)
    }

    fn build_from(&mut self, kind: ObjectKind, base: &Content<'_>, mut delta: &[u8]) -> Result<Built<'a>, Fault> {
        let size = delta::sizes(&mut &*delta)?.result;
        check_structured(kind, size, self.work.limits)?;
        if let Content::Memory { bytes: base, .. } = base
            && let Some(room) = self.work.memory.take(size)
        {
            let mut bytes = Vec::new();
            delta::apply(base, delta, &mut bytes)?;
            self.count(size)?;
            return Ok(Built { content: Content::Memory { bytes, _room: room }, id: None });
        }
        self.build_streamed(kind, base, &mut delta)
    }

    /// The way for whatever does not fit into memory: the base, the delta or the result.
    fn build_streamed(
        &mut self,
        kind: ObjectKind,
        base: &Content<'_>,
        delta: &mut dyn Read,
    ) -> Result<Built<'a>, Fault> {
        let work = self.work;
        // Out of `self` while the count is kept there; an error on the way ends the whole work.
        let mut blocks = std::mem::replace(&mut self.blocks, Blocks::new());
        let (mut memory, mut disk);
        let base: &mut dyn Base = match base {
            Content::Memory { bytes, .. } => {
                memory = MemoryBase(bytes);
                &mut memory
            }
            Content::Disk(piece) => {
                disk = DiskBase::new(piece, &mut blocks);
                &mut disk
            }
        };
        let mut front = [0; delta::SIZES_BYTES_MAX];
        let filled = fill(delta, &mut front).map_err(Fault::spool)?;
        let size = delta::sizes(&mut &front[..filled])?.result;
        check_structured(kind, size, work.limits)?;
        let mut delta = (&front[..filled]).chain(delta);
        if let Some(room) = work.memory.take(size) {
            let mut all = Vec::new();
            delta::apply_streamed(base, &mut delta, &mut |bytes| {
                all.extend_from_slice(bytes);
                self.count(bytes.len() as u64 + 1)
            })?;
            self.blocks = blocks;
            return Ok(Built { content: Content::Memory { bytes: all, _room: room }, id: None });
        }
        let mut writer = Writer::new(self.piece()?, hasher(work.show.format, kind, size));
        delta::apply_streamed(base, &mut delta, &mut |bytes| {
            writer.write(bytes)?;
            self.count(bytes.len() as u64 + 1)
        })?;
        self.blocks = blocks;
        let (piece, id) = writer.finish()?;
        Ok(Built { content: Content::Disk(piece), id: Some(id?) })
    }

    /// Room on the disk for one content.
    fn piece(&mut self) -> Result<Piece, Fault> {
        if self.scratch.is_none() {
            self.scratch = Some(self.work.spool.scratch()?);
        }
        let scratch = self.scratch.as_ref().ok_or(PackError::Stopped)?;
        Ok(scratch.piece())
    }

    /// Shows an object that was built; gives its name.
    fn look(&mut self, kind: ObjectKind, built: &Built<'_>) -> Result<ObjectId, Fault> {
        let show = self.work.show;
        match (&built.content, built.id) {
            (Content::Memory { bytes, .. }, _) => show.bytes(kind, bytes),
            (Content::Disk(piece), Some(id)) if kind == ObjectKind::Blob => {
                show.blob(id, piece.len(), &mut DiskReader::new(piece))?;
                Ok(id)
            }
            (Content::Disk(piece), _) => {
                let mut bytes = Vec::new();
                DiskReader::new(piece).read_to_end(&mut bytes).map_err(Fault::spool)?;
                show.bytes(kind, &bytes)
            }
        }
    }

    /// Counts work; asks the sink now and then, and stops when another worker has failed.
    fn count(&mut self, bytes: u64) -> Result<(), Fault> {
        self.built += bytes;
        if self.built > ASK_BYTES {
            self.built = 0;
            self.work.show.sink.go_on()?;
            if self.work.stop.load(Ordering::Acquire) {
                return Err(PackError::Stopped.into());
            }
        }
        Ok(())
    }

    fn note(&mut self, entry: u32, kind: ObjectKind, base: u32, id: ObjectId) -> Result<(), PackError> {
        self.results.push((entry, kind, base, id));
        if self.results.len() >= RESULTS {
            self.enter();
        }
        if self.work.stop.load(Ordering::Acquire) { Err(PackError::Stopped) } else { Ok(()) }
    }

    fn enter(&mut self) {
        let mut table = self.work.table();
        for (entry, kind, base, id) in self.results.drain(..) {
            table.kinds[entry as usize] = Some(kind);
            table.bases[entry as usize] = base;
            table.names.set(entry, &id);
        }
    }
}

/// An object that came out of a delta.
struct Built<'a> {
    content: Content<'a>,
    /// Its name, when it was made on the way.
    id: Option<ObjectId>,
}

fn fill(from: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Release);
        }
    }
}
