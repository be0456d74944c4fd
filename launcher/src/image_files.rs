//! The few files of an agent's image that a launch reads (its users, groups and roots), remembered by the image's content
//! address. Reading them from a created container costs the engine a mount each, on every launch of the same image.
//!
//! It is a memory and nothing else: what cannot be read or written here is read from the container again.

use crate::plan::provision::ImageFiles;
use crate::state::{BottleDir, read_limited, write_private};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Images remembered at once; the one that was written longest ago goes first.
const IMAGES_MAX: usize = 32;
/// No bottle's id begins with a dot.
const FOLDER: &str = ".images";

/// The memory of one state directory.
#[derive(Debug, Clone)]
pub struct Memory {
    folder: PathBuf,
}

impl Memory {
    /// That of the state directory that a bottle's folder is in.
    pub fn beside(dir: &BottleDir) -> Self {
        Self { folder: dir.path().parent().unwrap_or(dir.path()).join(FOLDER) }
    }

    /// What is remembered of an image.
    pub fn recall(&self, id: &str) -> Option<ImageFiles> {
        serde_json::from_slice(&read_limited(&self.file(id)?).ok()?).ok()
    }

    /// Remembers an image, and forgets the oldest where there are too many.
    pub fn keep(&self, id: &str, files: &ImageFiles) -> std::io::Result<()> {
        let Some(file) = self.file(id) else { return Ok(()) };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        write_private(&file, &serde_json::to_vec(files)?)?;
        let mut known: Vec<(SystemTime, PathBuf)> =
            std::fs::read_dir(&self.folder)?.flatten().map(|e| (modified(&e.path()), e.path())).collect();
        known.sort();
        let excess = known.len().saturating_sub(IMAGES_MAX);
        for (_, path) in known.into_iter().take(excess) {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }

    /// Only a content address names a file: nothing else says that the content is the same.
    fn file(&self, id: &str) -> Option<PathBuf> {
        let hash = id.strip_prefix("sha256:")?;
        let hex = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| self.folder.join(format!("{hash}.json")))
    }
}

fn modified(path: &Path) -> SystemTime {
    std::fs::metadata(path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::StateRoot;
    use std::collections::BTreeMap;

    fn memory(dir: &Path) -> Memory {
        let env = BTreeMap::from([("XDG_STATE_HOME".to_owned(), dir.to_str().unwrap().to_owned())]);
        let root = StateRoot::open(&env).unwrap();
        let memory = Memory::beside(&root.dir("a-bottle"));
        memory.keep(&format!("sha256:{}", "0".repeat(64)), &files("x")).unwrap();
        assert!(root.ids().unwrap().is_empty(), "the memory is no bottle");
        memory
    }

    fn files(passwd: &str) -> ImageFiles {
        ImageFiles { passwd: Some(passwd.to_owned()), group: None, roots: None }
    }

    #[test]
    fn an_image_is_known_by_its_content_address_alone() {
        let dir = tempfile::tempdir().unwrap();
        let memory = memory(dir.path());
        let id = format!("sha256:{}", "a".repeat(64));
        assert_eq!(memory.recall(&id), None);
        memory.keep(&id, &files("root:x:0:0::/root:/bin/sh\n")).unwrap();
        assert_eq!(memory.recall(&id), Some(files("root:x:0:0::/root:/bin/sh\n")));
        for other in ["debian:bookworm", "sha256:../../x", "sha256:", &format!("sha256:{}", "b".repeat(64))] {
            memory.keep(other, &files("x")).unwrap();
            assert_eq!(memory.recall(other).is_some(), other.ends_with('b'), "{other}");
        }
    }

    #[test]
    fn what_was_torn_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let memory = memory(dir.path());
        let id = format!("sha256:{}", "a".repeat(64));
        memory.keep(&id, &files("x")).unwrap();
        std::fs::write(memory.file(&id).unwrap(), "{\"passwd\": \"ro").unwrap();
        assert_eq!(memory.recall(&id), None);
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let memory = memory(dir.path());
        for n in 0..IMAGES_MAX + 5 {
            memory.keep(&format!("sha256:{n:064x}"), &files("x")).unwrap();
        }
        assert_eq!(std::fs::read_dir(&memory.folder).unwrap().count(), IMAGES_MAX);
    }
}
