//! Upstreams that are down, are somebody else, or die: what the agent hears is true, and never a success that was none.

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use git_gate::config::{Config, Credential, Outcome, Remote};
use git_gate::limits::Limits;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use world::gate::{Gate, config, open_policy, ssh_remote};
use world::https::{CREDENTIAL, Https};
use world::sshd::Sshd;
use world::{Ran, clean, folder, free_port, git, sh, sh_ok};

struct Scene {
    folder: tempfile::TempDir,
    env: BTreeMap<String, String>,
}

impl Scene {
    fn new() -> Self {
        let folder = folder();
        let env = clean(&git(), folder.path());
        sh_ok(
            "mkdir live && git init -q --bare live/up.git && git -C live/up.git symbolic-ref HEAD refs/heads/main && git init -q w && cd w &&
             seq 1 2000 > a && git add a && git commit -qm a && git push -q ../live/up.git HEAD:refs/heads/main &&
             head -c 300000 /dev/urandom > b && git add b && git commit -qm b",
            folder.path(),
            &env,
        );
        Self { folder, env }
    }

    fn here(&self) -> &Path {
        self.folder.path()
    }

    fn sshd(&self) -> Sshd {
        Sshd::start(self.here(), &git(), "ed25519")
    }

    fn remote(&self, sshd: &Sshd) -> Remote {
        ssh_remote("app", sshd, &self.here().join("live/up.git"))
    }

    fn config(&self, remotes: Vec<Remote>) -> Config {
        config(self.here(), remotes)
    }

    fn run(&self, gate: &Gate, script: &str) -> Ran {
        let mut env = self.env.clone();
        env.insert("URL".into(), gate.url("app"));
        sh(script, &self.here().join("w"), &env)
    }

    fn has(&self, name: &str) -> bool {
        sh(&format!("git -C live/up.git rev-parse -q --verify {name}"), self.here(), &self.env).status == Some(0)
    }

    fn hook(&self, name: &str, script: &str) {
        sh_ok(
            &format!(
                "printf '#!/bin/sh\\n{script}\\n' > live/up.git/hooks/{name} && chmod +x live/up.git/hooks/{name}"
            ),
            self.here(),
            &self.env,
        );
    }
}

#[test]
fn who_it_is_not() {
    let scene = Scene::new();
    let sshd = scene.sshd();
    let other = Scene::new();
    let stranger = other.sshd();
    let good = scene.remote(&sshd);
    let key = sshd.client_key();
    for (name, remote, key, wanted) in [
        ("the right one", good.clone(), key.clone(), ""),
        (
            "another host key",
            Remote { host_key: Some(stranger.host_key()), ..good.clone() },
            key.clone(),
            "host key is not the pinned one",
        ),
        ("another key", good.clone(), stranger.client_key(), "does not accept the credential"),
        (
            "no such repository",
            Remote { upstream: sshd.url(&scene.here().join("live/none.git")), ..good.clone() },
            key.clone(),
            "does not appear to be a git repository",
        ),
        (
            "nobody there",
            Remote { upstream: format!("ssh://git@127.0.0.1:{}/x", free_port()), ..good.clone() },
            key.clone(),
            "upstream unreachable",
        ),
        (
            "no such host",
            Remote { upstream: "ssh://git@nobody.invalid/x".into(), ..good.clone() },
            key.clone(),
            "upstream unreachable",
        ),
    ] {
        let gate = Gate::start(&scene.config(vec![remote]), &[("key", key)]);
        for command in ["git ls-remote $URL", "git push $URL HEAD:refs/heads/x"] {
            let ran = scene.run(&gate, command);
            if wanted.is_empty() {
                assert_eq!(ran.status, Some(0), "{name}: {}", ran.err);
            } else {
                assert_eq!(ran.status, Some(128), "{name}: {}", ran.err);
                assert!(
                    ran.err.contains("remote error: git-gate: ") && ran.err.contains(wanted),
                    "{name}: {}",
                    ran.err
                );
                assert_eq!(gate.operation().outcome, Outcome::Failed, "{name}");
            }
        }
    }
}

