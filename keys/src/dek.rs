//! Data encryption keys: they seal values.

use std::fmt;

use zeroize::ZeroizeOnDrop;

use crate::error::KeyError;
use crate::place::ValuePlace;
use crate::seal::{self, Cipher, Format};
use crate::secret::{Plaintext, RawKey};

/// A data encryption key (DEK), expanded and ready. Wiped on drop.
///
/// A DEK belongs to one subject and keyring, or to one value, so it stays far below the 2^32 sealings that random
/// nonces allow (SP 800-38D section 8.3).
pub struct Dek {
    cipher: Cipher,
    /// The key itself, so that it can be wrapped again by a newer KEK.
    raw: RawKey,
}

impl Dek {
    pub(crate) fn new(raw: RawKey) -> Self {
        Self { cipher: seal::cipher(&raw), raw }
    }

    pub(crate) fn raw(&self) -> &[u8; 32] {
        &self.raw
    }

    /// Seals a value for its place. The blob is 30 bytes longer than the value.
    ///
    /// # Errors
    /// [`KeyError::Random`] if the system gives no nonce; [`KeyError::TooLong`] above 2^36 - 32 bytes.
    pub fn seal(&self, place: &ValuePlace, plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
        seal::seal_blob(&self.cipher, Format::Value, &place.aad(), plaintext)
    }

    /// Opens a value that was sealed for this place.
    ///
    /// # Errors
    /// [`KeyError::CannotOpen`] if the blob was changed, or was sealed for another place or by another key.
    pub fn open(&self, place: &ValuePlace, blob: &[u8]) -> Result<Plaintext, KeyError> {
        seal::open_blob(&self.cipher, Format::Value, &place.aad(), blob)
    }
}

/// The cipher and the raw key wipe themselves.
impl ZeroizeOnDrop for Dek {}

impl fmt::Debug for Dek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dek(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use strongroom_ids::{DekVersion, FieldNo, KeyringNo, RowId, RowVersion, SubjectHandle, TenantId};
    use zeroize::Zeroizing;

    use super::*;
    use crate::place::tests::value_place;
    use crate::place::{DekOwner, Sealed};

    fn dek() -> Dek {
        Dek::new(Zeroizing::new([5; 32]))
    }

    fn place() -> ValuePlace {
        ValuePlace {
            tenant: TenantId([1; 16]),
            field: FieldNo(2),
            row: RowId(3),
            subject: SubjectHandle(4),
            owner: DekOwner::Subject(SubjectHandle(4)),
            keyring: KeyringNo(5),
            dek_version: DekVersion(6),
            row_version: RowVersion(7),
            what: Sealed::Value,
        }
    }

    fn opens_only_here(elsewhere: ValuePlace) {
        let blob = dek().seal(&place(), b"value").unwrap();
        assert_eq!(dek().open(&place(), &blob).unwrap().as_bytes(), b"value");
        assert_eq!(dek().open(&elsewhere, &blob).unwrap_err(), KeyError::CannotOpen);
    }

    #[test]
    fn a_value_moved_to_another_tenant_does_not_open() {
        opens_only_here(ValuePlace { tenant: TenantId([2; 16]), ..place() });
    }

    #[test]
    fn a_value_moved_to_another_field_does_not_open() {
        opens_only_here(ValuePlace { field: FieldNo(3), ..place() });
    }

    #[test]
    fn a_value_moved_to_another_row_does_not_open() {
        opens_only_here(ValuePlace { row: RowId(4), ..place() });
    }

    #[test]
    fn a_value_moved_to_another_subject_does_not_open() {
        opens_only_here(ValuePlace { subject: SubjectHandle(5), ..place() });
    }

    #[test]
    fn a_value_under_another_owners_dek_does_not_open() {
        opens_only_here(ValuePlace { owner: DekOwner::Subject(SubjectHandle(5)), ..place() });
        opens_only_here(ValuePlace { owner: DekOwner::Value(RowId(4)), ..place() });
    }

    #[test]
    fn a_value_moved_to_another_keyring_does_not_open() {
        opens_only_here(ValuePlace { keyring: KeyringNo(6), ..place() });
    }

    #[test]
    fn a_value_under_another_dek_version_does_not_open() {
        opens_only_here(ValuePlace { dek_version: DekVersion(7), ..place() });
    }

    #[test]
    fn an_older_writing_of_a_row_does_not_open_as_the_newer() {
        opens_only_here(ValuePlace { row_version: RowVersion(8), ..place() });
    }

    #[test]
    fn a_sealed_token_does_not_open_as_a_value() {
        opens_only_here(ValuePlace { what: Sealed::Token, ..place() });
        opens_only_here(ValuePlace { what: Sealed::SubjectId, ..place() });
    }

    #[test]
    fn another_dek_opens_nothing() {
        let blob = dek().seal(&place(), b"value").unwrap();
        let other = Dek::new(Zeroizing::new([6; 32]));
        assert_eq!(other.open(&place(), &blob).unwrap_err(), KeyError::CannotOpen);
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", dek()), "Dek(..)");
    }

    proptest! {
        #[test]
        fn a_value_opens_in_its_own_place_and_in_no_other(here in value_place(), there in value_place(), value: Vec<u8>) {
            let blob = dek().seal(&here, &value).unwrap();
            let opened = dek().open(&here, &blob).unwrap();
            prop_assert_eq!(opened.as_bytes(), &value);
            prop_assert!(here == there || dek().open(&there, &blob).is_err());
        }
    }
}
