//! One upstream's connections: opened when there is none to spare, kept for the next request, shared where the upstream
//! speaks HTTP/2.
//!
//! A request is sent twice only when it is sure that nobody has acted on the first.

use crate::address::{OriginName, Scheme};
use crate::gathered::Gathered;
use crate::leg::{Leg, LegError, Wire};
use crate::limits::Limits;
use crate::outgoing::Outgoing;
use crate::reading::{Rest, Start};
use crate::shared::{Share, Shared};
use crate::upload::{Progress, Upload};
use crate::upstream::Failure;
use crate::workers::{THREADS_MAX, here};
use bottle_sidecar::{Authority, tunnel};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio_rustls::TlsConnector;

/// HTTP/1.1 connections that one thread keeps for one origin.
const KEPT_MAX: usize = 128;

/// One upstream's address, how to get there, and the connections kept to it.
pub struct Origin {
    name: OriginName,
    proxy: Option<Authority>,
    tls: Option<Tls>,
    limits: Limits,
    /// By the number of the thread that serves them: used from another one, each request would wake both.
    kept: [Shelf; THREADS_MAX],
    shared: Mutex<Vec<Shared>>,
    /// Held while a connection is opened to an upstream that may speak HTTP/2: whoever waits shares it.
    opening: tokio::sync::Mutex<()>,
    /// It has chosen HTTP/1.1.
    speaks_one: AtomicBool,
}

/// How TLS is begun.
pub struct Tls {
    /// Offers every protocol that may be spoken.
    pub any: TlsConnector,
    /// Offers HTTP/1.1 alone.
    pub http1: TlsConnector,
    /// The name in the upstream's certificate.
    pub server: ServerName<'static>,
}

/// What one thread keeps; as far from that of the next one as their caches need it.
#[derive(Default)]
#[repr(align(128))]
struct Shelf(Mutex<Vec<Kept>>);

struct Kept {
    one: One,
    since: Instant,
}

/// An HTTP/1.1 connection.
struct One {
    leg: Leg,
    /// The number of the thread that serves it.
    home: usize,
}

/// A connection to send one request on.
enum Way {
    One(One),
    Two(Share),
}

/// A connection that nobody has spoken on.
struct Line {
    wire: Box<dyn Wire>,
    /// HTTP/2 is to be spoken.
    is_two: bool,
}

/// What an upstream answered.
#[derive(Debug)]
pub struct Answer {
    /// Its reply; without a body, this comes on the lease.
    pub response: Response<Option<Incoming>>,
    /// The connection, where another request may follow on it.
    pub lease: Option<Lease>,
}

/// Why a request was not answered. Boxed, like an answer: both pass many hands.
struct Unanswered {
    error: UnansweredError,
    /// The request's body, where the request has not left.
    unsent: Option<Upload>,
}

enum UnansweredError {
    One(LegError),
    Two(hyper::Error),
    Target(http::Error),
}

/// The connection that a reply arrives on. When the reply has ended, its origin takes it back.
pub struct Lease(Way);

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lease")
    }
}

impl From<TrySendError<Request<Upload>>> for Box<Unanswered> {
    fn from(mut error: TrySendError<Request<Upload>>) -> Self {
        let unsent = error.take_message().map(Request::into_body);
        Box::new(Unanswered { error: UnansweredError::Two(error.into_error()), unsent })
    }
}

impl From<LegError> for Box<Unanswered> {
    fn from(error: LegError) -> Self {
        Box::new(Unanswered { error: UnansweredError::One(error), unsent: None })
    }
}

impl From<http::Error> for Box<Unanswered> {
    fn from(error: http::Error) -> Self {
        Box::new(Unanswered { error: UnansweredError::Target(error), unsent: None })
    }
}

impl Origin {
    /// Without a connection yet.
    pub fn new(name: OriginName, proxy: Option<Authority>, tls: Option<Tls>, limits: Limits) -> Self {
        let (kept, shared, opening, speaks_one) = Default::default();
        Self { name, proxy, tls, limits, kept, shared, opening, speaks_one }
    }

