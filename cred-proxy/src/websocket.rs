//! The one upgrade that passes: WebSocket (RFC 6455). PURE: what a handshake must be on either side.
//!
//! After it nobody looks at permissions any more, so nothing else may get that far: a reply of 101 that is no answer to the
//! handshake (an upstream whose status somebody can choose) is refused like any other upgrade.

use crate::inject::names_secret;
use crate::refuse::Refusal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};

/// What RFC 6455, 1.3 has appended to a key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Another protocol that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// None.
    None,
    /// WebSocket.
    WebSocket,
}

/// What a request asks for. Clients offer h2c unasked; ignoring an offer is as good as an answer (RFC 9110, 7.8), and the
/// header does not pass.
pub fn asked(method: &Method, version: Version, headers: &HeaderMap) -> Result<Upgrade, Refusal> {
    let offers: Vec<&[u8]> = elements(headers, &header::UPGRADE).collect();
    if offers.iter().all(|offer| offer.eq_ignore_ascii_case(b"h2c")) {
        return Ok(Upgrade::None);
    }
    let is_websocket = matches!(offers[..], [offer] if offer.eq_ignore_ascii_case(b"websocket"))
        && headers.get_all(header::UPGRADE).iter().count() == 1;
    if !is_websocket {
        return Err(Refusal::Upgrade);
    }
    let one = |name: HeaderName| {
        let mut values = headers.get_all(name).into_iter();
        values.next().filter(|_| values.next().is_none()).map(HeaderValue::as_bytes)
    };
    let key = one(header::SEC_WEBSOCKET_KEY).and_then(|key| STANDARD.decode(key).ok());
    let is_handshake = *method == Method::GET
        && version == Version::HTTP_11
        && elements(headers, &header::CONNECTION).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
        && one(header::SEC_WEBSOCKET_VERSION) == Some(b"13")
        && key.is_some_and(|key| key.len() == 16)
        && !headers.contains_key(header::CONTENT_LENGTH)
        && !headers.contains_key(header::TRANSFER_ENCODING);
    if is_handshake { Ok(Upgrade::WebSocket) } else { Err(Refusal::Handshake) }
}

/// Makes headers for the upstream a handshake. Where a credential goes along, extensions are not offered: compressed
/// frames could not be masked. Subprotocols that carry a credential of the agent's own do not pass, as some APIs take them.
pub fn request_headers(headers: &mut HeaderMap, is_masked: bool) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if is_masked {
        headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
    }
    let offered = elements(headers, &header::SEC_WEBSOCKET_PROTOCOL);
    let passing: Vec<&[u8]> = offered.filter(|protocol| !is_credential(protocol)).collect();
    let passing = HeaderValue::from_bytes(&passing.join(&b", "[..])).ok().filter(|value| !value.is_empty());
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    passing.and_then(|value| headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value));
}

/// `openai-insecure-api-key.<key>`, `base64url.bearer.authorization.k8s.io.<token>` and their like.
fn is_credential(protocol: &[u8]) -> bool {
    let lower = protocol.to_ascii_lowercase();
    std::str::from_utf8(&lower)
        .map_or(true, |name| name.contains("bearer") || name.contains("token") || names_secret(name))
}

/// Is a reply of 101 the answer to the handshake with these headers?
pub fn is_answer(asked: &HeaderMap, answered: &HeaderMap) -> bool {
    let Some(key) = asked.get(header::SEC_WEBSOCKET_KEY) else { return false };
    let accept = answered.get_all(header::SEC_WEBSOCKET_ACCEPT).into_iter().map(HeaderValue::as_bytes);
    let upgrades: Vec<&[u8]> = elements(answered, &header::UPGRADE).collect();
    let is_offered = |name| answered.get(&name).is_none() || asked.contains_key(&name);
    accept.eq([accept_of(key.as_bytes()).as_bytes()])
        && matches!(upgrades[..], [upgrade] if upgrade.eq_ignore_ascii_case(b"websocket"))
        && is_offered(header::SEC_WEBSOCKET_EXTENSIONS)
        && is_offered(header::SEC_WEBSOCKET_PROTOCOL)
}

fn accept_of(key: &[u8]) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(GUID);
    STANDARD.encode(context.finish())
}

