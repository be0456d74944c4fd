//! The command line of `bottle-init`, and what it leads to. Anything that is not understood is refused before anything
//! is done.

use super::child::Spec;
use super::{agent, child};
use rustix::process::{DumpableBehavior, Pid, Signal, kill_process_group, set_dumpable_behavior};
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

const USAGE: &str =
    "usage: bottle-init agent | child --health <ip:port> -- PROGRAM [ARGS..] | signal TERM|KILL|HUP|INT | version";

/// What to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// The first process of the agent's container.
    Agent,
    /// The first process of a container with one child.
    Child(Spec),
    /// Signals every process of the caller's uid.
    Signal(Signal),
    /// Says the version.
    Version,
}

impl Mode {
    /// Reads the arguments after the program's name; the error is a sentence for standard error.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let words: Vec<&str> = arguments.iter().map(|a| a.to_str().unwrap_or_default()).collect();
        match words.as_slice() {
            ["agent"] => Ok(Self::Agent),
            ["version"] => Ok(Self::Version),
            ["signal", name] => signal(name).map(Self::Signal),
            ["child", "--health", address, "--", _, ..] => {
                let health = address.parse().map_err(|_| format!("{address:?} is not an ip:port; {USAGE}"))?;
                Ok(Self::Child(Spec { health, program: arguments[4].clone(), arguments: arguments[5..].to_vec() }))
            }
            _ => Err(USAGE.to_owned()),
        }
    }
}

fn signal(name: &str) -> Result<Signal, String> {
    match name {
        "TERM" => Ok(Signal::TERM),
        "KILL" => Ok(Signal::KILL),
        "HUP" => Ok(Signal::HUP),
        "INT" => Ok(Signal::INT),
        _ => Err(format!("{name:?} is no signal that is sent; {USAGE}")),
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let mode = match Mode::parse(std::env::args_os().skip(1)) {
        Ok(mode) => mode,
        Err(sentence) => return complain(&sentence, 2),
    };
    let done = match mode {
        Mode::Agent => harden().and_then(|()| agent::run(io::stdin(), io::stdout())).map(|()| 0),
        Mode::Child(spec) => harden().and_then(|()| child::run(spec, io::stdin(), io::stdout())),
        Mode::Signal(signal) => {
            signal_all(signal);
            Ok(0)
        }
        Mode::Version => writeln!(io::stdout(), "bottle-init {}", env!("CARGO_PKG_VERSION")).map(|()| 0),
    };
    done.map_or_else(|error| complain(&error.to_string(), 1), ExitCode::from)
}

/// Nobody but root with the right capability may look into this process from now on: not at its open files, not at its
/// memory.
fn harden() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// `kill(-1)`: in one call, so that a process that forks cannot run ahead of it. The kernel leaves out the first process
/// and the caller.
fn signal_all(signal: Signal) {
    // Nobody there to signal, or nobody whom we may: both are what was wanted.
    let _ = kill_process_group(Pid::INIT, signal);
}

fn complain(sentence: &str, code: u8) -> ExitCode {
    // If nobody reads it the status still tells.
    let _ = writeln!(io::stderr(), "bottle-init: {sentence}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Mode, String> {
        Mode::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_mode_has_its_words() {
        assert_eq!(parse("agent"), Ok(Mode::Agent));
        assert_eq!(parse("version"), Ok(Mode::Version));
        assert_eq!(parse("signal TERM"), Ok(Mode::Signal(Signal::TERM)));
        assert_eq!(parse("signal KILL"), Ok(Mode::Signal(Signal::KILL)));
        let spec = Spec {
            health: "10.0.0.2:8888".parse().unwrap(),
            program: "/pipelock".into(),
            arguments: vec!["run".into(), "--".into(), "--health".into()],
        };
        assert_eq!(parse("child --health 10.0.0.2:8888 -- /pipelock run -- --health"), Ok(Mode::Child(spec)));
    }

    #[test]
    fn all_else_is_refused() {
        for line in [
            "",
            "agents",
            "agent now",
            "version 2",
            "signal",
            "signal STOP",
            "signal 9",
            "signal TERM KILL",
            "child",
            "child --health 10.0.0.2:8888",
            "child --health 10.0.0.2:8888 --",
            "child --health localhost:8888 -- /pipelock",
            "child --health 10.0.0.2 -- /pipelock",
            "child -- /pipelock",
            "child --health 10.0.0.2:8888 /pipelock run",
        ] {
            assert!(parse(line).is_err(), "{line:?}");
        }
    }
}
