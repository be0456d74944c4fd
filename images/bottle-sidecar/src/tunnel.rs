//! A connection to an upstream: straight, or through the CONNECT proxy on the way out.
//!
//! It never sends a byte of a request: what it hands back is a stream on which nobody has spoken yet.

use crate::Authority;
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The longest head of the proxy's answer.
const ANSWER_BYTES_MAX: usize = 8 << 10;

/// How much of a refusal's text is kept for the log.
const TEXT_BYTES_MAX: usize = 200;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// No TCP connection; the name did not resolve, or nobody listens.
    #[error("cannot connect to {0}")]
    Connect(Authority, #[source] io::Error),
    /// The proxy broke off.
    #[error("the proxy did not answer CONNECT {0}")]
    Broken(Authority, #[source] io::Error),
    /// The proxy does not speak HTTP, or goes on speaking before it is spoken to.
    #[error("the proxy's answer to CONNECT {0} is not one")]
    NotAnAnswer(Authority),
    /// The proxy said no.
    #[error("the proxy answered CONNECT {target} with {status} ({text})")]
    Refused {
        /// What was asked for.
        target: Authority,
        /// Its status.
        status: u16,
        /// The first line of its text, printable characters alone.
        text: String,
    },
}

/// A connection straight to `target`.
pub async fn straight(target: &Authority) -> Result<TcpStream, TunnelError> {
    let connected = TcpStream::connect((target.host.as_str(), target.port)).await;
    let stream = connected.map_err(|error| TunnelError::Connect(target.clone(), error))?;
    // Without it small events wait for the other side's acknowledgement; where it cannot be set they are only slower.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// A connection to `target` through `proxy`.
pub async fn through(proxy: &Authority, target: &Authority) -> Result<TcpStream, TunnelError> {
    let broken = |error| TunnelError::Broken(target.clone(), error);
    let mut stream = straight(proxy).await?;
    let ask = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.map_err(broken)?;
    let mut answer = Vec::new();
    let head_bytes = loop {
        if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(TunnelError::NotAnAnswer(target.clone()));
        }
        if stream.read_buf(&mut answer).await.map_err(broken)? == 0 {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
    };
    let status = status_of(&answer).ok_or_else(|| TunnelError::NotAnAnswer(target.clone()))?;
    match status {
        200..=299 if answer.len() == head_bytes => Ok(stream),
        200..=299 => Err(TunnelError::NotAnAnswer(target.clone())),
        _ => {
            let text = first_line(&mut stream, answer.split_off(head_bytes)).await;
            Err(TunnelError::Refused { target: target.clone(), status, text })
        }
    }
}

fn status_of(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.1 ").or_else(|| answer.strip_prefix(b"HTTP/1.0 "))?;
    let digits = rest.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    matches!(rest.get(3), Some(b' ' | b'\r')).then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

/// What the proxy says about its refusal, as far as it says it; a broken connection ends it.
async fn first_line(stream: &mut TcpStream, mut text: Vec<u8>) -> String {
    while text.len() < TEXT_BYTES_MAX && !text.contains(&b'\n') {
        match stream.read_buf(&mut text).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let printable = line.iter().filter(|byte| matches!(byte, b' '..=b'~')).take(TEXT_BYTES_MAX);
    printable.map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_status() {
        for (answer, wanted) in [
            ("HTTP/1.1 200 Connection Established\r\n\r\n", Some(200)),
            ("HTTP/1.0 403 Forbidden\r\n\r\n", Some(403)),
            ("HTTP/1.1 200\r\n\r\n", Some(200)),
            ("HTTP/1.1 2000 x\r\n\r\n", None),
            ("HTTP/1.1 20\r\n\r\n", None),
            ("HTTP/1.1 +20 x\r\n\r\n", None),
            ("HTTP/2 200 x\r\n\r\n", None),
            ("SSH-2.0-x\r\n\r\n", None),
        ] {
            assert_eq!(status_of(answer.as_bytes()), wanted, "{answer:?}");
        }
    }
}
