//! A root key that is stretched from a passphrase: the provider `file`, which keeps nothing but a salt beside the keys.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use strongroom_ids::VaultId;
use zeroize::Zeroizing;

use super::{Envelope, KeystoreKey, RootError, RootKind, RootProvider, wrap};
use crate::error::KeyError;
use crate::keystore::damaged;
use crate::random;
use crate::secret::{Passphrase, RawKey};

/// Bytes of the salt.
const SALT: usize = 16;

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

    /// The cost that a passphrase's envelope was made at.
    ///
    /// # Errors
    /// [`RootError::OtherProvider`] if it is not a passphrase's; [`KeyError::Damaged`].
    pub fn of(envelope: &Envelope) -> Result<Self, RootError> {
        wrap::expect(RootKind::Passphrase, envelope)?;
        Ok(Stretching::decode(&envelope.parameters)?.cost)
    }

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

/// A passphrase as a provider of the root key. What it wraps is under a new salt each time.
///
/// Wrapping and unwrapping take as long as the cost says: call them where waiting is allowed.
#[derive(Debug)]
pub struct PassphraseRoot {
    passphrase: Passphrase,
    cost: ArgonCost,
}

impl PassphraseRoot {
    /// Takes the passphrase over. The cost is that of what will be wrapped; an envelope brings its own.
    pub fn new(passphrase: Passphrase, cost: ArgonCost) -> Self {
        Self { passphrase, cost }
    }
}

impl RootProvider for PassphraseRoot {
    fn kind(&self) -> RootKind {
        RootKind::Passphrase
    }

    fn wrap(&self, vault: VaultId, key: &KeystoreKey) -> Result<Envelope, RootError> {
        let stretching = Stretching { cost: self.cost, salt: random::random()? };
        let root = stretching.stretch(&self.passphrase)?;
        Ok(wrap::wrap(&root, vault, self.kind(), stretching.encode(), key)?)
    }

    fn unwrap(&self, vault: VaultId, envelope: &Envelope) -> Result<KeystoreKey, RootError> {
        wrap::expect(self.kind(), envelope)?;
        let root = Stretching::decode(&envelope.parameters)?.stretch(&self.passphrase)?;
        wrap::unwrap(&root, vault, envelope).map_err(|error| match error {
            KeyError::CannotOpen => self.kind().credential(
                "the passphrase does not open the root key: try again, and mind keyboard layout and trailing spaces",
            ),
            other => other.into(),
        })
    }
}

/// How a passphrase becomes a root key: the parameters of the envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretching {
    cost: ArgonCost,
    salt: [u8; SALT],
}

impl Stretching {
    fn encode(&self) -> Vec<u8> {
        let cost = [self.cost.memory_kib, self.cost.passes, self.cost.lanes];
        let mut bytes: Vec<u8> = cost.into_iter().flat_map(u32::to_be_bytes).collect();
        bytes.extend_from_slice(&self.salt);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let parse = || {
            let (memory, rest) = bytes.split_first_chunk()?;
            let (passes, rest) = rest.split_first_chunk()?;
            let (lanes, salt) = rest.split_first_chunk()?;
            let [memory_kib, passes, lanes] = [memory, passes, lanes].map(|number| u32::from_be_bytes(*number));
            Some(Self { cost: ArgonCost { memory_kib, passes, lanes }, salt: salt.try_into().ok()? })
        };
        parse().ok_or(damaged("the cost and salt of its passphrase have the wrong length"))
    }

