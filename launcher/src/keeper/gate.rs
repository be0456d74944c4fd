//! What git-gate is told: its remotes with what opens them, and the secrets that no push may hold. Both can change while the
//! bottle runs: by which proxy it goes out, and which secrets there are.

use git_gate::Secret;
use git_gate::config::{Config, KNOWN_BYTES_MIN, configure_line};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

/// Secrets that git-gate is told of beside those of the launch.
const KNOWN_MAX: usize = 512;

/// git-gate's table with its secrets.
pub struct Gate(Mutex<Told>);

struct Told {
    config: Config,
    secrets: BTreeMap<String, Secret>,
    /// So many of the secrets that are looked for are of the launch, and stay.
    fixed: usize,
}

impl Gate {
    /// The table of a launch, and what no push may hold from the start.
    pub fn new<'a>(
        config: Config,
        secrets: BTreeMap<String, Secret>,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let gate = Self(Mutex::new(Told { config, secrets, fixed: 0 }));
        for value in known {
            gate.know(value);
        }
        let mut told = gate.told();
        told.fixed = told.config.known.len();
        drop(told);
        gate
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The line that tells a git-gate all of it. An error: it cannot be written.
    pub fn line(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let told = self.told();
        configure_line(&told.config, &told.secrets).map_err(|e| e.to_string())
    }

    /// From now on it goes out by this proxy, where it goes out by one at all. Does it?
    pub fn go_by(&self, proxy: String) -> bool {
        let mut told = self.told();
        let goes = told.config.proxy.is_some();
        if goes {
            told.config.proxy = Some(proxy);
        }
        goes
    }

    /// From now on no push may hold this value; those of before stay, since a credential that was renewed may still open
    /// something. Is it new?
    pub fn know(&self, value: &str) -> bool {
        let Told { config, secrets, fixed } = &mut *self.told();
        let is_known = config.known.iter().filter_map(|name| secrets.get(name)).any(|known| known.expose() == value);
        if value.len() < KNOWN_BYTES_MIN || is_known {
            return false;
        }
        // The oldest of those that came later make room: an agent may have a credential renewed again and again.
        if config.known.len() >= *fixed + KNOWN_MAX {
            secrets.remove(&config.known.remove(*fixed));
        }
        let number = config.known.iter().filter_map(|name| name.rsplit(' ').next()?.parse::<usize>().ok()).max();
        let name = format!("known {}", number.map_or(0, |number| number + 1));
        secrets.insert(name.clone(), Secret::new(value.to_owned()));
        config.known.push(name);
        true
    }

    /// What a git-gate that starts is told: `feed` with its first line, which configures it, as it is now. What follows says
    /// what was allowed since.
    pub fn first_line_of(&self, feed: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        let mut new = self.line()?;
        let rest = feed.iter().position(|byte| *byte == b'\n').map_or(feed.len(), |at| at + 1);
        new.extend_from_slice(&feed[rest..]);
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        let config = Config {
            listen: "127.0.0.1:1".parse().unwrap(),
            remotes: Vec::new(),
            proxy: Some("http://route-pipelock:8888".to_owned()),
            inspected_ca: None,
            upstream_roots: String::new(),
            known: Vec::new(),
            spool: "/spool".into(),
            limits: git_gate::limits::Limits::default(),
        };
        Gate::new(config, BTreeMap::new(), ["first-secret"])
    }

    fn value(gate: &Gate) -> serde_json::Value {
        serde_json::from_slice(&gate.line().unwrap()).unwrap()
    }

    #[test]
    fn a_new_secret_is_known_once_and_a_short_one_never() {
        let gate = gate();
        assert!(gate.know("second-secret") && !gate.know("second-secret") && !gate.know("first-secret"));
        assert!(!gate.know("short"));
        let told = value(&gate);
        assert_eq!(told["config"]["known"], serde_json::json!(["known 0", "known 1"]));
        assert_eq!(told["secrets"]["known 1"], "second-secret");
        for n in 0..2 * KNOWN_MAX {
            assert!(gate.know(&format!("another-secret-{n}")));
        }
        let told = value(&gate);
        assert_eq!(told["config"]["known"].as_array().unwrap().len(), 1 + KNOWN_MAX);
        assert_eq!(told["secrets"].as_object().unwrap().len(), 1 + KNOWN_MAX);
        assert_eq!(told["secrets"]["known 0"], "first-secret", "those of the launch stay");
    }

    #[test]
    fn another_proxy_and_another_first_line() {
        let gate = gate();
        assert!(gate.go_by("http://10.0.0.5:8888".to_owned()));
        let feed = gate.first_line_of(b"old\nallow\nallow\n").unwrap();
        let (first, rest) = feed.split_at(feed.iter().position(|b| *b == b'\n').unwrap() + 1);
        assert!(String::from_utf8_lossy(first).contains("10.0.0.5"));
        assert_eq!(rest, b"allow\nallow\n");
    }
}
