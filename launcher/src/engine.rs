//! What runs containers, as the rest of the launcher sees it: a few verbs over plain data. `docker.rs` alone speaks to
//! a real engine; `fake.rs` keeps names in memory and can be told to fail. One contract test runs on both.
//!
//! Everything is named, and every object carries its [`Owner`] in labels. The ids an engine hands out stay inside the
//! implementation: attaching, starting and removing go by id there, because names need not be unique.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::net::Ipv4Addr;
use tokio::io::{AsyncRead, AsyncWrite};

pub mod body;
pub mod docker;
pub mod fake;

/// Who made an object, and for which bottle. Written as the labels `dev.bottle.{id,host,state,role,agent,version}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The bottle's id.
    pub id: String,
    /// Hash of the host's machine id.
    pub host: String,
    /// Hash of the state directory: a sweep takes back its own alone.
    pub state: String,
    /// The agent's name.
    pub agent: String,
}

/// A network to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Its name, unique on the engine.
    pub name: String,
    /// `internal`, `egress`, `routes` or `world`.
    pub role: String,
    /// Who it belongs to.
    pub owner: Owner,
    /// Its subnet.
    pub subnet: Subnet,
    /// No way out, and no address of the host on it (`--internal`, `inhibit_ipv4`).
    pub internal: bool,
    /// May containers on it talk to one another (`enable_icc`)?
    pub icc: bool,
}

/// An IPv4 network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    /// Network address; host bits are zero.
    pub base: Ipv4Addr,
    /// Prefix length, 0 to 32.
    pub prefix: u8,
}

/// A container to create. What is not said here is the same for all: all capabilities dropped, no-new-privileges, no
/// ports, no mounts from the host, a capped log, standard input open once, `/dev/null` for a health check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its name, unique on the engine.
    pub name: String,
    /// `agent`, `pipelock`, `route-pipelock`, `cred-proxy`, `git-gate`, `supervise`, `wall`, `world-…`.
    pub role: String,
    /// Who it belongs to.
    pub owner: Owner,
    /// Image reference or id.
    pub image: String,
    /// Replaces the image's entry point; `None` keeps it.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command; `None` keeps it.
    pub command: Option<Vec<String>>,
    /// Never a secret: the engine shows it in `inspect` and keeps it on disk.
    pub env: BTreeMap<String, String>,
    /// `uid:gid` or a name of the image's passwd.
    pub user: String,
    /// Where it starts; `None` keeps the image's.
    pub workdir: Option<String>,
    /// The network it is created on.
    pub network: NetworkMode,
    /// Names it knows without asking anybody.
    pub hosts: BTreeMap<String, Ipv4Addr>,
    /// May it ask the engine's DNS? Without it a dead server is set, so that no name leaves.
    pub dns: bool,
    /// Is its root file system read-only?
    pub read_only: bool,
    /// Directories in memory: path -> options (`uid=..,gid=..,mode=..,size=..`).
    pub tmpfs: BTreeMap<String, String>,
    /// Directories on the engine's disk, in anonymous volumes that go with the container. Owner and mode are those of the
    /// image's directory.
    pub volumes: Vec<String>,
    /// Memory limit in bytes.
    pub memory_bytes: u64,
    /// Processors in billionths.
    pub nano_cpus: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Writable layer in bytes, asked for only where the engine's driver has quotas.
    pub disk_bytes: Option<u64>,
    /// `runc`, `runsc`; `None`: the engine's default.
    pub runtime: Option<String>,
    /// Capabilities it keeps. Only the wall and a build have any.
    pub capabilities: Vec<String>,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
}

/// The network that a container is created on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// A network, with a fixed address or one of the engine's choice, and further names it has there.
    On {
        /// Name of the network.
        network: String,
        /// The address; `None` lets the engine choose (on networks that are not ours).
        address: Option<Ipv4Addr>,
        /// Names by which the engine's DNS knows it there.
        aliases: Vec<String>,
    },
    /// The network namespace of another container.
    Of(String),
    /// None but loopback.
    None,
}

/// The seccomp profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seccomp {
    /// Ours, for everything but the wall.
    Bottle,
    /// Ours, plus netfilter sockets.
    Wall,
}

