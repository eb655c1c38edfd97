//! The root key, and the provider that keeps it in a file sealed under a passphrase.

use std::fmt;
use std::path::Path;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use ring::{digest, hkdf};
use strongroom_ids::VaultId;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::disk;
use crate::error::KeyError;
use crate::random;
use crate::seal::{self, SUITE};
use crate::secret::{self, Passphrase, RawKey};

/// The file's name.
const FILE: &str = "root-key";
const MAGIC: &[u8; 8] = b"SR-ROOT\n";
const FORMAT: u8 = 1;
/// Magic, format, suite, cost, salt: in the clear and authenticated.
const HEAD: usize = 8 + 1 + 1 + 4 + 4 + 4 + 16;
const NONCE: usize = 12;
/// The root key and its tag.
const SEALED: usize = 32 + 16;
const CHECKSUM: usize = 32;
const LENGTH: usize = HEAD + NONCE + SEALED + CHECKSUM;

/// The key from which a keystore's own keys are derived: 256 random bits. Wiped on drop.
pub struct RootKey(RawKey);

/// What deriving a key from a passphrase costs (Argon2id, RFC 9106). Kept beside the salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgonCost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// How often it is filled.
    pub passes: u32,
    /// In how many independent lanes.
    pub lanes: u32,
}

impl ArgonCost {
    /// The second recommended option of RFC 9106 section 4: 64 MiB, 3 passes, 4 lanes.
    pub const DEFAULT: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 };

    /// The least that Argon2 takes. For tests: it protects no passphrase.
    pub const LEAST: Self = Self { memory_kib: 8, passes: 1, lanes: 1 };

    /// What a changed file may cost at most before it is refused: 2 GiB, 64 passes, 64 lanes.
    const MOST: Self = Self { memory_kib: 2 * 1024 * 1024, passes: 64, lanes: 64 };

    fn params(self) -> Result<Params, KeyError> {
        if !(1..=Self::MOST.lanes).contains(&self.lanes) {
            return Err(KeyError::CostOutOfBounds("it has 1 to 64 lanes"));
        }
        if !(1..=Self::MOST.passes).contains(&self.passes) {
            return Err(KeyError::CostOutOfBounds("it takes 1 to 64 passes"));
        }
        if self.memory_kib < 8 * self.lanes || self.memory_kib > Self::MOST.memory_kib {
            return Err(KeyError::CostOutOfBounds("it takes 8 KiB a lane to 2 GiB of memory"));
        }
        Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
            .map_err(|_| KeyError::CostOutOfBounds("Argon2 does not take it"))
    }
}

impl Default for ArgonCost {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl RootKey {
    /// Derives one of a keystore's own keys, by HKDF-SHA256 (RFC 5869) with the vault's id as the salt.
    pub(crate) fn derive(&self, vault: VaultId, info: &[u8]) -> Result<RawKey, KeyError> {
        let mut key = Zeroizing::new([0; 32]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, &vault.0)
            .extract(self.0.as_slice())
            .expand(&[info], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(key.as_mut_slice()))
            // 32 bytes are far below the 8,160 that HKDF gives.
            .map_err(|_| KeyError::Exhausted("HKDF gives at most 8,160 bytes"))?;
        Ok(key)
    }
}

impl ZeroizeOnDrop for RootKey {}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(..)")
    }
}

/// Makes a random root key and keeps it in the file `root-key`, sealed under a passphrase. The directory is made if it
/// is missing. Takes as long as the cost says: call it where waiting is allowed.
///
/// # Errors
/// [`KeyError::Exists`] if there is a root key; [`KeyError::CostOutOfBounds`]; [`KeyError::Io`].
pub fn seal_new(dir: &Path, passphrase: &Passphrase, cost: ArgonCost) -> Result<RootKey, KeyError> {
    let root = RootKey(secret::new_raw_key()?);
    let head = Head { cost, salt: random::random()? };
    let bytes = encode(&root, passphrase, &head, &random::nonce()?)?;
    disk::make_dir(dir)?;
    disk::lock(dir)?.create(FILE, &bytes)?;
    Ok(root)
}

/// Opens the file `root-key`. Takes as long as the cost in it says: call it where waiting is allowed.
///
/// # Errors
/// [`KeyError::WrongPassphrase`]; [`KeyError::NoFile`]; [`KeyError::Damaged`] if the file's checksum does not match;
/// [`KeyError::CostOutOfBounds`]; [`KeyError::Unsupported`]; [`KeyError::Io`].
pub fn open(dir: &Path, passphrase: &Passphrase) -> Result<RootKey, KeyError> {
    let bytes = disk::read(dir, FILE, LENGTH as u64)?;
    decode(&bytes, passphrase)
}

/// The part of the file that is in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    cost: ArgonCost,
    salt: [u8; 16],
}

impl Head {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[FORMAT, SUITE]);
        for number in [self.cost.memory_kib, self.cost.passes, self.cost.lanes] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.salt);
        bytes
    }
}

