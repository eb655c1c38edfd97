//! Who is known to the vault: its trust domain, its tenants, and the pinned keys of their officers.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use serde::Deserialize;
use strongroom_ids::TenantNo;

use crate::principal::{Principal, Role};
use crate::spiffe::{IdentityError, SpiffeId, check_segment, check_trust_domain};

/// The format of a stored directory.
const FORMAT: u32 = 1;
/// The name of number zero, the vault itself.
const SYSTEM: &str = "system";

/// Who is known to the vault.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Directory {
    /// The trust domain of every SPIFFE ID that is accepted.
    pub trust_domain: String,
    /// Tenants by the name that certificates use. Number zero is the vault itself; it may be listed as `system`, and
    /// no certificate reaches it as a tenant.
    pub tenants: BTreeMap<String, TenantNo>,
    /// Tenants that were destroyed: neither their names nor their numbers are given out again.
    pub destroyed: BTreeMap<String, TenantNo>,
    /// The SHA-256 of each officer's public key (SubjectPublicKeyInfo, DER), by tenant and the name under the role:
    /// `officer-1` for `/tenant/acme/officer/officer-1`.
    pub officers: BTreeMap<(TenantNo, String), [u8; 32]>,
    /// The SHA-256 of each certificate (DER) that may vouch for callers.
    pub trust_anchors: BTreeSet<[u8; 32]>,
}

