//! What runs inside a bottle's containers and is not a sidecar: the first process ([`init`]), the wall around the
//! agent's network ([`wall`], built with feature `bins` alone), and the pins of images that are not ours.

pub mod init;
#[cfg(feature = "bins")]
pub mod wall;
