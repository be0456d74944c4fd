//! The one place where a push touches the disk: files without a name in the spool's folder, under one byte budget that
//! all pushes share. A spool ends with its value; nothing is left behind, not even by a process that was killed.
//! It must never be read past what was written, and never be written without room in the budget.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why bytes could not be kept. Says nothing about what they were or where they would have been.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The operator's budget for all pushes together is used up. `bytes_max` is that budget.
    #[error(
        "the spool of all pushes together is full ({bytes_max} bytes); push again when others are done, or push less at once"
    )]
    Budget {
        /// The budget, in bytes.
        bytes_max: u64,
    },
    /// The file system under the spool is full.
    #[error("the disk under the git gate's spool is full; the operator has to make room")]
    DiskFull,
    /// Anything else that the system said.
    #[error("the git gate's spool failed")]
    System(#[source] io::Error),
}

impl From<io::Error> for SpoolError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Self::DiskFull,
            _ => Self::System(error),
        }
    }
}

/// How many bytes all spools together may hold. Clones share one count.
#[derive(Debug, Clone)]
pub struct SpoolBudget(Arc<Count>);

#[derive(Debug)]
struct Count {
    bytes_max: AtomicU64,
    used: AtomicU64,
}

impl SpoolBudget {
    /// A budget of `bytes_max` bytes, none of them used.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Count { bytes_max: AtomicU64::new(bytes_max), used: AtomicU64::new(0) }))
    }

    /// Changes the budget of all clones. What is over it already stays until its spools end.
    pub fn resize(&self, bytes_max: u64) {
        self.0.bytes_max.store(bytes_max, Ordering::Release);
    }

    /// The bytes that living spools hold now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Acquire)
    }

    fn take(&self, bytes: u64) -> Result<(), SpoolError> {
        let bytes_max = self.0.bytes_max.load(Ordering::Acquire);
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= bytes_max);
        self.0
            .used
            .try_update(Ordering::AcqRel, Ordering::Acquire, fits)
            .map(drop)
            .map_err(|_| SpoolError::Budget { bytes_max })
    }

    fn give(&self, bytes: u64) {
        self.0.used.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// One file without a name. Appended to by its owner, read at any place by any thread.
#[derive(Debug)]
pub struct Spool {
    file: Arc<File>,
    folder: PathBuf,
    budget: SpoolBudget,
    len: u64,
}

impl Spool {
    /// A new, empty spool in `folder`, whose bytes count against `budget`.
    ///
    /// # Errors
    /// When the folder does not take a new file.
    pub fn create(folder: &Path, budget: &SpoolBudget) -> Result<Self, SpoolError> {
        let file = Arc::new(tempfile::tempfile_in(folder)?);
        Ok(Self { file, folder: folder.to_owned(), budget: budget.clone(), len: 0 })
    }

    /// A file for what is built on the way, in the same folder and under the same budget.
    ///
    /// # Errors
    /// As [`Spool::create`].
    pub fn scratch(&self) -> Result<Scratch, SpoolError> {
        Ok(Scratch(Arc::new(ScratchFile {
            file: tempfile::tempfile_in(&self.folder)?,
            budget: self.budget.clone(),
            top: AtomicU64::new(0),
            kept: AtomicU64::new(0),
        })))
    }

    /// Puts `bytes` at the end.
    ///
    /// # Errors
    /// When the budget or the disk has no room; what was written before stays readable.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let more = bytes.len() as u64;
        self.budget.take(more)?;
        let at = self.len;
        // Counted before the write: also a write that failed half way may hold room on the disk until the spool ends.
        self.len += more;
        self.file.write_all_at(bytes, at)?;
        Ok(())
    }

    /// The number of bytes in it.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A way to read it from elsewhere, also while it grows.
    #[must_use]
    pub fn view(&self) -> SpoolView {
        SpoolView(Arc::clone(&self.file))
    }
}

/// One file for many pieces that are written one after the other and given up in any order. It is one file, because an
/// agent decides how many pieces are held at once, and open files are few.
#[derive(Debug)]
pub struct Scratch(Arc<ScratchFile>);

#[derive(Debug)]
struct ScratchFile {
    file: File,
    budget: SpoolBudget,
    /// Where the next piece starts.
    top: AtomicU64,
    /// Bytes of pieces that are gone, on a file system that cannot make holes.
    kept: AtomicU64,
}

/// File systems give room back in whole blocks; no common one has larger ones.
const BLOCK: u64 = 4096;

impl Scratch {
    /// Starts a piece. Only the newest piece may be written to.
    #[must_use]
    pub fn piece(&self) -> Piece {
        Piece { scratch: Arc::clone(&self.0), start: self.0.top.load(Ordering::Acquire), len: 0 }
    }
}

/// Bytes in a [`Scratch`]. Its room on the disk ends with it.
#[derive(Debug)]
pub struct Piece {
    scratch: Arc<ScratchFile>,
    start: u64,
    len: u64,
}

