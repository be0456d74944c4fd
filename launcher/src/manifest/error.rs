//! What is wrong with the files of a load, and how it prints: every error of the load at once, each with its place, the
//! line it is about and what to do. A frame never shows a control character of the file, nor more than 80 columns.

use std::fmt;
use std::path::PathBuf;

/// Columns of printed text that nothing but a path exceeds.
const COLUMNS_MAX: usize = 80;

/// Columns of a source line that a frame shows; the rest is the gutter's.
const EXCERPT_COLUMNS_MAX: usize = 70;

/// Characters of a file's text within a message.
const QUOTED_CHARS_MAX: usize = 64;

/// Columns shown before the marked part of a line that is too long to be shown whole.
const LEAD_COLUMNS: usize = 20;

/// Every error of one load, by file in the order of loading and then by place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct LoadErrors {
    /// The errors. There is at least one.
    pub errors: Vec<LoadError>,
    /// How many more there were beyond the limit of what is kept.
    pub more: usize,
}

/// One error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// The file it is about; `None` where it is about the command line.
    pub file: Option<PathBuf>,
    /// Where in the file; `None` where the file as a whole is meant.
    pub place: Option<Place>,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    excerpt: String,
    mark: usize,
    width: usize,
}

impl Place {
    /// The place of the bytes `start..end` of `text`. Only what is on the first line of them is marked.
    pub(super) fn new(text: &str, start: usize, end: usize) -> Self {
        let start = floor_boundary(text, start);
        let end = floor_boundary(text, end).max(start);
        let begin = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let stop = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[begin..stop].trim_end_matches('\r');
        let column = text[begin..start].chars().count();
        let marked = text[start..end.min(stop)].trim_end().chars().count().max(1);
        let (excerpt, mark) = window(line, column);
        let width = marked.min(excerpt.chars().count().saturating_sub(mark)).max(1);
        Self { line: text[..begin].matches('\n').count() + 1, column: column + 1, excerpt, mark, width }
    }

    /// The same place, with what is marked shown as stars: it may be a credential written where its name belongs.
    pub(super) fn masked(mut self) -> Self {
        let shown = self.excerpt.chars().enumerate();
        self.excerpt =
            shown.map(|(at, c)| if at >= self.mark && at < self.mark + self.width { '*' } else { c }).collect();
        self
    }
}

/// The last character boundary at or before `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The part of a line that a frame shows, and the column in it at which `column` now stands.
fn window(line: &str, column: usize) -> (String, usize) {
    let visible = |c: char| if c == '\t' { ' ' } else { printable(c) };
    if line.chars().nth(EXCERPT_COLUMNS_MAX).is_none() {
        return (line.chars().map(visible).collect(), column);
    }
    let from = if column < EXCERPT_COLUMNS_MAX - LEAD_COLUMNS { 0 } else { column - LEAD_COLUMNS };
    let mut shown: String = line.chars().skip(from).take(EXCERPT_COLUMNS_MAX - 2).map(visible).collect();
    if line.chars().nth(from + EXCERPT_COLUMNS_MAX - 2).is_some() {
        shown.push('…');
    }
    if from > 0 {
        return (format!("…{shown}"), column - from + 1);
    }
    (shown, column)
}

/// The character, or a stand-in where it could steer a terminal or reorder what is read.
fn printable(c: char) -> char {
    let steers = c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{61c}' | '\u{feff}');
    if steers { '\u{fffd}' } else { c }
}

/// A text of a file or a path that is going to stand in a message.
pub(super) fn quoted(text: &str) -> String {
    shortened(text, QUOTED_CHARS_MAX)
}

