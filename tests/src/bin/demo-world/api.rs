//! The API upstream, over HTTPS and HTTP, for any name; three names are hosts of their own (`wire.rs`, `npm.rs`,
//! `forge.rs`).
//!
//! `/v1/**` wants the expected credential (401 without it): `/v1/echo` gives back all request headers and the body,
//! `/v1/stream` `?n=` (five) events `?ms=` (50) apart, `/v1/leak` the credential in every form a careless reply may use, `/v1/slow`
//! an answer after `?ms=`, `/v1/messages` and `/v1/responses` a model that does what its prompt says (`model.rs`). Open to all: `/public/**`, `/big?n=bytes`,
//! `/redirect?to=url`. Everything else is 404, marked like all the rest.

use crate::forge::Forge;
use crate::listen::{Listening, serve};
use crate::model;
use crate::npm::Registry;
use crate::reply::{self, MARK, Reply, ReplyBody};
use crate::start::StartError;
use crate::wire;
use crate::witness::Witness;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bottle_tests::world::role::{ApiConfig, Expected};
use bottle_tests::world::{Evidence, FORGE, NPM, WIRE, evidence};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

/// Larger request bodies are read no further and answered 413.
const BODY_BYTES_MAX: usize = 8 << 20;
/// The longest `/v1/slow`, in milliseconds.
const SLOW_MS_MAX: u64 = 60_000;
/// The most events of a stream.
const EVENTS_MAX: u64 = 10_000;
/// The longest `/big`.
const BIG_BYTES_MAX: u64 = 4 << 30;
/// How long a TLS handshake may take.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Binds both ports, says ready and serves.
pub async fn start(config: ApiConfig, witness: &Witness) -> Result<(), StartError> {
    let tls = TlsAcceptor::from(config.identity.server_config()?);
    let mut listening = Listening::default();
    let https = listening.tcp("https", config.listen, config.https_port).await?;
    let http = listening.tcp("http", config.listen, config.http_port).await?;
    listening.ready(witness);

    let packages = Arc::new(Registry::new(NPM));
    let forge = Arc::new(Forge::new());
    let api = Api { expected: config.expected.map(Arc::new), packages, forge, witness: *witness };
    let plain = api.clone();
    serve(http, move |stream, peer| plain.clone().talk(stream, peer, None));
    serve(https, move |stream, peer| {
        let (api, tls) = (api.clone(), tls.clone());
        async move {
            // A handshake that fails is the client's affair: pipelock opens and closes one for each tunnel.
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
                let sni = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
                if sni == WIRE {
                    wire::talk(stream, peer, &sni, api.witness).await;
                } else {
                    api.talk(stream, peer, Some(sni)).await;
                }
            }
        }
    });
    Ok(())
}

#[derive(Debug, Clone)]
struct Api {
    expected: Option<Arc<Expected>>,
    packages: Arc<Registry>,
    forge: Arc<Forge>,
    witness: Witness,
}

impl Api {
    async fn talk(self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: SocketAddr, sni: Option<String>) {
        let service = hyper::service::service_fn(move |request| {
            let (api, sni) = (self.clone(), sni.clone());
            async move { Ok::<_, Infallible>(api.answer(request, peer, sni).await) }
        });
        // A client that goes away in the middle is not our failure.
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr, sni: Option<String>) -> Reply {
        let (head, body) = request.into_parts();
        let read = Limited::new(body, BODY_BYTES_MAX).collect().await.map(http_body_util::Collected::to_bytes);
        let request = Request::from_parts(head, read.as_deref().unwrap_or_default());
        let headers = reply::headers(&request);
        let host = headers.get("host").cloned().or_else(|| request.uri().authority().map(ToString::to_string));
        self.witness.saw(&Evidence::Request {
            peer,
            sni: sni.clone(),
            host: host.clone().unwrap_or_default(),
            method: request.method().to_string(),
            path: request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned(),
            authorization: headers.get("authorization").cloned(),
            body_prefix: evidence::prefix(request.body()),
            body_bytes: request.body().len() as u64,
            headers,
        });
        let mut answer = match read {
            Ok(_) if host.as_deref().is_some_and(|host| host == NPM) => self.package(&request),
            Ok(_) if host.as_deref().is_some_and(|host| host == FORGE) => self.repository(&request, peer),
            Ok(_) => self.route(&request).await,
            Err(_) => reply::text(StatusCode::PAYLOAD_TOO_LARGE, "body too large\n"),
        };
        reply::header(&mut answer, MARK, "api");
        reply::header(&mut answer, "x-world-sni", &sni.unwrap_or_default());
        answer
    }

