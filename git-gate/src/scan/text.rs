//! Text that is written as other text: base64, hexadecimal, percent-encoding, escapes of string literals, UTF-16 and
//! UTF-32. Found by shape, decoded into one buffer that is then searched like any text. PURE; the output is never longer
//! than the input.

use super::Decoder;
use super::container::Container;
use memchr::{memchr, memchr3_iter, memrchr};

/// A shorter run of base64 digits is decoded into less than any secret.
const BASE64_RUN_MIN: usize = 24;
/// A wrapped line of base64 is at least so long, else the next line is another text.
const BASE64_LINE_MIN: usize = 40;
/// How long a path before base64 may be.
const GLUED_MAX: usize = 48;
const HEX_RUN_MIN: usize = 32;
/// What a decoded text must have in one piece to be worth a search.
const TEXT_RUN_MIN: usize = 12;
const WIDE_RUN_MIN: usize = 8;
/// How far around an escape its line is decoded with it.
const ESCAPE_CONTEXT: usize = 512;

/// What was decoded from one text.
#[derive(Default)]
pub(super) struct Decoded {
    /// All pieces, each with a line feed after it.
    pub(super) bytes: Vec<u8>,
    /// Where they come from, in order of `start`.
    pub(super) pieces: Vec<Piece>,
}

/// One decoded piece.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    /// Where it begins in [`Decoded::bytes`].
    pub(super) start: usize,
    /// Where the text that it was decoded from begins.
    pub(super) from: usize,
    pub(super) via: Decoder,
}

impl Decoded {
    /// Decodes all that can be in `text`. `cut` says that `text` begins in the middle of something, so that a run of digits
    /// at its beginning may begin at any of its digits.
    pub(super) fn of(text: &[u8], cut: bool) -> Self {
        let mut decoded = Self::default();
        decoded.digits(text, cut);
        decoded.escapes(text);
        if memchr(0, text).is_some() {
            decoded.wide(text);
        }
        decoded
    }

    /// The piece that holds this place of [`Decoded::bytes`].
    pub(super) fn piece(&self, at: usize) -> Option<&Piece> {
        self.pieces.partition_point(|piece| piece.start <= at).checked_sub(1).and_then(|index| self.pieces.get(index))
    }

    fn close(&mut self, start: usize, from: usize, via: Decoder) {
        self.pieces.push(Piece { start, from, via });
        self.bytes.push(b'\n');
    }

    /// Runs of base64 and hexadecimal digits.
    fn digits(&mut self, text: &[u8], cut: bool) {
        let is_digit = |at: usize| CLASS[usize::from(text[at])] & BASE64 != 0;
        let mut from = 0;
        // Only where a run of the least length could end is a digit looked for, so most text is stepped over.
        while from + BASE64_RUN_MIN <= text.len() {
            let mut probe = from + BASE64_RUN_MIN;
            while probe > from && is_digit(probe - 1) {
                probe -= 1;
            }
            if probe > from {
                from = probe;
                continue;
            }
            let end = from + BASE64_RUN_MIN + run(&text[from + BASE64_RUN_MIN..], BASE64);
            let all = wrapped(text, end, end - from);
            self.base64(text, from, all, cut && from == 0);
            self.hex(text, from, end);
            from = all.max(end);
        }
    }

    fn base64(&mut self, text: &[u8], from: usize, end: usize, cut: bool) {
        // The beginning may be glued to another word by a slash, or cut off; then the groups of four begin elsewhere.
        let phases = if cut { 4 } else { 1 };
        for phase in 0..phases {
            self.base64_from(text, from + phase, end);
        }
        // The first beginning after a delimiter for each of the other alignments.
        let mut begun = [false; 4];
        for (at, byte) in text[from..end].iter().take(GLUED_MAX).enumerate() {
            let alignment = (at + 1) % 4;
            if matches!(byte, b'/' | b'-' | b'_') && alignment != 0 && !std::mem::replace(&mut begun[alignment], true) {
                self.base64_from(text, from + at + 1, end);
            }
        }
    }

    fn base64_from(&mut self, text: &[u8], from: usize, end: usize) {
        let start = self.bytes.len();
        let (mut bits, mut held) = (0_u32, 0_u32);
        for byte in &text[from..end] {
            let value = VALUE[usize::from(*byte)];
            if value >= 64 {
                continue;
            }
            bits = bits << 6 | u32::from(value);
            held += 6;
            if held >= 8 {
                held -= 8;
                self.bytes.push((bits >> held) as u8);
            }
        }
        self.keep(start, from, Decoder::Base64);
    }

