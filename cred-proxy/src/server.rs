//! The agent's side: takes connections, reads heads, and does what was decided.
//!
//! It decides nothing itself. Every request is answered, with a reply that has passed [`crate::reply`] and
//! [`crate::mask`] or with a fixed sentence.

use crate::Secret;
use crate::body::{Cut, Reply, Stream, Upload};
use crate::config::Config;
use crate::decide::{Decision, Head, decide};
use crate::framing::{Doubt, Framing, HEAD_BYTES_MAX};
use crate::inject::request_headers;
use crate::log::{Entry, Log, chain};
use crate::refuse::Refusal;
use crate::reply::reply_headers;
use crate::table::{Route, Table, TableError};
use crate::upstream::{Failure, Limits, Origin, Origins, RootsError};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header, request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Connections of the agent at one time; the next one waits.
const CONNECTIONS_MAX: usize = 1024;

/// A table in force, with what is open to its upstreams.
#[derive(Debug)]
pub struct Live {
    table: Table,
    origins: Origins,
    /// By the route's path: what tells its streams to end.
    cuts: BTreeMap<String, Arc<watch::Sender<bool>>>,
}

/// Why a configuration is not put in force.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// It is no table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Its certificates do not do.
    #[error(transparent)]
    Roots(#[from] RootsError),
}

impl Live {
    /// Makes ready what `config` asks for; nothing is in force yet.
    pub fn new(config: &Config, secrets: &BTreeMap<String, Secret>, limits: Limits) -> Result<Self, LiveError> {
        let table = Table::parse(config, secrets)?;
        let origins = Origins::new(&table, config, limits)?;
        let cuts = table.routes.iter().map(|route| (route.path.clone(), Arc::new(watch::Sender::new(false)))).collect();
        Ok(Self { table, origins, cuts })
    }

    fn cut_of(&self, route: &Route) -> Cut {
        self.cuts.get(&route.path).map_or_else(Cut::never, |cut| Cut::when(cut.subscribe()))
    }
}

/// What all connections share.
#[derive(Debug)]
pub struct Server {
    live: RwLock<Arc<Live>>,
    limits: Limits,
    log: Log,
}

impl Server {
    /// With its first table.
    pub fn new(live: Live, limits: Limits, log: Log) -> Self {
        Self { live: RwLock::new(Arc::new(live)), limits, log }
    }

