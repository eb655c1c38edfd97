//! What a decision costs under 200 policies: taken by Cedar, and remembered.

use std::hint::black_box;
use std::time::Instant;

use serde_json::{Value, json};
use strongroom_access::{Access, Action, Context, Policies, Principal, Query, Resource, Role};
use strongroom_ids::{FieldNo, KeyringNo, TenantNo};

use super::measure::Middle;
use super::sheet::{Sheet, short, spread};
use super::work::{blocking, unfit};
use crate::cli::output::CliError;

/// Policies in force.
const POLICIES: usize = 200;
/// Questions of a run that were never asked before.
const COLD: usize = 2_000;
/// Questions of a run that were.
const CACHED: usize = 500_000;
/// So many different ones, as a vault with some services and fields has.
const DIFFERENT: usize = 64;
/// The time that Context takes, in microseconds since 1970: an hour like any other.
const NOW: u64 = 1_795_000_000_000_000;

/// The cost of a decision, in microseconds.
pub struct Decide {
    /// Of one that nobody asked for before.
    pub cold: Middle,
    /// Of one that is remembered.
    pub cached: Middle,
}

/// Policies, each of which permits one service one purpose: those of a large house, of which most don't fit a question.
fn policies() -> String {
    let one = |number: usize| {
        format!(
            "@id(\"bench-{number}\")\npermit (principal == Principal::\"app/service-{number}\", \
             action == Action::\"detokenize\", resource)\n\
             when {{ context has view && context.view == \"plain\" && context has purpose && \
             context.purpose == \"purpose-{number}\" && resource.class != Class::\"c3\" }};\n"
        )
    };
    (0..POLICIES).map(one).collect()
}

/// A service that asks for a purpose.
fn asks<'a>(principal: &'a Principal, purpose: &'a str) -> Query<'a> {
    let class = "c2";
    let (collection, name) = ("borrower", "id_card");
    let resource = Resource::Field { name, collection, class, keyring: KeyringNo(1), number: FieldNo(1) };
    let context = Context::new(NOW).purpose(Some(purpose)).view(Some("plain")).class(class);
    Query { principal, action: Action::Detokenize, resource, context }
}

impl Decide {
    /// Measures so often; `quick` a tenth of it.
    pub async fn measure(runs: u16, quick: bool) -> Result<Self, CliError> {
        let (cold, cached) = if quick { (COLD / 10, CACHED / 10) } else { (COLD, CACHED) };
        // It keeps a thread busy, and an interruption must be heard meanwhile.
        blocking(move || Self::measured(runs, cold, cached)).await
    }

    fn measured(runs: u16, cold: usize, cached: usize) -> Result<Self, CliError> {
        let policies = Policies::compile(&policies()).map_err(unfit)?;
        let principals: Vec<Principal> = (0..DIFFERENT)
            .map(|number| {
                let service = format!("service-{}", number * (POLICIES / DIFFERENT));
                Principal::new(TenantNo(1), Role::App, &service)
            })
            .collect();
        let purposes: Vec<String> =
            (0..DIFFERENT).map(|number| format!("purpose-{}", number * (POLICIES / DIFFERENT))).collect();
        let access = Access::new(policies, 1);
        let mut figures: [Vec<f64>; 2] = [vec![], vec![]];
        for run in 0..runs {
            // Purposes that no run before asked for.
            let never: Vec<String> = (0..cold).map(|number| format!("never-{run}-{number}")).collect();
            let mut asked = principals.iter().cycle();
            let begun = Instant::now();
            for purpose in &never {
                let Some(principal) = asked.next() else { break };
                black_box(access.decide(&asks(principal, purpose)));
            }
            figures[0].push(micros_each(begun, cold));
            // What fits the cache beside the cold ones of the run.
            let known: Vec<Query<'_>> = principals.iter().zip(&purposes).map(|(who, why)| asks(who, why)).collect();
            known.iter().for_each(|query| drop(access.decide(query)));
            let begun = Instant::now();
            for query in known.iter().cycle().take(cached) {
                black_box(access.decide(black_box(query)));
            }
            figures[1].push(micros_each(begun, cached));
            if !known.iter().all(|query| access.decide(query).allowed) {
                return Err(CliError::unfit("the policies of the measurement do not permit what they are made for"));
            }
        }
        let [cold, cached] = figures.map(Middle::of);
        Ok(Self { cold, cached })
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        let one = |middle: &Middle| json!({ "median": middle.median, "least": middle.least, "most": middle.most });
        json!({ "policies": POLICIES, "cold_micros": one(&self.cold), "cached_micros": one(&self.cached) })
    }

    /// As a table.
    pub fn sheet(&self) -> Sheet {
        Sheet {
            title: "A decision under 200 policies",
            header: vec!["question", "us"],
            rows: vec![
                vec!["never asked before: Cedar decides".to_owned(), spread(self.cold, short)],
                vec!["asked before: remembered".to_owned(), spread(self.cached, short)],
            ],
            below: format!(
                "Each policy permits one service one purpose. On one thread, in this process, {DIFFERENT} different questions in turn; \
                 a request asks one for each field and view of its items."
            ),
        }
    }
}

fn micros_each(begun: Instant, count: usize) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6 / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundred_policies_validate_and_each_permits_its_own() {
        let policies = Policies::compile(&policies()).unwrap();
        for number in [0, 7, POLICIES - 1] {
            let principal = Principal::new(TenantNo(1), Role::App, &format!("service-{number}"));
            let (own, other) = (format!("purpose-{number}"), format!("purpose-{}", number + 1));
            assert!(policies.decide(&asks(&principal, &own)).allowed);
            assert!(!policies.decide(&asks(&principal, &other)).allowed);
        }
    }

    #[test]
    fn both_costs_are_measured() {
        let decide = Decide::measured(3, 20, 200).unwrap();
        assert!(decide.cold.median > decide.cached.median, "{} {}", decide.cold.median, decide.cached.median);
        assert_eq!((decide.cold.runs, decide.cached.runs), (3, 3));
    }
}
