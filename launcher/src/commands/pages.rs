//! `completions`, `man` and `schema`: what a shell, a reader of manual pages and an editor want, made from the command
//! line and the manifests themselves.

use super::Here;
use crate::cli::{Cli, Completions, Man, Manifest, Schema};
use crate::error::Failure;
use crate::exit::Exit;
use crate::manifest::schema;
use clap::CommandFactory;

/// Prints a shell's completions.
pub fn completions(here: &Here, args: &Completions) -> Exit {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "launcher", &mut text);
    here.ui.data(&String::from_utf8_lossy(&text));
    Exit::Success
}

/// Prints the manual page of the command, or writes those of all subcommands into a folder.
pub fn man(here: &Here, args: &Man) -> Result<Exit, Failure> {
    let failed = |e: std::io::Error| Failure::launch(format!("the manual pages cannot be written: {e}"), None);
    let Some(folder) = &args.out else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut text).map_err(failed)?;
        here.ui.data(&String::from_utf8_lossy(&text));
        return Ok(Exit::Success);
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(failed)?;
    here.ui.line(&format!("wrote the manual pages into {}", folder.display()));
    Ok(Exit::Success)
}

/// Prints the schema of a manifest's header.
pub fn schema(here: &Here, args: &Schema) -> Exit {
    let schema = match args.of {
        Manifest::Bottle => schema::bottle(),
        Manifest::Agent => schema::agent(),
    };
    here.ui.data(&format!("{schema:#}\n"));
    Exit::Success
}
