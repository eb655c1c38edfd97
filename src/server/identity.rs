//! Who is calling: what a client certificate says, and which principal that is.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use rustls::pki_types::CertificateDer;
use strongroom_access::{Directory, IdentityError, Principal, Role, SpiffeId, identify};
use strongroom_vault::Caller;
use tonic::{Code, Status};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::certificates::Certificates;
use crate::errors;
use crate::patience::Answers;
use crate::tls::sha256;
use crate::vetting::Vetting;

/// Where the vault's directory of tenants and officers is found: nowhere while it is sealed. It may change while a
/// connection lasts.
pub(crate) type DirectorySource = Arc<dyn Fn() -> Option<Arc<Directory>> + Send + Sync>;

/// Why a verified certificate gives nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nobody {
    /// It does not name a principal in the way that the vault reads.
    CertificateNotAccepted,
    /// It names an officer, but its key is not the one that was enrolled.
    OfficerNotEnrolled,
    /// It names a tenant that the vault does not have.
    TenantUnknown,
    /// Its time is over.
    CertificateExpired,
    /// Whoever issued it has revoked it since the connection began.
    CertificateRevoked,
    /// The authorities that are in force by now do not vouch for it.
    AuthorityNotAccepted,
}

impl Nobody {
    /// The stable word on the wire and in the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::CertificateNotAccepted | Self::AuthorityNotAccepted => "CERTIFICATE_NOT_ACCEPTED",
            Self::OfficerNotEnrolled => "OFFICER_NOT_ENROLLED",
            Self::TenantUnknown => "TENANT_UNKNOWN",
            Self::CertificateExpired => "CERTIFICATE_EXPIRED",
            Self::CertificateRevoked => "CERTIFICATE_REVOKED",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::CertificateNotAccepted => {
                "the client certificate names no principal: it needs exactly one URI name, \
                 spiffe://TRUST-DOMAIN/tenant/TENANT/ROLE/NAME, in the vault's trust domain"
            }
            Self::OfficerNotEnrolled => "the client certificate names an officer, but its key is not the one enrolled",
            Self::TenantUnknown => "the client certificate names a tenant that this vault does not have",
            Self::CertificateExpired => "the client certificate has expired since the connection began: connect anew",
            Self::CertificateRevoked => "the client certificate is revoked: connect anew with another one",
            Self::AuthorityNotAccepted => {
                "the authorities and revocation lists that the vault accepts by now do not vouch for the client \
                 certificate: connect anew with one that they vouch for"
            }
        }
    }
}

impl From<Nobody> for Status {
    fn from(nobody: Nobody) -> Self {
        errors::Refusal::new(Code::Unauthenticated, nobody.reason(), nobody.message()).into()
    }
}

impl From<&IdentityError> for Nobody {
    fn from(error: &IdentityError) -> Self {
        match error {
            IdentityError::TenantUnknown(_) => Self::TenantUnknown,
            IdentityError::OfficerNotEnrolled(_) | IdentityError::OfficerKey(_) => Self::OfficerNotEnrolled,
            _ => Self::CertificateNotAccepted,
        }
    }
}

/// The officer of a tenant whom a certificate (DER) names, and the SHA-256 of its public key. `None`: it names somebody else,
/// or more than that, can't be read, or its key can't approve anything.
pub(crate) fn officer(certificate: &[u8], trust_domain: &str, tenant: &str) -> Option<(String, [u8; 32])> {
    let claims = Claims::read(certificate)?;
    let (_, read) = X509Certificate::from_der(certificate).ok()?;
    if !strongroom_vault::is_officer_key(read.public_key().raw) {
        return None;
    }
    let [uri] = &claims.uris[..] else { return None };
    let id = SpiffeId::parse(uri).ok()?;
    let fits = id.trust_domain == trust_domain && id.tenant.as_deref() == Some(tenant) && id.role == Role::Officer;
    fits.then_some((id.name, claims.key))
}

/// The same of a certificate in DER or PEM.
fn officer_of(certificate: &[u8], trust_domain: &str, tenant: &str) -> Option<(String, [u8; 32])> {
    match x509_parser::pem::parse_x509_pem(certificate) {
        Ok((_, pem)) => officer(&pem.contents, trust_domain, tenant),
        Err(_) => officer(certificate, trust_domain, tenant),
    }
}

/// The SHA-256 of the public key in a certificate (PEM or DER) that names this officer of a tenant and nobody else. `None`: it
/// does not, or the key can't approve anything: ECDSA on P-256 and P-384, and Ed25519, can.
pub fn officer_key(certificate: &[u8], trust_domain: &str, tenant: &str, name: &str) -> Option<[u8; 32]> {
    officer_of(certificate, trust_domain, tenant).filter(|(named, _)| named == name).map(|(_, key)| key)
}

