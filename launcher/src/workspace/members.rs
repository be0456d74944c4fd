//! Reads the members of a tar archive whose every byte an agent may have chosen, and holds them to what an engine makes
//! of a directory: relative paths below one prefix, each once, each in a directory that came before, within limits.
//! It never touches a file.

use crate::workspace::baseline::LinkTarget;
use crate::workspace::tree_path::{PATH_BYTES_MAX, TreePath};
use crate::workspace::{Limits, WorkspaceError, printable};
use std::collections::HashMap;
use std::io::{self, Read};

const BLOCK: usize = 512;
/// Bytes of an extension header (long names, extended attributes).
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Bytes of all paths and link targets together: a reader holds them in memory.
const NAMES_BYTES_MAX: usize = 256 << 20;

/// A member of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its path.
    pub path: TreePath,
    /// Its permission bits; set-id bits are not among them.
    pub mode: u32,
    /// What it is.
    pub kind: MemberKind,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberKind {
    /// A directory.
    Directory,
    /// A file, whose content is read next.
    File {
        /// Bytes.
        size: u64,
    },
    /// Another name of a file that came before.
    HardLink(TreePath),
    /// A symbolic link.
    Link(LinkTarget),
    /// What is never taken: a device, a pipe.
    Other(&'static str),
}

/// The members of an archive, one after another.
pub struct Members<R> {
    input: R,
    prefix: Vec<u8>,
    limits: Limits,
    bytes: u64,
    consumed: u64,
    entries: u64,
    /// Bytes of the current member's content that are not read yet, and the padding after it.
    left: u64,
    padding: u64,
    seen: HashMap<TreePath, Seen>,
    names_bytes: usize,
    top_seen: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Directory,
    File,
    Other,
}

/// What extension headers say of the next member.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> Members<R> {
    /// Reads the members below `prefix/`.
    pub fn new(input: R, prefix: &str, limits: Limits) -> Self {
        Self {
            input,
            prefix: prefix.as_bytes().to_vec(),
            limits,
            bytes: 0,
            consumed: 0,
            entries: 0,
            left: 0,
            padding: 0,
            seen: HashMap::new(),
            names_bytes: 0,
            top_seen: false,
        }
    }

    /// The next member; `None` at the end of the archive. What was not read of the one before is skipped.
    pub fn next_member(&mut self) -> Result<Option<Member>, WorkspaceError> {
        let mut extension = Extension::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let kind = header.entry_type();
            let size = header.entry_size().map_err(|_| refused("a header has a size that is no number"))?;
            if kind.is_pax_local_extensions() {
                let records = self.extension(size)?;
                extension.pax(&records)?;
            } else if kind.is_gnu_longname() {
                extension.path = Some(trim_nul(self.extension(size)?));
            } else if kind.is_gnu_longlink() {
                extension.link = Some(trim_nul(self.extension(size)?));
            } else if kind.is_pax_global_extensions() || kind.is_gnu_sparse() {
                return Err(refused("it has a kind of header that no engine writes"));
            } else if let Some(member) = self.member(&header, kind, size, std::mem::take(&mut extension))? {
                return Ok(Some(member));
            }
        }
    }

    /// Bytes of all headers and contents so far, with their padding; the empty blocks at the end are not counted.
    pub fn bytes_read(&self) -> u64 {
        self.consumed
    }

    /// The content of the member that [`Self::next_member`] gave last.
    pub fn content(&mut self) -> impl Read {
        Content { members: self }
    }

    fn member(
        &mut self,
        header: &tar::Header,
        kind: tar::EntryType,
        size: u64,
        extension: Extension,
    ) -> Result<Option<Member>, WorkspaceError> {
        let full = extension.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let mode = header.mode().map_err(|_| refused("a header has a mode that is no number"))? & 0o777;
        let link =
            || extension.link.clone().or_else(|| header.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default();
        let mut size = extension.size.unwrap_or(size);
        let kind = match kind {
            tar::EntryType::Directory => MemberKind::Directory,
            tar::EntryType::Regular | tar::EntryType::Continuous => MemberKind::File { size },
            tar::EntryType::Symlink => MemberKind::Link(target(link())?),
            tar::EntryType::Link => {
                MemberKind::HardLink(self.inside(&link())?.ok_or_else(|| refused("a hard link names the top"))?)
            }
            tar::EntryType::Char | tar::EntryType::Block => MemberKind::Other("a device"),
            tar::EntryType::Fifo => MemberKind::Other("a pipe"),
            _ => return Err(refused("it has a kind of member that no engine writes")),
        };
        if !matches!(kind, MemberKind::File { .. }) {
            // Some writers put the size of the linked file here; no content follows.
            size = 0;
        }
        self.expect(size)?;
        let named = match kind {
            MemberKind::Directory => full.strip_suffix(b"/").unwrap_or(&full),
            _ => &full,
        };
        let Some(path) = self.inside(named)? else {
            if kind != MemberKind::Directory || self.top_seen {
                return Err(refused("its top is not one directory"));
            }
            self.top_seen = true;
            return Ok(None);
        };
        self.place(&path, &kind)?;
        Ok(Some(Member { path, mode, kind }))
    }

    /// The path below the prefix; `None` for the prefix itself.
    fn inside(&self, full: &[u8]) -> Result<Option<TreePath>, WorkspaceError> {
        let rest = match full.strip_prefix(self.prefix.as_slice()) {
            Some(b"") => return Ok(None),
            Some(rest) => rest.strip_prefix(b"/"),
            None => None,
        };
        let rest = rest.ok_or_else(|| {
            let shown = printable::line(&full[..full.len().min(PATH_BYTES_MAX)]);
            refused(format!("{shown} is not below {}/", printable::line(&self.prefix)))
        })?;
        TreePath::parse(rest).map(Some).map_err(|e| refused(e.to_string()))
    }

    /// Holds a member to the tree so far: each path once, its parent a directory, a hard link's file there.
    fn place(&mut self, path: &TreePath, kind: &MemberKind) -> Result<(), WorkspaceError> {
        if let Some(parent) = path.parent()
            && self.seen.get(&parent) != Some(&Seen::Directory)
        {
            return Err(refused(format!("{path} is in what is not a directory of it")));
        }
        let target = match kind {
            MemberKind::Link(target) => target.0.len(),
            MemberKind::HardLink(target) => target.as_bytes().len(),
            MemberKind::Directory | MemberKind::File { .. } | MemberKind::Other(_) => 0,
        };
        self.names_bytes += path.as_bytes().len() + target;
        if self.names_bytes > NAMES_BYTES_MAX {
            return Err(refused(format!("its paths have more than {NAMES_BYTES_MAX} bytes")));
        }
        let seen = match kind {
            MemberKind::Directory => Seen::Directory,
            MemberKind::File { .. } => Seen::File,
            MemberKind::HardLink(target) => match self.seen.get(target) {
                // Engines write special files and links with several names as hard links too.
                Some(seen @ (Seen::File | Seen::Other)) => *seen,
                Some(Seen::Directory) | None => {
                    return Err(refused(format!("{path} is a hard link to {target}, which is no file of it")));
                }
            },
            MemberKind::Link(_) | MemberKind::Other(_) => Seen::Other,
        };
        match self.seen.insert(path.clone(), seen) {
            Some(_) => Err(refused(format!("{path} is in it twice"))),
            None => Ok(()),
        }
    }

    fn header(&mut self) -> Result<Option<tar::Header>, WorkspaceError> {
        let mut block = [0; BLOCK];
        self.read_exact(&mut block)?;
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        self.entries += 1;
        if self.entries > self.limits.entries_max {
            return Err(WorkspaceError::TooManyEntries { entries_max: self.limits.entries_max });
        }
        let header = tar::Header::from_byte_slice(&block).clone();
        let sum: u32 =
            block.iter().enumerate().map(|(at, b)| if (148..156).contains(&at) { 32 } else { u32::from(*b) }).sum();
        if header.cksum().ok() != Some(sum) {
            return Err(refused("a header's checksum is wrong"));
        }
        self.spend(BLOCK as u64)?;
        self.consumed = self.consumed.saturating_add(BLOCK as u64);
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, WorkspaceError> {
        if size > EXTENSION_BYTES_MAX {
            return Err(refused("an extension header is too large"));
        }
        self.expect(size)?;
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| refused("an extension header is too large"))?];
        self.read_exact(&mut bytes)?;
        self.left = 0;
        Ok(bytes)
    }

    /// Content of `size` bytes follows. Said and refused before a byte of it is read.
    fn expect(&mut self, size: u64) -> Result<(), WorkspaceError> {
        self.spend(size)?;
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        self.consumed = self.consumed.saturating_add(size).saturating_add(self.padding);
        Ok(())
    }

    fn spend(&mut self, bytes: u64) -> Result<(), WorkspaceError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limits.bytes_max {
            return Err(WorkspaceError::TooManyBytes { bytes_max: self.limits.bytes_max });
        }
        Ok(())
    }

    fn skip(&mut self) -> Result<(), WorkspaceError> {
        let rest = self.left + self.padding;
        let skipped = io::copy(&mut self.input.by_ref().take(rest), &mut io::sink()).map_err(reading)?;
        (self.left, self.padding) = (0, 0);
        if skipped == rest { Ok(()) } else { Err(WorkspaceError::CutShort) }
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), WorkspaceError> {
        self.input.read_exact(buffer).map_err(reading)
    }
}

