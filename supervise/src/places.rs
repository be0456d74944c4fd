//! Who is connected. There is a place for everyone who comes: where all are taken, the connection that has asked for
//! nothing for longest, or does not take what it asked for, gives its own up: no flood of them keeps a caller out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How often stalled connections are looked for while all places are taken.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The places.
#[derive(Debug)]
pub struct Places {
    most: usize,
    state: Mutex<State>,
    /// Somebody is no longer busy, or has gone.
    freed: Notify,
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
    stalled: Arc<AtomicBool>,
    leave: Arc<Notify>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    number: u64,
    stalled: Arc<AtomicBool>,
    leave: Arc<Notify>,
}

/// While it is there, the place is kept.
#[derive(Debug)]
pub struct Busy(Arc<Place>);

impl Places {
    /// So many.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, state: Mutex::default(), freed: Notify::new() })
    }

    /// A place, as soon as one gives way: one that is not busy, or is stalled.
    pub async fn take(self: &Arc<Self>) -> Arc<Place> {
        loop {
            if let Some(place) = self.try_take() {
                return place;
            }
            // That one is stalled is not told; it is looked for.
            let _ = tokio::time::timeout(LOOK_EVERY, self.freed.notified()).await;
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<Arc<Place>> {
        let mut state = self.state();
        if state.taken.len() >= self.most {
            let oldest = state.taken.iter().find(|(_, taken)| taken.gives_way()).map(|(number, _)| *number)?;
            let taken = state.taken.remove(&oldest)?;
            taken.leave.notify_one();
        }
        let number = state.next;
        state.next += 1;
        let (stalled, leave) = (Arc::<AtomicBool>::default(), Arc::<Notify>::default());
        state.taken.insert(number, Taken { busy: 0, stalled: stalled.clone(), leave: leave.clone() });
        Some(Arc::new(Place { places: self.clone(), number, stalled, leave }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn gives_way(&self) -> bool {
        self.busy == 0 || self.stalled.load(Ordering::Relaxed)
    }
}

impl Place {
    /// To be set while what is written on the connection is not taken.
    pub fn stalled(&self) -> Arc<AtomicBool> {
        self.stalled.clone()
    }

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
        self.places.freed.notify_one();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(taken) = self.0.places.state().taken.get_mut(&self.0.number) {
            taken.busy -= 1;
        }
        self.0.places.freed.notify_one();
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
        let [a, b, c] = [(); 3].map(|()| places.try_take().unwrap());
        let busy = a.busy().unwrap();
        let d = places.try_take().unwrap();
        assert!(is_lost(&b) && b.busy().is_none(), "the oldest that is not busy");
        let kept = [c.busy().unwrap(), d.busy().unwrap()];
        assert!(places.try_take().is_none(), "all are busy");
        d.stalled().store(true, Ordering::Relaxed);
        let f = places.try_take().unwrap();
        assert!(is_lost(&d), "busy, but not taking what it asked for");
        drop((d, f));
        let d = places.try_take().unwrap();
        drop(busy);
        let e = places.try_take().unwrap();
        assert!(is_lost(&a) && ![&c, &d, &e].into_iter().any(|place| is_lost(place)));
        drop((kept, c));
        assert!(places.try_take().is_some() && !is_lost(&d), "a place that was left needs nobody to leave");
    }

    #[test]
    fn whoever_comes_while_all_are_busy_waits_for_the_first_that_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let places = Places::new(2);
            let [a, b] = [(); 2].map(|()| places.try_take().unwrap());
            let (_kept, busy) = (a.busy().unwrap(), b.busy().unwrap());
            let mut coming = std::pin::pin!(places.take());
            let first = tokio::time::timeout(Duration::ZERO, coming.as_mut()).await;
            assert!(first.is_err(), "all are busy");
            drop(busy);
            coming.await;
            assert!(is_lost(&b) && !is_lost(&a));
        });
    }
}