#[test]
fn a_pinned_type_is_the_only_one() {
    for kind in ["rsa", "ecdsa"] {
        let scene = Scene::new();
        let sshd = Sshd::start(scene.here(), &git(), kind);
        let gate = Gate::start(&scene.config(vec![scene.remote(&sshd)]), &[("key", sshd.client_key())]);
        let ran = scene.run(&gate, "git ls-remote $URL");
        assert_eq!(ran.status, Some(0), "{kind}: {}", ran.err);
        // A host that has no key of the pinned type is not the pinned host.
        let other = Scene::new();
        let pin = other.sshd().host_key();
        let remote = Remote { host_key: Some(pin), ..scene.remote(&sshd) };
        let gate = Gate::start(&scene.config(vec![remote]), &[("key", sshd.client_key())]);
        let ran = scene.run(&gate, "git ls-remote $URL");
        assert!(ran.err.contains("host key is not the pinned one"), "{kind}: {}", ran.err);
    }
}

#[test]
fn keys_of_every_kind() {
    let scene = Scene::new();
    let sshd = scene.sshd();
    for (kind, passphrase) in [
        ("ed25519", ""),
        ("rsa -b 3072", ""),
        ("ecdsa -b 256", ""),
        ("ecdsa -b 384", ""),
        ("ed25519", "a passphrase"),
        ("rsa", "a passphrase"),
    ] {
        sh_ok(&format!("rm -f k k.pub; ssh-keygen -q -t {kind} -N '{passphrase}' -f k"), scene.here(), &scene.env);
        let read = |name: &str| std::fs::read_to_string(scene.here().join(name)).unwrap();
        sshd.admit(&read("k.pub"));
        let mut remote = scene.remote(&sshd);
        let mut secrets = vec![("key", read("k"))];
        if !passphrase.is_empty() {
            remote.credential = Credential::SshKey { secret: "key".into(), passphrase: Some("words".into()) };
            secrets.push(("words", passphrase.to_owned()));
        }
        let gate = Gate::start(&scene.config(vec![remote]), &secrets);
        let ran = scene.run(&gate, "git ls-remote $URL");
        assert_eq!(ran.status, Some(0), "{kind} {passphrase}: {}\n{:?}", ran.err, gate.operation());
    }
}

#[test]
fn one_that_dies_before_the_forward() {
    let scene = Scene::new();
    let sshd = scene.sshd();
    let gate = Gate::start(&scene.config(vec![scene.remote(&sshd)]), &[("key", sshd.client_key())]);
    // The hook runs when the advertisement is there and the pack is not.
    let pid = sshd.pid();
    let script = format!(
        "printf '#!/bin/sh\\npkill -9 -P {pid}; kill -9 {pid}\\n' > .git/hooks/pre-push && chmod +x .git/hooks/pre-push && git push $URL HEAD:refs/heads/x"
    );
    let ran = scene.run(&gate, &script);
    assert_eq!(ran.status, Some(1), "{}", ran.err);
    assert!(ran.err.contains("upstream unreachable") && ran.err.contains("not forwarded"), "{}", ran.err);
    assert!(!scene.has("refs/heads/x"));
    assert_eq!(gate.operation().outcome, Outcome::Failed);
}

#[test]
fn one_that_dies_in_and_after_the_forward() {
    let scene = Scene::new();
    let sshd = scene.sshd();
    let gate = Gate::start(&scene.config(vec![scene.remote(&sshd)]), &[("key", sshd.client_key())]);
    for (hook, arrives) in [("pre-receive", false), ("update", false), ("post-update", true)] {
        // The hook's parent is receive-pack.
        scene.hook(hook, "kill -9 $PPID");
        let ran = scene.run(&gate, &format!("git push $URL HEAD:refs/heads/{hook}"));
        let operation = gate.operation();
        if arrives {
            // It reported before it ran that hook: the report is true.
            assert_eq!((ran.status, operation.outcome), (Some(0), Outcome::Done), "{hook}: {}", ran.err);
        } else {
            assert_ne!(ran.status, Some(0), "{hook}: {}", ran.err);
            assert!(ran.err.contains("outcome unknown, run git fetch"), "{hook}: {}", ran.err);
            assert_eq!(operation.outcome, Outcome::Unknown, "{hook}");
        }
        assert_eq!(scene.has(&format!("refs/heads/{hook}")), arrives, "{hook}");
        std::fs::remove_file(scene.here().join(format!("live/up.git/hooks/{hook}"))).unwrap();
    }
    let ran = scene.run(&gate, "git push $URL HEAD:refs/heads/good");
    assert_eq!(ran.status, Some(0), "{}", ran.err);
}

