//! A data subject's record, and wrapped DEKs: those in the record, and one of a value's own.

use strongroom_ids::{DekVersion, FieldNo, KeyVersion, KeyringNo, SubjectHandle};

use crate::StoreError;
use crate::codec::{Reader, Writer};
use crate::rows::IndexEntry;
use crate::rows::rights::{Consent, Erasure, Hold};

const RECORD_FORMAT: u8 = 1;
/// The numbers of sections, in whose order they stand.
mod section {
    pub const LABELS: u8 = 1;
    pub const CONSENTS: u8 = 2;
    pub const HOLDS: u8 = 3;
    pub const ERASURE: u8 = 4;
}
const RECORD: &str = "a subject record";
const ROW_DEK_FORMAT: u8 = 1;
const ROW_DEK: &str = "a value's DEK";

/// Whether anything of a subject may be read or written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SubjectState {
    /// It may.
    Open,
    /// It may not for now: its erasure waits out its time of grace, and can be undone.
    Leaving,
    /// Erased but for what a legal hold keeps, which is read for the hold's own purpose alone.
    Held,
    /// Erased: its DEKs are destroyed, and what is left of its rows is being cleared.
    Closed,
}

impl SubjectState {
    /// Whether it still has DEKs, and an id that leads to it.
    pub fn has_keys(self) -> bool {
        self != Self::Closed
    }
}

/// All that the vault keeps of a data subject in one entry: one look-up brings what a request needs.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct SubjectRecord {
    /// The vault's own number for the subject.
    pub handle: SubjectHandle,
    /// Whether anything of it may be read or written.
    pub state: SubjectState,
    /// When the record was made, in microseconds since 1970.
    pub created: u64,
    /// Random, for the ledger's hash of the record.
    pub salt: [u8; 16],
    /// The caller's id of the subject, sealed, so that index keys can rotate.
    pub sealed_id: Vec<u8>,
    /// The index entry that leads from the id to the handle.
    pub id_index: IndexEntry,
    /// The subject's wrapped DEKs, of all keyrings: one version each, or several while values move to the newest.
    pub deks: Vec<WrappedDek>,
    /// By what it is in somebody's case load: branch, portfolio. In order, each once.
    pub labels: Vec<String>,
    /// What it allowed, and took back: one for each purpose and scope, in their order.
    pub consents: Vec<Consent>,
    /// What must be kept of it whatever becomes of the rest, by number.
    pub holds: Vec<Hold>,
    /// Its erasure, once one was asked for.
    pub erasure: Option<Erasure>,
}

impl SubjectRecord {
    /// The newest version of the subject's DEK of a keyring: the one that seals what is new.
    pub fn newest_dek(&self, keyring: KeyringNo) -> Option<&WrappedDek> {
        self.deks.iter().filter(|dek| dek.keyring == keyring).max_by_key(|dek| dek.version)
    }

    /// The holds that stand at a time, in microseconds since 1970.
    pub fn standing(&self, now: u64) -> impl Iterator<Item = &Hold> {
        self.holds.iter().filter(move |hold| hold.stands(now))
    }

