//! A sidecar dies: its way is closed, the operator is told, and the bottle still ends cleanly.

use crate::scene::fresh;
use bottle_tests::harness::{Site, World, finish, signal, wait_until};
use rustix::process::Signal;

#[test]
fn a_sidecar_that_is_killed_closes_its_way_and_nothing_else() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    site.bottle("dev", &world.bottle_yaml(&site.clients()));
    let name = fresh("coder");
    site.agent(&name, "dev");
    std::fs::write(site.work().join("given.txt"), "given\n").unwrap();
    let (bottle, child) = site.run(&name).attached(&["sh", "-c", crate::scene::POLITE]);
    bottle.wait_for_file("/workspace/ready.txt");
    let outside = ["curl", "-sSf", "-m", "10", "https://files.world.example/public/hello"];
    let route = ["curl", "-sSf", "-m", "10", "http://cred-proxy:9099/api/v1/whoami"];
    let open = |what: &[&str]| bottle.exec(what).status == 0;
    // The route answers whatever the API says about the path; that it answers is what counts.
    let answers = |what: &[&str]| !matches!(bottle.exec(what).status, 5..=7 | 28 | 52 | 56);
    assert!(open(&outside), "{:#?}", bottle.exec(&outside));
    assert!(answers(&route), "{:#?}", bottle.exec(&route));

    bottle.kill_container("cred-proxy");
    wait_until("ps says that cred-proxy is dead", || dead(&site, "cred-proxy"));
    assert!(!answers(&route), "{:#?}", bottle.exec(&route));
    assert!(open(&outside), "the other way is open: {:#?}", bottle.exec(&outside));

    bottle.kill_container("pipelock");
    wait_until("ps says that pipelock is dead", || dead(&site, "pipelock"));
    assert!(!open(&outside), "{:#?}", bottle.exec(&outside));

    signal(child.id(), Signal::INT);
    let output = finish(child);
    assert_eq!(output.status, 130, "{output:#?}");
    for role in ["cred-proxy", "pipelock"] {
        assert!(output.stderr.contains(&format!("{role} has ended")), "{output:#?}");
    }
    crate::scene::assert_ended(&site, &bottle, "last.txt");
}

fn dead(site: &Site, role: &str) -> Option<()> {
    let table = site.launcher(&["ps"]).ok().stdout;
    let json = site.launcher(&["ps", "--json"]).ok().stdout;
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    let told = table
        .lines()
        .any(|l| l.split_once("ENDED: ").is_some_and(|(_, ended)| ended.split([' ', ';']).any(|r| r == role)));
    (told && rows[0]["status"]["sidecars"][role] == "ended").then_some(())
}
