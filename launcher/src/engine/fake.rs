//! An engine in memory: names with owners, and streams that say what a container of their role would. It behaves like an
//! engine in what the launcher depends on (names are taken, subnets overlap, a network with running containers stays, a
//! request whose caller went away has taken effect) and can be told to fail at any call. It must never ask the code
//! under test what to expect.

use super::{
    CONTENT_LABEL, CommitSpec, ContainerSpec, Engine, EngineError, EngineFacts, Exec, ExecSpec, ImageFacts, Kind,
    Observed, ScratchImage, Step, Streams, Undo,
};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use sha2::{Digest, Sha256};
use state::State;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

mod files;
mod input;
mod roles;
mod state;
#[cfg(test)]
pub(crate) mod tests;

pub use input::FakeInput;

/// An engine in memory. Clones are the same engine.
#[derive(Clone, Default)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    hooks: Arc<Mutex<Hooks>>,
}

#[derive(Default)]
struct Hooks {
    calls: usize,
    log: Vec<&'static str>,
    faults: Vec<Fault>,
    on_call: Option<OnCall>,
    script: Option<Scripts>,
}

type Scripts = Arc<dyn Fn(&ExecSpec) -> Script + Send + Sync>;
type OnCall = Arc<dyn Fn(usize, &'static str) + Send + Sync>;

/// What goes wrong, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// At which call, counted from 0 over all methods.
    pub at: usize,
    /// How.
    pub how: How,
}

/// How a call goes wrong. To raise a stop at a call, use [`Fake::on_call`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Refused: nothing happens.
    ErrorBefore,
    /// It happens, and the answer is lost.
    ErrorAfter,
    /// It happens, and then the caller's task panics.
    Panic,
    /// It happens, and no answer ever comes.
    Hang,
}

/// What an exec does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// What it writes at once.
    pub output: Bytes,
    /// How it ends.
    pub end: End,
}

/// How an exec ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At once, with this status.
    Code(i64),
    /// At the end of its input, with this status.
    AtEndOfInput(i64),
    /// Never by itself.
    Never,
    /// There is no such program.
    NoProgram,
}

impl Fake {
    /// An engine with no objects and no images.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it says about itself; networks and containers are added to what it holds.
    pub fn set_facts(&self, facts: EngineFacts) {
        self.state().facts = facts;
    }

    /// Gives it an image under a name.
    pub fn add_image(&self, reference: &str, facts: ImageFacts) {
        self.state().images.insert(reference.to_owned(), facts);
    }

    /// Gives its registry an image, to be pulled.
    pub fn add_to_registry(&self, reference: &str, facts: ImageFacts) {
        self.state().registry.insert(reference.to_owned(), facts);
    }

    /// What execs do. Without it they run until their container ends.
    pub fn exec_script(&self, script: impl Fn(&ExecSpec) -> Script + Send + Sync + 'static) {
        self.hooks().script = Some(Arc::new(script));
    }

    /// One more fault.
    pub fn fault(&self, fault: Fault) {
        self.hooks().faults.push(fault);
    }

    /// Called at the beginning of every call with its number and method.
    pub fn on_call(&self, hook: impl Fn(usize, &'static str) + Send + Sync + 'static) {
        self.hooks().on_call = Some(Arc::new(hook));
    }

    /// How many calls there have been.
    pub fn calls(&self) -> usize {
        self.hooks().calls
    }

    /// Their methods, in order. `apply` and `undo` say which step: `create-network`, `remove-container`, ….
    pub fn log(&self) -> Vec<&'static str> {
        self.hooks().log.clone()
    }

    /// Names of containers and networks that still exist, sorted.
    pub fn left(&self) -> Vec<String> {
        self.state().names()
    }

    /// Names of images.
    pub fn images(&self) -> Vec<String> {
        self.state().images.keys().cloned().collect()
    }

    /// The spec that a container was created from.
    pub fn spec(&self, container: &str) -> Option<ContainerSpec> {
        self.state().containers.get(container).map(|c| c.spec.clone())
    }

    /// Archives that were put into a container: directory and bytes.
    pub fn archives(&self, container: &str) -> Vec<(String, Bytes)> {
        self.state().containers.get(container).map(|c| c.archives.clone()).unwrap_or_default()
    }

    /// What was written to a container's standard input.
    pub fn input(&self, container: &str) -> Vec<u8> {
        self.state().containers.get(container).map(|c| c.input.clone()).unwrap_or_default()
    }

