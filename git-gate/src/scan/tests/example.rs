//! Made up secrets: `<hex:32>` in a rule's example becomes 32 random hexadecimal digits, the same in each run.

/// Expands all placeholders; another `seed`, other characters.
pub(super) fn expand(example: &str, seed: u64) -> String {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut text = String::new();
    let mut rest = example;
    while let Some((before, after)) = rest.split_once('<') {
        text.push_str(before);
        match after.split_once('>').and_then(|(name, rest)| Some((placeholder(name, &mut random)?, rest))) {
            Some((made, left)) => {
                text.push_str(&made);
                rest = left;
            }
            None => {
                text.push('<');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

fn placeholder(name: &str, random: &mut Random) -> Option<String> {
    if name == "uuid" {
        let parts = [8, 4, 4, 4, 12].map(|length| random.text(b"0123456789abcdef", length));
        return Some(parts.join("-"));
    }
    let (set, length) = name.split_once(':')?;
    const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    const LOWER: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
    const DIGIT: &[u8] = b"0123456789";
    let set = match set {
        "alnum" => [UPPER, LOWER, DIGIT].concat(),
        "alpha" => [UPPER, LOWER].concat(),
        "upper" => UPPER.to_vec(),
        "lower" => LOWER.to_vec(),
        "digit" => DIGIT.to_vec(),
        "upnum" => [UPPER, DIGIT].concat(),
        "lownum" => [LOWER, DIGIT].concat(),
        "hex" => b"0123456789abcdef".to_vec(),
        "HEX" => b"0123456789ABCDEF".to_vec(),
        "b32" => [UPPER, b"234567"].concat(),
        "b64" => [UPPER, LOWER, DIGIT, b"+/"].concat(),
        "b64url" => [UPPER, LOWER, DIGIT, b"-_"].concat(),
        "base58" => b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz".to_vec(),
        "bech32" => b"023456789acdefghjklmnpqrstuvwxyz".to_vec(),
        "BECH32" => b"023456789ACDEFGHJKLMNPQRSTUVWXYZ".to_vec(),
        _ => return None,
    };
    Some(random.text(&set, length.parse().ok()?))
}

/// xorshift64*: the same in each run, and random enough for an example.
struct Random(u64);

impl Random {
    /// With a digit in it if it is long and the set has any, as nearly all real ones are.
    fn text(&mut self, set: &[u8], length: usize) -> String {
        let digits = set.iter().any(u8::is_ascii_digit) && length >= 16;
        loop {
            let text = self.any(set, length);
            if !digits || text.bytes().filter(u8::is_ascii_digit).count() >= 2 {
                return text;
            }
        }
    }

    /// No character twice in a row, and a letter or digit at both ends.
    fn any(&mut self, set: &[u8], length: usize) -> String {
        let mut text = String::new();
        while text.len() < length {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let random = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
            let next = char::from(set[usize::try_from(random).unwrap() % set.len()]);
            let edge = text.is_empty() || text.len() + 1 == length;
            if !text.ends_with(next) && (next.is_ascii_alphanumeric() || !edge) {
                text.push(next);
            }
        }
        text
    }
}
