//! How random a value looks: what tells a credential from a name or a word. PURE.

/// What a value without any digit lacks.
const NO_DIGIT: f32 = 0.1;

/// Has it at least so many bits of Shannon entropy per byte, and so large a share of changes between lower case, upper
/// case and digits?
pub(super) fn is_random(value: &[u8], entropy_min: f32, mixed_min: f32) -> bool {
    (mixed_min <= 0.0 || mixed(value) >= mixed_min) && (entropy_min <= 0.0 || entropy(value) >= entropy_min)
}

/// Shannon entropy in bits per byte.
pub(super) fn entropy(value: &[u8]) -> f32 {
    let mut counts = [0_u32; 256];
    for byte in value {
        counts[usize::from(*byte)] += 1;
    }
    let total = value.len() as f32;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| *count as f32 / total)
        .map(|share| -share * share.log2())
        .sum()
}

/// Between neighbours that are letters or digits: the share that is not of the same kind. From upper to lower case is no
/// change, else each word of a name would count twice. Random base62 has 0.4, random hexadecimal 0.47, an identifier 0.1
/// to 0.2. Without any digit, which random text seldom is and names often are, it counts less.
fn mixed(value: &[u8]) -> f32 {
    let (mut pairs, mut changes, mut digits) = (0_u32, 0_u32, 0_u32);
    let mut last = Kind::Other;
    for byte in value {
        let kind = Kind::of(*byte);
        digits += u32::from(kind == Kind::Digit);
        if kind != Kind::Other && last != Kind::Other {
            pairs += 1;
            changes += u32::from(kind != last && (last, kind) != (Kind::Upper, Kind::Lower));
        }
        last = kind;
    }
    let share = if pairs == 0 { 0.0 } else { changes as f32 / pairs as f32 };
    if digits == 0 { share - NO_DIGIT } else { share }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Upper,
    Lower,
    Digit,
    Other,
}

impl Kind {
    fn of(byte: u8) -> Self {
        match byte {
            b'A'..=b'Z' => Self::Upper,
            b'a'..=b'z' => Self::Lower,
            b'0'..=b'9' => Self::Digit,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_shannons() {
        for (value, bits) in
            [(&b"aaaa"[..], 0.0), (b"abab", 1.0), (b"abcd", 2.0), (b"0123456789abcdef", 4.0), (b"", 0.0)]
        {
            assert!((entropy(value) - bits).abs() < 1e-6, "{value:?}: {}", entropy(value));
        }
    }

    #[test]
    fn names_are_not_mixed_and_tokens_are() {
        for name in
            ["getAccessTokenFromServer2", "MAX_RETRY_COUNT_10", "sha256_of_the_key", "correct-horse-battery", ""]
        {
            assert!(!is_random(name.as_bytes(), 0.0, 0.22), "{name}");
        }
        for token in ["k3J9xQ2mZ7pL5vR1", "9f86d081884c7d659a2feaa0c55ad015", "a8f3-k2m9-x7q1-z5w4"] {
            assert!(is_random(token.as_bytes(), 0.0, 0.22), "{token}");
        }
    }
}
