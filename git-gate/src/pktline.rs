//! git's framing (gitprotocol-common(5), "pkt-line Format"): four hex digits of length, itself included, then the data.
//!
//! Strict: hexadecimal digits alone, no 0003, nothing longer than 65,520, and every reader has a budget of bytes.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest packet, its four digits included.
pub const PACKET_BYTES_MAX: usize = 65_520;

/// The longest data of one packet.
pub const DATA_BYTES_MAX: usize = PACKET_BYTES_MAX - 4;

/// `0000`.
pub const FLUSH: &[u8] = b"0000";

/// `0001`.
pub const DELIM: &[u8] = b"0001";

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Data, which may be empty (`0004`).
    Data(Vec<u8>),
    /// `0000`.
    Flush,
    /// `0001`, of version 2.
    Delim,
    /// `0002`, of version 2 over stateless transports.
    ResponseEnd,
}

/// What four digits announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// So many bytes of data.
    Data(usize),
    /// `0000`.
    Flush,
    /// `0001`.
    Delim,
    /// `0002`.
    ResponseEnd,
}

/// Why a packet could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// The other side ended where a packet begins. In most places that is an end like any other.
    #[error("the connection was closed")]
    Closed,
    /// It ended within a packet.
    #[error("the connection was closed within a packet")]
    Torn,
    /// Not four hexadecimal digits, or a length that no packet has.
    #[error("what came is no packet of git's protocol")]
    Malformed,
    /// More than may be read here.
    #[error("more than {0} bytes")]
    TooLong(u64),
    /// Nothing came in time.
    #[error("nothing came for {} seconds", .0.as_secs())]
    Late(Duration),
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
}

/// Reads the four digits.
pub fn parse_head(digits: [u8; 4]) -> Result<Head, PacketError> {
    let mut length = 0;
    for digit in digits {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return Err(PacketError::Malformed),
        };
        length = length << 4 | usize::from(value);
    }
    match length {
        0 => Ok(Head::Flush),
        1 => Ok(Head::Delim),
        2 => Ok(Head::ResponseEnd),
        3 => Err(PacketError::Malformed),
        4..=PACKET_BYTES_MAX => Ok(Head::Data(length - 4)),
        _ => Err(PacketError::Malformed),
    }
}

/// Adds a packet of data to `out`. Data longer than one packet holds is split into several.
pub fn put(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        out.extend_from_slice(b"0004");
    }
    for part in data.chunks(DATA_BYTES_MAX) {
        out.extend_from_slice(format!("{:04x}", part.len() + 4).as_bytes());
        out.extend_from_slice(part);
    }
}

/// A packet of data by itself.
pub fn packet(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 4);
    put(&mut out, data);
    out
}

/// The line that ends a conversation: `ERR git-gate: <reason>`. `reason` is ours, or has been made printable.
pub fn error_packet(reason: &str) -> Vec<u8> {
    let cut = reason.floor_char_boundary(1000);
    packet(format!("ERR git-gate: {}\n", &reason[..cut]).as_bytes())
}

/// Data without its one newline at the end, as textual packets are compared.
pub fn text(data: &[u8]) -> &[u8] {
    data.strip_suffix(b"\n").unwrap_or(data)
}

/// Reads packets one by one and nothing beyond them, within a budget of bytes and of time.
#[derive(Debug)]
pub struct Packets {
    budget_bytes: u64,
    left_bytes: u64,
    within: Duration,
}

impl Packets {
    /// `budget_bytes` for all packets together, `within` for each.
    pub fn new(budget_bytes: u64, within: Duration) -> Self {
        Self { budget_bytes, left_bytes: budget_bytes, within }
    }

    /// Changes the time for each packet that follows.
    pub fn wait(&mut self, within: Duration) {
        self.within = within;
    }

    /// The next packet.
    pub async fn next(&mut self, reader: &mut (impl AsyncRead + Unpin)) -> Result<Packet, PacketError> {
        let within = self.within;
        tokio::time::timeout(within, self.read(reader)).await.map_err(|_| PacketError::Late(within))?
    }

