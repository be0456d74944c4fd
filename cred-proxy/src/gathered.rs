//! A TCP connection on which what is short goes out as one piece: gathering a head and a short body is more work for the
//! system than for us.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Up to so many bytes are copied into one piece.
const SHORT_BYTES_MAX: usize = 2 << 10;

/// The connection.
#[derive(Debug)]
pub struct Gathered(pub TcpStream);

impl AsyncRead for Gathered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.0);
        if let [one] = slices {
            return stream.poll_write(cx, one);
        }
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if length > SHORT_BYTES_MAX {
            return stream.poll_write_vectored(cx, slices);
        }
        let mut whole = [0; SHORT_BYTES_MAX];
        let mut filled = 0;
        for slice in slices {
            whole[filled..filled + slice.len()].copy_from_slice(slice);
            filled += slice.len();
        }
        stream.poll_write(cx, &whole[..filled])
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn pieces_arrive_in_order_whatever_their_length() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut gathered = Gathered(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let (mut other, _) = listener.accept().await.unwrap();
        let text: Vec<u8> = (0..SHORT_BYTES_MAX + 1).map(|at| at.to_le_bytes()[0]).collect();
        for cuts in [vec![], vec![1], vec![0, SHORT_BYTES_MAX], vec![7, 7, 100]] {
            for length in [1, 200, SHORT_BYTES_MAX, SHORT_BYTES_MAX + 1] {
                let mut at = 0;
                let mut slices = Vec::new();
                for cut in cuts.iter().map(|cut| *cut.min(&length)).chain([length]) {
                    slices.push(io::IoSlice::new(&text[at..cut]));
                    at = cut;
                }
                assert_eq!(gathered.write_vectored(&slices).await.unwrap(), length, "{cuts:?}");
                let mut seen = vec![0; length];
                other.read_exact(&mut seen).await.unwrap();
                assert!(seen == text[..length], "{cuts:?} {length}");
            }
        }
    }
}
