//! What follows when a subject is closed: its rows and what leads to them are cleared, page by page, then what files still have of
//! its keys, and then it is signed what was done. By the vault itself, on the road that everybody takes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use strongroom_access::{Action, Principal, Role};
use strongroom_commit::{Change, CommitError, Fact, Guard};
use strongroom_ids::{KeyringNo, RowId, SubjectHandle, TenantNo};
use strongroom_keys::{self as keys, DekOwner, DekPlace, KeyName};
use strongroom_ledger::erasure::{self, ErasureReceipt};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{
    ErasureRow, ErasureStage, ErasureWork, JobKind, RowDek, SubjectRecord, SubjectState, ValueRow,
};
use strongroom_storage::{Entry, Family, Mutation, Range, Store};

use super::{LEFTOVERS, Name, erasure_fact, load_erasure, load_work, put_erasure, put_work};
use crate::error::Error;
use crate::jobs;
use crate::key_copies::Copies;
use crate::open::LANE;
use crate::pages::{PAGE, Pages};
use crate::resolve::Found;
use crate::road::{Attempt, Caller, Item, Prepared, Refused, Road};
use crate::roll;
use crate::tenant_life::lives_on;
use crate::vault::Vault;

/// A day, in microseconds.
const DAY: u64 = 24 * 3_600 * 1_000_000;
/// For how long it is known what became of an erasure, in days.
const REMEMBERED: u32 = 90;
/// Bytes at the end of an index entry's key that are not kept: all but one of the blind index.
const LEADS_ON: usize = 31;
/// Where something of a subject may stand, besides the log.
const FAMILIES: [Family; 8] = [
    Family::Subjects,
    Family::RowDeks,
    Family::Meta,
    Family::Index,
    Family::SubjectRows,
    Family::Holders,
    Family::Idempotency,
    Family::Rows,
];