/// What one certificate says of its holder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    /// The URI subject alternative names.
    uris: Vec<String>,
    /// The common names of its subject.
    common_names: Vec<String>,
    /// SHA-256 of the SubjectPublicKeyInfo.
    key: [u8; 32],
    /// The last second at which it is valid, since 1970.
    not_after: i64,
}

impl Claims {
    /// Reads a certificate that TLS has verified. `None`: it can't be read, or one of its names can't. That may be the second of
    /// which there must be one, or the one that goes before another: what can't be read is not nothing.
    pub fn read(certificate: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(certificate).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let names = certificate.subject_alternative_name().ok()?;
        let names = names.as_ref().map_or(&[][..], |extension| &extension.value.general_names);
        if names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
            return None;
        }
        let uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
        let key = sha256(certificate.public_key().raw);
        let common_names = certificate.subject().iter_common_name();
        let common_names = common_names.map(|name| Some(name.as_str().ok()?.to_owned())).collect::<Option<_>>()?;
        Some(Self { uris: uris.collect(), common_names, key, not_after: certificate.validity().not_after.timestamp() })
    }
}

/// The other end of a connection. Every request of the connection carries it.
#[derive(Clone)]
pub(crate) struct Peer(Arc<Inner>);

struct Inner {
    claims: Option<Claims>,
    /// The address and port that it comes from, as the ledger writes it.
    address: Arc<str>,
    known: ArcSwapOption<Known>,
    vetting: Vetting,
    /// The answers that are on their way to it.
    answers: Arc<Answers>,
}

/// Who the peer is by one state of the directory.
struct Known {
    directory: Arc<Directory>,
    principal: Result<Arc<Principal>, Nobody>,
}

impl Peer {
    /// The peer that showed this chain, its own certificate first, in a handshake under the certificates in force.
    /// `None`: it showed nothing.
    pub fn new(chain: &[CertificateDer<'_>], address: String, certificates: Arc<Certificates>) -> Option<Self> {
        let mut claims = Claims::read(chain.first()?);
        // A name that the certificate gives itself goes before any that the vault gives it.
        if let Some(Claims { uris, common_names, .. }) = &mut claims
            && let ([], [name]) = (&uris[..], &common_names[..])
        {
            uris.extend(certificates.names().uri(name).map(str::to_owned));
        }
        let address: Arc<str> = address.into();
        let answers = Answers::new(Arc::clone(&address));
        let vetting = Vetting::new(chain, certificates);
        Some(Self(Arc::new(Inner { claims, address, known: ArcSwapOption::empty(), vetting, answers })))
    }

    /// Who calls, at `now` in seconds since 1970. A connection does not outlive its certificate, nor a change of the
    /// directory: the principal is found anew when there is a new one.
    pub fn caller(&self, directory: &Arc<Directory>, now: i64) -> Result<Caller, Nobody> {
        let claims = self.vetted(now)?;
        let principal = match &*self.0.known.load() {
            Some(known) if Arc::ptr_eq(&known.directory, directory) => known.principal.clone(),
            _ => self.find(claims, directory),
        };
        // Always with its key: an officer's request is held against the one that is enrolled when it is decided.
        Ok(Caller::certified(principal?, Arc::clone(&self.0.address), claims.key))
    }

    /// Whom the certificate names, at `now` in seconds since 1970, while the vault is sealed and can look nobody up. Good
    /// for nothing but to tell callers apart: it belongs to no tenant but the vault itself.
    pub fn named(&self, now: i64) -> Result<Principal, Nobody> {
        let claims = self.vetted(now)?;
        let [uri] = &claims.uris[..] else { return Err(Nobody::CertificateNotAccepted) };
        let id = SpiffeId::parse(uri).map_err(|error| Nobody::from(&error))?;
        // A tenant has no operators, and the vault itself has nobody else.
        if id.tenant.is_some() == (id.role == Role::Operator) {
            return Err(Nobody::CertificateNotAccepted);
        }
        Ok(Principal::unlooked(id.role, uri))
    }

    /// What the certificate says, if at `now`, in seconds since 1970, it holds still and those in force vouch for it.
    fn vetted(&self, now: i64) -> Result<&Claims, Nobody> {
        let claims = self.0.claims.as_ref().ok_or(Nobody::CertificateNotAccepted)?;
        if now > claims.not_after {
            return Err(Nobody::CertificateExpired);
        }
        self.0.vetting.vetted()?;
        Ok(claims)
    }

    /// What the certificate calls its holder, whoever that is to the vault: its names, or nothing where it can't be read.
    pub fn holder(&self) -> Arc<str> {
        self.0.claims.as_ref().map(|claims| claims.uris.join(" ")).unwrap_or_default().into()
    }

    /// The answers that are on their way to the peer.
    pub fn answers(&self) -> &Arc<Answers> {
        &self.0.answers
    }

    fn find(&self, claims: &Claims, directory: &Arc<Directory>) -> Result<Arc<Principal>, Nobody> {
        let uris: Vec<&str> = claims.uris.iter().map(String::as_str).collect();
        let principal = match identify(&uris, &claims.key, directory) {
            Ok(principal) => {
                tracing::info!(client = &*self.0.address, principal = ?principal.name, tenant = principal.tenant.0, "identified");
                Ok(Arc::new(principal))
            }
            Err(error) => {
                let nobody = Nobody::from(&error);
                // The names come from the certificate, so they are escaped.
                tracing::warn!(client = &*self.0.address, reason = nobody.reason(), why = ?error.to_string(), "not identified");
                Err(nobody)
            }
        };
        let known = Known { directory: Arc::clone(directory), principal: principal.clone() };
        self.0.known.store(Some(Arc::new(known)));
        principal
    }
}

#[cfg(test)]
impl Peer {
    /// The peer that showed this certificate to a vault whose certificates never change.
    pub fn alone(certificate: &[u8], address: String) -> Self {
        let certificates = Certificates::of(crate::testing::Authority::new().server_material());
        let mut peer = Self::new(&[CertificateDer::from(certificate)], address, Arc::clone(&certificates)).unwrap();
        Arc::get_mut(&mut peer.0).unwrap().vetting = Vetting::accepted(certificates);
        peer
    }
}

/// The clock by which certificates expire, in seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use rcgen::string::BmpString;
    use rcgen::{CustomExtension, DnType, DnValue};
    use strongroom_ids::TenantNo;

