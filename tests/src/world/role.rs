//! What each role of `demo-world` is told: one JSON line on its standard input. `demo-world` reads these types and
//! whoever makes a world writes them. A port of 0 lets the system choose; the `ready` line says which it was.

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

/// A configuration line longer than this is refused.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// A certificate chain and its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// PEM, leaf first.
    pub chain_pem: String,
    /// PEM of the leaf's key.
    pub key_pem: String,
}

/// What the API wants to see under `/v1/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Header name, lower case.
    pub header: String,
    /// Its whole value. A canary, never a real credential.
    pub value: String,
}

/// The API upstream: HTTPS and HTTP for any name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Where to listen.
    pub listen: IpAddr,
    /// Port of HTTPS.
    pub https_port: u16,
    /// Port of HTTP.
    pub http_port: u16,
    /// What HTTPS shows.
    pub identity: Identity,
    /// Without it nothing is asked for.
    pub expected: Option<Expected>,
}

/// The attacker's host: takes whatever comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttackerConfig {
    /// Where to listen.
    pub listen: IpAddr,
    /// Ports for TCP, each with and without TLS.
    pub tcp_ports: Vec<u16>,
    /// Ports for datagrams.
    pub udp_ports: Vec<u16>,
    /// What TLS shows.
    pub identity: Identity,
}

/// The git host: smart HTTP by the real `git http-backend`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitConfig {
    /// Where to listen.
    pub listen: IpAddr,
    /// Port of HTTPS.
    pub https_port: u16,
    /// Port of HTTP.
    pub http_port: u16,
    /// What HTTPS shows.
    pub identity: Identity,
    /// Without it nothing is asked for, and everybody may push.
    pub expected: Option<Expected>,
    /// The folder for its repositories.
    pub root: PathBuf,
    /// Path of the one it makes, without `.git`.
    pub repository: String,
}

/// The recording resolver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolverConfig {
    /// Where to listen.
    pub listen: IpAddr,
    /// Port for datagrams and TCP. With 0 they may differ.
    pub port: u16,
    /// The address of every name.
    pub answer: Ipv4Addr,
}

/// Another bottle's sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeighbourConfig {
    /// Where to listen.
    pub listen: IpAddr,
    /// Port of HTTP.
    pub port: u16,
}

/// An identity is no certificate with its key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The chain or the key is not PEM of its kind.
    #[error("could not read the identity's PEM")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// The key does not fit.
    #[error("could not serve with the identity")]
    Tls(#[from] rustls::Error),
}

impl Identity {
    /// TLS with this identity, HTTP/1.1 alone.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, IdentityError> {
        let chain = CertificateDer::pem_slice_iter(self.chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The line to write to a role's standard input, with its newline.
pub fn line<C: Serialize>(config: &C) -> String {
    let mut line = serde_json::to_string(config).expect("a role's configuration has string keys alone");
    line.push('\n');
    line
}
