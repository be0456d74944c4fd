//! Runs the attempts one after another, each under a time limit, and writes their lines.
//!
//! `demo-agent [THEME|ATTEMPT..]` with themes `egress route git network kernel hunt asks` (none: all). What it must know comes
//! from the environment, see `known.rs`.

use crate::attempts::{Attempt, THEMES, asks, kernel};
use crate::judge::Decision;
use crate::known::Known;
use serde_json::json;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long one attempt may take.
const ATTEMPT_MAX: Duration = Duration::from_secs(6);
/// After this no further attempt begins.
const ALL_MAX: Duration = Duration::from_secs(24);

/// The whole program.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == kernel::USER_NAMESPACE_PROBE) {
        return kernel::probe_user_namespace();
    }
    let mut attempts = match chosen(&arguments) {
        Ok(attempts) => attempts,
        Err(unknown) => return complain(&[format!("no theme and no attempt is called `{unknown}`")]),
    };
    let known = match Known::from_env(&std::env::vars().collect()) {
        Ok(known) => Arc::new(known),
        Err(errors) => return complain(&errors),
    };
    if known.asks.is_none() {
        attempts.retain(|attempt| !asks::ATTEMPTS.iter().any(|ask| ask.slug == attempt.slug));
    }
    let begun = Instant::now();
    let mut held = true;
    for attempt in &attempts {
        let decision = if begun.elapsed() < ALL_MAX {
            within_limit(attempt, &known)
        } else {
            Decision::broken("not tried: the time was used up")
        };
        held &= decision.held;
        say(&json!({
            "attempt": attempt.slug, "tried": attempt.tried, "expected": attempt.expected,
            "happened": decision.happened, "held": decision.held,
        }));
    }
    say(&json!({"attempt": "end", "held": held, "count": attempts.len()}));
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn chosen(names: &[String]) -> Result<Vec<Attempt>, String> {
    let all = || THEMES.iter().flat_map(|(theme, attempts)| attempts.iter().map(move |attempt| (*theme, *attempt)));
    let is = |name: &String, theme: &str, attempt: &Attempt| name == theme || name == attempt.slug;
    if let Some(unknown) = names.iter().find(|name| !all().any(|(theme, attempt)| is(name, theme, &attempt))) {
        return Err(unknown.clone());
    }
    let wanted = |theme: &str, attempt: &Attempt| names.is_empty() || names.iter().any(|name| is(name, theme, attempt));
    Ok(all().filter(|(theme, attempt)| wanted(theme, attempt)).map(|(_, attempt)| attempt).collect())
}

fn within_limit(attempt: &Attempt, known: &Arc<Known>) -> Decision {
    let (tell, told) = sync_channel(1);
    let (run, known) = (attempt.run, known.clone());
    let spawned = thread::Builder::new().spawn(move || {
        let _ = tell.send(run(&known)); // nobody listens once the limit has passed
    });
    match spawned {
        Err(error) => Decision::broken(format!("not tried: no thread: {error}")),
        Ok(_) => told.recv_timeout(ATTEMPT_MAX).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => Decision::broken(format!("no end within {} s", ATTEMPT_MAX.as_secs())),
            RecvTimeoutError::Disconnected => Decision::broken("the attempt itself broke"),
        }),
    }
}

fn say(line: &serde_json::Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush()); // the exit status still tells
}

fn complain(errors: &[String]) -> ExitCode {
    for error in errors {
        let _ = writeln!(std::io::stderr(), "demo-agent: {error}"); // nobody left to tell
    }
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::chosen;

    fn slugs(names: &[&str]) -> Result<Vec<&'static str>, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        chosen(&names).map(|attempts| attempts.iter().map(|attempt| attempt.slug).collect())
    }

    #[test]
    fn themes_and_attempts_are_chosen_by_name() {
        let all = slugs(&[]).unwrap();
        assert_eq!(slugs(&["egress", "route", "git", "network", "kernel", "hunt", "asks"]).unwrap(), all);
        assert_eq!(slugs(&["ping", "allowed-host"]).unwrap(), ["allowed-host", "ping"], "always in one order");
        assert_eq!(slugs(&["hunt"]).unwrap().len(), 3);
        assert_eq!(slugs(&["hunt", "theft"]).unwrap_err(), "theft");
    }
}
