//! `launcher`: see the library.

fn main() -> std::process::ExitCode {
    launcher::main()
}
