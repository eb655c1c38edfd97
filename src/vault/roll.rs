//! DEK roll: subjects' DEKs that have sealed what is gone get a new version, and the values under them are sealed anew.
//! What was deleted opens no more then, wherever its bytes still are.
//!
//! Whoever deletes or replaces a value of a subject marks the version of the DEK that sealed it; who starts a roll may
//! have others marked. The job goes through the marks. A subject with few values is rolled in one commit: the new
//! version, the values, and the old version's end. Of one with many the new version comes first and stands beside the old
//! one, and values move page by page; when none is left the old version and its mark go in one commit. So every version
//! that is not the newest is marked, and what a cancelled job has left is done by the next.

mod dek;

use bytes::Bytes;
use strongroom_access::Action;
use strongroom_commit::{Fact, Guard};
use strongroom_ids::{KeyringNo, RowId, SubjectHandle, TenantNo};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{JobKind, JobRow, JobState, SubjectRecord};
use strongroom_storage::{Family, Mutation, Range, Store};

use crate::error::{Error, Violation};
use crate::jobs::{self, Count, EMPTY_PAGES, Job, JobPage, PageDone};
use crate::pages::Pages;
use crate::random::Dice;
use crate::road::{Attempt, Item, Prepared, Refused, Road, make_way};
use crate::tenant::Tenant;
use crate::vault::Vault;
use dek::{Marked, Plan, Record, Rolled};

/// What kind of job it is.
const KIND: JobKind = JobKind::Roll;

/// The parts of a job: it marks the DEKs that it was asked for, and rolls what is marked.
const MARKING: u8 = 0;
const ROLLING: u8 = 1;

/// Marks of one DEK that are looked at: there is one for each of its versions.
const MARKS: usize = 1_000;

/// Whether all that is to be marked is, and nothing was rolled yet.
pub(crate) fn is_to_be_counted(row: &JobRow) -> bool {
    row.stage == ROLLING && row.cursor.is_empty()
}

/// A job that rolls what is marked already.
pub(crate) fn of_what_is_marked(row: JobRow) -> JobRow {
    JobRow { stage: ROLLING, ..row }
}

/// Starts a DEK roll, of what is marked and of what is named here.
pub struct StartRoll {
    /// A KEK, `kek/1`: the DEKs that it wraps, of all subjects or of the one that is named. May be empty.
    pub name: String,
    /// A subject's id: its DEKs, or the one of the KEK that is named. May be empty.
    pub subject: String,
}

impl<S: Store> Attempt<S> for StartRoll {
    type Answer = JobRow;
    const ACTION: Action = Action::Roll;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<JobRow>, Refused> {
        road.decide_vault()?;
        if self.subject.len() > road.vault.limits.subject {
            let description = format!("a subject has at most {} bytes", road.vault.limits.subject);
            return Err(Error::invalid("subject", "too_long", description).into());
        }
        let keyring = jobs::keyring(road, &self.name)?;
        let mut row = jobs::next(road, KIND, keyring).await?;
        // One subject's marks fit into this commit; those of all subjects are the job's first part.
        let of_all = keyring.is_some() && self.subject.is_empty();
        row.stage = if of_all { MARKING } else { ROLLING };
        let mut guards = Vec::new();
        let records = self.records(road, &mut guards).await?;
        if !of_all && records.is_empty() && !any_mark(road).await? {
            row.state = JobState::Done;
        }
        let mut prepared = jobs::prepare(road, KIND, row);
        prepared.guards.extend(guards);
        prepared.guards.extend(road.rules_unchanged());
        for record in &records {
            prepared.guards.push(Guard::Unchanged(Fact::subject_state(road.tenant.number, record.handle)));
            mark(road.tenant.number, record, keyring, &mut prepared.mutations);
            prepared.items.push(Item { outcome: "marked", subject: Some(record.handle), ..Item::default() });
        }
        if !self.name.is_empty() {
            prepared.detail.push(("key", self.name.clone()));
        }
        prepared.detail.push(("job_state", Job::of(KIND, &prepared.answer).state.to_owned()));
        Ok(prepared)
    }

    fn install(&self, vault: &Vault<S>, tenant: &Tenant, answer: &JobRow) {
        vault.jobs.tell_started(tenant.number, KIND, answer);
    }
}

