//! A push.

pub mod answer;
pub mod command;
