//! A figure beside the bar that it has to reach: a table for people, and one line of JSON. Pure.

use std::fmt::Write as _;

/// What a figure has to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    /// So much at least.
    Least(f64),
    /// So much at most.
    Most(f64),
}

impl Bar {
    /// Is it reached? A figure that was not measured (NaN) reaches nothing.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::Least(least) => value >= least,
            Self::Most(most) => value <= most,
        }
    }
}

/// One figure.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its name in the table and in the JSON; it ends with the unit, if it has one.
    pub name: &'static str,
    /// What was measured.
    pub value: f64,
    /// What it has to reach; `None` stands beside the others for comparison.
    pub bar: Option<Bar>,
    /// What it was made of.
    pub detail: String,
}

/// The table for people.
pub fn table(lines: &[Line]) -> String {
    let mut text = format!("\n{:<28}{:>10}  {:<18}{}\n", "", "measured", "bar", "medians");
    for Line { name, value, bar, detail } in lines {
        let words = bar.map_or_else(String::new, |bar| {
            let (sign, number) = match bar {
                Bar::Least(least) => (">=", least),
                Bar::Most(most) => ("<=", most),
            };
            format!("{} {sign} {number}", if bar.holds(*value) { "reached" } else { "MISSED" })
        });
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{name:<28}{value:>10.3}  {words:<18}{detail}");
    }
    text
}

/// One object of plain numbers, rounded to thousandths.
pub fn json(lines: &[Line]) -> String {
    let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
    let object: serde_json::Map<_, _> =
        lines.iter().map(|line| (line.name.to_owned(), rounded(line.value).into())).collect();
    serde_json::Value::Object(object).to_string()
}

/// The one in the middle, or between the two in the middle; NaN of none.
pub fn median(all: &[f64]) -> f64 {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    match all.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => all[middle],
        _ => (all[middle - 1] + all[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_that_is_missed_is_said_and_one_without_a_bar_says_nothing() {
        let line = |value, bar| Line { name: "x_s", value, bar, detail: "of y".to_owned() };
        for (value, bar, word) in [
            (1.0, Some(Bar::Most(1.0)), "reached <= 1"),
            (1.1, Some(Bar::Most(1.0)), "MISSED <= 1"),
            (2.0, Some(Bar::Least(2.0)), "reached >= 2"),
            (1.9, Some(Bar::Least(2.0)), "MISSED >= 2"),
            (f64::NAN, Some(Bar::Most(1.0)), "MISSED"),
            (f64::NAN, Some(Bar::Least(1.0)), "MISSED"),
        ] {
            assert!(table(&[line(value, bar)]).contains(word), "{value} {word}");
        }
        let bare = table(&[line(3.0, None)]);
        assert!(!bare.contains("MISSED") && !bare.contains("reached"), "{bare}");
        assert_eq!(json(&[line(1.23456, None)]), r#"{"x_s":1.235}"#);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9 && (median(&[4.0, 1.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }
}
