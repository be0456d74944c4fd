//! A tunnel that is opened: TLS as the host towards the client, each request looked into and sent on.

use crate::answer::{self, Body, Logged, Refusal};
use crate::connect::{Tunnel, join};
use crate::guard::No;
use crate::inspect::Refused;
use crate::log::{self, Level};
use crate::state::{Asked, Place, Shared};
use crate::{guard, inspect, server, upstream};
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HOST};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// The client's handshake takes no longer.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(30);

/// Serves the requests of a tunnel until it ends.
pub async fn run<S>(shared: Arc<Shared>, tunnel: Arc<Tunnel>, client: S, limit: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(ca) = &tunnel.live.ca else { return };
    let config = match ca.server_config(&tunnel.host) {
        Ok(config) => config,
        Err(error) => return failed(&tunnel.asked, &error.to_string()),
    };
    let accept = tokio_rustls::TlsAcceptor::from(config).accept(client);
    let stream = match tokio::time::timeout(HANDSHAKE_WITHIN, accept).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let mut fields = tunnel.asked.fields(false);
            fields["scanner"] = json!("tls_handshake_error");
            fields["reason"] = json!(error.to_string());
            return log::event(Level::Warn, "blocked", "request blocked", fields);
        }
        Err(_) => return failed(&tunnel.asked, "client TLS handshake: i/o timeout"),
    };
    let service = service_fn(move |request| {
        let (shared, tunnel) = (shared.clone(), tunnel.clone());
        async move { Ok::<_, Infallible>(answer::dated(serve(&shared, &tunnel, request).await)) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .title_case_headers(true)
        .timer(TokioTimer::new())
        .header_read_timeout(server::HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    // Time up or client gone: either way the tunnel is over.
    let _ = tokio::time::timeout(limit, served).await;
}

async fn serve(shared: &Shared, tunnel: &Tunnel, request: Request<Incoming>) -> Response<Body> {
    if shared.is_killed() {
        return answer::text(StatusCode::SERVICE_UNAVAILABLE, "kill switch active");
    }
    let target = join(&tunnel.host, tunnel.port);
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let method = request.method().to_string();
    let asked = |target: &str| Asked {
        peer: tunnel.asked.peer,
        id: tunnel.asked.id.clone(),
        method: method.clone(),
        place: Place::Url(format!("https://{target}{path}")),
    };
    if let Err(refusal) = authority(tunnel, &request) {
        // Told under the name that the request was for, not the tunnel's.
        return refusal.answer(&asked(said(&request)));
    }
    let asked = asked(&target);
    match carry(shared, tunnel, &asked, &path, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.answer(&asked),
    }
}

async fn carry(
    shared: &Shared,
    tunnel: &Tunnel,
    asked: &Asked,
    path: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let live = &tunnel.live;
    let no = |no: No| Refusal::blocked("blocked", no);
    let url = format!("https://{}{path}", join(&tunnel.host, tunnel.port));
    inspect::url(live, asked, "intercept", &url, &tunnel.host).map_err(no)?;
    upstream::check(&live.config, &tunnel.host).await.map_err(no)?;
    let (mut head, body) = request.into_parts();
    head.headers.remove(ACCEPT_ENCODING);
    let body = inspect::body(live, asked, "intercept", &head.headers, body).await.map_err(Refused::inside)?;
    inspect::headers(live, asked, "intercept", &head.headers).map_err(Refused::inside)?;
    inspect::strip(&mut head.headers);
    head.headers.remove(CONTENT_LENGTH);
    let uri: Uri = path.parse().map_err(|error| Refusal::failed("upstream error", error))?;
    let method = head.method.clone();
    let mut onward = Request::new(Full::new(Bytes::clone(&body)));
    *onward.method_mut() = method.clone();
    *onward.uri_mut() = uri;
    *onward.headers_mut() = head.headers;
    let response = upstream::send(shared, true, &tunnel.host, tunnel.port, onward).await;
    let response = response.map_err(|error| Refusal::failed("upstream error", error))?;
    inspect::response(live, &method, response, live.config.tls_interception.max_response_bytes).await.map_err(no)
}

/// The request must be for the host that the tunnel was asked for, port included.
fn authority(tunnel: &Tunnel, request: &Request<Incoming>) -> Result<(), Refusal> {
    let said = said(request);
    let (host, port) = match said.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (said, Some(443)),
    };
    if guard::canonical(host) == tunnel.host && port == Some(tunnel.port) {
        return Ok(());
    }
    let reason = format!("authority mismatch: {said} vs {}", join(&tunnel.host, tunnel.port));
    Err(Refusal {
        status: StatusCode::FORBIDDEN,
        text: "authority mismatch: blocked".into(),
        logged: Logged::Blocked(No { scanner: "tls_authority_mismatch", reason }),
    })
}

/// The host that a request is for: a request line with a whole URL outranks the header.
fn said(request: &Request<Incoming>) -> &str {
    let header = request.headers().get(HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    request.uri().authority().map_or(header, |a| a.as_str())
}

fn failed(asked: &Asked, error: &str) {
    let mut fields = asked.fields(false);
    fields["error"] = json!(error);
    log::event(Level::Error, "error", "request error", fields);
}
