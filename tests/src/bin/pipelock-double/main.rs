//! A stand-in for pipelock 2.3.0 that keeps its interface contract, for machines where the real image cannot be had.
//!
//! For tests and the demo alone. It must never stand between an agent and the world: it knows a handful of secrets by
//! their shape where the real one knows dozens, decodes little, and scans no answers to speak of. Known differences:
//! HTTP/1.1 alone inside tunnels, one upstream connection a request, no rate limit, no entropy check, P-256 alone.

// Nothing outside this program names its items, and the modules say what each is for.
#![allow(missing_docs)]

mod answer;
mod ca;
mod command;
mod config;
mod connect;
mod dlp;
mod forward;
mod guard;
mod inspect;
mod intercept;
mod log;
mod reload;
mod server;
mod state;
mod tunnel;
mod upstream;

fn main() -> std::process::ExitCode {
    match command::run(std::env::args_os()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            log::tell(&format!("Error: {error}"));
            std::process::ExitCode::FAILURE
        }
    }
}
