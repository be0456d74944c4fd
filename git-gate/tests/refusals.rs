//! Pushes that must not pass: after each the client has failed, the upstream has none of the push's objects, nothing that
//! was said or logged has a byte of the secret, and a good push still works.

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use git_gate::config::{Excused, Outcome, Service, allow_finding_line, revoke_finding_line};
use std::collections::BTreeMap;
use std::path::PathBuf;
use world::gate::{Gate, config, ssh_remote};
use world::sshd::Sshd;
use world::{Ran, canary, clean, folder, git, sh, sh_ok};

struct Scene {
    folder: tempfile::TempDir,
    gate: Gate,
    env: BTreeMap<String, String>,
    _sshd: Sshd,
}

const SEED: &str = "git init -q --bare up.git && git -C up.git symbolic-ref HEAD refs/heads/main &&
    git -C up.git config receive.advertisePushOptions true && git -C up.git config uploadpack.allowFilter true &&
    git init -q w && cd w && mkdir -p src/deep && echo a > a && seq 1 1000 > numbers && git add -A && git commit -qm a &&
    git push -q ../up.git HEAD:refs/heads/main";

impl Scene {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut git_gate::config::Config)) -> Self {
        let folder = folder();
        let (git, here) = (git(), folder.path());
        let mut env = clean(&git, here);
        sh_ok(SEED, here, &env);
        let sshd = Sshd::start(here, &git, "ed25519");
        let mut config = config(here, vec![ssh_remote("app", &sshd, &here.join("up.git"))]);
        change(&mut config);
        let secrets = [("key", sshd.client_key()), ("operator", "an-operators-own-passw0rd".to_owned())];
        let gate = Gate::start(&config, &secrets);
        env.insert("URL".into(), gate.url("app"));
        env.insert("CANARY".into(), canary());
        env.insert("UP".into(), here.join("up.git").display().to_string());
        Self { folder, gate, env, _sshd: sshd }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a script in a fresh clone.
    fn run(&self, script: &str) -> Ran {
        self.gate.forget();
        sh_ok("rm -rf c && git clone -q $URL c", self.folder.path(), &self.env);
        // It is logged when the client is gone already.
        while self.gate.operation().service != Service::Fetch {}
        sh(script, &self.path("c"), &self.env)
    }

    /// Objects of the clone that the upstream has not had before, and those of them that it has now.
    fn new_objects(&self) -> (usize, Vec<String>) {
        let list = "git cat-file --batch-all-objects --batch-check='%(objectname)'";
        let own = sh_ok(list, &self.path("c"), &self.env);
        let theirs = sh_ok(list, &self.path("up.git"), &self.env);
        let seed = sh_ok(list, &self.path("w"), &self.env);
        let is_old = |id: &&str| seed.contains(*id);
        let new: Vec<&str> = own.lines().filter(|id| !is_old(id)).collect();
        let arrived = new.iter().filter(|id| theirs.contains(**id)).map(|id| (*id).to_owned()).collect();
        (new.len(), arrived)
    }

    fn good_push(&self) {
        let ran = self.run(
            "date +%N > good && git add good && git commit -qm good && git push -q origin HEAD:refs/heads/good-$$",
        );
        assert_eq!(ran.status, Some(0), "the next good push: {}", ran.err);
        self.gate.forget();
        sh_ok(
            "for r in $(git -C up.git for-each-ref --format='%(refname)' refs/heads/good-*); do git -C up.git update-ref -d $r; done; git -C up.git gc -q --prune=now",
            self.folder.path(),
            &self.env,
        );
    }
}

