//! Upstreams that speak HTTP/2: real TLS and ALPN, one shared connection, streams both ways, and what inspection allows.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use bytes::Bytes;
use cred_proxy::config::Config;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio_rustls::TlsAcceptor;
use world::{PATIENCE, SECRET, Sidecar, config, read_head, read_line, read_message, route, status};

/// What an upstream saw of a request.
#[derive(Debug, Clone)]
struct Seen {
    connection: usize,
    version: http::Version,
    uri: String,
    headers: HeaderMap,
}

struct Upstream {
    address: SocketAddr,
    ca_pem: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Told when the body of a reply is dropped before its end.
    dropped: Receiver<()>,
    _runtime: tokio::runtime::Runtime,
}

/// The reply's body: the request's, byte for byte and trailers too, or events without an end.
enum Answer {
    Echo(Incoming),
    Text(Option<Bytes>),
    Endless(Option<Bytes>, Sender<()>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Echo(body) => Pin::new(body).poll_frame(cx),
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Endless(first, _) => match first.take() {
                Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
                None => Poll::Pending,
            },
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Self::Endless(_, told) = self {
            // The test may be over.
            let _ = told.send(());
        }
    }
}

impl Upstream {
    fn start(protocols: &[&str]) -> Self {
        Self::taking(protocols, None)
    }

