//! The agent on a person's terminal, and what is left of the terminal afterwards.

use crate::scene::{assert_ended, fresh, plain};
use bottle_tests::harness::{Bottle, Terminal, wait_until};

const LET_GO: &str = "\u{10}\u{11}";

/// An agent that shows its terminal's size and what it hears, an interrupt included.
const TALKER: &str = "trap 'echo; echo interrupted' INT; trap 'echo changed $(stty size)' WINCH; echo size $(stty size); \
                      echo > ready.txt; while :; do if read -r line; then echo \"heard $line.\"; fi; done";

#[test]
fn a_person_is_asked_and_nothing_is_made_before_the_answer() {
    let Some((site, name)) = plain() else { return };
    // A machine on which nobody has pinned anything yet.
    std::fs::remove_file(site.path("config/bottle/pins.toml")).unwrap();
    let mut terminal = site.terminal(&["run", &name, "--", "sh", "-c", "echo it runs; exit 4"]);
    terminal.wait_for("[y/N]");
    assert!(terminal.shown().contains("first time"), "{}", terminal.shown());
    assert!(site.left().is_empty() && site.state().ids().unwrap().is_empty());
    terminal.type_in("n\r");
    // Before its end: what is shown last may be read only after that.
    terminal.wait_for("not started");
    assert_eq!(terminal.wait(), 130);
    crate::scene::assert_never_was(&site);

    let mut terminal = site.terminal(&["run", &name, "--", "sh", "-c", "echo it runs; exit 4"]);
    terminal.wait_for("[y/N]");
    assert!(terminal.shown().contains("first time"), "a no pins nothing: {}", terminal.shown());
    terminal.type_in("y\r");
    assert_eq!(terminal.wait(), 4);
    assert!(terminal.shown().contains("it runs\r\n"), "{}", terminal.shown());
    assert!(terminal.is_sane());

    let mut terminal = site.terminal(&["run", &name, "--", "true"]);
    terminal.wait_for("[y/N]");
    assert!(!terminal.shown().contains("first time"), "a yes pins: {}", terminal.shown());
    // The question itself can be interrupted, too.
    terminal.type_in("\u{3}");
    assert_eq!(terminal.wait(), 130);
    site.assert_nothing_left();
}

#[test]
fn keys_reach_the_agent_and_the_terminal_is_sane_afterwards() {
    let Some((site, name)) = plain() else { return };
    let mut terminal = talker(&site, &name);
    // An engine before 23.0 says the size when the program runs already.
    terminal.wait_for("24 80");
    assert!(!terminal.is_sane(), "keys go to the agent one by one");
    terminal.type_in("one\r");
    terminal.wait_for("heard one.");
    // A key for the agent, not a signal for the launcher.
    terminal.type_in("\u{3}");
    terminal.wait_for("interrupted");
    terminal.type_in("two\r");
    terminal.wait_for("heard two.");
    terminal.resize(132, 50);
    // A shell hears of it when its own wait for a line ends.
    terminal.type_in("three\r");
    terminal.wait_for("changed 50 132");
    terminal.wait_for("heard three.");

    terminal.type_in(LET_GO);
    assert_eq!(terminal.wait(), 0);
    assert!(terminal.is_sane(), "{}", terminal.shown());
    assert!(terminal.shown().contains("goes on"), "{}", terminal.shown());

    let bottle = Bottle::named(&site, &name);
    assert!(bottle.dir().is_living());
    let mut second = site.terminal(&["attach", bottle.id()]);
    second.wait_for("heard three.");
    second.type_in("four\r");
    second.wait_for("heard four.");
    // Another window, another size.
    second.resize(100, 30);
    second.type_in("five\r");
    second.wait_for("changed 30 100");
    second.type_in(LET_GO);
    assert_eq!(second.wait(), 0);
    assert!(second.is_sane());

    let mut third = site.terminal(&["exec", bottle.id(), "--", "sh"]);
    third.type_in("echo sum $((40+2))\r");
    third.wait_for("sum 42");
    third.type_in("exit 6\r");
    assert_eq!(third.wait(), 6);
    assert!(third.is_sane());
    bottle.stop();
    assert_ended(&site, &bottle, "ready.txt");
}

#[test]
fn a_window_that_is_closed_ends_the_bottle() {
    let Some((site, name)) = plain() else { return };
    let mut terminal = talker(&site, &name);
    terminal.wait_for("24 80");
    let bottle = Bottle::named(&site, &name);
    terminal.close();
    assert_ended(&site, &bottle, "ready.txt");
    terminal.wait();
}

#[test]
fn a_window_that_is_closed_during_the_launch_leaves_nothing() {
    let Some((site, name)) = plain() else { return };
    let mut terminal = talker(&site, &name);
    wait_until("the launch begins", || (!site.left().is_empty()).then_some(()));
    terminal.close();
    terminal.wait();
    wait_until("the keeper goes", || {
        let ids = site.state().ids().unwrap();
        ids.iter().all(|id| !site.state().dir(id).is_living()).then_some(())
    });
    site.assert_nothing_left();
}

#[test]
fn an_interrupt_during_the_launch_is_heard_on_a_terminal() {
    let Some((site, name)) = plain() else { return };
    let mut terminal = talker(&site, &name);
    wait_until("the launch begins", || (!site.left().is_empty()).then_some(()));
    terminal.type_in("\u{3}");
    assert_eq!(terminal.wait(), 130, "{}", terminal.shown());
    assert!(terminal.is_sane());
    site.assert_nothing_left();
}

#[test]
fn the_terminal_is_sane_after_a_bottle_that_was_ended_from_elsewhere() {
    let Some((site, name)) = plain() else { return };
    let mut terminal = talker(&site, &name);
    terminal.wait_for("24 80");
    let bottle = Bottle::named(&site, &name);
    bottle.stop();
    assert_eq!(terminal.wait(), 130, "{}", terminal.shown());
    assert!(terminal.is_sane());
    assert_ended(&site, &bottle, "ready.txt");

    let second = fresh("coder");
    site.agent(&second, "dev");
    let mut terminal = talker(&site, &second);
    terminal.wait_for("24 80");
    let bottle = Bottle::named(&site, &second);
    bottle_tests::harness::signal(bottle.keeper(), rustix::process::Signal::KILL);
    assert_eq!(terminal.wait(), 125, "{}", terminal.shown());
    assert!(terminal.is_sane());
    site.launcher(&["cleanup"]).ok();
    crate::scene::assert_taken_back(&site, &bottle, "ready.txt");
}

fn talker(site: &bottle_tests::harness::Site, name: &str) -> Terminal {
    site.terminal(&["run", name, "--yes", "--", "sh", "-c", TALKER])
}
