//! Files between the host and a container: archives stream in and out, and nothing is ever unpacked on the host here.

use crate::engine::{Chunk, Engine, EngineError, Kind};
use crate::plan::agent::WORKSPACE;
use crate::plan::provision::Identity;
use crate::state::BottleDir;
use crate::stop::{Level, Stop};
use crate::undo::Saver;
use crate::workspace::{self, WorkspaceError};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

/// Text files of an image that are read: passwd, group, certificates.
const TEXT_BYTES_MAX: u64 = 4 << 20;
/// Pieces of an archive on their way; each is at most [`PIECE_BYTES`].
const PIECES: usize = 16;
const PIECE_BYTES: usize = 128 << 10;
/// How long an agent's container may take to end before its workspace is read all the same.
const END_WITHIN: Duration = Duration::from_secs(5);
/// How often a workspace that cannot be read is looked at again, and the pause before that.
const LOOKS: u32 = 20;
const LOOK: Duration = Duration::from_millis(250);

/// Why files could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The workspace could not be read or written.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// The baseline could not be written.
    #[error("the list of what the agent was given cannot be written")]
    Baseline(#[source] std::io::Error),
    /// A thread of ours panicked.
    #[error("the thread that packs the workspace panicked")]
    Thread,
}

/// A file of a container as text; `None` when it is not there or is no file. Bytes that are no UTF-8 are replaced.
pub async fn read_text<E: Engine>(engine: &E, container: &str, path: &str) -> Result<Option<String>, EngineError> {
    let Some(mut archive) = engine.get(container, path).await? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    if archive.as_mut().take(TEXT_BYTES_MAX).read_to_end(&mut bytes).await.is_err() {
        return Ok(None);
    }
    let mut archive = tar::Archive::new(bytes.as_slice());
    let Ok(mut entries) = archive.entries() else {
        return Ok(None);
    };
    let Some(Ok(mut entry)) = entries.next() else {
        return Ok(None);
    };
    if !entry.header().entry_type().is_file() {
        return Ok(None);
    }
    let mut content = Vec::new();
    let read = std::io::Read::read_to_end(&mut entry, &mut content);
    Ok(read.is_ok().then(|| String::from_utf8_lossy(&content).into_owned()))
}

/// Who is told what is going on, and what the operator should still see afterwards.
pub type Tell<'a> = (&'a (dyn Fn(&str) + Send + Sync), &'a (dyn Fn(&str) + Send + Sync));

