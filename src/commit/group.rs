//! One group: changes that are checked one after the other and stored in one write. Pure but for the table.

use std::collections::HashMap;

use strongroom_ids::TenantNo;
use strongroom_ledger::Timestamp;
use strongroom_ledger::journal::{Log, Record};
use strongroom_storage::{Family, Mutation};

use crate::change::{Change, CommitError, Committed, Guard, Position};
use crate::lane::Lane;
use crate::meter::Meters;
use crate::table::{ConflictTable, Seen};

/// The logs that the committer writes.
pub(crate) type Lanes = HashMap<TenantNo, Lane>;

/// A group in the making. Lanes are copied when first touched, so a failed write leaves the originals as they were.
pub(crate) struct Group<'a> {
    table: &'a mut ConflictTable,
    lanes: &'a Lanes,
    number: u64,
    time: u64,
    touched: Lanes,
    batch: Vec<Mutation>,
    members: usize,
    /// The leaves that restrict.
    restricting: Vec<Record>,
    /// What is counted of what it tells; nobody may be told anything that counts without.
    meters: Option<&'a mut Meters>,
}

/// What a group wants written, and what holds once it is.
pub(crate) struct Staged {
    /// The one write.
    pub batch: Vec<Mutation>,
    /// The lanes as they are after it.
    pub lanes: Lanes,
    /// How many changes are in it.
    pub members: usize,
    /// Its leaves that restrict, in their order: they are journalled before anybody is told.
    pub restricting: Vec<Record>,
}

impl<'a> Group<'a> {
    /// An empty group with its number in history and its time.
    pub fn new(table: &'a mut ConflictTable, lanes: &'a Lanes, number: u64, time: u64) -> Self {
        let (touched, batch, restricting) = (Lanes::new(), Vec::new(), Vec::new());
        Self { table, lanes, number, time, touched, batch, members: 0, restricting, meters: None }
    }

    /// The same, with the counts of what it tells.
    pub fn metered(self, meters: &'a mut Meters) -> Self {
        Self { meters: Some(meters), ..self }
    }

    /// Checks a change against history and the members before it, and takes it in if every guard holds.
    pub fn add(&mut self, change: Change) -> Result<Committed, CommitError> {
        for guard in &change.guards {
            self.check(guard, change.position)?;
        }
        if let Some((tenant, _)) = change.leaves.iter().find(|(tenant, _)| !self.lanes.contains_key(tenant)) {
            tracing::error!(tenant = tenant.0, "a leaf for a tenant whose log is not open; the change was refused");
            return Err(CommitError::Closed);
        }
        // Last of what may refuse it: all is counted or nothing.
        if let Some(charge) = &change.charge {
            let meters = self.meters.as_mut().ok_or(CommitError::Closed)?;
            meters.charge(charge, self.time).map_err(CommitError::Quota)?;
        }
        for fact in &change.changes {
            self.table.record(*fact, self.number);
        }
        self.batch.extend(change.mutations);
        let mut leaves = Vec::with_capacity(change.leaves.len());
        for (tenant, leaf) in &change.leaves {
            if !self.touched.contains_key(tenant)
                && let Some(lane) = self.lanes.get(tenant)
            {
                self.touched.insert(*tenant, lane.clone());
            }
            if let Some(lane) = self.touched.get_mut(tenant) {
                let index = lane.append(*tenant, leaf, self.time, &mut self.batch);
                leaves.push(index);
                if leaf.restricts(*tenant) {
                    let log = Log { tenant: *tenant, incarnation: lane.incarnation };
                    let line = leaf.finish(index, Timestamp(self.time));
                    self.restricting.push(Record::Leaf { log, index, line });
                }
            }
        }
        self.members += 1;
        Ok(Committed { position: Position(self.number), leaves, time: Timestamp(self.time) })
    }

    fn check(&self, guard: &Guard, position: Position) -> Result<(), CommitError> {
        match guard {
            Guard::Unchanged(fact) => match self.table.since(fact, position) {
                Seen::Unchanged => Ok(()),
                Seen::Changed => Err(CommitError::Conflict(*fact)),
                Seen::TooOld => Err(CommitError::TooOld),
            },
            Guard::Before(instant) if self.time < instant.0 => Ok(()),
            Guard::Before(_) => Err(CommitError::Expired),
        }
    }

