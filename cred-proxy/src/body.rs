//! Bodies on their way, chunk by chunk and never gathered: the agent's to the upstream ([`Upload`]), the upstream's to
//! the agent ([`Reply`]), with the credential masked, a limit on silence, and an end when the route is taken away.

use crate::log::Entry;
use crate::mask::Mask;
use crate::reply::reply_trailers;
use crate::table::Route;
use crate::upstream::Lease;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::Sleep;

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The side it comes from broke off.
    #[error("the body broke off")]
    Broken(#[source] hyper::Error),
    /// Nothing came for too long.
    #[error("nothing came for {0:?}")]
    Idle(Duration),
    /// The route was taken away.
    #[error("the route was taken away")]
    Cut,
}

/// How far a request's body has got; shared with whoever waits for the reply.
#[derive(Debug)]
pub struct Progress {
    last: Mutex<Instant>,
    /// All of it was handed to the upstream's connection.
    pub done: AtomicBool,
    /// It broke off.
    pub failed: AtomicBool,
}

impl Progress {
    /// When the last chunk came.
    pub fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// A request's body.
#[derive(Debug)]
pub struct Upload {
    body: Option<Incoming>,
    progress: Arc<Progress>,
    silence: Silence,
}

impl Upload {
    /// The agent's body.
    pub fn new(body: Incoming, idle: Duration) -> Self {
        let body = (!body.is_end_stream()).then_some(body);
        Self { silence: Silence::new(idle), progress: Arc::new(progress(body.is_none())), body }
    }

    /// No body.
    pub fn empty() -> Self {
        Self { body: None, progress: Arc::new(progress(true)), silence: Silence::new(Duration::MAX) }
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.body.is_none()
    }

    /// How far it has got.
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }
}

