//! The one door to a real engine. Every call has a time limit, but for streams; what changes the engine runs in a task of
//! its own, so that a caller who goes away does not leave a request half said. It must never address an object by
//! a name that it made itself: names need not be unique, ids are.

use super::body::Api;
use super::{
    CommitSpec, Engine, EngineError, EngineFacts, Exec, ExecSpec, ImageFacts, Kind, Observed, ScratchImage, Seccomp,
    Step, Streams, Undo,
};
use bytes::Bytes;
use context::{Address, Hints};
use failure::{failed, late, said};
use futures_util::stream::BoxStream;
pub use scratch::Archive;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncRead;

pub mod context;
mod failure;
mod images;
mod objects;
mod observe;
mod run;
mod scratch;
mod streams;

/// The oldest API that has all we need (engine 20.10).
const API_MIN: Api = Api { major: 1, minor: 41 };

/// Looks, and changes that touch no process.
const LOOK_WITHIN: Duration = Duration::from_secs(30);

/// Starts, removals, commits.
const DEED_WITHIN: Duration = Duration::from_secs(60);

/// Removals: an engine deletes a large workspace file by file.
const REMOVE_WITHIN: Duration = Duration::from_secs(280);

/// Loading an image of ours, a few MB.
const LOAD_WITHIN: Duration = Duration::from_secs(120);

/// The client's own limit, which is one for all calls: longer than any stream we hold.
const CLIENT_WITHIN: Duration = Duration::from_secs(400 * 24 * 3600);

/// An engine that speaks Docker's API. Clones share one connection and what is known of names.
#[derive(Clone)]
pub struct Docker {
    inner: Arc<Inner>,
}

struct Inner {
    client: bollard::Docker,
    address: Address,
    api: Api,
    version: String,
    /// What it calls its parts.
    product: String,
    /// Its architecture, as images name it.
    arch: String,
    seccomp: fn(Seccomp) -> String,
    /// Names of what this process has made -> ids.
    ids: Mutex<HashMap<Key, String>>,
    /// Who works on a name: an undo waits for a step whose caller went away.
    turns: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
}

/// A name; containers, networks and images have one each.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Container(String),
    Network(String),
    Image(String),
}

/// An image as the archive that engines load, made for the architecture of this launcher.
pub fn archive(image: &ScratchImage) -> std::io::Result<Archive> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    scratch::archive(image, arch)
}

impl Docker {
    /// Connects to the engine that `host` (the value of `DOCKER_HOST`) names, else to the docker command's current
    /// context, else to the usual socket, and agrees on a version. `seccomp` gives the text of a profile.
    pub async fn connect(host: Option<&str>, seccomp: fn(Seccomp) -> String) -> Result<Self, EngineError> {
        Self::connect_to(Hints::from_environment(host).address()?, seccomp).await
    }

    /// Connects to an engine at a known address.
    pub async fn connect_to(address: Address, seccomp: fn(Seccomp) -> String) -> Result<Self, EngineError> {
        let what = format!("could not reach the engine at {address}");
        let limit = CLIENT_WITHIN.as_secs();
        let client = |version: &bollard::ClientVersion| match &address {
            Address::Unix(path) => bollard::Docker::connect_with_unix(&path.to_string_lossy(), limit, version),
            Address::Tcp(host) => bollard::Docker::connect_with_http(&format!("tcp://{host}"), limit, version),
        };
        let newest = bollard::API_DEFAULT_VERSION;
        // Asked once and negotiated here: an engine starts two programs to answer this question.
        let asked = client(newest).map_err(|e| failed(what.as_str(), e))?;
        let version = look(&what, LOOK_WITHIN, asked.version()).await?;
        let text = version.api_version.clone().unwrap_or_default();
        let theirs =
            Api::parse(&text).ok_or_else(|| said(&*what, Kind::Other, format!("its API version is {text:?}")))?;
        let api = Api::parse(&newest.to_string()).map_or(theirs, |ours| theirs.min(ours));
        let agreed = bollard::ClientVersion { major_version: api.major as usize, minor_version: api.minor as usize };
        let client = client(&agreed).map_err(|e| failed(what.as_str(), e))?;
        if api < API_MIN {
            let what =
                format!("the engine at {address} is too old: its API is {api}, and at least {API_MIN} is needed");
            return Err(EngineError::new(what, Kind::TooOld, None));
        }
        let inner = Inner {
            client,
            address,
            api,
            version: version.version.unwrap_or_default(),
            product: version.components.unwrap_or_default().into_iter().map(|c| c.name).collect::<Vec<_>>().join(", "),
            arch: version.arch.unwrap_or_default(),
            seccomp,
            ids: Mutex::default(),
            turns: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where it is, as `DOCKER_HOST` would say it.
    pub fn address(&self) -> &Address {
        &self.inner.address
    }

    /// Takes a name off an image, and the image away when it was the last; no such image is success.
    pub async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        let (inner, reference) = (self.inner.clone(), reference.to_owned());
        deed(async move { inner.remove_image(&reference).await }).await
    }
}

impl Inner {
    fn id(&self, key: &Key) -> Option<String> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn remember(&self, key: Key, id: String) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(key, id);
    }

