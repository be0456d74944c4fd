//! The bottle as it is now: what it was launched with, and what was granted and taken back since. Pure.

use crate::manifest::Route;
use crate::manifest::host::HostPattern;
use crate::plan::Order;
use std::collections::{BTreeMap, BTreeSet};
use supervise::check::Known;
use supervise::queue::{Digest, Queue, State, Term};
use supervise::wire::Change;

/// What the operator did beyond what the queue knows.
#[derive(Debug, Clone, Default)]
pub struct Beyond {
    /// Entries of the manifest's allowlist that were taken back.
    pub closed: BTreeSet<HostPattern>,
    /// Routes by the proposal or grant that they came by, with their credentials' sources.
    pub routes: BTreeMap<String, Route>,
    /// Paths of those that are for one request.
    pub once: BTreeSet<String>,
}

/// The bottle with everything that is in force, but for what `without` names.
pub fn now(base: &Order, queue: &Queue, beyond: &Beyond, without: Option<&str>) -> Order {
    let mut order = base.clone();
    let allowlist = &mut order.bottle.egress.allowlist;
    allowlist.retain(|pattern| !beyond.closed.contains(pattern));
    for (id, change) in in_force(queue).filter(|(id, _)| Some(*id) != without) {
        match change {
            Change::Hosts { hosts } => hosts.iter().for_each(|host| add(&mut order, host)),
            Change::Route(_) => order.bottle.routes.extend(beyond.routes.get(id).cloned()),
            Change::Finding { .. } | Change::Dockerfile { .. } => {}
        }
    }
    order
}

/// Puts a host on an order's allowlist. One that is no pattern was never checked, and opens nothing.
pub fn add(order: &mut Order, host: &str) {
    let allowlist = &mut order.bottle.egress.allowlist;
    if let Ok(pattern) = HostPattern::parse(host)
        && !allowlist.contains(&pattern)
    {
        allowlist.push(pattern);
    }
}

/// What is in force by a person's word, by its proposal or grant.
pub fn in_force(queue: &Queue) -> impl Iterator<Item = (&str, &Change)> {
    queue.entries().filter_map(|entry| match &entry.state {
        State::InForce { change, .. } => Some((entry.proposal.id.as_str(), change)),
        _ => None,
    })
}

/// The term of what is in force.
pub fn term(queue: &Queue, id: &str) -> Option<Term> {
    match queue.entry(id)?.state {
        State::InForce { term, .. } => Some(term),
        _ => None,
    }
}

/// What an ask is held against.
pub fn known(order: &Order, dockerfile: Option<String>) -> Known {
    let bottle = &order.bottle;
    let remote_hosts = bottle.git.remotes.iter().map(|remote| remote.upstream.host());
    Known {
        own_names: vec![order.owner.id.clone(), "agent".to_owned()],
        route_hosts: bottle.routes.iter().map(|route| route.upstream.host.to_string()).collect(),
        // What the operator said may be reached directly too is no reason to refuse.
        remote_hosts: remote_hosts
            .filter(|host| !bottle.egress.also_direct.contains(host))
            .map(ToString::to_string)
            .collect(),
        allowlist: bottle.egress.allowlist.iter().map(ToString::to_string).collect(),
        routes: bottle.routes.iter().map(super::super::current::route).collect(),
        image: crate::plan::agent::base_image(order),
        dockerfile,
    }
}

/// The digest of all that a verdict may change.
pub fn base(order: &Order, queue: &Queue) -> Digest {
    let bottle = &order.bottle;
    let granted: Vec<(&str, &Change)> = in_force(queue).collect();
    Digest::of_data(&(&bottle.egress, &bottle.routes, &bottle.git, granted))
}