    async fn read(&mut self, reader: &mut (impl AsyncRead + Unpin)) -> Result<Packet, PacketError> {
        let mut digits = [0; 4];
        let mut got = 0;
        while got < 4 {
            match reader.read(&mut digits[got..]).await.map_err(PacketError::Broken)? {
                0 if got == 0 => return Err(PacketError::Closed),
                0 => return Err(PacketError::Torn),
                more => got += more,
            }
        }
        self.spend(4)?;
        let length = match parse_head(digits)? {
            Head::Flush => return Ok(Packet::Flush),
            Head::Delim => return Ok(Packet::Delim),
            Head::ResponseEnd => return Ok(Packet::ResponseEnd),
            Head::Data(length) => length,
        };
        self.spend(length)?;
        let mut data = vec![0; length];
        match reader.read_exact(&mut data).await {
            Ok(_) => Ok(Packet::Data(data)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(PacketError::Torn),
            Err(error) => Err(PacketError::Broken(error)),
        }
    }

    fn spend(&mut self, bytes: usize) -> Result<(), PacketError> {
        let left = self.left_bytes.checked_sub(bytes as u64);
        self.left_bytes = left.ok_or(PacketError::TooLong(self.budget_bytes))?;
        Ok(())
    }
}

/// Follows packets through a stream of chunks without holding them, and tells where the first flush ends.
#[derive(Debug, Default)]
pub struct Follower {
    digits: [u8; 4],
    digits_seen: usize,
    skip_bytes: usize,
}

impl Follower {
    /// Takes the next chunk. `Some(n)`: a flush ends after its first `n` bytes, and this follower is new again.
    pub fn follow(&mut self, chunk: &[u8]) -> Result<Option<usize>, PacketError> {
        let mut at = 0;
        while at < chunk.len() {
            if self.skip_bytes > 0 {
                let skip = self.skip_bytes.min(chunk.len() - at);
                self.skip_bytes -= skip;
                at += skip;
                continue;
            }
            self.digits[self.digits_seen] = chunk[at];
            self.digits_seen += 1;
            at += 1;
            if self.digits_seen == 4 {
                self.digits_seen = 0;
                match parse_head(self.digits)? {
                    Head::Data(length) => self.skip_bytes = length,
                    Head::Flush => return Ok(Some(at)),
                    Head::Delim | Head::ResponseEnd => {}
                }
            }
        }
        Ok(None)
    }

    /// Is this a place where a packet begins?
    pub fn is_between(&self) -> bool {
        self.digits_seen == 0 && self.skip_bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(bytes: &[u8], budget: u64) -> (Vec<Packet>, String) {
        let mut reader = bytes;
        let mut packets = Packets::new(budget, Duration::from_secs(10));
        let mut seen = Vec::new();
        loop {
            match packets.next(&mut reader).await {
                Ok(packet) => seen.push(packet),
                Err(error) => return (seen, format!("{error:?}")),
            }
        }
    }

    #[tokio::test]
    async fn packets_and_their_refused_neighbours() {
        let data = |text: &str| Packet::Data(text.into());
        for (bytes, wanted, end) in [
            ("0006a\n0000", vec![data("a\n"), Packet::Flush], "Closed"),
            ("00010002", vec![Packet::Delim, Packet::ResponseEnd], "Closed"),
            ("0004", vec![data("")], "Closed"),
            ("000Aabcdef", vec![data("abcdef")], "Closed"),
            ("0003", vec![], "Malformed"),
            ("fff1", vec![], "Malformed"),
            ("ffff", vec![], "Malformed"),
            ("+006a\n", vec![], "Malformed"),
            ("GET / HTTP/1.1\r\n", vec![], "Malformed"),
            ("00", vec![], "Torn"),
            ("0006a", vec![], "Torn"),
        ] {
            let (seen, error) = read_all(bytes.as_bytes(), 1000).await;
            assert_eq!((seen, error.as_str()), (wanted, end), "{bytes}");
        }
    }

    #[tokio::test]
    async fn the_longest_packet_passes_and_the_budget_holds() {
        let longest = packet(&vec![b'x'; DATA_BYTES_MAX]);
        assert_eq!(&longest[..4], b"fff0");
        let (seen, end) = read_all(&longest, PACKET_BYTES_MAX as u64).await;
        assert_eq!((seen.len(), end.as_str()), (1, "Closed"));
        let (seen, end) = read_all(&longest, PACKET_BYTES_MAX as u64 - 1).await;
        assert_eq!((seen.len(), end.as_str()), (0, "TooLong(65519)"));
        // An announced length costs nothing before it is within the budget.
        assert_eq!(read_all(b"fff0", 100).await.1, "TooLong(100)");
    }

    #[test]
    fn long_data_is_split() {
        let out = packet(&vec![b'x'; DATA_BYTES_MAX + 1]);
        assert_eq!(&out[PACKET_BYTES_MAX..], b"0005x");
    }

    #[test]
    fn a_follower_finds_the_flush_however_the_bytes_arrive() {
        let stream = b"0006a\n00010008000000000009hello0000";
        for size in 1..stream.len() {
            let mut follower = Follower::default();
            let mut ends = Vec::new();
            let mut passed = 0;
            for chunk in stream.chunks(size) {
                let mut rest = chunk;
                while let Some(end) = follower.follow(rest).unwrap() {
                    passed += end;
                    ends.push(passed);
                    rest = &rest[end..];
                }
                passed += rest.len();
            }
            assert_eq!(ends, [22, 35], "chunks of {size}");
            assert!(follower.is_between());
        }
    }
}
