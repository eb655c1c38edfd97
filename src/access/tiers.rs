//! How much each principal may read: the limits of the tiers, and who is in which. Apart from policy, as freezes are.
//!
//! Tier I has no limits unless an officer sets some, and whoever was given no tier is in it. The people behind a service have
//! a tier apart from its own: it holds for each of them. A limit counts within a
//! minute or a day of the clock (UTC); both hold at once.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::freezes::parse_principal;
use crate::principal::Role;
use crate::query::Tier;

/// The format of what is stored.
const FORMAT: u32 = 1;
/// Principals of a tenant that may have a tier.
const MOST_ASSIGNED: usize = 10_000;
/// The most that a limit may be: what is counted is kept in memory.
pub const HIGHEST_LIMIT: u32 = 1_000_000;

/// How many of something, at most; what is missing has no limit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Within a minute of the clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u32>,
    /// Within a day, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_day: Option<u32>,
}

impl Rate {
    const fn of(per_minute: u32, per_day: u32) -> Self {
        Self { per_minute: Some(per_minute), per_day: Some(per_day) }
    }
}

/// The limits of one data class.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassLimits {
    /// Values in plain; a second, other part of a value counts as one.
    #[serde(default)]
    pub plain: Rate,
    /// Parts of values.
    #[serde(default)]
    pub masked: Rate,
    /// Distinct subjects.
    #[serde(default)]
    pub subjects: Rate,
}

/// The limits of one tier.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierLimits {
    /// Of class C1.
    #[serde(default)]
    pub c1: ClassLimits,
    /// Of class C2.
    #[serde(default)]
    pub c2: ClassLimits,
    /// Of class C3.
    #[serde(default)]
    pub c3: ClassLimits,
    /// Match that does not match and Lookup that finds nothing.
    #[serde(default)]
    pub misses: Rate,
    /// Match of one token that does not match.
    #[serde(default)]
    pub token_misses: Rate,
}

impl TierLimits {
    /// Tier II unless an officer says otherwise: the day of a busy desk.
    pub const II: Self = Self::all(
        ClassLimits { plain: Rate::of(60, 2_000), masked: Rate::of(600, 20_000), subjects: Rate::of(60, 1_000) },
        (Rate::of(30, 500), Rate::of(5, 20)),
    );
    /// Tier III unless an officer says otherwise: single cases.
    pub const III: Self = Self::all(
        ClassLimits { plain: Rate::of(10, 100), masked: Rate::of(100, 1_000), subjects: Rate::of(20, 200) },
        (Rate::of(10, 50), Rate::of(3, 5)),
    );

    const fn all(class: ClassLimits, (misses, token_misses): (Rate, Rate)) -> Self {
        Self { c1: class, c2: class, c3: class, misses, token_misses }
    }

    /// By class.
    pub fn classes(&self) -> [&ClassLimits; 3] {
        [&self.c1, &self.c2, &self.c3]
    }

    fn is_right(&self) -> bool {
        let of_classes = self.classes().into_iter().flat_map(|class| [class.plain, class.masked, class.subjects]);
        of_classes
            .chain([self.misses, self.token_misses])
            .flat_map(|rate| [rate.per_minute, rate.per_day])
            .flatten()
            .all(|limit| limit <= HIGHEST_LIMIT)
    }
}

impl fmt::Display for TierLimits {
    /// What is limited and what not, as officers approve it and the ledger keeps it: `c2 plain 10 a minute, 50 a day`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = Vec::new();
        let mut say = |what: String, rate: Rate| {
            let limits = [(rate.per_minute, "a minute"), (rate.per_day, "a day")];
            let limits = limits.into_iter().filter_map(|(limit, span)| Some(format!("{} {span}", limit?)));
            let limits: Vec<String> = limits.collect();
            if !limits.is_empty() {
                said.push(format!("{what} {}", limits.join(", ")));
            }
        };
        for (name, class) in ["c1", "c2", "c3"].into_iter().zip(self.classes()) {
            say(format!("{name} plain"), class.plain);
            say(format!("{name} masked"), class.masked);
            say(format!("{name} subjects"), class.subjects);
        }
        say("misses".to_owned(), self.misses);
        say("misses of one token".to_owned(), self.token_misses);
        match said.is_empty() {
            true => f.write_str("no limits"),
            false => f.write_str(&said.join("; ")),
        }
    }
}

