//! The way to the upstreams: one face for ssh and https. A [`Session`] is one login; it opens a [`Line`] for every
//! conversation, so that the advertisement and the forward of a push share one handshake.
//!
//! Nothing that the agent sent decides where a session leads or as whom.

pub mod https;
pub mod ssh;

use crate::config::Service;
use crate::request::Version;
use bottle_sidecar::Authority;
use bytes::{Buf as _, Bytes};
use futures_util::future::BoxFuture;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

pub use bottle_sidecar::tunnel::TunnelError;

/// Chunks that wait between a connection and whoever reads it.
const CHUNKS_WAITING: usize = 16;

/// How much of an upstream's own words is kept.
const WORDS_BYTES_MAX: usize = 400;

/// How to get to one remote.
pub trait Upstream: Send + Sync + std::fmt::Debug {
    /// Connects and logs in.
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, Failure>>;
}

/// One login at an upstream.
pub trait Session: Send {
    /// Begins a conversation; what the upstream says first can be read.
    fn open(&mut self, service: Service, version: Version) -> BoxFuture<'_, Result<Box<dyn Line>, Failure>>;
}

/// One conversation.
pub trait Line: Send {
    /// What the upstream says: first its advertisement, then the answer to the last [`Line::exchange`].
    fn inbound(&mut self) -> &mut Inbound;

    /// Sends a request, whose answer is then [`Line::inbound`].
    fn exchange(&mut self, upload: Upload) -> BoxFuture<'_, Result<(), Failure>>;

    /// Both directions at once, where the upstream keeps state between requests; `None` where every request stands alone.
    fn outbound(&mut self) -> Option<Outbound>;
}

/// What is sent: bytes in memory, then perhaps a stream of known length.
#[derive(Debug)]
pub struct Upload {
    /// What comes first.
    pub head: Bytes,
    /// The rest, and its length in bytes. A chunk that is an error ends the request unfinished.
    pub rest: Option<(u64, mpsc::Receiver<io::Result<Bytes>>)>,
}

impl From<Vec<u8>> for Upload {
    fn from(bytes: Vec<u8>) -> Self {
        Self { head: bytes.into(), rest: None }
    }
}

