//! What callers send wrongly: told exactly what and where, never with the value, recorded, and nothing is stored.

mod messages;
mod reads;
mod streams;

use strongroom_proto::v1;
use tonic::{Code, Status};

use crate::harness::{TestVault, Told, item, tokenize};
use crate::house::House;

const ID_CARD: &str = "11010519491231002X";
/// The same with a wrong check digit.
const BAD_ID_CARD: &str = "110105194912310021";
const BAD_CARD: &str = "6222021234567890";
const BAD_USCC: &str = "91110000600037341M";
const BAD_MOBILE: &str = "23800138000";

/// Reads a refusal, and sees that it gives nothing away of what was sent.
fn told<T>(answer: Result<T, Status>, sent: &[&str]) -> Told {
    let Err(status) = answer else { panic!("it was not refused") };
    let headers = format!("{:?}", status.metadata());
    let all = [status.message().as_bytes(), status.details(), headers.as_bytes()].concat();
    for sent in sent {
        let shown = all.windows(sent.len()).any(|part| part == sent.as_bytes());
        assert!(!shown, "the refusal repeats what was sent: {status:?}");
    }
    assert!(!status.details().is_empty(), "a refusal without details: {status:?}");
    status.into()
}

/// The same for one item of an answer.
fn told_of_item(problem: Option<v1::Problem>, sent: &[&str]) -> Told {
    let problem = problem.expect("it was refused");
    let mut all = format!("{} {}", problem.reason, problem.message);
    for one in &problem.violations {
        all.extend([&one.field, &one.rule, &one.description].map(String::as_str));
    }
    assert!(!sent.iter().any(|sent| all.contains(sent)), "the refusal repeats what was sent: {all}");
    problem.into()
}

/// Expects INVALID_ARGUMENT, a reason, and exactly these violations.
#[track_caller]
fn assert_invalid(told: &Told, reason: &str, violations: &[(&str, &str)]) {
    let violations: Vec<(String, String)> =
        violations.iter().map(|(path, rule)| ((*path).to_owned(), (*rule).to_owned())).collect();
    assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, reason), "{told:?}");
    assert_eq!(told.violations, violations, "{}", told.message);
}

/// The ledger's entries of one action.
async fn leaves_of(vault: &TestVault, action: &str) -> Vec<serde_json::Value> {
    vault.leaves().await.into_iter().filter(|leaf| leaf["action"] == action).collect()
}

/// Sees that the ledger knows of these failures and of no row, and repeats nothing of what was sent.
async fn recorded_as_failed(vault: &TestVault, action: &str, count: usize, sent: &[&str]) {
    let leaves = leaves_of(vault, action).await;
    assert_eq!(leaves.len(), count);
    for leaf in leaves {
        let text = leaf.to_string();
        assert_eq!(leaf["decision"], "fail", "{text}");
        assert!(leaf["reason"].is_string(), "{text}");
        assert!(!text.contains("\"row\""), "something was stored: {text}");
        assert!(!sent.iter().any(|sent| text.contains(sent)), "the ledger repeats what was sent: {text}");
    }
}

/// Sees that no value is found, of those fields that can be looked up.
async fn nothing_is_found(vault: &TestVault, field: &str, values: &[String]) {
    let items = values.iter().map(|value| v1::LookupItem { field: field.to_owned(), value: value.clone().into() });
    let request = v1::LookupRequest { items: items.collect(), purpose: "kyc_review".to_owned() };
    for found in vault.vault().await.lookup(request).await.unwrap().into_inner().results {
        assert!(found.problem.is_none() && found.tokens.is_empty());
    }
}

/// Identity numbers that are valid and all different.
fn id_cards(count: usize) -> Vec<String> {
    let weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let number = |which| {
        let digits = format!("11010519491231{which:03}");
        let sum: u32 = digits.bytes().zip(weights).map(|(digit, weight)| u32::from(digit - b'0') * weight).sum();
        format!("{digits}{}", char::from(b"10X98765432"[sum as usize % 11]))
    };
    (1..=count).map(number).collect()
}

