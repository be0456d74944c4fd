//! What is in force: a table with its limits, and what is open to its upstreams.

use crate::Secret;
use crate::config::Config;
use crate::cut::{Cut, Knife};
use crate::limits::{LimitError, Limits};
use crate::table::{Route, Table, TableError};
use crate::upstream::{Origins, RootsError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A table in force.
#[derive(Debug)]
pub struct Live {
    /// The routes.
    pub table: Table,
    /// The connections to their upstreams.
    pub origins: Origins,
    /// The limits.
    pub limits: Limits,
    /// By the route's path: what tells its streams to end.
    knives: BTreeMap<String, Arc<Knife>>,
    /// By the path of each route that is for one request: was it made?
    once: BTreeMap<String, Arc<AtomicBool>>,
    /// Tells when another table is in force.
    replaced: Knife,
}

/// May a request go by its route?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// As many as the agent likes.
    Any,
    /// This one, and no other.
    TheOne,
    /// The one was made.
    Gone,
}

/// Why a configuration is not put in force.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// It is no table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Its certificates do not do.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// A limit cannot be taken.
    #[error(transparent)]
    Limits(#[from] LimitError),
}

impl Live {
    /// Makes ready what `config` asks for; nothing is in force yet.
    pub fn new(config: &Config, secrets: &BTreeMap<String, Secret>) -> Result<Self, LiveError> {
        let limits = Limits::parse(&config.limits)?;
        Self::with_limits(config, secrets, limits)
    }

    /// The same with limits that no configuration can ask for; for tests.
    pub(crate) fn with_limits(
        config: &Config,
        secrets: &BTreeMap<String, Secret>,
        limits: Limits,
    ) -> Result<Self, LiveError> {
        let table = Table::parse(config, secrets)?;
        let origins = Origins::new(&table, config, limits)?;
        let knives = table.routes.iter().map(|route| (route.path.clone(), Arc::default())).collect();
        let once = config.once.iter().map(|path| (path.clone(), Arc::default())).collect();
        Ok(Self { table, origins, limits, knives, once, replaced: Knife::default() })
    }

    /// What tells that `route` is taken away.
    pub fn cut_of(&self, route: &Route) -> Cut {
        self.knives.get(&route.path).map_or_else(Cut::never, |knife| knife.tells())
    }

    /// Has the agent this request still? Whoever is told so has made it; routes for one request are told so once.
    pub fn take_use(&self, route: &Route) -> Use {
        match self.once.get(&route.path) {
            None => Use::Any,
            Some(used) if used.swap(true, Ordering::SeqCst) => Use::Gone,
            Some(_) => Use::TheOne,
        }
    }

    /// Takes over from `old`: what is open there goes on, unless its route is gone or leads elsewhere.
    pub fn keep_open(&mut self, old: &Self) {
        for route in &self.table.routes {
            let same = old.table.routes.iter().any(|old| old.leads_where(route));
            if let (true, Some(knife)) = (same, old.knives.get(&route.path)) {
                self.knives.insert(route.path.clone(), knife.clone());
                if let (Some(used), Some(own)) = (old.once.get(&route.path), self.once.get_mut(&route.path)) {
                    own.clone_from(used);
                }
            }
        }
    }

    /// The secrets that have other bytes than in `old`.
    pub fn renewed_since<'a>(&self, old: &'a Self) -> impl Iterator<Item = &'a str> {
        let renewed =
            old.table.routes.iter().filter(|old| self.table.routes.iter().any(|next| old.is_renewed_by(next)));
        renewed.filter_map(|old| Some(old.credential.as_ref()?.secret.as_str()))
    }

    /// What tells that another table is in force.
    pub fn replaced(&self) -> Cut {
        self.replaced.tells()
    }

    /// Ends what is open on routes that `next`, which is in force now, has not taken over.
    pub fn cut_all_but(&self, next: &Self) {
        self.replaced.cut();
        for (path, knife) in &self.knives {
            if !next.knives.get(path).is_some_and(|kept| Arc::ptr_eq(kept, knife)) {
                knife.cut();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Auth;

    fn live(path: Option<&str>, upstream: &str, once: bool) -> Live {
        let route = |path: &str| crate::config::Route {
            path: path.to_owned(),
            upstream: upstream.to_owned(),
            auth: Auth::None,
            secret: None,
            inspected: false,
            allow: vec!["GET /**".to_owned()],
        };
        let once = path.filter(|_| once).map(str::to_owned).into_iter().collect();
        let closed = Config::closed(([127, 0, 0, 1], 0).into());
        Live::new(&Config { routes: path.map(route).into_iter().collect(), once, ..closed }, &BTreeMap::new()).unwrap()
    }

    fn used(live: &Live) -> Use {
        live.take_use(&live.table.routes[0])
    }

    #[test]
    fn a_route_for_one_request_is_used_up_in_every_later_table_too() {
        let (here, there) = ("http://127.0.0.1:1", "http://127.0.0.1:2");
        let first = live(Some("/a/"), here, true);
        assert_eq!((used(&first), used(&first)), (Use::TheOne, Use::Gone));
        let mut next = live(Some("/a/"), here, true);
        next.keep_open(&first);
        assert_eq!(used(&next), Use::Gone);
        // One that leads elsewhere is another route, and so is one that was taken away in between.
        let mut elsewhere = live(Some("/a/"), there, true);
        elsewhere.keep_open(&next);
        assert_eq!(used(&elsewhere), Use::TheOne);
        let (mut without, mut again) = (live(None, here, false), live(Some("/a/"), here, true));
        without.keep_open(&next);
        again.keep_open(&without);
        assert_eq!((used(&again), used(&again)), (Use::TheOne, Use::Gone));
        let any = live(Some("/a/"), here, false);
        assert_eq!((used(&any), used(&any)), (Use::Any, Use::Any));
    }
}