/// One call that changes the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
#[allow(clippy::large_enum_variant, reason = "a plan has a dozen steps, and most of them are the large one")]
pub enum Step {
    /// Creates a network. A conflict of names or subnets is [`Kind::Conflict`] or [`Kind::Overlap`].
    CreateNetwork(NetworkSpec),
    /// Creates a container and does not start it.
    CreateContainer(ContainerSpec),
    /// Puts a created container on one more network.
    Connect {
        /// The container.
        container: String,
        /// The network.
        network: String,
        /// Its address there; `None` lets the engine choose.
        address: Option<Ipv4Addr>,
    },
    /// Starts a created container.
    Start {
        /// The container.
        container: String,
    },
}

/// What takes one step back. Undos are idempotent: "not found" is success. An object of the name that belongs to
/// someone else is left alone, and that is success too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "kebab-case")]
pub enum Undo {
    /// Kills and removes a container with its anonymous volumes.
    RemoveContainer {
        /// Its name.
        name: String,
        /// Whose it must be.
        owner: Owner,
    },
    /// Removes a network.
    RemoveNetwork {
        /// Its name.
        name: String,
        /// Whose it must be.
        owner: Owner,
    },
    /// Takes the name off an image, and the image away when that was its last.
    RemoveImage {
        /// Repository and tag.
        reference: String,
        /// Whose it must be.
        owner: Owner,
    },
}

/// An image to make of a stopped container's files. What it says of itself is said here, and nothing of it by the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitSpec {
    /// Repository and tag.
    pub reference: String,
    /// Whose it is: written as labels.
    pub owner: Owner,
    /// What its label [`CONTENT_LABEL`] says.
    pub content: String,
    /// ENTRYPOINT.
    pub entrypoint: Vec<String>,
    /// CMD.
    pub command: Vec<String>,
    /// ENV, `NAME=value`.
    pub env: Vec<String>,
    /// USER; not empty, or the engine would take the container's.
    pub user: String,
    /// WORKDIR; not empty.
    pub workdir: String,
}

/// A command to run in a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSpec {
    /// The container's name.
    pub container: String,
    /// Program and arguments. Never a secret: engine events show it.
    pub argv: Vec<String>,
    /// `NAME=value`; an exec's environment rests nowhere on disk and is not shown by `inspect`.
    pub env: Vec<(String, String)>,
    /// `uid:gid` or a name.
    pub user: String,
    /// Where it starts.
    pub workdir: Option<String>,
    /// A terminal of its own, with this size (columns, rows)?
    pub tty: Option<(u16, u16)>,
}

/// The streams of an attached container or exec.
pub struct Streams {
    /// Its standard input; dropping it, after a shutdown, is the end of input.
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
    /// Its output. With a terminal all of it is `Out`.
    pub output: futures_util::stream::BoxStream<'static, Result<Chunk, EngineError>>,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Standard output.
    Out(bytes::Bytes),
    /// Standard error.
    Err(bytes::Bytes),
}

/// A running exec: its streams and the handle to resize and await it by.
pub struct Exec {
    /// What [`Engine::resize`] and [`Engine::exec_code`] take.
    pub handle: String,
    /// Its input and output.
    pub streams: Streams,
}

/// What an engine says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineFacts {
    /// Its version, such as `20.10.24`.
    pub version: String,
    /// What it calls its parts, such as `Engine, containerd, runc`: Podman answers to Docker's calls by another name.
    #[serde(default)]
    pub product: String,
    /// API version after negotiation, such as `1.41`.
    pub api: String,
    /// Names of runtimes.
    pub runtimes: Vec<String>,
    /// Does its storage driver take a size for a container's writable layer?
    pub quota: bool,
    /// Its kernel's release.
    pub kernel: String,
    /// Its architecture, as it names it (`x86_64`).
    pub arch: String,
    /// The system it runs on, in its own words (`Debian GNU/Linux 12 (bookworm)`, `Docker Desktop`).
    pub system: String,
    /// Does it run without root's rights on its machine?
    pub rootless: bool,
    /// Subnets taken by its networks, all owners: name -> subnets.
    pub networks: BTreeMap<String, Vec<Subnet>>,
    /// Names of all its containers.
    pub containers: Vec<String>,
}

