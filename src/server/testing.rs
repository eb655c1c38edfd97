//! Certificates and directories for the tests of this crate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, RevokedCertParams, SanType,
    date_time_ymd,
};
use ring::digest;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};
use strongroom_access::Directory;
use strongroom_ids::TenantNo;
use zeroize::Zeroizing;

use crate::{IssuerRules, TlsMaterial};

/// Authorities that were made, so that each has a name of its own.
static MADE: AtomicU64 = AtomicU64::new(0);

/// A certificate authority of one test.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(crate) struct Issued {
    pub certificate: rcgen::Certificate,
    pub key: KeyPair,
    pub not_after: i64,
}

impl Issued {
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub fn key_hash(&self) -> [u8; 32] {
        digest::digest(&digest::SHA256, &self.key.subject_public_key_info()).as_ref().try_into().unwrap()
    }
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        // A list of revoked certificates is found by its issuer's name.
        let name = format!("authority {}", MADE.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A client's certificate with these URI names.
    pub fn client(&self, uris: &[&str]) -> Issued {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    /// A client's certificate whose time is over.
    pub fn expired_client(&self, uri: &str) -> Issued {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.issue(params)
    }

    /// What a server at `localhost` needs.
    pub fn server_material(&self) -> TlsMaterial {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issued = self.issue(params);
        TlsMaterial {
            certificate_pem: issued.certificate.pem().into_bytes(),
            key_pem: Zeroizing::new(issued.key.serialize_pem().into_bytes()),
            client_ca_pem: self.pem().into_bytes(),
            crls: vec![],
            require_crl: true,
        }
    }

    /// A client's certificate with a serial number and a common name, and these URI names.
    pub fn numbered(&self, serial: u64, name: &str, uris: &[&str]) -> Issued {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.serial_number = Some(serial.into());
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    /// The list (DER) that revokes these serial numbers.
    pub fn revoked(&self, serials: &[u64]) -> Vec<u8> {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2060, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().der().to_vec()
    }

    /// TLS as a client of this authority's server does it.
    pub fn client_config(&self, client: Option<&Issued>, alpn: &[u8]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match client {
            None => config.with_no_client_auth(),
            Some(issued) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.key.serialize_der()));
                config.with_client_auth_cert(vec![issued.certificate.der().clone()], key).unwrap()
            }
        };
        config.alpn_protocols = if alpn.is_empty() { vec![] } else { vec![alpn.to_vec()] };
        config
    }

    /// A client's certificate without names, but for what the test gives it.
    pub fn with(&self, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        self.issue(params)
    }

    /// A client's certificate (DER) for a key that somebody else has.
    pub fn certify(&self, key: &impl PublicKeyData, uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.signed_by(key, &self.0).unwrap().der().to_vec()
    }

    fn issue(&self, params: CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        let not_after = params.not_after.unix_timestamp();
        Issued { certificate: params.signed_by(&key, &self.0).unwrap(), key, not_after }
    }
}

/// A directory with the tenant `retail`, number 1, and these officers of it.
pub(crate) fn directory(officers: &[(&str, [u8; 32])]) -> Arc<Directory> {
    Arc::new(Directory {
        trust_domain: "bank.example".to_owned(),
        tenants: [("retail".to_owned(), TenantNo(1))].into(),
        destroyed: Default::default(),
        officers: officers.iter().map(|(name, key)| ((TenantNo(1), (*name).to_owned()), *key)).collect(),
        trust_anchors: Default::default(),
    })
}

/// An issuer of actors of this name, for one tenant.
pub(crate) fn rules(name: &str) -> IssuerRules {
    IssuerRules {
        name: name.to_owned(),
        issuer: format!("https://{name}.bank.example"),
        audience: "strongroom".to_owned(),
        algorithms: vec!["ES256".to_owned(), "EdDSA".to_owned()],
        role_claim: "role".to_owned(),
        labels_claim: "labels".to_owned(),
        leeway_seconds: 5,
        max_lifetime_seconds: 3_600,
        tenants: vec!["retail".to_owned()],
        tenant_claim: None,
    }
}
