//! Reads and changes that ask wrongly: purposes, views, and tokens that lead nowhere.

use strongroom_proto::v1;
use tonic::Code;

use super::{BAD_ID_CARD, ID_CARD, assert_invalid, leaves_of, nothing_is_found, told, told_of_item};
use crate::harness::{TestVault, Told, detokenize, item, one_token, read_one};

/// What the items of a Detokenize were refused with.
async fn refused_reads(vault: &TestVault, tokens: &[&str], sent: &[&str]) -> Vec<Told> {
    let answer = vault.vault().await.detokenize(detokenize(tokens, "kyc_review", "plain")).await.unwrap();
    let results = answer.into_inner().results.into_iter();
    results
        .map(|result| match result.result.unwrap() {
            v1::detokenize_result::Result::Value(_) => panic!("a value was released"),
            v1::detokenize_result::Result::Problem(problem) => {
                assert_eq!(result.field, "");
                told_of_item(Some(problem), sent)
            }
        })
        .collect()
}

/// Texts that are no token, and the rule that each breaks. `token` is a real one.
fn malformed(token: &str) -> Vec<(String, &'static str)> {
    let changed = |at: usize, to: &str| format!("{}{to}{}", &token[..at], &token[at + 1..]);
    vec![
        (token[..token.len() - 1].to_owned(), "token_malformed"),
        (format!("{token}0"), "token_malformed"),
        (token[..5].to_owned(), "token_malformed"),
        (changed(10, "!"), "token_malformed"),
        (changed(10, " "), "token_malformed"),
        (changed(10, "ü"), "token_malformed"),
        (changed(10, "\0"), "token_malformed"),
        (token.replace("srt1_", "srt01_"), "token_malformed"),
        (token.replace("srt1_", "SRT1_"), "token_malformed"),
        (token.replace("srt1_", "srt99999999999_"), "token_malformed"),
        ("srt1_zzzzzzzzzzzzzzzzzzzzzz".to_owned(), "token_malformed"),
        (String::new(), "empty"),
        ("t".repeat(257), "too_long"),
    ]
}

/// Well-formed tokens that nobody made, in every form. `token` is a real one.
fn never_made(token: &str) -> Vec<String> {
    let last = if token.ends_with('0') { "1" } else { "0" };
    vec![
        format!("{}{last}", &token[..token.len() - 1]),
        token.replace("srt1_", "srt2_"),
        token.replace("srt1_", "srx1_"),
        token["srt1_".len()..].to_owned(),
        format!("srt1_{}", "0".repeat(22)),
        format!("srt1_{}", "a".repeat(26)),
        "622202000000001234".to_owned(),
        "0b3a7c5e-94c1-4b6e-8f57-2f8f3c1d9a01".to_owned(),
        "7n42DGM5Tflk9n8mt7Fhc7@token.invalid".to_owned(),
        "t".repeat(256),
    ]
}

#[tokio::test]
async fn a_purpose_is_named_and_declared() {
    let vault = TestVault::start();
    let mut client = vault.vault().await;
    let token = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    for (purpose, rule) in
        [("", "required"), ("curiosity_of_mine", "purpose_unknown"), ("KYC_REVIEW", "purpose_unknown")]
    {
        let sent = [ID_CARD, "curiosity_of_mine", "KYC_REVIEW", &token];
        let violations = [("purpose", rule)];
        let refused = told(client.detokenize(detokenize(&[&token], purpose, "plain")).await, &sent);
        assert_invalid(&refused, "PURPOSE_INVALID", &violations);
        let value: bytes::Bytes = ID_CARD.into();
        let item = v1::MatchItem { token: token.clone(), value: value.clone(), subject: String::new() };
        let request = v1::MatchRequest { items: vec![item], purpose: purpose.to_owned() };
        assert_invalid(&told(client.r#match(request).await, &sent), "PURPOSE_INVALID", &violations);
        let item = v1::LookupItem { field: "borrower.id_card".to_owned(), value };
        let request = v1::LookupRequest { items: vec![item], purpose: purpose.to_owned() };
        assert_invalid(&told(client.lookup(request).await, &sent), "PURPOSE_INVALID", &violations);
    }
    for action in ["detokenize", "match", "lookup"] {
        let leaves = leaves_of(&vault, action).await;
        assert_eq!(leaves.len(), 3, "{action}");
        for leaf in leaves {
            assert_eq!((&leaf["decision"], &leaf["purpose"]), (&"fail".into(), &serde_json::Value::Null), "{leaf}");
            assert!(!leaf.to_string().contains("curiosity"), "{leaf}");
        }
    }
}

#[tokio::test]
async fn an_unknown_view_is_refused_with_the_views_that_there_are() {
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    for view in ["first_half_of_it", "PLAIN", "plain ", "*"] {
        let told = read_one(&vault, &token, "kyc_review", view).await.unwrap_err();
        assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "VIEW_UNKNOWN"), "{view}");
        assert!(told.message.contains("masked") && told.message.contains("last4"), "{}", told.message);
        assert!(!told.message.contains("first_half") && !told.message.contains(ID_CARD), "{}", told.message);
    }
    let ledger = leaves_of(&vault, "detokenize").await;
    assert!(ledger.iter().all(|leaf| leaf["decision"] == "fail" && leaf["reason"] == "VIEW_UNKNOWN"), "{ledger:?}");
    assert_eq!(ledger.len(), 4);
    vault.verify_ledger();
}

