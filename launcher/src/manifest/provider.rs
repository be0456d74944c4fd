//! Providers: those that come with the launcher, and the user's own files, read as strictly as a manifest.

use super::error::quoted;
use super::name::Name;
use super::places::Places;
use super::reader::{Table, Text, any_text, list, text, texts};
use super::report::{Report, Span, Unreadable, read_text};
use super::suggest::one_of;
use super::toml_tree;
use super::tree::Entry;
use crate::provider::{BUILT_IN, DOCKERFILES, File, Merge, Provider, Source, When, merged};
use std::collections::BTreeMap;
use std::path::Path;

/// Finds a provider: the user's file of this name, or one that comes with the launcher. `None` after an error.
pub(super) fn find(name: &Text, places: &Places, report: &mut Report) -> Option<Provider> {
    let known = |name: &Name| BUILT_IN.iter().find(|(known, _)| *known == name.as_str());
    let Ok(parsed) = Name::parse(&name.text) else {
        return missing(name, places, report);
    };
    let file = places.providers().join(format!("{parsed}.toml"));
    let (path, content) = match (read_text(&file), known(&parsed)) {
        (Ok(content), _) => (file, content),
        (Err(Unreadable::Missing), Some((_, content))) => {
            (Path::new("the launcher's providers").join(format!("{parsed}.toml")), (*content).to_owned())
        }
        (Err(Unreadable::Missing), None) => return missing(name, places, report),
        (Err(error), _) => {
            report.error_of(Some(&file), format!("cannot use the provider: {error}"), None);
            return None;
        }
    };
    let before = report.errors();
    let source = report.add(&path, content);
    let provider = read(parsed.as_str(), source, report);
    provider.filter(|_| report.errors() == before)
}

fn missing(name: &Text, places: &Places, report: &mut Report) -> Option<Provider> {
    let mut known: Vec<String> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
    // A folder that cannot be read has nothing to suggest.
    for entry in std::fs::read_dir(places.providers()).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        known.extend(file.strip_suffix(".toml").filter(|name| Name::parse(name).is_ok()).map(str::to_owned));
    }
    known.sort();
    known.dedup();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    report.error_with(name.at, format!("there is no provider `{}`", quoted(&name.text)), one_of(&name.text, &known));
    None
}

fn read(name: &str, source: usize, report: &mut Report) -> Option<Provider> {
    let node = toml_tree::parse(report, source)?;
    let top = Span { source, start: 0, end: 0 };
    let mut table = Table::open(&node, "the provider", top, report)?;
    let image = table.take("image").and_then(|entry| image(entry, report));
    let dockerfile = table.take("dockerfile").and_then(|entry| dockerfile(entry, report));
    let command = words(table.take("command"), report);
    let headless = words(table.take("headless"), report);
    let prompt = table.take("prompt").and_then(|entry| path_below_home(entry, report));
    let skills = table.take("skills").and_then(|entry| path_below_home(entry, report));
    let env = table.take("env").map(|entry| variables(entry, report)).unwrap_or_default();
    let files = table.take("file").map(|entry| files(entry, report)).unwrap_or_default();
    table.finish(report);
    Some(Provider {
        name: name.to_owned(),
        source: image.or(dockerfile),
        command,
        headless,
        prompt,
        skills,
        env,
        files,
    })
}

fn image(entry: &Entry, report: &mut Report) -> Option<Source> {
    let text = text(&entry.value, "`image`", report)?;
    if let Err(reason) = super::source::reference(&text.text) {
        report.error(text.at, format!("`{}` is not an image: {reason}", quoted(&text.text)));
        return None;
    }
    Some(Source::Image(text.text))
}

fn dockerfile(entry: &Entry, report: &mut Report) -> Option<Source> {
    let written = text(&entry.value, "`dockerfile`", report)?;
    let Some((name, content)) = DOCKERFILES.iter().find(|(name, _)| *name == written.text) else {
        let known: Vec<&str> = DOCKERFILES.iter().map(|(name, _)| *name).collect();
        let message = format!("this launcher carries no Dockerfile `{}`", quoted(&written.text));
        report.error_with(written.at, message, one_of(&written.text, &known));
        return None;
    };
    Some(Source::Dockerfile { name: (*name).to_owned(), text: (*content).to_owned() })
}

fn words(entry: Option<&Entry>, report: &mut Report) -> Vec<String> {
    let Some(entry) = entry else { return Vec::new() };
    texts(&entry.value, &format!("`{}`", entry.key), report).into_iter().map(|word| word.text).collect()
}

fn variables(entry: &Entry, report: &mut Report) -> BTreeMap<String, String> {
    let Some(mut table) = Table::open(&entry.value, "`env`", entry.at, report) else { return BTreeMap::new() };
    let mut variables = BTreeMap::new();
    for entry in table.rest() {
        if let Err(reason) = super::env::variable(&entry.key) {
            report.error(entry.at, format!("`{}` is not a variable: {reason}", quoted(&entry.key)));
        } else if super::env::RESERVED.contains(&entry.key.as_str()) {
            report.error(entry.at, format!("`{}` is set by the launcher", quoted(&entry.key)));
        } else if let Some(value) = any_text(&entry.value, "a variable", report) {
            variables.insert(entry.key.clone(), value.text);
        }
    }
    variables
}

