//! Verified objects on their way to disk: one pack with its index, made in a private directory, synced, and then given
//! its names in the operator's repository. A kill at any moment leaves all of it or nothing that git would read, and two
//! files are synced instead of one for each object.

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
            gix_pack::bundle::write::Options::default(),
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
    /// Gives it to the repository with these `objects`. After an error the repository has nothing of it.
    pub(crate) fn install(self, objects: &Path) -> io::Result<()> {
        let home = objects.join("pack");
        fs::create_dir_all(&home)?;
        // What the repository's owner lets others read there, they may read of this; nobody writes to a pack.
        let mode = fs::metadata(&home)?.permissions().mode() & 0o444;
        // A pack is found by its index, which comes last.
        for file in [self.pack, self.index] {
            bring(&file, &home, mode)?;
        }
        File::open(&home)?.sync_all()
    }
}

/// Moves a file into a directory, on disk before it has its name there.
fn bring(file: &Path, home: &Path, mode: u32) -> io::Result<()> {
    let name = file.file_name().unwrap_or_default();
    let mut temporary = std::ffi::OsString::from(format!("{TEMPORARY}{}_", std::process::id()));
    temporary.push(name);
    let temporary = home.join(temporary);
    let placed = || {
        match fs::rename(file, &temporary) {
            // The state directory is on a file system of its own.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => drop(fs::copy(file, &temporary)?),
            moved => moved?,
        }
        fs::set_permissions(&temporary, Permissions::from_mode(mode))?;
        File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, home.join(name))
    };
    placed().inspect_err(|_| {
        // The error before says what is wrong; git takes away what stays.
        let _ = fs::remove_file(&temporary);
    })
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
    fn installed(promised: &[&str], added: &[&str]) -> (tempfile::TempDir, io::Result<()>, Vec<String>) {
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
        outcome.unwrap();
        names.sort();
        let ends: Vec<&str> = names.iter().filter_map(|name| name.rsplit_once('.')).map(|(_, end)| end).collect();
        assert_eq!(ends, ["idx", "pack"]);
        let repository = folder.path().join("repository");
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
    fn what_was_not_promised_leaves_the_repository_as_it_was() {
        for added in [&["one\n", "", "four"][..], &["one\n", ""], &["one\n", "", "three", "four"], &["one\n", "", ""]] {
            let (_folder, outcome, names) = installed(&TEXTS, added);
            assert!(outcome.is_err(), "{added:?}");
            assert!(names.is_empty(), "{added:?}: {names:?}");
        }
    }
}
