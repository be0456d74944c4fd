//! "Did you mean": the nearest of the known words, when one is near enough.

/// Words longer than this get no suggestion; the table of distances grows with their length.
const WORD_CHARS_MAX: usize = 64;

/// The known word that is nearest to `word`: at most a third of its letters differ, or it differs in case and
/// separators alone. Of two that are equally near, the first in order of the alphabet.
pub(super) fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    if word.chars().nth(WORD_CHARS_MAX).is_some() {
        return None;
    }
    let plain = |w: &str| w.to_lowercase().replace(['-', '_', ' '], "");
    let asked = plain(word);
    let limit = (word.chars().count().max(3)) / 3;
    known
        .into_iter()
        .map(|candidate| (distance(&asked, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *candidate != word)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The hint that names the nearest word.
pub(super) fn did_you_mean<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<String> {
    nearest(word, known).map(|near| format!("did you mean `{near}`?"))
}

/// The hint that names the nearest word, or else all of them.
pub(super) fn one_of(word: &str, known: &[&str]) -> String {
    did_you_mean(word, known.iter().copied()).unwrap_or_else(|| format!("write one of: {}", known.join(", ")))
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (above[j] + 1).min(row[j - 1] + 1).min(above[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_named_when_it_is_near() {
        let known = ["allowlist", "passthrough", "also_direct", "network", "allow_private"];
        for (word, expected) in [
            ("alowlist", Some("allowlist")),
            ("allow_list", Some("allowlist")),
            ("AllowList", Some("allowlist")),
            ("netwrok", Some("network")),
            ("allowPrivate", Some("allow_private")),
            ("volumes", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(nearest(&"a".repeat(100_000), known), None);
    }
}
