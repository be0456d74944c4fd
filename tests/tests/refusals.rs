//! Bad input: each gives one clear error that says what, why and what to do, ends with 2 or 125, and leaves nothing on
//! the engine and in the state directory.

#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use bottle_tests::harness::{Output, Site, Unmade};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// An agent's name that no other test on the engine has: the names of what a bottle has there come from it.
fn coder() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    thread_local!(static OWN: u32 = NEXT.fetch_add(1, Ordering::Relaxed));
    format!("rf{}-{}", std::process::id(), OWN.with(|own| *own))
}

/// A bottle that needs nothing but an image; more can be appended.
fn plain(image: &str) -> String {
    format!("agent:\n  provider: shell\n  image: {image}\n")
}

/// The refusal has this status and these words, in one error, and nothing is left.
#[track_caller]
fn refused(site: &Site, output: &Output, status: i32, words: &[&str]) {
    assert_eq!(output.status, status, "{output:#?}");
    for word in words {
        assert!(output.stderr.contains(word), "{word:?} is not said: {output:#?}");
    }
    assert_eq!(output.stderr.matches("error:").count(), 1, "{output:#?}");
    assert!(!output.stderr.contains("panicked"), "{output:#?}");
    assert_eq!(output.stdout, "", "an error belongs to standard error");
    assert_eq!(site.left(), Vec::<String>::new());
    let ids = std::fs::read_dir(site.path("state")).map(|_| site.state().ids().unwrap_or_default());
    assert_eq!(ids.unwrap_or_default(), Vec::<String>::new(), "left in the state directory");
}

#[test]
fn mistakes_in_manifests_name_their_line_and_what_to_do() {
    let Some(site) = Site::new() else { return };
    site.agent(&coder(), "dev");
    let image = site.hostile();
    for (what, yaml, words) in [
        ("unknown key", format!("{}egres: {{}}\n", plain(&image)), &["bottles/dev.md:5:1", "egres", "egress"][..]),
        ("wrong type", format!("{}limits: {{pids: many}}\n", plain(&image)), &["bottles/dev.md:5", "pids"]),
        ("no such parent", format!("extends: nobody\n{}", plain(&image)), &["nobody", "bottles/dev.md:2"]),
    ] {
        site.bottle("dev", &yaml);
        let output = site.run(&coder()).to_end(&[]);
        eprintln!("{what}:\n{}", output.stderr);
        refused(&site, &output, 2, words);
        let checked = site.launcher(&["check"]);
        refused(&site, &checked, 2, words);
    }
    site.bottle("dev", &plain(&image));
    let output = site.launcher(&["check"]).ok();
    assert!(output.stderr.contains("1 agent and 1 bottle: no mistakes found"), "{output:?}");
}

#[test]
fn several_mistakes_are_all_shown_and_each_says_error_once() {
    let Some(site) = Site::new() else { return };
    site.agent(&coder(), "dev");
    site.bottle("dev", &format!("{}egres: {{}}\nlimits: {{pids: many}}\n", plain(&site.hostile())));
    let output = site.run(&coder()).to_end(&[]);
    assert_eq!(output.status, 2, "{output:?}");
    assert!(!output.stderr.contains("error: error:"), "{output:?}");
    assert_eq!(output.stderr.lines().filter(|l| l.starts_with("error: ")).count(), 2, "{output:?}");
}

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let Some(site) = Site::new() else { return };
    refused(&site, &site.launcher(&["run"]), 2, &["no agent is named", "none yet"]);
    site.agent(&coder(), "dev");
    site.bottle("dev", &plain(&site.hostile()));
    refused(&site, &site.launcher(&["run"]), 2, &["no agent is named", &format!("launcher run {}", coder())]);
    let typo = format!("{}x", coder());
    refused(&site, &site.launcher(&["run", &typo, "--yes"]), 2, &["there is no agent", &typo, &coder()]);
    let output = site.launcher(&["run", &coder(), "--yes", "--bottle", "prod"]);
    refused(&site, &output, 2, &["there is no bottle `prod`", "dev"]);
    for args in [&["attach", "nobody"][..], &["stop", "nobody"], &["diff", "nobody"], &["logs", "nobody"]] {
        refused(&site, &site.launcher(args), 2, &["no bottle called \"nobody\" was launched", "launcher ps --all"]);
    }
}

