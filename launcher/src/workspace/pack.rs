//! Makes a tar stream of the operator's directory for the engine to unpack in the bottle, and a [`Baseline`] of it.
//!
//! It never follows a link, and never sends a credential that git keeps in its configuration. What cannot come along
//! is named, not an error.

use crate::workspace::baseline::{Baseline, Digest, LinkTarget, Node};
use crate::workspace::tree_path::TreePath;
use crate::workspace::walk::{ENTRIES_MAX, Entry, Kind, walk};
use crate::workspace::{WorkspaceError, gitconfig, refs};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path};

/// Files of git's that are looked into are not larger than this.
const GIT_FILE_BYTES_MAX: u64 = 16 << 20;

/// The agent's user and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u64,
    /// Group id.
    pub gid: u64,
}

/// What was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    /// Files and links.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// What was left out, and why.
    pub left_out: Vec<(String, String)>,
    /// Files whose size changed while they were read: they came along cut or filled with zeros.
    pub changed: Vec<TreePath>,
    /// Credentials that were taken out of the copy: the file, and what it was.
    pub stripped: Vec<(TreePath, String)>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// What the agent was given.
    pub baseline: Baseline,
}

/// Streams `directory` to `out` as a tar archive below `prefix`, telling `progress` files and bytes so far.
pub fn pack(
    directory: &Path,
    owner: Owner,
    prefix: &str,
    out: &mut impl Write,
    progress: &dyn Fn(u64, u64),
) -> Result<Packed, WorkspaceError> {
    let found = walk(directory, ENTRIES_MAX)?;
    let packed = Packed { left_out: found.left_out, ..Packed::default() };
    let top = directory.metadata().map_err(|e| WorkspaceError::at("read", directory, e))?;
    let configs = configs(directory, &found.entries);
    let mut packer =
        Packer { tar: tar::Builder::new(out), directory, owner, prefix, configs, packed, refs: BTreeMap::new() };
    packer.directory(None, permissions(&top) | 0o700, mtime(&top)).map_err(sending)?;
    for entry in &found.entries {
        packer.entry(entry)?;
        progress(packer.packed.files, packer.packed.bytes);
    }
    let Packer { tar, mut packed, refs, .. } = packer;
    tar.into_inner().and_then(|out| out.flush()).map_err(sending)?;
    packed.baseline.refs = refs::Refs::parse(&refs).ids;
    packed.warnings.extend(git_warning(&found.entries));
    Ok(packed)
}

struct Packer<'a, W: Write> {
    tar: tar::Builder<&'a mut W>,
    directory: &'a Path,
    owner: Owner,
    prefix: &'a str,
    configs: BTreeSet<TreePath>,
    packed: Packed,
    refs: BTreeMap<TreePath, Vec<u8>>,
}

