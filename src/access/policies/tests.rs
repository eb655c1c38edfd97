//! What policies may say, and what they decide.

use strongroom_ids::{FieldNo, KeyringNo, TenantNo};

use super::*;
use crate::action::Action;
use crate::principal::{Principal, Role};
use crate::query::{Context, Resource};

const FIELD: Resource<'_> =
    Resource::Field { name: "id_card", collection: "borrower", class: "c2", keyring: KeyringNo(1), number: FieldNo(2) };

fn decided(source: &str, action: Action, resource: Resource<'_>, context: Context<'_>) -> Decision {
    let principal = Principal::new(TenantNo(1), Role::App, "loan-core");
    Policies::compile(source).unwrap().decide(&Query { principal: &principal, action, resource, context })
}

fn refused(source: &str) -> String {
    Policies::compile(source).unwrap_err().to_string()
}

#[test]
fn the_default_policies_compile() {
    let policies = Policies::compile(DEFAULT_POLICIES).unwrap();
    for policy in policies.set.policies() {
        assert!(policy.annotation("why").is_some_and(|why| why.ends_with('.')), "{}", policy.id());
    }
}

#[test]
fn without_policies_everything_is_denied() {
    let decision = decided("", Action::Tokenize, FIELD, Context::new(0));
    assert_eq!(decision.reason, "no policy permits it");
    assert!(!decision.allowed && decision.policies.is_empty());
    assert!(!decided("// nothing yet", Action::Status, Resource::Vault, Context::new(0)).allowed);
}

#[test]
fn no_policy_permits_a_read_without_the_consent_that_it_needs() {
    let all = "@id(\"all\") permit (principal, action, resource);";
    for consent in [Consent::NotNeeded, Consent::Standing, Consent::Absent] {
        let context = Context::new(0).purpose(Some("marketing")).consent(consent);
        for action in [Action::Detokenize, Action::Match, Action::Lookup] {
            let decision = decided(all, action, FIELD, context);
            assert_eq!(decision.allowed, consent != Consent::Absent, "{action} {consent:?}");
            assert!(decision.allowed || decision.reason.contains("consent"), "{}", decision.reason);
        }
        // Storing and deleting need none.
        assert!(decided(all, Action::Tokenize, FIELD, context).allowed);
        assert!(decided(all, Action::Delete, FIELD, context).allowed);
    }
}

#[test]
fn a_forbid_wins_over_a_permit() {
    let source = r#"
        @id("all") permit (principal, action, resource);
        @id("no-delete") forbid (principal, action == Action::"delete", resource);
    "#;
    let decision = decided(source, Action::Delete, FIELD, Context::new(0));
    assert_eq!((decision.allowed, decision.policies), (false, vec!["no-delete".to_owned()]));
    let decision = decided(source, Action::Replace, FIELD, Context::new(0));
    assert_eq!((decision.allowed, decision.policies), (true, vec!["all".to_owned()]));
}

#[test]
fn collections_fields_roles_and_names_can_be_named() {
    for scope in [
        r#"principal in Role::"app", action in Action::"write", resource in Collection::"borrower""#,
        r#"principal == Principal::"app/loan-core", action, resource == Field::"borrower.id_card""#,
    ] {
        let source = format!("@id(\"x\") permit ({scope});");
        assert!(decided(&source, Action::Tokenize, FIELD, Context::new(0)).allowed, "{scope}");
    }
    for scope in [
        r#"principal in Role::"privacy", action, resource"#,
        r#"principal, action, resource in Collection::"company""#,
        r#"principal == Principal::"app/loan", action, resource"#,
        r#"principal, action in Action::"read", resource"#,
    ] {
        let source = format!("@id(\"x\") permit ({scope});");
        assert!(!decided(&source, Action::Tokenize, FIELD, Context::new(0)).allowed, "{scope}");
    }
}