#[test]
fn one_that_dies_while_it_receives() {
    let scene = Scene::new();
    // The second receive-pack of a push is the forward's; this one takes some bytes and dies.
    let wrapper = scene.here().join("wrapper");
    std::fs::create_dir(&wrapper).unwrap();
    let git = git();
    sh_ok(
        &format!(
            "for p in {g}/git*; do ln -s $p wrapper/; done; rm -f wrapper/git-receive-pack; \
             printf '#!/bin/sh\\nif [ -e {here}/second ]; then {g}/git receive-pack \"$@\" < /dev/null; head -c 100000 > /dev/null; exit 1; fi\\ntouch {here}/second\\nexec {g}/git receive-pack \"$@\"\\n' > wrapper/git-receive-pack && chmod +x wrapper/git-receive-pack",
            g = git.display(),
            here = scene.here().display()
        ),
        scene.here(),
        &scene.env,
    );
    let sshd = Sshd::start(scene.here(), &wrapper, "ed25519");
    let gate = Gate::start(&scene.config(vec![scene.remote(&sshd)]), &[("key", sshd.client_key())]);
    let ran = scene.run(&gate, "git push $URL HEAD:refs/heads/x");
    assert_ne!(ran.status, Some(0), "{}", ran.err);
    assert!(ran.err.contains("outcome unknown"), "{}\n{:?}", ran.err, gate.operation());
    assert!(!scene.has("refs/heads/x"));
}

#[test]
fn one_is_not_kept_waiting_while_the_agent_makes_up_its_mind() {
    let scene = Scene::new();
    // What the upstream runs says when it has ended.
    let script = format!(
        "mkdir wrapper && for p in {g}/git*; do ln -s $p wrapper/; done; rm -f wrapper/git-receive-pack; \
         printf '#!/bin/sh\\n{g}/git receive-pack \"$@\"\\necho ended >> {here}/ended\\n' > wrapper/git-receive-pack && \
         chmod +x wrapper/git-receive-pack",
        g = git().display(),
        here = scene.here().display()
    );
    sh_ok(&script, scene.here(), &scene.env);
    let sshd = Sshd::start(scene.here(), &scene.here().join("wrapper"), "ed25519");
    let gate = Gate::start(&scene.config(vec![scene.remote(&sshd)]), &[("key", sshd.client_key())]);
    // The hook waits until the conversation that brought the advertisement is over; only then comes the first line.
    let hook = format!("while [ ! -e {}/ended ]; do sleep 0.1; done", scene.here().display());
    let push = format!(
        "printf '#!/bin/sh\\n{hook}\\n' > .git/hooks/pre-push && chmod +x .git/hooks/pre-push && git push $URL HEAD:refs/heads/x"
    );
    let ran = scene.run(&gate, &push);
    assert_eq!((ran.status, gate.operation().outcome), (Some(0), Outcome::Done), "{}", ran.err);
    assert!(scene.has("refs/heads/x"));
}

#[test]
fn a_path_is_a_path_whatever_a_shell_would_make_of_it() {
    let scene = Scene::new();
    let made = format!("made-by-a-path-{}", std::process::id());
    let touch = format!("touch${{IFS}}{made}");
    let name = &format!("it's$({touch})`{touch}`;{touch}!*.git");
    std::fs::rename(scene.here().join("live/up.git"), scene.here().join("live").join(name)).unwrap();
    let sshd = scene.sshd();
    let remote = Remote { upstream: sshd.url(&scene.here().join("live").join(name)), ..scene.remote(&sshd) };
    let gate = Gate::start(&scene.config(vec![remote]), &[("key", sshd.client_key())]);
    for command in ["git ls-remote --exit-code $URL main", "git push $URL HEAD:refs/heads/x"] {
        let ran = scene.run(&gate, command);
        assert_eq!(ran.status, Some(0), "{command}: {}\n{:?}", ran.err, gate.operation());
    }
    // Where a shell of theirs would be: at home, or beside the repository.
    let look = format!("ls -d ~$(id -un)/{made} live/{made} w/{made} {made} 2>/dev/null");
    let found = sh(&format!("eval \"{look}\""), scene.here(), &scene.env).out;
    assert_eq!(found, "", "the shell of the upstream ran what stands in the path");
}

