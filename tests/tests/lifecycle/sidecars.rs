//! A sidecar dies: its way is closed, the operator is told, it is started again, and the bottle still ends cleanly.

use crate::scene::fresh;
use bottle_tests::harness::{Output, Site, World, finish, signal, wait_until};
use rustix::process::Signal;
use std::process::Command;

#[test]
fn a_sidecar_that_is_gone_closes_its_way_and_nothing_else() {
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

    // Without its container it cannot be started again.
    bottle.remove_container("cred-proxy");
    wait_until("ps says that cred-proxy is dead", || dead(&site, "cred-proxy"));
    assert!(!answers(&route), "{:#?}", bottle.exec(&route));
    assert!(open(&outside), "the other way is open: {:#?}", bottle.exec(&outside));

    bottle.remove_container("pipelock");
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

/// Says a log that this role runs again, and not another whose name ends like its own?
fn runs_again(log: &str, role: &str) -> bool {
    let said = format!("{role} runs again");
    log.match_indices(&said).any(|(at, _)| !log[..at].ends_with('-'))
}

#[test]
fn a_sidecar_that_is_killed_runs_again_at_its_place_with_all_it_needs() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    site.bottle("dev", &world.bottle_yaml(&site.clients()));
    let name = fresh("coder");
    site.agent(&name, "dev");
    std::fs::write(site.work().join("given.txt"), "given\n").unwrap();
    let (bottle, child) = site.run(&name).attached(&["sh", "-c", crate::scene::POLITE]);
    bottle.wait_for_file("/workspace/ready.txt");
    let outside = ["curl", "-sSf", "-m", "10", "https://files.world.example/public/hello"];
    let route = ["curl", "-sSf", "-m", "10", "http://cred-proxy:9099/api/v1/echo"];
    let began = |role: &str| {
        let state = ["inspect", "-f", "{{.State.StartedAt}} {{.RestartCount}}", &bottle.container(role)];
        let output: Output = Command::new("docker").args(state).output().unwrap().into();
        output.ok().stdout
    };
    let before = ROLES.map(|role| (role, began(role)));
    for (killed, through) in [("cred-proxy", &route), ("route-pipelock", &route), ("pipelock", &outside)] {
        bottle.exec(through).ok();
        bottle.kill_container(killed);
        wait_until(&format!("{killed} runs again"), || runs_again(&bottle.log("keeper"), killed).then_some(()));
        // The credential is there again, the certificates fit, and the policy is the one that was sent.
        bottle.exec(through).ok();
        let refused = bottle.exec(&["curl", "-sS", "-m", "10", "https://attacker.world.example/"]);
        assert_ne!(refused.status, 0, "{refused:#?}");
    }
    let json = site.launcher(&["ps", bottle.id(), "--json"]).ok().stdout;
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    for (role, at) in before {
        let restarts = rows[0]["status"]["restarts"][role].as_u64().unwrap_or(0);
        assert_eq!((restarts, began(role) == at), if role == "agent" { (0, true) } else { (1, false) }, "{role}");
    }
    let page = site.launcher(&["ps", bottle.id()]).ok().stdout;
    assert!(page.lines().any(|line| line.split_whitespace().eq(["cred-proxy", "ready", "1"])), "{page}");
    assert!(page.lines().any(|line| line.starts_with("/api/ ")), "{page}");
    assert!(world.seen("attacker").is_empty());

    signal(child.id(), Signal::INT);
    let output = finish(child);
    assert_eq!(output.status, 130, "{output:#?}");
    for role in ["cred-proxy", "route-pipelock", "pipelock"] {
        assert!(output.stderr.contains(&format!("{role} runs again")), "{output:#?}");
    }
    crate::scene::assert_ended(&site, &bottle, "last.txt");
    let page = site.launcher(&["ps", bottle.id()]).ok().stdout;
    assert!(page.lines().any(|line| line.starts_with("/api/ ")), "what went over it is kept: {page}");
}

#[test]
fn a_sidecar_that_was_started_again_ends_with_its_keeper() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    site.bottle("dev", &world.bottle_yaml(&site.clients()));
    let name = fresh("coder");
    site.agent(&name, "dev");
    let bottle = site.run(&name).args(&["--no-workspace"]).detached(&["sleep", "600"]);
    for killed in &ROLES[1..] {
        bottle.kill_container(killed);
        wait_until(&format!("{killed} runs again"), || runs_again(&bottle.log("keeper"), killed).then_some(()));
    }
    signal(bottle.keeper(), Signal::KILL);
    for role in ROLES {
        wait_until(&format!("{role} ends"), || {
            let state = ["inspect", "-f", "{{.State.Running}}", &bottle.container(role)];
            let output: Output = Command::new("docker").args(state).output().unwrap().into();
            (output.ok().stdout.trim() == "false").then_some(())
        });
    }
    site.launcher(&["cleanup"]).ok();
    site.assert_nothing_left();
}

const ROLES: [&str; 4] = ["agent", "cred-proxy", "pipelock", "route-pipelock"];

fn dead(site: &Site, role: &str) -> Option<()> {
    let table = site.launcher(&["ps"]).ok().stdout;
    let json = site.launcher(&["ps", "--json"]).ok().stdout;
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    let told = table
        .lines()
        .any(|l| l.split_once("ENDED: ").is_some_and(|(_, ended)| ended.split([' ', ';']).any(|r| r == role)));
    (told && rows[0]["status"]["sidecars"][role] == "ended").then_some(())
}
