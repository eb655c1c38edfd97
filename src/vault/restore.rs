//! An older copy of the data in the place of the newest: it goes on as a new incarnation, and what restricts is not undone.
//!
//! ```text
//!   the copy's logs ── are they the beginning of what head file and journal know? ──┐
//!   the journal ── what restricts and is not in the copy, in its order ── replayed ─┤── ONE write ── journal ── head file
//!   does the journal reach as far as the head file says? no: everything is frozen ──┘
//! ```
//!
//! Every log goes on under another origin, so to a witness it is another log, and no fork of the one that it knows; its first
//! leaf then says how far the one before had come, as far as anybody knows. Numbers begin with the incarnation, so none is given
//! out a second time. It needs the root key, and a vault that is stopped. What is cut off is done again from the beginning.

mod lineage;
mod replay;
mod subjects;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use strongroom_access::{Directory, DirectoryError};
use strongroom_commit::{HeadError, HeadFile, HeadKey, Journal, JournalError, JournalPlace, Offline, put_aside};
use strongroom_ids::{TenantNo, VaultId};
use strongroom_keys::{self as keys, IndexName, KeyError, KeyInfo, KeyName, Keystore};
use strongroom_ledger::checkpoint;
use strongroom_ledger::head::Head;
use strongroom_ledger::journal::{Log, Record};
use strongroom_storage::rows::{LaneHead, TenantRow};
use strongroom_storage::{Family, Mutation, Store, keys as place};
use thiserror::Error;

use crate::error::Error as VaultError;
use crate::key_life;
use crate::lock;
use crate::open::{
    LANE, OpenError, Opening, SYSTEM_NO, all_enrolled, journal_place, stored_lanes, tenant_rows, vault_row,
};
use crate::road::Told;
use crate::source::{Source, SourceKind};
use crate::vault::Vault;
pub(crate) use lineage::begins;
use lineage::{BEFORE, INCARNATION, Journalled, Lineage, RESTORED, Said};
use replay::{Outcome, Plan, Restricting};

/// Who restores, as leaves name principals: whoever holds the root key.
pub(crate) const ROOT: &str = "root";

/// Why nothing was restored.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The folder's parts do not make a vault, or can't be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The copy is the newest.
    #[error(
        "there is nothing to restore: the data folder is as far as its head file and its journal, and starts as it is"
    )]
    Nothing,
    /// The copy's log is not the one that head file or journal know.
    #[error(
        "the log of tenant {tenant} in this copy is not the beginning of the one that {by} knows: with {size} leaves it had another \
         root, or another leaf; the copy is of another vault, or was changed: put another copy in its place"
    )]
    NotThisLog {
        /// Whose log.
        tenant: TenantNo,
        /// Among how many leaves they differ.
        size: u64,
        /// Who knows it.
        by: &'static str,
    },
    /// Nobody knows which incarnations there were.
    #[error(
        "neither a head file nor a journal is there, so nobody can tell which incarnations this vault has had: give --incarnation \
         with a number above all of them; the last number in the first line of its newest checkpoint, and one, will do"
    )]
    IncarnationUnknown,
    /// It was one before.
    #[error("incarnation {given} is not above {least}, which this vault has had: give a higher one, or none")]
    IncarnationUsed {
        /// The number given.
        given: u16,
        /// The highest that it is known to have had.
        least: u16,
    },
    /// There is none left.
    #[error("the vault has had all its 65,535 incarnations: its data must move to a new vault")]
    IncarnationsExhausted,
    /// A tenant's own key is away.
    #[error(
        "tenant `{0}` is locked: its own key is away, and without it nothing of it can be restored; bring the key back first"
    )]
    Locked(String),
    /// The keystore is a copy that was made before keys changed.
    #[error(
        "the keystore is older than the journal: keys that were destroyed since would come back; put its newest copy back \
         (number {known} or later; this one is number {number})"
    )]
    KeystoreOld {
        /// The number in the journal.
        known: u64,
        /// That of the keystore.
        number: u64,
    },
    /// The journal or the head file can't be written.
    #[error("{what} can't be written: {source}; nothing starts until it can: the same command again")]
    Write {
        /// Which.
        what: &'static str,
        /// What went wrong.
        source: std::io::Error,
    },
}

