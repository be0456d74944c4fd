//! What a person sees. Text for people goes to standard error, data to standard output, and both only through here.
//! Foreign text (logs, builds, images, agents) is cleaned before it meets a terminal.

use crate::error::Failure;
use std::io::{IsTerminal, Write};

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

    /// What is going on: one line that the next one replaces; without a terminal nothing.
    pub fn progress(self, text: &str) {
        if self.live {
            let text: String = clean(text).replace('\n', " ").chars().take(78).collect();
            let _ = write!(std::io::stderr(), "\r\x1b[2K{}", self.dim(&text));
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
        self.line(&format!("{} {text}", self.paint("33", "warning:")));
    }

    /// An error and what to do about it.
    pub fn failure(self, failure: &Failure) {
        self.line(&format!("{} {}", self.paint("31;1", "error:"), failure.message.trim_end()));
        if let Some(hint) = &failure.hint {
            self.line(&format!("{} {hint}", self.paint("36", " help:")));
        }
    }

    /// Data on standard output. An error there (a closed pipe) ends the command without a word, as in other tools.
    pub fn data(self, text: &str) -> bool {
        let mut out = std::io::stdout();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
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

    /// Asks for a secret without echo. `None`: there is no terminal, or no answer.
    pub fn ask_secret(self, question: &str) -> Option<cred_proxy::Secret> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok()?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        let _ = write!(std::io::stderr(), "{question}: ");
        let _ = std::io::stderr().flush();
        tcsetattr(&stdin, OptionalActions::Flush, &quiet).ok()?;
        let mut answer = String::new();
        let read = stdin.read_line(&mut answer);
        // The terminal is as it was, whatever was typed.
        let _ = tcsetattr(&stdin, OptionalActions::Flush, &before);
        self.line("");
        read.ok()?;
        Some(cred_proxy::Secret::new(answer.trim_end_matches(['\n', '\r']).to_owned()))
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

/// Characters that change the direction of what follows (Unicode TR 9), and the invisible ones next to them.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

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
