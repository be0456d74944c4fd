//! Where the thread that reads the pack hands objects to the threads that look at them. Bounded by bytes, not by
//! objects: a reader that is faster than the sink waits.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::PackError;

/// Work with the memory it holds.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    /// There is work, or none will come any more.
    work: Condvar,
    /// Work was done.
    room: Condvar,
    bytes_max: usize,
}

struct State<T> {
    waiting: std::collections::VecDeque<(T, usize)>,
    /// Of what waits and of what is being worked on.
    bytes: usize,
    closed: bool,
    /// The first one; nothing is handed out after it.
    failed: Option<Failure>,
}

enum Failure {
    Error(PackError),
    /// Somebody else tells it, or a worker panicked.
    Told,
}

/// Nothing can be handed over any more.
pub(super) struct Closed;

impl<T> Queue<T> {
    pub(super) fn new(bytes_max: usize) -> Self {
        let state = State { waiting: std::collections::VecDeque::new(), bytes: 0, closed: false, failed: None };
        Self { state: Mutex::new(state), work: Condvar::new(), room: Condvar::new(), bytes_max }
    }

    /// Hands over work that holds `bytes`; waits for room. Work that is larger than all room waits until it is alone.
    pub(super) fn push(&self, work: T, bytes: usize) -> Result<(), Closed> {
        let mut state = self.lock();
        while state.failed.is_none() && state.bytes > 0 && state.bytes + bytes > self.bytes_max {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.failed.is_some() {
            return Err(Closed);
        }
        state.bytes += bytes;
        state.waiting.push_back((work, bytes));
        self.work.notify_one();
        Ok(())
    }

    /// No more work comes.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
    }

    /// Nothing is handed out any more, also of what waits; whoever calls this has told why.
    pub(super) fn stop(&self) {
        self.end(Failure::Told);
    }

    /// The first error of a worker.
    pub(super) fn error(&self) -> Option<PackError> {
        match self.lock().failed.take() {
            Some(Failure::Error(error)) => Some(error),
            Some(Failure::Told) | None => None,
        }
    }

    /// Does work until there is none, or until one piece of it fails.
    pub(super) fn work(&self, mut work: impl FnMut(T) -> Result<(), PackError>) {
        let _leave = Leave(self);
        while let Some((piece, bytes)) = self.next() {
            let answer = work(piece);
            let mut state = self.lock();
            state.bytes -= bytes;
            drop(state);
            self.room.notify_one();
            if let Err(error) = answer {
                self.end(Failure::Error(error));
            }
        }
    }

    fn next(&self) -> Option<(T, usize)> {
        let mut state = self.lock();
        loop {
            if state.failed.is_some() {
                return None;
            }
            if let Some(work) = state.waiting.pop_front() {
                return Some(work);
            }
            if state.closed {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn end(&self, failure: Failure) {
        let mut state = self.lock();
        state.failed.get_or_insert(failure);
        state.waiting.clear();
        drop(state);
        self.work.notify_all();
        self.room.notify_all();
    }

    // No code that can panic runs under the lock, so what a poisoned one holds is still whole.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker that panics must not leave the reader waiting for room for ever.
struct Leave<'a, T>(&'a Queue<T>);

impl<T> Drop for Leave<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end(Failure::Told);
        }
    }
}
