//! What was refused of late, by whichever sidecar: for the agent, who may ask for it, and for the audit log, which is told
//! of the first one and then once a minute how many more there were. An agent causes all of it, so its number and length
//! have limits. Pure: the time is given.

use crate::audit::Event;
use cred_proxy::config as proxy;
use git_gate::config::{Operation, Outcome};
use pipelock_config::log::LogEvent;
use std::collections::BTreeMap;
use supervise::wire::Denial;

/// Refusals that are told apart; what comes after shares one.
const KEPT_MAX: usize = 200;
/// Refusals that the agent is shown, the newest ones.
const SHOWN_MAX: usize = 50;
/// A refusal that repeats is written again after so many seconds.
const REPEAT_SECONDS: u64 = 60;
/// Characters of a text of the agent's.
const TEXT_CHARS_MAX: usize = 200;
/// What the refusals are called that are not told apart.
const OTHERS: &str = "(others)";

/// The words of pipelock by which a person's yes would help.
const ALLOWLIST: &str = "allowlist";

/// What was refused.
#[derive(Debug, Default)]
pub struct Denials(BTreeMap<Key, Count>);

/// By whom, what, and why.
type Key = (String, String, String);

#[derive(Debug)]
struct Count {
    ask: &'static str,
    times: u64,
    at: u64,
    /// When the audit log was told last, and how many came since.
    written: u64,
    since: u64,
}

/// A refusal as it was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    by: &'static str,
    what: String,
    reason: String,
    ask: &'static str,
}

impl Heard {
    /// Reads a sidecar's line; `None`: it tells of no refusal. What a sidecar tells the operator alone stays with them:
    /// the agent is told in general words.
    pub fn read(role: &str, line: &str) -> Option<Self> {
        match role {
            "pipelock" => Self::of_pipelock(line),
            proxy::NAME => Self::of_cred_proxy(line),
            git_gate::NAME => Self::of_git_gate(line),
            _ => None,
        }
    }

    fn of_pipelock(line: &str) -> Option<Self> {
        let LogEvent::Blocked { host, reason, scanner, .. } = LogEvent::parse(line)? else { return None };
        let ask = if scanner == ALLOWLIST { "pipelock-block" } else { "" };
        Some(Self { by: "pipelock", what: cut(&host.unwrap_or_default()), reason: cut(&reason), ask })
    }

    fn of_cred_proxy(line: &str) -> Option<Self> {
        if !line.starts_with(r#"{"event":"request""#) {
            return None;
        }
        let proxy::Event::Request { route, method, path, status, reason: Some(_), .. } =
            serde_json::from_str(line).ok()?
        else {
            return None;
        };
        let (reason, ask) = match status {
            404 if route.is_empty() => ("there is no such route", "cred-proxy-block"),
            403 => ("the route does not allow it", "cred-proxy-block"),
            400..=499 => ("the request cannot be taken", ""),
            _ => return None,
        };
        let what = cut(&format!("{method} {path}"));
        Some(Self { by: proxy::NAME, what, reason: reason.to_owned(), ask })
    }

    fn of_git_gate(line: &str) -> Option<Self> {
        let operation = operation(line)?;
        if operation.outcome != Outcome::Refused {
            return None;
        }
        let open = operation.findings.iter().find(|finding| finding.excused.is_none());
        let (reason, ask) = match open {
            Some(finding) => {
                let shown = finding.fingerprint.get(..12).unwrap_or(&finding.fingerprint);
                (format!("the push holds a secret ({}, fingerprint {shown})", finding.rule), "git-gate-block")
            }
            None => ("not allowed for this remote".to_owned(), ""),
        };
        Some(Self { by: git_gate::NAME, what: cut(&operation.remote), reason: cut(&reason), ask })
    }
}

/// An operation of git-gate, where a line tells of one.
pub fn operation(line: &str) -> Option<Operation> {
    if !line.starts_with(r#"{"event":"operation""#) {
        return None;
    }
    match serde_json::from_str(line) {
        Ok(git_gate::config::Event::Operation(operation)) => Some(operation),
        Ok(_) | Err(_) => None,
    }
}

impl Denials {
    /// Counts a refusal at `now` (seconds of Unix time). Gives what the audit log is to be told of it at once.
    pub fn count(&mut self, heard: Heard, now: u64) -> Option<Event> {
        let mut key: Key = (heard.by.to_owned(), heard.what, heard.reason);
        let mut ask = heard.ask;
        if self.0.len() >= KEPT_MAX && !self.0.contains_key(&key) {
            key = (key.0, OTHERS.to_owned(), String::new());
            ask = "";
        }
        let count = self.0.entry(key.clone()).or_insert(Count { ask, times: 0, at: now, written: 0, since: 0 });
        count.times += 1;
        count.since += 1;
        count.at = now;
        (count.times == 1).then(|| told(&key, count, now))
    }

