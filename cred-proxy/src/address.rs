//! Where upstreams and proxies are: URLs read once, into what connections and headers need. PURE.
//!
//! Stricter than a URL may be: no user information, no query, one spelling of everything.

use crate::path::normalise;
use bottle_sidecar::Authority;
use http::HeaderValue;

/// An upstream's address and the path below which its route lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Where connections go.
    pub origin: OriginName,
    /// Empty, or begins with `/` and does not end with one.
    pub base: String,
    /// The Host header: without the port where it is the scheme's own.
    pub host_header: HeaderValue,
}

/// What tells one pool of connections from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OriginName {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Host and port.
    pub authority: Authority,
    /// Does the proxy on the way open its TLS?
    pub inspected: bool,
}

/// How an upstream is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Upstream {
    /// Reads `https://host[:port][/base]`; `None` if it is anything else.
    pub fn parse(url: &str, inspected: bool) -> Option<Self> {
        let (scheme, rest) = match url.split_once("://")? {
            ("https", rest) => (Scheme::Https, rest),
            ("http", rest) => (Scheme::Http, rest),
            _ => return None,
        };
        let (authority, base) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        let authority = Authority::parse(authority, scheme.port())?;
        if base.contains('%') || normalise(base).as_deref() != Ok(base) {
            return None;
        }
        let base = base.strip_suffix('/').unwrap_or(base);
        let host_header = HeaderValue::from_str(&authority.host_header(scheme.port())).ok()?;
        Some(Self { origin: OriginName { scheme, authority, inspected }, base: base.into(), host_header })
    }
}

impl Scheme {
    /// The port where none is given.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// As it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A URL for a reason: a password in it, which is one reason to refuse it, must not be printed.
pub fn without_userinfo(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://..@{}", &url[..scheme], &url[at + 1..]),
        (None, Some(at)) => format!("..@{}", &url[at + 1..]),
        (_, None) => url.to_owned(),
        (Some(_), Some(_)) => "..".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_and_their_refused_neighbours() {
        for (url, wanted) in [
            ("https://a.example", Some(("a.example", 443, "", "a.example"))),
            ("https://A.example/", Some(("a.example", 443, "", "a.example"))),
            ("https://a.example:8443/base", Some(("a.example", 8443, "/base", "a.example:8443"))),
            ("https://a.example:443/base/v1/", Some(("a.example", 443, "/base/v1", "a.example"))),
            ("http://10.0.0.1:3000", Some(("10.0.0.1", 3000, "", "10.0.0.1:3000"))),
            ("https://[::1]:8443", Some(("::1", 8443, "", "[::1]:8443"))),
            ("https://", None),
            ("https://:443", None),
            ("https://a.example:0", None),
            ("https://a.example:+1", None),
            ("https://a.example:70000", None),
            ("https://user:pw@a.example", None),
            ("https://a.example/..", None),
            ("https://a.example//x", None),
            ("https://a.example/x//", None),
            ("https://a.example/?q", None),
            ("https://a.example/#f", None),
            ("https://a example", None),
            ("https://[::1", None),
            ("https://[a.example]", None),
            ("ftp://a.example", None),
            ("a.example", None),
        ] {
            let parsed = Upstream::parse(url, false);
            let seen = parsed.as_ref().map(|upstream| {
                let Authority { host, port } = &upstream.origin.authority;
                (host.as_str(), *port, upstream.base.as_str(), upstream.host_header.to_str().unwrap())
            });
            assert_eq!(seen, wanted, "{url}");
        }
    }
}
