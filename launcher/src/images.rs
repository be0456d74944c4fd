//! The images a bottle is made of: our own, loaded from memory; pipelock's, pinned and put under `bottle-init`; the
//! agent's, found, pulled or built. None of this is taken back at a bottle's end: images are for the next one too.

use crate::engine::{Engine, ImageFacts, ScratchImage};
use crate::error::Failure;
use crate::manifest::{Bottle, ImageSource};
use crate::plan::{Order, SidecarImages, agent};
use crate::sidecars;
use bottle_images::init;
use pipelock_config::Pin;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The pins that come with this launcher.
const PINS: &str = include_str!("../../images/pins.toml");

/// What the images and their first processes are, once they are there.
#[derive(Debug, Clone)]
pub struct Ready {
    /// References for the plan.
    pub images: SidecarImages,
    /// The static first process on this machine.
    pub init: PathBuf,
}

/// pipelock's image as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipelock {
    /// Its reference.
    pub reference: String,
    /// Its content address.
    pub id: String,
    /// Is it known to be the one?
    pub trust: Trust,
}

/// How far an image is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// It is the pinned one.
    Pinned,
    /// Nobody has said yet that it is.
    Unknown,
    /// Another one is pinned by this name.
    Other(String),
}

/// References as they will be, without asking an engine.
pub fn references() -> SidecarImages {
    let version = env!("CARGO_PKG_VERSION");
    SidecarImages {
        pipelock: "bottle/pipelock:<pinned>".to_owned(),
        cred_proxy: format!("bottle/cred-proxy:{version}"),
        git_gate: format!("bottle/git-gate:{version}"),
        supervise: format!("bottle/supervise:{version}"),
        wall: format!("bottle/wall:{version}"),
    }
}

/// The reference of the pipelock to use: the operator's word, their configuration, or the pin.
pub fn pipelock_reference(flag: Option<&str>, configured: Option<&str>) -> Result<String, Failure> {
    let pin = Pin::parse(PINS).map_err(|e| Failure::launch(crate::error::chain(&e), None))?;
    Ok(flag.or(configured).map_or(pin.reference, str::to_owned))
}

/// Finds pipelock on the engine, or pulls it, and holds it against the pins.
pub async fn pipelock<E: Engine>(
    engine: &E,
    reference: &str,
    config: &Path,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<Pipelock, Failure> {
    let pin = Pin::parse(PINS).map_err(|e| Failure::launch(crate::error::chain(&e), None))?;
    let facts = match engine.image(reference).await? {
        Some(facts) => facts,
        None => {
            let wanted = if pin.reference == reference { pin.pull_reference() } else { reference.to_owned() };
            progress(&format!("pulling {wanted}"));
            let pulled = engine.pull(&wanted, progress).await;
            let facts = engine.image(&wanted).await?;
            match (facts, pulled) {
                (Some(facts), _) => facts,
                (None, Err(error)) => return Err(absent(reference, &crate::error::chain(&error))),
                (None, Ok(())) => return Err(absent(reference, "the engine pulled it and does not have it")),
            }
        }
    };
    let trust = trust(reference, &facts, config)?;
    Ok(Pipelock { reference: reference.to_owned(), id: facts.id, trust })
}

/// Holds an image of pipelock against the launcher's pin and the operator's own.
pub fn trust(reference: &str, facts: &ImageFacts, config: &Path) -> Result<Trust, Failure> {
    let pin = Pin::parse(PINS).map_err(|e| Failure::launch(crate::error::chain(&e), None))?;
    let pins = Pins::load(config)?;
    Ok(match (&pin.digest, pins.of(reference)) {
        (Some(digest), _) if pin.reference == reference => {
            if facts.digests.iter().any(|d| d.ends_with(digest)) {
                Trust::Pinned
            } else {
                Trust::Other(digest.clone())
            }
        }
        (_, Some(known)) if known == facts.id => Trust::Pinned,
        (_, Some(known)) => Trust::Other(known.to_owned()),
        (_, None) => Trust::Unknown,
    })
}

fn absent(reference: &str, why: &str) -> Failure {
    Failure::launch(
        format!("pipelock's image {reference} is not on the engine and cannot be pulled: {why}"),
        "bring it by `docker load`, or name another with --pipelock-image; without pipelock there is no way out that \
         could be trusted"
            .to_owned(),
    )
}

/// Which sidecars a bottle has or may come to have while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// It has routes, or its agent may ask for one.
    pub cred_proxy: bool,
    /// It has remotes.
    pub git_gate: bool,
    /// Its agent may ask.
    pub supervise: bool,
}

impl Wanted {
    /// All of them.
    pub const ALL: Self = Self { cred_proxy: true, git_gate: true, supervise: true };

