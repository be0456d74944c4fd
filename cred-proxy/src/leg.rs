//! An HTTP/1.1 connection to an upstream, one request on it at a time. Whoever waits for a reply reads and writes himself,
//! in his own task: in a task of its own the connection and he would wake each other for every step of every request.

use crate::reading::{Garbled, Piece, Rest, Start, start};
use crate::upload::Upload;
use crate::writing::{Unwritten, Writing};
use bytes::{Bytes, BytesMut};
use http::Method;
use http_body::Frame;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadHalf};
use tokio::task::AbortHandle;

/// How much is read at once: twice as much whenever all of it was there.
const READ_BYTES: usize = 8 << 10;
const READ_BYTES_MAX: usize = 256 << 10;

/// What a connection is made of.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Why there is no reply, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum LegError {
    /// What came is no reply.
    #[error(transparent)]
    Garbled(#[from] Garbled),
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    /// The request's body broke off; the upload's progress says how.
    #[error("the request's body broke off")]
    Upload,
}

/// The connection.
pub struct Leg {
    wire: Side,
    /// Read, and not taken.
    read: BytesMut,
    read_next: usize,
    rest: Rest,
    /// Another request may follow, when the reply has ended.
    keeps: bool,
    /// Room for the next head.
    room: Vec<u8>,
    idle: Duration,
}

enum Side {
    Whole(Box<dyn Wire>),
    /// Somebody else writes the rest of a request that was answered before its end.
    Reading(ReadHalf<Box<dyn Wire>>, AbortHandle),
}

impl Leg {
    /// On a connection that nobody has spoken on. An upstream that takes nothing for as long as `idle` gets no more.
    pub fn new(wire: Box<dyn Wire>, idle: Duration) -> Self {
        let (read, room) = Default::default();
        Self { wire: Side::Whole(wire), read, read_next: READ_BYTES, rest: Rest::Length(0), keeps: true, room, idle }
    }

    /// May another request follow? Only when all that was asked and answered is over.
    pub fn is_free(&self) -> bool {
        self.keeps && self.rest.is_over() && self.read.is_empty() && matches!(self.wire, Side::Whole(_))
    }

    /// Lets go of what a long reply or request needed, before nobody uses it for a while.
    pub fn shrink(&mut self) {
        if self.read.capacity() > READ_BYTES {
            (self.read, self.read_next) = (BytesMut::new(), READ_BYTES);
        }
        self.room.shrink_to(READ_BYTES);
    }

    /// Is it free, and still open? What the upstream says unasked makes it useless.
    pub async fn is_good(&mut self) -> bool {
        // Asked once: a connection that lives has nothing to say.
        self.is_free() && poll_fn(|cx| Poll::Ready(self.poll_read(cx).is_pending())).await
    }

    /// Sends a request, and waits for its reply's head. `write` writes the first line and the headers, without what frames
    /// the body.
    pub async fn send(
        &mut self,
        method: &Method,
        write: impl FnOnce(&mut Vec<u8>),
        upload: Upload,
    ) -> Result<Start, LegError> {
        let to_head = *method == Method::HEAD;
        let mut room = std::mem::take(&mut self.room);
        write(&mut room);
        let mut writing = Some(Writing::new(method, room, upload, self.idle));
        // Until a reply says otherwise, the connection is of no use to anybody else.
        self.keeps = false;
        let (mut seen, mut unwritten) = (0, None);
        let start = poll_fn(|cx| {
            if let (Some(rest), Side::Whole(wire)) = (&mut writing, &mut self.wire)
                && let Poll::Ready(written) = rest.poll(wire, cx)
            {
                match written {
                    Ok(()) => self.room = writing.take().map(Writing::into_room).unwrap_or_default(),
                    Err(Unwritten::Upload) => return Poll::Ready(Err(LegError::Upload)),
                    // It may have answered before it closed.
                    Err(Unwritten::Upstream(error)) => (writing, unwritten) = (None, Some(error)),
                }
            }
            loop {
                if let Some(start) = start(&mut self.read, &mut seen, to_head)? {
                    return Poll::Ready(Ok(start));
                }
                if ready!(self.poll_read(cx))? == 0 {
                    let error = unwritten.take().map_or(LegError::Garbled(Garbled::Ended), LegError::Broken);
                    return Poll::Ready(Err(error));
                }
            }
        })
        .await?;
        self.rest = start.rest;
        self.keeps = start.keeps && unwritten.is_none();
        if let Some(writing) = writing {
            // The agent may read nothing before it has sent all, and then nobody would ask for the reply's body.
            self.split(writing);
        }
        Ok(start)
    }

