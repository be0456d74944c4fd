//! The first process of a pipelock's container: it puts files in place, runs one child, says when the child is healthy,
//! and ends with its input. It must never wait for anything without hearing the end of input.

use super::events::Events;
use super::frames::{Frames, Order};
use super::reap::Reaper;
use super::{Event, Frame, clean, clients, files, proxy};
use rustix::process::{Pid, Signal};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks at the child's health.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A child that is not healthy by then is reported; it goes on running.
const HEALTHY_WITHIN: Duration = Duration::from_secs(30);
/// What the child has after TERM before it is killed.
const TERM_WITHIN: Duration = Duration::from_secs(2);
/// What the kernel has after KILL.
const KILL_WITHIN: Duration = Duration::from_millis(500);
/// How long the last lines may take.
const FLUSH_WITHIN: Duration = Duration::from_millis(200);
/// Orders that may wait while the child starts or stops.
const WAITING_MAX: usize = 64;
/// Pause between two looks at who is connected to a child that is to end.
const CLIENTS_EVERY: Duration = Duration::from_millis(100);
/// How long nobody must have been connected to such a child: whoever has just been sent elsewhere may still be on his way.
const QUIET: Duration = Duration::from_secs(1);
/// Probes under way at once.
const PROBES_MAX: usize = 16;

/// What to run, and where it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Address of `/health`, and of the CONNECT proxy that probes ask.
    pub health: SocketAddr,
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// Obeys `input` until its end, or until the child ends; gives the status to exit with.
pub fn run(spec: Spec, input: impl Read + Send + 'static, output: impl Write + Send + 'static) -> io::Result<u8> {
    let events = Events::to(output)?;
    let (outbox, inbox) = sync_channel(WAITING_MAX);
    let ended = outbox.clone();
    let reaper = Reaper::start(move |pid, code| {
        // Fails only when the program is over.
        let _ = ended.send(Message::Ended(pid, code));
    })?;
    let orders = outbox.clone();
    thread::Builder::new().name("input".into()).spawn(move || listen(input, &orders))?;
    let mut warden = Warden {
        spec,
        events,
        reaper,
        inbox,
        outbox,
        waiting: VecDeque::new(),
        child: None,
        probes: 0,
        draining: None,
    };
    let code = warden.serve();
    warden.events.finish(FLUSH_WITHIN);
    Ok(code)
}

enum Message {
    /// From the keeper.
    Order(Order),
    /// The keeper's stream makes no sense any more.
    Broken(String),
    /// The keeper is gone.
    End,
    /// The managed child was collected.
    Ended(Pid, u8),
    /// A probe is over.
    Probed(Event),
}

fn listen(input: impl Read, orders: &SyncSender<Message>) {
    let mut frames = Frames::of(input);
    loop {
        let message = match frames.read() {
            Ok(Some(order)) => Message::Order(order),
            Ok(None) => Message::End,
            Err(broken) => Message::Broken(broken.0),
        };
        let last = matches!(message, Message::End | Message::Broken(_));
        if orders.send(message).is_err() || last {
            return;
        }
    }
}

/// Holds everything that changes; one thread, one message at a time.
struct Warden {
    spec: Spec,
    events: Events,
    reaper: Reaper,
    inbox: Receiver<Message>,
    outbox: SyncSender<Message>,
    waiting: VecDeque<Message>,
    child: Option<Pid>,
    probes: usize,
    /// When somebody was connected last, while it waits for nobody to be.
    draining: Option<Instant>,
}

impl Warden {
    fn serve(&mut self) -> u8 {
        loop {
            match self.next() {
                Message::Order(Order::Do(frame)) => self.obey(frame),
                Message::Order(Order::Refused(reason)) => self.fail(&reason),
                Message::Broken(reason) => {
                    self.fail(&reason);
                    self.stop();
                    return 1;
                }
                Message::End => {
                    self.stop();
                    return 0;
                }
                Message::Ended(pid, code) if self.child == Some(pid) => {
                    self.events.say(&Event::Exited(code.into()));
                    return code;
                }
                Message::Ended(..) => {}
                Message::Probed(event) => {
                    self.probes -= 1;
                    self.events.say(&event);
                }
            }
        }
    }

