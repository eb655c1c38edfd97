//! Schema files: what is refused, by line and rule, and the schema that ships.

use proptest::prelude::*;

use super::*;

const LENDING: &str = include_str!("../../deploy/schemas/lending.toml");

/// A file with one field, to which lines are added.
fn with(lines: &str) -> String {
    format!(
        "[purpose.kyc]\ndescription = \"Checking\"\n\n[field.borrower.note]\nnumber = 1\nretention = \"10y\"\n\
         purposes = [\"kyc\"]\n{lines}\n"
    )
}

fn refused(lines: &str) -> &'static str {
    match SchemaFile::parse(&with(lines)) {
        Err(SchemaError::Rule { line, place, rule, message }) => {
            assert_eq!((line, place.as_str()), (Some(4), "field borrower.note"), "{message}");
            rule
        }
        other => panic!("{lines}: {other:?}"),
    }
}

#[test]
fn the_schema_that_ships_is_valid() {
    let file = SchemaFile::parse(LENDING).unwrap();
    assert_eq!(file.fields.len(), 14);
    assert_eq!(file.purposes.len(), 6);
    assert!(file.purposes["marketing"].consent);
}

#[test]
fn every_field_but_secrets_has_the_view_masked_and_none_is_plain_unasked() {
    let file = SchemaFile::parse(&with("type = \"text\"\nclass = \"c2\"")).unwrap();
    let views = &file.fields["borrower.note"].1.views;
    assert_eq!(views.iter().collect::<Vec<_>>(), [(&"masked".to_owned(), &Mask::Customary)]);
    let secret = SchemaFile::parse(&with("type = \"text\"\nclass = \"c3\"")).unwrap();
    assert!(secret.fields["borrower.note"].1.views.is_empty());
}

#[test]
fn a_broken_rule_is_named_with_line_and_field() {
    let broken = [
        ("type = \"text\"\nclass = \"c3\"\nviews = { plain = \"plain\" }", "c3_view"),
        ("type = \"text\"\nclass = \"c3\"\nviews = { masked = \"hidden\" }", "c3_view"),
        ("type = \"text\"\nclass = \"c3\"\nmin_length = 9\nlookup = true", "c3_index"),
        ("type = \"bank_card\"\nclass = \"c3\"\ntoken = \"card\"", "c3_token"),
        ("type = \"text\"\nclass = \"c2\"\nlookup = true", "small_domain"),
        ("type = \"text\"\nclass = \"c2\"\nlookup = true\nmin_length = 5", "small_domain"),
        ("type = \"name\"\nclass = \"c2\"\nlookup = true\ndomain = \"small\"", "small_domain"),
        ("type = \"decimal\"\nclass = \"c2\"\nlookup = true", "small_domain"),
        ("type = \"date\"\nclass = \"c2\"\ndeterministic = \"tenant\"", "small_domain"),
        ("type = \"ssn\"\nclass = \"c2\"\ntoken = \"digits\"", "token"),
        ("type = \"text\"\nclass = \"c2\"\ntoken = \"card\"", "token"),
        ("type = \"text\"\nclass = \"c2\"\ntoken = \"email\"", "token"),
        ("type = \"text\"\nclass = \"c2\"\nviews = { all = \"plain\" }", "plain"),
        ("type = \"text\"\nclass = \"c2\"\nviews = { plain = \"masked\" }", "plain"),
        ("type = \"text\"\nclass = \"c2\"\nviews = { year = \"year\" }", "year"),
        ("type = \"text\"\nclass = \"c2\"\nviews = { Last = { last = 4 } }", "name"),
        ("type = \"text\"\nclass = \"c2\"\nviews = { none = { } }", "view_keeps"),
        ("type = \"text\"\nclass = \"c2\"\nviews = { ends = { last = 4, fill = \"x\" } }", "view_fill"),
        ("type = \"bytes\"\nclass = \"c2\"\nviews = { ends = { last = 4 } }", "view_kind"),
        ("type = \"cn_id_card\"\nclass = \"c2\"\nviews = { most = { first = 14, last = 1 } }", "view_shows_too_much"),
        ("type = \"text\"\nclass = \"c2\"\nmin_length = 9\nmax_length = 8", "length"),
        ("type = \"text\"\nclass = \"c2\"\nmin_length = 0", "length"),
        ("type = \"text\"\nclass = \"c2\"\nmax_length = 65537", "length"),
    ];
    for (lines, rule) in broken {
        assert_eq!(refused(lines), rule, "{lines}");
    }
}

