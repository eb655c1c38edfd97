//! Subjects' records: recorded but for their wrapped DEKs, which prove themselves.

use std::collections::HashMap;
use std::sync::Arc;

use strongroom_ids::{DekVersion, KeyVersion, KeyringNo, SubjectHandle};
use strongroom_keys::{Dek, DekOwner, DekPlace, IndexName, KeyError};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{IndexKind, SubjectRecord, WrappedDek};
use strongroom_storage::{Entry, Family, Store, StoreError};

use super::finding::{Fault, Kind, Place};
use super::history::{Found, History};
use super::moved::Stray;
use super::{Check, Phase, ahead};
use crate::pages::Pages;
use crate::subjects::{id_place, record_hash};

impl<S: Store> Check<'_, S> {
    /// Every subject's record, its DEKs, and the entry that leads from its id to it.
    pub async fn subjects(&mut self, history: &History) -> Result<(), StoreError> {
        let expected = history.subjects.len() as u64;
        let mut done = 0;
        let seed = self.part();
        let pages = Pages::of_tenant(Family::Subjects, self.number).of(ahead::PAGE);
        let look = async |page: Vec<Entry>| {
            let (mut part, mut strays) = (seed.part(), Vec::new());
            let marks = part.page_of_subjects(history, &page, &mut strays).await?;
            Ok::<_, StoreError>((part, marks, strays, page.len() as u64))
        };
        let over = (self.store, pages, self.threads);
        let mut strays = Vec::new();
        type Looked<C> = (C, Vec<(SubjectHandle, Found)>, Vec<Stray<SubjectHandle>>, u64);
        let take = |(part, marks, more, records): Looked<Self>| {
            self.add(part);
            self.keep_strays(history, &mut strays, more);
            for (handle, found) in marks {
                if let Some(subject) = history.subjects.get(&handle) {
                    subject.found.set(found);
                }
            }
            done += records;
            self.report(Phase::Subjects, done, expected);
        };
        let looked = ahead::pages(over, look, take).await;
        self.strays(history, &strays, looked.is_ok());
        looked?;
        let missing = history.subjects.iter().filter(|(_, subject)| subject.found.get() == Found::Not);
        let mut missing: Vec<(SubjectHandle, u64)> = missing.map(|(handle, subject)| (*handle, subject.leaf)).collect();
        missing.sort_unstable();
        for (handle, leaf) in missing {
            let what = format!("its record is gone; leaf {leaf} records it");
            self.found_by(leaf, Kind::Subject, Fault::Missing, Place::Subject(handle), what);
        }
        Ok(())
    }

    /// A page of records. Answers how each that the ledger records was found.
    async fn page_of_subjects(
        &mut self,
        history: &History,
        page: &[Entry],
        strays: &mut Vec<Stray<SubjectHandle>>,
    ) -> Result<Vec<(SubjectHandle, Found)>, StoreError> {
        let mut marks = Vec::with_capacity(page.len());
        let mut good: Vec<SubjectRecord> = Vec::with_capacity(page.len());
        for (key, bytes) in page {
            let Ok(handle) = place::decode_subject(key) else {
                self.unknown(key);
                continue;
            };
            let record = self.subject(history, handle, bytes, strays);
            marks.push((handle, if record.is_some() { Found::Owned } else { Found::Wrong }));
            good.extend(record);
        }
        self.id_entries(&good).await?;
        self.older_deks(&good).await?;
        Ok(marks)
    }

    /// One record; given back if it is as recorded.
    fn subject(
        &mut self,
        history: &History,
        handle: SubjectHandle,
        bytes: &[u8],
        strays: &mut Vec<Stray<SubjectHandle>>,
    ) -> Option<SubjectRecord> {
        let place = Place::Subject(handle);
        let recorded = history.subjects.get(&handle);
        let record = match (SubjectRecord::decode(bytes), recorded) {
            (Ok(record), _) => record,
            (Err(error), recorded) => {
                let fault = if recorded.is_some() { Fault::Changed } else { Fault::Added };
                self.found(Kind::Subject, fault, place, error.to_string());
                return None;
            }
        };
        let hash = record_hash(&record);
        if recorded.is_none_or(|recorded| recorded.hash != hash) {
            strays.push(Stray { at: handle, hash, version: None });
            return None;
        }
        self.counts.subjects += 1;
        let mut own = Vec::new();
        for dek in &record.deks {
            let at = DekPlace {
                tenant: self.id,
                keyring: dek.keyring,
                owner: DekOwner::Subject(handle),
                version: dek.version,
            };
            match self.unwrap(&at, dek.kek_version, &dek.blob) {
                Ok(key) => {
                    self.counts.deks += 1;
                    *self.wrapped.entry((dek.keyring, dek.kek_version)).or_insert(0) += 1;
                    if dek.keyring == KeyringNo(0) {
                        own.push((dek.version, key));
                    }
                }
                Err(error) => self.bad_dek(place.clone(), dek.keyring, dek.version, &error),
            }
        }
        if record.state.has_keys() {
            self.id(&record, &own);
        } else if !record.deks.is_empty() {
            let what = "it is erased, and its record has DEKs again";
            self.found(Kind::Dek, Fault::Added, Place::Subject(handle), what);
        }
        Some(record)
    }

    /// The sealed id must open, and give the index entry that the record names.
    fn id(&mut self, record: &SubjectRecord, deks: &[(DekVersion, Arc<Dek>)]) {
        let opened = deks
            .iter()
            .find_map(|(version, dek)| dek.open(&id_place(self.id, record.handle, *version), &record.sealed_id).ok());
        let place = Place::Subject(record.handle);
        let Some(opened) = opened else {
            let what = "its record is as recorded, and no DEK of it opens its sealed id";
            return self.found(Kind::Dek, Fault::Missing, place, what);
        };
        let fits = match self.keystore.index_key_version(self.id, IndexName::SubjectId, record.id_index.version) {
            Ok(key) => key.mac(&[opened.as_bytes()]) == record.id_index.mac,
            Err(error) => return self.found(Kind::IndexEntry, Fault::Unreadable, place, error.to_string()),
        };
        if !fits || record.id_index.kind != IndexKind::SubjectId {
            let what = "the index entry that its record names does not follow from its id";
            self.found(Kind::IndexEntry, Fault::Changed, place, what);
        }
    }

    /// The entries that lead from ids to good records must be there.
    async fn id_entries(&mut self, records: &[SubjectRecord]) -> Result<(), StoreError> {
        let key =
            |record: &SubjectRecord| place::subject_id(self.number, record.id_index.version, &record.id_index.mac);
        // Nothing leads to one that is erased.
        let records: Vec<&SubjectRecord> = records.iter().filter(|record| record.state.has_keys()).collect();
        let entries = self.store.multi_get(Family::Index, records.iter().map(|record| key(record)).collect()).await?;
        for (record, entry) in records.into_iter().zip(entries) {
            let place = Place::Subject(record.handle);
            match entry.map(|entry| place::decode_handles(&entry)) {
                None => {
                    self.found(
                        Kind::IndexEntry,
                        Fault::Missing,
                        place,
                        "the entry that leads from its id to it is gone",
                    );
                }
                Some(Ok(handles)) if !handles.contains(&record.handle) => {
                    self.found(Kind::IndexEntry, Fault::Changed, place, "the entry of its id leads to another subject");
                }
                // What can't be read is found when all entries are gone through.
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// A version that is not the newest is about to go, and marked for it: one that is not was put back.
    async fn older_deks(&mut self, records: &[SubjectRecord]) -> Result<(), StoreError> {
        let older = |record: &SubjectRecord| {
            let newest =
                |dek: &WrappedDek| record.newest_dek(dek.keyring).is_some_and(|one| one.version == dek.version);
            let older = record.deks.iter().filter(|dek| !newest(dek)).map(|dek| (dek.keyring, dek.version));
            older.map(|(keyring, version)| (record.handle, keyring, version)).collect::<Vec<_>>()
        };
        for (handle, keyring, version) in records.iter().flat_map(older) {
            let marks = [
                place::dek_mark(self.number, handle, keyring, version),
                place::dek_marks_range(self.number, handle, keyring).0,
            ];
            let marks = self.store.multi_get(Family::Meta, marks.into()).await?;
            if marks.iter().all(Option::is_none) {
                let what = format!(
                    "its DEK version {version} of keyring {keyring} is not the newest, and no mark says that it is to go"
                );
                self.found(Kind::Dek, Fault::Added, Place::Subject(handle), what);
            }
        }
        Ok(())
    }

    /// Unwraps a DEK.
    pub fn unwrap(&self, at: &DekPlace, kek: KeyVersion, blob: &[u8]) -> Result<Arc<Dek>, KeyError> {
        self.keystore.kek_version(at.tenant, at.keyring, kek)?.unwrap(at, blob)
    }

    /// A DEK that does not unwrap: changed, or its KEK is not in the keystore.
    pub fn bad_dek(&mut self, place: Place, keyring: KeyringNo, version: DekVersion, error: &KeyError) {
        let (fault, why) = match error {
            KeyError::CannotOpen => (Fault::Changed, "does not unwrap".to_owned()),
            other => (Fault::Unreadable, format!("can't be unwrapped: {other}")),
        };
        self.found(Kind::Dek, fault, place, format!("its DEK version {version} of keyring {keyring} {why}"));
    }

    /// The records of subjects that a page of values needs.
    pub async fn records(
        &self,
        mut handles: Vec<SubjectHandle>,
    ) -> Result<HashMap<SubjectHandle, SubjectRecord>, StoreError> {
        handles.sort_unstable();
        handles.dedup();
        let keys = handles.iter().map(|handle| place::subject(self.number, *handle)).collect();
        let rows = self.store.multi_get(Family::Subjects, keys).await?;
        let found = handles.into_iter().zip(rows);
        Ok(found.filter_map(|(handle, row)| Some((handle, SubjectRecord::decode(&row?).ok()?))).collect())
    }
}
