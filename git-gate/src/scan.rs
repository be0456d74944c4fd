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
mod container;
mod engine;
mod finding;
mod keywords;
mod known;
mod object;
mod randomness;
mod rules;
mod secret;
mod text;

pub use budget::{Budget, ReadError, Refused};
pub use finding::{Clean, Decoder, Finding, Findings, Fingerprint, Unclean};
pub use rules::{Rule, Rules, RulesError, Tier};
pub use secret::Secret;

use budget::{Meter, Used};
use engine::{Engine, Workspace};
use gix_hash::ObjectId;
use object::{Found, Object};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::HashSet;
use std::io::Read;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// The rule that finds the secrets of the bottle itself.
pub const KNOWN_SECRET: &str = "known-secret";

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
pub struct Scanner {
    engine: Arc<Engine>,
    /// Threads' memory, kept from one call to the next.
    spaces: Arc<Mutex<Vec<Workspace>>>,
}

/// Why no scanner can be made.
#[derive(Debug, thiserror::Error)]
pub enum ScannerError {
    /// Too many keywords and known secrets to search for at once.
    #[error("the rules and known secrets are too many to search for")]
    TooLarge,
    /// Too many known secrets.
    #[error("there are more than {max} known secrets")]
    TooManyKnown {
        /// The limit.
        max: usize,
    },
    /// A known secret that would be found in any text.
    #[error("known secret {index} is shorter than {min} bytes, so any text would seem to hold it")]
    KnownTooShort {
        /// Which one, from 0.
        index: usize,
        /// The least length.
        min: usize,
    },
}

impl Scanner {
    /// A scanner for `rules` and, exactly and in their usual encodings, `known` secrets.
    pub fn new(rules: Rules, known: Vec<Secret>) -> Result<Self, ScannerError> {
        Ok(Self { engine: Arc::new(Engine::new(rules, &known)?), spaces: Arc::default() })
    }

    /// Builds every rule's regular expression now, which otherwise happens when it is first needed; says which cannot be.
    pub fn check(&self) -> Result<(), RulesError> {
        self.engine.compile_all().map_err(|(id, e)| RulesError::Rule { id, reason: e.to_string() })
    }

    /// Begins the scan of one push.
    pub fn start(&self, budget: Budget) -> Scan {
        Scan { scanner: self.clone(), used: Used::new(budget), found: Mutex::default() }
    }
}

/// The scan of one push. Its calls may come from several threads; the limits are shared.
#[derive(Debug)]
pub struct Scan {
    scanner: Scanner,
    used: Used,
    found: Mutex<Vec<Finding>>,
}

impl Scan {
    /// Scans an object that is in memory as a whole. After an error the scan can only be refused.
    pub fn text(&self, source: Source, bytes: &[u8]) -> Result<(), Refused> {
        self.used.given(bytes.len() as u64);
        self.object(&source, |object| object.whole(bytes))
    }

    /// Scans a large object as it is read, in bounded memory. After an error the scan can only be refused.
    pub fn stream(&self, source: Source, reader: &mut dyn Read) -> Result<(), Refused> {
        self.object(&source, |object| object.stream(&mut Given { reader, used: &self.used }, 0))
    }

    /// The verdict on everything that was given.
    pub fn finish(self) -> Result<Clean, Unclean> {
        let objects = self.used.finish().map_err(Unclean::Refused)?;
        let clean = Clean::new(objects, self.used.given.load(Ordering::Relaxed));
        let found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        if found.is_empty() { Ok(clean) } else { Err(Unclean::Findings(Findings { found, clean })) }
    }

    fn object(
        &self,
        source: &Source,
        scan: impl FnOnce(&Object<'_>) -> Result<Vec<Found>, Refused>,
    ) -> Result<(), Refused> {
        self.used.begin()?;
        let space = self.scanner.spaces.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let object = Object {
            engine: &self.scanner.engine,
            meter: RefCell::new(Meter::new(&self.used)),
            space: RefCell::new(space),
            depth_max: self.used.budget().depth_max,
        };
        let outcome = scan(&object).and_then(|found| {
            object.meter.borrow_mut().settle()?;
            self.keep(source, found)
        });
        self.scanner.spaces.lock().unwrap_or_else(PoisonError::into_inner).push(object.space.into_inner());
        self.used.end(&outcome);
        outcome
    }

    /// Keeps each secret of an object once, where it stands first.
    fn keep(&self, source: &Source, found: Vec<Found>) -> Result<(), Refused> {
        let mut seen: HashSet<[u8; 32]> = HashSet::new();
        for found in found {
            let rule = self.scanner.engine.rule(found.by);
            let id = rule.map_or(KNOWN_SECRET, |rule| &rule.id);
            let name = Sha256::new_with_prefix(id).chain_update([0]).chain_update(found.secret.expose());
            if !seen.insert(name.finalize().into()) {
                continue;
            }
            self.used.finding()?;
            let finding = Finding {
                source: source.clone(),
                rule: id.to_owned(),
                description: rule.map_or("secret of this bottle", |rule| &rule.description).to_owned(),
                line: found.line,
                column: found.column,
                offset: found.offset,
                length: found.secret.expose().len(),
                via: found.via,
                prefix: rule.map_or_else(String::new, |rule| rule.prefix_of(&found.secret).to_owned()),
                secret: found.secret,
            };
            self.found.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
        }
        Ok(())
    }
}

/// Counts what a stream gives.
struct Given<'a> {
    reader: &'a mut dyn Read,
    used: &'a Used,
}

impl Read for Given<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(into)?;
        self.used.given(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