fn progress(done: bool) -> Progress {
    Progress { last: Mutex::new(Instant::now()), done: AtomicBool::new(done), failed: AtomicBool::new(false) }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let frame = match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => Err(ready!(this.silence.poll_over(cx))),
            Poll::Ready(Some(Err(error))) => Err(BodyError::Broken(error)),
            Poll::Ready(Some(Ok(frame))) => Ok(frame),
            Poll::Ready(None) => {
                this.progress.done.store(true, Ordering::Release);
                return Poll::Ready(None);
            }
        };
        match frame {
            // Trailers could bring what the headers may not: they end here.
            Ok(frame) => {
                this.silence.broken();
                this.progress.now();
                if body.is_end_stream() {
                    this.progress.done.store(true, Ordering::Release);
                }
                Poll::Ready(frame.is_data().then_some(Ok(frame)))
            }
            Err(error) => {
                this.progress.failed.store(true, Ordering::Release);
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// A reply's body; its log line is written when it goes.
#[derive(Debug)]
pub enum Reply {
    /// A refusal's sentence.
    Fixed {
        /// What is still to be sent.
        text: Option<Bytes>,
        /// The request's log entry.
        entry: Entry,
    },
    /// The upstream's.
    Stream(Box<Stream>),
}

/// An upstream's body on its way to the agent.
#[derive(Debug)]
pub struct Stream {
    body: Incoming,
    route: Arc<Route>,
    mask: Option<Mask>,
    silence: Silence,
    cut: Cut,
    trailers: Option<HeaderMap>,
    ended: bool,
    lease: Option<Lease>,
    sent: Arc<Progress>,
    entry: Entry,
}

impl Stream {
    /// `sent` is the progress of the request that it answers.
    pub fn new(body: Incoming, route: Arc<Route>, lease: Lease, sent: Arc<Progress>, entry: Entry) -> Self {
        Self {
            mask: route.credential.as_ref().map(|credential| Mask::new(credential.forms.clone())),
            body,
            route,
            silence: Silence::new(Duration::MAX),
            cut: Cut::never(),
            trailers: None,
            ended: false,
            lease: Some(lease),
            sent,
            entry,
        }
    }

    /// Ends it when nothing came for so long.
    pub fn idle(mut self, limit: Duration) -> Self {
        self.silence = Silence::new(limit);
        self
    }

    /// Ends it when the route is taken away.
    pub fn cut_by(mut self, cut: Cut) -> Self {
        self.cut = cut;
        self
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if self.ended {
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            if self.cut.is_cut() {
                return Poll::Ready(Some(Err(BodyError::Cut)));
            }
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(frame)) => Some(frame.map_err(BodyError::Broken)?),
                Poll::Ready(None) => None,
                Poll::Pending => {
                    if self.cut.poll_cut(cx).is_ready() {
                        return Poll::Ready(Some(Err(BodyError::Cut)));
                    }
                    return Poll::Ready(Some(Err(ready!(self.silence.poll_over(cx)))));
                }
            };
            self.silence.broken();
            let data = self.take(frame);
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    /// What of a frame can be sent on at once.
    fn take(&mut self, frame: Option<Frame<Bytes>>) -> Bytes {
        let data = match frame.map(Frame::into_data) {
            Some(Ok(data)) => data,
            Some(Err(other)) => {
                self.trailers = other.into_trailers().ok().map(|trailers| reply_trailers(&self.route, trailers));
                self.ended = true;
                Bytes::new()
            }
            None => {
                self.ended = true;
                Bytes::new()
            }
        };
        self.ended |= self.body.is_end_stream();
        let Some(mask) = &mut self.mask else { return data };
        let clear = mask.push(data);
        if !self.ended || mask.held_bytes() == 0 {
            return clear;
        }
        let mut whole = BytesMut::from(clear.as_ref());
        whole.extend_from_slice(&mask.finish());
        whole.freeze()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let whole = self.ended || self.body.is_end_stream();
        if whole && self.sent.done.load(Ordering::Acquire) {
            self.lease.take().into_iter().for_each(Lease::give_back);
        } else if !whole {
            self.entry.failed(|| "the agent went away".into());
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Fixed { text, entry } => Poll::Ready(text.take().map(|text| {
                entry.sent(text.len());
                Ok(Frame::data(text))
            })),
            Self::Stream(stream) => {
                let frame = ready!(stream.poll_next(cx));
                match &frame {
                    Some(Ok(frame)) => stream.entry.sent(frame.data_ref().map_or(0, Bytes::len)),
                    Some(Err(error)) => stream.entry.failed(|| crate::log::chain(error)),
                    None => {}
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Fixed { text, .. } => text.is_none(),
            Self::Stream(stream) => {
                let holds = stream.mask.as_ref().is_some_and(|mask| mask.held_bytes() > 0);
                stream.trailers.is_none() && !holds && (stream.ended || stream.body.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Fixed { text, .. } => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(stream) => {
                let held = stream.mask.as_ref().map_or(0, Mask::held_bytes) as u64;
                match stream.body.size_hint().exact() {
                    Some(left) => SizeHint::with_exact(left + held),
                    None => SizeHint::default(),
                }
            }
        }
    }
}

/// A limit on silence: its timer is set only when there is something to wait for.
#[derive(Debug)]
struct Silence {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    runs: bool,
}

impl Silence {
    fn new(limit: Duration) -> Self {
        Self { limit, timer: None, runs: false }
    }

    fn broken(&mut self) {
        self.runs = false;
    }

    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let limit = self.limit;
        if limit == Duration::MAX {
            return Poll::Pending;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if !self.runs {
            timer.as_mut().reset(tokio::time::Instant::now() + limit);
            self.runs = true;
        }
        timer.as_mut().poll(cx).map(|()| BodyError::Idle(limit))
    }
}

/// Tells when a route is taken away.
pub struct Cut {
    told: Option<watch::Receiver<bool>>,
    waits: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl std::fmt::Debug for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cut").field("told", &self.told).finish_non_exhaustive()
    }
}

impl Cut {
    /// When `told` turns true, or whoever could tell is gone.
    pub fn when(told: watch::Receiver<bool>) -> Self {
        Self { told: Some(told), waits: None }
    }

    /// A route that cannot be taken away.
    pub fn never() -> Self {
        Self { told: None, waits: None }
    }

    /// Is it?
    pub fn is_cut(&self) -> bool {
        self.told.as_ref().is_some_and(|told| *told.borrow())
    }

    /// Waits for it.
    pub fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(told) = &self.told else { return Poll::Pending };
        let waits = self.waits.get_or_insert_with(|| {
            let mut told = told.clone();
            Box::pin(async move { drop(told.wait_for(|cut| *cut).await) })
        });
        waits.as_mut().poll(cx)
    }
}
