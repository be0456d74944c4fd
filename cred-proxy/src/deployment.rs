//! The file of a sidecar that is deployed alone: what the launcher would have sent, and where the secrets are. It never
//! has a secret in it.
//!
//! JSON, because the control channel's schema is JSON already: the process that holds the credentials has one parser, and
//! what can be written for one way of running it can be written for the other.
//!
//! ```json
//! {
//!   "listen": "0.0.0.0:9099",
//!   "routes": [
//!     {"path": "/anthropic/", "upstream": "https://api.anthropic.com", "auth": {"header": "x-api-key"},
//!      "secret": "anthropic", "allow": ["POST /v1/messages", "GET /v1/models/**"]}
//!   ],
//!   "secrets": {"anthropic": {"file": "/run/secrets/anthropic"}}
//! }
//! ```
//!
//! | Field | What |
//! |---|---|
//! | `listen` | address and port; `0.0.0.0:9099` unless given |
//! | `routes` | as [`config::Route`](crate::config::Route) |
//! | `secrets` | by the name that routes use: `{"file": PATH}` (one line break at its end is cut off) or `{"env": NAME}` |
//! | `proxy`, `limits` | as in [`Config`]; absent unless given |
//! | `upstream_roots_file` | PEM of further roots, beside the public ones that are built in |
//! | `inspected_ca_file` | PEM of the CA that re-signs routes with `"inspected": true` |
//!
//! Relative paths begin at the file's own folder.

use crate::Secret;
use crate::config::{Config, Limits, PORT, Route};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use zeroize::Zeroizing;

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A deployment's file, read.
#[derive(Debug)]
pub struct Deployment {
    file: File,
    folder: PathBuf,
}

/// Why a deployment cannot be taken. Never has a byte of a secret in it.
#[derive(Debug, thiserror::Error)]
pub enum DeploymentError {
    /// A file cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// The configuration is none.
    #[error("{0} is no configuration: {1}")]
    Parse(PathBuf, String),
    /// A secret's file is no text.
    #[error("the secret `{0}` is no text")]
    NotText(String),
    /// A secret's variable is not there.
    #[error("the secret `{0}` is not in the environment as `{1}`")]
    NoVariable(String, String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default = "everywhere")]
    listen: SocketAddr,
    #[serde(default)]
    proxy: Option<String>,
    routes: Vec<Route>,
    #[serde(default)]
    secrets: BTreeMap<String, Source>,
    #[serde(default)]
    upstream_roots_file: Option<PathBuf>,
    #[serde(default)]
    inspected_ca_file: Option<PathBuf>,
    #[serde(default)]
    limits: Limits,
}

/// Where a secret is.
#[derive(Debug)]
enum Source {
    File(PathBuf),
    Env(String),
}

/// What tells that a file has changed.
#[derive(Debug, PartialEq, Eq)]
pub struct Stamp(Option<(SystemTime, u64, u64, u64)>);

fn everywhere() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, PORT).into()
}

impl Deployment {
    /// Reads the file, and nothing that it names.
    pub fn read(path: &Path) -> Result<Self, DeploymentError> {
        let text = read(path)?;
        let file = serde_json::from_slice(&text);
        let file = file.map_err(|error| DeploymentError::Parse(path.to_owned(), error.to_string()))?;
        Ok(Self { file, folder: path.parent().unwrap_or(Path::new("")).to_owned() })
    }

    /// Where it listens.
    pub fn listen(&self) -> SocketAddr {
        self.file.listen
    }

    /// The table, with the certificates that it needs.
    pub fn config(&self) -> Result<Config, DeploymentError> {
        let File { listen, proxy, routes, limits, .. } = &self.file;
        let pem = |path: &Option<PathBuf>| {
            let text = path.as_ref().map(|path| read(&self.folder.join(path)));
            text.transpose().map(|text| text.map(|text| String::from_utf8_lossy(&text).into_owned()))
        };
        let mut upstream_roots = pem(&self.file.upstream_roots_file)?.unwrap_or_default();
        if routes.iter().any(|route| route.upstream.starts_with("https:") && !route.inspected) {
            upstream_roots.push('\n');
            upstream_roots.push_str(&public_roots());
        }
        Ok(Config {
            proxy: proxy.clone(),
            routes: routes.clone(),
            inspected_ca: pem(&self.file.inspected_ca_file)?,
            upstream_roots,
            limits: *limits,
            ..Config::closed(*listen)
        })
    }

    /// The secrets as they are now.
    pub fn secrets(&self) -> Result<BTreeMap<String, Secret>, DeploymentError> {
        let secret = |(name, source): (&String, &Source)| {
            let value = match source {
                Source::File(path) => {
                    let bytes = read(&self.folder.join(path))?;
                    let text = std::str::from_utf8(&bytes).map_err(|_| DeploymentError::NotText(name.clone()))?;
                    let text = text.strip_suffix('\n').unwrap_or(text);
                    text.strip_suffix('\r').unwrap_or(text).to_owned()
                }
                Source::Env(variable) => {
                    std::env::var(variable).map_err(|_| DeploymentError::NoVariable(name.clone(), variable.clone()))?
                }
            };
            Ok((name.clone(), Secret::new(value)))
        };
        self.file.secrets.iter().map(secret).collect()
    }

    /// What the files of the secrets look like from outside.
    pub fn stamps(&self) -> Vec<Stamp> {
        let files = self.file.secrets.values().filter_map(|source| match source {
            Source::File(path) => Some(self.folder.join(path)),
            Source::Env(_) => None,
        });
        files.map(|path| Stamp::of(&path)).collect()
    }
}

impl Stamp {
    fn of(path: &Path) -> Self {
        let seen = std::fs::metadata(path).and_then(|seen| Ok((seen.modified()?, seen.len(), seen.dev(), seen.ino())));
        Self(seen.ok())
    }
}

impl<'de> Deserialize<'de> for Source {
    /// By hand, so that a secret that stands where its place should be is not quoted in the error.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        const WANTED: &str = "a secret is {\"file\": PATH} or {\"env\": NAME}, never the secret itself";
        impl<'de> Visitor<'de> for One {
            type Value = Source;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(WANTED)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Source, A::Error> {
                let wrong = || A::Error::custom(WANTED);
                let (kind, place) = map.next_entry::<String, String>().map_err(|_| wrong())?.ok_or_else(wrong)?;
                let source = match kind.as_str() {
                    "file" => Source::File(place.into()),
                    "env" => Source::Env(place),
                    _ => return Err(wrong()),
                };
                if map.next_entry::<String, serde::de::IgnoredAny>()?.is_some() {
                    return Err(wrong());
                }
                Ok(source)
            }
            fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Source, E> {
                Err(E::custom(WANTED))
            }
        }
        deserializer.deserialize_any(One)
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, DeploymentError> {
    let cannot = |error| DeploymentError::Read(path.to_owned(), error);
    let mut bytes = Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path).map_err(cannot)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(cannot(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes"))));
    }
    Ok(bytes)
}

fn public_roots() -> String {
    let pem = |certificate: &rustls::pki_types::CertificateDer<'_>| {
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(certificate))
    };
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(pem).collect()
}
