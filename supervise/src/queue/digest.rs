//! Digests that bind a verdict to what its person saw.

use crate::wire::Change;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// A SHA-256, written as 64 hexadecimal digits in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// What a verdict is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Of what was displayed: [`super::Queue::displayed`].
    pub displayed: Digest,
    /// Of the bottle's state that it was displayed against.
    pub base: Digest,
}

/// Not 64 hexadecimal digits in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 64 hexadecimal digits in lower case")]
pub struct NotADigest;

impl Digest {
    /// Of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Of the state of a bottle, or of anything else that is data.
    ///
    /// # Panics
    /// Where the data cannot be written as JSON, as a map whose keys are no strings.
    pub fn of_data(data: &impl Serialize) -> Self {
        Self::of(&serde_json::to_vec(data).expect("plain data can be written as JSON"))
    }

    /// Reads 64 digits.
    pub fn parse(text: &str) -> Result<Self, NotADigest> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(is_digit) { Ok(Self(text.to_owned())) } else { Err(NotADigest) }
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Of what is displayed. Not of how often it was asked: an agent could keep every verdict from being current.
    pub(super) fn of_display(id: &str, change: &Change, justification: &str, base: &Self) -> Self {
        Self::of_data(&("bottle proposal 1", id, change, justification, base))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = NotADigest;
    fn try_from(text: String) -> Result<Self, NotADigest> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}
