//! What an officer signs to approve a request of somebody else, so that whoever has the leaf can check it.

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use strongroom_ids::{TenantId, VaultId};
use thiserror::Error;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_SIG_ED25519};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// What is approved, and by whom.
#[derive(Clone, Copy, Debug)]
pub struct Approval<'a> {
    /// The vault.
    pub vault: VaultId,
    /// The tenant.
    pub tenant: TenantId,
    /// `approval/7`.
    pub name: &'a str,
    /// The keyed hash of the request, in lower-case hexadecimal.
    pub request: &'a str,
    /// The action that is asked for.
    pub action: &'a str,
    /// Who asks for it, by role and name.
    pub requester: &'a str,
    /// The request in words, on one line.
    pub summary: &'a str,
    /// Who approves, by role and name: `officer/alice`.
    pub officer: &'a str,
}

/// Why an officer's signature does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SignatureError {
    /// The key is none that can be checked.
    #[error("an officer's public key is a SubjectPublicKeyInfo in DER: ECDSA on P-256 or P-384, or Ed25519")]
    Key,
    /// The signature is of something else, or by another key.
    #[error("the signature does not hold: it is by the officer's own key, over the text of just this approval")]
    Signature,
}

impl Approval<'_> {
    /// The text that is signed. No part can have a line end.
    pub fn text(&self) -> String {
        let Self { vault, tenant, name, request, action, requester, summary, officer } = self;
        format!(
            "strongroom approval 1\nvault {vault}\ntenant {tenant}\napproval {name}\nrequest {request}\naction {action}\n\
             requester {requester}\nsummary {summary}\nofficer {officer}\n"
        )
    }

    /// Verifies a signature: ECDSA with SHA-256 on P-256 or with SHA-384 on P-384, in ASN.1 (FIPS 186-5), or Ed25519
    /// (RFC 8032). That the key is the officer's own is not known here.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(&self, public_key: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let (algorithm, key) = readable(public_key).ok_or(SignatureError::Key)?;
        let key = UnparsedPublicKey::new(algorithm, &*key.subject_public_key.data);
        key.verify(self.text().as_bytes(), signature).map_err(|_| SignatureError::Signature)
    }
}

/// Whether whoever has this public key, a SubjectPublicKeyInfo in DER, can approve anything. TLS takes other keys as well, RSA
/// and P-521: an officer with one of these would count where approvers are counted, and never could be one.
pub fn is_officer_key(public_key: &[u8]) -> bool {
    readable(public_key).is_some()
}

fn readable(public_key: &[u8]) -> Option<(&'static dyn VerificationAlgorithm, SubjectPublicKeyInfo<'_>)> {
    let (_, key) = SubjectPublicKeyInfo::from_der(public_key).ok().filter(|(rest, _)| rest.is_empty())?;
    let (algorithm, bytes) = algorithm(&key)?;
    // A point is uncompressed (SEC 1, 2.3.3): another one is never verified by.
    (key.subject_public_key.data.len() == bytes).then_some((algorithm, key))
}

/// What verifies by a key, and how many bytes such a key has.
fn algorithm(key: &SubjectPublicKeyInfo<'_>) -> Option<(&'static dyn VerificationAlgorithm, usize)> {
    let kind = &key.algorithm.algorithm;
    if *kind == OID_SIG_ED25519 {
        return Some((&signature::ED25519, 32));
    }
    if *kind != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return None;
    }
    let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
    match curve {
        curve if curve == OID_EC_P256 => Some((&signature::ECDSA_P256_SHA256_ASN1, 65)),
        curve if curve == OID_NIST_EC_P384 => Some((&signature::ECDSA_P384_SHA384_ASN1, 97)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData, SigningKey};

    use super::*;

    fn approval<'a>(name: &'a str, officer: &'a str) -> Approval<'a> {
        let (action, requester, summary) = ("apply_policy", "officer/alice", "apply the policies");
        let (vault, tenant) = (VaultId([1; 16]), TenantId([2; 16]));
        Approval { vault, tenant, name, request: "0abc", action, requester, summary, officer }
    }

    #[test]
    fn a_signature_holds_for_its_key_and_text_alone() {
        let one = approval("approval/7", "officer/bob");
        for kind in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let (key, other) = (KeyPair::generate_for(kind).unwrap(), KeyPair::generate_for(kind).unwrap());
            let public = key.subject_public_key_info();
            let signature = key.sign(one.text().as_bytes()).unwrap();
            one.verify(&public, &signature).unwrap();
            assert_eq!(one.verify(&other.subject_public_key_info(), &signature), Err(SignatureError::Signature));
            let others = [
                approval("approval/8", "officer/bob"),
                approval("approval/7", "officer/carol"),
                Approval { request: "0abd", ..one },
                Approval { action: "apply_schema", ..one },
                Approval { requester: "officer/dave", ..one },
                Approval { summary: "apply other policies", ..one },
                Approval { vault: VaultId([3; 16]), ..one },
                Approval { tenant: TenantId([3; 16]), ..one },
            ];
            for other in others {
                assert_eq!(other.verify(&public, &signature), Err(SignatureError::Signature));
            }
            let mut longer = public.clone();
            longer.push(0);
            assert_eq!(one.verify(&longer, &signature), Err(SignatureError::Key));
        }
    }

    #[test]
    fn an_officers_key_is_one_that_can_approve() {
        for kind in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            assert!(is_officer_key(&KeyPair::generate_for(kind).unwrap().subject_public_key_info()));
        }
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        // SubjectPublicKeyInfo up to the bytes of the key: RSA, P-521, and P-256 with a compressed point.
        let rsa = [hex("301a300d06092a864886f70d01010105000309003006020121020103"), vec![]];
        let p521 = [hex("30819b301006072a8648ce3d020106052b810400230381860004"), vec![1; 132]];
        let compressed = [hex("3039301306072a8648ce3d020106082a8648ce3d03010703220002"), vec![1; 32]];
        for key in [rsa, p521, compressed].map(|parts| parts.concat()) {
            assert_eq!(SubjectPublicKeyInfo::from_der(&key).unwrap().0, b"", "it is well formed");
            assert!(!is_officer_key(&key));
        }
        assert!(!is_officer_key(b"") && !is_officer_key(b"key"));
    }

    #[test]
    fn what_is_signed_is_as_specified() {
        let id = |byte: &str| byte.repeat(16);
        assert_eq!(
            approval("approval/7", "officer/bob").text(),
            format!(
                concat!(
                    "strongroom approval 1\nvault {}\ntenant {}\napproval approval/7\nrequest 0abc\naction apply_policy\n",
                    "requester officer/alice\nsummary apply the policies\nofficer officer/bob\n"
                ),
                id("01"),
                id("02")
            )
        );
    }

    proptest! {
        #[test]
        fn rubbish_is_neither_a_key_nor_a_signature(key: Vec<u8>, signature: Vec<u8>) {
            prop_assert!(approval("approval/7", "officer/bob").verify(&key, &signature).is_err());
        }
    }
}