/// Why an upstream gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection; the name did not resolve, nobody listens, or the proxy said no.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// Not in time.
    #[error("no {what} from {upstream} within {} seconds", .within.as_secs())]
    Late {
        /// Who.
        upstream: Authority,
        /// What did not come.
        what: &'static str,
        /// How long was waited.
        within: Duration,
    },
    /// Not the host that the operator pinned.
    #[error("the host key of {0} is not the pinned one")]
    HostKey(Authority),
    /// The certificate is not trusted, or the other side does not speak TLS.
    #[error("the tls handshake with {0} failed")]
    Tls(Authority, #[source] io::Error),
    /// The credential does not open it.
    #[error("{0} does not accept the credential")]
    Login(Authority),
    /// The ssh connection broke.
    #[error("the ssh connection to {0} failed")]
    Ssh(Authority, #[source] russh::Error),
    /// The HTTP connection broke.
    #[error("the connection to {0} failed")]
    Http(Authority, #[source] hyper::Error),
    /// Another status than git's protocol has.
    #[error("{upstream} answered with status {status}{}", of_location(.location))]
    Status {
        /// Who.
        upstream: Authority,
        /// What it answered.
        status: u16,
        /// Where it wants to send the gate, which does not go.
        location: Option<String>,
    },
    /// It speaks something else.
    #[error("{0} does not speak git's protocol")]
    NotGit(Authority),
    /// It ended the conversation, with these words.
    #[error("the upstream ended the conversation: {0}")]
    Ended(String),
}

fn of_location(location: &Option<String>) -> String {
    location.as_ref().map(|to| format!(" to {to}: name the final address as the upstream")).unwrap_or_default()
}

impl Failure {
    /// What the agent is told.
    pub fn sentence(&self) -> String {
        match self {
            Self::Tunnel(_) | Self::Ssh(..) | Self::Http(..) => "upstream unreachable".into(),
            Self::Late { .. } => "upstream did not answer in time".into(),
            Self::HostKey(_) => "upstream refused: its host key is not the pinned one".into(),
            Self::Tls(..) => "upstream refused: its certificate is not trusted".into(),
            Self::Login(_) | Self::Status { status: 401 | 403, .. } => {
                "upstream refused: it does not accept the credential of this remote".into()
            }
            Self::Status { status: 404, .. } => "upstream refused: repository not found".into(),
            Self::Status { status, .. } => format!("upstream failed with status {status}"),
            Self::NotGit(_) => "upstream failed: it does not speak git's protocol".into(),
            Self::Ended(words) if words.is_empty() => "upstream ended the conversation".into(),
            Self::Ended(words) => format!("upstream refused: {words}"),
        }
    }
}

/// How a conversation ended, as far as the connection tells.
#[derive(Debug, Clone, Default)]
pub struct Ending(Arc<Mutex<(Vec<u8>, Option<String>)>>);

impl Ending {
    fn hear(&self, words: &[u8]) {
        let mut ending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = WORDS_BYTES_MAX.saturating_sub(ending.0.len());
        ending.0.extend_from_slice(&words[..words.len().min(room)]);
    }

    fn failed(&self, why: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(why);
    }

    /// What the upstream said on the side (standard error), or else why the connection broke; printable, one line.
    pub fn words(&self) -> String {
        let ending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said = printable_line(&String::from_utf8_lossy(&ending.0));
        if said.is_empty() { ending.1.clone().unwrap_or_default() } else { said }
    }
}

/// Foreign text as one line of printable characters.
pub fn printable_line(text: &str) -> String {
    let text: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    crate::report::printable(&text, 200)
}

/// What an upstream says, as it arrives.
#[derive(Debug)]
pub struct Inbound {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
    ending: Ending,
}

impl Inbound {
    /// What a connection hands its chunks to, and what reads them.
    fn pair() -> (mpsc::Sender<Bytes>, Self) {
        let (sender, chunks) = mpsc::channel(CHUNKS_WAITING);
        (sender, Self { chunks, current: Bytes::new(), ending: Ending::default() })
    }

    /// The next bytes, as many as there are; `None` at the end.
    pub async fn chunk(&mut self) -> Option<Bytes> {
        if !self.current.is_empty() {
            return Some(std::mem::take(&mut self.current));
        }
        loop {
            let chunk = self.chunks.recv().await?;
            if !chunk.is_empty() {
                return Some(chunk);
            }
        }
    }

    /// Puts bytes back: they are read next.
    pub fn unread(&mut self, bytes: Bytes) {
        // Only ever called with what was just taken out.
        debug_assert!(self.current.is_empty());
        self.current = bytes;
    }

    /// How it ended; of use only after the end.
    pub fn ending(&self) -> &Ending {
        &self.ending
    }
}

impl AsyncRead for Inbound {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.current.is_empty() {
            match ready!(this.chunks.poll_recv(cx)) {
                Some(chunk) => this.current = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let take = this.current.len().min(buffer.remaining());
        buffer.put_slice(&this.current[..take]);
        this.current.advance(take);
        Poll::Ready(Ok(()))
    }
}

/// The other direction of a conversation with an upstream that keeps state.
#[derive(Debug, Clone)]
pub struct Outbound(Arc<ssh::Writer>);

impl Outbound {
    /// Sends; waits while the upstream does not read.
    pub async fn send(&self, bytes: Bytes) -> Result<(), russh::Error> {
        self.0.data_bytes(bytes).await
    }

    /// Says that no more will come.
    pub async fn end(&self) {
        // An upstream that is gone has ended too.
        let _ = self.0.eof().await;
    }
}
