//! The YAML of pipelock 2.3.0, as far as we write it, and how a policy becomes one.
//!
//! Pipelock refuses unknown keys, and its defaults differ from what its documents say: so every switch that guards
//! something is written out, whether or not it equals today's default.

use crate::policy::{Client, Policy};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The version of pipelock that this is the format of.
pub const VERSION: &str = "2.3.0";

/// The port its numbers are served on, on its own loopback, where the agent cannot ask for them.
pub const METRICS_PORT: u16 = 9090;

/// Stands on an allowlist that is empty otherwise, since pipelock refuses to start with none. No resolver knows it (RFC 6761).
pub const NOBODY: &str = "nothing.invalid";

/// Bodies above this are refused, both ways: pipelock holds them whole.
pub const BODY_BYTES_MAX: u64 = 32 << 20;

/// Headers that pipelock does not look into, since it acts on them itself: they frame the message or name its host, and
/// do not go on as they came. Never an empty list: that would mean pipelock's own, with `User-Agent` and `Accept` in it.
const FRAMING_HEADERS: [&str; 4] = ["Connection", "Content-Length", "Host", "Transfer-Encoding"];

/// Those that carry the credential of an API.
const CREDENTIAL_HEADERS: [&str; 2] = ["Authorization", "X-Api-Key"];

/// Patterns that ordinary code and URLs match: they warn. Only what is overridden by name may; all others block.
const WARNING_PATTERNS: [(&str, &str); 3] = [
    (
        "Credential in URL",
        r"(?m)(?:^|[?&;])\s*(?:password|passwd|secret|token|apikey|api_key|api-key)\s*=\s*[^\s&]{4,}",
    ),
    (
        "Environment Variable Secret",
        r"(?-i:[A-Z][A-Z0-9]*[_-](?:SECRET(?:[_-]ACCESS)?[_-]?KEY|SECRET|PASSWORD|PASSWD|TOKEN|API[_-]?KEY))\b\s*=\s*\S{8,}",
    ),
    ("JWT Token", r"(ey[a-zA-Z0-9_\-=]{10,}\.){2}[a-zA-Z0-9_\-=]{10,}"),
];

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* #[allow(missing_docs)] pub $field: $type,)+ }
    };
}

section! {
    /// The whole file. Fields are named as pipelock names them.
    Config {
        version: u32,
        mode: String,
        enforce: bool,
        explain_blocks: bool,
        api_allowlist: Vec<String>,
        suppress: Vec<String>,
        fetch_proxy: FetchProxy,
        forward_proxy: ForwardProxy,
        websocket_proxy: Switch,
        reverse_proxy: Switch,
        tls_interception: TlsInterception,
        request_body_scanning: RequestBodyScanning,
        response_scanning: ResponseScanning,
        dlp: Dlp,
        seed_phrase_detection: Switch,
        media_policy: Switch,
        browser_shield: Switch,
        taint: Switch,
        session_profiling: Switch,
        adaptive_enforcement: Switch,
        flight_recorder: Switch,
        sentry: Switch,
        metrics_listen: String,
        logging: Logging,
        trusted_domains: Vec<String>,
        ssrf: Ssrf,
    }
}

section! {
    /// A part of pipelock that is on or off.
    Switch {
        enabled: bool,
    }
}

section! {
    /// The listener, and how plain HTTP is forwarded.
    FetchProxy {
        listen: String,
        timeout_seconds: u64,
        max_response_mb: u64,
        monitoring: Monitoring,
    }
}

section! {
    /// What is watched in URLs.
    Monitoring {
        max_url_length: u64,
        entropy_threshold: f64,
        subdomain_entropy_threshold: f64,
        subdomain_entropy_exclusions: Vec<String>,
        max_requests_per_minute: u64,
        max_data_per_minute: u64,
        blocklist: Vec<String>,
    }
}

section! {
    /// CONNECT.
    ForwardProxy {
        enabled: bool,
        max_tunnel_seconds: u64,
        idle_timeout_seconds: u64,
        sni_verification: bool,
    }
}

section! {
    /// How TLS is opened.
    TlsInterception {
        enabled: bool,
        ca_cert: String,
        ca_key: String,
        passthrough_domains: Vec<String>,
        cert_ttl: String,
        cert_cache_size: u64,
        max_response_bytes: u64,
    }
}

section! {
    /// What is looked for in requests.
    RequestBodyScanning {
        enabled: bool,
        action: String,
        max_body_bytes: u64,
        scan_headers: bool,
        header_mode: String,
        ignore_headers: Vec<String>,
    }
}

section! {
    /// What is looked for in responses.
    ResponseScanning {
        enabled: bool,
        action: String,
        exempt_domains: Vec<String>,
        sse_streaming: Switch,
    }
}

section! {
    /// The patterns of secrets.
    Dlp {
        scan_env: bool,
        include_defaults: bool,
        patterns: Vec<Pattern>,
    }
}

section! {
    /// One pattern of a secret.
    Pattern {
        name: String,
        regex: String,
        severity: String,
        action: String,
    }
}

section! {
    /// Where the log goes.
    Logging {
        format: String,
        output: String,
        include_allowed: bool,
        include_blocked: bool,
    }
}

section! {
    /// Exemptions from the SSRF check.
    Ssrf {
        ip_allowlist: Vec<String>,
    }
}

