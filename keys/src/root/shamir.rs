//! A root key that lies in shares, of which some are needed (Shamir, "How to share a secret", 1979).
//!
//! ```text
//! split: random root key -> shares, one to a person     combine: enough shares -> root key
//! ```
//!
//! The root key is in memory only for as long as a [`ShamirRoot`] lives: while a keystore is sealed, and while it is
//! opened. What lies beside the keys is how many shares there are, how many are needed, and a fingerprint of each.

mod collector;
mod share;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;

use rand_core::{TryCryptoRng, TryRng};
use strongroom_ids::VaultId;
use vsss_rs::{Gf256, IdentifierGf256};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::{Envelope, KeystoreKey, RootError, RootKind, RootProvider, wrap};
use crate::error::KeyError;
use crate::keystore::damaged;
use crate::random;
use crate::secret::{self, RawKey};

pub use collector::{Progress, ShamirCollector};
pub use share::Share;
use share::{FINGERPRINT, SET};

/// A root key while it is whole: just split, or just combined. Wiped on drop; drop it as soon as the keystore is sealed
/// or open.
pub struct ShamirRoot {
    root: RawKey,
    set: ShareSet,
}

/// What everybody may know of the shares of a root key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareSet {
    threshold: u8,
    id: [u8; SET],
    /// One for each share, in the order of their numbers.
    fingerprints: Vec<[u8; FINGERPRINT]>,
}

impl ShareSet {
    /// Shares that a set has at most: more hands than that can't be kept account of.
    pub const MOST: u8 = 16;

    /// The set that an envelope was sealed by.
    ///
    /// # Errors
    /// [`RootError::OtherProvider`] if it is not sealed by shares; [`KeyError::Damaged`].
    pub fn of(envelope: &Envelope) -> Result<Self, RootError> {
        wrap::expect(RootKind::Shamir, envelope)?;
        Ok(Self::decode(&envelope.parameters).ok_or(damaged("what it says of its shares is not well formed"))?)
    }

    /// How many shares are needed.
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// How many there are.
    pub fn count(&self) -> u8 {
        u8::try_from(self.fingerprints.len()).unwrap_or(Self::MOST)
    }

    /// The set's name, in hexadecimal. Random and no secret.
    pub fn id(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.id)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.threshold, self.count()];
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(self.fingerprints.as_flattened());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[threshold, count], rest) = bytes.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk()?;
        let (fingerprints, []) = rest.as_chunks() else { return None };
        let fits = are_sound(threshold, count) && fingerprints.len() == usize::from(count);
        fits.then(|| Self { threshold, id: *id, fingerprints: fingerprints.to_vec() })
    }
}

/// One share alone would be a passphrase that nobody chose.
fn are_sound(threshold: u8, count: u8) -> bool {
    2 <= threshold && threshold <= count && count <= ShareSet::MOST
}

/// Makes a root key and splits it: of so many shares the threshold is needed.
///
/// # Errors
/// [`RootError::Settings`] if these numbers make no sense; [`KeyError::Random`]; [`KeyError::Sharing`].
pub fn split(count: u8, threshold: u8) -> Result<(ShamirRoot, Vec<Share>), RootError> {
    if !are_sound(threshold, count) {
        let why = format!(
            "{threshold} of {count} shares: at least 2 shares are needed to open, not more than there are, and there are \
             {} at most",
            ShareSet::MOST
        );
        return Err(RootKind::Shamir.settings(why));
    }
    let (root, id) = (secret::new_raw_key()?, random::random()?);
    let mut random = SystemRandom { failed: false };
    let numbers = (1..=count).map(|number| IdentifierGf256(Gf256(number)));
    let (needed, made) = (usize::from(threshold), usize::from(count));
    let points = Gf256::split_bytes_with_participant_ids_iter(needed, made, root.as_slice(), &mut random, numbers);
    let points = Zeroizing::new(points.map_err(|_| KeyError::Sharing("the root key can't be split"))?);
    if random.failed {
        return Err(KeyError::Random.into());
    }
    let shares: Option<Vec<Share>> = points.iter().map(|point| Share::from_point(id, threshold, point)).collect();
    let shares = shares.ok_or(KeyError::Sharing("a share has the wrong length"))?;
    // Before anything is sealed under them: the first ones and the last ones give back what was split.
    for some in [shares.get(..needed), shares.get(made - needed..)] {
        if *combine(some.unwrap_or_default())? != *root {
            return Err(KeyError::Sharing("the shares don't give back what was split").into());
        }
    }
    let fingerprints = shares.iter().map(Share::fingerprint).collect();
    Ok((ShamirRoot { root, set: ShareSet { threshold, id, fingerprints } }, shares))
}

/// Combines as many shares as are needed.
fn combine(shares: &[Share]) -> Result<RawKey, KeyError> {
    let points = Zeroizing::new(shares.iter().map(Share::point).collect::<Vec<_>>());
    let root = Gf256::combine_bytes(points.as_slice()).map(Zeroizing::new);
    let root = root.map_err(|_| KeyError::Sharing("these shares can't be combined"))?;
    secret::raw_key(&root).ok_or(KeyError::Sharing("these shares can't be combined"))
}

impl ShamirRoot {
    /// What everybody may know of its shares.
    pub fn set(&self) -> &ShareSet {
        &self.set
    }
}

impl RootProvider for ShamirRoot {
    fn kind(&self) -> RootKind {
        RootKind::Shamir
    }

    fn wrap(&self, vault: VaultId, key: &KeystoreKey) -> Result<Envelope, RootError> {
        Ok(wrap::wrap(&self.root, vault, self.kind(), self.set.encode(), key)?)
    }

    fn unwrap(&self, vault: VaultId, envelope: &Envelope) -> Result<KeystoreKey, RootError> {
        if ShareSet::of(envelope)? != self.set {
            return Err(self.kind().other_key("it was sealed with another set of shares"));
        }
        wrap::unwrap(&self.root, vault, envelope).map_err(|error| match error {
            KeyError::CannotOpen => self.kind().other_key("the root key of these shares does not open it"),
            other => other.into(),
        })
    }
}

impl ZeroizeOnDrop for ShamirRoot {}

impl fmt::Debug for ShamirRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShamirRoot").field("set", &self.set).finish_non_exhaustive()
    }
}

/// The system's random bytes for the crate that splits, which asks through a trait that can't fail. So a failure is
/// noted, and what was split meanwhile is thrown away.
struct SystemRandom {
    failed: bool,
}

impl SystemRandom {
    fn bytes<const N: usize>(&mut self) -> Zeroizing<[u8; N]> {
        let mut bytes = Zeroizing::new([0; N]);
        self.failed |= random::fill(bytes.as_mut_slice()).is_err();
        bytes
    }
}

impl TryRng for SystemRandom {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(*self.bytes()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(*self.bytes()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.failed |= random::fill(bytes).is_err();
        Ok(())
    }
}

impl TryCryptoRng for SystemRandom {}
