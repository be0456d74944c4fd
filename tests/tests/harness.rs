//! The example of the harness's documentation, run as it stands there.

use bottle_tests::harness::{Site, World};

#[test]
fn the_example_of_the_documentation_holds() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    site.bottle("dev", &world.bottle_yaml(&site.clients()));
    site.agent("coder", "dev");
    let bottle = site.run("coder").detached(&["sleep", "600"]);
    let got = bottle.exec(&["curl", "-sS", "https://files.world.example/public/hello"]);
    assert_eq!(got.status, 0, "{got:?}");
    let refused = bottle.exec(&["curl", "-sS", "https://attacker.world.example/"]);
    assert_ne!(refused.status, 0, "{refused:?}");
    assert!(bottle.log("pipelock").contains("domain not in allowlist: attacker.world.example"));
    bottle.stop();
    site.assert_nothing_left();
}
