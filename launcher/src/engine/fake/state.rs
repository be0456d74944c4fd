//! What the engine in memory holds, and the rules of names, networks and ends.

use super::input::Target;
use super::{End, Script, files, roles};
use crate::engine::{
    Chunk, CommitSpec, ContainerSpec, EngineError, EngineFacts, ExecSpec, ImageFacts, Kind, NetworkMode, NetworkSpec,
    Observed, ObservedContainer, ObservedNetwork, Owner, Step, Undo,
};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use tokio::sync::{mpsc, watch};

/// Status of what was killed.
pub(super) const KILLED: i64 = 137;

type Output = BoxStream<'static, Result<Chunk, EngineError>>;
type Say = mpsc::UnboundedSender<Chunk>;

#[derive(Default)]
pub(super) struct State {
    pub facts: EngineFacts,
    pub images: BTreeMap<String, ImageFacts>,
    pub registry: BTreeMap<String, ImageFacts>,
    pub containers: BTreeMap<String, Container>,
    pub paths: BTreeMap<(String, String), Bytes>,
    pub disk: BTreeMap<String, u64>,
    networks: BTreeMap<String, NetworkSpec>,
    execs: BTreeMap<String, Running>,
    /// Owners of the images that were made of containers.
    owned: BTreeMap<String, Owner>,
}

pub(super) struct Container {
    pub spec: ContainerSpec,
    pub archives: Vec<(String, Bytes)>,
    pub input: Vec<u8>,
    /// `None` while it runs; 0 before it has ever run, as an engine says it.
    pub exit: watch::Sender<Option<i64>>,
    networks: BTreeMap<String, Option<Ipv4Addr>>,
    /// Its standard output, while somebody is attached.
    say: Option<Say>,
    /// The end of its standard input has come.
    input_ended: bool,
    unread: Vec<u8>,
    spoken: bool,
    policy: Option<Vec<u8>>,
}

pub(super) struct Running {
    pub code: Option<i64>,
    container: String,
    say: Option<Say>,
    at_end_of_input: Option<i64>,
}

impl State {
    pub fn apply(&mut self, step: &Step) -> Result<(), EngineError> {
        match step {
            Step::CreateNetwork(spec) => self.create_network(spec),
            Step::CreateContainer(spec) => self.create_container(spec),
            Step::Connect { container, network, address } => self.connect(container, network, *address),
            Step::Start { container } => self.start(container),
        }
    }

    pub fn undo(&mut self, undo: &Undo) -> Result<(), EngineError> {
        match undo {
            Undo::RemoveContainer { name, owner } => {
                if self.containers.get(name).is_some_and(|c| same(&c.spec.owner, owner)) {
                    self.end(name, KILLED);
                    self.containers.remove(name);
                }
                Ok(())
            }
            Undo::RemoveNetwork { name, owner } => {
                if !self.networks.get(name).is_some_and(|n| same(&n.owner, owner)) {
                    return Ok(());
                }
                if self.containers.values().any(|c| c.runs() && c.networks.contains_key(name)) {
                    return Err(failed(format!("could not remove network {name}"), Kind::Other));
                }
                self.networks.remove(name);
                Ok(())
            }
            Undo::RemoveImage { reference, owner } => {
                if self.owned.get(reference).is_some_and(|found| same(found, owner)) {
                    self.owned.remove(reference);
                    self.images.remove(reference);
                }
                Ok(())
            }
        }
    }

    pub fn commit(&mut self, container: &str, image: &CommitSpec) -> Result<String, EngineError> {
        if self.container(container)?.runs() {
            return Err(failed(format!("could not make an image of container {container}"), Kind::Conflict));
        }
        let facts = ImageFacts {
            id: super::digest(format!("{image:?}")),
            digests: Vec::new(),
            user: image.user.clone(),
            entrypoint: image.entrypoint.clone(),
            command: image.command.clone(),
            env: image.env.clone(),
            workdir: image.workdir.clone(),
            content: image.content.clone(),
        };
        self.owned.insert(image.reference.clone(), image.owner.clone());
        self.images.insert(image.reference.clone(), facts.clone());
        Ok(facts.id)
    }

    fn create_network(&mut self, spec: &NetworkSpec) -> Result<(), EngineError> {
        let what = format!("could not create network {}", spec.name);
        if self.networks.contains_key(&spec.name) {
            return Err(failed(what, Kind::Conflict));
        }
        let taken = self.facts.networks.values().flatten().copied();
        if taken.chain(self.networks.values().map(|n| n.subnet)).any(|subnet| subnet.overlaps(spec.subnet)) {
            return Err(failed(what, Kind::Overlap));
        }
        self.networks.insert(spec.name.clone(), spec.clone());
        Ok(())
    }

