//! What the agent was given: for each path its kind, mode and content's hash, so that `diff` and `take` know what is
//! the agent's doing and what the operator has changed since. It never holds content.

use crate::workspace::tree_path::{TreePath, decode, encode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What the agent was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Every path of the copy, `.git` included.
    pub entries: BTreeMap<TreePath, Node>,
    /// The branches and tags of the copy's repository: full name -> object id.
    pub refs: BTreeMap<String, String>,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Node {
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
    },
    /// A file.
    File {
        /// Permission bits.
        mode: u32,
        /// Bytes.
        size: u64,
        /// Of its content.
        sha256: Digest,
    },
    /// A symbolic link.
    Link {
        /// Where it points, as written in it.
        target: LinkTarget,
    },
}

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

/// What is written in a symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkTarget(pub Vec<u8>);

impl Node {
    /// Are the two the same to a workspace? Of a mode only the owner's exec bit of a file counts, as in git.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Directory { .. }, Self::Directory { .. }) => true,
            (Self::File { sha256: a, .. }, Self::File { sha256: b, .. }) => {
                a == b && self.executable() == other.executable()
            }
            (Self::Link { target: a }, Self::Link { target: b }) => a == b,
            (Self::Directory { .. } | Self::File { .. } | Self::Link { .. }, _) => false,
        }
    }

    /// Is it a file that its owner may run?
    pub fn executable(&self) -> bool {
        matches!(self, Self::File { mode, .. } if mode & 0o100 != 0)
    }

    /// Is it a directory?
    pub fn is_directory(&self) -> bool {
        matches!(self, Self::Directory { .. })
    }

    /// The mode as git writes it.
    pub fn git_mode(&self) -> &'static str {
        match self {
            Self::Directory { .. } => "040000",
            Self::File { .. } if self.executable() => "100755",
            Self::File { .. } => "100644",
            Self::Link { .. } => "120000",
        }
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(*self))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0.iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl TryFrom<String> for Digest {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let mut digest = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err("a SHA-256 has 64 hexadecimal digits".to_owned());
        }
        for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|e| e.to_string())?;
        }
        Ok(Self(digest))
    }
}

impl From<LinkTarget> for String {
    fn from(target: LinkTarget) -> Self {
        encode(&target.0)
    }
}

impl TryFrom<String> for LinkTarget {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        decode(&text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_baseline_survives_being_written_as_json() {
        let mut baseline = Baseline::default();
        let path = |p: &[u8]| TreePath::parse(p).unwrap();
        baseline.entries.insert(path(b"d"), Node::Directory { mode: 0o755 });
        baseline.entries.insert(path(b"d/\xff"), Node::File { mode: 0o644, size: 3, sha256: Digest([7; 32]) });
        baseline.entries.insert(path(b"l"), Node::Link { target: LinkTarget(b"../\xfe%".to_vec()) });
        baseline.refs.insert("refs/heads/main".to_owned(), "0".repeat(40));
        let json = serde_json::to_string(&baseline).unwrap();
        assert_eq!(serde_json::from_str::<Baseline>(&json).unwrap(), baseline);
    }

    #[test]
    fn of_a_mode_only_the_exec_bit_counts() {
        let file = |mode, byte| Node::File { mode, size: 1, sha256: Digest([byte; 32]) };
        assert!(file(0o644, 1).same(&file(0o4660, 1)));
        assert!(!file(0o644, 1).same(&file(0o744, 1)));
        assert!(!file(0o644, 1).same(&file(0o644, 2)));
        assert!(!file(0o644, 1).same(&Node::Directory { mode: 0o644 }));
        assert!(Node::Directory { mode: 0o700 }.same(&Node::Directory { mode: 0o755 }));
    }
}
