//! `resume`: a bottle that has ended begins another life, under its id, with its saved work, its log, its proposals and the
//! Dockerfile that was approved for it. What it may reach is what the manifests say now; what was granted is not carried over.

use super::{Here, run};
use crate::cli::Resume;
use crate::engine::{Engine, ImageFacts};
use crate::error::Failure;
use crate::exit::Exit;
use crate::images;
use crate::keeper::desk;
use crate::manifest::load::{Loaded, load};
use crate::plan::build::{Built, deeds};
use crate::plan::{Facts, Order, PlanError, Resumed, agent};
use crate::state::{self, BottleDir, Metadata};
use crate::ui::clean;
use crate::verdict::page;
use std::path::Path;
use supervise::check::dockerfile::{Dockerfile, Fault};

/// A Dockerfile is shown in whole when it is approved; here as much of it.
const LINES_SHOWN_MAX: usize = 40;

/// Launches a bottle once more.
pub async fn resume(here: &Here, args: Resume) -> Result<Exit, Failure> {
    let dir = here.bottle(&args.id)?;
    let metadata = ended(&dir)?;
    if args.launch.dry_run {
        return dry_run(here, &args, &dir).await;
    }
    let engine = here.engine().await?;
    let address = engine.address().to_string();
    if let Some(other) = metadata.engine.filter(|other| *other != address) {
        return Err(Failure::usage(
            format!("{} was on the engine {other}, and this one is {address}", dir.id()),
            format!("DOCKER_HOST={other} launcher resume {}", dir.id()),
        ));
    }
    // A keeper that died has left the work in its container.
    super::cleanup::sweep_quietly(here, &engine).await?;
    let metadata = saved(&dir)?;
    let loaded = loaded(here, &dir, &metadata)?;
    let order = order(here, &args, &loaded, (&dir, &metadata))?;
    let keys = run::Keys::read(here, &order)?;
    let facts = run::facts(&engine, &order).await?;
    if !args.launch.yes && !args.launch.headless {
        here.ui.line(&shown(&order, &dir, &metadata));
    }
    run::launch(here, &args.launch, &loaded, (order, keys, Some(dir.id())), (&engine, facts)).await
}

/// Says what it would go on from and prints the plan. Changes nothing, and what only an engine knows is unknown where none
/// answers.
async fn dry_run(here: &Here, args: &Resume, dir: &BottleDir) -> Result<Exit, Failure> {
    let metadata = saved(dir)?;
    let loaded = loaded(here, dir, &metadata)?;
    let mut order = order(here, args, &loaded, (dir, &metadata))?;
    here.ui.line(&shown(&order, dir, &metadata));
    let mut facts = Facts::default();
    if let Ok(engine) = here.engine().await {
        facts = run::facts(&engine, &order).await.unwrap_or_default();
        if let Ok(Some(base)) = engine.image(&agent::base_image(&order)).await {
            facts.agent_image = fit(&mut order, &base)?.or(facts.agent_image);
        }
    }
    run::print_plan(here, &args.launch, &order, &facts)
}

/// Now that the image is there with which the Dockerfile begins: what it makes is named, and what that will say of itself is
/// given. `None` where no Dockerfile is used.
pub fn fit(order: &mut Order, base: &ImageFacts) -> Result<Option<ImageFacts>, Failure> {
    let Some(built) = order.built().cloned() else { return Ok(None) };
    let unfit = |fault: Fault| PlanError::Dockerfile(fault);
    let failed = |e: PlanError| Failure::launch(e.to_string(), e.hint());
    let dockerfile = Dockerfile::parse(&built.text).map_err(unfit).map_err(failed)?;
    let built = Built::of(order, &built.text, &base.id).map_err(unfit).map_err(failed)?;
    order.resumed = Some(Resumed { built: Some(built) });
    Ok(Some(deeds(base, &dockerfile).1))
}

/// A bottle that has begun, and does not run.
fn ended(dir: &BottleDir) -> Result<Metadata, Failure> {
    if dir.is_living() && dir.recorded().is_some() {
        return Err(Failure::usage(
            format!("{} is running", dir.id()),
            format!("see it with `launcher attach {0}`, or end it first: launcher stop {0}", dir.id()),
        ));
    }
    dir.metadata().ok_or_else(|| nothing(dir, "it never began"))
}

/// What is left of it.
fn saved(dir: &BottleDir) -> Result<Metadata, Failure> {
    let metadata = ended(dir)?;
    if dir.recorded().is_some() {
        return Err(Failure::launch(
            format!("{} has left something on the engine", dir.id()),
            "run `launcher cleanup`, and say it again".to_owned(),
        ));
    }
    if metadata.workspace.is_some() && !dir.workspace().exists() {
        return Err(nothing(dir, "its work did not come home"));
    }
    Ok(metadata)
}

