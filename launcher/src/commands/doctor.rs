//! `doctor`: can this machine hold a bottle, and if not, why. It looks and changes nothing.

use super::Here;
use super::run::places;
use crate::cli::Doctor;
use crate::engine::docker::Docker;
use crate::engine::{Engine, EngineFacts, Subnet};
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::images::{self, Trust};
use crate::manifest::{Places, catalog, load};
use crate::plan::agent::sees_frames;
use crate::plan::network::free_blocks;
use crate::sidecars;
use crate::ui::size;
use std::path::Path;

/// With less the first launch, which loads images and copies a workspace, is likely to fail.
const DISK_BYTES_LITTLE: u64 = 2 << 30;

/// Bottles beside one another that should find room.
const BLOCKS_FEW: u64 = 10;

/// Variables by which programs are told of a proxy.
const PROXY_VARIABLES: [&str; 3] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"];

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    what: &'static str,
    verdict: Verdict,
    why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// As it should be.
    Yes,
    /// It works, and there is something to know.
    Note,
    /// Bottles cannot run, or not safely.
    No,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Note => "note",
            Self::No => "no",
        }
    }
}

/// Looks at everything, and says yes or no to each.
pub async fn doctor(here: &Here, args: &Doctor) -> Result<Exit, Failure> {
    let mut rows = vec![manifests(here), state(here), binaries()];
    match here.engine().await {
        Ok(engine) => rows.extend(of_engine(here, &engine).await),
        Err(failure) => rows.push(row("engine", Verdict::No, failure.message)),
    }
    rows.push(proxy(here));
    if args.json {
        let rows: Vec<_> = rows.iter().map(object).collect();
        here.ui.data(&format!("{:#}\n", serde_json::Value::from(rows)));
    } else {
        // A reason is read to its end, so lines are broken and not cut.
        let width = rows.iter().map(|row| row.what.len()).max().unwrap_or_default();
        for row in &rows {
            let head = format!("{:<4}  {:<width$}  ", row.verdict.word(), row.what);
            let text = crate::ui::wrapped(&head, &crate::ui::clean(&row.why).replace('\n', " "), crate::ui::COLUMNS);
            let word = here.ui.verdict(row.verdict != Verdict::No, row.verdict.word());
            here.ui.data(&format!("{}\n", text.replacen(row.verdict.word(), &word, 1)));
        }
    }
    Ok(if rows.iter().any(|row| row.verdict == Verdict::No) { Exit::No } else { Exit::Success })
}

fn row(what: &'static str, verdict: Verdict, why: impl Into<String>) -> Row {
    Row { what, verdict, why: why.into() }
}

fn object(row: &Row) -> serde_json::Value {
    serde_json::json!({ "what": row.what, "verdict": row.verdict.word(), "why": row.why })
}

fn manifests(here: &Here) -> Row {
    let places = match places(here) {
        Ok(places) => places,
        Err(failure) => return row("manifests", Verdict::No, failure.message),
    };
    let listed = catalog::list(&places);
    match catalog::check(&places) {
        Err(errors) => {
            let count = errors.errors.len() + errors.more;
            row(
                "manifests",
                Verdict::No,
                format!("{count} mistakes in {}: see `launcher check`", places.config.display()),
            )
        }
        Ok(_) if listed.bottles.is_empty() => {
            let why = format!("none yet in {}: `launcher init` writes a first pair", places.config.display());
            row("manifests", Verdict::Note, why)
        }
        Ok(_) => {
            let (agents, bottles) = (listed.agents.len(), listed.bottles.len());
            row(
                "manifests",
                Verdict::Yes,
                format!("agents: {agents}, bottles: {bottles}, in {}", places.config.display()),
            )
        }
    }
}

fn state(here: &Here) -> Row {
    let root = match here.state() {
        Ok(root) => root,
        Err(failure) => return row("state", Verdict::No, failure.message),
    };
    let path = root.dir("x").path().parent().map(Path::to_owned).unwrap_or_default();
    match rustix::fs::statvfs(&path) {
        Ok(disk) => room(&path, disk.f_bavail.saturating_mul(disk.f_frsize)),
        Err(error) => row("state", Verdict::Note, format!("{}: its disk cannot be asked: {error}", path.display())),
    }
}

fn room(path: &Path, bytes: u64) -> Row {
    let verdict = if bytes < DISK_BYTES_LITTLE { Verdict::No } else { Verdict::Yes };
    row("state", verdict, format!("{} free in {}, where workspaces are saved", size(bytes), path.display()))
}

