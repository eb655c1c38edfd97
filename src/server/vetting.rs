//! Whether those who vouched for a connection's certificate still do, after the vault's certificates were replaced.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error};

use crate::certificates::{Certificates, InForce};
use crate::identity::Nobody;

/// What a peer showed, and what was found of it.
pub(crate) struct Vetting {
    certificates: Arc<Certificates>,
    chain: Vec<CertificateDer<'static>>,
    found: ArcSwap<Found>,
}

/// What one generation of certificates says of the chain.
struct Found {
    generation: u64,
    outcome: Result<(), Nobody>,
}

impl Vetting {
    /// Of a chain that a handshake has just accepted. It is asked about once more: the certificates may have been
    /// replaced while the handshake went on.
    pub fn new(chain: &[CertificateDer<'_>], certificates: Arc<Certificates>) -> Self {
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        // The first generation is 1.
        let found = ArcSwap::from_pointee(Found { generation: 0, outcome: Err(Nobody::AuthorityNotAccepted) });
        Self { certificates, chain, found }
    }

    /// Whether the certificates in force still vouch for the chain: looked at once for each that come into force.
    pub fn vetted(&self) -> Result<(), Nobody> {
        let in_force = self.certificates.in_force();
        let found = self.found.load();
        if found.generation == in_force.generation {
            return found.outcome;
        }
        let outcome = vet(&self.chain, &in_force);
        self.found.store(Arc::new(Found { generation: in_force.generation, outcome }));
        outcome
    }
}

fn vet(chain: &[CertificateDer<'_>], in_force: &InForce) -> Result<(), Nobody> {
    let Some((own, above)) = chain.split_first() else { return Err(Nobody::AuthorityNotAccepted) };
    if in_force.usable.authorities.is_empty() {
        return Err(Nobody::AuthorityNotAccepted);
    }
    match in_force.usable.verifier.verify_client_cert(own, above, UnixTime::now()) {
        Ok(_) => Ok(()),
        Err(Error::InvalidCertificate(CertificateError::Revoked)) => Err(Nobody::CertificateRevoked),
        Err(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            Err(Nobody::CertificateExpired)
        }
        Err(_) => Err(Nobody::AuthorityNotAccepted),
    }
}

#[cfg(test)]
impl Vetting {
    /// Of a peer whom the certificates in force have accepted.
    pub fn accepted(certificates: Arc<Certificates>) -> Self {
        let generation = certificates.in_force().generation;
        Self { certificates, chain: vec![], found: ArcSwap::from_pointee(Found { generation, outcome: Ok(()) }) }
    }
}
