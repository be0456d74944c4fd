//! Standard input: one JSON object a line, each a command.
//!
//! A line that cannot be read is refused without a word of its content, which may be a secret, and so is one that is too long.
//! A last line without its end is none: whoever wrote it broke off in the middle.

use crate::LINE_BYTES_MAX;
use serde::de::DeserializeOwned;
use std::io::{BufRead, Read as _};
use zeroize::Zeroizing;

/// What the input says.
#[derive(Debug)]
pub enum Said<C> {
    /// A command.
    Command(C),
    /// A line that is none, and why; without a word of it.
    Unreadable(String),
    /// Nothing more, and this is said once.
    Ended,
}

/// Reads `input` in a thread of its own: a read of standard input cannot be given up, it ends with the process. `hear` gets
/// what is said, in order, until it is [`Said::Ended`] or says that nobody listens (`false`).
pub fn start<C: DeserializeOwned>(hear: impl FnMut(Said<C>) -> bool + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("input".into()).spawn(move || read(std::io::stdin().lock(), hear)).map(drop)
}

/// The same with any input, until its end.
pub fn read<C: DeserializeOwned>(mut input: impl BufRead, mut hear: impl FnMut(Said<C>) -> bool) {
    loop {
        let said = one(&mut input);
        let is_end = matches!(said, Said::Ended);
        if !hear(said) || is_end {
            return;
        }
    }
}

fn one<C: DeserializeOwned>(input: &mut impl BufRead) -> Said<C> {
    // Not kept between lines: the longest would stay in memory. Wiped when it goes.
    let mut line = Zeroizing::new(Vec::new());
    // One byte more than a line may have tells a long one from one that just fits.
    match input.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line) {
        Ok(0) | Err(_) => Said::Ended,
        Ok(_) if line.last() == Some(&b'\n') => understand(&line),
        Ok(_) if line.len() > LINE_BYTES_MAX && skip_line(input) => {
            Said::Unreadable(format!("the line is longer than {LINE_BYTES_MAX} bytes"))
        }
        Ok(_) => Said::Ended,
    }
}

/// Skips the rest of a line; `false` at the end of input.
fn skip_line(input: &mut impl BufRead) -> bool {
    loop {
        let Ok(bytes) = input.fill_buf() else { return false };
        let (skip, found) = match bytes.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (bytes.len(), false),
        };
        if skip == 0 {
            return false;
        }
        input.consume(skip);
        if found {
            return true;
        }
    }
}

fn understand<C: DeserializeOwned>(line: &[u8]) -> Said<C> {
    match serde_json::from_slice(line) {
        Ok(command) => Said::Command(command),
        // The library's own words may quote the line.
        Err(error) => Said::Unreadable(format!(
            "the line is no command: {:?} error at column {}",
            error.classify(),
            error.column()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize)]
    #[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
    enum Command {
        Configure {
            #[expect(dead_code, reason = "it is read and shown")]
            secrets: BTreeMap<String, Secret>,
        },
    }

    fn heard(input: &[u8]) -> Vec<String> {
        let mut heard = Vec::new();
        read(input, |said: Said<Command>| {
            heard.push(format!("{said:?}"));
            true
        });
        heard
    }

    fn kinds(heard: &[String]) -> Vec<&str> {
        heard.iter().filter_map(|said| said.split('(').next()).collect()
    }

    const GOOD: &str = r#"{"command":"configure","secrets":{"k":"s3cret"}}"#;

    #[test]
    fn commands_are_read_line_by_line_and_never_shown() {
        let bad = GOOD.replace(r#"{"k":"s3cret"}"#, r#""s3cret""#);
        let unknown = r#"{"command":"s3cret"}"#;
        let field = GOOD.replace("\"secrets\"", "\"s3cret\":1,\"secrets\"");
        let heard = heard(format!("{GOOD}\n{bad}\n{unknown}\n{field}\nnot json s3cret\n\n{GOOD}\n").as_bytes());
        let unreadable = ["Unreadable"; 5];
        assert_eq!(kinds(&heard), [&["Command"], &unreadable[..], &["Command", "Ended"]].concat());
        assert!(heard.iter().all(|said| !said.contains("s3cret")), "{heard:?}");
    }

    #[test]
    fn a_long_line_is_refused_and_the_next_one_read() {
        let padded = |length: usize| format!("{GOOD}{}", " ".repeat(length - GOOD.len()));
        for (length, wanted) in
            [(LINE_BYTES_MAX, "Command"), (LINE_BYTES_MAX + 1, "Unreadable"), (3 * LINE_BYTES_MAX, "Unreadable")]
        {
            let heard = heard(format!("{}\n{GOOD}\n", padded(length)).as_bytes());
            assert_eq!(kinds(&heard), [wanted, "Command", "Ended"], "{length}");
        }
    }

    #[test]
    fn what_broke_off_is_no_command() {
        assert_eq!(kinds(&heard(b"")), ["Ended"]);
        assert_eq!(kinds(&heard(format!("{GOOD}\n{GOOD}").as_bytes())), ["Command", "Ended"]);
        assert_eq!(kinds(&heard(&vec![b' '; 2 * LINE_BYTES_MAX])), ["Ended"]);
    }

    #[test]
    fn when_nobody_listens_nothing_more_is_read() {
        let mut input = std::io::Cursor::new(format!("{GOOD}\n{GOOD}\n"));
        read(&mut input, |_: Said<Command>| false);
        assert_eq!(input.position(), GOOD.len() as u64 + 1);
    }
}
