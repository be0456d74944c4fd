//! The process that owns a bottle: started from the same binary, in a session of its own, so that detaching is only
//! letting go. It launches, attends the agent, and takes everything back; `run` and all other commands are its clients.

use crate::audit::{Audit, Event};
use crate::control::Sidecar;
use crate::engine::{Engine, EngineError, Kind, docker::Docker};
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::image_files::Memory;
use crate::keeper::console::Console;
use crate::keeper::nursery::Tending;
use crate::keeper::supplies::Made;
use crate::keeper::tend::Life;
use crate::keeper_socket::{self, Ending, ToClient};
use crate::launch::clock::Clock;
use crate::launch::{Launch, LaunchError, Running};
use crate::log::LogFile;
use crate::plan::provision::{ImageFiles, ProvisionError};
use crate::plan::{self, Order, Plan};
use crate::state::{self, BottleDir, Metadata, Session, StateRoot};
use crate::stop::{self, Level, Stop, Stopper};
use crate::transfer::Home;
use crate::undo::{Leftover, UndoStack};
use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

pub mod agent;
pub mod build;
pub mod console;
pub mod current;
pub mod desk;
pub mod folder;
pub mod fresh;
pub mod gate;
pub mod nursery;
pub mod order;
pub mod serve;
pub mod supplies;
pub mod table;
pub mod tend;

/// How long a keeper waits for the client that started it.
const OWNER_WITHIN: Duration = Duration::from_secs(20);
/// How often a launch is tried with other subnets.
const ATTEMPTS: u32 = 5;

/// What a keeper is given on its standard input. It holds credentials: it is never written anywhere.
#[derive(Serialize, Deserialize)]
pub struct Charge {
    /// What is to be launched; the id is the first to try.
    pub order: Order,
    /// Must the id be just this one?
    pub pinned: bool,
    /// The engine, as DOCKER_HOST would say it.
    pub engine: Option<String>,
    /// The agent's image.
    pub image: String,
    /// Credential by the path of its route.
    pub credentials: BTreeMap<String, String>,
    /// Keys and tokens of remotes, and what opens keys, by the names that git-gate has for them.
    #[serde(default)]
    pub remote_credentials: BTreeMap<String, String>,
    /// When they were read, in seconds of Unix time: a person may take long to say yes.
    pub credentials_read: u64,
    /// The agent's environment.
    pub env: Vec<(String, String)>,
    /// The static first process, by its path on this machine.
    pub init: std::path::PathBuf,
    /// Users and groups of the image that the agent's own began with; the keeper finds them itself.
    #[serde(skip)]
    pub base: Option<ImageFiles>,
    /// The operator's command for every new proposal: program and arguments; empty for none.
    #[serde(default)]
    pub on_proposal: Vec<String>,
}

/// The first line that a keeper says on its standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Greeting {
    /// It has this id and listens.
    Listening(String),
    /// It could not begin.
    Failed(String),
}

/// What the tasks of a keeper share.
pub struct Shared<E: Engine> {
    /// The engine.
    pub engine: Arc<E>,
    /// Who sees the agent.
    pub console: Console,
    /// Raises the wish to end.
    pub stopper: Stopper,
    /// The bottle's log.
    pub log: Arc<LogFile>,
    /// `launching`, `running`, `ending`.
    pub phase: Mutex<&'static str>,
    /// The agent, once it runs.
    pub agent: OnceLock<agent::Handle>,
    /// How operators' commands come to the desk, once the agent runs.
    pub desk: OnceLock<desk::Door>,
    /// Role -> its life, once it runs.
    pub sidecars: Mutex<BTreeMap<String, Life>>,
    /// The operator's environment, as the client had it, for commands that fetch credentials.
    pub env: BTreeMap<String, String>,
    /// Called when the owner has come.
    pub owner: tokio::sync::Notify,
}

