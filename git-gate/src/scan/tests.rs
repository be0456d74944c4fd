//! Tests of the scan as a whole.

mod example;
mod rules;

use super::*;

/// The id of blob number `n` of a test.
fn blob(n: u8) -> Source {
    Source::Blob(ObjectId::from_bytes_or_panic(&[n; 20]))
}

fn scanner() -> Scanner {
    Scanner::new(Rules::built_in().unwrap(), Vec::new()).unwrap()
}

/// What is found in one text.
fn found(scanner: &Scanner, bytes: &[u8]) -> Vec<Finding> {
    let scan = scanner.start(Budget::default());
    scan.text(blob(1), bytes).unwrap();
    findings(scan)
}

fn findings(scan: Scan) -> Vec<Finding> {
    match scan.finish() {
        Ok(_) => Vec::new(),
        Err(Unclean::Findings(findings)) => findings.iter().cloned().collect(),
        Err(Unclean::Refused(refused)) => panic!("{refused}"),
    }
}