impl Piece {
    /// Puts `bytes` at the end.
    ///
    /// # Errors
    /// When the budget or the disk has no room, or when a newer piece is behind this one.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let (at, more) = (self.start + self.len, bytes.len() as u64);
        let top = self.start + self.len.next_multiple_of(BLOCK);
        let new_top = self.start + (self.len + more).next_multiple_of(BLOCK);
        let moved = self.scratch.top.compare_exchange(top, new_top, Ordering::AcqRel, Ordering::Acquire);
        moved.map_err(|_| io::Error::other("a piece was written to after a newer one"))?;
        self.scratch.budget.take(more)?;
        self.len += more;
        self.scratch.file.write_all_at(bytes, at)?;
        Ok(())
    }

    /// The number of bytes in it.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// What the system said, and the end of the piece.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.scratch.file.read_exact_at(buffer, self.start + offset)
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let len = self.len.next_multiple_of(BLOCK);
        if len == 0 {
            return;
        }
        // The newest piece makes place for the next one; under it a hole is made.
        let (top, scratch) = (self.start + len, &self.scratch);
        let newest = scratch.top.compare_exchange(top, self.start, Ordering::AcqRel, Ordering::Acquire).is_ok();
        let freed = newest
            || rustix::fs::fallocate(
                &scratch.file,
                rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE,
                self.start,
                len,
            )
            .is_ok();
        if freed {
            scratch.budget.give(self.len);
        } else {
            // The room stays taken until the whole file ends, and so does its part of the budget.
            scratch.kept.fetch_add(self.len, Ordering::AcqRel);
        }
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        self.budget.give(self.kept.load(Ordering::Acquire));
    }
}

/// Reads a spool at any place. The budget counts the spool, not its views: let none outlive it for long.
#[derive(Debug, Clone)]
pub struct SpoolView(Arc<File>);

impl SpoolView {
    /// Reads up to `buffer.len()` bytes at `offset`; 0 at the end.
    ///
    /// # Errors
    /// What the system said.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                answer => return answer,
            }
        }
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// What the system said, and the end of the spool.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.budget.give(self.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(view: &SpoolView, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        view.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    #[test]
    fn a_spool_leaves_nothing_in_its_folder_and_counts_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let budget = SpoolBudget::new(10);
        let mut one = Spool::create(folder.path(), &budget).unwrap();
        let mut two = Spool::create(folder.path(), &budget).unwrap();
        one.append(b"hello").unwrap();
        two.append(b"world").unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(budget.used(), 10);
        assert!(matches!(one.append(b"!"), Err(SpoolError::Budget { bytes_max: 10 })));
        assert_eq!(
            (read(&one.view(), 0, 5), read(&two.view(), 1, 4), one.len()),
            (b"hello".to_vec(), b"orld".to_vec(), 5)
        );
        assert_eq!(one.view().read_at(&mut [0; 4], 5).unwrap(), 0);
        drop(two);
        one.append(b"!").unwrap();
        assert_eq!(budget.used(), 6);
        // A smaller budget takes nothing away and gives nothing more.
        budget.resize(5);
        assert!(matches!(one.append(b"!"), Err(SpoolError::Budget { bytes_max: 5 })));
        budget.resize(7);
        one.append(b"!").unwrap();
        drop(one);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_budget_holds_when_many_take_from_it_at_once() {
        let budget = SpoolBudget::new(1000);
        let folder = tempfile::tempdir().unwrap();
        let spools: Vec<Spool> = std::thread::scope(|scope| {
            let fill = || {
                let mut spool = Spool::create(folder.path(), &budget).unwrap();
                while spool.append(b"seven b").is_ok() {}
                spool
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(fill)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(spools.iter().map(Spool::len).sum::<u64>(), 994);
        assert_eq!(budget.used(), 994);
    }

    #[test]
    fn errors_say_what_to_do() {
        let error = Spool::create(Path::new("/nonexistent"), &SpoolBudget::new(1)).unwrap_err();
        assert!(matches!(error, SpoolError::System(_)));
        assert!(!error.to_string().contains("nonexistent"), "a path of the sidecar in an error");
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge] {
            assert!(
                SpoolError::from(io::Error::from(kind)).to_string().contains("disk under the git gate's spool is full")
            );
        }
    }

    #[test]
    fn pieces_give_their_room_back_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let budget = SpoolBudget::new(30_000);
        let scratch = Spool::create(folder.path(), &budget).unwrap().scratch().unwrap();
        let mut one = scratch.piece();
        one.append(&[1; 5000]).unwrap();
        one.append(&[1; 5000]).unwrap();
        let mut two = scratch.piece();
        assert!(two.is_empty());
        two.append(&[2; 10_000]).unwrap();
        one.append(b"late").unwrap_err();
        drop(one);
        assert_eq!(budget.used(), 10_000);
        let mut three = scratch.piece();
        three.append(&[3; 20_000]).unwrap();
        assert!(matches!(three.append(&[3]), Err(SpoolError::Budget { .. })));
        let (mut from_two, mut from_three) = ([0; 10_000], [0; 20_000]);
        two.read_exact_at(&mut from_two, 0).unwrap();
        three.read_exact_at(&mut from_three, 0).unwrap();
        assert!(from_two.iter().all(|byte| *byte == 2) && from_three.iter().all(|byte| *byte == 3));
        two.read_exact_at(&mut [0; 2], 9_999).unwrap_err();
        two.read_exact_at(&mut [0; 2], u64::MAX).unwrap_err();
        let len = |scratch: &Scratch| scratch.0.top.load(Ordering::Acquire);
        let top = len(&scratch);
        drop(three);
        assert!(len(&scratch) < top, "the newest piece makes place for the next");
        drop(two);
        assert_eq!(budget.used(), 0);
    }
}
