//! Hosts: one spelling, and which of them no person is ever asked about.

use super::{HostFault, Known, Quoted, Unfit};
use crate::config::NAME;

/// Bytes of a host as an agent may write it; a name that is longer in Unicode than in the DNS does not exist.
const WRITTEN_BYTES_MAX: usize = 1024;

/// The sidecars' names, which lead nowhere else.
const SIDECARS: [&str; 5] = ["pipelock", "route-pipelock", "cred-proxy", "git-gate", NAME];

/// Names that mean the network one is in, or none (RFC 6761, 6762, 7686, 8375, 9476, ICANN's `internal`, and what routers and
/// companies use beside them). `example` leads nowhere either, but is what documentation and tests say.
const INTERNAL: [&str; 20] = [
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "home.arpa",
    "arpa",
    "test",
    "invalid",
    "onion",
    "alt",
    "i2p",
    "docker",
    "kube",
    "consul",
    "dhcp",
];

/// Where clouds hand credentials to whoever asks.
const METADATA: [&str; 11] = [
    "metadata",
    "instance-data",
    "metadata.google.internal",
    "metadata.azure.internal",
    "metadata.google.com",
    "metadata.goog",
    "metadata.azure.com",
    "metadata.packet.net",
    "metadata.platformequinix.com",
    "metadata.tencentyun.com",
    "metadata.oraclecloud.com",
];

/// Services that answer with the address written in the name, or always with the caller's own machine.
const SPELLS_ADDRESS: [&str; 11] = [
    "nip.io",
    "sslip.io",
    "xip.io",
    "backname.io",
    "traefik.me",
    "localtest.me",
    "lvh.me",
    "vcap.me",
    "lacolhost.com",
    "rbndr.us",
    "1u.ms",
];

/// Reads `host` or `*.host` into its one spelling: lower case, punycode, no final dot. Refused is what never leads
/// outside: addresses in any spelling, single labels, internal names, names of the bottle, metadata services; and
/// wildcards over a public suffix.
pub fn host(text: &str) -> Result<String, Unfit> {
    read(text).map_err(|fault| Unfit::Host { host: Quoted::new(text), fault })
}

/// Does the name on a list (`host`, or `*.host` for it and all below) let all through that `asked` does?
pub(super) fn covers(listed: &str, asked: &str) -> bool {
    let (below, base) = base(listed);
    let (asked_below, asked) = self::base(asked);
    if asked == base {
        return below || !asked_below;
    }
    below && is_below(asked, base)
}

/// The hosts of an ask that are not open yet; refused where one is reached by another way, or none remains.
pub(super) fn free(hosts: Vec<String>, known: &Known) -> Result<Vec<String>, Unfit> {
    for host in &hosts {
        apart(host, known).map_err(|fault| Unfit::Host { host: Quoted::new(host), fault })?;
    }
    let is_open = |host: &String| known.allowlist.iter().any(|listed| covers(&lower(listed), host));
    let (open, closed): (Vec<_>, Vec<_>) = hosts.into_iter().partition(is_open);
    if closed.is_empty() { Err(Unfit::AlreadyReachable(open.join(", "))) } else { Ok(closed) }
}

/// Is it apart from what the bottle reaches by other doors?
pub(super) fn apart(host: &str, known: &Known) -> Result<(), HostFault> {
    let hit =
        |list: &[String]| list.iter().map(|name| lower(name)).find(|name| covers(host, name) || covers(name, host));
    if hit(&known.own_names).is_some() {
        return Err(HostFault::Own);
    }
    if let Some(other) = hit(&known.route_hosts) {
        return Err(HostFault::OfRoute(other));
    }
    match hit(&known.remote_hosts) {
        Some(other) => Err(HostFault::OfRemote(other)),
        None => Ok(()),
    }
}

/// A name of the bottle's own lists as this module compares it.
pub(super) fn lower(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

pub(super) fn read(text: &str) -> Result<String, HostFault> {
    if text.is_empty() || text.len() > WRITTEN_BYTES_MAX {
        return Err(HostFault::NotAName);
    }
    if text.contains("://") {
        return Err(HostFault::Scheme);
    }
    if text.contains(['/', '\\', '?', '#']) {
        return Err(HostFault::Path);
    }
    if text.contains('@') {
        return Err(HostFault::User);
    }
    if text.starts_with('[') || text.matches(':').count() > 1 {
        return Err(HostFault::Address);
    }
    if text.contains(':') {
        return Err(HostFault::Port);
    }
    let (below, written) = base(text);
    if written.contains('*') {
        return Err(HostFault::Star);
    }
    let name = ascii(written)?;
    if is_address(&name) {
        return Err(HostFault::Address);
    }
    outside(&name, below)?;
    no_public_suffix(&name, below)?;
    Ok(if below { format!("*.{name}") } else { name })
}

/// The name in punycode and lower case, as the DNS would ask for it.
fn ascii(written: &str) -> Result<String, HostFault> {
    use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
    // Hyphens in the third and fourth place are in use (`r3---sn-x.example.org`); those at the ends are not.
    let name = Uts46::new()
        .to_ascii(written.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::VerifyAllowRootDot)
        .map_err(|_| HostFault::NotAName)?;
    let name = name.strip_suffix('.').unwrap_or(&name);
    if name.is_empty() { Err(HostFault::NotAName) } else { Ok(name.to_owned()) }
}

/// Would a resolver read it as an address? `127.1`, `0177.0.0.1`, `2130706433`, `0x7f.1`: the last part is a number.
fn is_address(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn outside(name: &str, below: bool) -> Result<(), HostFault> {
    if SIDECARS.contains(&name) {
        return Err(HostFault::Own);
    }
    // A bare suffix covers everything, and is refused as what it is.
    let covers_some = below && name.contains('.');
    if METADATA.iter().any(|metadata| is_at_or_below(name, metadata) || (covers_some && is_below(metadata, name))) {
        return Err(HostFault::Metadata);
    }
    if let Some(internal) = INTERNAL.iter().find(|internal| is_at_or_below(name, internal)) {
        return Err(HostFault::Internal(internal));
    }
    if let Some(service) = SPELLS_ADDRESS.iter().find(|service| is_at_or_below(name, service)) {
        return Err(HostFault::SpellsAddress(service));
    }
    match name.contains('.') {
        true => Ok(()),
        false if below => Err(HostFault::PublicSuffix(name.to_owned())),
        false => Err(HostFault::SingleLabel),
    }
}

/// A host that is itself a suffix of the ICANN part leads nowhere; one of the private part (`s3.amazonaws.com`) may be a
/// host in its own right, but everything below it is anyone's.
fn no_public_suffix(name: &str, below: bool) -> Result<(), HostFault> {
    let Some(suffix) = psl::suffix(name.as_bytes()) else { return Ok(()) };
    let is_refused = suffix.as_bytes() == name.as_bytes() && (below || suffix.typ() != Some(psl::Type::Private));
    if is_refused { Err(HostFault::PublicSuffix(name.to_owned())) } else { Ok(()) }
}

/// Are subdomains meant, and the name without the star.
fn base(name: &str) -> (bool, &str) {
    match name.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, name),
    }
}

fn is_at_or_below(name: &str, suffix: &str) -> bool {
    name == suffix || is_below(name, suffix)
}

fn is_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|head| head.ends_with('.'))
}
