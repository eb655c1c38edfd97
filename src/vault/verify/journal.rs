//! Whether the journal is the one that this vault wrote, and says what the logs say.

use std::path::PathBuf;
use std::sync::Arc;

use strongroom_commit::{HeadFile, JournalError};
use strongroom_ledger::journal::Record;
use strongroom_storage::{Family, Store, keys as place};

use super::{Fault, Finding, Kind, Place, Verification, VerifyError};
use crate::open::{OpenError, SYSTEM, SYSTEM_NO, journal_place, stored_lanes, tenant_rows, vault_row};

/// What is wrong with the journal in a folder, if anything is. One that can't be read up to its end is named by the record that is
/// damaged; each that is not what its log says, by its leaf.
pub async fn verify_journal<S: Store>(
    verification: &Verification<'_, S>,
    folder: PathBuf,
) -> Result<Vec<Finding>, VerifyError> {
    let Verification { store, keystore, head_file, .. } = *verification;
    let vault = vault_row(store, keystore).await?.vault;
    let rows = tenant_rows(store).await?;
    let lanes = stored_lanes(store, &rows).await?;
    let system = rows.iter().find(|tenant| tenant.number == SYSTEM_NO).ok_or(OpenError::NoVault)?.id;
    let publics: Vec<[u8; 32]> = keystore.ledger_keys(system)?.all().iter().map(|key| key.public_key()).collect();
    // A head file that can't be used is a finding of its own.
    let known = HeadFile::read(head_file, vault, &publics).ok().and_then(|head| head.journal);
    let mut records = vec![];
    let read = journal_place(folder, vault, system, keystore)?.read(known, |record| records.push(record));
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
        let row = rows
            .iter()
            .zip(&lanes)
            .find(|(row, (_, lane))| row.number == log.tenant && lane.incarnation == log.incarnation);
        // What an earlier incarnation had beyond this one's beginning stands nowhere else.
        let Some((row, (tenant, lane))) = row else { continue };
        if size > lane.size {
            let what = format!("it has leaf {}, and the log ends with {} leaves", size - 1, lane.size);
            found(&row.name, Fault::Added, Place::Only, what);
            continue;
        }
        if let Record::Leaf { index, line, .. } = record {
            let stored = store.get(Family::Leaves, place::leaf(*tenant, *index)).await?;
            if stored.is_none_or(|stored| stored[..] != line[..]) {
                found(&row.name, Fault::Changed, Place::Leaf(*index), "it is not what stands in the log".to_owned());
            }
        }
    }
    Ok(findings)
}
