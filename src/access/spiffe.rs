//! The SPIFFE ID of a client certificate, read strictly.
//!
//! SPIFFE-ID specification, section 2: `spiffe://trust-domain/path`, at most 2,048 bytes, no port, user, query or
//! fragment, no empty and no dot segments, no percent-encoding. Strongroom takes two kinds of path:
//!
//! - `/tenant/TENANT/ROLE/NAME`
//! - `/system/operator/NAME`

use crate::principal::Role;

/// Longest SPIFFE ID in bytes (SPIFFE-ID, section 2.3).
const MAX_ID: usize = 2048;
/// Longest trust domain in bytes (SPIFFE-ID, section 2.1: a host name).
const MAX_TRUST_DOMAIN: usize = 255;
/// Longest tenant or principal name in bytes.
const MAX_NAME: usize = 64;

/// Why a certificate does not name a principal.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no name, or a choice of names.
    #[error("the certificate has {0} URI names; it needs exactly one, a SPIFFE ID")]
    NotOneUri(usize),
    /// The name is too long.
    #[error("the certificate's SPIFFE ID is too long; it may have 2048 bytes, and 64 for each name")]
    TooLong,
    /// The name is no SPIFFE ID.
    #[error("the certificate's URI name is not a SPIFFE ID: {0}")]
    NotSpiffe(&'static str),
    /// It is a SPIFFE ID of another kind.
    #[error("the SPIFFE ID's path must be /tenant/TENANT/ROLE/NAME or /system/operator/NAME")]
    Path,
    /// The role is none of Strongroom's.
    #[error("the SPIFFE ID's role must be app, rotator, auditor, privacy, officer or operator")]
    Role,
    /// It is a SPIFFE ID of another trust domain.
    #[error("the SPIFFE ID is of another trust domain; this vault trusts {expected}")]
    TrustDomain {
        /// The vault's own.
        expected: String,
    },
    /// The tenant does not exist.
    #[error("this vault has no tenant {0}")]
    TenantUnknown(String),
    /// No such officer was enrolled.
    #[error("no officer {0} is enrolled in the tenant")]
    OfficerNotEnrolled(String),
    /// The officer was enrolled with another key.
    #[error("the certificate of officer {0} does not hold the enrolled key")]
    OfficerKey(String),
}

impl IdentityError {
    /// The stable reason that a caller is told.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TenantUnknown(_) => "TENANT_UNKNOWN",
            Self::OfficerNotEnrolled(_) | Self::OfficerKey(_) => "OFFICER_NOT_ENROLLED",
            _ => "CERTIFICATE_NOT_ACCEPTED",
        }
    }
}

/// A SPIFFE ID that has the form of a principal's. Nothing is known yet of its tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpiffeId {
    /// Who vouches for it.
    pub trust_domain: String,
    /// The tenant's name; none for the vault's own operators.
    pub tenant: Option<String>,
    /// The role.
    pub role: Role,
    /// The name under the role.
    pub name: String,
}

impl SpiffeId {
    /// Reads a SPIFFE ID.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        if text.len() > MAX_ID {
            return Err(IdentityError::TooLong);
        }
        // The scheme and the trust domain could be written in capitals as far as URIs go; SPIFFE wants one form.
        let rest = text.strip_prefix("spiffe://").ok_or(IdentityError::NotSpiffe("it must begin with spiffe://"))?;
        let (trust_domain, path) = rest.split_once('/').ok_or(IdentityError::Path)?;
        check_trust_domain(trust_domain)?;
        // One more than the longest path has, so that a longer one is seen without walking all of it.
        let mut segments = Vec::with_capacity(5);
        for segment in path.split('/').take(5) {
            check_segment(segment)?;
            segments.push(segment);
        }
        let (tenant, role, name) = match segments.as_slice() {
            ["tenant", tenant, role, name] => {
                (Some((*tenant).to_owned()), role.parse().map_err(|_| IdentityError::Role)?, *name)
            }
            ["system", "operator", name] => (None, Role::Operator, *name),
            _ => return Err(IdentityError::Path),
        };
        Ok(Self { trust_domain: trust_domain.to_owned(), tenant, role, name: name.to_owned() })
    }
}

/// SPIFFE-ID, section 2.1: lower-case letters, digits, dots, dashes and underscores.
pub(crate) fn check_trust_domain(name: &str) -> Result<(), IdentityError> {
    if name.len() > MAX_TRUST_DOMAIN {
        return Err(IdentityError::TooLong);
    }
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    if name.is_empty() || !name.bytes().all(allowed) {
        return Err(IdentityError::NotSpiffe("the trust domain must be of a-z 0-9 . - _"));
    }
    Ok(())
}

