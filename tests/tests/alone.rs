//! cred-proxy deployed by itself, as images/README.md says: its command and its configuration are taken from there, so that
//! what stands there works. Only what a test must choose is another: names, the port, and where the route leads.

#![allow(clippy::unwrap_used, reason = "the lint spares test functions alone, not what they share")]

use bottle_tests::harness::{Output, Site, wait_until};
use bottle_tests::world::role::line;
use bottle_tests::world::{ApiConfig, Evidence, Expected, Names, World, canary};
use launcher::engine::Engine as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// This machine, by a name that the container is given for it.
const UPSTREAM: &str = "upstream.world.example";

/// The README of the images.
fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/README.md")).unwrap()
}

/// The first block of a language in the part about cred-proxy.
fn block(language: &str) -> String {
    let readme = readme();
    let part = readme.split_once("\n## cred-proxy by itself\n").unwrap().1;
    let block = part.split_once(&format!("```{language}\n")).unwrap().1;
    block.split_once("\n```").unwrap().0.to_owned()
}

fn docker(args: &[&str]) -> Output {
    Command::new("docker").args(args).output().unwrap().into()
}

/// A container that goes with its guard.
struct Container(String);

impl Drop for Container {
    fn drop(&mut self) {
        docker(&["rm", "-f", "-v", &self.0]);
    }
}

/// The world's API as a process of this machine, where a container on the engine's own network reaches it.
struct Api {
    child: Child,
    _input: ChildStdin,
    upstream: String,
    evidence: Receiver<Evidence>,
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Api {
    fn start(credential: &str) -> Self {
        let world = World::mint(&Names::default()).unwrap();
        let expected = Expected { header: "x-api-key".to_owned(), value: credential.to_owned() };
        let everywhere = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let config = ApiConfig { https_port: 0, http_port: 0, ..world.api_config(everywhere, Some(expected)) };
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo-world"));
        let mut child = command.arg("api").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(line(&config).as_bytes()).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let Some(Evidence::Ready { listening }) = Evidence::parse(&first) else { panic!("not ready: {first}") };
        let upstream = format!("{UPSTREAM}:{}", listening["http"][0].port());
        let (tell, evidence) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Some(seen) = Evidence::parse(&line) else { continue };
                if tell.send(seen).is_err() {
                    return;
                }
            }
        });
        Self { child, _input: input, upstream, evidence }
    }
}

/// Makes the image that a launch makes.
fn image(site: &Site) -> String {
    let wanted: Vec<_> =
        launcher::sidecars::SIDECARS.into_iter().filter(|sidecar| sidecar.name == "cred-proxy").collect();
    let binaries = launcher::sidecars::binaries(&wanted, &|_| {}).unwrap_or_else(|f| panic!("{f:?}"));
    let tag = launcher::images::references().cred_proxy;
    let program = std::fs::read(&binaries["cred-proxy"]).unwrap();
    let user = launcher::plan::hardening::SIDECAR_USER;
    site.wait(site.engine().load(&launcher::images::scratch(&tag, "/cred-proxy", program.into(), user))).unwrap();
    tag
}

/// Runs the README's command in a folder, with another name and any free port.
fn run(folder: &Path, name: &str, more: &str) -> (Container, Output) {
    let command = block("sh");
    assert!(command.starts_with("docker run ") && !command.contains('\n'), "{command}");
    let command = command
        .replace(
            "--name cred-proxy",
            &format!("--name {name} --label dev.bottle.test=alone --add-host {UPSTREAM}:host-gateway {more}"),
        )
        .replace("127.0.0.1:9099:9099", "127.0.0.1::9099");
    let output = Command::new("sh").arg("-c").arg(command).current_dir(folder).output().unwrap().into();
    (Container(name.to_owned()), output)
}

/// The configuration of the README, with its route leading to the world; then what a test changes in it.
fn write(folder: &Path, upstream: &str, change: impl FnOnce(String) -> String) {
    let config = block("json").replace("https://api.anthropic.com", &format!("http://{upstream}"));
    assert!(config.contains(upstream), "{config}");
    std::fs::write(folder.join("cred-proxy.json"), change(config)).unwrap();
    for path in ["", "cred-proxy.json"] {
        // The container's user is none of this machine.
        let readable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.join(path), readable).unwrap();
    }
}

