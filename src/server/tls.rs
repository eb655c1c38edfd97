//! TLS as the vault wants it: version 1.3, a client certificate always, HTTP/2, and nothing that outlives a handshake; and
//! for what anybody may read the same without client certificates, and with HTTP/1.1.

use std::sync::Arc;

use ring::digest;
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WantsServerCert, WebPkiClientVerifier};
use rustls::{ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};
use thiserror::Error;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};
use zeroize::Zeroizing;

/// The one application protocol: HTTP/2 (RFC 9113 section 3.2).
pub(crate) const ALPN: &[u8] = b"h2";
/// The same for what anybody may read, and as well for callers who read the ledger: HTTP/1.1, which every client has.
pub(crate) const PUBLIC_ALPN: &[u8] = b"http/1.1";

/// What the vault shows to callers, and by what it knows theirs.
pub struct TlsMaterial {
    /// The vault's certificate, and those between it and the callers' trust anchor.
    pub certificate_pem: Vec<u8>,
    /// The key of that certificate.
    pub key_pem: Zeroizing<Vec<u8>>,
    /// The authorities whose client certificates are accepted.
    pub client_ca_pem: Vec<u8>,
    /// What those authorities have revoked: files of PEM or of one DER list each. None: nothing is looked up.
    pub crls: Vec<Vec<u8>>,
    /// Where there are lists, whether who has an issuer without one is refused.
    pub require_crl: bool,
}

impl TlsMaterial {
    /// SHA-256 of each certificate (DER) of the callers' authorities, found as a connection's handshake finds them: a
    /// second reader of PEM might see others.
    pub fn client_authorities(&self) -> Result<Vec<[u8; 32]>, TlsError> {
        authorities(&self.client_ca_pem)
    }

    /// Whether a vault could serve with this, so that it is known before anything is opened.
    pub fn check(&self) -> Result<(), TlsError> {
        usable(self).map(drop)
    }

