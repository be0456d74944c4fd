//! What happened in a bottle, counted from what its sidecars say: hosts reached and refused, credentials used, pushes. The
//! agent chooses the hosts, so both their number and their length have a limit.

use cred_proxy::config::Event;
use git_gate::config::{Operation, Outcome, Service};
use pipelock_config::log::LogEvent;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Hosts or routes that are told apart; what comes after is counted together.
const HOSTS_MAX: usize = 500;
/// Where the rest is counted.
const REST: &str = "(others)";

/// What happened in a bottle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Host -> connections that pipelock let through.
    pub reached: BTreeMap<String, u64>,
    /// Host -> (refusals, the last reason).
    pub denied: BTreeMap<String, (u64, String)>,
    /// Path of a route, empty where none matched -> what went over it.
    pub routes: BTreeMap<String, RouteCount>,
    /// Name of a remote, empty where none was meant -> what went over git-gate.
    pub remotes: BTreeMap<String, RemoteCount>,
    /// Seconds that the agent ran.
    pub seconds: u64,
    /// The agent's exit status, when it ended by itself.
    pub agent_status: Option<i64>,
    /// Where the work is: the saved workspace.
    pub workspace: Option<String>,
}

/// What went over a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteCount {
    /// Requests that have ended, whatever came of them.
    pub requests: u64,
    /// Those that cred-proxy did not let through.
    pub refused: u64,
    /// Those that were answered with a status of 500 or more.
    pub failed: u64,
    /// Bytes of replies.
    pub bytes: u64,
    /// Requests that a credential was put into.
    pub credential_uses: u64,
    /// The status of the last one.
    pub last_status: u16,
    /// When that was (RFC 3339).
    pub last_time: String,
}

/// What went over a remote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RemoteCount {
    /// Fetches that were served.
    pub fetches: u64,
    /// Pushes that the upstream has taken.
    pub pushes: u64,
    /// Operations that git-gate refused, or the upstream.
    pub refused: u64,
    /// Those that broke off.
    pub failed: u64,
}

impl Report {
    /// Counts a line that a sidecar said at `time` (RFC 3339).
    pub fn line(&mut self, role: &str, line: &str, time: &str) {
        match role {
            "pipelock" => self.pipelock(line),
            "cred-proxy" => self.cred_proxy(line, time),
            git_gate::NAME => self.git_gate(line),
            _ => {}
        }
    }

    /// Requests that a credential was put into, over all routes.
    pub fn credential_uses(&self) -> u64 {
        self.routes.values().map(|route| route.credential_uses).sum()
    }

    /// Requests that were refused, by whichever sidecar.
    pub fn refusals(&self) -> u64 {
        let by_routes: u64 = self.routes.values().map(|route| route.refused).sum();
        let by_remotes: u64 = self.remotes.values().map(|remote| remote.refused).sum();
        by_routes + by_remotes + self.denied.values().map(|(count, _)| count).sum::<u64>()
    }

    fn pipelock(&mut self, line: &str) {
        match LogEvent::parse(line) {
            Some(LogEvent::Blocked { host, reason, .. }) => {
                let host = key(&self.denied, host.unwrap_or_else(|| "(not said)".to_owned()));
                let entry = self.denied.entry(host).or_default();
                entry.0 += 1;
                entry.1 = reason;
            }
            Some(LogEvent::TunnelOpen { target } | LogEvent::Intercepted { target }) => self.reach(&target),
            Some(LogEvent::ForwardHttp { host: Some(host), .. }) => self.reach(&host),
            Some(
                LogEvent::ForwardHttp { host: None, .. }
                | LogEvent::Startup { .. }
                | LogEvent::TunnelClose { .. }
                | LogEvent::ConfigReload { .. }
                | LogEvent::ReloadRefused { .. }
                | LogEvent::Error { .. }
                | LogEvent::Shutdown
                | LogEvent::Other { .. },
            )
            | None => {}
        }
    }

    fn reach(&mut self, target: &str) {
        let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
        let host = key(&self.reached, host.to_owned());
        *self.reached.entry(host).or_default() += 1;
    }

    fn git_gate(&mut self, line: &str) {
        let Ok(git_gate::config::Event::Operation(operation)) = serde_json::from_str(line) else { return };
        let name = key(&self.remotes, operation.remote.clone());
        self.remotes.entry(name).or_default().count(&operation);
    }

    fn cred_proxy(&mut self, line: &str, time: &str) {
        let Ok(Event::Request { route, status, bytes, credential, reason, .. }) = serde_json::from_str(line) else {
            return;
        };
        let count = self.routes.entry(key(&self.routes, route)).or_default();
        count.requests += 1;
        count.bytes = count.bytes.saturating_add(bytes);
        count.credential_uses += u64::from(credential);
        count.refused += u64::from(reason.is_some() && status < 500);
        count.failed += u64::from(status >= 500);
        count.last_status = status;
        time.clone_into(&mut count.last_time);
    }
}