#[test]
fn what_is_not_of_the_form_is_refused_with_its_line() {
    let broken = [
        ("type = \"text\"\nclass = \"c2\"\nlook_up = true", 10, "look_up"),
        ("type = \"txt\"\nclass = \"c2\"", 8, "txt"),
        ("type = \"text\"\nclass = \"c4\"", 9, "c4"),
        ("type = \"text\"\nclass = \"c2\"\nviews = { a = \"mask\" }", 10, "\"masked\""),
        ("type = \"text\"\nclass = \"c2\"\nviews = { a = { frist = 1 } }", 10, "frist"),
        ("type = \"text\"\nclass = ", 9, ""),
        ("type = \"text\"\nclass = \"c2\"\ntype = \"text\"", 10, ""),
    ];
    for (lines, at, says) in broken {
        match SchemaFile::parse(&with(lines)) {
            Err(SchemaError::Syntax { line, message }) => {
                assert_eq!(line, at, "{lines}: {message}");
                assert!(message.contains(says), "{lines}: {message}");
            }
            other => panic!("{lines}: {other:?}"),
        }
    }
}

#[test]
fn a_crypto_period_is_a_years_or_what_the_file_says_for_the_class() {
    const YEAR: u64 = 366 * 86_400_000_000;
    let period = |more: &str, keyring| {
        let source = with("type = \"text\"\nclass = \"c2\"") + more;
        let schema = crate::Schema::evolve(None, &SchemaFile::parse(&source).unwrap(), 1).unwrap();
        let again = crate::Schema::from_stored(&schema.to_stored()).unwrap();
        let keyring = strongroom_ids::KeyringNo(keyring);
        assert_eq!(again.crypto_period(keyring), schema.crypto_period(keyring));
        schema.crypto_period(keyring)
    };
    assert_eq!((period("", 1), period("", 0)), (Some(YEAR), Some(YEAR)));
    let declared = "\n[crypto_period]\nc2 = \"2y\"\nc3 = \"30d\"";
    assert_eq!((period(declared, 1), period(declared, 0)), (Some(2 * YEAR), Some(30 * 86_400_000_000)));
    let never = "\n[crypto_period]\nc1 = \"forever\"\nc2 = \"forever\"\nc3 = \"forever\"";
    assert_eq!((period(never, 1), period(never, 0)), (None, None));
    for wrong in ["c4 = \"1y\"", "c2 = \"1 year\"", "c2 = 1"] {
        let source = with("type = \"text\"\nclass = \"c2\"") + "\n[crypto_period]\n" + wrong;
        assert!(matches!(SchemaFile::parse(&source), Err(SchemaError::Syntax { .. })), "{wrong}");
    }
}

#[test]
fn a_basis_says_the_same_as_consent_or_the_file_is_refused() {
    let source = with("type = \"text\"\nclass = \"c2\"");
    let schema = |more: &str| {
        let source = source.replacen("\"Checking\"", &format!("\"Checking\"\n{more}"), 1);
        SchemaFile::parse(&source).map(|file| crate::Schema::evolve(None, &file, 1).unwrap())
    };
    let basis = |more: &str| {
        let schema = schema(more).unwrap();
        let again = crate::Schema::from_stored(&schema.to_stored()).unwrap();
        assert_eq!(again.purpose("kyc"), schema.purpose("kyc"));
        schema.purpose("kyc").unwrap().basis.map(Basis::as_str)
    };
    assert_eq!(basis(""), None);
    assert_eq!(basis("basis = \"public_task\""), Some("public_task"));
    assert_eq!(basis("consent = true"), Some("consent"), "it goes without saying");
    assert_eq!(basis("consent = true\nbasis = \"consent\""), Some("consent"));
    for wrong in ["basis = \"consent\"", "consent = true\nbasis = \"contract\""] {
        assert!(matches!(schema(wrong), Err(SchemaError::Rule { rule: "basis", .. })), "{wrong}");
    }
    assert!(matches!(schema("basis = \"because\""), Err(SchemaError::Syntax { .. })));
}

