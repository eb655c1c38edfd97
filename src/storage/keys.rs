//! Where everything is stored: the keys of all families, and what their parts mean when a scan brings them back.
//!
//! Every key begins with the tenant's number, so that no range ever leaves a tenant; numbers are big-endian, so that
//! their order is the keys' order. In `Meta` and `Index` a kind byte follows the tenant, so that ranges of two kinds
//! never mix. No key holds a subject's id, a value or a shaped token: blind indexes lead there.

mod index;
mod ledger;
mod meta;
mod values;

pub use index::{
    decode_handles, decode_row_id, decode_value_index, deterministic_subject, deterministic_subject_prefix,
    deterministic_tenant, encode_handles, encode_row_id, subject_id, token, value_index, value_index_prefix,
};
pub use ledger::{
    archived, decode_indexed, decode_leaf, decode_leaf_index, decode_state_page, decode_tile, decode_tiled,
    encode_indexed, encode_tiled, indexed, leaf, leaf_index, leaf_index_range, leaves_range, state_page, state_range,
    states_before, tile, tiled, tiles_range,
};
pub use meta::{
    Counter, DekMark, Usage, all_but_lanes_range, all_dek_marks_range, approvals, clock, counter, decode_dek_mark,
    decode_dek_marks, decode_erasure, decode_erasure_work, decode_older_policy, decode_second_factor, decode_usage,
    dek_mark, dek_marks_range, erasure, erasure_work, erasure_works_range, erasures_range, freezes, job, key_change,
    keystore_copies, lane, leftovers, older_policies_range, older_policy, policy, policy_history, principals, schema,
    second_factor, second_factors_range, tenant, tenant_end, tenant_ends_range, tenant_in_making, tenants_range, tiers,
    usage, usage_range, vault, witnessed,
};
pub use values::{
    decode_holder, decode_row, decode_subject, decode_subject_of_row, decode_subject_row, holder, holders_range,
    idempotency, idempotency_range, row, row_dek, subject, subject_row, subject_rows_after,
};

use strongroom_ids::TenantNo;

use crate::StoreError;
use crate::codec::{Reader, Writer};

/// The first byte of an index entry's value.
const ENTRY_FORMAT: u8 = 1;

/// Bytes of the tenant's number, with which every key begins.
const TENANT: usize = 4;

/// The vault itself, as the tenant of what belongs to no tenant.
const VAULT: TenantNo = TenantNo(0);

/// Puts a key together.
struct Key(Vec<u8>);

impl Key {
    fn new(tenant: TenantNo) -> Self {
        // The longest key, a value's index entry, has 53 bytes.
        let mut bytes = Vec::with_capacity(56);
        bytes.extend_from_slice(&tenant.0.to_be_bytes());
        Self(bytes)
    }

    fn with(mut self, part: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(part.as_ref());
        self
    }

    fn kind(self, kind: u8) -> Self {
        self.with([kind])
    }

    fn u16(self, number: u16) -> Self {
        self.with(number.to_be_bytes())
    }

    fn u32(self, number: u32) -> Self {
        self.with(number.to_be_bytes())
    }

    fn u64(self, number: u64) -> Self {
        self.with(number.to_be_bytes())
    }

    fn done(self) -> Vec<u8> {
        self.0
    }

    /// From this key to the end of all that begin with it.
    fn range(self) -> (Vec<u8>, Vec<u8>) {
        let end = prefix_end(&self.0);
        (self.0, end)
    }
}

/// The first key after all that begin with `prefix`; empty, which a scan takes as the end of the family, if there is
/// none.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX).map_or(0, |last| last + 1);
    let mut end = prefix.get(..kept).unwrap_or_default().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// The number that a key of known length and kind ends with.
fn ending(place: &'static str, key: &[u8], length: usize, kind: Option<u8>) -> Result<u64, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt { place, what: what.to_owned() };
    if key.len() != length {
        return Err(corrupt(&format!("it has {} bytes and should have {length}", key.len())));
    }
    if kind.is_some() && kind != key.get(TENANT).copied() {
        return Err(corrupt("it is of another kind"));
    }
    let number = key.last_chunk().ok_or_else(|| corrupt("it is too short"))?;
    Ok(u64::from_be_bytes(*number))
}

/// An entry that is one number.
fn encode_number(number: u64) -> Vec<u8> {
    Writer::new(ENTRY_FORMAT, 9).fixed(&number.to_be_bytes()).finish()
}

fn decode_number(place: &'static str, bytes: &[u8]) -> Result<u64, StoreError> {
    number_of(place, bytes, ENTRY_FORMAT)
}

fn number_of(place: &'static str, bytes: &[u8], format: u8) -> Result<u64, StoreError> {
    let mut reader = Reader::new(place, bytes, format)?;
    let number = u64::from_be_bytes(reader.array()?);
    reader.finish().map(|()| number)
}

#[cfg(test)]
mod tests;
