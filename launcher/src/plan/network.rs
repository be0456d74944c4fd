//! Subnets and addresses. Three /28 a bottle, side by side, looked for from a hash of the bottle's id, so that many
//! launchers on one engine rarely ask for the same ones; what the engine already has is skipped.

use super::seat::Seat;
use super::{Action, Addresses, Facts, Names, Order, PlanError};
use crate::engine::{EngineFacts, NetworkSpec, Subnet};
use sha2::{Digest, Sha256};

/// Prefix of each network: room for 13 containers and the gateway's address.
const PREFIX: u8 = 28;
const SIZE: u32 = 1 << (32 - PREFIX);
/// internal, egress, routes.
const NETWORKS: u32 = 3;

// Places inside a network; the first address is the gateway's, also where no host answers at it.
const PIPELOCK: u32 = 2;
const CRED_PROXY: u32 = 3;
const GIT_GATE: u32 = 4;
const SUPERVISE: u32 = 5;
const AGENT: u32 = 6;

/// Chooses the bottle's subnets and everybody's address.
pub fn addresses(order: &Order, facts: &Facts) -> Result<Addresses, PlanError> {
    let pool = order.subnet_pool;
    let taken: Vec<Subnet> = facts.engine.iter().flat_map(|e| e.networks.values().flatten().copied()).collect();
    let blocks = blocks(pool);
    let exhausted = PlanError::SubnetsExhausted { pool };
    if blocks == 0 {
        return Err(exhausted);
    }
    let start = seed(&order.owner.id, &order.owner.state) + u64::from(order.attempt) * 7;
    let free = (0..blocks)
        .map(|n| block(pool, (start.wrapping_add(n)) % blocks))
        .find(|nets| nets.iter().all(|net| !taken.iter().any(|t| t.overlaps(*net))));
    let [internal, egress, routes] = free.ok_or(exhausted)?;
    let egress = match &order.bottle.egress.network {
        None => Some(egress),
        Some(name) => {
            if facts.engine.as_ref().is_some_and(|e| !e.networks.contains_key(name)) {
                return Err(PlanError::NoNetwork { name: name.clone() });
            }
            None
        }
    };
    Ok(Addresses {
        internal,
        egress,
        routes,
        pipelock: internal.address(PIPELOCK),
        cred_proxy: internal.address(CRED_PROXY),
        git_gate: internal.address(GIT_GATE),
        supervise: internal.address(SUPERVISE),
        agent: internal.address(AGENT),
        route_pipelock: Seat::LAUNCH.address(routes),
        cred_proxy_routes: routes.address(CRED_PROXY),
        git_gate_routes: routes.address(GIT_GATE),
    })
}

/// How many bottles find room in a pool beside what an engine has.
pub fn free_blocks(pool: Subnet, facts: &EngineFacts) -> u64 {
    let taken: Vec<Subnet> = facts.networks.values().flatten().copied().collect();
    let free = |nets: &[Subnet; 3]| nets.iter().all(|net| !taken.iter().any(|t| t.overlaps(*net)));
    (0..blocks(pool)).map(|n| block(pool, n)).filter(free).count() as u64
}

/// How many bottles a pool has room for.
fn blocks(pool: Subnet) -> u64 {
    (1u64 << (32 - u32::from(pool.prefix))) / u64::from(SIZE * NETWORKS)
}

/// The networks to create, each in a lane of its own.
pub fn created(order: &Order, addresses: &Addresses, names: &Names) -> Vec<Vec<Action>> {
    let mut lanes = vec![network(order, &names.internal, "internal", addresses.internal, true)];
    if let Some(egress) = addresses.egress {
        lanes.push(network(order, &names.egress, "egress", egress, false));
    }
    if order.bottle.needs_route_pipelock() {
        lanes.push(routes(order, addresses, names));
    }
    lanes
}

/// The network between cred-proxy, git-gate and route-pipelock.
pub fn routes(order: &Order, addresses: &Addresses, names: &Names) -> Vec<Action> {
    network(order, &names.routes, "routes", addresses.routes, true)
}

fn network(order: &Order, name: &str, role: &str, subnet: Subnet, internal: bool) -> Vec<Action> {
    vec![Action::Network(NetworkSpec {
        name: name.to_owned(),
        role: role.to_owned(),
        owner: order.owner.clone(),
        subnet,
        internal,
        // Nothing of one bottle has business with anything else on its way out: no traffic between containers there.
        icc: internal,
    })]
}

fn block(pool: Subnet, n: u64) -> [Subnet; NETWORKS as usize] {
    let first = u32::try_from(n).unwrap_or(u32::MAX).wrapping_mul(SIZE * NETWORKS);
    let net = |i: u32| Subnet { base: pool.address(first.wrapping_add(i * SIZE)), prefix: PREFIX };
    [net(0), net(1), net(2)]
}

fn seed(id: &str, state: &str) -> u64 {
    let hash = Sha256::new().chain_update(state).chain_update([0]).chain_update(id).finalize();
    hash.iter().take(6).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}
