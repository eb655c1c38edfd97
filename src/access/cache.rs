//! The policies in force, with the decisions they have taken already.
//!
//! Cedar takes some 150 microseconds over 200 policies; a decision that is remembered takes a fraction of one. The
//! memory is part of the state that holds the policies and goes with it, so a decision of older policies can never be
//! found: a reader that still holds the old state also writes into the old memory.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arc_swap::ArcSwap;
use quick_cache::Equivalent;
use quick_cache::sync::Cache;
use strongroom_ids::{FieldNo, KeyringNo, TenantNo};

use crate::action::Action;
use crate::policies::{Decision, Explanation, Missing, Policies};
use crate::principal::Role;
use crate::query::{CaseLoad, Consent, Context, Query, Resource, SecondFactor, Tier};

/// How many decisions are remembered.
const MAX_DECISIONS: usize = 8192;
/// Longest key, in bytes of names, that is remembered. Purpose and view come from the caller.
const MAX_NAMES: usize = 1024;

/// The policies in force.
pub struct Access {
    state: ArcSwap<State>,
}

struct State {
    policies: Arc<Policies>,
    version: u32,
    decisions: Cache<Key, Arc<Decision>>,
}

impl State {
    fn new(policies: Arc<Policies>, version: u32) -> Self {
        Self { policies, version, decisions: Cache::new(MAX_DECISIONS) }
    }
}

impl Access {
    /// Puts the first policies in force.
    pub fn new(policies: impl Into<Arc<Policies>>, version: u32) -> Self {
        Self { state: ArcSwap::from_pointee(State::new(policies.into(), version)) }
    }

    /// Replaces the policies, and forgets what the old ones decided.
    pub fn install(&self, policies: impl Into<Arc<Policies>>, version: u32) {
        self.state.store(Arc::new(State::new(policies.into(), version)));
    }

    /// The version in force.
    pub fn version(&self) -> u32 {
        self.state.load().version
    }

    /// The policies in force.
    pub fn policies(&self) -> Arc<Policies> {
        Arc::clone(&self.state.load().policies)
    }

    /// Decides as the policies in force do.
    pub fn decide(&self, query: &Query<'_>) -> Arc<Decision> {
        let state = self.state.load();
        let parts = Parts::of(query);
        if let Some(decision) = state.decisions.get(&parts) {
            return decision;
        }
        let decision = Arc::new(state.policies.decide(query));
        if parts.names() <= MAX_NAMES {
            state.decisions.insert(Key::from(&parts), Arc::clone(&decision));
        }
        decision
    }

    /// How many approvals a request needs in all: the fewest with which it would be allowed. None if it is allowed as
    /// it is, or if no number of approvals would help.
    pub fn approvals_needed(&self, query: &Query<'_>) -> Option<u8> {
        self.state.load().policies.approvals_needed(query)
    }

    /// What people could add to a request that is denied, so that it would be allowed.
    pub fn missing(&self, query: &Query<'_>) -> Option<Missing> {
        self.state.load().policies.missing(query)
    }

    /// Decides as the policies in force do, and says why in words.
    pub fn explain(&self, query: &Query<'_>) -> Explanation {
        self.state.load().policies.explain(query)
    }
}

/// All that a decision depends on, borrowed from the question: a look-up allocates nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Parts<'a> {
    tenant: TenantNo,
    principal: &'a str,
    role: Role,
    action: Action,
    resource: Resource<'a>,
    context: Context<'a>,
}

impl<'a> Parts<'a> {
    fn of(query: &Query<'a>) -> Self {
        // Taken apart without `..`, so that whoever adds to a question comes past here.
        let Query { principal, action, resource, context } = *query;
        Self { tenant: principal.tenant, principal: &principal.name, role: principal.role, action, resource, context }
    }

