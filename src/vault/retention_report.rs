//! The retention report: how many values of each field fall due when.

use std::collections::BTreeMap;
use std::sync::Arc;

use strongroom_access::Action;
use strongroom_commit::CommitterState;
use strongroom_ids::{FieldNo, SubjectHandle, TenantNo};
use strongroom_schema::Schema;
use strongroom_storage::keys as place;
use strongroom_storage::rows::{SubjectRecord, ValueRow};
use strongroom_storage::{Family, Range, Store, StoreError};

use crate::clock_watch::ClockJump;
use crate::error::Error;
use crate::expire::ends;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::vault::Vault;

/// Values that are read at once: each may have some 64 KiB.
const PAGE: usize = 256;
/// In microseconds.
const DAY: u64 = 86_400_000_000;
/// How far ahead what falls due is told apart, in days; a year is 366 as in a retention.
pub const AHEAD: [u64; 4] = [7, 30, 90, 366];

/// How many values of a field fall due when. Each value is counted once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldDue {
    /// The field, `borrower.mobile`.
    pub field: String,
    /// How long its values are kept, as the schema says it.
    pub retention: String,
    /// Its values.
    pub values: u64,
    /// What is due: it can't be read any more, and goes with the next job.
    pub due: u64,
    /// What falls due within the days of [`AHEAD`], and not within fewer.
    pub within: [u64; 4],
    /// What falls due after that.
    pub later: u64,
    /// What never does.
    pub never: u64,
    /// What a legal hold keeps, whenever it falls due. A value that subjects share is not asked of each of them: it counts as
    /// falling due, and what a hold on any of them keeps the job skips.
    pub held: u64,
}

/// What falls due when, and whether it will be erased then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionDue {
    /// The time that it is held against, in microseconds since 1970.
    pub time: u64,
    /// Every field of the schema, by its number.
    pub fields: Vec<FieldDue>,
    /// Values of a tenant that are erased in one job without approval: as the vault is configured, of so many.
    pub cap: u64,
    /// How the clock jumped, if nobody has said since that it is right: nothing is erased meanwhile.
    pub clock_jump: Option<ClockJump>,
}

/// The road decides and records; what falls due is counted afterwards.
struct Ask;

impl<S: Store> Attempt<S> for Ask {
    type Answer = (Arc<Schema>, u64);
    const ACTION: Action = Action::RetentionReport;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Self::Answer>, Refused> {
        road.decide_vault()?;
        // Reads go by the ledger's time where that is ahead; what is erased goes by the clock.
        Ok(road.prepare((Arc::clone(&road.schema), road.now.min((road.vault.clock)()))))
    }
}

impl<S: Store> Vault<S> {
    /// How many values of the caller's tenant fall due when.
    pub async fn retention_report(&self, caller: &Caller) -> Result<RetentionDue, Error> {
        let (schema, time) = self.travel(caller, &Ask).await?;
        let fields = self.fall_due(caller.principal.tenant, &schema, time).await?;
        let cap = self.retention.cap(fields.iter().map(|field| field.values).sum());
        Ok(RetentionDue { time, fields, cap, clock_jump: self.clock_jump() })
    }

    /// Counts a page at a time; other requests go on meanwhile. No snapshot is held, which would keep in the files what is erased
    /// meanwhile.
    async fn fall_due(&self, tenant: TenantNo, schema: &Schema, now: u64) -> Result<Vec<FieldDue>, Error> {
        let mut fields: BTreeMap<FieldNo, FieldDue> = schema
            .fields()
            .map(|field| (field.number, FieldDue::new(&field.full_name, &field.retention.to_string())))
            .collect();
        let mut from = tenant.0.to_be_bytes().to_vec();
        let to = place::prefix_end(&from);
        loop {
            let range = Range { from: from.clone(), to: to.clone(), limit: PAGE };
            let page = self.store.scan(Family::Rows, range).await?;
            let Some((last, _)) = page.last() else { break };
            from = [last, &[0][..]].concat();
            // What is damaged is for those to be told who ask for it, and is not erased either.
            let rows = page.iter().map(|(_, bytes)| ValueRow::decode(bytes));
            let rows: Vec<ValueRow> = rows.filter_map(|row| self.undamaged(row, "a value row")).collect();
            let mut handles: Vec<SubjectHandle> =
                rows.iter().map(|row| row.subject).filter(|subject| subject.is_some()).collect();
            handles.sort_unstable();
            handles.dedup();
            let keys = handles.iter().map(|handle| place::subject(tenant, *handle)).collect();
            // As they are now: a hold may have come or ended since.
            let stored = self.store.multi_get(Family::Subjects, keys).await?;
            let mut records = BTreeMap::new();
            for (handle, bytes) in handles.into_iter().zip(stored) {
                let record = bytes.and_then(|bytes| self.undamaged(SubjectRecord::decode(&bytes), "a subject record"));
                records.extend(record.map(|record| (handle, record)));
            }
            for row in &rows {
                let (Some(field), Some(count)) = (schema.field_no(row.field), fields.get_mut(&row.field)) else {
                    continue;
                };
                let held = records.get(&row.subject).is_some_and(|record| record.is_held(field.number, now));
                count.add(ends(schema, row), held, now);
            }
            // Nobody waits for it any more.
            if self.committer.state() == CommitterState::Stopped {
                return Err(Error::Sealed);
            }
            tokio::task::yield_now().await;
        }
        Ok(fields.into_values().collect())
    }

    fn undamaged<R>(&self, row: Result<R, StoreError>, place: &'static str) -> Option<R> {
        row.inspect_err(|_| self.damaged(place)).ok()
    }
}

impl FieldDue {
    fn new(field: &str, retention: &str) -> Self {
        let (field, retention) = (field.to_owned(), retention.to_owned());
        Self { field, retention, values: 0, due: 0, within: [0; 4], later: 0, never: 0, held: 0 }
    }

    /// One more value, whose time is over then, if ever.
    fn add(&mut self, end: Option<u64>, held: bool, now: u64) {
        self.values += 1;
        let slot = match end {
            _ if held => &mut self.held,
            None => &mut self.never,
            Some(end) if end <= now => &mut self.due,
            Some(end) => match AHEAD.iter().position(|days| end <= now.saturating_add(days * DAY)) {
                Some(within) => &mut self.within[within],
                None => &mut self.later,
            },
        };
        *slot += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_counted_once_by_when_its_time_is_over() {
        let now = 1_700_000_000_000_000;
        let mut field = FieldDue::new("borrower.mobile", "10y");
        for end in [0, now, now + 1, now + 7 * DAY, now + 7 * DAY + 1, now + 89 * DAY, now + 366 * DAY, u64::MAX] {
            field.add(Some(end), false, now);
        }
        field.add(None, false, now);
        for end in [None, Some(0), Some(u64::MAX)] {
            field.add(end, true, now);
        }
        let FieldDue { values, due, within, later, never, held, .. } = field;
        assert_eq!((values, due, within, later, never, held), (12, 2, [2, 1, 1, 1], 1, 1, 3));
    }
}