impl From<KeyError> for RestoreError {
    fn from(error: KeyError) -> Self {
        Self::Open(error.into())
    }
}

impl From<JournalError> for RestoreError {
    fn from(error: JournalError) -> Self {
        Self::Open(error.into())
    }
}

impl From<DirectoryError> for RestoreError {
    fn from(error: DirectoryError) -> Self {
        Self::Open(error.into())
    }
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// The incarnation that has begun.
    pub incarnation: u16,
    /// What of the journal was in force and is again.
    pub replayed: u64,
    /// What of the journal holds anyway: of the keystore, or by what came after it.
    pub held: u64,
    /// What of the journal is about tenants that the copy does not have.
    pub passed_over: u64,
    /// Why everything is frozen, until two officers of each tenant end that; `None` if nothing is, beyond what was.
    pub frozen: Option<String>,
    /// KEKs that have a new version.
    pub keks: u32,
    /// Where a journal that could not be used was put.
    pub aside: Option<PathBuf>,
    /// Each log: whose, how many leaves it was known to have, and how many the copy has.
    pub logs: Vec<(String, Option<u64>, u64)>,
}

/// Why a journal does not reach as far as it must.
#[derive(Clone)]
struct Short {
    /// For whoever restores.
    text: String,
    /// For leaves, which name no file of a machine.
    told: String,
}

impl From<&JournalError> for Short {
    fn from(error: &JournalError) -> Self {
        let told = match error {
            JournalError::Missing { .. } => "the journal is missing",
            JournalError::Foreign { .. } | JournalError::Other { .. } => "the journal is another one",
            JournalError::Damaged { .. } => "the journal is damaged",
            JournalError::Behind { .. } => "the journal is behind the head file",
            _ => "the journal can't be used",
        };
        Self { text: error.to_string(), told: told.to_owned() }
    }
}

impl From<String> for Short {
    fn from(text: String) -> Self {
        Self { told: text.clone(), text }
    }
}

