//! The upstream of both sides: raw replies from memory on threads of its own, so that it is clearly faster than either
//! proxy. It never looks at more of a request than its first line and where it ends.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of the small JSON answer.
pub const SMALL_BYTES: usize = 1 << 10;
/// Bytes of one piece of a long answer.
const PIECE_BYTES: usize = 256 << 10;
/// Threads of its own.
const THREADS: usize = 2;
/// The marks of the moment that an event was written.
pub const MOMENT: (&str, &str) = ("\"at\":", "}");

/// A running upstream; it ends with the process.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    /// What the moments in its events count from.
    pub epoch: Instant,
    _runtime: tokio::runtime::Runtime,
}

struct Answers {
    small: Vec<u8>,
    piece: Vec<u8>,
    epoch: Instant,
}

impl Upstream {
    /// Starts it on loopback.
    pub fn start() -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
        let runtime = runtime.map_err(|e| format!("no threads for the upstream: {e}"))?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.map_err(|e| format!("the upstream cannot listen: {e}"))?;
        let address = listener.local_addr().map_err(|e| format!("the upstream has no address: {e}"))?;
        let epoch = Instant::now();
        let body = text(SMALL_BYTES);
        let mut small =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        small.push_str(&body);
        let answers = Arc::new(Answers { small: small.into_bytes(), piece: text(PIECE_BYTES).into_bytes(), epoch });
        runtime.spawn(async move {
            loop {
                // Out of descriptors: the next may do better.
                let Ok((stream, _)) = listener.accept().await else { continue };
                // Latency alone; where it cannot be set, both sides are slower.
                let _ = stream.set_nodelay(true);
                let answers = Arc::clone(&answers);
                tokio::spawn(async move { serve(stream, &answers).await });
            }
        });
        Ok(Self { address, epoch, _runtime: runtime })
    }
}

/// Text as an API writes it: JSON with words, numbers and escapes, and nothing that repeats within a piece.
fn text(bytes: usize) -> String {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut text = String::from("{\"items\":[");
    while text.len() < bytes - 32 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!(
            "{{\"id\":\"msg_{state:016x}\",\"role\":\"assistant\",\"tokens\":{},\"text\":\"line {}\\nof the stream\"}},",
            state % 9_999,
            state % 77
        ));
    }
    text.truncate(bytes - 2);
    text.push_str("]}");
    text
}

async fn serve(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    let mut buffer = vec![0_u8; 8 << 10];
    let mut filled = 0;
    loop {
        let n = stream.read(&mut buffer[filled..]).await?;
        if n == 0 {
            return Ok(());
        }
        filled += n;
        if !buffer[..filled].ends_with(b"\r\n\r\n") {
            continue;
        }
        let line = buffer[..filled].split(|byte| *byte == b'\r').next().unwrap_or_default();
        let path = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let number = || {
            let digits = path.rsplit(|byte| *byte == b'=').next().unwrap_or_default();
            std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0_u64)
        };
        if path.starts_with(b"/big") {
            long(&mut stream, answers, number()).await?;
        } else if path.starts_with(b"/events") {
            events(&mut stream, answers, Duration::from_millis(number())).await?;
        } else {
            stream.write_all(&answers.small).await?;
        }
        filled = 0;
    }
}

async fn long(stream: &mut TcpStream, answers: &Answers, mut left: u64) -> io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {left}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        stream.write_all(&answers.piece[..now]).await?;
        left -= now as u64;
    }
    Ok(())
}

/// Events until the client goes, each with the moment at which it was written.
async fn events(stream: &mut TcpStream, answers: &Answers, pause: Duration) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    loop {
        let nanoseconds = answers.epoch.elapsed().as_nanos();
        let event = format!("data: {{\"type\":\"delta\",{}{nanoseconds:020}{}\n\n", MOMENT.0, MOMENT.1);
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
        tokio::time::sleep(pause).await;
    }
}
