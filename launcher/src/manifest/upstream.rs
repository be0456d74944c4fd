//! Upstreams and paths of routes: texts that become part of a URL, read once and strictly.

use super::Upstream;
use super::host::Host;

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
        let base = base.strip_suffix('/').unwrap_or(base);
        if !base.is_empty() {
            segments(base)?;
        }
        Ok(Self { https, host, port, base: base.to_owned() })
    }
}

/// The path of a route. It begins and ends with `/`.
pub(super) fn route_path(text: &str) -> Result<(), String> {
    if !text.starts_with('/') || !text.ends_with('/') {
        return Err(format!("it must begin and end with `/`: write `/{}/`", text.trim_matches('/')));
    }
    if text.len() > PATH_BYTES_MAX {
        return Err("it can have 256 characters at most".to_owned());
    }
    if text == "/" { Ok(()) } else { segments(&text[..text.len() - 1]) }
}

/// A pattern of what a route lets pass: `METHOD /path`, where `*` is one segment and `**` any number.
pub(super) fn pattern(text: &str) -> Result<(), String> {
    let (method, path) = text.split_once(' ').ok_or("write a method and a path: GET /v1/models/**")?;
    match method {
        "*" => {}
        "CONNECT" | "TRACE" => return Err(format!("{method} never passes")),
        _ if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase()) => {
            return Err("the method is written in capitals, or `*` for any".to_owned());
        }
        _ => {}
    }
    if path.len() > PATH_BYTES_MAX {
        return Err("it can have 256 characters at most".to_owned());
    }
    let Some(rest) = path.strip_prefix('/') else {
        return Err("the path begins with `/`, where the route's path ends".to_owned());
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() {
        return Ok(());
    }
    for part in rest.split('/') {
        match part {
            "*" | "**" => {}
            _ if part.contains('*') => return Err("`*` and `**` stand for whole segments alone".to_owned()),
            _ => segment(part)?,
        }
    }
    Ok(())
}

fn read_port(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port != 0);
    port.ok_or_else(|| "the port must be a number from 1 to 65535".to_owned())
}

/// The segments of a path that begins with `/` and does not end with one.
fn segments(path: &str) -> Result<(), String> {
    if path.len() > PATH_BYTES_MAX {
        return Err("its path can have 256 characters at most".to_owned());
    }
    path.split('/').skip(1).try_for_each(segment)
}

fn segment(part: &str) -> Result<(), String> {
    match part {
        "" => Err("`//` cannot stand in it".to_owned()),
        "." | ".." => Err(format!("`{part}` cannot stand in it")),
        _ if part.bytes().all(plain) => Ok(()),
        _ => Err("only letters, digits and -._~:@!$&'()+,;= can stand in a path".to_owned()),
    }
}

fn plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~:@!$&'()+,;=".contains(&b)
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
            ("https://api.example.org/a/../b", Err("`..`")),
            ("https://api.example.org//a", Err("`//`")),
            ("https://api.example.org/a//", Err("`//`")),
            ("https://api.example.org/a b", Err("only letters")),
            ("https://api.example.org/%2e%2e", Err("only letters")),
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
            ("//", "`//`"),
            ("/a//b/", "`//`"),
            ("/a/../", "`..`"),
            ("/./", "`.`"),
            ("/a b/", "only"),
            ("/a?/", "only"),
            ("/a%2fb/", "only"),
            ("/*/", "only"),
        ] {
            let error = route_path(bad).unwrap_err();
            assert!(error.contains(part), "{bad}: {error}");
        }
        assert!(route_path(&format!("/{}/", "a".repeat(254))).is_ok());
        assert!(route_path(&format!("/{}/", "a".repeat(255))).is_err());
    }

    #[test]
    fn patterns_are_a_method_and_a_path() {
        for good in ["GET /", "POST /v1/messages", "GET /v1/models/**", "* /**", "PROPFIND /*/a/", "HEAD /**/info/refs"]
        {
            assert_eq!(pattern(good), Ok(()), "{good}");
        }
        for bad in [
            "GET",
            "/v1",
            "get /v1",
            "GET v1",
            "GET  /v1",
            "GET /a//b",
            "GET /../a",
            "GET /a*",
            "GET /***",
            "GET /a?b=c",
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
