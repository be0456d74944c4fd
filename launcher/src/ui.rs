//! What a person sees. Text for people goes to standard error, data to standard output, and both only through here.
//! Foreign text (logs, builds, images, agents) is cleaned before it meets a terminal.

use crate::error::{ERROR, Failure};
use std::io::{IsTerminal, Write};

/// Columns of text for people where the terminal does not say, and of what is printed without one.
pub const COLUMNS: usize = 80;
/// Longer lines are hard to read on any terminal.
const COLUMNS_MAX: usize = 100;

/// The printer of one command.
#[derive(Debug, Clone, Copy)]
pub struct Ui {
    colour: bool,
    live: bool,
}

impl Ui {
    /// Looks at standard error, and at `NO_COLOR` (no-color.org).
    pub fn new(no_colour: bool) -> Self {
        let live = std::io::stderr().is_terminal();
        Self { colour: live && !no_colour, live }
    }

    /// A line for people.
    pub fn line(self, text: &str) {
        self.wipe();
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// A sentence for people under a head, broken between words where it is read on a terminal.
    pub fn sentence(self, head: &str, text: &str) {
        self.line(&self.fit(head, text));
    }

    /// What is going on: one line that the next one replaces; without a terminal nothing.
    pub fn progress(self, text: &str) {
        if self.live {
            // One column is left free: a full line would move on to the next.
            let text: String = clean(text).replace(['\n', '\t'], " ").chars().take(columns() - 1).collect();
            let _ = write!(std::io::stderr(), "\r\x1b[2K{}", self.dim(&text));
            let _ = std::io::stderr().flush();
        }
    }

    /// Rings, on a terminal.
    pub fn bell(self) {
        if self.live {
            let _ = write!(std::io::stderr(), "\x07");
            let _ = std::io::stderr().flush();
        }
    }

    /// Takes the progress line away.
    pub fn wipe(self) {
        if self.live {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }

    /// A warning.
    pub fn warn(self, text: &str) {
        let text = self.fit("warning: ", text);
        self.line(&text.replacen("warning:", &self.paint("33", "warning:"), 1));
    }

    /// An error and what to do about it. A message of several lines is laid out already.
    pub fn failure(self, failure: &Failure) {
        let message = self.fit(ERROR, failure.message.trim_end());
        for line in message.lines() {
            match line.strip_prefix(ERROR) {
                Some(rest) => self.line(&format!("{} {rest}", self.paint("31;1", ERROR.trim_end()))),
                None => self.line(line),
            }
        }
        if let Some(hint) = &failure.hint {
            let hint = self.fit(" help: ", hint);
            self.line(&hint.replacen(" help:", &self.paint("36", " help:"), 1));
        }
    }

    /// Text under a head, broken between words where it is read on a terminal. Elsewhere it is read by programs, for
    /// which a sentence is a line.
    fn fit(self, head: &str, text: &str) -> String {
        if self.live && !text.contains('\n') { wrapped(head, text, columns()) } else { format!("{head}{text}") }
    }

    /// Data on standard output. An error there (a closed pipe) ends the command without a word, as in other tools.
    pub fn data(self, text: &str) -> bool {
        let mut out = std::io::stdout();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
    }

    /// Rows as a table on standard output. A line that a terminal would wrap is cut there; a program gets all of it.
    pub fn table(self, rows: &[Vec<String>]) -> bool {
        let text = table(rows);
        match output_columns() {
            Some(columns) => {
                self.data(&text.lines().map(|line| format!("{}\n", cut(line, columns))).collect::<String>())
            }
            None => self.data(&text),
        }
    }

    /// A sentence under a head on standard output: broken between words on a terminal, one line for a program.
    pub fn entry(self, head: &str, text: &str) -> bool {
        match output_columns() {
            Some(columns) => self.data(&format!("{}\n", wrapped(head, text, columns.min(COLUMNS_MAX)))),
            None => self.data(&format!("{head}{text}\n")),
        }
    }

    /// Asks a question that is answered with y or n; anything but y is no. Without a terminal the answer is no.
    pub fn confirm(self, question: &str) -> bool {
        if !self.live || !std::io::stdin().is_terminal() {
            return false;
        }
        self.wipe();
        let _ = write!(std::io::stderr(), "{question} [y/N] ");
        let _ = std::io::stderr().flush();
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
    }

    /// Asks for a line; an empty one, or no terminal, is the default.
    pub fn ask(self, question: &str, default: &str) -> String {
        if !self.live || !std::io::stdin().is_terminal() {
            return default.to_owned();
        }
        self.wipe();
        let _ = write!(std::io::stderr(), "{question} [{default}] ");
        let _ = std::io::stderr().flush();
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        let answer = answer.trim();
        if read.is_err() || answer.is_empty() { default.to_owned() } else { answer.to_owned() }
    }

    /// Asks for a secret without echo. `None`: there is no terminal, or Ctrl-C or Ctrl-D was the answer.
    pub fn ask_secret(self, question: &str) -> Option<cred_proxy::Secret> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok()?;
        let mut quiet = before.clone();
        // Without signals as well: one that ended us here would leave the terminal without echo.
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        let _ = write!(std::io::stderr(), "{}: ", clean(question));
        let _ = std::io::stderr().flush();
        tcsetattr(&stdin, OptionalActions::Flush, &quiet).ok()?;
        let answer = typed_line(&mut stdin.lock());
        // The terminal is as it was, whatever was typed.
        let _ = tcsetattr(&stdin, OptionalActions::Flush, &before);
        self.line("");
        answer
    }

    /// Bold, on a terminal with colours.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// Grey, on a terminal with colours.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// Green for yes, red for no.
    pub fn verdict(self, good: bool, text: &str) -> String {
        self.paint(if good { "32" } else { "31;1" }, text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A line as it is typed key by key. `None`: its writer gave up, or typed more than a secret is long.
fn typed_line(keys: &mut impl std::io::Read) -> Option<cred_proxy::Secret> {
    const BYTES_MAX: usize = 64 << 10;
    let mut line = zeroize::Zeroizing::new(Vec::new());
    let mut key = [0];
    while line.len() <= BYTES_MAX {
        keys.read_exact(&mut key).ok()?;
        match key {
            [b'\r' | b'\n'] => {
                let text = std::str::from_utf8(&line).ok()?;
                return Some(cred_proxy::Secret::new(text.to_owned()));
            }
            // Ctrl-C, Ctrl-D, Ctrl-\.
            [0x03 | 0x04 | 0x1c] => return None,
            // Backspace takes a character, not a byte; Ctrl-U takes all.
            [0x08 | 0x7f] => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            [0x15] => line.clear(),
            [byte] => line.push(byte),
        }
    }
    None
}

/// The first characters of a line that is longer than it may be.
fn cut(line: &str, columns: usize) -> String {
    match line.char_indices().nth(columns) {
        Some(_) => line.chars().take(columns - 1).chain(['\u{2026}']).collect(),
        None => line.to_owned(),
    }
}

/// The width of the terminal that standard error is, within reason.
fn columns() -> usize {
    width(std::io::stderr()).min(COLUMNS_MAX)
}

/// The width of the terminal that standard output is; `None` where it is none.
fn output_columns() -> Option<usize> {
    let out = std::io::stdout();
    out.is_terminal().then(|| width(out))
}

fn width(terminal: impl std::os::fd::AsFd) -> usize {
    let asked = rustix::termios::tcgetwinsize(terminal).map(|size| usize::from(size.ws_col));
    asked.ok().filter(|columns| *columns >= 20).unwrap_or(COLUMNS)
}

/// `head` and `text`, broken between words so that it fits into `columns`; further lines begin under the text. A word
/// that is longer than a line is left whole: it may be a path that somebody copies.
pub fn wrapped(head: &str, text: &str, columns: usize) -> String {
    let indent = head.chars().count();
    let mut out = head.to_owned();
    let mut column = indent;
    for (at, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if at > 0 && column + 1 + width > columns {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if at > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out
}

/// Rows of cells as aligned columns, each as wide as its widest cell; nothing is padded at the end of a line.
pub fn table(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(at) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A number of bytes in its largest unit.
pub fn size(bytes: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

/// Foreign text as it may meet a terminal: no control characters but newline and tab, nothing that reorders text. What is
/// taken out shows as `\u{..}`, so that nobody is fooled by its absence.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let harmless = c == '\n' || c == '\t' || !(c.is_control() || is_bidi(c));
        if harmless {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
    }
    out
}

/// Characters that change the direction of what follows (Unicode TR 9), separate lines, or are not seen.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_typed_with_second_thoughts() {
        for (keys, expected) in [
            (&b"pass\n"[..], Some("pass")),
            (b"pass word\r", Some("pass word")),
            (b"wrong\x15right\n", Some("right")),
            ("ab\u{e4}\u{7f}c\n".as_bytes(), Some("abc")),
            (b"\x7f\n", Some("")),
            (b"pass\x03", None),
            (b"\x04", None),
            (b"no end", None),
        ] {
            let typed = typed_line(&mut &keys[..]);
            assert_eq!(typed.as_ref().map(|s| s.expose()), expected, "{keys:?}");
        }
    }

    #[test]
    fn text_is_broken_between_words_and_long_words_stay_whole() {
        for (text, expected) in [
            ("short", "a: short"),
            ("one two three", "a: one two\n   three"),
            ("averyveryverylongword b", "a: averyveryverylongword\n   b"),
            ("", "a: "),
        ] {
            assert_eq!(wrapped("a: ", text, 11), expected);
        }
    }

    #[test]
    fn columns_of_a_table_are_as_wide_as_they_must_be() {
        let row = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        let rows = [row(&["A", "BCD", "E"]), row(&["long", "x", ""])];
        assert_eq!(table(&rows), "A     BCD  E\nlong  x\n");
    }

    #[test]
    fn foreign_text_cannot_drive_a_terminal() {
        for (text, expected) in [
            ("plain \u{e4}\u{4e2d} text\n\tend", "plain \u{e4}\u{4e2d} text\n\tend"),
            ("\u{1b}]52;c;aGk=\u{7}", "\\u{1b}]52;c;aGk=\\u{7}"),
            ("a\rb", "a\\u{d}b"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\u{202e}b", "a\\u{202e}b"),
        ] {
            assert_eq!(clean(text), expected);
        }
    }
}
