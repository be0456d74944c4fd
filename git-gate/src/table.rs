//! The table in force: what [`Config`] and its secrets become when they are read.
//!
//! A [`Table`] is valid by construction; a configuration that cannot become one changes nothing, and the reason says
//! which remote is at fault. No reason ever has a secret in it.

use crate::Secret;
use crate::address;
use crate::config::{Config, Credential, KNOWN_BYTES_MIN};
use crate::limits::Limits;
use crate::policy::{Policy, PolicyError};
use crate::scan::{self, Fingerprint, Rules, RulesError, Scanner, ScannerError};
use crate::upstream::Upstream;
use crate::upstream::https::{Https, SetupError, tls};
use crate::upstream::ssh::{KeyError, Place, Ssh};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bottle_sidecar::Authority;
use http::HeaderValue;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use zeroize::Zeroizing;

const REMOTES_MAX: usize = 256;
const EXCEPTIONS_MAX: usize = 10_000;

/// Everything that one configuration says.
#[derive(Debug)]
pub struct Table {
    remotes: HashMap<String, Arc<Remote>>,
    /// What looks for secrets in pushes.
    pub scanner: Scanner,
    /// Where packs stay meanwhile.
    pub spool: PathBuf,
    /// The limits.
    pub limits: Limits,
}

/// One remote.
#[derive(Debug)]
pub struct Remote {
    /// Its name.
    pub name: String,
    /// How to get there.
    pub upstream: Box<dyn Upstream>,
    /// What may be pushed.
    pub policy: Policy,
    /// Findings that the operator has judged false.
    pub exceptions: HashSet<Fingerprint>,
}

/// Why a configuration is no table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Too many, or a limit of zero.
    #[error("{0}")]
    Whole(String),
    /// A remote is at fault.
    #[error("remote `{name}`")]
    Remote {
        /// Which one.
        name: String,
        /// What is wrong with it.
        source: RemoteError,
    },
    /// The proxy is no address.
    #[error("proxy is not `http://host:port`")]
    Proxy,
    /// A known secret is not among the secrets, or too short to be looked for.
    #[error("the known secret `{0}` is missing, or shorter than {KNOWN_BYTES_MIN} bytes")]
    Known(String),
    /// The rules that are built in cannot be read.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// No scanner can be made of the rules and the known secrets.
    #[error(transparent)]
    Scanner(#[from] ScannerError),
}

/// What is wrong with a remote.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Not a name.
    #[error("the name may have letters, digits, `.`, `_`, `-` and `/`, and does not end in `.git`")]
    Name,
    /// Twice, but for the `.git` that nobody needs to say.
    #[error("the name is there twice")]
    Twice,
    /// Not an address, or one with a password in it.
    #[error("upstream is not `ssh://[user@]host[:port]/path` or `https://host[:port]/path` without a password in it")]
    Upstream,
    /// A name that `secrets` does not have.
    #[error("there is no secret `{0}`")]
    Secret(String),
    /// ssh wants a key, https a token.
    #[error("this credential does not open this kind of upstream (ssh: ssh-key; https: bearer, basic or none)")]
    Credential,
    /// A credential in the clear.
    #[error("the credential would go over http:// in the clear; use https:// (http:// is for loopback alone)")]
    Clear,
    /// The key or the pin.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// TLS.
    #[error(transparent)]
    Https(#[from] SetupError),
    /// What may be pushed.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// An exception.
    #[error("an exception is not a fingerprint of 64 hexadecimal digits")]
    Exception,
}

type Secrets = BTreeMap<String, Secret>;

impl Table {
    /// Reads a configuration.
    pub fn parse(config: &Config, secrets: &Secrets) -> Result<Self, TableError> {
        if config.remotes.len() > REMOTES_MAX {
            return Err(TableError::Whole(format!("there are more than {REMOTES_MAX} remotes")));
        }
        if let Some(name) = config.limits.impossible() {
            return Err(TableError::Whole(format!("the limit {name} is 0, which lets nothing pass")));
        }
        let proxy = match &config.proxy {
            Some(url) => Some(Authority::of_proxy(url).ok_or(TableError::Proxy)?),
            None => None,
        };
        let mut remotes = HashMap::new();
        for remote in &config.remotes {
            let at_fault = |source| TableError::Remote { name: remote.name.clone(), source };
            let parsed = Remote::parse(remote, config, proxy.as_ref(), secrets).map_err(at_fault)?;
            if remotes.insert(remote.name.clone(), Arc::new(parsed)).is_some() {
                return Err(at_fault(RemoteError::Twice));
            }
        }
        let scanner = Scanner::new(Rules::built_in()?, known_secrets(config, secrets)?)?;
        Ok(Self { remotes, scanner, spool: config.spool.clone(), limits: config.limits })
    }

    /// The remote of this name, exactly.
    pub fn remote(&self, name: &str) -> Option<Arc<Remote>> {
        self.remotes.get(name).cloned()
    }
}

