//! Brings the agent's work into the operator's directory: decided whole before anything is written, then written
//! without following a link, never below a `.git`, never with a set-id bit. Git is not run.

use crate::workspace::archive::Archive;
use crate::workspace::baseline::{Baseline, Digest, LinkTarget, Node};
use crate::workspace::changes::{AgentTree, Change, STAGING, compare};
use crate::workspace::commits::{Commits, PreparedCommits, Source};
use crate::workspace::host_tree::{HostTree, State};
use crate::workspace::members::{MemberKind, reading, refused};
use crate::workspace::tree_path::TreePath;
use crate::workspace::{WorkspaceError, careful};
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

/// A `package.json` larger than this counts as changed.
const PACKAGE_BYTES_MAX: u64 = 4 << 20;

/// How to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TakeOptions {
    /// Write the agent's version over files that changed on the host as well.
    pub force: bool,
}

/// A path that both sides changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The path.
    pub path: TreePath,
    /// What stands against it.
    pub why: String,
}

/// What was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Files, links and directories that were written.
    pub written: Vec<TreePath>,
    /// Files, links and directories that were removed.
    pub removed: Vec<TreePath>,
    /// Changes that the host had already.
    pub already: Vec<TreePath>,
    /// Changes of the operator's that were overwritten, by force.
    pub overwritten: Vec<TreePath>,
    /// What was not taken, and why.
    pub refused: Vec<(TreePath, String)>,
    /// Written files that tools run or obey by themselves: look at them first.
    pub careful: Vec<TreePath>,
    /// What became of the commits.
    pub commits: Commits,
    /// What another life of the bottle is compared with: what the agent was given, and for whatever was taken what it made
    /// of it.
    pub settled: Baseline,
}

/// Takes the agent's files and commits into `workspace`. Where the operator changed a file that the agent changed as
/// well, nothing at all is applied unless forced.
pub fn take(
    archive: &Archive,
    baseline: &Baseline,
    workspace: &Path,
    id: &str,
    options: TakeOptions,
) -> Result<Taken, WorkspaceError> {
    check_id(id)?;
    let host = HostTree::open(workspace)?;
    let Some(_hold) = host.hold() else {
        return Err(WorkspaceError::Busy(crate::workspace::printable::line(workspace.as_os_str().as_encoded_bytes())));
    };
    host.sweep_staging(STAGING)?;
    let tree = AgentTree::read(archive)?;
    let changes = compare(baseline, &tree);
    let plan = Plan::make(&changes.files, &host)?;
    let settled = settled(baseline, &changes.files, &plan.stuck);
    let decided = Decided::of(&plan);
    let mut taken = Taken { refused: changes.refused, already: plan.already, settled, ..Taken::default() };
    if options.force {
        taken.overwritten = plan.conflicts.into_iter().map(|c| c.path).collect();
        taken.refused.extend(plan.stuck.into_iter().map(|c| (c.path, c.why)));
    } else if !plan.conflicts.is_empty() || !plan.stuck.is_empty() {
        let mut all = [plan.conflicts, plan.stuck].concat();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        return Err(WorkspaceError::Conflicts(all));
    }
    let mut deeds = plan.deeds;
    if options.force {
        deeds.extend(plan.forced);
        deeds.sort_by(|a, b| a.path.cmp(&b.path));
    }
    let source = Source { archive, tree: &tree, baseline, changes: &changes.refs };
    // Files and commits are made ready side by side, and only when that is over is any of it applied. Where commits cannot be had,
    // the files are all there is.
    let (staged, commits) = std::thread::scope(|scope| {
        let commits = scope.spawn(|| PreparedCommits::make(&source, workspace, id));
        let staged = Staged::make(&host, archive, &tree, &deeds);
        (staged, joined(commits))
    });
    let (staged, commits) = (staged?, commits?);
    // That took a while, and the directory is the operator's to work in.
    let meanwhile = decided.left_out(Plan::make(&changes.files, &host)?);
    if !meanwhile.is_empty() {
        return Err(WorkspaceError::Conflicts(meanwhile));
    }
    taken.careful = staged.careful.clone();
    // What a take before this one has written was perhaps never named.
    taken.careful.extend(taken.already.iter().filter(|path| careful::runs_by_itself(path)).cloned());
    let applied = std::thread::scope(|scope| {
        let commits = scope.spawn(|| commits.take());
        let applied = apply(&host, &staged, &deeds, &mut taken);
        taken.commits = joined(commits);
        applied
    });
    match applied {
        Ok(()) => Ok(taken),
        Err(source) => Err(WorkspaceError::HalfApplied { taken: Box::new(taken), source: Box::new(source) }),
    }
}

