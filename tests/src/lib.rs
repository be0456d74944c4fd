//! The proofs. This library is what the claims share: the small world they and the demo run against, and the image of
//! real clients. It never holds a real credential: every secret in it is a canary, minted for one run.

pub mod client_image;
pub mod world;
