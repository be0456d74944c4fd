//! The pack parser against packs of real git, and against packs that no git writes.

#![allow(clippy::unwrap_used)]

mod builder;
mod collector;
mod git;
mod hostile;
mod large;
mod limits;
mod lookups;
mod real;
