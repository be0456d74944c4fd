//! The forms in which a careless upstream gives a credential back, and the encodings of its replies. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use std::io::Write as _;

/// One way of writing a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Plain,
    /// Base64 with so many bytes before it: it looks different at each of three offsets.
    Base64(usize),
    /// Base64 for URLs.
    Base64Url,
    /// Two hex digits a byte.
    Hex,
    /// The same in upper case.
    UpperHex,
    /// Every byte as `%XX`.
    Percent,
    /// Only what a URL cannot hold as `%XX`.
    UrlEncoded,
    /// As the inside of a JSON string.
    Json,
    /// The same, with slashes escaped.
    JsonSlashes,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Plain,
        Self::Base64(0),
        Self::Base64(1),
        Self::Base64(2),
        Self::Base64Url,
        Self::Hex,
        Self::UpperHex,
        Self::Percent,
        Self::UrlEncoded,
        Self::Json,
        Self::JsonSlashes,
    ];

    /// The name by which a query asks for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Base64(0) => "base64",
            Self::Base64(1) => "base64-1",
            Self::Base64(_) => "base64-2",
            Self::Base64Url => "base64url",
            Self::Hex => "hex",
            Self::UpperHex => "upper-hex",
            Self::Percent => "percent",
            Self::UrlEncoded => "urlencoded",
            Self::Json => "json",
            Self::JsonSlashes => "json-slashes",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.name() == name)
    }

    /// `credential` in this form.
    pub fn of(self, credential: &str) -> String {
        match self {
            Self::Plain => credential.to_owned(),
            Self::Base64(before) => STANDARD.encode(format!("{}{credential}:", "u:".get(..before).unwrap_or("u:"))),
            Self::Base64Url => URL_SAFE_NO_PAD.encode(credential),
            Self::Hex => each(credential, |byte| format!("{byte:02x}")),
            Self::UpperHex => each(credential, |byte| format!("{byte:02X}")),
            Self::Percent => each(credential, |byte| format!("%{byte:02X}")),
            Self::UrlEncoded => each(credential, |byte| {
                let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
                if plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
            }),
            Self::Json => {
                let quoted = serde_json::Value::from(credential).to_string();
                quoted[1..quoted.len() - 1].to_owned()
            }
            Self::JsonSlashes => Self::Json.of(credential).replace('/', "\\/"),
        }
    }
}

fn each(credential: &str, write: fn(u8) -> String) -> String {
    credential.bytes().map(write).collect()
}

/// `body` in a content coding (RFC 9110, 8.4.1); as it is in one that nobody knows.
pub fn encoded(coding: &str, body: &[u8]) -> Vec<u8> {
    // Writing into memory cannot fail.
    let into_memory = "writing into memory does not fail";
    match coding {
        "gzip" => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            out.write_all(body).expect(into_memory);
            out.finish().expect(into_memory)
        }
        "deflate" => {
            let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            out.write_all(body).expect(into_memory);
            out.finish().expect(into_memory)
        }
        "br" => {
            let mut out = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
            out.write_all(body).expect(into_memory);
            out.into_inner()
        }
        _ => body.to_vec(),
    }
}