/// An item that expires at an instant, sensible or not.
fn until(mut item: v1::TokenizeItem, seconds: i64, nanos: i32) -> v1::TokenizeItem {
    let at = item.expire_time.get_or_insert_default();
    (at.seconds, at.nanos) = (seconds, nanos);
    item
}

#[tokio::test]
async fn a_bad_value_is_refused_with_its_field_and_rule() {
    let vault = TestVault::start();
    let mut client = vault.vault().await;
    let long = "7".repeat(65_537);
    let spaces = "   ";
    let cases: [(&str, &[u8], &str); 10] = [
        ("borrower.id_card", BAD_ID_CARD.as_bytes(), "check_digit"),
        ("borrower.id_card", b"991105194912310021", "region"),
        ("borrower.bank_card", BAD_CARD.as_bytes(), "luhn"),
        ("company.uscc", BAD_USCC.as_bytes(), "check_digit"),
        ("borrower.mobile", BAD_MOBILE.as_bytes(), "mobile"),
        ("borrower.name", b"", "empty"),
        ("borrower.name", spaces.as_bytes(), "empty"),
        ("borrower.address", long.as_bytes(), "too_long"),
        ("borrower.name", b"Zh\xffang", "utf8"),
        ("borrower.name", b"\xed\xa0\x80", "utf8"),
    ];
    for (field, value, rule) in cases {
        let request = v1::TokenizeItem { value: value.to_vec().into(), ..item(field, "", "cust-1") };
        let sent = std::str::from_utf8(value).ok().filter(|sent| sent.trim().len() > 8);
        let refused = client.tokenize(tokenize(vec![request])).await;
        let told = told(refused, sent.as_slice());
        assert_invalid(&told, "VALUE_INVALID", &[("items[0].value", rule)]);
    }
    recorded_as_failed(&vault, "tokenize", cases.len(), &[BAD_ID_CARD, BAD_CARD, BAD_USCC, BAD_MOBILE, "cust-1"]).await;
    vault.verify_ledger();
}

#[tokio::test]
async fn what_stands_around_a_value_is_refused_with_its_path() {
    let vault = TestVault::start();
    let mut client = vault.vault().await;
    let good = || item("borrower.id_card", ID_CARD, "cust-1");
    let one = |change: fn(&mut v1::TokenizeItem)| {
        let mut item = good();
        change(&mut item);
        tokenize(vec![item])
    };
    let keyed = |key: String| v1::TokenizeRequest { idempotency_key: key, ..tokenize(vec![good()]) };
    let many = |count, of: v1::TokenizeItem| tokenize(vec![of; count]);
    let cases = [
        (one(|item| item.field = "borrower.shoe_size".into()), "FIELD_UNKNOWN", "items[0].field", "field_unknown"),
        (one(|item| item.field = String::new()), "FIELD_UNKNOWN", "items[0].field", "field_unknown"),
        (one(|item| item.subject = "s".repeat(129)), "SUBJECT_INVALID", "items[0].subject", "too_long"),
        (one(|item| item.subject = "å".repeat(65)), "SUBJECT_INVALID", "items[0].subject", "too_long"),
        (one(|item| item.token = "t".repeat(257)), "TOKEN_INVALID", "items[0].token", "too_long"),
        (keyed("k".repeat(129)), "IDEMPOTENCY_KEY_INVALID", "idempotency_key", "too_long"),
        (tokenize(vec![until(good(), 1_000_000_000, 0)]), "EXPIRE_TIME_INVALID", "items[0].expire_time", "expired"),
        (tokenize(vec![until(good(), -1, 0)]), "EXPIRE_TIME_INVALID", "items[0].expire_time", "expired"),
        (tokenize(vec![until(good(), 0, 0)]), "EXPIRE_TIME_INVALID", "items[0].expire_time", "expired"),
        (
            tokenize(vec![item("company.settlement_account", "6222 0000 1111", "")]),
            "SUBJECT_INVALID",
            "items[0].subject",
            "subject_required",
        ),
        (tokenize(vec![]), "ITEMS_INVALID", "items", "empty"),
        (many(10_001, good()), "ITEMS_INVALID", "items", "too_many"),
        (many(257, item("borrower.address", &"7".repeat(65_536), "")), "ITEMS_INVALID", "items", "too_long"),
    ];
    let count = cases.len();
    for (request, reason, path, rule) in cases {
        let told = told(client.tokenize(request).await, &[ID_CARD, "shoe_size", "kkkkkkkk", "ssssssss"]);
        assert_invalid(&told, reason, &[(path, rule)]);
    }
    recorded_as_failed(&vault, "tokenize", count, &[ID_CARD, "shoe_size", "cust-1"]).await;
    nothing_is_found(&vault, "borrower.id_card", &[ID_CARD.to_owned()]).await;
    // The longest that may be sent is taken.
    let longest = v1::TokenizeRequest {
        items: vec![v1::TokenizeItem { subject: "s".repeat(128), ..good() }],
        idempotency_key: "k".repeat(128),
    };
    client.tokenize(longest).await.unwrap();
    client.tokenize(tokenize(vec![item("borrower.address", &"7".repeat(65_536), "")])).await.unwrap();
}

