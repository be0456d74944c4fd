//! The sidecar's life: commands on standard input, events on standard output, an end when the input ends. Deployed alone, a
//! file stands in for the commands, and signals for the end.

use crate::Secret;
use crate::audit::Log;
use crate::config::{Command, Config, Event};
use crate::gate::Gate;
use crate::scan::Fingerprint;
use crate::table::Table;
use bottle_sidecar::chain;
use bottle_sidecar::commands::{self, Said};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// How long the last lines may take to be written when the process ends.
const LAST_LINES_WITHIN: Duration = Duration::from_millis(100);

/// What the loop in [`run`] hears.
#[derive(Debug)]
enum Heard {
    Said(Said<Command>),
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
            commands::start(move |said| tell.blocking_send(Heard::Said(said)).is_ok())?;
        }
        Some(path) => {
            let first = match from_file(path) {
                Ok(command) => sidecar.obey(command).await,
                Err(reason) => Err(Setback::Refused(reason)),
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
            heard = heard.recv() => heard.unwrap_or(Heard::Said(Said::Ended)),
            _ = terminate.recv() => Heard::Said(Said::Ended),
            _ = interrupt.recv() => Heard::Said(Said::Ended),
            _ = hangup.recv() => match &file {
                Some(path) => Heard::Said(from_file(path).map_or_else(Said::Unreadable, Said::Command)),
                // Its launcher has the word.
                None => continue,
            },
        };
        match heard {
            Heard::Said(Said::Command(command)) => match sidecar.obey(command).await {
                Ok(event) => log.event(event),
                Err(Setback::Refused(reason)) => log.event(Event::Refused { reason }),
                Err(Setback::CannotListen(reason)) => {
                    log.event(Event::Refused { reason });
                    break ExitCode::FAILURE;
                }
            },
            Heard::Said(Said::Unreadable(reason)) => log.event(Event::Refused { reason }),
            Heard::Said(Said::Ended) => break ExitCode::SUCCESS,
            Heard::OutputClosed => break ExitCode::FAILURE,
        }
    };
    log.flush(LAST_LINES_WITHIN);
    Ok(code)
}

/// The file as the command that it stands in for.
fn from_file(path: &Path) -> Result<Command, String> {
    let (config, secrets) = crate::alone::read(path).map_err(|error| chain(&error))?;
    Ok(Command::Configure { config: Box::new(config), secrets })
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
