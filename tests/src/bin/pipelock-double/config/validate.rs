//! What the real one would refuse of a file that it can read.

use super::{Config, Mode, go_duration};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

impl Config {
    pub(super) fn validate(&self) -> Result<(), String> {
        let refuse = |condition: bool, text: &str| if condition { Err(text.to_owned()) } else { Ok(()) };
        refuse(self.version != 1, "version must be 1")?;
        let closed = self.mode == Mode::Strict && self.api_allowlist.is_empty();
        refuse(closed, "strict mode requires at least one domain in api_allowlist")?;
        refuse(!matches!(self.logging.format.as_str(), "json" | "text"), "logging.format must be json or text")?;
        refuse(self.logging.output != "stdout", "the double logs to stdout alone")?;
        refuse(self.fetch_proxy.monitoring.blocklist.iter().any(String::is_empty), "empty blocklist entry")?;
        self.validate_switches()?;
        self.validate_limits()?;
        for pattern in &self.dlp.patterns {
            pattern.compile()?;
        }
        for (list, domains) in [
            ("trusted_domains", &self.trusted_domains),
            ("response_scanning.exempt_domains", &self.response_scanning.exempt_domains),
            ("subdomain_entropy_exclusions", &self.fetch_proxy.monitoring.subdomain_entropy_exclusions),
        ] {
            domains.iter().try_for_each(|domain| domain_pattern(list, domain))?;
        }
        for cidr in &self.ssrf.ip_allowlist {
            crate::guard::Network::parse(cidr)?;
        }
        self.validate_metrics()?;
        self.validate_ca()
    }

    fn validate_switches(&self) -> Result<(), String> {
        for (name, switch) in [
            ("websocket_proxy", &self.websocket_proxy),
            ("reverse_proxy", &self.reverse_proxy),
            ("seed_phrase_detection", &self.seed_phrase_detection),
            ("media_policy", &self.media_policy),
            ("browser_shield", &self.browser_shield),
            ("taint", &self.taint),
            ("session_profiling", &self.session_profiling),
            ("adaptive_enforcement", &self.adaptive_enforcement),
            ("flight_recorder", &self.flight_recorder),
            ("sentry", &self.sentry),
        ] {
            if switch.enabled {
                return Err(format!("{name}: the double does not have it; switch it off"));
            }
        }
        Ok(())
    }

    fn validate_limits(&self) -> Result<(), String> {
        for (name, value) in [
            ("forward_proxy.max_tunnel_seconds", self.forward_proxy.max_tunnel_seconds),
            ("forward_proxy.idle_timeout_seconds", self.forward_proxy.idle_timeout_seconds),
            ("request_body_scanning.max_body_bytes", self.request_body_scanning.max_body_bytes as u64),
            ("tls_interception.cert_cache_size", self.tls_interception.cert_cache_size as u64),
            ("tls_interception.max_response_bytes", self.tls_interception.max_response_bytes as u64),
            ("fetch_proxy.timeout_seconds", self.fetch_proxy.timeout_seconds),
        ] {
            if value == 0 {
                return Err(format!("{name} must be positive"));
            }
        }
        match go_duration(&self.tls_interception.cert_ttl) {
            Some(ttl) if !ttl.is_zero() => Ok(()),
            _ => Err(format!("tls_interception.cert_ttl {:?} is no positive duration", self.tls_interception.cert_ttl)),
        }
    }

    fn validate_metrics(&self) -> Result<(), String> {
        let port = |address: &str| address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let Some(proxy) = port(&self.fetch_proxy.listen) else {
            return Err(format!("invalid fetch_proxy.listen {:?}", self.fetch_proxy.listen));
        };
        if self.metrics_listen.is_empty() {
            return Ok(());
        }
        match port(&self.metrics_listen) {
            None => Err(format!("invalid metrics_listen {:?}", self.metrics_listen)),
            Some(metrics) if metrics == proxy && proxy != 0 => {
                Err(format!("metrics_listen port {metrics} collides with fetch_proxy.listen port {proxy}"))
            }
            Some(_) => Ok(()),
        }
    }

    fn validate_ca(&self) -> Result<(), String> {
        if !self.tls_interception.enabled {
            return Ok(());
        }
        let (cert, key) = (&self.tls_interception.ca_cert, &self.tls_interception.ca_key);
        let found = |what: &str, file: &Path| {
            std::fs::metadata(file).map_err(|e| format!("{what} not found at {}: {e}", file.display()))
        };
        found("CA cert", cert)?;
        let mode = found("CA key", key)?.permissions().mode() & 0o777;
        if mode & 0o137 != 0 {
            let file = key.display();
            return Err(format!("CA key {file} is too permissive (mode {mode:04o}): restrict to 0600 or 0640"));
        }
        Ok(())
    }
}

/// A name, or `*.` and a name of at least two labels.
fn domain_pattern(list: &str, text: &str) -> Result<(), String> {
    let bad = |why: &str| Err(format!("{list}: {text:?}: {why}"));
    match text.strip_prefix("*.") {
        _ if text.is_empty() => bad("is empty"),
        _ if text.contains([':', '/']) => bad("use a hostname pattern, not a URL or host:port"),
        Some(rest) if !rest.contains('.') => bad("wildcard must target a concrete domain"),
        None if text.contains(['*', '?', '[', ']']) => bad("only exact hosts and *.example.com are supported"),
        _ => Ok(()),
    }
}
