//! The agent's git objects on their way into the operator's repository: read from a private copy, each decoded, its
//! hash computed again and its content held to git's rules, then written into a pack. Nothing of the agent's
//! repository but objects is looked at: no alternates, no configuration, no index of its own making is trusted.

use crate::workspace::WorkspaceError;
use crate::workspace::archive::Archive;
use crate::workspace::baseline::Baseline;
use crate::workspace::changes::AgentTree;
use crate::workspace::loose::{LooseObjects, LooseWriter};
use crate::workspace::members::{MemberKind, reading};
use crate::workspace::object_pack::{ObjectPack, PackWriter};
use crate::workspace::tree_path::{TreePath, is_dot_git};
use gix_hash::ObjectId;
use gix_object::{Data, Find, FindHeader, Kind};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Objects taken at once.
const OBJECTS_MAX: usize = 2_000_000;
/// Bytes of all of them, inflated.
const BYTES_MAX: u64 = 8 << 30;
/// Bytes of one, inflated.
const OBJECT_BYTES_MAX: usize = 512 << 20;
/// Bytes of a tree: each of its entries is held in memory.
const TREE_BYTES_MAX: usize = 64 << 20;
/// Deltas from an object of a pack to its base. git makes 50, and each may be as large as an object.
const DELTAS_MAX: u32 = 512;
/// For all of them. What takes longer was made to.
const WITHIN: Duration = Duration::from_secs(900);

/// A private copy of the agent's objects; gone when dropped.
pub(crate) struct Copied {
    directory: Directory,
    loose: LooseObjects,
}

/// Removes itself.
struct Directory(PathBuf);

