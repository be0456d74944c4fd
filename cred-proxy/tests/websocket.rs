//! Upgraded connections: what the upstream sees of a handshake, bytes both ways, and how they end.

mod world;

use cred_proxy::config::{Auth, Event, Limits};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::channel;
use world::{PATIENCE, SECRET, Seen, Sidecar, Upstream, Wire, config, read_head, read_message, route, status};

/// The example of RFC 6455, 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn handshake(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

/// Answers the handshake, then goes on with `then`.
fn upgrading(
    then: impl Fn(&Seen, &mut dyn Wire) -> std::io::Result<()> + Send + Sync + 'static,
) -> impl Fn(&Seen, &mut dyn Wire) -> std::io::Result<()> + Send + Sync + 'static {
    move |seen, wire| {
        if seen.header("upgrade").is_empty() {
            return world::says("plain")(seen, wire);
        }
        write!(
            wire,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSet-Cookie: a=b\r\n\
             X-Echo: {}\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n",
            seen.header("authorization").first().unwrap_or(&"")
        )?;
        wire.flush()?;
        then(seen, wire)?;
        Err(std::io::ErrorKind::ConnectionAborted.into())
    }
}

/// Sends back what it gets.
fn echo(_: &Seen, wire: &mut dyn Wire) -> std::io::Result<()> {
    let mut bytes = [0; 1024];
    loop {
        match wire.read(&mut bytes)? {
            0 => return Ok(()),
            read => wire.write_all(&bytes[..read])?,
        }
        wire.flush()?;
    }
}

fn open(sidecar: &Sidecar, request: &str) -> (TcpStream, String) {
    let mut stream = sidecar.connect();
    stream.write_all(request.as_bytes()).unwrap();
    let head = read_head(&mut stream).unwrap();
    (stream, head)
}

fn expect(stream: &mut TcpStream, wanted: &[u8]) {
    let mut bytes = vec![0; wanted.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, wanted);
}

#[test]
fn a_handshake_carries_the_credential_and_bytes_pass_both_ways() {
    let upstream = Upstream::plain(upgrading(echo));
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let more = "Authorization: agents-own\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
                Sec-WebSocket-Protocol: openai-insecure-api-key.agents-own\r\n";
    let (mut stream, head) = open(&sidecar, &handshake("/api/ws", more));
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let head = head.to_lowercase();
    assert!(head.contains("upgrade: websocket\r\n") && head.contains(&ACCEPT.to_lowercase()), "{head}");
    assert!(!head.contains("set-cookie") && !head.contains(SECRET), "{head}");
    let seen = upstream.last();
    assert_eq!(seen.header("authorization"), [format!("Bearer {SECRET}")]);
    assert_eq!((seen.header("upgrade"), seen.header("connection")), (vec!["websocket"], vec!["Upgrade"]));
    assert_eq!((seen.header("sec-websocket-key"), seen.header("sec-websocket-version")), (vec![KEY], vec!["13"]));
    assert!(!seen.head.contains("agents-own") && seen.header("sec-websocket-extensions").is_empty(), "{}", seen.head);
    // Frames as the echo sends them back are an upstream's.
    for frame in [&b"\x81\x05hello"[..], b"\x82\x03\x00\n\xff", b"\x89\x00"] {
        stream.write_all(frame).unwrap();
        expect(&mut stream, frame);
    }
    let frame = [&[0x81, u8::try_from(SECRET.len()).unwrap()], SECRET.as_bytes()].concat();
    stream.write_all(&frame).unwrap();
    expect(&mut stream, &[&frame[..2], "*".repeat(SECRET.len()).as_bytes()].concat());
    // The agent's end is passed on, and so is the upstream's.
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    let (route, path, status, bytes, credential, reason) = sidecar.logged();
    assert_eq!((route.as_str(), path.as_str(), status, credential, reason), ("/api/", "/api/ws", 101, true, None));
    assert_eq!(bytes, 7 + 5 + 2 + frame.len() as u64);
}

