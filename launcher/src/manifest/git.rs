//! The remotes of git-gate: read one by one, then compared with one another and with the routes. Nothing is trusted on
//! first use: an ssh remote names its host's key, or there is no bottle.

use super::error::{path, quoted};
use super::host::Host;
use super::name::Name;
use super::places::Places;
use super::reader::{Table, Text, list, text, text_or_texts, texts, truth};
use super::report::{Report, Span};
use super::route::Read as ReadRoute;
use super::suggest::one_of;
use super::token::read as read_token;
use super::tree::{Entry, Node};
use super::units::bytes;
use super::upstream::SIDECARS;
use super::{Git, GitUser, Remote, RemoteCredential, RemoteUpstream, Role, TokenRef};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use git_gate::address::Upstream as Address;
use git_gate::config::Push;
use git_gate::policy::Policy;
use std::path::PathBuf;

/// Remotes of one bottle.
const REMOTES_MAX: usize = 100;

/// Entries of one list of a remote.
const ENTRIES_MAX: usize = 1000;

/// Types of host keys, as in a known_hosts file.
const KEY_TYPES: [&str; 5] =
    ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"];

/// How a token is put in, as a manifest writes it.
const AUTHS: [&str; 3] = ["bearer", "basic", "basic <user>"];

/// Whom a token is given for where the manifest does not say: forges look at the token alone.
const TOKEN_USER: &str = "git";

/// Sizes of packs that a manifest may allow, in bytes.
const PACK_BYTES: std::ops::RangeInclusive<u64> = 1024..=64 << 30;

/// A remote, and where its address stands.
pub(super) struct Read {
    pub(super) remote: Remote,
    pub(super) at: Span,
}

/// The user, and the remotes with their places.
#[derive(Default)]
pub(super) struct ReadGit {
    user: Option<GitUser>,
    pub(super) remotes: Vec<Read>,
}

impl ReadGit {
    /// Without the places.
    pub(super) fn finish(self) -> Git {
        Git { user: self.user, remotes: self.remotes.into_iter().map(|read| read.remote).collect() }
    }
}

/// Reads the table `git` and compares it with the routes.
pub(super) fn read(entry: Option<&Entry>, routes: &mut [ReadRoute], places: &Places, report: &mut Report) -> ReadGit {
    let Some(mut table) = entry.and_then(|entry| Table::open(&entry.value, "`git`", entry.at, report)) else {
        return ReadGit::default();
    };
    let user = table.take("user").and_then(|entry| user(entry, report));
    let written = table.take_or("remotes", "Remotes", report);
    let nodes = written.map(|remotes| list(&remotes.value, "`remotes`", report)).unwrap_or_default();
    table.finish(report);
    if nodes.len() > REMOTES_MAX {
        report.error(nodes[REMOTES_MAX].head(), format!("a bottle has at most {REMOTES_MAX} remotes"));
        return ReadGit::default();
    }
    let remotes: Vec<Read> = nodes.iter().filter_map(|node| one(node, places, report)).collect();
    each_once(&remotes, report);
    not_by_a_route_too(&remotes, routes, report);
    let hosts: Vec<(&Host, &str)> = remotes
        .iter()
        .filter(|read| read.remote.upstream.is_https())
        .map(|read| (read.remote.upstream.host(), read.remote.name.as_str()))
        .collect();
    super::route::not_inspected_beside(routes, &hosts, report);
    ReadGit { user, remotes }
}

fn user(entry: &Entry, report: &mut Report) -> Option<GitUser> {
    let mut table = Table::open(&entry.value, "`user`", entry.at, report)?;
    let mut line = |key: &'static str, alias, hint, report: &mut Report| {
        let Some(entry) = table.take_or(key, alias, report) else {
            table.missing(key, hint, report);
            return None;
        };
        let text = text(&entry.value, &format!("`{key}`"), report)?;
        // git takes these away, or makes a line of them in a commit.
        if text.text.contains(['<', '>', '\n', '\t', '"', '\\']) {
            report.error(text.at, format!("`{key}` has a character that no name in a commit can have"));
            return None;
        }
        Some(text.text)
    };
    let name = line("name", "Name", "write who the commits are by: {name: Ada, email: ada@example.org}", report);
    let email = line("email", "Email", "write who the commits are by: {name: Ada, email: ada@example.org}", report);
    table.finish(report);
    Some(GitUser { name: name?, email: email? })
}

