//! An agent's file: the header of a Claude Code subagent plus `bottle` and `skills`; the body is the system prompt.

use super::name::Name;
use super::places::Places;
use super::reader::{Table, text, text_or_texts};
use super::report::{Report, Span};
use super::tree::{Entry, Node};
use super::{Agent, skill};

/// Whose file it is. A repository's may have been written by an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// In the user's configuration directory.
    User,
    /// In a repository: it cannot choose the bottle it runs in.
    Repository,
}

/// Reads an agent's header and body. `top` is the first line of its file. `None` only after an error.
pub(super) fn read(
    name: &Name,
    (node, body): (&Node, &str),
    top: Span,
    origin: Origin,
    places: &Places,
    report: &mut Report,
) -> Option<Agent> {
    let mut table = Table::open(node, "the agent", top, report)?;
    if let Some(written) = table.take("name").and_then(|entry| one_line(entry, report))
        && written != name.as_str()
    {
        report.warn(
            top,
            &format!("the file calls its agent `{}`; `{name}` is what it runs as", super::error::quoted(&written)),
        );
    }
    let description = table.take("description").and_then(|entry| one_line(entry, report)).unwrap_or_default();
    for key in ["model", "color", "memory"] {
        if let Some(entry) = table.take(key) {
            one_line(entry, report);
        }
    }
    if let Some(entry) = table.take("tools") {
        text_or_texts(&entry.value, "`tools`", report);
    }
    let bottle = table.take("bottle").and_then(|entry| bottle(entry, origin, report));
    let skills = skill::read(table.take("skills"), places, report);
    table.finish(report);
    Some(Agent {
        name: name.to_string(),
        file: report.file(top.source).to_owned(),
        bottle,
        description,
        prompt: body.trim().to_owned(),
        skills,
    })
}

/// A text in which every run of white space has become one space.
fn one_line(entry: &Entry, report: &mut Report) -> Option<String> {
    let text = text(&entry.value, &format!("`{}`", entry.key), report)?;
    Some(text.text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn bottle(entry: &Entry, origin: Origin, report: &mut Report) -> Option<String> {
    if origin == Origin::Repository {
        report.warn(entry.at, "`bottle` in a repository's file is ignored: an agent could have written it");
        return None;
    }
    let text = text(&entry.value, "`bottle`", report)?;
    match Name::parse(&text.text) {
        Ok(name) => Some(name.to_string()),
        Err(error) => {
            report.error(text.at, error.to_string());
            None
        }
    }
}
