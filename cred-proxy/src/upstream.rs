//! The way to the upstreams: connections with TLS where it is wanted, kept for the next request.
//!
//! A certificate is always checked, against the roots that the route calls for and the upstream's own name. A request
//! is sent twice only when it is sure that nobody has acted on the first.

use crate::address::{Authority, OriginName, Scheme};
use crate::body::Upload;
use crate::config::Config;
use crate::refuse::Refusal;
use crate::table::Table;
use crate::tunnel::{self, TunnelError};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// Connections kept for one origin.
const KEPT_MAX: usize = 128;

/// How long something may take or be quiet. There is no limit on a whole request: a stream may be long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Name, connection, CONNECT and TLS together.
    pub connect: Duration,
    /// From the last byte of the request to the reply's head: a model may think for long.
    pub head: Duration,
    /// Between two chunks of a body.
    pub idle: Duration,
    /// How long a connection is kept unused; less than proxies and upstreams keep theirs.
    pub kept: Duration,
    /// For the head of the agent's request, and between two of its requests.
    pub agent_head: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            head: Duration::from_secs(600),
            idle: Duration::from_secs(300),
            kept: Duration::from_secs(50),
            agent_head: Duration::from_secs(75),
        }
    }
}

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
    /// No head of a reply in time.
    #[error("no reply within {0:?}")]
    HeadTime(Duration),
    /// The agent's body broke off.
    #[error("the request's body broke off")]
    Upload,
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
            Self::Tunnel(_) | Self::Tls(..) | Self::Http(..) => Refusal::Upstream,
            Self::Upload => Refusal::Body,
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
    by_name: HashMap<OriginName, Arc<Origin>>,
}

/// One upstream's address, how to get there, and the connections kept to it.
pub struct Origin {
    name: OriginName,
    proxy: Option<Authority>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    limits: Limits,
    kept: Mutex<Vec<Kept>>,
}

struct Kept {
    sender: SendRequest<Upload>,
    since: Instant,
}

/// The connection that a reply arrives on. Give it back when the reply has ended.
pub struct Lease {
    origin: Arc<Origin>,
    sender: SendRequest<Upload>,
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Origins {
    /// The origins of `table` with the roots of `config`.
    pub fn new(table: &Table, config: &Config, limits: Limits) -> Result<Self, RootsError> {
        let mut connectors: HashMap<bool, TlsConnector> = HashMap::new();
        let mut by_name = HashMap::new();
        for route in &table.routes {
            let name = &route.upstream.origin;
            if by_name.contains_key(name) {
                continue;
            }
            let tls = match name.scheme {
                Scheme::Http => None,
                Scheme::Https => {
                    let connector = match connectors.get(&name.inspected) {
                        Some(connector) => connector.clone(),
                        None => connector(config, name.inspected)?,
                    };
                    connectors.insert(name.inspected, connector.clone());
                    let host = &name.authority.host;
                    let server = ServerName::try_from(host.clone()).map_err(|_| RootsError::Name(host.clone()))?;
                    Some((connector, server))
                }
            };
            let origin = Origin { name: name.clone(), proxy: table.proxy.clone(), tls, limits, kept: Mutex::default() };
            by_name.insert(name.clone(), Arc::new(origin));
        }
        Ok(Self { by_name })
    }

    /// The origin of this name.
    pub fn get(&self, name: &OriginName) -> Option<&Arc<Origin>> {
        self.by_name.get(name)
    }
}

fn connector(config: &Config, inspected: bool) -> Result<TlsConnector, RootsError> {
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
    let mut tls = versions.map_err(RootsError::Setup)?.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(tls)))
}

impl Origin {
    /// Does a request have to name the whole URL (a plain-http upstream behind the proxy)?
    pub fn wants_absolute_form(&self) -> bool {
        self.proxy.is_some() && self.name.scheme == Scheme::Http
    }

    /// Sends a request and waits for the reply's head.
    pub async fn send(self: &Arc<Self>, mut request: Request<Upload>) -> Result<(Response<Incoming>, Lease), Failure> {
        let progress = request.body().progress();
        if let Some(mut sender) = self.take_kept().await {
            let again = replayable(&request);
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, Lease { origin: self.clone(), sender })),
                Err(mut error) => match (error.take_message(), again) {
                    // It never left: the upstream had closed a connection that nobody was using.
                    (Some(unsent), _) => request = unsent,
                    // It may have left, but it changes nothing: the close crossed it on the way.
                    (None, Some(copy)) => request = copy,
                    (None, _) => return Err(self.broke_off(error.into_error(), &progress)),
                },
            }
        }
        let connecting = tokio::time::timeout(self.limits.connect, self.connect());
        let time = || Failure::ConnectTime(self.name.authority.clone(), self.limits.connect);
        let mut sender = connecting.await.map_err(|_| time())??;
        match sender.send_request(request).await {
            Ok(response) => Ok((response, Lease { origin: self.clone(), sender })),
            Err(error) => Err(self.broke_off(error, &progress)),
        }
    }

    fn broke_off(&self, error: hyper::Error, progress: &crate::body::Progress) -> Failure {
        if progress.failed.load(Ordering::Acquire) {
            Failure::Upload
        } else {
            Failure::Http(self.name.authority.clone(), error)
        }
    }

    /// The connection used last, if it is still good.
    async fn take_kept(&self) -> Option<SendRequest<Upload>> {
        loop {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if kept.since.elapsed() < self.limits.kept && !kept.sender.is_closed() && kept.sender.ready().await.is_ok()
            {
                return Some(kept.sender);
            }
        }
    }

    async fn connect(&self) -> Result<SendRequest<Upload>, Failure> {
        let target = &self.name.authority;
        let stream = match (&self.proxy, self.name.scheme) {
            (None, _) => tunnel::straight(target).await?,
            (Some(proxy), Scheme::Http) => tunnel::straight(proxy).await?,
            (Some(proxy), Scheme::Https) => tunnel::through(proxy, target).await?,
        };
        match &self.tls {
            None => self.speak(stream).await,
            Some((connector, name)) => {
                let shaken = connector.connect(name.clone(), stream).await;
                self.speak(shaken.map_err(|error| Failure::Tls(target.clone(), error))?).await
            }
        }
    }

    async fn speak<S>(&self, stream: S) -> Result<SendRequest<Upload>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let spoken = http1::Builder::new().max_buf_size(256 << 10).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = spoken.map_err(|error| Failure::Http(self.name.authority.clone(), error))?;
        // It ends with its connection, and that with the last sender. Its error is also told to whoever waits for a reply.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

impl Lease {
    /// Keeps the connection for the next request.
    pub fn give_back(self) {
        let mut kept = self.origin.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.sender.is_closed() && kept.len() < KEPT_MAX {
            kept.push(Kept { sender: self.sender, since: Instant::now() });
        }
    }
}

/// A copy, if the request may be sent twice: it changes nothing and has no body.
fn replayable(request: &Request<Upload>) -> Option<Request<Upload>> {
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !is_safe || !request.body().is_empty() {
        return None;
    }
    let mut copy = Request::new(Upload::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
