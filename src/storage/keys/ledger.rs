//! Where a tenant's ledger is: its leaves, the tiles over them, the index of them, and what is left of archived ones.

use strongroom_ids::TenantNo;

use super::{Key, TENANT, decode_number, encode_number, ending, number_of};
use crate::StoreError;
use crate::codec::Writer;

/// `Leaves`: one leaf of the tenant's ledger.
pub fn leaf(tenant: TenantNo, index: u64) -> Vec<u8> {
    Key::new(tenant).u64(index).done()
}

/// `Leaves`: the leaves from `first` up to, but without, `end`.
pub fn leaves_range(tenant: TenantNo, first: u64, end: u64) -> (Vec<u8>, Vec<u8>) {
    (leaf(tenant, first), leaf(tenant, end))
}

/// The leaf index of a `Leaves` key.
pub fn decode_leaf(key: &[u8]) -> Result<u64, StoreError> {
    ending("a leaf's key", key, 12, None)
}

/// In place of a level: how far a log is in tiles.
const TILED: u8 = u8::MAX;

/// `Tiles`: a piece of the tree over a tenant's ledger. Its bytes are those of C2SP tlog-tiles.
pub fn tile(tenant: TenantNo, level: u8, index: u64) -> Vec<u8> {
    Key::new(tenant).kind(level).u64(index).done()
}

/// `Tiles`: how many leaves of a tenant's ledger are in tiles.
pub fn tiled(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(TILED).done()
}

/// `Tiles`: all of a tenant's, from inclusive to exclusive.
pub fn tiles_range(tenant: TenantNo) -> (Vec<u8>, Vec<u8>) {
    Key::new(tenant).range()
}

/// The level and index of a [`tile`]'s key; none for [`tiled`].
pub fn decode_tile(key: &[u8]) -> Result<Option<(u8, u64)>, StoreError> {
    match key.get(TENANT..) {
        Some([TILED]) => Ok(None),
        _ => {
            let index = ending("a tile's key", key, 13, None)?;
            Ok(key.get(TENANT).map(|level| (*level, index)))
        }
    }
}

/// The entry of [`tiled`].
pub fn encode_tiled(leaves: u64) -> Vec<u8> {
    encode_number(leaves)
}

/// Reads what [`encode_tiled`] wrote.
pub fn decode_tiled(bytes: &[u8]) -> Result<u64, StoreError> {
    decode_number("how far a ledger is in tiles", bytes)
}

/// In place of a term: how far a log is in the index.
const INDEXED: u8 = 0;
/// The format of that row. It grows with the kinds of terms: an index that has fewer would hide leaves, so it is made anew.
const INDEX_FORMAT: u8 = 2;

/// `LeafIndex`: which of the 256 leaves from `first` on have a term.
pub fn leaf_index(tenant: TenantNo, term: &[u8; 9], first: u64) -> Vec<u8> {
    Key::new(tenant).with(term).u64(first).done()
}

/// `LeafIndex`: the rows of a term whose first leaf is at `first` or after it, and before `end`.
pub fn leaf_index_range(tenant: TenantNo, term: &[u8; 9], first: u64, end: u64) -> (Vec<u8>, Vec<u8>) {
    (leaf_index(tenant, term, first), leaf_index(tenant, term, end))
}

/// `LeafIndex`: how many leaves of a tenant's ledger are in the index.
pub fn indexed(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(INDEXED).done()
}

/// The term and the first leaf of a [`leaf_index`] key; none for [`indexed`].
pub fn decode_leaf_index(key: &[u8]) -> Result<Option<([u8; 9], u64)>, StoreError> {
    match key.get(TENANT..) {
        Some([INDEXED]) => Ok(None),
        _ => {
            let first = ending("a leaf index key", key, 21, None)?;
            Ok(key.get(TENANT..).and_then(<[u8]>::first_chunk).map(|term| (*term, first)))
        }
    }
}

/// The entry of [`indexed`].
pub fn encode_indexed(leaves: u64) -> Vec<u8> {
    Writer::new(INDEX_FORMAT, 9).fixed(&leaves.to_be_bytes()).finish()
}

/// Reads what [`encode_indexed`] wrote.
pub fn decode_indexed(bytes: &[u8]) -> Result<u64, StoreError> {
    number_of("how far a ledger is in the index of its leaves", bytes, INDEX_FORMAT)
}

/// The kinds of rows in `Archived`.
mod archived {
    pub const ROW: u8 = 0;
    pub const STATE: u8 = 1;
}

/// `Archived`: how many leaves of a tenant's ledger are archived, and which archive is under way.
pub fn archived(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(archived::ROW).done()
}

/// `Archived`: a page of the sum of the first `leaves` leaves.
pub fn state_page(tenant: TenantNo, leaves: u64, page: u32) -> Vec<u8> {
    Key::new(tenant).kind(archived::STATE).u64(leaves).u32(page).done()
}

/// `Archived`: the pages of the sum of the first `leaves` leaves, from inclusive to exclusive.
pub fn state_range(tenant: TenantNo, leaves: u64) -> (Vec<u8>, Vec<u8>) {
    Key::new(tenant).kind(archived::STATE).u64(leaves).range()
}

/// `Archived`: the pages of the sums of fewer leaves, from inclusive to exclusive.
pub fn states_before(tenant: TenantNo, leaves: u64) -> (Vec<u8>, Vec<u8>) {
    let at = |leaves| Key::new(tenant).kind(archived::STATE).u64(leaves).done();
    (at(0), at(leaves))
}

/// How many leaves a [`state_page`]'s sum is of, and which page it is; none for [`archived()`].
pub fn decode_state_page(key: &[u8]) -> Result<Option<(u64, u32)>, StoreError> {
    let corrupt = || StoreError::Corrupt { place: "a key of what is archived", what: "not of its form".to_owned() };
    match key.get(TENANT..) {
        Some([archived::ROW]) => Ok(None),
        Some([archived::STATE, rest @ ..]) => {
            let (leaves, page) = rest.split_first_chunk().ok_or_else(corrupt)?;
            let page = page.try_into().map(u32::from_be_bytes).map_err(|_| corrupt())?;
            Ok(Some((u64::from_be_bytes(*leaves), page)))
        }
        _ => Err(corrupt()),
    }
}
