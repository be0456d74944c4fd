//! Keeps a bottle's sidecars alive: each has a task that holds it, tells it what is new, and starts it again when it has
//! ended. Until it is ready again its way is closed, since nothing listens there. The agent's container is not among
//! them: its end is the end of the bottle.
//!
//! A sidecar that starts again is the same container at the same address, and is told everything from the beginning; a
//! pipelock must show again that it runs with the policy that it was sent.

use super::table::Table;
use super::{Charge, Shared, fresh};
use crate::control::{self, BringError, Sidecar, Status};
use crate::engine::{Engine, Kind};
use crate::error::chain;
use crate::launch::Supplies;
use crate::plan::Plan;
use crate::stop::{self, Level, Stop, Stopper};
use cred_proxy::config::{Event, unchanged_line};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

/// The pause before a sidecar is started again; it doubles with every time.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest pause.
const PAUSE_MOST: Duration = Duration::from_secs(30);
/// A sidecar that lived for so long begins with the first pause again.
const STEADY: Duration = Duration::from_secs(60);
/// How long a container may take to end after its input has, and a sidecar to read what it is told.
const PATIENCE: Duration = Duration::from_secs(10);
/// What may wait to be told to a sidecar.
const WORDS_MAX: usize = 64;

/// What a running cred-proxy is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// The table, as it is when this is told.
    Table,
    /// There is no other credential of this name.
    Unchanged(String),
}

/// How a sidecar is, for those who ask.
#[derive(Debug, Clone)]
pub struct Life {
    /// Its life since it was started last.
    pub status: watch::Receiver<Status>,
    /// How often it was started again.
    pub restarts: u64,
}

/// All sidecars of a bottle that are held. Dropping it lets go of them, which ends them.
pub struct Tending {
    stopper: Stopper,
    tasks: JoinSet<()>,
}

impl Tending {
    /// Takes the sidecars over, and keeps cred-proxy's credentials fresh.
    pub fn begin<E: Engine>(
        shared: &Arc<Shared<E>>,
        charge: &Charge,
        plan: &Plan,
        supplies: &Supplies,
        table: Option<&Arc<Table>>,
        sidecars: BTreeMap<String, Sidecar>,
        stop: &Stop,
    ) -> Self {
        let (stopper, own) = stop::channel();
        let mut tasks = JoinSet::new();
        let (wanted, ending, raise) = (stop.clone(), own.clone(), stopper.clone());
        // Who wants the end of the bottle wants no sidecar to begin again.
        tasks.spawn(async move {
            tokio::select! {
                () = wanted.reached(Level::Graceful) => raise.raise(Level::Graceful),
                () = ending.reached(Level::Now) => {}
            }
        });
        for (role, sidecar) in sidecars {
            let feed = supplies.feeds.get(&sidecar.container).cloned().unwrap_or_default();
            let mut tended = Tended {
                shared: Arc::clone(shared),
                container: sidecar.container.clone(),
                policy: plan.policy(&role).map(str::to_owned),
                feed,
                table: None,
                words: None,
                rejected: BTreeMap::new(),
                stop: own.clone(),
                restarts: 0,
                role,
            };
            if let Some(table) = table.filter(|_| tended.role == cred_proxy::config::NAME) {
                let (words, told) = mpsc::channel(WORDS_MAX);
                tended.words = Some(told);
                tended.rejected = fresh::begin(&mut tasks, shared, charge, table, &words, &own);
                tended.table = Some(Arc::clone(table));
            }
            tasks.spawn(tended.tend(sidecar));
        }
        Self { stopper, tasks }
    }

    /// From now on none is started again; those that run stay.
    pub fn rest(&self) {
        self.stopper.raise(Level::Graceful);
    }

    /// Lets go of all of them. A start that is under way is waited for, within reason: it would take effect all the same.
    pub async fn end(mut self) {
        self.stopper.raise(Level::Now);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        // What takes longer is removed with its container; a task that is aborted holds nothing any more.
        let _ = tokio::time::timeout(PATIENCE, ended).await;
    }
}

/// One sidecar.
struct Tended<E: Engine> {
    shared: Arc<Shared<E>>,
    role: String,
    container: String,
    /// What a pipelock must run with.
    policy: Option<String>,
    /// What it is told when it starts, unless that is a table.
    feed: Zeroizing<Vec<u8>>,
    table: Option<Arc<Table>>,
    words: Option<mpsc::Receiver<Word>>,
    /// Who is told that an upstream rejects a credential, by its name.
    rejected: BTreeMap<String, mpsc::Sender<String>>,
    stop: Stop,
    restarts: u64,
}

/// Why a sidecar is no longer held.
#[derive(Debug, PartialEq, Eq)]
enum Parting {
    /// It has ended, or does not listen.
    Gone,
    /// The bottle ends.
    LetGo,
}

impl<E: Engine> Tended<E> {
    async fn tend(mut self, mut sidecar: Sidecar) {
        let mut pause = PAUSE_FIRST;
        loop {
            let began = Instant::now();
            let parting = self.hold(sidecar).await;
            // In a bottle that ends, they are removed one after another: that is nothing to tell.
            if parting == Parting::LetGo || self.stop.level() >= Level::Graceful {
                return;
            }
            if began.elapsed() >= STEADY {
                pause = PAUSE_FIRST;
            }
            self.tell(&format!("{} has ended: what went through it is closed until it runs again", self.role));
            match self.again(&mut pause).await {
                Some(started) => sidecar = started,
                None => return,
            }
        }
    }

