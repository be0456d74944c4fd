//! Upstreams and paths of routes: texts that become part of a URL, read once and strictly.

use super::Upstream;
use super::host::Host;
use cred_proxy::allow::{Allow, AllowError};
use cred_proxy::path::normalise;

/// Bytes of a path or a pattern.
const PATH_BYTES_MAX: usize = 256;

/// Names of the sidecars of a bottle, which lead nowhere else.
pub(super) const SIDECARS: [&str; 6] =
    ["pipelock", "route-pipelock", cred_proxy::config::NAME, "git-gate", "supervise", "localhost"];

impl Upstream {
    /// Reads `https://host[:port][/base]` or the same with `http`. Errors say what may not stand there.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("it must begin with https:// or http://")?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("it must begin with https:// or http://".to_owned()),
        };
        if rest.contains(['?', '#']) {
            return Err("it cannot have a query or a fragment".to_owned());
        }
        let (authority, base) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if authority.contains('@') {
            return Err("it cannot hold a user or a password; name the credential in `token_ref`".to_owned());
        }
        if authority.starts_with('[') {
            return Err("IPv6 addresses are not supported".to_owned());
        }
        let (host, port) = match authority.split_once(':') {
            None => (authority, if https { 443 } else { 80 }),
            Some((host, port)) => (host, read_port(port)?),
        };
        let host = Host::parse(host).map_err(|error| error.to_string())?;
        if SIDECARS.contains(&host.as_str()) {
            return Err(format!("{host} is inside the bottle"));
        }
        if !base.is_empty() {
            segments(base)?;
        }
        let base = base.strip_suffix('/').unwrap_or(base);
        Ok(Self { https, host, port, base: base.to_owned() })
    }
}

/// The path of a route. It begins and ends with `/`.
pub(super) fn route_path(text: &str) -> Result<(), String> {
    if !text.starts_with('/') || !text.ends_with('/') {
        return Err(format!("it must begin and end with `/`: write `/{}/`", text.trim_matches('/')));
    }
    if text.contains('*') {
        return Err("it is a prefix, which takes no `*`".to_owned());
    }
    segments(text)
}

/// A pattern of what a route lets pass, as cred-proxy reads it.
pub(super) fn pattern(text: &str) -> Result<(), String> {
    if text.len() > PATH_BYTES_MAX {
        return Err("it can have 256 characters at most".to_owned());
    }
    match Allow::parse(text) {
        Ok(_) => Ok(()),
        Err(AllowError::NotMethodAndPath) => Err("write a method and a path: GET /v1/models/**".to_owned()),
        Err(AllowError::Path(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn read_port(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port != 0);
    port.ok_or_else(|| "the port must be a number from 1 to 65535".to_owned())
}

/// A path that begins with `/`: plain segments, each with one spelling, as cred-proxy compares them byte by byte.
fn segments(path: &str) -> Result<(), String> {
    if path.len() > PATH_BYTES_MAX {
        return Err("its path can have 256 characters at most".to_owned());
    }
    match normalise(path) {
        Ok(normal) if normal == path && !path.contains('%') => Ok(()),
        Ok(_) => Err("the path has a percent-encoding".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_read_or_refused_with_the_reason() {
        for (text, expected) in [
            ("https://api.example.org", Ok("true api.example.org 443 ")),
            ("https://API.example.org/", Ok("true api.example.org 443 ")),
            ("HTTP://10.0.0.1:8080/base/v1/", Ok("false 10.0.0.1 8080 /base/v1")),
            ("http://api.example.org", Ok("false api.example.org 80 ")),
            ("api.example.org", Err("begin with https://")),
            ("ftp://api.example.org", Err("begin with https://")),
            ("https://", Err("1 to 253")),
            ("https://u:p@api.example.org", Err("token_ref")),
            ("https://api.example.org/?a", Err("query")),
            ("https://api.example.org#a", Err("query")),
            ("https://api.example.org:0", Err("65535")),
            ("https://api.example.org:", Err("65535")),
            ("https://api.example.org:+1", Err("65535")),
            ("https://api.example.org:65536", Err("65535")),
            ("https://api.example.org/a/../b", Err("dot segment")),
            ("https://api.example.org//a", Err("empty segment")),
            ("https://api.example.org/a//", Err("empty segment")),
            ("https://api.example.org/a b", Err("must be encoded")),
            ("https://api.example.org/%2e%2e", Err("dot segment")),
            ("https://api.example.org/%41", Err("percent-encoding")),
            ("https://api.example.org/a;b", Err("parameters")),
            ("https://api.example.org\\@evil.org", Err("token_ref")),
            ("https://[::1]/", Err("IPv6")),
            ("https://*.example.org/", Err("letters, digits")),
            ("http://cred-proxy:9099/", Err("inside the bottle")),
            ("http://localhost/", Err("inside the bottle")),
        ] {
            match (Upstream::parse(text), expected) {
                (Ok(u), Ok(shown)) => assert_eq!(format!("{} {} {} {}", u.https, u.host, u.port, u.base), shown),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }

    #[test]
    fn paths_of_routes_begin_and_end_with_a_slash() {
        for good in ["/", "/a/", "/a/b-c_d.e~/"] {
            assert_eq!(route_path(good), Ok(()), "{good}");
        }
        for (bad, part) in [
            ("a/", "write `/a/`"),
            ("/a", "write `/a/`"),
            ("", "write"),
            ("//", "empty segment"),
            ("/a//b/", "empty segment"),
            ("/a/../", "dot segment"),
            ("/./", "dot segment"),
            ("/a b/", "must be encoded"),
            ("/a?/", "must be encoded"),
            ("/a%2fb/", "encoded slash"),
            ("/a%20b/", "percent-encoding"),
            ("/a;b/", "parameters"),
            ("/*/", "takes no `*`"),
            ("/\u{e4}/", "must be encoded"),
        ] {
            let error = route_path(bad).unwrap_err();
            assert!(error.contains(part), "{bad}: {error}");
        }
        assert!(route_path(&format!("/{}/", "a".repeat(254))).is_ok());
        assert!(route_path(&format!("/{}/", "a".repeat(255))).is_err());
    }

    #[test]
    fn patterns_are_a_method_and_a_path() {
        for good in
            ["GET /", "POST /v1/messages", "GET /v1/models/**", "* /**", "PROPFIND /*/a/", "GET **/info/refs?service=x"]
        {
            assert_eq!(pattern(good), Ok(()), "{good}");
        }
        for bad in [
            "GET",
            "/v1",
            "get /v1",
            "GET v1",
            "GET /a//b",
            "GET /../a",
            "GET /a*",
            "GET /***",
            "CONNECT /",
            "TRACE /**",
            " /a",
            "GET /a b",
            "GET /a#b",
        ] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }
}
