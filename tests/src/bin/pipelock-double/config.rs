//! The YAML, read anew and strictly.
//!
//! Written from the contract, not from the launcher's renderer: an unknown key, a wrong type or an empty allowlist ends
//! the start, so that a mistake of the renderer shows. Keys of features that the double does not have are unknown to it
//! as well, and the switches it knows of them must be off.

use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod validate;

/// Larger files are refused.
const FILE_BYTES_MAX: u64 = 8 << 20;

macro_rules! section {
    ($name:ident { $($field:ident: $type:ty = $default:expr),+ $(,)? }) => {
        #[derive(Debug, Clone, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $(pub $field: $type,)+ }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Audit,
    Balanced,
    Strict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Warn,
    Block,
}

impl RequestBodyScanning {
    /// An empty list means the default one, in both modes.
    fn fill(&mut self) {
        let defaults = Self::default();
        if self.sensitive_headers.is_empty() {
            self.sensitive_headers = defaults.sensitive_headers;
        }
        if self.ignore_headers.is_empty() {
            self.ignore_headers = defaults.ignore_headers;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeaderMode {
    Sensitive,
    All,
}

impl Mode {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Balanced => "balanced",
            Self::Strict => "strict",
        }
    }
}

/// Lists that must be empty here.
#[derive(Debug, Clone, Deserialize)]
pub enum Nothing {}

section!(Config {
    version: u32 = 1,
    mode: Mode = Mode::Balanced,
    enforce: bool = true,
    explain_blocks: bool = false,
    api_allowlist: Vec<String> = Vec::new(),
    suppress: Vec<Nothing> = Vec::new(),
    fetch_proxy: FetchProxy = FetchProxy::default(),
    forward_proxy: ForwardProxy = ForwardProxy::default(),
    websocket_proxy: Switch = Switch::default(),
    reverse_proxy: Switch = Switch::default(),
    tls_interception: TlsInterception = TlsInterception::default(),
    request_body_scanning: RequestBodyScanning = RequestBodyScanning::default(),
    response_scanning: ResponseScanning = ResponseScanning::default(),
    dlp: DlpSection = DlpSection::default(),
    seed_phrase_detection: Switch = Switch::default(),
    media_policy: Switch = Switch::default(),
    browser_shield: Switch = Switch::default(),
    taint: Switch = Switch::default(),
    session_profiling: Switch = Switch::default(),
    adaptive_enforcement: Switch = Switch::default(),
    flight_recorder: Switch = Switch::default(),
    sentry: Switch = Switch::default(),
    metrics_listen: String = String::new(),
    logging: Logging = Logging::default(),
    trusted_domains: Vec<String> = Vec::new(),
    ssrf: Ssrf = Ssrf::default(),
});

section!(Switch { enabled: bool = false });

section!(FetchProxy {
    listen: String = "127.0.0.1:8888".to_owned(),
    timeout_seconds: u64 = 30,
    max_response_mb: usize = 10,
    monitoring: Monitoring = Monitoring::default(),
});

section!(Monitoring {
    max_url_length: usize = 2048,
    entropy_threshold: f64 = 4.5,
    subdomain_entropy_threshold: f64 = 4.0,
    subdomain_entropy_exclusions: Vec<String> = Vec::new(),
    max_requests_per_minute: u64 = 60,
    max_data_per_minute: u64 = 0,
    blocklist: Vec<String> = Vec::new(),
});

section!(ForwardProxy {
    enabled: bool = false,
    max_tunnel_seconds: u64 = 300,
    idle_timeout_seconds: u64 = 120,
    sni_verification: bool = true,
});

section!(TlsInterception {
    enabled: bool = false,
    ca_cert: PathBuf = PathBuf::new(),
    ca_key: PathBuf = PathBuf::new(),
    passthrough_domains: Vec<String> = Vec::new(),
    cert_ttl: String = "24h".to_owned(),
    cert_cache_size: usize = 10_000,
    max_response_bytes: usize = 5 << 20,
});

section!(RequestBodyScanning {
    enabled: bool = true,
    action: Action = Action::Warn,
    max_body_bytes: usize = 5 << 20,
    scan_headers: bool = true,
    header_mode: HeaderMode = HeaderMode::Sensitive,
    sensitive_headers: Vec<String> =
        ["Authorization", "Cookie", "X-Api-Key", "X-Token", "Proxy-Authorization", "X-Goog-Api-Key"]
            .map(str::to_owned)
            .to_vec(),
    ignore_headers: Vec<String> = [
        "Connection",
        "Keep-Alive",
        "Proxy-Authenticate",
        "Te",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Host",
        "Content-Length",
        "Content-Type",
        "Accept",
        "Accept-Encoding",
        "User-Agent",
    ]
    .map(str::to_owned)
    .to_vec(),
});

section!(ResponseScanning {
    enabled: bool = true,
    action: Action = Action::Warn,
    exempt_domains: Vec<String> = Vec::new(),
    sse_streaming: Switch = Switch { enabled: true },
});

section!(DlpSection {
    scan_env: bool = true,
    include_defaults: bool = true,
    patterns: Vec<Pattern> = Vec::new(),
});

section!(Pattern {
    name: String = String::new(),
    regex: String = String::new(),
    severity: String = String::new(),
    action: String = String::new(),
});

section!(Logging {
    format: String = "json".to_owned(),
    output: String = "stdout".to_owned(),
    include_allowed: bool = true,
    include_blocked: bool = true,
});

section!(Ssrf { ip_allowlist: Vec<String> = Vec::new(), });

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum BadConfig {
    #[error("reading config {file}: {source}")]
    Read { file: String, source: std::io::Error },
    #[error("parsing config: {0}")]
    Parse(#[from] Box<serde_saphyr::Error>),
    #[error("invalid config: {0}")]
    Invalid(String),
}

/// A file that can be run, and the SHA-256 of its bytes in hexadecimal.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    pub hash: String,
}

/// Reads and checks a file. The CA's files are looked at, not into: that is `run`'s.
pub fn load(file: &Path) -> Result<Loaded, BadConfig> {
    let read = |source| BadConfig::Read { file: file.display().to_string(), source };
    if std::fs::metadata(file).map_err(read)?.len() > FILE_BYTES_MAX {
        return Err(BadConfig::Invalid(format!("the file is longer than {FILE_BYTES_MAX} bytes")));
    }
    let bytes = std::fs::read(file).map_err(read)?;
    let mut hash = String::new();
    for byte in Sha256::digest(&bytes) {
        // Writing to a String cannot fail.
        let _ = write!(hash, "{byte:02x}");
    }
    let mut config: Config = serde_saphyr::from_slice(&bytes).map_err(Box::new)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    config.tls_interception.ca_cert = folder.join(&config.tls_interception.ca_cert);
    config.tls_interception.ca_key = folder.join(&config.tls_interception.ca_key);
    config.request_body_scanning.fill();
    config.validate().map_err(BadConfig::Invalid)?;
    Ok(Loaded { config, hash })
}

impl Config {
    /// The time to live of a minted certificate.
    pub fn cert_ttl(&self) -> Duration {
        go_duration(&self.tls_interception.cert_ttl).unwrap_or(Duration::from_secs(24 * 3600))
    }
}

impl Pattern {
    /// Does it only warn?
    pub fn warns(&self) -> bool {
        self.action == "warn"
    }

    /// The expression, case-insensitive unless it says otherwise itself.
    pub fn compile(&self) -> Result<Regex, String> {
        let name = &self.name;
        if name.is_empty() || self.regex.is_empty() {
            return Err(format!("DLP pattern {name:?} needs a name and a regex"));
        }
        if !matches!(self.action.as_str(), "" | "warn") {
            return Err(format!("DLP pattern {name:?} has unsupported action {:?}", self.action));
        }
        RegexBuilder::new(&self.regex)
            .case_insensitive(true)
            .unicode(false)
            .build()
            .map_err(|e| format!("DLP pattern {name:?} has invalid regex: {e}"))
    }
}

/// `24h`, `1h30m`, `90s`: what the real one's language calls a duration, without fractions.
fn go_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: u64 = rest.get(..digits)?.parse().ok()?;
        let unit = rest.get(digits..)?;
        let (seconds, used) = match unit.as_bytes().first()? {
            b'h' => (3600, 1),
            b'm' => (60, 1),
            b's' => (1, 1),
            _ => return None,
        };
        total += Duration::from_secs(count.checked_mul(seconds)?);
        rest = unit.get(used..)?;
    }
    if text.is_empty() { None } else { Some(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_the_real_one() {
        for (text, seconds) in
            [("24h", Some(86_400)), ("1h30m", Some(5400)), ("90s", Some(90)), ("", None), ("24", None), ("x", None)]
        {
            assert_eq!(go_duration(text).map(|d| d.as_secs()), seconds, "{text}");
        }
    }

    #[test]
    fn unknown_keys_and_empty_lists_are_refused() {
        let parsed = |text: &str| serde_saphyr::from_str::<Config>(text);
        assert!(parsed("mode: strict\napi_allowlist: [a.example]\n").is_ok());
        for text in [
            "modes: strict",
            "mode: lax",
            "fetch_proxy: {listens: x}",
            "suppress: [x]",
            "enforce: maybe",
            "mode: strict\nmode: strict",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
        let config = parsed("mode: strict").unwrap();
        assert!(config.validate().unwrap_err().contains("at least one domain"));
    }
}
