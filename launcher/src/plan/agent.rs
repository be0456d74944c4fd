//! The agent's container, and what runs in it.

use super::{Action, Addresses, AgentUser, Facts, Names, Order, PlanError, Session, hardening, provision, sidecar};
use crate::engine::NetworkMode;
use crate::manifest::{Limits, Runtime};
use bottle_images::init;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Where the workspace is put.
pub const WORKSPACE: &str = "/workspace";
/// Where the launcher's own files are put.
pub const OWN_DIR: &str = "/.bottle";
/// uid and gid of the user that is added where the image would run as root.
pub const ADDED_UID: u32 = 1000;
/// Memory of the wall's container in bytes.
const WALL_MEMORY_BYTES: u64 = 64 << 20;

/// Creates the agent's container and the wall's, and fills the former; nothing runs yet.
pub fn created(
    order: &Order,
    facts: &Facts,
    addresses: &Addresses,
    names: &Names,
    runtime: Option<&str>,
) -> Vec<Action> {
    let Limits { cpus, memory_bytes, pids, disk_bytes, .. } = order.bottle.limits;
    let network =
        NetworkMode::On { network: names.internal.clone(), address: Some(addresses.agent), aliases: Vec::new() };
    let image = agent_image(order);
    let mut spec = hardening::sidecar(order, &names.agent, "agent", &image, network);
    spec.entrypoint = Some(vec![init::PATH.to_owned(), "agent".to_owned()]);
    spec.command = Some(Vec::new());
    // The first process has a user of its own, so that the agent can neither trace it nor hold its input open.
    spec.user = format!("{0}:{0}", init::UID);
    spec.workdir = Some("/".to_owned());
    spec.env = provision::environment();
    spec.hosts = sidecar::reachable(addresses);
    spec.read_only = false;
    spec.memory_bytes = memory_bytes;
    spec.nano_cpus = (cpus * 1e9).round() as u64;
    // The limit counts the first process too.
    spec.pids = pids.saturating_add(1);
    // Where the driver has no quota, asking for one is an error; there the keeper watches.
    spec.disk_bytes = facts.engine.as_ref().is_some_and(|e| e.quota).then_some(disk_bytes);
    spec.runtime = runtime.map(str::to_owned);

    let container = names.agent.clone();
    let mut lane = vec![Action::Container(Box::new(spec)), Action::Provision { container: container.clone() }];
    match (&order.workspace, &order.resumed) {
        (Some(_), Some(_)) => lane.push(Action::Restore { container }),
        (Some(from), None) => lane.push(Action::Workspace { container, from: from.clone() }),
        (None, _) => {}
    }
    lane.push(Action::Container(Box::new(wall(order, &names.wall, &names.agent, &sidecar::reachable(addresses)))));
    lane
}

/// The one-shot that joins a container's network and walls it in before the first byte of the agent runs there.
pub(super) fn wall(
    order: &Order,
    name: &str,
    walled: &str,
    reachable: &BTreeMap<String, Ipv4Addr>,
) -> crate::engine::ContainerSpec {
    let mut spec = hardening::sidecar(order, name, "wall", &order.images.wall, NetworkMode::Of(walled.to_owned()));
    spec.command = Some(reachable.values().map(ToString::to_string).collect());
    spec.user = "0:0".to_owned();
    spec.capabilities = vec!["NET_ADMIN".to_owned()];
    spec.seccomp = crate::engine::Seccomp::Wall;
    spec.memory_bytes = WALL_MEMORY_BYTES;
    spec
}

