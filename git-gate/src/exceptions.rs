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

    /// A push that needed these goes to the upstream: those for one push are over. `false` when one of them was over
    /// already, since another push was faster; nothing is used up then.
    pub fn spend(&self, remote: &Remote, used: &[Fingerprint]) -> bool {
        let mut state = self.state();
        let key = |fingerprint: &Fingerprint| (remote.name.clone(), *fingerprint);
        let is_there = |fingerprint: &Fingerprint| {
            let key = key(fingerprint);
            state.allowed.contains_key(&key) || remote.exceptions.contains(fingerprint) && !state.revoked.contains(&key)
        };
        if !used.iter().all(is_there) {
            return false;
        }
        for fingerprint in used {
            if !remote.exceptions.contains(fingerprint) && state.allowed.get(&key(fingerprint)) == Some(&true) {
                state.allowed.remove(&key(fingerprint));
            }
        }
        true
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
