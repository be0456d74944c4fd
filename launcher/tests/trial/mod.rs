//! A bottle's life on the engine in memory: a state directory, a workspace, a charge, and a keeper's way through.

// Each test file uses its part of it.
#![allow(dead_code)]

use launcher::commands::Here;
use launcher::engine::fake::{End, Fake, Script};
use launcher::engine::{EngineFacts, ImageFacts, Owner, Subnet};
use launcher::keeper::console::Console;
use launcher::keeper::{Charge, Shared, keep};
use launcher::keeper_socket::Ending;
use launcher::log::LogFile;
use launcher::manifest::host::{Host, HostPattern};
use launcher::manifest::{
    Agent, AgentSource, Bottle, Egress, Git, ImageSource, Limits, Remote, RemoteCredential, RemoteUpstream, Route,
    Runtime, TokenRef, Upstream, WorkspaceMode,
};
use launcher::plan::agent::agent_image;
use launcher::plan::build::Built;
use launcher::plan::sidecar::credential_name;
use launcher::plan::{Order, Resumed, SidecarImages};
use launcher::provider::Provider;
use launcher::state::{StateRoot, host_hash};
use launcher::stop::{Stopper, channel};
use launcher::ui::Ui;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

/// The bottle.
pub const ID: &str = "coder";

/// One try: a state directory, a workspace, an engine.
pub struct Trial {
    /// Where all of it is.
    pub dir: tempfile::TempDir,
    /// The engine.
    pub engine: Fake,
    /// What its keeper's tasks share, once it keeps.
    pub shared: OnceLock<Arc<Shared<Fake>>>,
    /// Has its bottle no route and no remote?
    pub bare: bool,
    /// Where the route's credential comes from.
    pub token_ref: TokenRef,
    /// Has it lived before, and was this Dockerfile approved then?
    pub dockerfile: Option<String>,
}

impl Trial {
    /// A fresh one, whose agent ends at once with status 3.
    pub fn new() -> Self {
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
        for image in ["agent:1", "pipelock:1", "cred-proxy:1", "git-gate:1", "supervise:1", "wall:1"] {
            engine.add_image(
                image,
                ImageFacts { id: image.to_owned(), command: command.clone(), ..ImageFacts::default() },
            );
        }
        engine.exec_script(|spec| match spec.argv.first().map(String::as_str) {
            Some("work") => Script { output: "done\n".into(), end: End::Code(3) },
            _ => Script { output: bytes::Bytes::new(), end: End::Code(0) },
        });
        let token_ref = TokenRef::Env("TOKEN".to_owned());
        Self { dir, engine, shared: OnceLock::new(), bare: false, token_ref, dockerfile: None }
    }

    /// What a command of its operator has.
    pub fn here(&self) -> Here {
        let state = self.dir.path().join("state").display().to_string();
        Here {
            env: BTreeMap::from([("XDG_STATE_HOME".to_owned(), state)]),
            cwd: self.dir.path().to_owned(),
            ui: Ui::new(true),
        }
    }

    /// Its state directory.
    pub fn root(&self) -> StateRoot {
        StateRoot::open(&self.here().env).unwrap()
    }

    /// Keeps a bottle from its launch to its end. `before` is told who can stop it.
    pub async fn keep(&self, before: impl FnOnce(&Fake, Stopper)) -> Ending {
        let session = match self.root().claim(ID).unwrap() {
            Some(session) => session,
            None => self.root().dir(ID).lock().unwrap().expect("nobody keeps it"),
        };
        let (stopper, stop) = channel();
        before(&self.engine, stopper.clone());
        let shared = Arc::new(Shared {
            engine: Arc::new(self.engine.clone()),
            console: Console::default(),
            stopper,
            log: Arc::new(LogFile::open(&session.dir.log()).unwrap()),
            phase: Mutex::new("launching"),
            agent: OnceLock::new(),
            desk: OnceLock::new(),
            sidecars: Mutex::default(),
            env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            owner: tokio::sync::Notify::new(),
        });
        let _ = self.shared.set(Arc::clone(&shared));
        let mut charge = charge(&self.root(), self.dir.path(), &self.token_ref);
        if self.bare {
            (charge.order.bottle.routes, charge.order.bottle.git) = (Vec::new(), Git::default());
            (charge.credentials, charge.remote_credentials) = Default::default();
        }
        if let Some(text) = &self.dockerfile {
            let built = Built::of(&charge.order, text, "agent:1").unwrap();
            charge.order.resumed = Some(Resumed { built: Some(built) });
            charge.image = agent_image(&charge.order);
            session.dir.begin_again().unwrap();
        }
        keep(&shared, &mut charge, &session, &stop).await
    }