    fn create_container(&mut self, spec: &ContainerSpec) -> Result<(), EngineError> {
        let what = format!("could not create container {}", spec.name);
        if self.containers.contains_key(&spec.name) || self.facts.containers.contains(&spec.name) {
            return Err(failed(what, Kind::Conflict));
        }
        let networks = match &spec.network {
            NetworkMode::On { network, address, .. } => {
                if !self.has_network(network) {
                    return Err(failed(what, Kind::NotFound));
                }
                BTreeMap::from([(network.clone(), *address)])
            }
            NetworkMode::Of(other) if !self.containers.contains_key(other) => return Err(failed(what, Kind::NotFound)),
            NetworkMode::Of(_) | NetworkMode::None => BTreeMap::new(),
        };
        if self.image(&spec.image).is_none() {
            return Err(failed(what, Kind::NotFound));
        }
        let container = Container {
            spec: spec.clone(),
            archives: Vec::new(),
            input: Vec::new(),
            exit: watch::Sender::new(Some(0)),
            networks,
            say: None,
            input_ended: false,
            unread: Vec::new(),
            spoken: false,
            policy: None,
        };
        self.containers.insert(spec.name.clone(), container);
        Ok(())
    }

    fn connect(&mut self, container: &str, network: &str, address: Option<Ipv4Addr>) -> Result<(), EngineError> {
        let what = format!("could not connect container {container} to network {network}");
        if !self.has_network(network) {
            return Err(failed(what, Kind::NotFound));
        }
        let networks = &mut self.container_mut(container)?.networks;
        if networks.contains_key(network) {
            return Err(failed(what, Kind::Conflict));
        }
        networks.insert(network.to_owned(), address);
        Ok(())
    }

    fn start(&mut self, name: &str) -> Result<(), EngineError> {
        let what = format!("could not start container {name}");
        let container = self.container(name)?;
        if container.runs() {
            return Err(failed(what, Kind::Conflict));
        }
        if let NetworkMode::Of(other) = &container.spec.network
            && !self.containers.get(other).is_some_and(Container::runs)
        {
            return Err(failed(what, Kind::Conflict));
        }
        for (network, address) in &container.networks {
            let Some(address) = address else { continue };
            let outside = self.networks.get(network).is_some_and(|n| !n.subnet.contains(*address));
            let mut others = self.containers.iter().filter(|(other, c)| *other != name && c.runs());
            if outside || others.any(|(_, c)| c.networks.get(network) == Some(&Some(*address))) {
                return Err(failed(what, Kind::Other));
            }
        }
        let container = self.container_mut(name)?;
        let role = container.spec.role.clone();
        container.exit.send_replace(None);
        let ended = container.input_ended;
        self.say(name, roles::at_start(&role));
        if roles::is_one_shot(&role) || ended {
            self.end(name, 0);
        } else {
            self.answer(name);
        }
        Ok(())
    }

    /// Ends a container and all that runs in it.
    pub fn end(&mut self, name: &str, code: i64) {
        let Some(container) = self.containers.get_mut(name) else { return };
        if container.runs() {
            container.exit.send_replace(Some(code));
            // Started again it knows nothing of its life before.
            (container.spoken, container.policy) = (false, None);
            container.unread.clear();
        }
        container.say = None;
        for exec in self.execs.values_mut().filter(|e| e.container == name && e.code.is_none()) {
            exec.end(KILLED);
        }
    }

    pub fn say(&mut self, name: &str, text: &str) {
        let say = self.containers.get(name).and_then(|c| c.say.as_ref());
        if let Some(say) = say.filter(|_| !text.is_empty()) {
            // Nobody listens any more: an engine drops it as well.
            let _ = say.send(Chunk::Out(Bytes::copy_from_slice(text.as_bytes())));
        }
    }

    pub fn attach(&mut self, name: &str) -> Result<Output, EngineError> {
        let container = self.container_mut(name)?;
        let (say, output) = mpsc::unbounded_channel();
        container.say = Some(say);
        container.input_ended = false;
        Ok(listened(output))
    }

    pub fn exec(&mut self, spec: &ExecSpec, script: Script) -> Result<(String, Output), EngineError> {
        let what = format!("could not run a command in container {}", spec.container);
        if !self.container(&spec.container)?.runs() {
            return Err(failed(what, Kind::Conflict));
        }
        let (say, output) = mpsc::unbounded_channel();
        let mut exec = Running { code: None, container: spec.container.clone(), say: None, at_end_of_input: None };
        if !script.output.is_empty() {
            // The receiver is in our hand.
            let _ = say.send(Chunk::Out(script.output));
        }
        exec.say = Some(say);
        match script.end {
            End::NoProgram => return Err(failed(what, Kind::NoProgram)),
            End::Code(code) => exec.end(code),
            End::AtEndOfInput(code) => exec.at_end_of_input = Some(code),
            End::Never => {}
        }
        let handle = format!("exec-{}", self.execs.len());
        self.execs.insert(handle.clone(), exec);
        Ok((handle, listened(output)))
    }

    pub fn running_exec(&self, handle: &str) -> Result<&Running, EngineError> {
        self.execs.get(handle).ok_or_else(|| failed(format!("there is no exec {handle}"), Kind::NotFound))
    }

