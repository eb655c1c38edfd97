//! What verification finds: which record, where it stands, and what is wrong with it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use strongroom_ids::{RowId, SubjectHandle};

/// Findings that are listed unless somebody asks for all; the others are only counted, so that a store full of damage does not
/// fill the memory.
pub const LISTED: usize = 10_000;

/// What kind of record a finding is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A log as a whole: its head, or what the vault has signed of it.
    Log,
    /// One leaf of a log.
    Leaf,
    /// The journal of what restricts.
    Journal,
    /// A value's row.
    Value,
    /// A data encryption key, of a subject or of one value.
    Dek,
    /// A data subject's record.
    Subject,
    /// A blind-index entry.
    IndexEntry,
    /// The entry by which a subject's values are found.
    SubjectRow,
    /// The entry by which a shared value's holders are found.
    Holder,
    /// The schema in force.
    Schema,
    /// The policy in force.
    Policy,
    /// What is frozen and who is suspended.
    Freezes,
    /// The tiers of principals and their limits.
    Tiers,
    /// The second factor of a principal.
    SecondFactor,
    /// The enrolled principals.
    Principals,
    /// A tenant.
    Tenant,
    /// A counter of numbers that are never given out twice.
    Counter,
    /// What was made under an idempotency key.
    IdempotencyKey,
    /// A tile of a log's tree, of which proofs are made.
    Tile,
    /// A row of the index by which leaves are found.
    LeafIndex,
    /// What stands for leaves that are archived.
    State,
    /// Something that the vault does not write.
    Unknown,
}

impl Kind {
    /// Its stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Leaf => "leaf",
            Self::Journal => "journal",
            Self::Value => "value",
            Self::Dek => "dek",
            Self::Subject => "subject",
            Self::IndexEntry => "index_entry",
            Self::SubjectRow => "subject_row",
            Self::Holder => "holder",
            Self::Schema => "schema",
            Self::Policy => "policy",
            Self::Freezes => "freezes",
            Self::Tiers => "tiers",
            Self::SecondFactor => "second_factor",
            Self::Principals => "principals",
            Self::Tenant => "tenant",
            Self::Counter => "counter",
            Self::IdempotencyKey => "idempotency_key",
            Self::Tile => "tile",
            Self::LeafIndex => "leaf_index",
            Self::State => "state",
            Self::Unknown => "unknown",
        }
    }
}

/// In which way a record is not what it must be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fault {
    /// It is there, and not what was written.
    Changed,
    /// It is what was written once, and was replaced since.
    RolledBack,
    /// It is as it was written, and stands elsewhere.
    Moved,
    /// It is gone.
    Missing,
    /// It is there, and nothing was ever written there, or it was removed since.
    Added,
    /// It could not be read or checked.
    Unreadable,
}

impl Fault {
    /// Its stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::RolledBack => "rolled_back",
            Self::Moved => "moved",
            Self::Missing => "missing",
            Self::Added => "added",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Where a record stands, in numbers that say nothing about a person.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// There is only one of its kind in the tenant.
    Only,
    /// A leaf, by its index.
    Leaf(u64),
    /// A value, by its row, and what leads to it.
    Row(RowId),
    /// A subject, by its handle, and what leads to it.
    Subject(SubjectHandle),
    /// A key of the store.
    Key(Vec<u8>),
}

impl Place {
    /// Its stable word: what the number is.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Only => "",
            Self::Leaf(_) => "leaf",
            Self::Row(_) => "row",
            Self::Subject(_) => "subject",
            Self::Key(_) => "key",
        }
    }

    /// The number alone; hexadecimal for a key.
    pub fn number(&self) -> String {
        match self {
            Self::Only => String::new(),
            Self::Leaf(index) => index.to_string(),
            Self::Row(row) => row.to_string(),
            Self::Subject(handle) => handle.to_string(),
            Self::Key(key) => data_encoding::HEXLOWER.encode(key),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only => Ok(()),
            place => write!(f, "{} {}", place.name(), place.number()),
        }
    }
}

