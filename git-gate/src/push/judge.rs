//! Step 7 of a push: which findings count? Those that the operator excepted do not, nor those that the upstream has
//! already at the same place: a push does not make them known to anyone.

use super::command::Commands;
use super::receive::tree_names;
use crate::config::{self, Excused};
use crate::exceptions::Exceptions;
use crate::known::{Known, Lookups, Unanswered};
use crate::objects::ObjectKind;
use crate::pack::{Found, Lookup, Verified};
use crate::report::{Told, printable};
use crate::scan::{Budget, Clean, Finding, Findings, Fingerprint, Scanner, Source, Unclean};
use crate::table::Remote;
use gix_hash::{Kind, ObjectId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Parents of the pack's commits at which old content is looked for.
const BOUNDARY_MAX: usize = 16;

/// Findings of which it is told whether they are gone later, and refs that are looked at for it.
const LATER_MAX: usize = 20;

/// The longest path in a log line.
const PATH_CHARS_MAX: usize = 1024;

/// What became of the findings.
#[derive(Debug)]
pub struct Judged {
    /// All of them, for the log.
    pub findings: Vec<config::Finding>,
    /// What the agent is told, when some count.
    pub told: Vec<Told>,
    /// When none counts: the proof, and the exceptions that it needed.
    pub clean: Option<(Clean, Vec<Fingerprint>)>,
    /// Why a look-up had no answer, if one had none.
    pub unanswered: Option<String>,
}

/// What findings are judged by.
#[derive(Debug)]
pub struct Judge<'a> {
    /// Whose push it is.
    pub remote: &'a Remote,
    /// What the operator said since.
    pub exceptions: &'a Exceptions,
    /// What found them.
    pub scanner: &'a Scanner,
    /// For texts that are scanned to compare.
    pub budget: Budget,
    /// The push.
    pub commands: &'a Commands,
    /// Its pack.
    pub pack: Option<&'a Verified>,
}

struct Place {
    found: Option<Found>,
    fingerprint: Fingerprint,
}

