//! The bottle's CA: loading it as picky as the real one does, and minting a certificate for each host.

use crate::config::Config;
use base64::Engine;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What stands before the secret number in a SEC1 key of P-256 with the curve's name, and between it and the point.
const SEC1_HEAD: [u8; 7] = [0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20];
const SEC1_CURVE: [u8; 17] =
    [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0xa1, 0x44, 0x03, 0x42, 0x00];
const SEC1_LENGTH: usize = 121;

/// The same key in PKCS#8, as the library wants it: what stands before the number, and between it and the point.
const PKCS8_HEAD: [u8; 36] = [
    0x30, 0x81, 0x87, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
    0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x6d, 0x30, 0x6b, 0x02, 0x01, 0x01, 0x04, 0x20,
];
const PKCS8_POINT: [u8; 5] = [0xa1, 0x44, 0x03, 0x42, 0x00];

/// Why the CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadCa {
    #[error("read CA {what}: {source}")]
    Read { what: &'static str, source: std::io::Error },
    #[error("no PEM block in CA {0} file")]
    NoPem(&'static str),
    #[error("parse CA cert: {0}")]
    Cert(String),
    #[error("parse CA key: {0}")]
    Key(&'static str),
    #[error("certificate is not a CA")]
    NotCa,
    #[error("CA certificate missing KeyUsageCertSign")]
    NoCertSign,
    #[error("CA key does not match certificate")]
    Mismatch,
    #[error("mint certificate: {0}")]
    Mint(#[from] rcgen::Error),
    #[error("mint certificate: {0}")]
    Tls(#[from] rustls::Error),
}

/// The CA, and what it minted.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ttl: Duration,
    minted_max: usize,
    minted: Mutex<HashMap<String, (SystemTime, Arc<ServerConfig>)>>,
}

impl Authority {
    /// Loads the CA that the configuration names.
    pub fn load(config: &Config) -> Result<Self, BadCa> {
        let section = &config.tls_interception;
        let cert = read("cert", &section.ca_cert)?;
        let key = read("key", &section.ca_key)?;
        let (_, cert) = first_pem("cert", &cert)?;
        let (label, key) = first_pem("key", &key)?;
        let key = sec1(&label, &key)?;
        check(&cert, &key)?;
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(cert), key)?;
        Ok(Self {
            issuer,
            ttl: config.cert_ttl(),
            minted_max: section.cert_cache_size,
            minted: Mutex::new(HashMap::new()),
        })
    }

    /// How to speak TLS as `host`.
    pub fn server_config(&self, host: &str) -> Result<Arc<ServerConfig>, BadCa> {
        let now = SystemTime::now();
        let mut minted = self.minted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((until, config)) = minted.get(host)
            && now < *until
        {
            return Ok(config.clone());
        }
        if minted.len() >= self.minted_max {
            minted.clear();
        }
        let config = Arc::new(self.mint(host, now)?);
        // A client must not be handed one that is about to end.
        minted.insert(host.to_owned(), (now + self.ttl / 2, config.clone()));
        Ok(config)
    }

    fn mint(&self, host: &str, now: SystemTime) -> Result<ServerConfig, BadCa> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, host);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = start + epoch.saturating_sub(Duration::from_secs(3600));
        params.not_after = start + epoch + self.ttl;
        let leaf = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn read(what: &'static str, file: &Path) -> Result<Vec<u8>, BadCa> {
    std::fs::read(file).map_err(|source| BadCa::Read { what, source })
}

/// The label and content of the first block, whatever it is.
fn first_pem(what: &'static str, text: &[u8]) -> Result<(String, Vec<u8>), BadCa> {
    let text = String::from_utf8_lossy(text);
    let block = text.split_once("-----BEGIN ").and_then(|(_, rest)| {
        let (label, rest) = rest.split_once("-----")?;
        let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
        let body: String = body.split_whitespace().collect();
        Some((label.to_owned(), base64::engine::general_purpose::STANDARD.decode(body).ok()?))
    });
    block.ok_or(BadCa::NoPem(what))
}

/// Takes `EC PRIVATE KEY` with the curve's name in it and nothing else. (The real one also takes P-384.)
fn sec1(label: &str, der: &[u8]) -> Result<KeyPair, BadCa> {
    if label != "EC PRIVATE KEY" {
        return Err(BadCa::Key(
            "the first block is not an EC PRIVATE KEY (use ParsePKCS8PrivateKey instead for this key format)",
        ));
    }
    let (head, rest) = der.split_at_checked(SEC1_HEAD.len()).ok_or(BadCa::Key("too short"))?;
    let (number, rest) = rest.split_at_checked(32).ok_or(BadCa::Key("too short"))?;
    let Some(point) = rest.strip_prefix(&SEC1_CURVE[..]) else {
        return Err(BadCa::Key("x509: unknown elliptic curve"));
    };
    if head != SEC1_HEAD || der.len() != SEC1_LENGTH {
        return Err(BadCa::Key("not a P-256 key in SEC1"));
    }
    let pkcs8 = [&PKCS8_HEAD[..], number, &PKCS8_POINT[..], point].concat();
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8));
    KeyPair::from_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256)
        .map_err(|_| BadCa::Key("the number and the point do not belong together"))
}

fn check(cert: &[u8], key: &KeyPair) -> Result<(), BadCa> {
    let (_, cert) = X509Certificate::from_der(cert).map_err(|e| BadCa::Cert(e.to_string()))?;
    let ca = cert.basic_constraints().map_err(|e| BadCa::Cert(e.to_string()))?;
    if !ca.is_some_and(|extension| extension.value.ca) {
        return Err(BadCa::NotCa);
    }
    let usage = cert.key_usage().map_err(|e| BadCa::Cert(e.to_string()))?;
    if !usage.is_some_and(|extension| extension.value.key_cert_sign()) {
        return Err(BadCa::NoCertSign);
    }
    if cert.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(BadCa::Mismatch);
    }
    Ok(())
}
