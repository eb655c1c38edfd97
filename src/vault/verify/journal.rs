//! Whether the journal is the one that this vault wrote, and says what the logs say.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use strongroom_commit::{JournalError, journal_bytes};
use strongroom_ids::TenantNo;
use strongroom_ledger::journal::Record;
use strongroom_ledger::leaf_hash;
use strongroom_storage::rows::LaneHead;
use strongroom_storage::{Family, Store, StoreError, keys as place};

use super::{Fault, Finding, Kind, Place, Verification, VerifyError};
use crate::archive::held;
use crate::open::{LANE, OpenError, SYSTEM, SYSTEM_NO, journal_place, tenant_rows, vault_row};

/// A journal, as it was when it was read. Of a vault that runs it is read before the store is looked at, and after the head
/// file: the vault appends to it after its commits and before the head file, so the store is never behind it, nor it behind the head.
#[derive(Debug)]
pub struct JournalFile {
    folder: PathBuf,
    read: io::Result<Vec<u8>>,
}

impl JournalFile {
    /// Reads the one in a folder. What is wrong with it is a finding.
    pub fn read(folder: PathBuf) -> Self {
        let read = journal_bytes(&folder);
        Self { folder, read }
    }
}

/// What is wrong with a journal, if anything is. One that can't be read up to its end is named by the record that is
/// damaged; each that is not what its log says, by its leaf.
pub async fn verify_journal<S: Store>(
    verification: &Verification<'_, S>,
    journal: JournalFile,
) -> Result<Vec<Finding>, VerifyError> {
    let Verification { store, keystore, head_file, .. } = *verification;
    let vault = vault_row(store, keystore).await?.vault;
    let rows = tenant_rows(store).await?;
    let mut logs = Vec::with_capacity(rows.len());
    for row in &rows {
        let lane = store.get(Family::Meta, place::lane(row.number, LANE)).await?;
        // One that is missing or can't be read is a finding of its own.
        logs.extend(lane.and_then(|lane| LaneHead::decode(&lane).ok()).map(|lane| (row, lane)));
    }
    let system = rows.iter().find(|tenant| tenant.number == SYSTEM_NO).ok_or(OpenError::NoVault)?.id;
    let publics: Vec<[u8; 32]> = keystore.ledger_keys(system)?.all().iter().map(|key| key.public_key()).collect();
    let known = head_file.journal(vault, &publics);
    let mut records = vec![];
    let place = journal_place(journal.folder, vault, system, keystore)?;
    let read = place.read_bytes(journal.read, known, |record| records.push(record));
    let mut findings = Vec::new();
    let mut found = |tenant: &str, fault, place, what: String| {
        findings.push(Finding { tenant: Arc::from(tenant), kind: Kind::Journal, fault, place, what });
    };
    if let Err(error) = read {
        let fault = match &error {
            JournalError::Missing { .. } => Fault::Missing,
            JournalError::Behind { .. } => Fault::RolledBack,
            JournalError::Foreign { .. } | JournalError::Damaged { .. } | JournalError::Other { .. } => Fault::Changed,
            JournalError::Io { .. } | JournalError::StoreBehind { .. } | JournalError::Store(_) => Fault::Unreadable,
        };
        found(SYSTEM, fault, Place::Only, error.to_string());
    }
    for record in &records {
        let (log, size) = record.reach();
        let log = logs.iter().find(|(row, lane)| row.number == log.tenant && lane.incarnation == log.incarnation);
        // What an earlier incarnation had beyond this one's beginning stands nowhere else.
        let Some((row, lane)) = log else { continue };
        if size > lane.size {
            let what = format!("it has leaf {}, and the log ends with {} leaves", size - 1, lane.size);
            found(&row.name, Fault::Added, Place::Only, what);
            continue;
        }
        if let Record::Leaf { index, line, .. } = record {
            match stands(store, row.number, *index, line).await {
                Ok(true) => {}
                Ok(false) => {
                    let what = "it is not what stands in the log".to_owned();
                    found(&row.name, Fault::Changed, Place::Leaf(*index), what);
                }
                // It is named where the log is looked at.
                Err(StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(findings)
}

/// Whether a leaf stands in its log so. Of one that is archived a tile has the hash.
async fn stands<S: Store>(store: &S, log: TenantNo, index: u64, line: &[u8]) -> Result<bool, StoreError> {
    if index >= held::end(store, log).await? {
        let stored = store.get(Family::Leaves, place::leaf(log, index)).await?;
        return Ok(stored.is_some_and(|stored| stored[..] == *line));
    }
    let tile = store.get(Family::Tiles, place::tile(log, 0, index / 256)).await?;
    // 255 at most, times 32.
    let at = (index % 256) as usize * 32;
    let hash = tile.as_ref().and_then(|tile| tile.get(at..at + 32));
    Ok(hash.is_some_and(|hash| *hash == leaf_hash(line)))
}