/// The secrets that are looked for in every push: those that the operator names, and what opens the remotes.
fn known_secrets(config: &Config, secrets: &Secrets) -> Result<Vec<scan::Secret>, TableError> {
    let mut known: Vec<&str> = Vec::new();
    for name in &config.known {
        let secret = secrets.get(name).map(Secret::expose).filter(|secret| secret.len() >= KNOWN_BYTES_MIN);
        known.push(secret.ok_or_else(|| TableError::Known(name.clone()))?);
    }
    for remote in &config.remotes {
        let value = |name: &String| secrets.get(name).map(Secret::expose).unwrap_or_default();
        match &remote.credential {
            Credential::SshKey { secret, passphrase } => {
                known.push(value(secret).trim());
                known.extend(passphrase.as_ref().map(value));
            }
            Credential::Bearer { secret } => known.push(value(secret)),
            Credential::Basic { secret } => {
                let pair = value(secret);
                known.push(pair);
                known.extend(pair.split_once(':').map(|(_, password)| password));
            }
            Credential::None => {}
        }
    }
    known.retain(|secret| secret.len() >= KNOWN_BYTES_MIN);
    known.sort_unstable();
    known.dedup();
    Ok(known.into_iter().map(|secret| scan::Secret::new(secret.as_bytes().to_vec())).collect())
}

impl Remote {
    fn parse(
        remote: &crate::config::Remote,
        config: &Config,
        proxy: Option<&Authority>,
        secrets: &Secrets,
    ) -> Result<Self, RemoteError> {
        if !is_name(&remote.name) {
            return Err(RemoteError::Name);
        }
        let secret = |name: &String| secrets.get(name).ok_or_else(|| RemoteError::Secret(name.clone()));
        let upstream = address::Upstream::parse(&remote.upstream).ok_or(RemoteError::Upstream)?;
        let upstream: Box<dyn Upstream> = match (upstream, &remote.credential) {
            (address::Upstream::Ssh { user, authority, path }, Credential::SshKey { secret: key, passphrase }) => {
                let place = Place { user, authority, path };
                let passphrase = passphrase.as_ref().map(secret).transpose()?;
                Box::new(Ssh::new(place, secret(key)?, passphrase, remote.host_key.as_deref(), config.limits)?)
            }
            (address::Upstream::Http { tls: is_tls, authority, path }, credential) => {
                let credential = header_value(credential, &secret)?;
                let is_local = matches!(authority.host.as_str(), "127.0.0.1" | "::1" | "localhost");
                if !is_tls && credential.is_some() && !is_local {
                    return Err(RemoteError::Clear);
                }
                let tls = match (is_tls, remote.inspected) {
                    (false, _) => None,
                    (true, false) => Some(tls(&authority, &config.upstream_roots, "upstream_roots")?),
                    (true, true) => {
                        let ca = config.inspected_ca.as_deref().unwrap_or_default();
                        Some(tls(&authority, ca, "inspected_ca")?)
                    }
                };
                Box::new(Https { authority, path, tls, proxy: proxy.cloned(), credential, limits: config.limits })
            }
            (
                address::Upstream::Ssh { .. },
                Credential::Bearer { .. } | Credential::Basic { .. } | Credential::None,
            ) => {
                return Err(RemoteError::Credential);
            }
        };
        let policy = Policy::parse(&remote.push, config.limits.pack_bytes)?;
        if remote.exceptions.len() > EXCEPTIONS_MAX {
            return Err(RemoteError::Exception);
        }
        let parse = |text: &String| Fingerprint::parse(text).ok_or(RemoteError::Exception);
        let exceptions = remote.exceptions.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { name: remote.name.clone(), upstream, policy, exceptions })
    }
}

/// A name that a path of a URL can be, in one spelling.
fn is_name(name: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let segment =
        |segment: &str| !segment.is_empty() && !segment.starts_with(['.', '-']) && segment.bytes().all(is_char);
    name.len() <= 200 && name.split('/').all(segment) && !name.ends_with(".git")
}

