//! `diff` and `take`: what an agent did, and bringing it home. Neither needs an engine, unless a keeper died before it
//! had brought the work home itself.

use super::Here;
use crate::cli::Take;
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::state::{BottleDir, Metadata};
use crate::workspace::{self, Archive, Baseline, Limits, TakeOptions, Taken, TreePath, WorkspaceError};
use std::path::PathBuf;

/// What both commands need of a bottle.
struct Work {
    archive: Archive,
    baseline: Baseline,
    home: PathBuf,
}

/// Shows what changed.
pub async fn diff(here: &Here, id: &str) -> Result<Exit, Failure> {
    let dir = here.bottle(id)?;
    let work = work(here, &dir).await?;
    let diff = workspace::diff(&work.archive, &work.baseline, &work.home).map_err(|e| failure(&e, dir.id()))?;
    if diff.is_empty() {
        here.ui.line("the agent changed nothing");
    }
    here.ui.data(&diff.to_string());
    Ok(Exit::Success)
}

/// Brings it home.
pub async fn take(here: &Here, args: &Take) -> Result<Exit, Failure> {
    let dir = here.bottle(&args.id)?;
    let work = work(here, &dir).await?;
    let io = |e: std::io::Error| Failure::launch(format!("the folder of {} cannot be used: {e}", dir.id()), None);
    // Held to the end: nobody forgets the bottle meanwhile, and what is half made in its folder is of the dead.
    let Some(session) = dir.lock_soon().map_err(io)? else {
        return Err(Failure::usage(
            format!("another command is at work on {}", dir.id()),
            "wait for it, and say it again".to_owned(),
        ));
    };
    session.sweep_stale().map_err(io)?;
    let options = TakeOptions { force: args.force };
    let taken = workspace::take(&work.archive, &work.baseline, &work.home, dir.id(), options).map_err(|error| {
        if let WorkspaceError::HalfApplied { taken, .. } = &error {
            here.ui.line(&said(taken));
        }
        failure(&error, dir.id())
    })?;
    here.ui.line(&said(&taken));
    if let Err(error) = session.dir.write_taken(&work.baseline, taken.settled) {
        let why =
            format!("what was taken cannot be noted: {error}; after a `resume`, take will see it as changes of yours");
        here.ui.warn(&why);
    }
    // A script that forgets the bottle after a success must not lose the commits.
    Ok(if taken.commits.failed { Exit::No } else { Exit::Success })
}

/// An error of the workspace, with what to do about it.
fn failure(error: &WorkspaceError, id: &str) -> Failure {
    let hint = match error {
        WorkspaceError::Conflicts(_) => format!(
            "look with `launcher diff {id}`, then move your own changes out of the way, or overwrite them: launcher take {id} --force"
        ),
        WorkspaceError::Busy(_) => "wait for it, and say it again".to_owned(),
        WorkspaceError::Io { .. } | WorkspaceError::HalfApplied { .. } => {
            "the saved work is untouched: when this is put right, say it again".to_owned()
        }
        WorkspaceError::TooManyFiles { .. }
        | WorkspaceError::TooManyBytes { .. }
        | WorkspaceError::TooManyEntries { .. }
        | WorkspaceError::CutShort
        | WorkspaceError::Refused(_)
        | WorkspaceError::BadId(_) => "nothing was applied; the agent chose what is in the archive".to_owned(),
    };
    Failure::usage(chain(error), hint)
}

/// What was taken, in words.
fn said(taken: &Taken) -> String {
    const NAMED_MAX: usize = 20;
    let mut lines = vec![format!("{} written, {} removed", taken.written.len(), taken.removed.len())];
    let mut group = |label: &str, items: Vec<String>| {
        let more = items.len().saturating_sub(NAMED_MAX);
        lines.extend(items.into_iter().take(NAMED_MAX).map(|item| format!("  {label}: {item}")));
        if more > 0 {
            lines.push(format!("  {label}: and {more} more"));
        }
    };
    let paths = |paths: &[TreePath]| paths.iter().map(ToString::to_string).collect::<Vec<_>>();
    group("overwritten", paths(&taken.overwritten));
    group("not taken", taken.refused.iter().map(|(path, why)| format!("{path} ({why})")).collect());
    group("look at it first, it runs by itself", paths(&taken.careful));
    let commits = &taken.commits;
    lines.extend(commits.refs.iter().map(|(name, id)| format!("commits: {name} is {}", id.get(..12).unwrap_or(id))));
    lines.extend(commits.skipped.iter().map(|(name, why)| format!("commits not taken: {name} ({why})")));
    lines.extend(commits.none.iter().map(|why| format!("no commits: {why}")));
    crate::ui::clean(&lines.join("\n"))
}

async fn work(here: &Here, dir: &BottleDir) -> Result<Work, Failure> {
    let none = |why: &str| Failure::usage(format!("{} has no saved workspace: {why}", dir.id()), None);
    if dir.is_living() && dir.recorded().is_some() {
        return Err(Failure::usage(
            format!("{} is running; its workspace comes home at its end", dir.id()),
            format!("wait for it, or stop it: launcher stop {}", dir.id()),
        ));
    }
    if dir.recorded().is_some() {
        bring_home(here, dir).await?;
    }
    let Metadata { workspace: home, .. } = dir.metadata().ok_or_else(|| none("it never began"))?;
    let home = home.ok_or_else(|| none("it was run without one"))?;
    if !dir.workspace().exists() {
        return Err(none("nothing came home"));
    }
    let baseline = dir.read_baseline().map_err(|e| none(&format!("what it was given is not known: {e}")))?;
    Ok(Work { archive: Archive::open(&dir.workspace(), Limits::default()), baseline, home })
}

/// The keeper died: its agent's container still holds the work, until somebody brings it home.
async fn bring_home(here: &Here, dir: &BottleDir) -> Result<(), Failure> {
    let engine = here.engine().await.map_err(|failure| Failure {
        message: format!(
            "the keeper of {} died, and its work is still in its container: {}",
            dir.id(),
            failure.message
        ),
        ..failure
    })?;
    super::cleanup::sweep_quietly(here, &engine).await
}
