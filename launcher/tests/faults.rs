//! A fault at every call of a bottle's life, on the engine in memory: an error before the effect, an error after it (the
//! answer is lost), a panic, a stop of each level, and the death of the keeper. After each, nothing is left; after a
//! death, nothing is left once the next command has swept.

#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use launcher::commands::{Here, cleanup};
use launcher::engine::fake::{End, Fake, Fault, How, Script};
use launcher::engine::{EngineFacts, ImageFacts, Owner, Subnet};
use launcher::exit::Exit;
use launcher::keeper::console::Console;
use launcher::keeper::{Charge, Shared, keep};
use launcher::keeper_socket::Ending;
use launcher::log::LogFile;
use launcher::manifest::host::{Host, HostPattern};
use launcher::manifest::{
    Agent, AgentSource, Bottle, Egress, ImageSource, Limits, Route, Runtime, TokenRef, Upstream, WorkspaceMode,
};
use launcher::plan::{Order, SidecarImages};
use launcher::state::{StateRoot, host_hash};
use launcher::stop::{Level, Stopper, channel};
use launcher::ui::Ui;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

const ID: &str = "coder";

/// One try: a state directory, a workspace, an engine.
struct Trial {
    dir: tempfile::TempDir,
    engine: Fake,
}

impl Trial {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        std::fs::write(dir.path().join("work/file"), "content").unwrap();
        std::fs::write(dir.path().join("init"), "a static program").unwrap();
        let engine = Fake::new();
        engine.set_facts(EngineFacts {
            version: "20.10.24".to_owned(),
            api: "1.41".to_owned(),
            ..EngineFacts::default()
        });
        let command = vec!["work".to_owned()];
        for image in ["agent:1", "pipelock:1", "cred-proxy:1", "wall:1"] {
            engine.add_image(
                image,
                ImageFacts { id: image.to_owned(), command: command.clone(), ..ImageFacts::default() },
            );
        }
        engine.exec_script(|spec| match spec.argv.first().map(String::as_str) {
            Some("work") => Script { output: "done\n".into(), end: End::Code(3) },
            _ => Script { output: bytes::Bytes::new(), end: End::Code(0) },
        });
        Self { dir, engine }
    }

    fn here(&self) -> Here {
        let state = self.dir.path().join("state").display().to_string();
        Here {
            env: BTreeMap::from([("XDG_STATE_HOME".to_owned(), state)]),
            cwd: self.dir.path().to_owned(),
            ui: Ui::new(true),
        }
    }

    fn root(&self) -> StateRoot {
        StateRoot::open(&self.here().env).unwrap()
    }

    /// Keeps a bottle from its launch to its end. `before` is told who can stop it.
    async fn keep(&self, before: impl FnOnce(&Fake, Stopper)) -> Ending {
        let session = self.root().claim(ID).unwrap().expect("a fresh state directory");
        let (stopper, stop) = channel();
        before(&self.engine, stopper.clone());
        let shared = Arc::new(Shared {
            engine: Arc::new(self.engine.clone()),
            console: Console::default(),
            stopper,
            log: Arc::new(LogFile::open(&session.dir.log()).unwrap()),
            phase: Mutex::new("launching"),
            agent: OnceLock::new(),
            sidecars: Mutex::default(),
            env: BTreeMap::new(),
            owner: tokio::sync::Notify::new(),
        });
        let mut charge = charge(&self.root(), self.dir.path());
        keep(&shared, &mut charge, &session, &stop).await
    }

    /// Nothing on the engine, and nothing in the state directory that a later launch would trip over.
    fn assert_clean(&self, what: &str) {
        assert_eq!(self.engine.left(), Vec::<String>::new(), "{what}");
        for id in self.root().ids().unwrap() {
            let dir = self.root().dir(&id);
            assert!(dir.recorded().is_none(), "{what}: the record of {id} is still there");
            assert!(!dir.is_living(), "{what}: {id} seems to live");
            assert!(dir.was_started(), "{what}: a bottle that never began has a folder");
        }
    }
}

fn charge(root: &StateRoot, dir: &Path) -> Charge {
    let route = Route {
        path: "/api/".to_owned(),
        upstream: Upstream { https: true, host: Host::parse("api.example").unwrap(), port: 443, base: String::new() },
        auth: cred_proxy::config::Auth::Bearer,
        token_ref: Some(TokenRef::Env("TOKEN".to_owned())),
        inspect: true,
        roles: Vec::new(),
        allow: vec!["GET /**".to_owned()],
        line: 1,
    };
    let bottle = Bottle {
        name: "dev".to_owned(),
        file: PathBuf::from("dev.md"),
        agent: AgentSource {
            provider: "shell".to_owned(),
            image: ImageSource::Reference("agent:1".to_owned()),
            user: None,
        },
        env: BTreeMap::new(),
        egress: Egress { allowlist: vec![HostPattern::parse("files.example").unwrap()], ..Egress::default() },
        routes: vec![route],
        proxy_limits: cred_proxy::config::Limits::default(),
        supervise: false,
        limits: Limits::default(),
        runtime: Runtime::Auto,
        workspace: WorkspaceMode::Copy,
    };
    let agent = Agent {
        name: ID.to_owned(),
        file: PathBuf::from("coder.md"),
        bottle: None,
        description: String::new(),
        prompt: String::new(),
        skills: Vec::new(),
    };
    Charge {
        order: Order {
            owner: Owner { id: ID.to_owned(), host: host_hash(), state: root.hash(), agent: ID.to_owned() },
            agent,
            bottle,
            command: Vec::new(),
            prompt: Some(String::new()),
            workspace: Some(dir.join("work")),
            subnet_pool: Subnet::parse("10.213.0.0/16").unwrap(),
            images: SidecarImages {
                pipelock: "pipelock:1".to_owned(),
                cred_proxy: "cred-proxy:1".to_owned(),
                wall: "wall:1".to_owned(),
            },
            attempt: 0,
        },
        pinned: true,
        engine: None,
        image: "agent:1".to_owned(),
        credentials: BTreeMap::from([("/api/".to_owned(), "a-canary-credential".to_owned())]),
        credentials_read: 0,
        env: Vec::new(),
        init: dir.join("init"),
    }
}

