//! The conflict table: which facts changed lately, and as of when it knows.
//!
//! FoundationDB's resolver is the model: memory is bounded, and what was forgotten is covered by a watermark below
//! which no position is accepted.

use std::collections::HashMap;
use std::mem;

use foldhash::fast::RandomState;

use crate::change::Position;
use crate::fact::Fact;

/// Each fact's last change. Nobody outside can choose facts that meet, so the hash may be a quick one.
type Groups = HashMap<Fact, u64, RandomState>;

/// The last change of each fact, in two generations. When the young one is full, the old one is forgotten whole: the
/// bound holds at the price of one swap, and no request waits while single entries are sought out.
pub(crate) struct ConflictTable {
    young: Groups,
    old: Groups,
    /// Highest group number in each generation.
    young_last: u64,
    old_last: u64,
    /// Changes of groups up to and including this one may be forgotten.
    watermark: u64,
    half: usize,
}

/// What the table says of a fact and a position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    Unchanged,
    Changed,
    /// The position lies before what the table remembers.
    TooOld,
}

impl ConflictTable {
    /// A table of at most `entries` facts, which knows everything since `watermark`.
    pub fn new(entries: usize, watermark: u64) -> Self {
        let half = (entries / 2).max(1);
        // Reserved at once: a table that grows would stall the one serial place in the vault.
        Self {
            young: Groups::with_capacity_and_hasher(half, RandomState::default()),
            old: Groups::with_capacity_and_hasher(half, RandomState::default()),
            young_last: watermark,
            old_last: watermark,
            watermark,
            half,
        }
    }

    /// Whether a fact changed after a position.
    pub fn since(&self, fact: &Fact, position: Position) -> Seen {
        if position.0 < self.watermark {
            return Seen::TooOld;
        }
        match self.young.get(fact).or_else(|| self.old.get(fact)) {
            Some(group) if *group > position.0 => Seen::Changed,
            _ => Seen::Unchanged,
        }
    }

    /// Notes that a group changed a fact. Groups come in order.
    pub fn record(&mut self, fact: Fact, group: u64) {
        if self.young.len() >= self.half && !self.young.contains_key(&fact) {
            self.watermark = self.old_last.max(self.watermark);
            mem::swap(&mut self.young, &mut self.old);
            self.old_last = self.young_last;
            self.young.clear();
        }
        self.young.insert(fact, group);
        self.young_last = group;
    }

    /// Forgets everything: no position before `group` is accepted any more.
    pub fn forget(&mut self, group: u64) {
        self.young.clear();
        self.old.clear();
        (self.young_last, self.old_last, self.watermark) = (group, group, group);
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use strongroom_ids::{RowId, TenantNo};

    use super::*;

    fn fact(number: u64) -> Fact {
        Fact::row(TenantNo(1), RowId(number))
    }

    proptest! {
        #[test]
        fn whatever_is_forgotten_no_changed_fact_is_called_unchanged(
            groups in vec(vec(0..12u64, 0..4), 0..40), entries in 0..20usize, asked in 0..12u64, since in 0..40u64,
        ) {
            let mut table = ConflictTable::new(entries, 0);
            let mut changed = false;
            for (number, facts) in (1..).zip(&groups) {
                for number_of_fact in facts {
                    table.record(fact(*number_of_fact), number);
                    changed |= *number_of_fact == asked && number > since;
                }
            }
            prop_assert!(table.len() <= entries.max(2));
            match table.since(&fact(asked), Position(since)) {
                Seen::Changed => prop_assert!(changed),
                Seen::Unchanged => prop_assert!(!changed),
                // Only a table that is too small may give up.
                Seen::TooOld => prop_assert!(groups.iter().map(Vec::len).sum::<usize>() > entries / 2),
            }
        }
    }

    #[test]
    fn a_position_below_the_watermark_is_too_old_and_the_latest_never_is() {
        let mut table = ConflictTable::new(4, 0);
        for number in 1..=100 {
            table.record(fact(number), number);
            assert_eq!(table.since(&fact(0), Position(number)), Seen::Unchanged);
        }
        assert_eq!(table.since(&fact(0), Position(90)), Seen::TooOld);
        assert_eq!(table.since(&fact(100), Position(99)), Seen::Changed);
    }

    #[test]
    fn after_forgetting_everybody_must_read_again() {
        let mut table = ConflictTable::new(4, 0);
        table.record(fact(1), 7);
        table.forget(8);
        assert_eq!(table.since(&fact(2), Position(7)), Seen::TooOld);
        assert_eq!(table.since(&fact(1), Position(8)), Seen::Unchanged);
    }
}
