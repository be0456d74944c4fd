//! The sidecar's life: commands on standard input, events on standard output, an end when the input ends. Deployed alone, a
//! file stands in for the commands, and signals for the end.
//!
//! A command that cannot be read is refused without a word of its content, which may be a secret.

use crate::Secret;
use crate::audit::{Log, chain};
use crate::config::{Command, Config, Event, LINE_BYTES_MAX};
use crate::gate::Gate;
use crate::scan::Fingerprint;
use crate::table::Table;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use zeroize::Zeroize as _;

/// How long the last lines may take to be written when the process ends.
const LAST_LINES_WITHIN: Duration = Duration::from_millis(100);

/// What the loop in [`run`] hears.
#[derive(Debug)]
enum Heard {
    Command(Command),
    Unreadable(String),
    InputEnded,
    OutputClosed,
}

/// Serves until its input ends or a signal tells it to. With a file it takes the configuration from there, and again at
/// every SIGHUP; without one it obeys standard input. Gives the exit status; an error is one of the system.
pub async fn run(file: Option<PathBuf>) -> io::Result<ExitCode> {
    let (tell, mut heard) = mpsc::channel(4);
    let closed = tell.clone();
    // The receiver is gone only when the process ends anyway.
    let log = Log::start(io::stdout(), move || drop(closed.blocking_send(Heard::OutputClosed)))?;
    let mut sidecar = Sidecar { log: log.clone(), running: None };
    match &file {
        None => {
            let tell = tell.clone();
            // A thread, since a read of standard input cannot be given up: it ends with the process.
            std::thread::Builder::new().name("input".into()).spawn(move || read_commands(io::stdin().lock(), &tell))?;
        }
        Some(path) => {
            let first = match from_file(path) {
                Heard::Command(command) => sidecar.obey(command).await,
                Heard::Unreadable(reason) => Err(Setback::Refused(reason)),
                Heard::InputEnded | Heard::OutputClosed => return Ok(ExitCode::FAILURE),
            };
            // Nobody would send it another one.
            let (event, code) = match first {
                Ok(event) => (event, None),
                Err(Setback::Refused(reason)) => (Event::Refused { reason }, Some(ExitCode::from(2))),
                Err(Setback::CannotListen(reason)) => (Event::Refused { reason }, Some(ExitCode::FAILURE)),
            };
            log.event(event);
            if let Some(code) = code {
                log.flush(LAST_LINES_WITHIN);
                return Ok(code);
            }
        }
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let code = loop {
        let heard = tokio::select! {
            heard = heard.recv() => heard.unwrap_or(Heard::InputEnded),
            _ = terminate.recv() => Heard::InputEnded,
            _ = interrupt.recv() => Heard::InputEnded,
            _ = hangup.recv() => match &file {
                Some(path) => from_file(path),
                // Its launcher has the word.
                None => continue,
            },
        };
        match heard {
            Heard::Command(command) => match sidecar.obey(command).await {
                Ok(event) => log.event(event),
                Err(Setback::Refused(reason)) => log.event(Event::Refused { reason }),
                Err(Setback::CannotListen(reason)) => {
                    log.event(Event::Refused { reason });
                    break ExitCode::FAILURE;
                }
            },
            Heard::Unreadable(reason) => log.event(Event::Refused { reason }),
            Heard::InputEnded => break ExitCode::SUCCESS,
            Heard::OutputClosed => break ExitCode::FAILURE,
        }
    };
    log.flush(LAST_LINES_WITHIN);
    Ok(code)
}

/// The file as the command that it stands in for.
fn from_file(path: &Path) -> Heard {
    match crate::alone::read(path) {
        Ok((config, secrets)) => Heard::Command(Command::Configure { config: Box::new(config), secrets }),
        Err(error) => Heard::Unreadable(chain(&error)),
    }
}

struct Sidecar {
    log: Log,
    running: Option<(SocketAddr, Arc<Gate>)>,
}

/// Why a command changed nothing.
enum Setback {
    Refused(String),
    CannotListen(String),
}

impl Sidecar {
    async fn obey(&mut self, command: Command) -> Result<Event, Setback> {
        match command {
            Command::Configure { config, secrets } => self.configure(&config, &secrets).await,
            Command::AllowFinding { fingerprint, remote, once } => {
                let (gate, fingerprint) = self.finding(&fingerprint, &remote)?;
                let allowed = gate.exceptions.allow(&remote, fingerprint, once);
                allowed.map_err(|error| Setback::Refused(error.to_string()))?;
                Ok(Event::Configured)
            }
            Command::RevokeFinding { fingerprint, remote } => {
                let (gate, fingerprint) = self.finding(&fingerprint, &remote)?;
                gate.exceptions.revoke(&remote, fingerprint);
                Ok(Event::Configured)
            }
        }
    }

    fn finding(&self, fingerprint: &str, remote: &str) -> Result<(Arc<Gate>, Fingerprint), Setback> {
        let Some((_, gate)) = &self.running else {
            return Err(Setback::Refused("there is no configuration yet".into()));
        };
        let fingerprint = Fingerprint::parse(fingerprint)
            .ok_or_else(|| Setback::Refused("a fingerprint has 64 hexadecimal digits".into()))?;
        if gate.table().remote(remote).is_none() {
            let remote = crate::report::printable(remote, 64);
            return Err(Setback::Refused(format!("there is no remote `{remote}`")));
        }
        Ok((gate.clone(), fingerprint))
    }

    async fn configure(&mut self, config: &Config, secrets: &BTreeMap<String, Secret>) -> Result<Event, Setback> {
        let table = Table::parse(config, secrets).map_err(|error| Setback::Refused(chain(&error)))?;
        if let Some((listen, gate)) = &self.running {
            if *listen != config.listen {
                return Err(Setback::Refused(format!("cannot listen on {}: it listens on {listen}", config.listen)));
            }
            gate.swap(table);
            return Ok(Event::Configured);
        }
        let listener = TcpListener::bind(config.listen).await;
        let listener =
            listener.map_err(|error| Setback::CannotListen(format!("cannot listen on {}: {error}", config.listen)))?;
        let gate = Arc::new(Gate::new(table, self.log.clone()));
        tokio::spawn(gate.clone().serve(listener));
        self.running = Some((config.listen, gate));
        Ok(Event::Ready)
    }
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
                if skip_line(&mut input) {
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
        Ok(command) => Heard::Command(command),
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

    const GOOD: &str = r#"{"command":"configure","config":{"listen":"127.0.0.1:1","remotes":[],"spool":"/s"},"secrets":{"k":"s3cret"}}"#;

    #[test]
    fn commands_are_read_line_by_line_and_never_shown() {
        let bad = GOOD.replace(r#"{"k":"s3cret"}"#, r#""s3cret""#);
        let unknown = r#"{"command":"s3cret"}"#;
        let field = GOOD.replace("\"remotes\"", "\"s3cret\":1,\"remotes\"");
        let allow = r#"{"command":"allow-finding","fingerprint":"00","remote":"app","once":true}"#;
        let revoke = r#"{"command":"revoke-finding","fingerprint":"00","remote":"app"}"#;
        let input = format!("{GOOD}\n{bad}\n{unknown}\n{field}\nnot json s3cret\n{allow}\n{revoke}\n{GOOD}\n");
        let heard = heard(input.as_bytes());
        let kinds: Vec<&str> = heard.iter().map(|heard| heard.split([' ', '(']).next().unwrap()).collect();
        assert_eq!(
            kinds,
            [
                "Command",
                "Unreadable",
                "Unreadable",
                "Unreadable",
                "Unreadable",
                "Command",
                "Command",
                "Command",
                "InputEnded"
            ]
        );
        assert!(heard.iter().all(|heard| !heard.contains("s3cret")), "{heard:?}");
    }

    #[test]
    fn a_long_line_is_refused_and_the_next_one_read() {
        let padded = |length: usize| format!("{GOOD}{}", " ".repeat(length - GOOD.len()));
        for (line, wanted) in [
            (padded(LINE_BYTES_MAX), "Command"),
            (padded(LINE_BYTES_MAX + 1), "Unreadable"),
            (padded(2 * LINE_BYTES_MAX), "Unreadable"),
        ] {
            let heard = heard(format!("{line}\n{GOOD}\n").as_bytes());
            assert!(heard[0].starts_with(wanted), "{}: {}", line.len(), &heard[0][..40]);
            assert!(heard[1].starts_with("Command") && heard[2] == "InputEnded");
        }
    }
}
