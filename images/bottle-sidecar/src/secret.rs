//! Bytes that open a door. A [`Secret`] prints as `[redacted]`, is never serialised by accident, and is wiped when it
//! goes. [`Secret::expose`] is the one way in, so that `grep expose` lists every place that touches one.

use zeroize::Zeroizing;

/// A credential's bytes in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the bytes over; the caller should not keep a copy.
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The bytes, for the one place that needs them.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}
