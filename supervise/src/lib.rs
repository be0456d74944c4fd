//! Where a person decides. So far this crate holds only what the launcher must know to keep a place for the sidecar:
//! its name and its port, which go into every bottle's addresses, `NO_PROXY` and wall from the start.

/// The name by which the agent reaches the sidecar.
pub const NAME: &str = "supervise";

/// The port of its MCP endpoint.
pub const PORT: u16 = 9100;
