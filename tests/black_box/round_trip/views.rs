//! Every field, type, view and token format, as tables say it.

use std::collections::BTreeSet;

use strongroom_proto::v1;
use tonic::Code;

use super::{CARD, ID_CARD, match_one};
use crate::harness::{TestVault, detokenize, item, one_token, read_one, refused, tokenize, value};

/// Field, value, a purpose that the field lists, and what each of its views shows.
type Expected = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const LENDING: &[Expected] = &[
    ("borrower.name", "欧阳志远", "kyc_review", &[("masked", "欧阳**"), ("plain", "欧阳志远")]),
    (
        "borrower.id_card",
        "11010519491231002x",
        "kyc_review",
        &[
            ("masked", "110105********002X"),
            ("last4", "**************002X"),
            ("birth_year", "1949"),
            // What was stored, not its normal form.
            ("plain", "11010519491231002x"),
        ],
    ),
    (
        "borrower.mobile",
        "+86 138 1234 5678",
        "collections",
        &[("masked", "138****5678"), ("last4", "*******5678"), ("plain", "+86 138 1234 5678")],
    ),
    (
        "borrower.bank_card",
        CARD,
        "loan_servicing",
        &[
            ("masked", "622202*********5670"),
            ("last4", "***************5670"),
            ("bin", "622202*************"),
            ("plain", CARD),
        ],
    ),
    (
        "borrower.email",
        "Zhiyuan.O@Example.com",
        "loan_servicing",
        &[("masked", "Z***@example.com"), ("plain", "Zhiyuan.O@Example.com")],
    ),
    (
        "borrower.address",
        "北京市朝阳区建国门外大街1号院\n2号楼",
        "loan_origination",
        &[("masked", "北京市朝阳区******"), ("plain", "北京市朝阳区建国门外大街1号院\n2号楼")],
    ),
    ("borrower.monthly_income", "8500.50", "loan_origination", &[("masked", "******"), ("plain", "8500.50")]),
    ("borrower.password_hash", "$argon2id$v=19$m=65536$c2FsdA$aGFzaA", "loan_servicing", &[]),
    (
        "borrower.account_opened",
        "2019-02-28",
        "loan_servicing",
        &[("masked", "******"), ("year", "2019"), ("plain", "2019-02-28")],
    ),
    ("company.name", "Acme (华北) Ltd.", "kyc_review", &[("masked", "A**"), ("plain", "Acme (华北) Ltd.")]),
    (
        "company.uscc",
        "91350100M000100Y43",
        "kyc_review",
        &[("masked", "9135**********0Y43"), ("last4", "**************0Y43"), ("plain", "91350100M000100Y43")],
    ),
    ("company.legal_representative", "阿里·买买提", "kyc_review", &[("masked", "阿**"), ("plain", "阿里·买买提")]),
    (
        "company.contact_mobile",
        "13987654321",
        "collections",
        &[("masked", "139****4321"), ("last4", "*******4321"), ("plain", "13987654321")],
    ),
    (
        "company.settlement_account",
        "CN-6222-0001",
        "loan_servicing",
        &[("masked", "******"), ("last4", "******0001"), ("plain", "CN-6222-0001")],
    ),
];

#[tokio::test]
async fn every_field_of_the_lending_schema_comes_back_in_every_view() {
    let vault = TestVault::start();
    let schema = include_str!("../../../deploy/schemas/lending.toml");
    assert_eq!(declared_views(schema), expected_views(LENDING), "the table above is that of the schema");
    let items = LENDING.iter().map(|(field, value, ..)| item(field, value, "cust-1")).collect();
    let tokens = vault.vault().await.tokenize(tokenize(items)).await.unwrap().into_inner().tokens;
    for ((field, stored, purpose, views), token) in LENDING.iter().zip(&tokens) {
        for (view, shown) in *views {
            assert_eq!(read_one(&vault, token, purpose, view).await.as_deref(), Ok(*shown), "{field} as {view}");
        }
        assert_eq!(match_one(&vault, token, stored, purpose).await, Ok(true), "{field}");
    }
    // Class c3: compared, and shown to nobody.
    let secret = &tokens[LENDING.iter().position(|(field, ..)| *field == "borrower.password_hash").unwrap()];
    for view in ["", "masked", "plain"] {
        assert_eq!(
            read_one(&vault, secret, "loan_servicing", view).await.unwrap_err().code,
            Code::NotFound,
            "{view:?}"
        );
    }
    assert_eq!(match_one(&vault, secret, "$argon2id$v=19$m=65536$c2FsdA$aGFzaB", "loan_servicing").await, Ok(false));
    vault.verify_ledger();
}

