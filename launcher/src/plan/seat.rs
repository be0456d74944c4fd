//! The seats of route-pipelock on the routes' network. One is taken at a time; while another policy takes over, the one
//! before sits on until its streams have ended. Pure.

use super::sidecar::{PIPELOCK_PORT, ROUTE_PIPELOCK};
use super::{Action, Addresses, Names, Order, Plan, PlanError, Stage, bring, sidecar};
use crate::engine::Subnet;
use std::net::Ipv4Addr;

/// How many there are: one that is in force, and three whose streams have not ended yet.
const SEATS: u32 = 4;
/// The first one's place in the network; cred-proxy and git-gate follow it.
const FIRST: u32 = 2;
/// The place of the second.
const SECOND: u32 = 5;

/// A seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat(u32);

impl Seat {
    /// Where a bottle begins.
    pub const LAUNCH: Self = Self(0);

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SEATS).map(Self)
    }

    /// The one in force in a bottle with these addresses.
    pub fn of(addresses: &Addresses) -> Self {
        Self::all().find(|seat| seat.address(addresses.routes) == addresses.route_pipelock).unwrap_or(Self::LAUNCH)
    }

    /// Its address.
    pub fn address(self, routes: Subnet) -> Ipv4Addr {
        routes.address(if self == Self::LAUNCH { FIRST } else { SECOND + self.0 - 1 })
    }

    /// Its role.
    pub fn role(self) -> String {
        if self == Self::LAUNCH { ROUTE_PIPELOCK.to_owned() } else { format!("{ROUTE_PIPELOCK}-{}", self.0 + 1) }
    }

    /// Its container in bottle `id`.
    pub fn container(self, id: &str) -> String {
        format!("bottle-{id}-{}", self.role())
    }

    /// Is this the role of a route-pipelock, on whichever seat?
    pub fn is_role(role: &str) -> bool {
        Self::all().any(|seat| seat.role() == role)
    }

    /// These addresses with this seat in force.
    pub fn in_force(self, addresses: &Addresses) -> Addresses {
        Addresses { route_pipelock: self.address(addresses.routes), ..addresses.clone() }
    }
}

/// The proxy that cred-proxy and git-gate go out by. The seat of the launch has its name in their containers, written when
/// they were made; the others have their addresses.
pub fn proxy(addresses: &Addresses) -> String {
    match Seat::of(addresses) {
        Seat::LAUNCH => format!("http://{ROUTE_PIPELOCK}:{PIPELOCK_PORT}"),
        _ => format!("http://{}:{PIPELOCK_PORT}", addresses.route_pipelock),
    }
}

/// What brings a route-pipelock with the policy of `order` to another seat of a bottle that runs: a plan of it alone, with
/// that seat in force.
pub fn takeover(running: &Plan, order: &Order, seat: Seat) -> Result<Plan, PlanError> {
    let addresses = seat.in_force(&running.addresses);
    let names = Names::of(&running.owner.id).seated(seat);
    let policy = sidecar::route_pipelock_policy(order, &addresses)?;
    let made = sidecar::route_pipelock(order, &addresses, &names);
    Ok(Plan {
        stages: vec![
            Stage { name: "another route-pipelock".to_owned(), lanes: vec![made] },
            Stage { name: "compare".to_owned(), lanes: vec![vec![Action::Compare]] },
            Stage { name: "start".to_owned(), lanes: vec![vec![bring(&names.route_pipelock, &seat.role())]] },
        ],
        route_pipelock: Some(pipelock_config::render(&policy)),
        addresses,
        ..running.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seat_has_a_name_and_an_address_of_its_own_and_none_is_of_another_sidecar() {
        let routes = Subnet { base: Ipv4Addr::new(10, 0, 0, 32), prefix: 28 };
        let mut addresses: Vec<_> = Seat::all().map(|seat| seat.address(routes)).collect();
        let mut roles: Vec<_> = Seat::all().map(Seat::role).collect();
        assert_eq!(roles, ["route-pipelock", "route-pipelock-2", "route-pipelock-3", "route-pipelock-4"]);
        assert!(roles.iter().all(|role| Seat::is_role(role)));
        for other in ["pipelock", "route-pipelock-1", "route-pipelock-5", "route-pipelock-", "cred-proxy"] {
            assert!(!Seat::is_role(other), "{other}");
        }
        assert_eq!(addresses[0], Ipv4Addr::new(10, 0, 0, 34));
        for taken in [3, 4].map(|place| routes.address(place)) {
            assert!(!addresses.contains(&taken), "{taken} is cred-proxy's or git-gate's");
        }
        addresses.dedup();
        roles.dedup();
        assert_eq!((addresses.len(), roles.len()), (4, 4));
    }
}
