//! Which agents and bottles there are, without launching any: for `list`, for `check`, and for "did you mean".

use super::agent::{self, Origin};
use super::error::{LoadErrors, path};
use super::name::Name;
use super::places::Places;
use super::report::{Report, Unreadable, read_text};
use super::suggest::did_you_mean;
use super::user_config::{self, UserConfig};
use super::{bottle, extends, frontmatter, subagent};
use std::path::{Path, PathBuf};

/// Characters of a description that a list shows.
const DESCRIPTION_CHARS_MAX: usize = 200;

/// Files of one folder that are looked at.
const FILES_MAX: usize = 1000;

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Agents, by name; the one that runs before the one it hides.
    pub agents: Vec<Listed>,
    /// Bottles, by name.
    pub bottles: Vec<Listed>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// One agent or bottle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// One line for people; a bottle's is the first line of its notes.
    pub description: String,
    /// Whose file it is.
    pub origin: Origin,
    /// Another file of the same name is used in its stead.
    pub hidden: bool,
    /// The first thing that is wrong with it.
    pub problem: Option<String>,
}

/// Lists agents and bottles. A file that is wrong is in the list with its first error.
pub fn list(places: &Places) -> Listing {
    let user = user_config::read(places, &mut Report::default());
    let mut agents: Vec<Listed> = Vec::new();
    for (name, file, origin) in agent_files(places) {
        let hidden = agents.iter().any(|listed| listed.name == name.as_str());
        agents.push(listed_agent(&name, file, origin, hidden, places));
    }
    let bottles = names(&places.bottles()).into_iter().map(|(name, file)| listed_bottle(&name, file, &user, places));
    Listing { agents, bottles: bottles.collect(), warnings: ignored_bottles(places).into_iter().collect() }
}

/// Loads every file there is and gives all warnings, or all errors.
pub fn check(places: &Places) -> Result<Vec<String>, LoadErrors> {
    let mut report = Report::default();
    let user = user_config::read(places, &mut report);
    let known = bottle_names(places);
    if let Some(default) = user.default_bottle.as_deref().filter(|name| !known.iter().any(|k| k == name)) {
        let message = format!("there is no bottle `{default}`, which `bottle` names");
        report.error_of(Some(&places.user_config()), message, no_such(default, &known));
    }
    for (name, file, origin) in agent_files(places) {
        let Some(manifest) = frontmatter::read(&file, "the agent", subagent::parse, &mut report) else { continue };
        let header = (&manifest.node, manifest.body.as_str());
        let agent = agent::read(&name, header, manifest.top, origin, places, &mut report);
        if let Some(bottle) = agent.and_then(|agent| agent.bottle).filter(|name| !known.contains(name)) {
            let message = format!("there is no bottle `{bottle}`, which the agent names");
            report.error_of(Some(&file), message, no_such(&bottle, &known));
        }
    }
    for (name, _) in names(&places.bottles()) {
        let Some(manifest) = extends::read(&name, places, &mut report) else { continue };
        bottle::read(&name, &manifest.node, manifest.top, &user, places, &mut report);
    }
    if let Some(warning) = ignored_bottles(places) {
        report.warn_of(warning);
    }
    report.finish()
}

/// The names of all bottles.
pub(super) fn bottle_names(places: &Places) -> Vec<String> {
    names(&places.bottles()).into_iter().map(|(name, _)| name.to_string()).collect()
}

/// The names of all agents.
pub(super) fn agent_names(places: &Places) -> Vec<String> {
    let mut names: Vec<String> = agent_files(places).into_iter().map(|(name, ..)| name.to_string()).collect();
    names.dedup();
    names
}

/// The hint of a name that does not exist.
pub(super) fn no_such(name: &str, known: &[String]) -> String {
    did_you_mean(name, known.iter().map(String::as_str)).unwrap_or_else(|| match known {
        [] => "there are none yet: `launcher init` writes a first agent with its bottle".to_owned(),
        known => format!("there are: {}", known.join(", ")),
    })
}

