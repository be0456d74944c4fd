//! One upstream's connections: opened when there is none to spare, kept for the next request, shared where the upstream
//! speaks HTTP/2.
//!
//! A request is sent twice only when it is sure that nobody has acted on the first.

use crate::address::{Authority, OriginName, Scheme};
use crate::gathered::Gathered;
use crate::limits::Limits;
use crate::shared::{Share, Shared};
use crate::tunnel;
use crate::upload::{Progress, Upload};
use crate::upstream::Failure;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;
use std::thread::ThreadId;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// HTTP/1.1 connections that one thread keeps for one origin.
const KEPT_MAX: usize = 128;

/// One upstream's address, how to get there, and the connections kept to it.
pub struct Origin {
    name: OriginName,
    proxy: Option<Authority>,
    tls: Option<Tls>,
    limits: Limits,
    /// By the thread that serves them, of which there are few: used from another one, each request would wake both.
    kept: Mutex<Vec<(ThreadId, Vec<Kept>)>>,
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

struct Kept {
    one: One,
    since: Instant,
}

/// An HTTP/1.1 connection.
struct One {
    sender: http1::SendRequest<Upload>,
    wire: Wire,
    /// The thread that serves it.
    home: ThreadId,
}

/// What reads and writes on an HTTP/1.1 connection, whenever it is polled. Whoever waits for a reply polls it, in his own
/// task: in a task of its own it and he would wake each other for every step of every request.
struct Wire(Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>);

/// A connection to send one request on.
enum Way {
    One(One),
    Two(Share),
}

/// What an upstream answered.
#[derive(Debug)]
pub struct Answer {
    /// Its reply.
    pub response: Response<Incoming>,
    /// The connection, where another request may follow on it.
    pub lease: Option<Lease>,
}

/// The request comes back where it has not left. Boxed, like an answer: both pass many hands.
type Unsent = Box<TrySendError<Request<Upload>>>;

/// The connection that a reply arrives on. Give it back when the reply has ended.
pub struct Lease {
    origin: Arc<Origin>,
    way: Way,
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Wire {
    /// Reads and writes what can be. Its error is also told to whoever waits for a reply.
    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.0
            && connection.as_mut().poll(cx).is_ready()
        {
            self.0 = None;
        }
    }

    /// From now on by itself. It ends with its connection, and that with the sender.
    fn run(&mut self) {
        if let Some(connection) = self.0.take() {
            tokio::spawn(async move { drop(connection.await) });
        }
    }
}

impl One {
    /// Can it take another request?
    async fn is_good(&mut self) -> bool {
        // It has waited for another request since its last reply ended. Should it have been closed meanwhile, it finds that
        // out before it sends anything, and gives the request back.
        if self.sender.is_ready() {
            return true;
        }
        let ready = poll_fn(|cx| {
            self.wire.poll(cx);
            self.sender.poll_ready(cx)
        });
        ready.await.is_ok()
    }

    async fn send(&mut self, request: Request<Upload>) -> Result<Response<Incoming>, Unsent> {
        let progress = request.body().progress();
        let Self { sender, wire, .. } = self;
        let mut reply = pin!(sender.try_send_request(request));
        let response = poll_fn(|cx| {
            wire.poll(cx);
            reply.as_mut().poll(cx)
        });
        let response = response.await.map_err(Box::new)?;
        if !progress.is_whole() {
            // The agent may read nothing before it has sent all, and then nobody would ask for the reply's body.
            wire.run();
        }
        Ok(response)
    }
}

impl Origin {
    /// Without a connection yet.
    pub fn new(name: OriginName, proxy: Option<Authority>, tls: Option<Tls>, limits: Limits) -> Self {
        let (kept, shared, opening, speaks_one) = Default::default();
        Self { name, proxy, tls, limits, kept, shared, opening, speaks_one }
    }

    /// Does a request have to name the whole URL (a plain-http upstream behind the proxy)?
    pub fn wants_absolute_form(&self) -> bool {
        self.proxy.is_some() && self.name.scheme == Scheme::Http
    }

