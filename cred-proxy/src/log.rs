//! Standard output: events for the keeper, one JSON line each. One thread writes; whoever has an event hands its line over.
//!
//! No line is ever dropped: when the reader falls behind, requests wait. A line never has a header's value, a query or a secret in it.

use crate::config::{Event, RequestLine};
use crate::seat::{Place, Seat, Taken};
use crate::workers::{THREADS_MAX, here};
use http::Method;
use serde::Serialize;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of one thread's that wait to be written; then whoever brings the next line waits.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// How long the lines of requests are gathered before they are written.
const GATHERED_FOR: Duration = Duration::from_millis(3);

/// The longest path in a log line; the rest is cut off.
const PATH_BYTES_MAX: usize = 1024;

/// And the longest method.
const METHOD_BYTES_MAX: usize = 32;

/// Where events go.
#[derive(Debug, Clone)]
pub struct Log(Arc<Handle>);

/// Ends the thread when nobody can bring a line any more.
#[derive(Debug)]
struct Handle(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    /// Lines, by the number of the thread that has brought them: all who serve bring one for each request, and none has to
    /// wait for another.
    shelves: [Shelf; THREADS_MAX],
    waiting: Mutex<Waiting>,
    /// The thread sleeps until it is woken.
    asleep: AtomicBool,
    /// There is something to write.
    came: Condvar,
    /// Everything was taken, or written.
    went: Condvar,
}

/// As far from the next one as the threads' caches need it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shelf(Mutex<Vec<u8>>);

/// Locked before a shelf, where both are.
#[derive(Debug, Default)]
struct Waiting {
    /// Somebody may be waiting for a line.
    urgent: bool,
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

    /// Waits until a shelf has room; is anything written still?
    fn wait_for_room(&self, shelf: &Shelf) -> bool {
        let is_full = |waiting: &mut Waiting| !waiting.ended && shelf.lines().len() > WAITING_BYTES_MAX;
        !self.went.wait_while(self.waiting(), is_full).unwrap_or_else(PoisonError::into_inner).ended
    }
}

