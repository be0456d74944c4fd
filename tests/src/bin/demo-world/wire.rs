//! A host whose replies are written byte by byte, for what no HTTP library would send: the credential in every form, place
//! and cut that a reply can have, and replies that break off, stall, or are malformed. It is behind the API's port under a
//! name of its own, HTTPS alone.
//!
//! Every path is below `/v1/` and wants some credential (401 without it), whose bytes it then gives away:
//! `echo?where=body|header|trailer|status|location|cookie|early&form=..&piece=n&encoding=gzip|br|deflate|unknown&code=n`
//! `&framing=chunked|length|close`; `sse?n=&ms=`, `slow?ms=`, `big?n=`, `upload`, `ws?form=..&piece=n`, `upgrade`, and for
//! upstreams that misbehave `silent`, `stall`, `reset`, `short`, `half`, `broken?how=`.

use crate::forms::{self, Form};
use crate::reply::MARK;
use crate::witness::Witness;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bottle_tests::world::{Evidence, evidence};
use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// The longest head that is read.
const HEAD_BYTES_MAX: usize = 256 << 10;
/// The longest body that is read.
const BODY_BYTES_MAX: usize = 64 << 20;
/// The longest a path may let its client wait.
const WAIT_MS_MAX: u64 = 60_000;
/// A connection is kept for so many requests.
const REQUESTS_MAX: usize = 10_000;

type Stream = TlsStream<TcpStream>;

