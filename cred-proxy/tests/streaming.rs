//! Bodies on their way: answers before the body, encodings, trailers, limits, and what ends when one side goes.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod world;

use cred_proxy::config::{Config, Limits};
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use world::{PATIENCE, SECRET, Sidecar, Upstream, config, read_head, read_line, read_message, route, says, status};

fn stars() -> String {
    "*".repeat(SECRET.len())
}

fn gzipped(plain: &str) -> Vec<u8> {
    let mut child = Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let plain = plain.to_owned();
    let writing = std::thread::spawn(move || input.write_all(plain.as_bytes()).unwrap());
    let mut out = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
    writing.join().unwrap();
    assert!(child.wait().unwrap().success());
    out
}

#[test]
fn an_encoded_reply_is_decoded_masked_and_passed_on() {
    // Long enough that the credential is cut by the pieces that it is decoded in.
    let plain: String = (0..20_000).map(|number| format!("{number} {SECRET} ")).collect();
    let encoded = gzipped(&plain);
    let upstream = Upstream::plain(move |seen, wire| {
        let coding = if seen.head.contains("/odd") { "compress" } else { "gzip" };
        write!(
            wire,
            "HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nETag: \"a\"\r\nContent-Length: {}\r\n\r\n",
            encoded.len()
        )?;
        if seen.head.starts_with("HEAD ") {
            return Ok(());
        }
        if seen.head.contains("/damaged") {
            wire.write_all(&encoded[..encoded.len() / 2])?;
            return wire.write_all(&vec![b'x'; encoded.len() - encoded.len() / 2]);
        }
        wire.write_all(&encoded)
    });
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let reply = sidecar.get("/api/x");
    assert!(reply.body == plain.replace(SECRET, &stars()).as_bytes());
    assert_eq!(upstream.last().header("accept-encoding"), ["identity"]);
    assert!(reply.header("content-encoding").is_empty() && reply.header("content-length").is_empty(), "{}", reply.head);
    assert_eq!(reply.header("etag"), ["W/\"a\""]);
    sidecar.logged();
    let mut stream = sidecar.connect();
    stream.write_all(b"HEAD /api/x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(!read_head(&mut stream).unwrap().to_lowercase().contains("content-"));
    sidecar.logged();
    assert_eq!(status(&sidecar.get("/api/odd")), 502);
    sidecar.logged();
    // What is damaged does not look like an end.
    let mut stream = sidecar.connect();
    stream.write_all(b"GET /api/damaged HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    assert!(all.starts_with(b"HTTP/1.1 200 ") && !all.ends_with(b"0\r\n\r\n"));
    assert!(sidecar.logged().5.unwrap().starts_with("the body cannot be decoded"));
}

#[test]
fn an_encoded_event_comes_when_it_is_there() {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let events: Vec<Vec<u8>> = (0..3).map(|number| gzipped(&format!("data: {number}\n\n"))).collect();
    let upstream = Upstream::plain(move |_, wire| {
        write!(wire, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for event in &events {
            write!(wire, "{:x}\r\n", event.len())?;
            wire.write_all(event)?;
            wire.write_all(b"\r\n")?;
            wire.flush()?;
            gone.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        write!(wire, "0\r\n\r\n")
    });
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let mut stream = sidecar.connect();
    stream.write_all(b"GET /api/sse HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_head(&mut stream).unwrap();
    for number in 0..3 {
        assert_eq!(read_line(&mut stream).unwrap(), "9\r\n");
        let mut event = [0; 11];
        stream.read_exact(&mut event).unwrap();
        assert_eq!(&event, format!("data: {number}\n\n\r\n").as_bytes());
        go.send(()).unwrap();
    }
    assert_eq!(read_line(&mut stream).unwrap(), "0\r\n");
}

#[test]
fn an_encoded_request_passes_as_it_is() {
    let upstream = Upstream::plain(says("hello"));
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let body = gzipped("a body");
    let mut stream = sidecar.connect();
    write!(
        stream,
        "POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    stream.write_all(&body).unwrap();
    assert_eq!(status(&read_message(&mut stream, true).unwrap()), 200);
    let seen = upstream.last();
    assert_eq!((seen.header("content-encoding"), &seen.body), (vec!["gzip"], &body));
}

#[test]
fn a_body_is_asked_for_only_when_it_can_go_on() {
    let upstream = Upstream::plain(says("hello"));
    let mut narrow = route(&upstream.url());
    narrow.allow = vec!["POST /open".into()];
    let sidecar = Sidecar::start(&config(vec![narrow]));
    let head = |path: &str| {
        format!("POST /api/{path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    };
    let mut stream = sidecar.connect();
    stream.write_all(head("open").as_bytes()).unwrap();
    assert_eq!(read_head(&mut stream).unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").unwrap();
    assert_eq!(status(&read_message(&mut stream, true).unwrap()), 200);
    let seen = upstream.last();
    assert_eq!((seen.body.as_slice(), seen.header("expect")), (&b"hello"[..], vec![]));
    let mut stream = sidecar.connect();
    stream.write_all(head("closed").as_bytes()).unwrap();
    assert!(read_head(&mut stream).unwrap().starts_with("HTTP/1.1 403 "));
}

#[test]
fn trailers_pass_both_ways_where_they_are_announced_and_wanted() {
    let upstream = Upstream::plain(|_, wire| {
        write!(wire, "HTTP/1.1 200 OK\r\nTrailer: X-Sum, Set-Cookie\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        write!(wire, "2\r\nab\r\n0\r\nX-Sum: {SECRET}\r\nSet-Cookie: a=b\r\nX-Other: c\r\n\r\n")
    });
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let mut stream = sidecar.connect();
    stream
        .write_all(
            b"POST /api/x HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-Sum, Authorization\r\n\
              Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 1\r\nAuthorization: x\r\nX-Mine: y\r\n\r\n",
        )
        .unwrap();
    let reply = read_message(&mut stream, true).unwrap();
    assert_eq!((reply.header("trailer"), reply.body.as_slice()), (vec!["X-Sum"], &b"ab"[..]));
    assert_eq!(reply.trailers, [format!("x-sum: {}", stars())]);
    let seen = upstream.last();
    assert_eq!((seen.header("trailer"), seen.header("te")), (vec!["x-sum"], vec!["trailers"]));
    assert_eq!(seen.trailers, ["x-sum: 1"]);
}

fn limited(upstream: &Upstream, limits: Limits) -> Config {
    Config { limits, ..config(vec![route(&upstream.url())]) }
}

#[test]
fn limits_hold_and_the_next_good_request_works() {
    let upstream = Upstream::plain(says("hello"));
    let limits = Limits { body_bytes: Some(10), head_bytes: 1024, ..Limits::default() };
    let sidecar = Sidecar::start(&limited(&upstream, limits));
    for (request, wanted) in [
        ("POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789".to_owned(), 200),
        ("POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n0123456789a".to_owned(), 413),
        (
            "POST /api/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n01234567\r\n2\r\n89\r\n0\r\n\r\n"
                .to_owned(),
            200,
        ),
        (
            "POST /api/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n01234567\r\n3\r\n89a\r\n0\r\n\r\n"
                .to_owned(),
            413,
        ),
        (format!("GET /api/x HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(900)), 200),
        (format!("GET /api/x HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(1024)), 400),
    ] {
        assert_eq!(status(&sidecar.ask(&request)), wanted, "{request}");
        assert_eq!(status(&sidecar.get("/api/x")), 200);
    }
    let seen = upstream.seen();
    assert!(seen.iter().all(|seen| seen.body.len() <= 10), "{seen:?}");
}

#[test]
fn more_requests_than_may_be_are_refused_until_one_ends() {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let upstream = Upstream::plain(move |seen, wire| {
        if !seen.head.contains("/long") {
            return says("hello")(seen, wire);
        }
        write!(wire, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")?;
        wire.flush()?;
        gone.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        write!(wire, "0\r\n\r\n")
    });
    let sidecar = Sidecar::start(&limited(&upstream, Limits { requests: 2, ..Limits::default() }));
    let mut open: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = sidecar.connect();
            stream.write_all(b"GET /api/long HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            read_head(&mut stream).unwrap();
            stream
        })
        .collect();
    let reply = sidecar.get("/api/x");
    assert!(status(&reply) == 503 && String::from_utf8_lossy(&reply.body).contains("too many requests"));
    assert!(sidecar.logged().5.is_some());
    go.send(()).unwrap();
    go.send(()).unwrap();
    for stream in &mut open {
        for line in ["1\r\n", "a\r\n", "0\r\n", "\r\n"] {
            assert_eq!(read_line(stream).unwrap(), line);
        }
        sidecar.logged();
    }
    assert_eq!(status(&sidecar.get("/api/x")), 200);
}

#[test]
fn connections_beyond_the_limit_wait_for_a_place() {
    let upstream = Upstream::plain(says("hello"));
    let sidecar = Sidecar::start(&limited(&upstream, Limits { connections: 2, ..Limits::default() }));
    let (first, second) = (sidecar.connect(), sidecar.connect());
    let mut third = sidecar.connect();
    third.write_all(b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    third.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    assert!(third.read(&mut [0]).is_err(), "it was answered although there was no place");
    drop((first, second));
    third.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(status(&read_message(&mut third, true).unwrap()), 200);
}

#[test]
fn an_agent_that_takes_nothing_loses_its_connection() {
    let (told, heard) = channel();
    let told = Mutex::new(told);
    let upstream = Upstream::plain(move |seen, wire| {
        if !seen.head.contains("/endless") {
            return says("hello")(seen, wire);
        }
        write!(wire, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")?;
        let ended = loop {
            if let Err(error) = wire.write_all(&[b' '; 65_536]) {
                break error;
            }
        };
        told.lock().unwrap().send(()).unwrap();
        Err(ended)
    });
    let sidecar = Sidecar::start(&limited(&upstream, Limits { idle_seconds: 1, ..Limits::default() }));
    let mut stream = sidecar.connect();
    stream.write_all(b"GET /api/endless HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    heard.recv_timeout(PATIENCE).expect("it is still held");
    assert!(sidecar.logged().5.is_some());
    assert_eq!(status(&sidecar.get("/api/x")), 200);
}

#[test]
fn an_agent_may_send_all_before_it_reads_a_reply_that_has_begun() {
    // More than the buffers on the way hold, so that either direction stands still where it depends on the other.
    const BYTES: usize = 24 << 20;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = std::thread::spawn(move || {
        let (mut wire, _) = listener.accept().unwrap();
        read_head(&mut wire).unwrap();
        let mut writes = wire.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            write!(writes, "HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n").unwrap();
            writes.write_all(&vec![b'\n'; BYTES]).unwrap();
        });
        let mut body = vec![0; BYTES];
        wire.read_exact(&mut body).unwrap();
        writing.join().unwrap();
    });
    let sidecar = Sidecar::start(&config(vec![route(&format!("http://{address}"))]));
    let mut stream = sidecar.connect();
    write!(stream, "POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n").unwrap();
    stream.write_all(&vec![b'a'; BYTES]).unwrap();
    assert!(read_head(&mut stream).unwrap().starts_with("HTTP/1.1 200 OK"));
    let mut body = vec![0; BYTES];
    stream.read_exact(&mut body).unwrap();
    upstream.join().unwrap();
}

#[test]
fn a_reply_framed_twice_is_refused() {
    let upstream = Upstream::plain(|_, wire| {
        write!(wire, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")
    });
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    assert_eq!(status(&sidecar.get("/api/x")), 502);
    assert_eq!(sidecar.logged().2, 502);
}
