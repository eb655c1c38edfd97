//! Where everything else is that a vault or a tenant has: rules, logs' heads, counters, jobs, marks.

use strongroom_ids::{DekVersion, KeyVersion, KeyringNo, SubjectHandle, TenantNo};

use super::{Key, TENANT, VAULT, ending, prefix_end};
use crate::StoreError;
use crate::rows::JobKind;

/// The kinds of rows in `Meta`.
mod kind {
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

/// `Meta`: the vault's own row.
pub fn vault() -> Vec<u8> {
    Key::new(VAULT).kind(kind::VAULT).done()
}

/// `Meta`: a tenant's row. All of them stand together under the vault, so that one scan finds every tenant.
pub fn tenant(tenant: TenantNo) -> Vec<u8> {
    Key::new(VAULT).kind(kind::TENANT).u32(tenant.0).done()
}

/// `Meta`: all tenants' rows, from inclusive to exclusive.
pub fn tenants_range() -> (Vec<u8>, Vec<u8>) {
    Key::new(VAULT).kind(kind::TENANT).range()
}

/// `Meta`: the principals of the vault.
pub fn principals() -> Vec<u8> {
    Key::new(VAULT).kind(kind::PRINCIPALS).done()
}

/// `Meta`: the head of one lane of a tenant's ledger.
pub fn lane(tenant: TenantNo, lane: u16) -> Vec<u8> {
    Key::new(tenant).kind(kind::LANE).u16(lane).done()
}

/// `Meta`: a tenant's schema in force.
pub fn schema(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(kind::SCHEMA).done()
}

/// `Meta`: a tenant's policy in force.
pub fn policy(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(kind::POLICY).done()
}

/// `Meta`: an older version of a tenant's policy.
pub fn older_policy(tenant: TenantNo, version: u32) -> Vec<u8> {
    Key::new(tenant).kind(kind::OLDER_POLICY).u32(version).done()
}

/// `Meta`: all older versions of a tenant's policy that are kept, from inclusive to exclusive.
pub fn older_policies_range(tenant: TenantNo) -> (Vec<u8>, Vec<u8>) {
    Key::new(tenant).kind(kind::OLDER_POLICY).range()
}

/// The version of an [`older_policy`] key.
pub fn decode_older_policy(key: &[u8]) -> Result<u32, StoreError> {
    let corrupt = || StoreError::Corrupt { place: "the key of an older policy", what: "it is none".to_owned() };
    let version = key.get(TENANT..).and_then(|key| key.strip_prefix(&[kind::OLDER_POLICY])).ok_or_else(corrupt)?;
    version.try_into().map(u32::from_be_bytes).map_err(|_| corrupt())
}

/// `Meta`: when and by whom the versions of a tenant's policy were applied.
pub fn policy_history(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(kind::POLICY_HISTORY).done()
}

/// `Meta`: the newest checkpoint of a tenant's ledger that enough witnesses have cosigned.
pub fn witnessed(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(kind::WITNESSED).done()
}

/// `Meta`: whether the clock is believed. It belongs to the vault itself.
pub fn clock() -> Vec<u8> {
    Key::new(VAULT).kind(kind::CLOCK).done()
}

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

/// `Meta`: how far a counter is reserved.
pub fn counter(tenant: TenantNo, counter: Counter) -> Vec<u8> {
    let key = Key::new(tenant).kind(kind::COUNTER);
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
    Key::new(tenant).kind(kind::DEK_MARK).range()
}

fn dek_marks_key(tenant: TenantNo, subject: SubjectHandle, keyring: KeyringNo) -> Key {
    Key::new(tenant).kind(kind::DEK_MARK).u64(subject.0).u16(keyring.0)
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
    let mark = key.get(TENANT..).and_then(|key| key.strip_prefix(&[kind::DEK_MARK])).ok_or_else(no_mark)?;
    let (subject, keyring) = mark.split_first_chunk().ok_or_else(no_mark)?;
    let keyring = keyring.try_into().map_err(|_| no_mark())?;
    Ok((SubjectHandle(u64::from_be_bytes(*subject)), KeyringNo(u16::from_be_bytes(keyring))))
}

fn no_mark() -> StoreError {
    StoreError::Corrupt { place: "the mark of a DEK", what: "it has not the form of one".to_owned() }
}

/// `Meta`: the last change of a tenant's keys, and whether the keystore has it already.
pub fn key_change(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(kind::KEY_CHANGE).done()
}

/// `Meta`: the list of copies of the keystore. It belongs to the vault itself.
pub fn keystore_copies() -> Vec<u8> {
    Key::new(TenantNo(0)).kind(kind::KEYSTORE_COPIES).done()
}

/// `Meta`: the tenant that is being made, if one is. It belongs to the vault itself.
pub fn tenant_in_making() -> Vec<u8> {
    Key::new(VAULT).kind(kind::TENANT_IN_MAKING).done()
}

/// `Meta`: the end of a tenant that is or was destroyed. It belongs to the vault itself.
pub fn tenant_end(tenant: TenantNo) -> Vec<u8> {
    Key::new(VAULT).kind(kind::TENANT_END).u32(tenant.0).done()
}

/// `Meta`: the ends of all tenants that are or were destroyed, from inclusive to exclusive.
pub fn tenant_ends_range() -> (Vec<u8>, Vec<u8>) {
    Key::new(VAULT).kind(kind::TENANT_END).range()
}

/// `Meta`: all of a tenant's rows but the heads of its log, which outlive it, from inclusive to exclusive.
pub fn all_but_lanes_range(tenant: TenantNo) -> (Vec<u8>, Vec<u8>) {
    (Key::new(tenant).kind(kind::LANE + 1).done(), prefix_end(&Key::new(tenant).done()))
}

/// `Meta`: what a tenant has frozen, and whom it has suspended. Tenant zero's is what holds for all.
pub fn freezes(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(kind::FREEZES).done()
}

/// `Meta`: what waits for the approval of a tenant's officers.
pub fn approvals(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(kind::APPROVALS).done()
}

/// `Meta`: the tiers of a tenant's principals, and their limits.
pub fn tiers(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(kind::TIERS).done()
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
    let day = Key::new(tenant).kind(kind::USAGE).u32(usage.day);
    day.with(usage.meter).kind(usage.what).kind(usage.class).u64(usage.id).u32(usage.field).done()
}

/// `Meta`: what all of a tenant's principals were told from one day up to, but without, another.
pub fn usage_range(tenant: TenantNo, first: u32, end: u32) -> (Vec<u8>, Vec<u8>) {
    let day = |day| Key::new(tenant).kind(kind::USAGE).u32(day).done();
    (day(first), day(end))
}

/// The parts of a key of usage.
pub fn decode_usage(key: &[u8]) -> Result<Usage, StoreError> {
    let wrong = || StoreError::Corrupt { place: "a key of usage", what: "not of its form".to_owned() };
    let (&[_, _, _, _, kind::USAGE], rest) = key.split_first_chunk::<5>().ok_or_else(wrong)? else {
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
    Key::new(tenant).kind(kind::SECOND_FACTOR).with(principal).done()
}

/// `Meta`: all second factors of a tenant, from inclusive to exclusive.
pub fn second_factors_range(tenant: TenantNo) -> (Vec<u8>, Vec<u8>) {
    Key::new(tenant).kind(kind::SECOND_FACTOR).range()
}

/// Whose second factor a key of [`second_factors_range`] is about; `None` for any other key.
pub fn decode_second_factor(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(TENANT..)?.strip_prefix(&[kind::SECOND_FACTOR])?).ok()
}

/// `Meta`: the newest job of a kind.
pub fn job(tenant: TenantNo, kind: JobKind) -> Vec<u8> {
    Key::new(tenant).kind(kind::JOB).kind(kind.number()).done()
}

/// `Meta`: what is left to do for a subject that is being erased.
pub fn erasure_work(tenant: TenantNo, subject: SubjectHandle) -> Vec<u8> {
    Key::new(tenant).kind(kind::ERASURE_WORK).u64(subject.0).done()
}

/// `Meta`: the same of all of a tenant's subjects, from inclusive to exclusive.
pub fn erasure_works_range(tenant: TenantNo) -> (Vec<u8>, Vec<u8>) {
    Key::new(tenant).kind(kind::ERASURE_WORK).range()
}

/// The subject of an [`erasure_work`] key.
pub fn decode_erasure_work(key: &[u8]) -> Result<SubjectHandle, StoreError> {
    ending("the key of what is left of an erasure", key, 13, Some(kind::ERASURE_WORK)).map(SubjectHandle)
}

/// `Meta`: what is known of an erasure under the name that was given to it.
pub fn erasure(tenant: TenantNo, erasure: &[u8; 16]) -> Vec<u8> {
    Key::new(tenant).kind(kind::ERASURE).with(erasure).done()
}

/// `Meta`: all of a tenant's erasures, from inclusive to exclusive.
pub fn erasures_range(tenant: TenantNo) -> (Vec<u8>, Vec<u8>) {
    Key::new(tenant).kind(kind::ERASURE).range()
}

/// The name of the erasure of an [`erasure`] key; none for any other key.
pub fn decode_erasure(key: &[u8]) -> Option<[u8; 16]> {
    key.get(TENANT..)?.strip_prefix(&[kind::ERASURE])?.try_into().ok()
}

/// `Meta`: says that files may still hold what was erased: entries that were removed or overwritten, and not yet written away.
pub fn leftovers(tenant: TenantNo) -> Vec<u8> {
    Key::new(tenant).kind(kind::LEFTOVERS).done()
}
