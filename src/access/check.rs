//! A table of cases that policies must decide as it says, so that a change of policy can be tested before it is made.
//!
//! ```toml
//! [[case]]
//! role = "app"              # who asks
//! name = "loan-core"        # its name under the role; "anyone" if left out
//! tenant = 1                # its tenant; 0 for operators and 1 for others if left out
//! action = "detokenize"
//! field = "borrower.id_card" # for actions on values
//! class = "c2"              # of the field; c2 if left out
//! view = "plain"
//! purpose = "loan_origination"
//! consent = "not_needed"    # or standing, absent; not_needed if left out
//! hour = 12                 # 0 to 23, UTC; 12 if left out
//! tier = "I"                # or II, III; I if left out
//! actor_role = "clerk"      # of the person on whose behalf a service calls; nobody if left out
//! case_load = "own"         # or other, none; none if left out
//! second_factor = "fresh"   # or bound, absent; absent if left out
//! approvals = 0             # for actions on the vault: how many others approved, 0 to 5; 0 if left out
//! expect = "allow"          # or deny
//! policy = "app-plain"      # a policy that must be among those that decided
//! ```

use serde::Deserialize;
use strongroom_ids::{FieldNo, KeyringNo, TenantNo};
use toml::Spanned;

use crate::action::Action;
use crate::policies::Policies;
use crate::principal::{Principal, Role};
use crate::query::{CaseLoad, Consent, Context, MAX_APPROVALS, Query, Resource, SecondFactor, Tier};

/// The table that the default policies pass.
pub const DEFAULT_TESTS: &str = include_str!("../../deploy/policies/default.tests.toml");

/// Longest table in bytes.
const MAX_TABLE: usize = 256 * 1024;
/// Most cases in a table.
const MAX_CASES: usize = 1000;

/// Why a table is not passed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CheckError {
    /// The table is too long.
    #[error("the table of cases is too long; it may have {MAX_TABLE} bytes and {MAX_CASES} cases")]
    TooLong,
    /// The table does not read.
    #[error("the table of cases does not read: {0}")]
    Table(String),
    /// A case makes no sense.
    #[error("case {number}, line {line}: {what}")]
    Case {
        /// Which case, from 1.
        number: usize,
        /// Where it begins.
        line: usize,
        /// What is wrong with it, and what would be right.
        what: String,
    },
    /// The policies decide otherwise.
    #[error("case {number}, line {line}: expected {expected}, but {found}")]
    Failed {
        /// Which case, from 1.
        number: usize,
        /// Where it begins.
        line: usize,
        /// What the table wants.
        expected: String,
        /// What the policies decide and why.
        found: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    case: Vec<Spanned<Case>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    role: String,
    name: Option<String>,
    tenant: Option<u32>,
    action: String,
    field: Option<String>,
    class: Option<String>,
    view: Option<String>,
    purpose: Option<String>,
    consent: Option<String>,
    hour: Option<u8>,
    tier: Option<String>,
    actor_role: Option<String>,
    case_load: Option<String>,
    second_factor: Option<String>,
    approvals: Option<u8>,
    expect: Expect,
    policy: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Allow,
    Deny,
}

/// Runs a table of cases and says how many there were. An empty text has none.
pub fn check(policies: &Policies, table_toml: &str) -> Result<usize, CheckError> {
    if table_toml.len() > MAX_TABLE {
        return Err(CheckError::TooLong);
    }
    let table: Table =
        toml::from_str(table_toml).map_err(|error| CheckError::Table(error.to_string().trim_end().to_owned()))?;
    if table.case.len() > MAX_CASES {
        return Err(CheckError::TooLong);
    }
    for (number, case) in (1..).zip(&table.case) {
        let line = 1 + table_toml.bytes().take(case.span().start).filter(|byte| *byte == b'\n').count();
        match case.get_ref().run(policies) {
            Ok(()) => {}
            Err(Wrong::Case(what)) => return Err(CheckError::Case { number, line, what }),
            Err(Wrong::Decision { expected, found }) => {
                return Err(CheckError::Failed { number, line, expected, found });
            }
        }
    }
    Ok(table.case.len())
}

