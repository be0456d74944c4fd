//! Signals, to the client and to the keeper.

use crate::scene::{DEAF, POLITE, assert_ended, assert_never_was, plain};
use bottle_tests::harness::{Bottle, Site, finish, signal, wait_until};
use rustix::process::Signal;
use std::process::{Child, Stdio};

fn running<'a>(site: &'a Site, name: &str, script: &str) -> (Bottle<'a>, Child) {
    let (bottle, child) = site.run(name).attached(&["sh", "-c", script]);
    bottle.wait_for_file("/workspace/ready.txt");
    (bottle, child)
}

#[test]
fn one_signal_asks_the_agent_and_keeps_what_it_wrote_last() {
    for one in [Signal::INT, Signal::TERM, Signal::HUP] {
        let Some((site, name)) = plain() else { return };
        let (bottle, child) = running(&site, &name, POLITE);
        signal(child.id(), one);
        let output = finish(child);
        assert_eq!(output.status, 130, "{one:?}: {output:#?}");
        assert_eq!(output.stdout, "");
        assert_ended(&site, &bottle, "last.txt");
    }
}

#[test]
fn a_second_signal_does_not_wait_for_an_agent_that_is_deaf() {
    let Some((site, name)) = plain() else { return };
    let (bottle, child) = running(&site, &name, DEAF);
    signal(child.id(), Signal::INT);
    bottle.wait_for_file("/workspace/ready.txt"); // it is asked, and goes on
    signal(child.id(), Signal::INT);
    let output = finish(child);
    assert_eq!(output.status, 130, "{output:#?}");
    assert!(output.stderr.contains("stopping at once"), "{output:#?}");
    assert_ended(&site, &bottle, "ready.txt");
}

#[test]
fn after_three_signals_the_client_is_gone_and_the_keeper_takes_everything_back() {
    let Some((site, name)) = plain() else { return };
    let (bottle, mut child) = running(&site, &name, DEAF);
    let keeper = bottle.keeper();
    // Stopped, it can answer nobody: whatever the client does now, it does alone.
    signal(keeper, Signal::STOP);
    for _ in 0..3 {
        signal(child.id(), Signal::INT);
        // Signals of one kind that come together are one.
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    let status = wait_until("the client goes by itself", || child.try_wait().unwrap());
    signal(keeper, Signal::CONT);
    assert_eq!(status.code(), Some(130));
    assert_ended(&site, &bottle, "ready.txt");
}

#[test]
fn a_client_that_is_killed_ends_the_bottle_as_an_interrupt_does() {
    let Some((site, name)) = plain() else { return };
    let (bottle, child) = running(&site, &name, POLITE);
    signal(child.id(), Signal::KILL);
    assert_eq!(finish(child).status, 137);
    assert_ended(&site, &bottle, "last.txt");
    assert_eq!(bottle.dir().metadata().unwrap().outcome.as_deref(), Some("stopped"));
}

#[test]
fn a_client_that_is_killed_during_the_launch_leaves_nothing() {
    let Some((site, name)) = plain() else { return };
    for objects in [0, 2, 5] {
        let mut command = site.run(&name).into_command(&["sleep", "600"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("the launch has come so far", || {
            let claimed = !site.state().ids().unwrap().is_empty();
            (claimed && site.left().len() >= objects).then_some(())
        });
        signal(child.id(), Signal::KILL);
        finish(child);
        // It may have come further than that while we looked; whether its agent began or not, nothing is left.
        wait_until("the keeper goes", || {
            let ids = site.state().ids().unwrap();
            ids.iter().all(|id| !site.state().dir(id).is_living()).then_some(())
        });
        site.assert_nothing_left();
        for id in site.state().ids().unwrap() {
            assert!(site.state().dir(&id).was_started(), "{id} never began and has a folder");
            site.launcher(&["cleanup", "--forget", &id]).ok();
        }
    }
    assert_never_was(&site);
}

#[test]
fn an_interrupt_during_the_launch_is_130_and_leaves_nothing() {
    for objects in [1, 4] {
        let Some((site, name)) = plain() else { return };
        let mut command = site.run(&name).into_command(&["sh", "-c", POLITE]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("the launch has come so far", || (site.left().len() >= objects).then_some(()));
        signal(child.id(), Signal::INT);
        let output = finish(child);
        assert_eq!(output.status, 130, "{output:#?}");
        wait_until("the keeper goes", || {
            let ids = site.state().ids().unwrap();
            ids.iter().all(|id| !site.state().dir(id).is_living()).then_some(())
        });
        site.assert_nothing_left();
    }
}

#[test]
fn signals_to_the_keeper_itself_end_the_bottle_however_many_come() {
    for count in 1..=3 {
        let Some((site, name)) = plain() else { return };
        let (bottle, child) = running(&site, &name, if count == 1 { POLITE } else { DEAF });
        let keeper = bottle.keeper();
        for _ in 0..count {
            signal(keeper, Signal::TERM);
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let output = finish(child);
        assert_eq!(output.status, 130, "{count}: {output:#?}");
        assert_ended(&site, &bottle, if count == 1 { "last.txt" } else { "ready.txt" });
    }
}
