//! What a clause works in: an engine, an image, names and subnets of its own. Whatever a clause leaves is taken back, and
//! a clause that leaves what cannot be taken back fails.

use bytes::Bytes;
use futures_util::StreamExt;
use launcher::engine::{
    Chunk, ContainerSpec, Engine, EngineError, ExecSpec, Kind, NetworkMode, NetworkSpec, Owner, ScratchImage, Seccomp,
    Step, Streams, Subnet, Undo,
};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::process::Command;

/// Names of the images that the clauses make.
pub const IMAGE: &str = "bottle-t-engine-contract:probe";
pub const DERIVED: &str = "bottle-t-engine-contract:derived";
pub const BUILT: &str = "bottle-t-engine-contract:built";

const HOST: &str = "bottle-t-engine";

pub type Clause<E> = (&'static str, fn(World<E>) -> Pin<Box<dyn Future<Output = ()> + Send>>);

#[derive(Clone)]
pub struct World<E> {
    pub engine: E,
    pub image: ScratchImage,
    number: usize,
}

/// The static program.
pub fn probe() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("probe");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engine_contract/probe.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let status = Command::new(rustc)
        .args(["--edition=2024", "-O", "-Ctarget-feature=+crt-static", "-Cstrip=symbols", "-o"])
        .arg(&program)
        .arg(source)
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::read(program).unwrap()
}

impl<E: Engine + Clone> World<E> {
    pub async fn new(engine: E, program: Vec<u8>) -> Self {
        let image = ScratchImage {
            tag: IMAGE.to_owned(),
            aliases: Vec::new(),
            files: BTreeMap::from([
                ("/probe".to_owned(), (0o755, Bytes::from(program))),
                ("/etc/passwd".to_owned(), (0o644, Bytes::from_static(b"ada:x:1000:1000::/:/probe\n"))),
            ]),
            owned: BTreeMap::new(),
            entrypoint: vec!["/probe".to_owned()],
            command: vec!["agent".to_owned()],
            user: "1000:1000".to_owned(),
            labels: BTreeMap::new(),
        };
        let world = Self { engine, image, number: 0 };
        world.engine.load(&world.image).await.unwrap();
        world
    }

    /// Runs clauses one after another; all of them, whatever fails.
    pub async fn run(self, clauses: Vec<Clause<E>>) {
        let mut failed = Vec::new();
        for (number, (name, clause)) in clauses.into_iter().enumerate() {
            println!("clause: {name}");
            let world = Self { number: number + 1, ..self.clone() };
            if tokio::spawn(clause(world.clone())).await.is_err() {
                failed.push(name);
            }
            world.sweep().await;
        }
        assert!(failed.is_empty(), "clauses that failed: {failed:?}");
    }

    async fn sweep(&self) {
        for state in [self.owner(), self.stranger()].map(|owner| owner.state) {
            let seen = self.engine.observe(HOST, &state).await.unwrap();
            for container in seen.containers {
                self.engine
                    .undo(&Undo::RemoveContainer { name: container.name, owner: container.owner })
                    .await
                    .unwrap();
            }
            for network in seen.networks {
                self.engine.undo(&Undo::RemoveNetwork { name: network.name, owner: network.owner }).await.unwrap();
            }
            let left = self.engine.observe(HOST, &state).await.unwrap();
            assert_eq!((left.containers.len(), left.networks.len()), (0, 0));
        }
    }

    pub fn name(&self, what: &str) -> String {
        format!("bottle-t-engine-{}-{}-{what}", std::process::id(), self.number)
    }

    pub fn owner(&self) -> Owner {
        Owner { id: self.name("id"), host: HOST.to_owned(), state: self.name("state"), agent: "ada".to_owned() }
    }

    /// Someone else on the same host.
    pub fn stranger(&self) -> Owner {
        Owner { state: self.name("other"), ..self.owner() }
    }

