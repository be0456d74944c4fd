//! Speaks pipelock's YAML: a typed [`policy::Policy`] in, a strict configuration file out, and back again what pipelock
//! says in its log.
//!
//! Pipelock is off the shelf and holds the wall around the agent's traffic; this crate alone knows its format. It is pure:
//! no file, socket or clock is touched here. It must never render a file that leaves a security switch to a default,
//! since defaults change between versions, and never one that lets a host through that the policy does not name.

pub mod command;
pub mod log;
pub mod pin;
pub mod policy;
pub mod reload;
pub mod schema;

pub use pin::Pin;
pub use policy::{AgentPolicy, Policy, RoutePolicy, Sidecar};
pub use reload::{Reload, reload_allowed};
pub use schema::render;

/// The folder of pipelock's files in its container: a tmpfs that `bottle-init` fills.
pub const DIR: &str = "/etc/pipelock";

/// The port pipelock listens on.
pub const PORT: u16 = 8888;

/// The configuration, in [`DIR`].
pub const CONFIG_FILE: &str = "pipelock.yaml";

/// The certificate that intercepted hosts are signed with, in [`DIR`].
pub const CA_FILE: &str = "ca.pem";

/// Its key, in [`DIR`]: SEC1 with the curve's name; pipelock refuses PKCS#8, and a mode above [`CA_KEY_MODE`].
pub const CA_KEY_FILE: &str = "ca-key.pem";

/// The mode the key's file must have.
pub const CA_KEY_MODE: u32 = 0o600;

/// The roots that upstreams are checked against, in [`DIR`]; named to pipelock by [`ROOTS_VARIABLE`].
pub const ROOTS_FILE: &str = "upstream-roots.pem";

/// The variable that names the roots' file to pipelock.
pub const ROOTS_VARIABLE: &str = "SSL_CERT_FILE";

/// The program and its arguments.
pub const COMMAND: [&str; 4] = ["/pipelock", "run", "--config", "/etc/pipelock/pipelock.yaml"];

/// Where a file of [`DIR`] is.
pub fn path(file: &str) -> String {
    format!("{DIR}/{file}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_runs_on_the_file_that_is_rendered() {
        assert_eq!(COMMAND[3], path(CONFIG_FILE));
    }
}
