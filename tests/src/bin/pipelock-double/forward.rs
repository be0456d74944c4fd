//! Plain requests: `http://` through the proxy, and `/fetch`. Redirects are followed here, each one checked.

use crate::answer::{self, Body, Refusal};
use crate::connect::join;
use crate::guard::{self, No};
use crate::inspect::{self, Collected, Refused};
use crate::log::{self, Level};
use crate::state::{Asked, Live, Place, Shared};
use crate::upstream;
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LOCATION,
};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Redirects that are followed.
const REDIRECTS_MAX: usize = 5;

/// Answers a request whose line has a whole URL.
pub async fn handle(shared: &Arc<Shared>, peer: IpAddr, request: Request<Incoming>) -> Response<Body> {
    let asked = asked(shared, peer, &request.method().clone(), &request.uri().to_string());
    let started = Instant::now();
    let live = shared.live();
    let limit = Duration::from_secs(live.config.fetch_proxy.timeout_seconds);
    let carried = tokio::time::timeout(limit, carry(shared, &live, &asked, request)).await;
    match carried.unwrap_or_else(|_| Err(Refusal::failed("forward proxy fetch failed", "request timed out"))) {
        Err(refusal) => refusal.answer(&asked),
        Ok((response, size)) => {
            let mut fields = asked.fields(false);
            fields["status_code"] = json!(response.status().as_u16());
            fields["size_bytes"] = json!(size);
            fields["duration_ms"] = json!(started.elapsed().as_secs_f64() * 1000.0);
            log::event(Level::Info, "forward_http", "forward proxy request", fields);
            response
        }
    }
}

/// Answers `/fetch?url=`: the same checks, the text of the answer in JSON.
pub async fn fetch(shared: &Arc<Shared>, peer: IpAddr, request: Request<Incoming>) -> Response<Body> {
    if request.method() != Method::GET {
        return answer::json(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "method not allowed", "blocked": false}));
    }
    let query = request.uri().query().unwrap_or_default();
    let url = query.split('&').find_map(|pair| pair.strip_prefix("url=")).map(decoded).unwrap_or_default();
    let Some(uri) = url.parse::<Uri>().ok().filter(|uri| uri.scheme().is_some()) else {
        return answer::json(StatusCode::BAD_REQUEST, &json!({"error": "missing 'url' parameter", "blocked": false}));
    };
    let asked = asked(shared, peer, &Method::GET, &url);
    let live = shared.live();
    match follow(shared, &live, &asked, Method::GET, uri, HeaderMap::new(), Bytes::new()).await {
        Err(refusal) => {
            let (status, reason) = (refusal.status, refusal.text.trim_start_matches("blocked: ").to_owned());
            refusal.answer(&asked);
            let value = match status {
                StatusCode::FORBIDDEN => json!({"url": url, "blocked": true, "block_reason": reason}),
                _ => json!({"url": url, "blocked": false, "error": reason}),
            };
            answer::json(status, &value)
        }
        Ok(response) => {
            let (head, body) = response.into_parts();
            let (status, headers) = (head.status, head.headers);
            let bytes = match cut(&live, body).await {
                Ok(bytes) => bytes,
                Err(refusal) => return refusal.answer(&asked),
            };
            let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
            let content = String::from_utf8_lossy(&bytes);
            let value = json!({
                "url": url, "status_code": status.as_u16(), "content_type": kind, "content": content, "blocked": false,
            });
            log::event(Level::Info, "allowed", "request allowed", asked.fields(false));
            answer::json(StatusCode::OK, &value)
        }
    }
}

async fn carry(
    shared: &Shared,
    live: &Live,
    asked: &Asked,
    request: Request<Incoming>,
) -> Result<(Response<Body>, usize), Refusal> {
    let refused = |refused: Refused| refused.outside("blocked");
    let (mut head, body) = request.into_parts();
    allowed(live, asked, &head.uri).await?;
    let body = inspect::body(live, asked, "forward", &head.headers, body).await.map_err(refused)?;
    inspect::headers(live, asked, "forward", &head.headers).map_err(refused)?;
    inspect::strip(&mut head.headers);
    let response = follow(shared, live, asked, head.method, head.uri, head.headers, body).await?;
    let (mut head, body) = response.into_parts();
    head.extensions.clear();
    if inspect::are_events(&head.headers) && live.config.response_scanning.enabled {
        return Ok((Response::from_parts(head, body.map_err(answer::BoxError::from).boxed_unsync()), 0));
    }
    let bytes = cut(live, body).await?;
    let size = bytes.len();
    // In one piece but without its length said, as the real one streams it.
    Ok((Response::from_parts(head, unmeasured(bytes)), size))
}