    fn forget(&self, key: &Key) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// How the engine is asked for a container: by id if this process made it, else by name.
    fn container(&self, name: &str) -> String {
        self.id(&Key::Container(name.to_owned())).unwrap_or_else(|| name.to_owned())
    }

    async fn turn(&self, key: Key) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.entry(key).or_default().clone()
        };
        turn.lock_owned().await
    }
}

/// A look: dropped with its caller.
async fn look<T>(
    what: &str,
    within: Duration,
    call: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(within, call).await {
        Ok(answer) => answer.map_err(|e| failed(what, e)),
        Err(_) => Err(late(what, within)),
    }
}

/// A deed: goes on when its caller has gone.
async fn deed<T: Send + 'static>(
    call: impl Future<Output = Result<T, EngineError>> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::spawn(call).await {
        Ok(answer) => answer,
        Err(e) => Err(EngineError::new("could not finish an engine call", Kind::Other, Some(Box::new(e) as _))),
    }
}

impl Engine for Docker {
    async fn apply(&self, step: &Step) -> Result<(), EngineError> {
        let (inner, step) = (self.inner.clone(), step.clone());
        // Taken before the task is made: an undo that comes after must also find itself behind.
        let turn = inner.turn(objects::of_step(&step)).await;
        deed(async move {
            let _turn = turn;
            inner.apply(&step).await
        })
        .await
    }

    async fn undo(&self, undo: &Undo) -> Result<(), EngineError> {
        let (inner, undo) = (self.inner.clone(), undo.clone());
        let turn = inner.turn(objects::of_undo(&undo)).await;
        deed(async move {
            let _turn = turn;
            inner.undo(&undo).await
        })
        .await
    }

    async fn wait_exit(&self, container: &str) -> Result<i64, EngineError> {
        self.inner.wait_exit(container).await
    }

    async fn observe(&self, host: &str, state: &str) -> Result<Observed, EngineError> {
        self.inner.observe(host, state).await
    }

    async fn facts(&self) -> Result<EngineFacts, EngineError> {
        self.inner.facts().await
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageFacts>, EngineError> {
        self.inner.image(reference).await
    }

    async fn load(&self, image: &ScratchImage) -> Result<String, EngineError> {
        let (inner, image) = (self.inner.clone(), image.clone());
        deed(async move { inner.load(&image).await }).await
    }

    async fn pull(&self, reference: &str, progress: &(dyn Fn(&str) + Send + Sync)) -> Result<(), EngineError> {
        self.inner.pull(reference, progress).await
    }

    async fn build(
        &self,
        tag: &str,
        context: Bytes,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), EngineError> {
        self.inner.build(tag, context, progress).await
    }

    async fn derive(
        &self,
        base: &str,
        tag: &str,
        file: (&str, u32, Bytes),
        entrypoint: &[String],
        labels: &BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        let derived = images::Derived {
            base: base.to_owned(),
            tag: tag.to_owned(),
            path: file.0.to_owned(),
            mode: file.1,
            content: file.2,
            entrypoint: entrypoint.to_vec(),
            labels: labels.clone(),
        };
        let inner = self.inner.clone();
        deed(async move { inner.derive(&derived).await }).await
    }

    async fn commit(&self, container: &str, image: &CommitSpec) -> Result<String, EngineError> {
        let (inner, container, image) = (self.inner.clone(), container.to_owned(), image.clone());
        // Taken before the task is made: an undo that comes after must also find itself behind.
        let turn = inner.turn(Key::Image(image.reference.clone())).await;
        deed(async move {
            let _turn = turn;
            inner.commit(&container, &image).await
        })
        .await
    }

    async fn put(
        &self,
        container: &str,
        directory: &str,
        archive: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<(), EngineError> {
        self.inner.put(container, directory, archive).await
    }

    async fn get(&self, container: &str, path: &str) -> Result<Option<Box<dyn AsyncRead + Send + Unpin>>, EngineError> {
        self.inner.get(container, path).await
    }

    async fn attach(&self, container: &str) -> Result<Streams, EngineError> {
        self.inner.attach(container).await
    }

    async fn exec(&self, spec: &ExecSpec) -> Result<Exec, EngineError> {
        let (inner, spec) = (self.inner.clone(), spec.clone());
        deed(async move { inner.exec(&spec).await }).await
    }

    async fn resize(&self, handle: &str, size: (u16, u16)) -> Result<(), EngineError> {
        self.inner.resize(handle, size).await
    }

    async fn exec_code(&self, handle: &str) -> Result<Option<i64>, EngineError> {
        self.inner.exec_code(handle).await
    }

    async fn disk_used(&self, container: &str) -> Result<u64, EngineError> {
        self.inner.disk_used(container).await
    }
}

#[cfg(test)]
mod tests;
