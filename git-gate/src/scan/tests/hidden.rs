//! The table of evasions: a token is found however it is put into a push, with the way it was hidden.

use super::*;
use std::io::Write;

/// A line with the token, as xz of XZ Utils 5.4 packs it: no encoder is part of this package.
const XZ: &str = "/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj4AAwAB9dADobyak/JGs91N7awiVoDo4PwdeLY0z/OcHPRAmTgAAAAF1F0yYAOGF5AAE7MSla6k0ftvN9AQAAAAAEWVo=";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// One entry's local header and data; with a data descriptor, as tools that write to a pipe do, sizes are 0.
fn zip_entry(name: &str, bytes: &[u8], deflated: bool, descriptor: bool) -> Vec<u8> {
    let mut data = bytes.to_vec();
    if deflated {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        data = encoder.finish().unwrap();
    }
    let mut entry = b"PK\x03\x04\x14\x00".to_vec();
    entry.extend([if descriptor { 8 } else { 0 }, 0, if deflated { 8 } else { 0 }, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let size = |length: usize| u32::try_from(if descriptor { 0 } else { length }).unwrap().to_le_bytes();
    entry.extend(size(data.len()));
    entry.extend(size(bytes.len()));
    entry.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
    entry.extend([0, 0]);
    entry.extend(name.as_bytes());
    entry.extend(data);
    if descriptor {
        entry.extend(b"PK\x07\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00");
    }
    entry
}

fn zip(bytes: &[u8], deflated: bool, descriptor: bool) -> Vec<u8> {
    let mut archive = zip_entry("a.txt", b"nothing to see here, move on please", deflated, descriptor);
    archive.extend(zip_entry("dir/b.txt", bytes, deflated, descriptor));
    archive.extend(b"PK\x01\x02 and so on");
    archive
}

pub(super) fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, at| bits << 8 | usize::from(group.get(at).copied().unwrap_or(0)));
        text.extend((0..=group.len()).map(|digit| DIGITS[bits >> (18 - 6 * digit) & 63]));
        text.extend(std::iter::repeat_n(b'=', 3 - group.len()));
    }
    text
}

fn each(bytes: &[u8], form: impl Fn(u8) -> String) -> Vec<u8> {
    bytes.iter().flat_map(|byte| form(*byte).into_bytes()).collect()
}

fn wide(bytes: &[u8], unit: usize, big: bool) -> Vec<u8> {
    let one = |byte: &u8| {
        let mut one = vec![0; unit];
        one[if big { unit - 1 } else { 0 }] = *byte;
        one
    };
    bytes.iter().flat_map(one).collect()
}

fn lines(bytes: &[u8], length: usize, end: &str) -> Vec<u8> {
    bytes.chunks(length).flat_map(|line| [line, end.as_bytes()].concat()).collect()
}

/// Every row: what it is, the bytes, how the finding was hidden.
fn table(line: &[u8]) -> Vec<(&'static str, Vec<u8>, &'static [Decoder])> {
    use Decoder::{Base64, Bzip2, Escapes, Gzip, Hex, Percent, Utf16, Utf32, Zip, Zlib, Zstd};
    let long = [b"some text of no interest, which is long enough to be wrapped. ".repeat(4), line.to_vec()].concat();
    let tar = [vec![b'x'; 512], line.to_vec(), vec![0; 1024]].concat();
    vec![
        ("plain", line.to_vec(), &[]),
        ("an allow comment of gitleaks", [line, b" # gitleaks:allow"].concat(), &[]),
        ("an ignore comment of kingfisher", [line, b" # kingfisher:ignore"].concat(), &[]),
        ("a NUL before it", [b"\0\0\x01\xff", line].concat(), &[]),
        ("a very long line", [vec![b'a'; 300_000], b" ".to_vec(), line.to_vec()].concat(), &[]),
        ("base64", base64(line), &[Base64]),
        ("base64 in a string", [b"x = \"".to_vec(), base64(line), b"\";".to_vec()].concat(), &[Base64]),
        ("base64 after a slash", [b"data/x/".to_vec(), base64(line)].concat(), &[Base64]),
        (
            "base64 for URLs",
            [
                b"?t=".to_vec(),
                base64(line)
                    .iter()
                    .map(|b| match b {
                        b'+' => b'-',
                        b'/' => b'_',
                        b => *b,
                    })
                    .collect(),
            ]
            .concat(),
            &[Base64],
        ),
        ("base64 wrapped at 76", lines(&base64(&long), 76, "\r\n"), &[Base64]),
        ("base64 wrapped and indented", lines(&base64(&long), 64, "\n    "), &[Base64]),
        ("base64 twice", base64(&base64(line)), &[Base64, Base64]),
        ("base64 thrice", base64(&base64(&base64(line))), &[Base64, Base64, Base64]),
        ("hexadecimal", each(line, |b| format!("{b:02x}")), &[Hex]),
        ("HEXADECIMAL", each(line, |b| format!("{b:02X}")), &[Hex]),
        ("percent-encoding", each(line, |b| format!("%{b:02x}")), &[Percent]),
        ("escapes of JSON", each(line, |b| format!("\\u{b:04x}")), &[Escapes]),
        ("escapes of C", each(line, |b| format!("\\x{b:02x}")), &[Escapes]),
        ("octal escapes", each(line, |b| format!("\\{b:03o}")), &[Escapes]),
        ("escapes of Rust", each(line, |b| format!("\\u{{{b:x}}}")), &[Escapes]),
        ("entities of HTML", each(line, |b| format!("&#{b};")), &[Escapes]),
        ("UTF-16, little end first", [b"\xff\xfe".to_vec(), wide(line, 2, false)].concat(), &[Utf16]),
        ("UTF-16, big end first", [b"\xfe\xff".to_vec(), wide(line, 2, true)].concat(), &[Utf16]),
        ("UTF-16 in a binary, odd place", [b"\x7fELF\x01".to_vec(), wide(line, 2, false)].concat(), &[Utf16]),
        ("UTF-32", wide(line, 4, true), &[Utf32]),
        ("base64 of UTF-16, as PowerShell takes it", base64(&wide(line, 2, false)), &[Base64, Utf16]),
        ("gzip", gzip(line), &[Gzip]),
        ("gzip in a binary", [b"\x7fELF\x01\x02".to_vec(), gzip(line)].concat(), &[Gzip]),
        ("a tar in gzip", gzip(&tar), &[Gzip]),
        ("gzip in a tar", [vec![b'x'; 512], gzip(line), vec![0; 900]].concat(), &[Gzip]),
        ("zlib", zlib(line), &[Zlib]),
        ("base64 of zlib", base64(&zlib(line)), &[Base64, Zlib]),
        ("zip, stored", zip(line, false, false), &[]),
        ("zip, deflated", zip(line, true, false), &[Zip]),
        ("zip, written to a pipe", zip(line, true, true), &[Zip]),
        ("zip behind a program", [b"#!/bin/sh\nexit\n".to_vec(), zip(line, true, false)].concat(), &[Zip]),
        ("zip in zip", zip(&zip(line, true, false), true, false), &[Zip, Zip]),
        ("bzip2", bzip2(line), &[Bzip2]),
        ("zstd", zstd(line), &[Zstd]),
        ("base64 of gzip of hexadecimal", base64(&gzip(&each(line, |b| format!("{b:02x}")))), &[Base64, Gzip, Hex]),
    ]
}

