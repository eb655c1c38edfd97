//! Values: each row is recorded, its DEK proves itself, and its index entries follow from what it holds.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use strongroom_ids::{DekVersion, KeyringNo, RowId, SubjectHandle};
use strongroom_keys::{Dek, DekOwner, DekPlace, IndexName, Plaintext, Sealed};
use strongroom_schema::{Field, Scope};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{IndexEntry, IndexKind, RowDek, SubjectRecord, SubjectState, ValueRow};
use strongroom_storage::{Entry, Family, Store, StoreError};

use super::finding::{Fault, Kind, Place};
use super::history::{Found, History};
use super::moved::Stray;
use super::{Check, Phase, ahead};
use crate::pages::Pages;
use crate::values::{entry_key, row_hash, value_place};

/// What a page of values needs besides its rows.
struct Beside {
    records: HashMap<SubjectHandle, SubjectRecord>,
    /// Wrapped DEKs that stand beside their values.
    own: HashMap<RowId, RowDek>,
    /// DEKs of subjects that were unwrapped already; none for one that does not unwrap.
    deks: HashMap<(SubjectHandle, KeyringNo, DekVersion), Option<Arc<Dek>>>,
}

/// An index entry that must be there, and what it must hold.
struct Expected {
    row: RowId,
    key: Vec<u8>,
    holds: Vec<u8>,
}

/// Whether a value belongs to a subject that is erased, and is not held at the time of the last leaf: its DEK is destroyed, and it
/// is being cleared.
fn is_going(record: &SubjectRecord, row: &ValueRow, now: u64) -> bool {
    match record.state {
        SubjectState::Open | SubjectState::Leaving => false,
        SubjectState::Held => !record.is_held(row.field, now),
        SubjectState::Closed => true,
    }
}

