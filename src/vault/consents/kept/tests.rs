//! When a consent stands: a table, and random statements held against who simply remembers the newest of each field.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use strongroom_schema::SchemaFile;

use super::*;

const LENDING: &str = include_str!("../../../../deploy/schemas/lending.toml");
const NOW: u64 = 1_000_000;
/// Fields of the classes c1, c2, c2 and c3.
const FIELDS: [&str; 4] = ["borrower.account_opened", "borrower.mobile", "borrower.email", "borrower.password_hash"];

/// The lending schema, in which marketing asks for separate consent to these classes.
fn schema(separate: &str) -> Schema {
    let source = LENDING.replace("consent = true", &format!("consent = true\nseparate_consent = [{separate}]"));
    assert_ne!(source, LENDING);
    Schema::evolve(None, &SchemaFile::parse(&source).unwrap(), 1).unwrap()
}

fn field(schema: &Schema, name: &str) -> FieldNo {
    schema.field(name).unwrap().number
}

fn given(scope: Scope, expires: Option<u64>) -> Consent {
    Consent {
        purpose: "marketing".to_owned(),
        scope,
        granted: NOW,
        given: None,
        expires,
        withdrawn: None,
        text: [7; 32],
        version: "3".to_owned(),
        channel: "web".to_owned(),
    }
}

fn until(schema: &Schema, consents: &[Consent], name: &str, now: u64) -> Option<u64> {
    stands_until(consents, schema.purpose("marketing").unwrap(), schema.field(name).unwrap(), now)
}

#[test]
fn a_consent_stands_for_what_it_covers_until_it_ends_or_is_withdrawn() {
    let (none, c3, c2_too) = (schema(""), schema("\"c3\""), schema("\"c2\", \"c3\""));
    let of = |name: &str| Scope::Field(field(&none, name));
    let (mobile, email, secret) = (FIELDS[1], FIELDS[2], FIELDS[3]);
    let table = [
        (&none, Scope::All, FIELDS[0], true),
        (&none, Scope::All, mobile, true),
        (&none, Scope::All, secret, true),
        (&c3, Scope::All, mobile, true),
        (&c3, Scope::All, secret, false),
        (&c2_too, Scope::All, FIELDS[0], true),
        (&c2_too, Scope::All, mobile, false),
        (&none, Scope::Class(2), mobile, true),
        (&c2_too, Scope::Class(2), mobile, true),
        (&c2_too, Scope::Class(2), secret, false),
        (&c3, Scope::Class(3), secret, true),
        (&c3, Scope::Class(3), mobile, false),
        (&none, Scope::Class(1), mobile, false),
        (&none, of(mobile), mobile, true),
        (&none, of(mobile), email, false),
        (&c3, of(secret), secret, true),
        (&c2_too, of(mobile), mobile, true),
        (&c2_too, of(mobile), secret, false),
    ];
    for (number, (schema, scope, name, covers)) in table.into_iter().enumerate() {
        let ends = [(None, Some(u64::MAX)), (Some(NOW + 1), Some(NOW + 1)), (Some(NOW), None), (Some(NOW - 1), None)];
        for (expires, stands) in ends {
            let consent = given(scope, expires);
            let expected = stands.filter(|_| covers);
            assert_eq!(until(schema, std::slice::from_ref(&consent), name, NOW), expected, "{number} {expires:?}");
            let withdrawn = Consent { withdrawn: Some(NOW), ..consent.clone() };
            assert_eq!(until(schema, &[withdrawn], name, NOW), None, "{number} {expires:?}");
            let other = Consent { purpose: "loyalty".to_owned(), ..consent };
            assert_eq!(until(schema, &[other], name, NOW), None, "{number} {expires:?}");
        }
    }
}

