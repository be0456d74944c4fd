//! Files of a container in memory: the archives that were put into it, read back as an engine would hand them out.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::{Read, Result};
use std::path::{Component, Path, PathBuf};

/// The archive of `path` out of everything that was put: its own name at the top, as an engine has it. `None` when there
/// is no such path.
pub(super) fn below(archives: &[(String, Bytes)], path: &str) -> Result<Option<Bytes>> {
    let path = plain(Path::new(path));
    let above = path.parent().map(Path::to_owned).unwrap_or_default();
    let mut found: BTreeMap<PathBuf, (tar::Header, Vec<u8>)> = BTreeMap::new();
    for (directory, bytes) in archives {
        let mut archive = tar::Archive::new(bytes.as_ref());
        for entry in archive.entries()? {
            let mut entry = entry?;
            let whole = plain(&Path::new(directory).join(entry.path()?));
            if let Ok(name) = whole.strip_prefix(&above)
                && whole.starts_with(&path)
            {
                let (name, mut content) = (name.to_owned(), Vec::new());
                entry.read_to_end(&mut content)?;
                found.insert(name, (entry.header().clone(), content));
            }
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    let mut tar = tar::Builder::new(Vec::new());
    for (name, (mut header, content)) in found {
        match header.link_name()?.map(|to| to.into_owned()) {
            Some(to) => tar.append_link(&mut header, name, to)?,
            None => tar.append_data(&mut header, name, content.as_slice())?,
        }
    }
    Ok(Some(tar.into_inner()?.into()))
}

fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}
