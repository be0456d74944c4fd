//! The operator's directory, reached without following a link: every directory on a path is opened by name from the
//! one above it, and none may be a link. It can neither read nor write outside the directory it was opened for.

use crate::workspace::WorkspaceError;
use crate::workspace::baseline::{Digest, LinkTarget, Node};
use crate::workspace::tree_path::TreePath;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

/// The operator's directory.
pub(crate) struct HostTree {
    top: OwnedFd,
    /// The directory of the last path that was looked for: the next one is mostly in the same.
    last: RefCell<Option<(TreePath, Rc<OwnedFd>)>>,
}

/// A hold on a directory.
pub(crate) struct Hold<'a>(&'a HostTree);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        // Closing alone would leave it to a child that another thread is just starting.
        let _ = fs::flock(&self.0.top, fs::FlockOperation::Unlock);
    }
}

/// What stands at a path of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing, or a directory on the way is missing.
    Missing,
    /// Something on the way is not a directory.
    Blocked,
    /// A file, a directory or a link.
    Node(Node),
    /// A socket, a pipe or a device.
    Special,
}

impl HostTree {
    pub(crate) fn open(directory: &Path) -> Result<Self, WorkspaceError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let top = fs::open(directory, flags, Mode::empty()).map_err(|e| WorkspaceError::at("open", directory, e))?;
        Ok(Self { top, last: RefCell::default() })
    }

    pub(crate) fn state(&self, path: &TreePath) -> Result<State, WorkspaceError> {
        self.look(path).map_err(|e| failed("read", path, e))
    }

    /// Is it a directory? `None` where nothing is that could be removed.
    pub(crate) fn is_directory(&self, path: &TreePath) -> Result<Option<bool>, WorkspaceError> {
        let Found::There(_, stat) = self.find(path).map_err(|e| failed("read", path, e))? else { return Ok(None) };
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Some(true),
            FileType::Symlink | FileType::RegularFile => Some(false),
            _ => None,
        })
    }

    /// The content of a file of at most `bytes_max`; `None` where no such file is.
    pub(crate) fn content(&self, path: &TreePath, bytes_max: u64) -> Option<Vec<u8>> {
        let parent = self.parent(path).ok()?;
        let file = open_file(parent.as_fd(), path).ok()?;
        let mut content = Vec::new();
        file.take(bytes_max + 1).read_to_end(&mut content).ok()?;
        (content.len() as u64 <= bytes_max).then_some(content)
    }

    /// Names in a directory.
    pub(crate) fn names(&self, path: &TreePath) -> Result<Vec<TreePath>, WorkspaceError> {
        let list = || -> io::Result<Vec<TreePath>> {
            let parent = self.parent(path)?;
            let directory = open_directory(parent.as_fd(), path.name())?;
            let mut names = Vec::new();
            for entry in fs::Dir::new(directory)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    let full = [path.as_bytes(), b"/", name].concat();
                    names.push(TreePath::parse(&full).map_err(io::Error::other)?);
                }
            }
            Ok(names)
        };
        list().map_err(|e| failed("list", path, e))
    }

    /// Makes a directory and those it is in. One that is there is fine; a link in its place is an error.
    pub(crate) fn make_directory(&self, path: &TreePath) -> Result<(), WorkspaceError> {
        let make = || -> io::Result<()> {
            let mut at = self.top.try_clone()?;
            for name in path.components() {
                let os = std::ffi::OsStr::from_bytes(name);
                match fs::mkdirat(&at, os, Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                at = open_directory(at.as_fd(), name)?;
            }
            Ok(())
        };
        make().map_err(|e| failed("make the directory", path, e))
    }

    /// Moves `name` of the directory `from` to `path`, over what is there; a link there is replaced, not followed.
    pub(crate) fn move_in(&self, from: &OwnedFd, name: &str, path: &TreePath) -> Result<(), WorkspaceError> {
        let parent = match (self.parent(path), path.parent()) {
            (Err(error), Some(directory)) if error.kind() == io::ErrorKind::NotFound => {
                self.make_directory(&directory)?;
                self.parent(path)
            }
            (parent, _) => parent,
        };
        let parent = parent.map_err(|e| failed("write", path, e))?;
        let os = std::ffi::OsStr::from_bytes(path.name());
        match fs::renameat(from, name, &parent, os) {
            // A file system of its own is mounted below the workspace.
            Err(Errno::XDEV) => copy_in(from, name, parent.as_fd(), os).map_err(|e| failed("write", path, e)),
            other => other.map_err(|e| failed("write", path, e.into())),
        }
    }

    /// Removes a file or a link; that it is gone is success.
    pub(crate) fn remove_file(&self, path: &TreePath) -> Result<(), WorkspaceError> {
        match self.parent(path).and_then(|parent| Ok(fs::unlinkat(&parent, os(path), AtFlags::empty())?)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
            _ => Ok(()),
        }
    }

    /// Removes a directory if it is empty; tells whether it is gone.
    pub(crate) fn remove_directory(&self, path: &TreePath) -> Result<bool, WorkspaceError> {
        match self.parent(path).and_then(|parent| Ok(fs::unlinkat(&parent, os(path), AtFlags::REMOVEDIR)?)) {
            Ok(()) => {
                self.forget();
                Ok(true)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound => Ok(true),
                io::ErrorKind::DirectoryNotEmpty => Ok(false),
                _ => Err(failed("remove", path, error)),
            },
        }
    }

    /// The permission bits of the file at `path`, without set-id bits.
    pub(crate) fn mode(&self, path: &TreePath) -> Option<u32> {
        let parent = self.parent(path).ok()?;
        let stat = fs::statat(&parent, os(path), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some(stat.st_mode & 0o777)
    }

    /// Holds the directory against other takes; `None`: one is at work in it. Where the file system knows no locks, all
    /// is as if there were no other.
    pub(crate) fn hold(&self) -> Option<Hold<'_>> {
        let locked = fs::flock(&self.top, fs::FlockOperation::NonBlockingLockExclusive);
        (!matches!(locked, Err(Errno::WOULDBLOCK))).then_some(Hold(self))
    }

    /// Removes what takes that were killed have left at the top; tells whether there was any. Only for whoever holds
    /// the directory.
    pub(crate) fn sweep_staging(&self, prefix: &str) -> Result<bool, WorkspaceError> {
        let failed = |e: Errno| WorkspaceError::io("remove what a take that was killed has left", e);
        let number = |name: &[u8]| !name.is_empty() && name.iter().all(u8::is_ascii_digit);
        let mut swept = false;
        for entry in fs::Dir::read_from(&self.top).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if !name.strip_prefix(prefix.as_bytes()).is_some_and(number) {
                continue;
            }
            // What is no directory, or holds what no take makes, is somebody else's.
            let Ok(staging) = open_directory(self.top.as_fd(), name) else { continue };
            for file in fs::Dir::read_from(&staging).map_err(failed)? {
                let file = file.map_err(failed)?;
                if number(file.file_name().to_bytes()) {
                    fs::unlinkat(&staging, file.file_name(), AtFlags::empty()).map_err(failed)?;
                }
            }
            match fs::unlinkat(&self.top, entry.file_name(), AtFlags::REMOVEDIR) {
                Ok(()) => swept = true,
                Err(Errno::NOTEMPTY | Errno::NOENT) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(swept)
    }

    /// Makes a directory at the top that is the caller's alone.
    pub(crate) fn staging(&self, name: &str) -> Result<OwnedFd, WorkspaceError> {
        let make = || -> io::Result<OwnedFd> {
            fs::mkdirat(&self.top, name, Mode::RWXU)?;
            open_directory(self.top.as_fd(), name.as_bytes())
        };
        make().map_err(|e| WorkspaceError::io("write beside the files of the workspace", e))
    }

    /// Removes what [`Self::staging`] made, with the files left in it.
    pub(crate) fn remove_staging(&self, name: &str, staging: &OwnedFd) {
        let left = fs::Dir::read_from(staging).into_iter().flatten().flatten();
        for entry in left.filter(|e| !matches!(e.file_name().to_bytes(), b"." | b"..")) {
            // What cannot be removed makes the next line fail, and its name tells the operator what it is.
            let _ = fs::unlinkat(staging, entry.file_name(), AtFlags::empty());
        }
        let _ = fs::unlinkat(&self.top, name, AtFlags::REMOVEDIR);
    }

    fn find(&self, path: &TreePath) -> io::Result<Found> {
        let parent = match self.parent(path) {
            Ok(parent) => parent,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
            Err(error) => {
                return match Errno::from_io_error(&error) {
                    Some(Errno::LOOP | Errno::NOTDIR) => Ok(Found::Blocked),
                    _ => Err(error),
                };
            }
        };
        match fs::statat(&parent, os(path), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Found::There(parent, stat)),
            Err(Errno::NOENT) => Ok(Found::Missing),
            Err(error) => Err(error.into()),
        }
    }

    fn look(&self, path: &TreePath) -> io::Result<State> {
        let (parent, stat) = match self.find(path)? {
            Found::There(parent, stat) => (parent, stat),
            Found::Missing => return Ok(State::Missing),
            Found::Blocked => return Ok(State::Blocked),
        };
        let mode = stat.st_mode & 0o777;
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => State::Node(Node::Directory { mode }),
            FileType::Symlink => {
                let target = fs::readlinkat(&parent, os(path), Vec::new())?.into_bytes();
                State::Node(Node::Link { target: LinkTarget(target) })
            }
            FileType::RegularFile => {
                let mut hash = Sha256::new();
                let size = io::copy(&mut open_file(parent.as_fd(), path)?, &mut hash)?;
                State::Node(Node::File { mode, size, sha256: Digest(hash.finalize().into()) })
            }
            _ => State::Special,
        })
    }

    /// The directory that `path` is in.
    fn parent(&self, path: &TreePath) -> io::Result<Rc<OwnedFd>> {
        let Some(parent) = path.parent() else { return Ok(Rc::new(self.top.try_clone()?)) };
        if let Some((last, directory)) = &*self.last.borrow()
            && *last == parent
        {
            return Ok(directory.clone());
        }
        let mut at = self.top.try_clone()?;
        for name in parent.components() {
            at = open_directory(at.as_fd(), name)?;
        }
        let at = Rc::new(at);
        *self.last.borrow_mut() = Some((parent, at.clone()));
        Ok(at)
    }

    /// A directory went: another one may come by its name.
    fn forget(&self) {
        *self.last.borrow_mut() = None;
    }
}