fn files(entry: &Entry, report: &mut Report) -> Vec<File> {
    let mut files: Vec<File> = Vec::new();
    for node in list(&entry.value, "`file`", report) {
        let Some(mut table) = Table::open(node, "`file`", entry.at, report) else { continue };
        let path = match table.take("path") {
            Some(path) => path_below_home(path, report),
            None => {
                table.missing("path", "where below the agent's home the file is", report);
                None
            }
        };
        let merge =
            word(table.take("merge"), &[("text", Merge::Text), ("json", Merge::Json), ("toml", Merge::Toml)], report);
        let when = word(table.take("when"), &[("always", When::Always), ("supervise", When::Supervise)], report);
        let content = table.take("text");
        if content.is_none() {
            table.missing("text", "the content of the file", report);
        }
        let content = content.and_then(|content| Some((any_text(&content.value, "`text`", report)?, content.at)));
        table.finish(report);
        let (Some(path), Some((content, at))) = (path, content) else { continue };
        // What does not fit together is said now, not when an agent is to be launched.
        let empty = if merge == Merge::Json { "{}" } else { "" };
        if let Err(reason) = merged(merge, empty, &content.text) {
            report.error(at, format!("the text of `{path}` is {reason}"));
        }
        if files.iter().any(|other| other.path == path && other.merge != merge) {
            report.error(at, format!("`{path}` is written twice, and to be merged in two ways"));
        }
        files.push(File { path, merge, when, text: content.text });
    }
    files
}

fn word<T: Copy + Default>(entry: Option<&Entry>, words: &[(&'static str, T)], report: &mut Report) -> T {
    entry.and_then(|entry| super::bottle::choice(entry, words, report)).unwrap_or_default()
}

/// A path that stays below the agent's home.
fn path_below_home(entry: &Entry, report: &mut Report) -> Option<String> {
    let path = text(&entry.value, &format!("`{}`", entry.key), report)?;
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    if path.text.len() > 200 || !path.text.split('/').all(plain) || path.text.contains(['\n', '\t', '\\']) {
        let message = format!("`{}` is not a path below the agent's home", quoted(&path.text));
        report.error_with(
            path.at,
            message,
            "write it without a slash in front, such as `.config/tool.json`".to_owned(),
        );
        return None;
    }
    Some(path.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(name: &str, content: &str) -> (Option<Provider>, Result<Vec<String>, String>) {
        let mut report = Report::default();
        let source = report.add(Path::new("p.toml"), content.to_owned());
        let provider = read(name, source, &mut report);
        (provider, report.finish().map_err(|errors| errors.to_string()))
    }

    #[test]
    fn what_comes_with_the_launcher_can_be_read() {
        for (name, content) in BUILT_IN {
            let (provider, report) = load(name, content);
            report.unwrap_or_else(|errors| panic!("{errors}"));
            let provider = provider.unwrap();
            assert_eq!(provider.name, name);
            assert_eq!(provider.source.is_some(), name != "shell");
            assert_eq!(provider.files.iter().any(|file| file.when == When::Supervise), name != "shell");
        }
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (content, part) in [
            ("comand = []\n", "did you mean `command`?"),
            ("command = \"x\"\n", "must be a list"),
            ("dockerfile = \"agent-clade\"\n", "did you mean `agent-claude`?"),
            ("image = \"-v\"\n", "is not an image"),
            ("prompt = \"../x\"\n", "not a path below the agent's home"),
            ("prompt = \"/etc/passwd\"\n", "not a path below the agent's home"),
            ("[env]\nHTTPS_PROXY = \"x\"\n", "is set by the launcher"),
            ("[env]\n\"A=B\" = \"x\"\n", "is not a variable"),
            ("[[file]]\npath = \"a\"\n", "`text` is missing"),
            ("[[file]]\ntext = \"a\"\n", "`path` is missing"),
            ("[[file]]\npath = \"a\"\ntext = \"x\"\nmerge = \"jsn\"\n", "did you mean `json`?"),
            ("[[file]]\npath = \"a\"\ntext = \"x\"\nmerge = \"json\"\n", "no JSON"),
            ("[[file]]\npath = \"a\"\ntext = \"= x\"\nmerge = \"toml\"\n", "no TOML"),
            (
                "[[file]]\npath = \"a\"\ntext = \"{}\"\nmerge = \"json\"\n[[file]]\npath = \"a\"\ntext = \"\"\n",
                "in two ways",
            ),
        ] {
            let errors = load("p", content).1.expect_err(content);
            assert!(errors.contains(part), "{content}\n{errors}");
            assert!(errors.contains("p.toml:"), "{errors}");
        }
        let content = "image = \"a:1\"\nprompt = \".x/y.md\"\n[env]\nA = \"\"\n[[file]]\npath = \".x/z.json\"\nmerge = \
                       \"json\"\nwhen = \"supervise\"\ntext = \"{}\"\n";
        let (provider, report) = load("p", content);
        report.unwrap();
        assert_eq!(provider.unwrap().source, Some(Source::Image("a:1".to_owned())));
    }
}
