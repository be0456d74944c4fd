//! Routes while a bottle runs: route-pipelock first, by a reload or by another one that takes over, then a look whether the
//! host is open, then cred-proxy's table. No stream of another route drops.

use super::super::order::{Order as Sidecars, Setback};
use super::{Desk, state};
use crate::control::Probed;
use crate::credentials;
use crate::engine::Engine;
use crate::keeper::table::Table;
use crate::manifest::{Route, TokenRef, Upstream};
use crate::plan::seat::Seat;
use crate::plan::{Addresses, Order, sidecar};
use crate::verdict::Terms;
use cred_proxy::config::{Auth, NAME as CRED_PROXY};
use pipelock_config::{Reload, reload_allowed, render};
use std::sync::Arc;
use std::time::Duration;
use supervise::queue::{Cause, Term};
use supervise::wire::Route as Asked;

/// The one answer of pipelock's that means "closed".
const CLOSED: &str = "not in allowlist";

/// A route as it would be in force: without a credential nothing is put in, whatever was asked for.
pub(super) fn with_credential(asked: Asked, terms: &Terms) -> Result<Asked, String> {
    match (&terms.token_ref, asked.scheme.as_str()) {
        (Some(_), "none") => {
            Err("a route with the scheme `none` takes no credential; --edit changes the scheme".to_owned())
        }
        (Some(_), _) => Ok(asked),
        (None, _) => Ok(Asked { scheme: "none".to_owned(), ..asked }),
    }
}

/// The route of a manifest that says the same.
pub(super) fn of(asked: &Asked, terms: &Terms) -> Result<Route, String> {
    let auth = match asked.scheme.as_str() {
        "Bearer" => Auth::Bearer,
        "token" => Auth::Token,
        "Basic" => Auth::Basic,
        "none" => Auth::None,
        other => match other.strip_prefix("header:") {
            Some(name) => Auth::Header(name.trim().to_owned()),
            None => return Err(format!("there is no scheme {other:?}")),
        },
    };
    Ok(Route {
        path: asked.path.clone(),
        upstream: Upstream::parse(&asked.upstream)?,
        auth,
        token_ref: terms.token_ref.clone(),
        // What a person did not say otherwise of is read.
        inspect: !terms.no_inspect,
        roles: Vec::new(),
        allow: asked.allow.clone(),
        line: 0,
    })
}

/// How route-pipelock comes to let a route through.
enum Way {
    /// There is none yet: it begins with the route.
    Begins,
    /// It lets it through already.
    Is,
    /// It takes this policy while it runs.
    Reload(String),
    /// Another one takes over.
    TakeOver,
}

impl<E: Engine> Desk<E> {
    /// What follows from a route; `Err`: why it cannot be had while the bottle runs.
    pub(super) fn route_facts(&self, asked: &Asked, terms: &Terms) -> Result<Vec<String>, String> {
        let route = self.like_its_host(of(asked, terms)?)?;
        let (_, way) = self.plan_route(&route)?;
        let mut facts = vec![match &route.token_ref {
            Some(from) => format!("its credential is {}; it is read now, and the agent never sees it", from.shown()),
            None => "no credential is put in; --token-ref names one".to_owned(),
        }];
        facts.push(
            match (route.inspect, terms.no_inspect) {
                (true, _) => "its TLS is opened and read",
                (false, true) => "its TLS is not opened: pipelock does not see what goes there",
                (false, false) => "its TLS is not opened, as that of its host's other routes",
            }
            .to_owned(),
        );
        if matches!(way, Way::TakeOver) {
            facts.push(format!(
                "another route-pipelock takes over; what is open on the one before goes on, for {} at most",
                crate::verdict::page::age(super::takeover::DRAIN_WITHIN.as_secs())
            ));
        }
        facts.push(match (terms.once, terms.seconds) {
            (true, _) => {
                "the first request that goes by it uses it up; it ends with the bottle's at the latest".to_owned()
            }
            (false, Some(seconds)) => {
                format!("it ends after {}, and what is open on it is cut", crate::verdict::page::age(seconds))
            }
            (false, None) => "it holds until the bottle ends or it is taken back".to_owned(),
        });
        Ok(facts)
    }

