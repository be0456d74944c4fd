//! The launcher, inside this package, so that Cargo builds it with the tests and they know where it is.

fn main() -> std::process::ExitCode {
    launcher::main()
}