enum Wrong {
    Case(String),
    Decision { expected: String, found: String },
}

impl Case {
    fn run(&self, policies: &Policies) -> Result<(), Wrong> {
        let unclear = |error: crate::query::UnknownName| Wrong::Case(error.to_string());
        let role: Role = self.role.parse().map_err(unclear)?;
        let action: Action = self.action.parse().map_err(unclear)?;
        let consent = self.consent.as_deref().map_or(Ok(Consent::NotNeeded), str::parse).map_err(unclear)?;
        let tier = self.tier.as_deref().map_or(Ok(Tier::I), str::parse).map_err(unclear)?;
        let case_load = self.case_load.as_deref().map_or(Ok(CaseLoad::None), str::parse).map_err(unclear)?;
        let second_factor =
            self.second_factor.as_deref().map_or(Ok(SecondFactor::Absent), str::parse).map_err(unclear)?;
        let hour = self.hour.unwrap_or(12);
        if hour > 23 {
            return Err(Wrong::Case("hour must be 0 to 23".to_owned()));
        }
        let approvals = match self.approvals {
            None => 0,
            Some(_) if !action.is_approvable() => {
                return Err(Wrong::Case(format!("{action} is not what others can approve; leave out approvals")));
            }
            Some(approvals) if approvals > MAX_APPROVALS => {
                return Err(Wrong::Case(format!("approvals must be 0 to {MAX_APPROVALS}")));
            }
            Some(approvals) => approvals,
        };
        let tenant = self.tenant.unwrap_or(if role == Role::Operator { 0 } else { 1 });
        let principal = Principal::new(TenantNo(tenant), role, self.name.as_deref().unwrap_or("anyone"));
        let context = Context::at_hour(hour)
            .purpose(self.purpose.as_deref())
            .view(self.view.as_deref())
            .consent(consent)
            .tier(tier)
            .actor_role(self.actor_role.as_deref())
            .case_load(case_load)
            .second_factor(second_factor)
            .approvals(approvals);
        let query = Query { principal: &principal, action, resource: self.resource(action)?, context };
        let decision = policies.decide(&query);
        let by_policy = self.policy.as_ref().is_none_or(|policy| decision.policies.contains(policy));
        if by_policy && decision.allowed == matches!(self.expect, Expect::Allow) {
            return Ok(());
        }
        let expected = match self.expect {
            Expect::Allow => "allow",
            Expect::Deny => "deny",
        };
        let by = self.policy.as_ref().map(|policy| format!(" by {policy}")).unwrap_or_default();
        Err(Wrong::Decision { expected: format!("{expected}{by}"), found: policies.explain(&query).text })
    }

