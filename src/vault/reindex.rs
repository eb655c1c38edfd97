//! Reindex: what an older version of an index key leads to is led to by the newest.
//!
//! The job goes through the subjects' records, then through the values' rows. An entry moves in one commit with the record
//! or the row that names it, so that whoever looks finds it under one of the versions, before and after (`index.rs`).
//! Records and rows are recorded, so the ledger gets the hash of each that changes: a row its next version, sealed anew
//! under the same DEK. Tokens stay what they are.

use std::sync::Arc;

use strongroom_access::Action;
use strongroom_commit::{Fact, Guard};
use strongroom_ids::{FieldNo, KeyringNo, RowId, SubjectHandle, TenantNo};
use strongroom_keys::{DekOwner, DekPlace, IndexKeys, IndexName, KeyName};
use strongroom_schema::Field;
use strongroom_storage::keys as place;
use strongroom_storage::rows::{IndexEntry, IndexKind, JobKind, JobRow, JobState, SubjectRecord, ValueRow};
use strongroom_storage::{Entry, Family, Mutation, Store};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::jobs::{self, Count, EMPTY_PAGES, JobPage, PageDone};
use crate::random::Dice;
use crate::reseal::Opened;
use crate::resolve::Resolved;
use crate::road::{Attempt, Item, Prepared, Refused, Road, make_way};
use crate::subjects::{id_place, record_hash};
use crate::tenant::Tenant;
use crate::values::{entry_key, index_fact, lookup_fact};
use crate::vault::Vault;

/// What kind of job it is.
const KIND: JobKind = JobKind::Reindex;

/// The families that it goes through.
const STAGES: [Family; 2] = [Family::Subjects, Family::Rows];

/// Entries that are read at once: a row may have some 64 KiB.
const READ: usize = 256;
/// Bytes of rows that a page seals anew, about.
const BYTES: usize = 4 << 20;

/// Starts a reindex.
pub struct StartReindex;

impl<S: Store> Attempt<S> for StartReindex {
    type Answer = JobRow;
    const ACTION: Action = Action::Reindex;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<JobRow>, Refused> {
        road.decide_vault()?;
        let mut prepared = jobs::prepare(road, KIND, jobs::next(road, KIND, None).await?);
        prepared.guards.extend(road.rules_unchanged());
        Ok(prepared)
    }

    fn install(&self, vault: &Vault<S>, tenant: &Tenant, answer: &JobRow) {
        vault.jobs.tell_started(tenant.number, KIND, answer);
    }
}

/// The index whose key made an entry of a field's value.
pub(crate) fn index_of(field: FieldNo, kind: IndexKind) -> IndexName {
    match kind {
        IndexKind::Value | IndexKind::DeterministicSubject | IndexKind::DeterministicTenant => IndexName::Field(field),
        IndexKind::Token => IndexName::Token,
        IndexKind::SubjectId => IndexName::SubjectId,
    }
}

/// How many of the entries that stand in a record or row are to move. What can't be read has none.
fn due<S: Store>(vault: &Vault<S>, tenant: &Tenant, family: Family, (_, bytes): &Entry) -> u64 {
    match family {
        Family::Subjects => SubjectRecord::decode(bytes).map_or(0, |record| {
            let there = record.state.has_keys();
            u64::from(there && is_due(vault, tenant, IndexName::SubjectId, &record.id_index))
        }),
        _ => ValueRow::decode(bytes).map_or(0, |row| due_in(vault, tenant, &row)),
    }
}

fn due_in<S: Store>(vault: &Vault<S>, tenant: &Tenant, row: &ValueRow) -> u64 {
    let due = |entry: &&IndexEntry| is_due(vault, tenant, index_of(row.field, entry.kind), entry);
    row.indexes.iter().filter(due).count() as u64
}

/// Whether another version than the newest made an entry.
fn is_due<S: Store>(vault: &Vault<S>, tenant: &Tenant, index: IndexName, entry: &IndexEntry) -> bool {
    let newest = vault.keystore.newest_version(KeyName::Index(tenant.id, index));
    newest.is_some_and(|newest| newest != entry.version)
}

