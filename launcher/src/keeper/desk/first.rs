//! The first route of a bottle brings cred-proxy, and route-pipelock where there is none: containers and a network more, at
//! the places that were kept for them. They are recorded before they are made, and taken back with the rest.

use super::super::tend::Lines;
use super::Desk;
use crate::engine::Engine;
use crate::error::chain;
use crate::launch::{Launch, Supplies};
use crate::plan::provision::Brought;
use crate::plan::{self, Names, Order, Plan, Undo};
use crate::stop;
use crate::undo::{Saver, UndoStack};
use cred_proxy::config::NAME as CRED_PROXY;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

impl<E: Engine> Desk<E> {
    /// Brings what a first route needs, with the routes of `order` in force.
    pub(super) async fn bring_routes(
        &mut self,
        order: &Order,
        secret: Option<(String, cred_proxy::Secret)>,
    ) -> Result<(), String> {
        let plan = plan::first_route(&self.plan, &self.order, order).map_err(|e| e.to_string())?;
        let config = plan.cred_proxy.as_ref().ok_or("the plan has no table")?;
        let table = Arc::new(self.trust.table(config, &BTreeMap::new()));
        if let Some((name, secret)) = &secret {
            table.put(std::slice::from_ref(name), secret);
        }
        self.record(&plan)?;
        let supplies = self.supplies(&plan, &table)?;
        // Nothing stops it half way but its own limits: what it makes is taken back by whoever ends the bottle.
        let (_stopper, stop) = stop::channel();
        let (shared, quiet) = (Arc::clone(&self.shared), |_: &str| {});
        let launch = Launch::new(&*shared.engine, &plan, &supplies, &stop, &shared.log, &quiet, &quiet);
        let mut undo = UndoStack::default();
        let sidecars = match launch.carry_out(&mut undo).await {
            Ok(sidecars) => sidecars,
            Err(error) => {
                // The containers that were started have ended with their input.
                let left = undo.unwind(&*shared.engine, &NothingToSave).await;
                left.iter().for_each(|leftover| self.log("err", &format!("could not be taken back yet: {leftover}")));
                return Err(chain(&error));
            }
        };
        for (role, sidecar) in sidecars {
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
    fn record(&self, plan: &Plan) -> Result<(), String> {
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

    fn supplies(&self, plan: &Plan, table: &super::super::table::Table) -> Result<Supplies, String> {
        let names = Names::of(&plan.owner.id);
        let yaml = plan.route_pipelock.as_deref().unwrap_or_default();
        let feeds = BTreeMap::from([
            (names.route_pipelock, self.trust.route_pipelock(yaml)),
            (names.cred_proxy, table.line().map_err(|e| e.to_string())?),
        ]);
        // There is no agent in this plan, so nothing is brought to one.
        let brought = Brought {
            init: bytes::Bytes::new(),
            ca: String::new(),
            public_roots: String::new(),
            upstream_roots: None,
            prompt: String::new(),
            about: String::new(),
            home: Vec::new(),
            skills: Vec::new(),
        };
        Ok(Supplies { feeds, brought, baseline: self.dir.baseline(), saved: self.dir.workspace() })
    }
}

/// No workspace is in these containers.
struct NothingToSave;

impl Saver for NothingToSave {
    async fn save(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
}
