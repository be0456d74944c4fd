//! Other bottles: none of their containers answers, and none of them hears anything.

use super::docker::addresses;
use super::ground::{Lease, python};
use bottle_tests::harness::wait_until;

/// Takes connections for a while and says who came.
const LISTEN: &str = r#"
import socket
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", 7777)); s.listen(16)
open("/tmp/listening", "w").close()
while True:
    peer, who = s.accept(); word = peer.recv(16).decode()
    print(who[0], word, flush=True)
    if word == "end": break
"#;

const DIAL: &str = r#"
import socket, sys
word, places = sys.argv[1], sys.argv[2:]
for place in places:
    host, port = place.rsplit(":", 1)
    s = socket.socket(); s.settimeout(0.7)
    try: s.connect((host, int(port))); s.sendall(word.encode()); print("connected", place)
    except OSError: pass
"#;

#[test]
fn one_bottle_cannot_reach_another() {
    let Some(ground) = Lease::take() else { return };
    let mut places = Vec::new();
    for (role, port) in [("agent", 7777), ("pipelock", 8888), ("cred-proxy", 9099), ("route-pipelock", 8888)] {
        let ips = addresses(&ground.b.container(role));
        assert!(!ips.is_empty(), "{role} has an address");
        places.extend(ips.iter().map(|ip| format!("{ip}:{port}")));
    }
    let agent = addresses(&ground.b.container("agent"))[0].to_string();
    let stranger: Vec<&str> = std::iter::once("stranger").chain(places.iter().map(String::as_str)).collect();
    std::thread::scope(|scope| {
        let listening = scope.spawn(|| python(&ground.b, LISTEN, &[]));
        wait_until("b's agent listens", || (ground.b.sh("test -e /tmp/listening").status == 0).then_some(()));
        let said = python(&ground.a, DIAL, &stranger);
        // b itself reaches its own, all but the one on a network that it is not on; this also ends the listener.
        let (own, sidecars) = (format!("{agent}:7777"), ["pipelock:8888", "cred-proxy:9099"]);
        let controls = python(&ground.b, DIAL, &["end", &own, sidecars[0], sidecars[1]]);
        let heard = listening.join().unwrap();
        assert_eq!((said.status, said.stdout.as_str()), (0, ""), "a reached b: {said:#?}");
        assert_eq!(controls.stdout.lines().count(), 3, "{controls:#?}");
        assert_eq!(heard.stdout.trim(), format!("{agent} end"), "{heard:#?}");
    });
    let others = python(&ground.a, DIAL, &["x", &format!("{}:80", ground.neighbour_ip())]);
    assert_eq!(others.stdout, "", "{others:#?}");
}
