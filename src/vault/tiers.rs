//! Who is in which tier, and what that allows: from the next commit on, also of requests under way.
//!
//! It is one row a tenant, in memory with the tenant's other rules, and changed as freezes are: while no request runs,
//! by an officer, and with the fact of the policy in force.

use std::sync::Arc;

use strongroom_access::{
    Action, ClassLimits, HIGHEST_LIMIT, Rate, Suspension, Tier, TierError, TierLimits, Tiers, parse_principal,
};
use strongroom_commit::{ClassWindows, Fact, MeterLimits, Window};
use strongroom_ids::TenantNo;
use strongroom_keys::IndexKey;
use strongroom_ledger::summary;
use strongroom_storage::{Family, Store, keys as place};

use crate::approvals::{Approvable, Asked};
use crate::error::Error;
use crate::road::{Attempt, Caller, Prepared, Refused, Road, Told};
use crate::source::{Source, SourceKind};
use crate::tenant::{Rules, Tenant};
use crate::vault::Vault;

/// What is damaged, if the row can't be read.
const PLACE: &str = "the tiers in force";

/// The tiers that a tenant's principals are in.
pub(crate) struct TiersInForce {
    /// How often the row was changed.
    pub version: u32,
    own: Tiers,
    /// As the committer takes them; none for a tier without limits.
    limits: [Option<Arc<MeterLimits>>; 3],
}

impl TiersInForce {
    fn new(version: u32, own: Tiers) -> Self {
        let limits = Tier::ALL.map(|tier| {
            let limits = windows(&own.limits(tier));
            (!limits.is_open()).then(|| Arc::new(limits))
        });
        Self { version, own, limits }
    }

    /// As the store has it. Whether that is what the log has in force was looked at before.
    pub async fn load<S: Store>(number: TenantNo, store: &S, key: &IndexKey) -> Result<Self, Error> {
        let Some(row) = store.get(Family::Meta, place::tiers(number)).await? else {
            return Ok(Self::new(0, Tiers::default()));
        };
        let source = Source::decode(&row, SourceKind::Tiers, key)?;
        let own = Tiers::from_stored(&source.body).map_err(|_| Error::DataLoss(PLACE))?;
        Ok(Self::new(source.version, own))
    }

    /// The tier of a principal, by role and name.
    pub fn of(&self, principal: &str) -> Tier {
        self.own.of(principal)
    }

    /// Who was given a tier.
    pub fn assigned(&self) -> impl Iterator<Item = &str> {
        self.own.assigned().map(|(name, _)| name)
    }

    /// What a principal may be told; `None` for anything.
    pub fn limits(&self, principal: &str) -> Option<&Arc<MeterLimits>> {
        self.limits_of(self.of(principal))
    }

    /// The same of each person behind a service.
    pub fn limits_of_actors(&self, principal: &str) -> Option<&Arc<MeterLimits>> {
        self.limits_of(self.own.of_actors(principal))
    }

    fn limits_of(&self, tier: Tier) -> Option<&Arc<MeterLimits>> {
        let [first, second, third] = &self.limits;
        match tier {
            Tier::I => first.as_ref(),
            Tier::II => second.as_ref(),
            Tier::III => third.as_ref(),
        }
    }
}

fn windows(limits: &TierLimits) -> MeterLimits {
    let window = |rate: Rate| Window { minute: rate.per_minute, day: rate.per_day };
    let class = |class: &ClassLimits| ClassWindows {
        plain: window(class.plain),
        masked: window(class.masked),
        subjects: window(class.subjects),
    };
    MeterLimits {
        classes: limits.classes().map(class),
        misses: window(limits.misses),
        token_misses: window(limits.token_misses),
    }
}

/// Puts a principal into a tier.
pub struct SetTier {
    /// Role and name: `app/loan-core`.
    pub principal: String,
    /// `I`, `II` or `III`.
    pub tier: String,
}

/// Sets all limits of a tier.
pub struct SetTierLimits {
    /// `I`, `II` or `III`.
    pub tier: String,
    /// Its limits.
    pub limits: TierLimits,
}

/// A change of tiers or their limits.
trait ChangeOfTiers: Send + Sync {
    /// The action that policy decides on.
    const ACTION: Action;