/// Why a tier is not given or its limits are not set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TierError {
    /// No certificate could carry the name.
    #[error(
        "a principal is named by its role and its name under it: app/loan-core; the roles are app, rotator, auditor, \
         privacy, officer, operator; each person behind a service by app/loan-core/actors"
    )]
    Name,
    /// There are as many as there may be.
    #[error("{MOST_ASSIGNED} principals have a tier, as many as may: put those that are no more into tier I")]
    Full,
    /// A limit is above what can be counted.
    #[error("a limit is at most {HIGHEST_LIMIT}; leave it out for none")]
    Limit,
}

/// Why stored tiers are none.
#[derive(Debug, thiserror::Error)]
pub enum TiersError {
    /// It is no JSON of the known form.
    #[error("the stored tiers do not read as JSON of the known form: {0}")]
    Form(#[from] serde_json::Error),
    /// It says what this version would not have written.
    #[error("the stored tiers are not right: {0}")]
    Wrong(&'static str),
}

/// How the name of all who are behind a service ends: `app/loan-core/actors`. No principal's name has three parts.
const ACTORS: &str = "/actors";

/// The tiers of a tenant.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Tiers {
    /// Limits that officers set, by tier.
    set: BTreeMap<Tier, TierLimits>,
    /// Principals by role and name; none is in tier I.
    assigned: BTreeMap<String, Tier>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    limits: BTreeMap<String, TierLimits>,
    assigned: BTreeMap<String, String>,
}

impl Tiers {
    /// The tier of a principal, by role and name.
    pub fn of(&self, principal: &str) -> Tier {
        match self.assigned.is_empty() {
            true => Tier::I,
            false => self.assigned.get(principal).copied().unwrap_or_default(),
        }
    }

    /// The tier of each person behind a service, by the service's role and name.
    pub fn of_actors(&self, principal: &str) -> Tier {
        match self.assigned.is_empty() {
            true => Tier::I,
            false => self.of(&format!("{principal}{ACTORS}")),
        }
    }

    /// Who is in another tier than I, by role and name.
    pub fn assigned(&self) -> impl Iterator<Item = (&str, Tier)> {
        self.assigned.iter().map(|(name, tier)| (name.as_str(), *tier))
    }

    /// The limits of a tier.
    pub fn limits(&self, tier: Tier) -> TierLimits {
        self.set.get(&tier).copied().unwrap_or(match tier {
            Tier::I => TierLimits::default(),
            Tier::II => TierLimits::II,
            Tier::III => TierLimits::III,
        })
    }

    /// Puts a principal into a tier, or each person behind a service: `app/loan-core/actors`.
    pub fn assign(&mut self, principal: &str, tier: Tier) -> Result<(), TierError> {
        match principal.strip_suffix(ACTORS) {
            None => parse_principal(principal).map(drop),
            Some(service) => parse_principal(service).filter(|(role, _)| *role == Role::App).map(drop),
        }
        .ok_or(TierError::Name)?;
        if tier == Tier::I {
            self.assigned.remove(principal);
            return Ok(());
        }
        if self.assigned.len() >= MOST_ASSIGNED && !self.assigned.contains_key(principal) {
            return Err(TierError::Full);
        }
        self.assigned.insert(principal.to_owned(), tier);
        Ok(())
    }

    /// Sets all limits of a tier.
    pub fn set_limits(&mut self, tier: Tier, limits: TierLimits) -> Result<(), TierError> {
        if !limits.is_right() {
            return Err(TierError::Limit);
        }
        if self.limits(tier) != limits {
            self.set.insert(tier, limits);
        }
        Ok(())
    }

    /// As the vault keeps it: JSON with a fixed order.
    pub fn to_stored(&self) -> Result<String, TiersError> {
        let limits = self.set.iter().map(|(tier, limits)| (tier.as_str().to_owned(), *limits)).collect();
        let assigned = self.assigned.iter().map(|(name, tier)| (name.clone(), tier.as_str().to_owned())).collect();
        Ok(serde_json::to_string(&Stored { format: FORMAT, limits, assigned })?)
    }

