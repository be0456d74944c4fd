//! How others reach the desk: sidecars are overheard, operators come one at a time, and whoever ends the bottle closes it.

use crate::stop::{Level, Stopper};
use crate::verdict::{Reply, Request};
use std::time::Duration;
use supervise::wire::Change;
use tokio::sync::{mpsc, oneshot, watch};

/// Asks that may wait; a further one is refused with a word.
const ASKS_MAX: usize = 64;
/// Lines of sidecars that may wait; further ones are counted in the report alone.
const LINES_MAX: usize = 1024;
/// Operators' requests that may wait.
pub(super) const VISITS_MAX: usize = 64;
/// How long the desk may take to finish what it has in hand when the bottle ends: a pipelock's restart, and some more.
const CLOSE_WITHIN: Duration = Duration::from_secs(60);

/// What an agent asks, as supervise hands it on.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Counted by supervise.
    pub call: u64,
    /// What for.
    pub change: Change,
    /// In the agent's words.
    pub justification: String,
}

/// A line that a sidecar said.
#[derive(Debug, Clone)]
pub struct Overheard {
    /// Whose.
    pub role: String,
    /// The line.
    pub line: String,
}

/// By what the desk hears of its sidecars.
#[derive(Debug, Clone)]
pub struct Ears {
    /// What the agent asks.
    pub asks: mpsc::Sender<Ask>,
    /// What sidecars say.
    pub lines: mpsc::Sender<Overheard>,
    /// Roles that were started again.
    pub restarts: mpsc::Sender<String>,
}

/// The other ends of [`Ears`].
pub struct Inbox {
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) lines: mpsc::Receiver<Overheard>,
    pub(super) restarts: mpsc::Receiver<String>,
}

/// Both ends.
pub fn ears() -> (Ears, Inbox) {
    let (asks, asked) = mpsc::channel(ASKS_MAX);
    let (lines, said) = mpsc::channel(LINES_MAX);
    let (restarts, restarted) = mpsc::channel(VISITS_MAX);
    (Ears { asks, lines, restarts }, Inbox { asks: asked, lines: said, restarts: restarted })
}

/// What an operator asks.
pub struct Visit {
    /// What.
    pub request: Request,
    /// Who, in words.
    pub by: String,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Reply>,
}

/// How operators' commands come to the desk.
#[derive(Clone)]
pub struct Door {
    /// One at a time.
    pub visits: mpsc::Sender<Visit>,
    /// Another number after every change.
    pub changes: watch::Receiver<u64>,
}

/// A desk at work.
pub struct Sitting {
    stopper: Stopper,
    task: tokio::task::JoinHandle<()>,
}

impl Sitting {
    pub(super) fn new(stopper: Stopper, task: tokio::task::JoinHandle<()>) -> Self {
        Self { stopper, task }
    }

    /// From now on nothing new is begun.
    pub fn rest(&self) {
        self.stopper.raise(Level::Graceful);
    }

    /// Waits until what is under way is done, within reason.
    pub async fn end(self) {
        self.rest();
        // What takes longer changes sidecars that are about to be removed.
        let _ = tokio::time::timeout(CLOSE_WITHIN, self.task).await;
    }
}
