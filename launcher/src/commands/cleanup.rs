//! `cleanup`, and the sweep before every command that talks to the engine: taking back what dead keepers left.

use super::Here;
use crate::cli::Cleanup;
use crate::engine::{Engine, docker::Docker};
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::plan::Undo;
use crate::state::{self, Session, StateRoot};
use crate::sweep::sweep;
use crate::transfer::Home;
use crate::undo::{Leftover, UndoStack};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long the engine may still be busy with what a keeper asked for before it was killed in the middle of a launch.
const LATE_WITHIN: Duration = Duration::from_secs(1);

/// What a sweep did.
#[derive(Debug, Default)]
pub struct Swept {
    /// Bottles that were taken back.
    pub bottles: Vec<String>,
    /// What could not be.
    pub leftovers: Vec<String>,
    /// Objects with our labels that no plan here names.
    pub strangers: Vec<String>,
    /// Dead bottles that are on another engine: id and engine.
    pub elsewhere: Vec<(String, String)>,
}

/// Takes back, and says what it did.
pub async fn cleanup(here: &Here, args: &Cleanup) -> Result<Exit, Failure> {
    if let Some(id) = &args.forget {
        return forget(here, id).await;
    }
    sweep_workspaces(here)?;
    let engine = here.engine().await?;
    let mut swept = sweep_all(here, &engine, &engine.address().to_string()).await?;
    // Where a bottle was launched, there it is taken back, whatever DOCKER_HOST says now.
    let names: BTreeSet<_> = std::mem::take(&mut swept.elsewhere).into_iter().map(|(_, name)| name).collect();
    for name in names {
        match Docker::connect(Some(&name), crate::plan::seccomp::profile).await {
            Ok(other) => {
                let there = sweep_all(here, &other, &name).await?;
                swept.bottles.extend(there.bottles);
                swept.leftovers.extend(there.leftovers);
                swept.strangers.extend(there.strangers);
            }
            Err(error) => swept.leftovers.push(format!("what is on the engine {name}: {}", chain(&error))),
        }
    }
    for id in &swept.bottles {
        here.ui.line(&format!("took back what was left of {id}"));
    }
    if swept.bottles.is_empty() && swept.leftovers.is_empty() {
        here.ui.line("nothing was left");
    }
    for name in &swept.strangers {
        here.ui.warn(&format!("{name} carries this launcher's labels and is in no plan of it: left alone"));
    }
    for leftover in &swept.leftovers {
        here.ui.warn(&format!("could not be taken back: {}", crate::ui::clean(leftover)));
    }
    Ok(if swept.leftovers.is_empty() { Exit::Success } else { Exit::Launch })
}

/// Takes that were killed leave a folder in the workspace; that needs no engine.
fn sweep_workspaces(here: &Here) -> Result<(), Failure> {
    let root = here.state()?;
    let homes: BTreeSet<_> = here.ids(&root)?.iter().filter_map(|id| root.dir(id).metadata()?.workspace).collect();
    for home in homes.iter().filter(|home| home.is_dir()) {
        let shown = crate::ui::clean(&home.display().to_string());
        match crate::workspace::sweep_staging(home) {
            Ok(true) => here.ui.line(&format!("removed what a killed `launcher take` had left in {shown}")),
            Ok(false) => {}
            Err(error) => here.ui.warn(&format!("{shown}: {}", chain(&error))),
        }
    }
    Ok(())
}

/// Takes back before another command, and speaks only of what could not be.
pub async fn sweep_quietly(here: &Here, engine: &Docker) -> Result<(), Failure> {
    let swept = sweep_all(here, engine, &engine.address().to_string()).await?;
    for id in &swept.bottles {
        here.ui.line(&format!("took back what was left of {id}"));
    }
    for leftover in &swept.leftovers {
        here.ui.warn(&format!("could not be taken back: {}", crate::ui::clean(leftover)));
    }
    Ok(())
}

