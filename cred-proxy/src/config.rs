//! What cred-proxy is told: its table of routes and the credentials they use. The launcher writes these types, the
//! sidecar reads them; nobody else knows the format.
//!
//! The control channel is standard input: one JSON object a line, each a [`Command`]. Every [`Command::Configure`] is
//! answered by one [`Event`] line on standard output ([`Event::Ready`], [`Event::Configured`] or [`Event::Refused`]); other
//! events and the requests' log lines may stand between. The end of input ends the sidecar.
//!
//! # A credential that the upstream rejects
//! [`Config::refreshable`] names the secrets that the keeper can fetch anew. When an upstream answers 401 to a request
//! with such a secret, the reply is held and one [`Event::Rejected`] tells the keeper; there is never a second one
//! for the same secret before the first is answered, nor within [`REJECTED_EVERY`], so that an agent cannot make a host
//! run commands. The answer is a [`Command::Configure`] with another secret (the request is sent once more, if its body
//! can be) or [`Command::Unchanged`] (the 401 is passed on). It is awaited for [`REFRESH_WITHIN`].

use crate::Secret;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use zeroize::Zeroizing;

/// The name by which the agent reaches the sidecar.
pub const NAME: &str = "cred-proxy";

/// The port on which it listens.
pub const PORT: u16 = 9099;

/// One line of standard input.
#[derive(Debug, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// The first line, and later any new table: swapped in whole, or refused whole.
    Configure {
        /// The table.
        config: Box<Config>,
        /// Credential bytes by the name that routes use.
        secrets: BTreeMap<String, Secret>,
    },
    /// The answer to [`Event::Rejected`] when there is no other secret to be had. It is not answered itself.
    Unchanged {
        /// The secret's name.
        secret: String,
    },
}

/// The least time between two [`Event::Rejected`] for one secret.
pub const REJECTED_EVERY: Duration = Duration::from_secs(10);

/// How long a request waits for the answer to [`Event::Rejected`]; then the 401 is passed on.
pub const REFRESH_WITHIN: Duration = Duration::from_secs(20);

/// The line that makes the sidecar take `config`, newline included: the one place that writes secrets out.
pub fn configure_line(config: &Config, secrets: &BTreeMap<String, Secret>) -> serde_json::Result<Zeroizing<Vec<u8>>> {
    #[derive(Serialize)]
    #[serde(tag = "command", rename_all = "kebab-case")]
    enum Outgoing<'a> {
        Configure { config: &'a Config, secrets: BTreeMap<&'a str, &'a str> },
    }
    let secrets = secrets.iter().map(|(name, secret)| (name.as_str(), secret.expose())).collect();
    let mut line = Zeroizing::new(serde_json::to_vec(&Outgoing::Configure { config, secrets })?);
    line.push(b'\n');
    Ok(line)
}

/// The line of [`Command::Unchanged`], newline included.
pub fn unchanged_line(secret: &str) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&serde_json::json!({ "command": "unchanged", "secret": secret }))?;
    line.push(b'\n');
    Ok(line)
}

/// The table of routes and how to get out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen; an address of the bottle's internal network. Only the first `Configure` sets it.
    pub listen: SocketAddr,
    /// The CONNECT proxy for every upstream (route-pipelock). Absent only when the sidecar is deployed alone.
    pub proxy: Option<String>,
    /// The routes; the longest matching path wins.
    pub routes: Vec<Route>,
    /// PEM of the CA that re-signs inspected upstreams (route-pipelock's own CA).
    #[serde(default)]
    pub inspected_ca: Option<String>,
    /// PEM of the roots for upstreams that are not inspected; public roots and the operator's own.
    #[serde(default)]
    pub upstream_roots: String,
    /// Names of secrets that the keeper can fetch anew when an upstream rejects them.
    #[serde(default)]
    pub refreshable: BTreeSet<String>,
    /// Paths of routes that are for one request: the first one that is forwarded uses its route up, also in every later table
    /// in which the route leads where it led. [`Event::UsedUp`] tells when it has ended.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub once: BTreeSet<String>,
    /// What an agent may use up. A later table may change them; what is open goes on under the old ones.
    #[serde(default)]
    pub limits: Limits,
}

