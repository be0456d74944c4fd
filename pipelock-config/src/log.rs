//! One line of pipelock's log, as far as the keeper acts on it or shows it.
//!
//! The agent chooses hosts, paths and methods, so it writes part of every line: all text is cut to a length, and stripped
//! of what could move a terminal's cursor or turn its writing around. What is no event of pipelock's is `None`; nothing
//! panics. Of a URL only the host is kept: pipelock writes some whole, and what the agent tried to carry out stands in
//! their paths.

use line::Line;

mod line;
#[cfg(test)]
mod tests;

/// Of a line as long as this, or longer, only the beginning is read. Whoever cuts pipelock's output into lines must not
/// cut them shorter. An agent that asks for a URL of 200 KB makes lines of 200 KB.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// A host is cut to this many characters.
pub const HOST_CHARS_MAX: usize = 255;

/// Other text is cut to this many characters.
pub const TEXT_CHARS_MAX: usize = 512;

/// The reason of a refusal whose own words could not be read.
pub const REASON_TOO_LONG: &str = "refused, line too long";

/// What pipelock writes to stderr when it cannot read a changed file.
const RELOAD_FAILED: &str = "pipelock: config reload failed: ";

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
    /// Reads a line of pipelock's stdout or stderr, whole or cut at [`LINE_BYTES_MAX`] or later.
    pub fn parse(line: &str) -> Option<Self> {
        if line.len() >= LINE_BYTES_MAX {
            return line::beginning(line);
        }
        let line = line.trim();
        if let Some(reason) = line.strip_prefix(RELOAD_FAILED) {
            return Some(Self::ReloadRefused { reason: line::text(reason) });
        }
        if !line.starts_with('{') {
            return None;
        }
        serde_json::from_str::<Line>(line).ok()?.event()
    }
}