    /// The length of all names.
    fn names(&self) -> usize {
        let length = |name: Option<&str>| name.map_or(0, str::len);
        let Context { purpose, view, class, actor_role, .. } = self.context;
        let resource = match self.resource {
            Resource::Field { name, collection, class, keyring: _, number: _ } => {
                name.len() + collection.len() + class.len()
            }
            Resource::Vault => 0,
        };
        self.principal.len() + resource + length(purpose) + length(view) + length(class) + length(actor_role)
    }
}

/// The same, owned.
struct Key {
    tenant: TenantNo,
    principal: Box<str>,
    role: Role,
    action: Action,
    field: Option<FieldKey>,
    purpose: Option<Box<str>>,
    view: Option<Box<str>>,
    class: Option<Box<str>>,
    consent: Consent,
    hour: u8,
    tier: Tier,
    actor_role: Option<Box<str>>,
    case_load: CaseLoad,
    second_factor: SecondFactor,
    approvals: u8,
}

struct FieldKey {
    name: Box<str>,
    collection: Box<str>,
    class: Box<str>,
    keyring: KeyringNo,
    number: FieldNo,
}

impl From<&Parts<'_>> for Key {
    fn from(parts: &Parts<'_>) -> Self {
        let Parts { tenant, principal, role, action, resource, context } = *parts;
        let Context { purpose, view, class, consent, hour, tier, actor_role, case_load, second_factor, approvals } =
            context;
        let field = match resource {
            Resource::Field { name, collection, class, keyring, number } => Some(FieldKey {
                name: name.into(),
                collection: collection.into(),
                class: class.into(),
                keyring,
                number,
            }),
            Resource::Vault => None,
        };
        Self {
            tenant,
            principal: principal.into(),
            role,
            action,
            field,
            purpose: purpose.map(Into::into),
            view: view.map(Into::into),
            class: class.map(Into::into),
            consent,
            hour,
            tier,
            actor_role: actor_role.map(Into::into),
            case_load,
            second_factor,
            approvals,
        }
    }
}

impl Key {
    fn parts(&self) -> Parts<'_> {
        let resource = match &self.field {
            Some(FieldKey { name, collection, class, keyring, number }) => {
                Resource::Field { name, collection, class, keyring: *keyring, number: *number }
            }
            None => Resource::Vault,
        };
        Parts {
            tenant: self.tenant,
            principal: &self.principal,
            role: self.role,
            action: self.action,
            resource,
            context: Context {
                purpose: self.purpose.as_deref(),
                view: self.view.as_deref(),
                class: self.class.as_deref(),
                consent: self.consent,
                hour: self.hour,
                tier: self.tier,
                actor_role: self.actor_role.as_deref(),
                case_load: self.case_load,
                second_factor: self.second_factor,
                approvals: self.approvals,
            },
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl Equivalent<Key> for Parts<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.parts()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policies::DEFAULT_POLICIES;
    use crate::principal::Principal;

    const NOBODY: &str = "";
    const EVERYBODY: &str = r#"@id("everybody") permit (principal, action, resource);"#;

    fn access(source: &str) -> Access {
        Access::new(Policies::compile(source).unwrap(), 1)
    }

    fn status(principal: &Principal) -> Query<'_> {
        Query { principal, action: Action::Status, resource: Resource::Vault, context: Context::new(0) }
    }

    #[test]
    fn the_same_question_is_decided_once() {
        let access = access(EVERYBODY);
        let principal = Principal::new(TenantNo(1), Role::App, "x");
        let first = access.decide(&status(&principal));
        // Another object with the same content is the same question.
        let again = access.decide(&status(&Principal::new(TenantNo(1), Role::App, "x")));
        assert!(Arc::ptr_eq(&first, &again));
        for other in [
            Principal::new(TenantNo(2), Role::App, "x"),
            Principal::new(TenantNo(1), Role::App, "y"),
            Principal::new(TenantNo(1), Role::Auditor, "x"),
        ] {
            assert!(!Arc::ptr_eq(&first, &access.decide(&status(&other))));
        }
    }

