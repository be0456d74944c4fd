//! The agent's session: it runs as an exec under `bottle-init`, on the clients' terminals, until it ends, a limit is
//! reached, or somebody wants the end.

use super::{Charge, Outcome, Shared, serve};
use crate::engine::{Engine, ExecSpec, Kind, Undo};
use crate::error::Failure;
use crate::exit::Exit;
use crate::keeper_socket::{Frame, ToClient};
use crate::launch::clock::Clock;
use crate::plan::provision::Identity;
use crate::plan::{AgentUser, Plan};
use crate::state::Session;
use crate::stop::{Level, Stop};
use bottle_images::init;
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;

/// How long an agent that was asked to end may take.
const GRACE: Duration = Duration::from_secs(10);
/// How often the writable layer is measured.
const DISK_LOOK: Duration = Duration::from_secs(15);

/// How to run more in the agent's container.
pub struct Handle {
    /// The agent's own exec; another one differs in its program and terminal.
    pub spec: ExecSpec,
}

/// Runs the agent to its end.
pub async fn attend<E: Engine>(
    shared: &Arc<Shared<E>>,
    charge: &Charge,
    plan: &Plan,
    identity: &Identity,
    session: &Session,
    stop: &Stop,
) -> Outcome {
    let spec = spec(shared, charge, plan, identity);
    if let Err(error) = session.dir.mark_started() {
        return Outcome::Failed(Failure::launch(format!("the bottle's folder cannot be written: {error}"), None));
    }
    let clock = Clock::start("exec");
    let exec = match shared.engine.exec(&spec).await {
        Ok(exec) => exec,
        Err(error) => {
            if error.kind == Kind::NoProgram
                && let Err(error) = session.dir.unmark_started()
            {
                shared.log.line("keeper", "err", &format!("the bottle's folder cannot be changed: {error}"));
            }
            return Outcome::Failed(not_run(&spec.argv, &error));
        }
    };
    shared.log.line("keeper", "out", &clock.line());
    shared.console.connect(exec.streams.input).await;
    shared.agent.get_or_init(|| Handle { spec: spec.clone() });
    shared.set_phase("running");
    shared.console.tell(Frame::Words(ToClient::Started)).await;
    let helpers = [
        tokio::spawn(ask(Arc::clone(shared), charge.order.prompt.clone())),
        tokio::spawn(resize(Arc::clone(shared), exec.handle.clone())),
        tokio::spawn(clear_away(Arc::clone(shared), plan.done_once())),
        tokio::spawn(watch_disk(Arc::clone(shared), spec.container.clone(), charge.order.bottle.limits.disk_bytes)),
    ];
    let pumping = Arc::clone(shared);
    let mut output = exec.streams.output;
    let mut pump = tokio::spawn(async move {
        while let Some(Ok(chunk)) = output.next().await {
            pumping.console.output(chunk).await;
        }
    });
    let limit = charge.order.bottle.limits.time_s.map(Duration::from_secs);
    let ended = until_ended(shared, &spec, &mut pump, limit, stop).await;
    helpers.iter().for_each(tokio::task::JoinHandle::abort);
    if !ended || stop.level() > Level::Run {
        pump.abort();
        return Outcome::Stopped;
    }
    match serve::code(&*shared.engine, &exec.handle).await {
        Some(code) => Outcome::Exited(code),
        None => Outcome::Failed(Failure::launch(
            "the engine lost the agent: it no longer answers, or its container has ended",
            "see `launcher logs`; when the engine is back, the next command takes back what is left".to_owned(),
        )),
    }
}

/// Waits until the agent's output ends (`true`), or must not be waited for any longer.
async fn until_ended<E: Engine>(
    shared: &Arc<Shared<E>>,
    spec: &ExecSpec,
    pump: &mut tokio::task::JoinHandle<()>,
    limit: Option<Duration>,
    stop: &Stop,
) -> bool {
    let time = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = &mut *pump => return true,
        () = stop.reached(Level::Graceful) => {}
        () = time => {
            notice(shared, "the bottle's time is over").await;
            shared.stopper.raise(Level::Graceful);
        }
    }
    // The engine cannot signal an exec, and the first process has another user: one more exec, as the agent's user, can.
    let argv = [init::PATH, "signal", "TERM"].map(str::to_owned).to_vec();
    let signal = ExecSpec { argv, tty: None, env: Vec::new(), workdir: None, ..spec.clone() };
    if let Ok(mut exec) = shared.engine.exec(&signal).await {
        while exec.streams.output.next().await.is_some() {}
    }
    tokio::select! {
        _ = &mut *pump => true,
        () = tokio::time::sleep(GRACE) => false,
        () = stop.reached(Level::Now) => false,
    }
}

