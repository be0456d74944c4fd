//! The sidecar's binary: everything is in the library, so that it can be tested.

fn main() -> std::process::ExitCode {
    supervise::main()
}