    #[test]
    fn new_policies_forget_what_the_old_ones_decided() {
        let access = access(EVERYBODY);
        let principal = Principal::new(TenantNo(1), Role::App, "x");
        assert!(access.decide(&status(&principal)).allowed);
        access.install(Policies::compile(NOBODY).unwrap(), 2);
        assert_eq!(access.version(), 2);
        assert!(!access.decide(&status(&principal)).allowed);
        assert!(!access.explain(&status(&principal)).allowed);
        assert!(!access.policies().decide(&status(&principal)).allowed);
    }

    #[test]
    fn a_decision_of_old_policies_that_comes_late_is_not_found() {
        let access = access(EVERYBODY);
        let principal = Principal::new(TenantNo(1), Role::App, "x");
        let query = status(&principal);
        // A reader that was on its way when the policies changed.
        let old = access.state.load_full();
        access.install(Policies::compile(NOBODY).unwrap(), 2);
        old.decisions.insert(Key::from(&Parts::of(&query)), Arc::new(old.policies.decide(&query)));
        assert!(!access.decide(&query).allowed);
    }

    #[test]
    fn the_memory_is_bounded() {
        let access = access(EVERYBODY);
        let principal = Principal::new(TenantNo(1), Role::App, "x");
        let ask = |purpose: &str| {
            let context = Context::new(0).purpose(Some(purpose));
            access.decide(&Query { context, ..status(&principal) });
        };
        ask(&"long".repeat(MAX_NAMES));
        assert_eq!(access.state.load().decisions.len(), 0);
        let state = access.state.load();
        let decision = Arc::new(state.policies.decide(&status(&principal)));
        for purpose in 0..2 * MAX_DECISIONS {
            let purpose = purpose.to_string();
            let context = Context::new(0).purpose(Some(&purpose));
            let query = Query { context, ..status(&principal) };
            state.decisions.insert(Key::from(&Parts::of(&query)), Arc::clone(&decision));
        }
        assert!(state.decisions.len() <= MAX_DECISIONS + 64, "{}", state.decisions.len());
    }

    /// Owned parts of a question, few enough of each that questions repeat.
    type Question =
        (u32, usize, &'static str, usize, &'static str, &'static str, &'static str, (u8, usize, u64, u8), Who);

