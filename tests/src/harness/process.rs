//! Processes: signals, and waiting for a child with patience.

use super::output::{Output, PATIENCE};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::process::Child;

fn pid(number: u32) -> Pid {
    i32::try_from(number).ok().and_then(Pid::from_raw).expect("a process has a positive number")
}

/// Sends a signal. A process that has just gone is a panic: the test meant it to be there.
#[track_caller]
pub fn signal(process: u32, signal: Signal) {
    kill_process(pid(process), signal).unwrap_or_else(|e| panic!("process {process} cannot be signalled: {e}"));
}

/// Is there such a process? One that nobody has waited for counts.
pub fn is_alive(process: u32) -> bool {
    test_kill_process(pid(process)).is_ok()
}

/// Waits for a child and gives what it said.
#[track_caller]
pub fn finish(child: Child) -> Output {
    let number = child.id();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // Nobody listens any more when patience was over.
        let _ = sender.send(child.wait_with_output());
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(output) => output.expect("a child can be waited for").into(),
        Err(_) => {
            // It may end at this very moment; then there is nothing to kill.
            let _ = kill_process(pid(number), Signal::KILL);
            panic!("process {number} never ended")
        }
    }
}
