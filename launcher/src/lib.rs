//! The operator's command: starts a bottle, keeps it, takes it away.

#[cfg(not(panic = "unwind"))]
compile_error!("teardown after a panic needs unwinding: do not build the launcher with panic = \"abort\"");

pub mod engine;
pub mod manifest;
pub mod plan;
pub mod workspace;