#[test]
fn a_credential_that_is_not_there_is_named_with_its_line() {
    let Some(site) = Site::new() else { return };
    site.agent(&coder(), "dev");
    let route = "cred_proxy:\n  routes:\n    - path: /api/\n      upstream: https://api.example.org\n      \
                 auth_scheme: Bearer\n      token_ref: BOTTLE_TEST_ABSENT\n";
    site.bottle("dev", &format!("{}{route}", plain(&site.hostile())));
    let output = site.run(&coder()).to_end(&[]);
    refused(&site, &output, 2, &["/api/", "BOTTLE_TEST_ABSENT", "bottles/dev.md:7", "token_ref"]);
    let output = site.run(&coder()).env("BOTTLE_TEST_ABSENT", "two\nlines").to_end(&[]);
    refused(&site, &output, 2, &["no header may have"]);
    assert!(!output.stderr.contains("two"), "{output:?}");

    site.bottle("dev", &format!("{}env:\n  TOKEN: ${{BOTTLE_TEST_ABSENT}}\n", plain(&site.hostile())));
    let output = site.run(&coder()).to_end(&[]);
    refused(&site, &output, 2, &["TOKEN", "BOTTLE_TEST_ABSENT", "bottles/dev.md"]);
    site.bottle("dev", &format!("{}env:\n  PASS: \"?Passphrase\"\n", plain(&site.hostile())));
    refused(&site, &site.run(&coder()).to_end(&[]), 2, &["PASS", "terminal", "${PASS}"]);
}

#[test]
fn an_engine_that_is_not_there_or_too_old_is_refused() {
    let Some(site) = Site::new() else { return };
    site.agent(&coder(), "dev");
    site.bottle("dev", &plain(&site.hostile()));
    let dead = site.path("dead.sock");
    drop(UnixListener::bind(&dead).unwrap());
    for host in [format!("unix://{}", dead.display()), format!("unix://{}", site.path("none.sock").display())] {
        let output = site.run(&coder()).env("DOCKER_HOST", &host).to_end(&[]);
        refused(&site, &output, 125, &["could not reach the engine", ".sock", "start Docker"]);
        let mut command = site.command();
        command.args(["run", &coder(), "--dry-run"]).env("DOCKER_HOST", &host);
        let printed = Output::from(command.output().unwrap()).ok();
        assert!(printed.stdout.contains("no engine answered"), "{printed:?}");
    }
    let old = site.path("old.sock");
    serve_old_api(UnixListener::bind(&old).unwrap());
    let output = site.run(&coder()).env("DOCKER_HOST", &format!("unix://{}", old.display())).to_end(&[]);
    refused(&site, &output, 125, &["too old", "1.30", "1.41", "update Docker"]);
}

/// An engine that speaks an API from long ago. Its thread ends with the test's process.
fn serve_old_api(listener: UnixListener) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let body = r#"{"Version":"17.06","ApiVersion":"1.30","MinAPIVersion":"1.12"}"#;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
            let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
}

