//! The files of one load and everything that was found wrong with them. Readers report and go on, so that an operator
//! sees all errors at once; only the end of a load asks whether there were any.

use super::error::{LoadError, LoadErrors, Place};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of one file of a load: manifests, Dockerfiles and roots alike.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// Errors of one load that are kept; a repository's file is not the operator's own.
const ERRORS_MAX: usize = 50;

/// A part of a file of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Index of the file.
    pub(super) source: usize,
    /// First byte.
    pub(super) start: usize,
    /// Byte after the last one.
    pub(super) end: usize,
}

/// The files of a load, and what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct Report {
    sources: Vec<Source>,
    errors: Vec<((usize, usize), LoadError)>,
    more: usize,
    warnings: Vec<String>,
    parent_unread: bool,
}

#[derive(Debug)]
struct Source {
    file: PathBuf,
    text: Arc<str>,
    /// Bytes at which lines begin, but for the first.
    lines: Vec<usize>,
}

impl Report {
    /// Takes a file in; spans name it by the number that is given back.
    pub(super) fn add(&mut self, file: &Path, text: String) -> usize {
        let lines = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        self.sources.push(Source { file: file.to_owned(), text: text.into(), lines });
        self.sources.len() - 1
    }

    /// The text of a file of the load.
    pub(super) fn text(&self, source: usize) -> Arc<str> {
        Arc::clone(&self.sources[source].text)
    }

    /// The path of a file of the load.
    pub(super) fn file(&self, source: usize) -> &Path {
        &self.sources[source].file
    }

    /// The line, counted from 1, at which a span begins.
    pub(super) fn line(&self, span: Span) -> usize {
        self.sources[span.source].lines.partition_point(|begin| *begin <= span.start) + 1
    }

    /// An error at a place.
    pub(super) fn error(&mut self, span: Span, message: impl Into<String>) {
        self.place(span, message.into(), None, false);
    }

    /// An error at a place, with what to do.
    pub(super) fn error_with(&mut self, span: Span, message: impl Into<String>, hint: impl Into<Option<String>>) {
        self.place(span, message.into(), hint.into(), false);
    }

    /// Could a bottle that was not read say what is missing in the one that is?
    pub(super) fn parent_is_unread(&mut self, unread: bool) {
        self.parent_unread = unread;
    }

    /// An error that something is missing, which a bottle may have from the one it extends.
    pub(super) fn missing(&mut self, span: Span, message: impl Into<String>, hint: impl Into<Option<String>>) {
        if !self.parent_unread {
            self.error_with(span, message, hint);
        }
    }

    /// An error at a place whose text must not be shown.
    pub(super) fn error_masked(&mut self, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.place(span, message.into(), Some(hint.into()), true);
    }

    /// An error of a whole file, or of the command line.
    pub(super) fn error_of(
        &mut self,
        file: Option<&Path>,
        message: impl Into<String>,
        hint: impl Into<Option<String>>,
    ) {
        let error =
            LoadError { file: file.map(Path::to_owned), place: None, message: message.into(), hint: hint.into() };
        self.keep((0, 0), error);
    }

    /// Something the operator should know and that stops nothing.
    pub(super) fn warn(&mut self, span: Span, message: &str) {
        let file = super::error::path(self.file(span.source));
        self.warnings.push(format!("{file}:{}: {message}", self.line(span)));
    }

    /// Something the operator should know about the load as a whole.
    pub(super) fn warn_of(&mut self, message: String) {
        self.warnings.push(message);
    }

    /// How many errors there are so far.
    pub(super) fn errors(&self) -> usize {
        self.errors.len() + self.more
    }

    /// Is a further error only counted?
    pub(super) fn full(&self) -> bool {
        self.errors.len() >= ERRORS_MAX
    }