impl Copied {
    /// Copies the object files of the archive that the host may not have into a directory of its own inside `inside`.
    pub(crate) fn extract(
        archive: &Archive,
        tree: &AgentTree,
        baseline: &Baseline,
        host: &Path,
        inside: &Path,
    ) -> Result<Self, WorkspaceError> {
        let directory = inside.join(format!("objects.{}.tmp", std::process::id()));
        // One of a dead process that had our id, perhaps.
        let _ = fs::remove_dir_all(&directory);
        let making = |e| WorkspaceError::at("create", &directory, e);
        DirBuilder::new().mode(0o700).create(&directory).map_err(making)?;
        let directory = Directory(directory);
        let packs = directory.0.join("pack");
        DirBuilder::new().mode(0o700).create(&packs).map_err(|e| WorkspaceError::at("create", &packs, e))?;
        let file = directory.0.join("loose");
        let writing = |e| WorkspaceError::at("write", &file, e);
        let mut loose = LooseWriter::create(&file).map_err(writing)?;
        let wanted = wanted(tree, baseline, host);
        let mut members = archive.members()?;
        while let Some(member) = members.next_member()? {
            let Some(targets) = wanted.get(&member.path) else { continue };
            let MemberKind::File { .. } = member.kind else { continue };
            let mut names = targets.packs.iter().map(|name| packs.join(name));
            // What is named as a pack as well is no loose object.
            let Some(path) = names.next() else {
                loose.add(targets.loose.iter().copied(), &mut members.content()).map_err(reading)?;
                continue;
            };
            let writing = |e| WorkspaceError::at("write", &path, e);
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            io::copy(&mut members.content(), &mut file.map_err(writing)?).map_err(reading)?;
            for other in names {
                fs::hard_link(&path, other).map_err(writing)?;
            }
        }
        Ok(Self { directory, loose: loose.finish().map_err(writing)? })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // It lies in the state directory, which goes with the bottle.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a member is copied as: it may have several names.
#[derive(Default)]
struct Targets {
    loose: Vec<ObjectId>,
    packs: Vec<String>,
}

/// Members to copy. Packs and loose objects by their names alone; what the operator's repository has under the same name
/// as when the agent was given it is not copied.
fn wanted(tree: &AgentTree, baseline: &Baseline, host: &Path) -> BTreeMap<TreePath, Targets> {
    let mut wanted: BTreeMap<TreePath, Targets> = BTreeMap::new();
    for (path, node) in &tree.entries {
        let name = path.as_bytes().strip_prefix(b".git/objects/").and_then(|n| std::str::from_utf8(n).ok());
        let Some((name, file)) = name.and_then(|name| Some((name, object_file(name)?))) else { continue };
        let given = baseline.entries.get(path).is_some_and(|before| before.same(node));
        if given && host.join(name).is_file() {
            continue;
        }
        let targets = wanted.entry(tree.source(path).clone()).or_default();
        match file {
            ObjectFile::Loose(id) => targets.loose.push(id),
            ObjectFile::Pack(name) => targets.packs.push(name),
        }
    }
    wanted
}

/// What git keeps under a name below its object directory.
#[derive(Debug, PartialEq, Eq)]
enum ObjectFile {
    /// One object.
    Loose(ObjectId),
    /// A pack or its index, by its name below `pack/`.
    Pack(String),
}

fn object_file(name: &str) -> Option<ObjectFile> {
    let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match name.split_once('/')? {
        ("pack", pack) => {
            let stem = pack.strip_suffix(".pack").or_else(|| pack.strip_suffix(".idx"))?;
            hex(stem.strip_prefix("pack-")?, 40).then(|| ObjectFile::Pack(pack.to_owned()))
        }
        (fan, rest) if hex(fan, 2) && hex(rest, 38) => {
            ObjectId::from_hex([fan, rest].concat().as_bytes()).ok().map(ObjectFile::Loose)
        }
        _ => None,
    }
}

/// Takes objects from the agent's copy to the operator's repository.
pub(crate) struct Importer<'a> {
    copied: &'a Copied,
    packs: gix_odb::Handle,
    host: gix_odb::Handle,
    /// Verified, in the order they were found: what points before what is pointed at.
    order: Vec<ObjectId>,
    seen: HashMap<ObjectId, Kind>,
    /// What was looked at, also in vain: no ref gets its share anew.
    looked: usize,
    bytes: u64,
    until: Instant,
}

impl<'a> Importer<'a> {
    pub(crate) fn new(copied: &'a Copied, host: &Path) -> io::Result<Self> {
        let options = gix_odb::store::init::Options {
            use_multi_pack_index: false,
            alloc_limit_bytes: Some(OBJECT_BYTES_MAX),
            ..gix_odb::store::init::Options::default()
        };
        let mut packs = gix_odb::at_opts(&copied.directory.0, gix_hash::Kind::Sha1, None, options)?;
        let mut host_handle = gix_odb::at(host, gix_hash::Kind::Sha1)?;
        packs.refresh_never();
        host_handle.refresh_never();
        Ok(Self {
            copied,
            packs,
            host: host_handle,
            order: Vec::new(),
            seen: HashMap::new(),
            looked: 0,
            bytes: 0,
            until: Instant::now() + WITHIN,
        })
    }

    /// Verifies all that `tip` reaches and the host has not. Errors: why it cannot be taken; then nothing of it is.
    pub(crate) fn verify(&mut self, tip: &str, kind: Option<Kind>) -> Result<(), String> {
        let before = self.order.len();
        // The library reads what an agent made; a panic of it must not end the launcher.
        let verified = catch_unwind(AssertUnwindSafe(|| self.walk(tip, kind)))
            .unwrap_or_else(|_| Err("its objects cannot be read".to_owned()));
        if verified.is_err() {
            for id in self.order.drain(before..) {
                self.seen.remove(&id);
            }
        }
        verified
    }

