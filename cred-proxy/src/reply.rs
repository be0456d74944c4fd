//! The head of a reply on its way to the agent: what concerns one hop and what would make the agent a holder of state at
//! the upstream is dropped, what points back at the upstream points at the route, the credential is masked. PURE.

use crate::address::Upstream;
use crate::decode::Coding;
use crate::inject::{is_hop_by_hop, named_by_connection};
use crate::refuse::Refusal;
use crate::table::Route;
use bottle_sidecar::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// Does not pass: sessions, and invitations to come by another way.
const DROPPED: &[&str] = &["set-cookie", "set-cookie2", "alt-svc", "refresh", "x-accel-redirect"];

/// Of no use, or wrong, once a body has been decoded.
const OF_CODED: &[&str] =
    &["content-encoding", "content-length", "content-md5", "digest", "content-digest", "repr-digest"];

/// The head of a reply for the agent.
#[derive(Debug)]
pub struct ReplyHead {
    /// The headers.
    pub headers: HeaderMap,
    /// How the upstream's body has to be decoded.
    pub coding: Option<Coding>,
}

/// What of a reply's head passes, or why the reply does not.
pub fn reply_head(route: &Route, status: StatusCode, upstream: HeaderMap) -> Result<ReplyHead, Refusal> {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Refusal::Upstream);
    }
    // Where such a body ends, two readers may see differently (RFC 9112, 6.3).
    if upstream.contains_key(header::TRANSFER_ENCODING) && upstream.contains_key(header::CONTENT_LENGTH) {
        return Err(Refusal::Upstream);
    }
    let coding = if route.credential.is_some() { coding_of(status, &upstream)? } else { None };
    let mut headers = reply_headers(route, upstream);
    if coding.is_some() {
        OF_CODED.iter().for_each(|name| drop(headers.remove(*name)));
        // The same content in other bytes (RFC 9110, 8.8.3.3).
        if let Some(tag) = headers.get_mut(header::ETAG)
            && !tag.as_bytes().starts_with(b"W/")
        {
            *tag = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).unwrap_or(tag.clone());
        }
    }
    Ok(ReplyHead { headers, coding })
}

/// The headers that pass, masked.
pub fn reply_headers(route: &Route, mut headers: HeaderMap) -> HeaderMap {
    let of_this_hop = named_by_connection(&headers);
    let trailers = announced_trailers(&headers);
    // A length is of one hop only where the coding is: without one it is the length of what is passed on.
    let keeps_length = !headers.contains_key(header::TRANSFER_ENCODING);
    let is_dropped = |name: &HeaderName| match name {
        &header::CONTENT_LENGTH => !keeps_length,
        _ => is_hop_by_hop(name) || of_this_hop.contains(name) || DROPPED.contains(&name.as_str()),
    };
    let dropped: Vec<HeaderName> = headers.keys().filter(|name| is_dropped(name)).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
    for (name, value) in &mut headers {
        if matches!(*name, header::LOCATION | header::CONTENT_LOCATION)
            && let Some(location) = back_to_route(route, value)
        {
            *value = location;
        }
        mask(route, value);
    }
    if headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        // Of a reply without a body nobody has looked at it: two of them are the first.
        let first = headers.get(header::CONTENT_LENGTH).cloned();
        first.and_then(|length| headers.insert(header::CONTENT_LENGTH, length));
    }
    trailers.and_then(|names| headers.insert(header::TRAILER, names));
    headers
}

/// Names that the upstream announces for its trailers and that pass, as they stand in a header.
fn announced_trailers(upstream: &HeaderMap) -> Option<HeaderValue> {
    let values = upstream.get_all(header::TRAILER).into_iter();
    let names = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim);
    let passing: Vec<&str> = names.filter(|name| !DROPPED.iter().any(|own| own.eq_ignore_ascii_case(name))).collect();
    if passing.is_empty() { None } else { HeaderValue::from_str(&passing.join(", ")).ok() }
}

/// Trailers for the agent.
pub fn reply_trailers(route: &Route, mut trailers: HeaderMap) -> HeaderMap {
    for name in DROPPED {
        trailers.remove(*name);
    }
    trailers.values_mut().for_each(|value| mask(route, value));
    trailers
}

fn mask(route: &Route, value: &mut HeaderValue) {
    if let Some(credential) = &route.credential
        && credential.forms.is_in(value.as_bytes())
    {
        // Fill characters are visible ASCII, so that the masked value is one as well; if ever not, nothing is safe.
        let masked = HeaderValue::from_bytes(&credential.forms.masked(value.as_bytes()));
        *value = masked.unwrap_or(HeaderValue::from_static(""));
    }
}

