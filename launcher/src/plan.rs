//! A launch as data. `Bottle + Facts -> Plan` is pure and holds every decision and every name; `launch.rs` carries it
//! out and decides nothing. No engine id and no secret is ever in a plan: it names secrets, the bytes travel apart.

use crate::engine::{ContainerSpec, ImageFacts, NetworkMode, NetworkSpec, Owner, Subnet};
use crate::manifest::{Agent, Bottle};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

pub mod agent;
pub mod build;
pub mod git_config;
pub mod hardening;
pub mod home;
pub mod network;
pub mod print;
pub mod provision;
pub mod reach;
pub mod roles;
pub mod seat;
pub mod seccomp;
pub mod sidecar;

/// What an operator asked for, all of it known before the engine is asked anything.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// Who it will belong to; the id is chosen.
    pub owner: Owner,
    /// The agent.
    pub agent: Agent,
    /// The bottle.
    pub bottle: Bottle,
    /// The program to run instead of the image's own.
    pub command: Vec<String>,
    /// The prompt of a headless session.
    pub prompt: Option<String>,
    /// The directory that comes along; `None`: nothing does.
    pub workspace: Option<PathBuf>,
    /// Where the networks are taken from.
    pub subnet_pool: Subnet,
    /// References of the images that are not the agent's.
    pub images: SidecarImages,
    /// Which try this is: each looks for subnets further on.
    pub attempt: u32,
    /// What it brings from a life before; `None`: it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed>,
}

/// What a bottle brings from a life before. Its saved workspace is in its folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// The image that an approved Dockerfile makes; `None`: the manifest's own is used.
    pub built: Option<build::Built>,
}

impl Order {
    /// The image that an approved Dockerfile makes, where one is used.
    pub fn built(&self) -> Option<&build::Built> {
        self.resumed.as_ref().and_then(|resumed| resumed.built.as_ref())
    }
}

/// References of the images of the sidecars, as they will be on the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SidecarImages {
    /// pipelock under `bottle-init`.
    pub pipelock: String,
    /// cred-proxy.
    pub cred_proxy: String,
    /// git-gate.
    pub git_gate: String,
    /// supervise.
    pub supervise: String,
    /// The wall.
    pub wall: String,
}

/// A launch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Whose it is.
    pub owner: Owner,
    /// Who has which address.
    pub addresses: Addresses,
    /// What is done, stage by stage.
    pub stages: Vec<Stage>,
    /// What runs at the end of it.
    pub session: Session,
    /// pipelock's configuration.
    pub pipelock: String,
    /// route-pipelock's configuration, when there are routes or https remotes.
    pub route_pipelock: Option<String>,
    /// cred-proxy's table without certificates, when there are routes.
    pub cred_proxy: Option<cred_proxy::config::Config>,
    /// git-gate's table without certificates and known secrets, when there are remotes.
    pub git_gate: Option<git_gate::config::Config>,
    /// What supervise is told once, when the agent may ask for more.
    pub supervise: Option<supervise::config::Config>,
    /// What the agent will be able to reach and hold, for people.
    pub reach: reach::Reach,
}

/// Steps that may run at once. A stage begins when the one before has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name, for people.
    pub name: String,
    /// Lanes run at once; the actions of a lane one after another.
    pub lanes: Vec<Vec<Action>>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// Creates a network.
    Network(NetworkSpec),
    /// Creates a container.
    Container(Box<ContainerSpec>),
    /// Puts a container on one more network.
    Connect {
        /// The container.
        container: String,
        /// The network.
        network: String,
        /// Its address there; `None` lets the engine choose (on networks that are not ours).
        address: Option<Ipv4Addr>,
    },
    /// Writes the agent's files into its created container: first process, certificates, user, prompt.
    Provision {
        /// The container.
        container: String,
    },
    /// Writes what a build needs into its created container: first process and certificates.
    Prepare {
        /// The container.
        container: String,
    },
    /// Puts the saved workspace into the agent's created container, and saves it at the end.
    Restore {
        /// The container.
        container: String,
    },
    /// Copies the workspace into the agent's created container, and saves it at the end.
    Workspace {
        /// The container.
        container: String,
        /// The directory on the host.
        from: PathBuf,
    },
    /// Reads back what the engine made and compares it with the plan.
    Compare,
    /// Attaches to a container, starts it, sends it what it must know, and waits until it says that it is ready.
    Bring {
        /// The container.
        container: String,
        /// Its role.
        role: String,
    },
    /// Starts a container that does one thing and ends; anything but success ends the launch.
    Once {
        /// The container.
        container: String,
    },
}

