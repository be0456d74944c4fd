//! The headers that go to the upstream: the agent's without anything that could carry a credential of its own or mean
//! something to a hop, plus the route's credential. PURE.

use crate::table::{Route, Table};
use crate::websocket::{self, Upgrade};
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Headers of one hop (RFC 9110, 7.6.1), and what frames a body: each side has its own.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What says whence a request came, or makes an upstream read another path or method than the one that was permitted.
const MISLEADING: &[&str] = &[
    "cf-connecting-ip",
    "forwarded",
    "true-client-ip",
    "via",
    "x-client-ip",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
];

/// Credentials whose names [`names_credential`] would not recognise.
const CREDENTIALS: &[&str] = &[
    "authentication",
    "dpop",
    "ocp-apim-subscription-key",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-auth-email",
    "x-auth-key",
    "x-auth-user",
    "x-functions-key",
    "x-goog-iam-authority-selector",
    "x-signature",
];

/// Parts of a name that make it a credential's.
const CREDENTIAL_PARTS: &[&str] =
    &["authorization", "api-key", "api_key", "apikey", "cookie", "credential", "password", "secret"];

/// Is it a header of one hop?
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(&name.as_str())
}

/// Does the agent's own header of this name never pass, whatever the table says?
pub fn names_credential(name: &HeaderName) -> bool {
    let name = name.as_str();
    CREDENTIALS.contains(&name) || name.ends_with("token") || names_secret(name)
}

/// Has a name (in lower case) a part that makes it a credential's?
pub fn names_secret(name: &str) -> bool {
    CREDENTIAL_PARTS.iter().any(|part| name.contains(part))
}

/// The names that `Connection` declares to be of this hop.
pub fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).into_iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()
}

/// Names of an agent's trailers that it announces and that may pass: those that could be headers as well.
pub fn announced_trailers(table: &Table, agent: &HeaderMap) -> Vec<HeaderName> {
    if !agent.contains_key(header::TRAILER) {
        return Vec::new();
    }
    let of_this_hop = named_by_connection(agent);
    let values = agent.get_all(header::TRAILER).into_iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    names
        .filter(|name| passes(table, name) && !of_this_hop.contains(name) && !FRAMING.contains(&name.as_str()))
        .collect()
}

/// What passes of an agent's trailers, of which `announced` may.
pub fn request_trailers(announced: &[HeaderName], mut trailers: HeaderMap) -> HeaderMap {
    let others: Vec<HeaderName> = trailers.keys().filter(|name| !announced.contains(name)).cloned().collect();
    for name in others {
        trailers.remove(name);
    }
    trailers
}

/// What a trailer cannot be, as it decides how the message is read (RFC 9110, 6.5.1).
const FRAMING: &[&str] = &["cache-control", "content-encoding", "content-range", "content-type", "max-forwards"];

/// Names that none of the lists has, of which most requests are made: they need not be searched.
const PLAIN: &[HeaderName] = &[
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::USER_AGENT,
];

/// What each side has of its own. Replies are masked, so they must come whole and in the clear; `Expect` is answered here.
const OWN: &[HeaderName] = &[header::HOST, header::ACCEPT_ENCODING, header::EXPECT, header::IF_RANGE, header::RANGE];

/// Does a header of this name pass to the upstream?
fn passes(table: &Table, name: &HeaderName) -> bool {
    if PLAIN.contains(name) {
        return !table.injected.contains(name);
    }
    if OWN.contains(name) {
        return false;
    }
    let text = name.as_str();
    !(is_hop_by_hop(name)
        || names_credential(name)
        || table.injected.contains(name)
        || MISLEADING.contains(&text)
        || text.starts_with("x-forwarded")
        || text.starts_with("proxy-"))
}

/// The headers for the upstream.
pub fn request_headers(table: &Table, route: &Route, agent: &HeaderMap, upgrade: Upgrade) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(agent.len() + 3);
    each_request_header(table, route, agent, upgrade, |name, value| {
        headers.append(name, value.clone());
    });
    if upgrade == Upgrade::WebSocket {
        websocket::request_headers(&mut headers, route.credential.is_some());
    }
    headers
}

/// The same one after another, for whoever writes them at once; of a handshake those that any request has.
pub fn each_request_header(
    table: &Table,
    route: &Route,
    agent: &HeaderMap,
    upgrade: Upgrade,
    mut put: impl FnMut(&HeaderName, &HeaderValue),
) {
    let of_this_hop = named_by_connection(agent);
    put(&header::HOST, &route.upstream.host_header);
    for (name, value) in agent {
        if passes(table, name) && !of_this_hop.contains(name) {
            put(name, value);
        }
    }
    put(&header::ACCEPT_ENCODING, &HeaderValue::from_static("identity"));
    let trailers = announced_trailers(table, agent);
    if !trailers.is_empty() {
        let names = trailers.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
        HeaderValue::from_str(&names).iter().for_each(|names| put(&header::TRAILER, names));
    }
    if upgrade == Upgrade::None && takes_trailers(agent) {
        put(&header::TE, &HeaderValue::from_static("trailers"));
        put(&header::CONNECTION, &HeaderValue::from_static("te"));
    }
    if let Some(credential) = &route.credential {
        put(&credential.header, &credential.value);
    }
}

