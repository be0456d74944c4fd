//! What becomes of what is asked: a state machine without I/O and without a clock. PURE.
//!
//! A command ([`Queue::ask`], [`Queue::approve`], ...) changes nothing: it answers with the [`Record`] that would, which
//! the keeper writes into its journal and then gives to [`Queue::apply`]. So whatever is in force is in the journal, and
//! [`Queue::replay`] of the journal is the queue as it was after its last whole record.
//!
//! ```text
//!  asked ──► pending ──► applying ──► in force ──► ended
//!                │           └──────► failed
//!                └──► rejected
//! ```
//! An operator's own grant begins at `applying`. What stands at `applying` when a journal is read again was cut short
//! between a person's yes and its effect: [`Queue::interrupted`] makes it fail, and nothing is applied twice.

mod digest;
mod entry;
mod limits;
mod record;
mod refusal;

pub use digest::{Digest, Seen};
pub use entry::{Entry, Origin, State};
pub use limits::Limits;
pub use record::{Cause, Record, Term};
pub use refusal::{Misfit, Refusal, VerdictRefusal};

use crate::check::{self, Checked};
use crate::wire::{Answer, Change, Proposal};
use limits::kind_name;
use std::collections::BTreeMap;

/// Bytes of a person's reason, and of the keeper's own notes on a proposal.
pub const NOTES_BYTES_MAX: usize = 2000;

/// The newest answers that [`Queue::answers`] gives, so that they fit into one line of the control channel.
pub const ANSWERS_MAX: usize = 128;

/// All that was asked and granted in a bottle.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Queue {
    limits: Limits,
    entries: BTreeMap<Id, Entry>,
    /// Numbers given so far: asks, grants.
    counted: [u64; 2],
}

/// What an ask comes to. It never panics and never grows the queue by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// A new proposal; the record makes it.
    New(Record),
    /// The same was asked before.
    Known {
        /// Where that is.
        answer: Answer,
        /// Counts the repeat, where that still tells anything.
        record: Option<Record>,
    },
}

/// What a person decided on an entry, and what they saw when they did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval<'a> {
    /// What is to be in force: the proposal's change, or another of its kind that the person wrote.
    pub change: &'a Checked,
    /// How long.
    pub term: Term,
    /// What was displayed, and the state of the bottle it was displayed against.
    pub seen: Seen,
    /// Who.
    pub by: &'a str,
}

/// A place in the queue: agents' asks before operators' grants, each by number.
type Id = (Origin, u64);

impl Queue {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The queue that these records made, in order. Fails at the first that does not follow from those before it.
    pub fn replay(limits: Limits, records: impl IntoIterator<Item = Record>) -> Result<Self, Misfit> {
        let mut queue = Self::new(limits);
        records.into_iter().try_for_each(|record| queue.apply(record))?;
        Ok(queue)
    }

    /// An agent asks. The same change as one that waits, is being carried out or holds is that one, and so is one that was
    /// rejected for the same reason a short while ago.
    pub fn ask(&self, change: &Checked, justification: &str, now: u64) -> Result<Asked, Refusal> {
        check::justification(justification)?;
        if let Some((id, entry)) = self.same(change.change(), justification, now) {
            let is_counted = entry.state == State::Pending && entry.proposal.times < self.limits.times;
            let record = is_counted.then(|| Record::Repeated { id: text(id), at: now });
            return Ok(Asked::Known { answer: entry.answer(), record });
        }
        let kind = std::mem::discriminant(change.change());
        let of_kind = |entry: &&Entry| std::mem::discriminant(&entry.proposal.change) == kind;
        let open = self.waiting().filter(of_kind).count();
        if open >= self.limits.open_of(change.change()) {
            return Err(Refusal::ManyOpen { open, kind: kind_name(change.change()) });
        }
        let is_recent = |entry: &&Entry| entry.proposal.asked.abs_diff(now) < Limits::WINDOW_SECONDS;
        if self.asks().filter(is_recent).count() >= self.limits.new_per_window {
            return Err(Refusal::TooFast { seconds: Limits::WINDOW_SECONDS });
        }
        if self.counted[Origin::Agent as usize] >= self.limits.proposals {
            return Err(Refusal::Exhausted { proposals: self.limits.proposals });
        }
        let id = text((Origin::Agent, self.counted[Origin::Agent as usize] + 1));
        let (change, justification) = (change.change().clone(), justification.to_owned());
        Ok(Asked::New(Record::Asked { id, change, justification, at: now }))
    }

