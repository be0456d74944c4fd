//! The demo's operator: looks at what the agent asks for, and says yes to the one host that it is meant to have.

use super::rows::Row;
use super::world::ASKED;
use crate::commands::Here;
use crate::commands::verdicts::{ask, unexpected};
use crate::error::Failure;
use crate::state::BottleDir;
use crate::verdict::{Reply, Request, Subject, Terms};
use supervise::wire::{Change, Status};

/// Answers what waits.
pub async fn answer(here: &Here, dir: &BottleDir) -> Row {
    let (happened, held) = match decide(here, dir).await {
        Ok(seen) => (seen, true),
        Err(failure) => (failure.message, false),
    };
    Row {
        tried: "the operator looks at what is asked for, and says yes".to_owned(),
        expected: format!("{ASKED} alone is shown"),
        happened,
        held,
    }
}

async fn decide(here: &Here, dir: &BottleDir) -> Result<String, Failure> {
    let wrong = |what: String| Failure::launch(what, None);
    let waiting: Vec<_> = match ask(here, dir, Request::List { watch: false }).await? {
        Reply::Listing(all) => all.proposals.into_iter().filter(|p| p.answer.status == Status::Pending).collect(),
        other => return Err(unexpected(&other)),
    };
    let [one] = waiting.as_slice() else { return Err(wrong(format!("{} proposals wait", waiting.len()))) };
    let (subject, terms) = (Subject::Proposal(one.proposal.id.clone()), Terms::default());
    let review = Request::Review { subject: subject.clone(), terms: terms.clone() };
    let review = match ask(here, dir, review).await? {
        Reply::Review(review) => review,
        other => return Err(unexpected(&other)),
    };
    if review.change != (Change::Hosts { hosts: vec![ASKED.to_owned()] }) {
        return Err(wrong(format!("{:?} is asked for", review.change)));
    }
    match ask(here, dir, Request::Decide { subject, terms, digest: review.digest }).await? {
        Reply::Done(_) => Ok(format!("{ASKED} alone is shown, and approved")),
        other => Err(unexpected(&other)),
    }
}