/// What is pushed, as a script, and by which word in the report it is known.
const ROWS: &[(&str, &str, &str)] = &[
    ("blob", "echo t=$CANARY > cfg && git add cfg && git commit -qm x && git push origin HEAD:x", "cfg@"),
    (
        "older commit, removed later",
        "echo t=$CANARY > cfg && git add cfg && git commit -qm x && git rm -q cfg && git commit -qm y && git push origin HEAD:x",
        "no longer has it",
    ),
    ("message", "git commit -q --allow-empty -m \"use $CANARY\" && git push origin HEAD:x", "commit "),
    ("author", "git commit -q --allow-empty --author \"$CANARY <a@b>\" -m x && git push origin HEAD:x", "commit "),
    ("tag message", "git tag -a -m \"$CANARY\" t && git push origin t", "tag "),
    ("file name", "echo x > src-$CANARY && git add -A && git commit -qm x && git push origin HEAD:x", "file name "),
    (
        "folder name",
        "mkdir $CANARY && echo x > $CANARY/f && git add -A && git commit -qm x && git push origin HEAD:x",
        "file name ",
    ),
    ("branch name", "git push origin HEAD:refs/heads/$CANARY", "the ref's name"),
    ("note", "git notes add -m $CANARY && git push origin refs/notes/commits", "ghp_…(40 chars)"),
    ("push option", "git commit -q --allow-empty -m x && git push -o key=$CANARY origin HEAD:x", "push option 1"),
    (
        "UTF-16",
        "echo t=$CANARY | iconv -t UTF-16 > cfg && git add cfg && git commit -qm x && git push origin HEAD:x",
        "cfg@",
    ),
    ("base64", "echo t=$CANARY | base64 > cfg && git add cfg && git commit -qm x && git push origin HEAD:x", "cfg@"),
    (
        "gzip",
        "echo t=$CANARY | gzip > cfg.dat && git add cfg.dat && git commit -qm x && git push origin HEAD:x",
        "cfg.dat@",
    ),
    (
        "node_modules",
        "mkdir node_modules && echo t=$CANARY > node_modules/a.js && git add -f . && git commit -qm x && git push origin HEAD:x",
        "node_modules/a.js@",
    ),
    ("image", "echo t=$CANARY > a.png && git add a.png && git commit -qm x && git push origin HEAD:x", "a.png@"),
    (
        "allow comment",
        "echo \"t=$CANARY # gitleaks:allow kingfisher:ignore\" > cfg && git add cfg && git commit -qm x && git push origin HEAD:x",
        "cfg@",
    ),
    (
        "repository's own rules",
        "printf '[allowlist]\\npaths = [\".*\"]\\n' > .gitleaks.toml && echo t=$CANARY > cfg && git add -A && git commit -qm x && git push origin HEAD:x",
        "cfg@",
    ),
    (
        "-diff attribute",
        "echo '* -diff binary' > .gitattributes && echo t=$CANARY > cfg && git add -A && git commit -qm x && git push origin HEAD:x",
        "cfg@",
    ),
    ("symlink", "ln -s $CANARY link && git add link && git commit -qm x && git push origin HEAD:x", "link@"),
    (
        "evil merge",
        "git checkout -q -b y && git commit -q --allow-empty -m y && git checkout -q - && git commit -q --allow-empty -m z && git merge -q --no-commit y; echo t=$CANARY > cfg && git add cfg && git commit -qm m && git push origin HEAD:x",
        "cfg@",
    ),
    ("tag on a blob", "git tag t $(echo t=$CANARY | git hash-object -w --stdin) && git push origin t", "blob"),
    (
        "a delta's result",
        "seq 1 5000 > numbers && git add -A && git commit -qm x && (seq 1 2500; echo t=$CANARY; seq 2500 5000) > numbers && git commit -qam y && git push origin HEAD:x",
        "numbers@",
    ),
    (
        "two refs, one of them clean",
        "git branch clean && echo t=$CANARY > cfg && git add cfg && git commit -qm x && git push origin HEAD:x clean",
        "cfg@",
    ),
    (
        "a known secret of the operator",
        "echo an-operators-own-passw0rd > cfg && git add cfg && git commit -qm x && git push origin HEAD:x",
        "cfg@",
    ),
];

#[test]
fn secrets_stay() {
    let scene = Scene::with(|config| config.known = vec!["operator".into()]);
    for (name, script, place) in ROWS {
        let ran = scene.run(script);
        assert_eq!(ran.status, Some(1), "{name}: {}", ran.err);
        assert!(ran.err.contains("PUSH REJECTED") && ran.err.contains(place), "{name}: {}", ran.err);
        let rejected = ran.err.contains("[remote rejected]") && ran.err.contains("(secret found by git-gate)");
        assert!(rejected, "{name}: {}", ran.err);
        let said: String = ran.err.lines().filter(|line| line.starts_with("remote:")).collect();
        assert!(!said.contains(&canary()) && !said.contains("an-operators-own"), "{name}: {said}");
        let operation = scene.gate.operation();
        let logged = serde_json::to_string(&operation).unwrap();
        assert_eq!(operation.outcome, Outcome::Refused, "{name}: {logged}");
        assert!(!operation.findings.is_empty() && operation.findings[0].fingerprint.len() == 64, "{name}: {logged}");
        assert!(!logged.contains(&canary()) && !logged.contains("an-operators-own"), "{name}: {logged}");
        let (count, arrived) = scene.new_objects();
        assert!(arrived.is_empty(), "{name}: {arrived:?} of {count} are upstream");
        let refs = sh_ok("git -C up.git for-each-ref --format='%(refname)'", scene.folder.path(), &scene.env);
        assert_eq!(refs.trim(), "refs/heads/main", "{name}");
    }
    scene.good_push();
}

