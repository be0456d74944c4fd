//! Verified objects on their way to disk: one pack with its index, made in a private directory, synced, and then given
//! its names in the operator's repository. A kill at any moment leaves all of it or nothing that git would read, and the next
//! take of the same work goes on from there. Two files are synced instead of one for each object.

use gix_hash::ObjectId;
use gix_hash::io::Write as HashWriter;
use gix_object::{Data, Kind};
use gix_pack::data::entry::Header;
use gix_zlib::stream::deflate;
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const SHA1: gix_hash::Kind = gix_hash::Kind::Sha1;
/// How git names what is not whole yet: its own cleaning takes away such files that were left.
const TEMPORARY: &str = "tmp_";
/// What we write into a file that has git keep a pack.
const KEPT: &[u8] = b"launcher take is at work; left behind, it can be deleted\n";

/// A pack that is being written.
pub(crate) struct PackWriter {
    directory: PathBuf,
    path: PathBuf,
    output: HashWriter<BufWriter<File>>,
    promised: BTreeSet<ObjectId>,
    written: usize,
}

/// A pack and its index, whole and private still.
#[derive(Debug)]
pub(crate) struct ObjectPack {
    /// How many objects are in it.
    pub(crate) count: usize,
    pack: PathBuf,
    index: PathBuf,
}

impl PackWriter {
    /// A pack of these objects, to be added one by one, in a new directory inside `inside`.
    pub(crate) fn create(inside: &Path, objects: &[ObjectId]) -> io::Result<Self> {
        let count = u32::try_from(objects.len()).map_err(io::Error::other)?;
        let directory = inside.join("made");
        DirBuilder::new().mode(0o700).create(&directory)?;
        let path = directory.join("objects");
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let mut output = HashWriter::new(BufWriter::new(file), SHA1);
        output.write_all(&gix_pack::data::header::encode(gix_pack::data::Version::V2, count))?;
        Ok(Self { directory, path, output, promised: objects.iter().copied().collect(), written: 0 })
    }

    /// Adds an object.
    pub(crate) fn add(&mut self, object: &Data<'_>) -> io::Result<()> {
        let header = match object.kind {
            Kind::Tree => Header::Tree,
            Kind::Blob => Header::Blob,
            Kind::Commit => Header::Commit,
            Kind::Tag => Header::Tag,
        };
        header.write_to(object.data.len() as u64, &mut self.output)?;
        let mut deflated = deflate::Write::new(&mut self.output, gix_zlib::Compression::BEST_SPEED);
        deflated.write_all(object.data)?;
        deflated.flush()?;
        self.written += 1;
        Ok(())
    }

    /// Indexes the pack, which hashes each object once more. Errors: also that the objects in it are not those that were
    /// promised.
    pub(crate) fn finish(self) -> io::Result<ObjectPack> {
        let Self { directory, path, output, promised, written } = self;
        let digest = output.hash.try_finalize().map_err(io::Error::other)?;
        let mut file = output.inner;
        file.write_all(digest.as_slice())?;
        file.flush()?;
        drop(file);
        let made = gix_pack::Bundle::write_to_directory(
            &mut BufReader::new(File::open(&path)?),
            Some(&directory),
            &mut gix_utils::progress::Discard,
            &AtomicBool::new(false),
            None::<gix_object::find::Never>,
            SHA1,
            // One object at a time in memory, whatever features the library is built with.
            gix_pack::bundle::write::Options { thread_limit: Some(1), ..Default::default() },
        )
        .map_err(io::Error::other)?;
        let (Some(pack), Some(index)) = (made.data_path, made.index_path) else {
            return Err(io::Error::other("no pack came of it"));
        };
        let entries = gix_pack::index::File::at(&index, SHA1).map_err(io::Error::other)?;
        let same = written == promised.len()
            && entries.num_objects() as usize == written
            && promised.iter().all(|id| entries.lookup(id).is_some());
        if !same {
            return Err(io::Error::other("an object changed while it was read"));
        }
        Ok(ObjectPack { count: written, pack, index })
    }
}

impl ObjectPack {
    /// Gives it to the repository with these `objects`, where git keeps it as it is until the guard is dropped: no ref names
    /// anything of it yet. After an error git finds nothing of it, but where only the last sync failed.
    pub(crate) fn install(self, objects: &Path) -> io::Result<Kept> {
        let home = objects.join("pack");
        fs::create_dir_all(&home)?;
        // What the repository's owner lets others read there, they may read of this; nobody writes to a pack.
        let mode = fs::metadata(&home)?.permissions().mode() & 0o444;
        let kept = Kept::make(&home, &self.pack)?;
        let pack = Brought::make(&self.pack, &home, mode)?;
        let index = Brought::make(&self.index, &home, mode)?;
        let (placed, had) = (pack.target.clone(), pack.target.exists());
        // A pack is found by its index, which comes last.
        pack.place()?;
        index.place().inspect_err(|_| {
            if !had {
                // Without its index it would lie there for ever.
                let _ = fs::remove_file(&placed);
            }
        })?;
        File::open(&home)?.sync_all()?;
        Ok(kept)
    }
}