    /// Nothing on the engine, and nothing in the state directory that a later launch would trip over.
    pub fn assert_clean(&self, what: &str) {
        assert_eq!(self.engine.left(), Vec::<String>::new(), "{what}");
        for id in self.root().ids().unwrap() {
            let dir = self.root().dir(&id);
            assert!(dir.recorded().is_none(), "{what}: the record of {id} is still there");
            assert!(!dir.is_living(), "{what}: {id} seems to live");
            assert!(dir.was_started(), "{what}: a bottle that never began has a folder");
        }
    }
}

/// One remote of each kind, so that git-gate is on every network that it can be on.
fn git() -> Git {
    let remote = |name: &str, upstream: &str, credential| Remote {
        name: name.to_owned(),
        upstream: RemoteUpstream::parse(upstream).unwrap(),
        credential,
        push: git_gate::config::Push::default(),
        exceptions: Vec::new(),
        line: 1,
    };
    let key = RemoteCredential::SshKey { identity_file: "key".into(), host_key: "ssh-ed25519 AAAA".to_owned() };
    let token = RemoteCredential::Bearer(TokenRef::Env("TOKEN".to_owned()));
    Git {
        user: None,
        remotes: vec![
            remote("app", "ssh://git@git.example/app.git", key),
            remote("lib", "https://lib.example/lib.git", token),
        ],
    }
}

fn charge(root: &StateRoot, dir: &Path, token_ref: &TokenRef) -> Charge {
    let route = Route {
        path: "/api/".to_owned(),
        upstream: Upstream { https: true, host: Host::parse("api.example").unwrap(), port: 443, base: String::new() },
        auth: cred_proxy::config::Auth::Bearer,
        token_ref: Some(token_ref.clone()),
        inspect: true,
        roles: Vec::new(),
        allow: vec!["GET /**".to_owned()],
        line: 1,
    };
    let bottle = Bottle {
        name: "dev".to_owned(),
        file: PathBuf::from("dev.md"),
        agent: AgentSource {
            provider: Provider { name: "shell".to_owned(), ..Provider::default() },
            image: ImageSource::Reference("agent:1".to_owned()),
            user: None,
        },
        env: BTreeMap::new(),
        egress: Egress { allowlist: vec![HostPattern::parse("files.example").unwrap()], ..Egress::default() },
        routes: vec![route],
        git: git(),
        proxy_limits: cred_proxy::config::Limits::default(),
        supervise: true,
        limits: Limits::default(),
        runtime: Runtime::Auto,
        workspace: WorkspaceMode::Copy,
        skills: Vec::new(),
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
                git_gate: "git-gate:1".to_owned(),
                supervise: "supervise:1".to_owned(),
                wall: "wall:1".to_owned(),
            },
            attempt: 0,
            resumed: None,
        },
        pinned: true,
        engine: None,
        image: "agent:1".to_owned(),
        credentials: BTreeMap::from([("/api/".to_owned(), "a-canary-credential".to_owned())]),
        remote_credentials: ["app", "lib"].map(|name| (credential_name(name), format!("a-canary-of-{name}"))).into(),
        credentials_read: 0,
        env: Vec::new(),
        init: dir.join("init"),
        base: None,
        on_proposal: Vec::new(),
    }
}
