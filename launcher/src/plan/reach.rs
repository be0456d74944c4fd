//! What the agent will be able to reach and hold: the page a person says yes or no to.

use super::{Facts, Order};
use crate::manifest::{Bottle, EnvValue, ImageSource, Role, TokenRef};
use serde::{Deserialize, Serialize};

/// What the agent will be able to reach and hold. Names, never values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Where the agent's container comes from.
    pub image: String,
    /// Did an engine answer? Else what only an engine knows is unknown.
    pub engine: bool,
    /// Its content address, when the image is there.
    pub image_id: Option<String>,
    /// Whom it runs as, in words.
    pub user: String,
    /// Hosts it may reach.
    pub hosts: Vec<String>,
    /// Hosts whose TLS is not opened, and so not read.
    pub not_inspected: Vec<String>,
    /// Hosts that may resolve to private addresses.
    pub private: Vec<String>,
    /// May its own `Authorization` and `X-Api-Key` headers leave?
    pub agent_credentials: bool,
    /// The existing network it goes out by.
    pub network: Option<String>,
    /// Routes of cred-proxy.
    pub routes: Vec<RouteReach>,
    /// Remotes of git-gate.
    pub remotes: Vec<RemoteReach>,
    /// May it ask for more while it runs?
    #[serde(default)]
    pub may_ask: bool,
    /// Who its commits are by.
    pub committer: Option<String>,
    /// Variables it holds, and where each value comes from.
    pub env: Vec<(String, String)>,
    /// The skills that it finds, and where they are from.
    #[serde(default)]
    pub skills: Vec<(String, String)>,
    /// The directory that comes along.
    pub workspace: Option<String>,
    /// Is it launched again, with the workspace as it was left?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
    /// `2 cpus, 4 GiB, …`.
    pub limits: String,
    /// `runc`, `runsc`, or the engine's default.
    pub runtime: String,
    /// pipelock's image.
    pub pipelock: String,
}

/// A route as a person sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteReach {
    /// Its path.
    pub path: String,
    /// Where it leads.
    pub upstream: String,
    /// Where its credential comes from.
    pub credential: String,
    /// Is its TLS opened and its bodies read?
    pub inspected: bool,
    /// What may pass.
    pub allow: Vec<String>,
    /// What the agent's tools are told about it.
    pub roles: Vec<String>,
    /// Where it answers as well, to less or the same: npm asks for tarballs there.
    pub twin: Option<String>,
    /// What its inspection costs beyond what it costs every route, in words.
    pub cost: Option<String>,
}

/// A remote as a person sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteReach {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub upstream: String,
    /// Where its credential comes from.
    pub credential: String,
    /// What may be pushed, in words.
    pub push: String,
    /// Findings that do not refuse a push.
    pub exceptions: usize,
    /// Is its host on the allowlist as well?
    pub also_direct: Option<String>,
}

impl Reach {
    /// What may leave, line by line: hosts, routes, remotes.
    pub fn lines(&self) -> Vec<String> {
        let hosts = self.hosts.iter().map(|host| {
            let read = if self.not_inspected.contains(host) { ", not inspected" } else { "" };
            format!("host {host}{read}")
        });
        let routes = self.routes.iter().map(|route| {
            let read = if route.inspected { "" } else { ", not inspected" };
            format!("route {} -> {} (credential: {}{read})", route.path, route.upstream, route.credential)
        });
        let remotes = self.remotes.iter().map(|remote| {
            format!(
                "remote {} -> {} (credential: {}): {}",
                remote.name, remote.upstream, remote.credential, remote.push
            )
        });
        hosts.chain(routes).chain(remotes).collect()
    }
}

