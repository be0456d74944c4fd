//! HTTP/1.1 by hand over a plain socket, so that an attempt can send what no well-behaved client would: any path, any
//! Host, any SNI, any certificate.

use crate::known::{Known, Place};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// How long a connect may take.
pub const CONNECT_MAX: Duration = Duration::from_millis(1500);
/// How long one read or write may take.
const IO_MAX: Duration = Duration::from_secs(4);
/// Longer replies are cut here.
const REPLY_BYTES_MAX: usize = 1 << 20;

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Decoded where it was chunked.
    pub body: Vec<u8>,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No connection.
    Connect(String),
    /// TLS did not come about.
    Tls(String),
    /// The connection ended, or stayed silent, before an answer.
    Silent(String),
}

/// What an exchange came to.
pub type Answer = Result<Reply, Failure>;

impl Reply {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Which host of the world answered.
    pub fn world(&self) -> Option<&str> {
        self.header("x-world")
    }

    /// Headers and body as text, for searching.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\n"));
        }
        text.push_str(&String::from_utf8_lossy(&self.body));
        text
    }

    /// Reads as much of an answer as there is; `None` while its end has not come.
    fn parse(bytes: &[u8], ended: bool) -> Option<Self> {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut reply = Self { status, headers, body: Vec::new() };
        let rest = &bytes[end + 4..];
        if reply.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            let (body, whole) = dechunk(rest);
            reply.body = body;
            return (whole || ended).then_some(reply);
        }
        let length = reply.header("content-length").and_then(|length| length.parse::<usize>().ok());
        let whole = length.is_some_and(|length| rest.len() >= length) || matches!(status, 204 | 304);
        reply.body = rest[..length.unwrap_or(rest.len()).min(rest.len())].to_vec();
        (whole || ended).then_some(reply)
    }
}

/// Connects to a name or address.
pub fn dial(place: &Place) -> Result<TcpStream, Failure> {
    let failed = |error: io::Error| Failure::Connect(error.to_string());
    let addresses: Vec<SocketAddr> = (place.host.as_str(), place.port).to_socket_addrs().map_err(failed)?.collect();
    let first = addresses.first().ok_or_else(|| Failure::Connect(format!("{} has no address", place.host)))?;
    let stream = TcpStream::connect_timeout(first, CONNECT_MAX).map_err(failed)?;
    stream.set_read_timeout(Some(IO_MAX)).map_err(failed)?;
    stream.set_write_timeout(Some(IO_MAX)).map_err(failed)?;
    Ok(stream)
}

/// Sends a request as it is and reads the answer.
pub fn exchange(stream: &mut (impl Read + Write), request: &[u8]) -> Answer {
    let silent = |why: &str| Failure::Silent(why.to_owned());
    stream.write_all(request).and_then(|()| stream.flush()).map_err(|error| silent(&error.to_string()))?;
    let mut bytes = Vec::new();
    let mut piece = [0_u8; 8192];
    loop {
        // A peer that closes without TLS's own goodbye has ended all the same.
        let read = stream.read(&mut piece);
        let ended = !matches!(read, Ok(1..)) || bytes.len() >= REPLY_BYTES_MAX;
        if let Ok(length) = read {
            bytes.extend_from_slice(&piece[..length]);
        }
        match Reply::parse(&bytes, ended) {
            Some(reply) => return Ok(reply),
            None if ended => {
                return Err(silent(&match read {
                    Ok(_) if bytes.is_empty() => "closed without an answer".to_owned(),
                    Ok(_) => "the answer is no HTTP".to_owned(),
                    Err(error) => error.to_string(),
                }));
            }
            None => {}
        }
    }
}

/// One request in clear to a place.
pub fn ask(place: &Place, request: &str) -> Answer {
    exchange(&mut dial(place)?, request.as_bytes())
}

/// A request line with its headers; `Connection: close` is always said.
pub fn request(method: &str, target: &str, host: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    format!("{text}\r\n{body}")
}

/// Asks a proxy for a tunnel. `Ok` is the proxy's answer; with 200 the tunnel is the stream.
pub fn connect(proxy: &Place, target: &str) -> Result<(Reply, TcpStream), Failure> {
    let mut stream = dial(proxy)?;
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| Failure::Silent(error.to_string()))?;
    let mut head = Vec::new();
    let mut byte = [0_u8];
    // Byte by byte: what follows a 200 belongs to the tunnel.
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16 << 10 {
        match stream.read(&mut byte) {
            Ok(1..) => head.push(byte[0]),
            Ok(0) => return Err(Failure::Silent("closed without an answer".to_owned())),
            Err(error) => return Err(Failure::Silent(error.to_string())),
        }
    }
    let mut reply = Reply::parse(&head, true).ok_or_else(|| Failure::Silent("the answer is no HTTP".to_owned()))?;
    if reply.status != 200 {
        let length = reply.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0).min(REPLY_BYTES_MAX);
        reply.body = vec![0; length];
        if stream.read_exact(&mut reply.body).is_err() {
            reply.body.clear(); // the status is what counts
        }
    }
    Ok((reply, stream))
}

