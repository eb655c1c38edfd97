//! What is written over a store that nobody serves, when a restore begins a new incarnation of its logs.
//!
//! The order is what makes it safe to be cut off anywhere: the store in one write, then the journal, then the head file. Until
//! the last one is there the store does not start, and the same restore may be made again.

use std::io;

use strongroom_ids::TenantNo;
use strongroom_ledger::journal::JournalEnd;
use strongroom_ledger::leaf::PreparedLeaf;
use strongroom_storage::rows::LaneHead;
use strongroom_storage::{Family, Mutation, Store, StoreError};

use crate::group::Lanes;
use crate::head_file::HeadFile;
use crate::journal::{Journal, JournalError};
use crate::lane::Lane;

/// What is to be written, all or nothing.
pub struct Offline {
    /// Every log, as it shall go on: perhaps in another incarnation.
    pub lanes: Vec<(TenantNo, LaneHead)>,
    /// Rows.
    pub mutations: Vec<Mutation>,
    /// Leaves, in their order.
    pub leaves: Vec<(TenantNo, PreparedLeaf)>,
    /// The time that they bear, in microseconds since 1970: not before that of any leaf.
    pub time: u64,
}

impl Offline {
    /// Writes it in one durable write, and returns the logs as they are then.
    pub async fn write<S: Store>(self, store: &S) -> Result<Vec<(TenantNo, LaneHead)>, StoreError> {
        let mut batch = self.mutations;
        let mut lanes = Vec::with_capacity(self.lanes.len());
        for (tenant, head) in &self.lanes {
            let mut lane = Lane::open(head)?;
            for (_, leaf) in self.leaves.iter().filter(|(whose, _)| whose == tenant) {
                lane.append(*tenant, leaf, self.time, &mut batch);
            }
            batch.push(Mutation::Put(Family::Meta, Lane::key(*tenant), lane.head().encode()));
            lanes.push((*tenant, lane.head()));
        }
        store.write(batch).await?;
        Ok(lanes)
    }
}

/// The logs whose heads these are.
pub(crate) fn opened(lanes: &[(TenantNo, LaneHead)]) -> Result<Lanes, StoreError> {
    lanes.iter().map(|(tenant, head)| Ok((*tenant, Lane::open(head)?))).collect()
}

impl HeadFile {
    /// Writes the file of a vault that nobody serves and whose journal has come so far.
    pub fn write_closed(&self, lanes: &[(TenantNo, LaneHead)], journal: JournalEnd) -> io::Result<()> {
        self.write(&opened(lanes).map_err(io::Error::other)?, Some(journal), true)
    }
}

impl Journal {
    /// Whether a store, whose logs these are, has all that the journal knows.
    pub fn is_reached_by(&self, lanes: &[(TenantNo, LaneHead)]) -> Result<(), JournalError> {
        self.is_followed(&opened(lanes)?)
    }
}