    /// A subnet for each clause and number up to 15.
    pub fn subnet(&self, number: u32) -> Subnet {
        let of_process = std::process::id() % 16;
        let third = (of_process << 4) | (u32::try_from(self.number).unwrap() & 15);
        let high = 200 + u32::try_from(self.number).unwrap() / 16;
        let base = (10 << 24) | (high << 16) | (third << 8) | (number << 4);
        Subnet { base: Ipv4Addr::from(base), prefix: 28 }
    }

    pub fn network(&self, what: &str, number: u32) -> NetworkSpec {
        NetworkSpec {
            name: self.name(what),
            role: what.to_owned(),
            owner: self.owner(),
            subnet: self.subnet(number),
            internal: true,
            icc: true,
        }
    }

    /// A container without a network, that is ready at once and ends with its input.
    pub fn container(&self, what: &str) -> ContainerSpec {
        ContainerSpec {
            name: self.name(what),
            role: "agent".to_owned(),
            owner: self.owner(),
            image: IMAGE.to_owned(),
            entrypoint: None,
            command: None,
            env: BTreeMap::from([("RESTS".to_owned(), "here".to_owned())]),
            user: "1000:1000".to_owned(),
            workdir: None,
            network: NetworkMode::None,
            hosts: BTreeMap::new(),
            dns: false,
            read_only: false,
            tmpfs: BTreeMap::new(),
            volumes: Vec::new(),
            memory_bytes: 256 << 20,
            nano_cpus: 1_000_000_000,
            pids: 64,
            disk_bytes: None,
            runtime: None,
            capabilities: Vec::new(),
            seccomp: Seccomp::Bottle,
        }
    }

    pub async fn create(&self, spec: ContainerSpec) -> String {
        let name = spec.name.clone();
        self.engine.apply(&Step::CreateContainer(spec)).await.unwrap();
        name
    }

    pub async fn start(&self, container: &str) -> Result<(), EngineError> {
        self.engine.apply(&Step::Start { container: container.to_owned() }).await
    }

    /// A container that is attached, started and ready.
    pub async fn running(&self, spec: ContainerSpec) -> (String, Streams) {
        let name = self.create(spec).await;
        let mut streams = self.engine.attach(&name).await.unwrap();
        self.start(&name).await.unwrap();
        assert_eq!(read(&mut streams, "ready\n").await, "bottle-init: ready\n");
        (name, streams)
    }

    pub fn exec(&self, container: &str, argv: &[&str]) -> ExecSpec {
        ExecSpec {
            container: container.to_owned(),
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            env: Vec::new(),
            user: "1000:1000".to_owned(),
            workdir: None,
            tty: None,
        }
    }

    pub async fn remove_container(&self, name: &str, owner: Owner) -> Result<(), EngineError> {
        self.engine.undo(&Undo::RemoveContainer { name: name.to_owned(), owner }).await
    }

    pub async fn remove_network(&self, name: &str, owner: Owner) -> Result<(), EngineError> {
        self.engine.undo(&Undo::RemoveNetwork { name: name.to_owned(), owner }).await
    }

    /// What is left of both owners, by name.
    pub async fn left(&self) -> Vec<String> {
        let mut names = Vec::new();
        for state in [self.owner(), self.stranger()].map(|owner| owner.state) {
            let seen = self.engine.observe(HOST, &state).await.unwrap();
            names.extend(seen.containers.into_iter().map(|c| c.name));
            names.extend(seen.networks.into_iter().map(|n| n.name));
        }
        names.sort();
        names
    }
}

/// Reads output until it ends with `end`, or ends.
pub async fn read(streams: &mut Streams, end: &str) -> String {
    let mut text = Vec::new();
    while let Some(chunk) = streams.output.next().await {
        match chunk.unwrap() {
            Chunk::Out(bytes) | Chunk::Err(bytes) => text.extend_from_slice(&bytes),
        }
        if !end.is_empty() && text.ends_with(end.as_bytes()) {
            break;
        }
    }
    String::from_utf8(text).unwrap()
}

pub fn kind<T>(answer: Result<T, EngineError>) -> Kind {
    match answer {
        Ok(_) => panic!("it succeeded"),
        Err(e) => e.kind,
    }
}
