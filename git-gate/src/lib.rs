//! The only way out for commits: git's own protocol on the agent's side, ssh or https on the other. Fetches show what
//! the upstream has now; a push is received whole, verified and scanned before the upstream sees a byte of it.
//!
//! Without features this is the schema alone ([`config`], [`limits`], [`Secret`], and [`address`] and [`policy`], which read
//! parts of it), for whoever writes a configuration.
//! Feature `server` is the sidecar itself.
//!
//! The way of a push, each step able to refuse it: [`request`] (which remote?), [`advert`] (what is offered),
//! [`push`] (what it wants of refs, and [`policy`]), `pack` (is it whole and sound?), [`scan`] (is there a secret in
//! it?), [`known`] (was it upstream already?), and only then [`upstream`].

pub mod address;
pub mod config;
pub mod limits;
pub mod policy;

#[cfg(feature = "server")]
pub mod advert;
#[cfg(feature = "server")]
pub mod agent;
#[cfg(feature = "server")]
pub mod alone;
#[cfg(feature = "server")]
pub mod audit;
#[cfg(feature = "server")]
mod cli;
#[cfg(feature = "server")]
pub mod control;
#[cfg(feature = "server")]
pub mod exceptions;
#[cfg(feature = "server")]
pub mod fetch;
#[cfg(feature = "server")]
pub mod gate;
#[cfg(feature = "server")]
pub mod known;
#[cfg(feature = "server")]
pub mod objects;
#[cfg(feature = "server")]
pub mod pack;
#[cfg(feature = "server")]
pub mod pktline;
#[cfg(feature = "server")]
pub mod push;
#[cfg(feature = "server")]
pub mod report;
#[cfg(feature = "server")]
pub mod request;
#[cfg(feature = "server")]
pub mod scan;
#[cfg(feature = "server")]
pub mod spool;
#[cfg(feature = "server")]
pub mod stop;
#[cfg(feature = "server")]
pub mod table;
#[cfg(feature = "server")]
pub mod turns;
#[cfg(feature = "server")]
pub mod upstream;

pub use bottle_sidecar::Secret;
#[cfg(feature = "server")]
pub use cli::main;
pub use config::{NAME, PORT};
