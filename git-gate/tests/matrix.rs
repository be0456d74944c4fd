//! The acceptance matrix: every operation of git once direct and once through the gate, which must come to the same: exit
//! status, what was printed, the client's refs and the upstream's. With every git that is installed, every version of
//! the protocol and both kinds of upstreams.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests; the table is for people")]

mod matrix {
    pub mod rows;
}
mod world;

use matrix::rows::{ROWS, Row};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use world::gate::{Gate, config, open_policy, ssh_remote};
use world::https::{CREDENTIAL, Https};
use world::sshd::Sshd;
use world::{Ran, clean, folder, git, gits, sh, sh_ok, version};

use git_gate::config::{Credential, Remote};

/// What every row begins with: a repository with two branches, a merge, tags, a note, and what upstreams allow.
const SEED: &str = r#"
git init -q --bare up.git
git -C up.git symbolic-ref HEAD refs/heads/main
git -C up.git config uploadpack.allowFilter true
git -C up.git config receive.advertisePushOptions true
git init -q seed && cd seed && git symbolic-ref HEAD refs/heads/main
for i in 1 2 3 4 5; do
  export GIT_AUTHOR_DATE="170000000$i +0000" GIT_COMMITTER_DATE="170000000$i +0000"
  mkdir -p dir/$i && seq 1 200 > dir/$i/numbers && echo "file $i" > file$i && echo $i > counter
  git add -A && git commit -qm "commit $i"
done
git tag light HEAD~2 && git tag -a -m "a tag" v1 HEAD~1
git checkout -q -b dev HEAD~3 && echo dev > dev && git add dev && git commit -qm dev
git checkout -q main && git merge -q --no-ff -m merge dev
git notes add -m "a note" HEAD~1
git push -q ../up.git 'refs/*:refs/*'
cd .. && git init -q --bare empty.git && git -C empty.git symbolic-ref HEAD refs/heads/main
git init -q --bare --object-format=sha256 sha256.git && git -C sha256.git symbolic-ref HEAD refs/heads/main
git -c init.defaultBranch=main init -q --bare lib.git && git -C lib.git symbolic-ref HEAD refs/heads/main
git -C seed push -q ../lib.git main
"#;

/// What is looked at when a row has run.
const LOOK: &str = r#"
cd "$ROOT"
for r in up empty sha256 lib; do
  echo "== $r"; [ -d $r.git ] || exit 1; git -C $r.git symbolic-ref HEAD; git -C $r.git show-ref; git -C $r.git fsck --full 2>&1
done
exit 0
"#;

/// The functions that rows use.
const PRELUDE: &str = r#"
say() { "$@" >/dev/null 2>&1; echo "$* -> $?" | sed "s,$BASE,BASE,g;s,[^ ]*/work,work,g"; }
look() { git -C "$1" show-ref; git -C "$1" rev-parse --is-shallow-repository; git -C "$1" fsck --full >/dev/null 2>&1; echo "fsck $?"; }
commit() { date=$((1700001000 + ${n:=0})); n=$((n + 1)); echo "$1" > "$1"; git add "$1"
  GIT_AUTHOR_DATE="$date +0000" GIT_COMMITTER_DATE="$date +0000" git commit -qm "$1"; }
"#;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ssh,
    Https,
}

/// One upstream with everything that a row needs, reached direct or through the gate.
struct Bench {
    folder: tempfile::TempDir,
    git: PathBuf,
    protocol: u8,
    sshd: Option<Sshd>,
    https: Option<Https>,
    gate: Gate,
}