impl StartRoll {
    /// The records of the subject that is named.
    async fn records<S: Store>(
        &self,
        road: &Road<'_, S>,
        guards: &mut Vec<Guard>,
    ) -> Result<Vec<SubjectRecord>, Refused> {
        let named = std::iter::once(self.subject.as_str());
        let handles = road.handles(named, guards).await?;
        let handles = handles.get(self.subject.as_str()).map_or(&[][..], Vec::as_slice);
        if handles.is_empty() && !self.subject.is_empty() {
            let sent = Some(road.fingerprint(self.subject.as_bytes()));
            let violation = Violation::new("subject", "not_found", "the vault knows no such subject");
            let error = Error::NotFoundAt(vec![violation]);
            let item = Item { outcome: error.reason(), sent, ..Item::default() };
            return Err(Refused { error, items: vec![item] });
        }
        let records = road.subject_records(handles).await?;
        let records = handles.iter().filter_map(|handle| records.get(handle));
        Ok(records.filter(|record| record.state.has_keys()).map(|record| (**record).clone()).collect())
    }
}

/// Whether any DEK is marked.
async fn any_mark<S: Store>(road: &Road<'_, S>) -> Result<bool, Error> {
    let (from, to) = place::all_dek_marks_range(road.tenant.number);
    Ok(!road.vault.store.scan(Family::Meta, Range { from, to, limit: 1 }).await?.is_empty())
}

/// Marks the newest version of each of a subject's DEKs, or of the one of a keyring. New versions are made by a roll alone,
/// so none comes in between.
pub(crate) fn mark(tenant: TenantNo, record: &SubjectRecord, only: Option<KeyringNo>, into: &mut Vec<Mutation>) {
    if !record.state.has_keys() {
        return;
    }
    for dek in record.deks.iter().filter(|dek| only.is_none_or(|only| only == dek.keyring)) {
        if record.newest_dek(dek.keyring).is_some_and(|newest| newest.version == dek.version) {
            let key = place::dek_mark(tenant, record.handle, dek.keyring, dek.version);
            into.push(Mutation::Put(Family::Meta, key, vec![]));
        }
    }
}

/// The next page of a DEK roll.
pub(crate) struct RollPage(pub JobPage);

impl<S: Store> Attempt<S> for RollPage {
    type Answer = JobRow;
    const ACTION: Action = Action::Roll;
    /// What was deleted or erased opens until it is done.
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<JobRow>, Refused> {
        let row = jobs::running(road, KIND, self.0.number).await?;
        let row = JobRow { updated: road.now, ..row };
        let prepared = match row.stage {
            MARKING => self.mark(road, row).await?,
            _ => self.roll(road, row).await?,
        };
        Ok(jobs::tell_how_far(KIND, prepared))
    }

    fn install(&self, vault: &Vault<S>, tenant: &Tenant, answer: &JobRow) {
        vault.jobs.tell(tenant.number, KIND, answer);
        if answer.state == JobState::Done {
            // Receipts of erasures wait for it.
            vault.erasures_left.notify_one();
        }
    }
}

impl RollPage {
    /// Marks the DEKs of the next subjects.
    async fn mark<S: Store>(&self, road: &Road<'_, S>, mut row: JobRow) -> Result<Prepared<JobRow>, Error> {
        let tenant = road.tenant.number;
        let mut marks = Vec::new();
        for _ in 0..EMPTY_PAGES {
            let mut pages = Pages::of_tenant(Family::Subjects, tenant).of(self.0.entries).going_on(&row.cursor);
            let Some(page) = pages.next(&*road.vault.store).await? else {
                (row.stage, row.cursor) = (ROLLING, vec![]);
                break;
            };
            row.cursor = pages.cursor();
            for (_, bytes) in &page {
                match SubjectRecord::decode(bytes) {
                    Ok(record) => mark(tenant, &record, row.keyring, &mut marks),
                    Err(_) => road.vault.damaged("a subject record"),
                }
            }
            if !marks.is_empty() {
                break;
            }
        }
        let mut prepared = jobs::prepare(road, KIND, row);
        prepared.detail.push(("marked", marks.len().to_string()));
        prepared.mutations.extend(marks);
        Ok(prepared)
    }