    /// Argon2id, version 1.3, over the passphrase and salt.
    fn stretch(&self, passphrase: &Passphrase) -> Result<RawKey, KeyError> {
        let params = self.cost.params()?;
        let mut memory: Zeroizing<Vec<Block>> = Zeroizing::new(Vec::new());
        memory.try_reserve_exact(params.block_count()).map_err(|_| {
            KeyError::Exhausted("the passphrase's Argon2id cost takes more memory than there is; free some")
        })?;
        memory.resize(params.block_count(), Block::default());
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(
                passphrase.as_bytes(),
                &self.salt,
                key.as_mut_slice(),
                memory.as_mut_slice(),
            )
            // What Argon2 may refuse was checked above, but for a passphrase of 4 GiB.
            .map_err(|_| KeyError::CostOutOfBounds("Argon2 does not take it"))?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::root::suite;

    const VAULT: VaultId = VaultId([9; 16]);

    fn root(passphrase: &str, cost: ArgonCost) -> PassphraseRoot {
        PassphraseRoot::new(Passphrase::new(passphrase.to_owned()).unwrap(), cost)
    }

    #[test]
    fn the_suite_of_providers_holds() {
        suite::holds(&root("right", ArgonCost::LEAST), &root("wrong", ArgonCost::LEAST));
    }

    #[test]
    fn the_passphrase_opens_what_it_sealed_whatever_cost_it_is_given() {
        let key = KeystoreKey::random().unwrap();
        for (sealed_at, opened_at) in [(ArgonCost::DEFAULT, ArgonCost::LEAST), (ArgonCost::LEAST, ArgonCost::DEFAULT)] {
            let envelope = root("right", sealed_at).wrap(VAULT, &key).unwrap();
            assert_eq!(ArgonCost::of(&envelope).unwrap(), sealed_at);
            assert_eq!(root("right", opened_at).unwrap(VAULT, &envelope).unwrap().expose(), key.expose());
        }
    }

    #[test]
    fn a_wrong_passphrase_is_told_how_to_be_right() {
        let envelope = root("right", ArgonCost::LEAST).wrap(VAULT, &KeystoreKey::random().unwrap()).unwrap();
        for wrong in ["wrong", "right ", "Right", "righ"] {
            let error = root(wrong, ArgonCost::LEAST).unwrap(VAULT, &envelope).unwrap_err();
            assert!(matches!(error, RootError::Credential { provider: RootKind::Passphrase, .. }), "{error}");
            assert!(error.to_string().contains("keyboard layout") && !format!("{error:?}").contains(wrong));
        }
    }

    #[test]
    fn every_wrapping_has_a_salt_of_its_own() {
        let (root, key) = (root("right", ArgonCost::LEAST), KeystoreKey::random().unwrap());
        let salt = || root.wrap(VAULT, &key).unwrap().parameters;
        assert_ne!(salt(), salt());
    }

    #[test]
    fn a_provider_shows_no_passphrase() {
        assert!(!format!("{:?}", root("right", ArgonCost::LEAST)).contains("right"));
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
            let parameters = Stretching { cost, salt: [1; SALT] }.encode();
            let envelope = Envelope { kind: RootKind::Passphrase, parameters, wrapped: vec![0; 62] };
            let refused = root("right", least).unwrap(VAULT, &envelope).unwrap_err();
            assert!(matches!(refused, RootError::Key(KeyError::CostOutOfBounds(_))), "{refused}");
        }
        assert!(ArgonCost::LEAST.params().is_ok());
        assert!(ArgonCost::DEFAULT.params().is_ok());
        assert!(ArgonCost::MOST.params().is_ok());
    }

    proptest! {
        #[test]
        fn a_changed_bit_anywhere_keeps_an_envelope_shut(at: prop::sample::Index, bit in 0..8u8) {
            let root = root("right", ArgonCost::LEAST);
            let mut envelope = root.wrap(VAULT, &KeystoreKey::random().unwrap()).unwrap();
            // All of the wrapped key, the salt, and the lowest byte of each number of the cost: others take long.
            let cost = [3, 7, 11];
            let places = cost.len() + SALT + envelope.wrapped.len();
            match at.index(places) {
                at if at < cost.len() => envelope.parameters[cost[at]] ^= 1 << (bit % 3),
                at if at < cost.len() + SALT => envelope.parameters[12 + at - cost.len()] ^= 1 << bit,
                at => envelope.wrapped[at - cost.len() - SALT] ^= 1 << bit,
            }
            prop_assert!(root.unwrap(VAULT, &envelope).is_err());
        }

        #[test]
        fn arbitrary_parameters_never_panic_and_have_one_encoding(bytes in vec(any::<u8>(), 0..60)) {
            match Stretching::decode(&bytes) {
                Ok(stretching) => prop_assert_eq!(stretching.encode(), bytes),
                Err(error) => {
                    let damaged = matches!(error, KeyError::Damaged { file: "keys", .. });
                    prop_assert!(damaged);
                }
            }
        }
    }
}
