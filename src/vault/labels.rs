//! Labels of data subjects, set and seen: by what a subject is in somebody's case load.
//!
//! They stand in the subject's record, so a change is recorded and proved as the record is. It has a fact of its own: it
//! turns back who writes for the subject, whose record it changes, and who decided by the labels, and nobody else.

use strongroom_access::Action;
use strongroom_commit::{Fact, Guard};
use strongroom_keys as keys;
use strongroom_storage::rows::{SubjectRecord, SubjectState};
use strongroom_storage::{Family, Mutation, Store, keys as place};

use crate::case_load::as_kept;
use crate::error::{Error, Violation};
use crate::road::{Attempt, Caller, Item, OK, Prepared, Refused, Road};
use crate::subjects::record_hash;
use crate::vault::Vault;

/// Sets all labels of a data subject.
pub struct SetLabels {
    /// The caller's own id of the subject.
    pub subject: String,
    /// What it shall have, in any order; none takes all away.
    pub labels: Vec<String>,
}

/// Asks for the labels of a data subject.
pub struct GetLabels {
    /// The caller's own id of the subject.
    pub subject: String,
}

impl<S: Store> Road<'_, S> {
    /// The records of a subject that is named by itself: several, if subjects were merged. What they say is guarded.
    async fn labelled<A>(&self, id: &str, prepared: &mut Prepared<A>) -> Result<Vec<SubjectRecord>, Refused> {
        let limit = self.vault.limits.subject;
        if id.is_empty() || id.len() > limit {
            return Err(Error::invalid("subject", "length", format!("a subject's id has 1 to {limit} bytes")).into());
        }
        let handles = self.handles(std::iter::once(id), &mut prepared.guards).await?.remove(id).unwrap_or_default();
        let mut records = self.subject_records(&handles).await?;
        let mut open = Vec::with_capacity(handles.len());
        for handle in &handles {
            let record = records.remove(handle).ok_or(Error::DataLoss("a subject id without its subject"))?;
            if record.state == SubjectState::Open {
                prepared.guards.push(Guard::Unchanged(Fact::subject_state(self.tenant.number, *handle)));
                prepared.guards.push(Guard::Unchanged(Fact::subject_labels(self.tenant.number, *handle)));
                open.push((*record).clone());
            }
        }
        if open.is_empty() {
            let description = "no data subject of that id has anything in the vault: store a value of it first";
            let error = Error::NotFoundAt(vec![Violation::new("subject", "subject_unknown", description)]);
            let sent = Some(self.fingerprint(id.as_bytes()));
            return Err(Refused { items: vec![Item { outcome: error.reason(), sent, ..Item::default() }], error });
        }
        Ok(open)
    }
}

impl<S: Store> Attempt<S> for SetLabels {
    /// Whether it changed anything.
    type Answer = bool;
    const ACTION: Action = Action::SetLabels;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<bool>, Refused> {
        road.decide_vault()?;
        let labels = as_kept(&self.labels)?;
        let mut prepared = road.prepare(false);
        let tenant = road.tenant.number;
        for record in road.labelled(&self.subject, &mut prepared).await? {
            let handle = record.handle;
            if record.labels == labels {
                prepared.items.push(Item { outcome: "unchanged", subject: Some(handle), ..Item::default() });
                continue;
            }
            // A salt of its own, as every version of a row has: else who knows this one could guess the labels of before.
            let record = SubjectRecord { labels: labels.clone(), salt: keys::random::<16>()?, ..record };
            let hash = Some(record_hash(&record));
            let keys = Fact::subject_keys(tenant, handle);
            prepared.guards.push(Guard::Unchanged(keys));
            prepared.changes.extend([keys, Fact::subject_labels(tenant, handle)]);
            prepared.mutations.push(Mutation::Put(Family::Subjects, place::subject(tenant, handle), record.encode()));
            prepared.items.push(Item { outcome: "subject_labelled", subject: Some(handle), hash, ..Item::default() });
            prepared.answer = true;
        }
        prepared.detail.push(("labels", labels.join(" ")));
        Ok(prepared)
    }
}

impl<S: Store> Attempt<S> for GetLabels {
    type Answer = Vec<String>;
    const ACTION: Action = Action::GetLabels;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Vec<String>>, Refused> {
        road.decide_vault()?;
        let mut prepared = road.prepare(vec![]);
        for record in road.labelled(&self.subject, &mut prepared).await? {
            prepared.items.push(Item { outcome: OK, subject: Some(record.handle), ..Item::default() });
            prepared.answer.extend(record.labels);
        }
        prepared.answer.sort_unstable();
        prepared.answer.dedup();
        Ok(prepared)
    }
}

impl<S: Store> Vault<S> {
    /// Sets all labels of a data subject of the caller's tenant. When this returns every decision stands on them. The answer
    /// is whether it changed anything.
    pub async fn set_labels(&self, caller: &Caller, request: &SetLabels) -> Result<bool, Error> {
        self.travel(caller, request).await
    }

    /// The labels of a data subject of the caller's tenant.
    pub async fn get_labels(&self, caller: &Caller, request: &GetLabels) -> Result<Vec<String>, Error> {
        self.travel(caller, request).await
    }
}
