//! Looking into what passes: URLs, headers and bodies of requests, and bodies of answers.

use crate::answer::{self, Body, BoxError, Logged, Refusal};
use crate::config::{Action, HeaderMode};
use crate::dlp::Match;
use crate::guard::{self, No};
use crate::log::{self, Level};
use crate::state::{Asked, Live};
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName};
use http::{Method, Response};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use serde_json::{Value, json};

/// What a connection keeps to itself.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The URL: its shape, its host's name, secrets in it, its length.
pub fn url(live: &Live, asked: &Asked, transport: &str, url: &str, host: &str) -> Result<(), No> {
    guard::url(&live.config, url, host)?;
    let mut found = live.dlp.scan(url.as_bytes());
    found.extend(live.dlp.scan(&percent_decoded(url)));
    if let Some(secret) = blocking(asked, transport, found).into_iter().next() {
        let scanner = if secret.core { "core_dlp" } else { "dlp" };
        return Err(No { scanner, reason: secret.reason() });
    }
    guard::length(&live.config, url)
}

/// The headers that are looked into, by the mode: names as well where that is all, and everything once more in one piece,
/// since a secret may be cut in two.
pub fn headers(live: &Live, asked: &Asked, transport: &'static str, headers: &HeaderMap) -> Result<(), Refused> {
    let section = &live.config.request_body_scanning;
    if !section.enabled || !section.scan_headers {
        return Ok(());
    }
    let all = section.header_mode == HeaderMode::All;
    let listed = |list: &[String], name: &HeaderName| list.iter().any(|s| s.eq_ignore_ascii_case(name.as_str()));
    let looked_into = |name: &HeaderName| match section.header_mode {
        HeaderMode::All => !listed(&section.ignore_headers, name),
        HeaderMode::Sensitive => listed(&section.sensitive_headers, name),
    };
    let mut pieces = Vec::new();
    for name in headers.keys().filter(|name| looked_into(name)) {
        let shown = canonical(name);
        let mut texts: Vec<Vec<u8>> = Vec::new();
        if all {
            pieces.push(shown.clone().into_bytes());
            texts.push(shown.clone().into_bytes());
        }
        for value in headers.get_all(name) {
            pieces.push(value.as_bytes().to_vec());
            texts.push(value.as_bytes().to_vec());
            if all {
                texts.push([shown.as_bytes(), value.as_bytes()].concat());
            }
        }
        for text in texts {
            header_found(live, asked, transport, &shown, &text)?;
        }
    }
    pieces.sort();
    if pieces.len() > 1 { header_found(live, asked, transport, "(joined)", &pieces.join(&b'\n')) } else { Ok(()) }
}

fn header_found(live: &Live, asked: &Asked, transport: &'static str, header: &str, text: &[u8]) -> Result<(), Refused> {
    let found = blocking(asked, transport, live.dlp.scan(text));
    if found.is_empty() {
        return Ok(());
    }
    let no = No { scanner: "header_dlp", reason: "request header contains secret".into() };
    let patterns = found.into_iter().map(|m| m.name).collect();
    Refused::Secret { no, patterns, header: Some(header.to_owned()) }.or_warned(live, asked, transport)
}

/// A header's name with a capital after each hyphen.
fn canonical(name: &HeaderName) -> String {
    let mut begins = true;
    let spelled = name.as_str().chars().map(|c| {
        let c = if begins { c.to_ascii_uppercase() } else { c };
        begins = c == '-';
        c
    });
    spelled.collect()
}

/// Why a request's headers or body do not pass.
#[derive(Debug)]
pub enum Refused {
    /// It cannot be looked into.
    Unreadable(No),
    /// There is a secret in it.
    Secret { no: No, patterns: Vec<String>, header: Option<String> },
}

impl Refused {
    /// As it is refused in a tunnel that is opened.
    pub fn inside(self) -> Refusal {
        match self {
            Self::Unreadable(no) | Self::Secret { no, .. } => Refusal::blocked("blocked", no),
        }
    }

    /// As a plain request is refused, and CONNECT itself: a secret is no `blocked` in the log, but an event of its own.
    pub fn outside(self, prefix: &str) -> Refusal {
        match self {
            Self::Unreadable(no) => Refusal::blocked(prefix, no),
            Self::Secret { no, patterns, header } => {
                let logged = Logged::Secret { scanner: no.scanner, patterns, header };
                Refusal { logged, ..Refusal::blocked(prefix, no) }
            }
        }
    }

    /// A refusal where the policy blocks; else it is only told.
    fn or_warned(self, live: &Live, asked: &Asked, transport: &'static str) -> Result<(), Self> {
        if live.config.request_body_scanning.action == Action::Block && live.config.enforce {
            return Err(self);
        }
        match self {
            Self::Secret { no, patterns, header } if transport != "intercept" => {
                answer::log_secret(asked, no.scanner, "warn", &patterns, header.as_deref());
            }
            Self::Secret { .. } | Self::Unreadable(_) => {}
        }
        Ok(())
    }
}

