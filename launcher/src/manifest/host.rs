//! Host names as a manifest may write them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;

/// A host name in lower case without a trailing dot (RFC 1123 letters, digits and hyphens), or an IP literal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(String);

/// A host, or `*.` and a host: that host's subdomains at any depth, and the host itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern {
    host: Host,
    subdomains: bool,
}

/// Why a text is not a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a host name: {reason}")]
pub struct NotAHost {
    text: String,
    reason: &'static str,
}

impl Host {
    /// Reads a host name. Errors: empty, longer than 253 bytes, a label that is empty, over 63 bytes, or begins or ends
    /// with a hyphen, and every byte outside `[A-Za-z0-9.-]` (a port, a scheme or a path is named as such).
    pub fn parse(text: &str) -> Result<Self, NotAHost> {
        let bad = |reason| NotAHost { text: text.to_owned(), reason };
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.contains("://") {
            return Err(bad("write the host alone, without a scheme"));
        }
        if name.contains('/') {
            return Err(bad("write the host alone, without a path"));
        }
        if name.contains(':') {
            return Err(bad("write the host alone, without a port (pipelock's list has none)"));
        }
        if name.is_empty() || name.len() > 253 {
            return Err(bad("it must have 1 to 253 characters"));
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.') {
            return Err(bad("only letters, digits, hyphens and dots can stand in it"));
        }
        if name.split('.').any(|l| l.is_empty() || l.len() > 63 || l.starts_with('-') || l.ends_with('-')) {
            return Err(bad("each part between dots must have 1 to 63 characters and no hyphen at its ends"));
        }
        // The system's resolver reads `127.1`, `0177.0.0.1` and `2130706433` as addresses, and they would hide from
        // every comparison of hosts.
        let last = name.rsplit('.').next().unwrap_or_default();
        let number = last.bytes().all(|b| b.is_ascii_digit())
            || last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
        if number && name.parse::<Ipv4Addr>().is_err() {
            return Err(bad("write an IPv4 address as four decimal numbers"));
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HostPattern {
    /// Reads `host` or `*.host`. A bare `*` and a star anywhere else are errors.
    pub fn parse(text: &str) -> Result<Self, NotAHost> {
        match text.strip_prefix("*.") {
            Some(rest) => Host::parse(rest).map(|host| Self { host, subdomains: true }),
            None if text.contains('*') => {
                Err(NotAHost { text: text.to_owned(), reason: "a star can only stand as a leading \"*.\"" })
            }
            None => Host::parse(text).map(|host| Self { host, subdomains: false }),
        }
    }

    /// The host, without the star.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Does this pattern let everything through that `other` does?
    pub fn covers_all(&self, other: &Self) -> bool {
        if other.subdomains { self.subdomains && self.covers(&other.host) } else { self.covers(&other.host) }
    }

    /// Does this pattern let `host` through? (`*.d` covers `d` as pipelock's allowlist has it.)
    pub fn covers(&self, host: &Host) -> bool {
        if self.host == *host {
            return true;
        }
        self.subdomains && host.0.strip_suffix(&self.host.0).is_some_and(|head| head.ends_with('.'))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.subdomains { write!(f, "*.{}", self.host) } else { write!(f, "{}", self.host) }
    }
}

impl TryFrom<String> for Host {
    type Error = NotAHost;
    fn try_from(text: String) -> Result<Self, NotAHost> {
        Self::parse(&text)
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.0
    }
}

impl TryFrom<String> for HostPattern {
    type Error = NotAHost;
    fn try_from(text: String) -> Result<Self, NotAHost> {
        Self::parse(&text)
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_or_refused_with_the_reason() {
        for (text, expected) in [
            ("Example.ORG", Ok("example.org")),
            ("example.org.", Ok("example.org")),
            ("10.0.0.1", Ok("10.0.0.1")),
            ("a.b1", Ok("a.b1")),
            ("0xample.org", Ok("0xample.org")),
            ("127.1", Err("four decimal")),
            ("0177.0.0.1", Err("four decimal")),
            ("2130706433", Err("four decimal")),
            ("127.0.0.0x1", Err("four decimal")),
            ("256.0.0.1", Err("four decimal")),
            ("", Err("1 to 253")),
            ("https://example.org", Err("scheme")),
            ("example.org:443", Err("port")),
            ("example.org/x", Err("path")),
            ("exa mple.org", Err("letters")),
            ("-a.org", Err("hyphen")),
            ("a..org", Err("between dots")),
            ("ex\u{e4}mple.org", Err("letters")),
        ] {
            match (Host::parse(text), expected) {
                (Ok(host), Ok(name)) => assert_eq!(host.as_str(), name),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }

    #[test]
    fn a_star_covers_subdomains_and_the_apex_alone() {
        let pattern = HostPattern::parse("*.example.org").unwrap();
        for (host, covered) in
            [("example.org", true), ("a.example.org", true), ("a.b.example.org", true), ("badexample.org", false)]
        {
            assert_eq!(pattern.covers(&Host::parse(host).unwrap()), covered, "{host}");
        }
        for (text, covered) in [
            ("*.example.org", true),
            ("*.a.example.org", true),
            ("a.example.org", true),
            ("*.org", false),
            ("*.badexample.org", false),
        ] {
            assert_eq!(pattern.covers_all(&HostPattern::parse(text).unwrap()), covered, "{text}");
        }
        let alone = HostPattern::parse("example.org").unwrap();
        assert!(!alone.covers_all(&pattern) && alone.covers_all(&alone));
        assert!(HostPattern::parse("*").is_err());
        assert!(HostPattern::parse("a.*.org").is_err());
    }
}