#[test]
fn a_policy_that_cannot_be_evaluated_denies() {
    // Adding one to the greatest integer overflows, which no validator foresees.
    let source = r#"
        @id("all") permit (principal, action, resource);
        @id("broken") forbid (principal, action, resource) when { context.hour + 9223372036854775807 < 0 };
    "#;
    let decision = decided(source, Action::Tokenize, FIELD, Context::new(0));
    assert!(decision.allowed);
    let decision = decided(source, Action::Tokenize, FIELD, Context::new(3_600_000_000));
    assert_eq!((decision.allowed, decision.policies), (false, vec!["broken".to_owned()]));
    assert_eq!(decision.reason, "could not be evaluated: broken");
}

#[test]
fn a_question_that_makes_no_sense_is_denied() {
    let all = r#"@id("all") permit (principal, action, resource);"#;
    assert!(!decided(all, Action::Tokenize, Resource::Vault, Context::new(0)).allowed);
    assert!(!decided(all, Action::Status, FIELD, Context::new(0)).allowed);
    assert!(!decided(all, Action::Tokenize, FIELD, Context::new(0).class("c4")).allowed);
}

#[test]
fn what_the_schema_does_not_know_is_refused() {
    for (condition, hint) in [
        ("context.colour == \"red\"", "colour"),
        ("resource.owner == \"x\"", "owner"),
        ("principal.role == \"app\"", "role"),
        ("principal in Role::\"apps\"", "apps"),
        ("principal in Group::\"x\"", "Group"),
        ("resource.class == Class::\"c4\"", "c4"),
        ("resource.class == \"c3\"", ""),
        ("context.consent == Consent::\"abscent\"", "abscent"),
        ("context.purpose == \"x\"", "purpose"),
        ("context.view == \"x\"", "view"),
        ("context.hour == \"9\"", ""),
        ("context.hour", ""),
    ] {
        let source = format!(
            "@id(\"ok\") permit (principal, action, resource);\n\n// about\n@id(\"bad\")\n\
             forbid (principal, action == Action::\"detokenize\", resource)\nwhen {{\n  {condition}\n}};"
        );
        let error = refused(&source);
        assert!(error.contains("policy \"bad\"") && error.contains(hint), "{condition}: {error}");
        assert!(error.starts_with("line 7: "), "{condition}: {error}");
    }
    assert!(refused("@id(\"x\") permit (principal, action == Action::\"steal\", resource);").contains("steal"));
}

#[test]
fn a_policy_that_can_never_apply_is_refused() {
    let error = refused("@id(\"x\")\nforbid (principal, action == Action::\"status\", resource is Field);");
    assert!(error.starts_with("line "), "{error}");
    refused("@id(\"x\") forbid (principal, action, resource) when { false };");
}

#[test]
fn look_alike_letters_are_refused() {
    // The first letter of the purpose is Cyrillic.
    let source = "@id(\"x\") forbid (principal, action in Action::\"read\", resource)\n\
                  when { context has purpose && context.purpose == \"мarketing\" };";
    assert!(refused(source).starts_with("line 2: policy \"x\""), "{}", refused(source));
}

#[test]
fn chinese_comments_reasons_and_purposes_are_welcome() {
    let source = "// 营销\n@id(\"x\") @why(\"营销 needs 同意\") permit (principal, action in Action::\"read\", resource)\n\
                  when { context has purpose && context.purpose == \"营销\" };";
    let context = Context::new(0).purpose(Some("营销"));
    assert!(decided(source, Action::Match, FIELD, context).allowed);
}

#[test]
fn errors_name_the_line() {
    let ok = "@id(\"one\")\npermit (principal, action, resource);\n";
    for (more, expected) in [
        ("permit (principal, action, resource);", "line 3: the policy needs a name"),
        ("// x\n\n@id(\"\") permit (principal, action, resource);", "line 5: the policy needs a name"),
        ("@id(\"a b\") permit (principal, action, resource);", "line 3: the policy needs a name"),
        (
            "@id(\"one\") permit (principal, action, resource);",
            "line 3: the @id \"one\" is already that of the policy in line 1",
        ),
        ("@id(\"two\")\npermit (principal, action);", "line 4: "),
        ("@id(\"two\")\npermit (principal, action, resource)", "line 3: the policy is not finished"),
        ("@id(\"two\") permit (principal == ?principal, action, resource);", "line 3: "),
        ("@id(\"two\") permit (principal, action, resource)\nwhen { \"open };", "line 3: the policy is not finished"),
        ("nonsense;", "line 3: "),
        (";", "line 3: "),
    ] {
        let error = refused(&format!("{ok}{more}"));
        assert!(error.starts_with(expected), "{more:?}: {error}");
    }
}

