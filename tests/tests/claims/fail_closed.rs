//! What is down is a "no": a sidecar that dies closes its way and no other opens, and a launch that cannot have one does
//! not happen.

use super::docker::docker;
use super::ground::{ALLOWED, ATTACKER, answers, curl, tag};
use bottle_tests::harness::{Site, World, wait_until};
use std::process::Command;

const ROUTE: &str = "http://cred-proxy:9099/api/v1/echo";

#[test]
fn a_dead_sidecar_closes_its_way_and_opens_no_other() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    site.bottle("dev", &world.bottle_yaml(&site.clients()));
    site.agent("claims-closed", "dev");
    let bottle = site.run("claims-closed").detached(&["sleep", "600"]);
    let out = format!("https://{ALLOWED}/public/x");
    answers(&bottle, &[&out], "200");
    answers(&bottle, &[ROUTE], "200");

    // Without its container a sidecar cannot be started again.
    docker(&["rm", "-f", &bottle.container("pipelock")]).ok();
    let around = ["--noproxy", "*", "--resolve", &resolved(&world), "-m", "4", &out];
    for args in [&["-m", "4", out.as_str()][..], &["--noproxy", "*", "-m", "4", &out], &around] {
        let (_, refused) = curl(&bottle, args);
        assert_ne!(refused.status, 0, "{args:?}: {refused:#?}");
    }
    answers(&bottle, &[ROUTE], "200"); // the route has a pipelock of its own
    wait_until("the keeper says so", || bottle.log("keeper").contains("pipelock has ended").then_some(()));

    docker(&["rm", "-f", &bottle.container("route-pipelock")]).ok();
    let path = tag("without");
    let (code, refused) = curl(&bottle, &[&format!("{ROUTE}?{path}")]);
    assert!(["502", "504"].contains(&code.as_str()), "{refused:#?}");
    docker(&["rm", "-f", &bottle.container("cred-proxy")]).ok();
    let (_, refused) = curl(&bottle, &["-m", "4", &format!("{ROUTE}?{path}")]);
    assert_ne!(refused.status, 0, "{refused:#?}");
    let (_, refused) = curl(&bottle, &["-m", "4", &format!("https://{ATTACKER}/")]);
    assert_ne!(refused.status, 0, "{refused:#?}");
    assert!(world.seen("api").iter().all(|e| !e.contains(&path)), "it went out all the same");
    assert!(world.seen("attacker").is_empty(), "{:?}", world.seen("attacker"));
    bottle.stop();
    site.assert_nothing_left();
}

fn resolved(world: &World<'_>) -> String {
    format!("{ALLOWED}:443:{}", world.api_ip())
}

#[test]
fn an_upstream_that_is_gone_is_a_no() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    site.bottle("dev", &world.bottle_yaml(&site.clients()));
    site.agent("claims-gone", "dev");
    let bottle = site.run("claims-gone").detached(&["sleep", "600"]);
    answers(&bottle, &[ROUTE], "200");
    let api = world.network().replace("-net", "-api");
    docker(&["kill", &api]).ok();
    for url in [ROUTE.to_owned(), format!("https://{ALLOWED}/public/x")] {
        // Its name has gone with it, so that pipelock may say that it cannot vouch for where it leads.
        let (code, refused) = curl(&bottle, &[&url]);
        assert!(["403", "502", "504"].contains(&code.as_str()), "{url}: {refused:#?}");
        assert!(!refused.stdout.contains("public"), "{refused:#?}");
    }
}

#[test]
fn without_pipelock_there_is_no_launch() {
    let Some(site) = Site::new() else { return };
    let image = site.clients();
    site.bottle("dev", &format!("agent:\n  provider: shell\n  image: {image}\n"));
    site.agent("claims-broken", "dev");
    let broken = Broken::make(&site);
    site.launcher(&["images", "pin", &broken.0]).ok();
    let ran = site.run("claims-broken").args(&["--pipelock-image", &broken.0]).to_end(&["echo", "the agent ran"]);
    assert_eq!(ran.status, 125, "{ran:#?}");
    assert!(!ran.stdout.contains("the agent ran"), "{ran:#?}");
    assert!(ran.stderr.contains("pipelock"), "{ran:#?}");
    site.assert_nothing_left();
    assert_eq!(site.state().ids().unwrap(), Vec::<String>::new(), "and no folder of a bottle that never was");
    // An image that nobody has pinned is not even tried.
    let other = site.run("claims-broken").args(&["--pipelock-image", "bottle-claims/never:1"]).to_end(&["true"]);
    assert_eq!(other.status, 125, "{other:#?}");
    // And with the right one the same bottle runs.
    let ran = site.run("claims-broken").to_end(&["echo", "the agent ran"]);
    assert!(ran.status == 0 && ran.stdout.contains("the agent ran"), "{ran:#?}");
}

/// An image whose `/pipelock` ends at once with a failure; it goes when this does, and the thin one made of it too.
struct Broken(String);

impl Broken {
    fn make(site: &Site) -> Self {
        // The static agent of the demo knows none of pipelock's arguments, says so, and fails.
        let program = site.path("pipelock");
        let made = docker(&["create", "--label", "dev.bottle.test=claims", &site.hostile()]).ok().stdout;
        let copied = docker(&["cp", &format!("{}:/demo-agent", made.trim()), program.to_str().unwrap()]);
        docker(&["rm", made.trim()]).ok();
        copied.ok();
        let name = format!("bottle-claims/broken:{}", std::process::id());
        let (folder, archive) = (site.path(""), site.path("image.tar"));
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&folder).arg("-cf").arg(&archive).arg("pipelock");
        assert!(tar.status().unwrap().success());
        docker(&["import", "-c", "ENTRYPOINT [\"/pipelock\"]", archive.to_str().unwrap(), &name]).ok();
        Self(name)
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        let id = docker(&["image", "inspect", "-f", "{{.Id}}", &self.0]).stdout;
        let short = id.trim().trim_start_matches("sha256:").get(..12).unwrap_or("none").to_owned();
        let all = docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", "bottle/pipelock"]).stdout;
        for thin in all.lines().filter(|name| name.contains(&short)) {
            docker(&["rmi", thin]);
        }
        docker(&["rmi", &self.0]);
    }
}