    /// The next message. While the child is to end with its last client, the end when there is none any more.
    fn next(&mut self) -> Message {
        if let Some(message) = self.waiting.pop_front() {
            return message;
        }
        loop {
            let Some(last) = self.draining else { return self.inbox.recv().unwrap_or(Message::End) };
            match self.inbox.recv_timeout(CLIENTS_EVERY) {
                Ok(message) => return message,
                Err(RecvTimeoutError::Disconnected) => return Message::End,
                // What cannot be counted may be somebody: then the keeper's own limit holds.
                Err(RecvTimeoutError::Timeout) if clients::any(self.spec.health).unwrap_or(true) => {
                    self.draining = Some(Instant::now());
                }
                Err(RecvTimeoutError::Timeout) if last.elapsed() >= QUIET => return Message::End,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn obey(&mut self, frame: Frame) {
        match frame {
            Frame::File { path, mode, bytes } => match files::put(Path::new(&path), mode, &bytes) {
                Ok(()) => self.events.say(&Event::Wrote(path)),
                Err(error) => self.fail(&format!("cannot write {path}: {error}")),
            },
            Frame::Run if self.child.is_some() => self.fail("the child runs already"),
            Frame::Run => self.start(),
            Frame::Restart => {
                self.stop();
                if !self.must_end() {
                    self.start();
                }
            }
            Frame::Probe(target) => self.probe(target),
            Frame::Drain => self.draining = Some(Instant::now()),
        }
    }

    fn fail(&self, reason: &str) {
        self.events.say(&Event::Failed(clean(reason)));
    }

    fn start(&mut self) {
        let mut command = Command::new(&self.spec.program);
        command.args(&self.spec.arguments).stdin(Stdio::null());
        match self.reaper.spawn(&mut command) {
            Ok(pid) => self.child = Some(pid),
            Err(error) => return self.fail(&format!("cannot start {}: {error}", self.spec.program.display())),
        }
        let deadline = Instant::now() + HEALTHY_WITHIN;
        while !self.must_end() {
            if proxy::healthy(self.spec.health) {
                return self.events.say(&Event::Ready);
            }
            if Instant::now() >= deadline {
                return self.fail(&format!("the child is not healthy after {} s", HEALTHY_WITHIN.as_secs()));
            }
            if let Ok(message) = self.inbox.recv_timeout(LOOK_EVERY) {
                self.keep(message);
            }
        }
    }

    /// TERM, then KILL; returns when the child is collected.
    fn stop(&mut self) {
        let Some(pid) = self.child else { return };
        for (signal, within) in [(Signal::TERM, TERM_WITHIN), (Signal::KILL, KILL_WITHIN)] {
            self.reaper.signal(pid, signal);
            if self.ended(pid, within) {
                break;
            }
        }
        // One that outlives even KILL hangs in the kernel; it ends with the container.
        self.child = None;
    }

    fn ended(&mut self, pid: Pid, within: Duration) -> bool {
        // While the child was starting, its end may have been put aside.
        if self.waiting.iter().any(|message| matches!(message, Message::Ended(ended, _) if *ended == pid)) {
            return true;
        }
        let deadline = Instant::now() + within;
        loop {
            match self.inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Message::Ended(ended, _)) if ended == pid => return true,
                Ok(message) => self.keep(message),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Puts a message aside until the work at hand is done. What ends everything goes first.
    fn keep(&mut self, message: Message) {
        match message {
            Message::End | Message::Broken(_) => self.waiting.push_front(message),
            Message::Ended(pid, _) if self.child == Some(pid) => self.waiting.push_front(message),
            _ if self.waiting.len() < WAITING_MAX => self.waiting.push_back(message),
            _ => self.waiting.push_front(Message::Broken(format!("more than {WAITING_MAX} orders wait"))),
        }
    }

    fn must_end(&self) -> bool {
        self.waiting.front().is_some_and(|first| match first {
            Message::End | Message::Broken(_) => true,
            Message::Ended(pid, _) => self.child == Some(*pid),
            Message::Order(_) | Message::Probed(_) => false,
        })
    }

    /// In a thread of its own, so that three seconds of silence hold nothing up.
    fn probe(&mut self, target: String) {
        if self.probes >= PROBES_MAX {
            return self.fail(&format!("more than {PROBES_MAX} probes at once"));
        }
        let (address, outbox) = (self.spec.health, self.outbox.clone());
        let started = thread::Builder::new().name("probe".into()).spawn(move || {
            let (status, text) = proxy::probe(address, &target);
            // Fails only when the program is over.
            let _ = outbox.send(Message::Probed(Event::Probed { target, status, text }));
        });
        match started {
            Ok(_) => self.probes += 1,
            Err(error) => self.fail(&format!("cannot start a probe: {error}")),
        }
    }
}
