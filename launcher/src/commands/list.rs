//! `list` and `check`: the manifests that there are, and what is wrong with them.

use super::{Here, run::places};
use crate::cli::{Check, List};
use crate::error::Failure;
use crate::exit::Exit;
use crate::manifest::agent::Origin;
use crate::manifest::catalog::{self, Listed};
use crate::manifest::load;

/// What is said where there is nothing to list or to check.
const NONE_YET: &str = "there are no agents and no bottles yet: `launcher init` writes a first pair";

/// Lists agents and bottles, those that are wrong or hidden included.
pub fn list(here: &Here, args: &List) -> Result<Exit, Failure> {
    let listed = catalog::list(&places(here)?);
    listed.warnings.iter().for_each(|warning| here.ui.warn(warning));
    let kinds = [("agent", &listed.agents), ("bottle", &listed.bottles)];
    let entries: Vec<_> = kinds.into_iter().flat_map(|(kind, list)| list.iter().map(move |e| (kind, e))).collect();
    if args.json {
        let rows: Vec<_> = entries.iter().map(|(kind, entry)| object(kind, entry)).collect();
        here.ui.data(&format!("{:#}\n", serde_json::Value::from(rows)));
        return Ok(Exit::Success);
    }
    if entries.is_empty() {
        here.ui.line(NONE_YET);
    }
    here.ui.table(&entries.iter().map(|(kind, entry)| row(kind, entry)).collect::<Vec<_>>());
    Ok(Exit::Success)
}

fn row(kind: &str, entry: &Listed) -> Vec<String> {
    let file = entry.file.display();
    let note = match (&entry.problem, entry.hidden, entry.origin) {
        (Some(problem), _, _) => format!("wrong: {problem} ({file})"),
        (None, true, _) => format!("hidden by your own of that name ({file})"),
        (None, false, Origin::Repository) => format!("{} (of this repository)", entry.description),
        (None, false, Origin::User) => entry.description.clone(),
    };
    [kind.to_owned(), entry.name.clone(), crate::ui::clean(&note).replace('\n', " ")].to_vec()
}

fn object(kind: &str, entry: &Listed) -> serde_json::Value {
    serde_json::json!({
        "kind": kind,
        "name": entry.name,
        "description": entry.description,
        "file": entry.file,
        "of_repository": entry.origin == Origin::Repository,
        "hidden": entry.hidden,
        "problem": entry.problem,
    })
}

/// Loads an agent and its bottle, or one bottle, or every file there is, and says everything that is wrong.
pub fn check(here: &Here, args: &Check) -> Result<Exit, Failure> {
    let places = places(here)?;
    let (warnings, checked) = match (&args.agent, &args.bottle) {
        (Some(agent), bottle) => {
            let loaded = load::load(&places, agent, bottle.as_deref())?;
            (loaded.warnings, format!("{} in {}", loaded.agent.name, loaded.bottle.name))
        }
        (None, Some(bottle)) => {
            let (bottle, warnings) = load::load_bottle(&places, bottle)?;
            (warnings, bottle.name)
        }
        (None, None) => {
            let warnings = catalog::check(&places)?;
            let listed = catalog::list(&places);
            if listed.agents.is_empty() && listed.bottles.is_empty() {
                warnings.iter().for_each(|warning| here.ui.warn(warning));
                here.ui.line(NONE_YET);
                return Ok(Exit::Success);
            }
            let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
            let (agents, bottles) = (count(listed.agents.len(), "agent"), count(listed.bottles.len(), "bottle"));
            (warnings, format!("{agents} and {bottles}"))
        }
    };
    warnings.iter().for_each(|warning| here.ui.warn(warning));
    here.ui.line(&format!("{checked}: no mistakes found"));
    Ok(Exit::Success)
}