#[test]
fn a_pipelock_that_nobody_knows_is_refused() {
    let Some(site) = Site::new() else { return };
    site.agent(&coder(), "dev");
    site.bottle("dev", &plain(&site.hostile()));
    let absent = "localhost:1/bottle-test/no-pipelock:1";
    let output = site.run(&coder()).args(&["--pipelock-image", absent]).to_end(&[]);
    refused(&site, &output, 125, &[absent, "cannot be pulled", "docker load", "--pipelock-image"]);

    // Another name of the same image was never pinned.
    let image = Unmade::image(&site, "unpinned", |tag| vec!["tag".into(), site.pipelock(), tag.into()]);
    let output = site.run(&coder()).args(&["--pipelock-image", image.tag()]).to_end(&[]);
    refused(&site, &output, 125, &[image.tag(), "not pinned", "launcher images pin"]);
    site.launcher(&["images", "pin", image.tag()]).ok();
    site.run(&coder()).args(&["--pipelock-image", image.tag()]).to_end(&["/demo-agent", "help"]);
    forget_all(&site);

    // The same name, and another image.
    let other = Unmade::image(&site, "unpinned", |tag| vec!["tag".into(), site.hostile(), tag.into()]);
    let output = site.run(&coder()).args(&["--pipelock-image", other.tag()]).to_end(&[]);
    refused(&site, &output, 125, &["is pinned", "launcher images pin"]);
}

fn forget_all(site: &Site) {
    for id in site.state().ids().unwrap() {
        site.launcher(&["cleanup", "--forget", &id]).ok();
    }
}

#[test]
fn names_that_are_taken_or_none_are_refused() {
    let Some(site) = Site::new() else { return };
    site.agent(&coder(), "dev");
    site.bottle("dev", &plain(&site.clients()));
    let long = "a".repeat(41);
    for name in ["", "Coder", "-x", "../x", "a b", long.as_str()] {
        let output = site.run(&coder()).args(&[&format!("--name={name}")]).to_end(&[]);
        refused(&site, &output, 2, &["cannot be a bottle's name", "letter"]);
    }
    let one = format!("{}-one", coder());
    site.run(&coder()).args(&["--name", &one, "--no-workspace"]).to_end(&["true"]).ok();
    let output = site.run(&coder()).args(&["--name", &one]).to_end(&["true"]);
    assert_eq!(output.status, 125, "{output:?}");
    let said = [format!("{one:?} is taken"), format!("--forget {one}")];
    assert!(said.iter().all(|word| output.stderr.contains(word)), "{output:?}");
    // Without a pinned name the next free one is used.
    site.run(&coder()).args(&["--no-workspace"]).to_end(&["true"]).ok();
    site.run(&coder()).args(&["--no-workspace"]).to_end(&["true"]).ok();
    assert_eq!(site.state().ids().unwrap(), [coder(), format!("{}-2", coder()), one]);
    forget_all(&site);
    assert_eq!(site.state().ids().unwrap(), Vec::<String>::new());
    site.assert_nothing_left();
}

#[test]
fn a_pool_that_is_full_or_outside_is_refused() {
    let Some(site) = Site::new() else { return };
    site.agent(&coder(), "dev");
    site.bottle("dev", &plain(&site.hostile()));
    let config = |pool: &str| {
        let text = format!("pipelock_image = \"{}\"\nsubnet_pool = \"{pool}\"\n", site.pipelock());
        std::fs::write(site.path("config/bottle/config.toml"), text).unwrap();
    };
    for pool in ["8.8.0.0/16", "100.64.0.0/16", "10.0.0.0/40", "words"] {
        config(pool);
        refused(&site, &site.run(&coder()).to_end(&[]), 2, &["config.toml:2", "subnet_pool"]);
    }
    // The smallest pool, and a network of somebody else in all of it.
    config("10.198.64.0/20");
    let name = format!("bottle-test-refusals-{}", std::process::id());
    let _network = Unmade::network(&site, &name, "10.198.64.0/20");
    refused(
        &site,
        &site.run(&coder()).to_end(&[]),
        125,
        &["no three free /28 subnets", "10.198.64.0/20", "launcher cleanup"],
    );
}

