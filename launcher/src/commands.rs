//! The subcommands: arguments in, calls to the rest, an outcome out. One file each.

use crate::cli::{Cli, Command};
use crate::engine::docker::Docker;
use crate::error::Failure;
use crate::exit::Exit;
use crate::keeper_socket;
use crate::state::{BottleDir, StateRoot};
use crate::ui::Ui;
use std::collections::BTreeMap;
use std::path::PathBuf;

pub mod attach;
pub mod audit;
pub mod cleanup;
pub mod demo;
pub mod doctor;
pub mod edit;
pub mod images;
pub mod init;
pub mod list;
pub mod logs;
pub mod pages;
pub mod proposals;
pub mod ps;
pub mod remotes;
pub mod resume;
pub mod run;
pub mod show;
pub mod stop;
pub mod verdicts;
pub mod work;

/// What every command has: the operator's environment, read once.
pub struct Here {
    /// Variables that are text.
    pub env: BTreeMap<String, String>,
    /// Where the operator stands.
    pub cwd: PathBuf,
    /// The printer.
    pub ui: Ui,
}

impl Here {
    /// Looks around.
    pub fn new() -> Result<Self, Failure> {
        let text =
            |(k, v): (std::ffi::OsString, std::ffi::OsString)| Some((k.into_string().ok()?, v.into_string().ok()?));
        let env: BTreeMap<_, _> = std::env::vars_os().filter_map(text).collect();
        let cwd = std::env::current_dir()
            .map_err(|e| Failure::usage(format!("the current directory cannot be used: {e}"), None))?;
        let ui = Ui::new(env.get("NO_COLOR").is_some_and(|v| !v.is_empty()));
        Ok(Self { env, cwd, ui })
    }

    /// The state directory.
    pub fn state(&self) -> Result<StateRoot, Failure> {
        StateRoot::open(&self.env).map_err(|e| {
            let hint = "make it a directory of yours, or set XDG_STATE_HOME to another place";
            Failure::launch(format!("the state directory cannot be used: {e}"), hint.to_owned())
        })
    }

    /// Ids of all bottles, living and ended.
    pub fn ids(&self, root: &StateRoot) -> Result<Vec<String>, Failure> {
        root.ids().map_err(|e| {
            let hint = "make it readable, or set XDG_STATE_HOME to another place";
            Failure::launch(format!("the state directory cannot be read: {e}"), hint.to_owned())
        })
    }

    /// The engine, as DOCKER_HOST says it.
    pub fn engine_name(&self) -> Option<String> {
        self.env.get("DOCKER_HOST").filter(|h| !h.is_empty()).cloned()
    }

    /// The engine.
    pub async fn engine(&self) -> Result<Docker, Failure> {
        let name = self.engine_name();
        Docker::connect(name.as_deref(), crate::plan::seccomp::profile).await.map_err(Failure::from)
    }

    /// The bottle that `id` names, in whole or by its beginning.
    pub fn bottle(&self, id: &str) -> Result<BottleDir, Failure> {
        let root = self.state()?;
        let ids = self.ids(&root)?;
        if ids.iter().any(|known| known == id) {
            return Ok(root.dir(id));
        }
        let like: Vec<_> = ids.iter().filter(|known| known.starts_with(id)).collect();
        match like.as_slice() {
            [one] => Ok(root.dir(one)),
            [] => Err(Failure::usage(
                format!("no bottle called {id:?} was launched"),
                "see `launcher ps --all`; `launcher run AGENT` launches one".to_owned(),
            )),
            several => {
                let names: Vec<_> = several.iter().map(|s| s.as_str()).collect();
                Err(Failure::usage(
                    format!("{id:?} may be {}", names.join(" or ")),
                    "write more of the name".to_owned(),
                ))
            }
        }
    }

    /// A connection to the keeper of a bottle.
    pub async fn keeper(&self, dir: &BottleDir) -> Result<(keeper_socket::Reader, keeper_socket::Writer), Failure> {
        let stream = keeper_socket::connect(&dir.socket()).await.map_err(|_| {
            Failure::usage(format!("the bottle {} is not running", dir.id()), "see `launcher ps --all`".to_owned())
        })?;
        Ok(keeper_socket::split(stream))
    }
}

/// Carries a command out.
pub fn dispatch(cli: Cli) -> Exit {
    if matches!(cli.command, Command::Keeper) {
        return crate::keeper::main();
    }
    let here = match Here::new() {
        Ok(here) => here,
        Err(failure) => {
            Ui::new(true).failure(&failure);
            return failure.exit;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            here.ui.failure(&Failure::launch(format!("no runtime: {error}"), None));
            return Exit::Launch;
        }
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(&here, args).await,
            Command::Resume(args) => resume::resume(&here, args).await,
            Command::Ps(args) => ps::ps(&here, &args).await,
            Command::Attach(args) => attach::attach(&here, &args.id).await,
            Command::Exec(args) => attach::exec(&here, &args.id, args.command).await,
            Command::Logs(args) => logs::logs(&here, &args).await,
            Command::Stop(args) => stop::stop(&here, &args).await,
            Command::Diff(args) => work::diff(&here, &args.id).await,
            Command::Take(args) => work::take(&here, &args).await,
            Command::Proposals(args) => proposals::proposals(&here, &args).await,
            Command::Approve(args) => verdicts::approve(&here, &args).await,
            Command::Reject(args) => verdicts::reject(&here, &args).await,
            Command::Allow(args) => verdicts::allow(&here, &args).await,
            Command::Revoke(args) => verdicts::revoke(&here, &args).await,
            Command::Audit(args) => audit::audit(&here, &args),
            Command::Cleanup(args) => cleanup::cleanup(&here, &args).await,
            Command::List(args) => list::list(&here, &args),
            Command::Check(args) => list::check(&here, &args),
            Command::Show(args) => show::show(&here, &args),
            Command::Init(args) => init::init(&here, &args),
            Command::Edit(args) => edit::edit(&here, &args),
            Command::Completions(args) => Ok(pages::completions(&here, &args)),
            Command::Man(args) => pages::man(&here, &args),
            Command::Schema(args) => Ok(pages::schema(&here, &args)),
            Command::Doctor(args) => doctor::doctor(&here, &args).await,
            Command::Images(args) => images::images(&here, args).await,
            Command::Demo(args) => demo::demo(&here, &args).await,
            // Taken care of above: a keeper has a runtime of its own.
            Command::Keeper => Ok(Exit::Usage),
        }
    });
    // A thread that waits for a key must not keep the command.
    runtime.shutdown_background();
    done.unwrap_or_else(|failure| {
        here.ui.wipe();
        here.ui.failure(&failure);
        failure.exit
    })
}
