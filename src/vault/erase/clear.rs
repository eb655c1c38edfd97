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
use strongroom_storage::rows::{
    Erasure, ErasureRow, ErasureStage, ErasureWork, RowDek, SubjectRecord, SubjectState, ValueRow,
};
use strongroom_storage::{Entry, Family, Mutation, Range, Store, StoreError};

use super::{Name, erasure_fact, load_erasure, load_work, put_erasure, put_work};
use crate::closing::mapping;
use crate::error::Error;
use crate::pages::{PAGE, Pages};
use crate::resolve::Found;
use crate::road::{Attempt, Item, Prepared, Refused, Road};
use crate::roll;

/// Bytes at the end of an index entry's key that are not kept: all but one of the blind index.
const LEADS_ON: usize = 31;

/// A row as it was read: none if it is gone.
type Read = Option<Result<ValueRow, StoreError>>;

/// Pages of a subject's rows that are looked at before it is closed.
const LOOKED_AT: usize = 4;

/// The keyrings of what is held of a subject.
pub(crate) struct Held(BTreeSet<KeyringNo>);

impl Held {
    /// Whether DEKs of a keyring stay: the one of the subject's id does.
    pub fn stays(&self, keyring: KeyringNo) -> bool {
        keyring == KeyringNo(0) || self.0.contains(&keyring)
    }