/// What came, read without repairing anything.
#[derive(Debug)]
struct Asked {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// What becomes of the connection.
enum Next {
    Keep,
    Close,
}

/// Answers until either side has enough.
pub async fn talk(mut stream: Stream, peer: SocketAddr, sni: &str, witness: Witness) {
    let mut rest = BytesMut::new();
    for _ in 0..REQUESTS_MAX {
        let Ok(Some(asked)) = read(&mut stream, &mut rest).await else { return };
        witness.saw(&asked.evidence(peer, sni));
        let Some(credential) = asked.credential() else {
            let answer = whole("401 Unauthorized", "credential required\n");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            continue;
        };
        let kind = asked.path.strip_prefix("/v1/").unwrap_or_default();
        if kind == "ws" {
            return echo_frames(stream, &asked, &credential).await;
        }
        let answered = answer(&mut stream, kind, &asked, &credential).await;
        if answered.is_err() {
            witness.saw(&Evidence::Abandoned { peer, path: asked.path });
            return;
        }
        if let Ok(Next::Close) = answered {
            let _ = stream.shutdown().await; // the client may have gone first
            return;
        }
    }
}

async fn answer(stream: &mut Stream, kind: &str, asked: &Asked, credential: &str) -> io::Result<Next> {
    match kind {
        "echo" => echo(stream, asked, credential).await,
        "sse" => events(stream, asked).await,
        "big" => long(stream, asked).await,
        "slow" => {
            let wait = tokio::time::sleep(Duration::from_millis(asked.number("ms", 1000).min(WAIT_MS_MAX)));
            tokio::select! {
                () = wait => {}
                // Nobody waits for it any more.
                gone = gone(stream) => return gone,
            }
            put(stream, &whole("200 OK", "late\n")).await?;
            Ok(Next::Keep)
        }
        "upload" => {
            put(stream, &whole("200 OK", &format!("{}\n", asked.body.len()))).await?;
            Ok(Next::Keep)
        }
        "upgrade" => upgrade(stream, asked).await,
        "silent" => gone(stream).await,
        "stall" => {
            put(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n").await?;
            gone(stream).await
        }
        "reset" => {
            put(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n").await?;
            stream.get_ref().0.set_zero_linger()?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        "short" => {
            put(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun").await?;
            Ok(Next::Close)
        }
        "half" => {
            put(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwhole\n").await?;
            stream.shutdown().await?;
            gone(stream).await
        }
        "broken" => {
            put(stream, &broken(asked.text("how"), credential)).await?;
            Ok(Next::Close)
        }
        _ => {
            put(stream, &whole("404 Not Found", "nothing here\n")).await?;
            Ok(Next::Keep)
        }
    }
}

/// The credential where and as the query says.
async fn echo(stream: &mut Stream, asked: &Asked, credential: &str) -> io::Result<Next> {
    let told = match Form::named(asked.text("form")) {
        Some(form) => form.of(credential),
        None => Form::ALL
            .iter()
            .map(|form| format!("{}={}", form.name(), form.of(credential)))
            .collect::<Vec<_>>()
            .join(" "),
    };
    let place = asked.text("where");
    let code = asked.number("code", if place == "location" { 302 } else { 200 });
    let mut head = String::new();
    if place == "early" {
        let _ = write!(head, "HTTP/1.1 103 Early Hints\r\nLink: </{told}>; rel=preload\r\nX-Echo: {told}\r\n\r\n");
    }
    let reason = if place == "status" { told.as_str() } else { "Echo" };
    let _ = write!(head, "HTTP/1.1 {code} {reason}\r\n{MARK}: wire\r\nContent-Type: text/plain\r\n");
    match place {
        "header" => {
            let _ = write!(
                head,
                "X-Echo: {told}\r\nETag: \"{told}\"\r\nWWW-Authenticate: Basic realm=\"{told}\"\r\nX-Echo: again {told}\r\n"
            );
        }
        "location" => {
            let _ = write!(head, "Location: https://{}/v1/next?key={told}\r\n", asked.text_of("host"));
        }
        "cookie" => {
            let _ = write!(head, "Set-Cookie: key={told}; Path=/\r\nSet-Cookie: kept=1\r\n");
        }
        "trailer" => head.push_str("Trailer: X-Echo-Trailer\r\n"),
        _ => {}
    }
    let text =
        if matches!(place, "" | "body") { format!("before {told} after\n") } else { "nothing here\n".to_owned() };
    let encoding = asked.text("encoding");
    // Often enough that every encoding makes something else of it.
    let text = if encoding.is_empty() { text } else { text.repeat(20) };
    let body = forms::encoded(encoding, text.as_bytes());
    if !encoding.is_empty() {
        let _ = write!(head, "Content-Encoding: {encoding}\r\n");
    }
    let piece = usize::try_from(asked.number("piece", 0)).unwrap_or(0);
    match asked.text("framing") {
        "length" => {
            let _ = write!(head, "Content-Length: {}\r\n\r\n", body.len());
            put(stream, &head).await?;
            for part in body.chunks(if piece == 0 { body.len().max(1) } else { piece }) {
                stream.write_all(part).await?;
                stream.flush().await?;
            }
            Ok(Next::Keep)
        }
        "close" => {
            head.push_str("Connection: close\r\n\r\n");
            put(stream, &head).await?;
            stream.write_all(&body).await?;
            Ok(Next::Close)
        }
        _ => {
            head.push_str("Transfer-Encoding: chunked\r\n\r\n");
            put(stream, &head).await?;
            for part in body.chunks(if piece == 0 { body.len().max(1) } else { piece }) {
                chunk(stream, part).await?;
            }
            let trailers = if place == "trailer" { format!("X-Echo-Trailer: {told}\r\n") } else { String::new() };
            put(stream, &format!("0\r\n{trailers}\r\n")).await?;
            Ok(Next::Keep)
        }
    }
}

async fn events(stream: &mut Stream, asked: &Asked) -> io::Result<Next> {
    put(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    let pause = Duration::from_millis(asked.number("ms", 50).min(WAIT_MS_MAX));
    for n in 1..=asked.number("n", 5) {
        chunk(stream, format!("data: {{\"n\":{n}}}\n\n").as_bytes()).await?;
        tokio::time::sleep(pause).await;
    }
    put(stream, "0\r\n\r\n").await?;
    Ok(Next::Keep)
}

async fn long(stream: &mut Stream, asked: &Asked) -> io::Result<Next> {
    let mut left = asked.number("n", 0);
    put(stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: {left}\r\n\r\n")).await?;
    let piece = [b'.'; 16 << 10];
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(piece.len()).min(piece.len());
        stream.write_all(&piece[..now]).await?;
        left -= now as u64;
    }
    stream.flush().await?;
    Ok(Next::Keep)
}

/// Whatever protocol was asked for is switched to, and comes back byte by byte.
async fn upgrade(stream: &mut Stream, asked: &Asked) -> io::Result<Next> {
    let to = asked.text_of("upgrade");
    put(stream, &format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {to}\r\n\r\n")).await?;
    let mut buffer = [0_u8; 4096];
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Ok(Next::Close);
        }
        stream.write_all(&buffer[..n]).await?;
        stream.flush().await?;
    }
}

/// A WebSocket (RFC 6455) that sends every message back. Asked for a form, it begins with the credential in that form: as a
/// text, in frames of so many bytes as `piece` says, then as a ping.
async fn echo_frames(mut stream: Stream, asked: &Asked, credential: &str) {
    let key = derive_accept_key(asked.text_of("sec-websocket-key").as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {key}\r\nX-Echo: {credential}\r\n\r\n"
    );
    if put(&mut stream, &head).await.is_err() {
        return;
    }
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    if let Some(form) = Form::named(asked.text("form")) {
        let told = form.of(credential);
        let text = format!("before {told} after").into_bytes();
        let piece = usize::try_from(asked.number("piece", 0)).ok().filter(|piece| *piece > 0).unwrap_or(text.len());
        let frames = text.chunks(piece).enumerate().map(|(index, part)| {
            let data = if index == 0 { Data::Text } else { Data::Continue };
            let is_last = (index + 1) * piece >= text.len();
            Message::Frame(Frame::message(part.to_vec(), OpCode::Data(data), is_last))
        });
        // One holds 125 bytes at most.
        let ping = Message::Ping(if told.len() <= 125 { told } else { "ping".to_owned() }.into_bytes().into());
        for message in frames.chain([ping]) {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    }
    while let Some(Ok(message)) = socket.next().await {
        // Pings and closes are answered by the library.
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// Replies that no client should believe.
fn broken(how: &str, credential: &str) -> String {
    let smuggled = format!("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX-Smuggled: {credential}\r\n\r\nsmuggled\n");
    match how {
        "cl-te" => {
            format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}")
        }
        "two-lengths" => format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nwhole{smuggled}"),
        "bad-length" => "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nwhole".to_owned(),
        "bad-chunk" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nwhole\r\n0\r\n\r\n".to_owned(),
        "chunk-overflow" => {
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1{}\r\nwhole\r\n0\r\n\r\n", "0".repeat(16))
        }
        "no-http" => "220 mail.world.example ready\r\n".to_owned(),
        "huge-head" => format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\nContent-Length: 0\r\n\r\n", "a".repeat(2 << 20)),
        "many-headers" => {
            let headers = (0..5000).fold(String::new(), |mut all, n| {
                let _ = write!(all, "X-Header-{n}: {n}\r\n"); // writing to a String cannot fail
                all
            });
            format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 0\r\n\r\n")
        }
        "folded" => "HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 6\r\n\r\nwhole\n".to_owned(),
        "extra" => format!("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nwhole\n{smuggled}"),
        "unasked-101" => "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n".to_owned(),
        _ => String::new(),
    }
}

/// Waits until the client goes away, which is what is then told.
async fn gone(stream: &mut Stream) -> io::Result<Next> {
    let mut buffer = [0_u8; 1024];
    while stream.read(&mut buffer).await? > 0 {}
    Err(io::ErrorKind::UnexpectedEof.into())
}

async fn put(stream: &mut Stream, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes()).await?;
    stream.flush().await
}

async fn chunk(stream: &mut Stream, part: &[u8]) -> io::Result<()> {
    let mut framed = format!("{:x}\r\n", part.len()).into_bytes();
    framed.extend_from_slice(part);
    framed.extend_from_slice(b"\r\n");
    stream.write_all(&framed).await?;
    stream.flush().await
}

fn whole(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{MARK}: wire\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// One request; `None` at the end of the connection.
async fn read(stream: &mut Stream, rest: &mut BytesMut) -> io::Result<Option<Asked>> {
    let end = loop {
        if let Some(at) = find(rest, b"\r\n\r\n") {
            break at;
        }
        if rest.len() > HEAD_BYTES_MAX || stream.read_buf(rest).await? == 0 {
            return Ok(None);
        }
    };
    let head = rest.split_to(end + 4);
    let mut asked = Asked::parse(&String::from_utf8_lossy(&head));
    if asked.text_of("transfer-encoding").eq_ignore_ascii_case("chunked") {
        loop {
            let line = loop {
                if let Some(at) = find(rest, b"\r\n") {
                    break rest.split_to(at + 2);
                }
                if stream.read_buf(rest).await? == 0 {
                    return Ok(None);
                }
            };
            let size = String::from_utf8_lossy(&line);
            let size = usize::from_str_radix(size.trim().split(';').next().unwrap_or_default(), 16).unwrap_or(0);
            fill(stream, rest, size.min(BODY_BYTES_MAX) + 2).await?;
            let part = rest.split_to(size.min(BODY_BYTES_MAX) + 2);
            if size == 0 || asked.body.len() > BODY_BYTES_MAX {
                break;
            }
            asked.body.extend_from_slice(&part[..size]);
        }
    } else {
        let length = asked.text_of("content-length").parse::<usize>().unwrap_or(0).min(BODY_BYTES_MAX);
        fill(stream, rest, length).await?;
        asked.body = rest.split_to(length).to_vec();
    }
    Ok(Some(asked))
}

async fn fill(stream: &mut Stream, rest: &mut BytesMut, bytes: usize) -> io::Result<()> {
    while rest.len() < bytes {
        if stream.read_buf(rest).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

impl Asked {
    fn parse(head: &str) -> Self {
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut headers = BTreeMap::<String, String>::new();
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            headers
                .entry(name.to_ascii_lowercase())
                .and_modify(|known| {
                    known.push_str(", ");
                    known.push_str(value);
                })
                .or_insert(value.to_owned());
        }
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            headers,
            body: Vec::new(),
        }
    }

    /// A value of the query; empty where it has none.
    fn text(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str, otherwise: u64) -> u64 {
        self.text(name).parse().unwrap_or(otherwise)
    }

    /// A header's value; empty where it has none.
    fn text_of(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// What was shown as a credential, without its scheme; `user:password` of Basic (RFC 7617).
    fn credential(&self) -> Option<String> {
        let value = self.headers.get("authorization").or_else(|| self.headers.get("x-api-key"))?;
        if let Some(encoded) = value.strip_prefix("Basic ") {
            let decoded = STANDARD.decode(encoded).unwrap_or_default();
            return Some(String::from_utf8_lossy(&decoded).into_owned());
        }
        let bare = match value.split_once(' ') {
            Some((scheme, bare)) if ["bearer", "token"].contains(&scheme.to_ascii_lowercase().as_str()) => bare,
            _ => value,
        };
        Some(bare.to_owned())
    }

    fn evidence(&self, peer: SocketAddr, sni: &str) -> Evidence {
        let query = self.query.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("&");
        Evidence::Request {
            peer,
            sni: Some(sni.to_owned()),
            host: self.text_of("host").to_owned(),
            method: self.method.clone(),
            path: if query.is_empty() { self.path.clone() } else { format!("{}?{query}", self.path) },
            authorization: self.headers.get("authorization").cloned(),
            headers: self.headers.clone(),
            body_prefix: evidence::prefix(&self.body),
            body_bytes: self.body.len() as u64,
        }
    }
}
