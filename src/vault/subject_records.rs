//! The records behind a data subject that is named by itself: for whoever tells it what is held of it.

use std::sync::Arc;

use strongroom_commit::{Fact, Guard, Use};
use strongroom_storage::Store;
use strongroom_storage::rows::SubjectRecord;

use crate::error::Error;
use crate::road::{Item, Prepared, Refused, Road};

impl<S: Store> Road<'_, S> {
    /// The records of a subject, in the order of their handles: several, if subjects were merged, whatever their state; none of
    /// one that the vault does not know. Their states are guarded, and that it was asked is counted, so that nobody finds out
    /// by guessing whom the vault knows.
    pub async fn records_of<A>(
        &self,
        id: &str,
        prepared: &mut Prepared<A>,
    ) -> Result<Vec<Arc<SubjectRecord>>, Refused> {
        let limit = self.vault.limits.subject;
        if id.is_empty() || id.len() > limit {
            return Err(Error::invalid("subject", "length", format!("a subject's id has 1 to {limit} bytes")).into());
        }
        let handles = self.handles(std::iter::once(id), &mut prepared.guards).await?.remove(id).unwrap_or_default();
        let found = self.subject_records(&handles).await?;
        if found.len() != handles.len() {
            return Err(Error::DataLoss("a subject id without its subject").into());
        }
        let mut records: Vec<Arc<SubjectRecord>> = found.into_values().collect();
        records.sort_unstable_by_key(|record| record.handle);
        let state = |record: &Arc<SubjectRecord>| Fact::subject_state(self.tenant.number, record.handle);
        prepared.guards.extend(records.iter().map(|record| Guard::Unchanged(state(record))));
        prepared.charge = self.charge();
        if let Some(charge) = &mut prepared.charge {
            charge.uses.push(Use::Asked { row: None, missed: records.is_empty() });
        }
        if records.is_empty() {
            let sent = Some(self.fingerprint(id.as_bytes()));
            prepared.items.push(Item { outcome: "none", sent, ..Item::default() });
        }
        Ok(records)
    }
}
