//! The keeper's end of a container's standard input and output: the control channel, the log, and the dead man's
//! switch in one. Holding a [`Sidecar`] keeps its container alive; dropping it ends the container.

use crate::engine::{Chunk, Engine, EngineError, Step, Streams};
use crate::log::LogFile;
use crate::plan::{seat::Seat, sidecar};
use crate::stop::{Level, Stop};
use futures_util::StreamExt;
use pipelock_config::log::LogEvent;
pub use said::{Probed, Said};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

pub mod said;

/// How long a container may take until it says that it is ready.
pub const READY_WITHIN: Duration = Duration::from_secs(30);
/// Longer lines of a sidecar are cut here. The reader of pipelock's knows a cut line by its length.
const LINE_BYTES_MAX: usize = pipelock_config::log::LINE_BYTES_MAX;
/// The same for supervise: a Dockerfile of 64 KiB, of which JSON may make six times as much, and the words with it.
const ASK_BYTES_MAX: usize = 512 << 10;
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
    startup: watch::Receiver<Option<Startup>>,
    said: watch::Receiver<Said>,
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
    /// It runs, and not with what it was sent: a pipelock that reads no policy lets everything through.
    #[error("{role} does not run with the policy that it was sent: {why}")]
    Policy {
        /// Its role.
        role: String,
        /// What it said instead.
        why: String,
    },
    /// Somebody wants the end.
    #[error("stopped")]
    Stopped,
}

/// What a pipelock says of itself when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// `strict`, if it is ours.
    pub mode: String,
    /// SHA-256 of the file it read, in hexadecimal.
    pub hash: String,
}

impl Startup {
    /// What is wrong with a pipelock that was sent this file and said this. `None`: nothing.
    pub fn fault(said: Option<&Self>, yaml: &str) -> Option<String> {
        let Some(Self { mode, hash }) = said else {
            return Some("it has not said which one it read".to_owned());
        };
        if mode != "strict" {
            return Some(format!("its mode is {mode:?} and not \"strict\""));
        }
        let sent = sha256_hex(yaml.as_bytes());
        (*hash != sent).then(|| format!("it read {hash}, and {sent} was sent (SHA-256)"))
    }
}

