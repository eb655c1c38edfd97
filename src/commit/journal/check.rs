//! What a start holds against the journal: the logs up to where they were looked at, and what it lacks behind that.

use strongroom_ids::TenantNo;
use strongroom_ledger::head::Head;
use strongroom_ledger::journal::Log;
use strongroom_ledger::{Frontier, leaf, may_restrict, restricts};
use strongroom_storage::rows::{ArchiveRow, LaneHead};
use strongroom_storage::{Entry, Family, Range, Store, StoreError, keys};

use super::{Journal, JournalError};

/// How many leaves one page of the search brings; a leaf is less than 64 KiB.
const PAGE: usize = 256;

impl Journal {
    /// The leaves that restrict and do not stand here yet, each with its log, of a store that is as far as its head file: those of
    /// one write, if the process died before they were journalled. Whoever writes the files could have put others in their place.
    pub async fn lacks<S: Store>(
        &self,
        lanes: &[(TenantNo, LaneHead)],
        store: &S,
    ) -> Result<Vec<(Log, Vec<u8>)>, JournalError> {
        let mut all = vec![];
        for (tenant, head) in lanes {
            let log = Log { tenant: *tenant, incarnation: head.incarnation };
            if self.seen_of(log) >= head.size {
                continue;
            }
            let mut at = self.unseen_from(log, store).await?;
            while at < head.size {
                let (next, found) = restricting(log, at, head.size, store).await?;
                at = next;
                all.extend(found.into_iter().map(|(_, line)| (log, line)));
            }
        }
        Ok(all)
    }

    /// Whether the logs are those that were looked at: with as many leaves as then each has the root that it had. Of those that
    /// the head file signs it is known already.
    pub async fn knows<S: Store>(
        &self,
        lanes: &[(TenantNo, LaneHead)],
        head: &Head,
        store: &S,
    ) -> Result<(), JournalError> {
        self.is_reached_by(lanes)?;
        for (tenant, lane) in lanes {
            let log = Log { tenant: *tenant, incarnation: lane.incarnation };
            let signed = head.lanes.iter().find(|signed| signed.tenant == *tenant);
            let signed = signed.and_then(|signed| Frontier::from_bytes(&signed.frontier).ok());
            let mut frontier = signed.unwrap_or_default();
            let Some((size, root)) = self.seen.get(&log).copied().filter(|(size, _)| *size >= frontier.size()) else {
                continue;
            };
            while frontier.size() < size {
                for (_, line) in page(*tenant, frontier.size(), size, store).await? {
                    frontier.push(&line);
                }
            }
            if frontier.root() != root {
                return Err(JournalError::StoreDifferent { tenant: *tenant, size });
            }
        }
        Ok(())
    }

    /// From where on a log is to be looked at. Leaves that are archived are not there to be.
    pub(super) async fn unseen_from<S: Store>(&self, log: Log, store: &S) -> Result<u64, JournalError> {
        let archived = store.get(Family::Archived, keys::archived(log.tenant)).await?;
        let archived = archived.map(|row| ArchiveRow::decode(&row)).transpose()?.map_or(0, |row| row.end);
        // Since it was noted how far the log was looked at, leaves may have been archived that were journalled as they came.
        Ok(self.seen_of(log).max(archived))
    }
}

/// A page of a log's leaves from an index on, of which none may be missing.
async fn page<S: Store>(tenant: TenantNo, at: u64, size: u64, store: &S) -> Result<Vec<Entry>, JournalError> {
    let (from, to) = keys::leaves_range(tenant, at, size);
    let page = store.scan(Family::Leaves, Range { from, to, limit: PAGE }).await?;
    let mut next = at;
    for (key, _) in &page {
        if keys::decode_leaf(key)? != next {
            break;
        }
        next += 1;
    }
    if page.is_empty() || next - at < page.len() as u64 {
        let what = format!("leaf {next} of tenant {tenant} is missing");
        return Err(StoreError::Corrupt { place: "the ledger", what }.into());
    }
    Ok(page)
}

/// What of such a page restricts, by index, and where the next one begins.
pub(super) async fn restricting<S: Store>(
    log: Log,
    at: u64,
    size: u64,
    store: &S,
) -> Result<(u64, Vec<(u64, Vec<u8>)>), JournalError> {
    let page = page(log.tenant, at, size, store).await?;
    let next = at + page.len() as u64;
    let restricts =
        |line: &[u8]| may_restrict(line) && leaf::parse(line).is_ok_and(|leaf| restricts(&leaf, log.tenant));
    let found = (at..).zip(page).filter(|(_, (_, line))| restricts(line));
    Ok((next, found.map(|(index, (_, line))| (index, line.to_vec())).collect()))
}
