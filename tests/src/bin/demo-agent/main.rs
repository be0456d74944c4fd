//! The hostile agent of the demo and the claims. It tries what a compromised agent would and says, one JSON line each,
//! what happened; it exits 0 only if everything held. It never decides by what it hopes: a pure judge reads what was
//! seen, and what could not be tried has not held.

mod attempts;
mod git;
mod http;
mod judge;
mod known;
mod probe;
mod start;
mod words;

fn main() -> std::process::ExitCode {
    start::main()
}
