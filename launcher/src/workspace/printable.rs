//! Foreign text made fit for a terminal. It must never let through what a terminal acts on: no C0 character but
//! newline and tab, no DEL, no C1, no character that turns or hides the text around it.

use std::fmt::Write;

/// Foreign text of many lines: newlines and tabs stay, everything a terminal would act on is written as an escape.
pub fn text(bytes: &[u8]) -> String {
    escaped(bytes, |c| c == '\n' || c == '\t')
}

/// Foreign text that must stay on one line, such as a file name: newlines and tabs are escaped too.
pub fn line(bytes: &[u8]) -> String {
    escaped(bytes, |_| false)
}

fn escaped(bytes: &[u8], kept: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if acts(c) && !kept(c) {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_escaped_and_its_neighbours_stay() {
        for (given, expected) in [
            (&b"plain \xc3\xa4\ttab\nline"[..], "plain ä\ttab\nline"),
            (b"\x1b]52;c;aGk=\x07", "\\u{1b}]52;c;aGk=\\u{7}"),
            (b"over\rwritten\x08\x7f", "over\\rwritten\\u{8}\\u{7f}"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            (b"\xff\x9b", "\\xff\\x9b"),
            ("a\u{202e}b\u{2066}c".as_bytes(), "a\\u{202e}b\\u{2066}c"),
            ("👩\u{200d}💻".as_bytes(), "👩\u{200d}💻"),
        ] {
            assert_eq!(text(given), expected);
        }
        assert_eq!(line(b"a\nb\tc"), "a\\nb\\tc");
    }
}
