//! `bench approve`: from an agent's ask to a person's sight, and from a person's yes to what the agent can reach, in a bottle
//! on a real engine, while a download, streams and steady requests go on. What these lose is counted.
//!
//! ```text
//! cargo run --release -p bottle-tests --bin bench -- approve
//! ```
//!
//! The agent's side takes its times itself, in the container: both clocks are the machine's.

use crate::bars::{self, Bar, Line, median};
use crate::interrupt::{Interrupt, apart};
use bottle_tests::harness::{Bottle, Site, World};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Rounds that count.
pub const ROUNDS: u32 = 5;

const FILES: &str = "files.world.example";
const WIRE: &str = "wire.world.example";
const ASKED: &str = "attacker.world.example";
const RELOADED: &str = "forge.world.example";
const TAKEN_OVER: &str = "npm.world.example";

/// What runs meanwhile, for about ten seconds.
const BYTES: usize = 10 << 20;
const EVENTS: usize = 100;
/// Requests of each of two connections.
const REQUESTS: usize = 450;
/// How long a proposal may take to be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// What was measured, in seconds, a round each.
#[derive(Default)]
struct Numbers {
    visible: Vec<f64>,
    host: Vec<f64>,
    reload: Vec<f64>,
    takeover: Vec<f64>,
    steady: Vec<f64>,
    dropped: usize,
}

/// Measures, and tells the table and the line of JSON.
pub fn bench(interrupt: &Interrupt, tell: &dyn Fn(&str) -> Result<(), String>) -> Result<(), String> {
    let site = Site::new().ok_or("no engine answers")?;
    let world = World::start(&site);
    let yaml = world.bottle_yaml(&site.clients()).replace(&format!("[{FILES}]"), &format!("[{FILES}, {WIRE}]"));
    let open = format!("  passthrough: [{FILES}]\n  agent_credentials: true\n  upstream_roots:");
    site.bottle("bench", &format!("{}supervise: true\n", yaml.replace("  upstream_roots:", &open)));
    site.agent("bench", "bench");
    tell(&format!("pipelock: {}; {ROUNDS} rounds", site.pipelock()))?;
    let mut numbers = Numbers::default();
    // A bottle for each round: a host that is taken back cuts the agent's connections, as it must. The first warms up.
    for number in 0..=ROUNDS {
        interrupt.check()?;
        let bottle = site.run("bench").args(&["--no-workspace"]).detached(&["sleep", "600"]);
        let round = round(&site, &bottle, interrupt);
        bottle.stop();
        let round = round?;
        tell(&format!(
            "round {number}: seen {:.3} s, host {:.3} s, reload {:.3} s, takeover {:.3} s, {:.0} requests/s, {} dropped",
            round.visible[0], round.host[0], round.reload[0], round.takeover[0], round.steady[0], round.dropped
        ))?;
        numbers.dropped += round.dropped;
        if number > 0 {
            numbers.visible.extend(round.visible);
            numbers.host.extend(round.host);
            numbers.reload.extend(round.reload);
            numbers.takeover.extend(round.takeover);
            numbers.steady.extend(round.steady);
        }
    }
    let line = |name, values: &[f64], bar, detail: &str| {
        let spread = values.iter().map(|v| format!("{v:.3}")).collect::<Vec<_>>().join(" ");
        Line { name, value: median(values), bar, detail: format!("{detail}: {spread}") }
    };
    let lines = [
        line("ask_visible_s", &numbers.visible, Some(Bar::Most(0.3)), "the agent's call to `launcher proposals`"),
        line("host_live_s", &numbers.host, Some(Bar::Most(1.0)), "`launcher approve` to told and reached"),
        line("route_live_s", &numbers.reload, Some(Bar::Most(0.6)), "the same"),
        line("route_takeover_s", &numbers.takeover, Some(Bar::Most(2.0)), "the same"),
        line("requests_per_s", &numbers.steady, None, "through cred-proxy meanwhile"),
        Line {
            name: "dropped",
            #[allow(clippy::cast_precision_loss, reason = "it is a handful")]
            value: numbers.dropped as f64,
            bar: Some(Bar::Most(0.0)),
            detail: "bytes, events and requests of all rounds".to_owned(),
        },
    ];
    tell(&bars::table(&lines))?;
    tell(&bars::json(&lines))
}

