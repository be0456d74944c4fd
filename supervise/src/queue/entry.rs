//! One proposal or grant: what it is, where it is, and what may follow.

use super::{Cause, Record, Term};
use crate::wire::{Answer, Change, Proposal, Status};

/// A proposal, or an operator's own grant, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was asked for. Of an operator's grant: its id and change, no justification, asked no times.
    pub proposal: Proposal,
    /// Whose idea it was.
    pub origin: Origin,
    /// Where it is.
    pub state: State,
}

/// Whose idea an entry was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// An agent asked: `p1`, `p2`, ...
    Agent,
    /// An operator granted it unasked: `g1`, `g2`, ...
    Operator,
}

/// Where an entry is. All times are seconds of Unix time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It waits for a person.
    Pending,
    /// A person said yes, and it is being carried out.
    Applying {
        /// What is carried out: as it was asked for, or as the person changed it.
        change: Change,
        /// How long it will hold.
        term: Term,
        /// Who said so.
        by: String,
    },
    /// It holds.
    InForce {
        /// What holds.
        change: Change,
        /// How long.
        term: Term,
        /// Who said so.
        by: String,
        /// What is to be said of it.
        notes: String,
    },
    /// A person said no.
    Rejected {
        /// Why.
        reason: String,
        /// Who said so.
        by: String,
        /// When.
        at: u64,
    },
    /// It could not be carried out.
    Failed {
        /// Why.
        reason: String,
    },
    /// It held, and does no more.
    Ended {
        /// Why.
        cause: Cause,
    },
}

impl Entry {
    /// Where it is, as its agent is told. The text of a Dockerfile is not repeated: the resource has it.
    pub fn answer(&self) -> Answer {
        let answer = |status, notes: &str| Answer {
            id: self.proposal.id.clone(),
            status,
            notes: notes.to_owned(),
            applied: None,
            until: None,
        };
        match &self.state {
            State::Pending => answer(Status::Pending, "no person has answered yet; ask check-proposal later"),
            State::Applying { .. } => answer(Status::Pending, "a person said yes, and it is being carried out"),
            State::InForce { change, term, notes, .. } => {
                let is_modified = *change != self.proposal.change;
                let status = if is_modified { Status::Modified } else { Status::Approved };
                let is_short = !matches!(change, Change::Dockerfile { .. });
                let until = if let Term::Until { at } = term { Some(*at) } else { None };
                Answer { applied: is_short.then(|| change.clone()), until, ..answer(status, notes) }
            }
            State::Rejected { reason, .. } if reason.is_empty() => {
                answer(Status::Rejected, "a person said no and gave no reason; work without it")
            }
            State::Rejected { reason, .. } => answer(Status::Rejected, reason),
            State::Failed { reason } => answer(Status::Failed, reason),
            State::Ended { cause } => answer(Status::Ended, cause.words()),
        }
    }
}

impl State {
    /// Where an entry is after a record: another state, the same one (`Some(None)`, a repeat), or `None` where the record
    /// does not follow.
    pub(super) fn after(&self, record: &Record) -> Option<Option<Self>> {
        let state = match (self, record) {
            (Self::Pending, Record::Repeated { .. }) => return Some(None),
            (Self::Pending, Record::Rejected { reason, by, at, .. }) => {
                Self::Rejected { reason: reason.clone(), by: by.clone(), at: *at }
            }
            (Self::Pending, Record::Approved { change, term, by, .. }) => {
                Self::Applying { change: change.clone(), term: *term, by: by.clone() }
            }
            (Self::Applying { change, term, by }, Record::Applied { notes, .. }) => {
                Self::InForce { change: change.clone(), term: *term, by: by.clone(), notes: notes.clone() }
            }
            (Self::Applying { .. }, Record::Failed { reason, .. }) => Self::Failed { reason: reason.clone() },
            (Self::InForce { .. }, Record::Ended { cause, .. }) => Self::Ended { cause: cause.clone() },
            _ => return None,
        };
        Some(Some(state))
    }
}
