//! Verification: proves a whole store against its ledger, as the store is at one moment.
//!
//! ```text
//! head file, checkpoints -> leaves, in order -> history: what every value, subject and rule must be
//! history                -> every family, in key order -> counts, and findings: changed, rolled back, missing, added
//! ```
//!
//! Nothing is written, and no value leaves this module. FORMAT.md in this folder says which kind of row is proven how,
//! what is not proven, and how much memory it takes.

mod ahead;
mod archived;
mod blame;
mod changed;
mod entries;
mod finding;
mod head_file;
pub(crate) mod history;
mod journal;
mod leaf_index;
mod ledger;
mod meta;
mod moved;
mod policies;
pub(crate) mod state;
mod subjects;
#[cfg(test)]
mod tests;
mod tiles;
mod values;

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use strongroom_ids::{KeyVersion, KeyringNo, TenantId, TenantNo, VaultId};
use strongroom_keys::{IndexName, KeyError, Keystore};
use strongroom_ledger::{LedgerError, Rules, checkpoint};
use strongroom_schema::Schema;
use strongroom_storage::keys as place;
use strongroom_storage::rows::{ArchiveRow, LaneHead, TenantRow, VaultRow};
use strongroom_storage::{Family, Store, StoreError};
use thiserror::Error;

use crate::key_life;
use crate::lock;
use crate::log_keys;
use crate::open::{FORMAT, LANE, OpenError, SYSTEM, SYSTEM_NO, tenant_rows};
use crate::source;
use crate::tenant_life;
use finding::Findings;
pub use finding::{Fault, Finding, Kind, LISTED, LeafRef, Place};
pub use head_file::HeadFile;
use history::Ends;
pub(crate) use journal::stands;
pub use journal::{JournalFile, verify_journal};
use ledger::Signed;

/// What is verified, and against what.
pub struct Verification<'a, S> {
    /// The store, at one moment: nobody may write to what it shows.
    pub store: &'a S,
    /// The keystore, unsealed, as it was at that moment.
    pub keystore: &'a Keystore,
    /// The head file, read before that moment.
    pub head_file: &'a HeadFile,
    /// Checkpoints of any of the vault's logs that were kept apart from it (C2SP signed notes).
    pub checkpoints: &'a [String],
    /// Threads that look at rows.
    pub threads: NonZeroUsize,
}

/// Why nothing could be verified.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The folder's parts do not make a vault, or can't be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A checkpoint is none of this vault's.
    #[error("checkpoint {place} of those given is not signed by a log of this vault: {error}")]
    Checkpoint {
        /// Which of them, from 1.
        place: usize,
        /// What is wrong with it.
        error: LedgerError,
    },
}

impl From<StoreError> for VerifyError {
    fn from(error: StoreError) -> Self {
        Self::Open(error.into())
    }
}

impl From<strongroom_keys::KeyError> for VerifyError {
    fn from(error: strongroom_keys::KeyError) -> Self {
        Self::Open(error.into())
    }
}

/// What is being gone through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The leaves of the log.
    Leaves,
    /// Subjects' records and their DEKs.
    Subjects,
    /// Values and their DEKs.
    Values,
    /// Index entries.
    Entries,
    /// Subjects' rows, and holders of shared values.
    Holders,
}

impl Phase {
    /// Its word, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leaves => "leaves",
            Self::Subjects => "subjects",
            Self::Values => "values",
            Self::Entries => "index entries",
            Self::Holders => "holders",
        }
    }
}

/// How far it has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// What is being gone through.
    pub phase: Phase,
    /// How many are done.
    pub done: u64,
    /// How many there should be.
    pub of: u64,
}

/// What was gone through in one tenant.
#[derive(Clone, Default, Debug)]
pub struct Counts {
    /// Whether the tenant's own key is away: then nothing but its log can be proved.
    pub locked: bool,
    /// Leaves of its log.
    pub leaves: u64,
    /// Of these, how many are archived: what they say was taken from the state that a later leaf names.
    pub archived_leaves: u64,
    /// Of these, how many the head file signs. Those after it came within the last second, before a crash or of a vault that
    /// runs, or were appended by somebody else: surely so, and a finding, if the vault was stopped in order.
    pub signed_leaves: u64,
    /// Values that are as recorded and open.
    pub values: u64,
    /// Subjects that are as recorded.
    pub subjects: u64,
    /// DEKs that unwrap.
    pub deks: u64,
    /// Index entries that belong to a value or subject.
    pub index_entries: u64,
    /// Entries by which the values of a subject, and the holders of a value, are found.
    pub holders: u64,
    /// Idempotency keys.
    pub idempotency_keys: u64,
}

