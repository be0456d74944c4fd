//! The routes of cred-proxy: read one by one, then compared with one another.

use super::error::quoted;
use super::host::Host;
use super::places::Places;
use super::reader::{Table, Text, list, text, text_or_texts, texts, truth};
use super::report::{Report, Span};
use super::role::{default_allow, default_inspect};
use super::suggest::one_of;
use super::token::read as read_token;
use super::tree::{Entry, Node};
use super::upstream::{pattern, route_path};
use super::{Role, Route, TokenRef, Upstream, proxy_limits};
use cred_proxy::config::{Auth, Limits};
use std::collections::BTreeMap;

/// Routes of one bottle.
const ROUTES_MAX: usize = 100;

/// Patterns of one route.
const PATTERNS_MAX: usize = 100;

/// Schemes as a manifest writes them.
const SCHEMES: [&str; 5] = ["Bearer", "token", "Basic", "header:<Name>", "none"];

/// Headers that frame a request or speak to the next hop alone; a credential in one would break the request, or worse.
const HEADERS_REFUSED: [&str; 19] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
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
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A route, and what of it the operator wrote where.
pub(super) struct Read {
    pub(super) route: Route,
    path_at: Span,
    inspect: Option<Span>,
    roles_at: Vec<Span>,
}

/// Reads the table `cred_proxy`.
pub(super) fn read(entry: Option<&Entry>, places: &Places, report: &mut Report) -> (Vec<Read>, Limits) {
    let Some(mut table) = entry.and_then(|entry| Table::open(&entry.value, "`cred_proxy`", entry.at, report)) else {
        return (Vec::new(), Limits::default());
    };
    let written = table.take("routes");
    let nodes = written.map(|routes| list(&routes.value, "`routes`", report)).unwrap_or_default();
    let limits = proxy_limits::read(table.take("limits"), report);
    table.finish(report);
    (routes(nodes, places, report), limits)
}

fn routes(nodes: &[Node], places: &Places, report: &mut Report) -> Vec<Read> {
    if nodes.len() > ROUTES_MAX {
        report.error(nodes[ROUTES_MAX].head(), format!("a bottle has at most {ROUTES_MAX} routes"));
        return Vec::new();
    }
    let mut routes: Vec<Read> = nodes.iter().filter_map(|node| one(node, places, report)).collect();
    each_path_once(&routes, report);
    each_single_role_once(&routes, report);
    one_inspection_per_host(&mut routes, report);
    tarballs_have_their_place(&routes, report);
    routes
}

fn one(node: &Node, places: &Places, report: &mut Report) -> Option<Read> {
    let at = node.head();
    let mut table = Table::open(node, "the route", at, report)?;
    let path = table.take_or("path", "Path", report);
    let upstream = table.take_or("upstream", "Upstream", report);
    let scheme = table.take_or("auth_scheme", "AuthScheme", report);
    for (entry, key, hint) in [
        (path, "path", "write the prefix that the agent asks for, such as `path: /api/`"),
        (upstream, "upstream", "write where it leads, such as `upstream: https://api.example.org`"),
        (scheme, "auth_scheme", "write Bearer, token, Basic, header:<Name>, or none"),
    ] {
        if entry.is_none() {
            table.missing(key, hint, report);
        }
    }
    let path = path.and_then(|entry| checked(entry, "`path`", route_path, report));
    let path_at = path.as_ref().map_or(at, |path| path.at);
    let upstream = upstream.and_then(|entry| read_upstream(entry, report));
    let auth = scheme.and_then(|entry| read_scheme(entry, report));
    let token = table.take_or("token_ref", "TokenRef", report);
    let token_ref = token.and_then(|entry| read_token(entry, places, report));
    if let Some(auth) = &auth {
        credential_fits(auth, scheme, token, report);
    }
    let (roles, roles_at) = table.take_or("role", "Role", report).map(|e| read_roles(e, report)).unwrap_or_default();
    let inspect = table.take("inspect");
    let inspects = inspect.and_then(|entry| truth(&entry.value, "`inspect`", report));
    let allow = table.take("allow").map(|entry| read_allow(entry, report));
    table.finish(report);
    let upstream = upstream?;
    if let Some(role) = roles.iter().find(|role| role.versioned() && upstream.base.ends_with("/v1")) {
        let hint = "the agent's tools write the version themselves: leave `/v1` out of the upstream";
        let message = format!("a route with the role `{}` would lead to `{}/v1/…`", role.name(), upstream.base);
        report.error_with(at, message, hint.to_owned());
    }
    if !upstream.https && token_ref.is_some() {
        report.warn(at, &format!("the credential of this route goes to {} in the clear, over http", upstream.host));
    }
    let route = Route {
        path: path?.text,
        auth: auth?,
        token_ref,
        inspect: inspects.unwrap_or_else(|| default_inspect(&roles)),
        allow: allow.unwrap_or_else(|| default_allow(&roles)),
        roles,
        upstream,
        line: report.line(at),
    };
    Some(Read { route, path_at, inspect: inspects.and(inspect).map(|entry| entry.value.span), roles_at })
}

