//! What a scan found, and the proof that it found nothing. A finding is told without one byte of the secret.

use super::{Refused, Secret, Source};
use sha2::{Digest, Sha256};

/// A way in which text was hidden; outermost first in [`Finding::via`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Decoder {
    /// UTF-16, either byte order.
    Utf16,
    /// UTF-32, either byte order.
    Utf32,
    /// Base64, both alphabets, also wrapped over lines.
    Base64,
    /// Hexadecimal.
    Hex,
    /// Percent-encoding (RFC 3986).
    Percent,
    /// Escapes of string literals: `\u0041`, `\x41`, `\101`, `&#65;`.
    Escapes,
    /// Backwards; for known secrets alone.
    Reversed,
    /// gzip (RFC 1952).
    Gzip,
    /// zlib (RFC 1950).
    Zlib,
    /// An entry of a zip archive.
    Zip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Decoder {
    /// Does it hold compressed data, so that the object has no lines?
    pub fn is_container(self) -> bool {
        match self {
            Self::Gzip | Self::Zlib | Self::Zip | Self::Bzip2 | Self::Xz | Self::Zstd => true,
            Self::Utf16 | Self::Utf32 | Self::Base64 | Self::Hex | Self::Percent | Self::Escapes | Self::Reversed => {
                false
            }
        }
    }

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Utf16 => "UTF-16",
            Self::Utf32 => "UTF-32",
            Self::Base64 => "base64",
            Self::Hex => "hex",
            Self::Percent => "percent-encoding",
            Self::Escapes => "escapes",
            Self::Reversed => "reverse",
            Self::Gzip => "gzip",
            Self::Zlib => "zlib",
            Self::Zip => "zip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }
}

/// A possible secret in a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where it is.
    pub source: Source,
    /// The id of the rule that found it.
    pub rule: String,
    /// What the rule finds, for people.
    pub description: String,
    /// The line in the object, from 1; 0 where the object has no lines (a compressed one).
    pub line: u64,
    /// The byte in that line, from 1; 0 where the object has no lines.
    pub column: u64,
    /// The byte in the object, from 0: of the secret itself, or of the encoded text that holds it.
    pub offset: u64,
    /// The secret's length in bytes, decoded.
    pub length: usize,
    /// How it was hidden, outermost first; empty if it is in the open.
    pub via: Vec<Decoder>,
    /// The public beginning of such secrets (`AKIA`), from the rule and not from the push; may be empty.
    pub(super) prefix: String,
    pub(super) secret: Secret,
}

impl Finding {
    /// What names this secret at this place for the operator's exceptions: SHA-256 over rule, path and secret, each with
    /// its length before it. `path` is that of the object in the repository; `None` where there is none (a ref name, or a
    /// blob that no tree of the push names), which is not the same as an empty one.
    pub fn fingerprint(&self, path: Option<&[u8]>) -> Fingerprint {
        let mut hash = Sha256::new_with_prefix(b"bottle git-gate fingerprint 1\0");
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(self.rule.as_bytes());
        part(&[u8::from(path.is_some())]);
        part(path.unwrap_or_default());
        part(self.secret.expose());
        Fingerprint(hash.finalize().into())
    }

    /// Does this text hold the same secret in the open? For the look at what the upstream has already.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        let secret = self.secret.expose();
        !secret.is_empty() && aho_corasick::AhoCorasick::new([secret]).is_ok_and(|search| search.is_match(bytes))
    }

    /// The secret as it may be shown: the rule's public prefix, and how long it is.
    pub fn preview(&self) -> String {
        format!("{}…({} chars)", self.prefix, self.length)
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ", self.rule)?;
        match self.line {
            0 => write!(f, "byte {}", self.offset)?,
            line => write!(f, "line {line}, column {}", self.column)?,
        }
        if !self.via.is_empty() {
            let names: Vec<&str> = self.via.iter().map(|decoder| decoder.name()).collect();
            write!(f, " (in {})", names.join(" in "))?;
        }
        write!(f, "   {}", self.preview())
    }
}

/// The name of one secret at one place. Shows 12 hexadecimal digits; what is stored and compared is all of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// All 64 hexadecimal digits.
    pub fn full(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The bytes, to compare with what the operator wrote.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads all 64 hexadecimal digits; a shorter one is no fingerprint, because it could be ground to match.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
        }
        Some(Self(bytes))
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// The proof that everything that was given to one scan was scanned to its end and holds no finding that the operator did
/// not except. Only this module makes one.
#[derive(Debug)]
pub struct Clean {
    objects: u64,
    bytes: u64,
}

impl Clean {
    pub(super) fn new(objects: u64, bytes: u64) -> Self {
        Self { objects, bytes }
    }

    /// How many texts were scanned, so that a caller can compare with what it meant to give.
    pub fn objects(&self) -> u64 {
        self.objects
    }

    /// How many bytes were given.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Why there is no [`Clean`].
#[derive(Debug)]
pub enum Unclean {
    /// There are findings.
    Findings(Findings),
    /// The scan could not come to its end.
    Refused(Refused),
}

/// What was found, at least one; in the order of objects given and of places in them.
#[derive(Debug)]
pub struct Findings {
    pub(super) found: Vec<Finding>,
    pub(super) clean: Clean,
}

impl Findings {
    /// Each finding.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Finding> {
        self.found.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Never: without a finding there is a [`Clean`].
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Takes out the findings of which `excused` says yes: excepted by the operator, or upstream already. With none left
    /// the push is clean.
    pub fn excuse(self, mut excused: impl FnMut(&Finding) -> bool) -> Result<Clean, Self> {
        let Self { mut found, clean } = self;
        found.retain(|finding| !excused(finding));
        if found.is_empty() { Ok(clean) } else { Err(Self { found, clean }) }
    }
}

/// A source as people see it; names are escaped, since the agent chose them.
impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Blob(id) => write!(f, "blob {id}"),
            Self::Commit(id) => write!(f, "commit {id}"),
            Self::Tag(id) => write!(f, "tag {id}"),
            Self::TreeName(id) => write!(f, "a file name in tree {id}"),
            Self::RefName(_) => f.write_str("a ref name"),
            Self::PushOption(index) => write!(f, "push option {}", index + 1),
        }
    }
}