    /// Whether a hold that stands keeps values of a field: nothing may remove or change them then.
    pub fn is_held(&self, field: FieldNo, now: u64) -> bool {
        self.standing(now).any(|hold| hold.keeps(field))
    }

    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let deks: usize = self.deks.iter().map(|dek| 12 + dek.blob.len()).sum();
        let mut row = Writer::new(RECORD_FORMAT, 96 + self.sealed_id.len() + deks);
        row.byte(match self.state {
            SubjectState::Open => 0,
            SubjectState::Closed => 1,
            SubjectState::Leaving => 2,
            SubjectState::Held => 3,
        });
        row.handle(self.handle).number(self.created).fixed(&self.salt).bytes(&self.sealed_id);
        self.id_index.write(&mut row);
        row.number(self.deks.len() as u64);
        for dek in &self.deks {
            dek.write(&mut row);
        }
        let sections =
            [!self.labels.is_empty(), !self.consents.is_empty(), !self.holds.is_empty(), self.erasure.is_some()];
        row.number(sections.into_iter().filter(|there| *there).count() as u64);
        if !self.labels.is_empty() {
            row.byte(section::LABELS).number(self.labels.len() as u64);
            self.labels.iter().for_each(|label| _ = row.bytes(label.as_bytes()));
        }
        if !self.consents.is_empty() {
            row.byte(section::CONSENTS).number(self.consents.len() as u64);
            self.consents.iter().for_each(|consent| consent.write(&mut row));
        }
        if !self.holds.is_empty() {
            row.byte(section::HOLDS).number(self.holds.len() as u64);
            self.holds.iter().for_each(|hold| hold.write(&mut row));
        }
        if let Some(erasure) = &self.erasure {
            row.byte(section::ERASURE);
            erasure.write(&mut row);
        }
        row.finish()
    }

    /// Reads what [`SubjectRecord::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(RECORD, bytes, RECORD_FORMAT)?;
        let state = match reader.byte()? {
            0 => SubjectState::Open,
            1 => SubjectState::Closed,
            2 => SubjectState::Leaving,
            3 => SubjectState::Held,
            _ => return Err(reader.corrupt("an unknown state stands")),
        };
        let mut record = Self {
            state,
            handle: reader.handle()?,
            created: reader.number()?,
            salt: reader.array()?,
            sealed_id: reader.bytes()?,
            id_index: IndexEntry::read(&mut reader)?,
            deks: (0..reader.count(WrappedDek::LEAST)?)
                .map(|_| WrappedDek::read(&mut reader))
                .collect::<Result<_, _>>()?,
            labels: vec![],
            consents: vec![],
            holds: vec![],
            erasure: None,
        };
        // Reading on after a section that is not known would lose a consent or a hold at the record's next writing.
        const NEWER: &str = "sections that only a newer version of strongroom reads stand";
        let mut before = 0;
        for _ in 0..reader.count(1)? {
            let section = reader.byte()?;
            if section <= before {
                return Err(reader.corrupt("a section stands that does not follow the one before it"));
            }
            before = section;
            match section {
                section::LABELS => record.labels = labels(&mut reader)?,
                section::CONSENTS => record.consents = Consent::read_all(&mut reader)?,
                section::HOLDS => record.holds = Hold::read_all(&mut reader)?,
                section::ERASURE => record.erasure = Some(Erasure::read(&mut reader)?),
                _ => return Err(reader.corrupt(NEWER)),
            }
        }
        reader.finish().map(|()| record)
    }
}

/// The labels of a section: at least one, in order, each once.
fn labels(reader: &mut Reader<'_>) -> Result<Vec<String>, StoreError> {
    let mut labels: Vec<String> = Vec::new();
    for _ in 0..reader.count(1)? {
        let label =
            String::from_utf8(reader.bytes()?).map_err(|_| reader.corrupt("a label that is not text stands"))?;
        if labels.last().is_some_and(|before| *before >= label) {
            return Err(reader.corrupt("a label stands that does not follow the one before it"));
        }
        labels.push(label);
    }
    match labels.is_empty() {
        true => Err(reader.corrupt("an empty section of labels stands")),
        false => Ok(labels),
    }
}

/// A DEK of a subject, wrapped.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct WrappedDek {
    /// The keyring whose KEK wraps it.
    pub keyring: KeyringNo,
    /// Which version of the subject's DEK in this keyring it is.
    pub version: DekVersion,
    /// Which version of the KEK wraps it.
    pub kek_version: KeyVersion,
    /// The DEK, sealed by the KEK.
    pub blob: Vec<u8>,
}

impl WrappedDek {
    /// The fewest bytes that one takes.
    const LEAST: usize = 4;

    fn write(&self, row: &mut Writer) {
        row.number(self.keyring.0).number(self.version.0).number(self.kek_version.0).bytes(&self.blob);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            keyring: KeyringNo(reader.small()?),
            version: DekVersion(reader.small()?),
            kek_version: KeyVersion(reader.small()?),
            blob: reader.bytes()?,
        })
    }
}

