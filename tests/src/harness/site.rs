//! An operator's machine in miniature: configuration, state and workspace in a temporary folder, and the launcher.

use super::bottle::Run;
use super::output::Output;
use super::screen::Screen;
use super::terminal::Terminal;
use crate::client_image;
use launcher::commands::demo::{stand_in, world_images};
use launcher::engine::{Engine, EngineError, Observed, docker::Docker};
use launcher::state::{StateRoot, host_hash};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

/// What every site of a process shares: it is made once, and images outlive the process.
struct Ground {
    pipelock: String,
    mint: PathBuf,
    agent: String,
}

/// An operator's machine in miniature.
pub struct Site {
    home: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    engine: Docker,
    /// `DOCKER_HOST` of everything that the site runs.
    host: Option<String>,
    ground: Arc<Ground>,
}

impl Site {
    /// A fresh one. `None`: no engine answers, which is said on standard error; with `BOTTLE_TEST_DOCKER=require` that is
    /// a panic.
    pub fn new() -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a test's process may have a thread");
        let host = std::env::var("DOCKER_HOST").ok();
        let engine = match runtime.block_on(Docker::connect(host.as_deref(), launcher::plan::seccomp::profile)) {
            Ok(engine) => engine,
            Err(error) => {
                absent(&error);
                return None;
            }
        };
        let ground = ground(&runtime, &engine);
        Some(Self::furnished(runtime, engine, host, ground))
    }

    /// A fresh one on another engine, which is given the images first.
    pub fn on(host: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a test's process may have a thread");
        let engine = runtime.block_on(Docker::connect(Some(host), launcher::plan::seccomp::profile));
        let engine = engine.expect("the other engine answers");
        if let Some(real) = real_pipelock() {
            copy_image(&real, host);
        }
        let ground = Arc::new(lay(&runtime, &engine));
        Self::furnished(runtime, engine, Some(host.to_owned()), ground)
    }

    fn furnished(runtime: tokio::runtime::Runtime, engine: Docker, host: Option<String>, ground: Arc<Ground>) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder can be made");
        let site = Self { home, runtime, engine, host, ground };
        for folder in ["config/bottle/bottles", "config/bottle/agents", "state", "work"] {
            std::fs::create_dir_all(site.path(folder)).expect("a folder in a temporary folder can be made");
        }
        site.launcher(&["images", "pin", &site.ground.pipelock]).ok();
        let config = format!("pipelock_image = \"{}\"\n", site.ground.pipelock);
        std::fs::write(site.path("config/bottle/config.toml"), config).expect("config.toml can be written");
        site
    }

    /// A path in the site's folder.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.home.path().join(inside)
    }

    /// The directory in which the launcher is run: what comes along as the workspace.
    pub fn work(&self) -> PathBuf {
        self.path("work")
    }

    /// The engine.
    pub fn engine(&self) -> &Docker {
        &self.engine
    }

    /// Runs a future of the engine.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The state directory.
    pub fn state(&self) -> StateRoot {
        let env = BTreeMap::from([("XDG_STATE_HOME".to_owned(), self.path("state").display().to_string())]);
        StateRoot::open(&env).expect("the site's state directory can be made")
    }

    /// Writes a bottle's manifest: `yaml` is its frontmatter.
    pub fn bottle(&self, name: &str, yaml: &str) {
        self.manifest(&format!("bottles/{name}.md"), yaml, "");
    }

    /// Writes an agent's manifest for a bottle.
    pub fn agent(&self, name: &str, bottle: &str) {
        let yaml = format!("description: a test's agent\nbottle: {bottle}\n");
        self.manifest(&format!("agents/{name}.md"), &yaml, "");
    }

    /// Writes a manifest.
    pub fn manifest(&self, inside: &str, yaml: &str, body: &str) {
        let text = format!("---\n{}\n---\n{body}", yaml.trim_end());
        std::fs::write(self.path("config/bottle").join(inside), text).expect("a manifest can be written");
    }

    /// The launcher as a command that stands in [`Site::work`] and knows nothing of the real operator.
    pub fn command(&self) -> Command {
        self.dressed(Command::new(binary("it-launcher")))
    }

    /// The launcher on a terminal of its own, as a person has it.
    #[track_caller]
    pub fn terminal(&self, args: &[&str]) -> Terminal {
        // The terminal is to be its controlling one, which takes a system call between fork and exec.
        let mut command = self.dressed(Command::new("setsid"));
        command.arg("--ctty").arg(binary("it-launcher")).args(args).env("TERM", "xterm");
        Terminal::start(command)
    }

    /// The launcher on a screen, as a person looks at it.
    #[track_caller]
    pub fn screen(&self, args: &[&str]) -> Screen {
        let mut command = self.command();
        command.args(args).env("TERM", "xterm-256color").env("LANG", "C.UTF-8");
        Screen::start(&command)
    }

    fn dressed(&self, mut command: Command) -> Command {
        command.current_dir(self.work()).env_clear().stdin(Stdio::null());
        command.envs(self.host.as_ref().map(|host| ("DOCKER_HOST", host)));
        // Rust's own switches too: without them a launcher that builds its sidecars may install another toolchain.
        let rust =
            ["CARGO", "CARGO_HOME", "CARGO_TARGET_DIR", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "RUSTUP_AUTO_INSTALL"];
        for name in ["PATH"].into_iter().chain(rust) {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        // Rust's own tools look for their home in HOME where no variable names it.
        if std::env::var_os("CARGO_HOME").is_none() {
            command.envs(std::env::var_os("HOME").map(|home| ("CARGO_HOME", PathBuf::from(home).join(".cargo"))));
        }
        if std::env::var_os("RUSTUP_HOME").is_none() {
            command.envs(std::env::var_os("HOME").map(|home| ("RUSTUP_HOME", PathBuf::from(home).join(".rustup"))));
        }
        command.env("HOME", self.home.path());
        command.env("XDG_CONFIG_HOME", self.path("config")).env("XDG_STATE_HOME", self.path("state"));
        command
    }

    /// Runs the launcher to its end.
    pub fn launcher(&self, args: &[&str]) -> Output {
        self.command().args(args).output().expect("the launcher can be run").into()
    }

    /// Begins a `launcher run` of an agent.
    pub fn run(&self, agent: &str) -> Run<'_> {
        Run::new(self, agent)
    }

    /// The image of real clients, made once and kept on the engine.
    pub fn clients(&self) -> String {
        client_image::ensure().expect("the image of real clients can be made")
    }

    /// The larger image of real clients, with npm.
    pub fn clients_with_npm(&self) -> String {
        client_image::ensure_with_npm().expect("the image of real clients with npm can be made")
    }

    /// The image of the hostile agent: one static program and nothing else.
    pub fn hostile(&self) -> String {
        self.ground.agent.clone()
    }

    /// pipelock's image: the real one that `BOTTLE_TEST_PIPELOCK` names, or the double.
    pub fn pipelock(&self) -> String {
        self.ground.pipelock.clone()
    }

    pub(super) fn mint(&self) -> PathBuf {
        self.ground.mint.clone()
    }

    /// Everything on the engine that carries this site's labels.
    #[track_caller]
    pub fn observe(&self) -> Observed {
        self.looked().expect("the engine can be looked at")
    }

    fn looked(&self) -> Result<Observed, EngineError> {
        self.wait(self.engine.observe(&host_hash(), &self.state().hash()))
    }

    /// Panics if anything of this site's bottles is on the engine.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let left = self.left();
        assert!(left.is_empty(), "left on the engine: {left:?}");
    }

    /// Names of what is on the engine and belongs to a bottle of this site; the worlds of tests are not bottles.
    pub fn left(&self) -> Vec<String> {
        let observed = self.observe();
        let containers = observed.containers.iter().filter(|c| !c.role.starts_with("world")).map(|c| c.name.clone());
        let networks = observed.networks.iter().filter(|n| !n.role.starts_with("world")).map(|n| n.name.clone());
        containers.chain(networks).collect()
    }

    /// What every bottle of this site said, for a test that fails.
    fn tell(&self) {
        for id in self.state().ids().unwrap_or_default() {
            let dir = self.state().dir(&id);
            eprintln!("--- {id}: {}", dir.path().display());
            for file in ["plan.json", "metadata.json", "log.jsonl"] {
                if let Ok(text) = std::fs::read_to_string(dir.path().join(file)) {
                    let tail: Vec<&str> = text.lines().rev().take(60).collect();
                    eprintln!("{file}:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
                }
            }
        }
        eprintln!("--- on the engine: {:#?}", self.looked());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        for id in self.state().ids().unwrap_or_default() {
            if self.state().dir(&id).socket().exists() {
                // Most have ended by themselves; the sweep below finds what has not.
                let _ = self.command().args(["stop", "--now", &id]).output();
            }
        }
        let swept = self.command().arg("cleanup").output();
        if std::thread::panicking() {
            return;
        }
        let left = self.left();
        if !left.is_empty() {
            panic!("a site left something on the engine: {left:?} ({swept:?})");
        }
    }
}

