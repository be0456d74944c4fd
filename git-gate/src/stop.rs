//! Why an operation ends before its end, and what of it the agent is told.

use crate::config::Outcome;
use crate::pktline::PacketError;
use crate::upstream::Failure;
use std::io;

/// The end of an operation.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// The gate says no; these words go to the agent too.
    #[error("{0}")]
    Refused(String),
    /// The upstream gave nothing.
    #[error(transparent)]
    Upstream(#[from] Failure),
    /// Where no word can be said any more, since the agent is in the middle of something.
    #[error("{0}")]
    Cut(String),
    /// The agent went away, or does not read.
    #[error("the agent went away")]
    Agent(#[from] io::Error),
}

impl Stop {
    /// What reading from the agent came to.
    pub fn from_agent(error: PacketError) -> Self {
        match error {
            PacketError::Closed | PacketError::Torn => Self::Agent(io::ErrorKind::UnexpectedEof.into()),
            PacketError::Broken(error) => Self::Agent(error),
            PacketError::Malformed | PacketError::TooLong(_) | PacketError::Late(_) => Self::Refused(error.to_string()),
        }
    }

    /// What the agent is told, where a word can be said.
    pub fn sentence(&self) -> Option<String> {
        match self {
            Self::Refused(words) => Some(words.clone()),
            Self::Upstream(failure) => Some(failure.sentence()),
            Self::Cut(_) | Self::Agent(_) => None,
        }
    }

    /// How the log calls it.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Refused(_) => Outcome::Refused,
            Self::Upstream(_) | Self::Cut(_) => Outcome::Failed,
            Self::Agent(_) => Outcome::Gone,
        }
    }
}
