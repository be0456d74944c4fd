//! `run`: from an agent's name to a bottle that somebody has said yes to, and then a keeper's client until the end.

use super::Here;
use crate::attach::{self, Part, Parted};
use crate::cli::{self, Output, Run};
use crate::credentials;
use crate::engine::{Engine, Owner, docker::Docker};
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::images::{self, Pipelock, Trust};
use crate::keeper::{Charge, Greeting, table, taken};
use crate::keeper_socket::{Hello, connect, split};
use crate::manifest::catalog;
use crate::manifest::load::{Loaded, load};
use crate::manifest::places::Places;
use crate::manifest::{EnvValue, WorkspaceMode};
use crate::plan::{self, Facts, Order, print};
use crate::state::{self, BottleDir};
use crate::workspace;
use cred_proxy::Secret;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// Agents that a hint names.
const NAMED_MAX: usize = 8;

/// Runs an agent.
pub async fn run(here: &Here, args: Run) -> Result<Exit, Failure> {
    let Some(agent) = args.agent.as_deref() else { return Err(nobody(here)) };
    let loaded = loaded(here, agent, &args)?;
    let mut order = order(here, &args, &loaded)?;
    if args.launch.dry_run {
        return dry_run(here, &args, order).await;
    }
    let keys = Keys::read(here, &order)?;
    let engine = here.engine().await?;
    super::cleanup::sweep_quietly(here, &engine).await?;
    let facts = facts(&engine, &order).await?;
    choose_id(here, &args, &mut order, &facts)?;
    launch(here, &args.launch, &loaded, (order, keys, args.name.as_deref()), (&engine, facts)).await
}

/// What opens the doors of a bottle, and when it was read.
pub struct Keys {
    credentials: BTreeMap<String, String>,
    remote_credentials: BTreeMap<String, String>,
    credentials_read: u64,
}

impl Keys {
    /// Reads all that an order's routes and remotes need.
    pub fn read(here: &Here, order: &Order) -> Result<Self, Failure> {
        Ok(Self {
            credentials: route_credentials(here, order)?,
            remote_credentials: super::remotes::credentials(here, order)?,
            credentials_read: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        })
    }
}

/// Shows an order, asks, makes images ready, and starts a keeper for it, under this name where one is asked for; stays with the
/// bottle to its end.
pub async fn launch(
    here: &Here,
    args: &cli::Launch,
    loaded: &Loaded,
    (mut order, keys, name): (Order, Keys, Option<&str>),
    (engine, facts): (&Docker, Facts),
) -> Result<Exit, Failure> {
    let reference = images::pipelock_reference(args.pipelock_image.as_deref(), loaded.user.pipelock_image.as_deref())?;
    let config = places(here)?.config;
    let progress = |text: &str| here.ui.progress(text);
    let pipelock = images::pipelock(engine, &reference, &config, &progress).await?;
    here.ui.wipe();
    allowed(here, args, &order, &facts, &pipelock, &config)?;
    let env = agent_env(here, &order)?;

    let ready = images::ready(engine, &pipelock.id, images::Wanted::of(&order.bottle), &progress).await?;
    order.images = ready.images.clone();
    let base = images::agent(engine, &order, &progress).await?;
    let predicted = super::resume::fit(&mut order, &base)?;
    here.ui.wipe();
    // Planned again with everything known: what cannot be planned is said before a keeper begins, which asks the engine anew.
    let image = plan::agent::agent_image(&order);
    let agent_image = match predicted {
        Some(predicted) => Some(predicted),
        None => engine.image(&image).await?,
    };
    let known = Facts { agent_image, ..facts };
    plan::plan(&order, &known).map_err(|e| Failure::launch(e.to_string(), e.hint()))?;
    let charge = Charge {
        image,
        pinned: name.is_some(),
        // The address itself: what DOCKER_HOST or the current context says may be another by the time of a sweep.
        engine: Some(engine.address().to_string()),
        credentials: keys.credentials,
        remote_credentials: keys.remote_credentials,
        credentials_read: keys.credentials_read,
        env,
        base: None,
        init: ready.init,
        on_proposal: loaded.user.on_proposal.clone(),
        order,
    };
    let dir = start_keeper(here, &charge)?;
    follow(here, args, &dir).await
}

/// Where manifests are.
pub fn places(here: &Here) -> Result<Places, Failure> {
    places_at(here, &here.cwd)
}

