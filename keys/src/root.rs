//! The root key, and who keeps it.
//!
//! A root key never leaves its provider. It wraps the *keystore key*: 256 random bits from which a keystore derives the
//! keys that it keeps itself by. What comes of the wrapping is an [`Envelope`]; it stands in the keystore's own file, so
//! that both are always replaced together.
//!
//! Two providers are here, since nothing stands behind them: a passphrase, and shares. Those that talk to something else
//! are crates of their own. All of them keep what [`suite`] says.

mod passphrase;
mod secret_file;
pub mod shamir;
#[doc(hidden)]
pub mod suite;
mod wrap;

use std::fmt;

use strongroom_ids::VaultId;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::error::KeyError;
use crate::secret::{self, RawKey};

pub use passphrase::{ArgonCost, PassphraseRoot};
pub use secret_file::secret_file;

/// Wraps and unwraps keystore keys under a root key that it keeps.
///
/// Its calls may take long (a passphrase is stretched, a network is waited for): make them where waiting is allowed.
pub trait RootProvider: Send + Sync {
    /// What kind of provider it is.
    fn kind(&self) -> RootKind;

    /// Wraps a keystore key for one vault.
    ///
    /// # Errors
    /// A [`RootError`] that says why not.
    fn wrap(&self, vault: VaultId, key: &KeystoreKey) -> Result<Envelope, RootError>;

    /// Unwraps the keystore key of one vault. An envelope that was made for another vault, by another root key or by
    /// another kind of provider does not open.
    ///
    /// # Errors
    /// A [`RootError`] that says why not.
    fn unwrap(&self, vault: VaultId, envelope: &Envelope) -> Result<KeystoreKey, RootError>;
}

/// The kinds of providers. Their numbers stand in files and are never used for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RootKind {
    /// A passphrase, stretched by Argon2id.
    Passphrase = 1,
    /// Shares of which some are needed (Shamir).
    Shamir = 2,
    /// A hardware security module, by PKCS#11.
    Pkcs11 = 3,
    /// AWS KMS.
    AwsKms = 4,
    /// The transit engine of OpenBao or HashiCorp Vault.
    OpenBao = 5,
}

impl RootKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Passphrase, Self::Shamir, Self::Pkcs11, Self::AwsKms, Self::OpenBao];

    /// The number that stands in files.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    /// The kind with a number, if this build knows it.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Whether it stands outside of the vault's process, and answers without anything that people bring.
    pub fn is_outside(self) -> bool {
        matches!(self, Self::Pkcs11 | Self::AwsKms | Self::OpenBao)
    }

    /// The name that configuration and command line use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passphrase => "file",
            Self::Shamir => "shamir",
            Self::Pkcs11 => "pkcs11",
            Self::AwsKms => "aws-kms",
            Self::OpenBao => "openbao",
        }
    }
}

/// What a provider says of a failure, so that whose word it is stands in it.
impl RootKind {
    /// [`RootError::Credential`].
    pub fn credential(self, why: impl fmt::Display) -> RootError {
        RootError::Credential { provider: self, why: why.to_string() }
    }

    /// [`RootError::Denied`].
    pub fn denied(self, why: impl fmt::Display) -> RootError {
        RootError::Denied { provider: self, why: why.to_string() }
    }

    /// [`RootError::Unreachable`].
    pub fn unreachable(self, why: impl fmt::Display) -> RootError {
        RootError::Unreachable { provider: self, why: why.to_string() }
    }

    /// [`RootError::OtherKey`].
    pub fn other_key(self, why: impl fmt::Display) -> RootError {
        RootError::OtherKey { provider: self, why: why.to_string() }
    }

    /// [`RootError::Settings`].
    pub fn settings(self, why: impl fmt::Display) -> RootError {
        RootError::Settings { provider: self, why: why.to_string() }
    }
}

impl fmt::Display for RootKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A wrapped keystore key, and what its provider needs to know to unwrap it. Holds no secret in clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Whose it is.
    pub kind: RootKind,
    /// What the provider wants to find again, in its own form, in the clear: a salt, a key's name. At most
    /// [`Envelope::PARAMETERS`] bytes.
    pub parameters: Vec<u8>,
    /// The wrapped key, in the provider's own form. At most [`Envelope::WRAPPED`] bytes.
    pub wrapped: Vec<u8>,
}

impl Envelope {
    /// Bytes of parameters at most.
    pub const PARAMETERS: usize = 1_024;
    /// Bytes of a wrapped key at most.
    pub const WRAPPED: usize = 8_192;
}

