//! Takes an injected credential out of what comes back. PURE, streaming.
//!
//! Known forms: plain, base64 (both alphabets, at each of the three offsets it can have inside a longer text),
//! percent-encoded, hexadecimal (both cases), and escaped as JSON. Each is replaced by as many fill characters, so that
//! a Content-Length stays right. A form that begins in one chunk and ends in another is found: what could be the
//! beginning of one is held back, and nothing else, so that an event of a stream never waits for the next.
//!
//! A secret shorter than [`ENCODED_FROM_BYTES`] is masked in its plain form alone: its encodings are too short to be told from
//! other text. It must never change text that has no form of the secret in it. It does not see through compression
//! (which is refused elsewhere) or transformations outside this list.

mod sieve;
#[cfg(test)]
mod tests;

use crate::Secret;
use aho_corasick::{AhoCorasick, MatchKind};
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use sieve::Sieve;
use std::fmt::Write as _;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Secrets shorter than this are masked in their plain form alone.
pub const ENCODED_FROM_BYTES: usize = 8;

/// What a form may be replaced by: the first that is in no form itself, else masking could make a new one.
const FILLS: &[u8] = b"*#_~-.xX";

/// Every form of a credential, ready for search.
pub struct Forms {
    search: AhoCorasick,
    sieve: Option<Sieve>,
    forms: Vec<Zeroizing<Vec<u8>>>,
    begins: [bool; 256],
    /// Bytes that are in any form.
    has: [bool; 256],
    longest: usize,
    fill: u8,
}

/// Why a credential cannot be masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// It has every character that could stand in for it.
    #[error("the credential has every character that could stand in for it")]
    NoFill,
    /// The search could not be built.
    #[error("the credential is too long to search for")]
    Search,
}

impl std::fmt::Debug for Forms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Forms([redacted])")
    }
}

impl Forms {
    /// All forms of `secrets`, which are parts of one credential (a password alone and with its user).
    pub fn new(secrets: &[Secret]) -> Result<Self, MaskError> {
        let mut forms: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        for secret in secrets {
            forms_of(secret.expose(), &mut forms);
        }
        forms.sort_by(|one, other| one.as_slice().cmp(other.as_slice()));
        forms.dedup();
        let fill = FILLS.iter().copied().find(|fill| forms.iter().all(|form| !form.contains(fill)));
        let mut begins = [false; 256];
        for first in forms.iter().filter_map(|form| form.first()) {
            begins[usize::from(*first)] = true;
        }
        let mut has = [false; 256];
        for byte in forms.iter().flat_map(|form| form.iter()) {
            has[usize::from(*byte)] = true;
        }
        Ok(Self {
            search: AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostFirst)
                .build(forms.iter().map(|form| form.as_slice()))
                .map_err(|_| MaskError::Search)?,
            sieve: Sieve::new(forms.iter().map(|form| form.as_slice())),
            longest: forms.iter().map(|form| form.len()).max().unwrap_or(0),
            forms,
            begins,
            has,
            fill: fill.ok_or(MaskError::NoFill)?,
        })
    }

    /// Is there a form in `text`?
    pub fn is_in(&self, text: &[u8]) -> bool {
        let Some(sieve) = &self.sieve else { return self.search.is_match(text) };
        let mut from = 0;
        while let Some(stretch) = sieve.stretch(text, from) {
            if self.search.is_match(&text[stretch.clone()]) {
                return true;
            }
            from = stretch.end;
        }
        false
    }

    /// `text`, whole, without any form.
    pub fn masked(&self, text: &[u8]) -> Vec<u8> {
        let mut text = text.to_vec();
        self.mask(&mut text, 0);
        text
    }

    /// Masks every form, those that overlap included; says where the last of those ends that begin before `until`.
    fn mask(&self, text: &mut [u8], until: usize) -> usize {
        if !self.is_in(text) {
            return 0;
        }
        let mut covered: Vec<(usize, usize)> = Vec::new();
        for at in 0..text.len() {
            if !self.begins[usize::from(text[at])] {
                continue;
            }
            let longest = self.forms.iter().filter(|form| text[at..].starts_with(form)).map(|form| form.len()).max();
            covered.extend(longest.map(|length| (at, at + length)));
        }
        for (from, to) in &covered {
            text[*from..*to].fill(self.fill);
        }
        covered.iter().filter(|(from, _)| *from < until).map(|(_, to)| *to).max().unwrap_or(0)
    }

    /// Where the longest suffix begins that more bytes could make a form of.
    fn hold_from(&self, text: &[u8]) -> usize {
        let earliest = text.len().saturating_sub(self.longest.saturating_sub(1));
        // Behind the last byte that is in no form: mostly there is nothing, and the end of an event is such a byte.
        let foreign = text[earliest..].iter().rposition(|byte| !self.has[usize::from(*byte)]);
        let earliest = foreign.map_or(earliest, |at| earliest + at + 1);
        (earliest..text.len())
            .find(|&at| {
                self.begins[usize::from(text[at])]
                    && self.forms.iter().any(|form| form.len() > text.len() - at && form.starts_with(&text[at..]))
            })
            .unwrap_or(text.len())
    }
}