    /// What the audit log is to be told of refusals that were repeated; at the `last` time of all of them.
    pub fn repeated(&mut self, now: u64, last: bool) -> Vec<Event> {
        let due = |count: &Count| count.since > 0 && (last || now.saturating_sub(count.written) >= REPEAT_SECONDS);
        self.0.iter_mut().filter(|(_, count)| due(count)).map(|(key, count)| told(key, count, now)).collect()
    }

    /// What the agent is shown, newest first.
    pub fn shown(&self) -> Vec<Denial> {
        let mut all: Vec<Denial> = self
            .0
            .iter()
            .map(|((by, what, reason), count)| Denial {
                by: by.clone(),
                what: what.clone(),
                reason: reason.clone(),
                at: count.at,
                times: count.times,
                ask: count.ask.to_owned(),
            })
            .collect();
        all.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.what.cmp(&b.what)));
        all.truncate(SHOWN_MAX);
        all
    }
}

fn told((by, what, reason): &Key, count: &mut Count, now: u64) -> Event {
    count.written = now;
    let times = std::mem::take(&mut count.since);
    Event::Denied { by: by.clone(), what: what.clone(), reason: reason.clone(), times }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocked(host: &str) -> Heard {
        let line = format!(
            r#"{{"event":"blocked","method":"CONNECT","target":"{host}:443","scanner":"allowlist","reason":"domain not in allowlist: {host}"}}"#
        );
        Heard::read("pipelock", &line).unwrap()
    }

    fn times(event: &Event) -> u64 {
        match event {
            Event::Denied { times, .. } => *times,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_is_told_at_once_and_the_others_once_a_minute_by_number() {
        let mut denials = Denials::default();
        assert_eq!(denials.count(blocked("a.example"), 1000).as_ref().map(times), Some(1));
        for at in 1000..1010 {
            assert_eq!(denials.count(blocked("a.example"), at), None);
        }
        assert!(denials.repeated(1059, false).is_empty());
        assert_eq!(denials.repeated(1060, false).iter().map(times).collect::<Vec<_>>(), [10]);
        assert!(denials.repeated(2000, true).is_empty(), "nothing has come since");
        denials.count(blocked("a.example"), 2001);
        assert_eq!(denials.repeated(2001, true).iter().map(times).collect::<Vec<_>>(), [1]);
        let shown = denials.shown();
        assert_eq!((shown.len(), shown[0].times, shown[0].at), (1, 12, 2001));
        assert_eq!(shown[0].ask, "pipelock-block");
    }

    #[test]
    fn hosts_without_end_take_no_room_without_end() {
        let mut denials = Denials::default();
        let told = (0..10 * KEPT_MAX).filter(|n| denials.count(blocked(&format!("h{n}.example")), 1).is_some());
        assert_eq!(told.count(), KEPT_MAX + 1);
        assert_eq!(denials.shown().len(), SHOWN_MAX);
        assert!(denials.0.keys().any(|(_, what, _)| what == OTHERS));
    }

    #[test]
    fn each_sidecars_refusals_are_read_and_nothing_else() {
        let request = |status: u16, reason: &str| {
            format!(
                r#"{{"event":"request","route":"","method":"GET","path":"/x","status":{status},"bytes":0,"ms":1,"credential":false{reason}}}"#
            )
        };
        let why = r#","reason":"for the operator alone""#;
        for (role, line, ask) in [
            ("cred-proxy", request(404, why), Some("cred-proxy-block")),
            ("cred-proxy", request(403, why), Some("cred-proxy-block")),
            ("cred-proxy", request(502, why), None),
            ("cred-proxy", request(403, ""), None),
            ("route-pipelock", request(403, why), None),
            (
                "git-gate",
                r#"{"event":"operation","remote":"app","service":"push","outcome":"refused","bytes":1,"ms":1}"#
                    .to_owned(),
                Some(""),
            ),
            (
                "git-gate",
                r#"{"event":"operation","remote":"app","service":"push","outcome":"done","bytes":1,"ms":1}"#.to_owned(),
                None,
            ),
            ("pipelock", r#"{"event":"tunnel_open","target":"a.example:443"}"#.to_owned(), None),
        ] {
            let heard = Heard::read(role, &line);
            assert_eq!(heard.as_ref().map(|h| h.ask), ask, "{line}");
            assert!(!format!("{heard:?}").contains("operator alone"), "{heard:?}");
        }
    }
}
