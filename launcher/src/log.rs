//! The bottle's log: what its sidecars and its keeper said, with time and role, as JSON lines in one file. The agent
//! causes most of these lines, so it must be able neither to fill the disk nor to drown what others say: every role has
//! a room of its own, and a refusal that repeats is counted, not written again.

use crate::report::Report;
use crate::state::now;
use pipelock_config::log::LogEvent;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What one role may write, in bytes.
const ROLE_BYTES_MAX: u64 = 16 << 20;
/// A refusal of the same host for the same reason is written again after this time, with the number in between.
const REPEAT: Duration = Duration::from_secs(60);
/// Refusals that are told apart; further ones share one.
const REFUSALS_MAX: usize = 500;

/// The bottle's log, open to be appended to.
#[derive(Debug)]
pub struct LogFile {
    inner: Mutex<Inner>,
    report: Mutex<Report>,
}

#[derive(Debug, Default)]
struct Inner {
    file: Option<File>,
    written: BTreeMap<String, u64>,
    refusals: BTreeMap<(String, String), Refusal>,
}

#[derive(Debug)]
struct Refusal {
    written: Instant,
    since: u64,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When (RFC 3339).
    pub time: String,
    /// Who said it: a sidecar's role, or `keeper`.
    pub role: String,
    /// `out` or `err`.
    pub stream: String,
    /// What was said.
    pub line: String,
    /// How often the same was said since it was written last, and left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repeated: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl LogFile {
    /// Opens a bottle's log.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let inner = Inner { file: Some(file), ..Inner::default() };
        Ok(Self { inner: Mutex::new(inner), report: Mutex::default() })
    }

    /// Appends a line, and counts what it tells. A file that cannot be written is given up, and the bottle goes on.
    pub fn line(&self, role: &str, stream: &str, line: &str) {
        // The keeper's own lines count for nothing, and a panic is written from under whatever lock it happened.
        if role != "keeper" {
            lock(&self.report).line(role, line, &now());
        }
        self.line_at(Instant::now(), role, stream, line);
    }

    fn line_at(&self, at: Instant, role: &str, stream: &str, line: &str) {
        let mut inner = lock(&self.inner);
        let Some(repeated) = inner.repeated(at, role, line) else { return };
        let entry =
            LogLine { time: now(), role: role.to_owned(), stream: stream.to_owned(), line: line.to_owned(), repeated };
        let Ok(mut bytes) = serde_json::to_vec(&entry) else { return };
        bytes.push(b'\n');
        inner.append(role, &bytes);
    }

    /// What has happened so far, counted from the lines.
    pub fn report(&self) -> Report {
        lock(&self.report).clone()
    }
}

impl Inner {
    /// How often a refusal was left out before this one; `None`: this one is left out as well.
    fn repeated(&mut self, at: Instant, role: &str, line: &str) -> Option<u64> {
        let Some(LogEvent::Blocked { host, reason, .. }) =
            (role.ends_with("pipelock")).then(|| LogEvent::parse(line)).flatten()
        else {
            return Some(0);
        };
        let mut key = (host.unwrap_or_default(), reason);
        if self.refusals.len() >= REFUSALS_MAX && !self.refusals.contains_key(&key) {
            key = (String::new(), String::new());
        }
        match self.refusals.get_mut(&key) {
            Some(refusal) if at.saturating_duration_since(refusal.written) < REPEAT => {
                refusal.since += 1;
                None
            }
            Some(refusal) => {
                refusal.written = at;
                Some(std::mem::take(&mut refusal.since))
            }
            None => {
                self.refusals.insert(key, Refusal { written: at, since: 0 });
                Some(0)
            }
        }
    }

    fn append(&mut self, role: &str, bytes: &[u8]) {
        let written = self.written.entry(role.to_owned()).or_default();
        if *written >= ROLE_BYTES_MAX {
            return;
        }
        *written += bytes.len() as u64;
        let full = *written >= ROLE_BYTES_MAX;
        let Some(file) = &mut self.file else { return };
        let mut ok = file.write_all(bytes).is_ok();
        if ok && full {
            let text = format!("{role} has filled its part of this log; what it says from here on is not written");
            let (time, role, stream) = (now(), "keeper".to_owned(), "err".to_owned());
            let last = LogLine { time, role, stream, line: text, repeated: 0 };
            ok = serde_json::to_vec(&last)
                .is_ok_and(|line| file.write_all(&line).and_then(|()| file.write_all(b"\n")).is_ok());
        }
        if !ok {
            self.file = None;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<LogLine> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn refusal(host: &str) -> String {
        format!(
            r#"{{"event":"blocked","method":"CONNECT","target":"{host}:443","scanner":"allowlist","reason":"domain not in allowlist: {host}"}}"#
        )
    }

    #[test]
    fn a_refusal_that_repeats_is_counted_and_another_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let log = LogFile::open(&path).unwrap();
        let began = Instant::now();
        for _ in 0..1000 {
            log.line_at(began, "pipelock", "out", &refusal("a.example"));
        }
        log.line_at(began, "pipelock", "out", &refusal("b.example"));
        log.line_at(began + REPEAT, "pipelock", "out", &refusal("a.example"));
        let repeated: Vec<_> = lines(&path).iter().map(|l| l.repeated).collect();
        assert_eq!(repeated, [0, 0, 999]);
    }

    #[test]
    fn hosts_without_end_take_no_room_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let log = LogFile::open(&path).unwrap();
        let began = Instant::now();
        for n in 0..3 * REFUSALS_MAX {
            log.line_at(began, "pipelock", "out", &refusal(&format!("h{n}.example")));
        }
        assert_eq!(lines(&path).len(), REFUSALS_MAX + 1);
    }

    #[test]
    fn one_role_cannot_take_the_room_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let log = LogFile::open(&path).unwrap();
        let long = "x".repeat(1 << 20);
        for _ in 0..20 {
            log.line("pipelock", "out", &long);
        }
        log.line("cred-proxy", "out", "still heard");
        let lines = lines(&path);
        assert!(lines.iter().filter(|l| l.role == "pipelock").count() < 20);
        assert!(lines.iter().any(|l| l.role == "keeper" && l.line.contains("pipelock has filled")));
        assert_eq!(lines.last().map(|l| l.line.as_str()), Some("still heard"));
    }
}
