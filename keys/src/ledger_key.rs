//! Ledger keys: they sign checkpoints, heads and receipts.

use std::fmt;
use std::sync::Arc;

use ring::signature::{Ed25519KeyPair, KeyPair};
use strongroom_ids::KeyVersion;

use crate::secret::RawKey;

/// One version of a log's signing key, Ed25519 (RFC 8032).
pub struct LedgerKey {
    version: KeyVersion,
    pair: Ed25519KeyPair,
}

impl LedgerKey {
    /// `None` if `ring` refuses the seed, which it does for no 32 bytes.
    pub(crate) fn new(version: KeyVersion, seed: &RawKey) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).ok()?;
        Some(Self { version, pair })
    }

    /// Which version it is.
    pub fn version(&self) -> KeyVersion {
        self.version
    }

    /// Signs a message. Domains are separated by the caller: what is signed must say what it is.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }

    /// The public key, as RFC 8032 encodes it.
    pub fn public_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        key
    }
}

/// The versions of a log's key that sign: the newest signs alone what is made to last (receipts, manifests, head files), and
/// those that it replaced sign checkpoints along with it, for whoever still holds only their public half.
#[derive(Clone, Debug)]
pub struct LedgerKeys {
    newest: Arc<LedgerKey>,
    older: Vec<Arc<LedgerKey>>,
}

impl LedgerKeys {
    /// `older` from the newest of them to the oldest.
    pub(crate) fn new(newest: Arc<LedgerKey>, older: Vec<Arc<LedgerKey>>) -> Self {
        Self { newest, older }
    }

    /// The version that signs alone.
    pub fn newest(&self) -> &Arc<LedgerKey> {
        &self.newest
    }

    /// All that sign a checkpoint, the newest first.
    pub fn all(&self) -> Vec<&LedgerKey> {
        std::iter::once(&self.newest).chain(&self.older).map(Arc::as_ref).collect()
    }
}

impl fmt::Debug for LedgerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LedgerKey").field("version", &self.version).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use ring::signature::{ED25519, UnparsedPublicKey};
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn the_first_example_of_rfc_8032_comes_out() {
        let seed = HEXLOWER.decode(b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = LedgerKey::new(KeyVersion(1), &Zeroizing::new(seed.try_into().unwrap())).unwrap();
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(HEXLOWER.encode(&key.public_key()), public);
        let signature = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd\
                         25bf5f0595bbe24655141438e7a100b";
        assert_eq!(HEXLOWER.encode(&key.sign(b"")), signature);
    }

    #[test]
    fn a_signature_holds_for_its_message_only() {
        let key = LedgerKey::new(KeyVersion(1), &Zeroizing::new([7; 32])).unwrap();
        let public = UnparsedPublicKey::new(&ED25519, key.public_key());
        let signature = key.sign(b"checkpoint");
        assert!(public.verify(b"checkpoint", &signature).is_ok());
        assert!(public.verify(b"another", &signature).is_err());
    }
}
