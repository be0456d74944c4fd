//! Where the engine is: `DOCKER_HOST`, else the current context of the docker command, else the usual socket. What we
//! cannot speak (TLS, ssh) is refused with a sentence; we never fall back to another engine than the one that was meant.

use crate::engine::{EngineError, Kind};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The socket of an engine that nobody moved.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// How an engine is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// `host:port`, plain.
    Tcp(String),
}

/// What the environment and the docker command's files say.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    /// `DOCKER_HOST`.
    pub host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub context: Option<String>,
    /// `DOCKER_TLS_VERIFY` is set and not empty.
    pub tls: bool,
    /// `DOCKER_CONFIG`, else `~/.docker`.
    pub config: Option<PathBuf>,
}

impl Hints {
    /// Reads the environment; `host` is what the caller has read of `DOCKER_HOST`.
    pub fn from_environment(host: Option<&str>) -> Self {
        let var = |name| std::env::var_os(name).filter(|v| !v.is_empty());
        Self {
            host: host.filter(|h| !h.is_empty()).map(str::to_owned),
            context: var("DOCKER_CONTEXT").and_then(|v| v.into_string().ok()),
            tls: var("DOCKER_TLS_VERIFY").is_some(),
            config: var("DOCKER_CONFIG")
                .map(PathBuf::from)
                .or_else(|| var("HOME").map(|home| PathBuf::from(home).join(".docker"))),
        }
    }

    /// The engine that is meant.
    pub fn address(&self) -> Result<Address, EngineError> {
        if let Some(host) = &self.host {
            let address = Address::parse(host)?;
            return match (&address, self.tls) {
                (Address::Tcp(_), true) => Err(refused(format!("DOCKER_TLS_VERIFY is set for {host}: {NO_TLS}"))),
                _ => Ok(address),
            };
        }
        let name = match &self.context {
            Some(name) => Some(name.clone()),
            None => self.config.as_deref().map(current_context).transpose()?.flatten(),
        };
        match (name, &self.config) {
            (Some(name), Some(config)) if name != "default" => of_context(config, &name),
            _ => Ok(Address::Unix(DEFAULT_SOCKET.into())),
        }
    }
}

const NO_TLS: &str = "an engine behind TLS is not supported; use its Unix socket, or forward it with \
                      `ssh -L /tmp/engine.sock:/var/run/docker.sock <host>` and set DOCKER_HOST=unix:///tmp/engine.sock";

impl Address {
    /// Reads `unix://path` or `tcp://host:port`.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        if let Some(path) = text.strip_prefix("unix://") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err(refused(format!("{text:?} is no engine address: the path of a socket is absolute"))),
            };
        }
        if let Some(rest) = text.strip_prefix("tcp://") {
            let rest = rest.trim_end_matches('/');
            let port = rest.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            return match rest.contains('/') || port.is_none() {
                true => Err(refused(format!("{text:?} is no engine address: tcp://<host>:<port> is"))),
                false => Ok(Self::Tcp(rest.to_owned())),
            };
        }
        Err(refused(match text.starts_with("ssh://") || text.starts_with("https://") {
            true => format!("the engine is at {text}: {NO_TLS}"),
            false => format!("{text:?} is no engine address: unix://<path> and tcp://<host>:<port> are"),
        }))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}

fn current_context(config: &Path) -> Result<Option<String>, EngineError> {
    let path = config.join("config.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unread(&path, e)),
    };
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| unread(&path, e))?;
    Ok(value["currentContext"].as_str().filter(|name| !name.is_empty()).map(str::to_owned))
}

fn of_context(config: &Path, name: &str) -> Result<Address, EngineError> {
    let digest: String = Sha256::digest(name.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    let path = config.join("contexts/meta").join(&digest).join("meta.json");
    let bytes = std::fs::read(&path).map_err(|e| unread(&path, e))?;
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| unread(&path, e))?;
    let host = value["Endpoints"]["docker"]["Host"].as_str().unwrap_or_default();
    let address = Address::parse(host).map_err(|e| refused(format!("docker context {name:?}: {e}")))?;
    let tls = config.join("contexts/tls").join(&digest).join("docker").exists();
    match (&address, tls) {
        (Address::Tcp(_), true) => Err(refused(format!("docker context {name:?}: {NO_TLS}"))),
        _ => Ok(address),
    }
}

fn unread(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> EngineError {
    let what = format!("could not read {}; set DOCKER_HOST to say where the engine is", path.display());
    EngineError::new(what, Kind::Other, Some(Box::new(error) as _))
}

fn refused(what: String) -> EngineError {
    EngineError::new(what, Kind::Other, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, wanted) in [
            ("unix:///run/x.sock", Some(Address::Unix("/run/x.sock".into()))),
            ("unix://run/x.sock", None),
            ("tcp://127.0.0.1:2375", Some(Address::Tcp("127.0.0.1:2375".to_owned()))),
            ("tcp://127.0.0.1:2375/", Some(Address::Tcp("127.0.0.1:2375".to_owned()))),
            ("tcp://[::1]:2375", Some(Address::Tcp("[::1]:2375".to_owned()))),
            ("tcp://127.0.0.1", None),
            ("tcp://a:1/v1.41", None),
            ("ssh://me@there", None),
            ("https://there:2376", None),
            ("/run/x.sock", None),
            ("", None),
        ] {
            assert_eq!(Address::parse(text).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn the_current_context_is_followed_or_refused_and_never_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let hints = |host: Option<&str>, context: Option<&str>, tls| Hints {
            host: host.map(str::to_owned),
            context: context.map(str::to_owned),
            tls,
            config: Some(dir.path().to_owned()),
        };
        let default = Address::Unix(DEFAULT_SOCKET.into());
        assert_eq!(hints(None, None, false).address().unwrap(), default);

        for (name, host) in [("near", "unix:///run/near.sock"), ("far", "ssh://far"), ("shut", "tcp://shut:2376")] {
            let digest: String = Sha256::digest(name.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
            let meta = dir.path().join("contexts/meta").join(&digest);
            std::fs::create_dir_all(&meta).unwrap();
            let text = serde_json::json!({"Name": name, "Endpoints": {"docker": {"Host": host}}}).to_string();
            std::fs::write(meta.join("meta.json"), text).unwrap();
            if name == "shut" {
                std::fs::create_dir_all(dir.path().join("contexts/tls").join(&digest).join("docker")).unwrap();
            }
        }
        let near = Address::Unix("/run/near.sock".into());
        for (current, wanted) in [("near", Some(&near)), ("default", Some(&default)), ("far", None), ("gone", None)] {
            std::fs::write(dir.path().join("config.json"), format!(r#"{{"currentContext":"{current}"}}"#)).unwrap();
            assert_eq!(hints(None, None, false).address().ok().as_ref(), wanted, "{current}");
        }
        assert_eq!(hints(None, Some("near"), false).address().unwrap(), near, "DOCKER_CONTEXT comes first");
        assert!(hints(None, Some("shut"), false).address().is_err(), "a context with certificates");
        assert!(hints(Some("tcp://a:1"), None, true).address().is_err(), "DOCKER_TLS_VERIFY");
        assert!(hints(Some("tcp://a:1"), None, false).address().is_ok());
        std::fs::write(dir.path().join("config.json"), "{").unwrap();
        assert!(hints(None, None, false).address().is_err(), "an unreadable file is not no file");
    }
}
