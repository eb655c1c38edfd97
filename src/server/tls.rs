//! TLS as the vault wants it: version 1.3, a client certificate always, HTTP/2, and nothing that outlives a handshake.

use std::sync::Arc;

use ring::digest;
use rustls::crypto::ring as provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;
use zeroize::Zeroizing;

/// The one application protocol: HTTP/2 (RFC 9113 section 3.2).
pub(crate) const ALPN: &[u8] = b"h2";

/// What the vault shows to callers, and by what it knows theirs.
pub struct TlsMaterial {
    /// The vault's certificate, and those between it and the callers' trust anchor.
    pub certificate_pem: Vec<u8>,
    /// The key of that certificate.
    pub key_pem: Zeroizing<Vec<u8>>,
    /// The authorities whose client certificates are accepted.
    pub client_ca_pem: Vec<u8>,
}

impl TlsMaterial {
    /// SHA-256 of each certificate (DER) of the callers' authorities, found as a connection's handshake finds them: a
    /// second reader of PEM might see others.
    pub fn client_authorities(&self) -> Result<Vec<[u8; 32]>, TlsError> {
        authorities(&self.client_ca_pem)
    }

    /// Whether a vault could serve with this, so that it is known before anything is opened.
    pub fn check(&self) -> Result<(), TlsError> {
        config(self).map(drop)
    }
}

/// Why there can be no TLS with this material.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file is not PEM, or does not hold what it should.
    #[error("the {what} could not be read: it should be PEM with at least one {wanted}")]
    Pem {
        /// Which file.
        what: &'static str,
        /// What it should hold.
        wanted: &'static str,
    },
    /// The material does not fit together.
    #[error("{what} can't be used for TLS 1.3: {why}")]
    Unusable {
        /// Which part.
        what: &'static str,
        /// What the TLS library says.
        why: String,
    },
}

/// The configuration of every connection.
pub(crate) fn config(material: &TlsMaterial) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(provider::default_provider());
    let roots = client_roots(&material.client_ca_pem)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|why| unusable("the client authorities", why))?;
    let chain = certificates("server certificate", &material.certificate_pem)?;
    let key = PrivateKeyDer::from_pem_slice(&material.key_pem)
        .map_err(|_| TlsError::Pem { what: "server key", wanted: "private key" })?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|why| unusable("the cipher suites", why))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|why| unusable("the server certificate and key", why))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would carry an identity that no handshake has proved, and early data can be replayed.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// SHA-256 of each certificate (DER) in a PEM file of authorities.
pub fn authorities(pem: &[u8]) -> Result<Vec<[u8; 32]>, TlsError> {
    let hash = |certificate: CertificateDer<'_>| {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &certificate).as_ref());
        hash
    };
    Ok(client_certificates(pem)?.into_iter().map(hash).collect())
}

fn client_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates("client authorities", pem)
}

fn client_roots(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in client_certificates(pem)? {
        roots.add(certificate).map_err(|why| unusable("a client authority", why))?;
    }
    Ok(roots)
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refused = TlsError::Pem { what, wanted: "certificate" };
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, pem::Error>>() {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(refused),
    }
}

fn unusable(what: &'static str, why: impl std::fmt::Display) -> TlsError {
    TlsError::Unusable { what, why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Authority;

    #[test]
    fn good_material_makes_a_configuration_without_resumption() {
        let authority = Authority::new();
        let config = config(&authority.server_material()).unwrap();
        assert_eq!(config.alpn_protocols, [ALPN]);
        assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
        assert!(!config.session_storage.can_cache() && !config.ticketer.enabled());
    }

    #[test]
    fn an_authority_that_is_written_in_an_odd_way_counts_if_a_handshake_would_accept_it() {
        let (known, hidden) = (Authority::new(), Authority::new());
        let odd = format!("#\r{}\n{}", hidden.pem().replace('\n', "\r"), known.pem());
        let roots = client_roots(odd.as_bytes()).unwrap();
        let counted = authorities(odd.as_bytes()).unwrap();
        assert_eq!(counted.len(), roots.len());
        assert_eq!(counted.len(), 2);
        assert_ne!(counted, authorities(known.pem().as_bytes()).unwrap());
    }

    #[test]
    fn material_that_does_not_fit_is_refused_with_its_name() {
        let authority = Authority::new();
        let good = || authority.server_material();
        let foreign_key = Authority::new().server_material().key_pem;
        for (material, named) in [
            (TlsMaterial { certificate_pem: vec![], ..good() }, "server certificate"),
            (TlsMaterial { key_pem: Zeroizing::new(b"no key".to_vec()), ..good() }, "server key"),
            (TlsMaterial { client_ca_pem: b"-----BEGIN".to_vec(), ..good() }, "client authorities"),
            (TlsMaterial { key_pem: foreign_key, ..good() }, "server certificate and key"),
        ] {
            let error = config(&material).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
