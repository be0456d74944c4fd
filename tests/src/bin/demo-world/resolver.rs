//! A resolver that writes down every name it is asked for and gives all of them one address.

use crate::listen::{Listening, serve};
use crate::start::StartError;
use crate::witness::Witness;
use bottle_tests::world::Evidence;
use bottle_tests::world::role::ResolverConfig;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// How long a TCP client may leave the next question out.
const IDLE: Duration = Duration::from_secs(10);
const KIND_A: u16 = 1;

/// Binds, says ready and serves.
pub async fn start(config: ResolverConfig, witness: &Witness) -> Result<(), StartError> {
    let mut listening = Listening::default();
    let datagrams = listening.udp("udp", config.listen, config.port).await?;
    let streams = listening.tcp("tcp", config.listen, config.port).await?;
    listening.ready(witness);
    let resolver = Resolver { answer: config.answer, witness: *witness };
    serve(streams, move |stream, peer| resolver.take_stream(stream, peer));
    tokio::spawn(resolver.take_datagrams(datagrams));
    Ok(())
}

#[derive(Debug, Clone, Copy)]
struct Resolver {
    answer: Ipv4Addr,
    witness: Witness,
}

impl Resolver {
    async fn take_datagrams(self, socket: UdpSocket) {
        let mut buffer = vec![0_u8; 4096];
        loop {
            // An error here is an answer of ours that could not be delivered.
            let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
            if let Some(reply) = self.reply(&buffer[..length], "udp", peer) {
                let _ = socket.send_to(&reply, peer).await; // the evidence is the question
            }
        }
    }

    async fn take_stream(self, mut stream: TcpStream, peer: SocketAddr) {
        while let Ok(Ok(length)) = tokio::time::timeout(IDLE, stream.read_u16()).await {
            let mut query = vec![0_u8; usize::from(length)];
            let Ok(Ok(_)) = tokio::time::timeout(IDLE, stream.read_exact(&mut query)).await else { return };
            let Some(reply) = self.reply(&query, "tcp", peer) else { return };
            // The cast is right: a reply is a question of at most 64 KiB, cut to its first name, and 16 bytes.
            let mut framed = (reply.len() as u16).to_be_bytes().to_vec();
            framed.extend_from_slice(&reply);
            if stream.write_all(&framed).await.is_err() {
                return;
            }
        }
    }

    fn reply(self, query: &[u8], protocol: &str, peer: SocketAddr) -> Option<Vec<u8>> {
        let question = Question::parse(query)?;
        self.witness.saw(&Evidence::Asked {
            name: question.name.clone(),
            kind: question.kind,
            protocol: protocol.to_owned(),
            peer,
        });
        Some(question.answer(query, self.answer))
    }
}

/// The first question of a query.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    name: String,
    kind: u16,
    /// Where it ends in the query.
    end: usize,
}

impl Question {
    fn parse(query: &[u8]) -> Option<Self> {
        // A query, not an answer, with one question at least.
        if query.get(2)? & 0x80 != 0 || u16::from_be_bytes([*query.get(4)?, *query.get(5)?]) == 0 {
            return None;
        }
        let mut labels = Vec::new();
        let mut at = 12;
        loop {
            let length = usize::from(*query.get(at)?);
            at += 1;
            match length {
                0 => break,
                // No compression in a question; it would be a loop to follow.
                64.. => return None,
                _ => labels.push(String::from_utf8_lossy(query.get(at..at + length)?).into_owned()),
            }
            at += length;
        }
        let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
        let end = at + 4;
        (query.len() >= end).then(|| Self { name: labels.join("."), kind, end })
    }

    /// The address for an A question, nothing for any other.
    fn answer(&self, query: &[u8], address: Ipv4Addr) -> Vec<u8> {
        let count = u8::from(self.kind == KIND_A);
        let mut reply = query[..2].to_vec();
        reply.extend_from_slice(&[0x84, 0, 0, 1, 0, count, 0, 0, 0, 0]);
        reply.extend_from_slice(&query[12..self.end]);
        if count == 1 {
            // A pointer to the name, type A, class IN, 60 s, 4 bytes.
            reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            reply.extend_from_slice(&address.octets());
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::Question;
    use std::net::Ipv4Addr;

    fn query(kind: u8) -> Vec<u8> {
        let mut bytes = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(b"\x06secret\x08attacker\x00");
        bytes.extend_from_slice(&[0, kind, 0, 1]);
        bytes
    }

    #[test]
    fn a_question_is_read_and_answered() {
        let asked = Question::parse(&query(1)).unwrap();
        assert_eq!((asked.name.as_str(), asked.kind), ("secret.attacker", 1));
        let reply = asked.answer(&query(1), Ipv4Addr::new(198, 18, 0, 7));
        assert_eq!(&reply[..2], &[7, 9]);
        assert!(reply.ends_with(&[198, 18, 0, 7]));
        let other = Question::parse(&query(28)).unwrap();
        assert!(!other.answer(&query(28), Ipv4Addr::new(198, 18, 0, 7)).ends_with(&[198, 18, 0, 7]));
    }

    #[test]
    fn what_is_no_question_is_left() {
        let whole = query(1);
        for length in 0..whole.len() {
            assert_eq!(Question::parse(&whole[..length]), None, "{length} bytes");
        }
        let mut answer = whole.clone();
        answer[2] |= 0x80;
        assert_eq!(Question::parse(&answer), None);
        let mut compressed = whole;
        compressed[12] = 0xc0;
        assert_eq!(Question::parse(&compressed), None);
    }
}
