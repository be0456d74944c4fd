//! What the engine made, against what was planned. An engine may give a network another subnet, lose an address, or
//! leave out an option that it does not know, all without an error: nothing starts before this has been looked at.

use crate::engine::{NetworkMode, Observed};
use crate::plan::{Action, Plan};

/// The differences between plan and engine, as sentences; none is what a launch needs. Pure.
pub fn differences(plan: &Plan, observed: &Observed) -> Vec<String> {
    let mut found = Vec::new();
    let (networks, containers) = plan.made();
    for spec in networks {
        let same: Vec<_> = observed.networks.iter().filter(|n| n.name == spec.name).collect();
        let [network] = same.as_slice() else {
            found.push(format!("{} networks are called {}", same.len(), spec.name));
            continue;
        };
        if network.subnets != [spec.subnet] {
            found.push(format!("network {} has subnets {:?}, not {}", spec.name, network.subnets, spec.subnet));
        }
        if network.internal != spec.internal || (spec.internal && !network.isolated) {
            found.push(format!("network {} is not internal and closed to the host as it should be", spec.name));
        }
        if network.icc != spec.icc {
            found.push(format!("network {} lets containers talk: {}, not {}", spec.name, network.icc, spec.icc));
        }
        if network.owner != spec.owner {
            found.push(format!("network {} belongs to another bottle", spec.name));
        }
    }
    for spec in containers {
        let same: Vec<_> = observed.containers.iter().filter(|c| c.name == spec.name).collect();
        let [container] = same.as_slice() else {
            found.push(format!("{} containers are called {}", same.len(), spec.name));
            continue;
        };
        let mut expected = Vec::new();
        if let NetworkMode::On { network, address, .. } = &spec.network {
            expected.push((network, *address));
        }
        for action in plan.stages.iter().flat_map(|s| &s.lanes).flatten() {
            if let Action::Connect { container, network, address } = action
                && *container == spec.name
            {
                expected.push((network, *address));
            }
        }
        for (network, address) in &expected {
            match container.addresses.get(*network) {
                None => found.push(format!("container {} is not on network {network}", spec.name)),
                Some(got) if address.is_some() && got.is_some() && got != address => {
                    found.push(format!("container {} has another address on network {network}", spec.name));
                }
                Some(_) => {}
            }
        }
        for network in container.addresses.keys().filter(|n| !expected.iter().any(|(e, _)| e == n)) {
            found.push(format!("container {} is on network {network}, which the plan does not say", spec.name));
        }
    }
    found
}
