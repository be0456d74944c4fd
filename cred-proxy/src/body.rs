//! The upstream's body on its way to the agent, chunk by chunk and never gathered: decoded where it comes encoded, with the
//! credential masked, a limit on silence, and an end when the route is taken away.

use crate::cut::Cut;
use crate::decode::{Coding, DecodeError, Decoder};
use crate::leg::LegError;
use crate::log::Entry;
use crate::mask::Mask;
use crate::pool::Lease;
use crate::reply::reply_trailers;
use crate::seat::Taken;
use crate::upload::Progress;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The side it comes from broke off.
    #[error("the body broke off")]
    Broken(#[source] hyper::Error),
    /// The upstream did, over HTTP/1.1.
    #[error("the body broke off")]
    Reply(#[source] LegError),
    /// Nothing came for too long.
    #[error("nothing came for {0:?}")]
    Idle(Duration),
    /// The route was taken away.
    #[error("the route was taken away")]
    Cut,
    /// It comes encoded, and cannot be decoded.
    #[error("the body cannot be decoded")]
    Decode(#[from] DecodeError),
    /// It is longer than the limit.
    #[error("the body is longer than {0} bytes")]
    TooLong(u64),
}

/// A reply's body; its log line is written when it goes.
#[derive(Debug)]
pub enum Reply {
    /// A refusal's sentence.
    Fixed(Box<Fixed>),
    /// The upstream's.
    Stream(Box<Stream>),
    /// None: another protocol follows.
    Upgraded,
}

/// A refusal's sentence.
#[derive(Debug)]
pub struct Fixed {
    /// What is still to be sent.
    pub text: Option<Bytes>,
    /// The request's log entry.
    pub entry: Entry,
}

impl Reply {
    /// Takes what is there already, without waiting for more.
    pub fn begin(&mut self, cx: &mut Context<'_>) {
        if let Self::Stream(stream) = self
            && let Poll::Ready(Some(first)) = stream.poll_next(cx)
        {
            stream.first = Some(first);
        }
    }
}

/// An upstream's body on its way to the agent.
#[derive(Debug)]
pub struct Stream {
    /// Over HTTP/1.1 there is none: the lease has it.
    body: Option<Incoming>,
    route: Arc<Taken>,
    decoder: Option<Decoder>,
    mask: Option<Mask>,
    silence: Silence,
    cut: Cut,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// What was there when the head was sent on.
    first: Option<Result<Frame<Bytes>, BodyError>>,
    /// Why it ends too early, to be told next.
    broken: Option<BodyError>,
    lease: Option<Lease>,
    sent: Arc<Progress>,
    entry: Entry,
}

/// What a reply's body belongs to.
#[derive(Debug)]
pub struct Exchange {
    /// Its route.
    pub route: Arc<Taken>,
    /// The coding to be undone.
    pub coding: Option<Coding>,
    /// The connection that it comes on.
    pub lease: Option<Lease>,
    /// The progress of the request that it answers.
    pub sent: Arc<Progress>,
    /// It ends when nothing came for so long.
    pub idle: Duration,
    /// It ends when the route is taken away.
    pub cut: Cut,
    /// The request's log entry.
    pub entry: Entry,
}

impl Stream {
    /// A body of which nothing has been read.
    pub fn new(body: Option<Incoming>, of: Exchange) -> Self {
        Self {
            mask: of.route.credential.as_ref().map(|credential| Mask::new(credential.forms.clone())),
            decoder: of.coding.map(Decoder::new),
            body,
            route: of.route,
            silence: Silence::new(of.idle),
            cut: of.cut,
            trailers: None,
            ended: false,
            first: None,
            broken: None,
            lease: of.lease,
            sent: of.sent,
            entry: of.entry,
        }
    }

    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match (&mut self.body, &mut self.lease) {
            (Some(body), _) => Pin::new(body).poll_frame(cx).map_err(BodyError::Broken),
            (None, Some(lease)) => lease.poll_frame(cx).map_err(BodyError::Reply),
            (None, None) => Poll::Ready(None),
        }
    }

    /// Has the upstream nothing more to send?
    fn is_whole(&self) -> bool {
        match (&self.body, &self.lease) {
            (Some(body), _) => body.is_end_stream(),
            (None, lease) => lease.as_ref().is_none_or(|lease| lease.rest().is_over()),
        }
    }

    /// How much it has, where that is known.
    fn length_left(&self) -> Option<u64> {
        match (&self.body, &self.lease) {
            (Some(body), _) => body.size_hint().exact(),
            (None, lease) => lease.as_ref().map_or(Some(0), |lease| lease.rest().length()),
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        loop {
            if self.cut.is_cut() {
                return Poll::Ready(Some(Err(BodyError::Cut)));
            }
            if let Some(data) = self.next_decoded()? {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if self.ended {
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            let frame = match self.poll_upstream(cx) {
                Poll::Ready(Some(frame)) => Some(frame?),
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
            if let Some(decoder) = &mut self.decoder {
                decoder.feed(data);
                continue;
            }
            let data = self.masked(data);
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    /// What a frame brings; the end is remembered.
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
        self.ended |= self.is_whole();
        data
    }

    /// The next piece of what is being decoded; at the end, what was held back.
    fn next_decoded(&mut self) -> Result<Option<Bytes>, DecodeError> {
        while let Some(decoder) = &mut self.decoder {
            let data = match decoder.pull()? {
                Some(data) => data,
                None if !self.ended => return Ok(None),
                None => {
                    decoder.end()?;
                    self.decoder = None;
                    Bytes::new()
                }
            };
            // Not the end as long as there is a decoder.
            let data = self.masked(data);
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// What of `data` can be sent on at once.
    fn masked(&mut self, data: Bytes) -> Bytes {
        let is_end = self.ended && self.decoder.is_none();
        let Some(mask) = &mut self.mask else { return data };
        let clear = mask.push(data);
        if !is_end || mask.held_bytes() == 0 {
            return clear;
        }
        let mut whole = BytesMut::from(clear.as_ref());
        whole.extend_from_slice(&mask.finish());
        whole.freeze()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.route.keep(std::mem::replace(&mut self.cut, Cut::never()));
        let whole = self.ended || self.is_whole();
        if whole && self.sent.is_whole() {
            self.lease.take().into_iter().for_each(|lease| self.route.origin().take_back(lease));
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
            Self::Fixed(fixed) => Poll::Ready(fixed.text.take().map(|text| {
                fixed.entry.sent(text.len());
                Ok(Frame::data(text))
            })),
            Self::Upgraded => Poll::Ready(None),
            Self::Stream(stream) => {
                if let Some(error) = stream.broken.take() {
                    return Poll::Ready(Some(Err(error)));
                }
                let frame = ready!(stream.poll_next(cx)).transpose();
                let frame = match frame {
                    Ok(frame) => frame,
                    Err(error) => {
                        stream.entry.failed(|| bottle_sidecar::chain(&error));
                        // The library would drop what it has not written yet, be it the head: a turn for that first.
                        stream.broken = Some(error);
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                };
                stream.entry.sent(frame.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len));
                Poll::Ready(frame.map(Ok))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Fixed(fixed) => fixed.text.is_none(),
            Self::Upgraded => true,
            Self::Stream(stream) => {
                let holds = stream.mask.as_ref().is_some_and(|mask| mask.held_bytes() > 0);
                let more = stream.first.is_some() || holds || stream.decoder.is_some() || stream.trailers.is_some();
                !more && (stream.ended || stream.is_whole())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Fixed(fixed) => SizeHint::with_exact(fixed.text.as_ref().map_or(0, Bytes::len) as u64),
            Self::Upgraded => SizeHint::with_exact(0),
            Self::Stream(stream) => {
                let first = stream.first.as_ref().and_then(|first| first.as_ref().ok()?.data_ref());
                let held = (first.map_or(0, Bytes::len) + stream.mask.as_ref().map_or(0, Mask::held_bytes)) as u64;
                match stream.length_left() {
                    Some(left) if stream.decoder.is_none() => SizeHint::with_exact(left + held),
                    _ => SizeHint::default(),
                }
            }
        }
    }
}

/// A limit on silence: its timer is set only when there is something to wait for.
#[derive(Debug)]
pub(crate) struct Silence {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    runs: bool,
}

impl Silence {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, timer: None, runs: false }
    }

    pub(crate) fn broken(&mut self) {
        self.runs = false;
    }

    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
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
