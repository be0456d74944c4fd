//! The command line: without a word the sidecar obeys its standard input; with `--config` it is deployed alone; with `scan`
//! it is a scanner of files.

use crate::config::{NAME, PORT};
use crate::{alone, control};
use bottle_sidecar::cli::{Program, run};
use std::path::PathBuf;
use std::process::ExitCode;

/// Threads that serve; more do not make a relay faster.
const THREADS_MAX: usize = 4;

/// Threads for what blocks: parsers, spools, host names.
const BLOCKING_THREADS_MAX: usize = 64;

const HELP: &str = "\
The only way out for commits: fetches pass, a push is scanned for secrets before its upstream sees a byte of it.

Usage: git-gate --config FILE          serve as the file says (git-gate/README.md)
       git-gate check --config FILE    read the file and all that it names, and say what is wrong
       git-gate health [--config FILE] does it answer? (for a container's health check)
       git-gate scan FILE..            the scan of a push, for files
       git-gate                        obey the launcher on standard input

SIGHUP reads the file and the secrets again; SIGTERM ends. Standard output has one JSON line an operation.

Exit status: 0 as wanted, 1 it cannot run or is not healthy, 2 the command line or the file is wrong.
";

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    if words.next_if(|word| word == "scan").is_some() {
        return crate::scan::command::main(words);
    }
    let program = Program {
        name: NAME,
        help: HELP,
        version: env!("CARGO_PKG_VERSION"),
        port: PORT,
        check: |file| alone::check(file).map(|remotes| format!("{remotes} remotes")),
        listen: alone::listen,
        serve,
    };
    program.main(words)
}

fn serve(file: Option<PathBuf>) -> ExitCode {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(THREADS_MAX));
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(threads.max(2)).max_blocking_threads(BLOCKING_THREADS_MAX).enable_all();
    run(NAME, runtime.build(), control::run(file))
}
