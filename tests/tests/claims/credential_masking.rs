//! A reply that gives the injected credential back, in any form, place and cut: the agent never sees it, and sees the
//! rest of the reply as it was.

use super::doors::{Fetched, Lease, ROUTES, fetch, python, send, status};
use super::ground::tag;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// What of every form of a credential depends on it alone, so that whoever reads it reads the credential.
fn forms(secret: &str) -> Vec<(String, String)> {
    let each = |write: fn(u8) -> String| secret.bytes().map(write).collect::<String>();
    let json = serde_json::Value::from(secret).to_string();
    let json = json[1..json.len() - 1].to_owned();
    let mut forms = vec![
        ("plain".to_owned(), secret.to_owned()),
        ("hex".to_owned(), each(|b| format!("{b:02x}"))),
        ("upper hex".to_owned(), each(|b| format!("{b:02X}"))),
        ("percent".to_owned(), each(|b| format!("%{b:02X}"))),
        ("urlencoded".to_owned(), each(urlencoded)),
        ("json with slashes".to_owned(), json.replace('/', "\\/")),
        ("json".to_owned(), json),
    ];
    for before in 0..3_usize {
        let padded = [&vec![0; before][..], secret.as_bytes()].concat();
        let (from, to) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        forms.push((format!("base64 at {before}"), STANDARD_NO_PAD.encode(&padded)[from..to].to_owned()));
        forms.push((format!("base64url at {before}"), URL_SAFE_NO_PAD.encode(&padded)[from..to].to_owned()));
    }
    forms
}

fn urlencoded(byte: u8) -> String {
    let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
}

#[track_caller]
fn assert_masked(text: &str, secret: &str, what: &str) {
    for (form, written) in forms(secret) {
        assert!(!text.contains(&written), "{what} gives the credential as {form}: {text}");
    }
    // A password alone is as good as with its user.
    if let Some((_, password)) = secret.split_once(':') {
        assert_masked(text, password, what);
    }
}

/// Fetches, and checks that the credential of the route is in none of it.
#[track_caller]
fn masked(doors: &Lease, route: &str, paths: &[String]) -> Vec<Fetched> {
    let paths: Vec<String> = paths.iter().map(|path| format!("/{route}/v1/{path}")).collect();
    let all = fetch(&doors.one, &paths);
    for (path, got) in paths.iter().zip(&all) {
        assert_masked(&got.text(), doors.secret(route), path);
    }
    all
}

const FORMS: [&str; 11] = [
    "plain",
    "base64",
    "base64-1",
    "base64-2",
    "base64url",
    "hex",
    "upper-hex",
    "percent",
    "urlencoded",
    "json",
    "json-slashes",
];

#[test]
fn every_form_of_every_scheme_is_masked_in_a_body_and_the_rest_is_not() {
    let Some(doors) = Lease::take() else { return };
    for route in ROUTES {
        let got = masked(&doors, route, &["echo".to_owned()]).remove(0);
        assert_eq!((got.status, got.whole), (200, true), "{route}: {got:?}");
        assert!(got.body.starts_with("before plain=") && got.body.ends_with(" after\n"), "{route}: {}", got.body);
        assert!(FORMS.iter().all(|form| got.body.contains(&format!("{form}="))), "{route}: {}", got.body);
    }
}

#[test]
fn a_credential_in_a_header_is_masked() {
    let Some(doors) = Lease::take() else { return };
    for route in ROUTES {
        let paths: Vec<String> = FORMS.iter().map(|form| format!("echo?where=header&form={form}")).collect();
        for got in masked(&doors, route, &paths) {
            assert_eq!((got.status, got.header("x-world")), (200, vec!["wire"]), "{got:?}");
            assert_eq!(got.header("x-echo").len(), 2, "the headers themselves come: {got:?}");
        }
    }
}

