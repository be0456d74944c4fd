//! An approved Dockerfile as data: what image it makes, by which steps, and the little bottle that it is carried out in.
//! PURE.
//!
//! It is never given to an engine's builder. Each RUN is an exec in one container that stands where the agent's will, behind
//! the same wall, with the bottle's pipelock as the one thing it can reach; no other sidecar exists while it runs. What the
//! image says of itself comes from the image of the manifest; of the agent's text only ENV and WORKDIR are added.

use super::{Action, Facts, Names, Order, Plan, PlanError, Stage, agent, hardening, network, provision, sidecar};
use crate::engine::{ContainerSpec, ImageFacts, NetworkMode, Owner};
use crate::manifest::Limits;
use bottle_images::init;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use supervise::check::Dockerfile;
use supervise::check::dockerfile::{Fault, Instruction, Variable};

/// The role of the container that a Dockerfile is carried out in.
pub const ROLE: &str = "build";

/// What a package manager needs of root's rights. None reaches outside a container.
const CAPABILITIES: [&str; 5] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID"];

/// What an engine gives a container whose image says no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Changes when the same Dockerfile would make another image.
const FORMAT: &str = "1";

/// The image that a Dockerfile makes of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    /// All of the Dockerfile.
    pub text: String,
    /// The image that it begins with, as the manifest names it.
    pub from: String,
    /// Content address of that image; empty while it is not known.
    pub base: String,
    /// What it will be called.
    pub reference: String,
    /// What its label will say that it is made of.
    pub content: String,
}

impl Built {
    /// What a Dockerfile makes of the image of this order's manifest, whose content address is `base`. Fails when the text
    /// is none that can be carried out, or begins with another image.
    pub fn of(order: &Order, text: &str, base: &str) -> Result<Self, Fault> {
        let from = agent::base_image(order);
        Dockerfile::parse(text)?.begins_with(&from)?;
        let Owner { id, host, state, .. } = &order.owner;
        let mut content = String::new();
        for byte in Sha256::digest(format!("{:?}", (FORMAT, id, host, state, base, text))) {
            let _ = write!(content, "{byte:02x}"); // writing to a String cannot fail
        }
        // A repository's name does not end with a hyphen, as an id may; the hash has all of the id.
        let short = content.get(..12).unwrap_or_default();
        let reference = format!("bottle/agent-{}:{short}", id.trim_end_matches('-'));
        Ok(Self { text: text.to_owned(), from, base: base.to_owned(), reference, content })
    }
}

/// One step, ready to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// The line of the Dockerfile.
    pub line: usize,
    /// For people.
    pub shown: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<(String, String)>,
    /// Whom it runs as.
    pub user: String,
    /// Where.
    pub workdir: String,
}