    /// Sends a request (as HTTP/1.1 has it) and waits for the reply's head.
    pub async fn send(self: &Arc<Self>, mut request: Request<Upload>) -> Result<Box<Answer>, Failure> {
        let progress = request.body().progress();
        if let Some(way) = self.take_kept().await {
            let again = replayable(&request);
            match self.try_on(way, request).await {
                Ok(replied) => return Ok(replied),
                Err(mut error) => match (error.take_message(), again) {
                    // It never left: the upstream had closed a connection that nobody was using.
                    (Some(unsent), _) => request = unsent,
                    // It may have left, but it changes nothing: the close crossed it on the way.
                    (None, Some(copy)) => request = copy,
                    (None, _) => return Err(self.broke_off(error.into_error(), &progress)),
                },
            }
        }
        let way = self.within_connect(self.open()).await?;
        self.try_on(way, request).await.map_err(|error| self.broke_off(error.into_error(), &progress))
    }

    /// Sends a request that asks for an upgrade, on a connection of its own that nobody gets afterwards.
    pub async fn send_upgrade(self: &Arc<Self>, request: Request<Upload>) -> Result<Box<Answer>, Failure> {
        let progress = request.body().progress();
        let connector = self.tls.as_ref().map(|tls| &tls.http1);
        let way = self.within_connect(self.connect(connector)).await?;
        let Way::One(mut one) = way else { return Err(Failure::Protocol(self.name.authority.clone())) };
        one.wire.run();
        let sent = one.sender.send_request(request).await;
        let response = sent.map_err(|error| self.broke_off(error, &progress))?;
        Ok(Box::new(Answer { response, lease: None }))
    }

    async fn within_connect<T>(&self, connecting: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let time = |_| Failure::ConnectTime(self.name.authority.clone(), self.limits.connect);
        // Rare, and large beside everything else that a request needs: it must not be a part of each.
        tokio::time::timeout(self.limits.connect, Box::pin(connecting)).await.map_err(time)?
    }

    async fn try_on(self: &Arc<Self>, mut way: Way, mut request: Request<Upload>) -> Result<Box<Answer>, Unsent> {
        let response = match &mut way {
            Way::One(one) => {
                make_one(&mut request);
                one.send(request).await?
            }
            Way::Two(share) => {
                make_two(&mut request);
                share.send(request).await.map_err(Box::new)?
            }
        };
        Ok(Box::new(Answer { response, lease: Some(Lease { origin: self.clone(), way }) }))
    }

    fn broke_off(&self, error: hyper::Error, progress: &Progress) -> Failure {
        progress.failure().unwrap_or_else(|| Failure::Http(self.name.authority.clone(), error))
    }

    /// A connection with a place on it, if it is still good: a shared one, or else the one that was used last.
    async fn take_kept(&self) -> Option<Way> {
        if let Some(share) = self.share() {
            return Some(Way::Two(share));
        }
        loop {
            let Kept { mut one, since } = self.pop()?;
            if since.elapsed() < self.limits.kept && one.is_good().await {
                return Some(Way::One(one));
            }
        }
    }

    /// One of this thread's, or else anybody's: better than a handshake.
    fn pop(&self) -> Option<Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let here = std::thread::current().id();
        let own = kept.iter_mut().find(|(thread, _)| *thread == here).and_then(|(_, kept)| kept.pop());
        own.or_else(|| kept.iter_mut().find_map(|(_, kept)| kept.pop()))
    }

