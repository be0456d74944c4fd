//! The documents are true: their commands are commands and do what they say, their manifests have no unknown keys, and the
//! refusals that they quote are those of the code.

#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use bottle_tests::harness::{Site, World};
use bottle_tests::world::Evidence;
use clap::Parser;
use launcher::cli::Cli;
use launcher::manifest::Places;
use launcher::manifest::load::load;
use std::path::{Path, PathBuf};
use std::process::Command;

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(checkout().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

const DOCUMENTS: [&str; 8] = [
    "README.md",
    "docs/manifests.md",
    "CONTRIBUTING.md",
    "images/README.md",
    "docs/refusals.md",
    "docs/guides/run-an-agent.md",
    "docs/guides/deploy-a-sidecar.md",
    "docs/guides/test-with-the-harness.md",
];

/// The fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    text.split(&opening).skip(1).filter_map(|rest| Some(rest.split_once("```")?.0.to_owned())).collect()
}

/// The lines of a document that are commands of the launcher: indented ones, and those of a console.
fn commands(text: &str) -> Vec<String> {
    let plain = |line: &str| line.split("  #").next().unwrap_or_default().trim().to_owned();
    let indented =
        text.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| line.starts_with("launcher "));
    let typed = text.lines().filter_map(|line| line.strip_prefix("$ ")).filter(|line| line.starts_with("launcher "));
    indented.chain(typed).map(plain).collect()
}

/// The words of a command line, as a shell reads single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[test]
fn every_command_in_the_documents_is_one() {
    let mut seen = 0;
    for document in DOCUMENTS {
        for line in commands(&read(document)) {
            seen += 1;
            if let Err(error) = Cli::try_parse_from(words(&line)) {
                panic!("{document}: {line}\n{error}");
            }
        }
    }
    assert!(seen > 25, "{seen}");
    assert!(Cli::try_parse_from(words("launcher rum coder -- 'a b'")).is_err());
}

#[test]
fn no_manifest_in_the_documents_has_an_unknown_key() {
    let mut seen = 0;
    for document in DOCUMENTS {
        for block in blocks(&read(document), "yaml") {
            let dir = tempfile::tempdir().unwrap();
            let write = |name: &str, text: &str| {
                std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
                std::fs::write(dir.path().join(name), text).unwrap();
            };
            let (bottle, agent) = ("---\nagent: {image: a}\n---\n", "---\nbottle: dev\n---\n");
            // A whole file says in its first line which one it is; a part is one of a bottle.
            let (bottle, agent) = match block.lines().next().unwrap_or_default() {
                first if first.contains("/bottles/") => (block.clone(), agent.to_owned()),
                first if first.contains("/agents/") => (bottle.to_owned(), block.clone()),
                // Not every YAML is a manifest: Compose has its own.
                first if !["cred_proxy:", "git:", "egress:", "agent:", "limits:"].contains(&first) => continue,
                _ => (format!("---\nagent: {{image: a}}\n{block}---\n"), agent.to_owned()),
            };
            seen += 1;
            write("bottles/dev.md", &bottle);
            write("agents/coder.md", &agent);
            let places = Places { config: dir.path().to_owned(), repository: None, home: Some("/home/ada".into()) };
            // Files and keys that the example only names are not there; a key that nobody reads is a mistake of the document.
            if let Err(errors) = load(&places, "coder", Some("dev")) {
                let wrong = ["unknown key", "must begin with", "must be", "cannot be"];
                let found = errors.errors.iter().find(|error| wrong.iter().any(|part| error.message.contains(part)));
                assert!(found.is_none(), "{document}: {found:?}\n{block}");
            }
        }
    }
    assert!(seen >= 5, "{seen}");
}

#[test]
fn every_key_of_a_manifest_is_in_the_documents() {
    fn keys(schema: &serde_json::Value, found: &mut Vec<String>) {
        match schema {
            serde_json::Value::Object(object) => {
                if let Some(serde_json::Value::Object(properties)) = object.get("properties") {
                    found.extend(properties.keys().cloned());
                }
                object.values().for_each(|value| keys(value, found));
            }
            serde_json::Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
            _ => {}
        }
    }
    let text = read("docs/manifests.md");
    for schema in [launcher::manifest::schema::bottle(), launcher::manifest::schema::agent()] {
        let mut found = Vec::new();
        keys(&schema, &mut found);
        assert!(found.len() >= 8, "{found:?}");
        for key in found {
            assert!(
                text.contains(&format!("{key}:")) || text.contains(&format!("`{key}`")),
                "{key} is not in docs/manifests.md"
            );
        }
    }
}