    /// With so many requests at one time on one connection.
    fn taking(protocols: &[&str], most: Option<u32>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (mut tls, ca_pem) = world::tls_config("127.0.0.1");
        tls.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = seen.clone();
        let (tell, dropped) = channel();
        runtime.spawn(async move {
            let connections = AtomicUsize::new(0);
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, record, tell) = (acceptor.clone(), record.clone(), tell.clone());
                let connection = connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let is_two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    let ends = Arc::new(tokio::sync::Notify::new());
                    let service = service_fn(|request| {
                        let reply = answer(request, connection, &record, &tell);
                        if reply.headers().contains_key("x-goes") {
                            ends.notify_one();
                        }
                        async move { Ok::<_, Infallible>(reply) }
                    });
                    let io = TokioIo::new(stream);
                    if is_two {
                        let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .max_concurrent_streams(most)
                            .serve_connection(io, service);
                        let mut served = std::pin::pin!(served);
                        tokio::select! {
                            _ = &mut served => return,
                            () = ends.notified() => served.as_mut().graceful_shutdown(),
                        }
                        drop(served.await);
                    } else {
                        drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await);
                    }
                });
            }
        });
        Self { address, ca_pem, seen, dropped, _runtime: runtime }
    }

    fn config(&self) -> Config {
        let mut config = config(vec![route(&format!("https://{}", self.address))]);
        config.upstream_roots = self.ca_pem.clone();
        config
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn answer(
    request: Request<Incoming>,
    connection: usize,
    record: &Mutex<Vec<Seen>>,
    tell: &Sender<()>,
) -> Response<Answer> {
    let (head, body) = request.into_parts();
    let uri = head.uri.to_string();
    let seen = Seen { connection, version: head.version, uri: uri.clone(), headers: head.headers.clone() };
    record.lock().unwrap().push(seen);
    let credential = head.headers.get("authorization").cloned().unwrap_or(HeaderValue::from_static(""));
    let mut reply = match uri.rsplit('/').next() {
        Some("echo") => Response::new(Answer::Echo(body)),
        Some("endless") => Response::new(Answer::Endless(Some(Bytes::from_static(b"data: 1\n\n")), tell.clone())),
        Some("credential") => Response::new(Answer::Text(Some(Bytes::copy_from_slice(credential.as_bytes())))),
        _ => Response::new(Answer::Text(Some(Bytes::from_static(b"hello")))),
    };
    if let Some(names) = head.headers.get("trailer") {
        reply.headers_mut().insert("trailer", names.clone());
    }
    if uri.ends_with("goes") {
        reply.headers_mut().insert("x-goes", HeaderValue::from_static("yes"));
    }
    reply.headers_mut().insert("x-echo", credential);
    reply
}

#[test]
fn requests_share_one_connection_and_arrive_as_they_should() {
    let upstream = Upstream::start(&["h2", "http/1.1"]);
    let sidecar = Sidecar::start(&upstream.config());
    let mut streams: Vec<_> = (0..20)
        .map(|number| {
            let mut stream = sidecar.connect();
            write!(stream, "GET /api/{number}?q HTTP/1.1\r\nHost: a\r\nAuthorization: agents-own\r\n\r\n").unwrap();
            stream
        })
        .collect();
    for stream in &mut streams {
        let reply = read_message(stream, true).unwrap();
        assert_eq!((status(&reply), reply.body.as_slice()), (200, &b"hello"[..]));
        assert!(reply.head.starts_with("HTTP/1.1 200 "), "{}", reply.head);
        assert_eq!(reply.header("x-echo"), [format!("Bearer {}", "*".repeat(SECRET.len()))]);
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 20);
    for seen in &seen {
        assert_eq!((seen.version, seen.connection), (http::Version::HTTP_2, 0), "{seen:?}");
        assert!(
            seen.uri.starts_with(&format!("https://{}/", upstream.address)) && seen.uri.ends_with("?q"),
            "{seen:?}"
        );
        assert_eq!(seen.headers["authorization"], format!("Bearer {SECRET}"));
        assert!(!seen.headers.contains_key("host") && !seen.headers.contains_key("connection"), "{seen:?}");
    }
}

#[test]
fn bodies_stream_both_ways_and_trailers_with_them() {
    let upstream = Upstream::start(&["h2"]);
    let sidecar = Sidecar::start(&upstream.config());
    let mut stream = sidecar.connect();
    stream
        .write_all(
            b"POST /api/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
              Trailer: x-sum, authorization\r\n\r\n",
        )
        .unwrap();
    let head = read_head(&mut stream).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("trailer: x-sum\r\n"), "{head}");
    // Each chunk comes back before the next one is sent.
    for chunk in ["5\r\nhello\r\n", "3\r\nfoo\r\n"] {
        stream.write_all(chunk.as_bytes()).unwrap();
        assert_eq!(read_line(&mut stream).unwrap() + &read_line(&mut stream).unwrap(), chunk);
    }
    stream.write_all(format!("0\r\nx-sum: {SECRET}\r\nauthorization: agents-own\r\n\r\n").as_bytes()).unwrap();
    let rest: Vec<String> = (0..3).map(|_| read_line(&mut stream).unwrap()).collect();
    assert_eq!(rest, ["0\r\n", &format!("x-sum: {}\r\n", "*".repeat(SECRET.len())), "\r\n"]);
    // More than any window holds.
    let body = "0123456789abcdef".repeat(256 << 10);
    write!(stream, "POST /api/echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let sent = body.clone();
    let writing = std::thread::spawn(move || writer.write_all(sent.as_bytes()).unwrap());
    let reply = read_message(&mut stream, true).unwrap();
    writing.join().unwrap();
    assert!(reply.body == body.as_bytes());
    assert_eq!(sidecar.get("/api/credential").body, format!("Bearer {}", "*".repeat(SECRET.len())).as_bytes());
    assert!(upstream.seen().iter().all(|seen| seen.connection == 0));
}

#[test]
fn an_agent_that_goes_away_ends_its_stream_and_no_other() {
    let upstream = Upstream::start(&["h2"]);
    let sidecar = Sidecar::start(&upstream.config());
    let open = || {
        let mut stream = sidecar.connect();
        stream.write_all(b"GET /api/endless HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        read_head(&mut stream).unwrap();
        assert_eq!(read_line(&mut stream).unwrap(), "9\r\n");
        stream
    };
    let (mut kept, gone) = (open(), open());
    drop(gone);
    upstream.dropped.recv_timeout(PATIENCE).unwrap();
    assert_eq!(sidecar.get("/api/x").body, b"hello");
    assert!(upstream.dropped.try_recv().is_err());
    kept.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    let mut rest = [0; 64];
    let read = kept.read(&mut rest).unwrap();
    assert!(rest[..read].starts_with(b"data: 1\n\n"));
    assert!(kept.read(&mut rest).is_err(), "it has ended");
    assert!(upstream.seen().iter().all(|seen| seen.connection == 0));
}

#[test]
fn a_full_connection_is_left_alone_and_another_one_opened() {
    let upstream = Upstream::taking(&["h2"], Some(1));
    let sidecar = Sidecar::start(&upstream.config());
    let connections = || upstream.seen().iter().map(|seen| seen.connection).collect::<Vec<_>>();
    let open = || {
        let mut stream = sidecar.connect();
        stream.write_all(b"GET /api/endless HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        read_head(&mut stream).unwrap();
        stream
    };
    // One after another they share it.
    assert_eq!(sidecar.get("/api/x").body, b"hello");
    let on_first = open();
    assert_eq!(connections(), [0, 0]);
    // It has no place for a second one at the same time, and neither has the next for a third.
    let _on_second = open();
    assert_eq!(sidecar.get("/api/x").body, b"hello");
    assert_eq!(connections(), [0, 0, 1, 2]);
    // A place that is free again is taken.
    drop(on_first);
    upstream.dropped.recv_timeout(PATIENCE).unwrap();
    let _third = open();
    assert_eq!(connections(), [0, 0, 1, 2, 0]);
}

#[test]
fn an_upstream_that_says_goodbye_costs_no_request() {
    let upstream = Upstream::start(&["h2"]);
    let sidecar = Sidecar::start(&upstream.config());
    for _ in 0..10 {
        assert_eq!(sidecar.get("/api/goes").body, b"hello");
        assert_eq!(sidecar.get("/api/x").body, b"hello");
    }
    assert!(upstream.seen().iter().any(|seen| seen.connection > 0), "it never went");
}

#[test]
fn where_it_is_not_spoken_or_somebody_inspects_it_is_http_1() {
    for (protocols, is_inspected, wanted) in [
        (&["h2", "http/1.1"][..], false, http::Version::HTTP_2),
        (&["h2", "http/1.1"], true, http::Version::HTTP_11),
        (&["http/1.1"], false, http::Version::HTTP_11),
        (&[], false, http::Version::HTTP_11),
    ] {
        let upstream = Upstream::start(protocols);
        let mut config = upstream.config();
        config.routes[0].inspected = is_inspected;
        config.inspected_ca = Some(upstream.ca_pem.clone());
        let sidecar = Sidecar::start(&config);
        for _ in 0..3 {
            assert_eq!(sidecar.get("/api/x").body, b"hello", "{protocols:?}");
        }
        let seen = upstream.seen();
        assert!(seen.iter().all(|seen| seen.version == wanted && seen.connection == 0), "{protocols:?}: {seen:?}");
        assert_eq!(seen[0].headers.contains_key("host"), wanted == http::Version::HTTP_11);
    }
}