fn encode(root: &RootKey, passphrase: &Passphrase, head: &Head, nonce: &[u8; NONCE]) -> Result<Vec<u8>, KeyError> {
    let cipher = seal::cipher(&*stretch(passphrase, head)?);
    let aad = head.encode();
    let mut bytes = aad.clone();
    bytes.extend_from_slice(nonce);
    seal::seal(&cipher, nonce, &aad, root.0.as_slice(), &mut bytes)?;
    let checksum = digest::digest(&digest::SHA256, &bytes);
    bytes.extend_from_slice(checksum.as_ref());
    Ok(bytes)
}

fn decode(bytes: &[u8], passphrase: &Passphrase) -> Result<RootKey, KeyError> {
    let file = parse(bytes)?;
    let cipher = seal::cipher(&*stretch(passphrase, &file.head)?);
    let plaintext = seal::open(&cipher, file.nonce, file.aad, file.sealed).map_err(|_| KeyError::WrongPassphrase)?;
    secret::raw_key(&plaintext).map(RootKey).ok_or(damaged("the sealed key has the wrong length"))
}

struct RootFile<'a> {
    head: Head,
    aad: &'a [u8],
    nonce: &'a [u8; NONCE],
    sealed: &'a [u8],
}

/// Takes the file apart. Its checksum tells damage from a wrong passphrase; it is no secret and proves nothing else.
fn parse(bytes: &[u8]) -> Result<RootFile<'_>, KeyError> {
    if !bytes.starts_with(MAGIC) {
        return Err(damaged("it does not begin as a root key does"));
    }
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(damaged("it is too short"))?;
    if digest::digest(&digest::SHA256, body).as_ref() != checksum {
        return Err(damaged("its checksum does not match"));
    }
    let wrong_length = || damaged("it has the wrong length");
    let (&[format, suite], _) = body.get(MAGIC.len()..).and_then(<[u8]>::split_first_chunk).ok_or_else(wrong_length)?;
    if format != FORMAT || suite != SUITE {
        return Err(KeyError::Unsupported { file: FILE, format, suite });
    }
    let (aad, rest) = body.split_at_checked(HEAD).ok_or_else(wrong_length)?;
    let (nonce, sealed) = rest.split_first_chunk().ok_or_else(wrong_length)?;
    if sealed.len() != SEALED {
        return Err(wrong_length());
    }
    let head = parse_head(aad).ok_or_else(wrong_length)?;
    Ok(RootFile { head, aad, nonce, sealed })
}

fn parse_head(aad: &[u8]) -> Option<Head> {
    let (_, rest) = aad.split_at_checked(MAGIC.len() + 2)?;
    let (memory, rest) = rest.split_first_chunk()?;
    let (passes, rest) = rest.split_first_chunk()?;
    let (lanes, salt) = rest.split_first_chunk()?;
    let cost = ArgonCost {
        memory_kib: u32::from_be_bytes(*memory),
        passes: u32::from_be_bytes(*passes),
        lanes: u32::from_be_bytes(*lanes),
    };
    Some(Head { cost, salt: salt.try_into().ok()? })
}

/// Argon2id, version 1.3, over the passphrase and salt.
fn stretch(passphrase: &Passphrase, head: &Head) -> Result<RawKey, KeyError> {
    let params = head.cost.params()?;
    let mut memory: Zeroizing<Vec<Block>> = Zeroizing::new(Vec::new());
    memory.try_reserve_exact(params.block_count()).map_err(|_| {
        KeyError::Exhausted("the passphrase's Argon2id cost takes more memory than there is; free some")
    })?;
    memory.resize(params.block_count(), Block::default());
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(passphrase.as_bytes(), &head.salt, key.as_mut_slice(), memory.as_mut_slice())
        // What Argon2 may refuse was checked above, but for a passphrase of 4 GiB.
        .map_err(|_| KeyError::CostOutOfBounds("Argon2 does not take it"))?;
    Ok(key)
}