fn round(site: &Site, bottle: &Bottle<'_>, interrupt: &Interrupt) -> Result<Numbers, String> {
    let streams = Streams::begin(site, bottle)?;
    let mut numbers = Numbers::default();
    let host = serde_json::json!({ "hosts": [ASKED], "justification": "bench" });
    // A name that the agent cannot reach even then is refused by pipelock itself or not at all.
    let look = format!("curl -sk -o /dev/null -w '%{{http_connect}}' -m 5 https://{ASKED}/");
    let (visible, live) = change(site, bottle, ("p1", "pipelock-block", &host), (&look, "200"), &[])?;
    numbers.visible.push(visible);
    numbers.host.push(live);
    interrupt.check()?;
    for (id, path, upstream, code, more) in
        [("p2", "/forge/", RELOADED, "401", &[][..]), ("p3", "/packages/", TAKEN_OVER, "200", &["--no-inspect"])]
    {
        let route = serde_json::json!({
            "path": path, "upstream": format!("https://{upstream}"), "scheme": "none", "allow": ["GET /**"],
            "justification": "bench",
        });
        let look = format!("curl -s -o /dev/null -w '%{{http_code}}' -m 5 http://cred-proxy:9099{path}world-tree");
        let (visible, live) = change(site, bottle, (id, "cred-proxy-block", &route), (&look, code), more)?;
        numbers.visible.push(visible);
        if more.is_empty() { &mut numbers.reload } else { &mut numbers.takeover }.push(live);
        interrupt.check()?;
    }
    for id in ["p3", "p2"] {
        succeeded(site.command().args(["revoke", bottle.id(), id, "--yes"]))?;
    }
    let (dropped, steady) = streams.end()?;
    numbers.dropped = dropped;
    numbers.steady.push(steady);
    // One figure a round: the middle of its three.
    numbers.visible = vec![median(&numbers.visible)];
    Ok(numbers)
}

/// An agent asks, a person says yes, and the agent reaches it. Gives how long it took to be seen, and to be reached.
fn change(
    site: &Site,
    bottle: &Bottle<'_>,
    (id, tool, arguments): (&str, &str, &serde_json::Value),
    (look, wanted): (&str, &str),
    more: &[&str],
) -> Result<(f64, f64), String> {
    let body = serde_json::json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": arguments },
    });
    // It waits for a word before it asks, so that its own start is not measured.
    let script = format!(
        "echo up; read go; date +%s.%N; curl -sS -N -m 50 -X POST http://supervise:9100/mcp -H 'Content-Type: \
         application/json' -H 'Accept: application/json, text/event-stream' -H 'MCP-Protocol-Version: 2025-06-18' \
         -d '{body}' | grep -o '\"status\":\"[a-z]*\"' | tail -n 1; echo \"$({look})\"; date +%s.%N"
    );
    let mut agent = Agent::start(site, bottle, &script)?;
    agent.line()?;
    agent.go()?;
    let asked = seconds(&agent.line()?)?;
    let began = std::time::Instant::now();
    let seen = loop {
        let output = succeeded(site.command().args(["proposals", bottle.id(), "--output", "json"]))?;
        if output.contains(&format!("\"id\":\"{id}\"")) {
            break now();
        }
        if began.elapsed() > SEEN_WITHIN {
            return Err(format!("{id} is never seen: {output}"));
        }
    };
    let said = now();
    succeeded(site.command().args(["approve", bottle.id(), id, "--yes"]).args(more))?;
    let (told, reached, at) = (agent.line()?, agent.line()?, seconds(&agent.line()?)?);
    if !told.contains("approved") || reached != wanted {
        return Err(format!("{id}: told {told:?}, and the look says {reached:?} and not {wanted:?}"));
    }
    Ok((seen - asked, at - said))
}