impl Counts {
    /// Adds what was counted of a part.
    fn add(&mut self, part: &Self) {
        let Self {
            locked: _,
            leaves,
            archived_leaves,
            signed_leaves,
            values,
            subjects,
            deks,
            index_entries,
            holders,
            idempotency_keys,
        } = part;
        self.leaves += leaves;
        self.archived_leaves += archived_leaves;
        self.signed_leaves += signed_leaves;
        self.values += values;
        self.subjects += subjects;
        self.deks += deks;
        self.index_entries += index_entries;
        self.holders += holders;
        self.idempotency_keys += idempotency_keys;
    }
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// The vault.
    pub vault: VaultId,
    /// Whether there was no head file, and none had to be: then nothing says how far the logs had come, but checkpoints.
    pub without_head: bool,
    /// The tenants by name, the vault itself as `system`, in the order of their numbers.
    pub tenants: Vec<(Arc<str>, Counts)>,
    /// What is not as it must be. Empty: the whole store is what the ledger says.
    pub findings: Vec<Finding>,
    /// Findings beyond those that are listed.
    pub left_out: u64,
    /// How many there are of each kind and fault, those that are not listed as well.
    pub counted: BTreeMap<(Kind, Fault), u64>,
}

/// Who hears how far it has come.
type Listener<'a> = dyn Fn(Progress<'_>) + Sync + 'a;

/// One tenant under verification, or a part of one: what is wrong and was counted is summed up in the order of the parts.
struct Check<'a, S> {
    store: &'a S,
    keystore: &'a Keystore,
    vault: VaultId,
    number: TenantNo,
    id: TenantId,
    name: Arc<str>,
    lane: Option<LaneHead>,
    /// What is archived of its log.
    archived: ArchiveRow,
    /// The schema in force; none if it can't be read.
    schema: Option<Arc<Schema>>,
    /// How many leaves its log had when the vault was stopped in order, if the head file says that it was.
    closed_at: Option<u64>,
    /// Counters as they stand in the store, by key.
    counters: BTreeMap<Vec<u8>, u64>,
    /// DEKs seen, by the KEK that wraps them.
    wrapped: HashMap<(KeyringNo, KeyVersion), u64>,
    counts: Counts,
    findings: Findings,
    /// Hashes of what stands where the ledger has something else, or nothing: a leaf may say what it was.
    strange: HashMap<[u8; 32], (Kind, Place)>,
    threads: usize,
    listener: &'a Listener<'a>,
}

/// Verifies a store. `progress` hears of every page.
pub async fn verify<S: Store>(
    verification: &Verification<'_, S>,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Report, VerifyError> {
    verify_with(verification, None, progress).await
}

