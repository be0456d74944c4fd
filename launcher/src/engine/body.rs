//! Plain specs to the engine's request bodies. Pure: nothing here talks to an engine, and all hardening that is the same
//! for every container is said here once. It must never let a field of a spec take a rule of the list away.

use super::{ContainerSpec, NetworkMode, NetworkSpec, Owner};
use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig, HostConfigLogConfig, Ipam,
    IpamConfig, Mount, MountType, MountVolumeOptions, NetworkCreateRequest, NetworkingConfig, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};
use std::collections::HashMap;
use std::net::Ipv4Addr;

/// The version written into every label set.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What all label names begin with.
pub const LABEL_PREFIX: &str = "dev.bottle.";

/// The first API version (engine 28) that knows gateway mode `isolated`. Before it `inhibit_ipv4` does the same.
pub const ISOLATED_SINCE: Api = Api { major: 1, minor: 48 };

/// A version of the engine's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Api {
    /// Before the dot.
    pub major: u32,
    /// After it.
    pub minor: u32,
}

/// Where the name server of a container without DNS is said to be. The engine's resolver forwards what it does not know to
/// this address from inside the container's network namespace (seen on engine 20.10; later ones say the same of servers
/// given at create), so a loopback address reaches the container itself and nobody else, in every topology. An
/// unroutable one would leave by a default route wherever there is one.
pub const DEAD_DNS: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// File descriptors a process may have: thousands for an agent, and below the limit of the engine's own process, which it
/// may not exceed (20,000 has been seen).
const FILES_MAX: i64 = 16_384;

/// How much sooner the kernel ends a process of an agent than one of the host when memory is short.
const AGENT_OOM_SCORE: i64 = 500;

/// `inhibit_ipv4`, `gateway_mode_ipv4` and `enable_icc` as the bridge driver calls them.
pub const INHIBIT_IPV4: &str = "com.docker.network.bridge.inhibit_ipv4";
/// See [`INHIBIT_IPV4`].
pub const GATEWAY_MODE: &str = "com.docker.network.bridge.gateway_mode_ipv4";
/// See [`INHIBIT_IPV4`].
pub const ENABLE_ICC: &str = "com.docker.network.bridge.enable_icc";

/// The labels of an object.
pub fn labels(owner: &Owner, role: &str) -> HashMap<String, String> {
    [
        ("id", owner.id.as_str()),
        ("host", &owner.host),
        ("state", &owner.state),
        ("role", role),
        ("agent", &owner.agent),
        ("version", VERSION),
    ]
    .into_iter()
    .map(|(name, value)| (format!("{LABEL_PREFIX}{name}"), value.to_owned()))
    .collect()
}

/// Owner and role as labels say them; `None` where one is missing or empty.
pub fn owner(labels: &HashMap<String, String>) -> Option<(Owner, String)> {
    let get = |name: &str| labels.get(&format!("{LABEL_PREFIX}{name}")).filter(|v| !v.is_empty()).cloned();
    let owner = Owner { id: get("id")?, host: get("host")?, state: get("state")?, agent: get("agent")? };
    Some((owner, get("role")?))
}

/// The body that creates a network.
pub fn network(spec: &NetworkSpec, api: Api) -> NetworkCreateRequest {
    let mut options = HashMap::from([(ENABLE_ICC.to_owned(), spec.icc.to_string())]);
    if spec.internal {
        // An unknown option is ignored in silence, an unknown mode is an error: ask only for what the engine knows.
        match api >= ISOLATED_SINCE {
            true => options.insert(GATEWAY_MODE.to_owned(), "isolated".to_owned()),
            false => options.insert(INHIBIT_IPV4.to_owned(), "true".to_owned()),
        };
    }
    NetworkCreateRequest {
        name: spec.name.clone(),
        driver: Some("bridge".to_owned()),
        internal: Some(spec.internal),
        attachable: Some(false),
        enable_ipv6: Some(false),
        ipam: Some(Ipam {
            driver: Some("default".to_owned()),
            config: Some(vec![IpamConfig { subnet: Some(spec.subnet.to_string()), ..IpamConfig::default() }]),
            options: None,
        }),
        options: Some(options),
        labels: Some(labels(&spec.owner, &spec.role)),
        ..NetworkCreateRequest::default()
    }
}

