//! One page: what is due among the next rows, what of it is kept, and which subjects go along; or which of the next subjects
//! nothing keeps any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use strongroom_access::Action;
use strongroom_commit::{Fact, Guard};
use strongroom_ids::{RowId, SubjectHandle, TenantNo};
use strongroom_keys::{DekOwner, DekPlace};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{JobRow, JobState, SubjectRecord, SubjectState, ValueRow};
use strongroom_storage::{Entry, Family, Range, Store};

use super::{KIND, READ, STAGES, SUBJECTS, VALUES};
use crate::erase::mark_leftovers;
use crate::error::Error;
use crate::jobs::{self, EMPTY_PAGES, JobPage, PageDone};
use crate::pages::Pages;
use crate::resolve::{Found, expiry};
use crate::road::{Attempt, Item, Prepared, Refused, Road, make_way};
use crate::tenant::Tenant;
use crate::vault::Vault;

/// Holders that go with the values of one page, at most, but for the first value's: a commit has bounds. Those of one value
/// beyond so many are released before ([`Road::last_holders`]). As many are looked at together.
const HOLDERS: usize = 1_000;

/// The records of subjects, by handle: those that are gone are not there, and a damaged one is none.
type Records = HashMap<SubjectHandle, Option<Arc<SubjectRecord>>>;

/// The next page of an expire.
pub(crate) struct ExpirePage(pub JobPage);

impl<S: Store> Attempt<S> for ExpirePage {
    type Answer = JobRow;
    const ACTION: Action = Action::Expire;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<JobRow>, Refused> {
        let mut row = jobs::running(road, KIND, self.0.number).await?;
        // The job's own time lies in the past by a clock that was believed; whether it still is, is asked each time.
        road.vault.erasing_time()?;
        let begins = row.stage == VALUES && row.cursor.is_empty();
        if begins && self.0.total.is_none() {
            return Err(Error::Internal("what is due was not counted").into());
        }
        let total = self.0.total.unwrap_or(row.total);
        let limit = *row.limit.get_or_insert_with(|| road.vault.retention.cap(self.0.of));
        // What is kept anyway needs nobody's approval.
        let goes = total.saturating_sub(self.0.kept);
        if begins && goes > limit {
            return Ok(Self(JobPage { total: Some(goes), ..self.0 }).wait(road, row));
        }
        let (before, at) = (row.clone(), row.started);
        let (mut due, mut idle) = (Due::default(), vec![]);
        for _ in 0..EMPTY_PAGES {
            if row.stage == VALUES && row.done.saturating_add(row.skipped) >= total {
                // Nothing more was due when it was started.
                (row.stage, row.cursor) = (SUBJECTS, vec![]);
            }
            let place = (&mut row.stage, &mut row.cursor);
            let entries = self.0.entries.min(READ);
            let Some((family, page)) = jobs::next_page(road.vault, road.tenant.number, &STAGES, place, entries).await?
            else {
                row.state = JobState::Done;
                break;
            };
            match family {
                Family::Rows => {
                    due = Due::find(road, &page, at).await?;
                    row.cursor = due.cursor.take().unwrap_or(row.cursor);
                }
                _ => idle = find_idle(road, &page, at).await?,
            }
            if !due.is_empty() || !idle.is_empty() {
                break;
            }
        }
        let values = due.values.len() as u64;
        if row.done.saturating_add(values) > limit {
            // The schema has come to say otherwise since it was counted.
            return Ok(self.wait(road, before));
        }
        let done = PageDone { done: values, skipped: due.skipped, moved: values > 0 || !idle.is_empty() };
        let mut prepared = jobs::prepare_page(road, &self.0, row, done);
        let facts = [Fact::schema(road.tenant.number), Fact::policy(road.tenant.number)];
        prepared.guards.extend(facts.map(Guard::Unchanged));
        let subjects = idle.len() + due.remove(road, at, &mut prepared).await?;
        for (number, record) in idle.iter().enumerate() {
            make_way(number).await;
            road.close_subject(record, &mut prepared).await?;
        }
        if !prepared.forget.is_empty() {
            // What the DEKs have sealed opens no more once no file has them.
            mark_leftovers(road.tenant.number, &mut prepared)?;
        }
        prepared.detail.push(("values", values.to_string()));
        prepared.detail.push(("subjects", subjects.to_string()));
        Ok(jobs::tell_how_far(KIND, prepared))
    }

    fn install(&self, vault: &Vault<S>, tenant: &Tenant, answer: &JobRow) {
        vault.jobs.tell(tenant.number, KIND, answer);
    }
}

impl ExpirePage {
    /// What commits that there is more to do than the job may.
    fn wait<S: Store>(&self, road: &Road<'_, S>, row: JobRow) -> Prepared<JobRow> {
        let (limit, row) = (row.limit.unwrap_or_default(), JobRow { state: JobState::Waiting, ..row });
        let mut prepared = jobs::prepare_page(road, &self.0, row, PageDone { done: 0, skipped: 0, moved: false });
        prepared.detail.push(("due", prepared.answer.total.to_string()));
        prepared.detail.push(("limit", limit.to_string()));
        jobs::tell_how_far(KIND, prepared)
    }
}

