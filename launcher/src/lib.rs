//! The operator's command: starts a bottle, keeps it, takes it away.
//!
//! The way through: [`cli`] -> [`commands`] -> [`manifest`] (files to a bottle) -> [`plan`] (a bottle to data) ->
//! [`keeper`] (the process that owns it) -> [`launch`] and [`undo`] (data to an engine and back) -> [`engine`].

#[cfg(not(panic = "unwind"))]
compile_error!("teardown after a panic needs unwinding: do not build the launcher with panic = \"abort\"");

pub mod attach;
pub mod audit;
pub mod ca;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod control;
pub mod credentials;
pub mod engine;
pub mod error;
pub mod exit;
pub mod image_files;
pub mod images;
pub mod journal;
pub mod keeper;
pub mod keeper_socket;
pub mod launch;
pub mod log;
pub mod manifest;
pub mod plan;
pub mod provider;
pub mod report;
pub mod sidecars;
pub mod signals;
pub mod state;
pub mod stop;
pub mod sweep;
pub mod transfer;
pub mod ui;
pub mod undo;
pub mod verdict;
pub mod workspace;

/// The program.
pub fn main() -> std::process::ExitCode {
    use clap::Parser;
    let exit = match cli::Cli::try_parse() {
        Ok(cli) => commands::dispatch(cli).code(),
        Err(error) => {
            // Help and version are no errors and go to standard output; clap knows which is which.
            let _ = error.print();
            u8::try_from(error.exit_code()).unwrap_or(2)
        }
    };
    std::process::ExitCode::from(exit)
}