#[test]
fn porcelain_and_quiet_say_it_too() {
    let scene = Scene::new();
    let ran = scene.run(
        "echo t=$CANARY > cfg && git add cfg && git commit -qm x && git push -q --porcelain origin HEAD:refs/heads/x",
    );
    assert_eq!(ran.status, Some(1));
    assert!(ran.out.contains("!\tHEAD:refs/heads/x\t[remote rejected] (secret found by git-gate)"), "{}", ran.out);
    assert!(ran.err.contains("PUSH REJECTED"), "{}", ran.err);
}

#[test]
fn policy_refuses_and_lets_its_neighbours_pass() {
    let scene = Scene::with(|config| {
        config.remotes[0].push.refs = vec!["refs/heads/agent/*".into(), "refs/tags/*".into(), "refs/heads/main".into()];
        config.remotes[0].push.force = false;
        config.remotes[0].push.delete = false;
        config.remotes[0].push.max_pack = Some(100_000);
    });
    for (name, script, wanted) in [
        ("a ref that is allowed", "git commit -q --allow-empty -m x && git push origin HEAD:refs/heads/agent/a/b", ""),
        (
            "one that is not",
            "git commit -q --allow-empty -m x && git push origin HEAD:refs/heads/other",
            "ref not allowed by git-gate",
        ),
        (
            "both",
            "git commit -q --allow-empty -m x && git push origin HEAD:refs/heads/agent/c HEAD:refs/heads/other",
            "refused by git-gate with the others",
        ),
        (
            "a fast-forward in the pack",
            "git commit -q --allow-empty -m 1 && git push origin HEAD:refs/heads/agent/f && git commit -q --allow-empty -m 2 && git push origin HEAD:refs/heads/agent/f",
            "",
        ),
        (
            "a fast-forward over two commits",
            "git fetch -q && git checkout -q origin/agent/f && git commit -q --allow-empty -m 3 && git commit -q --allow-empty -m 4 && git push origin HEAD:refs/heads/agent/f",
            "",
        ),
        (
            "backwards",
            "git checkout -q origin/agent/f && git push -f origin HEAD~2:refs/heads/agent/f",
            "non-fast-forward not allowed by git-gate",
        ),
        (
            "sideways",
            "git checkout -q origin/agent/f~1 && git commit -q --allow-empty -m s && git push -f origin HEAD:refs/heads/agent/f",
            "non-fast-forward not allowed by git-gate",
        ),
        (
            "forward to what is upstream",
            "git push origin origin/main:refs/heads/agent/g && git push origin origin/agent/f:refs/heads/agent/g",
            "",
        ),
        (
            "a merge forward",
            "git checkout -q -b m origin/main && git commit -q --allow-empty -m m && git merge -q -m mm origin/agent/g && git push origin HEAD:refs/heads/agent/g",
            "",
        ),
        ("a new tag", "git tag v1 && git push origin v1", ""),
        (
            "a tag that moves",
            "git commit -q --allow-empty -m x && git tag -f v1 && git push -f origin v1",
            "moving a tag is not allowed by git-gate",
        ),
        ("a delete", "git push origin :refs/heads/agent/f", "does not support deleting refs"),
        (
            "a pack over the limit",
            "head -c 200000 /dev/urandom > big && git add big && git commit -qm x && git push origin HEAD:refs/heads/agent/big",
            "100000",
        ),
        (
            "a pack below it",
            "head -c 50000 /dev/urandom > big && git add big && git commit -qm x && git push origin HEAD:refs/heads/agent/small",
            "",
        ),
    ] {
        let before = sh_ok("git -C up.git show-ref", scene.folder.path(), &scene.env);
        let ran = scene.run(script);
        let after = sh_ok("git -C up.git show-ref", scene.folder.path(), &scene.env);
        if wanted.is_empty() {
            assert_eq!(ran.status, Some(0), "{name}: {}\n{:?}", ran.err, scene.gate.operation());
            assert_ne!(before, after, "{name}");
        } else {
            assert!(ran.status != Some(0) && ran.err.contains(wanted), "{name}: {:?} {}", ran.status, ran.err);
            assert_eq!(before, after, "{name}");
        }
    }
}