/// The headers of this hop that belong to the answer.
pub fn reply_headers(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(name).into_iter();
    values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455, 1.3.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn map(headers: &[(&'static str, &str)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn handshake() -> HeaderMap {
        map(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", KEY),
            ("sec-websocket-version", "13"),
        ])
    }

    #[test]
    fn handshakes_and_their_refused_neighbours() {
        let ask = |headers: &HeaderMap| asked(&Method::GET, Version::HTTP_11, headers);
        assert_eq!(ask(&handshake()), Ok(Upgrade::WebSocket));
        assert_eq!(ask(&HeaderMap::new()), Ok(Upgrade::None));
        assert_eq!(ask(&map(&[("upgrade", "h2c")])), Ok(Upgrade::None));
        assert_eq!(asked(&Method::POST, Version::HTTP_11, &handshake()), Err(Refusal::Handshake));
        assert_eq!(asked(&Method::GET, Version::HTTP_10, &handshake()), Err(Refusal::Handshake));
        for (name, value, wanted) in [
            ("upgrade", "WebSocket", Ok(Upgrade::WebSocket)),
            ("upgrade", "websocket, h2c", Err(Refusal::Upgrade)),
            ("upgrade", "h2c, websocket", Err(Refusal::Upgrade)),
            ("upgrade", "tls/1.2", Err(Refusal::Upgrade)),
            ("upgrade", "", Err(Refusal::Upgrade)),
            ("connection", "close", Err(Refusal::Handshake)),
            ("sec-websocket-version", "12", Err(Refusal::Handshake)),
            ("sec-websocket-version", "13, 8", Err(Refusal::Handshake)),
            ("sec-websocket-key", "dGhlIHNhbXBsZQ==", Err(Refusal::Handshake)),
            ("sec-websocket-key", "not base64", Err(Refusal::Handshake)),
            ("content-length", "0", Err(Refusal::Handshake)),
            ("transfer-encoding", "chunked", Err(Refusal::Handshake)),
        ] {
            let mut headers = handshake();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(ask(&headers), wanted, "{name}: {value}");
        }
        for name in ["connection", "sec-websocket-key", "sec-websocket-version"] {
            let mut headers = handshake();
            headers.remove(name);
            assert_eq!(ask(&headers), Err(Refusal::Handshake), "without {name}");
            if name != "connection" {
                let mut headers = handshake();
                headers.append(name, headers[name].clone());
                assert_eq!(ask(&headers), Err(Refusal::Handshake), "{name} twice");
            }
        }
        let mut twice = handshake();
        twice.append("upgrade", "h2c".parse().unwrap());
        assert_eq!(ask(&twice), Err(Refusal::Upgrade));
    }

    #[test]
    fn an_answer_and_what_only_looks_like_one() {
        let good = [("upgrade", "websocket"), ("sec-websocket-accept", ACCEPT)];
        assert!(is_answer(&handshake(), &map(&good)));
        for (name, value) in [
            ("upgrade", "h2c"),
            ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOp="),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("sec-websocket-protocol", "chat"),
        ] {
            let mut answer = map(&good);
            answer.insert(name, value.parse().unwrap());
            assert!(!is_answer(&handshake(), &answer), "{name}: {value}");
        }
        let mut asked = handshake();
        asked.insert("sec-websocket-protocol", "chat".parse().unwrap());
        let mut answer = map(&good);
        answer.insert("sec-websocket-protocol", "chat".parse().unwrap());
        assert!(is_answer(&asked, &answer));
        assert!(!is_answer(&handshake(), &map(&good[..1])));
    }

    #[test]
    fn what_goes_to_the_upstream() {
        for (is_masked, extensions) in [(true, None), (false, Some("permessage-deflate"))] {
            let mut headers = map(&[
                ("sec-websocket-extensions", "permessage-deflate"),
                ("sec-websocket-protocol", "realtime, openai-insecure-api-key.sk-1"),
                ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.abc, v2"),
            ]);
            request_headers(&mut headers, is_masked);
            let seen = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
            assert_eq!(seen("sec-websocket-extensions"), extensions);
            assert_eq!(seen("sec-websocket-protocol"), Some("realtime, v2"));
            assert_eq!((seen("connection"), seen("upgrade")), (Some("Upgrade"), Some("websocket")));
        }
        let mut headers = map(&[("sec-websocket-protocol", "my-token.abc")]);
        request_headers(&mut headers, true);
        assert!(!headers.contains_key("sec-websocket-protocol"));
    }
}
