//! Clearing: a subject is closed, and then its rows and what leads to them go, page by page. Requests of the vault itself, on the
//! road that everybody takes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use strongroom_access::Action;
use strongroom_commit::{Fact, Guard};
use strongroom_ids::{KeyVersion, KeyringNo, RowId, SubjectHandle, TenantNo};
use strongroom_keys::{DekOwner, DekPlace};
use strongroom_ledger::CLEARING;
use strongroom_storage::keys as place;
use strongroom_storage::rows::{ErasureRow, ErasureStage, ErasureWork, RowDek, SubjectRecord, SubjectState, ValueRow};
use strongroom_storage::{Entry, Family, Mutation, Range, Store};

use super::{Name, erasure_fact, load_erasure, load_work, put_erasure, put_work};
use crate::closing::mapping;
use crate::error::Error;
use crate::pages::{PAGE, Pages};
use crate::resolve::Found;
use crate::road::{Attempt, Item, Prepared, Refused, Road};
use crate::roll;

/// Bytes at the end of an index entry's key that are not kept: all but one of the blind index.
const LEADS_ON: usize = 31;

/// The keyrings of what is held of a subject.
pub(crate) struct Held(BTreeSet<KeyringNo>);

impl Held {
    /// Whether DEKs of a keyring stay: the one of the subject's id does.
    pub fn stays(&self, keyring: KeyringNo) -> bool {
        keyring == KeyringNo(0) || self.0.contains(&keyring)
    }

    /// Looks at what a subject has, and what of it is held at a time, in microseconds since 1970; none if nothing is.
    pub async fn of<S: Store>(
        store: &S,
        tenant: TenantNo,
        record: &SubjectRecord,
        now: u64,
    ) -> Result<Option<Self>, Error> {
        if record.standing(now).next().is_none() {
            return Ok(None);
        }
        let (mut keyrings, mut any) = (BTreeSet::new(), false);
        let (from, to) = place::subject_rows_after(tenant, record.handle, RowId(0));
        let mut pages = Pages::new(Family::SubjectRows, from, to);
        while let Some(page) = pages.next(store).await? {
            for (_, row) in rows_of(store, tenant, &page).await? {
                let Some(Ok(row)) = row else { continue };
                if record.is_held(row.field, now) {
                    any = true;
                    // What subjects share has DEKs of its own.
                    keyrings.extend((row.subject == record.handle).then_some(row.keyring));
                }
            }
        }
        Ok(any.then_some(Self(keyrings)))
    }
}

/// The rows that entries of `SubjectRows` name.
#[allow(clippy::type_complexity)]
async fn rows_of<S: Store>(
    store: &S,
    tenant: TenantNo,
    page: &[Entry],
) -> Result<Vec<(RowId, Option<Result<ValueRow, strongroom_storage::StoreError>>)>, Error> {
    let ids = page.iter().map(|(key, _)| place::decode_subject_row(key)).collect::<Result<Vec<_>, _>>()?;
    let keys = ids.iter().map(|id| place::row(tenant, *id)).collect();
    let rows = store.multi_get(Family::Rows, keys).await?;
    Ok(ids.into_iter().zip(rows).map(|(id, row)| (id, row.map(|row| ValueRow::decode(&row)))).collect())
}

/// Counts what goes with a subject's record, but for what is held; what was signed before does not say it.
pub(crate) fn count(record: &SubjectRecord, held: Option<&Held>, row: &mut ErasureRow) {
    for dek in record.deks.iter().filter(|dek| !held.is_some_and(|held| held.stays(dek.keyring))) {
        row.erased.deks += 1;
        row.keks.push((dek.keyring, dek.kek_version));
    }
    row.keks.sort_unstable();
    row.keks.dedup();
    row.erased.consents += record.consents.len() as u64;
    row.erased.entries += u64::from(held.is_none());
    row.receipt.clear();
}

/// How the key of the entry begins that leads from a subject's id to it.
pub(crate) fn led_from(tenant: TenantNo, record: &SubjectRecord) -> Vec<u8> {
    let mut key = mapping(tenant, record);
    key.truncate(key.len().saturating_sub(LEADS_ON));
    key
}

/// What is left to do for a subject with which nothing has begun.
pub(crate) fn new_work(erasure: Name) -> ErasureWork {
    let alone = (RowId(0), RowId(0));
    ErasureWork { erasure, stage: ErasureStage::Clearing(RowId(0)), mapping: vec![], alone, held: 0 }
}