fn secret(folder: &Path, secret: &str) {
    std::fs::create_dir_all(folder.join("secrets")).unwrap();
    std::fs::write(folder.join("secrets/anthropic"), secret).unwrap();
    for (path, mode) in [("secrets", 0o755), ("secrets/anthropic", 0o644)] {
        std::fs::set_permissions(folder.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn unique(what: &str) -> String {
    format!("alone-{what}-{}", std::process::id())
}

/// Waits until a container says that it listens; before that, the engine's own forwarder takes connections and drops them.
fn ready(container: &str) {
    wait_until("it is ready", || docker(&["logs", container]).stdout.contains("\"ready\"").then_some(()));
}

/// Asks the running container; gives the status and the reply.
fn ask(container: &str, path: &str) -> Output {
    let place = docker(&["port", container, "9099/tcp"]).ok().stdout;
    let place = place.lines().next().unwrap_or_default().to_owned();
    let url = format!("http://{place}{path}");
    let fixed =
        ["-q", "-sS", "--noproxy", "*", "-m", "20", "--retry", "20", "--retry-connrefused", "-w", "%{http_code}"];
    let asked = Command::new("curl").args(fixed).args(["-X", "POST", "-d", "{}", &url]).output();
    asked.expect("curl must be installed").into()
}

#[test]
fn the_readmes_command_serves_a_file_with_a_secret_from_a_file_or_the_environment() {
    let Some(site) = Site::new() else { return };
    let tag = image(&site);
    assert!(block("sh").contains(&tag), "the README names the image that a launch makes: {tag}");
    let (credential, folder) = (canary(), tempfile::tempdir().unwrap());
    let api = Api::start(&credential);

    write(folder.path(), &api.upstream, |config| config);
    secret(folder.path(), &format!("{credential}\n"));
    let name = unique("file");
    let (_guard, started) = run(folder.path(), &name, "");
    started.ok();
    ready(&name);
    let good = ask(&name, "/anthropic/v1/messages");
    assert!(
        good.stdout.ends_with("200") && good.stdout.contains("assistant"),
        "{good:#?} {:#?}",
        docker(&["logs", &name])
    );
    let seen = api.evidence.recv().unwrap();
    assert!(seen.contains(&credential), "{seen:?}");
    assert!(ask(&name, "/anthropic/v1/files").stdout.ends_with("403"));
    assert!(ask(&name, "/elsewhere").stdout.ends_with("404"));
    let healthy = docker(&["exec", &name, "/cred-proxy", "health"]);
    assert_eq!(healthy.status, 0, "{healthy:#?}");
    let (log, facts) = (docker(&["logs", &name]), docker(&["inspect", &name]).ok().stdout);
    assert!(log.stdout.contains("\"status\":200") && !log.stdout.contains(&credential), "{log:#?}");
    assert!(!facts.contains(&credential));

    // Another key is taken without a start.
    secret(folder.path(), "another-key-of-nobody");
    wait_until("the file's new key is used", || {
        ask(&name, "/anthropic/v1/messages").stdout.ends_with("401").then_some(())
    });
    secret(folder.path(), &credential);
    wait_until("and the old one again", || ask(&name, "/anthropic/v1/messages").stdout.ends_with("200").then_some(()));

    let name = unique("env");
    write(folder.path(), &api.upstream, |config| {
        config.replace(r#"{"file": "/run/secrets/anthropic"}"#, r#"{"env": "ANTHROPIC_API_KEY"}"#)
    });
    let (_guard, started) = run(folder.path(), &name, &format!("--env ANTHROPIC_API_KEY={credential}"));
    started.ok();
    ready(&name);
    assert!(ask(&name, "/anthropic/v1/messages").stdout.ends_with("200"), "{:#?}", docker(&["logs", &name]));
    let ended = docker(&["stop", "--time", "20", &name]);
    assert_eq!(ended.status, 0);
    let status = docker(&["inspect", "-f", "{{.State.ExitCode}}", &name]).ok().stdout;
    assert_eq!(status.trim(), "0", "it ends by itself at SIGTERM");
}

#[test]
fn a_configuration_that_is_wrong_is_refused_with_its_reason() {
    let Some(site) = Site::new() else { return };
    image(&site);
    let folder = tempfile::tempdir().unwrap();
    let nowhere = "192.0.2.1:80";
    secret(folder.path(), "key-of-nobody-1f7c");
    type Change = fn(String) -> String;
    let changes: [(&str, Change, &str); 6] = [
        ("no-json", |_| "listen: 0.0.0.0:9099".to_owned(), "cred-proxy.json"),
        ("unknown-key", |c| c.replace("\"routes\"", "\"roads\""), "roads"),
        ("no-secret", |c| c.replace("/run/secrets/anthropic", "/run/secrets/absent"), "/run/secrets/absent"),
        ("unnamed", |c| c.replace("\"secret\": \"anthropic\"", "\"secret\": \"other\""), "other"),
        (
            "held",
            |c| c.replace(r#"{"file": "/run/secrets/anthropic"}"#, "\"key-of-nobody-1f7c\""),
            "never the secret itself",
        ),
        ("pattern", |c| c.replace("POST /v1/messages", "TRACE /v1/messages"), "TRACE"),
    ];
    for (what, change, reason) in changes {
        write(folder.path(), nowhere, change);
        let name = unique(what);
        let (_guard, started) = run(folder.path(), &name, "");
        started.ok();
        let status = docker(&["wait", &name]).ok().stdout;
        let said = docker(&["logs", &name]);
        let said = format!("{}{}", said.stdout, said.stderr);
        assert_eq!(status.trim(), "2", "{what}: {said}");
        assert!(said.contains(reason), "{what}: {said}");
        assert!(!said.contains("key-of-nobody-1f7c") && !said.contains("panicked"), "{what}: {said}");
    }
    // The same file as it should be starts.
    write(folder.path(), nowhere, |config| config);
    let name = unique("right");
    let (_guard, started) = run(folder.path(), &name, "");
    started.ok();
    ready(&name);
}

#[test]
fn requests_beyond_the_limit_are_refused_and_the_next_good_one_works() {
    let Some(site) = Site::new() else { return };
    image(&site);
    let (credential, folder) = (canary(), tempfile::tempdir().unwrap());
    let api = Api::start(&credential);
    secret(folder.path(), &credential);
    write(folder.path(), &api.upstream, |config| {
        config
            .replace("POST /v1/messages", "POST /v1/**")
            .replace("{\n  \"listen\"", "{\n  \"limits\": {\"requests\": 2},\n  \"listen\"")
    });
    let name = unique("limit");
    let (_guard, started) = run(folder.path(), &name, "");
    started.ok();
    ready(&name);
    assert!(ask(&name, "/anthropic/v1/messages").stdout.ends_with("200"), "{:#?}", docker(&["logs", &name]));
    api.evidence.recv().unwrap();
    std::thread::scope(|scope| {
        let slow: Vec<_> = (0..2).map(|_| scope.spawn(|| ask(&name, "/anthropic/v1/slow?ms=8000"))).collect();
        for _ in 0..2 {
            api.evidence.recv().unwrap();
        }
        let place = docker(&["port", &name, "9099/tcp"]).ok().stdout;
        let url = format!("http://{}/anthropic/v1/messages", place.lines().next().unwrap_or_default());
        let asked =
            Command::new("curl").args(["-q", "-sS", "-i", "--noproxy", "*", "-d", "{}", &url]).output().unwrap();
        let refused = String::from_utf8_lossy(&asked.stdout).into_owned();
        assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("cred-proxy: "), "{refused}");
        // Those that were let in are answered all the same.
        assert!(slow.into_iter().all(|s| s.join().unwrap().stdout.ends_with("200")));
    });
    assert!(ask(&name, "/anthropic/v1/messages").stdout.ends_with("200"));
    let log = docker(&["logs", &name]).stdout;
    assert!(log.contains("\"status\":503"), "{log}");
}