impl<W: Write> Packer<'_, W> {
    fn entry(&mut self, entry: &Entry) -> Result<(), WorkspaceError> {
        let mode = permissions(&entry.metadata);
        let node = match &entry.kind {
            Kind::Directory => {
                self.directory(Some(&entry.path), mode, mtime(&entry.metadata)).map_err(sending)?;
                Node::Directory { mode }
            }
            Kind::Link(target) => {
                self.link(&entry.path, target, mtime(&entry.metadata)).map_err(sending)?;
                self.packed.files += 1;
                Node::Link { target: LinkTarget(target.clone()) }
            }
            Kind::File => match self.open(&entry.path) {
                Ok((file, size)) => {
                    let sent = self.file(entry, mode, file, size)?;
                    self.packed.files += 1;
                    self.packed.bytes += sent.0;
                    Node::File { mode, size: sent.0, sha256: sent.1 }
                }
                Err(error) => {
                    self.packed.left_out.push((entry.path.to_string(), error.to_string()));
                    return Ok(());
                }
            },
        };
        self.packed.baseline.entries.insert(entry.path.clone(), node);
        Ok(())
    }

    /// Opens a file, unless something else stands there by now. A pipe must not make us wait.
    fn open(&self, path: &TreePath) -> io::Result<(File, u64)> {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
            .open(self.directory.join(path.to_path()))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no longer a file"));
        }
        Ok((file, metadata.len()))
    }

    fn file(&mut self, entry: &Entry, mode: u32, mut file: File, size: u64) -> Result<(u64, Digest), WorkspaceError> {
        let mut header = self.header(tar::EntryType::Regular, mode, mtime(&entry.metadata));
        if size <= GIT_FILE_BYTES_MAX
            && let Some(role) = self.role(&entry.path)
        {
            let mut content = Vec::new();
            file.take(GIT_FILE_BYTES_MAX).read_to_end(&mut content).map_err(|e| reading(&entry.path, e))?;
            let content = self.inspect(&entry.path, role, content);
            let size = content.len() as u64;
            header.set_size(size);
            self.append(header, Some(&entry.path), &content[..]).map_err(sending)?;
            return Ok((size, Digest(Sha256::digest(&content).into())));
        }
        header.set_size(size);
        let mut exact = Exact { file: &mut file, left: size, hash: Sha256::new(), error: None, short: false };
        let path = member(self.prefix, Some(&entry.path));
        self.tar.append_data(&mut header, path, &mut exact).map_err(sending)?;
        let (hash, error, short) = (exact.hash.finalize(), exact.error, exact.short);
        if let Some(error) = error {
            let why = format!("it could not be read to its end: {error}");
            self.packed.warnings.push(format!("{}: {why}", entry.path));
        }
        if short || matches!(file.read(&mut [0]), Ok(1)) {
            self.packed.changed.push(entry.path.clone());
        }
        Ok((size, Digest(hash.into())))
    }

    fn role(&self, path: &TreePath) -> Option<GitFile> {
        if refs::is_ref_file(path) {
            return Some(GitFile::Ref);
        }
        if self.configs.contains(path) {
            return Some(GitFile::Config);
        }
        let holds = [&b"FETCH_HEAD"[..], b"logs", b"remotes", b"branches"];
        let mut inside = path.components().skip_while(|c| *c != b".git").skip(1);
        inside.any(|component| holds.contains(&component)).then_some(GitFile::Addresses)
    }

    /// Takes credentials out of a file of git's, and remembers refs.
    fn inspect(&mut self, path: &TreePath, role: GitFile, content: Vec<u8>) -> Vec<u8> {
        match role {
            GitFile::Config => {
                let (clean, stripped) = gitconfig::strip(&content);
                self.packed.stripped.extend(stripped.into_iter().map(|what| (path.clone(), what)));
                clean
            }
            GitFile::Addresses => match gitconfig::strip_addresses(&content) {
                Some(clean) => {
                    self.packed.stripped.push((path.clone(), "userinfo of an address".to_owned()));
                    clean
                }
                None => content,
            },
            GitFile::Ref => {
                self.refs.insert(path.clone(), content.clone());
                content
            }
        }
    }

    fn directory(&mut self, path: Option<&TreePath>, mode: u32, mtime: u64) -> io::Result<()> {
        let header = self.header(tar::EntryType::Directory, mode, mtime);
        self.append(header, path, io::empty())
    }

    fn link(&mut self, path: &TreePath, target: &[u8], mtime: u64) -> io::Result<()> {
        let mut header = self.header(tar::EntryType::Symlink, 0o777, mtime);
        // The crate would tidy the target up, and a link must come back as it went.
        if header.set_link_name_literal(target).is_err() {
            let mut long = self.header(tar::EntryType::GNULongLink, 0o644, 0);
            long.set_path("././@LongLink")?;
            long.set_size(target.len() as u64 + 1);
            long.set_cksum();
            self.tar.append(&long, target.chain(&[0][..]))?;
            header.set_link_name_literal(&target[..target.len().min(100)])?;
        }
        self.append(header, Some(path), io::empty())
    }

    fn append(&mut self, mut header: tar::Header, path: Option<&TreePath>, content: impl Read) -> io::Result<()> {
        self.tar.append_data(&mut header, member(self.prefix, path), content)
    }

    fn header(&self, kind: tar::EntryType, mode: u32, mtime: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(self.owner.uid);
        header.set_gid(self.owner.gid);
        header.set_mtime(mtime);
        header.set_size(0);
        header
    }
}

#[derive(Debug, Clone, Copy)]
enum GitFile {
    Config,
    Addresses,
    Ref,
}