#[test]
fn what_the_engine_lacks_is_refused() {
    let Some(site) = Site::new() else { return };
    site.agent(&coder(), "dev");
    let image = site.hostile();
    let absent = "localhost:1/bottle-test/no-agent:1";
    site.bottle("dev", &plain(absent));
    refused(&site, &site.run(&coder()).to_end(&[]), 125, &[absent, "cannot be pulled", "docker build"]);

    site.bottle("dev", &format!("{}egress:\n  network: bottle-test-no-network\n", plain(&image)));
    refused(
        &site,
        &site.run(&coder()).to_end(&[]),
        125,
        &["no network \"bottle-test-no-network\"", "docker network create"],
    );

    site.bottle("dev", &format!("{}  user: nobody-here\n", plain(&image)));
    refused(&site, &site.run(&coder()).to_end(&["/demo-agent"]), 125, &["no user \"nobody-here\"", "agent.user"]);

    if site.wait(launcher::engine::Engine::facts(site.engine())).unwrap().runtimes.iter().any(|r| r == "runsc") {
        eprintln!("the engine has runsc: that it is missed where it is not there cannot be seen here");
    } else {
        site.bottle("dev", &format!("{}runtime: runsc\n", plain(&image)));
        refused(&site, &site.run(&coder()).to_end(&[]), 125, &["no runtime \"runsc\"", "runtime: auto"]);
    }
}

#[test]
fn a_program_that_is_not_there_is_said_as_a_shell_says_it() {
    let Some(site) = Site::new() else { return };
    site.agent(&coder(), "dev");
    site.bottle("dev", &plain(&site.clients()));
    let output = site.run(&coder()).to_end(&["no-such-program"]);
    refused(&site, &output, 127, &["no program \"no-such-program\"", "after `--`"]);
    let output = site.run(&coder()).to_end(&["/etc/passwd"]);
    refused(&site, &output, 126, &["\"/etc/passwd\"", "may not be run"]);
    let bottle = site.run(&coder()).detached(&["sleep", "600"]);
    let output = bottle.exec(&["no-such-program"]);
    assert_eq!(output.status, 127, "{output:?}");
    assert!(output.stderr.contains("no program \"no-such-program\""), "{output:?}");
    bottle.stop();
    site.assert_nothing_left();
}

#[test]
fn a_dockerfile_that_fails_shows_its_last_lines() {
    let Some(site) = Site::new() else { return };
    site.agent(&coder(), "refusals-fails");
    let text = format!(
        "FROM {}\nRUN for n in $(seq 1 40); do echo line-$n-of-the-build; done; echo the-reason >&2; exit 3\n",
        site.clients()
    );
    std::fs::write(site.path("config/bottle/bottles/Dockerfile"), text).unwrap();
    site.bottle("refusals-fails", "agent:\n  provider: shell\n  dockerfile: ./Dockerfile\n");
    let output = site.run(&coder()).to_end(&[]);
    eprintln!("{}", output.stderr);
    refused(
        &site,
        &output,
        125,
        &["could not build image", "the-reason", "line-40-of-the-build", "bottles/Dockerfile"],
    );
    assert!(!output.stderr.contains("line-10-of-the-build"), "only the last lines: {output:?}");
}

#[test]
fn a_state_directory_that_cannot_be_used_is_refused() {
    let Some(site) = Site::new() else { return };
    site.agent(&coder(), "dev");
    site.bottle("dev", &plain(&site.hostile()));
    let file = site.path("a-file");
    std::fs::write(&file, "").unwrap();
    std::fs::create_dir(site.path("elsewhere")).unwrap();
    std::fs::write(site.path("elsewhere/bottle"), "").unwrap();
    for state in [file, site.path("elsewhere")] {
        for args in [&["run", &coder(), "--yes"][..], &["ps"], &["diff", "x"], &["cleanup"]] {
            let mut command = site.command();
            command.args(args).env("XDG_STATE_HOME", &state);
            let output = Output::from(command.output().unwrap());
            refused(&site, &output, 125, &["state directory cannot be used", "XDG_STATE_HOME"]);
        }
    }
}

