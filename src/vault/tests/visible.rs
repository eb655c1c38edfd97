//! No sequence of calls by services, desks, auditors and jobs makes a value visible that policy denies: random calls of two
//! tenants under policies that change between them, each answer held against a model that knows no Cedar.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tenants::{NUMBER, SAVINGS, make, of};
use super::*;
use crate::{ConsentScope, GrantConsent, WithdrawConsent};

/// Fields, and the purposes that the lending schema lists for them.
const FIELDS: [(&str, &[&str]); 4] = [
    ("borrower.name", &["loan_origination", "loan_servicing", "kyc_review", "collections", "marketing"]),
    ("borrower.mobile", &["loan_origination", "loan_servicing", "kyc_review", "collections", "marketing"]),
    ("borrower.email", &["loan_servicing", "collections", "marketing"]),
    // Class c3, which no view shows.
    ("borrower.password_hash", &["loan_servicing"]),
];
const MOBILE: usize = 1;
const SECRET: usize = 3;
const VIEWS: [&str; 3] = ["plain", "masked", "last4"];
const PURPOSES: [&str; 4] = ["loan_servicing", "kyc_review", "collections", "marketing"];
const TENANTS: [TenantNo; 2] = [TenantNo(1), NUMBER];
/// Who calls. Officers only change the policies.
const CALLERS: [(Role, &str); 5] = [
    (Role::App, "tester"),
    (Role::App, "other"),
    (Role::Privacy, "tester"),
    (Role::Auditor, "tester"),
    (Role::Rotator, "tester"),
];

/// Policies, and what they permit in other words.
struct Rules {
    /// What stands beside what all of them have.
    cedar: &'static str,
    /// Whether somebody may see a field's value in a view for a purpose.
    sees: fn((Role, &str), usize, &str, &str) -> bool,
    /// Whether somebody may compare and look up.
    finds: fn((Role, &str), &str) -> bool,
}

const RULES: [Rules; 5] = [
    Rules {
        // Those that ship.
        cedar: "",
        sees: |(role, _), _, view, purpose| match role {
            // Whole values for the purposes of lending, which all are but marketing.
            Role::App => view != "plain" || purpose != "marketing",
            Role::Privacy => view == "masked",
            _ => false,
        },
        finds: |(role, _), purpose| match role {
            Role::App => purpose != "marketing",
            role => role == Role::Privacy,
        },
    },
    Rules { cedar: "\n", sees: |_, _, _, _| false, finds: |_, _| false },
    Rules {
        cedar: r#"
            @id("masked")
            permit (principal in Role::"app", action == Action::"detokenize", resource)
            when { context has view && context.view == "masked" && context has purpose && context.purpose == "kyc_review" };
        "#,
        sees: |(role, _), _, view, purpose| role == Role::App && view == "masked" && purpose == "kyc_review",
        finds: |_, _| false,
    },
    Rules {
        cedar: r#"
            @id("names")
            permit (principal in Role::"privacy", action == Action::"detokenize", resource == Field::"borrower.name")
            when { context has view && context.view == "plain" };
            @id("find")
            permit (principal in Role::"privacy", action in [Action::"match", Action::"lookup"], resource);
        "#,
        sees: |(role, _), field, view, _| role == Role::Privacy && field == 0 && view == "plain",
        finds: |(role, _), _| role == Role::Privacy,
    },
    Rules {
        cedar: r#"
            @id("one")
            permit (principal == Principal::"app/tester", action == Action::"detokenize", resource)
            when { context has view && context.view == "last4" };
            @id("one-finds")
            permit (principal == Principal::"app/tester", action in [Action::"match", Action::"lookup"], resource)
            when { context has purpose && context.purpose == "kyc_review" };
        "#,
        sees: |who, _, view, _| who == (Role::App, "tester") && view == "last4",
        finds: |who, purpose| who == (Role::App, "tester") && purpose == "kyc_review",
    },
];

/// The policies as they are applied: storing and changing are the same in all.
fn source(rules: usize) -> String {
    const CHANGES: &str = r#"
        @id("store")
        permit (principal in Role::"app", action in [Action::"tokenize", Action::"replace", Action::"delete"], resource);
        @id("delete")
        permit (principal in Role::"privacy", action == Action::"delete", resource);
        @id("consent")
        permit (principal in Role::"app", action in [Action::"grant_consent", Action::"withdraw_consent"], resource);
    "#;
    let part = |from: &str, to: &str| {
        let from = DEFAULT_POLICIES.find(from).unwrap();
        &DEFAULT_POLICIES[from..from + DEFAULT_POLICIES[from..].find(to).unwrap()]
    };
    match rules {
        0 => DEFAULT_POLICIES.to_owned(),
        _ => {
            let (everybody, officers) =
                (part("// ---- For", "// ---- app"), part("// ---- officer", "// ---- rotator"));
            [everybody, CHANGES, officers, RULES[rules].cedar].concat()
        }
    }
}