/// Fields and views as a schema file declares them.
fn declared_views(source: &str) -> BTreeSet<(String, String)> {
    let schema: toml::Table = source.parse().unwrap();
    let mut views = BTreeSet::new();
    for (collection, fields) in schema["field"].as_table().unwrap() {
        for (name, field) in fields.as_table().unwrap() {
            let full_name = format!("{collection}.{name}");
            if field["class"].as_str() != Some("c3") {
                views.insert((full_name.clone(), "masked".to_owned()));
            }
            for (view, _) in field.get("views").and_then(toml::Value::as_table).into_iter().flatten() {
                views.insert((full_name.clone(), view.clone()));
            }
        }
    }
    views
}

fn expected_views(table: &[Expected]) -> BTreeSet<(String, String)> {
    let pair = |field: &str, view: &str| (field.to_owned(), view.to_owned());
    table.iter().flat_map(|(field, _, _, views)| views.iter().map(|(view, _)| pair(field, view))).collect()
}

/// All types and token formats that the lending schema does not have; numbers go on after its own.
const OTHER_TYPES: &str = r##"
[purpose.loan_servicing]
description = "Paying out and collecting instalments"

[field.kyc]
words      = { number = 101, type = "text", class = "c2", retention = "180d", token = "opaque_base32", purposes = ["loan_servicing"], views = { plain = "plain", last4 = "hidden" } }
scan       = { number = 102, type = "bytes", class = "c2", retention = "forever", token = "uuid", purposes = ["loan_servicing"], views = { plain = "plain" } }
employees  = { number = 103, type = "integer", class = "c1", retention = "1y", purposes = ["loan_servicing"], views = { plain = "plain" } }
details    = { number = 104, type = "json", class = "c2", retention = "1y", purposes = ["loan_servicing"], views = { plain = "plain" } }
phone      = { number = 105, type = "phone", class = "c2", retention = "1y", token = "digits", lookup = true, purposes = ["loan_servicing"], views = { plain = "plain" } }
passport   = { number = 106, type = "passport", class = "c2", retention = "1y", token = "uuid", lookup = true, purposes = ["loan_servicing"], views = { plain = "plain" } }
iban       = { number = 107, type = "iban", class = "c2", retention = "1y", lookup = true, purposes = ["loan_servicing"], views = { plain = "plain", bin = { first = 2, fill = "#" } } }
ssn        = { number = 108, type = "ssn", class = "c2", retention = "1y", lookup = true, purposes = ["loan_servicing"], views = { plain = "plain", last4 = { last = 4 } } }
id_card    = { number = 109, type = "cn_id_card", class = "c2", retention = "1y", token = "digits", lookup = true, purposes = ["loan_servicing"], views = { plain = "plain", birth_year = "year" } }
mobile     = { number = 110, type = "cn_mobile", class = "c2", retention = "1y", token = "digits", purposes = ["loan_servicing"], views = { plain = "plain" } }
card       = { number = 111, type = "bank_card", class = "c2", retention = "1y", token = "digits", purposes = ["loan_servicing"], views = { plain = "plain" } }
account    = { number = 112, type = "text", class = "c2", retention = "1y", token = "digits", purposes = ["loan_servicing"], views = { plain = "plain" } }
code       = { number = 113, type = "cn_uscc", class = "c2", retention = "1y", token = "opaque_base32", lookup = true, deterministic = "per_subject", purposes = ["loan_servicing"], views = { plain = "plain" } }
"##;

const OTHERS: &[Expected] = &[
    (
        "kyc.words",
        "plain words, \u{1f600} and\u{0} controls",
        "loan_servicing",
        &[("masked", "******"), ("last4", "****"), ("plain", "plain words, \u{1f600} and\u{0} controls")],
    ),
    ("kyc.employees", "+0042", "loan_servicing", &[("masked", "******"), ("plain", "+0042")]),
    ("kyc.details", "{\"a\": [1, 2]}", "loan_servicing", &[("masked", "******"), ("plain", "{\"a\": [1, 2]}")]),
    ("kyc.phone", "+44 20 7946 0958", "loan_servicing", &[("masked", "*********0958"), ("plain", "+44 20 7946 0958")]),
    ("kyc.passport", "e12345678", "loan_servicing", &[("masked", "E******78"), ("plain", "e12345678")]),
    (
        "kyc.iban",
        "GB82 WEST 1234 5698 7654 32",
        "loan_servicing",
        &[
            ("masked", "GB****************5432"),
            ("bin", "GB####################"),
            ("plain", "GB82 WEST 1234 5698 7654 32"),
        ],
    ),
    (
        "kyc.ssn",
        "078-05-1120",
        "loan_servicing",
        &[("masked", "***-**-1120"), ("last4", "*****1120"), ("plain", "078-05-1120")],
    ),
    (
        "kyc.id_card",
        ID_CARD,
        "loan_servicing",
        &[("masked", "110105********002X"), ("birth_year", "1949"), ("plain", ID_CARD)],
    ),
    ("kyc.mobile", "13812345678", "loan_servicing", &[("masked", "138****5678"), ("plain", "13812345678")]),
    (
        "kyc.card",
        "4111 1111 1111 1111",
        "loan_servicing",
        &[("masked", "411111******1111"), ("plain", "4111 1111 1111 1111")],
    ),
    ("kyc.account", "No. 1234567890-1", "loan_servicing", &[("masked", "******"), ("plain", "No. 1234567890-1")]),
    (
        "kyc.code",
        "91350100M000100Y43",
        "loan_servicing",
        &[("masked", "9135**********0Y43"), ("plain", "91350100M000100Y43")],
    ),
];