/// The hidden subcommand.
pub fn main() -> Exit {
    // A keeper has its own session: no terminal's signals reach it. A child is never a group's leader, so this succeeds.
    if let Err(error) = rustix::process::setsid() {
        greet(&Greeting::Failed(format!("the keeper cannot have a session of its own: {error}")));
        return Exit::Launch;
    }
    let mut text = zeroize::Zeroizing::new(String::new());
    let charge = match std::io::stdin().read_to_string(&mut text).map_err(|e| e.to_string()) {
        Ok(_) => serde_json::from_str::<Charge>(&text).map_err(|e| e.to_string()),
        Err(error) => Err(error),
    };
    let charge = match charge {
        Ok(charge) => charge,
        Err(error) => {
            greet(&Greeting::Failed(format!("the keeper does not understand what it was given: {error}")));
            return Exit::Usage;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            greet(&Greeting::Failed(format!("the keeper cannot have its threads: {error}")));
            return Exit::Launch;
        }
    };
    let exit = match runtime.block_on(begin(charge)) {
        Ok(exit) => exit,
        Err(failure) => {
            greet(&Greeting::Failed(failure.message));
            failure.exit
        }
    };
    // A blocked look-up or read of another thread must not keep a keeper that is done.
    runtime.shutdown_timeout(Duration::from_millis(100));
    exit
}

