//! `strongroom principal tier`, `limits` and `list`: who may read how much.

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Value, json};
use strongroom_proto::v1::{
    ClassLimits, ListPrincipalsRequest, Rate, SetTierLimitsRequest, SetTierRequest, TierLimits,
};

use super::client::Context;
use super::output::{CliError, Exit, instant, table};

/// The classes, as they are written.
const CLASSES: [&str; 3] = ["c1", "c2", "c3"];

/// A tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TierName {
    /// That of whoever was given no other; without limits unless some are set.
    #[value(name = "I")]
    First,
    /// Narrower.
    #[value(name = "II")]
    Second,
    /// The narrowest.
    #[value(name = "III")]
    Third,
}

impl TierName {
    fn as_str(self) -> &'static str {
        match self {
            Self::First => "I",
            Self::Second => "II",
            Self::Third => "III",
        }
    }
}

/// A data class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ClassName {
    C1,
    C2,
    C3,
}

/// How many, or any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit(Option<u32>);

impl std::str::FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            number => match number.parse() {
                Ok(number) => Ok(Self(Some(number))),
                Err(_) => Err("a limit is a number, or `none`".to_owned()),
            },
        }
    }
}

/// Put a principal into a tier: what it is told counts from now on, also what it has under way.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom principal tier app/desk III
  strongroom principal tier app/loan-core I        without limits, unless tier I has some
  strongroom principal tier app/loan-core/actors III   each person behind it

It goes by role and name, as suspensions do.
Next: strongroom principal list")]
pub struct TierArgs {
    /// Role and name: app/loan-core; each person behind a service: app/loan-core/actors.
    name: String,

    /// I, II or III: I is the widest.
    #[arg(value_enum)]
    tier: TierName,
}

/// Set limits of a tier; those that are not named stay.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom principal limits III --class c2 --plain-per-day 50 --subjects-per-day 40
  strongroom principal limits III --misses-per-day 20 --token-misses-per-day 3
  strongroom principal limits II --masked-per-minute none

A second, other part of a value on one day counts as plain. Minute and day are
those of the clock, UTC. At most 1000000 each; `none` for no limit.")]
pub struct LimitsArgs {
    /// I, II or III.
    #[arg(value_enum)]
    tier: TierName,

    /// Of which data class; without it, of all three.
    #[arg(long, value_enum)]
    class: Option<ClassName>,

    /// Values in plain.
    #[arg(long, value_name = "N")]
    plain_per_minute: Option<Limit>,

    /// Values in plain.
    #[arg(long, value_name = "N")]
    plain_per_day: Option<Limit>,

    /// Parts of values.
    #[arg(long, value_name = "N")]
    masked_per_minute: Option<Limit>,

    /// Parts of values.
    #[arg(long, value_name = "N")]
    masked_per_day: Option<Limit>,

    /// Distinct subjects.
    #[arg(long, value_name = "N")]
    subjects_per_minute: Option<Limit>,

    /// Distinct subjects.
    #[arg(long, value_name = "N")]
    subjects_per_day: Option<Limit>,

    /// Match that does not match, Lookup that finds nothing; of all classes together.
    #[arg(long, value_name = "N")]
    misses_per_minute: Option<Limit>,

    /// Match that does not match, Lookup that finds nothing; of all classes together.
    #[arg(long, value_name = "N")]
    misses_per_day: Option<Limit>,

    /// Match of one token that does not match.
    #[arg(long, value_name = "N")]
    token_misses_per_minute: Option<Limit>,

    /// Match of one token that does not match.
    #[arg(long, value_name = "N")]
    token_misses_per_day: Option<Limit>,
}

/// Show who has a tier or is suspended, and what the tiers allow.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom principal list
  strongroom principal list --as auditor --output json

Whoever is not listed is in tier I and not suspended.")]
pub struct ListArgs {}