/// Counts, in the next so many entries, the index entries that are to move. `false`: all are counted.
pub(crate) async fn count<S: Store>(
    vault: &Vault<S>,
    tenant: &Tenant,
    so_far: &mut Count,
    entries: usize,
) -> Result<bool, Error> {
    let place = (&mut so_far.stage, &mut so_far.cursor);
    let Some((family, page)) = jobs::next_page(vault, tenant.number, &STAGES, place, entries.min(READ)).await? else {
        return Ok(false);
    };
    so_far.due += page.iter().map(|entry| due(vault, tenant, family, entry)).sum::<u64>();
    Ok(true)
}

/// The next page of a reindex.
pub(crate) struct ReindexPage(pub JobPage);

/// What a page moves, and what it can't move.
#[derive(Default)]
struct Moves {
    subjects: Vec<MovedSubject>,
    values: Vec<MovedValue>,
    /// Entries that had to stay.
    skipped: u64,
}

impl Moves {
    /// Entries that were come to.
    fn is_empty(&self) -> bool {
        self.subjects.is_empty() && self.values.is_empty() && self.skipped == 0
    }

    fn entries(&self) -> u64 {
        self.subjects.len() as u64 + self.values.iter().map(|value| value.entries.len() as u64).sum::<u64>()
    }

    /// Goes on after an entry that can't move: a version that it needs is disabled or destroyed, or it is damaged. The
    /// others shall not wait for it. What does not fit together may have changed between two reads, unless the page has
    /// the vault alone: it is tried again.
    fn skip<S: Store>(&mut self, road: &Road<'_, S>, error: Error, entries: u64) -> Result<(), Error> {
        match error {
            Error::KeyUnavailable(_) => {}
            Error::DataLoss(place) if road.alone => road.vault.damaged(place),
            error => return Err(error),
        }
        self.skipped += entries;
        Ok(())
    }
}

/// A subject whose id leads to it from another place.
struct MovedSubject {
    record: SubjectRecord,
    from: Vec<u8>,
    to: Vec<u8>,
}

/// A value that other entries lead to.
struct MovedValue {
    id: RowId,
    row: ValueRow,
    field: Arc<Field>,
    /// Those that moved: as they were, and as they are.
    entries: Vec<(IndexEntry, IndexEntry)>,
}

impl<S: Store> Attempt<S> for ReindexPage {
    type Answer = JobRow;
    const ACTION: Action = Action::Reindex;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<JobRow>, Refused> {
        let mut row = jobs::running(road, KIND, self.0.number).await?;
        let mut moves = Moves::default();
        for _ in 0..EMPTY_PAGES {
            let place = (&mut row.stage, &mut row.cursor);
            let entries = self.0.entries.min(READ);
            let Some((family, page)) = jobs::next_page(road.vault, road.tenant.number, &STAGES, place, entries).await?
            else {
                row.state = JobState::Done;
                break;
            };
            match family {
                Family::Subjects => subjects(road, &page, &mut moves).await?,
                _ => values(road, &page, &mut row.cursor, &mut moves).await?,
            }
            if !moves.is_empty() {
                break;
            }
        }
        let moved = moves.entries();
        let done = PageDone { done: moved, skipped: moves.skipped, moved: moved > 0 };
        let mut prepared = jobs::prepare_page(road, &self.0, row, done);
        for subject in moves.subjects {
            subject.write(road, &mut prepared);
        }
        for value in moves.values {
            value.write(road, &mut prepared);
        }
        prepared.detail.push(("entries", moved.to_string()));
        Ok(jobs::tell_how_far(KIND, prepared))
    }

    fn install(&self, vault: &Vault<S>, tenant: &Tenant, answer: &JobRow) {
        vault.jobs.tell(tenant.number, KIND, answer);
    }
}

