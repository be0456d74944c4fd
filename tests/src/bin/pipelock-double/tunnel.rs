//! Bytes of a tunnel that is not opened: what the client says first, and the relay.

use bytes::{Buf, BytesMut};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// A client has this long to say which host it means.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// A hello may be this long.
const HELLO_BYTES_MAX: usize = 16 << 10;

/// A stream of which some bytes have been read already.
pub struct Rewound<S> {
    first: BytesMut,
    stream: S,
}

/// Reads the TLS hello and compares its name with the host that was asked for. What is not TLS, or names nobody, passes.
/// Errors are the word that is logged, and the name that was seen.
pub async fn verify_sni<S>(stream: &mut Rewound<S>, host: &str) -> Result<(), (&'static str, String)>
where
    S: AsyncRead + Unpin,
{
    let read = async {
        loop {
            match hello(&stream.first) {
                Hello::Partial if stream.first.len() < HELLO_BYTES_MAX => {}
                other => return other,
            }
            match stream.stream.read_buf(&mut stream.first).await {
                Ok(0) | Err(_) if stream.first.is_empty() => return Hello::Partial,
                Ok(0) | Err(_) => return Hello::Malformed,
                Ok(_) => {}
            }
        }
    };
    match tokio::time::timeout(HELLO_WITHIN, read).await {
        Err(_) | Ok(Hello::Partial) => Err(("timeout", String::new())),
        Ok(Hello::Malformed) => Err(("malformed", String::new())),
        Ok(Hello::NotTls | Hello::Nameless) => Ok(()),
        Ok(Hello::Named(name)) if crate::guard::canonical(&name) == host => Ok(()),
        Ok(Hello::Named(name)) => Err(("mismatch", name)),
    }
}

/// Relays until both sides are done, one direction is silent for too long, or one fails. Returns the bytes of both ways.
pub async fn relay<A, B>(client: A, server: B, idle: Duration, bytes: &AtomicU64)
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (client_out, client_in) = tokio::io::split(client);
    let (server_out, server_in) = tokio::io::split(server);
    // Either end's failure ends both ways; its reason is of no use to anybody.
    let _ = tokio::try_join!(copy(client_out, server_in, idle, bytes), copy(server_out, client_in, idle, bytes));
}

impl<S> Rewound<S> {
    /// Nothing read yet.
    pub fn new(stream: S) -> Self {
        Self { first: BytesMut::new(), stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.has_remaining() {
            let count = self.first.len().min(into.remaining());
            into.put_slice(&self.first.split_to(count));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

enum Hello {
    Partial,
    NotTls,
    Malformed,
    Nameless,
    Named(String),
}

fn hello(bytes: &[u8]) -> Hello {
    match bytes.first() {
        None => return Hello::Partial,
        Some(0x16) => {}
        Some(_) => return Hello::NotTls,
    }
    let mut acceptor = rustls::server::Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return Hello::Malformed;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                return accepted.client_hello().server_name().map_or(Hello::Nameless, |n| Hello::Named(n.to_owned()));
            }
            Err(_) => return Hello::Malformed,
        }
    }
    Hello::Partial
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    idle: Duration,
    bytes: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let count = match tokio::time::timeout(idle, from.read(&mut buffer)).await {
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(read) => read?,
        };
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..count).unwrap_or_default()).await?;
        to.flush().await?;
        bytes.fetch_add(count as u64, Ordering::Relaxed);
    }
}
