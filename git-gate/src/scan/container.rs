//! Compressed files, by their first bytes and never by a name: gzip, zlib, the entries of zip archives (also docx, xlsx,
//! jar, apk, whl), bzip2, xz and Zstandard. All decoders are written in Rust, since the agent chooses every byte.
//!
//! A zip archive is not read by its directory, which may lie, but by the header before each entry. What cannot be opened:
//! encrypted entries, LZMA and Deflate64 in zip, RAR, 7-Zip, LZ4, Brotli, and a zlib stream in the middle of a file.

use super::Decoder;
use std::io::{BufRead, Read};

/// A kind of compressed data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    Gzip,
    Zlib,
    Zip,
    Bzip2,
    Xz,
    Zstd,
}

/// The window that one decoder may have: `xz -9` needs 65 MiB, `zstd --ultra -22` 128. Memory is used only as far as the
/// content fills it, and that has a lower limit.
pub(super) const DECODER_MIB_MAX: u64 = 129;
/// All of a beginning fits in so many bytes.
pub(super) const MAGIC_BYTES_MAX: usize = 10;

const ZSTD_HEADER_BYTES_MAX: u64 = 4 + 14 + 3;
const ZIP_HEADER_BYTES: usize = 30;

/// What opening gave.
pub(super) enum Opened<'a> {
    /// What it holds.
    Content(Box<dyn Read + 'a>),
    /// Not what it seemed, or nothing that can be opened.
    Nothing,
    /// It needs more memory than [`DECODER_MIB_MAX`].
    TooLarge,
}

impl Container {
    pub(super) const ALL: [Self; 6] = [Self::Gzip, Self::Zlib, Self::Zip, Self::Bzip2, Self::Xz, Self::Zstd];

    /// What to search for. A zlib stream has no bytes of its own: see [`Container::is_zlib`].
    pub(super) fn magic(self) -> &'static [&'static [u8]] {
        match self {
            Self::Gzip => &[b"\x1f\x8b\x08"],
            Self::Zlib => &[],
            Self::Zip => &[b"PK\x03\x04"],
            // After `BZh` and the block size, which may be any digit.
            Self::Bzip2 => &[b"1AY&SY"],
            Self::Xz => &[b"\xfd7zXZ\x00"],
            Self::Zstd => &[b"\x28\xb5\x2f\xfd"],
        }
    }

    /// Where a container of this kind begins whose magic bytes were found at `at`, if it does.
    pub(super) fn begins(self, text: &[u8], at: usize) -> Option<usize> {
        // The search knows no case.
        let exact = self.magic().iter().any(|magic| text.get(at..).is_some_and(|rest| rest.starts_with(magic)));
        match self {
            Self::Bzip2 => {
                let from = at.checked_sub(4)?;
                let head = text.get(from..at)?;
                (exact && head.starts_with(b"BZh") && head[3].is_ascii_digit()).then_some(from)
            }
            // Three bits of a gzip header's flags are reserved.
            Self::Gzip => (exact && text.get(at + 3).is_some_and(|flags| flags & 0xe0 == 0)).then_some(at),
            Self::Zlib | Self::Zip | Self::Xz | Self::Zstd => exact.then_some(at),
        }
    }

    /// Could a zlib stream begin here (RFC 1950: deflate, a window of at most 32 KiB, no dictionary, a checked header)?
    pub(super) fn is_zlib(text: &[u8]) -> bool {
        let [method, flags, ..] = *text else { return false };
        method & 0x0f == 8
            && method >> 4 <= 7
            && flags & 0x20 == 0
            && (u16::from(method) << 8 | u16::from(flags)) % 31 == 0
    }

    pub(super) fn decoder(self) -> Decoder {
        match self {
            Self::Gzip => Decoder::Gzip,
            Self::Zlib => Decoder::Zlib,
            Self::Zip => Decoder::Zip,
            Self::Bzip2 => Decoder::Bzip2,
            Self::Xz => Decoder::Xz,
            Self::Zstd => Decoder::Zstd,
        }
    }

    /// Opens what begins here. Of `input` no more is used than belongs to it, as far as the format allows.
    pub(super) fn open<'a>(self, input: &'a mut dyn BufRead) -> Opened<'a> {
        match self {
            Self::Gzip => Opened::Content(Box::new(flate2::bufread::GzDecoder::new(input))),
            Self::Zlib => Opened::Content(Box::new(flate2::bufread::ZlibDecoder::new(input))),
            Self::Bzip2 => Opened::Content(Box::new(bzip2::bufread::BzDecoder::new(input))),
            Self::Xz => xz(input),
            Self::Zstd => zstd(input),
            Self::Zip => zip_entry(input),
        }
    }
}

fn xz(input: &mut dyn BufRead) -> Opened<'_> {
    let kib = u32::try_from(DECODER_MIB_MAX << 10).unwrap_or(u32::MAX);
    Opened::Content(Box::new(lzma_rust2::XzReader::new_mem_limit(input, false, kib)))
}

fn zstd(input: &mut dyn BufRead) -> Opened<'_> {
    use ruzstd::decoding::StreamingDecoder;
    use ruzstd::decoding::errors::FrameDecoderError;
    let mut head = Vec::new();
    if (&mut *input).take(ZSTD_HEADER_BYTES_MAX).read_to_end(&mut head).is_err() || !is_zstd(&head) {
        return Opened::Nothing;
    }
    let input = std::io::Cursor::new(head).chain(input);
    match StreamingDecoder::new_with_max_window_size(input, DECODER_MIB_MAX << 20) {
        Ok(decoder) => Opened::Content(Box::new(decoder)),
        Err(FrameDecoderError::WindowSizeTooBig { .. }) => Opened::TooLarge,
        Err(_) => Opened::Nothing,
    }
}

/// Four bytes of magic are in every program that knows the format, and a refusal for want of memory has to be of a frame:
/// its header and its first block's (RFC 8878, 3.1.1) have to be in order.
fn is_zstd(head: &[u8]) -> bool {
    let Some(&descriptor) = head.get(4) else { return false };
    let single = descriptor & 0x20 != 0;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let content = [usize::from(single), 2, 4, 8][usize::from(descriptor >> 6)];
    let at = 5 + usize::from(!single) + dictionary + content;
    let Some(&[low, middle, high]) = head.get(at..at + 3) else { return false };
    let block = u32::from_le_bytes([low, middle, high, 0]);
    descriptor & 8 == 0 && block >> 1 & 3 != 3 && block >> 3 <= 128 << 10
}

/// APPNOTE.TXT 4.3.7: the local header, then name, extra field and data.
fn zip_entry(input: &mut dyn BufRead) -> Opened<'_> {
    let mut header = [0; ZIP_HEADER_BYTES];
    if input.read_exact(&mut header).is_err() {
        return Opened::Nothing;
    }
    let two = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let encrypted = two(6) & 1 != 0;
    let mut skip = usize::from(two(26)) + usize::from(two(28));
    if encrypted {
        return Opened::Nothing;
    }
    while skip > 0 {
        let Ok(buffer) = input.fill_buf() else { return Opened::Nothing };
        if buffer.is_empty() {
            return Opened::Nothing;
        }
        let used = skip.min(buffer.len());
        input.consume(used);
        skip -= used;
    }
    match two(8) {
        8 => Opened::Content(Box::new(flate2::bufread::DeflateDecoder::new(input))),
        12 => Opened::Content(Box::new(bzip2::bufread::BzDecoder::new(input))),
        93 => zstd(input),
        95 => xz(input),
        // 0 is stored: its bytes were scanned as they are, and what begins in them is found by its own first bytes.
        _ => Opened::Nothing,
    }
}