/// Does the agent say that it reads trailers?
fn takes_trailers(agent: &HeaderMap) -> bool {
    let values = agent.get_all(header::TE).into_iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    values.map(<[u8]>::trim_ascii).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;
    use crate::config::{Auth, Config};
    use std::collections::BTreeMap;

    fn table(auths: &[Auth]) -> Table {
        let routes = auths.iter().enumerate().map(|(index, auth)| crate::config::Route {
            path: format!("/{index}/"),
            upstream: "https://api.example.org:8443".into(),
            auth: auth.clone(),
            secret: (*auth != Auth::None).then(|| "key".into()),
            inspected: false,
            allow: vec![],
        });
        let config = Config { routes: routes.collect(), ..Config::closed(([127, 0, 0, 1], 0).into()) };
        Table::parse(&config, &BTreeMap::from([("key".into(), Secret::new("user:pa55word".into()))])).unwrap()
    }

    fn through(table: &Table, path: &str, headers: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let sent = request_headers(table, table.route(path).unwrap(), &map, Upgrade::None);
        sent.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn each_way_to_put_a_credential_in() {
        for (auth, wanted) in [
            (Auth::Bearer, Some(("authorization", "Bearer user:pa55word"))),
            (Auth::Token, Some(("authorization", "token user:pa55word"))),
            (Auth::Basic, Some(("authorization", "Basic dXNlcjpwYTU1d29yZA=="))),
            (Auth::Header("X-Api-Key".into()), Some(("x-api-key", "user:pa55word"))),
            (Auth::None, None),
        ] {
            let table = table(std::slice::from_ref(&auth));
            let mut sent = through(
                &table,
                "/0/",
                &[("host", "cred-proxy:9099"), ("authorization", "Bearer agent"), ("x-api-key", "agent")],
            );
            sent.retain(|(name, _)| name != "accept-encoding");
            let host = ("host".to_owned(), "api.example.org:8443".to_owned());
            let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(sent, [host].into_iter().chain(wanted).collect::<Vec<_>>(), "{auth:?}");
        }
    }

    #[test]
    fn what_passes_and_what_does_not() {
        let table = table(&[Auth::Bearer, Auth::Header("x-odd".into())]);
        let passes = [
            "accept",
            "content-type",
            "user-agent",
            "anthropic-version",
            "anthropic-beta",
            "x-stainless-lang",
            "openai-organization",
            "git-protocol",
            "if-none-match",
            "traceparent",
            "content-encoding",
            "x-request-id",
        ];
        let dropped = [
            "authorization",
            "proxy-authorization",
            "cookie",
            "cookie2",
            "x-api-key",
            "api-key",
            "x-goog-api-key",
            "private-token",
            "job-token",
            "deploy-token",
            "x-auth-token",
            "x-access-token",
            "x-amz-security-token",
            "x-vault-token",
            "x-auth-key",
            "x-csrf-token",
            "apikey",
            "x-client-secret",
            "dpop",
            "x-odd",
            "connection",
            "keep-alive",
            "proxy-connection",
            "proxy-anything",
            "te",
            "transfer-encoding",
            "content-length",
            "upgrade",
            "http2-settings",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-real-ip",
            "via",
            "x-http-method-override",
            "x-original-url",
            "x-rewrite-url",
            "range",
            "if-range",
            "expect",
        ];
        for (names, wanted) in [(&passes[..], 1), (&dropped[..], 0)] {
            for name in names {
                let sent = through(&table, "/0/", &[(name, "the-agents-own")]);
                assert_eq!(sent.iter().filter(|(_, value)| value == "the-agents-own").count(), wanted, "{name}");
            }
        }
        let sent = through(&table, "/0/", &[("accept-encoding", "gzip, br")]);
        assert!(sent.contains(&("accept-encoding".into(), "identity".into())), "{sent:?}");
    }

    #[test]
    fn what_connection_names_goes_but_never_our_own() {
        let table = table(&[Auth::Bearer]);
        let sent = through(
            &table,
            "/0/",
            &[
                ("connection", "close, X-Mine , authorization,host"),
                ("connection", "x-other"),
                ("x-mine", "a"),
                ("x-other", "b"),
                ("x-third", "c"),
            ],
        );
        let names: Vec<&str> = sent.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names.iter().filter(|name| ["x-mine", "x-other", "connection"].contains(name)).count(),
            0,
            "{names:?}"
        );
        for kept in ["x-third", "authorization", "host"] {
            assert!(names.contains(&kept), "{kept}");
        }
    }

    #[test]
    fn trailers_pass_where_they_are_announced_and_could_be_headers() {
        let table = table(&[Auth::Header("x-odd".into())]);
        let sent = through(
            &table,
            "/0/",
            &[
                ("trailer", "X-Sum, Authorization, cookie,x-odd"),
                ("trailer", "content-type, x-mine , transfer-encoding"),
                ("connection", "x-mine"),
                ("te", "trailers, gzip"),
            ],
        );
        let seen = |wanted: &str| sent.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        assert_eq!((seen("trailer"), seen("te"), seen("connection")), (Some("x-sum"), Some("trailers"), Some("te")));
        let announced = [HeaderName::from_static("x-sum")];
        let trailers = |names: &[&'static str]| -> HeaderMap {
            names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).collect()
        };
        assert_eq!(request_trailers(&announced, trailers(&["x-sum", "cookie", "x-other"])), trailers(&["x-sum"]));
    }

    #[test]
    fn a_header_given_twice_passes_twice() {
        let table = table(&[Auth::None]);
        let sent = through(&table, "/0/", &[("accept", "a"), ("accept", "b")]);
        assert_eq!(sent.iter().filter(|(name, _)| name == "accept").count(), 2);
    }
}
