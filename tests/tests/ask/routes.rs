//! A route that an agent asks for has the credential that the operator names, or none; what cannot be had while the bottle
//! runs is refused with a word.

use super::scene::{NEIGHBOUR, approve, asking, call, reaches, wait_for_pending};
use bottle_tests::harness::{Site, World, finish, signal, wait_until};
use bottle_tests::world::Evidence;
use rustix::process::Signal;
use serde_json::json;
use std::process::Stdio;

#[test]
fn a_route_is_asked_for_approved_with_a_credential_and_taken_back() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let bottle = asking(&site, &world, &world.wire_yaml("Bearer", world.canary()));
    let token = site.path("config/asked-token");
    std::fs::write(&token, world.canary()).unwrap();
    let route = "http://cred-proxy:9099/packages/canary";
    let arrives =
        || bottle.exec(&["curl", "-sS", "-D", "-", "-o", "/dev/null", "-m", "20", route]).stdout.contains("x-world");
    assert!(!arrives(), "there is no such route yet");
    let arguments = json!({
        "path": "/packages/", "upstream": format!("https://{NEIGHBOUR}"), "scheme": "Bearer", "allow": ["GET /**"],
        "justification": "to install what the build needs",
    });
    // A credential can never be named by an agent.
    let mut greedy = arguments.clone();
    greedy["token_ref"] = "HOME".into();
    assert!(call(&site, &bottle, "cred-proxy-block", &greedy).answer()["error"].is_string());

    let mut stream = site.command();
    stream.args([
        "exec",
        bottle.id(),
        "--",
        "curl",
        "-sS",
        "-N",
        "-m",
        "50",
        "http://cred-proxy:9099/wire/v1/sse?n=80&ms=100",
    ]);
    let stream = stream.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let asked = call(&site, &bottle, "cred-proxy-block", &arguments);
    wait_for_pending(&site, &bottle, "p1");
    let from = format!("file:{}", token.display());
    let output = approve(&site, &bottle, "p1", &["--token-ref", &from]).ok();
    assert!(output.stderr.contains("asked-token") && !output.stderr.contains(world.canary()), "{output:#?}");
    let answer = asked.answer();
    assert_eq!(answer["status"], "approved", "{answer}");
    assert!(!answer.to_string().contains(world.canary()), "{answer}");
    assert!(arrives(), "{:#?}", bottle.log("cred-proxy"));
    let credential = format!("Bearer {}", world.canary());
    let of_route = |e: &Evidence| e.contains(NEIGHBOUR) && e.contains(&credential);
    wait_until("the credential went along", || world.seen("api").iter().any(of_route).then_some(()));
    assert!(!reaches(&bottle, NEIGHBOUR), "the host itself stays closed");
    // The stream of another route lost nothing.
    let stream = finish(stream).ok();
    assert_eq!(stream.stdout.lines().filter(|line| line.starts_with("data:")).count(), 80, "{}", stream.stdout);
    site.launcher(&["revoke", bottle.id(), "p1", "--yes"]).ok();
    assert!(!arrives());
    bottle.stop();
    site.assert_nothing_left();
}

#[test]
fn the_first_route_of_a_bottle_brings_what_it_needs_and_nothing_of_it_is_left() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let yaml = world.bottle_yaml(&site.clients());
    let yaml = yaml.split("cred_proxy:").next().unwrap().to_owned();
    site.bottle("dev", &format!("{yaml}supervise: true\n"));
    let token = site.path("config/asked-token");
    std::fs::write(&token, world.canary()).unwrap();
    let from = format!("file:{}", token.display());
    let route =
        ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-m", "20", "http://cred-proxy:9099/x/v1/echo"];
    let arguments = json!({
        "path": "/x/", "upstream": "https://api.world.example", "scheme": "Bearer", "allow": ["GET /**"],
        "justification": "to speak with the model",
    });
    for ends_by in ["stop", "kill"] {
        let name = super::scene::fresh("ask");
        site.agent(&name, "dev");
        let bottle = site.run(&name).args(&["--no-workspace"]).detached(&["sleep", "900"]);
        assert_ne!(bottle.exec(&route).status, 0, "nothing listens there yet");
        let asked = call(&site, &bottle, "cred-proxy-block", &arguments);
        wait_for_pending(&site, &bottle, "p1");
        approve(&site, &bottle, "p1", &["--token-ref", &from]).ok();
        assert_eq!(asked.answer()["status"], "approved");
        assert_eq!(bottle.exec(&route).ok().stdout, "200");
        assert!(!reaches(&bottle, "api.world.example"), "a route's host is reached by its route alone");
        // It is kept like those of the launch.
        bottle.kill_container("cred-proxy");
        wait_until("cred-proxy runs again", || bottle.log("keeper").contains("cred-proxy runs again").then_some(()));
        assert_eq!(bottle.exec(&route).ok().stdout, "200");
        if ends_by == "stop" {
            bottle.stop();
        } else {
            signal(bottle.keeper(), Signal::KILL);
            bottle.wait_for_end();
            wait_until("its containers end", || {
                let left = site.observe();
                left.containers.iter().all(|c| c.role.starts_with("world") || !is_running(&c.name)).then_some(())
            });
            site.launcher(&["cleanup"]).ok();
        }
        site.assert_nothing_left();
    }
}

