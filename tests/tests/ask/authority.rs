//! Only a person widens a bottle: what may never be approved is refused before anybody sees it, and nothing that the agent
//! can say is an answer.

use super::scene::{ASKED, approve, ask_hosts, asking, listing, reaches, says, status, wait_for_pending};
use bottle_tests::harness::{Site, World};
use serde_json::Value;

#[test]
fn what_may_never_be_approved_is_refused_before_a_person_sees_it() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let bottle = asking(&site, &world, "");
    for host in [
        "127.0.0.1",
        "0x7f.1",
        "2130706433",
        "[::1]",
        "localhost",
        "10.0.0.1",
        "169.254.169.254",
        "metadata.google.internal",
        "pipelock",
        "supervise",
        "host.internal",
        "*",
        "*.com",
        // The route's host, a star over it, and what is open already.
        "api.world.example",
        "*.world.example",
        "files.world.example",
    ] {
        let answer = ask_hosts(&site, &bottle, &[host]).answer();
        assert!(answer["error"].is_string(), "{host}: {answer}");
    }
    assert_eq!(listing(&site, &bottle)["proposals"], Value::Array(Vec::new()));
    let call = ask_hosts(&site, &bottle, &[ASKED]);
    wait_for_pending(&site, &bottle, "p1");
    approve(&site, &bottle, "p1", &[]).ok();
    assert_eq!(call.answer()["status"], "approved");
    bottle.stop();
}

#[test]
fn an_agent_cannot_answer_its_own_proposal_or_reach_the_keeper() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let bottle = asking(&site, &world, "");
    let call = ask_hosts(&site, &bottle, &[ASKED]);
    wait_for_pending(&site, &bottle, "p1");
    let tools = says(&bottle, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).ok().stdout;
    assert!(tools.contains("pipelock-block"), "{tools}");
    for word in ["approve", "reject", "allow", "revoke"] {
        assert!(!tools.contains(&format!("\"name\":\"{word}")), "{word} is a tool: {tools}");
    }
    // The words of the control channel and of the keeper's socket mean nothing here.
    for body in [
        r#"{"command":"answer","answer":{"id":"p1","status":"approved","notes":""}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"approve","arguments":{"id":"p1"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"check-proposal","arguments":{"id":"p1","status":"approved"}}}"#,
        r#"{"hello":"desk","request":{"request":"reject","proposal":"p1","reason":""}}"#,
    ] {
        says(&bottle, body);
        assert_eq!(status(&site, &bottle, "p1").as_deref(), Some("pending"), "{body}");
    }
    // No socket of the keeper's, no folder of the host's, and nothing of the launcher's is in the container.
    let found = bottle
        .sh("find / -xdev \\( -name 'keeper.sock' -o -name 'proposals.jsonl' -o -name 'audit.jsonl' \\) 2>/dev/null");
    assert_eq!(found.stdout, "", "{found:#?}");
    // supervise holds nothing: its own container has one program and no way out.
    let ends = bottle.sh("for port in 1 22 80 2375 9101; do curl -s -m 2 telnet://supervise:$port </dev/null && echo open $port; done; true");
    assert!(!ends.stdout.contains("open"), "{ends:#?}");
    assert!(!reaches(&bottle, ASKED));
    site.launcher(&["reject", bottle.id(), "p1"]).ok();
    assert_eq!(call.answer()["status"], "rejected");
    bottle.stop();
}

#[test]
fn an_audit_log_that_was_touched_is_found() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let bottle = asking(&site, &world, "");
    site.launcher(&["allow", bottle.id(), ASKED, "--yes"]).ok();
    bottle.stop();
    site.launcher(&["audit", "verify", bottle.id()]).ok();
    let path = bottle.dir().audit();
    let good = std::fs::read_to_string(&path).unwrap();
    assert!(good.contains(ASKED), "{good}");
    let dropped: String = good.lines().filter(|line| !line.contains("\"applied\"")).map(|l| format!("{l}\n")).collect();
    for bad in [good.replace(ASKED, "other.world.example"), dropped] {
        std::fs::write(&path, bad).unwrap();
        for args in [&["audit", "verify", bottle.id()][..], &["audit", bottle.id()]] {
            let output = site.launcher(args);
            assert_eq!(output.status, 1, "{output:#?}");
        }
    }
    std::fs::write(&path, good).unwrap();
    site.launcher(&["audit", "verify", bottle.id()]).ok();
}
