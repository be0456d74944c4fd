//! The git repository that the operator's directory belongs to: where its objects and refs are. It reads and writes
//! files; it never runs git, and of the repository it changes objects (adding) and `refs/bottle/` alone.

use crate::workspace::{gitconfig, printable};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const SMALL_FILE_BYTES_MAX: u64 = 1 << 20;
const PACKED_REFS_BYTES_MAX: u64 = 256 << 20;

/// A repository of the host.
#[derive(Debug)]
pub(crate) struct HostRepository {
    common: PathBuf,
}

impl HostRepository {
    /// The repository whose work tree has its top at `directory`. Errors: why commits cannot go into it.
    pub(crate) fn find(directory: &Path) -> Result<Self, String> {
        let dot_git = directory.join(".git");
        let none = "the directory is not a git repository";
        let git = match fs::symlink_metadata(&dot_git) {
            Ok(metadata) if metadata.is_file() => {
                let text = small(&dot_git).map_err(|e| format!("its .git cannot be read: {e}"))?;
                let path = text.strip_prefix("gitdir: ").ok_or("its .git file does not say where the repository is")?;
                directory.join(path.trim_end_matches(['\n', '\r']))
            }
            // A link of the operator's own making is followed.
            Ok(_) => dot_git,
            Err(_) => return Err(none.to_owned()),
        };
        let common = match small(&git.join("commondir")) {
            Ok(text) => git.join(text.trim_end_matches(['\n', '\r'])),
            Err(_) => git.clone(),
        };
        if !git.join("HEAD").exists() || !common.join("objects").is_dir() {
            return Err(none.to_owned());
        }
        let config = small(&common.join("config")).unwrap_or_default();
        let extension = |key| gitconfig::values(config.as_bytes(), "extensions", key);
        if extension("objectformat").iter().any(|v| !v.eq_ignore_ascii_case("sha1")) {
            return Err("the directory's repository names objects by SHA-256".to_owned());
        }
        if extension("refstorage").iter().any(|v| !v.eq_ignore_ascii_case("files")) {
            return Err("the directory's repository does not keep its refs in files".to_owned());
        }
        Ok(Self { common })
    }

    /// Where its objects are.
    pub(crate) fn objects(&self) -> PathBuf {
        self.common.join("objects")
    }

    /// Sets a ref below `refs/bottle/`, by git's own protocol: a lock file that is renamed over the ref.
    pub(crate) fn set_ref(&self, packed: &PackedRefs, name: &str, id: &str) -> io::Result<()> {
        if !name.starts_with("refs/bottle/") {
            return Err(io::Error::other("only refs of bottles are written"));
        }
        if let Some(other) = packed.in_the_way(name) {
            return Err(io::Error::other(format!("{other} is there, and git cannot have both")));
        }
        let path = self.common.join(name);
        let mut lock = path.clone().into_os_string();
        lock.push(".lock");
        fs::create_dir_all(path.parent().unwrap_or(&self.common))?;
        let locked = |e: io::Error| match e.kind() {
            io::ErrorKind::AlreadyExists => {
                let lock = Path::new(&lock).display();
                io::Error::other(format!("{lock} is there: another git is at work, or was killed and left it"))
            }
            _ => e,
        };
        let mut file = OpenOptions::new().write(true).create_new(true).open(&lock).map_err(locked)?;
        let written = file.write_all(format!("{id}\n").as_bytes()).and_then(|()| file.sync_all());
        written.and_then(|()| fs::rename(&lock, &path)).inspect_err(|_| {
            // The lock is ours; left behind it would stop git.
            let _ = fs::remove_file(&lock);
        })
    }

    /// The refs of bottles that git keeps packed in one file: beside them the file system sees no directory in the way.
    pub(crate) fn packed(&self) -> io::Result<PackedRefs> {
        let mut content = Vec::new();
        match fs::File::open(self.common.join("packed-refs")) {
            Ok(file) => file.take(PACKED_REFS_BYTES_MAX).read_to_end(&mut content)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let names =
            content.split(|b| *b == b'\n').filter_map(|line| line.get(line.iter().position(|b| *b == b' ')? + 1..));
        Ok(PackedRefs(names.filter(|name| name.starts_with(b"refs/bottle")).map(<[u8]>::to_vec).collect()))
    }
}

/// Names of packed refs.
pub(crate) struct PackedRefs(BTreeSet<Vec<u8>>);

impl PackedRefs {
    /// One that would be a directory of `name`, or in it.
    fn in_the_way(&self, name: &str) -> Option<String> {
        let mut above = name.match_indices('/').filter_map(|(at, _)| self.0.get(&name.as_bytes()[..at]));
        let below = [name.as_bytes(), b"/"].concat();
        let mut inside = self.0.range(below.clone()..).take_while(|packed| packed.starts_with(&below));
        above.next().or_else(|| inside.next()).map(|packed| printable::line(packed))
    }
}

fn small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(SMALL_FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}
