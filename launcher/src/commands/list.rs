//! `list` and `check`: the manifests that there are, and what is wrong with them.

use super::{Here, run::places};
use crate::cli::Check;
use crate::error::Failure;
use crate::exit::Exit;
use crate::manifest::{catalog, load};

/// Lists agents and bottles.
pub fn list(here: &Here) -> Result<Exit, Failure> {
    let listed = catalog::list(&places(here)?);
    let mut text = String::new();
    for (kind, entries) in [("agent", &listed.agents), ("bottle", &listed.bottles)] {
        for entry in entries {
            let line = format!("{kind:<8} {:<24} {:<40} {}", entry.name, entry.description, entry.file.display());
            text.push_str(crate::ui::clean(&line).trim_end());
            text.push('\n');
        }
    }
    if text.is_empty() {
        here.ui.line("there are no agents and no bottles yet; the README shows a first pair");
    }
    here.ui.data(&text);
    Ok(Exit::Success)
}

/// Loads an agent and its bottle, and says everything that is wrong.
pub fn check(here: &Here, args: &Check) -> Result<Exit, Failure> {
    let loaded = load::load(&places(here)?, &args.agent, args.bottle.as_deref())
        .map_err(|errors| Failure::usage(errors.to_string(), None))?;
    loaded.warnings.iter().for_each(|warning| here.ui.warn(warning));
    here.ui.line(&format!("{} in {}: no mistakes found", loaded.agent.name, loaded.bottle.name));
    Ok(Exit::Success)
}