fn binaries() -> Row {
    match sidecars::origin() {
        sidecars::Origin::Installed(folder) => {
            row("sidecars", Verdict::Yes, format!("the release's own, in {}", folder.display()))
        }
        sidecars::Origin::Checkout(folder) => {
            row("sidecars", Verdict::Yes, format!("built from {} when they are needed", folder.display()))
        }
        sidecars::Origin::Missing => {
            let why = "they are neither beside the launcher nor can they be built: install the whole release";
            row("sidecars", Verdict::No, why)
        }
    }
}

async fn of_engine(here: &Here, engine: &Docker) -> Vec<Row> {
    let facts = match engine.facts().await {
        Ok(facts) => facts,
        Err(error) => return vec![row("engine", Verdict::No, chain(&error))],
    };
    let mut rows = vec![product(&facts, &engine.address().to_string()), wall(&facts), runsc(&facts)];
    let user = places(here).ok().map(|places: Places| load::user(&places)).unwrap_or_default();
    rows.push(subnets(user.subnet_pool, &facts));
    rows.push(disk(&facts));
    rows.push(pipelock(here, engine, user.pipelock_image.as_deref()).await);
    rows.push(leftovers(here));
    rows
}

fn product(facts: &EngineFacts, address: &str) -> Row {
    let known =
        format!("{} (API {}) at {address}, {}, kernel {}", facts.version, facts.api, facts.system, facts.kernel);
    let desktop = facts.system.contains("Docker Desktop");
    if facts.product.contains("Podman") {
        let why = "Podman answers there; bottles rest on what Docker's engine does, such as ending a container with its input";
        return row("engine", Verdict::No, format!("{known}: {why}"));
    }
    match (facts.rootless, desktop) {
        (true, _) => row("engine", Verdict::Note, format!("{known}; rootless: bottles were not tried on one")),
        (false, true) => {
            row("engine", Verdict::Note, format!("{known}; a virtual machine: bottles were not tried there"))
        }
        (false, false) => row("engine", Verdict::Yes, known),
    }
}

fn wall(facts: &EngineFacts) -> Row {
    if sees_frames(&facts.kernel) {
        row("wall", Verdict::Yes, "the kernel can watch packets and raw frames (nftables, netdev egress)")
    } else {
        let why =
            "the kernel is older than 5.16: nftables sees packets and no raw frames, so bottles run with runc alone";
        row("wall", Verdict::Note, why)
    }
}

fn runsc(facts: &EngineFacts) -> Row {
    let has = facts.runtimes.iter().any(|runtime| runtime == "runsc");
    match (has, sees_frames(&facts.kernel)) {
        (true, true) => row("runsc", Verdict::Yes, "the engine has it: `runtime: auto` uses it"),
        (true, false) => row("runsc", Verdict::Note, "the engine has it, and it is not used: see `wall`"),
        (false, _) => {
            row("runsc", Verdict::Note, "the engine does not have it: agents share the engine's kernel, by runc")
        }
    }
}

fn subnets(pool: Subnet, facts: &EngineFacts) -> Row {
    let free = free_blocks(pool, facts);
    let verdict = match free {
        0 => Verdict::No,
        free if free < BLOCKS_FEW => Verdict::Note,
        _ => Verdict::Yes,
    };
    row("subnets", verdict, format!("room for {free} bottles in {pool}, `subnet_pool` of config.toml"))
}

fn disk(facts: &EngineFacts) -> Row {
    if facts.quota {
        row("disk", Verdict::Yes, "the engine's storage holds a container to its size")
    } else {
        row("disk", Verdict::Note, "the engine's storage has no quota: `limits.disk` is watched, and is no wall")
    }
}

async fn pipelock(here: &Here, engine: &Docker, configured: Option<&str>) -> Row {
    let reference = match images::pipelock_reference(None, configured) {
        Ok(reference) => reference,
        Err(failure) => return row("pipelock", Verdict::No, failure.message),
    };
    let Ok(config) = places(here).map(|places| places.config) else {
        return row("pipelock", Verdict::No, "where manifests are is not known");
    };
    match engine.image(&reference).await {
        Err(error) => row("pipelock", Verdict::No, chain(&error)),
        Ok(None) => {
            let why =
                format!("{reference} is not on the engine: the first `run` pulls it, or bring it by `docker load`");
            row("pipelock", Verdict::Note, why)
        }
        Ok(Some(facts)) => match images::trust(&reference, &facts, &config) {
            Ok(Trust::Pinned) => row("pipelock", Verdict::Yes, format!("{reference}, as it is pinned")),
            Ok(Trust::Unknown) => {
                let why = format!("{reference} is not pinned yet: `launcher images pin` writes down which one it is");
                row("pipelock", Verdict::Note, why)
            }
            Ok(Trust::Other(pinned)) => {
                row("pipelock", Verdict::No, format!("{reference} is {}, and {pinned} is pinned", facts.id))
            }
            Err(failure) => row("pipelock", Verdict::No, failure.message),
        },
    }
}

