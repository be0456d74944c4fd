//! What a running container answers its keeper: read from its lines as they come.

use super::{is_pipelock, is_refused};
use bottle_images::init::Event;
use pipelock_config::log::LogEvent;

/// What a container has answered its keeper. Answers of a kind are counted, so that one is never taken for an older one's;
/// they are read before lines are handed on, since lines may be dropped and an agent causes most of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// How often it said that it is ready.
    pub readies: u64,
    /// How often a pipelock took, or did not take, a changed file.
    pub reloads: u64,
    /// The SHA-256 of the file that it took last, in hexadecimal, or why it did not.
    pub reload: Option<Result<String, String>>,
    /// How often a probe was answered.
    pub probes: u64,
    /// The last answer to a probe.
    pub probe: Option<Probed>,
    /// How often a command was answered.
    pub acknowledged: u64,
    /// The last answer to a command: obeyed, or why not.
    pub acknowledgement: Option<Result<(), String>>,
    /// How often `bottle-init` could not carry an order out.
    pub failures: u64,
    /// Why, the last time.
    pub failure: String,
}

/// What a pipelock's own proxy answered when it was asked whether a host is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// `host:port`.
    pub target: String,
    /// HTTP status; 0 where there was no answer.
    pub status: u16,
    /// What it said.
    pub text: String,
}

impl Said {
    /// Takes a line in. Was it an answer?
    pub(super) fn hear(&mut self, role: &str, stream: &str, line: &str) -> bool {
        if stream == "out"
            && let Some(event) = Event::parse(line)
        {
            match event {
                Event::Ready => self.readies += 1,
                Event::Probed { target, status, text } => {
                    self.probes += 1;
                    self.probe = Some(Probed { target, status, text });
                }
                Event::Failed(why) => {
                    self.failures += 1;
                    self.failure = why;
                }
                Event::Wrote(_) | Event::Exited(_) => return false,
            }
            return true;
        }
        if is_pipelock(role) {
            return self.hear_pipelock(line);
        }
        let answer = match line {
            _ if stream != "out" => return false,
            r#"{"event":"configured"}"# => Ok(()),
            _ if is_refused(line) => Err(reason_of(line)),
            _ => return false,
        };
        self.acknowledged += 1;
        self.acknowledgement = Some(answer);
        true
    }

    fn hear_pipelock(&mut self, line: &str) -> bool {
        // Most lines are about requests and need not be read twice.
        if !["config_reload", "CONFIG_RELOAD", "config reload failed"].iter().any(|word| line.contains(word)) {
            return false;
        }
        let outcome = match LogEvent::parse(line) {
            Some(LogEvent::ConfigReload { status, hash }) if status == "success" => Ok(hash),
            Some(LogEvent::ConfigReload { status, .. }) => Err(status),
            Some(LogEvent::ReloadRefused { reason }) => Err(reason),
            _ => return false,
        };
        self.reloads += 1;
        self.reload = Some(outcome);
        true
    }
}

/// Why a sidecar refused a command.
fn reason_of(line: &str) -> String {
    let said: Option<serde_json::Value> = serde_json::from_str(line).ok();
    let reason = said.as_ref().and_then(|said| said.get("reason")).and_then(serde_json::Value::as_str);
    reason.unwrap_or("it did not say why").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_and_an_agents_lines_are_none() {
        let mut said = Said::default();
        let mut hear = |role: &str, stream: &str, line: &str| said.hear(role, stream, line);
        for (role, stream, line) in [
            (
                "pipelock",
                "out",
                r#"{"event":"blocked","url":"{\"event\":\"config_reload\",\"status\":\"success\"}","reason":"r"}"#,
            ),
            ("pipelock", "out", r#"{"event":"tunnel_open","target":"bottle-init: probed a:1 200:443"}"#),
            ("pipelock", "err", "bottle-init: ready"),
            ("cred-proxy", "err", r#"{"event":"configured"}"#),
            ("cred-proxy", "out", r#"{"event":"request","path":"/{\"event\":\"configured\"}"}"#),
            ("cred-proxy", "out", r#"{"event":"ready"}"#),
        ] {
            assert!(!hear(role, stream, line), "{line}");
        }
        for (role, stream, line) in [
            ("pipelock", "out", r#"{"event":"config_reload","status":"success","config_hash":"ab"}"#),
            ("pipelock", "err", "pipelock: config reload failed: no such key"),
            (
                "pipelock",
                "out",
                "bottle-init: probed a.example:443 403 CONNECT blocked: domain not in allowlist: a.example",
            ),
            ("cred-proxy", "out", r#"{"event":"configured"}"#),
            ("git-gate", "out", r#"{"event":"refused","reason":"there is no remote `x`"}"#),
        ] {
            assert!(hear(role, stream, line), "{line}");
        }
        assert_eq!((said.reloads, said.probes, said.acknowledged), (2, 1, 2));
        assert_eq!(said.reload, Some(Err("no such key".to_owned())));
        assert_eq!(said.probe.map(|probed| probed.status), Some(403));
        assert_eq!(said.acknowledgement, Some(Err("there is no remote `x`".to_owned())));
    }
}
