//! The command line: by itself the sidecar obeys its standard input; with `--config` it is deployed alone.

use crate::config::PORT;
use crate::{control, standalone};
use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Threads that serve; more do not make a proxy faster.
const THREADS_MAX: usize = 4;

/// How long the sidecar may take to show that it lives.
const HEALTH_WITHIN: Duration = Duration::from_secs(3);

const HELP: &str = "\
Puts credentials into an agent's requests, so that the agent need not hold them.

Usage: cred-proxy --config FILE          serve as the file says
       cred-proxy check --config FILE    read the file and all it names, and say what is wrong
       cred-proxy health [--config FILE] does it answer? (for a container's health check)
       cred-proxy                        obey the launcher on standard input

SIGHUP reads the file and the secrets again; a file of a secret that changes is read by itself.
SIGTERM lets the requests in flight end. Standard output has one JSON line for each event.

Exit status: 0 as wanted, 1 it cannot run or is not healthy, 2 the command line or the file is wrong.
";

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Obey,
    Serve(PathBuf),
    Check(PathBuf),
    Health(Option<PathBuf>),
    Help,
    Version,
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let asked = match understand(std::env::args_os().skip(1)) {
        Ok(asked) => asked,
        Err(reason) => return complain(&format!("{reason}; see cred-proxy --help"), 2),
    };
    match asked {
        Asked::Obey => with_runtime(control::run()),
        Asked::Serve(file) => with_runtime(standalone::run(file)),
        Asked::Check(file) => match standalone::check(&file) {
            Ok(routes) => say(&format!("{}: fine, {routes} routes\n", file.display())),
            Err(reason) => complain(&reason, 2),
        },
        Asked::Health(file) => match file.map_or(Ok(default_address()), |file| standalone::listen(&file)) {
            Ok(address) => match health(address) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => complain(&format!("no answer on {address}: {error}"), 1),
            },
            Err(reason) => complain(&reason, 2),
        },
        Asked::Help => say(HELP),
        Asked::Version => say(concat!("cred-proxy ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

fn understand(args: impl Iterator<Item = OsString>) -> Result<Asked, String> {
    let (mut verb, mut file) = (None, None);
    let mut args = args;
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--help" | "-h") => return Ok(Asked::Help),
            Some("--version" | "-V") => return Ok(Asked::Version),
            Some("--config") if file.is_none() => {
                file = Some(PathBuf::from(args.next().ok_or("--config needs the path of a file")?));
            }
            Some(word @ ("check" | "health")) if verb.is_none() && file.is_none() => verb = Some(word.to_owned()),
            _ => return Err(format!("`{}` was not expected", arg.to_string_lossy().escape_debug())),
        }
    }
    match (verb.as_deref(), file) {
        (None, None) => Ok(Asked::Obey),
        (None, Some(file)) => Ok(Asked::Serve(file)),
        (Some("check"), Some(file)) => Ok(Asked::Check(file)),
        (Some("check"), None) => Err("check needs --config FILE".into()),
        (Some(_), file) => Ok(Asked::Health(file)),
    }
}

fn with_runtime(run: impl Future<Output = io::Result<ExitCode>>) -> ExitCode {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(THREADS_MAX));
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.worker_threads(threads).max_blocking_threads(32).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start: {error}"), 1),
    };
    let code = match runtime.block_on(run) {
        Ok(code) => code,
        Err(error) => complain(&format!("cannot start: {error}"), 1),
    };
    runtime.shutdown_background();
    code
}

fn default_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, PORT).into()
}

/// Connects, sends nothing but the end, and waits for the same: a process that hangs does not answer it, and no request has
/// to exist for it that an agent could send as well.
fn health(listen: SocketAddr) -> io::Result<()> {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let mut stream = TcpStream::connect_timeout(&(ip, listen.port()).into(), HEALTH_WITHIN)?;
    stream.set_read_timeout(Some(HEALTH_WITHIN))?;
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("something else listens there")),
    }
}

fn say(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(what: &str, code: u8) -> ExitCode {
    // Where there is no standard error, the exit status has to do.
    let _ = writeln!(io::stderr(), "cred-proxy: {what}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_and_their_refused_neighbours() {
        let file = || PathBuf::from("f");
        for (line, wanted) in [
            ("", Ok(Asked::Obey)),
            ("--config f", Ok(Asked::Serve(file()))),
            ("check --config f", Ok(Asked::Check(file()))),
            ("health", Ok(Asked::Health(None))),
            ("health --config f", Ok(Asked::Health(Some(file())))),
            ("--help", Ok(Asked::Help)),
            ("check -h", Ok(Asked::Help)),
            ("-V", Ok(Asked::Version)),
            ("--config", Err("--config needs the path of a file")),
            ("check", Err("check needs --config FILE")),
            ("--config f --config g", Err("`--config` was not expected")),
            ("--config f check", Err("`check` was not expected")),
            ("serve", Err("`serve` was not expected")),
            ("--config=f", Err("`--config=f` was not expected")),
        ] {
            let asked = understand(line.split_whitespace().map(OsString::from));
            assert_eq!(asked, wanted.map_err(String::from), "{line}");
        }
    }
}
