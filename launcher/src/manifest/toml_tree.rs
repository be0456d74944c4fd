//! TOML text to a [`Node`], so that `config.toml` is read by the same strict reader as the manifests.

use super::report::{Report, Span};
use super::tree::{Entry, Node, Value};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Reads a file of the load. `None` after errors were reported.
pub(super) fn parse(report: &mut Report, source: usize) -> Option<Node> {
    let text = report.text(source);
    let (table, errors) = DeTable::parse_recoverable(&text);
    for error in &errors {
        let at = error.span().unwrap_or(0..0);
        report.error(span(source, at), format!("the TOML cannot be read: {}", error.message()));
    }
    if !errors.is_empty() {
        return None;
    }
    Some(Node { span: span(source, table.span()), value: map(source, table.get_ref()) })
}

fn node(source: usize, value: &Spanned<DeValue<'_>>) -> Node {
    let plain = |text: &str| Value::Scalar { text: text.to_owned(), plain: true };
    let read = match value.get_ref() {
        DeValue::String(text) => Value::Scalar { text: text.clone().into_owned(), plain: false },
        // Base 10 alone is read as a number further on; 0x10 then is an error with its place.
        DeValue::Integer(number) if number.radix() == 10 => plain(number.as_str()),
        DeValue::Integer(number) => plain(&format!("{} in base {}", number.as_str(), number.radix())),
        DeValue::Float(number) => plain(number.as_str()),
        DeValue::Boolean(truth) => plain(if *truth { "true" } else { "false" }),
        DeValue::Datetime(time) => plain(&time.to_string()),
        DeValue::Array(items) => Value::List(items.iter().map(|item| node(source, item)).collect()),
        DeValue::Table(table) => map(source, table),
    };
    Node { span: span(source, value.span()), value: read }
}

fn map(source: usize, table: &DeTable<'_>) -> Value {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().clone().into_owned(),
            at: span(source, key.span()),
            value: node(source, value),
        })
        .collect();
    entries.sort_by_key(|entry| entry.at.start);
    Value::Map(entries)
}

fn span(source: usize, range: Range<usize>) -> Span {
    Span { source, start: range.start, end: range.end }
}