    /// Writes to a container's standard output, as if it did.
    pub fn say(&self, container: &str, text: &str) {
        self.state().say(container, text);
    }

    /// Ends a container, as if it did so itself.
    pub fn end(&self, container: &str, code: i64) {
        self.state().end(container, code);
    }

    /// Gives a path of a container an archive, for [`Engine::get`]; what was put is found without it.
    pub fn set_path(&self, container: &str, path: &str, archive: Bytes) {
        self.state().paths.insert((container.to_owned(), path.to_owned()), archive);
    }

    /// Says how large a container's writable layer is.
    pub fn set_disk_used(&self, container: &str, bytes: u64) {
        self.state().disk.insert(container.to_owned(), bytes);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hooks(&self) -> MutexGuard<'_, Hooks> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call. The effect comes before the first await, so that it has happened whatever becomes of the caller.
    async fn call<T>(
        &self,
        name: &'static str,
        effect: impl FnOnce(&mut State) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let how = self.count(name);
        if how == Some(How::ErrorBefore) {
            return Err(EngineError::new(format!("injected before {name}"), Kind::Other, None));
        }
        let answer = effect(&mut self.state());
        // An engine is never so quick that nobody else gets a turn.
        tokio::task::yield_now().await;
        match how {
            Some(How::ErrorAfter) => Err(EngineError::new(format!("injected after {name}"), Kind::Timeout, None)),
            Some(How::Panic) => panic!("injected after {name}"),
            Some(How::Hang) => std::future::pending().await,
            Some(How::ErrorBefore) | None => answer,
        }
    }

    fn count(&self, name: &'static str) -> Option<How> {
        let (number, hook, how) = {
            let mut hooks = self.hooks();
            let number = hooks.calls;
            hooks.calls += 1;
            hooks.log.push(name);
            let how = hooks.faults.iter().find(|fault| fault.at == number).map(|fault| fault.how);
            (number, hooks.on_call.clone(), how)
        };
        if let Some(hook) = hook {
            hook(number, name);
        }
        how
    }

    fn input_of(&self, to: input::Target) -> FakeInput {
        FakeInput::new(self.state.clone(), to)
    }
}

impl Engine for Fake {
    async fn apply(&self, step: &Step) -> Result<(), EngineError> {
        let name = match step {
            Step::CreateNetwork(_) => "create-network",
            Step::CreateContainer(_) => "create-container",
            Step::Connect { .. } => "connect",
            Step::Start { .. } => "start",
        };
        self.call(name, |state| state.apply(step)).await
    }

    async fn undo(&self, undo: &Undo) -> Result<(), EngineError> {
        let name = match undo {
            Undo::RemoveContainer { .. } => "remove-container",
            Undo::RemoveNetwork { .. } => "remove-network",
            Undo::RemoveImage { .. } => "remove-image",
        };
        self.call(name, |state| state.undo(undo)).await
    }

    async fn wait_exit(&self, container: &str) -> Result<i64, EngineError> {
        let mut exit = self.call("wait-exit", |state| Ok(state.container(container)?.exit.subscribe())).await?;
        let code = exit.wait_for(Option::is_some).await.map(|code| *code);
        // Its sender goes with the container, whose removal kills it.
        Ok(code.ok().flatten().unwrap_or(state::KILLED))
    }

    async fn observe(&self, host: &str, state: &str) -> Result<Observed, EngineError> {
        self.call("observe", |engine| Ok(engine.observe(host, state))).await
    }