    /// Reads what [`Tiers::to_stored`] wrote.
    pub fn from_stored(text: &str) -> Result<Self, TiersError> {
        let stored: Stored = serde_json::from_str(text)?;
        if stored.format != FORMAT {
            return Err(TiersError::Wrong("they are of another format than this version knows"));
        }
        let tier = |name: &str| name.parse::<Tier>().map_err(|_| TiersError::Wrong("there is no such tier"));
        let mut tiers = Self::default();
        for (name, limits) in stored.limits {
            if !limits.is_right() {
                return Err(TiersError::Wrong("a limit is higher than one may be"));
            }
            tiers.set.insert(tier(&name)?, limits);
        }
        for (principal, name) in stored.assigned {
            let tier = tier(&name)?;
            if tier == Tier::I || tiers.assign(&principal, tier).is_err() {
                return Err(TiersError::Wrong("a tier is given to nobody, to too many, or is the first"));
            }
        }
        Ok(tiers)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tier() -> impl Strategy<Value = Tier> {
        proptest::sample::select(Tier::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn stored_tiers_read_back_and_the_last_tier_given_holds(
            given in proptest::collection::vec(("app/[a-c]", tier()), 0..9), set in tier(), plain in 0..HIGHEST_LIMIT,
        ) {
            let mut tiers = Tiers::default();
            for (name, tier) in &given {
                tiers.assign(name, *tier).unwrap();
            }
            let mut limits = TierLimits::III;
            limits.c2.plain.per_day = Some(plain);
            tiers.set_limits(set, limits).unwrap();
            for name in ["app/a", "app/b", "app/c", "app/d"] {
                let last = given.iter().rev().find(|(given, _)| given == name).map(|(_, tier)| *tier);
                prop_assert_eq!(tiers.of(name), last.unwrap_or(Tier::I));
            }
            prop_assert_eq!(tiers.limits(set), limits);
            prop_assert_eq!(Tiers::from_stored(&tiers.to_stored().unwrap()).unwrap(), tiers);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = Tiers::from_stored(&text);
        }
    }

    #[test]
    fn limits_say_what_is_limited_and_nothing_else() {
        assert_eq!(TierLimits::default().to_string(), "no limits");
        let mut limits = TierLimits::default();
        limits.c2.plain = Rate::of(10, 50);
        limits.token_misses.per_day = Some(5);
        assert_eq!(limits.to_string(), "c2 plain 10 a minute, 50 a day; misses of one token 5 a day");
    }

    #[test]
    fn each_person_behind_a_service_has_a_tier_apart_from_the_services_own() {
        let mut tiers = Tiers::default();
        tiers.assign("app/loan-core/actors", Tier::III).unwrap();
        assert_eq!((tiers.of("app/loan-core"), tiers.of_actors("app/loan-core")), (Tier::I, Tier::III));
        tiers.assign("app/loan-core", Tier::II).unwrap();
        assert_eq!((tiers.of("app/loan-core"), tiers.of_actors("app/loan-core")), (Tier::II, Tier::III));
        // One that is called `actors` is nobody behind anybody.
        assert_eq!(tiers.of("app/actors"), Tier::I);
        assert_eq!(Tiers::from_stored(&tiers.to_stored().unwrap()).unwrap(), tiers);
    }

    #[test]
    fn names_that_no_certificate_carries_and_limits_beyond_counting_are_refused() {
        let mut tiers = Tiers::default();
        for name in [
            "clerk",
            "/actors",
            "actors",
            "officer/alice/actors",
            "app/a/b/actors",
            "app/a/actors/actors",
            "app//actors",
        ] {
            assert_eq!(tiers.assign(name, Tier::III), Err(TierError::Name), "{name}");
        }
        let mut limits = TierLimits::default();
        limits.token_misses.per_day = Some(HIGHEST_LIMIT + 1);
        assert_eq!(tiers.set_limits(Tier::I, limits), Err(TierError::Limit));
        assert_eq!(tiers, Tiers::default());
        let first = r#"{"format":1,"limits":{},"assigned":{"app/clerk":"I"}}"#;
        assert!(Tiers::from_stored(first).is_err());
    }
}
