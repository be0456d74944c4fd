//! One line as pipelock writes it, and the event that it means.

use super::{HOST_CHARS_MAX, LogEvent, REASON_TOO_LONG, TEXT_CHARS_MAX};
use serde::Deserialize;

/// The method under which pipelock logs what goes wrong with a changed file.
const RELOAD_METHOD: &str = "CONFIG_RELOAD";

/// So much of a line that is too long is read: level, event, method and the host of the URL stand in it.
const HEAD_BYTES: usize = 2 << 10;

/// A method is cut to this many characters.
const METHOD_CHARS_MAX: usize = 32;

/// What a refusal is called in the log. The latter two are the whole record of a secret in a plain request or in CONNECT.
const REFUSALS: [&str; 3] = ["blocked", "header_dlp", "body_dlp"];

/// The fields that we look at.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Line {
    event: String,
    method: String,
    url: String,
    target: String,
    scanner: String,
    reason: String,
    action: String,
    patterns: Vec<String>,
    error: String,
    status: String,
    config_hash: String,
    listen: String,
    mode: String,
    version: String,
    status_code: u16,
    size_bytes: u64,
    total_bytes: u64,
}

/// What can be said of a line from its beginning. A refusal is one, however little of it can be read.
pub(super) fn beginning(line: &str) -> Option<LogEvent> {
    let line = line.trim_start();
    if !line.starts_with('{') {
        return None;
    }
    let head = line.get(..line.floor_char_boundary(HEAD_BYTES)).unwrap_or_default();
    // The cut is most likely within a text, perhaps within an escape of up to six characters: closed, it can be read.
    let closed = (0..=6).find_map(|back| {
        let kept = head.get(..head.floor_char_boundary(head.len().saturating_sub(back)))?;
        serde_json::from_str::<Line>(&format!("{kept}\"}}")).ok()
    });
    // A quote within a text is escaped, so this stands in the line only where it is the line's own.
    let named = |line: &Line| REFUSALS.into_iter().find(|event| line.event == *event);
    let refusal = match &closed {
        Some(line) => named(line),
        None => REFUSALS.into_iter().find(|event| head.contains(&format!("\"event\":\"{event}\""))),
    };
    let read = closed.unwrap_or_default();
    let Some(refusal) = refusal else {
        return (!read.event.is_empty()).then(|| LogEvent::Other { event: text(&read.event) });
    };
    let (host, port) = read.place();
    Some(LogEvent::Blocked {
        host,
        port,
        reason: REASON_TOO_LONG.to_owned(),
        scanner: if refusal == "blocked" { text(&read.scanner) } else { refusal.to_owned() },
        method: method(&read.method),
    })
}

impl Line {
    /// What it means.
    pub(super) fn event(self) -> Option<LogEvent> {
        Some(match self.event.as_str() {
            "" => return None,
            "startup" => LogEvent::Startup {
                listen: text(&self.listen),
                mode: text(&self.mode),
                version: text(&self.version),
                hash: text(&self.config_hash),
            },
            "blocked" => self.blocked(&self.scanner, &self.reason),
            "header_dlp" if self.action == "block" => {
                // The header's name is not told: the agent chooses it too, and a secret may stand in it.
                self.blocked("header_dlp", &format!("request header contains secret: {}", self.patterns.join(", ")))
            }
            "body_dlp" if self.action == "block" => {
                self.blocked("body_dlp", &format!("request body contains secret: {}", self.patterns.join(", ")))
            }
            "sni_mismatch" => LogEvent::Blocked {
                host: None,
                port: None,
                reason: "the tunnel's SNI is not the host that was asked for".into(),
                scanner: "sni".into(),
                method: "CONNECT".into(),
            },
            "tunnel_open" => LogEvent::TunnelOpen { target: host(&self.target) },
            "tunnel_close" => LogEvent::TunnelClose { target: host(&self.target), bytes: self.total_bytes },
            "anomaly" if self.scanner == "tls_intercept" => LogEvent::Intercepted { target: host(&self.target) },
            "forward_http" => LogEvent::ForwardHttp {
                host: self.place().0,
                method: method(&self.method),
                status: self.status_code,
                bytes: self.size_bytes,
            },
            "config_reload" => LogEvent::ConfigReload { status: text(&self.status), hash: text(&self.config_hash) },
            "error" if self.method == RELOAD_METHOD => LogEvent::ReloadRefused { reason: text(&self.error) },
            "error" => LogEvent::Error { method: method(&self.method), error: text(&without_paths(&self.error)) },
            "shutdown" => LogEvent::Shutdown,
            other => LogEvent::Other { event: text(other) },
        })
    }

    fn blocked(&self, scanner: &str, reason: &str) -> LogEvent {
        let (host, port) = self.place();
        LogEvent::Blocked {
            host,
            port,
            reason: text(&without_paths(reason)),
            scanner: text(scanner),
            method: method(&self.method),
        }
    }

    /// The host and port that the line is about, from its target, its URL, or the reason.
    fn place(&self) -> (Option<String>, Option<u16>) {
        let url = self.url.split_once("://").map(|(_, rest)| authority(rest));
        let listed = self.reason.strip_prefix("domain not in allowlist: ").map(authority);
        // Where pipelock redacts a target it writes `[redacted-url]`, which is no host.
        let target = Some(authority(&self.target)).filter(|t| !t.starts_with("[redacted"));
        let Some(authority) = [target, url, listed].into_iter().flatten().find(|a| !a.is_empty()) else {
            return (None, None);
        };
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port.parse().ok()),
            _ => (authority, None),
        };
        let name = host(name.trim_start_matches('[').trim_end_matches(']'));
        (Some(name).filter(|n| !n.is_empty()), port)
    }
}

/// The beginning of a URL's rest, up to its path.
fn authority(rest: &str) -> &str {
    rest.split(['/', '?', '#', '\\']).next().unwrap_or_default()
}

/// The same with every URL in it cut to scheme and host: Go's errors carry them whole.
fn without_paths(raw: &str) -> String {
    let mut kept = String::new();
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once("://") {
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>')).unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        let place = authority(url);
        kept.push_str(before);
        kept.push_str("://");
        kept.push_str(place.rsplit_once('@').map_or(place, |(_, host)| host));
        if place.len() < url.len() {
            kept.push_str("/[redacted]");
        }
        rest = tail;
    }
    kept.push_str(rest);
    kept
}

fn host(raw: &str) -> String {
    cut(raw, HOST_CHARS_MAX)
}

fn method(raw: &str) -> String {
    cut(raw, METHOD_CHARS_MAX)
}

/// Text of the agent's, as far as it is kept.
pub(super) fn text(raw: &str) -> String {
    cut(raw, TEXT_CHARS_MAX)
}

fn cut(raw: &str, chars_max: usize) -> String {
    raw.chars().map(|c| if is_plain(c) { c } else { '\u{fffd}' }).take(chars_max).collect()
}

/// Not a control character, and none of those that change the direction of text or hide in it.
fn is_plain(c: char) -> bool {
    let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    !c.is_control() && !hidden
}
