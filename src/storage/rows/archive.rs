//! How many leaves of a ledger are archived, where they are, and which archive is under way.

use crate::StoreError;
use crate::codec::{Reader, Writer};

const FORMAT: u8 = 1;
const PLACE: &str = "the row of what is archived of a ledger";

/// What is archived of a ledger.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ArchiveRow {
    /// Leaves before this one are archived.
    pub end: u64,
    /// The root of the tree over them; zeros if there are none.
    pub root: [u8; 32],
    /// When the last of them was committed, in microseconds since 1970.
    pub time: u64,
    /// The leaf that says so is at this index, or behind it.
    pub said_from: u64,
    /// Where the operator says that the newest archive is.
    pub place: String,
    /// SHA-256 of the newest archive's manifest.
    pub manifest: [u8; 32],
    /// Whether nothing of them is left in the store.
    pub removed: bool,
    /// An archive that is decided and not yet made.
    pub intent: Option<ArchiveIntent>,
    /// What only whoever has the ledger's keys can say of all of it but `removed`; zeros while nothing does.
    pub mac: [u8; 32],
}

/// An archive that is decided: the leaves behind those of the one before, up to, but without, `end`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArchiveIntent {
    /// Leaves before this one are to be archived.
    pub end: u64,
    /// The leaf that says so is at this index, or behind it.
    pub said_from: u64,
    /// The request.
    pub request: [u8; 16],
    /// Who asked for it.
    pub principal: String,
    /// Where the archive is.
    pub place: String,
    /// SHA-256 of its manifest.
    pub manifest: [u8; 32],
    /// SHA-256 over its lines, as its manifest has it.
    pub lines: [u8; 32],
}

impl ArchiveRow {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Writer::new(FORMAT, 256);
        row.number(self.end).fixed(&self.root).number(self.time).number(self.said_from);
        row.bytes(self.place.as_bytes()).fixed(&self.manifest).byte(u8::from(self.removed));
        row.byte(u8::from(self.intent.is_some()));
        if let Some(intent) = &self.intent {
            row.number(intent.end).number(intent.said_from).fixed(&intent.request).bytes(intent.principal.as_bytes());
            row.bytes(intent.place.as_bytes()).fixed(&intent.manifest).fixed(&intent.lines);
        }
        row.fixed(&self.mac);
        row.finish()
    }

    /// What the MAC is of.
    pub fn proven(&self) -> Vec<u8> {
        Self { removed: false, mac: [0; 32], ..self.clone() }.encode()
    }

    /// Reads what [`ArchiveRow::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(PLACE, bytes, FORMAT)?;
        let mut row = Self {
            end: reader.number()?,
            root: reader.array()?,
            time: reader.number()?,
            said_from: reader.number()?,
            place: text(&mut reader)?,
            manifest: reader.array()?,
            removed: flag(&mut reader)?,
            intent: None,
            mac: [0; 32],
        };
        if flag(&mut reader)? {
            row.intent = Some(ArchiveIntent {
                end: reader.number()?,
                said_from: reader.number()?,
                request: reader.array()?,
                principal: text(&mut reader)?,
                place: text(&mut reader)?,
                manifest: reader.array()?,
                lines: reader.array()?,
            });
        }
        row.mac = reader.array()?;
        reader.finish().map(|()| row)
    }
}

fn text(reader: &mut Reader<'_>) -> Result<String, StoreError> {
    String::from_utf8(reader.bytes()?).map_err(|_| reader.corrupt("what is no text stands"))
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, StoreError> {
    match reader.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.corrupt("an unknown flag stands")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::laws;

    fn row() -> ArchiveRow {
        let intent = ArchiveIntent {
            end: 1_024,
            said_from: 800,
            request: [5; 16],
            principal: "auditor/eve".to_owned(),
            place: "vault-archive/2".to_owned(),
            manifest: [3; 32],
            lines: [4; 32],
        };
        ArchiveRow {
            end: 512,
            root: [1; 32],
            time: 1_795_000_000_000_000,
            said_from: 700,
            place: "vault-archive/1".to_owned(),
            manifest: [2; 32],
            removed: false,
            intent: Some(intent),
            mac: [6; 32],
        }
    }

    #[test]
    fn all_is_proven_but_whether_it_is_removed() {
        let row = row();
        assert_eq!(row.proven(), ArchiveRow { removed: true, mac: [7; 32], ..row.clone() }.proven());
        for other in [ArchiveRow { end: 256, ..row.clone() }, ArchiveRow { intent: None, ..row.clone() }] {
            assert_ne!(row.proven(), other.proven());
        }
    }

    #[test]
    fn what_is_archived_comes_back_and_has_one_form() {
        for row in [row(), ArchiveRow { removed: true, intent: None, ..row() }, ArchiveRow::default()] {
            laws::round_trip(&row, ArchiveRow::encode, ArchiveRow::decode);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            laws::canonical(&bytes, ArchiveRow::encode, ArchiveRow::decode);
            laws::canonical(&[&[FORMAT][..], &bytes[..]].concat(), ArchiveRow::encode, ArchiveRow::decode);
        }
    }
}
