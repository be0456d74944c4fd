//! Names of agents, bottles and skills. A name is checked before it becomes part of a path, so none leaves its folder.

use std::fmt;

/// The longest name, in characters.
const NAME_CHARS_MAX: usize = 32;

/// `[a-z][a-z0-9-]{0,31}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a name: {reason}", super::error::quoted(.text))]
pub struct NotAName {
    text: String,
    reason: &'static str,
}

impl Name {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, NotAName> {
        let bad = |reason| Err(NotAName { text: text.to_owned(), reason });
        if text.is_empty() || text.len() > NAME_CHARS_MAX {
            return bad("it must have 1 to 32 characters");
        }
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            return bad("it must begin with a lower-case letter");
        }
        if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return bad("only lower-case letters, digits and hyphens can stand in it");
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_or_refused() {
        let longest = "a".repeat(32);
        for good in ["a", "dev", "my-agent-2", longest.as_str()] {
            assert_eq!(Name::parse(good).unwrap().as_str(), good);
        }
        let too_long = "a".repeat(33);
        for bad in
            ["", "Dev", "2dev", "-dev", "de_v", "../dev", "a/b", "a.md", "a\0", "\u{e4}", "a\n", too_long.as_str()]
        {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
    }
}
