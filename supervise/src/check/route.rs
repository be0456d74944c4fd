//! Routes: the form of path, upstream, scheme and patterns. cred-proxy reads them again, by its own rules.

use super::host::{apart, covers, lower, read};
use super::{ALLOW_MAX, Known, PATH_BYTES_MAX, PathFault, Quoted, Unfit, UpstreamFault};
use crate::wire::Route;

/// Bytes of a header's name.
const HEADER_BYTES_MAX: usize = 64;

/// Headers that frame a request, choose its form, or speak to one hop alone: a credential in one would break it, or worse.
const HEADERS_REFUSED: [&str; 21] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A route in its one spelling.
pub(super) fn form(route: &Route) -> Result<Route, Unfit> {
    path(&route.path).map_err(|fault| Unfit::Path { path: Quoted::new(&route.path), fault })?;
    let upstream = Upstream::read(&route.upstream)
        .map_err(|fault| Unfit::Upstream { upstream: Quoted::new(&route.upstream), fault })?;
    scheme(&route.scheme)?;
    let allow = allow(&route.allow)?;
    Ok(Route { path: route.path.clone(), upstream: upstream.text(), scheme: route.scheme.clone(), allow })
}

/// Holds a route of good form against the bottle.
pub(super) fn free(route: &Route, known: &Known) -> Result<(), Unfit> {
    let bad = |fault| Unfit::Upstream { upstream: Quoted::new(&route.upstream), fault };
    let host = Upstream::read(&route.upstream).map_err(bad)?.host;
    // Another route to the same host is nothing new; a remote's host is git-gate's, and a name of ours nobody's.
    let others = Known { route_hosts: Vec::new(), ..known.clone() };
    apart(&host, &others).map_err(|fault| bad(fault.into()))?;
    if let Some(by) = known.allowlist.iter().find(|listed| covers(&lower(listed), &host)) {
        return Err(Unfit::UpstreamReachable { host, by: by.clone() });
    }
    for other in &known.routes {
        if other.path == route.path && other.upstream.trim_end_matches('/') == route.upstream {
            let is_more = route.allow.iter().any(|pattern| !other.allow.contains(pattern));
            if is_more {
                continue;
            }
            return Err(Unfit::SameRoute(other.path.clone()));
        }
        if other.path.starts_with(&route.path) || route.path.starts_with(&other.path) {
            return Err(Unfit::PathTaken { path: route.path.clone(), taken: other.path.clone() });
        }
    }
    Ok(())
}

struct Upstream {
    host: String,
    port: u16,
    /// Without a slash at its end.
    base: String,
}

impl Upstream {
    const PORT: u16 = 443;

    fn read(text: &str) -> Result<Self, UpstreamFault> {
        if text.len() > PATH_BYTES_MAX + 1024 {
            return Err(PathFault::Long.into());
        }
        let rest = text.strip_prefix("https://").ok_or(UpstreamFault::NotHttps)?;
        if rest.contains(['?', '#']) {
            return Err(UpstreamFault::Query);
        }
        let (authority, base) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if authority.contains('@') {
            return Err(UpstreamFault::User);
        }
        if authority.contains('*') {
            return Err(UpstreamFault::Star);
        }
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) if !authority.starts_with('[') => (host, read_port(port)?),
            _ => (authority, Self::PORT),
        };
        let host = read(host)?;
        let base = base.strip_suffix('/').unwrap_or(base);
        if !base.is_empty() {
            segments(base)?;
        }
        Ok(Self { host, port, base: base.to_owned() })
    }

    fn text(&self) -> String {
        let Self { host, port, base } = self;
        if *port == Self::PORT { format!("https://{host}{base}") } else { format!("https://{host}:{port}{base}") }
    }
}

fn read_port(text: &str) -> Result<u16, UpstreamFault> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_digits && *port != 0).ok_or(UpstreamFault::Port)
}

fn path(path: &str) -> Result<(), PathFault> {
    if path == "/" {
        return Err(PathFault::Root);
    }
    let inner = path.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')).ok_or(PathFault::Slashes)?;
    segments(&format!("/{inner}"))
}

/// A path that begins with `/`: plain segments, each with one spelling.
fn segments(path: &str) -> Result<(), PathFault> {
    if path.len() > PATH_BYTES_MAX {
        return Err(PathFault::Long);
    }
    path.split('/').skip(1).try_for_each(segment)
}

fn segment(segment: &str) -> Result<(), PathFault> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()+,=:@".contains(&byte);
    match segment {
        "" => Err(PathFault::EmptySegment),
        "." | ".." => Err(PathFault::DotSegment),
        _ if segment.contains('*') => Err(PathFault::Star),
        _ if segment.bytes().all(is_plain) => Ok(()),
        _ => Err(PathFault::Character),
    }
}

fn scheme(text: &str) -> Result<(), Unfit> {
    let Some(name) = text.strip_prefix("header:") else {
        let is_one = ["Bearer", "token", "Basic", "none"].contains(&text);
        return if is_one { Ok(()) } else { Err(Unfit::Scheme(Quoted::new(text))) };
    };
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_name = (1..=HEADER_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_token);
    if !is_name || HEADERS_REFUSED.contains(&name.to_ascii_lowercase().as_str()) {
        return Err(Unfit::Header(Quoted::new(name)));
    }
    Ok(())
}

fn allow(patterns: &[String]) -> Result<Vec<String>, Unfit> {
    if patterns.is_empty() {
        return Err(Unfit::NoAllow);
    }
    if patterns.len() > ALLOW_MAX {
        return Err(Unfit::ManyAllow(patterns.len()));
    }
    for text in patterns {
        pattern(text).map_err(|fault| Unfit::Allow { pattern: Quoted::new(text), fault })?;
    }
    let mut patterns = patterns.to_vec();
    patterns.sort_unstable();
    patterns.dedup();
    Ok(patterns)
}

fn pattern(text: &str) -> Result<(), PathFault> {
    if text.len() > PATH_BYTES_MAX {
        return Err(PathFault::Long);
    }
    let (method, rest) = text.split_once(' ').ok_or(PathFault::NotMethodAndPath)?;
    let is_word = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    if method != "*" && (!is_word || ["CONNECT", "TRACE"].contains(&method)) {
        return Err(PathFault::Method);
    }
    let (path, query) = rest.split_once('?').map_or((rest, ""), |(path, query)| (path, query));
    let is_query = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@/?%".contains(&byte);
    if !query.bytes().all(is_query) {
        return Err(PathFault::Character);
    }
    let path = match path.strip_prefix('/') {
        Some(path) => path,
        None if path == "**" || path.starts_with("**/") => path,
        None => return Err(PathFault::NotMethodAndPath),
    };
    // A last slash is part of a pattern, and `/` alone is the route's own path.
    let inner = path.strip_suffix('/').unwrap_or(path);
    if inner.is_empty() {
        return if path.is_empty() { Ok(()) } else { Err(PathFault::EmptySegment) };
    }
    inner.split('/').filter(|segment| !["*", "**"].contains(segment)).try_for_each(segment)
}
