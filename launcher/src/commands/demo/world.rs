//! The demo's world on the engine: a network in the benchmark range (RFC 2544), which no router carries and which
//! pipelock counts as public, so that its guard against private addresses stays real; and four hosts on it.

use crate::control::{self, Sidecar};
use crate::engine::{ContainerSpec, Engine, EngineFacts, Kind, NetworkMode, NetworkSpec, Owner, Seccomp, Step, Subnet};
use crate::error::{Failure, chain};
use crate::log::{LogFile, LogLine};
use crate::plan::Undo;
use crate::state::{self, Session, StateRoot, read_limited};
use crate::stop;
use crate::undo::{Saver, UndoStack};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// The host on the bottle's allowlist.
pub const ALLOWED: &str = "files.world.example";
/// The host behind the bottle's route.
pub const ROUTED: &str = "api.world.example";
/// The host behind the bottle's remote: a small forge.
pub const FORGE: &str = "forge.world.example";
/// Further names of the API's host: the forge, and for tests replies written byte by byte, and an npm registry.
const BESIDE: [&str; 3] = [FORGE, NEVER, ASKED];
/// The one that the demo's agent asks for, and its operator allows.
pub const ASKED: &str = "npm.world.example";
/// One beside it, which nobody asks for.
pub const NEVER: &str = "wire.world.example";
/// The host that nobody allowed.
pub const ATTACKER: &str = "attacker.world.example";

/// Places in the world's subnet.
pub const API_PLACE: u32 = 10;
/// The attacker's host.
pub const ATTACKER_PLACE: u32 = 11;
/// A resolver that writes down what it is asked.
pub const RESOLVER_PLACE: u32 = 12;
/// A server that stands for another bottle's.
pub const NEIGHBOUR_PLACE: u32 = 13;

/// The first of the world's possible subnets, and how many follow it in 198.18.0.0/15.
const FIRST: Subnet = Subnet { base: Ipv4Addr::new(198, 18, 0, 0), prefix: 24 };
const SUBNETS: u32 = 512;
/// How often another subnet is tried.
const ATTEMPTS: u32 = 5;

/// What the world is made of: certificates, and what each host is told.
#[derive(Debug, Clone, Deserialize)]
pub struct Minted {
    /// The world's CA.
    pub ca_pem: String,
    /// The credential of its API: it opens nothing else, so it may be looked for everywhere.
    pub canary: String,
    /// The credential's SHA-256, which is all the agent is told of it.
    pub canary_sha256: String,
    /// Role -> its configuration.
    pub roles: BTreeMap<String, serde_json::Value>,
}

/// The running world.
pub struct World {
    session: Session,
    owner: Owner,
    network: String,
    subnet: Subnet,
    hosts: Vec<Sidecar>,
    undo: UndoStack,
}

/// Lets the world's own program make its certificates.
pub fn mint(program: PathBuf) -> Result<Minted, Failure> {
    let failed = |why: String| Failure::launch(format!("the demo's world cannot be made: {why}"), None);
    let output = Command::new(program).arg("mint").stdin(Stdio::null()).output().map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| failed(e.to_string()))
}

impl World {
    /// Makes the network and starts the four hosts, under the name `id`. What fails is taken back.
    pub async fn make<E: Engine>(root: &StateRoot, engine: &E, id: &str, minted: &Minted) -> Result<Self, Failure> {
        let io = |e: std::io::Error| Failure::launch(format!("the world's folder cannot be used: {e}"), None);
        let session = root.claim(id).map_err(io)?;
        let session =
            session.ok_or_else(|| Failure::launch(format!("another {id} is running"), "wait for it".to_owned()))?;
        let owner = Owner { id: id.to_owned(), host: state::host_hash(), state: root.hash(), agent: "demo".to_owned() };
        let network = format!("bottle-{id}-net");
        let mut world = Self { session, owner, network, subnet: FIRST, hosts: Vec::new(), undo: UndoStack::default() };
        for attempt in 0..ATTEMPTS {
            world.subnet = free_subnet(&engine.facts().await?, attempt)?;
            let Err((failure, overlap)) = world.fill(engine, minted).await else { return Ok(world) };
            let left = world.remove(engine).await;
            if !overlap || !left.is_empty() || attempt + 1 == ATTEMPTS {
                world.forget(left.is_empty());
                let message = [vec![failure.message], left].concat().join("; left: ");
                return Err(Failure { message, ..failure });
            }
        }
        Err(Failure::launch("no subnet is free in 198.18.0.0/15", None))
    }

