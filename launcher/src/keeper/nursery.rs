//! Who holds a bottle's sidecars, and how the desk reaches them: those of the launch, and those that come and go while it
//! runs. Each is held by a task of its own ([`super::tend`]).

use super::desk::Ears;
use super::fresh::{self, Rejected};
use super::order::Order;
use super::table::Table;
use super::tend::{Life, Tended, Word};
use super::{Charge, Shared};
use crate::control::Sidecar;
use crate::engine::{Engine, Owner};
use crate::launch::Supplies;
use crate::manifest::Route;
use crate::plan::Plan;
use crate::stop::{self, Level, Stop, Stopper};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

/// What may wait to be told to a sidecar.
const WORDS_MAX: usize = 64;
/// Orders that may wait for a sidecar.
const ORDERS_MAX: usize = 64;

/// How long sidecars may take to be let go of.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a sidecar is told when it starts; another one whenever what holds has changed.
pub type Feed = Arc<Mutex<Zeroizing<Vec<u8>>>>;

/// How the desk reaches a sidecar.
#[derive(Clone)]
pub struct Reach {
    /// Orders, carried out one after another.
    pub orders: mpsc::Sender<Order>,
    /// What it is told when it starts again. A pipelock's task keeps this true itself.
    pub feed: Feed,
    /// How a cred-proxy's credentials are kept fresh.
    fresh: Option<(mpsc::Sender<Word>, Rejected)>,
}

impl Reach {
    /// From now on the credential of this name is not kept fresh.
    pub fn forget(&self, name: &str) {
        if let Some((_, rejected)) = &self.fresh {
            rejected.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        }
    }
}

/// How the desk reaches all of them, by role.
pub type Hands = BTreeMap<String, Reach>;

/// All sidecars of a bottle that are held. Dropping it lets go of them, which ends them.
pub struct Tending {
    stopper: Stopper,
    tasks: Tasks,
}

type Tasks = Arc<Mutex<JoinSet<()>>>;

/// Takes sidecars over: those of the launch, and those that come while the bottle runs.
#[derive(Clone)]
pub struct Nursery<E: Engine> {
    shared: Arc<Shared<E>>,
    owner: Owner,
    ears: Ears,
    stop: Stop,
    tasks: Tasks,
}

/// What a sidecar is told when it starts again.
pub struct Lines {
    /// All of it, unless that is a table.
    pub feed: Zeroizing<Vec<u8>>,
    /// What a pipelock must run with.
    pub policy: Option<String>,
    /// cred-proxy's table.
    pub table: Option<Arc<Table>>,
}

impl Tending {
    /// Takes the sidecars over, and keeps cred-proxy's credentials fresh. Gives how to reach each of them, and who takes
    /// further ones over.
    pub fn begin<E: Engine>(
        shared: &Arc<Shared<E>>,
        charge: &Charge,
        plan: &Plan,
        supplies: &Supplies,
        table: Option<&Arc<Table>>,
        sidecars: BTreeMap<String, Sidecar>,
        (ears, stop): (&Ears, &Stop),
    ) -> (Self, Hands, Nursery<E>) {
        let (stopper, own) = stop::channel();
        let tasks = Tasks::default();
        let nursery = Nursery {
            shared: Arc::clone(shared),
            owner: plan.owner.clone(),
            ears: ears.clone(),
            stop: own.clone(),
            tasks: Arc::clone(&tasks),
        };
        let (wanted, raise) = (stop.clone(), stopper.clone());
        // Who wants the end of the bottle wants no sidecar to begin again.
        tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(async move {
            tokio::select! {
                () = wanted.reached(Level::Graceful) => raise.raise(Level::Graceful),
                () = own.reached(Level::Now) => {}
            }
        });
        let mut hands = Hands::new();
        for (role, sidecar) in sidecars {
            let told = Lines {
                feed: supplies.feeds.get(&sidecar.container).cloned().unwrap_or_default(),
                policy: plan.policy(&role).map(str::to_owned),
                table: table.filter(|_| role == cred_proxy::config::NAME).cloned(),
            };
            hands.insert(role, nursery.take_over(sidecar, told, Some(charge)));
        }
        (Self { stopper, tasks }, hands, nursery)
    }

    /// From now on none is started again; those that run stay.
    pub fn rest(&self) {
        self.stopper.raise(Level::Graceful);
    }

    /// Lets go of all of them. A start that is under way is waited for, within reason: it would take effect all the same.
    pub async fn end(self) {
        self.stopper.raise(Level::Now);
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let ended = async { while tasks.join_next().await.is_some() {} };
        // What takes longer is removed with its container; a task that is aborted holds nothing any more.
        let _ = tokio::time::timeout(PATIENCE, ended).await;
    }
}

impl<E: Engine> Nursery<E> {
    /// Holds a sidecar from now on. The credentials that `charge` names are kept fresh; without one, none are.
    pub fn take_over(&self, sidecar: Sidecar, told: Lines, charge: Option<&Charge>) -> Reach {
        let life = Life { status: sidecar.status(), restarts: 0 };
        self.shared.sidecars.lock().unwrap_or_else(PoisonError::into_inner).insert(sidecar.role.clone(), life);
        let feed = Arc::new(Mutex::new(told.feed));
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let mut reach = Reach { orders, feed: Arc::clone(&feed), fresh: None };
        let mut tended = Tended {
            shared: Arc::clone(&self.shared),
            role: sidecar.role.clone(),
            container: sidecar.container.clone(),
            policy: told.policy,
            owner: self.owner.clone(),
            feed,
            orders: Some(ordered),
            ears: self.ears.clone(),
            sent: 0,
            table: None,
            words: None,
            rejected: Rejected::default(),
            stop: self.stop.clone(),
            wanted: self.shared.stopper.stop(),
            restarts: 0,
            retires: None,
        };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = told.table {
            let (words, told) = mpsc::channel(WORDS_MAX);
            tended.words = Some(told);
            if let Some(charge) = charge {
                let routes = &charge.order.bottle.routes;
                fresh::begin(&mut tasks, &self.means(&table, &words), routes, fresh::age(charge), &tended.rejected);
            }
            reach.fresh = Some((words, Arc::clone(&tended.rejected)));
            tended.table = Some(table);
        }
        tasks.spawn(tended.tend(sidecar));
        reach
    }

    fn means<'a>(&'a self, table: &'a Arc<Table>, words: &'a mpsc::Sender<Word>) -> fresh::Means<'a, E> {
        fresh::Means { shared: &self.shared, table, words, news: &self.ears.news, stop: &self.stop }
    }

    /// Keeps the credential of a route fresh that came while the bottle runs, until [`Reach::forget`].
    pub fn keep_fresh(&self, reach: &Reach, table: &Arc<Table>, route: &Route) {
        let Some((words, rejected)) = &reach.fresh else { return };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        fresh::begin(&mut tasks, &self.means(table, words), std::slice::from_ref(route), Duration::ZERO, rejected);
    }
}
