//! Ways through the commits and trees of a verified pack. They are walked only when somebody asks, within a limit on
//! the work, because an agent can build packs whose every object takes a chain of four thousand deltas to read.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use gix_hash::ObjectId;

use super::index::NONE;
use super::stored::{Buffers, Stored};
use super::verified::{Descent, Found, Lookup, Verified};
use super::{LookupError, ObjectKind, delta};
use crate::objects::{Commit, TreeEntries};

/// Commits, trees and tags were held in memory once before; they may be again.
const OBJECT_BYTES_MAX: u64 = 64 << 20;
/// All that one question may read and build.
const WORK_BYTES_MAX: u64 = 2 << 30;
/// What is kept of it for the next object, which is often a delta on the one before.
const CACHE_BYTES: usize = 8 << 20;
/// Folders within folders.
const TREE_DEPTH_MAX: usize = 2048;
const PATH_BYTES_MAX: usize = 64 << 10;

/// One question to a pack.
pub(super) struct Walk<'a> {
    pack: &'a Verified,
    stored: Stored<'a>,
    buffers: Buffers,
    cache: HashMap<u32, Rc<Vec<u8>>>,
    cached_bytes: usize,
    work_bytes: u64,
}

/// A tree that is being gone through.
struct Folder {
    content: Rc<Vec<u8>>,
    /// How much of it was read.
    at: usize,
    /// The path is this long without what is below.
    path_len: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(pack: &'a Verified) -> Self {
        let stored = Stored { spool: pack.spool.view(), index: &pack.index, format: pack.format };
        Self { pack, stored, buffers: Buffers::new(), cache: HashMap::new(), cached_bytes: 0, work_bytes: 0 }
    }

    /// The content of an entry, its deltas carried out.
    pub(super) fn content(&mut self, entry: u32, bytes_max: u64) -> Result<Rc<Vec<u8>>, LookupError> {
        let mut chain = Vec::new();
        let mut at = entry;
        let mut content = loop {
            if let Some(content) = self.cache.get(&at) {
                break Rc::clone(content);
            }
            match self.pack.table.bases[at as usize] {
                NONE => break Rc::new(self.stored(at, entry, bytes_max)?),
                base => {
                    chain.push(at);
                    at = base;
                }
            }
        };
        self.keep(at, &content);
        while let Some(link) = chain.pop() {
            let instructions = self.stored(link, entry, bytes_max)?;
            let too_large = || LookupError::TooLarge(self.pack.table.names.id(entry));
            let sizes = delta::sizes(&mut instructions.as_slice()).map_err(|_| changed())?;
            if sizes.result > bytes_max {
                return Err(too_large());
            }
            self.work(sizes.result)?;
            let mut result = Vec::new();
            delta::apply(&content, &instructions, &mut result).map_err(|_| changed())?;
            content = Rc::new(result);
            self.keep(link, &content);
        }
        Ok(content)
    }

    /// What the pack itself has of an entry.
    fn stored(&mut self, at: u32, entry: u32, bytes_max: u64) -> Result<Vec<u8>, LookupError> {
        let size = self.stored.size(at)?;
        self.work(size + 1024)?;
        let mut out = Vec::new();
        match self.stored.read(at, bytes_max, &mut self.buffers, &mut out)? {
            Some(()) => Ok(out),
            None => Err(LookupError::TooLarge(self.pack.table.names.id(entry))),
        }
    }

    fn work(&mut self, bytes: u64) -> Result<(), LookupError> {
        self.work_bytes = self.work_bytes.saturating_add(bytes);
        if self.work_bytes > WORK_BYTES_MAX {
            return Err(LookupError::TooMany { what: "bytes of commits and trees", limit: WORK_BYTES_MAX });
        }
        Ok(())
    }

    fn keep(&mut self, entry: u32, content: &Rc<Vec<u8>>) {
        if content.len() > CACHE_BYTES / 2 {
            return;
        }
        if self.cached_bytes + content.len() > CACHE_BYTES {
            self.cache.clear();
            self.cached_bytes = 0;
        }
        // Also an empty object takes room in the map.
        self.cached_bytes += content.len() + 64;
        self.cache.insert(entry, Rc::clone(content));
    }

    /// An object of a kind, if the pack has it.
    fn object(&mut self, oid: &ObjectId, kind: ObjectKind) -> Result<Option<Rc<Vec<u8>>>, LookupError> {
        match self.pack.entry_of(oid) {
            Some(entry) if self.pack.table.kinds[entry as usize] == Some(kind) => {
                self.content(entry, OBJECT_BYTES_MAX).map(Some)
            }
            _ => Ok(None),
        }
    }

    pub(super) fn commit(&mut self, oid: &ObjectId) -> Result<Option<Commit>, LookupError> {
        let content = self.object(oid, ObjectKind::Commit)?;
        content.map(|content| Commit::parse(&content, self.pack.format).map_err(|_| changed().into())).transpose()
    }

    pub(super) fn boundary(&mut self, parents_max: usize) -> Result<Vec<ObjectId>, LookupError> {
        let mut seen = HashSet::new();
        let mut boundary = Vec::new();
        for oid in self.pack.commits() {
            let Some(commit) = self.commit(&oid)? else { continue };
            for parent in commit.parents {
                if boundary.len() == parents_max {
                    return Ok(boundary);
                }
                if self.pack.kind_of(&parent) != Some(ObjectKind::Commit) && seen.insert(parent) {
                    boundary.push(parent);
                }
            }
        }
        Ok(boundary)
    }