    /// What a person sees of a proposal has this digest: all of it, and the state of the bottle it is shown against.
    /// `change` is what would be in force. `None` where there is no such proposal.
    pub fn displayed(&self, id: &str, change: &Checked, base: &Digest) -> Option<Digest> {
        let entry = self.entry(id)?;
        Some(Digest::of_display(id, change.change(), &entry.proposal.justification, base))
    }

    /// A person said yes to what they saw. `base` is the state of the bottle now.
    pub fn approve(
        &self,
        id: &str,
        approval: &Approval<'_>,
        base: &Digest,
        now: u64,
    ) -> Result<Record, VerdictRefusal> {
        let entry = self.pending(id)?;
        let change = approval.change.change();
        if std::mem::discriminant(change) != std::mem::discriminant(&entry.proposal.change) {
            return Err(VerdictRefusal::OtherKind);
        }
        self.current(id, approval.change, &approval.seen, base)?;
        approval.term.fits(change, now)?;
        Ok(Record::Approved {
            id: id.to_owned(),
            change: change.clone(),
            term: approval.term,
            seen: approval.seen.clone(),
            by: approval.by.to_owned(),
            at: now,
        })
    }

    /// A person said no. It holds whatever the bottle's state is, since it narrows nothing and opens nothing.
    pub fn reject(&self, id: &str, reason: &str, by: &str, now: u64) -> Result<Record, VerdictRefusal> {
        self.pending(id)?;
        let reason = notes(reason)?;
        Ok(Record::Rejected { id: id.to_owned(), reason, by: by.to_owned(), at: now })
    }

    /// A person grants what nobody asked for.
    pub fn grant(&self, change: &Checked, term: Term, by: &str, now: u64) -> Result<Record, VerdictRefusal> {
        term.fits(change.change(), now)?;
        let id = text((Origin::Operator, self.counted[Origin::Operator as usize] + 1));
        Ok(Record::Granted { id, change: change.change().clone(), term, by: by.to_owned(), at: now })
    }

    /// It has been carried out and holds.
    pub fn applied(&self, id: &str, words: &str, now: u64) -> Result<Record, VerdictRefusal> {
        self.applying(id)?;
        Ok(Record::Applied { id: id.to_owned(), notes: notes(words)?, at: now })
    }

    /// It could not be carried out, and the bottle is as it was.
    pub fn failed(&self, id: &str, reason: &str, now: u64) -> Result<Record, VerdictRefusal> {
        self.applying(id)?;
        Ok(Record::Failed { id: id.to_owned(), reason: notes(reason)?, at: now })
    }

    /// What held has been taken back.
    pub fn end(&self, id: &str, cause: Cause, now: u64) -> Result<Record, VerdictRefusal> {
        let entry = self.entry(id).ok_or_else(|| VerdictRefusal::Unknown(id.to_owned()))?;
        match &entry.state {
            State::InForce { .. } => Ok(Record::Ended { id: id.to_owned(), cause, at: now }),
            _ => Err(VerdictRefusal::NotInForce(id.to_owned())),
        }
    }

    /// After [`Queue::replay`]: a record for each entry whose carrying out was cut short.
    pub fn interrupted(&self, now: u64) -> Vec<Record> {
        let reason = "interrupted: the launcher ended between the yes and its effect; nothing was opened, ask again";
        let cut = self.entries.iter().filter(|(_, entry)| matches!(entry.state, State::Applying { .. }));
        cut.map(|(id, _)| Record::Failed { id: text(*id), reason: reason.into(), at: now }).collect()
    }

    /// Carries a record out; the only thing that changes a queue. A record that does not follow changes nothing.
    pub fn apply(&mut self, record: Record) -> Result<(), Misfit> {
        let misfit = |why| Misfit { id: record.id().to_owned(), why };
        let id = parse(record.id()).ok_or_else(|| misfit("no such id"))?;
        if let Some((origin, proposal, state)) = record.first() {
            if id != (origin, self.counted[origin as usize] + 1) {
                return Err(misfit("it is not the next number"));
            }
            self.counted[origin as usize] += 1;
            self.entries.insert(id, Entry { proposal, origin, state });
            return Ok(());
        }
        let entry = self.entries.get_mut(&id).ok_or_else(|| misfit("there is no such proposal"))?;
        match entry.state.after(&record) {
            Some(Some(state)) => entry.state = state,
            Some(None) => entry.proposal.times += 1,
            None => return Err(misfit("it does not follow from where the proposal is")),
        }
        Ok(())
    }

