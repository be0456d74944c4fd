//! Which route a request takes, and whether it may. PURE: a table and a head in, a decision out.
//!
//! Whatever it does not understand it refuses. It must never look at the body or do any I/O.

use crate::path::{normalise, unmasked_lower};
use crate::refuse::Refusal;
use crate::table::{Route, Table};
use crate::websocket::{self, Upgrade};
use http::{HeaderMap, Method, Uri, Version, header};

/// What a decision rests on.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target as it came.
    pub uri: &'a Uri,
    /// The version.
    pub version: Version,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// What became of a request's head.
#[derive(Debug)]
pub enum Decision {
    /// It goes on.
    Forward {
        /// By the route with this index in the table.
        route: usize,
        /// With this path and query: the upstream's base, the normal path, the query as it came.
        target: String,
        /// The other protocol that it asks for.
        upgrade: Upgrade,
    },
    /// It does not, and this is why.
    Refuse {
        /// Why.
        refusal: Refusal,
        /// The index of the route that it would have taken.
        route: Option<usize>,
    },
}

/// Names in a query that carry a credential past the header rules, or a method past the permissions.
const QUERY_NAMES_REFUSED: &[&[u8]] = &[
    b"_method",
    b"access_token",
    b"api-key",
    b"api_key",
    b"apikey",
    b"auth_token",
    b"client_secret",
    b"job_token",
    b"oauth_token",
    b"private_token",
    b"token",
    b"x-amz-credential",
    b"x-amz-signature",
    b"x-goog-credential",
    b"x-goog-signature",
];

/// Decides.
pub fn decide(table: &Table, head: Head<'_>) -> Decision {
    let (route, path, upgrade) = match find(table, head) {
        Ok(found) => found,
        Err(refusal) => return Decision::Refuse { refusal, route: None },
    };
    match target(&table.routes[route], head, path) {
        Ok(target) => Decision::Forward { route, target, upgrade },
        Err(refusal) => Decision::Refuse { refusal, route: Some(route) },
    }
}

/// The route's index, and the normal path.
fn find(table: &Table, head: Head<'_>) -> Result<(usize, String, Upgrade), Refusal> {
    if matches!(*head.method, Method::CONNECT | Method::TRACE) || head.method.as_str().eq_ignore_ascii_case("track") {
        return Err(Refusal::Method);
    }
    if head.uri.scheme().is_some() || head.uri.authority().is_some() {
        return Err(Refusal::AbsoluteForm);
    }
    if head.headers.get_all(header::HOST).iter().count() != 1 {
        return Err(Refusal::Host);
    }
    let upgrade = websocket::asked(head.method, head.version, head.headers)?;
    if asks_for_receive_pack(head) {
        return Err(Refusal::ReceivePack);
    }
    let path = normalise(head.uri.path())?;
    let route = table.index(&path).ok_or(Refusal::NoRoute)?;
    Ok((route, path, upgrade))
}

/// What the request asks the upstream for, if the route permits it.
fn target(route: &Route, head: Head<'_>, path: String) -> Result<String, Refusal> {
    let query = head.uri.query();
    // The path begins with the route's, whose last slash is the first of what is relative to it.
    let of_route = route.path.len() - 1;
    if !permits(route, head.method.as_str(), &path[of_route..], query) {
        return Err(Refusal::NoPermission);
    }
    if query.is_some_and(|query| brings_credential(query.as_bytes())) {
        return Err(Refusal::Query);
    }
    let mut target = path;
    target.replace_range(..of_route, &route.upstream.base);
    if let Some(query) = query {
        target.reserve_exact(query.len() + 1);
        target.push('?');
        target.push_str(query);
    }
    Ok(target)
}

/// An encoded slash may be a slash to the upstream or not: it must be permitted either way.
fn permits(route: &Route, method: &str, rest: &str, query: Option<&str>) -> bool {
    let permitted = |rest: &str| route.allow.iter().any(|allow| allow.permits(method, rest, query));
    permitted(rest) && (!rest.contains("%2F") || permitted(&rest.replace("%2F", "/")))
}

fn asks_for_receive_pack(head: Head<'_>) -> bool {
    const WORD: &[u8] = b"git-receive-pack";
    let hides = |text: &[u8]| match text.contains(&b'%') {
        true => unmasked_lower(text).windows(WORD.len()).any(|window| window == WORD),
        false => text.windows(WORD.len()).any(|window| window.eq_ignore_ascii_case(WORD)),
    };
    hides(head.uri.path().as_bytes())
        || head.uri.query().is_some_and(|query| hides(query.as_bytes()))
        || head.headers.get_all(header::CONTENT_TYPE).iter().any(|value| hides(value.as_bytes()))
}