    /// Packs what was verified. Gives nothing where there is nothing of it that the host has not.
    pub(crate) fn pack(self) -> Result<Option<ObjectPack>, String> {
        if self.order.is_empty() {
            return Ok(None);
        }
        let packed = catch_unwind(AssertUnwindSafe(|| {
            let mut pack = PackWriter::create(&self.copied.directory.0, &self.order).map_err(|e| shown(&e))?;
            let mut buffer = Vec::new();
            for id in &self.order {
                let found = self.find(id, &mut buffer)?;
                let object = found.ok_or_else(|| format!("object {id} is gone"))?;
                pack.add(&object).map_err(|e| shown(&e))?;
            }
            pack.finish().map_err(|e| shown(&e))
        }));
        packed.unwrap_or_else(|_| Err("its objects cannot be read".to_owned())).map(Some)
    }

    fn walk(&mut self, tip: &str, kind: Option<Kind>) -> Result<(), String> {
        let tip = ObjectId::from_hex(tip.as_bytes()).map_err(|_| "it does not hold an object id".to_owned())?;
        let mut pending = vec![(tip, kind)];
        let mut buffer = Vec::new();
        while let Some((id, expected)) = pending.pop() {
            if let Some(kind) = self.known(&id)? {
                expect(&id, kind, expected)?;
                continue;
            }
            // Before anything is read: what is read in vain takes its time as well.
            self.looked += 1;
            if self.bytes > BYTES_MAX || self.looked + pending.len() > OBJECTS_MAX {
                return Err(format!("there are more than {OBJECTS_MAX} new objects or {BYTES_MAX} bytes of them"));
            }
            if Instant::now() > self.until {
                return Err(format!("all new objects took more than {} seconds to read", WITHIN.as_secs()));
            }
            let found = self.find(&id, &mut buffer).map_err(|e| format!("object {id}: {e}"))?;
            let data = found.ok_or_else(|| format!("object {id} is missing"))?;
            self.bytes += data.data.len() as u64;
            expect(&id, data.kind, expected)?;
            let hash = gix_object::compute_hash(gix_hash::Kind::Sha1, data.kind, data.data);
            if hash.ok() != Some(id) {
                return Err(format!("object {id} has a content of another hash"));
            }
            if data.kind == Kind::Tree && data.data.len() > TREE_BYTES_MAX {
                return Err(format!("object {id} is a tree of more than {TREE_BYTES_MAX} bytes"));
            }
            let kind = data.kind;
            for (pointed, expected) in points_at(kind, data.data).map_err(|why| format!("object {id} {why}"))? {
                match self.known(&pointed)? {
                    Some(kind) => expect(&pointed, kind, expected)?,
                    None => pending.push((pointed, expected)),
                }
            }
            self.seen.insert(id, kind);
            self.order.push(id);
        }
        Ok(())
    }

