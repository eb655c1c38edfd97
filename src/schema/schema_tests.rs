//! Versions: what may follow what, and that the stored form reads back.

use proptest::prelude::*;
use strongroom_ids::{FieldNo, KeyringNo};

use crate::types::china::samples;
use crate::{Class, Schema, SchemaError, SchemaFile, Scope, TokenFormat};

const LENDING: &str = include_str!("../../deploy/schemas/lending.toml");

fn first(source: &str) -> Schema {
    Schema::evolve(None, &SchemaFile::parse(source).unwrap(), 1).unwrap()
}

fn next(previous: &Schema, source: &str) -> Result<Schema, SchemaError> {
    Schema::evolve(Some(previous), &SchemaFile::parse(source).unwrap(), previous.version() + 1)
}

fn rule(result: Result<Schema, SchemaError>) -> &'static str {
    match result {
        Err(SchemaError::Rule { rule, .. }) => rule,
        other => panic!("{:?}", other.map(|schema| schema.version())),
    }
}

fn keyring(schema: &Schema, field: &str) -> u16 {
    schema.field(field).unwrap().keyring.0
}

/// The table of one field, without the empty line after it.
fn table(field: &str) -> String {
    let from = LENDING.find(&format!("[field.{field}]")).unwrap();
    let rest = &LENDING[from..];
    rest[..rest.find("\n\n").unwrap_or(rest.len())].to_owned()
}

fn without(field: &str) -> String {
    LENDING.replace(&table(field), "")
}

#[test]
fn the_values_of_a_borrower_fall_into_two_keyrings() {
    let schema = first(LENDING);
    let six = ["name", "id_card", "mobile", "bank_card", "email", "address"];
    let rings: std::collections::BTreeSet<u16> =
        six.iter().map(|name| keyring(&schema, &format!("borrower.{name}"))).collect();
    assert_eq!(rings.len(), 2);
    assert_eq!(schema.keyrings().collect::<Vec<_>>(), [1, 2, 3, 4].map(KeyringNo));
}

#[test]
fn the_schema_that_ships_has_the_fields_it_promises() {
    let schema = first(LENDING);
    let field = |name| schema.field(name).unwrap();
    assert!(field("borrower.id_card").lookup && field("borrower.mobile").lookup);
    assert_eq!(field("borrower.bank_card").token, TokenFormat::Card);
    assert_eq!(field("borrower.email").token, TokenFormat::Email);
    assert_eq!(field("company.uscc").deterministic, Some(Scope::Tenant));
    assert_eq!(field("company.settlement_account").deterministic, Some(Scope::PerSubject));
    assert_eq!(field("borrower.password_hash").class, Class::C3);
    assert_eq!(field("borrower.password_hash").views().count(), 0);
    assert_eq!(field("borrower.account_opened").class, Class::C1);
    assert!(schema.purpose("marketing").unwrap().consent);
    assert!(!schema.purpose("kyc_review").unwrap().consent);
    assert_eq!(schema.fields().count(), 14);
    assert_eq!(&*field("borrower.id_card").collection, "borrower");
    assert_eq!(&*field("borrower.id_card").name, "id_card");
    assert_eq!(schema.source(), LENDING);
    let shown = field("borrower.id_card").view("masked").unwrap().apply(b"11010519491231002X").unwrap();
    assert_eq!(&**shown, b"110105********002X");
}

#[test]
fn a_field_may_be_renamed_under_its_number() {
    let old = first(LENDING);
    let new = next(&old, &LENDING.replace("field.borrower.mobile", "field.borrower.cell")).unwrap();
    assert!(new.field("borrower.mobile").is_none());
    assert_eq!(new.field("borrower.cell").unwrap().number, FieldNo(3));
}

#[test]
fn what_would_strand_values_is_refused() {
    let old = first(LENDING);
    let changed = |field: &str, from: &str, to: &str| {
        let table = table(field);
        assert!(table.contains(from));
        rule(next(&old, &LENDING.replace(&table, &table.replace(from, to))))
    };
    assert_eq!(changed("borrower.mobile", "cn_mobile", "phone"), "permanent");
    assert_eq!(changed("borrower.mobile", "\"c2\"", "\"c1\""), "permanent");
    assert_eq!(changed("borrower.mobile", "10y", "11y"), "permanent");
    assert_eq!(changed("borrower.email", "token = \"email\"", "token = \"uuid\""), "permanent");
    assert_eq!(changed("company.uscc", "\"tenant\"", "\"per_subject\""), "permanent");
    assert_eq!(changed("borrower.address", "retention", "lookup = true\nretention"), "permanent");
}

