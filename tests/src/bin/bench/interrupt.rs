//! A wish to end, looked at between steps: the guards of what was made then take it back. Children have process groups of
//! their own, so that Ctrl-C reaches this program alone and never a command that takes something back.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// Has somebody asked for the end?
#[derive(Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Watches for SIGINT, SIGTERM and SIGHUP from now on.
    pub fn watch() -> Result<Self, String> {
        let asked = Arc::new(AtomicBool::new(false));
        let raised = Arc::clone(&asked);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| format!("signals cannot be watched: {e}"))?;
        let (told, ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
                let signals: Result<Vec<_>, _> = kinds.into_iter().map(signal).collect();
                // Nobody waits any more only when this program ends.
                let _ = told.send(signals.as_ref().err().map(ToString::to_string));
                let Ok(mut signals) = signals else { return };
                loop {
                    futures_util::future::select_all(signals.iter_mut().map(|s| Box::pin(s.recv()))).await;
                    raised.store(true, Ordering::SeqCst);
                }
            });
        });
        match ready.recv() {
            Ok(None) => Ok(Self(asked)),
            Ok(Some(error)) => Err(format!("signals cannot be watched: {error}")),
            Err(_) => Err("signals cannot be watched".to_owned()),
        }
    }

    /// An error once somebody has asked.
    pub fn check(&self) -> Result<(), String> {
        if self.0.load(Ordering::SeqCst) { Err("stopped; everything was taken back".to_owned()) } else { Ok(()) }
    }
}

/// Keeps a child out of this program's group.
pub fn apart(command: &mut Command) -> &mut Command {
    command.process_group(0)
}