#[tokio::test]
async fn a_call_has_items_and_not_too_many() {
    let vault = TestVault::start();
    let mut client = vault.vault().await;
    for (count, rule) in [(0, "empty"), (10_001, "too_many")] {
        let tokens = vec!["t"; count];
        let purpose = || "kyc_review".to_owned();
        let matches = v1::MatchRequest { items: vec![v1::MatchItem::default(); count], purpose: purpose() };
        let lookups = v1::LookupRequest { items: vec![v1::LookupItem::default(); count], purpose: purpose() };
        let key = String::new;
        let replaces = v1::ReplaceRequest { items: vec![v1::ReplaceItem::default(); count], idempotency_key: key() };
        let deletes = v1::DeleteRequest { items: vec![v1::DeleteItem::default(); count], idempotency_key: key() };
        for refused in [
            told(client.detokenize(detokenize(&tokens, "kyc_review", "")).await, &[]),
            told(client.r#match(matches).await, &[]),
            told(client.lookup(lookups).await, &[]),
            told(client.replace(replaces).await, &[]),
            told(client.delete(deletes).await, &[]),
        ] {
            assert_invalid(&refused, "ITEMS_INVALID", &[("items", rule)]);
        }
    }
}

#[tokio::test]
async fn a_text_that_is_no_token_is_told_from_one_that_nobody_made() {
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    let bad = malformed(&token);
    let texts: Vec<&str> = bad.iter().map(|(text, _)| text.as_str()).collect();
    let refused = refused_reads(&vault, &texts, &[ID_CARD, &token[5..]]).await;
    for (index, (told, (text, rule))) in refused.iter().zip(&bad).enumerate() {
        let path = format!("items[{index}].token");
        assert_eq!(told.violations, [(path, (*rule).to_owned())], "{text:?}");
        assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "TOKEN_INVALID"), "{text:?}");
    }
    let unknown = never_made(&token);
    let texts: Vec<&str> = unknown.iter().map(String::as_str).collect();
    let refused = refused_reads(&vault, &texts, &[ID_CARD, &token[5..]]).await;
    for (told, text) in refused.iter().zip(&unknown) {
        assert_eq!((told.code, told.reason.as_str()), (Code::NotFound, "NOT_FOUND"), "{text:?}");
        assert_eq!(*told, refused[0], "all answer alike");
    }
    assert_eq!(read_one(&vault, &token, "kyc_review", "plain").await.unwrap(), ID_CARD);
}

#[tokio::test]
async fn a_value_sent_in_the_place_of_a_token_does_not_end_in_the_ledger() {
    let vault = TestVault::start();
    let mut client = vault.vault().await;
    let told = refused_reads(&vault, &[ID_CARD, BAD_ID_CARD], &[ID_CARD, BAD_ID_CARD]).await;
    assert!(told.iter().all(|told| told.code == Code::NotFound));
    let item = v1::LookupItem { field: ID_CARD.to_owned(), value: BAD_ID_CARD.into() };
    let request = v1::LookupRequest { items: vec![item], purpose: "kyc_review".to_owned() };
    let found = client.lookup(request).await.unwrap().into_inner().results.remove(0);
    let unknown = told_of_item(found.problem, &[ID_CARD, BAD_ID_CARD]);
    assert_invalid(&unknown, "FIELD_UNKNOWN", &[("items[0].field", "field_unknown")]);
    let ledger = format!("{:?}", vault.leaves().await);
    assert!(!ledger.contains(ID_CARD) && !ledger.contains(BAD_ID_CARD));
    assert!(
        leaves_of(&vault, "detokenize").await[0]["items"][0]["sent"].is_string(),
        "a keyed hash says what was sent"
    );
    assert!(!vault.read_log().contains(ID_CARD));
}

