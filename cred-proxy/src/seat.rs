//! A connection's own hold on what all connections share: the server, the table in force, the route that it takes.
//!
//! What a request needs hangs on this, not on the shared things themselves: to count, for every request and on every thread,
//! who holds each of those would make the threads wait for one another's caches longer than most other steps take. Nothing
//! here outlives its table by more than the requests that go by it: whoever serves the connection looks at
//! [`Seat::view`] again when the table is replaced.

use crate::alarm::Alarm;
use crate::cut::Cut;
use crate::live::Live;
use crate::pool::Origin;
use crate::server::Server;
use crate::table::Route;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The hold.
#[derive(Debug)]
pub struct Seat {
    pub(crate) server: Arc<Server>,
    /// What its requests wait on.
    pub alarm: Alarm,
    view: Mutex<Arc<View>>,
    /// The route of the last request: the next one mostly takes the same.
    taken: Mutex<Option<Arc<Taken>>>,
}

/// A table in force.
#[derive(Debug)]
pub struct View {
    live: Arc<Live>,
    turn: u64,
}

/// A route that requests take.
#[derive(Debug)]
pub struct Taken {
    route: Arc<Route>,
    origin: Arc<Origin>,
    /// Tells when the route is taken away.
    cut: Cut,
    /// One that has been used already, between two requests.
    used: Mutex<Option<Cut>>,
}

/// One of the requests that may be in flight.
#[derive(Debug)]
pub struct Place(Arc<Seat>);

impl Seat {
    /// For a new connection.
    pub fn new(server: Arc<Server>, alarm: Alarm) -> Self {
        let (live, turn) = server.live_and_turn();
        Self { server, alarm, view: Mutex::new(Arc::new(View { live, turn })), taken: Mutex::default() }
    }

    /// The table in force.
    pub fn view(&self) -> Arc<View> {
        let mut view = locked(&self.view);
        if view.turn != self.server.turn() {
            let (live, turn) = self.server.live_and_turn();
            *view = Arc::new(View { live, turn });
            *locked(&self.taken) = None;
        }
        view.clone()
    }

    /// The route with this index in that table.
    pub fn take(&self, view: &View, index: usize) -> Arc<Taken> {
        let route = &view.table.routes[index];
        let mut taken = locked(&self.taken);
        match &*taken {
            Some(taken) if Arc::ptr_eq(&taken.route, route) => taken.clone(),
            _ => {
                let (origin, cut) = (view.origins.of_route(index).clone(), view.cut_of(route));
                let next = Arc::new(Taken { route: route.clone(), origin, cut, used: Mutex::default() });
                *taken = Some(next.clone());
                next
            }
        }
    }

    /// A place for one more request, if there is one below `most`.
    pub fn place(self: &Arc<Self>, most: usize) -> Option<Place> {
        self.server.one_more(most).then(|| Place(self.clone()))
    }
}

impl Taken {
    /// Where it leads.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What tells when it is taken away.
    pub fn cut(&self) -> Cut {
        locked(&self.used).take().unwrap_or_else(|| self.cut.another())
    }

    /// Keeps it for the next request.
    pub fn keep(&self, cut: Cut) {
        *locked(&self.used) = Some(cut);
    }
}

impl Deref for View {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.live
    }
}

impl Deref for Taken {
    type Target = Route;

    fn deref(&self) -> &Route {
        &self.route
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.server.one_less();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Auth, Config};
    use crate::log::Log;
    use std::collections::BTreeMap;
    use std::task::{Context, Waker};

    fn live(paths: &[&str]) -> Live {
        let route = |path: &&str| crate::config::Route {
            path: (*path).to_owned(),
            upstream: "http://127.0.0.1:1".into(),
            auth: Auth::None,
            secret: None,
            inspected: false,
            allow: vec![],
        };
        let closed = Config::closed(([127, 0, 0, 1], 0).into());
        Live::new(&Config { routes: paths.iter().map(route).collect(), ..closed }, &BTreeMap::new()).unwrap()
    }

    fn server(live: Live) -> Arc<Server> {
        Arc::new(Server::new(live, Log::start(std::io::sink(), || ()).unwrap()))
    }

    #[test]
    fn a_seat_sees_the_next_table_and_what_was_taken_by_the_old_one_is_told() {
        let server = server(live(&["/aa/", "/b/"]));
        let seat = Seat::new(server.clone(), Alarm::default());
        let view = seat.view();
        let (first, second) = (seat.take(&view, 0), seat.take(&view, 1));
        assert_eq!((first.path.as_str(), second.path.as_str()), ("/aa/", "/b/"));
        assert!(Arc::ptr_eq(&second, &seat.take(&view, 1)));
        let is_cut = |cut: &mut Cut| cut.poll_cut(&mut Context::from_waker(Waker::noop())).is_ready();
        let (mut of_first, mut of_second) = (first.cut(), second.cut());
        assert!(!is_cut(&mut of_first) && !is_cut(&mut of_second));
        // One that has been used is used again.
        first.keep(of_first);
        let mut of_first = first.cut();
        server.swap(live(&["/b/"]));
        assert!(is_cut(&mut of_first) && !is_cut(&mut of_second) && is_cut(&mut first.cut()));
        let next = seat.view();
        assert_eq!(next.table.routes.len(), 1);
        assert!(!Arc::ptr_eq(&second, &seat.take(&next, 0)));
        // The old table is gone with whoever went by it.
        let old = Arc::downgrade(&view.live);
        drop(view);
        assert!(old.upgrade().is_none());
    }

    #[test]
    fn a_place_is_free_again_when_it_goes() {
        let server = server(live(&["/"]));
        let (one, other) = [(); 2].map(|()| Arc::new(Seat::new(server.clone(), Alarm::default()))).into();
        let (first, second) = (one.place(2), other.place(2));
        assert!(first.is_some() && second.is_some() && one.place(2).is_none());
        drop(first);
        assert!(other.place(2).is_some_and(|_| one.place(2).is_none()));
        assert!(one.place(2).is_some());
    }
}
