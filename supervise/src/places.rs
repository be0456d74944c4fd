//! Who is connected. There is a place for everyone who comes: where all are taken, the connection that has asked for
//! nothing for longest gives its own up, so that a flood of silent ones never keeps a caller out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The places.
#[derive(Debug)]
pub struct Places {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    taken: BTreeMap<u64, Taken>,
}

#[derive(Debug)]
struct Taken {
    /// Requests being answered on it.
    busy: usize,
    leave: Arc<Notify>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    number: u64,
    leave: Arc<Notify>,
}

/// While it is there, the place is kept.
#[derive(Debug)]
pub struct Busy(Arc<Place>);

impl Places {
    /// So many.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, state: Mutex::default() })
    }

    /// A place; `None` where all are busy.
    pub fn take(self: &Arc<Self>) -> Option<Arc<Place>> {
        let mut state = self.state();
        if state.taken.len() >= self.most {
            let oldest = state.taken.iter().find(|(_, taken)| taken.busy == 0).map(|(number, _)| *number)?;
            let taken = state.taken.remove(&oldest)?;
            taken.leave.notify_one();
        }
        let number = state.next;
        state.next += 1;
        let leave = Arc::new(Notify::new());
        state.taken.insert(number, Taken { busy: 0, leave: leave.clone() });
        Some(Arc::new(Place { places: self.clone(), number, leave }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until the place is needed by somebody else.
    pub async fn lost(&self) {
        self.leave.notified().await;
    }

    /// A request has come whole, and is being answered. `None` where the place is lost already.
    pub fn busy(self: &Arc<Self>) -> Option<Busy> {
        let mut state = self.places.state();
        state.taken.get_mut(&self.number)?.busy += 1;
        Some(Busy(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.state().taken.remove(&self.number);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(taken) = self.0.places.state().taken.get_mut(&self.0.number) {
            taken.busy -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_lost(place: &Place) -> bool {
        let mut lost = std::pin::pin!(place.lost());
        lost.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn whoever_is_silent_for_longest_leaves_first() {
        let places = Places::new(3);
        let [a, b, c] = [(); 3].map(|()| places.take().unwrap());
        let busy = a.busy().unwrap();
        let d = places.take().unwrap();
        assert!(is_lost(&b) && b.busy().is_none(), "the oldest that is not busy");
        let kept = [c.busy().unwrap(), d.busy().unwrap()];
        assert!(places.take().is_none(), "all are busy");
        drop(busy);
        let e = places.take().unwrap();
        assert!(is_lost(&a) && ![&c, &d, &e].into_iter().any(|place| is_lost(place)));
        drop((kept, c));
        assert!(places.take().is_some() && !is_lost(&d), "a place that was left needs nobody to leave");
    }
}
