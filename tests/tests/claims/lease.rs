//! What many claims share and is costly to make: it is made by the first that asks, and goes a little after the last has
//! let go.

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long it waits for the next claim. A wrong guess costs a launch, never a result.
const LINGER: Duration = Duration::from_secs(2);

/// Something that claims share.
pub trait Shared: Sized + Send + Sync + 'static {
    /// Makes it; `None` where no engine answers, which is said aloud.
    fn make() -> Option<Self>;

    /// Where the one of this process is kept.
    fn held() -> &'static Held<Self>;
}

/// The one of this process, and how many claims have a part in it.
pub struct Held<S> {
    now: Mutex<(Option<Arc<S>>, usize)>,
    taken: Condvar,
}

impl<S> Held<S> {
    /// None yet.
    pub const fn new() -> Self {
        Self { now: Mutex::new((None, 0)), taken: Condvar::new() }
    }
}

/// A claim's part. What is shared stays as long as one of these lives.
pub struct Lease<S: Shared>(Arc<S>);

impl<S: Shared> Lease<S> {
    /// Takes part; `None` where no engine answers, which is said aloud.
    pub fn take() -> Option<Self> {
        let all = S::held();
        let mut held = all.now.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0.is_none() {
            held.0 = Some(Arc::new(S::make()?));
        }
        held.1 += 1;
        all.taken.notify_all();
        held.0.clone().map(Self)
    }
}

impl<S: Shared> Drop for Lease<S> {
    fn drop(&mut self) {
        let all = S::held();
        let mut held = all.now.lock().unwrap_or_else(PoisonError::into_inner);
        held.1 -= 1;
        let nobody = |held: &mut (Option<Arc<S>>, usize)| held.1 == 0;
        let (mut held, _) = all.taken.wait_timeout_while(held, LINGER, nobody).unwrap_or_else(PoisonError::into_inner);
        if held.1 == 0 {
            // Whoever comes now makes new ones. The last reference is this lease's own.
            held.0 = None;
        }
    }
}

impl<S: Shared> Deref for Lease<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.0
    }
}