    fn hex(&mut self, text: &[u8], from: usize, end: usize) {
        let mut at = from;
        while at + HEX_RUN_MIN <= end {
            let length = run(&text[at..end], HEX);
            if length < HEX_RUN_MIN {
                at += length + 1;
                continue;
            }
            // The first digit may be of something else.
            for skip in 0..2 {
                let start = self.bytes.len();
                let pairs = text[at + skip..at + length].chunks_exact(2);
                self.bytes.extend(pairs.map(|pair| hex_value(pair[0]) << 4 | hex_value(pair[1])));
                self.keep(start, at + skip, Decoder::Hex);
            }
            at += length + 1;
        }
    }

    /// Keeps what was decoded since `start` if it may be text or compressed data.
    fn keep(&mut self, start: usize, from: usize, via: Decoder) {
        if is_worth(&self.bytes[start..]) {
            self.close(start, from, via);
        } else {
            self.bytes.truncate(start);
        }
    }

    /// Lines with percent-encoding or escapes in them, as a whole, so that a rule sees name and value together.
    fn escapes(&mut self, text: &[u8]) {
        let (mut percent_until, mut escapes_until) = (0, 0);
        for at in memchr3_iter(b'%', b'\\', b'&', text) {
            let (until, via, step) = match text[at] {
                b'%' => (&mut percent_until, Decoder::Percent, percent as Step),
                _ => (&mut escapes_until, Decoder::Escapes, escape as Step),
            };
            if at < *until || step(&text[at..]).is_none() || is_plain_escape(&text[at..]) {
                continue;
            }
            let earliest = at.saturating_sub(ESCAPE_CONTEXT).max(*until);
            let from = memrchr(b'\n', &text[earliest..at]).map_or(earliest, |newline| earliest + newline + 1);
            let start = self.bytes.len();
            *until = unescape(text, from, at, step, &mut self.bytes);
            self.close(start, from, via);
        }
    }

    /// ASCII text in units of two or four bytes, either byte order.
    fn wide(&mut self, text: &[u8]) {
        let mut at = 0;
        while let Some(zero) = memchr(0, &text[at..]).map(|found| at + found) {
            let Some(first) = zero.checked_sub(1).filter(|first| *first >= at && is_text(text[*first])) else {
                at = zero + 1;
                continue;
            };
            at = zero + 1;
            for (unit, via) in [(2, Decoder::Utf16), (4, Decoder::Utf32)] {
                let length = wide_run(&text[first..], unit);
                if length >= WIDE_RUN_MIN {
                    let start = self.bytes.len();
                    self.bytes.extend(text[first..].iter().step_by(unit).take(length));
                    self.close(start, first, via);
                    at = first + (length - 1) * unit + 1;
                    break;
                }
            }
        }
    }
}

/// What one escape stands for, and its length.
type Step = fn(&[u8]) -> Option<(char, usize)>;

/// Decodes from `from` to the end of the line, or until no escape was seen for a while; gives where it ended.
fn unescape(text: &[u8], from: usize, first: usize, step: Step, into: &mut Vec<u8>) -> usize {
    let (mut at, mut last) = (from, first);
    while let Some(&byte) = text.get(at) {
        if byte == b'\n' || at > last + ESCAPE_CONTEXT {
            break;
        }
        match step(&text[at..]) {
            Some((character, length)) => {
                // A percent escape is a byte; the others are characters. Secrets are ASCII, so Latin-1 will do.
                match u8::try_from(u32::from(character)) {
                    Ok(byte) => into.push(byte),
                    Err(_) => into.extend(character.encode_utf8(&mut [0; 4]).as_bytes()),
                }
                if !is_plain_escape(&text[at..]) {
                    last = at;
                }
                at += length;
            }
            None => {
                into.push(byte);
                at += 1;
            }
        }
    }
    at
}

fn percent(text: &[u8]) -> Option<(char, usize)> {
    match *text {
        [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
            Some((char::from(hex_value(high) << 4 | hex_value(low)), 3))
        }
        _ => None,
    }
}

/// Escapes that every source file is full of and that no token needs: alone they are no reason to decode a line.
fn is_plain_escape(text: &[u8]) -> bool {
    matches!(*text, [b'\\', b'n' | b't' | b'r' | b'"' | b'\'' | b'\\', ..])
}

