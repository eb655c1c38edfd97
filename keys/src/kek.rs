//! Key encryption keys: they wrap DEKs.

use std::fmt;
use std::sync::Arc;

use strongroom_ids::{KeyVersion, KeyringNo, TenantId};
use zeroize::ZeroizeOnDrop;

use crate::dek::Dek;
use crate::error::KeyError;
use crate::place::DekPlace;
use crate::seal::{self, Cipher, Format};
use crate::secret::{self, RawKey};
use crate::stack;

/// How often one version of a KEK may wrap a DEK.
///
/// SP 800-38D section 8.3: at most 2^32 random nonces a key, so that two of them meet with a probability below 2^-32.
/// Whoever wraps counts durably; this crate does not.
pub const KEK_SEAL_LIMIT: u64 = 1 << 32;

/// One version of the key encryption key (KEK) of a tenant's keyring. Wiped on drop.
pub struct Kek {
    tenant: TenantId,
    keyring: KeyringNo,
    version: KeyVersion,
    cipher: Cipher,
}

impl Kek {
    pub(crate) fn new(tenant: TenantId, keyring: KeyringNo, version: KeyVersion, raw: &RawKey) -> Self {
        Self { tenant, keyring, version, cipher: seal::cipher(raw) }
    }

    /// Which version it is.
    pub fn version(&self) -> KeyVersion {
        self.version
    }

    /// Makes a random DEK for a place. Returns it with its wrapping; counts as one sealing.
    ///
    /// # Errors
    /// As [`Kek::wrap`].
    pub fn new_dek(&self, place: &DekPlace) -> Result<(Arc<Dek>, Vec<u8>), KeyError> {
        stack::wiped(|| {
            let dek = Arc::new(Dek::new(secret::new_raw_key()?));
            let wrapped = self.wrap(place, &dek)?;
            Ok((dek, wrapped))
        })
    }

    /// Wraps a DEK for its place, in 62 bytes; counts as one sealing.
    ///
    /// # Errors
    /// [`KeyError::WrongKek`] if the place is of another tenant or keyring; [`KeyError::Random`] if the system gives no
    /// nonce.
    pub fn wrap(&self, place: &DekPlace, dek: &Dek) -> Result<Vec<u8>, KeyError> {
        if place.tenant != self.tenant || place.keyring != self.keyring {
            return Err(KeyError::WrongKek);
        }
        seal::seal_blob(&self.cipher, Format::Dek, &place.aad(self.version), dek.raw())
    }

    /// Wraps anew, for the same place, a DEK that an older version wrapped; counts as one sealing.
    ///
    /// # Errors
    /// As [`Kek::wrap`], and [`KeyError::CannotOpen`] as [`Kek::unwrap`].
    pub fn rewrap(&self, older: &Self, place: &DekPlace, wrapped: &[u8]) -> Result<Vec<u8>, KeyError> {
        if place.tenant != self.tenant || place.keyring != self.keyring {
            return Err(KeyError::WrongKek);
        }
        stack::wiped(|| {
            let plaintext = seal::open_blob(&older.cipher, Format::Dek, &place.aad(older.version), wrapped)?;
            let raw = secret::raw_key(plaintext.as_bytes()).ok_or(KeyError::CannotOpen)?;
            seal::seal_blob(&self.cipher, Format::Dek, &place.aad(self.version), raw.as_slice())
        })
    }

    /// Unwraps a DEK that was wrapped for this place by this version.
    ///
    /// # Errors
    /// [`KeyError::CannotOpen`] if the blob was changed, or was wrapped for another place or by another KEK.
    pub fn unwrap(&self, place: &DekPlace, wrapped: &[u8]) -> Result<Arc<Dek>, KeyError> {
        stack::wiped(|| {
            let plaintext = seal::open_blob(&self.cipher, Format::Dek, &place.aad(self.version), wrapped)?;
            secret::raw_key(plaintext.as_bytes()).map(|raw| Arc::new(Dek::new(raw))).ok_or(KeyError::CannotOpen)
        })
    }
}