    /// Sends a request and waits for the reply's head.
    pub async fn send(&self, head: Outgoing<'_>, mut upload: Upload) -> Result<Box<Answer>, Failure> {
        let progress = upload.progress();
        // It was just now that the request's head came.
        let mut kept = self.take_kept(progress.last()).await;
        // One call for both ways: each has its place in what a request needs.
        loop {
            let is_kept = kept.is_some();
            let way = match kept.take() {
                Some(way) => way,
                None => self.within_connect(self.open()).await?,
            };
            let may_be_sent_twice = head.is_safe() && upload.is_empty();
            match self.try_on(way, head, upload).await {
                Ok(replied) => return Ok(replied),
                Err(mut unanswered) => match unanswered.unsent.take().filter(|_| is_kept) {
                    // It never left: the upstream had closed a connection that nobody was using.
                    Some(unsent) => upload = unsent,
                    // It may have left, but it changes nothing: the close crossed it on the way.
                    None if is_kept && may_be_sent_twice => upload = Upload::empty(),
                    None => return Err(self.broke_off(unanswered.error, &progress)),
                },
            }
        }
    }

    /// Sends a request that asks for an upgrade, on a connection of its own that nobody gets afterwards.
    pub async fn send_upgrade(&self, head: Outgoing<'_>, upload: Upload) -> Result<Box<Answer>, Failure> {
        let progress = upload.progress();
        let request = head.one(self.wants_whole_url(), upload).map_err(Failure::Target)?;
        let connector = self.tls.as_ref().map(|tls| &tls.http1);
        let Line { wire, is_two } = self.within_connect(self.connect(connector)).await?;
        if is_two {
            return Err(Failure::Protocol(self.name.authority.clone()));
        }
        let broke_off = |error| self.broke_off(UnansweredError::Two(error), &progress);
        let spoken = http1::Builder::new().max_buf_size(256 << 10).handshake(TokioIo::new(wire)).await;
        let (mut sender, connection) = spoken.map_err(broke_off)?;
        // It ends with its connection, and that with the sender or with the other protocol.
        tokio::spawn(async move { drop(connection.with_upgrades().await) });
        let response = sender.send_request(request).await.map_err(broke_off)?;
        Ok(Box::new(Answer { response: response.map(Some), lease: None }))
    }

    async fn within_connect<T>(&self, connecting: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let time = |_| Failure::ConnectTime(self.name.authority.clone(), self.limits.connect);
        // Rare, and large beside everything else that a request needs: it must not be a part of each.
        tokio::time::timeout(self.limits.connect, Box::pin(connecting)).await.map_err(time)?
    }

    async fn try_on(&self, mut way: Way, head: Outgoing<'_>, upload: Upload) -> Result<Box<Answer>, Box<Unanswered>> {
        let response = match &mut way {
            Way::One(one) => {
                let write = |out: &mut Vec<u8>| head.write(self.wants_whole_url(), out);
                let Start { status, headers, .. } = one.leg.send(head.method, write, upload).await?;
                let mut response = Response::new(None);
                (*response.status_mut(), *response.headers_mut()) = (status, headers);
                response
            }
            // In a box: large beside what HTTP/1.1 needs.
            Way::Two(share) => Box::pin(share.send(head.two(upload)?)).await?.map(Some),
        };
        Ok(Box::new(Answer { response, lease: Some(Lease(way)) }))
    }

    fn broke_off(&self, error: UnansweredError, progress: &Progress) -> Failure {
        let authority = || self.name.authority.clone();
        progress.failure().unwrap_or_else(|| match error {
            UnansweredError::One(error) => Failure::Reply(authority(), error),
            UnansweredError::Two(error) => Failure::Http(authority(), error),
            UnansweredError::Target(error) => Failure::Target(error),
        })
    }

    /// Does a request over HTTP/1.1 have to name the whole URL (a plain-http upstream behind the proxy)?
    fn wants_whole_url(&self) -> bool {
        self.proxy.is_some() && self.name.scheme == Scheme::Http
    }

    /// A connection with a place on it, if it is still good: a shared one, or else the one that was used last.
    async fn take_kept(&self, now: Instant) -> Option<Way> {
        if let Some(share) = self.share() {
            return Some(Way::Two(share));
        }
        loop {
            let Kept { mut one, since } = self.pop()?;
            if now.saturating_duration_since(since) < self.limits.kept && one.leg.is_good().await {
                return Some(Way::One(one));
            }
        }
    }