/// Takes back what dead keepers left on one engine; `name` is how the bottles' folders call it.
pub async fn sweep_all<E: Engine>(here: &Here, engine: &E, name: &str) -> Result<Swept, Failure> {
    let root = here.state()?;
    let (mut held, mut living) = dead_and_living(here, &root)?;
    let mut swept = Swept::default();
    held.retain(|id, session| {
        // Undoing it here would find nothing, and forget what is there.
        let other = session.dir.metadata().and_then(|m| m.engine).filter(|engine| engine != name);
        swept.elsewhere.extend(other.clone().map(|engine| (id.clone(), engine)));
        other.is_none()
    });
    living.extend(swept.elsewhere.iter().map(|(id, _)| id.clone()));
    let observed = engine.observe(&state::host_hash(), &root.hash()).await?;
    let recorded: BTreeMap<_, _> =
        held.values().filter_map(|session| Some((session.dir.id().to_owned(), session.dir.recorded()?))).collect();
    let decided = sweep(&observed, &recorded, &living);
    swept.strangers = decided.strangers;
    for (id, stages) in decided.dead {
        let Some(session) = held.get(&id) else { continue };
        let leftovers = take_back(here, engine, session, &stages).await;
        swept.leftovers.extend(leftovers.iter().map(ToString::to_string));
        if leftovers.is_empty() {
            settle(session).map_err(|e| Failure::launch(format!("the folder of {id} cannot be changed: {e}"), None))?;
            swept.bottles.push(id);
        }
    }
    Ok(swept)
}

/// Takes one dead bottle back.
async fn take_back<E: Engine>(here: &Here, engine: &E, session: &Session, stages: &[Vec<Undo>]) -> Vec<Leftover> {
    let progress = |text: &str| here.ui.progress(&format!("{}: {text}", session.dir.id()));
    let home = Home { engine, dir: &session.dir, progress: &progress };
    let unwind = async || {
        let mut undo = UndoStack::default();
        for stage in stages {
            undo.stage();
            stage.iter().for_each(|u| undo.push(u.clone()));
        }
        undo.unwind(engine, &home).await
    };
    let mut leftovers = unwind().await;
    if leftovers.is_empty() && !session.dir.was_started() {
        // Killed in the middle of a launch: a request that was under way then may take effect only now.
        tokio::time::sleep(LATE_WITHIN).await;
        leftovers = unwind().await;
    }
    here.ui.wipe();
    leftovers
}

/// Folders whose keeper is dead, locked while they are swept, and the ids of those who live.
fn dead_and_living(here: &Here, root: &StateRoot) -> Result<(BTreeMap<String, Session>, BTreeSet<String>), Failure> {
    let io = |e: std::io::Error| Failure::launch(format!("the state directory cannot be used: {e}"), None);
    let (mut held, mut living) = (BTreeMap::new(), BTreeSet::new());
    for id in here.ids(root)? {
        match root.dir(&id).lock().map_err(io)? {
            Some(session) if session.dir.recorded().is_some() => {
                held.insert(id, session);
            }
            // Died before it made anything: nothing is in it.
            Some(session) if session.dir.metadata().is_none() => session.dir.remove().map_err(io)?,
            Some(session) => session.sweep_stale().map_err(io)?,
            None => {
                living.insert(id);
            }
        }
    }
    Ok((held, living))
}

/// A dead bottle's folder afterwards: gone where the agent never ran, else with its end written down.
fn settle(session: &Session) -> std::io::Result<()> {
    if !session.dir.was_started() && !session.dir.has_lived() {
        return session.dir.remove();
    }
    if let Some(mut metadata) = session.dir.metadata() {
        metadata.ended.get_or_insert_with(state::now);
        metadata.outcome.get_or_insert_with(|| "keeper died".to_owned());
        session.dir.write_metadata(&metadata)?;
    }
    session.dir.forget_socket()?;
    session.dir.forget_recorded()
}

async fn forget(here: &Here, id: &str) -> Result<Exit, Failure> {
    let dir = here.bottle(id)?;
    let io = |e: std::io::Error| Failure::launch(format!("the folder of {} cannot be removed: {e}", dir.id()), None);
    let Some(session) = dir.lock_soon().map_err(io)? else {
        return Err(Failure::usage(
            format!("{} is running", dir.id()),
            format!("stop it first: launcher stop {}", dir.id()),
        ));
    };
    if session.dir.recorded().is_some() {
        return Err(Failure::usage(
            format!("{} has left something on the engine", dir.id()),
            "run `launcher cleanup` first".to_owned(),
        ));
    }
    if let Some(image) = session.dir.image() {
        let engine = session.dir.metadata().and_then(|metadata| metadata.engine);
        let undo = crate::engine::Undo::RemoveImage { reference: image.reference.clone(), owner: image.owner };
        let removed = async {
            let engine = Docker::connect(engine.as_deref(), crate::plan::seccomp::profile).await?;
            engine.undo(&undo).await
        };
        removed.await.map_err(|error| {
            let what = format!("{} has the image {} on its engine: {}", dir.id(), image.reference, chain(&error));
            Failure::launch(what, "say it again when the engine answers".to_owned())
        })?;
    }
    session.dir.remove().map_err(io)?;
    here.ui.line(&format!("forgot {}", dir.id()));
    Ok(Exit::Success)
}
