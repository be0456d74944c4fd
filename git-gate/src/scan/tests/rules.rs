//! Each rule's own examples, and what holds of all rules.

use super::example::expand;
use super::*;
use std::fmt::Write;

/// A scanner of one rule alone.
fn only(id: &str) -> Scanner {
    let mut rules = Rules::built_in().unwrap();
    rules.rules.retain(|rule| rule.id == id);
    Scanner::new(rules, Vec::new()).unwrap()
}

#[test]
fn each_rule_finds_its_hits_and_not_its_misses() {
    let mut wrong = String::new();
    for rule in Rules::built_in().unwrap().iter() {
        let scanner = only(&rule.id);
        assert!(!rule.hit.is_empty() && !rule.miss.is_empty(), "{} has no examples", rule.id);
        for seed in 1..=20 {
            for hit in &rule.hit {
                if found(&scanner, expand(hit, seed).as_bytes()).is_empty() {
                    let _ = writeln!(wrong, "{} does not find {}", rule.id, expand(hit, seed));
                }
            }
            for miss in &rule.miss {
                if !found(&scanner, expand(miss, seed).as_bytes()).is_empty() {
                    let _ = writeln!(wrong, "{} finds {}", rule.id, expand(miss, seed));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_expression_can_be_built() {
    scanner().check().unwrap();
}
