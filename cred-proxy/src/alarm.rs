//! A timer that waits share, one after another: setting one for each request costs more than most requests wait.

use hyper::rt::{Sleep as Waits, Timer};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// The timer of one connection, whose requests come one after another.
#[derive(Debug, Clone, Default)]
pub struct Alarm(Arc<Mutex<Option<Pin<Box<Sleep>>>>>);

impl Alarm {
    /// Is it `at`, or later? Else the task is woken then. It may be woken before, for a wait that is long over.
    pub fn poll_at(&self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let mut timer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
        if timer.deadline() > at.into() {
            timer.as_mut().reset(at.into());
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= at.into() {
                return Poll::Ready(());
            }
            // It was set for an earlier wait.
            timer.as_mut().reset(at.into());
        }
    }
}

/// The library waits on it for heads, which come between replies.
impl Timer for Alarm {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Waits>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, at: Instant) -> Pin<Box<dyn Waits>> {
        Box::pin(Wait { alarm: self.clone(), at })
    }
}

/// One wait of the library's.
struct Wait {
    alarm: Alarm,
    at: Instant,
}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.alarm.poll_at(cx, self.at)
    }
}

impl Waits for Wait {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test]
    async fn the_library_waits_on_it_as_long_as_it_asked_for() {
        let alarm = Alarm::default();
        let now = Instant::now();
        let (mut far, near) = (alarm.sleep(Duration::from_secs(3600)), alarm.sleep(Duration::from_millis(20)));
        assert!(poll_fn(|cx| Poll::Ready(far.as_mut().poll(cx).is_pending())).await);
        near.await;
        assert!(Instant::now() >= now + Duration::from_millis(20));
        assert!(poll_fn(|cx| Poll::Ready(far.as_mut().poll(cx).is_pending())).await);
    }

    #[tokio::test]
    async fn it_goes_off_at_the_time_of_the_last_wait() {
        let alarm = Alarm::default();
        let now = Instant::now();
        let (near, far) = (now + Duration::from_millis(20), now + Duration::from_secs(3600));
        let is_over = |at| {
            let alarm = alarm.clone();
            poll_fn(move |cx| Poll::Ready(alarm.poll_at(cx, at).is_ready()))
        };
        for _ in 0..2 {
            // From later to earlier, and back.
            assert!(!is_over(far).await);
            poll_fn(|cx| alarm.poll_at(cx, near)).await;
            assert!(Instant::now() >= near);
            assert!(!is_over(far).await && is_over(now).await);
        }
    }
}