fn damaged(what: &'static str) -> KeyError {
    KeyError::Damaged { file: FILE, what }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(text.to_owned()).unwrap()
    }

    fn file() -> Vec<u8> {
        let root = RootKey(Zeroizing::new([1; 32]));
        let head = Head { cost: ArgonCost::LEAST, salt: [2; 16] };
        encode(&root, &passphrase("right"), &head, &[3; 12]).unwrap()
    }

    /// Gives the file a checksum that matches again.
    fn summed(mut file: Vec<u8>) -> Vec<u8> {
        file.truncate(LENGTH - CHECKSUM);
        let sum = digest::digest(&digest::SHA256, &file);
        file.extend_from_slice(sum.as_ref());
        file
    }

    #[test]
    fn the_passphrase_opens_the_key_that_it_sealed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("keystore");
        let made = seal_new(&dir, &passphrase("right"), ArgonCost::LEAST).unwrap();
        assert_eq!(open(&dir, &passphrase("right")).unwrap().0, made.0);
    }

    #[test]
    fn the_customary_cost_is_taken() {
        let temp = tempfile::tempdir().unwrap();
        let made = seal_new(temp.path(), &passphrase("right"), ArgonCost::DEFAULT).unwrap();
        assert_eq!(open(temp.path(), &passphrase("right")).unwrap().0, made.0);
    }

    #[test]
    fn another_passphrase_is_told_from_damage() {
        let temp = tempfile::tempdir().unwrap();
        seal_new(temp.path(), &passphrase("right"), ArgonCost::LEAST).unwrap();
        assert_eq!(open(temp.path(), &passphrase("wrong")).unwrap_err(), KeyError::WrongPassphrase);
    }

    #[test]
    fn a_second_root_key_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        seal_new(temp.path(), &passphrase("right"), ArgonCost::LEAST).unwrap();
        let again = seal_new(temp.path(), &passphrase("other"), ArgonCost::LEAST);
        assert_eq!(again.unwrap_err(), KeyError::Exists { file: "root-key" });
        assert!(open(temp.path(), &passphrase("right")).is_ok());
    }

    #[test]
    fn no_root_key_is_a_missing_file() {
        let temp = tempfile::tempdir().unwrap();
        assert!(matches!(open(temp.path(), &passphrase("right")), Err(KeyError::NoFile { file: "root-key", .. })));
    }

    #[test]
    fn costs_out_of_bounds_are_refused_before_any_work() {
        let least = ArgonCost::LEAST;
        for cost in [
            ArgonCost { memory_kib: 7, ..least },
            ArgonCost { memory_kib: 15, lanes: 2, ..least },
            ArgonCost { memory_kib: 2 * 1024 * 1024 + 1, ..least },
            ArgonCost { memory_kib: u32::MAX, ..least },
            ArgonCost { passes: 0, ..least },
            ArgonCost { passes: 65, ..least },
            ArgonCost { lanes: 0, ..least },
            ArgonCost { lanes: 65, memory_kib: 10_000, ..least },
            ArgonCost { lanes: u32::MAX, memory_kib: u32::MAX, ..least },
        ] {
            assert!(matches!(cost.params(), Err(KeyError::CostOutOfBounds(_))), "{cost:?}");
        }
        assert!(ArgonCost::LEAST.params().is_ok());
        assert!(ArgonCost::DEFAULT.params().is_ok());
        assert!(ArgonCost::MOST.params().is_ok());
    }

    #[test]
    fn an_unknown_format_or_suite_is_named() {
        for at in [8, 9] {
            let mut changed = file();
            changed[at] = 9;
            let error = decode(&summed(changed), &passphrase("right")).unwrap_err();
            assert!(matches!(error, KeyError::Unsupported { file: "root-key", .. }));
        }
    }

    #[test]
    fn a_changed_salt_cost_nonce_or_key_does_not_open_even_with_a_new_checksum() {
        // The last byte of each number of the cost, and every byte from the salt to the tag.
        for at in [13, 17].into_iter().chain(22..LENGTH - CHECKSUM) {
            let mut changed = file();
            changed[at] ^= 2;
            let error = decode(&summed(changed), &passphrase("right")).unwrap_err();
            assert_eq!(error, KeyError::WrongPassphrase, "byte {at}");
        }
    }

    #[test]
    fn another_vault_or_purpose_derives_another_key() {
        let root = RootKey(Zeroizing::new([1; 32]));
        let derive = |vault, info: &[u8]| root.derive(VaultId([vault; 16]), info).unwrap();
        assert_eq!(derive(1, b"a"), derive(1, b"a"));
        assert_ne!(derive(1, b"a"), derive(2, b"a"));
        assert_ne!(derive(1, b"a"), derive(1, b"b"));
    }

    proptest! {
        #[test]
        fn a_changed_bit_is_damage(at in 0..LENGTH, bit in 0..8u8) {
            let mut changed = file();
            changed[at] ^= 1 << bit;
            let error = decode(&changed, &passphrase("right")).unwrap_err();
            let damaged = matches!(error, KeyError::Damaged { file: "root-key", .. });
            prop_assert!(damaged);
        }

        #[test]
        fn a_shorter_file_is_damage_even_with_a_new_checksum(length in 0..LENGTH - CHECKSUM) {
            let mut short = file()[..length].to_vec();
            let sum = digest::digest(&digest::SHA256, &short);
            short.extend_from_slice(sum.as_ref());
            prop_assert!(decode(&short, &passphrase("right")).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_open(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes, &passphrase("right")).is_err());
            let magic = [&MAGIC[..], &bytes].concat();
            prop_assert!(decode(&magic, &passphrase("right")).is_err());
        }

        #[test]
        fn arbitrary_heads_never_panic(bytes in vec(any::<u8>(), 0..100)) {
            if let Some(head) = parse_head(&bytes) {
                prop_assert_eq!(&head.encode()[10..], &bytes[10..]);
                let _ = head.cost.params();
            }
        }
    }
}
