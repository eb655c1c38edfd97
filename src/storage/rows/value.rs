//! A value's row: the sealed value, and all that names its place, its key and the entries that lead to it.

use strongroom_ids::{DekVersion, FieldNo, KeyVersion, KeyringNo, RowVersion, SubjectHandle};

use crate::StoreError;
use crate::codec::{Reader, Writer};

const FORMAT: u8 = 1;
const PLACE: &str = "a value row";

const HAS_EXPIRY: u8 = 1;
const HAS_TOKEN: u8 = 2;

/// One version of one value. The ledger records the hash of its encoding; the salt keeps that hash from being guessed.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct ValueRow {
    /// The value's field.
    pub field: FieldNo,
    /// Which writing of the row this is.
    pub version: RowVersion,
    /// The token key under which the value's opaque token was made.
    pub token_key: KeyVersion,
    /// The random bits of an opaque token.
    pub check: [u8; 8],
    /// The keyring of the DEK.
    pub keyring: KeyringNo,
    /// The version of the DEK.
    pub dek_version: DekVersion,
    /// The subject whose DEK it is; none if the value has one of its own.
    pub subject: SubjectHandle,
    /// Random, for the ledger's hash of the row.
    pub salt: [u8; 16],
    /// When the value was first stored, in microseconds since 1970.
    pub created: u64,
    /// When it stops being readable, in microseconds since 1970.
    pub expires: Option<u64>,
    /// The index entries that lead here, so that erasing need not decrypt.
    pub indexes: Vec<IndexEntry>,
    /// The sealed token, if it is not an opaque one.
    pub sealed_token: Option<Vec<u8>>,
    /// The sealed value.
    pub sealed: Vec<u8>,
}

impl ValueRow {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let token = self.sealed_token.as_ref().map_or(0, Vec::len);
        let mut row = Writer::new(FORMAT, 80 + 40 * self.indexes.len() + token + self.sealed.len());
        let expiry = if self.expires.is_some() { HAS_EXPIRY } else { 0 };
        let token = if self.sealed_token.is_some() { HAS_TOKEN } else { 0 };
        row.byte(expiry | token)
            .number(self.field.0)
            .number(self.version.0)
            .number(self.token_key.0)
            .fixed(&self.check)
            .number(self.keyring.0)
            .number(self.dek_version.0)
            .handle(self.subject)
            .fixed(&self.salt)
            .number(self.created);
        if let Some(expires) = self.expires {
            row.number(expires);
        }
        row.number(self.indexes.len() as u64);
        for entry in &self.indexes {
            entry.write(&mut row);
        }
        if let Some(token) = &self.sealed_token {
            row.bytes(token);
        }
        row.bytes(&self.sealed).finish()
    }

    /// Reads what [`ValueRow::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(PLACE, bytes, FORMAT)?;
        let flags = reader.byte()?;
        if flags & !(HAS_EXPIRY | HAS_TOKEN) != 0 {
            return Err(reader.corrupt("an unknown flag stands"));
        }
        let row = Self {
            field: FieldNo(reader.small()?),
            version: RowVersion(reader.small()?),
            token_key: KeyVersion(reader.small()?),
            check: reader.array()?,
            keyring: KeyringNo(reader.small()?),
            dek_version: DekVersion(reader.small()?),
            subject: reader.handle()?,
            salt: reader.array()?,
            created: reader.number()?,
            expires: if flags & HAS_EXPIRY != 0 { Some(reader.number()?) } else { None },
            indexes: (0..reader.count(IndexEntry::LEAST)?)
                .map(|_| IndexEntry::read(&mut reader))
                .collect::<Result<_, _>>()?,
            sealed_token: if flags & HAS_TOKEN != 0 { Some(reader.bytes()?) } else { None },
            sealed: reader.bytes()?,
        };
        reader.finish().map(|()| row)
    }
}

/// What a blind-index entry leads from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IndexKind {
    /// A value, to all rows that have it.
    Value,
    /// A value that has one token within its subject.
    DeterministicSubject,
    /// A value that has one token within its tenant.
    DeterministicTenant,
    /// The caller's id of a subject.
    SubjectId,
    /// A token that is not opaque.
    Token,
}

