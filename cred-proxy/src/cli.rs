//! The command line: by itself the sidecar obeys its standard input; with `--config` it is deployed alone.

use crate::config::{NAME, PORT};
use crate::{control, standalone};
use bottle_sidecar::cli::{Program, run};
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
Puts credentials into an agent's requests, so that the agent need not hold them.

Usage: cred-proxy --config FILE          serve as the file says
       cred-proxy check --config FILE    read the file and all it names, and say what is wrong
       cred-proxy health [--config FILE] does it answer? (for a container's health check)
       cred-proxy                        obey the launcher on standard input

SIGHUP reads the file and the secrets again; a file of a secret that changes is read by itself.
SIGTERM lets the requests in flight end. Standard output has one JSON line for each event.

Exit status: 0 as wanted, 1 it cannot run or is not healthy, 2 the command line or the file is wrong.
";

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let program = Program {
        name: NAME,
        help: HELP,
        version: env!("CARGO_PKG_VERSION"),
        port: PORT,
        check: |file| standalone::check(file).map(|routes| format!("{routes} routes")),
        listen: standalone::listen,
        serve,
    };
    program.main(std::env::args_os().skip(1))
}

fn serve(file: Option<PathBuf>) -> ExitCode {
    // What this thread does is rare; requests are served by [`crate::workers`].
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match file {
        Some(file) => run(NAME, runtime, standalone::run(file)),
        None => run(NAME, runtime, control::run()),
    }
}
