//! git-gate in a real bottle, with a real git and a real upstream over https: the agent holds no credential, clones,
//! fetches and pushes by the addresses that it knows; a secret in a push is refused on its terminal, and nothing of that
//! push is in the upstream.

#![allow(clippy::unwrap_used)]

use bottle_tests::harness::{Bottle, Output, Site, World, wait_until};
use std::process::Command;

/// Where the world's git host keeps the repository.
const UPSTREAM: &str = "https://git.world.example/team/app.git";

/// Runs a script as the agent; it has to succeed.
#[track_caller]
fn ok(bottle: &Bottle<'_>, script: &str) -> String {
    bottle.sh(&format!("set -e; {script}")).ok().stdout
}

/// A key that looks like one of AWS, made here so that no file of this repository holds one.
fn canary() -> String {
    format!("{}{}", "AKIA", "Z7QW3RTY5PLM2XCV")
}

/// A bottle whose remote `app` is the world's repository, below `refs/heads/agent/`.
fn bottle_yaml(site: &Site, world: &World<'_>) -> String {
    let token = site.path("config/git-token");
    std::fs::write(&token, world.canary()).unwrap();
    let user = world.git_credential().split(':').next().unwrap().to_owned();
    format!(
        "{}git:\n  user: {{name: Ada, email: ada@example.org}}\n  remotes:\n    - name: app\n      upstream: {UPSTREAM}\n      \
         token_ref: {{file: {}}}\n      auth: basic {user}\n      push: {{refs: [\"refs/heads/agent/*\"]}}\n",
        world.bottle_yaml(&site.clients()),
        token.display(),
    )
}

/// Does the upstream's repository have this object?
fn upstream_has(world: &World<'_>, object: &str) -> bool {
    let repository = "/srv/team/app.git";
    let container = format!("{}-git", world.network());
    let args = ["exec", &container, "git", "--git-dir", repository, "cat-file", "-e", object];
    Command::new("docker").args(args).output().unwrap().status.success()
}

#[track_caller]
fn assert_refused(push: &Output, words: &[&str]) {
    assert_ne!(push.status, 0, "{push:#?}");
    for word in words {
        assert!(push.stderr.contains(word), "{word:?} is not in {push:#?}");
    }
}

