//! Where values, their subjects, and what was made under an idempotency key are.

use strongroom_ids::{RowId, SubjectHandle, TenantNo};

use super::{Key, TENANT, ending};
use crate::StoreError;

/// `Rows`: a value's row.
pub fn row(tenant: TenantNo, row: RowId) -> Vec<u8> {
    Key::new(tenant).u64(row.0).done()
}

/// `RowDeks`: the wrapped DEK of a value without subject.
pub fn row_dek(tenant: TenantNo, row: RowId) -> Vec<u8> {
    Key::new(tenant).u64(row.0).done()
}

/// `Subjects`: a subject's record.
pub fn subject(tenant: TenantNo, subject: SubjectHandle) -> Vec<u8> {
    Key::new(tenant).u64(subject.0).done()
}

/// `SubjectRows`: says that the subject has the row.
pub fn subject_row(tenant: TenantNo, subject: SubjectHandle, row: RowId) -> Vec<u8> {
    Key::new(tenant).u64(subject.0).u64(row.0).done()
}

/// `SubjectRows`: a subject's rows after this one, from inclusive to exclusive.
pub fn subject_rows_after(tenant: TenantNo, subject: SubjectHandle, row: RowId) -> (Vec<u8>, Vec<u8>) {
    let (_, end) = Key::new(tenant).u64(subject.0).range();
    let mut from = subject_row(tenant, subject, row);
    from.push(0);
    (from, end)
}

/// `Holders`: says that the subject holds the tenant-wide value.
pub fn holder(tenant: TenantNo, row: RowId, subject: SubjectHandle) -> Vec<u8> {
    Key::new(tenant).u64(row.0).u64(subject.0).done()
}

/// `Holders`: all holders of a value, from inclusive to exclusive.
pub fn holders_range(tenant: TenantNo, row: RowId) -> (Vec<u8>, Vec<u8>) {
    Key::new(tenant).u64(row.0).range()
}

/// The row id of a `Rows` key or a `RowDeks` key.
pub fn decode_row(key: &[u8]) -> Result<RowId, StoreError> {
    ending("a row's key", key, 12, None).map(RowId)
}

/// The handle of a `Subjects` key.
pub fn decode_subject(key: &[u8]) -> Result<SubjectHandle, StoreError> {
    ending("a subject's key", key, 12, None).map(SubjectHandle)
}

/// The row id of a `SubjectRows` key.
pub fn decode_subject_row(key: &[u8]) -> Result<RowId, StoreError> {
    ending("a key of a subject's row", key, 20, None).map(RowId)
}

/// The handle of a `SubjectRows` key.
pub fn decode_subject_of_row(key: &[u8]) -> Result<SubjectHandle, StoreError> {
    decode_subject_row(key)?;
    decode_subject(key.get(..TENANT + 8).unwrap_or_default())
}

/// The holder of a `Holders` key.
pub fn decode_holder(key: &[u8]) -> Result<SubjectHandle, StoreError> {
    ending("a holder's key", key, 20, None).map(SubjectHandle)
}

/// `Idempotency`: what was made under an idempotency key, by the key's keyed hash.
pub fn idempotency(tenant: TenantNo, hash: &[u8; 32]) -> Vec<u8> {
    Key::new(tenant).with(hash).done()
}

/// `Idempotency`: all of a tenant's, from inclusive to exclusive.
pub fn idempotency_range(tenant: TenantNo) -> (Vec<u8>, Vec<u8>) {
    Key::new(tenant).range()
}
