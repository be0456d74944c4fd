//! `diff` and `take`: what an agent did, and bringing it home. Neither needs an engine.

use super::Here;
use crate::cli::Take;
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::state::{BottleDir, Metadata, read_limited};
use crate::workspace::{self, Archive, Baseline, Limits, TakeOptions, Taken, TreePath};
use std::path::PathBuf;

/// What both commands need of a bottle.
struct Work {
    archive: Archive,
    baseline: Baseline,
    home: PathBuf,
}

/// Shows what changed.
pub fn diff(here: &Here, id: &str) -> Result<Exit, Failure> {
    let dir = here.bottle(id)?;
    let work = work(&dir)?;
    let diff =
        workspace::diff(&work.archive, &work.baseline, &work.home).map_err(|e| Failure::launch(chain(&e), None))?;
    here.ui.data(&diff.to_string());
    Ok(Exit::Success)
}

/// Brings it home.
pub fn take(here: &Here, args: &Take) -> Result<Exit, Failure> {
    let dir = here.bottle(&args.id)?;
    let work = work(&dir)?;
    let options = TakeOptions { force: args.force };
    let taken = workspace::take(&work.archive, &work.baseline, &work.home, dir.id(), options)
        .map_err(|e| Failure::usage(chain(&e), None))?;
    here.ui.line(&said(&taken));
    Ok(Exit::Success)
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

fn work(dir: &BottleDir) -> Result<Work, Failure> {
    let none = |why: &str| Failure::usage(format!("{} has no saved workspace: {why}", dir.id()), None);
    if dir.is_living() {
        return Err(Failure::usage(
            format!("{} is running; its workspace comes home at its end", dir.id()),
            format!("wait for it, or stop it: launcher stop {}", dir.id()),
        ));
    }
    let Metadata { workspace: home, .. } = dir.metadata().ok_or_else(|| none("it never began"))?;
    let home = home.ok_or_else(|| none("it was run without one"))?;
    if !dir.workspace().exists() {
        return Err(none("nothing came home"));
    }
    let baseline = read_limited(&dir.baseline()).map_err(|e| none(&format!("what it was given is not known: {e}")))?;
    let baseline =
        serde_json::from_slice(&baseline).map_err(|e| none(&format!("what it was given is not known: {e}")))?;
    Ok(Work { archive: Archive::open(&dir.workspace(), Limits::default()), baseline, home })
}