#[test]
fn of_several_that_cover_a_field_the_one_that_lasts_longest_counts() {
    let schema = schema("");
    let mobile = Scope::Field(field(&schema, FIELDS[1]));
    let consents = [given(Scope::All, Some(NOW + 5)), given(Scope::Class(2), Some(NOW)), given(mobile, Some(NOW + 9))];
    assert_eq!(until(&schema, &consents, FIELDS[1], NOW), Some(NOW + 9));
    assert_eq!(until(&schema, &consents, FIELDS[2], NOW), Some(NOW + 5));
    assert_eq!(until(&schema, &consents, FIELDS[1], NOW + 9), None);
}

#[test]
fn the_same_once_more_is_no_change_and_anything_else_of_it_takes_its_place() {
    let mut consents = Vec::new();
    assert!(keep(&mut consents, given(Scope::All, None)).unwrap());
    assert!(!keep(&mut consents, Consent { granted: NOW + 1, ..given(Scope::All, None) }).unwrap());
    assert_eq!(consents[0].granted, NOW);
    for next in [
        given(Scope::All, Some(NOW + 9)),
        Consent { text: [8; 32], ..given(Scope::All, None) },
        Consent { version: "4".to_owned(), ..given(Scope::All, None) },
        Consent { channel: "branch".to_owned(), ..given(Scope::All, None) },
    ] {
        assert!(keep(&mut consents, next.clone()).unwrap());
        assert!(consents.len() == 1 && consents[0] == next);
    }
}

#[test]
fn a_narrower_withdrawal_leaves_the_rest_and_a_later_consent_reaches_it_again() {
    let schema = schema("\"c3\"");
    let mobile = Scope::Field(field(&schema, FIELDS[1]));
    let stands = |consents: &[Consent]| [1, 2].map(|at| until(&schema, consents, FIELDS[at], NOW).is_some());
    let mut consents = vec![given(Scope::All, None)];
    assert_eq!(withdraw(&mut consents, "marketing", mobile, &schema, NOW), [mobile]);
    assert_eq!(stands(&consents), [false, true]);
    // The evidence of it is that of what it was taken out of.
    assert!(consents[1] == Consent { scope: mobile, withdrawn: Some(NOW), ..given(Scope::All, None) });
    assert_eq!(withdraw(&mut consents, "marketing", mobile, &schema, NOW), []);
    // The same text, while the vault's time stands still.
    assert!(keep(&mut consents, given(Scope::All, None)).unwrap());
    assert_eq!(stands(&consents), [true, true]);
    assert_eq!(withdraw(&mut consents, "marketing", Scope::Class(2), &schema, NOW), [Scope::Class(2)]);
    assert_eq!(stands(&consents), [false, false]);
    // What nobody consented to separately is not taken out of what never reached it.
    assert_eq!(withdraw(&mut consents, "marketing", Scope::Class(3), &schema, NOW), []);
    assert_eq!(withdraw(&mut consents, "marketing", Scope::All, &schema, NOW), [Scope::All]);
    assert_eq!(withdraw(&mut consents, "marketing", Scope::All, &schema, NOW), []);
    assert_eq!(withdraw(&mut consents, "loyalty", Scope::All, &schema, NOW), []);
}

#[test]
fn what_was_taken_out_of_a_wider_consent_and_given_again_until_a_day_ends_on_that_day() {
    let schema = schema("");
    let mobile = Scope::Field(field(&schema, FIELDS[1]));
    let mut consents = vec![given(Scope::All, None)];
    withdraw(&mut consents, "marketing", mobile, &schema, NOW);
    assert!(keep(&mut consents, given(mobile, Some(NOW + 9))).unwrap());
    assert_eq!(until(&schema, &consents, FIELDS[1], NOW), Some(NOW + 9));
    assert_eq!(until(&schema, &consents, FIELDS[1], NOW + 9), None);
    assert_eq!(until(&schema, &consents, FIELDS[2], NOW + 9), Some(u64::MAX));
    // The same once more is no change still.
    assert!(!keep(&mut consents, given(mobile, Some(NOW + 9))).unwrap());
    withdraw(&mut consents, "marketing", Scope::All, &schema, NOW + 1);
    assert!(keep(&mut consents, given(mobile, None)).unwrap());
    assert!(consents[1].withdrawn.is_none() && !consents[1].is_withdrawn());
}