/// Where manifests are for who stands in a directory.
pub fn places_at(here: &Here, directory: &Path) -> Result<Places, Failure> {
    let env = here.env.iter().map(|(k, v)| (k.into(), v.into())).collect();
    Places::from_env(&env, directory).map_err(|e| Failure::usage(chain(&e), None))
}

/// The error for a run that names no agent: it says whom one could name.
fn nobody(here: &Here) -> Failure {
    let listed = places(here).map(|places| catalog::list(&places).agents).unwrap_or_default();
    let names: Vec<_> = listed.iter().filter(|a| !a.hidden).take(NAMED_MAX).map(|a| a.name.as_str()).collect();
    let hint = match names.as_slice() {
        [] => "there are none yet: `launcher init` writes a first one, and `launcher demo` needs none".to_owned(),
        [one] => format!("launcher run {one}"),
        [first, ..] => format!("launcher run {first}; there are: {}", names.join(", ")),
    };
    Failure::usage("no agent is named", hint)
}

fn loaded(here: &Here, agent: &str, args: &Run) -> Result<Loaded, Failure> {
    let loaded = load(&places(here)?, agent, args.bottle.as_deref())?;
    loaded.warnings.iter().for_each(|warning| here.ui.warn(warning));
    Ok(loaded)
}

fn order(here: &Here, args: &Run, loaded: &Loaded) -> Result<Order, Failure> {
    let root = here.state()?;
    if let Some(name) = args.name.as_deref().filter(|n| !state::is_id(n)) {
        return Err(Failure::usage(
            format!("{name:?} cannot be a bottle's name"),
            "begin with a letter and use lower-case letters, digits and hyphens, 40 at most".to_owned(),
        ));
    }
    let copies = loaded.bottle.workspace == WorkspaceMode::Copy && !args.no_workspace;
    if copies {
        not_everything(here, &places(here)?.config)?;
    }
    Ok(Order {
        owner: Owner {
            id: args.name.clone().unwrap_or_else(|| loaded.agent.name.clone()),
            host: state::host_hash(),
            state: root.hash(),
            agent: loaded.agent.name.clone(),
        },
        agent: loaded.agent.clone(),
        bottle: loaded.bottle.clone(),
        command: args.launch.command.clone(),
        prompt: args.launch.prompt(),
        workspace: copies.then(|| here.cwd.clone()),
        subnet_pool: loaded.user.subnet_pool,
        images: images::references(),
        attempt: 0,
        resumed: None,
    })
}

/// A home directory is no workspace: it holds the operator's keys, and the manifests with the bottles' credentials.
fn not_everything(here: &Here, config: &Path) -> Result<(), Failure> {
    let home = here.env.get("HOME").map(PathBuf::from).unwrap_or_default();
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let cwd = real(&here.cwd);
    let inside = |path: &Path| !path.as_os_str().is_empty() && real(path).starts_with(&cwd);
    if inside(&home) || inside(config) {
        return Err(Failure::usage(
            format!("{} holds your home directory or your bottles: it cannot be an agent's workspace", cwd.display()),
            "go into the directory that the agent should work in, or say --no-workspace".to_owned(),
        ));
    }
    Ok(())
}

/// What only an engine knows is unknown where none answers.
async fn dry_run(here: &Here, args: &Run, mut order: Order) -> Result<Exit, Failure> {
    let facts = match here.engine().await {
        Ok(engine) => facts(&engine, &order).await.unwrap_or_default(),
        Err(_) => Facts::default(),
    };
    choose_id(here, args, &mut order, &facts)?;
    print_plan(here, &args.launch, &order, &facts)
}

/// Prints the plan of an order, and launches nothing.
pub fn print_plan(here: &Here, args: &cli::Launch, order: &Order, facts: &Facts) -> Result<Exit, Failure> {
    let plan = plan::plan(order, facts).map_err(|e| Failure::launch(e.to_string(), e.hint()))?;
    let text = match args.output {
        Output::Text => print::text(&plan),
        Output::Json => print::json(&plan),
    };
    here.ui.data(&text);
    Ok(Exit::Success)
}

/// What an order's plan must know of an engine.
pub async fn facts(engine: &Docker, order: &Order) -> Result<Facts, Failure> {
    let reference = plan::agent::agent_image(order);
    let (engine_facts, agent_image) = tokio::try_join!(engine.facts(), engine.image(&reference))?;
    Ok(Facts { engine: Some(engine_facts), agent_image })
}

