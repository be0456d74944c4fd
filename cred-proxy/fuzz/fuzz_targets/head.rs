//! A request's head from its bytes to those for the upstream, as the sidecar reads and writes it: framing, the library's
//! parser, decide, inject, outgoing.
#![no_main]

use cred_proxy::Secret;
use cred_proxy::config::{Auth, Config, Route};
use cred_proxy::decide::{Decision, Head, decide};
use cred_proxy::framing::Framing;
use cred_proxy::inject::{names_credential, request_headers};
use cred_proxy::outgoing::Outgoing;
use cred_proxy::path::{normalise, unmasked_lower};
use cred_proxy::table::Table;
use cred_proxy::websocket::Upgrade;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::sync::LazyLock;

const HEAD_BYTES_MAX: usize = 4096;

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let route = |path: &str, auth: Auth| Route {
        path: path.to_owned(),
        upstream: "https://upstream.example/base".to_owned(),
        secret: (auth != Auth::None).then(|| "key".to_owned()),
        auth,
        inspected: false,
        allow: vec!["* /**".to_owned()],
    };
    let routes = vec![route("/a/", Auth::Bearer), route("/a/b/", Auth::Header("x-odd".to_owned())), route("/", Auth::None)];
    let config = Config { routes, ..Config::closed(([127, 0, 0, 1], 0).into()) };
    let secrets = BTreeMap::from([("key".to_owned(), Secret::new("s3cr3t-t0ken".to_owned()))]);
    Table::parse(&config, &secrets).expect("it is a table")
});

fuzz_target!(|data: &[u8]| {
    let Some((step, bytes)) = data.split_first() else { return };
    let read = |framing: &mut Framing, bytes: &[u8]| framing.read(bytes).map_err(|(_, doubt)| doubt);
    let mut whole = Framing::new(HEAD_BYTES_MAX);
    let at_once = read(&mut whole, bytes);
    let (mut cut, mut total) = (Framing::new(HEAD_BYTES_MAX), 0);
    let mut in_pieces = Ok(0);
    for chunk in bytes.chunks(usize::from(step % 16) + 1) {
        in_pieces = read(&mut cut, chunk);
        match in_pieces {
            Ok(read) => total += read,
            Err(_) => break,
        }
    }
    assert_eq!(in_pieces.map(|_| total), at_once);
    if at_once.is_err() {
        return;
    }
    let mut space = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Request::new(&mut space);
    let Ok(httparse::Status::Complete(_)) = parsed.parse(bytes) else { return };
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else { return };
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method.as_bytes()), target.parse::<Uri>()) else { return };
    let mut headers = HeaderMap::new();
    for header in parsed.headers.iter() {
        // The library has both checked already.
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(header.name.as_bytes()), HeaderValue::from_bytes(header.value))
        else {
            return;
        };
        headers.append(name, value);
    }
    let lengths = headers.get_all("content-length").iter().count();
    let codings = headers.get_all("transfer-encoding").iter().count();
    assert!(lengths + codings <= 1, "two framings passed");
    let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let head = Head { method: &method, uri: &uri, version, headers: &headers };
    let Decision::Forward { route, target, upgrade } = decide(&TABLE, head) else { return };
    let route = &TABLE.routes[route];
    assert_eq!(headers.get_all("host").iter().count(), 1);
    assert!(target.starts_with("/base/"), "{target}");
    let path = target.split('?').next().unwrap_or_default();
    assert_eq!(normalise(path).as_deref(), Ok(path));
    let decoded = unmasked_lower(target.as_bytes());
    assert!(!decoded.windows(16).any(|word| word == b"git-receive-pack"), "{target}");
    let sent = request_headers(&TABLE, route, &headers, upgrade);
    assert_eq!(sent["host"], "upstream.example");
    for (name, value) in &sent {
        let is_own = route.credential.as_ref().is_some_and(|credential| credential.header == *name);
        assert!(is_own || !names_credential(name), "{name}");
        assert!(is_own == (value.as_bytes().ends_with(b"s3cr3t-t0ken") && is_own), "{name}");
    }
    for name in ["content-length", "transfer-encoding", "cookie", "proxy-authorization"] {
        assert!(!sent.contains_key(name), "{name}");
    }
    // What is written is read as just that, by another reader.
    let outgoing = Outgoing { table: &TABLE, route, method: &method, target: &target, headers: &headers, upgrade };
    for whole_url in [false, true] {
        let mut written = Vec::new();
        outgoing.write(whole_url, &mut written);
        written.extend_from_slice(b"\r\n");
        let mut space = [httparse::EMPTY_HEADER; 110];
        let mut parsed = httparse::Request::new(&mut space);
        assert_eq!(parsed.parse(&written), Ok(httparse::Status::Complete(written.len())));
        let url = if whole_url { format!("https://upstream.example{target}") } else { target.clone() };
        assert_eq!((parsed.method, parsed.path, parsed.version), (Some(method.as_str()), Some(url.as_str()), Some(1)));
        if upgrade == Upgrade::None {
            let fields = parsed.headers.iter().map(|field| (field.name, field.value));
            assert!(fields.eq(sent.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))));
        }
    }
});
