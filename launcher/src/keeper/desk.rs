//! Where proposals lie until a person answers: the keeper's end of supervise. One task hears what the agent asks, what
//! was refused, and what operators decide, one thing after another; it alone changes what the bottle may do.
//!
//! Whatever widens the bottle is on the disk before it is done ([`crate::journal`], [`crate::audit`]); whatever narrows it
//! is done whether it can be written down or not.

use super::gate::Gate;
use super::nursery::{Hands, Nursery};
use super::order::{Order as Sidecars, Reply as Answered, Setback};
use super::supplies::Trust;
use super::table::Table;
use super::tend::supervise_line;
use super::{Charge, Shared, current, folder};
use crate::audit::{Audit, Event};
use crate::engine::Engine;
use crate::error::chain;
use crate::journal::Journal;
use crate::plan::{Addresses, Order, Plan};
use crate::state::{BottleDir, Session};
use crate::stop::{self, Level, Stop};
use crate::undo::UndoStack;
use crate::verdict::{Grant, Listed, Listing, Reply, Request, page};
use denials::{Denials, Heard};
pub use door::{Ask, Door, Ears, Inbox, News, Overheard, Sitting, Visit, ears};
use findings::Findings;
use state::Beyond;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use supervise::check;
use supervise::config::Command;
use supervise::queue::{Asked, Cause, Limits, Queue, Record, State, Term};
use supervise::wire::{Answer, Change, Current};
use tokio::sync::{mpsc, oneshot, watch};
use zeroize::Zeroizing;

pub mod denials;
mod door;
pub mod findings;
mod first;
mod remedy;
mod route;
pub mod state;
mod takeover;
mod verdicts;

/// How often what was refused is told to supervise and the audit log.
const TICK: Duration = Duration::from_secs(1);
/// How long the operator's own command for a new proposal may run.
const COMMAND_WITHIN: Duration = Duration::from_secs(30);

/// What a desk works on.
pub struct Ground<'a, E: Engine> {
    /// What the bottle was launched with.
    pub charge: &'a Charge,
    /// Its plan.
    pub plan: &'a Plan,
    /// Its folder.
    pub session: &'a Session,
    /// Its audit log.
    pub audit: &'a Arc<Audit>,
    /// cred-proxy's table, where there is one.
    pub table: Option<&'a Arc<Table>>,
    /// git-gate's, where there are remotes.
    pub gate: Option<&'a Arc<Gate>>,
    /// What routes trust.
    pub trust: &'a Arc<Trust>,
    /// What takes the bottle back.
    pub undo: &'a Arc<Mutex<UndoStack>>,
    /// How to reach its sidecars.
    pub hands: Hands,
    /// Who takes further ones over.
    pub nursery: Nursery<E>,
}

/// The desk.
struct Desk<E: Engine> {
    shared: Arc<Shared<E>>,
    /// What the bottle was launched with.
    base: Order,
    /// How it is now.
    order: Order,
    plan: Plan,
    addresses: Addresses,
    dir: BottleDir,
    supervise: Option<supervise::config::Config>,
    on_proposal: Vec<String>,
    audit: Arc<Audit>,
    journal: Journal,
    queue: Queue,
    beyond: Beyond,
    hands: Hands,
    table: Option<Arc<Table>>,
    gate: Option<Arc<Gate>>,
    trust: Arc<Trust>,
    undo: Arc<Mutex<UndoStack>>,
    nursery: Nursery<E>,
    denials: Denials,
    findings: Findings,
    changes: watch::Sender<u64>,
    folder: watch::Sender<Current>,
    /// Has supervise not been told of all refusals yet?
    stale: bool,
}

/// Opens the desk. An error: the journal cannot be used, and no verdict could be kept.
pub fn begin<E: Engine>(shared: &Arc<Shared<E>>, ground: Ground<'_, E>, inbox: Inbox) -> Result<Sitting, String> {
    let Ground { charge, plan, session, audit, table, gate, trust, undo, hands, nursery } = ground;
    let path = session.dir.proposals();
    let (journal, records) = Journal::open::<Record>(&path).map_err(|e| chain(&e))?;
    let queue = Queue::replay(Limits::default(), records).map_err(|e| chain(&e))?;
    let (changes, changed) = watch::channel(0);
    let (visits, visited) = mpsc::channel(door::VISITS_MAX);
    let (stopper, stop) = stop::channel();
    let mut desk = Desk {
        shared: Arc::clone(shared),
        base: charge.order.clone(),
        order: charge.order.clone(),
        plan: plan.clone(),
        addresses: plan.addresses.clone(),
        dir: session.dir.clone(),
        supervise: plan.supervise.clone(),
        on_proposal: charge.on_proposal.clone(),
        audit: Arc::clone(audit),
        journal,
        queue,
        beyond: Beyond::default(),
        hands,
        table: table.cloned(),
        gate: gate.cloned(),
        trust: Arc::clone(trust),
        undo: Arc::clone(undo),
        nursery,
        denials: Denials::default(),
        findings: Findings::default(),
        changes,
        folder: folder::begin(shared, plan.session.container.clone(), current::current(&charge.order, Vec::new())),
        stale: false,
    };
    for record in desk.queue.interrupted(now()) {
        desk.keep_anyway(record);
    }
    if charge.order.resumed.is_some() {
        desk.begin_again();
    }
    // A second desk of one keeper would be a mistake of ours: the first one's door stays.
    let _ = shared.desk.set(Door { visits, changes: changed });
    let task = tokio::spawn(desk.sit(inbox, visited, stop));
    Ok(Sitting::new(stopper, task))
}

