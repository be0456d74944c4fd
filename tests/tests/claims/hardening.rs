//! What the engine says of every container of a bottle: the rules that hold for all of them, and the few exceptions, each
//! by name.

use super::docker::{docker, inspect};
use super::ground::Lease;
use bottle_tests::harness::wait_until;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

const ROLES: [&str; 4] = ["agent", "pipelock", "route-pipelock", "cred-proxy"];

fn facts() -> Option<(Lease, BTreeMap<&'static str, Value>)> {
    let ground = Lease::take()?;
    let facts = ROLES.map(|role| (role, inspect(&ground.a.container(role)))).into();
    Some((ground, facts))
}

#[test]
fn every_container_is_confined_in_the_same_way() {
    let Some((ground, facts)) = facts() else { return };
    for (role, facts) in &facts {
        let host = &facts["HostConfig"];
        assert_eq!(host["CapDrop"], json!(["ALL"]), "{role}");
        assert!(matches!(&host["CapAdd"], Value::Null) || host["CapAdd"] == json!([]), "{role}: {}", host["CapAdd"]);
        assert_eq!(host["Privileged"], json!(false), "{role}");
        let options: Vec<&str> = host["SecurityOpt"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(
            options.iter().any(|o| o.starts_with("no-new-privileges") && !o.ends_with("false")),
            "{role}: {options:?}"
        );
        let profile = options.iter().find_map(|o| o.strip_prefix("seccomp=")).unwrap_or_default();
        let profile: Value = serde_json::from_str(profile).unwrap_or_else(|e| panic!("{role} has no profile: {e}"));
        assert_ne!(profile["defaultAction"], json!("SCMP_ACT_ALLOW"), "{role}");
        assert_eq!(host["ReadonlyRootfs"], json!(*role != "agent"), "{role}");
        let user = facts["Config"]["User"].as_str().unwrap();
        let uid: u32 = user.split(':').next().unwrap().parse().unwrap();
        assert!(uid >= 64_998, "{role} runs as {user}");
        assert_eq!(host["IpcMode"], json!("private"), "{role}");
        assert_ne!(host["PidMode"], json!("host"), "{role}");
        for limit in ["Memory", "NanoCpus", "PidsLimit"] {
            assert!(host[limit].as_i64().is_some_and(|n| n > 0), "{role} has no {limit}: {}", host[limit]);
        }
        let log = &host["LogConfig"]["Config"];
        assert!(
            host["LogConfig"]["Type"] == json!("none") || log["max-size"].is_string(),
            "{role}: {}",
            host["LogConfig"]
        );
        assert!(matches!(facts["Config"]["Healthcheck"]["Test"][0].as_str(), None | Some("NONE")), "{role}");
    }
    // The same engine gives a container that asks for nothing all of it: the words above mean something.
    let plain = inspect(ground.control.id());
    assert_ne!(plain["HostConfig"]["CapDrop"], json!(["ALL"]));
    assert_eq!(plain["HostConfig"]["ReadonlyRootfs"], json!(false));
}

#[test]
fn nothing_of_the_host_is_mounted_or_published() {
    let Some((_ground, facts)) = facts() else { return };
    for (role, facts) in &facts {
        assert_eq!(facts["Mounts"], json!([]), "{role}");
        let binds = &facts["HostConfig"]["Binds"];
        assert!(binds.is_null() || *binds == json!([]), "{role}: {binds}");
        let published = facts["NetworkSettings"]["Ports"].as_object().cloned().unwrap_or_default();
        assert!(published.values().all(|p| p.is_null() || *p == json!([])), "{role}: {published:?}");
        assert_eq!(facts["HostConfig"]["PublishAllPorts"], json!(false), "{role}");
        let devices = &facts["HostConfig"]["Devices"];
        assert!(devices.is_null() || *devices == json!([]), "{role}: {devices}");
        assert_ne!(facts["HostConfig"]["NetworkMode"], json!("host"), "{role}");
    }
}

#[test]
fn every_object_says_whose_it_is() {
    let Some((ground, facts)) = facts() else { return };
    let labels = ["id", "host", "state", "role", "agent", "version"];
    for (role, facts) in &facts {
        for label in labels {
            let value = facts["Config"]["Labels"][format!("dev.bottle.{label}")].as_str().unwrap_or_default();
            assert!(!value.is_empty(), "{role} has no {label}");
        }
        assert_eq!(facts["Config"]["Labels"]["dev.bottle.role"], json!(role));
    }
    let wanted = format!("label=dev.bottle.id={}", ground.a.id());
    let state = format!("label=dev.bottle.state={}", ground.site.state().hash());
    let list = docker(&["network", "ls", "-q", "--filter", &wanted, "--filter", &state]).ok().stdout;
    assert_eq!(list.lines().count(), 2, "internal and routes");
    for id in list.lines() {
        let network = inspect(id);
        assert!(labels.iter().all(|l| network["Labels"][format!("dev.bottle.{l}")].is_string()), "{network}");
        assert_eq!(network["Internal"], json!(true), "{network}");
    }
}

#[test]
fn the_walls_helper_is_the_one_exception_and_is_gone_before_the_agent() {
    let Some((ground, _)) = facts() else { return };
    // It lives for a fifth of a second: it is looked at in the moment in which it is made.
    let id = format!("wall-{}", std::process::id());
    let name = format!("bottle-{id}-wall");
    let mut events = Command::new("docker");
    // Also what happened before it has listened.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_secs().to_string();
    events.args([
        "events",
        "--since",
        &since,
        "--filter",
        "event=create",
        "--filter",
        &format!("container={name}"),
        "--format",
        "{{.ID}}",
    ]);
    let mut events = events.stdout(Stdio::piped()).spawn().expect("docker can be run");
    let output = events.stdout.take().expect("its output is piped");
    let seen = std::thread::spawn(move || {
        let mut id = String::new();
        BufReader::new(output).read_line(&mut id).expect("events can be read");
        inspect(id.trim())
    });
    let bottle =
        ground.site.run(&ground.agent_a).env("FORWARDED", "x").args(&["--name", &id]).detached(&["sleep", "60"]);
    let facts = seen.join().expect("the helper is seen");
    events.kill().expect("docker can be ended");
    events.wait().expect("docker can be waited for");
    assert_eq!(facts["HostConfig"]["CapDrop"], json!(["ALL"]));
    assert_eq!(facts["HostConfig"]["CapAdd"], json!(["NET_ADMIN"]));
    assert_eq!(facts["HostConfig"]["ReadonlyRootfs"], json!(true));
    assert_eq!(facts["Mounts"], json!([]));
    // Gone while the agent runs.
    wait_until("the helper is taken away", || (docker(&["inspect", &name]).status != 0).then_some(()));
    assert_eq!(bottle.sh("echo runs").ok().stdout, "runs\n");
    bottle.stop();
    // And what it built cannot be taken down from inside.
    let tried = ground.a.exec(&["ip", "route", "add", "198.18.0.0/15", "dev", "eth0"]);
    assert_ne!(tried.status, 0, "{tried:#?}");
    assert_eq!(ground.a.exec(&["ip", "route"]).status, 0, "routes can be read");
}

#[test]
fn what_the_manifest_forwards_is_not_in_inspect() {
    let Some((ground, facts)) = facts() else { return };
    assert_eq!(ground.a.exec(&["printenv", "FORWARDED"]).ok().stdout.trim(), ground.forwarded, "the agent has it");
    for (role, facts) in &facts {
        assert!(!facts.to_string().contains(&ground.forwarded), "{role}");
        assert!(!facts.to_string().contains(super::ground::LITERAL), "{role}");
    }
    let proxied = facts["agent"]["Config"]["Env"].to_string();
    assert!(proxied.contains("HTTPS_PROXY"), "what is no secret is there: {proxied}");
}
