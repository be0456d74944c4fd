//! The keeper's end of a container's standard input and output: the control channel, the log, and the dead man's
//! switch in one. Holding a [`Sidecar`] keeps its container alive; dropping it ends the container.

use crate::engine::{Chunk, Engine, EngineError, Step, Streams};
use crate::log::LogFile;
use crate::stop::{Level, Stop};
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

/// How long a container may take until it says that it is ready.
pub const READY_WITHIN: Duration = Duration::from_secs(30);
/// Longer lines of a sidecar are cut here.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Lines of a failed sidecar that the error shows.
const LAST_LINES: usize = 8;
/// Lines that may wait for their reader; the log keeps all of them.
const LINES_WAITING_MAX: usize = 1024;

/// A running container of the bottle and the hold on it.
pub struct Sidecar {
    /// Its role.
    pub role: String,
    /// Its container.
    pub container: String,
    /// How long the engine took to start it, and how long it then took until it was ready.
    pub took: (Duration, Duration),
    input: Box<dyn AsyncWrite + Send + Unpin>,
    status: watch::Receiver<Status>,
    lines: Option<mpsc::Receiver<String>>,
}

/// Where a sidecar is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Started, and has not said that it is ready.
    Starting,
    /// Ready.
    Ready,
    /// Its output has ended: it is gone. The last lines that it said.
    Ended(Vec<String>),
}

/// Why a container could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum BringError {
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It could not be told what it must know.
    #[error("{role} cannot be told its configuration")]
    Feed {
        /// Its role.
        role: String,
        /// Why.
        source: std::io::Error,
    },
    /// It ended before it was ready.
    #[error("{role} ended before it was ready{}", said(.lines))]
    Ended {
        /// Its role.
        role: String,
        /// What it said last.
        lines: Vec<String>,
    },
    /// It did not become ready in time.
    #[error("{role} was not ready within {} s", READY_WITHIN.as_secs())]
    Late {
        /// Its role.
        role: String,
    },
    /// Somebody wants the end.
    #[error("stopped")]
    Stopped,
}

fn said(lines: &[String]) -> String {
    if lines.is_empty() { ", without a word".to_owned() } else { format!("; it said:\n  {}", lines.join("\n  ")) }
}

/// Attaches to a created container, starts it, sends it `feed`, and waits until it is ready. The order matters: attached
/// after the start, the first lines would be lost; fed before it, nobody would read.
pub async fn bring<E: Engine>(
    engine: &E,
    container: &str,
    role: &str,
    feed: &[u8],
    log: &Arc<LogFile>,
    stop: &Stop,
) -> Result<Sidecar, BringError> {
    let began = Instant::now();
    let Streams { input, output } = engine.attach(container).await?;
    engine.apply(&Step::Start { container: container.to_owned() }).await?;
    let started = began.elapsed();
    let (status, watched) = watch::channel(Status::Starting);
    let (lines, waiting) = mpsc::channel(LINES_WAITING_MAX);
    tokio::spawn(drain(role.to_owned(), output, Arc::clone(log), status, lines));
    let mut sidecar = Sidecar {
        role: role.to_owned(),
        container: container.to_owned(),
        took: (started, Duration::ZERO),
        input,
        status: watched,
        lines: Some(waiting),
    };
    sidecar.send(feed).await.map_err(|source| BringError::Feed { role: role.to_owned(), source })?;
    let mut watched = sidecar.status.clone();
    let ready = tokio::time::timeout(READY_WITHIN, watched.wait_for(|s| *s != Status::Starting));
    let status = tokio::select! {
        status = ready => match status {
            Ok(Ok(status)) => status.clone(),
            Ok(Err(_)) => Status::Ended(Vec::new()),
            Err(_) => return Err(BringError::Late { role: role.to_owned() }),
        },
        () = stop.reached(Level::Graceful) => return Err(BringError::Stopped),
    };
    match status {
        Status::Ended(lines) => Err(BringError::Ended { role: role.to_owned(), lines }),
        Status::Starting | Status::Ready => {
            sidecar.took.1 = began.elapsed().saturating_sub(started);
            Ok(sidecar)
        }
    }
}

