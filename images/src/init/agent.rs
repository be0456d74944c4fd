//! The first process of the agent's container: it reaps, and its end is the container's. Everything in the container but
//! this process is the attacker, so it obeys nobody: what comes over standard input is thrown away, only its end counts.

use super::Event;
use super::events::Events;
use super::reap::Reaper;
use std::io::{self, Read, Write};
use std::time::Duration;

/// How long the last lines may take.
const FLUSH_WITHIN: Duration = Duration::from_millis(200);

/// Returns at the end of `input`. All threads are started before `ready` is said: later the agent may have used up what
/// the container has of them.
pub fn run(mut input: impl Read, output: impl Write + Send + 'static) -> io::Result<()> {
    let events = Events::to(output)?;
    let _reaper = Reaper::start(|_, _| {})?;
    events.say(&Event::Ready);
    let mut buffer = [0; 1024];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break, // whoever held it has gone
        }
    }
    events.finish(FLUSH_WITHIN);
    Ok(())
}
