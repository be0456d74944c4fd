//! What an agent asks for and what a person answers: the words that the sidecar, the keeper and the operator's commands
//! share.

use serde::{Deserialize, Serialize};

/// A change of the bottle that an agent asks for. It names what is to be added, never a whole new file, so that two
/// changes under way never overwrite each other; and it has no place for a credential, which the operator alone names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// Hosts for the allowlist of the agent's pipelock.
    Hosts {
        /// Canonical: lower case, punycode, no final dot, sorted, each once.
        hosts: Vec<String>,
    },
    /// A route of cred-proxy.
    Route(Route),
    /// A finding of git-gate that is claimed to be no secret.
    Finding {
        /// As git-gate's rejection shows it: 12 to 64 hexadecimal digits.
        fingerprint: String,
    },
    /// Another Dockerfile for the bottle.
    Dockerfile {
        /// All of it.
        text: String,
    },
}

/// A route that an agent asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Path prefix at cred-proxy, with a `/` at both ends.
    pub path: String,
    /// `https://host[:port][/path]`.
    pub upstream: String,
    /// How a credential would be put in, as a manifest says it: `Bearer`, `token`, `Basic`, `header:<Name>`, `none`.
    pub scheme: String,
    /// Method and path patterns, as a manifest says them: `GET /v1/models/**`.
    pub allow: Vec<String>,
}

/// A change with its reason, waiting for a person or answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// `p1`, `p2`, ...: counted in each bottle.
    pub id: String,
    /// What is asked for.
    pub change: Change,
    /// The agent's own words: claims, not facts.
    pub justification: String,
    /// When it was asked first, in seconds of Unix time.
    pub asked: u64,
    /// How often it was asked.
    pub times: u64,
}

/// Where a proposal is, as its agent is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// No person has answered, or the answer is being carried out.
    Pending,
    /// In force as it was asked for.
    Approved,
    /// In force in another form: `applied` says which.
    Modified,
    /// A person said no.
    Rejected,
    /// A person said yes, and it could not be done; the bottle is as it was.
    Failed,
    /// It was in force, and is no more: its time is over, it is used up, or a person took it back.
    Ended,
}

/// What an agent is told of a proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
pub struct Answer {
    /// The proposal.
    pub id: String,
    /// Where it is.
    pub status: Status,
    /// In words: a person's reason, what failed, what to do next.
    pub notes: String,
    /// What is in force because of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Change>,
    /// When that ends by itself, in seconds of Unix time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// How a bottle is now, as far as its agent may know: what the MCP resources show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Current {
    /// Hosts that the agent reaches, as pipelock has them.
    pub allowlist: Vec<String>,
    /// Of these, the hosts whose TLS is not opened.
    pub passthrough: Vec<String>,
    /// Routes of cred-proxy, without credentials.
    pub routes: Vec<Route>,
    /// Remotes of git-gate and what may be pushed to them.
    pub remotes: Vec<Remote>,
    /// The image that a Dockerfile must begin with.
    pub from: String,
    /// The bottle's Dockerfile, where it has one.
    pub dockerfile: Option<String>,
    /// What was refused of late, newest first.
    pub denials: Vec<Denial>,
}

/// A git remote, as its agent may know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// Its name.
    pub name: String,
    /// Where it leads.
    pub upstream: String,
    /// Patterns of refs that may be pushed.
    pub refs: Vec<String>,
    /// May a ref be moved anywhere?
    pub force: bool,
    /// May a ref be deleted?
    pub delete: bool,
}

/// Something that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// Who refused: `pipelock`, `cred-proxy`, `git-gate`.
    pub by: String,
    /// The host, the path or the ref.
    pub what: String,
    /// Why.
    pub reason: String,
    /// When last, in seconds of Unix time.
    pub at: u64,
    /// How often.
    pub times: u64,
    /// The tool that asks for it; empty where nothing can be asked.
    pub ask: String,
}
