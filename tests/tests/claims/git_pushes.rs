//! git-gate in a bottle with an ssh remote: a real sshd in the world, and a real git in the agent's container that has no
//! key. What may not leave is pushed in every place that a push has, and looked for in the upstream's own objects.

use super::docker::docker;
use bottle_tests::harness::{Bottle, Output, Site, Sshd, World};
use bottle_tests::world::GIT;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The port of ssh.
const PORT: u16 = 22;

/// An sshd in the world, with a repository, and a bottle whose remote it is.
struct Scene<'a> {
    bottle: Bottle<'a>,
    sshd: Sshd,
    world: World<'a>,
    folder: tempfile::TempDir,
    remote: String,
}

impl<'a> Scene<'a> {
    fn new(site: &'a Site, agent: &str) -> Self {
        let mut world = World::start(site);
        // Its container is where sshd listens; https of the same host is another thing.
        world.start_git();
        let folder = tempfile::tempdir().unwrap();
        let container = format!("{}-git", world.network());
        let sshd = Sshd::beside(&folder.path().join("sshd"), &container, SocketAddr::from((world.git_ip(), PORT)));
        let repository = folder.path().join("app.git");
        on_host(
            "git init -q --bare app.git; git -C app.git symbolic-ref HEAD refs/heads/main; \
             git -C app.git config receive.advertisePushOptions true; git -C app.git config uploadpack.allowFilter true; \
             git init -q seed; cd seed; echo a > a; seq 1 1000 > numbers; git add -A; git commit -qm seed; \
             git push -q ../app.git HEAD:refs/heads/main",
            folder.path(),
        )
        .ok();
        let remote = sshd.url_by(GIT, &repository);
        let yaml = format!(
            "{}git:\n  user: {{name: Ada, email: ada@example.org}}\n  remotes:\n    - name: app\n      upstream: {remote}\n      \
             identity_file: {}\n      known_host_key: {}\n      push: {{refs: [\"refs/*\"], force: true}}\n",
            world.bottle_yaml(&site.clients()),
            sshd.client_key().display(),
            sshd.host_key().split(' ').take(2).collect::<Vec<_>>().join(" "),
        );
        site.bottle("dev", &yaml);
        site.agent(agent, "dev");
        let bottle = site.run(agent).args(&["--no-workspace"]).detached(&["sleep", "600"]);
        Self { bottle, sshd, world, folder, remote }
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("app.git")
    }

    /// Runs a script as the agent, in a fresh clone.
    fn in_clone(&self, script: &str) -> Output {
        let clone = format!("rm -rf /tmp/app; git clone -q {} /tmp/app && cd /tmp/app || exit 99\n", self.remote);
        self.bottle.sh(&format!("{clone}{script}"))
    }

    /// Objects that the clone has made, and those of them that the upstream has.
    fn made_and_arrived(&self) -> (Vec<String>, Vec<String>) {
        let list = "cat-file --batch-all-objects --batch-check='%(objectname)'";
        let own = self.bottle.sh(&format!("git -C /tmp/app {list}")).ok().stdout;
        let seed = on_host(&format!("git -C seed {list}"), self.folder.path()).ok().stdout;
        let made: Vec<String> = own.lines().filter(|id| !seed.contains(*id)).map(str::to_owned).collect();
        let there = |id: &&String| {
            let looked =
                Command::new("git").arg("--git-dir").arg(self.repository()).args(["cat-file", "-e", id]).output();
            looked.unwrap().status.success()
        };
        let arrived = made.iter().filter(there).cloned().collect();
        (made, arrived)
    }

    fn refs(&self) -> String {
        on_host("git -C app.git for-each-ref '--format=%(refname)'", self.folder.path()).ok().stdout
    }
}

fn on_host(script: &str, folder: &Path) -> Output {
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(folder).stdin(Stdio::null()).env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["GIT_AUTHOR", "GIT_COMMITTER"] {
        command.env(format!("{who}_NAME"), "Seed").env(format!("{who}_EMAIL"), "seed@example.org");
    }
    command.env("HOME", folder).output().unwrap().into()
}

/// A token that a rule knows, put together here: no file of this repository holds one.
fn token() -> String {
    ["gh", "p_", "4fQ9xZ2mLr7VtB1nKc8Wd3Ys6Hj0Ua2t", "BIGb"].concat()
}