/// The paths of a plan that were not simply to be done: conflicts, which are forced or have ended the take, and what not even
/// force takes.
struct Decided(BTreeSet<TreePath>);

impl Decided {
    fn of(plan: &Plan<'_>) -> Self {
        Self(plan.conflicts.iter().chain(&plan.stuck).map(|conflict| conflict.path.clone()).collect())
    }

    /// What came into the way since.
    fn left_out(&self, now: Plan<'_>) -> Vec<Conflict> {
        let mut new = [now.conflicts, now.stuck].concat();
        new.retain(|conflict| !self.0.contains(&conflict.path));
        new.sort_by(|a, b| a.path.cmp(&b.path));
        new
    }
}

/// What a thread gives; its panic is the caller's.
fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What agent and host agree on after a take of these changes, but for those that even force does not take.
fn settled(baseline: &Baseline, changes: &[Change], stuck: &[Conflict]) -> Baseline {
    let stuck: BTreeSet<&TreePath> = stuck.iter().map(|conflict| &conflict.path).collect();
    let mut settled = baseline.clone();
    for change in changes.iter().filter(|change| !stuck.contains(&change.path)) {
        match &change.after {
            Some(node) => settled.entries.insert(change.path.clone(), node.clone()),
            None => settled.entries.remove(&change.path),
        };
    }
    settled
}

/// Removes what takes that were killed have left in a directory; tells whether there was any.
pub fn sweep_staging(workspace: &Path) -> Result<bool, WorkspaceError> {
    let host = HostTree::open(workspace)?;
    let hold = host.hold();
    if hold.is_some() { host.sweep_staging(STAGING) } else { Ok(false) }
}

fn check_id(id: &str) -> Result<(), WorkspaceError> {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if id.is_empty() || id.len() > 64 || id.starts_with('-') || !id.bytes().all(fine) {
        return Err(WorkspaceError::BadId(id.to_owned()));
    }
    Ok(())
}

