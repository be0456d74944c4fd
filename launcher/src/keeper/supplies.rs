//! The bytes of a launch: certificate authorities, what each container is told, what goes into the agent's. They are
//! made for one launch, and exist here, in the containers' memory, and nowhere else.

use super::Charge;
use super::table::Table;
use crate::ca::{self, Authority};
use crate::error::{Failure, chain};
use crate::launch::Supplies;
use crate::plan::provision::Brought;
use crate::plan::{Names, Plan, roles};
use crate::state::BottleDir;
use bottle_images::init::Frame;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Makes everything that the plan names, and cred-proxy's table when there are routes.
pub fn supplies(plan: &Plan, charge: &Charge, dir: &BottleDir) -> Result<(Supplies, Option<Table>), Failure> {
    let names = Names::of(&plan.owner.id);
    let minted = |name: String| Authority::mint(&name).map_err(|e| Failure::launch(chain(&e), None));
    let public = ca::public_roots_pem();
    let upstream = charge.order.bottle.egress.upstream_roots.clone();
    let roots = format!("{public}{}", upstream.as_deref().unwrap_or_default());

    let own = minted(plan.owner.id.clone())?;
    let mut feeds = BTreeMap::from([(names.pipelock.clone(), pipelock(&plan.pipelock, &own, &roots))]);
    let mut told = None;
    if let (Some(yaml), Some(table)) = (&plan.route_pipelock, &plan.cred_proxy) {
        let routes = minted(format!("{} routes", plan.owner.id))?;
        feeds.insert(names.route_pipelock.clone(), pipelock(yaml, &routes, &roots));
        let table = cred_proxy::config::Config {
            inspected_ca: Some(routes.certificate_pem().to_owned()),
            upstream_roots: roots.clone(),
            ..table.clone()
        };
        let table = Table::new(table, &charge.credentials);
        let line = table.line().map_err(|e| Failure::launch(e.to_string(), None))?;
        feeds.insert(names.cred_proxy.clone(), line);
        told = Some(table);
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
        home: roles::files(&charge.order.bottle.routes),
    };
    Ok((Supplies { feeds, brought, baseline: dir.baseline() }, told))
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
    feed.extend_from_slice(&file(pipelock_config::CONFIG_FILE, 0o600, yaml));
    feed.extend_from_slice(&Frame::Run.encode());
    feed
}

/// What the agent may know of its bottle: what it can reach, and nothing about the operator's machine.
fn about(plan: &Plan) -> String {
    let routes: Vec<_> = plan
        .reach
        .routes
        .iter()
        .map(|r| serde_json::json!({ "url": roles::url(&r.path), "upstream": r.upstream, "allow": r.allow }))
        .collect();
    let about = serde_json::json!({
        "hosts": plan.reach.hosts,
        "not_inspected": plan.reach.not_inspected,
        "routes": routes,
        "limits": plan.reach.limits,
    });
    format!("{about:#}\n")
}
