//! Versions of a tenant's policies: the older ones that are kept, who applied them, and the way back to one.
//!
//! When a version comes into force, the row of the one before it is kept as it was, so that its hash still is the one in
//! the leaf that applied it. An older text comes into force again under a new version: versions only grow.

use serde::{Deserialize, Serialize};
use strongroom_access::{Action, Query, SecondFactor};
use strongroom_storage::keys as place;
use strongroom_storage::{Family, Mutation, Store};

use crate::decide::circumstances;
use crate::error::Error;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::rules::{Applied, ApplyPolicy, InForce, PolicyInTurn, sha256};
use crate::source::{Source, SourceKind};
use crate::tenant::Tenant;
use crate::vault::Vault;

/// How many versions before the one in force are kept.
pub(crate) const KEPT: u32 = 50;
/// The format of what is stored.
const FORMAT: u32 = 1;
/// What is damaged, if it can't be read.
const PLACE: &str = "the policies that are kept";

/// A version of the policies, as it was applied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppliedPolicy {
    /// The version.
    pub version: u32,
    /// SHA-256 of its text, in lower-case hexadecimal.
    pub sha256: String,
    /// When it was applied, in microseconds since 1970; 0 for a tenant's first, which nobody applied.
    pub time: u64,
    /// Who applied it, by role and name; empty for a tenant's first.
    pub by: String,
    /// The older version whose text it is, if it was rolled back to that.
    pub of: Option<u32>,
}

/// Those that are kept and the one in force, oldest first.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyHistory {
    format: u32,
    pub applied: Vec<AppliedPolicy>,
}

impl PolicyHistory {
    /// What is known of the first policies, which nobody applied.
    fn of_first(policy: &Source) -> Self {
        let first = AppliedPolicy {
            version: policy.version,
            sha256: sha256(&policy.body),
            time: 0,
            by: String::new(),
            of: None,
        };
        Self { format: FORMAT, applied: vec![first] }
    }

    /// Adds the next version, and drops what is kept no longer.
    fn add(&mut self, applied: AppliedPolicy) {
        let oldest = applied.version.saturating_sub(KEPT);
        self.applied.retain(|one| one.version >= oldest);
        self.applied.push(applied);
    }

    /// Whether a stored one is what this version writes under a policy.
    pub fn is_sound(&self, version: u32) -> bool {
        let last = self.applied.last().map(|last| last.version);
        let next = |one: &AppliedPolicy, next: &AppliedPolicy| one.version.checked_add(1) == Some(next.version);
        self.format == FORMAT && last == Some(version) && self.applied.is_sorted_by(next)
    }
}

/// The oldest version that is kept while this one is in force.
pub(crate) fn oldest(version: u32) -> u32 {
    version.saturating_sub(KEPT).max(1)
}

/// An older version that is to be put in force again.
pub(crate) struct RolledBack {
    pub version: u32,
    /// Why it can't be.
    why_not: Option<&'static str>,
}

impl RolledBack {
    /// Sees that there is such a version.
    pub fn is_kept(&self) -> Result<(), Error> {
        match self.why_not {
            None => Ok(()),
            Some(why) => Err(Error::SourceRefused(format!("version {} {why}", self.version))),
        }
    }
}

/// Keeps the row of the policies in force in the commit that puts the next version in force.
pub(crate) async fn keep<S: Store>(
    store: &S,
    tenant: &Tenant,
    before: &Source,
    next: AppliedPolicy,
) -> Result<Vec<Mutation>, Error> {
    let mut history = history(store, tenant, before).await?;
    let dropped = oldest(next.version).checked_sub(1).filter(|dropped| *dropped > 0);
    history.add(next);
    // The same bytes: nothing in a row is made anew when it is written again.
    let row = before.encode(SourceKind::Policy, &tenant.fingerprints);
    let history_at = place::policy_history(tenant.number);
    let mut mutations = vec![
        Mutation::Put(Family::Meta, place::older_policy(tenant.number, before.version), row),
        Source::put(&history, history_at, SourceKind::Policies, &tenant.fingerprints)?,
    ];
    let delete = |version| Mutation::Delete(Family::Meta, place::older_policy(tenant.number, version));
    mutations.extend(dropped.map(delete));
    Ok(mutations)
}

async fn history<S: Store>(store: &S, tenant: &Tenant, policy: &Source) -> Result<PolicyHistory, Error> {
    let (at, key) = (place::policy_history(tenant.number), &tenant.fingerprints);
    let stored: Option<PolicyHistory> = Source::load(store, at, SourceKind::Policies, key).await?;
    match stored {
        None => Ok(PolicyHistory::of_first(policy)),
        Some(stored) if stored.is_sound(policy.version) => Ok(stored),
        Some(_) => Err(Error::DataLoss(PLACE)),
    }
}

/// An older version, if it is kept.
async fn kept<S: Store>(store: &S, tenant: &Tenant, version: u32) -> Result<Option<Source>, Error> {
    let Some(row) = store.get(Family::Meta, place::older_policy(tenant.number, version)).await? else {
        return Ok(None);
    };
    let source = Source::decode(&row, SourceKind::Policy, &tenant.fingerprints)?;
    match source.version == version {
        true => Ok(Some(source)),
        false => Err(Error::DataLoss(PLACE)),
    }
}

/// Asks for policies.
struct GetPolicy {
    /// An older version; 0 for the one in force.
    version: u32,
}

