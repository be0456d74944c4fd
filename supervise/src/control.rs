//! The sidecar's life: commands on standard input, events on standard output, an end when the input ends.

use crate::config::{Command, Config, Event, NAME};
use crate::desk::Desk;
use crate::log::{Behind, Log};
use crate::server::serve;
use crate::wire::{Answer, Current};
use bottle_sidecar::cli;
use bottle_sidecar::commands::{self, Said};
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// How long the last lines may take to be written when the process ends.
const LAST_LINES_WITHIN: Duration = Duration::from_millis(100);

/// The longest that a configuration may let a call wait, in seconds.
const WAIT_SECONDS_MAX: u64 = 3600;

/// Runs the sidecar on this process's standard input and output.
pub fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        return cli::complain(NAME, "usage: supervise   (configuration on standard input)", 2);
    }
    // One thread does: all of this is waiting, and what is read is small.
    cli::run(NAME, tokio::runtime::Builder::new_current_thread().enable_all().build(), run())
}

/// What the loop in [`run`] hears.
#[derive(Debug)]
enum Heard {
    Said(Said<Command>),
    OutputClosed,
}

async fn run() -> io::Result<ExitCode> {
    let (tell, mut heard) = mpsc::channel(4);
    let closed = tell.clone();
    // The receiver is gone only when the process ends anyway.
    let log = Log::start(io::stdout(), move || drop(closed.blocking_send(Heard::OutputClosed)))?;
    commands::start(move |said| tell.blocking_send(Heard::Said(said)).is_ok())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut sidecar = Sidecar { log: log.clone(), running: None };
    let code = loop {
        let heard = tokio::select! {
            heard = heard.recv() => heard.unwrap_or(Heard::Said(Said::Ended)),
            _ = terminate.recv() => Heard::Said(Said::Ended),
            _ = interrupt.recv() => Heard::Said(Said::Ended),
        };
        let said = match heard {
            Heard::Said(Said::Command(command)) => match sidecar.obey(command).await {
                Ok(event) => log.event(event),
                Err(Setback::Refused(reason)) => log.event(Event::Refused { reason }),
                Err(Setback::CannotListen(reason)) => {
                    // It is the last word either way.
                    let _ = log.event(Event::Refused { reason });
                    break ExitCode::FAILURE;
                }
            },
            Heard::Said(Said::Unreadable(reason)) => log.event(Event::Refused { reason }),
            Heard::Said(Said::Ended) => break ExitCode::SUCCESS,
            Heard::OutputClosed => break ExitCode::FAILURE,
        };
        // A keeper that tells and does not listen is none; one that lives starts the sidecar again.
        if said == Err(Behind) {
            break ExitCode::FAILURE;
        }
    };
    log.flush(LAST_LINES_WITHIN);
    Ok(code)
}

struct Sidecar {
    log: Log,
    running: Option<(SocketAddr, Arc<Desk>)>,
}

/// Why a command changed nothing.
enum Setback {
    Refused(String),
    CannotListen(String),
}

impl Sidecar {
    async fn obey(&mut self, command: Command) -> Result<Event, Setback> {
        let desk = match command {
            Command::Configure { config, current, answers } => return self.configure(&config, *current, answers).await,
            Command::Current { .. } | Command::Asked { .. } | Command::Denied { .. } | Command::Answer { .. } => {
                let Some((_, desk)) = &self.running else {
                    return Err(Setback::Refused("there is no configuration yet".into()));
                };
                desk
            }
        };
        match command {
            Command::Configure { .. } => {}
            Command::Current { current } => desk.tell_current(*current),
            Command::Asked { call, answer } => desk.asked(call, answer),
            Command::Denied { call, reason } => desk.denied(call, reason),
            Command::Answer { answer } => desk.answer(answer),
        }
        Ok(Event::Configured)
    }

    async fn configure(&mut self, config: &Config, current: Current, answers: Vec<Answer>) -> Result<Event, Setback> {
        if self.running.is_some() {
            return Err(Setback::Refused("it is configured already".into()));
        }
        if config.wait_seconds > WAIT_SECONDS_MAX {
            return Err(Setback::Refused(format!("wait_seconds is more than {WAIT_SECONDS_MAX}")));
        }
        let cannot = |error: io::Error| Setback::CannotListen(format!("cannot listen on {}: {error}", config.listen));
        let listener = TcpListener::bind(config.listen).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let wait = Duration::from_secs(config.wait_seconds);
        let desk = Arc::new(Desk::new(self.log.clone(), wait, current, answers));
        tokio::spawn(serve(listener, address, desk.clone()));
        self.running = Some((address, desk));
        Ok(Event::Ready)
    }
}