/// The subjects of a page whose ids are led from under an older version.
async fn subjects<S: Store>(road: &Road<'_, S>, page: &[Entry], moves: &mut Moves) -> Result<(), Error> {
    let keys = road.index_keys(IndexName::SubjectId)?;
    let mut dice = Dice::default();
    let mut moved = Vec::new();
    for (number, entry) in page.iter().enumerate() {
        make_way(number).await;
        let Ok(record) = SubjectRecord::decode(&entry.1) else {
            road.vault.damaged("a subject record");
            continue;
        };
        if due(road.vault, road.tenant, Family::Subjects, entry) > 0 {
            match subject(road, record, &keys, &mut dice) {
                Ok(one) => moved.push(one),
                Err(error) => moves.skip(road, error, 1)?,
            }
        }
    }
    let places = moved.iter().flat_map(|one| [one.from.clone(), one.to.clone()]).collect();
    let stored = road.vault.store.multi_get(Family::Index, places).await?;
    for (one, stored) in moved.into_iter().zip(stored.chunks_exact(2)) {
        // Nobody merges subjects yet, so an id leads to one.
        let only = place::encode_handles(&[one.record.handle]);
        match stored {
            [Some(from), None] if **from == *only => moves.subjects.push(one),
            _ => moves.skip(road, Error::DataLoss("the index entry of a subject's id"), 1)?,
        }
    }
    Ok(())
}

/// Transform: a record that names the entry which the newest version gives.
fn subject<S: Store>(
    road: &Road<'_, S>,
    mut record: SubjectRecord,
    keys: &IndexKeys,
    dice: &mut Dice,
) -> Result<MovedSubject, Error> {
    let (keyring, owner) = (KeyringNo(0), DekOwner::Subject(record.handle));
    let wrapped = record.newest_dek(keyring).ok_or(Error::DataLoss("a subject without the DEK of its id"))?;
    let at = DekPlace { tenant: road.tenant.id, keyring, owner, version: wrapped.version };
    let dek = road.unwrap_once(&at, wrapped.kek_version, &wrapped.blob)?;
    let id = dek.open(&id_place(road.tenant.id, record.handle, wrapped.version), &record.sealed_id)?;
    let entry = |entry: &IndexEntry| place::subject_id(road.tenant.number, entry.version, &entry.mac);
    let from = entry(&record.id_index);
    let newest = keys.newest();
    record.id_index.version = newest.version();
    record.id_index.mac = newest.mac(&[id.as_bytes()]);
    record.salt = dice.roll()?;
    Ok(MovedSubject { from, to: entry(&record.id_index), record })
}

/// The values of a page that are led to under an older version. Takes the cursor back to where the page has enough.
async fn values<S: Store>(
    road: &Road<'_, S>,
    page: &[Entry],
    cursor: &mut Vec<u8>,
    moves: &mut Moves,
) -> Result<(), Error> {
    let mut dice = Dice::default();
    let mut bytes = 0;
    for (number, (key, stored)) in page.iter().enumerate() {
        make_way(number).await;
        let (Ok(id), Ok(row)) = (place::decode_row(key), ValueRow::decode(stored)) else {
            road.vault.damaged("a value row");
            continue;
        };
        let due = due_in(road.vault, road.tenant, &row);
        if due == 0 {
            continue;
        }
        match value(road, id, row, &mut dice).await {
            Ok(moved) => moves.values.push(moved),
            Err(error) => moves.skip(road, error, due)?,
        }
        bytes += stored.len();
        if bytes >= BYTES {
            *cursor = key.to_vec();
            cursor.push(0);
            break;
        }
    }
    Ok(())
}

/// Transform: the next version of a row, which names the entries that the newest versions give.
async fn value<S: Store>(road: &Road<'_, S>, id: RowId, row: ValueRow, dice: &mut Dice) -> Result<MovedValue, Error> {
    let subject = row.subject;
    let (Resolved::Value(found) | Resolved::Expired(found)) = road.follow_one(id, row).await? else {
        // Of a subject that is being erased it opens no more, and goes.
        return Err(match road.subject_records(&[subject]).await?.contains_key(&subject) {
            true => Error::KeyUnavailable("its subject is being erased".to_owned()),
            false => Error::DataLoss("a value whose subject is gone"),
        });
    };
    let dek = road.dek_once(&found)?;
    let held = road.open_row(id, &found.row, &dek)?;
    let mut row = found.row.clone();
    let mut entries = Vec::with_capacity(row.indexes.len());
    for entry in &mut row.indexes {
        let index = index_of(row.field, entry.kind);
        if is_due(road.vault, road.tenant, index, entry) {
            let before = *entry;
            let keys = road.index_keys(index)?;
            entry.version = keys.newest().version();
            entry.mac = keys.newest().mac(&[&text(&found.field, before.kind, &held)?]);
            entries.push((before, *entry));
        }
    }
    let key = |entry: &IndexEntry| entry_key(road.tenant.number, &found.field, entry, row.subject, id);
    let places = entries.iter().flat_map(|(from, to)| [key(from), key(to)]).collect();
    let stored = road.vault.store.multi_get(Family::Index, places).await?;
    for ((_, to), stored) in entries.iter().zip(stored.chunks_exact(2)) {
        // What else stood where it goes to would be another's token.
        match stored {
            [Some(from), None] if **from == *leads_to(to, id) => {}
            _ => return Err(Error::DataLoss("the index entry of a value")),
        }
    }
    let row = road.seal_next(id, row, &held, &dek, dice)?;
    Ok(MovedValue { id, row, field: Arc::clone(&found.field), entries })
}