fn nothing(dir: &BottleDir, why: &str) -> Failure {
    Failure::usage(
        format!("{} has nothing saved that it could go on from: {why}", dir.id()),
        "launch its agent anew: launcher run AGENT".to_owned(),
    )
}

/// The manifests as they are now, found as they were from the directory that the bottle was launched in.
fn loaded(here: &Here, dir: &BottleDir, metadata: &Metadata) -> Result<Loaded, Failure> {
    let from = metadata.workspace.as_deref().filter(|w| w.is_dir()).unwrap_or(&here.cwd);
    let loaded = load(&run::places_at(here, from)?, &metadata.agent, Some(&metadata.bottle));
    let loaded = loaded.map_err(|error| {
        let failure = Failure::from(error);
        let gone = format!(
            "{} was the agent {} in the bottle {}, whose manifests it is launched by as they are now; its work is safe: \
             launcher take {0}",
            dir.id(),
            metadata.agent,
            metadata.bottle
        );
        Failure { hint: Some(failure.hint.map_or(gone.clone(), |hint| format!("{hint}; {gone}"))), ..failure }
    })?;
    loaded.warnings.iter().for_each(|warning| here.ui.warn(warning));
    Ok(loaded)
}

/// The order, with the Dockerfile that was approved.
fn order(
    here: &Here,
    args: &Resume,
    loaded: &Loaded,
    (dir, metadata): (&BottleDir, &Metadata),
) -> Result<Order, Failure> {
    let order = Order {
        owner: crate::engine::Owner {
            id: metadata.id.clone(),
            host: state::host_hash(),
            state: here.state()?.hash(),
            agent: loaded.agent.name.clone(),
        },
        agent: loaded.agent.clone(),
        bottle: loaded.bottle.clone(),
        command: args.launch.command.clone(),
        prompt: args.launch.prompt(),
        workspace: metadata.workspace.clone(),
        subnet_pool: loaded.user.subnet_pool,
        images: images::references(),
        attempt: 0,
        resumed: Some(Resumed::default()),
    };
    with_dockerfile(order, dir, !args.no_dockerfile)
}

/// Reads the approved Dockerfile. What is read here is what is shown, and what is carried out.
fn with_dockerfile(order: Order, dir: &BottleDir, is_used: bool) -> Result<Order, Failure> {
    let path = dir.dockerfile();
    if !is_used || !path.exists() {
        return Ok(order);
    }
    let text = read(&path)?;
    let built = Built::of(&order, &text, "").map_err(|fault| {
        let hint = format!(
            "the bottle's image is {} now; change {}, or launch without it: launcher resume {} --no-dockerfile",
            agent::base_image(&order),
            path.display(),
            dir.id()
        );
        Failure::usage(format!("the approved Dockerfile cannot be carried out: {fault}"), hint)
    })?;
    Ok(Order { resumed: Some(Resumed { built: Some(built) }), ..order })
}

fn read(path: &Path) -> Result<String, Failure> {
    let unread = |why: String| Failure::usage(format!("{} cannot be read: {why}", path.display()), None);
    let bytes = state::read_limited(path).map_err(|e| unread(e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| unread(e.to_string()))
}

/// What is said before the page of the preflight.
fn shown(order: &Order, dir: &BottleDir, metadata: &Metadata) -> String {
    let since = metadata.ended.as_deref().unwrap_or(&metadata.started);
    let mut lines =
        vec![format!("{} goes on from where it ended ({since}), by its manifests as they are now.", dir.id())];
    if let Some(built) = order.built() {
        lines.push(format!(
            "The approved Dockerfile is carried out first, unless that was done before ({}):",
            dir.dockerfile().display()
        ));
        let all = built.text.lines().count();
        lines.extend(built.text.lines().take(LINES_SHOWN_MAX).map(|line| format!("  {line}")));
        if all > LINES_SHOWN_MAX {
            lines.push(format!("  and {} more lines", all - LINES_SHOWN_MAX));
        }
        lines.push("It runs behind the bottle's wall and pipelock, without a route or a credential.".to_owned());
    }
    let granted = desk::replayed(&dir.proposals()).map(|queue| desk::over(&queue)).unwrap_or_default();
    if !granted.is_empty() {
        lines.push("What was granted then is not carried over:".to_owned());
        lines.extend(granted.iter().map(|(id, change)| format!("  {id}: {}", page::short(change))));
    }
    clean(&lines.join("\n"))
}