    async fn route(&self, request: &Request<&[u8]>) -> Reply {
        let path = request.uri().path();
        if path.starts_with("/v1/") && !self.shows_credential(request) {
            return reply::json(StatusCode::UNAUTHORIZED, &json!({"error": "credential required"}));
        }
        match path {
            "/v1/echo" => echo(request),
            "/v1/stream" => {
                let (n, ms) = (number(request, "n").unwrap_or(5), number(request, "ms").unwrap_or(50));
                let n = u32::try_from(n.min(EVENTS_MAX)).unwrap_or_default();
                let events = ReplyBody::events(n, Duration::from_millis(ms.clamp(1, SLOW_MS_MAX)));
                reply::with_type(StatusCode::OK, "text/event-stream", events)
            }
            "/v1/leak" => leak(self.credential(request).unwrap_or_default()),
            "/v1/slow" => {
                let ms = number(request, "ms").unwrap_or(1000).min(SLOW_MS_MAX);
                tokio::time::sleep(Duration::from_millis(ms)).await;
                reply::json(StatusCode::OK, &json!({"slept_ms": ms}))
            }
            "/v1/messages" if request.method() == Method::POST => model::messages(request.body()).unwrap_or_else(hello),
            "/v1/responses" if request.method() == Method::POST => {
                model::responses(request.body()).unwrap_or_else(hello)
            }
            "/big" => {
                let n = number(request, "n").unwrap_or(0).min(BIG_BYTES_MAX);
                reply::with_type(StatusCode::OK, "application/octet-stream", ReplyBody::Long(n))
            }
            "/redirect" => {
                let mut answer = reply::text(StatusCode::FOUND, "elsewhere\n");
                reply::header(&mut answer, "location", &query(request, "to").unwrap_or_default());
                answer
            }
            _ if path.starts_with("/public/") => reply::text(StatusCode::OK, format!("public: {path}\n")),
            _ => reply::json(StatusCode::NOT_FOUND, &json!({"error": "not found", "path": path})),
        }
    }

    /// Who shows no credential reads as the public does; a wrong one is refused.
    fn package(&self, request: &Request<&[u8]>) -> Reply {
        if self.credential(request).is_some() && !self.shows_credential(request) {
            return reply::json(StatusCode::UNAUTHORIZED, &json!({"error": "wrong credential"}));
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return reply::json(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "read-only"}));
        }
        self.packages.answer(request.uri().path())
    }

    fn repository(&self, request: &Request<&[u8]>, peer: SocketAddr) -> Reply {
        if !self.shows_credential(request) {
            let mut refused = reply::text(StatusCode::UNAUTHORIZED, "credential required\n");
            reply::header(&mut refused, "www-authenticate", "Bearer");
            return refused;
        }
        self.forge.answer(request, peer, self.witness)
    }

    fn credential<'a>(&self, request: &'a Request<&[u8]>) -> Option<&'a str> {
        let name = self.expected.as_ref().map_or("authorization", |expected| expected.header.as_str());
        request.headers().get(name)?.to_str().ok()
    }

    fn shows_credential(&self, request: &Request<&[u8]>) -> bool {
        match &self.expected {
            None => true,
            Some(expected) => self.credential(request) == Some(expected.value.as_str()),
        }
    }
}

/// For those who say nothing that the model understands.
fn hello() -> Reply {
    let hello = json!({"type": "message", "role": "assistant", "content": [{"type": "text", "text": "hello"}]});
    reply::json(StatusCode::OK, &hello)
}

fn echo(request: &Request<&[u8]>) -> Reply {
    reply::json(
        StatusCode::OK,
        &json!({
            "method": request.method().as_str(),
            "path": request.uri().path_and_query().map(|p| p.as_str()),
            "headers": reply::headers(request),
            "body": String::from_utf8_lossy(request.body()),
        }),
    )
}

/// What a careless upstream does: the credential whole and without its scheme word, plain and in base64, in the body and
/// in a header.
fn leak(value: &str) -> Reply {
    let bare = value.split_once(' ').map_or(value, |(_, bare)| bare);
    let mut answer = reply::json(
        StatusCode::OK,
        &json!({
            "plain": value,
            "bare": bare,
            "base64": STANDARD.encode(value),
            "base64_bare": STANDARD.encode(bare),
            "base64_url": URL_SAFE_NO_PAD.encode(bare),
            "percent": bare.bytes().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "%{byte:02X}"); // writing to a String cannot fail
                text
            }),
        }),
    );
    reply::header(&mut answer, "x-leak", value);
    reply::header(&mut answer, "x-leak-base64", &STANDARD.encode(bare));
    answer
}

fn query(request: &Request<&[u8]>, name: &str) -> Option<String> {
    let pairs = request.uri().query()?.split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}

fn number(request: &Request<&[u8]>, name: &str) -> Option<u64> {
    query(request, name)?.parse().ok()
}
