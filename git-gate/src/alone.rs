//! The sidecar by itself, in front of a CI job for example: `git-gate --config FILE`. The file is the same configuration
//! in TOML, with a table `secrets` that says where each one is: in a file, or in an environment variable.

use crate::Secret;
use crate::config::Config;
use crate::table::Table;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bottle_sidecar::chain;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a secret is.
#[derive(Debug)]
enum Place {
    /// A file; newlines at its end do not count, but for a private key's, which needs its own.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}

/// The file, read.
#[derive(Debug)]
struct File {
    secrets: BTreeMap<String, Place>,
    upstream_roots_file: Option<PathBuf>,
    config: Config,
}

#[derive(Debug, Deserialize)]
struct Raw {
    #[serde(default)]
    secrets: BTreeMap<String, toml::Value>,
    /// The path of a file with further roots beside the public ones, in place of the PEM itself.
    #[serde(default)]
    upstream_roots_file: Option<PathBuf>,
    #[serde(flatten)]
    config: toml::Table,
}

/// Why the file cannot be used. Has no byte of a secret.
#[derive(Debug, thiserror::Error)]
pub enum AloneError {
    /// Not there, or too large.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// Not a configuration. What is wrong is said without a value of the file.
    #[error("{0} is no configuration: {1}")]
    Parse(PathBuf, String),
    /// A secret without a place; it may stand there itself.
    #[error(
        "the secret `{0}` has no place: `{{ file = PATH }}` or `{{ env = NAME }}` says where it is, never the secret itself"
    )]
    NoPlace(String),
    /// No such variable, or not in UTF-8.
    #[error("the environment variable {0} is not there")]
    Env(String),
}

/// Reads the configuration and its secrets. Paths that do not begin at the root begin at the file's own folder.
pub fn read(path: &Path) -> Result<(Config, BTreeMap<String, Secret>), AloneError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let File { secrets, upstream_roots_file, mut config } = parse(path)?;
    if let Some(roots) = upstream_roots_file {
        config.upstream_roots.push_str(&read_text(&folder.join(roots))?);
    }
    if config.remotes.iter().any(|remote| remote.upstream.starts_with("https:") && !remote.inspected) {
        config.upstream_roots.push('\n');
        config.upstream_roots.push_str(&public_roots());
    }
    let secrets = secrets.into_iter().map(|(name, place)| Ok((name, place.read(folder)?))).collect::<Result<_, _>>()?;
    Ok((config, secrets))
}

/// Reads the file and all that it names; the number of remotes, or what is wrong.
pub fn check(path: &Path) -> Result<usize, String> {
    let (config, secrets) = read(path).map_err(|error| chain(&error))?;
    Table::parse(&config, &secrets).map_err(|error| chain(&error))?;
    Ok(config.remotes.len())
}

/// Where the gate of this file listens.
pub fn listen(path: &Path) -> Result<SocketAddr, String> {
    parse(path).map(|file| file.config.listen).map_err(|error| chain(&error))
}

fn parse(path: &Path) -> Result<File, AloneError> {
    let text = read_text(path)?;
    let parse = |error: toml::de::Error| AloneError::Parse(path.to_owned(), without_values(&error, &text));
    let Raw { secrets, upstream_roots_file, config } = toml::from_str(&text).map_err(parse)?;
    let config = Config::deserialize(config).map_err(parse)?;
    let secrets = secrets.into_iter().map(|(name, place)| match Place::parse(&place) {
        Some(place) => Ok((name, place)),
        None => Err(AloneError::NoPlace(name)),
    });
    Ok(File { secrets: secrets.collect::<Result<_, _>>()?, upstream_roots_file, config })
}

/// What is wrong, without the words of the file: the library quotes values and lines, and somebody may have written a secret
/// where its name belongs.
fn without_values(error: &toml::de::Error, text: &str) -> String {
    let place = error
        .span()
        .and_then(|span| text.get(..span.start))
        .map_or_else(String::new, |before| format!("line {}: ", before.matches('\n').count() + 1));
    let message = error.message().lines().next().unwrap_or_default();
    let is_of_names = ["unknown field", "missing field", "duplicate"].iter().any(|start| message.starts_with(start));
    match message.rsplit_once(", expected ") {
        _ if is_of_names => format!("{place}{message}"),
        Some((_, expected)) => format!("{place}something else stands where there must be {expected}"),
        None => format!("{place}something is not as it must be"),
    }
}

