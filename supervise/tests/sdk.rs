//! The official SDK of MCP against the real sidecar, in both of the protocol's ways: with a handshake, and without.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use serde_json::{Value, json};
use supervise::config::Command;
use supervise::wire::{Change, Current, Denial, Remote, Route, Status};
use world::python::Agent;
use world::{Sidecar, answer};

const MODES: [&str; 2] = ["legacy", "auto"];

fn call(mode: &str, tool: &str, arguments: Value) -> Value {
    json!({ "do": "call", "mode": mode, "tool": tool, "arguments": arguments })
}

fn hosts(mode: &str) -> Value {
    call(mode, "pipelock-block", json!({ "hosts": ["Crates.IO."], "justification": "the build needs it" }))
}

/// Every tool, arguments as an agent may write them, and what the keeper hears.
fn asks() -> [(&'static str, Value, Change); 4] {
    let route = Route {
        path: "/forge/".into(),
        upstream: "https://api.forge.example".into(),
        scheme: "Bearer".into(),
        allow: vec!["GET /repos/**".into()],
    };
    [
        (
            "pipelock-block",
            json!({ "hosts": ["Crates.IO.", "a.example"] }),
            Change::Hosts { hosts: vec!["a.example".into(), "crates.io".into()] },
        ),
        (
            "cred-proxy-block",
            json!({ "path": "/forge/", "upstream": "https://api.forge.example/", "scheme": "Bearer", "allow": ["GET /repos/**"] }),
            Change::Route(route),
        ),
        (
            "git-gate-block",
            json!({ "fingerprint": "0123456789AB" }),
            Change::Finding { fingerprint: "0123456789ab".into() },
        ),
        (
            "capability-block",
            json!({ "dockerfile": "FROM a\r\nRUN b\r\n" }),
            Change::Dockerfile { text: "FROM a\nRUN b\n".into() },
        ),
    ]
}

#[test]
fn tools_and_resources_say_what_they_are_for() {
    let sidecar = Sidecar::start(45);
    let Some(mut agent) = Agent::new(&sidecar.url()) else { return };
    for mode in MODES {
        let listed = agent.all_of(&json!({ "do": "list", "mode": mode }));
        let names = |what: &str, key: &str| -> Vec<String> {
            let all = listed[what].as_array().unwrap_or_else(|| panic!("{mode}: {listed}"));
            all.iter().map(|one| one[key].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(
            names("tools", "name"),
            ["pipelock-block", "cred-proxy-block", "git-gate-block", "capability-block", "check-proposal"]
        );
        for tool in listed["tools"].as_array().unwrap() {
            assert!(tool["description"].as_str().unwrap().len() > 60, "{tool}");
            assert_eq!(tool["inputSchema"]["additionalProperties"], json!(false), "{tool}");
            assert!(tool["outputSchema"]["properties"]["status"].is_object(), "{tool}");
        }
        assert_eq!(
            names("resources", "uri"),
            ["allowlist", "routes", "git", "dockerfile", "denials", "proposals"].map(|name| format!("bottle://{name}"))
        );
        assert!(listed["instructions"].as_str().unwrap().contains("check-proposal"), "{mode}");
    }
}

#[test]
fn every_tool_reaches_the_keeper_and_waits_for_the_verdict() {
    for mode in MODES {
        // One for each way of the protocol: it takes no more than twenty asks at once.
        let mut sidecar = Sidecar::start(3600);
        let Some(mut agent) = Agent::new(&sidecar.url()) else { return };
        let mut id = 0;
        for (tool, mut arguments, change) in asks() {
            arguments["justification"] = json!("the build needs it");
            for status in [Status::Approved, Status::Modified, Status::Rejected, Status::Failed] {
                id += 1;
                let name = format!("p{id}");
                let number = agent.begin(&call(mode, tool, arguments.clone()));
                let ask = sidecar.queued(&name);
                assert_eq!((ask.change, ask.justification.as_str()), (change.clone(), "the build needs it"));
                let mut verdict = answer(&name, status, "as you like");
                if status == Status::Modified {
                    verdict.applied = Some(change.clone());
                    verdict.until = Some(1_800_000_000);
                }
                sidecar.tell(verdict.clone());
                let outcome = agent.outcome(number);
                assert_eq!(outcome["is_error"], json!(false), "{mode} {tool}: {outcome}");
                assert_eq!(outcome["answer"], serde_json::to_value(&verdict).unwrap(), "{mode} {tool}");
                // Some clients show an agent the text alone.
                let text: Value = serde_json::from_str(outcome["text"].as_str().unwrap()).unwrap();
                assert_eq!(text, outcome["answer"]);
                let checked = agent.all_of(&call(mode, "check-proposal", json!({ "id": name, "wait_seconds": 0 })));
                assert_eq!(checked["answer"], outcome["answer"]);
            }
        }
    }
}

#[test]
fn what_cannot_be_asked_is_a_tools_error_with_the_reason() {
    let mut sidecar = Sidecar::start(45);
    let Some(mut agent) = Agent::new(&sidecar.url()) else { return };
    for mode in MODES {
        for (tool, arguments, wanted) in [
            ("pipelock-block", json!({ "hosts": ["127.1"], "justification": "j" }), "an address is never granted"),
            ("pipelock-block", json!({ "hosts": ["metadata.google.internal"], "justification": "j" }), "metadata"),
            ("pipelock-block", json!({ "hosts": ["a.example"] }), "justification"),
            ("pipelock-block", json!({ "hosts": ["a.example"], "justification": " " }), "say in justification why"),
            ("pipelock-block", json!({ "hosts": ["a.example"], "justification": "j", "token": "t" }), "unknown field"),
            ("git-gate-block", json!({ "fingerprint": "all", "justification": "j" }), "12 to 64 hexadecimal"),
            ("check-proposal", json!({ "id": "p99" }), "there is no proposal"),
        ] {
            let outcome = agent.all_of(&call(mode, tool, arguments));
            let text = outcome["text"].as_str().unwrap_or_else(|| panic!("{outcome}"));
            assert!(outcome["is_error"] == json!(true) && text.contains(wanted), "{mode} {wanted}: {outcome}");
        }
        assert!(sidecar.heard().is_none(), "the keeper hears nothing of it");
        let number = agent.begin(&hosts(mode));
        let call = sidecar.ask().call;
        sidecar.say(&Command::Denied { call, reason: "crates.io is the host of a git remote".into() });
        sidecar.obeyed();
        let outcome = agent.outcome(number);
        assert_eq!(outcome["is_error"], json!(true), "{outcome}");
        assert_eq!(outcome["text"], json!("crates.io is the host of a git remote"));
    }
}

#[test]
fn an_answer_that_comes_late_is_collected_later_also_after_a_restart() {
    let mut sidecar = Sidecar::start(0);
    let Some(mut agent) = Agent::new(&sidecar.url()) else { return };
    let number = agent.begin(&hosts("auto"));
    sidecar.queued("p1");
    let outcome = agent.outcome(number);
    assert_eq!(
        (&outcome["answer"]["status"], &outcome["answer"]["id"]),
        (&json!("pending"), &json!("p1")),
        "{outcome}"
    );
    let check = call("auto", "check-proposal", json!({ "id": "p1", "wait_seconds": 45 }));
    assert_eq!(agent.all_of(&check)["answer"]["status"], json!("pending"));
    sidecar.tell(answer("p1", Status::Approved, "open"));
    assert_eq!(agent.all_of(&check)["answer"]["status"], json!("approved"));
    drop((agent, sidecar));

    // The sidecar held nothing that mattered: the keeper tells it all again.
    let told = vec![answer("p1", Status::Approved, "open"), answer("p2", Status::Pending, "wait")];
    let mut sidecar = Sidecar::start_with(3600, Current::default(), told);
    let Some(mut agent) = Agent::new(&sidecar.url()) else { return };
    assert_eq!(agent.all_of(&check)["answer"]["status"], json!("approved"));
    let number = agent.begin(&call("auto", "check-proposal", json!({ "id": "p2" })));
    // It waits for the verdict, whether that comes before or after it begins to.
    sidecar.tell(answer("p2", Status::Rejected, "no"));
    assert_eq!(agent.outcome(number)["answer"]["notes"], json!("no"));
}

#[test]
fn a_client_that_gives_up_gets_its_verdict_all_the_same() {
    let mut sidecar = Sidecar::start(3600);
    let Some(mut agent) = Agent::new(&sidecar.url()) else { return };
    for (mode, id) in MODES.into_iter().zip(["p1", "p2"]) {
        let mut impatient = hosts(mode);
        impatient["timeout"] = json!(1);
        let number = agent.begin(&impatient);
        sidecar.queued(id);
        let outcome = agent.outcome(number);
        assert!(outcome["failed"].as_str().is_some_and(|words| words.to_lowercase().contains("time")), "{outcome}");
        sidecar.tell(answer(id, Status::Approved, "open"));
        let outcome = agent.all_of(&call(mode, "check-proposal", json!({ "id": id })));
        assert_eq!(outcome["answer"]["status"], json!("approved"), "{outcome}");
    }
}

#[test]
fn whoever_waits_is_told_that_it_still_waits() {
    let mut sidecar = Sidecar::start(3600);
    let Some(mut agent) = Agent::new(&sidecar.url()) else { return };
    for (mode, id) in MODES.into_iter().zip(["p1", "p2"]) {
        let mut watched = hosts(mode);
        watched["progress"] = json!(true);
        let number = agent.begin(&watched);
        sidecar.queued(id);
        assert_eq!(agent.outcome(number)["progress"], json!(format!("{id} waits for a person")));
        sidecar.tell(answer(id, Status::Approved, "open"));
        let outcome = std::iter::from_fn(|| Some(agent.outcome(number))).find(|said| said["progress"].is_null());
        assert_eq!(outcome.unwrap()["answer"]["status"], json!("approved"));
    }
}

#[test]
fn resources_are_the_bottle_as_it_is_now() {
    let mut sidecar = Sidecar::start_with(45, Current::default(), vec![answer("p1", Status::Rejected, "no")]);
    let Some(mut agent) = Agent::new(&sidecar.url()) else { return };
    let route = Route {
        path: "/model/".into(),
        upstream: "https://api.model.example".into(),
        scheme: "Bearer".into(),
        allow: vec!["POST /v1/messages".into()],
    };
    let remote = Remote {
        name: "app".into(),
        upstream: "ssh://git@git.example/app.git".into(),
        refs: vec!["refs/heads/agent/*".into()],
        force: false,
        delete: false,
    };
    let denial = Denial {
        by: "pipelock".into(),
        what: "crates.io".into(),
        reason: "not on the allowlist".into(),
        at: 1_800_000_000,
        times: 3,
        ask: "pipelock-block".into(),
    };
    let current = Current {
        allowlist: vec!["open.example".into()],
        passthrough: vec!["open.example".into()],
        routes: vec![route.clone()],
        remotes: vec![remote.clone()],
        from: "a".into(),
        dockerfile: Some("FROM a\n".into()),
        denials: vec![denial.clone()],
    };
    for mode in MODES {
        let mut read = |name: &str| {
            let uri = format!("bottle://{name}");
            let outcome = agent.all_of(&json!({ "do": "read", "mode": mode, "uri": uri }));
            assert_eq!((&outcome["uri"], &outcome["mime"]), (&json!(uri), &json!("application/json")), "{outcome}");
            outcome["json"].clone()
        };
        sidecar.say(&Command::Current { current: Box::default() });
        sidecar.obeyed();
        assert_eq!(read("allowlist"), json!({ "allowlist": [], "passthrough": [] }));
        assert_eq!(read("dockerfile"), json!({ "from": "", "dockerfile": null }));
        sidecar.say(&Command::Current { current: Box::new(current.clone()) });
        sidecar.obeyed();
        assert_eq!(read("allowlist"), json!({ "allowlist": ["open.example"], "passthrough": ["open.example"] }));
        assert_eq!(read("routes"), json!({ "routes": [route] }));
        assert_eq!(read("git"), json!({ "remotes": [remote] }));
        assert_eq!(read("dockerfile"), json!({ "from": "a", "dockerfile": "FROM a\n" }));
        assert_eq!(read("denials"), json!({ "denials": [denial] }));
        assert_eq!(read("proposals"), json!({ "proposals": [answer("p1", Status::Rejected, "no")] }));
        let nothing = agent.all_of(&json!({ "do": "read", "mode": mode, "uri": "bottle://secrets" }));
        assert!(nothing["failed"].as_str().is_some_and(|words| words.contains("no such resource")), "{nothing}");
    }
}