/// The key from which a keystore's own keys are derived, or the half of them that a tenant's own key wraps: 256 random
/// bits. Wiped on drop.
pub struct KeystoreKey(RawKey);

impl KeystoreKey {
    /// A new random one.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn random() -> Result<Self, KeyError> {
        secret::new_raw_key().map(Self)
    }

    /// For providers only: takes over what was unwrapped, which is wiped. `None` if it has not 32 bytes.
    pub fn from_unwrapped(bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        secret::raw_key(&bytes).map(Self)
    }

    /// Copies one out of where it was. `None` if that has not 32 bytes.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        secret::raw_key(bytes).map(Self)
    }

    /// For providers only: what is to be wrapped.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Derives one of a keystore's own keys, by HKDF-SHA256 (RFC 5869) with the vault's id as the salt.
    pub(crate) fn derive(&self, vault: VaultId, info: &[u8]) -> Result<RawKey, KeyError> {
        secret::derived(&vault.0, self.0.as_slice(), info)
    }

    /// Whether it is the same key. In constant time.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }

    /// Another one of the same bytes.
    pub(crate) fn copy(&self) -> Self {
        Self(self.0.clone())
    }
}

impl ZeroizeOnDrop for KeystoreKey {}

impl fmt::Debug for KeystoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeystoreKey(..)")
    }
}

/// Why a provider did not wrap or unwrap. No message holds a passphrase, a PIN, a share, a credential or a key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RootError {
    /// What the caller brought is wrong: passphrase, PIN, share, access token. Nothing was changed.
    #[error("{provider} does not accept the credential: {why}")]
    Credential {
        /// Whose word it is.
        provider: RootKind,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// The provider answers that this key may not be used: it is disabled, revoked, or forbidden to the vault. A vault
    /// that hears this gives up the keys that it holds.
    #[error("{provider} denies the key: {why}")]
    Denied {
        /// Whose word it is.
        provider: RootKind,
        /// What it said.
        why: String,
    },
    /// The provider does not answer: network, time limit, a token that is not in its reader, a fault of its own. It may
    /// again later.
    #[error("{provider} can't be reached: {why}")]
    Unreachable {
        /// Which provider.
        provider: RootKind,
        /// What happened.
        why: String,
    },
    /// The provider works, but its key is not the one that this was wrapped by.
    #[error("{provider} has another key than the one that this was wrapped by: {why}")]
    OtherKey {
        /// Which provider.
        provider: RootKind,
        /// How it shows.
        why: String,
    },
    /// The configuration of the provider can't work.
    #[error("the settings of {provider} can't work: {why}")]
    Settings {
        /// Which provider.
        provider: RootKind,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// The envelope is of another provider.
    #[error("this was wrapped by {is}, not by {wanted}: give what {is} needs")]
    OtherProvider {
        /// The kind that sealed it.
        is: RootKind,
        /// The kind that was asked.
        wanted: RootKind,
    },
    /// Something below failed: memory, random numbers, a file.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl RootError {
    /// Whether it says that the vault may not have its root key: the provider refuses, or has another.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Denied { .. } | Self::OtherKey { .. })
    }

    /// Whether it may be over later without anybody changing the vault or its settings: the provider is reached again,
    /// allows it again, or finds another credential where this one was.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Denied { .. } | Self::Unreachable { .. } | Self::Credential { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> KeystoreKey {
        KeystoreKey(Zeroizing::new([byte; 32]))
    }

    #[test]
    fn another_vault_or_purpose_derives_another_key() {
        let derive = |vault, info: &[u8]| key(1).derive(VaultId([vault; 16]), info).unwrap();
        assert_eq!(derive(1, b"a"), derive(1, b"a"));
        assert_ne!(derive(1, b"a"), derive(2, b"a"));
        assert_ne!(derive(1, b"a"), derive(1, b"b"));
    }

    #[test]
    fn only_32_bytes_are_a_keystore_key_and_it_shows_none_of_them() {
        for length in [0, 31, 33, 64] {
            assert!(KeystoreKey::from_unwrapped(Zeroizing::new(vec![7; length])).is_none());
        }
        let key = KeystoreKey::from_unwrapped(Zeroizing::new(vec![7; 32])).unwrap();
        assert_eq!((key.expose(), format!("{key:?}")), (&[7; 32], "KeystoreKey(..)".to_owned()));
    }

    #[test]
    fn kinds_are_known_by_their_numbers_and_no_others_are() {
        let known: Vec<_> = (0..=u8::MAX).filter_map(RootKind::from_number).collect();
        assert_eq!(known, RootKind::ALL);
        assert_eq!(RootKind::ALL.map(RootKind::number), [1, 2, 3, 4, 5]);
    }
}
