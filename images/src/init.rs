//! What the keeper and `bottle-init` say to each other over the container's standard input and output.
//!
//! In: frames. A frame is one line, then for [`Frame::File`] exactly as many bytes as the line says. The end of input
//! ends the container. Out: lines that begin with [`EVENT_PREFIX`]; every other line is the child's own.
//!
//! This page is all that the keeper needs; the rest is the program itself and is built with feature `bins` alone.

#[cfg(feature = "bins")]
pub mod agent;
#[cfg(feature = "bins")]
pub mod child;
#[cfg(feature = "bins")]
pub mod clients;
#[cfg(feature = "bins")]
pub mod events;
#[cfg(feature = "bins")]
pub mod files;
#[cfg(feature = "bins")]
pub mod frames;
#[cfg(feature = "bins")]
pub mod mode;
#[cfg(feature = "bins")]
pub mod proxy;
#[cfg(feature = "bins")]
pub mod reap;

/// What begins each line that is `bottle-init`'s own; pipelock's JSON lines begin with `{`.
pub const EVENT_PREFIX: &str = "bottle-init: ";

/// Where `bottle-init` is put in the containers it runs in.
pub const PATH: &str = "/.bottle/bottle-init";

/// The user and group of `bottle-init` and pipelock. The agent never has it: a plan that would give it is refused.
pub const UID: u32 = 64_999;

/// Files larger than this are refused.
pub const FILE_BYTES_MAX: usize = 8 << 20;

/// A frame's line that is longer, its newline included, ends the container: what follows cannot be told apart.
pub const LINE_BYTES_MAX: usize = 4 << 10;

/// Longer paths are refused, so that every event fits into one atomic write to a pipe.
pub const PATH_BYTES_MAX: usize = 1 << 10;

/// Foreign text in an event is cut after so many characters.
pub const TEXT_CHARS_MAX: usize = 200;

/// One order from the keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Write a file whole: beside it first, then renamed over it. `file <octal mode> <bytes> <absolute path>\n<bytes>`.
    File {
        /// Absolute path in the container.
        path: String,
        /// Permission bits.
        mode: u32,
        /// The content.
        bytes: Vec<u8>,
    },
    /// Start the child that is named on the command line. `run\n`.
    Run,
    /// Stop the child and start it again. `restart\n`.
    Restart,
    /// Ask the child's CONNECT proxy whether `host:port` is open. `probe <host:port>\n`.
    Probe(String),
    /// End as soon as nobody has had a connection to the child for a while; whoever comes meanwhile is served. `drain\n`.
    Drain,
}

impl Frame {
    /// The bytes to write.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::File { path, mode, bytes } => {
                let mut out = format!("file {mode:o} {} {path}\n", bytes.len()).into_bytes();
                out.extend_from_slice(bytes);
                out
            }
            Self::Run => b"run\n".to_vec(),
            Self::Restart => b"restart\n".to_vec(),
            Self::Drain => b"drain\n".to_vec(),
            Self::Probe(target) => format!("probe {target}\n").into_bytes(),
        }
    }
}

/// What `bottle-init` tells the keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The first process runs and waits (agent mode), or the child answers its health check (child mode).
    Ready,
    /// A file is in place.
    Wrote(String),
    /// The child ended by itself with this status (128 + signal where a signal ended it); the container ends too.
    Exited(i32),
    /// What the child's proxy answered to a probe: the status and the first line of the body.
    Probed {
        /// What was asked.
        target: String,
        /// HTTP status; 0 when there was no answer.
        status: u16,
        /// First line of the body of a refusal.
        text: String,
    },
    /// A frame could not be carried out.
    Failed(String),
}

impl Event {
    /// The line to write, with its newline.
    pub fn line(&self) -> String {
        match self {
            Self::Ready => format!("{EVENT_PREFIX}ready\n"),
            Self::Wrote(path) => format!("{EVENT_PREFIX}wrote {path}\n"),
            Self::Exited(code) => format!("{EVENT_PREFIX}exited {code}\n"),
            Self::Probed { target, status, text } => format!("{EVENT_PREFIX}probed {target} {status} {text}\n"),
            Self::Failed(reason) => format!("{EVENT_PREFIX}failed {reason}\n"),
        }
    }

    /// Reads a line of the container's output; `None` for the child's own lines.
    pub fn parse(line: &str) -> Option<Self> {
        let rest = line.trim_end().strip_prefix(EVENT_PREFIX)?;
        let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "ready" => Some(Self::Ready),
            "wrote" => Some(Self::Wrote(rest.to_owned())),
            "exited" => rest.parse().ok().map(Self::Exited),
            "probed" => {
                let mut words = rest.splitn(3, ' ');
                Some(Self::Probed {
                    target: words.next()?.to_owned(),
                    status: words.next()?.parse().ok()?,
                    text: words.next().unwrap_or_default().to_owned(),
                })
            }
            "failed" => Some(Self::Failed(rest.to_owned())),
            _ => None,
        }
    }
}

/// Foreign text as an event may carry it: one line, no control characters, no characters that change the direction of
/// writing, at most [`TEXT_CHARS_MAX`] characters.
pub fn clean(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().take(TEXT_CHARS_MAX).map(|c| if harmful(c) { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_line() {
        let probed = |status, text: &str| Event::Probed { target: "a.example:443".into(), status, text: text.into() };
        for event in [
            Event::Ready,
            Event::Wrote("/etc/pipelock/my config.yaml".into()),
            Event::Exited(137),
            probed(403, "CONNECT blocked: domain not in allowlist: a.example"),
            probed(0, ""),
            Event::Failed("it did not work".into()),
        ] {
            assert_eq!(Event::parse(&event.line()), Some(event));
        }
    }

    #[test]
    fn other_lines_are_the_childs() {
        for line in [
            "{\"level\":\"info\"}",
            "",
            "bottle-init:ready",
            " bottle-init: ready",
            "bottle-init: readyish",
            "bottle-init: exited x",
        ] {
            assert_eq!(Event::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn text_is_cleaned() {
        for (dirty, cleaned) in [
            ("plain text: ok", "plain text: ok"),
            ("one\r\nbottle-init: ready", "one??bottle-init: ready"),
            ("\u{1b}]52;c;AAAA\u{7}", "?]52;c;AAAA?"),
            ("\u{9b}31m", "?31m"),
            ("a\u{202e}b", "a?b"),
            ("grün", "grün"),
        ] {
            assert_eq!(clean(dirty), cleaned);
        }
        assert_eq!(clean(&"x".repeat(500)).len(), TEXT_CHARS_MAX);
    }
}
