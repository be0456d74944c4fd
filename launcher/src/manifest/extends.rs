//! A bottle's file with those it extends: parent first, the child wins, lists append.

use super::catalog::{bottle_names, no_such};
use super::frontmatter::{self, Manifest};
use super::name::Name;
use super::places::Places;
use super::reader::text;
use super::report::{Report, Span};
use super::tree::{Node, Value, merge};
use super::yaml;

/// Bottles in one line of descent.
const CHAIN_MAX: usize = 8;

/// The merged header of a bottle whose file is there, and what is the bottle's own. `None` when that file cannot be read;
/// where one that it extends cannot be read, what is there, so that the rest is looked at as well.
pub(super) fn read(name: &Name, places: &Places, report: &mut Report) -> Option<Manifest> {
    let mut chain = vec![name.clone()];
    let mut manifest = frontmatter::read(&bottle_file(name, places), "the bottle", yaml::parse, report)?;
    let mut headers = Vec::new();
    let before = report.errors();
    let mut next = parent(&manifest.node, report);
    while let Some((name, _)) = next.take().filter(|(name, at)| extendable(name, *at, &chain, places, report)) {
        let file = bottle_file(&name, places);
        if let Some(read) = frontmatter::read(&file, "the bottle", yaml::parse, report) {
            next = parent(&read.node, report);
            headers.push(read.node);
            chain.push(name);
        }
    }
    report.parent_is_unread(report.errors() > before);
    for mut header in headers {
        give_way(&mut header, &manifest.node);
        manifest.node = merge(header, manifest.node);
    }
    Some(manifest)
}

/// The file of a bottle.
pub(super) fn bottle_file(name: &Name, places: &Places) -> std::path::PathBuf {
    places.bottles().join(format!("{name}.md"))
}

fn parent(node: &Node, report: &mut Report) -> Option<(Name, Span)> {
    let text = text(node.get("extends")?, "`extends`", report)?;
    match Name::parse(&text.text) {
        Ok(name) => Some((name, text.at)),
        Err(error) => {
            report.error(text.at, error.to_string());
            None
        }
    }
}

fn extendable(parent: &Name, at: Span, chain: &[Name], places: &Places, report: &mut Report) -> bool {
    if chain.contains(parent) {
        let mut names: Vec<&str> = chain.iter().map(Name::as_str).collect();
        names.push(parent.as_str());
        report.error(at, format!("bottles extend one another in a circle: {}", names.join(" -> ")));
        return false;
    }
    if chain.len() >= CHAIN_MAX {
        report.error(at, format!("more than {CHAIN_MAX} bottles extend one another"));
        return false;
    }
    if std::fs::symlink_metadata(bottle_file(parent, places)).is_err() {
        let hint = no_such(parent.as_str(), &bottle_names(places));
        report.error_with(at, format!("there is no bottle `{parent}`"), hint);
        return false;
    }
    true
}

/// Image and Dockerfile exclude one another, so a child that has either takes both from its parent.
fn give_way(parent: &mut Node, child: &Node) {
    let chosen = child.get("agent").is_some_and(|agent| agent.get("image").or(agent.get("dockerfile")).is_some());
    if !chosen {
        return;
    }
    let Value::Map(entries) = &mut parent.value else { return };
    for entry in entries.iter_mut().filter(|entry| entry.key == "agent") {
        if let Value::Map(keys) = &mut entry.value.value {
            keys.retain(|key| key.key != "image" && key.key != "dockerfile");
        }
    }
}
