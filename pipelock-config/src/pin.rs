//! Which pipelock runs: the entry of `images/pins.toml`, or of the user's own `pins.toml`.
//!
//! A reference alone is a name that a registry may move; only a digest says which bytes. Without one, the caller has to
//! ask a person before the image is used.

use serde::Deserialize;

/// The pinned pipelock.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Name and tag.
    pub reference: String,
    /// `sha256:` and 64 hexadecimal digits: the registry's digest of the manifest. `None` until somebody filled it in.
    pub digest: Option<String>,
    /// The version whose configuration format it reads.
    pub schema: String,
}

/// Why there is no pin.
#[derive(Debug, thiserror::Error)]
pub enum BadPin {
    /// Not TOML, or no `[pipelock]` in it.
    #[error("could not read pipelock's pin")]
    Toml(#[source] Box<toml::de::Error>),
    /// The reference is empty, or has a digest of its own.
    #[error("the pin's reference {0:?} must be a name and a tag; a digest stands apart")]
    Reference(String),
    /// Not a digest.
    #[error("the pin's digest {0:?} must be \"sha256:\" and 64 lower-case hexadecimal digits")]
    Digest(String),
    /// We do not write this version's format.
    #[error("the pin's schema {0:?} is not {version:?}, the one that can be written here", version = crate::schema::VERSION)]
    Schema(String),
}

impl Pin {
    /// Reads the `[pipelock]` table of a pins file; other tables are other images' pins.
    pub fn parse(text: &str) -> Result<Self, BadPin> {
        #[derive(Deserialize)]
        struct Pins {
            pipelock: Pin,
        }
        let Pins { pipelock: pin } = toml::from_str(text).map_err(|e| BadPin::Toml(Box::new(e)))?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b':');
        if pin.reference.is_empty() || pin.reference.len() > 255 || !pin.reference.bytes().all(plain) {
            return Err(BadPin::Reference(pin.reference));
        }
        let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        let is_digest = |d: &str| d.strip_prefix("sha256:").is_some_and(|h| h.len() == 64 && h.bytes().all(hex));
        if let Some(digest) = pin.digest.as_ref().filter(|d| !is_digest(d)) {
            return Err(BadPin::Digest(digest.clone()));
        }
        if pin.schema != crate::schema::VERSION {
            return Err(BadPin::Schema(pin.schema));
        }
        Ok(pin)
    }

    /// What to ask a registry for: `reference@digest`, or the reference where there is no digest.
    pub fn pull_reference(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", self.reference),
            None => self.reference.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pins_of_this_tree_are_readable() {
        let pin = Pin::parse(include_str!("../../images/pins.toml")).unwrap();
        assert!(pin.reference.starts_with("ghcr.io/luckypipewrench/pipelock:"));
        assert!(!pin.reference.ends_with(":latest"));
    }

    #[test]
    fn a_pin_is_taken_or_refused_with_the_reason() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let text = |reference: &str, digest: &str, schema: &str| {
            format!("[other]\nx = 1\n[pipelock]\nreference = {reference:?}\ndigest = {digest:?}\nschema = {schema:?}\n")
        };
        let good = Pin::parse(&text("r/p:2.3.0", &digest, "2.3.0")).unwrap();
        assert_eq!(good.pull_reference(), format!("r/p:2.3.0@{digest}"));
        let open = Pin::parse("[pipelock]\nreference = \"r/p:2.3.0\"\nschema = \"2.3.0\"\n").unwrap();
        assert_eq!((open.pull_reference().as_str(), open.digest), ("r/p:2.3.0", None));
        for (text, part) in [
            (text("r/p:2.3.0@sha256:0", &digest, "2.3.0"), "stands apart"),
            (text("", &digest, "2.3.0"), "reference"),
            (text("r/p", "sha256:0a", "2.3.0"), "64"),
            (text("r/p", &digest.to_uppercase(), "2.3.0"), "64"),
            (text("r/p", &digest, "2.4.0"), "schema"),
            ("[pipelock]\nreference = \"r\"\nschema = \"2.3.0\"\nsurprise = 1\n".to_owned(), "could not read"),
            ("x = 1\n".to_owned(), "could not read"),
        ] {
            let error = Pin::parse(&text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