/// What is to be done, decided before any of it is.
#[derive(Debug, Default)]
struct Plan<'a> {
    deeds: Vec<&'a Change>,
    already: Vec<TreePath>,
    /// Both sides changed these; `forced` are the deeds.
    conflicts: Vec<Conflict>,
    forced: Vec<&'a Change>,
    /// Not even force takes these: something of the operator's would be followed or lost.
    stuck: Vec<Conflict>,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Do,
    Already,
    Leave,
    Conflict(&'static str),
    Stuck(&'static str),
}

impl<'a> Plan<'a> {
    fn make(changes: &'a [Change], host: &HostTree) -> Result<Self, WorkspaceError> {
        let gone: BTreeSet<&TreePath> = changes.iter().filter(|c| c.after.is_none()).map(|c| &c.path).collect();
        let becoming: BTreeSet<&TreePath> = changes.iter().filter(|c| becomes_directory(c)).map(|c| &c.path).collect();
        let mut plan = Self::default();
        let mut stuck = BTreeSet::new();
        for change in changes {
            let mut state = host.state(&change.path)?;
            if state == State::Blocked && change.path.ancestors().any(|a| becoming.contains(&a)) {
                state = State::Missing;
            }
            let mut verdict = decide(change, &state);
            let replaces_directory = matches!(&state, State::Node(node) if node.is_directory())
                && change.after.as_ref().is_some_and(|after| !after.is_directory());
            if replaces_directory && has_more(host, &change.path, &gone)? {
                verdict = Verdict::Stuck("the host has more files in the directory that would be replaced");
            }
            if change.after.is_some() && change.path.ancestors().any(|a| stuck.contains(&a)) {
                verdict = Verdict::Stuck("its directory cannot be made");
            }
            let conflict = |why: &str| Conflict { path: change.path.clone(), why: why.to_owned() };
            match verdict {
                Verdict::Do => plan.deeds.push(change),
                Verdict::Already => plan.already.push(change.path.clone()),
                Verdict::Leave => {}
                Verdict::Conflict(why) => {
                    plan.conflicts.push(conflict(why));
                    plan.forced.push(change);
                }
                Verdict::Stuck(why) => {
                    stuck.insert(&change.path);
                    plan.stuck.push(conflict(why));
                }
            }
        }
        Ok(plan)
    }
}

fn becomes_directory(change: &Change) -> bool {
    change.after.as_ref().is_some_and(Node::is_directory)
}

/// Three ways: what the agent was given, what it made of it, what the host has now.
fn decide(change: &Change, host: &State) -> Verdict {
    match (&change.before, &change.after, host) {
        (_, None, State::Missing | State::Blocked) => Verdict::Already,
        (Some(before), None, State::Node(node)) if before.is_directory() => {
            // A directory goes only if it is empty in the end; what the host put in its place stays.
            if node.is_directory() { Verdict::Do } else { Verdict::Leave }
        }
        (Some(before), None, State::Node(node)) if node.same(before) => Verdict::Do,
        (_, None, State::Node(_) | State::Special) => {
            Verdict::Conflict("the agent removed it, and it changed on the host")
        }
        (_, Some(_), State::Blocked) => Verdict::Stuck("its directory is a link or a file on the host"),
        (_, Some(_), State::Special) => Verdict::Stuck("it is a special file on the host"),
        (None, Some(_), State::Missing) => Verdict::Do,
        (Some(before), Some(_), State::Missing) if before.is_directory() => Verdict::Do,
        (Some(_), Some(_), State::Missing) => Verdict::Conflict("the agent changed it, and it was removed on the host"),
        (_, Some(after), State::Node(node)) if node.same(after) => Verdict::Already,
        (Some(before), Some(_), State::Node(node)) if node.same(before) => Verdict::Do,
        (None, Some(_), State::Node(_)) => Verdict::Conflict("the agent made it, and the host has another"),
        (Some(_), Some(_), State::Node(_)) => Verdict::Conflict("it changed on the host"),
    }
}

/// Has a directory of the host more in it than what goes?
fn has_more(host: &HostTree, directory: &TreePath, gone: &BTreeSet<&TreePath>) -> Result<bool, WorkspaceError> {
    let mut pending = vec![directory.clone()];
    while let Some(directory) = pending.pop() {
        for path in host.names(&directory)? {
            if !gone.contains(&path) {
                return Ok(true);
            }
            if matches!(host.state(&path)?, State::Node(Node::Directory { .. })) {
                pending.push(path);
            }
        }
    }
    Ok(false)
}

/// New files and links, complete and verified, beside the ones they will replace; gone when dropped.
struct Staged<'a> {
    host: &'a HostTree,
    directory: OwnedFd,
    name: String,
    careful: Vec<TreePath>,
}

impl<'a> Staged<'a> {
    fn make(
        host: &'a HostTree,
        archive: &Archive,
        tree: &AgentTree,
        deeds: &[&Change],
    ) -> Result<Self, WorkspaceError> {
        // One file of the archive may be here by many names.
        let bytes_max = archive.limits().bytes_max;
        let size = |change: &&Change| if let Some(Node::File { size, .. }) = &change.after { *size } else { 0 };
        if deeds.iter().map(size).fold(0, u64::saturating_add) > bytes_max {
            return Err(WorkspaceError::TooManyBytes { bytes_max });
        }
        let name = format!("{STAGING}{}", std::process::id());
        let directory = host.staging(&name)?;
        let mut staged = Self { host, directory, name, careful: Vec::new() };
        let mut sources: BTreeMap<&TreePath, Vec<(usize, &Change)>> = BTreeMap::new();
        for (at, change) in deeds.iter().enumerate() {
            match &change.after {
                Some(Node::File { .. }) => sources.entry(tree.source(&change.path)).or_default().push((at, change)),
                Some(Node::Link { target }) => staged.link(at, &change.path, target)?,
                Some(Node::Directory { .. }) | None => {}
            }
        }
        let mut members = archive.members()?;
        while let Some(member) = members.next_member()? {
            let Some(targets) = sources.remove(&member.path) else { continue };
            let MemberKind::File { .. } = member.kind else { continue };
            let mut first = None;
            for (at, change) in targets {
                match first {
                    None => staged.file(at, change, &mut members.content())?,
                    Some(other) => {
                        let mut copy = staged.open(other, OFlags::RDONLY, 0).map_err(staging)?;
                        staged.file(at, change, &mut copy)?;
                    }
                }
                first = Some(at);
            }
        }
        match sources.is_empty() {
            true => Ok(staged),
            false => Err(changed()),
        }
    }

