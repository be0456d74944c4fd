//! Tests of the scan as a whole.

mod edges;
mod example;
mod hidden;
mod known;
mod limits;
mod ordinary;
mod rules;

use super::*;

/// The id of blob number `n` of a test.
fn blob(n: u8) -> Source {
    Source::Blob(ObjectId::from_bytes_or_panic(&[n; 20]))
}

fn scanner() -> Scanner {
    Scanner::new(Rules::built_in().unwrap(), Vec::new()).unwrap()
}

/// A made up GitHub token, put together here so that it stands nowhere in this repository.
fn token() -> String {
    ["gh", "p_", &"k3J9xQ2mZ7".repeat(4)[..36]].concat()
}

const TOKEN_RULE: &str = "github-personal-access-token";

/// What is found in one text.
fn found(scanner: &Scanner, bytes: &[u8]) -> Vec<Finding> {
    let scan = scanner.start(Budget::default());
    scan.text(blob(1), bytes).unwrap();
    findings(scan)
}

/// What is found in one text that is read as a stream.
fn streamed(scanner: &Scanner, bytes: &[u8]) -> Vec<Finding> {
    let scan = scanner.start(Budget::default());
    scan.stream(blob(1), &mut &bytes[..]).unwrap();
    findings(scan)
}

fn findings(scan: Scan) -> Vec<Finding> {
    match scan.finish() {
        Ok(_) => Vec::new(),
        Err(Unclean::Findings(findings)) => findings.iter().cloned().collect(),
        Err(Unclean::Refused(refused)) => panic!("{refused}"),
    }
}

#[test]
fn a_finding_says_where_and_never_what() {
    let token = token();
    let found = found(&scanner(), format!("one\ntwo\n  x = '{token}'\n").as_bytes());
    let [finding] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((finding.rule.as_str(), finding.line, finding.column, finding.offset), (TOKEN_RULE, 3, 8, 15));
    assert_eq!((finding.length, finding.preview().as_str()), (40, "ghp_…(40 chars)"));
    for shown in [format!("{finding}"), format!("{finding:?}"), finding.fingerprint(None).full()] {
        assert!(!shown.contains(&token[4..]) && !shown.contains(&token[..12]), "{shown}");
    }
}

#[test]
fn a_fingerprint_is_of_rule_path_and_secret() {
    let scanner = scanner();
    let one = found(&scanner, token().as_bytes()).remove(0);
    let again = found(&scanner, format!("elsewhere: {}", token()).as_bytes()).remove(0);
    let other = found(&scanner, token().replace('J', "K").as_bytes()).remove(0);
    assert_eq!(one.fingerprint(Some(b"a/b")), again.fingerprint(Some(b"a/b")));
    let prints = [
        one.fingerprint(None),
        one.fingerprint(Some(b"")),
        one.fingerprint(Some(b"a/b")),
        other.fingerprint(Some(b"a/b")),
        Finding { rule: "another".to_owned(), ..one.clone() }.fingerprint(Some(b"a/b")),
    ];
    for (at, print) in prints.iter().enumerate() {
        assert!(!prints[..at].contains(print));
        assert_eq!(Fingerprint::parse(&print.full()), Some(*print));
        assert!(print.full().starts_with(&print.to_string()) && print.to_string().len() == 12);
        assert_eq!(Fingerprint::parse(&print.to_string()), None, "a short one can be ground");
    }
    assert!(one.is_in(format!("old {}", token()).as_bytes()) && !other.is_in(token().as_bytes()));
}

#[test]
fn what_is_excused_is_clean_and_nothing_else_is() {
    let scan = || {
        let scan = scanner().start(Budget::default());
        scan.text(blob(1), token().as_bytes()).unwrap();
        scan.text(blob(2), b"nothing").unwrap();
        let Err(Unclean::Findings(findings)) = scan.finish() else { panic!("nothing was found") };
        findings
    };
    let clean = scan().excuse(|finding| finding.source == blob(1)).unwrap();
    assert_eq!((clean.objects(), clean.bytes()), (2, 47));
    let left = scan().excuse(|finding| finding.source == blob(2)).unwrap_err();
    assert_eq!(left.len(), 1);
}

#[test]
fn threads_share_one_scan() {
    let scan = scanner().start(Budget::default());
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let scan = &scan;
            scope.spawn(move || {
                for n in 0..20 {
                    let text = if n == thread { token() } else { "x = 1".repeat(50) };
                    scan.text(blob(thread * 20 + n), text.as_bytes()).unwrap();
                }
            });
        }
    });
    let mut sources: Vec<Source> = findings(scan).into_iter().map(|finding| finding.source).collect();
    sources.sort_by_key(|source| format!("{source}"));
    assert_eq!(sources, [blob(0), blob(21), blob(42), blob(63)]);
}