impl<S: Store> Attempt<S> for GetPolicy {
    type Answer = InForce;
    const ACTION: Action = Action::GetPolicy;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<InForce>, Refused> {
        road.decide_vault()?;
        let (version, policy) = (self.version, &road.rules.policy);
        if version == 0 || version == policy.version {
            return Ok(road.prepare(InForce { version: policy.version, source: policy.body.clone() }));
        }
        let Some(older) = kept(&*road.vault.store, road.tenant, version).await? else {
            let description = format!(
                "there is no such version: version {} is in force, and the last {KEPT} before it are kept",
                policy.version
            );
            return Err(Error::invalid("version", "version_unknown", description).into());
        };
        let mut prepared = road.prepare(InForce { version, source: older.body });
        prepared.detail.push(("version", version.to_string()));
        Ok(prepared)
    }
}

/// Asks which versions there are.
struct ListPolicies;

impl<S: Store> Attempt<S> for ListPolicies {
    type Answer = Vec<AppliedPolicy>;
    const ACTION: Action = Action::GetPolicy;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Vec<AppliedPolicy>>, Refused> {
        road.decide_vault()?;
        let mut applied = history(&*road.vault.store, road.tenant, &road.rules.policy).await?.applied;
        applied.reverse();
        let mut prepared = road.prepare(applied);
        prepared.detail.push(("history", "true".to_owned()));
        Ok(prepared)
    }
}

/// Puts an older version in force again, under a new one.
pub struct RollBackPolicy {
    /// Which.
    pub version: u32,
    /// Check only.
    pub dry_run: bool,
}

impl<S: Store> Vault<S> {
    /// The policies in force, or an older version that is kept; 0 stands for those in force.
    pub async fn get_policy(&self, caller: &Caller, version: u32) -> Result<InForce, Error> {
        self.travel(caller, &GetPolicy { version }).await
    }

    /// Which versions of the policies there are, newest first.
    pub async fn list_policies(&self, caller: &Caller) -> Result<Vec<AppliedPolicy>, Error> {
        self.travel(caller, &ListPolicies).await
    }

    /// Puts an older version in force again, as if its text was applied.
    pub async fn roll_back_policy(&self, caller: &Caller, request: &RollBackPolicy) -> Result<Applied, Error> {
        let &RollBackPolicy { version, dry_run } = request;
        let tenant = self.tenant(caller.principal.tenant)?;
        tenant.refresh(self).await?;
        // What an approval and a second factor are bound to has the text in it, so it is read before the road: of those only who
        // could be let, and shown to nobody. Who could not is refused on the road.
        let could = self.could_apply(&tenant, caller);
        let older = if could { kept(&*self.store, &tenant, version).await? } else { None };
        let why_not = match &older {
            Some(_) => None,
            None if !could => Some("was not yours to put in force a moment ago: ask again"),
            None if version == tenant.policy_version() => Some("is in force"),
            None => Some("is not kept: `strongroom policy history` shows those that are"),
        };
        let source = older.map(|older| older.body).unwrap_or_default();
        let apply = ApplyPolicy { source, tests: String::new(), dry_run };
        let in_turn = PolicyInTurn::rolled_back(&apply, RolledBack { version, why_not });
        if !dry_run {
            self.approved(caller, &in_turn).await?;
        }
        Ok(self.travel(caller, &in_turn).await?.applied)
    }

    /// Whether there is anything that a caller could show, and others could approve, under which it may apply policies.
    fn could_apply(&self, tenant: &Tenant, caller: &Caller) -> bool {
        let rules = tenant.rules();
        let alone = circumstances(caller, &rules, self.now());
        let may = |factor| {
            let query = Query::on_vault_in(&caller.principal, Action::ApplyPolicy, alone.second_factor(factor));
            tenant.access.decide(&query).allowed || tenant.access.approvals_needed(&query).is_some()
        };
        self.still_admits(caller).is_ok() && SecondFactor::ALL.into_iter().any(may)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_before_the_one_in_force_are_kept() {
        let first = Source { salt: [0; 16], version: 1, body: "first".to_owned() };
        let mut history = PolicyHistory::of_first(&first);
        assert!(history.is_sound(1) && !history.is_sound(2));
        for version in 2..=KEPT + 2 {
            let (sha256, by) = (sha256("next"), "officer/alice".to_owned());
            history.add(AppliedPolicy { version, sha256, time: 1, by, of: None });
            assert!(history.is_sound(version));
            assert_eq!(history.applied[0].version, oldest(version));
        }
        assert_eq!((history.applied.len(), history.applied[0].version), (KEPT as usize + 1, 2));
        history.applied.remove(3);
        assert!(!history.is_sound(KEPT + 2), "one is missing between");
    }

    #[test]
    fn it_is_stored_as_specified() {
        let first = Source { salt: [0; 16], version: 1, body: "first".to_owned() };
        let mut history = PolicyHistory::of_first(&first);
        let (hash, by) = ("64 hexadecimal digits".to_owned(), "officer/alice".to_owned());
        history.applied[0].sha256 = hash.clone();
        let (two, three) = (1_795_000_000_000_000, 1_795_000_000_000_001);
        history.add(AppliedPolicy { version: 2, sha256: hash.clone(), time: two, by, of: None });
        history.add(AppliedPolicy { version: 3, sha256: hash, time: three, by: "officer/bob".to_owned(), of: Some(1) });
        let page = include_str!("../storage/FORMAT.md").replace(",\n ", ",");
        let written = serde_json::to_string(&history).unwrap();
        assert!(page.contains(&written), "{written}");
        assert_eq!(serde_json::from_str::<PolicyHistory>(&written).unwrap(), history);
    }
}
