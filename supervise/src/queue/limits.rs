//! What an agent may fill.

use crate::wire::Change;

/// What an agent may fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Proposals for hosts that wait for a person; 6 unless given. Each kind has places of its own, so that a flood of one
    /// never keeps another from being seen.
    pub open_hosts: usize,
    /// The same for routes; 4.
    pub open_routes: usize,
    /// The same for findings; 4.
    pub open_findings: usize,
    /// The same for Dockerfiles; 2.
    pub open_dockerfiles: usize,
    /// New proposals within [`Limits::WINDOW_SECONDS`]; 8.
    pub new_per_window: usize,
    /// New proposals of one bottle, ever; 1000.
    pub proposals: u64,
    /// Up to here repeats are counted, and journalled; 50.
    pub times: u64,
    /// So long after a rejection, in seconds, the same change for the same reason gets the same answer; 600.
    pub settled_seconds: u64,
}

impl Limits {
    /// The time that [`Limits::new_per_window`] is about, in seconds.
    pub const WINDOW_SECONDS: u64 = 60;

    /// The most proposals that wait at one time.
    pub fn open(&self) -> usize {
        self.open_hosts + self.open_routes + self.open_findings + self.open_dockerfiles
    }

    pub(super) fn open_of(&self, change: &Change) -> usize {
        match change {
            Change::Hosts { .. } => self.open_hosts,
            Change::Route(_) => self.open_routes,
            Change::Finding { .. } => self.open_findings,
            Change::Dockerfile { .. } => self.open_dockerfiles,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            open_hosts: 6,
            open_routes: 4,
            open_findings: 4,
            open_dockerfiles: 2,
            new_per_window: 8,
            proposals: 1000,
            times: 50,
            settled_seconds: 600,
        }
    }
}

/// A kind of change in words.
pub(super) fn kind_name(change: &Change) -> &'static str {
    match change {
        Change::Hosts { .. } => "hosts",
        Change::Route(_) => "routes",
        Change::Finding { .. } => "findings",
        Change::Dockerfile { .. } => "Dockerfiles",
    }
}