    /// Puts another table in force. What is open goes on by the old one, unless its route is gone or leads elsewhere.
    pub fn swap(&self, mut next: Live) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        for route in &next.table.routes {
            let same = live.table.routes.iter().any(|old| old.leads_where(route));
            if let (true, Some(cut)) = (same, live.cuts.get(&route.path)) {
                next.cuts.insert(route.path.clone(), cut.clone());
            }
        }
        let old = std::mem::replace(&mut *live, Arc::new(next));
        for (path, cut) in &old.cuts {
            if !live.cuts.get(path).is_some_and(|kept| Arc::ptr_eq(kept, cut)) {
                cut.send_replace(true);
            }
        }
    }

    /// Serves until it is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        // The semaphore is never closed, so there is always a place to wait for.
        while let Ok(place) = places.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = self.clone();
                    tokio::spawn(async move {
                        server.connection(stream).await;
                        drop(place);
                    });
                }
                // Out of descriptors, or the connection was gone already: the next may do better, but not at once.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        // Without it small events wait for the agent's acknowledgement; where it cannot be set they are only slower.
        let _ = stream.set_nodelay(true);
        let doubt = Arc::new(Mutex::new(None));
        let io = TokioIo::new(Checked { stream, framing: Framing::default(), doubt: doubt.clone() });
        let service = service_fn(|request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.agent_head)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(io, service)
            .await;
        let doubt = *doubt.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = match (doubt, served) {
            (Some(doubt), _) if !doubt.is_in_body() => doubt.to_string(),
            (_, Err(error)) if error.is_parse() => chain(&error),
            (_, Ok(()) | Err(_)) => return,
        };
        // Such a request never became one; the log has it all the same.
        let mut entry = Entry::new(self.log.clone(), "", "");
        entry.answered(StatusCode::BAD_REQUEST);
        entry.failed(|| reason);
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Reply> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (head, body) = request.into_parts();
        let mut entry = Entry::new(self.log.clone(), head.method.as_str(), head.uri.path());
        let decision = decide(&live.table, Head { method: &head.method, uri: &head.uri, headers: &head.headers });
        let (route, target) = match decision {
            Decision::Forward { route, target } => (route, target),
            Decision::Refuse { refusal, route } => {
                entry.took_route(&route);
                return refuse(refusal, || refusal.to_string(), entry);
            }
        };
        entry.took_route(&route.path);
        let Some(origin) = live.origins.get(&route.upstream.origin) else {
            return refuse(Refusal::Upstream, || "the route has no origin".into(), entry);
        };
        let Ok(uri) = uri_for(&route, origin, &target) else {
            return refuse(Refusal::Upstream, || "the target cannot be written as a url".into(), entry);
        };
        let upload = Upload::new(body, self.limits.idle);
        let sent = upload.progress();
        let request = outgoing(&live.table, &route, &head, uri, upload);
        if route.credential.is_some() {
            entry.used_credential();
        }
        let mut cut = live.cut_of(&route);
        let exchange = async {
            tokio::select! {
                biased;
                () = poll_fn(|cx| cut.poll_cut(cx)) => Err(Failure::Cut),
                reply = within_head_limit(self.limits.head, &sent, origin.send(request)) => reply,
            }
        };
        let (response, lease) = match exchange.await {
            Ok(exchanged) => exchanged,
            Err(failure) => return refuse(failure.refusal(), || chain(&failure), entry),
        };
        let (head, body) = response.into_parts();
        let headers = match reply_headers(&route, head.status, &head.headers) {
            Ok(headers) => headers,
            Err(refusal) => return refuse(refusal, || refusal.to_string(), entry),
        };
        entry.answered(head.status);
        let stream = Stream::new(body, route, lease, sent, entry).idle(self.limits.idle).cut_by(cut);
        let mut reply = Response::new(Reply::Stream(Box::new(stream)));
        *reply.status_mut() = head.status;
        *reply.headers_mut() = headers;
        reply
    }
}

fn uri_for(route: &Route, origin: &Origin, target: &str) -> Result<Uri, http::Error> {
    let uri = Uri::builder().path_and_query(target);
    if !origin.wants_absolute_form() {
        return uri.build();
    }
    let upstream = &route.upstream;
    uri.scheme(upstream.origin.scheme.as_str()).authority(upstream.host_header.as_bytes()).build()
}

fn outgoing(table: &Table, route: &Route, head: &request::Parts, uri: Uri, body: Upload) -> Request<Upload> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = request_headers(table, route, &head.headers);
    request
}

/// The limit begins anew with every chunk that the agent sends.
async fn within_head_limit<T>(
    limit: Duration,
    sent: &crate::body::Progress,
    reply: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut reply = std::pin::pin!(reply);
    loop {
        let last = sent.last();
        match tokio::time::timeout_at((last + limit).into(), &mut reply).await {
            Ok(reply) => return reply,
            Err(_) if sent.last() > last => {}
            Err(_) => return Err(Failure::HeadTime(limit)),
        }
    }
}

