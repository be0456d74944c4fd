//! Credentials that become others while a bottle lives: what a command or a file gives is in force without a restart, and
//! a request that the upstream rejected is sent once more with the new one.

use crate::scene::fresh;
use bottle_tests::harness::{Site, World, wait_until};
use bottle_tests::world::Evidence;

#[test]
fn a_credential_that_the_upstream_rejects_is_fetched_again() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    // What the command says is in a file, the way to which the agent never sees; each run is counted.
    let (said, runs) = (site.path("config/said"), site.path("config/runs"));
    std::fs::write(&said, "an-old-credential").unwrap();
    let script = format!("echo run >> {} && cat {}", runs.display(), said.display());
    let from = format!("token_ref: {{command: [sh, -c, \"{script}\"]}}");
    let yaml = world.bottle_yaml(&site.clients());
    let before = format!("token_ref: {{file: {}}}", site.path("config/token").display());
    assert!(yaml.contains(&before), "{yaml}");
    site.bottle("dev", &yaml.replace(&before, &from));
    let name = fresh("coder");
    site.agent(&name, "dev");
    let bottle = site.run(&name).args(&["--no-workspace"]).detached(&["sleep", "600"]);
    let ran = || std::fs::read_to_string(&runs).unwrap().lines().count();
    let code = || {
        let route = ["curl", "-sS", "-m", "30", "-o", "/dev/null", "-w", "%{http_code}"];
        bottle.exec(&[&route[..], &["http://cred-proxy:9099/api/v1/echo"]].concat()).ok().stdout
    };
    // Nothing better is to be had: the upstream's answer comes through, and the command ran once for it.
    assert_eq!((ran(), code().as_str(), ran()), (1, "401", 2));
    // Asking again at once makes nobody run anything.
    assert_eq!((code().as_str(), ran()), ("401", 2));
    std::fs::write(&said, world.canary()).unwrap();
    wait_until("a later request gets the new one", || (code() == "200").then_some(()));
    assert_eq!((code().as_str(), ran()), ("200", 3));
    let shown = |evidence: &Evidence| match evidence {
        Evidence::Request { authorization: Some(shown), .. } => Some(shown.clone()),
        _ => None,
    };
    let seen: Vec<_> = world.seen("api").iter().filter_map(shown).collect();
    let turn = seen.iter().position(|shown| shown.contains(world.canary())).unwrap();
    // The very request that was rejected is the one that went through.
    assert!(seen[..turn].iter().all(|shown| shown == "Bearer an-old-credential"), "{seen:?}");
    assert!(seen[turn..].iter().all(|shown| *shown == format!("Bearer {}", world.canary())), "{seen:?}");
    assert!(!std::fs::read_to_string(bottle.dir().log()).unwrap().contains(world.canary()));
    bottle.stop();
    site.assert_nothing_left();
}
