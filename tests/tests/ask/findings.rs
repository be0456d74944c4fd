//! A finding that a person has judged false passes, once or from then on, and every other one is refused as before.

use super::scene::{approve, asking, call, listing, wait_for_pending};
use bottle_tests::harness::{Bottle, Output, Site, World};
use serde_json::json;

const UPSTREAM: &str = "https://git.world.example/team/app.git";

/// Keys that look like those of AWS, made here so that no file of this repository holds one.
fn secrets() -> [String; 2] {
    ["Z7QW3RTY5PLM2XCV", "Q4KD2SNB6HGF3WZX"].map(|rest| format!("{}{rest}", "AKIA"))
}

fn git_yaml(site: &Site, world: &World<'_>) -> String {
    let token = site.path("config/git-token");
    std::fs::write(&token, world.canary()).unwrap();
    let user = world.git_credential().split(':').next().unwrap().to_owned();
    format!(
        "git:\n  user: {{name: Ada, email: ada@example.org}}\n  remotes:\n    - name: app\n      upstream: {UPSTREAM}\n      \
         token_ref: {{file: {}}}\n      auth: basic {user}\n      push: {{refs: [\"refs/heads/agent/*\"]}}\n",
        token.display(),
    )
}

fn push(bottle: &Bottle<'_>, branch: &str, secret: &str) -> Output {
    bottle.sh(&format!(
        "set -e; cd /tmp/app; git checkout -q -B {branch} origin/main; echo 'key = \"{secret}\"' > {branch}.txt; \
         git add {branch}.txt; git commit -q -m {branch}; git push -q origin HEAD:refs/heads/agent/{branch}"
    ))
}

/// The digits that git-gate shows.
fn fingerprint(output: &Output) -> String {
    let text = &output.stderr;
    let after = text.split("fingerprint").nth(1).unwrap_or_else(|| panic!("no fingerprint in {text}"));
    after.chars().skip_while(|c| !c.is_ascii_hexdigit()).take_while(char::is_ascii_hexdigit).collect()
}

#[test]
fn a_finding_is_asked_for_and_passes_once_and_others_do_not() {
    let Some(site) = Site::new() else { return };
    let mut world = World::start(&site);
    world.start_git();
    let bottle = asking(&site, &world, &git_yaml(&site, &world));
    bottle.sh(&format!("git clone -q {UPSTREAM} /tmp/app")).ok();
    let [one, two] = secrets();
    let ask = |fingerprint: &str| {
        call(&site, &bottle, "git-gate-block", &json!({ "fingerprint": fingerprint, "justification": "a test's key" }))
    };
    // One that no push was refused for cannot be asked for.
    let none = ask(&"a".repeat(12)).answer();
    assert!(none["error"].as_str().is_some_and(|text| text.contains("no push")), "{none}");

    let refused = push(&bottle, "one", &one);
    assert_ne!(refused.status, 0, "{refused:#?}");
    let shown = fingerprint(&refused);
    assert!(shown.len() >= 12, "{refused:#?}");
    let asked = ask(&shown[..12]);
    wait_for_pending(&site, &bottle, "p1");
    let output = approve(&site, &bottle, "p1", &["--once"]).ok();
    assert!(output.stderr.contains("one.txt"), "the operator is shown where: {output:#?}");
    assert!(!output.stderr.contains(&one), "and not what: {output:#?}");
    assert_eq!(asked.answer()["status"], "approved");
    let other = push(&bottle, "two", &two);
    assert_ne!(other.status, 0, "another finding is refused as before: {other:#?}");
    push(&bottle, "one", &one).ok();
    bottle_tests::harness::wait_until("the grant is used", || {
        (listing(&site, &bottle)["grants"] == json!([])).then_some(())
    });

    // A lasting one survives a git-gate that dies.
    let asked = ask(&fingerprint(&other)[..12]);
    wait_for_pending(&site, &bottle, "p2");
    approve(&site, &bottle, "p2", &[]).ok();
    assert_eq!(asked.answer()["status"], "approved");
    bottle.kill_container("git-gate");
    bottle_tests::harness::wait_until("git-gate runs again", || {
        bottle.log("keeper").contains("git-gate runs again").then_some(())
    });
    push(&bottle, "two", &two).ok();
    bottle.stop();
    let log = site.launcher(&["audit", bottle.id()]).ok().stdout;
    assert!(log.contains("it was used") && log.contains("app 2"), "{log}");
    assert!(!log.contains(&one) && !log.contains(&two), "{log}");
}
