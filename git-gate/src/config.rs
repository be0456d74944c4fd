//! What git-gate is told: its remotes, their credentials, and what may be pushed. The launcher writes these types, the
//! sidecar reads them; nobody else knows the format.
//!
//! The control channel is standard input: one JSON object a line, each a [`Command`]. Every command is answered by one
//! [`Event`] line on standard output. The end of input ends the sidecar.

use crate::Secret;
use crate::limits::Limits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// The name by which the agent reaches the sidecar.
pub const NAME: &str = "git-gate";

/// The port of the git protocol, on which it listens (IANA: 9418).
pub const PORT: u16 = 9418;

/// A known secret shorter than this would be found in every other file.
pub const KNOWN_BYTES_MIN: usize = 8;

/// One line of standard input.
#[derive(Debug, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// The first line, and later any new configuration: swapped in whole, or refused whole. What runs goes on by the
    /// old one. Exceptions that came by [`Command::AllowFinding`] stay.
    Configure {
        /// The configuration.
        config: Box<Config>,
        /// Secret bytes by the name that remotes use.
        secrets: BTreeMap<String, Secret>,
    },
    /// From now on this finding does not refuse a push to this remote.
    AllowFinding {
        /// All 64 hex digits.
        fingerprint: String,
        /// The remote's name.
        remote: String,
        /// Ends with the first push that the upstream took thanks to it, or may have taken: one that it did not take
        /// leaves it in force.
        #[serde(default)]
        once: bool,
    },
    /// Takes [`Command::AllowFinding`], or an exception of the configuration, back. What is not there is no error.
    RevokeFinding {
        /// All 64 hex digits.
        fingerprint: String,
        /// The remote's name.
        remote: String,
    },
}

/// The line that makes the sidecar take `config`, newline included: the one place that writes secrets out.
pub fn configure_line(config: &Config, secrets: &BTreeMap<String, Secret>) -> serde_json::Result<Zeroizing<Vec<u8>>> {
    let secrets = secrets.iter().map(|(name, secret)| (name.as_str(), secret.expose())).collect();
    line(&Outgoing::Configure { config, secrets })
}

/// The line for [`Command::AllowFinding`], newline included.
pub fn allow_finding_line(fingerprint: &str, remote: &str, once: bool) -> serde_json::Result<Zeroizing<Vec<u8>>> {
    line(&Outgoing::AllowFinding { fingerprint, remote, once })
}

/// The line for [`Command::RevokeFinding`], newline included.
pub fn revoke_finding_line(fingerprint: &str, remote: &str) -> serde_json::Result<Zeroizing<Vec<u8>>> {
    line(&Outgoing::RevokeFinding { fingerprint, remote })
}

#[derive(Serialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
enum Outgoing<'a> {
    Configure { config: &'a Config, secrets: BTreeMap<&'a str, &'a str> },
    AllowFinding { fingerprint: &'a str, remote: &'a str, once: bool },
    RevokeFinding { fingerprint: &'a str, remote: &'a str },
}

fn line(command: &Outgoing<'_>) -> serde_json::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(serde_json::to_vec(command)?);
    line.push(b'\n');
    Ok(line)
}

/// The remotes, and how to get out to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen; an address of the bottle's internal network. Only the first `Configure` sets it.
    pub listen: SocketAddr,
    /// The remotes. With none every name is refused.
    pub remotes: Vec<Remote>,
    /// The CONNECT proxy for every https remote (route-pipelock), `http://host:port`. Absent when there is no https
    /// remote, or when the sidecar is deployed alone. ssh remotes are reached straight.
    #[serde(default)]
    pub proxy: Option<String>,
    /// PEM of the CA that re-signs inspected remotes (route-pipelock's own CA).
    #[serde(default)]
    pub inspected_ca: Option<String>,
    /// PEM of the roots for https remotes that are not inspected; public roots and the operator's own.
    #[serde(default)]
    pub upstream_roots: String,
    /// Names in `secrets` whose values are looked for in every push, in every spelling; each remote's own credential is
    /// looked for anyway.
    #[serde(default)]
    pub known: Vec<String>,
    /// Where packs stay while they are scanned. The files in it are unlinked as soon as they are made.
    pub spool: PathBuf,
    /// Every limit; those not named have their defaults.
    #[serde(default)]
    pub limits: Limits,
}

