//! An upgraded connection: bytes both ways until both have ended, nothing came for too long, or the route is taken away.
//!
//! Where a credential went along with the handshake, what the upstream sends passes [`Frames`].

use crate::cut::Cut;
use crate::frames::{FrameError, Frames};
use crate::log::Entry;
use crate::mask::Forms;
use bottle_sidecar::chain;
use bytes::{Bytes, BytesMut};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// How much is read at one time.
const READ_BYTES: usize = 16 << 10;

/// The two ends, and what limits them.
pub struct Bridge {
    /// The agent's.
    pub agent: OnUpgrade,
    /// The upstream's.
    pub upstream: OnUpgrade,
    /// What is masked on the way to the agent.
    pub forms: Option<Arc<Forms>>,
    /// Ends it when nothing came either way for so long.
    pub idle: Duration,
    /// Ends it when the route is taken away.
    pub cut: Cut,
    /// The handshake's log entry; its line is written at the end.
    pub entry: Entry,
}

/// Why it ended before both sides had.
#[derive(Debug, thiserror::Error)]
enum BridgeError {
    #[error("the upgrade failed")]
    Upgrade(#[source] hyper::Error),
    #[error("the connection broke off")]
    Broken(#[from] io::Error),
    #[error("the upstream's frames cannot be read")]
    Frame(#[from] FrameError),
    #[error("nothing came for {0:?}")]
    Idle(Duration),
    #[error("the route was taken away")]
    Cut,
}

/// What both directions touch.
struct Traffic {
    last: Mutex<Instant>,
    to_agent: AtomicU64,
}

/// Carries bytes until the end.
pub async fn run(Bridge { agent, upstream, forms, idle, mut cut, mut entry }: Bridge) {
    let traffic = Traffic { last: Mutex::new(Instant::now()), to_agent: AtomicU64::new(0) };
    let carried = async {
        let (agent, upstream) = tokio::try_join!(agent, upstream).map_err(BridgeError::Upgrade)?;
        let (from_agent, to_agent) = tokio::io::split(TokioIo::new(agent));
        let (from_upstream, to_upstream) = tokio::io::split(TokioIo::new(upstream));
        let mut frames = forms.map(Frames::new);
        let outward = carry(from_agent, to_upstream, &traffic, Ok);
        let inward = carry(from_upstream, to_agent, &traffic, |bytes| {
            let bytes = match &mut frames {
                Some(frames) => frames.push(bytes)?,
                None => bytes,
            };
            traffic.to_agent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Ok(bytes)
        });
        tokio::try_join!(outward, inward).map(drop)
    };
    let ended = tokio::select! {
        biased;
        () = poll_fn(|cx| cut.poll_cut(cx)) => Err(BridgeError::Cut),
        () = traffic.silent_for(idle) => Err(BridgeError::Idle(idle)),
        carried = carried => carried,
    };
    entry.sent(usize::try_from(traffic.to_agent.load(Ordering::Relaxed)).unwrap_or(usize::MAX));
    if let Err(error) = ended {
        entry.failed(|| chain(&error));
    }
}

/// One direction, up to its end, which is passed on.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    traffic: &Traffic,
    mut through: impl FnMut(Bytes) -> Result<Bytes, BridgeError>,
) -> Result<(), BridgeError> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        if from.read_buf(&mut buffer).await? == 0 {
            to.shutdown().await?;
            return Ok(());
        }
        traffic.touch();
        let bytes = through(buffer.split().freeze())?;
        to.write_all(&bytes).await?;
        to.flush().await?;
        traffic.touch();
    }
}

impl Traffic {
    fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    async fn silent_for(&self, limit: Duration) {
        loop {
            let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() >= limit {
                return;
            }
            tokio::time::sleep_until((last + limit).into()).await;
        }
    }
}