/// PEM of the roots that browsers trust, as they were when this was built.
fn public_roots() -> String {
    let pem = |certificate: &rustls::pki_types::CertificateDer<'_>| {
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(certificate))
    };
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(pem).collect()
}

impl Place {
    fn parse(value: &toml::Value) -> Option<Self> {
        let table = value.as_table().filter(|table| table.len() == 1)?;
        let (kind, place) = table.iter().next()?;
        match (kind.as_str(), place.as_str()?) {
            ("file", path) => Some(Self::File(path.into())),
            ("env", name) => Some(Self::Env(name.to_owned())),
            _ => None,
        }
    }

    fn read(&self, folder: &Path) -> Result<Secret, AloneError> {
        match self {
            Self::File(path) => {
                let mut text = read_text(&folder.join(path))?;
                if !text.contains("PRIVATE KEY") {
                    text.truncate(text.trim_end_matches(['\n', '\r']).len());
                }
                Ok(Secret::new(text))
            }
            Self::Env(name) => std::env::var(name).map(Secret::new).map_err(|_| AloneError::Env(name.clone())),
        }
    }
}

fn read_text(path: &Path) -> Result<String, AloneError> {
    let failed = |error| AloneError::Read(path.to_owned(), error);
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    std::fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_secrets_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("token"), "user:s3cret\n").unwrap();
        let own = rcgen::generate_simple_self_signed(["git.example".to_owned()]).unwrap().cert.pem();
        std::fs::write(path("roots.pem"), &own).unwrap();
        let text = format!(
            r#"
            listen = "127.0.0.1:9418"
            spool = "/var/spool"
            upstream_roots_file = "roots.pem"
            [[remotes]]
            name = "app"
            upstream = "https://git.example/app.git"
            credential = {{ basic = {{ secret = "token" }} }}
            push = {{ refs = ["refs/heads/ci/*"] }}
            [limits]
            pushes = 2
            [secrets]
            token = {{ file = "{token}" }}
            "#,
            token = path("token").display(),
        );
        std::fs::write(path("gate.toml"), &text).unwrap();
        let (config, secrets) = read(&path("gate.toml")).unwrap();
        assert_eq!((config.remotes[0].name.as_str(), config.limits.pushes), ("app", 2));
        assert!(
            config.upstream_roots.starts_with(&own) && config.upstream_roots.len() > 100_000,
            "and the public ones"
        );
        assert_eq!(secrets["token"].expose(), "user:s3cret");
        assert_eq!((check(&path("gate.toml")), listen(&path("gate.toml")).unwrap().port()), (Ok(1), 9418));
        for (broken, wanted) in [
            (text.replace("listen =", "lisssten ="), "is no configuration"),
            (text.replace("pushes", "pushess"), "is no configuration"),
            (text.replace("{ file = ", "{ fille = "), "the secret `token` has no place"),
            (text.replace("token = { file", "token = \"s3cret\" # { file"), "the secret `token` has no place"),
            (text.replace("{ secret = \"token\" }", "\"s3cret\""), "is no configuration"),
            (
                text.replace("credential = { basic = { secret = \"token\" } }", "credential = \"s3cret\""),
                "is no configuration",
            ),
            (text.replace("name = \"app\"", "name = \"app\" s3cret"), "line 6"),
            (text.replace("/token\"", "/nowhere\""), "cannot read"),
            (text.replace("{ file = ", "{ env = "), "is not there"),
        ] {
            std::fs::write(path("gate.toml"), broken).unwrap();
            let error = chain(&read(&path("gate.toml")).map(drop).unwrap_err());
            assert!(error.contains(wanted) && !error.contains("s3cret"), "{error}");
            assert_eq!(check(&path("gate.toml")).map_err(|error| error.contains(wanted)), Err(true));
        }
        // Each part can be read, and the whole is none.
        std::fs::write(path("gate.toml"), text.replace("ci/*", "ci/[")).unwrap();
        assert!(check(&path("gate.toml")).unwrap_err().contains("refs/heads/ci/["));
    }
}
