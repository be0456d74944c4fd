//! git-gate deployed by itself, as images/README.md says: its command and its configuration are taken from there, so that
//! what stands there works. Only what a test must choose is another: names, the port, and where the remote leads, which is a
//! real sshd of this machine.

#![allow(clippy::unwrap_used, reason = "the lint spares test functions alone, not what they share")]

use bottle_tests::harness::{Output, Site, Sshd, wait_until};
use launcher::engine::Engine as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// This machine, by a name that the container is given for it.
const UPSTREAM: &str = "upstream.world.example";

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../images").join(path)).unwrap()
}

/// The first block of a language in the part about git-gate.
fn block(language: &str) -> String {
    let readme = text("README.md");
    let part = readme.split_once("\n## git-gate by itself\n").unwrap().1;
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

/// Makes the image that a launch makes.
fn image(site: &Site) -> String {
    let wanted: Vec<_> =
        launcher::sidecars::SIDECARS.into_iter().filter(|sidecar| sidecar.name == "git-gate").collect();
    let binaries = launcher::sidecars::binaries(&wanted, &|_| {}).unwrap_or_else(|f| panic!("{f:?}"));
    let tag = launcher::images::references().git_gate;
    let program = std::fs::read(&binaries["git-gate"]).unwrap();
    let user = launcher::plan::hardening::SIDECAR_USER;
    site.wait(site.engine().load(&launcher::images::scratch(&tag, "/git-gate", program.into(), user))).unwrap();
    tag
}

/// A folder with what the README wants beside its command, a repository, and an sshd in front of it.
struct Ground {
    folder: tempfile::TempDir,
    sshd: Sshd,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Where a container reaches this machine.
        let sshd = Sshd::start(&folder.path().join("sshd"), IpAddr::from(Ipv4Addr::UNSPECIFIED));
        let ground = Self { folder, sshd };
        ground
            .git(
                "init -q --bare up.git; git -C up.git symbolic-ref HEAD refs/heads/main; git init -q w; cd w; \
                    echo a > a; git add a; git commit -qm a; git push -q ../up.git HEAD:refs/heads/main",
            )
            .ok();
        let key = std::fs::read_to_string(ground.sshd.client_key()).unwrap();
        ground.secret(&key);
        ground.write(|config| config);
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn git(&self, script: &str) -> Output {
        let mut command = Command::new("sh");
        command.arg("-ec").arg(format!("git {script}")).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.folder.path());
        for who in ["GIT_AUTHOR", "GIT_COMMITTER"] {
            command.env(format!("{who}_NAME"), "Ada").env(format!("{who}_EMAIL"), "ada@example.org");
        }
        command.env("GIT_CONFIG_NOSYSTEM", "1").output().unwrap().into()
    }

    /// The configuration of the README, with its remote leading here; then what a test changes in it.
    fn write(&self, change: impl FnOnce(String) -> String) {
        let url = self.sshd.url_by(UPSTREAM, &self.path("up.git"));
        let config = block("toml").replace("ssh://git@git.example.org/team/app.git", &url);
        let line = config.lines().find(|line| line.starts_with("host_key")).unwrap().to_owned();
        let config = config.replace(&line, &format!("host_key = \"{}\"", self.sshd.host_key()));
        assert!(config.contains(UPSTREAM), "{config}");
        std::fs::write(self.path("git-gate.toml"), change(config)).unwrap();
        for path in ["", "git-gate.toml"] {
            // The container's user is none of this machine.
            std::fs::set_permissions(self.path(path), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn secret(&self, secret: &str) {
        std::fs::create_dir_all(self.path("secrets")).unwrap();
        std::fs::write(self.path("secrets/deploy-key"), secret).unwrap();
        for (path, mode) in [("secrets", 0o755), ("secrets/deploy-key", 0o644)] {
            std::fs::set_permissions(self.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    /// Runs the README's command, with another name and any free port.
    fn run(&self, what: &str) -> (Container, String) {
        let command = block("sh");
        assert!(command.starts_with("docker run ") && !command.contains('\n'), "{command}");
        let name = format!("gate-alone-{what}-{}", std::process::id());
        let more = format!("--name {name} --label dev.bottle.test=alone --add-host {UPSTREAM}:host-gateway");
        let command = command.replace("--name git-gate", &more).replace("127.0.0.1:9418:9418", "127.0.0.1::9418");
        let output = Command::new("sh").arg("-c").arg(command).current_dir(self.folder.path()).output().unwrap();
        Output::from(output).ok();
        (Container(name.clone()), name)
    }
}

/// Waits until a container says that it listens; gives the address of its remote.
fn ready(container: &str) -> String {
    wait_until("it is ready", || docker(&["logs", container]).stdout.contains("\"ready\"").then_some(()));
    let place = docker(&["port", container, "9418/tcp"]).ok().stdout;
    format!("git://{}/app.git", place.lines().next().unwrap_or_default())
}

#[test]
fn the_readmes_command_serves_a_job_that_has_no_key() {
    let Some(site) = Site::new() else { return };
    let tag = image(&site);
    assert!(block("sh").contains(&tag), "the README names the image that a launch makes: {tag}");
    let ground = Ground::new();
    let (_guard, name) = ground.run("serves");
    let url = ready(&name);
    let healthy = docker(&["exec", &name, "/git-gate", "health"]);
    assert_eq!(healthy.status, 0, "{healthy:#?}");

    // The one line of configuration, and addresses as they were.
    let address = "git@git.example.org:team/app.git";
    ground.git(&format!("config --file .gitconfig url.{url}.insteadOf {address}")).ok();
    ground.git(&format!("clone -q {address} c; cat c/a")).ok();
    let push =
        "-C c checkout -q -b x; echo b > c/b; git -C c add b; git -C c commit -qm b; git -C c push -q origin x:ci/x";
    ground.git(push).ok();
    assert_eq!(ground.git("-C up.git cat-file -e refs/heads/ci/x").status, 0);
    let main = ground.git("-C c push origin x:main");
    assert!(main.status != 0 && main.stderr.contains("ref not allowed by git-gate"), "{main:#?}");

    let secret = format!("{}{}", "AKIA", "Z7QW3RTY5PLM2XCV");
    let leak = format!(
        "-C c checkout -q -b y; echo 'key = \"{secret}\"' > c/key; git -C c add key; git -C c commit -qm y; \
                        git -C c push origin y:ci/y"
    );
    let refused = ground.git(&leak);
    assert!(refused.status != 0 && refused.stderr.contains("PUSH REJECTED"), "{refused:#?}");
    for object in ground.git("-C c rev-list --objects y --not x").ok().stdout.lines() {
        let id = object.split(' ').next().unwrap();
        assert_ne!(ground.git(&format!("-C up.git cat-file -e {id}")).status, 0, "{object}");
    }

    let (log, facts) = (docker(&["logs", &name]).stdout, docker(&["inspect", &name]).ok().stdout);
    assert!(log.contains("\"outcome\":\"refused\"") && !log.contains(&secret), "{log}");
    // Looking whether it lives is no operation.
    assert_eq!(log.lines().filter(|line| line.contains("\"operation\"")).count(), 4, "{log}");
    assert!(!facts.contains("PRIVATE KEY") && !log.contains("PRIVATE KEY"));

    // A file that is wrong changes nothing; another one is taken without a start.
    ground.write(|config| config.replace("refs/heads/ci/*", "refs/heads/ci/["));
    docker(&["kill", "--signal", "HUP", &name]).ok();
    wait_until("it refuses the file", || {
        docker(&["logs", &name]).stdout.contains("\"refused\",\"reason\"").then_some(())
    });
    ground.git("-C c push -q origin x:ci/z").ok();
    ground.write(|config| config.replace("refs/heads/ci/*", "refs/heads/*"));
    docker(&["kill", "--signal", "HUP", &name]).ok();
    wait_until("it takes the file", || docker(&["logs", &name]).stdout.contains("\"configured\"").then_some(()));
    ground.git("-C c push -q origin x:main").ok();

    docker(&["stop", "--time", "20", &name]).ok();
    let status = docker(&["inspect", "-f", "{{.State.ExitCode}}", &name]).ok().stdout;
    assert_eq!(status.trim(), "0", "it ends by itself at SIGTERM");
}

#[test]
fn a_file_that_is_wrong_is_refused_with_its_reason() {
    let Some(site) = Site::new() else { return };
    let tag = image(&site);
    let ground = Ground::new();
    type Change = fn(String) -> String;
    let changes: [(&str, Change, &str); 7] = [
        ("no-toml", |_| "{\"listen\": 1".to_owned(), "is no configuration: line 1"),
        ("unknown-key", |c| c.replace("[[remotes]]", "[[roads]]"), "roads"),
        ("no-secret", |c| c.replace("/run/secrets/deploy-key", "/run/secrets/absent"), "/run/secrets/absent"),
        ("unnamed", |c| c.replace("secret = \"deploy-key\"", "secret = \"other\""), "no secret `other`"),
        (
            "held",
            |c| c.replace("{ file = \"/run/secrets/deploy-key\" }", "\"key-of-nobody-1f7c\""),
            "never the secret itself",
        ),
        (
            "no-pin",
            |c| c.lines().filter(|l| !l.starts_with("host_key")).collect::<Vec<_>>().join("\n"),
            "known_host_key",
        ),
        ("glob", |c| c.replace("refs/heads/ci/*", "ci"), "`ci`"),
    ];
    for (what, change, reason) in changes {
        ground.write(change);
        let (_guard, name) = ground.run(what);
        let status = docker(&["wait", &name]).ok().stdout;
        let said = docker(&["logs", &name]);
        let said = format!("{}{}", said.stdout, said.stderr);
        assert_eq!(status.trim(), "2", "{what}: {said}");
        let is_safe = !said.contains("panicked") && !said.contains("key-of-nobody");
        assert!(said.contains(reason) && is_safe, "{what}: {said}");
        // So says the look before the start.
        let config = format!("{}:/gate.toml:ro", ground.path("git-gate.toml").display());
        let secrets = format!("{}:/run/secrets:ro", ground.path("secrets").display());
        let checked = docker(&["run", "--rm", "-v", &config, "-v", &secrets, &tag, "check", "--config", "/gate.toml"]);
        assert!(checked.status == 2 && checked.stderr.contains(reason), "{what}: {checked:#?}");
    }
    // A key that is none, of which not a byte is said.
    ground.write(|config| config);
    ground.secret("key-of-nobody-1f7c");
    let (_guard, name) = ground.run("no-key");
    assert_eq!(docker(&["wait", &name]).ok().stdout.trim(), "2");
    let said = docker(&["logs", &name]);
    let said = format!("{}{}", said.stdout, said.stderr);
    assert!(said.contains("ssh key cannot be read") && !said.contains("key-of-nobody"), "{said}");
}

#[test]
fn the_compose_file_says_what_the_command_says() {
    let compose: serde_json::Value = serde_saphyr::from_str(&text("compose/git-gate.yaml")).unwrap();
    let gate = &compose["services"]["git-gate"];
    let command = block("sh");
    let words: Vec<&str> = command.split_whitespace().collect();
    let behind = |option: &str| words[words.iter().position(|word| *word == option).unwrap() + 1];
    assert!(words.contains(&gate["image"].as_str().unwrap()));
    assert_eq!(gate["command"], serde_json::json!(["--config", "/etc/git-gate/git-gate.toml"]));
    assert_eq!((&gate["read_only"], &gate["cap_drop"]), (&true.into(), &serde_json::json!(["ALL"])));
    assert!(gate["security_opt"][0].as_str().unwrap().starts_with(behind("--security-opt")));
    assert_eq!(gate["pids_limit"].to_string(), behind("--pids-limit"));
    assert!(gate["mem_limit"].as_str().unwrap().contains(behind("--memory")));
    let volumes: Vec<&str> =
        gate["volumes"].as_array().unwrap().iter().map(|volume| volume.as_str().unwrap()).collect();
    for volume in volumes {
        assert!(command.contains(&volume.replace("./", "$PWD/")), "{volume}");
    }
    // Nobody outside reaches it, and the job has no other way out.
    assert!(gate.get("ports").is_none());
    assert_eq!(compose["networks"]["job"]["internal"], true);
    assert_eq!(compose["services"]["job"]["networks"], serde_json::json!(["job"]));
}