/// A body up to the limit. What is longer is cut, without a word: so does the real one.
async fn cut(live: &Live, body: Incoming) -> Result<Bytes, Refusal> {
    let max = live.config.fetch_proxy.max_response_mb.saturating_mul(1 << 20);
    match inspect::collect(body, max).await {
        Ok(Collected::Whole(bytes) | Collected::TooLong(bytes)) => Ok(bytes),
        Err(error) => Err(Refusal::failed("forward proxy fetch failed", error)),
    }
}

/// Sends a request and what it is redirected to.
async fn follow(
    shared: &Shared,
    live: &Live,
    asked: &Asked,
    mut method: Method,
    mut uri: Uri,
    mut headers: HeaderMap,
    mut body: Bytes,
) -> Result<Response<Incoming>, Refusal> {
    let failed = |error: &dyn std::fmt::Display| Refusal::failed("forward proxy fetch failed", error);
    for hop in 0..=REDIRECTS_MAX {
        let checked = allowed(live, asked, &uri).await;
        checked.map_err(|refusal| if hop == 0 { refusal } else { redirected(refusal) })?;
        let (tls, host, port) = place(&uri);
        headers.remove(ACCEPT_ENCODING);
        headers.remove(CONTENT_LENGTH);
        let authority = uri.authority().map(|a| a.as_str()).unwrap_or_default();
        headers.insert(HOST, HeaderValue::from_str(authority).map_err(|e| failed(&e))?);
        let mut onward = Request::new(Full::new(body.clone()));
        *onward.method_mut() = method.clone();
        *onward.headers_mut() = headers.clone();
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        *onward.uri_mut() = path.parse().map_err(|e: http::uri::InvalidUri| failed(&e))?;
        let mut response = upstream::send(shared, tls, &host, port, onward).await.map_err(|e| failed(&e))?;
        if let Some(next) = redirect(&uri, &response) {
            let keeps = matches!(response.status().as_u16(), 307 | 308);
            if !keeps && method != Method::HEAD {
                (method, body) = (Method::GET, Bytes::new());
            }
            uri = next;
            continue;
        }
        if response.headers().contains_key(CONTENT_ENCODING) {
            let reason = "compressed response cannot be scanned".to_owned();
            return Err(Refusal::blocked("blocked", No { scanner: "response_scan", reason }));
        }
        inspect::strip(response.headers_mut());
        response.headers_mut().remove(CONTENT_LENGTH);
        return Ok(response);
    }
    Err(failed(&"stopped after 5 redirects"))
}

async fn allowed(live: &Live, asked: &Asked, uri: &Uri) -> Result<(), Refusal> {
    let no = |no: No| Refusal::blocked("blocked", no);
    let (_, host, _) = place(uri);
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        let reason = format!("scheme {:?} not allowed: only http and https", uri.scheme_str().unwrap_or_default());
        return Err(no(No { scanner: "scheme", reason }));
    }
    inspect::url(live, asked, "forward", &uri.to_string(), &host).map_err(no)?;
    upstream::check(&live.config, &host).await.map_err(no)
}

fn redirected(refusal: Refusal) -> Refusal {
    let text = refusal.text.replacen("blocked: ", "blocked: redirect blocked: ", 1);
    Refusal { text, ..refusal }
}

fn redirect(from: &Uri, response: &Response<Incoming>) -> Option<Uri> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    if location.contains("://") {
        return location.parse().ok();
    }
    let (tls, host, port) = place(from);
    let scheme = if tls { "https" } else { "http" };
    let slash = if location.starts_with('/') { "" } else { "/" };
    format!("{scheme}://{}{slash}{location}", join(&host, port)).parse().ok()
}

fn place(uri: &Uri) -> (bool, String, u16) {
    let tls = uri.scheme_str() == Some("https");
    let host = guard::canonical(uri.host().unwrap_or_default());
    (tls, host, uri.port_u16().unwrap_or(if tls { 443 } else { 80 }))
}

fn asked(shared: &Shared, peer: IpAddr, method: &Method, url: &str) -> Asked {
    Asked { peer, id: shared.request_id(), method: method.to_string(), place: Place::Url(url.to_owned()) }
}

fn unmeasured(bytes: Bytes) -> Body {
    let stream = futures_util::stream::once(async move { Ok::<_, answer::BoxError>(Frame::data(bytes)) });
    StreamBody::new(stream).boxed_unsync()
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let pair = tail.get(..2).and_then(|p| std::str::from_utf8(p).ok());
        match (byte, pair.and_then(|p| u8::from_str_radix(p, 16).ok())) {
            (b'%', Some(code)) => {
                out.push(code);
                rest = tail.get(2..).unwrap_or_default();
            }
            (byte, _) => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
