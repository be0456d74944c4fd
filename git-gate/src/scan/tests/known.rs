//! The bottle's own secrets are found in every form, whatever they look like.

use super::*;
use proptest::prelude::*;

fn with(secret: &[u8]) -> Scanner {
    Scanner::new(Rules::parse("").unwrap(), vec![Secret::new(secret.to_vec())]).unwrap()
}

/// The forms, as the tools that write them would.
fn forms(secret: &[u8], before: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let around = [before, secret, b"and after"].concat();
    let each = |form: &dyn Fn(&u8) -> String| secret.iter().map(form).collect::<String>().into_bytes();
    let url = |text: Vec<u8>| {
        text.iter()
            .map(|b| match b {
                b'+' => b'-',
                b'/' => b'_',
                b => *b,
            })
            .collect::<Vec<u8>>()
    };
    vec![
        ("plain", around.clone()),
        ("base64", hidden::base64(&around)),
        ("base64 for URLs", url(hidden::base64(&around))),
        ("hex", each(&|b| format!("{b:02x}"))),
        ("HEX", each(&|b| format!("{b:02X}"))),
        ("percent", each(&|b| format!("%{b:02X}"))),
        ("percent, lower case", each(&|b| format!("%{b:02x}"))),
        ("UTF-16, little end first", secret.iter().flat_map(|b| [*b, 0]).collect()),
        ("UTF-16, big end first", secret.iter().flat_map(|b| [0, *b]).collect()),
        ("backwards", secret.iter().rev().copied().collect()),
        ("JSON", serde_json::to_vec(&String::from_utf8_lossy(secret)).unwrap()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_known_secret_is_found_in_each_form(secret in "[ -~]{8,60}", before in "[a-z]{0,5}") {
        let scanner = with(secret.as_bytes());
        for (name, text) in forms(secret.as_bytes(), before.as_bytes()) {
            for (glue, text) in [("alone", text.clone()), ("glued", [b"zz", text.as_slice(), b"zz"].concat())] {
                let found = found(&scanner, &text);
                let known = found.iter().find(|finding| finding.rule == KNOWN_SECRET);
                prop_assert!(known.is_some_and(|finding| finding.length == secret.len()), "{} {}: {:?}", name, glue, found);
            }
        }
    }

    #[test]
    fn another_one_is_not(secret in "[a-z]{8,20}", other in "[A-Z0-9 ]{8,60}") {
        let scanner = with(secret.as_bytes());
        for (name, text) in forms(other.as_bytes(), b"") {
            prop_assert!(found(&scanner, &text).is_empty(), "{}", name);
        }
    }
}

#[test]
fn a_secret_that_any_text_holds_is_no_secret() {
    let scanner = |secret: &str| Scanner::new(Rules::parse("").unwrap(), vec![Secret::new(secret.into())]);
    let error = scanner("abcde").unwrap_err();
    assert!(matches!(error, ScannerError::KnownTooShort { index: 0, .. }) && !error.to_string().contains("abcde"));
    assert_eq!(found(&scanner("abcdef").unwrap(), b"xabcdefx").len(), 1);
    assert!(found(&scanner("abcdef").unwrap(), b"xabcdeFx").is_empty());
}

#[test]
fn a_known_secret_that_a_rule_finds_too_is_found_by_both_or_known() {
    let scanner = Scanner::new(Rules::built_in().unwrap(), vec![Secret::new(token().into_bytes())]).unwrap();
    let found = found(&scanner, token().as_bytes());
    assert!(found.len() == 1 && found[0].rule == KNOWN_SECRET, "{found:?}");
    assert_eq!(found[0].preview(), "…(40 chars)");
}
