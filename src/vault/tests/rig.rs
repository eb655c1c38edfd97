//! The vault that these tests turn: over a store in memory, with a clock and a disk of their own.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::time::{Duration, Instant};

use rcgen::{KeyPair, PublicKeyData, SigningKey};
use strongroom_access::{Action, Principal, Role};
use strongroom_ids::{TenantNo, VaultId};
use strongroom_keys::{ArgonCost, Keystore, Passphrase, PassphraseRoot, RootProvider};
use strongroom_ledger::{approval, leaf};
use strongroom_storage::faulty::{Faults, FaultyStore};
use strongroom_storage::memory::MemoryStore;
use strongroom_storage::{Family, Range, Store};
use tempfile::TempDir;
use tokio::sync::watch;

use super::damaged::Damaged;
use crate::own_action::OwnAction;
use crate::{
    ApplyPolicy, ApplySchema, Approve, Caller, Clock, Detokenize, Error, Export, Finding, HeadFile, JournalFile,
    Limits, ListedApproval, MachineTime, NewTenant, NewValue, NewVault, OpenError, Opening, ReadItem, Retention, Space,
    Tokenize, Vault, Verification, create, verify, verify_journal, verify_with,
};

type Disk = FaultyStore<MemoryStore>;
pub type Tested = Vault<Disk>;

pub const LENDING: &str = include_str!("../../../deploy/schemas/lending.toml");
/// Threads that verify.
pub const THREADS: NonZeroUsize = NonZeroUsize::new(3).unwrap();
/// A vault in memory, and what its tests turn.
pub struct Bench {
    pub disk: MemoryStore,
    pub folder: TempDir,
    pub faults: Faults,
    pub now: Arc<AtomicU64>,
    /// How long the machine has run.
    pub running: Arc<AtomicU64>,
    /// How far the clock goes each time that somebody looks at it.
    pub step: Arc<AtomicU64>,
    pub full: Arc<AtomicBool>,
    /// Of the vault that was opened last: whether it is alive, and what its threads hold.
    pub last: Mutex<Option<(watch::Receiver<()>, Weak<Disk>)>>,
}

impl Bench {
    pub async fn new() -> (Self, Arc<Tested>) {
        let bench = Self {
            disk: MemoryStore::default(),
            folder: tempfile::tempdir().unwrap(),
            faults: Faults::default(),
            now: Arc::new(AtomicU64::new(1_700_000_000_000_000)),
            running: Arc::default(),
            step: Arc::new(AtomicU64::new(1)),
            full: Arc::default(),
            last: Mutex::default(),
        };
        let dir = bench.folder.path();
        let keystore = Keystore::create(dir, VaultId([7; 16]), &root()).unwrap();
        create(NewVault {
            store: FaultyStore::new(bench.disk.clone(), bench.faults.clone()),
            keystore,
            head_file: dir.join("head"),
            journal: dir.join("journal"),
            trust_domain: "test.example".to_owned(),
            trust_anchors: vec![[2; 32]],
            tenants: vec![NewTenant {
                name: "demo".to_owned(),
                officers: vec![("alice".to_owned(), [1; 32]), (SECOND.to_owned(), key_of_second())],
            }],
            clock: bench.clock(),
        })
        .await
        .unwrap();
        let vault = bench.open().await;
        let schema = ApplySchema { source: LENDING.to_owned(), dry_run: false };
        vault.apply_schema(&caller(Role::Officer), &schema).await.unwrap();
        (bench, vault)
    }

    pub async fn open(&self) -> Arc<Tested> {
        Arc::new(self.try_open().await.unwrap())
    }

    pub async fn try_open(&self) -> Result<Tested, OpenError> {
        self.try_open_with(&root()).await
    }

    pub async fn try_open_with(&self, root: &dyn RootProvider) -> Result<Tested, OpenError> {
        self.opened(root, Limits::MOST, Retention::default()).await
    }

