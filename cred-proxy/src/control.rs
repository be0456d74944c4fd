//! The sidecar's life: commands on standard input, events on standard output, an end when the input ends.

use crate::config::{Command, Event};
use crate::log::Log;
use crate::sidecar::{Setback, Sidecar};
use bottle_sidecar::commands::{self, Said};
use std::io;
use std::process::ExitCode;
use std::time::Duration;
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

/// Runs the sidecar on this process's standard input and output.
pub async fn run() -> io::Result<ExitCode> {
    let (tell, mut heard) = mpsc::channel(4);
    let closed = tell.clone();
    // The receiver is gone only when the process ends anyway.
    let log = Log::start(io::stdout(), move || drop(closed.blocking_send(Heard::OutputClosed)))?;
    commands::start(move |said| tell.blocking_send(Heard::Said(said)).is_ok())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut sidecar = Sidecar::new(log.clone());
    let code = loop {
        let heard = tokio::select! {
            heard = heard.recv() => heard.unwrap_or(Heard::Said(Said::Ended)),
            _ = terminate.recv() => Heard::Said(Said::Ended),
            _ = interrupt.recv() => Heard::Said(Said::Ended),
        };
        match heard {
            Heard::Said(Said::Command(Command::Configure { config, secrets })) => {
                match sidecar.configure(&config, &secrets).await {
                    Ok(event) => log.event(&event),
                    Err(Setback::Refused(reason)) => log.event(&Event::Refused { reason }),
                    Err(Setback::CannotListen(reason)) => {
                        log.event(&Event::Refused { reason });
                        break ExitCode::FAILURE;
                    }
                }
            }
            Heard::Said(Said::Command(Command::Unchanged { secret })) => sidecar.unchanged(&secret),
            Heard::Said(Said::Unreadable(reason)) => log.event(&Event::Refused { reason }),
            Heard::Said(Said::Ended) => break ExitCode::SUCCESS,
            Heard::OutputClosed => break ExitCode::FAILURE,
        }
    };
    log.flush(LAST_LINES_WITHIN);
    Ok(code)
}
