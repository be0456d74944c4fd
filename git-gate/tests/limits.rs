//! Every limit of the design: what is over it is refused with its name and value, nothing of it is upstream, and the next
//! good push works under the same limit. Those of the pack's form are in `tests/pack`, those of clients that fall silent
//! in `tests/hostile.rs`.

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use git_gate::config::{Config, Event, Operation, Outcome, Remote};
use git_gate::limits::Limits;
use git_gate::pktline::packet;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use world::gate::{Gate, config, ssh_remote};
use world::sshd::Sshd;
use world::{Ran, canary, clean, folder, git, sh, sh_ok};

struct Scene {
    folder: tempfile::TempDir,
    gate: Gate,
    config: Config,
    secrets: Vec<(&'static str, String)>,
    env: BTreeMap<String, String>,
    _sshd: Sshd,
}

/// An upstream whose newest commit has a secret in `old` and a large file, and a clone of it. What upstreams run goes through
/// a script, which first does what the file `before-<program>` says.
const SEED: &str = r#"
git init -q --bare up.git && git -C up.git symbolic-ref HEAD refs/heads/main
git -C up.git config receive.advertisePushOptions true && git -C up.git config uploadpack.allowFilter true
git init -q w && cd w && seq 1 2000 > a && (echo t=$CANARY; head -c 200000 /dev/urandom | od -An -tx1) > old
git add -A && git commit -qm a && git push -q ../up.git HEAD:refs/heads/main HEAD:refs/heads/deep
for i in 1 2 3 4; do git commit -q --allow-empty -m $i; done && git push -q ../up.git HEAD:refs/heads/main
cd .. && mkdir wrapper && for p in $GIT/git*; do ln -s $p wrapper/; done
for p in git-upload-pack git-receive-pack; do
  rm -f wrapper/$p
  printf '#!/bin/sh\n[ ! -e %s/before-%s ] || . %s/before-%s\nexec %s/git %s "$@"\n' $PWD $p $PWD $p $GIT ${p#git-} > wrapper/$p
  chmod +x wrapper/$p
done
"#;

/// The refs and objects of the upstream.
const LOOK: &str = "git -C up.git show-ref; git -C up.git cat-file --batch-all-objects --batch-check";

impl Scene {
    fn new() -> Self {
        let folder = folder();
        let (git, here) = (git(), folder.path().to_owned());
        let mut env = clean(&git, &here);
        env.insert("CANARY".into(), canary());
        env.insert("GIT".into(), git.display().to_string());
        env.insert("HERE".into(), here.display().to_string());
        sh_ok(&format!("set -e\n{SEED}"), &here, &env);
        let sshd = Sshd::start(&here, &here.join("wrapper"), "ed25519");
        std::fs::create_dir(here.join("spool")).unwrap();
        let mut remote = ssh_remote("app", &sshd, &here.join("up.git"));
        remote.push.force = false;
        let config = config(&here.join("spool"), vec![remote]);
        let secrets = vec![("key", sshd.client_key())];
        let gate = Gate::start(&config, &secrets);
        env.insert("URL".into(), gate.url("app"));
        Self { folder, gate, config, secrets, env, _sshd: sshd }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn limit(&mut self, limits: Limits) {
        let config = Config { limits, ..self.config.clone() };
        self.gate.configure(&config, &self.secrets);
        assert_eq!(self.gate.answer(), Event::Configured);
        self.gate.forget();
    }

    /// Runs a script in a fresh copy of the clone; what the gate logged of its last operation.
    fn run(&self, script: &str) -> (Ran, Operation) {
        self.gate.forget();
        sh_ok("rm -rf c && git clone -q w c", self.folder.path(), &self.env);
        let ran = sh(script, &self.path("c"), &self.env);
        let operation = self.gate.operation();
        (ran, operation)
    }

    fn look(&self) -> String {
        sh_ok(LOOK, self.folder.path(), &self.env)
    }

    fn good_push(&self, after: &str) {
        let (ran, operation) = self
            .run("echo good > good && git add good && git commit -qm good && git push -q $URL HEAD:refs/heads/good");
        assert_eq!(ran.status, Some(0), "the next good push after {after}: {}\n{operation:?}", ran.err);
        assert_eq!(operation.outcome, Outcome::Done, "{after}");
        let gone = "git -C up.git update-ref -d refs/heads/good && git -C up.git gc -q --prune=now";
        sh_ok(gone, self.folder.path(), &self.env);
        self.gate.forget();
    }
}

/// A limit, what is over it, and what the agent or the log says then.
struct Row {
    limits: Limits,
    script: &'static str,
    said: &'static str,
}

fn rows() -> Vec<Row> {
    let d = Limits::default();
    let row = |limits, script, said| Row { limits, script, said };
    vec![
        row(
            Limits { pack_bytes: 20_000, ..d },
            "head -c 50000 /dev/urandom > b && git add b && git commit -qm b && git push $URL HEAD:x",
            "pack_bytes (20000)",
        ),
        row(
            Limits { object_bytes: 50_000, ..d },
            "seq 1 20000 > b && git add b && git commit -qm b && git push $URL HEAD:x",
            "object_bytes (50000)",
        ),
        row(
            Limits { inflated_bytes: 50_000, ..d },
            "for i in 1 2 3; do seq $i 5000 > b$i; done && git add . && git commit -qm b && git push $URL HEAD:x",
            "inflated_bytes (50000)",
        ),
        row(
            Limits { inflated_ratio: 1, ..d },
            "head -c 70000000 /dev/zero > b && git add b && git commit -qm b && git push $URL HEAD:x",
            "inflated_ratio (1)",
        ),
        row(
            Limits { objects: 3, ..d },
            "echo 1 > b && echo 2 > c && git add . && git commit -qm b && git push $URL HEAD:x",
            "objects (3)",
        ),
        row(
            Limits { delta_depth: 1, ..d },
            "for i in 1 2 3 4 5; do sed -i ${i}00s/.*/changed/ a && git commit -qam $i || exit 9; done; git push $URL HEAD:x",
            "delta_depth (1)",
        ),
        row(
            Limits { spool_bytes: 20_000, ..d },
            "head -c 50000 /dev/urandom > b && git add b && git commit -qm b && git push $URL HEAD:x",
            "20000 bytes",
        ),
        row(
            Limits { commands: 2, ..d },
            "git commit -q --allow-empty -m b && git push $URL HEAD:x HEAD:y HEAD:z",
            "more than 2 ref updates (commands)",
        ),
        row(
            Limits { command_bytes: 400, ..d },
            "git commit -q --allow-empty -m b && git push $URL HEAD:v HEAD:w HEAD:x HEAD:y HEAD:z",
            "command_bytes (400)",
        ),
        row(
            Limits { ref_bytes: 20, ..d },
            "git commit -q --allow-empty -m b && git push $URL HEAD:refs/heads/much-longer",
            "more than 20 bytes in a ref name (ref_bytes)",
        ),
        row(
            Limits { push_options: 2, ..d },
            "git commit -q --allow-empty -m b && git push -o a -o b -o c $URL HEAD:x",
            "push_options (2)",
        ),
        row(
            Limits { push_option_bytes: 5, ..d },
            "git commit -q --allow-empty -m b && git push -o longer $URL HEAD:x",
            "push_option_bytes (5)",
        ),
        row(
            Limits { decode_depth: 1, ..d },
            "echo x | gzip | gzip > b && git add b && git commit -qm b && git push $URL HEAD:x",
            "\"decode_depth\" of 1 layers",
        ),
        row(
            Limits { decode_blob_bytes: 50_000, ..d },
            "head -c 100000 /dev/zero | gzip > b && git add b && git commit -qm b && git push $URL HEAD:x",
            "\"decode_blob_bytes\" of 50000 bytes",
        ),
        row(
            Limits { decode_push_bytes: 50_000, ..d },
            "for i in 1 2; do (echo $i; head -c 30000 /dev/zero) | gzip > b$i; done && git add . && git commit -qm b && git push $URL HEAD:x",
            "\"decode_push_bytes\" of 50000 bytes",
        ),
        row(
            Limits { archive_entries: 1, ..d },
            "for i in 1 2; do echo $i | gzip > b$i; done && git add . && git commit -qm b && git push $URL HEAD:x",
            "\"archive_entries\" of 1",
        ),
        row(
            Limits { lookup_requests: 1, ..d },
            "echo more >> old && git commit -qam b && git push $URL HEAD:x",
            "over the limit lookup_requests",
        ),
        row(
            Limits { lookup_bytes: 50_000, ..d },
            "echo more >> old && git commit -qam b && git push $URL HEAD:x",
            "over the limit lookup_bytes",
        ),
        row(
            Limits { forward_commits: 2, ..d },
            "git push $URL HEAD:deep",
            "git-gate cannot tell whether this is a fast-forward",
        ),
    ]
}

#[test]
fn what_a_push_may_be() {
    let mut scene = Scene::new();
    // The neighbours that only a limit refuses.
    for script in ["echo more >> old && git commit -qam b && git push $URL HEAD:x", "git push $URL HEAD:deep"] {
        let (ran, operation) = scene.run(script);
        assert_eq!((ran.status, operation.outcome), (Some(0), Outcome::Done), "{script}: {}", ran.err);
    }
    let back = "git -C up.git update-ref -d refs/heads/x && git -C up.git update-ref refs/heads/deep main~4 && git -C up.git gc -q --prune=now";
    sh_ok(back, scene.folder.path(), &scene.env);
    for Row { limits, script, said } in rows() {
        scene.limit(limits);
        let before = scene.look();
        let (ran, operation) = scene.run(script);
        assert!(matches!(ran.status, Some(1 | 128)), "{said}: {:?} {}", ran.status, ran.err);
        let logged = serde_json::to_string(&operation).unwrap().replace("\\\"", "\"");
        // That a finding could not be compared is for the operator: to the agent it is a finding.
        let heard = if said.contains("lookup") { &logged } else { &ran.err };
        assert!(heard.contains(said), "{said}: {}\n{logged}", ran.err);
        assert_eq!(operation.outcome, Outcome::Refused, "{said}: {logged}");
        assert_eq!(scene.look(), before, "{said}: something is upstream");
        scene.good_push(said);
    }
}

#[test]
fn how_much_an_upstream_may_say_first() {
    let mut scene = Scene::new();
    sh_ok(
        "for i in $(seq 1 60); do echo create refs/tags/t$i main; done | git -C up.git update-ref --stdin",
        scene.folder.path(),
        &scene.env,
    );
    scene.limit(Limits { advert_bytes: 2000, ..Limits::default() });
    for command in ["git -c protocol.version=0 ls-remote $URL", "git push $URL HEAD:x"] {
        let (ran, operation) = scene.run(command);
        if command.contains("push") {
            assert!(ran.err.contains("the upstream's advert is over advert_bytes (2000)"), "{}", ran.err);
            assert_eq!((ran.status, operation.outcome), (Some(128), Outcome::Refused));
        } else {
            // A fetch is relayed as it comes, in memory that does not grow with it.
            assert_eq!(ran.status, Some(0), "{}", ran.err);
        }
    }
    sh_ok(
        "for i in $(seq 1 60); do echo delete refs/tags/t$i; done | git -C up.git update-ref --stdin",
        scene.folder.path(),
        &scene.env,
    );
    scene.good_push("advert_bytes");
}

/// What upstreams do before they answer, and what the agent hears of one that is slower than its limit.
#[test]
fn how_long_an_upstream_may_take() {
    let mut scene = Scene::new();
    let second = |change: fn(&mut Limits)| {
        let mut limits = Limits { keepalive_seconds: 1, drain_seconds: 1, ..Limits::default() };
        change(&mut limits);
        limits
    };
    // It sleeps until this test has no use for it any more.
    let sleeps =
        "touch $HERE/asleep; while [ -e $HERE/before-$(basename $0) ]; do sleep 0.2; done; exit 1\n".to_owned();
    let sleeps = sleeps.replace("$HERE", &scene.folder.path().display().to_string());
    let push = "git commit -q --allow-empty -m b && git push $URL HEAD:x";
    for (name, limits, program, script, said) in [
        (
            "advert_seconds of a push",
            second(|limits| limits.advert_seconds = 1),
            "git-receive-pack",
            push,
            "nothing came for 1 seconds",
        ),
        (
            "advert_seconds of a fetch",
            second(|limits| limits.advert_seconds = 1),
            "git-upload-pack",
            "git fetch $URL main",
            "nothing came for 1 seconds",
        ),
        (
            "lookup_seconds",
            second(|limits| limits.lookup_seconds = 1),
            "git-upload-pack",
            "echo more >> old && git commit -qam b && git push $URL HEAD:x",
            "the look-ups are over the limit lookup_seconds",
        ),
    ] {
        scene.limit(limits);
        let file = scene.path(&format!("before-{program}"));
        std::fs::write(&file, &sleeps).unwrap();
        let before = scene.look();
        let (ran, operation) = scene.run(script);
        assert!(matches!(ran.status, Some(1 | 128)), "{name}: {:?} {}", ran.status, ran.err);
        assert!(scene.path("asleep").exists(), "{name}: nobody slept");
        let logged = serde_json::to_string(&operation).unwrap();
        assert!(ran.err.contains(said) || logged.contains(said), "{name}: {}\n{logged}", ran.err);
        assert!(matches!(operation.outcome, Outcome::Failed | Outcome::Refused), "{name}: {logged}");
        assert_eq!(scene.look(), before, "{name}");
        std::fs::remove_file(file).unwrap();
        std::fs::remove_file(scene.path("asleep")).unwrap();
        scene.limit(Limits::default());
        scene.good_push(name);
    }
}

#[test]
fn how_long_a_pack_and_a_report_may_be_away() {
    let mut scene = Scene::new();
    let here = scene.folder.path().display().to_string();
    let stay = format!("while [ -e {here}/stay ]; do sleep 0.2; done; exit 1");
    let script = format!("printf '#!/bin/sh\\n{stay}\\n' > stay-away && chmod +x stay-away && touch stay");
    sh_ok(&script, scene.folder.path(), &scene.env);
    // An upstream that advertises and then sends no pack.
    let settings =
        format!("[safe]\n\tdirectory = *\n[uploadpack]\n\tkeepAlive = 0\n\tpackObjectsHook = {here}/stay-away\n");
    std::fs::write(scene.path("sshd/gitconfig"), settings).unwrap();
    scene.limit(Limits { upstream_idle_seconds: 1, ..Limits::default() });
    for protocol in [0, 2] {
        let fetch = format!(
            "git init -q ../f{protocol} && cd ../f{protocol} && git -c protocol.version={protocol} fetch $URL main"
        );
        let (ran, operation) = scene.run(&fetch);
        assert_eq!(ran.status, Some(128), "{}", ran.err);
        let logged = serde_json::to_string(&operation).unwrap();
        assert!(logged.contains("nothing came from the upstream for 1 seconds"), "{logged}");
        assert_eq!(operation.outcome, Outcome::Failed, "{logged}");
    }
    std::fs::write(scene.path("sshd/gitconfig"), "[safe]\n\tdirectory = *\n").unwrap();
    scene.good_push("upstream_idle_seconds");
    // One that takes the push and does not say what became of it.
    sh_ok("cp stay-away up.git/hooks/pre-receive", scene.folder.path(), &scene.env);
    scene.limit(Limits { report_seconds: 1, keepalive_seconds: 1, ..Limits::default() });
    let (ran, operation) = scene.run("git commit -q --allow-empty -m b && git push $URL HEAD:x");
    assert_ne!(ran.status, Some(0), "{}", ran.err);
    assert!(ran.err.contains("outcome unknown, run git fetch"), "{}", ran.err);
    let logged = serde_json::to_string(&operation).unwrap();
    assert!(operation.outcome == Outcome::Unknown && logged.contains("no report within 1 seconds"), "{logged}");
    sh_ok("rm stay up.git/hooks/pre-receive", scene.folder.path(), &scene.env);
    scene.good_push("report_seconds");
}

#[test]
fn how_long_a_connection_and_a_login_may_take() {
    let mut scene = Scene::new();
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let good = scene.config.clone();
    let ssh = Remote { upstream: format!("ssh://git@127.0.0.1:{port}/x"), ..good.remotes[0].clone() };
    let https = Remote {
        upstream: format!("https://localhost:{port}/x"),
        credential: git_gate::config::Credential::None,
        host_key: None,
        ..good.remotes[0].clone()
    };
    let roots = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap().cert.pem();
    for (name, remote, limits, said) in [
        ("handshake_seconds", ssh, Limits { handshake_seconds: 1, ..Limits::default() }, "no ssh handshake from"),
        ("connect_seconds", https, Limits { connect_seconds: 1, ..Limits::default() }, "no connection from"),
    ] {
        scene.config = Config { remotes: vec![remote], upstream_roots: roots.clone(), ..good.clone() };
        scene.limit(limits);
        for command in ["git ls-remote $URL", "git push $URL HEAD:x"] {
            let (ran, operation) = scene.run(command);
            assert!(
                ran.status == Some(128) && ran.err.contains("upstream did not answer in time"),
                "{name}: {}",
                ran.err
            );
            let logged = serde_json::to_string(&operation).unwrap();
            assert!(logged.contains(said) && logged.contains("within 1 seconds"), "{name}: {logged}");
            assert_eq!(operation.outcome, Outcome::Failed, "{name}");
        }
        scene.config = good.clone();
        scene.limit(Limits::default());
        scene.good_push(name);
    }
}

#[test]
fn how_long_a_push_and_its_scan_may_take() {
    let mut scene = Scene::new();
    let hook = "printf '#!/bin/sh\\nsleep 3\\n' > .git/hooks/pre-push && chmod +x .git/hooks/pre-push && ";
    for (name, limits, script, said) in [
        (
            "push_seconds",
            Limits { push_seconds: 1, ..Limits::default() },
            format!("{hook}git commit -q --allow-empty -m b && git push $URL HEAD:x"),
            "the push took longer than push_seconds (1)",
        ),
        (
            "scan_seconds",
            Limits { scan_seconds: 1, scan_bytes_per_second: u64::MAX, ..Limits::default() },
            "yes -- '-----BEGIN PRIVATE KEY-----' | head -c 40000000 > b && git add b && git commit -qm b && git push $URL HEAD:x".to_owned(),
            "\"scan_seconds\" of 1",
        ),
    ] {
        scene.limit(limits);
        let before = scene.look();
        let (ran, operation) = scene.run(&script);
        assert!(matches!(ran.status, Some(1 | 128)), "{name}: {:?} {}", ran.status, ran.err);
        let logged = serde_json::to_string(&operation).unwrap().replace("\\\"", "\"");
        assert!(logged.contains(said) && operation.outcome == Outcome::Refused, "{name}: {}\n{logged}", ran.err);
        assert_eq!(scene.look(), before, "{name}");
        scene.limit(Limits::default());
        scene.good_push(name);
    }
}

#[test]
fn how_many_may_be_at_work() {
    let mut scene = Scene::new();
    for (name, limits, service, script) in [
        (
            "pushes",
            Limits { pushes: 1, turn_seconds: 1, ..Limits::default() },
            "git-receive-pack",
            "git push $URL HEAD:x",
        ),
        (
            "sessions",
            Limits { sessions: 1, turn_seconds: 1, ..Limits::default() },
            "git-upload-pack",
            "git ls-remote $URL",
        ),
    ] {
        scene.limit(limits);
        let mut held = scene.gate.connect();
        held.write_all(&packet(format!("{service} /app.git\0host=x\0").as_bytes())).unwrap();
        // It is served: it has its place.
        held.read_exact(&mut [0; 4]).unwrap();
        let (ran, operation) = scene.run(script);
        assert_eq!((ran.status, operation.outcome), (Some(128), Outcome::Refused), "{name}: {}", ran.err);
        let said = format!("busy: all 1 {name} were taken for 1 seconds; try again");
        assert!(ran.err.contains(&said), "{name}: {}", ran.err);
        drop(held);
        // It ends when it sees that the other has gone.
        scene.gate.operation();
        scene.good_push(name);
    }
}
