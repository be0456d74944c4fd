//! The sidecar's life: commands on standard input, events on standard output, an end when the input ends.
//!
//! A command that cannot be read is refused without a word of its content, which may be a secret.

use crate::Secret;
use crate::config::{Command, Config, Event, LINE_BYTES_MAX};
use crate::log::Log;
use crate::sidecar::{Setback, Sidecar};
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use zeroize::Zeroize as _;

/// How long the last lines may take to be written when the process ends.
const LAST_LINES_WITHIN: Duration = Duration::from_millis(100);

/// What the loop in [`run`] hears.
#[derive(Debug)]
enum Heard {
    Configure(Box<Config>, BTreeMap<String, Secret>),
    Unchanged(String),
    Unreadable(String),
    InputEnded,
    OutputClosed,
}

/// Runs the sidecar on this process's standard input and output.
pub async fn run() -> io::Result<ExitCode> {
    let (tell, mut heard) = mpsc::channel(4);
    let closed = tell.clone();
    // The receiver is gone only when the process ends anyway.
    let log = Log::start(io::stdout(), move || drop(closed.blocking_send(Heard::OutputClosed)))?;
    // A thread, since a read of standard input cannot be given up: it ends with the process.
    std::thread::Builder::new().name("input".into()).spawn(move || read_commands(io::stdin().lock(), &tell))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut sidecar = Sidecar::new(log.clone());
    let code = loop {
        let heard = tokio::select! {
            heard = heard.recv() => heard.unwrap_or(Heard::InputEnded),
            _ = terminate.recv() => Heard::InputEnded,
            _ = interrupt.recv() => Heard::InputEnded,
        };
        match heard {
            Heard::Configure(config, secrets) => match sidecar.configure(&config, &secrets).await {
                Ok(event) => log.event(&event),
                Err(Setback::Refused(reason)) => log.event(&Event::Refused { reason }),
                Err(Setback::CannotListen(reason)) => {
                    log.event(&Event::Refused { reason });
                    break ExitCode::FAILURE;
                }
            },
            Heard::Unchanged(secret) => sidecar.unchanged(&secret),
            Heard::Unreadable(reason) => log.event(&Event::Refused { reason }),
            Heard::InputEnded => break ExitCode::SUCCESS,
            Heard::OutputClosed => break ExitCode::FAILURE,
        }
    };
    log.flush(LAST_LINES_WITHIN);
    Ok(code)
}

/// Reads until the end of input, an error, or nobody listening.
fn read_commands(mut input: impl BufRead, tell: &mpsc::Sender<Heard>) {
    let mut line = Vec::new();
    loop {
        // One byte more than a line may have tells a long one from one that just fits.
        let read = input.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line);
        let heard = match read {
            Ok(0) | Err(_) => Heard::InputEnded,
            Ok(_) if line.last() != Some(&b'\n') && line.len() > LINE_BYTES_MAX => {
                let skipped = skip_line(&mut input);
                if skipped {
                    Heard::Unreadable(format!("the line is longer than {LINE_BYTES_MAX} bytes"))
                } else {
                    Heard::InputEnded
                }
            }
            Ok(_) => understand(&line),
        };
        line.zeroize();
        let is_end = matches!(heard, Heard::InputEnded);
        if tell.blocking_send(heard).is_err() || is_end {
            return;
        }
    }
}

/// Skips the rest of a line; `false` at the end of input.
fn skip_line(input: &mut impl BufRead) -> bool {
    loop {
        let Ok(bytes) = input.fill_buf() else { return false };
        let (skip, found) = match bytes.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (bytes.len(), false),
        };
        if skip == 0 {
            return false;
        }
        input.consume(skip);
        if found {
            return true;
        }
    }
}

fn understand(line: &[u8]) -> Heard {
    match serde_json::from_slice(line) {
        Ok(Command::Configure { config, secrets }) => Heard::Configure(config, secrets),
        Ok(Command::Unchanged { secret }) => Heard::Unchanged(secret),
        // The library's own words may quote the line.
        Err(error) => Heard::Unreadable(format!(
            "the line is no command: {:?} error at column {}",
            error.classify(),
            error.column()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(input: &[u8]) -> Vec<String> {
        let (tell, mut heard) = mpsc::channel(16);
        read_commands(input, &tell);
        drop(tell);
        std::iter::from_fn(|| heard.blocking_recv()).map(|heard| format!("{heard:?}")).collect()
    }

    const GOOD: &str = r#"{"command":"configure","config":{"listen":"127.0.0.1:1","proxy":null,"routes":[]},"secrets":{"k":"s3cret"}}"#;

    #[test]
    fn commands_are_read_line_by_line_and_never_shown() {
        let bad = r#"{"command":"configure","config":{"listen":"127.0.0.1:1","routes":[]},"secrets":"s3cret"}"#;
        let unknown = r#"{"command":"s3cret"}"#;
        let field = GOOD.replace("\"routes\"", "\"s3cret\":1,\"routes\"");
        let input = format!("{GOOD}\n{bad}\n{unknown}\n{field}\nnot json s3cret\n{GOOD}\n");
        let heard = heard(input.as_bytes());
        let kinds: Vec<&str> = heard.iter().map(|heard| heard.split('(').next().unwrap()).collect();
        assert_eq!(
            kinds,
            ["Configure", "Unreadable", "Unreadable", "Unreadable", "Unreadable", "Configure", "InputEnded"]
        );
        assert!(heard.iter().all(|heard| !heard.contains("s3cret")), "{heard:?}");
    }

    #[test]
    fn a_long_line_is_refused_and_the_next_one_read() {
        let padded = |length: usize| format!("{GOOD}{}", " ".repeat(length - GOOD.len()));
        for (length, wanted) in
            [(LINE_BYTES_MAX, "Configure"), (LINE_BYTES_MAX + 1, "Unreadable"), (3 * LINE_BYTES_MAX, "Unreadable")]
        {
            let heard = heard(format!("{}\n{GOOD}\n", padded(length)).as_bytes());
            assert!(heard[0].starts_with(wanted), "{length}: {}", heard[0]);
            assert!(heard[1].starts_with("Configure") && heard[2] == "InputEnded", "{length}");
        }
    }

    #[test]
    fn the_end_is_the_end() {
        assert_eq!(heard(b""), ["InputEnded"]);
        assert_eq!(heard(&vec![b' '; 2 * LINE_BYTES_MAX]), ["InputEnded"]);
    }
}
