//! Says of most text, at a fraction of what a search costs, that no form can be in it. PURE.
//!
//! Every form is at least `shortest` bytes long, so each of its occurrences covers, whole, one of the groups of
//! [`GROUP_BYTES`] bytes that begin at every `shortest - GROUP_BYTES + 1`th byte of the text. Those alone are looked at.
//! A group that is in no form excludes every form that would cover it; for any other, the sieve names the stretch in
//! which such a form would lie, and a search has to look there.

use std::ops::Range;

/// Bytes that are looked at together.
const GROUP_BYTES: usize = 4;

/// With less between two groups, a search is as fast.
const STEP_MIN: usize = 4;

/// Bits that are set for the groups of all forms: 8 KiB, which stay in a processor's nearest cache.
const BITS: usize = 1 << 16;

/// The groups of all forms.
pub struct Sieve {
    /// From the beginning of one group that is looked at to that of the next.
    step: usize,
    longest: usize,
    /// A Bloom filter: of each group of each form, two bits.
    bits: Box<[u64; BITS / 64]>,
}

impl Sieve {
    /// For these forms; none where the shortest is too short for it to be of use.
    pub fn new<'a>(forms: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Self> {
        let shortest = forms.clone().map(<[u8]>::len).min()?;
        let longest = forms.clone().map(<[u8]>::len).max()?;
        let step = (shortest + 1).checked_sub(GROUP_BYTES).filter(|step| *step >= STEP_MIN)?;
        let mut bits = Box::new([0; BITS / 64]);
        for group in forms.flat_map(|form| form.windows(GROUP_BYTES)) {
            for bit in group.first_chunk().map(bits_of).into_iter().flatten() {
                bits[bit / 64] |= 1 << (bit % 64);
            }
        }
        Some(Self { step, longest, bits })
    }

    /// The next stretch of `text` in which a form can lie, of those whose first looked-at group begins at `from` or
    /// behind it. `from` is 0, or where an earlier stretch has ended: a form may reach over that end, so stretches overlap.
    pub fn stretch(&self, text: &[u8], from: usize) -> Option<Range<usize>> {
        let mut at = from.next_multiple_of(self.step);
        let first = self.group(text, &mut at, text.len())?;
        let mut end = (first + self.longest).min(text.len());
        // Stretches that would overlap are one, so that no byte is searched more than twice, whatever the text.
        while let Some(next) = self.group(text, &mut at, end) {
            end = (next + self.longest).min(text.len());
        }
        Some((first + GROUP_BYTES).saturating_sub(self.longest)..end)
    }

    /// The first group from `at` on, beginning before `end`, that may be of a form; `at` moves behind it.
    fn group(&self, text: &[u8], at: &mut usize, end: usize) -> Option<usize> {
        while *at < end {
            let group = text.get(*at..)?.first_chunk()?;
            let here = *at;
            *at += self.step;
            if bits_of(group).iter().all(|bit| self.bits[bit / 64] >> (bit % 64) & 1 == 1) {
                return Some(here);
            }
        }
        None
    }
}

/// Which bits stand for a group.
fn bits_of(group: &[u8; GROUP_BYTES]) -> [usize; 2] {
    // Multiplied by an odd number close to 2^64 divided by the golden ratio, near groups end up far from each other.
    let mixed = u64::from(u32::from_le_bytes(*group)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [(mixed >> 48) as usize, (mixed >> 32) as usize % BITS]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sieve(forms: &[&str]) -> Option<Sieve> {
        Sieve::new(forms.iter().map(|form| form.as_bytes()))
    }

    #[test]
    fn too_short_a_form_has_no_sieve() {
        assert!(sieve(&["abcdef", "abcdefghij"]).is_none());
        assert!(sieve(&["abcdefg", "abcdefghij"]).is_some_and(|sieve| sieve.step == STEP_MIN));
        assert!(sieve(&[]).is_none());
    }

    #[test]
    fn the_stretch_covers_a_form_wherever_it_is() {
        let forms = ["0123456789", "abcdefghijklmnopqrstuvwxyz"];
        let sieve = sieve(&forms).unwrap();
        for form in forms {
            for before in 0..80 {
                for after in 0..40 {
                    let text = [&".".repeat(before), form, &".".repeat(after)].concat();
                    let stretch = sieve.stretch(text.as_bytes(), 0).unwrap();
                    assert!(
                        stretch.start <= before && before + form.len() <= stretch.end,
                        "{before} {after} {stretch:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn other_text_has_no_stretch() {
        let sieve = sieve(&["0123456789", "abcdefghijklmnopqrstuvwxyz"]).unwrap();
        for text in ["", "012", "....................", "the quick brown fox jumps over the lazy dog"] {
            assert_eq!(sieve.stretch(text.as_bytes(), 0), None, "{text}");
        }
    }

    #[test]
    fn beginnings_that_follow_each_other_are_one_stretch() {
        let sieve = sieve(&["0123456789"]).unwrap();
        let text = "0123456".repeat(1000);
        let stretch = sieve.stretch(text.as_bytes(), 0).unwrap();
        assert!(stretch.len() > text.len() - 20, "{stretch:?}");
        assert_eq!(sieve.stretch(text.as_bytes(), stretch.end), None);
    }
}
