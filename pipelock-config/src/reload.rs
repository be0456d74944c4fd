//! Can a running pipelock take a new policy, or must it start again?
//!
//! Two things speak for a restart: what strict mode refuses as a downgrade (it then keeps the *whole* old file), and what
//! pipelock would take but not apply to tunnels that are already open.

use crate::policy::{Policy, covers};
use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

/// How a new policy gets into a running pipelock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// By writing the file; no open stream drops.
    Hot,
    /// Only by starting pipelock again.
    Restart(Reason),
}

/// Why it must start again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Listeners are bound at the start.
    Listen {
        /// Where it listens.
        old: SocketAddr,
        /// Where it would.
        new: SocketAddr,
    },
    /// Who it serves, and with that which headers are looked into, is another.
    Client,
    /// Strict mode refuses more passed-through hosts.
    PassthroughAdded(Vec<String>),
    /// Strict mode refuses more hosts that may be private.
    PrivateAdded(Vec<String>),
    /// Strict mode refuses more addresses exempt from the SSRF check.
    AddressesAdded(Vec<String>),
    /// Something was taken away, and tunnels that are open would keep it.
    Revoked(Vec<String>),
}

/// Says how `new` gets into a pipelock that runs with `old`.
pub fn reload_allowed(old: &Policy, new: &Policy) -> Reload {
    if old.listen() != new.listen() {
        return Reload::Restart(Reason::Listen { old: old.listen(), new: new.listen() });
    }
    if old.client() != new.client() {
        return Reload::Restart(Reason::Client);
    }
    // Pipelock compares these lists by their entries, not by what the entries cover.
    for (added, reason) in [
        (beyond(new.passthrough(), old.passthrough()), Reason::PassthroughAdded as fn(Vec<String>) -> Reason),
        (beyond(new.trusted(), old.trusted()), Reason::PrivateAdded),
        (beyond(new.addresses(), old.addresses()), Reason::AddressesAdded),
    ] {
        if !added.is_empty() {
            return Reload::Restart(reason(added));
        }
    }
    let mut revoked: Vec<String> = old
        .allowlist()
        .iter()
        .filter(|host| !new.allowlist().iter().any(|pattern| covers(pattern, host)))
        .cloned()
        .collect();
    revoked.extend(beyond(old.passthrough(), new.passthrough()));
    revoked.extend(beyond(old.trusted(), new.trusted()));
    revoked.extend(beyond(old.addresses(), new.addresses()));
    // A further one needs no start: strict mode does not ask, and a tunnel that is open goes on refusing it.
    revoked.extend(beyond(old.credential_headers(), new.credential_headers()));
    revoked.sort();
    revoked.dedup();
    if revoked.is_empty() { Reload::Hot } else { Reload::Restart(Reason::Revoked(revoked)) }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { old, new } => write!(f, "it listens on {old} and would have to on {new}"),
            Self::Client => f.write_str("it looks into other headers for another client"),
            Self::PassthroughAdded(hosts) => {
                write!(f, "strict mode takes no further host whose TLS is not opened: {}", hosts.join(", "))
            }
            Self::PrivateAdded(hosts) => {
                write!(f, "strict mode takes no further host that may be private: {}", hosts.join(", "))
            }
            Self::AddressesAdded(addresses) => {
                write!(f, "strict mode takes no further private address: {}", addresses.join(", "))
            }
            Self::Revoked(what) => write!(f, "open tunnels would keep what is taken away: {}", what.join(", ")),
        }
    }
}

fn beyond<T: Ord + ToString>(these: &BTreeSet<T>, those: &BTreeSet<T>) -> Vec<String> {
    these.difference(those).map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{AgentPolicy, RoutePolicy, Sidecar};

    fn base() -> AgentPolicy {
        AgentPolicy {
            listen: "10.0.0.2:8888".parse().unwrap(),
            allowlist: vec!["a.example".into(), "b.example".into()],
            passthrough: vec!["b.example".into()],
            allow_private: vec!["b.example".into()],
            sidecars: vec![Sidecar { name: "cred-proxy".into(), address: "10.0.0.3".parse().unwrap() }],
            agent_credentials: false,
        }
    }

    fn asked(change: impl FnOnce(&mut AgentPolicy)) -> Reload {
        let mut new = base();
        change(&mut new);
        reload_allowed(&Policy::for_agent(base()).unwrap(), &Policy::for_agent(new).unwrap())
    }

    #[test]
    fn hosts_are_added_hot() {
        assert_eq!(asked(|_| {}), Reload::Hot);
        assert_eq!(asked(|p| p.allowlist.push("c.example".into())), Reload::Hot);
        assert_eq!(asked(|p| p.allowlist.push("*.c.example".into())), Reload::Hot);
        assert_eq!(asked(|p| p.allowlist = vec!["*.example".into()]), Reload::Hot, "covers all that was there");
    }

    #[test]
    fn the_first_host_of_an_empty_list_is_added_hot() {
        let mut empty = base();
        empty.allowlist.clear();
        empty.sidecars.clear();
        let mut new = empty.clone();
        new.allowlist = vec!["a.example".into()];
        let [empty, new] = [empty, new].map(|p| Policy::for_agent(p).unwrap());
        assert_eq!(reload_allowed(&empty, &new), Reload::Hot);
    }

    #[test]
    fn a_header_of_a_credential_is_added_hot_and_taken_by_a_restart() {
        let routes = |headers: &[&str]| {
            Policy::for_routes(RoutePolicy {
                listen: base().listen,
                allowlist: vec!["a.example".into()],
                passthrough: Vec::new(),
                allow_private: Vec::new(),
                credential_headers: headers.iter().map(|h| (*h).to_owned()).collect(),
            })
            .unwrap()
        };
        let (one, two) = (routes(&["Authorization"]), routes(&["Authorization", "X-Odd"]));
        assert_eq!(reload_allowed(&one, &two), Reload::Hot);
        assert_eq!(reload_allowed(&two, &one), Reload::Restart(Reason::Revoked(vec!["X-Odd".to_owned()])));
    }

    #[test]
    fn a_restart_is_asked_for_with_its_reason() {
        let restart = |reload| match reload {
            Reload::Restart(reason) => reason,
            Reload::Hot => panic!("taken hot"),
        };
        let one = |text: &str| vec![text.to_owned()];
        let further = Sidecar { name: "supervise".into(), address: "10.0.0.4".parse().unwrap() };
        for (reload, expected) in [
            (asked(|p| p.passthrough.push("a.example".into())), Reason::PassthroughAdded(one("a.example"))),
            (asked(|p| p.allow_private.push("a.example".into())), Reason::PrivateAdded(one("a.example"))),
            (asked(|p| p.sidecars.push(further)), Reason::AddressesAdded(one("10.0.0.4"))),
            (asked(|p| p.agent_credentials = true), Reason::Client),
            (asked(|p| drop(p.allowlist.remove(0))), Reason::Revoked(one("a.example"))),
            (asked(|p| p.passthrough.clear()), Reason::Revoked(one("b.example"))),
            (asked(|p| p.allow_private.clear()), Reason::Revoked(one("b.example"))),
            (asked(|p| p.sidecars.clear()), Reason::Revoked(vec!["10.0.0.3".to_owned(), "cred-proxy".to_owned()])),
            (
                asked(|p| p.listen.set_port(8889)),
                Reason::Listen { old: base().listen, new: "10.0.0.2:8889".parse().unwrap() },
            ),
        ] {
            assert_eq!(restart(reload), expected);
        }
    }
}