/// While this is there, git neither packs a pack anew nor deletes it.
pub(crate) struct Kept(Option<PathBuf>);

impl Kept {
    fn make(home: &Path, pack: &Path) -> io::Result<Self> {
        let path = home.join(pack.file_name().unwrap_or_default()).with_extension("keep");
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => {
                let kept = Self(Some(path));
                file.write_all(KEPT)?;
                Ok(kept)
            }
            // One that was killed has left its own; anybody else's stays.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let ours = fs::read(&path).is_ok_and(|text| text == KEPT);
                Ok(Self(ours.then_some(path)))
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Left behind, it makes git keep the pack: nothing is lost by it.
            let _ = fs::remove_file(path);
        }
    }
}

/// A file on the target's file system and on disk, without its name still; gone when dropped.
struct Brought {
    temporary: PathBuf,
    target: PathBuf,
}

impl Brought {
    fn make(file: &Path, home: &Path, mode: u32) -> io::Result<Self> {
        let name = file.file_name().unwrap_or_default();
        let mut temporary = std::ffi::OsString::from(format!("{TEMPORARY}{}_", std::process::id()));
        temporary.push(name);
        let brought = Self { temporary: home.join(temporary), target: home.join(name) };
        match fs::rename(file, &brought.temporary) {
            // The state directory is on a file system of its own.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => drop(fs::copy(file, &brought.temporary)?),
            moved => moved?,
        }
        fs::set_permissions(&brought.temporary, Permissions::from_mode(mode))?;
        File::open(&brought.temporary)?.sync_all()?;
        Ok(brought)
    }

    fn place(self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.target)
    }
}

impl Drop for Brought {
    fn drop(&mut self) {
        // After the rename it is not there any more.
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const TEXTS: [&str; 3] = ["one\n", "", "three"];

    fn id(text: &str) -> ObjectId {
        gix_object::compute_hash(SHA1, Kind::Blob, text.as_bytes()).unwrap()
    }

    /// Promises the blobs of `promised`, adds those of `added` and installs the pack in a new repository, whose packs only their
    /// owner and his group may read.
    fn installed(promised: &[&str], added: &[&str]) -> (tempfile::TempDir, io::Result<Kept>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let (private, objects) = (folder.path().join("private"), folder.path().join("repository/.git/objects"));
        fs::create_dir(&private).unwrap();
        let init = Command::new("git").args(["init", "-q", "repository"]).current_dir(folder.path()).status();
        assert!(init.unwrap().success());
        fs::set_permissions(objects.join("pack"), Permissions::from_mode(0o750)).unwrap();
        let ids: Vec<ObjectId> = promised.iter().map(|text| id(text)).collect();
        let mut pack = PackWriter::create(&private, &ids).unwrap();
        for text in added {
            pack.add(&Data { kind: Kind::Blob, data: text.as_bytes(), object_hash: SHA1 }).unwrap();
        }
        let outcome = pack.finish().and_then(|pack| pack.install(&objects));
        let names = fs::read_dir(objects.join("pack")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        (folder, outcome, names)
    }

    #[test]
    fn what_was_promised_is_in_the_repository_as_one_pack() {
        let (folder, outcome, mut names) = installed(&TEXTS, &TEXTS);
        let kept = outcome.unwrap();
        names.sort();
        let ends: Vec<&str> = names.iter().filter_map(|name| name.rsplit_once('.')).map(|(_, end)| end).collect();
        assert_eq!(ends, ["idx", "keep", "pack"]);
        let repository = folder.path().join("repository");
        // No ref names the objects yet, and a git that cleans up leaves them.
        let cleaned = Command::new("git").args(["gc", "-q", "--prune=now"]).current_dir(&repository).status();
        assert!(cleaned.unwrap().success());
        drop(kept);
        names.retain(|name| !name.ends_with(".keep"));
        for name in &names {
            let mode = fs::metadata(repository.join(".git/objects/pack").join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o440, "{name}");
        }
        for text in TEXTS {
            let mut shown = Command::new("git");
            shown.args(["cat-file", "blob", &id(text).to_string()]).current_dir(&repository);
            assert_eq!(shown.output().unwrap().stdout, text.as_bytes());
        }
    }

    #[test]
    fn a_killed_takes_hold_on_a_pack_ends_with_the_next_and_another_ones_stays() {
        let folder = tempfile::tempdir().unwrap();
        let keep = folder.path().join("pack-a.keep");
        for (text, stays) in [(KEPT, false), (b"mine", true), (b"", true)] {
            fs::write(&keep, text).unwrap();
            drop(Kept::make(folder.path(), Path::new("pack-a.pack")).unwrap());
            assert_eq!(keep.exists(), stays, "{text:?}");
        }
    }

    #[test]
    fn what_was_not_promised_leaves_the_repository_as_it_was() {
        for added in [&["one\n", "", "four"][..], &["one\n", ""], &["one\n", "", "three", "four"], &["one\n", "", ""]] {
            let (_folder, outcome, names) = installed(&TEXTS, added);
            assert!(outcome.is_err(), "{added:?}");
            assert!(names.is_empty(), "{added:?}: {names:?}");
        }
    }
}
