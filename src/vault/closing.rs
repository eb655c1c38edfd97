//! How a data subject goes: its record, its DEKs, and what leads from its id to it.
//!
//! With its record go its wrapped DEKs, so from then on nothing of it opens, whatever is left of its rows.

use strongroom_commit::{Fact, Guard};
use strongroom_keys::{DekOwner, DekPlace};
use strongroom_storage::keys as place;
use strongroom_storage::rows::SubjectRecord;
use strongroom_storage::{Family, Mutation, Range, Store};

use crate::error::Error;
use crate::road::{Item, Prepared, Road};

/// Marks of DEKs of one keyring that are removed at once, at most: one a version.
const MARKS: usize = 1_000;

impl<S: Store> Road<'_, S> {
    /// Removes a subject's record, with its DEKs, consents and labels, and the mapping of its id. Guards that nothing of the
    /// subject has changed, its set of rows among it.
    pub async fn close_subject<A>(&self, record: &SubjectRecord, prepared: &mut Prepared<A>) -> Result<(), Error> {
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
        prepared.mutations.push(Mutation::Delete(Family::Subjects, place::subject(tenant, handle)));
        self.unmap(record, prepared).await?;
        for dek in &record.deks {
            let (owner, version) = (DekOwner::Subject(handle), dek.version);
            prepared.forget.push(DekPlace { tenant: self.tenant.id, keyring: dek.keyring, owner, version });
            let (from, to) = place::dek_marks_range(tenant, handle, dek.keyring);
            let marks = self.vault.store.scan(Family::Meta, Range { from, to, limit: MARKS }).await?;
            let marks = marks.into_iter().map(|(key, _)| Mutation::Delete(Family::Meta, key.to_vec()));
            prepared.mutations.extend(marks);
        }
        prepared.items.push(Item { outcome: "subject_erased", subject: Some(handle), ..Item::default() });
        Ok(())
    }

    /// Takes a subject out of the entry of its id; the last one takes the entry along.
    async fn unmap<A>(&self, record: &SubjectRecord, prepared: &mut Prepared<A>) -> Result<(), Error> {
        let key = place::subject_id(self.tenant.number, record.id_index.version, &record.id_index.mac);
        let fact = Fact::index(self.tenant.number, &key);
        prepared.guards.push(Guard::Unchanged(fact));
        prepared.changes.push(fact);
        let Some(entry) = self.vault.store.get(Family::Index, key.clone()).await? else { return Ok(()) };
        let mut handles = place::decode_handles(&entry)?;
        handles.retain(|handle| *handle != record.handle);
        prepared.mutations.push(match handles.is_empty() {
            true => Mutation::Delete(Family::Index, key),
            false => Mutation::Put(Family::Index, key, place::encode_handles(&handles)),
        });
        Ok(())
    }
}