#[test]
fn an_explanation_says_why() {
    let policies = Policies::compile(DEFAULT_POLICIES).unwrap();
    let principal = Principal::new(TenantNo(1), Role::App, "loan-core");
    let context = Context::new(0).purpose(Some("kyc_review")).view(Some("plain"));
    let query = Query { principal: &principal, action: Action::Detokenize, resource: FIELD, context };
    let explanation = policies.explain(&query);
    assert_eq!(
        explanation.text,
        "app/loan-core detokenize borrower.id_card (class c2) in view plain for kyc_review: allowed, \
         permitted by app-plain-view.\n\
         app-plain-view: Services see whole values for the purposes of lending."
    );
    assert_eq!(explanation.policies, ["app-plain-view"]);
}

/// Expressions of so many steps, nested as deeply as those can be, with a certain one at the deepest place.
fn chains(steps: usize, deepest: &str) -> Vec<String> {
    let around =
        |before: &str, after: &str, count: usize| format!("{}{deepest}{}", before.repeat(count), after.repeat(count));
    vec![
        around("", "||1<2", steps),
        around("", "&&1<2", steps),
        around("1<2||", "", steps),
        format!("{}<1", around("", "+1", steps)),
        format!("{}<1", around("1*", "", steps)),
        around("", ".a", steps),
        around("", "[\"a\"]", steps),
        around("if 1<2 then 1<2 else ", "", steps.div_ceil(4)),
        around("if ", " then 1<2 else 1<2", steps.div_ceil(4)),
    ]
}

fn compile_on_a_small_stack(expression: &str) -> Result<(), PolicyError> {
    let source = format!("@id(\"x\")permit(principal,action,resource)when{{{expression}}};");
    let small = std::thread::Builder::new().stack_size(1 << 20);
    small.spawn(move || Policies::compile(&source).map(drop)).unwrap().join().unwrap()
}

#[test]
fn the_validator_reaches_the_deepest_place_that_the_limits_allow() {
    // Brackets of the scope and of the conditions, and the dot of the wrong name, are steps as well: four spared.
    for expression in chains(MAX_STEPS - 4, "context.nope") {
        let outcome = compile_on_a_small_stack(&expression);
        assert!(matches!(outcome, Err(PolicyError::Invalid { .. })), "{expression:.40}: {outcome:?}");
    }
}

#[test]
fn deeper_policies_are_refused_before_they_are_parsed() {
    for steps in [MAX_STEPS, 1500] {
        for expression in chains(steps, "context.hour") {
            let outcome = compile_on_a_small_stack(&expression);
            let refused = matches!(outcome, Err(PolicyError::TooComplex { .. } | PolicyError::PolicyTooLong { .. }));
            assert!(refused, "{expression:.40}: {outcome:?}");
        }
    }
}

