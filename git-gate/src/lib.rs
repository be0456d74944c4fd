//! The only way out for commits. So far this crate holds only what the launcher must know to keep a place for the
//! sidecar: its name and its port, which go into every bottle's addresses, `NO_PROXY` and wall from the start.

/// The name by which the agent reaches the sidecar.
pub const NAME: &str = "git-gate";

/// The port of the git protocol, which the sidecar will listen on (IANA: 9418).
pub const PORT: u16 = 9418;

pub mod scan;
