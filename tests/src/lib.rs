//! The proofs. This library is what the claims share, and what others can test their own bottles with: the small world
//! they and the demo run against, an image of real clients, and the [`harness`] that drives real bottles on a real
//! engine. It never holds a real credential: every secret in it is a canary, minted for one run.

pub mod client_image;
#[cfg(feature = "harness")]
pub mod dist;
#[cfg(feature = "harness")]
#[allow(clippy::print_stderr, reason = "a test that fails or is skipped says so where the test runner shows it")]
pub mod harness;
pub mod world;