    /// A host's TLS is opened or not, for all of its routes and remotes.
    fn like_its_host(&self, route: Route) -> Result<Route, String> {
        let bottle = &self.order.bottle;
        let host = &route.upstream.host;
        let by_remote = bottle.git.remotes.iter().any(|r| r.upstream.is_https() && r.upstream.host() == host);
        let other = bottle.routes.iter().find(|other| other.upstream.host == *host);
        match other.map(|other| other.inspect).or(by_remote.then_some(false)) {
            Some(true) if !route.inspect => Err(format!("the TLS of {host} is opened for its other routes")),
            Some(inspect) => Ok(Route { inspect, ..route }),
            None => Ok(route),
        }
    }

    /// The bottle with the route, and how route-pipelock comes to let it through.
    fn plan_route(&self, route: &Route) -> Result<(Order, Way), String> {
        let mut order = self.order.clone();
        order.bottle.routes.push(route.clone());
        // Where nothing stands on the routes' network yet, it begins with the new policy.
        if !self.hands.contains_key(&self.way()) {
            return Ok((order, Way::Begins));
        }
        let [old, new] = [&self.order, &order].map(|order| sidecar::route_pipelock_policy(order, &self.addresses));
        let (old, new) = (old.map_err(|e| e.to_string())?, new.map_err(|e| e.to_string())?);
        let way = match reload_allowed(&old, &new) {
            Reload::Restart(_) => Way::TakeOver,
            Reload::Hot if render(&old) == render(&new) => Way::Is,
            Reload::Hot => Way::Reload(render(&new)),
        };
        Ok((order, way))
    }

    /// Puts a route in force.
    pub(super) async fn open_route(&mut self, id: &str, asked: &Asked, once: bool) -> Result<String, String> {
        let route = self.beyond.routes.get(id).cloned().ok_or("the route is lost")?;
        let route = self.like_its_host(route)?;
        self.beyond.routes.insert(id.to_owned(), route.clone());
        let (order, way) = self.plan_route(&route)?;
        let secret = match &route.token_ref {
            Some(from) => Some((route.path.clone(), self.read_credential(from).await?)),
            None => None,
        };
        if let Some((_, secret)) = &secret {
            self.know(secret).await;
        }
        // What an earlier try left behind says nothing of this one.
        match once {
            true => self.beyond.once.insert(route.path.clone()),
            false => self.beyond.once.remove(&route.path),
        };
        let begins = matches!(way, Way::Begins);
        let seat = match way {
            Way::Begins | Way::Is => None,
            Way::TakeOver => Some(self.seat(&order).await?),
            Way::Reload(yaml) => {
                match self.order_of(&self.way(), |reply| Sidecars::Reload { yaml, reply }).await {
                    Ok(()) => None,
                    // It is as it was.
                    Err(Setback::Refused(_)) => Some(self.seat(&order).await?),
                    Err(broken @ Setback::Broken(_)) => return Err(broken.to_string()),
                }
            }
        };
        let addresses = seat.map_or_else(|| self.addresses.clone(), |seat| seat.in_force(&self.addresses));
        if let Err(why) = self.move_to(&route, &order, &addresses, begins, secret).await {
            let back = self.move_back(&route, seat).await;
            return Err(std::iter::once(why).chain(back).collect::<Vec<_>>().join("; "));
        }
        if let Some(seat) = seat {
            self.sit_down(seat).await;
        }
        if let (Some(table), Some(reach)) = (&self.table, self.hands.get(CRED_PROXY)) {
            self.nursery.keep_fresh(reach, table, &route);
        }
        self.order = order;
        Ok(format!(
            "open now: http://{CRED_PROXY}:{}{} leads to {}",
            cred_proxy::config::PORT,
            asked.path,
            asked.upstream
        ))
    }