    /// The circumstances of the person: tier, role, case load and second factor, by their places in the lists.
    type Who = (usize, &'static str, usize, usize);

    fn with_who<'a>(context: Context<'a>, who: &Who) -> Context<'a> {
        let (tier, role, load, factor) = *who;
        let context = context.tier(Tier::ALL[tier]).case_load(CaseLoad::ALL[load]);
        context.second_factor(SecondFactor::ALL[factor]).actor_role(Some(role))
    }

    fn question() -> impl Strategy<Value = Question> {
        (
            0_u32..2,
            0..Role::ALL.len(),
            prop::sample::select(&["x", "migration"][..]),
            0..Action::ALL.len(),
            prop::sample::select(&["c1", "c2", "c3", "c9"][..]),
            prop::sample::select(&["", "kyc_review", "marketing"][..]),
            prop::sample::select(&["", "masked", "plain"][..]),
            (0_u8..3, 0_usize..3, 0_u64..3, 0_u8..3),
            (0_usize..3, prop::sample::select(&["", "clerk", "auditor"][..]), 0_usize..3, 0_usize..3),
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn with_the_memory_and_without_it_the_decision_is_the_same(
            questions in proptest::collection::vec(question(), 1..100),
        ) {
            // Every part of a question decides something, so that a part forgotten in the key would show.
            let source = format!(r#"{DEFAULT_POLICIES}
                @id("hour") forbid (principal, action, resource) when {{ context.hour == 2 }};
                @id("keyring") permit (principal, action == Action::"replace", resource) when {{ resource.keyring == 2 }};
                @id("name") permit (principal, action in Action::"write", resource == Field::"company.uscc");
                @id("approvals") forbid (principal, action == Action::"status", resource)
                  when {{ context.approvals == 2 }};
                @id("tier") forbid (principal, action in Action::"read", resource) when {{ context.tier == 3 }};
                @id("clerk") permit (principal, action == Action::"detokenize", resource)
                  when {{ context.actor_role == "clerk" && context.case_load != CaseLoad::"other" }};
                @id("factor") permit (principal, action == Action::"get_policy", resource)
                  when {{ context.second_factor == SecondFactor::"bound" }};
                @id("own") permit (principal, action == Action::"delete", resource)
                  when {{ context.case_load == CaseLoad::"own" && context.second_factor != SecondFactor::"absent" }};
                @id("zero") permit (principal in Role::"rotator", action, resource) when {{ principal.tenant == 0 }};
            "#);
            let access = access(&source);
            let policies = access.policies();
            // Twice, so that all are asked with the memory full.
            for question in questions.iter().chain(&questions) {
                let (tenant, role, name, action, class, purpose, view, (consent, field, hour, approvals), who) = *question;
                let principal = Principal::new(TenantNo(tenant), Role::ALL[role], name);
                let action = Action::ALL[action];
                let (collection, name, keyring) = [("borrower", "id_card", 1), ("borrower", "id_card", 2), ("company", "uscc", 1)][field];
                let resource = match action.is_on_field() {
                    true => Resource::Field { name, collection, class, keyring: KeyringNo(keyring), number: FieldNo(1) },
                    false => Resource::Vault,
                };
                let consent = [Consent::NotNeeded, Consent::Standing, Consent::Absent][usize::from(consent)];
                let context = Context::new(hour * 3_600_000_000)
                    .purpose(Some(purpose))
                    .view(Some(view))
                    .consent(consent)
                    .approvals(approvals);
                let context = with_who(context, &who);
                let query = Query { principal: &principal, action, resource, context };
                prop_assert_eq!(&*access.decide(&query), &policies.decide(&query), "{}", query);
            }
        }

        #[test]
        fn a_key_equals_the_question_it_was_made_of(a in question(), b in question()) {
            fn parts<T>(question: &Question, look: impl FnOnce(Parts<'_>) -> T) -> T {
                let (tenant, role, name, action, class, purpose, view, (_, field, hour, approvals), who) = *question;
                let principal = Principal::new(TenantNo(tenant), Role::ALL[role], name);
                let resource = match field {
                    0 => Resource::Vault,
                    _ => Resource::Field { name, collection: view, class, keyring: KeyringNo(1), number: FieldNo(1) },
                };
                let context = Context::new(hour * 3_600_000_000).purpose(Some(purpose));
                let context = with_who(context.class(class).approvals(approvals), &who);
                look(Parts::of(&Query { principal: &principal, action: Action::ALL[action], resource, context }))
            }
            parts(&a, |left| {
                assert!(left.equivalent(&Key::from(&left)));
                parts(&b, |right| assert_eq!(left == right, left.equivalent(&Key::from(&right))));
            });
        }
    }

    /// Not a test of speed, which depends on the machine: prints what one look-up takes, for those who ask.
    #[test]
    #[ignore = "prints a measurement"]
    fn how_long_a_remembered_decision_takes() {
        let access = access(DEFAULT_POLICIES);
        let principal = Principal::new(TenantNo(1), Role::App, "loan-core");
        let resource = Resource::Field {
            name: "id_card",
            collection: "borrower",
            class: "c2",
            keyring: KeyringNo(1),
            number: FieldNo(2),
        };
        let context = Context::new(0).purpose(Some("kyc_review")).view(Some("plain")).class("c2");
        let query = Query { principal: &principal, action: Action::Detokenize, resource, context };
        let policies = access.policies();
        let started = std::time::Instant::now();
        (0..1000).for_each(|_| drop(std::hint::black_box(policies.decide(&query))));
        println!("decided: {:?}", started.elapsed() / 1000);
        let started = std::time::Instant::now();
        (0..1_000_000).for_each(|_| drop(std::hint::black_box(access.decide(&query))));
        println!("remembered: {:?}", started.elapsed() / 1_000_000);
    }
}