/// The name it will have: the one asked for, or the first that is free here and on the engine.
fn choose_id(here: &Here, args: &Run, order: &mut Order, facts: &Facts) -> Result<(), Failure> {
    let root = here.state()?;
    let ids = here.ids(&root)?;
    let on_engine = |id: &str| {
        // A bottle that is just going has no containers any more, and networks still.
        let names = plan::Names::of(id);
        let taken = |e: &crate::engine::EngineFacts| {
            let networks = [&names.internal, &names.egress, &names.routes];
            e.containers.contains(&names.agent) || networks.iter().any(|n| e.networks.contains_key(*n))
        };
        facts.engine.as_ref().is_some_and(taken)
    };
    let free = |id: &String| !ids.contains(id) && !on_engine(id);
    let chosen = match &args.name {
        Some(name) => Some(name.clone()).filter(free),
        None => state::candidates(&order.agent.name).find(free),
    };
    order.owner.id = chosen.ok_or_else(|| taken(&order.owner.id))?;
    Ok(())
}

/// Credentials of the routes, each read where the manifest says; a missing one names its line.
fn route_credentials(here: &Here, order: &Order) -> Result<BTreeMap<String, String>, Failure> {
    let mut found = BTreeMap::new();
    let routes = &order.bottle.routes;
    for table::Source { from, names } in table::sources(routes) {
        let secret = credentials::read(&from, &here.env).map_err(|error| {
            let path = names.first().map_or("", String::as_str);
            let line = routes.iter().find(|route| route.path == path).map_or(0, |route| route.line);
            let place = format!("{}:{line}", order.bottle.file.display());
            Failure::usage(
                format!("route {path} has no credential ({place}): {}", chain(&error)),
                format!("set it, or change `token_ref` of the route; it is {from}"),
            )
        })?;
        found.extend(names.into_iter().map(|name| (name, secret.expose().to_owned())));
    }
    Ok(found)
}

/// The agent's own environment, its questions asked on the operator's terminal.
fn agent_env(here: &Here, order: &Order) -> Result<Vec<(String, String)>, Failure> {
    let mut asked: BTreeMap<String, Secret> = BTreeMap::new();
    for (name, value) in &order.bottle.env {
        if let EnvValue::Ask(question) = value {
            let file = order.bottle.file.display();
            let answer = here.ui.ask_secret(question).ok_or_else(|| {
                Failure::usage(
                    format!("the variable {name} is asked for ({file}), and there is no answer"),
                    format!(
                        "answer on a terminal, or take it from the environment: {name}: ${{{name}}} in the manifest"
                    ),
                )
            })?;
            asked.insert(name.clone(), answer);
        }
    }
    let mut env = order.bottle.agent.provider.env.clone();
    env.extend(plan::roles::environment(&order.bottle.routes));
    if let Some(term) = here.env.get("TERM").filter(|_| attach::terminal().is_some()) {
        env.insert("TERM".to_owned(), term.clone());
    }
    for (name, value) in &order.bottle.env {
        let secret = credentials::value(name, value, &here.env, &asked).map_err(|error| {
            let file = order.bottle.file.display();
            Failure::usage(
                format!("the agent's variable {name} has no value ({file}): {}", chain(&error)),
                format!("set it, or take {name} out of `env` in the bottle's manifest"),
            )
        })?;
        env.insert(name.clone(), secret.expose().to_owned());
    }
    Ok(env.into_iter().collect())
}