impl Config {
    /// No route, no proxy, no roots, the default limits.
    pub fn closed(listen: SocketAddr) -> Self {
        Self {
            listen,
            proxy: None,
            routes: Vec::new(),
            inspected_ca: None,
            upstream_roots: String::new(),
            refreshable: BTreeSet::new(),
            once: BTreeSet::new(),
            limits: Limits::default(),
        }
    }
}

/// What an agent may use up, and how long things may take or be quiet. There is no limit on a whole request: a stream
/// may be long. Each is checked when a table is read: zero and more than the named most are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of a request's head; 65,536 unless given, at least 1,024, at most 1,048,576.
    pub head_bytes: u32,
    /// Connections of agents at one time, the next one waits; 1,024 unless given, at most 65,536. A later table does not
    /// change it.
    pub connections: u32,
    /// Requests at one time, the next one is refused with 503; 1,024 unless given, at most 65,536.
    pub requests: u32,
    /// Bytes of one request's body, more is refused with 413; no limit unless given.
    pub body_bytes: Option<u64>,
    /// Seconds for a request's head, and between two requests on a connection; 75 unless given, at most 86,400.
    pub head_seconds: u32,
    /// Seconds without a byte in a body or on an upgraded connection; 300 unless given, at most 86,400.
    pub idle_seconds: u32,
    /// Seconds for the upstream's name, connection, CONNECT and TLS together; 10 unless given, at most 600.
    pub connect_seconds: u32,
    /// Seconds from the last byte of a request to the head of its reply (a model may think for long); 600 unless given, at most
    /// 86,400.
    pub reply_seconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 64 << 10,
            connections: 1024,
            requests: 1024,
            body_bytes: None,
            head_seconds: 75,
            idle_seconds: 300,
            connect_seconds: 10,
            reply_seconds: 600,
        }
    }
}

/// A path prefix, where it leads, and what is put into the request on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Path prefix, beginning and ending with `/`.
    pub path: String,
    /// `https://host[:port][/base]` (or `http://` in the tests' worlds and standalone).
    pub upstream: String,
    /// How the credential is put in.
    pub auth: Auth,
    /// Name in `secrets`; absent with [`Auth::None`].
    #[serde(default)]
    pub secret: Option<String>,
    /// Is this upstream's TLS opened by the proxy on the way (its certificate is then `inspected_ca`'s)? No unless given.
    #[serde(default)]
    pub inspected: bool,
    /// What may pass: `METHOD /path/pattern`, relative to the route; `*` is one segment, `**` any number, `*` as method is any.
    pub allow: Vec<String>,
}

/// How a credential is put into a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// `Authorization: Bearer <secret>` (RFC 6750).
    Bearer,
    /// `Authorization: token <secret>`, as Gitea and GitHub take it.
    Token,
    /// `Authorization: Basic <base64(secret)>` (RFC 7617); the secret is `user:password`.
    Basic,
    /// `<name>: <secret>`.
    Header(String),
    /// Nothing is put in.
    None,
}

/// One line of standard output that answers a command or tells the keeper something. Request log lines have
/// `"event":"request"` too and are told apart by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Listening with its first table: the agent may be started.
    Ready,
    /// A later table is in force.
    Configured,
    /// A table was refused and changed nothing.
    Refused {
        /// Why, for the operator.
        reason: String,
    },
    /// An upstream answered 401 to a request with a secret of [`Config::refreshable`]: is there another one?
    Rejected {
        /// The secret's name.
        secret: String,
        /// The path of the route that the request took.
        route: String,
    },
    /// The one request of a route of [`Config::once`] has ended; its [`Event::Request`] came before.
    UsedUp {
        /// The route's path.
        route: String,
    },
    /// One request has ended.
    Request {
        /// The route's path, empty when none matched.
        route: String,
        /// The method.
        method: String,
        /// The path as asked, without the query.
        path: String,
        /// The status sent to the agent.
        status: u16,
        /// Body bytes sent to the agent.
        bytes: u64,
        /// Milliseconds from the request's head to the reply's end.
        ms: u64,
        /// Was a credential put in?
        credential: bool,
        /// Why a request was refused or failed; for the operator alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

/// [`Event::Request`] as it is written, of what the sidecar has: there is one for each request.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "request")]
#[allow(missing_docs, reason = "they are the event's")]
pub struct RequestLine<'a> {
    pub route: &'a str,
    pub method: &'a str,
    pub path: &'a str,
    pub status: u16,
    pub bytes: u64,
    pub ms: u64,
    pub credential: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
}
