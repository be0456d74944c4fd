//! The engine's hijacked connections (attach, exec), spoken by hand: one request, one head, then raw bytes both ways.
//!
//! The client crate guesses per read whether a stream is framed, by its first byte. With a terminal that byte is the
//! agent's to choose: a 0, 1 or 2 would make it wait for up to 4 GiB. Here the caller says which of the two it is, and no
//! frame is ever held in memory as a whole.

use super::context::Address;
use super::failure::{answered, broken, late, said};
use crate::engine::{Chunk, EngineError, Kind, Streams};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// How long the engine may take to answer the head.
const HEAD_WITHIN: Duration = Duration::from_secs(60);

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Longest error text that is read.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// Most bytes read at once.
const READ_BYTES: usize = 32 << 10;

/// How the output is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A terminal: bytes as they are.
    Raw,
    /// Standard output and error, each piece behind a head of 8 bytes.
    Multiplexed,
}

type Input = Box<dyn AsyncWrite + Send + Unpin>;
type Output = Box<dyn AsyncRead + Send + Unpin>;

/// Sends a request that turns its connection into a stream. Dropping the input is the end of input, by the socket's own
/// half close.
pub async fn open(
    address: &Address,
    path: &str,
    body: &[u8],
    framing: Framing,
    what: &str,
) -> Result<Streams, EngineError> {
    let opened = tokio::time::timeout(HEAD_WITHIN, async {
        let (mut output, mut input) = connect(address).await.map_err(|e| broken(what, e))?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\nConnection: Upgrade\r\n\
             Upgrade: tcp\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        input.write_all(&[head.as_bytes(), body].concat()).await.map_err(|e| broken(what, e))?;
        input.flush().await.map_err(|e| broken(what, e))?;
        let (status, head, rest) = read_head(&mut output, what).await?;
        match status {
            101 => Ok((input, output, rest)),
            // An older proxy in between may leave the upgrade out; the stream is the same.
            200 if head.contains("-stream") => Ok((input, output, rest)),
            _ => Err(answered(what, status, read_error(&mut output, &head, rest).await)),
        }
    });
    let (input, output, rest) = opened.await.map_err(|_| late(what, HEAD_WITHIN))??;
    Ok(Streams { input, output: chunks(output, rest, framing) })
}

async fn connect(address: &Address) -> std::io::Result<(Output, Input)> {
    Ok(match address {
        Address::Unix(path) => {
            let (output, input) = UnixStream::connect(path).await?.into_split();
            (Box::new(output), Box::new(input))
        }
        Address::Tcp(host) => {
            let stream = TcpStream::connect(host).await?;
            stream.set_nodelay(true)?;
            let (output, input) = stream.into_split();
            (Box::new(output), Box::new(input))
        }
    })
}

