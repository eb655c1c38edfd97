//! Facts: the names of what a request read or changed.

use std::hash::BuildHasher;
use std::sync::LazyLock;

use strongroom_ids::{RowId, SubjectHandle, TenantNo};

/// Something that a request relied on or changes: a row, a set, or a state finer than a row.
///
/// A fact is a name of 128 bits. Numbers stand in it as they are; byte keys are hashed under a secret of the process.
/// Two facts with one name can only turn a request back; they never let one pass.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fact {
    place: u64,
    number: u64,
}

#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Row = 1,
    SubjectState,
    SubjectKeys,
    SubjectRows,
    SubjectConsents,
    Holders,
    Index,
    Idempotency,
    Schema,
    Policy,
    Principals,
    KeyStates,
    Job,
    Approvals,
    SecondFactor,
    SubjectLabels,
    Archive,
    Erasure,
}

/// Sip hash under keys drawn once per process, so that nobody outside can choose keys that meet.
static HASH: LazyLock<std::hash::RandomState> = LazyLock::new(std::hash::RandomState::new);

impl Fact {
    fn new(kind: Kind, tenant: TenantNo, number: u64) -> Self {
        Self { place: ((kind as u64) << 32) | u64::from(tenant.0), number }
    }

    /// A value row: its bytes and whether it exists.
    pub fn row(tenant: TenantNo, row: RowId) -> Self {
        Self::new(Kind::Row, tenant, row.0)
    }

    /// Whether a subject is open, and what its restrictions are.
    pub fn subject_state(tenant: TenantNo, subject: SubjectHandle) -> Self {
        Self::new(Kind::SubjectState, tenant, subject.0)
    }

    /// A subject's wrapped DEKs. Apart from its state, so that a rewrap turns back no reader.
    pub fn subject_keys(tenant: TenantNo, subject: SubjectHandle) -> Self {
        Self::new(Kind::SubjectKeys, tenant, subject.0)
    }

    /// The set of a subject's rows.
    pub fn subject_rows(tenant: TenantNo, subject: SubjectHandle) -> Self {
        Self::new(Kind::SubjectRows, tenant, subject.0)
    }

    /// What a subject allowed, by purpose.
    pub fn subject_consents(tenant: TenantNo, subject: SubjectHandle) -> Self {
        Self::new(Kind::SubjectConsents, tenant, subject.0)
    }

    /// A subject's labels. Apart from its state, so that a change turns back only who decided by them.
    pub fn subject_labels(tenant: TenantNo, subject: SubjectHandle) -> Self {
        Self::new(Kind::SubjectLabels, tenant, subject.0)
    }

    /// The set of holders of a value that several subjects share.
    pub fn holders(tenant: TenantNo, row: RowId) -> Self {
        Self::new(Kind::Holders, tenant, row.0)
    }

    /// What a key, or all that begins with it, leads to in the index.
    pub fn index(tenant: TenantNo, key: &[u8]) -> Self {
        Self::new(Kind::Index, tenant, HASH.hash_one(key))
    }

    /// How far an erasure has come, by the key of its row.
    pub fn erasure(tenant: TenantNo, key: &[u8]) -> Self {
        Self::new(Kind::Erasure, tenant, HASH.hash_one(key))
    }

    /// What stands under an idempotency key.
    pub fn idempotency(tenant: TenantNo, key: &[u8]) -> Self {
        Self::new(Kind::Idempotency, tenant, HASH.hash_one(key))
    }

    /// The schema in force.
    pub fn schema(tenant: TenantNo) -> Self {
        Self::new(Kind::Schema, tenant, 0)
    }

    /// The policy in force, what is frozen, and who is suspended.
    pub fn policy(tenant: TenantNo) -> Self {
        Self::new(Kind::Policy, tenant, 0)
    }

    /// Who the principals are.
    pub fn principals() -> Self {
        Self::new(Kind::Principals, TenantNo(0), 0)
    }

    /// The state of every key version of a tenant.
    pub fn key_states(tenant: TenantNo) -> Self {
        Self::new(Kind::KeyStates, tenant, 0)
    }

    /// What waits for approval.
    pub fn approvals(tenant: TenantNo) -> Self {
        Self::new(Kind::Approvals, tenant, 0)
    }

    /// What is archived of a tenant's log.
    pub fn archive(tenant: TenantNo) -> Self {
        Self::new(Kind::Archive, tenant, 0)
    }

    /// The second factor of a principal.
    pub fn second_factor(tenant: TenantNo, principal: &[u8]) -> Self {
        Self::new(Kind::SecondFactor, tenant, HASH.hash_one(principal))
    }

    /// The newest job of a kind, by the kind's number.
    pub fn job(tenant: TenantNo, kind: u8) -> Self {
        Self::new(Kind::Job, tenant, u64::from(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_different_kinds_tenants_and_numbers_differ() {
        let (a, b) = (TenantNo(1), TenantNo(2));
        let facts = [
            Fact::row(a, RowId(1)),
            Fact::row(a, RowId(2)),
            Fact::row(b, RowId(1)),
            Fact::subject_state(a, SubjectHandle(1)),
            Fact::subject_keys(a, SubjectHandle(1)),
            Fact::subject_rows(a, SubjectHandle(1)),
            Fact::subject_consents(a, SubjectHandle(1)),
            Fact::subject_labels(a, SubjectHandle(1)),
            Fact::holders(a, RowId(1)),
            Fact::index(a, b"one"),
            Fact::index(a, b"two"),
            Fact::index(b, b"one"),
            Fact::idempotency(a, b"one"),
            Fact::erasure(a, b"one"),
            Fact::schema(a),
            Fact::schema(b),
            Fact::policy(a),
            Fact::principals(),
            Fact::key_states(a),
            Fact::job(a, 1),
            Fact::archive(a),
            Fact::second_factor(a, b"one"),
            Fact::second_factor(b, b"one"),
        ];
        let distinct: std::collections::HashSet<Fact> = facts.into_iter().collect();
        assert_eq!(distinct.len(), facts.len());
    }

    #[test]
    fn the_same_key_gives_the_same_fact() {
        assert_eq!(Fact::index(TenantNo(1), b"key"), Fact::index(TenantNo(1), b"key"));
    }
}