/// The wrapped DEK of a value without subject, in an entry beside its row.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct RowDek {
    /// The keyring whose KEK wraps it.
    pub keyring: KeyringNo,
    /// Which version of the value's DEK it is.
    pub version: DekVersion,
    /// Which version of the KEK wraps it.
    pub kek_version: KeyVersion,
    /// The DEK, sealed by the KEK.
    pub blob: Vec<u8>,
}

impl RowDek {
    /// The entry's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Writer::new(ROW_DEK_FORMAT, 16 + self.blob.len());
        row.number(self.keyring.0).number(self.version.0).number(self.kek_version.0).bytes(&self.blob).finish()
    }

    /// Reads what [`RowDek::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(ROW_DEK, bytes, ROW_DEK_FORMAT)?;
        let dek = WrappedDek::read(&mut reader)?;
        reader.finish().map(|()| dek.into())
    }
}

impl From<WrappedDek> for RowDek {
    fn from(dek: WrappedDek) -> Self {
        let WrappedDek { keyring, version, kek_version, blob } = dek;
        Self { keyring, version, kek_version, blob }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::rows::laws;
    use crate::rows::rights::tests::any_rights;
    use crate::rows::value::tests::any_entry;

    fn any_dek() -> impl Strategy<Value = WrappedDek> {
        (any::<u16>(), any::<u32>(), any::<u32>(), vec(any::<u8>(), 0..80)).prop_map(|(keyring, version, kek, blob)| {
            WrappedDek { keyring: KeyringNo(keyring), version: DekVersion(version), kek_version: KeyVersion(kek), blob }
        })
    }

    fn any_record() -> impl Strategy<Value = SubjectRecord> {
        let fields = (any::<u64>(), 0..4_usize, any::<u64>(), any::<[u8; 16]>(), vec(any::<u8>(), 0..150));
        let labels = prop::collection::btree_set("[a-z0-9][a-z0-9._-]{0,31}", 0..4);
        (fields, any_entry(), vec(any_dek(), 0..4), labels, any_rights()).prop_map(
            |((handle, state, created, salt, sealed_id), id_index, deks, labels, (consents, holds, erasure))| {
                SubjectRecord {
                    handle: SubjectHandle(handle),
                    state: [SubjectState::Open, SubjectState::Leaving, SubjectState::Held, SubjectState::Closed][state],
                    created,
                    salt,
                    sealed_id,
                    id_index,
                    deks,
                    labels: labels.into_iter().collect(),
                    consents,
                    holds,
                    erasure,
                }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_subject_record_comes_back_and_nothing_else_does(record in any_record()) {
            laws::round_trip(&record, SubjectRecord::encode, SubjectRecord::decode);
        }

        #[test]
        fn a_row_dek_comes_back_and_nothing_else_does(dek in any_dek()) {
            laws::round_trip(&RowDek::from(dek), RowDek::encode, RowDek::decode);
        }

        #[test]
        fn arbitrary_bytes_are_no_second_form_of_a_record(mut bytes in vec(any::<u8>(), 1..300)) {
            laws::canonical(&bytes, SubjectRecord::encode, SubjectRecord::decode);
            bytes[0] = RECORD_FORMAT;
            laws::canonical(&bytes, SubjectRecord::encode, SubjectRecord::decode);
            laws::canonical(&bytes, RowDek::encode, RowDek::decode);
        }

        #[test]
        fn a_record_with_a_section_of_a_newer_version_is_refused(record in any_record(), kind in 5..9u8) {
            let record = SubjectRecord { labels: vec![], consents: vec![], holds: vec![], erasure: None, ..record };
            let mut bytes = record.encode();
            *bytes.last_mut().unwrap() = 1;
            bytes.push(kind);
            let error = SubjectRecord::decode(&bytes).unwrap_err().to_string();
            prop_assert!(error.contains("newer version"), "{}", error);
        }
    }
}
