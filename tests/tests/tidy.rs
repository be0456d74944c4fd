//! What no compiler checks: every claim of THREATS.md names a test that is there, and every test below `claims/` is named
//! by a claim.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The rows of the tables of claims: sentence and second cell.
fn claims(text: &str) -> Vec<(String, String)> {
    let part = text.split("\n## ").find(|part| part.starts_with("Claims\n")).unwrap_or_default();
    let rows =
        part.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---") && !line.starts_with("| claim "));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        (cells.first().copied().unwrap_or_default().to_owned(), cells.get(1).copied().unwrap_or_default().to_owned())
    })
    .collect()
}

/// The names of a file's tests: functions directly below a test's attribute, and the names of properties.
fn tests(file: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_attribute = |line: &str| line == "#[test]" || line.starts_with("#[tokio::test");
    let name = |line: &str| Some(line.split_once("fn ")?.1.split(['(', '<']).next()?.to_owned());
    lines.windows(2).filter(|pair| is_attribute(pair[0])).filter_map(|pair| name(pair[1])).collect()
}

#[test]
fn every_claim_names_a_test_that_is_there() {
    let text = std::fs::read_to_string(root().join("THREATS.md")).unwrap();
    let claims = claims(&text);
    assert!(claims.len() > 20, "the tables were read: {claims:?}");
    for (sentence, cell) in &claims {
        let named = cell.strip_prefix('`').and_then(|c| c.strip_suffix('`')).and_then(|c| c.split_once("::"));
        let (file, test) = named.unwrap_or_else(|| panic!("no test is named by: {sentence}"));
        assert!(tests(&root().join(file)).contains(test), "{file} has no test {test}, which shows: {sentence}");
    }
}

#[test]
fn every_test_of_the_claims_is_named_by_one() {
    let text = std::fs::read_to_string(root().join("THREATS.md")).unwrap();
    let named: BTreeSet<String> =
        claims(&text).into_iter().map(|(_, cell)| cell.trim_matches('`').to_owned()).collect();
    for entry in std::fs::read_dir(root().join("tests/tests/claims")).unwrap().flatten() {
        let file = format!("tests/tests/claims/{}", entry.file_name().to_string_lossy());
        for test in tests(&entry.path()) {
            assert!(named.contains(&format!("{file}::{test}")), "{file}::{test} shows nothing that THREATS.md says");
        }
    }
}

#[test]
fn a_claim_without_a_test_is_found() {
    let read =
        claims("# T\n\n## Claims\n\n| claim | test |\n|---|---|\n| a | `f::t` |\n| b | |\n\n## Rest\n| c | d |\n");
    assert_eq!(read, [("a".to_owned(), "`f::t`".to_owned()), ("b".to_owned(), String::new())]);
}