/// A leaf of one of the vault's logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeafRef {
    /// The log: a tenant's name, or `system`.
    pub log: Arc<str>,
    /// The leaf.
    pub index: u64,
}

/// One thing that is not as it must be. Holds no value, no subject's id and no key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The tenant's name; `system` for what belongs to the vault itself.
    pub tenant: Arc<str>,
    /// What kind of record.
    pub kind: Kind,
    /// In which way it is wrong.
    pub fault: Fault,
    /// Where it stands, or should.
    pub place: Place,
    /// The leaf that says what must be there, or that it was removed; of a copy where nothing must be, the leaf of the row that it is
    /// of. Of a leaf, its place says it.
    pub leaf: Option<LeafRef>,
    /// Where a record that was moved stands, or of which one this is a copy.
    pub elsewhere: Option<Place>,
    /// What is wrong, in words.
    pub what: String,
}

/// All findings, in the order in which they were made.
pub(super) struct Findings {
    pub kept: Vec<Finding>,
    pub left_out: u64,
    /// All of them, those that are left out as well.
    pub counted: BTreeMap<(Kind, Fault), u64>,
    most: usize,
}

impl Findings {
    /// None yet, of which so many are kept.
    pub fn of(most: usize) -> Self {
        Self { kept: vec![], left_out: 0, counted: BTreeMap::new(), most }
    }

    /// None yet, with the same bound.
    pub fn none(&self) -> Self {
        Self::of(self.most)
    }

    /// How many more are kept.
    pub fn room(&self) -> usize {
        self.most.saturating_sub(self.kept.len())
    }

    pub fn add(&mut self, finding: Finding) {
        if self.room() == 0 {
            return self.leave_out(finding.kind, finding.fault);
        }
        *self.counted.entry((finding.kind, finding.fault)).or_default() += 1;
        self.kept.push(finding);
    }

    /// One that is counted only.
    pub fn leave_out(&mut self, kind: Kind, fault: Fault) {
        *self.counted.entry((kind, fault)).or_default() += 1;
        self.left_out += 1;
    }

    /// Takes those that were found elsewhere, after its own.
    pub fn append(&mut self, other: Self) {
        let room = self.room();
        self.left_out += other.left_out + other.kept.len().saturating_sub(room) as u64;
        self.kept.extend(other.kept.into_iter().take(room));
        for (what, count) in other.counted {
            *self.counted.entry(what).or_default() += count;
        }
    }

    /// Has one that is kept be of another fault.
    pub fn mend(&mut self, at: usize, fault: Fault) {
        let Some(finding) = self.kept.get_mut(at) else { return };
        if let Some(count) = self.counted.get_mut(&(finding.kind, finding.fault)) {
            *count -= 1;
        }
        self.counted.retain(|_, count| *count > 0);
        finding.fault = fault;
        *self.counted.entry((finding.kind, fault)).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(kind: Kind, row: u64) -> Finding {
        let (place, what) = (Place::Row(RowId(row)), String::new());
        Finding { tenant: "demo".into(), kind, fault: Fault::Changed, place, leaf: None, elsewhere: None, what }
    }

    #[test]
    fn those_that_are_not_kept_are_counted_by_kind() {
        let mut all = Findings::of(3);
        (0..2).for_each(|row| all.add(finding(Kind::Value, row)));
        let mut part = all.none();
        (2..7).for_each(|row| part.add(finding(Kind::Dek, row)));
        assert_eq!((part.kept.len(), part.left_out), (3, 2));
        all.append(part);
        assert_eq!((all.kept.len(), all.left_out, all.room()), (3, 4, 0));
        all.mend(2, Fault::Moved);
        let counted: Vec<_> = all.counted.into_iter().collect();
        let expected =
            [((Kind::Value, Fault::Changed), 2), ((Kind::Dek, Fault::Changed), 4), ((Kind::Dek, Fault::Moved), 1)];
        assert_eq!(counted, expected);
    }
}