/// What is left to do for a subject with which nothing has begun.
pub(super) fn new_work(erasure: Name) -> ErasureWork {
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
        let held = self.held_keyrings(record).await?;
        let stays =
            |keyring: KeyringNo| held.as_ref().is_some_and(|held| keyring == KeyringNo(0) || held.contains(&keyring));
        for dek in record.deks.iter().filter(|dek| !stays(dek.keyring)) {
            row.erased.deks += 1;
            row.keks.push((dek.keyring, dek.kek_version));
        }
        row.keks.sort_unstable();
        row.keks.dedup();
        row.erased.consents += record.consents.len() as u64;
        row.receipt.clear();
        match &held {
            Some(keyrings) => {
                let keyrings: Vec<KeyringNo> = keyrings.iter().copied().collect();
                self.restrict_subject(record, &keyrings, record.holds.clone(), prepared).await?;
            }
            None => {
                row.erased.entries += 1;
                work.mapping = self.mapping(record);
                work.mapping.truncate(work.mapping.len().saturating_sub(LEADS_ON));
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

    /// The keyrings of a subject's values that are held; none if nothing is. The set of its rows is guarded by the caller.
    async fn held_keyrings(&self, record: &SubjectRecord) -> Result<Option<BTreeSet<KeyringNo>>, Error> {
        if record.standing(self.now).next().is_none() {
            return Ok(None);
        }
        let (mut keyrings, mut any) = (BTreeSet::new(), false);
        let (from, to) = place::subject_rows_after(self.tenant.number, record.handle, RowId(0));
        let mut pages = Pages::new(Family::SubjectRows, from, to);
        while let Some(page) = pages.next(&*self.vault.store).await? {
            for (_, row) in self.rows_of(&page).await? {
                let Some(Ok(row)) = row else { continue };
                if record.is_held(row.field, self.now) {
                    any = true;
                    // What subjects share has DEKs of its own.
                    keyrings.extend((row.subject == record.handle).then_some(row.keyring));
                }
            }
        }
        Ok(any.then_some(keyrings))
    }

    /// The rows that entries of `SubjectRows` name.
    #[allow(clippy::type_complexity)]
    async fn rows_of(
        &self,
        page: &[Entry],
    ) -> Result<Vec<(RowId, Option<Result<ValueRow, strongroom_storage::StoreError>>)>, Error> {
        let ids = page.iter().map(|(key, _)| place::decode_subject_row(key)).collect::<Result<Vec<_>, _>>()?;
        let keys = ids.iter().map(|id| place::row(self.tenant.number, *id)).collect();
        let rows = self.vault.store.multi_get(Family::Rows, keys).await?;
        Ok(ids.into_iter().zip(rows).map(|(id, row)| (id, row.map(|row| ValueRow::decode(&row)))).collect())
    }
}

/// Closes a subject whose time of grace, or a hold on whom, is over.
struct Close(SubjectHandle);

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
struct ClearPage(SubjectHandle);

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
            Some(last) => ErasureStage::Clearing(last),
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
) -> Result<Vec<(KeyringNo, strongroom_ids::KeyVersion)>, Error> {
    let tenant = road.tenant.number;
    let rows = road.rows_of(page).await?;
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

/// Signs what was done, and forgets whose it was.
struct Sign(Name);

impl<S: Store> Attempt<S> for Sign {
    /// Whether DEKs were marked.
    type Answer = bool;
    const ACTION: Action = Action::EraseSubject;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<bool>, Refused> {
        let (tenant, store) = (road.tenant.number, &*road.vault.store);
        let mut prepared = road.prepare(false);
        let mut row = load_erasure(store, tenant, &self.0).await?.ok_or(Error::NotFound)?;
        let records = road.subject_records(&row.open).await?;
        let (mut left, mut held) = (Vec::new(), 0);
        for subject in &row.open {
            let Some(work) = load_work(store, tenant, *subject).await? else { continue };
            if matches!(work.stage, ErasureStage::Clearing(_)) {
                return Err(Error::Conflict.into());
            }
            let Some(record) = records.get(subject) else {
                prepared.mutations.push(Mutation::Delete(Family::Meta, place::erasure_work(tenant, *subject)));
                continue;
            };
            prepared.guards.push(Guard::Unchanged(Fact::subject_state(tenant, *subject)));
            left.push(*subject);
            held += work.held;
            if work.stage == ErasureStage::Cleared {
                prepared.answer = true;
                let until = record.standing(road.now).map(|hold| hold.until).min().unwrap_or(0);
                let work = ErasureWork { stage: ErasureStage::Kept(until), ..work };
                prepared.mutations.push(put_work(tenant, *subject, &work));
            }
        }
        row.open = left;
        let day = u32::try_from(road.now / DAY).map_err(|_| Error::Internal("a day beyond all calendars"))?;
        row.expires = if row.open.is_empty() { day.saturating_add(REMEMBERED) } else { 0 };
        row.receipt = receipt(road, &row, held, day).await?;
        let facts = [erasure_fact(tenant, &self.0), Fact::erasure(tenant, LEFTOVERS)];
        prepared.guards.push(Guard::Unchanged(facts[0]));
        prepared.changes.extend(facts);
        prepared.mutations.push(put_erasure(tenant, &self.0, &row));
        // Another one each time, so that who writes leftovers away sees that there are more.
        let leftovers = keys::random::<16>().map_err(Error::from)?.to_vec();
        prepared.mutations.push(Mutation::Put(Family::Meta, place::leftovers(tenant), leftovers));
        prepared.detail.push(("stage", "signed".to_owned()));
        Ok(prepared)
    }
}

/// What is signed of an erasure.
async fn receipt<S: Store>(road: &Road<'_, S>, row: &ErasureRow, held: u64, day: u32) -> Result<String, Error> {
    let (vault, id) = (road.vault, road.tenant.id);
    let mut keks = vault.keystore.keys(id);
    keks.retain(|key| match key.name {
        KeyName::Kek(_, keyring) => row.keks.contains(&(keyring, key.version)),
        _ => false,
    });
    let (copies, _) = lives_on(&Copies::load(vault).await?, &keks);
    let kept = vault.backups_kept.get().copied();
    let receipt = ErasureReceipt {
        held,
        day,
        values: row.erased.values,
        shares: row.erased.shares,
        entries: row.erased.entries,
        consents: row.erased.consents,
        deks: row.erased.deks,
        keks: keks.iter().map(|key| (key.name.to_string(), key.version.0, key.state.to_string())).collect(),
        copies,
        // One that was made on that day, too.
        backups: kept.map(|days| day.saturating_add(days).saturating_add(1)),
    };
    let incarnation = vault.committer.head(road.tenant.number).map_or(1, |head| head.incarnation);
    let key = vault.keystore.ledger_key(id)?;
    erasure::sign(&receipt, (vault.id, id), (LANE, incarnation), &key.public_key(), |text| key.sign(text))
        .map_err(|_| Error::Internal("a receipt that can't be signed"))
}

/// Asks that DEKs are rolled which are marked.
struct AskRoll;

impl<S: Store> Attempt<S> for AskRoll {
    type Answer = strongroom_storage::rows::JobRow;
    const ACTION: Action = Action::Roll;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Self::Answer>, Refused> {
        let row = jobs::next(road, JobKind::Roll, None).await?;
        Ok(jobs::prepare(road, JobKind::Roll, roll::of_what_is_marked(row)))
    }

    fn install(&self, vault: &Vault<S>, tenant: &crate::tenant::Tenant, answer: &Self::Answer) {
        vault.jobs.tell_started(tenant.number, JobKind::Roll, answer);
    }
}

/// The vault itself, in a tenant.
fn itself(tenant: TenantNo) -> Caller {
    Caller::new(Arc::new(Principal { tenant, name: "vault".into(), role: Role::Operator }), "")
}

/// What is to be done next of an erasure.
enum Next {
    Close(SubjectHandle),
    Clear(SubjectHandle),
    Sign,
    Nothing,
}

impl<S: Store> Vault<S> {
    /// Waits until something may be left to do of an erasure.
    pub async fn erasure_work(&self) {
        self.erasures_left.notified().await;
    }

    /// Says for how many days a backup is kept, as its operators have it.
    pub fn keep_backups(&self, days: u32) {
        let _ = self.backups_kept.set(days);
    }

    /// Takes an erasure as far as it can be taken now.
    pub(super) async fn finish_erasure(&self, tenant: TenantNo, name: &Name) -> Result<(), Error> {
        while self.erasure_step(tenant, name).await? {}
        Ok(())
    }

    /// Takes the next step of an erasure. `false`: there is none now.
    pub async fn erasure_step(&self, tenant: TenantNo, name: &[u8; 16]) -> Result<bool, Error> {
        // One step of one at a time: two would only turn each other back.
        let _one = self.erasing.lock().await;
        let by = itself(tenant);
        match self.next_step(tenant, name).await? {
            Next::Close(subject) => self.travel(&by, &Close(subject)).await?,
            Next::Clear(subject) => self.travel(&by, &ClearPage(subject)).await?,
            Next::Sign => {
                self.scrub_keys(tenant, name).await?;
                if self.travel(&by, &Sign(*name)).await? {
                    match self.travel(&by, &AskRoll).await {
                        // The next one does it.
                        Ok(_) | Err(Error::JobRunning { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            Next::Nothing => return Ok(false),
        }
        Ok(true)
    }

    async fn next_step(&self, tenant: TenantNo, name: &Name) -> Result<Next, Error> {
        let Some(row) = load_erasure(&*self.store, tenant, name).await? else { return Ok(Next::Nothing) };
        let (mut clear, mut sign) = (None, false);
        for subject in row.open {
            let Some(work) = load_work(&*self.store, tenant, subject).await? else { continue };
            match work.stage {
                ErasureStage::Waiting(due) | ErasureStage::Kept(due) if due <= self.now() => {
                    return Ok(Next::Close(subject));
                }
                ErasureStage::Waiting(_) | ErasureStage::Kept(_) => {}
                ErasureStage::Clearing(_) => clear = Some(subject),
                ErasureStage::Cleared => sign = true,
            }
        }
        Ok(match (clear, sign) {
            (Some(subject), _) => Next::Clear(subject),
            (None, true) => Next::Sign,
            (None, false) => Next::Nothing,
        })
    }

    /// Sees that no file has the DEKs that an erasure destroyed, nor what led from the subject's id to it.
    async fn scrub_keys(&self, tenant: TenantNo, name: &Name) -> Result<(), Error> {
        let Some(row) = load_erasure(&*self.store, tenant, name).await? else { return Ok(()) };
        let mut ranges = Vec::new();
        for subject in row.open {
            let Some(work) = load_work(&*self.store, tenant, subject).await? else { continue };
            let key = place::subject(tenant, subject);
            ranges.push((Family::Subjects, key.clone(), place::prefix_end(&key)));
            if !work.mapping.is_empty() {
                let to = place::prefix_end(&work.mapping);
                ranges.push((Family::Index, work.mapping, to));
            }
            if work.alone.1 != RowId(0) {
                let to = place::prefix_end(&place::row_dek(tenant, work.alone.1));
                ranges.push((Family::RowDeks, place::row_dek(tenant, work.alone.0), to));
            }
        }
        for (family, from, to) in ranges {
            self.store.scrub(family, from, to).await?;
        }
        Ok(())
    }

    /// The erasures that can go on now, and when the next one can, in microseconds since 1970, if that is known.
    pub async fn open_erasures(&self) -> Result<(BTreeSet<(TenantNo, [u8; 16])>, Option<u64>), Error> {
        let (mut open, mut next) = (BTreeSet::new(), None::<u64>);
        for tenant in self.tenants.numbers() {
            let (from, to) = place::erasure_works_range(tenant);
            let mut pages = Pages::new(Family::Meta, from, to);
            while let Some(page) = pages.next(&*self.store).await? {
                for (_, bytes) in page {
                    match ErasureWork::decode(&bytes) {
                        Ok(ErasureWork { stage: ErasureStage::Waiting(due) | ErasureStage::Kept(due), .. })
                            if due > self.now() =>
                        {
                            next = Some(next.map_or(due, |next| next.min(due)));
                        }
                        Ok(work) => _ = open.insert((tenant, work.erasure)),
                        Err(_) => self.damaged("what is left of an erasure"),
                    }
                }
            }
        }
        Ok((open, next))
    }

    /// Tenants of which files may still hold what was erased.
    pub async fn tenants_with_leftovers(&self) -> Result<Vec<TenantNo>, Error> {
        let mut tenants = Vec::new();
        for tenant in self.tenants.numbers() {
            if self.store.get(Family::Meta, place::leftovers(tenant)).await?.is_some() {
                tenants.push(tenant);
            }
        }
        Ok(tenants)
    }

    /// Sees that no file holds what was erased of a tenant's subjects. It rewrites all that the tenant has.
    pub async fn scrub_leftovers(&self, tenant: TenantNo) -> Result<(), Error> {
        let fact = Fact::erasure(tenant, LEFTOVERS);
        let before = self.store.get(Family::Meta, place::leftovers(tenant)).await?;
        let own = tenant.0.to_be_bytes().to_vec();
        for family in FAMILIES {
            self.store.scrub(family, own.clone(), place::prefix_end(&own)).await?;
        }
        let position = self.committer.position();
        if self.store.get(Family::Meta, place::leftovers(tenant)).await? != before {
            // More was erased meanwhile.
            return Ok(());
        }
        let mutations = vec![Mutation::Delete(Family::Meta, place::leftovers(tenant))];
        let (guards, changes) = (vec![Guard::Unchanged(fact)], vec![fact]);
        match self.committer.commit(Change { position, guards, changes, mutations, leaves: vec![], charge: None }).await
        {
            // More was erased just now: once more, then.
            Ok(_) | Err(CommitError::Conflict(_) | CommitError::TooOld) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets erasures of which nothing was left so long ago that nobody asks any more.
    pub(crate) async fn forget_old_erasures(&self) -> Result<(), Error> {
        let today = self.now() / DAY;
        for tenant in self.tenants.numbers() {
            let (from, to) = place::erasures_range(tenant);
            let mut pages = Pages::new(Family::Meta, from, to);
            while let Some(page) = pages.next(&*self.store).await? {
                let is_over = |row: &[u8]| {
                    ErasureRow::decode(row).is_ok_and(|row| row.expires > 0 && u64::from(row.expires) <= today)
                };
                let over = page.iter().filter(|(_, row)| is_over(row));
                let gone: Vec<Mutation> = over.map(|(key, _)| Mutation::Delete(Family::Meta, key.to_vec())).collect();
                if !gone.is_empty() {
                    self.commit_unguarded(gone, vec![]).await?;
                }
            }
        }
        Ok(())
    }
}
