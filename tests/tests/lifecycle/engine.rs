//! The engine dies in mid-session. It is one of the test's own: in namespaces of its own, with all that it holds in a
//! temporary folder, and no process, mount or network of it outlives the test.

use bottle_tests::harness::{Site, finish, signal, wait_until};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// An engine of the test's own.
struct Engine {
    folder: tempfile::TempDir,
    /// Where its control groups are; a name that no other engine uses.
    groups: String,
    /// Holds the namespaces. Killed, it takes everything in them along.
    holder: Child,
    engine: Option<Child>,
}

impl Engine {
    /// `None`: there is none on this machine, which is said.
    fn start() -> Option<Self> {
        let there = Command::new("dockerd").arg("--version").output().is_ok_and(|o| o.status.success());
        if !there {
            assert!(std::env::var("BOTTLE_TEST_DOCKER").as_deref() != Ok("require"), "dockerd is not installed");
            eprintln!("SKIP: no second engine: dockerd is not installed; BOTTLE_TEST_DOCKER=require to fail");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let groups = format!("bottle-test-{}", std::process::id());
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        // Its first process takes over what a killed engine leaves.
        command.args(["sh", "-c", "ip link set lo up; while :; do sleep 1; done"]);
        let holder = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let mut engine = Self { folder, groups, holder, engine: None };
        engine.begin();
        Some(engine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn host(&self) -> String {
        format!("unix://{}", self.path("engine.sock").display())
    }

    /// The first process in the namespaces.
    fn first(&self) -> String {
        let number = self.holder.id();
        let children = format!("/proc/{number}/task/{number}/children");
        wait_until("the namespaces are there", || {
            let first = std::fs::read_to_string(&children).ok()?.trim().to_owned();
            let own = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
            (!first.is_empty() && own(&first)? != own("self")?).then_some(first)
        })
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first(), "--net", "--mount", "--pid"]);
        command
    }

    fn begin(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = self.enter();
        // This machine's own settings are not for it.
        std::fs::write(self.path("daemon.json"), "{}").unwrap();
        command.arg("dockerd").arg("--config-file").arg(self.path("daemon.json"));
        command.args(["--storage-driver", "vfs", "--bridge", "none"]);
        command.args(["--cgroup-parent", &format!("/{}", self.groups), "--host", &self.host()]);
        for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(option).arg(self.path(name));
        }
        let mut engine = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        wait_until("the second engine answers", || {
            assert!(engine.try_wait().unwrap().is_none(), "the second engine does not start");
            let asked = Command::new("docker").args(["--host", &self.host(), "info"]).output().ok()?;
            asked.status.success().then_some(())
        });
        self.engine = Some(engine);
    }

    /// Kills the engine, and it alone.
    fn kill(&mut self) {
        let number = std::fs::read_to_string(self.path("pid")).unwrap();
        let mut command = self.enter();
        let killed = command.args(["sh", "-c", "kill -KILL $1", "sh", number.trim()]).status().unwrap();
        assert!(killed.success());
        self.engine.take().unwrap().wait().unwrap();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the second engine said:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        // The kernel ends everything in a namespace whose first process ends, and the holder takes that one along.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        if let Some(engine) = &mut self.engine {
            let _ = engine.wait();
        }
        let Ok(controllers) = std::fs::read_dir("/sys/fs/cgroup") else { return };
        for folder in controllers.flatten().map(|c| c.path()).chain([PathBuf::from("/sys/fs/cgroup")]) {
            remove_groups(&folder.join(&self.groups));
        }
    }
}

/// Control groups are removed one by one, the innermost first, when the last process has left them.
fn remove_groups(folder: &Path) {
    let Ok(inside) = std::fs::read_dir(folder) else { return };
    inside.flatten().filter(|e| e.path().is_dir()).for_each(|e| remove_groups(&e.path()));
    for _ in 0..100 {
        if std::fs::remove_dir(folder).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Processes that have the folder in their command line: the engine's own and those that it started.
fn processes_of(folder: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|e| Some((e.file_name(), std::fs::read(e.path().join("cmdline")).ok()?)));
    let found = lines.filter(|(_, line)| String::from_utf8_lossy(line).contains(folder));
    found.map(|(pid, _)| pid.to_string_lossy().into_owned()).collect()
}

#[test]
fn a_bottle_survives_the_death_of_its_engine_in_the_state_directory_alone() {
    // Says why there is none, and fails where there has to be one.
    if Site::new().is_none() {
        return;
    }
    let Some(mut engine) = Engine::start() else { return };
    let folder = engine.folder.path().display().to_string();
    let groups = engine.groups.clone();
    {
        let site = Site::on(&engine.host());
        site.bottle("dev", &format!("agent:\n  provider: shell\n  image: {}\n", site.hostile()));
        site.agent("coder", "dev");
        std::fs::write(site.work().join("given.txt"), "given\n").unwrap();
        // A program that is in every bottle and ends when its input does.
        let waiting = ["/.bottle/bottle-init", "agent"];

        let (bottle, child) = site.run("coder").attached(&waiting);
        wait_until("the agent runs", || site.launcher(&["ps"]).stdout.contains("running").then_some(()));
        engine.kill();
        let output = finish(child);
        assert_eq!(output.status, 125, "{output:#?}");
        assert!(output.stderr.contains("the engine lost the agent"), "{output:#?}");
        for left in ["container", "network", "the workspace", "launcher cleanup"] {
            assert!(output.stderr.contains(left), "{left}: {output:#?}");
        }
        bottle.wait_for_end();
        let dead = site.launcher(&["cleanup"]);
        assert_eq!(dead.status, 125, "there is no engine: {dead:#?}");
        assert!(bottle.dir().recorded().is_some(), "what is left is still known");
        assert_eq!(site.launcher(&["ps"]).status, 0, "the list is true without an engine");

        engine.begin();
        let swept = site.launcher(&["cleanup"]).ok();
        assert!(swept.stderr.contains("took back what was left of coder"), "{swept:#?}");
        site.assert_nothing_left();
        assert!(bottle.dir().workspace().exists(), "the work is at home");

        a_sweep_elsewhere_forgets_nothing(&site, &waiting);
    }
    drop(engine);
    wait_until("no process of the second engine is left", || processes_of(&folder).is_empty().then_some(()));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&folder), "{mounts}");
    assert!(!Path::new(&folder).exists(), "its folder is still there");
    assert!(!Path::new("/sys/fs/cgroup").join(&groups).exists());
}

/// A keeper dies, and the next commands are about another engine: what is on the bottle's own is not forgotten.
fn a_sweep_elsewhere_forgets_nothing(site: &Site, waiting: &[&str]) {
    let bottle = site.run("coder").detached(waiting);
    signal(bottle.keeper(), Signal::KILL);
    bottle.wait_for_end();
    let elsewhere = |args: &[&str]| {
        let mut command = site.command();
        // The engine of all other tests.
        command.env_remove("DOCKER_HOST").envs(std::env::var_os("DOCKER_HOST").map(|host| ("DOCKER_HOST", host)));
        bottle_tests::harness::Output::from(command.args(args).output().unwrap())
    };
    elsewhere(&["ps"]).ok();
    assert!(bottle.dir().recorded().is_some(), "forgotten by a sweep of another engine");
    assert!(!site.left().is_empty());
    let swept = elsewhere(&["cleanup"]).ok();
    assert!(swept.stderr.contains(&format!("took back what was left of {}", bottle.id())), "{swept:#?}");
    site.assert_nothing_left();
    assert!(bottle.dir().workspace().exists(), "the work is at home");
}