    fn file(&mut self, at: usize, change: &Change, content: &mut impl Read) -> Result<(), WorkspaceError> {
        let Some(after @ Node::File { size, sha256, .. }) = &change.after else { return Ok(()) };
        let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        // The umask of the operator holds for new files.
        let mut file = self.open(at, write, if after.executable() { 0o777 } else { 0o666 }).map_err(staging)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = content.read(&mut buffer).map_err(reading)?;
            if n == 0 {
                break;
            }
            hash.update(&buffer[..n]);
            file.write_all(&buffer[..n]).map_err(staging)?;
        }
        if Digest(hash.finalize().into()) != *sha256 {
            return Err(changed());
        }
        if let Some(mode) = self.host.mode(&change.path) {
            let exec = if after.executable() { (mode & 0o444) >> 2 } else { 0 };
            let given = change.before.as_ref().is_some_and(|b| b.executable() == after.executable());
            let mode = if given { mode } else { mode & !0o111 | exec };
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(|e| staging(e.into()))?;
        }
        drop(file);
        let package = || change.path.name() == b"package.json" && self.scripts_differ(at, change, *size);
        if careful::runs_by_itself(&change.path) || package() {
            self.careful.push(change.path.clone());
        }
        Ok(())
    }

    fn scripts_differ(&self, at: usize, change: &Change, size: u64) -> bool {
        let mut after = Vec::new();
        let read = self.open(at, OFlags::RDONLY, 0).and_then(|f| f.take(PACKAGE_BYTES_MAX).read_to_end(&mut after));
        if read.is_err() || size > PACKAGE_BYTES_MAX {
            return true;
        }
        careful::scripts_differ(self.host.content(&change.path, PACKAGE_BYTES_MAX).as_deref(), &after)
    }

    fn link(&mut self, at: usize, path: &TreePath, target: &LinkTarget) -> Result<(), WorkspaceError> {
        use std::os::unix::ffi::OsStrExt;
        let target = std::ffi::OsStr::from_bytes(&target.0);
        rustix::fs::symlinkat(target, &self.directory, at.to_string()).map_err(|e| staging(e.into()))?;
        if careful::runs_by_itself(path) {
            self.careful.push(path.clone());
        }
        Ok(())
    }

    fn open(&self, at: usize, flags: OFlags, mode: u32) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.directory, at.to_string(), flags, Mode::from_raw_mode(mode))?))
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        self.host.remove_staging(&self.name, &self.directory);
    }
}

/// Removes first, what is deepest before what it is in; then makes directories and moves the staged files in.
fn apply(host: &HostTree, staged: &Staged<'_>, deeds: &[&Change], taken: &mut Taken) -> Result<(), WorkspaceError> {
    for change in deeds.iter().rev() {
        let Some(is_directory) = host.is_directory(&change.path)? else { continue };
        let replaced = change.after.as_ref().is_some_and(|after| after.is_directory() != is_directory);
        if change.after.is_some() && !replaced {
            continue;
        }
        let removed = match is_directory {
            true => host.remove_directory(&change.path)?,
            false => host.remove_file(&change.path).map(|()| true)?,
        };
        if removed && change.after.is_none() {
            taken.removed.push(change.path.clone());
        }
    }
    taken.removed.reverse();
    for (at, change) in deeds.iter().enumerate() {
        match change.after {
            Some(Node::Directory { .. }) => host.make_directory(&change.path)?,
            Some(Node::File { .. } | Node::Link { .. }) => {
                host.move_in(&staged.directory, &at.to_string(), &change.path)?
            }
            None => continue,
        }
        taken.written.push(change.path.clone());
    }
    Ok(())
}