    /// One of this thread's, or else anybody's: better than a handshake.
    fn pop(&self) -> Option<Kept> {
        let own = self.kept.get(here()).and_then(|shelf| shelf.kept().pop());
        own.or_else(|| self.kept.iter().find_map(|shelf| shelf.kept().pop()))
    }

    /// Closes what has been kept for too long.
    pub fn sweep(&self) {
        for shelf in &self.kept {
            shelf.kept().retain(|kept| kept.since.elapsed() < self.limits.kept);
        }
    }

    /// Keeps a connection for the next request, if it can take one.
    pub fn take_back(&self, Lease(way): Lease) {
        let Way::One(mut one) = way else { return };
        if !one.leg.is_free() {
            return;
        }
        one.leg.shrink();
        let Some(shelf) = self.kept.get(one.home) else { return };
        let mut kept = shelf.kept();
        if kept.len() < KEPT_MAX {
            kept.push(Kept { one, since: Instant::now() });
        }
    }

    fn share(&self) -> Option<Share> {
        // HTTP/2 is chosen in a TLS handshake alone.
        self.tls.as_ref()?;
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.is_empty() {
            return None;
        }
        shared.retain(|shared| shared.is_good(self.limits.kept));
        shared.iter().find(|shared| shared.has_place()).map(Shared::place)
    }

    /// A new connection, or a place on one that somebody else has opened meanwhile.
    async fn open(&self) -> Result<Way, Failure> {
        let Some(tls) = &self.tls else { return self.speak(self.connect(None).await?).await };
        if self.speaks_one.load(Ordering::Relaxed) {
            return self.speak(self.connect(Some(&tls.any)).await?).await;
        }
        let opening = self.opening.lock().await;
        if let Some(share) = self.share() {
            return Ok(Way::Two(share));
        }
        if self.speaks_one.load(Ordering::Relaxed) {
            drop(opening);
            return self.speak(self.connect(Some(&tls.any)).await?).await;
        }
        let way = self.speak(self.connect(Some(&tls.any)).await?).await?;
        match &way {
            Way::One(_) => self.speaks_one.store(true, Ordering::Relaxed),
            Way::Two(share) => self.shared.lock().unwrap_or_else(PoisonError::into_inner).push(share.of()),
        }
        Ok(way)
    }

    async fn connect(&self, connector: Option<&TlsConnector>) -> Result<Line, Failure> {
        let target = &self.name.authority;
        let stream = match (&self.proxy, self.name.scheme) {
            (None, _) => tunnel::straight(target).await?,
            (Some(proxy), Scheme::Http) => tunnel::straight(proxy).await?,
            (Some(proxy), Scheme::Https) => tunnel::through(proxy, target).await?,
        };
        let (Some(connector), Some(tls)) = (connector, &self.tls) else {
            return Ok(Line { wire: Box::new(Gathered(stream)), is_two: false });
        };
        let shaken = Box::pin(connector.connect(tls.server.clone(), stream)).await;
        let stream = shaken.map_err(|error| Failure::Tls(target.clone(), error))?;
        let is_two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Line { wire: Box::new(stream), is_two })
    }

    async fn speak(&self, Line { wire, is_two }: Line) -> Result<Way, Failure> {
        if !is_two {
            let leg = Leg::new(wire, self.limits.idle);
            return Ok(Way::One(One { leg, home: here() }));
        }
        let spoken = Shared::begin(wire).await;
        spoken.map(|shared| Way::Two(shared.place())).map_err(|error| Failure::Http(self.name.authority.clone(), error))
    }
}

impl Lease {
    /// The next piece of a reply's body that comes on it.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LegError>>> {
        match &mut self.0 {
            Way::One(one) => one.leg.poll_frame(cx),
            Way::Two(_) => Poll::Ready(None),
        }
    }

    /// What is to come of such a body.
    pub fn rest(&self) -> Rest {
        match &self.0 {
            Way::One(one) => one.leg.rest(),
            Way::Two(_) => Rest::Length(0),
        }
    }
}

impl Shelf {
    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