#[tokio::test]
async fn an_instant_that_no_calendar_has_is_refused() {
    let vault = TestVault::start();
    let mut client = vault.vault().await;
    let absurd = [
        (i64::MAX, 0),
        (i64::MIN, 0),
        (253_402_300_800, 0),
        (-62_135_596_801, 0),
        (2_000_000_000, -1),
        (2_000_000_000, 1_000_000_000),
        (i64::MAX, i32::MAX),
        (0, i32::MIN),
    ];
    for (seconds, nanos) in absurd {
        let request = until(item("borrower.id_card", ID_CARD, "cust-1"), seconds, nanos);
        let refused = client.tokenize(tokenize(vec![request])).await;
        let told = told(refused, &[ID_CARD]);
        assert_invalid(&told, "EXPIRE_TIME_INVALID", &[("items[0].expire_time", "timestamp_range")]);
    }
    nothing_is_found(&vault, "borrower.id_card", &[ID_CARD.to_owned()]).await;
    let last = until(item("borrower.name", "Li", ""), 253_402_300_799, 999_999_999);
    client.tokenize(tokenize(vec![last])).await.unwrap();
}

#[tokio::test]
async fn one_bad_item_among_many_keeps_all_from_being_stored() {
    let vault = TestVault::start();
    let mut client = vault.vault().await;
    let cards = id_cards(100);
    let mut items: Vec<_> = cards.iter().map(|card| item("borrower.id_card", card, "cust-1")).collect();
    items[57] = item("borrower.bank_card", BAD_CARD, "cust-1");
    let request = v1::TokenizeRequest { items, idempotency_key: "all-or-nothing".to_owned() };
    let told = told(client.tokenize(request.clone()).await, &[BAD_CARD, &cards[0]]);
    assert_invalid(&told, "VALUE_INVALID", &[("items[57].value", "luhn")]);
    recorded_as_failed(&vault, "tokenize", 1, &[BAD_CARD, &cards[0]]).await;
    nothing_is_found(&vault, "borrower.id_card", &cards).await;
    // The refusal did not consume the key.
    let mut corrected = request;
    corrected.items[57] = item("borrower.id_card", &cards[57], "cust-1");
    assert_eq!(client.tokenize(corrected).await.unwrap().into_inner().tokens.len(), 100);
}

