//! A pack that was received, verified, resolved and shown to the sink as a whole: the proof, and what can be asked of it.

use std::io::{self, Read};

use gix_hash::{Kind, ObjectId};

use super::index::{Index, Table};
use super::resolve::Resolved;
use super::walk::Walk;
use super::{LookupError, ObjectKind};
use crate::spool::{Spool, SpoolView};

/// Proof that the whole pack was received, that its trailer is right, that every entry inflated exactly, that every
/// delta was resolved, and that the sink has seen every object and refused none. Only [`super::receive`] makes one.
#[derive(Debug)]
pub struct Verified {
    pub(super) spool: Spool,
    pub(super) format: Kind,
    pub(super) index: Index,
    pub(super) table: Table,
    /// The numbers of all entries, by their names.
    order: Vec<u32>,
}

/// Where an object is, by the pack's own trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The path from the root, `/` between its parts. Any bytes but NUL: escape it before you show it.
    pub path: Vec<u8>,
    /// A commit of the pack whose tree holds it; the oldest, as far as the pack's order tells.
    pub commit: ObjectId,
}

/// What a path of a commit stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// This object.
    Object(ObjectId),
    /// Nothing.
    Absent,
    /// The pack does not know: this tree (or the commit itself) is not in it.
    NotInPack(ObjectId),
}

/// Whether a commit comes after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Descent {
    /// It does, by commits of the pack alone.
    Proven,
    /// The pack does not say. The history goes on at these commits, which are not in the pack.
    GoesOnAt(Vec<ObjectId>),
}

impl Verified {
    pub(super) fn new(resolved: Resolved, format: Kind) -> Self {
        let Resolved { spool, index, table } = resolved;
        let order = table.names.order();
        Self { spool, format, index, table, order }
    }

    /// How many entries the pack has.
    #[must_use]
    pub fn objects(&self) -> u32 {
        self.index.len()
    }

    /// How long the pack is, trailer included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.spool.len()
    }

    /// The hash of its object names.
    #[must_use]
    pub fn format(&self) -> Kind {
        self.format
    }

    /// Exactly the verified bytes, from the first to the last of the trailer.
    #[must_use]
    pub fn reader(&self) -> PackReader {
        PackReader { spool: self.spool.view(), at: 0, end: self.spool.len() }
    }

    /// Reads verified bytes at `offset`; 0 at their end. For a reader that lives elsewhere (behind an `Arc`).
    ///
    /// # Errors
    /// What the system said.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let room = usize::try_from(self.bytes().saturating_sub(offset)).unwrap_or(usize::MAX);
        let room = room.min(buffer.len());
        self.spool.view().read_at(&mut buffer[..room], offset)
    }

    /// The number of the entry of that name; of one of them, if there are several.
    pub(super) fn entry_of(&self, oid: &ObjectId) -> Option<u32> {
        let found = self.order.binary_search_by(|entry| self.table.names.of(*entry).cmp(oid.as_slice()));
        found.ok().map(|place| self.order[place])
    }

    /// The kind of the object `oid`, when the pack has it.
    #[must_use]
    pub fn kind_of(&self, oid: &ObjectId) -> Option<ObjectKind> {
        self.entry_of(oid).and_then(|entry| self.table.kinds[entry as usize])
    }

    /// The names of all commits in the pack, in its order (git writes the newest first).
    pub fn commits(&self) -> impl DoubleEndedIterator<Item = ObjectId> + '_ {
        let kinds = self.table.kinds.iter().enumerate();
        let commits = kinds.filter(|(_, kind)| **kind == Some(ObjectKind::Commit));
        commits.filter_map(|(entry, _)| u32::try_from(entry).ok()).map(|entry| self.table.names.id(entry))
    }

    /// An object's kind and content, if the pack has it.
    ///
    /// # Errors
    /// When it, or what it is a delta of, is over `bytes_max`, or the spool cannot be read.
    pub fn read(&self, oid: &ObjectId, bytes_max: u64) -> Result<Option<(ObjectKind, Vec<u8>)>, LookupError> {
        let Some((entry, kind)) = self.entry_of(oid).and_then(|e| Some((e, self.table.kinds[e as usize]?))) else {
            return Ok(None);
        };
        let content = Walk::new(self).content(entry, bytes_max)?;
        Ok(Some((kind, content.to_vec())))
    }

    /// The parents of a commit, in order; `None` when the pack has no such commit.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub fn parents_of(&self, commit: &ObjectId) -> Result<Option<Vec<ObjectId>>, LookupError> {
        Ok(Walk::new(self).commit(commit)?.map(|commit| commit.parents))
    }

    /// Parents of the pack's commits that are not in the pack themselves, each once; at most the first `parents_max`.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub fn boundary(&self, parents_max: usize) -> Result<Vec<ObjectId>, LookupError> {
        Walk::new(self).boundary(parents_max)
    }

    /// Whether `new` comes after `old` (or is it), looking at no more than `commits_max` commits of the pack.
    ///
    /// # Errors
    /// When there are more commits, or the spool cannot be read.
    pub fn descends(&self, new: &ObjectId, old: &ObjectId, commits_max: u64) -> Result<Descent, LookupError> {
        Walk::new(self).descends(new, old, commits_max)
    }

    /// Where a blob or tree of the pack is. `None` for commits and tags, for root trees, and for what no tree holds.
    ///
    /// # Errors
    /// When the pack's trees are too many, or the spool cannot be read.
    pub fn path_of(&self, oid: &ObjectId) -> Result<Option<Found>, LookupError> {
        Ok(self.paths_of(std::slice::from_ref(oid))?.pop().flatten())
    }

    /// [`Self::path_of`] for several objects in one walk; one answer for each, in order.
    ///
    /// # Errors
    /// As there.
    pub fn paths_of(&self, oids: &[ObjectId]) -> Result<Vec<Option<Found>>, LookupError> {
        Walk::new(self).paths_of(oids)
    }

    /// What `path` stands for in `commit`, as far as the pack knows: whether a finding is still in the newest commit.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub fn lookup(&self, commit: &ObjectId, path: &[u8]) -> Result<Lookup, LookupError> {
        Walk::new(self).lookup(commit, path)
    }
}

/// Reads the verified bytes, from the first to the last.
#[derive(Debug)]
pub struct PackReader {
    spool: SpoolView,
    at: u64,
    end: u64,
}

impl Read for PackReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.spool.read_at(&mut buffer[..room], self.at)?;
        if n == 0 && room > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        Ok(n)
    }
}
