//! Why a change cannot be asked for, in words for the agent.

use super::{ALLOW_MAX, DOCKERFILE_BYTES_MAX, FINGERPRINT_DIGITS, HOSTS_MAX, JUSTIFICATION_BYTES_MAX, PATH_BYTES_MAX};
use std::fmt;

/// Why a change cannot be asked for. What it quotes of the agent's text is cut short and escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// No host is named.
    #[error("name at least one host")]
    NoHosts,
    /// More hosts than fit into one ask.
    #[error("{0} hosts are more than the {HOSTS_MAX} that fit into one ask; ask for those that you need now")]
    ManyHosts(usize),
    /// A host that cannot be granted.
    #[error("{host} cannot be asked for: {fault}")]
    Host {
        /// As it was written.
        host: Quoted,
        /// What is wrong with it.
        fault: HostFault,
    },
    /// All hosts of the ask are open.
    #[error(
        "already reachable: {0}; if it does not work, the reason is another one (see the resource bottle://denials)"
    )]
    AlreadyReachable(String),
    /// A route's path.
    #[error("the route's path {path} cannot be taken: {fault}")]
    Path {
        /// As it was written.
        path: Quoted,
        /// What is wrong with it.
        fault: PathFault,
    },
    /// The path is another route's, or leads into it.
    #[error("the route's path {path} overlaps the route {taken} that is there already; choose another path")]
    PathTaken {
        /// What is asked for.
        path: String,
        /// Whose it is.
        taken: String,
    },
    /// There is such a route.
    #[error("the route {0} leads there already; use it")]
    SameRoute(String),
    /// A route's upstream.
    #[error("the upstream {upstream} cannot be asked for: {fault}")]
    Upstream {
        /// As it was written.
        upstream: Quoted,
        /// What is wrong with it.
        fault: UpstreamFault,
    },
    /// The upstream's host is on the allowlist, where the agent could bring a key of its own.
    #[error(
        "{host} is reachable directly, by {by} on the allowlist; a host is reached directly or by a route, never both"
    )]
    UpstreamReachable {
        /// The host.
        host: String,
        /// The name on the allowlist.
        by: String,
    },
    /// How a credential is put in.
    #[error("the scheme {0} is none of Bearer, token, Basic, header:<Name>, none")]
    Scheme(Quoted),
    /// A header that cannot carry a credential.
    #[error("the header {0} cannot carry a credential")]
    Header(Quoted),
    /// Nothing would pass.
    #[error("allow is empty, so nothing would pass; say what you need, as \"GET /v1/models/**\"")]
    NoAllow,
    /// Too many patterns.
    #[error("{0} patterns in allow are more than {ALLOW_MAX}; `**` stands for any number of path segments")]
    ManyAllow(usize),
    /// A pattern of `allow`.
    #[error("{pattern} in allow is no pattern: {fault}; write a method and a path, as \"GET /v1/models/**\"")]
    Allow {
        /// As it was written.
        pattern: Quoted,
        /// What is wrong with it.
        fault: PathFault,
    },
    /// Not a fingerprint.
    #[error(
        "a fingerprint is {} to {} hexadecimal digits, as git-gate's rejection shows it",
        FINGERPRINT_DIGITS.start(),
        FINGERPRINT_DIGITS.end()
    )]
    Fingerprint,
    /// Nothing in it.
    #[error("the Dockerfile is empty")]
    EmptyDockerfile,
    /// Too long.
    #[error("the Dockerfile has {0} bytes, more than {DOCKERFILE_BYTES_MAX}")]
    LongDockerfile(usize),
    /// A character that a person would not see.
    #[error("line {line} has the character U+{code:04X}, which a person would not see; leave it out")]
    HiddenCharacter {
        /// Counted from 1.
        line: usize,
        /// The character.
        code: u32,
    },
    /// A line that cannot be carried out.
    #[error("the Dockerfile cannot be carried out: {0}")]
    Dockerfile(#[from] super::dockerfile::Fault),
    /// It changes nothing.
    #[error("this is the bottle's Dockerfile as it is")]
    SameDockerfile,
    /// No reason is given.
    #[error("say in justification why you need it: a person reads it and decides")]
    NoJustification,
    /// Too long to be read.
    #[error("the justification has {0} bytes, more than {JUSTIFICATION_BYTES_MAX}; say it shorter")]
    LongJustification(usize),
}

