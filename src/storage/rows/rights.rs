//! What stands in a subject's record of its rights: consents, legal holds, and its erasure.

use strongroom_ids::FieldNo;

use crate::StoreError;
use crate::codec::{Reader, Writer};

/// What of a subject a consent is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// All that is not to be asked for separately.
    All,
    /// Fields of a class, by its number: 1 to 3.
    Class(u8),
    /// One field.
    Field(FieldNo),
}

impl Scope {
    fn write(self, row: &mut Writer) {
        match self {
            Self::All => row.byte(0),
            Self::Class(class) => row.byte(1).byte(class),
            Self::Field(field) => row.byte(2).number(field.0),
        };
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, StoreError> {
        match reader.byte()? {
            0 => Ok(Self::All),
            1 => match reader.byte()? {
                class @ 1..=3 => Ok(Self::Class(class)),
                _ => Err(reader.corrupt("a class that there is not stands")),
            },
            2 => Ok(Self::Field(FieldNo(reader.small()?))),
            _ => Err(reader.corrupt("an unknown scope of a consent stands")),
        }
    }
}

/// What a subject allowed for a purpose, with the evidence of it. The newest of its purpose and scope.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct Consent {
    /// The purpose, by its name in the schema.
    pub purpose: String,
    /// What of the subject it is about.
    pub scope: Scope,
    /// When it was recorded, in microseconds since 1970.
    pub granted: u64,
    /// When the subject gave it, if that is said to be before.
    pub given: Option<u64>,
    /// When it ends by itself.
    pub expires: Option<u64>,
    /// When it was taken back. Before it was granted: it was taken back once, and out of a wider consent, which does not reach
    /// it again.
    pub withdrawn: Option<u64>,
    /// SHA-256 of the text that was shown.
    pub text: [u8; 32],
    /// Which version of the text that was.
    pub version: String,
    /// By which way it was given: `web`, `branch`, `phone`.
    pub channel: String,
}

const HAS_END: u8 = 1;
const IS_WITHDRAWN: u8 = 2;
const WAS_BEFORE: u8 = 4;

impl Consent {
    /// Whether it was taken back, and not given again since.
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn.is_some_and(|at| at >= self.granted)
    }

    pub(super) fn write(&self, row: &mut Writer) {
        let end = if self.expires.is_some() { HAS_END } else { 0 };
        let withdrawn = if self.withdrawn.is_some() { IS_WITHDRAWN } else { 0 };
        let given = if self.given.is_some() { WAS_BEFORE } else { 0 };
        row.byte(end | withdrawn | given).bytes(self.purpose.as_bytes());
        self.scope.write(row);
        row.number(self.granted);
        if let Some(given) = self.given {
            row.number(given);
        }
        if let Some(expires) = self.expires {
            row.number(expires);
        }
        if let Some(withdrawn) = self.withdrawn {
            row.number(withdrawn);
        }
        row.fixed(&self.text).bytes(self.version.as_bytes()).bytes(self.channel.as_bytes());
    }

    /// The fewest bytes that one takes.
    const LEAST: usize = 38;

    fn read(reader: &mut Reader<'_>) -> Result<Self, StoreError> {
        let flags = reader.byte()?;
        if flags & !(HAS_END | IS_WITHDRAWN | WAS_BEFORE) != 0 {
            return Err(reader.corrupt("an unknown flag of a consent stands"));
        }
        Ok(Self {
            purpose: text(reader)?,
            scope: Scope::read(reader)?,
            granted: reader.number()?,
            given: if flags & WAS_BEFORE != 0 { Some(reader.number()?) } else { None },
            expires: if flags & HAS_END != 0 { Some(reader.number()?) } else { None },
            withdrawn: if flags & IS_WITHDRAWN != 0 { Some(reader.number()?) } else { None },
            text: reader.array()?,
            version: text(reader)?,
            channel: text(reader)?,
        })
    }

    /// A section of consents: at least one, in order, one for each purpose and scope.
    pub(super) fn read_all(reader: &mut Reader<'_>) -> Result<Vec<Self>, StoreError> {
        let key = |consent: &Self| (consent.purpose.clone(), consent.scope);
        ordered(reader, Self::LEAST, Self::read, key)
    }
}

/// What must be kept of a subject, whatever becomes of the rest.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct Hold {
    /// Which of the subject's holds it is, from 1; none is used twice.
    pub number: u32,
    /// Why: the reference of a case. It must say nothing personal.
    pub reason: String,
    /// What is held is read for this purpose, by its name in the schema.
    pub purpose: String,
    /// The fields that are held, in order; none for all.
    pub fields: Vec<FieldNo>,
    /// When it was set, in microseconds since 1970.
    pub set: u64,
    /// When it ends by itself.
    pub until: u64,
}

impl Hold {
    /// Whether it stands at a time, in microseconds since 1970.
    pub fn stands(&self, now: u64) -> bool {
        now < self.until
    }

    /// Whether it keeps values of a field.
    pub fn keeps(&self, field: FieldNo) -> bool {
        self.fields.is_empty() || self.fields.contains(&field)
    }

