//! Carries out a plan. It decides nothing, it never drops a call that changes something, and whatever happens in it,
//! what it made is in the undo stack before it was made.

use crate::compare;
use crate::control::{self, BringError, Sidecar};
use crate::engine::{Engine, EngineError, Kind, NetworkMode, Step};
use crate::image_files::Memory;
use crate::log::LogFile;
use crate::plan::provision::{self, Identity, ImageFiles, ProvisionError};
use crate::plan::{Action, AgentUser, Plan};
use crate::stop::{Level, Stop};
use crate::transfer;
use crate::undo::UndoStack;
use clock::Clock;
use futures_util::{FutureExt, StreamExt};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

pub mod clock;

/// How long a one-shot may run.
const ONCE_WITHIN: Duration = Duration::from_secs(20);

/// Bytes that a plan names and does not hold.
pub struct Supplies {
    /// What each container is told on its standard input, by the container's name.
    pub feeds: BTreeMap<String, zeroize::Zeroizing<Vec<u8>>>,
    /// What goes into the agent's container.
    pub brought: provision::Brought,
    /// Where the baseline of the workspace is written: what the agent was given.
    pub baseline: PathBuf,
    /// Where the workspace of a life before is saved.
    pub saved: PathBuf,
}

/// What a launch works with.
pub struct Launch<'a, E: Engine> {
    /// The engine.
    pub engine: &'a E,
    /// The plan.
    pub plan: &'a Plan,
    /// The bytes.
    pub supplies: &'a Supplies,
    /// The wish to end.
    pub stop: &'a Stop,
    /// The bottle's log.
    pub log: &'a Arc<LogFile>,
    /// Told what is going on, in words for people.
    pub progress: &'a (dyn Fn(&str) + Send + Sync),
    /// Told what a person should still see afterwards.
    pub notify: &'a (dyn Fn(&str) + Send + Sync),
    identity: OnceLock<Identity>,
    ahead: Mutex<Option<Packing>>,
    /// The plan's networks, and whether each is there.
    networks: BTreeMap<String, watch::Sender<Network>>,
    memory: Option<(Memory, String)>,
    /// What the agent's user is looked up in, where the agent's image is one that its agent had a hand in.
    trusted: Option<ImageFiles>,
}

/// Where a network of the plan is in its making.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Network {
    Awaited,
    Made,
    /// It will not come: its lane has ended.
    Missing,
}

/// The agent's files on their way into an archive.
type Packing = tokio::task::JoinHandle<Result<(Identity, Vec<u8>), ProvisionError>>;

/// What runs after a launch. Dropping it ends every container of the bottle.
pub struct Running {
    /// Every container that is held, by role.
    pub sidecars: BTreeMap<String, Sidecar>,
    /// The agent's user.
    pub identity: Identity,
}

/// Why a launch did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Somebody wanted the end.
    #[error("stopped")]
    Stopped,
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A container did not come up.
    #[error(transparent)]
    Bring(BringError),
    /// What the engine made is not what was planned.
    #[error("the engine did not make what was planned: {}", .0.join("; "))]
    Different(Vec<String>),
    /// A one-shot failed.
    #[error("{container} ended with status {status}{said}")]
    Once {
        /// Its container.
        container: String,
        /// Its status.
        status: i64,
        /// What it said.
        said: String,
    },
    /// The agent's files could not be made.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// The workspace could not be copied.
    #[error("the workspace cannot be copied into the bottle")]
    Workspace(#[source] transfer::TransferError),
    /// The saved workspace could not be put back.
    #[error("the saved workspace cannot be put back")]
    Restore(#[source] transfer::TransferError),
    /// A Dockerfile could not be carried out.
    #[error("the Dockerfile cannot be carried out: {0}")]
    Build(String),
    /// The code of a step panicked.
    #[error("a step of the launch panicked: {0}")]
    Panicked(String),
}

impl LaunchError {
    /// May another try with other subnets or names succeed?
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Engine(error) if error.kind == Kind::Overlap)
    }
}

