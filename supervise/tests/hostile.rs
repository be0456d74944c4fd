//! What a hostile agent may try with the endpoint. After each attempt the next good call is answered.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use proptest::prelude::*;
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use supervise::config::{Command, Event};
use supervise::wire::{Change, Current, Status};
use world::http::{connect, exchange, finish, head, post, result, rpc, split, still_works, tool};
use world::{PATIENCE, Sidecar, answer};

fn ask(justification: &str) -> Vec<u8> {
    tool("pipelock-block", json!({ "hosts": ["a.example"], "justification": justification }))
}

/// Looks again and again, for as long as anything may take.
fn until(is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "it never came to be so");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn only_its_own_names_are_answered() {
    let sidecar = Sidecar::start(0);
    let body = rpc("tools/list", json!({}));
    let try_with = |host: &str, more: &str| {
        let head = head("HOST", body.len()).replace("Host: HOST\r\n", &format!("{host}{more}"));
        let request = [head.as_bytes(), &body].concat();
        split(&exchange(sidecar.address, &request)).0
    };
    let address = sidecar.address;
    for (host, more, wanted) in [
        ("Host: supervise:9100\r\n".to_owned(), "", 200),
        ("Host: supervise\r\n".into(), "", 200),
        ("Host: SuperVise:9100\r\n".into(), "", 200),
        (format!("Host: {address}\r\n"), "", 200),
        (format!("Host: {}\r\n", address.ip()), "", 200),
        ("Host: evil.example\r\n".into(), "", 403),
        (format!("Host: evil.example:{}\r\n", address.port()), "", 403),
        ("Host: supervise.evil.example\r\n".into(), "", 403),
        ("Host: supervise:80\r\n".into(), "", 403),
        ("Host: localhost\r\n".into(), "", 403),
        ("Host: supervise:9100\r\nHost: evil.example\r\n".into(), "", 403),
        ("Host: \r\n".into(), "", 403),
        (String::new(), "", 403),
        ("Host: supervise:9100\r\n".into(), "Origin: http://evil.example\r\n", 403),
        ("Host: supervise:9100\r\n".into(), "Origin: null\r\n", 403),
    ] {
        assert_eq!(try_with(&host, more), wanted, "{host:?} {more:?}");
    }
    still_works(address);
}

#[test]
fn there_is_one_path_and_one_method() {
    let sidecar = Sidecar::start(0);
    let address = sidecar.address;
    for (line, wanted) in [
        ("POST /mcp HTTP/1.1", 200),
        ("POST / HTTP/1.1", 404),
        ("POST /mcp/ HTTP/1.1", 404),
        ("POST /mcp/../mcp HTTP/1.1", 404),
        ("GET /mcp HTTP/1.1", 405),
        ("DELETE /mcp HTTP/1.1", 405),
        ("PUT /mcp HTTP/1.1", 405),
        ("CONNECT crates.io:443 HTTP/1.1", 404),
        ("GET http://crates.io/ HTTP/1.1", 404),
        ("PRI * HTTP/2.0", 400),
    ] {
        let body = rpc("tools/list", json!({}));
        let request =
            [head(&address.to_string(), body.len()).replace("POST /mcp HTTP/1.1", line).as_bytes(), &body].concat();
        assert_eq!(split(&exchange(address, &request)).0, wanted, "{line}");
    }
    still_works(address);
}

#[test]
fn an_agents_words_are_one_line_of_output_and_no_event_of_their_own() {
    let mut sidecar = Sidecar::start(0);
    let words = "because\n{\"event\":\"ready\"}\r\n{\"event\":\"ask\",\"call\":1}\u{2028}\u{1b}[2J";
    for call in 1..=2 {
        let asks = std::thread::scope(|scope| {
            let address = sidecar.address;
            let asked = scope.spawn(move || result(address, &ask(words)));
            let ask = sidecar.queued("p1");
            asked.join().unwrap();
            ask
        });
        assert_eq!((asks.call, asks.justification.as_str()), (call, words));
        assert!(sidecar.heard().is_none(), "an ask is one event");
    }
    still_works(sidecar.address);
}