#[test]
fn what_the_upstream_has_already_is_no_finding() {
    let scene = Scene::new();
    // The secret gets there by another way.
    sh_ok(
        "cd w && (echo first; echo t=$CANARY; seq 1 50) > src/deep/cfg && echo t=$CANARY | gzip > packed && git add -A && git commit -qm old && git push -q ../up.git HEAD:refs/heads/main",
        scene.folder.path(),
        &scene.env,
    );
    let other = canary().replace("4fQ9", "7kW3");
    for (name, script, passes) in [
        ("an edit of that file", "echo more >> src/deep/cfg && git commit -qam x && git push origin HEAD:edit".to_owned(), true),
        ("the same in the next commit", "echo 1 >> src/deep/cfg && git commit -qam x && echo 2 >> src/deep/cfg && git commit -qam y && git push origin HEAD:edit2".into(), true),
        (
            "a shallow clone that sends all of it again",
            "cd .. && rm -rf s && git clone -q --depth 1 $URL s && cd s && git -C $UP update-ref refs/heads/away HEAD && git -C $UP update-ref refs/heads/main HEAD~1 && echo x > x && git add x && git commit -qm x && git push origin HEAD:shallow; rc=$?; git -C $UP update-ref refs/heads/main refs/heads/away; git -C $UP update-ref -d refs/heads/away; exit $rc".into(),
            true,
        ),
        ("the same secret in another file", "cp src/deep/cfg copy && echo >> copy && git add copy && git commit -qm x && git push origin HEAD:copy".into(), false),
        ("another secret in that file", format!("echo t={other} >> src/deep/cfg && git commit -qam x && git push origin HEAD:another"), false),
    ] {
        let ran = scene.run(&script);
        let operation = scene.gate.operation();
        let passed = ran.status == Some(0);
        assert_eq!(passed, passes, "{name}: {}\n{operation:?}", ran.err);
        if !passes {
            assert!(ran.err.contains("PUSH REJECTED: 1 possible"), "{name}: {}", ran.err);
        }
    }
}

#[test]
fn exceptions_come_and_go() {
    let mut scene = Scene::new();
    let push = "echo t=$CANARY > cfg && git add cfg && git commit -qm x && git push origin +HEAD:refs/heads/x";
    let gone = "git -C up.git update-ref -d refs/heads/x; git -C up.git gc -q --prune=now";
    let ran = scene.run(push);
    assert_eq!(ran.status, Some(1));
    let fingerprint = scene.gate.operation().findings[0].fingerprint.clone();
    assert!(ran.err.contains(&format!("fingerprint {}", &fingerprint[..12])), "{}", ran.err);
    let configured = git_gate::config::Event::Configured;
    // A short one is no exception.
    scene.gate.say(&allow_finding_line(&fingerprint[..12], "app", false).unwrap());
    assert!(matches!(scene.gate.next(), git_gate::config::Event::Refused { .. }));
    scene.gate.say(&allow_finding_line(&fingerprint, "nobody", false).unwrap());
    assert!(matches!(scene.gate.next(), git_gate::config::Event::Refused { .. }));
    // For one push.
    scene.gate.say(&allow_finding_line(&fingerprint, "app", true).unwrap());
    assert_eq!(scene.gate.next(), configured);
    // One that has another finding too does not use it up.
    let other = canary().replace("4fQ9", "7kW3");
    let both = format!("echo t={other} > other && git add other && {push}");
    assert_eq!(scene.run(&both).status, Some(1));
    // Nor does one that the upstream did not take.
    let hook = "printf '#!/bin/sh\\nexit 1\\n' > up.git/hooks/pre-receive && chmod +x up.git/hooks/pre-receive";
    sh_ok(hook, scene.folder.path(), &scene.env);
    let declined = scene.run(push);
    assert!(declined.status == Some(1) && declined.err.contains("pre-receive hook declined"), "{}", declined.err);
    assert_eq!(scene.gate.operation().outcome, Outcome::Rejected);
    sh_ok("rm up.git/hooks/pre-receive", scene.folder.path(), &scene.env);
    assert_eq!(scene.run(push).status, Some(0));
    let operation = scene.gate.operation();
    assert_eq!((operation.outcome, operation.findings[0].excused), (Outcome::Done, Some(Excused::Exception)));
    sh_ok(gone, scene.folder.path(), &scene.env);
    assert_eq!(scene.run(push).status, Some(1));
    // Lasting, and taken back.
    scene.gate.say(&allow_finding_line(&fingerprint, "app", false).unwrap());
    for _ in 0..2 {
        assert_eq!(scene.run(push).status, Some(0));
        sh_ok(gone, scene.folder.path(), &scene.env);
    }
    scene.gate.say(&revoke_finding_line(&fingerprint, "app").unwrap());
    assert_eq!(scene.run(push).status, Some(1));
    scene.good_push();
}

