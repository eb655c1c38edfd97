//! Index keys: keyed hashes by which equal values find each other.

use std::fmt;
use std::sync::Arc;

use ring::hmac;
use strongroom_ids::KeyVersion;

use crate::secret::RawKey;

/// One version of a blind index's key.
pub struct IndexKey {
    version: KeyVersion,
    key: hmac::Key,
}

impl IndexKey {
    pub(crate) fn new(version: KeyVersion, raw: &RawKey) -> Self {
        Self { version, key: hmac::Key::new(hmac::HMAC_SHA256, raw.as_slice()) }
    }

    /// Which version it is.
    pub fn version(&self) -> KeyVersion {
        self.version
    }

    /// HMAC-SHA256 (RFC 2104) over the parts, each behind its length as eight big-endian bytes, so that no two lists
    /// of parts are the same input.
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut mac = [0; 32];
        mac.copy_from_slice(context.sign().as_ref());
        mac
    }
}

impl fmt::Debug for IndexKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexKey").field("version", &self.version).finish_non_exhaustive()
    }
}

/// The versions of an index key that may be used: the newest makes entries, and all of them follow those that there are.
#[derive(Clone, Debug)]
pub struct IndexKeys {
    newest: Arc<IndexKey>,
    older: Vec<Arc<IndexKey>>,
}

impl IndexKeys {
    /// `older` from the newest of them to the oldest.
    pub(crate) fn new(newest: Arc<IndexKey>, older: Vec<Arc<IndexKey>>) -> Self {
        Self { newest, older }
    }

    /// The version that makes what is new.
    pub fn newest(&self) -> &IndexKey {
        &self.newest
    }

    /// The versions before it, under which there may be entries still; the newest of them first.
    pub fn older(&self) -> impl Iterator<Item = &IndexKey> {
        self.older.iter().map(Arc::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use super::*;

    fn key(byte: u8) -> IndexKey {
        IndexKey::new(KeyVersion(1), &Zeroizing::new([byte; 32]))
    }

    #[test]
    fn bytes_that_move_from_one_part_to_the_next_give_another_mac() {
        assert_ne!(key(1).mac(&[b"ab", b"c"]), key(1).mac(&[b"a", b"bc"]));
        assert_ne!(key(1).mac(&[b"abc"]), key(1).mac(&[b"abc", b""]));
        assert_ne!(key(1).mac(&[]), key(1).mac(&[b""]));
    }

    #[test]
    fn another_key_gives_another_mac() {
        assert_ne!(key(1).mac(&[b"abc"]), key(2).mac(&[b"abc"]));
    }

    proptest! {
        #[test]
        fn equal_lists_of_parts_and_no_others_give_equal_macs(one: Vec<Vec<u8>>, other: Vec<Vec<u8>>) {
            let mac = |parts: &[Vec<u8>]| key(1).mac(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert_eq!(mac(&one), mac(&one));
            prop_assert_eq!(mac(&one) == mac(&other), one == other);
        }
    }
}
