//! What every room may ask of a store, and nothing more.

use std::future::Future;

use bytes::Bytes;
use thiserror::Error;

/// The kinds of rows, each in a column family of its own. FORMAT.md in this folder says what each holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Family {
    /// The vault's own rows: tenants, lane heads, counters, schemas, policies, principals.
    Meta = 0,
    /// Value rows, keyed by tenant and row id: inserts are in order.
    Rows = 1,
    /// Wrapped DEKs of values that have no subject, beside their rows.
    RowDeks = 2,
    /// Subject records, keyed by tenant and handle.
    Subjects = 3,
    /// A subject's rows: one empty entry per (handle, row id).
    SubjectRows = 4,
    /// Holders of a tenant-wide value: one empty entry per (row id, handle).
    Holders = 5,
    /// Blind indexes: values, subject ids and shaped tokens lead to row ids and handles.
    Index = 6,
    /// Idempotency keys and what they made.
    Idempotency = 7,
    /// Ledger leaves, keyed by tenant and leaf index.
    Leaves = 8,
    /// Tiles of the ledgers' trees, keyed by tenant, level and index.
    Tiles = 9,
    /// Which leaves auditors find by what, keyed by tenant, term and the first of 256 leaves.
    LeafIndex = 10,
    /// What stands for leaves that were archived: how far each ledger is, and the sum of those leaves, in pages.
    Archived = 11,
}

impl Family {
    /// Every family, in the order of its number.
    pub const ALL: [Self; 12] = [
        Self::Meta,
        Self::Rows,
        Self::RowDeks,
        Self::Subjects,
        Self::SubjectRows,
        Self::Holders,
        Self::Index,
        Self::Idempotency,
        Self::Leaves,
        Self::Tiles,
        Self::LeafIndex,
        Self::Archived,
    ];

    /// Whether a store may lack it, as those of earlier versions do: it is made then. What the index of leaves holds follows
    /// from other families, and comes again by itself; and where nothing was ever archived nothing stands for it.
    pub fn may_be_missing(self) -> bool {
        matches!(self, Self::LeafIndex | Self::Archived)
    }

    /// The name under which a store keeps it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Rows => "rows",
            Self::RowDeks => "row_deks",
            Self::Subjects => "subjects",
            Self::SubjectRows => "subject_rows",
            Self::Holders => "holders",
            Self::Index => "index",
            Self::Idempotency => "idempotency",
            Self::Leaves => "leaves",
            Self::Tiles => "tiles",
            Self::LeafIndex => "leaf_index",
            Self::Archived => "archived",
        }
    }
}

/// One change to one entry.
#[derive(Clone, PartialEq, Eq)]
pub enum Mutation {
    /// Writes an entry, over the old one if there is any.
    Put(Family, Vec<u8>, Vec<u8>),
    /// Removes an entry; removing what is not there is no error.
    Delete(Family, Vec<u8>),
}

/// Why a store could not answer. None of these shows a key or a value.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Bytes on disk are not what was written.
    #[error("data loss in {place}: {what}; put the newest copy of its data back")]
    Corrupt {
        /// Which part of the store.
        place: &'static str,
        /// What was found wrong.
        what: String,
    },
    /// The store could not read or write; the outcome of a write is unknown.
    #[error("the store cannot {doing}: {what}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the operating system or the engine said.
        what: String,
    },
    /// Files may still have what was removed. Nothing else is wrong, and it can be asked for again.
    #[error("what was removed may still be in files: {what}; try again")]
    StillInFiles {
        /// Why.
        what: String,
    },
    /// The store is closed while it recovers from a failed write.
    #[error("the store is closed while it recovers; try again")]
    Closed,
}

/// Where a page of a scan begins and ends, and how much it may bring.
#[derive(Clone, Debug)]
pub struct Range {
    /// First key, inclusive.
    pub from: Vec<u8>,
    /// First key after the range, exclusive; empty means to the end of the family.
    pub to: Vec<u8>,
    /// At most this many entries.
    pub limit: usize,
}

/// The keys of one family between two, the second exclusive; empty for the end of the family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRange {
    /// The family.
    pub family: Family,
    /// The first key.
    pub from: Vec<u8>,
    /// The one behind the last.
    pub to: Vec<u8>,
}

/// One entry of a scan.
pub type Entry = (Bytes, Bytes);

/// Ordered keys with one durable, atomic write.
///
/// Implementations: `strongroom_rocksdb::RocksStore`, the embedded default; `strongroom_rocksdb::RocksReader`, which only reads
/// and refuses to write; [`crate::memory::MemoryStore`], for tests; [`crate::faulty::FaultyStore`], which injects faults into
/// any other. [`crate::suite`] runs over all of them. No
/// iterator leaves a store: a scan brings pages. Nothing else may be used to reach what is stored.
pub trait Store: Send + Sync + 'static {
    /// A view of the store at one moment, for what is counted over all of it. An export needs none: it reads leaves, which
    /// never change.
    type Snapshot: Snapshot;

    /// The value under `key`, if there is one.
    fn get(&self, family: Family, key: Vec<u8>) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send;

    /// The values under `keys`, in their order.
    fn multi_get(
        &self,
        family: Family,
        keys: Vec<Vec<u8>>,
    ) -> impl Future<Output = Result<Vec<Option<Bytes>>, StoreError>> + Send;

    /// One page of entries in key order. The next page starts after the last key of this one.
    fn scan(&self, family: Family, range: Range) -> impl Future<Output = Result<Vec<Entry>, StoreError>> + Send;

    /// A view that later writes do not change.
    fn snapshot(&self) -> impl Future<Output = Result<Self::Snapshot, StoreError>> + Send;

    /// Removes a range of one family and sees that no file keeps it.
    fn purge(&self, family: Family, from: Vec<u8>, to: Vec<u8>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Sees that no file keeps what was removed from these ranges, or overwritten there, before this was asked for; what stands there
    /// stays. [`StoreError::StillInFiles`] if a file may keep it, as while somebody has a snapshot from before, or a file that was
    /// replaced is still read.
    fn scrub(&self, ranges: Vec<KeyRange>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Applies all mutations or none, in their order, and returns when they are on stable storage. An embedded store
    /// does the work on the calling thread, so the committer calls it from a thread of its own. After an error nobody
    /// knows whether the mutations are stored: [`Store::reopen`] first.
    fn write(&self, batch: Vec<Mutation>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Closes the store and opens it again, so that what it answers is what is on disk.
    fn reopen(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A store at one moment.
pub trait Snapshot: Send + Sync + 'static {
    /// The value under `key`, if there was one.
    fn get(&self, family: Family, key: Vec<u8>) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send;

    /// One page of entries in key order.
    fn scan(&self, family: Family, range: Range) -> impl Future<Output = Result<Vec<Entry>, StoreError>> + Send;
}
