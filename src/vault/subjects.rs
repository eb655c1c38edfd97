//! The data subjects of one writing request: the caller's ids become handles, and each subject gets the DEKs it needs.
//!
//! An id leads to its handle through a blind index, so no id stands in a key; the record keeps the id sealed, so that
//! index keys can rotate.

use std::collections::HashMap;
use std::sync::Arc;

use strongroom_commit::{Fact, Guard};
use strongroom_ids::{DekVersion, FieldNo, KeyringNo, RowId, RowVersion, SubjectHandle, TenantId};
use strongroom_keys::{self as keys, Dek, DekOwner, DekPlace, IndexName, Sealed, ValuePlace};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{IndexEntry, IndexKind, SubjectRecord, SubjectState, WrappedDek};
use strongroom_storage::{Family, Mutation, Store};

use crate::error::Error;
use crate::index::Places;
use crate::road::{Item, Prepared, Road};
use crate::values::row_hash;

/// A DEK with what a row must name to find it again.
#[derive(Clone)]
pub(crate) struct NamedDek {
    pub dek: Arc<Dek>,
    pub owner: DekOwner,
    pub keyring: KeyringNo,
    pub version: DekVersion,
}

/// The subjects that a request names, each once, in the order of their first mention.
#[derive(Default)]
pub(crate) struct Subjects {
    places: HashMap<String, usize>,
    list: Vec<Subject>,
}

struct Subject {
    record: SubjectRecord,
    places: Places,
    fresh: bool,
    changed: bool,
    deks: Vec<NamedDek>,
}

impl<S: Store> Road<'_, S> {
    /// Finds the subjects that exist, and gives handles to those that don't.
    pub async fn subjects<'i>(&self, ids: impl Iterator<Item = &'i str>) -> Result<Subjects, Error> {
        let mut subjects = Subjects::default();
        let mut names: Vec<&str> = Vec::new();
        for id in ids.filter(|id| !id.is_empty()) {
            if !subjects.places.contains_key(id) {
                subjects.places.insert(id.to_owned(), names.len());
                names.push(id);
            }
        }
        if names.is_empty() {
            return Ok(subjects);
        }
        let keys = self.index_keys(IndexName::SubjectId)?;
        let index = keys.newest();
        let macs: Vec<[u8; 32]> = names.iter().map(|id| index.mac(&[id.as_bytes()])).collect();
        let at = |version, mac: &[u8; 32]| place::subject_id(self.tenant.number, version, mac);
        let places = names.iter().zip(&macs).map(|(id, mac)| {
            let older = keys.older().map(|key| at(key.version(), &key.mac(&[id.as_bytes()])));
            Places::new(at(index.version(), mac), older.collect())
        });
        let places: Vec<Places> = places.collect();
        let mapped = self.look_up(&places.iter().collect::<Vec<_>>()).await?;
        let mut handles = Vec::with_capacity(names.len());
        for bytes in &mapped {
            // Merged subjects have several handles; what is new belongs to the first.
            handles.push(bytes.as_deref().map(place::decode_handles).transpose()?.and_then(|all| all.first().copied()));
        }
        let known: Vec<SubjectHandle> = handles.iter().flatten().copied().collect();
        let records = self.subject_records(&known).await?;
        let missing = handles.iter().filter(|handle| handle.is_none()).count();
        let mut fresh = self.tenant.subject_handles(self.vault, missing).await?;
        self.tenant.allow_seals(self.vault, KeyringNo(0), missing).await?;
        for ((id, mac), (places, handle)) in names.iter().zip(macs).zip(places.into_iter().zip(handles)) {
            subjects.list.push(match handle {
                Some(handle) => {
                    let record = records.get(&handle).ok_or(Error::DataLoss("a subject id without its subject"))?;
                    may_be_written(record)?;
                    Subject { record: (**record).clone(), places, fresh: false, changed: false, deks: vec![] }
                }
                None => {
                    let handle = fresh.next().ok_or(Error::Internal("fewer handles than asked for"))?;
                    let id_index = IndexEntry { kind: IndexKind::SubjectId, version: index.version(), mac };
                    self.new_subject(SubjectHandle(handle), id, id_index, places)?
                }
            });
        }
        Ok(subjects)
    }

    fn new_subject(
        &self,
        handle: SubjectHandle,
        id: &str,
        id_index: IndexEntry,
        places: Places,
    ) -> Result<Subject, Error> {
        // The id is sealed under the subject's DEK of the tenant's own keyring, so it dies with the subject.
        let mut subject = Subject {
            record: SubjectRecord {
                handle,
                state: SubjectState::Open,
                created: self.now,
                salt: keys::random::<16>()?,
                sealed_id: vec![],
                id_index,
                deks: vec![],
                labels: vec![],
                consents: vec![],
                holds: vec![],
                erasure: None,
            },
            places,
            fresh: true,
            changed: true,
            deks: vec![],
        };
        let named = self.subject_dek(&mut subject, KeyringNo(0))?;
        subject.record.sealed_id = named.dek.seal(&id_place(self.tenant.id, handle, named.version), id.as_bytes())?;
        Ok(subject)
    }

    /// The subject's newest DEK of a keyring, made if there is none.
    fn subject_dek(&self, subject: &mut Subject, keyring: KeyringNo) -> Result<NamedDek, Error> {
        if let Some(named) = subject.deks.iter().find(|named| named.keyring == keyring) {
            return Ok(named.clone());
        }
        let owner = DekOwner::Subject(subject.record.handle);
        let named = match subject.record.newest_dek(keyring) {
            Some(wrapped) => NamedDek {
                dek: self.unwrap_dek(owner, keyring, wrapped.version, wrapped.kek_version, &wrapped.blob)?,
                owner,
                keyring,
                version: wrapped.version,
            },
            None => {
                let (named, wrapped) = self.new_dek(owner, keyring, DekVersion(1))?;
                subject.record.deks.push(wrapped);
                subject.changed = true;
                named
            }
        };
        subject.deks.push(named.clone());
        Ok(named)
    }

    /// A new DEK, wrapped by the keyring's newest KEK.
    pub fn new_dek(
        &self,
        owner: DekOwner,
        keyring: KeyringNo,
        version: DekVersion,
    ) -> Result<(NamedDek, WrappedDek), Error> {
        let kek = self.vault.keystore.kek(self.tenant.id, keyring)?;
        let at = DekPlace { tenant: self.tenant.id, keyring, owner, version };
        let (dek, blob) = kek.new_dek(&at)?;
        // The cache takes only what is stored: of several that are made for one place at once, one will be.
        let wrapped = WrappedDek { keyring, version, kek_version: kek.version(), blob };
        Ok((NamedDek { dek, owner, keyring, version }, wrapped))
    }

    /// The DEK for a value of a subject; `None` if the request names no such subject.
    pub fn dek_of(&self, subjects: &mut Subjects, id: &str, keyring: KeyringNo) -> Result<Option<NamedDek>, Error> {
        let Some(place) = subjects.places.get(id).copied() else { return Ok(None) };
        self.subject_dek(&mut subjects.list[place], keyring).map(Some)
    }
}