fn https_remote(https: &Https, path: &Path) -> Remote {
    Remote {
        name: "app".into(),
        upstream: https.url(path),
        credential: Credential::Basic { secret: "key".into() },
        host_key: None,
        inspected: false,
        push: open_policy(),
        exceptions: Vec::new(),
    }
}

/// A CONNECT proxy that notes whom it was asked for.
fn proxy() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut reader = BufReader::new(client.try_clone().unwrap());
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            record.lock().unwrap().push(line.trim().to_owned());
            while line.trim() != "" {
                line.clear();
                reader.read_line(&mut line).unwrap();
            }
            let target = record.lock().unwrap().last().unwrap().split(' ').nth(1).unwrap().to_owned();
            let mut server = TcpStream::connect(target).unwrap();
            client.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n").unwrap();
            let (mut a, mut b) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut a, &mut server);
                let _ = server.shutdown(std::net::Shutdown::Write);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut b, &mut client);
                let _ = client.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    (address, seen)
}

#[test]
fn https_by_every_name_and_through_a_proxy() {
    let scene = Scene::new();
    let live = scene.here().join("live");
    let https = Https::start(&live, &git());
    let good = https_remote(&https, &live.join("up.git"));
    let base = Config { upstream_roots: https.ca_pem.clone(), ..scene.config(Vec::new()) };
    let stranger_folder = folder();
    let stranger = Https::start(stranger_folder.path(), &git());
    let (address, seen) = proxy();
    let on = |remote: Remote| Config {
        remotes: vec![remote],
        listen: config(scene.here(), Vec::new()).listen,
        ..base.clone()
    };
    let basic = CREDENTIAL.to_owned();
    for (name, config, secret, wanted) in [
        ("the right one", on(good.clone()), basic.clone(), ""),
        (
            "through the proxy",
            Config { proxy: Some(format!("http://{address}")), ..on(good.clone()) },
            basic.clone(),
            "",
        ),
        (
            "inspected",
            Config {
                upstream_roots: stranger.ca_pem.clone(),
                inspected_ca: Some(https.ca_pem.clone()),
                ..on(Remote { inspected: true, ..good.clone() })
            },
            basic.clone(),
            "",
        ),
        ("another password", on(good.clone()), "ci:wrong-passw0rd".into(), "does not accept the credential"),
        (
            "no such repository",
            on(Remote { upstream: https.url(&live.join("none.git")), ..good.clone() }),
            basic.clone(),
            "repository not found",
        ),
        (
            "another CA",
            Config { upstream_roots: stranger.ca_pem.clone(), ..on(good.clone()) },
            basic.clone(),
            "certificate is not trusted",
        ),
        (
            "nobody there",
            on(Remote { upstream: format!("https://localhost:{}/x", free_port()), ..good.clone() }),
            basic.clone(),
            "upstream unreachable",
        ),
        (
            "no proxy there",
            Config { proxy: Some(format!("http://127.0.0.1:{}", free_port())), ..on(good.clone()) },
            basic,
            "upstream unreachable",
        ),
    ] {
        let gate = Gate::start(&config, &[("key", secret)]);
        for command in ["git ls-remote $URL", "git push $URL HEAD:refs/heads/x"] {
            let ran = scene.run(&gate, command);
            if wanted.is_empty() {
                assert_eq!(ran.status, Some(0), "{name}: {}\n{:?}", ran.err, gate.operation());
            } else {
                assert_eq!(ran.status, Some(128), "{name}: {}", ran.err);
                assert!(
                    ran.err.contains("remote error: git-gate: ") && ran.err.contains(wanted),
                    "{name}: {}",
                    ran.err
                );
            }
        }
        sh_ok("git -C live/up.git update-ref -d refs/heads/x", scene.here(), &scene.env);
    }
    let asked = seen.lock().unwrap().clone();
    assert!(
        asked.len() >= 2
            && asked.iter().all(|line| line == &format!("CONNECT localhost:{} HTTP/1.1", https.address.port())),
        "{asked:?}"
    );
}

