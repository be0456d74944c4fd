//! A file's data with the place of every part: what YAML and TOML become before anything is believed about it.

use super::report::Span;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Nothing was written.
    Null,
    /// Text as written, escapes resolved.
    Scalar {
        text: String,
        /// Written without quotes, so it may be a number or a truth value as well.
        plain: bool,
    },
    /// Values in order.
    List(Vec<Node>),
    /// Keys in order, each once.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Span,
    pub(super) value: Node,
}

impl Node {
    /// The part of the node that is worth marking: of a map its first key.
    pub(super) fn head(&self) -> Span {
        match &self.value {
            Value::Map(entries) => entries.first().map_or(self.span, |entry| entry.at),
            Value::Null | Value::Scalar { .. } | Value::List(_) => self.span,
        }
    }

    /// What it is, in an operator's words.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a table of keys",
        }
    }

    /// The value of a key, where this is a map that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            Value::Null | Value::Scalar { .. } | Value::List(_) => None,
        }
    }
}

/// A child over its parent: tables are merged key by key, lists append, everything else is the child's.
pub(super) fn merge(parent: Node, child: Node) -> Node {
    let value = match (parent.value, child.value) {
        (Value::Map(parents), Value::Map(children)) => Value::Map(merge_entries(parents, children)),
        (Value::List(mut parents), Value::List(children)) => {
            parents.extend(children);
            Value::List(parents)
        }
        (parent @ (Value::Map(_) | Value::List(_)), Value::Null) => parent,
        (_, child) => child,
    };
    Node { span: child.span, value }
}

fn merge_entries(parents: Vec<Entry>, mut children: Vec<Entry>) -> Vec<Entry> {
    let mut merged = Vec::with_capacity(parents.len() + children.len());
    for parent in parents {
        match children.iter().position(|child| child.key == parent.key) {
            Some(at) => {
                let child = children.remove(at);
                merged.push(Entry { key: child.key, at: child.at, value: merge(parent.value, child.value) });
            }
            None => merged.push(parent),
        }
    }
    merged.extend(children);
    merged
}
