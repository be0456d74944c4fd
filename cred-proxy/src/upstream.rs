//! The ways to the upstreams of a table: whom to trust, which protocols to offer, and why there may be no reply.
//!
//! A certificate is always checked, against the roots that the route calls for and the upstream's own name.

use crate::address::{OriginName, Scheme};
use crate::config::Config;
use crate::leg::LegError;
use crate::limits::Limits;
use crate::pool::{Origin, Tls};
use crate::refuse::Refusal;
use crate::table::Table;
use bottle_sidecar::Authority;
use bottle_sidecar::tunnel::TunnelError;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsConnector;

/// Why an upstream gave no reply.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// No connection in time.
    #[error("no connection to {0} within {1:?}")]
    ConnectTime(Authority, Duration),
    /// The certificate is not trusted, or the other side does not speak TLS.
    #[error("the tls handshake with {0} failed")]
    Tls(Authority, #[source] std::io::Error),
    /// The upstream broke off, or does not speak HTTP.
    #[error("the upstream {0} broke off")]
    Http(Authority, #[source] hyper::Error),
    /// The same over HTTP/1.1.
    #[error("the upstream {0} gave no reply that can be read")]
    Reply(Authority, #[source] LegError),
    /// The library takes the target for no URL.
    #[error("the target is no url")]
    Target(#[source] http::Error),
    /// It speaks what it was not offered.
    #[error("the upstream {0} chose a protocol that was not offered")]
    Protocol(Authority),
    /// No head of a reply in time.
    #[error("no reply within {0:?}")]
    HeadTime(Duration),
    /// The agent's body broke off.
    #[error("the request's body broke off")]
    Upload,
    /// The agent's body is longer than the limit.
    #[error("the request's body is longer than {0} bytes")]
    TooLong(u64),
    /// The route was taken away meanwhile.
    #[error("the route was taken away")]
    Cut,
}

impl Failure {
    /// What the agent is told.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Tunnel(TunnelError::Refused { status: 403, .. }) => Refusal::ProxyRefused,
            Self::Tunnel(TunnelError::Refused { status: 504, .. }) | Self::ConnectTime(..) | Self::HeadTime(_) => {
                Refusal::Timeout
            }
            Self::Tunnel(_)
            | Self::Tls(..)
            | Self::Http(..)
            | Self::Reply(..)
            | Self::Target(_)
            | Self::Protocol(_) => Refusal::Upstream,
            Self::Upload => Refusal::Body,
            Self::TooLong(_) => Refusal::TooLarge,
            Self::Cut => Refusal::NoRoute,
        }
    }
}

/// Why the roots of a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// Not PEM, or no certificate a root can be made of.
    #[error("cannot read the certificates in `{0}`")]
    Unreadable(&'static str),
    /// A route needs them.
    #[error("a route needs certificates in `{0}`, and there are none")]
    Missing(&'static str),
    /// The library refused its own defaults.
    #[error("cannot set up tls")]
    Setup(#[source] rustls::Error),
    /// The host is no name that a certificate can have.
    #[error("`{0}` cannot be the name in a certificate")]
    Name(String),
}

/// Every origin of a table.
#[derive(Debug)]
pub struct Origins {
    /// By the route's index in the table; routes to one upstream share it.
    of_routes: Vec<Arc<Origin>>,
}

impl Origins {
    /// The origins of `table` with the roots of `config`.
    pub fn new(table: &Table, config: &Config, limits: Limits) -> Result<Self, RootsError> {
        let mut connectors: HashMap<bool, Connectors> = HashMap::new();
        let mut by_name: HashMap<OriginName, Arc<Origin>> = HashMap::new();
        let mut of_routes = Vec::with_capacity(table.routes.len());
        for route in &table.routes {
            let name = &route.upstream.origin;
            if let Some(origin) = by_name.get(name) {
                of_routes.push(origin.clone());
                continue;
            }
            let tls = match name.scheme {
                Scheme::Http => None,
                Scheme::Https => {
                    let both = match connectors.get(&name.inspected) {
                        Some(both) => both.clone(),
                        None => Connectors::new(config, name.inspected)?,
                    };
                    connectors.insert(name.inspected, both.clone());
                    let host = &name.authority.host;
                    let server = ServerName::try_from(host.clone()).map_err(|_| RootsError::Name(host.clone()))?;
                    Some(Tls { any: both.any, http1: both.http1, server })
                }
            };
            let origin = Arc::new(Origin::new(name.clone(), table.proxy.clone(), tls, limits));
            of_routes.push(origin.clone());
            by_name.insert(name.clone(), origin);
        }
        Ok(Self { of_routes })
    }

    /// Closes connections that were kept for too long.
    pub fn sweep(&self) {
        self.of_routes.iter().for_each(|origin| origin.sweep());
    }

    /// The origin of the route with this index in the table.
    pub fn of_route(&self, index: usize) -> &Arc<Origin> {
        &self.of_routes[index]
    }
}

/// How TLS is begun with upstreams that share their roots.
#[derive(Clone)]
struct Connectors {
    /// Offers what the upstream may choose from.
    any: TlsConnector,
    /// Offers HTTP/1.1 alone: for upgrades, which HTTP/2 has not.
    http1: TlsConnector,
}

impl Connectors {
    fn new(config: &Config, inspected: bool) -> Result<Self, RootsError> {
        let (what, pem) = match inspected {
            true => ("inspected_ca", config.inspected_ca.as_deref().unwrap_or_default()),
            false => ("upstream_roots", config.upstream_roots.as_str()),
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|_| RootsError::Unreadable(what))?;
            roots.add(certificate).map_err(|_| RootsError::Unreadable(what))?;
        }
        if roots.is_empty() {
            return Err(RootsError::Missing(what));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut http1 = versions.map_err(RootsError::Setup)?.with_root_certificates(roots).with_no_client_auth();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut any = http1.clone();
        // Whoever inspects speaks HTTP/1.1 alone.
        if !inspected {
            any.alpn_protocols.insert(0, b"h2".to_vec());
        }
        Ok(Self { any: TlsConnector::from(Arc::new(any)), http1: TlsConnector::from(Arc::new(http1)) })
    }
}