    pub(super) fn write(&self, row: &mut Writer) {
        row.number(self.number).bytes(self.reason.as_bytes()).bytes(self.purpose.as_bytes());
        row.number(self.fields.len() as u64);
        self.fields.iter().for_each(|field| _ = row.number(field.0));
        row.number(self.set).number(self.until);
    }

    /// The fewest bytes that one takes.
    const LEAST: usize = 6;

    fn read(reader: &mut Reader<'_>) -> Result<Self, StoreError> {
        let (number, reason, purpose) = (reader.small()?, text(reader)?, text(reader)?);
        let mut fields: Vec<FieldNo> = Vec::new();
        for _ in 0..reader.count(1)? {
            let field = FieldNo(reader.small()?);
            if fields.last().is_some_and(|before| before.0 >= field.0) {
                return Err(reader.corrupt("a held field stands that does not follow the one before it"));
            }
            fields.push(field);
        }
        Ok(Self { number, reason, purpose, fields, set: reader.number()?, until: reader.number()? })
    }

    /// A section of holds: at least one, in the order of their numbers.
    pub(super) fn read_all(reader: &mut Reader<'_>) -> Result<Vec<Self>, StoreError> {
        ordered(reader, Self::LEAST, Self::read, |hold| hold.number)
    }
}

/// The erasure of a subject, from when it was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct Erasure {
    /// When it was asked for, in microseconds since 1970.
    pub asked: u64,
    /// When it is done: after the time of grace, in which it can be undone.
    pub due: u64,
}

impl Erasure {
    pub(super) fn write(&self, row: &mut Writer) {
        row.number(self.asked).number(self.due);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, StoreError> {
        Ok(Self { asked: reader.number()?, due: reader.number()? })
    }
}

fn text(reader: &mut Reader<'_>) -> Result<String, StoreError> {
    String::from_utf8(reader.bytes()?).map_err(|_| reader.corrupt("what is not text stands"))
}

/// The things of a section: at least one, each after the one before it.
fn ordered<T, K: Ord>(
    reader: &mut Reader<'_>,
    least: usize,
    read: impl Fn(&mut Reader<'_>) -> Result<T, StoreError>,
    key: impl Fn(&T) -> K,
) -> Result<Vec<T>, StoreError> {
    let mut all: Vec<T> = Vec::new();
    for _ in 0..reader.count(least)? {
        let one = read(reader)?;
        if all.last().is_some_and(|before| key(before) >= key(&one)) {
            return Err(reader.corrupt("what does not follow the one before it stands"));
        }
        all.push(one);
    }
    match all.is_empty() {
        true => Err(reader.corrupt("an empty section stands")),
        false => Ok(all),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;

    use super::*;

    fn any_scope() -> impl Strategy<Value = Scope> {
        prop_oneof![
            Just(Scope::All),
            (1..=3_u8).prop_map(Scope::Class),
            any::<u32>().prop_map(|number| Scope::Field(FieldNo(number))),
        ]
    }

    fn any_consents() -> impl Strategy<Value = Vec<Consent>> {
        let times = (any::<u64>(), any::<Option<u64>>(), any::<Option<u64>>(), any::<Option<u64>>());
        let evidence = (any::<[u8; 32]>(), "[a-z0-9.]{0,8}", "[a-z]{0,8}");
        btree_map(("[a-z_]{1,12}", any_scope()), (times, evidence), 0..4).prop_map(|all: BTreeMap<_, _>| {
            let consent = |((purpose, scope), ((granted, given, expires, withdrawn), (text, version, channel)))| {
                Consent { purpose, scope, granted, given, expires, withdrawn, text, version, channel }
            };
            all.into_iter().map(consent).collect()
        })
    }

    fn any_holds() -> impl Strategy<Value = Vec<Hold>> {
        let hold = ("[a-z0-9-]{0,12}", "[a-z_]{1,12}", btree_set(any::<u32>(), 0..4), any::<u64>(), any::<u64>());
        btree_map(any::<u32>(), hold, 0..3).prop_map(|all: BTreeMap<_, _>| {
            let hold = |(number, (reason, purpose, fields, set, until)): (u32, (_, _, BTreeSet<u32>, _, _))| Hold {
                number,
                reason,
                purpose,
                fields: fields.into_iter().map(FieldNo).collect(),
                set,
                until,
            };
            all.into_iter().map(hold).collect()
        })
    }

    /// What a record may hold of its subject's rights.
    pub fn any_rights() -> impl Strategy<Value = (Vec<Consent>, Vec<Hold>, Option<Erasure>)> {
        let erasure = any::<Option<(u64, u64)>>();
        let erasure = erasure.prop_map(|times| times.map(|(asked, due)| Erasure { asked, due }));
        (any_consents(), any_holds(), erasure)
    }

    #[test]
    fn a_hold_on_no_field_keeps_all() {
        let hold = |fields| Hold { number: 1, reason: String::new(), purpose: String::new(), fields, set: 0, until: 9 };
        assert!(hold(vec![]).keeps(FieldNo(7)));
        assert!(hold(vec![FieldNo(7)]).keeps(FieldNo(7)) && !hold(vec![FieldNo(7)]).keeps(FieldNo(8)));
    }
}
