//! A push, in nine steps: 1. the name is looked up and a turn taken ([`crate::gate`]); 2. the upstream's advertisement is
//! read; 3. the client gets it, edited; 4. ref updates are read and policy has its first word; 5. the pack is received,
//! 6. verified and scanned ([`receive`]); 7. findings are judged ([`judge`]); 8. what is clean is sent ([`forward`]), and
//! 9. the upstream's own report is what the client gets.
//!
//! What follows from what is in [`step`], without I/O; [`serve`] only carries it out. No byte of a push reaches the
//! upstream before step 8, and success is never told that the upstream did not tell.

pub mod answer;
pub mod command;
mod conversation;
pub mod forward;
pub mod judge;
pub mod receive;
pub mod serve;
pub mod step;
