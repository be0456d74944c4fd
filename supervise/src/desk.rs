//! What the sidecar knows, and who waits for what: between the agent's calls and the keeper's words.
//!
//! It decides nothing and holds nothing that matters: a proposal's state is the keeper's, told again after a restart.

use crate::check;
use crate::config::Event;
use crate::log::Log;
use crate::rate::Bucket;
use crate::wire::{Answer, Change, Current, Status};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot, watch};

/// How long the keeper may take to say what an ask came to.
const KEEPER_WITHIN: Duration = Duration::from_secs(20);

/// Calls that wait for a verdict at one time; the next ones are told `pending` at once.
const WAITING_MAX: usize = 32;

/// Answers that are kept; the keeper tells fewer.
const ANSWERS_MAX: usize = 4096;

/// Asks in a burst, and the time after which there may be one more.
const ASKS: (u32, Duration) = (20, Duration::from_secs(3));

/// Calls of any kind in a burst, and the time after which there may be one more.
const CALLS: (u32, Duration) = (200, Duration::from_millis(50));

/// The desk.
#[derive(Debug)]
pub struct Desk {
    log: Log,
    began: Instant,
    /// The longest that a call waits.
    wait: Duration,
    waiting: Semaphore,
    /// Counts what was told; whoever waits looks again when it changes.
    told: watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    current: Arc<Current>,
    answers: BTreeMap<String, Answer>,
    calls: HashMap<u64, oneshot::Sender<Result<Answer, String>>>,
    call: u64,
    asks: Bucket,
    any: Bucket,
}

/// Why a call has no answer, in words for the agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It cannot be asked for.
    #[error("{0}")]
    Unfit(String),
    /// Too many calls.
    #[error("too many calls: wait {} seconds before the next one", .0.as_secs() + 1)]
    TooFast(Duration),
    /// The keeper does not read.
    #[error("the launcher is behind with what was asked before; nothing was asked, try again in a minute")]
    Behind,
    /// The keeper does not answer.
    #[error(
        "the launcher has not answered; the ask may have reached it: ask the same again in a minute, it will not be asked twice"
    )]
    Silent,
    /// No such proposal.
    #[error("there is no proposal {0:?}; the ids of yours are in the resource bottle://proposals")]
    Unknown(String),
}

impl Desk {
    /// With what the keeper told first.
    pub fn new(log: Log, wait: Duration, current: Current, answers: Vec<Answer>) -> Self {
        let state = State {
            current: Arc::new(current),
            answers: BTreeMap::new(),
            calls: HashMap::new(),
            call: 0,
            asks: Bucket::new(ASKS.0, ASKS.1),
            any: Bucket::new(CALLS.0, CALLS.1),
        };
        let desk = Self {
            log,
            began: Instant::now(),
            wait,
            waiting: Semaphore::new(WAITING_MAX),
            told: watch::Sender::new(0),
            state: Mutex::new(state),
        };
        answers.into_iter().for_each(|answer| desk.answer(answer));
        desk
    }

    /// The longest that a call waits.
    pub fn wait_max(&self) -> Duration {
        self.wait
    }

    /// How the bottle is.
    pub fn current(&self) -> Arc<Current> {
        self.state().current.clone()
    }

    /// Where all proposals are, oldest first.
    pub fn answers(&self) -> Vec<Answer> {
        let mut answers: Vec<Answer> = self.state().answers.values().cloned().collect();
        // `p2` stands before `p10`.
        answers.sort_by(|a, b| (a.id.len(), &a.id).cmp(&(b.id.len(), &b.id)));
        answers
    }

    /// The keeper tells how the bottle is.
    pub fn tell_current(&self, current: Current) {
        self.state().current = Arc::new(current);
    }

    /// The keeper tells where a proposal is.
    pub fn answer(&self, answer: Answer) {
        let mut state = self.state();
        let is_new = !state.answers.contains_key(&answer.id);
        if is_new && state.answers.len() >= ANSWERS_MAX {
            return;
        }
        state.answers.insert(answer.id.clone(), answer);
        drop(state);
        self.told.send_modify(|told| *told += 1);
    }

    /// The keeper tells what an ask came to.
    pub fn asked(&self, call: u64, answer: Answer) {
        self.answer(answer.clone());
        self.settle(call, Ok(answer));
    }

    /// The keeper tells why an ask came to nothing.
    pub fn denied(&self, call: u64, reason: String) {
        self.settle(call, Err(reason));
    }

    /// May there be one more call?
    pub fn call(&self) -> Result<(), Refusal> {
        let now = self.began.elapsed();
        self.state().any.take(now).map_err(Refusal::TooFast)
    }

    /// Hands a change to the keeper, and gives back what the keeper says: mostly that it is pending.
    pub async fn ask(&self, change: Change, justification: String) -> Result<Answer, Refusal> {
        let unfit = |unfit: check::Unfit| Refusal::Unfit(unfit.to_string());
        let change = check::form(change).map_err(unfit)?;
        check::justification(&justification).map_err(unfit)?;
        let (call, settled) = self.open_call()?;
        let open = OpenCall { desk: self, call };
        self.log.ask(Event::Ask { call, change, justification }).map_err(|_| Refusal::Behind)?;
        let settled = tokio::time::timeout(KEEPER_WITHIN, settled).await;
        drop(open);
        match settled {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(reason))) => Err(Refusal::Unfit(reason)),
            Ok(Err(_)) | Err(_) => Err(Refusal::Silent),
        }
    }

    /// Where a proposal is, once it is no longer pending, or after `within`.
    pub async fn verdict(&self, id: &str, within: Duration) -> Result<Answer, Refusal> {
        let mut told = self.told.subscribe();
        let mut answer = self.known(id)?;
        let Ok(_place) = self.waiting.try_acquire() else { return Ok(answer) };
        let end = tokio::time::Instant::now() + within.min(self.wait);
        while answer.status == Status::Pending {
            tokio::select! {
                // The sender is in `self`, so it is there.
                _ = told.changed() => {}
                () = tokio::time::sleep_until(end) => break,
            }
            answer = self.known(id)?;
        }
        Ok(answer)
    }

    fn known(&self, id: &str) -> Result<Answer, Refusal> {
        let quoted = || id.chars().take(20).collect();
        self.state().answers.get(id).cloned().ok_or_else(|| Refusal::Unknown(quoted()))
    }

    fn open_call(&self) -> Result<(u64, oneshot::Receiver<Result<Answer, String>>), Refusal> {
        let now = self.began.elapsed();
        let mut state = self.state();
        state.asks.take(now).map_err(Refusal::TooFast)?;
        state.call += 1;
        let (settle, settled) = oneshot::channel();
        let call = state.call;
        state.calls.insert(call, settle);
        Ok((call, settled))
    }

    fn settle(&self, call: u64, outcome: Result<Answer, String>) {
        let waits = self.state().calls.remove(&call);
        // The agent may have gone; the answer is kept.
        waits.into_iter().for_each(|waits| drop(waits.send(outcome.clone())));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that the keeper has not answered; it is forgotten when its caller goes, however that happens.
struct OpenCall<'a> {
    desk: &'a Desk,
    call: u64,
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        self.desk.state().calls.remove(&self.call);
    }
}
