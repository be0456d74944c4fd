//! The files below the agent's home: what routes and remotes say (see [`roles`]), what its provider adds, and the prompt
//! where that kind of agent reads it; and its skills. Files of one path become one. Pure.

use super::agent::WORKSPACE;
use super::roles::{self, HomeFile};
use crate::manifest::skill::{Skill, SkillFile};
use crate::manifest::{Agent, Bottle};
use crate::provider::{File, Merge, When, merged};

/// All of them; each path once. The error names a path whose texts do not fit together.
pub fn files(bottle: &Bottle, agent: &Agent) -> Result<Vec<HomeFile>, String> {
    let provider = &bottle.agent.provider;
    let mut files = roles::files(&bottle.routes, &bottle.git);
    let there = |file: &&File| file.when == When::Always || bottle.supervise;
    for File { path, merge, text, .. } in provider.files.iter().filter(there) {
        add(&mut files, path, &filled(text), *merge)?;
    }
    if let Some(path) = provider.prompt.as_deref().filter(|_| !agent.prompt.trim().is_empty()) {
        add(&mut files, path, &agent.prompt, Merge::Text)?;
    }
    Ok(files)
}

/// The files of all skills, where that kind of agent looks for them; none where it does not look.
pub fn skills(bottle: &Bottle, agent: &Agent) -> Vec<SkillFile> {
    let Some(folder) = &bottle.agent.provider.skills else { return Vec::new() };
    let mut files = Vec::new();
    for Skill { name, files: own, .. } in names(bottle, agent) {
        files.extend(
            own.iter().map(|file| SkillFile { path: format!("{folder}/{name}/{}", file.path), ..file.clone() }),
        );
    }
    files
}

/// The agent's skills and those of its bottle, each once: the agent's own goes first.
pub fn names<'m>(bottle: &'m Bottle, agent: &'m Agent) -> Vec<&'m Skill> {
    let of_bottle = bottle.skills.iter().filter(|skill| agent.skills.iter().all(|own| own.name != skill.name));
    agent.skills.iter().chain(of_bottle).collect()
}

fn add(files: &mut Vec<HomeFile>, path: &str, text: &str, merge: Merge) -> Result<(), String> {
    match files.iter_mut().find(|file| file.path == path) {
        Some(file) => {
            file.text = merged(merge, &file.text, text).map_err(|reason| format!("a text for ~/{path} is {reason}"))?;
        }
        None => files.push(HomeFile { path: path.to_owned(), text: text.to_owned() }),
    }
    Ok(())
}

/// A provider's text with the places filled in that it names.
fn filled(text: &str) -> String {
    let supervise = format!("http://{}:{}{}", supervise::NAME, supervise::PORT, supervise::config::PATH);
    text.replace("{supervise}", &supervise).replace("{workspace}", WORKSPACE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Places, load::load};

    fn home(header: &str, prompt: &str) -> Vec<HomeFile> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("bottles/dev.md", format!("---\n{header}---\n")),
            ("agents/coder.md", format!("---\nbottle: dev\n---\n{prompt}\n")),
        ] {
            std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let places = Places { config: dir.path().to_owned(), repository: None, home: None };
        let loaded = load(&places, "coder", None).unwrap_or_else(|errors| panic!("{errors}"));
        files(&loaded.bottle, &loaded.agent).unwrap()
    }

    fn text<'f>(files: &'f [HomeFile], path: &str) -> &'f str {
        &files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{path}: {files:?}")).text
    }

    #[test]
    fn claude_code_asks_nothing_and_knows_supervise_where_there_is_one() {
        let without = home("agent: {provider: claude}\n", "Write code.");
        let with = home("agent: {provider: claude}\nsupervise: true\n", "Write code.");
        let json = |files: &[HomeFile]| serde_json::from_str::<serde_json::Value>(text(files, ".claude.json")).unwrap();
        for files in [&without, &with] {
            assert_eq!(json(files)["hasCompletedOnboarding"], true);
            assert_eq!(json(files)["projects"][WORKSPACE]["hasTrustDialogAccepted"], true);
            assert_eq!(text(files, ".claude/CLAUDE.md").trim(), "Write code.");
        }
        assert_eq!(json(&with)["mcpServers"]["supervise"]["url"], "http://supervise:9100/mcp");
        assert!(json(&without).get("mcpServers").is_none());
        // It asks about a key that it does not know by these last characters.
        let known = json(&with)["customApiKeyResponses"]["approved"][0].as_str().unwrap().to_owned();
        assert!(known.len() == 20 && roles::PLACEHOLDER.ends_with(&known), "{known}");
    }

    #[test]
    fn codex_has_one_file_for_its_model_and_its_tools() {
        let route = "cred_proxy: {routes: [{path: /o/, upstream: 'https://api.openai.com', auth_scheme: none, role: \
                     openai-base-url}]}\n";
        let files = home(&format!("agent: {{provider: codex}}\nsupervise: true\n{route}"), "");
        let config: toml::Table = toml::from_str(text(&files, ".codex/config.toml")).unwrap();
        assert_eq!(config["model_provider"].as_str(), Some("cred-proxy"));
        assert_eq!(config["approval_policy"].as_str(), Some("never"));
        assert_eq!(config["mcp_servers"]["supervise"]["url"].as_str(), Some("http://supervise:9100/mcp"));
        assert_eq!(config["projects"][WORKSPACE]["trust_level"].as_str(), Some("trusted"));
        assert!(files.iter().all(|file| file.path != ".codex/AGENTS.md"), "no prompt, no file: {files:?}");
    }

    #[test]
    fn skills_lie_where_the_agent_looks_for_them_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(name), text).unwrap();
        };
        write("skills/review/SKILL.md", "mine");
        write("home/.claude/skills/review/SKILL.md", "another");
        write("home/.claude/skills/plan/SKILL.md", "of Claude Code");
        write("agents/coder.md", "---\nbottle: dev\nskills: [review]\n---\n");
        let places = Places { config: dir.path().to_owned(), repository: None, home: Some(dir.path().join("home")) };
        let found = |provider: &str| {
            write("bottles/dev.md", &format!("---\nagent: {{{provider}}}\nskills: [plan, review]\n---\n"));
            let loaded = load(&places, "coder", None).unwrap_or_else(|errors| panic!("{errors}"));
            let files = skills(&loaded.bottle, &loaded.agent);
            files.into_iter().map(|f| (f.path, String::from_utf8(f.content).unwrap())).collect::<Vec<_>>()
        };
        for (provider, folder) in [("claude", ".claude/skills"), ("codex", ".codex/skills")] {
            let expected = [("review", "mine"), ("plan", "of Claude Code")]
                .map(|(name, text)| (format!("{folder}/{name}/SKILL.md"), text.to_owned()));
            assert_eq!(found(&format!("provider: {provider}")), expected);
        }
        assert!(found("image: 'debian:bookworm-slim'").is_empty());
    }

    #[test]
    fn a_program_of_any_kind_has_no_files_of_its_own() {
        assert!(home("agent: {image: 'debian:bookworm-slim'}\nsupervise: true\n", "Write code.").is_empty());
    }
}
