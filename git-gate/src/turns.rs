//! How much goes on at one time. Whoever comes when all places are taken waits for a turn, since one agent has one address
//! and a burst of its requests is nothing bad; but not for ever.

use crate::limits::{Limits, seconds};
use crate::stop::Stop;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A place; free again when it goes.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// The places of the gate.
#[derive(Debug)]
pub struct Turns {
    connections: Places,
    pushes: Places,
    sessions: Places,
}

#[derive(Debug)]
struct Places {
    name: &'static str,
    count: u64,
    within: Duration,
    free: Arc<Semaphore>,
}

impl Turns {
    /// As many as the limits say.
    pub fn new(limits: &Limits) -> Self {
        let places = |name, count: u64| Places {
            name,
            count,
            within: seconds(limits.turn_seconds),
            free: Arc::new(Semaphore::new(usize::try_from(count).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS))),
        };
        Self {
            connections: places("connections", limits.connections),
            pushes: places("pushes", limits.pushes),
            sessions: places("sessions", limits.sessions),
        }
    }

    /// Would those of these limits be the same?
    pub fn is_of(&self, limits: &Limits) -> bool {
        let own = [&self.connections, &self.pushes, &self.sessions].map(|places| (places.count, places.within));
        own == [limits.connections, limits.pushes, limits.sessions].map(|count| (count, seconds(limits.turn_seconds)))
    }

    /// A connection's.
    pub async fn connection(&self) -> Result<Turn, Stop> {
        self.connections.wait().await
    }

    /// A push's.
    pub async fn push(&self) -> Result<Turn, Stop> {
        self.pushes.wait().await
    }

    /// A session's with an upstream.
    pub async fn session(&self) -> Result<Turn, Stop> {
        self.sessions.wait().await
    }
}

impl Places {
    async fn wait(&self) -> Result<Turn, Stop> {
        let waiting = tokio::time::timeout(self.within, self.free.clone().acquire_owned()).await;
        match waiting {
            Ok(Ok(permit)) => Ok(Turn { _permit: permit }),
            // Late, or closed, which it never is.
            _ => Err(Stop::Refused(format!(
                "busy: all {} {} were taken for {} seconds; try again",
                self.count,
                self.name,
                self.within.as_secs()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_one_waits_and_then_hears_why_not() {
        let turns = Turns::new(&Limits { pushes: 1, turn_seconds: 1, ..Limits::default() });
        let first = turns.push().await.unwrap();
        let error = turns.push().await.map(drop).unwrap_err().to_string();
        assert_eq!(error, "busy: all 1 pushes were taken for 1 seconds; try again");
        let (second, ()) = tokio::join!(turns.push(), async { drop(first) });
        assert!(second.is_ok());
    }
}
