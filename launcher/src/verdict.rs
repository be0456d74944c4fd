//! What a person is shown of a change before it is made, and what they answer: the words between the operator's commands
//! and a keeper. Whoever approves sends back the digest of what was shown; where the bottle has changed since, the
//! keeper shows it anew and does nothing.

use crate::control::sha256_hex;
use crate::manifest::TokenRef;
use serde::{Deserialize, Serialize};
use supervise::wire::{Answer, Change, Proposal};

pub mod page;

/// A grant may last so many seconds at most: 30 days.
pub const SECONDS_MAX: u64 = 30 * 86_400;

/// What is to be decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// What an agent asked for.
    Proposal(String),
    /// What the operator wants unasked.
    Own(Change),
    /// Something that is in force, to be taken back: a grant, or a host.
    Back(String),
}

/// On which terms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Terms {
    /// For so many seconds; `None`: until the bottle ends.
    pub seconds: Option<u64>,
    /// For one use: one push, one request.
    pub once: bool,
    /// Is the TLS of a route not to be opened?
    pub no_inspect: bool,
    /// Where a route's credential comes from; the operator alone names one.
    pub token_ref: Option<TokenRef>,
    /// This instead of what was asked for.
    pub edited: Option<Change>,
    /// The operator's words, for the agent and the audit log.
    pub notes: String,
}

/// What a command asks of a keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Everything that was asked for and is in force.
    List {
        /// And again after every change.
        watch: bool,
    },
    /// What would this change?
    Review {
        /// What is to be decided.
        subject: Subject,
        /// On which terms.
        terms: Terms,
    },
    /// Do it.
    Decide {
        /// What is decided.
        subject: Subject,
        /// On which terms.
        terms: Terms,
        /// The digest of what was shown.
        digest: String,
    },
    /// No.
    Reject {
        /// The proposal.
        proposal: String,
        /// Why, for the agent.
        reason: String,
    },
}

/// What a keeper answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// The answer to [`Request::List`].
    Listing(Box<Listing>),
    /// The answer to [`Request::Review`].
    Review(Box<Review>),
    /// The bottle has changed since it was shown: nothing was done, and this is how it is now.
    Changed(Box<Review>),
    /// It is done.
    Done(Done),
    /// It is not done.
    Refused {
        /// Why.
        reason: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// Everything that was asked for and is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The bottle.
    pub bottle: String,
    /// Oldest first.
    pub proposals: Vec<Listed>,
    /// Oldest first.
    pub grants: Vec<Grant>,
}

/// A proposal and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// What was asked for.
    pub proposal: Proposal,
    /// Where it is.
    pub answer: Answer,
}

/// Something that is in force by a person's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The proposal that asked for it, or `g1`, `g2`, ... of what nobody asked for.
    pub id: String,
    /// What it is.
    pub change: Change,
    /// When it ends by itself, in seconds of Unix time.
    pub until: Option<u64>,
    /// Does it end with one use?
    pub once: bool,
}

/// A change as a person is shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// The bottle.
    pub bottle: String,
    /// What was asked for, with the agent's words.
    pub proposal: Option<Proposal>,
    /// What is to be in force, or no longer.
    pub change: Change,
    /// On which terms.
    pub terms: Terms,
    /// The part of the bottle that it changes, line by line, as it is.
    pub before: Vec<String>,
    /// And as it will be.
    pub after: Vec<String>,
    /// What follows from it, a sentence each.
    pub facts: Vec<String>,
    /// Digest of the bottle's state that this was worked out from.
    pub base: String,
    /// Digest of all of the above.
    pub digest: String,
}

/// What came of a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// In words.
    pub text: String,
    /// The grant that is in force.
    pub grant: Option<String>,
}

impl Review {
    /// Puts the digest in.
    pub fn sealed(mut self) -> Self {
        self.digest = String::new();
        // Our own types always can be written; were that not so, the digest would be the same for all, and fit none.
        let bytes = serde_json::to_vec(&self).unwrap_or_default();
        self.digest = sha256_hex(&bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_person_is_shown_is_in_the_digest() {
        let hosts = |host: &str| Change::Hosts { hosts: vec![host.to_owned()] };
        let review = Review {
            bottle: "b".to_owned(),
            proposal: None,
            change: hosts("a.example"),
            terms: Terms::default(),
            before: Vec::new(),
            after: vec!["a.example".to_owned()],
            facts: vec!["f".to_owned()],
            base: "0".to_owned(),
            digest: String::new(),
        };
        let digest = |change: &dyn Fn(&mut Review)| {
            let mut other = review.clone();
            change(&mut other);
            other.sealed().digest
        };
        let same = digest(&|_| {});
        assert_eq!(same, digest(&|r| r.digest = "of before".to_owned()));
        for (what, other) in [
            ("bottle", digest(&|r| r.bottle.push('x'))),
            ("change", digest(&|r| r.change = hosts("b.example"))),
            ("terms", digest(&|r| r.terms.once = true)),
            ("time", digest(&|r| r.terms.seconds = Some(1))),
            ("before", digest(&|r| r.before.push("x".to_owned()))),
            ("after", digest(&|r| r.after.clear())),
            ("facts", digest(&|r| r.facts.clear())),
            ("base", digest(&|r| r.base.push('1'))),
        ] {
            assert_ne!(same, other, "{what}");
        }
    }
}
