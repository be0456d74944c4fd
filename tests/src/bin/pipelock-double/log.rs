//! The log: one JSON object a line on standard output, with the real one's names.

use serde_json::{Map, Value, json};
use std::io::Write;

/// A line's kind of gravity.
#[derive(Debug, Clone, Copy)]
pub enum Level {
    Info,
    Warn,
    Error,
}

/// Writes an event. `fields` is an object.
pub fn event(level: Level, event: &str, message: &str, fields: Value) {
    let mut line = Map::new();
    let level = match level {
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    line.insert("level".into(), json!(level));
    line.insert("component".into(), json!("pipelock"));
    line.insert("event".into(), json!(event));
    if let Value::Object(fields) = fields {
        line.extend(fields.into_iter().filter(|(_, value)| value.as_str() != Some("")));
    }
    line.insert("time".into(), json!(jiff::Timestamp::now().to_string()));
    line.insert("message".into(), json!(message));
    let mut text = Value::Object(line).to_string();
    text.push('\n');
    // A reader that is gone is no reason to stop serving; whoever wants the end closes our life otherwise.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Writes a line to standard error, where the real one speaks to people.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
