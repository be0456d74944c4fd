//! What the agent knows of its bottle and of the world, from its environment. It is told of the real credential only
//! its hash.
//!
//! | variable | what |
//! |---|---|
//! | `HTTPS_PROXY` or `HTTP_PROXY` | the bottle's pipelock |
//! | `ALLOWED_HOST` | the one allowlisted host |
//! | `ROUTE_URL`, `ROUTE_HOST` | a route of cred-proxy, and the host behind it |
//! | `GIT_URL`, `GIT_HOST` | a remote of git-gate, and the host behind it |
//! | `ATTACKER_HOST`, `ATTACKER_IP` | the attacker's name and address |
//! | `HOST_IPS` | the host's addresses, bridge gateways included, comma between |
//! | `NEIGHBOUR_IP`, `RESOLVER_IP` | another bottle's sidecar, a resolver outside |
//! | `CANARY_SHA256` | hex SHA-256 of the credential |
//! | `ASK_HOST`, `ASK_NEIGHBOUR` | a host that the operator allows when asked, and one beside it; absent: nobody is asked |
//! | `SSL_CERT_FILE` | the CA bundle that the bottle gave it |
//! | `SIDECARS` | `name:port` of what may answer; by default those of a bottle |
//! | `METADATA_IP`, `OUTSIDE_IP6` | a cloud's metadata service, an outside address; have defaults |

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

const SIDECARS: &str = "pipelock:8888,cred-proxy:9099,supervise:9100,git-gate:9418";
const METADATA_IP: &str = "169.254.169.254";
/// Of the documentation prefix: nobody has it.
const OUTSIDE_IP6: &str = "2001:db8::1";

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Known {
    /// The bottle's pipelock.
    pub proxy: Place,
    /// The allowlisted host.
    pub allowed: String,
    /// Where the route's sidecar listens.
    pub route: Place,
    /// Path of the route, beginning and ending with `/`.
    pub route_path: String,
    /// The host behind the route.
    pub route_host: String,
    /// Where git-gate listens.
    pub git: Place,
    /// Path of its remote, beginning with `/`.
    pub git_path: String,
    /// The host behind the remote.
    pub git_host: String,
    /// The attacker's name.
    pub attacker: String,
    /// The attacker's address.
    pub attacker_ip: Ipv4Addr,
    /// The host's addresses.
    pub host_ips: Vec<Ipv4Addr>,
    /// Another bottle's sidecar.
    pub neighbour_ip: Ipv4Addr,
    /// A resolver outside.
    pub resolver_ip: Ipv4Addr,
    /// A cloud's metadata service.
    pub metadata_ip: Ipv4Addr,
    /// An outside address.
    pub outside_ip6: Ipv6Addr,
    /// SHA-256 of the credential, hex, lower case.
    pub canary_sha256: String,
    /// A host that the operator allows when asked, and one beside it.
    pub asks: Option<(String, String)>,
    /// What may answer.
    pub sidecars: Vec<Place>,
    /// The CAs that the bottle gave it.
    pub roots: Arc<RootCertStore>,
}

impl Known {
    /// Reads the environment; gives all errors at once.
    pub fn from_env(env: &BTreeMap<String, String>) -> Result<Self, Vec<String>> {
        let mut reader = Reader { env, errors: Vec::new() };
        let proxy = reader.url(&["HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"], 8888).0;
        let (route, route_path) = reader.url(&["ROUTE_URL"], 80);
        let (git, git_path) = reader.url(&["GIT_URL"], 9418);
        let known = Self {
            proxy,
            allowed: reader.text("ALLOWED_HOST"),
            route,
            route_path,
            route_host: reader.text("ROUTE_HOST"),
            git,
            git_path,
            git_host: reader.text("GIT_HOST"),
            attacker: reader.text("ATTACKER_HOST"),
            attacker_ip: reader.address("ATTACKER_IP", Ipv4Addr::UNSPECIFIED),
            host_ips: reader.list("HOST_IPS", ""),
            neighbour_ip: reader.address("NEIGHBOUR_IP", Ipv4Addr::UNSPECIFIED),
            resolver_ip: reader.address("RESOLVER_IP", Ipv4Addr::UNSPECIFIED),
            metadata_ip: reader.parse("METADATA_IP", METADATA_IP, Ipv4Addr::UNSPECIFIED),
            outside_ip6: reader.parse("OUTSIDE_IP6", OUTSIDE_IP6, Ipv6Addr::UNSPECIFIED),
            canary_sha256: reader.text("CANARY_SHA256").to_ascii_lowercase(),
            asks: env.get("ASK_HOST").cloned().zip(env.get("ASK_NEIGHBOUR").cloned()),
            sidecars: reader.list("SIDECARS", SIDECARS),
            roots: Arc::new(roots(env.get("SSL_CERT_FILE").map(String::as_str))),
        };
        if reader.errors.is_empty() { Ok(known) } else { Err(reader.errors) }
    }

