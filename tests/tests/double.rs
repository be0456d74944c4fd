//! The double keeps pipelock's contract: real curl through the real binary to a real TLS upstream, on loopback.
//!
//! What the launcher and its tests lean on, each refusal beside what is let through.

// The whole file is a test; what goes wrong in its helpers is a failed test as well.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "double/headers.rs"]
mod headers;
#[path = "double/world.rs"]
mod world;

use rcgen::{KeyPair, KeyUsagePurpose};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use world::{Ca, Double, Folder, Upstream, hash, pem, request, run_to_end, sec1, yaml};

const TOKEN: &str = "ghp_abcdefghijklmnopqrstuvwxyz0123456789";

fn started(yaml: &str) -> (Upstream, Folder, Double) {
    let upstream = Upstream::start();
    let folder = Folder::new(yaml);
    let double = Double::start(&folder, &upstream);
    (upstream, folder, double)
}

/// `localhost` allowed and allowed to be here; `127.0.0.1` likewise.
fn open() -> (Upstream, Folder, Double) {
    started(&yaml(&["localhost", "127.0.0.1"], &[], &["localhost", "127.0.0.1"]))
}

#[test]
fn only_listed_hosts_are_reached() {
    let (upstream, folder, double) = open();
    let got = double.curl(&folder.ca, &[&format!("https://localhost:{}/", upstream.https)]);
    assert_eq!((got.exit, got.status, got.connect, got.body.as_str()), (0, 200, 200, "hello"));
    let got = double.curl(&folder.ca, &[&format!("https://evil.example:{}/", upstream.https)]);
    assert_eq!((got.exit, got.connect), (56, 403));
    let blocked = double.wait_for_event("blocked", &["evil.example"]);
    assert_eq!(blocked["scanner"], "allowlist");
    assert_eq!(blocked["reason"], "domain not in allowlist: evil.example");
    assert_eq!(blocked["target"], format!("evil.example:{}", upstream.https));
}

