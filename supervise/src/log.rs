//! Standard output: events for the keeper, one JSON line each. One thread writes; whoever has an event hands it over.
//!
//! Nobody waits for a slow reader: what does not fit is refused, and whoever had it must cope. JSON escapes every control
//! character, so an agent's words can never begin a line of their own.

use crate::config::Event;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Events that wait to be written.
const WAITING_MAX: usize = 256;

/// Of these, asks: an agent cannot take the place of what the keeper must hear.
const ASKS_WAITING_MAX: usize = 32;

/// Where events go.
#[derive(Debug, Clone)]
pub struct Log {
    lines: SyncSender<Line>,
    asks: Arc<Semaphore>,
}

/// The keeper reads so slowly, or not at all, that the event was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind;

#[derive(Debug)]
enum Line {
    Event(Event),
    /// The place among the asks is given back once the line is written.
    Ask(Event, OwnedSemaphorePermit),
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
        Ok(Self { lines, asks: Arc::new(Semaphore::new(ASKS_WAITING_MAX)) })
    }

    /// Hands over what the keeper must hear.
    pub fn event(&self, event: Event) -> Result<(), Behind> {
        self.lines.try_send(Line::Event(event)).map_err(|_| Behind)
    }

    /// Hands over what an agent asks.
    pub fn ask(&self, event: Event) -> Result<(), Behind> {
        let place = self.asks.clone().try_acquire_owned().map_err(|_| Behind)?;
        self.lines.try_send(Line::Ask(event, place)).map_err(|_| Behind)
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

fn write_lines(mut out: impl Write, incoming: &Receiver<Line>) -> std::io::Result<()> {
    for line in incoming {
        match line {
            Line::Event(event) => write_line(&mut out, &event)?,
            Line::Ask(event, place) => {
                write_line(&mut out, &event)?;
                drop(place);
            }
            // Whoever asked may have stopped waiting.
            Line::Flush(done) => drop(done.send(())),
        }
    }
    Ok(())
}

fn write_line(out: &mut impl Write, event: &Event) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Change;
    use std::sync::mpsc::{Sender, channel};

    /// Takes nothing until the test lets it.
    struct Stuck(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            // A test that ended waits for nothing.
            let _ = self.0.recv();
            let _ = self.1.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn ask(call: u64, justification: &str) -> Event {
        let change = Change::Finding { fingerprint: "0123456789ab".into() };
        Event::Ask { call, change, justification: justification.into() }
    }

    #[test]
    fn a_reader_that_is_stuck_costs_asks_and_no_events() {
        let (go, wait) = channel();
        let (tell, written) = channel();
        let log = Log::start(Stuck(wait, tell), || ()).unwrap();
        let taken = (0..1000).filter(|call| log.ask(ask(*call, "x")).is_ok()).count();
        assert_eq!(taken, ASKS_WAITING_MAX);
        assert_eq!(log.ask(ask(1, "x")), Err(Behind));
        assert_eq!(log.event(Event::Configured), Ok(()));
        drop(go);
        for _ in 0..=ASKS_WAITING_MAX {
            written.recv().unwrap();
        }
        log.flush(Duration::from_secs(60));
        assert_eq!(log.ask(ask(2, "x")), Ok(()));
    }

    #[test]
    fn an_agents_words_are_one_line() {
        let (go, wait) = channel();
        let (tell, written) = channel();
        let log = Log::start(Stuck(wait, tell), || ()).unwrap();
        log.ask(ask(1, "a\n{\"event\":\"ready\"}\r\n\u{2028}\u{85}")).unwrap();
        drop(go);
        let line = String::from_utf8(written.recv().unwrap()).unwrap();
        assert_eq!((line.matches('\n').count(), line.ends_with('\n')), (1, true), "{line}");
        assert!(!line.contains('\r'), "{line}");
    }

    #[test]
    fn an_output_that_is_closed_is_told() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (tell, told) = channel();
        let log = Log::start(Closed, move || tell.send(()).unwrap()).unwrap();
        log.event(Event::Configured).unwrap();
        told.recv().unwrap();
    }
}
