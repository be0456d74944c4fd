//! x
fn main() -> std::process::ExitCode {
    git_gate::scan::command::main(std::env::args_os().skip(1))
}
