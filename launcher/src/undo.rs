//! Taking back. Undo is data, pushed before the action it takes back, idempotent. [`UndoStack::unwind`] runs after
//! success, error, stop and panic alike: newest stage first, a network as soon as it is empty, each undo with its own time
//! limit, never ending early.

use crate::engine::Engine;
use crate::plan::Undo;
use futures_util::{FutureExt, StreamExt};
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::sync::watch;

/// How long one undo on the engine may take: longer than the engine's own limit, so that its words are heard.
pub const UNDO_WITHIN: Duration = Duration::from_secs(300);
/// How long bringing the workspace home may take.
pub const SAVE_WITHIN: Duration = Duration::from_secs(30 * 60);

/// How many objects of a stage are taken back at once. An engine releases the ends of networks one after another: with
/// all containers at once, every network would be empty last of all, and their removals could not overlap with it.
const AT_ONCE: usize = 2;

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

    /// Forgets what takes back something that is gone already.
    pub fn forget(&mut self, undo: &Undo) {
        for stage in &mut self.stages {
            stage.retain(|kept| kept != undo);
        }
    }

    /// What it holds, stage by stage.
    pub fn stages(&self) -> &[Vec<Undo>] {
        &self.stages
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
    /// stages go, newest first, each one's objects at once. A network of which the plan says who is on it waits for those
    /// alone and not for its turn: an engine spends most of a removal waiting, for one thing or another.
    pub async fn unwind<E: Engine, S: Saver>(&mut self, engine: &E, saver: &S) -> Vec<Leftover> {
        let stages = std::mem::take(&mut self.stages);
        let gone = Gone::of(stages.iter().flatten());
        let (early, stages): (Vec<Vec<Undo>>, Vec<Vec<Undo>>) =
            stages.into_iter().map(|stage| stage.into_iter().partition(|undo| gone.knows_all_on(undo))).unzip();
        let early = early.into_iter().flatten().map(|undo| {
            let gone = &gone;
            async move {
                gone.all_on(&undo).await;
                take_back(engine, saver, &undo).await
            }
        });
        let in_turn = unwind_in_turn(engine, saver, stages, &gone);
        let (mut leftovers, early) = tokio::join!(in_turn, futures_util::future::join_all(early));
        leftovers.extend(early.into_iter().flatten());
        leftovers
    }
}

/// Stage by stage, newest first.
async fn unwind_in_turn<E: Engine, S: Saver>(
    engine: &E,
    saver: &S,
    mut stages: Vec<Vec<Undo>>,
    gone: &Gone,
) -> Vec<Leftover> {
    let mut leftovers = Vec::new();
    while let Some(stage) = stages.pop() {
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
        let kept = |undo: &Undo| container_of(undo).is_some_and(|name| unsaved.iter().any(|u| u == name));
        let (kept, removals): (Vec<_>, Vec<_>) = removals.into_iter().partition(kept);
        kept.iter().for_each(|undo| gone.note(undo));
        leftovers.extend(
            kept.into_iter()
                .map(|undo| Leftover { undo, reason: "it holds a workspace that could not be saved".to_owned() }),
        );
        let (networks, mut others): (Vec<_>, Vec<_>) = removals.into_iter().partition(is_network);
        // What was made first is the agent's container, on one network alone: as the last to go it leaves a single
        // network to be removed after it, and the others are removed beside it.
        let first: Vec<_> = others.drain(..others.len().min(1)).collect();
        // Networks last: one that does not say who is on it may have any of these.
        for group in [others, first, networks] {
            let ended = group.into_iter().rev().map(async |undo| {
                let leftover = take_back(engine, saver, &undo).await;
                gone.note(&undo);
                leftover
            });
            let ended = futures_util::stream::iter(ended).buffer_unordered(AT_ONCE);
            leftovers.extend(ended.filter_map(std::future::ready).collect::<Vec<_>>().await);
        }
    }
    leftovers
}

/// Which containers have been dealt with, removed or not.
struct Gone(BTreeMap<String, watch::Sender<bool>>);

impl Gone {
    fn of<'a>(undos: impl Iterator<Item = &'a Undo>) -> Self {
        Self(undos.filter_map(container_of).map(|name| (name.to_owned(), watch::Sender::new(false))).collect())
    }

    fn note(&self, undo: &Undo) {
        if let Some(noted) = container_of(undo).and_then(|name| self.0.get(name)) {
            noted.send_replace(true);
        }
    }

    /// Is it a network, and is everything that the plan puts on it about to go?
    fn knows_all_on(&self, undo: &Undo) -> bool {
        matches!(undo, Undo::Network { containers, .. } if !containers.is_empty() && containers.iter().all(|c| self.0.contains_key(c)))
    }

    async fn all_on(&self, undo: &Undo) {
        let Undo::Network { containers, .. } = undo else { return };
        for noted in containers.iter().filter_map(|name| self.0.get(name)) {
            // Cannot fail: its sender is ours.
            let _ = noted.subscribe().wait_for(|gone| *gone).await;
        }
    }
}

fn container_of(undo: &Undo) -> Option<&str> {
    match undo {
        Undo::Engine(crate::engine::Undo::RemoveContainer { name, .. }) => Some(name),
        Undo::Engine(crate::engine::Undo::RemoveNetwork { .. } | crate::engine::Undo::RemoveImage { .. })
        | Undo::Network { .. }
        | Undo::SaveWorkspace { .. } => None,
    }
}

fn is_network(undo: &Undo) -> bool {
    matches!(undo, Undo::Network { .. } | Undo::Engine(crate::engine::Undo::RemoveNetwork { .. }))
}

/// One undo, tried twice: an engine under load loses an answer now and then, and a second try tells that it is done.
async fn take_back<E: Engine, S: Saver>(engine: &E, saver: &S, undo: &Undo) -> Option<Leftover> {
    let mut reason = String::new();
    for _ in 0..2 {
        let (within, work) = match undo {
            Undo::SaveWorkspace { container } => (SAVE_WITHIN, saver.save(container).boxed()),
            Undo::Engine(undo) => (UNDO_WITHIN, on_engine(engine, undo.clone()).boxed()),
            Undo::Network { name, owner, .. } => {
                let undo = crate::engine::Undo::RemoveNetwork { name: name.clone(), owner: owner.clone() };
                (UNDO_WITHIN, on_engine(engine, undo).boxed())
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

async fn on_engine<E: Engine>(engine: &E, undo: crate::engine::Undo) -> Result<(), String> {
    engine.undo(&undo).await.map_err(|e| crate::error::chain(&e))
}

impl std::fmt::Display for Leftover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use crate::engine::Undo as E;
        match &self.undo {
            Undo::SaveWorkspace { container } => write!(f, "the workspace in container {container}")?,
            Undo::Engine(E::RemoveContainer { name, .. }) => write!(f, "container {name}")?,
            Undo::Network { name, .. } | Undo::Engine(E::RemoveNetwork { name, .. }) => write!(f, "network {name}")?,
            Undo::Engine(E::RemoveImage { reference, .. }) => write!(f, "image {reference}")?,
        }
        write!(f, ": {}", self.reason)
    }
}
