//! What stands around the sidecar in its tests: real git of every version that is installed, a real sshd and a real
//! `git http-backend` as upstreams, and the keeper's end of the sidecar's standard input and output. All on loopback;
//! guards end the processes when a test panics too.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a helper of tests: what fails here fails the test; each test uses a part"
)]

pub mod gate;
pub mod https;
pub mod sshd;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A token that the rules must find. Put together here, so that no scanner trips over this file.
pub fn canary() -> String {
    ["gh", "p_", "4fQ9xZ2mLr7VtB1nKc8Wd3Ys6Hj0Ua2t", "BIGb"].concat()
}

/// The folders in which a git is installed; the tests run with each of them.
pub fn gits() -> Vec<PathBuf> {
    let folders: Vec<PathBuf> =
        ["/usr/local/bin", "/usr/bin"].iter().map(PathBuf::from).filter(|folder| folder.join("git").exists()).collect();
    assert!(!folders.is_empty(), "these tests need git");
    folders
}

/// The newest of them.
pub fn git() -> PathBuf {
    gits().swap_remove(0)
}

/// What `git --version` says of the one in `folder`: `2.47.3`.
pub fn version(folder: &Path) -> String {
    let output = Command::new(folder.join("git")).arg("--version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().nth(2).unwrap_or_default().to_owned()
}

/// The variables of a clean git: no configuration of this machine, fixed people and dates.
pub fn clean(git: &Path, home: &Path) -> BTreeMap<String, String> {
    let text = |value: &str| value.to_owned();
    BTreeMap::from([
        (text("PATH"), format!("{}:/usr/bin:/bin", git.display())),
        (text("HOME"), home.display().to_string()),
        (text("GIT_CONFIG_NOSYSTEM"), text("1")),
        (text("GIT_TERMINAL_PROMPT"), text("0")),
        (text("GIT_AUTHOR_NAME"), text("Ada")),
        (text("GIT_AUTHOR_EMAIL"), text("ada@example.org")),
        (text("GIT_COMMITTER_NAME"), text("Ada")),
        (text("GIT_COMMITTER_EMAIL"), text("ada@example.org")),
        (text("GIT_AUTHOR_DATE"), text("1700000000 +0000")),
        (text("GIT_COMMITTER_DATE"), text("1700000000 +0000")),
        (text("LC_ALL"), text("C.UTF-8")),
        (text("TZ"), text("UTC")),
    ])
}

/// What a script printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs a script in `folder`; its variables are `env` and nothing else.
pub fn sh(script: &str, folder: &Path, env: &BTreeMap<String, String>) -> Ran {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).current_dir(folder).env_clear().envs(env).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { status: status.code(), out: text(stdout), err: text(stderr) }
}

/// The same, and it must end well.
pub fn sh_ok(script: &str, folder: &Path, env: &BTreeMap<String, String>) -> String {
    let ran = sh(script, folder, env);
    assert_eq!(ran.status, Some(0), "{script}\n{}\n{}", ran.out, ran.err);
    ran.out
}

/// A folder of a test's own.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("git-gate-test-").tempdir().unwrap()
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