    /// Those of a bottle.
    pub fn of(bottle: &Bottle) -> Self {
        Self {
            cred_proxy: !bottle.routes.is_empty() || bottle.supervise,
            git_gate: !bottle.git.remotes.is_empty(),
            supervise: bottle.supervise,
        }
    }
}

/// Makes everything but the agent's image ready. What is not wanted keeps the name that [`references`] gives it.
pub async fn ready<E: Engine>(
    engine: &E,
    pipelock_id: &str,
    bottle: Wanted,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<Ready, Failure> {
    let binaries = sidecars::binaries(&sidecars::SIDECARS, &|text| progress(text))?;
    let binary = |name: &str| binaries.get(name).cloned().unwrap_or_default();
    let references = references();
    let wanted = |is: bool, name: &'static str, reference: &str| {
        let (reference, binary) = (reference.to_owned(), binary(name));
        async move { if is { loaded(engine, binary, name, reference).await } else { Ok(reference) } }
    };
    let init_path = binary("bottle-init");
    let (cred_proxy, git_gate, supervise, wall, init_bytes) = tokio::try_join!(
        wanted(bottle.cred_proxy, cred_proxy::config::NAME, &references.cred_proxy),
        wanted(bottle.git_gate, git_gate::NAME, &references.git_gate),
        wanted(bottle.supervise, supervise::NAME, &references.supervise),
        wanted(true, WALL, &references.wall),
        read(init_path.clone()),
    )?;

    // Its name says what it is made of: another pipelock or another first process is another image.
    let hash = short_hash(&init_bytes);
    let short: String = pipelock_id.trim_start_matches("sha256:").chars().take(12).collect();
    let tag = format!("bottle/pipelock:{short}-{hash}");
    if engine.image(&tag).await?.is_none() {
        progress("putting pipelock under the bottle's first process");
        let entrypoint = [init::PATH.to_owned()];
        let file = (init::PATH, 0o755, init_bytes);
        engine.derive(pipelock_id, &tag, file, &entrypoint, &BTreeMap::new()).await?;
    }
    let images = SidecarImages { pipelock: tag, cred_proxy, git_gate, supervise, wall };
    Ok(Ready { images, init: init_path })
}

fn short_hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(4).map(|b| format!("{b:02x}")).collect()
}

/// The wall's binary.
const WALL: &str = "bottle-wall";

/// The image of a sidecar: its static binary, and the folders that belong to it. The wall alone is root, see
/// ARCHITECTURE.md.
fn sidecar(name: &str, reference: &str, program: bytes::Bytes) -> ScratchImage {
    let user = if name == WALL { "0:0" } else { crate::plan::hardening::SIDECAR_USER };
    let mut image = unnamed(&format!("/{name}"), program, user);
    if name == git_gate::NAME {
        image.owned.insert(crate::plan::sidecar::SPOOL.to_owned(), crate::plan::hardening::SIDECAR_UID);
    }
    image.named(reference)
}

/// The images of all sidecars by their names, as every launch makes them. Needs no engine.
pub fn of_sidecars(progress: &dyn Fn(&str)) -> Result<Vec<(&'static str, ScratchImage)>, Failure> {
    let binaries = sidecars::binaries(&sidecars::SIDECARS, progress)?;
    let SidecarImages { cred_proxy, git_gate, supervise, wall, .. } = references();
    let all = [
        (cred_proxy::config::NAME, cred_proxy),
        (git_gate::NAME, git_gate),
        (supervise::NAME, supervise),
        (WALL, wall),
    ];
    let image = |(name, reference): (&'static str, String)| {
        let path = binaries.get(name).cloned().unwrap_or_default();
        let program = std::fs::read(&path)
            .map_err(|e| Failure::launch(format!("{} cannot be read: {e}", path.display()), None))?;
        Ok((name, sidecar(name, &reference, program.into())))
    };
    all.into_iter().map(image).collect()
}

/// Loads the image of one static binary, unless the engine has it. Gives its reference.
async fn loaded<E: Engine>(
    engine: &E,
    binary: PathBuf,
    name: &'static str,
    reference: String,
) -> Result<String, Failure> {
    let program = read(binary).await?;
    // Hashing megabytes is work: the others' questions to the engine go on meanwhile.
    let made = tokio::task::spawn_blocking(move || sidecar(name, &reference, program));
    let image = made.await.map_err(|e| Failure::launch(format!("an image cannot be made: {e}"), None))?;
    engine.load(&image).await?;
    Ok(image.tag)
}

async fn read(path: PathBuf) -> Result<bytes::Bytes, Failure> {
    let bytes = tokio::fs::read(&path).await;
    bytes.map(Into::into).map_err(|e| Failure::launch(format!("{} cannot be read: {e}", path.display()), None))
}