/// Whom TLS believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The CAs of the bottle.
    Bottle,
    /// Anybody, as an attacker's own client would.
    Anybody,
}

/// A tunnel through the bottle's pipelock, TLS with this SNI inside, and one request. An answer other than 200 to the
/// CONNECT is the answer.
pub fn through_tunnel(known: &Known, target: &str, sni: &str, trust: Trust, request: &str) -> Answer {
    let (reply, stream) = connect(&known.proxy, target)?;
    if reply.status != 200 {
        return Ok(reply);
    }
    exchange(&mut tls(known, stream, sni, trust)?, request.as_bytes())
}

fn tls(
    known: &Known,
    stream: TcpStream,
    sni: &str,
    trust: Trust,
) -> Result<StreamOwned<ClientConnection, TcpStream>, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Tls(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?;
    let config = match trust {
        Trust::Bottle => builder.with_root_certificates(known.roots.clone()).with_no_client_auth(),
        Trust::Anybody => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous::new(&provider)))
            .with_no_client_auth(),
    };
    let name = ServerName::try_from(sni.to_owned()).map_err(|e| failed(&e))?;
    let client = ClientConnection::new(Arc::new(config), name).map_err(|e| failed(&e))?;
    let mut stream = StreamOwned::new(client, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).map_err(|e| failed(&e))?;
    }
    Ok(stream)
}

/// Believes every certificate: the hostile client does not care whom it talks to.
#[derive(Debug)]
struct Credulous(WebPkiSupportedAlgorithms);

impl Credulous {
    fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// The bytes of the chunks that are there, and whether the last one is.
fn dechunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = String::from_utf8_lossy(&rest[..end]);
        let size = size.split(';').next().unwrap_or_default().trim();
        let Ok(size) = usize::from_str_radix(size, 16) else { break };
        if size == 0 {
            return (body, true);
        }
        rest = &rest[end + 2..];
        let now = size.min(rest.len());
        body.extend_from_slice(&rest[..now]);
        rest = rest.get(size.saturating_add(2)..).unwrap_or_default();
    }
    (body, false)
}

#[cfg(test)]
mod tests {
    use super::{Reply, request};

    #[test]
    fn answers_are_read_to_their_end_and_no_further() {
        let counted = b"HTTP/1.1 200 OK\r\nX-World: api\r\nContent-Length: 2\r\n\r\nhixx";
        let reply = Reply::parse(counted, false).unwrap();
        assert_eq!((reply.status, reply.world(), reply.body.as_slice()), (200, Some("api"), &b"hi"[..]));
        assert_eq!(Reply::parse(&counted[..counted.len() - 3], false), None, "a byte is missing");
        assert!(Reply::parse(&counted[..counted.len() - 3], true).is_some(), "it will not come");

        let chunked = b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nto\r\n3;x=y\r\nken\r\n0\r\n\r\n";
        assert_eq!(Reply::parse(chunked, false).unwrap().body, b"token");
        assert_eq!(Reply::parse(&chunked[..chunked.len() - 8], false), None);

        let open = b"HTTP/1.1 200 OK\r\n\r\nuntil the end";
        assert_eq!(Reply::parse(open, false), None);
        assert_eq!(Reply::parse(open, true).unwrap().body, b"until the end");
        assert_eq!(Reply::parse(b"SSH-2.0-x\r\n\r\n\r\n", true), None);
        let absurd = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx";
        assert_eq!(Reply::parse(absurd, true).unwrap().body, b"x");
    }

    #[test]
    fn a_request_says_its_length_where_it_has_a_body() {
        assert!(!request("GET", "/", "h", &[], "").contains("Content-Length"));
        let post = request("POST", "/x/../y", "h", &[("A", "b")], "body");
        assert!(post.starts_with("POST /x/../y HTTP/1.1\r\nHost: h\r\n") && post.contains("\r\nA: b\r\n"));
        assert!(post.ends_with("Content-Length: 4\r\n\r\nbody"));
    }
}