async fn read_head(output: &mut Output, what: &str) -> Result<(u16, String, BytesMut), EngineError> {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer.split_to(end + 4)).to_ascii_lowercase();
            let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
            return match status {
                Some(status) if head.starts_with("http/1.") => Ok((status, head, buffer)),
                _ => Err(said(what, Kind::Other, "the engine's answer is not HTTP".to_owned())),
            };
        }
        if buffer.len() > HEAD_BYTES_MAX {
            return Err(said(what, Kind::Other, "the engine's answer has no end".to_owned()));
        }
        if output.read_buf(&mut buffer).await.map_err(|e| broken(what, e))? == 0 {
            return Err(broken(what, std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

async fn read_error(output: &mut Output, head: &str, mut body: BytesMut) -> String {
    let length = head.lines().find_map(|l| l.strip_prefix("content-length:")).and_then(|v| v.trim().parse().ok());
    let wanted = length.unwrap_or(ERROR_BYTES_MAX).min(ERROR_BYTES_MAX);
    // Part of a text is better than none, so a failed read just ends it.
    while body.len() < wanted && output.read_buf(&mut body).await.is_ok_and(|n| n > 0) {}
    let text = String::from_utf8_lossy(&body).trim().to_owned();
    let json: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    json.and_then(|v| v["message"].as_str().map(str::to_owned)).unwrap_or(text)
}

struct Reader {
    output: Output,
    buffer: BytesMut,
    framing: Framing,
    /// What is left of the current frame, and whose it is.
    frame: Option<(u8, usize)>,
    ended: bool,
}

fn chunks(output: Output, rest: BytesMut, framing: Framing) -> BoxStream<'static, Result<Chunk, EngineError>> {
    let reader = Reader { output, buffer: rest, framing, frame: None, ended: false };
    unfold(reader, |mut reader| async move {
        if reader.ended {
            return None;
        }
        let item = reader.next().await.transpose()?;
        reader.ended = item.is_err();
        Some((item, reader))
    })
    .boxed()
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Chunk>, EngineError> {
        let what = "could not read the container's output";
        loop {
            if let Some(chunk) = self.take()? {
                return Ok(Some(chunk));
            }
            self.buffer.reserve(READ_BYTES);
            match self.output.read_buf(&mut self.buffer).await {
                Ok(0) if self.frame.is_some() || !self.buffer.is_empty() => {
                    return Err(broken(what, std::io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(e) => return Err(broken(what, e)),
            }
        }
    }

    /// The next piece of what has been read.
    fn take(&mut self) -> Result<Option<Chunk>, EngineError> {
        if self.framing == Framing::Raw {
            return Ok((!self.buffer.is_empty()).then(|| Chunk::Out(self.buffer.split().freeze())));
        }
        loop {
            let Some((stream, left)) = self.frame else {
                let [stream, _, _, _, a, b, c, d, ..] = self.buffer[..] else { return Ok(None) };
                self.buffer.advance(8);
                self.frame = Some((stream, u32::from_be_bytes([a, b, c, d]) as usize));
                continue;
            };
            if left == 0 {
                self.frame = None;
                continue;
            }
            if self.buffer.is_empty() {
                return Ok(None);
            }
            let piece: Bytes = self.buffer.split_to(left.min(self.buffer.len())).freeze();
            self.frame = Some((stream, left - piece.len())).filter(|(_, left)| *left > 0);
            return match stream {
                0 | 1 => Ok(Some(Chunk::Out(piece))),
                2 => Ok(Some(Chunk::Err(piece))),
                _ => {
                    let words = String::from_utf8_lossy(&piece).into_owned();
                    Err(said("could not read the container's output", Kind::Other, words))
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(pieces: &[&[u8]], framing: Framing) -> Vec<Result<Chunk, ()>> {
        let (mut near, far) = tokio::io::duplex(1 << 10);
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|p| p.to_vec()).collect();
        tokio::spawn(async move {
            for piece in pieces {
                near.write_all(&piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let got: Vec<_> =
            chunks(Box::new(far), BytesMut::new(), framing).map(|item| item.map_err(|_| ())).collect().await;
        got
    }

    fn joined(items: &[Result<Chunk, ()>]) -> (Vec<u8>, Vec<u8>, bool) {
        let (mut out, mut err, mut failed) = (Vec::new(), Vec::new(), false);
        for item in items {
            match item {
                Ok(Chunk::Out(bytes)) => out.extend_from_slice(bytes),
                Ok(Chunk::Err(bytes)) => err.extend_from_slice(bytes),
                Err(()) => failed = true,
            }
        }
        (out, err, failed)
    }

    #[tokio::test]
    async fn a_terminal_may_say_anything() {
        let hostile: &[u8] = &[1, 0, 0, 0, 255, 255, 255, 255, b'x'];
        let got = read(&[hostile, &[0], &[2, 2]], Framing::Raw).await;
        assert_eq!(joined(&got), ([hostile, &[0, 2, 2]].concat(), Vec::new(), false));
    }

    #[tokio::test]
    async fn frames_may_be_cut_anywhere() {
        let whole = [
            [1u8, 0, 0, 0, 0, 0, 0, 2].as_slice(),
            b"ab",
            &[2, 0, 0, 0, 0, 0, 0, 3],
            b"cde",
            &[1, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 0, 0, 0, 1],
            b"f",
        ]
        .concat();
        for cut in 0..whole.len() {
            let (head, tail) = whole.split_at(cut);
            assert_eq!(
                joined(&read(&[head, tail], Framing::Multiplexed).await),
                (b"abf".to_vec(), b"cde".to_vec(), false),
                "{cut}"
            );
        }
        let (out, _, failed) = joined(&read(&[&whole[..9]], Framing::Multiplexed).await);
        assert_eq!((out, failed), (b"a".to_vec(), true), "an end inside a frame is an error");
        let (_, _, failed) = joined(&read(&[&[3, 0, 0, 0, 0, 0, 0, 1, b'x']], Framing::Multiplexed).await);
        assert!(failed, "the engine's own error stream");
    }
}