    pub(super) fn descends(
        &mut self,
        new: &ObjectId,
        old: &ObjectId,
        commits_max: u64,
    ) -> Result<Descent, LookupError> {
        let mut seen = HashSet::from([*new]);
        let mut open = vec![*new];
        let mut beyond = Vec::new();
        let mut commits = 0;
        while !seen.contains(old) {
            let Some(oid) = open.pop() else {
                return Ok(Descent::GoesOnAt(beyond));
            };
            let Some(commit) = self.commit(&oid)? else {
                beyond.push(oid);
                continue;
            };
            commits += 1;
            // The first parent is looked at first.
            open.extend(commit.parents.into_iter().rev().filter(|parent| seen.insert(*parent)));
            // Parents count too: one commit can have a hundred thousand of them.
            if commits > commits_max || (seen.len() as u64 > commits_max.saturating_mul(2) && !seen.contains(old)) {
                return Err(LookupError::TooMany { what: "commits", limit: commits_max });
            }
        }
        Ok(Descent::Proven)
    }

    pub(super) fn lookup(&mut self, commit: &ObjectId, path: &[u8]) -> Result<Lookup, LookupError> {
        let Some(Commit { tree, .. }) = self.commit(commit)? else {
            return Ok(Lookup::NotInPack(*commit));
        };
        let mut at = tree;
        for name in path.split(|byte| *byte == b'/') {
            let Some(content) = self.object(&at, ObjectKind::Tree)? else {
                let elsewhere = self.pack.kind_of(&at).is_none();
                return Ok(if elsewhere { Lookup::NotInPack(at) } else { Lookup::Absent });
            };
            let found = TreeEntries::new(&content, self.pack.format).filter_map(Result::ok).find(|e| e.name == name);
            match found {
                Some(found) if !found.is_submodule() => at = found.oid,
                Some(_) | None => return Ok(Lookup::Absent),
            }
        }
        Ok(Lookup::Object(at))
    }

    pub(super) fn paths_of(&mut self, oids: &[ObjectId]) -> Result<Vec<Option<Found>>, LookupError> {
        // What no tree can hold, and what the pack does not have, need not be looked for.
        let sought = |oid: &ObjectId| matches!(self.pack.kind_of(oid), Some(ObjectKind::Blob | ObjectKind::Tree));
        let mut open: HashSet<ObjectId> = oids.iter().filter(|oid| sought(oid)).copied().collect();
        let mut found = HashMap::new();
        let mut seen = vec![false; self.pack.index.len() as usize];
        for oid in self.pack.commits().rev() {
            if open.is_empty() {
                break;
            }
            if let Some(commit) = self.commit(&oid)? {
                self.tree(&commit.tree, &oid, &mut seen, &mut open, &mut found)?;
            }
        }
        Ok(oids.iter().map(|oid| found.get(oid).cloned()).collect())
    }

    /// Goes through a root tree and what is below it, leaving out trees that were seen before.
    fn tree(
        &mut self,
        root: &ObjectId,
        commit: &ObjectId,
        seen: &mut [bool],
        open: &mut HashSet<ObjectId>,
        found: &mut HashMap<ObjectId, Found>,
    ) -> Result<(), LookupError> {
        let mut path = Vec::new();
        let mut folders = Vec::new();
        folders.extend(self.folder(root, 0, seen)?);
        while let Some(folder) = folders.last_mut() {
            path.truncate(folder.path_len);
            let content = Rc::clone(&folder.content);
            let mut entries = TreeEntries::new(&content[folder.at..], self.pack.format);
            let Some(entry) = entries.next() else {
                folders.pop();
                continue;
            };
            let entry = entry.map_err(|_| changed())?;
            folder.at = content.len() - entries.rest().len();
            if entry.is_submodule() || path.len() + entry.name.len() > PATH_BYTES_MAX {
                continue;
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(entry.name);
            if open.remove(&entry.oid) {
                found.insert(entry.oid, Found { path: path.clone(), commit: *commit });
                if open.is_empty() {
                    return Ok(());
                }
            }
            if entry.is_tree() && folders.len() < TREE_DEPTH_MAX {
                folders.extend(self.folder(&entry.oid, path.len(), seen)?);
            }
        }
        Ok(())
    }

    /// A tree of the pack that was not seen before.
    fn folder(&mut self, oid: &ObjectId, path_len: usize, seen: &mut [bool]) -> Result<Option<Folder>, LookupError> {
        let Some(entry) = self.pack.entry_of(oid) else { return Ok(None) };
        if self.pack.table.kinds[entry as usize] != Some(ObjectKind::Tree) || seen[entry as usize] {
            return Ok(None);
        }
        seen[entry as usize] = true;
        let content = self.content(entry, OBJECT_BYTES_MAX)?;
        Ok(Some(Folder { content, at: 0, path_len }))
    }
}

/// The spool does not hold any more what was checked.
fn changed() -> std::io::Error {
    std::io::ErrorKind::InvalidData.into()
}
