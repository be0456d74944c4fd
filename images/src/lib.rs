//! What runs inside a bottle's containers and is not a sidecar: the first process ([`init`]), the wall around the
//! agent's network (the `bottle-wall` bin), and the pins of images that are not ours.

pub mod init;
