//! A scratch image as the archive that the engine loads. Pure: the same files give the same bytes and the same id, so an
//! unchanged image need not be loaded again.

use crate::engine::ScratchImage;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// When everything in an image was made.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// Mode of the directories above the files.
const DIRECTORY_MODE: u32 = 0o755;

/// Mode of a directory that belongs to one user.
const OWNED_MODE: u32 = 0o700;

/// An archive and the id of its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// `sha256:…` of the configuration: what the engine will call the image.
    pub id: String,
    /// What its load call takes.
    pub bytes: Bytes,
}

/// Makes the archive. `arch` is the architecture as images name it (`amd64`).
pub fn archive(image: &ScratchImage, arch: &str) -> std::io::Result<Archive> {
    let files = image.files.iter().map(|(path, (mode, bytes))| (path.as_str(), *mode, bytes));
    let layer = with_owned(layer(files)?, image)?;
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": arch,
        "config": {
            "Cmd": image.command,
            "Entrypoint": image.entrypoint,
            "Labels": image.labels,
            "User": image.user,
        },
        "created": CREATED,
        "history": [{"created": CREATED, "created_by": "bottle"}],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]},
    }))?;
    let digest = hex(&config);
    let tags: Vec<&String> = std::iter::once(&image.tag).chain(&image.aliases).collect();
    let manifest = serde_json::to_vec(&serde_json::json!([
        {"Config": format!("{digest}.json"), "RepoTags": tags, "Layers": ["layer.tar"]},
    ]))?;
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, &format!("{digest}.json"), 0o644, &config)?;
    append(&mut tar, "layer.tar", 0o644, &layer)?;
    append(&mut tar, "manifest.json", 0o644, &manifest)?;
    Ok(Archive { id: format!("sha256:{digest}"), bytes: tar.into_inner()?.into() })
}

/// A layer with the image's own directories added to it.
fn with_owned(layer: Vec<u8>, image: &ScratchImage) -> std::io::Result<Vec<u8>> {
    if image.owned.is_empty() {
        return Ok(layer);
    }
    let mut tar = tar::Builder::new(Vec::new());
    let mut given = tar::Archive::new(layer.as_slice());
    for entry in given.entries()? {
        let entry = entry?;
        tar.append(&entry.header().clone(), entry)?;
    }
    for (path, owner) in &image.owned {
        let mut header = header(OWNED_MODE, 0);
        header.set_entry_type(tar::EntryType::Directory);
        header.set_uid(u64::from(*owner));
        header.set_gid(u64::from(*owner));
        tar.append_data(&mut header, format!("{}/", relative(path)?), std::io::empty())?;
    }
    tar.into_inner()
}

/// A tar archive of files with all directories above them: sorted, owned by root, without times.
pub fn layer<'a>(files: impl Iterator<Item = (&'a str, u32, &'a Bytes)> + Clone) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut directories = BTreeSet::new();
    for (path, ..) in files.clone() {
        directories.extend(parents(relative(path)?));
    }
    for directory in directories {
        append_directory(&mut tar, directory)?;
    }
    for (path, mode, bytes) in files {
        append(&mut tar, relative(path)?, mode, bytes)?;
    }
    tar.into_inner()
}

/// The directories above a relative path, outermost first.
pub fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// An absolute path of an image without its first slash; refuses what is not one plain path.
pub fn relative(path: &str) -> std::io::Result<&str> {
    let plain = |rest: &str| rest.split('/').all(|part| !matches!(part, "" | "." | "..")) && !rest.contains('\0');
    path.strip_prefix('/').filter(|rest| plain(rest)).ok_or_else(|| {
        std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("{path:?} is not a plain absolute path"))
    })
}

/// Adds a directory.
pub fn append_directory(tar: &mut tar::Builder<Vec<u8>>, path: &str) -> std::io::Result<()> {
    let mut header = header(DIRECTORY_MODE, 0);
    header.set_entry_type(tar::EntryType::Directory);
    tar.append_data(&mut header, format!("{path}/"), std::io::empty())
}

/// Adds a file.
pub fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> std::io::Result<()> {
    tar.append_data(&mut header(mode, bytes.len() as u64), path, bytes)
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read;

    fn image() -> ScratchImage {
        ScratchImage {
            tag: "bottle-x:1".to_owned(),
            aliases: Vec::new(),
            files: BTreeMap::from([
                ("/usr/bin/x".to_owned(), (0o755, Bytes::from_static(b"x"))),
                ("/etc/passwd".to_owned(), (0o644, Bytes::from_static(b"root"))),
            ]),
            owned: BTreeMap::new(),
            entrypoint: vec!["/usr/bin/x".to_owned()],
            command: vec!["serve".to_owned()],
            user: "65532:65532".to_owned(),
            labels: BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]),
        }
    }

    #[test]
    fn the_id_follows_from_the_content_alone() {
        let first = archive(&image(), "amd64").unwrap();
        assert_eq!(first, archive(&image(), "amd64").unwrap());
        let other_tag = ScratchImage { tag: "bottle-x:2".to_owned(), ..image() };
        assert_eq!(first.id, archive(&other_tag, "amd64").unwrap().id);
        let other_user = ScratchImage { user: "0".to_owned(), ..image() };
        assert_ne!(first.id, archive(&other_user, "amd64").unwrap().id);
        // Known bytes: a change of this id means that every host loads every image again.
        assert_eq!(first.id, "sha256:479024790b3664f584ce01673d0685b10035907ae39419e97f34d92a62956d4e");
    }

    #[test]
    fn members_are_sorted_and_have_their_directories_before_them() {
        let image = image();
        let files = image.files.iter().map(|(path, (mode, bytes))| (path.as_str(), *mode, bytes));
        let bytes = layer(files).unwrap();
        let mut tar = tar::Archive::new(bytes.as_slice());
        let mut seen = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
            seen.push(format!("{} {:o} {text}", entry.path().unwrap().display(), header.mode().unwrap()));
        }
        assert_eq!(seen, ["etc/ 755 ", "usr/ 755 ", "usr/bin/ 755 ", "etc/passwd 644 root", "usr/bin/x 755 x"]);
    }

    #[test]
    fn only_plain_absolute_paths() {
        for (path, wanted) in [
            ("/a", Some("a")),
            ("/a/b.c", Some("a/b.c")),
            ("a", None),
            ("/", None),
            ("/a/", None),
            ("//a", None),
            ("/a/../b", None),
            ("/./a", None),
            ("/a\0b", None),
        ] {
            assert_eq!(relative(path).ok(), wanted, "{path:?}");
        }
    }
}
