//! What goes back to a client: answers in the real one's form, and refusals with what is logged of them.

use crate::guard::No;
use crate::log::{self, Level};
use crate::state::Asked;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::json;

/// A body of any kind.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// An error of any kind.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Scanners whose finding may stand in the URL itself.
const CONTENT_SCANNERS: [&str; 4] = ["dlp", "body_dlp", "header_dlp", "response_scan"];

/// A request that is not carried out.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    /// The body, without its newline.
    pub text: String,
    pub logged: Logged,
}

/// What the log says of a refusal.
#[derive(Debug)]
pub enum Logged {
    Blocked(No),
    /// A secret in a plain request or in CONNECT itself.
    Secret {
        scanner: &'static str,
        patterns: Vec<String>,
        header: Option<String>,
    },
    Error(String),
    Nothing,
}

impl Refusal {
    /// `blocked: <reason>`, or `CONNECT blocked: <reason>`.
    pub fn blocked(prefix: &str, no: No) -> Self {
        Self { status: StatusCode::FORBIDDEN, text: format!("{prefix}: {}", no.reason), logged: Logged::Blocked(no) }
    }

    /// A failure that is not the client's.
    pub fn failed(text: &str, error: impl std::fmt::Display) -> Self {
        Self { status: StatusCode::BAD_GATEWAY, text: text.to_owned(), logged: Logged::Error(error.to_string()) }
    }

    /// Writes the log line and makes the answer.
    pub fn answer(self, asked: &Asked) -> Response<Body> {
        match &self.logged {
            Logged::Blocked(no) => {
                let redact = CONTENT_SCANNERS.contains(&no.scanner);
                let mut fields = asked.fields(redact);
                fields["scanner"] = json!(no.scanner);
                fields["reason"] = json!(no.reason);
                log::event(Level::Warn, "blocked", "request blocked", fields);
            }
            Logged::Secret { scanner, patterns, header } => {
                log_secret(asked, scanner, "block", patterns, header.as_deref());
            }
            Logged::Error(error) => {
                let mut fields = asked.fields(false);
                fields["error"] = json!(error);
                log::event(Level::Error, "error", "request error", fields);
            }
            Logged::Nothing => {}
        }
        text(self.status, &self.text)
    }
}

/// Writes the event of a secret that was found outside a tunnel; the URL stands in it whole, as in the real one's.
pub fn log_secret(asked: &Asked, scanner: &str, action: &str, patterns: &[String], header: Option<&str>) {
    let mut fields = asked.fields(false);
    fields["action"] = json!(action);
    fields["patterns"] = json!(patterns);
    let what = match header {
        Some(header) => {
            fields["header"] = json!(header);
            "header"
        }
        None => {
            fields["match_count"] = json!(patterns.len());
            "body"
        }
    };
    log::event(Level::Warn, scanner, &format!("request {what} DLP scan hit"), fields);
}

/// A refusal's form: text, and a header that forbids guessing.
pub fn text(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(full(format!("{text}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// A JSON answer.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(full(format!("{value}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Everything is denied.
pub fn killed() -> Response<Body> {
    let value = json!({"error": "kill_switch_active", "message": "Emergency deny-all active"});
    json(StatusCode::SERVICE_UNAVAILABLE, &value)
}

/// Puts the date in, where there is none.
pub fn dated(mut response: Response<Body>) -> Response<Body> {
    if !response.headers().contains_key(DATE) {
        let now = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&jiff::Timestamp::now());
        if let Some(value) = now.ok().and_then(|text| HeaderValue::from_str(&text).ok()) {
            response.headers_mut().insert(DATE, value);
        }
    }
    response
}

/// A body that is there whole.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}
