//! Upstreams that misbehave, streams, and upgrades: what breaks off never looks like an end, what is malformed never
//! reaches the agent, and what streams is not held back.

use super::doors::{Lease, PROXY, fetch, python, send, status};
use super::ground::{curl, tag};
use bottle_tests::world::Evidence;

#[test]
fn a_malformed_reply_does_not_reach_the_agent() {
    let Some(doors) = Lease::take() else { return };
    let kinds = [
        "two-lengths",
        "bad-length",
        "bad-chunk",
        "chunk-overflow",
        "no-http",
        "huge-head",
        "many-headers",
        "unasked-101",
        "nothing",
    ];
    let ask = |how: &str| format!("GET /wire/v1/broken?how={how} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    for (kind, reply) in kinds.iter().zip(send(&doors.one, &kinds.map(ask))) {
        assert!(!reply.contains("smuggled"), "{kind}: {reply}");
        assert!(!reply.contains(doors.secret("wire")), "{kind}: {reply}");
        assert!(reply.matches("HTTP/1.1 ").count() <= 1, "{kind}: {reply}");
        // Where the body turns out to be malformed, the connection is cut, be it before its head went out or after.
        let begun = reply.starts_with("HTTP/1.1 200") && reply.contains("transfer-encoding: chunked");
        let cut = reply.is_empty() || (begun && !reply.ends_with("0\r\n\r\n"));
        assert!(status(&reply) == 502 || cut, "{kind}: {reply}");
        assert!(status(&reply) != 502 || reply.contains("The operator's log says why."), "{kind}: {reply}");
    }
    // What follows a whole reply belongs to nobody.
    for (kind, body) in [("extra", "whole"), ("cl-te", "")] {
        let reply = send(&doors.one, &[ask(kind)]).remove(0);
        let first = status(&reply) == 200 && reply.contains(body);
        assert!((first || status(&reply) == 502) && !reply.contains("smuggled"), "{kind}: {reply}");
    }
}

#[test]
fn a_reply_that_breaks_off_does_not_look_like_an_end() {
    let Some(doors) = Lease::take() else { return };
    for kind in ["reset", "short"] {
        let (_, got) = curl(&doors.one, &[&format!("{PROXY}/wire/v1/{kind}")]);
        assert!([18, 52, 56].contains(&got.status), "{kind}: {got:#?}");
    }
    let whole = fetch(&doors.one, &["/wire/v1/half".to_owned(), "/wire/v1/big?n=3000000".to_owned()]);
    assert_eq!(
        (whole[0].body.as_str(), whole[0].whole),
        ("whole\n", true),
        "an upstream may close its half: {whole:?}"
    );
    assert_eq!((whole[1].body.len(), whole[1].whole), (3_000_000, true));
}

#[test]
fn an_agent_that_goes_away_stops_its_upstream() {
    let Some(doors) = Lease::take() else { return };
    for kind in ["stall", "silent", "sse"] {
        let mark = tag("gone");
        let path = format!("/v1/{kind}");
        let before = doors.seen_with("api", &path).iter().filter(|e| matches!(e, Evidence::Abandoned { .. })).count();
        let (_, got) = curl(&doors.one, &["-m", "2", &format!("{PROXY}/wire{path}?n=100000&ms=20&mark={mark}")]);
        assert_eq!(got.status, 28, "it would have waited: {got:#?}");
        let mut seen = 0;
        doors.wait_for("api", &format!("{kind} is given up"), |e| {
            seen += usize::from(matches!(e, Evidence::Abandoned { path: p, .. } if *p == path));
            seen > before
        });
    }
}

/// Reads the first event of a stream whose second one comes after a minute, then goes.
const FIRST: &str = r#"
import http.client
c = http.client.HTTPConnection("cred-proxy", 9099, timeout=30)
c.request("GET", "/wire/v1/sse?n=2&ms=60000")
r = c.getresponse()
print(r.status, r.getheader("content-type"), r.readline().decode().strip())
"#;

