//! What a person is shown, and what their answer does. What is shown is worked out anew when the answer comes: where it is
//! not the same any more, the person is shown that, and nothing is done.

use super::{Desk, now, route, state};
use crate::audit::Event;
use crate::engine::Engine;
use crate::keeper::current;
use crate::manifest::host::HostPattern;
use crate::verdict::{Done, Reply, Review, SECONDS_MAX, Subject, Terms, page};
use supervise::check::{self, Checked};
use supervise::queue::{Approval, Cause, Seen, State, Term};
use supervise::wire::{Change, Proposal};

/// What cannot be decided, and what to do.
fn refused(reason: impl Into<String>, hint: Option<&str>) -> Reply {
    Reply::Refused { reason: reason.into(), hint: hint.map(str::to_owned) }
}

/// What a review leads to.
pub(super) enum Step {
    /// Something is put in force, for a proposal or unasked.
    Grant(Checked),
    /// A proposal's or a grant's change is taken back.
    Back(String),
    /// An entry of the manifest's allowlist is taken back.
    Close(HostPattern),
}

/// The part of the bottle that a change is about, as it is and as it will be, and what follows.
struct Shown {
    before: Vec<String>,
    after: Vec<String>,
    facts: Vec<String>,
}

impl<E: Engine> Desk<E> {
    /// What a person is shown before they decide.
    pub(super) fn review(&self, subject: &Subject, terms: &Terms) -> Result<(Review, Step), Reply> {
        match subject {
            Subject::Proposal(id) => {
                let Some(entry) = self.queue.entry(id).filter(|_| self.queue.proposal(id).is_some()) else {
                    return Err(refused(format!("there is no proposal {id:?}"), Some("see `launcher proposals`")));
                };
                if entry.state != State::Pending {
                    let status = page::status(entry.answer().status);
                    return Err(refused(format!("{id} has its answer: {status}"), None));
                }
                let change = terms.edited.clone().unwrap_or_else(|| entry.proposal.change.clone());
                self.review_grant(Some(&entry.proposal), change, terms)
            }
            Subject::Own(change) => self.review_grant(None, change.clone(), terms),
            Subject::Back(what) => self.review_back(what),
        }
    }

    fn review_grant(
        &self,
        proposal: Option<&Proposal>,
        change: Change,
        terms: &Terms,
    ) -> Result<(Review, Step), Reply> {
        let change = match change {
            Change::Route(asked) => {
                Change::Route(route::with_credential(asked, terms).map_err(|why| refused(why, None))?)
            }
            other if terms.no_inspect => {
                return Err(refused(
                    format!("whether {} is inspected is not to be said", page::short(&other)),
                    Some("leave --no-inspect out: it is for routes"),
                ));
            }
            other if terms.token_ref.is_some() => {
                return Err(refused(
                    format!("{} takes no credential", page::short(&other)),
                    Some("leave --token-ref out"),
                ));
            }
            other => other,
        };
        let checked = check::change(change, &self.known()).map_err(|why| refused(why.to_string(), None))?;
        term(terms).map_err(|why| refused(why, None))?;
        let Shown { before, after, facts } = self.shown(checked.change(), terms)?;
        let review = Review {
            bottle: self.dir.id().to_owned(),
            proposal: proposal.cloned(),
            change: checked.change().clone(),
            terms: terms.clone(),
            before,
            after,
            facts,
            base: self.base_digest().to_string(),
            digest: String::new(),
        };
        // How often it was asked is no part of it: an agent could keep every answer from being current.
        let mut sealed = review.clone();
        if let Some(proposal) = &mut sealed.proposal {
            proposal.times = 1;
        }
        Ok((Review { digest: sealed.sealed().digest, ..review }, Step::Grant(checked)))
    }