struct Content<'a, R> {
    members: &'a mut Members<R>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.members.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.members.input.read(&mut buffer[..most])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.members.left -= n as u64;
        Ok(n)
    }
}

impl Extension {
    /// Reads `<length> <key>=<value>\n` records.
    fn pax(&mut self, mut records: &[u8]) -> Result<(), WorkspaceError> {
        let bad = || refused("an extension header is malformed");
        while !records.is_empty() {
            let space = records.iter().position(|b| *b == b' ').ok_or_else(bad)?;
            let digits = std::str::from_utf8(&records[..space]).map_err(|_| bad())?;
            let length: usize = digits.parse().map_err(|_| bad())?;
            let record = records.get(space + 1..length).and_then(|r| r.strip_suffix(b"\n")).ok_or_else(bad)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|s| s.parse().ok());
                    self.size = Some(size.ok_or_else(bad)?);
                }
                sparse if sparse.starts_with(b"GNU.sparse.") => {
                    return Err(refused("it has a sparse file, which no engine writes"));
                }
                _ => {}
            }
            records = &records[length..];
        }
        Ok(())
    }
}

fn target(bytes: Vec<u8>) -> Result<LinkTarget, WorkspaceError> {
    if bytes.is_empty() || bytes.len() > PATH_BYTES_MAX || bytes.contains(&0) {
        return Err(refused("it has a link that no file system could hold"));
    }
    Ok(LinkTarget(bytes))
}

fn trim_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

pub(crate) fn reading(error: io::Error) -> WorkspaceError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => WorkspaceError::CutShort,
        _ => WorkspaceError::io("read the workspace archive", error),
    }
}

pub(crate) fn refused(why: impl Into<String>) -> WorkspaceError {
    WorkspaceError::Refused(why.into())
}
