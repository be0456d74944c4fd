//! Where does a request end? Whatever two readers could see in two ways is refused, so that nothing is smuggled past a
//! route's permissions, and the next good request works.

use super::doors::{Lease, PROXY, get, passes, post, refused};
use super::ground::{answers, curl, tag};
use bottle_tests::world::Evidence;

/// What every smuggling shape tries to have taken for a request of its own.
fn smuggled(path: &str) -> String {
    format!("GET /wire/v1/upload?tag={path} HTTP/1.1\r\nHost: cred-proxy:9099\r\nConnection: close\r\n\r\n")
}

/// Sends doubtful shapes with a request behind them: one refusal each, and neither part arrives.
#[track_caller]
fn no_smuggling(doors: &Lease, heads: &[(&str, &str)]) {
    let path = tag("smuggled");
    let requests: Vec<String> = heads
        .iter()
        .map(|(head, body)| post(&format!("/wire/v1/upload?tag={path}"), head, &format!("{body}{}", smuggled(&path))))
        .collect();
    refused(doors, &path, &requests, &[0, 400, 413, 431, 501]);
}

#[test]
fn two_framings_or_a_strange_one_are_refused() {
    let Some(doors) = Lease::take() else { return };
    no_smuggling(
        &doors,
        &[
            ("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nX"),
            ("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", "0\r\n\r\nX"),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding: identity\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding: \u{b}chunked\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"),
            (" Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            ("X: y\r\n\tTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            ("Transfer\u{0}-Encoding: chunked\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding\r\n: chunked\r\n", "0\r\n\r\n"),
            ("Content-Length: 0\r\nTransfer-Encoding:chunked\r\n", "0\r\n\r\n"),
        ],
    );
    let mark = tag("chunked");
    passes(
        &doors,
        &mark,
        &[
            post(
                &format!("/wire/v1/upload?tag={mark}"),
                "Connection: close\r\nTransfer-Encoding: chunked\r\n",
                "4\r\nbody\r\n0\r\n\r\n",
            ),
            post(
                &format!("/wire/v1/upload?tag={mark}"),
                "Connection: close\r\nTransfer-Encoding: CHUNKED\r\n",
                "4\r\nbody\r\n0\r\n\r\n",
            ),
            post(&format!("/wire/v1/upload?tag={mark}"), "Connection: close\r\nContent-Length: 4\r\n", "body"),
        ],
    );
}

#[test]
fn a_length_is_one_plain_number() {
    let Some(doors) = Lease::take() else { return };
    no_smuggling(
        &doors,
        &[
            ("Content-Length: 0\r\nContent-Length: 0\r\n", ""),
            ("Content-Length: 0\r\nContent-Length: 120\r\n", ""),
            ("Content-Length: 0, 0\r\n", ""),
            ("Content-Length: -1\r\n", ""),
            ("Content-Length: +0\r\n", ""),
            ("Content-Length: 0x0\r\n", ""),
            ("Content-Length: 0.0\r\n", ""),
            ("Content-Length: 1e1\r\n", ""),
            ("Content-Length: \r\n", ""),
            ("Content-Length: 0 0\r\n", ""),
            ("Content-Length: zero\r\n", ""),
            ("Content-Length: 18446744073709551616\r\n", ""),
            ("Content-Length: 99999999999999999999999999\r\n", ""),
            ("Content-Length: {70000x9}\r\n", ""),
            ("Content-Length : 0\r\n", ""),
        ],
    );
}

#[test]
fn a_chunk_is_a_size_and_so_many_bytes() {
    let Some(doors) = Lease::take() else { return };
    let path = tag("chunk");
    let bodies = [
        "zz\r\nbody\r\n0\r\n\r\n",
        "-4\r\nbody\r\n0\r\n\r\n",
        "+4\r\nbody\r\n0\r\n\r\n",
        "0x4\r\nbody\r\n0\r\n\r\n",
        " 4\r\nbody\r\n0\r\n\r\n",
        "4 \r\nbody\r\n0\r\n\r\n",
        "\r\nbody\r\n0\r\n\r\n",
        "4\nbody\n0\n\n",
        "4\r\nbodyX\r\n0\r\n\r\n",
        "4\r\nbody0\r\n\r\n",
        "4\rbody\r\n0\r\n\r\n",
        "4;a=b\r\nbody\r\n0\r\n\r\n",
        "4;a=\"b\r\n\"\r\nbody\r\n0\r\n\r\n",
        "4;{20000xa}\r\nbody\r\n0\r\n\r\n",
        "10000000000000000\r\nbody\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nbody\r\n0\r\n\r\n",
        "{30000x0}4\r\nbody\r\n0\r\n\r\n",
        "4\r\nbody\r\n0\r\nX: y\r\n folded\r\n\r\n",
        "4\r\nbody\r\n0\r\nX{20000xy}: y\r\n\r\n",
        "4\r\nbody\r\n0\r\nno name\r\n\r\n",
    ];
    let head = "Connection: close\r\nTransfer-Encoding: chunked\r\n";
    let target = format!("/wire/v1/upload?tag={path}");
    let requests = bodies.map(|body| post(&target, head, &format!("{body}{}", smuggled(&path))));
    for (request, reply) in requests.iter().zip(doors.send(&requests)) {
        assert!(!reply.starts_with("HTTP/1.1 2") && reply.matches("HTTP/1.1 ").count() <= 1, "{request:?}: {reply}");
    }
    // What has been forwarded before the doubt never came to its end, so no upstream has acted on it.
    let whole = |e: &Evidence| matches!(e, Evidence::Request { .. });
    assert!(!doors.seen_with("api", &path).iter().any(whole), "{:#?}", doors.seen_with("api", &path));
}

#[test]
fn a_line_ends_with_cr_lf_and_is_never_folded() {
    let Some(doors) = Lease::take() else { return };
    let path = tag("line");
    let target = format!("/wire/v1/upload?tag={path}");
    let behind = smuggled(&path);
    let requests = [
        format!("GET {target} HTTP/1.1\nHost: a\n\n{behind}"),
        format!("GET {target} HTTP/1.1\r\nHost: a\nX: y\r\n\r\n{behind}"),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nX: y\n\r\n{behind}"),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nX: y\r{behind}"),
        format!("GET {target} HTTP/1.1\rHost: a\r\r{behind}"),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nX: y\r\r\n\r\n{behind}"),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n{behind}"),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nX: y\r\n\tfolded\r\n\r\n{behind}"),
        format!("GET {target} HTTP/1.1\r\n Host: a\r\n\r\n{behind}"),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nX\u{0}: y\r\n\r\n{behind}"),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nX: y\u{0}z\r\n\r\n{behind}"),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nX y\r\n\r\n{behind}"),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n{behind}"),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n{behind}"),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nX: {{80000xy}}\r\n\r\n{behind}"),
        format!("GET {target}{{80000xy}} HTTP/1.1\r\nHost: a\r\n\r\n{behind}"),
        format!("{{80000xG}} {target} HTTP/1.1\r\nHost: a\r\n\r\n{behind}"),
    ];
    refused(&doors, &path, &requests, &[0, 400, 405, 414, 431]);
    let mark = tag("clean");
    passes(&doors, &mark, &[get(&format!("/wire/v1/echo?form=json&tag={mark}"), "X-Empty:\r\nX: y  z\r\n")]);
}

