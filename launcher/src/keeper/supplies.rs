//! The bytes of a launch: certificate authorities, what each container is told, what goes into the agent's. They are
//! made for one launch, and exist here, in the containers' memory, and nowhere else.

use super::gate::Gate;
use super::order::policy_file;
use super::table::Table;
use super::{Charge, current};
use crate::ca::{self, Authority};
use crate::error::{Failure, chain};
use crate::launch::Supplies;
use crate::manifest::EnvValue;
use crate::plan::provision::{self, Brought};
use crate::plan::{Names, Plan, git_config, home, roles, sidecar};
use crate::state::BottleDir;
use bottle_images::init::Frame;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use zeroize::Zeroizing;

/// What was made for a launch.
pub struct Made {
    /// The bytes.
    pub supplies: Supplies,
    /// What cred-proxy is told, when there are routes.
    pub table: Option<Arc<Table>>,
    /// What git-gate is told, when there are remotes.
    pub gate: Option<Arc<Gate>>,
    /// What routes trust, also those that come later.
    pub trust: Arc<Trust>,
}

/// What routes trust: route-pipelock's own authority, and the roots of the outside.
pub struct Trust {
    routes: Authority,
    roots: String,
}

impl Trust {
    /// What a route-pipelock is told.
    pub fn route_pipelock(&self, yaml: &str) -> Zeroizing<Vec<u8>> {
        pipelock(yaml, &self.routes, &self.roots)
    }

    /// cred-proxy's table with what it trusts.
    pub fn table(&self, config: &cred_proxy::config::Config, credentials: &BTreeMap<String, String>) -> Table {
        let config = cred_proxy::config::Config {
            inspected_ca: Some(self.routes.certificate_pem().to_owned()),
            upstream_roots: self.roots.clone(),
            ..config.clone()
        };
        Table::new(config, credentials)
    }
}

/// Makes everything that the plan names, and cred-proxy's table when there are routes.
pub fn supplies(plan: &Plan, charge: &Charge, dir: &BottleDir) -> Result<Made, Failure> {
    let names = Names::of(&plan.owner.id);
    let minted = |name: String| Authority::mint(&name).map_err(|e| Failure::launch(chain(&e), None));
    let public = ca::public_roots_pem();
    let upstream = charge.order.bottle.egress.upstream_roots.clone();
    let roots = format!("{public}{}", upstream.as_deref().unwrap_or_default());

    let own = minted(plan.owner.id.clone())?;
    let mut feeds = BTreeMap::from([(names.pipelock.clone(), pipelock(&plan.pipelock, &own, &roots))]);
    let mut told = None;
    let trust = Trust { routes: minted(format!("{} routes", plan.owner.id))?, roots: roots.clone() };
    if let Some(yaml) = &plan.route_pipelock {
        feeds.insert(names.route_pipelock.clone(), trust.route_pipelock(yaml));
    }
    let gate = plan.git_gate.as_ref().map(|config| Arc::new(git_gate(config, charge, &roots)));
    if let Some(gate) = &gate {
        feeds.insert(names.git_gate.clone(), gate.line().map_err(|e| Failure::launch(e, None))?);
    }
    if let Some(config) = &plan.supervise {
        let current = Box::new(current::current(&charge.order, Vec::new()));
        let answers = match &charge.order.resumed {
            Some(_) => super::desk::answers(&dir.proposals())
                .map_err(|e| Failure::launch(format!("what was asked before cannot be read: {e}"), None))?,
            None => Vec::new(),
        };
        let told = supervise::config::Command::Configure { config: config.clone(), current, answers };
        let line = super::tend::supervise_line(&told)
            .ok_or_else(|| Failure::launch("supervise's configuration cannot be written", None))?;
        feeds.insert(names.supervise.clone(), Zeroizing::new(line));
    }
    if let Some(config) = &plan.cred_proxy {
        let table = trust.table(config, &charge.credentials);
        let line = table.line().map_err(|e| Failure::launch(e.to_string(), None))?;
        feeds.insert(names.cred_proxy.clone(), line);
        told = Some(Arc::new(table));
    }
    let program = std::fs::read(&charge.init)
        .map_err(|e| Failure::launch(format!("{} cannot be read: {e}", charge.init.display()), None))?;
    let brought = Brought {
        init: program.into(),
        ca: own.certificate_pem().to_owned(),
        public_roots: public,
        upstream_roots: upstream,
        prompt: charge.order.agent.prompt.clone(),
        about: about(plan),
        current: current::files(&current::current(&charge.order, Vec::new())),
        home: home::files(&charge.order.bottle, &charge.order.agent).map_err(|e| Failure::launch(e, None))?,
        skills: home::skills(&charge.order.bottle, &charge.order.agent),
    };
    let supplies = Supplies { feeds, brought, baseline: dir.baseline(), saved: dir.workspace() };
    Ok(Made { supplies, table: told, gate, trust: Arc::new(trust) })
}

