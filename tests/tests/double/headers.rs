//! Which headers are looked into, and how what is found in them is told.

use crate::world::{Double, Folder, Upstream, yaml, yaml_of_routes, yaml_with_credentials};
use crate::{TOKEN, open, started};
use pipelock_config::log::LogEvent;

const KEY: &str = "AKIAABCDEFGHIJKLMNOP";
const REFUSED: &str = "blocked: request header contains secret\n";

/// What ordinary clients send of themselves.
const ORDINARY: [&[&str]; 5] = [
    &["User-Agent: curl/8.10.1", "Accept: */*", "Range: bytes=0-1023", "Cookie: session=3f2a9c; theme=dark"],
    &[
        "User-Agent: git/2.47.1",
        "Accept: application/x-git-upload-pack-result",
        "Git-Protocol: version=2",
        "Accept-Language: C, *;q=0.9",
        "Pragma: no-cache",
    ],
    &[
        "User-Agent: npm/10.8.2 node/v20.18.0 linux x64 workspaces/false",
        "npm-command: install",
        "npm-session: 5a1f9e0c3b7d2f64",
        "pacote-pkg-id: registry:left-pad",
        "pacote-integrity: sha512-XI5MPzVNApjAyhQzphX8BkmKsKUxD4LdyK24iZeQGinBN9yTQT3bFlCBy/aVx2HrNcqQGsdot8ghrjyrvMCoEA==",
        "If-None-Match: \"0f6b2e2e9b7ab1ad8ac1c6d0b16d3a7a\"",
    ],
    &[
        "User-Agent: pip/24.2 {\"ci\":null,\"cpu\":\"x86_64\",\"openssl_version\":\"OpenSSL 3.0.15 3 Sep 2024\",\"python\":\"3.11.2\"}",
        "Accept: application/vnd.pypi.simple.v1+json, text/html; q=0.01",
        "Cache-Control: max-age=0",
        "Connection: keep-alive",
    ],
    &[
        "anthropic-version: 2023-06-01",
        "X-Stainless-Arch: x64",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "Idempotency-Key: stainless-node-retry-7d9f5c1e-2b0a-4c6e-8f3d-1a2b3c4d5e6f",
    ],
];

fn sent(double: &Double, folder: &Folder, url: &str, headers: &[&str]) -> (u16, String) {
    let arguments: Vec<&str> = headers.iter().flat_map(|header| ["--header", header]).chain([url]).collect();
    let got = double.curl(&folder.ca, &arguments);
    (got.status, got.body)
}

#[test]
fn a_secret_leaves_in_no_header_but_those_that_may_carry_one() {
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let (api_key, google) = (format!("X-Api-Key: {KEY}"), format!("X-Goog-Api-Key: {KEY}"));
    let always: Vec<String> =
        ["X-Other", "User-Agent", "Accept", "Cookie"].iter().map(|name| format!("{name}: {KEY}")).collect();
    let agents = yaml(&["localhost"], &[], &["localhost"]);
    for (policy, refused, passing) in [
        (agents, vec![&bearer, &api_key, &google], vec![]),
        (yaml_with_credentials("localhost"), vec![&google], vec![&bearer, &api_key]),
        (yaml_of_routes("localhost", &["Authorization", "X-Goog-Api-Key"]), vec![&api_key], vec![&bearer, &google]),
    ] {
        let (upstream, folder, double) = started(&policy);
        for url in
            [format!("https://localhost:{}/echo", upstream.https), format!("http://localhost:{}/echo", upstream.http)]
        {
            for header in refused.iter().copied().chain(&always) {
                let got = sent(&double, &folder, &url, &[header]);
                assert_eq!(got, (403, REFUSED.to_owned()), "{url} {header}");
            }
            let name = format!("X-{KEY}: 1");
            assert_eq!(sent(&double, &folder, &url, &[&name]).0, 403, "{url}: in a name");
            for header in &passing {
                let (status, body) = sent(&double, &folder, &url, &[header]);
                assert!(
                    status == 200 && body.contains(header.split(' ').next_back().unwrap()),
                    "{url} {header}: {body}"
                );
            }
            for headers in ORDINARY {
                assert_eq!(sent(&double, &folder, &url, headers).0, 200, "{url} {headers:?}");
            }
        }
    }
}

#[test]
fn a_secret_outside_a_tunnel_is_an_event_of_its_own() {
    let (upstream, folder, double) = open();
    let header = format!("X-Other: {KEY}");
    let target = format!("localhost:{}", upstream.https);
    let (mut stream, head) = double.raw(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{header}\r\n\r\n"));
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    let mut body = [0; "CONNECT blocked: header DLP match\n".len()];
    std::io::Read::read_exact(&mut stream, &mut body).unwrap();
    assert_eq!(std::str::from_utf8(&body).unwrap(), "CONNECT blocked: header DLP match\n");
    let connect = double.wait_for_event("header_dlp", &["\"method\":\"CONNECT\""]);
    assert_eq!((connect["target"].as_str(), connect["header"].as_str()), (Some(target.as_str()), Some("X-Other")));

    let url = format!("http://localhost:{}/echo", upstream.http);
    assert_eq!(sent(&double, &folder, &format!("{url}?in-header"), &[&header]).0, 403);
    assert_eq!(double.curl(&folder.ca, &["--data", KEY, &format!("{url}?in-body")]).status, 403);
    let header = double.wait_for_event("header_dlp", &["\"method\":\"GET\""]);
    assert_eq!(header["url"], format!("{url}?in-header"));
    let body = double.wait_for_event("body_dlp", &[]);
    assert_eq!((body["url"].as_str(), body["match_count"].as_u64()), (Some(&*format!("{url}?in-body")), Some(1)));
    for (event, reason) in [
        (&connect, "request header contains secret: AWS Access ID"),
        (&header, "request header contains secret: AWS Access ID"),
        (&body, "request body contains secret: AWS Access ID"),
    ] {
        assert_eq!((event["action"].as_str(), event["patterns"][0].as_str()), (Some("block"), Some("AWS Access ID")));
        let Some(LogEvent::Blocked { host, reason: told, .. }) = LogEvent::parse(&event.to_string()) else {
            panic!("{event}");
        };
        assert_eq!((host.as_deref(), told.as_str()), (Some("localhost"), reason));
    }
    assert!(!double.said().contains("\"event\":\"blocked\""), "and of nothing else");
    assert_eq!(double.curl(&folder.ca, &["--data", "harmless", &url]).status, 200);
}

#[test]
fn a_refusal_of_a_long_url_is_a_long_line_and_still_a_refusal() {
    let upstream = Upstream::start();
    let folder = Folder::new(&yaml(&["localhost"], &[], &["localhost"]));
    let double = Double::start(&folder, &upstream);
    let (_, head) =
        double.raw(&format!("GET http://evil.example/{} HTTP/1.1\r\nHost: evil.example\r\n\r\n", "a".repeat(65_300)));
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    let line = double.wait_for("refusal", |line| line.contains("\"event\":\"blocked\""));
    assert!(line.len() > pipelock_config::log::LINE_BYTES_MAX);
    let cut = &line[..pipelock_config::log::LINE_BYTES_MAX];
    for line in [line.as_str(), cut] {
        let event = LogEvent::parse(line);
        let host = match &event {
            Some(LogEvent::Blocked { host, .. }) => host.as_deref(),
            other => panic!("{other:?}"),
        };
        assert_eq!(host, Some("evil.example"));
    }
}
