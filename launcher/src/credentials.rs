//! Credentials of routes: where the manifest says they are, into memory, and nowhere else.

use crate::manifest::{EnvValue, TokenRef};
use cred_proxy::Secret;
use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A credential is never longer.
const CREDENTIAL_BYTES_MAX: u64 = 64 << 10;
/// How long a credential's command may run.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);

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
    #[error("the command {program:?} {how}")]
    Failed {
        /// Its program.
        program: String,
        /// How it failed.
        how: String,
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

/// Reads a credential.
pub fn read(from: &TokenRef, env: &BTreeMap<String, String>) -> Result<Secret, CredentialError> {
    let text = match from {
        TokenRef::Env(name) => env.get(name).cloned().ok_or_else(|| CredentialError::NoVariable(name.clone()))?,
        TokenRef::File(path) => {
            let failed = |source| CredentialError::File { path: path.display().to_string(), source };
            let mut text = String::new();
            let file = std::fs::File::open(path).map_err(failed)?;
            file.take(CREDENTIAL_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
            text
        }
        TokenRef::Command { argv, .. } => run(argv, env)?,
    };
    let text = zeroize::Zeroizing::new(text);
    let token = text.trim_end_matches(['\n', '\r']);
    let unusable = |why| Err(CredentialError::Unusable { from: from.to_string(), why });
    match token {
        "" => unusable("it is empty"),
        t if !t.bytes().all(|b| (0x20..0x7f).contains(&b)) => unusable("it has characters that no header may have"),
        t => Ok(Secret::new(t.to_owned())),
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

fn run(argv: &[String], env: &BTreeMap<String, String>) -> Result<String, CredentialError> {
    let (program, args) = argv.split_first().map_or((String::new(), &[][..]), |(p, a)| (p.clone(), a));
    let failed = |how: String| CredentialError::Failed { program: program.clone(), how };
    let io = |source| CredentialError::Command { program: program.clone(), source };
    let mut command = Command::new(&program);
    command.args(args).env_clear().envs(env).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().map_err(io)?;
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.map(|s| s.take(CREDENTIAL_BYTES_MAX).read_to_string(&mut text));
        (text, read.is_some_and(|r| r.is_ok()))
    });
    let mut waited = Duration::ZERO;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(io)? {
            break status;
        }
        if waited >= COMMAND_WITHIN {
            // It may have ended in this very moment.
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(format!("took longer than {} s", COMMAND_WITHIN.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(10));
        waited += Duration::from_millis(10);
    };
    if !status.success() {
        return Err(failed(format!("ended with {status}")));
    }
    match reader.join() {
        Ok((text, true)) => Ok(text),
        Ok((_, false)) | Err(_) => Err(failed("printed something that is no text".to_owned())),
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
            (command(&["false"]), Err("exit status: 1")),
            (command(&["/no/such/program"]), Err("cannot be run")),
        ] {
            match (read(&from, &env), expected) {
                (Ok(secret), Ok(text)) => assert_eq!(secret.expose(), text),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (got, _) => panic!("{from}: {got:?}"),
            }
        }
    }
}
