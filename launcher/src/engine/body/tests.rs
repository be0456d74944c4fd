use super::*;
use crate::engine::{Seccomp, Subnet};
use std::collections::BTreeMap;

const OLD: Api = Api { major: 1, minor: 41 };

fn owner_() -> Owner {
    Owner { id: "k3v9".to_owned(), host: "h0".to_owned(), state: "s0".to_owned(), agent: "ada".to_owned() }
}

fn spec(role: &str) -> ContainerSpec {
    ContainerSpec {
        name: format!("bottle-k3v9-{role}"),
        role: role.to_owned(),
        owner: owner_(),
        image: "debian:bookworm-slim".to_owned(),
        entrypoint: Some(vec!["/.bottle/bottle-init".to_owned()]),
        command: Some(vec!["agent".to_owned()]),
        env: BTreeMap::from([("TERM".to_owned(), "xterm".to_owned()), ("LANG".to_owned(), "C.UTF-8".to_owned())]),
        user: "64999:64999".to_owned(),
        workdir: None,
        network: NetworkMode::On {
            network: "bottle-k3v9-internal".to_owned(),
            address: Some(Ipv4Addr::new(10, 213, 0, 5)),
            aliases: Vec::new(),
        },
        hosts: BTreeMap::from([("cred-proxy".to_owned(), Ipv4Addr::new(10, 213, 0, 3))]),
        dns: false,
        read_only: false,
        tmpfs: BTreeMap::from([("/run/bottle".to_owned(), "uid=64999,mode=700,size=16m".to_owned())]),
        volumes: Vec::new(),
        memory_bytes: 4 << 30,
        nano_cpus: 2_000_000_000,
        pids: 512,
        disk_bytes: None,
        runtime: None,
        capabilities: Vec::new(),
        seccomp: Seccomp::Bottle,
    }
}

fn agent() -> ContainerSpec {
    ContainerSpec { disk_bytes: Some(20 << 30), runtime: Some("runsc".to_owned()), ..spec("agent") }
}

fn pipelock() -> ContainerSpec {
    ContainerSpec {
        network: NetworkMode::On {
            network: "bottle-k3v9-egress".to_owned(),
            address: Some(Ipv4Addr::new(10, 213, 0, 18)),
            aliases: vec!["pipelock".to_owned()],
        },
        dns: true,
        read_only: true,
        workdir: Some("/".to_owned()),
        ..spec("pipelock")
    }
}

fn wall() -> ContainerSpec {
    ContainerSpec {
        user: "0:0".to_owned(),
        network: NetworkMode::Of("bottle-k3v9-agent".to_owned()),
        read_only: true,
        entrypoint: None,
        command: Some(vec!["10.213.0.3".to_owned()]),
        env: BTreeMap::new(),
        tmpfs: BTreeMap::new(),
        capabilities: vec!["NET_ADMIN".to_owned()],
        seccomp: Seccomp::Wall,
        ..spec("wall")
    }
}

/// Sorted by key: bodies hold hash maps.
fn json(body: &impl serde::Serialize) -> String {
    fn sorted(value: serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(map) => {
                let map: BTreeMap<String, serde_json::Value> = map.into_iter().map(|(k, v)| (k, sorted(v))).collect();
                map.into_iter().collect()
            }
            serde_json::Value::Array(items) => items.into_iter().map(sorted).collect(),
            other => other,
        }
    }
    serde_json::to_string_pretty(&sorted(serde_json::to_value(body).unwrap())).unwrap()
}

#[test]
fn golden_containers() {
    insta::assert_snapshot!("agent", json(&container(&agent(), "{\"bottle\":1}", "id-of-internal")));
    insta::assert_snapshot!("pipelock", json(&container(&pipelock(), "{\"bottle\":1}", "id-of-egress")));
    insta::assert_snapshot!("wall", json(&container(&wall(), "{\"wall\":1}", "id-of-agent")));
}

#[test]
fn golden_networks() {
    let spec = |role: &str, internal, icc| NetworkSpec {
        name: format!("bottle-k3v9-{role}"),
        role: role.to_owned(),
        owner: owner_(),
        subnet: Subnet::parse("10.213.0.0/28").unwrap(),
        internal,
        icc,
    };
    insta::assert_snapshot!("internal", json(&network(&spec("internal", true, true), OLD)));
    insta::assert_snapshot!("internal-28", json(&network(&spec("internal", true, true), ISOLATED_SINCE)));
    insta::assert_snapshot!("egress", json(&network(&spec("egress", false, false), OLD)));
}

/// The list of "Hardening of every container", for every container, whatever its spec says.
#[test]
fn no_spec_softens_a_container() {
    let none = ContainerSpec { network: NetworkMode::None, ..spec("world-api") };
    for spec in [agent(), pipelock(), wall(), none] {
        let body = container(&spec, "PROFILE", "peer");
        let host = body.host_config.unwrap();
        let role = spec.role.as_str();
        assert_eq!(host.cap_drop.unwrap(), ["ALL"], "{role}");
        assert_eq!(host.cap_add, (role == "wall").then(|| vec!["NET_ADMIN".to_owned()]), "{role}");
        assert_eq!(host.security_opt.unwrap(), ["no-new-privileges:true", "seccomp=PROFILE"], "{role}");
        assert_eq!(host.privileged, Some(false), "{role}");
        assert_eq!(host.readonly_rootfs, Some(spec.read_only), "{role}");
        assert_eq!(host.memory, host.memory_swap, "{role}: no swap");
        assert_eq!((host.binds, host.mounts, host.volumes_from), (None, None, None), "{role}: no mounts");
        assert_eq!((host.port_bindings, host.publish_all_ports), (None, Some(false)), "{role}: no ports");
        assert_eq!((host.devices, host.pid_mode, host.userns_mode), (None, None, None), "{role}");
        assert_eq!((body.open_stdin, body.stdin_once, body.tty), (Some(true), Some(true), Some(false)), "{role}");
        assert_eq!(body.healthcheck.unwrap().test.unwrap(), ["NONE"], "{role}");
        let names = !matches!(spec.network, NetworkMode::Of(_));
        assert_eq!(host.dns, (names && !spec.dns).then(|| vec!["127.0.0.1".to_owned()]), "{role}: dead DNS");
        assert_eq!(host.extra_hosts.is_some(), names, "{role}");
    }
}

#[test]
fn labels_say_the_owner_and_only_whole_ones_count() {
    let labels = labels(&owner_(), "agent");
    assert_eq!(owner(&labels), Some((owner_(), "agent".to_owned())));
    for name in ["id", "host", "state", "agent", "role"] {
        let key = format!("{LABEL_PREFIX}{name}");
        let without = labels.iter().filter(|(k, _)| **k != key).map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(owner(&without), None, "without {name}");
        let mut empty = labels.clone();
        empty.insert(key, String::new());
        assert_eq!(owner(&empty), None, "empty {name}");
    }
    let mut other = labels.clone();
    other.remove("dev.bottle.version");
    assert!(owner(&other).is_some(), "the version is for people");
}

#[test]
fn versions_compare_as_numbers() {
    let parse = |text| Api::parse(text).unwrap();
    assert!(parse("1.100") > parse("1.41"));
    assert!(parse("1.41") < ISOLATED_SINCE);
    assert!(parse("1.48") >= ISOLATED_SINCE);
    for bad in ["", "1", "1.", "a.b", "1.41-rc"] {
        assert_eq!(Api::parse(bad), None, "{bad}");
    }
}
