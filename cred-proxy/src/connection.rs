//! A connection of the agent, whose bytes are read by [`Framing`] before anything else reads them.
//!
//! Behind a head that asks for an upgrade nothing more is handed over until the request is answered: only then is it known
//! whether what follows is another request, to be read by [`Framing`], or belongs to another protocol.

use crate::body::Silence;
use crate::framing::{Doubt, Framing};
use crate::gathered::Gathered;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is read ahead behind a head that asks for an upgrade.
const AHEAD_BYTES_MAX: usize = 4 << 10;

/// How a connection is read; shared between the connection and whoever answers its requests.
#[derive(Debug, Default)]
pub struct Gate(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    mode: Mode,
    doubt: Option<Doubt>,
    waits: Option<Waker>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Requests, one after another.
    #[default]
    Requests,
    /// An upgrade has been asked for and not been answered.
    Waiting,
    /// Another protocol.
    Upgraded,
    /// The framing is in doubt: nothing more is read.
    Ended,
}

impl Gate {
    /// What was wrong with the framing.
    pub fn doubt(&self) -> Option<Doubt> {
        self.state().doubt
    }

    /// The request was answered: another one may follow.
    pub fn answered(&self) {
        self.leave_waiting(Mode::Requests);
    }

    /// The request was answered with another protocol.
    pub fn upgraded(&self) {
        self.leave_waiting(Mode::Upgraded);
    }

    fn leave_waiting(&self, mode: Mode) {
        let mut state = self.state();
        if state.mode == Mode::Waiting {
            state.mode = mode;
            state.waits.take().into_iter().for_each(Waker::wake);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection.
#[derive(Debug)]
pub struct Checked {
    stream: Gathered,
    framing: Framing,
    gate: Arc<Gate>,
    /// Read already and not handed over.
    ahead: Vec<u8>,
    /// For how long the agent has taken nothing of what is written.
    stalled: Silence,
}

impl Checked {
    /// A connection of which nothing has been read. An agent that takes nothing for as long as `idle` loses it.
    pub fn new(stream: Gathered, framing: Framing, gate: Arc<Gate>, idle: Duration) -> Self {
        Self { stream, framing, gate, ahead: Vec::new(), stalled: Silence::new(idle) }
    }

    fn not_stalled(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_pending() {
            let over = ready!(self.stalled.poll_over(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, over)));
        }
        self.stalled.broken();
        written
    }

    /// From what was read ahead, else from the stream.
    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let taken = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..taken]);
        self.ahead.drain(..taken);
        Poll::Ready(Ok(()))
    }

    /// Nothing is handed over, but an agent that goes away is noticed.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.len() < AHEAD_BYTES_MAX {
            let mut bytes = [0; 512];
            let mut buf = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.ahead.extend_from_slice(buf.filled());
        }
        Poll::Pending
    }

    fn poll_request(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.poll_bytes(cx, buf))?;
        let doubt = match self.framing.read(&buf.filled()[before..]) {
            Ok(read) => {
                if self.framing.take_upgrade() {
                    self.gate.state().mode = Mode::Waiting;
                    let behind = &buf.filled()[before + read..];
                    self.ahead.splice(..0, behind.iter().copied());
                    buf.set_filled(before + read);
                }
                return Poll::Ready(Ok(()));
            }
            Err(doubt) => doubt,
        };
        let (at, doubt) = doubt;
        let mut state = self.gate.state();
        (state.mode, state.doubt) = (Mode::Ended, Some(doubt));
        if doubt.is_in_body() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, doubt)));
        }
        // What was beyond doubt is handed over, then a NUL, which is wrong anywhere in a head: the library answers 400 and
        // closes, and never sees the rest.
        buf.filled_mut()[before + at] = 0;
        buf.set_filled(before + at + 1);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Checked {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mode = {
            let mut state = this.gate.state();
            if state.mode == Mode::Waiting {
                state.waits = Some(cx.waker().clone());
            }
            state.mode
        };
        match mode {
            Mode::Requests => this.poll_request(cx, buf),
            Mode::Waiting => this.poll_waiting(cx),
            Mode::Upgraded => this.poll_bytes(cx, buf),
            Mode::Ended => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Checked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.not_stalled(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.not_stalled(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
