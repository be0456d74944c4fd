//! What an upstream answers over HTTP/1.1, byte by byte: a head, how its body is framed, the body without its framing. PURE.
//!
//! As strict as [`crate::framing`] is with the agent: lines end with CR LF, a length is given once and in digits, and what
//! is in doubt is no reply. It never looks beyond the end of a reply: what is there already belongs to nobody.

#[cfg(test)]
mod tests;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use std::mem::MaybeUninit;

/// The longest head of a reply.
pub const HEAD_BYTES_MAX: usize = 256 << 10;
/// Headers of one reply, and trailers.
const HEADERS_MAX: usize = 100;
/// The longest line that says how long a chunk is.
const SIZE_LINE_BYTES_MAX: usize = 1 << 10;
/// The longest trailer section.
const TRAILER_BYTES_MAX: usize = 16 << 10;

/// What is wrong with a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Garbled {
    /// LF without CR before it.
    #[error("a line does not end with CR LF")]
    LineEnd,
    /// The head is longer than the limit.
    #[error("its head is too long")]
    HeadTooLong,
    /// Not the head of an HTTP/1 reply.
    #[error("its head is not one of http/1")]
    Head,
    /// Another protocol, for which nobody has asked.
    #[error("it switches to another protocol unasked")]
    Switch,
    /// How long the body is cannot be said.
    #[error("the length of its body is in doubt")]
    Length,
    /// A chunk whose size line or end is malformed.
    #[error("a chunk is malformed")]
    Chunk,
    /// Its trailers are malformed or too long.
    #[error("its trailers are malformed")]
    Trailers,
    /// It ended before its end.
    #[error("it broke off")]
    Ended,
}

/// The head of a reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Start {
    /// The status, which is final.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// What follows.
    pub rest: Rest,
    /// Another request may follow on the connection, when the body has ended.
    pub keeps: bool,
}

/// What is still to come of a reply's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// So many bytes; with none, nothing.
    Length(u64),
    /// The line with the size of a chunk.
    Size,
    /// So many bytes of a chunk, then its end.
    Chunk(u64),
    /// The end of a chunk.
    ChunkEnd,
    /// Trailers, or the empty line in place of them.
    Trailers,
    /// All until the connection ends.
    UntilClose,
}

/// What [`Rest::next`] has found.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of the body.
    Data(Bytes),
    /// Trailers; they are the end.
    Trailers(HeaderMap),
    /// The end.
    End,
    /// Not enough has been read.
    More,
}

/// Takes a head from the front of `bytes`, those that are only interim included; `None` where it has not ended. `seen` of the
/// bytes have been looked at before: zero for a new reply.
pub fn start(bytes: &mut BytesMut, seen: &mut usize, to_head: bool) -> Result<Option<Start>, Garbled> {
    while let Some(end) = head_end(bytes, seen)? {
        let head = bytes.split_to(end).freeze();
        *seen = 0;
        let start = parse(&head, to_head)?;
        match start.status.as_u16() {
            101 => return Err(Garbled::Switch),
            100..=199 => {}
            _ => return Ok(Some(start)),
        }
    }
    Ok(None)
}

/// Behind the empty line that ends a head.
fn head_end(bytes: &[u8], seen: &mut usize) -> Result<Option<usize>, Garbled> {
    let end = section_end(bytes, seen)?;
    if end.unwrap_or(bytes.len()) > HEAD_BYTES_MAX { Err(Garbled::HeadTooLong) } else { Ok(end) }
}

fn section_end(bytes: &[u8], seen: &mut usize) -> Result<Option<usize>, Garbled> {
    while let Some(found) = bytes[*seen..].iter().position(|byte| *byte == b'\n') {
        let line = &bytes[..*seen + found + 1];
        if !line.ends_with(b"\r\n") {
            return Err(Garbled::LineEnd);
        }
        *seen = line.len();
        if line.ends_with(b"\r\n\r\n") {
            return Ok(Some(line.len()));
        }
    }
    *seen = bytes.len();
    Ok(None)
}

fn parse(head: &Bytes, to_head: bool) -> Result<Start, Garbled> {
    let mut space = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let read = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, head, &mut space);
    // An empty line is no head, and a head has one, at its end.
    if !matches!(read, Ok(httparse::Status::Complete(length)) if length == head.len()) {
        return Err(Garbled::Head);
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Garbled::Head)?;
    let is_one = parsed.version == Some(1);
    let headers = header_map(head, parsed.headers).ok_or(Garbled::Head)?;
    let rest = match status.as_u16() {
        100..=199 | 204 | 304 => Rest::Length(0),
        _ if to_head => Rest::Length(0),
        _ => rest_of(&headers, is_one)?,
    };
    let names = |wanted: &[u8]| lists(&headers, header::CONNECTION, wanted);
    let keeps = is_one && rest != Rest::UntilClose && !names(b"close");
    Ok(Start { status, headers, rest, keeps })
}

fn header_map(head: &Bytes, fields: &[httparse::Header<'_>]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value)).ok()?;
        headers.try_append(name, value).ok()?;
    }
    Some(headers)
}