    /// Closes what has been kept for too long.
    pub fn sweep(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, kept) in kept.iter_mut() {
            kept.retain(|kept| kept.since.elapsed() < self.limits.kept);
        }
    }

    fn share(&self) -> Option<Share> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.is_empty() {
            return None;
        }
        shared.retain(|shared| shared.is_good(self.limits.kept));
        shared.iter().find(|shared| shared.has_place()).map(Shared::place)
    }

    /// A new connection, or a place on one that somebody else has opened meanwhile.
    async fn open(&self) -> Result<Way, Failure> {
        let Some(tls) = &self.tls else { return self.connect(None).await };
        if self.speaks_one.load(Ordering::Relaxed) {
            return self.connect(Some(&tls.any)).await;
        }
        let opening = self.opening.lock().await;
        if let Some(share) = self.share() {
            return Ok(Way::Two(share));
        }
        if self.speaks_one.load(Ordering::Relaxed) {
            drop(opening);
            return self.connect(Some(&tls.any)).await;
        }
        let way = self.connect(Some(&tls.any)).await?;
        match &way {
            Way::One(_) => self.speaks_one.store(true, Ordering::Relaxed),
            Way::Two(share) => self.shared.lock().unwrap_or_else(PoisonError::into_inner).push(share.of()),
        }
        Ok(way)
    }

    async fn connect(&self, connector: Option<&TlsConnector>) -> Result<Way, Failure> {
        let target = &self.name.authority;
        let stream = match (&self.proxy, self.name.scheme) {
            (None, _) => tunnel::straight(target).await?,
            (Some(proxy), Scheme::Http) => tunnel::straight(proxy).await?,
            (Some(proxy), Scheme::Https) => tunnel::through(proxy, target).await?,
        };
        let (Some(connector), Some(tls)) = (connector, &self.tls) else {
            return self.speak_one(Gathered(stream)).await;
        };
        Box::pin(self.shake(connector, tls, stream)).await
    }

    async fn shake(&self, connector: &TlsConnector, tls: &Tls, stream: TcpStream) -> Result<Way, Failure> {
        let shaken = connector.connect(tls.server.clone(), stream).await;
        let stream = shaken.map_err(|error| Failure::Tls(self.name.authority.clone(), error))?;
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => self.speak_two(stream).await,
            _ => self.speak_one(stream).await,
        }
    }

    async fn speak_one<S>(&self, stream: S) -> Result<Way, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let spoken = http1::Builder::new().max_buf_size(256 << 10).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = spoken.map_err(|error| Failure::Http(self.name.authority.clone(), error))?;
        let wire = Wire(Some(Box::pin(connection.with_upgrades())));
        Ok(Way::One(One { sender, wire, home: std::thread::current().id() }))
    }

    async fn speak_two<S>(&self, stream: S) -> Result<Way, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let spoken = Shared::begin(stream).await;
        spoken.map(|shared| Way::Two(shared.place())).map_err(|error| Failure::Http(self.name.authority.clone(), error))
    }
}

impl Lease {
    /// Reads and writes what can be, for a body that waits.
    pub fn poll_wire(&mut self, cx: &mut Context<'_>) {
        if let Way::One(one) = &mut self.way {
            one.wire.poll(cx);
        }
    }

    /// Keeps the connection for the next request.
    pub fn give_back(self) {
        let Way::One(one) = self.way else { return };
        let mut kept = self.origin.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if one.sender.is_closed() {
            return;
        }
        let (home, one) = (one.home, Kept { one, since: Instant::now() });
        match kept.iter_mut().find(|(thread, _)| *thread == home) {
            Some((_, kept)) if kept.len() < KEPT_MAX => kept.push(one),
            Some(_) => {}
            None => kept.push((home, vec![one])),
        }
    }
}

/// A copy, if the request may be sent twice: it changes nothing and has no body.
fn replayable(request: &Request<Upload>) -> Option<Request<Upload>> {
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !is_safe || !request.body().is_empty() {
        return None;
    }
    let mut copy = Request::new(Upload::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// As HTTP/2 has it (RFC 9113, 8.3.1): the URL whole, no Host, nothing about a connection.
fn make_two(request: &mut Request<Upload>) {
    if request.version() == Version::HTTP_2 {
        return;
    }
    if let Some(host) = request.headers_mut().remove(header::HOST) {
        let target = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme("https").authority(host.as_bytes()).path_and_query(target);
        // The parts were valid each for itself, and are so together.
        *request.uri_mut() = uri.build().unwrap_or_default();
    }
    request.headers_mut().remove(header::CONNECTION);
    *request.version_mut() = Version::HTTP_2;
}

/// Back again, for a request that has not left.
fn make_one(request: &mut Request<Upload>) {
    if request.version() != Version::HTTP_2 {
        return;
    }
    let host = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    host.and_then(|host| request.headers_mut().insert(header::HOST, host));
    *request.uri_mut() = request.uri().path_and_query().cloned().map_or_else(Uri::default, Uri::from);
    if request.headers().contains_key(header::TE) {
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    *request.version_mut() = Version::HTTP_11;
}
