//! The bottle's certificate authorities: one for each pipelock, made for one bottle and gone with it. The keys exist
//! in memory and in a tmpfs of pipelock's container alone.

use cred_proxy::Secret;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// How long a certificate is valid: bottles are short-lived, and clients check.
const VALID_DAYS: i64 = 30;

/// A certificate authority with its key.
pub struct Authority {
    certificate: String,
    key: Secret,
}

/// Why there is no certificate authority.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The library refused.
    #[error("the bottle's certificate authority cannot be made")]
    Library(#[from] rcgen::Error),
    /// The library's key is not of the form that is taken apart here.
    #[error("the bottle's key has an unknown form")]
    KeyForm,
}

impl Authority {
    /// Makes one. `name` goes into the subject, so that people can tell certificates apart.
    pub fn mint(name: &str) -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("Bottle {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = std::time::SystemTime::now();
        let day = std::time::Duration::from_secs(24 * 60 * 60);
        params.not_before = (now - day).into();
        params.not_after = (now + day * u32::try_from(VALID_DAYS).unwrap_or(30)).into();
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, key: sec1_pem(&key)? })
    }

    /// The certificate in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// The key in PEM, in the one form that pipelock loads: SEC1 (RFC 5915) with the curve named.
    pub fn key_pem(&self) -> &Secret {
        &self.key
    }
}

/// Writes the key as RFC 5915 `ECPrivateKey` with parameters. Go's loader takes neither PKCS#8 nor a key whose curve is
/// not named, and rcgen writes PKCS#8 alone.
fn sec1_pem(key: &KeyPair) -> Result<Secret, CaError> {
    // ECPrivateKey's beginning inside PKCS#8: version 1, then an octet string of 32 bytes.
    const SCALAR: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];
    let pkcs8 = zeroize::Zeroizing::new(key.serialize_der());
    let at = pkcs8.windows(SCALAR.len()).position(|w| w == SCALAR).ok_or(CaError::KeyForm)? + SCALAR.len();
    let scalar = pkcs8.get(at..at + 32).ok_or(CaError::KeyForm)?;
    let point = key.public_key_raw();
    if point.len() != 65 || point.first() != Some(&4) {
        return Err(CaError::KeyForm);
    }
    let mut der = zeroize::Zeroizing::new(Vec::with_capacity(121));
    der.extend_from_slice(&[0x30, 0x77]);
    der.extend_from_slice(&SCALAR);
    der.extend_from_slice(scalar);
    // [0] prime256v1, [1] the public point.
    der.extend_from_slice(&[
        0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0xa1, 0x44, 0x03, 0x42, 0x00,
    ]);
    der.extend_from_slice(point);
    use base64::Engine as _;
    let body = zeroize::Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(&*der));
    let mut pem = String::from("-----BEGIN EC PRIVATE KEY-----\n");
    for line in body.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).unwrap_or_default());
        pem.push('\n');
    }
    pem.push_str("-----END EC PRIVATE KEY-----\n");
    Ok(Secret::new(pem))
}

/// Public roots in PEM: Mozilla's, as they were when the launcher was built.
pub fn public_roots_pem() -> String {
    use base64::Engine as _;
    let mut pem = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let body = base64::engine::general_purpose::STANDARD.encode(certificate);
        for line in body.as_bytes().chunks(64) {
            pem.push_str(std::str::from_utf8(line).unwrap_or_default());
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

/// A PKCS#12 truststore, as Java reads it, of all certificates in `pem`. Blocks that are no certificate are left out, as
/// other readers of such bundles do.
pub fn truststore(pem: &str) -> Result<Vec<u8>, String> {
    use p12_keystore::{Certificate, KeyStore, KeyStoreEntry};
    let mut store = KeyStore::new();
    for (n, der) in CertificateDer::pem_slice_iter(pem.as_bytes()).flatten().enumerate() {
        if let Ok(certificate) = Certificate::from_der(&der) {
            store.add_entry(&format!("bottle-{n}"), KeyStoreEntry::Certificate(certificate));
        }
    }
    // Everything in it is public, so the password's key derivation protects nothing and may be quick.
    let writer = store.writer(crate::plan::provision::TRUSTSTORE_PASSWORD).encryption_iterations(1_000);
    writer.mac_iterations(1_000).write().map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_has_the_form_that_openssl_and_go_read() {
        let ca = Authority::mint("t").unwrap();
        let pem = ca.key_pem().expose();
        assert!(pem.starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
        let der = rustls_pki_types::PrivateSec1KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        let der = der.secret_sec1_der();
        assert_eq!(der.len(), 121);
        // The public point at its end is the certificate's: key and certificate belong together.
        let certificate = CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes()).unwrap();
        let point = &der[der.len() - 65..];
        assert!(certificate.windows(65).any(|w| w == point));
    }

    #[test]
    fn two_authorities_share_nothing() {
        let (a, b) = (Authority::mint("a").unwrap(), Authority::mint("b").unwrap());
        assert_ne!(a.key_pem().expose(), b.key_pem().expose());
        assert_ne!(a.certificate_pem(), b.certificate_pem());
    }

    #[test]
    fn public_roots_are_many_and_readable() {
        let pem = public_roots_pem();
        assert!(CertificateDer::pem_slice_iter(pem.as_bytes()).all(|c| c.is_ok()));
        assert!(CertificateDer::pem_slice_iter(pem.as_bytes()).count() > 100);
    }
}
