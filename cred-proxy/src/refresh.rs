//! A credential that an upstream rejected: the keeper is asked for another, once, whoever meets the rejection.
//!
//! The agent decides how often a request is rejected, the keeper may run a command for each question: so there is one
//! question at a time for a secret, and none sooner than [`REJECTED_EVERY`] after the last.

use crate::config::{Event, REFRESH_WITHIN, REJECTED_EVERY};
use crate::log::Log;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The questions to the keeper.
#[derive(Debug)]
pub struct Refresh {
    asked: Mutex<HashMap<String, Asked>>,
    /// Turns with every answer, whatever it is.
    turns: watch::Sender<()>,
    every: Duration,
    within: Duration,
}

#[derive(Debug)]
struct Asked {
    at: Instant,
    is_open: bool,
}

impl Default for Refresh {
    fn default() -> Self {
        Self::with_limits(REJECTED_EVERY, REFRESH_WITHIN)
    }
}

impl Refresh {
    /// With other limits than the ones that the keeper counts on; for tests.
    pub(crate) fn with_limits(every: Duration, within: Duration) -> Self {
        Self { asked: Mutex::default(), turns: watch::Sender::new(()), every, within }
    }

    /// How long an answer is awaited.
    pub fn within(&self) -> Duration {
        self.within
    }

    /// Tells what turns when an answer comes. Take it before looking whether there is one already.
    pub fn turns(&self) -> watch::Receiver<()> {
        self.turns.subscribe()
    }

    /// Asks for another `secret`, unless that has been asked already. Is there an answer to wait for?
    pub fn ask(&self, log: &Log, secret: &str, route: &str) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = asked.get(secret) {
            let age = asked.at.elapsed();
            if asked.is_open && age < self.within {
                return true;
            }
            if age < self.every {
                return false;
            }
        }
        asked.insert(secret.to_owned(), Asked { at: Instant::now(), is_open: true });
        drop(asked);
        log.event(&Event::Rejected { secret: secret.to_owned(), route: route.to_owned() });
        true
    }

    /// Is the question for `secret` still open?
    pub fn is_open(&self, secret: &str) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get(secret).is_some_and(|asked| asked.is_open)
    }

    /// The keeper has no other `secret`.
    pub fn unchanged(&self, secret: &str) {
        if let Some(asked) = self.asked.lock().unwrap_or_else(PoisonError::into_inner).get_mut(secret) {
            asked.is_open = false;
        }
        self.turns.send_replace(());
    }

    /// Another table is in force, in which these secrets are others than before.
    pub fn changed<'a>(&self, secrets: impl IntoIterator<Item = &'a str>) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        for secret in secrets {
            if let Some(asked) = asked.get_mut(secret) {
                asked.is_open = false;
            }
        }
        drop(asked);
        self.turns.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn one_question_at_a_time_and_none_too_soon() {
        let out = Shared::default();
        let log = Log::start(out.clone(), || ()).unwrap();
        let questions = || {
            log.flush(Duration::from_secs(10));
            out.0.lock().unwrap().iter().filter(|byte| **byte == b'\n').count()
        };
        let mut refresh = Refresh::default();
        assert!(refresh.ask(&log, "key", "/a/") && refresh.ask(&log, "key", "/b/"), "the second one joins the first");
        assert_eq!(questions(), 1);
        assert!(refresh.ask(&log, "other", "/a/"), "another secret is another question");
        assert_eq!(questions(), 2);
        refresh.unchanged("key");
        assert!(!refresh.is_open("key") && refresh.is_open("other"));
        assert!(!refresh.ask(&log, "key", "/a/"), "too soon");
        assert_eq!(questions(), 2);
        refresh.every = Duration::ZERO;
        assert!(refresh.ask(&log, "key", "/a/"));
        assert_eq!(questions(), 3);
        refresh.changed(["key"]);
        assert!(!refresh.is_open("key") && refresh.is_open("other"));
    }
}
