//! Where a person decides: the words an agent asks in and a person answers in, and the sidecar that carries them.
//!
//! Without features this is what the keeper shares with the sidecar, all of it without I/O: the schema ([`config`],
//! [`wire`]), the form of what may be asked ([`check`]), and what becomes of it ([`queue`]).

pub mod check;
pub mod config;
pub mod queue;
pub mod wire;

pub use config::{NAME, PORT};
