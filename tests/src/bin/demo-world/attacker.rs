//! The attacker's host: it takes whatever comes over TCP, TLS or in datagrams, writes it down, and answers, so that a
//! hole shows on both sides.

use crate::listen::{Listening, serve};
use crate::start::StartError;
use crate::witness::Witness;
use bottle_tests::world::role::AttackerConfig;
use bottle_tests::world::{Evidence, evidence};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nX-World: attacker\r\nContent-Length: 9\r\nConnection: close\r\n\r\nattacker\n";
/// A first byte of this kind begins a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// Without a further byte for so long, what came is taken as all of it.
const IDLE: Duration = Duration::from_millis(300);
/// The first byte may take longer.
const FIRST_BYTE: Duration = Duration::from_secs(10);

/// Binds all ports, says ready and serves.
pub async fn start(config: AttackerConfig, witness: &Witness) -> Result<(), StartError> {
    let tls = TlsAcceptor::from(config.identity.server_config()?);
    let mut listening = Listening::default();
    let (mut streams, mut datagrams) = (Vec::new(), Vec::new());
    for port in config.tcp_ports {
        streams.push(listening.tcp("tcp", config.listen, port).await?);
    }
    for port in config.udp_ports {
        datagrams.push(listening.udp("udp", config.listen, port).await?);
    }
    listening.ready(witness);

    let witness = *witness;
    for listener in streams {
        let port = listener.local_addr().map_or(0, |address| address.port());
        let tls = tls.clone();
        serve(listener, move |stream, peer| take_stream(stream, peer, port, tls.clone(), witness));
    }
    for socket in datagrams {
        tokio::spawn(take_datagrams(socket, witness));
    }
    Ok(())
}

async fn take_stream(stream: TcpStream, peer: SocketAddr, port: u16, tls: TlsAcceptor, witness: Witness) {
    witness.saw(&Evidence::Opened { port, peer });
    let mut first = [0_u8];
    match tokio::time::timeout(FIRST_BYTE, stream.peek(&mut first)).await {
        Ok(Ok(1)) if first[0] == TLS_HANDSHAKE => {
            if let Ok(Ok(stream)) = tokio::time::timeout(FIRST_BYTE, tls.accept(stream)).await {
                take_bytes(stream, "tls", peer, port, witness).await;
            }
        }
        Ok(Ok(1)) => take_bytes(stream, "tcp", peer, port, witness).await,
        Ok(_) | Err(_) => {}
    }
}

async fn take_bytes(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    protocol: &str,
    peer: SocketAddr,
    port: u16,
    witness: Witness,
) {
    let mut bytes = Vec::new();
    let mut wait = FIRST_BYTE;
    while bytes.len() < evidence::PREFIX_BYTES_MAX {
        match tokio::time::timeout(wait, stream.read_buf(&mut bytes)).await {
            Ok(Ok(n)) if n > 0 => wait = IDLE,
            Ok(_) | Err(_) => break,
        }
        if bytes.starts_with(b"GET ") && bytes.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let prefix = evidence::prefix(&bytes);
    witness.saw(&Evidence::Received { protocol: protocol.to_owned(), port, peer, prefix, bytes: bytes.len() as u64 });
    // Who hangs up early does not read the answer.
    let _ = stream.write_all(ANSWER).await;
    let _ = stream.shutdown().await;
}

async fn take_datagrams(socket: tokio::net::UdpSocket, witness: Witness) {
    let port = socket.local_addr().map_or(0, |address| address.port());
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        // An error here is an answer of ours that could not be delivered.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        witness.saw(&Evidence::Received {
            protocol: "udp".to_owned(),
            port,
            peer,
            prefix: evidence::prefix(&buffer[..length]),
            bytes: length as u64,
        });
        let _ = socket.send_to(b"attacker", peer).await; // the evidence is what came, not whether this gets back
    }
}
