//! What the client hears from the moment its ref updates were read: signs of life, why nothing was taken, or the upstream's
//! own answer. The log hears the same.

use super::answer::{band, framed, own_report};
use super::forward::{Forwarded, forward};
use super::receive::ReceiveError;
use super::serve::{Means, budget};
use super::step::{Asked, Permitted};
use crate::agent::Agent;
use crate::audit::Entry;
use crate::config::{Outcome, RefUpdate};
use crate::limits::{Limits, seconds};
use crate::pack::{PackError, Verified};
use crate::policy::Denied;
use crate::scan::{Clean, Scanner, Source, Unclean};
use crate::stop::Stop;
use crate::upstream::Session;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Has the upstream anything of the push now?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It said so of a ref at least, or nobody knows.
    Perhaps,
    /// It said that it did not, or was sent nothing.
    No,
}

/// A push whose lines have been read: from here on the client expects a report.
pub(super) struct Push<'a> {
    pub(super) agent: &'a mut Agent,
    pub(super) side_band: bool,
    pub(super) entry: &'a mut Entry,
    pub(super) limits: &'a Limits,
}

impl Push<'_> {
    /// A ref whose name may be a secret is not named in the log.
    pub(super) fn log_refs(&mut self, asked: &Asked, scanner: &Scanner) {
        let scan = scanner.start(budget(self.limits));
        let scanned = asked.texts().try_for_each(|(source, text)| scan.text(source, text));
        let mut hidden = HashSet::new();
        let mut all_hidden = scanned.is_err();
        match scan.finish() {
            Ok(_) => {}
            Err(Unclean::Findings(findings)) => hidden.extend(findings.iter().filter_map(|finding| {
                if let Source::RefName(name) = &finding.source { Some(name.clone()) } else { None }
            })),
            Err(Unclean::Refused(_)) => all_hidden = true,
        }
        self.entry.wants(asked.commands().updates().iter().map(|update| {
            let name = update.name.as_str();
            let is_hidden = all_hidden || hidden.contains(name);
            let name = if is_hidden { "(a name that holds a possible secret)" } else { name };
            let (old, new) = (update.old.to_string(), update.new.to_string());
            RefUpdate { name: name.to_owned(), old, new, answer: None }
        }));
    }

    /// Does some work while the client is told now and then that the gate lives.
    pub(super) async fn alive<T>(&mut self, deadline: Instant, work: impl Future<Output = T>) -> Result<T, Stop> {
        let mut quiet = tokio::time::interval(seconds(self.limits.keepalive_seconds));
        quiet.reset();
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = tokio::time::sleep_until(deadline.into()) => {
                    return Err(Stop::Cut(format!("the push took longer than push_seconds ({})", self.limits.push_seconds)));
                }
                _ = quiet.tick() => if self.side_band {
                    self.agent.writer.send(super::answer::KEEPALIVE).await?;
                }
            }
        }
    }

    /// Tells the client why none of its refs changed, and reads the rest of what it sends.
    async fn report(&mut self, text: &str, unpack: &str, refs: Vec<(String, String)>, within: Duration) {
        let mut out = Vec::new();
        if self.side_band {
            band(&mut out, 2, text.as_bytes());
        }
        out.extend(framed(&own_report(unpack, refs.into_iter()), self.side_band));
        // A client that has gone away does not hear it; the log has it.
        if self.agent.writer.send(&out).await.is_ok() {
            self.agent.drain(within).await;
        }
    }

    fn all(asked: &Asked, reason: &str) -> Vec<(String, String)> {
        asked.commands().updates().iter().map(|update| (update.name.as_str().to_owned(), reason.to_owned())).collect()
    }

    async fn refuse(&mut self, text: &str, unpack: &str, refs: Vec<(String, String)>, why: &str) -> Result<(), Stop> {
        self.entry.ended(Outcome::Refused);
        self.entry.because(why);
        self.report(text, unpack, refs, seconds(self.limits.drain_seconds)).await;
        Ok(())
    }

    /// Refused for a reason that is no finding and no policy.
    pub(super) async fn reject(&mut self, asked: &Asked, why: &str) -> Result<(), Stop> {
        let text = format!("git-gate: push refused: {why}; nothing was sent to the upstream.\n");
        self.refuse(&text, "ok", Self::all(asked, "refused by git-gate"), why).await
    }

    pub(super) async fn findings(&mut self, asked: &Asked, text: &str) -> Result<(), Stop> {
        let refs = Self::all(asked, "secret found by git-gate");
        self.refuse(text, "ok", refs, "a possible secret was found").await
    }

    /// All of them, since a push is taken whole or not: those that policy lets pass say so.
    pub(super) async fn deny(&mut self, asked: &Asked, denied: &[Option<Denied>]) -> Result<(), Stop> {
        let reason = |denied: &Option<Denied>| match denied {
            Some(denied) => denied.to_string(),
            None => "refused by git-gate with the others".to_owned(),
        };
        let refs = Self::all(asked, "").into_iter().zip(denied).map(|((name, _), denied)| (name, reason(denied)));
        let text = "git-gate: push refused: the policy of this remote does not allow it; nothing was sent to the upstream.\n\
                    Ask the operator which refs may be pushed, and whether force and delete are allowed.\n";
        let first = denied.iter().flatten().next().map(ToString::to_string).unwrap_or_default();
        self.refuse(text, "ok", refs.collect(), &first).await
    }

    pub(super) async fn not_received(&mut self, asked: &Asked, error: ReceiveError) -> Result<(), Stop> {
        let why = bottle_sidecar::chain(&error);
        match error {
            ReceiveError::Gone | ReceiveError::Pack(PackError::Truncated { .. }) => {
                self.entry.because(&why);
                Err(Stop::Agent(std::io::ErrorKind::UnexpectedEof.into()))
            }
            _ => {
                let text = format!("git-gate: push refused: {why}; nothing was sent to the upstream.\n");
                self.refuse(&text, "pack refused by git-gate", Self::all(asked, "refused by git-gate"), &why).await
            }
        }
    }

    pub(super) async fn forward(
        &mut self,
        asked: Asked,
        permitted: Permitted,
        clean: Clean,
        pack: Option<Verified>,
        session: &mut Box<dyn Session>,
        means: Means<'_>,
    ) -> Result<Taken, Stop> {
        let names: Vec<String> =
            asked.commands().updates().iter().map(|update| update.name.as_str().to_owned()).collect();
        let Some(cleared) = asked.clear(permitted, &clean, pack) else {
            return Err(Stop::Cut("the scan did not see all of the push".into()));
        };
        match forward(self.agent, session, &*means.remote.upstream, cleared, self.limits).await {
            Forwarded::Reported(report) => {
                let is_done = report.unpack == "ok" && report.refs.iter().all(|(_, why)| why.is_none());
                self.entry.ended(if is_done { Outcome::Done } else { Outcome::Rejected });
                if report.unpack != "ok" {
                    self.entry.because(&format!("the upstream did not unpack it: {}", report.unpack));
                }
                for (name, why) in &report.refs {
                    self.entry.answered(name, why.as_deref().unwrap_or("ok").to_owned());
                }
                let is_taken = report.unpack == "ok" && report.refs.iter().any(|(_, why)| why.is_none());
                Ok(if is_taken { Taken::Perhaps } else { Taken::No })
            }
            Forwarded::Unknown(why) => {
                self.entry.ended(Outcome::Unknown);
                self.entry.because(&why);
                Ok(Taken::Perhaps)
            }
            Forwarded::Not(stop) => {
                self.entry.ended(Outcome::Failed);
                self.entry.because(&bottle_sidecar::chain(&stop));
                let sentence = stop.sentence().unwrap_or_else(|| "upstream failed".into());
                let text = format!("git-gate: the push was not forwarded: {sentence}\n");
                let reason = "upstream unreachable";
                let refs = names.into_iter().map(|name| (name, reason.to_owned())).collect();
                self.report(&text, "git-gate: not forwarded", refs, seconds(self.limits.drain_seconds)).await;
                Ok(Taken::No)
            }
        }
    }
}