    pub async fn open_within(&self, limits: Limits) -> Arc<Tested> {
        Arc::new(self.opened(&root(), limits, Retention::default()).await.unwrap())
    }

    pub async fn open_keeping(&self, retention: Retention) -> Arc<Tested> {
        Arc::new(self.opened(&root(), Limits::MOST, retention).await.unwrap())
    }

    async fn opened(&self, root: &dyn RootProvider, limits: Limits, retention: Retention) -> Result<Tested, OpenError> {
        self.left().await;
        let vault = Vault::open(Opening { retention, ..self.opening(root, limits) }).await?;
        *self.last.lock().unwrap() = Some((vault.alive.subscribe(), Arc::downgrade(&vault.store)));
        Ok(vault)
    }

    /// Waits until the threads of a vault that was dropped have ended: they write its head file once more, which would come
    /// in the way of the next vault's.
    async fn left(&self) {
        let Some((alive, disk)) = self.last.lock().unwrap().take() else { return };
        let begun = Instant::now();
        while alive.has_changed().is_err() && disk.strong_count() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(30), "a vault that was dropped is still there");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What the vault is opened from.
    pub fn opening(&self, root: &dyn RootProvider, limits: Limits) -> Opening<Disk> {
        let dir = self.folder.path();
        Opening {
            store: FaultyStore::new(self.disk.clone(), self.faults.clone()),
            keystore: Keystore::open(dir, root).unwrap(),
            head_file: dir.join("head"),
            journal: dir.join("journal"),
            limits,
            hot_deks: 100,
            space: self.space(),
            clock: self.clock(),
            machine: self.machine(),
            retention: Retention::default(),
        }
    }

    pub fn clock(&self) -> Clock {
        let (now, step) = (Arc::clone(&self.now), Arc::clone(&self.step));
        Arc::new(move || now.fetch_add(step.load(Ordering::Relaxed), Ordering::Relaxed))
    }

    pub fn space(&self) -> Space {
        let full = Arc::clone(&self.full);
        Arc::new(move || full.load(Ordering::Relaxed))
    }

    /// Time passes.
    pub fn pass(&self, seconds: u64) {
        self.running.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
        self.now.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }

    /// Somebody sets the clock.
    pub fn set_clock(&self, now: u64) {
        self.now.store(now, Ordering::Relaxed);
    }

    /// The machine's clocks: they tell the same, and looking at them moves nothing.
    pub fn machine(&self) -> MachineTime {
        let clock = |of: &Arc<AtomicU64>| -> Clock {
            let of = Arc::clone(of);
            Arc::new(move || of.load(Ordering::Relaxed))
        };
        MachineTime { wall: clock(&self.now), running: clock(&self.running) }
    }
}

/// A vault that is closed, as `verify` looks at it.
pub struct Closed<'b> {
    bench: &'b Bench,
    pub keystore: Keystore,
    head_file: HeadFile,
}

impl<'b> Closed<'b> {
    pub fn of(bench: &'b Bench) -> Self {
        let keystore = Keystore::open(bench.folder.path(), &root()).unwrap();
        Self { bench, keystore, head_file: HeadFile::read(&bench.folder.path().join("head")) }
    }

    pub fn against<'c>(&'c self, checkpoints: &'c [String]) -> Verification<'c, MemoryStore> {
        self.over(&self.bench.disk, checkpoints)
    }

    /// The same over another store.
    pub fn over<'c, S>(&'c self, store: &'c S, checkpoints: &'c [String]) -> Verification<'c, S> {
        let Self { keystore, head_file, .. } = self;
        Verification { store, keystore, head_file, checkpoints, threads: THREADS }
    }
}

