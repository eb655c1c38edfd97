//! Where everything is stored: the keys of all families, and what their parts mean when a scan brings them back.
//!
//! Every key begins with the tenant's number, so that no range ever leaves a tenant; numbers are big-endian, so that
//! their order is the keys' order. In `Meta` and `Index` a kind byte follows the tenant, so that ranges of two kinds
//! never mix. No key holds a subject's id, a value or a shaped token: blind indexes lead there.

use strongroom_ids::{DekVersion, FieldNo, KeyVersion, KeyringNo, RowId, SubjectHandle, TenantNo};

use crate::StoreError;
use crate::codec::{Reader, Writer};
use crate::rows::{IndexKind, JobKind};

/// A counter whose numbers are reserved durably, in blocks, before any is used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Counter {
    /// Row ids of the tenant.
    RowIds,
    /// Subject handles of the tenant.
    SubjectHandles,
    /// Sealings under one version of a keyring's KEK (SP 800-38D section 8.3: at most 2^32).
    Seals(KeyringNo, KeyVersion),
}

/// The kinds of rows in `Meta`.
mod meta {
    pub const VAULT: u8 = 1;
    pub const TENANT: u8 = 2;
    pub const PRINCIPALS: u8 = 3;
    pub const LANE: u8 = 4;
    pub const SCHEMA: u8 = 5;
    pub const POLICY: u8 = 6;
    pub const COUNTER: u8 = 7;
    pub const DEK_MARK: u8 = 8;
    pub const KEY_CHANGE: u8 = 9;
    pub const JOB: u8 = 10;
    pub const KEYSTORE_COPIES: u8 = 11;
    pub const FREEZES: u8 = 12;
    pub const APPROVALS: u8 = 13;
    pub const TENANT_IN_MAKING: u8 = 14;
    pub const TENANT_END: u8 = 15;
    pub const TIERS: u8 = 16;
    pub const USAGE: u8 = 17;
    pub const SECOND_FACTOR: u8 = 18;
    pub const OLDER_POLICY: u8 = 19;
    pub const POLICY_HISTORY: u8 = 20;
    pub const WITNESSED: u8 = 21;
    pub const ERASURE_WORK: u8 = 40;
    pub const ERASURE: u8 = 41;
    pub const LEFTOVERS: u8 = 42;
    pub const CLOCK: u8 = 43;
}

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

// Rows, RowDeks, Subjects, SubjectRows, Holders.

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

// Index.

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

// Idempotency and Leaves.

/// `Idempotency`: what was made under an idempotency key, by the key's keyed hash.
pub fn idempotency(tenant: TenantNo, hash: &[u8; 32]) -> Vec<u8> {
    Key::new(tenant).with(hash).done()
}

/// `Idempotency`: all of a tenant's, from inclusive to exclusive.
pub fn idempotency_range(tenant: TenantNo) -> (Vec<u8>, Vec<u8>) {
    Key::new(tenant).range()
}

/// `Leaves`: one leaf of the tenant's ledger.
pub fn leaf(tenant: TenantNo, index: u64) -> Vec<u8> {
    Key::new(tenant).u64(index).done()
}

/// `Leaves`: the leaves from `first` up to, but without, `end`.
pub fn leaves_range(tenant: TenantNo, first: u64, end: u64) -> (Vec<u8>, Vec<u8>) {
    (leaf(tenant, first), leaf(tenant, end))
}

// Tiles.

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

// LeafIndex.

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

// Archived.

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

// Meta.

/// `Meta`: the vault's own row.
pub fn vault() -> Vec<u8> {
    Key::new(VAULT).kind(meta::VAULT).done()
}

/// `Meta`: a tenant's row. All of them stand together under the vault, so that one scan finds every tenant.
pub fn tenant(tenant: TenantNo) -> Vec<u8> {
    Key::new(VAULT).kind(meta::TENANT).u32(tenant.0).done()
}

/// `Meta`: all tenants' rows, from inclusive to exclusive.
pub fn tenants_range() -> (Vec<u8>, Vec<u8>) {
    Key::new(VAULT).kind(meta::TENANT).range()
}

/// `Meta`: the principals of the vault.
pub fn principals() -> Vec<u8> {
    Key::new(VAULT).kind(meta::PRINCIPALS).done()
}

