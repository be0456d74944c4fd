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

/// What became of sidecars and what they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It was started again.
    Restarted(String),
    /// It served to its end, and its container is gone.
    Retired(String),
    /// It has used a route for one use up, and the request has ended: its path.
    UsedUp(String),
    /// A credential is another one now.
    Renewed(cred_proxy::Secret),
}

/// By what the desk hears of its sidecars.
#[derive(Debug, Clone)]
pub struct Ears {
    /// What the agent asks.
    pub asks: mpsc::Sender<Ask>,
    /// What sidecars say.
    pub lines: mpsc::Sender<Overheard>,
    /// What became of them, by role.
    pub news: mpsc::Sender<News>,
}

/// The other ends of [`Ears`].
pub struct Inbox {
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) lines: mpsc::Receiver<Overheard>,
    pub(super) news: mpsc::Receiver<News>,
}

/// Both ends.
pub fn ears() -> (Ears, Inbox) {
    let (asks, asked) = mpsc::channel(ASKS_MAX);
    let (lines, said) = mpsc::channel(LINES_MAX);
    let (news, heard) = mpsc::channel(VISITS_MAX);
    (Ears { asks, lines, news }, Inbox { asks: asked, lines: said, news: heard })
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
