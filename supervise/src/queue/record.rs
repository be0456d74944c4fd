//! What the journal has: one record for each thing that happened.

use super::{Origin, Seen, State, VerdictRefusal};
use crate::wire::{Change, Proposal};
use serde::{Deserialize, Serialize};

/// Something that happened. `at` is in seconds of Unix time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Record {
    /// An agent asked for something new.
    Asked {
        /// The next `p`.
        id: String,
        /// What for.
        change: Change,
        /// The agent's words.
        justification: String,
        /// When.
        at: u64,
    },
    /// An agent asked for the same again.
    Repeated {
        /// Which.
        id: String,
        /// When.
        at: u64,
    },
    /// A person said no.
    Rejected {
        /// To which.
        id: String,
        /// Why; may be empty.
        reason: String,
        /// Who.
        by: String,
        /// When.
        at: u64,
    },
    /// A person said yes. Nothing is in force yet.
    Approved {
        /// To which.
        id: String,
        /// What is to be in force.
        change: Change,
        /// How long.
        term: Term,
        /// What the person saw.
        seen: Seen,
        /// Who.
        by: String,
        /// When.
        at: u64,
    },
    /// A person grants what nobody asked for. Nothing is in force yet.
    Granted {
        /// The next `g`.
        id: String,
        /// What is to be in force.
        change: Change,
        /// How long.
        term: Term,
        /// Who.
        by: String,
        /// When.
        at: u64,
    },
    /// It has been carried out.
    Applied {
        /// Which.
        id: String,
        /// What is to be said of it; may be empty.
        notes: String,
        /// When.
        at: u64,
    },
    /// It could not be carried out, and the bottle is as it was.
    Failed {
        /// Which.
        id: String,
        /// Why.
        reason: String,
        /// When.
        at: u64,
    },
    /// It holds no more.
    Ended {
        /// Which.
        id: String,
        /// Why.
        cause: Cause,
        /// When.
        at: u64,
    },
}

/// How long what is granted holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "term", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Term {
    /// As long as the bottle, or until it is taken back.
    #[default]
    Lasting,
    /// Until a time.
    Until {
        /// In seconds of Unix time.
        at: u64,
    },
    /// For one use. Of routes and findings alone: pipelock cannot count.
    Once,
}

/// Why something holds no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Cause {
    /// Its time is over.
    TimeOver,
    /// Its one use is used.
    Used,
    /// A person took it back.
    Revoked {
        /// Who.
        by: String,
    },
    /// The bottle ended, and was launched again without it.
    Resumed,
}

impl Cause {
    /// In words, for the agent.
    pub fn words(&self) -> &'static str {
        match self {
            Self::TimeOver => "it was in force, and its time is over; ask again if you still need it",
            Self::Used => "it was granted for one use, and is used; ask again if you need it once more",
            Self::Revoked { .. } => "it was in force, and a person took it back",
            Self::Resumed => {
                "it was in force until the bottle ended, and was not carried over; ask again if you need it"
            }
        }
    }
}

impl Term {
    /// Can this be granted for this long, now?
    pub(super) fn fits(self, change: &Change, now: u64) -> Result<(), VerdictRefusal> {
        match (self, change) {
            (Self::Until { at }, _) if at <= now => Err(VerdictRefusal::TermOver),
            (Self::Lasting, _) => Ok(()),
            (Self::Until { .. }, Change::Hosts { .. } | Change::Route(_) | Change::Finding { .. }) => Ok(()),
            (Self::Once, Change::Route(_) | Change::Finding { .. }) => Ok(()),
            (Self::Once, Change::Hosts { .. }) => Err(VerdictRefusal::OnceOfHosts),
            (Self::Until { .. } | Self::Once, Change::Dockerfile { .. }) => Err(VerdictRefusal::TermOfDockerfile),
        }
    }
}

impl Record {
    /// Which proposal or grant it is about.
    pub fn id(&self) -> &str {
        match self {
            Self::Asked { id, .. }
            | Self::Repeated { id, .. }
            | Self::Rejected { id, .. }
            | Self::Approved { id, .. }
            | Self::Granted { id, .. }
            | Self::Applied { id, .. }
            | Self::Failed { id, .. }
            | Self::Ended { id, .. } => id,
        }
    }

    /// When it happened, in seconds of Unix time.
    pub fn at(&self) -> u64 {
        match self {
            Self::Asked { at, .. }
            | Self::Repeated { at, .. }
            | Self::Rejected { at, .. }
            | Self::Approved { at, .. }
            | Self::Granted { at, .. }
            | Self::Applied { at, .. }
            | Self::Failed { at, .. }
            | Self::Ended { at, .. } => *at,
        }
    }

    /// What begins with it, where something does.
    pub(super) fn first(&self) -> Option<(Origin, Proposal, State)> {
        match self {
            Self::Asked { id, change, justification, at } => {
                let (id, change, justification) = (id.clone(), change.clone(), justification.clone());
                let proposal = Proposal { id, change, justification, asked: *at, times: 1 };
                Some((Origin::Agent, proposal, State::Pending))
            }
            Self::Granted { id, change, term, by, at } => {
                let proposal = Proposal {
                    id: id.clone(),
                    change: change.clone(),
                    justification: String::new(),
                    asked: *at,
                    times: 0,
                };
                let state = State::Applying { change: change.clone(), term: *term, by: by.clone() };
                Some((Origin::Operator, proposal, state))
            }
            Self::Repeated { .. }
            | Self::Rejected { .. }
            | Self::Approved { .. }
            | Self::Applied { .. }
            | Self::Failed { .. }
            | Self::Ended { .. } => None,
        }
    }
}
