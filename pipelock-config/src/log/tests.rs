//! Lines as pipelock writes them, and what an agent might make of them.

use super::*;
use proptest::prelude::{any, proptest};

#[test]
fn each_event_is_read_from_the_line_that_pipelock_writes() {
    let own = |s: &str| s.to_owned();
    for (line, expected) in [
        (
            r#"{"level":"info","component":"pipelock","event":"startup","listen":"10.0.0.2:8888","mode":"strict","version":"2.3.0","config_hash":"ab","time":"t","message":"pipelock started"}"#,
            LogEvent::Startup {
                listen: own("10.0.0.2:8888"),
                mode: own("strict"),
                version: own("2.3.0"),
                hash: own("ab"),
            },
        ),
        (
            r#"{"level":"warn","component":"pipelock","event":"blocked","method":"CONNECT","target":"evil.example:443","client_ip":"10.0.0.9","request_id":"r","scanner":"allowlist","reason":"domain not in allowlist: evil.example","agent":"anonymous","mitre_technique":"T1048"}"#,
            LogEvent::Blocked {
                host: Some(own("evil.example")),
                port: Some(443),
                reason: own("domain not in allowlist: evil.example"),
                scanner: own("allowlist"),
                method: own("CONNECT"),
            },
        ),
        (
            r#"{"event":"blocked","method":"POST","url":"https://h.example:443/[redacted]","scanner":"body_dlp","reason":"request body contains secret: AWS Access ID"}"#,
            LogEvent::Blocked {
                host: Some(own("h.example")),
                port: Some(443),
                reason: own("request body contains secret: AWS Access ID"),
                scanner: own("body_dlp"),
                method: own("POST"),
            },
        ),
        (
            r#"{"event":"blocked","method":"CONNECT","target":"[redacted-url]","scanner":"dlp","reason":"DLP match: X (high)"}"#,
            LogEvent::Blocked {
                host: None,
                port: None,
                reason: own("DLP match: X (high)"),
                scanner: own("dlp"),
                method: own("CONNECT"),
            },
        ),
        (
            r#"{"event":"blocked","method":"CONNECT","target":"[::1]:443","scanner":"ssrf","reason":"r"}"#,
            LogEvent::Blocked {
                host: Some(own("::1")),
                port: Some(443),
                reason: own("r"),
                scanner: own("ssrf"),
                method: own("CONNECT"),
            },
        ),
        (
            r#"{"event":"blocked","method":"GET","url":"http://u:p@h.example/x?token=abc","scanner":"allowlist","reason":"r"}"#,
            LogEvent::Blocked {
                host: Some(own("h.example")),
                port: None,
                reason: own("r"),
                scanner: own("allowlist"),
                method: own("GET"),
            },
        ),
        (r#"{"event":"tunnel_open","target":"g.example:443"}"#, LogEvent::TunnelOpen { target: own("g.example:443") }),
        (
            r#"{"event":"tunnel_close","target":"g.example:443","total_bytes":12,"duration_ms":1.5}"#,
            LogEvent::TunnelClose { target: own("g.example:443"), bytes: 12 },
        ),
        (
            r#"{"event":"anomaly","method":"CONNECT","target":"h.example:443","scanner":"tls_intercept","reason":"TLS MITM interception active","score":0}"#,
            LogEvent::Intercepted { target: own("h.example:443") },
        ),
        (r#"{"event":"anomaly","scanner":"dlp","reason":"x"}"#, LogEvent::Other { event: own("anomaly") }),
        (
            r#"{"event":"forward_http","method":"GET","url":"http://h.example:8080/x","status_code":200,"size_bytes":5,"duration_ms":0.3}"#,
            LogEvent::ForwardHttp { host: Some(own("h.example")), method: own("GET"), status: 200, bytes: 5 },
        ),
        (
            r#"{"event":"config_reload","status":"success","detail":"mode=strict","config_hash":"cd"}"#,
            LogEvent::ConfigReload { status: own("success"), hash: own("cd") },
        ),
        (
            r#"{"level":"error","event":"error","method":"CONFIG_RELOAD","resource":"/etc/pipelock/pipelock.yaml","error":"rejected: security downgrade from strict mode"}"#,
            LogEvent::ReloadRefused { reason: own("rejected: security downgrade from strict mode") },
        ),
        ("pipelock: config reload failed: parsing: x", LogEvent::ReloadRefused { reason: own("parsing: x") }),
        (
            r#"{"event":"error","method":"close","error":"use of closed network connection"}"#,
            LogEvent::Error { method: own("close"), error: own("use of closed network connection") },
        ),
        (
            r#"{"level":"warn","component":"pipelock","event":"header_dlp","method":"CONNECT","target":"h.example:443","header":"Authorization","action":"block","patterns":["GitHub Token","JWT Token"],"mitre_technique":"T1048"}"#,
            LogEvent::Blocked {
                host: Some(own("h.example")),
                port: Some(443),
                reason: own("request header contains secret: GitHub Token, JWT Token"),
                scanner: own("header_dlp"),
                method: own("CONNECT"),
            },
        ),
        (
            r#"{"event":"body_dlp","method":"POST","url":"http://h.example/p?q=s3cret","action":"block","match_count":1,"patterns":["AWS Access ID"]}"#,
            LogEvent::Blocked {
                host: Some(own("h.example")),
                port: None,
                reason: own("request body contains secret: AWS Access ID"),
                scanner: own("body_dlp"),
                method: own("POST"),
            },
        ),
        (
            r#"{"event":"body_dlp","method":"POST","url":"http://h.example/","action":"warn","patterns":["X"]}"#,
            LogEvent::Other { event: own("body_dlp") },
        ),
        (r#"{"event":"shutdown","reason":"signal"}"#, LogEvent::Shutdown),
        (
            r#"{"event":"dlp_warn","pattern":"JWT Token","url":"https://h/?t=secret"}"#,
            LogEvent::Other { event: own("dlp_warn") },
        ),
    ] {
        assert_eq!(LogEvent::parse(line), Some(expected), "{line}");
    }
}

#[test]
fn what_is_no_event_is_nothing() {
    for line in ["", "WARNING: fetch_proxy.listen: x", "{", "{}", "[]", "{\"event\":1}", "{\"event\":\"error\"", "null"]
    {
        assert_eq!(LogEvent::parse(line), None, "{line}");
    }
    assert_eq!(LogEvent::parse(&"a".repeat(LINE_BYTES_MAX)), None);
    assert_eq!(LogEvent::parse(&"{".repeat(LINE_BYTES_MAX)), None);
    assert_eq!(LogEvent::parse(&format!("{{\"event\":\"x\",\"deep\":{}", "[".repeat(60_000))), None);
}

#[test]
fn text_of_the_agents_is_cut_and_cannot_move_a_cursor() {
    let line = format!(
        r#"{{"event":"blocked","method":"X","target":"{}:443","scanner":"allowlist","reason":"\u001b[2J\u202e{}"}}"#,
        "h".repeat(3000),
        "r".repeat(3000)
    );
    let Some(LogEvent::Blocked { host: Some(host), reason, .. }) = LogEvent::parse(&line) else { panic!() };
    assert_eq!((host.chars().count(), reason.chars().count()), (HOST_CHARS_MAX, TEXT_CHARS_MAX));
    assert!(reason.starts_with("\u{fffd}[2J\u{fffd}r"), "{reason}");
}

#[test]
fn a_refusal_is_counted_however_long_its_line_is() {
    let whole = |method: &str, url: &str| {
        let secret = "s3cret".repeat(60_000);
        format!(
            r#"{{"level":"warn","component":"pipelock","event":"blocked","method":"{method}","url":"{url}{secret}","scanner":"core_dlp","reason":"r"}}"#
        )
    };
    let place = |event: Option<LogEvent>| match event {
        Some(LogEvent::Blocked { host, port, reason, .. }) if reason == REASON_TOO_LONG => (host, port),
        other => panic!("{other:?}"),
    };
    let named = (Some("h.example".to_owned()), Some(8080));
    let (long, odd) = ("M".repeat(3000), "\\u0000".repeat(500));
    for (method, url, expected) in [
        ("GET", "http://h.example:8080/", &named),
        ("GET", "http://u:p@h.example:8080?", &named),
        ("GET", &format!("http://h.example:8080/{odd}"), &named),
        ("GET", &format!("http://h.example:8080/a{odd}"), &named),
        (&long, "http://h.example:8080/", &(None, None)),
    ] {
        let line = whole(method, url);
        for cut in [line.len(), LINE_BYTES_MAX, LINE_BYTES_MAX + 1] {
            let event = LogEvent::parse(&line[..cut]);
            assert!(!format!("{event:?}").contains("s3cret"));
            assert_eq!(&place(event), expected, "{method} {url} {cut}");
        }
    }
    // Wherever the cut falls: between two fields as well.
    for pad in 1900..2100 {
        let line = format!(r#"{{"event":"blocked","method":"{}","target":"{}"}}"#, "M".repeat(pad), "h".repeat(70_000));
        let event = LogEvent::parse(&line);
        assert!(matches!(event, Some(LogEvent::Blocked { .. })), "{pad}: {event:?}");
    }
    for event in ["header_dlp", "body_dlp"] {
        let line = whole("POST", "http://h.example:8080/").replace("blocked", event);
        assert_eq!(place(LogEvent::parse(&line)), named);
    }
    let other = whole("GET", "http://h.example/").replace("blocked", "dlp_warn");
    assert_eq!(LogEvent::parse(&other), Some(LogEvent::Other { event: "dlp_warn".to_owned() }));
    let told = format!(r#"{{"event":"error","method":"\"event\":\"blocked\"{}","error":"x"}}"#, "x".repeat(70_000));
    assert!(!matches!(LogEvent::parse(&told), Some(LogEvent::Blocked { .. })));
}

#[test]
fn of_a_url_only_the_host_is_kept() {
    for line in [
        r#"{"event":"blocked","method":"GET","url":"http://u:s3cret@h.example/s3cret?s3cret#s3cret","scanner":"core_dlp","reason":"r"}"#,
        r#"{"event":"blocked","method":"GET","url":"http://h.example/","scanner":"x","reason":"redirect to https://s3cret@h.example:8/s3cret refused, http://h.example?s3cret too"}"#,
        r#"{"event":"blocked","method":"CONNECT","target":"h.example:443/s3cret","scanner":"x","reason":"r"}"#,
        r#"{"event":"header_dlp","action":"block","method":"GET","url":"http://h.example/s3cret","header":"X-S3cret","patterns":["P"]}"#,
        r#"{"event":"forward_http","method":"GET","url":"http://h.example/s3cret","status_code":200}"#,
        r#"{"event":"error","method":"GET","url":"http://h.example/s3cret","error":"Get \"http://h.example/s3cret\": dial tcp: timeout"}"#,
        r#"{"event":"dlp_warn","pattern":"JWT Token","url":"https://h.example/?t=s3cret"}"#,
    ] {
        let event = LogEvent::parse(line);
        assert!(event.is_some() && !format!("{event:?}").to_lowercase().contains("s3cret"), "{event:?}");
    }
    let line = r#"{"event":"error","method":"GET","error":"Get \"http://h.example/x\": dial tcp: timeout"}"#;
    let error = "Get \"http://h.example/[redacted]\": dial tcp: timeout".to_owned();
    assert_eq!(LogEvent::parse(line), Some(LogEvent::Error { method: "GET".into(), error }));
}

proptest! {
    #[test]
    fn no_line_panics(line in any::<String>(), target in "[\\[\\]:@/a-z0-9.]{0,40}", url in "[:/@?#a-z0-9\\[\\]]{0,40}") {
        let _ = LogEvent::parse(&line);
        let blocked = serde_json::json!({"event": "blocked", "target": target, "url": url, "reason": url}).to_string();
        let _ = LogEvent::parse(&blocked);
        let _ = LogEvent::parse(&format!("{blocked}{}", "\u{e4}".repeat(LINE_BYTES_MAX)));
        let _ = LogEvent::parse(&format!("{{{line}{}", "\u{e4}".repeat(LINE_BYTES_MAX)));
    }
}
