//! What a pipelock lets through: the decision, apart from the file it is written into.
//!
//! A [`Policy`] is valid by construction: every name in it is one pipelock can match, so nothing is listed that would
//! silently never work, and nothing that opens more than it says (a bare `*`, a star in the middle).

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

/// More names than this in one list are refused; pipelock walks its lists for every request.
pub const NAMES_MAX: usize = 4096;

/// A header's name is no longer.
const HEADER_BYTES_MAX: usize = 256;

/// Who a pipelock serves and what it lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    listen: SocketAddr,
    allowlist: BTreeSet<String>,
    passthrough: BTreeSet<String>,
    trusted: BTreeSet<String>,
    addresses: BTreeSet<Ipv4Addr>,
    credential_headers: BTreeSet<String>,
    client: Client,
}

/// Whose requests a pipelock carries: an attacker's, or our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// The agent, who holds no credential of ours.
    Agent {
        /// May its `Authorization` and `X-Api-Key` pass?
        credentials: bool,
    },
    /// cred-proxy and git-gate, who have put a credential into what they send.
    Routes,
}

/// The policy of the agent's pipelock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentPolicy {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Hosts the agent may reach: `host`, or `*.host` for it and all below.
    #[serde(default)]
    pub allowlist: Vec<String>,
    /// Hosts whose TLS is not opened.
    #[serde(default)]
    pub passthrough: Vec<String>,
    /// Hosts that may resolve to private addresses.
    #[serde(default)]
    pub allow_private: Vec<String>,
    /// The bottle's own sidecars: they stay reachable for a client that ignores `NO_PROXY`.
    #[serde(default)]
    pub sidecars: Vec<Sidecar>,
    /// May the agent's own `Authorization` and `X-Api-Key` pass?
    #[serde(default)]
    pub agent_credentials: bool,
}

/// A sidecar the agent may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sidecar {
    /// The name the agent knows it by.
    pub name: String,
    /// Its address on the internal network; this one alone, never the network, is exempt from the SSRF check.
    pub address: Ipv4Addr,
}

/// The policy of the pipelock that stands before the upstreams of routes and remotes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutePolicy {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Hosts of routes and of https remotes.
    #[serde(default)]
    pub allowlist: Vec<String>,
    /// Hosts whose TLS is not opened.
    #[serde(default)]
    pub passthrough: Vec<String>,
    /// Hosts that may resolve to private addresses.
    #[serde(default)]
    pub allow_private: Vec<String>,
    /// Headers into which our sidecars put a credential on the way to a host whose TLS is opened: they alone may carry one.
    #[serde(default)]
    pub credential_headers: Vec<String>,
}

/// Why there is no such policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    /// Something in a list is not a name that pipelock can match.
    #[error("{list} has {text:?}: {reason}")]
    Name {
        /// The list.
        list: &'static str,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a header's name.
    #[error("credential_headers has {0:?}, which is not a header's name")]
    Header(String),
    /// A list is too long.
    #[error("{list} has {count} names, more than {NAMES_MAX}")]
    TooMany {
        /// The list.
        list: &'static str,
        /// Its length.
        count: usize,
    },
    /// The port is the one the numbers are served on.
    #[error("pipelock cannot listen on {0}: that port is kept for its metrics")]
    Port(SocketAddr),
    /// An address that would exempt more than one machine from the SSRF check, or none.
    #[error("{0} is not a sidecar's address")]
    Address(Ipv4Addr),
}

impl Policy {
    /// The policy of the agent's pipelock.
    pub fn for_agent(policy: AgentPolicy) -> Result<Self, BadPolicy> {
        let client = Client::Agent { credentials: policy.agent_credentials };
        let mut built =
            Self::new(policy.listen, &policy.allowlist, &policy.passthrough, &policy.allow_private, client)?;
        for sidecar in &policy.sidecars {
            let address = sidecar.address;
            if address.is_unspecified() || address.is_loopback() || address.is_broadcast() || address.is_multicast() {
                return Err(BadPolicy::Address(address));
            }
            built.allowlist.insert(name("sidecars", &sidecar.name)?);
            built.addresses.insert(address);
        }
        Ok(built)
    }