fn rest_of(headers: &HeaderMap, is_one: bool) -> Result<Rest, Garbled> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // What comes beside or before `chunked` is judged with the reply's other headers.
        let last = headers.get_all(header::TRANSFER_ENCODING).iter().next_back();
        let last = last.and_then(|value| value.as_bytes().rsplit(|byte| *byte == b',').next()).unwrap_or_default();
        return match last.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            _ if !is_one => Err(Garbled::Length),
            true => Ok(Rest::Size),
            false => Ok(Rest::UntilClose),
        };
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(Rest::UntilClose),
        (Some(length), None) => digits(length.as_bytes(), 10).map(Rest::Length).ok_or(Garbled::Length),
        (Some(_), Some(_)) => Err(Garbled::Length),
    }
}

fn lists(headers: &HeaderMap, name: HeaderName, wanted: &[u8]) -> bool {
    let values = headers.get_all(name).into_iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    values.map(<[u8]>::trim_ascii).any(|value| value.eq_ignore_ascii_case(wanted))
}

/// A number in nothing but digits.
fn digits(text: &[u8], radix: u32) -> Option<u64> {
    let plain = !text.is_empty() && text.iter().all(|byte| char::from(*byte).is_digit(radix));
    plain.then(|| u64::from_str_radix(std::str::from_utf8(text).ok()?, radix).ok())?
}

impl Rest {
    /// Is nothing to come?
    pub fn is_over(self) -> bool {
        self == Self::Length(0)
    }

    /// How many bytes are to come, where that is known.
    pub fn length(self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(left),
            _ => None,
        }
    }

    /// Takes what is there from the front of `bytes`.
    pub fn next(&mut self, bytes: &mut BytesMut) -> Result<Piece, Garbled> {
        loop {
            match *self {
                Self::Length(0) => return Ok(Piece::End),
                _ if bytes.is_empty() => return Ok(Piece::More),
                Self::UntilClose => return Ok(Piece::Data(bytes.split().freeze())),
                Self::Length(left) => {
                    let data = up_to(left, bytes);
                    *self = Self::Length(left - data.len() as u64);
                    return Ok(Piece::Data(data));
                }
                Self::Chunk(left) => {
                    let data = up_to(left, bytes);
                    let left = left - data.len() as u64;
                    *self = if left == 0 { Self::ChunkEnd } else { Self::Chunk(left) };
                    return Ok(Piece::Data(data));
                }
                Self::ChunkEnd => match bytes.as_ref() {
                    [b'\r', b'\n', ..] => {
                        bytes.advance(2);
                        *self = Self::Size;
                    }
                    [b'\r'] => return Ok(Piece::More),
                    _ => return Err(Garbled::Chunk),
                },
                Self::Size => {
                    let Some(line) = size_line(bytes)? else { return Ok(Piece::More) };
                    let size = chunk_size(&bytes[..line]).ok_or(Garbled::Chunk)?;
                    bytes.advance(line + 2);
                    *self = if size == 0 { Self::Trailers } else { Self::Chunk(size) };
                }
                Self::Trailers => {
                    let Some(trailers) = trailers(bytes)? else { return Ok(Piece::More) };
                    *self = Self::Length(0);
                    return Ok(if trailers.is_empty() { Piece::End } else { Piece::Trailers(trailers) });
                }
            }
        }
    }

    /// The connection has ended: was that the end?
    pub fn closed(&mut self) -> Result<(), Garbled> {
        if *self == Self::UntilClose {
            *self = Self::Length(0);
        }
        if self.is_over() { Ok(()) } else { Err(Garbled::Ended) }
    }
}

fn up_to(left: u64, bytes: &mut BytesMut) -> Bytes {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    bytes.split_to(taken).freeze()
}

/// How long the line at the front is, without its end.
fn size_line(bytes: &[u8]) -> Result<Option<usize>, Garbled> {
    match bytes.iter().take(SIZE_LINE_BYTES_MAX).position(|byte| *byte == b'\n') {
        Some(at) if at > 0 && bytes[at - 1] == b'\r' => Ok(Some(at - 1)),
        None if bytes.len() < SIZE_LINE_BYTES_MAX => Ok(None),
        _ => Err(Garbled::Chunk),
    }
}

/// Extensions have no meaning here; some servers fill the line up with spaces.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let mut parts = line.splitn(2, |byte| *byte == b';');
    let size = parts.next()?;
    let end = size.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |last| last + 1);
    let is_plain = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
    if !parts.next().unwrap_or_default().iter().all(is_plain) || end > 16 {
        return None;
    }
    digits(&size[..end], 16)
}

fn trailers(bytes: &mut BytesMut) -> Result<Option<HeaderMap>, Garbled> {
    match bytes.as_ref() {
        [b'\r'] => return Ok(None),
        [b'\r', b'\n', ..] => {
            bytes.advance(2);
            return Ok(Some(HeaderMap::new()));
        }
        _ => {}
    }
    let within = &bytes[..bytes.len().min(TRAILER_BYTES_MAX)];
    let Some(end) = section_end(within, &mut 0).map_err(|_| Garbled::Trailers)? else {
        return if within.len() < TRAILER_BYTES_MAX { Ok(None) } else { Err(Garbled::Trailers) };
    };
    let section = bytes.split_to(end).freeze();
    let mut space = [httparse::EMPTY_HEADER; HEADERS_MAX];
    match httparse::parse_headers(&section, &mut space) {
        Ok(httparse::Status::Complete((length, fields))) if length == section.len() => {
            header_map(&section, fields).map(Some).ok_or(Garbled::Trailers)
        }
        _ => Err(Garbled::Trailers),
    }
}
