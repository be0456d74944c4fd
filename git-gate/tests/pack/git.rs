//! Real git, undisturbed by this machine's configuration.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use git_gate::pack::{ObjectFormat, ObjectId, ObjectKind};
use tempfile::TempDir;

use crate::collector::Objects;

pub struct Repository {
    folder: TempDir,
}

impl Repository {
    pub fn new(format: ObjectFormat) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repository = Self { folder };
        repository.git(&["init", "-q", "-b", "main", &format!("--object-format={}", word(format))]);
        repository
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.current_dir(self.path()).args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", self.path());
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "A").env(format!("GIT_{who}_EMAIL"), "a@example.org");
            command.env(format!("GIT_{who}_DATE"), "1700000000 +0000");
        }
        command
    }

    /// What it prints; `None` if it fails.
    pub fn try_git(&self, args: &[&str], input: &[u8]) -> Option<Vec<u8>> {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // git may end before it has read everything.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output.status.success().then_some(output.stdout)
    }

    pub fn git(&self, args: &[&str]) -> String {
        let output = self.try_git(args, b"").unwrap_or_else(|| panic!("git {args:?} failed"));
        String::from_utf8(output).unwrap().trim_end().to_owned()
    }

    pub fn write(&self, path: &str, content: &[u8]) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Commits everything that is there; gives the commit.
    pub fn commit(&self, message: &str) -> ObjectId {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.oid("HEAD")
    }

    pub fn oid(&self, revision: &str) -> ObjectId {
        ObjectId::from_hex(self.git(&["rev-parse", revision]).as_bytes()).unwrap()
    }

    /// A pack of what `revisions` reach.
    pub fn pack(&self, options: &[&str], revisions: &str) -> Vec<u8> {
        let args = [&["pack-objects", "-q", "--stdout", "--revs"], options].concat();
        self.try_git(&args, revisions.as_bytes()).unwrap()
    }
}

fn word(format: ObjectFormat) -> &'static str {
    match format {
        ObjectFormat::Sha256 => "sha256",
        _ => "sha1",
    }
}

/// What git makes of a pack: every object of it, or `None` when git does not take it.
pub fn index_pack(pack: &[u8], format: ObjectFormat) -> Option<Objects> {
    let repository = Repository::new(format);
    repository.try_git(&["index-pack", "--stdin"], pack)?;
    let listing = repository.try_git(&["cat-file", "--batch-all-objects", "--batch"], b"").unwrap();
    let mut objects = Objects::new();
    let mut rest = listing.as_slice();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
        let head = std::str::from_utf8(&rest[..end]).unwrap().to_owned();
        let [oid, kind, size] = head.split(' ').collect::<Vec<_>>()[..] else { panic!("{head}") };
        let kind = match kind {
            "commit" => ObjectKind::Commit,
            "tree" => ObjectKind::Tree,
            "blob" => ObjectKind::Blob,
            _ => ObjectKind::Tag,
        };
        let size: usize = size.parse().unwrap();
        let content = rest[end + 1..][..size].to_vec();
        objects.insert(ObjectId::from_hex(oid.as_bytes()).unwrap(), (kind, content));
        rest = &rest[end + 1 + size + 1..];
    }
    Some(objects)
}