#[test]
fn the_agents_user_is_the_images_and_root_only_where_that_is_said() {
    let Some(site) = Site::new() else { return };
    site.agent(&coder(), "dev");
    let who = "id -u; id -un; echo $HOME; test -w $HOME && echo writable; getent passwd $(id -u) | cut -d: -f6";
    let run = |yaml: &str| {
        site.bottle("dev", yaml);
        site.run(&coder()).args(&["--no-workspace"]).to_end(&["sh", "-c", who]).ok().stdout
    };
    assert_eq!(run(&plain(&site.clients())), "1000\nagent\n/home/agent\nwritable\n/home/agent\n");
    assert_eq!(run(&format!("{}  user: root\n", plain(&site.clients()))), "0\nroot\n/root\nwritable\n/root\n");
    let text = "RUN useradd -u 1234 -m -d /srv/dev dev\nUSER dev\n";
    let image = built(&site, "user", text);
    assert_eq!(run(&plain(image.tag())), "1234\ndev\n/srv/dev\nwritable\n/srv/dev\n");
    site.assert_nothing_left();
}

#[test]
fn an_images_own_entrypoint_command_and_directory_are_respected() {
    let Some(site) = Site::new() else { return };
    site.agent(&coder(), "dev");
    let text = "RUN mkdir -p /srv/here && chmod 777 /srv/here\nWORKDIR /srv/here\nENV OWN=value\n\
                ENTRYPOINT [\"sh\", \"-c\", \"echo $0 $1; pwd; echo $OWN\"]\nCMD [\"one\", \"two\"]\n";
    let image = built(&site, "entry", text);
    site.bottle("dev", &plain(image.tag()));
    let output = site.run(&coder()).args(&["--no-workspace"]).to_end(&[]).ok();
    assert_eq!(output.stdout, "one two\n/srv/here\nvalue\n");
    let output = site.run(&coder()).to_end(&[]).ok();
    assert_eq!(output.stdout, "one two\n/workspace\nvalue\n", "with a workspace that is where it starts");
    site.assert_nothing_left();
}

/// An image of the clients and some more, gone with the test.
fn built<'a>(site: &'a Site, name: &str, text: &str) -> Unmade<'a> {
    let folder = site.path(&format!("build-{name}"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("Dockerfile"), format!("FROM {}\n{text}", site.clients())).unwrap();
    Unmade::image(site, name, |tag| {
        vec![
            "build".into(),
            "-q".into(),
            "--network=none".into(),
            "-t".into(),
            tag.into(),
            folder.display().to_string(),
        ]
    })
}

#[test]
fn a_dry_run_is_the_same_each_time_and_needs_no_engine() {
    let Some(site) = Site::new() else { return };
    site.agent(&coder(), "dev");
    site.bottle("dev", &format!("{}env:\n  LEVEL: canary-value\n", plain(&site.hostile())));
    let print = |host: Option<&str>, args: &[&str]| {
        let mut command: Command = site.command();
        command.args(["run", &coder(), "--dry-run"]).args(args);
        command.envs(host.map(|host| ("DOCKER_HOST", host)));
        Output::from(command.output().unwrap()).ok().stdout
    };
    let dead = Some("unix:///nonexistent/docker.sock");
    for host in [None, dead] {
        let json = print(host, &["--output", "json"]);
        assert_eq!(json, print(host, &["--output", "json"]));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["owner"]["id"], coder());
        assert_eq!(value["reach"]["engine"], host.is_none());
        assert!(!json.contains("canary-value"), "{json}");
    }
    let text = print(dead, &[]);
    assert!(text.contains("unknown without an engine") && !text.contains('\u{1b}'), "{text}");
    let output = site.launcher(&["run", &coder(), "--output", "json"]);
    assert_eq!(output.status, 2, "json without a dry run means nothing: {output:?}");
    site.assert_nothing_left();
}