    pub fn put(&mut self, name: &str, directory: &str, bytes: Bytes) -> Result<(), EngineError> {
        let container = self.container_mut(name)?;
        if container.spec.read_only {
            return Err(failed(format!("could not write into {directory} of container {name}"), Kind::Other));
        }
        container.archives.push((directory.to_owned(), bytes));
        Ok(())
    }

    /// A path that was set, else what archives put there.
    pub fn get(&self, name: &str, path: &str) -> Result<Option<Bytes>, EngineError> {
        let container = self.container(name)?;
        if let Some(bytes) = self.paths.get(&(name.to_owned(), path.to_owned())) {
            return Ok(Some(bytes.clone()));
        }
        let unread =
            |e| EngineError::new(format!("could not read {path} of {name}"), Kind::Other, Some(Box::new(e) as _));
        files::below(&container.archives, path).map_err(unread)
    }

    pub fn image(&self, reference: &str) -> Option<&ImageFacts> {
        self.images.get(reference).or_else(|| self.images.values().find(|image| image.id == reference))
    }

    pub fn names(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.containers.keys().chain(self.networks.keys()).collect();
        names.into_iter().cloned().collect()
    }

    pub fn all_facts(&self) -> EngineFacts {
        let mut facts = self.facts.clone();
        facts.networks.extend(self.networks.values().map(|n| (n.name.clone(), vec![n.subnet])));
        facts.containers.extend(self.containers.keys().cloned());
        facts
    }

    pub fn observe(&self, host: &str, state: &str) -> Observed {
        let ours = |owner: &Owner| owner.host == host && owner.state == state;
        let containers = self.containers.values().filter(|c| ours(&c.spec.owner)).map(|c| ObservedContainer {
            name: c.spec.name.clone(),
            role: c.spec.role.clone(),
            owner: c.spec.owner.clone(),
            running: c.runs(),
            addresses: c.networks.clone(),
        });
        let networks = self.networks.values().filter(|n| ours(&n.owner)).map(|n| ObservedNetwork {
            name: n.name.clone(),
            role: n.role.clone(),
            owner: n.owner.clone(),
            subnets: vec![n.subnet],
            internal: n.internal,
            isolated: n.internal,
            icc: n.icc,
        });
        Observed { containers: containers.collect(), networks: networks.collect() }
    }

    pub fn container(&self, name: &str) -> Result<&Container, EngineError> {
        self.containers.get(name).ok_or_else(|| failed(format!("there is no container {name}"), Kind::NotFound))
    }

    fn container_mut(&mut self, name: &str) -> Result<&mut Container, EngineError> {
        self.containers.get_mut(name).ok_or_else(|| failed(format!("there is no container {name}"), Kind::NotFound))
    }

    /// A network of ours, or one that was there before.
    fn has_network(&self, name: &str) -> bool {
        self.networks.contains_key(name) || self.facts.networks.contains_key(name)
    }

    fn answer(&mut self, name: &str) {
        let Some(container) = self.containers.get_mut(name).filter(|c| c.runs()) else { return };
        let Container { spec, unread, spoken, policy, .. } = container;
        let text = roles::answers(&spec.role, unread, spoken, policy);
        self.say(name, &text);
    }

    pub fn write(&mut self, to: &Target, bytes: &[u8]) -> std::io::Result<()> {
        match to {
            Target::Container(name) => {
                let container = self.containers.get_mut(name).filter(|c| c.say.is_some() && !c.input_ended);
                let container = container.ok_or(std::io::ErrorKind::BrokenPipe)?;
                container.input.extend_from_slice(bytes);
                container.unread.extend_from_slice(bytes);
                self.answer(name);
            }
            Target::Exec(handle) => {
                self.execs.get(handle).filter(|e| e.code.is_none()).ok_or(std::io::ErrorKind::BrokenPipe)?;
            }
        }
        Ok(())
    }

    pub fn end_input(&mut self, to: &Target) {
        match to {
            Target::Container(name) => {
                let Some(container) = self.containers.get_mut(name) else { return };
                container.input_ended = true;
                if container.runs() {
                    self.end(name, 0);
                }
            }
            Target::Exec(handle) => {
                if let Some(exec) = self.execs.get_mut(handle)
                    && let Some(code) = exec.at_end_of_input.take()
                {
                    exec.end(code);
                }
            }
        }
    }
}

impl Container {
    fn runs(&self) -> bool {
        self.exit.borrow().is_none()
    }
}

impl Running {
    fn end(&mut self, code: i64) {
        self.code.get_or_insert(code);
        self.say = None;
    }
}

fn listened(output: mpsc::UnboundedReceiver<Chunk>) -> Output {
    unfold(output, |mut output| async move { Some((Ok(output.recv().await?), output)) }).boxed()
}

/// The labels that an undo goes by.
fn same(one: &Owner, other: &Owner) -> bool {
    (&one.id, &one.host, &one.state) == (&other.id, &other.host, &other.state)
}

fn failed(what: String, kind: Kind) -> EngineError {
    EngineError::new(what, kind, None)
}
