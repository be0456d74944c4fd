//! Why something is not queued, decided or replayed.

use crate::check::Unfit;
use crate::wire::Status;

/// Why an ask is no proposal, in words for the agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its text does not do.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// All places of its kind are taken.
    #[error(
        "{open} proposals for {kind} wait for a person already, and no more are taken; wait for one of them to be answered"
    )]
    ManyOpen {
        /// How many wait.
        open: usize,
        /// For what.
        kind: &'static str,
    },
    /// Too many new ones at once.
    #[error("too many new proposals within {seconds} seconds; wait, and ask for what you need most")]
    TooFast {
        /// The time that is looked at.
        seconds: u64,
    },
    /// As many as a bottle ever has.
    #[error("this bottle has had its {proposals} proposals; no more are taken")]
    Exhausted {
        /// How many.
        proposals: u64,
    },
}

/// Why a decision changes nothing, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerdictRefusal {
    /// There is none.
    #[error("there is no proposal or grant {0}")]
    Unknown(String),
    /// It has its answer.
    #[error("{id} waits for no answer: it is {}", words(*.status))]
    NotPending {
        /// Which.
        id: String,
        /// Where it is.
        status: Status,
    },
    /// Nothing is being carried out.
    #[error("{0} is not being carried out")]
    NotApplying(String),
    /// There is nothing to take back.
    #[error("{0} is not in force")]
    NotInForce(String),
    /// What was displayed is not what there is now.
    #[error("the bottle has changed since this was shown; look at it again")]
    Stale,
    /// The person wrote a change of another kind.
    #[error("a proposal can be changed, but not into one of another kind")]
    OtherKind,
    /// It would end before it begins.
    #[error("the time until which it is to hold is over already")]
    TermOver,
    /// pipelock cannot count.
    #[error("a host cannot be granted for one use: pipelock does not count; give it a time")]
    OnceOfHosts,
    /// A Dockerfile is for the next launch.
    #[error("a Dockerfile holds from the next launch on, and cannot be limited")]
    TermOfDockerfile,
    /// The words are too many.
    #[error("{0} bytes of words are more than {max}", max = super::NOTES_BYTES_MAX)]
    LongNotes(usize),
}

/// A record that does not follow from those before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the journal's record on {id:?} does not fit: {why}")]
pub struct Misfit {
    /// What it is about.
    pub id: String,
    /// What is wrong.
    pub why: &'static str,
}

fn words(status: Status) -> &'static str {
    match status {
        Status::Pending => "being carried out",
        Status::Approved => "approved",
        Status::Modified => "approved in another form",
        Status::Rejected => "rejected",
        Status::Failed => "failed",
        Status::Ended => "ended",
    }
}