#[test]
fn the_guide_to_running_an_agent_runs() {
    let Some(site) = Site::new() else { return };
    let bin = site.path("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_it-launcher"), bin.join("launcher")).unwrap();
    let typed: Vec<String> = blocks(&read("docs/guides/run-an-agent.md"), "console")
        .iter()
        .flat_map(|block| block.lines())
        .filter_map(|line| line.strip_prefix("$ ").map(str::to_owned))
        .collect();
    assert!(typed.len() > 10, "{typed:?}");
    // Names on the engine are shared with the other tests, and there is no registry.
    let (coder, night) = (format!("gc{}", std::process::id()), format!("gn{}", std::process::id()));
    for line in typed {
        let line =
            line.replace("debian:bookworm-slim", &site.clients()).replace("coder", &coder).replace("night", &night);
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        let theirs = site.command();
        shell.envs(theirs.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("PATH", path);
        let output = shell.args(["-ec", &line]).current_dir(site.work()).output().unwrap();
        assert!(output.status.success(), "{line}\n{output:?}");
        if line == "cat greeting" {
            assert_eq!(output.stdout, b"hello\n");
        }
    }
    site.assert_nothing_left();
}

#[test]
fn a_credential_is_put_in_and_never_held() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    site.bottle("dev", &world.bottle_yaml(&site.clients()));
    let name = format!("guide{}", std::process::id());
    site.agent(&name, "dev");
    let bottle = site.run(&name).args(&["--no-workspace"]).detached(&["sleep", "600"]);
    bottle.sh("curl -fsS http://cred-proxy:9099/api/v1/echo").ok();
    let held = bottle.sh("cat /proc/self/environ").ok().stdout;
    assert!(!held.contains(world.canary()));
    let put_in = format!("Bearer {}", world.canary());
    world.wait_for(
        "api",
        "the request with the credential",
        |seen| matches!(seen, Evidence::Request { authorization: Some(shown), .. } if *shown == put_in),
    );
    bottle.stop();
    site.assert_nothing_left();
}

#[test]
fn the_test_of_the_guide_is_the_one_above() {
    let guide = read("docs/guides/test-with-the-harness.md");
    let [block] = &blocks(&guide, "rust")[..] else { panic!("one test is in the guide") };
    assert!(read("tests/tests/docs.rs").contains(block.as_str()), "it reads otherwise in tests/tests/docs.rs");
}

/// All text of a package's sources, with the lines of its string literals joined.
fn source(folders: &[&str]) -> String {
    fn walk(folder: &Path, text: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, text);
            } else if path.extension().is_some_and(|e| e == "rs") {
                text.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut text = String::new();
    folders.iter().for_each(|folder| walk(&checkout().join(folder), &mut text));
    let mut joined = String::new();
    for line in text.lines() {
        match line.trim_end().strip_suffix('\\') {
            Some(start) => joined.push_str(if joined.ends_with('\n') { start } else { start.trim_start() }),
            None if joined.ends_with('\n') || joined.is_empty() => joined.extend([line, "\n"]),
            None => joined.extend([line.trim_start(), "\n"]),
        }
    }
    joined
}

/// What is quoted in the first cells of the tables below a heading.
fn quoted(text: &str, heading: &str) -> Vec<String> {
    let part = text.split("\n## ").find(|part| part.starts_with(heading)).unwrap_or_else(|| panic!("{heading}"));
    let cells =
        part.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(said, _)| said.to_owned()));
    cells.collect()
}

#[test]
fn refusals_are_quoted_as_they_are_said() {
    let text = read("docs/refusals.md");
    for (heading, folders, least) in [
        ("cred-proxy,", &["cred-proxy/src"][..], 15),
        ("git-gate,", &["git-gate/src"], 10),
        ("The launcher,", &["launcher/src"], 8),
    ] {
        let source = source(folders);
        let quotes = quoted(&text, heading);
        assert!(quotes.len() >= least, "{heading}: {quotes:?}");
        for quote in quotes {
            // What differs from case to case is between angle brackets.
            for part in quote.split('<').map(|part| part.rsplit('>').next().unwrap_or_default()) {
                let part = part.trim_matches([' ', '(', ')', ':', ',']);
                assert!(part.len() < 6 || source.contains(part), "{heading} {part:?} of {quote:?} is said nowhere");
            }
        }
    }
    // pipelock's words are those of the contract that its stand-in keeps.
    let double = source(&["tests/src/bin/pipelock-double"]);
    assert!(double.contains("domain not in allowlist: ") && double.contains("CONNECT blocked: "));
}

#[test]
fn every_refusal_of_cred_proxy_is_in_the_documents() {
    let text = read("docs/refusals.md");
    let source = source(&["cred-proxy/src"]);
    let said = source.split("\"cred-proxy: ").skip(1).filter_map(|rest| Some(rest.split_once("\\n\"")?.0));
    let said: Vec<&str> = said.filter(|said| said.len() < 200 && !said.contains('"') && !said.contains('{')).collect();
    assert!(said.len() >= 15, "{said:?}");
    for sentence in said {
        assert!(text.contains(sentence), "docs/refusals.md does not have: cred-proxy: {sentence}");
    }
}
