//! What the agent is told of a push that is refused, in words and without a byte of any secret. PURE.

use crate::config::Finding;

/// Findings that are told one by one; the rest is a number.
const FINDINGS_SHOWN: usize = 20;

/// The longest path that is shown.
const PATH_CHARS_MAX: usize = 128;

/// Hex digits of a fingerprint that the agent sees; the operator's log has all 64.
const FINGERPRINT_SHOWN: usize = 12;

/// Hex digits of an object's name that are shown.
const OBJECT_SHOWN: usize = 12;

/// A finding as it is told.
#[derive(Debug, Clone)]
pub struct Told {
    /// All but the secret.
    pub finding: Finding,
    /// The rule's own prefix and a length, such as `AKIA…(20 chars)`.
    pub preview: String,
    /// Is the path gone, or its content another, in the commit that the ref ends at?
    pub removed_later: bool,
}

/// The text about findings. Every line is whole; the last one ends with a newline.
pub fn rejection(told: &[Told]) -> String {
    let plural = if told.len() == 1 { "" } else { "s" };
    let mut text = format!(
        "git-gate: PUSH REJECTED: {} possible secret{plural} found; nothing was sent to the upstream.\n",
        told.len()
    );
    for (number, Told { finding, preview, removed_later }) in told.iter().take(FINDINGS_SHOWN).enumerate() {
        text.push_str(&format!("  {}. {}\n", number + 1, printable(&finding.rule, 64)));
        text.push_str(&format!("     {}   {}\n", place(finding), printable(preview, 64)));
        if *removed_later {
            text.push_str("     (the newest commit no longer has it, but the history that is pushed does)\n");
        }
        let shown = finding.fingerprint.get(..FINGERPRINT_SHOWN).unwrap_or_default();
        text.push_str(&format!("     fingerprint {shown}\n"));
    }
    if told.len() > FINDINGS_SHOWN {
        text.push_str(&format!("  and {} more.\n", told.len() - FINDINGS_SHOWN));
    }
    text.push_str(
        "Remove the secret from EVERY commit of this push (git commit --amend, or\n\
         git rebase -i for an older commit), then push again. Do not encode or split it.\n\
         If it is a false alarm, ask the operator for an exception by its fingerprint.\n",
    );
    text
}

fn place(finding: &Finding) -> String {
    let line = match finding.line {
        0 => String::new(),
        line => format!(", line {line}"),
    };
    let object = |name: &str| printable(name, OBJECT_SHOWN).trim_end_matches('…').to_owned();
    match (&finding.path, &finding.commit) {
        (Some(path), Some(commit)) => format!("{}@{}{line}", printable(path, PATH_CHARS_MAX), object(commit)),
        _ => match finding.kind.as_str() {
            "ref name" => "the ref's name".to_owned(),
            "push option" => format!("{}{line}", printable(&finding.source, PATH_CHARS_MAX)),
            kind => format!("{kind} {}{line}", object(&finding.source)),
        },
    }
}

/// Foreign text that is safe to show: no control characters, nothing that turns the direction of writing, at most
/// `chars_max` characters.
pub fn printable(text: &str, chars_max: usize) -> String {
    let mut out = String::new();
    for (count, char) in text.chars().enumerate() {
        if count == chars_max {
            out.push('…');
            break;
        }
        let is_bidi = matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let is_break = matches!(char, '\u{2028}' | '\u{2029}' | '\u{feff}');
        if char.is_control() || is_bidi || is_break {
            out.extend(char.escape_unicode());
        } else {
            out.push(char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: &str, path: Option<&str>) -> Told {
        let finding = Finding {
            rule: "aws-access-token".into(),
            kind: kind.into(),
            source: "0123456789abcdef0123456789abcdef01234567".into(),
            path: path.map(str::to_owned),
            commit: path.map(|_| "4644f59b3799aaaaaaaaaaaaaaaaaaaaaaaaaaaa".into()),
            line: 1,
            length: 20,
            fingerprint: "ab".repeat(32),
            excused: None,
        };
        Told { finding, preview: "AKIA…(20 chars)".into(), removed_later: false }
    }

    #[test]
    fn a_rejection_reads_as_designed() {
        let text = rejection(&[told("blob", Some("cfg/dev.py"))]);
        assert_eq!(
            text,
            "git-gate: PUSH REJECTED: 1 possible secret found; nothing was sent to the upstream.\n  \
               1. aws-access-token\n     \
                  cfg/dev.py@4644f59b3799, line 1   AKIA…(20 chars)\n     \
                  fingerprint abababababab\n\
             Remove the secret from EVERY commit of this push (git commit --amend, or\n\
             git rebase -i for an older commit), then push again. Do not encode or split it.\n\
             If it is a false alarm, ask the operator for an exception by its fingerprint.\n"
        );
        assert!(rejection(&[told("commit", None)]).contains("commit 0123456789ab, line 1 "));
        assert!(rejection(&[told("ref name", None)]).contains("     the ref's name "));
    }

    #[test]
    fn many_findings_end_in_a_number() {
        let text = rejection(&vec![told("blob", Some("a")); 25]);
        assert!(text.contains("25 possible secrets") && text.contains("  20. ") && !text.contains("  21. "));
        assert!(text.contains("  and 5 more.\n"));
    }

    #[test]
    fn foreign_text_stays_on_its_line() {
        let path = format!("a\x1b[2J\nremote: ok\u{202e}{}", "b".repeat(200));
        let text = rejection(&[told("blob", Some(&path))]);
        assert!(!text.contains('\x1b') && !text.contains("\nremote:") && !text.contains('\u{202e}'));
        assert!(text.contains("\\u{1b}[2J\\u{a}remote: ok") && text.contains("…@4644"));
        assert_eq!(printable("abc", 3), "abc");
        assert_eq!(printable("abcd", 3), "abc…");
    }
}
