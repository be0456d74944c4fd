//! The sidecar as a process, and the keeper's end of its standard input and output.

#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    dead_code,
    reason = "a helper of tests: what fails here fails the test, what is skipped is said; each test uses a part"
)]

pub mod http;
pub mod python;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ChildStdin, Command as Process, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use supervise::config::{Command, Config, Event};
use supervise::wire::{Answer, Change, Current, Status};

/// How long anything that must happen may take to happen.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A sidecar, and everything it says, of which every line must be an event.
pub struct Sidecar {
    child: Child,
    input: Option<ChildStdin>,
    events: Receiver<Event>,
    pub address: SocketAddr,
}

/// An ask, as the keeper hears it.
pub struct Ask {
    pub call: u64,
    pub change: Change,
    pub justification: String,
}

impl Sidecar {
    /// Starts it, tells it a bottle where nothing is open, and waits until it is ready.
    pub fn start(wait_seconds: u64) -> Self {
        Self::start_with(wait_seconds, Current::default(), Vec::new())
    }

    /// The same with a bottle and what was asked in it before.
    pub fn start_with(wait_seconds: u64, current: Current, answers: Vec<Answer>) -> Self {
        let mut sidecar = Self::spawn();
        let config = Config { listen: sidecar.address, wait_seconds };
        sidecar.say(&Command::Configure { config, current: Box::new(current), answers });
        assert!(matches!(sidecar.next(), Event::Ready));
        sidecar
    }

    /// Starts it and says nothing yet.
    pub fn spawn() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Process::new(env!("CARGO_BIN_EXE_supervise"));
        let mut child = command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, events) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if tell.send(event).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        Self { child, input, events, address: free }
    }

    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    pub fn say(&mut self, command: &Command) {
        let mut line = serde_json::to_vec(command).unwrap();
        line.push(b'\n');
        self.say_raw(&line);
    }

    pub fn say_raw(&mut self, line: &[u8]) {
        self.input.as_mut().unwrap().write_all(line).unwrap();
    }

    /// Tells where a proposal is, and waits until that is known.
    pub fn tell(&mut self, answer: Answer) {
        self.say(&Command::Answer { answer });
        self.obeyed();
    }

    pub fn obeyed(&self) {
        assert!(matches!(self.next(), Event::Configured));
    }

    /// The next event.
    pub fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    /// The event that is there now, if there is one.
    pub fn heard(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// The next ask; answers to commands may stand before it.
    pub fn ask(&self) -> Ask {
        loop {
            match self.next() {
                Event::Ask { call, change, justification } => return Ask { call, change, justification },
                Event::Configured => {}
                event => panic!("{event:?} is no ask"),
            }
        }
    }

    /// The next ask becomes this proposal.
    pub fn queued(&mut self, id: &str) -> Ask {
        let ask = self.ask();
        self.say(&Command::Asked { call: ask.call, answer: answer(id, Status::Pending, "wait") });
        self.obeyed();
        ask
    }

    /// Ends its input, and waits for its end.
    pub fn end(mut self) -> Option<i32> {
        self.input.take();
        self.child.wait().unwrap().code()
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.input.take();
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a proposal is.
pub fn answer(id: &str, status: Status, notes: &str) -> Answer {
    Answer { id: id.into(), status, notes: notes.into(), applied: None, until: None }
}
