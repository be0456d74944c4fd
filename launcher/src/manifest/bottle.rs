//! A bottle's header to a [`Bottle`], with every check there is. What a later version will do is refused by name, so
//! that nobody believes it to be in force.

use super::name::Name;
use super::places::Places;
use super::reader::{Table, text, truth};
use super::report::{Report, Span};
use super::suggest::one_of;
use super::tree::{Entry, Node};
use super::user_config::UserConfig;
use super::{Bottle, Runtime, WorkspaceMode, egress, env, git, limits, route, skill, source};

/// Reads the merged header of a bottle. `top` is the first line of its file, where missing keys are reported. `None`
/// only after an error.
pub(super) fn read(
    name: &Name,
    node: &Node,
    top: Span,
    user: &UserConfig,
    places: &Places,
    report: &mut Report,
) -> Option<Bottle> {
    let mut table = Table::open(node, "the bottle", top, report)?;
    table.take("extends");
    let agent = source::read(table.take("agent"), top, places, report);
    let (mut routes, proxy_limits) = route::read(table.take("cred_proxy"), places, report);
    let routed: Vec<&str> =
        routes.iter().flat_map(|r| &r.route.roles).flat_map(|role| role.variables()).copied().collect();
    let env = env::read(table.take("env"), &routed, report);
    let git = git::read(table.take("git"), &mut routes, places, report);
    let egress = egress::read(table.take("egress"), (&routes, &git.remotes), places, report);
    let limits = limits::read(table.take("limits"), &user.limits, report);
    let supervise = table.take("supervise").and_then(|entry| truth(&entry.value, "`supervise`", report));
    let runtime = table.take("runtime").and_then(|entry| runtime(entry, report));
    let workspace = table.take("workspace").and_then(|entry| workspace(entry, report));
    let skills = skill::read(table.take("skills"), places, report);
    table.finish(report);
    Some(Bottle {
        name: name.to_string(),
        file: report.file(top.source).to_owned(),
        agent: agent?,
        env,
        egress,
        routes: routes.into_iter().map(|read| read.route).collect(),
        git: git.finish(),
        proxy_limits,
        supervise: supervise.unwrap_or(false),
        limits,
        runtime: runtime.or(user.runtime).unwrap_or_default(),
        workspace: workspace.unwrap_or_default(),
        skills,
    })
}

/// Reads `auto`, `runc` or `runsc`.
pub(super) fn runtime(entry: &Entry, report: &mut Report) -> Option<Runtime> {
    choice(entry, &Runtime::WORDS, report)
}

fn workspace(entry: &Entry, report: &mut Report) -> Option<WorkspaceMode> {
    choice(entry, &WorkspaceMode::WORDS, report)
}

/// One of several words.
pub(super) fn choice<T: Copy>(entry: &Entry, words: &[(&'static str, T)], report: &mut Report) -> Option<T> {
    let text = text(&entry.value, &format!("`{}`", entry.key), report)?;
    let found = words.iter().find(|(word, _)| *word == text.text).map(|(_, value)| *value);
    if found.is_none() {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let message = format!("`{}` cannot be `{}`", entry.key, super::error::quoted(&text.text));
        report.error_with(text.at, message, one_of(&text.text, &known));
    }
    found
}