    async fn facts(&self) -> Result<EngineFacts, EngineError> {
        self.call("facts", |state| Ok(state.all_facts())).await
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageFacts>, EngineError> {
        self.call("image", |state| Ok(state.image(reference).cloned())).await
    }

    async fn load(&self, image: &ScratchImage) -> Result<String, EngineError> {
        let facts = ImageFacts {
            id: digest(format!("{:?}", (&image.files, &image.entrypoint, &image.command, &image.user, &image.labels))),
            user: image.user.clone(),
            entrypoint: image.entrypoint.clone(),
            command: image.command.clone(),
            content: image.labels.get(CONTENT_LABEL).cloned().unwrap_or_default(),
            ..ImageFacts::default()
        };
        self.call("load", |state| {
            for name in std::iter::once(&image.tag).chain(&image.aliases) {
                state.images.insert(name.clone(), facts.clone());
            }
            Ok(facts.id)
        })
        .await
    }

    async fn pull(&self, reference: &str, progress: &(dyn Fn(&str) + Send + Sync)) -> Result<(), EngineError> {
        self.call("pull", |state| {
            progress(&format!("Pulling {reference}"));
            let found = state.registry.get(reference).cloned();
            let missing = || EngineError::new(format!("could not pull image {reference}"), Kind::NotFound, None);
            state.images.insert(reference.to_owned(), found.ok_or_else(missing)?);
            Ok(())
        })
        .await
    }

    async fn build(
        &self,
        tag: &str,
        context: Bytes,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), EngineError> {
        self.call("build", |state| {
            progress(&format!("Building {tag}"));
            state.images.insert(tag.to_owned(), ImageFacts { id: digest(&context), ..ImageFacts::default() });
            Ok(())
        })
        .await
    }

    async fn derive(
        &self,
        base: &str,
        tag: &str,
        file: (&str, u32, Bytes),
        entrypoint: &[String],
        labels: &BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        self.call("derive", |state| {
            let missing =
                || EngineError::new(format!("could not derive image {tag} from {base}"), Kind::NotFound, None);
            let base = state.image(base).cloned().ok_or_else(missing)?;
            let derived = ImageFacts {
                id: digest(format!("{:?}", (&base.id, &file, entrypoint, labels))),
                digests: Vec::new(),
                entrypoint: entrypoint.to_vec(),
                command: Vec::new(),
                ..base
            };
            state.images.insert(tag.to_owned(), derived);
            Ok(())
        })
        .await
    }

    async fn commit(&self, container: &str, image: &CommitSpec) -> Result<String, EngineError> {
        self.call("commit", |state| state.commit(container, image)).await
    }

    async fn put(
        &self,
        container: &str,
        directory: &str,
        mut archive: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<(), EngineError> {
        // A cut upload unpacks nothing here; an engine may have unpacked a part, which nobody may count on.
        let mut bytes = Vec::new();
        while let Some(piece) = archive.next().await {
            let unread =
                |e| EngineError::new(format!("could not write into {container}"), Kind::Other, Some(Box::new(e) as _));
            bytes.extend_from_slice(&piece.map_err(unread)?);
        }
        self.call("put", |state| state.put(container, directory, bytes.into())).await
    }

    async fn get(&self, container: &str, path: &str) -> Result<Option<Box<dyn AsyncRead + Send + Unpin>>, EngineError> {
        let found = self.call("get", |state| state.get(container, path)).await?;
        Ok(found.map(|bytes| {
            let pieces = stream::iter([Ok::<_, std::io::Error>(bytes)]);
            Box::new(StreamReader::new(pieces)) as Box<dyn AsyncRead + Send + Unpin>
        }))
    }

    async fn attach(&self, container: &str) -> Result<Streams, EngineError> {
        let output = self.call("attach", |state| state.attach(container)).await?;
        Ok(Streams { input: Box::new(self.input_of(input::Target::Container(container.to_owned()))), output })
    }

    async fn exec(&self, spec: &ExecSpec) -> Result<Exec, EngineError> {
        let script = self.hooks().script.clone();
        let script = script.map_or(Script { output: Bytes::new(), end: End::Never }, |script| script(spec));
        let (handle, output) = self.call("exec", |state| state.exec(spec, script)).await?;
        let input = Box::new(self.input_of(input::Target::Exec(handle.clone())));
        Ok(Exec { handle, streams: Streams { input, output } })
    }

    async fn resize(&self, handle: &str, _size: (u16, u16)) -> Result<(), EngineError> {
        self.call("resize", |state| state.running_exec(handle).map(|_| ())).await
    }

    async fn exec_code(&self, handle: &str) -> Result<Option<i64>, EngineError> {
        self.call("exec-code", |state| state.running_exec(handle).map(|exec| exec.code)).await
    }

    async fn disk_used(&self, container: &str) -> Result<u64, EngineError> {
        self.call("disk-used", |state| {
            state.container(container)?;
            Ok(state.disk.get(container).copied().unwrap_or(0))
        })
        .await
    }
}

fn digest(content: impl AsRef<[u8]>) -> String {
    let digest = Sha256::digest(content.as_ref());
    format!("sha256:{}", digest.iter().map(|b| format!("{b:02x}")).collect::<String>())
}
