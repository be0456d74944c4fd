//! `demo`: a hostile agent in a real bottle, against a small world of its own. It needs no account, no key and no
//! registry. What the agent tried and what came of it is a table; the world's side of it is part of the verdict.

use self::rows::{Row, Table};
use self::world::{Minted, World};
use super::Here;
use super::run::{places, start_keeper};
use crate::cli::Demo;
use crate::engine::{Engine, Owner, Subnet, docker::Docker};
use crate::error::Failure;
use crate::exit::Exit;
use crate::images;
use crate::keeper::Charge;
use crate::keeper_socket::{Frame, Hello, ToClient, ToKeeper, connect, split};
use crate::manifest::host::{Host, HostPattern};
use crate::manifest::{
    self, Agent, AgentSource, Bottle, Egress, EnvValue, ImageSource, TokenRef, Upstream, load as manifests,
};
use crate::plan::sidecar::credential_name;
use crate::plan::{Order, SidecarImages};
use crate::provider::Provider;
use crate::sidecars::{self, Features, Origin, Sidecar};
use crate::signals::Signals;
use crate::state;
use std::collections::BTreeMap;
use std::path::PathBuf;

mod operator;
pub mod rows;
pub mod world;

/// The bottle's name and its agent's.
const ID: &str = "demo";
/// Where a bottle's subnets come from when nobody says otherwise.
const POOL: &str = "10.213.0.0/16";
/// The path of the one route.
const ROUTE: &str = "/api/";
/// The name of the one remote.
const REMOTE: &str = "app";

/// The image of the stand-in of pipelock.
pub const STAND_IN: &str = concat!("bottle-demo/pipelock-double:", env!("CARGO_PKG_VERSION"));

const WORLD: Sidecar = Sidecar { name: "demo-world", package: "bottle-tests", features: Features::None };
const AGENT: Sidecar = Sidecar { name: "demo-agent", package: "bottle-tests", features: Features::None };
const DOUBLE: Sidecar = Sidecar { name: "pipelock-double", package: "bottle-tests", features: Features::None };

/// All that the demo and the tests may need, to be built at once.
fn everything() -> Vec<Sidecar> {
    [WORLD, AGENT, DOUBLE].into_iter().chain(sidecars::SIDECARS).collect()
}

/// What a release brings along beside the launcher: the sidecars, and the demo's world. The stand-in is not in it: what
/// is installed watches a real pipelock, or says that there is none.
pub fn of_a_release() -> Vec<Sidecar> {
    sidecars::SIDECARS.into_iter().chain([WORLD, AGENT]).collect()
}

/// Runs the demo.
pub async fn demo(here: &Here, args: &Demo) -> Result<Exit, Failure> {
    let engine = here.engine().await?;
    super::cleanup::sweep_quietly(here, &engine).await?;
    let progress = |text: &str| here.ui.progress(text);
    sidecars::prepare(&everything(), &progress)?;
    let (pipelock, stand_in) = pipelock(here, args, &engine).await?;
    let ready = images::ready(&engine, &pipelock, images::Wanted::ALL, &progress).await?;
    let (agent_image, mint) = world_images(&engine, &progress).await?;
    let minted = world::mint(mint)?;

    progress("making a small world: an API, a forge, an attacker's host, a resolver, a neighbour");
    let mut world = World::make(&here.state()?, &engine, "demo-world", &minted).await?;
    let mut table = Table::new(here.ui, args.json);
    table.begin(stand_in);
    let ran = attack(here, &engine, &world, &minted, &ready, &agent_image, &mut table).await;
    let evidence = world.evidence();
    let leftovers = world.take_back(&engine).await;
    let ended = ran?;
    rows::from_world(&evidence, &minted).into_iter().for_each(|row| table.row(row));
    let left = left(here, &engine).await?;
    let everything = leftovers.into_iter().chain(ended).chain(left).collect::<Vec<_>>();
    table.row(Row {
        tried: "leave something behind on the engine".to_owned(),
        expected: "nothing is left".to_owned(),
        happened: if everything.is_empty() { "nothing is left".to_owned() } else { everything.join(", ") },
        held: everything.is_empty(),
    });
    Ok(if table.end() { Exit::Success } else { Exit::No })
}