/// The cipher wipes itself.
impl ZeroizeOnDrop for Kek {}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kek").field("keyring", &self.keyring).field("version", &self.version).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use strongroom_ids::{DekVersion, FieldNo, RowId, RowVersion, SubjectHandle};
    use zeroize::Zeroizing;

    use super::*;
    use crate::place::tests::dek_place;
    use crate::place::{DekOwner, Sealed, ValuePlace};

    const TENANT: TenantId = TenantId([1; 16]);

    fn kek(version: u32) -> Kek {
        Kek::new(TENANT, KeyringNo(2), KeyVersion(version), &Zeroizing::new([version as u8; 32]))
    }

    fn place() -> DekPlace {
        let owner = DekOwner::Subject(SubjectHandle(3));
        DekPlace { tenant: TENANT, keyring: KeyringNo(2), owner, version: DekVersion(4) }
    }

    fn unwraps_only_here(elsewhere: DekPlace) {
        let (_, wrapped) = kek(1).new_dek(&place()).unwrap();
        assert!(kek(1).unwrap(&place(), &wrapped).is_ok());
        assert_eq!(kek(1).unwrap(&elsewhere, &wrapped).unwrap_err(), KeyError::CannotOpen);
    }

    #[test]
    fn a_dek_moved_to_another_owner_does_not_unwrap() {
        unwraps_only_here(DekPlace { owner: DekOwner::Subject(SubjectHandle(4)), ..place() });
        unwraps_only_here(DekPlace { owner: DekOwner::Value(RowId(3)), ..place() });
    }

    #[test]
    fn a_dek_moved_to_another_version_does_not_unwrap() {
        unwraps_only_here(DekPlace { version: DekVersion(5), ..place() });
    }

    #[test]
    fn a_dek_moved_to_another_tenant_or_keyring_does_not_unwrap() {
        unwraps_only_here(DekPlace { tenant: TenantId([2; 16]), ..place() });
        unwraps_only_here(DekPlace { keyring: KeyringNo(3), ..place() });
    }

    #[test]
    fn a_kek_wraps_for_no_other_tenant_or_keyring() {
        for elsewhere in
            [DekPlace { tenant: TenantId([2; 16]), ..place() }, DekPlace { keyring: KeyringNo(3), ..place() }]
        {
            assert_eq!(kek(1).new_dek(&elsewhere).unwrap_err(), KeyError::WrongKek);
        }
    }

    #[test]
    fn the_same_key_as_another_kek_version_does_not_unwrap() {
        let (_, wrapped) = kek(1).new_dek(&place()).unwrap();
        let renamed = Kek::new(TENANT, KeyringNo(2), KeyVersion(2), &Zeroizing::new([1; 32]));
        assert_eq!(renamed.unwrap(&place(), &wrapped).unwrap_err(), KeyError::CannotOpen);
    }

    #[test]
    fn a_dek_wrapped_anew_by_a_newer_kek_opens_the_old_values() {
        let (dek, wrapped) = kek(1).new_dek(&place()).unwrap();
        let at = ValuePlace {
            tenant: TENANT,
            field: FieldNo(1),
            row: RowId(9),
            subject: SubjectHandle(3),
            owner: place().owner,
            keyring: KeyringNo(2),
            dek_version: DekVersion(4),
            row_version: RowVersion(1),
            what: Sealed::Value,
        };
        let blob = dek.seal(&at, b"value").unwrap();
        let rewrapped = kek(2).wrap(&place(), &kek(1).unwrap(&place(), &wrapped).unwrap()).unwrap();
        assert_eq!(rewrapped.len(), 62);
        let again = kek(2).unwrap(&place(), &rewrapped).unwrap();
        assert_eq!(again.open(&at, &blob).unwrap().as_bytes(), b"value");
        assert!(kek(1).unwrap(&place(), &rewrapped).is_err());
    }

    #[test]
    fn a_rewrapped_dek_is_the_same_under_the_newer_version_only() {
        let (dek, wrapped) = kek(1).new_dek(&place()).unwrap();
        let anew = kek(2).rewrap(&kek(1), &place(), &wrapped).unwrap();
        assert_eq!(kek(2).unwrap(&place(), &anew).unwrap().raw(), dek.raw());
        assert_eq!(kek(1).unwrap(&place(), &anew).unwrap_err(), KeyError::CannotOpen);
        let elsewhere = DekPlace { version: DekVersion(5), ..place() };
        assert_eq!(kek(2).rewrap(&kek(1), &elsewhere, &wrapped).unwrap_err(), KeyError::CannotOpen);
        let other = DekPlace { keyring: KeyringNo(3), ..place() };
        assert_eq!(kek(2).rewrap(&kek(1), &other, &wrapped).unwrap_err(), KeyError::WrongKek);
    }

    #[test]
    fn two_new_deks_are_two_keys() {
        let (one, _) = kek(1).new_dek(&place()).unwrap();
        let (other, _) = kek(1).new_dek(&place()).unwrap();
        assert_ne!(one.raw(), other.raw());
    }

    #[test]
    fn what_holds_no_32_bytes_is_no_dek() {
        let short = seal::seal_blob(&kek(1).cipher, Format::Dek, &place().aad(KeyVersion(1)), &[0; 31]).unwrap();
        assert_eq!(kek(1).unwrap(&place(), &short).unwrap_err(), KeyError::CannotOpen);
    }

    proptest! {
        #[test]
        fn a_dek_unwraps_in_its_own_place_and_in_no_other(here in dek_place(), there in dek_place()) {
            let here = DekPlace { tenant: TENANT, keyring: KeyringNo(2), ..here };
            let there = DekPlace { tenant: TENANT, keyring: KeyringNo(2), ..there };
            let (dek, wrapped) = kek(1).new_dek(&here).unwrap();
            let unwrapped = kek(1).unwrap(&here, &wrapped).unwrap();
            prop_assert_eq!(unwrapped.raw(), dek.raw());
            prop_assert!(here == there || kek(1).unwrap(&there, &wrapped).is_err());
        }
    }
}
