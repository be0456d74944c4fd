//! What goes in and comes back, with real directories, the real `tar` as the engine, and the real `git` as the agent.

use crate::workspace::{
    Archive, Baseline, Diff, Limits, Owner, Packed, TakeOptions, Taken, TreePath, WorkspaceError, diff, pack, save,
    take,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

mod hostile;
mod repository;
mod round_trip;

/// A host's directory, its copy in a bottle, and a state directory.
struct World {
    root: tempfile::TempDir,
    packed: Packed,
}

impl World {
    /// Makes the host's directory, packs it, and unpacks it as an engine would.
    fn new(fill: impl FnOnce(&Path)) -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["host", "bottle", "state", "outside"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("outside/secret"), "outside").unwrap();
        fill(&root.path().join("host"));
        let mut tar = Vec::new();
        let packed =
            pack(&root.path().join("host"), Owner { uid: 4321, gid: 4322 }, "workspace", &mut tar, &|_, _| {}).unwrap();
        let given = root.path().join("given.tar");
        fs::write(&given, tar).unwrap();
        run(Command::new("tar")
            .args(["--no-same-owner", "-xpf"])
            .arg(&given)
            .arg("-C")
            .arg(root.path().join("bottle")));
        Self { root, packed }
    }

    fn host(&self, path: &str) -> PathBuf {
        self.root.path().join("host").join(path)
    }

    fn agent(&self, path: &str) -> PathBuf {
        self.root.path().join("bottle/workspace").join(path)
    }

    fn state(&self) -> PathBuf {
        self.root.path().join("state/workspace.tar.zst")
    }

    fn baseline(&self) -> &Baseline {
        &self.packed.baseline
    }

    /// What the engine gives back of the bottle's directory.
    fn returned(&self) -> Vec<u8> {
        let output = Command::new("tar")
            .args(["--format=pax", "-cf", "-", "-C"])
            .arg(self.root.path().join("bottle"))
            .arg("workspace")
            .output()
            .unwrap();
        assert!(output.status.success());
        output.stdout
    }

    fn save(&self) -> Archive {
        self.save_bytes(&self.returned())
    }

    fn save_bytes(&self, tar: &[u8]) -> Archive {
        save(tar, &self.state(), Limits::default()).unwrap();
        Archive::open(&self.state(), Limits::default())
    }

    fn diff(&self) -> Diff {
        diff(&self.save(), self.baseline(), &self.host("")).unwrap()
    }

    fn take(&self) -> Result<Taken, WorkspaceError> {
        self.take_of(&self.save(), false)
    }

    fn take_of(&self, archive: &Archive, force: bool) -> Result<Taken, WorkspaceError> {
        take(archive, self.baseline(), &self.host(""), "x", TakeOptions { force })
    }

    /// Nothing outside was touched, and nothing of ours is left behind.
    fn assert_outside_untouched(&self) {
        assert_eq!(fs::read_to_string(self.root.path().join("outside/secret")).unwrap(), "outside");
        assert_eq!(names(&self.root.path().join("outside")), ["secret"]);
        assert!(!names(&self.host("")).iter().any(|n| n.contains("bottle-take")));
        assert!(names(&self.root.path().join("state")).iter().all(|n| n == "workspace.tar.zst"));
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs git in a directory of the test's own, with nobody's configuration.
fn git(directory: &Path, args: &[&str]) -> String {
    git_with_input(directory, args, b"")
}

fn git_with_input(directory: &Path, args: &[&str], input: &[u8]) -> String {
    use std::io::Write;
    let mut command = Command::new("git");
    command.args(["-c", "safe.directory=*", "-c", "init.defaultBranch=main"]).args(args).current_dir(directory);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    for (key, value) in [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_AUTHOR_NAME", "Ada"),
        ("GIT_AUTHOR_EMAIL", "ada@example.org"),
        ("GIT_COMMITTER_NAME", "Ada"),
        ("GIT_COMMITTER_EMAIL", "ada@example.org"),
    ] {
        command.env(key, value);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn paths(list: &[TreePath]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn refused(taken: &[(TreePath, String)]) -> Vec<String> {
    taken.iter().map(|(path, _)| path.to_string()).collect()
}
