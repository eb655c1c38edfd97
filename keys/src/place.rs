//! Where a blob belongs: all that a sealing authenticates besides the data, in one canonical encoding.
//!
//! Each part stands behind one byte that gives its length, numbers are big-endian, and no part is ever left out, so
//! two places never have the same encoding.

use strongroom_ids::{DekVersion, FieldNo, KeyVersion, KeyringNo, RowId, RowVersion, SubjectHandle, TenantId};

use crate::seal::{Format, SUITE};

/// Whose DEK it is: a data subject's, or that of a single value without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DekOwner {
    /// All values of a subject in one keyring.
    Subject(SubjectHandle),
    /// One value, shredded by itself.
    Value(RowId),
}

impl DekOwner {
    fn kind(self) -> u8 {
        match self {
            Self::Subject(_) => 1,
            Self::Value(_) => 2,
        }
    }

    fn number(self) -> u64 {
        match self {
            Self::Subject(handle) => handle.0,
            Self::Value(row) => row.0,
        }
    }
}

/// Which DEK: with the KEK's version, the authenticated data of a wrapped DEK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DekPlace {
    /// The tenant.
    pub tenant: TenantId,
    /// The keyring, whose KEK wraps it.
    pub keyring: KeyringNo,
    /// Whose it is.
    pub owner: DekOwner,
    /// Which of the owner's in this keyring.
    pub version: DekVersion,
}

/// What is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sealed {
    /// A field value.
    Value,
    /// A token that is not opaque.
    Token,
    /// The caller's own id of a subject.
    SubjectId,
}

impl Sealed {
    fn number(self) -> u8 {
        match self {
            Self::Value => 1,
            Self::Token => 2,
            Self::SubjectId => 3,
        }
    }
}

/// Where a sealed value belongs: its authenticated data. The KEK is not in it, so a rewrap touches no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ValuePlace {
    /// The tenant.
    pub tenant: TenantId,
    /// The field; zero for a subject id.
    pub field: FieldNo,
    /// The row; zero for a subject id.
    pub row: RowId,
    /// The subject; [`SubjectHandle::NONE`] if the value has none.
    pub subject: SubjectHandle,
    /// Whose DEK seals it.
    pub owner: DekOwner,
    /// The DEK's keyring.
    pub keyring: KeyringNo,
    /// The DEK's version.
    pub dek_version: DekVersion,
    /// Which writing of the row it is.
    pub row_version: RowVersion,
    /// What is sealed.
    pub what: Sealed,
}

/// Bytes of a value's authenticated data: ten lengths and their parts.
pub(crate) const VALUE_AAD: usize = 10 + 1 + 1 + 16 + 4 + 8 + 8 + 11 + 4 + 4 + 1;

/// Bytes of a wrapped DEK's authenticated data: seven lengths and their parts.
pub(crate) const DEK_AAD: usize = 7 + 1 + 1 + 16 + 2 + 9 + 4 + 4;

impl ValuePlace {
    pub(crate) fn aad(&self) -> [u8; VALUE_AAD] {
        let mut dek = [0; 11];
        dek[..2].copy_from_slice(&self.keyring.0.to_be_bytes());
        dek[2] = self.owner.kind();
        dek[3..].copy_from_slice(&self.owner.number().to_be_bytes());
        let mut aad = Parts::new();
        aad.add([Format::Value as u8]);
        aad.add([SUITE]);
        aad.add(self.tenant.0);
        aad.add(self.field.0.to_be_bytes());
        aad.add(self.row.0.to_be_bytes());
        aad.add(self.subject.0.to_be_bytes());
        aad.add(dek);
        aad.add(self.dek_version.0.to_be_bytes());
        aad.add(self.row_version.0.to_be_bytes());
        aad.add([self.what.number()]);
        aad.finish()
    }
}