fn refuse(refusal: Refusal, reason: impl FnOnce() -> String, mut entry: Entry) -> Response<Reply> {
    entry.answered(refusal.status());
    entry.failed(reason);
    let text = Bytes::from_static(refusal.sentence().as_bytes());
    let mut response = Response::new(Reply::Fixed { text: Some(text), entry });
    *response.status_mut() = refusal.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A connection whose bytes are read by [`Framing`] before anything else reads them.
struct Checked {
    stream: TcpStream,
    framing: Framing,
    doubt: Arc<Mutex<Option<Doubt>>>,
}

impl AsyncRead for Checked {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.doubt.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let Err((at, doubt)) = this.framing.read(&buf.filled()[before..]) else { return Poll::Ready(Ok(())) };
        *this.doubt.lock().unwrap_or_else(PoisonError::into_inner) = Some(doubt);
        if doubt.is_in_body() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, doubt)));
        }
        // What was beyond doubt is handed over, then a NUL, which is wrong anywhere in a head: the library answers 400 and
        // closes, and never sees the rest.
        buf.filled_mut()[before + at] = 0;
        buf.set_filled(before + at + 1);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Checked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Auth, Event};
    use std::io::{Read as _, Write as _};

    /// A limit short enough to wait for; whatever it limits here never happens at all, so no clock decides a test.
    const SHORT: Duration = Duration::from_millis(30);

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What the agent gets for `request` and the reason in the log, with an upstream that says `says` and then nothing.
    fn exchange(upstream: &str, says: &'static str, limits: Limits, request: &str) -> (String, String) {
        let quiet = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let config = Config {
            routes: vec![crate::config::Route {
                path: "/".into(),
                upstream: format!("{upstream}://{}", quiet.local_addr().unwrap()),
                auth: Auth::None,
                secret: None,
                inspected: false,
                allow: vec!["* /**".into()],
            }],
            upstream_roots: rcgen::generate_simple_self_signed(vec!["a".into()]).unwrap().cert.pem(),
            ..Config::closed(([127, 0, 0, 1], 0).into())
        };
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = quiet.accept() {
                if !says.is_empty() {
                    // Whoever answers before he is asked speaks no HTTP.
                    stream.read_exact(&mut [0]).unwrap();
                    stream.write_all(says.as_bytes()).unwrap();
                }
                kept.push(stream);
            }
        });
        let out = Shared::default();
        let log = Log::start(out.clone(), || ()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(config.listen)).unwrap();
        let address = listener.local_addr().unwrap();
        let live = Live::new(&config, &BTreeMap::new(), limits).unwrap();
        runtime.spawn(Arc::new(Server::new(live, limits, log.clone())).serve(listener));
        let mut agent = std::net::TcpStream::connect(address).unwrap();
        agent.write_all(request.as_bytes()).unwrap();
        let mut reply = Vec::new();
        // How the connection ends is not what these tests are about.
        let _ = agent.read_to_end(&mut reply);
        drop(runtime);
        log.flush(Duration::from_secs(10));
        let lines = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let reason = lines.lines().find_map(|line| match serde_json::from_str(line).unwrap() {
            Event::Request { reason, .. } => reason,
            _ => None,
        });
        (String::from_utf8(reply).unwrap(), reason.unwrap_or_default())
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

    #[test]
    fn an_upstream_that_is_silent_is_not_waited_for() {
        let limits = Limits { head: SHORT, ..Limits::default() };
        let (reply, reason) = exchange("http", "", limits, GET);
        assert!(reply.starts_with("HTTP/1.1 504 ") && reply.contains("in time"), "{reply}");
        assert!(reason.starts_with("no reply within"), "{reason}");
    }

    #[test]
    fn a_handshake_that_never_ends_is_not_waited_for() {
        let limits = Limits { connect: SHORT, ..Limits::default() };
        let (reply, reason) = exchange("https", "", limits, GET);
        assert!(reply.starts_with("HTTP/1.1 504 "), "{reply}");
        assert!(reason.starts_with("no connection to 127.0.0.1:"), "{reason}");
    }

    #[test]
    fn a_reply_that_falls_silent_is_cut_and_does_not_look_like_an_end() {
        let limits = Limits { idle: SHORT, ..Limits::default() };
        let says = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n!\r\n";
        let (reply, reason) = exchange("http", says, limits, GET);
        assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("1\r\n!\r\n"), "{reply}");
        assert!(reason.starts_with("nothing came for"), "{reason}");
    }

    #[test]
    fn a_request_that_falls_silent_is_given_up() {
        let limits = Limits { idle: SHORT, ..Limits::default() };
        let begun = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc";
        let (reply, reason) = exchange("http", "", limits, begun);
        assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
        assert_eq!(reason, "the request's body broke off");
    }

    #[test]
    fn a_head_that_never_ends_is_given_up() {
        let limits = Limits { agent_head: SHORT, ..Limits::default() };
        let (reply, _) = exchange("http", "", limits, "GET / HTTP/1.1\r\nHost: a\r\n");
        assert!(!reply.starts_with("HTTP/1.1 2"), "{reply}");
    }
}