/// `Meta`: the head of one lane of a tenant's ledger.
pub fn lane(tenant: TenantNo, lane: u16) -> Vec<u8> {
    Key::new(tenant).kind(meta::LANE).u16(lane).done()
}

/// `Meta`: a tenant's schema in force.
pub fn schema(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(meta::SCHEMA).done()
}

/// `Meta`: a tenant's policy in force.
pub fn policy(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(meta::POLICY).done()
}

/// `Meta`: an older version of a tenant's policy.
pub fn older_policy(tenant: TenantNo, version: u32) -> Vec<u8> {
    Key::new(tenant).kind(meta::OLDER_POLICY).u32(version).done()
}

/// `Meta`: all older versions of a tenant's policy that are kept, from inclusive to exclusive.
pub fn older_policies_range(tenant: TenantNo) -> (Vec<u8>, Vec<u8>) {
    Key::new(tenant).kind(meta::OLDER_POLICY).range()
}

/// `Meta`: when and by whom the versions of a tenant's policy were applied.
pub fn policy_history(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(meta::POLICY_HISTORY).done()
}

/// `Meta`: the newest checkpoint of a tenant's ledger that enough witnesses have cosigned.
pub fn witnessed(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(meta::WITNESSED).done()
}

/// `Meta`: whether the clock is believed. It belongs to the vault itself.
pub fn clock() -> Vec<u8> {
    Key::new(VAULT).kind(meta::CLOCK).done()
}

/// `Meta`: how far a counter is reserved.
pub fn counter(tenant: TenantNo, counter: Counter) -> Vec<u8> {
    let key = Key::new(tenant).kind(meta::COUNTER);
    match counter {
        Counter::RowIds => key.kind(1),
        Counter::SubjectHandles => key.kind(2),
        Counter::Seals(keyring, version) => key.kind(3).u16(keyring.0).u32(version.0),
    }
    .done()
}

/// `Meta`: says that a version of a subject's DEK is to be rolled: a value under it is gone while it lives on for others,
/// or somebody asked for it.
pub fn dek_mark(tenant: TenantNo, subject: SubjectHandle, keyring: KeyringNo, version: DekVersion) -> Vec<u8> {
    dek_marks_key(tenant, subject, keyring).u32(version.0).done()
}

/// `Meta`: the marks of all versions of a subject's DEK, from inclusive to exclusive.
pub fn dek_marks_range(tenant: TenantNo, subject: SubjectHandle, keyring: KeyringNo) -> (Vec<u8>, Vec<u8>) {
    dek_marks_key(tenant, subject, keyring).range()
}

/// `Meta`: a tenant's marks, from inclusive to exclusive.
pub fn all_dek_marks_range(tenant: TenantNo) -> (Vec<u8>, Vec<u8>) {
    Key::new(tenant).kind(meta::DEK_MARK).range()
}

fn dek_marks_key(tenant: TenantNo, subject: SubjectHandle, keyring: KeyringNo) -> Key {
    Key::new(tenant).kind(meta::DEK_MARK).u64(subject.0).u16(keyring.0)
}

/// `Meta`: the last change of a tenant's keys, and whether the keystore has it already.
pub fn key_change(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(meta::KEY_CHANGE).done()
}

/// `Meta`: the list of copies of the keystore. It belongs to the vault itself.
pub fn keystore_copies() -> Vec<u8> {
    Key::new(TenantNo(0)).kind(meta::KEYSTORE_COPIES).done()
}

/// `Meta`: the tenant that is being made, if one is. It belongs to the vault itself.
pub fn tenant_in_making() -> Vec<u8> {
    Key::new(VAULT).kind(meta::TENANT_IN_MAKING).done()
}

/// `Meta`: the end of a tenant that is or was destroyed. It belongs to the vault itself.
pub fn tenant_end(tenant: TenantNo) -> Vec<u8> {
    Key::new(VAULT).kind(meta::TENANT_END).u32(tenant.0).done()
}

/// `Meta`: the ends of all tenants that are or were destroyed, from inclusive to exclusive.
pub fn tenant_ends_range() -> (Vec<u8>, Vec<u8>) {
    Key::new(VAULT).kind(meta::TENANT_END).range()
}

