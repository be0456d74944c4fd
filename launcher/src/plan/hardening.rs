//! What every container of a bottle has in common. A container that needs something else says so where it is planned.

use super::Order;
use crate::engine::{ContainerSpec, NetworkMode, Seccomp};
use std::collections::BTreeMap;

/// The user of every sidecar of ours but pipelock, which runs as `bottle-init`'s.
pub const SIDECAR_USER: &str = "64998:64998";
/// The same as a number.
pub const SIDECAR_UID: u32 = 64_998;
/// Memory of a sidecar in bytes.
const SIDECAR_MEMORY_BYTES: u64 = 512 << 20;
/// Processors of a sidecar in billionths.
const SIDECAR_NANO_CPUS: u64 = 2_000_000_000;
/// Processes and threads of a sidecar.
const SIDECAR_PIDS: u64 = 256;

/// A sidecar with nothing writable, no names, no DNS and no way out; its place on a network is the caller's.
pub fn sidecar(order: &Order, name: &str, role: &str, image: &str, network: NetworkMode) -> ContainerSpec {
    ContainerSpec {
        name: name.to_owned(),
        role: role.to_owned(),
        owner: order.owner.clone(),
        image: image.to_owned(),
        entrypoint: None,
        command: None,
        env: BTreeMap::new(),
        user: SIDECAR_USER.to_owned(),
        workdir: None,
        network,
        hosts: BTreeMap::new(),
        dns: false,
        read_only: true,
        tmpfs: BTreeMap::new(),
        volumes: Vec::new(),
        memory_bytes: SIDECAR_MEMORY_BYTES,
        nano_cpus: SIDECAR_NANO_CPUS,
        pids: SIDECAR_PIDS,
        disk_bytes: None,
        runtime: None,
        capabilities: Vec::new(),
        seccomp: Seccomp::Bottle,
    }
}
