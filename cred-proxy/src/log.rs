//! Standard output: events for the keeper, one JSON line each. One thread writes; whoever has an event hands its line over.
//!
//! No line is ever dropped: when the reader falls behind, requests wait. A line never has a header's value, a query or a secret in it.

use crate::config::Event;
use crate::server::Place;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that wait to be written; then whoever brings the next line waits.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// How long the lines of requests are gathered before they are written.
const GATHERED_FOR: Duration = Duration::from_millis(3);

/// The longest path in a log line; the rest is cut off.
const PATH_BYTES_MAX: usize = 1024;

/// Where events go.
#[derive(Debug, Clone)]
pub struct Log(Arc<Handle>);

/// Ends the thread when nobody can bring a line any more.
#[derive(Debug)]
struct Handle(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// There is something to write.
    came: Condvar,
    /// Everything was taken, or written.
    went: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Somebody may be waiting for a line.
    urgent: bool,
    /// The thread sleeps until it is woken.
    asleep: bool,
    /// No more lines are brought, or none can be written.
    ended: bool,
    /// How often the thread has been asked to tell that everything is written, and has told.
    asked: u64,
    told: u64,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.waiting().ended = true;
        self.0.came.notify_all();
    }
}

impl Log {
    /// Starts the thread that writes to `out`. `closed` is called once, when nothing can be written any more.
    pub fn start(out: impl Write + Send + 'static, closed: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let lines = queue.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || {
            if write_lines(out, &lines).is_err() {
                lines.waiting().ended = true;
                lines.went.notify_all();
                closed();
            }
        })?;
        Ok(Self(Arc::new(Handle(queue))))
    }

    /// Hands an event over.
    pub fn event(&self, event: &Event) {
        let Self(handle) = self;
        let queue = &handle.0;
        // Written here and not by the thread: what the event is made of stays where it is used again. And before the queue is
        // locked, since all who serve bring their lines to it.
        let mut line = Vec::with_capacity(256);
        match serde_json::to_writer(&mut line, event) {
            Ok(()) => line.push(b'\n'),
            Err(_) => line.clear(),
        }
        let mut waiting = queue.waiting();
        while waiting.lines.len() > WAITING_BYTES_MAX && !waiting.ended {
            waiting = queue.went.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        if waiting.ended {
            // `closed` has told the one who ends the process.
            return;
        }
        waiting.lines.extend_from_slice(&line);
        // Nobody waits for a request's line, and whoever brings the next one need not wake the thread.
        waiting.urgent |= !matches!(event, Event::Request { .. });
        if waiting.urgent || std::mem::take(&mut waiting.asleep) {
            queue.came.notify_one();
        }
    }

    /// Waits until everything handed over before is written, or the time is over.
    pub fn flush(&self, within: Duration) {
        let queue = &self.0.0;
        let mut waiting = queue.waiting();
        waiting.asked += 1;
        let asked = waiting.asked;
        queue.came.notify_one();
        // Too late is as good as it gets: the process ends.
        drop(queue.went.wait_timeout_while(waiting, within, |waiting| waiting.told < asked && !waiting.ended));
    }
}

/// One request; its line is written when this goes, however the request ended.
#[derive(Debug)]
pub struct Entry {
    log: Log,
    route: String,
    method: String,
    path: String,
    status: u16,
    bytes: u64,
    started: Instant,
    credential: bool,
    reason: Option<String>,
    place: Option<Place>,
    uses_up: bool,
}

/// The status in the log of a request whose agent went away before there was one.
const GONE: u16 = 499;

impl Entry {
    /// For a request whose head has arrived.
    pub fn new(log: Log, method: &str, path: &str) -> Self {
        let cut = path.floor_char_boundary(PATH_BYTES_MAX);
        Self {
            log,
            route: String::new(),
            method: method[..method.floor_char_boundary(32)].to_owned(),
            path: path[..cut].to_owned(),
            status: GONE,
            bytes: 0,
            started: Instant::now(),
            credential: false,
            reason: None,
            place: None,
            uses_up: false,
        }
    }

    /// It took this route.
    pub fn took_route(&mut self, path: &str) {
        path.clone_into(&mut self.route);
    }

    /// It takes up a place for as long as it lives.
    pub fn holds(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// It is the one request of its route.
    pub fn uses_up(&mut self) {
        self.uses_up = true;
    }

    /// A credential was put in.
    pub fn used_credential(&mut self) {
        self.credential = true;
    }

    /// The status that the agent gets.
    pub fn answered(&mut self, status: http::StatusCode) {
        self.status = status.as_u16();
    }

    /// So many more body bytes went to the agent.
    pub fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Why it was refused or failed; the first reason stays.
    pub fn failed(&mut self, reason: impl FnOnce() -> String) {
        self.reason.get_or_insert_with(reason);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.status == GONE {
            self.failed(|| "the agent went away".into());
        }
        let used_up = self.uses_up.then(|| Event::UsedUp { route: self.route.clone() });
        self.log.event(&Event::Request {
            route: std::mem::take(&mut self.route),
            method: std::mem::take(&mut self.method),
            path: std::mem::take(&mut self.path),
            status: self.status,
            bytes: self.bytes,
            ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            credential: self.credential,
            reason: self.reason.take(),
        });
        used_up.iter().for_each(|event| self.log.event(event));
    }
}

fn write_lines(mut out: impl Write, queue: &Queue) -> std::io::Result<()> {
    let mut lines = Vec::new();
    loop {
        let mut waiting = queue.waiting();
        while waiting.lines.is_empty() && waiting.told == waiting.asked && !waiting.ended {
            waiting.asleep = true;
            waiting = queue.came.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let nothing_presses =
            |waiting: &mut Waiting| !waiting.urgent && waiting.told == waiting.asked && !waiting.ended;
        let gathered = queue.came.wait_timeout_while(waiting, GATHERED_FOR, nothing_presses);
        let (mut waiting, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        // What has piled up goes out in one write.
        std::mem::swap(&mut lines, &mut waiting.lines);
        (waiting.urgent, waiting.asleep) = (false, false);
        let (asked, ended) = (waiting.asked, waiting.ended);
        drop(waiting);
        queue.went.notify_all();
        out.write_all(&lines)?;
        out.flush()?;
        lines.clear();
        queue.waiting().told = asked;
        queue.went.notify_all();
        if ended {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

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
    fn one_line_a_request() {
        let out = Shared::default();
        let log = Log::start(out.clone(), || ()).unwrap();
        let mut entry = Entry::new(log.clone(), "GET", "/api/x");
        entry.took_route("/api/");
        entry.answered(http::StatusCode::OK);
        entry.sent(3);
        drop(entry);
        drop(Entry::new(log.clone(), "POST", &"\u{e9}".repeat(PATH_BYTES_MAX)));
        log.flush(Duration::from_secs(10));
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let events: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let seen: Vec<_> = events
            .iter()
            .map(|event| match event {
                Event::Request { route, method, path, status, bytes, reason, .. } => {
                    (route.as_str(), method.as_str(), path.len(), *status, *bytes, reason.as_deref())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let wanted = [("/api/", "GET", 6, 200, 3, None), ("", "POST", 1024, 499, 0, Some("the agent went away"))];
        assert_eq!(seen, wanted);
    }

    #[test]
    fn a_closed_output_is_told() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (told, wait) = sync_channel(1);
        let log = Log::start(Closed, move || told.send(()).unwrap()).unwrap();
        log.event(&Event::Ready);
        assert_eq!(wait.recv_timeout(Duration::from_secs(10)), Ok(()));
    }
}
