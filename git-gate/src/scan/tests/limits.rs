//! Every limit refuses with its name, the neighbour within it passes, and after any failure nothing is clean.

use super::*;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn refused(scan: Scan) -> Refused {
    match scan.finish() {
        Err(Unclean::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_limit_refuses_with_its_name_and_its_neighbour_passes() {
    let one = gzip(&vec![b' '; 100_000]);
    let two = [one.clone(), one.clone()].concat();
    let deep = gzip(&gzip(&gzip(&one)));
    let tokens =
        |count: usize| (0..count).map(|n| format!("{}{n:04}\n", &token()[..36])).collect::<String>().into_bytes();
    let budget = Budget::default();
    let table: [(&str, Budget, Vec<u8>, Vec<u8>); 7] = [
        ("decode_blob_bytes", Budget { decoded_bytes_per_object_max: 150_000, ..budget }, two.clone(), one.clone()),
        ("decode_push_bytes", Budget { decoded_bytes_max: 150_000, ..budget }, two.clone(), one.clone()),
        ("archive_entries", Budget { archive_entries_max: 1, ..budget }, two, one),
        ("decode_depth", budget, deep, gzip(&gzip(&gzip(b"three layers are opened")))),
        ("findings", Budget { findings_max: 5, ..budget }, tokens(6), tokens(5)),
        (
            "scan work",
            Budget { work_units: 1 << 20, work_units_per_byte: 0, ..budget },
            vec![b'a'; 3 << 20],
            b"a".to_vec(),
        ),
        (
            "scan_seconds",
            Budget { time: Duration::ZERO, bytes_per_extra_second: u64::MAX, ..budget },
            vec![b'a'; 1 << 20],
            Vec::new(),
        ),
    ];
    for (name, budget, over, within) in table {
        for stream in [false, true] {
            let give = |scan: &Scan, bytes: &[u8]| match stream {
                true => scan.stream(blob(1), &mut &bytes[..]),
                false => scan.text(blob(1), bytes),
            };
            let scan = scanner().start(budget);
            let error = give(&scan, &over).unwrap_err();
            assert!(matches!(&error, Refused::Limit { name: limit, .. } if *limit == name), "{name}: {error}");
            assert!(error.to_string().contains(name));
            assert_eq!(scan.text(blob(2), b"harmless").unwrap_err(), error, "{name}: it stays");
            assert_eq!(refused(scan), error);

            if name != "scan_seconds" {
                let scan = scanner().start(budget);
                give(&scan, &within).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert!(!matches!(scan.finish(), Err(Unclean::Refused(_))), "{name}");
            }
        }
    }
}

#[test]
fn a_bomb_in_a_bomb_is_refused() {
    // 16 MiB of nothing in 16 KB, and that again in a few bytes.
    let bomb = gzip(&gzip(&vec![0; 16 << 20]));
    assert!(bomb.len() < 500, "{}", bomb.len());
    let scan = scanner().start(Budget { decoded_bytes_per_object_max: 1 << 20, ..Budget::default() });
    let error = scan.text(blob(1), &bomb).unwrap_err();
    assert!(matches!(error, Refused::Limit { name: "decode_blob_bytes", .. }), "{error}");
}

#[test]
fn a_window_that_no_memory_is_given_for_is_refused() {
    // A zstd frame whose header asks for a window of 1 GiB (RFC 8878, 3.1.1.1.2).
    let frame = b"\x28\xb5\x2f\xfd\x00\xa0\x01\x00\x00";
    let scan = scanner().start(Budget::default());
    assert!(matches!(scan.text(blob(1), frame), Err(Refused::Limit { name: "decoder memory", .. })));
    // One of 8 MiB that holds nothing.
    let scan = scanner().start(Budget::default());
    scan.text(blob(1), b"\x28\xb5\x2f\xfd\x00\x68\x01\x00\x00").unwrap();
    assert!(scan.finish().is_ok());
}

#[test]
fn what_only_seems_compressed_is_scanned_as_it_is() {
    let scanner = scanner();
    let begin: [&[u8]; 7] = [
        b"\x1f\x8b\x08\x00",
        b"PK\x03\x04",
        b"BZh91AY&SY",
        b"\xfd7zXZ\x00",
        b"\x28\xb5\x2f\xfd",
        b"\x78\x9c",
        b"x\x01",
    ];
    for head in begin {
        for junk in [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
            let bytes = [head, junk, b"\n ", token().as_bytes(), b"\n"].concat();
            assert_eq!(found(&scanner, &bytes).len(), 1, "{head:?}");
            let cut = gzip(format!("{} {}", "x y z ".repeat(500), token()).as_bytes());
            let bytes = [head, junk, &cut[..cut.len() - 8]].concat();
            assert_eq!(found(&scanner, &bytes).len(), 1, "{head:?} before gzip without its end");
        }
    }
}

#[test]
fn a_reader_that_fails_means_no_clean() {
    struct Fails(usize);
    impl Read for Fails {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::Error::other("the disk"));
            }
            let count = into.len().min(self.0);
            into[..count].fill(b'a');
            self.0 -= count;
            Ok(count)
        }
    }
    for before in [0, 10, 5 * object::BLOCK_BYTES] {
        let scan = scanner().start(Budget::default());
        assert!(matches!(scan.stream(blob(1), &mut Fails(before)), Err(Refused::Read(_))));
        assert!(matches!(refused(scan), Refused::Read(_)));
    }
}

#[test]
fn a_call_that_panics_means_no_clean() {
    struct Panics;
    impl Read for Panics {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            panic!("on purpose")
        }
    }
    let scan = scanner().start(Budget::default());
    scan.text(blob(1), b"harmless").unwrap();
    assert!(std::panic::catch_unwind(AssertUnwindSafe(|| scan.stream(blob(2), &mut Panics))).is_err());
    scan.text(blob(3), b"harmless").unwrap();
    assert_eq!(refused(scan), Refused::Unfinished);
}

/// Work per byte at which a scan of any size passes: see [`Budget::work_units_per_byte`] and the 32 GiB before it.
#[test]
fn hostile_text_stays_within_the_work_that_pushes_have() {
    let rules = Rules::built_in().unwrap();
    let words: Vec<&str> = rules.rules.iter().flat_map(|rule| &rule.keywords).map(String::as_str).collect();
    let of = |text: String| text.into_bytes().into_iter().cycle().take(32 << 10).collect::<Vec<u8>>();
    let scanner = scanner();
    for (name, text) in [
        ("all keywords", of(words.join(" "))),
        ("the costliest window", of("-----BEGIN PRIVATE KEY-----\n".to_owned())),
        ("\"kty\" alone", of("\"kty\"".to_owned())),
        ("names without end", of("password".to_owned())),
        ("slashes", of("://".to_owned())),
        ("escapes of escapes", of("%25%35%43\\u005c".to_owned())),
        ("base64 of nothing", of("QUFBQUFBQUFB".to_owned())),
        ("beginnings of archives", of("PK\x03\x04".to_owned())),
    ] {
        let scan = scanner.start(Budget::default());
        let began = scan.used.work();
        scan.text(blob(1), &text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let per_byte = (scan.used.work() - began) / text.len() as u64;
        assert!(per_byte < 2500, "{name}: {per_byte} units for each byte");
    }
}