/// A script in the agent's container.
struct Agent {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Agent {
    fn start(site: &Site, bottle: &Bottle<'_>, script: &str) -> Result<Self, String> {
        let mut command = site.command();
        command.args(["exec", bottle.id(), "--", "sh", "-c", script]);
        let mut child = apart(command.stdin(Stdio::piped()).stdout(Stdio::piped()))
            .spawn()
            .map_err(|e| format!("the launcher cannot be run: {e}"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the child has no pipes".to_owned());
        };
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    fn go(&mut self) -> Result<(), String> {
        self.input.write_all(b"go\n").map_err(|e| format!("the agent does not read: {e}"))
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(|e| format!("the agent cannot be read: {e}"))?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It has ended, or is of no more use.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What runs while things are approved.
struct Streams {
    download: Child,
    agents: Child,
    routes: Child,
    steady: [Child; 2],
}

impl Streams {
    fn begin(site: &Site, bottle: &Bottle<'_>) -> Result<Self, String> {
        let curl = |args: &[&str]| {
            let mut command = site.command();
            command.args(["exec", bottle.id(), "--", "curl", "-sS", "-N", "-m", "58"]).args(args);
            let spawned = apart(command.stdin(Stdio::null()).stdout(Stdio::piped())).spawn();
            spawned.map_err(|e| format!("the launcher cannot be run: {e}"))
        };
        let steady = format!("http://cred-proxy:9099/api/v1/slow?ms=10&n=[1-{REQUESTS}]");
        let steady = || curl(&["-o", "/dev/null", "-w", "%{http_code} %{time_total}\n", &steady]);
        let big = format!("https://{FILES}/big?n={BYTES}");
        let events = format!("https://{WIRE}/v1/sse?n={EVENTS}&ms=100");
        let streams = Self {
            download: curl(&["--limit-rate", "1M", "-o", "/tmp/big", "-w", "%{size_download}", &big])?,
            agents: curl(&["-H", "Authorization: Bearer of-the-agent", &events])?,
            routes: curl(&[&format!("http://cred-proxy:9099/api/v1/stream?n={EVENTS}&ms=100")])?,
            steady: [steady()?, steady()?],
        };
        bottle.wait_for_file("/tmp/big");
        Ok(streams)
    }

    /// What was lost, and how many requests there were a second.
    fn end(self) -> Result<(usize, f64), String> {
        let said = |child: Child| -> Result<String, String> {
            let output = child.wait_with_output().map_err(|e| format!("a stream cannot be waited for: {e}"))?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let bytes: usize = said(self.download)?.trim().parse().unwrap_or(0);
        let mut dropped = BYTES - bytes.min(BYTES);
        for stream in [self.agents, self.routes] {
            let events = said(stream)?.lines().filter(|line| line.starts_with("data:")).count();
            dropped += EVENTS - events.min(EVENTS);
        }
        let mut rate = 0.0;
        for steady in self.steady {
            let lines = said(steady)?;
            let good: Vec<f64> = lines.lines().filter_map(|line| line.strip_prefix("200 ")?.parse().ok()).collect();
            dropped += REQUESTS - good.len().min(REQUESTS);
            rate += 1.0 / (good.iter().sum::<f64>() / f64::from(u32::try_from(good.len()).unwrap_or(1)));
        }
        Ok((dropped, rate))
    }
}

fn succeeded(command: &mut std::process::Command) -> Result<String, String> {
    let output = apart(command).output().map_err(|e| format!("the launcher cannot be run: {e}"))?;
    if !output.status.success() {
        return Err(format!("the launcher says no: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn seconds(line: &str) -> Result<f64, String> {
    line.parse().map_err(|_| format!("{line:?} is no time"))
}