/// What takes a plan's actions back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undo {
    /// Brings the workspace home from the agent's container, running or not.
    SaveWorkspace {
        /// The container.
        container: String,
    },
    /// Takes a network off the engine, as soon as these containers are gone.
    Network {
        /// The network.
        name: String,
        /// Whose it is.
        owner: Owner,
        /// The containers that the plan puts on it.
        containers: Vec<String>,
    },
    /// Takes an object off the engine.
    Engine(crate::engine::Undo),
}

/// The program that the bottle is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The agent's container.
    pub container: String,
    /// Program and arguments; `None`: the image's own, and the image is not there yet.
    pub argv: Option<Vec<String>>,
    /// The user that the manifest or the image names; `None`: uid 1000 `agent`, written in; unknown without the image.
    pub user: AgentUser,
    /// Where it starts.
    pub workdir: Option<String>,
    /// Names of variables and where their values come from.
    pub env: BTreeMap<String, crate::manifest::EnvValue>,
    /// Is it given a prompt on its standard input?
    pub headless: bool,
}

/// The user the agent runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentUser {
    /// A user of the image, by name or number.
    OfImage(String),
    /// uid and gid 1000, written into the image's passwd as `agent`.
    Added,
    /// The image is not there yet.
    Unknown,
}

/// Who has which address. Sidecars that may come later have theirs from the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The agent's network.
    pub internal: Subnet,
    /// The way out; `None`: an existing network is used.
    pub egress: Option<Subnet>,
    /// Between cred-proxy, git-gate and route-pipelock. Kept free also when nothing needs it yet.
    pub routes: Subnet,
    /// pipelock, on the internal network.
    pub pipelock: Ipv4Addr,
    /// cred-proxy, on the internal network.
    pub cred_proxy: Ipv4Addr,
    /// git-gate, on the internal network.
    pub git_gate: Ipv4Addr,
    /// supervise, on the internal network.
    pub supervise: Ipv4Addr,
    /// The agent, on the internal network.
    pub agent: Ipv4Addr,
    /// route-pipelock, on the routes network.
    pub route_pipelock: Ipv4Addr,
    /// cred-proxy, on the routes network.
    pub cred_proxy_routes: Ipv4Addr,
    /// git-gate, on the routes network.
    pub git_gate_routes: Ipv4Addr,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No free subnets are left in the pool.
    #[error("no three free /28 subnets are left in {pool}")]
    SubnetsExhausted {
        /// The pool.
        pool: Subnet,
    },
    /// The manifest's network is not there.
    #[error("the engine has no network {name:?} (egress.network)")]
    NoNetwork {
        /// The network.
        name: String,
    },
    /// gVisor was asked for and is not there.
    #[error("the engine has no runtime \"runsc\"")]
    NoRunsc,
    /// gVisor sends past the wall on this kernel.
    #[error("runsc needs the netdev egress hook of Linux 5.16, and the engine's kernel is {kernel}")]
    WallBlind {
        /// The engine's kernel.
        kernel: String,
    },
    /// The agent would be the first process's user.
    #[error("the agent's user may not be {uid}: it is the user of the bottle's own first process")]
    ReservedUser {
        /// The user.
        uid: u32,
    },
    /// The manifest names no command, and neither does the image.
    #[error("the image {image} names no program to run")]
    NoCommand {
        /// The image.
        image: String,
    },
    /// pipelock's configuration could not be made.
    #[error("pipelock's configuration cannot be made: {0}")]
    Pipelock(String),
    /// The approved Dockerfile does not fit the bottle as it is now.
    #[error("the approved Dockerfile cannot be carried out: {0}")]
    Dockerfile(#[from] supervise::check::dockerfile::Fault),
}

impl PlanError {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::SubnetsExhausted { .. } => {
                "stop a bottle, run `launcher cleanup`, or set a larger `subnet_pool` in config.toml".to_owned()
            }
            Self::NoNetwork { name } => format!("create it (`docker network create {name}`) or take the key out"),
            Self::NoRunsc => "install gVisor in the engine, or say `runtime: auto` or `runtime: runc`".to_owned(),
            Self::WallBlind { .. } => "say `runtime: runc`, or use a newer kernel".to_owned(),
            Self::ReservedUser { .. } => "give the agent another user in the manifest (`agent.user`)".to_owned(),
            Self::NoCommand { .. } => "name one after `--`: launcher run <agent> -- PROGRAM ARGS".to_owned(),
            Self::Dockerfile(_) => "launch without it: launcher resume BOTTLE --no-dockerfile".to_owned(),
            Self::Pipelock(_) => "run `launcher check` on the bottle's manifest".to_owned(),
        }
    }
}

/// What planning must know of the machine, as far as an engine has answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The engine, when one answers.
    pub engine: Option<crate::engine::EngineFacts>,
    /// The agent's image, when the engine has it.
    pub agent_image: Option<ImageFacts>,
}