#[test]
fn what_strands_nothing_may_change() {
    let old = first(LENDING);
    let mobile = table("borrower.mobile");
    let other =
        mobile.replace("lookup = true", "max_length = 30").replace("last4 = { last = 4 }", "last2 = { last = 2 }");
    let new = next(&old, &LENDING.replace(&mobile, &other)).unwrap();
    let field = new.field("borrower.mobile").unwrap();
    assert!(!field.lookup && field.view("last4").is_none() && field.view("last2").is_some());
    // Once off, values were stored without an index entry.
    assert_eq!(rule(next(&new, LENDING)), "permanent");
}

#[test]
fn the_number_of_a_removed_field_stays_retired() {
    let old = first(LENDING);
    let removed = next(&old, &without("borrower.mobile")).unwrap();
    assert!(removed.field("borrower.mobile").is_none());
    let retired = removed.field_no(FieldNo(3)).unwrap();
    assert!(retired.retired && retired.views().count() == 0 && retired.purposes.is_empty());
    assert_eq!(removed.fields().count(), 13);

    let renamed = LENDING.replace("field.borrower.mobile", "field.borrower.fax");
    assert_eq!(rule(next(&removed, &renamed)), "number_retired");
    let later = next(&removed, &without("borrower.mobile")).unwrap();
    assert_eq!(rule(next(&later, &renamed)), "number_retired");
    let retyped = LENDING.replace(&table("borrower.mobile"), &table("borrower.mobile").replace("10y", "3y"));
    assert_eq!(rule(next(&later, &retyped)), "permanent");
}

#[test]
fn a_removed_field_may_come_back_as_what_it_was() {
    let removed = next(&first(LENDING), &without("borrower.mobile")).unwrap();
    let back = next(&removed, LENDING).unwrap();
    assert_eq!(back.field("borrower.mobile").unwrap().number, FieldNo(3));
    assert!(!back.field_no(FieldNo(3)).unwrap().retired);
}

#[test]
fn a_name_may_move_to_a_new_number() {
    let moved = LENDING.replace("number = 3\n", "number = 30\n");
    let new = next(&first(LENDING), &moved).unwrap();
    assert_eq!(new.field("borrower.mobile").unwrap().number, FieldNo(30));
    assert!(new.field_no(FieldNo(3)).unwrap().retired);
    assert_eq!(Schema::from_stored(&new.to_stored()).unwrap().to_stored(), new.to_stored());
}

#[test]
fn a_class_has_the_names_that_its_fields_had_in_each_version() {
    let of = |schema: &Schema, class: Class, name: &str| {
        let named = schema.names_of(class).filter(|named| named.name == name);
        let mut versions: Vec<_> = named.map(|named| (named.since, named.until)).collect();
        versions.sort_unstable();
        versions
    };
    let one = first(LENDING);
    assert_eq!(of(&one, Class::C2, "borrower.mobile"), [(1, None)]);
    assert_eq!(of(&one, Class::C3, "borrower.mobile"), []);
    assert!(!String::from_utf8(one.to_stored()).unwrap().contains("\"since\""));
    // Renamed; then its old name goes to another field, of another class; then that one is removed.
    let renamed = LENDING.replace("field.borrower.mobile", "field.borrower.phone");
    let two = next(&one, &renamed).unwrap();
    let secret = table("borrower.password_hash").replace("number = 8", "number = 80");
    let reused = renamed.clone() + "\n" + &secret.replace("borrower.password_hash", "borrower.mobile") + "\n";
    let three = next(&two, &reused).unwrap();
    let four = next(&three, &reused).unwrap();
    let five = Schema::from_stored(&next(&four, &renamed).unwrap().to_stored()).unwrap();
    assert_eq!(of(&five, Class::C2, "borrower.mobile"), [(1, Some(1))]);
    assert_eq!(of(&five, Class::C2, "borrower.phone"), [(2, None)]);
    assert_eq!(of(&five, Class::C3, "borrower.mobile"), [(3, Some(4))]);
    // It comes back.
    let six = next(&five, &reused).unwrap();
    assert_eq!(of(&six, Class::C3, "borrower.mobile"), [(3, Some(4)), (6, None)]);
    assert_eq!(Schema::from_stored(&six.to_stored()).unwrap().to_stored(), six.to_stored());
    for version in 1..=6 {
        let class = |class| {
            let is = |(since, until): &(u32, Option<u32>)| (*since..=until.unwrap_or(6)).contains(&version);
            of(&six, class, "borrower.mobile").iter().any(is)
        };
        assert!(!(class(Class::C2) && class(Class::C3)), "in each version a name is one field's");
    }
}