#[test]
fn a_subject_has_at_most_100_consents_and_a_withdrawal_needs_no_room() {
    let schema = schema("");
    let mut consents = vec![given(Scope::All, None)];
    for number in 0..99 {
        let purpose = format!("other_{number}");
        assert!(keep(&mut consents, Consent { purpose, ..given(Scope::All, None) }).unwrap());
    }
    let mobile = Scope::Field(field(&schema, FIELDS[1]));
    assert!(matches!(keep(&mut consents, given(mobile, None)), Err(Error::Invalid(_))));
    assert!(keep(&mut consents, given(Scope::All, Some(NOW + 9))).unwrap(), "one takes the place of another");
    assert_eq!(withdraw(&mut consents, "marketing", mobile, &schema, NOW), [Scope::All]);
    assert!(consents.len() == 100 && FIELDS.iter().all(|name| until(&schema, &consents, name, NOW).is_none()));
}

/// What is said.
#[derive(Clone, Debug)]
enum Said {
    Given { scope: usize, lasts: Option<u64> },
    Withdrawn { scope: usize },
    Nothing { passes: u64 },
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        4 => (0..8_usize, proptest::option::of(1..20_u64)).prop_map(|(scope, lasts)| Said::Given { scope, lasts }),
        3 => (0..8_usize).prop_map(|scope| Said::Withdrawn { scope }),
        2 => (1..10_u64).prop_map(|passes| Said::Nothing { passes }),
    ]
}

proptest! {
    #[test]
    fn of_what_was_said_of_a_field_the_newest_counts(all in proptest::collection::vec(said(), 1..60), separate in any::<bool>()) {
        let schema = schema(if separate { "\"c3\"" } else { "" });
        let scopes: Vec<Scope> = [Scope::All, Scope::Class(1), Scope::Class(2), Scope::Class(3)]
            .into_iter()
            .chain(FIELDS.iter().map(|name| Scope::Field(field(&schema, name))))
            .collect();
        let is_of = |scope: Scope, name: &str| {
            let field = schema.field(name).unwrap();
            match scope {
                Scope::All => true,
                Scope::Class(class) => field.class.number() == class,
                Scope::Field(number) => field.number == number,
            }
        };
        let reached = |scope: Scope, name: &str| {
            is_of(scope, name) && !(scope == Scope::All && separate && name == FIELDS[3])
        };
        let mut ends: HashMap<&str, BTreeMap<Scope, u64>> = HashMap::new();
        let (mut consents, mut now) = (Vec::new(), NOW);
        for one in all {
            match one {
                Said::Nothing { passes } => now += passes,
                Said::Given { scope, lasts } => {
                    let (scope, expires) = (scopes[scope], lasts.map(|lasts| now + lasts));
                    keep(&mut consents, Consent { granted: now, ..given(scope, expires) }).unwrap();
                    for name in FIELDS.iter().filter(|name| reached(scope, name)) {
                        ends.entry(*name).or_default().insert(scope, expires.unwrap_or(u64::MAX));
                    }
                }
                Said::Withdrawn { scope } => {
                    let scope = scopes[scope];
                    let stood = FIELDS.iter().any(|name| {
                        is_of(scope, name) && until(&schema, &consents, name, now).is_some()
                    });
                    let taken = withdraw(&mut consents, "marketing", scope, &schema, now);
                    prop_assert!(!stood || !taken.is_empty());
                    FIELDS.iter().filter(|name| is_of(scope, name)).for_each(|name| _ = ends.remove(name));
                }
            }
            for name in FIELDS {
                let ends = ends.get(name).and_then(|ends| ends.values().copied().filter(|ends| *ends > now).max());
                prop_assert_eq!(until(&schema, &consents, name, now), ends, "{}", name);
            }
            prop_assert!(consents.is_sorted_by(|a, b| (&a.purpose, a.scope) < (&b.purpose, b.scope)));
        }
    }
}
