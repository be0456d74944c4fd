//! The audit log of a bottle: what it was launched with, what its agent asked for, what a person answered and what came of
//! it, what was refused, what was used. Each line carries the hash of the one before, and a file beside it the number and
//! hash of the last one, so that a line that was edited, dropped or put elsewhere is found.
//!
//! It finds accidents and careless hands; whoever may write the operator's files can write all of it anew.

use crate::control::sha256_hex;
use crate::journal::{Journal, JournalError, read_bytes, whole_lines};
use crate::state::{now, write_private};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use supervise::wire::Change;

/// What the first line names as the one before.
const NONE_BEFORE: &str = "";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counted from 1.
    pub number: u64,
    /// When (RFC 3339).
    pub time: String,
    /// SHA-256 of the line before in hexadecimal, without its newline; empty on the first.
    pub previous: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The agent is about to run.
    Launch {
        /// The agent.
        agent: String,
        /// The bottle's manifest.
        bottle: String,
        /// The agent's image.
        image: String,
        /// What it may reach, line by line.
        reach: Vec<String>,
        /// Is it launched again, after a life before?
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        resumed: bool,
    },
    /// The agent asks for a change.
    Proposal {
        /// The proposal.
        id: String,
        /// What is asked for.
        change: Change,
        /// The agent's words.
        justification: String,
    },
    /// A person answers, or changes the bottle unasked. It has not been carried out yet.
    Verdict {
        /// The proposal; `None`: nobody asked.
        proposal: Option<String>,
        /// Who: a user of this machine.
        by: String,
        /// `approved`, `modified`, `rejected`, `allowed` or `revoked`.
        verdict: String,
        /// What is to be in force, or no longer.
        change: Option<Change>,
        /// Where its credential comes from: a name, never a value.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credential: Option<String>,
        /// For how many seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<u64>,
        /// For one use?
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        once: bool,
        /// The person's words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
        /// The part of the bottle that it changes, as it was.
        before: Vec<String>,
        /// And as it is to be.
        after: Vec<String>,
    },
    /// What came of a verdict.
    Applied {
        /// The proposal; `None`: nobody asked.
        proposal: Option<String>,
        /// The grant that is in force, where one is.
        grant: Option<String>,
        /// `None`: it is in force. Else why not; the bottle is as it was.
        failed: Option<String>,
    },
    /// Something is no longer in force.
    Ended {
        /// The grant.
        grant: String,
        /// What it was.
        change: Change,
        /// Why: its time was over, it was used, somebody took it back.
        why: String,
    },
    /// Something was refused: the first time, and then once a minute with the number since.
    Denied {
        /// Which sidecar.
        by: String,
        /// The host, the path or the ref.
        what: String,
        /// Why.
        reason: String,
        /// How often since the last such line.
        times: u64,
    },
    /// What went over routes and remotes in all.
    Used {
        /// Path of a route -> requests that its credential was put into.
        credentials: BTreeMap<String, u64>,
        /// Name of a remote -> pushes that the upstream has taken.
        pushes: BTreeMap<String, u64>,
    },
    /// The bottle has been taken back.
    Teardown {
        /// How it ended.
        outcome: String,
        /// What could not be taken back.
        leftovers: Vec<String>,
    },
}

/// The number and hash of the last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    number: u64,
    hash: String,
}

/// A bottle's audit log, open to be appended to.
#[derive(Debug)]
pub struct Audit(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    journal: Journal,
    head: Head,
    head_file: PathBuf,
}

impl Audit {
    /// Opens a log, or makes it. One that does not hold together is not appended to.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let (journal, _) = Journal::open::<serde_json::Value>(path).map_err(Fault::from)?;
        verify(path)?;
        let bytes = read_bytes(path).map_err(Fault::Io)?;
        let last = lines(&bytes).last().map(|line| (lines(&bytes).count() as u64, sha256_hex(line)));
        let (number, hash) = last.unwrap_or((0, NONE_BEFORE.to_owned()));
        Ok(Self(Mutex::new(Inner { journal, head: Head { number, hash }, head_file: head_file(path) })))
    }

    /// Appends a line and returns when it is on the disk. An error: it is not in the log, and what it would have told of
    /// must not widen anything.
    pub fn record(&self, event: Event) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = inner.head.number + 1;
        let entry = Entry { number, time: now(), previous: inner.head.hash.clone(), event };
        let line = serde_json::to_vec(&entry)?;
        inner.journal.append_line(&[line.as_slice(), b"\n"].concat())?;
        inner.head = Head { number, hash: sha256_hex(&line) };
        // A head that is one behind is no fault: the line itself is on the disk.
        let _ = write_private(&inner.head_file, &serde_json::to_vec(&inner.head)?);
        Ok(())
    }
}

/// What is wrong with a log.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It cannot be read.
    #[error("the audit log cannot be read")]
    Io(#[source] io::Error),
    /// A line is no entry.
    #[error("line {line} of the audit log is no entry")]
    Line {
        /// Counted from 1.
        line: u64,
    },
    /// A line does not have the number of its place.
    #[error("line {line} of the audit log is entry {number}: a line is missing, or in another place")]
    Number {
        /// Counted from 1.
        line: u64,
        /// The number that it has.
        number: u64,
    },
    /// A line does not follow the one before.
    #[error("line {line} of the audit log does not follow the one before: one of the two was changed")]
    Chain {
        /// Counted from 1.
        line: u64,
    },
    /// Lines are missing at the end, or the last one was changed.
    #[error("the audit log has {found} lines that hold together, and {expected} were written")]
    End {
        /// Lines that are there.
        found: u64,
        /// Lines that were written.
        expected: u64,
    },
}