impl Sidecar {
    /// Sends bytes to its standard input.
    pub async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.input.write_all(bytes).await?;
        self.input.flush().await
    }

    /// Where it is in its life, to watch.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// The lines it says from now on; they can be taken once. Lines are dropped while nobody reads them.
    pub fn take_lines(&mut self) -> Option<mpsc::Receiver<String>> {
        self.lines.take()
    }

    /// Ends it: closes its input and waits until it has gone.
    pub async fn end(mut self, within: Duration) -> bool {
        // A container that is gone already has no input to close.
        let _ = self.input.shutdown().await;
        let Self { input, mut status, .. } = self;
        drop(input);
        let ended = status.wait_for(|s| matches!(s, Status::Ended(_)));
        matches!(tokio::time::timeout(within, ended).await, Ok(Ok(_)))
    }
}

/// Reads a container's output to its end. It is always read, whoever listens: a full pipe would stop the sidecar.
async fn drain(
    role: String,
    mut output: futures_util::stream::BoxStream<'static, Result<Chunk, EngineError>>,
    log: Arc<LogFile>,
    status: watch::Sender<Status>,
    lines: mpsc::Sender<String>,
) {
    let mut last: Vec<String> = Vec::new();
    let mut out = Lines::default();
    let mut err = Lines::default();
    while let Some(Ok(chunk)) = output.next().await {
        let (found, stream) = match &chunk {
            Chunk::Out(bytes) => (out.push(bytes), "out"),
            Chunk::Err(bytes) => (err.push(bytes), "err"),
        };
        for line in found {
            log.line(&role, stream, &line);
            if stream == "out" && is_ready(&line) {
                status.send_if_modified(|s| {
                    let starting = *s == Status::Starting;
                    if starting {
                        *s = Status::Ready;
                    }
                    starting
                });
            }
            // A reader that is too slow, or none at all, loses lines here and never in the log.
            let _ = lines.try_send(line.clone());
            last.push(line);
            if last.len() > LAST_LINES {
                last.remove(0);
            }
        }
    }
    status.send_replace(Status::Ended(last));
}

/// Both kinds of sidecar say it in their own words: `bottle-init` in a line of its own, ours in JSON.
fn is_ready(line: &str) -> bool {
    if let Some(event) = bottle_images::init::Event::parse(line) {
        return event == bottle_images::init::Event::Ready;
    }
    matches!(serde_json::from_str(line), Ok(cred_proxy::config::Event::Ready))
        || (line.len() < 64 && line.replace(' ', "") == r#"{"event":"ready"}"#)
}

/// Cuts a stream into lines.
#[derive(Default)]
pub struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes bytes in and gives the lines that are complete now. A line that is too long is cut, its rest is the next.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' || self.rest.len() >= LINE_BYTES_MAX {
                let line = String::from_utf8_lossy(&self.rest);
                lines.push(line.trim_end_matches('\r').to_owned());
                self.rest.clear();
            }
            if *byte != b'\n' {
                self.rest.push(*byte);
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_wherever_the_chunks_are() {
        let mut lines = Lines::default();
        assert!(lines.push(b"ab").is_empty());
        assert_eq!(lines.push(b"c\r\nd\n\ne"), ["abc", "d", ""]);
        assert_eq!(lines.push(b"\n"), ["e"]);
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        assert_eq!(lines.push(&long).len(), 1, "a line without an end takes no more memory than its limit");
    }

    #[test]
    fn only_a_sidecars_own_words_make_it_ready() {
        for (line, ready) in [
            ("bottle-init: ready", true),
            (r#"{"event":"ready"}"#, true),
            (r#"{"event": "ready"}"#, true),
            (
                r#"{"event":"request","route":"bottle-init: ready","method":"GET","path":"/","status":200,"bytes":1,"ms":1,"credential":false}"#,
                false,
            ),
            (r#"{"event":"blocked","url":"{\"event\":\"ready\"}"}"#, false),
            ("ready", false),
        ] {
            assert_eq!(is_ready(line), ready, "{line}");
        }
    }
}