#[test]
fn twenty_and_twenty_at_once() {
    let scene = Scene::new();
    let sshd = scene.sshd();
    let gate = Gate::start(&scene.config(vec![scene.remote(&sshd)]), &[("key", sshd.client_key())]);
    let script = "for i in $(seq 1 20); do (git push -q $URL HEAD:refs/heads/p$i || echo push $i) & (git ls-remote $URL > /dev/null || echo ls $i) & done; wait";
    let ran = scene.run(&gate, script);
    assert_eq!((ran.status, ran.out.as_str()), (Some(0), ""), "{}", ran.err);
    let count = sh_ok(
        "git -C live/up.git for-each-ref 'refs/heads/p*' | wc -l; git -C live/up.git fsck --full",
        scene.here(),
        &scene.env,
    );
    assert_eq!(count.lines().next(), Some("20"));
}

#[test]
fn the_life_of_the_sidecar() {
    let scene = Scene::new();
    let sshd = scene.sshd();
    let good = scene.config(vec![scene.remote(&sshd)]);
    let secrets = [("key", sshd.client_key())];
    let mut gate = Gate::spawn(good.listen);
    let refused = |gate: &Gate| matches!(gate.answer(), git_gate::config::Event::Refused { .. });
    // A bad first configuration is refused, and a good one still taken.
    gate.say(b"{\"command\":\"configure\"}\n");
    assert!(refused(&gate));
    gate.configure(&scene.config(vec![Remote { host_key: None, ..scene.remote(&sshd) }]), &secrets);
    assert!(refused(&gate));
    gate.configure(&good, &secrets);
    assert_eq!(gate.answer(), git_gate::config::Event::Ready);
    assert_eq!(scene.run(&gate, "git ls-remote $URL").status, Some(0));
    gate.forget();
    // Another table: the remote is gone; a bad one changes nothing.
    gate.configure(&Config { remotes: Vec::new(), ..good.clone() }, &secrets);
    assert_eq!(gate.answer(), git_gate::config::Event::Configured);
    assert!(scene.run(&gate, "git ls-remote $URL").err.contains("no remote `app`"));
    gate.forget();
    gate.configure(&Config { listen: "127.0.0.1:1".parse().unwrap(), ..good.clone() }, &secrets);
    assert!(refused(&gate));
    gate.configure(&good, &secrets);
    assert_eq!(gate.answer(), git_gate::config::Event::Configured);
    assert_eq!(scene.run(&gate, "git ls-remote $URL").status, Some(0));
    // So are its limits, those of all connections together too.
    for (limits, status) in [
        (Limits { spool_bytes: 10, ..Limits::default() }, Some(1)),
        (Limits { pushes: 1, connections: 1, sessions: 1, ..Limits::default() }, Some(0)),
    ] {
        gate.configure(&Config { limits, ..good.clone() }, &secrets);
        assert_eq!(gate.answer(), git_gate::config::Event::Configured);
        let ran = scene.run(&gate, "git push $URL HEAD:refs/heads/limits");
        assert_eq!(ran.status, status, "{limits:?} {}", ran.err);
        gate.forget();
    }
    // One that is held takes the only place that there is now.
    gate.configure(
        &Config { limits: Limits { connections: 1, turn_seconds: 1, ..Limits::default() }, ..good.clone() },
        &secrets,
    );
    assert_eq!(gate.answer(), git_gate::config::Event::Configured);
    let mut held = gate.connect();
    held.write_all(&git_gate::pktline::packet(b"git-receive-pack /app.git\0host=x\0")).unwrap();
    // It is served: it has its place.
    held.read_exact(&mut [0; 4]).unwrap();
    let mut next = gate.connect();
    let mut answer = String::new();
    next.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("busy: all 1 connections"), "{answer:?}");
    drop(held);
    assert_eq!(scene.run(&gate, "git ls-remote $URL").status, Some(0));
    assert_eq!(gate.end(), Some(0));
}