impl<S: Store> Check<'_, S> {
    /// Every value's row.
    pub async fn values(&mut self, history: &History) -> Result<(), StoreError> {
        type Looked<C> = (C, Vec<(RowId, Found)>, Vec<Stray<RowId>>, u64);
        let expected = history.values.len() as u64;
        let mut done = 0;
        let seed = self.part();
        let pages = Pages::of_tenant(Family::Rows, self.number).of(ahead::PAGE);
        let look = async |page: Vec<Entry>| {
            let (mut part, mut strays) = (seed.part(), Vec::new());
            let marks = part.page_of_values(history, &page, &mut strays).await?;
            Ok::<_, StoreError>((part, marks, strays, page.len() as u64))
        };
        let over = (self.store, pages, self.threads);
        let mut strays = Vec::new();
        let take = |(part, marks, more, rows): Looked<Self>| {
            self.add(part);
            self.keep_strays(history, &mut strays, more);
            for (row, found) in marks {
                if let Some(value) = history.values.get(&row) {
                    value.found.set(found);
                }
            }
            done += rows;
            self.report(Phase::Values, done, expected);
        };
        let looked = ahead::pages(over, look, take).await;
        self.strays(history, &strays, looked.is_ok());
        looked?;
        let missing = history.values.iter().filter(|(_, value)| value.found.get() == Found::Not);
        let mut missing: Vec<_> = missing.map(|(row, value)| (*row, value.leaf, value.version)).collect();
        missing.sort_unstable();
        for (row, leaf, version) in missing {
            let what = format!("it is gone; leaf {leaf} records version {version}, and none its removal");
            self.found_by(leaf, Kind::Value, Fault::Missing, Place::Row(row), what);
        }
        Ok(())
    }

    /// A page of values. Answers how each that the ledger records was found.
    async fn page_of_values(
        &mut self,
        history: &History,
        page: &[Entry],
        strays: &mut Vec<Stray<RowId>>,
    ) -> Result<Vec<(RowId, Found)>, StoreError> {
        let mut marks = Vec::with_capacity(page.len());
        let mut good = Vec::with_capacity(page.len());
        for (key, bytes) in page {
            let Ok(id) = place::decode_row(key) else {
                self.unknown(key);
                continue;
            };
            match self.recorded(history, id, bytes, strays) {
                Some(row) => good.push((id, row)),
                None => marks.push((id, Found::Wrong)),
            }
        }
        self.open_page(&good, &mut marks).await?;
        Ok(marks)
    }

    /// Holds a row against its leaf; given back if it is as recorded.
    fn recorded(
        &mut self,
        history: &History,
        id: RowId,
        bytes: &Bytes,
        strays: &mut Vec<Stray<RowId>>,
    ) -> Option<ValueRow> {
        let (row, hash) = (ValueRow::decode(bytes), row_hash(bytes));
        if history.values.get(&id).is_none_or(|recorded| recorded.hash != hash) {
            let version = row.ok().map(|row| row.version.0);
            strays.push(Stray { at: id, hash, version });
            return None;
        }
        match row {
            Ok(row) => Some(row),
            Err(error) => {
                self.found(Kind::Value, Fault::Unreadable, Place::Row(id), error.to_string());
                None
            }
        }
    }

    /// Opens the good rows of a page, and looks for their index entries.
    async fn open_page(
        &mut self,
        rows: &[(RowId, ValueRow)],
        marks: &mut Vec<(RowId, Found)>,
    ) -> Result<(), StoreError> {
        let mut beside = self.beside(rows).await?;
        let mut expected = Vec::new();
        for (id, row) in rows {
            let shared = self.value(*id, row, &mut beside, &mut expected);
            let found = match (row.subject.is_some(), shared) {
                (true, _) => Found::Owned,
                (false, true) => Found::Shared,
                (false, false) => Found::Alone,
            };
            marks.push((*id, found));
        }
        let keys = expected.iter().map(|entry| entry.key.clone()).collect();
        for (entry, held) in expected.iter().zip(self.store.multi_get(Family::Index, keys).await?) {
            let place = Place::Row(entry.row);
            match held {
                None => self.found(Kind::IndexEntry, Fault::Missing, place, "an entry that leads to it is gone"),
                Some(held) if *held != *entry.holds => {
                    self.found(Kind::IndexEntry, Fault::Changed, place, "its entry leads to another value");
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    async fn beside(&self, rows: &[(RowId, ValueRow)]) -> Result<Beside, StoreError> {
        let owned = rows.iter().map(|(_, row)| row.subject).filter(|subject| subject.is_some());
        let records = self.records(owned.collect()).await?;
        let alone: Vec<RowId> = rows.iter().filter(|(_, row)| !row.subject.is_some()).map(|(id, _)| *id).collect();
        let keys = alone.iter().map(|id| place::row_dek(self.number, *id)).collect();
        let wrapped = self.store.multi_get(Family::RowDeks, keys).await?;
        let wrapped = alone.into_iter().zip(wrapped);
        let own = wrapped.filter_map(|(id, row)| Some((id, RowDek::decode(&row?).ok()?))).collect();
        Ok(Beside { records, own, deks: HashMap::new() })
    }

    /// One value: opens it and adds the index entries that it must have. Says whether subjects may share it.
    fn value(&mut self, id: RowId, row: &ValueRow, beside: &mut Beside, expected: &mut Vec<Expected>) -> bool {
        let place = Place::Row(id);
        let field = self.schema.as_ref().and_then(|schema| schema.field_no(row.field)).cloned();
        if let Some(field) = &field {
            for entry in &row.indexes {
                let key = entry_key(self.number, field, entry, row.subject, id);
                let holds = if entry.kind == IndexKind::Value { vec![] } else { place::encode_row_id(id) };
                expected.push(Expected { row: id, key, holds });
            }
        } else if self.schema.is_some() {
            let what = format!("its field, number {}, is not in the schema", row.field);
            self.found(Kind::Value, Fault::Unreadable, place.clone(), what);
        }
        let shared = field.as_ref().is_some_and(|field| field.deterministic == Some(Scope::Tenant));
        let owner = if row.subject.is_some() { DekOwner::Subject(row.subject) } else { DekOwner::Value(id) };
        let tenant = self.id;
        let Some(dek) = self.dek(id, row, owner, beside) else { return shared };
        let opened = |what, sealed: &[u8]| dek.open(&value_place(tenant, id, row, what), sealed);
        let token = row.sealed_token.as_deref().map(|sealed| opened(Sealed::Token, sealed)).transpose();
        match (opened(Sealed::Value, &row.sealed), token) {
            (Ok(value), Ok(token)) => {
                self.counts.values += 1;
                if let Some(field) = &field {
                    self.entries_follow(id, row, field, &value, token.as_ref());
                }
            }
            _ => self.found(
                Kind::Dek,
                Fault::Changed,
                place,
                "its row is as recorded and its DEK does not open it: the DEK is another",
            ),
        }
        shared
    }

    /// The DEK of a value. What is wrong with a subject's DEKs was found with the subject.
    fn dek<'b>(&mut self, id: RowId, row: &ValueRow, owner: DekOwner, beside: &'b mut Beside) -> Option<&'b Dek> {
        let place = Place::Row(id);
        let at = DekPlace { tenant: self.id, keyring: row.keyring, owner, version: row.dek_version };
        let slot = (row.subject, row.keyring, row.dek_version);
        if !row.subject.is_some() {
            let Some(wrapped) = beside.own.get(&id) else {
                self.found(Kind::Dek, Fault::Missing, place, "the DEK beside it is gone or can't be read");
                return None;
            };
            if (wrapped.keyring, wrapped.version) != (row.keyring, row.dek_version) {
                let older = wrapped.version < row.dek_version;
                let fault = if older { Fault::RolledBack } else { Fault::Changed };
                self.found(Kind::Dek, fault, place, "the DEK beside it is of another version than its row names");
                return None;
            }
            let dek = match self.unwrap(&at, wrapped.kek_version, &wrapped.blob) {
                Ok(dek) => dek,
                Err(error) => {
                    self.bad_dek(place, row.keyring, row.dek_version, &error);
                    return None;
                }
            };
            self.counts.deks += 1;
            *self.wrapped.entry((wrapped.keyring, wrapped.kek_version)).or_insert(0) += 1;
            // It is needed once; the slot of nobody is the next value's again.
            return beside.deks.entry(slot).insert_entry(Some(dek)).into_mut().as_deref();
        }
        if !beside.deks.contains_key(&slot) {
            let record = beside.records.get(&row.subject)?;
            let wrapped = record.deks.iter();
            let mut wrapped = wrapped.filter(|dek| dek.keyring == row.keyring && dek.version == row.dek_version);
            let Some(wrapped) = wrapped.next() else {
                if is_going(record, row, self.lane.as_ref().map_or(0, |lane| lane.time)) {
                    return None;
                }
                let what =
                    format!("the DEK that it is sealed under is gone from the record of subject {}", row.subject);
                self.found(Kind::Dek, Fault::Missing, place, what);
                return None;
            };
            let dek = self.unwrap(&at, wrapped.kek_version, &wrapped.blob).ok();
            beside.deks.insert(slot, dek);
        }
        beside.deks.get(&slot)?.as_deref()
    }

    /// The entries that a row names must be those that its value and token give.
    fn entries_follow(
        &mut self,
        id: RowId,
        row: &ValueRow,
        field: &Field,
        value: &Plaintext,
        token: Option<&Plaintext>,
    ) {
        let kind = match field.deterministic {
            Some(Scope::PerSubject) => IndexKind::DeterministicSubject,
            Some(Scope::Tenant) => IndexKind::DeterministicTenant,
            None => IndexKind::Value,
        };
        let of = |kind| row.indexes.iter().find(move |entry: &&IndexEntry| entry.kind == kind);
        let known = row.indexes.iter().all(|entry| entry.kind == kind || entry.kind == IndexKind::Token);
        // An index that was switched off since keeps the entries that it had.
        let needed = field.lookup || field.deterministic.is_some();
        let complete = (of(kind).is_some() || !needed) && of(IndexKind::Token).is_some() == token.is_some();
        if !known || !complete {
            let what = "the index entries that its row names are not those that its field asks for";
            return self.found(Kind::IndexEntry, Fault::Changed, Place::Row(id), what);
        }
        if let Some(entry) = of(kind) {
            match field.normalise(value.as_bytes()) {
                Ok(normal) => self.entry_follows(id, entry, IndexName::Field(field.number), &normal),
                Err(broken) => {
                    let what =
                        format!("it has no normal form any more ({}), so its entry can't be checked", broken.rule);
                    self.found(Kind::IndexEntry, Fault::Unreadable, Place::Row(id), what);
                }
            }
        }
        if let Some((entry, token)) = of(IndexKind::Token).zip(token) {
            self.entry_follows(id, entry, IndexName::Token, token.as_bytes());
        }
    }

    fn entry_follows(&mut self, id: RowId, entry: &IndexEntry, index: IndexName, text: &[u8]) {
        let place = Place::Row(id);
        match self.keystore.index_key_version(self.id, index, entry.version) {
            Ok(key) if key.mac(&[text]) != entry.mac => {
                let what = "the index entry that its row names does not follow from what it holds";
                self.found(Kind::IndexEntry, Fault::Changed, place, what);
            }
            Ok(_) => {}
            Err(error) => self.found(Kind::IndexEntry, Fault::Unreadable, place, error.to_string()),
        }
    }

    /// DEKs beside values: none without a value that needs it. Those that are needed were opened with their values.
    pub async fn own_deks(&mut self, history: &History) -> Result<(), StoreError> {
        let mut pages = Pages::of_tenant(Family::RowDeks, self.number);
        while let Some(page) = pages.next(self.store).await? {
            for (key, _) in &page {
                let Ok(id) = place::decode_row(key) else {
                    self.unknown(key);
                    continue;
                };
                let found = history.values.get(&id).map(|value| value.found.get());
                if found.is_none_or(|found| found == Found::Owned) {
                    let what = "there is a DEK, and no value that needs it";
                    self.found(Kind::Dek, Fault::Added, Place::Row(id), what);
                }
            }
        }
        Ok(())
    }
}