/// Whether a field has a view: by the lending schema.
fn has_view(field: usize, view: &str) -> bool {
    field != SECRET && (view != "last4" || field == MOBILE)
}

/// One call.
#[derive(Clone, Debug)]
enum Call {
    /// An officer puts policies in force.
    Rules {
        tenant: usize,
        rules: usize,
    },
    Store {
        tenant: usize,
        who: usize,
        field: usize,
    },
    /// The subject of all values consents to marketing, or takes that back.
    Consent {
        tenant: usize,
        given: bool,
    },
    /// Of one value, or of all that there are at once.
    Read {
        tenant: usize,
        who: usize,
        value: Option<usize>,
        view: usize,
        purpose: usize,
    },
    Match {
        tenant: usize,
        who: usize,
        value: usize,
        purpose: usize,
        right: bool,
    },
    Lookup {
        tenant: usize,
        who: usize,
        value: usize,
        purpose: usize,
    },
    Replace {
        tenant: usize,
        who: usize,
        value: usize,
    },
    Delete {
        tenant: usize,
        who: usize,
        value: usize,
    },
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let who = || (0..TENANTS.len(), 0..CALLERS.len());
    // Services store most of what is read.
    let stores = (0..TENANTS.len(), prop_oneof![4 => 0..2_usize, 1 => 0..CALLERS.len()], 0..FIELDS.len());
    let call = prop_oneof![
        1 => (0..TENANTS.len(), 0..RULES.len()).prop_map(|(tenant, rules)| Call::Rules { tenant, rules }),
        3 => stores.prop_map(|(tenant, who, field)| Call::Store { tenant, who, field }),
        2 => (0..TENANTS.len(), any::<bool>()).prop_map(|(tenant, given)| Call::Consent { tenant, given }),
        6 => (who(), proptest::option::of(any::<usize>()), 0..VIEWS.len(), 0..PURPOSES.len())
            .prop_map(|((tenant, who), value, view, purpose)| Call::Read { tenant, who, value, view, purpose }),
        2 => (who(), any::<usize>(), 0..PURPOSES.len(), any::<bool>())
            .prop_map(|((tenant, who), value, purpose, right)| Call::Match { tenant, who, value, purpose, right }),
        2 => (who(), any::<usize>(), 0..PURPOSES.len())
            .prop_map(|((tenant, who), value, purpose)| Call::Lookup { tenant, who, value, purpose }),
        1 => (who(), any::<usize>()).prop_map(|((tenant, who), value)| Call::Replace { tenant, who, value }),
        1 => (who(), any::<usize>()).prop_map(|((tenant, who), value)| Call::Delete { tenant, who, value }),
    ];
    proptest::collection::vec(call, 30..90)
}

/// A value as the model knows it.
struct Known {
    tenant: usize,
    field: usize,
    token: String,
    value: String,
    alive: bool,
}

/// The vault, and what the model knows of it.
struct World {
    vault: Arc<Tested>,
    known: Vec<Known>,
    rules: [usize; TENANTS.len()],
    consents: [bool; TENANTS.len()],
    made: usize,
}

impl World {
    async fn new() -> (Bench, Self) {
        let (bench, vault) = Bench::new().await;
        make(&vault, SAVINGS).await.unwrap();
        let schema = ApplySchema { source: LENDING.to_owned(), dry_run: false };
        vault.apply_schema(&of(NUMBER, Role::Officer), &schema).await.unwrap();
        (bench, Self { vault, known: vec![], rules: [0; TENANTS.len()], consents: [false; TENANTS.len()], made: 0 })
    }

    /// A value that no other is or begins with.
    fn fresh(&mut self, field: usize) -> String {
        self.made += 1;
        let number = self.made;
        match field {
            0 => format!("Ann {number:06}"),
            MOBILE => format!("138{number:08}"),
            2 => format!("ann{number:06}@mail.example"),
            _ => format!("secret-{number:06}-secret"),
        }
    }

    fn sees(&self, tenant: usize, who: usize, known: &Known, view: &str, purpose: &str) -> bool {
        let listed = FIELDS[known.field].1.contains(&purpose) && self.consents_to(tenant, purpose);
        let own = known.alive && known.tenant == tenant;
        let may = RULES[self.rules[tenant]].sees;
        own && listed && has_view(known.field, view) && may(CALLERS[who], known.field, view, purpose)
    }

