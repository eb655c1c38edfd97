//! Whether the journal is the one that this vault wrote, and says what the logs say.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use strongroom_commit::{JournalError, OpenedJournal};
use strongroom_ids::{TenantId, TenantNo, VaultId};
use strongroom_keys::{KeyError, Keystore};
use strongroom_ledger::journal::{Log, Record};
use strongroom_ledger::leaf_hash;
use strongroom_storage::rows::LaneHead;
use strongroom_storage::{Family, Store, StoreError, keys as place};

use super::ledger::Signed;
use super::{Fault, Finding, Kind, Place, Verification, VerifyError};
use crate::archive::held;
use crate::open::{LANE, OpenError, SYSTEM, SYSTEM_NO, journal_place, tenant_rows, vault_row};

/// A journal, as it was when it was opened. Of a vault that runs it is opened before the store is looked at, and after the head
/// file: the vault appends to it after its commits and before the head file, so the store is never behind it, nor it behind the head.
#[derive(Debug)]
pub struct JournalFile {
    folder: PathBuf,
    opened: io::Result<OpenedJournal>,
}

impl JournalFile {
    /// Opens the one in a folder. What is wrong with it is a finding.
    pub fn read(folder: PathBuf) -> Self {
        let opened = OpenedJournal::open(&folder);
        Self { folder, opened }
    }

    /// What it knows of the logs, in the incarnation in which they are: the newest root of each. What is wrong with it
    /// [`verify_journal`] says.
    pub(super) fn signed(
        &self,
        (vault, system): (VaultId, TenantId),
        keystore: &Keystore,
        incarnations: &HashMap<TenantNo, u16>,
    ) -> Result<HashMap<TenantNo, Signed>, KeyError> {
        let place = journal_place(self.folder.clone(), vault, system, keystore)?;
        let mut newest: HashMap<TenantNo, Signed> = HashMap::new();
        // What comes before an error is what the vault wrote.
        let _ = place.read_opened(&self.opened, None, |record| {
            let Record::Seen { log, size, root } = record else { return };
            if incarnations.get(&log.tenant) == Some(&log.incarnation)
                && newest.get(&log.tenant).is_none_or(|known| known.size < size)
            {
                let whose = "the journal".to_owned();
                newest.insert(log.tenant, Signed { size, root, frontier: None, whose });
            }
        });
        Ok(newest)
    }
}

/// What a record says, without the line.
struct Said {
    log: Log,
    /// How many leaves the log has at the least.
    size: u64,
    /// Of a leaf, its hash in the tree.
    leaf: Option<[u8; 32]>,
}

impl Said {
    fn of(record: &Record) -> Self {
        let (log, size) = record.reach();
        let leaf = match record {
            Record::Leaf { line, .. } => Some(leaf_hash(line)),
            Record::Seen { .. } => None,
        };
        Self { log, size, leaf }
    }
}

