//! Standard output: events for the keeper, one JSON line each. One thread writes; whoever has an event hands it over.
//!
//! No line is ever dropped: when the reader falls behind, operations wait. A line never has a secret in it.

use crate::config::{Event, Finding, Operation, Outcome, RefUpdate, Service};
use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Events that wait to be written; then whoever brings the next one waits.
const WAITING_MAX: usize = 4096;

/// The longest reason in a line.
const REASON_CHARS_MAX: usize = 1000;

/// The refs of one push that a line lists.
const REFS_MAX: usize = 1000;

/// The findings of one push that a line lists.
const FINDINGS_MAX: usize = 200;

/// Where events go.
#[derive(Debug, Clone)]
pub struct Log {
    lines: SyncSender<Line>,
}

#[derive(Debug)]
enum Line {
    Event(Box<Event>),
    Flush(SyncSender<()>),
}

impl Log {
    /// Starts the thread that writes to `out`. `closed` is called once, when nothing can be written any more.
    pub fn start(out: impl Write + Send + 'static, closed: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let (lines, incoming) = sync_channel(WAITING_MAX);
        std::thread::Builder::new().name("log".into()).spawn(move || {
            if write_lines(out, &incoming).is_err() {
                closed();
            }
        })?;
        Ok(Self { lines })
    }

    /// Hands an event over.
    pub fn event(&self, event: Event) {
        // It fails only when the thread has ended, of which `closed` has told the one who ends the process.
        let _ = self.lines.send(Line::Event(Box::new(event)));
    }

    /// Waits until everything handed over before is written, or the time is over.
    pub fn flush(&self, within: Duration) {
        let (done, wait) = sync_channel(1);
        if self.lines.try_send(Line::Flush(done)).is_ok() {
            // Too late is as good as it gets: the process ends.
            let _ = wait.recv_timeout(within);
        }
    }
}

/// One operation; its line is written when this goes, however the operation ended.
#[derive(Debug)]
pub struct Entry {
    log: Log,
    started: Instant,
    operation: Operation,
    is_forgotten: bool,
}

impl Entry {
    /// For a connection that begins.
    pub fn new(log: Log) -> Self {
        let operation = Operation {
            remote: String::new(),
            service: Service::Unknown,
            refs: Vec::new(),
            outcome: Outcome::Gone,
            bytes: 0,
            ms: 0,
            findings: Vec::new(),
            reason: None,
        };
        Self { log, started: Instant::now(), operation, is_forgotten: false }
    }

    /// Nothing was asked for: there will be no line.
    pub fn forget(&mut self) {
        self.is_forgotten = true;
    }

    /// What was asked for, of whom. A name that no remote has is cut and made printable.
    pub fn asked(&mut self, service: Service, remote: &str) {
        self.operation.service = service;
        self.operation.remote = crate::report::printable(remote, 200);
    }

    /// What a push wants of refs.
    pub fn wants(&mut self, refs: impl Iterator<Item = RefUpdate>) {
        self.operation.refs = refs.take(REFS_MAX).collect();
    }

    /// What the upstream answered about a ref.
    pub fn answered(&mut self, name: &str, answer: String) {
        let own = self.operation.refs.iter_mut().find(|update| update.name == name);
        if let Some(update) = own {
            update.answer = Some(answer);
        }
    }

    /// What the scan found.
    pub fn found(&mut self, findings: impl Iterator<Item = Finding>) {
        self.operation.findings = findings.take(FINDINGS_MAX).collect();
    }

    /// How many bytes it was about.
    pub fn moved(&mut self, bytes: u64) {
        self.operation.bytes = bytes;
    }

    /// How it ended.
    pub fn ended(&mut self, outcome: Outcome) {
        self.operation.outcome = outcome;
    }

    /// Why it was refused or failed; the first reason stays.
    pub fn because(&mut self, reason: &str) {
        self.operation.reason.get_or_insert_with(|| crate::report::printable(reason, REASON_CHARS_MAX));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.is_forgotten {
            return;
        }
        if self.operation.outcome == Outcome::Gone {
            self.because("the agent went away");
        }
        self.operation.ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.log.event(Event::Operation(self.operation.clone()));
    }
}

fn write_lines(mut out: impl Write, incoming: &Receiver<Line>) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    while let Ok(first) = incoming.recv() {
        let mut flushed = None;
        // What has piled up goes out in one write.
        for line in std::iter::once(first).chain(incoming.try_iter().take(256)) {
            match line {
                Line::Event(event) => {
                    serde_json::to_writer(&mut buffer, &event)?;
                    buffer.push(b'\n');
                }
                Line::Flush(done) => {
                    flushed = Some(done);
                    break;
                }
            }
        }
        out.write_all(&buffer)?;
        out.flush()?;
        buffer.clear();
        if let Some(done) = flushed {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn one_line_an_operation() {
        let out = Shared::default();
        let log = Log::start(out.clone(), || ()).unwrap();
        let mut entry = Entry::new(log.clone());
        entry.asked(Service::Push, "app");
        let name = "refs/heads/a".to_owned();
        entry.wants([RefUpdate { name, old: "0".into(), new: "1".into(), answer: None }].into_iter());
        entry.answered("refs/heads/a", "ok".into());
        entry.moved(7);
        entry.ended(Outcome::Done);
        drop(entry);
        let mut gone = Entry::new(log.clone());
        gone.asked(Service::Fetch, "a\nb");
        drop(gone);
        let mut nobody = Entry::new(log.clone());
        nobody.forget();
        drop(nobody);
        log.flush(Duration::from_secs(10));
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let events: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [Event::Operation(first), Event::Operation(second)] = &events[..] else { panic!("{events:?}") };
        assert_eq!((first.remote.as_str(), first.outcome, first.bytes), ("app", Outcome::Done, 7));
        assert_eq!(first.refs[0].answer.as_deref(), Some("ok"));
        assert_eq!((second.remote.as_str(), second.outcome), ("a\\u{a}b", Outcome::Gone));
        assert_eq!(second.reason.as_deref(), Some("the agent went away"));
    }
}