    fn resource(&self, action: Action) -> Result<Resource<'_>, Wrong> {
        let class = self.class.as_deref();
        if !action.is_on_field() {
            return match (&self.field, class) {
                (None, None) => Ok(Resource::Vault),
                _ => Err(Wrong::Case(format!("{action} is done to the vault; leave out field and class"))),
            };
        }
        let class = class.unwrap_or("c2");
        if !["c1", "c2", "c3"].contains(&class) {
            return Err(Wrong::Case("class must be c1, c2 or c3".to_owned()));
        }
        let (collection, name) = self
            .field
            .as_deref()
            .and_then(|field| field.split_once('.'))
            .filter(|(collection, name)| !collection.is_empty() && !name.is_empty())
            .ok_or_else(|| Wrong::Case(format!("{action} needs field = \"collection.field\"")))?;
        // Keyrings are numbered by the schema, which a table does not know; 0 is none of a field's.
        Ok(Resource::Field { name, collection, class, keyring: KeyringNo(0), number: FieldNo(0) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::policies::DEFAULT_POLICIES;

    fn default() -> Policies {
        Policies::compile(DEFAULT_POLICIES).unwrap()
    }

    fn failure(table: &str) -> String {
        check(&default(), table).unwrap_err().to_string()
    }

    #[test]
    fn a_case_says_how_many_approved() {
        let policies = Policies::compile(
            r#"@id("two") permit (principal, action == Action::"apply_policy", resource) when { context.approvals >= 1 };"#,
        )
        .unwrap();
        let case = |rest: &str| format!("[[case]]\nrole = \"officer\"\naction = \"apply_policy\"\n{rest}\n");
        let table = case("expect = \"deny\"") + &case("approvals = 1\nexpect = \"allow\"\npolicy = \"two\"");
        assert_eq!(check(&policies, &table), Ok(2));
        assert!(check(&policies, &case("approvals = 1\nexpect = \"deny\"")).is_err());
    }

    #[test]
    fn a_case_says_who_stands_behind_the_service() {
        let policies = Policies::compile(
            r#"@id("own") permit (principal, action == Action::"detokenize", resource) when {
                context.actor_role == "clerk" && context.case_load == CaseLoad::"own" && context.tier < 3 &&
                context.second_factor == SecondFactor::"fresh" };"#,
        )
        .unwrap();
        let right = r#"tier = "II"
            actor_role = "clerk"
            case_load = "own"
            second_factor = "fresh""#;
        let case = |rest: &str, expect: &str| {
            let asked = "role = \"app\"\naction = \"detokenize\"\nfield = \"borrower.name\"";
            format!("[[case]]\n{asked}\n{rest}\nexpect = \"{expect}\"\n")
        };
        assert_eq!(check(&policies, &case(right, "allow")), Ok(1));
        for (from, to) in [("II", "III"), ("clerk", "chief"), ("own", "other"), ("fresh", "absent")] {
            let other = right.replace(&format!("\"{from}\""), &format!("\"{to}\""));
            assert_eq!(check(&policies, &case(&other, "deny")), Ok(1), "{other}");
        }
        for wrong in ["tier = \"IV\"", "case_load = \"mine\"", "second_factor = \"stale\""] {
            assert!(matches!(check(&policies, &case(wrong, "deny")), Err(CheckError::Case { .. })), "{wrong}");
        }
    }

    #[test]
    fn the_default_policies_pass_their_table() {
        assert!(check(&default(), DEFAULT_TESTS).unwrap() > 80);
    }

    #[test]
    fn the_policies_with_second_factors_decide_as_their_table_says() {
        let more = include_str!("../../deploy/policies/second-factor.cedar");
        let table = include_str!("../../deploy/policies/second-factor.tests.toml");
        let with = Policies::compile(&format!("{DEFAULT_POLICIES}\n{more}")).unwrap();
        assert!(check(&with, table).unwrap() > 20);
        assert!(matches!(check(&default(), table), Err(CheckError::Failed { .. })), "they are needed for that");
    }

    #[test]
    fn the_policies_with_case_loads_decide_as_their_table_says() {
        let more = include_str!("../../deploy/policies/case-load.cedar");
        let table = include_str!("../../deploy/policies/case-load.tests.toml");
        let with = Policies::compile(&format!("{DEFAULT_POLICIES}\n{more}")).unwrap();
        assert!(check(&with, table).unwrap() > 15);
        assert!(matches!(check(&default(), table), Err(CheckError::Failed { .. })), "they are needed for that");
    }

    #[test]
    fn the_policies_of_two_persons_decide_as_their_table_says() {
        let more = include_str!("../../deploy/policies/two-persons.cedar");
        let table = include_str!("../../deploy/policies/two-persons.tests.toml");
        let with = Policies::compile(&format!("{DEFAULT_POLICIES}\n{more}")).unwrap();
        assert!(check(&with, table).unwrap() >= 10);
        assert!(matches!(check(&default(), table), Err(CheckError::Failed { .. })), "they are needed for that");
    }

    #[test]
    fn every_default_policy_is_in_the_table() {
        let ids = DEFAULT_POLICIES.lines().filter_map(|line| line.strip_prefix("@id(\"")?.strip_suffix("\")"));
        let ids: BTreeSet<_> = ids.collect();
        assert_eq!(ids.len(), 46);
        let untested: Vec<_> =
            ids.into_iter().filter(|id| !DEFAULT_TESTS.contains(&format!("policy = \"{id}\""))).collect();
        assert!(untested.is_empty(), "{untested:?}");
    }

    #[test]
    fn no_default_policy_can_be_left_out() {
        let ids = DEFAULT_POLICIES.lines().filter_map(|line| line.strip_prefix("@id(\"")?.strip_suffix("\")"));
        for id in ids {
            let at = DEFAULT_POLICIES.find(&format!("@id(\"{id}\")")).unwrap();
            let end = at + DEFAULT_POLICIES[at..].find(";\n").unwrap() + 1;
            let without = format!("{}{}", &DEFAULT_POLICIES[..at], &DEFAULT_POLICIES[end..]);
            let policies = Policies::compile(&without).unwrap();
            assert!(matches!(check(&policies, DEFAULT_TESTS), Err(CheckError::Failed { .. })), "{id}");
        }
    }

    #[test]
    fn no_case_is_no_failure() {
        assert_eq!(check(&default(), ""), Ok(0));
    }

    #[test]
    fn the_first_failing_case_is_named() {
        let table = "\
[[case]]
role = \"app\"
action = \"status\"
expect = \"allow\"

[[case]]
role = \"auditor\"
action = \"detokenize\"
field = \"borrower.id_card\"
view = \"plain\"
purpose = \"kyc_review\"
expect = \"allow\"
";
        assert_eq!(
            failure(table),
            "case 2, line 6: expected allow, but auditor/anyone detokenize borrower.id_card (class c2) in view plain \
             for kyc_review: denied, no policy permits it."
        );
    }

    #[test]
    fn the_right_answer_by_another_policy_fails() {
        let error =
            failure("case = [{ role = \"app\", action = \"status\", expect = \"allow\", policy = \"app-find\" }]");
        assert!(error.contains("expected allow by app-find, but app/anyone status: allowed"), "{error}");
    }

    #[test]
    fn a_case_that_makes_no_sense_is_an_error() {
        let value = "role = \"app\", action = \"tokenize\", expect = \"deny\"";
        let vault = "role = \"app\", action = \"status\", expect = \"deny\"";
        for (case, hint) in [
            (value.to_owned(), "needs field"),
            (format!("{value}, field = \"id_card\""), "needs field"),
            (format!("{value}, field = \".x\""), "needs field"),
            (format!("{value}, field = \"a.b\", class = \"c4\""), "class must be"),
            (format!("{value}, field = \"a.b\", consent = \"given\""), "standing"),
            (format!("{value}, field = \"a.b\", hour = 24"), "hour must be"),
            (format!("{value}, field = \"a.b\", approvals = 1"), "leave out approvals"),
            (format!("{vault}, approvals = 1"), "leave out approvals"),
            (vault.replace("status", "apply_policy") + ", approvals = 6", "approvals must be"),
            (format!("{vault}, field = \"a.b\""), "leave out"),
            (vault.replace("app", "apps"), "rotator"),
            (vault.replace("status", "read"), "detokenize"),
        ] {
            let error = failure(&format!("\n\n[[case]]\n{}", case.replace(", ", "\n")));
            assert!(error.starts_with("case 1, line 3: ") && error.contains(hint), "{case}: {error}");
        }
        for table in [
            "case = 1",
            "[[case]]\nrole = \"app\"",
            "[[cases]]\nrole = \"app\"",
            &format!("case = [{{ {vault}, colour = \"red\" }}]"),
            &format!("case = [{{ {} }}]", vault.replace("deny", "maybe")),
            &"[".repeat(100_000),
        ] {
            assert!(matches!(check(&default(), table), Err(CheckError::Table(_))), "{table:.40}");
        }
        assert_eq!(check(&default(), &" ".repeat(MAX_TABLE + 1)), Err(CheckError::TooLong));
    }

    proptest! {
        #[test]
        fn any_table_is_run_or_refused(table in "\\PC{0,200}") {
            let _ = check(&Policies::compile("").unwrap(), &table);
        }
    }
}
