//! `bottle-wall`: the one-shot that is joined to the agent's network namespace and leaves the wall behind.

use std::process::ExitCode;

fn main() -> ExitCode {
    bottle_images::wall::main()
}
