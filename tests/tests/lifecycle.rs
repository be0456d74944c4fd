//! Life and death of a bottle on a real engine: however it ends, nothing of it is left there, the agent's work is at
//! home, and whoever asked is told the truth.

// The whole file is a test; what goes wrong in its helpers is a failed test as well.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "lifecycle/commands.rs"]
mod commands;
#[path = "lifecycle/credentials.rs"]
mod credentials;
#[path = "lifecycle/end.rs"]
mod end;
#[path = "lifecycle/engine.rs"]
mod engine;
#[path = "lifecycle/keeper.rs"]
mod keeper;
#[path = "lifecycle/large.rs"]
mod large;
#[path = "lifecycle/scene.rs"]
mod scene;
#[path = "lifecycle/sidecars.rs"]
mod sidecars;
#[path = "lifecycle/signals.rs"]
mod signals;
#[path = "lifecycle/streams.rs"]
mod streams;
#[path = "lifecycle/terminal.rs"]
mod terminal;
