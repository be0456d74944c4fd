//! Holds the credentials that the agent must not see, and puts them into its requests.
//!
//! Without features this is the schema alone ([`config`], [`Secret`]) and what reads paths and permissions
//! ([`path`], [`allow`]), for whoever writes a table. Feature `server` is the sidecar itself.
//!
//! The order in which a request passes, each step able to refuse it: [`framing`] (is its framing beyond doubt?),
//! [`decide`] (which route, and may it?), [`inject`] and [`outgoing`] (what goes on, with the credential), [`upstream`] and
//! [`pool`] (the way out), [`reply`] (what comes back), [`mask`] (without the credential). [`exchange`] takes one through all
//! of it, by the table that its connection's [`seat`] holds. The sidecar is told what to do on standard input ([`control`]),
//! or, deployed alone, by a file ([`standalone`]).

#[cfg(feature = "server")]
pub mod address;
#[cfg(feature = "server")]
pub mod alarm;
pub mod allow;
#[cfg(feature = "server")]
pub mod body;
#[cfg(feature = "server")]
pub mod bridge;
#[cfg(feature = "server")]
pub mod cli;
pub mod config;
#[cfg(feature = "server")]
pub mod connection;
#[cfg(feature = "server")]
pub mod control;
#[cfg(feature = "server")]
pub mod cut;
#[cfg(feature = "server")]
pub mod decide;
#[cfg(feature = "server")]
pub mod decode;
#[cfg(feature = "server")]
pub mod deployment;
#[cfg(feature = "server")]
pub mod exchange;
#[cfg(feature = "server")]
pub mod frames;
#[cfg(feature = "server")]
pub mod framing;
#[cfg(feature = "server")]
pub mod gathered;
#[cfg(feature = "server")]
pub mod inject;
#[cfg(feature = "server")]
pub mod leg;
#[cfg(feature = "server")]
pub mod limits;
#[cfg(feature = "server")]
pub mod live;
#[cfg(feature = "server")]
pub mod log;
#[cfg(feature = "server")]
pub mod mask;
#[cfg(feature = "server")]
pub mod outgoing;
pub mod path;
#[cfg(feature = "server")]
pub mod pool;
#[cfg(feature = "server")]
pub mod reading;
#[cfg(feature = "server")]
pub mod refresh;
#[cfg(feature = "server")]
pub mod refuse;
#[cfg(feature = "server")]
pub mod reply;
#[cfg(feature = "server")]
pub mod seat;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod shared;
#[cfg(feature = "server")]
pub mod sidecar;
#[cfg(feature = "server")]
pub mod standalone;
#[cfg(feature = "server")]
pub mod table;
#[cfg(feature = "server")]
pub mod upload;
#[cfg(feature = "server")]
pub mod upstream;
#[cfg(feature = "server")]
pub mod websocket;
#[cfg(feature = "server")]
pub mod workers;
#[cfg(feature = "server")]
pub mod writing;

pub use bottle_sidecar::Secret;
#[cfg(feature = "server")]
pub use cli::main;
