//! The sidecars of a bottle: their containers and their configuration.

use super::seat::{self, Seat};
use super::{Action, Addresses, Names, Order, PlanError, hardening};
use crate::engine::NetworkMode;
use crate::manifest::{Bottle, Remote, RemoteCredential, RemoteUpstream, TokenRef};
use bottle_images::init;
use cred_proxy::config as proxy;
use pipelock_config::{AgentPolicy, Policy, RoutePolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// The port of both pipelocks.
pub const PIPELOCK_PORT: u16 = pipelock_config::PORT;
/// The name by which the agent reaches its pipelock.
pub const PIPELOCK: &str = "pipelock";
/// The name by which cred-proxy reaches its own.
pub const ROUTE_PIPELOCK: &str = "route-pipelock";

/// How long an agent's call waits for a verdict: less than what clients wait for an answer, which is 60 s as a rule.
const ASK_WAITS_SECONDS: u64 = 45;

/// Where git-gate keeps a push while it is scanned: the one place on a disk that a sidecar has. The files in it are
/// unlinked as soon as they are made, and its volume goes with the container.
pub const SPOOL: &str = "/spool";

/// The agent's pipelock: on the way out and on the internal network, listening on the latter alone.
pub fn pipelock(order: &Order, addresses: &Addresses, names: &Names) -> Vec<Action> {
    let listen = SocketAddr::from((addresses.pipelock, PIPELOCK_PORT));
    let spec = pipelock_container(order, names, &names.pipelock, "pipelock", listen);
    let inside = (&names.internal, addresses.pipelock);
    created(spec, inside)
}

/// The pipelock of the routes: on the way out and on the routes network, which the agent is not on.
pub fn route_pipelock(order: &Order, addresses: &Addresses, names: &Names) -> Vec<Action> {
    let listen = SocketAddr::from((addresses.route_pipelock, PIPELOCK_PORT));
    let role = Seat::of(addresses).role();
    let spec = pipelock_container(order, names, &names.route_pipelock, &role, listen);
    created(spec, (&names.routes, addresses.route_pipelock))
}

/// cred-proxy: between the agent and route-pipelock, with no other way out.
pub fn cred_proxy(order: &Order, addresses: &Addresses, names: &Names) -> Vec<Action> {
    let network =
        NetworkMode::On { network: names.internal.clone(), address: Some(addresses.cred_proxy), aliases: Vec::new() };
    let mut spec = hardening::sidecar(order, &names.cred_proxy, "cred-proxy", &order.images.cred_proxy, network);
    spec.hosts = BTreeMap::from([(ROUTE_PIPELOCK.to_owned(), Seat::LAUNCH.address(addresses.routes))]);
    created(spec, (&names.routes, addresses.cred_proxy_routes))
}

/// git-gate: between the agent and its remotes. To ssh remotes it goes straight, to https ones by route-pipelock.
pub fn git_gate(order: &Order, addresses: &Addresses, names: &Names) -> Vec<Action> {
    let internal = (names.internal.clone(), Some(addresses.git_gate));
    let mut others = Vec::new();
    if order.bottle.git.remotes.iter().any(|remote| remote.upstream.is_https()) {
        others.push((names.routes.clone(), Some(addresses.git_gate_routes)));
    }
    let straight = order.bottle.git.remotes.iter().any(|remote| !remote.upstream.is_https());
    // Like a pipelock it is created on the way out, where its names are asked for, when it has one.
    let (network, address) = if straight {
        others.push(internal);
        (order.bottle.egress.network.clone().unwrap_or_else(|| names.egress.clone()), None)
    } else {
        internal
    };
    let network = NetworkMode::On { network, address, aliases: Vec::new() };
    let mut spec = hardening::sidecar(order, &names.git_gate, git_gate::NAME, &order.images.git_gate, network);
    spec.hosts = BTreeMap::from([(ROUTE_PIPELOCK.to_owned(), Seat::LAUNCH.address(addresses.routes))]);
    spec.dns = straight;
    spec.volumes = vec![SPOOL.to_owned()];
    let container = spec.name.clone();
    let mut lane = vec![Action::Container(Box::new(spec))];
    lane.extend(others.into_iter().map(|(network, address)| Action::Connect {
        container: container.clone(),
        network,
        address,
    }));
    lane
}

/// supervise: beside the agent, with no way out of any kind. It decides nothing and holds nothing that matters.
pub fn supervise(order: &Order, addresses: &Addresses, names: &Names) -> Vec<Action> {
    let network =
        NetworkMode::On { network: names.internal.clone(), address: Some(addresses.supervise), aliases: Vec::new() };
    let spec = hardening::sidecar(order, &names.supervise, supervise::NAME, &order.images.supervise, network);
    vec![Action::Container(Box::new(spec))]
}

fn created(spec: crate::engine::ContainerSpec, (network, address): (&String, std::net::Ipv4Addr)) -> Vec<Action> {
    let container = spec.name.clone();
    vec![
        Action::Container(Box::new(spec)),
        Action::Connect { container, network: network.clone(), address: Some(address) },
    ]
}

fn pipelock_container(
    order: &Order,
    names: &Names,
    name: &str,
    role: &str,
    listen: SocketAddr,
) -> crate::engine::ContainerSpec {
    let network = order.bottle.egress.network.clone().unwrap_or_else(|| names.egress.clone());
    let network = NetworkMode::On { network, address: None, aliases: Vec::new() };
    let mut spec = hardening::sidecar(order, name, role, &order.images.pipelock, network);
    let mut command: Vec<String> =
        ["child", "--health", &listen.to_string(), "--"].iter().map(|s| (*s).to_owned()).collect();
    command.extend(pipelock_config::COMMAND.iter().map(|s| (*s).to_owned()));
    spec.command = Some(command);
    spec.user = format!("{0}:{0}", init::UID);
    spec.dns = true;
    // The keys and the policy live here and nowhere else: in memory, for this one user.
    spec.tmpfs = BTreeMap::from([(
        pipelock_config::DIR.to_owned(),
        format!("uid={0},gid={0},mode=0700,size=16m,noexec,nosuid,nodev", init::UID),
    )]);
    spec.env = BTreeMap::from([(
        pipelock_config::ROOTS_VARIABLE.to_owned(),
        pipelock_config::path(pipelock_config::ROOTS_FILE),
    )]);
    spec
}

/// The agent's pipelock lets the bottle's allowlist through, and the agent's own sidecars.
pub fn pipelock_policy(order: &Order, addresses: &Addresses) -> Result<Policy, PlanError> {
    let egress = &order.bottle.egress;
    let policy = Policy::for_agent(AgentPolicy {
        listen: SocketAddr::from((addresses.pipelock, PIPELOCK_PORT)),
        allowlist: egress.allowlist.iter().map(ToString::to_string).collect(),
        passthrough: egress.passthrough.iter().map(ToString::to_string).collect(),
        allow_private: egress.allow_private.iter().map(ToString::to_string).collect(),
        sidecars: reachable(addresses)
            .into_iter()
            .filter(|(name, _)| name != PIPELOCK)
            .map(|(name, address)| pipelock_config::Sidecar { name, address })
            .collect(),
        agent_credentials: egress.agent_credentials,
    });
    policy.map_err(|e| PlanError::Pipelock(e.to_string()))
}

/// The pipelock of the routes lets the hosts of the routes and of the https remotes through, and nothing else. What git
/// sends is compressed, so that of remotes is not opened.
pub fn route_pipelock_policy(order: &Order, addresses: &Addresses) -> Result<Policy, PlanError> {
    let routes = &order.bottle.routes;
    let remotes = order.bottle.git.remotes.iter().filter(|r| r.upstream.is_https());
    let remotes: BTreeSet<String> = remotes.map(|r| r.upstream.host().to_string()).collect();
    let by_routes = |all: bool| {
        let routes = routes.iter().filter(move |r| all || !r.inspect).map(|r| r.upstream.host.to_string());
        let mut hosts: Vec<String> = routes.collect();
        hosts.extend(remotes.iter().filter(|host| !hosts.contains(host)).cloned().collect::<Vec<_>>());
        hosts
    };
    let policy = Policy::for_routes(RoutePolicy {
        listen: SocketAddr::from((addresses.route_pipelock, PIPELOCK_PORT)),
        allowlist: by_routes(true),
        passthrough: by_routes(false),
        allow_private: order.bottle.egress.allow_private.iter().map(ToString::to_string).collect(),
        credential_headers: routes.iter().filter(|r| r.inspect).filter_map(|r| injected_header(&r.auth)).collect(),
    });
    policy.map_err(|e| PlanError::Pipelock(e.to_string()))
}

/// The header that cred-proxy puts a route's credential into.
fn injected_header(auth: &proxy::Auth) -> Option<String> {
    match auth {
        proxy::Auth::Bearer | proxy::Auth::Token | proxy::Auth::Basic => Some("Authorization".to_owned()),
        proxy::Auth::Header(name) => Some(name.clone()),
        proxy::Auth::None => None,
    }
}

/// cred-proxy's table. Credentials are named by their route's path; certificates are added when they exist.
pub fn cred_proxy_config(order: &Order, addresses: &Addresses) -> proxy::Config {
    let all = &order.bottle.routes;
    let twins = all.iter().filter_map(|route| super::roles::twin(route, all));
    // What is read from a file or by a command may have changed by the time that an upstream rejects it.
    let fresh = |route: &&crate::manifest::Route| match &route.token_ref {
        Some(TokenRef::File(_) | TokenRef::Command { .. }) => true,
        Some(TokenRef::Env(_)) | None => false,
    };
    proxy::Config {
        proxy: Some(seat::proxy(addresses)),
        routes: all.iter().map(cred_proxy_route).chain(twins).collect(),
        refreshable: all.iter().filter(fresh).map(|route| route.path.clone()).collect(),
        limits: order.bottle.proxy_limits,
        ..proxy::Config::closed(SocketAddr::from((addresses.cred_proxy, proxy::PORT)))
    }
}

/// A route as cred-proxy is told of it.
pub fn cred_proxy_route(route: &crate::manifest::Route) -> proxy::Route {
    proxy::Route {
        path: route.path.clone(),
        upstream: route.upstream.to_string(),
        auth: route.auth.clone(),
        secret: route.token_ref.as_ref().map(|_| route.path.clone()),
        inspected: route.inspect,
        allow: route.allow.clone(),
    }
}

/// git-gate's table. Secrets are named by [`credential_name`] and [`passphrase_name`].
pub fn git_gate_config(order: &Order, addresses: &Addresses) -> git_gate::config::Config {
    let remotes = &order.bottle.git.remotes;
    git_gate::config::Config {
        listen: SocketAddr::from((addresses.git_gate, git_gate::PORT)),
        remotes: remotes.iter().map(git_gate_remote).collect(),
        proxy: remotes.iter().any(|remote| remote.upstream.is_https()).then(|| seat::proxy(addresses)),
        inspected_ca: None,
        upstream_roots: String::new(),
        known: Vec::new(),
        spool: SPOOL.into(),
        limits: git_gate::limits::Limits::default(),
    }
}

/// What supervise is told once; how the bottle is, it is told whenever that changes.
pub fn supervise_config(addresses: &Addresses) -> supervise::config::Config {
    supervise::config::Config {
        listen: SocketAddr::from((addresses.supervise, supervise::PORT)),
        wait_seconds: ASK_WAITS_SECONDS,
    }
}

fn git_gate_remote(remote: &Remote) -> git_gate::config::Remote {
    let secret = credential_name(&remote.name);
    let (credential, host_key) = match &remote.credential {
        RemoteCredential::SshKey { host_key, .. } => {
            (git_gate::config::Credential::SshKey { secret, passphrase: None }, Some(host_key.clone()))
        }
        RemoteCredential::Bearer(_) => (git_gate::config::Credential::Bearer { secret }, None),
        RemoteCredential::Basic { .. } => (git_gate::config::Credential::Basic { secret }, None),
        RemoteCredential::None => (git_gate::config::Credential::None, None),
    };
    git_gate::config::Remote {
        name: remote.name.clone(),
        upstream: remote.upstream.to_string(),
        credential,
        host_key,
        inspected: false,
        push: remote.push.clone(),
        exceptions: remote.exceptions.clone(),
    }
}

/// What git-gate calls the key or token of a remote.
pub fn credential_name(remote: &str) -> String {
    format!("credential of {remote}")
}

/// What git-gate calls what opens the key of a remote.
pub fn passphrase_name(remote: &str) -> String {
    format!("passphrase of {remote}")
}

impl Bottle {
    /// Does anything go out by route-pipelock?
    pub fn needs_route_pipelock(&self) -> bool {
        !self.routes.is_empty() || self.git.remotes.iter().any(|remote| remote.upstream.is_https())
    }
}

impl std::fmt::Display for RemoteUpstream {
    /// As git-gate reads it; the port is left out where it is the scheme's own.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (port, own) = match self {
            Self::Ssh { user, host, port, .. } => {
                write!(f, "ssh://{user}@{host}")?;
                (port, 22)
            }
            Self::Https { host, port, .. } => {
                write!(f, "https://{host}")?;
                (port, 443)
            }
        };
        if *port != own {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.url_path())
    }
}

/// Names and addresses that the agent may reach, those of sidecars that may come later included. The wall lets packets
/// to these through, and to nothing else.
pub fn reachable(addresses: &Addresses) -> BTreeMap<String, std::net::Ipv4Addr> {
    BTreeMap::from([
        (PIPELOCK.to_owned(), addresses.pipelock),
        (proxy::NAME.to_owned(), addresses.cred_proxy),
        (git_gate::NAME.to_owned(), addresses.git_gate),
        (supervise::NAME.to_owned(), addresses.supervise),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_may_pass_in_the_header_that_cred_proxy_puts_it_into() {
        for (auth, header) in [
            (proxy::Auth::Bearer, Some("Authorization")),
            (proxy::Auth::Token, Some("Authorization")),
            (proxy::Auth::Basic, Some("Authorization")),
            (proxy::Auth::Header("X-Goog-Api-Key".to_owned()), Some("X-Goog-Api-Key")),
            (proxy::Auth::None, None),
        ] {
            assert_eq!(injected_header(&auth).as_deref(), header, "{auth:?}");
        }
    }
}