/// Sums up an order.
pub fn reach(order: &Order, facts: &Facts) -> Reach {
    let bottle = &order.bottle;
    let strings = |list: &[crate::manifest::host::HostPattern]| list.iter().map(ToString::to_string).collect();
    let routes = bottle.routes.iter().map(|route| RouteReach {
        path: route.path.clone(),
        upstream: route.upstream.to_string(),
        credential: route.token_ref.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string),
        inspected: route.inspect,
        allow: route.allow.clone(),
        roles: route.roles.iter().map(|role| role.name().to_owned()).collect(),
        twin: super::roles::twin(route, &bottle.routes).map(|twin| twin.path),
        cost: cost(&route.roles).filter(|_| route.inspect),
    });
    let remotes = bottle.git.remotes.iter().map(|remote| RemoteReach {
        name: remote.name.clone(),
        upstream: remote.upstream.to_string(),
        credential: remote.credential.shown(),
        push: push(&remote.push),
        exceptions: remote.exceptions.len(),
        also_direct: bottle
            .egress
            .allowlist
            .iter()
            .any(|pattern| pattern.covers(remote.upstream.host()))
            .then(|| remote.upstream.host().to_string()),
    });
    Reach {
        image: match (order.built(), &bottle.agent.image) {
            (Some(built), _) => format!("{}, from {} by an approved Dockerfile", built.reference, built.from),
            (None, ImageSource::Reference(reference)) => reference.clone(),
            (None, ImageSource::Dockerfile { path, .. }) => format!("built from {}", path.display()),
        },
        engine: facts.engine.is_some(),
        image_id: facts.agent_image.as_ref().map(|i| i.id.clone()),
        user: bottle.agent.user.clone().unwrap_or_else(|| "the image's, never root".to_owned()),
        hosts: strings(&bottle.egress.allowlist),
        not_inspected: strings(&bottle.egress.passthrough),
        private: bottle.egress.allow_private.iter().map(ToString::to_string).collect(),
        agent_credentials: bottle.egress.agent_credentials,
        network: bottle.egress.network.clone(),
        routes: routes.collect(),
        remotes: remotes.collect(),
        may_ask: bottle.supervise,
        committer: bottle.git.user.as_ref().map(|user| format!("{} <{}>", user.name, user.email)),
        env: held(bottle),
        skills: match &bottle.agent.provider.skills {
            Some(_) => super::home::names(bottle, &order.agent)
                .into_iter()
                .map(|skill| (skill.name.clone(), skill.folder.display().to_string()))
                .collect(),
            None => Vec::new(),
        },
        workspace: order.workspace.as_ref().map(|w| w.display().to_string()),
        resumed: order.resumed.is_some(),
        limits: bottle.limits.to_string(),
        runtime: match super::agent::runtime(order, facts) {
            Ok(Some(name)) => name,
            Ok(None) if facts.engine.is_some() => "the engine's default".to_owned(),
            Ok(None) | Err(_) => "unknown without an engine".to_owned(),
        },
        pipelock: order.images.pipelock.clone(),
    }
}

/// Every variable that the agent holds by the manifest's word or its provider's, and where the value comes from.
fn held(bottle: &Bottle) -> Vec<(String, String)> {
    let provider = &bottle.agent.provider;
    let own = bottle.env.iter().map(|(name, value)| (name.clone(), value.source().to_owned()));
    let theirs = provider.env.keys().filter(|name| !bottle.env.contains_key(*name));
    own.chain(theirs.map(|name| (name.clone(), format!("the provider {}", provider.name)))).collect()
}

/// What may be pushed to a remote, as a sentence about the agent.
fn push(push: &git_gate::config::Push) -> String {
    if push.refs.is_empty() {
        return "may fetch, and push nothing".to_owned();
    }
    let how = match (push.force, push.delete) {
        (false, false) => "forward only, no deletes",
        (true, false) => "also by force; no deletes",
        (false, true) => "forward only; deletes too",
        (true, true) => "also by force, and deletes",
    };
    let most = push.max_pack.map(|bytes| format!(", at most {} at once", crate::ui::size(bytes))).unwrap_or_default();
    format!("may fetch, and push {} (scanned first; {how}{most})", push.refs.join(", "))
}

/// What inspection costs a route with these roles beyond what it costs every one.
fn cost(roles: &[Role]) -> Option<String> {
    let of = |role: &Role| match role {
        Role::AnthropicBaseUrl | Role::OpenaiBaseUrl => {
            Some("scanning takes up to a second for 500 KB, and what looks like a key in a prompt ends the request")
        }
        Role::NpmRegistry => Some("packages are slow to scan"),
        Role::GitInsteadof => Some("git compresses its requests, so that a fetch may fail"),
        Role::TeaLogin => None,
    };
    let mut costs: Vec<&str> = roles.iter().filter_map(of).collect();
    costs.dedup();
    (!costs.is_empty()).then(|| costs.join("; "))
}

impl EnvValue {
    /// Where the value comes from, without the value.
    pub fn source(&self) -> &'static str {
        match self {
            Self::Literal(_) => "written in the manifest",
            Self::Host(_) => "from this machine's environment",
            Self::Ask(_) => "asked for at launch",
        }
    }
}

impl std::fmt::Display for TokenRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Env(name) => write!(f, "variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Command { argv, .. } => write!(f, "command {}", argv.first().map_or("", String::as_str)),
        }
    }
}

impl std::fmt::Display for crate::manifest::Upstream {
    /// As a URL; the port is left out where it is the scheme's own.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scheme, own) = if self.https { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port != own {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.base)
    }
}

impl std::fmt::Display for crate::manifest::Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
        write!(
            f,
            "{} cpus, {} memory, {} processes, {} disk",
            self.cpus,
            gib(self.memory_bytes),
            self.pids,
            gib(self.disk_bytes)
        )?;
        match self.time_s {
            Some(s) if s % 3600 == 0 => write!(f, ", {} h", s / 3600),
            Some(s) => write!(f, ", {} min", s.div_ceil(60)),
            None => Ok(()),
        }
    }
}