/// The state of masking one body.
#[derive(Debug)]
pub struct Mask {
    forms: Arc<Forms>,
    /// Bytes held back, as they came.
    held: Vec<u8>,
    /// How many of them, from the front, belong to a form that has ended already.
    held_covered: usize,
}

impl Mask {
    /// For a new body.
    pub fn new(forms: Arc<Forms>) -> Self {
        Self { forms, held: Vec::new(), held_covered: 0 }
    }

    /// How many bytes are held back.
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Takes a chunk, gives what can be sent on. Without a form in it that is the chunk itself, not a copy.
    pub fn push(&mut self, chunk: Bytes) -> Bytes {
        if self.held.is_empty() && !self.forms.is_in(&chunk) {
            let hold_from = self.forms.hold_from(&chunk);
            self.held.extend_from_slice(&chunk[hold_from..]);
            return chunk.slice(..hold_from);
        }
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(&chunk);
        let hold_from = self.forms.hold_from(&text);
        self.held.extend_from_slice(&text[hold_from..]);
        // A form that begins in what is held back is found once more, and before it may be bytes that belong to none.
        let covered_to = self.forms.mask(&mut text, hold_from);
        text[..self.held_covered].fill(self.forms.fill);
        self.held_covered = self.held_covered.max(covered_to).saturating_sub(hold_from);
        text.truncate(hold_from);
        Bytes::from(text)
    }

    /// The body has ended: what was held back.
    pub fn finish(&mut self) -> Bytes {
        let mut text = std::mem::take(&mut self.held);
        self.forms.mask(&mut text, 0);
        text[..self.held_covered].fill(self.forms.fill);
        self.held_covered = 0;
        Bytes::from(text)
    }
}

fn forms_of(secret: &str, forms: &mut Vec<Zeroizing<Vec<u8>>>) {
    let mut add = |form: String| {
        if !form.is_empty() {
            forms.push(Zeroizing::new(form.into_bytes()));
        }
    };
    add(secret.to_owned());
    if secret.len() < ENCODED_FROM_BYTES {
        return;
    }
    for offset in 0..3 {
        add(base64_inside(&STANDARD_NO_PAD, secret, offset));
        add(base64_inside(&URL_SAFE_NO_PAD, secret, offset));
    }
    let hex = |each: fn(&mut String, u8)| {
        secret.bytes().fold(String::new(), |mut out, byte| {
            each(&mut out, byte);
            out
        })
    };
    add(hex(|out, byte| push_format(out, format_args!("{byte:02x}"))));
    add(hex(|out, byte| push_format(out, format_args!("{byte:02X}"))));
    add(hex(|out, byte| push_format(out, format_args!("%{byte:02x}"))));
    add(hex(|out, byte| push_format(out, format_args!("%{byte:02X}"))));
    for keep in [&b"-._~"[..], b"-._~/", b"-._~:", b"-._~!*'()", b"-._~!$&'()*+,;=:@/"] {
        for upper in [true, false] {
            add(percent_encoded(secret, keep, upper));
        }
    }
    for (slash, html) in [(false, false), (true, false), (false, true)] {
        add(json_escaped(secret, slash, html));
    }
}

fn push_format(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String cannot fail");
}

/// What of the base64 of a longer text depends on `secret` alone, when `offset` (mod 3) bytes stand before it.
fn base64_inside(engine: &impl base64::Engine, secret: &str, offset: usize) -> String {
    let mut padded = Zeroizing::new(vec![0; offset]);
    padded.extend_from_slice(secret.as_bytes());
    let encoded = engine.encode(&*padded);
    let skip = (offset * 8).div_ceil(6);
    let whole = padded.len() * 8 / 6;
    encoded.get(skip..whole).unwrap_or("").to_owned()
}

fn percent_encoded(secret: &str, keep: &[u8], upper: bool) -> String {
    secret.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            _ if byte.is_ascii_alphanumeric() || keep.contains(&byte) => out.push(char::from(byte)),
            _ if upper => push_format(&mut out, format_args!("%{byte:02X}")),
            _ => push_format(&mut out, format_args!("%{byte:02x}")),
        }
        out
    })
}

/// `slash`: as some encoders write `/`. `html`: as encoders do that are safe inside HTML.
fn json_escaped(secret: &str, slash: bool, html: bool) -> String {
    secret.chars().fold(String::new(), |mut out, char| {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '/' if slash => out.push_str("\\/"),
            '<' | '>' | '&' if html => push_format(&mut out, format_args!("\\u{:04x}", u32::from(char))),
            _ => out.push(char),
        }
        out
    })
}
