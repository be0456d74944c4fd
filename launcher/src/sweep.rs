//! Taking back what a dead keeper left. Pure: what the engine holds, what keepers wrote down, and who lives go in;
//! what to undo comes out. A label alone never selects anything: it must also be in a plan that was written down here.

use crate::engine::Observed;
use crate::plan::Undo;
use crate::state::Recorded;
use std::collections::{BTreeMap, BTreeSet};

/// What a sweep will do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Dead bottles: id -> what to take back, stage by stage in the order it was made.
    pub dead: BTreeMap<String, Vec<Vec<Undo>>>,
    /// Objects that carry our labels and are in no plan of a dead bottle: named to the operator, never removed.
    pub strangers: Vec<String>,
}

/// Decides what to take back.
pub fn sweep(observed: &Observed, recorded: &BTreeMap<String, Recorded>, living: &BTreeSet<String>) -> Sweep {
    let mut sweep = Sweep::default();
    for (id, record) in recorded {
        if !living.contains(id) {
            // All of the record, seen or not: undoing what is not there costs a look and misses nothing.
            sweep.dead.insert(id.clone(), record.undos.clone());
        }
    }
    let names = |recorded: &Recorded| recorded.undos.iter().flatten().filter_map(name_of).collect::<BTreeSet<_>>();
    let known: BTreeMap<&String, BTreeSet<String>> = recorded.iter().map(|(id, r)| (id, names(r))).collect();
    let containers = observed.containers.iter().map(|c| (&c.name, &c.owner));
    let networks = observed.networks.iter().map(|n| (&n.name, &n.owner));
    for (name, owner) in containers.chain(networks) {
        let planned = known.get(&owner.id).is_some_and(|names| names.contains(name));
        if !planned && !living.contains(&owner.id) {
            sweep.strangers.push(name.clone());
        }
    }
    sweep
}

fn name_of(undo: &Undo) -> Option<String> {
    use crate::engine::Undo as E;
    match undo {
        Undo::SaveWorkspace { .. } | Undo::Engine(E::RemoveImage { .. }) => None,
        Undo::Network { name, .. } | Undo::Engine(E::RemoveContainer { name, .. } | E::RemoveNetwork { name, .. }) => {
            Some(name.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{ObservedContainer, Owner};

    fn owner(id: &str) -> Owner {
        Owner { id: id.to_owned(), host: "h".to_owned(), state: "s".to_owned(), agent: "a".to_owned() }
    }

    fn container(id: &str, name: &str) -> ObservedContainer {
        let addresses = BTreeMap::new();
        ObservedContainer {
            name: name.to_owned(),
            role: "agent".to_owned(),
            owner: owner(id),
            running: false,
            addresses,
        }
    }

    fn record(id: &str, name: &str) -> (String, Recorded) {
        let undo = crate::engine::Undo::RemoveContainer { name: name.to_owned(), owner: owner(id) };
        (id.to_owned(), Recorded { owner: owner(id), undos: vec![vec![Undo::Engine(undo)]] })
    }

    #[test]
    fn only_what_a_dead_keeper_wrote_down_is_taken_back() {
        let observed = Observed {
            containers: vec![
                container("dead", "bottle-dead-agent"),
                container("alive", "bottle-alive-agent"),
                container("dead", "somebody-elses"),
                container("unknown", "bottle-unknown-agent"),
            ],
            networks: Vec::new(),
        };
        let recorded = BTreeMap::from([record("dead", "bottle-dead-agent"), record("alive", "bottle-alive-agent")]);
        let living = BTreeSet::from(["alive".to_owned()]);
        let sweep = sweep(&observed, &recorded, &living);
        assert_eq!(sweep.dead.keys().collect::<Vec<_>>(), ["dead"]);
        assert_eq!(sweep.strangers, ["somebody-elses", "bottle-unknown-agent"]);
    }
}