/// What is wrong with a host. No person is asked about these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostFault {
    /// `https://host`.
    #[error("write the host alone, without a scheme")]
    Scheme,
    /// `host/path`.
    #[error("write the host alone, without a path")]
    Path,
    /// `user@host`.
    #[error("write the host alone, without a user")]
    User,
    /// `host:443`.
    #[error("write the host alone, without a port")]
    Port,
    /// An address, in any spelling.
    #[error("an address is never granted; ask for a host name")]
    Address,
    /// Not a name of the DNS.
    #[error("it is not a host name of letters, digits, hyphens and dots, with 1 to 63 in each part and 253 in all")]
    NotAName,
    /// A star where none can stand.
    #[error("a star stands for subdomains alone: write \"*.\" and a host")]
    Star,
    /// `intranet`.
    #[error("a name without a dot leads nowhere outside; write the full host name")]
    SingleLabel,
    /// A sidecar's, or another of the bottle's.
    #[error("it is inside the bottle and needs no permission")]
    Own,
    /// A name that never leads outside.
    #[error("names under `{0}` are internal and never granted")]
    Internal(&'static str),
    /// Where clouds give out credentials.
    #[error("metadata services are never granted")]
    Metadata,
    /// A name that spells out an address, or always leads to this machine.
    #[error("names under `{0}` lead to addresses of the caller's choice and are never granted")]
    SpellsAddress(&'static str),
    /// `*.com`, `*.github.io`.
    #[error("`{0}` is a suffix under which anyone can have a host; name the host that you need")]
    PublicSuffix(String),
    /// A route leads there.
    #[error(
        "{0} is the upstream of a cred-proxy route and is reached by that route alone; see the resource bottle://routes"
    )]
    OfRoute(String),
    /// A remote leads there.
    #[error("{0} is the host of a git remote and is reached through git-gate alone; see the resource bottle://git")]
    OfRemote(String),
}

/// What is wrong with an upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamFault {
    /// Plain HTTP, or something else.
    #[error("it must begin with https://")]
    NotHttps,
    /// `https://user:password@host`.
    #[error("it cannot hold a user or a password; a person names the credential")]
    User,
    /// `?`, `#`.
    #[error("it cannot have a query or a fragment")]
    Query,
    /// Not a port.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// A star.
    #[error("it must name one host, without a star")]
    Star,
    /// Its host.
    #[error(transparent)]
    Host(#[from] HostFault),
    /// Its path.
    #[error(transparent)]
    Path(#[from] PathFault),
}

/// What is wrong with a path or a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// Not a slash at both ends.
    #[error("it must begin and end with a slash")]
    Slashes,
    /// Everything would be under it.
    #[error("it must have a name between the slashes")]
    Root,
    /// Too long.
    #[error("it can have {PATH_BYTES_MAX} bytes at most")]
    Long,
    /// `//`.
    #[error("it has an empty segment")]
    EmptySegment,
    /// `.`, `..`.
    #[error("it has a dot segment")]
    DotSegment,
    /// Anything that could be read in two ways.
    #[error("only letters, digits and -._~!$&'()+,=:@ can stand in it")]
    Character,
    /// `a*b`.
    #[error("`*` stands for a whole segment, `**` for any number of them")]
    Star,
    /// No space between method and path.
    #[error("it is not a method, a space, and a path that begins with a slash")]
    NotMethodAndPath,
    /// Lower case, CONNECT, TRACE.
    #[error("the method is none that can be allowed")]
    Method,
}

/// The agent's text inside a sentence: escaped, and cut after 80 characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Quoted(String);

impl Quoted {
    const CHARACTERS_MAX: usize = 80;

    pub(super) fn new(text: &str) -> Self {
        let mut cut: String = text.chars().take(Self::CHARACTERS_MAX).collect();
        if cut.len() < text.len() {
            cut.push('…');
        }
        Self(cut)
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Debug for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