/// What is wrong with a journal, if anything is. One that can't be read up to its end is named by the record that is
/// damaged; each that is not what its log says, by its leaf. What it knows of the logs as a whole [`super::verify_with`] looks at.
pub async fn verify_journal<S: Store>(
    verification: &Verification<'_, S>,
    journal: &JournalFile,
) -> Result<Vec<Finding>, VerifyError> {
    let Verification { store, keystore, head_file, .. } = *verification;
    let vault = vault_row(store, keystore).await?.vault;
    let rows = tenant_rows(store).await?;
    let mut logs = HashMap::with_capacity(rows.len());
    for row in &rows {
        let lane = store.get(Family::Meta, place::lane(row.number, LANE)).await?;
        // One that is missing or can't be read is a finding of its own.
        logs.extend(lane.and_then(|lane| LaneHead::decode(&lane).ok()).map(|lane| (row.number, (row, lane))));
    }
    let system = rows.iter().find(|tenant| tenant.number == SYSTEM_NO).ok_or(OpenError::NoVault)?.id;
    let publics: Vec<[u8; 32]> = keystore.ledger_keys(system)?.all().iter().map(|key| key.public_key()).collect();
    let (known, signed) = head_file.journal(vault, &publics);
    let mut all = vec![];
    let place = journal_place(journal.folder.clone(), vault, system, keystore)?;
    let read = place.read_opened(&journal.opened, known, |record| all.push(Said::of(&record)));
    let mut findings = Vec::new();
    let mut found = |tenant: &str, fault, place, what: String| {
        findings.push(Finding {
            tenant: Arc::from(tenant),
            kind: Kind::Journal,
            fault,
            place,
            leaf: None,
            elsewhere: None,
            what,
        });
    };
    if let Err(error) = read {
        let fault = match &error {
            JournalError::Missing { .. } => Fault::Missing,
            JournalError::Behind { .. } => Fault::RolledBack,
            JournalError::Foreign { .. } | JournalError::Damaged { .. } | JournalError::Other { .. } => Fault::Changed,
            JournalError::Io { .. }
            | JournalError::StoreBehind { .. }
            | JournalError::StoreDifferent { .. }
            | JournalError::Store(_) => Fault::Unreadable,
        };
        found(SYSTEM, fault, Place::Only, error.to_string());
    }
    // No signature covers the number in a log's head, by which what a restore left behind is passed over.
    let newest = logs.values().map(|(_, lane)| lane.incarnation).max();
    if let (Some(newest), Some(signed)) = (newest, signed)
        && newest != signed
    {
        let what = format!("the logs are of incarnation {newest}, and the head file of {signed}");
        found(SYSTEM, Fault::Changed, Place::Only, what);
    }
    let newest = signed.or(newest).unwrap_or(0);
    let mut lost: BTreeMap<TenantNo, u64> = BTreeMap::new();
    for said in all {
        let log = logs.get(&said.log.tenant).filter(|(_, lane)| lane.incarnation == said.log.incarnation);
        let Some((row, lane)) = log else {
            // What an earlier incarnation had beyond this one's beginning stands nowhere else.
            if said.log.incarnation >= newest {
                let size = lost.entry(said.log.tenant).or_default();
                *size = said.size.max(*size);
            }
            continue;
        };
        if said.size > lane.size {
            let what = format!("it has leaf {}, and the log ends with {} leaves", said.size - 1, lane.size);
            found(&row.name, Fault::Added, Place::Only, what);
            continue;
        }
        let Some(hash) = said.leaf else { continue };
        match stands(store, row.number, said.size - 1, hash).await {
            Ok(true) => {}
            Ok(false) => {
                let what = "it is not what stands in the log".to_owned();
                found(&row.name, Fault::Changed, Place::Leaf(said.size - 1), what);
            }
            // It is named where the log is looked at.
            Err(StoreError::Corrupt { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for (tenant, size) in lost {
        let what = format!(
            "it knows of {size} leaves of the log of tenant {tenant} in incarnation {newest}, which is not there"
        );
        found(SYSTEM, Fault::RolledBack, Place::Only, what);
    }
    Ok(findings)
}

/// Whether a leaf stands in its log so. Of one that is archived a tile has the hash.
pub(crate) async fn stands<S: Store>(store: &S, log: TenantNo, index: u64, hash: [u8; 32]) -> Result<bool, StoreError> {
    if index >= held::end(store, log).await? {
        let stored = store.get(Family::Leaves, place::leaf(log, index)).await?;
        return Ok(stored.is_some_and(|stored| leaf_hash(&stored) == hash));
    }
    let tile = store.get(Family::Tiles, place::tile(log, 0, index / 256)).await?;
    // 255 at most, times 32.
    let at = (index % 256) as usize * 32;
    let there = tile.as_ref().and_then(|tile| tile.get(at..at + 32));
    Ok(there.is_some_and(|there| *there == hash))
}
