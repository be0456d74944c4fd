//! The agent's side: takes connections, reads requests whole, and hands them to [`crate::mcp`].
//!
//! Everything that an agent may use up has a limit here: connections, heads, bodies, and time. There are no sessions, so
//! there is nothing to fill by beginning them.

use crate::config::{NAME, PATH, PORT};
use crate::desk::Desk;
use crate::mcp::Handler;
use crate::patient::Patient;
use crate::places::{Busy, Place, Places};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Connections at one time; see [`Places`]. More than calls can hold at one time: 32 wait for a verdict, and the limit on
/// asks lets no more than 27 wait for the keeper.
pub const CONNECTIONS_MAX: usize = 64;

/// Bytes of a request's head.
pub const HEAD_BYTES_MAX: usize = 16 << 10;

/// Bytes of a request's body: a Dockerfile with every character escaped, and room.
pub const BODY_BYTES_MAX: usize = 256 << 10;

/// For a request's head, and between two requests on a connection.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// For a request's body.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// An agent that takes nothing of a reply for as long loses the connection.
const STALLED_WITHIN: Duration = Duration::from_secs(20);

/// How often a stream on which nothing happens shows that it lives.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

const TOO_LARGE: &str = "the request is larger than 256 KiB\n";

type Reply = Response<BoxBody<Bytes, Infallible>>;

/// What all connections share.
struct Server {
    mcp: StreamableHttpService<Handler, NeverSessionManager>,
    /// What a `Host` may say; whoever resolves another name to our address is not meant for us.
    hosts: Vec<String>,
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, address: SocketAddr, desk: Arc<Desk>) {
    let hosts = vec![NAME.to_owned(), format!("{NAME}:{PORT}"), address.to_string(), address.ip().to_string()];
    let mut config = StreamableHttpServerConfig::default()
        .with_allowed_hosts(hosts.clone())
        .enforce_origin_validation()
        .with_sse_keep_alive(Some(ALIVE_EVERY));
    config.legacy_session_mode = false;
    config.json_response = true;
    config.max_request_body_bytes = BODY_BYTES_MAX;
    let handler = Handler::new(desk);
    let mcp = StreamableHttpService::new(move || Ok(handler.clone()), Arc::default(), config);
    let server = Arc::new(Server { mcp, hosts });
    let places = Places::new(CONNECTIONS_MAX);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let place = places.take().await;
                tokio::spawn(server.clone().connection(stream, place));
            }
            // Out of descriptors, or the connection was gone already: the next may do better, but not at once.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, place: Arc<Place>) {
        // Without it a notice waits for the agent's acknowledgement; where it cannot be set it is only slower.
        let _ = stream.set_nodelay(true);
        let service = service_fn(|request| {
            let (server, place) = (self.clone(), place.clone());
            async move { Ok::<_, Infallible>(server.answer(request, &place).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(Patient::new(stream, STALLED_WITHIN, place.stalled())), service);
        tokio::select! {
            // How it ended is the agent's own business.
            _ = served => {}
            () = place.lost() => {}
        }
    }

    async fn answer(&self, request: Request<Incoming>, place: &Arc<Place>) -> Reply {
        if request.uri().path() != PATH {
            return plain(StatusCode::NOT_FOUND, "the MCP endpoint is /mcp\n");
        }
        if !self.is_meant(request.headers()) {
            return plain(StatusCode::FORBIDDEN, "call it by its name: http://supervise:9100/mcp\n");
        }
        let (head, body) = request.into_parts();
        // What is announced as too large is not waited for.
        if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
            return last(plain(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE));
        }
        let body = match tokio::time::timeout(BODY_WITHIN, Limited::new(body, BODY_BYTES_MAX).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                return last(plain(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE));
            }
            Ok(Err(_)) => return last(plain(StatusCode::BAD_REQUEST, "the request broke off\n")),
            Err(_) => return last(plain(StatusCode::REQUEST_TIMEOUT, "the request took too long to come\n")),
        };
        let Some(busy) = place.busy() else {
            return last(plain(StatusCode::SERVICE_UNAVAILABLE, "too many connections\n"));
        };
        let reply = self.mcp.handle(Request::from_parts(head, Full::new(body))).await;
        reply.map(|body| Kept { body, _busy: busy }.boxed())
    }

    fn is_meant(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        self.hosts.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(host.as_bytes()))
    }
}

/// A reply's body that keeps its connection's place until its last byte is handed over.
struct Kept {
    body: BoxBody<Bytes, Infallible>,
    _busy: Busy,
}

impl hyper::body::Body for Kept {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

fn plain(status: StatusCode, sentence: &'static str) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from_static(sentence.as_bytes())).boxed());
    *reply.status_mut() = status;
    reply
}

/// The connection ends with it: what is left of the request is not read.
fn last(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    reply
}