    /// The part of the bottle that a change is about, as it is and as it will be, and what follows.
    fn shown(&self, change: &Change, terms: &Terms) -> Result<Shown, Reply> {
        let mut facts = Vec::new();
        let (before, after) = match change {
            Change::Hosts { hosts } => {
                let before = self.allowed();
                let after = before.iter().cloned().chain(hosts.iter().map(|host| format!("host {host}"))).collect();
                facts.push("whatever the agent can read it can send there".to_owned());
                if hosts.iter().any(|host| host.starts_with("*.")) {
                    facts.push("a host with a star is everything below it, and the name itself".to_owned());
                }
                facts.push("their TLS is opened and read; addresses inside stay refused".to_owned());
                facts.push(match terms.seconds {
                    Some(seconds) => format!(
                        "it ends after {}: the agent's pipelock is started again then, which cuts its open connections; \
                         routes and remotes go on",
                        page::age(seconds)
                    ),
                    None => "it holds until the bottle ends or it is taken back; nothing that is open is cut".to_owned(),
                });
                (before, after)
            }
            Change::Route(asked) => {
                let lines = |order: &crate::plan::Order| -> Vec<String> {
                    let routes = order.bottle.routes.iter();
                    routes.map(|route| page::route_line(&current::route(route))).collect()
                };
                let before = lines(&self.order);
                let how = if terms.no_inspect { ", its TLS not opened" } else { "" };
                let after = before.iter().cloned().chain([format!("{}{how}", page::route_line(asked))]).collect();
                facts.extend(self.route_facts(asked, terms).map_err(|why| refused(why, Some(RELAUNCH)))?);
                (before, after)
            }
            Change::Finding { fingerprint } => {
                let found = self.findings.of(fingerprint);
                if found.is_empty() {
                    return Err(refused("no push of this bottle was refused for it", None));
                }
                let after = found.iter().map(|(remote, _)| format!("finding {fingerprint} passes to {remote}"));
                for (remote, finding) in &found {
                    let path = finding.path.as_deref().unwrap_or(&finding.source);
                    facts.push(format!(
                        "git-gate found at {remote}: {} in {path}, line {}, {} bytes",
                        finding.rule, finding.line, finding.length
                    ));
                }
                facts.push("once the upstream has it, it is out: look at the file before you say yes".to_owned());
                facts.push(
                    "it is for this rule, path and secret alone; every other finding is refused as before".to_owned(),
                );
                (Vec::new(), after.collect())
            }
            Change::Dockerfile { text } => {
                let old = current::current(&self.order, Vec::new()).dockerfile.unwrap_or_default();
                facts.push(format!(
                    "it is written to {}; nothing of the running bottle changes",
                    self.dir.dockerfile().display()
                ));
                facts.push(format!(
                    "when the bottle has ended, `launcher resume {}` carries it out behind the bottle's wall and pipelock, \
                     and launches the bottle again in it",
                    self.dir.id()
                ));
                facts.push("what it installs comes from the hosts of the allowlist; look at each RUN".to_owned());
                let lines = |text: &str| text.lines().map(str::to_owned).collect();
                (lines(&old), lines(text))
            }
        };
        if terms.once && !matches!(change, Change::Route(_)) {
            facts.push("it ends with one use".to_owned());
        }
        Ok(Shown { before, after, facts })
    }

    fn review_back(&self, what: &str) -> Result<(Review, Step), Reply> {
        let found = match self.queue.entry(what).map(|entry| &entry.state) {
            Some(State::InForce { change, .. }) => Some((change.clone(), Step::Back(what.to_owned()))),
            Some(_) => return Err(refused(format!("{what} is not in force"), Some("see `launcher proposals`"))),
            None => self.by_host(what),
        };
        let Some((change, step)) = found else {
            let hint = "name a grant of `launcher proposals`, or a host of the allowlist as it stands there";
            return Err(refused(format!("there is no grant and no host {what:?}"), Some(hint)));
        };
        let mut facts = Vec::new();
        let after = match &step {
            Step::Close(pattern) => self.allowed_without(|host| host == pattern.to_string()),
            _ => match &change {
                Change::Hosts { hosts } => self.allowed_without(|host| hosts.iter().any(|gone| gone == host)),
                Change::Route(_) | Change::Finding { .. } => Vec::new(),
                Change::Dockerfile { .. } => return Err(refused("a Dockerfile stays until another is written", None)),
            },
        };
        let before = match &change {
            Change::Hosts { .. } => self.allowed(),
            other => page::lines_of(other),
        };
        facts.push(
            match &change {
                Change::Hosts { .. } => {
                    "the agent's pipelock is started again, which cuts its open connections; routes and remotes go on"
                }
                Change::Route(_) => "what is open on the route is cut; other routes go on",
                Change::Finding { .. } | Change::Dockerfile { .. } => "pushes that hold it are refused again",
            }
            .to_owned(),
        );
        let review = Review {
            bottle: self.dir.id().to_owned(),
            proposal: None,
            change,
            terms: Terms::default(),
            before,
            after,
            facts,
            base: self.base_digest().to_string(),
            digest: String::new(),
        };
        Ok((review.sealed(), step))
    }

    /// What is in force by this host: a grant, or else an entry of the manifest.
    fn by_host(&self, what: &str) -> Option<(Change, Step)> {
        let pattern = HostPattern::parse(what).ok()?;
        let name = pattern.to_string();
        let granted = state::in_force(&self.queue).find(|(_, change)| match change {
            Change::Hosts { hosts } => hosts.contains(&name),
            Change::Route(_) | Change::Finding { .. } | Change::Dockerfile { .. } => false,
        });
        if let Some((id, change)) = granted {
            return Some((change.clone(), Step::Back(id.to_owned())));
        }
        let listed = self.order.bottle.egress.allowlist.contains(&pattern);
        listed.then(|| (Change::Hosts { hosts: vec![name] }, Step::Close(pattern)))
    }