fn one(node: &Node, places: &Places, report: &mut Report) -> Option<Read> {
    let at = node.head();
    let mut table = Table::open(node, "the remote", at, report)?;
    let name = table.take_or("name", "Name", report);
    let upstream = table.take_or("upstream", "Upstream", report);
    for (entry, key, hint) in [
        (name, "name", "write what the agent reaches it by, such as `name: app`"),
        (upstream, "upstream", "write where it is, such as `upstream: ssh://git@git.example.org/team/app.git`"),
    ] {
        if entry.is_none() {
            table.missing(key, hint, report);
        }
    }
    let name = name.and_then(|entry| read_name(entry, report));
    let upstream = upstream.and_then(|entry| read_upstream(entry, report));
    let keys = Keys {
        identity: table.take_or("identity_file", "IdentityFile", report),
        host_key: table.take_or("known_host_key", "KnownHostKey", report),
        token: table.take_or("token_ref", "TokenRef", report),
        auth: table.take_or("auth", "Auth", report),
    };
    let credential = upstream.as_ref().and_then(|(upstream, _)| credential(upstream, &keys, &table, places, report));
    let push = table.take_or("push", "Push", report).map_or(Some(Push::default()), |entry| push(entry, report));
    let exceptions = table.take("exceptions").map(|entry| exceptions(entry, report)).unwrap_or_default();
    table.finish(report);
    let (upstream, upstream_at) = upstream?;
    let line = report.line(at);
    let remote = Remote { name: name?, upstream, credential: credential?, push: push?, exceptions, line };
    Some(Read { remote, at: upstream_at })
}

fn read_name(entry: &Entry, report: &mut Report) -> Option<String> {
    let text = text(&entry.value, "`name`", report)?;
    match Name::parse(&text.text) {
        Ok(name) => Some(name.to_string()),
        Err(error) => {
            report.error(text.at, error.to_string());
            None
        }
    }
}

/// `git@host:path` becomes what it means to forges: the path from the top. One in a home begins with `~`.
fn spelled_out(text: &str) -> String {
    match text.split_once(':') {
        Some((host, path)) if !text.contains("://") && host.contains('@') && !host.contains('/') => {
            format!("ssh://{host}/{}", path.trim_start_matches('/'))
        }
        _ => text.to_owned(),
    }
}

fn read_upstream(entry: &Entry, report: &mut Report) -> Option<(RemoteUpstream, Span)> {
    let text = text(&entry.value, "`upstream`", report)?;
    let reading = RemoteUpstream::parse(&spelled_out(&text.text));
    match reading {
        Ok(upstream) => Some((upstream, text.at)),
        Err(reason) => {
            // A password in it must not be shown, so the text is not repeated.
            report.error_masked(text.at, "`upstream` cannot be used", reason);
            None
        }
    }
}

impl RemoteUpstream {
    /// Reads `ssh://[user@]host[:port]/path` or `https://host[:port]/path`. Errors say what may not stand there.
    pub fn parse(url: &str) -> Result<Self, String> {
        const FORMS: &str = "write ssh://[user@]host[:port]/path, user@host:path, or https://host[:port]/path, without a \
                             password, a query or a percent sign in it";
        let address = Address::parse(url).ok_or_else(|| FORMS.to_owned())?;
        let host = Host::parse(&address.authority().host).map_err(|error| error.to_string())?;
        if SIDECARS.contains(&host.as_str()) {
            return Err(format!("{host} is inside the bottle"));
        }
        let port = address.authority().port;
        match address {
            Address::Ssh { user, path, .. } => Ok(Self::Ssh { user, host, port, path }),
            Address::Http { tls: true, path, .. } => Ok(Self::Https { host, port, path }),
            Address::Http { tls: false, .. } => {
                Err("http:// would carry the credential and the commits in the clear; write https://".to_owned())
            }
        }
    }

    /// Its host.
    pub fn host(&self) -> &Host {
        match self {
            Self::Ssh { host, .. } | Self::Https { host, .. } => host,
        }
    }

    /// Is it reached over https, and so by route-pipelock?
    pub fn is_https(&self) -> bool {
        match self {
            Self::Ssh { .. } => false,
            Self::Https { .. } => true,
        }
    }

    /// Its path as a URL has it: with `/` in front, also where it is in a home.
    pub fn url_path(&self) -> String {
        let (Self::Ssh { path, .. } | Self::Https { path, .. }) = self;
        format!("/{}", path.trim_start_matches('/'))
    }
}

/// What of a remote opens it.
struct Keys<'n> {
    identity: Option<&'n Entry>,
    host_key: Option<&'n Entry>,
    token: Option<&'n Entry>,
    auth: Option<&'n Entry>,
}

