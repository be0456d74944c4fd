//! What the launcher shows before a launch: names of everything, values of nothing.

use super::ground::tag;
use bottle_tests::harness::{Site, World};

#[test]
fn neither_preflight_nor_plan_shows_a_secret() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let (forwarded, literal) = (tag("forwarded"), tag("literal"));
    let yaml = world.bottle_yaml(&site.clients());
    site.bottle("dev", &format!("{yaml}env:\n  FORWARDED: ${{FORWARDED}}\n  LITERAL: {literal}\n"));
    site.agent("claims-preflight", "dev");
    let run = |args: &[&str]| site.run("claims-preflight").env("FORWARDED", &forwarded).args(args).to_end(&["true"]);
    let json = run(&["--dry-run", "--output", "json"]).ok();
    let text = run(&["--dry-run"]).ok();
    // Without --yes the page is shown, and nobody is there to say yes.
    let mut asked = site.command();
    let asked = asked.args(["run", "claims-preflight"]).env("FORWARDED", &forwarded).output().unwrap();
    let page = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert_eq!(asked.status.code(), Some(130), "{page}");
    serde_json::from_str::<serde_json::Value>(&json.stdout).expect("the plan is JSON");
    for (what, said) in
        [("json", json.stdout + &json.stderr), ("text", text.stdout + &text.stderr), ("preflight", page)]
    {
        for (whose, secret) in [("route", world.canary()), ("environment", &forwarded), ("manifest", &literal)] {
            assert!(!said.contains(secret), "{what} shows the {whose}'s: {said}");
        }
        for name in ["FORWARDED", "LITERAL", "files.world.example", "api.world.example", "/api/"] {
            assert!(said.contains(name), "{what} does not name {name}: {said}");
        }
    }
    site.assert_nothing_left();
}