fn brings_credential(query: &[u8]) -> bool {
    query
        .split(|byte| matches!(byte, b'&' | b';'))
        .map(|pair| pair.split(|byte| *byte == b'=').next().unwrap_or_default())
        .any(|name| QUERY_NAMES_REFUSED.contains(&unmasked_lower(name).as_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Auth, Config};
    use std::collections::BTreeMap;

    fn table() -> Table {
        let route = |path: &str, upstream: &str, allow: &[&str]| crate::config::Route {
            path: path.into(),
            upstream: upstream.into(),
            auth: Auth::None,
            secret: None,
            inspected: false,
            allow: allow.iter().map(|text| (*text).into()).collect(),
        };
        let config = Config {
            routes: vec![
                route("/llm/", "https://llm.example", &["POST /v1/messages", "GET /v1/models/**"]),
                route("/llm/admin/", "https://admin.example/base", &["GET /**"]),
                route("/npm/", "https://npm.example", &["GET /**", "HEAD /**"]),
                route("/scoped/", "https://npm.example", &["GET /*"]),
                route(
                    "/git/",
                    "https://git.example",
                    &["GET **/info/refs?service=git-upload-pack", "POST **/git-upload-pack", "* /any/**"],
                ),
                route("/closed/", "https://closed.example", &[]),
            ],
            ..Config::closed(([127, 0, 0, 1], 0).into())
        };
        Table::parse(&config, &BTreeMap::new()).unwrap()
    }

    fn ask(table: &Table, method: &str, target: &str, headers: &[(&str, &str)]) -> Result<String, Refusal> {
        let mut request = http::Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let version = parts.version;
        match decide(table, Head { method: &parts.method, uri: &parts.uri, version, headers: &parts.headers }) {
            Decision::Forward { route, target, .. } => {
                Ok(format!("{}{target}", table.routes[route].upstream.origin.authority.host))
            }
            Decision::Refuse { refusal, .. } => Err(refusal),
        }
    }

    const HOST: &[(&str, &str)] = &[("host", "cred-proxy:9099")];

    #[test]
    fn targets_and_their_refused_neighbours() {
        use crate::path::PathError::{DotSegment, EmptySegment, EncodedSlash, NotAbsolute, Parameters, TwiceEncoded};
        use Refusal::{AbsoluteForm, Method, NoPermission, NoRoute, Path, Query, ReceivePack};
        let cases: &[(&str, &str, Result<&str, Refusal>)] = &[
            ("POST", "/llm/v1/messages", Ok("llm.example/v1/messages")),
            ("POST", "/llm/v1/messages?beta=true", Ok("llm.example/v1/messages?beta=true")),
            ("POST", "/llm/v1/messages?", Ok("llm.example/v1/messages?")),
            ("POST", "/llm/v1/messages?a=..%2f..&b=//", Ok("llm.example/v1/messages?a=..%2f..&b=//")),
            ("POST", "/llm/v1/%6dessages", Ok("llm.example/v1/messages")),
            ("POST", "/%6clm/v1/messages", Ok("llm.example/v1/messages")),
            ("GET", "/llm/v1/models", Ok("llm.example/v1/models")),
            ("GET", "/llm/v1/models/a", Ok("llm.example/v1/models/a")),
            ("GET", "/llm/v1/models?before_id=token", Ok("llm.example/v1/models?before_id=token")),
            ("GET", "/llm/v1/models?page_token=x", Ok("llm.example/v1/models?page_token=x")),
            ("GET", "/llm/admin/x", Ok("admin.example/base/x")),
            ("GET", "/llm/admin/", Ok("admin.example/base/")),
            ("GET", "/npm/@types%2fnode", Ok("npm.example/@types%2Fnode")),
            ("GET", "/npm/@types/node", Ok("npm.example/@types/node")),
            ("HEAD", "/npm/left-pad", Ok("npm.example/left-pad")),
            (
                "GET",
                "/git/a.git/info/refs?service=git-upload-pack",
                Ok("git.example/a.git/info/refs?service=git-upload-pack"),
            ),
            ("POST", "/git/a.git/git-upload-pack", Ok("git.example/a.git/git-upload-pack")),
            ("PROPFIND", "/git/any/x", Ok("git.example/any/x")),
            ("OPTIONS", "/git/any/x", Ok("git.example/any/x")),
            ("GET", "/", Err(NoRoute)),
            ("GET", "/llm", Err(NoRoute)),
            ("GET", "/llmx/v1/models", Err(NoRoute)),
            ("GET", "/LLM/v1/models", Err(NoRoute)),
            ("GET", "/x/llm/v1/models", Err(NoRoute)),
            ("GET", "/x?service=git-upload-pack", Err(NoRoute)),
            ("GET", "/llm/", Err(NoPermission)),
            ("GET", "/llm/v1/messages", Err(NoPermission)),
            ("post", "/llm/v1/messages", Err(NoPermission)),
            ("POST", "/llm/v1/messages/", Err(NoPermission)),
            ("POST", "/llm/v1/files", Err(NoPermission)),
            ("POST", "/llm/admin/x", Err(NoPermission)),
            ("PUT", "/npm/left-pad", Err(NoPermission)),
            ("GET", "/scoped/@types%2fnode", Err(NoPermission)),
            ("GET", "/git/a.git/info/refs", Err(NoPermission)),
            ("GET", "/git/a.git/info/refs?service=git-upload-pack&x=1", Err(NoPermission)),
            ("GET", "/git/a.git/HEAD", Err(NoPermission)),
            ("GET", "/closed/", Err(NoPermission)),
            ("GET", "/closed/x", Err(NoPermission)),
            ("GET", "/git/any/x?access_token=k", Err(Query)),
            ("GET", "/git/any/x?a=b&Access_Token=k", Err(Query)),
            ("GET", "/git/any/x?access%5Ftoken=k", Err(Query)),
            ("GET", "/git/any/x?%61ccess%255Ftoken=k", Err(Query)),
            ("GET", "/git/any/x?a;private_token=k", Err(Query)),
            ("GET", "/git/any/x?token", Err(Query)),
            ("POST", "/git/any/x?_method=DELETE", Err(Query)),
            ("POST", "/git/any/git-receive-pack", Err(ReceivePack)),
            ("POST", "/git/any/Git-Receive-Pack", Err(ReceivePack)),
            ("POST", "/git/any/git%2dreceive%2Dpack", Err(ReceivePack)),
            ("POST", "/git/any/git%252dreceive-pack", Err(ReceivePack)),
            ("POST", "/git/any/git-receive-pack/", Err(ReceivePack)),
            ("GET", "/git/any/info/refs?service=git-receive-pack", Err(ReceivePack)),
            ("GET", "/git/any/info/refs?service=%67it-receive-pack", Err(ReceivePack)),
            ("GET", "/git/any/info/refs?x=1&service=git%2Dreceive%2dPACK", Err(ReceivePack)),
            ("GET", "/git/any/info/refs?service=git%25252dreceive-pack", Err(ReceivePack)),
            ("GET", "/git/any/info/refs?service=git-upload-pack&service=git-receive-pack", Err(ReceivePack)),
            ("POST", "/nowhere/git-receive-pack", Err(ReceivePack)),
            ("GET", "/llm/../npm/x", Err(Path(DotSegment))),
            ("GET", "/npm/%2e%2e/llm/v1/models", Err(Path(DotSegment))),
            ("GET", "/npm/./x", Err(Path(DotSegment))),
            ("GET", "/npm/..%2fllm", Err(Path(EncodedSlash))),
            ("GET", "/npm%2fx", Err(Path(EncodedSlash))),
            ("GET", "/npm/a%2fb", Err(Path(EncodedSlash))),
            ("GET", "/npm/a%5cb", Err(Path(crate::path::PathError::Backslash))),
            ("GET", "/npm//x", Err(Path(EmptySegment))),
            ("GET", "//npm/x", Err(Path(EmptySegment))),
            ("GET", "/npm/x;a=b", Err(Path(Parameters))),
            ("GET", "/npm/%252e%252e/x", Err(Path(TwiceEncoded))),
            ("GET", "/npm/%00", Err(Path(crate::path::PathError::Control))),
            ("OPTIONS", "*", Err(Path(NotAbsolute))),
            ("GET", "http://cred-proxy:9099/npm/x", Err(AbsoluteForm)),
            ("GET", "http://npm.example/x", Err(AbsoluteForm)),
            ("CONNECT", "npm.example:443", Err(Method)),
            ("TRACE", "/npm/x", Err(Method)),
            ("TRACE", "/git/any/x", Err(Method)),
            ("TRACK", "/git/any/x", Err(Method)),
        ];
        let table = table();
        for (method, target, wanted) in cases {
            let seen = ask(&table, method, target, HOST);
            assert_eq!(seen.as_deref(), wanted.as_ref().map(|wanted| *wanted), "{method} {target}");
        }
    }

    #[test]
    fn headers_and_their_refused_neighbours() {
        type Headers = [(&'static str, &'static str)];
        let cases: &[(&Headers, Option<Refusal>)] = &[
            (&[], None),
            (&[("upgrade", "h2c")], None),
            (&[("content-type", "application/x-git-upload-pack-request")], None),
            (&[("accept", "git-receive-pack")], None),
            (&[("host", "b")], Some(Refusal::Host)),
            (&[("upgrade", "websocket")], Some(Refusal::Handshake)),
            (&[("upgrade", "h2c, websocket")], Some(Refusal::Upgrade)),
            (&[("upgrade", "h2c"), ("upgrade", "websocket")], Some(Refusal::Upgrade)),
            (&[("upgrade", "")], Some(Refusal::Upgrade)),
            (&[("content-type", "application/x-git-receive-pack-request")], Some(Refusal::ReceivePack)),
            (&[("content-type", "application/X-Git-Receive-Pack-request; a=b")], Some(Refusal::ReceivePack)),
            (
                &[("content-type", "text/plain"), ("content-type", "x-git-receive-pack-request")],
                Some(Refusal::ReceivePack),
            ),
        ];
        let table = table();
        for (headers, wanted) in cases {
            let headers = [HOST, headers].concat();
            assert_eq!(ask(&table, "GET", "/npm/x", &headers).err(), *wanted, "{headers:?}");
        }
        assert_eq!(ask(&table, "GET", "/npm/x", &[]), Err(Refusal::Host));
    }

    #[test]
    fn an_empty_table_refuses_everything() {
        let mut table = table();
        table.routes.clear();
        assert_eq!(ask(&table, "GET", "/npm/x", HOST), Err(Refusal::NoRoute));
    }
}