fn staging(error: io::Error) -> WorkspaceError {
    WorkspaceError::io("write beside the files of the workspace", error)
}

fn changed() -> WorkspaceError {
    refused("it changed while it was read")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(byte: u8) -> Node {
        Node::File { mode: 0o644, size: 1, sha256: Digest([byte; 32]) }
    }

    #[test]
    fn three_ways_are_decided_for_every_case() {
        let directory = Node::Directory { mode: 0o755 };
        let link = Node::Link { target: LinkTarget(b"x".to_vec()) };
        let on = |node: &Node| State::Node(node.clone());
        for (before, after, host, expected) in [
            (Some(file(1)), Some(file(2)), on(&file(1)), "Do"),
            (Some(file(1)), Some(file(2)), on(&file(2)), "Already"),
            (Some(file(1)), Some(file(2)), on(&file(3)), "Conflict"),
            (Some(file(1)), Some(file(2)), on(&link), "Conflict"),
            (Some(file(1)), Some(file(2)), State::Missing, "Conflict"),
            (Some(file(1)), Some(file(2)), State::Blocked, "Stuck"),
            (Some(file(1)), Some(file(2)), State::Special, "Stuck"),
            (None, Some(file(2)), State::Missing, "Do"),
            (None, Some(file(2)), on(&file(2)), "Already"),
            (None, Some(file(2)), on(&file(3)), "Conflict"),
            (None, Some(file(2)), on(&link), "Conflict"),
            (None, Some(file(2)), State::Blocked, "Stuck"),
            (Some(file(1)), None, on(&file(1)), "Do"),
            (Some(file(1)), None, on(&file(3)), "Conflict"),
            (Some(file(1)), None, State::Missing, "Already"),
            (None, Some(directory.clone()), State::Missing, "Do"),
            (None, Some(directory.clone()), on(&directory), "Already"),
            (None, Some(directory.clone()), on(&link), "Conflict"),
            (Some(directory.clone()), None, on(&directory), "Do"),
            (Some(directory.clone()), None, on(&link), "Leave"),
            (Some(directory.clone()), Some(file(1)), on(&directory), "Do"),
            (Some(link.clone()), Some(directory.clone()), on(&link), "Do"),
        ] {
            let change = Change { path: TreePath::parse(b"p").unwrap(), before, after };
            let verdict = format!("{:?}", decide(&change, &host));
            assert!(verdict.starts_with(expected), "{change:?} on {host:?}: {verdict}");
        }
    }

    #[test]
    fn what_the_operator_saves_while_the_work_is_made_ready_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostTree::open(folder.path()).unwrap();
        let save = |text: &str| std::fs::write(folder.path().join("p"), text).unwrap();
        let path = TreePath::parse(b"p").unwrap();
        save("given");
        let State::Node(before) = host.state(&path).unwrap() else { panic!("a file is there") };
        let changes = [Change { path, before: Some(before), after: Some(file(2)) }];
        let plan = Plan::make(&changes, &host).unwrap();
        assert_eq!(plan.deeds.len(), 1);
        let decided = Decided::of(&plan);
        assert_eq!(decided.left_out(Plan::make(&changes, &host).unwrap()), []);
        save("saved");
        assert_eq!(decided.left_out(Plan::make(&changes, &host).unwrap()).len(), 1);
        // A conflict that was known is what force is for.
        let decided = Decided::of(&Plan::make(&changes, &host).unwrap());
        assert_eq!(decided.left_out(Plan::make(&changes, &host).unwrap()), []);
    }

    #[test]
    fn ids_that_cannot_stand_in_a_ref_are_refused() {
        for id in ["dev", "a-1", "0ab"] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", "..", "a/b", "-a", "A", "a b", "a.lock", &"a".repeat(65)] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }
}