/// Sees that every leaf is of an action that is known: so that none is forgotten where actions are listed.
async fn all_are_known(bench: &Bench) {
    let all = Range { from: vec![], to: vec![], limit: usize::MAX };
    for (_, line) in bench.disk.scan(Family::Leaves, all).await.unwrap() {
        let leaf = leaf::parse(&line).unwrap();
        let own = OwnAction::ALL.iter().any(|own| own.as_str() == leaf.action);
        assert!(own || leaf.action.parse::<Action>().is_ok(), "{} is no action", leaf.action);
    }
}

/// What `verify` finds in a vault that is closed.
pub async fn findings(bench: &Bench, checkpoints: &[String]) -> Vec<Finding> {
    let findings = verify(&Closed::of(bench).against(checkpoints), &mut |_| {}).await.unwrap().findings;
    if findings.is_empty() {
        all_are_known(bench).await;
    }
    findings
}

/// What `verify` finds in a vault that is closed, of which one family can't be read from a key on.
pub async fn findings_damaged(bench: &Bench, family: Family, from: Vec<u8>) -> Vec<Finding> {
    let store = Damaged { inner: bench.disk.clone(), family, from };
    verify(&Closed::of(bench).over(&store, &[]), &mut |_| {}).await.unwrap().findings
}

/// What `verify` finds in a vault that is closed when it holds the logs against the journal as well.
pub async fn findings_by_journal(bench: &Bench) -> Vec<Finding> {
    let journal = JournalFile::read(bench.folder.path().join("journal"));
    verify_with(&Closed::of(bench).against(&[]), Some(&journal), &mut |_| {}).await.unwrap().findings
}

/// What is found in the journal of a vault that is closed.
pub async fn journal_findings(bench: &Bench) -> Vec<Finding> {
    let journal = JournalFile::read(bench.folder.path().join("journal"));
    verify_journal(&Closed::of(bench).against(&[]), &journal).await.unwrap()
}

/// The root key of the vaults in these tests.
pub fn root() -> PassphraseRoot {
    PassphraseRoot::new(Passphrase::new("correct horse battery staple".to_owned()).unwrap(), ArgonCost::LEAST)
}

pub fn caller(role: Role) -> Caller {
    let name = if role == Role::Officer { "alice" } else { "tester" };
    Caller::new(Arc::new(Principal::new(TenantNo(1), role, name)), "test")
}

/// The name of every tenant's second officer, who approves what the first one asks for.
pub const SECOND: &str = "bob";

/// The second officers' key.
static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());

/// By which they are enrolled.
pub fn key_of_second() -> [u8; 32] {
    ring::digest::digest(&ring::digest::SHA256, &KEY.subject_public_key_info()).as_ref().try_into().unwrap()
}

/// The second officer of a tenant.
pub fn second(tenant: TenantNo) -> Caller {
    Caller::new(Arc::new(Principal::new(tenant, Role::Officer, SECOND)), "test")
}

/// An approval that is signed by the second officers' key.
pub async fn signed<S: Store>(vault: &Vault<S>, by: &Caller, name: &str) -> Approve {
    let listed = vault.list_approvals(&second(by.principal.tenant)).await.unwrap();
    let waits = listed.into_iter().find(|one| one.approval.name() == name).map(|one| one.approval);
    let [request, action, requester, summary] =
        waits.map(|one| [one.request, one.action, one.requester, one.summary]).unwrap_or_default();
    let (request, action, requester, summary) = (&*request, &*action, &*requester, &*summary);
    let ((vault, tenant), officer) = (vault.ids(by).unwrap(), &*by.principal.name);
    let text = approval::Approval { vault, tenant, name, request, action, requester, summary, officer }.text();
    let signature = KEY.sign(text.as_bytes()).unwrap();
    Approve { name: name.to_owned(), public_key: KEY.subject_public_key_info(), signature }
}

/// Somebody approves by that key.
pub async fn approve_as<S: Store>(vault: &Vault<S>, by: &Caller, name: &str) -> Result<ListedApproval, Error> {
    vault.approve(by, &signed(vault, by, name).await).await
}

