//! A timer that waits share, one after another: setting one for each request costs more than most requests wait.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

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