/// What planning must know of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// Content address (`sha256:…`).
    pub id: String,
    /// Registry digests it is known by (`name@sha256:…`).
    pub digests: Vec<String>,
    /// Its USER, empty for root.
    pub user: String,
    /// Its ENTRYPOINT.
    pub entrypoint: Vec<String>,
    /// Its CMD.
    pub command: Vec<String>,
    /// Its ENV, `NAME=value`.
    pub env: Vec<String>,
    /// Its WORKDIR, empty for none.
    pub workdir: String,
    /// What its label [`CONTENT_LABEL`] says, empty for none.
    #[serde(default)]
    pub content: String,
}

/// The label by which an image of ours says what it is made of.
pub const CONTENT_LABEL: &str = "dev.bottle.content";

/// An image to load: one layer from memory. Its id follows from its content alone, so an unchanged one is not loaded again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScratchImage {
    /// Repository and tag.
    pub tag: String,
    /// Further names of the same image.
    pub aliases: Vec<String>,
    /// Absolute path in the image -> (mode, content). Root owns them; modification times are zero.
    pub files: BTreeMap<String, (u32, bytes::Bytes)>,
    /// Absolute path of an empty directory -> the one user (and group) that it belongs to and that may enter it.
    pub owned: BTreeMap<String, u32>,
    /// ENTRYPOINT.
    pub entrypoint: Vec<String>,
    /// CMD.
    pub command: Vec<String>,
    /// USER.
    pub user: String,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
}

impl ScratchImage {
    /// Names it `name` for people, and `name-<hash>` for bottles, so that two builds of one version on one engine never
    /// run one another's. Its label says the whole hash: an engine that has it need not be sent it again.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.labels.remove(CONTENT_LABEL);
        let mut hash = Sha256::new();
        // Lengths and names keep two different images from giving the same bytes.
        for (path, (mode, bytes)) in &self.files {
            hash.update(format!("{path:?} {mode} {} ", bytes.len()));
            hash.update(bytes);
        }
        let Self { owned, entrypoint, command, user, labels, .. } = &self;
        hash.update(format!("{:?}", (owned, entrypoint, command, user, labels)));
        let mut content = String::new();
        for byte in hash.finalize() {
            let _ = write!(content, "{byte:02x}"); // writing to a String cannot fail
        }
        self.tag = format!("{name}-{}", content.get(..8).unwrap_or_default());
        self.aliases = vec![name.to_owned()];
        self.labels.insert(CONTENT_LABEL.to_owned(), content);
        self
    }
}

/// What an engine holds that carries an owner.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Containers, running or not.
    pub containers: Vec<ObservedContainer>,
    /// Networks.
    pub networks: Vec<ObservedNetwork>,
}

/// A container as the engine has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedContainer {
    /// Its name.
    pub name: String,
    /// Its role label.
    pub role: String,
    /// Its owner labels.
    pub owner: Owner,
    /// Is it running?
    pub running: bool,
    /// Network name -> address, as far as the engine has set one (before the start: the one asked for).
    pub addresses: BTreeMap<String, Option<Ipv4Addr>>,
}

/// A network as the engine has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedNetwork {
    /// Its name.
    pub name: String,
    /// Its role label.
    pub role: String,
    /// Its owner labels.
    pub owner: Owner,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
    /// Is it internal?
    pub internal: bool,
    /// Does the host keep off it (`inhibit_ipv4` or a gateway mode that does the same)?
    pub isolated: bool,
    /// May its containers talk to one another?
    pub icc: bool,
}

/// Why an engine call failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct EngineError {
    /// What could not be done.
    pub what: String,
    /// What kind of failure it is, for those who act on it.
    pub kind: Kind,
    /// The engine's own words.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Kinds of failure that somebody acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No engine answers.
    Unreachable,
    /// It answers and cannot do what is needed.
    TooOld,
    /// There is no such object.
    NotFound,
    /// The name is taken.
    Conflict,
    /// The subnet overlaps another network.
    Overlap,
    /// The program of an exec or a start does not exist (127) or cannot be run (126).
    NoProgram,
    /// It took longer than it may.
    Timeout,
    /// Anything else.
    Other,
}

