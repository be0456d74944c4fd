//! Clients that do not play by the rules: each is refused with a word or cut off, nothing of it reaches the upstream, and
//! the next good push works.

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use git_gate::config::{Config, Outcome};
use git_gate::limits::Limits;
use git_gate::pktline::{self, packet};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::process::Command;
use world::gate::{Gate, PATIENCE, config, ssh_remote};
use world::sshd::Sshd;
use world::{clean, folder, git, sh, sh_ok};

struct Scene {
    folder: tempfile::TempDir,
    gate: Gate,
    env: BTreeMap<String, String>,
    _sshd: Sshd,
}

const ZERO: &str = "0000000000000000000000000000000000000000";

impl Scene {
    fn new(limits: Limits) -> Self {
        Self::with(limits, Gate::start)
    }

    fn with(limits: Limits, start: impl FnOnce(&Config, &[(&str, String)]) -> Gate) -> Self {
        let folder = folder();
        let (git, here) = (git(), folder.path());
        let mut env = clean(&git, here);
        sh_ok(
            "git init -q --bare up.git && git -C up.git symbolic-ref HEAD refs/heads/main && git init -q w && cd w &&
             seq 1 2000 > a && git add a && git commit -qm a && git push -q ../up.git HEAD:refs/heads/main &&
             echo b > b && git add b && git commit -qm b",
            here,
            &env,
        );
        let sshd = Sshd::start(here, &git, "ed25519");
        std::fs::create_dir(here.join("spool")).unwrap();
        let mut config = config(&here.join("spool"), vec![ssh_remote("app", &sshd, &here.join("up.git"))]);
        config.limits = limits;
        let gate = start(&config, &[("key", sshd.client_key())]);
        env.insert("URL".into(), gate.url("app"));
        Self { folder, gate, env, _sshd: sshd }
    }

    /// What it answers to bytes that are not waited for.
    fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.gate.connect();
        // It may have closed already.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Asks for a push, reads the advertisement, sends these bytes, and gives the answer.
    fn push(&self, bytes: &[u8], then_end: bool) -> String {
        let mut stream = self.gate.connect();
        stream.write_all(&packet(b"git-receive-pack /app.git\0host=x\0")).unwrap();
        let mut packets = Vec::new();
        loop {
            let mut head = [0; 4];
            stream.read_exact(&mut head).unwrap();
            let length = usize::from_str_radix(std::str::from_utf8(&head).unwrap(), 16).unwrap();
            if length == 0 {
                break;
            }
            let mut data = vec![0; length - 4];
            stream.read_exact(&mut data).unwrap();
            packets.push(data);
        }
        let _ = stream.write_all(bytes);
        if then_end {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn git(&self, arguments: &str) -> Vec<u8> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("git {arguments}")]).current_dir(self.folder.path().join("w"));
        let output = command.env_clear().envs(&self.env).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn oid(&self, name: &str) -> String {
        String::from_utf8(self.git(&format!("rev-parse {name}"))).unwrap().trim().to_owned()
    }

    /// The pack that a good client would send for its newest commit.
    fn pack(&self) -> Vec<u8> {
        self.git("rev-list --objects HEAD ^HEAD~1 | git pack-objects -q --stdout")
    }

    fn lines(&self, name: &str) -> Vec<u8> {
        let mut out = packet(format!("{ZERO} {} {name}\0 report-status side-band-64k", self.oid("HEAD")).as_bytes());
        out.extend_from_slice(pktline::FLUSH);
        out
    }

    /// Nothing arrived, nothing is left in the spool, and a good push passes.
    fn is_well(&self, name: &str) {
        let head = self.oid("HEAD");
        let there = sh(&format!("git -C up.git cat-file -e {head}"), self.folder.path(), &self.env);
        assert_ne!(there.status, Some(0), "{name}: it arrived");
        self.gate.forget();
        let script = "cd w && git push -q $URL HEAD:refs/heads/good && git push -q $URL :refs/heads/good && git -C ../up.git gc -q --prune=now";
        sh_ok(script, self.folder.path(), &self.env);
        assert_eq!(std::fs::read_dir(self.folder.path().join("spool")).unwrap().count(), 0, "{name}");
        // They are logged when the clients are gone already.
        for _ in 0..2 {
            self.gate.operation();
        }
        self.gate.forget();
    }
}

