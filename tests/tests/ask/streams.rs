//! What is open while something is approved and taken back loses nothing: a download past an inspecting pipelock, a stream of
//! events through the agent's pipelock, another one and steady requests through cred-proxy.

use super::scene::{NEIGHBOUR, approve, ask_hosts, call, fresh, reaches, wait_for_pending};
use bottle_tests::harness::{Bottle, Site, World, finish, signal, wait_until};
use rustix::process::Signal;
use serde_json::json;
use std::process::{Child, Stdio};

const FILES: &str = "files.world.example";
const FORGE: &str = "forge.world.example";
const WIRE: &str = "wire.world.example";
const ATTACKER: &str = "attacker.world.example";
const BYTES: u32 = 12 << 20;
const EVENTS: usize = 120;
const REQUESTS: usize = 600;

/// What runs meanwhile. Nothing of it is timed: it is long, and begins before anything is approved.
struct Streams {
    download: Child,
    agents: Child,
    routes: Option<(Child, Child)>,
}

impl Streams {
    fn begin(site: &Site, bottle: &Bottle<'_>, with_route: bool) -> Self {
        let curl = |args: &[&str]| {
            let mut command = site.command();
            command.args(["exec", bottle.id(), "--", "curl", "-sS", "-N", "-m", "58"]).args(args);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let (big, events) =
            (format!("https://{FILES}/big?n={BYTES}"), format!("https://{WIRE}/v1/sse?n={EVENTS}&ms=100"));
        let download = curl(&["--limit-rate", "1M", "-o", "/tmp/big", "-w", "%{size_download}", &big]);
        let agents = curl(&["-H", "Authorization: Bearer of-the-agent", &events]);
        let routes = with_route.then(|| {
            let events = format!("http://cred-proxy:9099/api/v1/stream?n={EVENTS}&ms=100");
            let steady = format!("http://cred-proxy:9099/api/v1/slow?ms=8&n=[1-{REQUESTS}]");
            (curl(&[&events]), curl(&["-o", "/dev/null", "-w", "%{http_code}\n", &steady]))
        });
        bottle.wait_for_file("/tmp/big");
        Self { download, agents, routes }
    }

    #[track_caller]
    fn lost_nothing(self) {
        assert_eq!(finish(self.download).ok().stdout.trim(), BYTES.to_string());
        let events = |child: Child| {
            let output = finish(child).ok();
            output.stdout.lines().filter(|line| line.starts_with("data:")).count()
        };
        assert_eq!(events(self.agents), EVENTS);
        if let Some((stream, steady)) = self.routes {
            assert_eq!(events(stream), EVENTS);
            let codes = finish(steady).ok().stdout;
            assert_eq!(codes.lines().filter(|code| *code == "200").count(), REQUESTS, "{codes}");
        }
    }
}

/// A bottle's YAML in which the streams find what they need.
fn yaml(site: &Site, world: &World<'_>) -> String {
    let yaml = world.bottle_yaml(&site.clients()).replace(&format!("[{FILES}]"), &format!("[{FILES}, {WIRE}]"));
    yaml.replace(
        "  upstream_roots:",
        &format!("  passthrough: [{FILES}]\n  agent_credentials: true\n  upstream_roots:"),
    )
}

fn bottle<'a>(site: &'a Site, yaml: &str) -> Bottle<'a> {
    site.bottle("dev", &format!("{yaml}supervise: true\n"));
    let name = fresh("ask");
    site.agent(&name, "dev");
    site.run(&name).args(&["--no-workspace"]).detached(&["sleep", "900"])
}

/// A route is asked for and approved.
#[track_caller]
fn route(site: &Site, bottle: &Bottle<'_>, (id, path, host): (&str, &str, &str), more: &[&str]) -> String {
    let arguments = json!({
        "path": path, "upstream": format!("https://{host}"), "scheme": "none", "allow": ["GET /**"],
        "justification": "to install what the build needs",
    });
    let asked = call(site, bottle, "cred-proxy-block", &arguments);
    wait_for_pending(site, bottle, id);
    let output = approve(site, bottle, id, more).ok();
    assert_eq!(asked.answer()["status"], "approved");
    output.stderr
}

/// The status of what a route answers; 404 with no word of the world's is cred-proxy's.
fn status(bottle: &Bottle<'_>, path: &str) -> String {
    let url = format!("http://cred-proxy:9099{path}");
    bottle.exec(&["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-m", "20", &url]).ok().stdout
}

