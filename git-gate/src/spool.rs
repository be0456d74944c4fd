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
    bytes_max: u64,
    used: AtomicU64,
}

impl SpoolBudget {
    /// A budget of `bytes_max` bytes, none of them used.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Count { bytes_max, used: AtomicU64::new(0) }))
    }

    /// The bytes that living spools hold now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Acquire)
    }

    fn take(&self, bytes: u64) -> Result<(), SpoolError> {
        let bytes_max = self.0.bytes_max;
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= bytes_max);
        self.0
            .used
            .try_update(Ordering::AcqRel, Ordering::Acquire, fits)
            .map(drop)
            .map_err(|_| SpoolError::Budget { bytes_max })
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

    /// Another empty spool in the same folder and under the same budget.
    ///
    /// # Errors
    /// As [`Spool::create`].
    pub fn sibling(&self) -> Result<Self, SpoolError> {
        Self::create(&self.folder, &self.budget)
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
        self.budget.0.used.fetch_sub(self.len, Ordering::AcqRel);
    }
}