/// What is due in a page.
#[derive(Default)]
struct Due {
    /// What goes.
    values: Vec<Found>,
    /// The records of the subjects that it is about.
    records: Records,
    /// How many values are kept.
    skipped: u64,
    /// Where the next page begins, if this one has ended before its last row.
    cursor: Option<Vec<u8>>,
}

impl Due {
    /// Whether nothing was found, neither what goes nor what is kept.
    fn is_empty(&self) -> bool {
        self.values.is_empty() && self.skipped == 0
    }

    /// What is due by a time, without what is frozen, under a legal hold, or of a subject that is gone.
    async fn find<S: Store>(road: &Road<'_, S>, page: &[Entry], at: u64) -> Result<Self, Error> {
        let mut rows = Vec::new();
        for (number, (key, bytes)) in page.iter().enumerate() {
            make_way(number).await;
            let (Ok(id), Ok(row)) = (place::decode_row(key), ValueRow::decode(bytes)) else {
                road.vault.damaged("a value row");
                continue;
            };
            let Some(field) = road.schema.field_no(row.field) else { continue };
            let expires = expiry(field, row.created, row.expires);
            if expires.is_some_and(|end| end <= at) {
                rows.push(Found { id, row, field: Arc::clone(field), subject: None, own_dek: None, expires });
            }
        }
        let mut due = Self::default();
        let handles = rows.iter().map(|found| found.row.subject).filter(|subject| subject.is_some());
        due.records = records(road.vault, road.tenant.number, handles.collect()).await?;
        let mut holders = 0_usize;
        for found in rows {
            let mut its_holders = Some(0);
            if road.writes_are_frozen(&found.field) || keeps_own(&due.records, &found.row, at) {
                its_holders = None;
            } else if found.is_shared() {
                its_holders = holders_without_hold(road, &found, at).await?;
            }
            let Some(its_holders) = its_holders else {
                due.skipped += 1;
                continue;
            };
            holders = holders.saturating_add(its_holders);
            if holders > HOLDERS && !due.values.is_empty() {
                due.cursor = Some(place::row(road.tenant.number, found.id));
                break;
            }
            let subject = due.records.get(&found.row.subject).cloned().flatten();
            due.values.push(Found { subject, ..found });
        }
        Ok(due)
    }

    /// Removes what goes, and the subjects of which it is the last. Says how many those are.
    async fn remove<S: Store, A>(
        mut self,
        road: &Road<'_, S>,
        at: u64,
        prepared: &mut Prepared<A>,
    ) -> Result<usize, Error> {
        let tenant = road.tenant.number;
        let mut losing: BTreeMap<SubjectHandle, BTreeSet<RowId>> = BTreeMap::new();
        for (number, found) in self.values.iter().enumerate() {
            make_way(number).await;
            prepared.guards.push(Guard::Unchanged(Fact::row(tenant, found.id)));
            for holder in road.last_holders(found, prepared).await? {
                road.remove_holding(found, holder, prepared);
                if holder.is_some() {
                    losing.entry(holder).or_default().insert(found.id);
                }
            }
            road.remove_value(found, prepared);
            if !found.row.subject.is_some() {
                let (keyring, version) = (found.row.keyring, found.row.dek_version);
                let owner = DekOwner::Value(found.id);
                prepared.forget.push(DekPlace { tenant: road.tenant.id, keyring, owner, version });
            }
            prepared.items.push(Item { version: Some(found.row.version), ..found.item("expired_removed") });
        }
        let mut going = BTreeSet::new();
        let others = losing.keys().filter(|subject| !self.records.contains_key(subject)).copied();
        self.records.extend(records(road.vault, tenant, others.collect()).await?);
        for (number, (subject, rows)) in losing.iter().enumerate() {
            make_way(number).await;
            // A hold or a consent that comes meanwhile keeps what it is about.
            let facts = [Fact::subject_state(tenant, *subject), Fact::subject_consents(tenant, *subject)];
            prepared.guards.extend(facts.map(Guard::Unchanged));
            let record = self.records.get(subject).and_then(Option::as_ref);
            let Some(record) = record.filter(|record| is_free(record, at)) else { continue };
            if are_all(road, *subject, rows).await? {
                road.close_subject(record, prepared).await?;
                going.insert(*subject);
            }
        }
        for found in self.values.iter().filter(|found| !going.contains(&found.row.subject)) {
            road.mark_dek(found, prepared);
        }
        Ok(going.len())
    }
}

/// Whether a value stays for its own subject's sake: under a legal hold, or since what is left of an erased subject is not
/// retention's.
pub(super) fn keeps_own(records: &Records, row: &ValueRow, at: u64) -> bool {
    row.subject.is_some()
        && records
            .get(&row.subject)
            .and_then(Option::as_ref)
            .is_none_or(|record| !record.state.has_keys() || record.is_held(row.field, at))
}