#[test]
fn keyrings_keep_their_numbers_and_are_never_used_again() {
    let old = first(LENDING);
    let email = keyring(&old, "borrower.email");
    let without_email = next(&old, &without("borrower.email")).unwrap();
    assert_eq!(without_email.keyrings().collect::<Vec<_>>(), old.keyrings().collect::<Vec<_>>());
    let added = without("borrower.email")
        + "\n[field.borrower.nickname]\nnumber = 20\ntype = \"name\"\nclass = \"c1\"\nretention = \"180d\"\npurposes = [\"marketing\"]\n";
    let added = next(&without_email, &added).unwrap();
    assert_eq!(keyring(&added, "borrower.nickname"), 5);
    assert_eq!(added.field_no(FieldNo(5)).unwrap().keyring, KeyringNo(email));
    assert_eq!(keyring(&next(&added, LENDING).unwrap(), "borrower.email"), email);
}

#[test]
fn spans_of_the_same_length_share_a_keyring() {
    let schema = first(&LENDING.replacen("\"10y\"", "\"3660d\"", 1));
    assert_eq!(keyring(&schema, "borrower.name"), keyring(&schema, "borrower.id_card"));
}

#[test]
fn versions_go_up() {
    let old = first(LENDING);
    let file = SchemaFile::parse(LENDING).unwrap();
    assert_eq!(rule(Schema::evolve(Some(&old), &file, 1)), "version");
    assert_eq!(rule(Schema::evolve(None, &file, 0)), "version");
}

#[test]
fn the_stored_form_reads_back() {
    let old = next(&first(LENDING), &without("borrower.mobile")).unwrap();
    let read = Schema::from_stored(&old.to_stored()).unwrap();
    assert_eq!(read.to_stored(), old.to_stored());
    assert_eq!(read.version(), 2);
    assert_eq!(read.source(), old.source());
    assert_eq!(read.fields().collect::<Vec<_>>(), old.fields().collect::<Vec<_>>());
    assert_eq!(read.field_no(FieldNo(3)), old.field_no(FieldNo(3)));
    assert_eq!(read.purposes().collect::<Vec<_>>(), old.purposes().collect::<Vec<_>>());
    assert_eq!(read.keyrings().collect::<Vec<_>>(), old.keyrings().collect::<Vec<_>>());
}

#[test]
fn a_field_keeps_its_own_length() {
    let schema = first(LENDING);
    let account = schema.field("company.settlement_account").unwrap();
    assert_eq!(account.validate(b"1234567").unwrap_err().rule, "too_short");
    assert_eq!(account.validate(&[b'1'; 41]).unwrap_err().rule, "too_long");
    assert!(account.validate("账".repeat(40).as_bytes()).is_ok());
    assert_eq!(account.validate(b"\xff").unwrap_err().rule, "utf8");
}

#[test]
fn what_is_stored_keeps_its_normal_form_when_the_bounds_change() {
    let schema = first(LENDING);
    let account = schema.field("company.settlement_account").unwrap();
    for value in ["1234567".to_owned(), "1".repeat(41)] {
        assert!(account.validate(value.as_bytes()).is_err());
        assert_eq!(account.normalise(value.as_bytes()).unwrap().as_slice(), value.as_bytes());
    }
    assert_eq!(account.normalise(b"\xff").unwrap_err().rule, "utf8");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_bytes_are_refused_not_believed(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let stored = first(LENDING).to_stored();
        let mut damaged = stored.clone();
        let at = at.index(damaged.len());
        damaged[at] = byte;
        let _ = Schema::from_stored(&damaged);
        prop_assert!(Schema::from_stored(&stored[..cut.index(stored.len())]).is_err());
    }

    #[test]
    fn a_generated_identity_number_goes_through_its_field(value in samples::id_card()) {
        let schema = first(LENDING);
        let field = schema.field("borrower.id_card").unwrap();
        prop_assert!(field.validate(value.as_bytes()).is_ok());
        let lower = field.normalise(value.to_lowercase().as_bytes()).unwrap();
        prop_assert_eq!(lower.as_slice(), value.as_bytes());
        for (name, view) in field.views() {
            let shown = view.apply(value.as_bytes()).unwrap();
            prop_assert_eq!(&**name == "plain", shown.as_slice() == value.as_bytes());
        }
    }
}
