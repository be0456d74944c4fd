//! Signals have one owner in each process; everyone else sees a [`crate::stop::Stop`].

use crate::stop::Stopper;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT, SIGTERM and SIGHUP, as one stream.
pub struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
}

impl Signals {
    /// Takes the three signals over. One that cannot be had keeps its default, which ends the process.
    pub fn take() -> Self {
        let take = |kind| signal(kind).ok();
        Self {
            interrupt: take(SignalKind::interrupt()),
            terminate: take(SignalKind::terminate()),
            hangup: take(SignalKind::hangup()),
        }
    }

    /// The next of them.
    pub async fn next(&mut self) {
        async fn one(signal: &mut Option<Signal>) {
            match signal {
                Some(signal) => {
                    signal.recv().await;
                }
                None => std::future::pending().await,
            }
        }
        tokio::select! {
            () = one(&mut self.interrupt) => {}
            () = one(&mut self.terminate) => {}
            () = one(&mut self.hangup) => {}
        }
    }
}

/// Each signal raises the level by one, for as long as the process lives.
pub async fn raise_on_signals(stopper: Stopper) {
    let mut signals = Signals::take();
    loop {
        signals.next().await;
        stopper.next();
    }
}