/// How content is coded, in which nothing could be found; refused where that cannot be undone.
fn coding_of(status: StatusCode, headers: &HeaderMap) -> Result<Option<Coding>, Refusal> {
    let others = |name, plain: &'static [u8]| {
        let values = headers.get_all(name).into_iter();
        let codings = values.flat_map(|value: &HeaderValue| value.as_bytes().split(|byte| *byte == b','));
        let codings = codings.map(<[u8]>::trim_ascii);
        codings.filter(move |coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(plain))
    };
    if others(header::TRANSFER_ENCODING, b"chunked").next().is_some() {
        return Err(Refusal::Encoded);
    }
    let mut codings = others(header::CONTENT_ENCODING, b"identity");
    let Some(first) = codings.next() else { return Ok(None) };
    // Part of an encoded body cannot be decoded.
    if codings.next().is_some() || status == StatusCode::PARTIAL_CONTENT {
        return Err(Refusal::Encoded);
    }
    Coding::of(first).map(Some).ok_or(Refusal::Encoded)
}

/// A place below the upstream's base, as a path of the route; anything else is left as it is.
fn back_to_route(route: &Route, location: &HeaderValue) -> Option<HeaderValue> {
    let path = path_at(&route.upstream, location.to_str().ok()?)?;
    let rest = path.strip_prefix(route.upstream.base.as_str())?;
    let rest = match rest.as_bytes().first() {
        Some(b'/') => &rest[1..],
        None | Some(b'?' | b'#') => rest,
        Some(_) => return None,
    };
    HeaderValue::from_str(&format!("{}{rest}", route.path)).ok()
}

