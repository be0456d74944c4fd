//! May this be asked at all? PURE.
//!
//! A change that is asked for is brought into its one spelling, or refused before a person sees it, with words that tell
//! an agent what to do instead. The sidecar checks the form ([`form`]); the keeper, who knows the bottle, checks again
//! and against what is there ([`change`]). It must never let through what it does not understand.

pub mod dockerfile;
mod host;
mod route;
mod unfit;

pub use dockerfile::Dockerfile;
pub use host::host;
pub use unfit::{HostFault, PathFault, Quoted, Unfit, UpstreamFault};

use crate::wire::{Change, Route};

/// Hosts in one ask.
pub const HOSTS_MAX: usize = 16;

/// Bytes of a Dockerfile.
pub const DOCKERFILE_BYTES_MAX: usize = 64 << 10;

/// Bytes of a justification.
pub const JUSTIFICATION_BYTES_MAX: usize = 2000;

/// Patterns in a route's `allow`.
pub const ALLOW_MAX: usize = 32;

/// Bytes of a path, and of a pattern.
pub const PATH_BYTES_MAX: usize = 256;

/// Digits of a finding's fingerprint, at least and at most.
pub const FINGERPRINT_DIGITS: std::ops::RangeInclusive<usize> = 12..=64;

/// What is known of the bottle. An ask is held against all of it; nothing is known by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Names inside the bottle, beside those of the sidecars.
    pub own_names: Vec<String>,
    /// Hosts of cred-proxy's routes: they are reached by their routes alone.
    pub route_hosts: Vec<String>,
    /// Hosts of git-gate's remotes: they are reached through git-gate alone.
    pub remote_hosts: Vec<String>,
    /// What the agent's pipelock lets through: `host` or `*.host`.
    pub allowlist: Vec<String>,
    /// Routes of cred-proxy.
    pub routes: Vec<Route>,
    /// The bottle's image, with which every Dockerfile must begin; empty: none may be asked for.
    pub image: String,
    /// The bottle's Dockerfile.
    pub dockerfile: Option<String>,
}

/// A change in its one spelling that may be asked for and granted: only [`change`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked(Change);

impl Checked {
    /// The change.
    pub fn change(&self) -> &Change {
        &self.0
    }

    /// The change, taken out of its proof.
    pub fn into_change(self) -> Change {
        self.0
    }
}

/// Brings a change into its one spelling, or says why it has none. Says nothing of what a bottle already has.
pub fn form(change: Change) -> Result<Change, Unfit> {
    match change {
        Change::Hosts { hosts } => hosts_form(&hosts).map(|hosts| Change::Hosts { hosts }),
        Change::Route(route) => route::form(&route).map(Change::Route),
        Change::Finding { fingerprint } => {
            finding_form(&fingerprint).map(|fingerprint| Change::Finding { fingerprint })
        }
        Change::Dockerfile { text } => dockerfile_form(&text).map(|text| Change::Dockerfile { text }),
    }
}

/// Checks a change's form and holds it against the bottle. Hosts that are reachable already are left out of the change;
/// where none remains, it is refused as [`Unfit::AlreadyReachable`].
pub fn change(change: Change, known: &Known) -> Result<Checked, Unfit> {
    let change = match form(change)? {
        Change::Hosts { hosts } => Change::Hosts { hosts: host::free(hosts, known)? },
        Change::Route(route) => {
            route::free(&route, known)?;
            Change::Route(route)
        }
        Change::Dockerfile { text } if known.dockerfile.as_deref() == Some(text.as_str()) => {
            return Err(Unfit::SameDockerfile);
        }
        Change::Dockerfile { text } => {
            Dockerfile::parse(&text)?.begins_with(&known.image)?;
            Change::Dockerfile { text }
        }
        change @ Change::Finding { .. } => change,
    };
    Ok(Checked(change))
}

/// Has the agent given a reason that a person can read: not blank, and at most [`JUSTIFICATION_BYTES_MAX`] bytes?
pub fn justification(text: &str) -> Result<(), Unfit> {
    if text.trim().is_empty() {
        return Err(Unfit::NoJustification);
    }
    if text.len() > JUSTIFICATION_BYTES_MAX {
        return Err(Unfit::LongJustification(text.len()));
    }
    Ok(())
}

fn hosts_form(hosts: &[String]) -> Result<Vec<String>, Unfit> {
    if hosts.is_empty() {
        return Err(Unfit::NoHosts);
    }
    if hosts.len() > HOSTS_MAX {
        return Err(Unfit::ManyHosts(hosts.len()));
    }
    let mut hosts = hosts.iter().map(|text| host(text)).collect::<Result<Vec<_>, _>>()?;
    hosts.sort_unstable();
    hosts.dedup();
    // What a wildcard of the same ask covers is said already.
    let covered = |host: &String| hosts.iter().any(|other| other != host && host::covers(other, host));
    Ok(hosts.iter().filter(|host| !covered(host)).cloned().collect())
}

fn finding_form(fingerprint: &str) -> Result<String, Unfit> {
    let is_hex = fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex || !FINGERPRINT_DIGITS.contains(&fingerprint.len()) {
        return Err(Unfit::Fingerprint);
    }
    Ok(fingerprint.to_ascii_lowercase())
}

fn dockerfile_form(text: &str) -> Result<String, Unfit> {
    if text.len() > DOCKERFILE_BYTES_MAX {
        return Err(Unfit::LongDockerfile(text.len()));
    }
    let text = text.replace("\r\n", "\n");
    if text.trim().is_empty() {
        return Err(Unfit::EmptyDockerfile);
    }
    if let Some((line, character)) = hidden(&text) {
        return Err(Unfit::HiddenCharacter { line, code: u32::from(character) });
    }
    Dockerfile::parse(&text)?;
    Ok(text)
}

/// The first character that a person would not see, or that changes the order of what is seen, and its line from 1.
fn hidden(text: &str) -> Option<(usize, char)> {
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    text.char_indices().find(|(_, character)| is_hidden(*character)).map(|(at, character)| (line(at), character))
}

fn is_hidden(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' => true,
        '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' => true,
        '\u{e0000}'..='\u{e0fff}' => true,
        _ => character.is_control(),
    }
}

#[cfg(test)]
mod tests;