    /// New requests go by the route-pipelock of these addresses, which must be seen to let the route through, and the
    /// route is in cred-proxy's table.
    async fn move_to(
        &mut self,
        route: &Route,
        order: &Order,
        addresses: &Addresses,
        begins: bool,
        secret: Option<(String, cred_proxy::Secret)>,
    ) -> Result<(), String> {
        let way = Seat::of(addresses).role();
        if !begins {
            self.is_open(&way, route).await?;
        }
        if *addresses != self.addresses {
            self.gate_goes_by(addresses).await?;
        }
        match self.table.clone() {
            Some(table) => {
                table.take_over(self.table_of(order, addresses), secret);
                self.tell_table(&table).await?;
            }
            None => self.bring_routes(order, addresses, secret).await?,
        }
        if begins { self.is_open(&way, route).await } else { Ok(()) }
    }

    /// cred-proxy's table, with the routes that are for one request marked as such.
    pub(super) fn table_of(&self, order: &Order, addresses: &Addresses) -> cred_proxy::config::Config {
        let config = sidecar::cred_proxy_config(order, addresses);
        let is_there = |path: &&String| config.routes.iter().any(|route| route.path == **path);
        let once = self.beyond.once.iter().filter(is_there).cloned().collect();
        cred_proxy::config::Config { once, ..config }
    }

    /// All is as it was before a route. Gives what could not be made so.
    async fn move_back(&mut self, route: &Route, seat: Option<Seat>) -> Vec<String> {
        let mut also = Vec::new();
        self.beyond.once.remove(&route.path);
        if let Some(table) = self.table.clone() {
            table.take_over(self.table_of(&self.order, &self.addresses), None);
            table.forget(&route.path);
            also.extend(self.tell_table(&table).await.err());
        }
        match seat {
            Some(seat) => {
                also.extend(self.gate_goes_by(&self.addresses.clone()).await.err());
                self.dismiss(&seat.role(), Duration::ZERO).await;
            }
            None if self.hands.contains_key(&self.way()) => {
                let order = self.order.clone();
                also.extend(self.narrow_routes(&order).await.err());
            }
            None => {}
        }
        also
    }

    /// Takes a route out of force. What is open on it is cut by cred-proxy; the streams of others go on.
    pub(super) async fn close_route(&mut self, id: &str, order: Order) -> Result<(), String> {
        let table = self.table.clone().ok_or("there is no cred-proxy")?;
        let path = self.beyond.routes.get(id).map(|route| route.path.clone());
        table.take_over(self.table_of(&order, &self.addresses), None);
        if let Some(path) = &path {
            self.beyond.once.remove(path);
            self.hands.get(CRED_PROXY).iter().for_each(|reach| reach.forget(path));
            table.forget(path);
        }
        self.order = order.clone();
        let told = match self.tell_table_or_broken(&table).await {
            // It is told the table that holds when it starts again.
            Ok(()) | Err(Setback::Broken(_)) => Ok(()),
            Err(Setback::Refused(why)) => Err(why),
        };
        let narrowed = self.narrow_routes(&order).await;
        told.and(narrowed)
    }

    /// route-pipelock with fewer hosts. No tunnel of a route that is gone is left, so no restart is needed; where it does not
    /// take that while it runs, another one takes over, and where that cannot be, it is started again.
    async fn narrow_routes(&mut self, order: &Order) -> Result<(), String> {
        let policy = sidecar::route_pipelock_policy(order, &self.addresses).map_err(|e| e.to_string())?;
        let yaml = render(&policy);
        let hot = self.order_of(&self.way(), |reply| Sidecars::Reload { yaml: yaml.clone(), reply }).await;
        if hot.is_ok() {
            return Ok(());
        }
        // From here on whatever starts on the seat in force starts with less.
        if let Err(why) = self.narrow_by_another(order).await {
            self.log("err", &format!("no other route-pipelock takes over: {why}"));
            let restart = |reply| Sidecars::Restart { yaml, reply };
            return self.order_of(&self.way(), restart).await.map_err(|e| e.to_string());
        }
        Ok(())
    }