/// The path (with query and fragment) of a location at this upstream.
fn path_at<'a>(upstream: &Upstream, location: &'a str) -> Option<&'a str> {
    let scheme = upstream.origin.scheme;
    let after_scheme = match location.split_once("://") {
        Some((own, rest)) if own.eq_ignore_ascii_case(scheme.as_str()) => rest,
        _ => match location.strip_prefix("//") {
            Some(rest) => rest,
            None => return location.starts_with('/').then_some(location),
        },
    };
    let end = after_scheme.find(['/', '?', '#']).unwrap_or(after_scheme.len());
    let (authority, path) = after_scheme.split_at(end);
    (Authority::parse(authority, scheme.port())? == upstream.origin.authority).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;
    use crate::config::{Auth, Config};
    use crate::table::Table;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn route(upstream: &str, auth: Auth) -> Arc<Route> {
        let route = crate::config::Route {
            path: "/api/".into(),
            upstream: upstream.into(),
            secret: (auth != Auth::None).then(|| "key".into()),
            auth,
            inspected: false,
            allow: vec![],
        };
        let config = Config { routes: vec![route], ..Config::closed(([127, 0, 0, 1], 0).into()) };
        let secrets = BTreeMap::from([("key".into(), Secret::new("s3cret-token".into()))]);
        Table::parse(&config, &secrets).unwrap().routes[0].clone()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_location_at_the_upstream_leads_to_the_route() {
        for (upstream, location, wanted) in [
            ("https://a.example", "https://a.example/x?y=1#z", "/api/x?y=1#z"),
            ("https://a.example", "HTTPS://A.Example:443/x", "/api/x"),
            ("https://a.example", "https://a.example", "/api/"),
            ("https://a.example", "https://a.example?q", "/api/?q"),
            ("https://a.example", "//a.example/x", "/api/x"),
            ("https://a.example", "/x", "/api/x"),
            ("https://a.example", "x/y", "x/y"),
            ("https://a.example", "https://b.example/x", "https://b.example/x"),
            ("https://a.example", "http://a.example/x", "http://a.example/x"),
            ("https://a.example", "https://a.example:8443/x", "https://a.example:8443/x"),
            ("https://a.example", "https://a.example.evil/x", "https://a.example.evil/x"),
            ("https://a.example", "https://a.example@evil/x", "https://a.example@evil/x"),
            ("https://a.example/base", "https://a.example/base/x", "/api/x"),
            ("https://a.example/base", "/base", "/api/"),
            ("https://a.example/base", "/basement", "/basement"),
            ("https://a.example/base", "/other", "/other"),
        ] {
            let route = route(upstream, Auth::None);
            let sent = reply_headers(&route, headers(&[("location", location)]));
            assert_eq!(sent["location"], wanted, "{upstream} {location}");
        }
    }

    #[test]
    fn what_passes_and_what_does_not() {
        let route = route("https://a.example", Auth::Bearer);
        for (name, passes) in [
            ("content-type", true),
            ("etag", true),
            ("retry-after", true),
            ("content-length", true),
            ("anthropic-ratelimit-tokens-remaining", true),
            ("set-cookie", false),
            ("connection", false),
            ("keep-alive", false),
            ("alt-svc", false),
            ("x-hop", false),
        ] {
            let upstream = headers(&[("connection", "x-hop"), (name, "1")]);
            let sent = reply_headers(&route, upstream);
            assert_eq!(sent.contains_key(name), passes, "{name}");
        }
        let both = headers(&[("content-length", "1"), ("transfer-encoding", "chunked")]);
        assert!(reply_headers(&route, both).is_empty());
        let twice = headers(&[("content-length", "1"), ("content-length", "2"), ("age", "1"), ("age", "2")]);
        let sent = reply_headers(&route, twice);
        assert_eq!(["content-length", "age"].map(|name| sent.get_all(name).iter().count()), [1, 2]);
        assert_eq!(sent["content-length"], "1");
    }

    #[test]
    fn the_credential_is_masked_in_headers_and_trailers() {
        let route = route("https://a.example", Auth::Bearer);
        let upstream =
            headers(&[("x-echo", "Bearer s3cret-token"), ("location", "/x?k=s3cret-token"), ("x-other", "token")]);
        let sent = reply_headers(&route, upstream);
        assert_eq!(sent["x-echo"], "Bearer ************");
        assert_eq!(sent["location"], "/api/x?k=************");
        assert_eq!(sent["x-other"], "token");
        let trailers = reply_trailers(&route, headers(&[("x-echo", "s3cret-token"), ("set-cookie", "a=b")]));
        assert_eq!(trailers, headers(&[("x-echo", "************")]));
    }

    #[test]
    fn a_coded_reply_is_decoded_or_refused_where_a_credential_could_be_in_it() {
        for (name, value, wanted) in [
            ("content-encoding", "identity", Ok(None)),
            ("content-encoding", "", Ok(None)),
            ("content-encoding", "gzip", Ok(Some(Coding::Gzip))),
            ("content-encoding", "identity, br", Ok(Some(Coding::Brotli))),
            ("content-encoding", "gzip, br", Err(Refusal::Encoded)),
            ("content-encoding", "compress", Err(Refusal::Encoded)),
            ("transfer-encoding", "chunked", Ok(None)),
            ("transfer-encoding", "gzip, chunked", Err(Refusal::Encoded)),
        ] {
            let framing = if name == "transfer-encoding" { ("server", "a") } else { ("content-length", "5") };
            let upstream = headers(&[(name, value), framing, ("etag", "\"a\""), ("digest", "x")]);
            let masked = reply_head(&route("https://a.example", Auth::Bearer), StatusCode::OK, upstream.clone());
            assert_eq!(masked.as_ref().map(|head| head.coding).map_err(|refusal| *refusal), wanted, "{name}: {value}");
            if let Ok(ReplyHead { headers, coding: Some(_) }) = masked {
                assert_eq!(headers, self::headers(&[("etag", "W/\"a\"")]), "{value}");
            }
            let open = reply_head(&route("https://a.example", Auth::None), StatusCode::OK, upstream.clone()).unwrap();
            assert_eq!((open.coding, open.headers["etag"].to_str().unwrap()), (None, "\"a\""));
        }
        let both = headers(&[("transfer-encoding", "chunked"), ("content-length", "5")]);
        for auth in [Auth::Bearer, Auth::None] {
            let refused = reply_head(&route("https://a.example", auth), StatusCode::OK, both.clone());
            assert_eq!(refused.err(), Some(Refusal::Upstream));
        }
        let part = headers(&[("content-encoding", "gzip")]);
        let refused = reply_head(&route("https://a.example", Auth::Bearer), StatusCode::PARTIAL_CONTENT, part);
        assert_eq!(refused.err(), Some(Refusal::Encoded));
        let switched =
            reply_head(&route("https://a.example", Auth::None), StatusCode::SWITCHING_PROTOCOLS, HeaderMap::new());
        assert_eq!(switched.err(), Some(Refusal::Upstream));
    }

    #[test]
    fn announced_trailers_pass_without_those_that_do_not() {
        let route = route("https://a.example", Auth::Bearer);
        let sent = reply_headers(&route, headers(&[("trailer", "X-Sum, Set-Cookie"), ("trailer", "grpc-status")]));
        assert_eq!(sent, headers(&[("trailer", "X-Sum, grpc-status")]));
        assert!(reply_headers(&route, headers(&[("trailer", "set-cookie")])).is_empty());
    }
}
