//! Keeps a bottle's sidecars alive: each has a task that holds it, tells it what is new, and starts it again when it has
//! ended. Until it is ready again its way is closed, since nothing listens there. The agent's container is not among
//! them: its end is the end of the bottle.
//!
//! A sidecar that starts again is the same container at the same address, and is told everything from the beginning; a
//! pipelock must show again that it runs with the policy that it was sent.

use super::desk::{Ask, Ears, News, Overheard};
use super::fresh::Rejected;
use super::nursery::Feed;
use super::order::{Hand, Order, Setback};
use super::table::Table;
use super::{Shared, supplies};
use crate::control::{self, BringError, Sidecar, Status};
use crate::engine::{Engine, Kind, Owner};
use crate::error::chain;
use crate::stop::{Level, Stop};
use bottle_images::init::Frame;
use cred_proxy::config::{Event, unchanged_line};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

/// The pause before a sidecar is started again; it doubles with every time.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest pause.
const PAUSE_MOST: Duration = Duration::from_secs(30);
/// A sidecar that lived for so long begins with the first pause again.
const STEADY: Duration = Duration::from_secs(60);
/// How long a container may take to end after its input has, and a sidecar to read what it is told.
const PATIENCE: Duration = Duration::from_secs(10);
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

/// One sidecar, and what is known of it.
pub(super) struct Tended<E: Engine> {
    pub(super) shared: Arc<Shared<E>>,
    pub(super) role: String,
    pub(super) container: String,
    /// What a pipelock must run with.
    pub(super) policy: Option<String>,
    /// Whose it is.
    pub(super) owner: Owner,
    /// What it is told when it starts, unless that is a table.
    pub(super) feed: Feed,
    pub(super) orders: Option<mpsc::Receiver<Order>>,
    /// Who hears what it says.
    pub(super) ears: Ears,
    /// Commands that it was sent and will answer, since it started.
    pub(super) sent: u64,
    pub(super) table: Option<Arc<Table>>,
    pub(super) words: Option<mpsc::Receiver<Word>>,
    /// Who is told that an upstream rejects a credential, by its name.
    pub(super) rejected: Rejected,
    pub(super) stop: Stop,
    /// Who wants the end of the bottle.
    pub(super) wanted: Stop,
    pub(super) restarts: u64,
    /// When it ends at the latest, once it is not to begin again.
    pub(super) retires: Option<tokio::time::Instant>,
}

/// What a held sidecar is about next.
enum Next {
    Line(String),
    Order(Order),
    Word(Word),
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
    /// Holds it until it is not to run any more.
    pub(super) async fn tend(mut self, mut sidecar: Sidecar) {
        let mut pause = PAUSE_FIRST;
        loop {
            let began = Instant::now();
            let parting = self.hold(sidecar).await;
            // In a bottle that ends, they are removed one after another: that is nothing to tell.
            if parting == Parting::LetGo || self.stop.level() >= Level::Graceful {
                return;
            }
            if self.retires.is_some() {
                return self.retired().await;
            }
            if began.elapsed() >= STEADY {
                pause = PAUSE_FIRST;
            }
            self.tell(&format!("{} has ended: what went through it is closed until it runs again", self.role));
            match self.again(&mut pause).await {
                Some(started) => sidecar = started,
                None if self.retires.is_some() => return self.retired().await,
                None => return,
            }
        }
    }

