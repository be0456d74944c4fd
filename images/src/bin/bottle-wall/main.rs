//! `bottle-wall`: the one-shot that is joined to the agent's network namespace and leaves the wall behind.

use std::process::ExitCode;

// Not in the library: `bottle-init` would be a third larger for what it never uses.
mod wall;

fn main() -> ExitCode {
    wall::main()
}
