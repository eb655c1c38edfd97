//! What the store holds of archives: how far a log is archived, and its state with so many leaves.

use strongroom_ids::TenantNo;
use strongroom_keys::IndexKey;
use strongroom_ledger::Timestamp;
use strongroom_storage::keys as place;
use strongroom_storage::rows::ArchiveRow;
use strongroom_storage::{Family, Store, StoreError};
use subtle::ConstantTimeEq;

use crate::error::Error;
use crate::pages::Pages;
use crate::verify::state::{State, StateDigest, Summing, UNREADABLE};

/// Pages of a state that are read at once.
const PAGES: usize = 16;

/// What is archived of a log, if anything ever was.
pub(crate) async fn row<S: Store>(store: &S, log: TenantNo) -> Result<Option<ArchiveRow>, StoreError> {
    let row = store.get(Family::Archived, place::archived(log)).await?;
    row.map(|row| ArchiveRow::decode(&row)).transpose()
}

/// The same, if this vault wrote it: what it says is to be done is done. `key` is the tenant's fingerprint key.
pub(crate) async fn proven<S: Store>(store: &S, log: TenantNo, key: &IndexKey) -> Result<Option<ArchiveRow>, Error> {
    let row = row(store, log).await?;
    match row.as_ref().is_none_or(|row| is_proven(log, row, key)) {
        true => Ok(row),
        false => Err(Error::DataLoss("the row of what is archived of a ledger")),
    }
}

/// Whether this vault wrote a row.
pub(crate) fn is_proven(log: TenantNo, row: &ArchiveRow, key: &IndexKey) -> bool {
    bool::from(mac(log, row, key).ct_eq(&row.mac))
}

/// What nobody without keys can say of a row.
pub(super) fn mac(log: TenantNo, row: &ArchiveRow, key: &IndexKey) -> [u8; 32] {
    key.mac(&[b"archive", &log.0.to_be_bytes(), &row.proven()])
}

/// Leaves before this one are archived.
pub(crate) async fn end<S: Store>(store: &S, log: TenantNo) -> Result<u64, StoreError> {
    Ok(row(store, log).await?.map_or(0, |row| row.end))
}

/// Refuses a leaf that is archived.
pub(crate) async fn not_archived<S: Store>(store: &S, log: TenantNo, index: u64) -> Result<(), Error> {
    match row(store, log).await? {
        Some(row) if index < row.end => Err(archived(&row)),
        _ => Ok(()),
    }
}

/// Says of leaves that they are archived, and where.
pub(crate) fn archived(row: &ArchiveRow) -> Error {
    Error::LeavesArchived { end: row.end, until: Timestamp(row.time).to_string(), place: row.place.clone() }
}

/// The state of a log with so many leaves, and what it is told apart by: who reads it holds that against the leaf that says it.
pub(crate) async fn state<S: Store>(store: &S, log: TenantNo, leaves: u64) -> Result<(State, StateDigest), Error> {
    let (from, to) = place::state_range(log, leaves);
    let mut pages = Pages::new(Family::Archived, from, to).of(PAGES);
    let (mut state, mut sum, mut next) = (State::default(), Summing::new(), 0_u32);
    while let Some(page) = pages.next(store).await? {
        for (key, text) in page {
            if place::decode_state_page(&key)? != Some((leaves, next)) {
                return Err(UNREADABLE);
            }
            next = next.checked_add(1).ok_or(UNREADABLE)?;
            let text = std::str::from_utf8(&text).map_err(|_| UNREADABLE)?;
            for line in text.strip_suffix('\n').ok_or(UNREADABLE)?.split('\n') {
                sum.line(line);
                state.read_line(line)?;
            }
        }
        tokio::task::yield_now().await;
    }
    match state.frontier.size() == leaves {
        true => Ok((state, sum.done())),
        false => Err(UNREADABLE),
    }
}