#[test]
fn nobody_inside_answers_a_proposal() {
    let sidecar = Sidecar::start_with(0, Current::default(), vec![answer("p1", Status::Pending, "wait")]);
    for (method, params) in [
        ("tools/call", json!({ "name": "approve", "arguments": { "id": "p1" } })),
        ("tools/call", json!({ "name": "check-proposal", "arguments": { "id": "p1", "status": "approved" } })),
        ("resources/write", json!({ "uri": "bottle://proposals", "text": "approved" })),
        ("answer", json!({ "answer": answer("p1", Status::Approved, "") })),
        ("notifications/progress", json!({ "progressToken": "p1", "progress": 1 })),
        ("logging/setLevel", json!({ "level": "debug" })),
        (
            "completion/complete",
            json!({ "ref": { "type": "ref/prompt", "name": "p1" }, "argument": { "name": "a", "value": "" } }),
        ),
    ] {
        post(sidecar.address, &rpc(method, params));
    }
    // On the agent's side the keeper's own words are no JSON-RPC.
    let line = serde_json::to_vec(&Command::Answer { answer: answer("p1", Status::Approved, "") }).unwrap();
    assert_ne!(post(sidecar.address, &line).0, 200);
    let checked = result(sidecar.address, &tool("check-proposal", json!({ "id": "p1", "wait_seconds": 0 })));
    assert_eq!(checked["structuredContent"]["status"], json!("pending"), "{checked}");
    assert!(sidecar.heard().is_none());
}

#[test]
fn a_body_has_a_size() {
    let sidecar = Sidecar::start(0);
    let address = sidecar.address;
    let host = address.to_string();
    let padded = |length: usize| {
        let mut body = rpc("tools/list", json!({}));
        body.resize(length, b' ');
        body
    };
    assert_eq!(post(address, &padded(256 << 10)).0, 200);
    assert_eq!(post(address, &padded((256 << 10) + 1)).0, 413);
    assert_eq!(split(&exchange(address, head(&host, 1 << 40).as_bytes())).0, 413, "it is refused before it comes");
    let chunked = head(&host, 0).replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let mut stream = connect(address);
    stream.write_all(chunked.as_bytes()).unwrap();
    // Without an end: it is cut, here or there.
    while stream.write_all(format!("10000\r\n{}\r\n", " ".repeat(0x10000)).as_bytes()).is_ok() {}
    let long_head = head(&host, 0).replace("Connection", &format!("X: {}\r\nConnection", "x".repeat(64 << 10)));
    assert_eq!(split(&exchange(address, long_head.as_bytes())).0, 431);
    still_works(address);
}

#[test]
fn json_of_every_depth_and_shape_is_survived() {
    let sidecar = Sidecar::start(0);
    let address = sidecar.address;
    for body in [
        "[".repeat(200_000),
        "{\"a\":".repeat(50_000),
        format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
        String::from_utf8(rpc("tools/call", json!({ "name": "pipelock-block", "arguments": "DEEP" })))
            .unwrap()
            .replace("\"DEEP\"", &format!("{}{}", "{\"a\":".repeat(20_000), "1".to_owned() + &"}".repeat(20_000))),
        "[]".into(),
        "null".into(),
        "\"\\ud800\"".into(),
        format!("[{}]", vec![String::from_utf8(rpc("tools/list", json!({}))).unwrap(); 1000].join(",")),
        "{\"jsonrpc\":\"2.0\",\"id\":1e400,\"method\":\"tools/list\"}".into(),
        "\u{0}".into(),
    ] {
        let (status, reply) = post(address, body.as_bytes());
        assert!((400..500).contains(&status), "{status} {reply} for {}", &body[..body.len().min(60)]);
    }
    assert!((400..500).contains(&post(address, b"\xff\xfe{}").0));
    still_works(address);
}

/// One sidecar for all cases; its keeper denies everything that reaches it.
fn shared() -> &'static std::net::SocketAddr {
    static SHARED: OnceLock<std::net::SocketAddr> = OnceLock::new();
    SHARED.get_or_init(|| {
        let mut sidecar = Sidecar::start(0);
        let address = sidecar.address;
        std::thread::spawn(move || {
            loop {
                match sidecar.next() {
                    Event::Ask { call, .. } => sidecar.say(&Command::Denied { call, reason: "no".into() }),
                    Event::Configured => {}
                    event => panic!("{event:?}"),
                }
            }
        });
        address
    })
}

