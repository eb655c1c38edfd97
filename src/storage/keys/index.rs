//! What leads to rows and subjects: the blind indexes, and what an entry of theirs holds.

use strongroom_ids::{FieldNo, KeyVersion, RowId, SubjectHandle, TenantNo};

use super::{ENTRY_FORMAT, Key, decode_number, encode_number, ending};
use crate::StoreError;
use crate::codec::{Reader, Writer};
use crate::rows::IndexKind;

/// `Index`: one row whose value has this MAC. The entry is empty: the row id is the key's end.
pub fn value_index(tenant: TenantNo, field: FieldNo, version: KeyVersion, mac: &[u8; 32], row: RowId) -> Vec<u8> {
    value_index_key(tenant, field, version, mac).u64(row.0).done()
}

/// `Index`: what the entries of all rows with one value begin with.
pub fn value_index_prefix(tenant: TenantNo, field: FieldNo, version: KeyVersion, mac: &[u8; 32]) -> Vec<u8> {
    value_index_key(tenant, field, version, mac).done()
}

fn value_index_key(tenant: TenantNo, field: FieldNo, version: KeyVersion, mac: &[u8; 32]) -> Key {
    index_key(tenant, IndexKind::Value).u32(field.0).u32(version.0).with(mac)
}

/// The row id of a [`value_index`] key.
pub fn decode_value_index(key: &[u8]) -> Result<RowId, StoreError> {
    ending("a value's index key", key, 53, Some(IndexKind::Value.number())).map(RowId)
}

/// `Index`: a value that is deterministic within its subject leads to its row id.
pub fn deterministic_subject(
    tenant: TenantNo,
    field: FieldNo,
    version: KeyVersion,
    mac: &[u8; 32],
    subject: SubjectHandle,
) -> Vec<u8> {
    deterministic_subject_key(tenant, field, version, mac).u64(subject.0).done()
}

/// `Index`: what the entries of all subjects with one value begin with.
pub fn deterministic_subject_prefix(tenant: TenantNo, field: FieldNo, version: KeyVersion, mac: &[u8; 32]) -> Vec<u8> {
    deterministic_subject_key(tenant, field, version, mac).done()
}

fn deterministic_subject_key(tenant: TenantNo, field: FieldNo, version: KeyVersion, mac: &[u8; 32]) -> Key {
    index_key(tenant, IndexKind::DeterministicSubject).u32(field.0).u32(version.0).with(mac)
}

/// `Index`: a value that is deterministic within its tenant leads to its row id.
pub fn deterministic_tenant(tenant: TenantNo, field: FieldNo, version: KeyVersion, mac: &[u8; 32]) -> Vec<u8> {
    index_key(tenant, IndexKind::DeterministicTenant).u32(field.0).u32(version.0).with(mac).done()
}

/// `Index`: a subject's id leads to its handles.
pub fn subject_id(tenant: TenantNo, version: KeyVersion, mac: &[u8; 32]) -> Vec<u8> {
    index_key(tenant, IndexKind::SubjectId).u32(version.0).with(mac).done()
}

/// `Index`: a token that is not opaque leads to its row id.
pub fn token(tenant: TenantNo, version: KeyVersion, mac: &[u8; 32]) -> Vec<u8> {
    index_key(tenant, IndexKind::Token).u32(version.0).with(mac).done()
}

fn index_key(tenant: TenantNo, kind: IndexKind) -> Key {
    Key::new(tenant).kind(kind.number())
}

/// The entry of a deterministic value or a token.
pub fn encode_row_id(row: RowId) -> Vec<u8> {
    encode_number(row.0)
}

/// Reads what [`encode_row_id`] wrote.
pub fn decode_row_id(bytes: &[u8]) -> Result<RowId, StoreError> {
    decode_number("an index entry", bytes).map(RowId)
}

/// The entry of a subject's id: the handles that it leads to, the one for what is new first. At least one.
pub fn encode_handles(handles: &[SubjectHandle]) -> Vec<u8> {
    let mut entry = Writer::new(ENTRY_FORMAT, 1 + 8 * handles.len());
    for handle in handles {
        entry.fixed(&handle.0.to_be_bytes());
    }
    entry.finish()
}

/// Reads what [`encode_handles`] wrote.
pub fn decode_handles(bytes: &[u8]) -> Result<Vec<SubjectHandle>, StoreError> {
    let mut reader = Reader::new("a subject id's entry", bytes, ENTRY_FORMAT)?;
    let mut handles = Vec::with_capacity(bytes.len() / 8);
    loop {
        handles.push(SubjectHandle(u64::from_be_bytes(reader.array()?)));
        if reader.is_empty() {
            return Ok(handles);
        }
    }
}
