//! The command line: without a word the sidecar obeys its standard input; with `--config` it is deployed alone.

use crate::config::PORT;
use crate::{alone, control};
use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How long a gate that lives may take to show it.
const HEALTH_WITHIN: Duration = Duration::from_secs(3);

/// Threads that serve; more do not make a relay faster.
const THREADS_MAX: usize = 4;

/// Threads for what blocks: parsers, spools, host names.
const BLOCKING_THREADS_MAX: usize = 64;

const HELP: &str = "\
The only way out for commits: fetches pass, a push is scanned for secrets before its upstream sees a byte of it.

Usage: git-gate --config FILE          serve as the file says (git-gate/README.md)
       git-gate check --config FILE    read the file and all that it names, and say what is wrong
       git-gate health [--config FILE] does it answer? (for a container's health check)
       git-gate scan FILE..            the scan of a push, for files
       git-gate                        obey the launcher on standard input

SIGHUP reads the file and the secrets again; SIGTERM ends. Standard output has one JSON line an operation.

Exit status: 0 as wanted, 1 it cannot run or is not healthy, 2 the command line or the file is wrong.
";

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Obey,
    Serve(PathBuf),
    Check(PathBuf),
    Health(Option<PathBuf>),
    Scan(Vec<OsString>),
    Help,
    Version,
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    match understand(std::env::args_os().skip(1)) {
        Err(reason) => complain(&format!("{reason}; see git-gate --help"), 2),
        Ok(Asked::Obey) => serve(None),
        Ok(Asked::Serve(file)) => serve(Some(file)),
        Ok(Asked::Check(file)) => match alone::check(&file) {
            Ok(remotes) => say(&format!("{}: fine, {remotes} remotes\n", file.display())),
            Err(reason) => complain(&reason, 2),
        },
        Ok(Asked::Health(file)) => match file.map_or(Ok(default_address()), |file| alone::listen(&file)) {
            Ok(address) => match health(address) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => complain(&format!("no answer on {address}: {error}"), 1),
            },
            Err(reason) => complain(&reason, 2),
        },
        Ok(Asked::Scan(rest)) => crate::scan::command::main(rest),
        Ok(Asked::Help) => say(HELP),
        Ok(Asked::Version) => say(concat!("git-gate ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

fn understand(mut args: impl Iterator<Item = OsString>) -> Result<Asked, String> {
    let (mut verb, mut file) = (None, None);
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("scan") if verb.is_none() && file.is_none() => return Ok(Asked::Scan(args.collect())),
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

fn serve(file: Option<PathBuf>) -> ExitCode {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(THREADS_MAX));
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(threads.max(2)).max_blocking_threads(BLOCKING_THREADS_MAX).enable_all();
    let runtime = match runtime.build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start: {error}"), 1),
    };
    let code = match runtime.block_on(control::run(file)) {
        Ok(code) => code,
        Err(error) => complain(&format!("cannot start: {error}"), 1),
    };
    runtime.shutdown_background();
    code
}

fn default_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, PORT).into()
}

/// Connects, says nothing but that it has nothing to say, and waits for the same: a process that hangs does not answer it,
/// and the gate has no line in its log for it.
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
    let _ = writeln!(io::stderr(), "git-gate: {what}");
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
            ("scan --json f", Ok(Asked::Scan(vec!["--json".into(), "f".into()]))),
            ("--help", Ok(Asked::Help)),
            ("check -h", Ok(Asked::Help)),
            ("-V", Ok(Asked::Version)),
            ("--config", Err("--config needs the path of a file")),
            ("check", Err("check needs --config FILE")),
            ("check scan", Err("`scan` was not expected")),
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
