//! From what was measured to the table and the line of JSON. Pure.

use super::load::median;
use std::fmt::Write as _;

/// Rounds of one side.
#[derive(Debug, Default, Clone)]
pub struct Side {
    /// Requests a second.
    pub rps: Vec<f64>,
    /// Median milliseconds of one request.
    pub p50_ms: Vec<f64>,
    /// Bytes a second of a long reply.
    pub bytes: Vec<f64>,
    /// Milliseconds from an event's writing to its reading.
    pub event_ms: Vec<f64>,
}

/// Everything that was measured.
#[derive(Debug, Default, Clone)]
pub struct Numbers {
    /// cred-proxy, with a credential.
    pub ours: Side,
    /// nginx.
    pub nginx: Side,
    /// No proxy.
    pub direct: Side,
    /// Bytes a second with masking.
    pub masked: Vec<f64>,
    /// And without.
    pub bare: Vec<f64>,
    /// Milliseconds from the start of a process until it takes connections.
    pub start_to_ready_ms: Vec<f64>,
    /// VmRSS before the first request.
    pub rss_idle_mb: f64,
    /// VmRSS with a thousand open streams.
    pub rss_1000_streams_mb: f64,
    /// The binary, which is the image.
    pub image_mb: f64,
}

/// A figure, its bar, and which side of it is good.
struct Line {
    name: &'static str,
    value: f64,
    bar: Bar,
    detail: String,
}

enum Bar {
    Least(f64),
    Most(f64),
}

impl Bar {
    fn holds(&self, value: f64) -> bool {
        match self {
            Self::Least(least) => value >= *least,
            Self::Most(most) => value <= *most,
        }
    }
}

impl Numbers {
    /// What is shown while it runs.
    pub fn round_line(&self, round: u32) -> String {
        let last = |all: &[f64]| all.last().copied().unwrap_or(f64::NAN);
        let side = |side: &Side| format!("{:.0}/s {:.3} ms", last(&side.rps), last(&side.p50_ms));
        format!(
            "round {round:>2}: cred-proxy {}, nginx {}, direct {}",
            side(&self.ours),
            side(&self.nginx),
            side(&self.direct)
        )
    }

    fn lines(&self) -> Vec<Line> {
        let m = |all: &[f64]| median(all.to_vec());
        let (ours, nginx, direct) = (&self.ours, &self.nginx, &self.direct);
        let per_second = format!("{:.0}/s, nginx {:.0}/s, direct {:.0}/s", m(&ours.rps), m(&nginx.rps), m(&direct.rps));
        let latency =
            format!("{:.3} ms, nginx {:.3} ms, direct {:.3} ms", m(&ours.p50_ms), m(&nginx.p50_ms), m(&direct.p50_ms));
        let stream = format!("{:.0} MB/s, nginx {:.0} MB/s", m(&ours.bytes) / 1e6, m(&nginx.bytes) / 1e6);
        let events = format!(
            "{:.3} ms, nginx {:.3} ms, direct {:.3} ms",
            m(&ours.event_ms),
            m(&nginx.event_ms),
            m(&direct.event_ms)
        );
        let mask = format!("{:.0} MB/s with, {:.0} MB/s without", m(&self.masked) / 1e6, m(&self.bare) / 1e6);
        let line = |name, value, bar, detail: &str| Line { name, value, bar, detail: detail.to_owned() };
        vec![
            line("cred_proxy_rps_ratio", m(&ours.rps) / m(&nginx.rps), Bar::Least(1.0), &per_second),
            line("cred_proxy_added_p50_ms", m(&ours.p50_ms) - m(&direct.p50_ms), Bar::Most(0.5), &latency),
            line("cred_proxy_stream_ratio", m(&ours.bytes) / m(&nginx.bytes), Bar::Least(0.9), &stream),
            line("sse_delay_ms", m(&ours.event_ms) - m(&direct.event_ms), Bar::Most(1.0), &events),
            line("rss_idle_mb", self.rss_idle_mb, Bar::Most(12.0), "VmRSS"),
            line("rss_1000_streams_mb", self.rss_1000_streams_mb, Bar::Most(64.0), "VmRSS"),
            line("mask_cost", 1.0 - m(&self.masked) / m(&self.bare), Bar::Most(0.15), &mask),
            line("start_to_ready_ms", m(&self.start_to_ready_ms), Bar::Most(150.0), "process to first connection"),
            line("image_mb", self.image_mb, Bar::Most(12.0), "the static binary"),
        ]
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut text = format!("\n{:<26}{:>10}  {:<18}{}\n", "", "measured", "bar", "medians");
        for line in self.lines() {
            let bar = match line.bar {
                Bar::Least(least) => {
                    format!("{} >= {least}", if line.bar.holds(line.value) { "reached" } else { "MISSED" })
                }
                Bar::Most(most) => {
                    format!("{} <= {most}", if line.bar.holds(line.value) { "reached" } else { "MISSED" })
                }
            };
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{:<26}{:>10.3}  {:<18}{}", line.name, line.value, bar, line.detail);
        }
        let headroom = median(self.direct.rps.clone()) / median(self.nginx.rps.clone());
        let _ = writeln!(text, "the upstream alone serves {headroom:.1} times what nginx passes on");
        text
    }

    /// One object of plain numbers.
    pub fn json(&self) -> String {
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        let lines = self.lines().into_iter();
        let object: serde_json::Map<_, _> = lines.map(|l| (l.name.to_owned(), rounded(l.value).into())).collect();
        serde_json::Value::Object(object).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> Numbers {
        let side = |factor: f64| Side {
            rps: vec![100.0 * factor, 300.0 * factor, 200.0 * factor],
            p50_ms: vec![0.2 / factor],
            bytes: vec![1e9 * factor],
            event_ms: vec![0.3 / factor],
        };
        Numbers {
            ours: side(2.0),
            nginx: side(1.0),
            direct: side(4.0),
            masked: vec![9e8],
            bare: vec![1e9],
            start_to_ready_ms: vec![1.0],
            ..Numbers::default()
        }
    }

    #[test]
    fn figures_are_ratios_and_differences_of_medians() {
        let line = numbers().json();
        let object: std::collections::BTreeMap<String, f64> = serde_json::from_str(&line).unwrap();
        for (name, value) in [
            ("cred_proxy_rps_ratio", 2.0),
            ("cred_proxy_added_p50_ms", 0.05),
            ("cred_proxy_stream_ratio", 2.0),
            ("sse_delay_ms", 0.075),
            ("mask_cost", 0.1),
        ] {
            assert!((object[name] - value).abs() < 1e-9, "{name}: {line}");
        }
        assert!(!line.contains('\n'));
    }

    #[test]
    fn a_bar_that_is_missed_is_said() {
        let slow = Numbers { image_mb: 13.0, ..numbers() };
        let missed = |numbers: &Numbers| numbers.table().lines().filter(|line| line.contains("MISSED")).count();
        assert_eq!((missed(&slow), missed(&Numbers { image_mb: 12.0, ..numbers() })), (1, 0));
    }
}
