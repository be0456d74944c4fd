//! What carries a verdict out, and what takes it back. Each either leaves the new state in force and seen to be so, or
//! the old one.

use super::super::order::{Order as Sidecars, Setback};
use super::{Desk, state};
use crate::control::Probed;
use crate::engine::Engine;
use crate::plan::{Order, sidecar};
use crate::state::write_private;
use git_gate::config::{allow_finding_line, revoke_finding_line};
use pipelock_config::{Reload, reload_allowed, render};
use std::hash::{BuildHasher, Hasher};
use std::sync::PoisonError;
use supervise::queue::Term;
use supervise::wire::Change;

/// The one answer of pipelock's that means "closed"; whatever else comes back, the host itself is to blame for.
const CLOSED: &str = "not in allowlist";
/// The agent's pipelock.
pub(super) const PIPELOCK: &str = sidecar::PIPELOCK;

impl<E: Engine> Desk<E> {
    /// Puts a change in force. Gives what the agent is to be told of it.
    pub(super) async fn remedy(&mut self, id: &str, change: &Change, term: Term) -> Result<String, String> {
        match change {
            Change::Hosts { hosts } => self.open_hosts(hosts).await,
            Change::Route(route) => self.open_route(id, route, term == Term::Once).await,
            Change::Finding { fingerprint } => self.allow_finding(fingerprint, term == Term::Once).await,
            Change::Dockerfile { text } => self.write_dockerfile(text),
        }
    }

    /// Takes a change out of force, whatever happens: what cannot be told to a sidecar is not told to it when it starts.
    pub(super) async fn unremedy(&mut self, id: &str, change: &Change) -> Result<(), String> {
        let order = state::now(&self.base, &self.queue, &self.beyond, Some(id));
        match change {
            Change::Hosts { .. } => self.close_hosts(order).await,
            Change::Route(_) => self.close_route(id, order).await,
            Change::Finding { fingerprint } => self.revoke_finding(fingerprint).await,
            Change::Dockerfile { .. } => Err("a Dockerfile stays until another one is written".to_owned()),
        }
    }

    /// Hosts on the agent's pipelock: no open stream drops, and each host is asked for before it counts as open.
    async fn open_hosts(&mut self, hosts: &[String]) -> Result<String, String> {
        let mut order = self.order.clone();
        hosts.iter().for_each(|host| state::add(&mut order, host));
        let [old, new] = [&self.order, &order].map(|order| sidecar::pipelock_policy(order, &self.addresses));
        let (old, new) = (old.map_err(|e| e.to_string())?, new.map_err(|e| e.to_string())?);
        if let Reload::Restart(reason) = reload_allowed(&old, &new) {
            return Err(format!("the agent's pipelock cannot take it while it runs: {reason}"));
        }
        let (old, new) = (render(&old), render(&new));
        self.order_of(PIPELOCK, |reply| Sidecars::Reload { yaml: new, reply }).await.map_err(|e| e.to_string())?;
        match self.are_open(hosts).await {
            Ok(()) => {
                self.order = order;
                Ok(format!("open now: {}", hosts.join(", ")))
            }
            Err(why) => {
                // Started again, so that no tunnel keeps what was open for a moment.
                let restored = self.order_of(PIPELOCK, |reply| Sidecars::Restart { yaml: old, reply }).await;
                Err(match restored {
                    Ok(()) => why,
                    Err(setback) => format!("{why}; and {setback}"),
                })
            }
        }
    }

    /// Does the agent's pipelock let these through now?
    async fn are_open(&self, hosts: &[String]) -> Result<(), String> {
        for host in hosts {
            let target = format!("{}:443", name_under(host));
            match self.order_of(PIPELOCK, |reply| Sidecars::Probe { target, reply }).await {
                Ok(Probed { status: 403, text, .. }) if text.contains(CLOSED) => {
                    return Err(format!("{host} is still closed: {text}"));
                }
                Ok(_) => {}
                Err(setback) => return Err(format!("{host} cannot be seen to be open: {setback}")),
            }
        }
        Ok(())
    }

    /// The agent's pipelock with fewer hosts: started again, or open tunnels would keep what they had.
    pub(super) async fn close_hosts(&mut self, order: Order) -> Result<(), String> {
        let policy = sidecar::pipelock_policy(&order, &self.addresses).map_err(|e| e.to_string())?;
        let yaml = render(&policy);
        // From here on it is so: a pipelock that does not start now starts with nothing else.
        self.order = order;
        self.order_of(PIPELOCK, |reply| Sidecars::Restart { yaml, reply }).await.map_err(|e| e.to_string())
    }