/// The body that creates a container. `peer` is the engine's id of the network or container that the spec names;
/// `seccomp` the text of its profile.
///
/// An entry point without a command also takes the image's command away; that is the engine's own rule.
pub fn container(spec: &ContainerSpec, seccomp: &str, peer: &str) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: spec.entrypoint.clone(),
        cmd: spec.command.clone(),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        user: Some(spec.user.clone()),
        working_dir: spec.workdir.clone(),
        // The dead man's switch: one reader of standard input, and its end is the end of the container.
        open_stdin: Some(true),
        stdin_once: Some(true),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(false),
        healthcheck: Some(no_health_check()),
        labels: Some(labels(&spec.owner, &spec.role)),
        host_config: Some(host(spec, seccomp, peer)),
        networking_config: networking(spec, peer),
        ..ContainerCreateBody::default()
    }
}

/// Switches a health check of the image off: it would run the image's program at times of its own.
pub fn no_health_check() -> HealthConfig {
    HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }
}

/// One more network of a container.
pub fn endpoint(address: Option<Ipv4Addr>, aliases: &[String]) -> EndpointSettings {
    EndpointSettings {
        ipam_config: address
            .map(|a| EndpointIpamConfig { ipv4_address: Some(a.to_string()), ..EndpointIpamConfig::default() }),
        aliases: (!aliases.is_empty()).then(|| aliases.to_vec()),
        ..EndpointSettings::default()
    }
}

fn host(spec: &ContainerSpec, seccomp: &str, peer: &str) -> HostConfig {
    let memory = clamp(spec.memory_bytes);
    // Who joins a namespace has its names and servers as well; the engine refuses others.
    let names = !matches!(spec.network, NetworkMode::Of(_));
    let dead = names && !spec.dns;
    HostConfig {
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: (!spec.capabilities.is_empty()).then(|| spec.capabilities.clone()),
        security_opt: Some(vec!["no-new-privileges:true".to_owned(), format!("seccomp={seccomp}")]),
        privileged: Some(false),
        readonly_rootfs: Some(spec.read_only),
        tmpfs: Some(spec.tmpfs.iter().map(|(path, options)| (path.clone(), options.clone())).collect()),
        mounts: (!spec.volumes.is_empty()).then(|| spec.volumes.iter().map(|path| volume(spec, path)).collect()),
        publish_all_ports: Some(false),
        memory: Some(memory),
        // The sum of memory and swap: equal to memory means no swap.
        memory_swap: Some(memory),
        nano_cpus: Some(clamp(spec.nano_cpus)),
        pids_limit: Some(clamp(spec.pids)),
        ulimits: Some(vec![ulimit("core", 0), ulimit("nofile", FILES_MAX)]),
        oom_score_adj: Some(if matches!(spec.role.as_str(), "agent" | "build") { AGENT_OOM_SCORE } else { 0 }),
        ipc_mode: Some("private".to_owned()),
        init: Some(false),
        auto_remove: Some(false),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some([("max-size", "1m"), ("max-file", "2")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
        }),
        extra_hosts: names.then(|| spec.hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect()),
        dns: dead.then(|| vec![DEAD_DNS.to_string()]),
        dns_options: dead.then(|| vec!["timeout:1".to_owned(), "attempts:1".to_owned()]),
        // A dot: the host's own search domains stay outside.
        dns_search: dead.then(|| vec![".".to_owned()]),
        storage_opt: spec.disk_bytes.map(|bytes| HashMap::from([("size".to_owned(), bytes.to_string())])),
        runtime: spec.runtime.clone(),
        network_mode: Some(match &spec.network {
            NetworkMode::On { .. } => peer.to_owned(),
            NetworkMode::Of(_) => format!("container:{peer}"),
            NetworkMode::None => "none".to_owned(),
        }),
        ..HostConfig::default()
    }
}

/// Without a name it is anonymous, and removed with the container.
fn volume(spec: &ContainerSpec, path: &str) -> Mount {
    let options = MountVolumeOptions { labels: Some(labels(&spec.owner, &spec.role)), ..MountVolumeOptions::default() };
    Mount {
        target: Some(path.to_owned()),
        typ: Some(MountType::VOLUME),
        volume_options: Some(options),
        ..Mount::default()
    }
}

fn networking(spec: &ContainerSpec, peer: &str) -> Option<NetworkingConfig> {
    let NetworkMode::On { address, aliases, .. } = &spec.network else { return None };
    Some(NetworkingConfig { endpoints_config: Some([(peer.to_owned(), endpoint(*address, aliases))].into()) })
}

fn ulimit(name: &str, value: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(value), hard: Some(value) }
}

fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Api {
    /// Reads `1.41`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl std::fmt::Display for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests;
