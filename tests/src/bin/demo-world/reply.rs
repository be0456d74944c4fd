//! What the world's HTTP servers answer with: a body that is whole, that comes event by event, or that is long.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::{Request, Response, StatusCode};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::{Instant, Interval};

/// Marks every answer of the world: who sees it knows that a request arrived.
pub const MARK: &str = "x-world";

/// Bytes of one piece of a long body.
const PIECE: &[u8] = &[b'.'; 16 << 10];

/// A response of the world.
pub type Reply = Response<ReplyBody>;

/// Its body.
#[derive(Debug)]
pub enum ReplyBody {
    /// All at once.
    Whole(Option<Bytes>),
    /// Server-sent events, one each tick.
    Events {
        /// Those that were sent.
        sent: u32,
        /// How many there are.
        total: u32,
        /// The clock.
        tick: Interval,
    },
    /// So many bytes.
    Long(u64),
    /// Whatever comes, as it comes.
    Pieces(tokio::sync::mpsc::Receiver<Bytes>),
}

impl ReplyBody {
    /// `total` events, `every` apart.
    pub fn events(total: u32, every: std::time::Duration) -> Self {
        Self::Events { sent: 0, total, tick: tokio::time::interval_at(Instant::now(), every) }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut *self {
            Self::Whole(bytes) => bytes.take(),
            Self::Events { sent, total, .. } if sent == total => None,
            Self::Events { sent, tick, .. } => {
                std::task::ready!(tick.poll_tick(cx));
                *sent += 1;
                Some(Bytes::from(format!("data: {{\"n\":{sent}}}\n\n")))
            }
            Self::Pieces(pieces) => std::task::ready!(pieces.poll_recv(cx)),
            Self::Long(0) => None,
            Self::Long(left) => {
                let now = (*left).min(PIECE.len() as u64);
                *left -= now;
                // The cast is right: `now` is at most the length of a piece.
                Some(Bytes::from_static(&PIECE[..now as usize]))
            }
        };
        Poll::Ready(piece.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Long(left) => SizeHint::with_exact(*left),
            Self::Events { .. } | Self::Pieces(_) => SizeHint::default(),
        }
    }
}

/// A JSON answer.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Reply {
    with_type(status, "application/json", ReplyBody::Whole(Some(Bytes::from(value.to_string()))))
}

/// A plain text answer.
pub fn text(status: StatusCode, words: impl Into<String>) -> Reply {
    with_type(status, "text/plain; charset=utf-8", ReplyBody::Whole(Some(Bytes::from(words.into()))))
}

/// Any answer.
pub fn with_type(status: StatusCode, kind: &'static str, body: ReplyBody) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    reply
}

/// Puts a header in where its value can be one; a value that cannot is left out.
pub fn header(reply: &mut Reply, name: &'static str, value: &str) {
    if let Ok(value) = hyper::header::HeaderValue::from_bytes(value.as_bytes()) {
        reply.headers_mut().insert(name, value);
    }
}

/// All headers by name; repeated ones are joined.
pub fn headers<B>(request: &Request<B>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::<String, String>::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        all.entry(name.as_str().to_owned())
            .and_modify(|known| {
                known.push_str(", ");
                known.push_str(&value);
            })
            .or_insert(value);
    }
    all
}