    /// An object of the agent's.
    fn find<'b>(&self, id: &ObjectId, buffer: &'b mut Vec<u8>) -> Result<Option<Data<'b>>, String> {
        // Looks along the deltas without carrying them out.
        let packed = match gix_odb::Header::try_header(&self.packs, id) {
            Ok(Some(gix_odb::find::Header::Packed(head))) if head.num_deltas > DELTAS_MAX => {
                Err(format!("it is more than {DELTAS_MAX} deltas away from its base"))
            }
            Ok(found) => Ok(found.is_some()),
            Err(error) => Err(shown(&error)),
        };
        match packed {
            Ok(true) => self.packs.try_find(id, buffer).map_err(|e| shown(&e)),
            Ok(false) | Err(_) if self.copied.loose.has(id) => {
                self.copied.loose.find(id, OBJECT_BYTES_MAX, buffer).map_err(|e| shown(&e))
            }
            Ok(false) => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// The kind of an object that is verified or in the operator's repository.
    fn known(&self, id: &ObjectId) -> Result<Option<Kind>, String> {
        if let Some(kind) = self.seen.get(id) {
            return Ok(Some(*kind));
        }
        let header =
            FindHeader::try_header(&self.host, id).map_err(|e| format!("the host's object {id}: {}", shown(&e)))?;
        Ok(header.map(|header| header.kind))
    }
}

fn expect(id: &ObjectId, kind: Kind, expected: Option<Kind>) -> Result<(), String> {
    match expected {
        Some(expected) if expected != kind => Err(format!("object {id} is a {kind}, where a {expected} must be")),
        _ => Ok(()),
    }
}

type Pointers = Vec<(ObjectId, Option<Kind>)>;

/// What an object points at. Errors: how it breaks git's rules.
fn points_at(kind: Kind, data: &[u8]) -> Result<Pointers, String> {
    let sha1 = gix_hash::Kind::Sha1;
    match kind {
        Kind::Blob => Ok(Vec::new()),
        Kind::Tree => tree_entries(data),
        Kind::Commit => {
            let commit = gix_object::CommitRef::from_bytes(data, sha1).map_err(|_| "is no commit that can be read")?;
            commit.author().and(commit.committer()).map_err(|_| "has an author or committer that cannot be read")?;
            let header = data.windows(2).position(|w| w == b"\n\n").unwrap_or(data.len());
            if data[..header].contains(&0) {
                return Err("has a NUL in its header".to_owned());
            }
            let parents = commit.parents().map(|id| (id, Some(Kind::Commit)));
            Ok(std::iter::once((commit.tree(), Some(Kind::Tree))).chain(parents).collect())
        }
        Kind::Tag => {
            let tag = gix_object::TagRef::from_bytes(data, sha1).map_err(|_| "is no tag that can be read")?;
            Ok(vec![(tag.target(), Some(tag.target_kind))])
        }
    }
}

/// Reads `<mode> <name>\0<id>` entries by git's strictest rules: known modes, sane names, in order, each once.
fn tree_entries(mut data: &[u8]) -> Result<Pointers, String> {
    let mut pointers = Vec::new();
    let mut last: Option<Vec<u8>> = None;
    let mut names = std::collections::HashSet::new();
    while !data.is_empty() {
        let broken = "is no tree that can be read";
        let space = data.iter().position(|b| *b == b' ').ok_or(broken)?;
        let nul = data.iter().position(|b| *b == 0).filter(|nul| *nul > space).ok_or(broken)?;
        let (mode, name) = (&data[..space], &data[space + 1..nul]);
        let id = data.get(nul + 1..nul + 21).ok_or(broken)?;
        let id = ObjectId::try_from(id).map_err(|_| broken)?;
        data = &data[nul + 21..];
        let kind = match mode {
            b"40000" => Some(Kind::Tree),
            b"100644" | b"100755" | b"100664" | b"120000" => Some(Kind::Blob),
            // A submodule: a commit of another repository.
            b"160000" => None,
            _ => return Err("has an entry with a mode that git does not know".to_owned()),
        };
        name_is_sane(name, mode)?;
        let mut key = name.to_vec();
        if kind == Some(Kind::Tree) {
            key.push(b'/');
        }
        if last.as_ref().is_some_and(|last| *last >= key) || !names.insert(name) {
            return Err("has entries twice or out of order".to_owned());
        }
        last = Some(key);
        if kind.is_some() {
            pointers.push((id, kind));
        }
    }
    Ok(pointers)
}

fn name_is_sane(name: &[u8], mode: &[u8]) -> Result<(), String> {
    let shown = || crate::workspace::printable::line(name);
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        return Err(format!("has an entry named {:?}", shown()));
    }
    if is_dot_git(name) {
        return Err(format!("has an entry named {}, which git would take for its own", shown()));
    }
    if mode == b"120000" && name.to_ascii_lowercase().starts_with(b".gitmodules") {
        return Err("has a .gitmodules that is a link".to_owned());
    }
    Ok(())
}

