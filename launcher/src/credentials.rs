//! Credentials of routes: where the manifest says they are, into memory, and nowhere else.
//!
//! A command is run without a shell, with the operator's environment, and in `/`: where the operator stands may be a
//! folder that an agent has written into, and many a program reads its configuration there.

use crate::manifest::{EnvValue, TokenRef};
use cred_proxy::Secret;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// A credential is never longer.
const CREDENTIAL_BYTES_MAX: usize = 64 << 10;
/// How long a credential's command may run.
pub const COMMAND_WITHIN: Duration = Duration::from_secs(30);
/// How long its output may stay open after it, in the hands of something that it started.
const REST_WITHIN: Duration = Duration::from_secs(1);
/// The pause between two looks at a command.
const LOOK: Duration = Duration::from_millis(10);
/// What of a failed command's words an error shows.
const WORDS_BYTES_MAX: usize = 2 << 10;

/// Why there is no credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The variable is not set, or empty.
    #[error("the environment has no variable {0}")]
    NoVariable(String),
    /// The file cannot be read.
    #[error("the file {path} cannot be read")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The command cannot be run.
    #[error("the command {program:?} cannot be run")]
    Command {
        /// Its program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// The command failed, or took too long. Its output is not shown: it may be the credential.
    #[error("the command {program:?} {how}{}", if .said.is_empty() { String::new() } else { format!("; it said: {said}") })]
    Failed {
        /// Its program.
        program: String,
        /// How it failed.
        how: String,
        /// What it said on its standard error, cleaned, without what its standard output was.
        said: String,
    },
    /// It is there and cannot be one.
    #[error("{from} gives no usable credential: {why}")]
    Unusable {
        /// Where it came from.
        from: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Reads a credential for a person who waits for it: a command may use the terminal.
pub fn read(from: &TokenRef, env: &BTreeMap<String, String>) -> Result<Secret, CredentialError> {
    source(from, env, Attended::Yes)
}

/// Reads a credential with nobody there. A command has a process group of its own, which ends with it when it takes too
/// long.
pub fn read_unattended(from: &TokenRef, env: &BTreeMap<String, String>) -> Result<Secret, CredentialError> {
    source(from, env, Attended::No)
}

/// Reads the text of a private key's file.
pub fn read_key(path: &std::path::Path) -> Result<Zeroizing<String>, CredentialError> {
    let failed = |source| CredentialError::File { path: path.display().to_string(), source };
    let mut text = Zeroizing::new(String::new());
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(CREDENTIAL_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    let unusable = |why| Err(CredentialError::Unusable { from: format!("the file {}", path.display()), why });
    if text.len() > CREDENTIAL_BYTES_MAX {
        return unusable("it is longer than 64 KiB");
    }
    if !text.contains("PRIVATE KEY-----") {
        return unusable("there is no private key in it");
    }
    Ok(text)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attended {
    Yes,
    No,
}

fn source(from: &TokenRef, env: &BTreeMap<String, String>, attended: Attended) -> Result<Secret, CredentialError> {
    let bytes = match from {
        TokenRef::Env(name) => {
            let value = env.get(name).ok_or_else(|| CredentialError::NoVariable(name.clone()))?;
            Zeroizing::new(value.clone().into_bytes())
        }
        TokenRef::File(path) => {
            let failed = |source| CredentialError::File { path: path.display().to_string(), source };
            let mut bytes = Zeroizing::new(Vec::new());
            let file = std::fs::File::open(path).map_err(failed)?;
            file.take(CREDENTIAL_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
            bytes
        }
        TokenRef::Command { argv, .. } => run(argv, env, attended)?,
    };
    usable(&bytes).map_err(|why| CredentialError::Unusable { from: from.to_string(), why })
}

/// What a header's value may be, without the newline at its end.
fn usable(bytes: &[u8]) -> Result<Secret, &'static str> {
    if bytes.len() > CREDENTIAL_BYTES_MAX {
        return Err("it is longer than 64 KiB");
    }
    let end = bytes.iter().rposition(|b| !b"\r\n".contains(b)).map_or(0, |at| at + 1);
    match std::str::from_utf8(&bytes[..end]) {
        Ok("") => Err("it is empty"),
        Ok(token) if token.bytes().all(|b| (0x20..0x7f).contains(&b)) => Ok(Secret::new(token.to_owned())),
        Ok(_) | Err(_) => Err("it has characters that no header may have"),
    }
}

/// The value of a variable of the agent. `asked` holds the answers to questions, by variable.
pub fn value(
    name: &str,
    value: &EnvValue,
    env: &BTreeMap<String, String>,
    asked: &BTreeMap<String, Secret>,
) -> Result<Secret, CredentialError> {
    match value {
        EnvValue::Literal(text) => Ok(Secret::new(text.clone())),
        EnvValue::Host(host) => {
            env.get(host).map(|v| Secret::new(v.clone())).ok_or_else(|| CredentialError::NoVariable(host.clone()))
        }
        EnvValue::Ask(_) => asked.get(name).cloned().ok_or_else(|| CredentialError::NoVariable(name.to_owned())),
    }
}

fn run(
    argv: &[String],
    env: &BTreeMap<String, String>,
    attended: Attended,
) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    let (program, args) = argv.split_first().map_or((String::new(), &[][..]), |(p, a)| (p.clone(), a));
    let io = |source| CredentialError::Command { program: program.clone(), source };
    let mut command = Command::new(&program);
    command.args(args).env_clear().envs(env).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if attended == Attended::No {
        command.process_group(0);
    }
    let mut child = command.spawn().map_err(io)?;
    let out = child.stdout.take().map(|stream| Heard::of(stream, CREDENTIAL_BYTES_MAX + 1));
    let err = child.stderr.take().map(|stream| Heard::of(stream, WORDS_BYTES_MAX));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(io)? {
            break Some(status);
        }
        if began.elapsed() >= COMMAND_WITHIN {
            kill(&mut child, attended);
            break None;
        }
        std::thread::sleep(LOOK);
    };
    let bytes = out.map(Heard::bytes).unwrap_or_default();
    let how = match status {
        Some(status) if status.success() => return Ok(bytes),
        Some(status) => format!("ended with {status}"),
        None => format!("took longer than {} s", COMMAND_WITHIN.as_secs()),
    };
    let said = words(&err.map(Heard::bytes).unwrap_or_default(), &bytes);
    Err(CredentialError::Failed { program, how, said })
}

/// Ends a command that takes too long, and what it started. It may have ended in this very moment.
fn kill(child: &mut Child, attended: Attended) {
    if attended == Attended::No
        && let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
    {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// What a command said on its standard error, in one line, without what it gave as the credential.
fn words(said: &[u8], output: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let mut lines: Vec<String> = said.lines().map(|line| crate::ui::clean(line.trim())).collect();
    lines.retain(|line| !line.is_empty());
    for secret in String::from_utf8_lossy(output).lines().map(str::trim).filter(|line| !line.is_empty()) {
        for line in &mut lines {
            *line = line.replace(secret, "[redacted]");
        }
    }
    lines.join(" / ")
}

/// A stream that is read to its end on a thread of its own, the beginning of which is kept. A command that says more is
/// not held up.
struct Heard {
    kept: Arc<Mutex<Zeroizing<Vec<u8>>>>,
    ended: Receiver<()>,
}

impl Heard {
    fn of(mut stream: impl Read + Send + 'static, most: usize) -> Self {
        let kept = Arc::new(Mutex::new(Zeroizing::new(Vec::with_capacity(most))));
        let keep = Arc::clone(&kept);
        let (end, ended) = channel();
        // It ends with the last process that has the stream, or with ours.
        std::thread::spawn(move || {
            let mut piece = Zeroizing::new([0; 4096]);
            while let Ok(read @ 1..) = stream.read(&mut *piece) {
                let mut kept = keep.lock().unwrap_or_else(PoisonError::into_inner);
                let room = most.saturating_sub(kept.len()).min(read);
                kept.extend_from_slice(&piece[..room]);
            }
            // Nobody listens any more when it took too long.
            let _ = end.send(());
        });
        Self { kept, ended }
    }

    fn bytes(self) -> Zeroizing<Vec<u8>> {
        // Something that the command left running may hold the stream open; what came until now is what it said.
        let _ = self.ended.recv_timeout(REST_WITHIN);
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_from_variables_files_and_commands() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "from-file\n").unwrap();
        let env = BTreeMap::from([
            ("TOKEN".to_owned(), "from-env".to_owned()),
            ("EMPTY".to_owned(), String::new()),
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
        ]);
        let command =
            |argv: &[&str]| TokenRef::Command { argv: argv.iter().map(|s| (*s).to_owned()).collect(), ttl_s: None };
        for (from, expected) in [
            (TokenRef::Env("TOKEN".to_owned()), Ok("from-env")),
            (TokenRef::Env("OTHER".to_owned()), Err("no variable OTHER")),
            (TokenRef::Env("EMPTY".to_owned()), Err("empty")),
            (TokenRef::File(file), Ok("from-file")),
            (TokenRef::File(dir.path().join("none")), Err("cannot be read")),
            (command(&["echo", "from-command"]), Ok("from-command")),
            (command(&["printf", "a\\nb"]), Err("characters")),
            (command(&["printf", "a\\tb"]), Err("characters")),
            (command(&["printf", "a\\200b"]), Err("characters")),
            (command(&["printf", "token\\r\\n\\n"]), Ok("token")),
            (command(&["true"]), Err("empty")),
            (command(&["head", "-c", "65536", "/dev/zero"]), Err("characters")),
            (command(&["head", "-c", "65537", "/dev/zero"]), Err("longer than 64 KiB")),
            (command(&["sh", "-c", "yes 2>&1 | head -c 1000000 >&2; echo after"]), Ok("after")),
            (command(&["sh", "-c", "sleep 5 & echo before"]), Ok("before")),
            (command(&["pwd"]), Ok("/")),
            (command(&["echo", "$HOME;`id`"]), Ok("$HOME;`id`")),
            (command(&["false"]), Err("exit status: 1")),
            (command(&["/no/such/program"]), Err("cannot be run")),
        ] {
            for got in [read(&from, &env), read_unattended(&from, &env)] {
                match (got, expected) {
                    (Ok(secret), Ok(text)) => assert_eq!(secret.expose(), text),
                    (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                    (got, _) => panic!("{from}: {got:?}"),
                }
            }
        }
    }

    #[test]
    fn a_command_that_fails_is_quoted_without_the_credential() {
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        let script = "echo s3cret; printf 'no s3cret\\n\\033[2Jhere\\n' >&2; exit 3";
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        let error = read_unattended(&TokenRef::Command { argv, ttl_s: None }, &env).unwrap_err();
        let expected = "the command \"sh\" ended with exit status: 3; it said: no [redacted] / \\u{1b}[2Jhere";
        assert_eq!(error.to_string(), expected);
        assert!(!format!("{error:?}").contains("s3cret"));
    }
}
