//! What a role of the world saw, one JSON line each on its standard output. The claims and the demo read these: a
//! promise is kept when the attacker's side saw nothing, whatever the agent believes.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Of a body or of raw bytes, no more than this is written down.
pub const PREFIX_BYTES_MAX: usize = 16 << 10;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Evidence {
    /// All sockets listen: `https` | `http` | `tcp` | `udp` -> addresses, in the order of the configuration.
    Ready {
        /// Where each listener is.
        listening: BTreeMap<String, Vec<SocketAddr>>,
    },
    /// An HTTP request.
    Request {
        /// Who sent it.
        peer: SocketAddr,
        /// The name asked for in TLS; absent without TLS.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sni: Option<String>,
        /// The `Host` header, or the authority of an absolute request.
        host: String,
        /// The method.
        method: String,
        /// Path and query as they came.
        path: String,
        /// The `Authorization` header.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        authorization: Option<String>,
        /// All headers by lower-case name; repeated ones are joined by `, `.
        headers: BTreeMap<String, String>,
        /// What came of the body.
        body_prefix: String,
        /// Bytes of the body, as far as they were read.
        body_bytes: u64,
    },
    /// A reply whose end never came, since the client went away first (or the host itself broke it off).
    Abandoned {
        /// Who had asked.
        peer: SocketAddr,
        /// The path asked for.
        path: String,
    },
    /// A ref was pushed to the forge.
    Pushed {
        /// Who pushed.
        peer: SocketAddr,
        /// The ref.
        name: String,
        /// What came of every file in that push.
        contents: Vec<String>,
    },
    /// A TCP connection came, whether or not bytes follow.
    Opened {
        /// Port it came to.
        port: u16,
        /// Who opened it.
        peer: SocketAddr,
    },
    /// Bytes that no request was made of.
    Received {
        /// `tcp`, `tls` or `udp`.
        protocol: String,
        /// Port they came to.
        port: u16,
        /// Who sent them.
        peer: SocketAddr,
        /// The bytes, as text as far as they are.
        prefix: String,
        /// How many came.
        bytes: u64,
    },
    /// A name was asked for.
    Asked {
        /// The name, without the last dot.
        name: String,
        /// Number of the record type (1: A, 28: AAAA).
        kind: u16,
        /// `udp` or `tcp`.
        protocol: String,
        /// Who asked.
        peer: SocketAddr,
    },
}

impl Evidence {
    /// Reads a line; `None` for anything else.
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// The line, with its newline.
    pub fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("evidence has string keys alone");
        line.push('\n');
        line
    }

    /// Does this text stand anywhere in it? For canaries.
    pub fn contains(&self, text: &str) -> bool {
        // Looked for in the escaped form, so that a canary with a quote in it is found as well.
        let escaped = serde_json::to_string(text).expect("a string is JSON");
        self.line().contains(escaped.trim_matches('"'))
    }
}

/// Bytes as they are written down: cut, and with a mark in place of what is no UTF-8.
pub fn prefix(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(PREFIX_BYTES_MAX)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{Evidence, PREFIX_BYTES_MAX, prefix};

    #[test]
    fn a_line_reads_back_and_is_searched_for_canaries() {
        let seen = Evidence::Received {
            protocol: "udp".to_owned(),
            port: 53,
            peer: "127.0.0.1:4000".parse().unwrap(),
            prefix: prefix(b"say \"canary\" \xff"),
            bytes: 15,
        };
        assert_eq!(Evidence::parse(&seen.line()), Some(seen.clone()));
        assert!(seen.contains("say \"canary\""));
        assert!(!seen.contains("another"));
        assert_eq!(Evidence::parse("{\"event\":\"unheard-of\"}"), None);
    }

    #[test]
    fn a_prefix_is_cut() {
        assert_eq!(prefix(&vec![b'a'; PREFIX_BYTES_MAX + 1]).len(), PREFIX_BYTES_MAX);
    }
}
