//! Numbers with their units: `4GiB`, `30m`, `1.5` processors. Each has a floor and a ceiling.

use std::ops::RangeInclusive;

/// Units of size, in bytes.
const SIZES: [(&str, u64); 5] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1)];

/// Units of time, in seconds.
const TIMES: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 60 * 60), ("d", 24 * 60 * 60)];

/// Why a text is not such a number: what is wrong, and what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotAQuantity {
    pub(super) message: String,
    pub(super) hint: String,
}

/// Bytes: a whole number and `B`, `KiB`, `MiB`, `GiB` or `TiB`.
pub(super) fn bytes(text: &str, range: RangeInclusive<u64>) -> Result<u64, NotAQuantity> {
    let hint =
        match text.strip_suffix(['B', 'b']).unwrap_or(text).strip_suffix(['K', 'M', 'G', 'T', 'k', 'm', 'g', 't']) {
            Some(number) if number.bytes().all(|b| b.is_ascii_digit()) && !number.is_empty() => {
                let letter = text[number.len()..=number.len()].to_uppercase();
                format!("did you mean `{number}{letter}iB`?")
            }
            _ => "write a whole number and a unit: 512MiB, 4GiB, 1TiB".to_owned(),
        };
    quantity(text, &SIZES, "a size", &hint, range)
}

/// Seconds: a whole number and `s`, `m`, `h` or `d`.
pub(super) fn seconds(text: &str, range: RangeInclusive<u64>) -> Result<u64, NotAQuantity> {
    quantity(text, &TIMES, "a time", "write a whole number and a unit: 90s, 30m, 8h, 2d", range)
}

/// A whole number.
pub(super) fn count(text: &str, range: RangeInclusive<u64>) -> Result<u64, NotAQuantity> {
    quantity(text, &[("", 1)], "a number", "write a whole number", range)
}

/// Processors: a number with an optional fraction.
pub(super) fn processors(text: &str, range: RangeInclusive<f64>) -> Result<f64, NotAQuantity> {
    let written = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number = text.parse::<f64>().ok().filter(|number| written && number.is_finite());
    let bad = |message| NotAQuantity { message, hint: "write a number such as 2 or 0.5".to_owned() };
    match number {
        Some(number) if range.contains(&number) => Ok(number),
        Some(_) => Err(bad(format!("{text} is outside {} to {}", range.start(), range.end()))),
        None => Err(bad(format!("`{}` is not a number of processors", super::error::quoted(text)))),
    }
}

fn quantity(
    text: &str,
    units: &[(&str, u64)],
    what: &str,
    hint: &str,
    range: RangeInclusive<u64>,
) -> Result<u64, NotAQuantity> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let bad = |message| NotAQuantity { message, hint: hint.to_owned() };
    let Some(factor) = factor.filter(|_| digits > 0) else {
        return Err(bad(format!("`{}` is not {what}", super::error::quoted(text))));
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
        Some(value) if range.contains(&value) => Ok(value),
        Some(_) | None => {
            let (low, high) = (shown(*range.start(), units), shown(*range.end(), units));
            let message = format!("{} is outside {low} to {high}", super::error::quoted(text));
            Err(NotAQuantity { message, hint: format!("write {what} from {low} to {high}") })
        }
    }
}

/// A value in the largest unit that holds it without a rest.
fn shown(value: u64, units: &[(&str, u64)]) -> String {
    let best = units.iter().filter(|(_, factor)| value.is_multiple_of(*factor)).max_by_key(|(_, factor)| *factor);
    best.map_or_else(|| value.to_string(), |(unit, factor)| format!("{}{unit}", value / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_and_a_range() {
        let range = 1 << 20..=1 << 40;
        for (text, expected) in [
            ("4GiB", Ok(4 << 30)),
            ("1MiB", Ok(1 << 20)),
            ("1024KiB", Ok(1 << 20)),
            ("1TiB", Ok(1 << 40)),
            ("1048576B", Ok(1 << 20)),
            ("2TiB", Err("write a size from 1MiB to 1TiB")),
            ("1023KiB", Err("write a size from 1MiB to 1TiB")),
            ("99999999999999999999GiB", Err("write a size from")),
            ("18446744073709551615GiB", Err("write a size from")),
            ("4GB", Err("did you mean `4GiB`?")),
            ("4g", Err("did you mean `4GiB`?")),
            ("4", Err("write a whole number and a unit")),
            ("GiB", Err("write a whole number and a unit")),
            ("1.5GiB", Err("write a whole number and a unit")),
            ("-1GiB", Err("write a whole number and a unit")),
            ("4 GiB", Err("write a whole number and a unit")),
            ("", Err("write a whole number and a unit")),
            ("\u{e4}", Err("write a whole number and a unit")),
        ] {
            match (bytes(text, range.clone()), expected) {
                (Ok(value), Ok(expected)) => assert_eq!(value, expected, "{text}"),
                (Err(error), Err(part)) => assert!(error.hint.contains(part), "{text}: {error:?}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }

    #[test]
    fn times_counts_and_processors() {
        assert_eq!(seconds("8h", 60..=86400), Ok(28800));
        assert_eq!(seconds("30m", 60..=86400), Ok(1800));
        assert!(seconds("30", 60..=86400).is_err());
        assert!(seconds("59s", 60..=86400).is_err());
        assert!(seconds("2d", 60..=86400).is_err());
        assert_eq!(count("512", 16..=1000), Ok(512));
        assert!(count("15", 16..=1000).is_err());
        assert!(count("5e2", 16..=1000).is_err());
        assert_eq!(processors("0.5", 0.1..=256.0), Ok(0.5));
        assert_eq!(processors("2", 0.1..=256.0), Ok(2.0));
        for bad in ["0", "-1", "257", "inf", "NaN", "1e2", "", "two", "1.2.3"] {
            assert!(processors(bad, 0.1..=256.0).is_err(), "{bad}");
        }
    }
}
