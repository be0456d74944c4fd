//! An agent that wants cred-proxy to fall over: each flood is bounded, hurts that agent alone, and the next good request
//! works. A bottle of its own, since others should not wait for it.

use super::doors::python;
use super::ground::{answers, tag};
use bottle_tests::harness::{Bottle, Site, World, wait_until};

const GOOD: &str = "http://cred-proxy:9099/wire/v1/echo?form=json";

/// Opens connections as fast as it can, as many as it may, sends `word` on each, and keeps them until it is told.
const FLOOD: &str = r#"
import errno, os, resource, selectors, socket, sys, time
wanted, word = int(sys.argv[1]), sys.argv[2].encode().decode("unicode_escape").encode("latin-1")
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
wanted = min(wanted, hard - 50)
place = (socket.gethostbyname("cred-proxy"), 9099)
selector, held, up, refused = selectors.DefaultSelector(), [], 0, 0
until = time.monotonic() + 10
while (len(held) < wanted or selector.get_map()) and time.monotonic() < until:
    for _ in range(200):
        if len(held) >= wanted: break
        s = socket.socket(); s.setblocking(False)
        if s.connect_ex(place) not in (0, errno.EINPROGRESS): refused += 1
        held.append(s); selector.register(s, selectors.EVENT_WRITE)
    for key, _ in selector.select(0.2):
        s = key.fileobj; selector.unregister(s)
        if s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR): refused += 1; continue
        try: s.send(word); up += 1
        except OSError: refused += 1
print("opened", up, "of", wanted, flush=True)
open("/tmp/flooded", "w").close()
while not os.path.exists("/tmp/enough"): time.sleep(0.05)
answered = 0
for s in held:
    try: answered += bool(s.recv(1))
    except OSError: pass
    s.close()
print("answered", answered)
"#;

/// Floods, lets `meanwhile` look, and ends the flood. Gives how many were opened.
fn flood(bottle: &Bottle<'_>, wanted: u32, word: &str, meanwhile: impl FnOnce()) -> u32 {
    bottle.sh("rm -f /tmp/flooded /tmp/enough").ok();
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| python(bottle, FLOOD, &[&wanted.to_string(), word]).stdout);
        wait_until("the flood is there", || (bottle.sh("test -e /tmp/flooded").status == 0).then_some(()));
        meanwhile();
        bottle.sh("touch /tmp/enough").ok();
        let said = flooding.join().unwrap();
        said.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{said}"))
    })
}

fn with_bottle(name: &str, test: impl FnOnce(&Bottle<'_>)) {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let secret = tag("flood");
    let yaml = [world.bottle_yaml(&site.clients()), world.wire_yaml("Bearer", &secret)].concat();
    site.bottle("dev", &yaml);
    site.agent(name, "dev");
    let bottle = site.run(name).detached(&["sleep", "3600"]);
    answers(&bottle, &[GOOD], "200");
    test(&bottle);
    // It is the same process as before: nothing had to be started again, and nothing was said of a credential.
    let log = bottle.log("cred-proxy");
    assert_eq!(log.matches("\"event\":\"ready\"").count(), 1, "{log}");
    assert!(!log.contains("panic") && !log.contains(&secret), "{log}");
    assert!(world.seen("api").iter().all(|e| !e.contains("flooding")), "a half request arrived");
    bottle.stop();
    site.assert_nothing_left();
}

#[test]
fn ten_thousand_connections_pass_by() {
    with_bottle("claims-ten-thousand", |bottle| {
        let opened = flood(bottle, 10_000, "", || {});
        // Those beyond the limit wait in the kernel's queue, whose end is the kernel's affair.
        assert!(opened >= 1000, "{opened}");
        answers(bottle, &[GOOD], "200");
    });
}

#[test]
fn slow_heads_do_not_stop_the_others() {
    with_bottle("claims-slow", |bottle| {
        // Below the limit on connections, each with a head that never ends.
        let opened = flood(bottle, 600, "GET /wire/v1/flooding HTTP/1.1\\r\\nHost: a\\r\\nX: ", || {
            for _ in 0..3 {
                answers(bottle, &[GOOD], "200");
            }
        });
        assert_eq!(opened, 600);
        // And bodies that never come.
        let head = "POST /wire/v1/slow-body HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 1000000\\r\\n\\r\\n";
        flood(bottle, 100, head, || {
            for _ in 0..3 {
                answers(bottle, &[GOOD], "200");
            }
        });
        answers(bottle, &[GOOD], "200");
    });
}

#[test]
fn three_thousand_slow_requests_pass_by() {
    with_bottle("claims-many", |bottle| {
        let request = "GET /wire/v1/slow?ms=60000 HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n";
        let opened = flood(bottle, 3000, request, || {});
        assert!(opened >= 1000, "{opened}");
        answers(bottle, &[GOOD], "200");
    });
}
