//! A changed file: seen, read, and taken only where strict mode loses nothing.

use crate::config::{self, Config};
use crate::log::{self, Level};
use crate::state::{Live, Shared};
use serde_json::json;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How often the file is looked at. The real one is told by the kernel; the difference is not to be seen from outside.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// For how long a changed file must stay as it is before it is read.
const SETTLED_AFTER: Duration = Duration::from_millis(100);

/// The same bytes again within this time are not read again.
const SAME_WITHIN: Duration = Duration::from_secs(2);

/// Watches a file and takes it over when it changes.
pub struct Reloader {
    file: PathBuf,
    shared: Arc<Shared>,
    seen: Look,
    last: Option<(Instant, String)>,
}

/// A file as it was at a moment: when written, how long, and which.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Look(Option<(SystemTime, u64, u64)>);

impl Look {
    /// At a file, now.
    pub fn at(file: &Path) -> Self {
        let meta = std::fs::metadata(file).ok();
        Self(meta.and_then(|m| Some((m.modified().ok()?, m.len(), m.ino()))))
    }
}

impl Reloader {
    /// Of a file that was looked at before it was read, so that no change in between is missed.
    pub fn new(file: &Path, seen: Look, shared: Arc<Shared>) -> Self {
        Self { file: file.to_owned(), shared, seen, last: None }
    }

    /// Watches for good; `hangup` makes it look at once.
    pub async fn run(mut self, mut hangup: tokio::signal::unix::Signal) {
        let mut changed: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = hangup.recv() => self.reload(),
                () = tokio::time::sleep(LOOK_EVERY) => {
                    let now = Look::at(&self.file);
                    if now != self.seen {
                        self.seen = now;
                        changed = Some(Instant::now());
                    } else if changed.is_some_and(|since| since.elapsed() >= SETTLED_AFTER) {
                        changed = None;
                        self.reload();
                    }
                }
            }
        }
    }

    fn reload(&mut self) {
        let loaded = match config::load(&self.file) {
            Ok(loaded) => loaded,
            Err(error) => return log::tell(&format!("pipelock: config reload failed: {error}")),
        };
        if self.last.as_ref().is_some_and(|(at, hash)| *hash == loaded.hash && at.elapsed() < SAME_WITHIN) {
            return;
        }
        self.last = Some((Instant::now(), loaded.hash.clone()));
        let old = self.shared.live();
        let warnings = downgrades(&old.config, &loaded.config);
        for warning in &warnings {
            log::tell(&format!("WARNING: config reload: {warning}"));
        }
        if old.config.mode == config::Mode::Strict && !warnings.is_empty() {
            return self.error("rejected: security downgrade from strict mode");
        }
        match Live::new(loaded) {
            Err(error) => self.error(&error),
            Ok(live) => {
                let detail = format!("mode={}", live.config.mode.name());
                let fields = json!({"status": "success", "detail": detail, "config_hash": live.hash});
                self.shared.replace(live);
                log::event(Level::Info, "config_reload", "configuration reloaded", fields);
            }
        }
    }

    fn error(&self, error: &str) {
        let fields = json!({"method": "CONFIG_RELOAD", "resource": self.file.display().to_string(), "error": error});
        log::event(Level::Error, "error", "request error", fields);
    }
}

/// What the new file would loosen, or change that only a start can. Strict mode takes none of it.
pub fn downgrades(old: &Config, new: &Config) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |condition: bool, field: &str| {
        if condition {
            found.push(field.to_owned());
        }
    };
    note(new.mode < old.mode, "mode - downgraded");
    note(old.enforce && !new.enforce, "enforce - disabled");
    note(old.dlp.include_defaults && !new.dlp.include_defaults, "dlp.include_defaults - disabled");
    note(patterns_lost(old, new), "dlp.patterns - removed or regex-swapped");
    note(old.dlp.scan_env != new.dlp.scan_env, "dlp.scan_env - requires restart");
    note(old.response_scanning.enabled && !new.response_scanning.enabled, "response_scanning.enabled - disabled");
    let (before, after) = (&old.response_scanning.exempt_domains, &new.response_scanning.exempt_domains);
    note(!before.is_empty() && after.is_empty(), "response_scanning.exempt_domains - cleared");
    note(grows(before, after), "response_scanning.exempt_domains - widened");
    note(old.forward_proxy.enabled && !new.forward_proxy.enabled, "forward_proxy.enabled - disabled");
    note(old.tls_interception.enabled && !new.tls_interception.enabled, "tls_interception.enabled - disabled");
    let (before, after) = (&old.tls_interception.passthrough_domains, &new.tls_interception.passthrough_domains);
    note(grows(before, after), "tls_interception.passthrough_domains - added");
    let (before, after) = (&old.fetch_proxy.monitoring, &new.fetch_proxy.monitoring);
    let widened = grows(&before.subdomain_entropy_exclusions, &after.subdomain_entropy_exclusions);
    note(widened, "fetch_proxy.monitoring.subdomain_entropy_exclusions - added");
    note(grows(&old.trusted_domains, &new.trusted_domains), "trusted_domains - added");
    note(grows(&old.ssrf.ip_allowlist, &new.ssrf.ip_allowlist), "ssrf.ip_allowlist - expanded");
    let off = old.request_body_scanning.enabled && !new.request_body_scanning.enabled;
    note(off, "request_body_scanning.enabled - disabled");
    note(old.metrics_listen != new.metrics_listen, "metrics_listen - requires restart");
    found
}

/// Is there an entry in `after` that is not in `before`?
fn grows(before: &[String], after: &[String]) -> bool {
    let before: BTreeSet<String> = before.iter().map(|s| s.to_lowercase()).collect();
    after.iter().any(|entry| !before.contains(&entry.to_lowercase()))
}

fn patterns_lost(old: &Config, new: &Config) -> bool {
    let still = |p: &config::Pattern| new.dlp.patterns.iter().any(|n| n.name == p.name && n.regex == p.regex);
    old.dlp.patterns.iter().any(|pattern| !still(pattern))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_loosens_is_seen_and_what_only_adds_a_host_is_not() {
        let base = "mode: strict\napi_allowlist: [a.example]\ntrusted_domains: [t.example]\n";
        let of = |text: &str| serde_saphyr::from_str::<Config>(text).unwrap();
        let found = |text: &str| downgrades(&of(base), &of(text)).len();
        for (text, count) in [
            (base.to_owned(), 0),
            (base.replace("[a.example]", "[a.example, b.example]"), 0),
            (base.replace("[a.example]", "[b.example]"), 0),
            (base.replace("[t.example]", "[]"), 0),
            (base.replace("[t.example]", "[t.example, u.example]"), 1),
            (base.replace("strict", "audit"), 1),
            (format!("{base}enforce: false\n"), 1),
            (format!("{base}tls_interception: {{passthrough_domains: [a.example]}}\n"), 1),
            (format!("{base}ssrf: {{ip_allowlist: [10.0.0.1/32]}}\n"), 1),
            (format!("{base}metrics_listen: '127.0.0.1:9090'\n"), 1),
            (format!("{base}response_scanning: {{enabled: false, exempt_domains: [a.example]}}\n"), 2),
        ] {
            assert_eq!(found(&text), count, "{text}");
        }
    }
}
