//! Collects every child, our own and the orphans that the first process inherits. It must never take the status of a
//! child from under the call that is starting it, and never signal a process whose number may have a new owner.

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, kill_process, wait, waitid};
use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// While there is no child at all nothing can be waited for, and an orphan comes without notice: we look, first soon and
/// then less often.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_LAST: Duration = Duration::from_millis(200);

/// The one thread that waits, and the one child that is started and signalled through it.
pub struct Reaper {
    managed: Arc<Mutex<Option<Pid>>>,
}

impl Reaper {
    /// Starts waiting; `report` hears the status of every managed child that ends (128 + signal where one ended it).
    pub fn start(report: impl Fn(Pid, u8) + Send + 'static) -> io::Result<Self> {
        let managed = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&managed);
        thread::Builder::new().name("reaper".into()).spawn(move || {
            let mut pause = LOOK_FIRST;
            loop {
                // Waits without collecting, so that the collecting can be done under the lock.
                match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                    Ok(_) => {
                        collect(&shared, &report);
                        pause = LOOK_FIRST;
                    }
                    Err(Errno::INTR) => {}
                    Err(_) => {
                        thread::sleep(pause);
                        pause = (pause * 2).min(LOOK_LAST);
                    }
                }
            }
        })?;
        Ok(Self { managed })
    }

    /// Starts the managed child. A start that fails may wait for its own half-made child, so nobody else does meanwhile.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Pid> {
        let mut managed = lock(&self.managed);
        let pid = Pid::from_child(&command.spawn()?);
        *managed = Some(pid);
        Ok(pid)
    }

    /// Signals the managed child unless it has been collected.
    pub fn signal(&self, pid: Pid, signal: Signal) {
        let managed = lock(&self.managed);
        if *managed == Some(pid) {
            // It may have ended a moment ago and not be collected yet; then there is nothing to end.
            let _ = kill_process(pid, signal);
        }
    }
}

fn collect(managed: &Mutex<Option<Pid>>, report: &impl Fn(Pid, u8)) {
    loop {
        let mut current = lock(managed);
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if *current == Some(pid) => {
                *current = None;
                drop(current);
                report(pid, code(status));
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

fn code(status: WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    };
    u8::try_from(code).unwrap_or(255)
}

/// Nothing under the lock can be left half done, so a panic elsewhere does not spoil it.
fn lock(managed: &Mutex<Option<Pid>>) -> MutexGuard<'_, Option<Pid>> {
    managed.lock().unwrap_or_else(PoisonError::into_inner)
}