/// What runs containers. A call whose caller goes away still takes effect.
pub trait Engine: Send + Sync + 'static {
    /// Carries out one step. Applying a step twice is an error (a conflict), not a success.
    fn apply(&self, step: &Step) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Takes one step back.
    fn undo(&self, undo: &Undo) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Ends at once when the container is not running; gives its exit status.
    fn wait_exit(&self, container: &str) -> impl Future<Output = Result<i64, EngineError>> + Send;

    /// Everything that carries owner labels with this `host` and `state`.
    fn observe(&self, host: &str, state: &str) -> impl Future<Output = Result<Observed, EngineError>> + Send;

    /// What the engine says about itself.
    fn facts(&self) -> impl Future<Output = Result<EngineFacts, EngineError>> + Send;

    /// What it knows of an image; `None` when it has none of that name.
    fn image(&self, reference: &str) -> impl Future<Output = Result<Option<ImageFacts>, EngineError>> + Send;

    /// Loads an image unless its content is there already under its tag; gives its id.
    fn load(&self, image: &ScratchImage) -> impl Future<Output = Result<String, EngineError>> + Send;

    /// Asks the registry for an image, telling `progress` a line at a time.
    fn pull(
        &self,
        reference: &str,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Builds an image from a tar archive with a `Dockerfile` at its top, telling `progress` a line at a time.
    fn build(
        &self,
        tag: &str,
        context: bytes::Bytes,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Makes `tag` from `base`: one file added, entry point and labels replaced, health check off. Nothing else is left.
    fn derive(
        &self,
        base: &str,
        tag: &str,
        file: (&str, u32, bytes::Bytes),
        entrypoint: &[String],
        labels: &BTreeMap<String, String>,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Makes an image of the files of a container that does not run; volumes and what is in memory are not among them.
    /// Gives its content address.
    fn commit(&self, container: &str, image: &CommitSpec) -> impl Future<Output = Result<String, EngineError>> + Send;

    /// Unpacks a tar archive, as it streams in, into a directory of a created container (`/` for absolute members).
    fn put(
        &self,
        container: &str,
        directory: &str,
        archive: futures_util::stream::BoxStream<'static, std::io::Result<bytes::Bytes>>,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// The tar archive of a path of a container, running or not; `None` when there is no such path.
    #[allow(clippy::type_complexity, reason = "a stream of bytes is one thing to its reader")]
    fn get(
        &self,
        container: &str,
        path: &str,
    ) -> impl Future<Output = Result<Option<Box<dyn AsyncRead + Send + Unpin>>, EngineError>> + Send;

    /// Attaches to the standard streams of a created container, before it starts.
    fn attach(&self, container: &str) -> impl Future<Output = Result<Streams, EngineError>> + Send;

    /// Runs a command in a running container.
    fn exec(&self, spec: &ExecSpec) -> impl Future<Output = Result<Exec, EngineError>> + Send;

    /// Sets the size of an exec's terminal (columns, rows).
    fn resize(&self, handle: &str, size: (u16, u16)) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Status of an exec that has ended; `None` while it runs.
    fn exec_code(&self, handle: &str) -> impl Future<Output = Result<Option<i64>, EngineError>> + Send;

    /// Bytes in the writable layer of a container.
    fn disk_used(&self, container: &str) -> impl Future<Output = Result<u64, EngineError>> + Send;
}

impl Subnet {
    /// Reads `a.b.c.d/p`. Errors: not an address, a prefix over 32, host bits that are set.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (base, prefix) = text.split_once('/').ok_or_else(|| format!("{text:?} is not address/prefix"))?;
        let base: Ipv4Addr = base.parse().map_err(|_| format!("{base:?} is not an IPv4 address"))?;
        let prefix: u8 =
            prefix.parse().ok().filter(|p| *p <= 32).ok_or_else(|| format!("{prefix:?} is not a prefix length"))?;
        let subnet = Self { base, prefix };
        if u32::from(base) & !subnet.mask() != 0 {
            return Err(format!("{text} has host bits set"));
        }
        Ok(subnet)
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// Does it share an address with `other`?
    pub fn overlaps(self, other: Self) -> bool {
        let mask = self.mask() & other.mask();
        u32::from(self.base) & mask == u32::from(other.base) & mask
    }

    /// Is `address` in it?
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == u32::from(self.base)
    }

    /// The `n`-th address, counted from the network address.
    pub fn address(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base).wrapping_add(n))
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl EngineError {
    /// An error with the engine's own words behind it.
    pub fn new(
        what: impl Into<String>,
        kind: Kind,
        source: impl Into<Option<Box<dyn std::error::Error + Send + Sync>>>,
    ) -> Self {
        Self { what: what.into(), kind, source: source.into() }
    }
}
