//! Finds a secret of which only the hash is known: cuts text into the words that a credential may be, undoes the
//! encodings it may hide in, and compares hashes. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Shorter words are no credentials.
const WORD_BYTES_MIN: usize = 8;
/// Longer ones neither; they are still decoded.
const WORD_BYTES_MAX: usize = 4096;
/// How often encodings are undone inside one another.
const DEPTH_MAX: u8 = 2;

/// Hunts for one hash and remembers what it has looked at.
#[derive(Debug)]
pub struct Hunt {
    wanted: String,
    /// Hash of a word -> the least depth it was met at; deeper down less of it is undone.
    seen: HashMap<[u8; 32], u8>,
}

impl Hunt {
    /// For the hex SHA-256 of a credential.
    pub fn new(sha256_hex: &str) -> Self {
        Self { wanted: sha256_hex.to_ascii_lowercase(), seen: HashMap::new() }
    }

    /// How many different words were looked at.
    pub fn words(&self) -> usize {
        self.seen.len()
    }

    /// Is the credential in these bytes, plain or encoded?
    pub fn finds(&mut self, bytes: &[u8]) -> bool {
        self.look(bytes, 0)
    }

    fn look(&mut self, bytes: &[u8], depth: u8) -> bool {
        // First words with their punctuation, then what stands between it.
        let rough = bytes.split(|byte| is_edge(*byte));
        let fine = bytes.split(|byte| is_edge(*byte) || is_joint(*byte));
        let found = rough.chain(fine).any(|word| self.is_it(word, depth));
        found || (depth < DEPTH_MAX && percent_decoded(bytes).is_some_and(|plain| self.look(&plain, depth + 1)))
    }

    fn is_it(&mut self, word: &[u8], depth: u8) -> bool {
        if word.len() < WORD_BYTES_MIN {
            return false;
        }
        let hash: [u8; 32] = Sha256::digest(word).into();
        if self.seen.get(&hash).is_some_and(|known| *known <= depth) {
            return false;
        }
        self.seen.insert(hash, depth);
        if word.len() <= WORD_BYTES_MAX && hex(&hash) == self.wanted {
            return true;
        }
        depth < DEPTH_MAX && decodings(word).iter().any(|plain| self.look(plain, depth + 1))
    }
}

fn is_edge(byte: u8) -> bool {
    byte <= b' ' || byte >= 0x7f || b"\"'`,;<>(){}[]\\".contains(&byte)
}

fn is_joint(byte: u8) -> bool {
    b"=:&?/@|#".contains(&byte)
}

fn decodings(word: &[u8]) -> Vec<Vec<u8>> {
    let bare: Vec<u8> = word.iter().copied().filter(|byte| *byte != b'=').collect();
    let mut plain = Vec::new();
    plain.extend(STANDARD_NO_PAD.decode(&bare).ok());
    plain.extend(URL_SAFE_NO_PAD.decode(&bare).ok());
    plain.extend(unhex(word));
    plain.retain(|bytes| bytes.len() >= WORD_BYTES_MIN);
    plain
}

fn unhex(word: &[u8]) -> Option<Vec<u8>> {
    if !word.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    word.chunks(2).map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()).collect()
}

/// `None` where there is nothing to decode.
fn percent_decoded(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(bytes.len());
    let (mut at, mut decoded) = (0, false);
    while let Some(byte) = bytes.get(at) {
        let escaped = (*byte == b'%').then(|| bytes.get(at + 1..at + 3).and_then(unhex)).flatten();
        if let Some(escaped) = escaped {
            plain.extend(escaped);
            decoded = true;
            at += 3;
        } else {
            plain.push(*byte);
            at += 1;
        }
    }
    decoded.then_some(plain)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{Hunt, hex};
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use sha2::{Digest, Sha256};

    const SECRET: &str = "world-canary-0123456789abcdef";

    fn hunt() -> Hunt {
        Hunt::new(&hex(&Sha256::digest(SECRET)))
    }

    #[test]
    fn the_credential_is_found_however_it_is_written() {
        let forms = [
            SECRET.to_owned(),
            format!("TOKEN={SECRET}\0HOME=/root\0"),
            format!("{{\"authorization\":\"Bearer {SECRET}\"}}"),
            format!("https://user:{SECRET}@host.example/path"),
            format!("curl\0-H\0Authorization: token {SECRET}\0"),
            STANDARD.encode(SECRET),
            STANDARD.encode(format!("Bearer {SECRET}")),
            format!("Basic {}", STANDARD.encode(format!("user:{SECRET}"))),
            URL_SAFE_NO_PAD.encode(SECRET),
            STANDARD.encode(STANDARD.encode(SECRET)),
            hex(SECRET.as_bytes()),
            SECRET.bytes().map(|byte| format!("%{byte:02X}")).collect(),
            SECRET.replace('-', "%2d"),
        ];
        for form in forms {
            assert!(hunt().finds(form.as_bytes()), "{form}");
        }
    }

    #[test]
    fn its_neighbours_are_not_it() {
        let masked = SECRET.replace("canary", "******");
        for form in [&SECRET[1..], &format!("{SECRET}x"), &masked, "", "%", "%4", "=", &hex(&Sha256::digest(SECRET))] {
            assert!(!hunt().finds(form.as_bytes()), "{form}");
        }
    }
}
