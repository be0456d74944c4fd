//! Exit statuses: the agent's own, 2 for usage and manifests, 125 for the engine and the launch, 130 when interrupted.

use serde::{Deserialize, Serialize};

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// It did what was asked.
    Success,
    /// It ran, and the answer is no (a row of `demo` that did not hold, a no of `doctor`, a log that `audit verify` refuses, a refused verdict).
    No,
    /// Usage, or a manifest.
    Usage,
    /// The engine, or the launch.
    Launch,
    /// A person stopped it.
    Interrupted,
    /// What the agent's program ended with.
    Agent(u8),
}

impl Exit {
    /// The number the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::Launch => 125,
            Self::Interrupted => 130,
            Self::Agent(code) => code,
        }
    }
}