    fn allowed(&self) -> Vec<String> {
        self.order.bottle.egress.allowlist.iter().map(|host| format!("host {host}")).collect()
    }

    fn allowed_without(&self, gone: impl Fn(&str) -> bool) -> Vec<String> {
        let all = self.order.bottle.egress.allowlist.iter().map(ToString::to_string);
        all.filter(|host| !gone(host)).map(|host| format!("host {host}")).collect()
    }

    fn base_digest(&self) -> supervise::queue::Digest {
        state::base(&self.order, &self.queue)
    }

    /// A person said yes to what has this digest.
    pub(super) async fn decide(&mut self, subject: &Subject, terms: &Terms, digest: &str, by: &str) -> Reply {
        let (review, step) = match self.review(subject, terms) {
            Ok(reviewed) => reviewed,
            Err(refused) => return refused,
        };
        if review.digest != digest {
            return Reply::Changed(Box::new(review));
        }
        match step {
            Step::Grant(checked) => self.grant(subject, terms, &review, &checked, by).await,
            Step::Back(id) => {
                self.note(verdict(subject, "revoked", terms, &review, by));
                let back = self.take_back(&id, Cause::Revoked { by: by.to_owned() }, "a person took it back").await;
                done(back, &format!("taken back: {}", page::short(&review.change)))
            }
            Step::Close(pattern) => {
                self.note(verdict(subject, "revoked", terms, &review, by));
                self.beyond.closed.insert(pattern.clone());
                let order = state::now(&self.base, &self.queue, &self.beyond, None);
                let back = self.close_hosts(order).await;
                self.settle("");
                done(back, &format!("taken back: {pattern}"))
            }
        }
    }

    async fn grant(&mut self, subject: &Subject, terms: &Terms, review: &Review, checked: &Checked, by: &str) -> Reply {
        let (at, base) = (now(), self.base_digest());
        let term = match term(terms) {
            Ok(term) => term,
            Err(why) => return refused(why, None),
        };
        let record = match subject {
            Subject::Proposal(id) => {
                let Some(displayed) = self.queue.displayed(id, checked, &base) else {
                    return refused(format!("there is no proposal {id:?}"), None);
                };
                let seen = Seen { displayed, base: base.clone() };
                self.queue.approve(id, &Approval { change: checked, term, seen, by }, &base, at)
            }
            Subject::Own(_) | Subject::Back(_) => self.queue.grant(checked, term, by, at),
        };
        let record = match record {
            Ok(record) => record,
            Err(why) => return refused(why.to_string(), None),
        };
        let id = record.id().to_owned();
        let word = match (subject, &review.proposal) {
            (Subject::Proposal(_), Some(proposal)) if proposal.change == review.change => "approved",
            (Subject::Proposal(_), _) => "modified",
            (Subject::Own(_) | Subject::Back(_), _) => "allowed",
        };
        // Both are on the disk before anything is opened; what cannot be written down is not done.
        if let Err(error) = self.audit.record(verdict(subject, word, terms, review, by)) {
            return refused(format!("the audit log cannot be written, so nothing was changed: {error}"), None);
        }
        if let Err(why) = self.keep(record) {
            return refused(format!("nothing was changed: {why}"), None);
        }
        if let Change::Route(asked) = checked.change() {
            match route::of(asked, terms) {
                Ok(route) => drop(self.beyond.routes.insert(id.clone(), route)),
                Err(why) => return self.fail(&id, subject, &why),
            }
        }
        let notes = match self.remedy(&id, checked.change(), term).await {
            Ok(notes) => notes,
            Err(why) => return self.fail(&id, subject, &why),
        };
        let notes = if terms.notes.is_empty() { notes } else { format!("{}; {notes}", terms.notes) };
        let applied = Event::Applied { proposal: proposal_of(subject), grant: Some(id.clone()), failed: None };
        let written = self.audit.record(applied).map_err(|e| format!("the audit log cannot be written: {e}"));
        let kept = written.and_then(|()| self.queue.applied(&id, &notes, now()).map_err(|e| e.to_string()));
        if let Err(why) = kept.and_then(|record| self.keep(record)) {
            let restored = self.unremedy(&id, checked.change()).await;
            let why = restored.map_or_else(|also| format!("{why}; {also}"), |()| why.clone());
            return self.fail(&id, subject, &why);
        }
        self.settle(&id);
        let text = format!("{word}: {} ({id})", page::short(checked.change()));
        Reply::Done(Done { text: format!("{text}\n{notes}"), grant: Some(id) })
    }