impl<'a, E: Engine> Launch<'a, E> {
    /// Puts a launch together.
    pub fn new(
        engine: &'a E,
        plan: &'a Plan,
        supplies: &'a Supplies,
        stop: &'a Stop,
        log: &'a Arc<LogFile>,
        progress: &'a (dyn Fn(&str) + Send + Sync),
        notify: &'a (dyn Fn(&str) + Send + Sync),
    ) -> Self {
        Self {
            engine,
            plan,
            supplies,
            stop,
            log,
            progress,
            notify,
            identity: OnceLock::new(),
            ahead: Mutex::default(),
            networks: plan.made().0.iter().map(|n| (n.name.clone(), watch::Sender::new(Network::Awaited))).collect(),
            memory: None,
            trusted: None,
        }
    }

    /// Lets it remember what it reads of the agent's image, which has this content address.
    pub fn remembering(self, memory: Memory, image: String) -> Self {
        Self { memory: Some((memory, image)), ..self }
    }

    /// Has it look the agent's user up in these files, and not in those of an image that the agent had a hand in: there any
    /// name may stand for root.
    pub fn trusting(self, files: Option<ImageFiles>) -> Self {
        Self { trusted: files, ..self }
    }

    /// Carries the plan out, stage by stage. What has to be taken back, after success and failure alike, is in `undo`.
    pub async fn run(&self, undo: &mut UndoStack) -> Result<Running, LaunchError> {
        if let Some(known) = self.memory.as_ref().and_then(|(memory, image)| memory.recall(image)) {
            // Packed while the networks are made.
            *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.pack(known));
        }
        let sidecars = self.carry_out(undo).await?;
        let identity = self.identity.get().cloned();
        let identity = identity.ok_or_else(|| LaunchError::Panicked("the plan has no agent".to_owned()))?;
        Ok(Running { sidecars, identity })
    }

    /// The same for a plan without an agent, such as one that brings further sidecars. Gives them by role.
    pub async fn carry_out(&self, undo: &mut UndoStack) -> Result<BTreeMap<String, Sidecar>, LaunchError> {
        let mut sidecars = BTreeMap::new();
        for stage in &self.plan.stages {
            if self.stop.level() > Level::Run {
                return Err(LaunchError::Stopped);
            }
            let clock = Clock::start(&stage.name);
            undo.stage();
            for action in stage.lanes.iter().flatten() {
                // Pushed first: a lost answer may hide a done deed.
                self.plan.undo(action).into_iter().for_each(|u| undo.push(u));
            }
            let lanes = stage.lanes.iter().map(|lane| AssertUnwindSafe(self.lane(lane, &clock)).catch_unwind());
            let mut failed = None;
            // Every lane runs to its end, also when another has failed: a dropped call might still take effect.
            for ended in futures_util::future::join_all(lanes).await {
                match ended {
                    Ok(Ok(brought)) => sidecars.extend(brought.into_iter().map(|s| (s.role.clone(), s))),
                    Ok(Err(error)) => failed = Some(first(failed, error)),
                    Err(panic) => failed = Some(first(failed, LaunchError::Panicked(words(panic.as_ref())))),
                }
            }
            self.log.line("keeper", "out", &clock.line());
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(sidecars)
    }

    async fn lane(&self, lane: &[Action], clock: &Clock) -> Result<Vec<Sidecar>, LaunchError> {
        // However it ends: nobody waits for a network that will not come.
        let _ending = defer(|| {
            self.networks_of(lane).for_each(|network| {
                network.send_if_modified(give_up);
            });
        });
        let mut brought = Vec::new();
        for action in lane {
            if self.stop.level() > Level::Run {
                return Err(LaunchError::Stopped);
            }
            self.networks_for(action).await?;
            let began = Instant::now();
            let sidecar = self.act(action).await?;
            match &sidecar {
                Some(sidecar) => clock.brought(sidecar),
                None => clock.note(action, began.elapsed()),
            }
            brought.extend(sidecar);
        }
        Ok(brought)
    }

    /// The networks that a lane makes.
    fn networks_of<'b>(&'b self, lane: &'b [Action]) -> impl Iterator<Item = &'b watch::Sender<Network>> {
        lane.iter().filter_map(|action| match action {
            Action::Network(spec) => self.networks.get(&spec.name),
            _ => None,
        })
    }

    /// Waits until the network is there that an action needs. One that is not of the plan was there before.
    async fn networks_for(&self, action: &Action) -> Result<(), LaunchError> {
        let needed = match action {
            Action::Container(spec) => match &spec.network {
                NetworkMode::On { network, .. } => Some(network),
                NetworkMode::Of(_) | NetworkMode::None => None,
            },
            Action::Connect { network, .. } => Some(network),
            _ => None,
        };
        let Some(network) = needed.and_then(|name| self.networks.get(name)) else { return Ok(()) };
        let mut state = network.subscribe();
        match state.wait_for(|s| *s != Network::Awaited).await.as_deref() {
            Ok(Network::Made) => Ok(()),
            // Why it is missing is what its own lane says.
            _ => Err(LaunchError::Stopped),
        }
    }

    async fn act(&self, action: &Action) -> Result<Option<Sidecar>, LaunchError> {
        match action {
            Action::Network(spec) => {
                self.engine.apply(&Step::CreateNetwork(spec.clone())).await?;
                if let Some(network) = self.networks.get(&spec.name) {
                    network.send_replace(Network::Made);
                }
            }
            Action::Container(spec) => self.engine.apply(&Step::CreateContainer((**spec).clone())).await?,
            Action::Connect { container, network, address } => {
                let step = Step::Connect { container: container.clone(), network: network.clone(), address: *address };
                self.engine.apply(&step).await?;
            }
            Action::Provision { container } => self.provision(container).await?,
            Action::Prepare { container } => self.prepare(container).await?,
            Action::Restore { container } => {
                let saved = &self.supplies.saved;
                let put = transfer::put_back(self.engine, container, saved, self.stop, self.progress).await;
                put.map_err(|error| self.unless_stopped(LaunchError::Restore(error)))?;
            }
            Action::Workspace { container, from } => {
                let identity = self.identity.get().cloned().unwrap_or(Identity { uid: 0, gid: 0, home: String::new() });
                let copied = transfer::copy_in(
                    self.engine,
                    container,
                    from,
                    &identity,
                    &self.supplies.baseline,
                    self.stop,
                    (self.progress, self.notify),
                )
                .await;
                copied.map_err(|error| self.unless_stopped(LaunchError::Workspace(error)))?;
            }
            Action::Compare => {
                let owner = &self.plan.owner;
                let observed = self.engine.observe(&owner.host, &owner.state).await?;
                let differences = compare::differences(self.plan, &observed);
                if !differences.is_empty() {
                    return Err(LaunchError::Different(differences));
                }
            }
            Action::Bring { container, role } => return self.bring(container, role).await.map(Some),
            Action::Once { container } => self.once(container).await?,
        }
        Ok(None)
    }

    /// What was broken off by a wish to end has not failed.
    fn unless_stopped(&self, error: LaunchError) -> LaunchError {
        match self.stop.level() {
            Level::Run => error,
            Level::Graceful | Level::Now => LaunchError::Stopped,
        }
    }

    async fn bring(&self, container: &str, role: &str) -> Result<Sidecar, LaunchError> {
        let feed = self.supplies.feeds.get(container).map(|f| f.as_slice()).unwrap_or_default();
        let brought = match self.plan.policy(role) {
            Some(yaml) => {
                control::bring_pipelock(self.engine, container, role, (feed, yaml), self.log, self.stop).await
            }
            None => control::bring(self.engine, container, role, feed, self.log, self.stop).await,
        };
        brought.map_err(|error| match error {
            BringError::Stopped => LaunchError::Stopped,
            BringError::Engine(error) => LaunchError::Engine(error),
            error @ (BringError::Feed { .. }
            | BringError::Ended { .. }
            | BringError::Late { .. }
            | BringError::Policy { .. }) => LaunchError::Bring(error),
        })
    }

    /// Writes the agent's files. Who it is follows from the image's own passwd, which is read here.
    async fn provision(&self, container: &str) -> Result<(), LaunchError> {
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take();
        let packing = match ahead {
            Some(packing) => packing,
            None => self.pack(self.image_files(container).await?),
        };
        let (identity, archive) = packing.await.map_err(|e| LaunchError::Panicked(e.to_string()))??;
        let bytes = futures_util::stream::once(async move { Ok(bytes::Bytes::from(archive)) }).boxed();
        self.engine.put(container, "/", bytes).await?;
        self.identity.get_or_init(|| identity);
        Ok(())
    }

    /// Writes what a build needs into its container.
    async fn prepare(&self, container: &str) -> Result<(), LaunchError> {
        let (image, brought) = (self.image_files(container).await?, self.supplies.brought.clone());
        let packing = tokio::task::spawn_blocking(move || provision::build_archive(&image, &brought));
        let archive = packing.await.map_err(|e| LaunchError::Panicked(e.to_string()))??;
        let bytes = futures_util::stream::once(async move { Ok(bytes::Bytes::from(archive)) }).boxed();
        Ok(self.engine.put(container, "/", bytes).await?)
    }

    /// Packs the agent's files on a thread of its own: reading a hundred certificates would hold up the other lanes.
    fn pack(&self, image: ImageFiles) -> Packing {
        let user = self.plan.session.user.clone();
        let brought = self.supplies.brought.clone();
        let workspace = self.plan.session.workdir.as_deref() == Some(crate::plan::agent::WORKSPACE);
        // A user that is added has its number from us; only names are looked up.
        let trusted = self.trusted.clone().filter(|_| matches!(user, AgentUser::OfImage(_)));
        tokio::task::spawn_blocking(move || {
            let identity = provision::identity(&user, trusted.as_ref().unwrap_or(&image))?;
            let archive = provision::archive(&user, &identity, &image, &brought, workspace)?;
            Ok((identity, archive))
        })
    }

    /// What the image has, remembered or read.
    pub async fn image_files(&self, container: &str) -> Result<ImageFiles, EngineError> {
        if let Some(known) = self.memory.as_ref().and_then(|(memory, image)| memory.recall(image)) {
            return Ok(known);
        }
        let text = |path: &'static str| transfer::read_text(self.engine, container, path);
        let (passwd, group, roots) = tokio::try_join!(text("/etc/passwd"), text("/etc/group"), self.roots(container))?;
        let files = ImageFiles { passwd, group, roots };
        if let Some((memory, image)) = &self.memory
            && let Err(error) = memory.keep(image, &files)
        {
            self.log.line("keeper", "err", &format!("the image's files cannot be remembered: {error}"));
        }
        Ok(files)
    }

    async fn roots(&self, container: &str) -> Result<Option<String>, EngineError> {
        for path in provision::BUNDLES_OF_IMAGES {
            if let Some(pem) = transfer::read_text(self.engine, container, path).await? {
                return Ok(Some(pem));
            }
        }
        Ok(None)
    }

    async fn once(&self, container: &str) -> Result<(), LaunchError> {
        let streams = self.engine.attach(container).await?;
        self.engine.apply(&Step::Start { container: container.to_owned() }).await?;
        let said = tokio::spawn(transfer::last_words(streams.output));
        let ended = tokio::time::timeout(ONCE_WITHIN, self.engine.wait_exit(container)).await;
        drop(streams.input);
        match ended {
            Ok(Ok(0)) => Ok(()),
            Ok(Ok(status)) => {
                let said = said.await.unwrap_or_default();
                Err(LaunchError::Once { container: container.to_owned(), status, said })
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(LaunchError::Once {
                container: container.to_owned(),
                status: -1,
                said: format!(" (it did not end within {} s)", ONCE_WITHIN.as_secs()),
            }),
        }
    }
}

fn give_up(network: &mut Network) -> bool {
    let awaited = *network == Network::Awaited;
    if awaited {
        *network = Network::Missing;
    }
    awaited
}

/// Runs `last` when the value that it gives is dropped, in a panic too.
fn defer<F: FnMut()>(last: F) -> impl Drop {
    struct Deferred<F: FnMut()>(F);
    impl<F: FnMut()> Drop for Deferred<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    Deferred(last)
}

/// The error to show when several lanes failed: the first, but never "stopped" where something really broke.
fn first(before: Option<LaunchError>, now: LaunchError) -> LaunchError {
    match before {
        None | Some(LaunchError::Stopped) => now,
        Some(before) => before,
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".to_owned())
}
