//! Streams are searched in blocks: a secret is found wherever a block ends, with its right place.

use super::*;
use object::{BLOCK_BYTES, OVERLAP_BYTES};
use proptest::prelude::*;

/// Text of no interest, with lines of 64 bytes.
fn filler(length: usize) -> Vec<u8> {
    b"the quick brown fox jumps over the lazy dog and runs on and on.\n".iter().copied().cycle().take(length).collect()
}

fn numbered(n: usize) -> String {
    format!("{}{n:04}", &token()[..36])
}

#[test]
fn a_token_is_found_at_every_offset_around_the_edges_of_blocks() {
    let step = BLOCK_BYTES - OVERLAP_BYTES;
    let deltas: Vec<isize> = (-48..8).collect();
    // Where a block's own part ends, and where the block ends.
    for edge in [BLOCK_BYTES - OVERLAP_BYTES / 2, BLOCK_BYTES] {
        let mut text = filler(edge + deltas.len() * step + 1000);
        let mut places = Vec::new();
        for (n, delta) in deltas.iter().enumerate() {
            let at = (edge + n * step).strict_add_signed(*delta);
            let line = format!(" {} ", numbered(n));
            text[at - 1..at - 1 + line.len()].copy_from_slice(line.as_bytes());
            places.push(at as u64);
        }
        let found = streamed(&scanner(), &text);
        let at: Vec<u64> = found.iter().map(|finding| finding.offset).collect();
        assert_eq!(at, places);
        for finding in &found {
            let before = &text[..usize::try_from(finding.offset).unwrap()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
            let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() as u64 + 1;
            assert_eq!((finding.line, finding.column, finding.length), (line, column, 40));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Text, base64 that runs over the edge, and UTF-16.
    #[test]
    fn a_stream_finds_what_the_whole_finds(at in 0..3 * BLOCK_BYTES, form in 0..3) {
        let mut text = filler(3 * BLOCK_BYTES + 9000);
        let secret = match form {
            0 => format!(" {} ", token()).into_bytes(),
            1 => hex(format!(" {} ", token()).as_bytes()),
            _ => token().bytes().flat_map(|byte| [byte, 0]).collect(),
        };
        text[at..at + secret.len()].copy_from_slice(&secret);
        let scanner = scanner();
        let (whole, stream) = (found(&scanner, &text), streamed(&scanner, &text));
        prop_assert_eq!(whole.len(), 1);
        prop_assert_eq!(whole, stream);
    }

    /// A reader may give as few bytes at once as it likes.
    #[test]
    fn short_reads_change_nothing(sizes in proptest::collection::vec(1..5000_usize, 1..8)) {
        let mut text = filler(BLOCK_BYTES + 9000);
        let at = BLOCK_BYTES - 20;
        text[at..at + 42].copy_from_slice(format!(" {} ", token()).as_bytes());
        let scan = scanner().start(Budget::default());
        scan.stream(blob(1), &mut Short { text: &text, sizes: sizes.into_iter().cycle() }).unwrap();
        prop_assert_eq!(findings(scan).len(), 1);
    }
}

#[test]
fn long_base64_is_found_wherever_a_block_cuts_it() {
    let scanner = scanner();
    for shift in 0..8 {
        // One line without an end, so that each block begins in the middle of a run of digits.
        let mut plain = filler(2 * BLOCK_BYTES + shift);
        plain.retain(|byte| *byte != b'\n');
        let token = format!(" {} ", token());
        for at in [BLOCK_BYTES * 3 / 4 - OVERLAP_BYTES / 2, BLOCK_BYTES * 3 / 4, BLOCK_BYTES + 100] {
            plain[at + shift..at + shift + token.len()].copy_from_slice(token.as_bytes());
        }
        let encoded = [vec![b'.'; shift], hidden::base64(&plain)].concat();
        let found = streamed(&scanner, &encoded);
        assert!(
            found.iter().any(|finding| finding.rule == TOKEN_RULE && finding.via == [Decoder::Base64]),
            "{shift}: {found:?}"
        );
    }
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

struct Short<'a, S> {
    text: &'a [u8],
    sizes: S,
}

impl<S: Iterator<Item = usize>> Read for Short<'_, S> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let most = self.sizes.next().unwrap_or(1).min(into.len());
        self.text.read(&mut into[..most])
    }
}
