//! The one pass that every byte of a push goes through: where does a keyword stand? PURE.
//!
//! What it costs is the wait for one look into a table after another, each of which says where the next one is. So a text
//! is gone through at several places at once, whose looks do not wait for one another.

use super::{Refused, ScannerError};
use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::dfa::DFA;
use aho_corasick::{Anchored, MatchKind, StartKind};
use std::ops::Range;

/// Places of a text that are searched at once. More of them have no room in the processor's registers.
const LANES: usize = 4;

/// All keywords, in any case.
pub(super) struct Keywords {
    automaton: DFA,
    /// How many bytes before a place a keyword that ends behind it may begin.
    context: usize,
}

/// Where keywords end, kept from one search to the next for its memory.
#[derive(Default)]
pub(super) struct Ends([Vec<(usize, StateID)>; LANES]);

impl Keywords {
    /// A search for `words`, which are in lower case.
    pub(super) fn new(words: &[Vec<u8>]) -> Result<Self, ScannerError> {
        let automaton = DFA::builder()
            .match_kind(MatchKind::Standard)
            .start_kind(StartKind::Unanchored)
            .ascii_case_insensitive(true)
            // Without it the start state is an ordinary one, so the loop has one test per byte.
            .prefilter(false)
            .build(words)
            .map_err(|_| ScannerError::TooLarge)?;
        let context = automaton.max_pattern_len().saturating_sub(1);
        Ok(Self { automaton, context })
    }

    /// The longest one, in bytes.
    pub(super) fn longest(&self) -> usize {
        self.context + 1
    }

    /// Finds every keyword whose last byte is in `within` and whose first is at `begin` or behind it.
    pub(super) fn search(
        &self,
        text: &[u8],
        begin: usize,
        within: Range<usize>,
        ends: &mut Ends,
    ) -> Result<(), Refused> {
        ends.0.iter_mut().for_each(Vec::clear);
        let start = self.automaton.start_state(Anchored::No).map_err(|_| Refused::Unfinished)?;
        let length = within.len() / LANES;
        let mut rest = within.start;
        // In a short one, what is read twice would be more than what is gained.
        if length > 4 * self.context {
            // Each lane begins so far before its own part that it knows there what it would know from the beginning on.
            let from: [usize; LANES] =
                std::array::from_fn(|lane| (within.start + lane * length).saturating_sub(self.context).max(begin));
            let parts = from.map(|from| &text[from..from + length + self.context]);
            let (mut at, mut states) = (0, [start; LANES]);
            while at < length + self.context {
                (at, states) = self.steps(&parts, at, states);
                for (lane, state) in states.into_iter().enumerate() {
                    let (last, own) = (from[lane] + at - 1, within.start + lane * length);
                    if (own..own + length).contains(&last) && self.automaton.is_match(state) {
                        ends.0[lane].push((last + 1, state));
                    }
                }
            }
            rest = within.start + LANES * length;
        }
        let mut state = start;
        for (at, byte) in text[..within.end].iter().enumerate().skip(rest.saturating_sub(self.context).max(begin)) {
            state = self.automaton.next_state(Anchored::No, state, *byte);
            if self.automaton.is_special(state) && self.automaton.is_match(state) && at >= rest {
                ends.0[LANES - 1].push((at + 1, state));
            }
        }
        Ok(())
    }

    /// What [`Self::search`] found, in the order of the ends: where each keyword stands, and its number.
    pub(super) fn found<'a>(&'a self, ends: &'a Ends) -> impl Iterator<Item = (Range<usize>, usize)> + 'a {
        ends.0.iter().flatten().flat_map(move |&(end, state)| {
            (0..self.automaton.match_len(state)).map(move |nth| {
                let word = self.automaton.match_pattern(state, nth);
                (end - self.automaton.pattern_len(word)..end, word.as_usize())
            })
        })
    }

    /// Goes on in all lanes until one of them is where something may be, or at the end. A function of its own and of so
    /// few things that all of them stay in registers.
    #[inline(never)]
    #[allow(
        clippy::needless_range_loop,
        reason = "it is a place in each of the parts, which are gone through together"
    )]
    fn steps(&self, parts: &[&[u8]; LANES], from: usize, mut states: [StateID; LANES]) -> (usize, [StateID; LANES]) {
        let length = parts[0].len();
        let parts: [&[u8]; LANES] = std::array::from_fn(|lane| &parts[lane][..length]);
        for at in from..length {
            let mut special = false;
            for lane in 0..LANES {
                states[lane] = self.automaton.next_state(Anchored::No, states[lane], parts[lane][at]);
                special |= self.automaton.is_special(states[lane]);
            }
            if special {
                return (at + 1, states);
            }
        }
        (length, states)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keywords() -> Keywords {
        Keywords::new(&["ab", "bab", "aaaa", "b", "abcabc"].map(|word| word.as_bytes().to_vec())).unwrap()
    }

    fn found(keywords: &Keywords, text: &[u8], begin: usize, within: Range<usize>) -> Vec<(Range<usize>, usize)> {
        let mut ends = Ends::default();
        keywords.search(text, begin, within, &mut ends).unwrap();
        let mut found: Vec<_> = keywords.found(&ends).collect();
        assert!(found.is_sorted_by_key(|(at, _)| at.end), "{found:?}");
        found.sort_by_key(|(at, word)| (at.end, at.start, *word));
        found
    }

    proptest! {
        #[test]
        fn it_finds_what_a_comparison_at_every_place_finds(
            text in "[abcABx]{0,300}", begin in 0_usize..60, skipped in 0_usize..60, left in 0_usize..60,
        ) {
            let keywords = keywords();
            let text = text.as_bytes();
            let begin = begin.min(text.len());
            let start = (begin + skipped).min(text.len());
            let stop = (text.len() - left.min(text.len())).max(start);
            let mut wanted = Vec::new();
            for end in start..stop {
                for (number, word) in ["ab", "bab", "aaaa", "b", "abcabc"].iter().enumerate() {
                    let Some(from) = (end + 1).checked_sub(word.len()).filter(|from| *from >= begin) else { continue };
                    if text[from..=end].eq_ignore_ascii_case(word.as_bytes()) {
                        wanted.push((from..end + 1, number));
                    }
                }
            }
            wanted.sort_by_key(|(at, word)| (at.end, at.start, *word));
            prop_assert_eq!(found(&keywords, text, begin, start..stop), wanted);
        }
    }

    #[test]
    fn a_keyword_over_the_edge_of_two_lanes_is_found_once() {
        let keywords = keywords();
        for at in 0..200 {
            let mut text = vec![b'x'; 206];
            text[at..at + 6].copy_from_slice(b"abcABC");
            let all = found(&keywords, &text, 0, 0..206);
            assert_eq!(all.iter().filter(|(_, word)| *word == 4).count(), 1, "at {at}: {all:?}");
        }
    }
}