impl From<JournalError> for Fault {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Io(error) => Self::Io(error),
            JournalError::Damaged { line, .. } => Self::Line { line: line as u64 },
        }
    }
}

/// Reads a log and checks that nothing in it was edited, dropped or put elsewhere. A last line without an end is what a
/// dying machine leaves; it is not an entry yet.
pub fn verify(path: &Path) -> Result<Vec<Entry>, Fault> {
    let bytes = read_bytes(path).map_err(Fault::Io)?;
    let head = read_bytes(&head_file(path)).map_err(Fault::Io)?;
    let head: Option<Head> = serde_json::from_slice(&head).ok();
    let mut entries = Vec::new();
    let mut hashes = vec![NONE_BEFORE.to_owned()];
    for (at, text) in lines(&bytes).enumerate() {
        let line = at as u64 + 1;
        let entry: Entry = serde_json::from_slice(text).map_err(|_| Fault::Line { line })?;
        if entry.number != line {
            return Err(Fault::Number { line, number: entry.number });
        }
        if Some(&entry.previous) != hashes.last() {
            return Err(Fault::Chain { line });
        }
        hashes.push(sha256_hex(text));
        entries.push(entry);
    }
    let found = entries.len() as u64;
    match head {
        // The head is written after its line: it may be one behind, never ahead, and never of another line.
        Some(head) if head.number == found || head.number + 1 == found => {
            let at = usize::try_from(head.number).unwrap_or(usize::MAX);
            if hashes.get(at) == Some(&head.hash) { Ok(entries) } else { Err(Fault::Chain { line: head.number }) }
        }
        Some(head) => Err(Fault::End { found, expected: head.number }),
        None if found <= 1 => Ok(entries),
        None => Err(Fault::End { found: 0, expected: found }),
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    whole_lines(bytes).split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

fn head_file(path: &Path) -> PathBuf {
    path.with_extension("head")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(n: usize) -> Event {
        let text = |word: &str| format!("{word}{n}");
        Event::Denied { by: "pipelock".to_owned(), what: text("h"), reason: text("r"), times: 1 }
    }

    fn written(count: usize) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = Audit::open(&path).unwrap();
        (0..count).for_each(|n| audit.record(denied(n)).unwrap());
        (dir, path)
    }

    #[test]
    fn what_is_written_holds_together_also_when_it_is_opened_again() {
        let (_dir, path) = written(3);
        assert_eq!(verify(&path).unwrap().len(), 3);
        Audit::open(&path).unwrap().record(denied(3)).unwrap();
        let entries = verify(&path).unwrap();
        assert_eq!(entries.iter().map(|e| e.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(verify(&path.with_file_name("none")).unwrap().is_empty());
    }

    #[test]
    fn every_line_that_is_edited_dropped_doubled_or_moved_is_found() {
        let (_dir, path) = written(4);
        let good = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = good.lines().collect();
        let mut bad: Vec<(String, Vec<String>)> = Vec::new();
        for at in 0..lines.len() {
            let owned: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
            let mut edited = owned.clone();
            edited[at] = edited[at].replace("\"r", "\"s");
            bad.push((format!("edited {at}"), edited));
            let mut dropped = owned.clone();
            dropped.remove(at);
            bad.push((format!("dropped {at}"), dropped));
            let mut doubled = owned.clone();
            doubled.insert(at, owned[at].clone());
            bad.push((format!("doubled {at}"), doubled));
            if at > 0 {
                let mut moved = owned.clone();
                moved.swap(at - 1, at);
                bad.push((format!("moved {at}"), moved));
            }
        }
        for (what, lines) in bad {
            std::fs::write(&path, lines.iter().map(|l| format!("{l}\n")).collect::<String>()).unwrap();
            assert!(verify(&path).is_err(), "{what}");
            assert!(Audit::open(&path).is_err(), "{what} is not appended to");
        }
        std::fs::write(&path, &good).unwrap();
        assert!(verify(&path).is_ok());
    }

    #[test]
    fn a_machine_that_dies_leaves_no_fault() {
        let (_dir, path) = written(3);
        let good = std::fs::read(&path).unwrap();
        // A line that was not written to its end.
        std::fs::write(&path, [good.as_slice(), b"{\"number\":4,"].concat()).unwrap();
        assert_eq!(verify(&path).unwrap().len(), 3);
        Audit::open(&path).unwrap().record(denied(3)).unwrap();
        assert_eq!(verify(&path).unwrap().len(), 4);
        // A line whose head was not written.
        let head = std::fs::read(head_file(&path)).unwrap();
        Audit::open(&path).unwrap().record(denied(4)).unwrap();
        std::fs::write(head_file(&path), head).unwrap();
        assert_eq!(verify(&path).unwrap().len(), 5);
    }
}
