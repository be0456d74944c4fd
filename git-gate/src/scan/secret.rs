//! Bytes that open a door. A [`Secret`] prints as `[redacted]` and is wiped when it goes; [`Secret::expose`] is the one
//! way in, so that `grep expose` lists every place that touches one.

use zeroize::Zeroizing;

/// A secret's bytes in memory: a known one that no push may hold, or one that a finding was made of.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over; the caller should not keep a copy.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the places that search for them or compare them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}
