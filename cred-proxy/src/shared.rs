//! An HTTP/2 connection to an upstream, shared by as many requests at a time as the upstream takes.

use crate::upload::Upload;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};

/// Requests at one time on one HTTP/2 connection, where the upstream would take more; then another one is opened.
const SHARED_BY_MAX: usize = 100;

/// How much of one reply an upstream may send before the agent has taken it, over HTTP/2.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;

/// The same for all replies on one connection.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// An HTTP/2 connection with requests on it is asked whether it lives when it was silent for so long.
const PING_AFTER: Duration = Duration::from_secs(30);

/// The connection.
#[derive(Clone)]
pub struct Shared {
    sender: http2::SendRequest<Upload>,
    /// Requests at one time that the upstream takes; it may say so, and something else, at any time.
    most: Arc<dyn Fn() -> usize + Send + Sync>,
    used: Arc<Mutex<Instant>>,
    requests: Arc<AtomicUsize>,
}

/// A place on a shared connection.
pub struct Share(Shared);

impl Shared {
    /// Begins to speak on a connection that has been made for it.
    pub async fn begin<S>(stream: S) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(256 << 10)
            .keep_alive_interval(PING_AFTER)
            .handshake(TokioIo::new(stream))
            .await?;
        // Asked whenever a place is looked for: its own task is not woken by what the upstream says.
        let connection = Arc::new(Mutex::new(Some(connection)));
        let asked = connection.clone();
        let most = move || {
            let connection = asked.lock().unwrap_or_else(PoisonError::into_inner);
            connection.as_ref().map_or(0, |connection| connection.current_max_send_streams())
        };
        tokio::spawn(poll_fn(move |cx| {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(running) = &mut *connection else { return Poll::Ready(()) };
            let ended = Pin::new(running).poll(cx).map(drop);
            if ended.is_ready() {
                // Only when it is gone do its senders know.
                *connection = None;
            }
            ended
        }));
        let (used, requests) = (Arc::new(Mutex::new(Instant::now())), Arc::default());
        Ok(Self { sender, most: Arc::new(most), used, requests })
    }

    /// Takes requests, and is in use or not unused for so long that the upstream may have forgotten it.
    pub fn is_good(&self, kept: Duration) -> bool {
        !self.sender.is_closed()
            && (self.requests.load(Ordering::Acquire) > 0
                || self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < kept)
    }

    /// Is there one for another request?
    pub fn has_place(&self) -> bool {
        let most = (self.most)().min(SHARED_BY_MAX);
        self.requests.load(Ordering::Acquire) < most
    }

    /// Takes one.
    pub fn place(&self) -> Share {
        self.requests.fetch_add(1, Ordering::AcqRel);
        Share(self.clone())
    }
}

impl Share {
    /// The connection that it is a place on.
    pub fn of(&self) -> Shared {
        self.0.clone()
    }

    /// Sends a request, and waits for the reply's head.
    pub async fn send(
        &mut self,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Upload>>> {
        self.0.sender.try_send_request(request).await
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}