    fn split(&mut self, writing: Writing) {
        let none: Box<dyn Wire> = Box::new(tokio::io::empty());
        match std::mem::replace(&mut self.wire, Side::Whole(none)) {
            Side::Whole(wire) => {
                let (read, write) = tokio::io::split(wire);
                let task = tokio::spawn(writing.run(write));
                self.wire = Side::Reading(read, task.abort_handle());
            }
            other => self.wire = other,
        }
        self.keeps = false;
    }

    /// Of the reply's body, what is to come.
    pub fn rest(&self) -> Rest {
        self.rest
    }

    /// The next piece of the reply's body.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LegError>>> {
        loop {
            match self.rest.next(&mut self.read)? {
                Piece::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Piece::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Piece::End => return Poll::Ready(None),
                Piece::More => {}
            }
            if ready!(self.poll_read(cx))? == 0 {
                self.rest.closed()?;
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let before = self.read.len();
        if self.read.capacity() - before < self.read_next / 2 {
            self.read.reserve(self.read_next);
        }
        let room = self.read.capacity() - before;
        let read = match &mut self.wire {
            Side::Whole(wire) => pin!(wire.read_buf(&mut self.read)).poll(cx),
            Side::Reading(wire, _) => pin!(wire.read_buf(&mut self.read)).poll(cx),
        };
        if let Poll::Ready(Ok(read)) = read {
            self.read_next = match read {
                _ if read == room => (self.read_next * 2).min(READ_BYTES_MAX),
                _ if read < self.read_next / 4 => (self.read_next / 2).max(READ_BYTES),
                _ => self.read_next,
            };
        }
        read
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        // A request that was answered to the reply's end is written to its own; any other ends with its reply.
        if let Side::Reading(_, writer) = &self.wire
            && !self.rest.is_over()
        {
            writer.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Request, StatusCode};
    use http_body::Body;
    use hyper_util::rt::TokioIo;
    use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};
    use proptest::{collection, sample};
    use tokio::io::AsyncWriteExt as _;

    const LONG: Duration = Duration::from_secs(60);

    fn get() -> Request<Upload> {
        let mut request = Request::new(Upload::empty());
        *request.uri_mut() = "/x?y".parse().unwrap();
        request.headers_mut().insert("host", "a".parse().unwrap());
        request
    }

    /// A connection whose other side takes a request, answers it with `reply` in pieces, and closes.
    fn answered_with(reply: Vec<u8>, step: usize) -> tokio::io::DuplexStream {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(far.read_u8().await.unwrap());
            }
            for piece in reply.chunks(step) {
                // Whoever reads no more has seen enough.
                let _ = far.write_all(piece).await;
                tokio::task::yield_now().await;
            }
        });
        near
    }

    type Whole = (StatusCode, HeaderMap, Vec<u8>, Option<HeaderMap>);

    async fn with_leg(wire: tokio::io::DuplexStream) -> Result<(Whole, bool), LegError> {
        let mut leg = Leg::new(Box::new(wire), LONG);
        let write = |out: &mut Vec<u8>| out.extend_from_slice(b"GET /x?y HTTP/1.1\r\nhost: a\r\n");
        let start = leg.send(&Method::GET, write, Upload::empty()).await?;
        let (mut body, mut trailers) = (Vec::new(), None);
        while let Some(frame) = poll_fn(|cx| leg.poll_frame(cx)).await {
            match frame?.into_data() {
                Ok(data) => body.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        let free = leg.is_free();
        Ok(((start.status, start.headers, body, trailers), free))
    }

    async fn with_library(wire: tokio::io::DuplexStream) -> hyper::Result<Whole> {
        let spoken = hyper::client::conn::http1::Builder::new().max_buf_size(256 << 10).handshake(TokioIo::new(wire));
        let (mut sender, connection) = spoken.await?;
        tokio::spawn(async move { drop(connection.await) });
        let (head, mut incoming) = sender.send_request(get()).await?.into_parts();
        let (mut body, mut trailers) = (Vec::new(), None);
        while let Some(frame) = poll_fn(|cx| pin!(&mut incoming).poll_frame(cx)).await {
            match frame?.into_data() {
                Ok(data) => body.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok((head.status, head.headers, body, trailers))
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    const STARTS: &[&str] = &[
        "HTTP/1.1 200 OK",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 404 ",
        "HTTP/1.1 204 No Content",
        "HTTP/1.1 304 Not Modified",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1  200 OK",
    ];

    const FIELDS: &[&str] = &[
        "Content-Length: 5",
        "content-length:5 ",
        "Content-Length: 5, 5",
        "Content-Length: 0",
        "Content-Length: -1",
        "Transfer-Encoding: chunked",
        "transfer-encoding: CHUNKED ",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, identity",
        "Connection: close",
        "Connection: keep-alive",
        "X-Plain: value \t with spaces ",
        "X-Empty:",
        "X-Odd: \u{fc}",
        " folded",
        "X Bad: 1",
        "X-Bad : 1",
    ];

    const BODIES: &[&str] = &[
        "hello",
        "",
        "hello, and more",
        "5\r\nhello\r\n0\r\n\r\n",
        "5;x=y\r\nhello\r\n0\r\n\r\n",
        "3\r\nhel\r\n2 \r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "0005\r\nhello\r\n0\r\nX-Sum: 1\r\n",
        "0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_read_is_what_the_library_reads(
            first in sample::select(STARTS),
            fields in collection::vec((sample::select(FIELDS), 0..20_u8), 0..4),
            body in sample::select(BODIES),
            step in 1..40_usize,
        ) {
            let mut reply = format!("{first}\r\n");
            for (field, end) in fields {
                reply.push_str(field);
                reply.push_str(if end == 0 { "\n" } else { "\r\n" });
            }
            reply.push_str("\r\n");
            reply.push_str(body);
            let (ours, theirs) = run(async {
                let ours = with_leg(answered_with(reply.clone().into_bytes(), step)).await;
                (ours, with_library(answered_with(reply.clone().into_bytes(), 1 << 10)).await)
            });
            // It may refuse more, and never reads anything else.
            if let Ok((ours, _)) = ours {
                prop_assert_eq!(Some(ours), theirs.ok(), "{:?}", reply);
            }
        }

        #[test]
        fn no_bytes_are_too_strange(reply in collection::vec(any::<u8>(), 0..300), step in 1..40_usize) {
            // However it ends, it ends.
            drop(run(async { with_leg(answered_with(reply, step)).await }));
        }
    }

    #[test]
    fn only_a_connection_on_which_all_is_over_is_kept() {
        for (reply, free) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", true),
            ("HTTP/1.1 204 OK\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", false),
            ("HTTP/1.1 204 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", false),
            ("HTTP/1.1 200 OK\r\n\r\na", false),
        ] {
            let read = run(async { with_leg(answered_with(reply.into(), 1 << 10)).await });
            assert_eq!(read.unwrap().1, free, "{reply}");
        }
    }

    #[test]
    fn a_connection_on_which_something_came_unasked_or_that_is_closed_is_not_used() {
        run(async {
            for says in ["", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"] {
                let (near, mut far) = tokio::io::duplex(1 << 10);
                let mut leg = Leg::new(Box::new(near), LONG);
                assert!(leg.is_good().await);
                far.write_all(says.as_bytes()).await.unwrap();
                drop(far);
                assert!(!leg.is_good().await, "{says}");
            }
        });
    }
}