/// The pinned pipelock, where it is present or can be pulled; else the stand-in of the tests, which only they and the
/// demo may use. Gives its image, and whether it is the stand-in.
async fn pipelock(here: &Here, args: &Demo, engine: &Docker) -> Result<(String, bool), Failure> {
    let places = places(here)?;
    let configured = manifests::user(&places).pipelock_image;
    let reference = images::pipelock_reference(args.pipelock_image.as_deref(), configured.as_deref())?;
    let progress = |text: &str| here.ui.progress(text);
    match images::pipelock(engine, &reference, &places.config, &progress).await {
        Ok(pipelock) => return Ok((pipelock.id, false)),
        Err(failure) if args.pipelock_image.is_some() || matches!(sidecars::origin(), Origin::Installed(_)) => {
            return Err(failure);
        }
        Err(_) => {}
    }
    Ok((stand_in(engine, &progress).await?, true))
}

/// Builds and loads the world's images. Gives the agent's, and the program that mints a world.
pub async fn world_images<E: Engine>(
    engine: &E,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<(String, PathBuf), Failure> {
    sidecars::prepare(&everything(), progress)?;
    let binaries = sidecars::binaries(&[WORLD, AGENT], progress)?;
    let agent = load(engine, &binaries, "demo-agent", "1000:1000").await?;
    load(engine, &binaries, "demo-world", "0:0").await?;
    Ok((agent, binaries.get("demo-world").cloned().unwrap_or_default()))
}

/// Builds and loads the stand-in of pipelock, for the demo and the tests alone. Gives its content address.
pub async fn stand_in<E: Engine>(engine: &E, progress: &(dyn Fn(&str) + Send + Sync)) -> Result<String, Failure> {
    sidecars::prepare(&everything(), progress)?;
    let binaries = sidecars::binaries(&[DOUBLE], progress)?;
    let mut image = images::scratch(STAND_IN, "/pipelock", read(&binaries, "pipelock-double")?, "");
    image.command = ["run", "--listen", "0.0.0.0:8888"].map(str::to_owned).to_vec();
    Ok(engine.load(&image.named(STAND_IN)).await?)
}

fn read(binaries: &BTreeMap<String, PathBuf>, name: &str) -> Result<bytes::Bytes, Failure> {
    let path = binaries.get(name).cloned().unwrap_or_default();
    let bytes = std::fs::read(&path);
    bytes.map(Into::into).map_err(|e| Failure::launch(format!("{} cannot be read: {e}", path.display()), None))
}

async fn load<E: Engine>(
    engine: &E,
    binaries: &BTreeMap<String, PathBuf>,
    name: &str,
    user: &str,
) -> Result<String, Failure> {
    let tag = format!("bottle-demo/{}:{}", name.trim_start_matches("demo-"), env!("CARGO_PKG_VERSION"));
    let image = images::scratch(&tag, &format!("/{name}"), read(binaries, name)?, user);
    engine.load(&image).await?;
    Ok(image.tag)
}

/// Runs the bottle and shows each attempt as it is made. Gives what the keeper could not take back.
async fn attack(
    here: &Here,
    engine: &Docker,
    world: &World,
    minted: &Minted,
    ready: &images::Ready,
    agent_image: &str,
    table: &mut Table,
) -> Result<Vec<String>, Failure> {
    let hosts = host_addresses(engine).await?;
    let mut charge = charge(here, world, minted, ready, agent_image, &hosts)?;
    charge.engine = Some(engine.address().to_string());
    let dir = start_keeper(here, &charge)?;
    let lost = |e: std::io::Error| Failure::launch(format!("the keeper does not answer: {e}"), None);
    let (mut reader, mut writer) = split(connect(&dir.socket()).await.map_err(lost)?);
    writer.say(&Hello::Own { tty: None }).await.map_err(lost)?;
    let mut lines = crate::control::Lines::default();
    let mut signals = Signals::take();
    loop {
        let frame = tokio::select! {
            frame = reader.next::<ToClient>() => frame.map_err(lost)?,
            () = signals.next() => {
                // The keeper takes everything back; its end is waited for like any other.
                let _ = writer.say(&ToKeeper::Stop).await;
                continue;
            }
        };
        match frame {
            Some(Frame::Data(bytes)) => {
                lines.push(&bytes).iter().filter_map(|line| Row::parse(line)).for_each(|row| table.row(row));
            }
            Some(Frame::ErrorData(bytes)) => {
                here.ui.line(crate::ui::clean(&String::from_utf8_lossy(&bytes)).trim_end())
            }
            Some(Frame::Words(ToClient::Progress { text })) => here.ui.progress(&text),
            Some(Frame::Words(ToClient::Notice { text })) => here.ui.sentence("[bottle] ", &crate::ui::clean(&text)),
            Some(Frame::Words(ToClient::Bell { text })) => {
                here.ui.sentence("[bottle] ", &crate::ui::clean(&text));
                table.row(operator::answer(here, &dir).await);
            }
            Some(Frame::Words(ToClient::Ended(ending))) => {
                if let Some(message) = ending.error {
                    return Err(Failure { exit: ending.exit, message, hint: ending.hint });
                }
                if ending.exit == Exit::Interrupted {
                    return Err(Failure { exit: ending.exit, message: "stopped".to_owned(), hint: None });
                }
                // The demo's bottle holds no work: nothing of it is kept.
                forget(&dir);
                return Ok(ending.leftovers);
            }
            Some(Frame::Words(
                ToClient::Started
                | ToClient::Taken
                | ToClient::Status(_)
                | ToClient::Desk { .. }
                | ToClient::Refused { .. },
            )) => {}
            None => return Err(Failure::launch("the keeper has gone; `launcher cleanup` takes back the rest", None)),
        }
    }
}

fn forget(dir: &state::BottleDir) {
    // A keeper that is just ending still holds its folder; then the next sweep forgets it.
    if let Ok(Some(session)) = dir.lock() {
        let _ = session.dir.remove();
    }
}

fn charge(
    here: &Here,
    world: &World,
    minted: &Minted,
    ready: &images::Ready,
    agent_image: &str,
    hosts: &[String],
) -> Result<Charge, Failure> {
    let root = here.state()?;
    let order = Order {
        owner: Owner { id: ID.to_owned(), host: state::host_hash(), state: root.hash(), agent: ID.to_owned() },
        agent: agent(),
        bottle: bottle(world, minted, agent_image)?,
        command: Vec::new(),
        prompt: Some(String::new()),
        workspace: None,
        subnet_pool: Subnet::parse(POOL).map_err(|e| Failure::launch(e, None))?,
        images: SidecarImages { ..ready.images.clone() },
        attempt: 0,
        resumed: None,
    };
    let env = [
        ("ALLOWED_HOST", world::ALLOWED.to_owned()),
        ("ROUTE_URL", format!("http://{}:{}{ROUTE}", cred_proxy::config::NAME, cred_proxy::config::PORT)),
        ("ROUTE_HOST", world::ROUTED.to_owned()),
        ("GIT_URL", format!("git://{}:{}/{REMOTE}.git", git_gate::config::NAME, git_gate::config::PORT)),
        ("GIT_HOST", world::FORGE.to_owned()),
        ("ATTACKER_HOST", world::ATTACKER.to_owned()),
        ("ATTACKER_IP", world.address(world::ATTACKER_PLACE).to_string()),
        ("NEIGHBOUR_IP", world.address(world::NEIGHBOUR_PLACE).to_string()),
        ("RESOLVER_IP", world.address(world::RESOLVER_PLACE).to_string()),
        ("HOST_IPS", hosts.join(",")),
        ("CANARY_SHA256", minted.canary_sha256.clone()),
        ("ASK_HOST", world::ASKED.to_owned()),
        ("ASK_NEIGHBOUR", world::NEVER.to_owned()),
    ];
    Ok(Charge {
        order,
        pinned: false,
        engine: here.engine_name(),
        image: agent_image.to_owned(),
        credentials: BTreeMap::from([(ROUTE.to_owned(), minted.canary.clone())]),
        remote_credentials: BTreeMap::from([(credential_name(REMOTE), minted.canary.clone())]),
        credentials_read: 0,
        env: env.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        base: None,
        init: ready.init.clone(),
        on_proposal: Vec::new(),
    })
}

fn agent() -> Agent {
    Agent {
        name: ID.to_owned(),
        file: PathBuf::from("(built in)"),
        bottle: Some(ID.to_owned()),
        description: "tries everything".to_owned(),
        prompt: String::new(),
        skills: Vec::new(),
    }
}

fn bottle(world: &World, minted: &Minted, image: &str) -> Result<Bottle, Failure> {
    let bad = |e: manifest::host::NotAHost| Failure::launch(e.to_string(), None);
    Ok(Bottle {
        name: ID.to_owned(),
        file: PathBuf::from("(built in)"),
        agent: AgentSource {
            provider: Provider { name: "shell".to_owned(), ..Provider::default() },
            image: ImageSource::Reference(image.to_owned()),
            user: None,
        },
        env: BTreeMap::<String, EnvValue>::new(),
        egress: Egress {
            allowlist: vec![HostPattern::parse(world::ALLOWED).map_err(bad)?],
            upstream_roots: Some(minted.ca_pem.clone()),
            network: Some(world.network().to_owned()),
            ..Egress::default()
        },
        proxy_limits: cred_proxy::config::Limits::default(),
        routes: vec![manifest::Route {
            path: ROUTE.to_owned(),
            upstream: Upstream {
                https: true,
                host: Host::parse(world::ROUTED).map_err(bad)?,
                port: 443,
                base: String::new(),
            },
            auth: cred_proxy::config::Auth::Bearer,
            token_ref: Some(TokenRef::Env("(made for the demo)".to_owned())),
            inspect: true,
            roles: Vec::new(),
            allow: vec!["GET /v1/**".to_owned(), "POST /v1/**".to_owned()],
            line: 0,
        }],
        git: manifest::Git {
            user: None,
            remotes: vec![manifest::Remote {
                name: REMOTE.to_owned(),
                upstream: manifest::RemoteUpstream::Https {
                    host: Host::parse(world::FORGE).map_err(bad)?,
                    port: 443,
                    path: "/team/app.git".to_owned(),
                },
                credential: manifest::RemoteCredential::Bearer(TokenRef::Env("(made for the demo)".to_owned())),
                push: git_gate::config::Push { refs: vec!["refs/heads/agent/*".to_owned()], ..Default::default() },
                exceptions: Vec::new(),
                line: 0,
            }],
        },
        supervise: true,
        limits: manifest::Limits { memory_bytes: 1 << 30, time_s: Some(300), ..manifest::Limits::default() },
        runtime: manifest::Runtime::Auto,
        workspace: manifest::WorkspaceMode::None,
        skills: Vec::new(),
    })
}

/// Addresses at which the host may be met: its own, and the gateways of the engine's networks.
async fn host_addresses(engine: &Docker) -> Result<Vec<String>, Failure> {
    let facts = engine.facts().await?;
    let mut addresses: Vec<String> =
        facts.networks.values().flatten().map(|subnet| subnet.address(1).to_string()).collect();
    // No packet is sent: connecting a datagram socket only asks which of our addresses would be used.
    let own =
        std::net::UdpSocket::bind("0.0.0.0:0").and_then(|s| s.connect("198.51.100.1:9").and_then(|()| s.local_addr()));
    addresses.extend(own.ok().map(|a| a.ip().to_string()));
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

/// What carries the demo's labels on the engine.
async fn left(here: &Here, engine: &Docker) -> Result<Vec<String>, Failure> {
    let observed = engine.observe(&state::host_hash(), &here.state()?.hash()).await?;
    let ours = |owner: &Owner| owner.agent == ID;
    let containers = observed.containers.iter().filter(|c| ours(&c.owner)).map(|c| c.name.clone());
    let networks = observed.networks.iter().filter(|n| ours(&n.owner)).map(|n| n.name.clone());
    Ok(containers.chain(networks).collect())
}
