//! The sidecar as an agent meets it: real git through it to real upstreams, and what it refuses.

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use git_gate::config::{Outcome, Service};
use world::gate::{Gate, config, ssh_remote};
use world::sshd::Sshd;
use world::{canary, clean, folder, git, sh, sh_ok};

#[test]
fn a_clone_and_a_push_and_a_refusal() {
    let folder = folder();
    let (git, here) = (git(), folder.path());
    let env = clean(&git, here);
    sh_ok(
        "git init -q --bare up.git && git init -q w && cd w && echo a > a && git add a && git commit -qm a && \
           git push -q ../up.git HEAD:refs/heads/main",
        here,
        &env,
    );
    let sshd = Sshd::start(here, &git, "ed25519");
    let config = config(here, vec![ssh_remote("app", &sshd, &here.join("up.git"))]);
    let gate = Gate::start(&config, &[("key", sshd.client_key())]);
    let url = gate.url("app");
    let ran = sh(&format!("git clone -q -b main {url} c && cat c/a"), here, &env);
    assert_eq!((ran.status, ran.out.as_str()), (Some(0), "a\n"), "{}\n{}", ran.err, sshd.log());
    let operation = gate.operation();
    assert_eq!((operation.service, operation.outcome), (Service::Fetch, Outcome::Done));
    let ran =
        sh("cd c && echo b > b && git add b && git commit -qm b && git push origin HEAD:refs/heads/b", here, &env);
    assert_eq!(ran.status, Some(0), "{}\n{:?}", ran.err, gate.operation());
    let operation = gate.operation();
    assert_eq!((operation.service, operation.outcome), (Service::Push, Outcome::Done), "{operation:?}");
    let script = format!(
        "cd c && echo token={} > cfg && git add cfg && git commit -qm c && git push origin HEAD:refs/heads/c",
        canary()
    );
    let ran = sh(&script, here, &env);
    assert_eq!(ran.status, Some(1), "{}", ran.err);
    assert!(ran.err.contains("PUSH REJECTED"), "{}", ran.err);
    assert_eq!(gate.operation().outcome, Outcome::Refused);
    assert_eq!(gate.end(), Some(0));
}