/// The first characters of a text, made printable.
pub(super) fn shortened(text: &str, chars_max: usize) -> String {
    let mut shown: String = text.chars().take(chars_max).map(printable).collect();
    if text.chars().nth(chars_max).is_some() {
        shown.push('…');
    }
    shown
}

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.errors.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            writeln!(f, "{error}")?;
        }
        if self.more > 0 {
            writeln!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl fmt::Display for LoadError {
    /// One frame, without a newline at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&wrapped("error: ", &self.message))?;
        let Some(place) = &self.place else {
            if let Some(file) = &self.file {
                write!(f, "\n --> {}", path(file))?;
            }
            return match &self.hint {
                Some(hint) => write!(f, "\n{}", wrapped("  = help: ", hint)),
                None => Ok(()),
            };
        };
        let gutter = " ".repeat(place.line.to_string().len());
        let file = self.file.as_deref().map(path).unwrap_or_default();
        write!(f, "\n{gutter}--> {file}:{}:{}", place.line, place.column)?;
        write!(f, "\n{gutter} |")?;
        write!(f, "\n{} | {}", place.line, place.excerpt.trim_end())?;
        write!(f, "\n{gutter} | {}{}", " ".repeat(place.mark), "^".repeat(place.width))?;
        if let Some(hint) = &self.hint {
            write!(f, "\n{}", wrapped(&format!("{gutter} = help: "), hint))?;
        }
        Ok(())
    }
}

/// A path as it may be printed.
pub(super) fn path(path: &std::path::Path) -> String {
    path.to_string_lossy().chars().map(printable).collect()
}

/// `head` and `text`, broken between words so that it fits; further lines begin under the text.
fn wrapped(head: &str, text: &str) -> String {
    let indent = head.chars().count();
    let mut out = head.to_owned();
    let mut column = indent;
    for (at, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if at > 0 && column + 1 + width > COLUMNS_MAX {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else if at > 0 {
            out.push(' ');
            column += 1;
        }
        out.extend(word.chars().map(printable));
        column += width;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str, part: &str) -> LoadError {
        let start = text.find(part).unwrap();
        LoadError {
            file: Some(PathBuf::from("bottles/dev.md")),
            place: Some(Place::new(text, start, start + part.len())),
            message: "it is wrong".to_owned(),
            hint: Some("make it right".to_owned()),
        }
    }

    #[test]
    fn a_frame_shows_place_line_and_help() {
        insta::assert_snapshot!(error("---\nenv:\n  A: b # c\n", "A: b"), @r"
        error: it is wrong
         --> bottles/dev.md:3:3
          |
        3 |   A: b # c
          |   ^^^^
          = help: make it right
        ");
    }

    #[test]
    fn what_would_steer_a_terminal_is_not_shown() {
        let text = "a: \u{1b}]52;c;x\u{7} \u{202e}b\tc\r\n";
        let shown = error(text, "b").to_string();
        assert!(shown.contains("a: \u{fffd}]52;c;x\u{fffd} \u{fffd}b c\n"), "{shown}");
    }

    #[test]
    fn nothing_is_wider_than_a_terminal() {
        let line = format!("key: {}HERE{}", "x ".repeat(400), "y".repeat(4000));
        let mut error = error(&line, "HERE");
        error.message = "a long message ".repeat(20);
        error.hint = Some("a long hint ".repeat(20));
        let shown = error.to_string();
        for line in shown.lines() {
            assert!(line.chars().count() <= COLUMNS_MAX, "{line}");
        }
        let lines: Vec<&str> = shown.lines().collect();
        let at = lines.iter().position(|l| l.contains("HERE")).unwrap();
        assert_eq!(lines[at].chars().position(|c| c == 'H'), lines[at + 1].chars().position(|c| c == '^'));
    }

    #[test]
    fn a_masked_place_shows_stars() {
        let text = "token_ref: s3cret-value";
        let place = Place::new(text, 11, text.len()).masked();
        assert_eq!(place.excerpt, "token_ref: ************");
    }

    #[test]
    fn any_offset_has_a_place() {
        let text = "\u{e4}\n\u{20ac}x\n";
        for start in 0..=text.len() + 2 {
            for end in 0..=text.len() + 2 {
                let place = Place::new(text, start, end);
                assert!(place.line >= 1 && place.column >= 1 && place.width >= 1);
            }
        }
    }
}