#[test]
fn the_agent_works_with_its_remote_and_leaks_no_secret_to_it() {
    let Some(site) = Site::new() else { return };
    let mut world = World::start(&site);
    world.start_git();
    site.bottle("dev", &bottle_yaml(&site, &world));
    site.agent("gate", "dev");
    let bottle = site.run("gate").args(&["--no-workspace"]).detached(&["sleep", "600"]);

    // What it clones is the upstream, whatever the spelling.
    for (n, spelling) in
        [UPSTREAM, "git@git.world.example:team/app.git", "ssh://git.world.example/team/app"].iter().enumerate()
    {
        let clone = format!("cd /tmp; git clone -q {spelling} app-{n}; git -C app-{n} log -1 --format=%s");
        assert_eq!(ok(&bottle, &clone), "commit 3\n", "{spelling}");
    }
    let shallow = format!("cd /tmp; git clone -q --depth 1 {UPSTREAM} shallow; git -C shallow rev-list --count HEAD");
    assert_eq!(ok(&bottle, &shallow), "1\n");

    // A clean commit arrives, by the name that the manifest gives.
    let commit = "cd /tmp/app-0; echo clean > clean; git add clean; git commit -q -m clean; \
                  git push -q origin HEAD:refs/heads/agent/clean; git rev-parse HEAD";
    let clean = ok(&bottle, commit);
    assert!(upstream_has(&world, clean.trim()), "{clean}");
    assert_eq!(ok(&bottle, "cd /tmp/app-0; git log -1 --format='%an <%ae>'"), "Ada <ada@example.org>\n");
    let fetch = "cd /tmp/app-1; git fetch -q origin agent/clean; git log -1 --format=%s FETCH_HEAD";
    assert_eq!(ok(&bottle, fetch), "clean\n");

    // A secret in a file, and one in a message: refused, and no object of the push is there.
    let secret = canary();
    for (place, make) in [
        ("file", format!("echo 'key = \"{secret}\"' > key; git add key; git commit -q -m key")),
        ("message", format!("git commit -q --allow-empty -m 'uses {secret}'")),
    ] {
        let prepare = format!(
            "cd /tmp/app-0; git checkout -q -B {place} agent-base 2>/dev/null || git checkout -q -b {place} origin/main; {make}"
        );
        ok(&bottle, &prepare);
        let push = bottle.sh(&format!("cd /tmp/app-0; git push origin HEAD:refs/heads/agent/{place}"));
        assert_refused(&push, &["PUSH REJECTED", "aws", "fingerprint", "git commit --amend", "remote rejected"]);
        assert!(!push.stderr.contains(&secret), "{push:#?}");
        let objects = ok(&bottle, "cd /tmp/app-0; git rev-list --objects HEAD --not --remotes | cut -d' ' -f1");
        assert!(objects.lines().count() >= 1, "{objects}");
        for object in objects.lines() {
            assert!(!upstream_has(&world, object), "{place}: {object}");
        }
        let logged = bottle.log("git-gate");
        assert!(logged.contains(r#""outcome":"refused""#) && !logged.contains(&secret), "{logged}");
    }

    // What the manifest does not allow is refused, clean or not.
    let main = bottle.sh("cd /tmp/app-1; git commit -q --allow-empty -m more; git push origin HEAD:main");
    assert_refused(&main, &["ref not allowed by git-gate"]);
    let delete = bottle.sh("cd /tmp/app-1; git push origin :agent/clean");
    assert_ne!(delete.status, 0, "{delete:#?}");
    assert!(upstream_has(&world, "refs/heads/agent/clean"));
    // A name that only begins like the remote's is none, and the host itself is not to be reached.
    let other = bottle.sh("git ls-remote https://git.world.example/team/app-two.git");
    assert_refused(&other, &["git-gate"]);
    let around = bottle.sh("curl -sS -o /dev/null https://git.world.example/team/app.git/info/refs");
    assert_ne!(around.status, 0, "{around:#?}");

    // Nothing that it can read holds the credential.
    let hunt = bottle.sh("env; cat /proc/*/environ 2>/dev/null; cat /.bottle/*.json; cat ~/.config/git/config; \
                          cat /tmp/app-0/.git/config");
    assert!(!format!("{hunt:?}").contains(world.canary()), "the credential is in the bottle");
    let inspect = Command::new("docker").args(["inspect", &bottle.container("git-gate")]).output().unwrap();
    let inspect = String::from_utf8_lossy(&inspect.stdout).into_owned();
    assert!(inspect.contains("/spool") && !inspect.contains(world.canary()), "{inspect}");

    // Its own credential is a secret like any other.
    let own = format!(
        "cd /tmp/app-1; echo {} > note; git add note; git commit -q -m note; git push origin HEAD:refs/heads/agent/note",
        world.canary()
    );
    assert_refused(&bottle.sh(&own), &["PUSH REJECTED"]);
    bottle.stop();
    site.assert_nothing_left();
}

#[test]
fn a_gate_that_is_down_lets_nothing_through_and_is_started_again() {
    let Some(site) = Site::new() else { return };
    let mut world = World::start(&site);
    world.start_git();
    site.bottle("dev", &bottle_yaml(&site, &world));
    site.agent("gate-down", "dev");
    let bottle = site.run("gate-down").args(&["--no-workspace"]).detached(&["sleep", "600"]);
    let look = format!("git ls-remote {UPSTREAM} HEAD");
    ok(&bottle, &look);
    bottle.kill_container("git-gate");
    wait_until("it runs again", || bottle.log("keeper").contains("git-gate runs again").then_some(()));
    ok(&bottle, &look);
    // One that is not to be started again: its way stays closed, and there is no other.
    bottle.remove_container("git-gate");
    let closed = bottle.sh(&look);
    assert_ne!(closed.status, 0, "{closed:#?}");
    let around = bottle.sh(&format!("git -c url.x.insteadOf=y ls-remote {UPSTREAM}.git HEAD"));
    assert_ne!(around.status, 0, "{around:#?}");
    bottle.stop();
    site.assert_nothing_left();
}