#[tokio::test]
async fn every_other_type_and_token_format_comes_back() {
    let vault = TestVault::start();
    let source = OTHER_TYPES.to_owned();
    vault.access().await.apply_schema(v1::ApplySchemaRequest { source, dry_run: false }).await.unwrap();
    let items = OTHERS.iter().map(|(field, value, ..)| item(field, value, "cust-1")).collect();
    let tokens = vault.vault().await.tokenize(tokenize(items)).await.unwrap().into_inner().tokens;
    let mut seen = expected_views(OTHERS);
    for ((field, stored, purpose, views), token) in OTHERS.iter().zip(&tokens) {
        for (view, shown) in *views {
            assert_eq!(read_one(&vault, token, purpose, view).await.as_deref(), Ok(*shown), "{field} as {view}");
        }
        assert_eq!(match_one(&vault, token, stored, purpose).await, Ok(true), "{field}");
        assert!(!token.contains(stored), "{field}");
    }

    // Bytes that are no text.
    let scan: Vec<u8> = (0..=255).collect();
    let mut bytes = item("kyc.scan", "", "");
    bytes.value = scan.clone().into();
    let scan_token = vault.vault().await.tokenize(tokenize(vec![bytes])).await.unwrap().into_inner().tokens.remove(0);
    let results = vault.vault().await.detokenize(detokenize(&[&scan_token], "loan_servicing", "plain")).await.unwrap();
    assert_eq!(value(results.into_inner().results.remove(0)).unwrap(), scan);
    assert_eq!(read_one(&vault, &scan_token, "loan_servicing", "masked").await.as_deref(), Ok("******"));
    seen.extend([("kyc.scan".to_owned(), "masked".to_owned()), ("kyc.scan".to_owned(), "plain".to_owned())]);
    assert_eq!(declared_views(OTHER_TYPES), seen, "the table above is that of the schema");

    let token = |field: &str| &tokens[OTHERS.iter().position(|(name, ..)| *name == field).unwrap()];
    let digits = |text: &str| !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    let base32 = |text: &str| text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'));
    for (field, length) in
        [("kyc.phone", 12), ("kyc.id_card", 17), ("kyc.mobile", 11), ("kyc.card", 16), ("kyc.account", 11)]
    {
        assert!(digits(token(field)) && token(field).len() == length, "{field}: {}", token(field));
    }
    for uuid in [&scan_token, token("kyc.passport")] {
        let version = uuid.split('-').nth(2).unwrap();
        assert!(uuid.len() == 36 && version.starts_with('4'), "{uuid}");
    }
    for field in ["kyc.words", "kyc.code"] {
        let (prefix, folding) = token(field).split_once('_').unwrap();
        assert!(prefix == "srt1" && folding.len() == 26 && base32(folding), "{}", token(field));
    }
    // Columns that fold case keep a base-32 token.
    let folded = token("kyc.words").to_ascii_uppercase();
    assert_eq!(read_one(&vault, &folded, "loan_servicing", "last4").await.as_deref(), Ok("****"));
    vault.verify_ledger();
}

#[tokio::test]
async fn shaped_tokens_keep_what_they_promise_and_no_more() {
    let vault = TestVault::start();
    let card = one_token(&vault, "borrower.bank_card", "6222 0202 0001 2345 670", "cust-1").await;
    assert!(card.len() == 19 && card.starts_with("622202") && card.ends_with("5670") && card != CARD, "{card}");
    let again = vault.vault().await.tokenize(tokenize(vec![item("borrower.bank_card", &card, "")])).await;
    assert_eq!(refused(again).violations, [("items[0].value".to_owned(), "luhn".to_owned())]);
    let email = one_token(&vault, "borrower.email", "a@example.com", "cust-1").await;
    assert!(email.ends_with("@token.invalid") && email.len() == 22 + 14, "{email}");
    // The same value twice: two tokens, unless the field is deterministic.
    assert_ne!(one_token(&vault, "borrower.email", "a@example.com", "cust-1").await, email);
    assert_eq!(read_one(&vault, &email, "collections", "plain").await.as_deref(), Ok("a@example.com"));
}