fn greet(greeting: &Greeting) {
    let Ok(line) = serde_json::to_string(greeting) else { return };
    // A client that has gone reads nothing; the keeper finds that out when no owner comes.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Claims the id, listens, waits for its client, and keeps the bottle.
async fn begin(mut charge: Charge) -> Result<Exit, Failure> {
    // The client starts its keeper with its own environment, so that none of it need be sent.
    let env: BTreeMap<String, String> =
        std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
    let root = StateRoot::open(&env).map_err(|e| Failure::launch(format!("no state directory: {e}"), None))?;
    let session = claim(&root, &charge)?;
    charge.order.owner.id = session.dir.id().to_owned();
    let io = |e: std::io::Error| Failure::launch(format!("the bottle's folder cannot be used: {e}"), None);
    let log = Arc::new(LogFile::open(&session.dir.log()).map_err(io)?);
    let panics = Arc::clone(&log);
    std::panic::set_hook(Box::new(move |panic| panics.line("keeper", "err", &panic.to_string())));
    let engine = Docker::connect(charge.engine.as_deref(), plan::seccomp::profile).await.map_err(Failure::from)?;
    let listener = keeper_socket::listen(&session.dir.socket()).map_err(io)?;
    let (stopper, stop) = stop::channel();
    let shared = Arc::new(Shared {
        engine: Arc::new(engine),
        console: Console::default(),
        stopper,
        log,
        phase: Mutex::new("launching"),
        agent: OnceLock::new(),
        desk: OnceLock::new(),
        sidecars: Mutex::default(),
        env,
        owner: tokio::sync::Notify::new(),
    });
    tokio::spawn(serve::serve(listener, Arc::clone(&shared)));
    tokio::spawn(crate::signals::raise_on_signals(shared.stopper.clone()));
    greet(&Greeting::Listening(session.dir.id().to_owned()));
    if tokio::time::timeout(OWNER_WITHIN, shared.owner.notified()).await.is_err() {
        discard(&session, &shared.log);
        return Ok(Exit::Launch);
    }
    let ending = keep(&shared, &mut charge, &session, &stop).await;
    let exit = ending.exit;
    // Free before the last word is said: whoever hears it may take, forget or use the name at once.
    drop(session);
    shared.console.end(ending).await;
    Ok(exit)
}

fn claim(root: &StateRoot, charge: &Charge) -> Result<Session, Failure> {
    let wanted = &charge.order.owner.id;
    let claimed = |id: &str| {
        root.claim(id).map_err(|e| Failure::launch(format!("the bottle's folder cannot be made: {e}"), None))
    };
    if charge.order.resumed.is_some() {
        return reopened(&root.dir(wanted));
    }
    if charge.pinned {
        return claimed(wanted)?.ok_or_else(|| taken(wanted));
    }
    for id in std::iter::once(wanted.clone()).chain(state::candidates(&charge.order.agent.name)) {
        if let Some(session) = claimed(&id)? {
            return Ok(session);
        }
    }
    Err(taken(wanted))
}

/// Takes the folder of a bottle that has ended.
fn reopened(dir: &BottleDir) -> Result<Session, Failure> {
    let io = |e: std::io::Error| Failure::launch(format!("the folder of {} cannot be used: {e}", dir.id()), None);
    let busy = || {
        let hint = format!("see `launcher ps`; end it with `launcher stop {}`", dir.id());
        Failure::usage(format!("{} is running, or another command is at work on it", dir.id()), hint)
    };
    let session = dir.lock_soon().map_err(io)?.ok_or_else(busy)?;
    if session.dir.metadata().is_none() || session.dir.recorded().is_some() {
        let hint = "run `launcher cleanup`, and say it again".to_owned();
        return Err(Failure::launch(format!("{} has not been taken back yet", dir.id()), hint));
    }
    session.sweep_stale().map_err(io)?;
    session.dir.begin_again().map_err(io)?;
    Ok(session)
}

/// The error for an id that is in use.
pub fn taken(id: &str) -> Failure {
    Failure::launch(
        format!("the name {id:?} is taken"),
        format!("give another with --name, or see `launcher ps --all` and `launcher cleanup --forget {id}`"),
    )
}

/// Removes the folder of a bottle that never began.
fn discard(session: &Session, log: &LogFile) {
    if session.dir.has_lived() {
        return;
    }
    if let Err(error) = session.dir.remove() {
        log.line("keeper", "err", &format!("the bottle's folder cannot be removed: {error}"));
    }
}

/// How the agent's part of a bottle ended.
#[derive(Debug)]
pub enum Outcome {
    /// Its program ended with this status.
    Exited(i64),
    /// Somebody, or a limit, ended it.
    Stopped,
    /// It could not run, or the engine lost it.
    Failed(Failure),
}

/// Launches, attends, takes back; whatever happens in the first two, the third is done.
pub async fn keep<E: Engine>(shared: &Arc<Shared<E>>, charge: &mut Charge, session: &Session, stop: &Stop) -> Ending {
    let began = std::time::Instant::now();
    let started = state::now();
    let mut outcome = Outcome::Stopped;
    let mut leftovers = Vec::new();
    let built = AssertUnwindSafe(build::ready(shared, charge, session, stop)).catch_unwind().await;
    let is_ready = match built.unwrap_or_else(|_| Err((Outcome::Failed(panicked()), Vec::new()))) {
        Ok(base) => {
            charge.base = base;
            true
        }
        Err(ended) => {
            (outcome, leftovers) = ended;
            false
        }
    };
    for attempt in (0..ATTEMPTS).take_while(|_| is_ready) {
        charge.order.attempt = attempt;
        let (tried, left) = one_try(shared, charge, session, stop, &started).await;
        leftovers = left;
        let again = matches!(&tried, Err(error) if error.is_conflict());
        outcome = match tried {
            Ok(outcome) => outcome,
            Err(LaunchError::Stopped) => Outcome::Stopped,
            Err(error) => Outcome::Failed(failure(&error)),
        };
        if !again || !leftovers.is_empty() || stop.level() > Level::Run {
            break;
        }
        shared.console.progress("the subnets are taken, trying others").await;
    }
    if let Err(error) = session.dir.forget_socket() {
        shared.log.line("keeper", "err", &format!("the keeper's socket cannot be removed: {error}"));
    }
    ending(shared, session, outcome, &leftovers, began.elapsed().as_secs())
}

fn failure(error: &LaunchError) -> Failure {
    let hint = match error {
        LaunchError::Different(_) => Some(
            "the engine may be too old, or lack an option that a bottle needs: the README says what is needed"
                .to_owned(),
        ),
        LaunchError::Once { .. } => Some("the wall needs nftables in the engine's kernel".to_owned()),
        LaunchError::Provision(ProvisionError::NoUser(_)) => {
            Some("name one that it has as `agent.user` in the bottle's manifest, or say `user: auto`".to_owned())
        }
        LaunchError::Build(_) => Some(
            "`launcher logs` has all that it said; `launcher resume BOTTLE --no-dockerfile` launches without it"
                .to_owned(),
        ),
        LaunchError::Workspace(_) => Some("start in a directory that can be read, or say --no-workspace".to_owned()),
        LaunchError::Engine(EngineError { kind: Kind::Conflict, .. }) => Some(
            "another launcher took the name in this moment: say it again, and the next free one is chosen".to_owned(),
        ),
        LaunchError::Engine(_)
        | LaunchError::Bring(_)
        | LaunchError::Provision(_)
        | LaunchError::Restore(_)
        | LaunchError::Panicked(_)
        | LaunchError::Stopped => None,
    };
    Failure::launch(chain(error), hint)
}

/// One launch with everything it made taken back.
async fn one_try<E: Engine>(
    shared: &Arc<Shared<E>>,
    charge: &Charge,
    session: &Session,
    stop: &Stop,
    started: &str,
) -> (Result<Outcome, LaunchError>, Vec<Leftover>) {
    let clock = Clock::start("prepare");
    let prepared = AssertUnwindSafe(prepare(shared, charge, session, started)).catch_unwind().await;
    let Prepared { plan, made, image } = match prepared.unwrap_or_else(|_| Err(panicked())) {
        Ok(prepared) => prepared,
        Err(failure) => return (Ok(Outcome::Failed(failure)), Vec::new()),
    };
    shared.log.line("keeper", "out", &clock.line());
    let progress = |text: &str| shared.console.progress_now(text);
    let mut undo = UndoStack::default();
    let notify = |text: &str| {
        shared.log.line("keeper", "out", text);
        shared.console.notice_now(text);
    };
    let launch = Launch::new(&*shared.engine, &plan, &made.supplies, stop, &shared.log, &progress, &notify);
    let launch = launch.remembering(Memory::beside(&session.dir), image.clone()).trusting(charge.base.clone());
    let mut held = Held::default();
    let launched = AssertUnwindSafe(launch.run(&mut undo)).catch_unwind().await;
    // What a verdict brings later is taken back with the rest.
    let undo = Arc::new(Mutex::new(undo));
    let tried = match launched {
        Ok(Ok(running)) => {
            let bottle = (&plan, &made, image.as_str(), &undo);
            let attending = attend(shared, charge, bottle, running, &mut held, session, stop);
            let attended = AssertUnwindSafe(attending).catch_unwind().await;
            Ok(attended.unwrap_or_else(|_| Outcome::Failed(panicked())))
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(LaunchError::Panicked("the launch itself; the log says where".to_owned())),
    };
    shared.set_phase("ending");
    let home = Home { engine: &*shared.engine, dir: &session.dir, progress: &progress };
    let clock = Clock::start("take back");
    held.rest().await;
    let mut undo = std::mem::take(&mut *undo.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let leftovers = undo.unwind(&*shared.engine, &home).await;
    held.end().await;
    shared.log.line("keeper", "out", &clock.line());
    if leftovers.is_empty()
        && let Err(error) = session.dir.forget_recorded()
    {
        shared.log.line("keeper", "err", &format!("the record of the plan cannot be removed: {error}"));
    }
    (tried, leftovers)
}

fn panicked() -> Failure {
    Failure::launch("the keeper panicked", "its log says where; please report it".to_owned())
}

/// The containers that run, and end when this is dropped.
#[derive(Default)]
struct Held {
    agent: Option<Sidecar>,
    sidecars: Option<Tending>,
    desk: Option<desk::Sitting>,
}

impl Held {
    /// From now on nothing is started again, and no verdict is carried out.
    async fn rest(&mut self) {
        self.desk.iter().for_each(desk::Sitting::rest);
        self.sidecars.iter().for_each(Tending::rest);
        if let Some(desk) = self.desk.take() {
            desk.end().await;
        }
    }

    async fn end(self) {
        if let Some(sidecars) = self.sidecars {
            sidecars.end().await;
        }
    }
}

/// What a launch begins with.
struct Prepared {
    plan: Plan,
    made: Made,
    /// Content address of the agent's image.
    image: String,
}

/// Facts, plan and bytes; and the record of what will be made, before any of it is.
async fn prepare<E: Engine>(
    shared: &Arc<Shared<E>>,
    charge: &Charge,
    session: &Session,
    started: &str,
) -> Result<Prepared, Failure> {
    let facts = plan::Facts {
        engine: Some(shared.engine.facts().await?),
        agent_image: shared.engine.image(&charge.image).await?,
    };
    let Some(image) = facts.agent_image.as_ref().map(|i| i.id.clone()) else {
        return Err(Failure::launch(format!("the engine has no image {}", charge.image), None));
    };
    if let (Some(built), Some(found)) = (charge.order.built(), &facts.agent_image)
        && built.content != found.content
    {
        return Err(Failure::launch(format!("the image {} is not what was made for this bottle", charge.image), None));
    }
    let plan = plan::plan(&charge.order, &facts).map_err(|e| Failure::launch(e.to_string(), e.hint()))?;
    let made = supplies::supplies(&plan, charge, &session.dir)?;
    let io = |e: std::io::Error| Failure::launch(format!("the bottle's folder cannot be written: {e}"), None);
    session.dir.record(&plan).map_err(io)?;
    session
        .dir
        .write_metadata(&Metadata {
            id: session.dir.id().to_owned(),
            agent: charge.order.agent.name.clone(),
            bottle: charge.order.bottle.name.clone(),
            workspace: charge.order.workspace.clone(),
            image: charge.image.clone(),
            engine: charge.engine.clone(),
            started: started.to_owned(),
            ended: None,
            outcome: None,
        })
        .map_err(io)?;
    Ok(Prepared { plan, made, image })
}

/// Runs the agent to its end. What is still running then is in `held`, to be taken back one by one.
async fn attend<E: Engine>(
    shared: &Arc<Shared<E>>,
    charge: &Charge,
    (plan, made, image, undo): (&Plan, &Made, &str, &Arc<Mutex<UndoStack>>),
    Running { mut sidecars, identity }: Running,
    held: &mut Held,
    session: &Session,
    stop: &Stop,
) -> Outcome {
    let life = |sidecar: &Sidecar| Life { status: sidecar.status(), restarts: 0 };
    let lives = sidecars.iter().map(|(role, sidecar)| (role.clone(), life(sidecar)));
    *shared.sidecars.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = lives.collect();
    held.agent = sidecars.remove("agent");
    let (ears, inbox) = desk::ears();
    let (supplies, table) = (&made.supplies, made.table.as_ref());
    let (tending, hands, nursery) = Tending::begin(shared, charge, plan, supplies, table, sidecars, (&ears, stop));
    held.sidecars = Some(tending);
    let recorded = match opened(charge, plan, image, session) {
        Ok(recorded) => recorded,
        Err(failure) => return Outcome::Failed(failure),
    };
    let (trust, gate) = (&made.trust, made.gate.as_ref());
    let ground = desk::Ground { charge, plan, session, audit: &recorded, table, gate, trust, undo, hands, nursery };
    match desk::begin(shared, ground, inbox) {
        Ok(sitting) => held.desk = Some(sitting),
        Err(why) => return Outcome::Failed(Failure::launch(format!("no proposal could be kept: {why}"), None)),
    }
    let outcome = agent::attend(shared, charge, plan, &identity, session, stop).await;
    shared.set_phase("ending");
    // Only a workspace is read after this, and what still runs in there has to end first. Else removing ends it.
    if charge.order.workspace.is_some()
        && let Some(agent) = held.agent.take()
    {
        let clock = Clock::start("end the agent");
        agent.end(Duration::from_secs(5)).await;
        shared.log.line("keeper", "out", &clock.line());
    }
    outcome
}

/// Opens the audit log with what the agent begins with. What cannot be written down is not launched.
fn opened(charge: &Charge, plan: &Plan, image: &str, session: &Session) -> Result<Arc<Audit>, Failure> {
    let failed = |why: String| Failure::launch(format!("the audit log cannot be written: {why}"), None);
    let audit = Audit::open(&session.dir.audit()).map_err(|e| failed(chain(&e)))?;
    let launched = Event::Launch {
        agent: charge.order.agent.name.clone(),
        bottle: charge.order.bottle.name.clone(),
        image: image.to_owned(),
        reach: plan.reach.lines(),
        resumed: charge.order.resumed.is_some(),
    };
    audit.record(launched).map_err(|e| failed(e.to_string()))?;
    Ok(Arc::new(audit))
}

/// Notes in the audit log how a bottle that began has ended. There is nobody to tell when it cannot be written but the log.
fn note_end(session: &Session, log: &LogFile, outcome: &str, leftovers: &[Leftover]) {
    let leftovers = leftovers.iter().map(ToString::to_string).collect();
    let ended = Event::Teardown { outcome: outcome.to_owned(), leftovers };
    let noted = Audit::open(&session.dir.audit()).map_err(|e| chain(&e));
    if let Err(why) = noted.and_then(|audit| audit.record(ended).map_err(|e| e.to_string())) {
        log.line("keeper", "err", &format!("the audit log cannot be written: {why}"));
    }
}

fn ending<E: Engine>(
    shared: &Shared<E>,
    session: &Session,
    outcome: Outcome,
    leftovers: &[Leftover],
    seconds: u64,
) -> Ending {
    let mut report = shared.log.report();
    report.seconds = seconds;
    let workspace = session.dir.workspace();
    report.workspace = workspace.exists().then(|| workspace.display().to_string());
    let (exit, error, hint, word) = match outcome {
        Outcome::Exited(code) => {
            report.agent_status = Some(code);
            let code = u8::try_from(code).unwrap_or(u8::MAX);
            (Exit::Agent(code), None, None, format!("exited {code}"))
        }
        Outcome::Stopped => (Exit::Interrupted, None, None, "stopped".to_owned()),
        Outcome::Failed(failure) => (failure.exit, Some(failure.message), failure.hint, "failed".to_owned()),
    };
    let began = session.dir.was_started();
    if !began && leftovers.is_empty() && !session.dir.has_lived() {
        discard(session, &shared.log);
    } else if let Some(mut metadata) = session.dir.metadata() {
        note_end(session, &shared.log, &word, leftovers);
        metadata.ended = Some(state::now());
        metadata.outcome = Some(word);
        // What was told of a life before is worth more than that this one did not begin.
        let is_told = began || !session.dir.has_lived();
        let reported = if is_told { session.dir.write_report(&report) } else { Ok(()) };
        let written = reported.and_then(|()| session.dir.write_metadata(&metadata));
        if let Err(error) = written {
            shared.log.line("keeper", "err", &format!("how it ended cannot be written: {error}"));
        }
    }
    let leftovers = leftovers.iter().map(ToString::to_string).collect();
    Ending { exit, error, hint, report: began.then_some(report), leftovers }
}

impl<E: Engine> Shared<E> {
    /// Says in which part of its life the bottle is.
    pub fn set_phase(&self, phase: &'static str) {
        *self.phase.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = phase;
    }

    /// The answer to "how are you?".
    pub fn status(&self) -> ToClient {
        let sidecars = self.sidecars.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let word = |status: &crate::control::Status| match status {
            crate::control::Status::Starting => "starting",
            crate::control::Status::Ready => "ready",
            crate::control::Status::Ended(_) => "ended",
        };
        ToClient::Status(Box::new(keeper_socket::Status {
            phase: (*self.phase.lock().unwrap_or_else(std::sync::PoisonError::into_inner)).to_owned(),
            sidecars: sidecars.iter().map(|(role, s)| (role.clone(), word(&s.status.borrow()).to_owned())).collect(),
            restarts: sidecars.iter().map(|(role, s)| (role.clone(), s.restarts)).filter(|(_, n)| *n > 0).collect(),
            report: self.log.report(),
        }))
    }
}
