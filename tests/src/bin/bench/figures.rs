//! From rounds to figures: medians, ratios, the table and the line of JSON. Pure.

use std::fmt::Write;
use std::time::Duration;

/// What can be measured of a bottle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// From the command to the first byte of the agent.
    Launch,
    /// From the command to nothing left on the engine.
    Teardown,
}

/// What one round of one side took.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// From the first command to the agent's first byte.
    pub launch: Duration,
    /// From the first command to nothing left.
    pub teardown: Duration,
}

/// What a figure has to reach.
#[derive(Debug, Clone, Copy)]
pub struct Bar {
    ratio: f64,
    seconds: f64,
}

impl Bar {
    /// The bars of the project.
    pub fn of(measure: Measure) -> Self {
        match measure {
            Measure::Launch => Self { ratio: 0.65, seconds: 3.0 },
            Measure::Teardown => Self { ratio: 0.9, seconds: 2.0 },
        }
    }
}

/// One measure of both sides.
#[derive(Debug, Clone)]
pub struct Figure {
    name: &'static str,
    ours: Spread,
    theirs: Spread,
    bar: Bar,
}

/// The middle of several rounds and their ends, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Figure {
    /// Sums rounds up.
    pub fn of(measure: Measure, ours: &[Round], theirs: &[Round], bar: Bar) -> Self {
        let (name, of): (_, fn(&Round) -> Duration) = match measure {
            Measure::Launch => ("launch", |r| r.launch),
            Measure::Teardown => ("teardown", |r| r.teardown),
        };
        Self { name, ours: spread(ours.iter().map(of)), theirs: spread(theirs.iter().map(of)), bar }
    }

    fn ratio(&self) -> f64 {
        self.ours.median / self.theirs.median
    }
}

fn spread(rounds: impl Iterator<Item = Duration>) -> Spread {
    let mut seconds: Vec<f64> = rounds.map(|d| d.as_secs_f64()).collect();
    seconds.sort_by(f64::total_cmp);
    let at = |i: usize| seconds.get(i).copied().unwrap_or(f64::NAN);
    let middle = seconds.len() / 2;
    let median = if seconds.len() % 2 == 1 { at(middle) } else { (at(middle.wrapping_sub(1)) + at(middle)) / 2.0 };
    Spread { least: at(0), median, most: at(seconds.len().wrapping_sub(1)) }
}

/// What is shown while it runs.
pub fn round_line(round: u32, ours: &Round, theirs: &Round) -> String {
    let s = |d: Duration| d.as_secs_f64();
    format!(
        "round {round:>2}: launch {:.2} s against {:.2} s, teardown {:.2} s against {:.2} s",
        s(ours.launch),
        s(theirs.launch),
        s(ours.teardown),
        s(theirs.teardown)
    )
}

/// The table for people.
pub fn table(figures: &[Figure]) -> String {
    let mut text =
        String::from("\n            our median (least to most)   docker's median (least to most)   ratio    bars\n");
    for f in figures {
        let cell = |s: Spread| format!("{:.2} s ({:.2} to {:.2})", s.median, s.least, s.most);
        let held = f.ratio() <= f.bar.ratio && f.ours.median <= f.bar.seconds;
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "{:<11} {:<28} {:<33} {:<8.2} {} ({:.2}, {:.1} s)",
            f.name,
            cell(f.ours),
            cell(f.theirs),
            f.ratio(),
            if held { "reached" } else { "missed" },
            f.bar.ratio,
            f.bar.seconds,
        );
    }
    text
}

/// One object of plain numbers.
pub fn json(figures: &[Figure]) -> String {
    let mut object = serde_json::Map::new();
    for f in figures {
        let numbers =
            [("ratio", f.ratio()), ("s", f.ours.median), ("docker_s", f.theirs.median), ("s_max", f.ours.most)];
        for (what, number) in numbers {
            let rounded = (number * 1000.0).round() / 1000.0;
            object.insert(format!("{}_{what}", f.name), rounded.into());
        }
    }
    serde_json::Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(launches: &[u64]) -> Vec<Round> {
        let round = |ms: &u64| Round { launch: Duration::from_millis(*ms), teardown: Duration::from_millis(ms * 2) };
        launches.iter().map(round).collect()
    }

    #[test]
    fn the_ratio_is_that_of_the_medians() {
        for (ours, theirs, ratio) in
            [(&[900, 100, 500][..], &[1000, 1000, 9000][..], 0.5), (&[100, 300], &[400, 400], 0.5)]
        {
            let (ours, theirs) = (rounds(ours), rounds(theirs));
            for measure in [Measure::Launch, Measure::Teardown] {
                let figure = Figure::of(measure, &ours, &theirs, Bar::of(measure));
                assert!((figure.ratio() - ratio).abs() < 1e-9, "{figure:?}");
            }
        }
    }

    #[test]
    fn the_last_line_is_plain_numbers() {
        let figure = Figure::of(Measure::Launch, &rounds(&[500]), &rounds(&[1000]), Bar::of(Measure::Launch));
        let line = json(&[figure]);
        let object: std::collections::BTreeMap<String, f64> = serde_json::from_str(&line).unwrap();
        assert_eq!((object["launch_ratio"], object["launch_s"]), (0.5, 0.5));
        assert!(!line.contains('\n'));
    }
}
