//! The question that policy answers: who does what to which field, for which purpose, in which view.

use std::fmt;
use std::str::FromStr;

use strongroom_ids::{FieldNo, KeyringNo};

use crate::action::Action;
use crate::principal::Principal;

const MICROS_PER_HOUR: u64 = 3_600_000_000;

/// Most approvals that policy can ask for.
pub const MAX_APPROVALS: u8 = 5;

/// A name that Strongroom does not know, of a thing of which there is a fixed list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown {kind}; it must be one of {known}")]
pub struct UnknownName {
    /// What it would be.
    pub kind: &'static str,
    /// The known ones.
    pub known: &'static str,
}

/// What the action is done to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Resource<'a> {
    /// A field of the schema: `Field::"borrower.id_card"` in policies.
    Field {
        /// The name within its collection: `id_card`.
        name: &'a str,
        /// The collection: `borrower`.
        collection: &'a str,
        /// The data class: `c1`, `c2` or `c3`.
        class: &'a str,
        /// The keyring that seals its values.
        keyring: KeyringNo,
        /// The permanent number.
        number: FieldNo,
    },
    /// The vault itself: `Vault::"vault"` in policies.
    Vault,
}

/// What the data subject has to say about the purpose.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Consent {
    /// The purpose does not rest on consent.
    #[default]
    NotNeeded,
    /// It does, and the subject has given it.
    Standing,
    /// It does, and the subject has not given it or has withdrawn it.
    Absent,
}

impl Consent {
    /// The name in policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotNeeded => "not_needed",
            Self::Standing => "standing",
            Self::Absent => "absent",
        }
    }
}

impl FromStr for Consent {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        [Self::NotNeeded, Self::Standing, Self::Absent]
            .into_iter()
            .find(|consent| consent.as_str() == name)
            .ok_or(UnknownName { kind: "consent", known: "not_needed, standing, absent" })
    }
}

/// How fresh the second factor of the person who asks is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum SecondFactor {
    /// None was shown, or too long ago.
    #[default]
    Absent,
    /// It was shown lately.
    Fresh,
    /// It was shown lately, for just this request.
    Bound,
}

impl SecondFactor {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Absent, Self::Fresh, Self::Bound];

    /// The name in policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Fresh => "fresh",
            Self::Bound => "bound",
        }
    }
}

impl FromStr for SecondFactor {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let known = Self::ALL.into_iter().find(|factor| factor.as_str() == name);
        known.ok_or(UnknownName { kind: "second factor", known: "absent, fresh, bound" })
    }
}

/// Whose case the data subject is, as seen from the person on whose behalf a service calls.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum CaseLoad {
    /// There is no such person, or the subject has no label.
    #[default]
    None,
    /// The person's own.
    Own,
    /// Somebody else's: none of its labels is the person's.
    Other,
}

impl CaseLoad {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Own, Self::Other];

    /// The name in policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Own => "own",
            Self::Other => "other",
        }
    }
}

impl FromStr for CaseLoad {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let known = Self::ALL.into_iter().find(|load| load.as_str() == name);
        known.ok_or(UnknownName { kind: "case load", known: "none, own, other" })
    }
}

/// How much a principal may read: I is the widest. Policy sees its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Tier {
    /// The widest, and that of whoever was given no other.
    #[default]
    I,
    /// Narrower.
    II,
    /// The narrowest.
    III,
}

impl Tier {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::I, Self::II, Self::III];

    /// The name on the command line and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::I => "I",
            Self::II => "II",
            Self::III => "III",
        }
    }

    /// The number in policies, 1 to 3.
    pub fn number(self) -> u8 {
        match self {
            Self::I => 1,
            Self::II => 2,
            Self::III => 3,
        }
    }
}

impl FromStr for Tier {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let known = Self::ALL.into_iter().find(|tier| tier.as_str() == name);
        known.ok_or(UnknownName { kind: "tier", known: "I, II, III" })
    }
}

/// The circumstances that a decision may depend on. The list is closed: whatever policy can see is part of the key
/// under which a decision is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Context<'a> {
    pub(crate) purpose: Option<&'a str>,
    pub(crate) view: Option<&'a str>,
    pub(crate) class: Option<&'a str>,
    pub(crate) consent: Consent,
    pub(crate) hour: u8,
    pub(crate) tier: Tier,
    pub(crate) actor_role: Option<&'a str>,
    pub(crate) case_load: CaseLoad,
    pub(crate) second_factor: SecondFactor,
    pub(crate) approvals: u8,
}

impl<'a> Context<'a> {
    /// The context of a request at a time, in microseconds since 1970. Policy sees the hour (0 to 23, UTC), so that
    /// decisions can be remembered for as long.
    pub fn new(now_micros: u64) -> Self {
        // The remainder is below 24.
        let hour = (now_micros / MICROS_PER_HOUR % 24) as u8;
        Self {
            purpose: None,
            view: None,
            class: None,
            consent: Consent::NotNeeded,
            hour,
            tier: Tier::I,
            actor_role: None,
            case_load: CaseLoad::None,
            second_factor: SecondFactor::Absent,
            approvals: 0,
        }
    }

    /// The context of a request at an hour of some day.
    pub fn at_hour(hour: u8) -> Self {
        Self::new(u64::from(hour) * MICROS_PER_HOUR)
    }