/// Reads exactly as many bytes as the header promised, whatever the file does meanwhile.
struct Exact<'a> {
    file: &'a mut File,
    left: u64,
    hash: Sha256,
    error: Option<io::Error>,
    short: bool,
}

impl Read for Exact<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..most];
        let mut n = 0;
        if !self.short && most > 0 {
            n = match self.file.read(buffer) {
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) => {
                    self.error = Some(error);
                    0
                }
            };
            self.short = n == 0;
        }
        if self.short {
            buffer.fill(0);
            n = most;
        }
        self.hash.update(&buffer[..n]);
        self.left -= n as u64;
        Ok(n)
    }
}

/// Configuration files of every repository in the tree, and the files of the tree that they include.
fn configs(directory: &Path, entries: &[Entry]) -> BTreeSet<TreePath> {
    let files: BTreeSet<&TreePath> = entries.iter().filter(|e| e.kind == Kind::File).map(|e| &e.path).collect();
    let mut pending: Vec<TreePath> = files.iter().filter(|p| is_config(p, &files)).map(|p| (*p).clone()).collect();
    let mut configs = BTreeSet::new();
    while let Some(path) = pending.pop() {
        let included = read_small(&directory.join(path.to_path()))
            .map(|text| {
                [gitconfig::values(&text, "include", "path"), gitconfig::values(&text, "includeif", "path")].concat()
            })
            .unwrap_or_default();
        if configs.insert(path.clone()) {
            pending.extend(included.iter().filter_map(|i| resolve(&path, i)).filter(|p| files.contains(p)));
        }
    }
    configs
}

fn is_config(path: &TreePath, files: &BTreeSet<&TreePath>) -> bool {
    let beside = |name: &[u8]| {
        let mut bytes = path.parent().map(|p| [p.as_bytes(), b"/"].concat()).unwrap_or_default();
        bytes.extend_from_slice(name);
        TreePath::parse(&bytes).is_ok_and(|p| files.contains(&p))
    };
    let mut inside = path.components().skip_while(|c| *c != b".git").skip(1);
    let in_git =
        inside.next().is_some_and(|first| first == path.name() || [&b"modules"[..], b"worktrees"].contains(&first));
    path.name() == b".gitconfig" || path.name().starts_with(b"config") && (in_git || beside(b"HEAD"))
}

/// The path of an included file, when it is in the tree.
fn resolve(config: &TreePath, included: &str) -> Option<TreePath> {
    let mut parts: Vec<Vec<u8>> = config.components().map(<[u8]>::to_vec).collect();
    parts.pop();
    for component in Path::new(included).components() {
        match component {
            Component::Normal(name) => parts.push(name.as_encoded_bytes().to_vec()),
            Component::ParentDir => drop(parts.pop()?),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    TreePath::parse(&parts.join(&b'/')).ok()
}

fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(GIT_FILE_BYTES_MAX).read_to_end(&mut content)?;
    Ok(content)
}

fn git_warning(entries: &[Entry]) -> Option<String> {
    let git = entries.iter().find(|e| e.path.as_bytes() == b".git")?;
    match git.kind {
        Kind::Directory => None,
        Kind::File => Some(
            "the directory's .git is a file (a linked worktree or a submodule): its history is elsewhere and does not come along"
                .to_owned(),
        ),
        Kind::Link(_) => {
            Some("the directory's .git is a link: the history it points to does not come along".to_owned())
        }
    }
}

fn member(prefix: &str, path: Option<&TreePath>) -> std::path::PathBuf {
    match path {
        Some(path) => Path::new(prefix).join(path.to_path()),
        None => std::path::PathBuf::from(prefix),
    }
}

fn permissions(metadata: &std::fs::Metadata) -> u32 {
    metadata.mode() & 0o777
}

fn mtime(metadata: &std::fs::Metadata) -> u64 {
    u64::try_from(metadata.mtime()).unwrap_or(0)
}

fn sending(error: io::Error) -> WorkspaceError {
    WorkspaceError::io("send the workspace", error)
}

fn reading(path: &TreePath, error: io::Error) -> WorkspaceError {
    WorkspaceError::io(format!("read {path}"), error)
}
