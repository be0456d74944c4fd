//! The command line that the sidecars have in common: without a word one obeys its standard input; with `--config` it is
//! deployed alone.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How long a sidecar that lives may take to show it.
const HEALTH_WITHIN: Duration = Duration::from_secs(3);

/// A sidecar's program.
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// What `--help` says.
    pub help: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Where it listens when no file says so.
    pub port: u16,
    /// Reads the file and all that it names. What is fine about it, or what is wrong.
    pub check: fn(&Path) -> Result<String, String>,
    /// Where the sidecar of this file listens, or what is wrong with the file.
    pub listen: fn(&Path) -> Result<SocketAddr, String>,
    /// Serves: as the file says, or as its standard input does.
    pub serve: fn(Option<PathBuf>) -> ExitCode,
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Obey,
    Serve(PathBuf),
    Check(PathBuf),
    Health(Option<PathBuf>),
    Help,
    Version,
}

impl Program {
    /// Does what the words ask for. Exit status: 0 as wanted, 1 it cannot run or is not healthy, 2 the words or the file are
    /// wrong.
    pub fn main(&self, words: impl Iterator<Item = OsString>) -> ExitCode {
        match understand(words) {
            Err(reason) => self.complain(&format!("{reason}; see {} --help", self.name), 2),
            Ok(Asked::Obey) => (self.serve)(None),
            Ok(Asked::Serve(file)) => (self.serve)(Some(file)),
            Ok(Asked::Check(file)) => match (self.check)(&file) {
                Ok(fine) => say(&format!("{}: fine, {fine}\n", file.display())),
                Err(reason) => self.complain(&reason, 2),
            },
            Ok(Asked::Health(file)) => {
                let own = (Ipv4Addr::LOCALHOST, self.port).into();
                match file.map_or(Ok(own), |file| (self.listen)(&file)) {
                    Ok(address) => match health(address) {
                        Ok(()) => ExitCode::SUCCESS,
                        Err(error) => self.complain(&format!("no answer on {address}: {error}"), 1),
                    },
                    Err(reason) => self.complain(&reason, 2),
                }
            }
            Ok(Asked::Help) => say(self.help),
            Ok(Asked::Version) => say(&format!("{} {}\n", self.name, self.version)),
        }
    }

    fn complain(&self, what: &str, code: u8) -> ExitCode {
        complain(self.name, what, code)
    }
}

/// Says what is wrong on standard error, and gives the exit status.
pub fn complain(name: &str, what: &str, code: u8) -> ExitCode {
    // Where there is no standard error, the exit status has to do.
    let _ = writeln!(io::stderr(), "{name}: {what}");
    ExitCode::from(code)
}

/// Runs a sidecar to its end in a runtime that was built for it, or that could not be.
pub fn run(
    name: &str,
    runtime: io::Result<tokio::runtime::Runtime>,
    sidecar: impl Future<Output = io::Result<ExitCode>>,
) -> ExitCode {
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return complain(name, &format!("cannot start: {error}"), 1),
    };
    let code = runtime.block_on(sidecar).unwrap_or_else(|error| complain(name, &format!("cannot start: {error}"), 1));
    runtime.shutdown_background();
    code
}

fn understand(mut words: impl Iterator<Item = OsString>) -> Result<Asked, String> {
    let (mut verb, mut file) = (None, None);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--help" | "-h") => return Ok(Asked::Help),
            Some("--version" | "-V") => return Ok(Asked::Version),
            Some("--config") if file.is_none() => {
                file = Some(PathBuf::from(words.next().ok_or("--config needs the path of a file")?));
            }
            Some(word @ ("check" | "health")) if verb.is_none() && file.is_none() => verb = Some(word.to_owned()),
            _ => return Err(format!("`{}` was not expected", word.to_string_lossy().escape_debug())),
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

/// Connects, says nothing but that it has nothing to say, and waits for the same: a process that hangs does not answer it, and
/// no request has to exist for it that an agent could send as well.
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
            ("check health", Err("`health` was not expected")),
            ("serve", Err("`serve` was not expected")),
            ("--config=f", Err("`--config=f` was not expected")),
        ] {
            let asked = understand(line.split_whitespace().map(OsString::from));
            assert_eq!(asked, wanted.map_err(String::from), "{line}");
        }
    }
}