/// Any JSON, some of whose words mean something here.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("pipelock-block"),
        Just("check-proposal"),
        Just("hosts"),
        Just("id"),
        Just("name"),
        Just("arguments"),
        Just("params"),
        Just("method"),
        Just("jsonrpc"),
        Just("2.0"),
        Just("tools/call"),
        Just("_meta"),
        Just("initialize"),
        Just("progressToken"),
        Just("a.example"),
        Just("bottle://denials"),
        Just("p1"),
        Just("\u{0}"),
        Just("💥"),
    ];
    let word = word.prop_map(str::to_owned);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((word.clone(), inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// A good request with one part of it replaced.
fn spoilt() -> impl Strategy<Value = Value> {
    let good = prop_oneof![
        Just(ask("j")),
        Just(tool("check-proposal", json!({ "id": "p1", "wait_seconds": 0 }))),
        Just(rpc("resources/read", json!({ "uri": "bottle://denials" }))),
        Just(rpc(
            "initialize",
            json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "a", "version": "1" } })
        )),
    ];
    let place = prop_oneof![
        Just("/params"),
        Just("/params/arguments"),
        Just("/params/name"),
        Just("/params/uri"),
        Just("/params/arguments/hosts"),
        Just("/params/arguments/id"),
        Just("/params/arguments/wait_seconds"),
        Just("/params/protocolVersion"),
        Just("/params/capabilities"),
        Just("/id"),
        Just("/method"),
        Just("/jsonrpc"),
    ];
    (good, place, any_json()).prop_map(|(good, place, json)| {
        let mut value: Value = serde_json::from_slice(&good).unwrap();
        if let Some(part) = value.pointer_mut(place) {
            *part = json;
        }
        value
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_json_is_answered_and_the_next_call_too(value in prop_oneof![any_json(), spoilt()]) {
        let (status, body) = post(*shared(), value.to_string().as_bytes());
        prop_assert!((200..500).contains(&status), "{status} {body}");
        still_works(*shared());
    }

    #[test]
    fn any_bytes_are_answered_or_cut_and_the_next_call_is_answered(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), is_body in any::<bool>(),
    ) {
        if is_body {
            let (status, body) = post(*shared(), &bytes);
            prop_assert!((400..500).contains(&status), "{status} {body}");
        } else {
            let stream = connect(*shared());
            (&stream).write_all(&bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            finish(stream);
        }
        still_works(*shared());
    }
}

/// As many as this process may have: a shell's usual thousand is too few.
fn more_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

#[test]
fn a_thousand_silent_connections_keep_nobody_out() {
    more_descriptors();
    let sidecar = Sidecar::start(0);
    let host = sidecar.address.to_string();
    let begun = head(&host, 10);
    for said in
        [&b""[..], &b"POST /mcp HT"[..], &begun.as_bytes()[..40], begun.as_bytes(), format!("{begun}12345").as_bytes()]
    {
        let held: Vec<TcpStream> = (0..1000)
            .map(|_| {
                let mut stream = connect(sidecar.address);
                // It may be cut already.
                let _ = stream.write_all(said);
                stream
            })
            .collect();
        still_works(sidecar.address);
        drop(held);
        still_works(sidecar.address);
    }
}

#[test]
fn who_asks_and_never_reads_keeps_nobody_out() {
    let sidecar = Sidecar::start(0);
    let body = rpc("tools/list", json!({}));
    let head = head(&sidecar.address.to_string(), body.len()).replace("Connection: close\r\n", "");
    let request = [head.as_bytes(), &body].concat();
    let before = sidecar.memory();
    let held: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = connect(sidecar.address);
            stream.set_nonblocking(true).unwrap();
            // Until neither side takes any more.
            for _ in 0..2000 {
                if stream.write_all(&request).is_err() {
                    break;
                }
            }
            stream
        })
        .collect();
    still_works(sidecar.address);
    let after = sidecar.memory();
    assert!(after < before + (32 << 20), "{before} bytes became {after}");
    drop(held);
    still_works(sidecar.address);
}