/// Why a text is not a configuration that we would run.
#[derive(Debug, thiserror::Error)]
pub enum BadConfig {
    /// Not the YAML of this schema.
    #[error("could not read the configuration")]
    Yaml(#[source] Box<serde_saphyr::Error>),
    /// It leaves the wall open.
    #[error("the configuration is not strict: {0}")]
    Open(&'static str),
}

impl Config {
    /// What a policy means in pipelock's words.
    pub fn of(policy: &Policy) -> Self {
        Self {
            version: 1,
            mode: "strict".into(),
            enforce: true,
            explain_blocks: false,
            api_allowlist: allowlist(policy),
            suppress: Vec::new(),
            fetch_proxy: fetch_proxy(policy),
            forward_proxy: ForwardProxy {
                enabled: true,
                max_tunnel_seconds: 86_400,
                idle_timeout_seconds: 14_400,
                sni_verification: policy.sni_verification(),
            },
            websocket_proxy: OFF,
            reverse_proxy: OFF,
            tls_interception: TlsInterception {
                enabled: true,
                ca_cert: crate::path(crate::CA_FILE),
                ca_key: crate::path(crate::CA_KEY_FILE),
                passthrough_domains: policy.passthrough().iter().cloned().collect(),
                cert_ttl: "24h".into(),
                cert_cache_size: 1000,
                max_response_bytes: BODY_BYTES_MAX,
            },
            request_body_scanning: RequestBodyScanning {
                enabled: true,
                action: "block".into(),
                max_body_bytes: BODY_BYTES_MAX,
                scan_headers: true,
                // The other mode looks into six headers and lets a secret pass in any other.
                header_mode: "all".into(),
                ignore_headers: ignored_headers(policy),
            },
            // Must be on, or server-sent events are held back whole; scanning them cuts streams short.
            response_scanning: ResponseScanning {
                enabled: true,
                action: "warn".into(),
                exempt_domains: Vec::new(),
                sse_streaming: OFF,
            },
            dlp: Dlp { scan_env: false, include_defaults: true, patterns: patterns() },
            seed_phrase_detection: OFF,
            media_policy: OFF,
            browser_shield: OFF,
            taint: OFF,
            session_profiling: OFF,
            adaptive_enforcement: OFF,
            flight_recorder: OFF,
            sentry: OFF,
            metrics_listen: format!("127.0.0.1:{METRICS_PORT}"),
            logging: Logging {
                format: "json".into(),
                output: "stdout".into(),
                include_allowed: true,
                include_blocked: true,
            },
            trusted_domains: policy.trusted().iter().cloned().collect(),
            ssrf: Ssrf { ip_allowlist: policy.addresses().iter().map(|a| format!("{a}/32")).collect() },
        }
    }

    /// Reads a file of this schema and nothing else, and only one that holds the wall.
    pub fn parse(text: &str) -> Result<Self, BadConfig> {
        let config: Self = serde_saphyr::from_str(text).map_err(|e| BadConfig::Yaml(Box::new(e)))?;
        for (open, what) in [
            (config.mode != "strict", "mode must be strict, or the allowlist is not enforced"),
            (!config.enforce, "enforce must be true"),
            (config.api_allowlist.is_empty(), "api_allowlist must not be empty"),
            (config.api_allowlist.iter().any(|h| h == "*"), "api_allowlist must not have a bare star"),
            (!config.tls_interception.enabled, "tls_interception must be enabled"),
            (!config.request_body_scanning.enabled, "request_body_scanning must be enabled"),
            (config.request_body_scanning.action != "block", "request_body_scanning must block"),
            (!config.request_body_scanning.scan_headers, "request_body_scanning must scan headers"),
            (config.request_body_scanning.header_mode != "all", "header_mode must be all"),
            (config.request_body_scanning.ignore_headers.is_empty(), "ignore_headers must not be empty"),
            (config.explain_blocks, "explain_blocks must be false"),
        ] {
            if open {
                return Err(BadConfig::Open(what));
            }
        }
        Ok(config)
    }
}

/// The file of a policy: the same bytes for the same policy.
pub fn render(policy: &Policy) -> String {
    // Every text is quoted: a host named `null` or `1e3` must stay a name in any YAML reader.
    let options = serde_saphyr::ser_options! { quote_all: true, prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(&Config::of(policy), options)
        .expect("plain structs, texts and finite numbers can be written as YAML, and to a String without I/O")
}

const OFF: Switch = Switch { enabled: false };

fn allowlist(policy: &Policy) -> Vec<String> {
    if policy.allowlist().is_empty() {
        return vec![NOBODY.to_owned()];
    }
    policy.allowlist().iter().cloned().collect()
}

fn fetch_proxy(policy: &Policy) -> FetchProxy {
    FetchProxy {
        listen: policy.listen().to_string(),
        timeout_seconds: 600,
        max_response_mb: 64,
        monitoring: Monitoring {
            max_url_length: 16_384,
            // Signed URLs are random to the eye; 8 bits a byte is never reached, and 0 would mean the default.
            entropy_threshold: 8.0,
            subdomain_entropy_threshold: 8.0,
            subdomain_entropy_exclusions: Vec::new(),
            // Per registrable domain; 0 would mean 60.
            max_requests_per_minute: 1_000_000,
            max_data_per_minute: 0,
            blocklist: Vec::new(),
        },
    }
}

fn ignored_headers(policy: &Policy) -> Vec<String> {
    let mut ignored: BTreeSet<String> = FRAMING_HEADERS.map(str::to_owned).into();
    match policy.client() {
        Client::Agent { credentials: true } => ignored.extend(CREDENTIAL_HEADERS.map(str::to_owned)),
        Client::Agent { credentials: false } => {}
        Client::Routes => ignored.extend(policy.credential_headers().iter().cloned()),
    }
    ignored.into_iter().collect()
}

fn patterns() -> Vec<Pattern> {
    WARNING_PATTERNS
        .iter()
        .map(|(name, regex)| Pattern {
            name: (*name).to_owned(),
            regex: (*regex).to_owned(),
            severity: "high".into(),
            action: "warn".into(),
        })
        .collect()
}
