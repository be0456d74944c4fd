//! A request on its way to an upstream over HTTP/1.1: the head, and the body as it comes, framed.

use crate::body::Silence;
use crate::upload::Upload;
use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body::Body as _;
use std::future::poll_fn;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite;

/// Up to so many bytes of a body are copied behind what frames them, to go out as one piece.
const SHORT_BYTES_MAX: usize = 2 << 10;

/// Why a request does not get to its end.
#[derive(Debug)]
pub enum Unwritten {
    /// Its body broke off; the upload's progress says how.
    Upload,
    /// The upstream takes no more.
    Upstream(io::Error),
}

/// The request.
#[derive(Debug)]
pub struct Writing {
    /// Goes first, from `at` on.
    out: Vec<u8>,
    at: usize,
    /// Goes behind it.
    data: Bytes,
    upload: Upload,
    /// Behind it comes the end of a chunk.
    ends_chunk: bool,
    frame: Frame,
    /// Nothing is to come behind what is here.
    is_last: bool,
    is_flushed: bool,
    stalled: Silence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    Length(u64),
    Chunks,
}

impl Writing {
    /// Of a request whose first line and headers are in `out`, without what frames its body. An upstream that takes nothing
    /// for as long as `idle` gets no more.
    pub fn new(method: &Method, mut out: Vec<u8>, upload: Upload, idle: Duration) -> Self {
        let frame = match upload.size_hint().exact() {
            _ if upload.is_end_stream() => Frame::Length(0),
            Some(length) => Frame::Length(length),
            None => Frame::Chunks,
        };
        match frame {
            Frame::Length(0) if !matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {}
            Frame::Length(length) => write_field(&mut out, &header::CONTENT_LENGTH, &HeaderValue::from(length)),
            Frame::Chunks => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        }
        out.extend_from_slice(b"\r\n");
        let is_last = upload.is_end_stream();
        let stalled = Silence::new(idle);
        let (at, data, ends_chunk, is_flushed) = Default::default();
        Self { out, at, data, ends_chunk, upload, frame, is_last, is_flushed, stalled }
    }

    /// What has been written is forgotten; the room for it can be used again.
    pub fn into_room(mut self) -> Vec<u8> {
        self.out.clear();
        self.out
    }

    /// Writes what can be, to the request's end.
    pub fn poll(&mut self, to: &mut (impl AsyncWrite + Unpin), cx: &mut Context<'_>) -> Poll<Result<(), Unwritten>> {
        loop {
            let rest = self.out.get(self.at..).unwrap_or_default();
            if !rest.is_empty() || !self.data.is_empty() {
                let is_head = !rest.is_empty();
                let written = Pin::new(&mut *to).poll_write(cx, if is_head { rest } else { &self.data });
                match self.not_stalled(cx, ready_or(written)) {
                    Poll::Ready(written) if is_head => self.at += written?,
                    Poll::Ready(written) => self.data.advance(written?),
                    Poll::Pending => return Poll::Pending,
                }
                self.is_flushed = false;
                continue;
            }
            self.out.clear();
            self.at = 0;
            if std::mem::take(&mut self.ends_chunk) {
                self.out.extend_from_slice(b"\r\n");
                continue;
            }
            if !self.is_last
                && let Poll::Ready(next) = self.poll_upload(cx)
            {
                next?;
                continue;
            }
            if !self.is_flushed {
                let flushed = Pin::new(&mut *to).poll_flush(cx).map_ok(|()| 1);
                ready!(self.not_stalled(cx, ready_or(flushed)))?;
                self.is_flushed = true;
            }
            return if self.is_last { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
    }

    /// To its end, beside whoever reads the reply.
    pub async fn run(mut self, mut to: impl AsyncWrite + Unpin) {
        // The reply has begun; what becomes of the request's rest, nobody can be told any more.
        let _ = poll_fn(|cx| self.poll(&mut to, cx)).await;
    }

    fn not_stalled(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<Result<usize, Unwritten>>,
    ) -> Poll<Result<usize, Unwritten>> {
        if written.is_pending() {
            let over = ready!(self.stalled.poll_over(cx));
            return Poll::Ready(Err(Unwritten::Upstream(io::Error::new(io::ErrorKind::TimedOut, over))));
        }
        self.stalled.broken();
        written
    }

    /// The next piece of the body, framed.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unwritten>> {
        let next = ready!(Pin::new(&mut self.upload).poll_frame(cx)).transpose().map_err(|_| Unwritten::Upload)?;
        let data = match next.map(http_body::Frame::into_data) {
            Some(Ok(data)) => data,
            Some(Err(other)) => return Poll::Ready(self.end(other.into_trailers().unwrap_or_default())),
            None => return Poll::Ready(self.end(HeaderMap::new())),
        };
        match &mut self.frame {
            Frame::Length(left) => *left = left.checked_sub(data.len() as u64).ok_or(Unwritten::Upload)?,
            // An empty chunk would be the last one.
            Frame::Chunks if data.is_empty() => return Poll::Ready(Ok(())),
            Frame::Chunks => {
                drop(write!(self.out, "{:x}\r\n", data.len()));
                self.ends_chunk = true;
            }
        }
        if data.len() > SHORT_BYTES_MAX {
            self.data = data;
        } else {
            self.out.extend_from_slice(&data);
            if std::mem::take(&mut self.ends_chunk) {
                self.out.extend_from_slice(b"\r\n");
            }
        }
        if self.upload.is_end_stream() && matches!(self.frame, Frame::Length(_)) {
            return Poll::Ready(self.end(HeaderMap::new()));
        }
        Poll::Ready(Ok(()))
    }

    fn end(&mut self, trailers: HeaderMap) -> Result<(), Unwritten> {
        match self.frame {
            Frame::Length(0) => {}
            // The upstream waits for more, and gets the end of the connection.
            Frame::Length(_) => return Err(Unwritten::Upload),
            Frame::Chunks => {
                self.out.extend_from_slice(b"0\r\n");
                write_fields(&mut self.out, &trailers);
                self.out.extend_from_slice(b"\r\n");
            }
        }
        self.is_last = true;
        Ok(())
    }
}

/// Nothing written is no progress either.
fn ready_or(written: Poll<io::Result<usize>>) -> Poll<Result<usize, Unwritten>> {
    written.map(|written| match written {
        Ok(0) => Err(Unwritten::Upstream(io::ErrorKind::WriteZero.into())),
        other => other.map_err(Unwritten::Upstream),
    })
}

fn write_fields(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        write_field(out, name, value);
    }
}

fn write_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}
