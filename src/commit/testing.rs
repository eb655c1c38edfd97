//! What the tests of this room share: a disk that fails on demand and lets writes through one by one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use ring::signature::{Ed25519KeyPair, KeyPair};
use strongroom_ids::{TenantNo, VaultId};
use strongroom_ledger::leaf::{self, LeafHeader, ParsedLeaf, PreparedLeaf, sample::header};
use strongroom_storage::faulty::{Faults, FaultyStore};
use strongroom_storage::memory::{MemorySnapshot, MemoryStore};
use strongroom_storage::rows::LaneHead;
use strongroom_storage::{Entry, Family, KeyRange, Mutation, Range, Store, StoreError, keys};
use tokio::sync::Semaphore;

use crate::change::{Change, CommitError, Committed};
use crate::committer::{Committer, Start, StartError};
use crate::head_file::{HeadFile, HeadKey};
use crate::lane::Lane;
use crate::meter::Meters;

pub const TENANT: TenantNo = TenantNo(1);
pub const OTHER: TenantNo = TenantNo(2);
pub const VAULT: VaultId = VaultId([7; 16]);

pub fn public_key() -> [u8; 32] {
    head_key(9).public
}

/// A key for head files.
pub fn head_key(seed: u8) -> HeadKey {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public = pair.public_key().as_ref().try_into().unwrap();
    HeadKey { public, sign: Arc::new(move |text| pair.sign(text).as_ref().try_into().unwrap()) }
}

pub fn head_file(path: &Path) -> HeadFile {
    HeadFile::new(path, VAULT, Arc::new(|| Some(head_key(9))))
}

/// A leaf that can be told from others by its action.
pub fn leaf(action: &str) -> PreparedLeaf {
    let header =
        LeafHeader { request: &[1; 16], principal: "app", action, policy: 1, schema: 1, client: "", ..header() };
    leaf::prepare(&header, std::iter::empty()).remove(0)
}

pub fn put(key: u8, value: u8) -> Mutation {
    Mutation::Put(Family::Rows, vec![key], vec![value])
}

pub fn empty_head() -> LaneHead {
    LaneHead { incarnation: 1, size: 0, time: 0, frontier: vec![], rules: vec![] }
}

/// A disk in memory. While its gate is shut, writes wait.
pub struct Disk {
    store: FaultyStore<MemoryStore>,
    pub faults: Faults,
    gate: Semaphore,
    /// Writes that have begun.
    begun: AtomicUsize,
}

const OPEN: usize = 1 << 20;

impl Default for Disk {
    fn default() -> Self {
        Self::of(MemoryStore::default())
    }
}

impl Disk {
    pub fn of(store: MemoryStore) -> Self {
        let faults = Faults::default();
        Self {
            store: FaultyStore::new(store, faults.clone()),
            faults,
            gate: Semaphore::new(OPEN),
            begun: AtomicUsize::new(0),
        }
    }

    pub fn shut(&self) {
        self.gate.forget_permits(OPEN);
    }

    pub fn open(&self) {
        self.gate.add_permits(OPEN);
    }

    pub fn writes(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    pub async fn wait_for_write(&self, number: usize) {
        while self.writes() < number {
            tokio::task::yield_now().await;
        }
    }
}

impl Store for Disk {
    type Snapshot = strongroom_storage::faulty::FaultySnapshot<MemorySnapshot>;

    async fn get(&self, family: Family, key: Vec<u8>) -> Result<Option<Bytes>, StoreError> {
        self.store.get(family, key).await
    }

    async fn multi_get(&self, family: Family, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.store.multi_get(family, keys).await
    }

    async fn scan(&self, family: Family, range: Range) -> Result<Vec<Entry>, StoreError> {
        self.store.scan(family, range).await
    }

    async fn snapshot(&self) -> Result<Self::Snapshot, StoreError> {
        self.store.snapshot().await
    }

    async fn purge(&self, family: Family, from: Vec<u8>, to: Vec<u8>) -> Result<(), StoreError> {
        self.store.purge(family, from, to).await
    }

    async fn scrub(&self, ranges: Vec<KeyRange>) -> Result<(), StoreError> {
        self.store.scrub(ranges).await
    }

    async fn write(&self, batch: Vec<Mutation>) -> Result<(), StoreError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let _passed = self.gate.acquire().await.unwrap();
        self.store.write(batch).await
    }

    async fn reopen(&self) -> Result<(), StoreError> {
        self.store.reopen().await
    }
}

/// The lanes of both tenants as they are stored.
pub async fn stored_lanes(store: &impl Store) -> Vec<(TenantNo, LaneHead)> {
    let mut lanes = Vec::new();
    for tenant in [TENANT, OTHER] {
        let bytes = store.get(Family::Meta, Lane::key(tenant)).await.unwrap();
        lanes.push((tenant, bytes.map_or_else(empty_head, |bytes| LaneHead::decode(&bytes).unwrap())));
    }
    lanes
}

/// A tenant's leaves as they are stored, each at its index.
pub async fn stored_leaves(store: &impl Store, tenant: TenantNo) -> Vec<ParsedLeaf> {
    let (from, to) = keys::leaves_range(tenant, 0, u64::MAX);
    let page = store.scan(Family::Leaves, Range { from, to, limit: usize::MAX }).await.unwrap();
    page.iter().map(|(_, line)| leaf::parse(line).unwrap()).collect()
}

pub fn clock_at(time: u64) -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(time))
}

pub async fn start<S: Store>(
    store: Arc<S>,
    head: Option<HeadFile>,
    clock: Arc<AtomicU64>,
) -> Result<Committer, StartError> {
    let lanes = stored_lanes(&*store).await;
    let meters = Meters::load(&*store, lanes.iter().map(|(tenant, head)| (*tenant, head.time))).await.unwrap();
    let clock = Arc::new(move || clock.load(Ordering::SeqCst));
    Committer::start(store, Start { lanes, head, journal: None, clock, queue: 64, table: 1 << 10, meters })
}

/// A committer over a disk, with a clock to turn.
pub struct Rig {
    pub disk: Arc<Disk>,
    pub committer: Committer,
    pub clock: Arc<AtomicU64>,
}

impl Rig {
    pub async fn new() -> Self {
        Self::over(Disk::default()).await
    }

    pub async fn over(disk: Disk) -> Self {
        let (disk, clock) = (Arc::new(disk), clock_at(1_000));
        let committer = start(Arc::clone(&disk), None, Arc::clone(&clock)).await.unwrap();
        Self { disk, committer, clock }
    }

    pub async fn with_head(store: MemoryStore, head: HeadFile) -> Self {
        let (disk, clock) = (Arc::new(Disk::of(store)), clock_at(1_000));
        let committer = start(Arc::clone(&disk), Some(head), Arc::clone(&clock)).await.unwrap();
        Self { disk, committer, clock }
    }

    /// A change without guards, as of now.
    pub fn change(&self, mutations: Vec<Mutation>, leaves: Vec<(TenantNo, PreparedLeaf)>) -> Change {
        Change { position: self.committer.position(), guards: vec![], changes: vec![], mutations, leaves, charge: None }
    }

    pub async fn append(&self, tenant: TenantNo, action: &str) -> Result<Committed, CommitError> {
        self.committer.commit(self.change(vec![], vec![(tenant, leaf(action))])).await
    }
}
