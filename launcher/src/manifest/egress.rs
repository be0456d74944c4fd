//! What a bottle lets out, and that the doors beside the allowlist do not overlap with it.

use super::Egress;
use super::error::quoted;
use super::git::Read as ReadRemote;
use super::host::{Host, HostPattern, NotAHost};
use super::places::Places;
use super::reader::{Table, Text, any_text, text, texts, truth};
use super::report::{Report, Span};
use super::route::Read as ReadRoute;
use super::source::read_beside;
use super::tree::Entry;
use super::upstream::SIDECARS;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Entries of one list.
const HOSTS_MAX: usize = 1000;

/// Characters of a network's name.
const NETWORK_CHARS_MAX: usize = 128;

/// Networks that every engine has and that are no way out for a bottle.
const NETWORKS_REFUSED: [&str; 4] = ["host", "none", "bridge", "default"];

/// Something and where it was written.
type At<T> = (T, Span);

/// Reads the table `egress` and compares it with the routes and the remotes.
pub(super) fn read(
    entry: Option<&Entry>,
    (routes, remotes): (&[ReadRoute], &[ReadRemote]),
    places: &Places,
    report: &mut Report,
) -> Egress {
    let Some(mut table) = entry.and_then(|entry| Table::open(&entry.value, "`egress`", entry.at, report)) else {
        return Egress::default();
    };
    let allowlist = hosts(table.take("allowlist"), HostPattern::parse, report);
    let passthrough = hosts(table.take("passthrough"), HostPattern::parse, report);
    let allow_private = hosts(table.take("allow_private"), Host::parse, report);
    let also_direct = hosts(table.take("also_direct"), Host::parse, report);
    let upstream_roots = table.take("upstream_roots").and_then(|entry| roots(entry, places, report));
    let credentials = table.take("agent_credentials");
    let agent_credentials = credentials.and_then(|entry| truth(&entry.value, "`agent_credentials`", report));
    let network = table.take("network").and_then(|entry| network(entry, report));
    table.finish(report);
    apart(&allowlist, routes, report);
    apart_from_remotes(&allowlist, remotes, &also_direct, report);
    covered(&passthrough, &allowlist, report);
    effective(&allow_private, &allowlist, (routes, remotes), report);
    for (host, at) in also_direct.iter().filter(|(host, _)| !remotes.iter().any(|r| r.remote.upstream.host() == host)) {
        report.warn(*at, &format!("`also_direct` names {host}, which is the host of no remote"));
    }
    Egress {
        allowlist: values(allowlist),
        passthrough: values(passthrough),
        allow_private: values(allow_private),
        upstream_roots,
        agent_credentials: agent_credentials.unwrap_or(false),
        also_direct: values(also_direct),
        network,
    }
}

fn values<T>(list: Vec<At<T>>) -> Vec<T> {
    list.into_iter().map(|(value, _)| value).collect()
}

/// A list of hosts. One that a parent's list has as well stands once; twice in one file is an error.
fn hosts<T: PartialEq>(
    entry: Option<&Entry>,
    parse: impl Fn(&str) -> Result<T, NotAHost>,
    report: &mut Report,
) -> Vec<At<T>> {
    let Some(entry) = entry else { return Vec::new() };
    let what = format!("`{}`", entry.key);
    let written = texts(&entry.value, &what, report);
    if written.len() > HOSTS_MAX {
        report.error(entry.at, format!("{what} has more than {HOSTS_MAX} entries"));
        return Vec::new();
    }
    let mut hosts: Vec<At<T>> = Vec::new();
    for Text { text, at } in written {
        match parse(&text) {
            Ok(host) => match hosts.iter().find(|(other, _)| *other == host) {
                None => hosts.push((host, at)),
                Some((_, first)) if first.source == at.source => {
                    let hint = format!("the first is on line {}", report.line(*first));
                    report.error_with(at, format!("`{}` stands twice in {what}", quoted(&text)), hint);
                }
                Some(_) => {}
            },
            Err(error) => report.error(at, error.to_string()),
        }
    }
    hosts
}