impl<S: Store> Road<'_, S> {
    /// Destroys a subject's DEKs and what leads from its id to it, but for what is held of it. Its rows are to be cleared then.
    pub(super) async fn begin_clearing<A>(
        &self,
        record: &SubjectRecord,
        erasure: Name,
        row: &mut ErasureRow,
        prepared: &mut Prepared<A>,
    ) -> Result<(), Error> {
        let mut work = new_work(erasure);
        // That the set of its rows is this one, the change of the record guards.
        let held = Held::of(&*self.vault.store, self.tenant.number, record, self.now).await?;
        count(record, held.as_ref(), row);
        match &held {
            Some(held) => self.restrict_subject(record, held, prepared).await?,
            None => {
                work.mapping = led_from(self.tenant.number, record);
                let (from, to) = place::subject_rows_after(self.tenant.number, record.handle, RowId(0));
                match self.vault.store.scan(Family::SubjectRows, Range { from, to, limit: 1 }).await?.is_empty() {
                    true => {
                        self.close_subject(record, prepared).await?;
                        work.stage = ErasureStage::Cleared;
                    }
                    false => self.entomb_subject(record, prepared).await?,
                }
            }
        }
        prepared.mutations.push(put_work(self.tenant.number, record.handle, &work));
        Ok(())
    }
}

/// Closes a subject whose time of grace, or a hold on whom, is over.
pub(super) struct Close(pub SubjectHandle);

impl<S: Store> Attempt<S> for Close {
    type Answer = ();
    const ACTION: Action = Action::EraseSubject;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<()>, Refused> {
        // Nobody decides this any more, but a freeze of all that is written keeps it waiting.
        road.not_stopped()?;
        let (tenant, store) = (road.tenant.number, &*road.vault.store);
        let work = load_work(store, tenant, self.0).await?.ok_or(Error::NotFound)?;
        let (ErasureStage::Waiting(due) | ErasureStage::Kept(due)) = work.stage else {
            return Err(Error::NotFound.into());
        };
        if due > road.now {
            return Err(Error::NotFound.into());
        }
        let mut prepared = road.prepare(());
        let mut row = load_erasure(store, tenant, &work.erasure).await?.ok_or(Error::DataLoss("an erasure"))?;
        let record = road.subject_records(&[self.0]).await?.remove(&self.0);
        let record = record.ok_or(Error::DataLoss("a subject that is being erased"))?;
        row.due = 0;
        road.begin_clearing(&record, work.erasure, &mut row, &mut prepared).await?;
        let fact = erasure_fact(tenant, &work.erasure);
        prepared.guards.push(Guard::Unchanged(fact));
        prepared.changes.push(fact);
        prepared.mutations.push(put_erasure(tenant, &work.erasure, &row));
        Ok(prepared)
    }
}

/// Clears the next page of a closed subject's rows; after the last one nothing of it is left but what is held.
pub(super) struct ClearPage(pub SubjectHandle);

impl<S: Store> Attempt<S> for ClearPage {
    type Answer = ();
    const ACTION: Action = Action::EraseSubject;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<()>, Refused> {
        let (tenant, store) = (road.tenant.number, &*road.vault.store);
        let mut work = load_work(store, tenant, self.0).await?.ok_or(Error::NotFound)?;
        let ErasureStage::Clearing(after) = work.stage else { return Err(Error::NotFound.into()) };
        let mut prepared = road.prepare(());
        let mut row = load_erasure(store, tenant, &work.erasure).await?.ok_or(Error::DataLoss("an erasure"))?;
        let record = road.subject_records(&[self.0]).await?.remove(&self.0);
        let record = record.ok_or(Error::DataLoss("a subject that is being erased"))?;
        let facts = [Fact::subject_state(tenant, self.0), Fact::subject_keys(tenant, self.0)];
        let fact = erasure_fact(tenant, &work.erasure);
        prepared.guards.extend(facts.into_iter().chain([fact]).map(Guard::Unchanged));
        prepared.changes.push(fact);

        let (from, to) = place::subject_rows_after(tenant, self.0, after);
        let mut page = store.scan(Family::SubjectRows, Range { from, to, limit: PAGE + 1 }).await?;
        let more = page.len() > PAGE;
        page.truncate(PAGE);
        let own = clear_rows(road, &record, &page, (&mut work, &mut row), &mut prepared).await?;
        row.keks.extend(own);
        row.keks.sort_unstable();
        row.keks.dedup();
        let last = page.last().map(|(key, _)| place::decode_subject_row(key)).transpose()?;
        work.stage = match last.filter(|_| more) {
            Some(last) => {
                prepared.detail.push(("stage", CLEARING.to_owned()));
                ErasureStage::Clearing(last)
            }
            None => {
                finish(road, &record, &mut prepared);
                ErasureStage::Cleared
            }
        };
        prepared.mutations.push(put_work(tenant, self.0, &work));
        prepared.mutations.push(put_erasure(tenant, &work.erasure, &row));
        Ok(prepared)
    }
}