    use super::*;
    use crate::testing::{Authority, directory};

    const APP: &str = "spiffe://bank.example/tenant/retail/app/loan-core";
    const OFFICER: &str = "spiffe://bank.example/tenant/retail/officer/officer-1";

    fn peer(uris: &[&str]) -> Peer {
        Peer::alone(Authority::new().client(uris).certificate.der(), "127.0.0.1:5".to_owned())
    }

    #[test]
    fn a_certificate_gives_its_names_key_and_end() {
        let client = Authority::new().client(&[APP, "https://bank.example"]);
        let claims = Claims::read(client.certificate.der()).unwrap();
        assert_eq!(claims.uris, [APP, "https://bank.example"]);
        assert_eq!(claims.key, client.key_hash());
        assert_eq!(claims.not_after, client.not_after);
    }

    #[test]
    fn what_is_not_exactly_a_certificate_says_nothing() {
        let client = Authority::new().client(&[APP]);
        let whole = client.certificate.der().to_vec();
        let longer = [whole.clone(), vec![0]].concat();
        for bytes in [&[][..], b"certificate", &whole[..whole.len() - 1], &longer] {
            assert_eq!(Claims::read(bytes), None);
        }
    }

    #[test]
    fn a_name_that_cannot_be_read_is_not_left_out() {
        let authority = Authority::new();
        let readable = || Claims::read(authority.with(|_| {}).certificate.der());
        assert_eq!(readable().unwrap().uris, [""; 0]);
        // UCS-2, and bytes that are no text.
        let named = authority.with(|params| {
            params.distinguished_name.push(DnType::CommonName, "loan-core");
            let other = BmpString::try_from("other").unwrap();
            params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), DnValue::BmpString(other));
        });
        assert_eq!(Claims::read(named.certificate.der()), None);
        let uri = |bytes: &[u8]| [&[0x86, u8::try_from(bytes.len()).unwrap()][..], bytes].concat();
        let both = [uri(APP.as_bytes()), uri(&[0xff, 0xfe])].concat();
        let both = [&[0x30, u8::try_from(both.len()).unwrap()][..], &both].concat();
        let named = authority.with(|params| {
            params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 17], both));
        });
        assert_eq!(Claims::read(named.certificate.der()), None);
    }

    #[test]
    fn a_service_becomes_its_principal() {
        let caller = peer(&[APP]).caller(&directory(&[]), 0).unwrap();
        assert_eq!(&*caller.principal.name, "app/loan-core");
        assert_eq!(caller.principal.tenant, TenantNo(1));
        assert_eq!(&*caller.client, "127.0.0.1:5");
    }

    #[test]
    fn a_certificate_that_names_nobody_is_not_accepted() {
        let foreign = "spiffe://elsewhere.example/tenant/retail/app/loan-core";
        for uris in [&[][..], &[APP, APP], &["https://bank.example"], &[foreign]] {
            let refused = peer(uris).caller(&directory(&[]), 0).unwrap_err();
            assert_eq!(refused, Nobody::CertificateNotAccepted, "{uris:?}");
        }
        let unknown = peer(&["spiffe://bank.example/tenant/nobody/app/loan-core"]);
        assert_eq!(unknown.caller(&directory(&[]), 0).unwrap_err(), Nobody::TenantUnknown);
    }

    #[test]
    fn an_officer_is_known_by_the_enrolled_key_only() {
        let authority = Authority::new();
        let enrolled = authority.client(&[OFFICER]);
        let directory = directory(&[("officer-1", enrolled.key_hash())]);
        let accept = |der: &[u8]| Peer::alone(der, String::new()).caller(&directory, 0).map(|_| ());
        assert_eq!(accept(enrolled.certificate.der()), Ok(()));
        let caller = Peer::alone(enrolled.certificate.der(), String::new()).caller(&directory, 0).unwrap();
        assert_eq!(caller.certificate, Some(enrolled.key_hash()), "what is under way is held against it");
        let other = authority.client(&[OFFICER]);
        assert_eq!(accept(other.certificate.der()), Err(Nobody::OfficerNotEnrolled));
    }

    #[test]
    fn a_certificate_enrols_the_one_officer_that_it_names() {
        let authority = Authority::new();
        let one = authority.client(&[OFFICER]);
        let named = officer(one.certificate.der(), "bank.example", "retail");
        assert_eq!(named, Some(("officer-1".to_owned(), one.key_hash())));
        assert_eq!(officer(one.certificate.der(), "bank.example", "lending"), None);
        assert_eq!(officer(one.certificate.der(), "other.example", "retail"), None);
        assert_eq!(officer(authority.client(&[APP]).certificate.der(), "bank.example", "retail"), None);
        assert_eq!(officer(authority.client(&[OFFICER, APP]).certificate.der(), "bank.example", "retail"), None);
        assert_eq!(officer(b"no certificate", "bank.example", "retail"), None);
        let key = |name: &str| officer_key(one.certificate.der(), "bank.example", "retail", name);
        assert_eq!((key("officer-1"), key("officer-2")), (Some(one.key_hash()), None));
    }

    #[test]
    fn a_certificate_whose_key_can_approve_nothing_enrols_no_officer() {
        struct Key(&'static rcgen::SignatureAlgorithm, Vec<u8>);
        impl rcgen::PublicKeyData for Key {
            fn der_bytes(&self) -> &[u8] {
                &self.1
            }
            fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
                self.0
            }
        }
        let authority = Authority::new();
        let rsa = Key(&rcgen::PKCS_RSA_SHA256, vec![0x30, 0x06, 0x02, 0x01, 0x21, 0x02, 0x01, 0x03]);
        let compressed = Key(&rcgen::PKCS_ECDSA_P256_SHA256, [&[2][..], &[1; 32]].concat());
        for key in [rsa, compressed] {
            let certificate = authority.certify(&key, &[OFFICER]);
            assert_eq!(Claims::read(&certificate).unwrap().uris, [OFFICER], "TLS would take it");
            assert_eq!(officer_key(&certificate, "bank.example", "retail", "officer-1"), None);
        }
    }

    #[test]
    fn a_connection_follows_changes_of_the_directory() {
        let officer = Authority::new().client(&[OFFICER]);
        let peer = Peer::alone(officer.certificate.der(), String::new());
        let with = directory(&[("officer-1", officer.key_hash())]);
        assert!(peer.caller(&with, 0).is_ok());
        assert_eq!(peer.caller(&directory(&[]), 0).unwrap_err(), Nobody::OfficerNotEnrolled);
        assert!(peer.caller(&with, 0).is_ok());
    }

    #[test]
    fn a_connection_does_not_outlive_its_certificate() {
        let client = Authority::new().client(&[APP]);
        let peer = Peer::alone(client.certificate.der(), String::new());
        assert!(peer.caller(&directory(&[]), client.not_after).is_ok());
        let late = peer.caller(&directory(&[]), client.not_after + 1).unwrap_err();
        assert_eq!(late, Nobody::CertificateExpired);
        assert_eq!(Status::from(late).code(), Code::Unauthenticated);
    }
}
