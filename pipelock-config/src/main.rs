//! Renders pipelock's YAML from a policy, and checks one; see [`pipelock_config::command`].

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let Err(failure) = pipelock_config::command::run(std::env::args().skip(1), io::stdin(), &mut io::stdout()) else {
        return ExitCode::SUCCESS;
    };
    let mut text = failure.to_string();
    let mut source = failure.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    // Nothing is left to tell it to when standard error is gone.
    let _ = writeln!(io::stderr(), "pipelock-config: {text}");
    ExitCode::FAILURE
}
