//! A route that is taken away ends what is open on it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Takes a route away; so does its end.
#[derive(Debug, Default)]
pub struct Knife(Arc<Told>);

/// Tells whoever has something open on a route when it is taken away.
#[derive(Debug)]
pub struct Cut {
    told: Option<Arc<Told>>,
    /// Where its waker is, and which one.
    left: Option<(usize, Waker)>,
}

#[derive(Debug, Default)]
struct Told {
    is_cut: AtomicBool,
    waiting: Mutex<Waiting>,
}

/// Who waits. A place that is free again is taken by the next one.
#[derive(Debug, Default)]
struct Waiting {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Knife {
    /// Another one who is told.
    pub fn tells(&self) -> Cut {
        Cut { told: Some(self.0.clone()), left: None }
    }

    /// Now, and for good.
    pub fn cut(&self) {
        // Before anybody is woken; who comes later looks at it after leaving a waker.
        self.0.is_cut.store(true, Ordering::SeqCst);
        let wakers: Vec<Waker> = self.0.with_waiting(|waiting| waiting.wakers.iter().flatten().cloned().collect());
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Knife {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Told {
    fn with_waiting<T>(&self, look: impl FnOnce(&mut Waiting) -> T) -> T {
        look(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Cut {
    /// For a route that cannot be taken away.
    pub fn never() -> Self {
        Self { told: None, left: None }
    }

    /// Another one, that is told the same.
    pub fn another(&self) -> Self {
        Self { told: self.told.clone(), left: None }
    }

    /// Has it been?
    pub fn is_cut(&self) -> bool {
        self.told.as_ref().is_some_and(|told| told.is_cut.load(Ordering::SeqCst))
    }

    /// Waits for it.
    pub fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(told) = &self.told else { return Poll::Pending };
        let waker = cx.waker();
        // Mostly the same as before: what all who wait share is left alone then.
        if !self.left.as_ref().is_some_and(|(_, left)| left.will_wake(waker)) {
            let place = self.left.as_ref().map(|(place, _)| *place);
            self.left = Some((told.with_waiting(|waiting| waiting.put(place, waker)), waker.clone()));
        }
        if self.is_cut() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if let (Some(told), Some((place, _))) = (&self.told, &self.left) {
            told.with_waiting(|waiting| {
                waiting.wakers[*place] = None;
                waiting.free.push(*place);
            });
        }
    }
}

impl Waiting {
    fn put(&mut self, place: Option<usize>, waker: &Waker) -> usize {
        let place = place.or_else(|| self.free.pop()).unwrap_or_else(|| {
            self.wakers.push(None);
            self.wakers.len() - 1
        });
        match &mut self.wakers[place] {
            Some(kept) => kept.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn woken(count: &Arc<Count>) -> usize {
        count.0.load(Ordering::SeqCst)
    }

    #[test]
    fn all_who_wait_are_woken_and_nobody_else() {
        let (one, other, gone) = (Arc::<Count>::default(), Arc::<Count>::default(), Arc::<Count>::default());
        let (knife, another) = (Knife::default(), Knife::default());
        let (mut first, mut second, mut dropped) = (knife.tells(), another.tells(), knife.tells());
        assert!(first.poll_cut(&mut Context::from_waker(&one.clone().into())).is_pending());
        assert!(second.poll_cut(&mut Context::from_waker(&other.clone().into())).is_pending());
        assert!(dropped.poll_cut(&mut Context::from_waker(&gone.clone().into())).is_pending());
        drop(dropped);
        knife.cut();
        assert_eq!((woken(&one), woken(&other), woken(&gone)), (1, 0, 0));
        assert!(first.is_cut() && !second.is_cut());
        assert!(first.poll_cut(&mut Context::from_waker(Waker::noop())).is_ready());
        assert!(knife.tells().poll_cut(&mut Context::from_waker(Waker::noop())).is_ready());
    }

    #[test]
    fn the_last_waker_counts_and_places_are_used_again() {
        let (old, new) = (Arc::<Count>::default(), Arc::<Count>::default());
        let knife = Knife::default();
        for _ in 0..100 {
            let (mut one, mut other) = (knife.tells(), knife.tells());
            assert!(one.poll_cut(&mut Context::from_waker(Waker::noop())).is_pending());
            assert!(other.poll_cut(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert_eq!(knife.0.with_waiting(|waiting| (waiting.wakers.len(), waiting.free.len())), (2, 2));
        let mut cut = knife.tells();
        assert!(cut.poll_cut(&mut Context::from_waker(&old.clone().into())).is_pending());
        assert!(cut.poll_cut(&mut Context::from_waker(&new.clone().into())).is_pending());
        drop(knife);
        assert_eq!((woken(&old), woken(&new)), (0, 1));
        assert!(cut.is_cut(), "nobody is left who could tell");
    }

    #[test]
    fn what_cannot_be_taken_away_is_not() {
        let mut never = Cut::never();
        assert!(never.poll_cut(&mut Context::from_waker(Waker::noop())).is_pending() && !never.is_cut());
    }
}
