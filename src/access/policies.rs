//! A set of policies, compiled and validated, and what it decides.

use std::collections::BTreeMap;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{
    AuthorizationError, Authorizer, Decision as CedarDecision, Policy, PolicyId, PolicySet, ValidationMode, Validator,
};

use crate::query::Query;
use crate::request::{NotAQuestion, Terms};
use crate::source::{self, MAX_DEPTH, MAX_POLICIES, MAX_POLICY, MAX_SOURCE, MAX_STEPS, Piece};

/// The policies that a new tenant starts with.
pub const DEFAULT_POLICIES: &str = include_str!("../../deploy/policies/default.cedar");

/// Longest `@id` in bytes.
const MAX_ID: usize = 64;

/// Why policies do not come into force.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PolicyError {
    /// The text is too long.
    #[error("the policies have {bytes} bytes; they may have {MAX_SOURCE}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// There are too many policies.
    #[error("line {line}: this is one policy too many; there may be {MAX_POLICIES}")]
    TooMany {
        /// Of the first that is too many.
        line: usize,
    },
    /// A policy is too long.
    #[error("line {line}: the policy is too long; it may have {MAX_POLICY} bytes with its comments")]
    PolicyTooLong {
        /// Where it begins.
        line: usize,
    },
    /// Brackets are nested too deeply.
    #[error("line {line}: brackets are nested more than {MAX_DEPTH} deep; split the policy")]
    TooDeep {
        /// Of the bracket.
        line: usize,
    },
    /// A policy has too many operators.
    #[error(
        "line {line}: the policy has more than {MAX_STEPS} operators and brackets; split it, or name many things at \
         once: [\"a\", \"b\"].contains(...)"
    )]
    TooComplex {
        /// Of the first that is too many.
        line: usize,
    },
    /// The text holds a character that hides what it says.
    #[error("line {line}: there is an invisible character that changes the direction of text; remove it")]
    Direction {
        /// Of the character.
        line: usize,
    },
    /// Cedar cannot read it.
    #[error("line {line}: {what}")]
    Syntax {
        /// Where.
        line: usize,
        /// In Cedar's words.
        what: String,
    },
    /// A policy has no usable name.
    #[error("line {line}: the policy needs a name of A-Z a-z 0-9 . - _, up to 64 long: @id(\"what-it-does\")")]
    Id {
        /// Of the policy.
        line: usize,
    },
    /// Two policies have the same name.
    #[error("line {line}: the @id \"{id}\" is already that of the policy in line {first}; names must be unique")]
    SameId {
        /// Of the second.
        line: usize,
        /// Of the first.
        first: usize,
        /// The name.
        id: String,
    },
    /// It reads, but does not fit the schema or can never apply.
    #[error("line {line}: policy \"{id}\": {what}")]
    Invalid {
        /// Where.
        line: usize,
        /// The policy.
        id: String,
        /// In Cedar's words.
        what: String,
    },
    /// The shipped Cedar schema is damaged.
    #[error("the shipped Cedar schema does not read, which is a defect of this build: {0}")]
    Schema(String),
}

/// What policies say to one question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// The names of the policies that decided, sorted; none if no policy applied.
    pub policies: Vec<String>,
    /// Why, in a few words, for logs.
    pub reason: String,
}

/// A decision in words, for those who write policies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// Whether it may be done.
    pub allowed: bool,
    /// The names of the policies that decided, sorted; none if no policy applied.
    pub policies: Vec<String>,
    /// The question, the answer, and what each policy says of itself (its `@why`).
    pub text: String,
}

/// A compiled set of policies.
#[derive(Debug)]
pub struct Policies {
    set: PolicySet,
    terms: Terms,
    authorizer: Authorizer,
    source: String,
}

impl Policies {
    /// Compiles policies: each must read as Cedar, have a unique `@id`, and pass the strict validator without so much
    /// as a warning. What the validator warns of (a policy that can never apply, look-alike letters) is a mistake in
    /// a permit and a hole in a forbid.
    pub fn compile(source: &str) -> Result<Self, PolicyError> {
        let (pieces, rest) = source::split(source)?;
        let mut set = PolicySet::new();
        let mut known: BTreeMap<String, Piece<'_>> = BTreeMap::new();
        for piece in pieces {
            let (id, policy) = one(&piece)?;
            let line = piece.first_line();
            if let Some(first) = known.insert(id.clone(), piece) {
                return Err(PolicyError::SameId { line, first: first.first_line(), id });
            }
            set.add(policy).map_err(|error| PolicyError::Syntax { line, what: error.to_string() })?;
        }
        nothing_more(&rest)?;
        let terms = Terms::new().map_err(PolicyError::Schema)?;
        validate(&set, &terms, &known)?;
        Ok(Self { set, terms, authorizer: Authorizer::new(), source: source.to_owned() })
    }

    /// The text that was compiled.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Decides. A forbid wins over every permit; without a permit it is denied; if any policy that applies cannot be
    /// evaluated, it is denied as well, since that one could have been the forbid.
    pub fn decide(&self, query: &Query<'_>) -> Decision {
        let Ok((request, entities)) = self.terms.request(query) else {
            return NotAQuestion::decision();
        };
        let response = self.authorizer.is_authorized(&request, &self.set, &entities);
        let sorted = |ids: &mut dyn Iterator<Item = &PolicyId>| {
            let mut ids: Vec<String> = ids.map(PolicyId::to_string).collect();
            ids.sort_unstable();
            ids
        };
        let failed = sorted(&mut response.diagnostics().errors().map(|error| match error {
            AuthorizationError::PolicyEvaluationError(error) => error.policy_id(),
        }));
        if !failed.is_empty() {
            let reason = format!("could not be evaluated: {}", failed.join(", "));
            return Decision { allowed: false, policies: failed, reason };
        }
        let policies = sorted(&mut response.diagnostics().reason());
        let allowed = response.decision() == CedarDecision::Allow;
        let reason = match (allowed, policies.is_empty()) {
            (true, _) => format!("permitted by {}", policies.join(", ")),
            (false, false) => format!("forbidden by {}", policies.join(", ")),
            (false, true) => "no policy permits it".to_owned(),
        };
        Decision { allowed, policies, reason }
    }

