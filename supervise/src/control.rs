//! The sidecar's life: commands on standard input, events on standard output, an end when the input ends.

use crate::config::{Command, Config, Event, LINE_BYTES_MAX};
use crate::desk::Desk;
use crate::log::{Behind, Log};
use crate::server::serve;
use crate::wire::{Answer, Current};
use std::io::{self, BufRead, Read as _, Write as _};
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
        return complain("usage: supervise   (configuration on standard input)", 2);
    }
    // One thread does: all of this is waiting, and what is read is small.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start: {error}"), 1),
    };
    let code = runtime.block_on(run()).unwrap_or_else(|error| complain(&format!("cannot start: {error}"), 1));
    runtime.shutdown_background();
    code
}

fn complain(what: &str, code: u8) -> ExitCode {
    // Where there is no standard error, the exit status has to do.
    let _ = writeln!(io::stderr(), "supervise: {what}");
    ExitCode::from(code)
}

/// What the loop in [`run`] hears.
#[derive(Debug)]
enum Heard {
    Command(Command),
    Unreadable(String),
    InputEnded,
    OutputClosed,
}

async fn run() -> io::Result<ExitCode> {
    let (tell, mut heard) = mpsc::channel(4);
    let closed = tell.clone();
    // The receiver is gone only when the process ends anyway.
    let log = Log::start(io::stdout(), move || drop(closed.blocking_send(Heard::OutputClosed)))?;
    // A thread, since a read of standard input cannot be given up: it ends with the process.
    std::thread::Builder::new().name("input".into()).spawn(move || read_commands(io::stdin().lock(), &tell))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut sidecar = Sidecar { log: log.clone(), running: None };
    let code = loop {
        let heard = tokio::select! {
            heard = heard.recv() => heard.unwrap_or(Heard::InputEnded),
            _ = terminate.recv() => Heard::InputEnded,
            _ = interrupt.recv() => Heard::InputEnded,
        };
        let said = match heard {
            Heard::Command(command) => match sidecar.obey(command).await {
                Ok(event) => log.event(event),
                Err(Setback::Refused(reason)) => log.event(Event::Refused { reason }),
                Err(Setback::CannotListen(reason)) => {
                    // It is the last word either way.
                    let _ = log.event(Event::Refused { reason });
                    break ExitCode::FAILURE;
                }
            },
            Heard::Unreadable(reason) => log.event(Event::Refused { reason }),
            Heard::InputEnded => break ExitCode::SUCCESS,
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

/// Reads until the end of input, an error, or nobody listening.
fn read_commands(mut input: impl BufRead, tell: &mpsc::Sender<Heard>) {
    loop {
        // Not kept between lines: the longest would stay in memory.
        let mut line = Vec::new();
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
            // A keeper that ended in the middle of a line said nothing.
            Ok(_) if line.last() != Some(&b'\n') => Heard::InputEnded,
            Ok(_) => understand(&line),
        };
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

    const GOOD: &str = r#"{"command":"denied","call":1,"reason":"no"}"#;

    #[test]
    fn commands_are_read_line_by_line() {
        let input = format!("{GOOD}\nno json\n{{\"command\":\"approve\"}}\n{GOOD}\n{GOOD}");
        let kinds: Vec<String> = heard(input.as_bytes()).iter().map(|heard| heard[..7].to_owned()).collect();
        assert_eq!(kinds, ["Command", "Unreada", "Unreada", "Command", "InputEn"], "a cut line is no command");
    }

    #[test]
    fn a_long_line_is_refused_and_the_next_one_read() {
        let padded = |length: usize| format!("{GOOD}{}", " ".repeat(length - GOOD.len()));
        for (line, wanted) in [(padded(LINE_BYTES_MAX), "Command"), (padded(LINE_BYTES_MAX + 1), "Unreadable")] {
            let heard = heard(format!("{line}\n{GOOD}\n").as_bytes());
            assert!(heard[0].starts_with(wanted), "{}: {}", line.len(), &heard[0][..40]);
            assert!(heard[1].starts_with("Command") && heard[2] == "InputEnded");
        }
    }
}
