//! Holds the credentials that the agent must not see, and puts them into its requests.
//!
//! Without features this is the schema alone ([`config`], [`Secret`]) and what reads paths and permissions
//! ([`path`], [`allow`]), for whoever writes a table. Feature `server` is the sidecar itself.
//!
//! The order in which a request passes, each step able to refuse it: [`framing`] (is its framing beyond doubt?),
//! [`decide`] (which route, and may it?), [`inject`] (what goes on, with the credential), [`upstream`] (the way out),
//! [`reply`] (what comes back), [`mask`] (without the credential).

#[cfg(feature = "server")]
pub mod address;
pub mod allow;
pub mod config;
pub mod path;
mod secret;

#[cfg(feature = "server")]
pub mod body;
#[cfg(feature = "server")]
pub mod control;
#[cfg(feature = "server")]
pub mod decide;
#[cfg(feature = "server")]
pub mod framing;
#[cfg(feature = "server")]
pub mod inject;
#[cfg(feature = "server")]
pub mod log;
#[cfg(feature = "server")]
pub mod mask;
#[cfg(feature = "server")]
pub mod refuse;
#[cfg(feature = "server")]
pub mod reply;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod table;
#[cfg(feature = "server")]
pub mod tunnel;
#[cfg(feature = "server")]
pub mod upstream;

#[cfg(feature = "server")]
pub use control::main;
pub use secret::Secret;
