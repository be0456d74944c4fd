//! Holds the credentials that the agent must not see, and puts them into its requests.

pub mod config;
mod secret;

pub use secret::Secret;