/// The body of a request, whole.
pub async fn body(
    live: &Live,
    asked: &Asked,
    transport: &'static str,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Bytes, Refused> {
    let section = &live.config.request_body_scanning;
    let no = |reason: String| Refused::Unreadable(No { scanner: "body_dlp", reason });
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let (max, scan) = (section.max_body_bytes, section.enabled);
    if scan && let Some(encoding) = encoding(headers) {
        let why = "compressed bodies cannot be scanned for secrets";
        return Err(no(format!("request body uses Content-Encoding {encoding:?}; {why}")));
    }
    let bytes = match collect(body, max).await {
        Ok(Collected::Whole(bytes)) => bytes,
        Ok(Collected::TooLong(_)) => return Err(no(format!("request body exceeds max_body_bytes ({max})"))),
        Err(error) => return Err(no(format!("error reading request body: {error}"))),
    };
    if !scan || bytes.is_empty() {
        return Ok(bytes);
    }
    let texts = texts(headers, &bytes).map_err(|reason| no(reason.into()))?;
    let mut found: Vec<Match> = Vec::new();
    for secret in texts.iter().flat_map(|text| live.dlp.scan(text)) {
        if !found.contains(&secret) {
            found.push(secret);
        }
    }
    let patterns: Vec<String> = blocking(asked, transport, found).into_iter().map(|m| m.name).collect();
    if !patterns.is_empty() {
        let reason = format!("request body contains secret: {}", patterns.join(", "));
        let no = No { scanner: "body_dlp", reason };
        Refused::Secret { no, patterns, header: None }.or_warned(live, asked, transport)?;
    }
    Ok(bytes)
}

/// The answer: server-sent events as they come, everything else once it is there whole.
pub async fn response(
    live: &Live,
    method: &Method,
    mut response: Response<Incoming>,
    max: usize,
) -> Result<Response<Body>, No> {
    let no = |scanner, reason: &str| No { scanner, reason: reason.to_owned() };
    if encoding(response.headers()).is_some() {
        return Err(no("tls_response_blocked", "compressed response cannot be scanned"));
    }
    strip(response.headers_mut());
    let events = are_events(response.headers());
    let (mut head, body) = response.into_parts();
    head.version = http::Version::HTTP_11;
    // A reason phrase of the upstream's is not passed on.
    head.extensions.clear();
    if events && live.config.response_scanning.enabled {
        return Ok(Response::from_parts(head, body.map_err(BoxError::from).boxed_unsync()));
    }
    let bytes = match collect(body, max).await {
        Ok(Collected::Whole(bytes)) => bytes,
        Ok(Collected::TooLong(_)) => return Err(no("tls_response_blocked", "response too large for scanning")),
        Err(_) => return Err(no("tls_response_blocked", "response read error")),
    };
    let section = &live.config.response_scanning;
    let injected = String::from_utf8_lossy(&bytes).to_lowercase().contains("ignore all previous instructions");
    if section.enabled && section.action == Action::Block && injected {
        return Err(no("response_scan", "response contains injection"));
    }
    if *method != Method::HEAD && !head.status.is_informational() && head.status != http::StatusCode::NO_CONTENT {
        head.headers.remove(CONTENT_LENGTH);
    }
    Ok(Response::from_parts(head, answer::full(bytes)))
}

/// Are these server-sent events?
pub fn are_events(headers: &HeaderMap) -> bool {
    media_type(headers) == "text/event-stream"
}

/// Takes off what belongs to one connection.
pub fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// A body, or that it was too long.
pub enum Collected {
    /// All of it.
    Whole(Bytes),
    /// What was read until the limit.
    TooLong(Bytes),
}

/// Reads a body up to a limit.
pub async fn collect(mut body: Incoming, max: usize) -> Result<Collected, hyper::Error> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        bytes.extend_from_slice(&data);
        if bytes.len() > max {
            bytes.truncate(max);
            return Ok(Collected::TooLong(bytes.freeze()));
        }
    }
    Ok(Collected::Whole(bytes.freeze()))
}

/// What was found and must not pass; what only warns is logged, whole URL and all, as the real one does.
fn blocking(asked: &Asked, transport: &str, found: Vec<Match>) -> Vec<Match> {
    let (warns, mut blocks): (Vec<Match>, Vec<Match>) = found.into_iter().partition(|m| m.warns);
    for warn in warns {
        let mut fields = asked.fields(false);
        fields["mode"] = json!("warn");
        fields["pattern"] = json!(warn.name);
        fields["severity"] = json!(warn.severity);
        fields["transport"] = json!(transport);
        log::event(Level::Warn, "dlp_warn", "DLP warn-mode match (informational)", fields);
    }
    blocks.sort_by_key(|m| !m.core);
    blocks
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn encoding(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_ENCODING)?.to_str().unwrap_or("?");
    let compressed = value.split(',').map(str::trim).any(|e| !e.is_empty() && !e.eq_ignore_ascii_case("identity"));
    compressed.then(|| value.to_owned())
}

/// The texts of a body in which secrets are looked for, by its type; the raw bytes are always one of them.
fn texts(headers: &HeaderMap, bytes: &Bytes) -> Result<Vec<Vec<u8>>, &'static str> {
    let media = media_type(headers);
    let mut texts = vec![bytes.to_vec()];
    if media == "application/json" || media.ends_with("+json") {
        let value: Value = serde_json::from_slice(bytes).map_err(|_| "invalid JSON body")?;
        let mut strings = Vec::new();
        strings_of(&value, &mut strings);
        let mut sorted = strings.clone();
        sorted.sort();
        texts.push(sorted.join("\n").into_bytes());
        texts.extend(strings.into_iter().map(String::into_bytes));
    } else if media == "application/x-www-form-urlencoded" {
        let text = String::from_utf8_lossy(bytes).replace('+', " ");
        texts.push(percent_decoded(&text));
    }
    Ok(texts)
}

fn strings_of(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|v| strings_of(v, into)),
        Value::Object(map) => map.iter().for_each(|(key, v)| {
            into.push(key.clone());
            strings_of(v, into);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let pair = bytes.get(at + 1..at + 3).and_then(|p| std::str::from_utf8(p).ok());
        match (byte, pair.and_then(|p| u8::from_str_radix(p, 16).ok())) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}
