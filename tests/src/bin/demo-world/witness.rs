//! Where evidence goes: standard output, whole lines, flushed at once.

use bottle_tests::world::Evidence;
use std::io::Write as _;

/// Writes down what a role saw.
#[derive(Debug, Clone, Copy, Default)]
pub struct Witness;

impl Witness {
    /// Writes one line. The lock keeps lines whole.
    pub fn saw(self, evidence: &Evidence) {
        let mut out = std::io::stdout().lock();
        // A reader that went away wants no more evidence; the end of input ends the role.
        let _ = out.write_all(evidence.line().as_bytes()).and_then(|()| out.flush());
    }
}