/// SPIFFE-ID, section 2.2: letters, digits, dots, dashes and underscores; not empty, not `.`, not `..`.
pub(crate) fn check_segment(segment: &str) -> Result<(), IdentityError> {
    if segment.len() > MAX_NAME {
        return Err(IdentityError::TooLong);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if segment.is_empty() || segment == "." || segment == ".." || !segment.bytes().all(allowed) {
        return Err(IdentityError::NotSpiffe("path segments must be of A-Z a-z 0-9 . - _, not empty, not . or .."));
    }
    Ok(())
}

/// Whether a text could be the name of a principal or of a person behind one.
pub fn is_name(text: &str) -> bool {
    check_segment(text).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tenants_principal_is_read() {
        let id = SpiffeId::parse("spiffe://bank.example/tenant/acme/app/loan-core").unwrap();
        assert_eq!(id.trust_domain, "bank.example");
        assert_eq!(id.tenant.as_deref(), Some("acme"));
        assert_eq!((id.role, id.name.as_str()), (Role::App, "loan-core"));
    }

    #[test]
    fn an_operator_of_the_vault_has_no_tenant() {
        let id = SpiffeId::parse("spiffe://bank.example/system/operator/ops").unwrap();
        assert_eq!((id.tenant, id.role), (None, Role::Operator));
    }

    #[test]
    fn hostile_ids_are_refused() {
        for text in [
            "",
            "spiffe://",
            "spiffe:///tenant/acme/app/x",
            "spiffe://bank.example",
            "spiffe://bank.example/",
            "spiffe://bank.example/tenant/acme/app",
            "spiffe://bank.example/tenant/acme/app/",
            "spiffe://bank.example/tenant/acme/app/x/",
            "spiffe://bank.example/tenant/acme/app/x/y",
            "spiffe://bank.example/tenant/acme//x",
            "spiffe://bank.example//tenant/acme/app/x",
            "spiffe://bank.example/tenant/acme/app/.",
            "spiffe://bank.example/tenant/acme/app/..",
            "spiffe://bank.example/tenant/../acme/app/x",
            "spiffe://bank.example/tenant/acme/app/%2e%2e",
            "spiffe://bank.example/tenant/acme/app/a%2Fb",
            "spiffe://bank.example/tenant/acme/app/x?role=officer",
            "spiffe://bank.example/tenant/acme/app/x#officer",
            "spiffe://bank.example:443/tenant/acme/app/x",
            "spiffe://user@bank.example/tenant/acme/app/x",
            "spiffe://BANK.example/tenant/acme/app/x",
            "SPIFFE://bank.example/tenant/acme/app/x",
            "https://bank.example/tenant/acme/app/x",
            " spiffe://bank.example/tenant/acme/app/x",
            "spiffe://bank.example/tenant/acme/app/x ",
            "spiffe://bank.example/tenant/acme/app/x\0",
            "spiffe://bank.example/tenant/acme/app/x\n",
            "spiffe://bank.example/tenant/acmé/app/x",
            "spiffe://bank.example/tenant/аcme/app/x", // a Cyrillic a
            "spiffe://bank.example/Tenant/acme/app/x",
            "spiffe://bank.example/tenant/acme/App/x",
            "spiffe://bank.example/tenant/acme/root/x",
            "spiffe://bank.example/system/officer/x",
            "spiffe://bank.example/system/operator/x/y",
            "spiffe://bank.example/system/operator",
        ] {
            assert!(SpiffeId::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let name = "n".repeat(MAX_NAME);
        assert!(SpiffeId::parse(&format!("spiffe://d/tenant/{name}/app/{name}")).is_ok());
        assert_eq!(SpiffeId::parse(&format!("spiffe://d/tenant/t/app/{name}n")), Err(IdentityError::TooLong));
        assert_eq!(SpiffeId::parse(&format!("spiffe://d/tenant/{name}n/app/x")), Err(IdentityError::TooLong));
        let domain = "d".repeat(MAX_TRUST_DOMAIN);
        assert!(SpiffeId::parse(&format!("spiffe://{domain}/tenant/t/app/x")).is_ok());
        assert!(SpiffeId::parse(&format!("spiffe://{domain}d/tenant/t/app/x")).is_err());
        assert!(SpiffeId::parse(&format!("spiffe://d/{}", "a/".repeat(100_000))).is_err());
    }

    #[test]
    fn errors_do_not_repeat_what_was_sent() {
        let error = SpiffeId::parse("spiffe://bank.example/tenant/acme/app/sent\n\u{1b}[31m").unwrap_err();
        assert!(!error.to_string().contains("sent"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = SpiffeId::parse(&text);
            let _ = SpiffeId::parse(&format!("spiffe://{text}"));
            let _ = SpiffeId::parse(&format!("spiffe://d/tenant/{text}"));
        }

        #[test]
        fn what_was_read_is_what_was_written(
            domain in "[a-z0-9._-]{1,40}", tenant in "[A-Za-z0-9_-]{1,64}", role in 0usize..6, name in "[A-Za-z0-9_-]{1,64}",
        ) {
            let role = Role::ALL[role];
            let id = SpiffeId::parse(&format!("spiffe://{domain}/tenant/{tenant}/{role}/{name}")).unwrap();
            prop_assert_eq!(id, SpiffeId { trust_domain: domain, tenant: Some(tenant), role, name });
        }
    }
}