/// What an entry is computed from.
fn text(field: &Field, kind: IndexKind, held: &Opened) -> Result<Zeroizing<Vec<u8>>, Error> {
    match (kind, &held.token) {
        (IndexKind::Token, Some(token)) => Ok(token.as_bytes().to_vec().into()),
        (IndexKind::Token, None) => Err(Error::DataLoss("a token that is found and not kept")),
        _ => field.normalise(held.value.as_bytes()).map_err(|_| Error::DataLoss("a value without a normal form")),
    }
}

/// What an entry of a value holds.
fn leads_to(entry: &IndexEntry, id: RowId) -> Vec<u8> {
    match entry.kind {
        IndexKind::Value => vec![],
        _ => place::encode_row_id(id),
    }
}

impl MovedSubject {
    /// What its commit guards, changes and writes.
    fn write<S: Store, A>(self, road: &Road<'_, S>, prepared: &mut Prepared<A>) {
        let (tenant, subject) = (road.tenant.number, self.record.handle);
        let of = |fact: fn(TenantNo, SubjectHandle) -> Fact| fact(tenant, subject);
        let moved = [Fact::index(tenant, &self.from), Fact::index(tenant, &self.to)];
        // The record is written as a whole, so nothing of it may have changed.
        let facts = [of(Fact::subject_state), of(Fact::subject_keys), of(Fact::subject_consents)];
        prepared.guards.extend(facts.into_iter().chain(moved).map(Guard::Unchanged));
        prepared.changes.extend(moved.into_iter().chain([of(Fact::subject_keys)]));
        let handles = place::encode_handles(&[subject]);
        prepared.mutations.push(Mutation::Delete(Family::Index, self.from));
        prepared.mutations.push(Mutation::Put(Family::Index, self.to, handles));
        prepared.mutations.push(Mutation::Put(Family::Subjects, place::subject(tenant, subject), self.record.encode()));
        let hash = Some(record_hash(&self.record));
        prepared.items.push(Item { outcome: "subject_resealed", subject: Some(subject), hash, ..Item::default() });
    }
}

impl MovedValue {
    /// What its commit guards, changes and writes.
    fn write<S: Store, A>(self, road: &Road<'_, S>, prepared: &mut Prepared<A>) {
        let Self { id, row, field, entries } = self;
        let (tenant, subject) = (road.tenant.number, row.subject);
        if subject.is_some() {
            prepared.guards.push(Guard::Unchanged(Fact::subject_state(tenant, subject)));
        }
        for (from, to) in &entries {
            let fact = |entry| index_fact(tenant, &field, entry, subject);
            if to.kind != IndexKind::Value {
                prepared.guards.extend([fact(from), fact(to)].map(Guard::Unchanged));
            }
            // Who looks the value up meanwhile has seen it at one place, at both, or at none.
            let looked_up = [from, to].into_iter().filter(|entry| entry.kind != IndexKind::Token);
            prepared.changes.extend(looked_up.map(|entry| lookup_fact(tenant, &field, entry)));
            prepared.changes.extend([fact(from), fact(to)]);
            let key = |entry| entry_key(tenant, &field, entry, subject, id);
            prepared.mutations.push(Mutation::Delete(Family::Index, key(from)));
            prepared.mutations.push(Mutation::Put(Family::Index, key(to), leads_to(to, id)));
        }
        road.write_resealed(id, &row, prepared);
    }
}