    /// Closes the group: the heads of the touched lanes join the write.
    pub fn stage(mut self) -> Staged {
        for (tenant, lane) in &self.touched {
            self.batch.push(Mutation::Put(Family::Meta, Lane::key(*tenant), lane.head().encode()));
        }
        if let Some(meters) = self.meters {
            meters.stage(&mut self.batch);
        }
        let Self { batch, touched: lanes, members, restricting, .. } = self;
        Staged { batch, lanes, members, restricting }
    }
}

#[cfg(test)]
mod tests {
    use strongroom_ids::RowId;

    use super::*;
    use crate::fact::Fact;
    use crate::testing::{OTHER, TENANT, empty_head, leaf, put};

    const NOW: u64 = 1_000;

    fn lanes() -> Lanes {
        [TENANT, OTHER].map(|tenant| (tenant, Lane::open(&empty_head()).unwrap())).into()
    }

    fn change(guards: Vec<Guard>, changes: Vec<Fact>) -> Change {
        Change {
            position: Position(0),
            guards,
            changes,
            mutations: vec![put(1, 1)],
            leaves: vec![(TENANT, leaf("x"))],
            charge: None,
        }
    }

    #[test]
    fn a_change_sees_what_earlier_members_of_its_group_do_and_later_ones_go_on() {
        let (mut table, lanes) = (ConflictTable::new(100, 0), lanes());
        let mut group = Group::new(&mut table, &lanes, 1, NOW);
        let row = Fact::row(TENANT, RowId(1));
        let unchanged = || vec![Guard::Unchanged(row)];
        assert_eq!(group.add(change(unchanged(), vec![row])).unwrap().leaves, [0]);
        assert_eq!(group.add(change(unchanged(), vec![row])), Err(CommitError::Conflict(row)));
        assert_eq!(group.add(change(vec![], vec![])).unwrap().leaves, [1]);
        let staged = group.stage();
        assert_eq!(staged.members, 2);
        // Two mutations, two leaves, one head.
        assert_eq!(staged.batch.len(), 5);
    }

    #[test]
    fn a_change_that_is_turned_back_leaves_no_trace() {
        let (mut table, lanes) = (ConflictTable::new(100, 0), lanes());
        let row = Fact::row(TENANT, RowId(1));
        let mut group = Group::new(&mut table, &lanes, 1, NOW);
        assert_eq!(group.add(change(vec![Guard::Before(Timestamp(NOW))], vec![row])), Err(CommitError::Expired));
        let nobody = Change { leaves: vec![(TenantNo(99), leaf("x"))], ..change(vec![], vec![row]) };
        assert_eq!(group.add(nobody), Err(CommitError::Closed));
        assert!(group.add(change(vec![Guard::Unchanged(row)], vec![])).is_ok());
        assert_eq!(group.stage().members, 1);
    }

    #[test]
    fn before_holds_up_to_the_last_microsecond() {
        let (mut table, lanes) = (ConflictTable::new(100, 0), lanes());
        let mut group = Group::new(&mut table, &lanes, 1, NOW);
        assert!(group.add(change(vec![Guard::Before(Timestamp(NOW + 1))], vec![])).is_ok());
        assert_eq!(group.add(change(vec![Guard::Before(Timestamp(NOW))], vec![])), Err(CommitError::Expired));
    }

    #[test]
    fn a_change_without_facts_to_guard_is_never_too_old() {
        let (mut table, lanes) = (ConflictTable::new(100, 0), lanes());
        table.forget(50);
        let mut group = Group::new(&mut table, &lanes, 51, NOW);
        let guard = Guard::Unchanged(Fact::policy(TENANT));
        assert_eq!(group.add(change(vec![guard], vec![])), Err(CommitError::TooOld));
        assert!(group.add(change(vec![Guard::Before(Timestamp(NOW + 1))], vec![])).is_ok());
    }

    #[test]
    fn each_log_counts_its_own_leaves() {
        let (mut table, lanes) = (ConflictTable::new(100, 0), lanes());
        let mut group = Group::new(&mut table, &lanes, 1, NOW);
        let leaves = [TENANT, OTHER, TENANT, TENANT].map(|tenant| (tenant, leaf("x"))).into();
        let committed = group.add(Change { leaves, ..change(vec![], vec![]) }).unwrap();
        assert_eq!(committed.leaves, [0, 0, 1, 2]);
        let staged = group.stage();
        assert_eq!((staged.lanes[&TENANT].frontier.size(), staged.lanes[&OTHER].frontier.size()), (3, 1));
    }
}