/// Asks for what needs the second officer's approval, has that approve, and asks again.
pub async fn with_approval<S: Store, T>(
    vault: &Vault<S>,
    tenant: TenantNo,
    ask: impl AsyncFn() -> Result<T, Error>,
) -> Result<T, Error> {
    with_approval_by(vault, &second(tenant), ask).await
}

/// The same with that of the second officer as it comes here, perhaps with a second factor.
pub async fn with_approval_by<S: Store, T>(
    vault: &Vault<S>,
    officer: &Caller,
    ask: impl AsyncFn() -> Result<T, Error>,
) -> Result<T, Error> {
    match ask().await {
        Err(Error::ApprovalRequired { name, .. }) => {
            approve_as(vault, officer, &name).await?;
            ask().await
        }
        done => done,
    }
}

/// Asks for what needs the second officer's approval, and has that approve: what comes next goes through.
pub async fn approved<T>(vault: &Tested, tenant: TenantNo, asked: Result<T, Error>) {
    let Err(Error::ApprovalRequired { name, .. }) = asked else { panic!("it needs no approval") };
    approve_as(vault, &second(tenant), &name).await.unwrap();
}

/// Puts policies in force for an officer's tenant, with the approval of its second one; their version.
pub async fn put_in_force(vault: &Tested, officer: &Caller, source: impl Into<String>) -> u32 {
    let policy = ApplyPolicy { source: source.into(), tests: String::new(), dry_run: false };
    let apply = async || vault.apply_policy(officer, &policy).await;
    with_approval(vault, officer.principal.tenant, apply).await.unwrap().version
}

pub fn new_value(field: &str, value: &str, subject: &str) -> NewValue {
    NewValue {
        field: field.to_owned(),
        value: value.to_owned().into(),
        subject: subject.to_owned(),
        expires: None,
        token: String::new(),
    }
}

pub fn tokenize(items: Vec<NewValue>, key: &str) -> Tokenize {
    Tokenize { items, idempotency_key: key.to_owned() }
}

pub fn read(token: &str, view: &str) -> Detokenize {
    Detokenize {
        items: vec![ReadItem { token: token.to_owned(), view: String::new(), subject: String::new() }],
        purpose: "kyc_review".to_owned(),
        view: view.to_owned(),
    }
}

pub async fn store_one(vault: &Tested, field: &str, value: &str, subject: &str) -> String {
    vault.tokenize(&caller(Role::App), &tokenize(vec![new_value(field, value, subject)], "")).await.unwrap().remove(0)
}

pub async fn read_one(vault: &Tested, token: &str, view: &str) -> Result<Vec<u8>, Error> {
    read_as(vault, &caller(Role::App), token, view).await
}

pub async fn read_as(vault: &Tested, who: &Caller, token: &str, view: &str) -> Result<Vec<u8>, Error> {
    let mut results = vault.detokenize(who, &read(token, view)).await?;
    results.remove(0).map(|released| released.value.as_bytes().to_vec())
}

/// A vault whose log has more than 300 leaves, more than a tile.
pub async fn grown() -> (Bench, Arc<Tested>) {
    let (bench, vault) = Bench::new().await;
    for number in 0..300 {
        store_one(&vault, "borrower.name", &format!("Ann {number}"), "").await;
    }
    (bench, vault)
}

/// Every leaf of the tenant's log.
pub async fn leaves(vault: &Tested) -> Vec<serde_json::Value> {
    let request = Export::default();
    let mut pages = vault.export(&caller(Role::Auditor), &request).await.unwrap();
    let mut leaves = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        leaves.extend(page.leaves.iter().map(|line| serde_json::from_slice(line).unwrap()));
    }
    leaves
}

/// Waits until the committer serves again: reads tell.
pub async fn recovered(vault: &Tested) {
    while vault.health() != "serving" {
        tokio::task::yield_now().await;
    }
}