impl<E: Engine> Desk<E> {
    async fn sit(mut self, mut inbox: Inbox, mut visits: mpsc::Receiver<Visit>, stop: Stop) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = until(self.queue.next_due());
            tokio::select! {
                () = stop.reached(Level::Graceful) => break,
                Some(ask) = inbox.asks.recv() => self.ask(ask),
                Some(visit) = visits.recv() => {
                    let reply = self.answer(visit.request, &visit.by).await;
                    // An operator who has gone is told by the next `launcher proposals`.
                    let _ = visit.reply.send(reply);
                }
                Some(line) = inbox.lines.recv() => self.overhear(&line).await,
                Some(news) = inbox.news.recv() => self.hear(news).await,
                _ = tick.tick() => self.tick(),
                () = due => {
                    for id in self.queue.due(now()) {
                        // What went wrong is in the log; it is over all the same.
                        let _ = self.take_back(&id, Cause::TimeOver, "its time is over").await;
                    }
                }
            }
        }
        let repeated = self.denials.repeated(now(), true);
        repeated.into_iter().for_each(|event| self.note(event));
        let report = self.shared.log.report();
        let routes = report.routes.iter().filter(|(_, route)| route.credential_uses > 0);
        let pushes = report.remotes.iter().filter(|(_, remote)| remote.pushes > 0);
        self.note(Event::Used {
            credentials: routes.map(|(path, route)| (path.clone(), route.credential_uses)).collect(),
            pushes: pushes.map(|(name, remote)| (name.clone(), remote.pushes)).collect(),
        });
    }

    /// What was in force in a life before is not any more, but for Dockerfiles; supervise began with that, see [`answers`].
    fn begin_again(&mut self) {
        for (id, change) in over(&self.queue) {
            match self.queue.end(&id, Cause::Resumed, now()) {
                Ok(record) => self.keep_anyway(record),
                Err(error) => self.log("err", &error.to_string()),
            }
            self.note(Event::Ended { grant: id, change, why: "the bottle ended, and was launched again".to_owned() });
        }
        self.refresh();
    }

    /// An agent asks: answered at once, whatever comes of it.
    fn ask(&mut self, Ask { call, change, justification }: Ask) {
        let command = match self.asked(change, &justification) {
            Ok(answer) => Command::Asked { call, answer },
            Err(reason) => {
                self.log("err", &format!("an ask of the agent is refused: {reason}"));
                Command::Denied { call, reason }
            }
        };
        self.refresh();
        self.tell(&command);
    }

    fn asked(&mut self, change: Change, justification: &str) -> Result<Answer, String> {
        let change = match change {
            Change::Finding { fingerprint } => {
                let Change::Finding { fingerprint } =
                    check::form(Change::Finding { fingerprint }).map_err(|e| e.to_string())?
                else {
                    return Err("it is no finding".to_owned());
                };
                Change::Finding { fingerprint: self.findings.whole(&fingerprint)? }
            }
            change @ (Change::Hosts { .. } | Change::Route(_) | Change::Dockerfile { .. }) => change,
        };
        let checked = check::change(change, &self.known()).map_err(|e| e.to_string())?;
        let asked = self.queue.ask(&checked, justification, now()).map_err(|e| e.to_string())?;
        let record = match asked {
            Asked::Known { answer, record } => {
                // A repeat that is not counted is no loss.
                if let Some(record) = record {
                    let _ = self.keep(record);
                    self.changed();
                }
                return Ok(answer);
            }
            Asked::New(record) => record,
        };
        let id = record.id().to_owned();
        self.keep(record).map_err(|_| "the operator's machine cannot write it down: ask again later".to_owned())?;
        let change = checked.into_change();
        let what = page::short(&change);
        self.note(Event::Proposal { id: id.clone(), change, justification: justification.to_owned() });
        self.announce(&id, &what);
        self.queue.answer(&id).ok_or_else(|| "it is lost".to_owned())
    }

    /// Tells whoever looks on that a person is wanted.
    fn announce(&self, id: &str, what: &str) {
        let bottle = self.dir.id();
        let text =
            format!("the agent asks for {what}: launcher approve {bottle} {id}, or launcher reject {bottle} {id}");
        self.log("out", &text);
        self.shared.console.bell_now(&crate::ui::clean(&text));
        self.changed();
        let Some((program, arguments)) = self.on_proposal.split_first() else { return };
        let mut command = tokio::process::Command::new(program);
        // Nothing of the agent's is on its command line or in its environment: what it asks for is shown by `proposals`.
        command.args(arguments).env_clear().envs(&self.shared.env).env("BOTTLE", bottle).env("BOTTLE_PROPOSAL", id);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null()).kill_on_drop(true);
        let log = Arc::clone(&self.shared.log);
        tokio::spawn(async move {
            let ran = match command.spawn() {
                Ok(mut child) => match tokio::time::timeout(COMMAND_WITHIN, child.wait()).await {
                    Ok(Ok(status)) if status.success() => return,
                    Ok(Ok(status)) => status.to_string(),
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => format!("it took longer than {} s", COMMAND_WITHIN.as_secs()),
                },
                Err(error) => error.to_string(),
            };
            log.line("keeper", "err", &format!("the command `on_proposal` failed: {ran}"));
        });
    }

    /// A sidecar says something: refusals are counted, findings remembered, and what is used up ends.
    async fn overhear(&mut self, Overheard { role, line }: &Overheard) {
        if let Some(heard) = Heard::read(role, line) {
            self.stale = true;
            if let Some(event) = self.denials.count(heard, now()) {
                self.note(event);
            }
        }
        if role == git_gate::NAME
            && let Some(operation) = denials::operation(line)
        {
            self.findings.hear(&operation);
            for id in self.used_by(&operation) {
                // As above.
                let _ = self.take_back(&id, Cause::Used, "it was used").await;
            }
        }
    }

    /// A grant for one use that a sidecar does not remember might be used twice: it is over.
    async fn restarted(&mut self, role: &str) {
        let is_of = |change: &Change| match change {
            Change::Finding { .. } => role == git_gate::NAME,
            Change::Route(_) => role == cred_proxy::config::NAME,
            Change::Hosts { .. } | Change::Dockerfile { .. } => false,
        };
        let once = |(id, change): &(&str, &Change)| is_of(change) && state::term(&self.queue, id) == Some(Term::Once);
        let over: Vec<String> = state::in_force(&self.queue).filter(once).map(|(id, _)| id.to_owned()).collect();
        for id in over {
            // What went wrong is in the log; it is over all the same.
            let _ = self.take_back(&id, Cause::Used, &format!("{role} was started again")).await;
        }
    }

    fn tick(&mut self) {
        for event in self.denials.repeated(now(), false) {
            self.note(event);
        }
        if std::mem::take(&mut self.stale) {
            self.tell_current();
        }
    }

    async fn answer(&mut self, request: Request, by: &str) -> Reply {
        match request {
            Request::List { .. } => Reply::Listing(Box::new(self.listing())),
            Request::Review { subject, terms } => match self.review(&subject, &terms) {
                Ok((review, _)) => Reply::Review(Box::new(review)),
                Err(refused) => refused,
            },
            Request::Decide { subject, terms, digest } => self.decide(&subject, &terms, &digest, by).await,
            Request::Reject { proposal, reason } => self.reject(&proposal, &reason, by),
        }
    }

    fn listing(&self) -> Listing {
        listing(self.dir.id(), &self.queue)
    }

    fn known(&self) -> check::Known {
        let dockerfile = current::current(&self.order, Vec::new()).dockerfile;
        state::known(&self.order, dockerfile)
    }

    /// Writes a record down, and only then is it so.
    fn keep(&mut self, record: Record) -> Result<(), String> {
        self.journal.append(&record).map_err(|e| format!("the proposals' journal cannot be written: {e}"))?;
        self.queue.apply(record).map_err(|e| chain(&e))
    }

    /// It is so, written down or not: for what narrows.
    fn keep_anyway(&mut self, record: Record) {
        if let Err(error) = self.journal.append(&record) {
            self.log("err", &format!("the proposals' journal cannot be written: {error}"));
        }
        if let Err(error) = self.queue.apply(record) {
            self.log("err", &chain(&error));
        }
    }

    /// Writes to the audit log what opens nothing; a log that cannot be written is said, and is no reason not to do it.
    fn note(&self, event: Event) {
        if let Err(error) = self.audit.record(event) {
            self.log("err", &format!("the audit log cannot be written: {error}"));
        }
    }

    /// Something has changed: supervise is told, also should it start again, and so are those who watch.
    fn settle(&mut self, id: &str) {
        self.refresh();
        if let Some(answer) = self.queue.answer(id).filter(|answer| answer.id.starts_with('p')) {
            self.tell(&Command::Answer { answer });
        }
        self.tell_current();
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|number| *number += 1);
    }

    fn tell_current(&mut self) {
        self.refresh();
        let current = current::current(&self.order, self.denials.shown());
        self.folder.send_if_modified(|written| {
            let changed = *written != current;
            if changed {
                written.clone_from(&current);
            }
            changed
        });
        self.tell(&Command::Current { current: Box::new(current) });
    }

    /// What supervise is told when it starts again.
    fn refresh(&self) {
        let (Some(config), Some(reach)) = (&self.supervise, self.hands.get(supervise::NAME)) else { return };
        let current = Box::new(current::current(&self.order, self.denials.shown()));
        let told = Command::Configure { config: config.clone(), current, answers: self.queue.answers() };
        if let Some(line) = supervise_line(&told) {
            *reach.feed.lock().unwrap_or_else(PoisonError::into_inner) = Zeroizing::new(line);
        }
    }

    fn tell(&self, command: &Command) {
        let Some(reach) = self.hands.get(supervise::NAME) else { return };
        let Some(line) = supervise_line(command) else { return };
        // One that reads nothing is started again, and told everything then.
        if reach.orders.try_send(Sidecars::Tell { line }).is_err() {
            self.log("err", "supervise is not told what is new: it does not read");
        }
    }

    /// Gives a sidecar an order and waits for its answer.
    async fn order_of<T>(&self, role: &str, make: impl FnOnce(Answered<T>) -> Sidecars) -> Result<T, Setback> {
        let gone = || Setback::Refused(format!("{role} has gone"));
        let Some(reach) = self.hands.get(role) else {
            return Err(Setback::Refused(format!("the bottle has no {role}")));
        };
        let (reply, answer) = oneshot::channel();
        reach.orders.send(make(reply)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    fn log(&self, stream: &str, text: &str) {
        self.shared.log.line("keeper", stream, text);
    }
}

/// What is in force by a journal and ends with the bottle: all but Dockerfiles.
pub fn over(queue: &Queue) -> Vec<(String, Change)> {
    let is_over = |(_, change): &(&str, &Change)| !matches!(change, Change::Dockerfile { .. });
    state::in_force(queue).filter(is_over).map(|(id, change)| (id.to_owned(), change.clone())).collect()
}

/// The queue that a bottle's journal makes.
pub fn replayed(path: &std::path::Path) -> Result<Queue, String> {
    let records = crate::journal::read::<Record>(path).map_err(|e| chain(&e))?;
    Queue::replay(Limits::default(), records).map_err(|e| chain(&e))
}

/// What was answered in the lives before, as it stands when the bottle begins another.
pub fn answers(path: &std::path::Path) -> Result<Vec<Answer>, String> {
    let mut queue = replayed(path)?;
    let ended = over(&queue).into_iter().filter_map(|(id, _)| queue.end(&id, Cause::Resumed, now()).ok());
    for record in ended.chain(queue.interrupted(now())).collect::<Vec<_>>() {
        queue.apply(record).map_err(|e| chain(&e))?;
    }
    Ok(queue.answers())
}

/// What was asked for and is in force, for an operator.
pub fn listing(bottle: &str, queue: &Queue) -> Listing {
    let proposals = queue.entries().filter(|entry| entry.proposal.id.starts_with('p'));
    let grants = queue.entries().filter_map(|entry| match &entry.state {
        State::InForce { change, term, .. } => Some(Grant {
            id: entry.proposal.id.clone(),
            change: change.clone(),
            until: if let Term::Until { at } = term { Some(*at) } else { None },
            once: *term == Term::Once,
        }),
        _ => None,
    });
    Listing {
        bottle: bottle.to_owned(),
        proposals: proposals.map(|e| Listed { proposal: e.proposal.clone(), answer: e.answer() }).collect(),
        grants: grants.collect(),
    }
}

/// Now, in seconds of Unix time.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Waits until a time in seconds of Unix time; for ever, where there is none. A clock that is set is noticed soon.
async fn until(due: Option<u64>) {
    const LOOK: u64 = 5;
    match due {
        Some(at) => {
            while now() < at {
                tokio::time::sleep(Duration::from_secs((at - now().min(at)).min(LOOK))).await;
            }
        }
        None => std::future::pending().await,
    }
}
