//! A Markdown file with YAML between two `---` lines at its head.

use super::report::{Report, Span, read_text};
use super::tree::Node;
use std::ops::Range;
use std::path::Path;

/// A manifest's file, read.
#[derive(Debug)]
pub(super) struct Manifest {
    /// The header.
    pub(super) node: Node,
    /// The text below it.
    pub(super) body: String,
    /// The first line, where what is missing is reported.
    pub(super) top: Span,
}

/// What reads a header.
pub(super) type Header = fn(&mut Report, usize, Range<usize>) -> Option<Node>;

/// Reads a file that is there. `None` after an error was reported; `what` is what errors call it.
pub(super) fn read(file: &Path, what: &str, header: Header, report: &mut Report) -> Option<Manifest> {
    match read_text(file) {
        Ok(text) => parse(file, text, header, report),
        Err(error) => {
            report.error_of(Some(file), format!("cannot use {what}: {error}"), None);
            None
        }
    }
}

/// Reads the text of a file.
pub(super) fn parse(file: &Path, text: String, header: Header, report: &mut Report) -> Option<Manifest> {
    let source = report.add(file, text);
    let text = report.text(source);
    match split(&text) {
        Ok(parts) => {
            let top = Span { source, start: 0, end: parts.header.start };
            let node = header(report, source, parts.header)?;
            Some(Manifest { node, body: text[parts.body].to_owned(), top })
        }
        Err(NoFrontmatter { at, message }) => {
            let hint = "a manifest is Markdown with YAML between two lines `---` at its head";
            report.error_with(Span { source, start: at, end: at }, message, hint.to_owned());
            None
        }
    }
}

/// The parts of a manifest, as bytes of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) header: Range<usize>,
    pub(super) body: Range<usize>,
}

/// Why there are no such parts, and at which byte that shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoFrontmatter {
    pub(super) at: usize,
    pub(super) message: &'static str,
}

/// Finds the parts. Line ends may be those of Windows, and a byte order mark is passed over.
pub(super) fn split(text: &str) -> Result<Parts, NoFrontmatter> {
    let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut header = None;
    let mut at = start;
    for line in text[start..].split_inclusive('\n') {
        let end = at + line.len();
        match header {
            None if opens(line) => header = Some(end),
            None => {
                return Err(NoFrontmatter { at, message: "the file must begin with a line `---`" });
            }
            Some(from) if is_fence(line) => return Ok(Parts { header: from..at, body: end..text.len() }),
            Some(_) => {}
        }
        at = end;
    }
    match header {
        None => Err(NoFrontmatter { at: start, message: "the file is empty; it must begin with a line `---`" }),
        Some(_) => Err(NoFrontmatter { at: start, message: "the header that begins here has no closing line `---`" }),
    }
}

/// Is it the first line? A comment may follow there, as in any YAML.
fn opens(line: &str) -> bool {
    let comment = |rest: &str| rest.starts_with([' ', '\t']) && rest.trim_start().starts_with('#');
    is_fence(line) || line.strip_prefix("---").is_some_and(comment)
}

fn is_fence(line: &str) -> bool {
    line.trim_end() == "---"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_body_are_told_apart() {
        for (text, header, body) in [
            ("---\na: b\n---\nbody\n", "a: b\n", "body\n"),
            ("---\n---", "", ""),
            ("---   # dev.md\na: b\n---\nbody\n", "a: b\n", "body\n"),
            ("---\r\na: b\r\n--- \r\nbody", "a: b\r\n", "body"),
            ("\u{feff}---\na: b\n---\n---\n", "a: b\n", "---\n"),
        ] {
            let parts = split(text).unwrap();
            assert_eq!((&text[parts.header], &text[parts.body]), (header, body), "{text:?}");
        }
        for (text, at, part) in [
            ("", 0, "empty"),
            ("a: b\n---\n", 0, "begin with"),
            ("\n---\na: b\n---\n", 0, "begin with"),
            ("---\na: b\n ---\n", 0, "no closing"),
            ("----\na: b\n----\n", 0, "begin with"),
            ("---# no comment\na: b\n---\n", 0, "begin with"),
            ("--- a: b\n---\n", 0, "begin with"),
            ("---\na: b\n--- # no end\n", 0, "no closing"),
        ] {
            let error = split(text).unwrap_err();
            assert_eq!(error.at, at, "{text:?}");
            assert!(error.message.contains(part), "{text:?}: {}", error.message);
        }
    }
}