fn header_value<'a>(
    credential: &Credential,
    secret: &impl Fn(&String) -> Result<&'a Secret, RemoteError>,
) -> Result<Option<HeaderValue>, RemoteError> {
    let value = match credential {
        Credential::None => return Ok(None),
        Credential::SshKey { .. } => return Err(RemoteError::Credential),
        Credential::Bearer { secret: name } => Zeroizing::new(format!("Bearer {}", secret(name)?.expose())),
        Credential::Basic { secret: name } => {
            let pair = Zeroizing::new(STANDARD.encode(secret(name)?.expose()));
            Zeroizing::new(format!("Basic {}", pair.as_str()))
        }
    };
    let mut value = HeaderValue::from_str(&value).map_err(|_| SetupError::Credential)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Push};

    fn config(remotes: Vec<config::Remote>) -> Config {
        Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            remotes,
            proxy: None,
            inspected_ca: None,
            upstream_roots: String::new(),
            known: Vec::new(),
            spool: "/tmp".into(),
            limits: Limits::default(),
        }
    }

    fn remote(upstream: &str, credential: Credential) -> config::Remote {
        config::Remote {
            name: "app".into(),
            upstream: upstream.into(),
            credential,
            host_key: None,
            inspected: false,
            push: Push::default(),
            exceptions: Vec::new(),
        }
    }

    fn refused(config: &Config) -> String {
        let secrets = BTreeMap::from([
            ("token".to_owned(), Secret::new("s3cret-value".into())),
            ("line".to_owned(), Secret::new("s3cret\nvalue".into())),
            ("short".to_owned(), Secret::new("s3cret".into())),
        ]);
        let error = Table::parse(config, &secrets).map(drop).expect_err("it is refused");
        let text = bottle_sidecar::chain(&error);
        assert!(!text.contains("s3cret"), "{text}");
        text
    }

    #[test]
    fn what_is_no_table() {
        let bearer = || Credential::Bearer { secret: "token".into() };
        let key = || Credential::SshKey { secret: "token".into(), passphrase: None };
        let pin = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ".to_owned();
        let local = "http://127.0.0.1:1/a";
        for (remote, wanted) in [
            (remote("git@a:b", key()), "upstream is not"),
            (remote("https://u:s3cret@a.example/b", bearer()), "upstream is not"),
            (remote("ssh://a/b", key()), "known_host_key is missing"),
            (config::Remote { host_key: Some("x".into()), ..remote("ssh://a/b", key()) }, "is not a public key"),
            (config::Remote { host_key: Some(pin), ..remote("ssh://a/b", key()) }, "ssh key cannot be read"),
            (remote("ssh://a/b", bearer()), "does not open this kind"),
            (remote(local, key()), "does not open this kind"),
            (remote("https://a.example/b", bearer()), "`upstream_roots` are needed"),
            (
                config::Remote { inspected: true, ..remote("https://a.example/b", bearer()) },
                "`inspected_ca` are needed",
            ),
            (remote("http://a.example/b", bearer()), "in the clear"),
            (remote(local, Credential::Bearer { secret: "nobody".into() }), "there is no secret `nobody`"),
            (remote(local, Credential::Bearer { secret: "line".into() }), "cannot stand in a header"),
            (config::Remote { name: "../a".into(), ..remote(local, bearer()) }, "the name may have"),
            (config::Remote { name: "a.git".into(), ..remote(local, bearer()) }, "the name may have"),
            (config::Remote { name: "--a".into(), ..remote(local, bearer()) }, "the name may have"),
            (config::Remote { exceptions: vec!["abc".into()], ..remote(local, bearer()) }, "no fingerprint"),
            (
                config::Remote {
                    push: Push { refs: vec!["main".into()], ..Push::default() },
                    ..remote(local, bearer())
                },
                "no full ref name",
            ),
        ] {
            let text = refused(&config(vec![remote]));
            let wanted = wanted.replace("no fingerprint", "not a fingerprint");
            assert!(text.contains(&wanted), "{text}");
        }
        let twice = config(vec![remote(local, bearer()), remote(local, bearer())]);
        assert!(refused(&twice).contains("twice"));
        assert!(refused(&Config { proxy: Some("a:1".into()), ..config(vec![]) }).contains("proxy is not"));
        assert!(refused(&Config { known: vec!["short".into()], ..config(vec![]) }).contains("`short`"));
        assert!(refused(&Config { known: vec!["nobody".into()], ..config(vec![]) }).contains("`nobody`"));
        let limits = Limits { pushes: 0, ..Limits::default() };
        assert!(refused(&Config { limits, ..config(vec![]) }).contains("limit pushes is 0"));
    }

    #[test]
    fn the_allowed_neighbours() {
        let secrets = BTreeMap::from([("token".to_owned(), Secret::new("s3cret-value".into()))]);
        for (url, credential) in [
            ("http://127.0.0.1:1/a", Credential::Bearer { secret: "token".into() }),
            ("http://127.0.0.1:1/a", Credential::Basic { secret: "token".into() }),
            ("http://a.example/a", Credential::None),
        ] {
            let mut remote = remote(url, credential);
            remote.name = "team/app_1.x".into();
            let table = Table::parse(&config(vec![remote]), &secrets).unwrap();
            assert!(table.remote("team/app_1.x").is_some());
            for other in ["team/app_1.x.git", "TEAM/app_1.x", "team", "", "/team/app_1.x"] {
                assert!(table.remote(other).is_none(), "{other}");
            }
        }
        // With nothing configured, nothing is open.
        assert!(Table::parse(&config(vec![]), &BTreeMap::new()).unwrap().remote("app").is_none());
    }
}