fn shown(error: &dyn std::fmt::Display) -> String {
    crate::workspace::printable::line(error.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(entries: &[(&str, &str)]) -> Vec<u8> {
        entries.iter().flat_map(|(mode, name)| [format!("{mode} {name}\0").as_bytes(), &[7; 20]].concat()).collect()
    }

    #[test]
    fn trees_are_taken_or_refused_by_gits_rules() {
        for (entries, expected) in [
            (&[("100644", "a"), ("40000", "b"), ("100755", "c")][..], None),
            (&[("100644", "a.c"), ("40000", "a"), ("100644", "a0")], None),
            (&[("100644", ".gitignore"), ("100644", ".gitmodules")], None),
            (&[("160000", "sub")], None),
            (&[("40000", ".git")], Some("its own")),
            (&[("40000", ".GIT")], Some("its own")),
            (&[("100644", "git~1")], Some("its own")),
            (&[("100644", "..")], Some("named")),
            (&[("100644", "a/b")], Some("named")),
            (&[("100644", "")], Some("named")),
            (&[("100644", "b"), ("100644", "a")], Some("order")),
            (&[("100644", "a"), ("40000", "a")], Some("twice")),
            (&[("040000", "a")], Some("mode")),
            (&[("104755", "a")], Some("mode")),
            (&[("120000", ".gitmodules")], Some("link")),
        ] {
            match (tree_entries(&tree(entries)), expected) {
                (Ok(_), None) => {}
                (Err(error), Some(part)) => assert!(error.contains(part), "{entries:?}: {error}"),
                (got, _) => panic!("{entries:?}: {got:?}"),
            }
        }
        assert!(tree_entries(b"100644 a\0short").is_err());
        assert!(tree_entries(b"no end").is_err());
    }

    #[test]
    fn what_is_read_in_vain_counts() {
        let folder = tempfile::tempdir().unwrap();
        let init = std::process::Command::new("git").args(["init", "-q", "host"]).current_dir(folder.path()).status();
        assert!(init.unwrap().success());
        fs::create_dir_all(folder.path().join("copied/pack")).unwrap();
        let mut loose = LooseWriter::create(&folder.path().join("copied/loose")).unwrap();
        let (name, other) = ("1".repeat(40), "2".repeat(40));
        // A whole object under a name that is not its own: `blob 2`, NUL, `hi`, stored and not deflated.
        let bytes = b"\x78\x01\x01\x09\x00\xf6\xffblob 2\x00hi\x0e\xd1\x02\xc3";
        loose.add([ObjectId::from_hex(name.as_bytes()).unwrap()], &mut &bytes[..]).unwrap();
        let copied = Copied { directory: Directory(folder.path().join("copied")), loose: loose.finish().unwrap() };
        let mut importer = Importer::new(&copied, &folder.path().join("host/.git/objects")).unwrap();
        for times in 1..=3 {
            let why = importer.verify(&name, None).unwrap_err();
            assert!(why.contains("another hash"), "{why}");
            assert_eq!((importer.looked, importer.bytes), (times, 2 * times as u64));
        }
        importer.until = Instant::now() - Duration::from_secs(1);
        let why = importer.verify(&other, None).unwrap_err();
        assert!(why.contains("took more than"), "{why}");
    }

    #[test]
    fn only_object_files_are_copied() {
        let hex = "0123456789abcdef0123456789abcdef01234567";
        let id = ObjectId::from_hex(hex.as_bytes()).unwrap();
        for (name, expected) in [
            (format!("pack/pack-{hex}.pack"), Some(ObjectFile::Pack(format!("pack-{hex}.pack")))),
            (format!("pack/pack-{hex}.idx"), Some(ObjectFile::Pack(format!("pack-{hex}.idx")))),
            (format!("01/{}", &hex[2..]), Some(ObjectFile::Loose(id))),
            ("info/alternates".to_owned(), None),
            ("pack/multi-pack-index".to_owned(), None),
            (format!("pack/pack-{hex}.keep"), None),
            (format!("pack/../pack-{hex}.pack"), None),
            ("01/short".to_owned(), None),
            (format!("01/{}", hex[2..].to_uppercase()), None),
        ] {
            assert_eq!(object_file(&name), expected, "{name}");
        }
    }
}
