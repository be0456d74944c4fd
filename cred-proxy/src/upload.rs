//! The agent's body on its way to the upstream, chunk by chunk. It is never gathered, with one exception: where the request
//! may have to be sent once more with another credential, a small body is kept beside.

use crate::body::{BodyError, Silence};
use crate::inject::request_trailers;
use crate::upstream::Failure;
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// The longest body that is kept to be sent once more.
pub const KEPT_BYTES_MAX: usize = 64 << 10;

/// How far a request's body has got; shared with whoever waits for the reply.
#[derive(Debug)]
pub struct Progress(Mutex<Got>);

#[derive(Debug)]
struct Got {
    last: Instant,
    end: End,
    /// What came so far, where it may have to be sent once more.
    copy: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// All of it was handed to the upstream's connection.
    Whole,
    Broken,
    TooLong(u64),
}

impl Progress {
    fn new(end: End) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Got { last: Instant::now(), end, copy: None })))
    }

    /// When the last chunk came.
    pub fn last(&self) -> Instant {
        self.got().last
    }

    /// Was all of it handed to the upstream's connection?
    pub fn is_whole(&self) -> bool {
        self.got().end == End::Whole
    }

    /// Why it did not get to its end.
    pub fn failure(&self) -> Option<Failure> {
        match self.got().end {
            End::Open | End::Whole => None,
            End::Broken => Some(Failure::Upload),
            End::TooLong(most) => Some(Failure::TooLong(most)),
        }
    }

    /// The same body once more, if it was whole and is still there.
    pub fn again(&self) -> Option<Upload> {
        let mut got = self.got();
        let copy = got.copy.take().filter(|_| got.end == End::Whole)?;
        Some(Upload::kept(Bytes::from(copy)))
    }

    fn got(&self) -> MutexGuard<'_, Got> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's body.
#[derive(Debug)]
pub struct Upload {
    source: Source,
    progress: Arc<Progress>,
}

/// Small: the library keeps room for 32 requests on each connection.
#[derive(Debug)]
enum Source {
    Agent(Box<Agent>),
    Kept(Option<Bytes>),
}

#[derive(Debug)]
struct Agent {
    body: Incoming,
    silence: Silence,
    bytes_left: u64,
    bytes_max: u64,
    /// Names of trailers that pass.
    trailers: Vec<HeaderName>,
}

impl Upload {
    /// The agent's body.
    pub fn new(body: Incoming, idle: Duration, bytes_max: u64) -> Self {
        if body.is_end_stream() {
            return Self::empty();
        }
        let silence = Silence::new(idle);
        let agent = Agent { body, silence, bytes_left: bytes_max, bytes_max, trailers: Vec::new() };
        Self { source: Source::Agent(Box::new(agent)), progress: Progress::new(End::Open) }
    }

    /// No body.
    pub fn empty() -> Self {
        Self::kept(Bytes::new())
    }

    fn kept(bytes: Bytes) -> Self {
        let end = if bytes.is_empty() { End::Whole } else { End::Open };
        Self { source: Source::Kept(Some(bytes).filter(|bytes| !bytes.is_empty())), progress: Progress::new(end) }
    }

    /// Keeps a copy, so that [`Progress::again`] can give it.
    pub fn keep_copy(self) -> Self {
        self.progress.got().copy = Some(Vec::new());
        self
    }

    /// Lets trailers of these names pass, where they may.
    pub fn with_trailers(mut self, names: Vec<HeaderName>) -> Self {
        if let Source::Agent(agent) = &mut self.source {
            agent.trailers = names;
        }
        self
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        match &self.source {
            Source::Agent(_) => false,
            Source::Kept(bytes) => bytes.is_none(),
        }
    }

    /// How far it has got.
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }
}

impl Agent {
    fn take(&mut self, progress: &Progress, frame: Frame<Bytes>) -> Result<Option<Frame<Bytes>>, BodyError> {
        let frame = match frame.into_data() {
            Ok(data) => {
                let length = data.len() as u64;
                self.bytes_left = self.bytes_left.checked_sub(length).ok_or(BodyError::TooLong(self.bytes_max))?;
                let mut got = progress.got();
                got.last = Instant::now();
                if got.copy.as_ref().is_some_and(|copy| copy.len() + data.len() > KEPT_BYTES_MAX) {
                    got.copy = None;
                }
                got.copy.iter_mut().for_each(|copy| copy.extend_from_slice(&data));
                Frame::data(data)
            }
            Err(other) => {
                let trailers = other.into_trailers().unwrap_or_default();
                // A copy without them would be another request.
                progress.got().copy = None;
                let passing: HeaderMap = request_trailers(&self.trailers, trailers);
                if passing.is_empty() {
                    return Ok(None);
                }
                Frame::trailers(passing)
            }
        };
        Ok(Some(frame))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = match &mut this.source {
            Source::Kept(bytes) => Ok(bytes.take().map(Frame::data)),
            Source::Agent(agent) => match Pin::new(&mut agent.body).poll_frame(cx) {
                Poll::Pending => Err(ready!(agent.silence.poll_over(cx))),
                Poll::Ready(None) => Ok(None),
                Poll::Ready(Some(Err(error))) => Err(BodyError::Broken(error)),
                Poll::Ready(Some(Ok(frame))) => {
                    agent.silence.broken();
                    // Trailers of which none passes are the end.
                    agent.take(&this.progress, frame)
                }
            },
        };
        match frame {
            Ok(frame) => {
                if frame.is_none() || this.is_end_stream() {
                    this.progress.got().end = End::Whole;
                }
                Poll::Ready(frame.map(Ok))
            }
            Err(error) => {
                this.progress.got().end = match error {
                    BodyError::TooLong(most) => End::TooLong(most),
                    _ => End::Broken,
                };
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Agent(agent) => agent.body.is_end_stream(),
            Source::Kept(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Agent(agent) => agent.body.size_hint(),
            Source::Kept(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }
}