/// Where a secret may hide in a push: what makes it, as a script with `$T`, before `git push origin HEAD:x` unless it pushes
/// itself.
const PLACES: &[(&str, &str)] = &[
    ("a file", "echo t=$T > cfg; git add cfg; git commit -qm x"),
    ("a file that is gone again", "echo t=$T > cfg; git add cfg; git commit -qm x; git rm -q cfg; git commit -qm y"),
    ("a message", "git commit -q --allow-empty -m \"uses $T\""),
    ("an author", "git commit -q --allow-empty --author \"$T <a@b>\" -m x"),
    ("a tag's message", "git tag -a -m $T v1; git push origin v1; exit $?"),
    ("a file's name", "echo x > src-$T; git add -A; git commit -qm x"),
    ("a branch's name", "git push origin HEAD:refs/heads/$T; exit $?"),
    ("a note", "git notes add -m $T; git push origin refs/notes/commits; exit $?"),
    ("a push option", "git commit -q --allow-empty -m x; git push -o key=$T origin HEAD:x; exit $?"),
    ("UTF-16", "echo t=$T | iconv -t UTF-16 > cfg; git add cfg; git commit -qm x"),
    ("base64", "echo t=$T | base64 > cfg; git add cfg; git commit -qm x"),
    ("gzip", "echo t=$T | gzip > cfg.dat; git add cfg.dat; git commit -qm x"),
    ("zip", "echo t=$T > cfg; python3 -m zipfile -c cfg.docx cfg; git add cfg.docx; git commit -qm x"),
    ("node_modules", "mkdir node_modules; echo t=$T > node_modules/a.js; git add -f .; git commit -qm x"),
    ("a picture's name", "echo t=$T > a.png; git add a.png; git commit -qm x"),
    ("a comment that allows it", "echo \"t=$T # gitleaks:allow\" > cfg; git add cfg; git commit -qm x"),
    (
        "a repository with rules of its own",
        "printf '[allowlist]\\npaths = [\".*\"]\\n' > .gitleaks.toml; echo t=$T > cfg; git add -A; git commit -qm x",
    ),
    ("a link's target", "ln -s $T link; git add link; git commit -qm x"),
    (
        "a merge that neither side has",
        "git checkout -q -b y; git commit -q --allow-empty -m y; git checkout -q -; git commit -q --allow-empty -m z; \
         git merge -q --no-commit y; echo t=$T > cfg; git add cfg; git commit -qm m",
    ),
    ("a tag on a blob", "git tag v1 $(echo t=$T | git hash-object -w --stdin); git push origin v1; exit $?"),
    (
        "a delta",
        "seq 1 5000 > numbers; git add -A; git commit -qm x; (seq 1 2500; echo t=$T; seq 2500 5000) > numbers; \
         git commit -qam y",
    ),
];

#[test]
fn a_secret_in_any_place_of_a_push_stays_and_a_clean_push_passes() {
    let Some(site) = Site::new() else { return };
    let scene = Scene::new(&site, "claims-pushes");
    let token = token();
    for (place, make) in PLACES {
        let push = scene.in_clone(&format!("T={token}\n{make}\ngit push origin HEAD:x"));
        assert_eq!(push.status, 1, "{place}: {push:#?}");
        assert!(
            push.stderr.contains("PUSH REJECTED") && push.stderr.contains("(secret found by git-gate)"),
            "{place}: {push:#?}"
        );
        let (made, arrived) = scene.made_and_arrived();
        // A branch by that name is all of the push.
        assert!(!made.is_empty() || *place == "a branch's name", "{place}: nothing was made");
        assert!(arrived.is_empty(), "{place}: {arrived:?} of {made:?} are upstream");
        assert_eq!(scene.refs(), "refs/heads/main\n", "{place}");
    }
    let log = scene.bottle.log("git-gate");
    assert_eq!(log.matches(r#""outcome":"refused""#).count(), PLACES.len(), "{log}");
    assert!(!log.contains(&token), "{log}");
    // The neighbour of each: the same without it.
    let clean = scene.in_clone("echo t=clean > cfg; git add cfg; git commit -qm x; git push -q origin HEAD:x");
    assert_eq!(clean.status, 0, "{clean:#?}");
    let (made, arrived) = scene.made_and_arrived();
    assert!(made.len() == 3 && arrived == made, "{made:?} {arrived:?}");
    let fetched = scene.in_clone("git fetch -q origin x && git show FETCH_HEAD:cfg").ok().stdout;
    assert_eq!(fetched, "t=clean\n");
    scene.bottle.stop();
    drop(scene);
    site.assert_nothing_left();
}

#[test]
fn the_agent_has_no_key_and_no_way_to_the_ssh_host_but_the_gate() {
    let Some(site) = Site::new() else { return };
    let scene = Scene::new(&site, "claims-no-key");
    let address = scene.world.git_ip();
    let look = scene.in_clone("git log -1 --format=%s").ok();
    assert_eq!(look.stdout, "seed\n");
    // The middle of the key, as its file has it.
    let key = std::fs::read_to_string(scene.sshd.client_key()).unwrap();
    let middle = key.lines().nth(3).unwrap();
    let hunt = "env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null; \
                grep -rsl 'PRIVATE KEY' / --exclude-dir=proc --exclude-dir=sys --exclude-dir=usr";
    let found = scene.bottle.sh(hunt);
    assert!(!format!("{found:?}").contains(middle), "the key is in the bottle");
    let files = found.stdout.lines().filter(|line| line.starts_with('/') && !line.contains('\0')).collect::<Vec<_>>();
    assert!(files.iter().all(|file| !file.contains("ssh")), "{files:?}");
    for role in ["agent", "git-gate"] {
        let facts = docker(&["inspect", &scene.bottle.container(role)]).ok().stdout;
        assert!(!facts.contains(middle), "the key is in what the engine shows of {role}");
    }
    // The gate answers; past it there is nothing, neither by name nor by address, nor through pipelock.
    scene.bottle.sh("nc -z -w 3 git-gate 9418").ok();
    for way in [
        format!("nc -z -w 3 {GIT} {PORT}"),
        format!("nc -z -w 3 {address} {PORT}"),
        format!("curl -sS -m 5 -p -x \"$HTTPS_PROXY\" telnet://{GIT}:{PORT} < /dev/null"),
    ] {
        let tried = scene.bottle.sh(&way);
        assert_ne!(tried.status, 0, "{way}: {tried:#?}");
    }
    let logged = scene.sshd.log();
    assert!(logged.contains("Accepted publickey"), "the gate's own login is all that arrived: {logged}");
    scene.bottle.stop();
    drop(scene);
    site.assert_nothing_left();
}
