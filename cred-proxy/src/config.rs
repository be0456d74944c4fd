//! What cred-proxy is told: its table of routes and the credentials they use. The launcher writes these types, the
//! sidecar reads them; nobody else knows the format.
//!
//! The control channel is standard input: one JSON object a line, each a [`Command`]. Every command is answered by one
//! [`Event`] line on standard output. The end of input ends the sidecar.

use crate::Secret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
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
        config: Config,
        /// Credential bytes by the name that routes use.
        secrets: BTreeMap<String, Secret>,
    },
}

/// The longest line of standard input; a longer one is refused whole.
pub const LINE_BYTES_MAX: usize = 4 << 20;

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
    /// Is this upstream's TLS opened by the proxy on the way (its certificate is then `inspected_ca`'s)?
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