/// Plans a launch. Pure: the same order and facts give the same plan. Without engine facts everything that only an
/// engine knows is left unknown, and the plan can be printed but not carried out.
pub fn plan(order: &Order, facts: &Facts) -> Result<Plan, PlanError> {
    let addresses = network::addresses(order, facts)?;
    let routed = !order.bottle.routes.is_empty();
    let names = Names::of(&order.owner.id);
    let runtime = agent::runtime(order, facts)?;
    let session = agent::session(order, facts, &names)?;

    let mut containers: Vec<Vec<Action>> = vec![agent::created(order, facts, &addresses, &names, runtime.as_deref())];
    containers.push(sidecar::pipelock(order, &addresses, &names));
    let (by_route_pipelock, gated) = (order.bottle.needs_route_pipelock(), !order.bottle.git.remotes.is_empty());
    if by_route_pipelock {
        containers.push(sidecar::route_pipelock(order, &addresses, &names));
    }
    if routed {
        containers.push(sidecar::cred_proxy(order, &addresses, &names));
    }
    if gated {
        containers.push(sidecar::git_gate(order, &addresses, &names));
    }
    if order.bottle.supervise {
        containers.push(sidecar::supervise(order, &addresses, &names));
    }
    let mut starts = vec![vec![bring(&names.agent, "agent"), Action::Once { container: names.wall.clone() }]];
    starts.push(vec![bring(&names.pipelock, "pipelock")]);
    if by_route_pipelock {
        starts.push(vec![bring(&names.route_pipelock, "route-pipelock")]);
    }
    if routed {
        starts.push(vec![bring(&names.cred_proxy, "cred-proxy")]);
    }
    if gated {
        starts.push(vec![bring(&names.git_gate, git_gate::NAME)]);
    }
    if order.bottle.supervise {
        starts.push(vec![bring(&names.supervise, supervise::NAME)]);
    }
    // One stage: a container waits for its own networks alone.
    let mut made = network::created(order, &addresses, &names);
    made.append(&mut containers);
    let stages = vec![
        Stage { name: "networks and containers".to_owned(), lanes: made },
        Stage { name: "compare".to_owned(), lanes: vec![vec![Action::Compare]] },
        Stage { name: "start".to_owned(), lanes: starts },
    ];
    Ok(Plan {
        owner: order.owner.clone(),
        stages,
        session,
        pipelock: pipelock_config::render(&sidecar::pipelock_policy(order, &addresses)?),
        route_pipelock: by_route_pipelock
            .then(|| sidecar::route_pipelock_policy(order, &addresses))
            .transpose()?
            .map(|policy| pipelock_config::render(&policy)),
        cred_proxy: routed.then(|| sidecar::cred_proxy_config(order, &addresses)),
        git_gate: gated.then(|| sidecar::git_gate_config(order, &addresses)),
        supervise: order.bottle.supervise.then(|| sidecar::supervise_config(&addresses)),
        reach: reach::reach(order, facts),
        addresses,
    })
}

/// What brings cred-proxy, and route-pipelock where there is none yet, to a bottle that runs without routes: a plan of these
/// alone. `before` is the bottle as it is, `order` as it is to be. Pure.
pub fn first_route(running: &Plan, before: &Order, order: &Order) -> Result<Plan, PlanError> {
    let addresses = &running.addresses;
    let names = Names::of(&running.owner.id);
    let is_alone = !before.bottle.needs_route_pipelock();
    let mut made = Vec::new();
    let mut starts = Vec::new();
    if is_alone {
        made.push(network::routes(order, addresses, &names));
        made.push(sidecar::route_pipelock(order, addresses, &names));
        starts.push(vec![bring(&names.route_pipelock, "route-pipelock")]);
    }
    made.push(sidecar::cred_proxy(order, addresses, &names));
    starts.push(vec![bring(&names.cred_proxy, "cred-proxy")]);
    let policy = sidecar::route_pipelock_policy(order, addresses)?;
    Ok(Plan {
        stages: vec![
            Stage { name: "a first route".to_owned(), lanes: made },
            Stage { name: "compare".to_owned(), lanes: vec![vec![Action::Compare]] },
            Stage { name: "start".to_owned(), lanes: starts },
        ],
        route_pipelock: Some(pipelock_config::render(&policy)),
        cred_proxy: Some(sidecar::cred_proxy_config(order, addresses)),
        ..running.clone()
    })
}

/// The names of everything a bottle may have on the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The agent's network.
    pub internal: String,
    /// The way out.
    pub egress: String,
    /// Between cred-proxy, git-gate and route-pipelock.
    pub routes: String,
    /// The agent's container.
    pub agent: String,
    /// The one-shot that walls the agent's network in.
    pub wall: String,
    /// The container that an approved Dockerfile is carried out in.
    pub build: String,
    /// The one-shot that walls that one in.
    pub build_wall: String,
    /// The agent's pipelock.
    pub pipelock: String,
    /// The pipelock of the routes.
    pub route_pipelock: String,
    /// cred-proxy.
    pub cred_proxy: String,
    /// git-gate.
    pub git_gate: String,
    /// supervise.
    pub supervise: String,
}

