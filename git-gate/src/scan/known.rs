//! The forms in which a known secret can stand in a text: as it is, in base64 at each of three offsets, in hexadecimal,
//! percent-encoded, escaped as JSON, in UTF-16, and backwards. PURE.
//!
//! The decoders see most of these too; searched for as they are, they need no depth, no clean edges and no heuristics.

use super::{Decoder, ScannerError, Secret};
use zeroize::Zeroizing;

/// Shorter than this, a secret would be found in any text.
pub(super) const SECRET_BYTES_MIN: usize = 6;
/// Shorter than this, its encodings would be.
const ENCODED_FROM_BYTES: usize = 8;
/// Of one; a longer one is searched for by so many of its first bytes.
const SECRET_BYTES_MAX: usize = 64 << 10;
const SECRETS_MAX: usize = 1000;
/// What the keyword search looks for; the rest is compared.
const KEYWORD_BYTES: usize = 8;

/// One way to write one secret.
pub(super) struct Form {
    bytes: Zeroizing<Vec<u8>>,
    any_case: bool,
    /// What it hides in, if in anything.
    pub(super) via: Option<Decoder>,
    /// The secret itself.
    pub(super) secret: Secret,
}

impl Form {
    /// Its first bytes.
    pub(super) fn keyword(&self) -> &[u8] {
        self.bytes.get(..KEYWORD_BYTES).unwrap_or(&self.bytes)
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Does all of it stand at this place?
    pub(super) fn is_at(&self, text: &[u8], at: usize) -> bool {
        let here = text.get(at..).and_then(|rest| rest.get(..self.bytes.len()));
        here.is_some_and(|here| {
            if self.any_case { here.eq_ignore_ascii_case(&self.bytes) } else { here == self.bytes.as_slice() }
        })
    }
}

/// All forms of all secrets.
pub(super) fn forms(secrets: &[Secret]) -> Result<Vec<Form>, ScannerError> {
    if secrets.len() > SECRETS_MAX {
        return Err(ScannerError::TooManyKnown { max: SECRETS_MAX });
    }
    let mut forms = Vec::new();
    for (index, secret) in secrets.iter().enumerate() {
        let bytes = secret.expose();
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(ScannerError::KnownTooShort { index, min: SECRET_BYTES_MIN });
        }
        let bytes = bytes.get(..SECRET_BYTES_MAX).unwrap_or(bytes);
        let first = forms.len();
        for (written, any_case, via) in written(bytes) {
            let written = Zeroizing::new(written);
            if !forms.iter().skip(first).any(|form: &Form| *form.bytes == *written) {
                forms.push(Form { bytes: written, any_case, via, secret: secret.clone() });
            }
        }
    }
    Ok(forms)
}

fn written(secret: &[u8]) -> Vec<(Vec<u8>, bool, Option<Decoder>)> {
    let mut all = vec![(secret.to_vec(), false, None)];
    all.push((json(secret), false, Some(Decoder::Escapes)));
    if secret.len() < ENCODED_FROM_BYTES {
        return all;
    }
    all.push((secret.iter().rev().copied().collect(), false, Some(Decoder::Reversed)));
    for digits in [
        *b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
        *b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
    ] {
        all.extend((0..3).map(|offset| (base64(secret, offset, &digits), false, Some(Decoder::Base64))));
    }
    all.push((hex(secret), true, Some(Decoder::Hex)));
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    for plain in [is_unreserved as fn(u8) -> bool, |_| false] {
        for digits in [*b"0123456789ABCDEF", *b"0123456789abcdef"] {
            all.push((percent(secret, plain, &digits), false, Some(Decoder::Percent)));
        }
    }
    // One zero byte less at the end than UTF-16 has, so that both byte orders are found from the first byte that is not 0.
    let wide: Vec<u8> = secret.iter().flat_map(|byte| [*byte, 0]).collect();
    all.push((wide[..wide.len() - 1].to_vec(), false, Some(Decoder::Utf16)));
    all
}

/// The digits that depend on the secret alone if it begins at this offset of a group of three bytes.
fn base64(secret: &[u8], offset: usize, digits: &[u8; 64]) -> Vec<u8> {
    let bits = secret.len() * 8;
    let first = (offset * 8).div_ceil(6) * 6 - offset * 8;
    (first..)
        .step_by(6)
        .take_while(|from| from + 6 <= bits)
        .map(|from| {
            let bit = |at: usize| usize::from(secret[at / 8] >> (7 - at % 8) & 1);
            digits[(from..from + 6).fold(0, |digit, at| digit << 1 | bit(at))]
        })
        .collect()
}

fn hex(secret: &[u8]) -> Vec<u8> {
    secret.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

fn percent(secret: &[u8], plain: fn(u8) -> bool, digits: &[u8; 16]) -> Vec<u8> {
    let mut text = Vec::with_capacity(secret.len() * 3);
    for byte in secret {
        match plain(*byte) {
            true => text.push(*byte),
            false => text.extend([b'%', digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]),
        }
    }
    text
}

fn json(secret: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(secret.len());
    for byte in secret {
        match byte {
            b'"' | b'\\' => text.extend([b'\\', *byte]),
            b'\n' => text.extend(b"\\n"),
            b'\r' => text.extend(b"\\r"),
            b'\t' => text.extend(b"\\t"),
            _ => text.push(*byte),
        }
    }
    text
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Form([redacted])")
    }
}