fn credential(
    upstream: &RemoteUpstream,
    keys: &Keys<'_>,
    table: &Table<'_>,
    places: &Places,
    report: &mut Report,
) -> Option<RemoteCredential> {
    let (theirs, others, kind) = match upstream {
        RemoteUpstream::Ssh { .. } => ([keys.identity, keys.host_key], [keys.token, keys.auth], "an ssh"),
        RemoteUpstream::Https { .. } => ([keys.token, keys.auth], [keys.identity, keys.host_key], "an https"),
    };
    for other in others.into_iter().flatten() {
        report.error(other.at, format!("`{}` has no place in {kind} remote", other.key));
    }
    match upstream {
        RemoteUpstream::Ssh { .. } => {
            if keys.identity.is_none() {
                let hint = "write the file of a private key that opens this repository alone (a deploy key)";
                table.missing("identity_file", hint, report);
            }
            if keys.host_key.is_none() {
                let hint = "write the host's public key, as `ssh-keyscan` and the forge's own pages show it: \
                            `ssh-ed25519 AAAA…`; nothing is trusted on first use";
                table.missing("known_host_key", hint, report);
            }
            let [identity, host_key] = theirs;
            let identity_file = identity.and_then(|entry| file(entry, places, report));
            let host_key = host_key.and_then(|entry| host_keys(entry, report));
            Some(RemoteCredential::SshKey { identity_file: identity_file?, host_key: host_key? })
        }
        RemoteUpstream::Https { .. } => match (keys.token, keys.auth) {
            (None, None) => Some(RemoteCredential::None),
            (None, Some(auth)) => {
                let hint = "write where the token is in `token_ref`, or leave both out for a public repository";
                report.error_with(auth.at, "`auth` says how a token is put in, and there is none", hint.to_owned());
                None
            }
            (Some(token), auth) => {
                let how = auth.map_or(Some(Auth::Basic(Some(TOKEN_USER.to_owned()))), |entry| read_auth(entry, report));
                let from = read_token(token, places, report);
                let (how, from) = (how?, from?);
                if let TokenRef::Command { ttl_s: Some(_), .. } = &from {
                    report.warn(token.at, "the token of a remote is fetched once, when the bottle is launched");
                }
                Some(match how {
                    Auth::Bearer => RemoteCredential::Bearer(from),
                    Auth::Basic(user) => RemoteCredential::Basic { user, password: from },
                })
            }
        },
    }
}

fn file(entry: &Entry, places: &Places, report: &mut Report) -> Option<PathBuf> {
    let written = text(&entry.value, "`identity_file`", report)?;
    if written.text.contains("PRIVATE KEY") {
        let hint = "write the path of the file that holds the key, never the key itself";
        report.error_masked(written.at, "`identity_file` is not a path", hint);
        return None;
    }
    match places.resolve(&written.text, report.file(written.at.source)) {
        Ok(file) => Some(file),
        Err(reason) => {
            report.error(written.at, format!("cannot tell which file is meant: {reason}"));
            None
        }
    }
}

/// One key or several, one a line or one an entry.
fn host_keys(entry: &Entry, report: &mut Report) -> Option<String> {
    let before = report.errors();
    let mut keys = Vec::new();
    for Text { text, at } in text_or_texts(&entry.value, "`known_host_key`", report) {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match host_key(line) {
                Ok(key) => keys.push(key),
                Err((message, hint)) => report.error_with(at, message, hint),
            }
        }
    }
    if keys.is_empty() && report.errors() == before {
        report.error(entry.at, "`known_host_key` has no key");
    }
    (report.errors() == before).then(|| keys.join("\n"))
}

/// `type base64`, a comment behind it left out. A line of a known_hosts file has the host in front, which is told.
fn host_key(line: &str) -> Result<String, (String, String)> {
    let mut words = line.split_whitespace();
    let (kind, data) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !KEY_TYPES.contains(&kind) {
        let hint = if KEY_TYPES.contains(&data) {
            "leave the host's name in front out: `ssh-ed25519 AAAA…`".to_owned()
        } else {
            one_of(kind, &KEY_TYPES)
        };
        return Err((format!("`{}` is not a type of host keys", quoted(kind)), hint));
    }
    // RFC 4253, 6.6: the type stands once more inside.
    let blob = STANDARD.decode(data).unwrap_or_default();
    let inner = blob.get(4..4 + kind.len()).is_some_and(|inner| inner == kind.as_bytes());
    if !inner {
        return Err(("`known_host_key` is not a whole public key".to_owned(), "write `ssh-ed25519 AAAA…`".to_owned()));
    }
    Ok(format!("{kind} {data}"))
}

enum Auth {
    Bearer,
    /// The user, or none: the token is `user:password`.
    Basic(Option<String>),
}

fn read_auth(entry: &Entry, report: &mut Report) -> Option<Auth> {
    let text = text(&entry.value, "`auth`", report)?;
    let words: Vec<&str> = text.text.split_whitespace().collect();
    match words.as_slice() {
        ["bearer" | "Bearer"] => Some(Auth::Bearer),
        ["basic" | "Basic"] => Some(Auth::Basic(None)),
        ["basic" | "Basic", user] if !user.contains(':') && user.is_ascii() => {
            Some(Auth::Basic(Some((*user).to_owned())))
        }
        _ => {
            let message = format!("there is no `auth` `{}`", quoted(&text.text));
            report.error_with(text.at, message, one_of(&text.text, &AUTHS));
            None
        }
    }
}