#[test]
fn calls_that_wait_keep_nobody_out_and_more_of_them_do_not_wait() {
    let mut sidecar = Sidecar::start_with(3600, Current::default(), vec![answer("p1", Status::Pending, "wait")]);
    let check = tool("check-proposal", json!({ "id": "p1" }));
    let request = [head(&sidecar.address.to_string(), check.len()).as_bytes(), &check].concat();
    let waiting: Vec<TcpStream> = (0..60)
        .map(|_| {
            let mut stream = connect(sidecar.address);
            stream.write_all(&request).unwrap();
            stream
        })
        .collect();
    // As many as may wait do; the others are told at once that it is pending.
    let is_answered = |stream: &&TcpStream| stream.peek(&mut [0]).is_ok();
    waiting.iter().for_each(|stream| stream.set_nonblocking(true).unwrap());
    until(|| waiting.iter().filter(is_answered).count() == 28);
    waiting.iter().for_each(|stream| stream.set_nonblocking(false).unwrap());
    let told = result(sidecar.address, &check);
    assert_eq!(told["structuredContent"]["status"], json!("pending"), "{told}");
    still_works(sidecar.address);
    sidecar.tell(answer("p1", Status::Approved, "open"));
    let mut counted = [0, 0];
    for stream in waiting {
        let (status, body) = split(&finish(stream));
        assert_eq!(status, 200, "{body}");
        let result = serde_json::from_str::<Value>(&body).unwrap();
        counted[usize::from(result["result"]["structuredContent"]["status"] == json!("approved"))] += 1;
    }
    assert_eq!(counted, [28, 32], "at once, and after the verdict");
}

#[test]
fn a_flood_of_asks_is_told_to_wait_and_the_keeper_hears_few() {
    let mut sidecar = Sidecar::start(0);
    let address = sidecar.address;
    let (mut heard, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let flood = scope.spawn(move || (0..100).map(|_| result(address, &ask("now"))).collect::<Vec<_>>());
        while !flood.is_finished() {
            match sidecar.heard() {
                Some(Event::Ask { call, change, .. }) => {
                    assert_eq!(change, Change::Hosts { hosts: vec!["a.example".into()] });
                    heard += 1;
                    sidecar.say(&Command::Asked { call, answer: answer("p1", Status::Pending, "wait") });
                }
                Some(_) => {}
                None => std::thread::yield_now(),
            }
        }
        for result in flood.join().unwrap() {
            if result["isError"] == json!(true) {
                refused += 1;
                assert!(result["content"][0]["text"].as_str().unwrap().starts_with("too many calls: wait"), "{result}");
            }
        }
    });
    assert_eq!(heard + refused, 100);
    assert!(heard >= 20 && refused >= 20, "{heard} were heard, {refused} refused");
    let checked = result(address, &tool("check-proposal", json!({ "id": "p1", "wait_seconds": 0 })));
    assert_eq!(checked["structuredContent"]["id"], json!("p1"), "whoever waits for an answer still gets it: {checked}");
    still_works(address);
}

#[test]
fn beginning_again_and_again_fills_nothing() {
    let sidecar = Sidecar::start(0);
    let hello =
        json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "a", "version": "1" } });
    let hello = rpc("initialize", hello);
    let flood = |times: usize| {
        for _ in 0..times {
            let (status, reply) = post(sidecar.address, &hello);
            assert!(status == 200 && !reply.to_lowercase().contains("mcp-session-id"), "{status} {reply}");
        }
    };
    flood(500);
    let before = sidecar.memory();
    flood(5000);
    let after = sidecar.memory();
    // A session that were kept would take kilobytes.
    assert!(after < before + (2 << 20), "{before} bytes became {after}");
    still_works(sidecar.address);
}

#[test]
fn a_caller_that_goes_leaves_nothing_and_what_it_asked_stays_asked() {
    let mut sidecar = Sidecar::start(3600);
    let body = ask("and gone");
    for _ in 0..5 {
        let mut stream = connect(sidecar.address);
        stream.write_all(&[head(&sidecar.address.to_string(), body.len()).as_bytes(), &body].concat()).unwrap();
        let ask = sidecar.ask();
        drop(stream);
        sidecar.say(&Command::Asked { call: ask.call, answer: answer("p1", Status::Pending, "wait") });
    }
    sidecar.say(&Command::Denied { call: 7777, reason: "nobody asked".into() });
    sidecar.tell(answer("p1", Status::Approved, "open"));
    let checked = result(sidecar.address, &tool("check-proposal", json!({ "id": "p1" })));
    assert_eq!(checked["structuredContent"]["status"], json!("approved"), "{checked}");
}
