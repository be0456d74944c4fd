//! The real binary on loopback: what arrives at the upstream, what comes back, and what never does.

mod world;

use cred_proxy::Secret;
use cred_proxy::config::{Auth, Event};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use world::{
    ConnectProxy, PATIENCE, SECRET, Sidecar, Upstream, config, free_address, read_head, read_line, read_message, route,
    says, status,
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_credential_arrives_and_the_agents_own_never_does() {
    let upstream = Upstream::plain(says("hello"));
    let sidecar = Sidecar::start(&config(vec![route(&format!("{}/base", upstream.url()))]));
    let reply = sidecar.ask(
        "POST /api/v1/x?q=1 HTTP/1.1\r\nHost: cred-proxy:9099\r\nAuthorization: Bearer agents-own\r\nX-Api-Key: agents-own\r\n\
         Cookie: a=agents-own\r\nPRIVATE-TOKEN: agents-own\r\nProxy-Authorization: agents-own\r\nX-Forwarded-For: agents-own\r\n\
         X-Hop: agents-own\r\nConnection: keep-alive, x-hop\r\nAccept-Encoding: gzip\r\nRange: bytes=0-1\r\nX-Kept: kept\r\n\
         Content-Length: 5\r\n\r\nhello",
    );
    assert_eq!((status(&reply), text(&reply.body).as_str()), (200, "hello"), "{}", reply.head);
    let seen = upstream.last();
    assert!(seen.head.starts_with("POST /base/v1/x?q=1 HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!(seen.body, b"hello");
    assert_eq!(seen.header("authorization"), [format!("Bearer {SECRET}")]);
    assert_eq!(seen.header("host"), [upstream.address.to_string()]);
    assert_eq!(seen.header("accept-encoding"), ["identity"]);
    assert_eq!(seen.header("x-kept"), ["kept"]);
    assert_eq!(seen.header("content-length"), ["5"]);
    assert!(!seen.head.contains("agents-own") && seen.header("range").is_empty(), "{}", seen.head);
    assert_eq!(sidecar.logged(), ("/api/".into(), "/api/v1/x".into(), 200, 5, true, None));
    assert!(!sidecar.output.lock().unwrap().contains(SECRET));
}

#[test]
fn what_does_not_pass_is_told_in_fixed_words_and_never_arrives() {
    let upstream = Upstream::plain(says("hello"));
    let mut narrow = route(&upstream.url());
    narrow.allow = vec!["GET /open/**".into()];
    let sidecar = Sidecar::start(&config(vec![narrow]));
    for (request, wanted, words) in [
        ("GET /none HTTP/1.1\r\nHost: a", 404, "ask the operator for this route"),
        ("GET /api/closed HTTP/1.1\r\nHost: a", 403, "ask the operator for this route"),
        ("POST /api/open/ HTTP/1.1\r\nHost: a", 403, "ask the operator for this route"),
        ("GET /api/open/info/refs?service=git-receive-pack HTTP/1.1\r\nHost: a", 403, "git-gate"),
        ("GET /api/open/../closed HTTP/1.1\r\nHost: a", 400, "more than one way"),
        ("GET /api/open/%2e%2e/closed HTTP/1.1\r\nHost: a", 400, "more than one way"),
        ("GET /api/open/x?private_token=k HTTP/1.1\r\nHost: a", 403, "credential"),
        ("GET http://a/api/open/ HTTP/1.1\r\nHost: a", 400, "whole URL"),
        ("GET /api/open/ HTTP/1.1\r\nHost: a\r\nHost: b", 400, "Host"),
        ("GET /api/open/ HTTP/1.1", 400, "Host"),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a", 405, "method"),
        ("TRACE /api/open/ HTTP/1.1\r\nHost: a", 405, "method"),
        ("GET /api/open/ HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: tls/1.2", 501, "upgrades"),
        ("GET /api/open/ HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket", 400, "handshake"),
    ] {
        let reply = sidecar.ask(&format!("{request}\r\n\r\n"));
        assert_eq!(status(&reply), wanted, "{request}");
        assert!(text(&reply.body).contains(words), "{request}: {}", text(&reply.body));
        let (_, _, logged, _, credential, reason) = sidecar.logged();
        assert_eq!((logged, credential, reason.is_some()), (wanted, false, true), "{request}");
    }
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
    assert_eq!(status(&sidecar.get("/api/open/x")), 200);
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn doubtful_framing_is_refused_and_the_next_good_request_works() {
    let upstream = Upstream::plain(says("hello"));
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let smuggled = "GET /api/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let shapes = [
        format!(
            "POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!(
            "POST /api/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!("POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n{smuggled}"),
        format!("POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n{smuggled}"),
        format!("POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n{smuggled}"),
        format!("POST /api/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("POST /api/x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("POST /api/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("GET /api/x HTTP/1.1\nHost: a\n\n{smuggled}"),
        format!("GET /api/x HTTP/1.1\r\nHost: a\nX: y\r\n\r\n{smuggled}"),
        format!("GET /api/x HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n{smuggled}"),
        format!("GET /api/x HTTP/1.1\r\nHost: a\r\nX: y\r{smuggled}"),
        format!("GET /api/x HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(70_000)),
        format!("GET /api/x#y HTTP/1.1\r\nHost: a\r\n\r\n{smuggled}"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
        "\x16\x03\x01\x02\0\x01".into(),
    ];
    for (index, shape) in shapes.iter().enumerate() {
        let mut stream = sidecar.connect();
        // The connection may be closed before all of it is written.
        let _ = stream.write_all(shape.as_bytes());
        let mut reply = Vec::new();
        // A reset after the reply is as good an end as any.
        let _ = stream.read_to_end(&mut reply);
        let reply = text(&reply);
        let is_refused = reply.starts_with("HTTP/1.1 400 ") || reply.starts_with("HTTP/1.1 431 ");
        assert!(is_refused && reply.matches("HTTP/1.1").count() == 1, "shape {index}: {reply:?}");
        assert!(sidecar.logged().5.is_some(), "shape {index}");
        assert_eq!(status(&sidecar.get(&format!("/api/good/{index}"))), 200);
        sidecar.logged();
        assert!(upstream.last().head.starts_with(&format!("GET /good/{index} ")), "shape {index}");
        assert_eq!(upstream.seen().len(), index + 1, "shape {index} arrived");
    }
}

#[test]
fn a_broken_chunk_never_ends_a_request_well() {
    let upstream = Upstream::plain(says("hello"));
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    for chunk in ["2\nab\r\n0\r\n\r\n", "2;x\r\nab\r\n0\r\n\r\n", "2\r\nabc\r\n0\r\n\r\n", "zz\r\n"] {
        let mut stream = sidecar.connect();
        let head = "POST /api/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(format!("{head}{chunk}").as_bytes()).unwrap();
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        assert!(!text(&reply).starts_with("HTTP/1.1 2"), "{chunk:?}: {}", text(&reply));
        assert_eq!(status(&sidecar.get("/api/good")), 200);
    }
    assert!(upstream.seen().iter().all(|seen| seen.head.starts_with("GET /good ")), "{:?}", upstream.seen());
}

#[test]
fn several_requests_share_a_connection_on_both_sides() {
    let upstream = Upstream::plain(says("hello"));
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let mut stream = sidecar.connect();
    for number in 0..5 {
        write!(
            stream,
            "POST /api/{number} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        .unwrap();
        let reply = read_message(&mut stream, true).unwrap();
        assert_eq!((status(&reply), text(&reply.body).as_str()), (200, "hello"));
    }
    let bodies: Vec<String> = upstream.seen().iter().map(|seen| text(&seen.body)).collect();
    assert_eq!(bodies, ["abc"; 5]);
}

#[test]
fn a_kept_connection_that_the_upstream_closed_costs_no_request() {
    let upstream = Upstream::plain(|_, wire| {
        write!(wire, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        wire.flush()?;
        Err(std::io::ErrorKind::ConnectionAborted.into())
    });
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    for _ in 0..20 {
        assert_eq!(status(&sidecar.get("/api/x")), 200);
    }
}

#[test]
fn events_come_one_by_one() {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let upstream = Upstream::plain(move |_, wire| {
        write!(wire, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for number in 0..3 {
            let event = format!("data: {number}\n\n");
            write!(wire, "{:x}\r\n{event}\r\n", event.len())?;
            wire.flush()?;
            // The next one is written only when the agent has read this one.
            gone.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        write!(wire, "0\r\n\r\n")
    });
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let mut stream = sidecar.connect();
    stream.write_all(b"GET /api/sse HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let head = read_head(&mut stream).unwrap();
    assert!(head.contains("text/event-stream"), "{head}");
    for number in 0..3 {
        assert_eq!(read_line(&mut stream).unwrap(), "9\r\n");
        let mut event = [0; 11];
        stream.read_exact(&mut event).unwrap();
        assert_eq!(text(&event), format!("data: {number}\n\n\r\n"));
        go.send(()).unwrap();
    }
    assert_eq!(read_line(&mut stream).unwrap(), "0\r\n");
    let (route, _, status, bytes, ..) = sidecar.logged();
    assert_eq!((route.as_str(), status, bytes), ("/api/", 200, 27));
}

#[test]
fn an_upload_streams_while_the_reply_does() {
    // Each chunk of the agent's is answered before the next is sent.
    let echo = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = echo.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut wire, _) = echo.accept().unwrap();
        read_head(&mut wire).unwrap();
        write!(wire, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        loop {
            let size = read_line(&mut wire).unwrap();
            let mut chunk = vec![0; usize::from_str_radix(size.trim(), 16).unwrap() + 2];
            wire.read_exact(&mut chunk).unwrap();
            write!(wire, "{size}{}", text(&chunk)).unwrap();
            if size == "0\r\n" {
                return;
            }
        }
    });
    let sidecar = Sidecar::start(&config(vec![route(&format!("http://{address}"))]));
    let mut stream = sidecar.connect();
    stream.write_all(b"POST /api/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n!\r\n").unwrap();
    read_head(&mut stream).unwrap();
    // No chunk here ends like the beginning of a form of the credential: such an end would be held back.
    for next in ["1\r\n!\r\n", "1\r\n!\r\n", "0\r\n\r\n"] {
        assert_eq!(read_line(&mut stream).unwrap(), "1\r\n");
        read_line(&mut stream).unwrap();
        stream.write_all(next.as_bytes()).unwrap();
    }
    assert_eq!(read_line(&mut stream).unwrap(), "0\r\n");
}

#[test]
fn an_agent_that_goes_away_ends_the_upstreams_request() {
    for answers_first in [false, true] {
        let (tell, told) = channel();
        let upstream = Upstream::plain(move |_, wire| {
            if answers_first {
                write!(wire, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")?;
                wire.flush()?;
            }
            tell.send("asked").unwrap();
            // Nothing more comes from the proxy but the end.
            let mut byte = [0];
            let end = wire.read(&mut byte);
            tell.send(if matches!(end, Ok(0) | Err(_)) { "ended" } else { "more" }).unwrap();
            Err(std::io::ErrorKind::ConnectionAborted.into())
        });
        let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
        let mut stream = sidecar.connect();
        stream.write_all(b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(told.recv_timeout(PATIENCE), Ok("asked"));
        if answers_first {
            read_head(&mut stream).unwrap();
        }
        drop(stream);
        assert_eq!(told.recv_timeout(PATIENCE), Ok("ended"), "answers first: {answers_first}");
        assert!(sidecar.logged().5.is_some());
    }
}

#[test]
fn an_upstream_that_breaks_off_does_not_look_like_an_end() {
    let upstream = Upstream::plain(|_, wire| {
        write!(wire, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")?;
        wire.flush()?;
        Err(std::io::ErrorKind::ConnectionAborted.into())
    });
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let mut stream = sidecar.connect();
    stream.write_all(b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    assert!(text(&all).starts_with("HTTP/1.1 200 OK") && !text(&all).ends_with("0\r\n\r\n"), "{}", text(&all));
    let (_, _, status, _, _, reason) = sidecar.logged();
    assert_eq!((status, reason.is_some()), (200, true));
}

#[test]
fn an_echoed_credential_comes_back_masked() {
    let upstream = Upstream::plain(|seen, wire| {
        let value = seen.header("authorization")[0].to_owned();
        let bytes = value.as_bytes();
        write!(wire, "HTTP/1.1 200 OK\r\nX-Echo: {value}\r\nSet-Cookie: a=b\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for chunk in [&bytes[..10], &bytes[10..13], &bytes[13..], b" \n\n"] {
            write!(wire, "{:x}\r\n{}\r\n", chunk.len(), text(chunk))?;
            wire.flush()?;
        }
        write!(wire, "0\r\n\r\n")
    });
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let reply = sidecar.get("/api/x");
    let stars = "*".repeat(SECRET.len());
    assert_eq!(reply.header("x-echo"), [format!("Bearer {stars}")]);
    assert_eq!(text(&reply.body), format!("Bearer {stars} \n\n"));
    assert!(reply.header("set-cookie").is_empty());
}

#[test]
fn a_masked_reply_keeps_its_length() {
    // The last bytes look like the beginning of the credential: they come all the same.
    let upstream = Upstream::plain(says("s3cret-t0ken/of+the=route and s3cret"));
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let reply = sidecar.get("/api/x");
    assert_eq!(text(&reply.body), format!("{} and s3cret", "*".repeat(SECRET.len())));
    assert_eq!(reply.header("content-length"), ["36"]);
}

#[test]
fn a_reply_in_an_unknown_coding_does_not_pass_with_a_credential() {
    let upstream = Upstream::plain(|_, wire| {
        write!(wire, "HTTP/1.1 200 OK\r\nContent-Encoding: compress\r\nContent-Length: 1\r\n\r\nx")
    });
    let mut open = route(&upstream.url());
    (open.path, open.auth, open.secret) = ("/open/".into(), Auth::None, None);
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url()), open]));
    assert_eq!(status(&sidecar.get("/api/x")), 502);
    assert_eq!(status(&sidecar.get("/open/x")), 200);
}

#[test]
fn a_redirect_is_passed_on_and_leads_to_the_route() {
    let upstream = Upstream::plain(|seen, wire| {
        let host = seen.header("host")[0];
        write!(wire, "HTTP/1.1 302 Found\r\nLocation: http://{host}/next?a=b\r\nContent-Length: 0\r\n\r\n")
    });
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let reply = sidecar.get("/api/x");
    assert_eq!((status(&reply), reply.header("location")), (302, vec!["/api/next?a=b"]));
    assert_eq!(upstream.seen().len(), 1, "it was followed");
}

#[test]
fn a_reply_without_a_body_is_whole() {
    let upstream = Upstream::plain(|seen, wire| match seen.head.split(' ').next() {
        Some("HEAD") => write!(wire, "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"),
        _ => write!(wire, "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"),
    });
    let sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let mut stream = sidecar.connect();
    for _ in 0..2 {
        stream.write_all(b"HEAD /api/x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(read_head(&mut stream).unwrap().to_lowercase().contains("content-length: 1234"));
        stream.write_all(b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(read_head(&mut stream).unwrap().starts_with("HTTP/1.1 304"));
    }
}

#[test]
fn tls_upstreams_are_reached_through_the_proxy_and_checked() {
    let upstream = Upstream::tls("api.test", says("hello"));
    let other = Upstream::tls("api.test", says("hello"));
    let proxy = ConnectProxy::to(upstream.address);
    let inspected = cred_proxy::config::Route { inspected: true, ..route("https://api.test") };
    for (name, host, inspected_ca, upstream_roots, is_inspected, wanted) in [
        ("not inspected", "api.test", None, upstream.ca_pem.clone(), false, 200),
        ("inspected", "api.test", Some(upstream.ca_pem.clone()), other.ca_pem.clone(), true, 200),
        ("inspected, by somebody else", "api.test", Some(other.ca_pem.clone()), upstream.ca_pem.clone(), true, 502),
        (
            "not inspected, by the inspector",
            "api.test",
            Some(upstream.ca_pem.clone()),
            other.ca_pem.clone(),
            false,
            502,
        ),
        ("another name", "other.test", None, upstream.ca_pem.clone(), false, 502),
    ] {
        let mut config = config(vec![cred_proxy::config::Route {
            upstream: format!("https://{host}"),
            inspected: is_inspected,
            ..inspected.clone()
        }]);
        config.proxy = Some(proxy.url());
        config.inspected_ca = inspected_ca;
        config.upstream_roots = upstream_roots;
        let sidecar = Sidecar::start(&config);
        assert_eq!(status(&sidecar.get("/api/x")), wanted, "{name}: {}", sidecar.output.lock().unwrap());
        assert!(proxy.seen().last().unwrap().starts_with(&format!("CONNECT {host}:443 HTTP/1.1\r\n")), "{name}");
        assert!(proxy.seen().iter().all(|head| !head.contains(SECRET)), "{name}");
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.header("host") == ["api.test"] && seen.header("authorization").len() == 1));
}

#[test]
fn a_plain_upstream_behind_the_proxy_is_asked_for_by_its_url() {
    let proxy = Upstream::plain(says("through"));
    let mut config = config(vec![route("http://api.test:3000/base")]);
    config.proxy = Some(proxy.url());
    let sidecar = Sidecar::start(&config);
    assert_eq!(text(&sidecar.get("/api/x?y").body), "through");
    let seen = proxy.last();
    assert!(seen.head.starts_with("GET http://api.test:3000/base/x?y HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!(seen.header("host"), ["api.test:3000"]);
}

#[test]
fn what_goes_wrong_on_the_way_out_is_told_in_fixed_words() {
    let upstream = Upstream::tls("api.test", says("hello"));
    let garbage = "SSH-2.0-x\r\n\r\n";
    for (answer, wanted, words, reason) in [
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 24\r\n\r\nCONNECT blocked: no way\n",
            403,
            "refused the upstream",
            "CONNECT blocked: no way",
        ),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\ntunnel dial failed\n", 502, "could not be reached", "tunnel dial failed"),
        ("HTTP/1.1 504 Gateway Timeout\r\n\r\n", 504, "in time", "504"),
        ("HTTP/1.1 200 OK\r\n\r\nand more", 502, "could not be reached", "not one"),
        ("HTTP/1.1 200 OK\r\n\r\n", 502, "could not be reached", "tls handshake"),
        (garbage, 502, "could not be reached", "not one"),
        ("", 502, "could not be reached", "did not answer CONNECT"),
    ] {
        let proxy = ConnectProxy::answering(answer);
        let mut config = config(vec![route("https://api.test")]);
        config.proxy = Some(proxy.url());
        config.upstream_roots = upstream.ca_pem.clone();
        let sidecar = Sidecar::start(&config);
        let reply = sidecar.get("/api/x");
        let body = text(&reply.body);
        assert_eq!(status(&reply), wanted, "{answer:?}");
        assert!(body.starts_with("cred-proxy: ") && body.contains(words), "{answer:?}: {body}");
        assert!(!body.contains("blocked") && !body.contains("dial"), "{body}");
        let logged = sidecar.logged().5.unwrap();
        assert!(logged.contains(reason), "{answer:?}: {logged}");
    }
    let sidecar = Sidecar::start(&config(vec![route(&format!("http://{}", free_address()))]));
    assert_eq!(status(&sidecar.get("/api/x")), 502);
    assert!(sidecar.logged().5.unwrap().starts_with("cannot connect to 127.0.0.1:"));
}

#[test]
fn a_new_table_leaves_open_streams_alone_and_a_bad_one_changes_nothing() {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let upstream = Upstream::plain(move |seen, wire| {
        if !seen.head.contains("stream") {
            return says("hello")(seen, wire);
        }
        write!(wire, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")?;
        wire.flush()?;
        gone.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        write!(wire, "1\r\nb\r\n0\r\n\r\n")
    });
    let mut sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let mut stream = sidecar.connect();
    stream.write_all(b"GET /api/stream HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_head(&mut stream).unwrap();
    assert_eq!(read_line(&mut stream).unwrap(), "1\r\n");
    assert_eq!(read_line(&mut stream).unwrap(), "a\r\n");

    let mut bad = config(vec![route(&upstream.url())]);
    bad.routes[0].upstream = "nowhere".into();
    let Event::Refused { reason } = sidecar.configure(&bad) else { panic!("a bad table was taken") };
    assert!(reason.contains("cannot take the route `/api/`"), "{reason}");
    sidecar.send(b"this is no json\n");
    assert!(matches!(sidecar.event(), Event::Refused { .. }));
    assert_eq!(status(&sidecar.get("/api/x")), 200);

    let mut next = config(vec![route(&upstream.url()), route(&upstream.url())]);
    next.routes[1].path = "/second/".into();
    let rotated = BTreeMap::from([("key".into(), Secret::new("another-secret".into()))]);
    assert_eq!(sidecar.configure_with(&next, &rotated), Event::Configured);
    assert_eq!(status(&sidecar.get("/second/x")), 200);
    assert_eq!(upstream.last().header("authorization"), ["Bearer another-secret"]);

    go.send(()).unwrap();
    assert_eq!(read_line(&mut stream).unwrap(), "1\r\n");
    assert_eq!(read_line(&mut stream).unwrap(), "b\r\n");
    assert_eq!(read_line(&mut stream).unwrap(), "0\r\n");
}

#[test]
fn a_route_that_is_taken_away_ends_its_streams_and_no_others() {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let upstream = Upstream::plain(move |seen, wire| {
        if seen.head.contains("silent") {
            // Answers never: the request itself must be cut.
            return wire.read(&mut [0]).map(drop);
        }
        write!(wire, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")?;
        wire.flush()?;
        if seen.head.contains("kept") {
            gone.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            return write!(wire, "0\r\n\r\n");
        }
        wire.read(&mut [0]).map(drop)
    });
    let mut both = config(vec![route(&upstream.url()), route(&upstream.url())]);
    both.routes[1].path = "/gone/".into();
    let mut sidecar = Sidecar::start(&both);
    let open = |path: &str| {
        let mut stream = sidecar.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        stream
    };
    let (mut kept, mut cut, mut silent) = (open("/api/kept"), open("/gone/x"), open("/gone/silent"));
    for stream in [&mut kept, &mut cut] {
        read_head(stream).unwrap();
        assert_eq!(read_line(stream).unwrap(), "1\r\n");
        assert_eq!(read_line(stream).unwrap(), "a\r\n");
    }
    while upstream.seen().len() < 3 {
        std::thread::yield_now();
    }
    let one = config(vec![route(&upstream.url())]);
    assert_eq!(sidecar.configure(&one), Event::Configured);
    let mut rest = Vec::new();
    let _ = cut.read_to_end(&mut rest);
    assert_eq!(text(&rest), "", "it was not cut, or it looks like an end");
    assert_eq!(status(&read_message(&mut silent, true).unwrap()), 404);
    assert_eq!(status(&sidecar.get("/gone/x")), 404);
    go.send(()).unwrap();
    assert_eq!(read_line(&mut kept).unwrap(), "0\r\n");
}

#[test]
fn the_end_of_input_ends_it_whatever_is_open() {
    let upstream = Upstream::plain(|_, wire| {
        write!(wire, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")?;
        wire.flush()?;
        wire.read(&mut [0]).map(drop)
    });
    let mut sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let mut stream = sidecar.connect();
    stream.write_all(b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_head(&mut stream).unwrap();
    sidecar.close();
    assert_eq!(sidecar.ended().code(), Some(0));
    let mut bare = Sidecar::bare();
    bare.close();
    assert_eq!(bare.ended().code(), Some(0));
}

#[test]
fn an_address_that_cannot_be_had_ends_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sidecar = Sidecar::bare();
    sidecar.listen = taken.local_addr().unwrap();
    let Event::Refused { reason } = sidecar.configure(&config(vec![])) else { panic!("it listens") };
    assert!(reason.starts_with("cannot listen on 127.0.0.1:"), "{reason}");
    assert_eq!(sidecar.ended().code(), Some(1));
}

#[test]
fn a_bad_first_table_leaves_it_waiting_for_a_good_one() {
    let mut sidecar = Sidecar::bare();
    let mut bad = config(vec![route("https://api.test")]);
    for (roots, words) in
        [("", "there are none"), ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot read")]
    {
        bad.upstream_roots = roots.into();
        let Event::Refused { reason } = sidecar.configure(&bad) else { panic!("it was taken") };
        assert!(reason.contains("`upstream_roots`") && reason.contains(words), "{reason}");
    }
    assert_eq!(sidecar.configure(&config(vec![])), Event::Ready);
    assert_eq!(status(&sidecar.get("/api/x")), 404);
    sidecar.listen = free_address();
    let Event::Refused { reason } = sidecar.configure(&config(vec![])) else { panic!("it moved") };
    assert!(reason.contains("it listens on"), "{reason}");
}