    /// An exception at each remote that refused a push for it.
    async fn allow_finding(&mut self, fingerprint: &str, once: bool) -> Result<String, String> {
        let remotes = self.remotes_of(fingerprint);
        if remotes.is_empty() {
            return Err("no push was refused for it".to_owned());
        }
        for remote in &remotes {
            let line = allow_finding_line(fingerprint, remote, once).map_err(|e| e.to_string())?;
            let told = line.clone();
            if let Err(setback) = self.order_of(git_gate::NAME, |reply| Sidecars::Command { line, reply }).await {
                let _ = self.revoke_finding(fingerprint).await;
                return Err(setback.to_string());
            }
            if !once && let Some(reach) = self.hands.get(git_gate::NAME) {
                reach.feed.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&told);
            }
        }
        let how = if once { "the next push with it passes" } else { "pushes with it pass from now on" };
        Ok(format!("{how} ({}); other findings are refused as before", remotes.join(", ")))
    }

    pub(super) async fn revoke_finding(&mut self, fingerprint: &str) -> Result<(), String> {
        let mut failed = None;
        for remote in self.remotes_of(fingerprint) {
            let allowed = allow_finding_line(fingerprint, &remote, false).map_err(|e| e.to_string())?;
            if let Some(reach) = self.hands.get(git_gate::NAME) {
                let mut feed = reach.feed.lock().unwrap_or_else(PoisonError::into_inner);
                *feed = without(&feed, &allowed);
            }
            let line = revoke_finding_line(fingerprint, &remote).map_err(|e| e.to_string())?;
            if let Err(setback) = self.order_of(git_gate::NAME, |reply| Sidecars::Command { line, reply }).await {
                failed = Some(setback);
            }
        }
        match failed {
            // One that does not run is told nothing of it when it starts.
            None | Some(Setback::Broken(_)) => Ok(()),
            Some(Setback::Refused(why)) => Err(why),
        }
    }

    pub(super) fn remotes_of(&self, fingerprint: &str) -> Vec<String> {
        self.findings.of(fingerprint).into_iter().map(|(remote, _)| remote.to_owned()).collect()
    }

    /// A Dockerfile changes nothing of a bottle that runs.
    fn write_dockerfile(&self, text: &str) -> Result<String, String> {
        let path = self.dir.dockerfile();
        write_private(&path, text.as_bytes()).map_err(|e| format!("{} cannot be written: {e}", path.display()))?;
        Ok("a person has taken the Dockerfile; it holds from when this bottle is resumed, so finish what you can here and \
            leave your work in the workspace, which is kept"
            .to_owned())
    }

    /// What is in force by a finding for one use that this push may have used.
    pub(super) fn used_by(&self, operation: &git_gate::config::Operation) -> Vec<String> {
        use git_gate::config::{Excused, Outcome};
        if operation.outcome == Outcome::Refused {
            return Vec::new();
        }
        let is_used = |fingerprint: &str| {
            let excused =
                |f: &git_gate::config::Finding| f.excused == Some(Excused::Exception) && f.fingerprint == fingerprint;
            operation.findings.iter().any(excused)
        };
        let once = |(id, change): &(&str, &Change)| match change {
            Change::Finding { fingerprint } => state::term(&self.queue, id) == Some(Term::Once) && is_used(fingerprint),
            Change::Hosts { .. } | Change::Route(_) | Change::Dockerfile { .. } => false,
        };
        state::in_force(&self.queue).filter(once).map(|(id, _)| id.to_owned()).collect()
    }
}

/// A name that a list's entry covers: of a wildcard one that nobody has.
fn name_under(host: &str) -> String {
    match host.strip_prefix("*.") {
        Some(below) => format!("probe-{:016x}.{below}", random()),
        None => host.to_owned(),
    }
}

/// Different every time; nothing hangs on its being hard to guess.
fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// A feed without the lines that are these.
fn without(feed: &[u8], line: &[u8]) -> zeroize::Zeroizing<Vec<u8>> {
    let lines = feed.split_inclusive(|byte| *byte == b'\n').filter(|kept| *kept != line);
    zeroize::Zeroizing::new(lines.flatten().copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_probed_below_it_and_never_twice_the_same() {
        assert_eq!(name_under("a.example"), "a.example");
        let [one, two] = [name_under("*.a.example"), name_under("*.a.example")];
        assert!(one.starts_with("probe-") && one.ends_with(".a.example") && one != two, "{one} {two}");
    }

    #[test]
    fn a_line_is_taken_out_of_a_feed_and_nothing_else() {
        for (feed, left) in [("a\nb\nc\n", "a\nc\n"), ("b\nb\n", ""), ("ab\n", "ab\n"), ("", "")] {
            assert_eq!(without(feed.as_bytes(), b"b\n").as_slice(), left.as_bytes(), "{feed:?}");
        }
    }
}
