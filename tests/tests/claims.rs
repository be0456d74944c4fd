//! The claims: what THREATS.md says of a bottle, each sentence attacked from inside a real one with real clients, and
//! judged by what the other side saw. Every refusal stands beside its allowed neighbour.
//!
//! Most claims share two bottles ([`claims::ground`]); those that break a bottle have one of their own.

// The whole file is a test; what goes wrong in its helpers is a failed test as well.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod claims {
    pub mod docker;
    pub mod doors;
    pub mod ground;
    pub mod lease;

    mod credential_floods;
    mod credential_framing;
    mod credential_masking;
    mod credential_replies;
    mod credential_requests;
    mod credentials;
    mod egress;
    mod egress_network;
    mod fail_closed;
    mod git_pushes;
    mod hardening;
    mod host;
    mod hostile;
    mod kernel;
    mod neighbours;
    mod preflight;
    mod resolver;
    mod route;
    mod switch;
    mod tls;
}