/// Shows what the agent will have, and asks; a pipelock that nobody knows yet is asked about as well.
fn allowed(
    here: &Here,
    args: &cli::Launch,
    order: &Order,
    facts: &Facts,
    pipelock: &Pipelock,
    config: &Path,
) -> Result<(), Failure> {
    let quiet = args.yes || args.headless;
    match &pipelock.trust {
        Trust::Pinned => {}
        Trust::Other(pinned) => {
            return Err(Failure::launch(
                format!("{} is {}, and {pinned} is pinned", pipelock.reference, pipelock.id),
                format!("if you know why it changed: launcher images pin {}", pipelock.reference),
            ));
        }
        Trust::Unknown if quiet => {
            return Err(Failure::launch(
                format!("pipelock's image {} is not pinned yet, and nobody is asked", pipelock.reference),
                format!("look at it and write it down once: launcher images pin {}", pipelock.reference),
            ));
        }
        Trust::Unknown => {}
    }
    if quiet {
        return Ok(());
    }
    let mut reach = plan::reach::reach(order, facts);
    // The whole address is said where it is asked about: it is wider than a page.
    reach.pipelock = format!("{} ({})", pipelock.reference, pipelock.id.get(..19).unwrap_or(&pipelock.id));
    let from = order.workspace.as_ref().filter(|_| order.resumed.is_none());
    let survey = from.map(|dir| workspace::survey(dir)).transpose();
    let survey = survey.map_err(|e| Failure::launch(chain(&e), None))?;
    here.ui.line(&print::preflight(&reach, &order.owner.id, survey.as_ref()));
    if pipelock.trust == Trust::Unknown {
        here.ui.warn(&format!("{} is used for the first time; it is {}", pipelock.reference, pipelock.id));
    }
    if !here.ui.confirm("Start it?") {
        return Err(Failure {
            exit: Exit::Interrupted,
            message: "not started".to_owned(),
            hint: Some("answer y, or say --yes".to_owned()),
        });
    }
    if pipelock.trust == Trust::Unknown {
        images::Pins::load(config)?.record(&pipelock.reference, &pipelock.id)?;
    }
    Ok(())
}

/// Starts the keeper, tells it everything, and learns the id it has claimed.
pub fn start_keeper(here: &Here, charge: &Charge) -> Result<BottleDir, Failure> {
    let failed = |e: std::io::Error| Failure::launch(format!("the keeper cannot be started: {e}"), None);
    // The running program itself, also when its file has been replaced by an update.
    let mut child = Command::new("/proc/self/exe")
        .arg("keeper")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let told = zeroize::Zeroizing::new(serde_json::to_vec(charge).map_err(|e| failed(e.into()))?);
    if let Some(mut input) = child.stdin.take() {
        input.write_all(&told).map_err(failed)?;
    }
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).take(1 << 20).read_line(&mut line).map_err(failed)?;
    }
    match serde_json::from_str(&line) {
        Ok(Greeting::Listening(id)) => Ok(here.state()?.dir(&id)),
        Ok(Greeting::Failed(reason)) => Err(Failure::launch(reason, None)),
        Err(_) => Err(Failure::launch("the keeper ended without a word", None)),
    }
}

/// Stays with the bottle to its end.
async fn follow(here: &Here, args: &cli::Launch, dir: &BottleDir) -> Result<Exit, Failure> {
    let lost = |e: std::io::Error| Failure::launch(format!("the keeper does not answer: {e}"), None);
    let (reader, mut writer) = split(connect(&dir.socket()).await.map_err(lost)?);
    let tty = if args.headless || args.detach { None } else { attach::terminal() };
    writer.say(&Hello::Own { tty }).await.map_err(lost)?;
    let part = if args.detach { Part::Starter } else { Part::Owner };
    let parted = attach::stay(reader, writer, part, tty.is_some(), !args.headless, here.ui).await;
    parting(here, dir, parted)
}

/// What is said and returned when a client's part is over.
pub fn parting(here: &Here, dir: &BottleDir, parted: Parted) -> Result<Exit, Failure> {
    match parted {
        Parted::Ended(ending) => {
            if let Some(report) = &ending.report {
                here.ui.line(&print::report(report, dir.id()));
            }
            for leftover in &ending.leftovers {
                here.ui.warn(&format!("could not be taken back: {}", crate::ui::clean(leftover)));
            }
            if !ending.leftovers.is_empty() {
                here.ui.line("run `launcher cleanup` when the engine answers again");
            }
            match ending.error {
                Some(message) => {
                    Err(Failure { exit: ending.exit, message: crate::ui::clean(&message), hint: ending.hint })
                }
                None => Ok(ending.exit),
            }
        }
        Parted::LetGo => {
            here.ui.line(&format!("{} goes on: launcher attach {0}, launcher stop {0}", dir.id()));
            Ok(Exit::Success)
        }
        // It ended while we could not listen, and took everything back: a keeper that died leaves the record of its plan.
        Parted::KeeperLost if dir.recorded().is_none() => Err(Failure::launch(
            format!("the bottle {} has ended, and how was not heard", dir.id()),
            "see `launcher ps --all`".to_owned(),
        )),
        Parted::KeeperLost => Err(Failure::launch(
            "the bottle's keeper has gone; its containers end by themselves",
            "run `launcher cleanup` to take back what is left".to_owned(),
        )),
        Parted::Refused(reason) => Err(Failure::usage(reason, None)),
        Parted::Out => Ok(Exit::Interrupted),
    }
}
