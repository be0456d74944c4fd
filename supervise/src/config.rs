//! What supervise is told, and what it says. The launcher writes these types, the sidecar reads them, and the other way
//! round; nobody else knows the format.
//!
//! The control channel is standard input and output, one JSON object a line. The sidecar decides nothing: it checks the
//! form of what an agent asks, hands it to the keeper as [`Event::Ask`], and tells the agent what the keeper says. All
//! it knows it has been told, and is told again when it is started again.

use crate::wire::{Answer, Change, Current};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The name by which the agent reaches the sidecar.
pub const NAME: &str = "supervise";

/// The port of its MCP endpoint.
pub const PORT: u16 = 9100;

/// The path of its MCP endpoint.
pub const PATH: &str = "/mcp";

/// The folder in the agent's container that says the same as the resources; the launcher keeps it true.
pub const FOLDER: &str = "/.bottle/current-config";

/// One line of standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// The first line, and only the first: the sidecar listens from here on.
    Configure {
        /// The configuration.
        config: Config,
        /// How the bottle is.
        current: Box<Current>,
        /// Every proposal's state, so that a sidecar that was started again forgets nothing.
        answers: Vec<Answer>,
    },
    /// How the bottle is now.
    Current {
        /// All of it.
        current: Box<Current>,
    },
    /// What an [`Event::Ask`] came to: the state of the proposal that it made, or of the one that asked the same before.
    Asked {
        /// The number of the ask.
        call: u64,
        /// Its state.
        answer: Answer,
    },
    /// What was asked can never be approved, or too much is open.
    Denied {
        /// The number of the ask.
        call: u64,
        /// Why, and what to do, for the agent.
        reason: String,
    },
    /// A proposal has another state now.
    Answer {
        /// Its state.
        answer: Answer,
    },
}

/// What the sidecar is told once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen; an address of the bottle's internal network.
    pub listen: SocketAddr,
    /// The longest that a call waits for a verdict, in seconds; below what clients wait for an answer (60).
    #[serde(default = "wait_seconds")]
    pub wait_seconds: u64,
}

fn wait_seconds() -> u64 {
    45
}

/// One line of standard output.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// It listens.
    Ready,
    /// A command has been obeyed.
    Configured,
    /// A command changed nothing.
    Refused {
        /// Why.
        reason: String,
    },
    /// An agent asks for a change. Answered by [`Command::Asked`] or [`Command::Denied`].
    Ask {
        /// Counted by the sidecar since it started.
        call: u64,
        /// What is asked for: well formed, and no more is promised.
        change: Change,
        /// The agent's words.
        justification: String,
    },
}