    /// It could not be carried out, and the bottle is as it was.
    fn fail(&mut self, id: &str, subject: &Subject, why: &str) -> Reply {
        self.beyond.routes.remove(id);
        match self.queue.failed(id, &cut(why), now()) {
            Ok(record) => self.keep_anyway(record),
            Err(error) => self.log("err", &error.to_string()),
        }
        self.note(Event::Applied { proposal: proposal_of(subject), grant: None, failed: Some(why.to_owned()) });
        self.settle(id);
        refused(format!("it could not be done, and the bottle is as it was: {why}"), None)
    }

    /// A person said no.
    pub(super) fn reject(&mut self, id: &str, reason: &str, by: &str) -> Reply {
        let record = match self.queue.reject(id, reason, by, now()) {
            Ok(record) => record,
            Err(why) => return refused(why.to_string(), Some("see `launcher proposals`")),
        };
        self.note(Event::Verdict {
            proposal: Some(id.to_owned()),
            by: by.to_owned(),
            verdict: "rejected".to_owned(),
            change: None,
            credential: None,
            seconds: None,
            once: false,
            reason: reason.to_owned(),
            before: Vec::new(),
            after: Vec::new(),
        });
        self.keep_anyway(record);
        self.settle(id);
        Reply::Done(Done { text: format!("rejected: {id}"), grant: None })
    }

    /// Takes what is in force out of force. Whatever can be written down or told, it is not in force any more.
    pub(super) async fn take_back(&mut self, id: &str, cause: Cause, why: &str) -> Result<(), String> {
        let Some(State::InForce { change, .. }) = self.queue.entry(id).map(|entry| entry.state.clone()) else {
            return Err(format!("{id} is not in force"));
        };
        let back = self.unremedy(id, &change).await;
        if let Err(error) = &back {
            self.log("err", &format!("{id} is taken back, and a sidecar does not say so: {error}"));
        }
        self.ended(id, cause, why);
        back
    }

    /// Writes down that something is no longer in force.
    pub(super) fn ended(&mut self, id: &str, cause: Cause, why: &str) {
        let change = state::in_force(&self.queue).find(|(known, _)| *known == id).map(|(_, change)| change.clone());
        match self.queue.end(id, cause, now()) {
            Ok(record) => self.keep_anyway(record),
            Err(error) => self.log("err", &error.to_string()),
        }
        self.beyond.routes.remove(id);
        if let Some(change) = change {
            let text = format!("{}: {why} ({id})", page::short(&change));
            self.note(Event::Ended { grant: id.to_owned(), change, why: why.to_owned() });
            self.log("out", &text);
            self.shared.console.notice_now(&crate::ui::clean(&text));
        }
        self.settle(id);
    }
}

/// What to do where a running bottle cannot be changed.
const RELAUNCH: &str = "write it into the bottle's manifest and launch it again";

fn done(back: Result<(), String>, text: &str) -> Reply {
    match back {
        Ok(()) => Reply::Done(Done { text: text.to_owned(), grant: None }),
        Err(why) => refused(format!("{text}; but a sidecar does not say so: {why}"), Some("see `launcher ps`")),
    }
}

fn verdict(subject: &Subject, word: &str, terms: &Terms, review: &Review, by: &str) -> Event {
    Event::Verdict {
        proposal: proposal_of(subject),
        by: by.to_owned(),
        verdict: word.to_owned(),
        change: Some(review.change.clone()),
        credential: terms.token_ref.as_ref().map(crate::manifest::TokenRef::shown),
        seconds: terms.seconds,
        once: terms.once,
        reason: terms.notes.clone(),
        before: review.before.clone(),
        after: review.after.clone(),
    }
}

fn proposal_of(subject: &Subject) -> Option<String> {
    match subject {
        Subject::Proposal(id) => Some(id.clone()),
        Subject::Own(_) | Subject::Back(_) => None,
    }
}

/// How long it is to hold.
fn term(terms: &Terms) -> Result<Term, String> {
    match (terms.seconds, terms.once) {
        (Some(_), true) => Err("it ends after a time or after one use, not both".to_owned()),
        (Some(0), false) => Err("it would end at once".to_owned()),
        (Some(seconds), false) if seconds > SECONDS_MAX => Err("30 days are the most".to_owned()),
        (Some(seconds), false) => Ok(Term::Until { at: now() + seconds }),
        (None, true) => Ok(Term::Once),
        (None, false) => Ok(Term::Lasting),
    }
}

/// A reason as the journal takes it.
fn cut(text: &str) -> String {
    text.chars().take(400).collect()
}
