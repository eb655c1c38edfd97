//! What a request brings to the committer, and what it gets back.

use std::fmt;
use std::time::Duration;

use strongroom_ids::TenantNo;
use strongroom_ledger::Timestamp;
use strongroom_ledger::leaf::PreparedLeaf;
use strongroom_storage::Mutation;
use thiserror::Error;

use crate::fact::Fact;
use crate::meter::{Charge, Quota};

/// A point of the store's history: the number of the last group that was applied. It counts from the start of the
/// process and is never stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Position(pub(crate) u64);

impl Position {
    /// How many groups were applied before it.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// What must hold for a change to be stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guard {
    /// The fact has not changed since the change's position.
    Unchanged(Fact),
    /// The leaf's own time lies before this instant.
    Before(Timestamp),
}

/// What a request wants stored, all or nothing.
pub struct Change {
    /// Where in history the request read: [`crate::Committer::position`], called before the first read.
    pub position: Position,
    /// What must hold. A change without guards is never turned back.
    pub guards: Vec<Guard>,
    /// The facts that this change changes, whether or not it guards them.
    pub changes: Vec<Fact>,
    /// What is written. Where two mutations of one key meet, the later one wins; between changes, the later change.
    pub mutations: Vec<Mutation>,
    /// The leaves to append, in their order.
    pub leaves: Vec<(TenantNo, PreparedLeaf)>,
    /// What it lets be told, of an allowance; `None` if nobody counts it.
    pub charge: Option<Box<Charge>>,
}

impl fmt::Debug for Change {
    /// Counts only: mutations hold what the vault keeps.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change")
            .field("position", &self.position)
            .field("guards", &self.guards.len())
            .field("changes", &self.changes.len())
            .field("mutations", &self.mutations.len())
            .field("leaves", &self.leaves.len())
            .finish()
    }
}

/// What a stored change became.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// The point of history from which on the change is seen.
    pub position: Position,
    /// The index of each leaf in its tenant's log, in the order they were given.
    pub leaves: Vec<u64>,
    /// The time that the leaves bear.
    pub time: Timestamp,
}

/// Why a change was not stored, or is not known to be.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CommitError {
    /// Somebody else changed a fact that the change relied on. Nothing was stored.
    #[error("another request changed what this one read; nothing was stored: read again and retry")]
    Conflict(Fact),
    /// An instant that the change had to come before is past. Nothing was stored.
    #[error("a time limit of the request has passed; nothing was stored: read again and decide anew")]
    Expired,
    /// The position lies before what the committer remembers. Nothing was stored.
    #[error("the request read too long ago to tell what changed since; nothing was stored: read again and retry")]
    TooOld,
    /// The queue is full. Nothing was stored.
    #[error("too much work is waiting; nothing was stored: try again after {retry_after:?}")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// It tells more than its principal may be told now. Nothing was stored.
    #[error("{0}; nothing was stored: try again after {after:?}", after = .0.retry_after)]
    Quota(Quota),
    /// The write failed, and nobody knows whether it was stored.
    #[error("the write failed and whether it was stored is unknown: retry with the same idempotency key")]
    Unknown,
    /// The committer recovers from a failed write, was shut down, or has no such log. Nothing was stored.
    #[error("the committer is not taking changes now; nothing was stored: try again after a moment")]
    Closed,
}
