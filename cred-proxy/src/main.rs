//! The sidecar's binary: everything is in the library, so that it can be tested.

/// A quarter of a small request's work is taking memory and giving it back, and a static glibc is slow at both.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cred_proxy::main()
}