    /// Whether the subject of a tenant's values has allowed a purpose, or need not.
    fn consents_to(&self, tenant: usize, purpose: &str) -> bool {
        purpose != "marketing" || self.consents[tenant]
    }

    fn finds(&self, tenant: usize, who: usize, field: usize, purpose: &str) -> bool {
        let listed = FIELDS[field].1.contains(&purpose);
        listed && (RULES[self.rules[tenant]].finds)(CALLERS[who], purpose)
    }

    /// No refusal repeats a value.
    fn tells_nothing(&self, error: &Error) {
        let said = error.to_string();
        assert!(!self.known.iter().any(|known| said.contains(&known.value)), "{said}");
    }

    async fn make(&mut self, call: Call) {
        let caller = |tenant: usize, who: usize| {
            let (role, name) = CALLERS[who];
            Caller::new(Arc::new(Principal::new(TENANTS[tenant], role, name)), "test")
        };
        let at = |value: usize, count: usize| if count == 0 { None } else { Some(value % count) };
        let vault = Arc::clone(&self.vault);
        match call {
            Call::Rules { tenant, rules } => {
                let officer = match tenant {
                    0 => crate::tests::caller(Role::Officer),
                    _ => of(NUMBER, Role::Officer),
                };
                let policy = ApplyPolicy { source: source(rules), tests: String::new(), dry_run: false };
                let apply = async || vault.apply_policy(&officer, &policy).await;
                with_approval(&vault, TENANTS[tenant], apply).await.unwrap();
                self.rules[tenant] = rules;
            }
            Call::Store { tenant, who, field } => {
                let value = self.fresh(field);
                let request = tokenize(vec![new_value(FIELDS[field].0, &value, "c-1")], "");
                let stored = vault.tokenize(&caller(tenant, who), &request).await;
                assert_eq!(stored.is_ok(), CALLERS[who].0 == Role::App, "{tenant} {who} {field}");
                match stored {
                    Ok(mut tokens) => {
                        self.known.push(Known { tenant, field, token: tokens.remove(0), value, alive: true });
                    }
                    Err(error) => assert!(!error.to_string().contains(&value)),
                }
            }
            Call::Consent { tenant, given } => {
                let service = caller(tenant, 0);
                let (subject, purpose, scope) = ("c-1".to_owned(), "marketing".to_owned(), ConsentScope::All);
                let changed = match given {
                    true => {
                        let (version, channel) = ("1".to_owned(), "web".to_owned());
                        let request = GrantConsent {
                            subject,
                            purpose,
                            scope,
                            text: vec![1; 32],
                            version,
                            channel,
                            given: None,
                            expires: None,
                        };
                        vault.grant_consent(&service, &request).await.unwrap()
                    }
                    // There is no such subject before it was named.
                    false => {
                        let request = WithdrawConsent { subject, purpose, scope };
                        vault.withdraw_consent(&service, &request).await.unwrap_or(false)
                    }
                };
                assert_eq!(changed, self.consents[tenant] != given);
                self.consents[tenant] = given;
            }
            Call::Read { tenant, who, value, view, purpose } => {
                let count = self.known.len();
                let which = match value {
                    _ if count == 0 => return,
                    Some(value) => vec![value % count],
                    None => (0..count).collect(),
                };
                let (view, purpose) = (VIEWS[view], PURPOSES[purpose]);
                let item = |at: &usize| ReadItem {
                    token: self.known[*at].token.clone(),
                    view: String::new(),
                    subject: String::new(),
                };
                let items = which.iter().map(item).collect();
                let request = Detokenize { items, purpose: purpose.to_owned(), view: view.to_owned() };
                let answers = vault.detokenize(&caller(tenant, who), &request).await.unwrap();
                for (at, answer) in which.into_iter().zip(answers) {
                    let known = &self.known[at];
                    let sees = self.sees(tenant, who, known, view, purpose);
                    assert_eq!(answer.is_ok(), sees, "{} {view} {purpose}", FIELDS[known.field].0);
                    match answer {
                        Ok(released) => {
                            let shown = std::str::from_utf8(released.value.as_bytes()).unwrap();
                            assert_eq!(shown == known.value, view == "plain", "{view}: {shown}");
                            // Nor is anybody else's value in it.
                            let others = self.known.iter().filter(|other| other.value != known.value);
                            assert_eq!(others.filter(|other| shown.contains(&other.value)).count(), 0, "{shown}");
                        }
                        Err(error) => self.tells_nothing(&error),
                    }
                }
            }
            Call::Match { tenant, who, value, purpose, right } => {
                let Some(at) = at(value, self.known.len()) else { return };
                let asked = if right { self.known[at].value.clone() } else { self.fresh(self.known[at].field) };
                let (known, purpose) = (&self.known[at], PURPOSES[purpose]);
                let item = MatchItem { token: known.token.clone(), value: asked.into(), subject: String::new() };
                let request = Match { items: vec![item], purpose: purpose.to_owned() };
                let answer = vault.matches(&caller(tenant, who), &request).await.unwrap().remove(0);
                let finds = known.alive
                    && known.tenant == tenant
                    && self.consents_to(tenant, purpose)
                    && self.finds(tenant, who, known.field, purpose);
                match answer {
                    Ok(matched) => assert_eq!((finds, matched), (true, right)),
                    Err(error) => {
                        assert!(!finds, "{error}");
                        self.tells_nothing(&error);
                    }
                }
            }
            Call::Lookup { tenant, who, value, purpose } => {
                let mobiles: Vec<&Known> = self.known.iter().filter(|known| known.field == MOBILE).collect();
                let Some(at) = at(value, mobiles.len()) else { return };
                let (known, purpose) = (mobiles[at], PURPOSES[purpose]);
                let item = LookupItem { field: FIELDS[MOBILE].0.to_owned(), value: known.value.clone().into() };
                let request = Lookup { items: vec![item], purpose: purpose.to_owned() };
                let answer = vault.lookup(&caller(tenant, who), &request).await.unwrap().remove(0);
                let found = known.alive && known.tenant == tenant && self.consents_to(tenant, purpose);
                let found: Vec<String> = if found { vec![known.token.clone()] } else { vec![] };
                match answer {
                    Ok(answer) => {
                        assert!(self.finds(tenant, who, MOBILE, purpose));
                        assert_eq!(answer.tokens, found);
                    }
                    Err(error) => {
                        assert!(!self.finds(tenant, who, MOBILE, purpose), "{error}");
                        self.tells_nothing(&error);
                    }
                }
            }
            Call::Replace { tenant, who, value } => {
                let Some(at) = at(value, self.known.len()) else { return };
                let (token, next) = (self.known[at].token.clone(), self.fresh(self.known[at].field));
                let item = NewVersion { token, value: next.clone().into(), expires: None };
                let request = Replace { items: vec![item], idempotency_key: String::new() };
                let replaced = vault.replace(&caller(tenant, who), &request).await;
                let known = &mut self.known[at];
                let may = known.alive && known.tenant == tenant && CALLERS[who].0 == Role::App;
                assert_eq!(replaced.is_ok(), may);
                if may {
                    known.value = next;
                }
            }
            Call::Delete { tenant, who, value } => {
                let Some(at) = at(value, self.known.len()) else { return };
                let item = DeleteItem { token: self.known[at].token.clone(), subject: String::new() };
                let request = Delete { items: vec![item], idempotency_key: String::new() };
                let deleted = vault.delete(&caller(tenant, who), &request).await.unwrap().remove(0);
                let known = &mut self.known[at];
                let role = CALLERS[who].0;
                let may = known.alive && known.tenant == tenant && matches!(role, Role::App | Role::Privacy);
                assert_eq!(deleted.is_ok(), may);
                known.alive &= !may;
            }
        }
    }
}

proptest! {
    // Each case makes a vault of two tenants.
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_calls_shows_what_policy_denies(calls in calls()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (bench, mut world) = World::new().await;
            for call in calls {
                world.make(call).await;
            }
            // Nor does the log hold any.
            let mut by_tenant: BTreeMap<usize, Vec<&Known>> = BTreeMap::new();
            world.known.iter().for_each(|known| by_tenant.entry(known.tenant).or_default().push(known));
            for (tenant, known) in by_tenant {
                let auditor = of(TENANTS[tenant], Role::Auditor);
                // Under some of the policies nobody reads it.
                let request = crate::Export::default();
                let Ok(mut pages) = world.vault.export(&auditor, &request).await else { continue };
                while let Some(page) = pages.next().await.unwrap() {
                    for line in &page.leaves {
                        let line = std::str::from_utf8(line).unwrap();
                        assert!(!known.iter().any(|known| line.contains(&known.value)), "{line}");
                    }
                }
            }
            world.vault.close().await;
            assert_eq!(findings(&bench, &[]).await, []);
        });
    }
}
