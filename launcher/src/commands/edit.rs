//! `edit`: a manifest in the operator's editor, and what is wrong with it afterwards.

use super::{Here, run::places};
use crate::cli::Edit;
use crate::error::Failure;
use crate::exit::Exit;
use crate::manifest::{catalog, load};
use std::process::Command;

/// What edits where nothing else is said.
const EDITOR: &str = "vi";

/// Opens it, waits, and checks every manifest: another one may extend this.
pub fn edit(here: &Here, args: &Edit) -> Result<Exit, Failure> {
    let places = places(here)?;
    let listed = catalog::list(&places);
    let (kind, entries) = if args.bottle { ("bottle", &listed.bottles) } else { ("agent", &listed.agents) };
    let Some(entry) = entries.iter().find(|entry| entry.name == args.name) else {
        return Err(Failure::usage(
            format!("there is no {kind} {:?}", args.name),
            "see `launcher list`; `launcher init` writes a new pair".to_owned(),
        ));
    };
    let variable = |name: &str| here.env.get(name).filter(|value| !value.trim().is_empty()).cloned();
    let editor = load::user(&places).editor.or_else(|| variable("VISUAL")).or_else(|| variable("EDITOR"));
    let editor = editor.unwrap_or_else(|| EDITOR.to_owned());
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or(EDITOR);
    let status = Command::new(program).args(words).arg(&entry.file).status().map_err(|e| {
        Failure::usage(
            format!("{program} cannot be run: {e}"),
            "name another as `editor` in config.toml, or in EDITOR".to_owned(),
        )
    })?;
    if !status.success() {
        return Err(Failure::usage(format!("{program} ended with {status}"), None));
    }
    let warnings = catalog::check(&places)?;
    warnings.iter().for_each(|warning| here.ui.warn(warning));
    here.ui.line(&format!("{}: no mistakes found", entry.file.display()));
    Ok(Exit::Success)
}