    /// Looks at what a subject has, and what of it is held at a time, in microseconds since 1970; none if nothing is.
    ///
    /// Of a subject with many values not all are looked at before it is closed: what stays is found page by page then, and till
    /// then all its keyrings do. So it is where a row can't be read, which may be held.
    pub async fn of<S: Store>(
        store: &S,
        tenant: TenantNo,
        record: &SubjectRecord,
        now: u64,
    ) -> Result<Option<Self>, Error> {
        if record.standing(now).next().is_none() {
            return Ok(None);
        }
        let all = || Self(record.deks.iter().map(|dek| dek.keyring).collect());
        let (mut keyrings, mut any, mut looked_at) = (BTreeSet::new(), false, 0);
        let (from, to) = place::subject_rows_after(tenant, record.handle, RowId(0));
        let mut pages = Pages::new(Family::SubjectRows, from, to);
        while let Some(page) = pages.next(store).await? {
            if looked_at == LOOKED_AT {
                return Ok(Some(all()));
            }
            looked_at += 1;
            for (_, row) in rows_of(store, tenant, &page).await? {
                let row = match row {
                    None => continue,
                    Some(Err(_)) => return Ok(Some(all())),
                    Some(Ok(row)) => row,
                };
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
async fn rows_of<S: Store>(store: &S, tenant: TenantNo, page: &[Entry]) -> Result<Vec<(RowId, Read)>, Error> {
    let ids = page.iter().map(|(key, _)| place::decode_subject_row(key)).collect::<Result<Vec<_>, _>>()?;
    let keys = ids.iter().map(|id| place::row(tenant, *id)).collect();
    let rows = store.multi_get(Family::Rows, keys).await?;
    Ok(ids.into_iter().zip(rows).map(|(id, row)| (id, row.map(|row| ValueRow::decode(&row)))).collect())
}

/// Counts what goes with a subject's record, but for what is held; what was signed before does not say it.
pub(crate) fn count(record: &SubjectRecord, held: Option<&Held>, row: &mut ErasureRow) {
    note_deks(record, |keyring| held.is_some_and(|held| held.stays(keyring)), row);
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
    ErasureWork { erasure, stage: ErasureStage::Clearing(RowId(0)), mapping: vec![], alone, held: 0, unrolled: 0 }
}

impl<S: Store> Road<'_, S> {
    /// Destroys a subject's DEKs and what leads from its id to it, but for what is held of it. Its rows are to be cleared then.
    pub(super) async fn begin_clearing<A>(
        &self,
        record: &SubjectRecord,
        mut work: ErasureWork,
        row: &mut ErasureRow,
        prepared: &mut Prepared<A>,
    ) -> Result<(), Error> {
        let now = self.holding_time();
        (work.stage, work.held, work.unrolled) = (ErasureStage::Clearing(RowId(0)), 0, 0);
        // That the set of its rows is this one, the change of the record guards.
        let held = Held::of(&*self.vault.store, self.tenant.number, record, now).await?;
        count(record, held.as_ref(), row);
        match &held {
            Some(held) => {
                // Which holds stood when it began is known by this time, when it comes to an end.
                let erasure = record.erasure.map(|erasure| Erasure { due: now, ..erasure });
                let record = SubjectRecord { erasure, ..record.clone() };
                self.restrict_subject(&record, held, prepared).await?;
            }
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

/// Notes which of a subject's DEKs are destroyed, and which KEKs wrapped them.
fn note_deks(record: &SubjectRecord, stays: impl Fn(KeyringNo) -> bool, row: &mut ErasureRow) {
    for dek in record.deks.iter().filter(|dek| !stays(dek.keyring)) {
        row.erased.deks += 1;
        row.keks.push((dek.keyring, dek.kek_version));
    }
    row.keks.sort_unstable();
    row.keks.dedup();
}

/// Notes which KEKs wrap the DEKs that a subject has left, and that may have sealed what is erased.
pub(super) fn note_shared(record: &SubjectRecord, keks: &mut Vec<(KeyringNo, KeyVersion)>) {
    let shared = record.deks.iter().filter(|dek| dek.keyring != KeyringNo(0));
    keks.extend(shared.map(|dek| (dek.keyring, dek.kek_version)));
    keks.sort_unstable();
    keks.dedup();
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
        if due > road.vault.erasing_time()? {
            return Err(Error::NotFound.into());
        }
        let mut prepared = road.prepare(());
        let mut row = load_erasure(store, tenant, &work.erasure).await?.ok_or(Error::DataLoss("an erasure"))?;
        let record = road.subject_records(&[self.0]).await?.remove(&self.0);
        let record = record.ok_or(Error::DataLoss("a subject that is being erased"))?;
        row.due = 0;
        let (erasure, fact) = (work.erasure, erasure_fact(tenant, &work.erasure));
        road.begin_clearing(&record, work, &mut row, &mut prepared).await?;
        prepared.guards.push(Guard::Unchanged(fact));
        prepared.changes.push(fact);
        prepared.mutations.push(put_erasure(tenant, &erasure, &row));
        Ok(prepared)
    }
}

/// Clears the next page of a closed subject's rows; after the last one nothing of it is left but what is held.
pub(super) struct ClearPage {
    pub subject: SubjectHandle,
    /// Rows of the page, at most.
    pub rows: usize,
}

impl<S: Store> Attempt<S> for ClearPage {
    type Answer = ();
    const ACTION: Action = Action::EraseSubject;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<()>, Refused> {
        let (tenant, store) = (road.tenant.number, &*road.vault.store);
        let Self { subject, rows } = *self;
        let rows = rows.min(PAGE);
        let mut work = load_work(store, tenant, subject).await?.ok_or(Error::NotFound)?;
        let ErasureStage::Clearing(after) = work.stage else { return Err(Error::NotFound.into()) };
        let mut prepared = road.prepare(());
        let mut row = load_erasure(store, tenant, &work.erasure).await?.ok_or(Error::DataLoss("an erasure"))?;
        let record = road.subject_records(&[subject]).await?.remove(&subject);
        let record = record.ok_or(Error::DataLoss("a subject that is being erased"))?;
        let facts = [Fact::subject_state(tenant, subject), Fact::subject_keys(tenant, subject)];
        let fact = erasure_fact(tenant, &work.erasure);
        prepared.guards.extend(facts.into_iter().chain([fact]).map(Guard::Unchanged));
        prepared.changes.push(fact);

        let (from, to) = place::subject_rows_after(tenant, subject, after);
        let mut page = store.scan(Family::SubjectRows, Range { from, to, limit: rows + 1 }).await?;
        let more = page.len() > rows;
        page.truncate(rows);
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
                finish(road, &record, (&mut work, &mut row), &mut prepared).await?;
                ErasureStage::Cleared
            }
        };
        prepared.mutations.push(put_work(tenant, subject, &work));
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
    let alone = |row: &Read| match row {
        Some(Ok(row)) => !row.subject.is_some(),
        // It may be one.
        Some(Err(_)) => true,
        None => false,
    };
    let alone: Vec<RowId> = rows.iter().filter(|(_, row)| alone(row)).map(|(id, _)| *id).collect();
    let keys = alone.iter().map(|id| place::row_dek(tenant, *id)).collect();
    let own = road.vault.store.multi_get(Family::RowDeks, keys).await?;
    let own: HashMap<RowId, RowDek> =
        alone.into_iter().zip(own).filter_map(|(id, row)| Some((id, RowDek::decode(&row?).ok()?))).collect();
    // What had ended when it began has ended, whatever the clock has come to say since.
    let now = road.holding_time().max(record.erasure.map_or(0, |erasure| erasure.due));
    let mut keks = Vec::new();
    for (id, stored) in rows {
        prepared.guards.push(Guard::Unchanged(Fact::row(tenant, id)));
        let is_there = stored.is_some();
        let value = stored.and_then(Result::ok);
        let keeps = |value: Option<&ValueRow>| value.is_none_or(|value| record.is_held(value.field, now));
        if record.state == SubjectState::Held && is_there && keeps(value.as_ref()) {
            // What can't be read may be held: it stays.
            work.held += 1;
            continue;
        }
        let field = value.as_ref().and_then(|value| road.schema.field_no(value.field)).cloned();
        let Some((value, field)) = value.zip(field) else {
            row.erased.unread += 1;
            let gone = clear_unread(road, record, (id, is_there), work, prepared).await?;
            if let Some(dek) = own.get(&id).filter(|_| gone) {
                row.erased.deks += 1;
                keks.push((dek.keyring, dek.kek_version));
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
            match &found.own_dek {
                Some(dek) => keks.push((dek.keyring, dek.kek_version)),
                None => row.erased.unread += 1,
            }
            was_alone(work, id);
        }
        prepared.items.push(item("deleted"));
    }
    Ok(keks)
}

/// Notes a value that had a DEK of its own.
fn was_alone(work: &mut ErasureWork, id: RowId) {
    work.alone.0 = if work.alone.0 == RowId(0) { id } else { work.alone.0.min(id) };
    work.alone.1 = work.alone.1.max(id);
}

/// Removes what is left of a row that is gone or can't be read. It may be one that others hold, too: then it stays for them, and the
/// answer is `false`. Index entries that led to it stay: nobody knows any more which they are.
async fn clear_unread<S: Store>(
    road: &Road<'_, S>,
    record: &SubjectRecord,
    (id, is_there): (RowId, bool),
    work: &mut ErasureWork,
    prepared: &mut Prepared<()>,
) -> Result<bool, Error> {
    let tenant = road.tenant.number;
    let holders = Fact::holders(tenant, id);
    prepared.guards.push(Guard::Unchanged(holders));
    prepared.changes.extend([holders, Fact::subject_rows(tenant, record.handle)]);
    let entry = place::subject_row(tenant, record.handle, id);
    prepared.mutations.push(Mutation::Delete(Family::SubjectRows, entry));
    let own = place::holder(tenant, id, record.handle);
    let (from, to) = place::holders_range(tenant, id);
    let page = road.vault.store.scan(Family::Holders, Range { from, to, limit: 2 }).await?;
    let last = page.iter().all(|(key, _)| **key == *own);
    prepared.mutations.push(Mutation::Delete(Family::Holders, own));
    if last {
        was_alone(work, id);
        prepared.changes.push(Fact::row(tenant, id));
        prepared.mutations.push(Mutation::Delete(Family::Rows, place::row(tenant, id)));
        prepared.mutations.push(Mutation::Delete(Family::RowDeks, place::row_dek(tenant, id)));
    }
    if is_there {
        let outcome = if last { "deleted" } else { "released" };
        prepared.items.push(Item { row: Some(id), outcome, subject: Some(record.handle), ..Item::default() });
    }
    Ok(last)
}

/// After the last page: the record goes, with what was left of its DEKs and mapping; of a subject of whom something is held the
/// DEKs that are left are marked: any of them may have sealed what is gone.
async fn finish<S: Store>(
    road: &Road<'_, S>,
    record: &SubjectRecord,
    (work, row): (&mut ErasureWork, &mut ErasureRow),
    prepared: &mut Prepared<()>,
) -> Result<(), Error> {
    let (tenant, handle) = (road.tenant.number, record.handle);
    if record.state == SubjectState::Held && work.held > 0 {
        roll::mark(tenant, record, None, &mut prepared.mutations);
        // The DEK of its id has sealed nothing else.
        let shared: BTreeSet<KeyringNo> = record.deks.iter().map(|dek| dek.keyring).collect();
        work.unrolled = shared.iter().filter(|keyring| **keyring != KeyringNo(0)).count() as u64;
        return Ok(());
    }
    if record.state == SubjectState::Held {
        // It was kept for what might have been held.
        note_deks(record, |_| false, row);
        row.erased.entries += 1;
        work.mapping = led_from(road.tenant.number, record);
        return road.close_subject(record, prepared).await;
    }
    prepared.changes.extend([Fact::subject_state(tenant, handle), Fact::subject_keys(tenant, handle)]);
    prepared.mutations.push(Mutation::Delete(Family::Subjects, place::subject(tenant, handle)));
    prepared.items.push(Item { outcome: "subject_erased", subject: Some(handle), ..Item::default() });
    Ok(())
}
