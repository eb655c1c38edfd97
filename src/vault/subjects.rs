//! The data subjects of one writing request: the caller's ids become handles, and each subject gets the DEKs it needs.
//!
//! An id leads to its handle through a blind index, so no id stands in a key; the record keeps the id sealed, so that
//! index keys can rotate.

use std::collections::HashMap;
use std::sync::Arc;

use strongroom_commit::{Fact, Guard, Use};
use strongroom_ids::{DekVersion, FieldNo, KeyringNo, RowId, RowVersion, SubjectHandle, TenantId};
use strongroom_keys::{self as keys, Dek, DekOwner, DekPlace, IndexName, Sealed, ValuePlace};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{Consent, IndexEntry, IndexKind, SubjectRecord, SubjectState, WrappedDek};
use strongroom_storage::{Family, Mutation, Store};

use crate::error::{Error, Violation};
use crate::index::Places;
use crate::road::{Item, Prepared, Refused, Road};
use crate::values::row_hash;

/// Why there is nothing to say of a subject.
pub(crate) fn unknown() -> Error {
    let description = "no data subject of that id has anything in the vault";
    Error::NotFoundAt(vec![Violation::new("subject", "subject_unknown", description)])
}

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

    /// The records of one subject that a request is about, whatever their state: several, if subjects were merged, and none
    /// of one that the vault does not know. Guards that they are these, and their states.
    pub async fn records_of(&self, id: &str, guards: &mut Vec<Guard>) -> Result<Vec<SubjectRecord>, Error> {
        let limit = self.vault.limits.subject;
        if id.is_empty() || id.len() > limit {
            return Err(Error::invalid("subject", "length", format!("a subject's id has 1 to {limit} bytes")));
        }
        let handles = self.handles(std::iter::once(id), guards).await?.remove(id).unwrap_or_default();
        let mut records = self.subject_records(&handles).await?;
        let mut all = Vec::with_capacity(handles.len());
        for handle in &handles {
            let record = records.remove(handle).ok_or(Error::DataLoss("a subject id without its subject"))?;
            guards.push(Guard::Unchanged(Fact::subject_state(self.tenant.number, *handle)));
            all.push(Arc::unwrap_or_clone(record));
        }
        Ok(all)
    }

    /// Counts that it was asked about a subject, so that nobody finds out by guessing whom the vault knows.
    pub fn asked_about<A>(&self, id: &str, known: bool, prepared: &mut Prepared<A>) {
        prepared.charge = self.charge();
        if let Some(charge) = &mut prepared.charge {
            charge.uses.push(Use::Asked { row: None, missed: !known });
        }
        if !known {
            // Committed as any answer is: what is refused may leave no leaf, and counts nothing.
            let sent = Some(self.fingerprint(id.as_bytes()));
            prepared.items.push(Item { outcome: "none", sent, ..Item::default() });
        }
    }

    /// The same two for who names a subject by itself.
    pub async fn asked_records<A>(&self, id: &str, prepared: &mut Prepared<A>) -> Result<Vec<SubjectRecord>, Refused> {
        let records = self.records_of(id, &mut prepared.guards).await?;
        self.asked_about(id, !records.is_empty(), prepared);
        Ok(records)
    }

    /// Writes a subject's record anew, of which something has changed that `fact` is about; `outcome` is what the ledger calls
    /// it.
    pub fn write_changed<A>(
        &self,
        record: SubjectRecord,
        fact: Fact,
        outcome: &'static str,
        prepared: &mut Prepared<A>,
    ) -> Result<(), Error> {
        let (tenant, handle) = (self.tenant.number, record.handle);
        // A salt of its own, as every version of a row has: else who knows this one could guess what was there before.
        let record = SubjectRecord { salt: keys::random::<16>()?, ..record };
        let keys = Fact::subject_keys(tenant, handle);
        prepared.guards.push(Guard::Unchanged(keys));
        prepared.changes.extend([keys, fact]);
        self.put_record(&record, outcome, prepared);
        Ok(())
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

    /// Gives the subject behind an id a consent; its handle, and the hash of its record from then on. None for the empty id.
    pub fn give(&mut self, id: &str, consent: Consent) -> Option<(SubjectHandle, [u8; 32])> {
        let subject = self.places.get(id).and_then(|place| self.list.get_mut(*place))?;
        subject.record.consents.push(consent);
        subject.changed = true;
        Some((subject.record.handle, record_hash(&subject.record)))
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
pub(crate) fn may_be_written(record: &SubjectRecord) -> Result<(), Error> {
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