#[test]
fn first_packets() {
    let scene = Scene::new(Limits { drain_seconds: 2, ..Limits::default() });
    let first = |text: &str| packet(text.as_bytes());
    for (name, bytes, wanted) in [
        ("http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "no packet"),
        ("ssh", b"SSH-2.0-x\r\n".to_vec(), "no packet"),
        ("0003", b"0003".to_vec(), "no packet"),
        ("a length too long", b"fff1".to_vec(), "no packet"),
        ("a long first packet", first(&format!("git-upload-pack /{}", "a".repeat(5000))), "more than 4096 bytes"),
        ("a flush", b"0000".to_vec(), "no packet"),
        ("another service", first("git-upload-archive /app.git\0"), "not offered"),
        ("no service", first("rm -rf /\0"), "not one of git's protocol"),
        ("up and out", first("git-upload-pack /../up.git\0"), "no remote `../up`"),
        ("an absolute path", first("git-upload-pack //tmp/up.git\0"), "no remote `/tmp/up`"),
        ("an option", first("git-upload-pack --upload-pack=x\0"), "no remote `--upload-pack=x`"),
        ("a quote", first("git-upload-pack '/app.git'\0"), "no remote `'/app.git'`"),
        ("a shell", first("git-upload-pack /app.git;id\0"), "no remote `app.git;id`"),
        ("an escape", first("git-upload-pack /\x1b[2J\0"), "not one of git's protocol"),
        ("another case", first("git-upload-pack /APP.git\0"), "no remote `APP`"),
        ("half a packet", b"00".to_vec(), ""),
        ("nothing", Vec::new(), ""),
    ] {
        let answer = scene.say(&bytes);
        if wanted.is_empty() {
            assert_eq!(answer, "", "{name}");
        } else {
            assert!(answer.contains("ERR git-gate: ") && answer.contains(wanted), "{name}: {answer:?}");
        }
    }
    scene.is_well("first packets");
}

#[test]
fn requests_of_a_fetch() {
    let scene = Scene::new(Limits { drain_seconds: 2, fetch_request_bytes: 2000, ..Limits::default() });
    let v2 = |lines: &[&str]| {
        let mut out = packet(b"git-upload-pack /app.git\0host=x\0\0version=2\0");
        for line in lines {
            match *line {
                "0000" | "0001" | "0003" => out.extend_from_slice(line.as_bytes()),
                line => pktline::put(&mut out, line.as_bytes()),
            }
        }
        out
    };
    let long = "x".repeat(1500);
    for (name, lines, wanted) in [
        ("bundle-uri", vec!["command=bundle-uri", "0000"], "not offered"),
        ("an argument", vec!["command=ls-refs", "0001", "exfiltrated", "0000"], "not offered"),
        ("packfile-uris", vec!["command=fetch", "0001", "packfile-uris https", "0000"], "not offered"),
        ("order", vec!["command=fetch", "0001", "0001"], "cannot be read"),
        ("0003", vec!["command=fetch", "0003"], "no packet"),
        (
            "too much",
            vec![
                "command=ls-refs",
                "0001",
                &format!("ref-prefix {}", &long[..900]),
                &format!("ref-prefix {}", &long[..900]),
                "ref-prefix x",
                &format!("ref-prefix {}", &long[..900]),
            ],
            "fetch_request_bytes (2000)",
        ),
    ] {
        let answer = scene.say(&v2(&lines));
        assert!(answer.contains("ERR git-gate: ") && answer.contains(wanted), "{name}: {answer:?}");
    }
    // The neighbour, and what the advertisement does not offer.
    let answer = scene.say(&v2(&[
        "command=ls-refs",
        "server-option=exfiltrated",
        "0001",
        "ref-prefix refs/heads/",
        "0000",
        "0000",
    ]));
    assert!(answer.contains("refs/heads/main") && !answer.contains("ERR"), "{answer}");
    for hidden in ["server-option", "bundle-uri", "session-id", "packfile-uris", "promisor-remote"] {
        assert!(!answer.contains(hidden), "{answer}");
    }
    // A version that carries more than a version is none.
    let injected = packet(b"git-upload-pack /app.git\0host=x\0\0version=2:x=$(id)\0");
    assert!(scene.say(&injected).contains("refs/heads/main\n"), "version 0");
    scene.is_well("requests of a fetch");
}

#[test]
fn ref_updates() {
    let scene = Scene::new(Limits { drain_seconds: 2, commands: 3, ..Limits::default() });
    let new = scene.oid("HEAD");
    let line =
        |old: &str, name: &str, capabilities: &str| packet(format!("{old} {new} {name}\0{capabilities}").as_bytes());
    let good = "report-status side-band-64k";
    let pack = scene.pack();
    let many: Vec<u8> = (0..4).flat_map(|n| line(ZERO, &format!("refs/heads/{n}"), good)).collect();
    for (name, bytes, wanted) in [
        ("no report", line(ZERO, "refs/heads/x", "side-band-64k"), "report-status"),
        ("no capabilities", packet(format!("{ZERO} {new} refs/heads/x").as_bytes()), "report-status"),
        ("a capability", line(ZERO, "refs/heads/x", "report-status push-cert=x"), "not offered"),
        ("a session", line(ZERO, "refs/heads/x", "report-status session-id=exfiltrated"), "not offered"),
        ("a certificate", packet(b"push-cert\0report-status"), "signed pushes"),
        ("a name", line(ZERO, "refs/heads/../../x", good), "not one that git allows"),
        ("HEAD", line(ZERO, "HEAD", good), "not one that git allows"),
        ("a newline", line(ZERO, "refs/heads/a\nb", good), "not one that git allows"),
        ("nothing to nothing", packet(format!("{ZERO} {ZERO} refs/heads/x\0{good}").as_bytes()), "cannot be read"),
        ("another hash", line(&"0".repeat(64), "refs/heads/x", good), "cannot be read"),
        ("too many", many, ""),
        ("0003", b"0003".to_vec(), "no packet"),
        ("a delimiter", b"0001".to_vec(), "cannot be read"),
    ] {
        let answer = scene.push(&[&bytes[..], b"0000", &pack].concat(), false);
        // In a band, once the first line has said that bands are understood.
        let is_banded = bytes.windows(good.len()).any(|window| window == good.as_bytes());
        let begins = if is_banded { "\x03git-gate: " } else { "ERR git-gate: " };
        assert!(answer.contains(begins) && answer.contains(wanted), "{name}: {answer:?}");
    }
    scene.is_well("ref updates");
}

#[test]
fn packs() {
    let scene = Scene::new(Limits { object_bytes: 1 << 20, drain_seconds: 2, idle_seconds: 3, ..Limits::default() });
    let pack = scene.pack();
    let changed = |at: usize, with: u8| {
        let mut pack = pack.clone();
        pack[at] ^= with;
        pack
    };
    let body = pack.len() - 20;
    // A delta on what the upstream has and the pack has not.
    let thin = scene.git(
        "checkout -q -b thin && echo more >> a && git commit -qam thin && printf 'HEAD\\n^HEAD~1\\n' | git pack-objects -q --revs --thin --delta-base-offset --stdout && git checkout -q -",
    );
    assert!(thin.len() > 32, "a pack with something in it");
    let bomb = scene.git(
        "hash-object -w -t blob --stdin < /dev/null > /dev/null; head -c 8000000 /dev/zero | git hash-object -w --stdin | git pack-objects -q --stdout",
    );
    for (name, bytes, wanted) in [
        ("no pack", b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), "no pack of version 2"),
        ("version 4", changed(7, 6), "no pack of version 2"),
        ("one object more", changed(11, 1), ""),
        ("a byte changed", changed(body / 2, 1), ""),
        ("the checksum", changed(body + 3, 1), "checksum"),
        ("something behind it", [&pack[..], b"exfiltrated"].concat(), "more than the pack"),
        ("a thin delta", thin, "no base in the pack"),
        ("a bomb", bomb, "1048576"),
    ] {
        let answer = scene.push(&[&scene.lines("refs/heads/x")[..], &bytes].concat(), name == "one object more");
        let refused =
            answer.contains("push refused") && answer.contains("ng refs/heads/x") && !answer.contains("\nok ");
        // An end before the pack's end is a client that went away.
        let gone = name == "one object more" && answer.is_empty();
        assert!((refused && answer.contains(wanted)) || gone, "{name}: {answer:?}");
        let operation = scene.gate.operation();
        assert!(matches!(operation.outcome, Outcome::Refused | Outcome::Gone), "{name}: {operation:?}");
        scene.is_well(name);
    }
    // The good neighbour, sent the same way.
    let answer = scene.push(&[&scene.lines("refs/heads/x")[..], &pack].concat(), false);
    assert!(answer.contains("ok refs/heads/x"), "{answer:?}");
}