    /// Makes the change, if it can be made.
    fn apply(&self, tiers: &mut Tiers) -> Result<Told, Error>;

    /// The change in words.
    fn summary(&self) -> String;

    /// All that changes what it does.
    fn parts(&self) -> Vec<Vec<u8>>;

    /// Whose tier it changes, if it is one principal's.
    fn of_whom(&self) -> Option<&str> {
        None
    }
}

impl ChangeOfTiers for SetTier {
    const ACTION: Action = Action::SetTier;

    fn apply(&self, tiers: &mut Tiers) -> Result<Told, Error> {
        let tier = tier(&self.tier)?;
        tiers.assign(&self.principal, tier).map_err(refused)?;
        Ok(vec![("assigned", self.principal.clone()), ("tier", tier.as_str().to_owned())])
    }

    fn summary(&self) -> String {
        // Only what can be a name is shown to those who approve.
        let name = parse_principal(&self.principal).map_or("nobody", |_| &self.principal);
        summary::set_tier(name, tier(&self.tier).unwrap_or_default().as_str())
    }

    fn parts(&self) -> Vec<Vec<u8>> {
        [&self.principal, &self.tier].map(|part| part.clone().into_bytes()).to_vec()
    }

    fn of_whom(&self) -> Option<&str> {
        Some(&self.principal)
    }
}

impl ChangeOfTiers for SetTierLimits {
    const ACTION: Action = Action::SetTierLimits;

    fn apply(&self, tiers: &mut Tiers) -> Result<Told, Error> {
        let tier = tier(&self.tier)?;
        tiers.set_limits(tier, self.limits).map_err(refused)?;
        Ok(vec![("tier", tier.as_str().to_owned()), ("limits", self.words())])
    }

    fn summary(&self) -> String {
        summary::set_tier_limits(tier(&self.tier).unwrap_or_default().as_str(), &self.words())
    }

    fn parts(&self) -> Vec<Vec<u8>> {
        vec![self.tier.clone().into_bytes(), self.words().into_bytes()]
    }
}

impl SetTierLimits {
    /// The limits, as officers are asked to approve them.
    fn words(&self) -> String {
        self.limits.to_string()
    }
}

fn tier(name: &str) -> Result<Tier, Error> {
    name.parse().map_err(|_| Error::invalid("tier", "tier_unknown", "the tiers are I, II and III"))
}

fn refused(error: TierError) -> Error {
    match error {
        TierError::Name => Error::invalid("principal", "principal_name", error.to_string()),
        TierError::Limit => Error::invalid("limits", "too_high", format!("a limit is at most {HIGHEST_LIMIT}")),
        TierError::Full => Error::TierRefused(error.to_string()),
    }
}

/// Sees that the caller is an officer, and another one than whom it is about: nobody gives itself more to read.
fn only_other_officers<S: Store>(road: &Road<'_, S>, change: &impl ChangeOfTiers) -> Result<(), Error> {
    road.only_officers()?;
    match change.of_whom() {
        Some(name) if *name == *road.caller.principal.name => {
            Err(Error::TierRefused("nobody sets its own tier: another officer does".to_owned()))
        }
        _ => Ok(()),
    }
}

/// A change, in its turn.
struct InTurn<'r, C>(&'r C);

/// What is in force then, on its way into memory; `None` if all was so before.
struct NewTiers(Option<Arc<TiersInForce>>);