impl Shelf {
    fn lines(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn presses(&self) -> bool {
        self.urgent || self.told < self.asked || self.ended
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
        self.line(event, true);
    }

    /// Hands a line over. Nobody waits for a request's.
    fn line(&self, event: &impl Serialize, is_urgent: bool) {
        let queue = &self.0.0;
        let shelf = &queue.shelves[here()];
        let mut lines = shelf.lines();
        while lines.len() > WAITING_BYTES_MAX {
            drop(lines);
            if !queue.wait_for_room(shelf) {
                // `closed` has told the one who ends the process.
                return;
            }
            lines = shelf.lines();
        }
        let before = lines.len();
        match serde_json::to_writer(&mut *lines, event) {
            Ok(()) => lines.push(b'\n'),
            Err(_) => lines.truncate(before),
        }
        drop(lines);
        // The thread says that it sleeps before it looks at the shelves: it has seen the line, or this sees that it sleeps.
        // Whoever brings the next line need not wake it.
        if is_urgent || (queue.asleep.load(Ordering::SeqCst) && queue.asleep.swap(false, Ordering::SeqCst)) {
            queue.waiting().urgent |= is_urgent;
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
    seat: Arc<Seat>,
    route: Option<Arc<Taken>>,
    method: Option<Method>,
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
    /// For a request whose head has arrived; without a method, for one whose head could not be read.
    pub fn new(seat: Arc<Seat>, method: Option<Method>, path: &str) -> Self {
        Self {
            seat,
            route: None,
            method,
            path: path[..path.floor_char_boundary(PATH_BYTES_MAX)].to_owned(),
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
    pub fn took_route(&mut self, route: Arc<Taken>) {
        self.route = Some(route);
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
        let route = self.route.as_ref().map_or("", |route| &route.path);
        let method = self.method.as_ref().map_or("", Method::as_str);
        let line = RequestLine {
            route,
            method: &method[..method.floor_char_boundary(METHOD_BYTES_MAX)],
            path: &self.path,
            status: self.status,
            bytes: self.bytes,
            ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            credential: self.credential,
            reason: self.reason.as_deref(),
        };
        let log = &self.seat.server.log;
        log.line(&line, false);
        if self.uses_up {
            log.event(&Event::UsedUp { route: route.to_owned() });
        }
    }
}

fn write_lines(mut out: impl Write, queue: &Queue) -> std::io::Result<()> {
    let mut lines = Vec::new();
    let is_idle = |waiting: &mut Waiting| {
        queue.asleep.store(true, Ordering::SeqCst);
        !waiting.presses() && queue.shelves.iter().all(|shelf| shelf.lines().is_empty())
    };
    loop {
        let waiting = queue.came.wait_while(queue.waiting(), is_idle).unwrap_or_else(PoisonError::into_inner);
        queue.asleep.store(false, Ordering::SeqCst);
        let gathered = queue.came.wait_timeout_while(waiting, GATHERED_FOR, |waiting| !waiting.presses());
        let (mut waiting, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        waiting.urgent = false;
        let (asked, ended) = (waiting.asked, waiting.ended);
        drop(waiting);
        // What has piled up goes out in one write.
        queue.shelves.iter().for_each(|shelf| lines.append(&mut shelf.lines()));
        drop(queue.waiting());
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
    use crate::alarm::Alarm;
    use crate::server::Server;
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

    fn seat(log: &Log) -> Arc<Seat> {
        let route = crate::config::Route {
            path: "/api/".into(),
            upstream: "http://a.example".into(),
            auth: crate::config::Auth::None,
            secret: None,
            inspected: false,
            allow: vec![],
        };
        let closed = crate::config::Config::closed(([127, 0, 0, 1], 0).into());
        let config = crate::config::Config { routes: vec![route], ..closed };
        let live = crate::live::Live::new(&config, &std::collections::BTreeMap::new()).unwrap();
        Arc::new(Seat::new(Arc::new(Server::new(live, log.clone())), Alarm::default()))
    }

    fn long_method() -> Method {
        Method::from_bytes(&[b'M'; METHOD_BYTES_MAX + 1]).unwrap()
    }

    #[test]
    fn one_line_a_request() {
        let out = Shared::default();
        let log = Log::start(out.clone(), || ()).unwrap();
        let seat = seat(&log);
        let mut entry = Entry::new(seat.clone(), Some(Method::GET), "/api/x");
        entry.took_route(seat.take(&seat.view(), 0));
        entry.answered(http::StatusCode::OK);
        entry.sent(3);
        entry.used_credential();
        drop(entry);
        drop(Entry::new(seat.clone(), Some(long_method()), &"\u{e9}".repeat(PATH_BYTES_MAX)));
        drop(Entry::new(seat, None, ""));
        log.flush(Duration::from_secs(10));
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let events: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        // What the keeper reads is what it would be written as.
        assert!(events.iter().zip(text.lines()).all(|(event, line)| serde_json::to_string(event).unwrap() == line));
        let seen: Vec<_> = events
            .iter()
            .map(|event| match event {
                Event::Request { route, method, path, status, bytes, credential, reason, .. } => {
                    let how = (*status, *bytes, *credential, reason.as_deref());
                    (route.as_str(), method.as_str(), path.len(), how)
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let gone = (499, 0, false, Some("the agent went away"));
        let method = "M".repeat(METHOD_BYTES_MAX);
        let wanted = [("/api/", "GET", 6, (200, 3, true, None)), ("", method.as_str(), 1024, gone), ("", "", 0, gone)];
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

    #[test]
    fn no_line_is_lost_whoever_brings_it_and_however_slowly_they_are_written() {
        struct Slow(Shared);
        impl Write for Slow {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                std::thread::yield_now();
                self.0.write(&bytes[..bytes.len().min(64 << 10)])
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let out = Shared::default();
        let log = Log::start(Slow(out.clone()), || ()).unwrap();
        let reason = "a".repeat(4 << 10);
        let each = 2 * WAITING_BYTES_MAX / reason.len();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..each).for_each(|_| log.event(&Event::Refused { reason: reason.clone() })));
            }
        });
        log.flush(Duration::from_secs(10));
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let whole = text.lines().filter(|line| serde_json::from_str::<Event>(line).is_ok()).count();
        assert_eq!((whole, text.lines().count()), (2 * each, 2 * each));
    }
}