#[test]
fn an_agent_that_goes_away_or_says_nothing() {
    let limits = Limits {
        first_packet_seconds: 1,
        commands_seconds: 1,
        pack_wait_seconds: 3,
        idle_seconds: 1,
        drain_seconds: 1,
        keepalive_seconds: 1,
        ..Limits::default()
    };
    let scene = Scene::new(limits);
    let pack = scene.pack();
    let lines = scene.lines("refs/heads/x");
    let half = &pack[..pack.len() / 2];
    // It goes away in mid-pack.
    let answer = scene.push(&[&lines[..], half].concat(), true);
    assert!(!answer.contains("ok refs"), "{answer:?}");
    assert_eq!(scene.gate.operation().outcome, Outcome::Gone);
    scene.is_well("gone");
    // It stops in mid-pack, before the pack, in the middle of a line, and before the first packet.
    for (name, bytes, wanted) in [
        ("in the pack", [&lines[..], half].concat(), "did not go on for 1 seconds"),
        ("before the pack", lines.clone(), "did not go on for 3 seconds"),
        ("in a line", lines[..50].to_vec(), "nothing came for"),
    ] {
        let answer = scene.push(&bytes, false);
        assert!(answer.contains(wanted) && !answer.contains("ok refs"), "{name}: {answer:?}");
        if name == "before the pack" {
            assert!(answer.contains("0005\x01"), "signs of life: {answer:?}");
        }
        scene.is_well(name);
    }
    let mut stream = scene.gate.connect();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("nothing came for 1 seconds"), "{answer:?}");
    scene.is_well("before the first packet");
}

