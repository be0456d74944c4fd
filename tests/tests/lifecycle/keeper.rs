//! The keeper is killed: nobody is left to take anything back, and the bottle ends all the same.

use crate::scene::{DEAF, POLITE, assert_taken_back, plain};
use bottle_tests::harness::{Bottle, Site, finish, signal, wait_until};
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// A hostile agent's hold on the switch: it tries to keep the first process's input open, and to trace it.
const SWITCH: &str = r#"
import ctypes, os, signal, sys, time
for s in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT): signal.signal(s, signal.SIG_IGN)
def tried(what, deed):
    try:
        deed()
        print(what, 'done', flush=True)
    except OSError as error:
        print(what, 'refused', error.errno, flush=True)
def attach():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, 1, 0, 0) != 0: raise OSError(ctypes.get_errno(), 'ptrace')
tried('open', lambda: os.open('/proc/1/fd/0', os.O_RDONLY))
tried('write', lambda: os.open('/proc/1/fd/0', os.O_WRONLY))
tried('ptrace', attach)
tried('kill', lambda: os.kill(1, signal.SIGSTOP))
tried('neighbour', lambda: os.open('/proc/self/fd/0', os.O_RDONLY))
open('/workspace/ready.txt', 'w').close()
time.sleep(600)
"#;

/// Waits until no container of the site runs. They end by themselves: nobody is there who could end them.
#[track_caller]
fn wait_until_none_runs(site: &Site) {
    wait_until("every container ends by itself", || {
        let observed = site.observe();
        observed.containers.iter().all(|c| !c.running).then_some(())
    });
}

#[test]
fn a_killed_keeper_ends_every_container_and_the_next_command_takes_them_back() {
    for command in [["ps"].as_slice(), &["cleanup"], &["ps", "--all"]] {
        let Some((site, name)) = plain() else { return };
        let (bottle, child) = site.run(&name).attached(&["sh", "-c", DEAF]);
        bottle.wait_for_file("/workspace/ready.txt");
        // A second program that hears nothing, with a terminal's worth of reasons to stay.
        let deaf = ["exec", bottle.id(), "--", "sh", "-c", "trap '' HUP TERM; echo here; while :; do sleep 0.2; done"];
        let second = site.command().args(deaf).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let before = site.launcher(&["ps"]).ok();
        assert!(before.stdout.contains(bottle.id()) && before.stdout.contains("running"), "{before:#?}");
        signal(bottle.keeper(), Signal::KILL);
        let output = finish(child);
        assert_eq!(output.status, 125, "{output:#?}");
        assert!(output.stderr.contains("launcher cleanup"), "the client says what to do: {output:#?}");
        assert_eq!(finish(second).status, 125);
        wait_until_none_runs(&site);
        assert!(!site.left().is_empty(), "a dead keeper takes nothing back");
        let output = site.launcher(command).ok();
        assert!(output.stderr.contains(&format!("took back what was left of {}", bottle.id())), "{output:#?}");
        if let ["ps", all @ ..] = command {
            assert_eq!(output.stdout.contains("keeper died"), !all.is_empty(), "{output:#?}");
            assert!(!output.stdout.contains("running"), "{output:#?}");
        }
        assert_taken_back(&site, &bottle, "ready.txt");
        let again = site.launcher(&["cleanup"]).ok();
        assert!(again.stderr.contains("nothing was left"), "{again:#?}");
    }
}