#[test]
fn a_refusal_has_the_real_ones_form_and_an_opened_tunnel_has_no_headers() {
    let (upstream, _folder, double) = open();
    let connect = |target: &str| double.raw(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"));
    let (_, head) = connect(&format!("localhost:{}", upstream.https));
    assert_eq!(head, "HTTP/1.1 200 Connection Established\r\n\r\n");
    let (mut stream, head) = connect("evil.example:22");
    assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
    for line in ["Content-Type: text/plain; charset=utf-8\r\n", "X-Content-Type-Options: nosniff\r\n", "\r\nDate: "] {
        assert!(head.contains(line), "{line} in {head}");
    }
    assert!(!head.contains("Pipelock"), "{head}");
    let body = "CONNECT blocked: domain not in allowlist: evil.example\n";
    let mut got = vec![0; body.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(String::from_utf8(got).unwrap(), body);
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
}

#[test]
fn private_addresses_are_refused_unless_the_name_or_the_address_is_exempt() {
    let text = "CONNECT blocked: ";
    for (allow_private, host, refusal) in [
        (&["localhost"][..], "localhost", None),
        (&["127.0.0.1"][..], "localhost", None),
        (&["127.0.0.1"][..], "127.0.0.1", None),
        (&[][..], "localhost", Some("SSRF blocked: localhost resolves to internal IP 127.0.0.1")),
        (&["localhost"][..], "127.0.0.1", Some("SSRF blocked: 127.0.0.1 resolves to internal IP 127.0.0.1")),
        (&["127.0.0.2"][..], "127.0.0.1", Some("SSRF blocked: 127.0.0.1 resolves to internal IP 127.0.0.1")),
    ] {
        let (upstream, _folder, double) = started(&yaml(&["localhost", "127.0.0.1"], &[], allow_private));
        let target = format!("{host}:{}", upstream.https);
        let (mut stream, head) = double.raw(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"));
        match refusal {
            None => assert!(head.starts_with("HTTP/1.1 200 "), "{host} {allow_private:?}: {head}"),
            Some(refusal) => {
                assert!(head.starts_with("HTTP/1.1 403 "), "{host} {allow_private:?}: {head}");
                let expected = format!("{text}{refusal}\n");
                let mut body = vec![0; expected.len()];
                stream.read_exact(&mut body).unwrap();
                assert_eq!(String::from_utf8(body).unwrap(), expected);
            }
        }
    }
}

#[test]
fn an_unresolvable_name_and_a_closed_port_fail_in_their_own_ways() {
    let (_upstream, _folder, double) = started(&yaml(&["nothing.invalid", "localhost"], &[], &["localhost"]));
    let connect = |target: &str| double.raw(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")).1;
    assert!(connect("nothing.invalid:443").starts_with("HTTP/1.1 403 "));
    double.wait_for_event("blocked", &["DNS resolution error for nothing.invalid", "\"scanner\":\"ssrf\""]);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(connect(&format!("localhost:{closed}")).starts_with("HTTP/1.1 502 "));
}

#[test]
fn an_opened_host_shows_a_certificate_of_the_bottles_ca_and_no_other() {
    let (upstream, folder, double) = open();
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("https://{host}:{}/", upstream.https);
        assert_eq!(double.curl(&folder.ca, &[&url]).exit, 0, "{host}");
        assert_eq!(double.curl(&upstream.ca, &[&url]).exit, 60, "{host} is opened");
    }
    double.wait_for_event("anomaly", &["TLS MITM interception active", "\"scanner\":\"tls_intercept\""]);
    let mut tunnel = double.tunnel(&folder.ca, "localhost", upstream.https);
    let get = format!("GET / HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", upstream.https);
    assert_eq!([(); 3].map(|()| request(&mut tunnel, &get)), [200; 3], "kept alive");
    let chain = tunnel.conn.peer_certificates().unwrap();
    assert_eq!(chain.len(), 1, "the leaf alone");
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    assert_eq!(leaf.subject().to_string(), "CN=localhost");
    assert_eq!(leaf.issuer().iter_common_name().last().unwrap().as_str().unwrap(), "bottle test CA");
    assert!(leaf.extended_key_usage().unwrap().unwrap().value.server_auth);
    assert_eq!(leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
}

#[test]
fn a_host_that_is_passed_through_shows_its_own_certificate() {
    let (upstream, folder, double) =
        started(&yaml(&["localhost", "127.0.0.1"], &["localhost"], &["localhost", "127.0.0.1"]));
    let url = format!("https://localhost:{}/echo", upstream.https);
    let body = format!("key={TOKEN}");
    let got = double.curl(&upstream.ca, &["--data", &body, &url]);
    assert_eq!((got.exit, got.status), (0, 200));
    assert!(got.body.contains(&body), "not looked into");
    assert_eq!(double.curl(&folder.ca, &[&url]).exit, 60);
    assert_eq!(double.curl(&folder.ca, &[&format!("https://127.0.0.1:{}/", upstream.https)]).exit, 0, "opened still");
    double.wait_for_event("tunnel_open", &["localhost"]);
    assert!(double.wait_for_event("tunnel_close", &["localhost"])["total_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn a_tunnels_name_must_be_the_hosts_where_sni_is_verified() {
    let (upstream, _folder, double) = started(&yaml(&["localhost", "127.0.0.1"], &["localhost"], &["localhost"]));
    let fronted = |host: &str| {
        let resolve = format!("{host}:{}:127.0.0.1", upstream.https);
        let through = format!("{host}:{0}:localhost:{0}", upstream.https);
        let url = format!("https://{host}:{}/", upstream.https);
        double.curl(&upstream.ca, &["--connect-to", &through, "--resolve", &resolve, "--insecure", &url]).exit
    };
    assert_eq!(fronted("localhost"), 0);
    assert_ne!(fronted("fronted.example"), 0);
    let event = double.wait_for_event("sni_mismatch", &[]);
    assert_eq!(
        (event["connect_host"].as_str(), event["sni_host"].as_str()),
        (Some("localhost"), Some("fronted.example"))
    );
}

#[test]
fn secrets_do_not_leave_in_a_body_a_header_or_a_url() {
    let (upstream, folder, double) = open();
    let url = |path: &str| format!("https://localhost:{}{path}", upstream.https);
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let other = format!("X-Note: {TOKEN}");
    let json = format!("{{\"a\":[{{\"b\":\"\\u0067hp_{}\"}}]}}", &TOKEN[4..]);
    let kind = "Content-Type: application/json";
    let leak = format!("/echo?x={TOKEN}");
    let body_blocked = "blocked: request body contains secret: GitHub Token\n";
    for (arguments, path, expected) in [
        (vec!["--data", "harmless"], "/echo", None),
        (vec!["--data", TOKEN], "/echo", Some(body_blocked)),
        (vec!["--data", &json, "--header", kind], "/echo", Some(body_blocked)),
        (vec!["--data", "{\"a\":1}", "--header", kind], "/echo", None),
        (vec!["--data", "{\"a\":1}\n{\"a\":2}", "--header", kind], "/echo", Some("blocked: invalid JSON body\n")),
        (vec!["--header", "Authorization: Bearer opaque"], "/echo", None),
        (vec!["--header", &bearer], "/echo", Some("blocked: request header contains secret\n")),
        (vec!["--header", &other], "/echo", Some("blocked: request header contains secret\n")),
        (vec![], &leak, Some("blocked: core DLP match: GitHub Token (critical)\n")),
        (vec![], "/echo?token=abcdefgh", None),
        (vec!["--path-as-is"], "/a/../b", Some("blocked: path traversal sequence in URL\n")),
        (vec![], "/a%0d%0ab", Some("blocked: CRLF injection sequence in URL\n")),
    ] {
        let url = url(path);
        let got = double.curl(&folder.ca, &[&arguments[..], &[&url]].concat());
        match expected {
            None => assert_eq!(got.status, 200, "{arguments:?} {path}: {}", got.body),
            Some(text) => assert_eq!((got.status, got.body.as_str()), (403, text), "{arguments:?} {path}"),
        }
    }
    double.wait_for_event("dlp_warn", &["Credential in URL"]);
    let blocked = double.wait_for_event("blocked", &["body_dlp"]);
    assert_eq!(blocked["url"], format!("https://localhost:{}/[redacted]", upstream.https));
}

#[test]
fn what_cannot_be_looked_into_is_refused() {
    let config = yaml(&["localhost"], &[], &["localhost"]);
    let config = config.replace("max_body_bytes: 33554432", "max_body_bytes: 1000");
    let config = config.replace("max_response_bytes: 33554432", "max_response_bytes: 1000");
    let (upstream, folder, double) = started(&config.replace("max_url_length: 16384", "max_url_length: 100"));
    let (short, long) = ("a".repeat(1000), "a".repeat(1001));
    let far = format!("/echo?{}", "a".repeat(100));
    let gzip =
        "blocked: request body uses Content-Encoding \"gzip\"; compressed bodies cannot be scanned for secrets\n";
    for (arguments, path, expected) in [
        (vec!["--data", &short], "/", None),
        (vec!["--data", &long], "/", Some("blocked: request body exceeds max_body_bytes (1000)\n")),
        (vec!["--data", "x", "--header", "Content-Encoding: gzip"], "/echo", Some(gzip)),
        (vec!["--data", "x", "--header", "Content-Encoding: identity"], "/echo", None),
        (vec![], "/bytes?1000", None),
        (vec![], "/bytes?1001", Some("blocked: response too large for scanning\n")),
        (vec![], "/compressed", Some("blocked: compressed response cannot be scanned\n")),
        (vec![], &far, Some("exceeds maximum 100")),
    ] {
        let url = format!("https://localhost:{}{path}", upstream.https);
        let got = double.curl(&folder.ca, &[&arguments[..], &[&url]].concat());
        match expected {
            None => assert_eq!(got.status, 200, "{path}: {}", got.body),
            Some(text) => assert!(got.status == 403 && got.body.contains(text), "{path}: {} {}", got.status, got.body),
        }
    }
}

#[test]
fn headers_of_one_connection_and_accept_encoding_go_no_further() {
    let (upstream, folder, double) = open();
    let url = format!("https://localhost:{}/echo", upstream.https);
    let own = [
        "--http1.1",
        "--compressed",
        "--header",
        "TE: trailers",
        "--header",
        "Connection: X-Mine",
        "--header",
        "X-Mine: 1",
    ];
    let got = double.curl(&folder.ca, &[&own[..], &["--header", "X-Kept: 1", &url]].concat());
    assert_eq!(got.status, 200);
    let seen = got.body.to_lowercase();
    for name in ["accept-encoding", "te:", "x-mine", "connection:", "upgrade"] {
        assert!(!seen.contains(name), "{name} in {seen}");
    }
    assert!(seen.contains("x-kept: 1"), "{seen}");
    assert!(got.head.contains("content-length: "), "an answer comes whole: {}", got.head);
}

#[test]
fn a_request_for_another_host_in_the_tunnel_is_refused() {
    let (upstream, folder, double) = open();
    let mut tunnel = double.tunnel(&folder.ca, "localhost", upstream.https);
    for (host, status) in [
        (format!("localhost:{}", upstream.https), 200),
        (format!("LOCALHOST:{}", upstream.https), 200),
        (format!("evil.example:{}", upstream.https), 403),
        ("localhost".to_owned(), 403),
    ] {
        assert_eq!(request(&mut tunnel, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), status, "{host}");
    }
    double.wait_for_event("blocked", &["tls_authority_mismatch"]);
    let host = "Host: evil.example";
    let got = double.curl(&folder.ca, &["--header", host, &format!("https://localhost:{}/", upstream.https)]);
    assert_eq!((got.status, got.body.as_str()), (403, "authority mismatch: blocked\n"));
}

#[test]
fn an_upstream_that_nobody_vouches_for_is_an_upstream_error() {
    let (upstream, folder, double) = open();
    let stranger = Upstream::start();
    let get = |upstream: &Upstream| double.curl(&folder.ca, &[&format!("https://localhost:{}/", upstream.https)]);
    assert_eq!(get(&upstream).status, 200);
    let got = get(&stranger);
    assert_eq!((got.status, got.body.as_str()), (502, "upstream error\n"));
}

#[test]
fn server_sent_events_arrive_one_by_one() {
    let (upstream, folder, double) = open();
    let mut tunnel = double.tunnel(&folder.ca, "localhost", upstream.https);
    write!(tunnel, "GET /events HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", upstream.https).unwrap();
    events_arrive_one_by_one(&mut tunnel, &upstream);
    let target = format!("localhost:{}", upstream.http);
    let (mut plain, head) = double.raw(&format!("GET http://{target}/events HTTP/1.1\r\nHost: {target}\r\n\r\n"));
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    events_arrive_one_by_one(&mut plain, &upstream);
}

/// The second event is sent only when the first has been seen.
fn events_arrive_one_by_one(stream: &mut impl Read, upstream: &Upstream) {
    let mut seen = String::new();
    let mut until = |text: &str| {
        while !seen.contains(text) {
            let mut chunk = [0; 1024];
            let count = stream.read(&mut chunk).unwrap();
            assert!(count > 0, "ended after {seen}");
            seen.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
        }
        seen.clone()
    };
    assert!(!until("data: one\n\n").contains("two"));
    upstream.go_on.notify_one();
    until("data: two\n\n");
}

#[test]
fn plain_requests_are_checked_and_redirects_with_them() {
    let (upstream, folder, double) = open();
    let base = format!("http://localhost:{}", upstream.http);
    let get = |arguments: &[&str]| double.curl(&folder.ca, arguments);
    let got = get(&[&format!("{base}/")]);
    assert_eq!((got.status, got.body.as_str()), (200, "hello"));
    double.wait_for_event("forward_http", &["\"status_code\":200"]);
    let got = get(&["http://evil.example/"]);
    assert_eq!((got.status, got.body.as_str()), (403, "blocked: domain not in allowlist: evil.example\n"));
    let got = get(&["--data", TOKEN, &format!("{base}/echo")]);
    assert_eq!((got.status, got.body.as_str()), (403, "blocked: request body contains secret: GitHub Token\n"));
    let got = get(&["--header", &format!("Cookie: {TOKEN}"), &format!("{base}/echo")]);
    assert_eq!((got.status, got.body.as_str()), (403, "blocked: request header contains secret\n"));
    let got = get(&[&format!("{base}/to?/")]);
    assert_eq!((got.status, got.body.as_str()), (200, "hello"), "followed here");
    let got = get(&[&format!("{base}/to?http://evil.example/")]);
    let text = "blocked: redirect blocked: domain not in allowlist: evil.example\n";
    assert_eq!((got.status, got.body.as_str()), (403, text));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let got = get(&[&format!("http://localhost:{closed}/")]);
    assert_eq!((got.status, got.body.as_str()), (502, "forward proxy fetch failed\n"));
}

#[test]
fn its_own_endpoints_answer_as_the_contract_says() {
    let (upstream, folder, double) = open();
    let own = |path: &str| {
        let (mut stream, head) = double.raw(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        let mut body = String::new();
        stream.read_to_string(&mut body).unwrap();
        (head.split(' ').nth(1).unwrap().parse::<u16>().unwrap(), body)
    };
    let (status, body) = own("/health");
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200);
    assert_eq!((health["status"].as_str(), health["mode"].as_str()), (Some("healthy"), Some("strict")));
    assert_eq!((health["version"].as_str(), health["tls_interception_enabled"].as_bool()), (Some("2.3.0"), Some(true)));
    for path in ["/metrics", "/stats", "/ws", "/other"] {
        assert_eq!(own(path).0, 404, "{path}");
    }
    assert_eq!(own("/api/v1/killswitch/status").1, "kill switch API not configured (no api_token)\n");
    let (status, body) = own("/fetch?url=http%3A%2F%2Fevil.example%2F");
    assert_eq!(status, 403);
    assert!(body.contains("\"blocked\":true") && body.contains("domain not in allowlist: evil.example"), "{body}");
    let (status, body) = own(&format!("/fetch?url=http://localhost:{}/", upstream.http));
    assert!(status == 200 && body.contains("\"content\":\"hello\""), "{body}");
    assert_eq!(run_to_end(&["healthcheck", "--addr", &double.address.to_string()]).0, 0);
    drop((double, folder));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_eq!(run_to_end(&["healthcheck", "--addr", &closed]).0, 1);
}

#[test]
fn a_host_is_added_and_taken_without_a_restart_but_an_open_tunnel_keeps_what_it_has() {
    let private = ["localhost", "127.0.0.1"];
    let (before, after) = (yaml(&["localhost"], &[], &private), yaml(&["127.0.0.1"], &[], &private));
    let (upstream, folder, double) = started(&before);
    let status = |host: &str| double.curl(&folder.ca, &[&format!("https://{host}:{}/", upstream.https)]).connect;
    assert_eq!((status("localhost"), status("127.0.0.1")), (200, 403));
    let mut tunnel = double.tunnel(&folder.ca, "localhost", upstream.https);
    let get = format!("GET / HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", upstream.https);
    assert_eq!(request(&mut tunnel, &get), 200);
    folder.put("pipelock.yaml", &after, 0o644);
    let reload = double.wait_for_event("config_reload", &[&hash(&after)]);
    assert_eq!(reload["status"], "success");
    assert_eq!((status("localhost"), status("127.0.0.1")), (403, 200));
    assert_eq!(request(&mut tunnel, &get), 200, "the old tunnel");
}

#[test]
fn a_reload_that_loosens_or_cannot_be_read_changes_nothing() {
    let base = yaml(&["localhost", "127.0.0.1"], &[], &["localhost"]);
    let (upstream, folder, double) = started(&base);
    let rejected = "rejected: security downgrade from strict mode";
    let loosened = [
        ("passthrough", yaml(&["localhost", "127.0.0.1"], &["localhost"], &["localhost"])),
        ("address", yaml(&["localhost", "127.0.0.1"], &[], &["localhost", "127.0.0.1"])),
        ("mode", base.replace("mode: 'strict'", "mode: 'audit'")),
        ("enforce", base.replace("enforce: true", "enforce: false")),
    ];
    for (turn, (what, text)) in loosened.into_iter().enumerate() {
        folder.put("pipelock.yaml", &text, 0o644);
        double.wait_for_count(rejected, turn + 1);
        let url = format!("https://127.0.0.1:{}/", upstream.https);
        assert_eq!(double.curl(&folder.ca, &[&url]).connect, 403, "{what}");
    }
    folder.put("pipelock.yaml", "surprise: 1\n", 0o644);
    double.wait_for("failed reload", |line| line.starts_with("pipelock: config reload failed: "));
    let url = format!("https://localhost:{}/", upstream.https);
    assert_eq!(double.curl(&folder.ca, &[&url]).status, 200, "the old one serves");
    let added = yaml(&["localhost", "127.0.0.1", "b.example"], &[], &["localhost"]);
    folder.put("pipelock.yaml", &added, 0o644);
    double.wait_for_event("config_reload", &[&hash(&added)]);
}

#[test]
fn files_that_the_real_one_refuses_are_refused() {
    let good = yaml(&["localhost"], &[], &["localhost"]);
    let text = |change: (&str, &str)| {
        assert!(good.contains(change.0), "{change:?}");
        good.replace(change.0, change.1)
    };
    for (change, part) in [
        (("mode: 'strict'", "mode: 'strict'\nsurprise: 1"), "surprise"),
        (("mode: 'strict'", "mode: 'lax'"), "lax"),
        (("  max_tunnel_seconds", "  max_tunnel_second"), "max_tunnel_second"),
        (("api_allowlist:\n- 'localhost'", "api_allowlist: []"), "at least one domain"),
        (("enforce: true", "enforce: perhaps"), "bool"),
        (("severity: 'high'\n    action: 'warn'", "severity: 'high'\n    action: 'strip'"), "unsupported action"),
        (("ip_allowlist: []", "ip_allowlist: ['10.0.0.5/24']"), "host bits"),
        (("ip_allowlist: []", "ip_allowlist: ['0.0.0.0/0']"), "catch-all"),
        (("- 'localhost'\nssrf", "- '*.com'\nssrf"), "concrete domain"),
        (("metrics_listen: '127.0.0.1:0'", "metrics_listen: '127.0.0.1'"), "metrics_listen"),
        (("cert_ttl: '24h'", "cert_ttl: 'long'"), "cert_ttl"),
    ] {
        let folder = Folder::new(&text(change));
        for verb in ["run", "check"] {
            let (exit, said) = run_to_end(&[verb, "--config", &folder.config()]);
            assert!(exit == 1 && said.contains(part), "{verb} {change:?}: {exit} {said}");
        }
    }
    let folder = Folder::new(&good);
    let (exit, said) = run_to_end(&["check", "-c", &folder.config()]);
    assert!(exit == 0 && said.starts_with("Config validation: OK\n"), "{said}");
    assert_eq!(run_to_end(&["check", "-c", &folder.config(), "--url", "https://evil.example/"]).0, 1);
    assert_eq!(run_to_end(&["check", "-c", &folder.config(), "--url", "https://localhost/"]).0, 0);
    for arguments in [&["run", "-c", "/nonexistent"][..], &["no-such-verb"]] {
        assert_eq!(run_to_end(arguments).0, 1, "{arguments:?}");
    }
    let (exit, said) = run_to_end(&["version"]);
    assert!(exit == 0 && said.contains("2.3.0"), "{said}");
}

#[test]
fn a_ca_that_the_real_one_cannot_load_ends_the_start_and_only_its_mode_shows_in_check() {
    let key = KeyPair::generate().unwrap();
    let bare = Ca::with_usages("no usage", vec![KeyUsagePurpose::CrlSign]);
    let good = Ca::new("good");
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["leaf".to_owned()]).unwrap().self_signed(&leaf_key).unwrap();
    let leaf_sec1 = pem("EC PRIVATE KEY", &sec1(&leaf_key, true));
    let with_parameters =
        format!("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{}", good.key_pem);
    for (cert, private, mode, part) in [
        (&good.cert_pem, good.issuer.key().serialize_pem(), 0o600, "parse CA key"),
        (&good.cert_pem, pem("EC PRIVATE KEY", &sec1(good.issuer.key(), false)), 0o600, "unknown elliptic curve"),
        (&good.cert_pem, with_parameters, 0o600, "CA key"),
        (&good.cert_pem, pem("EC PRIVATE KEY", &sec1(&key, true)), 0o600, "does not match"),
        (&good.cert_pem, "no key".to_owned(), 0o600, "no PEM block"),
        (&bare.cert_pem, bare.key_pem.clone(), 0o600, "KeyUsageCertSign"),
        (&leaf.pem(), leaf_sec1, 0o600, "not a CA"),
        (&"no cert".to_owned(), good.key_pem.clone(), 0o600, "no PEM block"),
        (&good.cert_pem, good.key_pem.clone(), 0o644, "too permissive"),
        (&good.cert_pem, good.key_pem.clone(), 0o660, "too permissive"),
    ] {
        let folder = Folder::new(&yaml(&["localhost"], &[], &[]));
        folder.put("ca.pem", cert, 0o644);
        folder.put("ca-key.pem", &private, mode);
        let (exit, said) = run_to_end(&["run", "--config", &folder.config()]);
        assert!(exit == 1 && said.contains(part), "{part}: {exit} {said}");
        let checked = run_to_end(&["check", "--config", &folder.config()]).0;
        assert_eq!(checked, i32::from(mode != 0o600), "{part}");
    }
    for mode in [0o600, 0o640, 0o400] {
        let upstream = Upstream::start();
        let folder = Folder::new(&yaml(&["localhost"], &[], &[]));
        folder.put("ca-key.pem", &folder.ca.key_pem, mode);
        Double::start(&folder, &upstream);
    }
}

#[test]
fn term_and_int_end_it_well_even_with_a_tunnel_open() {
    for signal in [Signal::TERM, Signal::INT] {
        let (upstream, folder, mut double) = open();
        let mut tunnel = double.tunnel(&folder.ca, "localhost", upstream.https);
        let get = format!("GET / HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", upstream.https);
        assert_eq!(request(&mut tunnel, &get), 200);
        double.signal(signal);
        assert_eq!(double.end().code(), Some(0));
        double.wait_for_event("shutdown", &[]);
    }
}

#[test]
fn usr1_denies_everything_and_gives_it_back() {
    let (upstream, folder, double) = open();
    let get = || double.curl(&folder.ca, &[&format!("https://localhost:{}/", upstream.https)]).connect;
    let killed = || {
        let (mut stream, head) = double.raw("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 "), "it stays healthy: {head}");
        let mut body = String::new();
        stream.read_to_string(&mut body).unwrap();
        serde_json::from_str::<serde_json::Value>(&body).unwrap()["kill_switch_active"].as_bool().unwrap()
    };
    let mut tunnel = double.tunnel(&folder.ca, "localhost", upstream.https);
    let inside = format!("GET / HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", upstream.https);
    assert_eq!((get(), request(&mut tunnel, &inside)), (200, 200));
    double.signal(Signal::USR1);
    while !killed() {}
    assert_eq!((get(), request(&mut tunnel, &inside)), (503, 503));
    double.signal(Signal::USR1);
    while killed() {}
    assert_eq!((get(), request(&mut tunnel, &inside)), (200, 200));
}

#[test]
fn hup_reads_the_file_again() {
    let (_upstream, folder, double) = open();
    double.signal(Signal::HUP);
    double.wait_for_event("config_reload", &[&hash(&std::fs::read_to_string(folder.config()).unwrap())]);
}

#[test]
fn the_listener_can_be_moved_by_a_flag() {
    let upstream = Upstream::start();
    let folder = Folder::new(&yaml(&["localhost"], &[], &[]));
    let double = Double::start(&folder, &upstream);
    let taken = double.address.to_string();
    let (exit, said) = run_to_end(&["run", "-c", &folder.config(), "--listen", &taken]);
    assert!(exit == 1 && said.contains(&taken), "a taken port is an error: {said}");
    let free = std::net::TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap().to_string();
    let mut child = Command::new(world::program())
        .args(["run", "-c", &folder.config(), "--listen", &free, "--mode", "strict"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.contains(&format!("\"listen\":\"{free}\"")), "{line}");
}