#[test]
fn what_switches_a_forges_own_scan_off_does_not_pass_and_its_neighbours_do() {
    let scene = Scene::new();
    for (name, script, said) in [
        (
            "a push option",
            "git commit -q --allow-empty -m x && git push -o secret_push_protection.skip_all origin HEAD:option",
            "push options that switch a forge's secret scan off are not allowed",
        ),
        (
            "a commit's message",
            "git commit -q --allow-empty -m 'x [Skip Secret Push Protection]' && git push origin HEAD:message",
            "a commit message that switches a forge's secret scan off is not allowed",
        ),
        (
            "an older commit's",
            "git commit -q --allow-empty -m '[skip secret detection]' && git commit -q --allow-empty -m y && git push origin HEAD:older",
            "a commit message that switches a forge's secret scan off is not allowed",
        ),
        ("other options", "git commit -q --allow-empty -m x && git push -o ci.skip origin HEAD:good", ""),
        ("another word", "git commit -q --allow-empty -m '[skip ci]' && git push origin HEAD:good", ""),
    ] {
        let ran = scene.run(script);
        let operation = scene.gate.operation();
        let (_, arrived) = scene.new_objects();
        if said.is_empty() {
            assert_eq!((ran.status, operation.outcome), (Some(0), Outcome::Done), "{name}: {}", ran.err);
            sh_ok("git -C up.git update-ref -d refs/heads/good", scene.folder.path(), &scene.env);
        } else {
            assert!(ran.status == Some(1) && ran.err.contains(said), "{name}: {}", ran.err);
            assert!(ran.err.contains("! [remote rejected] HEAD -> "), "{name}: {}", ran.err);
            assert_eq!((operation.outcome, arrived), (Outcome::Refused, Vec::new()), "{name}");
        }
    }
    scene.good_push();
}

#[test]
fn names_of_the_agents_write_nothing_on_a_terminal_or_into_a_log_but_themselves() {
    let scene = Scene::new();
    // It clears the screen, begins a line of its own, turns the direction of writing, and is longer than a line.
    let name = "$(printf 'a\\033[2J\\nremote: fine\\342\\200\\256%0200d' 0)";
    let script =
        format!("echo t=$CANARY > \"{name}\" && git add -A && git commit -qm x && git push origin HEAD:refs/heads/x");
    let ran = scene.run(&script);
    assert!(ran.status == Some(1) && ran.err.contains("PUSH REJECTED: 1 possible"), "{}", ran.err);
    let place = ran.err.lines().find(|line| line.contains("a\\u{1b}[2J\\u{a}remote: fine\\u{202e}0000")).unwrap();
    assert!(place.contains("…@") && place.chars().count() < 250, "{place}");
    let told: Vec<&str> = ran.err.lines().filter(|line| line.starts_with("remote:")).collect();
    assert!(
        !told.concat().contains(['\u{202e}', '\n']) && told.iter().all(|line| !line.contains("\u{1b}[2J")),
        "{told:?}"
    );
    let operation = scene.gate.operation();
    let logged = serde_json::to_string(&operation).unwrap();
    assert!(!logged.contains(['\u{1b}', '\u{202e}', '\n']), "{logged}");
    assert!(scene.new_objects().1.is_empty());
    scene.good_push();
}