#[test]
fn every_row_of_the_table_of_evasions_is_found() {
    let scanner = scanner();
    let line = format!("token = {}\n", token());
    let (mut wrong, table) = (Vec::new(), table(line.as_bytes()));
    for (name, bytes, via) in &table {
        for (how, found) in [("whole", found(&scanner, bytes)), ("streamed", streamed(&scanner, bytes))] {
            match found.iter().find(|finding| finding.rule == TOKEN_RULE) {
                Some(finding) if finding.via == *via && finding.length == token().len() => {}
                other => wrong.push(format!("{name} ({how}): {other:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(table.len() >= 40);
}

#[test]
fn the_neighbours_of_the_table_are_clean() {
    let scanner = scanner();
    for (name, bytes, _) in table(b"token = none at all, for this is a line of text\n") {
        assert!(found(&scanner, &bytes).is_empty(), "{name}");
    }
}

#[test]
fn xz_is_found() {
    let scanner = scanner();
    let in_base64 = found(&scanner, XZ.as_bytes());
    let [finding] = in_base64.as_slice() else { panic!("{in_base64:?}") };
    assert_eq!((finding.via.as_slice(), finding.line), (&[Decoder::Base64, Decoder::Xz][..], 0));
}

#[test]
fn compressed_data_of_any_length_is_followed_in_a_stream() {
    let scanner = scanner();
    // Nothing that compresses, so that the token is many blocks into the compressed data.
    let mut noise = vec![0_u8; 3 * object::BLOCK_BYTES];
    let mut state = 7_u64;
    for byte in &mut noise {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 33) as u8 | 0x80;
    }
    let plain = [noise.as_slice(), b"\ntoken = ", token().as_bytes(), b"\n"].concat();
    for (name, bytes, via) in [
        ("gzip", gzip(&plain), Decoder::Gzip),
        ("zlib", zlib(&plain), Decoder::Zlib),
        ("bzip2", bzip2(&plain), Decoder::Bzip2),
        ("zip", zip(&plain, true, true), Decoder::Zip),
        ("gzip in the middle", [noise.clone(), gzip(&plain), noise.clone()].concat(), Decoder::Gzip),
    ] {
        assert!(bytes.len() > 2 * object::BLOCK_BYTES);
        let found = streamed(&scanner, &bytes);
        assert!(found.iter().any(|finding| finding.rule == TOKEN_RULE && finding.via == [via]), "{name}: {found:?}");
    }
}

#[test]
fn every_kind_of_source_is_searched() {
    let id = ObjectId::from_bytes_or_panic(&[9; 32]);
    let text = format!("fix/{}", token());
    for source in [
        Source::Blob(id),
        Source::Commit(id),
        Source::Tag(id),
        Source::TreeName(id),
        Source::RefName(text.clone()),
        Source::PushOption(3),
    ] {
        let scan = scanner().start(Budget::default());
        scan.text(source.clone(), text.as_bytes()).unwrap();
        let found = findings(scan);
        assert!(found.len() == 1 && found[0].source == source, "{found:?}");
        assert!(!format!("{source}").contains(&token()), "a source is told without the name that the agent chose");
    }
}
