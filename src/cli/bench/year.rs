//! A year of a lender's log, in a vault of its own that nobody serves.
//!
//! The vault is a real one, with a schema and a few subjects that it knows. What fills its log are made-up leaves, appended
//! by a committer over its store: by requests it would take an hour. So no values stand behind them, and `verify` would
//! say so. The year is by the vault's own clock, which is one that is set.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use strongroom_access::{Principal, Role};
use strongroom_commit::{
    Change, CommitError, Committed, Committer, HeadFile, HeadKey, Journal, JournalPlace, Meters, Start,
};
use strongroom_ids::{SubjectHandle, TenantNo, VaultId};
use strongroom_keys::{ArgonCost, IndexName, Keystore, Passphrase, PassphraseRoot};
use strongroom_ledger::leaf;
use strongroom_rocksdb::{Background, RocksOptions, RocksStore};
use strongroom_storage::rows::{BLOCK, LaneHead, TenantRow};
use strongroom_storage::{Family, Range, Store, keys};
use strongroom_vault::{
    ApplySchema, Caller, Clock, Export, LANE, Limits, MachineTime, NewTenant, NewValue, NewVault, Opening, Retention,
    Tokenize, Vault, create,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::mix::Mix;
use super::process::Process;
use super::work::unfit;
use crate::cli::dev;
use crate::cli::layout::Layout;
use crate::cli::output::CliError;
use crate::cli::start::RocksVault;

const TENANT: TenantNo = TenantNo(1);
/// Tenants of the vault, `system` with them.
const TENANTS: usize = 2;
/// When it begins, in microseconds since 1970, and how long it is.
const BEGUN: u64 = 1_750_000_000_000_000;
const YEAR: u64 = 365 * 86_400_000_000;
/// Changes in which the log grows, and leaves of one at least and at most: those of a change have one time.
const CHANGES: u64 = 4_096;
const TOGETHER: (u64, u64) = (16, 1_024);
/// Subjects that the vault knows.
pub const KNOWN: u64 = 5;
/// As many as a vault lets wait, and as many facts as it takes to keep none.
const QUEUE: usize = 4_096;
const FACTS: usize = 1 << 10;
/// How often it is looked how far the index is.
const LOOK: Duration = Duration::from_millis(20);
/// How long it may stand still.
const PATIENCE: Duration = Duration::from_secs(120);

/// A vault with a log of a year.
pub struct Year {
    /// The vault, open.
    pub vault: Arc<RocksVault>,
    /// Who asks.
    pub auditor: Caller,
    /// Leaves of the log.
    pub leaves: u64,
    /// How long the made-up ones took to be appended.
    pub filled_in: Duration,
    background: Background,
}

/// How the index followed the log.
#[derive(Clone, Copy)]
pub struct Followed {
    /// Leaves that it took since it was first seen to move.
    pub leaves: u64,
    /// How long that took.
    pub time: Duration,
    /// Processor time of the process meanwhile.
    pub cpu: Option<Duration>,
    /// Bytes of the index on disk.
    pub index_bytes: u64,
    /// Bytes of the leaves themselves.
    pub leaf_bytes: u64,
}

impl Year {
    /// Makes one in a folder that does not exist, of so many leaves.
    pub async fn make(folder: &Path, leaves: u64) -> Result<Self, CliError> {
        std::fs::create_dir(folder).map_err(|error| CliError::file(folder, error))?;
        let layout = Layout::new(folder);
        let now = Arc::new(AtomicU64::new(BEGUN));
        let id = VaultId(strongroom_keys::random().map_err(unfit)?);
        make_vault(&layout, id, clock(&now)).await?;
        let (vault, _) = open(&layout, &now).await?;
        let known = know_subjects(&vault).await?;
        vault.close().await;
        drop(vault);
        let filled_in = fill(&layout, id, leaves, known, &now).await?;
        let (vault, background) = open(&layout, &now).await?;
        let auditor = caller(Role::Auditor, "auditor");
        let leaves = size(&vault, &auditor).await?;
        Ok(Self { vault, auditor, leaves, filled_in, background })
    }

    /// Has the vault keep its house, as one that is served does, until the index is where the log is; and then its store come
    /// to rest.
    pub async fn follow(&self) -> Result<Followed, CliError> {
        let (stop, stopped) = oneshot::channel::<()>();
        let house = tokio::spawn({
            let vault = Arc::clone(&self.vault);
            async move { vault.keep_house(async move { drop(stopped.await) }).await }
        });
        let all = self.leaves - self.leaves % BLOCK;
        let (mut last, mut moved) = (0, Instant::now());
        // What it took before it was first seen to move is not counted: nobody knows how long that took.
        let mut begun = (0, moved, Process::Own.cpu());
        let leaves = loop {
            let leaves = self.vault.indexed_leaves(TENANT).await.map_err(unfit)?;
            if leaves >= all {
                break leaves;
            }
            if last == 0 {
                begun = (leaves, Instant::now(), Process::Own.cpu());
            }
            if leaves > last {
                (last, moved) = (leaves, Instant::now());
            } else if moved.elapsed() > PATIENCE {
                return Err(CliError::unfit("the vault does not take its leaves into their index"));
            }
            tokio::time::sleep(LOOK).await;
        };
        let (first, began, before) = begun;
        let (leaves, time) = (leaves - first, began.elapsed());
        let cpu = Process::Own.cpu().zip(before).map(|(after, before)| after.saturating_sub(before));
        drop(stop);
        house.await.map_err(unfit)?;
        self.background.drain().await.map_err(unfit)?;
        let bytes = |family| self.background.files(family).map_err(unfit);
        let (index_bytes, leaf_bytes) = (bytes(Family::LeafIndex)?, bytes(Family::Leaves)?);
        Ok(Followed { leaves, time, cpu, index_bytes, leaf_bytes })
    }

    /// When a part of the year begins, in microseconds since 1970: 0 is its beginning, 1 its end.
    pub fn at(part: f64) -> u64 {
        BEGUN + (YEAR as f64 * part) as u64
    }

    /// The id of one of the subjects that the vault knows.
    pub fn subject(number: u64) -> String {
        format!("cust-{}", number % KNOWN)
    }

    /// Closes the vault.
    pub async fn end(self) {
        self.vault.close().await;
    }
}

fn root() -> Result<PassphraseRoot, CliError> {
    let passphrase = Passphrase::new("a vault that protects nothing".to_owned()).map_err(unfit)?;
    Ok(PassphraseRoot::new(passphrase, ArgonCost::LEAST))
}

fn clock(now: &Arc<AtomicU64>) -> Clock {
    let now = Arc::clone(now);
    Arc::new(move || now.load(Ordering::Relaxed))
}

fn caller(role: Role, name: &str) -> Caller {
    Caller::new(Arc::new(Principal::new(TENANT, role, name)), "local")
}

async fn make_vault(layout: &Layout, id: VaultId, clock: Clock) -> Result<(), CliError> {
    let keystore = Keystore::create(&layout.keystore(), id, &root()?).map_err(unfit)?;
    let store = RocksStore::create(&layout.data(), RocksOptions::default()).map_err(unfit)?;
    let officers = [("alice", 1), ("bob", 2)].map(|(name, key)| (name.to_owned(), [key; 32])).into();
    let new = NewVault {
        store,
        keystore,
        head_file: layout.head(),
        journal: layout.journal(),
        trust_domain: "bench.example".to_owned(),
        trust_anchors: vec![[3; 32]],
        tenants: vec![NewTenant { name: "bench".to_owned(), officers }],
        clock,
    };
    create(new).await.map_err(unfit)
}

async fn open(layout: &Layout, now: &Arc<AtomicU64>) -> Result<(Arc<RocksVault>, Background), CliError> {
    let store = RocksStore::open(&layout.data(), RocksOptions::default()).map_err(unfit)?;
    let background = store.background();
    let opening = Opening {
        store,
        keystore: Keystore::open(&layout.keystore(), &root()?).map_err(unfit)?,
        head_file: layout.head(),
        journal: layout.journal(),
        limits: Limits::MOST,
        hot_deks: 100,
        space: Arc::new(|| false),
        clock: clock(now),
        machine: MachineTime::of_one(clock(now)),
        retention: Retention::default(),
    };
    Ok((Arc::new(Vault::open(opening).await.map_err(unfit)?), background))
}

/// Puts a schema in force and stores a value of each subject that the vault shall know; their handles, in order.
async fn know_subjects(vault: &RocksVault) -> Result<Vec<SubjectHandle>, CliError> {
    let schema = ApplySchema { source: dev::LENDING.to_owned(), dry_run: false };
    vault.apply_schema(&caller(Role::Officer, "alice"), &schema).await.map_err(unfit)?;
    let value = |number| NewValue {
        field: "borrower.name".to_owned(),
        value: format!("Borrower {number}").into(),
        subject: Year::subject(number),
        expires: None,
        token: String::new(),
    };
    let items = (0..KNOWN).map(value).collect();
    let request = Tokenize { items, idempotency_key: String::new() };
    vault.tokenize(&caller(Role::App, "service-0"), &request).await.map_err(unfit)?;
    let mut pages = vault.export(&caller(Role::Auditor, "auditor"), &Export::default()).await.map_err(unfit)?;
    let mut handles = vec![];
    while let Some(page) = pages.next().await.map_err(unfit)? {
        for line in &page.leaves {
            handles.extend(leaf::parse(line).map_err(unfit)?.items.iter().filter_map(|item| item.subject));
        }
    }
    // Each stands beside its record and beside its value. They are given in order.
    handles.sort_unstable();
    handles.dedup();
    match handles.len() as u64 == KNOWN {
        true => Ok(handles),
        false => Err(CliError::unfit("the vault did not record each subject that was stored")),
    }
}

/// How many leaves the log has: so many an export looks at.
async fn size(vault: &RocksVault, auditor: &Caller) -> Result<u64, CliError> {
    let pages = vault.export(auditor, &Export::default()).await.map_err(unfit)?;
    Ok(pages.total)
}

/// Appends made-up leaves to the log of a vault that is closed, a year long; how long that took.
async fn fill(
    layout: &Layout,
    id: VaultId,
    leaves: u64,
    known: Vec<SubjectHandle>,
    now: &Arc<AtomicU64>,
) -> Result<Duration, CliError> {
    let committer = committer(layout, id, clock(now)).await?;
    let mix = Mix::new(leaves, known);
    let together = (leaves / CHANGES).clamp(TOGETHER.0, TOGETHER.1);
    let began = Instant::now();
    let mut under_way: Option<JoinHandle<Result<Committed, CommitError>>> = None;
    for first in (0..leaves).step_by(together as usize) {
        let numbers = first..leaves.min(first + together);
        let prepared = numbers.flat_map(|number| mix.leaves(number)).map(|leaf| (TENANT, leaf)).collect();
        // The next are made meanwhile.
        if let Some(before) = under_way.take() {
            before.await.map_err(unfit)?.map_err(unfit)?;
        }
        now.store(Year::at(first as f64 / leaves as f64), Ordering::Relaxed);
        let committer = committer.clone();
        under_way = Some(tokio::spawn(async move {
            let change = Change {
                position: committer.position(),
                guards: vec![],
                changes: vec![],
                mutations: vec![],
                leaves: prepared,
                charge: None,
            };
            committer.commit(change).await
        }));
    }
    if let Some(last) = under_way {
        last.await.map_err(unfit)?.map_err(unfit)?;
    }
    let time = began.elapsed();
    committer.shutdown().await;
    now.store(Year::at(1.0), Ordering::Relaxed);
    Ok(time)
}

/// A committer over the store of a vault that is closed, with its head file and its journal.
async fn committer(layout: &Layout, id: VaultId, clock: Clock) -> Result<Committer, CliError> {
    let store = RocksStore::open(&layout.data(), RocksOptions::default()).map_err(unfit)?;
    let keystore = Arc::new(Keystore::open(&layout.keystore(), &root()?).map_err(unfit)?);
    let (from, to) = keys::tenants_range();
    let tenants = store.scan(Family::Meta, Range { from, to, limit: TENANTS }).await.map_err(unfit)?;
    let (mut lanes, mut system) = (vec![], None);
    for (_, row) in tenants {
        let tenant = TenantRow::decode(&row).map_err(unfit)?;
        let head = store.get(Family::Meta, keys::lane(tenant.number, LANE)).await.map_err(unfit)?;
        let head = head.ok_or_else(|| CliError::unfit("a log of the vault has no head"))?;
        lanes.push((tenant.number, LaneHead::decode(&head).map_err(unfit)?));
        system = system.or((tenant.number == TenantNo(0)).then_some(tenant.id));
    }
    let system = system.ok_or_else(|| CliError::unfit("the vault has no log of its own"))?;
    let public = keystore.ledger_key(system).map_err(unfit)?.public_key();
    let signed = HeadFile::read(&layout.head(), id, &[public]).map_err(unfit)?;
    let mac = keystore.index_key(system, IndexName::Fingerprint).map_err(unfit)?;
    let place = JournalPlace { folder: layout.journal(), vault: id, mac: Arc::new(move |parts| mac.mac(parts)) };
    let mut journal = Journal::open(place, signed.journal).map_err(unfit)?;
    journal.follow(&lanes, &store).await.map_err(unfit)?;
    let newest = move || {
        let key = keystore.ledger_key(system).ok()?;
        Some(HeadKey { public: key.public_key(), sign: Arc::new(move |text| key.sign(text)) })
    };
    let start = Start {
        lanes,
        head: Some(HeadFile::new(layout.head(), id, Arc::new(newest))),
        journal: Some(journal),
        clock,
        queue: QUEUE,
        table: FACTS,
        meters: Meters::new(),
    };
    Committer::start(Arc::new(store), start).map_err(unfit)
}