    async fn narrow_by_another(&mut self, order: &Order) -> Result<(), String> {
        let seat = self.seat(order).await?;
        let addresses = seat.in_force(&self.addresses);
        let moved = async {
            self.gate_goes_by(&addresses).await?;
            let Some(table) = self.table.clone() else { return Ok(()) };
            table.take_over(self.table_of(order, &addresses), None);
            self.tell_table(&table).await
        };
        if let Err(why) = moved.await {
            // Both go on by the seat that is started again; one that does not run is told when it starts.
            if let Some(table) = self.table.clone() {
                table.take_over(self.table_of(order, &self.addresses), None);
                let _ = self.tell_table(&table).await;
            }
            let _ = self.gate_goes_by(&self.addresses.clone()).await;
            self.dismiss(&seat.role(), Duration::ZERO).await;
            return Err(why);
        }
        self.sit_down(seat).await;
        Ok(())
    }

    /// A route for one use has been used.
    pub(super) async fn used_up(&mut self, path: &str) {
        let once =
            |(id, route): &(&String, &Route)| route.path == path && state::term(&self.queue, id) == Some(Term::Once);
        let over: Vec<String> = self.beyond.routes.iter().filter(once).map(|(id, _)| id.clone()).collect();
        for id in over {
            // What went wrong is in the log; it is over all the same.
            let _ = self.take_back(&id, Cause::Used, "it was used").await;
        }
    }

    async fn read_credential(&self, from: &TokenRef) -> Result<cred_proxy::Secret, String> {
        let (from, shared) = (from.clone(), Arc::clone(&self.shared));
        let read = tokio::task::spawn_blocking(move || credentials::read_unattended(&from, &shared.env)).await;
        match read {
            Ok(Ok(secret)) => Ok(secret),
            Ok(Err(error)) => {
                let text = crate::error::chain(&error);
                let text = self.table.as_ref().map_or_else(|| text.clone(), |table| table.redacted(&text));
                Err(format!("its credential cannot be had: {text}"))
            }
            Err(_) => Err("reading its credential panicked".to_owned()),
        }
    }

    async fn tell_table(&self, table: &Table) -> Result<(), String> {
        self.tell_table_or_broken(table).await.map_err(|e| e.to_string())
    }

    async fn tell_table_or_broken(&self, table: &Table) -> Result<(), Setback> {
        let line = table.line().map_err(|e| Setback::Refused(e.to_string()))?;
        self.order_of(CRED_PROXY, |reply| Sidecars::Command { line, reply }).await
    }

    async fn is_open(&self, way: &str, route: &Route) -> Result<(), String> {
        let target = format!("{}:{}", route.upstream.host, route.upstream.port);
        match self.order_of(way, |reply| Sidecars::Probe { target, reply }).await {
            Ok(Probed { status: 403, text, .. }) if text.contains(CLOSED) => {
                Err(format!("{} is still closed: {text}", route.upstream.host))
            }
            Ok(_) => Ok(()),
            Err(setback) => Err(format!("{} cannot be seen to be open: {setback}", route.upstream.host)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(scheme: &str) -> Asked {
        Asked {
            path: "/x/".to_owned(),
            upstream: "https://api.example.org/v1".to_owned(),
            scheme: scheme.to_owned(),
            allow: vec!["GET /**".to_owned()],
        }
    }

    #[test]
    fn a_route_has_the_credential_that_the_operator_names_or_none() {
        let none = Terms::default();
        let named = Terms { token_ref: Some(TokenRef::Env("TOKEN".to_owned())), ..Terms::default() };
        assert_eq!(with_credential(asked("Bearer"), &none).unwrap().scheme, "none");
        assert_eq!(with_credential(asked("Bearer"), &named).unwrap().scheme, "Bearer");
        assert!(with_credential(asked("none"), &named).is_err());
        let route = of(&asked("header:X-Key"), &named).unwrap();
        assert_eq!((route.auth, route.token_ref), (Auth::Header("X-Key".to_owned()), named.token_ref));
        assert!(route.inspect, "nobody said that it is not to be read");
        assert!(of(&asked("sing"), &none).is_err());
    }
}
