//! Token keys: an opaque token is one AES-256 block under them.

use std::fmt;

use aes::Aes256;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use strongroom_ids::{KeyVersion, RowId};
use zeroize::ZeroizeOnDrop;

use crate::secret::RawKey;
use crate::stack;

/// One version of a tenant's token key. Wiped on drop.
///
/// A single block needs no mode: no block is encrypted twice, since no row id is used twice, so blocks cannot be told
/// from random ones without the key. Nothing authenticates a block: the 64 random bits inside do, which the row keeps.
pub struct TokenKey {
    version: KeyVersion,
    cipher: Aes256,
}

impl TokenKey {
    pub(crate) fn new(version: KeyVersion, raw: &RawKey) -> Self {
        let raw: &[u8; 32] = raw;
        Self { version, cipher: Aes256::new(raw.into()) }
    }

    /// Which version it is.
    pub fn version(&self) -> KeyVersion {
        self.version
    }

    /// The block of a row id and the row's 64 random bits.
    pub fn encrypt(&self, row: RowId, check: [u8; 8]) -> [u8; 16] {
        let mut block = [0; 16];
        block[..8].copy_from_slice(&row.0.to_be_bytes());
        block[8..].copy_from_slice(&check);
        let mut block = block.into();
        stack::wiped(|| self.cipher.encrypt_block(&mut block));
        block.into()
    }

    /// The row id and the 64 bits in a block. Any block gives some: compare the bits with the row's in constant time.
    pub fn decrypt(&self, block: [u8; 16]) -> (RowId, [u8; 8]) {
        let mut block = block.into();
        stack::wiped(|| self.cipher.decrypt_block(&mut block));
        let number = u128::from_be_bytes(block.into());
        (RowId((number >> 64) as u64), (number as u64).to_be_bytes())
    }
}

/// The cipher wipes itself (the `zeroize` feature of `aes`).
impl ZeroizeOnDrop for TokenKey {}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("version", &self.version).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use super::*;

    fn key() -> TokenKey {
        TokenKey::new(KeyVersion(1), &Zeroizing::new(std::array::from_fn(|index| index as u8)))
    }

    #[test]
    fn the_example_of_fips_197_appendix_c3_comes_out() {
        let block = key().encrypt(RowId(0x0011_2233_4455_6677), 0x8899_aabb_ccdd_eeff_u64.to_be_bytes());
        assert_eq!(u128::from_be_bytes(block), 0x8ea2_b7ca_5167_45bf_eafc_4990_4b49_6089);
    }

    proptest! {
        #[test]
        fn a_block_gives_back_its_row_and_check(row: u64, check: [u8; 8]) {
            let block = key().encrypt(RowId(row), check);
            prop_assert_eq!(key().decrypt(block), (RowId(row), check));
        }

        #[test]
        fn every_block_is_the_block_of_something(block: [u8; 16]) {
            let (row, check) = key().decrypt(block);
            prop_assert_eq!(key().encrypt(row, check), block);
        }
    }
}
