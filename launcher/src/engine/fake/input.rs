//! The standard input of what runs in the engine in memory.

use super::state::State;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// Whose standard input.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Container(String),
    Exec(String),
}

/// The standard input of a container or exec. Its end, by shutdown or drop, ends the container: the dead man's switch.
pub struct FakeInput {
    state: Arc<Mutex<State>>,
    to: Target,
    ended: bool,
}

impl FakeInput {
    pub(super) fn new(state: Arc<Mutex<State>>, to: Target) -> Self {
        Self { state, to, ended: false }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.state().end_input(&self.to);
        }
    }
}

impl AsyncWrite for FakeInput {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
        }
        let written = self.state().write(&self.to, bytes);
        Poll::Ready(written.map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for FakeInput {
    fn drop(&mut self) {
        self.end();
    }
}
