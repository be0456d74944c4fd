//! Manifests: Markdown files whose YAML frontmatter says what a bottle may do and what an agent is.
//!
//! Everything below is valid by construction: a [`Bottle`] that exists can be planned. Loading shows every error of a
//! load at once, each with file, line, column and what to do.

use crate::manifest::host::{Host, HostPattern};
use crate::provider::Provider;
use cred_proxy::config::Auth;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

pub mod agent;
mod bottle;
pub mod catalog;
mod egress;
pub mod env;
pub mod error;
mod extends;
mod frontmatter;
mod git;
pub mod host;
mod limits;
pub mod load;
pub mod name;
pub mod places;
mod provider;
mod proxy_limits;
mod reader;
mod report;
mod role;
mod route;
pub mod schema;
pub mod skill;
mod source;
mod subagent;
mod suggest;
mod token;
mod toml_tree;
mod tree;
mod units;
mod upstream;
pub mod user_config;
mod yaml;

#[cfg(test)]
mod tests;

pub use error::{LoadError, LoadErrors};
pub use places::Places;
pub use skill::Skill;
pub use user_config::UserConfig;

/// Seconds as a person writes them: a whole number and `s`, `m`, `h` or `d`. `Err`: what is wrong and what to write.
pub fn seconds(text: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    units::seconds(text, range).map_err(|e| format!("{}; {}", e.message, e.hint))
}

/// A bottle: what an agent in it may reach and hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bottle {
    /// The name of the manifest.
    pub name: String,
    /// The file it was read from.
    pub file: PathBuf,
    /// Where the agent's container comes from.
    pub agent: AgentSource,
    /// Environment of the agent, by variable name.
    pub env: BTreeMap<String, EnvValue>,
    /// What the agent's pipelock lets through.
    pub egress: Egress,
    /// The routes of cred-proxy.
    pub routes: Vec<Route>,
    /// What git is told, and the remotes of git-gate.
    pub git: Git,
    /// What an agent may use up at cred-proxy.
    pub proxy_limits: cred_proxy::config::Limits,
    /// May the agent ask for more?
    pub supervise: bool,
    /// Resource limits of the agent.
    pub limits: Limits,
    /// What runs the agent's container.
    pub runtime: Runtime,
    /// What of the current directory comes along.
    pub workspace: WorkspaceMode,
    /// The skills that every agent in it finds.
    #[serde(default)]
    pub skills: Vec<Skill>,
}

/// Where the agent's container comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSource {
    /// What kind of agent it is.
    pub provider: Provider,
    /// An image, or the Dockerfile to build one from.
    pub image: ImageSource,
    /// `None` is `auto`: the image's user, or uid 1000 `agent` where that is root.
    pub user: Option<String>,
}

/// An image, or how to build one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageSource {
    /// A reference the engine has or can pull.
    Reference(String),
    /// Absolute path of a Dockerfile, read when the manifest was.
    Dockerfile {
        /// Where it was read.
        path: PathBuf,
        /// Its text.
        text: String,
    },
}

/// Where the value of an environment variable comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnvValue {
    /// As written.
    Literal(String),
    /// `${NAME}`: the host's variable of this name, when the bottle is launched.
    Host(String),
    /// `"?Question"`: asked for at launch, without echo.
    Ask(String),
}

/// What the agent's pipelock lets through, and by which way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// Hosts the agent may reach; nothing else.
    pub allowlist: Vec<HostPattern>,
    /// Hosts of the allowlist whose TLS is not opened.
    pub passthrough: Vec<HostPattern>,
    /// Hosts that may resolve to private addresses.
    pub allow_private: Vec<Host>,
    /// Further PEM roots for every leg to the outside: the text of the file.
    pub upstream_roots: Option<String>,
    /// May the agent's own `Authorization` and `X-Api-Key` pass its pipelock?
    pub agent_credentials: bool,
    /// Hosts of remotes that may be on the allowlist all the same.
    pub also_direct: Vec<Host>,
    /// An existing engine network to go out by; `None`: the bottle's own.
    pub network: Option<String>,
}

/// A path prefix of cred-proxy and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Begins and ends with `/`.
    pub path: String,
    /// `https` unless the manifest says `http`.
    pub upstream: Upstream,
    /// How the credential is put in.
    pub auth: Auth,
    /// Where the credential comes from; `None` only with [`Auth::None`].
    pub token_ref: Option<TokenRef>,
    /// Is the upstream's TLS opened by route-pipelock? The default by role is already worked in.
    pub inspect: bool,
    /// What the agent's tools are told about the route.
    pub roles: Vec<Role>,
    /// `METHOD /pattern` lines; the default by role is already worked in.
    pub allow: Vec<String>,
    /// Line of the route in the manifest, counted from 1.
    pub line: usize,
}