    /// Why the data is wanted. An empty name is no purpose.
    pub fn purpose(mut self, purpose: Option<&'a str>) -> Self {
        self.purpose = purpose.filter(|name| !name.is_empty());
        self
    }

    /// How much of the value would be shown. An empty name is no view.
    pub fn view(mut self, view: Option<&'a str>) -> Self {
        self.view = view.filter(|name| !name.is_empty());
        self
    }

    /// The data class; without it, that of the field.
    pub fn class(mut self, class: &'a str) -> Self {
        self.class = Some(class);
        self
    }

    /// What the data subject allowed.
    pub fn consent(mut self, consent: Consent) -> Self {
        self.consent = consent;
        self
    }

    /// How much the principal may read.
    pub fn tier(mut self, tier: Tier) -> Self {
        self.tier = tier;
        self
    }

    /// The role of the person on whose behalf a service calls. An empty name is no role.
    pub fn actor_role(mut self, role: Option<&'a str>) -> Self {
        self.actor_role = role.filter(|name| !name.is_empty());
        self
    }

    /// Whose case the data subject is. Policy sees it for what is done to a field only.
    pub fn case_load(mut self, case_load: CaseLoad) -> Self {
        self.case_load = case_load;
        self
    }

    /// How fresh the second factor is.
    pub fn second_factor(mut self, second_factor: SecondFactor) -> Self {
        self.second_factor = second_factor;
        self
    }

    /// Whether a second factor was shown.
    pub fn has_second_factor(&self) -> bool {
        self.second_factor != SecondFactor::Absent
    }

    /// How many others have approved the request; more than [`MAX_APPROVALS`] count as that many. Policy sees it for
    /// what is done to the vault only.
    pub fn approvals(mut self, approvals: u8) -> Self {
        self.approvals = approvals.min(MAX_APPROVALS);
        self
    }
}

/// One question to policy.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// What for.
    pub action: Action,
    /// On what.
    pub resource: Resource<'a>,
    /// In which circumstances.
    pub context: Context<'a>,
}

impl<'a> Query<'a> {
    /// Whether somebody may do something to the vault itself, at a time in microseconds since 1970.
    pub fn on_vault(principal: &'a Principal, action: Action, now: u64) -> Self {
        Self::on_vault_in(principal, action, Context::new(now))
    }

    /// The same in other circumstances than the time's alone.
    pub fn on_vault_in(principal: &'a Principal, action: Action, context: Context<'a>) -> Self {
        Self { principal, action, resource: Resource::Vault, context }
    }
}

impl fmt::Display for Query<'_> {
    /// The question in words, for an explanation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.principal.name, self.action)?;
        if let Resource::Field { name, collection, class, .. } = self.resource {
            write!(f, " {collection}.{name} (class {class})")?;
        }
        if let Some(view) = self.context.view {
            write!(f, " in view {view}")?;
        }
        match self.context.purpose {
            Some(purpose) => write!(f, " for {purpose}")?,
            None if self.action.is_on_field() => f.write_str(" for no purpose")?,
            None => {}
        }
        match self.context.consent {
            Consent::NotNeeded => {}
            Consent::Standing => f.write_str(" with standing consent")?,
            Consent::Absent => f.write_str(" without the consent that it needs")?,
        }
        if let Some(role) = self.context.actor_role {
            write!(f, " on behalf of a {role}")?;
        }
        match self.context.case_load {
            CaseLoad::None => {}
            CaseLoad::Own => f.write_str(" with the case")?,
            CaseLoad::Other => f.write_str(" without the case")?,
        }
        match self.context.second_factor {
            SecondFactor::Absent => {}
            SecondFactor::Fresh => f.write_str(" with a fresh second factor")?,
            SecondFactor::Bound => f.write_str(" with a second factor for this very request")?,
        }
        match self.context.tier {
            Tier::I => Ok(()),
            tier => write!(f, " in tier {}", tier.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consent_reads_back_from_its_name() {
        for consent in [Consent::NotNeeded, Consent::Standing, Consent::Absent] {
            assert_eq!(consent.as_str().parse::<Consent>().unwrap(), consent);
        }
        assert!("given".parse::<Consent>().is_err());
    }

    #[test]
    fn circumstances_read_back_from_their_names() {
        for tier in Tier::ALL {
            assert_eq!(tier.as_str().parse::<Tier>(), Ok(tier));
        }
        for factor in SecondFactor::ALL {
            assert_eq!(factor.as_str().parse::<SecondFactor>(), Ok(factor));
        }
        for load in CaseLoad::ALL {
            assert_eq!(load.as_str().parse::<CaseLoad>(), Ok(load));
        }
        assert!("IV".parse::<Tier>().is_err() && "stale".parse::<SecondFactor>().is_err());
        assert!("mine".parse::<CaseLoad>().is_err());
    }

    #[test]
    fn the_hour_is_the_hour_of_the_day() {
        for (micros, hour) in [(0, 0), (MICROS_PER_HOUR - 1, 0), (MICROS_PER_HOUR, 1), (23 * MICROS_PER_HOUR, 23)] {
            assert_eq!(Context::new(micros).hour, hour);
            assert_eq!(Context::new(micros + 20_000 * 24 * MICROS_PER_HOUR).hour, hour);
        }
        assert!(Context::new(u64::MAX).hour < 24);
    }

    #[test]
    fn an_empty_purpose_or_view_is_none() {
        let context = Context::new(0).purpose(Some("")).view(Some(""));
        assert_eq!(context, Context::new(0));
    }
}