/// The calls of a life without faults, by name.
async fn calls() -> Vec<&'static str> {
    let trial = Trial::new();
    let ending = trial.keep(|_, _| {}).await;
    assert_eq!(ending.exit, Exit::Agent(3), "{ending:?}");
    assert_eq!(ending.leftovers, Vec::<String>::new());
    trial.assert_clean("a life without faults");
    trial.engine.log()
}

#[tokio::test]
async fn a_life_has_calls_to_break() {
    let calls = calls().await;
    assert!(calls.len() > 30, "{calls:?}");
}

#[tokio::test]
async fn a_lost_call_or_answer_leaves_nothing_wherever_it_is() {
    for at in 0..calls().await.len() {
        for how in [How::ErrorBefore, How::ErrorAfter] {
            let trial = Trial::new();
            let what = format!("{how:?} at call {at}");
            let ending = trial.keep(|engine, _| engine.fault(Fault { at, how })).await;
            assert_eq!(ending.leftovers, Vec::<String>::new(), "{what}: {ending:?}");
            trial.assert_clean(&what);
        }
    }
}

#[tokio::test]
async fn a_panic_leaves_nothing_wherever_it_is() {
    for at in 0..calls().await.len() {
        let trial = Trial::new();
        let what = format!("panic at call {at}");
        let ending = trial.keep(|engine, _| engine.fault(Fault { at, how: How::Panic })).await;
        assert_eq!(ending.leftovers, Vec::<String>::new(), "{what}: {ending:?}");
        trial.assert_clean(&what);
    }
}

#[tokio::test]
async fn a_stop_leaves_nothing_wherever_it_comes() {
    for at in 0..calls().await.len() {
        for level in [Level::Graceful, Level::Now] {
            let trial = Trial::new();
            let what = format!("{level:?} at call {at}");
            let raise = |engine: &Fake, stopper: Stopper| {
                engine.on_call(move |n, _| {
                    if n == at {
                        stopper.raise(level);
                    }
                });
            };
            let ending = trial.keep(raise).await;
            assert_eq!(ending.leftovers, Vec::<String>::new(), "{what}: {ending:?}");
            trial.assert_clean(&what);
        }
    }
}

#[tokio::test]
async fn the_death_of_a_keeper_leaves_nothing_once_the_next_command_has_swept() {
    for at in 0..calls().await.len() {
        let trial = Arc::new(Trial::new());
        let what = format!("death at call {at}");
        let (died, dead) = tokio::sync::oneshot::channel();
        let died = Mutex::new(Some(died));
        let kept = tokio::spawn({
            let trial = Arc::clone(&trial);
            async move {
                let die = move |n: usize, _: &'static str| {
                    if n == at
                        && let Some(died) = died.lock().unwrap().take()
                    {
                        let _ = died.send(());
                    }
                };
                trial.keep(|engine, _| engine.on_call(die)).await
            }
        });
        // The call itself takes effect; whatever would have come after it does not.
        if dead.await.is_ok() {
            kept.abort();
        }
        let _ = kept.await;
        trial.engine.on_call(|_, _| {});
        cleanup::sweep_all(&trial.here(), &trial.engine, "the engine in memory").await.unwrap();
        trial.assert_clean(&what);
    }
}

#[tokio::test]
async fn no_credential_is_in_what_the_engine_keeps() {
    let trial = Trial::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let look = Arc::clone(&seen);
    let engine = trial.engine.clone();
    let ending = trial
        .keep(|fake, _| {
            fake.on_call(move |_, name| {
                if name == "exec" {
                    for role in ["agent", "pipelock", "route-pipelock", "cred-proxy", "wall"] {
                        let container = format!("bottle-{ID}-{role}");
                        let spec = engine.spec(&container).map(|s| serde_json::to_string(&s).unwrap());
                        let input = String::from_utf8_lossy(&engine.input(&container)).into_owned();
                        look.lock().unwrap().push((role, spec, input, engine.archives(&container)));
                    }
                }
            });
        })
        .await;
    assert_eq!(ending.exit, Exit::Agent(3));
    let seen = seen.lock().unwrap();
    assert!(!seen.is_empty());
    for (role, spec, input, archives) in seen.iter() {
        let spec = spec.as_ref().unwrap_or_else(|| panic!("no container for {role}"));
        assert!(!spec.contains("a-canary-credential"), "{role}: {spec}");
        assert_eq!(input.contains("a-canary-credential"), *role == "cred-proxy", "{role}");
        for (_, bytes) in archives {
            assert!(!bytes.windows(19).any(|w| w == b"a-canary-credential"), "{role}");
        }
    }
}