    /// Rolls the next DEKs, or moves the next values of one.
    async fn roll<S: Store>(&self, road: &Road<'_, S>, mut row: JobRow) -> Result<Prepared<JobRow>, Error> {
        let Some((marked, unread)) = self.marked(road, &mut row.cursor).await? else {
            row.state = JobState::Done;
            return Ok(self.prepare(road, row, (0, 0), vec![]));
        };
        let plans = self.plan(road, marked, &mut row.cursor).await?;
        let fresh = plans.iter().filter(|(_, plan)| plan.makes_version());
        let fresh: Vec<KeyringNo> = fresh.map(|(marked, _)| marked.keyring).collect();
        jobs::allow_seals(road, fresh.into_iter()).await?;
        let mut dice = Dice::default();
        let mut rolled: Vec<Rolled> = Vec::with_capacity(plans.len());
        // They stay, too: who waits for a roll of all that is marked sees that this one was none. Each page counts those that it
        // passes, and one inside a subject with many values none, since they were counted before.
        let passed = match in_the_midst(&row.cursor) {
            Some(((subject, keyring), _)) => place::dek_marks_range(road.tenant.number, subject, keyring).1,
            None => row.cursor.clone(),
        };
        let (mut deks, mut skipped) = (0, unread.iter().filter(|mark| ***mark < *passed).count() as u64);
        for (place, (marked, plan)) in plans.into_iter().enumerate() {
            make_way(place).await;
            let goes_on = plan.goes_on_after().is_some();
            let (_, behind) = place::dek_marks_range(road.tenant.number, marked.subject, marked.keyring);
            // Two DEKs of one subject stand in one record: the second is rolled in what the first has made of it.
            let record = rolled.iter().rev().map_while(|before| before.of(marked.subject)).flatten().next();
            match plan.roll(road, marked, record, &mut dice).await {
                Ok(one) => {
                    deks += u64::from(one.is_whole());
                    rolled.push(one);
                    continue;
                }
                // A version that is disabled or destroyed opens nothing, and neither does what is damaged: all of the DEK
                // stays as it is, with its mark, and the others shall not wait for it.
                Err(Error::KeyUnavailable(_)) => {}
                Err(Error::DataLoss(place)) => road.vault.damaged(place),
                Err(error) => return Err(error),
            }
            skipped += 1;
            if goes_on {
                // Not from where it was: what can't move would be passed over, and lose its DEK.
                row.cursor = behind;
            }
        }
        Ok(self.prepare(road, row, (deks, skipped), rolled))
    }

    /// What commits that so many DEKs were rolled, and so many left, and how far these have come.
    fn prepare<S: Store>(
        &self,
        road: &Road<'_, S>,
        row: JobRow,
        (deks, skipped): (u64, u64),
        rolled: Vec<Rolled>,
    ) -> Prepared<JobRow> {
        let done = PageDone { done: deks, skipped, moved: !rolled.is_empty() };
        let mut prepared = jobs::prepare_page(road, &self.0, row, done);
        let values: usize = rolled.into_iter().map(|one| one.write(road, &mut prepared)).sum();
        prepared.detail.push(("deks", deks.to_string()));
        prepared.detail.push(("values", values.to_string()));
        prepared
    }

    /// The next DEKs that are marked, and the marks among theirs that can't be read; none if there are no more marks. Moves the cursor
    /// behind the latter if there is nothing else.
    async fn marked<S: Store>(
        &self,
        road: &Road<'_, S>,
        cursor: &mut Vec<u8>,
    ) -> Result<Option<(Vec<Marked>, Vec<Bytes>)>, Error> {
        let (tenant, store) = (road.tenant.number, &*road.vault.store);
        if let Some(((subject, keyring), after)) = in_the_midst(cursor) {
            let (from, to) = place::dek_marks_range(tenant, subject, keyring);
            let marks = store.scan(Family::Meta, Range { from, to, limit: MARKS }).await?;
            let mut marked = Marked { after, ..Marked::new(subject, keyring) };
            marked.versions.extend(marks.iter().filter_map(|(key, _)| Some(place::decode_dek_mark(key).ok()?.version)));
            return Ok(Some((vec![marked], vec![])));
        }
        let (first, to) = place::all_dek_marks_range(tenant);
        let from = if cursor.is_empty() { first } else { cursor.clone() };
        let mut page = store.scan(Family::Meta, Range { from, to, limit: self.0.entries }).await?;
        let Some(behind) = page.last().map(|(last, _)| behind(last)) else { return Ok(None) };
        // The last one may have more marks than the page has.
        if let Some((last, at)) = page.last().and_then(|(key, _)| Some((key, place::decode_dek_mark(key).ok()?))) {
            let mut from = last.to_vec();
            from.push(0);
            let (_, to) = place::dek_marks_range(tenant, at.subject, at.keyring);
            page.extend(store.scan(Family::Meta, Range { from, to, limit: MARKS }).await?);
        }
        let (mut marked, mut unread): (Vec<Marked>, _) = (Vec::with_capacity(page.len()), vec![]);
        for (key, _) in page {
            let Ok(mark) = place::decode_dek_mark(&key) else {
                road.vault.damaged("the mark of a DEK");
                unread.push(key);
                continue;
            };
            match marked.last_mut() {
                Some(last) if (last.subject, last.keyring) == (mark.subject, mark.keyring) => {
                    last.versions.push(mark.version);
                }
                _ => {
                    let mut next = Marked::new(mark.subject, mark.keyring);
                    next.versions.push(mark.version);
                    marked.push(next);
                }
            }
        }
        if marked.is_empty() {
            *cursor = behind;
        }
        Ok(Some((marked, unread)))
    }

