//! From what was measured to figures with their bars. Pure.

use crate::bars::{Bar, Line, median};

/// Everything that was measured, in seconds unless a name says otherwise. What was not is empty.
#[derive(Debug, Default, Clone)]
pub struct Numbers {
    /// Full clones from the sshd.
    pub clone_direct: Vec<f64>,
    /// Full clones through the gate.
    pub clone_gate: Vec<f64>,
    /// Full pushes to the sshd.
    pub push_direct: Vec<f64>,
    /// Full pushes through the gate.
    pub push_gate: Vec<f64>,
    /// Full pushes to the mirror.
    pub push_mirror: Vec<f64>,
    /// Pushes of one commit to the sshd.
    pub commit_direct: Vec<f64>,
    /// Pushes of one commit through the gate.
    pub commit_gate: Vec<f64>,
    /// VmRSS before any work, in megabytes of 10^6 bytes.
    pub rss_idle_mb: Option<f64>,
    /// A push of 1 GiB: VmHWM in megabytes, and the seconds that it took.
    pub large_push: Option<(f64, f64)>,
    /// The binary, which is the image, in megabytes.
    pub image_mb: Option<f64>,
}

/// 256 MiB in megabytes of 10^6 bytes.
const LARGE_PUSH_MB: f64 = 268.435;

impl Numbers {
    /// The figures of what was measured.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut line = |name, value, bar, detail| lines.push(Line { name, value, bar, detail });
        let spread = |all: &[f64]| {
            let least = all.iter().copied().fold(f64::INFINITY, f64::min);
            let most = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            format!("{:.2} s ({least:.2} to {most:.2})", median(all))
        };
        if !self.clone_gate.is_empty() {
            let detail = format!("gate {}, direct {}", spread(&self.clone_gate), spread(&self.clone_direct));
            let ratio = median(&self.clone_gate) / median(&self.clone_direct);
            line("clone_ratio", ratio, Some(Bar::Most(1.15)), detail);
        }
        if !self.push_gate.is_empty() {
            let detail = format!("gate {}, direct {}", spread(&self.push_gate), spread(&self.push_direct));
            let ratio = median(&self.push_gate) / median(&self.push_direct);
            line("push_ratio", ratio, Some(Bar::Most(1.5)), detail);
        }
        if !self.push_mirror.is_empty() {
            let ratio = median(&self.push_mirror) / median(&self.push_gate);
            let detail = format!("mirror {}", spread(&self.push_mirror));
            line("push_vs_mirror", ratio, Some(Bar::Least(2.0)), detail);
        }
        if !self.commit_gate.is_empty() {
            let detail = format!("gate {}, direct {}", spread(&self.commit_gate), spread(&self.commit_direct));
            let extra_ms = (median(&self.commit_gate) - median(&self.commit_direct)) * 1e3;
            line("push_one_commit_extra_ms", extra_ms, Some(Bar::Most(150.0)), detail);
        }
        if let Some((rss_mb, seconds)) = self.large_push {
            let detail = format!("VmHWM; {seconds:.1} s");
            line("rss_1_gib_push_mb", rss_mb, Some(Bar::Most(LARGE_PUSH_MB)), detail);
        }
        if let Some(idle_mb) = self.rss_idle_mb {
            line("rss_idle_mb", idle_mb, Some(Bar::Most(12.0)), "VmRSS".to_owned());
        }
        if let Some(image_mb) = self.image_mb {
            line("image_mb", image_mb, Some(Bar::Most(12.0)), "the static binary".to_owned());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_ratios_and_differences_of_medians() {
        let numbers = Numbers {
            clone_direct: vec![4.0, 9.0, 3.0],
            clone_gate: vec![4.4],
            push_direct: vec![5.0],
            push_gate: vec![6.0],
            push_mirror: vec![15.0],
            commit_direct: vec![0.4],
            commit_gate: vec![0.5],
            rss_idle_mb: Some(5.0),
            large_push: Some((100.0, 60.0)),
            image_mb: Some(8.0),
        };
        let lines = numbers.lines();
        let value = |name: &str| lines.iter().find(|line| line.name == name).unwrap().value;
        for (name, wanted) in [
            ("clone_ratio", 1.1),
            ("push_ratio", 1.2),
            ("push_vs_mirror", 2.5),
            ("push_one_commit_extra_ms", 100.0),
            ("rss_1_gib_push_mb", 100.0),
            ("rss_idle_mb", 5.0),
            ("image_mb", 8.0),
        ] {
            assert!((value(name) - wanted).abs() < 1e-9, "{name}: {}", value(name));
        }
        assert!(Numbers::default().lines().is_empty(), "what was not measured has no figure");
    }
}
