//! Shows what the agent changed, in the manner of git. What it prints is made fit for a terminal; nothing of the
//! archive touches the disk.

use crate::workspace::archive::Archive;
use crate::workspace::baseline::{Baseline, Node};
use crate::workspace::changes::{AgentTree, Change, RefChange, compare};
use crate::workspace::host_tree::{HostTree, State};
use crate::workspace::members::reading;
use crate::workspace::tree_path::TreePath;
use crate::workspace::{WorkspaceError, careful, printable};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// A file larger than this is named with its sizes alone.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// So are all files after this much text was compared.
const TEXT_BYTES_MAX: u64 = 64 << 20;
/// After this a comparison settles for a longer answer.
const COMPARE_WITHIN: Duration = Duration::from_millis(500);

/// What the agent changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// File by file, in the order of their paths. Directories are not named.
    pub files: Vec<FileDiff>,
    /// What would not be taken, and why.
    pub refused: Vec<(TreePath, String)>,
    /// Branches and tags that changed.
    pub refs: Vec<RefChange>,
    /// Files that tools run or obey by themselves.
    pub careful: Vec<TreePath>,
}

/// One file of a [`Diff`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDiff {
    /// What changed.
    pub change: Change,
    /// Has the host's file changed since the agent was given it? Then the text is compared with what the host has.
    pub host_changed: bool,
    /// How its content changed.
    pub body: Body,
}

/// How the content of a file changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Not at all: the mode alone did, or there is no content to compare.
    Nothing,
    /// Unified hunks, as the agent wrote the lines.
    Hunks(String),
    /// It is not text.
    Binary,
    /// It is too large to compare.
    TooLarge,
}

/// Compares the agent's tree with what it was given. The old text is the host's, where it has not changed since.
pub fn diff(archive: &Archive, baseline: &Baseline, workspace: &Path) -> Result<Diff, WorkspaceError> {
    let tree = AgentTree::read(archive)?;
    let changes = compare(baseline, &tree);
    let host = HostTree::open(workspace)?;
    let mut differ = Differ { host: &host, left: TEXT_BYTES_MAX, files: BTreeMap::new(), careful: Vec::new() };
    let mut sources: BTreeMap<&TreePath, Vec<&Change>> = BTreeMap::new();
    for change in &changes.files {
        match &change.after {
            Some(Node::File { .. }) => sources.entry(tree.source(&change.path)).or_default().push(change),
            Some(Node::Link { target }) => differ.add(change, Some(Content::Whole(&target.0)))?,
            Some(Node::Directory { .. }) | None => differ.add(change, None)?,
        }
    }
    let mut members = archive.members()?;
    while let Some(member) = members.next_member()? {
        let Some(changes) = sources.get(&member.path) else { continue };
        let mut content = Vec::new();
        members.content().take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(reading)?;
        let content = if content.len() as u64 > FILE_BYTES_MAX { Content::TooLarge } else { Content::Whole(&content) };
        for change in changes {
            differ.add(change, Some(content))?;
        }
    }
    differ.careful.sort();
    Ok(Diff {
        files: differ.files.into_values().collect(),
        refused: changes.refused,
        refs: changes.refs,
        careful: differ.careful,
    })
}

#[derive(Clone, Copy)]
enum Content<'a> {
    Whole(&'a [u8]),
    TooLarge,
}

struct Differ<'a> {
    host: &'a HostTree,
    left: u64,
    files: BTreeMap<TreePath, FileDiff>,
    careful: Vec<TreePath>,
}