#[tokio::test]
async fn a_subject_that_is_too_long_is_refused_wherever_it_stands() {
    let vault = TestVault::start();
    let mut client = vault.vault().await;
    let token = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    let subject = || "s".repeat(129);
    let violations = [("items[0].subject", "too_long")];
    let sent = ["ssssssss", ID_CARD];

    let mut request = detokenize(&[&token], "kyc_review", "plain");
    request.items[0].subject = subject();
    let read = client.detokenize(request).await.unwrap().into_inner().results.remove(0).result.unwrap();
    let v1::detokenize_result::Result::Problem(problem) = read else { panic!("a value was released") };
    assert_invalid(&told_of_item(Some(problem), &sent), "SUBJECT_INVALID", &violations);

    let item = v1::MatchItem { token: token.clone(), value: ID_CARD.into(), subject: subject() };
    let request = v1::MatchRequest { items: vec![item], purpose: "kyc_review".to_owned() };
    let matched = client.r#match(request).await.unwrap().into_inner().results.remove(0).result.unwrap();
    let v1::match_result::Result::Problem(problem) = matched else { panic!("it was compared") };
    assert_invalid(&told_of_item(Some(problem), &sent), "SUBJECT_INVALID", &violations);

    let items = vec![v1::DeleteItem { token: token.clone(), subject: subject() }];
    let request = v1::DeleteRequest { items, idempotency_key: String::new() };
    assert_invalid(&told(client.delete(request).await, &sent), "SUBJECT_INVALID", &violations);
    assert_eq!(read_one(&vault, &token, "kyc_review", "plain").await.unwrap(), ID_CARD);
}

#[tokio::test]
async fn a_bad_replacement_leaves_the_old_value() {
    let vault = TestVault::start();
    let mut client = vault.vault().await;
    let token = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    let other = one_token(&vault, "borrower.name", "王小明", "cust-1").await;
    let company = one_token(&vault, "company.uscc", "91350100M000100Y43", "comp-1").await;
    let to = |token: &str, value: &str| v1::ReplaceItem {
        token: token.to_owned(),
        value: value.to_owned().into(),
        expire_time: None,
    };
    let good = || to(&other, "李小明");
    let past = v1::ReplaceItem { expire_time: super::until(item("", "", ""), 1, 0).expire_time, ..to(&token, ID_CARD) };
    let unknown = never_made(&token).remove(0);
    let cases = [
        (to(&token, BAD_ID_CARD), Code::InvalidArgument, "VALUE_INVALID", "items[1].value", "check_digit"),
        (to(&token, ""), Code::InvalidArgument, "VALUE_INVALID", "items[1].value", "empty"),
        (to("srt1_x", ID_CARD), Code::InvalidArgument, "TOKEN_INVALID", "items[1].token", "token_malformed"),
        (to(&other, "赵小明"), Code::InvalidArgument, "TOKEN_INVALID", "items[1].token", "repeated"),
        (
            to(&company, "91110000600037341L"),
            Code::InvalidArgument,
            "TOKEN_INVALID",
            "items[1].token",
            "replace_not_allowed",
        ),
        (to(&unknown, ID_CARD), Code::NotFound, "NOT_FOUND", "items[1].token", "not_found"),
        (past, Code::InvalidArgument, "EXPIRE_TIME_INVALID", "items[1].expire_time", "expired"),
    ];
    let count = cases.len();
    for (bad, code, reason, path, rule) in cases {
        let request = v1::ReplaceRequest { items: vec![good(), bad], idempotency_key: String::new() };
        let sent = [ID_CARD, BAD_ID_CARD, "李小明", "91110000600037341L"];
        let told = told(client.replace(request).await, &sent);
        assert_eq!((told.code, told.reason.as_str()), (code, reason), "{told:?}");
        assert_eq!(told.violations, [(path.to_owned(), rule.to_owned())]);
    }
    let leaves = leaves_of(&vault, "replace").await;
    assert_eq!(leaves.iter().filter(|leaf| leaf["decision"] == "fail").count(), count);
    assert_eq!(read_one(&vault, &token, "kyc_review", "plain").await.unwrap(), ID_CARD);
    assert_eq!(read_one(&vault, &other, "kyc_review", "plain").await.unwrap(), "王小明");
    let gone = item("company.uscc", "91110000600037341L", "").value;
    nothing_is_found(&vault, "company.uscc", &[String::from_utf8(gone.to_vec()).unwrap()]).await;
}

#[tokio::test]
async fn a_bad_deletion_deletes_nothing() {
    let vault = TestVault::start();
    let mut client = vault.vault().await;
    let token = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    let delete = |tokens: &[&str]| v1::DeleteRequest {
        items: tokens.iter().map(|token| v1::DeleteItem { token: (*token).into(), subject: String::new() }).collect(),
        idempotency_key: String::new(),
    };
    for (bad, rule) in [("srt1_x", "token_malformed"), ("", "empty"), (token.as_str(), "repeated")] {
        let told = told(client.delete(delete(&[&token, bad])).await, &[ID_CARD, &token]);
        assert_invalid(&told, "TOKEN_INVALID", &[("items[1].token", rule)]);
        assert_eq!(read_one(&vault, &token, "kyc_review", "plain").await.unwrap(), ID_CARD);
    }
    // An unknown token is one item's own affair.
    let unknown = never_made(&token).remove(0);
    let results = client.delete(delete(&[&unknown, &token])).await.unwrap().into_inner().results;
    assert_eq!(told_of_item(results[0].problem.clone(), &[&unknown]).code, Code::NotFound);
    assert!(results[1].problem.is_none());
    assert_eq!(read_one(&vault, &token, "kyc_review", "plain").await.unwrap_err().code, Code::NotFound);
}