#[test]
fn a_full_spool_and_full_places() {
    let limits = Limits { spool_bytes: 50_000, connections: 3, turn_seconds: 1, drain_seconds: 1, ..Limits::default() };
    let scene = Scene::new(limits);
    let script = "cd w && git checkout -q -b big && head -c 200000 /dev/urandom > big && git add big && git commit -qm x && git push $URL HEAD:refs/heads/big; rc=$?; git checkout -q -; exit $rc";
    let ran = sh(script, scene.folder.path(), &scene.env);
    assert!(ran.status == Some(1) && ran.err.contains("spool") && ran.err.contains("50000"), "{}", ran.err);
    scene.is_well("a full spool");
    let held: Vec<_> = (0..3).map(|_| scene.gate.connect()).collect();
    // They hold their places until they have said nothing for ten seconds.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let mut next = scene.gate.connect();
    next.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    next.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("busy: all 3 connections"), "{answer:?}");
    drop(held);
    scene.is_well("full places");
}

#[test]
fn an_agent_that_does_not_read() {
    let scene = Scene::new(Limits { idle_seconds: 1, drain_seconds: 1, ..Limits::default() });
    // More than the buffers of a connection hold, and nothing that a pack makes smaller.
    let script = "cd w && git checkout -q -b large HEAD~1 && head -c 30000000 /dev/urandom > large && git add large && git commit -qm large && git push -q ../up.git HEAD:refs/heads/large && git checkout -q -";
    sh_ok(script, scene.folder.path(), &scene.env);
    let large = scene.oid("large");
    let mut stream = scene.gate.connect();
    let mut request = packet(b"git-upload-pack /app.git\0host=x\0");
    pktline::put(&mut request, format!("want {large} ofs-delta\n").as_bytes());
    request.extend_from_slice(pktline::FLUSH);
    pktline::put(&mut request, b"done\n");
    stream.write_all(&request).unwrap();
    let operation = scene.gate.operation();
    assert_eq!(operation.outcome, Outcome::Gone, "{operation:?}");
    let mut answer = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.len() < 30_000_000, "{}", answer.len());
    // The neighbour that reads gets all of it.
    sh_ok(
        "git clone -q -b large $URL read && cmp w/.git/refs/heads/large read/.git/refs/heads/large",
        scene.folder.path(),
        &scene.env,
    );
    scene.is_well("does not read");
}