#[test]
fn an_agent_cannot_hold_the_switch() {
    let Some((site, name)) = plain() else { return };
    let bottle = site.run(&name).detached(&["python3", "-c", SWITCH]);
    bottle.wait_for_file("/workspace/ready.txt");
    let mut attach = site.command().args(["attach", bottle.id()]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(attach.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said = lines.take(5).collect::<Vec<_>>().join("\n");
    signal(bottle.keeper(), Signal::KILL);
    finish(attach);
    for what in ["open", "write", "ptrace", "kill"] {
        assert!(said.contains(&format!("{what} refused")), "{said}");
    }
    assert!(said.contains("neighbour done"), "its own input can be opened, or the attempts prove nothing: {said}");
    wait_until_none_runs(&site);
    site.launcher(&["cleanup"]).ok();
    assert_taken_back(&site, &bottle, "ready.txt");
}

/// How far a launch has come.
type Moment = fn(&Site, &Bottle<'_>) -> bool;

fn containers(site: &Site) -> usize {
    site.observe().containers.len()
}

fn running(site: &Site) -> usize {
    site.observe().containers.iter().filter(|c| c.running).count()
}

#[test]
fn a_keeper_killed_at_any_moment_of_the_launch_leaves_nothing_that_a_sweep_does_not_find() {
    let moments: [(&str, Moment); 9] = [
        ("claimed", |_, b| b.dir().path().exists()),
        ("recorded", |_, b| b.dir().recorded().is_some()),
        ("first network", |s, _| !s.observe().networks.is_empty()),
        ("first container", |s, _| containers(s) >= 1),
        ("second container", |s, _| containers(s) >= 2),
        ("third container", |s, _| containers(s) >= 3),
        ("first start", |s, _| running(s) >= 1),
        ("second start", |s, _| running(s) >= 2),
        ("agent", |_, b| b.dir().was_started()),
    ];
    let Some((site, name)) = plain() else { return };
    for (what, come) in moments {
        let bottle = Bottle::named(&site, &name);
        let mut command = site.run(&name).into_command(&["sleep", "600"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("the launch begins", || bottle.dir().path().exists().then_some(()));
        let keeper = bottle.keeper();
        wait_until(what, || come(&site, &bottle).then_some(()));
        signal(keeper, Signal::KILL);
        let output = finish(child);
        assert_eq!(output.status, 125, "{what}: {output:#?}");
        let output = site.launcher(&["cleanup"]);
        assert_eq!(output.status, 0, "{what}: {output:#?}");
        site.assert_nothing_left();
        if bottle.dir().was_started() {
            assert_taken_back(&site, &bottle, "");
            site.launcher(&["cleanup", "--forget", bottle.id()]).ok();
        }
        assert!(site.state().ids().unwrap().is_empty(), "{what}: its folder is still there");
    }
}

#[test]
fn a_keeper_killed_at_any_moment_of_the_teardown_leaves_nothing_and_keeps_the_work() {
    let Some((site, name)) = plain() else { return };
    // Two containers and two networks; the wall's helper has gone by the time the agent runs, or goes any moment.
    for left in (0..=3).rev() {
        let bottle = site.run(&name).detached(&["sh", "-c", POLITE]);
        bottle.wait_for_file("/workspace/ready.txt");
        let keeper = bottle.keeper();
        let stopping = site.command().args(["stop", bottle.id()]).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("the teardown has come so far", || {
            let objects = site.observe();
            (objects.containers.len() + objects.networks.len() <= left || !bottle.dir().is_living()).then_some(())
        });
        // It may have ended while we looked, which is no less a moment to be killed at.
        let _ = Command::new("kill").args(["-KILL", &keeper.to_string()]).output();
        finish(stopping);
        let output = site.launcher(&["cleanup"]);
        assert_eq!(output.status, 0, "{left}: {output:#?}");
        assert_taken_back(&site, &bottle, "last.txt");
        site.launcher(&["cleanup", "--forget", bottle.id()]).ok();
    }
}

#[test]
fn a_keeper_whose_client_never_comes_goes_by_itself() {
    let Some((site, name)) = plain() else { return };
    // A client that is killed between the keeper's start and its own first word.
    let mut command = site.run(&name).into_command(&["sleep", "600"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let bottle = Bottle::named(&site, &name);
    wait_until("the keeper has its name", || bottle.dir().path().exists().then_some(()));
    signal(child.id(), Signal::KILL);
    finish(child);
    crate::scene::assert_never_was(&site);
}
