//! What an upstream says first, read and edited: its refs and capabilities of version 0 and 1
//! (gitprotocol-pack(5), "Reference Discovery") and the capabilities of version 2 (gitprotocol-v2(5)). PURE.
//!
//! Only what is known passes: a capability that a later git adds is not offered until somebody has read what it does.

use crate::pktline::text;
use gix_hash::{Kind, ObjectId};

/// What the gate calls itself.
pub const AGENT: &str = concat!("git-gate/", env!("CARGO_PKG_VERSION"));

/// Capabilities of a push that mean to the gate what they mean to the upstream.
const PUSH_PASSES: [&str; 8] = [
    "report-status",
    "report-status-v2",
    "delete-refs",
    "side-band-64k",
    "quiet",
    "atomic",
    "ofs-delta",
    "push-options",
];

/// Commands of version 2 that the gate can read.
const V2_PASSES: [&str; 3] = ["ls-refs", "object-format", "object-info"];

/// Features of version 2's `fetch` that only say which objects are wanted.
const FETCH_PASSES: [&str; 5] = ["shallow", "wait-for-done", "filter", "ref-in-want", "sideband-all"];

/// Capabilities in a list of version 0, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities(Vec<String>);

impl Capabilities {
    /// Reads a list separated by spaces.
    pub fn parse(bytes: &[u8]) -> Self {
        let words = bytes.split(|byte| matches!(byte, b' ' | b'\n')).filter(|word| !word.is_empty());
        Self(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
    }

    /// Is it there, by itself or with a value?
    pub fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// The first value of `name=value`.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    /// All words.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    fn values<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.0.iter().filter_map(move |word| {
            let rest = word.strip_prefix(name)?;
            if rest.is_empty() { Some("") } else { rest.strip_prefix('=') }
        })
    }

    fn line(&self) -> String {
        self.0.join(" ")
    }
}

/// The hash function that a list of capabilities names; without one SHA-1.
pub fn object_format(capabilities: &Capabilities) -> Option<Kind> {
    match capabilities.value("object-format") {
        None | Some("sha1") => Some(Kind::Sha1),
        Some("sha256") => Some(Kind::Sha256),
        Some(_) => None,
    }
}

/// The first line of a version 0 advertisement: an object, a name and the capabilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstLine {
    /// `<oid> <name>`, as it came.
    pub before: Vec<u8>,
    /// What the upstream can do.
    pub capabilities: Capabilities,
}

impl FirstLine {
    /// Reads a packet's data; `None` when it is no such line.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let data = text(data);
        let zero = data.iter().position(|byte| *byte == 0)?;
        let (before, capabilities) = (&data[..zero], &data[zero + 1..]);
        let space = before.iter().position(|byte| *byte == b' ')?;
        ObjectId::from_hex(&before[..space]).ok()?;
        Some(Self { before: before.to_vec(), capabilities: Capabilities::parse(capabilities) })
    }

    fn with(&self, capabilities: &Capabilities) -> Vec<u8> {
        let mut line = self.before.clone();
        line.push(0);
        line.extend_from_slice(capabilities.line().as_bytes());
        line.push(b'\n');
        line
    }
}

/// What is offered to a client that wants to push: what both the upstream and the gate can do, and `no-thin`, so that
/// every object that the pack's deltas build on is in the pack.
pub fn push_offer(upstream: &Capabilities, may_delete: bool) -> Capabilities {
    let passes = |word: &str| PUSH_PASSES.contains(&word) && (may_delete || word != "delete-refs");
    let mut offer: Vec<String> = upstream.iter().filter(|word| passes(word)).map(str::to_owned).collect();
    if let Some(format) = upstream.value("object-format") {
        offer.push(format!("object-format={format}"));
    }
    offer.push("no-thin".into());
    offer.push(format!("agent={AGENT}"));
    Capabilities(offer)
}

/// The first line of a push's advertisement with the gate's own offer.
pub fn push_first_line(first: &FirstLine, offer: &Capabilities) -> Vec<u8> {
    first.with(offer)
}

