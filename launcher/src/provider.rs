//! How one kind of agent is started and configured: data, from `providers/*.toml` or a file of the user's. Nothing
//! elsewhere knows one kind of agent from another.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One kind of agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// The name of its file.
    pub name: String,
    /// Where the agent's container comes from when the bottle does not say it.
    pub source: Option<Source>,
    /// The program with its arguments on a terminal; empty: the image's own.
    pub command: Vec<String>,
    /// The same without a terminal, with the prompt on its standard input; empty: `command`.
    pub headless: Vec<String>,
    /// Where below its home it reads instructions that hold for every session: the agent manifest's body goes there.
    pub prompt: Option<String>,
    /// Where below its home it looks for skills, each a folder of its own there.
    #[serde(default)]
    pub skills: Option<String>,
    /// Variables of its program. Those of a bottle's manifest win.
    pub env: BTreeMap<String, String>,
    /// Files below its home.
    pub files: Vec<File>,
}

/// Where a container comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// An image's reference.
    Image(String),
    /// The text of a Dockerfile that this launcher carries, and its name.
    Dockerfile {
        /// Name of the folder in `images/`.
        name: String,
        /// Its text.
        text: String,
    },
}

/// A file below the home of the agent's user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its path, relative to the home.
    pub path: String,
    /// How it is put together with another of the same path.
    pub merge: Merge,
    /// In which bottles.
    pub when: When,
    /// Its content. `{supervise}` stands for the address of supervise's MCP endpoint, `{workspace}` for the folder that
    /// the agent works in.
    pub text: String,
}

/// How files of one path become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Merge {
    /// One after the other.
    #[default]
    Text,
    /// As JSON objects, key by key; the later one wins.
    Json,
    /// As TOML tables, key by key; the later one wins.
    Toml,
}

/// In which bottles something is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// In all.
    #[default]
    Always,
    /// In those with `supervise: true`.
    Supervise,
}

/// The providers that this launcher carries: name, text of the file.
pub const BUILT_IN: [(&str, &str); 3] = [
    ("claude", include_str!("providers/claude.toml")),
    ("codex", include_str!("providers/codex.toml")),
    ("shell", include_str!("providers/shell.toml")),
];

/// The Dockerfiles that this launcher carries: name of the folder in `images/`, text.
pub const DOCKERFILES: [(&str, &str); 2] = [
    ("agent-claude", include_str!("../../images/agent-claude/Dockerfile")),
    ("agent-codex", include_str!("../../images/agent-codex/Dockerfile")),
];

/// Puts two texts of one path together. The error says which of them is not what its format is, without its content.
pub fn merged(format: Merge, before: &str, after: &str) -> Result<String, String> {
    match format {
        Merge::Text => Ok(format!("{before}{}{after}", if before.ends_with('\n') { "" } else { "\n" })),
        Merge::Json => {
            let read =
                |text: &str| serde_json::from_str::<serde_json::Value>(text).map_err(|e| format!("no JSON: {e}"));
            let mut whole = read(before)?;
            merge_json(&mut whole, read(after)?);
            Ok(format!("{whole:#}\n"))
        }
        Merge::Toml => {
            let read =
                |text: &str| toml::from_str::<toml::Table>(text).map_err(|e| format!("no TOML: {}", e.message()));
            let mut whole = read(before)?;
            merge_toml(&mut whole, read(after)?);
            toml::to_string(&whole).map_err(|e| format!("no TOML: {e}"))
        }
    }
}

fn merge_json(into: &mut serde_json::Value, from: serde_json::Value) {
    match (into, from) {
        (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
            for (key, value) in from {
                merge_json(into.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn merge_toml(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(into)), toml::Value::Table(from)) => merge_toml(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_path_become_one() {
        let json = merged(Merge::Json, r#"{"a": {"x": 1, "y": 2}, "b": 1}"#, r#"{"a": {"y": 3}, "c": [1]}"#).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json, serde_json::json!({"a": {"x": 1, "y": 3}, "b": 1, "c": [1]}));
        let toml = merged(Merge::Toml, "top = 1\n[a]\nx = 1\n", "other = 2\n[a]\ny = 2\n[b]\nz = 3\n").unwrap();
        let toml: toml::Table = toml::from_str(&toml).unwrap();
        assert_eq!(toml["a"]["x"].as_integer(), Some(1));
        assert_eq!((toml["a"]["y"].as_integer(), toml["b"]["z"].as_integer()), (Some(2), Some(3)));
        assert_eq!((toml["top"].as_integer(), toml["other"].as_integer()), (Some(1), Some(2)));
        assert_eq!(merged(Merge::Text, "a", "b\n").unwrap(), "a\nb\n");
        assert!(merged(Merge::Json, "{}", "not json").is_err() && merged(Merge::Toml, "a = 1", "= 2").is_err());
    }
}
