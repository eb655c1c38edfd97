//! Plaintexts and passphrases: typed, wiped on drop, and mute in `Debug`.

use std::fmt;

use ring::hkdf;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::error::KeyError;
use crate::random;

/// What a sealed blob held. Wiped on drop.
pub struct Plaintext(Zeroizing<Vec<u8>>);

impl Plaintext {
    /// Takes the bytes over; they are wiped on drop.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl AsRef<[u8]> for Plaintext {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl ZeroizeOnDrop for Plaintext {}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plaintext({} bytes)", self.len())
    }
}

/// A passphrase that is a root key. Never empty; wiped on drop. Used byte by byte as given: not trimmed, not
/// normalised.
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes the text over; it is wiped on drop.
    ///
    /// # Errors
    /// [`KeyError::EmptyPassphrase`] if there is nothing in it.
    pub fn new(text: String) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Err(KeyError::EmptyPassphrase);
        }
        Ok(Self(Zeroizing::new(text)))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl ZeroizeOnDrop for Passphrase {}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// A raw 256-bit key on its way into a typed one.
pub(crate) type RawKey = Zeroizing<[u8; 32]>;

/// Copies a raw key out of where it was. `None` if that is not a key's length.
pub(crate) fn raw_key(bytes: &[u8]) -> Option<RawKey> {
    let mut key = Zeroizing::new([0; 32]);
    if bytes.len() != key.len() {
        return None;
    }
    key.copy_from_slice(bytes);
    Some(key)
}

/// A new random raw key.
pub(crate) fn new_raw_key() -> Result<RawKey, KeyError> {
    let mut key = Zeroizing::new([0; 32]);
    random::fill(key.as_mut_slice())?;
    Ok(key)
}

/// Derives a key by HKDF-SHA256 (RFC 5869).
pub(crate) fn derived(salt: &[u8], key: &[u8], info: &[u8]) -> Result<RawKey, KeyError> {
    let mut derived = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(key)
        .expand(&[info], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(derived.as_mut_slice()))
        // 32 bytes are far below the 8,160 that HKDF gives.
        .map_err(|_| KeyError::Exhausted("HKDF gives at most 8,160 bytes"))?;
    Ok(derived)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_but_a_length() {
        assert_eq!(format!("{:?}", Plaintext::new(b"secret".to_vec())), "Plaintext(6 bytes)");
        assert_eq!(format!("{:?}", Passphrase::new("secret".to_owned()).unwrap()), "Passphrase(..)");
    }

    #[test]
    fn an_empty_passphrase_is_refused() {
        assert_eq!(Passphrase::new(String::new()).unwrap_err(), KeyError::EmptyPassphrase);
    }

    #[test]
    fn only_32_bytes_are_a_raw_key() {
        assert!(raw_key(&[1; 32]).is_some());
        assert!(raw_key(&[1; 31]).is_none());
        assert!(raw_key(&[1; 33]).is_none());
        assert!(raw_key(&[]).is_none());
    }
}
