//! What a launch will do, as data.

pub mod seccomp;