/// An image of one static binary, see [`ScratchImage::named`].
pub fn scratch(name: &str, path: &str, program: bytes::Bytes, user: &str) -> ScratchImage {
    unnamed(path, program, user).named(name)
}

fn unnamed(path: &str, program: bytes::Bytes, user: &str) -> ScratchImage {
    ScratchImage {
        tag: String::new(),
        aliases: Vec::new(),
        files: BTreeMap::from([(path.to_owned(), (0o755, program))]),
        owned: BTreeMap::new(),
        entrypoint: vec![path.to_owned()],
        command: Vec::new(),
        user: user.to_owned(),
        labels: BTreeMap::from([("dev.bottle.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
    }
}

/// Makes the image of the bottle's manifest ready: it is there, or pulled, or built. Gives what planning must know of it.
pub async fn agent<E: Engine>(
    engine: &E,
    order: &Order,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<ImageFacts, Failure> {
    let reference = agent::base_image(order);
    match &order.bottle.agent.image {
        ImageSource::Reference(_) => {
            if let Some(facts) = engine.image(&reference).await? {
                return Ok(facts);
            }
            progress(&format!("pulling {reference}"));
            engine.pull(&reference, progress).await.map_err(|error| {
                Failure::launch(
                    format!(
                        "the agent's image {reference} is not on the engine and cannot be pulled: {}",
                        crate::error::chain(&error)
                    ),
                    "bring it by `docker load` or `docker build`, or name another in the bottle's manifest".to_owned(),
                )
            })?;
        }
        ImageSource::Dockerfile { path, text } => {
            progress("building the agent's image");
            let context = context(path, text)?;
            engine.build(&reference, context, progress).await.map_err(|error| {
                Failure::launch(crate::error::chain(&error), format!("the Dockerfile is {}", path.display()))
            })?;
        }
    }
    let facts = engine.image(&reference).await?;
    facts.ok_or_else(|| Failure::launch(format!("the engine does not have {reference}, which it has just made"), None))
}

/// The build context: the Dockerfile, and, where it copies anything, the files beside it.
fn context(path: &Path, text: &str) -> Result<bytes::Bytes, Failure> {
    let io = |e: std::io::Error| Failure::usage(format!("the Dockerfile's folder cannot be read: {e}"), None);
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(false);
    let copies = text.lines().map(|l| l.trim_start().to_ascii_uppercase());
    if copies.into_iter().any(|l| l.starts_with("COPY ") || l.starts_with("ADD ")) {
        let folder = path.parent().unwrap_or(Path::new("."));
        for entry in std::fs::read_dir(folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            if entry.file_name() == "Dockerfile" {
                continue;
            }
            let (from, to) = (entry.path(), PathBuf::from(entry.file_name()));
            let appended = if entry.file_type().map_err(io)?.is_dir() {
                tar.append_dir_all(to, from)
            } else {
                tar.append_path_with_name(from, to)
            };
            appended.map_err(io)?;
        }
    }
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(text.len() as u64);
    tar.append_data(&mut header, "Dockerfile", text.as_bytes()).map_err(io)?;
    Ok(tar.into_inner().map_err(io)?.into())
}

/// The operator's own pins: reference -> content address.
#[derive(Debug, Default)]
pub struct Pins {
    path: PathBuf,
    pins: BTreeMap<String, String>,
}

impl Pins {
    /// Reads `pins.toml` of the operator's configuration; a file that cannot be read is an error, not an empty one.
    pub fn load(config: &Path) -> Result<Self, Failure> {
        let path = config.join("pins.toml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self { path, pins: BTreeMap::new() });
            }
            Err(error) => return Err(Failure::usage(format!("{} cannot be read: {error}", path.display()), None)),
        };
        let pins = toml::from_str(&text)
            .map_err(|e| Failure::usage(format!("{} cannot be read: {}", path.display(), e.message()), None))?;
        Ok(Self { path, pins })
    }

    /// What is written down for a reference.
    pub fn of(&self, reference: &str) -> Option<&str> {
        self.pins.get(reference).map(String::as_str)
    }

    /// Writes down that this is the one.
    pub fn record(&mut self, reference: &str, id: &str) -> Result<(), Failure> {
        self.pins.insert(reference.to_owned(), id.to_owned());
        let failed = |e: String| Failure::launch(format!("{} cannot be written: {e}", self.path.display()), None);
        let text = toml::to_string(&self.pins).map_err(|e| failed(e.to_string()))?;
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| failed(e.to_string()))?;
        }
        crate::state::write_private(&self.path, text.as_bytes()).map_err(|e| failed(e.to_string()))
    }
}
