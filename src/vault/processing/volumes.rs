//! Volumes: how many values and data subjects a tenant has, counted in the store page by page.

use std::collections::BTreeMap;

use strongroom_ids::{FieldNo, TenantNo};
use strongroom_schema::{Schema, Scope};
use strongroom_storage::rows::{SubjectRecord, SubjectState, ValueRow};
use strongroom_storage::{Family, Store};

use crate::error::Error;
use crate::pages::Pages;
use crate::resolve::expiry;

/// What was counted.
#[derive(Default)]
pub(super) struct Volumes {
    /// Values, and of these those that have ended.
    fields: BTreeMap<FieldNo, (u64, u64)>,
    pub values: u64,
    pub without_subject: u64,
    pub subjects: u64,
}

impl Volumes {
    /// The values of a field, and how many of them have ended.
    pub fn of(&self, field: FieldNo) -> (u64, u64) {
        self.fields.get(&field).copied().unwrap_or_default()
    }
}

/// Counts, a page at a time, while other requests go on. Nothing is opened, and no snapshot is held, which would keep in the files
/// what is erased meanwhile.
pub(super) async fn count<S: Store>(store: &S, tenant: TenantNo, schema: &Schema, now: u64) -> Result<Volumes, Error> {
    let mut volumes = Volumes::default();
    let mut pages = Pages::of_tenant(Family::Rows, tenant);
    while let Some(page) = pages.next(store).await? {
        for (_, row) in &page {
            let row = ValueRow::decode(row)?;
            volumes.values += 1;
            let (values, ended) = volumes.fields.entry(row.field).or_default();
            *values += 1;
            // A field that was declared since is counted all the same: the schema that is reported on has it not.
            let Some(field) = schema.field_no(row.field) else { continue };
            *ended += u64::from(expiry(field, row.created, row.expires).is_some_and(|at| at <= now));
            let is_nobodys = !row.subject.is_some() && field.deterministic != Some(Scope::Tenant);
            volumes.without_subject += u64::from(is_nobodys);
        }
        tokio::task::yield_now().await;
    }
    let mut pages = Pages::of_tenant(Family::Subjects, tenant);
    while let Some(page) = pages.next(store).await? {
        for (_, record) in &page {
            volumes.subjects += u64::from(SubjectRecord::decode(record)?.state != SubjectState::Closed);
        }
        tokio::task::yield_now().await;
    }
    Ok(volumes)
}
