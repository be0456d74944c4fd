//! One line of pipelock's log, as far as the keeper acts on it or shows it.
//!
//! The agent chooses hosts, paths and methods, so it writes part of every line: all text is cut to a length, and stripped
//! of what could move a terminal's cursor or turn its writing around. What is no event of pipelock's is `None`; nothing
//! panics. URLs are not kept: pipelock writes them whole, secrets included, where a pattern only warns.

use serde::Deserialize;

/// Longer lines are not read.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// A host is cut to this many characters.
pub const HOST_CHARS_MAX: usize = 255;

/// Other text is cut to this many characters.
pub const TEXT_CHARS_MAX: usize = 512;

/// What pipelock writes to stderr when it cannot read a changed file.
const RELOAD_FAILED: &str = "pipelock: config reload failed: ";

/// The method under which pipelock logs what goes wrong with a changed file.
const RELOAD_METHOD: &str = "CONFIG_RELOAD";

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    /// It runs.
    Startup {
        /// Where it listens.
        listen: String,
        /// `strict`, if it is ours.
        mode: String,
        /// Its version.
        version: String,
        /// SHA-256 of the file it read, in hexadecimal.
        hash: String,
    },
    /// Something was refused.
    Blocked {
        /// The host that was asked for; `None` where the line does not say it (pipelock redacts some).
        host: Option<String>,
        /// The port, where the line says it.
        port: Option<u16>,
        /// Why, in pipelock's words.
        reason: String,
        /// Which of its scanners said no: `allowlist`, `ssrf`, `body_dlp`, ...
        scanner: String,
        /// `CONNECT`, or the method of the request.
        method: String,
    },
    /// A tunnel that is not opened began.
    TunnelOpen {
        /// `host:port`.
        target: String,
    },
    /// It ended.
    TunnelClose {
        /// `host:port`.
        target: String,
        /// Bytes that went through, both ways.
        bytes: u64,
    },
    /// A tunnel that is opened began.
    Intercepted {
        /// `host:port`.
        target: String,
    },
    /// A plain HTTP request was forwarded.
    ForwardHttp {
        /// The host.
        host: Option<String>,
        /// The method.
        method: String,
        /// The answer's status.
        status: u16,
        /// The answer's size.
        bytes: u64,
    },
    /// A changed file was taken.
    ConfigReload {
        /// `success`.
        status: String,
        /// SHA-256 of the file, in hexadecimal.
        hash: String,
    },
    /// A changed file was not taken: the old one stays.
    ReloadRefused {
        /// Why, in pipelock's words.
        reason: String,
    },
    /// Something failed. Most are an intercepted tunnel's ordinary end.
    Error {
        /// What was being done.
        method: String,
        /// Why it failed.
        error: String,
    },
    /// It ends.
    Shutdown,
    /// An event we do not act on.
    Other {
        /// Its name.
        event: String,
    },
}

