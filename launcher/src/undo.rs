//! Taking back. Undo is data, pushed before the action it takes back, idempotent. [`UndoStack::unwind`] runs after
//! success, error, stop and panic alike: newest stage first, each undo with its own time limit, never ending early.

use crate::engine::Engine;
use crate::plan::Undo;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;

/// How long one undo on the engine may take: longer than the engine's own limit, so that its words are heard.
pub const UNDO_WITHIN: Duration = Duration::from_secs(300);
/// How long bringing the workspace home may take.
pub const SAVE_WITHIN: Duration = Duration::from_secs(30 * 60);

/// What has to be taken back, in the order in which it was made.
#[derive(Debug, Default)]
pub struct UndoStack {
    stages: Vec<Vec<Undo>>,
}

/// What could not be taken back, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The undo that failed.
    pub undo: Undo,
    /// Why.
    pub reason: String,
}

/// Brings workspaces home: the one undo that is not the engine's alone.
pub trait Saver: Sync {
    /// Saves the workspace that `container` holds. No such container is success: there is nothing to save.
    fn save(&self, container: &str) -> impl Future<Output = Result<(), String>> + Send;
}

impl UndoStack {
    /// Begins a stage: what is pushed from now on is taken back at once, before everything older.
    pub fn stage(&mut self) {
        self.stages.push(Vec::new());
    }

    /// Notes what takes back the action that is about to run.
    pub fn push(&mut self, undo: Undo) {
        if self.stages.is_empty() {
            self.stage();
        }
        if let Some(stage) = self.stages.last_mut() {
            stage.push(undo);
        }
    }

    /// How many undos it holds.
    pub fn len(&self) -> usize {
        self.stages.iter().map(Vec::len).sum()
    }

    /// Is there nothing to take back?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes everything back and gives what could not be. Workspaces come home before anything is removed; then the
    /// stages go, newest first, each one's objects at once, since they do not depend on one another.
    pub async fn unwind<E: Engine, S: Saver>(&mut self, engine: &E, saver: &S) -> Vec<Leftover> {
        let mut leftovers = Vec::new();
        while let Some(stage) = self.stages.pop() {
            let (saves, removals): (Vec<_>, Vec<_>) =
                stage.into_iter().partition(|u| matches!(u, Undo::SaveWorkspace { .. }));
            let mut unsaved = Vec::new();
            for undo in saves {
                if let Some(leftover) = take_back(engine, saver, &undo).await {
                    if let Undo::SaveWorkspace { container } = &leftover.undo {
                        unsaved.push(container.clone());
                    }
                    leftovers.push(leftover);
                }
            }
            // Work that could not be brought home is not thrown away: its container stays, stopped, and is reported.
            let kept = |undo: &Undo| matches!(undo, Undo::Engine(crate::engine::Undo::RemoveContainer { name, .. }) if unsaved.contains(name));
            let (kept, removals): (Vec<_>, Vec<_>) = removals.into_iter().partition(kept);
            leftovers.extend(
                kept.into_iter()
                    .map(|undo| Leftover { undo, reason: "it holds a workspace that could not be saved".to_owned() }),
            );
            let ended = removals.iter().map(|undo| take_back(engine, saver, undo));
            leftovers.extend(futures_util::future::join_all(ended).await.into_iter().flatten());
        }
        leftovers
    }
}

/// One undo, tried twice: an engine under load loses an answer now and then, and a second try tells that it is done.
async fn take_back<E: Engine, S: Saver>(engine: &E, saver: &S, undo: &Undo) -> Option<Leftover> {
    let mut reason = String::new();
    for _ in 0..2 {
        let (within, work) = match undo {
            Undo::SaveWorkspace { container } => (SAVE_WITHIN, saver.save(container).boxed()),
            Undo::Engine(undo) => {
                (UNDO_WITHIN, async { engine.undo(undo).await.map_err(|e| crate::error::chain(&e)) }.boxed())
            }
        };
        reason = match tokio::time::timeout(within, AssertUnwindSafe(work).catch_unwind()).await {
            Ok(Ok(Ok(()))) => return None,
            Ok(Ok(Err(reason))) => reason,
            Ok(Err(_)) => "it panicked".to_owned(),
            Err(_) => format!("it took longer than {} s", within.as_secs()),
        };
    }
    Some(Leftover { undo: undo.clone(), reason })
}

impl std::fmt::Display for Leftover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use crate::engine::Undo as E;
        match &self.undo {
            Undo::SaveWorkspace { container } => write!(f, "the workspace in container {container}")?,
            Undo::Engine(E::RemoveContainer { name, .. }) => write!(f, "container {name}")?,
            Undo::Engine(E::RemoveNetwork { name, .. }) => write!(f, "network {name}")?,
        }
        write!(f, ": {}", self.reason)
    }
}
