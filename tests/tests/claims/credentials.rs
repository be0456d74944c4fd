//! A route's credential is found nowhere but in memory of cred-proxy and, where its route is inspected, of
//! route-pipelock: not with the agent, not on any disk, argv, log, image or event. A canary is hunted everywhere.

use super::docker::docker;
use super::ground::{ROUTED, answers, python, tag};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bottle_tests::harness::{Bottle, Site, World};
use bottle_tests::world::Evidence;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The forms in which a secret may lie around.
pub fn forms(secret: &str) -> Vec<(&'static str, String)> {
    let hex = secret.bytes().map(|b| format!("{b:02x}")).collect();
    let percent = secret.bytes().map(|b| format!("%{b:02X}")).collect();
    vec![
        ("plain", secret.to_owned()),
        ("base64", STANDARD.encode(secret).trim_end_matches('=').to_owned()),
        ("base64 with its scheme", STANDARD.encode(format!("Bearer {secret}")).trim_end_matches('=').to_owned()),
        ("base64url", URL_SAFE_NO_PAD.encode(secret)),
        ("hex", hex),
        ("percent", percent),
        ("reversed", secret.chars().rev().collect()),
    ]
}

/// The forms of `secret` that are in `bytes`.
fn found(bytes: &[u8], secret: &str) -> Vec<&'static str> {
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    forms(secret).into_iter().filter(|(_, text)| holds(text)).map(|(form, _)| form).collect()
}

/// Every file below a folder.
pub fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            all.extend(files(&path));
        } else if kind.is_file() {
            all.push((path.clone(), std::fs::read(&path).unwrap_or_default()));
        }
    }
    all
}

/// The engine's events while it lives.
struct Events(Child, PathBuf);

impl Events {
    fn watch(into: PathBuf) -> Self {
        let file = std::fs::File::create(&into).unwrap();
        let child = Command::new("docker").args(["events", "--format", "{{json .}}"]).stdout(file).spawn().unwrap();
        Self(child, into)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        std::fs::read(&self.1).unwrap()
    }
}