fn escape(text: &[u8]) -> Option<(char, usize)> {
    let hex = |digits: &[u8]| {
        digits.iter().try_fold(0_u32, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
    };
    match *text {
        [b'\\', b'n', ..] => Some(('\n', 2)),
        [b'\\', b'r', ..] => Some(('\r', 2)),
        [b'\\', b't', ..] => Some(('\t', 2)),
        [b'\\', plain @ (b'/' | b'"' | b'\'' | b'\\'), ..] => Some((char::from(plain), 2)),
        [b'\\', b'u', b'{', ..] => {
            let digits = text[3..].iter().take(6).take_while(|byte| byte.is_ascii_hexdigit()).count();
            (text.get(3 + digits) == Some(&b'}')).then_some(())?;
            Some((char::from_u32(hex(&text[3..3 + digits])?)?, 4 + digits))
        }
        [b'\\', b'u', ..] => Some((char::from_u32(hex(text.get(2..6)?)?)?, 6)),
        [b'\\', b'U', ..] => Some((char::from_u32(hex(text.get(2..10)?)?)?, 10)),
        [b'\\', b'x', ..] => Some((char::from_u32(hex(text.get(2..4)?)?)?, 4)),
        [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
            Some((char::from((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0')), 4))
        }
        [b'&', b'#', ..] => {
            let (base, from) = if matches!(text.get(2), Some(b'x' | b'X')) { (16, 3) } else { (10, 2) };
            let digits = text[from..].iter().take(7).take_while(|byte| char::from(**byte).is_digit(base)).count();
            (digits > 0 && text.get(from + digits) == Some(&b';')).then_some(())?;
            let value = text[from..from + digits]
                .iter()
                .try_fold(0, |value: u32, digit| Some(value * base + char::from(*digit).to_digit(base)?))?;
            Some((char::from_u32(value)?, from + digits + 1))
        }
        _ => None,
    }
}

/// Where a run of base64 that is wrapped over lines ends; `line` is the length of its first line.
fn wrapped(text: &[u8], end: usize, line: usize) -> usize {
    let (mut end, mut line) = (end, line);
    while line >= BASE64_LINE_MIN {
        let breaks =
            text[end..].iter().take(34).take_while(|byte| matches!(byte, b'\r' | b'\n' | b' ' | b'\t')).count();
        if !text[end..end + breaks].contains(&b'\n') {
            break;
        }
        line = run(&text[end + breaks..], BASE64);
        if line == 0 {
            break;
        }
        end += breaks + line;
    }
    end
}

/// Could it be text, text in wide characters, or compressed data?
fn is_worth(decoded: &[u8]) -> bool {
    if Container::is_zlib(decoded)
        || Container::ALL.iter().any(|kind| {
            kind.magic()
                .iter()
                .any(|magic| decoded.get(..10).unwrap_or(decoded).windows(magic.len()).any(|at| at == *magic))
        })
    {
        return true;
    }
    // As in the search for runs: look where one could end.
    let mut from = 0;
    while from + TEXT_RUN_MIN <= decoded.len() {
        match decoded[from..from + TEXT_RUN_MIN].iter().rposition(|byte| CLASS[usize::from(*byte)] & TEXT == 0) {
            None => return true,
            Some(other) => from += other + 1,
        }
    }
    false
}

fn run(text: &[u8], class: u8) -> usize {
    text.iter().position(|byte| CLASS[usize::from(*byte)] & class == 0).unwrap_or(text.len())
}

/// How many characters of text follow one another with zero bytes between them.
fn wide_run(text: &[u8], unit: usize) -> usize {
    let mut count = 0;
    while let Some(&byte) = text.get(count * unit)
        && is_text(byte)
    {
        count += 1;
        let between = text.get((count - 1) * unit + 1..count * unit);
        if !between.is_some_and(|zeros| zeros.iter().all(|byte| *byte == 0)) {
            break;
        }
    }
    count
}

fn is_text(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n')
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

const BASE64: u8 = 1;
const HEX: u8 = 2;
/// Printable, white space, or the zero bytes of wide characters.
const TEXT: u8 = 4;

const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_') {
            class[byte] |= BASE64;
        }
        if b.is_ascii_hexdigit() {
            class[byte] |= HEX;
        }
        if matches!(b, b' '..=b'~' | b'\t' | b'\r' | b'\n' | 0) {
            class[byte] |= TEXT;
        }
        byte += 1;
    }
    class
};

/// The value of each base64 digit of either alphabet; 64 of what is none.
const VALUE: [u8; 256] = {
    let mut value = [64; 256];
    let mut digit = 0_u8;
    while digit < 26 {
        value[(b'A' + digit) as usize] = digit;
        value[(b'a' + digit) as usize] = digit + 26;
        digit += 1;
    }
    let mut number = 0_u8;
    while number < 10 {
        value[(b'0' + number) as usize] = number + 52;
        number += 1;
    }
    value[b'+' as usize] = 62;
    value[b'-' as usize] = 62;
    value[b'/' as usize] = 63;
    value[b'_' as usize] = 63;
    value
};