#[test]
fn separate_consent_is_for_classes_of_purposes_that_rest_on_consent() {
    let source = |lines: &str| {
        let purpose = format!("\n[purpose.offers]\ndescription = \"Offers\"\n{lines}\n");
        with("type = \"text\"\nclass = \"c2\"") + &purpose
    };
    let separate = |lines: &str| {
        let file = SchemaFile::parse(&source(lines)).unwrap();
        let schema = crate::Schema::evolve(None, &file, 1).unwrap();
        let again = crate::Schema::from_stored(&schema.to_stored()).unwrap();
        assert_eq!(again.purpose("offers"), schema.purpose("offers"));
        assert_eq!(again.to_stored(), schema.to_stored());
        // Schemas that were stored before there was such a list have none, and are written as they were.
        let stored = String::from_utf8(schema.to_stored()).unwrap();
        let named = stored.matches("\"separate_consent\":").count();
        (schema.purpose("offers").unwrap().separate_consent.clone(), named)
    };
    assert_eq!(separate("consent = true"), (vec![], 0));
    assert_eq!(separate("consent = true\nseparate_consent = []"), (vec![], 0));
    assert_eq!(separate("consent = true\nseparate_consent = [\"c3\", \"c2\"]"), (vec![Class::C3, Class::C2], 1));
    for lines in [
        "separate_consent = [\"c3\"]",
        "consent = false\nseparate_consent = [\"c3\"]",
        "consent = true\nseparate_consent = [\"c3\", \"c3\"]",
    ] {
        match SchemaFile::parse(&source(lines)) {
            Err(SchemaError::Rule { place, rule, .. }) => {
                assert_eq!((place.as_str(), rule), ("purpose offers", "separate_consent"), "{lines}");
            }
            other => panic!("{lines}: {other:?}"),
        }
    }
    let unknown = SchemaFile::parse(&source("consent = true\nseparate_consent = [\"c4\"]"));
    assert!(matches!(unknown, Err(SchemaError::Syntax { .. })));
}

#[test]
fn purposes_and_numbers_are_checked_across_the_file() {
    let rule = |source: &str| match SchemaFile::parse(source) {
        Err(SchemaError::Rule { rule, .. }) => rule,
        other => panic!("{other:?}"),
    };
    let note = "type = \"text\"\nclass = \"c2\"";
    assert_eq!(rule(&with(note).replace("[\"kyc\"]", "[\"other\"]")), "purpose_unknown");
    assert_eq!(rule(&with(note).replace("[\"kyc\"]", "[\"kyc\", \"kyc\"]")), "purpose_repeated");
    assert_eq!(rule(&with(note).replace("[\"kyc\"]", "[]")), "purposes");
    let many: String = (0..100).map(|number| format!("[purpose.p{number}]\ndescription = \"one\"\n")).collect();
    assert_eq!(rule(&format!("{}\n{many}", with(note))), "too_many");
    assert_eq!(rule(&with(note).replace("\"Checking\"", "\" \"")), "description");
    assert_eq!(rule(&with(note).replace("number = 1", "number = 0")), "number");
    assert_eq!(rule(&with(note).replace("borrower", "Borrower")), "name");
    let twice = format!("{}\n[field.a.b]\nnumber = 1\nretention = \"1y\"\npurposes = [\"kyc\"]\n{note}", with(note));
    assert_eq!(rule(&twice), "number_taken");
    assert_eq!(rule(""), "no_fields");
    assert_eq!(rule(&"#".repeat(MAX_SOURCE + 1)), "too_long");
}

proptest! {
    #[test]
    fn no_text_makes_parsing_panic(text in "(?s).{0,200}", lines in "(\\PC{0,20}\n){0,4}") {
        let _ = SchemaFile::parse(&text);
        let _ = SchemaFile::parse(&with(&lines));
    }
}
