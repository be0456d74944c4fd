//! What the agent changed: its archive read into a tree of hashes, compared with what it was given. It holds no
//! content but that of git's refs.

use crate::workspace::archive::Archive;
use crate::workspace::baseline::{Baseline, Digest, LinkTarget, Node};
use crate::workspace::members::{MemberKind, reading};
use crate::workspace::refs::{self, Refs};
use crate::workspace::tree_path::TreePath;
use crate::workspace::{WorkspaceError, careful};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

/// How the directory that a take writes meanwhile is named.
pub(crate) const STAGING: &str = ".bottle-take-";

/// The agent's tree.
#[derive(Debug, Clone, Default)]
pub struct AgentTree {
    /// Every path of it, `.git` included.
    pub entries: BTreeMap<TreePath, Node>,
    /// Names that share the content of another: name -> the one that carries it.
    pub shared: BTreeMap<TreePath, TreePath>,
    /// Devices and pipes.
    pub special: BTreeMap<TreePath, &'static str>,
    /// The branches and tags of its repository.
    pub refs: Refs,
}

/// One path that the agent changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: TreePath,
    /// What the agent was given there.
    pub before: Option<Node>,
    /// What is there now.
    pub after: Option<Node>,
}

/// What the agent changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Files, directories and links that may be taken.
    pub files: Vec<Change>,
    /// What is never taken, and why.
    pub refused: Vec<(TreePath, String)>,
    /// Branches and tags that moved, came or went. The repository's other files are not compared.
    pub refs: Vec<RefChange>,
}

/// A branch or tag that the agent changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefChange {
    /// Its full name; `HEAD` for a commit that no branch holds.
    pub name: String,
    /// The id it had.
    pub before: Option<String>,
    /// The id it has.
    pub after: Option<String>,
}

impl AgentTree {
    /// Reads and hashes the archive.
    pub fn read(archive: &Archive) -> Result<Self, WorkspaceError> {
        let mut members = archive.members()?;
        let mut tree = Self::default();
        let mut ref_files = BTreeMap::new();
        while let Some(member) = members.next_member()? {
            let node = match member.kind {
                MemberKind::Directory => Node::Directory { mode: member.mode },
                MemberKind::Link(target) => Node::Link { target },
                MemberKind::File { size } => {
                    let mut hash = Sha256::new();
                    let mut content = members.content();
                    if refs::is_ref_file(&member.path) {
                        let mut bytes = Vec::new();
                        let most = refs::bytes_max(&member.path);
                        content.by_ref().take(most).read_to_end(&mut bytes).map_err(reading)?;
                        hash.update(&bytes);
                        ref_files.insert(member.path.clone(), bytes);
                    }
                    io::copy(&mut content, &mut hash).map_err(reading)?;
                    Node::File { mode: member.mode, size, sha256: Digest(hash.finalize().into()) }
                }
                MemberKind::HardLink(target) => {
                    let target = tree.shared.get(&target).cloned().unwrap_or(target);
                    match (tree.entries.get(&target).cloned(), tree.special.get(&target).copied()) {
                        (Some(node), _) => {
                            tree.shared.insert(member.path.clone(), target);
                            node
                        }
                        (None, special) => {
                            tree.special.insert(member.path, special.unwrap_or("a special file"));
                            continue;
                        }
                    }
                }
                MemberKind::Other(what) => {
                    tree.special.insert(member.path, what);
                    continue;
                }
            };
            tree.entries.insert(member.path, node);
        }
        tree.refs = Refs::parse(&ref_files);
        Ok(tree)
    }

    /// The path whose member carries the content of `path`.
    pub fn source<'a>(&'a self, path: &'a TreePath) -> &'a TreePath {
        self.shared.get(path).unwrap_or(path)
    }
}

