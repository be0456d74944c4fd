//! What route-pipelock does not take while it runs is done by another one: it is started on a free seat with the new
//! policy, new requests of cred-proxy and git-gate go to it, and the one before ends when its streams have.

use super::super::nursery::{Lines, Reach};
use super::super::order::Order as Sidecars;
use super::{Desk, News};
use crate::engine::Engine;
use crate::error::chain;
use crate::launch::Launch;
use crate::plan::seat::{self, Seat};
use crate::plan::{Addresses, Names, Order, Plan, Undo};
use crate::stop;
use crate::undo::UndoStack;
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

/// How long streams may stay on a route-pipelock whose place another one has taken.
pub(super) const DRAIN_WITHIN: Duration = Duration::from_secs(3600);

impl<E: Engine> Desk<E> {
    /// The role of the route-pipelock in force.
    pub(super) fn way(&self) -> String {
        Seat::of(&self.addresses).role()
    }

    /// Starts another route-pipelock with the policy of `order` on a free seat. Nobody is told to go there yet.
    pub(super) async fn seat(&mut self, order: &Order) -> Result<Seat, String> {
        let free = Seat::all().find(|seat| !self.hands.contains_key(&seat.role()));
        let seat = free.ok_or("the streams of earlier changes have not ended yet: try again when they have")?;
        let plan = seat::takeover(&self.plan, order, seat).map_err(|e| e.to_string())?;
        self.record(&plan)?;
        let container = seat.container(&plan.owner.id);
        let feed = self.trust.route_pipelock(plan.route_pipelock.as_deref().unwrap_or_default());
        let supplies = self.supplies_of(BTreeMap::from([(container, feed)]));
        let sidecars = self.carry_out(&plan, &supplies).await?;
        for (role, sidecar) in sidecars {
            let told = Lines {
                feed: supplies.feeds.get(&sidecar.container).cloned().unwrap_or_default(),
                policy: plan.policy(&role).map(str::to_owned),
                table: None,
            };
            let reach = self.nursery.take_over(sidecar, told, None);
            self.hands.insert(role, reach);
        }
        Ok(seat)
    }

    /// Carries a plan out that was recorded. What cannot be had is taken back.
    pub(super) async fn carry_out(
        &self,
        plan: &Plan,
        supplies: &crate::launch::Supplies,
    ) -> Result<BTreeMap<String, crate::control::Sidecar>, String> {
        // Nothing stops it half way but its own limits: what it makes is taken back by whoever ends the bottle.
        let (_stopper, stop) = stop::channel();
        let quiet = |_: &str| {};
        let launch = Launch::new(&*self.shared.engine, plan, supplies, &stop, &self.shared.log, &quiet, &quiet);
        let mut undo = UndoStack::default();
        match launch.carry_out(&mut undo).await {
            Ok(sidecars) => Ok(sidecars),
            Err(error) => {
                // The containers that were started have ended with their input.
                let left = undo.unwind(&*self.shared.engine, &super::first::NothingToSave).await;
                left.iter().for_each(|leftover| self.log("err", &format!("could not be taken back yet: {leftover}")));
                Err(chain(&error))
            }
        }
    }

    /// git-gate goes out by the seat of these addresses from now on, where it goes out by one at all.
    pub(super) async fn gate_goes_by(&self, addresses: &Addresses) -> Result<(), String> {
        match &self.gate {
            Some(gate) if gate.go_by(seat::proxy(addresses)) => self.tell_gate().await,
            Some(_) | None => Ok(()),
        }
    }

    /// Tells git-gate how its table is now; one that does not run is told when it starts.
    pub(super) async fn tell_gate(&self) -> Result<(), String> {
        let (Some(gate), Some(reach)) = (&self.gate, self.hands.get(git_gate::NAME)) else { return Ok(()) };
        let line = gate.line()?;
        let feed = |reach: &Reach| -> Result<(), String> {
            let mut feed = reach.feed.lock().unwrap_or_else(PoisonError::into_inner);
            *feed = gate.first_line_of(&feed)?;
            Ok(())
        };
        feed(reach)?;
        self.order_of(git_gate::NAME, |reply| Sidecars::Command { line, reply }).await.map_err(|e| e.to_string())
    }

    /// This seat is in force: the one before serves what is open on it to its end.
    pub(super) async fn sit_down(&mut self, seat: Seat) {
        let before = self.way();
        self.addresses = seat.in_force(&self.addresses);
        self.plan.addresses = self.addresses.clone();
        self.log("out", &format!("{} takes over from {before}", seat.role()));
        self.dismiss(&before, DRAIN_WITHIN).await;
    }

    /// A route-pipelock that is not in force ends with its last stream, or after this time.
    pub(super) async fn dismiss(&self, role: &str, within: Duration) {
        if let Some(reach) = self.hands.get(role)
            && reach.orders.send(Sidecars::Retire { within }).await.is_err()
        {
            self.log("err", &format!("{role} cannot be told to end; it ends with the bottle"));
        }
    }

    /// Something has become of a sidecar, or of what one holds.
    pub(super) async fn hear(&mut self, news: News) {
        match news {
            News::Restarted(role) => self.restarted(&role).await,
            News::Retired(role) => self.retired(&role),
            News::UsedUp(path) => self.used_up(&path).await,
            News::Renewed(secret) => self.know(&secret).await,
        }
    }

    /// A seat is free again: what would take its container back is forgotten, here and on the disk.
    fn retired(&mut self, role: &str) {
        self.hands.remove(role);
        let container = format!("bottle-{}-{role}", self.plan.owner.id);
        let gone =
            Undo::Engine(crate::engine::Undo::RemoveContainer { name: container, owner: self.plan.owner.clone() });
        let mut undo = self.undo.lock().unwrap_or_else(PoisonError::into_inner);
        undo.forget(&gone);
        // An old record names what is gone, which is no harm.
        if let Err(error) = self.dir.record_undos(&self.plan.owner, undo.stages()) {
            self.log("err", &format!("the record of the plan cannot be written: {error}"));
        }
    }

    /// No push may hold this from now on.
    pub(super) async fn know(&self, secret: &cred_proxy::Secret) {
        let is_new = self.gate.as_ref().is_some_and(|gate| gate.know(secret.expose()));
        if is_new && let Err(error) = self.tell_gate().await {
            self.log("err", &format!("git-gate is not told of a credential: {error}"));
        }
    }
}

/// The names of a bottle whose route-pipelock has this seat.
pub(super) fn names(plan: &Plan) -> Names {
    Names::of(&plan.owner.id).seated(Seat::of(&plan.addresses))
}
