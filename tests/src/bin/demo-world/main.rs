//! The hosts of the small world, one role a process: `demo-world api | attacker | resolver | neighbour | git`.
//! Configuration is one JSON line on standard input, evidence goes out as JSON lines on standard output, the end of input ends it.
//! It never decides whether a promise was kept: it says what it saw.

mod api;
mod attacker;
mod forge;
mod forms;
mod git;
mod listen;
mod model;
mod neighbour;
mod npm;
mod reply;
mod resolver;
mod start;
mod wire;
mod witness;

fn main() -> std::process::ExitCode {
    start::main()
}
