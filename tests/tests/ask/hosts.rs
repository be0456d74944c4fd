//! Hosts: asked for, shown, approved, open; and the ways in which that ends.

use super::scene::{ASKED, NEIGHBOUR, approve, ask_hosts, asking, listing, reaches, status, wait_for_pending};
use bottle_tests::harness::{Site, World, finish, wait_until};
use std::process::Stdio;

#[test]
fn a_host_is_asked_for_approved_and_open_and_its_neighbour_stays_closed() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let bottle = asking(&site, &world, "");
    assert!(!reaches(&bottle, ASKED) && reaches(&bottle, "files.world.example"));
    let call = ask_hosts(&site, &bottle, &[ASKED]);
    wait_for_pending(&site, &bottle, "p1");
    assert!(!reaches(&bottle, ASKED), "asking opens nothing");
    let output = approve(&site, &bottle, "p1", &[]).ok();
    for words in [&format!("+ host {ASKED}"), "the build needs it", "not checked"] {
        assert!(output.stderr.contains(words), "{words} is not shown: {output:#?}");
    }
    let answer = call.answer();
    assert_eq!((&answer["id"], &answer["status"]), (&"p1".into(), &"approved".into()), "{answer}");
    assert!(reaches(&bottle, ASKED), "the agent is told when it is open, not before");
    assert!(!reaches(&bottle, NEIGHBOUR), "it opens what was shown and nothing else");
    // The folder in its container says so too, and is not its own to write.
    let folder = "/.bottle/current-config";
    let says = |file: &str, word: &str| bottle.exec(&["grep", word, &format!("{folder}/{file}")]).status == 0;
    wait_until("the folder says so", || {
        (says("allowlist.txt", ASKED) && says("denials.json", NEIGHBOUR)).then_some(())
    });
    assert!(!says("allowlist.txt", NEIGHBOUR) && says("routes.json", "/api/") && says("git-policy.json", "\\[\\]"));
    let written = bottle.sh(&format!("echo x > {folder}/allowlist.txt || mv {folder} /tmp/ || touch {folder}/x"));
    assert_ne!(written.status, 0, "{written:#?}");
    // Asked again, it is open already.
    let again = ask_hosts(&site, &bottle, &[ASKED]).answer();
    assert!(again["error"].as_str().is_some_and(|text| text.contains("already reachable")), "{again}");
    // A pipelock that dies starts with what holds now.
    bottle.kill_container("pipelock");
    wait_until("pipelock runs again", || bottle.log("keeper").contains("pipelock runs again").then_some(()));
    assert!(reaches(&bottle, ASKED) && !reaches(&bottle, NEIGHBOUR));
    bottle.stop();
    let log = site.launcher(&["audit", bottle.id()]).ok().stdout;
    for words in ["launched", "p1 asked for", "approved by uid", "in force: p1", "refused by pipelock", "taken back"] {
        assert!(log.contains(words), "{words} is not in {log}");
    }
    site.launcher(&["audit", "verify", bottle.id()]).ok();
    site.assert_nothing_left();
}

#[test]
fn a_no_is_told_with_its_reason_and_opens_nothing() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let bottle = asking(&site, &world, "");
    let call = ask_hosts(&site, &bottle, &[ASKED]);
    wait_for_pending(&site, &bottle, "p1");
    site.launcher(&["reject", bottle.id(), "p1", "--reason", "use the mirror"]).ok();
    let answer = call.answer();
    assert_eq!((&answer["status"], &answer["notes"]), (&"rejected".into(), &"use the mirror".into()), "{answer}");
    assert!(!reaches(&bottle, ASKED));
    let late = approve(&site, &bottle, "p1", &[]);
    assert_ne!(late.status, 0, "an answer is given once: {late:#?}");
    assert!(!reaches(&bottle, ASKED));
    bottle.stop();
}

#[test]
fn a_grant_with_a_time_ends_by_itself_and_what_a_person_allowed_is_taken_back() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let bottle = asking(&site, &world, "");
    let allowed = site.launcher(&["allow", bottle.id(), ASKED, "--for", "5s", "--yes"]).ok();
    assert!(allowed.stderr.contains("started again"), "its end is told of first: {allowed:#?}");
    assert!(reaches(&bottle, ASKED));
    assert_eq!(listing(&site, &bottle)["grants"][0]["id"], "g1");
    wait_until("it ends", || (!reaches(&bottle, ASKED)).then_some(()));
    site.launcher(&["allow", bottle.id(), ASKED, "--yes"]).ok();
    assert!(reaches(&bottle, ASKED));
    site.launcher(&["revoke", bottle.id(), ASKED, "--yes"]).ok();
    assert!(!reaches(&bottle, ASKED) && reaches(&bottle, "files.world.example"));
    // What nobody may open, the operator may not by this way either.
    for host in ["localhost", "169.254.169.254", "api.world.example", "*.world.example"] {
        let refused = site.launcher(&["allow", bottle.id(), host, "--yes"]);
        assert_ne!(refused.status, 0, "{host}: {refused:#?}");
    }
    bottle.stop();
}

#[test]
fn a_download_goes_on_while_a_host_is_approved() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let yaml = world.bottle_yaml(&site.clients());
    // The download's host is passed through; the route's stream runs beside it.
    let yaml = yaml.replace("  upstream_roots:", "  passthrough: [files.world.example]\n  upstream_roots:");
    site.bottle("dev", &format!("{yaml}{}supervise: true\n", world.wire_yaml("Bearer", world.canary())));
    let name = super::scene::fresh("ask");
    site.agent(&name, "dev");
    let bottle = site.run(&name).args(&["--no-workspace"]).detached(&["sleep", "900"]);
    let spawn = |args: &[&str]| {
        let mut command = site.command();
        command.args(["exec", bottle.id(), "--", "curl", "-sS", "-N", "-m", "50"]).args(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let bytes = 8 << 20;
    let url = format!("https://files.world.example/big?n={bytes}");
    let download = spawn(&["--limit-rate", "1M", "-o", "/tmp/big", "-w", "%{size_download}", &url]);
    let stream = spawn(&["http://cred-proxy:9099/wire/v1/sse?n=60&ms=100"]);
    bottle.wait_for_file("/tmp/big");
    let call = ask_hosts(&site, &bottle, &[NEIGHBOUR]);
    wait_for_pending(&site, &bottle, "p1");
    approve(&site, &bottle, "p1", &[]).ok();
    assert_eq!(call.answer()["status"], "approved");
    assert!(reaches(&bottle, NEIGHBOUR));
    let (download, stream) = (finish(download).ok(), finish(stream).ok());
    assert_eq!(download.stdout.trim(), bytes.to_string());
    assert_eq!(stream.stdout.lines().filter(|line| line.starts_with("data:")).count(), 60, "{}", stream.stdout);
    assert_eq!(status(&site, &bottle, "p1").as_deref(), Some("approved"));
    bottle.stop();
}
