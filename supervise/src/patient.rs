//! A connection whose other end must take what is written, in time.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Fails a write that has moved nothing for some time.
#[derive(Debug)]
pub struct Patient<S> {
    stream: S,
    within: Duration,
    patience: Option<Pin<Box<Sleep>>>,
    stalled: Arc<AtomicBool>,
}

impl<S> Patient<S> {
    /// Around a stream. A write may be without effect for as long as `within`, and `stalled` says meanwhile that one is.
    pub fn new(stream: S, within: Duration, stalled: Arc<AtomicBool>) -> Self {
        Self { stream, within, patience: None, stalled }
    }

    fn in_time<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.stalled.store(done.is_pending(), Ordering::Relaxed);
        if done.is_ready() {
            self.patience = None;
            return done;
        }
        let within = self.within;
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(within)));
        patience.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.in_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.in_time(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.in_time(cx, ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn who_takes_nothing_is_given_up_and_who_takes_slowly_is_not() {
        run(async {
            let (near, mut far) = duplex(8);
            let stalled = Arc::<AtomicBool>::default();
            let mut near = Patient::new(near, Duration::from_millis(20), stalled.clone());
            near.write_all(b"12345678").await.unwrap();
            assert!(!stalled.load(Ordering::Relaxed));
            let error = near.write_all(b"9").await.unwrap_err();
            assert!(error.kind() == io::ErrorKind::TimedOut && stalled.load(Ordering::Relaxed));
            // One byte at a time is slow, and moves.
            let slow = tokio::spawn(async move {
                let mut taken = vec![0; 108];
                far.read_exact(&mut taken).await.unwrap();
                taken
            });
            let mut near = Patient::new(near.stream, Duration::from_secs(60), stalled.clone());
            near.write_all(&[b'x'; 100]).await.unwrap();
            assert!(slow.await.unwrap().len() == 108 && !stalled.load(Ordering::Relaxed));
        });
    }
}
