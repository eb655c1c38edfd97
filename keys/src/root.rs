//! The root key, and who keeps it.
//!
//! A root key never leaves its provider. It wraps the *keystore key*: 256 random bits from which a keystore derives the
//! keys that it keeps itself by. What comes of the wrapping is an [`Envelope`]; it stands in the keystore's own file, so
//! that both are always replaced together.

use std::fmt;

use strongroom_ids::VaultId;
use thiserror::Error;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::error::KeyError;
use crate::secret::{self, RawKey};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// The key from which a keystore's own keys are derived: 256 random bits. Wiped on drop.
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
        let mut key = Zeroizing::new([0; 32]);
        (bytes.len() == key.len()).then(|| key.copy_from_slice(&bytes))?;
        Some(Self(key))
    }

    /// For providers only: what is to be wrapped.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
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
    #[error("{provider} denies the root key: {why}")]
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
    #[error("{provider} has another root key than the one that this vault's keystore was sealed with: {why}")]
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
    #[error("the keystore is sealed by {is}, not by {wanted}: set [root] provider to \"{is}\"")]
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