#[test]
fn many_requests_on_a_connection_are_answered_in_their_order() {
    let Some(doors) = Lease::take() else { return };
    let path = tag("pipeline");
    let all: String = (0..50)
        .map(|n| format!("GET /wire/v1/echo?form=json&tag={path}&n={n} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .chain([get(&format!("/wire/v1/echo?form=json&tag={path}&n=50"), "")])
        .collect();
    let reply = doors.send(&[all]).remove(0);
    assert_eq!(reply.matches("HTTP/1.1 200").count(), 51, "{reply}");
    let seen = doors.seen_with("api", &path);
    let order = seen.iter().filter_map(|e| match e {
        Evidence::Request { path, .. } => path.split("n=").nth(1)?.split('&').next()?.parse::<u32>().ok(),
        _ => None,
    });
    let order: Vec<u32> = order.collect();
    assert_eq!(order, (0..51).collect::<Vec<_>>());
}

#[test]
fn other_protocols_on_its_port_are_refused() {
    let Some(doors) = Lease::take() else { return };
    let path = tag("protocol");
    let requests = [
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\u{0}\u{0}\u{0}\u{4}\u{0}\u{0}\u{0}\u{0}\u{0}".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}".to_owned(),
        "SSH-2.0-agent\r\n".to_owned(),
        "\u{5}\u{1}\u{0}".to_owned(),
        format!("\u{0}\u{0}GET /wire/v1/echo?tag={path} HTTP/1.1\r\nHost: a\r\n\r\n"),
        "{100000x\u{0}}".to_owned(),
    ];
    refused_or_silent(&doors, &requests);
    assert!(doors.seen_with("api", &path).is_empty());
    let tls = curl(&doors.one, &["-k", "https://cred-proxy:9099/wire/v1/echo"]);
    assert_ne!(tls.1.status, 0, "it speaks no TLS: {tls:?}");
    let http2 = curl(&doors.one, &["--http2-prior-knowledge", &format!("{PROXY}/wire/v1/echo")]);
    assert_ne!(http2.1.status, 0, "{http2:?}");
    answers(&doors.one, &[&format!("{PROXY}/wire/v1/echo?form=json")], "200");
}

/// No reply is as good as a refusal where nobody could read one.
#[track_caller]
fn refused_or_silent(doors: &Lease, requests: &[String]) {
    for (request, reply) in requests.iter().zip(doors.send(requests)) {
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 4"), "{request:?}: {reply}");
    }
}
