//! YAML text to a [`Node`]. Plain data alone: anchors, aliases and tags are refused, so the tree is never larger than
//! the file.

use super::error::quoted;
use super::report::{Report, Span};
use super::tree::{Entry, Node, Value};
use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span as Place, StrInput};
use std::collections::BTreeMap;
use std::ops::Range;

/// Lists and tables within one another.
const DEPTH_MAX: usize = 16;

/// Reads the part `range` of a file of the load. `None` after an error was reported; an empty part is an empty table.
pub(super) fn parse(report: &mut Report, source: usize, range: Range<usize>) -> Option<Node> {
    let text = report.text(source);
    let mut options = Options::default();
    options.disallow_directives = true;
    options.emit_unresolved_aliases = true;
    options.flow_nesting_limit = DEPTH_MAX;
    options.block_nesting_limit = DEPTH_MAX;
    options.set_emit_comments(false);
    let events = Parser::new_from_str_with_options(&text[range.clone()], options);
    let mut builder = Builder { events, source, range, report };
    builder.document().ok()
}

/// An error was reported, and what follows it cannot be understood.
struct Stop;

struct Builder<'t, 'r> {
    events: Parser<'t, StrInput<'t>>,
    source: usize,
    range: Range<usize>,
    report: &'r mut Report,
}

