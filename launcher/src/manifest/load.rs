//! What a launch reads: the user's defaults, the agent's file and the bottle's, with everything that is wrong in any
//! of them shown at once. It reads files and changes nothing.

use super::agent::{self, Origin};
use super::catalog::{agent_names, bottle_names, ignored_bottles, inside, no_such};
use super::error::{LoadErrors, path, quoted};
use super::name::Name;
use super::places::Places;
use super::reader::Text;
use super::report::{Report, Span, read_text};
use super::user_config::{self, UserConfig};
use super::{Agent, Bottle, bottle, extends, frontmatter, subagent};
use crate::provider::Provider;
use std::path::{Path, PathBuf};

/// What a launch needs of the manifests.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Who works.
    pub agent: Agent,
    /// Where.
    pub bottle: Bottle,
    /// The user's defaults.
    pub user: UserConfig,
    /// What the operator should know and that stops nothing; each a line.
    pub warnings: Vec<String>,
}

/// Loads an agent and its bottle: the one named on the command line, or in the agent's file where that is the user's
/// own, or the user's default one.
pub fn load(places: &Places, agent: &str, bottle: Option<&str>) -> Result<Loaded, LoadErrors> {
    let mut report = Report::default();
    let user = user_config::read(places, &mut report);
    let certain = report.errors() == 0;
    let agent = read_agent(agent, places, &mut report);
    let chosen = choose(bottle, agent.as_ref(), &user, certain, &mut report);
    let bottle = chosen.and_then(|(name, by)| read_bottle(&name, by, &user, places, &mut report));
    if let Some(warning) = ignored_bottles(places) {
        report.warn_of(warning);
    }
    if let (Some(agent), Some(bottle)) = (&agent, &bottle)
        && let provider = &bottle.agent.provider
        && provider.skills.is_none()
        && let Some(skill) = agent.skills.iter().chain(&bottle.skills).next()
    {
        report.warn_of(format!(
            "the skill `{}` does not come along: the provider `{}` does not say where it looks for skills",
            skill.name, provider.name
        ));
    }
    let warnings = report.finish()?;
    match (agent, bottle) {
        (Some(agent), Some(bottle)) => Ok(Loaded { agent, bottle, user, warnings }),
        // Whatever is missing was reported, so `finish` has ended the load above; an empty refusal is still a refusal.
        _ => Err(LoadErrors { errors: Vec::new(), more: 0 }),
    }
}

/// The user's defaults; those of the launcher where they cannot be read.
pub fn user(places: &Places) -> UserConfig {
    user_config::read(places, &mut Report::default())
}

/// Loads a provider by its name.
pub fn provider(places: &Places, name: &str) -> Result<Provider, LoadErrors> {
    let mut report = Report::default();
    let source = report.add(Path::new("the command line"), name.to_owned());
    let at = Span { source, start: 0, end: name.len() };
    let provider = super::provider::find(&Text { text: name.to_owned(), at }, places, &mut report);
    report.finish()?;
    provider.ok_or(LoadErrors { errors: Vec::new(), more: 0 })
}

/// Loads one bottle as it would be for an agent: for `show`.
pub fn load_bottle(places: &Places, bottle: &str) -> Result<(Bottle, Vec<String>), LoadErrors> {
    let mut report = Report::default();
    let user = user_config::read(places, &mut report);
    let name = command_line(bottle, &mut report);
    let bottle = name.and_then(|name| read_bottle(&name, Chosen::CommandLine, &user, places, &mut report));
    let warnings = report.finish()?;
    bottle.map(|bottle| (bottle, warnings)).ok_or(LoadErrors { errors: Vec::new(), more: 0 })
}

/// Who named a bottle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chosen {
    CommandLine,
    Agent,
    Default,
}

fn command_line(text: &str, report: &mut Report) -> Option<Name> {
    match Name::parse(text) {
        Ok(name) => Some(name),
        Err(error) => {
            report.error_of(None, error.to_string(), None);
            None
        }
    }
}