impl Differ<'_> {
    fn add(&mut self, change: &Change, after: Option<Content<'_>>) -> Result<(), WorkspaceError> {
        let named = |node: &Option<Node>| node.as_ref().is_some_and(|n| !n.is_directory());
        if !named(&change.before) && !named(&change.after) {
            return Ok(());
        }
        let state = self.host.state(&change.path)?;
        let host_changed = match (&state, &change.before) {
            (State::Node(node), Some(before)) => !node.same(before),
            (State::Node(node), None) => !node.is_directory(),
            (State::Missing | State::Blocked | State::Special, before) => named(before),
        };
        let host_text = match &state {
            State::Node(Node::Link { target }) => Some(target.0.clone()),
            State::Node(Node::File { .. }) => self.host.content(&change.path, FILE_BYTES_MAX),
            State::Node(Node::Directory { .. }) | State::Missing | State::Blocked | State::Special => Some(Vec::new()),
        };
        let body = match (host_text, after) {
            (None, _) | (_, Some(Content::TooLarge)) => Body::TooLarge,
            (Some(before), Some(Content::Whole(after))) => self.compare(&before, after),
            (Some(before), None) => self.compare(&before, b""),
        };
        if let (Some(_), Some(Content::Whole(text))) = (&change.after, after)
            && (careful::runs_by_itself(&change.path) || self.is_package_with_new_scripts(change, text))
        {
            self.careful.push(change.path.clone());
        }
        let file = FileDiff { change: change.clone(), host_changed, body };
        self.files.insert(change.path.clone(), file);
        Ok(())
    }

    fn is_package_with_new_scripts(&self, change: &Change, text: &[u8]) -> bool {
        change.path.name() == b"package.json"
            && careful::scripts_differ(self.host.content(&change.path, FILE_BYTES_MAX).as_deref(), text)
    }

    fn compare(&mut self, before: &[u8], after: &[u8]) -> Body {
        if before == after {
            return Body::Nothing;
        }
        let size = (before.len() + after.len()) as u64;
        if size > self.left {
            return Body::TooLarge;
        }
        let text = |bytes| std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
        let (Some(before), Some(after)) = (text(before), text(after)) else { return Body::Binary };
        self.left -= size;
        let diff = similar::TextDiff::configure().timeout(COMPARE_WITHIN).diff_lines(before, after);
        Body::Hunks(diff.unified_diff().context_radius(3).iter_hunks().map(|hunk| hunk.to_string()).collect())
    }
}

impl Diff {
    /// Did the agent change nothing?
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.refs.is_empty() && self.refused.is_empty()
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            write!(f, "{file}")?;
        }
        for change in &self.refs {
            let id = |id: &Option<String>| id.as_deref().map_or("none", |id| &id[..12.min(id.len())]).to_owned();
            let name = printable::line(change.name.as_bytes());
            writeln!(f, "commits: {name} {} -> {}", id(&change.before), id(&change.after))?;
        }
        for (path, why) in &self.refused {
            writeln!(f, "not taken: {path}: {}", printable::line(why.as_bytes()))?;
        }
        for path in &self.careful {
            writeln!(f, "careful: {path} is run or obeyed by tools without being asked")?;
        }
        Ok(())
    }
}

impl fmt::Display for FileDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.change.path;
        writeln!(f, "diff --git a/{path} b/{path}")?;
        match (&self.change.before, &self.change.after) {
            (None, Some(after)) => writeln!(f, "new file mode {}", after.git_mode())?,
            (Some(before), None) => writeln!(f, "deleted file mode {}", before.git_mode())?,
            (Some(before), Some(after)) if before.git_mode() != after.git_mode() => {
                writeln!(f, "old mode {}\nnew mode {}", before.git_mode(), after.git_mode())?;
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        if self.host_changed {
            writeln!(f, "changed on the host as well: compared with what is there now")?;
        }
        let side = |node: &Option<Node>, side| match node {
            Some(_) => format!("{side}/{path}"),
            None => "/dev/null".to_owned(),
        };
        match &self.body {
            Body::Nothing => Ok(()),
            Body::Hunks(hunks) => {
                writeln!(f, "--- {}\n+++ {}", side(&self.change.before, "a"), side(&self.change.after, "b"))?;
                f.write_str(&printable::text(hunks.as_bytes()))
            }
            Body::Binary => writeln!(f, "Binary file, {}", sizes(&self.change)),
            Body::TooLarge => writeln!(f, "Too large to compare, {}", sizes(&self.change)),
        }
    }
}

fn sizes(change: &Change) -> String {
    let size = |node: &Option<Node>| match node {
        Some(Node::File { size, .. }) => format!("{size} bytes"),
        Some(Node::Link { .. }) => "a link".to_owned(),
        Some(Node::Directory { .. }) => "a directory".to_owned(),
        None => "nothing".to_owned(),
    };
    format!("{} -> {}", size(&change.before), size(&change.after))
}