impl Names {
    /// The names of bottle `id`.
    pub fn of(id: &str) -> Self {
        let name = |role: &str| format!("bottle-{id}-{role}");
        Self {
            internal: name("internal"),
            egress: name("egress"),
            routes: name("routes"),
            agent: name("agent"),
            wall: name("wall"),
            build: name("build"),
            build_wall: name("build-wall"),
            pipelock: name("pipelock"),
            route_pipelock: name("route-pipelock"),
            cred_proxy: name("cred-proxy"),
            git_gate: name(git_gate::NAME),
            supervise: name(supervise::NAME),
        }
    }

    /// The same with this seat's route-pipelock.
    pub fn seated(self, seat: seat::Seat) -> Self {
        let container =
            |name: &str| name.strip_suffix(sidecar::ROUTE_PIPELOCK).map(|start| format!("{start}{}", seat.role()));
        Self { route_pipelock: container(&self.route_pipelock).unwrap_or_default(), ..self }
    }
}

impl Plan {
    /// The policy that a pipelock of this role must run with; `None` for all other roles.
    pub fn policy(&self, role: &str) -> Option<&str> {
        match role {
            "pipelock" => Some(&self.pipelock),
            // One that is brought without a policy can match no file.
            role if seat::Seat::is_role(role) => Some(self.route_pipelock.as_deref().unwrap_or_default()),
            _ => None,
        }
    }

    /// Every network and container of the plan.
    pub fn made(&self) -> (Vec<&NetworkSpec>, Vec<&ContainerSpec>) {
        let mut networks = Vec::new();
        let mut containers = Vec::new();
        for action in self.stages.iter().flat_map(|s| &s.lanes).flatten() {
            match action {
                Action::Network(spec) => networks.push(spec),
                Action::Container(spec) => containers.push(spec.as_ref()),
                Action::Connect { .. }
                | Action::Provision { .. }
                | Action::Prepare { .. }
                | Action::Workspace { .. }
                | Action::Restore { .. }
                | Action::Compare
                | Action::Bring { .. }
                | Action::Once { .. } => {}
            }
        }
        (networks, containers)
    }

    /// The networks that a container is put on.
    pub fn networks_of<'a>(&'a self, container: &'a str) -> impl Iterator<Item = &'a str> {
        let actions = self.stages.iter().flat_map(|s| &s.lanes).flatten();
        actions.filter_map(move |action| match action {
            Action::Container(spec) if spec.name == container => match &spec.network {
                NetworkMode::On { network, .. } => Some(network.as_str()),
                NetworkMode::Of(_) | NetworkMode::None => None,
            },
            Action::Connect { container: connected, network, .. } if connected == container => Some(network.as_str()),
            _ => None,
        })
    }

    /// What takes the containers away that have ended by the time the agent runs.
    pub fn done_once(&self) -> Vec<crate::engine::Undo> {
        let actions = self.stages.iter().flat_map(|s| &s.lanes).flatten();
        let done = actions.filter_map(|action| match action {
            Action::Once { container } => Some(container.clone()),
            _ => None,
        });
        done.map(|name| crate::engine::Undo::RemoveContainer { name, owner: self.owner.clone() }).collect()
    }

    /// What takes all of it back, stage by stage.
    pub fn undos(&self) -> Vec<Vec<Undo>> {
        let stage = |s: &Stage| s.lanes.iter().flatten().filter_map(|action| self.undo(action)).collect();
        self.stages.iter().map(stage).collect()
    }

    /// What takes an action back; `None` where an earlier undo does.
    pub fn undo(&self, action: &Action) -> Option<Undo> {
        let owner = self.owner.clone();
        match action {
            Action::Network(spec) => {
                let (_, containers) = self.made();
                let on = containers.into_iter().map(|c| &c.name);
                let on = on.filter(|c| self.networks_of(c).any(|n| n == spec.name)).cloned().collect();
                Some(Undo::Network { name: spec.name.clone(), owner, containers: on })
            }
            Action::Container(spec) => {
                Some(Undo::Engine(crate::engine::Undo::RemoveContainer { name: spec.name.clone(), owner }))
            }
            Action::Workspace { container, .. } | Action::Restore { container } => {
                Some(Undo::SaveWorkspace { container: container.clone() })
            }
            Action::Connect { .. }
            | Action::Provision { .. }
            | Action::Prepare { .. }
            | Action::Compare
            | Action::Bring { .. }
            | Action::Once { .. } => None,
        }
    }
}

fn bring(container: &str, role: &str) -> Action {
    Action::Bring { container: container.to_owned(), role: role.to_owned() }
}
