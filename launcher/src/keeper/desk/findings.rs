//! The findings for which git-gate refused a push of late. An agent names one by the digits that it was shown; only one
//! that was really found can be asked for, and a person is told by git-gate's own words what it is. Pure.

use git_gate::config::{Finding, Operation};
use std::collections::VecDeque;

/// Findings that are remembered, the newest ones.
const KEPT_MAX: usize = 500;

/// What was found.
#[derive(Debug, Default)]
pub struct Findings(VecDeque<(String, Finding)>);

impl Findings {
    /// Remembers what refused a push.
    pub fn hear(&mut self, operation: &Operation) {
        for finding in operation.findings.iter().filter(|finding| finding.excused.is_none()) {
            let is_known =
                |(remote, f): &(String, Finding)| *remote == operation.remote && f.fingerprint == finding.fingerprint;
            if self.0.iter().any(is_known) {
                continue;
            }
            if self.0.len() >= KEPT_MAX {
                self.0.pop_front();
            }
            self.0.push_back((operation.remote.clone(), finding.clone()));
        }
    }

    /// The whole fingerprint that begins with these digits; `Err`: none does, or several do.
    pub fn whole(&self, digits: &str) -> Result<String, &'static str> {
        let mut like: Vec<&str> =
            self.0.iter().map(|(_, f)| f.fingerprint.as_str()).filter(|known| known.starts_with(digits)).collect();
        like.sort_unstable();
        like.dedup();
        match like.as_slice() {
            [one] => Ok((*one).to_owned()),
            [] => {
                Err("no push of this bottle was refused for such a finding: push first, and use the fingerprint that \
                       git-gate shows")
            }
            _ => Err("several findings begin with these digits: write more of them"),
        }
    }

    /// The remotes that refused it, and what was found there.
    pub fn of(&self, fingerprint: &str) -> Vec<(&str, &Finding)> {
        let is_it = |(_, finding): &&(String, Finding)| finding.fingerprint == fingerprint;
        self.0.iter().filter(is_it).map(|(remote, finding)| (remote.as_str(), finding)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use git_gate::config::{Outcome, Service};

    fn refused(remote: &str, fingerprint: &str) -> Operation {
        let finding = Finding {
            rule: "aws".to_owned(),
            kind: "blob".to_owned(),
            source: "o".to_owned(),
            path: None,
            commit: None,
            line: 1,
            length: 20,
            fingerprint: fingerprint.to_owned(),
            excused: None,
        };
        Operation {
            remote: remote.to_owned(),
            service: Service::Push,
            refs: Vec::new(),
            outcome: Outcome::Refused,
            bytes: 1,
            ms: 1,
            findings: vec![finding],
            reason: None,
        }
    }

    #[test]
    fn a_finding_is_named_by_its_first_digits_and_only_one_that_was_found() {
        let (one, two) =
            (format!("{}{}", "a".repeat(12), "1".repeat(52)), format!("{}{}", "a".repeat(12), "2".repeat(52)));
        let mut findings = Findings::default();
        findings.hear(&refused("app", &one));
        findings.hear(&refused("lib", &one));
        findings.hear(&refused("app", &one));
        assert_eq!(findings.whole(&"a".repeat(12)).as_ref(), Ok(&one));
        assert_eq!(findings.of(&one).iter().map(|(remote, _)| *remote).collect::<Vec<_>>(), ["app", "lib"]);
        findings.hear(&refused("app", &two));
        assert!(findings.whole(&"a".repeat(12)).is_err_and(|why| why.contains("several")));
        assert_eq!(findings.whole(&two[..13]).as_ref(), Ok(&two));
        assert!(findings.whole(&"b".repeat(12)).is_err_and(|why| why.contains("no push")));
    }

    #[test]
    fn findings_without_end_take_no_room_without_end() {
        let mut findings = Findings::default();
        (0..2 * KEPT_MAX).for_each(|n| findings.hear(&refused("app", &format!("{n:064x}"))));
        assert_eq!(findings.0.len(), KEPT_MAX);
    }
}
