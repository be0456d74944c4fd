//! What the tests share: an agent that asks, an operator that answers, and what is open.

use bottle_tests::harness::{Bottle, Output, Site, World, finish, wait_until};
use serde_json::{Value, json};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A host of the world that no bottle here begins with, and its neighbour, which nobody ever approves.
pub const ASKED: &str = "wire.world.example";
/// The neighbour.
pub const NEIGHBOUR: &str = "npm.world.example";

/// A name that no other test has.
pub fn fresh(word: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{word}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A running bottle whose agent may ask. `more` is appended to the world's own manifest.
pub fn asking<'a>(site: &'a Site, world: &World<'_>, more: &str) -> Bottle<'a> {
    site.bottle("dev", &format!("{}{more}supervise: true\n", world.bottle_yaml(&site.clients())));
    let name = fresh("ask");
    site.agent(&name, "dev");
    site.run(&name).args(&["--no-workspace"]).detached(&["sleep", "900"])
}

/// A call of a tool that is under way.
pub struct Call(Child);

impl Call {
    /// What it came to: the structured result, or the error's text under `error`.
    #[track_caller]
    pub fn answer(self) -> Value {
        let output = finish(self.0);
        assert_eq!(output.status, 0, "{output:#?}");
        result(&output.stdout)
    }
}

/// The agent calls a tool of supervise, and waits.
pub fn call(site: &Site, bottle: &Bottle<'_>, tool: &str, arguments: &Value) -> Call {
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": arguments },
    });
    let mut command = site.command();
    command.args(["exec", bottle.id(), "--"]).args(post(&body.to_string()));
    Call(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// The agent says something else to supervise. Gives whatever came back.
pub fn says(bottle: &Bottle<'_>, body: &str) -> Output {
    let words = post(body);
    bottle.exec(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

fn post(body: &str) -> Vec<String> {
    let words = [
        "curl",
        "-sS",
        "-N",
        "-m",
        "58",
        "-X",
        "POST",
        "http://supervise:9100/mcp",
        "-H",
        "Content-Type: application/json",
        "-H",
        "Accept: application/json, text/event-stream",
        "-H",
        "MCP-Protocol-Version: 2025-06-18",
        "-d",
        body,
    ];
    words.map(str::to_owned).to_vec()
}

/// The last result in an answer, which may be one document or a stream of events.
fn result(text: &str) -> Value {
    let documents = text.lines().map(|line| line.strip_prefix("data:").unwrap_or(line).trim());
    let read: Vec<Value> = documents.filter_map(|line| serde_json::from_str(line).ok()).collect();
    let last = read.iter().rev().find(|value| value.get("result").is_some() || value.get("error").is_some());
    let last = last.unwrap_or_else(|| panic!("no result in {text:?}"));
    if let Some(error) = last.get("error") {
        return json!({ "error": error["message"] });
    }
    let result = &last["result"];
    if result["isError"] == true {
        return json!({ "error": result["content"][0]["text"] });
    }
    result["structuredContent"].clone()
}

/// Asks for hosts.
pub fn ask_hosts(site: &Site, bottle: &Bottle<'_>, hosts: &[&str]) -> Call {
    call(site, bottle, "pipelock-block", &json!({ "hosts": hosts, "justification": "the build needs it" }))
}

/// Waits until a person can see a proposal that waits.
#[track_caller]
pub fn wait_for_pending(site: &Site, bottle: &Bottle<'_>, id: &str) {
    wait_until(&format!("{id} waits for a person"), || (status(site, bottle, id)? == "pending").then_some(()));
}

/// Where a proposal is, as the operator sees it.
pub fn status(site: &Site, bottle: &Bottle<'_>, id: &str) -> Option<String> {
    let listed = listing(site, bottle);
    let of = |proposal: &&Value| proposal["proposal"]["id"] == id;
    listed["proposals"].as_array()?.iter().find(of).map(|p| p["answer"]["status"].as_str().unwrap().to_owned())
}

/// What `launcher proposals` has of a bottle.
pub fn listing(site: &Site, bottle: &Bottle<'_>) -> Value {
    let output = site.launcher(&["proposals", bottle.id(), "--output", "json"]).ok();
    let all: Value = serde_json::from_str(&output.stdout).unwrap();
    all[0].clone()
}

/// The operator says yes.
#[track_caller]
pub fn approve(site: &Site, bottle: &Bottle<'_>, id: &str, more: &[&str]) -> Output {
    let mut args = vec!["approve", bottle.id(), id, "--yes"];
    args.extend(more);
    site.launcher(&args)
}

/// Does the agent reach a host by https?
pub fn reaches(bottle: &Bottle<'_>, host: &str) -> bool {
    let url = format!("https://{host}/public/hello");
    let output = bottle.exec(&["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-m", "20", &url]);
    let code = output.stdout.trim().to_owned();
    let is_closed = matches!(output.status, 7 | 35 | 52 | 55 | 56) || code == "403";
    assert!(is_closed || output.status == 0, "neither open nor refused: {output:#?}");
    !is_closed
}