    /// What is done with each, as far as the page has room. Moves the cursor behind it.
    async fn plan<S: Store>(
        &self,
        road: &Road<'_, S>,
        marked: Vec<Marked>,
        cursor: &mut Vec<u8>,
    ) -> Result<Vec<(Marked, Plan)>, Error> {
        let records = records(road, &marked).await?;
        let (mut room, mut bytes) = (self.0.entries.max(1), 0);
        let mut plans = Vec::with_capacity(marked.len());
        for (one, record) in marked.into_iter().zip(records) {
            let plan = Plan::make(road, &one, record, room).await?;
            let (from, to) = place::dek_marks_range(road.tenant.number, one.subject, one.keyring);
            let last = plan.goes_on_after();
            if last.is_some() && !plans.is_empty() {
                // It begins the next page, where it may fit as a whole.
                break;
            }
            *cursor = match last {
                Some(last) => [from, last.0.to_be_bytes().to_vec()].concat(),
                None => to,
            };
            room = room.saturating_sub(plan.rows() + 1);
            bytes += plan.bytes();
            plans.push((one, plan));
            if room == 0 || bytes >= dek::BYTES || last.is_some() {
                break;
            }
        }
        Ok(plans)
    }
}

/// The record of each DEK's subject.
async fn records<S: Store>(road: &Road<'_, S>, marked: &[Marked]) -> Result<Vec<Record>, Error> {
    let keys = marked.iter().map(|one| place::subject(road.tenant.number, one.subject)).collect();
    let stored = road.vault.store.multi_get(Family::Subjects, keys).await?;
    let read = stored.into_iter().map(|bytes| match bytes.map(|bytes| SubjectRecord::decode(&bytes)) {
        None => Record::Gone,
        Some(Ok(record)) => Record::Read(Box::new(record)),
        Some(Err(_)) => Record::Damaged,
    });
    Ok(read.collect())
}

/// The next key behind one that is no mark; none that could be taken for a place in the midst.
fn behind(key: &[u8]) -> Vec<u8> {
    let mut behind = [key, &[0]].concat();
    if in_the_midst(&behind).is_some() {
        behind.push(0);
    }
    behind
}

/// The DEK that a cursor is at and the last row that was looked at, if it stands inside a subject with many values.
fn in_the_midst(cursor: &[u8]) -> Option<((SubjectHandle, KeyringNo), RowId)> {
    let (dek, row) = cursor.split_last_chunk()?;
    // A mark's key is shorter by half a row's id, so that none is taken for another.
    Some((place::decode_dek_marks(dek).ok()?, RowId(u64::from_be_bytes(*row))))
}

/// Counts, in the next so many marks, the DEKs that there are to be rolled. `false`: all are counted.
pub(crate) async fn count<S: Store>(
    vault: &Vault<S>,
    tenant: TenantNo,
    so_far: &mut Count,
    entries: usize,
) -> Result<bool, Error> {
    let (first, to) = place::all_dek_marks_range(tenant);
    let from = if so_far.cursor.is_empty() { first } else { so_far.cursor.clone() };
    let page = vault.store.scan(Family::Meta, Range { from, to, limit: entries }).await?;
    let Some(behind) = page.last().map(|(last, _)| behind(last)) else { return Ok(false) };
    let mut last = None;
    for mark in page.iter().filter_map(|(key, _)| place::decode_dek_mark(key).ok()) {
        let dek = (mark.subject, mark.keyring);
        if last.replace(dek) != Some(dek) {
            so_far.due += 1;
        }
    }
    // Behind all marks of the last one, so that it is counted once.
    so_far.cursor = last.map_or(behind, |(subject, keyring)| place::dek_marks_range(tenant, subject, keyring).1);
    Ok(true)
}
