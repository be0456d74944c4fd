//! Input and output: all of it arrives, and whoever reads none of it keeps nobody from ending the bottle.

use crate::scene::{POLITE, assert_ended, plain};
use bottle_tests::harness::{finish, signal, wait_until};
use rustix::process::Signal;
use std::io::Write;
use std::process::{Child, Stdio};

/// More than all buffers on the way hold together.
const MUCH: usize = 16 << 20;

fn bytes() -> Vec<u8> {
    (0..MUCH).map(|n| (n % 251) as u8).collect()
}

/// Feeds a child from a thread of its own, and ends its input.
fn feed(child: &mut Child) -> std::thread::JoinHandle<()> {
    let mut input = child.stdin.take().unwrap();
    std::thread::spawn(move || {
        // A child that ends early has no more need of it.
        let _ = input.write_all(&bytes());
    })
}

#[test]
fn an_exec_hands_on_much_more_than_the_buffers_hold_in_both_directions() {
    let Some((site, name)) = plain() else { return };
    let bottle = site.run(&name).detached(&["sleep", "600"]);
    let mut command = site.command();
    command.args(["exec", bottle.id(), "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let feeding = feed(&mut child);
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap();
    assert!(output.status.success());
    assert!(output.stdout == bytes(), "{} bytes of {MUCH}, or others", output.stdout.len());
    bottle.stop();
    site.assert_nothing_left();
}

#[test]
fn a_run_hands_on_much_more_than_the_buffers_hold_in_both_directions() {
    let Some((site, name)) = plain() else { return };
    let mut command = site.run(&name).into_command(&["cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let feeding = feed(&mut child);
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == bytes(), "{} bytes of {MUCH}, or others", output.stdout.len());
}

#[test]
fn an_agent_that_reads_none_of_its_input_hears_an_interrupt_all_the_same() {
    for how in [Signal::INT, Signal::KILL] {
        let Some((site, name)) = plain() else { return };
        let (bottle, mut child) = site.run(&name).attached(&["sh", "-c", POLITE]);
        let feeding = feed(&mut child);
        bottle.wait_for_file("/workspace/ready.txt");
        wait_until("the input is stuck", || stuck(child.id()).then_some(()));
        signal(child.id(), how);
        let output = finish(child);
        feeding.join().unwrap();
        assert_eq!(output.status, if how == Signal::INT { 130 } else { 137 }, "{output:#?}");
        assert_ended(&site, &bottle, "last.txt");
    }
}

#[test]
fn a_client_whose_output_nobody_reads_hears_an_interrupt_all_the_same() {
    let Some((site, name)) = plain() else { return };
    let script = "echo > ready.txt; exec cat /dev/zero";
    let (bottle, mut child) = site.run(&name).attached(&["sh", "-c", script]);
    bottle.wait_for_file("/workspace/ready.txt");
    for _ in 0..3 {
        signal(child.id(), Signal::INT);
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    let status = wait_until("the client goes", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(130));
    assert_ended(&site, &bottle, "ready.txt");
}

#[test]
fn a_client_that_has_stopped_reading_keeps_nobody_from_stopping_the_bottle() {
    let Some((site, name)) = plain() else { return };
    let script = "echo > ready.txt; exec cat /dev/zero";
    let (bottle, child) = site.run(&name).attached(&["sh", "-c", script]);
    bottle.wait_for_file("/workspace/ready.txt");
    signal(child.id(), Signal::STOP);
    let stopping = site.command().args(["stop", bottle.id()]).stderr(Stdio::piped()).spawn().unwrap();
    let output = finish(stopping);
    assert_eq!(output.status, 0, "{output:#?}");
    site.assert_nothing_left();
    signal(child.id(), Signal::KILL);
    finish(child);
    assert_ended(&site, &bottle, "ready.txt");
}

/// Is a process's standard input a pipe that is full?
fn stuck(process: u32) -> bool {
    // What a full pipe holds is what its writer waits for: 64 KiB that do not get fewer.
    let held = || {
        let input = std::fs::File::open(format!("/proc/{process}/fd/0")).ok()?;
        rustix::io::ioctl_fionread(&input).ok()
    };
    let before = held();
    std::thread::sleep(std::time::Duration::from_millis(300));
    before.is_some_and(|n| n > 0) && before == held()
}
