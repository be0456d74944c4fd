//! `bottle-init`: the first process of the agent's and both pipelocks' containers.

use std::process::ExitCode;

fn main() -> ExitCode {
    bottle_images::init::mode::main()
}
