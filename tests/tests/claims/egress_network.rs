//! The way out is one way: nothing on the host's side can use a sidecar, and sidecars listen on internal addresses alone.

use super::docker::{Plain, address, addresses, docker, inspect};
use bottle_tests::harness::Site;
use serde_json::json;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Connects to every place at once; prints what answered.
const DIAL: &str = r#"
import select, socket, sys, time
streams = []
for place in sys.argv[1:]:
    host, port = place.rsplit(":", 1)
    s = socket.socket(); s.setblocking(False); s.connect_ex((host, int(port))); streams.append((place, s))
time.sleep(1.5)
for place, s in streams:
    try: s.getpeername(); print("connected", place)
    except OSError: pass
"#;

#[test]
fn nothing_outside_can_use_a_sidecar() {
    let Some(site) = Site::new() else { return };
    let image = site.clients();
    let token = site.path("config/token");
    std::fs::write(&token, "unused").unwrap();
    // No network is named: the bottle has a way out of its own.
    site.bottle("dev", &format!(
        "agent:\n  provider: shell\n  image: {image}\negress:\n  allowlist: [files.world.example]\ncred_proxy:\n  routes:\n    \
         - path: /api/\n      upstream: https://api.world.example\n      auth_scheme: Bearer\n      token_ref: {{file: {}}}\n",
        token.display()
    ));
    site.agent("claims-egress", "dev");
    let bottle = site.run("claims-egress").detached(&["sleep", "600"]);
    let egress = format!("bottle-{}-egress", bottle.id());
    let network = inspect(&egress);
    assert_eq!(network["Options"]["com.docker.network.bridge.enable_icc"], json!("false"));
    for container in ["pipelock", "route-pipelock", "cred-proxy", "agent"] {
        for ip in addresses(&bottle.container(container)) {
            assert!(ip.is_private(), "{container} is at {ip}, which pipelock's guard would not know as internal");
        }
    }
    let on_egress = ["pipelock", "route-pipelock"].map(|role| address(&bottle.container(role), &egress));
    let inside: Vec<Ipv4Addr> = ["pipelock", "route-pipelock", "cred-proxy"]
        .iter()
        .flat_map(|role| addresses(&bottle.container(role)))
        .filter(|ip| !on_egress.contains(ip))
        .collect();
    assert_eq!(inside.len(), 4, "pipelock, route-pipelock, and cred-proxy on two networks: {inside:?}");
    let ports = [22, 53, 80, 443, 6060, 8080, 8888, 8889, 8890, 9090, 9099, 9100, 9418];
    let places: Vec<String> =
        on_egress.iter().chain(&inside).flat_map(|ip| ports.map(|port| format!("{ip}:{port}"))).collect();
    let places: Vec<&str> = places.iter().map(String::as_str).collect();

    // From the host as another user, from the default bridge, and from a stranger on the very network. Who dials is not
    // asked: an address that no network here has may well be answered for by somebody further out.
    let roles = ["pipelock", "route-pipelock", "cred-proxy"];
    let pids = roles.map(|role| inspect(&bottle.container(role))["State"]["Pid"].as_i64().unwrap());
    let taken = || pids.map(accepted);
    let before = taken();
    let own: Vec<&str> = places.iter().copied().filter(|p| p.ends_with(":8888") || p.ends_with(":9099")).collect();
    let dial =
        "for p in \"$@\"; do timeout 1 bash -c \"exec 3<>/dev/tcp/${p%:*}/${p##*:}\" 2>/dev/null & done; wait; true";
    let host = Command::new("bash").args(["-c", dial, "bash"]).args(&own).uid(65_534).gid(65_534).status().unwrap();
    assert!(host.success(), "the host's user can dial");
    assert_eq!(taken(), before, "a sidecar took a connection of the host's");
    let elsewhere = Plain::start(&[&image, "sleep", "600"]);
    let stranger = Plain::start(&["--network", &egress, &image, "sleep", "600"]);
    for (who, from) in [("the default bridge", &elsewhere), ("the same network", &stranger)] {
        from.exec(&[&["python3", "-c", DIAL], places.as_slice()].concat()).ok();
        assert_eq!(taken(), before, "a sidecar took a connection from {who}");
    }
    drop(stranger);
    // What listens does so on internal addresses alone, by the kernel's own table.
    for (role, pid) in roles.iter().zip(pids) {
        let listening = listeners(pid);
        assert!(!listening.is_empty(), "{role} listens");
        for (ip, port) in listening {
            // The engine's own resolver has a port of its own on loopback.
            let documented = inside.contains(&ip) && [8888, 9099].contains(&port);
            assert!(ip.is_loopback() || documented, "{role} listens on {ip}:{port}");
        }
    }
    // The one who may is answered.
    let said = bottle.exec(&["python3", "-c", DIAL, "pipelock:8888", "cred-proxy:9099"]).ok().stdout;
    assert_eq!(said.lines().count(), 2, "{said}");
    assert_ne!(taken(), before, "a connection that is taken is counted");
    bottle.stop();
    site.assert_nothing_left();
    assert_ne!(docker(&["network", "inspect", &egress]).status, 0);
}

/// How many connections the network of a process has taken since it began.
fn accepted(pid: i64) -> u64 {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/snmp")).unwrap();
    let mut rows = table.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let place = rows.next().and_then(|names| names.split(' ').position(|name| name == "PassiveOpens")).unwrap();
    rows.next().and_then(|values| values.split(' ').nth(place)?.parse().ok()).unwrap()
}

/// Where a process's network listens over TCP.
fn listeners(pid: i64) -> Vec<(Ipv4Addr, u16)> {
    let table = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap();
    let hex = |text: &str| u32::from_str_radix(text, 16).ok();
    let four = table("tcp")
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (ip, port) = fields.get(1)?.split_once(':')?;
            (fields.get(3) == Some(&"0A"))
                .then_some((Ipv4Addr::from(hex(ip)?.swap_bytes()), u16::try_from(hex(port)?).ok()?))
        })
        .collect();
    let six = table("tcp6").lines().skip(1).filter(|l| l.split_whitespace().nth(3) == Some("0A")).count();
    assert_eq!(six, 0, "nobody listens on IPv6");
    four
}

#[test]
fn subnets_outside_the_private_ranges_are_refused() {
    let Some(site) = Site::new() else { return };
    let image = site.clients();
    site.bottle("dev", &format!("agent:\n  provider: shell\n  image: {image}\n"));
    site.agent("claims-subnets", "dev");
    let config = site.path("config/bottle/config.toml");
    let before = std::fs::read_to_string(&config).unwrap();
    for (pool, good) in
        [("10.213.0.0/16", true), ("198.18.0.0/16", false), ("100.64.0.0/16", false), ("8.8.0.0/16", false)]
    {
        std::fs::write(&config, format!("{before}subnet_pool = \"{pool}\"\n")).unwrap();
        let planned = site.run("claims-subnets").args(&["--dry-run"]).to_end(&["true"]);
        assert_eq!(planned.status == 0, good, "{pool}: {planned:#?}");
    }
}
