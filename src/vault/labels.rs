//! Labels of data subjects, set and seen: by what a subject is in somebody's case load.
//!
//! They stand in the subject's record, so a change is recorded and proved as the record is. It has a fact of its own: it
//! turns back who writes for the subject, whose record it changes, and who decided by the labels, and nobody else.

use strongroom_access::Action;
use strongroom_commit::{Fact, Guard};
use strongroom_storage::Store;
use strongroom_storage::rows::{SubjectRecord, SubjectState};

use crate::case_load::as_kept;
use crate::error::Error;
use crate::road::{Attempt, Caller, Item, OK, Prepared, Refused, Road};
use crate::subjects::unknown;
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
    /// The records of a subject that is named by itself: several, if subjects were merged, and none of one that the vault does
    /// not know. What they say is guarded, and that it was asked is counted, so that nobody finds out by guessing whom the
    /// vault knows.
    async fn labelled<A>(&self, id: &str, prepared: &mut Prepared<A>) -> Result<Vec<SubjectRecord>, Refused> {
        let mut open = self.records_of(id, &mut prepared.guards).await?;
        open.retain(|record| record.state == SubjectState::Open);
        let facts = open.iter().map(|record| Fact::subject_labels(self.tenant.number, record.handle));
        prepared.guards.extend(facts.map(Guard::Unchanged));
        self.asked_about(id, !open.is_empty(), prepared);
        Ok(open)
    }
}

impl<S: Store> Attempt<S> for SetLabels {
    /// Whether it changed anything; none if the vault does not know the subject.
    type Answer = Option<bool>;
    const ACTION: Action = Action::SetLabels;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Option<bool>>, Refused> {
        road.decide_vault()?;
        let labels = as_kept(&self.labels)?;
        let mut prepared: Prepared<Option<bool>> = road.prepare(None);
        let tenant = road.tenant.number;
        for record in road.labelled(&self.subject, &mut prepared).await? {
            let handle = record.handle;
            let changed = prepared.answer.get_or_insert(false);
            if record.labels == labels {
                prepared.items.push(Item { outcome: "unchanged", subject: Some(handle), ..Item::default() });
                continue;
            }
            *changed = true;
            let record = SubjectRecord { labels: labels.clone(), ..record };
            road.write_changed(record, Fact::subject_labels(tenant, handle), "subject_labelled", &mut prepared)?;
        }
        if prepared.answer.is_some() {
            prepared.detail.push(("labels", labels.join(" ")));
        }
        Ok(prepared)
    }
}

impl<S: Store> Attempt<S> for GetLabels {
    /// None if the vault does not know the subject.
    type Answer = Option<Vec<String>>;
    const ACTION: Action = Action::GetLabels;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Option<Vec<String>>>, Refused> {
        road.decide_vault()?;
        let mut prepared: Prepared<Option<Vec<String>>> = road.prepare(None);
        for record in road.labelled(&self.subject, &mut prepared).await? {
            prepared.items.push(Item { outcome: OK, subject: Some(record.handle), ..Item::default() });
            prepared.answer.get_or_insert_default().extend(record.labels);
        }
        if let Some(labels) = &mut prepared.answer {
            labels.sort_unstable();
            labels.dedup();
        }
        Ok(prepared)
    }
}

impl<S: Store> Vault<S> {
    /// Sets all labels of a data subject of the caller's tenant. When this returns every decision stands on them. The answer
    /// is whether it changed anything.
    pub async fn set_labels(&self, caller: &Caller, request: &SetLabels) -> Result<bool, Error> {
        self.travel(caller, request).await?.ok_or_else(unknown)
    }

    /// The labels of a data subject of the caller's tenant.
    pub async fn get_labels(&self, caller: &Caller, request: &GetLabels) -> Result<Vec<String>, Error> {
        self.travel(caller, request).await?.ok_or_else(unknown)
    }
}