impl LogEvent {
    /// Reads a line of pipelock's stdout or stderr.
    pub fn parse(line: &str) -> Option<Self> {
        if line.len() > LINE_BYTES_MAX {
            return None;
        }
        let line = line.trim();
        if let Some(reason) = line.strip_prefix(RELOAD_FAILED) {
            return Some(Self::ReloadRefused { reason: text(reason) });
        }
        if !line.starts_with('{') {
            return None;
        }
        serde_json::from_str::<Line>(line).ok()?.event()
    }
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Line {
    event: String,
    method: String,
    url: String,
    target: String,
    scanner: String,
    reason: String,
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

impl Line {
    fn event(self) -> Option<LogEvent> {
        Some(match self.event.as_str() {
            "" => return None,
            "startup" => LogEvent::Startup {
                listen: text(&self.listen),
                mode: text(&self.mode),
                version: text(&self.version),
                hash: text(&self.config_hash),
            },
            "blocked" => {
                let (host, port) = self.place();
                LogEvent::Blocked {
                    host,
                    port,
                    reason: text(&self.reason),
                    scanner: text(&self.scanner),
                    method: text(&self.method),
                }
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
                method: text(&self.method),
                status: self.status_code,
                bytes: self.size_bytes,
            },
            "config_reload" => LogEvent::ConfigReload { status: text(&self.status), hash: text(&self.config_hash) },
            "error" if self.method == RELOAD_METHOD => LogEvent::ReloadRefused { reason: text(&self.error) },
            "error" => LogEvent::Error { method: text(&self.method), error: text(&self.error) },
            "shutdown" => LogEvent::Shutdown,
            other => LogEvent::Other { event: text(other) },
        })
    }

    /// The host and port that the line is about, from its target, its URL, or the reason.
    fn place(&self) -> (Option<String>, Option<u16>) {
        let url = self.url.split_once("://").map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
        let listed = self.reason.strip_prefix("domain not in allowlist: ");
        // Where pipelock redacts a target it writes `[redacted-url]`, which is no host.
        let target = Some(self.target.as_str()).filter(|t| !t.starts_with("[redacted"));
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

fn host(raw: &str) -> String {
    cut(raw, HOST_CHARS_MAX)
}

fn text(raw: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, proptest};

    #[test]
    fn each_event_is_read_from_the_line_that_pipelock_writes() {
        let own = |s: &str| s.to_owned();
        for (line, expected) in [
            (
                r#"{"level":"info","component":"pipelock","event":"startup","listen":"10.0.0.2:8888","mode":"strict","version":"2.3.0","config_hash":"ab","time":"t","message":"pipelock started"}"#,
                LogEvent::Startup {
                    listen: own("10.0.0.2:8888"),
                    mode: own("strict"),
                    version: own("2.3.0"),
                    hash: own("ab"),
                },
            ),
            (
                r#"{"level":"warn","component":"pipelock","event":"blocked","method":"CONNECT","target":"evil.example:443","client_ip":"10.0.0.9","request_id":"r","scanner":"allowlist","reason":"domain not in allowlist: evil.example","agent":"anonymous","mitre_technique":"T1048"}"#,
                LogEvent::Blocked {
                    host: Some(own("evil.example")),
                    port: Some(443),
                    reason: own("domain not in allowlist: evil.example"),
                    scanner: own("allowlist"),
                    method: own("CONNECT"),
                },
            ),
            (
                r#"{"event":"blocked","method":"POST","url":"https://h.example:443/[redacted]","scanner":"body_dlp","reason":"request body contains secret: AWS Access ID"}"#,
                LogEvent::Blocked {
                    host: Some(own("h.example")),
                    port: Some(443),
                    reason: own("request body contains secret: AWS Access ID"),
                    scanner: own("body_dlp"),
                    method: own("POST"),
                },
            ),
            (
                r#"{"event":"blocked","method":"CONNECT","target":"[redacted-url]","scanner":"dlp","reason":"DLP match: X (high)"}"#,
                LogEvent::Blocked {
                    host: None,
                    port: None,
                    reason: own("DLP match: X (high)"),
                    scanner: own("dlp"),
                    method: own("CONNECT"),
                },
            ),
            (
                r#"{"event":"blocked","method":"CONNECT","target":"[::1]:443","scanner":"ssrf","reason":"r"}"#,
                LogEvent::Blocked {
                    host: Some(own("::1")),
                    port: Some(443),
                    reason: own("r"),
                    scanner: own("ssrf"),
                    method: own("CONNECT"),
                },
            ),
            (
                r#"{"event":"blocked","method":"GET","url":"http://u:p@h.example/x?token=abc","scanner":"allowlist","reason":"r"}"#,
                LogEvent::Blocked {
                    host: Some(own("h.example")),
                    port: None,
                    reason: own("r"),
                    scanner: own("allowlist"),
                    method: own("GET"),
                },
            ),
            (
                r#"{"event":"tunnel_open","target":"g.example:443"}"#,
                LogEvent::TunnelOpen { target: own("g.example:443") },
            ),
            (
                r#"{"event":"tunnel_close","target":"g.example:443","total_bytes":12,"duration_ms":1.5}"#,
                LogEvent::TunnelClose { target: own("g.example:443"), bytes: 12 },
            ),
            (
                r#"{"event":"anomaly","method":"CONNECT","target":"h.example:443","scanner":"tls_intercept","reason":"TLS MITM interception active","score":0}"#,
                LogEvent::Intercepted { target: own("h.example:443") },
            ),
            (r#"{"event":"anomaly","scanner":"dlp","reason":"x"}"#, LogEvent::Other { event: own("anomaly") }),
            (
                r#"{"event":"forward_http","method":"GET","url":"http://h.example:8080/x","status_code":200,"size_bytes":5,"duration_ms":0.3}"#,
                LogEvent::ForwardHttp { host: Some(own("h.example")), method: own("GET"), status: 200, bytes: 5 },
            ),
            (
                r#"{"event":"config_reload","status":"success","detail":"mode=strict","config_hash":"cd"}"#,
                LogEvent::ConfigReload { status: own("success"), hash: own("cd") },
            ),
            (
                r#"{"level":"error","event":"error","method":"CONFIG_RELOAD","resource":"/etc/pipelock/pipelock.yaml","error":"rejected: security downgrade from strict mode"}"#,
                LogEvent::ReloadRefused { reason: own("rejected: security downgrade from strict mode") },
            ),
            ("pipelock: config reload failed: parsing: x", LogEvent::ReloadRefused { reason: own("parsing: x") }),
            (
                r#"{"event":"error","method":"close","error":"use of closed network connection"}"#,
                LogEvent::Error { method: own("close"), error: own("use of closed network connection") },
            ),
            (r#"{"event":"shutdown","reason":"signal"}"#, LogEvent::Shutdown),
            (
                r#"{"event":"dlp_warn","pattern":"JWT Token","url":"https://h/?t=secret"}"#,
                LogEvent::Other { event: own("dlp_warn") },
            ),
        ] {
            assert_eq!(LogEvent::parse(line), Some(expected), "{line}");
        }
    }

    #[test]
    fn what_is_no_event_is_nothing() {
        for line in
            ["", "WARNING: fetch_proxy.listen: x", "{", "{}", "[]", "{\"event\":1}", "{\"event\":\"error\"", "null"]
        {
            assert_eq!(LogEvent::parse(line), None, "{line}");
        }
        assert_eq!(LogEvent::parse(&format!("{{\"event\":\"x\",\"pad\":\"{}\"}}", "a".repeat(LINE_BYTES_MAX))), None);
        assert_eq!(LogEvent::parse(&format!("{{\"event\":\"x\",\"deep\":{}", "[".repeat(60_000))), None);
    }

    #[test]
    fn text_of_the_agents_is_cut_and_cannot_move_a_cursor() {
        let line = format!(
            r#"{{"event":"blocked","method":"X","target":"{}:443","scanner":"allowlist","reason":"\u001b[2J\u202e{}"}}"#,
            "h".repeat(3000),
            "r".repeat(3000)
        );
        let Some(LogEvent::Blocked { host: Some(host), reason, .. }) = LogEvent::parse(&line) else { panic!() };
        assert_eq!((host.chars().count(), reason.chars().count()), (HOST_CHARS_MAX, TEXT_CHARS_MAX));
        assert!(reason.starts_with("\u{fffd}[2J\u{fffd}r"), "{reason}");
    }

    proptest! {
        #[test]
        fn no_line_panics(line in any::<String>(), target in "[\\[\\]:@/a-z0-9.]{0,40}", url in "[:/@?#a-z0-9\\[\\]]{0,40}") {
            let _ = LogEvent::parse(&line);
            let _ = LogEvent::parse(&serde_json::json!({"event": "blocked", "target": target, "url": url}).to_string());
        }
    }
}