/// `Meta`: all of a tenant's rows but the heads of its log, which outlive it, from inclusive to exclusive.
pub fn all_but_lanes_range(tenant: TenantNo) -> (Vec<u8>, Vec<u8>) {
    (Key::new(tenant).kind(meta::LANE + 1).done(), prefix_end(&Key::new(tenant).done()))
}

/// `Meta`: what a tenant has frozen, and whom it has suspended. Tenant zero's is what holds for all.
pub fn freezes(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(meta::FREEZES).done()
}

/// `Meta`: what waits for the approval of a tenant's officers.
pub fn approvals(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(meta::APPROVALS).done()
}

/// `Meta`: the tiers of a tenant's principals, and their limits.
pub fn tiers(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(meta::TIERS).done()
}

/// What a row of usage counts, beside the tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Days since 1970.
    pub day: u32,
    /// Keyed hash of principal and actor.
    pub meter: [u8; 16],
    /// What is counted.
    pub what: u8,
    /// Of which data class.
    pub class: u8,
    /// A row or a subject, or zero.
    pub id: u64,
    /// The number of the field whose part it is, or zero.
    pub field: u32,
}

/// `Meta`: what a principal was told on a day.
pub fn usage(tenant: TenantNo, usage: &Usage) -> Vec<u8> {
    let day = Key::new(tenant).kind(meta::USAGE).u32(usage.day);
    day.with(usage.meter).kind(usage.what).kind(usage.class).u64(usage.id).u32(usage.field).done()
}

/// `Meta`: what all of a tenant's principals were told from one day up to, but without, another.
pub fn usage_range(tenant: TenantNo, first: u32, end: u32) -> (Vec<u8>, Vec<u8>) {
    let day = |day| Key::new(tenant).kind(meta::USAGE).u32(day).done();
    (day(first), day(end))
}

/// The parts of a key of usage.
pub fn decode_usage(key: &[u8]) -> Result<Usage, StoreError> {
    let wrong = || StoreError::Corrupt { place: "a key of usage", what: "not of its form".to_owned() };
    let (&[_, _, _, _, meta::USAGE], rest) = key.split_first_chunk::<5>().ok_or_else(wrong)? else {
        return Err(wrong());
    };
    let (day, rest) = rest.split_first_chunk::<4>().ok_or_else(wrong)?;
    let (meter, rest) = rest.split_first_chunk::<16>().ok_or_else(wrong)?;
    let (&[what, class], rest) = rest.split_first_chunk::<2>().ok_or_else(wrong)?;
    let (id, rest) = rest.split_first_chunk::<8>().ok_or_else(wrong)?;
    let field: [u8; 4] = rest.try_into().map_err(|_| wrong())?;
    let (id, field) = (u64::from_be_bytes(*id), u32::from_be_bytes(field));
    Ok(Usage { day: u32::from_be_bytes(*day), meter: *meter, what, class, id, field })
}

/// `Meta`: the second factor of a principal, by role and name.
pub fn second_factor(tenant: TenantNo, principal: &str) -> Vec<u8> {
    Key::new(tenant).kind(meta::SECOND_FACTOR).with(principal).done()
}

/// `Meta`: all second factors of a tenant, from inclusive to exclusive.
pub fn second_factors_range(tenant: TenantNo) -> (Vec<u8>, Vec<u8>) {
    Key::new(tenant).kind(meta::SECOND_FACTOR).range()
}

/// `Meta`: the newest job of a kind.
pub fn job(tenant: TenantNo, kind: JobKind) -> Vec<u8> {
    Key::new(tenant).kind(meta::JOB).kind(kind.number()).done()
}

/// `Meta`: what is left to do for a subject that is being erased.
pub fn erasure_work(tenant: TenantNo, subject: SubjectHandle) -> Vec<u8> {
    Key::new(tenant).kind(meta::ERASURE_WORK).u64(subject.0).done()
}

/// `Meta`: the same of all of a tenant's subjects, from inclusive to exclusive.
pub fn erasure_works_range(tenant: TenantNo) -> (Vec<u8>, Vec<u8>) {
    Key::new(tenant).kind(meta::ERASURE_WORK).range()
}

/// `Meta`: what is known of an erasure under the name that was given to it.
pub fn erasure(tenant: TenantNo, erasure: &[u8; 16]) -> Vec<u8> {
    Key::new(tenant).kind(meta::ERASURE).with(erasure).done()
}

