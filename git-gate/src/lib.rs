//! The only way out for commits: git's own protocol on the agent's side, ssh or https on the other. Fetches show what
//! the upstream has now; a push is received whole, verified and scanned before the upstream sees a byte of it.
//!
//! Without features this is the schema alone ([`config`], [`limits`], [`Secret`]), for whoever writes a configuration.
//! Feature `server` is the sidecar itself.

pub mod config;
pub mod limits;
#[cfg(feature = "server")]
pub mod objects;
#[cfg(feature = "server")]
pub mod pack;
mod secret;
#[cfg(feature = "server")]
pub mod spool;

pub use config::{NAME, PORT};
pub use secret::Secret;
