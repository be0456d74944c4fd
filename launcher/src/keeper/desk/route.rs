//! Routes while a bottle runs: route-pipelock first, then cred-proxy's table, then a look whether it is open. A way out that
//! strict mode does not let be added without a restart would cut the streams of all routes, and is refused.

use super::super::order::{Order as Sidecars, Setback};
use super::Desk;
use crate::control::Probed;
use crate::credentials;
use crate::engine::Engine;
use crate::keeper::table::Table;
use crate::manifest::{Route, TokenRef, Upstream};
use crate::plan::{Order, sidecar};
use crate::verdict::Terms;
use cred_proxy::config::{Auth, NAME as CRED_PROXY};
use pipelock_config::{Reload, reload_allowed, render};
use std::sync::Arc;
use supervise::wire::Route as Asked;

const ROUTE_PIPELOCK: &str = sidecar::ROUTE_PIPELOCK;
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
        // What a person did not write into a manifest is read.
        inspect: true,
        roles: Vec::new(),
        allow: asked.allow.clone(),
        line: 0,
    })
}

impl<E: Engine> Desk<E> {
    /// What follows from a route; `Err`: why it cannot be had while the bottle runs.
    pub(super) fn route_facts(&self, asked: &Asked, terms: &Terms) -> Result<Vec<String>, String> {
        if terms.once {
            return Err("a route cannot be granted for one use: give it a time (--for)".to_owned());
        }
        let route = self.like_its_host(of(asked, terms)?);
        self.plan_route(&route)?;
        let mut facts = vec![match &route.token_ref {
            Some(from) => format!("its credential is {}; it is read now, and the agent never sees it", from.shown()),
            None => "no credential is put in; --token-ref names one".to_owned(),
        }];
        facts.push(
            if route.inspect {
                "its TLS is opened and read"
            } else {
                "its TLS is not opened, as that of its host's other routes"
            }
            .to_owned(),
        );
        facts.push(match terms.seconds {
            Some(seconds) => {
                format!("it ends after {}, and what is open on it is cut", crate::verdict::page::age(seconds))
            }
            None => "it holds until the bottle ends or it is taken back".to_owned(),
        });
        Ok(facts)
    }

    /// A host's TLS is opened or not, for all of its routes.
    fn like_its_host(&self, route: Route) -> Route {
        let other = self.order.bottle.routes.iter().find(|other| other.upstream.host == route.upstream.host);
        Route { inspect: other.map_or(route.inspect, |other| other.inspect), ..route }
    }

    /// The bottle with the route, and what route-pipelock is to be told, if anything.
    fn plan_route(&self, route: &Route) -> Result<(Order, Option<String>), String> {
        let mut order = self.order.clone();
        order.bottle.routes.push(route.clone());
        // Where nothing stands on the routes' network yet, it begins with the new policy.
        if !self.hands.contains_key(ROUTE_PIPELOCK) {
            return Ok((order, None));
        }
        let [old, new] = [&self.order, &order].map(|order| sidecar::route_pipelock_policy(order, &self.addresses));
        let (old, new) = (old.map_err(|e| e.to_string())?, new.map_err(|e| e.to_string())?);
        if let Reload::Restart(reason) = reload_allowed(&old, &new) {
            return Err(format!("it cannot be added while the bottle runs: {reason}"));
        }
        let (old, new) = (render(&old), render(&new));
        Ok((order, (old != new).then_some(new)))
    }

    /// Puts a route in force.
    pub(super) async fn open_route(&mut self, id: &str, asked: &Asked) -> Result<String, String> {
        let route = self.beyond.routes.get(id).cloned().ok_or("the route is lost")?;
        let route = self.like_its_host(route);
        self.beyond.routes.insert(id.to_owned(), route.clone());
        let (order, policies) = self.plan_route(&route)?;
        let secret = match &route.token_ref {
            Some(from) => Some((route.path.clone(), self.read_credential(from).await?)),
            None => None,
        };
        if let Some(new) = policies {
            let reload = |reply| Sidecars::Reload { yaml: new, reply };
            self.order_of(ROUTE_PIPELOCK, reload).await.map_err(|e| e.to_string())?;
        }
        let opened = match self.table.clone() {
            Some(table) => {
                table.take_over(sidecar::cred_proxy_config(&order, &self.addresses), secret);
                self.tell_table(&table).await
            }
            None => self.bring_routes(&order, secret).await,
        };
        let opened = match opened {
            Ok(()) => self.is_open(&route).await,
            Err(why) => Err(why),
        };
        if let Err(why) = opened {
            let policy = sidecar::route_pipelock_policy(&self.order, &self.addresses).map_err(|e| e.to_string())?;
            let policy_back = match self.hands.contains_key(ROUTE_PIPELOCK) {
                true => self.narrow_routes(render(&policy)).await,
                false => Ok(()),
            };
            let table_back = match self.table.clone() {
                Some(table) => {
                    table.take_over(sidecar::cred_proxy_config(&self.order, &self.addresses), None);
                    table.forget(&route.path);
                    self.tell_table(&table).await
                }
                None => Ok(()),
            };
            let also = [table_back, policy_back].into_iter().filter_map(Result::err).collect::<Vec<_>>();
            return Err(std::iter::once(why).chain(also).collect::<Vec<_>>().join("; "));
        }
        self.order = order;
        Ok(format!(
            "open now: http://{CRED_PROXY}:{}{} leads to {}",
            cred_proxy::config::PORT,
            asked.path,
            asked.upstream
        ))
    }

    /// Takes a route out of force. What is open on it is cut by cred-proxy; the streams of others go on.
    pub(super) async fn close_route(&mut self, id: &str, order: Order) -> Result<(), String> {
        let table = self.table.clone().ok_or("there is no cred-proxy")?;
        let path = self.beyond.routes.get(id).map(|route| route.path.clone());
        let policy = sidecar::route_pipelock_policy(&order, &self.addresses).map_err(|e| e.to_string())?;
        table.take_over(sidecar::cred_proxy_config(&order, &self.addresses), None);
        path.iter().for_each(|path| table.forget(path));
        self.order = order;
        let told = match self.tell_table_or_broken(&table).await {
            // It is told the table that holds when it starts again.
            Ok(()) | Err(Setback::Broken(_)) => Ok(()),
            Err(Setback::Refused(why)) => Err(why),
        };
        let narrowed = self.narrow_routes(render(&policy)).await;
        told.and(narrowed)
    }

    /// route-pipelock with fewer hosts. No tunnel of a route that is gone is left, so no restart is needed.
    async fn narrow_routes(&self, yaml: String) -> Result<(), String> {
        let again = yaml.clone();
        let hot = self.order_of(ROUTE_PIPELOCK, |reply| Sidecars::Reload { yaml, reply }).await;
        match hot {
            Ok(()) => Ok(()),
            Err(_) => {
                let restart = |reply| Sidecars::Restart { yaml: again, reply };
                self.order_of(ROUTE_PIPELOCK, restart).await.map_err(|e| e.to_string())
            }
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

    async fn is_open(&self, route: &Route) -> Result<(), String> {
        let target = format!("{}:{}", route.upstream.host, route.upstream.port);
        match self.order_of(ROUTE_PIPELOCK, |reply| Sidecars::Probe { target, reply }).await {
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
