//! Files that run by themselves: which of the agent's the operator is warned of, and which are never written because a
//! directory would become a git repository by them.

use crate::workspace::changes::AgentTree;
use crate::workspace::tree_path::TreePath;
use std::collections::BTreeSet;

/// Does a tool run this file, or obey it, without being asked to?
pub fn runs_by_itself(path: &TreePath) -> bool {
    let components: Vec<String> = path.components().map(|c| String::from_utf8_lossy(c).to_ascii_lowercase()).collect();
    let name = components.last().map(String::as_str).unwrap_or_default();
    let directories = &components[..components.len().saturating_sub(1)];
    let below = |wanted: &str| directories.iter().any(|d| d == wanted);
    let names = [
        ".envrc",
        ".gitmodules",
        ".gitattributes",
        ".gitconfig",
        ".npmrc",
        ".yarnrc",
        ".yarnrc.yml",
        ".pnpmfile.cjs",
        ".pre-commit-config.yaml",
        "lefthook.yml",
        ".mise.toml",
        "mise.toml",
        ".tool-versions",
        ".exrc",
        ".nvimrc",
        ".vimrc",
        ".nvim.lua",
        ".dir-locals.el",
        ".mcp.json",
        ".gitlab-ci.yml",
        ".direnvrc",
        ".pythonrc",
        "sitecustomize.py",
        "conftest.py",
        ".bazelrc",
        "rust-toolchain",
        "rust-toolchain.toml",
        ".curlrc",
        ".wgetrc",
    ];
    let inside = [
        ".vscode",
        ".idea",
        ".husky",
        ".githooks",
        ".devcontainer",
        ".claude",
        ".codex",
        ".cursor",
        ".zed",
        ".bottle",
        ".fleet",
    ];
    names.contains(&name)
        || name.ends_with(".code-workspace")
        || inside.iter().any(|d| below(d))
        || below(".github") && (below("workflows") || below("actions"))
        || below(".cargo") && name.starts_with("config")
}

/// Do the scripts of two `package.json` differ? Where one does not parse, they do.
pub fn scripts_differ(before: Option<&[u8]>, after: &[u8]) -> bool {
    let scripts = |text: &[u8]| -> Option<serde_json::Value> {
        let package: serde_json::Value = serde_json::from_slice(text).ok()?;
        Some(package.get("scripts").cloned().unwrap_or_default())
    };
    let none = serde_json::Value::Null;
    match (before.map_or(Some(none), scripts), scripts(after)) {
        (Some(before), Some(after)) => before != after,
        _ => true,
    }
}

/// Directories of the agent's tree that git would take for a repository without a `.git`; `None` is the top.
pub fn bare_repositories(tree: &AgentTree) -> BTreeSet<Option<TreePath>> {
    let mut has: std::collections::BTreeMap<Option<TreePath>, [bool; 4]> = std::collections::BTreeMap::new();
    let all = tree.entries.keys().chain(tree.special.keys());
    for path in all.filter(|path| path.git_part().is_none()) {
        let name = path.name().to_ascii_lowercase();
        let Some(at) = [&b"head"[..], b"objects", b"refs", b"commondir"].iter().position(|n| *n == name) else {
            continue;
        };
        has.entry(path.parent()).or_default()[at] = true;
    }
    let bare = |[head, objects, refs, common]: [bool; 4]| head && (common || objects && refs);
    has.into_iter().filter(|(_, has)| bare(*has)).map(|(directory, _)| directory).collect()
}

/// Is this what makes such a directory a repository, or what git would run there?
pub fn is_git_control(path: &TreePath, repositories: &BTreeSet<Option<TreePath>>) -> bool {
    let control = |path: &TreePath| {
        let name = path.name().to_ascii_lowercase();
        let named = matches!(name.as_slice(), b"head" | b"commondir" | b"config" | b"config.worktree" | b"hooks");
        named && repositories.contains(&path.parent())
    };
    control(path) || path.ancestors().any(|ancestor| control(&ancestor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::baseline::Node;

    fn path(p: &str) -> TreePath {
        TreePath::parse(p.as_bytes()).unwrap()
    }

    #[test]
    fn files_that_run_by_themselves_are_seen_and_their_neighbours_are_not() {
        for p in [
            ".envrc",
            "a/.vscode/tasks.json",
            ".idea/x.xml",
            ".github/workflows/ci.yml",
            "x.code-workspace",
            ".husky/pre-commit",
            "sub/.cargo/config.toml",
            ".ENVRC",
        ] {
            assert!(runs_by_itself(&path(p)), "{p}");
        }
        for p in ["envrc", "vscode/tasks.json", ".github/README.md", "Makefile", "cargo/config.toml", "code-workspace"]
        {
            assert!(!runs_by_itself(&path(p)), "{p}");
        }
    }

    #[test]
    fn only_a_change_of_scripts_counts_in_a_package() {
        let old = br#"{"version":"1","scripts":{"test":"x"}}"#;
        assert!(!scripts_differ(Some(old), br#"{"version":"2","scripts":{"test":"x"}}"#));
        assert!(scripts_differ(Some(old), br#"{"version":"1","scripts":{"test":"x","postinstall":"y"}}"#));
        assert!(scripts_differ(None, old));
        assert!(!scripts_differ(None, b"{}"));
        assert!(scripts_differ(Some(old), b"no json"));
    }

    #[test]
    fn a_repository_without_a_git_directory_is_seen() {
        let mut tree = AgentTree::default();
        for p in ["r/HEAD", "r/objects", "r/refs", "s/HEAD", "s/objects", "t/head", "t/commondir"] {
            tree.entries.insert(path(p), Node::Directory { mode: 0 });
        }
        let repositories = bare_repositories(&tree);
        assert_eq!(repositories, [Some(path("r")), Some(path("t"))].into());
        for (p, control) in [
            ("r/config", true),
            ("r/hooks/post-checkout", true),
            ("r/HEAD", true),
            ("r/readme", false),
            ("s/config", false),
        ] {
            assert_eq!(is_git_control(&path(p), &repositories), control, "{p}");
        }
    }
}