    /// Where each proposal is, as its agent is told: the newest [`ANSWERS_MAX`], oldest first.
    pub fn answers(&self) -> Vec<Answer> {
        let mut answers: Vec<Answer> = self.asks().rev().take(ANSWERS_MAX).map(Entry::answer).collect();
        answers.reverse();
        answers
    }

    /// Where one proposal is, as its agent is told.
    pub fn answer(&self, id: &str) -> Option<Answer> {
        self.entry(id).map(Entry::answer)
    }

    /// The proposals that wait for a person, oldest first.
    pub fn open(&self) -> Vec<&Proposal> {
        self.waiting().map(|entry| &entry.proposal).collect()
    }

    /// One proposal of an agent.
    pub fn proposal(&self, id: &str) -> Option<&Proposal> {
        self.entry(id).filter(|entry| entry.origin == Origin::Agent).map(|entry| &entry.proposal)
    }

    /// One proposal or grant.
    pub fn entry(&self, id: &str) -> Option<&Entry> {
        self.entries.get(&parse(id)?)
    }

    /// All proposals, then all grants, each in the order they came.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.values()
    }

    /// The ids of what holds and whose time is over.
    pub fn due(&self, now: u64) -> Vec<String> {
        self.ends().filter(|(_, at)| *at <= now).map(|(id, _)| id.to_owned()).collect()
    }

    /// When the next of what holds ends by time, in seconds of Unix time.
    pub fn next_due(&self) -> Option<u64> {
        self.ends().map(|(_, at)| at).min()
    }

    fn ends(&self) -> impl Iterator<Item = (&str, u64)> {
        self.entries.values().filter_map(|entry| match &entry.state {
            State::InForce { term: Term::Until { at }, .. } => Some((entry.proposal.id.as_str(), *at)),
            _ => None,
        })
    }

    fn asks(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.values().filter(|entry| entry.origin == Origin::Agent)
    }

    fn waiting(&self) -> impl Iterator<Item = &Entry> {
        self.asks().filter(|entry| entry.state == State::Pending)
    }

    fn same(&self, change: &Change, justification: &str, now: u64) -> Option<(Id, &Entry)> {
        let counts = |entry: &Entry| match &entry.state {
            State::Pending | State::Applying { .. } | State::InForce { .. } => true,
            State::Rejected { at, .. } => {
                entry.proposal.justification == justification && at.abs_diff(now) < self.limits.settled_seconds
            }
            State::Failed { .. } | State::Ended { .. } => false,
        };
        let mut asks = self.entries.iter().rev().filter(|((origin, _), _)| *origin == Origin::Agent);
        asks.find(|(_, entry)| entry.proposal.change == *change && counts(entry)).map(|(id, entry)| (*id, entry))
    }

    fn pending(&self, id: &str) -> Result<&Entry, VerdictRefusal> {
        let entry = self.entry(id).ok_or_else(|| VerdictRefusal::Unknown(id.to_owned()))?;
        match entry.state {
            State::Pending => Ok(entry),
            _ => Err(VerdictRefusal::NotPending { id: id.to_owned(), status: entry.answer().status }),
        }
    }

    fn applying(&self, id: &str) -> Result<(), VerdictRefusal> {
        let entry = self.entry(id).ok_or_else(|| VerdictRefusal::Unknown(id.to_owned()))?;
        match entry.state {
            State::Applying { .. } => Ok(()),
            _ => Err(VerdictRefusal::NotApplying(id.to_owned())),
        }
    }

    fn current(&self, id: &str, change: &Checked, seen: &Seen, base: &Digest) -> Result<(), VerdictRefusal> {
        let displayed = self.displayed(id, change, base);
        let is_current = seen.base == *base && displayed.as_ref() == Some(&seen.displayed);
        if is_current { Ok(()) } else { Err(VerdictRefusal::Stale) }
    }
}

fn notes(text: &str) -> Result<String, VerdictRefusal> {
    if text.len() > NOTES_BYTES_MAX { Err(VerdictRefusal::LongNotes(text.len())) } else { Ok(text.to_owned()) }
}

fn text((origin, number): Id) -> String {
    match origin {
        Origin::Agent => format!("p{number}"),
        Origin::Operator => format!("g{number}"),
    }
}

/// Reads an id that [`text`] wrote; every other spelling of the number is none.
fn parse(id: &str) -> Option<Id> {
    let origin = match id.as_bytes().first()? {
        b'p' => Origin::Agent,
        b'g' => Origin::Operator,
        _ => return None,
    };
    let number = id.get(1..)?.parse().ok()?;
    (text((origin, number)) == id).then_some((origin, number))
}

#[cfg(test)]
mod tests;