#[test]
fn one_end_does_not_end_the_other_direction() {
    let (told, heard) = channel();
    let told = std::sync::Mutex::new(told);
    let upstream = Upstream::plain(upgrading(move |_, wire| {
        let mut all = Vec::new();
        wire.read_to_end(&mut all)?;
        told.lock().unwrap().send(all).unwrap();
        wire.write_all(b"\x81\x04late")?;
        wire.flush()
    }));
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let (mut stream, _) = open(&sidecar, &handshake("/api/ws", ""));
    stream.write_all(b"last words").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), b"last words");
    expect(&mut stream, b"\x81\x04late");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn over_tls_and_without_a_credential() {
    let upstream = Upstream::tls("127.0.0.1", upgrading(echo));
    let mut open_route = route(&format!("https://{}", upstream.address));
    (open_route.auth, open_route.secret) = (Auth::None, None);
    let mut config = config(vec![open_route]);
    config.upstream_roots = upstream.ca_pem.clone();
    let sidecar = Sidecar::start(&config);
    let more = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let (mut stream, head) = open(&sidecar, &handshake("/api/ws", more));
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(upstream.last().header("sec-websocket-extensions"), ["permessage-deflate"]);
    // Nothing is masked, so nothing is read: these are no frames of an upstream.
    stream.write_all(b"\xff\xff anything").unwrap();
    expect(&mut stream, b"\xff\xff anything");
}

#[test]
fn frames_that_cannot_be_masked_end_it() {
    let upstream = Upstream::plain(upgrading(echo));
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let (mut stream, _) = open(&sidecar, &handshake("/api/ws", ""));
    stream.write_all(b"\xc1\x05hello").unwrap();
    let mut rest = Vec::new();
    // A reset is as good an end as any.
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    assert!(sidecar.logged().5.unwrap().contains("extension that was not offered"));
}

#[test]
fn an_upstream_that_does_not_upgrade_is_answered_as_any_other() {
    let upstream = Upstream::plain(|seen, wire| {
        if seen.head.contains("forged") {
            return write!(
                wire,
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            );
        }
        world::says("no")(seen, wire)
    });
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    // What stands behind the handshake is a request, and is read as one.
    let behind = "GET /api/behind HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut stream = sidecar.connect();
    stream.write_all(format!("{}{behind}", handshake("/api/ws", "")).as_bytes()).unwrap();
    for _ in 0..2 {
        let reply = read_message(&mut stream, true).unwrap();
        assert_eq!((status(&reply), reply.body.as_slice()), (200, &b"no"[..]));
    }
    assert!(upstream.last().head.starts_with("GET /behind "), "{}", upstream.last().head);
    // Doubtful framing behind it is refused as ever.
    let mut stream = sidecar.connect();
    stream.write_all(format!("{}GET /api/bad HTTP/1.1\nHost: a\n\n", handshake("/api/ws", "")).as_bytes()).unwrap();
    assert_eq!(status(&read_message(&mut stream, true).unwrap()), 200);
    assert_eq!(status(&read_message(&mut stream, true).unwrap()), 400);
    // A status of 101 alone is no upgrade, and nothing behind it is carried.
    let (mut stream, head) = open(&sidecar, &format!("{}{behind}", handshake("/api/forged", "")));
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    drop(stream.read(&mut [0]));
    assert!(upstream.seen().iter().all(|seen| !seen.head.contains("/bad")));
    assert_eq!(status(&sidecar.get("/api/good")), 200);
}

#[test]
fn permissions_hold_for_handshakes() {
    let upstream = Upstream::plain(upgrading(echo));
    let mut narrow = route(&upstream.url());
    narrow.allow = vec!["GET /open/**".into()];
    let sidecar = Sidecar::start(&config(vec![narrow]));
    assert!(open(&sidecar, &handshake("/api/closed", "")).1.starts_with("HTTP/1.1 403 "));
    assert!(upstream.seen().is_empty());
    assert!(open(&sidecar, &handshake("/api/open/ws", "")).1.starts_with("HTTP/1.1 101 "));
}

#[test]
fn a_route_that_is_taken_away_ends_it_and_silence_does() {
    let upstream = Upstream::plain(upgrading(echo));
    let mut sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let (mut stream, _) = open(&sidecar, &handshake("/api/ws", ""));
    stream.write_all(b"\x81\x01a").unwrap();
    expect(&mut stream, b"\x81\x01a");
    let mut short = config(vec![]);
    short.limits = Limits { idle_seconds: 1, ..Limits::default() };
    assert_eq!(sidecar.configure(&short), Event::Configured);
    assert!(!matches!(stream.read(&mut [0]), Ok(1)));
    assert_eq!(sidecar.logged().5.unwrap(), "the route was taken away");
    short.routes = vec![route(&upstream.url())];
    assert_eq!(sidecar.configure(&short), Event::Configured);
    let (mut stream, _) = open(&sidecar, &handshake("/api/ws", ""));
    assert!(!matches!(stream.read(&mut [0]), Ok(1)));
    assert!(sidecar.logged().5.unwrap().starts_with("nothing came for"));
}
