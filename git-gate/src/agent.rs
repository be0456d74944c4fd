//! The agent's end of a connection: what it sends, read within limits, and what it is sent, with an end to the waiting
//! when it does not read.

use crate::pktline::{Packet, PacketError, Packets, error_packet};
use crate::push::answer::band;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// What is read of a connection at once.
const READ_BYTES: usize = 64 << 10;

/// A connection of the agent.
#[derive(Debug)]
pub struct Agent {
    /// What it sends.
    pub reader: BufReader<OwnedReadHalf>,
    /// What it is sent.
    pub writer: Writer,
    /// Has it come so far in a push that it takes what it is sent in bands?
    pub side_band: bool,
}

/// The half that is written to.
#[derive(Debug)]
pub struct Writer {
    half: OwnedWriteHalf,
    idle: Duration,
    /// Bytes sent so far.
    pub sent_bytes: u64,
}

impl Agent {
    /// Takes a connection; `idle` is how long one write may wait.
    pub fn new(stream: TcpStream, idle: Duration) -> Self {
        // Without it small packets wait for the agent's acknowledgement; where it cannot be set they are only slower.
        let _ = stream.set_nodelay(true);
        let (reader, half) = stream.into_split();
        let reader = BufReader::with_capacity(READ_BYTES, reader);
        Self { reader, writer: Writer { half, idle, sent_bytes: 0 }, side_band: false }
    }

    /// The next packet.
    pub async fn packet(&mut self, packets: &mut Packets) -> Result<Packet, PacketError> {
        packets.next(&mut self.reader).await
    }

    /// Returns when it has ended what it sends, and has sent nothing that was not read.
    pub async fn ended(&mut self) {
        // What is there stays there: whoever reads next gets it.
        if !matches!(self.reader.fill_buf().await, Ok([]) | Err(_)) {
            std::future::pending::<()>().await;
        }
    }

    /// Tells why the conversation ends, where a packet may stand, and reads on until the agent has heard it.
    pub async fn refuse(&mut self, sentence: &str, within: Duration) {
        let mut last = error_packet(sentence);
        if self.side_band {
            // The band of what ends a conversation. A client that expects bands shows nothing of any other packet.
            last.clear();
            band(&mut last, 3, format!("git-gate: {sentence}\n").as_bytes());
        }
        // An agent that is gone does not hear it.
        if self.writer.send(&last).await.is_ok() {
            self.drain(within).await;
        }
    }

    /// Ends what is sent, and reads and forgets what the agent still sends: a connection that is closed with bytes unread
    /// is reset, and the agent would not see the last words.
    pub async fn drain(&mut self, within: Duration) {
        self.writer.end().await;
        let mut buffer = vec![0; READ_BYTES];
        let reading = async { while let Ok(1..) = self.reader.read(&mut buffer).await {} };
        // Too late is as good as it gets.
        let _ = tokio::time::timeout(within, reading).await;
    }
}

impl Writer {
    /// Sends all of it.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = tokio::time::timeout(self.idle, self.half.write_all(bytes)).await;
        sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.sent_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Says that no more will come.
    pub async fn end(&mut self) {
        // It may be closed already.
        let _ = self.half.shutdown().await;
    }
}