impl IndexKind {
    /// Its byte in rows and keys.
    pub fn number(self) -> u8 {
        match self {
            Self::Value => 1,
            Self::DeterministicSubject => 2,
            Self::DeterministicTenant => 3,
            Self::SubjectId => 4,
            Self::Token => 5,
        }
    }

    /// The kind of a byte.
    pub fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Value),
            2 => Some(Self::DeterministicSubject),
            3 => Some(Self::DeterministicTenant),
            4 => Some(Self::SubjectId),
            5 => Some(Self::Token),
            _ => None,
        }
    }
}

/// One blind-index entry, as the row that it leads to remembers it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct IndexEntry {
    /// What it leads from.
    pub kind: IndexKind,
    /// The index key's version.
    pub version: KeyVersion,
    /// HMAC-SHA256 under that key.
    pub mac: [u8; 32],
}

impl IndexEntry {
    /// The fewest bytes that one takes.
    const LEAST: usize = 34;

    pub(crate) fn write(&self, row: &mut Writer) {
        row.byte(self.kind.number()).number(self.version.0).fixed(&self.mac);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, StoreError> {
        let kind = IndexKind::of(reader.byte()?).ok_or_else(|| reader.corrupt("an unknown kind of index stands"))?;
        Ok(Self { kind, version: KeyVersion(reader.small()?), mac: reader.array()? })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::rows::laws;

    pub fn any_entry() -> impl Strategy<Value = IndexEntry> {
        (1..=5u8, any::<u32>(), any::<[u8; 32]>()).prop_map(|(kind, version, mac)| IndexEntry {
            kind: IndexKind::of(kind).unwrap(),
            version: KeyVersion(version),
            mac,
        })
    }

    fn any_row() -> impl Strategy<Value = ValueRow> {
        let numbers = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u16>(), any::<u32>(), any::<u64>());
        let times = (any::<u64>(), any::<Option<u64>>());
        let blobs = (vec(any_entry(), 0..4), proptest::option::of(vec(any::<u8>(), 0..50)), vec(any::<u8>(), 0..200));
        (numbers, any::<[u8; 8]>(), any::<[u8; 16]>(), times, blobs).prop_map(
            |((field, version, token_key, keyring, dek, subject), check, salt, (created, expires), blobs)| ValueRow {
                field: FieldNo(field),
                version: RowVersion(version),
                token_key: KeyVersion(token_key),
                check,
                keyring: KeyringNo(keyring),
                dek_version: DekVersion(dek),
                subject: SubjectHandle(subject),
                salt,
                created,
                expires,
                indexes: blobs.0,
                sealed_token: blobs.1,
                sealed: blobs.2,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_value_row_comes_back_and_nothing_else_does(row in any_row()) {
            laws::round_trip(&row, ValueRow::encode, ValueRow::decode);
        }

        #[test]
        fn arbitrary_bytes_are_no_second_form_of_a_value_row(mut bytes in vec(any::<u8>(), 0..300)) {
            laws::canonical(&bytes, ValueRow::encode, ValueRow::decode);
            if let Some(first) = bytes.first_mut() {
                *first = FORMAT;
            }
            laws::canonical(&bytes, ValueRow::encode, ValueRow::decode);
        }
    }

    #[test]
    fn a_short_value_takes_less_than_140_bytes() {
        let row = ValueRow {
            field: FieldNo(12),
            version: RowVersion(1),
            token_key: KeyVersion(1),
            check: [7; 8],
            keyring: KeyringNo(2),
            dek_version: DekVersion(1),
            subject: SubjectHandle(1 << 48 | 1_000_000),
            salt: [9; 16],
            created: 1_795_000_000_000_000,
            expires: None,
            indexes: vec![],
            sealed_token: None,
            sealed: vec![0; 2 + 12 + 32 + 16],
        };
        assert!(row.encode().len() < 140, "{}", row.encode().len());
    }

    #[test]
    fn kinds_of_index_have_their_numbers_for_ever() {
        for number in 0..=u8::MAX {
            assert_eq!(IndexKind::of(number).map_or(0, IndexKind::number), if number < 6 { number } else { 0 });
        }
    }
}