    /// The policy of route-pipelock.
    pub fn for_routes(policy: RoutePolicy) -> Result<Self, BadPolicy> {
        let mut built =
            Self::new(policy.listen, &policy.allowlist, &policy.passthrough, &policy.allow_private, Client::Routes)?;
        let count = policy.credential_headers.len();
        if count > NAMES_MAX {
            return Err(BadPolicy::TooMany { list: "credential_headers", count });
        }
        built.credential_headers = policy.credential_headers.iter().map(|h| header(h)).collect::<Result<_, _>>()?;
        Ok(built)
    }

    /// The address it listens on.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The hosts it lets through, sidecars included; empty where there is none.
    pub fn allowlist(&self) -> &BTreeSet<String> {
        &self.allowlist
    }

    /// The hosts whose TLS it does not open. A `*.host` of the policy stands here as both, since pipelock's `*.host` does
    /// not cover `host` in this list alone.
    pub fn passthrough(&self) -> &BTreeSet<String> {
        &self.passthrough
    }

    /// The hosts that may resolve to private addresses.
    pub fn trusted(&self) -> &BTreeSet<String> {
        &self.trusted
    }

    /// The addresses that are exempt from the SSRF check.
    pub fn addresses(&self) -> &BTreeSet<Ipv4Addr> {
        &self.addresses
    }

    /// Headers in which a credential of ours may pass; the agent's pipelock has none.
    pub fn credential_headers(&self) -> &BTreeSet<String> {
        &self.credential_headers
    }

    /// Whose requests it carries.
    pub fn client(&self) -> Client {
        self.client
    }

    /// Does it compare a tunnel's SNI with the host that was asked for? Only where there is something to gain: the check
    /// breaks keep-alive in intercepted tunnels, which are bound to their host by other means. A passed-through host can
    /// be fronted without it, so the agent's pipelock checks as soon as it has one; our own sidecars do not front.
    pub fn sni_verification(&self) -> bool {
        match self.client {
            Client::Agent { .. } => !self.passthrough.is_empty(),
            Client::Routes => false,
        }
    }

    fn new(
        listen: SocketAddr,
        allowlist: &[String],
        passthrough: &[String],
        allow_private: &[String],
        client: Client,
    ) -> Result<Self, BadPolicy> {
        if listen.port() == crate::schema::METRICS_PORT {
            return Err(BadPolicy::Port(listen));
        }
        let mut built = Self {
            listen,
            allowlist: names("allowlist", allowlist)?,
            passthrough: names("passthrough", passthrough)?,
            trusted: names("allow_private", allow_private)?,
            addresses: BTreeSet::new(),
            credential_headers: BTreeSet::new(),
            client,
        };
        let apexes: Vec<String> =
            built.passthrough.iter().filter_map(|d| d.strip_prefix("*.")).map(str::to_owned).collect();
        built.passthrough.extend(apexes);
        // pipelock trusts names alone; an address literal is exempted by its address.
        let literals: Vec<Ipv4Addr> = built.trusted.iter().filter_map(|d| d.parse().ok()).collect();
        built.trusted.retain(|d| d.parse::<Ipv4Addr>().is_err());
        built.addresses.extend(literals);
        if let Some(broad) = built.trusted.iter().find(|d| d.strip_prefix("*.").is_some_and(|d| !d.contains('.'))) {
            let reason = "a star needs two labels below it here";
            return Err(BadPolicy::Name { list: "allow_private", text: broad.clone(), reason });
        }
        Ok(built)
    }
}

/// Does `pattern` let `host` through, as pipelock's allowlist has it? `host` may be a pattern itself.
pub fn covers(pattern: &str, host: &str) -> bool {
    if pattern == host {
        return true;
    }
    let Some(apex) = pattern.strip_prefix("*.") else { return false };
    let host = host.strip_prefix("*.").unwrap_or(host);
    host == apex || host.strip_suffix(apex).is_some_and(|head| head.ends_with('.'))
}