impl Subjects {
    /// The handle behind an id; [`SubjectHandle::NONE`] for the empty id.
    pub fn handle(&self, id: &str) -> SubjectHandle {
        self.places.get(id).map_or(SubjectHandle::NONE, |place| self.list[*place].record.handle)
    }

    /// The labels of the subject behind an id; none for the empty id, and for a subject that is new. What changes them
    /// changes the fact of its keys too, which is guarded anyway.
    pub fn labels(&self, id: &str) -> &[String] {
        self.places.get(id).map_or(&[], |place| &self.list[*place].record.labels)
    }

    /// How many DEKs of a keyring would have to be made for these subjects.
    pub fn missing_deks<'i>(&self, wanted: impl Iterator<Item = (&'i str, KeyringNo)>) -> HashMap<KeyringNo, usize> {
        let mut seen = std::collections::HashSet::new();
        let mut missing = HashMap::new();
        for (id, keyring) in wanted {
            let Some(place) = self.places.get(id) else { continue };
            let has = self.list[*place].record.deks.iter().any(|dek| dek.keyring == keyring);
            if !has && seen.insert((*place, keyring)) {
                *missing.entry(keyring).or_insert(0) += 1;
            }
        }
        missing
    }

    /// What the request's commit must guard and write for its subjects.
    pub fn write<A>(self, tenant: strongroom_ids::TenantNo, prepared: &mut Prepared<A>) {
        for subject in self.list {
            let handle = subject.record.handle;
            subject.places.guard(tenant, &mut prepared.guards);
            prepared.changes.push(Fact::subject_rows(tenant, handle));
            if subject.fresh {
                prepared.changes.push(Fact::index(tenant, &subject.places.newest));
                let handles = place::encode_handles(&[handle]);
                prepared.mutations.push(Mutation::Put(Family::Index, subject.places.newest, handles));
                prepared.items.push(Item {
                    outcome: "subject_created",
                    subject: Some(handle),
                    hash: Some(record_hash(&subject.record)),
                    ..Item::default()
                });
            } else {
                prepared.guards.push(Guard::Unchanged(Fact::subject_state(tenant, handle)));
                prepared.guards.push(Guard::Unchanged(Fact::subject_keys(tenant, handle)));
            }
            if subject.changed {
                prepared.changes.push(Fact::subject_keys(tenant, handle));
                let key = place::subject(tenant, handle);
                prepared.mutations.push(Mutation::Put(Family::Subjects, key, subject.record.encode()));
            }
        }
    }
}

/// Whether anything may be stored for a subject that is known.
fn may_be_written(record: &SubjectRecord) -> Result<(), Error> {
    match record.state {
        SubjectState::Open => Ok(()),
        SubjectState::Leaving => Err(Error::SubjectLeaving { due: record.erasure.map_or(0, |erasure| erasure.due) }),
        SubjectState::Held => Err(Error::SubjectHeld),
        // It went while it was looked for: what is new gets a subject of its own.
        SubjectState::Closed => Err(Error::DataLoss("a subject id without its subject")),
    }
}

/// Where a subject's id is sealed, under a version of its DEK of the tenant's own keyring.
pub(crate) fn id_place(tenant: TenantId, subject: SubjectHandle, dek_version: DekVersion) -> ValuePlace {
    ValuePlace {
        tenant,
        field: FieldNo(0),
        row: RowId(0),
        subject,
        owner: DekOwner::Subject(subject),
        keyring: KeyringNo(0),
        dek_version,
        row_version: RowVersion(1),
        what: Sealed::SubjectId,
    }
}

/// The hash by which the ledger records a subject. Wrapped DEKs are left out: they prove themselves, and a rewrap shall
/// write no hashes.
pub(crate) fn record_hash(record: &SubjectRecord) -> [u8; 32] {
    row_hash(&SubjectRecord { deks: vec![], ..record.clone() }.encode())
}
