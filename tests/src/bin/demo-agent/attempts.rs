//! Everything that is tried, by theme. A new attempt is one entry and one small function in the theme's file.

use crate::judge::Decision;
use crate::known::Known;

pub mod asks;
pub mod egress;
pub mod git;
pub mod hunt;
pub mod kernel;
pub mod network;
pub mod route;

/// One attempt.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// Its name for machines.
    pub slug: &'static str,
    /// What is tried, one sentence of at most 60 characters.
    pub tried: &'static str,
    /// What must happen, at most 40 characters.
    pub expected: &'static str,
    /// Does it and judges.
    pub run: fn(&Known) -> Decision,
}

/// All of them, in the order in which they are run.
pub const THEMES: [(&str, &[Attempt]); 7] = [
    ("egress", egress::ATTEMPTS),
    ("route", route::ATTEMPTS),
    ("git", git::ATTEMPTS),
    ("network", network::ATTEMPTS),
    ("kernel", kernel::ATTEMPTS),
    ("hunt", hunt::ATTEMPTS),
    ("asks", asks::ATTEMPTS),
];

#[cfg(test)]
mod tests {
    use super::THEMES;
    use std::collections::BTreeSet;

    #[test]
    fn every_attempt_has_its_own_name_and_fits_the_table() {
        let all: Vec<_> = THEMES.iter().flat_map(|(_, attempts)| attempts.iter()).collect();
        let slugs: BTreeSet<_> = all.iter().map(|attempt| attempt.slug).collect();
        assert_eq!(slugs.len(), all.len());
        assert!(all.len() >= 12);
        for attempt in all {
            assert!(attempt.tried.chars().count() <= 60, "{}", attempt.tried);
            assert!(attempt.expected.chars().count() <= 40, "{}", attempt.expected);
            assert!(attempt.slug.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", attempt.slug);
        }
    }
}