impl DekPlace {
    pub(crate) fn aad(&self, kek: KeyVersion) -> [u8; DEK_AAD] {
        let mut owner = [0; 9];
        owner[0] = self.owner.kind();
        owner[1..].copy_from_slice(&self.owner.number().to_be_bytes());
        let mut aad = Parts::new();
        aad.add([Format::Dek as u8]);
        aad.add([SUITE]);
        aad.add(self.tenant.0);
        aad.add(self.keyring.0.to_be_bytes());
        aad.add(owner);
        aad.add(self.version.0.to_be_bytes());
        aad.add(kek.0.to_be_bytes());
        aad.finish()
    }
}

/// Collects parts on the stack. All lengths are known when compiling, and the tests of every user fill it to the brim.
pub(crate) struct Parts<const N: usize> {
    bytes: [u8; N],
    filled: usize,
}

impl<const N: usize> Parts<N> {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; N], filled: 0 }
    }

    #[inline]
    pub(crate) fn add<const L: usize>(&mut self, part: [u8; L]) {
        const { assert!(L < 256) }
        self.bytes[self.filled] = L as u8;
        self.bytes[self.filled + 1..self.filled + 1 + L].copy_from_slice(&part);
        self.filled += 1 + L;
    }

    pub(crate) fn finish(self) -> [u8; N] {
        debug_assert_eq!(self.filled, N);
        self.bytes
    }
}
#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn owner() -> impl Strategy<Value = DekOwner> {
        prop_oneof![
            any::<u64>().prop_map(|number| DekOwner::Subject(SubjectHandle(number))),
            any::<u64>().prop_map(|number| DekOwner::Value(RowId(number))),
        ]
    }

    pub(crate) fn dek_place() -> impl Strategy<Value = DekPlace> {
        (any::<[u8; 16]>(), any::<u16>(), owner(), any::<u32>()).prop_map(|(tenant, keyring, owner, version)| {
            DekPlace { tenant: TenantId(tenant), keyring: KeyringNo(keyring), owner, version: DekVersion(version) }
        })
    }

    pub(crate) fn value_place() -> impl Strategy<Value = ValuePlace> {
        let what = prop::sample::select(vec![Sealed::Value, Sealed::Token, Sealed::SubjectId]);
        (dek_place(), any::<(u32, u64, u64, u32)>(), what).prop_map(|(dek, (field, row, subject, version), what)| {
            ValuePlace {
                tenant: dek.tenant,
                field: FieldNo(field),
                row: RowId(row),
                subject: SubjectHandle(subject),
                owner: dek.owner,
                keyring: dek.keyring,
                dek_version: dek.version,
                row_version: RowVersion(version),
                what,
            }
        })
    }

    fn parts(mut aad: &[u8]) -> Vec<&[u8]> {
        let mut parts = vec![];
        while let Some((length, rest)) = aad.split_first() {
            let (part, rest) = rest.split_at(usize::from(*length));
            parts.push(part);
            aad = rest;
        }
        parts
    }

    proptest! {
        #[test]
        fn a_values_place_can_be_read_back_from_its_encoding(place in value_place()) {
            let aad = place.aad();
            let keyring = place.keyring.0.to_be_bytes();
            let dek = [&keyring[..], &[place.owner.kind()], &place.owner.number().to_be_bytes()].concat();
            let expected: [&[u8]; 10] = [
                &[1], &[1], &place.tenant.0, &place.field.0.to_be_bytes(), &place.row.0.to_be_bytes(),
                &place.subject.0.to_be_bytes(), &dek, &place.dek_version.0.to_be_bytes(),
                &place.row_version.0.to_be_bytes(), &[place.what.number()],
            ];
            prop_assert_eq!(parts(&aad), expected);
        }

        #[test]
        fn a_deks_place_can_be_read_back_from_its_encoding(place in dek_place(), kek: u32) {
            let aad = place.aad(KeyVersion(kek));
            let owner = [&[place.owner.kind()][..], &place.owner.number().to_be_bytes()].concat();
            let expected: [&[u8]; 7] = [
                &[2], &[1], &place.tenant.0, &place.keyring.0.to_be_bytes(), &owner,
                &place.version.0.to_be_bytes(), &kek.to_be_bytes(),
            ];
            prop_assert_eq!(parts(&aad), expected);
        }
    }
}
