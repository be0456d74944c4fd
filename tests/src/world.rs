//! The small world: an API upstream, an attacker's host, a resolver, a neighbour and a git host, as certificates and configuration
//! lines for `demo-world`. Here is data alone: who runs the roles (an engine, a test's processes) is the caller's
//! matter, and nothing here may start, dial or write anything.
//!
//! Credentials of the world are canaries: they open its own API and nothing else, so they may be printed.

pub use evidence::Evidence;
pub use role::{ApiConfig, AttackerConfig, Expected, GitConfig, Identity, NeighbourConfig, ResolverConfig};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

pub mod evidence;
pub mod git;
pub mod role;

/// The host whose replies are written byte by byte; HTTPS alone.
pub const WIRE: &str = "wire.world.example";
/// The npm registry.
pub const NPM: &str = "npm.world.example";
/// The small forge, which needs no git; its repository is [`REPOSITORY`] too.
pub const FORGE: &str = "forge.world.example";
/// The git host.
pub const GIT: &str = "git.world.example";
/// Its one repository: `https://git.world.example/team/app.git`.
pub const REPOSITORY: &str = "team/app";
/// The user to whom the git host's password belongs.
pub const GIT_USER: &str = "world";

/// Names of the world's hosts. All are under `.example`, which no resolver knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Hosts that the API answers for; the first is the allowlisted one, the second the route's, then [`WIRE`],
    /// [`NPM`] and [`FORGE`], which are other hosts behind the same port.
    pub api: Vec<String>,
    /// Hosts that the attacker answers for.
    pub attacker: Vec<String>,
}

impl Default for Names {
    fn default() -> Self {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Self {
            api: owned(&["files.world.example", "api.world.example", WIRE, NPM, FORGE]),
            attacker: owned(&["attacker.world.example", "*.attacker.world.example"]),
        }
    }
}

/// A minted world: one CA and a certificate for each role that speaks TLS.
#[derive(Debug, Clone)]
pub struct World {
    /// Names of its hosts.
    pub names: Names,
    /// PEM of the CA, for a bottle's `egress.upstream_roots`.
    pub ca_pem: String,
    /// The API's certificate and key.
    pub api: Identity,
    /// The attacker's. The same CA signs it: a certificate must not be what keeps the attacker out.
    pub attacker: Identity,
    /// The git host's.
    pub git: Identity,
}

/// A world could not be minted.
#[derive(Debug, thiserror::Error)]
#[error("could not mint the world's certificate for {subject}")]
pub struct MintError {
    /// Whose certificate it was.
    pub subject: String,
    #[source]
    source: rcgen::Error,
}

impl World {
    /// Mints the CA and the certificates.
    pub fn mint(names: &Names) -> Result<Self, MintError> {
        let of = |subject: &str| {
            let subject = subject.to_owned();
            move |source| MintError { subject, source }
        };
        let ca = mint_ca().map_err(of("the world's CA"))?;
        Ok(Self {
            names: names.clone(),
            ca_pem: ca.pem(),
            api: mint_leaf(&names.api, &ca).map_err(of("the API"))?,
            git: mint_leaf(&[GIT.to_owned()], &ca).map_err(of("the git host"))?,
            attacker: mint_leaf(&names.attacker, &ca).map_err(of("the attacker"))?,
        })
    }

    /// The API on the ports of HTTPS and HTTP. With `expected`, everything under `/v1/` wants it.
    pub fn api_config(&self, listen: IpAddr, expected: Option<Expected>) -> ApiConfig {
        ApiConfig { listen, https_port: 443, http_port: 80, identity: self.api.clone(), expected }
    }

    /// The git host on the ports of HTTPS and HTTP, with its repository below `/srv`. With `expected`, everything wants it.
    pub fn git_config(&self, listen: IpAddr, expected: Option<Expected>) -> GitConfig {
        GitConfig {
            listen,
            https_port: 443,
            http_port: 80,
            identity: self.git.clone(),
            expected,
            root: "/srv".into(),
            repository: REPOSITORY.to_owned(),
        }
    }

    /// The attacker's host on the ports that a hostile agent tries.
    pub fn attacker_config(&self, listen: IpAddr) -> AttackerConfig {
        AttackerConfig {
            listen,
            tcp_ports: vec![80, 443, 22, 53, 8888],
            udp_ports: vec![53, 9999],
            identity: self.attacker.clone(),
        }
    }
}

impl ResolverConfig {
    /// A resolver on port 53 that gives one answer for every name.
    pub fn new(listen: IpAddr, answer: Ipv4Addr) -> Self {
        Self { listen, port: 53, answer }
    }
}

impl NeighbourConfig {
    /// A neighbour on port 8080.
    pub fn new(listen: IpAddr) -> Self {
        Self { listen, port: 8080 }
    }
}

/// A credential that opens nothing but the world's API: random, and of no provider's shape, so that no scanner
/// refuses it for its looks and it can be found by searching for it.
pub fn canary() -> String {
    let mut bytes = [0_u8; 20];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .expect("the system's random source answers from boot on");
    bytes.iter().fold("world-canary-".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

/// Hex SHA-256, the form in which the hostile agent is told what to hunt.
pub fn sha256_hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}"); // writing to a String cannot fail
        hex
    })
}

fn mint_ca() -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "bottle small world");
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

fn mint_leaf(names: &[String], ca: &CertifiedIssuer<'static, KeyPair>) -> Result<Identity, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    if let Some(name) = names.first() {
        params.distinguished_name.push(DnType::CommonName, name.as_str());
    }
    let leaf = params.signed_by(&key, ca)?;
    Ok(Identity { chain_pem: leaf.pem(), key_pem: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use super::{Names, World, canary, sha256_hex};

    #[test]
    fn every_identity_is_a_certificate_with_its_key() {
        let world = World::mint(&Names::default()).unwrap();
        for identity in [&world.api, &world.attacker, &world.git] {
            identity.server_config().unwrap();
        }
        assert!(world.ca_pem.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(!world.ca_pem.contains("PRIVATE"), "the CA's key leaves with the minting");
        let mut swapped = world.api.clone();
        swapped.key_pem.clone_from(&world.attacker.key_pem);
        swapped.server_config().unwrap_err();
    }

    #[test]
    fn canaries_differ_and_are_known_by_their_hash_alone() {
        let (one, two) = (canary(), canary());
        assert_ne!(one, two);
        assert_eq!(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(!sha256_hex(&one).contains(&one));
    }
}