/// The warning about bottles in a repository.
pub(super) fn ignored_bottles(places: &Places) -> Option<String> {
    let folder = places.repository.as_ref()?.join(".bottle").join("bottles");
    let there = folder.symlink_metadata().is_ok();
    there.then(|| {
        let (folder, config) = (path(&folder), path(&places.bottles()));
        format!("{folder} is ignored: bottles hold trust, so they load from {config} alone")
    })
}

/// A repository's file, unless a link in its path leads out of the repository.
pub(super) fn inside(repository: &Path, file: &Path) -> Result<PathBuf, Unreadable> {
    let bad = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Unreadable::Missing,
        _ => Unreadable::Io(error),
    };
    let real = file.canonicalize().map_err(bad)?;
    if real.starts_with(repository.canonicalize().map_err(bad)?) { Ok(real) } else { Err(Unreadable::Outside) }
}

/// Name, file and origin of every agent, by name, the user's before the repository's.
fn agent_files(places: &Places) -> Vec<(Name, PathBuf, Origin)> {
    let own = names(&places.agents()).into_iter().map(|(name, file)| (name, file, Origin::User));
    let theirs = places.repository_agents().map(|folder| names(&folder)).unwrap_or_default().into_iter();
    let theirs = theirs.filter(|(_, file)| places.repository.as_ref().is_some_and(|top| inside(top, file).is_ok()));
    let mut all: Vec<_> = own.chain(theirs.map(|(name, file)| (name, file, Origin::Repository))).collect();
    // A stable sort: of one name the user's file stays first.
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The manifests in a folder, by name. A folder that cannot be read has none.
fn names(folder: &Path) -> Vec<(Name, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let files = entries.take(FILES_MAX).filter_map(|entry| Some(entry.ok()?.path()));
    let mut names: Vec<(Name, PathBuf)> = files
        .filter_map(|file| Some((Name::parse(file.file_name()?.to_str()?.strip_suffix(".md")?).ok()?, file)))
        .collect();
    names.sort();
    names
}

fn listed_agent(name: &Name, file: PathBuf, origin: Origin, hidden: bool, places: &Places) -> Listed {
    let mut report = Report::default();
    let agent = frontmatter::read(&file, "the agent", subagent::parse, &mut report).and_then(|manifest| {
        agent::read(name, (&manifest.node, manifest.body.as_str()), manifest.top, origin, places, &mut report)
    });
    let description = agent.map(|agent| agent.description).unwrap_or_default();
    let problem = first_problem(report);
    Listed { name: name.to_string(), file, description: short(&description), origin, hidden, problem }
}

fn listed_bottle(name: &Name, file: PathBuf, user: &UserConfig, places: &Places) -> Listed {
    let mut report = Report::default();
    let manifest = extends::read(name, places, &mut report);
    if let Some(manifest) = &manifest {
        bottle::read(name, &manifest.node, manifest.top, user, places, &mut report);
    }
    let notes = read_text(&file).ok().and_then(|text| {
        let body = frontmatter::split(&text).ok()?.body;
        text[body].lines().map(|line| line.trim_start_matches('#').trim()).find(|line| !line.is_empty()).map(short)
    });
    Listed {
        name: name.to_string(),
        file,
        description: notes.unwrap_or_default(),
        origin: Origin::User,
        hidden: false,
        problem: first_problem(report),
    }
}

fn first_problem(report: Report) -> Option<String> {
    let errors = report.finish().err()?;
    let first = errors.errors.into_iter().next()?;
    let line = first.place.map(|place| format!("line {}: ", place.line)).unwrap_or_default();
    Some(format!("{line}{}", first.message))
}

fn short(text: &str) -> String {
    super::error::shortened(text, DESCRIPTION_CHARS_MAX)
}
