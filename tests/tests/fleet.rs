//! Many bottles at once: each with what is its own, and nothing left of any.

#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use bottle_tests::harness::{Site, World};
use bottle_tests::world::Evidence;
use std::collections::BTreeMap;

/// How many: twelve, or as many as `BOTTLE_TEST_FLEET` says.
fn size() -> usize {
    std::env::var("BOTTLE_TEST_FLEET").ok().map_or(12, |size| size.parse().expect("BOTTLE_TEST_FLEET is a number"))
}

#[test]
fn bottles_live_side_by_side_each_with_its_own_token_and_nothing_is_left() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let yaml = world.bottle_yaml(&site.clients());
    let before = format!("token_ref: {{file: {}}}", site.path("config/token").display());
    assert!(yaml.contains(&before), "{yaml}");
    let mut bottles = Vec::new();
    for n in 0..size() {
        let file = site.path(&format!("config/token-{n}"));
        std::fs::write(&file, format!("the-token-of-bottle-{n}-alone")).unwrap();
        site.bottle(&format!("b{n}"), &yaml.replace(&before, &format!("token_ref: {{file: {}}}", file.display())));
        let agent = format!("fl{}-{n}", std::process::id());
        site.agent(&agent, &format!("b{n}"));
        bottles.push(site.run(&agent).args(&["--no-workspace"]).detached(&["sleep", "3600"]));
    }
    let running = site.launcher(&["ps"]).ok().stdout;
    for (n, bottle) in bottles.iter().enumerate() {
        assert!(running.contains(bottle.id()), "{} is not in {running}", bottle.id());
        let asked = format!("http://cred-proxy:9099/api/v1/echo?by={n}");
        bottle.exec(&["curl", "-sS", "-m", "30", "-o", "/dev/null", &asked]).ok();
    }
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for evidence in world.seen("api") {
        if let Evidence::Request { path, authorization: Some(shown), .. } = evidence
            && let Some((_, by)) = path.split_once("?by=")
        {
            seen.entry(by.to_owned()).or_default().push(shown);
        }
    }
    let own = |n: usize| (n.to_string(), vec![format!("Bearer the-token-of-bottle-{n}-alone")]);
    // A rejected credential is asked for once more; it is the same one.
    seen.values_mut().for_each(Vec::dedup);
    assert_eq!(seen, (0..size()).map(own).collect());
    bottles.iter().for_each(|bottle| bottle.stop());
    assert_eq!(site.launcher(&["ps", "--json"]).ok().stdout.trim(), "[]");
    site.assert_nothing_left();
}
