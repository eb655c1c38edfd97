//! Certificates for a vault to try things with. A vault in production gets them from the house's own authority.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use zeroize::Zeroizing;

use super::output::CliError;

/// How long they last: ten years for the authority, one for the others.
const CA_DAYS: i64 = 3_650;
const LEAF_DAYS: i64 = 365;

/// An authority of one's own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    sha256: [u8; 32],
}

/// A certificate with its key.
pub struct Pair {
    /// The certificate, PEM.
    pub certificate: String,
    /// The private key, PEM.
    pub key: Zeroizing<String>,
    /// SHA-256 of the public key (its SPKI), by which an officer is enrolled.
    pub spki_sha256: [u8; 32],
}

impl Authority {
    /// A new authority.
    pub fn new(name: &str) -> Result<Self, CliError> {
        let mut params = params(name, CA_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(unfit)?;
        let certificate = params.self_signed(&key).map_err(unfit)?;
        let sha256 = sha256(certificate.der());
        Ok(Self { issuer: Issuer::new(params, key), pem: certificate.pem(), sha256 })
    }

    /// The authority's own certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of its certificate (DER), by which it is enrolled.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// A certificate for the vault itself.
    pub fn server(&self, names: &[&str]) -> Result<Pair, CliError> {
        let mut params = params("strongroom", LEAF_DAYS)?;
        for name in names {
            params.subject_alt_names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into().map_err(unfit)?),
            });
        }
        self.issue(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a caller, named by a SPIFFE id.
    pub fn client(&self, name: &str, spiffe_id: &str) -> Result<Pair, CliError> {
        let mut params = params(name, LEAF_DAYS)?;
        params.subject_alt_names.push(SanType::URI(spiffe_id.try_into().map_err(unfit)?));
        self.issue(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, mut params: CertificateParams, purpose: ExtendedKeyUsagePurpose) -> Result<Pair, CliError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(unfit)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(unfit)?.pem();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        Ok(Pair { certificate, key: Zeroizing::new(key.serialize_pem()), spki_sha256: sha256(&spki) })
    }
}

impl Pair {
    /// Writes `NAME.pem` and `NAME.key`.
    pub fn write(&self, dir: &Path, name: &str) -> Result<(), CliError> {
        write_private(&dir.join(format!("{name}.pem")), self.certificate.as_bytes())?;
        write_private(&dir.join(format!("{name}.key")), self.key.as_bytes())
    }
}

/// SHA-256 (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    hash
}

/// Writes a file that only its owner may read, and sees that it is on disk.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| CliError::file(path, error))
}

fn params(name: &str, days: i64) -> Result<CertificateParams, CliError> {
    let mut params = CertificateParams::new(vec![]).map_err(unfit)?;
    params.distinguished_name.push(DnType::CommonName, name);
    let now = time::OffsetDateTime::now_utc();
    // An hour back, for machines whose clocks differ a little.
    params.not_before = now - time::Duration::hours(1);
    params.not_after = now + time::Duration::days(days);
    Ok(params)
}

fn unfit(error: impl std::fmt::Display) -> CliError {
    CliError::unfit(format!("a certificate can't be made: {error}"))
}
