//! The operator's directory on its way into a bottle, and the agent's work on its way back.
//!
//! Going in, a directory becomes a tar stream and a [`Baseline`] that says what the agent was given. Coming back, the
//! engine's archive is saved as one compressed file and read only through [`archive::Archive`]. The agent chose every
//! byte of it, so nothing here unpacks it as a tree, follows a link of it or of the host, writes below a `.git`, or
//! runs git. Everything is synchronous: the caller gives it a thread that may block.

use std::path::Path;

pub mod archive;
pub mod baseline;
pub mod careful;
pub mod changes;
pub mod commits;
pub mod diff;
pub mod gitconfig;
mod host_repository;
mod host_tree;
mod loose;
pub mod members;
mod object_pack;
mod objects;
pub mod pack;
pub mod printable;
pub mod refs;
pub mod survey;
pub mod take;
pub mod tree_path;
mod walk;

#[cfg(test)]
mod tests;

pub use archive::{Archive, Saved, save};
pub use baseline::Baseline;
pub use diff::{Diff, diff};
pub use pack::{Owner, Packed, pack};
pub use survey::{Survey, survey};
pub use take::{TakeOptions, Taken, sweep_staging, take};
pub use tree_path::TreePath;

/// What an archive may hold at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the archive before compression.
    pub bytes_max: u64,
    /// Headers in it, those that only carry long names included.
    pub entries_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 32 << 30, entries_max: 4_000_000 }
    }
}

/// Why a workspace did not go in or did not come back.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// A file of the host could not be read or written.
    #[error("cannot {what}")]
    Io {
        /// What could not be done.
        what: String,
        /// The system's own words.
        #[source]
        source: std::io::Error,
    },
    /// The directory holds more than a workspace may.
    #[error("cannot take {directory} along: it has more than {entries_max} files (start in a smaller directory)")]
    TooManyFiles {
        /// The directory.
        directory: String,
        /// The limit.
        entries_max: u64,
    },
    /// The archive is larger than it may be.
    #[error("cannot use the workspace archive: it has more than {bytes_max} bytes")]
    TooManyBytes {
        /// The limit.
        bytes_max: u64,
    },
    /// The archive has more entries than it may have.
    #[error("cannot use the workspace archive: it has more than {entries_max} entries")]
    TooManyEntries {
        /// The limit.
        entries_max: u64,
    },
    /// The archive ends in the middle.
    #[error("cannot use the workspace archive: it ends too early")]
    CutShort,
    /// The archive is not one that an engine makes of a directory.
    #[error("cannot use the workspace archive: {0}")]
    Refused(String),
    /// The operator changed files that the agent changed as well. Nothing was applied.
    #[error("cannot take the work: {} changed on the host as well, and nothing was applied", count(.0))]
    Conflicts(Vec<take::Conflict>),
    /// Something failed while the work was being applied.
    #[error("only a part of the work was applied")]
    HalfApplied {
        /// What is applied; its commits are all that could be taken.
        taken: Box<Taken>,
        /// What failed.
        source: Box<WorkspaceError>,
    },
    /// Another take is at work.
    #[error("cannot take the work: another take is at work in {0}")]
    Busy(String),
    /// The id cannot stand in the name of a ref.
    #[error("cannot take the work: {0:?} is not the id of a bottle")]
    BadId(String),
}

impl WorkspaceError {
    pub(crate) fn io(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }

    pub(crate) fn at(verb: &str, path: &Path, source: impl Into<std::io::Error>) -> Self {
        Self::io(format!("{verb} {}", printable::line(path.as_os_str().as_encoded_bytes())), source)
    }
}

fn count(conflicts: &[take::Conflict]) -> String {
    let named: Vec<String> = conflicts.iter().take(3).map(|c| c.path.to_string()).collect();
    match conflicts.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
