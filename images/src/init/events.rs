//! Writes event lines for the keeper. It must never make the rest of the program wait: a keeper that stopped reading
//! would otherwise hold the dead man's switch open.

use super::Event;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Lines that wait for a slow reader; further ones are dropped.
const LINES_WAITING_MAX: usize = 64;

/// Where events go: a thread of its own writes them.
pub struct Events {
    lines: SyncSender<String>,
    done: Receiver<()>,
}

impl Events {
    /// Starts the thread that writes to `output`.
    pub fn to(mut output: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, waiting) = sync_channel::<String>(LINES_WAITING_MAX);
        let (finished, done) = sync_channel::<()>(1);
        thread::Builder::new().name("events".into()).spawn(move || {
            for line in waiting {
                // One write for a line: the child writes to the same pipe. A reader that has gone is no reason to stop
                // draining, as the end of input tells the same story.
                let _ = output.write_all(line.as_bytes()).and_then(|()| output.flush());
            }
            drop(finished);
        })?;
        Ok(Self { lines, done })
    }

    /// Queues one event. Where 64 lines wait already nobody reads, and it is dropped.
    pub fn say(&self, event: &Event) {
        let _ = self.lines.try_send(event.line());
    }

    /// Waits until all is written, or `within` has passed.
    pub fn finish(self, within: Duration) {
        drop(self.lines);
        match self.done.recv_timeout(within) {
            Ok(()) | Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    /// Blocks for ever, as a full pipe does.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_in_order() {
        let sink = Sink::default();
        let events = Events::to(sink.clone()).unwrap();
        events.say(&Event::Ready);
        events.say(&Event::Exited(3));
        events.finish(Duration::from_secs(20));
        assert_eq!(sink.0.lock().unwrap().as_slice(), b"bottle-init: ready\nbottle-init: exited 3\n");
    }

    #[test]
    fn a_reader_that_has_gone_is_ignored() {
        let events = Events::to(Gone).unwrap();
        events.say(&Event::Ready);
        events.say(&Event::Ready);
        events.finish(Duration::from_secs(20));
    }

    #[test]
    fn a_reader_that_sleeps_holds_nothing_up() {
        let (_open, never) = sync_channel(0);
        let events = Events::to(Stuck(never)).unwrap();
        for _ in 0..10 * LINES_WAITING_MAX {
            events.say(&Event::Ready);
        }
        events.finish(Duration::from_millis(1));
    }
}