fn choose(
    asked: Option<&str>,
    agent: Option<&Agent>,
    user: &UserConfig,
    certain: bool,
    report: &mut Report,
) -> Option<(Name, Chosen)> {
    if let Some(asked) = asked {
        return Some((command_line(asked, report)?, Chosen::CommandLine));
    }
    let agent = agent?;
    let (text, by) = match (&agent.bottle, &user.default_bottle) {
        (Some(own), _) => (own, Chosen::Agent),
        (None, Some(default)) => (default, Chosen::Default),
        (None, None) => {
            // After an error in config.toml nobody knows what its default is.
            if certain {
                let hint = "name one: `--bottle NAME`, `bottle: NAME` in the agent's file of the configuration \
                            directory, or `bottle = \"NAME\"` in config.toml";
                report.error_of(None, format!("no bottle is named for the agent `{}`", agent.name), hint.to_owned());
            }
            return None;
        }
    };
    // Both were read as names; reading them again gives the type that may become a path.
    Name::parse(text).ok().map(|name| (name, by))
}

fn read_bottle(name: &Name, by: Chosen, user: &UserConfig, places: &Places, report: &mut Report) -> Option<Bottle> {
    let file = extends::bottle_file(name, places);
    if file.symlink_metadata().is_err() {
        let by = match by {
            Chosen::CommandLine => "",
            Chosen::Agent => ", which the agent's file names",
            Chosen::Default => ", which config.toml names",
        };
        let hint = no_such(name.as_str(), &bottle_names(places));
        report.error_of(Some(&file), format!("there is no bottle `{name}`{by}"), hint);
        return None;
    }
    let manifest = extends::read(name, places, report)?;
    bottle::read(name, &manifest.node, manifest.top, user, places, report)
}

fn read_agent(text: &str, places: &Places, report: &mut Report) -> Option<Agent> {
    let name = match Name::parse(text) {
        Ok(name) => name,
        Err(error) => {
            report.error_of(None, error.to_string(), no_such(text, &agent_names(places)));
            return None;
        }
    };
    let own = places.agents().join(format!("{name}.md"));
    // Anything of that name in the user's folder counts, also what cannot be read: it must not fall to another's file.
    if own.symlink_metadata().is_ok() {
        return agent_in(&own, &own, &name, (Origin::User, places), report);
    }
    let theirs = places.repository_agents().map(|folder| folder.join(format!("{name}.md")));
    if let (Some(top), Some(file)) = (&places.repository, &theirs)
        && file.symlink_metadata().is_ok()
    {
        return match inside(top, file) {
            Ok(real) => agent_in(file, &real, &name, (Origin::Repository, places), report),
            Err(error) => {
                report.error_of(Some(file), format!("cannot use the agent: {error}"), None);
                None
            }
        };
    }
    no_agent(text, &[Some(own), theirs], places, report);
    None
}

fn agent_in(
    file: &Path,
    real: &Path,
    name: &Name,
    (origin, places): (Origin, &Places),
    report: &mut Report,
) -> Option<Agent> {
    let text = match read_text(real) {
        Ok(text) => text,
        Err(error) => {
            report.error_of(Some(file), format!("cannot use the agent: {error}"), None);
            return None;
        }
    };
    let manifest = frontmatter::parse(file, text, subagent::parse, report)?;
    agent::read(name, (&manifest.node, manifest.body.as_str()), manifest.top, origin, places, report)
}

fn no_agent(name: &str, looked: &[Option<PathBuf>], places: &Places, report: &mut Report) {
    let looked: Vec<String> = looked.iter().flatten().map(|file| path(file)).collect();
    let message = format!("there is no agent `{}`; looked at {}", quoted(name), looked.join(" and "));
    report.error_of(None, message, no_such(name, &agent_names(places)));
}