fn names(list: &'static str, texts: &[String]) -> Result<BTreeSet<String>, BadPolicy> {
    if texts.len() > NAMES_MAX {
        return Err(BadPolicy::TooMany { list, count: texts.len() });
    }
    texts.iter().map(|text| name(list, text)).collect()
}

/// A header's name, with a capital after each hyphen, as pipelock compares them.
fn header(text: &str) -> Result<String, BadPolicy> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || text.len() > HEADER_BYTES_MAX || !text.bytes().all(token) {
        return Err(BadPolicy::Header(text.chars().take(300).collect()));
    }
    let mut begins = true;
    Ok(text
        .chars()
        .map(|c| {
            let c = if begins { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            begins = c == '-';
            c
        })
        .collect())
}

fn name(list: &'static str, text: &str) -> Result<String, BadPolicy> {
    let bad = |reason| Err(BadPolicy::Name { list, text: text.chars().take(300).collect(), reason });
    let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let (star, host) = match lower.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, lower.as_str()),
    };
    if host.contains('*') {
        return bad("a star can only stand as a leading \"*.\"");
    }
    if host.contains(':') {
        return bad("write the host alone, without a scheme or port");
    }
    if host.is_empty() || host.len() > 253 {
        return bad("it must have 1 to 253 characters");
    }
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.')) {
        return bad("only letters, digits, hyphens and dots can stand in it");
    }
    if host.split('.').any(|l| l.is_empty() || l.len() > 63 || l.starts_with('-') || l.ends_with('-')) {
        return bad("each part between dots must have 1 to 63 characters and no hyphen at its ends");
    }
    if host.rsplit('.').next().is_some_and(|last| last.bytes().next().is_some_and(|b| b.is_ascii_digit()))
        && (star || host.parse::<Ipv4Addr>().is_err())
    {
        // 0x7f000001, 017700000001 and 127.1 are addresses to some resolvers and names to others.
        return bad("a last part that begins with a digit can only be that of an IPv4 address");
    }
    Ok(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(allowlist: &[&str]) -> AgentPolicy {
        AgentPolicy {
            listen: "10.0.0.2:8888".parse().unwrap(),
            allowlist: allowlist.iter().map(|s| (*s).to_owned()).collect(),
            passthrough: Vec::new(),
            allow_private: Vec::new(),
            sidecars: Vec::new(),
            agent_credentials: false,
        }
    }

    #[test]
    fn names_are_taken_or_refused_with_the_reason() {
        for (text, expected) in [
            ("Api.Example.ORG", Ok("api.example.org")),
            ("example.org.", Ok("example.org")),
            ("*.example.org", Ok("*.example.org")),
            ("null", Ok("null")),
            ("10.0.0.1", Ok("10.0.0.1")),
            ("1e3.example", Ok("1e3.example")),
            ("*", Err("leading")),
            ("*.", Err("leading")),
            ("a.*.org", Err("leading")),
            ("h.example:443", Err("port")),
            ("https://h.example", Err("scheme")),
            ("h.example/x", Err("letters")),
            ("", Err("1 to 253")),
            ("a..b", Err("between dots")),
            ("-a.org", Err("hyphen")),
            ("a.org\nmode: audit", Err("port")),
            ("a.org\n", Err("letters")),
            ("0x7f000001", Err("IPv4")),
            ("2130706433", Err("IPv4")),
            ("127.1", Err("IPv4")),
            ("*.0.0.1", Err("IPv4")),
        ] {
            match (Policy::for_agent(agent(&[text])), expected) {
                (Ok(policy), Ok(name)) => assert_eq!(policy.allowlist().iter().next().unwrap(), name),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text:?}: {error}"),
                (got, _) => panic!("{text:?}: {got:?}"),
            }
        }
    }

    #[test]
    fn sni_is_verified_where_an_agent_has_a_passthrough_host_and_only_there() {
        let mut policy = agent(&["a.example"]);
        assert!(!Policy::for_agent(policy.clone()).unwrap().sni_verification());
        policy.passthrough = vec!["a.example".into()];
        assert!(Policy::for_agent(policy.clone()).unwrap().sni_verification());
        let routes = RoutePolicy {
            listen: policy.listen,
            allowlist: policy.allowlist,
            passthrough: policy.passthrough,
            allow_private: Vec::new(),
            credential_headers: Vec::new(),
        };
        assert!(!Policy::for_routes(routes).unwrap().sni_verification());
    }

    #[test]
    fn headers_of_credentials_are_names_in_one_spelling() {
        let of = |headers: &[&str]| {
            Policy::for_routes(RoutePolicy {
                listen: "10.0.0.2:8888".parse().unwrap(),
                allowlist: Vec::new(),
                passthrough: Vec::new(),
                allow_private: Vec::new(),
                credential_headers: headers.iter().map(|h| (*h).to_owned()).collect(),
            })
        };
        let policy = of(&["x-goog-API-key", "X-Goog-Api-Key", "authorization"]).unwrap();
        assert_eq!(policy.credential_headers().iter().collect::<Vec<_>>(), ["Authorization", "X-Goog-Api-Key"]);
        for bad in ["", "X Key", "X-Key:", "X-Key\n- 'Cookie'", "Kopfzeile-Ä", &"x".repeat(HEADER_BYTES_MAX + 1)] {
            assert!(matches!(of(&["Authorization", bad]), Err(BadPolicy::Header(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_star_passes_the_apex_through_as_well() {
        let mut policy = agent(&["*.d.example"]);
        policy.passthrough = vec!["*.d.example".into(), "e.example".into()];
        let policy = Policy::for_agent(policy).unwrap();
        let passed: Vec<&str> = policy.passthrough().iter().map(String::as_str).collect();
        assert_eq!(passed, ["*.d.example", "d.example", "e.example"]);
    }

    #[test]
    fn an_address_that_may_be_private_is_exempted_by_address_and_a_name_by_name() {
        let mut policy = agent(&["10.1.2.3", "git.corp.example"]);
        policy.allow_private = vec!["10.1.2.3".into(), "git.corp.example".into()];
        let policy = Policy::for_agent(policy).unwrap();
        assert_eq!(policy.addresses().iter().copied().collect::<Vec<_>>(), [Ipv4Addr::new(10, 1, 2, 3)]);
        assert_eq!(policy.trusted().iter().map(String::as_str).collect::<Vec<_>>(), ["git.corp.example"]);
    }

    #[test]
    fn what_pipelock_would_refuse_or_misread_is_refused_here() {
        let mut policy = agent(&[]);
        policy.allow_private = vec!["*.org".into()];
        assert!(matches!(Policy::for_agent(policy), Err(BadPolicy::Name { list: "allow_private", .. })));
        let mut policy = agent(&[]);
        policy.listen.set_port(9090);
        assert!(matches!(Policy::for_agent(policy), Err(BadPolicy::Port(_))));
        let mut policy = agent(&[]);
        policy.sidecars = vec![Sidecar { name: "cred-proxy".into(), address: Ipv4Addr::LOCALHOST }];
        assert!(matches!(Policy::for_agent(policy), Err(BadPolicy::Address(_))));
        let policy = agent(&vec!["a.example"; NAMES_MAX + 1]);
        assert!(matches!(Policy::for_agent(policy), Err(BadPolicy::TooMany { .. })));
    }

    #[test]
    fn a_star_covers_the_apex_and_all_below() {
        for (pattern, host, covered) in [
            ("*.d.example", "d.example", true),
            ("*.d.example", "a.b.d.example", true),
            ("*.d.example", "*.b.d.example", true),
            ("*.d.example", "bad.example", false),
            ("*.d.example", "xd.example", false),
            ("d.example", "a.d.example", false),
            ("d.example", "*.d.example", false),
            ("d.example", "d.example", true),
        ] {
            assert_eq!(covers(pattern, host), covered, "{pattern} {host}");
        }
    }
}
