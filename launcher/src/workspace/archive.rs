//! The workspace as one compressed file in the state directory. It is written whole or not at all, and never unpacked
//! as a tree: a shell prompt or an editor would run what its `.git/config` says.

use crate::workspace::members::{Members, reading};
use crate::workspace::{Limits, WorkspaceError};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The directory that members are below, in what we send and in what the engine gives back.
pub const PREFIX: &str = "workspace";
const LEVEL: i32 = 3;
const CHUNK_BYTES: usize = 128 << 10;

/// What was saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// Bytes of the archive before compression.
    pub bytes: u64,
    /// Bytes on disk.
    pub compressed_bytes: u64,
}

/// Saves the engine's archive as `to`, compressed. What was there stays until all of the new one is on disk.
pub fn save(mut tar: impl Read, to: &Path, limits: Limits) -> Result<Saved, WorkspaceError> {
    let temporary = Temporary::beside(to)?;
    let writing = |e| WorkspaceError::at("write", to, e);
    let mut encoder = zstd::Encoder::new(BufWriter::new(&temporary.file), LEVEL).map_err(writing)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut bytes = 0u64;
    let mut zeros = 0u64;
    loop {
        let n = match tar.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(reading(error)),
        };
        bytes += n as u64;
        if bytes > limits.bytes_max {
            return Err(WorkspaceError::TooManyBytes { bytes_max: limits.bytes_max });
        }
        zeros = match buffer[..n].iter().rposition(|b| *b != 0) {
            Some(last) => (n - 1 - last) as u64,
            None => zeros + n as u64,
        };
        encoder.write_all(&buffer[..n]).map_err(writing)?;
    }
    // An archive ends in two empty blocks; without them the engine stopped in the middle.
    if zeros < 1024 || !bytes.is_multiple_of(512) {
        return Err(WorkspaceError::CutShort);
    }
    encoder.finish().and_then(|mut buffered| buffered.flush()).map_err(writing)?;
    let compressed_bytes = temporary.file.metadata().map_err(writing)?.len();
    temporary.publish(to).map_err(writing)?;
    Ok(Saved { bytes, compressed_bytes })
}

/// A saved archive.
#[derive(Debug, Clone)]
pub struct Archive {
    path: PathBuf,
    limits: Limits,
}

impl Archive {
    /// The archive saved as `path`.
    pub fn open(path: &Path, limits: Limits) -> Self {
        Self { path: path.to_owned(), limits }
    }

    /// Reads it from the start.
    pub fn members(&self) -> Result<Members<impl Read + use<>>, WorkspaceError> {
        let opening = |e| WorkspaceError::at("open", &self.path, e);
        let file = File::open(&self.path).map_err(opening)?;
        let decoder = zstd::Decoder::new(file).map_err(opening)?;
        Ok(Members::new(BufReader::with_capacity(CHUNK_BYTES, decoder), PREFIX, self.limits))
    }

    /// Reads it to its end, holds it to what an engine makes of a directory, and gives what can be read of the same file
    /// once more, decompressed.
    pub fn checked(&self) -> Result<impl Read + Send + use<>, WorkspaceError> {
        let opening = |e| WorkspaceError::at("open", &self.path, e);
        let file = File::open(&self.path).map_err(opening)?;
        let again = file.try_clone().map_err(opening)?;
        let decoder = zstd::Decoder::new(file).map_err(opening)?;
        let mut members = Members::new(BufReader::with_capacity(CHUNK_BYTES, decoder), PREFIX, self.limits);
        while members.next_member()?.is_some() {}
        let mut again = again;
        io::Seek::rewind(&mut again).map_err(opening)?;
        // What follows an archive's end is no part of what was looked at.
        let bytes = members.bytes_read();
        Ok(zstd::Decoder::new(again).map_err(opening)?.take(bytes).chain(io::repeat(0).take(1024)))
    }

    /// What it may hold at most.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The directory it lies in.
    pub fn directory(&self) -> &Path {
        parent(&self.path)
    }
}

/// A file beside the one it will replace; gone when dropped.
struct Temporary {
    file: File,
    path: PathBuf,
}

impl Temporary {
    fn beside(to: &Path) -> Result<Self, WorkspaceError> {
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let path = to.with_file_name(name);
        // One of a dead process that had our id, perhaps; not being there is the usual case.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        Ok(Self { file: file.map_err(|e| WorkspaceError::at("create", &path, e))?, path })
    }

    fn publish(&self, to: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, to)?;
        File::open(parent(to))?.sync_all()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename it is not there any more.
        let _ = fs::remove_file(&self.path);
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