fn checked(entry: &Entry, what: &str, check: impl Fn(&str) -> Result<(), String>, report: &mut Report) -> Option<Text> {
    let text = text(&entry.value, what, report)?;
    match check(&text.text) {
        Ok(()) => Some(text),
        Err(reason) => {
            report.error(text.at, format!("{what} `{}` cannot be used: {reason}", quoted(&text.text)));
            None
        }
    }
}

fn read_upstream(entry: &Entry, report: &mut Report) -> Option<Upstream> {
    let text = text(&entry.value, "`upstream`", report)?;
    match Upstream::parse(&text.text) {
        Ok(upstream) => Some(upstream),
        // A password in it must not be shown, so the text is not repeated where there may be one.
        Err(reason) if text.text.contains('@') => {
            report.error_masked(text.at, "`upstream` cannot be used", reason);
            None
        }
        Err(reason) => {
            report.error(text.at, format!("`upstream` cannot be used: {reason}"));
            None
        }
    }
}

fn read_scheme(entry: &Entry, report: &mut Report) -> Option<Auth> {
    let text = text(&entry.value, "`auth_scheme`", report)?;
    if let Some(name) = text.text.strip_prefix("header:") {
        return match header(name.trim()) {
            Ok(()) => Some(Auth::Header(name.trim().to_owned())),
            Err(reason) => {
                report.error(text.at, format!("`{}` cannot carry a credential: {reason}", quoted(name)));
                None
            }
        };
    }
    match text.text.as_str() {
        "Bearer" => Some(Auth::Bearer),
        "token" => Some(Auth::Token),
        "Basic" => Some(Auth::Basic),
        "none" => Some(Auth::None),
        other => {
            let message = format!("there is no `auth_scheme` `{}`", quoted(other));
            report.error_with(text.at, message, one_of(other, &SCHEMES));
            None
        }
    }
}

/// A header's name by RFC 9110 that a credential can be put into.
fn header(name: &str) -> Result<(), &'static str> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(token) {
        return Err("it is not a header's name");
    }
    if HEADERS_REFUSED.iter().any(|refused| refused.eq_ignore_ascii_case(name)) {
        return Err("it frames the request");
    }
    Ok(())
}

/// `none` and a credential exclude one another; everything else needs one.
fn credential_fits(auth: &Auth, scheme: Option<&Entry>, token: Option<&Entry>, report: &mut Report) {
    match (auth, scheme, token) {
        (Auth::None, _, Some(token)) => {
            let hint = "leave `token_ref` out, or say by `auth_scheme` how it is put in";
            report.error_with(token.at, "a route with `auth_scheme: none` takes no credential", hint.to_owned());
        }
        (Auth::Bearer | Auth::Token | Auth::Basic | Auth::Header(_), Some(scheme), None) => {
            let hint = "write `token_ref: NAME` for a variable of the host, or `auth_scheme: none`";
            report.error_with(scheme.at, "`token_ref` is missing: this scheme puts a credential in", hint.to_owned());
        }
        _ => {}
    }
}

fn read_roles(entry: &Entry, report: &mut Report) -> (Vec<Role>, Vec<Span>) {
    let names: Vec<&str> = Role::ALL.iter().map(|role| role.name()).collect();
    let (mut roles, mut places) = (Vec::new(), Vec::new());
    for Text { text, at } in text_or_texts(&entry.value, "`role`", report) {
        match Role::ALL.into_iter().find(|role| role.name() == text) {
            Some(role) if roles.contains(&role) => report.error(at, format!("the role `{text}` stands twice")),
            Some(role) => {
                roles.push(role);
                places.push(at);
            }
            None => report.error_with(at, format!("there is no role `{}`", quoted(&text)), one_of(&text, &names)),
        }
    }
    (roles, places)
}

fn read_allow(entry: &Entry, report: &mut Report) -> Vec<String> {
    let before = report.errors();
    let written = texts(&entry.value, "`allow`", report);
    if written.is_empty() && report.errors() == before {
        let hint = "leave the key out for what the route's role needs";
        report.error_with(entry.at, "`allow` lets nothing pass", hint.to_owned());
    }
    if written.len() > PATTERNS_MAX {
        report.error(entry.at, format!("`allow` has more than {PATTERNS_MAX} entries"));
        return Vec::new();
    }
    let mut allow = Vec::new();
    for Text { text, at } in written {
        match pattern(&text) {
            Ok(()) if allow.contains(&text) => report.error(at, format!("`{text}` stands twice in `allow`")),
            Ok(()) => allow.push(text),
            Err(reason) => report.error(at, format!("`{}` says nothing that can pass: {reason}", quoted(&text))),
        }
    }
    allow
}