/// Removes what a page of a subject's rows names, but for what is held. Says which KEKs wrapped DEKs of values.
async fn clear_rows<S: Store>(
    road: &Road<'_, S>,
    record: &Arc<SubjectRecord>,
    page: &[Entry],
    (work, row): (&mut ErasureWork, &mut ErasureRow),
    prepared: &mut Prepared<()>,
) -> Result<Vec<(KeyringNo, KeyVersion)>, Error> {
    let tenant = road.tenant.number;
    let rows = rows_of(&*road.vault.store, tenant, page).await?;
    let alone = |row: &Option<Result<ValueRow, _>>| matches!(row, Some(Ok(row)) if !row.subject.is_some());
    let alone: Vec<RowId> = rows.iter().filter(|(_, row)| alone(row)).map(|(id, _)| *id).collect();
    let keys = alone.iter().map(|id| place::row_dek(tenant, *id)).collect();
    let own = road.vault.store.multi_get(Family::RowDeks, keys).await?;
    let own: HashMap<RowId, RowDek> =
        alone.into_iter().zip(own).filter_map(|(id, row)| Some((id, RowDek::decode(&row?).ok()?))).collect();
    let mut keks = Vec::new();
    for (id, stored) in rows {
        prepared.guards.push(Guard::Unchanged(Fact::row(tenant, id)));
        let is_there = stored.is_some();
        let value = stored.and_then(Result::ok);
        let keeps = |value: Option<&ValueRow>| value.is_none_or(|value| record.is_held(value.field, road.now));
        if record.state == SubjectState::Held && is_there && keeps(value.as_ref()) {
            // What can't be read may be held: it stays.
            work.held += 1;
            continue;
        }
        let field = value.as_ref().and_then(|value| road.schema.field_no(value.field)).cloned();
        let Some((value, field)) = value.zip(field) else {
            // It can't be read, or is gone: what is left goes all the same.
            prepared.changes.extend([Fact::row(tenant, id), Fact::subject_rows(tenant, record.handle)]);
            prepared.mutations.push(Mutation::Delete(Family::Rows, place::row(tenant, id)));
            let entry = place::subject_row(tenant, record.handle, id);
            prepared.mutations.push(Mutation::Delete(Family::SubjectRows, entry));
            if is_there {
                let (row, subject) = (Some(id), Some(record.handle));
                prepared.items.push(Item { row, outcome: "deleted", subject, ..Item::default() });
            }
            continue;
        };
        let subject = (value.subject == record.handle).then(|| Arc::clone(record));
        let found = Found { id, row: value, field, subject, own_dek: own.get(&id).cloned(), expires: None };
        let last = road.has_one_holder(&found, prepared).await?;
        road.remove_holding(&found, record.handle, prepared);
        let version = Some(found.row.version);
        let item = |outcome| Item { subject: Some(record.handle), version, ..found.item(outcome) };
        if !last {
            row.erased.shares += 1;
            prepared.items.push(item("released"));
            continue;
        }
        row.erased.values += 1;
        row.erased.entries += found.row.indexes.len() as u64;
        road.remove_value(&found, prepared);
        if found.subject.is_none() {
            let (keyring, version) = (found.row.keyring, found.row.dek_version);
            prepared.forget.push(DekPlace { tenant: road.tenant.id, keyring, owner: DekOwner::Value(id), version });
            row.erased.deks += 1;
            keks.extend(found.own_dek.as_ref().map(|dek| (dek.keyring, dek.kek_version)));
            work.alone.0 = if work.alone.0 == RowId(0) { id } else { work.alone.0.min(id) };
            work.alone.1 = work.alone.1.max(id);
        }
        prepared.items.push(item("deleted"));
    }
    Ok(keks)
}

/// After the last page: the record goes; of a subject of whom something is held the DEKs are marked, which have sealed what is
/// gone.
fn finish<S: Store>(road: &Road<'_, S>, record: &SubjectRecord, prepared: &mut Prepared<()>) {
    let (tenant, handle) = (road.tenant.number, record.handle);
    if record.state == SubjectState::Held {
        return roll::mark(tenant, record, None, &mut prepared.mutations);
    }
    prepared.changes.extend([Fact::subject_state(tenant, handle), Fact::subject_keys(tenant, handle)]);
    prepared.mutations.push(Mutation::Delete(Family::Subjects, place::subject(tenant, handle)));
    prepared.items.push(Item { outcome: "subject_erased", subject: Some(handle), ..Item::default() });
}