impl Bench {
    fn new(kind: Kind, git: &Path, protocol: u8) -> Self {
        let folder = folder();
        let here = folder.path().to_owned();
        let env = clean(git, &here);
        // Older versions of git cannot make every repository of the seed by themselves; the newest one does it.
        sh_ok(&format!("set -e\nmkdir template && cd template\n{SEED}"), &here, &clean(&self::git(), &here));
        std::fs::create_dir(here.join("live")).unwrap();
        let live = here.join("live");
        let names = ["up", "empty", "sha256", "lib", "absent"];
        let (mut sshd, mut https) = (None, None);
        let mut roots = String::new();
        let (remotes, secrets): (Vec<Remote>, _) = match kind {
            Kind::Ssh => {
                let started = Sshd::start(&here, git, "ed25519");
                let remote = |name: &&str| ssh_remote(name, &started, &live.join(format!("{name}.git")));
                let remotes = names.iter().map(remote).collect();
                let secrets = [("key", started.client_key())];
                sshd = Some(started);
                (remotes, secrets)
            }
            Kind::Https => {
                let started = Https::start(&live, git);
                let remote = |name: &&str| Remote {
                    name: (*name).into(),
                    upstream: started.url(&live.join(format!("{name}.git"))),
                    credential: Credential::Basic { secret: "key".into() },
                    host_key: None,
                    inspected: false,
                    push: open_policy(),
                    exceptions: Vec::new(),
                };
                let remotes = names.iter().map(remote).collect();
                roots = started.ca_pem.clone();
                https = Some(started);
                (remotes, [("key", CREDENTIAL.to_owned())])
            }
        };
        let spool = here.join("spool");
        std::fs::create_dir(&spool).unwrap();
        let mut config = config(&spool, remotes);
        config.upstream_roots = roots;
        let gate = Gate::start(&config, &secrets);
        drop(env);
        Self { folder, git: git.to_owned(), protocol, sshd, https, gate }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a row on fresh repositories; what it printed, and what is there afterwards.
    fn run(&self, row: &Row, through: bool) -> (Ran, String) {
        let live = self.path("live");
        for entry in std::fs::read_dir(&live).unwrap().flatten() {
            if entry.path().is_dir() {
                std::fs::remove_dir_all(entry.path()).unwrap();
            }
        }
        let work = self.path("work");
        if work.exists() {
            std::fs::remove_dir_all(&work).unwrap();
        }
        let env = self.env(through);
        sh_ok("cp -a template/*.git live/ && mkdir work", self.folder.path(), &env);
        let ran = sh(&format!("{PRELUDE}\n{}", row.script), &work, &env);
        let mut look = clean(&git(), &work);
        look.insert("ROOT".into(), live.display().to_string());
        let after = sh_ok(LOOK, &work, &look);
        (ran, after.replace(&live.display().to_string(), "LIVE"))
    }

    fn env(&self, through: bool) -> BTreeMap<String, String> {
        let mut env = clean(&self.git, &self.path("work"));
        let live = self.path("live");
        let mut settings = format!(
            "[protocol]\n\tversion = {}\n[init]\n\tdefaultBranch = main\n[advice]\n\tdetachedHead = false\n\
             [gc]\n\tauto = 0\n[safe]\n\tdirectory = *\n",
            self.protocol
        );
        let base = if through {
            format!("git://{}", self.gate.address)
        } else if let Some(sshd) = &self.sshd {
            let (name, value) = sshd.client_env();
            env.insert(name, value);
            sshd.url(&live)
        } else {
            let https = self.https.as_ref().unwrap();
            settings.push_str(&https.client_config(self.folder.path()));
            format!("https://localhost:{}", https.address.port())
        };
        let config = self.path("gitconfig");
        std::fs::write(&config, settings).unwrap();
        env.insert("GIT_CONFIG_GLOBAL".into(), config.display().to_string());
        env.insert("URL".into(), format!("{base}/up.git"));
        env.insert("BASE".into(), base);
        env.insert("ROOT".into(), live.display().to_string());
        env
    }
}

/// Runs the rows in one setting: all of them, or those by which versions and transports could differ. With
/// `GIT_GATE_MATRIX=all` in the environment every setting runs all.
fn matrix(kind: Kind, git: &Path, protocol: u8, all: bool) {
    let bench = Bench::new(kind, git, protocol);
    let mut differences = Vec::new();
    let mut shown = String::new();
    let all = all || std::env::var("GIT_GATE_MATRIX").is_ok_and(|which| which == "all");
    let rows: Vec<&Row> = ROWS.iter().filter(|row| all || row.core).collect();
    for row in &rows {
        let (direct, after_direct) = bench.run(row, false);
        let (gate, after_gate) = bench.run(row, true);
        let what = |ran: &Ran| format!("{}", ran.status.unwrap_or(-1));
        shown.push_str(&format!("| {} | {} | {} |\n", row.name, what(&direct), what(&gate)));
        let gate_wanted = row.gate.unwrap_or_default();
        // With which of its failing statuses git ends is its transport's affair: that of https ends by itself, and git then.
        let status = |ran: &Ran| if row.fails { Some(i32::from(ran.status != Some(0))) } else { ran.status };
        let same = if gate_wanted.is_empty() {
            (status(&direct), &direct.out, &after_direct) == (status(&gate), &gate.out, &after_gate)
        } else {
            // Refused on purpose: another status, and a word why.
            gate.status != Some(0) && gate.err.contains(gate_wanted)
        };
        // A row that fails direct shows nothing, unless that is what it is about.
        let works = row.fails || row.gate.is_some() || protocol < 2 || direct.status == Some(0);
        if !same || !works {
            differences.push(format!(
                "## {}\ndirect {:?}\n{}\n{}\n{after_direct}\ngate {:?}\n{}\n{}\n{after_gate}",
                row.name, direct.status, direct.out, direct.err, gate.status, gate.out, gate.err
            ));
        }
    }
    println!("| operation | direct | gate |\n|---|---|---|\n{shown}");
    assert!(differences.is_empty(), "{} of {}:\n{}", differences.len(), rows.len(), differences.join("\n"));
}

/// The newest git and the oldest; the same one where there is but one.
fn newest() -> PathBuf {
    git()
}

fn oldest() -> PathBuf {
    gits().pop().unwrap()
}

macro_rules! settings {
    ($($name:ident: $kind:ident, $git:ident, $protocol:literal, $all:literal;)*) => {$(
        #[test]
        fn $name() {
            let git = $git();
            println!("git {}", version(&git));
            matrix(Kind::$kind, &git, $protocol, $all);
        }
    )*};
}

settings! {
    ssh_v2_newest: Ssh, newest, 2, true;
    ssh_v1_newest: Ssh, newest, 1, false;
    ssh_v0_newest: Ssh, newest, 0, false;
    ssh_v2_oldest: Ssh, oldest, 2, false;
    ssh_v1_oldest: Ssh, oldest, 1, false;
    ssh_v0_oldest: Ssh, oldest, 0, false;
    https_v2_newest: Https, newest, 2, true;
    https_v1_newest: Https, newest, 1, false;
    https_v0_newest: Https, newest, 0, false;
    https_v2_oldest: Https, oldest, 2, false;
    https_v1_oldest: Https, oldest, 1, false;
    https_v0_oldest: Https, oldest, 0, false;
}
