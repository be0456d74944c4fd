//! Where a person decides: the words an agent asks in and a person answers in, and the sidecar that carries them.
//!
//! Without features this is what the keeper shares with the sidecar, all of it without I/O: the schema ([`config`],
//! [`wire`]), the form of what may be asked ([`check`]), and what becomes of it ([`queue`]).
//! Feature `server` is the sidecar itself.
//!
//! The way of an ask: `server` (a request, whole and in time), `mcp` (a tool with its arguments), [`check`] (its form),
//! `desk` (handed to the keeper, and waited for), and at the keeper [`check`] again and [`queue`].

pub mod check;
pub mod config;
pub mod queue;
pub mod wire;

#[cfg(feature = "server")]
pub mod control;
#[cfg(feature = "server")]
pub mod desk;
#[cfg(feature = "server")]
pub mod log;
#[cfg(feature = "server")]
pub mod mcp;
#[cfg(feature = "server")]
pub mod patient;
#[cfg(feature = "server")]
pub mod places;
#[cfg(feature = "server")]
pub mod rate;
#[cfg(feature = "server")]
pub mod resources;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod tools;

pub use config::{NAME, PORT};
#[cfg(feature = "server")]
pub use control::main;
