//! Where a person decides: the words an agent asks in and a person answers in, and the sidecar that carries them.

pub mod config;
pub mod wire;

pub use config::{NAME, PORT};