    /// The second part of an error: may another subnet do?
    async fn fill<E: Engine>(&mut self, engine: &E, minted: &Minted) -> Result<(), (Failure, bool)> {
        let io = |e: std::io::Error| (Failure::launch(format!("the world's folder cannot be used: {e}"), None), false);
        let owner = self.owner.clone();
        let specs: Vec<_> = self.specs(&owner);
        let network = NetworkSpec {
            name: self.network().to_owned(),
            role: "world".to_owned(),
            owner: owner.clone(),
            subnet: self.subnet,
            internal: true,
            icc: true,
        };
        use crate::engine::Undo as E;
        let removes = |name: &str| Undo::Engine(E::RemoveContainer { name: name.to_owned(), owner: owner.clone() });
        let undos = vec![
            vec![Undo::Engine(E::RemoveNetwork { name: network.name.clone(), owner: owner.clone() })],
            specs.iter().map(|s| removes(&s.name)).collect(),
        ];
        self.session.dir.record_undos(&owner, &undos).map_err(io)?;
        for stage in undos {
            self.undo.stage();
            stage.into_iter().for_each(|u| self.undo.push(u));
        }
        let made = engine.apply(&Step::CreateNetwork(network)).await;
        made.map_err(|e| (e.kind == Kind::Overlap, e)).map_err(|(overlap, e)| (Failure::from(e), overlap))?;
        let log = Arc::new(LogFile::open(&self.session.dir.log()).map_err(io)?);
        let (_stopper, stop) = stop::channel();
        let started = specs.into_iter().map(|spec| {
            let (log, stop) = (Arc::clone(&log), stop.clone());
            let role = spec.role.trim_start_matches("world-").to_owned();
            let feed = minted.roles.get(&role).map(|c| format!("{c}\n")).unwrap_or_default();
            async move {
                let (name, role) = (spec.name.clone(), spec.role.clone());
                engine.apply(&Step::CreateContainer(spec)).await.map_err(Failure::from)?;
                control::bring(engine, &name, &role, feed.as_bytes(), &log, &stop)
                    .await
                    .map_err(|e| Failure::launch(chain(&e), None))
            }
        });
        for host in futures_util::future::join_all(started).await {
            self.hosts.push(host.map_err(|failure| (failure, false))?);
        }
        Ok(())
    }

    fn specs(&self, owner: &Owner) -> Vec<ContainerSpec> {
        let host = |role: &str, place: u32, names: &[&str]| ContainerSpec {
            name: format!("bottle-{}-{role}", owner.id),
            role: format!("world-{role}"),
            owner: owner.clone(),
            image: format!("bottle-demo/world:{}", env!("CARGO_PKG_VERSION")),
            entrypoint: None,
            command: Some(vec![role.to_owned()]),
            env: BTreeMap::new(),
            // Its ports are below 1024, and it has no capability to use them but as root.
            user: "0:0".to_owned(),
            workdir: None,
            network: NetworkMode::On {
                network: self.network().to_owned(),
                address: Some(self.address(place)),
                aliases: names.iter().map(|n| (*n).to_owned()).collect(),
            },
            hosts: BTreeMap::new(),
            dns: false,
            read_only: true,
            tmpfs: BTreeMap::new(),
            volumes: Vec::new(),
            memory_bytes: 256 << 20,
            nano_cpus: 1_000_000_000,
            pids: 64,
            disk_bytes: None,
            runtime: None,
            capabilities: vec!["NET_BIND_SERVICE".to_owned()],
            seccomp: Seccomp::Bottle,
        };
        vec![
            host("api", API_PLACE, &[&[ALLOWED, ROUTED][..], &BESIDE].concat()),
            host("attacker", ATTACKER_PLACE, &[ATTACKER]),
            host("resolver", RESOLVER_PLACE, &[]),
            host("neighbour", NEIGHBOUR_PLACE, &[]),
        ]
    }

    /// The name of the world's network.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// The address of a place.
    pub fn address(&self, place: u32) -> Ipv4Addr {
        self.subnet.address(place)
    }

    /// What the hosts saw: role -> lines.
    pub fn evidence(&self) -> Vec<(String, String)> {
        let log = read_limited(&self.session.dir.log()).unwrap_or_default();
        let lines = log.split(|b| *b == b'\n').filter_map(|l| serde_json::from_slice::<LogLine>(l).ok());
        lines.map(|l| (l.role.trim_start_matches("world-").to_owned(), l.line)).collect()
    }

    /// Ends the hosts and removes everything. Gives what could not be.
    pub async fn take_back<E: Engine>(&mut self, engine: &E) -> Vec<String> {
        let left = self.remove(engine).await;
        self.forget(left.is_empty());
        left
    }

    async fn remove<E: Engine>(&mut self, engine: &E) -> Vec<String> {
        self.hosts.clear();
        self.undo.unwind(engine, &NoWork).await.iter().map(ToString::to_string).collect()
    }

    fn forget(&self, clean: bool) {
        if clean {
            // It holds nothing but this world's log.
            let _ = self.session.dir.remove();
        }
    }
}

fn free_subnet(facts: &EngineFacts, attempt: u32) -> Result<Subnet, Failure> {
    let taken: Vec<Subnet> = facts.networks.values().flatten().copied().collect();
    // Several worlds at once begin at different places.
    let start = std::process::id().wrapping_add(attempt * 17);
    (0..SUBNETS)
        .map(|n| (n.wrapping_add(start)) % SUBNETS)
        .map(|n| Subnet { base: Ipv4Addr::from(u32::from(FIRST.base) + (n << 8)), prefix: FIRST.prefix })
        .find(|s| !taken.iter().any(|t| t.overlaps(*s)))
        .ok_or_else(|| Failure::launch("no subnet is free in 198.18.0.0/15", None))
}

/// The world has no workspace.
struct NoWork;

impl Saver for NoWork {
    async fn save(&self, _container: &str) -> Result<(), String> {
        Ok(())
    }
}
