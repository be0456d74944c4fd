//! The first route of a bottle brings cred-proxy, and route-pipelock where there is none: containers and a network more, at
//! the places that were kept for them. They are recorded before they are made, and taken back with the rest.

use super::super::nursery::Lines;
use super::Desk;
use crate::engine::Engine;
use crate::launch::Supplies;
use crate::plan::provision::Brought;
use crate::plan::{self, Addresses, Order, Plan, Undo};
use crate::undo::Saver;
use cred_proxy::config::NAME as CRED_PROXY;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use zeroize::Zeroizing;

impl<E: Engine> Desk<E> {
    /// Brings what a first route needs, with the routes of `order` in force. `addresses` say which route-pipelock is.
    pub(super) async fn bring_routes(
        &mut self,
        order: &Order,
        addresses: &Addresses,
        secret: Option<(String, cred_proxy::Secret)>,
    ) -> Result<(), String> {
        let running = Plan { addresses: addresses.clone(), ..self.plan.clone() };
        let mut plan = plan::first_route(&running, &self.order, order).map_err(|e| e.to_string())?;
        plan.cred_proxy = Some(self.table_of(order, addresses));
        let config = plan.cred_proxy.as_ref().ok_or("the plan has no table")?;
        let table = Arc::new(self.trust.table(config, &BTreeMap::new()));
        if let Some((name, secret)) = &secret {
            table.put(std::slice::from_ref(name), secret);
        }
        self.record(&plan)?;
        let names = super::takeover::names(&plan);
        let yaml = plan.route_pipelock.as_deref().unwrap_or_default();
        let supplies = self.supplies_of(BTreeMap::from([
            (names.route_pipelock, self.trust.route_pipelock(yaml)),
            (names.cred_proxy, table.line().map_err(|e| e.to_string())?),
        ]));
        for (role, sidecar) in self.carry_out(&plan, &supplies).await? {
            let told = Lines {
                feed: supplies.feeds.get(&sidecar.container).cloned().unwrap_or_default(),
                policy: plan.policy(&role).map(str::to_owned),
                table: (role == CRED_PROXY).then(|| Arc::clone(&table)),
            };
            let reach = self.nursery.take_over(sidecar, told, None);
            self.hands.insert(role, reach);
        }
        self.table = Some(table);
        Ok(())
    }

    /// Writes down what will be made, before any of it is: here for the bottle's end, on the disk for a sweep.
    pub(super) fn record(&self, plan: &Plan) -> Result<(), String> {
        let stage: Vec<Undo> =
            plan.stages.iter().flat_map(|s| &s.lanes).flatten().filter_map(|a| plan.undo(a)).collect();
        let mut undo = self.undo.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = undo.stages().to_vec();
        all.push(stage.clone());
        self.dir
            .record_undos(&plan.owner, &all)
            .map_err(|e| format!("what would be made cannot be written down: {e}"))?;
        undo.stage();
        stage.into_iter().for_each(|one| undo.push(one));
        Ok(())
    }

    /// The bytes of a plan without an agent.
    pub(super) fn supplies_of(&self, feeds: BTreeMap<String, Zeroizing<Vec<u8>>>) -> Supplies {
        // There is no agent in this plan, so nothing is brought to one.
        let brought = Brought {
            init: bytes::Bytes::new(),
            ca: String::new(),
            public_roots: String::new(),
            upstream_roots: None,
            prompt: String::new(),
            about: String::new(),
            current: BTreeMap::new(),
            home: Vec::new(),
            skills: Vec::new(),
        };
        Supplies { feeds, brought, baseline: self.dir.baseline(), saved: self.dir.workspace() }
    }
}

/// No workspace is in these containers.
pub(super) struct NothingToSave;

impl Saver for NothingToSave {
    async fn save(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
}