/// The SHA-256 of bytes in lower-case hexadecimal, as pipelock says it of its file.
pub fn sha256_hex(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(bytes) {
        let _ = write!(hex, "{byte:02x}"); // writing to a String cannot fail
    }
    hex
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
    let (startup, heard) = watch::channel(None);
    let (answers, said) = watch::channel(Said::default());
    let (lines, waiting) = mpsc::channel(LINES_WAITING_MAX);
    let told = Told { status, startup, answers, lines };
    tokio::spawn(drain(role.to_owned(), output, Arc::clone(log), told));
    let mut sidecar = Sidecar {
        role: role.to_owned(),
        container: container.to_owned(),
        took: (started, Duration::ZERO),
        input,
        status: watched,
        startup: heard,
        said,
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

/// The same for a pipelock, which is ready only when it runs with `yaml`, the policy in its feed. Its own health says
/// nothing of that: with an empty file it is as healthy, and open.
pub async fn bring_pipelock<E: Engine>(
    engine: &E,
    container: &str,
    role: &str,
    (feed, yaml): (&[u8], &str),
    log: &Arc<LogFile>,
    stop: &Stop,
) -> Result<Sidecar, BringError> {
    let sidecar = bring(engine, container, role, feed, log, stop).await?;
    // It says so on the same stream as `bottle-init`, and before it listens: so it has been read by now.
    let fault = Startup::fault(sidecar.startup.borrow().as_ref(), yaml);
    match fault {
        None => Ok(sidecar),
        Some(why) => Err(BringError::Policy { role: role.to_owned(), why }),
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

    /// What a pipelock said when it started last, to watch.
    pub fn startup(&self) -> watch::Receiver<Option<Startup>> {
        self.startup.clone()
    }

    /// What it has answered its keeper, to watch.
    pub fn said(&self) -> watch::Receiver<Said> {
        self.said.clone()
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

/// Where what a container says goes.
struct Told {
    status: watch::Sender<Status>,
    startup: watch::Sender<Option<Startup>>,
    answers: watch::Sender<Said>,
    lines: mpsc::Sender<String>,
}

/// Reads a container's output to its end. It is always read, whoever listens: a full pipe would stop the sidecar.
async fn drain(
    role: String,
    mut output: futures_util::stream::BoxStream<'static, Result<Chunk, EngineError>>,
    log: Arc<LogFile>,
    Told { status, startup, answers, lines }: Told,
) {
    let mut last: Vec<String> = Vec::new();
    let mut out = Lines::of(&role);
    let mut err = Lines::of(&role);
    while let Some(Ok(chunk)) = output.next().await {
        let (found, stream) = match &chunk {
            Chunk::Out(bytes) => (out.push(bytes), "out"),
            Chunk::Err(bytes) => (err.push(bytes), "err"),
        };
        for line in found {
            log.line(&role, stream, &line);
            if stream == "out"
                && is_pipelock(&role)
                && let Some(LogEvent::Startup { mode, hash, .. }) = startup_line(&line)
            {
                startup.send_replace(Some(Startup { mode, hash }));
            }
            if stream == "out" && is_refused(&line) && *status.borrow() == Status::Starting {
                // It stays closed for good: whoever waits need not wait for longer.
                last.push(line);
                status.send_replace(Status::Ended(last));
                return;
            }
            if stream == "out" && is_ready(&line) {
                status.send_if_modified(|s| {
                    let starting = *s == Status::Starting;
                    if starting {
                        *s = Status::Ready;
                    }
                    starting
                });
            }
            answers.send_if_modified(|said| said.hear(&role, stream, &line));
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

/// Is this the role of a pipelock?
pub fn is_pipelock(role: &str) -> bool {
    role == sidecar::PIPELOCK || Seat::is_role(role)
}

/// Most lines are about requests and need not be read twice.
fn startup_line(line: &str) -> Option<LogEvent> {
    if line.contains(r#""startup""#) { LogEvent::parse(line) } else { None }
}

/// Both kinds of sidecar say it in their own words: `bottle-init` in a line of its own, ours in JSON.
fn is_ready(line: &str) -> bool {
    if let Some(event) = bottle_images::init::Event::parse(line) {
        return event == bottle_images::init::Event::Ready;
    }
    matches!(serde_json::from_str(line), Ok(cred_proxy::config::Event::Ready))
        || (line.len() < 64 && line.replace(' ', "") == r#"{"event":"ready"}"#)
}

/// Both sidecars of ours say in the same words that they do not take what they were told.
fn is_refused(line: &str) -> bool {
    line.starts_with(r#"{"event":"refused""#)
}

/// Cuts a stream into lines.
pub struct Lines {
    rest: Vec<u8>,
    skipping: bool,
    bytes_max: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self { rest: Vec::new(), skipping: false, bytes_max: LINE_BYTES_MAX }
    }
}

impl Lines {
    /// For what a container of this role says: an ask of supervise may bring a whole Dockerfile along.
    fn of(role: &str) -> Self {
        let bytes_max = if role == supervise::NAME { ASK_BYTES_MAX } else { LINE_BYTES_MAX };
        Self { bytes_max, ..Self::default() }
    }
}

impl Lines {
    /// Takes bytes in and gives the lines that are complete now. A line that is too long is cut, and its rest dropped: as
    /// a line of its own it would be one that the agent wrote.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            let ends = *byte == b'\n';
            if !self.skipping && (ends || self.rest.len() >= self.bytes_max) {
                let line = String::from_utf8_lossy(&self.rest);
                lines.push(line.trim_end_matches('\r').to_owned());
                self.rest.clear();
                self.skipping = !ends;
            } else if ends {
                self.skipping = false;
            } else if !self.skipping {
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
        assert!(lines.push(&long).is_empty() && lines.push(b"bottle-init: ready\n").is_empty(), "its rest is no line");
        assert_eq!(lines.push(b"next\n"), ["next"]);
        assert!(lines.push(&long[1..]).is_empty());
        assert_eq!(lines.push(b"\nnext\n"), [String::from_utf8(long[1..].to_vec()).unwrap(), "next".to_owned()]);
    }

    #[test]
    fn a_line_that_was_cut_is_still_a_refusal() {
        let mut lines = Lines::default();
        let url = "x".repeat(200 << 10);
        let line = format!(r#"{{"event":"blocked","method":"GET","url":"http://h.example/{url}","reason":"r"}}"#);
        let cut = lines.push(format!("{line}\n").as_bytes());
        assert_eq!(cut.len(), 1);
        assert!(matches!(LogEvent::parse(&cut[0]), Some(LogEvent::Blocked { host: Some(h), .. }) if h == "h.example"));
    }

    #[test]
    fn a_pipelock_must_be_strict_and_have_read_what_it_was_sent() {
        // SHA-256 of "abc".
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let said = |mode: &str, hash: &str| Startup { mode: mode.to_owned(), hash: hash.to_owned() };
        assert_eq!(Startup::fault(Some(&said("strict", hash)), "abc"), None);
        for (said, part) in [
            (None, "has not said"),
            (Some(said("balanced", hash)), "balanced"),
            (Some(said("strict", "00")), hash),
            (Some(said("strict", "")), hash),
        ] {
            let fault = Startup::fault(said.as_ref(), "abc");
            assert!(fault.as_ref().is_some_and(|f| f.contains(part)), "{fault:?}");
        }
    }

    #[tokio::test]
    async fn a_pipelock_that_runs_with_another_policy_is_not_brought_up() {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(LogFile::open(&folder.path().join("log")).unwrap());
        let feed = |yaml: &str| format!("file 600 {} /etc/pipelock/pipelock.yaml\n{yaml}run\n", yaml.len());
        let (_stopper, stop) = crate::stop::channel();
        let (strict, open) = ("mode: 'strict'\n", "version: 1\n");
        for (sent, expected, part) in [
            (feed(strict), strict, None),
            (feed(open), open, Some("balanced")),
            (feed("mode: 'strict'\n#\n"), strict, Some("was sent")),
            ("run\n".to_owned(), strict, Some("has not said")),
        ] {
            let fake = crate::engine::fake::tests::with("pipelock").await;
            let bytes = (sent.as_bytes(), expected);
            match (bring_pipelock(&fake, "x", "pipelock", bytes, &log, &stop).await, part) {
                (Ok(sidecar), None) => assert_eq!(sidecar.startup().borrow().as_ref().unwrap().mode, "strict"),
                (Err(error @ BringError::Policy { .. }), Some(part)) => {
                    assert!(error.to_string().contains(part), "{error}");
                }
                (result, _) => panic!("{sent:?}: {:?}", result.err()),
            }
        }
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