#[test]
fn brackets_as_deep_as_allowed_are_read() {
    let depth = MAX_DEPTH - 1;
    let expression = format!("{}context.hour < 1{}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(compile_on_a_small_stack(&expression), Ok(()));
    let expression = format!("{}context.nope < 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(matches!(compile_on_a_small_stack(&expression), Err(PolicyError::Invalid { .. })));
    let expression = format!("{}1{} == [1]", "[".repeat(depth), "]".repeat(depth));
    assert!(matches!(compile_on_a_small_stack(&expression), Err(PolicyError::Invalid { .. })));
}

#[test]
fn a_request_needs_the_fewest_approvals_with_which_it_is_allowed() {
    let policies = Policies::compile(
        r#"
        @id("two") permit (principal, action == Action::"destroy_key_version", resource) when { context.approvals >= 2 };
        @id("free") permit (principal, action == Action::"status", resource);
        @id("six") permit (principal, action == Action::"apply_schema", resource) when { context.approvals >= 6 };
        @id("deaf") permit (principal, action == Action::"set_key_state", resource) when { context.approvals >= 1 };
        @id("never") forbid (principal, action == Action::"apply_policy", resource);
        @id("one") permit (principal, action == Action::"apply_policy", resource) when { context.approvals >= 1 };
        "#,
    )
    .unwrap();
    let principal = Principal::new(TenantNo(1), Role::Officer, "x");
    let ask = |action, approvals| {
        let context = Context::new(0).approvals(approvals);
        let query = Query { principal: &principal, action, resource: Resource::Vault, context };
        (policies.decide(&query).allowed, policies.approvals_needed(&query), policies.explain(&query).text)
    };
    for (approvals, more) in [(0, "allowed with 2 more approvals."), (1, "allowed with 1 more approval.")] {
        let (allowed, need, text) = ask(Action::DestroyKeyVersion, approvals);
        assert_eq!((allowed, need), (false, Some(2)));
        assert!(text.ends_with(more), "{text}");
    }
    for (action, approvals, allowed) in [
        (Action::DestroyKeyVersion, 2, true),
        (Action::Status, 0, true),
        (Action::ApplySchema, u8::MAX, false),
        (Action::ApplyPolicy, 0, false),
        (Action::RotateKey, 0, false),
        // Nobody could approve it: no such request waits.
        (Action::SetKeyState, 0, false),
    ] {
        let (is_allowed, need, text) = ask(action, approvals);
        assert_eq!((is_allowed, need), (allowed, None), "{action}");
        assert!(!text.contains("It would be"), "{text}");
    }
}

#[test]
fn an_explanation_says_which_second_factor_would_do() {
    let policies = Policies::compile(
        r#"
        @id("all") permit (principal, action, resource);
        @id("fresh") forbid (principal, action == Action::"unfreeze", resource)
        unless { context.second_factor != SecondFactor::"absent" };
        @id("bound") forbid (principal, action == Action::"apply_policy", resource)
        unless { context.second_factor == SecondFactor::"bound" };
        @id("two") forbid (principal, action in [Action::"apply_policy", Action::"destroy_key_version"], resource)
        unless { context.approvals >= 1 };
        @id("never") forbid (principal, action == Action::"seal", resource);
        "#,
    )
    .unwrap();
    let officer = Principal::new(TenantNo(1), Role::Officer, "alice");
    let asked = |action, factor| {
        let query = Query::on_vault_in(&officer, action, Context::new(0).second_factor(factor));
        (policies.missing(&query), policies.explain(&query).text)
    };
    let (fresh, bound) = (Some(SecondFactor::Fresh), Some(SecondFactor::Bound));
    for (action, shown, missing, words) in [
        (Action::Unfreeze, SecondFactor::Absent, (fresh, 0), "a fresh second factor"),
        (
            Action::ApplyPolicy,
            SecondFactor::Absent,
            (bound, 1),
            "a second factor for this very request and 1 more approval",
        ),
        (
            Action::ApplyPolicy,
            SecondFactor::Fresh,
            (bound, 1),
            "a second factor for this very request and 1 more approval",
        ),
        (Action::ApplyPolicy, SecondFactor::Bound, (None, 1), "1 more approval"),
        (Action::DestroyKeyVersion, SecondFactor::Absent, (None, 1), "1 more approval"),
    ] {
        let (second_factor, approvals) = missing;
        let (found, text) = asked(action, shown);
        assert_eq!(found, Some(Missing { second_factor, approvals }), "{action}");
        assert!(text.ends_with(&format!("It would be allowed with {words}.")), "{text}");
    }
    for (action, factor) in [
        (Action::Unfreeze, SecondFactor::Fresh),
        (Action::Seal, SecondFactor::Absent),
        (Action::Status, SecondFactor::Absent),
    ] {
        let (found, text) = asked(action, factor);
        assert!(found.is_none() && !text.contains("It would be"), "{action}");
    }
}
