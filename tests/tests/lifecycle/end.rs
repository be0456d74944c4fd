//! The agent ends by itself, or a limit ends it.

use crate::scene::{assert_ended, assert_taken_back, plain, plain_with};
use bottle_tests::harness::{Bottle, wait_until};

#[test]
fn the_agents_status_is_the_launchers_and_its_output_is_all_of_stdout() {
    let Some((site, name)) = plain() else { return };
    // Every byte there is, a MiB of them, and no newline at the end.
    let script =
        "import sys; sys.stdout.buffer.write(bytes(range(256)) * 4096); sys.stderr.write('aside'); sys.exit(7)";
    let output = site.run(&name).into_command(&["python3", "-c", script]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{stderr}");
    let wanted: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    assert!(output.stdout == wanted, "{} bytes of {}, or others", output.stdout.len(), wanted.len());
    assert!(stderr.contains("aside"), "{stderr}");
    assert!(stderr.contains(&format!("bottle {name} ended")) && stderr.contains("with status 7"), "{stderr}");
    let bottle = Bottle::named(&site, &name);
    bottle.wait_for_end();
    site.assert_nothing_left();
    assert_eq!(bottle.dir().metadata().unwrap().outcome.as_deref(), Some("exited 7"));
}

#[test]
fn a_program_that_is_not_there_is_127_and_leaves_nothing() {
    let Some((site, name)) = plain() else { return };
    let output = site.run(&name).to_end(&["no-such-program"]);
    assert_eq!(output.status, 127, "{output:#?}");
    assert!(output.stderr.contains("no-such-program"), "{output:#?}");
    Bottle::named(&site, &name).wait_for_end();
    site.assert_nothing_left();
    let output = site.run(&name).to_end(&["true"]);
    assert_eq!(output.status, 0, "its neighbour runs: {output:#?}");
}

#[test]
fn a_limit_of_time_ends_the_bottle_and_keeps_the_work() {
    let Some((site, name)) = plain_with("limits: {time: 3s}\n") else { return };
    let output = site.run(&name).to_end(&["sh", "-c", crate::scene::POLITE]);
    assert_eq!(output.status, 130, "{output:#?}");
    assert!(output.stderr.contains("time is over"), "{output:#?}");
    assert_ended(&site, &Bottle::named(&site, &name), "last.txt");
}

#[test]
fn a_limit_of_disk_ends_the_bottle_and_keeps_the_work() {
    let Some((site, name)) = plain_with("limits: {disk: 64MiB}\n") else { return };
    let script = "echo > before.txt; head -c 100M /dev/zero > /tmp/big; sleep 600";
    let output = site.run(&name).to_end(&["sh", "-c", script]);
    // Where the engine has quotas the agent itself is told; here the keeper is watching.
    assert_eq!(output.status, 130, "{output:#?}");
    assert!(output.stderr.contains("limit of 64 MiB"), "{output:#?}");
    assert_ended(&site, &Bottle::named(&site, &name), "before.txt");
}

#[test]
fn a_container_that_is_killed_under_the_agent_ends_the_bottle_and_keeps_the_work() {
    let Some((site, name)) = plain() else { return };
    let (bottle, child) = site.run(&name).attached(&["sh", "-c", crate::scene::DEAF]);
    bottle.wait_for_file("/workspace/ready.txt");
    bottle.kill_container("agent");
    let output = bottle_tests::harness::finish(child);
    assert!(output.status == 137 || output.status == 125, "{output:#?}");
    wait_until("the keeper goes", || (!bottle.dir().is_living()).then_some(()));
    assert_taken_back(&site, &bottle, "ready.txt");
}