/// An upstream's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// TLS?
    pub https: bool,
    /// The host.
    pub host: Host,
    /// The port, also where it is the scheme's own.
    pub port: u16,
    /// Path on the upstream that the route's path is replaced by; begins with `/`, does not end with one; empty for none.
    pub base: String,
}

/// Where a credential comes from. It is read when the bottle is launched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenRef {
    /// A variable of the host's environment.
    Env(String),
    /// A file, absolute.
    File(PathBuf),
    /// A command's standard output, run again every `ttl_s` seconds.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
        /// Seconds after which it is run again.
        ttl_s: Option<u64>,
    },
}

/// What the agent's tools are told about a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// `ANTHROPIC_BASE_URL`.
    AnthropicBaseUrl,
    /// `OPENAI_BASE_URL`.
    OpenaiBaseUrl,
    /// npm's registry.
    NpmRegistry,
    /// git `insteadOf`.
    GitInsteadof,
    /// tea's login.
    TeaLogin,
}

/// Who commits, and where commits may go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Git {
    /// Who the agent's commits are by.
    pub user: Option<GitUser>,
    /// The remotes of git-gate.
    pub remotes: Vec<Remote>,
}

/// `user.name` and `user.email`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitUser {
    /// A name.
    pub name: String,
    /// An address.
    pub email: String,
}

/// A git upstream behind git-gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// Its name: the agent reaches it as `git://git-gate/<name>.git`.
    pub name: String,
    /// Where it is.
    pub upstream: RemoteUpstream,
    /// What opens it.
    pub credential: RemoteCredential,
    /// What may be pushed; nothing, unless the manifest says so.
    pub push: git_gate::config::Push,
    /// Fingerprints of findings that a person has judged false.
    pub exceptions: Vec<String>,
    /// Line of the remote in the manifest, counted from 1.
    pub line: usize,
}

/// A git upstream's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemoteUpstream {
    /// Reached straight.
    Ssh {
        /// Who logs in.
        user: String,
        /// The host.
        host: Host,
        /// The port.
        port: u16,
        /// From the top, with `/` in front, or from a home, with `~`.
        path: String,
    },
    /// Reached by route-pipelock.
    Https {
        /// The host.
        host: Host,
        /// The port.
        port: u16,
        /// With `/` in front.
        path: String,
    },
}

/// What opens a remote. It is read when the bottle is launched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemoteCredential {
    /// An ssh key.
    SshKey {
        /// The file of the private key, absolute.
        identity_file: PathBuf,
        /// The host's public keys, one a line; no other host is spoken to.
        host_key: String,
    },
    /// `Authorization: Bearer`.
    Bearer(TokenRef),
    /// `Authorization: Basic`.
    Basic {
        /// Who; `None`: what is read is `user:password`.
        user: Option<String>,
        /// The password, which for a forge is a token.
        password: TokenRef,
    },
    /// Nothing: a public upstream.
    None,
}

/// Resource limits of the agent's container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Processors; may be a fraction.
    pub cpus: f64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes the agent may write; a watch, not a wall, where the engine has no quota.
    pub disk_bytes: u64,
    /// Seconds after which the bottle is stopped; `None`: no limit.
    pub time_s: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cpus: 2.0, memory_bytes: 4 << 30, pids: 512, disk_bytes: 20 << 30, time_s: None }
    }
}

/// What runs the agent's container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// gVisor where the engine has it and the wall holds there, else runc.
    #[default]
    Auto,
    /// runc.
    Runc,
    /// gVisor, or no launch.
    Runsc,
}

impl Runtime {
    /// As manifests write them.
    pub const WORDS: [(&str, Self); 3] = [("auto", Self::Auto), ("runc", Self::Runc), ("runsc", Self::Runsc)];
}

/// What of the current directory comes along.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkspaceMode {
    /// A copy, saved at the end.
    #[default]
    Copy,
    /// Nothing.
    None,
}

impl WorkspaceMode {
    /// As manifests write them.
    pub const WORDS: [(&str, Self); 2] = [("copy", Self::Copy), ("none", Self::None)];
}

/// An agent: who works in a bottle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// The name of the manifest.
    pub name: String,
    /// The file it was read from.
    pub file: PathBuf,
    /// The bottle it asks for; ignored, with a warning, in a repository's file.
    pub bottle: Option<String>,
    /// One line for people.
    pub description: String,
    /// The system prompt: the body of the file.
    pub prompt: String,
    /// The skills that it brings along, besides those of its bottle.
    pub skills: Vec<Skill>,
}