/// Puts a principal into a tier.
pub async fn give(TierArgs { name, tier }: TierArgs, context: &Context) -> Result<Exit, CliError> {
    let tier = tier.as_str();
    let request = SetTierRequest { principal: name.clone(), tier: tier.to_owned() };
    let changed = context.access().await?.set_tier(request).await?.into_inner().changed;
    context.output.show(
        || json!({ "principal": name, "tier": tier, "changed": changed }),
        || match changed {
            true => format!("{name} is in tier {tier}; `strongroom principal list` shows what that allows"),
            false => format!("{name} was in tier {tier} already"),
        },
    )?;
    Ok(Exit::Done)
}

/// Sets limits of a tier: those that are named, over those in force.
pub async fn limit(args: LimitsArgs, context: &Context) -> Result<Exit, CliError> {
    if !args.names_any() {
        let why = "no limit is named: say which, as in --plain-per-day 50";
        return Err(CliError::unfit(why).advise("strongroom principal limits --help"));
    }
    let tier = args.tier.as_str();
    let mut access = context.access().await?;
    let listed = access.list_principals(ListPrincipalsRequest {}).await?.into_inner();
    let found = listed.tiers.into_iter().find(|one| one.name == tier);
    let mut limits = found.and_then(|one| one.limits).unwrap_or_default();
    args.put(&mut limits);
    let request = SetTierLimitsRequest { tier: tier.to_owned(), limits: Some(limits) };
    let changed = access.set_tier_limits(request).await?.into_inner().changed;
    context.output.show(
        || json!({ "tier": tier, "limits": document(&limits), "changed": changed }),
        || match changed {
            true => format!("the limits of tier {tier} are set; `strongroom principal list` shows them"),
            false => format!("the limits of tier {tier} were so already"),
        },
    )?;
    Ok(Exit::Done)
}

impl LimitsArgs {
    fn names_any(&self) -> bool {
        let all = [
            self.plain_per_minute,
            self.plain_per_day,
            self.masked_per_minute,
            self.masked_per_day,
            self.subjects_per_minute,
            self.subjects_per_day,
            self.misses_per_minute,
            self.misses_per_day,
            self.token_misses_per_minute,
            self.token_misses_per_day,
        ];
        all.iter().any(Option::is_some)
    }

    /// Puts the limits that are named over others.
    fn put(&self, limits: &mut TierLimits) {
        let of = [ClassName::C1, ClassName::C2, ClassName::C3];
        let classes = of.into_iter().zip([&mut limits.c1, &mut limits.c2, &mut limits.c3]);
        for (_, class) in classes.filter(|(name, _)| self.class.is_none_or(|only| only == *name)) {
            let class = class.get_or_insert_default();
            put(&mut class.plain, self.plain_per_minute, self.plain_per_day);
            put(&mut class.masked, self.masked_per_minute, self.masked_per_day);
            put(&mut class.subjects, self.subjects_per_minute, self.subjects_per_day);
        }
        put(&mut limits.misses, self.misses_per_minute, self.misses_per_day);
        put(&mut limits.token_misses, self.token_misses_per_minute, self.token_misses_per_day);
    }
}

fn put(rate: &mut Option<Rate>, per_minute: Option<Limit>, per_day: Option<Limit>) {
    let rate = rate.get_or_insert_default();
    if let Some(Limit(limit)) = per_minute {
        rate.per_minute = limit;
    }
    if let Some(Limit(limit)) = per_day {
        rate.per_day = limit;
    }
}