/// What a look at a path finds.
enum Found {
    /// Something, in this directory.
    There(Rc<OwnedFd>, fs::Stat),
    Missing,
    Blocked,
}

fn os(path: &TreePath) -> &std::ffi::OsStr {
    std::ffi::OsStr::from_bytes(path.name())
}

fn open_directory(at: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(fs::openat(at, std::ffi::OsStr::from_bytes(name), flags, Mode::empty())?)
}

fn open_file(at: BorrowedFd<'_>, path: &TreePath) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(fs::openat(at, os(path), flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no longer a file")) }
}

/// Copies within the target directory first, so that the name changes in one step here as well.
fn copy_in(from: &OwnedFd, name: &str, to: BorrowedFd<'_>, target: &std::ffi::OsStr) -> io::Result<()> {
    let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let temporary = format!(".bottle-take-{}-{name}", std::process::id());
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        fs::symlinkat(&fs::readlinkat(from, name, Vec::new())?, to, temporary.as_str())?;
    } else {
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut source = File::from(fs::openat(from, name, read, Mode::empty())?);
        let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
        let mut copy = File::from(fs::openat(to, temporary.as_str(), write, mode)?);
        io::copy(&mut source, &mut copy)?;
    }
    Ok(fs::renameat(to, temporary.as_str(), to, target)?)
}

fn failed(verb: &str, path: &TreePath, error: io::Error) -> WorkspaceError {
    WorkspaceError::io(format!("{verb} {path} in the workspace"), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_went_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = |text: &str| TreePath::parse(text.as_bytes()).unwrap();
        let make = || {
            std::fs::create_dir(folder.path().join("a")).unwrap();
            std::fs::write(folder.path().join("a/b"), "c").unwrap();
        };
        make();
        let host = HostTree::open(folder.path()).unwrap();
        host.remove_file(&path("a/b")).unwrap();
        assert_eq!(host.is_directory(&path("a/b")).unwrap(), None);
        assert!(host.remove_directory(&path("a")).unwrap());
        make();
        assert_eq!(host.is_directory(&path("a/b")).unwrap(), Some(false));
        assert_eq!(host.is_directory(&path("a")).unwrap(), Some(true));
    }
}
