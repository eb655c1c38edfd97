//! What is derived: index entries, subjects' rows, holders. None may be missing, and none may lead where nothing is.

use std::collections::HashMap;

use strongroom_ids::{RowId, SubjectHandle};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{IndexKind, ValueRow};
use strongroom_storage::{Entry, Family, Store, StoreError};

use super::finding::{Fault, Kind, Place};
use super::history::{Found, History, RecordedValue};
use super::{Check, Phase, ahead, number_at};
use crate::pages::{PAGE, Pages};
use crate::values::entry_key;

/// Where the kind of an `Index` entry stands in its key.
const KIND: usize = 4;

/// Where an index entry leads.
enum Target {
    Row(RowId),
    Subjects(Vec<SubjectHandle>),
}

impl<S: Store> Check<'_, S> {
    /// Every index entry must belong to the value or subject that it leads to. That none is missing was seen there.
    pub async fn index(&mut self, history: &History) -> Result<(), StoreError> {
        // Not every value has one; it is a guess for the progress only.
        let about = history.values.len() as u64;
        let mut done = 0;
        let seed = self.part();
        let pages = Pages::of_tenant(Family::Index, self.number).of(ahead::PAGE);
        let look = async |page: Vec<Entry>| {
            let mut part = seed.part();
            part.index_page(history, &page).await?;
            Ok::<_, StoreError>((part, page.len() as u64))
        };
        let over = (self.store, pages, self.threads);
        let take = |(part, entries): (Self, u64)| {
            self.add(part);
            done += entries;
            self.report(Phase::Entries, done, about);
        };
        ahead::pages(over, look, take).await
    }

    async fn index_page(&mut self, history: &History, page: &[Entry]) -> Result<(), StoreError> {
        let mut targets = Vec::with_capacity(page.len());
        for (key, held) in page {
            match target(key, held) {
                Some(target) => targets.push((&key[..], target)),
                None => {
                    let what = "an index entry can't be read";
                    self.found(Kind::IndexEntry, Fault::Unreadable, Place::Key(key.to_vec()), what);
                }
            }
        }
        let good = |row: &RowId| history.values.get(row).is_some_and(|value| value.found.get().is_good());
        let rows = targets.iter().filter_map(|(_, target)| match target {
            Target::Row(row) => Some(*row).filter(good),
            Target::Subjects(_) => None,
        });
        let rows = self.rows(rows.collect()).await?;
        let handles = targets.iter().flat_map(|(_, target)| match target {
            Target::Row(_) => &[],
            Target::Subjects(handles) => handles.as_slice(),
        });
        let records = self.records(handles.copied().collect()).await?;
        for (key, target) in &targets {
            match target {
                Target::Row(row) => self.entry_of_row(history, key, *row, rows.get(row)),
                Target::Subjects(handles) => {
                    for handle in handles {
                        let index = records.get(handle).map(|record| record.id_index);
                        let own = index.map(|entry| place::subject_id(self.number, entry.version, &entry.mac));
                        self.entry_of_subject(history, key, *handle, own.as_deref());
                    }
                }
            }
        }
        Ok(())
    }

    fn entry_of_row(&mut self, history: &History, key: &[u8], id: RowId, row: Option<&ValueRow>) {
        let leads_to = Place::Row(id);
        let Some(recorded) = history.values.get(&id) else {
            let what = "an index entry leads to it, and there is no such value";
            return self.found(Kind::IndexEntry, Fault::Added, leads_to, what);
        };
        // The row is a finding of its own; or the schema is, without which no entry's key can be computed.
        let (Some(row), Some(schema), true) = (row, &self.schema, recorded.found.get().is_good()) else { return };
        let Some(field) = schema.field_no(row.field) else { return };
        let names = row.indexes.iter().any(|entry| *entry_key(self.number, field, entry, row.subject, id) == *key);
        match names {
            true => self.counts.index_entries += 1,
            false => {
                let what = "an index entry leads to it that its row does not name";
                self.found(Kind::IndexEntry, Fault::Added, leads_to, what);
            }
        }
    }

    fn entry_of_subject(&mut self, history: &History, key: &[u8], handle: SubjectHandle, own: Option<&[u8]>) {
        let leads_to = Place::Subject(handle);
        match history.subjects.get(&handle).map(|subject| subject.found.get().is_good()) {
            None => {
                let what = "an index entry leads to it, and there is no such subject";
                self.found(Kind::IndexEntry, Fault::Added, leads_to, what);
            }
            Some(true) if own != Some(key) => {
                let what = "an index entry leads to it that its record does not name";
                self.found(Kind::IndexEntry, Fault::Added, leads_to, what);
            }
            Some(true) => self.counts.index_entries += 1,
            // The record is a finding of its own.
            Some(false) => {}
        }
    }

    async fn rows(&self, mut ids: Vec<RowId>) -> Result<HashMap<RowId, ValueRow>, StoreError> {
        ids.sort_unstable();
        ids.dedup();
        let keys = ids.iter().map(|id| place::row(self.number, *id)).collect();
        let rows = self.store.multi_get(Family::Rows, keys).await?;
        let rows = ids.into_iter().zip(rows);
        Ok(rows.filter_map(|(id, row)| Some((id, ValueRow::decode(&row?).ok()?))).collect())
    }

    /// Every entry by which a subject's values, or a shared value's holders, are found.
    pub async fn holders(&mut self, history: &History) -> Result<(), StoreError> {
        let good = || history.values.iter().filter(|(_, value)| value.found.get().is_good());
        let rows: u64 = good().map(|(row, value)| subjects(history, *row, value).count() as u64).sum();
        let shared = good().filter(|(_, value)| value.found.get() == Found::Shared);
        let holds: u64 = shared.map(|(row, value)| history.holders(*row, value).count() as u64).sum();
        let of = rows.saturating_add(holds);
        let mut done = 0;
        for (family, expected) in [(Family::SubjectRows, rows), (Family::Holders, holds)] {
            // Which values are shared only the schema says.
            if family == Family::Holders && self.schema.is_none() {
                continue;
            }
            let mut valid = 0;
            let mut pages = Pages::of_tenant(family, self.number);
            while let Some(page) = pages.next(self.store).await? {
                for (key, held) in &page {
                    valid += u64::from(self.holding(history, family, key, held));
                }
                done += page.len() as u64;
                self.report(Phase::Holders, done, of);
            }
            self.counts.holders += valid;
            // Valid entries are distinct, so their number says whether one is missing.
            if valid < expected {
                self.missing_holdings(history, family).await?;
            }
        }
        Ok(())
    }

    /// One entry; says whether a good value needs it.
    fn holding(&mut self, history: &History, family: Family, key: &[u8], held: &[u8]) -> bool {
        let (row, subject, kind) = match family {
            Family::Holders => (number_at(key, 4), number_at(key, 12), Kind::Holder),
            _ => (number_at(key, 12), number_at(key, 4), Kind::SubjectRow),
        };
        let (Some(row), Some(subject), 20, true) = (row, subject, key.len(), held.is_empty()) else {
            self.unknown(key);
            return false;
        };
        let (row, subject) = (RowId(row), SubjectHandle(subject));
        let value = history.values.get(&row);
        // A row that is missing or changed is a finding of its own.
        if value.is_some_and(|value| !value.found.get().is_good()) {
            return false;
        }
        let fits = |value: &RecordedValue| family == Family::SubjectRows || value.found.get() == Found::Shared;
        let valid = value.is_some_and(|value| fits(value) && history.holds(row, value, subject));
        if !valid {
            let what = match value {
                Some(_) => format!("an entry says that subject {subject} holds it, and the ledger does not"),
                None => format!("an entry says that subject {subject} holds it, and there is no such value"),
            };
            self.found(kind, Fault::Added, Place::Row(row), what);
        }
        valid
    }

    /// Names the entries that are missing.
    async fn missing_holdings(&mut self, history: &History, family: Family) -> Result<(), StoreError> {
        let needed = history.values.iter().filter(|(_, value)| match family {
            Family::Holders => value.found.get() == Found::Shared,
            _ => value.found.get().is_good(),
        });
        let mut needed: Vec<(RowId, SubjectHandle)> = needed
            .flat_map(|(row, value)| history.holders(*row, value).map(|subject| (*row, subject)))
            .filter(|(_, subject)| family == Family::Holders || subject.is_some())
            .collect();
        needed.sort_unstable();
        for page in needed.chunks(PAGE) {
            let key = |(row, subject): &(RowId, SubjectHandle)| match family {
                Family::Holders => place::holder(self.number, *row, *subject),
                _ => place::subject_row(self.number, *subject, *row),
            };
            let held = self.store.multi_get(family, page.iter().map(key).collect()).await?;
            for ((row, subject), held) in page.iter().zip(held) {
                if held.is_none() {
                    let kind = if family == Family::Holders { Kind::Holder } else { Kind::SubjectRow };
                    let what = format!("the entry that says that subject {subject} holds it is gone");
                    self.found(kind, Fault::Missing, Place::Row(*row), what);
                }
            }
        }
        Ok(())
    }
}

/// The subjects that hold a value; none for a value of nobody.
fn subjects<'h>(
    history: &'h History,
    row: RowId,
    value: &'h RecordedValue,
) -> impl Iterator<Item = SubjectHandle> + 'h {
    history.holders(row, value).filter(|subject| subject.is_some())
}

/// Where an entry leads; none if it has not the form of an entry.
fn target(key: &[u8], held: &[u8]) -> Option<Target> {
    let kind = IndexKind::of(*key.get(KIND)?)?;
    match kind {
        IndexKind::Value => place::decode_value_index(key).ok().filter(|_| held.is_empty()).map(Target::Row),
        IndexKind::SubjectId => place::decode_handles(held).ok().map(Target::Subjects),
        _ => place::decode_row_id(held).ok().map(Target::Row),
    }
}