#[test]
fn a_disk_that_is_full() {
    let small = |config: &Config, secrets: &[(&str, String)]| Gate::start_on_tmpfs(config, secrets, 1 << 20);
    let scene = Scene::with(Limits { drain_seconds: 2, ..Limits::default() }, small);
    let push = |bytes: u32, name: &str| {
        let script = format!(
            "cd w && git checkout -q -b {name} && head -c {bytes} /dev/urandom > {name} && git add {name} && git commit -qm x && git push $URL HEAD:refs/heads/{name}; rc=$?; git checkout -q -; exit $rc"
        );
        sh(&script, scene.folder.path(), &scene.env)
    };
    for _ in 0..2 {
        let ran = push(3_000_000, "large");
        let words = "the disk under the git gate's spool is full";
        assert!(ran.status == Some(1) && ran.err.contains(words), "{:?} {}", ran.status, ran.err);
        assert_eq!(scene.gate.operation().outcome, Outcome::Refused);
        sh_ok("git -C w branch -D large", scene.folder.path(), &scene.env);
        // The room is there again, and the neighbour that fits passes.
        let ran = push(700_000, "small");
        assert_eq!(ran.status, Some(0), "{}", ran.err);
        sh_ok(
            "git -C w branch -D small; git -C up.git update-ref -d refs/heads/small",
            scene.folder.path(),
            &scene.env,
        );
        scene.gate.forget();
    }
}

#[test]
fn a_look_whether_it_lives_is_no_operation() {
    let scene = Scene::new(Limits { connections: 1, turn_seconds: 60, drain_seconds: 1, ..Limits::default() });
    let health = |address: &str| {
        let config = scene.folder.path().join("health.toml");
        std::fs::write(&config, format!("listen = \"{address}\"\nspool = \"/\"\nremotes = []\n")).unwrap();
        Command::new(env!("CARGO_BIN_EXE_git-gate")).arg("health").arg("--config").arg(&config).status().unwrap().code()
    };
    let address = scene.gate.address.to_string();
    // Also while every place is taken.
    let held = scene.gate.connect();
    assert_eq!(health(&address), Some(0));
    drop(held);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(health(&nobody.to_string()), Some(1));
    let ran = sh("git ls-remote $URL", scene.folder.path(), &scene.env);
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    // The first line is that of the real one.
    assert_eq!(scene.gate.operation().remote, "app");
}
