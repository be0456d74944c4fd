//! The agent's commits on their way into the operator's repository: as `refs/bottle/<id>/…`, after every object that
//! they need was verified. No other ref, no HEAD, no index, no hook and no configuration is touched, and git is not run.

use crate::error::chain;
use crate::workspace::WorkspaceError;
use crate::workspace::archive::Archive;
use crate::workspace::baseline::Baseline;
use crate::workspace::changes::{AgentTree, RefChange};
use crate::workspace::host_repository::HostRepository;
use crate::workspace::object_pack::ObjectPack;
use crate::workspace::objects::{Copied, Importer};
use crate::workspace::refs::parse_name;
use gix_object::Kind;
use std::path::Path;

/// What became of the agent's commits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commits {
    /// Refs that were set in the operator's repository: name -> object id.
    pub refs: Vec<(String, String)>,
    /// Objects that were written into it.
    pub objects: usize,
    /// Branches and tags that were not taken, and why.
    pub skipped: Vec<(String, String)>,
    /// Why no commit was taken at all.
    pub none: Option<String>,
    /// Is that because something could not be read or written? Else there is no place for commits.
    pub failed: bool,
}

impl Commits {
    fn failed(self, why: String) -> Self {
        Self { none: Some(why), failed: true, ..self }
    }
}

/// What a take of commits works on.
pub(crate) struct Source<'a> {
    pub(crate) archive: &'a Archive,
    pub(crate) tree: &'a AgentTree,
    pub(crate) baseline: &'a Baseline,
    pub(crate) changes: &'a [RefChange],
}

/// Commits of every branch and tag that the agent changed, verified and packed; the operator's repository has nothing of
/// them yet.
pub(crate) struct PreparedCommits {
    commits: Commits,
    ready: Option<Ready>,
}

struct Ready {
    host: HostRepository,
    /// Where the pack lies.
    copied: Copied,
    pack: Option<ObjectPack>,
    /// Name with the agent, name with the operator, object id.
    refs: Vec<(String, String, String)>,
}

impl PreparedCommits {
    /// Prepares them. Errors: the archive is none. Why a repository cannot give or take any is part of the outcome: the files come
    /// home all the same.
    pub(crate) fn make(source: &Source<'_>, workspace: &Path, id: &str) -> Result<Self, WorkspaceError> {
        let commits = Commits { skipped: source.tree.refs.bad.clone(), ..Commits::default() };
        let mut prepared = Self { commits, ready: None };
        let moved = source.changes.iter().filter_map(|c| Some((c.name.as_str(), c.after.as_deref()?)));
        let moved: Vec<(&str, &str)> = moved.collect();
        if let Some(why) = source.tree.refs.unreadable {
            return Ok(prepared.failed(format!("the agent's repository cannot be read: {why}")));
        }
        if moved.is_empty() {
            return Ok(prepared);
        }
        let host = match HostRepository::find(workspace) {
            Ok(host) => host,
            Err(why) => {
                prepared.commits.none = Some(why);
                return Ok(prepared);
            }
        };
        let objects = host.objects();
        let private = source.archive.directory();
        let copied = match Copied::extract(source.archive, source.tree, source.baseline, &objects, private) {
            Err(error @ WorkspaceError::Io { .. }) => {
                return Ok(prepared.failed(format!("the objects cannot be copied: {}", chain(&error))));
            }
            copied => copied?,
        };
        let mut importer = match Importer::new(&copied, &objects) {
            Ok(importer) => importer,
            Err(error) => return Ok(prepared.failed(format!("the objects cannot be read: {error}"))),
        };
        let mut refs = Vec::new();
        for (name, tip) in moved {
            let kind = if name.starts_with("refs/tags/") { None } else { Some(Kind::Commit) };
            match host_name(name, id).and_then(|target| importer.verify(tip, kind).map(|()| target)) {
                Ok(target) => refs.push((name.to_owned(), target, tip.to_owned())),
                Err(why) => prepared.commits.skipped.push((name.to_owned(), why)),
            }
        }
        match importer.pack() {
            Ok(pack) => prepared.ready = Some(Ready { host, copied, pack, refs }),
            Err(why) => return Ok(prepared.failed(cannot_be_written(&why))),
        }
        Ok(prepared)
    }

    /// Gives them to the operator's repository: objects first, then what points at them.
    pub(crate) fn take(self) -> Commits {
        let Self { mut commits, ready } = self;
        let Some(Ready { host, copied, pack, refs }) = ready else { return commits };
        let packed = match host.packed() {
            Ok(packed) => packed,
            Err(error) => return commits.failed(format!("packed-refs cannot be read: {error}")),
        };
        let count = pack.as_ref().map_or(0, |pack| pack.count);
        let kept = match pack.map(|pack| pack.install(&host.objects())).transpose() {
            Ok(kept) => kept,
            Err(error) => return commits.failed(cannot_be_written(&error)),
        };
        commits.objects = count;
        for (name, target, tip) in refs {
            match host.set_ref(&packed, &target, &tip) {
                Ok(()) => commits.refs.push((target, tip)),
                Err(error) => commits.skipped.push((name, format!("{target} cannot be set: {error}"))),
            }
        }
        drop((kept, copied));
        commits
    }

    fn failed(self, why: String) -> Self {
        Self { commits: self.commits.failed(why), ready: None }
    }
}

fn cannot_be_written(why: &dyn std::fmt::Display) -> String {
    format!("the objects cannot be written: {why}")
}

/// `refs/heads/x` of the agent is `refs/bottle/<id>/heads/x` of the host.
fn host_name(name: &str, id: &str) -> Result<String, String> {
    let inner = match name {
        "HEAD" => "detached",
        other => other.strip_prefix("refs/").ok_or("it is neither a branch nor a tag")?,
    };
    parse_name(format!("refs/bottle/{id}/{inner}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_of_the_agent_get_names_below_the_bottle() {
        assert_eq!(host_name("refs/heads/a/b", "x1").unwrap(), "refs/bottle/x1/heads/a/b");
        assert_eq!(host_name("refs/tags/v1", "x1").unwrap(), "refs/bottle/x1/tags/v1");
        assert_eq!(host_name("HEAD", "x1").unwrap(), "refs/bottle/x1/detached");
        assert!(host_name("refs/heads/../../heads/main", "x1").is_err());
        assert!(host_name("main", "x1").is_err());
    }
}