impl<'t> Builder<'t, '_> {
    fn document(&mut self) -> Result<Node, Stop> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                Event::DocumentStart(..) if root.is_some() => {
                    return Err(self.stop(span, "a second YAML document begins here", None));
                }
                Event::DocumentStart(..) => {}
                event => root = Some(self.node(event, span)?),
            }
        }
        let at = Span { source: self.source, start: self.range.start, end: self.range.start };
        Ok(root.unwrap_or(Node { span: at, value: Value::Null }))
    }

    fn node(&mut self, event: Event<'t>, span: Place) -> Result<Node, Stop> {
        let (anchor, tag) = match &event {
            Event::Scalar(_, _, anchor, tag)
            | Event::SequenceStart(_, anchor, tag)
            | Event::MappingStart(_, anchor, tag) => (*anchor, tag.is_some()),
            _ => (0, false),
        };
        if anchor != 0 {
            return Err(self.stop(span, "anchors are not supported", Some("write the value out where it is used")));
        }
        if tag {
            return Err(self.stop(span, "tags are not supported", Some("a value that begins with `!` needs quotes")));
        }
        match event {
            Event::Scalar(text, style, _, _) => Ok(self.scalar(text.into_owned(), style, span)),
            Event::SequenceStart(..) => self.list(span),
            Event::MappingStart(..) => self.map(span),
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                let hint = "a value that begins with `*` needs quotes; aliases are not supported";
                Err(self.stop(span, "this is an alias in YAML", Some(hint)))
            }
            _ => Err(self.stop(span, "this is not a value", None)),
        }
    }

    fn scalar(&self, text: String, style: ScalarStyle, span: Place) -> Node {
        let plain = style == ScalarStyle::Plain;
        let null = plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL");
        let value = if null { Value::Null } else { Value::Scalar { text, plain } };
        Node { span: self.span(span), value }
    }

    fn list(&mut self, start: Place) -> Result<Node, Stop> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                let span = self.between(start, span);
                return Ok(Node { span, value: Value::List(items) });
            }
            items.push(self.node(event, span)?);
        }
    }

    fn map(&mut self, start: Place) -> Result<Node, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines = BTreeMap::new();
        loop {
            let (event, span) = self.next()?;
            let (key, at) = match event {
                Event::MappingEnd => {
                    let span = self.between(start, span);
                    return Ok(Node { span, value: Value::Map(entries) });
                }
                Event::Scalar(key, ScalarStyle::Plain, _, _) if key == "<<" => {
                    return Err(self.stop(span, "merge keys are not supported", Some("write the keys out")));
                }
                Event::Scalar(key, _, 0, None) => (key.into_owned(), self.span(span)),
                _ => return Err(self.stop(span, "a key must be a plain text", None)),
            };
            let (event, span) = self.next()?;
            let value = self.node(event, span)?;
            match lines.get(&key) {
                Some(line) => {
                    let message = format!("`{}` is written twice", quoted(&key));
                    self.report.error_with(at, message, format!("the first is on line {line}"));
                }
                None => {
                    lines.insert(key.clone(), self.report.line(at));
                    entries.push(Entry { key, at, value });
                }
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Place), Stop> {
        match self.events.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(self.syntax(&error)),
            // The stream ends with an event of its own, after which nobody asks.
            None => Err(Stop),
        }
    }

    fn syntax(&mut self, error: &ScanError) -> Stop {
        let at = error.marker().byte_offset().unwrap_or(self.range.len());
        let start = (self.range.start + at).min(self.range.end);
        let words = error.info();
        let hint = if words.contains("mapping values") {
            Some("a text that holds `: ` needs quotes around it".to_owned())
        } else if words.contains("tab") {
            Some("indent with spaces".to_owned())
        } else {
            None
        };
        let span = Span { source: self.source, start, end: start };
        self.report.error_with(span, format!("the YAML cannot be read: {words}"), hint);
        Stop
    }

    fn stop(&mut self, span: Place, message: &str, hint: Option<&str>) -> Stop {
        let span = self.span(span);
        self.report.error_with(span, message, hint.map(str::to_owned));
        Stop
    }

    fn span(&self, span: Place) -> Span {
        self.between(span, span)
    }

    fn between(&self, first: Place, last: Place) -> Span {
        let offset = |at: Option<usize>| self.range.start + at.unwrap_or(self.range.len()).min(self.range.len());
        let start = offset(first.start.byte_offset());
        Span { source: self.source, start, end: offset(last.end.byte_offset()).max(start) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(text: &str) -> Result<Node, String> {
        let mut report = Report::default();
        let source = report.add(Path::new("f.md"), format!("---\n{text}---\n"));
        let node = parse(&mut report, source, 4..4 + text.len());
        match report.finish() {
            Ok(_) => Ok(node.expect("no error was reported")),
            Err(errors) => Err(errors.to_string()),
        }
    }

    #[test]
    fn values_have_their_places_in_the_file() {
        let node = read("a: b\nlist: [1, \"2\"]\n").unwrap();
        let list = node.get("list").unwrap();
        let Value::List(items) = &list.value else { panic!("{list:?}") };
        assert_eq!(items[0].value, Value::Scalar { text: "1".to_owned(), plain: true });
        assert_eq!(items[1].value, Value::Scalar { text: "2".to_owned(), plain: false });
        assert_eq!((items[1].span.start, items[1].span.end), (19, 22));
        assert_eq!(node.get("a").unwrap().span.start, 7);
        assert_eq!(read("").unwrap().value, Value::Null);
        assert_eq!(read("# nothing\n").unwrap().value, Value::Null);
    }

    #[test]
    fn what_is_not_plain_data_is_refused() {
        for (text, part) in [
            ("a: &x b\n", "anchors"),
            ("a: *x\n", "needs quotes"),
            ("a: !x b\n", "tags"),
            ("a: &x 1\n<<: *x\n", "anchors"),
            ("<<: {a: b}\n", "merge keys"),
            ("? [a]\n: b\n", "a key must be"),
            ("a: b: c\n", "needs quotes"),
            ("a: [1\n", "cannot be read"),
            ("%YAML 1.1\n", "cannot be read"),
            ("a: \"\n", "cannot be read"),
            ("a: 1\n...\nb: 2\n", "second YAML document"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
        let deep = |n: usize| format!("a: {}{}\n", "[".repeat(n), "]".repeat(n));
        assert!(read(&deep(DEPTH_MAX)).is_ok());
        assert!(read(&deep(DEPTH_MAX + 1)).is_err());
        assert!(read(&deep(100_000)).is_err());
    }

    #[test]
    fn a_key_stands_once() {
        let error = read("a: 1\nb: {c: 1, c: 2}\na: 2\n").unwrap_err();
        assert!(error.contains("`c` is written twice") && error.contains("`a` is written twice"), "{error}");
        assert!(error.contains("the first is on line 2"), "{error}");
    }
}