/// Writes a file so that nobody who looks at its date and size sees that it is another one.
fn write_unseen(path: &std::path::Path, text: &str) {
    let before = std::fs::metadata(path).unwrap();
    assert_eq!(before.len(), text.len() as u64, "it has to be as long as what is there");
    std::fs::write(path, text).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_modified(before.modified().unwrap()).unwrap();
}

#[test]
fn the_credential_of_an_approved_route_is_kept_fresh_and_read_again_when_it_is_rejected() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let yaml = world.bottle_yaml(&site.clients());
    site.bottle("dev", &format!("{}supervise: true\n", yaml.split("cred_proxy:").next().unwrap()));
    let name = super::scene::fresh("ask");
    site.agent(&name, "dev");
    let bottle = site.run(&name).args(&["--no-workspace"]).detached(&["sleep", "900"]);
    let token = site.path("config/asked-token");
    // As long as the right one.
    let of = |letter: &str| letter.repeat(world.canary().len());
    std::fs::write(&token, of("o")).unwrap();
    let arguments = json!({
        "path": "/x/", "upstream": "https://api.world.example", "scheme": "Bearer", "allow": ["GET /**"],
        "justification": "to speak with the model",
    });
    let asked = call(&site, &bottle, "cred-proxy-block", &arguments);
    wait_for_pending(&site, &bottle, "p1");
    approve(&site, &bottle, "p1", &["--token-ref", &format!("file:{}", token.display())]).ok();
    assert_eq!(asked.answer()["status"], "approved");
    let code = || {
        let route = "http://cred-proxy:9099/x/v1/echo";
        bottle.exec(&["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-m", "30", route]).stdout
    };
    let shown = |evidence: &Evidence| match evidence {
        Evidence::Request { authorization: Some(shown), .. } => Some(shown.trim_start_matches("Bearer ").to_owned()),
        _ => None,
    };
    let seen = || world.seen("api").iter().filter_map(shown).collect::<Vec<_>>();
    // Nothing better is to be had: the upstream's answer comes through.
    assert_eq!(code(), "401");
    assert!(seen().iter().all(|shown| *shown == of("o")), "{:?}", seen());
    // The file changes, and the next requests have what is in it.
    std::fs::write(&token, of("p")).unwrap();
    wait_until("the changed one is used", || (code() == "401" && seen().contains(&of("p"))).then_some(()));
    // Nobody who looks sees this one: it is read because the upstream rejects the one before.
    write_unseen(&token, world.canary());
    wait_until("the rejected one is replaced", || (code() == "200").then_some(()));
    let all = seen();
    let turn = all.iter().position(|shown| shown == world.canary()).unwrap();
    assert_eq!(all[turn - 1], of("p"), "the very request that was rejected went out once more: {all:?}");
    assert!(all[turn..].iter().all(|shown| shown == world.canary()), "{all:?}");
    // It is taken back, and so is what kept it fresh.
    site.launcher(&["revoke", bottle.id(), "p1", "--yes"]).ok();
    assert_ne!(code(), "200");
    assert!(!std::fs::read_to_string(bottle.dir().log()).unwrap().contains(world.canary()));
    bottle.stop();
    site.assert_nothing_left();
}

fn is_running(container: &str) -> bool {
    let state = std::process::Command::new("docker").args(["inspect", "-f", "{{.State.Running}}", container]).output();
    state.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == "true")
}

#[test]
fn a_dockerfile_is_written_down_for_the_next_launch_and_changes_nothing_now() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let bottle = asking(&site, &world, "");
    let text = format!("FROM {}\nRUN apt-get install -y jq\n", site.clients());
    let arguments = json!({ "dockerfile": text, "justification": "jq is missing" });
    let asked = call(&site, &bottle, "capability-block", &arguments);
    wait_for_pending(&site, &bottle, "p1");
    assert!(!bottle.dir().dockerfile().exists());
    let output = approve(&site, &bottle, "p1", &[]).ok();
    assert!(output.stderr.contains("RUN apt-get install -y jq"), "all of it is shown: {output:#?}");
    assert_eq!(asked.answer()["status"], "approved");
    assert_eq!(std::fs::read_to_string(bottle.dir().dockerfile()).unwrap(), text);
    bottle.stop();
    assert_eq!(std::fs::read_to_string(bottle.dir().dockerfile()).unwrap(), text, "it outlives the bottle");
}