impl<S: Store, C: ChangeOfTiers> Attempt<S> for InTurn<'_, C> {
    type Answer = NewTiers;
    const ACTION: Action = C::ACTION;
    const ALONE: bool = true;
    /// It protects.
    const ON_FULL_DISK: bool = true;

    fn bound_to(&self, rules: &Rules) -> Option<Asked> {
        Some(Approvable::<S>::asked(self, rules))
    }

    fn may_have_it_alone(&self, road: &Road<'_, S>) -> Result<(), Error> {
        road.decide_with_others()?;
        only_other_officers(road, self.0)?;
        self.0.apply(&mut road.rules.tiers.own.clone()).map(drop)
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<NewTiers>, Refused> {
        road.decide_with_others()?;
        only_other_officers(road, self.0)?;
        let given = road.decide_approved(self).await?;
        let before = &road.rules.tiers;
        let mut own = before.own.clone();
        let told = self.0.apply(&mut own)?;
        let mut prepared = road.prepare(NewTiers(None));
        prepared.detail = told;
        if own == before.own {
            prepared.detail.push(("changed", "false".to_owned()));
        } else {
            let version = before.version.checked_add(1).ok_or(Error::Internal("too many changes of tiers"))?;
            let body = own.to_stored().map_err(|_| Error::Internal("tiers that are not text"))?;
            let source = Source::new(version, body)?;
            prepared.changes.push(Fact::policy(road.tenant.number));
            road.put_rules(place::tiers(road.tenant.number), SourceKind::Tiers, &source, &mut prepared);
            prepared.answer = NewTiers(Some(Arc::new(TiersInForce::new(version, own))));
        }
        road.use_up(given, &mut prepared)?;
        Ok(prepared)
    }

    fn install(&self, _vault: &Vault<S>, tenant: &Tenant, answer: &NewTiers) {
        if let Some(tiers) = &answer.0 {
            tenant.install_tiers(Arc::clone(tiers));
        }
    }
}

impl<S: Store, C: ChangeOfTiers> Approvable<S> for InTurn<'_, C> {
    fn asked(&self, _rules: &Rules) -> Asked {
        Asked { parts: self.0.parts(), summary: self.0.summary() }
    }
}

/// A principal of which an officer said something.
pub struct ListedPrincipal {
    /// Role and name.
    pub principal: String,
    /// Its tier.
    pub tier: Tier,
    /// Since when and why it is suspended, if it is.
    pub suspension: Option<Suspension>,
}

/// Who has a tier or is suspended, and what the tiers allow.
pub struct ListedPrincipals {
    /// In the order of their names.
    pub principals: Vec<ListedPrincipal>,
    /// Of tier I, II and III.
    pub limits: [TierLimits; 3],
}

/// Asks who has a tier or is suspended.
struct ListPrincipals;

impl<S: Store> Attempt<S> for ListPrincipals {
    type Answer = ListedPrincipals;
    const ACTION: Action = Action::ListPrincipals;
    const ON_FULL_DISK: bool = true;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<ListedPrincipals>, Refused> {
        road.decide_vault()?;
        let (tiers, suspended) = (&road.rules.tiers.own, &road.rules.freezes.own.suspended);
        let mut names: Vec<&str> =
            tiers.assigned().map(|(name, _)| name).chain(suspended.keys().map(String::as_str)).collect();
        names.sort_unstable();
        names.dedup();
        let principals = names.into_iter().map(|name| ListedPrincipal {
            principal: name.to_owned(),
            tier: tiers.of(name),
            suspension: suspended.get(name).cloned(),
        });
        let answer =
            ListedPrincipals { principals: principals.collect(), limits: Tier::ALL.map(|tier| tiers.limits(tier)) };
        Ok(road.prepare(answer))
    }
}

impl<S: Store> Vault<S> {
    /// Puts a principal of the caller's tenant into a tier. When this returns all that it is told counts in that tier.
    /// The answer is whether it changed anything.
    pub async fn set_tier(&self, caller: &Caller, request: &SetTier) -> Result<bool, Error> {
        self.change_tiers(caller, &InTurn(request)).await
    }

    /// Sets the limits of a tier of the caller's tenant. The answer is whether it changed anything.
    pub async fn set_tier_limits(&self, caller: &Caller, request: &SetTierLimits) -> Result<bool, Error> {
        self.change_tiers(caller, &InTurn(request)).await
    }

    /// Who has a tier or is suspended in the caller's tenant, and what the tiers allow.
    pub async fn list_principals(&self, caller: &Caller) -> Result<ListedPrincipals, Error> {
        self.travel(caller, &ListPrincipals).await
    }

    async fn change_tiers<C: ChangeOfTiers>(&self, caller: &Caller, change: &InTurn<'_, C>) -> Result<bool, Error> {
        self.approved(caller, change).await?;
        Ok(self.travel(caller, change).await?.0.is_some())
    }
}