    /// Holds a sidecar to its end or the bottle's. What it is dropped for ends by itself: its input does.
    async fn hold(&mut self, mut sidecar: Sidecar) -> Parting {
        let mut status = sidecar.status();
        let mut lines = sidecar.take_lines();
        loop {
            let word = tokio::select! {
                () = self.stop.reached(Level::Now) => return Parting::LetGo,
                _ = status.wait_for(|s| matches!(s, Status::Ended(_))) => return Parting::Gone,
                line = next(&mut lines) => {
                    self.hear(&line);
                    continue;
                }
                word = next(&mut self.words) => word,
            };
            let bytes = match self.bytes(&word) {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.log("err", &format!("{} cannot be told its table: {error}", self.role));
                    continue;
                }
            };
            let sent = tokio::select! {
                () = self.stop.reached(Level::Now) => return Parting::LetGo,
                sent = tokio::time::timeout(PATIENCE, sidecar.send(&bytes)) => sent,
            };
            if !matches!(sent, Ok(Ok(()))) {
                // Half a line may have arrived: nothing that is told it from here on would be understood.
                self.log("err", &format!("{} does not read what it is told", self.role));
                return Parting::Gone;
            }
        }
    }

    fn bytes(&self, word: &Word) -> serde_json::Result<Zeroizing<Vec<u8>>> {
        match (word, &self.table) {
            (Word::Table, Some(table)) => table.line(),
            (Word::Table, None) => Ok(Zeroizing::default()),
            (Word::Unchanged(name), _) => unchanged_line(name).map(Zeroizing::new),
        }
    }

    /// Most lines are about requests, and are counted where they are logged.
    fn hear(&self, line: &str) {
        if self.table.is_none() || line.starts_with(r#"{"event":"request""#) {
            return;
        }
        match serde_json::from_str(line) {
            Ok(Event::Rejected { secret, .. }) => {
                if let Some(fresh) = self.rejected.get(&secret) {
                    // One that is busy has this one in hand already.
                    let _ = fresh.try_send(secret);
                }
            }
            Ok(Event::Refused { reason }) => {
                self.tell(&format!("{} goes on with the table it had: {reason}", self.role));
            }
            Ok(Event::Ready | Event::Configured | Event::Request { .. }) | Err(_) => {}
        }
    }

    /// Starts the sidecar until it runs. `None`: it is not to run again.
    async fn again(&mut self, pause: &mut Duration) -> Option<Sidecar> {
        let mut told = false;
        loop {
            tokio::select! {
                () = tokio::time::sleep(*pause) => {}
                () = self.stop.reached(Level::Graceful) => return None,
            }
            *pause = (*pause * 2).min(PAUSE_MOST);
            match self.bring().await {
                Ok(sidecar) => {
                    self.restarts += 1;
                    let life = Life { status: sidecar.status(), restarts: self.restarts };
                    let mut all = self.shared.sidecars.lock().unwrap_or_else(PoisonError::into_inner);
                    all.insert(self.role.clone(), life);
                    drop(all);
                    self.tell(&format!("{} runs again", self.role));
                    return Some(sidecar);
                }
                Err(BringError::Stopped) => return None,
                Err(BringError::Engine(error)) if error.kind == Kind::NotFound => {
                    self.tell(&format!("{} is not started again: its container is gone", self.role));
                    return None;
                }
                Err(error) => {
                    let text = format!("{} cannot be started again: {}", self.role, chain(&error));
                    self.log("err", &text);
                    if !told {
                        self.shared.console.notice_now(&format!("{text}; it is tried on"));
                        told = true;
                    }
                }
            }
        }
    }

    async fn bring(&self) -> Result<Sidecar, BringError> {
        let Shared { engine, log, .. } = &*self.shared;
        // The engine may hear of an end after we do, and what we lost may still live for a moment: its input has ended.
        let ended = tokio::select! {
            ended = tokio::time::timeout(PATIENCE, engine.wait_exit(&self.container)) => ended,
            () = self.stop.reached(Level::Graceful) => return Err(BringError::Stopped),
        };
        match ended {
            Ok(Ok(status)) => self.log("out", &format!("{} ended with status {status}", self.container)),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(BringError::Late { role: self.role.clone() }),
        }
        let (container, role) = (self.container.as_str(), self.role.as_str());
        if let Some(policy) = &self.policy {
            return control::bring_pipelock(&**engine, container, role, (&self.feed, policy), log, &self.stop).await;
        }
        let table = self.table.as_ref().map(|table| table.line()).transpose();
        let table = table.map_err(|e| BringError::Feed { role: role.to_owned(), source: e.into() })?;
        control::bring(&**engine, container, role, table.as_ref().unwrap_or(&self.feed), log, &self.stop).await
    }

    fn log(&self, stream: &str, text: &str) {
        self.shared.log.line("keeper", stream, text);
    }

    /// Tells the log and whoever looks on; a client that takes nothing must not keep a sidecar from starting.
    fn tell(&self, text: &str) {
        self.log("out", text);
        self.shared.console.notice_now(&crate::ui::clean(text));
    }
}

/// The next one; never, where there is none any more.
async fn next<T>(from: &mut Option<mpsc::Receiver<T>>) -> T {
    if let Some(receiver) = from {
        match receiver.recv().await {
            Some(item) => return item,
            None => *from = None,
        }
    }
    std::future::pending().await
}