/// Command lines of all processes of this machine, looked at again and again.
fn watch_command_lines(until: &Arc<AtomicBool>) -> std::thread::JoinHandle<BTreeSet<Vec<u8>>> {
    let until = Arc::clone(until);
    std::thread::spawn(move || {
        let mut all = BTreeSet::new();
        while !until.load(Ordering::Relaxed) {
            for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
                if let Ok(line) = std::fs::read(entry.path().join("cmdline")) {
                    all.insert(line);
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        all
    })
}

/// Hunts in the agent's container for a word that is given backwards, so that the hunter does not find itself.
const HUNT: &str = r#"
import base64, os, sys
for backwards in sys.argv[1:]:
    word = backwards[::-1].encode()
    wanted = [word, base64.b64encode(word).rstrip(b"="), word.hex().encode()]
    seen = 0
    def look(path):
        global seen
        try:
            with open(path, "rb") as f: text = f.read(64 << 20)
        except OSError: return
        seen += 1
        for w in wanted:
            if w in text: print("FOUND", path)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ["environ", "cmdline"]: look(f"/proc/{pid}/{name}")
    for folder, folders, names in os.walk("/"):
        if folder in ("/proc", "/sys", "/dev"): folders[:] = []; continue
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path): look(path)
    print("looked at", seen)
"#;

fn hunted(bottle: &Bottle<'_>, word: &str) -> (Vec<String>, usize) {
    let said = python(bottle, HUNT, &[&word.chars().rev().collect::<String>()]).ok().stdout;
    let seen = said.lines().find_map(|l| l.strip_prefix("looked at ")?.parse().ok()).unwrap_or(0);
    (said.lines().filter_map(|l| l.strip_prefix("FOUND ")).map(str::to_owned).collect(), seen)
}

#[test]
fn a_credential_is_nowhere_but_on_its_route() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let forwarded = tag("forwarded");
    let secrets = [("the credential", world.canary()), ("the forwarded value", &forwarded)];
    let yaml = world.bottle_yaml(&site.clients());
    site.bottle("dev", &format!("{yaml}env:\n  FORWARDED: ${{FORWARDED}}\n"));
    site.agent("claims-hunt", "dev");
    let mut places: Vec<(String, Vec<u8>)> = Vec::new();
    let events = Events::watch(site.path("events"));
    let over = Arc::new(AtomicBool::new(false));
    let lines = watch_command_lines(&over);
    let images = images(&site);

    let bottle = site.run("claims-hunt").env("FORWARDED", &forwarded).detached(&["sleep", "600"]);
    let id = bottle.id().to_owned();
    answers(&bottle, &["http://cred-proxy:9099/api/v1/echo"], "200");
    answers(&bottle, &["http://cred-proxy:9099/api/v1/leak"], "200");
    answers(&bottle, &["http://cred-proxy:9099/api/nothing/here"], "403");
    for role in ["agent", "pipelock", "route-pipelock", "cred-proxy"] {
        let name = bottle.container(role);
        places.push((format!("inspect of {role}"), docker(&["inspect", &name]).ok().stdout.into_bytes()));
        let log = docker(&["logs", &name]).ok();
        places.push((format!("the engine's log of {role}"), format!("{}{}", log.stdout, log.stderr).into_bytes()));
        places.push((format!("the processes of {role}"), docker(&["top", &name, "-eo", "args"]).stdout.into_bytes()));
        assert_eq!(lines_on_disk(&site, &name, &secrets), 0, "on the disk of {role}");
    }
    let (with, seen) = hunted(&bottle, world.canary());
    assert!(seen > 1000, "all is looked at: {seen}");
    assert_eq!(with, Vec::<String>::new(), "the agent finds the credential");
    let (with, _) = hunted(&bottle, &forwarded);
    assert!(
        !with.is_empty() && with.iter().all(|p| p.starts_with("/proc/")),
        "a forwarded value is in environments alone: {with:?}"
    );
    for (what, args) in [("ps", &["ps", "--json"][..]), ("logs", &["logs", &id]), ("check", &["check", "claims-hunt"])]
    {
        let said = site.launcher(args);
        places.push((format!("launcher {what}"), format!("{}{}", said.stdout, said.stderr).into_bytes()));
    }
    places.extend(images);
    places.extend(files(&site.path("state")).into_iter().map(|(p, b)| (p.display().to_string(), b)));
    let stopped = site.launcher(&["stop", &id]).ok();
    places.push(("launcher stop".to_owned(), format!("{}{}", stopped.stdout, stopped.stderr).into_bytes()));
    places.extend(files(&site.path("state")).into_iter().map(|(p, b)| (format!("{} at the end", p.display()), b)));
    // Once more without letting go: what the operator's own command says of a whole session.
    let whole = site.run("claims-hunt").env("FORWARDED", &forwarded).to_end(&["true"]).ok();
    places.push(("launcher run".to_owned(), format!("{}{}", whole.stdout, whole.stderr).into_bytes()));
    over.store(true, Ordering::Relaxed);
    let lines = lines.join().unwrap();
    let told = events.end();
    assert!(String::from_utf8_lossy(&told).contains(&format!("bottle-{id}-agent")), "the events were told");
    assert!(lines.iter().any(|l| String::from_utf8_lossy(l).contains("keeper")), "the keeper's command line was seen");
    places.push(("the engine's events".to_owned(), told));
    places.extend(lines.into_iter().map(|l| (format!("command line {}", String::from_utf8_lossy(&l)), l)));

    // The world writes down what its API saw, for this test to read: that file is the other side's.
    let world_log = |name: &str| name.contains("/w") && name.contains("log.jsonl");
    for (place, bytes) in places.iter().filter(|(name, _)| !world_log(name)) {
        for (what, secret) in secrets {
            let forms = found(bytes, secret);
            // The hunter is given both words backwards on its own command line.
            let forms: Vec<_> = forms.into_iter().filter(|form| *form != "reversed").collect();
            assert!(forms.is_empty(), "{what} is in {place}: {forms:?}");
        }
    }
    let api: Vec<_> = world.seen("api").into_iter().filter(|e| e.contains(world.canary())).collect();
    let on_route =
        |e: &Evidence| matches!(e, Evidence::Request { host, path, .. } if host == ROUTED && path.starts_with("/v1/"));
    assert!(api.len() == 2 && api.iter().all(on_route), "{api:#?}");
    site.assert_nothing_left();
}

/// How many lines of a container's disk hold one of the secrets. The words are in a file: on a command line they would be
/// found by this very test.
fn lines_on_disk(site: &Site, container: &str, secrets: &[(&str, &str)]) -> usize {
    let words = site.path("words");
    let all: Vec<String> = secrets.iter().flat_map(|(_, s)| forms(s)).map(|(_, text)| text).collect();
    std::fs::write(&words, all.join("\n") + "\n").unwrap();
    let script = "docker export \"$1\" | grep -a -c -F -f \"$2\"";
    let output = Command::new("sh").args(["-c", script, "sh", container]).arg(&words).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(usize::MAX)
}

/// History and content of the sidecars' images.
fn images(site: &Site) -> Vec<(String, Vec<u8>)> {
    let references = launcher::images::references();
    let mut all = Vec::new();
    for reference in [&references.cred_proxy, &references.wall, &site.pipelock()] {
        all.push((
            format!("history of {reference}"),
            docker(&["history", "--no-trunc", reference]).stdout.into_bytes(),
        ));
        let saved = Command::new("docker").args(["save", reference]).output().unwrap();
        all.push((format!("image {reference}"), saved.stdout));
    }
    all
}

#[test]
fn a_secret_would_be_found() {
    let secret = tag("secret");
    for (form, text) in forms(&secret) {
        assert!(found(format!("x{text}y").as_bytes(), &secret).contains(&form), "{form}");
    }
    assert!(found(b"nothing here", &secret).is_empty());
}
