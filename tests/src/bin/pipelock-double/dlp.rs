//! Secrets by their shape: a handful of the real one's kinds, enough for tests to be refused and let through alike.

use crate::config::{DlpSection, Pattern};
use regex::bytes::Regex;

/// Name, expression, severity, and whether it belongs to the floor that no configuration removes.
const DEFAULTS: [(&str, &str, &str, bool); 15] = [
    ("AWS Access ID", r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}", "critical", true),
    ("GitHub Token", r"\bgh[oprsu]_[a-z0-9]{36}", "critical", true),
    ("Anthropic API Key", r"\bsk-ant-[a-z0-9_-]{10}", "critical", true),
    ("OpenAI API Key", r"\bsk-proj-[a-z0-9_-]{10}", "critical", true),
    ("Private Key Header", r"-----BEGIN ([A-Z]+ )?PRIVATE KEY-----", "critical", true),
    ("Slack Token", r"\bxox[abprs]-[a-z0-9-]{15}", "critical", true),
    ("GitHub Fine-Grained PAT", r"\bgithub_pat_[a-z0-9_]{36}", "critical", false),
    ("GitLab PAT", r"\bglpat-[a-z0-9_-]{20}", "critical", false),
    ("npm Token", r"\bnpm_[a-z0-9]{36}", "critical", false),
    ("PyPI Token", r"\bpypi-[a-z0-9_-]{16}", "critical", false),
    ("Stripe Key", r"\b[rs]k[_-](live|test)[_-][a-z0-9]{20}", "critical", false),
    ("Google API Key", r"\bAIza[a-z0-9_-]{35}", "high", false),
    ("JWT Token", r"\bey[a-z0-9_-]{10,}\.ey[a-z0-9_-]{10,}\.[a-z0-9_-]{10}", "high", false),
    ("Credential in URL", r"[?&;](password|passwd|secret|token|api[_-]?key)=[^\s&]{4}", "high", false),
    ("Environment Variable Secret", r"\b(?-i:[A-Z0-9_]+_(SECRET|PASSWORD|TOKEN|API_KEY))=\S{8}", "high", false),
];

/// The compiled patterns.
#[derive(Debug)]
pub struct Dlp {
    patterns: Vec<Compiled>,
}

#[derive(Debug)]
struct Compiled {
    name: String,
    severity: String,
    regex: Regex,
    core: bool,
    warns: bool,
}

/// What a pattern found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    pub name: String,
    pub severity: String,
    /// Of the floor?
    pub core: bool,
    /// Only to be told, not refused?
    pub warns: bool,
}

impl Dlp {
    /// The defaults, unless they are left out, under the patterns of the file; those of the floor always.
    pub fn new(section: &DlpSection) -> Result<Self, String> {
        let mut patterns = Vec::new();
        for (name, regex, severity, core) in DEFAULTS {
            let overridden = section.patterns.iter().any(|p| p.name == name);
            if core || (section.include_defaults && !overridden) {
                let pattern = Pattern {
                    name: name.to_owned(),
                    regex: regex.to_owned(),
                    severity: severity.to_owned(),
                    action: String::new(),
                };
                patterns.push(Compiled::of(&pattern, core)?);
            }
        }
        for pattern in &section.patterns {
            patterns.push(Compiled::of(pattern, false)?);
        }
        Ok(Self { patterns })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.patterns.len()
    }

    /// Everything found in a text, each name once, the floor's first.
    pub fn scan(&self, text: &[u8]) -> Vec<Match> {
        let mut found: Vec<Match> = Vec::new();
        for pattern in &self.patterns {
            if pattern.regex.is_match(text) && !found.iter().any(|m| m.name == pattern.name) {
                found.push(Match {
                    name: pattern.name.clone(),
                    severity: pattern.severity.clone(),
                    core: pattern.core,
                    warns: pattern.warns,
                });
            }
        }
        found
    }
}

impl Match {
    /// In the words of a refused URL.
    pub fn reason(&self) -> String {
        let core = if self.core { "core " } else { "" };
        format!("{core}DLP match: {} ({})", self.name, self.severity)
    }
}

impl Compiled {
    fn of(pattern: &Pattern, core: bool) -> Result<Self, String> {
        Ok(Self {
            name: pattern.name.clone(),
            severity: pattern.severity.clone(),
            regex: pattern.compile()?,
            core,
            warns: pattern.warns(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dlp: &Dlp, text: &str) -> Vec<(String, bool)> {
        dlp.scan(text.as_bytes()).into_iter().map(|m| (m.name, m.warns)).collect()
    }

    #[test]
    fn secrets_are_found_and_their_neighbours_are_not() {
        let dlp = Dlp::new(&DlpSection::default()).unwrap();
        for (text, name) in [
            ("key AKIAABCDEFGHIJKLMNOP", Some("AWS Access ID")),
            ("key AKIAABC", None),
            ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", Some("GitHub Token")),
            ("ghp_short", None),
            ("Bearer sk-ant-abcdefghij", Some("Anthropic API Key")),
            ("-----BEGIN PRIVATE KEY-----", Some("Private Key Header")),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", Some("Private Key Header")),
            ("-----BEGIN CERTIFICATE-----", None),
            ("?token=abcdef", Some("Credential in URL")),
            ("next_token=abcdef", None),
        ] {
            assert_eq!(names(&dlp, text).first().map(|(n, _)| n.as_str()), name, "{text}");
        }
    }

    #[test]
    fn an_override_may_warn_but_not_below_the_floor() {
        let of = |name: &str, regex: &str| Pattern {
            name: name.to_owned(),
            regex: regex.to_owned(),
            severity: "high".to_owned(),
            action: "warn".to_owned(),
        };
        let patterns = vec![of("Credential in URL", "token="), of("GitHub Token", "ghp_")];
        let section = DlpSection { include_defaults: true, patterns, scan_env: false };
        let dlp = Dlp::new(&section).unwrap();
        assert_eq!(names(&dlp, "?token=abcdef"), [("Credential in URL".to_owned(), true)]);
        let token = "ghp_abcdefghijklmnopqrstuvwxyz0123456789";
        assert_eq!(names(&dlp, token), [("GitHub Token".to_owned(), false)], "the floor holds");
    }
}