    /// SHA-256 over all of it: whether anything has changed.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut hash = digest::Context::new(&digest::SHA256);
        let parts = [&self.certificate_pem, &*self.key_pem, &self.client_ca_pem];
        hash.update(&[u8::from(self.require_crl)]);
        for part in parts.into_iter().chain(&self.crls) {
            hash.update(&part.len().to_be_bytes());
            hash.update(part);
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(hash.finish().as_ref());
        fingerprint
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

/// Material that connections can be served with, and what it says of itself.
pub(crate) struct Usable {
    /// The configuration of every connection.
    pub server: Arc<ServerConfig>,
    /// The configuration of connections on which nobody says who they are.
    pub public_server: Arc<ServerConfig>,
    /// What the handshake asks about a client's certificate.
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// SHA-256 of each authority of callers, in order.
    pub authorities: Vec<[u8; 32]>,
    /// The last second at which the vault's own certificate is valid, since 1970.
    pub not_after: i64,
    /// When the first of the lists of revoked certificates is due to be replaced, in seconds since 1970.
    pub crl_next_update: Option<i64>,
    trust: Trust,
}

/// Whose certificates of callers are accepted.
struct Trust {
    authorities: Vec<CertificateDer<'static>>,
    crls: Vec<CertificateRevocationListDer<'static>>,
    require_crl: bool,
}

impl Trust {
    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let roots = client_roots(&self.authorities)?;
        let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .with_crls(self.crls.iter().cloned());
        if !self.require_crl {
            verifier = verifier.allow_unknown_revocation_status();
        }
        // A list that is overdue still counts: refusing everybody would make the publisher's outage the vault's own.
        verifier.build().map_err(|why| unusable("the client authorities with their revocation lists", why))
    }

    /// SHA-256 of each authority, in order.
    fn hashes(&self) -> Vec<[u8; 32]> {
        let mut hashes: Vec<[u8; 32]> = self.authorities.iter().map(|authority| sha256(authority)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }
}

impl Usable {
    /// The same with fewer authorities. With none of them: nobody is vouched for, which whoever vets a caller sees.
    pub fn with_authorities(&self, keep: impl Fn(&[u8; 32]) -> bool) -> Result<Self, TlsError> {
        let Trust { authorities, crls, require_crl } = &self.trust;
        let kept = authorities.iter().filter(|authority| keep(&sha256(authority))).cloned().collect();
        let trust = Trust { authorities: kept, crls: crls.clone(), require_crl: *require_crl };
        let (not_after, crl_next_update) = (self.not_after, self.crl_next_update);
        let (server, verifier) = match trust.authorities.is_empty() {
            true => (Arc::clone(&self.server), Arc::clone(&self.verifier)),
            false => {
                let provider = Arc::new(provider::default_provider());
                let verifier = trust.verifier(&provider)?;
                let shown = Arc::clone(&self.server.cert_resolver);
                let config = builder(provider, &verifier)?.with_cert_resolver(shown);
                (Arc::new(as_we_want_it(config, ALPN)), verifier)
            }
        };
        let (authorities, public_server) = (trust.hashes(), Arc::clone(&self.public_server));
        Ok(Self { server, public_server, verifier, authorities, not_after, crl_next_update, trust })
    }
}

/// What connections are served with.
pub(crate) fn usable(material: &TlsMaterial) -> Result<Usable, TlsError> {
    let provider = Arc::new(provider::default_provider());
    let crls = revocations(&material.crls)?;
    let crl_next_update = next_update(&crls)?;
    let authorities = client_certificates(&material.client_ca_pem)?;
    let trust = Trust { authorities, crls, require_crl: material.require_crl };
    let verifier = trust.verifier(&provider)?;
    let chain = certificates("server certificate", &material.certificate_pem)?;
    let not_after = chain.first().and_then(|own| Some(X509Certificate::from_der(own).ok()?.1.validity().not_after));
    let not_after = not_after.ok_or_else(|| unusable("the server certificate", "it can't be read"))?.timestamp();
    let key = PrivateKeyDer::from_pem_slice(&material.key_pem)
        .map_err(|_| TlsError::Pem { what: "server key", wanted: "private key" })?;
    let config = builder(Arc::clone(&provider), &verifier)?
        .with_single_cert(chain, key)
        .map_err(|why| unusable("the server certificate and key", why))?;
    let shown = Arc::clone(&config.cert_resolver);
    let public = versions(provider)?.with_no_client_auth().with_cert_resolver(shown);
    let public_server = Arc::new(as_we_want_it(public, PUBLIC_ALPN));
    let (server, authorities) = (Arc::new(as_we_want_it(config, ALPN)), trust.hashes());
    Ok(Usable { server, public_server, verifier, authorities, not_after, crl_next_update, trust })
}

fn builder(
    provider: Arc<CryptoProvider>,
    verifier: &Arc<dyn ClientCertVerifier>,
) -> Result<ConfigBuilder<ServerConfig, WantsServerCert>, TlsError> {
    Ok(versions(provider)?.with_client_cert_verifier(Arc::clone(verifier)))
}

fn versions(provider: Arc<CryptoProvider>) -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, TlsError> {
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|why| unusable("the cipher suites", why))
}

/// One application protocol alone, and nothing that outlives a handshake.
fn as_we_want_it(mut config: ServerConfig, alpn: &[u8]) -> ServerConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    // A resumed session would carry an identity that no handshake has proved, and early data can be replayed.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}

/// The lists in files: all those of a file in PEM, or the one of a file in DER.
fn revocations(files: &[Vec<u8>]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let refused = || TlsError::Pem { what: "revocation list", wanted: "X509 CRL (or be one in DER)" };
    let mut found = Vec::new();
    for file in files {
        // DER begins with the tag of a SEQUENCE.
        if file.first() == Some(&0x30) {
            found.push(CertificateRevocationListDer::from(file.clone()));
            continue;
        }
        let before = found.len();
        for list in CertificateRevocationListDer::pem_slice_iter(file) {
            found.push(list.map_err(|_| refused())?);
        }
        if found.len() == before {
            return Err(refused());
        }
    }
    Ok(found)
}

fn next_update(crls: &[CertificateRevocationListDer<'_>]) -> Result<Option<i64>, TlsError> {
    let mut first = None;
    for list in crls {
        let (rest, list) = CertificateRevocationList::from_der(list)
            .map_err(|_| unusable("a revocation list", "it can't be read as an X.509 CRL"))?;
        if !rest.is_empty() {
            return Err(unusable("a revocation list", "bytes follow its end"));
        }
        let next = list.next_update().map(|time| time.timestamp());
        first = [first, next].into_iter().flatten().min();
    }
    Ok(first)
}

/// SHA-256 of each certificate (DER) in a PEM file of authorities.
pub fn authorities(pem: &[u8]) -> Result<Vec<[u8; 32]>, TlsError> {
    Ok(client_certificates(pem)?.iter().map(|certificate| sha256(certificate)).collect())
}

/// The hash by which certificates, and keys in them, are known.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

fn client_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates("client authorities", pem)
}

fn client_roots(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate.clone()).map_err(|why| unusable("a client authority", why))?;
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
        let usable = usable(&authority.server_material()).unwrap();
        for (config, alpn) in [(usable.server, ALPN), (usable.public_server, PUBLIC_ALPN)] {
            assert_eq!(config.alpn_protocols, [alpn]);
            assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
            assert!(!config.session_storage.can_cache() && !config.ticketer.enabled());
        }
    }

    #[test]
    fn an_authority_that_is_written_in_an_odd_way_counts_if_a_handshake_would_accept_it() {
        let (known, hidden) = (Authority::new(), Authority::new());
        let odd = format!("#\r{}\n{}", hidden.pem().replace('\n', "\r"), known.pem());
        let roots = client_roots(&client_certificates(odd.as_bytes()).unwrap()).unwrap();
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
            (TlsMaterial { crls: vec![vec![]], ..good() }, "revocation list"),
            (TlsMaterial { crls: vec![b"\x30\x03abc".to_vec()], ..good() }, "revocation list"),
        ] {
            let error = usable(&material).err().unwrap().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