/// The hosts of routes are reached by their routes alone, or an agent could bring a key of its own to them.
fn apart(allowlist: &[At<HostPattern>], routes: &[ReadRoute], report: &mut Report) {
    for (pattern, at) in allowlist {
        if SIDECARS.contains(&pattern.host().as_str()) {
            report.error(*at, format!("{} is inside the bottle", pattern.host()));
        }
        if let Some(route) = routes.iter().find(|route| pattern.covers(&route.route.upstream.host)) {
            let (host, path) = (&route.route.upstream.host, &route.route.path);
            let message = format!("`{pattern}` lets the agent reach {host} beside the route `{path}`");
            let hint = "a route's host is reached by its route alone, so that the agent cannot bring another \
                        account's key to it; take one of the two away";
            report.error_with(*at, message, hint.to_owned());
        }
    }
}

/// On the allowlist, a remote's host can be pushed to around git-gate by an agent that has a key of its own.
fn apart_from_remotes(
    allowlist: &[At<HostPattern>],
    remotes: &[ReadRemote],
    also_direct: &[At<Host>],
    report: &mut Report,
) {
    for (pattern, at) in allowlist {
        let is_covered = |read: &&ReadRemote| {
            let host = read.remote.upstream.host();
            pattern.covers(host) && !also_direct.iter().any(|(direct, _)| direct == host)
        };
        if let Some(read) = remotes.iter().find(is_covered) {
            let (host, name) = (read.remote.upstream.host(), &read.remote.name);
            let message =
                format!("`{pattern}` lets the agent reach {host} around git-gate, beside the remote `{name}`");
            let hint = format!(
                "with a key of its own an agent could push there unscanned; take the entry away, or write \
                 `also_direct: [{host}]` if that is meant"
            );
            report.error_with(*at, message, hint);
        }
    }
}

fn covered(passthrough: &[At<HostPattern>], allowlist: &[At<HostPattern>], report: &mut Report) {
    for (pattern, at) in passthrough {
        if !allowlist.iter().any(|(allowed, _)| allowed.covers_all(pattern)) {
            let hint = "`passthrough` says which allowed hosts are not inspected; it allows nothing by itself";
            report.error_with(*at, format!("`{pattern}` is not on the allowlist"), hint.to_owned());
        }
    }
}

fn effective(
    private: &[At<Host>],
    allowlist: &[At<HostPattern>],
    (routes, remotes): (&[ReadRoute], &[ReadRemote]),
    report: &mut Report,
) {
    for (host, at) in private {
        let allowed = allowlist.iter().any(|(pattern, _)| pattern.covers(host))
            || remotes.iter().any(|read| read.remote.upstream.host() == host);
        if !allowed && !routes.iter().any(|route| route.route.upstream.host == *host) {
            report.warn(*at, &format!("`allow_private` names {host}, which no allowlist entry and no route leads to"));
        }
    }
}

/// The text of a file of PEM certificates. It goes to every sidecar, so a key in it is refused.
fn roots(entry: &Entry, places: &Places, report: &mut Report) -> Option<String> {
    let written = text(&entry.value, "`upstream_roots`", report)?;
    let (_, pem) = read_beside(&written, "the file of roots", places, report)?;
    let problem = if pem.contains("PRIVATE KEY-----") {
        Some("it holds a private key, and it goes to every sidecar")
    } else {
        match CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>() {
            Ok(certificates) if certificates.is_empty() => Some("there is no PEM certificate in it"),
            Ok(_) => None,
            Err(_) => Some("a PEM block in it is broken"),
        }
    };
    match problem {
        Some(problem) => {
            report.error(written.at, format!("cannot use the file of roots: {problem}"));
            None
        }
        None => Some(pem),
    }
}

fn network(entry: &Entry, report: &mut Report) -> Option<String> {
    let Text { text: name, at } = any_text(&entry.value, "`network`", report)?;
    let inside = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric())
        || name.len() > NETWORK_CHARS_MAX
        || !name.bytes().all(inside)
    {
        let hint = "letters, digits, `_`, `.` and `-`, beginning with a letter or a digit";
        report.error_with(at, format!("`{}` is not a name of a network", quoted(&name)), hint.to_owned());
        return None;
    }
    if NETWORKS_REFUSED.contains(&name.as_str()) {
        let hint = "name a network made for it, or leave the key out for one of the bottle's own";
        report.error_with(at, format!("a bottle cannot go out by the engine's network `{name}`"), hint.to_owned());
        return None;
    }
    Some(name)
}