/// Compares the agent's tree with what it was given.
pub fn compare(baseline: &Baseline, tree: &AgentTree) -> Changes {
    let mut changes = Changes { refs: compare_refs(baseline, &tree.refs), ..Changes::default() };
    let mut git_parts = BTreeSet::new();
    let repositories = careful::bare_repositories(tree);
    let paths: BTreeSet<&TreePath> = baseline.entries.keys().chain(tree.entries.keys()).collect();
    for path in paths {
        let (before, after) = (baseline.entries.get(path), tree.entries.get(path));
        if let (Some(before), Some(after)) = (before, after)
            && before.same(after)
        {
            continue;
        }
        if let Some(git) = path.git_part() {
            git_parts.insert(git);
            continue;
        }
        // Named below, with the other special files; what stood here before stays.
        if tree.special.contains_key(path) {
            continue;
        }
        match refusal(path, after, &repositories) {
            Some(why) => changes.refused.push((path.clone(), why)),
            None => {
                let change = Change { path: path.clone(), before: before.cloned(), after: after.cloned() };
                changes.files.push(change);
            }
        }
    }
    // The repository at the top comes back as refs; every other one is the agent's to lose.
    git_parts.retain(|git| git.as_bytes() != b".git");
    let git = git_parts.into_iter().map(|path| (path, "git would run what its files say".to_owned()));
    let special = tree.special.iter().filter(|(path, _)| path.git_part().is_none());
    let special = special.map(|(path, what)| (path.clone(), format!("it is {what}")));
    changes.refused.extend(git.chain(special));
    changes.refused.sort();
    changes
}

fn refusal(path: &TreePath, after: Option<&Node>, repositories: &BTreeSet<Option<TreePath>>) -> Option<String> {
    if path.as_bytes().starts_with(STAGING.as_bytes()) {
        return Some("it has the name of what a take writes meanwhile".to_owned());
    }
    if careful::is_git_control(path, repositories) {
        return Some("its directory would be a git repository, and git would run what its files say".to_owned());
    }
    match after {
        Some(Node::Link { target }) => leads_out(path, target).map(str::to_owned),
        Some(Node::File { .. } | Node::Directory { .. }) | None => None,
    }
}

/// Why a link may not be made; `None` when it stays in the tree. A `..` after a name is refused, since where it leads
/// depends on what that name links to.
fn leads_out(path: &TreePath, target: &LinkTarget) -> Option<&'static str> {
    if target.0.starts_with(b"/") {
        return Some("it is a link to an absolute path");
    }
    let depth = path.components().count() - 1;
    let (mut up, mut named) = (0, false);
    for component in target.0.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." if named => return Some("it is a link that goes up after a name"),
            b".." => up += 1,
            name if crate::workspace::tree_path::is_dot_git(name) => return Some("it is a link into a .git"),
            _ => named = true,
        }
    }
    (up > depth).then_some("it is a link out of the workspace")
}

fn compare_refs(baseline: &Baseline, refs: &Refs) -> Vec<RefChange> {
    let names: BTreeSet<&String> = baseline.refs.keys().chain(refs.ids.keys()).collect();
    let mut changes: Vec<RefChange> = names
        .into_iter()
        .map(|name| RefChange {
            name: name.clone(),
            before: baseline.refs.get(name).cloned(),
            after: refs.ids.get(name).cloned(),
        })
        .filter(|change| change.before != change.after)
        .collect();
    let known = |id: &String| baseline.refs.values().chain(refs.ids.values()).any(|other| other == id);
    if let Some(id) = refs.detached.as_ref().filter(|id| !known(id)) {
        changes.push(RefChange { name: "HEAD".to_owned(), before: None, after: Some(id.clone()) });
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_inside_may_be_made_and_links_out_may_not() {
        for (path, target, allowed) in [
            ("a", "b", true),
            ("a", "./b/c", true),
            ("d/a", "../b", true),
            ("d/e/a", "../../b/c", true),
            ("a", "..", false),
            ("a", "../b", false),
            ("d/a", "../../b", false),
            ("a", "/etc/passwd", false),
            ("d/e/a", "b/../../c", false),
            ("a", ".git/hooks", false),
            ("d/a", "../.GIT/config", false),
            ("a", ".github", true),
        ] {
            let got = leads_out(&TreePath::parse(path.as_bytes()).unwrap(), &LinkTarget(target.as_bytes().to_vec()));
            assert_eq!(got.is_none(), allowed, "{path} -> {target}: {got:?}");
        }
    }
}
