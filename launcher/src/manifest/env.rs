//! The agent's environment as a bottle writes it, and the names that are the launcher's own.

use super::EnvValue;
use super::error::quoted;
use super::reader::{Table, any_text};
use super::report::Report;
use super::tree::Entry;
use std::collections::BTreeMap;

/// Characters of a variable's name.
const NAME_CHARS_MAX: usize = 128;

/// Bytes of a literal value or a question.
const VALUE_BYTES_MAX: usize = 32 << 10;

/// Variables that the launcher sets so that the agent's programs find the proxy and trust the bottle's CA. A bottle
/// that set one would cut the agent off or point it elsewhere, so they are refused, in upper and lower case alike.
pub const RESERVED: [&str; 21] = [
    "ALL_PROXY",
    "AWS_CA_BUNDLE",
    "BOTTLE",
    "CARGO_HTTP_CAINFO",
    "CURL_CA_BUNDLE",
    "DENO_CERT",
    "DENO_TLS_CA_STORE",
    "FTP_PROXY",
    "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "JAVA_TOOL_OPTIONS",
    "NODE_EXTRA_CA_CERTS",
    "NODE_USE_ENV_PROXY",
    "NO_PROXY",
    "NPM_CONFIG_CAFILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
];

/// Reads the table `env`. `routed` are the variables that the bottle's routes set.
pub(super) fn read(entry: Option<&Entry>, routed: &[&str], report: &mut Report) -> BTreeMap<String, EnvValue> {
    let mut env = BTreeMap::new();
    let Some(mut table) = entry.and_then(|entry| Table::open(&entry.value, "`env`", entry.at, report)) else {
        return env;
    };
    for entry in table.rest() {
        let name = entry.key.as_str();
        if let Err(reason) = variable(name) {
            report.error_with(entry.at, format!("`{}` is not a name of a variable", quoted(name)), reason.to_owned());
            continue;
        }
        if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
            let hint = "it leads to the bottle's proxy or its CA, or is a mark of it; leave it out";
            report.error_with(entry.at, format!("`{name}` is set by the launcher"), hint.to_owned());
            continue;
        }
        if routed.iter().any(|routed| routed.eq_ignore_ascii_case(name)) {
            let hint = "take it out, or take the role from the route";
            report.error_with(entry.at, format!("`{name}` is set by the role of a route"), hint.to_owned());
            continue;
        }
        let Some(text) = any_text(&entry.value, &format!("`{name}`"), report) else { continue };
        match value(&text.text) {
            Ok(value) => {
                env.insert(name.to_owned(), value);
            }
            Err(problem) => report.error_with(text.at, problem.message(name), problem.hint()),
        }
    }
    env
}

/// Is this the name of an environment variable? If not: what it must be.
pub(super) fn variable(name: &str) -> Result<(), &'static str> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !first || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err("letters, digits and underscores, not beginning with a digit");
    }
    if name.len() > NAME_CHARS_MAX {
        return Err("at most 128 characters");
    }
    Ok(())
}

enum Problem {
    TooLong,
    Nul,
    NotAName,
    InTheMiddle,
    NoQuestion,
}

impl Problem {
    fn message(&self, name: &str) -> String {
        match self {
            Self::TooLong => format!("the value of `{name}` is longer than 32 KiB"),
            Self::Nul => format!("the value of `{name}` holds a NUL, which no environment can"),
            Self::NotAName => format!("`{name}` does not name a variable of the host"),
            Self::InTheMiddle => format!("`{name}` holds `${{` beside other text, and nothing would fill it in"),
            Self::NoQuestion => format!("`{name}` asks nothing"),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::TooLong | Self::Nul => None,
            Self::NotAName | Self::InTheMiddle => Some("write \"${NAME}\" and nothing else".to_owned()),
            Self::NoQuestion => Some("write the question after the `?`".to_owned()),
        }
    }
}

fn value(text: &str) -> Result<EnvValue, Problem> {
    if text.len() > VALUE_BYTES_MAX {
        return Err(Problem::TooLong);
    }
    if text.contains('\0') {
        return Err(Problem::Nul);
    }
    if let Some(question) = text.strip_prefix('?') {
        let question = question.trim();
        let shown = !question.is_empty() && !question.contains(char::is_control);
        return if shown { Ok(EnvValue::Ask(question.to_owned())) } else { Err(Problem::NoQuestion) };
    }
    if let Some(name) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
        return match variable(name) {
            Ok(()) => Ok(EnvValue::Host(name.to_owned())),
            Err(_) => Err(Problem::NotAName),
        };
    }
    if text.contains("${") {
        return Err(Problem::InTheMiddle);
    }
    Ok(EnvValue::Literal(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_literal_the_hosts_or_asked_for() {
        let literal = |t: &str| Some(EnvValue::Literal(t.to_owned()));
        for (text, expected) in [
            ("info", literal("info")),
            ("", literal("")),
            ("$HOME and $x", literal("$HOME and $x")),
            ("${CI_TOKEN}", Some(EnvValue::Host("CI_TOKEN".to_owned()))),
            ("?Passphrase for X", Some(EnvValue::Ask("Passphrase for X".to_owned()))),
            ("${}", None),
            ("${1A}", None),
            ("${A-B}", None),
            ("a${B}", None),
            ("${A}${B}", None),
            ("?", None),
            ("? \u{1b}[2J", None),
            ("a\0b", None),
        ] {
            assert_eq!(value(text).ok(), expected, "{text:?}");
        }
        assert!(value(&"x".repeat(VALUE_BYTES_MAX)).is_ok());
        assert!(value(&"x".repeat(VALUE_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn what_the_launcher_sets_is_reserved() {
        for name in crate::plan::provision::environment().keys() {
            assert!(RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)), "{name}");
        }
    }

    #[test]
    fn variables_have_names() {
        for good in ["A", "_a", "RUST_LOG", "x1"] {
            assert!(variable(good).is_ok(), "{good}");
        }
        for bad in ["", "1A", "A-B", "A B", "A=B", "\u{c4}", &"A".repeat(129)] {
            assert!(variable(bad).is_err(), "{bad}");
        }
    }
}
