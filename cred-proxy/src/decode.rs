//! Replies that come encoded although the upstream was asked not to: decoded as they come, so that they can be masked.
//!
//! However much a few bytes unfold to, no more than `OUTPUT_BYTES` of it exist at one time besides the window that the
//! coding needs (at most 16 MiB, for brotli; 8 MiB for zstd, as RFC 9659 has it).

use bytes::{Buf as _, Bytes};
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::zstd::params::DParameter;
use compression_codecs::{BrotliDecoder, DecodeV2, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};

/// How much is decoded at one time.
const OUTPUT_BYTES: usize = 32 << 10;

/// A zstd frame that needs a larger window (as a power of two) is refused.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A coding of content (RFC 9110, 8.4.1) that can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`.
    Gzip,
    /// `deflate`: the zlib format, or without its head, as some servers have it.
    Deflate,
    /// `br`.
    Brotli,
    /// `zstd`.
    Zstd,
}

/// Why a body cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It is not what its header says.
    #[error("the encoded body is damaged")]
    Damaged(#[source] std::io::Error),
    /// It ends too soon.
    #[error("the encoded body ends too soon")]
    Short,
    /// It goes on behind its end.
    #[error("the encoded body goes on behind its end")]
    Long,
}

/// The state of decoding one body.
pub struct Decoder {
    coding: Coding,
    /// Chosen when the first bytes are there.
    inner: Option<Box<dyn DecodeV2 + Send + Sync>>,
    input: Bytes,
    /// The last output filled its space: there may be more of it.
    may_have_more: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has come.
    Empty,
    Within,
    /// At the end of the coding's stream.
    Ended,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("coding", &self.coding).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Coding {
    /// By the name that stands in a header.
    pub fn of(name: &[u8]) -> Option<Self> {
        match name.to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            b"br" => Some(Self::Brotli),
            b"zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// May several streams follow one another?
    fn has_members(self) -> bool {
        matches!(self, Self::Gzip | Self::Zstd)
    }
}

impl Decoder {
    /// For a new body.
    pub fn new(coding: Coding) -> Self {
        Self { coding, inner: None, input: Bytes::new(), may_have_more: false, state: State::Empty }
    }

    /// Takes a chunk; [`Decoder::pull`] must have given all of the one before.
    pub fn feed(&mut self, chunk: Bytes) {
        if self.input.is_empty() {
            self.input = chunk;
        } else {
            // Only what was too short to choose a decoder by.
            self.input = [&self.input[..], &chunk[..]].concat().into();
        }
    }

    /// The next piece of what was taken; `None` when more has to be.
    pub fn pull(&mut self) -> Result<Option<Bytes>, DecodeError> {
        while self.may_have_more || !self.input.is_empty() {
            if self.state == State::Ended {
                if self.input.is_empty() {
                    break;
                }
                match &mut self.inner {
                    Some(inner) if self.coding.has_members() => inner.reinit().map_err(DecodeError::Damaged)?,
                    _ => return Err(DecodeError::Long),
                }
            }
            if !self.choose() {
                break;
            }
            let Some(inner) = &mut self.inner else { break };
            self.state = State::Within;
            let mut space = vec![0; OUTPUT_BYTES];
            let mut output = WriteBuffer::new_initialized(&mut space);
            let mut input = PartialBuffer::new(&self.input[..]);
            if inner.decode(&mut input, &mut output).map_err(DecodeError::Damaged)? {
                self.state = State::Ended;
            }
            let (read, written) = (input.written_len(), output.written_len());
            self.input.advance(read);
            self.may_have_more = written == OUTPUT_BYTES;
            if written > 0 {
                space.truncate(written);
                return Ok(Some(Bytes::from(space)));
            }
            if read == 0 && self.state != State::Ended {
                break;
            }
        }
        Ok(None)
    }

    /// The body has ended: was it whole? A body without a byte is.
    pub fn end(&self) -> Result<(), DecodeError> {
        match self.state {
            State::Empty if self.input.is_empty() => Ok(()),
            State::Ended => Ok(()),
            State::Empty | State::Within => Err(DecodeError::Short),
        }
    }

    /// Is there a decoder, or enough to choose one by?
    fn choose(&mut self) -> bool {
        if self.inner.is_some() {
            return true;
        }
        self.inner = Some(match (self.coding, &self.input[..]) {
            (Coding::Gzip, _) => Box::new(GzipDecoder::new()),
            (Coding::Brotli, _) => Box::new(BrotliDecoder::new()),
            (Coding::Zstd, _) => {
                Box::new(ZstdDecoder::new_with_params(&[DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX)]))
            }
            (Coding::Deflate, [first, second, ..]) => {
                // The head of zlib (RFC 1950, 2.2).
                let is_zlib = first & 0x0f == 8 && (u16::from(*first) << 8 | u16::from(*second)) % 31 == 0;
                if is_zlib { Box::new(ZlibDecoder::new()) } else { Box::new(DeflateDecoder::new()) }
            }
            (Coding::Deflate, _) => return false,
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use compression_codecs::{BrotliEncoder, DeflateEncoder, EncodeV2, GzipEncoder, ZlibEncoder, ZstdEncoder};

    pub(crate) fn encoded(mut encoder: impl EncodeV2, plain: &[u8]) -> Vec<u8> {
        let mut space = vec![0; plain.len() + 4096];
        let mut output = WriteBuffer::new_initialized(&mut space);
        let mut input = PartialBuffer::new(plain);
        while !input.unwritten().is_empty() {
            encoder.encode(&mut input, &mut output).unwrap();
        }
        while !encoder.finish(&mut output).unwrap() {}
        let written = output.written_len();
        space.truncate(written);
        space
    }

    fn all(plain: &[u8]) -> Vec<(Coding, Vec<u8>)> {
        let level: compression_codecs::flate::params::FlateEncoderParams =
            compression_codecs::core::Level::Default.into();
        vec![
            (Coding::Gzip, encoded(GzipEncoder::new(level.clone()), plain)),
            (Coding::Deflate, encoded(ZlibEncoder::new(level.clone()), plain)),
            (Coding::Deflate, encoded(DeflateEncoder::new(level), plain)),
            (Coding::Brotli, encoded(BrotliEncoder::new(Default::default()), plain)),
            (Coding::Zstd, encoded(ZstdEncoder::new(3), plain)),
        ]
    }

    fn decoded(coding: Coding, bytes: &[u8], chunk: usize) -> Result<Vec<u8>, DecodeError> {
        let mut decoder = Decoder::new(coding);
        let mut out = Vec::new();
        for chunk in bytes.chunks(chunk) {
            decoder.feed(Bytes::copy_from_slice(chunk));
            while let Some(piece) = decoder.pull()? {
                assert!(piece.len() <= OUTPUT_BYTES);
                out.extend_from_slice(&piece);
            }
        }
        decoder.end().map(|()| out)
    }

    #[test]
    fn every_coding_is_undone_however_it_is_cut() {
        let long: Vec<u8> = (0..20_000_u32).flat_map(|number| number.to_string().into_bytes()).collect();
        for plain in [&b"a"[..], b"hello, hello, hello", &long] {
            for (coding, bytes) in all(plain) {
                for chunk in [1, 7, 4096, usize::MAX >> 1] {
                    assert!(decoded(coding, &bytes, chunk).unwrap() == plain, "{coding:?} by {chunk}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_whole_or_not_alone_is_refused() {
        for (coding, bytes) in all(b"hello, hello, hello") {
            assert!(decoded(coding, b"", 1).unwrap().is_empty());
            for cut in 1..bytes.len() {
                assert!(decoded(coding, &bytes[..cut], 5).is_err(), "{coding:?} cut at {cut}");
            }
            let twice = [&bytes[..], &bytes[..]].concat();
            match decoded(coding, &twice, 3) {
                Ok(plain) => assert!(coding.has_members() && plain == b"hello, hello, hello".repeat(2)),
                Err(error) => assert!(!coding.has_members() && matches!(error, DecodeError::Long), "{error}"),
            }
            assert!(decoded(coding, b"no such thing, whatever it says", 5).is_err(), "{coding:?}");
        }
    }

    #[test]
    fn a_bomb_comes_out_bit_by_bit() {
        let plain = vec![0; 4 << 20];
        for (coding, bytes) in all(&plain) {
            let mut decoder = Decoder::new(coding);
            decoder.feed(Bytes::from(bytes));
            let mut total = 0;
            while let Some(piece) = decoder.pull().unwrap() {
                assert!(piece.len() <= OUTPUT_BYTES);
                total += piece.len();
            }
            assert_eq!(total, plain.len());
            decoder.end().unwrap();
        }
    }

    #[test]
    fn names_of_codings() {
        for (name, wanted) in [
            ("gzip", Some(Coding::Gzip)),
            ("X-GZip", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
            ("br", Some(Coding::Brotli)),
            ("zstd", Some(Coding::Zstd)),
            ("compress", None),
            ("dcb", None),
            ("", None),
        ] {
            assert_eq!(Coding::of(name.as_bytes()), wanted, "{name}");
        }
    }
}