/// Everything of a pipelock arrives before it starts: it reads its files once.
fn pipelock(yaml: &str, ca: &Authority, roots: &str) -> Zeroizing<Vec<u8>> {
    let file = |name: &str, mode, text: &str| {
        let path = pipelock_config::path(name);
        Zeroizing::new(Frame::File { path, mode, bytes: text.as_bytes().to_vec() }.encode())
    };
    let mut feed = Zeroizing::new(Vec::new());
    feed.extend_from_slice(&file(pipelock_config::ROOTS_FILE, 0o600, roots));
    feed.extend_from_slice(&file(pipelock_config::CA_FILE, 0o600, ca.certificate_pem()));
    feed.extend_from_slice(&file(pipelock_config::CA_KEY_FILE, pipelock_config::CA_KEY_MODE, ca.key_pem().expose()));
    feed.extend_from_slice(&policy_file(yaml));
    feed.extend_from_slice(&Frame::Run.encode());
    feed
}

/// What a pipelock is told that starts with another policy: the policy comes last, and then the order to run.
pub fn with_policy(feed: &[u8], old: &str, new: &str) -> Zeroizing<Vec<u8>> {
    let [old, new] = [old, new].map(|yaml| [policy_file(yaml), Frame::Run.encode()].concat());
    let kept = feed.strip_suffix(old.as_slice());
    // A feed that does not end as it was made is told as it is, and fails the check that a start ends with.
    Zeroizing::new(kept.map_or_else(|| feed.to_vec(), |kept| [kept, new.as_slice()].concat()))
}

/// git-gate's configuration with what opens its remotes, and everything else that no push may hold: the credentials of
/// the routes, and what the operator was asked for.
fn git_gate(config: &git_gate::config::Config, charge: &Charge, roots: &str) -> Gate {
    let secret = |value: &String| git_gate::Secret::new(value.clone());
    let mut config = git_gate::config::Config { upstream_roots: roots.to_owned(), ..config.clone() };
    let secrets: BTreeMap<String, git_gate::Secret> =
        charge.remote_credentials.iter().map(|(name, value)| (name.clone(), secret(value))).collect();
    for remote in &mut config.remotes {
        if let git_gate::config::Credential::SshKey { passphrase, .. } = &mut remote.credential {
            let name = sidecar::passphrase_name(&remote.name);
            *passphrase = secrets.contains_key(&name).then_some(name);
        }
    }
    let is_asked = |name: &String| matches!(charge.order.bottle.env.get(name), Some(EnvValue::Ask(_)));
    let asked = charge.env.iter().filter(|(name, _)| is_asked(name)).map(|(_, value)| value);
    let known: BTreeSet<&str> = charge.credentials.values().chain(asked).map(String::as_str).collect();
    Gate::new(config, secrets, known)
}

/// What the agent may know of its bottle: what it can reach, and nothing about the operator's machine.
fn about(plan: &Plan) -> String {
    let routes: Vec<_> = plan
        .reach
        .routes
        .iter()
        .map(|r| serde_json::json!({ "url": roles::url(&r.path), "upstream": r.upstream, "allow": r.allow }))
        .collect();
    let remotes: Vec<_> = plan
        .reach
        .remotes
        .iter()
        .map(|r| serde_json::json!({ "url": git_config::address(&r.name), "upstream": r.upstream, "push": r.push }))
        .collect();
    let about = serde_json::json!({
        "hosts": plan.reach.hosts,
        "not_inspected": plan.reach.not_inspected,
        "routes": routes,
        "remotes": remotes,
        "limits": plan.reach.limits,
        "current_config": provision::CURRENT,
        "ask_for_more": plan.supervise.as_ref().map(|_| format!("http://{}:{}{}", supervise::NAME, supervise::PORT, supervise::config::PATH)),
    });
    format!("{about:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_policy_takes_the_place_of_the_one_before() {
        let ca = Authority::mint("test").unwrap();
        let (before, after) = (pipelock("a: 1\n", &ca, "roots"), pipelock("b: 2\n", &ca, "roots"));
        assert_eq!(with_policy(&before, "a: 1\n", "b: 2\n"), after);
        assert_eq!(with_policy(&with_policy(&before, "a: 1\n", "b: 2\n"), "b: 2\n", "a: 1\n"), before);
        assert_eq!(with_policy(&before, "c: 3\n", "b: 2\n"), before, "what does not fit is left as it is");
    }
}
