//! The one reading of a request's path. PURE.
//!
//! A path that a proxy and an upstream can read in two ways is a way around every permission, so it is refused instead
//! of being repaired: what [`normalise`] returns has one reading. It must never let through what it does not understand.

use std::fmt::Write as _;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// `.` or `..`, in any encoding.
    #[error("the path has a dot segment")]
    DotSegment,
    /// `//`.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `%2f` (but see [`normalise`]).
    #[error("the path has an encoded slash")]
    EncodedSlash,
    /// `\` or `%5c`.
    #[error("the path has a backslash")]
    Backslash,
    /// `;`, which some upstreams cut off and others do not.
    #[error("the path has parameters")]
    Parameters,
    /// A control character, raw or encoded.
    #[error("the path has a control character")]
    Control,
    /// `%25` before two hex digits: it would mean something else after a second decoding.
    #[error("the path is encoded twice")]
    TwiceEncoded,
    /// `%` without two hex digits.
    #[error("the path has a broken percent-encoding")]
    BrokenEncoding,
    /// A byte that RFC 3986 does not allow in a path.
    #[error("the path has a character that must be encoded")]
    NotEncoded,
}

/// Decodes what needs no encoding (RFC 3986, 6.2.2.2), writes the other escapes in upper case, and refuses whatever an
/// upstream could read in another way. One encoded slash is let through, as npm writes it: `/@scope%2fname`; whoever
/// asks about permission must then ask for both readings.
pub fn normalise(path: &str) -> Result<String, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    let decoded = decode_unreserved(path)?;
    let mut segments = decoded.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => return Err(PathError::DotSegment),
            "" if segments.peek().is_some() => return Err(PathError::EmptySegment),
            _ if segment.contains("%2F") && !is_npm_scoped(segment) => return Err(PathError::EncodedSlash),
            _ => {}
        }
    }
    Ok(decoded)
}

/// Every escape decoded, again and again until nothing changes, in lower case: for finding a word however it is hidden.
pub fn unmasked_lower(text: &[u8]) -> Vec<u8> {
    let mut text = text.to_ascii_lowercase();
    // Each round shortens the text, so it ends; the limit keeps a long chain of %2525.. from costing a round each.
    for _ in 0..16 {
        let decoded = decode_all(&text).to_ascii_lowercase();
        if decoded == text {
            break;
        }
        text = decoded;
    }
    text
}

fn decode_unreserved(path: &str) -> Result<String, PathError> {
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(path.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let value = escape_at(bytes, at).ok_or(PathError::BrokenEncoding)?;
                match value {
                    0x00..=0x1f | 0x7f => return Err(PathError::Control),
                    b'\\' => return Err(PathError::Backslash),
                    _ if is_unreserved(value) => out.push(char::from(value)),
                    _ => write!(out, "%{value:02X}").expect("writing to a String cannot fail"),
                }
                at += 3;
                continue;
            }
            b'\\' => return Err(PathError::Backslash),
            b';' => return Err(PathError::Parameters),
            0x00..=0x1f | 0x7f => return Err(PathError::Control),
            _ if is_unreserved(byte) || b"/!$&'()*+,=:@".contains(&byte) => out.push(char::from(byte)),
            _ => return Err(PathError::NotEncoded),
        }
        at += 1;
    }
    // Looked for in what goes on: of the digits behind a `%25`, each may itself have been encoded.
    let is_twice =
        |escape: &[u8]| matches!(escape, [b'%', b'2', b'5', digits @ ..] if digits.iter().all(u8::is_ascii_hexdigit));
    if out.as_bytes().windows(5).any(is_twice) { Err(PathError::TwiceEncoded) } else { Ok(out) }
}