fn ground(runtime: &tokio::runtime::Runtime, engine: &Docker) -> Arc<Ground> {
    static GROUND: OnceLock<Arc<Ground>> = OnceLock::new();
    Arc::clone(GROUND.get_or_init(|| Arc::new(lay(runtime, engine))))
}

/// The image that the tests are to use in place of the double.
fn real_pipelock() -> Option<String> {
    std::env::var("BOTTLE_TEST_PIPELOCK").ok().filter(|p| !p.is_empty())
}

fn lay(runtime: &tokio::runtime::Runtime, engine: &Docker) -> Ground {
    let quiet = |_: &str| {};
    let made = runtime.block_on(async {
        let pipelock = match real_pipelock() {
            Some(real) => real,
            None => {
                eprintln!(
                    "these tests use the double of pipelock; BOTTLE_TEST_PIPELOCK=<image> runs them on the real one"
                );
                stand_in(engine, &quiet).await?;
                launcher::commands::demo::STAND_IN.to_owned()
            }
        };
        let (agent, mint) = world_images(engine, &quiet).await?;
        Ok::<_, launcher::error::Failure>(Ground { pipelock, mint, agent })
    });
    made.unwrap_or_else(|failure| panic!("the images of the tests cannot be made: {failure:?}"))
}

/// Copies an image from the engine of the tests to another one.
fn copy_image(image: &str, to: &str) {
    let mut saving =
        Command::new("docker").args(["save", image]).stdout(Stdio::piped()).spawn().expect("docker can be run");
    let archive = saving.stdout.take().expect("its output is a pipe");
    let loaded = Command::new("docker").args(["--host", to, "load"]).stdin(archive).output();
    let loaded: Output = loaded.expect("docker can be run").into();
    loaded.ok();
    assert!(saving.wait().is_ok_and(|status| status.success()), "{image} cannot be saved");
}

fn absent(error: &EngineError) {
    let why = launcher::error::chain(error);
    assert!(std::env::var("BOTTLE_TEST_DOCKER").as_deref() != Ok("require"), "no engine: {why}");
    eprintln!("SKIP: no engine; BOTTLE_TEST_DOCKER=require to fail ({why})");
}

/// A binary of this package, beside the test that asks for it.
pub(super) fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    let folders = own.ancestors().skip(1).map(Path::to_path_buf);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not beside {}: build the whole package", own.display()))
}
