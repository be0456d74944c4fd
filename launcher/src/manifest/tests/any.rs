//! Whatever a file holds, reading it ends with a bottle, an agent or errors that print.

use crate::manifest::agent::{self, Origin};
use crate::manifest::name::Name;
use crate::manifest::report::Report;
use crate::manifest::{Places, UserConfig, bottle, frontmatter, subagent, toml_tree, yaml};
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_oneof, proptest};
use std::path::Path;

/// Texts made of what manifests are made of, in any order.
fn texts() -> impl Strategy<Value = String> {
    let words = [
        "agent:",
        "image: a",
        "env:",
        "egress:",
        "allowlist:",
        "cred_proxy:",
        "git:",
        "remotes:",
        "name: app",
        "identity_file: k",
        "ssh://a/b",
        "routes:",
        "path: /a/",
        "upstream: ",
        "https://h.org",
        "auth_scheme: ",
        "none",
        "token_ref: ",
        "limits:",
        "cpus: ",
        "extends: ",
        "role: ",
        "---",
        "\n",
        "\n",
        "\n  ",
        "\n    - ",
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        "\"",
        "'",
        "|\n",
        ">",
        "#",
        "&a ",
        "*a",
        "!t ",
        "?",
        "${X}",
        "\t",
        "\u{feff}",
        "\u{e4}",
        "\u{1b}[2J",
        "\r\n",
        "\0",
        "= ",
        "%YAML 1.2",
        "...",
        "<<: ",
        "~",
        "10.0.0.0/8",
    ];
    let word = prop_oneof![9 => prop::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => any::<String>()];
    prop::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn reading_never_panics(body in texts(), fenced in any::<bool>()) {
        let text = if fenced { format!("---\n{body}\n---\n") } else { body };
        let name = Name::parse("dev").unwrap();
        let places = Places { config: "/nowhere".into(), repository: None, home: None };
        let file = Path::new("/nowhere/bottles/dev.md");
        let mut report = Report::default();
        let read = frontmatter::parse(file, text.clone(), yaml::parse, &mut report).and_then(|manifest| {
            bottle::read(&name, &manifest.node, manifest.top, &UserConfig::default(), &places, &mut report)
        });
        let errors = report.finish();
        prop_assert!(read.is_some() || errors.is_err());
        if let Err(errors) = errors {
            let shown = errors.to_string();
            prop_assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
        }
        let mut report = Report::default();
        let read = frontmatter::parse(file, text.clone(), subagent::parse, &mut report).and_then(|manifest| {
            agent::read(&name, (&manifest.node, &manifest.body), manifest.top, Origin::Repository, &places, &mut report)
        });
        prop_assert!(read.is_some() || report.finish().is_err());
        let mut report = Report::default();
        let source = report.add(file, text);
        let read = toml_tree::parse(&mut report, source);
        prop_assert!(read.is_some() || report.finish().is_err());
    }
}
