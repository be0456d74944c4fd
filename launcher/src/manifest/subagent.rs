//! Headers of subagents as people write them: one `key: text` a line, where the text holds `: ` without quotes and so
//! is no YAML. Read like this only after the YAML parser has refused, and only where every line has that form.

use super::report::{Report, Span};
use super::tree::{Entry, Node, Value};
use super::yaml;
use std::ops::Range;

/// Keys of such a header; a subagent has six.
const KEYS_MAX: usize = 32;

/// What begins a value that is more than the text of its line in YAML.
const YAML_STARTS: &str = "'\"[{|>&*!%@`#";

/// Reads the header `range` of an agent's file. `None` after an error was reported.
pub(super) fn parse(report: &mut Report, source: usize, range: Range<usize>) -> Option<Node> {
    let file = report.file(source).to_owned();
    let text = report.text(source);
    // Asked of a report of its own, so that nothing is said where the lines can be read.
    let mut asked = Report::default();
    let alone = asked.add(&file, text.to_string());
    if yaml::parse(&mut asked, alone, range.clone()).is_none()
        && let Some(node) = lines(&text, source, range.clone())
    {
        return Some(node);
    }
    yaml::parse(report, source, range)
}

fn lines(text: &str, source: usize, range: Range<usize>) -> Option<Node> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut start = range.start;
    for line in text[range.clone()].split_inclusive('\n') {
        let begin = start;
        start += line.len();
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if entries.len() == KEYS_MAX {
            return None;
        }
        let (key, value) = line.split_once(':')?;
        let word = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let separate = value.is_empty() || value.starts_with(' ');
        let trimmed = value.trim_start();
        if !word
            || !separate
            || trimmed.starts_with(|c| YAML_STARTS.contains(c))
            || entries.iter().any(|e| e.key == key)
        {
            return None;
        }
        let span = |from: usize, to: usize| Span { source, start: begin + from, end: begin + to };
        let value =
            if trimmed.is_empty() { Value::Null } else { Value::Scalar { text: trimmed.to_owned(), plain: true } };
        let node = Node { span: span(line.len() - trimmed.len(), line.len()), value };
        entries.push(Entry { key: key.to_owned(), at: span(0, key.len()), value: node });
    }
    Some(Node { span: Span { source, start: range.start, end: range.end }, value: Value::Map(entries) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(text: &str) -> Result<Node, String> {
        let mut report = Report::default();
        let source = report.add(Path::new("f.md"), text.to_owned());
        let node = parse(&mut report, source, 0..text.len());
        report.finish().map_err(|errors| errors.to_string()).map(|_| node.expect("no error was reported"))
    }

    fn text_of<'n>(node: &'n Node, key: &str) -> &'n str {
        match &node.get(key).unwrap().value {
            Value::Scalar { text, .. } => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_line_that_is_no_yaml_is_read_as_its_text() {
        let text = "name: coder\n# c\n\ndescription: Use it so: user: \"go\" # now\nbottle: dev\ncolor:\n";
        let node = read(text).unwrap();
        assert_eq!(text_of(&node, "description"), "Use it so: user: \"go\" # now");
        assert_eq!(text_of(&node, "bottle"), "dev");
        assert_eq!(node.get("color").unwrap().value, Value::Null);
        let span = node.get("bottle").unwrap().span;
        assert_eq!(&text[span.start..span.end], "dev");
    }

    #[test]
    fn yaml_is_read_as_yaml_and_other_forms_stay_errors() {
        assert_eq!(text_of(&read("description: a # b\n").unwrap(), "description"), "a");
        for text in [
            "d: a: b\n  c: d\n",
            "d: a: b\nd: c\n",
            "d: a: b\ntools: [x]\n",
            "d: a: b\nx: &y z\n",
            "d: a: b\n- x\n",
            "x: &y z\n",
            "d: \"a: b\n",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}