/// How many holders a shared value has, some [`HOLDERS`] at most; none if it stays for any of them: under a legal hold, or of
/// whom nobody can tell.
async fn holders_without_hold<S: Store>(road: &Road<'_, S>, found: &Found, at: u64) -> Result<Option<usize>, Error> {
    let (from, to) = place::holders_range(road.tenant.number, found.id);
    let mut pages = Pages::new(Family::Holders, from, to).of(HOLDERS);
    let mut count = 0;
    while let Some(page) = pages.next(&*road.vault.store).await? {
        count += page.len();
        let holders: Vec<_> = page.iter().map(|(key, _)| place::decode_holder(key)).collect::<Result<_, _>>()?;
        let holders = holders.into_iter().filter(|holder| holder.is_some());
        let records = records(road.vault, road.tenant.number, holders.collect()).await?;
        let keeps = |record: &Option<Arc<SubjectRecord>>| match record {
            Some(record) => record.is_held(found.field.number, at),
            None => true,
        };
        if records.values().any(keeps) {
            return Ok(None);
        }
    }
    Ok(Some(count.min(HOLDERS)))
}

/// The records of subjects that have one.
pub(super) async fn records<S: Store>(
    vault: &Vault<S>,
    tenant: TenantNo,
    mut handles: Vec<SubjectHandle>,
) -> Result<Records, Error> {
    handles.sort_unstable();
    handles.dedup();
    if handles.is_empty() {
        return Ok(Records::new());
    }
    let keys = handles.iter().map(|handle| place::subject(tenant, *handle)).collect();
    let stored = vault.store.multi_get(Family::Subjects, keys).await?;
    let mut records = Records::with_capacity(handles.len());
    for (handle, bytes) in handles.into_iter().zip(stored) {
        let Some(bytes) = bytes else { continue };
        let record = SubjectRecord::decode(&bytes).ok().map(Arc::new);
        if record.is_none() {
            vault.damaged("a subject record");
        }
        records.insert(handle, record);
    }
    Ok(records)
}

/// Whether nothing but its values keeps a subject.
fn is_free(record: &SubjectRecord, at: u64) -> bool {
    let held = record.standing(at).next().is_some();
    let allowed =
        record.consents.iter().any(|consent| !consent.is_withdrawn() && consent.expires.is_none_or(|end| end > at));
    // The erasure of one that is leaving ends by itself.
    record.state == SubjectState::Open && !held && !allowed
}

/// The subjects of a page that have no value, and that nothing else keeps: a hold or a consent that has ended did, or their
/// last value went another way than by this job.
async fn find_idle<S: Store>(road: &Road<'_, S>, page: &[Entry], at: u64) -> Result<Vec<SubjectRecord>, Error> {
    let mut idle = Vec::new();
    for (number, (_, bytes)) in page.iter().enumerate() {
        make_way(number).await;
        match SubjectRecord::decode(bytes) {
            Ok(record) if is_free(&record, at) => idle.push(record),
            Ok(_) => {}
            Err(_) => road.vault.damaged("a subject record"),
        }
    }
    let handles: Vec<SubjectHandle> = idle.iter().map(|record| record.handle).collect();
    let have_rows = with_rows(road, &handles).await?;
    idle.retain(|record| !have_rows.contains(&record.handle));
    Ok(idle)
}

/// Which of these subjects, in their order, have rows. Where they have few each, a scan tells it of many.
async fn with_rows<S: Store>(road: &Road<'_, S>, mut left: &[SubjectHandle]) -> Result<BTreeSet<SubjectHandle>, Error> {
    let mut found = BTreeSet::new();
    let range = |subject| place::subject_rows_after(road.tenant.number, subject, RowId(0));
    while let (Some(first), Some(last)) = (left.first(), left.last()) {
        let (from, to) = (range(*first).0, range(*last).1);
        let page = road.vault.store.scan(Family::SubjectRows, Range { from, to, limit: READ }).await?;
        let mut reached = None;
        for (key, _) in &page {
            reached = Some(place::decode_subject_of_row(key)?);
            found.extend(reached);
        }
        let Some(reached) = reached.filter(|_| page.len() == READ) else { break };
        let behind = left.partition_point(|subject| *subject <= reached);
        left = left.get(behind..).unwrap_or_default();
    }
    Ok(found)
}

/// Whether these rows are all that a subject has.
async fn are_all<S: Store>(road: &Road<'_, S>, subject: SubjectHandle, rows: &BTreeSet<RowId>) -> Result<bool, Error> {
    let (from, to) = place::subject_rows_after(road.tenant.number, subject, RowId(0));
    let range = Range { from, to, limit: rows.len() + 1 };
    let entries = road.vault.store.scan(Family::SubjectRows, range).await?;
    let ids: Vec<RowId> = entries.iter().map(|(key, _)| place::decode_subject_row(key)).collect::<Result<_, _>>()?;
    Ok(ids.iter().all(|id| rows.contains(id)))
}