#[tokio::test]
async fn every_bad_item_is_named_as_far_as_an_answer_reaches() {
    let vault = TestVault::start();
    let mut client = vault.vault().await;
    let mut items = vec![item("borrower.id_card", ID_CARD, "cust-1"); 6];
    items[1] = item("borrower.id_card", BAD_ID_CARD, "cust-1");
    items[3] = item("borrower.bank_card", BAD_CARD, "cust-1");
    items[4] = until(item("company.uscc", BAD_USCC, "cust-1"), 1, 0);
    let refused = told(client.tokenize(tokenize(items)).await, &[BAD_ID_CARD, BAD_CARD, BAD_USCC]);
    let named = [
        ("items[1].value", "check_digit"),
        ("items[3].value", "luhn"),
        ("items[4].value", "check_digit"),
        ("items[4].expire_time", "expired"),
    ];
    assert_invalid(&refused, "INVALID", &named);

    // Trailers have a bound, so the rest is counted.
    let many = vec![item("borrower.id_card", BAD_ID_CARD, "cust-1"); 10_000];
    let refused = told(client.tokenize(tokenize(many)).await, &[BAD_ID_CARD]);
    assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "VALUE_INVALID"));
    assert!((10..=20).contains(&refused.violations.len()), "{refused:?}");
    assert!(refused.message.ends_with(&format!("{} of 10000 violations are listed", refused.violations.len())));
    nothing_is_found(&vault, "borrower.id_card", &[ID_CARD.to_owned()]).await;
    vault.verify_ledger();
}

#[tokio::test]
async fn a_token_from_elsewhere_is_taken_only_if_it_is_none_of_the_vaults_own() {
    let house = House::lending(&["lending"]).await;
    let brings = |field: &str, value: &str, token: &str| v1::TokenizeItem {
        token: token.to_owned(),
        ..item(field, value, "cust-1")
    };
    let mut migration = house.vault("lending", "migration").await;
    let opaque = format!("srt1_{}", "0".repeat(21) + "7");
    let cases = [
        (brings("borrower.id_card", ID_CARD, &opaque), "token_opaque"),
        (brings("borrower.id_card", ID_CARD, "srt1_short"), "token_malformed"),
        (brings("borrower.id_card", ID_CARD, "SRT1_0123456789"), "token_malformed"),
        (brings("borrower.id_card", ID_CARD, "two words"), "token_malformed"),
        (brings("borrower.id_card", ID_CARD, "zeichen-ß"), "token_malformed"),
        (brings("company.settlement_account", "6222 0000 1111", "acc-1"), "token_not_allowed"),
    ];
    for (brought, rule) in cases {
        let sent = brought.token.clone();
        let told = told(migration.tokenize(tokenize(vec![brought])).await, &[ID_CARD, &sent]);
        assert_invalid(&told, "TOKEN_INVALID", &[("items[0].token", rule)]);
    }
    let twice = vec![brings("borrower.id_card", ID_CARD, "old-1"), brings("borrower.name", "Li", "old-1")];
    let refused = told(migration.tokenize(tokenize(twice)).await, &[ID_CARD, "old-1"]);
    assert_invalid(&refused, "TOKEN_INVALID", &[("items[1].token", "token_taken")]);
    // Other services bring none, whatever it looks like.
    let own = || tokenize(vec![brings("borrower.id_card", ID_CARD, "old-1")]);
    let denied = told(house.vault("lending", "core").await.tokenize(own()).await, &[ID_CARD, "old-1"]);
    assert_eq!((denied.code, denied.reason.as_str()), (Code::PermissionDenied, "DENIED"));
    // Nothing of all that has taken the token.
    assert_eq!(migration.tokenize(own()).await.unwrap().into_inner().tokens, ["old-1"]);
    let taken = told(migration.tokenize(own()).await, &[ID_CARD, "old-1"]);
    assert_invalid(&taken, "TOKEN_INVALID", &[("items[0].token", "token_taken")]);
    let ledger = house.ledger("lending").await.concat();
    assert!(!ledger.contains("old-1") && !ledger.contains(ID_CARD));
}
