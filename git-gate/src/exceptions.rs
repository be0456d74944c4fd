//! Findings that the operator has judged false while the gate runs: lasting, or for one push. They come and go over
//! standard input alone, each for one remote, by whole fingerprints.

use crate::scan::Fingerprint;
use crate::table::Remote;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

/// Exceptions that are kept at one time.
const EXCEPTIONS_MAX: usize = 10_000;

type Key = (String, Fingerprint);

/// What the operator said while the gate runs.
#[derive(Debug, Default)]
pub struct Exceptions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The value: for one push only?
    allowed: HashMap<Key, bool>,
    /// Taken back, though the configuration has them.
    revoked: HashSet<Key>,
    /// How often the operator has taken one back.
    revocations: u64,
}

/// Exceptions for one push that a push now uses up: over for every other push. They stay over however this ends, unless
/// it is given back, since of a push that was sent nobody knows for sure that it did not arrive.
#[derive(Debug)]
#[must_use = "a push that was not taken gives its exceptions back"]
pub struct Spent {
    keys: Vec<Key>,
    /// [`State::revocations`] when it began.
    revocations: u64,
}

/// There are too many.
#[derive(Debug, thiserror::Error)]
#[error("there are {EXCEPTIONS_MAX} exceptions already; take some back first")]
pub struct TooMany;

impl Exceptions {
    /// From now on, or for one push, this finding does not refuse.
    pub fn allow(&self, remote: &str, fingerprint: Fingerprint, once: bool) -> Result<(), TooMany> {
        let mut state = self.state();
        let key = (remote.to_owned(), fingerprint);
        if state.allowed.len() >= EXCEPTIONS_MAX && !state.allowed.contains_key(&key) {
            return Err(TooMany);
        }
        state.revoked.remove(&key);
        state.allowed.insert(key, once);
        Ok(())
    }

    /// It refuses again.
    pub fn revoke(&self, remote: &str, fingerprint: Fingerprint) {
        let mut state = self.state();
        let key = (remote.to_owned(), fingerprint);
        state.allowed.remove(&key);
        state.revocations += 1;
        // What no configuration has costs nothing to take back twice; the number of those is bounded all the same.
        if state.revoked.len() < EXCEPTIONS_MAX {
            state.revoked.insert(key);
        }
    }

    /// Is this finding excepted now?
    pub fn has(&self, remote: &Remote, fingerprint: &Fingerprint) -> bool {
        let state = self.state();
        let key = (remote.name.clone(), *fingerprint);
        state.allowed.contains_key(&key) || remote.exceptions.contains(fingerprint) && !state.revoked.contains(&key)
    }

    /// A push that needed these goes to the upstream: those for one push are over for all others. `None` when one of them
    /// is over already, since another push was faster, or was taken back; nothing is used up then.
    pub fn spend(&self, remote: &Remote, used: &[Fingerprint]) -> Option<Spent> {
        let mut state = self.state();
        let key = |fingerprint: &Fingerprint| (remote.name.clone(), *fingerprint);
        let is_there = |fingerprint: &Fingerprint| {
            let key = key(fingerprint);
            state.allowed.contains_key(&key) || remote.exceptions.contains(fingerprint) && !state.revoked.contains(&key)
        };
        if !used.iter().all(is_there) {
            return None;
        }
        let mut keys = Vec::new();
        for fingerprint in used {
            let key = key(fingerprint);
            let is_lasting = remote.exceptions.contains(fingerprint) && !state.revoked.contains(&key);
            if !is_lasting && state.allowed.get(&key) == Some(&true) {
                state.allowed.remove(&key);
                keys.push(key);
            }
        }
        Some(Spent { keys, revocations: state.revocations })
    }

    /// The upstream did not take the push: what it used is there again. Not when the operator has taken any exception
    /// back meanwhile: it may have been this one.
    pub fn give_back(&self, spent: Spent) {
        let mut state = self.state();
        if state.revocations == spent.revocations {
            for key in spent.keys {
                // One that the operator has made lasting meanwhile stays so.
                state.allowed.entry(key).or_insert(true);
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    /// Nobody connects to it here.
    #[derive(Debug)]
    struct Nowhere;

    impl crate::upstream::Upstream for Nowhere {
        fn connect(
            &self,
        ) -> futures_util::future::BoxFuture<'_, Result<Box<dyn crate::upstream::Session>, crate::upstream::Failure>>
        {
            Box::pin(async { Err(crate::upstream::Failure::Ended("nowhere".into())) })
        }
    }

    fn remote(exceptions: &[Fingerprint]) -> Remote {
        Remote {
            name: "app".into(),
            upstream: Box::new(Nowhere),
            policy: Policy::parse(&crate::config::Push::default(), 1 << 20).unwrap(),
            exceptions: exceptions.iter().copied().collect(),
        }
    }

    fn fingerprint(digit: &str) -> Fingerprint {
        Fingerprint::parse(&digit.repeat(64)).unwrap()
    }

    #[test]
    fn one_for_one_push_is_over_when_the_push_was_taken_and_there_again_when_not() {
        let (remote, one, lasting) = (remote(&[]), fingerprint("1"), fingerprint("2"));
        let exceptions = Exceptions::default();
        exceptions.allow("app", one, true).unwrap();
        exceptions.allow("app", lasting, false).unwrap();
        let spent = exceptions.spend(&remote, &[one, lasting, one]).unwrap();
        assert!(!exceptions.has(&remote, &one) && exceptions.has(&remote, &lasting));
        assert!(exceptions.spend(&remote, &[one]).is_none(), "another push at the same time");
        exceptions.give_back(spent);
        let spent = exceptions.spend(&remote, &[one]).unwrap();
        drop(spent);
        assert!(!exceptions.has(&remote, &one));
    }

    #[test]
    fn what_the_operator_said_meanwhile_counts() {
        let (remote, one) = (remote(&[]), fingerprint("1"));
        let exceptions = Exceptions::default();
        exceptions.allow("app", one, true).unwrap();
        let spent = exceptions.spend(&remote, &[one]).unwrap();
        exceptions.revoke("app", one);
        exceptions.give_back(spent);
        assert!(!exceptions.has(&remote, &one), "it was taken back");
        exceptions.allow("app", one, true).unwrap();
        let spent = exceptions.spend(&remote, &[one]).unwrap();
        exceptions.allow("app", one, false).unwrap();
        exceptions.give_back(spent);
        drop(exceptions.spend(&remote, &[one]).unwrap());
        assert!(exceptions.has(&remote, &one), "it is lasting now");
    }

    #[test]
    fn one_of_the_configuration_is_there_until_it_is_taken_back() {
        let one = fingerprint("1");
        let (remote, other) = (remote(&[one]), remote(&[]));
        let exceptions = Exceptions::default();
        drop(exceptions.spend(&remote, &[one]).unwrap());
        assert!(exceptions.has(&remote, &one) && !exceptions.has(&other, &one));
        exceptions.revoke("app", one);
        assert!(!exceptions.has(&remote, &one) && exceptions.spend(&remote, &[one]).is_none());
        exceptions.allow("app", one, true).unwrap();
        assert!(exceptions.has(&remote, &one));
    }
}