fn push(entry: &Entry, report: &mut Report) -> Option<Push> {
    let mut table = Table::open(&entry.value, "`push`", entry.at, report)?;
    let before = report.errors();
    let mut refs = Vec::new();
    for Text { text, at } in table.take("refs").map(|e| texts(&e.value, "`refs`", report)).unwrap_or_default() {
        let one = Push { refs: vec![text.clone()], ..Push::default() };
        match Policy::parse(&one, *PACK_BYTES.end()) {
            Ok(_) if refs.contains(&text) => report.error(at, format!("`{}` stands twice in `refs`", quoted(&text))),
            Ok(_) => refs.push(text),
            Err(_) => {
                let hint = "write full names of refs, with `*` for any characters: refs/heads/agent/*";
                report.error_with(at, format!("`{}` is not a full name of a ref", quoted(&text)), hint.to_owned());
            }
        }
    }
    if refs.len() > ENTRIES_MAX {
        report.error(entry.at, format!("`refs` has more than {ENTRIES_MAX} entries"));
    }
    let mut says = |key: &'static str, report: &mut Report| {
        table.take(key).and_then(|entry| truth(&entry.value, &format!("`{key}`"), report)).unwrap_or(false)
    };
    let (force, delete) = (says("force", report), says("delete", report));
    let max_pack = table.take("max_pack").and_then(|entry| {
        let text = text(&entry.value, "`max_pack`", report)?;
        match bytes(&text.text, PACK_BYTES) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                report.error_with(text.at, format!("`max_pack`: {}", error.message), error.hint);
                None
            }
        }
    });
    table.finish(report);
    (report.errors() == before).then_some(Push { refs, force, delete, max_pack })
}

fn exceptions(entry: &Entry, report: &mut Report) -> Vec<String> {
    let written = texts(&entry.value, "`exceptions`", report);
    if written.len() > ENTRIES_MAX {
        report.error(entry.at, format!("`exceptions` has more than {ENTRIES_MAX} entries"));
        return Vec::new();
    }
    let mut all = Vec::new();
    for Text { text, at } in written {
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            all.push(text.to_ascii_lowercase());
        } else {
            let hint = "write all 64 digits, as `launcher logs` shows them; what the agent sees is cut short";
            report.error_with(at, format!("`{}` is not a fingerprint", quoted(&text)), hint.to_owned());
        }
    }
    all
}

fn each_once(remotes: &[Read], report: &mut Report) {
    // With and without `.git` it is one repository.
    let place = |remote: &Remote| {
        let path = remote.upstream.url_path();
        let path = path.trim_end_matches('/');
        (remote.upstream.host().clone(), path.strip_suffix(".git").unwrap_or(path).to_owned())
    };
    for (at, read) in remotes.iter().enumerate() {
        let before = &remotes[..at];
        if let Some(first) = before.iter().find(|other| other.remote.name == read.remote.name) {
            let hint = format!("the first is on line {}", first.remote.line);
            report.error_with(read.at, format!("two remotes have the name `{}`", read.remote.name), hint);
        } else if let Some(first) = before.iter().find(|other| place(&other.remote) == place(&read.remote)) {
            let message = format!("`{}` leads to the repository of `{}`", read.remote.name, first.remote.name);
            let hint = "an address of the agent's can become one remote alone; take one of the two away";
            report.error_with(read.at, message, hint.to_owned());
        }
    }
}

/// A route for git of the same host would be a second way to the repository, and one address can be told one way.
fn not_by_a_route_too(remotes: &[Read], routes: &[ReadRoute], report: &mut Report) {
    for read in remotes {
        let host = read.remote.upstream.host();
        let is_same =
            |route: &&ReadRoute| route.route.roles.contains(&Role::GitInsteadof) && route.route.upstream.host == *host;
        if let Some(route) = routes.iter().find(is_same) {
            let message = format!(
                "`{}` is on {host}, which the route `{}` with the role `git-insteadof` leads to as well",
                read.remote.name, route.route.path
            );
            let hint = "repositories of one host are reached by remotes or by that route; take one of the two away";
            report.error_with(read.at, message, hint.to_owned());
        }
    }
}

impl RemoteCredential {
    /// What an operator is shown of it: where it is, never what it is.
    pub fn shown(&self) -> String {
        match self {
            Self::SshKey { identity_file, .. } => format!("key {}", path(identity_file)),
            Self::Bearer(from) | Self::Basic { password: from, .. } => from.shown(),
            Self::None => "none".to_owned(),
        }
    }
}