/// What runs in the agent's container, and as whom.
pub fn session(order: &Order, facts: &Facts, names: &Names) -> Result<Session, PlanError> {
    let image = facts.agent_image.as_ref();
    let provider = &order.bottle.agent.provider;
    let headless = order.prompt.is_some();
    // The operator's word, then the provider's, then the image's.
    let argv = if !order.command.is_empty() {
        Some(order.command.clone())
    } else if headless && !provider.headless.is_empty() {
        Some(provider.headless.clone())
    } else if !provider.command.is_empty() {
        Some(provider.command.clone())
    } else {
        image.map(|i| i.entrypoint.iter().chain(&i.command).cloned().collect::<Vec<_>>())
    };
    if argv.as_ref().is_some_and(Vec::is_empty) {
        return Err(PlanError::NoCommand { image: agent_image(order) });
    }
    let workdir = match &order.workspace {
        Some(_) => Some(WORKSPACE.to_owned()),
        None => image.map(|i| i.workdir.clone()).filter(|w| !w.is_empty()),
    };
    Ok(Session {
        container: names.agent.clone(),
        argv,
        user: user(order, facts)?,
        workdir,
        env: order.bottle.env.clone(),
        headless,
    })
}

/// `auto` is the image's user, or uid 1000 where that is root; root only when the manifest says so.
fn user(order: &Order, facts: &Facts) -> Result<AgentUser, PlanError> {
    let user = match (&order.bottle.agent.user, &facts.agent_image) {
        (Some(user), _) => AgentUser::OfImage(user.clone()),
        (None, None) => AgentUser::Unknown,
        (None, Some(image)) => match image.user.split(':').next().unwrap_or_default() {
            "" | "root" | "0" => AgentUser::Added,
            _ => AgentUser::OfImage(image.user.clone()),
        },
    };
    if let AgentUser::OfImage(name) = &user {
        let uid = name.split(':').next().and_then(|u| u.parse::<u32>().ok());
        if let Some(uid) = uid.filter(|uid| *uid == init::UID) {
            return Err(PlanError::ReservedUser { uid });
        }
    }
    Ok(user)
}

/// The runtime to ask for. gVisor sends raw frames, which only the netdev egress hook sees; without it `auto` is runc.
pub fn runtime(order: &Order, facts: &Facts) -> Result<Option<String>, PlanError> {
    let Some(engine) = &facts.engine else {
        return Ok(None);
    };
    let has_runsc = engine.runtimes.iter().any(|r| r == "runsc");
    let sees_frames = sees_frames(&engine.kernel);
    match order.bottle.runtime {
        Runtime::Runc => Ok(Some("runc".to_owned())),
        Runtime::Auto if has_runsc && sees_frames => Ok(Some("runsc".to_owned())),
        Runtime::Auto => Ok(None),
        Runtime::Runsc if !has_runsc => Err(PlanError::NoRunsc),
        Runtime::Runsc if !sees_frames => Err(PlanError::WallBlind { kernel: engine.kernel.clone() }),
        Runtime::Runsc => Ok(Some("runsc".to_owned())),
    }
}

/// The agent's image as the engine will know it: a reference, or the tag of what is built for this bottle.
pub fn agent_image(order: &Order) -> String {
    order.built().map_or_else(|| base_image(order), |built| built.reference.clone())
}

/// The image that the bottle's manifest says, with which a Dockerfile of its agent's must begin.
pub fn base_image(order: &Order) -> String {
    match &order.bottle.agent.image {
        crate::manifest::ImageSource::Reference(reference) => reference.clone(),
        crate::manifest::ImageSource::Dockerfile { .. } => format!("bottle/agent-{}:latest", order.bottle.name),
    }
}

/// Has this kernel the hook by which the wall sees raw frames?
pub fn sees_frames(kernel: &str) -> bool {
    kernel_at_least(kernel, (5, 16))
}

fn kernel_at_least(release: &str, (major, minor): (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(a), Some(b)) => (a, b) >= (major, minor),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        for (release, enough) in
            [("6.18.44-x", true), ("5.16.0", true), ("5.15.9", false), ("5.9", false), ("linux", false), ("", false)]
        {
            assert_eq!(kernel_at_least(release, (5, 16)), enough, "{release}");
        }
    }
}