/// Lists.
pub async fn list(ListArgs {}: ListArgs, context: &Context) -> Result<Exit, CliError> {
    let listed = context.access().await?.list_principals(ListPrincipalsRequest {}).await?.into_inner();
    context.output.show(
        || {
            let principals = listed.principals.iter().map(|one| {
                json!({
                    "principal": one.principal,
                    "tier": one.tier,
                    "suspended": one.suspension.is_some(),
                    "suspend_time": one.suspension.as_ref().map(|why| instant(why.suspend_time.as_ref())),
                })
            });
            let tiers = listed
                .tiers
                .iter()
                .map(|tier| json!({ "tier": tier.name, "limits": document(&tier.limits.unwrap_or_default()) }));
            json!({ "principals": principals.collect::<Vec<_>>(), "tiers": tiers.collect::<Vec<_>>() })
        },
        || {
            let principals = listed.principals.iter().map(|one| {
                let since = one.suspension.as_ref().map(|why| instant(why.suspend_time.as_ref()));
                vec![one.principal.clone(), one.tier.clone(), since.unwrap_or_default()]
            });
            let limits = listed.tiers.iter().flat_map(|tier| rows(&tier.name, &tier.limits.unwrap_or_default()));
            let who = match listed.principals.is_empty() {
                true => "everybody is in tier I, and nobody is suspended".to_owned(),
                false => table(&["PRINCIPAL", "TIER", "SUSPENDED SINCE"], principals),
            };
            format!("{who}\n\n{}", table(&["TIER", "WHAT", "A MINUTE", "A DAY"], limits))
        },
    )?;
    Ok(Exit::Done)
}

/// What is limited, by its name in the document and in words.
fn rates(limits: &TierLimits) -> Vec<(String, Rate)> {
    let classes = CLASSES.into_iter().zip([limits.c1, limits.c2, limits.c3]);
    let of_classes = classes.flat_map(|(name, class)| {
        let ClassLimits { plain, masked, subjects } = class.unwrap_or_default();
        [("plain", plain), ("masked", masked), ("subjects", subjects)]
            .map(|(what, rate)| (format!("{name} {what}"), rate.unwrap_or_default()))
    });
    let misses = [("misses", limits.misses), ("token misses", limits.token_misses)];
    of_classes.chain(misses.map(|(what, rate)| (what.to_owned(), rate.unwrap_or_default()))).collect()
}

fn document(limits: &TierLimits) -> Value {
    let one = |(what, rate): (String, Rate)| {
        (what.replace(' ', "_"), json!({ "per_minute": rate.per_minute, "per_day": rate.per_day }))
    };
    rates(limits).into_iter().map(one).collect::<serde_json::Map<_, _>>().into()
}

fn rows(tier: &str, limits: &TierLimits) -> Vec<Vec<String>> {
    let shown = |limit: Option<u32>| limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
    let limited: Vec<_> =
        rates(limits).into_iter().filter(|(_, rate)| rate.per_minute.is_some() || rate.per_day.is_some()).collect();
    if limited.is_empty() {
        return vec![vec![tier.to_owned(), "no limits".to_owned(), String::new(), String::new()]];
    }
    let row = |(what, rate): (String, Rate)| vec![tier.to_owned(), what, shown(rate.per_minute), shown(rate.per_day)];
    limited.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_set_and_none_takes_a_limit_away() {
        let set = Some(Rate { per_minute: Some(1), per_day: Some(2) });
        let mut limits = TierLimits { misses: set, ..TierLimits::default() };
        let args = LimitsArgs {
            tier: TierName::Third,
            class: Some(ClassName::C2),
            plain_per_minute: None,
            plain_per_day: Some(Limit(Some(50))),
            masked_per_minute: None,
            masked_per_day: None,
            subjects_per_minute: None,
            subjects_per_day: None,
            misses_per_minute: Some("none".parse().unwrap()),
            misses_per_day: None,
            token_misses_per_minute: None,
            token_misses_per_day: None,
        };
        assert!(args.names_any());
        args.put(&mut limits);
        let shown = |rate: Option<Rate>| rate.map(|rate| (rate.per_minute, rate.per_day));
        assert_eq!(shown(limits.misses), Some((None, Some(2))));
        assert_eq!(shown(limits.c2.and_then(|class| class.plain)), Some((None, Some(50))));
        assert!(limits.c1.is_none());
        assert!("many".parse::<Limit>().is_err());
    }
}
