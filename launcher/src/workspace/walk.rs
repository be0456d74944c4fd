//! Walks a directory of the host without following links. It reads names and metadata, never content.

use crate::workspace::WorkspaceError;
use crate::workspace::tree_path::TreePath;
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Files and directories a workspace may have.
pub(crate) const ENTRIES_MAX: u64 = 2_000_000;

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// In the order of their paths: a directory before what is in it.
    pub(crate) entries: Vec<Entry>,
    /// What cannot come along, and why.
    pub(crate) left_out: Vec<(String, String)>,
}

/// A path that can come along.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: TreePath,
    pub(crate) metadata: Metadata,
    pub(crate) kind: Kind,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
    Link(Vec<u8>),
}

/// Walks `top`. Errors: `top` is no directory that can be read, or it has more than `entries_max` entries.
pub(crate) fn walk(top: &Path, entries_max: u64) -> Result<Found, WorkspaceError> {
    let listing = fs::read_dir(top).map_err(|e| WorkspaceError::at("read the directory", top, e))?;
    let mut found = Found::default();
    let mut count = 0;
    let mut pending = vec![(Vec::new(), listing)];
    while let Some((directory, listing)) = pending.pop() {
        for entry in listing {
            count += 1;
            if count > entries_max {
                return Err(WorkspaceError::TooManyFiles { directory: top.display().to_string(), entries_max });
            }
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    found.leave_out(&directory, format!("not all of it can be listed: {error}"));
                    break;
                }
            };
            let mut path = directory.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(entry.file_name().as_bytes());
            if let Some(below) = found.take(&path, &entry) {
                pending.push((path, below));
            }
        }
    }
    found.entries.sort_by(|a, b| a.path.cmp(&b.path));
    found.left_out.sort();
    Ok(found)
}

impl Found {
    /// Takes one entry in; gives the listing of a directory to go on with.
    fn take(&mut self, path: &[u8], entry: &fs::DirEntry) -> Option<fs::ReadDir> {
        let (tree_path, metadata) = match (TreePath::parse(path), entry.metadata()) {
            (Ok(tree_path), Ok(metadata)) => (tree_path, metadata),
            (Err(error), _) => {
                self.leave_out(path, error.to_string());
                return None;
            }
            (_, Err(error)) => {
                self.leave_out(path, error.to_string());
                return None;
            }
        };
        let kind = metadata.file_type();
        let (kind, below) = if kind.is_dir() {
            match fs::read_dir(entry.path()) {
                Ok(below) => (Kind::Directory, Some(below)),
                Err(error) => {
                    self.leave_out(path, error.to_string());
                    return None;
                }
            }
        } else if kind.is_symlink() {
            match fs::read_link(entry.path()) {
                Ok(target) => (Kind::Link(target.into_os_string().into_vec()), None),
                Err(error) => {
                    self.leave_out(path, error.to_string());
                    return None;
                }
            }
        } else if kind.is_file() {
            (Kind::File, None)
        } else {
            self.leave_out(path, name_of_special(&kind).to_owned());
            return None;
        };
        self.entries.push(Entry { path: tree_path, metadata, kind });
        below
    }

    fn leave_out(&mut self, path: &[u8], why: String) {
        self.left_out.push((crate::workspace::printable::line(path), why));
    }
}

fn name_of_special(kind: &fs::FileType) -> &'static str {
    if kind.is_socket() {
        "a socket"
    } else if kind.is_fifo() {
        "a pipe"
    } else {
        "a device"
    }
}
