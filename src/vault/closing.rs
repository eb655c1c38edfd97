//! How a data subject goes: its record, its DEKs, and what leads from its id to it.
//!
//! With its wrapped DEKs nothing of it opens any more, whatever is left of its rows. A subject without rows goes at once
//! ([`Road::close_subject`]); of another one a record stays that says that it is closed, until its rows are cleared.

use strongroom_commit::{Fact, Guard};
use strongroom_ids::{KeyVersion, KeyringNo, TenantNo};
use strongroom_keys::{self as keys, DekOwner, DekPlace};
use strongroom_storage::keys as place;
use strongroom_storage::rows::{IndexEntry, SubjectRecord, SubjectState};
use strongroom_storage::{Family, Mutation, Range, Store};

use crate::erase::Held;
use crate::error::Error;
use crate::road::{Item, Prepared, Road};
use crate::subjects::record_hash;

/// Marks of DEKs of one keyring that are removed at once, at most: one a version.
const MARKS: usize = 1_000;

/// Where the index entry of a subject's id stands.
pub(crate) fn mapping(tenant: TenantNo, record: &SubjectRecord) -> Vec<u8> {
    place::subject_id(tenant, record.id_index.version, &record.id_index.mac)
}

/// An empty record in a subject's place, which says that it is closed.
pub(crate) fn tomb(record: &SubjectRecord) -> Result<SubjectRecord, Error> {
    let nowhere = IndexEntry { kind: record.id_index.kind, version: KeyVersion(0), mac: [0; 32] };
    Ok(SubjectRecord {
        handle: record.handle,
        state: SubjectState::Closed,
        created: record.created,
        salt: keys::random::<16>()?,
        sealed_id: vec![],
        id_index: nowhere,
        deks: vec![],
        labels: vec![],
        consents: vec![],
        holds: vec![],
        erasure: record.erasure,
    })
}

/// What stays of a subject's record while something is held of it.
pub(crate) fn restricted(record: &SubjectRecord, held: &Held) -> Result<SubjectRecord, Error> {
    let salt = keys::random::<16>()?;
    let (labels, consents) = (vec![], vec![]);
    let mut left = SubjectRecord { state: SubjectState::Held, salt, labels, consents, ..record.clone() };
    left.deks.retain(|dek| held.stays(dek.keyring));
    Ok(left)
}

impl<S: Store> Road<'_, S> {
    /// Removes a subject's record, with its DEKs, consents and labels, and the mapping of its id. Guards that nothing of the
    /// subject has changed, its set of rows among it.
    pub async fn close_subject<A>(&self, record: &SubjectRecord, prepared: &mut Prepared<A>) -> Result<(), Error> {
        let (tenant, handle) = (self.tenant.number, record.handle);
        self.change_subject(record, prepared);
        self.unmap(record, prepared).await?;
        self.destroy_deks(record, |_| false, prepared).await?;
        prepared.mutations.push(Mutation::Delete(Family::Subjects, place::subject(tenant, handle)));
        prepared.items.push(Item { outcome: "subject_erased", subject: Some(handle), ..Item::default() });
        Ok(())
    }

    /// The same but for an empty record, which says that the subject is closed while its rows are cleared.
    pub async fn entomb_subject<A>(&self, record: &SubjectRecord, prepared: &mut Prepared<A>) -> Result<(), Error> {
        self.change_subject(record, prepared);
        self.unmap(record, prepared).await?;
        self.destroy_deks(record, |_| false, prepared).await?;
        self.put_record(&tomb(record)?, "subject_closed", prepared);
        Ok(())
    }

    /// Restricts a subject to what is held of it: the DEKs of these keyrings, its id, and its holds. What led to it from the
    /// id stays, so that it can be found for the holds' purpose.
    pub async fn restrict_subject<A>(
        &self,
        record: &SubjectRecord,
        held: &Held,
        prepared: &mut Prepared<A>,
    ) -> Result<(), Error> {
        self.change_subject(record, prepared);
        self.destroy_deks(record, |keyring| held.stays(keyring), prepared).await?;
        self.put_record(&restricted(record, held)?, "subject_held", prepared);
        Ok(())
    }

    /// Puts another record in a subject's place, which says that it is in another state or held otherwise. The caller guards
    /// and changes the facts that it stands on.
    pub fn put_record<A>(&self, record: &SubjectRecord, outcome: &'static str, prepared: &mut Prepared<A>) {
        let hash = Some(record_hash(record));
        let key = place::subject(self.tenant.number, record.handle);
        prepared.mutations.push(Mutation::Put(Family::Subjects, key, record.encode()));
        prepared.items.push(Item { outcome, subject: Some(record.handle), hash, ..Item::default() });
    }

    /// Guards that nothing of a subject has changed, and changes all of it.
    pub fn change_subject<A>(&self, record: &SubjectRecord, prepared: &mut Prepared<A>) {
        let (tenant, handle) = (self.tenant.number, record.handle);
        let facts = [
            Fact::subject_state(tenant, handle),
            Fact::subject_keys(tenant, handle),
            Fact::subject_rows(tenant, handle),
            Fact::subject_consents(tenant, handle),
            Fact::subject_labels(tenant, handle),
        ];
        prepared.guards.extend(facts.map(Guard::Unchanged));
        prepared.changes.extend(facts);
    }

    /// Takes a subject's DEKs out of memory, and the marks of them off the list of those that are to be rolled, but for those
    /// of keyrings that stay.
    async fn destroy_deks<A>(
        &self,
        record: &SubjectRecord,
        stays: impl Fn(KeyringNo) -> bool,
        prepared: &mut Prepared<A>,
    ) -> Result<(), Error> {
        for dek in record.deks.iter().filter(|dek| !stays(dek.keyring)) {
            let (owner, version) = (DekOwner::Subject(record.handle), dek.version);
            prepared.forget.push(DekPlace { tenant: self.tenant.id, keyring: dek.keyring, owner, version });
            let (from, to) = place::dek_marks_range(self.tenant.number, record.handle, dek.keyring);
            let marks = self.vault.store.scan(Family::Meta, Range { from, to, limit: MARKS }).await?;
            let marks = marks.into_iter().map(|(key, _)| Mutation::Delete(Family::Meta, key.to_vec()));
            prepared.mutations.extend(marks);
        }
        Ok(())
    }

    /// Takes a subject out of the entry of its id; the last one takes the entry along.
    async fn unmap<A>(&self, record: &SubjectRecord, prepared: &mut Prepared<A>) -> Result<(), Error> {
        let key = mapping(self.tenant.number, record);
        let fact = Fact::index(self.tenant.number, &key);
        prepared.guards.push(Guard::Unchanged(fact));
        prepared.changes.push(fact);
        let Some(entry) = self.vault.store.get(Family::Index, key.clone()).await? else { return Ok(()) };
        let mut handles = place::decode_handles(&entry)?;
        if handles.len() > 1 {
            // Of subjects that were merged several go in one commit.
            let meant = prepared.mutations.iter().rev().find_map(|mutation| match mutation {
                Mutation::Put(Family::Index, at, entry) if *at == key => Some(place::decode_handles(entry)),
                Mutation::Delete(Family::Index, at) if *at == key => Some(Ok(vec![])),
                _ => None,
            });
            handles = meant.transpose()?.unwrap_or(handles);
        }
        handles.retain(|handle| *handle != record.handle);
        prepared.mutations.push(match handles.is_empty() {
            true => Mutation::Delete(Family::Index, key),
            false => Mutation::Put(Family::Index, key, place::encode_handles(&handles)),
        });
        Ok(())
    }
}