fn there(bottle: &Bottle<'_>, role: &str) -> bool {
    let name = bottle.container(role);
    let output = std::process::Command::new("docker").args(["inspect", &name]).output().unwrap();
    output.status.success()
}

#[test]
fn nothing_is_lost_while_a_host_and_routes_of_each_kind_are_approved_and_taken_back() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let bottle = bottle(&site, &yaml(&site, &world));
    let streams = Streams::begin(&site, &bottle, true);
    let call = ask_hosts(&site, &bottle, &[ATTACKER]);
    wait_for_pending(&site, &bottle, "p1");
    approve(&site, &bottle, "p1", &[]).ok();
    assert_eq!(call.answer()["status"], "approved");
    // A route that route-pipelock takes while it runs, and one that it does not.
    let shown = route(&site, &bottle, ("p2", "/forge/", FORGE), &[]);
    assert!(shown.contains("its TLS is opened") && !shown.contains("takes over"), "{shown}");
    assert_eq!(status(&bottle, "/forge/x"), "401", "the host itself answers");
    let shown = route(&site, &bottle, ("p3", "/packages/", NEIGHBOUR), &["--no-inspect"]);
    assert!(shown.contains("not opened") && shown.contains("takes over"), "{shown}");
    assert_eq!(status(&bottle, "/packages/world-tree"), "200");
    assert!(!reaches(&bottle, NEIGHBOUR), "the host itself stays closed");
    assert!(there(&bottle, "route-pipelock") && there(&bottle, "route-pipelock-2"), "streams are open on the first");
    // And back, in all ways.
    for id in ["p3", "p2"] {
        site.launcher(&["revoke", bottle.id(), id, "--yes"]).ok();
    }
    assert_eq!((status(&bottle, "/packages/world-tree"), status(&bottle, "/forge/x")), ("404".into(), "404".into()));
    streams.lost_nothing();
    // With its last stream the first one ends.
    wait_until("route-pipelock has served to its end", || (!there(&bottle, "route-pipelock")).then_some(()));
    assert_eq!(status(&bottle, "/api/v1/echo"), "200");
    bottle.stop();
    site.assert_nothing_left();
}

#[test]
fn nothing_is_lost_while_a_first_route_is_approved() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let yaml = yaml(&site, &world);
    let bottle = bottle(&site, yaml.split("cred_proxy:").next().unwrap());
    let streams = Streams::begin(&site, &bottle, false);
    route(&site, &bottle, ("p1", "/packages/", NEIGHBOUR), &["--no-inspect"]);
    assert_eq!(status(&bottle, "/packages/world-tree"), "200");
    streams.lost_nothing();
    bottle.stop();
    site.assert_nothing_left();
}

#[test]
fn a_route_for_one_request_takes_one() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let bottle = bottle(&site, &yaml(&site, &world));
    let shown = route(&site, &bottle, ("p1", "/packages/", NEIGHBOUR), &["--once"]);
    assert!(shown.contains("uses it up"), "{shown}");
    let url = "http://cred-proxy:9099/packages/world-tree";
    let codes =
        bottle.exec(&["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} ", url, "-o", "/dev/null", url]).ok();
    let codes: Vec<_> = codes.stdout.split_whitespace().map(str::to_owned).collect();
    assert_eq!(codes[0], "200", "{codes:?}");
    assert!(matches!(codes[1].as_str(), "403" | "404"), "{codes:?}");
    wait_until("it is taken back", || (status(&bottle, "/packages/world-tree") == "404").then_some(()));
    assert_eq!(world.seen("api").iter().filter(|e| e.contains("/world-tree")).count(), 1);
    bottle.stop();
}

#[test]
fn a_keeper_that_is_killed_with_two_route_pipelocks_leaves_nothing_to_the_next_command() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let bottle = bottle(&site, &yaml(&site, &world));
    let streams = Streams::begin(&site, &bottle, true);
    route(&site, &bottle, ("p1", "/packages/", NEIGHBOUR), &["--no-inspect"]);
    assert!(there(&bottle, "route-pipelock") && there(&bottle, "route-pipelock-2"));
    signal(bottle.keeper(), Signal::KILL);
    bottle.wait_for_end();
    for child in [Some(streams.download), Some(streams.agents)].into_iter().flatten() {
        finish(child);
    }
    wait_until("what it left can be taken back", || {
        site.launcher(&["cleanup"]);
        site.left().is_empty().then_some(())
    });
    drop(streams.routes.map(|(one, other)| (finish(one), finish(other))));
    site.assert_nothing_left();
}