fn decode_all(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (byte, escape_at(text, at)) {
            (b'%', Some(value)) => {
                out.push(value);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

fn escape_at(bytes: &[u8], at: usize) -> Option<u8> {
    let high = char::from(*bytes.get(at + 1)?).to_digit(16)?;
    let low = char::from(*bytes.get(at + 2)?).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// `@scope%2Fname`: one encoded slash, and neither half can be a dot segment.
fn is_npm_scoped(segment: &str) -> bool {
    let name = |part: &str| part.bytes().next().is_some_and(|first| first != b'.') && part.bytes().all(is_unreserved);
    segment
        .strip_prefix('@')
        .and_then(|rest| rest.split_once("%2F"))
        .is_some_and(|(scope, rest)| name(scope) && name(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_reading_or_none() {
        use PathError::{
            BrokenEncoding, Control, DotSegment, EmptySegment, EncodedSlash, NotAbsolute, NotEncoded, Parameters,
            TwiceEncoded,
        };
        let table: &[(&str, Result<&str, PathError>)] = &[
            ("/", Ok("/")),
            ("/a", Ok("/a")),
            ("/a/", Ok("/a/")),
            ("/a/b.c", Ok("/a/b.c")),
            ("/%61", Ok("/a")),
            ("/%7Euser", Ok("/~user")),
            ("/%7euser", Ok("/~user")),
            ("/a%20b", Ok("/a%20b")),
            ("/a%c3%a9", Ok("/a%C3%A9")),
            ("/a%3ab", Ok("/a%3Ab")),
            ("/a:b@c,d=e", Ok("/a:b@c,d=e")),
            ("/...", Ok("/...")),
            ("/.well-known/x", Ok("/.well-known/x")),
            ("/..a", Ok("/..a")),
            ("/a..b/", Ok("/a..b/")),
            ("/100%25", Ok("/100%25")),
            ("/100%25x", Ok("/100%25x")),
            ("/@types%2fnode", Ok("/@types%2Fnode")),
            ("/@types%2Fnode/", Ok("/@types%2Fnode/")),
            ("/@types/node", Ok("/@types/node")),
            ("", Err(NotAbsolute)),
            ("*", Err(NotAbsolute)),
            ("a/b", Err(NotAbsolute)),
            ("/.", Err(DotSegment)),
            ("/..", Err(DotSegment)),
            ("/a/../b", Err(DotSegment)),
            ("/a/./b", Err(DotSegment)),
            ("/a/..", Err(DotSegment)),
            ("/a/%2e%2e/b", Err(DotSegment)),
            ("/a/%2E./b", Err(DotSegment)),
            ("/a/.%2e", Err(DotSegment)),
            ("/%2e", Err(DotSegment)),
            ("//", Err(EmptySegment)),
            ("//a", Err(EmptySegment)),
            ("/a//b", Err(EmptySegment)),
            ("/a//", Err(EmptySegment)),
            ("/a%2fb", Err(EncodedSlash)),
            ("/a%2Fb", Err(EncodedSlash)),
            ("/a%2f..%2fb", Err(EncodedSlash)),
            ("/%2f", Err(EncodedSlash)),
            ("/@a%2f..", Err(EncodedSlash)),
            ("/@a%2fb%2fc", Err(EncodedSlash)),
            ("/@%2fa", Err(EncodedSlash)),
            ("/@a%2f", Err(EncodedSlash)),
            ("/@..%2fa", Err(EncodedSlash)),
            ("/a\\b", Err(PathError::Backslash)),
            ("/a%5cb", Err(PathError::Backslash)),
            ("/a%5Cb", Err(PathError::Backslash)),
            ("/a;b", Err(Parameters)),
            ("/..;/a", Err(Parameters)),
            ("/a%00", Err(Control)),
            ("/a%0d%0a", Err(Control)),
            ("/a%7f", Err(Control)),
            ("/a\u{1}", Err(Control)),
            ("/%252e%252e", Err(TwiceEncoded)),
            ("/%252f", Err(TwiceEncoded)),
            ("/%2525", Err(TwiceEncoded)),
            ("/%252%65", Err(TwiceEncoded)),
            ("/%25%32e", Err(TwiceEncoded)),
            ("/%25%32%65/x", Err(TwiceEncoded)),
            ("/%25%32%3x", Err(BrokenEncoding)),
            ("/%25%32x", Ok("/%252x")),
            ("/%", Err(BrokenEncoding)),
            ("/%2", Err(BrokenEncoding)),
            ("/%zz", Err(BrokenEncoding)),
            ("/%+1", Err(BrokenEncoding)),
            ("/a b", Err(NotEncoded)),
            ("/a\"b", Err(NotEncoded)),
            ("/a|b", Err(NotEncoded)),
            ("/a?b", Err(NotEncoded)),
            ("/a#b", Err(NotEncoded)),
            ("/\u{e9}", Err(NotEncoded)),
        ];
        for (path, wanted) in table {
            assert_eq!(normalise(path).as_deref(), wanted.as_ref().map(|path| *path), "{path}");
        }
    }

    #[test]
    fn normal_form_is_a_fixed_point() {
        for path in ["/a", "/%61%20/", "/@a%2fb", "/100%25", "/%c3%a9"] {
            let once = normalise(path).unwrap();
            assert_eq!(normalise(&once).as_ref(), Ok(&once));
        }
    }

    #[test]
    fn a_word_is_found_however_often_it_is_encoded() {
        for hidden in [
            "git-receive-pack",
            "GIT-Receive-pack",
            "git%2dreceive-pack",
            "%67it%252Dreceive-pack",
            "git%25252dreceive-pack",
        ] {
            assert_eq!(unmasked_lower(hidden.as_bytes()), b"git-receive-pack", "{hidden}");
        }
        assert_eq!(unmasked_lower(b"git-upload-pack"), b"git-upload-pack");
        assert_eq!(unmasked_lower(b"100%"), b"100%");
    }
}