/// Why a stored directory is not one.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It is no JSON of the known form.
    #[error("the stored directory of principals does not read as JSON of the known form: {0}")]
    Form(#[from] serde_json::Error),
    /// A later version wrote it.
    #[error("the stored directory of principals has format {0}; this version knows format {FORMAT}")]
    Format(u32),
    /// It names what no certificate can, or contradicts itself.
    #[error("the directory of principals is not right: {0}")]
    Wrong(&'static str),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    trust_domain: String,
    tenants: Vec<StoredTenant>,
    destroyed: Vec<StoredTenant>,
    officers: Vec<StoredOfficer>,
    trust_anchors: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredTenant {
    name: String,
    number: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredOfficer {
    tenant: u32,
    name: String,
    key: String,
}

fn sha256(hex: &str) -> Option<[u8; 32]> {
    HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}

impl Directory {
    /// The key by which an officer of a tenant is enrolled, if it is; by its name under the role.
    pub fn officer(&self, tenant: TenantNo, name: &str) -> Option<&[u8; 32]> {
        self.officers.get(&(tenant, name.to_owned()))
    }

    /// A tenant's officers and their keys, in the order of their names.
    pub fn officers_of(&self, tenant: TenantNo) -> impl Iterator<Item = (&str, &[u8; 32])> {
        let own = self.officers.range((tenant, String::new())..).take_while(move |((of, _), _)| *of == tenant);
        own.map(|((_, name), key)| (name.as_str(), key))
    }

    /// The directory as the vault keeps it: JSON with a fixed order, so that equal directories have equal bytes.
    pub fn to_stored(&self) -> String {
        let list = |tenants: &BTreeMap<String, TenantNo>| -> Vec<_> {
            let tenants = tenants.iter();
            tenants.map(|(name, number)| serde_json::json!({ "name": name, "number": number.0 })).collect()
        };
        let officers: Vec<_> = self
            .officers
            .iter()
            .map(|((tenant, name), key)| {
                serde_json::json!({ "tenant": tenant.0, "name": name, "key": HEXLOWER.encode(key) })
            })
            .collect();
        serde_json::json!({
            "format": FORMAT,
            "trust_domain": self.trust_domain,
            "tenants": list(&self.tenants),
            "destroyed": list(&self.destroyed),
            "officers": officers,
            "trust_anchors": self.trust_anchors.iter().map(|anchor| HEXLOWER.encode(anchor)).collect::<Vec<_>>(),
        })
        .to_string()
    }

    /// Reads what [`Directory::to_stored`] wrote.
    pub fn from_stored(text: &str) -> Result<Self, DirectoryError> {
        let stored: Stored = serde_json::from_str(text)?;
        if stored.format != FORMAT {
            return Err(DirectoryError::Format(stored.format));
        }
        let mut directory = Self { trust_domain: stored.trust_domain, ..Self::default() };
        for tenant in stored.tenants {
            if directory.tenants.insert(tenant.name, TenantNo(tenant.number)).is_some() {
                return Err(DirectoryError::Wrong("a tenant's name is used twice"));
            }
        }
        for tenant in stored.destroyed {
            if directory.destroyed.insert(tenant.name, TenantNo(tenant.number)).is_some() {
                return Err(DirectoryError::Wrong("a destroyed tenant is listed twice"));
            }
        }
        for officer in stored.officers {
            let key = sha256(&officer.key)
                .ok_or(DirectoryError::Wrong("an officer's key hash must be 64 lower-case hexadecimal digits"))?;
            if directory.officers.insert((TenantNo(officer.tenant), officer.name), key).is_some() {
                return Err(DirectoryError::Wrong("an officer is enrolled twice"));
            }
        }
        for anchor in stored.trust_anchors {
            let anchor = sha256(&anchor)
                .ok_or(DirectoryError::Wrong("a trust anchor's hash must be 64 lower-case hexadecimal digits"))?;
            if !directory.trust_anchors.insert(anchor) {
                return Err(DirectoryError::Wrong("a trust anchor is enrolled twice"));
            }
        }
        directory.check()?;
        Ok(directory)
    }

    /// Whether certificates can name all that is in it: without this a tenant or an officer could be enrolled whom
    /// nobody can ever be.
    pub fn check(&self) -> Result<(), DirectoryError> {
        check_trust_domain(&self.trust_domain)
            .map_err(|_| DirectoryError::Wrong("the trust domain must be of a-z 0-9 . - _, up to 255 long"))?;
        let mut numbers = BTreeSet::new();
        if self.destroyed.keys().any(|name| self.tenants.contains_key(name)) {
            return Err(DirectoryError::Wrong("a tenant that was destroyed is there"));
        }
        for (name, number) in self.tenants.iter().chain(&self.destroyed) {
            check_segment(name)
                .map_err(|_| DirectoryError::Wrong("a tenant's name must be of A-Z a-z 0-9 . - _, up to 64 long"))?;
            if (name == SYSTEM) != (*number == TenantNo(0)) {
                return Err(DirectoryError::Wrong("tenant number 0 is the vault itself, and named system"));
            }
            if !numbers.insert(*number) {
                return Err(DirectoryError::Wrong("a tenant's number is used twice"));
            }
        }
        for (_, name) in self.officers.keys() {
            check_segment(name)
                .map_err(|_| DirectoryError::Wrong("an officer's name must be of A-Z a-z 0-9 . - _, up to 64 long"))?;
        }
        Ok(())
    }
}

/// The principal of a client certificate that TLS has verified.
///
/// `uri_sans` are all its subject alternative names of type URI, `spki_sha256` the SHA-256 of its
/// SubjectPublicKeyInfo. A certificate with two names is refused, since either could be the one that was vouched for.
/// An officer's key is pinned: whoever issues a tenant's certificates cannot make officers.
pub fn identify(uri_sans: &[&str], spki_sha256: &[u8; 32], directory: &Directory) -> Result<Principal, IdentityError> {
    let [uri] = uri_sans else {
        return Err(IdentityError::NotOneUri(uri_sans.len()));
    };
    let id = SpiffeId::parse(uri)?;
    if id.trust_domain != directory.trust_domain {
        return Err(IdentityError::TrustDomain { expected: directory.trust_domain.clone() });
    }
    let tenant = match id.tenant {
        None => TenantNo(0),
        Some(name) => match directory.tenants.get(&name) {
            // The vault itself is no tenant: `/tenant/system/auditor/x` would read its ledger.
            None | Some(TenantNo(0)) => return Err(IdentityError::TenantUnknown(name)),
            Some(number) => *number,
        },
    };
    let principal = Principal::new(tenant, id.role, &id.name);
    if id.role == Role::Officer {
        match directory.officer(tenant, &id.name) {
            None => return Err(IdentityError::OfficerNotEnrolled(id.name)),
            Some(pinned) if pinned != spki_sha256 => return Err(IdentityError::OfficerKey(id.name)),
            Some(_) => {}
        }
    }
    Ok(principal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn directory() -> Directory {
        Directory {
            trust_domain: "bank.example".into(),
            tenants: [("acme", 1), ("other", 2), (SYSTEM, 0)].map(|(name, no)| (name.to_owned(), TenantNo(no))).into(),
            destroyed: [("gone".to_owned(), TenantNo(3))].into(),
            officers: [((TenantNo(1), "officer-1".to_owned()), KEY)].into(),
            trust_anchors: BTreeSet::from([[9; 32]]),
        }
    }

    fn identified(uri: &str, key: &[u8; 32]) -> Result<Principal, IdentityError> {
        identify(&[uri], key, &directory())
    }

    #[test]
    fn a_service_is_identified_in_its_tenant() {
        let principal = identified("spiffe://bank.example/tenant/acme/app/loan-core", &[0; 32]).unwrap();
        assert_eq!(principal, Principal::new(TenantNo(1), Role::App, "loan-core"));
    }

    #[test]
    fn an_operator_belongs_to_the_vault_itself() {
        let principal = identified("spiffe://bank.example/system/operator/ops", &[0; 32]).unwrap();
        assert_eq!(principal, Principal::new(TenantNo(0), Role::Operator, "ops"));
    }

    #[test]
    fn an_officer_needs_the_pinned_key() {
        let uri = "spiffe://bank.example/tenant/acme/officer/officer-1";
        assert_eq!(identified(uri, &KEY).unwrap().role, Role::Officer);
        assert_eq!(identified(uri, &[8; 32]), Err(IdentityError::OfficerKey("officer-1".into())));
    }

    #[test]
    fn an_officer_of_one_tenant_is_none_of_another() {
        let error = identified("spiffe://bank.example/tenant/other/officer/officer-1", &KEY).unwrap_err();
        assert_eq!(error, IdentityError::OfficerNotEnrolled("officer-1".into()));
        assert_eq!(error.reason(), "OFFICER_NOT_ENROLLED");
    }

    #[test]
    fn another_trust_domain_or_tenant_is_refused() {
        let error = identified("spiffe://evil.example/tenant/acme/app/x", &KEY).unwrap_err();
        assert_eq!(error.reason(), "CERTIFICATE_NOT_ACCEPTED");
        let error = identified("spiffe://bank.example/tenant/nobody/app/x", &KEY).unwrap_err();
        assert_eq!(error.reason(), "TENANT_UNKNOWN");
        let error = identified("spiffe://bank.example/tenant/gone/app/x", &KEY).unwrap_err();
        assert_eq!(error.reason(), "TENANT_UNKNOWN");
        let error = identified("spiffe://bank.example/tenant/ACME/app/x", &KEY).unwrap_err();
        assert_eq!(error.reason(), "TENANT_UNKNOWN");
    }

    #[test]
    fn the_vault_itself_is_no_tenant() {
        for role in Role::ALL {
            let error = identified(&format!("spiffe://bank.example/tenant/system/{role}/x"), &KEY).unwrap_err();
            assert_eq!(error.reason(), "TENANT_UNKNOWN");
        }
    }

    #[test]
    fn a_certificate_needs_exactly_one_name() {
        let uri = "spiffe://bank.example/tenant/acme/app/x";
        assert_eq!(identify(&[], &KEY, &directory()), Err(IdentityError::NotOneUri(0)));
        assert_eq!(identify(&[uri, uri], &KEY, &directory()), Err(IdentityError::NotOneUri(2)));
    }

    #[test]
    fn a_damaged_directory_is_refused() {
        let good = directory().to_stored();
        for (from, to) in [
            ("\"format\":1", "\"format\":2"),
            ("bank.example", "Bank/example"),
            ("\"number\":2", "\"number\":1"),
            ("\"number\":2", "\"number\":0"),
            ("\"number\":2", "\"number\":-2"),
            ("\"other\"", "\"acme\""),
            ("\"other\"", "\"../acme\""),
            ("\"system\"", "\"other2\""),
            ("\"gone\"", "\"acme\""),
            ("\"number\":3", "\"number\":1"),
            ("\"destroyed\"", "\"gone\""),
            ("\"officer-1\"", "\"officer/1\""),
            ("0707", "0xyz"),
            ("0707", "07"),
            ("\"officers\"", "\"officer\""),
            ("\"trust_anchors\"", "\"anchors\""),
            ("0909", "09"),
            ("0909", "0xyz"),
            ("]}", "]"),
        ] {
            assert!(good.contains(from), "{from}");
            assert!(Directory::from_stored(&good.replacen(from, to, 1)).is_err(), "{from} -> {to}");
        }
    }

    proptest! {
        #[test]
        fn a_stored_directory_reads_back(
            trust_domain in "[a-z0-9.-]{1,20}",
            names in proptest::collection::btree_set("[A-Za-z0-9_-]{1,20}", 0..6),
            officers in proptest::collection::btree_map((any::<u32>().prop_map(TenantNo), "[A-Za-z0-9_-]{1,20}"), any::<[u8; 32]>(), 0..6),
        ) {
            let mut tenants: BTreeMap<_, _> = names.into_iter().zip((1..).map(TenantNo)).collect();
            let destroyed = tenants.pop_first().into_iter().collect();
            let directory = Directory { trust_domain, tenants, destroyed, officers, trust_anchors: [[5; 32], [6; 32]].into() };
            prop_assert_eq!(Directory::from_stored(&directory.to_stored()).unwrap(), directory);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = Directory::from_stored(&text);
        }
    }
}
