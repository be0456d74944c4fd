//! What all connections share: the policy of the moment, the kill switch, the roots of upstreams.

use crate::ca::Authority;
use crate::config::{Config, Loaded};
use crate::dlp::Dlp;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;
use tokio::sync::{Semaphore, watch};

/// The most tunnels that may be open.
pub const TUNNELS_MAX: usize = 1024;

/// Where the image of the real one keeps its roots.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A policy at work. A tunnel that is intercepted keeps the one it was opened with.
pub struct Live {
    pub config: Config,
    pub hash: String,
    pub dlp: Dlp,
    pub ca: Option<Arc<Authority>>,
}

/// What all connections share.
pub struct Shared {
    live: RwLock<Arc<Live>>,
    kill: watch::Sender<bool>,
    requests: AtomicU64,
    pub started: Instant,
    pub tunnels: Arc<Semaphore>,
    pub upstream_tls: Arc<ClientConfig>,
}

/// One request or tunnel, as the log speaks of it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub peer: IpAddr,
    pub id: String,
    pub method: String,
    /// `host:port` of a tunnel, or a URL.
    pub place: Place,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub enum Place {
    Target(String),
    Url(String),
}

impl Live {
    /// Loads what the file names.
    pub fn new(loaded: Loaded) -> Result<Self, String> {
        let Loaded { config, hash } = loaded;
        let ca = match config.tls_interception.enabled {
            true => Some(Arc::new(Authority::load(&config).map_err(|e| format!("TLS interception: {e}"))?)),
            false => None,
        };
        Ok(Self { dlp: Dlp::new(&config.dlp)?, config, hash, ca })
    }
}

impl Shared {
    /// Starts with a policy, and with the roots that the environment names.
    pub fn new(live: Live) -> Result<Self, String> {
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots())
            .with_no_client_auth();
        Ok(Self {
            live: RwLock::new(Arc::new(live)),
            kill: watch::Sender::new(false),
            requests: AtomicU64::new(0),
            started: Instant::now(),
            tunnels: Arc::new(Semaphore::new(TUNNELS_MAX)),
            upstream_tls: Arc::new(tls),
        })
    }

    /// The policy of the moment.
    pub fn live(&self) -> Arc<Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another in its place.
    pub fn replace(&self, live: Live) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
    }

    /// Is everything denied?
    pub fn is_killed(&self) -> bool {
        *self.kill.borrow()
    }

    /// Turns the kill switch over.
    pub fn toggle_kill(&self) {
        self.kill.send_modify(|on| *on = !*on);
    }

    /// Ends when everything is denied.
    pub async fn killed(&self) {
        let mut kill = self.kill.subscribe();
        if kill.wait_for(|on| *on).await.is_err() {
            // The sender lives as long as we do, so this is not reached; to wait on is the safe side.
            std::future::pending::<()>().await;
        }
    }

    /// A number for the log.
    pub fn request_id(&self) -> String {
        format!("req-{}", self.requests.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl Asked {
    /// The fields of a log line; a place that a secret may stand in is cut to its host.
    pub fn fields(&self, redact: bool) -> serde_json::Value {
        let (target, url) = match &self.place {
            Place::Target(_) if redact => ("[redacted-url]".to_owned(), String::new()),
            Place::Target(target) => (target.clone(), String::new()),
            Place::Url(url) if redact => (String::new(), cut_to_host(url)),
            Place::Url(url) => (String::new(), url.clone()),
        };
        serde_json::json!({
            "method": self.method, "target": target, "url": url,
            "client_ip": self.peer.to_canonical().to_string(), "request_id": self.id, "agent": "anonymous",
        })
    }
}

fn cut_to_host(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    format!("{scheme}://{}/[redacted]", rest.split(['/', '?', '#']).next().unwrap_or_default())
}

/// The roots; none where there is no readable file, so that nothing upstream is trusted.
fn roots() -> RootCertStore {
    let file = std::env::var_os("SSL_CERT_FILE").unwrap_or_else(|| ROOTS.into());
    let mut store = RootCertStore::empty();
    let Ok(certs) = CertificateDer::pem_file_iter(Path::new(&file)) else {
        crate::log::tell(&format!("WARNING: no roots in {}: no upstream is trusted", file.display()));
        return store;
    };
    store.add_parsable_certificates(certs.filter_map(Result::ok));
    store
}