    /// Holds a sidecar to its end or the bottle's. What it is dropped for ends by itself: its input does.
    async fn hold(&mut self, mut sidecar: Sidecar) -> Parting {
        let mut status = sidecar.status();
        let mut lines = sidecar.take_lines();
        let (stop, wanted) = (self.stop.clone(), self.wanted.clone());
        loop {
            let next = tokio::select! {
                () = stop.reached(Level::Now) => return Parting::LetGo,
                _ = status.wait_for(|s| matches!(s, Status::Ended(_))) => return Parting::Gone,
                () = until(self.retires) => {
                    self.log("out", &format!("{} is ended with what is open on it: its time is over", self.role));
                    return Parting::Gone;
                }
                line = next(&mut lines) => Next::Line(line),
                order = next(&mut self.orders) => Next::Order(order),
                word = next(&mut self.words) => Next::Word(word),
            };
            let word = match next {
                Next::Word(word) => word,
                Next::Line(line) => {
                    let Some(reply) = self.hear(&line) else { continue };
                    let mut hand = Hand { sidecar: &mut sidecar, sent: &mut self.sent };
                    match hand.send(&reply).await {
                        Ok(()) => continue,
                        Err(_) => return Parting::Gone,
                    }
                }
                Next::Order(order) => {
                    let parting = tokio::select! {
                        () = stop.reached(Level::Now) => return Parting::LetGo,
                        // Whoever gave the order is waited for when the bottle ends, and the order may take long.
                        () = wanted.reached(Level::Now) => return Parting::LetGo,
                        parting = self.obey(order, &mut sidecar) => parting,
                    };
                    match parting {
                        Some(parting) => return parting,
                        None => continue,
                    }
                }
            };
            let bytes = match self.bytes(&word) {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.log("err", &format!("{} cannot be told its table: {error}", self.role));
                    continue;
                }
            };
            let sent = tokio::select! {
                () = stop.reached(Level::Now) => return Parting::LetGo,
                sent = tokio::time::timeout(PATIENCE, sidecar.send(&bytes)) => sent,
            };
            if !matches!(sent, Ok(Ok(()))) {
                // Half a line may have arrived: nothing that is told it from here on would be understood.
                self.log("err", &format!("{} does not read what it is told", self.role));
                return Parting::Gone;
            }
            if word == Word::Table {
                self.sent += 1;
            }
        }
    }

    /// Carries an order out. `Some`: the sidecar is no longer to be held.
    async fn obey(&mut self, order: Order, sidecar: &mut Sidecar) -> Option<Parting> {
        let mut hand = Hand { sidecar, sent: &mut self.sent };
        let broken = |setback: &Setback| matches!(setback, Setback::Broken(_)).then_some(Parting::Gone);
        match order {
            // Whoever gave it waits no longer: it must not happen behind their back.
            Order::Reload { reply, .. } | Order::Command { reply, .. } if reply.is_closed() => None,
            Order::Reload { yaml, reply } => {
                let old = self.policy.clone().unwrap_or_default();
                let done = hand.reload(&yaml, &old).await;
                let parting = done.as_ref().err().and_then(broken);
                if done.is_ok() {
                    self.adopt(yaml);
                }
                // Should nobody wait any more, the policy is in force and known to be.
                let _ = reply.send(done);
                parting
            }
            Order::Restart { yaml, reply } => {
                let done = hand.restart(&yaml).await;
                let parting = done.as_ref().err().and_then(broken);
                // Whatever came of it: it takes something away, and what starts next starts without that.
                self.adopt(yaml);
                let _ = reply.send(done);
                parting
            }
            Order::Probe { target, reply } => {
                let probed = hand.probe(&target).await;
                let parting = probed.as_ref().err().and_then(broken);
                let _ = reply.send(probed);
                parting
            }
            Order::Command { line, reply } => {
                let done = hand.command(&line).await;
                let parting = done.as_ref().err().and_then(broken);
                let _ = reply.send(done);
                parting
            }
            Order::Tell { line } => hand.send(&line).await.err().as_ref().and_then(broken),
            Order::Retire { within } => {
                self.retires = Some(tokio::time::Instant::now() + within);
                hand.send(&Frame::Drain.encode()).await.err().as_ref().and_then(broken)
            }
        }
    }

    /// It has served to its end: its container goes, and is no more spoken of. What is left of it goes with the bottle.
    async fn retired(self) {
        let Shared { engine, log, sidecars, .. } = &*self.shared;
        sidecars.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.role);
        let undo = crate::engine::Undo::RemoveContainer { name: self.container.clone(), owner: self.owner.clone() };
        match engine.undo(&undo).await {
            Ok(()) => {
                log.line("keeper", "out", &format!("{} has served to its end and is gone", self.role));
                // A desk that is full goes on taking its seat for taken.
                let _ = self.ears.news.try_send(News::Retired(self.role.clone()));
            }
            Err(error) => log.line("keeper", "err", &format!("{} cannot be removed: {}", self.role, chain(&error))),
        }
    }

    /// This is a pipelock's policy from now on, also when it starts again.
    fn adopt(&mut self, yaml: String) {
        let mut feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner);
        *feed = supplies::with_policy(&feed, self.policy.as_deref().unwrap_or_default(), &yaml);
        drop(feed);
        self.policy = Some(yaml);
    }

    fn bytes(&self, word: &Word) -> serde_json::Result<Zeroizing<Vec<u8>>> {
        match (word, &self.table) {
            (Word::Table, Some(table)) => table.line(),
            (Word::Table, None) => Ok(Zeroizing::default()),
            (Word::Unchanged(name), _) => unchanged_line(name).map(Zeroizing::new),
        }
    }

    /// Hands on what somebody waits for. Most lines are about requests, and are counted where they are logged. Gives what
    /// the sidecar is to be told at once.
    fn hear(&self, line: &str) -> Option<Vec<u8>> {
        if self.role == supervise::NAME {
            return self.hear_ask(line);
        }
        // A desk that is busy loses refusals here, which are counted in the report all the same.
        let _ = self.ears.lines.try_send(Overheard { role: self.role.clone(), line: line.to_owned() });
        if self.table.is_none() || line.starts_with(r#"{"event":"request""#) {
            return None;
        }
        match serde_json::from_str(line) {
            Ok(Event::Rejected { secret, .. }) => {
                if let Some(fresh) = self.rejected.lock().unwrap_or_else(PoisonError::into_inner).get(&secret) {
                    // One that is busy has this one in hand already.
                    let _ = fresh.try_send(secret);
                }
            }
            Ok(Event::Refused { reason }) => {
                self.tell(&format!("{} goes on with the table it had: {reason}", self.role));
            }
            Ok(Event::UsedUp { route }) => {
                // It is used up in any case; a desk that is full goes on listing it.
                let _ = self.ears.news.try_send(News::UsedUp(route));
            }
            Ok(Event::Ready | Event::Configured | Event::Request { .. }) | Err(_) => {}
        }
        None
    }

    /// An ask is never lost: it reaches the desk, or is answered here.
    fn hear_ask(&self, line: &str) -> Option<Vec<u8>> {
        let Ok(supervise::config::Event::Ask { call, change, justification }) = serde_json::from_str(line) else {
            return None;
        };
        let full = self.ears.asks.try_send(Ask { call, change, justification }).err()?;
        self.log("err", &format!("an ask is not heard: {full}"));
        let reason = "too much is asked at once: wait a little and ask again".to_owned();
        supervise_line(&supervise::config::Command::Denied { call, reason })
    }

    /// Starts the sidecar until it runs. `None`: it is not to run again.
    async fn again(&mut self, pause: &mut Duration) -> Option<Sidecar> {
        let mut told = false;
        loop {
            let pausing = tokio::time::sleep(*pause);
            tokio::pin!(pausing);
            loop {
                tokio::select! {
                    () = &mut pausing => break,
                    () = self.stop.reached(Level::Graceful) => return None,
                    order = next(&mut self.orders) => match order {
                        // It does not run, so it lets nothing through; when it starts, it starts with this.
                        Order::Restart { yaml, reply } => {
                            self.adopt(yaml);
                            let _ = reply.send(Ok(()));
                        }
                        // Nothing is open on it.
                        Order::Retire { .. } => {
                            self.retires = Some(tokio::time::Instant::now());
                            return None;
                        }
                        other => other.refuse(&format!("{} does not run at the moment", self.role)),
                    },
                }
            }
            *pause = (*pause * 2).min(PAUSE_MOST);
            match self.bring().await {
                Ok((sidecar, told)) => {
                    // The first line is answered with "ready", the others as commands are.
                    self.sent = told.saturating_sub(1);
                    self.restarts += 1;
                    let life = Life { status: sidecar.status(), restarts: self.restarts };
                    let mut all = self.shared.sidecars.lock().unwrap_or_else(PoisonError::into_inner);
                    all.insert(self.role.clone(), life);
                    drop(all);
                    // A desk that is full hears of it by the next order that is refused.
                    let _ = self.ears.news.try_send(News::Restarted(self.role.clone()));
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

    /// Starts it once. Gives how many lines it was told as well.
    async fn bring(&self) -> Result<(Sidecar, u64), BringError> {
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
        let feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(policy) = &self.policy {
            let brought = control::bring_pipelock(&**engine, container, role, (&feed, policy), log, &self.stop).await;
            return brought.map(|sidecar| (sidecar, 0));
        }
        let table = self.table.as_ref().map(|table| table.line_again()).transpose();
        let table = table.map_err(|e| BringError::Feed { role: role.to_owned(), source: e.into() })?;
        let feed = table.as_ref().unwrap_or(&feed);
        let lines = feed.iter().filter(|byte| **byte == b'\n').count() as u64;
        let sidecar = control::bring(&**engine, container, role, feed, log, &self.stop).await?;
        Ok((sidecar, lines))
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

/// A line for supervise, newline included; `None` cannot happen to its own types, and is no reason to panic.
pub fn supervise_line(command: &supervise::config::Command) -> Option<Vec<u8>> {
    let mut line = serde_json::to_vec(command).ok()?;
    line.push(b'\n');
    Some(line)
}

/// Waits for a time; for ever, where there is none.
async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
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
