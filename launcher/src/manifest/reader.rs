//! Reads a [`Node`] strictly: each key is asked for once, what nobody asked for is an error, and every error has its
//! place. Nothing here stops at the first error.

use super::error::quoted;
use super::report::{Report, Span};
use super::suggest::did_you_mean;
use super::tree::{Entry, Node, Value};
use std::borrow::Cow;

/// A text and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) at: Span,
}

/// A table that is being read.
pub(super) struct Table<'n> {
    entries: &'n [Entry],
    taken: Vec<bool>,
    known: Vec<&'static str>,
    what: Cow<'static, str>,
    /// Where to say that something is missing.
    at: Span,
}

impl<'n> Table<'n> {
    /// A node that must be a table; nothing is the empty one. `what` is what errors call it.
    pub(super) fn open(
        node: &'n Node,
        what: impl Into<Cow<'static, str>>,
        at: Span,
        report: &mut Report,
    ) -> Option<Self> {
        let what = what.into();
        let entries: &[Entry] = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            Value::Scalar { .. } | Value::List(_) => {
                report.error(node.head(), format!("{what} must be a table of keys, not {}", node.kind()));
                return None;
            }
        };
        Some(Self { entries, taken: vec![false; entries.len()], known: Vec::new(), what, at })
    }

    /// The entry of a key.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'n Entry> {
        self.known.push(key);
        self.find(key)
    }

    /// The entry of a key that has an older spelling; both at once is an error.
    pub(super) fn take_or(&mut self, key: &'static str, alias: &str, report: &mut Report) -> Option<&'n Entry> {
        let entry = self.take(key);
        match (entry, self.find(alias)) {
            (Some(entry), Some(twice)) => {
                report.error(twice.at, format!("`{alias}` is another spelling of `{key}`, which is written too"));
                Some(entry)
            }
            (entry, alias) => entry.or(alias),
        }
    }

    /// Says that a key is missing.
    pub(super) fn missing(&self, key: &str, hint: &str, report: &mut Report) {
        report.missing(self.at, format!("`{key}` is missing in {}", self.what), hint.to_owned());
    }

    /// Takes all entries that are left: a table whose keys are the operator's own.
    pub(super) fn rest(&mut self) -> Vec<&'n Entry> {
        let taken = std::mem::replace(&mut self.taken, vec![true; self.entries.len()]);
        self.entries.iter().zip(taken).filter(|(_, taken)| !taken).map(|(entry, _)| entry).collect()
    }

    /// Says of every key that nobody asked for that it is unknown.
    pub(super) fn finish(self, report: &mut Report) {
        for (entry, _) in self.entries.iter().zip(&self.taken).filter(|(_, taken)| !**taken) {
            // A file may have very many of them; only those that are kept get a hint.
            let hint = (!report.full()).then(|| {
                did_you_mean(&entry.key, self.known.iter().copied())
                    .unwrap_or_else(|| format!("known here: {}", self.known.join(", ")))
            });
            report.error_with(entry.at, format!("unknown key `{}` in {}", quoted(&entry.key), self.what), hint);
        }
    }

    fn find(&mut self, key: &str) -> Option<&'n Entry> {
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        self.taken[at] = true;
        Some(&self.entries[at])
    }
}

/// A single value, as written, that is not empty and has no control characters but newlines and tabs.
pub(super) fn text(node: &Node, what: &str, report: &mut Report) -> Option<Text> {
    let text = any_text(node, what, report)?;
    if text.text.trim().is_empty() {
        report.error(text.at, format!("{what} is empty"));
        return None;
    }
    if text.text.contains(|c: char| c.is_control() && c != '\n' && c != '\t') {
        report.error(text.at, format!("{what} holds a control character"));
        return None;
    }
    Some(text)
}

/// A single value, as written; it may be the empty text in quotes.
pub(super) fn any_text(node: &Node, what: &str, report: &mut Report) -> Option<Text> {
    match &node.value {
        Value::Scalar { text, .. } => Some(Text { text: text.clone(), at: node.span }),
        Value::Null => {
            report.error(node.head(), format!("{what} has no value"));
            None
        }
        Value::List(_) | Value::Map(_) => {
            report.error(node.head(), format!("{what} must be a single value, not {}", node.kind()));
            None
        }
    }
}

/// The nodes of a list; nothing is the empty one.
pub(super) fn list<'n>(node: &'n Node, what: &str, report: &mut Report) -> &'n [Node] {
    match &node.value {
        Value::List(items) => items,
        Value::Null => &[],
        Value::Scalar { .. } | Value::Map(_) => {
            let hint = match &node.value {
                Value::Scalar { text, .. } => Some(format!("write [{}]", quoted(text))),
                Value::Null | Value::List(_) | Value::Map(_) => None,
            };
            report.error_with(node.head(), format!("{what} must be a list, not {}", node.kind()), hint);
            &[]
        }
    }
}

/// A list of texts.
pub(super) fn texts(node: &Node, what: &str, report: &mut Report) -> Vec<Text> {
    list(node, what, report).iter().filter_map(|item| text(item, &format!("an entry of {what}"), report)).collect()
}

/// A list of texts, or a single one.
pub(super) fn text_or_texts(node: &Node, what: &str, report: &mut Report) -> Vec<Text> {
    match &node.value {
        Value::Scalar { .. } => text(node, what, report).into_iter().collect(),
        Value::Null | Value::List(_) | Value::Map(_) => texts(node, what, report),
    }
}

/// `true` or `false`, without quotes.
pub(super) fn truth(node: &Node, what: &str, report: &mut Report) -> Option<bool> {
    match &node.value {
        Value::Scalar { text, plain: true } if text == "true" => Some(true),
        Value::Scalar { text, plain: true } if text == "false" => Some(false),
        Value::Null | Value::Scalar { .. } | Value::List(_) | Value::Map(_) => {
            report.error_with(
                node.head(),
                format!("{what} must be true or false"),
                "write true or false, without quotes".to_owned(),
            );
            None
        }
    }
}