impl RemoteCount {
    fn count(&mut self, operation: &Operation) {
        let number = match (operation.outcome, operation.service) {
            (Outcome::Done, Service::Push) => &mut self.pushes,
            (Outcome::Done, Service::Fetch | Service::Unknown) => &mut self.fetches,
            (Outcome::Refused | Outcome::Rejected, _) => &mut self.refused,
            (Outcome::Failed | Outcome::Unknown | Outcome::Gone, _) => &mut self.failed,
        };
        *number += 1;
    }
}

fn key<V>(map: &BTreeMap<String, V>, host: String) -> String {
    if map.len() < HOSTS_MAX || map.contains_key(&host) { host } else { REST.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_cannot_fill_the_report() {
        let mut report = Report::default();
        for n in 0..2 * HOSTS_MAX {
            report.line("pipelock", &format!(
                r#"{{"event":"blocked","method":"CONNECT","target":"h{n}.example:443","scanner":"allowlist","reason":"domain not in allowlist: h{n}.example"}}"#
            ), "");
        }
        assert_eq!(report.denied.len(), HOSTS_MAX + 1);
        assert_eq!(report.denied.get(REST).map(|d| d.0), Some(HOSTS_MAX as u64));
    }

    #[test]
    fn every_refusal_counts_and_none_brings_a_path_along() {
        let mut report = Report::default();
        let secret = "s3cret".repeat(40_000);
        for line in [
            r#"{"event":"header_dlp","method":"CONNECT","target":"h.example:443","header":"X-Note","action":"block","patterns":["P"]}"#,
            r#"{"event":"body_dlp","method":"POST","url":"http://h.example/s3cret","action":"block","match_count":1,"patterns":["P"]}"#,
            r#"{"event":"blocked","method":"GET","url":"https://h.example:443/s3cret","scanner":"core_dlp","reason":"core DLP match: P (critical)"}"#,
            &format!(
                r#"{{"event":"blocked","method":"GET","url":"https://h.example/{secret}","scanner":"length","reason":"r"}}"#
            ),
        ] {
            report.line("pipelock", line, "");
        }
        assert_eq!(report.denied.get("h.example").map(|d| d.0), Some(4));
        let unread = format!(r#"{{"event":"blocked","method":"{secret}","url":"https://h.example/","reason":"r"}}"#);
        report.line("pipelock", &unread, "");
        assert_eq!(report.denied.get("(not said)").map(|d| d.0), Some(1));
        assert!(report.reached.is_empty() && !format!("{report:?}").contains("s3cret"), "{report:?}");
    }

    #[test]
    fn a_remote_counts_what_went_over_it() {
        let mut report = Report::default();
        let operation = |remote: &str, service: &str, outcome: &str| {
            format!(
                r#"{{"event":"operation","remote":"{remote}","service":"{service}","outcome":"{outcome}","bytes":1,"ms":1}}"#
            )
        };
        for (remote, service, outcome) in [
            ("app", "fetch", "done"),
            ("app", "push", "done"),
            ("app", "push", "refused"),
            ("app", "push", "rejected"),
            ("app", "push", "gone"),
            ("", "unknown", "refused"),
        ] {
            report.line("git-gate", &operation(remote, service, outcome), "");
            // Only git-gate's own words count for it.
            report.line("cred-proxy", &operation(remote, service, outcome), "");
        }
        let app = RemoteCount { fetches: 1, pushes: 1, refused: 2, failed: 1 };
        assert_eq!(report.remotes.get("app"), Some(&app));
        assert_eq!((report.remotes.keys().count(), report.refusals()), (2, 3));
    }

    #[test]
    fn a_route_counts_what_went_over_it() {
        let mut report = Report::default();
        let request = |route: &str, status: u16, bytes: u64, credential: bool, reason: Option<&str>| {
            let [route, method, path] = [route, "GET", "/x"].map(str::to_owned);
            let reason = reason.map(str::to_owned);
            serde_json::to_string(&Event::Request { route, method, path, status, bytes, ms: 1, credential, reason })
                .unwrap()
        };
        for (at, line) in [
            request("/a/", 200, 10, true, None),
            request("/a/", 404, 5, true, None),
            request("/a/", 403, 1, false, Some("not allowed")),
            request("/a/", 502, 1, false, Some("no upstream")),
            request("", 404, 1, false, Some("no route")),
            r#"{"event":"configured"}"#.to_owned(),
            "no event".to_owned(),
        ]
        .iter()
        .enumerate()
        {
            report.line("cred-proxy", line, &at.to_string());
            // Only cred-proxy's own words count for it.
            report.line("route-pipelock", line, "");
        }
        let a = RouteCount {
            requests: 4,
            refused: 1,
            failed: 1,
            bytes: 17,
            credential_uses: 2,
            last_status: 502,
            last_time: "3".to_owned(),
        };
        assert_eq!(report.routes.get("/a/"), Some(&a));
        assert_eq!(report.routes.keys().collect::<Vec<_>>(), ["", "/a/"]);
        assert_eq!((report.credential_uses(), report.refusals()), (2, 2));
    }
}