/// `Meta`: all of a tenant's erasures, from inclusive to exclusive.
pub fn erasures_range(tenant: TenantNo) -> (Vec<u8>, Vec<u8>) {
    Key::new(tenant).kind(meta::ERASURE).range()
}

/// `Meta`: says that files may still hold what was erased: entries that were removed or overwritten, and not yet written away.
pub fn leftovers(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(meta::LEFTOVERS).done()
}

// What a scan brings back: the part of a key that the scan did not know.

/// The row id of a `Rows` key or a `RowDeks` key.
pub fn decode_row(key: &[u8]) -> Result<RowId, StoreError> {
    ending("a row's key", key, 12, None).map(RowId)
}

/// The handle of a `Subjects` key.
pub fn decode_subject(key: &[u8]) -> Result<SubjectHandle, StoreError> {
    ending("a subject's key", key, 12, None).map(SubjectHandle)
}

/// The version of an [`older_policy`] key.
pub fn decode_older_policy(key: &[u8]) -> Result<u32, StoreError> {
    let corrupt = || StoreError::Corrupt { place: "the key of an older policy", what: "it is none".to_owned() };
    let version = key.get(TENANT..).and_then(|key| key.strip_prefix(&[meta::OLDER_POLICY])).ok_or_else(corrupt)?;
    version.try_into().map(u32::from_be_bytes).map_err(|_| corrupt())
}

/// The holder of a `Holders` key.
pub fn decode_holder(key: &[u8]) -> Result<SubjectHandle, StoreError> {
    ending("a holder's key", key, 20, None).map(SubjectHandle)
}

/// The row id of a [`value_index`] key.
pub fn decode_value_index(key: &[u8]) -> Result<RowId, StoreError> {
    ending("a value's index key", key, 53, Some(IndexKind::Value.number())).map(RowId)
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

/// Which DEK a mark is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DekMark {
    /// Whose DEK.
    pub subject: SubjectHandle,
    /// Of which keyring.
    pub keyring: KeyringNo,
    /// The version that is to be rolled.
    pub version: DekVersion,
}

/// What a [`dek_mark`] key says.
pub fn decode_dek_mark(key: &[u8]) -> Result<DekMark, StoreError> {
    let (of, version) = key.split_last_chunk().ok_or_else(no_mark)?;
    let (subject, keyring) = decode_dek_marks(of)?;
    Ok(DekMark { subject, keyring, version: DekVersion(u32::from_be_bytes(*version)) })
}

/// Which DEK the first key of a [`dek_marks_range`] is about.
pub fn decode_dek_marks(key: &[u8]) -> Result<(SubjectHandle, KeyringNo), StoreError> {
    let mark = key.get(TENANT..).and_then(|key| key.strip_prefix(&[meta::DEK_MARK])).ok_or_else(no_mark)?;
    let (subject, keyring) = mark.split_first_chunk().ok_or_else(no_mark)?;
    let keyring = keyring.try_into().map_err(|_| no_mark())?;
    Ok((SubjectHandle(u64::from_be_bytes(*subject)), KeyringNo(u16::from_be_bytes(keyring))))
}

fn no_mark() -> StoreError {
    StoreError::Corrupt { place: "the mark of a DEK", what: "it has not the form of one".to_owned() }
}

/// The subject of an [`erasure_work`] key.
pub fn decode_erasure_work(key: &[u8]) -> Result<SubjectHandle, StoreError> {
    ending("the key of what is left of an erasure", key, 13, Some(meta::ERASURE_WORK)).map(SubjectHandle)
}

/// The name of the erasure of an [`erasure`] key; none for any other key.
pub fn decode_erasure(key: &[u8]) -> Option<[u8; 16]> {
    key.get(TENANT..)?.strip_prefix(&[meta::ERASURE])?.try_into().ok()
}

/// Whose second factor a key of [`second_factors_range`] is about; `None` for any other key.
pub fn decode_second_factor(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(TENANT..)?.strip_prefix(&[meta::SECOND_FACTOR])?).ok()
}

/// The leaf index of a `Leaves` key.
pub fn decode_leaf(key: &[u8]) -> Result<u64, StoreError> {
    ending("a leaf's key", key, 12, None)
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

// What an index entry holds.

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

#[cfg(test)]
mod tests;