/// Copies a directory into a created container and writes down what the agent was given. A wish to end breaks it off: a
/// large directory takes minutes.
pub async fn copy_in<E: Engine>(
    engine: &E,
    container: &str,
    from: &Path,
    identity: &Identity,
    baseline: &Path,
    stop: &Stop,
    (progress, notify): Tell<'_>,
) -> Result<(), TransferError> {
    let (sender, receiver) = mpsc::channel(PIECES);
    let owner = workspace::Owner { uid: identity.uid.into(), gid: identity.gid.into() };
    let from = from.to_owned();
    let (told, mut tell) = tokio::sync::watch::channel((0, 0));
    let packing = tokio::task::spawn_blocking(move || {
        let mut out = std::io::BufWriter::with_capacity(PIECE_BYTES, Pipe(sender));
        let prefix = WORKSPACE.trim_start_matches('/');
        let packed = workspace::pack(&from, owner, prefix, &mut out, &|files, bytes| {
            told.send_replace((files, bytes));
        })?;
        out.flush().map_err(|e| WorkspaceError::Io { what: "send the workspace".to_owned(), source: e })?;
        Ok::<_, WorkspaceError>(packed)
    });
    let putting = engine.put(container, "/", pieces(receiver, stop));
    let telling = async {
        while tell.changed().await.is_ok() {
            let (files, bytes) = *tell.borrow_and_update();
            progress(&format!("copying the workspace: {files} files, {} MiB", bytes >> 20));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let (put, ()) = tokio::join!(putting, telling);
    let packed = packing.await.map_err(|_| TransferError::Thread)?;
    // The engine's word first: a put that failed also breaks the packer's pipe, which would hide the reason.
    put?;
    let packed = packed?;
    for notice in notices(&packed) {
        notify(&notice);
    }
    let json = serde_json::to_vec(&packed.baseline).map_err(|e| TransferError::Baseline(e.into()))?;
    crate::state::write_private(baseline, &json).map_err(TransferError::Baseline)
}

/// The pieces of a channel, broken off by a wish to end.
fn pieces(receiver: mpsc::Receiver<bytes::Bytes>, stop: &Stop) -> BoxStream<'static, std::io::Result<bytes::Bytes>> {
    let wish = stop.clone();
    let pieces = futures_util::stream::unfold(Some(receiver), move |receiver| {
        let wish = wish.clone();
        async move {
            let mut receiver = receiver?;
            tokio::select! {
                piece = receiver.recv() => piece.map(|piece| (Ok(piece), Some(receiver))),
                () = wish.reached(Level::Graceful) => Some((Err(std::io::Error::other("stopped")), None)),
            }
        }
    });
    pieces.boxed()
}

/// Puts a saved workspace into a created container, as it was left. The archive is read whole first and held to what an
/// engine makes of one directory, so that nothing of it comes to lie elsewhere; then it goes in byte for byte.
pub async fn put_back<E: Engine>(
    engine: &E,
    container: &str,
    saved: &Path,
    stop: &Stop,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<(), TransferError> {
    progress("looking through the saved workspace");
    let archive = workspace::Archive::open(saved, workspace::Limits::default());
    let checked = tokio::task::spawn_blocking(move || archive.checked());
    let mut whole = checked.await.map_err(|_| TransferError::Thread)??;
    progress("putting the saved workspace back");
    let (sender, receiver) = mpsc::channel(PIECES);
    let reading = tokio::task::spawn_blocking(move || {
        let mut out = std::io::BufWriter::with_capacity(PIECE_BYTES, Pipe(sender));
        std::io::copy(&mut whole, &mut out).and_then(|_| out.flush())
    });
    let put = engine.put(container, "/", pieces(receiver, stop)).await;
    let read = reading.await.map_err(|_| TransferError::Thread)?;
    put?;
    read.map_err(|e| WorkspaceError::Io { what: "read the saved workspace".to_owned(), source: e })?;
    Ok(())
}

/// What the operator should know of what was sent.
fn notices(packed: &workspace::Packed) -> Vec<String> {
    const NAMED_MAX: usize = 5;
    let left_out = packed.left_out.iter().map(|(path, why)| format!("left out: {path} ({why})"));
    let stripped = packed.stripped.iter().map(|(path, what)| format!("taken out of {path}: {what}"));
    let changed = packed.changed.iter().map(|path| format!("changed while it was copied: {path}"));
    let mut notices: Vec<_> = packed.warnings.iter().cloned().chain(stripped).chain(left_out).chain(changed).collect();
    let more = notices.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        notices.truncate(NAMED_MAX);
        notices.push(format!("and {more} more of that kind"));
    }
    notices
}

/// Brings workspaces home into the bottle's directory.
pub struct Home<'a, E: Engine> {
    /// The engine.
    pub engine: &'a E,
    /// The bottle's directory.
    pub dir: &'a BottleDir,
    /// Told what is going on.
    pub progress: &'a (dyn Fn(&str) + Send + Sync),
}

impl<E: Engine> Saver for Home<'_, E> {
    async fn save(&self, container: &str) -> Result<(), String> {
        // Before the agent's first byte ran there is nothing that the host does not have.
        if !self.dir.was_started() {
            return Ok(());
        }
        // An agent that still writes would save a torn state; one that does not end is read all the same.
        let _ = tokio::time::timeout(END_WITHIN, self.engine.wait_exit(container)).await;
        let mut looks = 0;
        let archive = loop {
            match self.engine.get(container, WORKSPACE).await {
                Ok(Some(archive)) => break archive,
                Ok(None) => return Ok(()),
                // A keeper that died had saved it, and removed the container, before it could say so.
                Err(error) if error.kind == Kind::NotFound => return Ok(()),
                // It may have died while the engine removes it, which then has half a container for a moment.
                Err(_) if looks < LOOKS => {
                    looks += 1;
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => return Err(crate::error::chain(&error)),
            }
        };
        (self.progress)("saving the workspace");
        let to = self.dir.workspace();
        let reader = tokio_util::io::SyncIoBridge::new(archive);
        let saved =
            tokio::task::spawn_blocking(move || workspace::save(reader, &to, workspace::Limits::default())).await;
        let saved = saved.map_err(|_| "the thread that saves the workspace panicked".to_owned())?;
        saved.map(|_| ()).map_err(|e| crate::error::chain(&e))
    }
}

/// What a one-shot said, for an error: its last lines.
pub async fn last_words(mut output: BoxStream<'static, Result<Chunk, EngineError>>) -> String {
    let mut text = Vec::new();
    while let Some(Ok(Chunk::Out(bytes) | Chunk::Err(bytes))) = output.next().await {
        text.extend_from_slice(&bytes);
        let excess = text.len().saturating_sub(2048);
        text.drain(..excess);
    }
    let text = String::from_utf8_lossy(&text);
    if text.trim().is_empty() { String::new() } else { format!(": {}", text.trim()) }
}

/// A writer whose bytes come out of a channel.
struct Pipe(mpsc::Sender<bytes::Bytes>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let piece = bytes::Bytes::copy_from_slice(bytes);
        self.0.blocking_send(piece).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
