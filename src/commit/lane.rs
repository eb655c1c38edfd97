//! One log's growing end, as the committer keeps it in memory.

use strongroom_ids::TenantNo;
use strongroom_ledger::leaf::PreparedLeaf;
use strongroom_ledger::{Frontier, LedgerError, Rules, Timestamp};
use strongroom_storage::rows::LaneHead;
use strongroom_storage::{Family, Mutation, StoreError, keys};

/// An embedded vault writes one lane a log.
const LANE: u16 = 0;

/// The durable end of one log, for checkpoints and status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneView {
    /// The number of leaves.
    pub size: u64,
    /// The tree's root over them, as in RFC 6962.
    pub root: [u8; 32],
    /// How often the vault was restored.
    pub incarnation: u16,
    /// The time of the last leaf.
    pub time: Timestamp,
    /// The rules that the leaves say are in force.
    pub rules: Rules,
}

/// A lane's head with its frontier ready to take leaves.
#[derive(Clone)]
pub(crate) struct Lane {
    pub incarnation: u16,
    pub time: u64,
    pub frontier: Frontier,
    /// What its leaves say is in force.
    pub rules: Rules,
}

impl Lane {
    /// The key of a log's head.
    pub fn key(tenant: TenantNo) -> Vec<u8> {
        keys::lane(tenant, LANE)
    }

    /// Reads a head; the frontier must have as many leaves as the head says.
    pub fn open(head: &LaneHead) -> Result<Self, StoreError> {
        let (frontier, rules) = if head.size == 0 && head.frontier.is_empty() && head.rules.is_empty() {
            (Frontier::default(), Rules::default())
        } else {
            let read = || Ok((Frontier::from_bytes(&head.frontier)?, Rules::from_bytes(&head.rules)?));
            read().map_err(|error: LedgerError| corrupt(error.to_string()))?
        };
        if frontier.size() != head.size {
            return Err(corrupt(format!("the frontier has {} leaves and the head {}", frontier.size(), head.size)));
        }
        Ok(Self { incarnation: head.incarnation, time: head.time, frontier, rules })
    }

    /// What is stored of it.
    pub fn head(&self) -> LaneHead {
        LaneHead {
            incarnation: self.incarnation,
            size: self.frontier.size(),
            time: self.time,
            frontier: self.frontier.to_bytes(),
            rules: self.rules.to_bytes(),
        }
    }

    /// What readers outside see of it.
    pub fn view(&self) -> LaneView {
        LaneView {
            size: self.frontier.size(),
            root: self.frontier.root(),
            incarnation: self.incarnation,
            time: Timestamp(self.time),
            rules: self.rules,
        }
    }

    /// Gives a leaf the next index and writes it; returns the index. The head is written once a group.
    pub fn append(&mut self, tenant: TenantNo, leaf: &PreparedLeaf, time: u64, batch: &mut Vec<Mutation>) -> u64 {
        let index = self.frontier.size();
        let line = leaf.finish(index, Timestamp(time));
        self.frontier.push(&line);
        if let Some(new) = leaf.new_rule()
            && !self.rules.put(new)
        {
            tracing::error!(
                tenant = tenant.0,
                index,
                "a leaf puts rules in force that are not newer than those before"
            );
        }
        self.time = time;
        batch.push(Mutation::Put(Family::Leaves, keys::leaf(tenant, index), line));
        index
    }
}

fn corrupt(what: String) -> StoreError {
    StoreError::Corrupt { place: "the head of a ledger lane", what }
}