fn spec<E: Engine>(shared: &Shared<E>, charge: &Charge, plan: &Plan, identity: &Identity) -> ExecSpec {
    let tty = if plan.session.headless { None } else { *shared.console.size().borrow() };
    // The name where the image has one: the engine then adds the user's further groups.
    let user = match &plan.session.user {
        // An image that the agent had a hand in could have its own idea of whom a name stands for.
        AgentUser::OfImage(user) if charge.order.built().is_none() => user.clone(),
        AgentUser::OfImage(_) => format!("{}:{}", identity.uid, identity.gid),
        AgentUser::Added | AgentUser::Unknown => format!("{}:{}", identity.uid, identity.gid),
    };
    let mut env = charge.env.clone();
    if !env.iter().any(|(name, _)| name == "HOME") {
        env.push(("HOME".to_owned(), identity.home.clone()));
    }
    ExecSpec {
        container: plan.session.container.clone(),
        argv: plan.session.argv.clone().unwrap_or_default(),
        env,
        user,
        workdir: plan.session.workdir.clone(),
        tty,
    }
}

/// Why a program did not run in the agent's container, as a shell would say it.
pub fn not_run(argv: &[String], error: &crate::engine::EngineError) -> Failure {
    if error.kind != Kind::NoProgram {
        return Failure::launch(crate::error::chain(error), None);
    }
    let program = argv.first().map_or("", String::as_str);
    let words = error.source.as_ref().map(ToString::to_string).unwrap_or_default();
    // The engine says no more than that it did not start; the same word covers a working directory that is missing.
    let (code, message) = if words.contains("permission denied") {
        (126, format!("the program {program:?} of the agent's image may not be run by its user"))
    } else if words.contains("executable file not found") || words.contains("no such file or directory") {
        (127, format!("the agent's image has no program {program:?}"))
    } else {
        (126, format!("the program {program:?} cannot be run: {words}"))
    };
    let hint = Some("name one that it has after `--`, or use another image".to_owned());
    Failure { exit: Exit::Agent(code), message, hint }
}

async fn notice<E: Engine>(shared: &Shared<E>, text: &str) {
    shared.log.line("keeper", "out", text);
    shared.console.tell(Frame::Words(ToClient::Notice { text: text.to_owned() })).await;
}

/// Hands a headless agent its prompt. Beside everything else: an agent may read it late, or never.
async fn ask<E: Engine>(shared: Arc<Shared<E>>, prompt: Option<String>) {
    if let Some(prompt) = prompt {
        shared.console.type_in(prompt.as_bytes()).await;
        shared.console.end_input().await;
    }
}

/// Hands every change of the terminal's size on.
async fn resize<E: Engine>(shared: Arc<Shared<E>>, handle: String) {
    let mut size = shared.console.size();
    while size.changed().await.is_ok() {
        let now = *size.borrow_and_update();
        if let Some(now) = now {
            // A program that has just ended has no terminal any more.
            let _ = shared.engine.resize(&handle, now).await;
        }
    }
}

/// Ends a bottle that writes more than it may. A watch, not a wall: where the driver has quotas, those hold first.
async fn watch_disk<E: Engine>(shared: Arc<Shared<E>>, container: String, limit: u64) {
    loop {
        tokio::time::sleep(DISK_LOOK).await;
        if shared.engine.disk_used(&container).await.is_ok_and(|used| used > limit) {
            notice(&shared, &format!("the agent wrote more than its limit of {} MiB", limit >> 20)).await;
            shared.stopper.raise(Level::Graceful);
            return;
        }
    }
}

/// Takes away what has done its one thing and ended. Should that fail, the bottle's end takes it back.
async fn clear_away<E: Engine>(shared: Arc<Shared<E>>, done: Vec<Undo>) {
    for undo in done {
        if let Err(error) = shared.engine.undo(&undo).await {
            shared.log.line("keeper", "err", &format!("it stays until the end: {}", crate::error::chain(&error)));
        }
    }
}