/// The same, and that the logs are those that a journal knows.
pub async fn verify_with<S: Store>(
    verification: &Verification<'_, S>,
    journal: Option<&JournalFile>,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Report, VerifyError> {
    verify_listing(verification, journal, LISTED, progress).await
}

/// The same with so many findings listed at the most, of which each takes some 300 bytes of memory. Others are counted.
pub async fn verify_listing<S: Store>(
    verification: &Verification<'_, S>,
    journal: Option<&JournalFile>,
    most: usize,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Report, VerifyError> {
    let Verification { store, keystore, head_file, checkpoints, .. } = *verification;
    let row = store.get(Family::Meta, place::vault()).await?.ok_or(OpenError::NoVault)?;
    let row = VaultRow::decode(&row)?;
    if row.format != FORMAT {
        return Err(OpenError::UnknownFormat(row.format).into());
    }
    if row.vault != keystore.vault_id() {
        return Err(OpenError::TwoVaults { data: row.vault, keystore: keystore.vault_id() }.into());
    }
    let tenants = tenant_rows(store).await?;
    let system = tenants.iter().find(|tenant| tenant.number == SYSTEM_NO).ok_or(OpenError::NoVault)?.id;
    let publics: Vec<[u8; 32]> = keystore.ledger_keys(system)?.all().iter().map(|key| key.public_key()).collect();
    let mut log_keys = Vec::with_capacity(tenants.len());
    for tenant in &tenants {
        log_keys.push(keys_of_log(store, keystore, system, tenant).await?);
    }

    // Only who takes what threads have made tells it.
    let progress = Mutex::new(progress);
    let listener = |told: Progress<'_>| (progress.lock().unwrap_or_else(PoisonError::into_inner))(told);
    let mut findings = Findings::of(most);
    let mut checks = Vec::with_capacity(tenants.len());
    for tenant in &tenants {
        let mut check = Check::new(verification, row.vault, tenant, most, &listener);
        check.read_lane().await?;
        findings.append(check.findings);
        checks.push(check.lane);
    }
    let mut signed: HashMap<TenantNo, Vec<Signed>> = HashMap::new();
    let mut heads: HashMap<TenantNo, u64> = HashMap::new();
    let mut closed = false;
    let head_fault = match head_file.signed(row.vault, &publics) {
        Ok(Some(head_file::HeadSigned { closed: stopped, lanes })) => {
            closed = stopped;
            heads.extend(lanes.iter().map(|(number, one)| (*number, one.size)));
            lanes.into_iter().for_each(|(number, one)| signed.entry(number).or_default().push(one));
            None
        }
        Ok(None) => None,
        Err(fault) => Some(fault),
    };
    if let Some(journal) = journal {
        let lanes = tenants.iter().zip(&checks);
        let lanes = lanes.filter_map(|(tenant, lane)| Some((tenant.number, lane.as_ref()?.incarnation))).collect();
        for (number, one) in journal.signed((row.vault, system), keystore, &lanes)? {
            signed.entry(number).or_default().push(one);
        }
    }
    let logs = tenants.iter().zip(&checks).zip(&log_keys);
    let logs = logs.map(|((tenant, lane), keys)| (tenant, lane.as_ref(), keys.as_slice()));
    for (number, one) in read_checkpoints(checkpoints, row.vault, logs)? {
        signed.entry(number).or_default().push(one);
    }

    let without_head = head_file.is_left_out();
    let mut verified = Vec::with_capacity(tenants.len());
    // The vault's own log comes first, and says which tenants were destroyed.
    let mut ends = Ends::new();
    for (tenant, lane) in tenants.iter().zip(checks) {
        let mut check = Check::new(verification, row.vault, tenant, most, &listener);
        check.lane = lane;
        let signed_leaves = heads.get(&tenant.number).copied().unwrap_or(0);
        check.closed_at = closed.then_some(signed_leaves);
        if tenant.number == SYSTEM_NO {
            if let Some((fault, what)) = &head_fault {
                check.found(Kind::Log, *fault, Place::Only, what.as_str());
            }
            for (number, size) in &heads {
                if *size > 0 && !tenants.iter().any(|tenant| tenant.number == *number) {
                    check.log_without_tenant(*number, *size);
                }
            }
            check.foreign_rows(&tenants).await?;
        }
        let signed = signed.remove(&tenant.number).unwrap_or_default();
        check.run(signed, &tenants, &mut ends).await?;
        check.counts.signed_leaves = signed_leaves.min(check.counts.leaves);
        findings.append(check.findings);
        verified.push((check.name, check.counts));
    }
    let Findings { kept, left_out, counted, .. } = findings;
    Ok(Report { vault: row.vault, without_head, tenants: verified, findings: kept, left_out, counted })
}

/// The public keys of a tenant's log, but for compromised ones: those that are there, and those that are noted. Those of a
/// destroyed tenant are noted with its end.
async fn keys_of_log<S: Store>(
    store: &S,
    keystore: &Keystore,
    system: TenantId,
    tenant: &TenantRow,
) -> Result<Vec<[u8; 32]>, VerifyError> {
    match keystore.ledger_keys(tenant.id) {
        Ok(_) => {
            let noted = match keystore.index_key(tenant.id, IndexName::Fingerprint) {
                // One that can't be read is found where all rows are looked at.
                Ok(key) => key_life::noted_log_keys(store, tenant.number, &key).await.unwrap_or_default(),
                // It is locked.
                Err(_) => vec![],
            };
            Ok(log_keys::sound(&log_keys::noted(noted, keystore, tenant.id)))
        }
        Err(KeyError::NotAllowed { .. }) => {
            let end = store.get(Family::Meta, place::tenant_end(tenant.number)).await?;
            let system = keystore.index_key(system, IndexName::Fingerprint)?;
            Ok(end.map(|end| tenant_life::public_keys(&end, &system)).unwrap_or_default())
        }
        Err(error) => Err(error.into()),
    }
}

/// Finds each checkpoint's log by its signature.
fn read_checkpoints<'t>(
    notes: &[String],
    vault: VaultId,
    tenants: impl Iterator<Item = (&'t TenantRow, Option<&'t LaneHead>, &'t [[u8; 32]])>,
) -> Result<Vec<(TenantNo, Signed)>, VerifyError> {
    let mut logs = Vec::new();
    for (tenant, lane, publics) in tenants {
        let origin = checkpoint::origin(vault, tenant.id, LANE, lane.map_or(1, |lane| lane.incarnation));
        let keys: Vec<String> = publics.iter().map(|public| checkpoint::vkey(&origin, public)).collect();
        logs.push((tenant.number, origin, keys));
    }
    let keys: Vec<&str> = logs.iter().flat_map(|(_, _, keys)| keys).map(String::as_str).collect();
    let mut signed = Vec::with_capacity(notes.len());
    for (place, note) in (1..).zip(notes) {
        let read = checkpoint::verify(note, &keys).map_err(|error| VerifyError::Checkpoint { place, error })?;
        let log = logs.iter().find(|(_, origin, _)| *origin == read.origin);
        let (number, ..) = log.ok_or(VerifyError::Checkpoint { place, error: LedgerError::Origin })?;
        let whose = format!("checkpoint {place} of those given");
        signed.push((*number, Signed { size: read.size, root: read.root, frontier: None, whose }));
    }
    Ok(signed)
}

impl<'a, S: Store> Check<'a, S> {
    fn new(
        verification: &Verification<'a, S>,
        vault: VaultId,
        tenant: &TenantRow,
        most: usize,
        listener: &'a Listener<'a>,
    ) -> Self {
        Self {
            store: verification.store,
            keystore: verification.keystore,
            vault,
            number: tenant.number,
            id: tenant.id,
            name: tenant.name.as_str().into(),
            lane: None,
            archived: ArchiveRow::default(),
            schema: None,
            closed_at: None,
            counters: BTreeMap::new(),
            wrapped: HashMap::new(),
            counts: Counts::default(),
            findings: Findings::of(most),
            strange: HashMap::new(),
            threads: verification.threads.get(),
            listener,
        }
    }

    /// A part of the same tenant, for one thread: nothing is found and counted in it yet.
    fn part(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            schema: self.schema.clone(),
            lane: None,
            archived: ArchiveRow::default(),
            counters: BTreeMap::new(),
            wrapped: HashMap::new(),
            counts: Counts::default(),
            findings: self.findings.none(),
            strange: HashMap::new(),
            ..*self
        }
    }

    /// Takes what was found and counted in a part.
    fn add(&mut self, part: Self) {
        self.counts.add(&part.counts);
        self.findings.append(part.findings);
        for (kek, count) in part.wrapped {
            *self.wrapped.entry(kek).or_insert(0) += count;
        }
    }

    /// All of one tenant. Damage that stops one part does not keep the others from being looked at.
    async fn run(&mut self, signed: Vec<Signed>, tenants: &[TenantRow], ends: &mut Ends) -> Result<(), StoreError> {
        let replayed = self.replay(signed).await;
        let Some((mut history, index)) = self.unless_damaged(replayed)? else { return Ok(()) };
        if self.number == SYSTEM_NO {
            *ends = std::mem::take(&mut history.ends);
        }
        let checked = self.tiles().await;
        self.unless_damaged(checked)?;
        let checked = self.leaf_index(index).await;
        self.unless_damaged(checked)?;
        match (ends.get(&self.number), history.ended) {
            (None, None) => {}
            (None, Some(leaf)) => {
                let what = "its log ends here, and the log `system` does not say that the tenant was destroyed";
                self.found(Kind::Tenant, Fault::Changed, Place::Leaf(leaf), what);
            }
            // Without its keys nothing of it can be checked but that it is gone.
            (Some(end), ended) => {
                if ended.is_none() {
                    let what = "the log `system` says that the tenant was destroyed, and its own log goes on";
                    self.found(Kind::Tenant, Fault::Changed, Place::Only, what);
                }
                self.is_destroyed(end).await?;
                if let Some(leaf) = end.cleared {
                    let checked = self.only_the_log(leaf).await;
                    self.unless_damaged(checked)?;
                }
                return Ok(());
            }
        }
        self.counts.locked = lock::is_locked(self.keystore, self.id);
        if self.counts.locked {
            self.rules_by_hash().await?;
            return self.older_policies(&history).await;
        }
        let checked = self.meta(&history, tenants).await;
        self.unless_damaged(checked)?;
        let checked = self.policies(&history).await;
        self.unless_damaged(checked)?;
        let checked = self.subjects(&history).await;
        self.unless_damaged(checked)?;
        let checked = self.values(&history).await;
        self.unless_damaged(checked)?;
        let checked = self.own_deks(&history).await;
        self.unless_damaged(checked)?;
        let checked = self.index(&history).await;
        self.unless_damaged(checked)?;
        let checked = self.holders(&history).await;
        self.unless_damaged(checked)?;
        let checked = self.idempotency().await;
        self.unless_damaged(checked)?;
        self.counters_suffice(&history);
        let named = self.blame(&history).await;
        self.unless_damaged(named)?;
        Ok(())
    }

    /// Of a locked tenant: whether the rules in the store are those that its log has in force. Their hashes need no key.
    async fn rules_by_hash(&mut self) -> Result<(), StoreError> {
        let Some(rules) = self.lane.as_ref().and_then(|lane| Rules::from_bytes(&lane.rules).ok()) else {
            return Ok(());
        };
        match source::in_force(self.store, (self.number, &self.name), &rules).await {
            Err(OpenError::Rules { what, stored, recorded, .. }) => {
                let kind = match what {
                    "policy" => Kind::Policy,
                    "schema" => Kind::Schema,
                    "list of tiers" => Kind::Tiers,
                    _ => Kind::Freezes,
                };
                let what = format!("its log has version {recorded} in force, and there is {stored}");
                self.found(kind, Fault::Changed, Place::Only, what);
                Ok(())
            }
            Err(OpenError::Store(error)) => Err(error),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    /// Makes a finding of damage, and lets other failures end the verification.
    fn unless_damaged<T>(&mut self, result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(StoreError::Corrupt { place, what }) => {
                let what = format!("damaged in {place}: {what}; what follows there was not looked at");
                self.found(Kind::Unknown, Fault::Unreadable, Place::Only, what);
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    fn found(&mut self, kind: Kind, fault: Fault, place: Place, what: impl Into<String>) {
        self.note(kind, fault, place, None, what.into());
    }

    /// A finding of what a leaf of the same log says.
    fn found_by(&mut self, leaf: u64, kind: Kind, fault: Fault, place: Place, what: impl Into<String>) {
        self.found_of(Some(leaf), kind, fault, place, what);
    }

    /// The same where perhaps no leaf says anything.
    fn found_of(&mut self, leaf: Option<u64>, kind: Kind, fault: Fault, place: Place, what: impl Into<String>) {
        let leaf = leaf.map(|index| LeafRef { log: Arc::clone(&self.name), index });
        self.note(kind, fault, place, leaf, what.into());
    }

    /// A finding of what a leaf of the vault's own log says.
    fn found_by_system(&mut self, leaf: u64, kind: Kind, fault: Fault, place: Place, what: impl Into<String>) {
        let leaf = LeafRef { log: SYSTEM.into(), index: leaf };
        self.note(kind, fault, place, Some(leaf), what.into());
    }

    fn note(&mut self, kind: Kind, fault: Fault, place: Place, leaf: Option<LeafRef>, what: String) {
        self.findings.add(Finding { tenant: Arc::clone(&self.name), kind, fault, place, leaf, elsewhere: None, what });
    }

    /// Something under a key that the vault does not write.
    fn unknown(&mut self, key: &[u8]) {
        let what = "the vault writes nothing under this key";
        self.found(Kind::Unknown, Fault::Added, Place::Key(key.to_vec()), what);
    }

    fn report(&mut self, phase: Phase, done: u64, of: u64) {
        (self.listener)(Progress { tenant: &self.name, phase, done, of: of.max(done) });
    }
}

/// The number in eight bytes of a key.
fn number_at(key: &[u8], from: usize) -> Option<u64> {
    let bytes = key.get(from..from.checked_add(8)?)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}