#[test]
fn a_credential_in_a_trailer_is_masked() {
    let Some(doors) = Lease::take() else { return };
    let ask = |form: &&str| {
        format!(
            "GET /wire/v1/echo?where=trailer&form={form} HTTP/1.1\r\nHost: cred-proxy:9099\r\nTE: trailers\r\n\
             Connection: close, TE\r\n\r\n"
        )
    };
    for reply in send(&doors.one, &FORMS.iter().map(ask).collect::<Vec<_>>()) {
        assert_eq!(status(&reply), 200, "{reply}");
        assert_masked(&reply, doors.secret("wire"), "a trailer");
        assert!(reply.contains("nothing here\n"), "{reply}");
    }
}

#[test]
fn a_credential_that_is_cut_into_pieces_is_masked() {
    let Some(doors) = Lease::take() else { return };
    let mut paths = Vec::new();
    for form in FORMS {
        paths.extend([1, 2, 7].map(|piece| format!("echo?form={form}&piece={piece}")));
        paths.push(format!("echo?form={form}&piece=3&framing=length"));
        paths.push(format!("echo?form={form}&framing=close"));
    }
    for route in ["wire", "key"] {
        for got in masked(&doors, route, &paths) {
            assert_eq!((got.status, got.whole), (200, true), "{got:?}");
            assert!(got.body.starts_with("before ") && got.body.ends_with(" after\n"), "{got:?}");
        }
    }
}

#[test]
fn a_reply_that_is_encoded_all_the_same_is_decoded_and_masked() {
    let Some(doors) = Lease::take() else { return };
    let coded = |coding: &str, form: &str| format!("echo?form={form}&encoding={coding}");
    let mut paths = Vec::new();
    for coding in ["gzip", "br", "deflate"] {
        paths.extend(["plain", "base64-1", "hex"].map(|form| coded(coding, form)));
        paths.push(format!("{}&piece=5", coded(coding, "plain")));
    }
    for got in masked(&doors, "wire", &paths) {
        assert_eq!((got.status, got.header("content-encoding").len()), (200, 0), "{got:?}");
        assert_eq!(got.body.matches("before ").count(), 20, "{got:?}");
    }
    // One that nobody knows cannot be looked into.
    for got in masked(&doors, "wire", &[coded("unknown", "plain"), format!("{}&code=500", coded("unknown", "plain"))]) {
        assert_eq!(got.status, 502, "{got:?}");
    }
}

#[test]
fn an_error_page_and_its_reason_are_masked() {
    let Some(doors) = Lease::take() else { return };
    let paths: Vec<String> = [400, 401, 403, 404, 429, 500, 503]
        .iter()
        .flat_map(|code| [format!("echo?form=plain&code={code}"), format!("echo?where=status&form=plain&code={code}")])
        .collect();
    for route in ROUTES {
        for (path, got) in paths.iter().zip(masked(&doors, route, &paths)) {
            assert!(path.ends_with(&format!("code={}", got.status)), "the status itself passes: {path} gave {got:?}");
        }
    }
}

#[test]
fn a_redirect_is_masked_never_followed_and_comes_back_usable() {
    let Some(doors) = Lease::take() else { return };
    for code in [301, 302, 303, 307, 308] {
        let path = tag("redirect");
        let asked = format!("echo?where=location&form=plain&code={code}&tag={path}");
        let got = masked(&doors, "wire", &[asked]).remove(0);
        assert_eq!(got.status, code, "{got:?}");
        let location = got.header("location").first().copied().unwrap_or_default().to_owned();
        let inside = location.strip_prefix("http://cred-proxy:9099").unwrap_or(&location);
        assert!(inside.starts_with("/wire/v1/next?key="), "it leads through the route again: {location}");
        assert_eq!(doors.seen_with("api", &path).len(), 1, "it was not followed");
        assert_eq!(doors.seen_with("api", "/v1/next").len(), 0);
    }
}

