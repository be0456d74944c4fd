//! From what was measured to the table and the line of JSON. Pure.

use crate::bars::{self, Bar, Line, median};

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
        let (ours, nginx, direct) = (&self.ours, &self.nginx, &self.direct);
        let per_second = format!(
            "{:.0}/s, nginx {:.0}/s, direct {:.0}/s",
            median(&ours.rps),
            median(&nginx.rps),
            median(&direct.rps)
        );
        let latency = format!(
            "{:.3} ms, nginx {:.3} ms, direct {:.3} ms",
            median(&ours.p50_ms),
            median(&nginx.p50_ms),
            median(&direct.p50_ms)
        );
        let stream = format!("{:.0} MB/s, nginx {:.0} MB/s", median(&ours.bytes) / 1e6, median(&nginx.bytes) / 1e6);
        let events = format!(
            "{:.3} ms, nginx {:.3} ms, direct {:.3} ms",
            median(&ours.event_ms),
            median(&nginx.event_ms),
            median(&direct.event_ms)
        );
        let mask = format!("{:.0} MB/s with, {:.0} MB/s without", median(&self.masked) / 1e6, median(&self.bare) / 1e6);
        let line = |name, value, bar, detail: &str| Line { name, value, bar: Some(bar), detail: detail.to_owned() };
        vec![
            line("cred_proxy_rps_ratio", median(&ours.rps) / median(&nginx.rps), Bar::Least(1.0), &per_second),
            line("cred_proxy_added_p50_ms", median(&ours.p50_ms) - median(&direct.p50_ms), Bar::Most(0.5), &latency),
            line("cred_proxy_stream_ratio", median(&ours.bytes) / median(&nginx.bytes), Bar::Least(0.9), &stream),
            line("sse_delay_ms", median(&ours.event_ms) - median(&direct.event_ms), Bar::Most(1.0), &events),
            line("rss_idle_mb", self.rss_idle_mb, Bar::Most(12.0), "VmRSS"),
            line("rss_1000_streams_mb", self.rss_1000_streams_mb, Bar::Most(64.0), "VmRSS"),
            line("mask_cost", 1.0 - median(&self.masked) / median(&self.bare), Bar::Most(0.15), &mask),
            line("start_to_ready_ms", median(&self.start_to_ready_ms), Bar::Most(150.0), "process to first connection"),
            line("image_mb", self.image_mb, Bar::Most(12.0), "the static binary"),
        ]
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let headroom = median(&self.direct.rps) / median(&self.nginx.rps);
        format!("{}the upstream alone serves {headroom:.1} times what nginx passes on\n", bars::table(&self.lines()))
    }

    /// One object of plain numbers.
    pub fn json(&self) -> String {
        bars::json(&self.lines())
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
}