fn each_path_once(routes: &[Read], report: &mut Report) {
    let mut first: BTreeMap<&str, Span> = BTreeMap::new();
    for read in routes {
        match first.get(read.route.path.as_str()) {
            Some(at) => {
                let hint = format!("the first is in line {} of {}", report.line(*at), shown_file(*at, report));
                report.error_with(read.path_at, format!("two routes have the path `{}`", read.route.path), hint);
            }
            None => {
                first.insert(&read.route.path, read.path_at);
            }
        }
    }
}

fn each_single_role_once(routes: &[Read], report: &mut Report) {
    let mut first: Vec<(Role, &str)> = Vec::new();
    for read in routes {
        for (role, at) in read.route.roles.iter().zip(&read.roles_at).filter(|(role, _)| role.single()) {
            match first.iter().find(|(other, _)| other == role) {
                Some((_, path)) => {
                    let hint = "the agent's configuration has one place for it";
                    let message = format!("the role `{}` belongs to the route `{path}` already", role.name());
                    report.error_with(*at, message, hint.to_owned());
                }
                None => first.push((*role, &read.route.path)),
            }
        }
    }
}

/// npm asks for a tarball at the path that its registry has for itself, which another route may have taken.
fn tarballs_have_their_place(routes: &[Read], report: &mut Report) {
    for read in routes.iter().filter(|read| read.route.roles.contains(&Role::NpmRegistry)) {
        let place = format!("{}/", read.route.upstream.base);
        if read.route.path != place && routes.iter().any(|other| other.route.path == place) {
            let path = &read.route.path;
            report.warn(
                read.path_at,
                &format!(
                    "npm before version 11 asks for the tarballs of `{path}` at `{place}`, which is another route"
                ),
            );
        }
    }
}

/// route-pipelock opens a host's TLS or does not. What the operator wrote holds for all routes of the host; where they
/// wrote nothing, not inspected wins.
fn one_inspection_per_host(routes: &mut [Read], report: &mut Report) {
    let mut hosts: BTreeMap<String, (bool, Option<String>)> = BTreeMap::new();
    for read in routes.iter() {
        let Some(at) = read.inspect else { continue };
        let host = read.route.upstream.host.to_string();
        match hosts.get(&host) {
            Some((inspect, Some(path))) if *inspect != read.route.inspect => {
                let message = format!("`inspect` differs from that of `{path}`, which leads to {host} too");
                let hint = "a host is inspected or it is not: write the same on both";
                report.error_with(at, message, hint.to_owned());
            }
            Some(_) => {}
            None => {
                hosts.insert(host, (read.route.inspect, Some(read.route.path.clone())));
            }
        }
    }
    for read in routes.iter() {
        let entry = hosts.entry(read.route.upstream.host.to_string()).or_insert((true, None));
        if entry.1.is_none() {
            entry.0 &= read.route.inspect;
        }
    }
    for read in routes.iter_mut() {
        let Some((inspect, _)) = hosts.get(read.route.upstream.host.as_str()) else { continue };
        if read.inspect.is_none() && read.route.inspect != *inspect {
            let (path, host) = (&read.route.path, &read.route.upstream.host);
            let not = if *inspect { "" } else { "not " };
            report.warn(
                read.path_at,
                &format!("`{path}` is {not}inspected, as another route to {host} is {not}inspected"),
            );
            read.route.inspect = *inspect;
        }
    }
}

/// git-gate compresses what it sends, so the host of an https remote is not inspected, and its routes are not either.
pub(super) fn not_inspected_beside(routes: &mut [Read], remotes: &[(&Host, &str)], report: &mut Report) {
    for read in routes.iter_mut().filter(|read| read.route.inspect) {
        let Some((host, name)) = remotes.iter().find(|(host, _)| **host == read.route.upstream.host) else { continue };
        let path = &read.route.path;
        match read.inspect {
            Some(at) => {
                let hint = "a host is inspected or it is not, and git compresses what it sends; write false";
                let message = format!("`{path}` cannot be inspected: {host} is the host of the remote `{name}` too");
                report.error_with(at, message, hint.to_owned());
            }
            None => {
                let text = format!("`{path}` is not inspected, as {host} is the host of the remote `{name}` too");
                report.warn(read.path_at, &text);
                read.route.inspect = false;
            }
        }
    }
}

fn shown_file(at: Span, report: &Report) -> String {
    let name = report.file(at.source).file_name().unwrap_or_default();
    quoted(&name.to_string_lossy())
}

/// The credentials that routes name, for those who fetch them.
impl Route {
    /// A name for the route's credential source that can be shown: never its value.
    pub fn credential(&self) -> Option<String> {
        self.token_ref.as_ref().map(TokenRef::shown)
    }
}