#[test]
fn an_event_is_not_held_back() {
    let Some(doors) = Lease::take() else { return };
    let said = python(&doors.one, FIRST, &[]).stdout;
    assert_eq!(said.trim(), "200 text/event-stream data: {\"n\":1}");
}

#[test]
fn a_body_goes_up_as_it_comes_and_whole() {
    let Some(doors) = Lease::take() else { return };
    let script = "head -c 5000000 /dev/zero | curl -sS -m 30 -T - -H 'Expect: 100-continue' \
                  http://cred-proxy:9099/wire/v1/upload && head -c 70000 /dev/zero | curl -sS -m 30 --data-binary @- \
                  http://cred-proxy:9099/wire/v1/upload";
    assert_eq!(doors.one.sh(script).ok().stdout, "5000000\n70000\n");
}

/// Speaks WebSocket (RFC 6455) by hand: a text there and back, a ping for its pong, and the close.
const WEBSOCKET: &str = r#"
import base64, os, socket, struct
s = socket.create_connection(("cred-proxy", 9099), 20); s.settimeout(20)
key = base64.b64encode(os.urandom(16)).decode()
s.sendall(("GET /wire/v1/ws HTTP/1.1\r\nHost: cred-proxy:9099\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nAuthorization: Bearer agents-own\r\n\r\n" % key).encode())
f = s.makefile("rb")
head = b""
while not head.endswith(b"\r\n\r\n"):
    line = f.readline()
    if not line: break
    head += line
print(head.split(b"\r\n")[0].decode(), flush=True)
def send(opcode, data):
    mask = os.urandom(4)
    length = bytes([0x80 | len(data)]) if len(data) < 126 else struct.pack("!BH", 0x80 | 126, len(data))
    s.sendall(bytes([0x80 | opcode]) + length + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))
def receive():
    first, length = f.read(2)
    if length == 126: length, = struct.unpack("!H", f.read(2))
    return first & 15, f.read(length)
send(1, b"hello"); print(receive())
send(2, bytes(1000)); print([(o, len(d)) for o, d in [receive()]])
send(9, b"ping"); print(receive())
send(8, struct.pack("!H", 1000)); print(receive()[0])
print(head.decode())
"#;

#[test]
fn a_websocket_passes_and_other_upgrades_do_not() {
    let Some(doors) = Lease::take() else { return };
    let said = python(&doors.one, WEBSOCKET, &[]).stdout;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..5], ["HTTP/1.1 101 Switching Protocols", "(1, b'hello')", "[(2, 1000)]", "(10, b'ping')", "8"]);
    assert!(!said.contains(doors.secret("wire")), "the handshake is masked as well: {said}");
    let own = doors.seen_with("api", "/v1/ws");
    assert!(!own.is_empty() && own.iter().all(|e| !e.contains("agents-own")), "{own:#?}");

    let path = tag("upgrade");
    let ask = |more: &str| format!("GET /wire/v1/upgrade?tag={path} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let refused = [
        ask("Connection: Upgrade\r\nUpgrade: raw\r\n"),
        ask("Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n"),
        ask("Connection: Upgrade\r\nUpgrade: websocket, raw\r\n"),
        ask(&format!("Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: raw\r\n{key}")),
        ask(&format!("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 4\r\n{key}")),
        ask(&format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{key}")).replacen("GET", "POST", 1),
        ask("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
    ];
    for (request, reply) in refused.iter().zip(send(&doors.one, &refused)) {
        assert!(!reply.contains("HTTP/1.1 101"), "{request:?}: {reply}");
        assert!(reply.contains("HTTP/1.1 "), "{request:?} got no answer: {reply}");
    }
    // An upgrade that was not asked for, or is answered with another one, is not believed.
    for evidence in doors.seen_with("api", &path) {
        assert!(!evidence.contains("raw") && !evidence.contains("h2c"), "{evidence:?}");
    }
    let wrong = ask(&format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{key}"));
    let reply = send(&doors.one, &[wrong]).remove(0);
    assert!(!reply.starts_with("HTTP/1.1 101") || reply.to_ascii_lowercase().contains("websocket"), "{reply}");
}