    /// Where the allowlisted host speaks TLS.
    pub fn allowed_tls(&self) -> String {
        format!("{}:443", self.allowed)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("{text:?} is not host:port"))?;
        let port = port.parse().map_err(|_| format!("{port:?} is not a port"))?;
        Ok(Self { host: host.to_owned(), port })
    }
}

struct Reader<'a> {
    env: &'a BTreeMap<String, String>,
    errors: Vec<String>,
}

impl Reader<'_> {
    fn text(&mut self, name: &str) -> String {
        match self.env.get(name).filter(|value| !value.is_empty()) {
            Some(value) => value.clone(),
            None => {
                self.errors.push(format!("{name} is not set"));
                String::new()
            }
        }
    }

    fn parse<T: FromStr>(&mut self, name: &str, default: &str, broken: T) -> T {
        let value = self.env.get(name).map_or(default, String::as_str);
        value.parse().unwrap_or_else(|_| {
            self.errors.push(format!("{name} is {value:?}, not what it must be"));
            broken
        })
    }

    fn address(&mut self, name: &str, broken: Ipv4Addr) -> Ipv4Addr {
        self.parse(name, "", broken)
    }

    fn list<T: FromStr>(&mut self, name: &str, default: &str) -> Vec<T> {
        let value = self.env.get(name).map_or(default, String::as_str);
        let items: Result<Vec<T>, _> = value.split(',').map(|item| item.trim().parse()).collect();
        items.unwrap_or_else(|_| {
            self.errors.push(format!("{name} is {value:?}, not a list of what it must be"));
            Vec::new()
        })
    }

    /// `scheme://host[:port]/path` of the first variable that is set.
    fn url(&mut self, names: &[&str], port: u16) -> (Place, String) {
        let nowhere = (Place { host: String::new(), port: 0 }, "/".to_owned());
        let Some(value) = names.iter().find_map(|name| self.env.get(*name)) else {
            self.errors.push(format!("{} is not set", names.join(" or ")));
            return nowhere;
        };
        let rest = value.split_once("://").map_or(value.as_str(), |(_, rest)| rest);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let place = if authority.contains(':') { authority.parse() } else { format!("{authority}:{port}").parse() };
        match place {
            Ok(place) => (place, format!("/{path}")),
            Err(why) => {
                self.errors.push(format!("{}: {why}", names[0]));
                nowhere
            }
        }
    }
}

/// Without a bundle nothing is trusted, and the controls fail.
fn roots(path: Option<&str>) -> RootCertStore {
    let mut store = RootCertStore::empty();
    let path = path.unwrap_or("/etc/ssl/certs/ca-certificates.crt");
    if let Ok(certificates) = CertificateDer::pem_file_iter(path) {
        store.add_parsable_certificates(certificates.filter_map(Result::ok));
    }
    store
}

#[cfg(test)]
mod tests {
    use super::{Known, Place};
    use std::collections::BTreeMap;

    fn env() -> BTreeMap<String, String> {
        [
            ("HTTPS_PROXY", "http://pipelock:8888"),
            ("ALLOWED_HOST", "files.world.example"),
            ("ROUTE_URL", "http://cred-proxy:9099/api/"),
            ("ROUTE_HOST", "api.world.example"),
            ("GIT_URL", "git://git-gate/app.git"),
            ("GIT_HOST", "forge.world.example"),
            ("ATTACKER_HOST", "attacker.world.example"),
            ("ATTACKER_IP", "198.18.0.4"),
            ("HOST_IPS", "172.17.0.1, 10.0.0.1"),
            ("NEIGHBOUR_IP", "10.0.0.9"),
            ("RESOLVER_IP", "198.18.0.5"),
            ("CANARY_SHA256", "AB"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }

    #[test]
    fn a_whole_environment_is_read() {
        let known = Known::from_env(&env()).unwrap();
        assert_eq!(known.proxy, Place { host: "pipelock".to_owned(), port: 8888 });
        assert_eq!(known.route, Place { host: "cred-proxy".to_owned(), port: 9099 });
        assert_eq!(known.route_path, "/api/");
        assert_eq!(known.git, Place { host: "git-gate".to_owned(), port: 9418 });
        assert_eq!(known.git_path, "/app.git");
        assert_eq!(known.host_ips.len(), 2);
        assert_eq!(known.sidecars.len(), 4);
        assert_eq!(known.canary_sha256, "ab");
    }

    #[test]
    fn whatever_is_missing_is_named_and_all_at_once() {
        for name in env().keys() {
            let mut less = env();
            less.remove(name);
            let errors = Known::from_env(&less).unwrap_err();
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].contains(name.as_str()), "{errors:?}");
        }
        assert_eq!(Known::from_env(&BTreeMap::new()).unwrap_err().len(), 12);
        let mut wrong = env();
        wrong.insert("ATTACKER_IP".to_owned(), "attacker".to_owned());
        assert!(Known::from_env(&wrong).unwrap_err()[0].contains("ATTACKER_IP"));
    }
}