    /// Decides and says why in words.
    pub fn explain(&self, query: &Query<'_>) -> Explanation {
        let Decision { allowed, policies, reason } = self.decide(query);
        let verdict = if allowed { "allowed" } else { "denied" };
        let mut text = format!("{query}: {verdict}, {reason}.");
        for id in &policies {
            if let Some(why) = self.set.annotation(&PolicyId::new(id), "why") {
                text.push_str(&format!("\n{id}: {why}"));
            }
        }
        Explanation { allowed, policies, text }
    }
}

impl NotAQuestion {
    fn decision() -> Decision {
        let reason = "the action cannot be done to this, or its class is unknown".to_owned();
        Decision { allowed: false, policies: vec![], reason }
    }
}

/// Reads one policy and gives it its name.
fn one(piece: &Piece<'_>) -> Result<(String, Policy), PolicyError> {
    let policy = Policy::parse(None, piece.text).map_err(|errors| {
        let first = errors.iter().next().map(DetailedError::from).unwrap_or_default();
        PolicyError::Syntax { line: line_of(&first, piece), what: words(&first) }
    })?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let id = policy
        .annotation("id")
        .filter(|id| !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(allowed))
        .ok_or(PolicyError::Id { line: piece.first_line() })?
        .to_owned();
    let policy = policy.new_id(PolicyId::new(&id));
    Ok((id, policy))
}

/// After the last semicolon only comments may follow.
fn nothing_more(rest: &Piece<'_>) -> Result<(), PolicyError> {
    let unfinished = PolicyError::Syntax {
        line: rest.first_line(),
        what: "the policy is not finished; it must end with a semicolon".to_owned(),
    };
    match rest.text.parse::<PolicySet>() {
        Ok(set) if set.is_empty() => Ok(()),
        _ => Err(unfinished),
    }
}

fn validate(set: &PolicySet, terms: &Terms, known: &BTreeMap<String, Piece<'_>>) -> Result<(), PolicyError> {
    let result = Validator::new(terms.schema.clone()).validate(set, ValidationMode::Strict);
    let found = |id: &PolicyId, error: DetailedError| {
        let id = id.to_string();
        let line = known.get(&id).map_or(1, |piece| line_of(&error, piece));
        (line, id, words(&error))
    };
    let errors = result.validation_errors().map(|error| found(error.policy_id(), error.into()));
    let warnings = result.validation_warnings().map(|warning| found(warning.policy_id(), warning.into()));
    // The first in the text, so that the same text always gets the same answer. Warnings follow from errors.
    match errors.min().or_else(|| warnings.min()) {
        None => Ok(()),
        Some((line, id, what)) => Err(PolicyError::Invalid { line, id, what }),
    }
}

/// The line that an error is about; that of the policy if the error does not say.
fn line_of(error: &DetailedError, piece: &Piece<'_>) -> usize {
    error.source_locations.first().map_or(piece.first_line(), |label| piece.line_at(label.loc.start))
}

fn words(error: &DetailedError) -> String {
    let labels = error.source_locations.iter().find_map(|label| label.label.as_deref());
    let more = error.help.as_deref().or(labels).map(|help| format!(" ({help})")).unwrap_or_default();
    format!("{}{more}", error.message)
}

#[cfg(test)]
mod tests {
    use strongroom_ids::{FieldNo, KeyringNo, TenantNo};

    use super::*;
    use crate::principal::{Principal, Role};
    use crate::query::{Action, Context, Resource};

    const FIELD: Resource<'_> = Resource::Field {
        name: "id_card",
        collection: "borrower",
        class: "c2",
        keyring: KeyringNo(1),
        number: FieldNo(2),
    };

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
        assert_eq!(policies.source(), DEFAULT_POLICIES);
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
            (
                "@id(\"two\") permit (principal, action, resource)\nwhen { \"open };",
                "line 3: the policy is not finished",
            ),
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

    /// Expressions that nest as deeply as the limits allow, with a name that does not exist at one place.
    fn chains(steps: usize, wrong: &str) -> Vec<String> {
        let around = |before: &str, after: &str| format!("{}{wrong}{}", before.repeat(steps), after.repeat(steps));
        vec![
            around("", "||1<2"),
            around("", "&&1<2"),
            around("1<2||", ""),
            format!("{}<1", around("", "+1")),
            format!("{}<1", around("1*", "")),
            around("", ".a"),
            around("", "[\"a\"]"),
            around("if 1<2 then 1<2 else ", ""),
            around("if ", " then 1<2 else 1<2"),
        ]
    }

    fn compile_on_a_small_stack(expression: &str) -> Result<(), PolicyError> {
        let source = format!("@id(\"x\")permit(principal,action,resource)when{{{expression}}};");
        let small = std::thread::Builder::new().stack_size(1 << 20);
        small.spawn(move || Policies::compile(&source).map(drop)).unwrap().join().unwrap()
    }

    #[test]
    fn the_validator_reaches_the_deepest_place_that_the_limits_allow() {
        // Brackets of the scope and of the conditions, and the dot of the wrong name, are steps as well.
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
                let refused =
                    matches!(outcome, Err(PolicyError::TooComplex { .. } | PolicyError::PolicyTooLong { .. }));
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
}