/// The first line of a fetch's advertisement of version 0 or 1: `session-id` is taken out, and on a stateless upstream
/// `no-done`, which is for stateless clients alone.
pub fn fetch_first_line(first: &FirstLine, stateless: bool) -> Vec<u8> {
    let passes = |word: &&str| {
        !(word.starts_with("session-id") || word.starts_with("agent=") || stateless && *word == "no-done")
    };
    let mut words: Vec<String> = first.capabilities.iter().filter(passes).map(str::to_owned).collect();
    words.push(format!("agent={AGENT}"));
    first.with(&Capabilities(words))
}

/// One line of version 2's advertisement as the client may see it; `None` when it may not.
pub fn v2_capability(data: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(text(data)).ok()?;
    let (name, value) = line.split_once('=').map_or((line, None), |(name, value)| (name, Some(value)));
    match (name, value) {
        ("agent", _) => Some(format!("agent={AGENT}")),
        ("fetch", None) => Some(line.to_owned()),
        ("fetch", Some(features)) => {
            let passes: Vec<&str> = features.split(' ').filter(|feature| FETCH_PASSES.contains(feature)).collect();
            Some(if passes.is_empty() { "fetch".into() } else { format!("fetch={}", passes.join(" ")) })
        }
        _ if V2_PASSES.contains(&name) => Some(line.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OID: &str = "1234567890123456789012345678901234567890";

    #[test]
    fn a_push_is_offered_what_both_can_do() {
        let upstream = "report-status report-status-v2 delete-refs side-band-64k quiet atomic ofs-delta push-options \
                        push-cert=nonce session-id=1 object-format=sha1 agent=git/2 brand-new";
        let first = FirstLine::parse(format!("{OID} refs/heads/main\0{upstream}\n").as_bytes()).unwrap();
        let offer = push_offer(&first.capabilities, true);
        let own = format!("no-thin agent={AGENT}");
        let wanted = format!(
            "{OID} refs/heads/main\0report-status report-status-v2 delete-refs side-band-64k quiet atomic ofs-delta \
             push-options object-format=sha1 {own}\n"
        );
        assert_eq!(String::from_utf8(push_first_line(&first, &offer)).unwrap(), wanted);
        assert!(!push_offer(&first.capabilities, false).has("delete-refs"));
        assert_eq!(push_offer(&Capabilities::parse(b"report-status"), true).line(), format!("report-status {own}"));
    }

    #[test]
    fn a_fetch_of_version_0_hides_the_session() {
        let first = FirstLine::parse(format!("{OID} HEAD\0multi_ack no-done session-id=x agent=git/2\n").as_bytes());
        let first = first.unwrap();
        let line = |stateless| String::from_utf8(fetch_first_line(&first, stateless)).unwrap();
        assert_eq!(line(false), format!("{OID} HEAD\0multi_ack no-done agent={AGENT}\n"));
        assert_eq!(line(true), format!("{OID} HEAD\0multi_ack agent={AGENT}\n"));
    }

    #[test]
    fn version_2_passes_by_name() {
        for (line, wanted) in [
            ("ls-refs=unborn\n", Some("ls-refs=unborn")),
            ("object-format=sha256", Some("object-format=sha256")),
            ("object-info", Some("object-info")),
            ("fetch", Some("fetch")),
            ("fetch=shallow wait-for-done filter packfile-uris", Some("fetch=shallow wait-for-done filter")),
            ("fetch=packfile-uris", Some("fetch")),
            ("server-option", None),
            ("session-id=x", None),
            ("bundle-uri", None),
            ("promisor-remote=name=a,url=https://evil.example", None),
            ("brand-new", None),
        ] {
            assert_eq!(v2_capability(line.as_bytes()).as_deref(), wanted, "{line}");
        }
        assert_eq!(v2_capability(b"agent=git/2").unwrap(), format!("agent={AGENT}"));
    }

    #[test]
    fn what_is_no_first_line() {
        for line in ["", "ERR no\n", "version 2\n", "x HEAD\0a", "1234 HEAD\0a"] {
            assert_eq!(FirstLine::parse(line.as_bytes()), None, "{line:?}");
        }
        let empty = format!("{} capabilities^{{}}\0report-status\n", "0".repeat(64));
        assert!(FirstLine::parse(empty.as_bytes()).is_some());
    }
}
