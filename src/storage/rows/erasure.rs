//! The erasure of a subject while it is under way, and what is told of it afterwards.

use strongroom_ids::{KeyVersion, KeyringNo, RowId, SubjectHandle};

use crate::StoreError;
use crate::codec::{Reader, Writer};

const FORMAT: u8 = 1;
const WORK: &str = "what is left of an erasure";
const ERASURE: &str = "an erasure";

/// How far the erasure of one subject has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErasureStage {
    /// Its time of grace runs until then, in microseconds since 1970.
    Waiting(u64),
    /// Its rows are being cleared; those up to this one are done.
    Clearing(RowId),
    /// Its rows are cleared, which no receipt says yet.
    Cleared,
    /// What is left is held; the first of the holds ends then, in microseconds since 1970.
    Kept(u64),
}

/// What is left to do for a subject. Stands under its handle.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct ErasureWork {
    /// The erasure that it belongs to.
    pub erasure: [u8; 16],
    /// How far it has come.
    pub stage: ErasureStage,
    /// How the key of the index entry begins that led from its id to it, so that what files still have of that goes, too; empty
    /// while it stands. Not all of the key: it would lead on.
    pub mapping: Vec<u8>,
    /// The first and the last of its values that had DEKs of their own; both zero if none had.
    pub alone: (RowId, RowId),
    /// Values that are left, since they are held.
    pub held: u64,
    /// DEKs that sealed what is erased and seal what is held, too: no receipt says yet that they were rolled.
    pub unrolled: u64,
}

impl ErasureWork {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Writer::new(FORMAT, 96);
        row.fixed(&self.erasure);
        match self.stage {
            ErasureStage::Waiting(due) => row.byte(0).number(due),
            ErasureStage::Clearing(after) => row.byte(1).number(after.0),
            ErasureStage::Cleared => row.byte(2),
            ErasureStage::Kept(until) => row.byte(3).number(until),
        };
        row.bytes(&self.mapping).number(self.alone.0.0).number(self.alone.1.0);
        row.number(self.held).number(self.unrolled).finish()
    }

    /// Reads what [`ErasureWork::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(WORK, bytes, FORMAT)?;
        let erasure = reader.array()?;
        let stage = match reader.byte()? {
            0 => ErasureStage::Waiting(reader.number()?),
            1 => ErasureStage::Clearing(RowId(reader.number()?)),
            2 => ErasureStage::Cleared,
            3 => ErasureStage::Kept(reader.number()?),
            _ => return Err(reader.corrupt("an unknown stage stands")),
        };
        let mapping = reader.bytes()?;
        let alone = (RowId(reader.number()?), RowId(reader.number()?));
        let (held, unrolled) = (reader.number()?, reader.number()?);
        reader.finish().map(|()| Self { erasure, stage, mapping, alone, held, unrolled })
    }
}

/// What an erasure has destroyed so far.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Erased {
    /// Values.
    pub values: u64,
    /// Shares in values that others share.
    pub shares: u64,
    /// Index entries.
    pub entries: u64,
    /// Consents.
    pub consents: u64,
    /// DEKs, of the subject and of its values.
    pub deks: u64,
    /// Values of which the row, or the DEK of their own, could not be read.
    pub unread: u64,
}

/// What is known of an erasure under the name that its desk has of it. Once all is erased no subject stands here.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct ErasureRow {
    /// A keyed hash of the request.
    pub fingerprint: [u8; 32],
    /// What the receipt says of whose it is, a salted hash; none if nobody has named the subject.
    pub subject: Option<[u8; 32]>,
    /// The subjects of which something is left.
    pub open: Vec<SubjectHandle>,
    /// When its time of grace ends, in microseconds since 1970; 0: it had none, or that is over.
    pub due: u64,
    /// What was destroyed.
    pub erased: Erased,
    /// The versions of KEKs that wrapped the DEKs of what was erased, in order.
    pub keks: Vec<(KeyringNo, KeyVersion)>,
    /// What was signed of it; empty until all is done that can be.
    pub receipt: String,
    /// The day, counted from 1970, from which on it is forgotten; 0 while something is left to do.
    pub expires: u32,
    /// The erasure that was found under way, where this is only the name that a request's key has; it goes with that one.
    pub same: Option<[u8; 16]>,
}