#[test]
fn cookies_and_early_hints_bring_nothing() {
    let Some(doors) = Lease::take() else { return };
    for got in masked(&doors, "wire", &FORMS.map(|form| format!("echo?where=cookie&form={form}"))) {
        assert_eq!((got.status, got.header("set-cookie").len()), (200, 0), "a cookie is a credential: {got:?}");
    }
    let ask = |form: &&str| {
        format!(
            "GET /wire/v1/echo?where=early&form={form} HTTP/1.1\r\nHost: cred-proxy:9099\r\nConnection: close\r\n\r\n"
        )
    };
    for reply in send(&doors.one, &FORMS.iter().map(ask).collect::<Vec<_>>()) {
        assert_masked(&reply, doors.secret("wire"), "an early hint");
        assert!(reply.contains("HTTP/1.1 200"), "{reply}");
    }
}

#[test]
fn the_agent_cannot_have_a_reply_cut_or_encoded() {
    let Some(doors) = Lease::take() else { return };
    let path = tag("cut");
    let heads = ["Range: bytes=7-20", "range: bytes=0-0", "If-Range: \"x\"", "Accept-Encoding: gzip, br", "TE: gzip"];
    let ask = |head: &&str| {
        format!(
            "GET /wire/v1/echo?form=plain&tag={path} HTTP/1.1\r\nHost: cred-proxy:9099\r\n{head}\r\nX-Harmless: yes\r\n\
             Connection: close\r\n\r\n"
        )
    };
    for reply in send(&doors.one, &heads.iter().map(ask).collect::<Vec<_>>()) {
        assert_eq!(status(&reply), 200, "{reply}");
        assert_masked(&reply, doors.secret("wire"), "a reply");
    }
    let seen = doors.seen_with("api", &path);
    assert_eq!(seen.len(), heads.len(), "{seen:#?}");
    for evidence in seen {
        assert!(evidence.contains("x-harmless"), "{evidence:?}");
        for cut in ["bytes=", "if-range", "gzip"] {
            assert!(!evidence.contains(cut), "{cut} arrived: {evidence:?}");
        }
    }
}

/// Opens a WebSocket at each of these targets and prints, as JSON, its head, the first text (whatever its frames), the ping
/// behind it, and what comes back of a text of its own.
const WEBSOCKET: &str = r#"
import base64, json, os, socket, struct, sys
for target in sys.argv[1:]:
    s = socket.create_connection(("cred-proxy", 9099), 20); s.settimeout(20)
    key = base64.b64encode(os.urandom(16)).decode()
    s.sendall(("GET %s HTTP/1.1\r\nHost: cred-proxy:9099\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
               "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n" % (target, key)).encode())
    f = s.makefile("rb")
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = f.readline()
        if not line: break
        head += line
    def message():
        data = b""
        while True:
            first, length = f.read(2)
            if length == 126: length, = struct.unpack("!H", f.read(2))
            data += f.read(length)
            if first & 0x80: return data.decode()
    text, ping = message(), message()
    own = b"a text of the agent's own"
    s.sendall(bytes([0x81, 0x80 | len(own)]) + bytes(4) + own)
    print(json.dumps([head.decode(), text, ping, message()]), flush=True)
    s.close()
"#;

#[test]
fn a_credential_in_a_websocket_is_masked_however_its_message_is_cut() {
    let Some(doors) = Lease::take() else { return };
    for route in ["wire", "key"] {
        let secret = doors.secret(route);
        let target = |form: &str, piece: u32| format!("/{route}/v1/ws?form={form}&piece={piece}");
        let targets: Vec<String> = FORMS.iter().flat_map(|form| [0, 1, 7].map(|piece| target(form, piece))).collect();
        let output = python(&doors.one, WEBSOCKET, &targets.iter().map(String::as_str).collect::<Vec<_>>());
        let said: Vec<[String; 4]> =
            output.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect();
        assert_eq!(said.len(), targets.len(), "{output:#?}");
        for (target, [head, text, ping, own]) in targets.iter().zip(&said) {
            assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("x-echo: "), "{target}: {head}");
            for seen in [head, text, ping] {
                assert_masked(seen, secret, target);
            }
            // What stands around it is as it was, and so is a message that has nothing of it.
            assert!(text.starts_with("before ") && text.ends_with(" after") && text.len() > 20, "{target}: {text}");
            assert!(!ping.is_empty() && own == "a text of the agent's own", "{target}: {ping} {own}");
        }
    }
}