/// A git upstream behind the gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    /// The agent reaches it as `git://git-gate/<name>.git`, and without `.git`: letters, digits, `.`, `_`, `-`, and `/`
    /// between them.
    pub name: String,
    /// `ssh://[user@]host[:port]/path` (user `git` when none is given) or `https://host[:port]/path`; the tests' worlds
    /// use `http://` too.
    pub upstream: String,
    /// What opens the upstream.
    pub credential: Credential,
    /// For ssh: the host's public key as in a known_hosts file, `ssh-ed25519 AAAA..`, one or several, one a line. Only
    /// these types are accepted. Without one there is no connection.
    #[serde(default)]
    pub host_key: Option<String>,
    /// For https: is this upstream's TLS opened by the proxy on the way (its certificate is then `inspected_ca`'s)?
    #[serde(default)]
    pub inspected: bool,
    /// What may be pushed.
    #[serde(default)]
    pub push: Push,
    /// Fingerprints (64 hex digits) of findings that a person has judged false.
    #[serde(default)]
    pub exceptions: Vec<String>,
}

/// How a remote is opened; the strings are names in `secrets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Credential {
    /// An ssh private key in OpenSSH or PEM format.
    SshKey {
        /// The key.
        secret: String,
        /// What opens it, when it is encrypted.
        #[serde(default)]
        passphrase: Option<String>,
    },
    /// `Authorization: Bearer <secret>` (RFC 6750).
    Bearer {
        /// The token.
        secret: String,
    },
    /// `Authorization: Basic <base64(secret)>` (RFC 7617), which is what forges take a token by.
    Basic {
        /// `user:password`.
        secret: String,
    },
    /// Nothing: a public https upstream, read-only as a rule.
    None,
}

/// What may be pushed to a remote. The default is nothing at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// Full ref names, where `*` stands for any characters, as in a refspec of git: `refs/heads/agent/*` is also
    /// `refs/heads/agent/a/b`. A ref that none of them matches is refused.
    #[serde(default)]
    pub refs: Vec<String>,
    /// May a ref be moved to a commit that does not descend from its present one?
    #[serde(default)]
    pub force: bool,
    /// May a ref be deleted?
    #[serde(default)]
    pub delete: bool,
    /// The largest pack in bytes, when less than the limit of all.
    #[serde(default)]
    pub max_pack: Option<u64>,
}

/// One line of standard output that answers a command or tells the keeper something. Operations are told apart by
/// `"event":"operation"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Listening with its first configuration: the agent may be started.
    Ready,
    /// A later configuration, or an exception or its taking back, is in force.
    Configured,
    /// A command was refused and changed nothing.
    Refused {
        /// Why, for the operator.
        reason: String,
    },
    /// One operation has ended.
    Operation(Operation),
}

/// One operation of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The remote's name; empty when it named none.
    pub remote: String,
    /// What was asked for.
    pub service: Service,
    /// What a push wanted to do to refs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refs: Vec<RefUpdate>,
    /// How it ended.
    pub outcome: Outcome,
    /// Pack bytes of a push, or bytes sent to the agent by a fetch.
    pub bytes: u64,
    /// Milliseconds from the connection's first packet to the end.
    pub ms: u64,
    /// What the scan found, excused findings included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Why it was refused or failed; for the operator alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What an operation was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// `git-upload-pack`: clone, fetch, ls-remote.
    Fetch,
    /// `git-receive-pack`: push.
    Push,
    /// Anything else, which is always refused.
    Unknown,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// A fetch was served, or the upstream has taken the whole push.
    Done,
    /// The gate said no; nothing was sent to the upstream.
    Refused,
    /// The upstream said no to a ref at least.
    Rejected,
    /// The upstream could not be reached or broke off before anything could change.
    Failed,
    /// A push was forwarded and the upstream did not say what became of it.
    Unknown,
    /// The agent went away before the end; nothing was sent to the upstream.
    Gone,
}

/// What a push wanted of one ref.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefUpdate {
    /// Its full name, control characters escaped.
    pub name: String,
    /// The object it stood at, all zeros when new.
    pub old: String,
    /// The object it was to stand at, all zeros when deleted.
    pub new: String,
    /// What the upstream answered, `ok` or its reason; absent when it was not asked or did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

/// What the scan found at one place, without the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule's name.
    pub rule: String,
    /// In what: `blob`, `commit`, `tag`, `file name`, `ref name`, `push option`.
    pub kind: String,
    /// The object, or the place where it is none.
    pub source: String,
    /// The path, when the push shows one; control characters escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A commit of the push that has that path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The line it begins on, from 1.
    pub line: u64,
    /// The secret's length in bytes.
    pub length: u64,
    /// SHA-256 over rule, path and secret, in 64 hex digits: what an exception names.
    pub fingerprint: String,
    /// Why it did not refuse the push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excused: Option<Excused>,
}

/// Why a finding did not refuse a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Excused {
    /// The operator made an exception.
    Exception,
    /// The upstream has the same secret already, at the same place.
    AlreadyUpstream,
}