impl From<&str> for Short {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// What is there, before anything is changed.
struct Found {
    vault: VaultId,
    rows: Vec<TenantRow>,
    lanes: Vec<(TenantNo, LaneHead)>,
    head: Option<Head>,
    journal: Vec<Journalled>,
    /// Why the journal does not reach as far as it must, if it doesn't.
    short: Option<Short>,
    /// Whether its file can't be used any more.
    unusable: bool,
}

/// Restores: an older copy of the data is in its place. `incarnation` is for where neither head file nor journal are there.
pub async fn restore<S: Store>(opening: Opening<S>, incarnation: Option<u16>) -> Result<Restored, RestoreError> {
    let (store, keystore) = (&opening.store, &opening.keystore);
    let rows = tenant_rows(store).await?;
    let system = rows.iter().find(|tenant| tenant.number == SYSTEM_NO).ok_or(OpenError::NoVault)?.id;
    let vault = vault_row(store, keystore).await?.vault;
    let at = journal_place(opening.journal.clone(), vault, system, keystore)?;
    let found = find(&opening, &at, vault, rows).await?;
    let begun = next_incarnation(&found, incarnation)?;
    let now = found.lanes.iter().map(|(_, lane)| lane.time).max().unwrap_or(0).max((opening.clock)());

    let mut lineages = BTreeMap::new();
    for (tenant, lane) in &found.lanes {
        let lineage = Lineage::of(*tenant, lane, (found.head.as_ref(), &found.journal), store).await?;
        lineages.insert(*tenant, lineage);
    }
    let directory = directory(store, keystore, system).await?;
    all_enrolled(&found.rows, &directory.1)?;
    let mut plan = Plan::of(&found.rows, &found.lanes, directory, (store, keystore), now).await?;
    let (mut short, mut outcomes) = (found.short.clone(), [0_u64; 3]);
    for (log, line) in lacking(&at, &lineages)? {
        if lineages.get(&log.tenant).is_some_and(|lineage| lineage.proven.is_none()) {
            let why = format!("nothing proves that the log of tenant {} is as old as it says", log.tenant);
            short = short.or(Some(why.into()));
        }
        match plan.replay(&Restricting::read(log, &line)?, store).await? {
            Outcome::Again => outcomes[0] += 1,
            Outcome::Held => outcomes[1] += 1,
            Outcome::NotHere => outcomes[2] += 1,
            Outcome::Unknown(why) => short = short.or(Some(why.into())),
        }
    }
    plan.destroyed_by_keystore()?;
    let [replayed, held, passed_over] = outcomes;
    let told = [
        ("replayed", replayed.to_string()),
        ("held", held.to_string()),
        ("passed_over", passed_over.to_string()),
        ("frozen", short.is_some().to_string()),
    ];
    if let Some(why) = &short {
        plan.freeze_all_tenants(&why.told)?;
    }

    let owed = owed_rolls(&opening, &found, &plan).await?;
    let logs = write(&opening, &found, (plan, owed), (begun, &told), at).await?;
    let aside = logs.aside.clone();
    let keks = roll(opening, &found.rows).await?;
    Ok(Restored {
        incarnation: begun,
        replayed,
        held,
        passed_over,
        frozen: short.map(|why| why.text),
        keks,
        aside,
        logs: logs.named,
    })
}

/// What the journal has and the copy has not, in its order. It is read once more for it, so that not all of it is in memory.
fn lacking(at: &JournalPlace, lineages: &BTreeMap<TenantNo, Lineage>) -> Result<Vec<(Log, Vec<u8>)>, RestoreError> {
    let mut lacking = vec![];
    let read = at.read(None, |record| {
        if let Record::Leaf { log, index, line } = record
            && lineages.get(&log.tenant).is_none_or(|lineage| lineage.lacks(log.incarnation, index))
        {
            lacking.push((log, line));
        }
    });
    match read {
        Err(error @ JournalError::Io { .. }) => Err(error.into()),
        // Whatever else is wrong with it was found before.
        _ => Ok(lacking),
    }
}

/// Sees that what restricts and is not journalled yet holds: that doing it again, as a restore would, changes nothing. Rules,
/// officers and ends stand in rows that nobody without keys can write; a leaf alone anybody appends who writes the files, and a
/// later restore would believe the journal.
pub(crate) async fn confirm<S: Store>(
    leaves: &[(Log, Vec<u8>)],
    (rows, lanes): (&[TenantRow], &[(TenantNo, LaneHead)]),
    directory: &Directory,
    (store, keystore): (&S, &Keystore),
) -> Result<(), OpenError> {
    let there = rows.iter().zip(lanes).filter(|(tenant, _)| !lock::is_locked(keystore, tenant.id));
    // Of one that is locked its log says what is frozen, as long as it is (`source.rs`).
    let (rows, lanes): (Vec<TenantRow>, Vec<(TenantNo, LaneHead)>) =
        there.map(|(tenant, lane)| (tenant.clone(), lane.clone())).unzip();
    let holds = async || {
        let mut plan = Plan::of(&rows, &lanes, (0, directory.clone()), (store, keystore), 0).await?;
        for (log, line) in leaves {
            let one = Restricting::read(*log, line)?;
            match plan.replay(&one, store).await {
                Ok(Outcome::Held | Outcome::NotHere) => {}
                Ok(Outcome::Again | Outcome::Unknown(_)) | Err(RestoreError::KeystoreOld { .. }) => {
                    let (tenant, index, action) = (log.tenant, one.leaf.index, one.leaf.action);
                    return Err(OpenError::Unconfirmed { tenant, index, action }.into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok::<_, RestoreError>(())
    };
    holds().await.map_err(|error| match error {
        RestoreError::Open(error) => error,
        _ => OpenError::Vault(VaultError::DataLoss("the ledger")),
    })
}

/// Looks at what is there, and whether anything is to be restored at all.
async fn find<S: Store>(
    opening: &Opening<S>,
    at: &JournalPlace,
    vault: VaultId,
    rows: Vec<TenantRow>,
) -> Result<Found, RestoreError> {
    let (store, keystore) = (&opening.store, &opening.keystore);
    let lanes = stored_lanes(store, &rows).await?;
    let system = rows.iter().find(|tenant| tenant.number == SYSTEM_NO).ok_or(OpenError::NoVault)?.id;
    let publics: Vec<[u8; 32]> = keystore.ledger_keys(system)?.all().iter().map(|key| key.public_key()).collect();
    let head = match HeadFile::read(&opening.head_file, vault, &publics) {
        Ok(head) => Some(head),
        Err(HeadError::Missing { .. }) => None,
        // One that is there and can't be trusted is for somebody to look at.
        Err(error) => return Err(error.into()),
    };
    let known = head.as_ref().and_then(|head| head.journal);
    let mut journal = vec![];
    let read = at.read(known, |record| journal.push(Journalled::of(&record)));
    if read.is_ok() && HeadFile::check(&opening.head_file, vault, &publics, &lanes, store).await.is_ok() {
        match Journal::open(at.clone(), known)?.is_reached_by(&lanes) {
            Ok(()) => return Err(RestoreError::Nothing),
            Err(JournalError::StoreBehind { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let unusable = read.is_err();
    let short = match (read, &head) {
        (Err(error @ JournalError::Io { .. }), _) => return Err(error.into()),
        (Err(error), _) => Some(Short::from(&error)),
        (Ok(_), None) => Some("there is no head file, so nobody can tell whether the journal is the newest one".into()),
        (Ok(_), Some(head)) if head.journal.is_none() => {
            Some("the head file knows of no journal, so nobody can tell whether this is the newest one".into())
        }
        (Ok(_), Some(_)) => None,
    };
    for tenant in &rows {
        if lock::is_locked(keystore, tenant.id) {
            return Err(RestoreError::Locked(tenant.name.clone()));
        }
    }
    Ok(Found { vault, rows, lanes, head, journal, short, unusable })
}

/// The incarnation that begins: above all that anybody knows of.
fn next_incarnation(found: &Found, given: Option<u16>) -> Result<u16, RestoreError> {
    let of_journal = found.journal.iter().map(|one| one.log.incarnation).max();
    let of_head = found.head.as_ref().map(|head| head.incarnation);
    if of_head.is_none() && of_journal.is_none() && given.is_none() {
        return Err(RestoreError::IncarnationUnknown);
    }
    let of_store = found.lanes.iter().map(|(_, lane)| lane.incarnation).max();
    let least = [of_journal, of_head, of_store].into_iter().flatten().max().unwrap_or(0);
    match given {
        Some(given) if given <= least => Err(RestoreError::IncarnationUsed { given, least }),
        Some(given) => Ok(given),
        None => least.checked_add(1).ok_or(RestoreError::IncarnationsExhausted),
    }
}

async fn directory<S: Store>(
    store: &S,
    keystore: &Keystore,
    system: strongroom_ids::TenantId,
) -> Result<(u32, Directory), RestoreError> {
    let key = keystore.index_key(system, IndexName::Fingerprint)?;
    let row = store.get(Family::Meta, place::principals()).await?.ok_or(OpenError::NoVault)?;
    let source = Source::decode(&row, SourceKind::Principals, &key)?;
    let directory = Directory::from_stored(&source.body).map_err(|_| VaultError::DataLoss("the enrolled officers"))?;
    Ok((source.version, directory))
}

/// What has the KEKs of all tenants rolled: of the uses of those that there are the copy has lost count. It goes into the one write,
/// and whoever starts next does it.
async fn owed_rolls<S: Store>(
    Opening { store, keystore, .. }: &Opening<S>,
    found: &Found,
    plan: &Plan<'_>,
) -> Result<Vec<Mutation>, RestoreError> {
    let mut owed = Vec::with_capacity(found.rows.len());
    for row in found.rows.iter().filter(|row| plan.lives_on(row.number)) {
        let key = keystore.index_key(row.id, IndexName::Fingerprint)?;
        match key_life::owe_roll(store, row.number, &key, keystore).await? {
            Ok(put) => owed.push(put),
            Err(known) => return Err(RestoreError::KeystoreOld { known, number: keystore.number() }),
        }
    }
    Ok(owed)
}

/// What was written.
struct Written {
    named: Vec<(String, Option<u64>, u64)>,
    aside: Option<PathBuf>,
}

/// Writes all of it: the store at once, then the journal, then the head file, without which nothing starts.
async fn write<S: Store>(
    opening: &Opening<S>,
    found: &Found,
    (plan, owed): (Plan<'_>, Vec<Mutation>),
    (begun, told): (u16, &[(&'static str, String)]),
    at: JournalPlace,
) -> Result<Written, RestoreError> {
    let (store, keystore, time) = (&opening.store, &opening.keystore, plan.now());
    let request = keys::random::<16>()?;
    let (mut lanes, mut first, mut mutations, mut named) = (vec![], vec![], owed, vec![]);
    for (row, (tenant, lane)) in found.rows.iter().zip(&found.lanes) {
        let known = known(found, *tenant);
        named.push((row.name.clone(), known.map(|(_, size, _)| size), lane.size));
        if !plan.goes_on(*tenant) {
            // Its log has ended, and nothing can be signed of it any more: it stays the one that it was.
            lanes.push((*tenant, lane.clone()));
            continue;
        }
        let mut detail: Told = vec![
            (INCARNATION, begun.to_string()),
            (BEFORE, lane.incarnation.to_string()),
            ("copy_size", lane.size.to_string()),
        ];
        if let Some((incarnation, size, root)) = known {
            detail.extend([
                ("origin_before", checkpoint::origin(found.vault, row.id, LANE, incarnation)),
                ("size_before", size.to_string()),
                ("root_before", data_encoding::BASE64.encode(&root)),
            ]);
        }
        detail.extend(told.iter().cloned());
        first.extend(plan.leaf(*tenant, &request, RESTORED, &detail)?);
        // What witnesses have cosigned was of the log before.
        mutations.push(Mutation::Delete(Family::Meta, place::witnessed(*tenant)));
        lanes.push((*tenant, LaneHead { incarnation: begun, ..lane.clone() }));
    }
    let again = plan.written()?;
    mutations.extend(again.mutations);
    first.extend(again.leaves);
    let lanes = Offline { lanes, mutations, leaves: first, time }.write(store).await?;

    let of_journal = |source| RestoreError::Write { what: "the journal", source };
    let aside = if found.unusable { put_aside(&at, time).map_err(of_journal)? } else { None };
    let system = found.rows.iter().find(|row| row.number == SYSTEM_NO).ok_or(OpenError::NoVault)?.id;
    let mut journal = match found.unusable {
        true => Journal::create(at)?,
        false => Journal::open(at, found.head.as_ref().and_then(|head| head.journal))?,
    };
    journal.follow(&lanes, store).await?;
    let key = keystore.ledger_key(system)?;
    let newest = move || {
        let (public, key) = (key.public_key(), Arc::clone(&key));
        Some(HeadKey { public, sign: Arc::new(move |text| key.sign(text)) })
    };
    let head = HeadFile::new(opening.head_file.clone(), found.vault, Arc::new(newest));
    head.write_closed(&lanes, journal.end()).map_err(|source| RestoreError::Write { what: "the head file", source })?;
    Ok(Written { named, aside })
}

/// The last that is known of a tenant's log: its incarnation, its size and its root.
fn known(found: &Found, tenant: TenantNo) -> Option<(u16, u64, [u8; 32])> {
    let of_head = found.head.as_ref().and_then(|head| {
        let lane = head.lanes.iter().find(|lane| lane.tenant == tenant)?;
        Some((head.incarnation, lane.size, lane.root))
    });
    let of_journal = found.journal.iter().filter_map(|one| match one.said {
        Said::Seen(root) if one.log.tenant == tenant => Some((one.log.incarnation, one.size, root)),
        _ => None,
    });
    of_journal.chain(of_head).max_by_key(|(incarnation, size, _)| (*incarnation, *size))
}

/// Opens what was restored, as a start does, by which KEKs are rolled: how many.
async fn roll<S: Store>(opening: Opening<S>, rows: &[TenantRow]) -> Result<u32, RestoreError> {
    let versions = |keystore: &Keystore| -> Vec<usize> {
        let keks = |key: &KeyInfo| matches!(key.name, KeyName::Kek(..));
        rows.iter().map(|row| keystore.keys(row.id).iter().filter(|key| keks(key)).count()).collect()
    };
    let before = versions(&opening.keystore);
    let vault = Vault::open(opening).await?;
    let after = versions(&vault.keystore);
    vault.close().await;
    let rolled: usize = before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before)).sum();
    Ok(u32::try_from(rolled).unwrap_or(u32::MAX))
}