impl Judge<'_> {
    /// Judges all of them.
    pub async fn judge(&self, findings: Findings, lookups: &mut Lookups<'_>) -> Judged {
        let places = tokio::task::block_in_place(|| self.places(&findings));
        let mut unanswered = None;
        let mut memory = Memory::default();
        let mut verdicts: Vec<Option<Excused>> = Vec::new();
        for (finding, place) in findings.iter().zip(&places) {
            let mut verdict = self.exceptions.has(self.remote, &place.fingerprint).then_some(Excused::Exception);
            if verdict.is_none() {
                match self.is_upstream(finding, place, lookups, &mut memory).await {
                    Ok(true) => verdict = Some(Excused::AlreadyUpstream),
                    Ok(false) => {}
                    Err(error) => {
                        unanswered.get_or_insert_with(|| error.to_string());
                    }
                }
            }
            verdicts.push(verdict);
        }
        let mut written = Vec::new();
        let mut told = Vec::new();
        let mut used = Vec::new();
        for ((finding, place), verdict) in findings.iter().zip(&places).zip(&verdicts) {
            let line = self.line(finding, place, *verdict);
            match verdict {
                None => told.push(Told {
                    removed_later: told.len() < LATER_MAX
                        && tokio::task::block_in_place(|| self.is_removed_later(finding, place)),
                    preview: finding.preview(),
                    finding: line.clone(),
                }),
                Some(Excused::Exception) => used.push(place.fingerprint),
                Some(Excused::AlreadyUpstream) => {}
            }
            written.push(line);
        }
        let mut verdicts = verdicts.into_iter();
        // In the order of `iter`, as the method says.
        let clean = findings.excuse(|_| verdicts.next().flatten().is_some()).ok();
        Judged { findings: written, told, clean: clean.map(|clean| (clean, used)), unanswered }
    }

    fn places(&self, findings: &Findings) -> Vec<Place> {
        let ids: Vec<ObjectId> = findings.iter().filter_map(|finding| tree_object(&finding.source)).collect();
        // A pack whose paths cannot be told has findings all the same.
        let found = self.pack.and_then(|pack| pack.paths_of(&ids).ok()).unwrap_or_default();
        let by_id: HashMap<ObjectId, Found> =
            ids.into_iter().zip(found).filter_map(|(id, found)| Some((id, found?))).collect();
        let place = |finding: &Finding| {
            let found = tree_object(&finding.source).and_then(|id| by_id.get(&id).cloned());
            let fingerprint = finding.fingerprint(found.as_ref().map(|found| found.path.as_slice()));
            Place { found, fingerprint }
        };
        findings.iter().map(place).collect()
    }

    fn line(&self, finding: &Finding, place: &Place, excused: Option<Excused>) -> config::Finding {
        let (kind, source) = match &finding.source {
            Source::Blob(id) => ("blob", id.to_string()),
            Source::Commit(id) => ("commit", id.to_string()),
            Source::Tag(id) => ("tag", id.to_string()),
            Source::TreeName(id) => ("file name", id.to_string()),
            // The name is the secret.
            Source::RefName(_) => ("ref name", String::new()),
            Source::PushOption(index) => ("push option", format!("push option {}", index + 1)),
        };
        let path = place.found.as_ref().map(|found| {
            // A path may be a secret itself, which its own finding says.
            if self.holds_secret(&found.path) {
                "(a path that holds a possible secret)".to_owned()
            } else {
                printable(&String::from_utf8_lossy(&found.path), PATH_CHARS_MAX)
            }
        });
        config::Finding {
            rule: finding.rule.clone(),
            kind: kind.into(),
            source,
            path,
            commit: place.found.as_ref().map(|found| found.commit.to_string()),
            line: finding.line,
            length: finding.length as u64,
            fingerprint: place.fingerprint.full(),
            excused,
        }
    }

    fn holds_secret(&self, path: &[u8]) -> bool {
        let scan = self.scanner.start(self.budget);
        // What cannot be scanned is not shown.
        scan.text(Source::TreeName(ObjectId::null(Kind::Sha1)), path).is_err() || scan.finish().is_err()
    }

    /// Does the newest commit of every ref have something else at this path?
    fn is_removed_later(&self, finding: &Finding, place: &Place) -> bool {
        let (Some(pack), Some(found), Source::Blob(id)) = (self.pack, &place.found, &finding.source) else {
            return false;
        };
        let tips = self.commands.updates().iter().take(LATER_MAX).map(|update| update.new);
        let tips: Vec<ObjectId> = tips.filter(|tip| pack.kind_of(tip) == Some(ObjectKind::Commit)).collect();
        let is_gone = |tip: &ObjectId| match pack.lookup(tip, &found.path) {
            Ok(Lookup::Object(now)) => now != *id,
            // A tree that is not in the pack is upstream, where this blob is not.
            Ok(Lookup::Absent | Lookup::NotInPack(_)) => true,
            Err(_) => false,
        };
        !tips.is_empty() && tips.iter().all(is_gone)
    }

    /// Has the upstream this very object, or the same secret at the same path of a commit that the pack builds on?
    async fn is_upstream(
        &self,
        finding: &Finding,
        place: &Place,
        lookups: &mut Lookups<'_>,
        memory: &mut Memory,
    ) -> Result<bool, Unanswered> {
        let (id, kind) = match &finding.source {
            Source::Blob(id) => (*id, ObjectKind::Blob),
            Source::Commit(id) => (*id, ObjectKind::Commit),
            Source::Tag(id) => (*id, ObjectKind::Tag),
            Source::TreeName(id) => (*id, ObjectKind::Tree),
            Source::RefName(_) | Source::PushOption(_) => return Ok(false),
        };
        let Some(pack) = self.pack else { return Ok(false) };
        let is_there = match memory.there.get(&id) {
            Some(is_there) => *is_there,
            None => {
                let is_there = match lookups.object(id, kind).await {
                    Ok(known) => {
                        let own = tokio::task::block_in_place(|| pack.read(&id, known.1.len() as u64));
                        // Names can be made to collide; bytes cannot.
                        own.ok().flatten().is_some_and(|(own_kind, own)| own_kind == known.0 && own == known.1)
                    }
                    Err(Unanswered::Absent) => false,
                    Err(error) => return Err(error),
                };
                memory.there.insert(id, is_there);
                is_there
            }
        };
        if is_there {
            return Ok(true);
        }
        let Some(found) = &place.found else { return Ok(false) };
        let boundary = tokio::task::block_in_place(|| pack.boundary(BOUNDARY_MAX)).unwrap_or_default();
        for commit in boundary {
            match lookups.at_path(commit, &found.path).await {
                Ok(Some(known)) if known.0 == kind && self.has_same(finding, &known, memory) => return Ok(true),
                Ok(_) | Err(Unanswered::Absent) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Does the old object give the same finding? Each is scanned once, however many findings ask.
    fn has_same(&self, finding: &Finding, old: &Known, memory: &mut Memory) -> bool {
        // The look-ups keep every object, so an address stays the same object's.
        let key = Arc::as_ptr(old) as usize;
        let known = memory.scanned.entry(key).or_insert_with(|| self.secrets_of(&finding.source, old));
        known.contains(&(finding.rule.clone(), finding.fingerprint(None)))
    }

    fn secrets_of(&self, source: &Source, old: &Known) -> HashSet<(String, Fingerprint)> {
        tokio::task::block_in_place(|| {
            let names = (old.0 == ObjectKind::Tree).then(|| tree_names(&old.1, self.commands.format()));
            let text = match &names {
                None => &old.1,
                Some(Ok(names)) => names,
                Some(Err(_)) => return HashSet::new(),
            };
            let scan = self.scanner.start(self.budget);
            if scan.text(source.clone(), text).is_err() {
                return HashSet::new();
            }
            match scan.finish() {
                Err(Unclean::Findings(findings)) => {
                    findings.iter().map(|finding| (finding.rule.clone(), finding.fingerprint(None))).collect()
                }
                Ok(_) | Err(Unclean::Refused(_)) => HashSet::new(),
            }
        })
    }
}

/// What was found out for one finding and serves the next.
#[derive(Default)]
struct Memory {
    there: HashMap<ObjectId, bool>,
    scanned: HashMap<usize, HashSet<(String, Fingerprint)>>,
}

/// The object of a source that trees can name.
fn tree_object(source: &Source) -> Option<ObjectId> {
    match source {
        Source::Blob(id) | Source::TreeName(id) => Some(*id),
        Source::Commit(_) | Source::Tag(_) | Source::RefName(_) | Source::PushOption(_) => None,
    }
}