/// The steps of a Dockerfile on an image, and what the image says of itself that they make.
pub fn deeds(base: &ImageFacts, dockerfile: &Dockerfile) -> (Vec<Deed>, ImageFacts) {
    let own = provision::environment();
    let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
    let (mut user, mut workdir) = (or(&base.user, "0:0"), or(&base.workdir, "/"));
    let mut env: Vec<(String, String)> =
        base.env.iter().filter_map(|line| line.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let mut deeds = Vec::new();
    for step in dockerfile.steps() {
        let shell = |text: &str| ["/bin/sh", "-c", text].map(str::to_owned).to_vec();
        let deed = |shown: String, argv, user: &str, workdir: &str, env: &[(String, String)]| {
            // The way out and the certificates are the exec's alone, and win: nothing of them is in the image.
            let outside = env.iter().filter(|(name, _)| !own.contains_key(name)).cloned();
            let env = outside.chain(own.iter().map(|(n, v)| (n.clone(), v.clone()))).collect();
            Deed { line: step.line, shown, argv, env, user: user.to_owned(), workdir: workdir.to_owned() }
        };
        match &step.instruction {
            Instruction::Run(text) => {
                deeds.push(deed(shown(text), shell(text), &user, &workdir, &env));
            }
            Instruction::Env(variables) => variables.iter().for_each(|variable| set(&mut env, variable)),
            Instruction::Workdir(path) => {
                // As a builder does it: root makes it.
                let argv = ["/bin/sh", "-c", "mkdir -p -- \"$0\"", path].map(str::to_owned).to_vec();
                deeds.push(deed(format!("WORKDIR {path}"), argv, "0:0", "/", &env));
                workdir.clone_from(path);
            }
            Instruction::User(name) => user.clone_from(name),
        }
    }
    let made = ImageFacts {
        id: String::new(),
        digests: Vec::new(),
        // Whom steps run as says nothing of whom the agent runs as.
        user: or(&base.user, "0:0"),
        env: env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        workdir,
        content: String::new(),
        ..base.clone()
    };
    (deeds, made)
}

/// A RUN for a line of progress.
fn shown(text: &str) -> String {
    const CHARACTERS_MAX: usize = 160;
    let cut: String = text.chars().take(CHARACTERS_MAX).collect();
    format!("RUN {cut}{}", if cut.len() < text.len() { " …" } else { "" })
}

fn set(env: &mut Vec<(String, String)>, variable: &Variable) {
    let old = |env: &[(String, String)], name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let (name, value) = match variable {
        Variable::Plain { name, value } => (name.clone(), value.clone()),
        Variable::Path { before, after } => {
            let path = old(env, "PATH").unwrap_or_else(|| PATH.to_owned());
            ("PATH".to_owned(), format!("{before}{path}{after}"))
        }
    };
    env.retain(|(n, _)| *n != name);
    env.push((name, value));
}

/// The bottle that a Dockerfile is carried out in: networks, the agent's pipelock, and one container behind a wall that
/// lets it reach nothing but that pipelock. `facts.agent_image` is the image that the Dockerfile begins with.
pub fn plan(order: &Order, facts: &Facts) -> Result<Plan, PlanError> {
    let plain = Order { resumed: None, workspace: None, ..order.clone() };
    let whole = super::plan(&plain, facts)?;
    let (names, addresses) = (Names::of(&order.owner.id), whole.addresses.clone());
    let reachable = BTreeMap::from([(sidecar::PIPELOCK.to_owned(), addresses.pipelock)]);
    let place =
        NetworkMode::On { network: names.internal.clone(), address: Some(addresses.agent), aliases: Vec::new() };
    let image = facts.agent_image.as_ref().map(|image| image.id.clone()).unwrap_or_default();
    let Limits { cpus, memory_bytes, pids, disk_bytes, .. } = order.bottle.limits;
    let build = ContainerSpec {
        entrypoint: Some(vec![init::PATH.to_owned(), "agent".to_owned()]),
        command: Some(Vec::new()),
        // Root, unlike the agent's: with no-new-privileges no step could have a right that the first process has not. That one
        // cannot be traced, opened or ended by the steps all the same: it is not dumpable, and first in its namespace.
        user: "0:0".to_owned(),
        workdir: Some("/".to_owned()),
        hosts: reachable.clone(),
        read_only: false,
        memory_bytes,
        nano_cpus: (cpus * 1e9).round() as u64,
        pids: pids.saturating_add(1),
        disk_bytes: facts.engine.as_ref().is_some_and(|e| e.quota).then_some(disk_bytes),
        runtime: agent::runtime(order, facts)?,
        capabilities: CAPABILITIES.map(str::to_owned).into(),
        ..hardening::sidecar(order, &names.build, ROLE, &image, place)
    };
    let wall = agent::wall(order, &names.build_wall, &names.build, &reachable);
    let container = names.build.clone();
    let mut made: Vec<Vec<Action>> = network::created(&plain, &addresses, &names);
    made.retain(|lane| !lane.iter().any(|action| matches!(action, Action::Network(spec) if spec.name == names.routes)));
    made.push(vec![
        Action::Container(Box::new(build)),
        Action::Prepare { container },
        Action::Container(Box::new(wall)),
    ]);
    made.push(sidecar::pipelock(order, &addresses, &names));
    let starts = vec![
        vec![super::bring(&names.build, ROLE), Action::Once { container: names.build_wall.clone() }],
        vec![super::bring(&names.pipelock, sidecar::PIPELOCK)],
    ];
    Ok(Plan {
        stages: vec![
            Stage { name: "a place to build in".to_owned(), lanes: made },
            Stage { name: "compare".to_owned(), lanes: vec![vec![Action::Compare]] },
            Stage { name: "start".to_owned(), lanes: starts },
        ],
        // Nothing that holds a credential exists while it runs.
        route_pipelock: None,
        cred_proxy: None,
        git_gate: None,
        supervise: None,
        ..whole
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use supervise::check::dockerfile::is_reserved;

    fn base() -> ImageFacts {
        ImageFacts {
            id: "sha256:0".to_owned(),
            user: "node".to_owned(),
            entrypoint: vec!["/entry".to_owned()],
            command: vec!["cmd".to_owned()],
            env: vec!["PATH=/bin".to_owned(), "A=0".to_owned()],
            ..ImageFacts::default()
        }
    }

    #[test]
    fn what_a_bottle_sets_no_dockerfile_does() {
        for name in provision::environment().keys() {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["ANTHROPIC_BASE_URL", "OPENAI_BASE_URL", "npm_config_registry", "HOME", "TERM"] {
            assert!(is_reserved(name), "{name}");
        }
        assert!(!is_reserved("RUST_LOG"));
    }

    #[test]
    fn steps_run_as_they_say_and_the_image_says_what_its_base_does() {
        let text = "FROM a\nRUN one\nENV A=1 PATH=/x:$PATH:/y\nUSER root\nWORKDIR /w\nRUN two\n";
        let (deeds, made) = deeds(&base(), &Dockerfile::parse(text).unwrap());
        let who: Vec<_> = deeds.iter().map(|d| (d.line, d.user.as_str(), d.workdir.as_str())).collect();
        assert_eq!(who, [(2, "node", "/"), (5, "0:0", "/"), (6, "root", "/w")]);
        assert_eq!(deeds[2].argv, ["/bin/sh", "-c", "two"]);
        let env: BTreeMap<_, _> = deeds[2].env.iter().cloned().collect();
        assert_eq!((env["A"].as_str(), env["PATH"].as_str()), ("1", "/x:/bin:/y"));
        assert_eq!(env["https_proxy"], "http://pipelock:8888", "the way out is the exec's");
        assert_eq!((made.user.as_str(), made.workdir.as_str()), ("node", "/w"), "USER is for the steps alone");
        assert_eq!((made.entrypoint, made.command), (base().entrypoint, base().command));
        assert_eq!(made.env, ["A=1", "PATH=/x:/bin:/y"], "nothing of the build is in the image");
    }
}