fn leftovers(here: &Here) -> Row {
    let Ok(root) = here.state() else { return row("leftovers", Verdict::Note, "not known: see `state`") };
    let ids = here.ids(&root).unwrap_or_default();
    let left: Vec<_> = ids
        .into_iter()
        .filter(|id| {
            let dir = root.dir(id);
            dir.recorded().is_some() && !dir.is_living()
        })
        .collect();
    if left.is_empty() {
        return row("leftovers", Verdict::Yes, "no keeper died without taking its bottle back");
    }
    row(
        "leftovers",
        Verdict::Note,
        format!("{}: the next command takes it back, or `launcher cleanup`", left.join(", ")),
    )
}

fn proxy(here: &Here) -> Row {
    let named = PROXY_VARIABLES.iter().find(|name| here.env.get(**name).is_some_and(|value| !value.is_empty()));
    match named {
        None => {
            row("proxy", Verdict::Yes, "this machine reaches the internet without one, as far as its variables say")
        }
        Some(name) => {
            let why = format!(
                "{name} is set: images are pulled by the engine's own settings, and pipelock does not go by another \
                 proxy; `egress.network` names a network that leads out"
            );
            row("proxy", Verdict::Note, why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(kernel: &str, runtimes: &[&str]) -> EngineFacts {
        EngineFacts {
            kernel: kernel.to_owned(),
            runtimes: runtimes.iter().map(|r| (*r).to_owned()).collect(),
            ..EngineFacts::default()
        }
    }

    #[test]
    fn what_the_engine_has_decides() {
        let new = facts("6.1.0", &["runc", "runsc"]);
        let old = facts("5.10.0", &["runc", "runsc"]);
        let plain = facts("6.1.0", &["runc"]);
        assert_eq!((wall(&new).verdict, runsc(&new).verdict), (Verdict::Yes, Verdict::Yes));
        assert_eq!((wall(&old).verdict, runsc(&old).verdict), (Verdict::Note, Verdict::Note));
        assert_eq!(runsc(&plain).verdict, Verdict::Note);
        for (rootless, system, verdict) in [
            (false, "Debian GNU/Linux 12", Verdict::Yes),
            (true, "Debian GNU/Linux 12", Verdict::Note),
            (false, "Docker Desktop", Verdict::Note),
        ] {
            let facts = EngineFacts { rootless, system: system.to_owned(), ..new.clone() };
            assert_eq!(product(&facts, "unix:///x").verdict, verdict, "{system} {rootless}");
        }
        let podman = EngineFacts { product: "Podman Engine, Conmon".to_owned(), ..new.clone() };
        assert_eq!(product(&podman, "unix:///x").verdict, Verdict::No);
        assert_eq!(room(Path::new("/x"), 1 << 20).verdict, Verdict::No);
        assert_eq!(room(Path::new("/x"), 1 << 40).verdict, Verdict::Yes);
    }

    #[test]
    fn a_pool_that_is_taken_has_no_room() {
        let pool = Subnet::parse("10.213.0.0/20").unwrap();
        let with = |subnets: &[&str]| {
            let networks = subnets.iter().map(|text| Subnet::parse(text).unwrap()).collect();
            EngineFacts { networks: [("other".to_owned(), networks)].into(), ..EngineFacts::default() }
        };
        assert_eq!(subnets(pool, &with(&[])).verdict, Verdict::Yes);
        assert_eq!(subnets(pool, &with(&["10.213.0.0/21", "10.213.8.0/22", "10.213.12.0/23"])).verdict, Verdict::Yes);
        assert_eq!(
            subnets(pool, &with(&["10.213.0.0/21", "10.213.8.0/22", "10.213.12.0/23", "10.213.14.0/24"])).verdict,
            Verdict::Note
        );
        assert_eq!(subnets(pool, &with(&["10.0.0.0/8"])).verdict, Verdict::No);
    }
}
