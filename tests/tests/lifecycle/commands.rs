//! The commands beside `run`: attach, exec, stop, ps, logs, names, and several bottles at once.

use crate::scene::{DEAF, POLITE, assert_ended, plain};
use bottle_tests::harness::{Bottle, Output, Site, finish, signal, wait_until};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

#[test]
fn exec_is_a_program_of_its_own() {
    let Some((site, name)) = plain() else { return };
    let bottle = site.run(&name).detached(&["sleep", "600"]);
    let got = bottle.sh("echo out; echo err >&2; exit 3");
    assert_eq!((got.status, got.stdout.as_str(), got.stderr.as_str()), (3, "out\n", "err\n"));
    assert_eq!(bottle.sh("id -u; pwd").stdout, "1000\n/workspace\n");
    let missing = bottle.exec(&["no-such-program"]);
    assert_eq!(missing.status, 127, "{missing:#?}");
    assert!(missing.stderr.contains("no-such-program"), "{missing:#?}");

    let mut command = site.command();
    command.args(["exec", bottle.id(), "--", "wc", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&[0; 100_000]).unwrap();
    assert_eq!(finish(child).stdout.trim(), "100000");

    let unknown = site.launcher(&["exec", "nobody", "--", "true"]);
    assert_eq!(unknown.status, 2, "{unknown:#?}");
    bottle.stop();
    let ended = site.launcher(&["exec", bottle.id(), "--", "true"]);
    assert_eq!(ended.status, 2, "{ended:#?}");
    assert!(ended.stderr.contains("is not running"), "{ended:#?}");
}

#[test]
fn attach_shows_what_was_said_last_types_and_lets_go() {
    let Some((site, name)) = plain() else { return };
    let script = "echo hello; echo > ready.txt; while read -r line; do echo \"heard $line\"; done; echo end; exit 5";
    let bottle = site.run(&name).detached(&["sh", "-c", script]);
    bottle.wait_for_file("/workspace/ready.txt");
    let attach = || {
        let mut command = site.command();
        command.args(["attach", bottle.id()]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut first = attach();
    let mut said = BufReader::new(first.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "hello");
    first.stdin.as_mut().unwrap().write_all(b"one\n").unwrap();
    assert_eq!(said.next().unwrap().unwrap(), "heard one");
    // A guest that is interrupted goes, and the bottle stays.
    // Its own input stays open until then: the end of that would be the end of the agent's.
    let typing = first.stdin.take();
    signal(first.id(), Signal::INT);
    let gone = finish(first);
    drop(typing);
    assert_eq!(gone.status, 0, "{gone:#?}");
    assert!(gone.stderr.contains("goes on"), "{gone:#?}");
    let mut second = attach();
    second.stdin.as_mut().unwrap().write_all(b"two\n").unwrap();
    let output = finish(second);
    // Its input has ended, and with it the agent.
    assert_eq!(output.status, 5, "{output:#?}");
    assert_eq!(output.stdout, "hello\nheard one\nheard two\nend\n");
    bottle.wait_for_end();
    site.assert_nothing_left();
}

#[test]
fn stop_waits_for_a_polite_agent_and_stop_now_for_none() {
    let Some((site, name)) = plain() else { return };
    let bottle = site.run(&name).detached(&["sh", "-c", POLITE]);
    bottle.wait_for_file("/workspace/ready.txt");
    let stopped = site.launcher(&["stop", bottle.id()]).ok();
    assert_eq!(stopped.stdout, "");
    assert!(stopped.stderr.contains(&format!("bottle {} ended after", bottle.id())), "{stopped:#?}");
    assert!(stopped.stderr.contains(&format!("launcher take {}", bottle.id())), "{stopped:#?}");
    site.assert_nothing_left();
    assert_ended(&site, &bottle, "last.txt");

    let bottle = site.run(&name).detached(&["sh", "-c", DEAF]);
    bottle.wait_for_file("/workspace/ready.txt");
    site.launcher(&["stop", "--now", bottle.id()]).ok();
    site.assert_nothing_left();
    assert_ended(&site, &bottle, "ready.txt");
    let again = site.launcher(&["stop", bottle.id()]);
    assert_eq!(again.status, 2, "{again:#?}");
}

#[test]
fn ps_and_logs_tell_of_the_living_and_of_the_dead() {
    let Some((site, name)) = plain() else { return };
    assert_eq!(site.launcher(&["ps", "--json"]).ok().stdout.trim(), "[]");
    let bottle = site.run(&name).detached(&["sleep", "600"]);
    let rows = |args: &[&str]| -> serde_json::Value { serde_json::from_str(&site.launcher(args).ok().stdout).unwrap() };
    let living = rows(&["ps", "--json"]);
    assert_eq!(living[0]["bottle"]["id"], bottle.id());
    assert_eq!(living[0]["status"]["phase"], "running");
    assert_eq!(living[0]["status"]["sidecars"]["pipelock"], "ready");
    assert_eq!(living[0]["workspace_saved"], false);
    assert!(site.launcher(&["ps"]).ok().stdout.contains(bottle.id()));

    let mut command = site.command();
    command.args(["logs", "--follow", bottle.id()]).stdout(Stdio::piped());
    let following = command.spawn().unwrap();
    bottle.exec(&["curl", "-sS", "-m", "5", "https://nowhere.example/"]);
    wait_until("the refusal is in the log", || {
        site.launcher(&["logs", bottle.id()]).ok().stdout.contains("nowhere.example").then_some(())
    });
    bottle.stop();
    bottle.wait_for_end();
    let followed = finish(following);
    assert_eq!(followed.status, 0);
    assert!(followed.stdout.contains("nowhere.example"), "{followed:#?}");
    assert!(site.launcher(&["logs", "--json", bottle.id()]).ok().stdout.lines().all(|l| l.starts_with('{')));

    assert_eq!(rows(&["ps", "--json"]), serde_json::json!([]));
    let dead = rows(&["ps", "--all", "--json"]);
    assert_eq!(dead[0]["status"], serde_json::Value::Null);
    assert_eq!(dead[0]["bottle"]["outcome"], "stopped");
    assert_eq!(dead[0]["workspace_saved"], true);
    let table = site.launcher(&["ps", "--all"]).ok();
    assert!(table.stdout.contains("work saved"), "{table:#?}");
    assert!(table.stderr.contains("launcher diff"), "{table:#?}");
}

#[test]
fn two_bottles_of_one_agent_have_two_names_and_a_name_is_given_once() {
    let Some((site, name)) = plain() else { return };
    let first = site.run(&name).detached(&["sleep", "600"]);
    let second = site.run(&name).detached(&["sleep", "600"]);
    assert_eq!((first.id(), second.id()), (name.as_str(), format!("{name}-2").as_str()));
    let pinned = format!("{name}-mine");
    let third = site.run(&name).args(&["--name", &pinned]).detached(&["sleep", "600"]);
    assert_eq!(third.id(), pinned);
    let refused = site.run(&name).args(&["--name", &pinned]).to_end(&["true"]);
    assert_eq!(refused.status, 125, "{refused:#?}");
    assert!(refused.stderr.contains(&format!("{pinned:?} is taken")), "{refused:#?}");
    assert_eq!(third.exec(&["true"]).status, 0, "the first of that name lives on");
    // The beginning of a name is enough where it is one bottle's alone.
    assert_eq!(site.launcher(&["exec", &format!("{name}-m"), "--", "true"]).status, 0);
    let both = site.launcher(&["stop", &format!("{name}-")]);
    assert_eq!(both.status, 2, "{both:#?}");
    for bottle in [&first, &second, &third] {
        bottle.stop();
    }
    site.assert_nothing_left();
}

#[test]
fn bottles_that_are_launched_at_once_all_come_up_and_all_go() {
    let Some((site, name)) = plain() else { return };
    let launch = |_| {
        let mut command = site.run(&name).args(&["--detach"]).into_command(&["sleep", "600"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..4).map(launch).collect();
    for output in children.into_iter().map(finish).collect::<Vec<Output>>() {
        assert_eq!(output.status, 0, "{output:#?}");
    }
    let ids = site.state().ids().unwrap();
    assert_eq!(ids.len(), 4, "{ids:?}");
    let observed = site.observe();
    let subnets: Vec<_> = observed.networks.iter().flat_map(|n| n.subnets.iter().map(ToString::to_string)).collect();
    assert_eq!(subnets.iter().collect::<BTreeSet<_>>().len(), subnets.len(), "{subnets:?}");
    for id in &ids {
        assert_eq!(living(&site, id).exec(&["true"]).status, 0, "{id}");
    }
    let stopping: Vec<_> =
        ids.iter().map(|id| site.command().args(["stop", id]).stderr(Stdio::piped()).spawn().unwrap()).collect();
    for output in stopping.into_iter().map(finish).collect::<Vec<Output>>() {
        assert_eq!(output.status, 0, "{output:#?}");
    }
    site.assert_nothing_left();
}

fn living<'a>(site: &'a Site, id: &str) -> Bottle<'a> {
    Bottle::named(site, id)
}