impl ErasureRow {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Writer::new(FORMAT, 96 + self.receipt.len());
        row.fixed(&self.fingerprint).bytes(self.subject.as_ref().map_or(&[][..], |subject| subject.as_slice()));
        row.number(self.open.len() as u64);
        self.open.iter().for_each(|subject| _ = row.handle(*subject));
        let Erased { values, shares, entries, consents, deks, unread } = self.erased;
        row.number(self.due).number(values).number(shares).number(entries).number(consents).number(deks).number(unread);
        row.number(self.keks.len() as u64);
        self.keks.iter().for_each(|(keyring, version)| _ = row.number(keyring.0).number(version.0));
        row.bytes(self.receipt.as_bytes()).number(self.expires);
        row.bytes(self.same.as_ref().map_or(&[][..], |same| same.as_slice())).finish()
    }

    /// Reads what [`ErasureRow::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(ERASURE, bytes, FORMAT)?;
        let fingerprint = reader.array()?;
        let subject = read_if_any(&mut reader, "a hash of another length stands")?;
        let open = (0..reader.count(2)?).map(|_| reader.handle()).collect::<Result<_, _>>()?;
        let due = reader.number()?;
        let erased = Erased {
            values: reader.number()?,
            shares: reader.number()?,
            entries: reader.number()?,
            consents: reader.number()?,
            deks: reader.number()?,
            unread: reader.number()?,
        };
        let keks = (0..reader.count(2)?)
            .map(|_| Ok((KeyringNo(reader.small()?), KeyVersion(reader.small()?))))
            .collect::<Result<_, StoreError>>()?;
        let receipt = String::from_utf8(reader.bytes()?).map_err(|_| reader.corrupt("what is not text stands"))?;
        let expires = reader.small()?;
        let same = read_if_any(&mut reader, "a name of another length stands")?;
        reader.finish().map(|()| Self { fingerprint, subject, open, due, erased, keks, receipt, expires, same })
    }
}

/// Bytes that may be none.
fn read_if_any<const N: usize>(reader: &mut Reader<'_>, otherwise: &str) -> Result<Option<[u8; N]>, StoreError> {
    let bytes = reader.bytes()?;
    if bytes.is_empty() {
        return Ok(None);
    }
    bytes.try_into().map(Some).map_err(|_| reader.corrupt(otherwise))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::rows::laws;

    fn any_stage() -> impl Strategy<Value = ErasureStage> {
        prop_oneof![
            any::<u64>().prop_map(ErasureStage::Waiting),
            any::<u64>().prop_map(|row| ErasureStage::Clearing(RowId(row))),
            Just(ErasureStage::Cleared),
            any::<u64>().prop_map(ErasureStage::Kept),
        ]
    }

    proptest! {
        #[test]
        fn what_is_left_round_trips(
            erasure: [u8; 16],
            stage in any_stage(),
            mapping in any::<Vec<u8>>(),
            [first, last, held, unrolled] in any::<[u64; 4]>(),
        ) {
            let work = ErasureWork { erasure, stage, mapping, alone: (RowId(first), RowId(last)), held, unrolled };
            laws::round_trip(&work, ErasureWork::encode, ErasureWork::decode);
        }

        #[test]
        fn an_erasure_round_trips(
            (fingerprint, subject, due) in any::<([u8; 32], Option<[u8; 32]>, u64)>(),
            [values, shares, entries, consents, deks, unread] in any::<[u64; 6]>(),
            open in vec(any::<u64>(), 0..8),
            keks in vec(any::<(u16, u32)>(), 0..8),
            (receipt, expires, same) in any::<(String, u32, Option<[u8; 16]>)>(),
        ) {
            let row = ErasureRow {
                fingerprint,
                subject,
                open: open.into_iter().map(SubjectHandle).collect(),
                due,
                erased: Erased { values, shares, entries, consents, deks, unread },
                keks: keks.into_iter().map(|(keyring, version)| (KeyringNo(keyring), KeyVersion(version))).collect(),
                receipt,
                expires,
                same,
            };
            laws::round_trip(&row, ErasureRow::encode, ErasureRow::decode);
        }

        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
            laws::canonical(&bytes, ErasureWork::encode, ErasureWork::decode);
            laws::canonical(&bytes, ErasureRow::encode, ErasureRow::decode);
        }
    }
}
