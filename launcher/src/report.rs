//! What happened in a bottle, counted from what its sidecars say: hosts reached and refused, credentials used. The
//! agent chooses the hosts, so both their number and their length have a limit.

use pipelock_config::log::LogEvent;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Hosts that are told apart; what comes after is counted together.
const HOSTS_MAX: usize = 500;
/// Where the rest is counted.
const REST: &str = "(other hosts)";

/// What happened in a bottle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Host -> connections that pipelock let through.
    pub reached: BTreeMap<String, u64>,
    /// Host -> (refusals, the last reason).
    pub denied: BTreeMap<String, (u64, String)>,
    /// Route -> requests that a credential was put into.
    pub credential_uses: BTreeMap<String, u64>,
    /// Requests that cred-proxy refused.
    pub route_refusals: u64,
    /// Seconds that the agent ran.
    pub seconds: u64,
    /// The agent's exit status, when it ended by itself.
    pub agent_status: Option<i64>,
    /// Where the work is: the saved workspace.
    pub workspace: Option<String>,
}

impl Report {
    /// Counts a line of a sidecar.
    pub fn line(&mut self, role: &str, line: &str) {
        match role {
            "pipelock" => self.pipelock(line),
            "cred-proxy" => self.cred_proxy(line),
            _ => {}
        }
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

    fn cred_proxy(&mut self, line: &str) {
        if let Ok(cred_proxy::config::Event::Request { route, credential, reason, .. }) = serde_json::from_str(line) {
            if credential {
                *self.credential_uses.entry(route).or_default() += 1;
            } else if reason.is_some() {
                self.route_refusals += 1;
            }
        }
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
            ));
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
            report.line("pipelock", line);
        }
        assert_eq!(report.denied.get("h.example").map(|d| d.0), Some(4));
        let unread = format!(r#"{{"event":"blocked","method":"{secret}","url":"https://h.example/","reason":"r"}}"#);
        report.line("pipelock", &unread);
        assert_eq!(report.denied.get("(not said)").map(|d| d.0), Some(1));
        assert!(report.reached.is_empty() && !format!("{report:?}").contains("s3cret"), "{report:?}");
    }
}