    /// The warnings, or every error.
    pub(super) fn finish(mut self) -> Result<Vec<String>, LoadErrors> {
        if self.errors.is_empty() {
            return Ok(self.warnings);
        }
        self.errors.sort_by_key(|(order, _)| *order);
        // A file that several bottles extend is read with each of them.
        let mut errors: Vec<LoadError> = Vec::with_capacity(self.errors.len());
        for (_, error) in self.errors {
            if !errors.contains(&error) {
                errors.push(error);
            }
        }
        Err(LoadErrors { errors, more: self.more })
    }

    fn place(&mut self, span: Span, message: String, hint: Option<String>, mask: bool) {
        if self.full() {
            self.more += 1;
            return;
        }
        let Source { file, text, .. } = &self.sources[span.source];
        let place = Place::new(text, span.start, span.end);
        let place = if mask { place.masked() } else { place };
        let error = LoadError { file: Some(file.clone()), place: Some(place), message, hint };
        self.keep((span.source + 1, span.start), error);
    }

    fn keep(&mut self, order: (usize, usize), error: LoadError) {
        if self.full() {
            self.more += 1;
        } else {
            self.errors.push((order, error));
        }
    }
}

/// Why a file of a load cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// There is none.
    #[error("there is no such file")]
    Missing,
    /// A directory, a pipe, a device.
    #[error("it is not a regular file")]
    NotAFile,
    /// Over [`FILE_BYTES_MAX`].
    #[error("it is larger than 1 MiB")]
    TooLarge,
    /// A repository's file behind a link that leads elsewhere.
    #[error("a link in its path leads out of the repository")]
    Outside,
    /// Not text.
    #[error("it is not UTF-8 from line {0} on")]
    NotUtf8(usize),
    /// The system says no.
    #[error("it cannot be read: {0}")]
    Io(std::io::Error),
}

/// The text of a file, which must be a regular one of at most [`FILE_BYTES_MAX`] bytes.
pub(super) fn read_text(file: &Path) -> Result<String, Unreadable> {
    let bad = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Unreadable::Missing,
        _ => Unreadable::Io(error),
    };
    // Asked before it is opened: opening a pipe waits for a writer.
    if !std::fs::metadata(file).map_err(bad)?.is_file() {
        return Err(Unreadable::NotAFile);
    }
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(bad)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(bad)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Unreadable::TooLarge);
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        Unreadable::NotUtf8(good.iter().filter(|b| **b == b'\n').count() + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_text_file_of_bounded_size_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            std::fs::write(dir.path().join(name), bytes).unwrap();
            dir.path().join(name)
        };
        let limit = usize::try_from(FILE_BYTES_MAX).unwrap();
        assert_eq!(read_text(&file("good", b"text")).unwrap(), "text");
        assert_eq!(read_text(&file("full", &vec![b'x'; limit])).unwrap().len(), limit);
        assert!(matches!(read_text(&file("large", &vec![b'x'; limit + 1])), Err(Unreadable::TooLarge)));
        assert!(matches!(read_text(&file("binary", b"a\nb\n\xff")), Err(Unreadable::NotUtf8(3))));
        assert!(matches!(read_text(dir.path()), Err(Unreadable::NotAFile)));
        assert!(matches!(read_text(&dir.path().join("none")), Err(Unreadable::Missing)));
    }

    #[test]
    fn errors_are_ordered_and_bounded() {
        let mut report = Report::default();
        let source = report.add(Path::new("f"), "a\nb\n".to_owned());
        for start in (0..4).rev() {
            report.error(Span { source, start, end: start + 1 }, format!("at {start}"));
        }
        for at in 0..ERRORS_MAX {
            report.error_of(None, format!("of the command line {at}"), None);
        }
        assert_eq!(report.errors(), ERRORS_MAX + 4);
        let errors = report.finish().unwrap_err();
        assert_eq!((errors.errors.len(), errors.more), (ERRORS_MAX, 4));
        assert!(errors.errors[0].file.is_none());
        assert_eq!(errors.errors[ERRORS_MAX - 1].message, "at 3");
        assert!(errors.to_string().ends_with("and 4 more\n"));
    }
}
