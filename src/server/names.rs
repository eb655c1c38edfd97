//! Names for services whose certificates carry no URI: by their common name, and only by an explicit rule.

use std::collections::BTreeMap;

use strongroom_access::{Role, SpiffeId};

/// Which URI a certificate without one stands for, by its subject's only common name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameRules(BTreeMap<String, String>);

impl NameRules {
    /// The rules, as pairs of a common name and the URI that it stands for, or what is wrong with one of them.
    pub fn new(rules: impl IntoIterator<Item = (String, String)>) -> Result<Self, String> {
        let mut found = BTreeMap::new();
        for (name, uri) in rules {
            let id = SpiffeId::parse(&uri).map_err(|why| format!("the name `{name}`: {why}"))?;
            // A common name is what authorities watch least.
            if matches!(id.role, Role::Officer | Role::Operator) {
                return Err(format!(
                    "the name `{name}` stands for an {}: a rule names services only; who has power over the vault \
                     shows a certificate with the URI itself",
                    id.role.as_str()
                ));
            }
            if name.is_empty() {
                return Err(format!("the name for {uri} is empty: give the certificate's whole common name"));
            }
            if found.contains_key(&name) {
                return Err(format!("there are two rules for the name `{name}`: keep one"));
            }
            found.insert(name, uri);
        }
        Ok(Self(found))
    }

    /// The URI that a common name stands for.
    pub(crate) fn uri(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::string::BmpString;
    use rcgen::{DnType, DnValue};

    use super::*;
    use crate::certificates::{Certificates, Vouching};
    use crate::identity::{Nobody, Peer};
    use crate::testing::{Authority, directory};

    const APP: &str = "spiffe://bank.example/tenant/retail/app/loan-core";

    fn rules(rules: &[(&str, &str)]) -> Result<NameRules, String> {
        NameRules::new(rules.iter().map(|(name, uri)| ((*name).to_owned(), (*uri).to_owned())))
    }

    #[test]
    fn a_rule_names_a_service_once_and_never_an_officer_or_operator() {
        assert_eq!(rules(&[("loan-core", APP)]).unwrap().uri("loan-core"), Some(APP));
        for (refused, named) in [
            (rules(&[("loan-core", "loan-core")]), "loan-core"),
            (rules(&[("eve", "spiffe://bank.example/tenant/retail/officer/eve")]), "officer"),
            (rules(&[("eve", "spiffe://bank.example/system/operator/eve")]), "operator"),
            (rules(&[("", APP)]), "empty"),
            (rules(&[("a", APP), ("a", APP)]), "two rules"),
        ] {
            let why = refused.unwrap_err();
            assert!(why.contains(named), "{why}");
        }
    }

    #[test]
    fn a_rule_holds_for_a_certificate_without_a_uri_and_for_its_whole_name() {
        let authority = Authority::new();
        let names = rules(&[("loan-core", APP)]).unwrap();
        let certificates =
            Arc::new(Certificates::new(&authority.server_material(), names, Vouching::default()).unwrap());
        let called = |name: &str, uris: &[&str]| {
            let issued = authority.numbered(7, name, uris);
            let chain = [issued.certificate.der().clone()];
            let peer = Peer::new(&chain, String::new(), Arc::clone(&certificates)).unwrap();
            peer.caller(&directory(&[]), 0).map(|caller| caller.principal.name.to_string())
        };
        assert_eq!(called("loan-core", &[]).as_deref(), Ok("app/loan-core"));
        let other = "spiffe://bank.example/tenant/retail/app/other";
        assert_eq!(called("loan-core", &[other]).as_deref(), Ok("app/other"));
        let twice = authority.with(|params| {
            params.distinguished_name.push(DnType::CommonName, "loan-core");
            let other = DnValue::BmpString(BmpString::try_from("other").unwrap());
            params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), other);
        });
        let chain = [twice.certificate.der().clone()];
        let peer = Peer::new(&chain, String::new(), Arc::clone(&certificates)).unwrap();
        let refused = peer.caller(&directory(&[]), 0).unwrap_err();
        assert_eq!(refused, Nobody::CertificateNotAccepted, "it is not its only common name");
        for (name, uris) in [("LOAN-CORE", &[][..]), ("loan-core2", &[]), ("loan-core", &["https://bank.example"])] {
            assert_eq!(called(name, uris), Err(Nobody::CertificateNotAccepted), "{name}");
        }
    }
}
