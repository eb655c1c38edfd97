//! Values in, tokens out, and back: the main road.

mod views;

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::stream;
use strongroom_proto::v1;
use tonic::Code;

use crate::approvals::with_approval;
use crate::harness::{TestVault, Told, detokenize, item, one_token, read_one, refused, tokenize, value};

const ID_CARD: &str = "11010519491231002X";
const OTHER_ID_CARD: &str = "440524198801010011";
const CARD: &str = "6222020200012345670";

#[tokio::test]
async fn a_value_comes_back_in_the_view_that_was_asked_for() {
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    assert!(token.starts_with("srt1_") && token.len() == 27, "{token}");
    assert_eq!(read_one(&vault, &token, "kyc_review", "plain").await.unwrap(), ID_CARD);
    assert_eq!(read_one(&vault, &token, "kyc_review", "").await.unwrap(), "110105********002X");
    assert_eq!(read_one(&vault, &token, "kyc_review", "last4").await.unwrap(), "**************002X");

    // An item's own view goes before the request's.
    let mut request = detokenize(&[&token, &token], "kyc_review", "plain");
    request.items[0].view = "birth_year".to_owned();
    let results = vault.vault().await.detokenize(request).await.unwrap().into_inner().results;
    assert!(results.iter().all(|result| result.field == "borrower.id_card"));
    let values: Vec<_> = results.into_iter().map(|result| value(result).unwrap()).collect();
    assert_eq!(values, [b"1949".to_vec(), ID_CARD.as_bytes().to_vec()]);
    vault.verify_ledger();
}

#[tokio::test]
async fn values_survive_a_restart() {
    let mut vault = TestVault::start();
    let token = one_token(&vault, "borrower.name", "欧阳志远", "cust-1").await;
    assert!(vault.stop().success());
    vault.up();
    assert_eq!(read_one(&vault, &token, "loan_servicing", "plain").await.unwrap(), "欧阳志远");
    vault.verify_ledger();
}

#[tokio::test]
async fn batches_of_a_thousand_and_of_ten_thousand_keep_their_order() {
    let vault = TestVault::start();
    let mut client = vault.vault().await;
    for count in [1_000, 10_000] {
        let name = |n: usize| format!("Borrower {n} of {count}");
        let items = (0..count).map(|n| item("borrower.name", &name(n), &format!("cust-{}", n % 500))).collect();
        let tokens = client.tokenize(tokenize(items)).await.unwrap().into_inner().tokens;
        assert_eq!(tokens.iter().collect::<HashSet<_>>().len(), count);
        let asked: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let results = client.detokenize(detokenize(&asked, "kyc_review", "plain")).await.unwrap().into_inner().results;
        assert_eq!(results.len(), count);
        for (n, result) in results.into_iter().enumerate() {
            assert_eq!(value(result).unwrap(), name(n).into_bytes());
        }
    }
    vault.verify_ledger();
}

#[tokio::test]
async fn streams_answer_each_message_in_order() {
    use v1::{detokenize_stream_response as read, tokenize_stream_response as stored};
    let vault = TestVault::start();
    let mut client = vault.vault().await;
    let name = |message: usize, n: usize| format!("Borrower {n} of message {message}");
    let requests: Vec<_> = (0..20)
        .map(|message| tokenize((0..50).map(|n| item("borrower.name", &name(message, n), "cust-1")).collect()))
        .collect();
    let mut answers = client.tokenize_stream(stream::iter(requests)).await.unwrap().into_inner();
    let mut tokens = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        let Some(stored::Result::Response(response)) = answer.result else { panic!("a message was refused") };
        tokens.push(response.tokens);
    }
    assert_eq!(tokens.iter().map(Vec::len).collect::<Vec<_>>(), [50; 20]);

    // In the middle stands a message that is refused: a purpose that nobody declared.
    let mut requests: Vec<_> = tokens
        .iter()
        .map(|tokens| detokenize(&tokens.iter().map(String::as_str).collect::<Vec<_>>(), "kyc_review", "plain"))
        .collect();
    requests[7].purpose = "curiosity".to_owned();
    let mut answers = client.detokenize_stream(stream::iter(requests)).await.unwrap().into_inner();
    let mut message = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        match answer.result.unwrap() {
            read::Result::Response(response) => {
                let values: Vec<_> = response.results.into_iter().map(|result| value(result).unwrap()).collect();
                assert_eq!(values, (0..50).map(|n| name(message, n).into_bytes()).collect::<Vec<_>>());
            }
            read::Result::Problem(problem) => {
                assert_eq!(message, 7);
                assert_eq!(Told::from(problem).violations, [("purpose".to_owned(), "purpose_unknown".to_owned())]);
            }
        }
        message += 1;
    }
    assert_eq!(message, 20);
    vault.verify_ledger();
}

#[tokio::test]
async fn a_token_made_elsewhere_comes_in_only_where_policy_permits() {
    let vault = TestVault::start();
    let bring = |token: &str, value: &str| {
        tokenize(vec![v1::TokenizeItem { token: token.to_owned(), ..item("borrower.id_card", value, "cust-1") }])
    };
    let told = async |request: v1::TokenizeRequest| -> Told { refused(vault.vault().await.tokenize(request).await) };
    let denied = told(bring("LEGACY-0001", ID_CARD)).await;
    assert_eq!((denied.code, denied.reason.as_str()), (Code::PermissionDenied, "DENIED"));

    // The policies that ship let only the service named migration do so.
    let source = include_str!("../../deploy/policies/default.cedar").replace("app/migration", "app/app");
    let request = v1::ApplyPolicyRequest { source, tests: String::new(), dry_run: false };
    let apply = async || vault.access().await.apply_policy(request.clone()).await;
    with_approval(&vault, apply).await.unwrap();
    let mut client = vault.vault().await;
    let tokens = client.tokenize(bring("LEGACY-0001", ID_CARD)).await.unwrap().into_inner().tokens;
    assert_eq!(tokens, ["LEGACY-0001"]);
    assert_eq!(read_one(&vault, "LEGACY-0001", "kyc_review", "plain").await.as_deref(), Ok(ID_CARD));
    assert_eq!(lookup(&vault, "borrower.id_card", ID_CARD).await, ["LEGACY-0001"]);
    // It names its row exactly.
    assert_eq!(read_one(&vault, "legacy-0001", "kyc_review", "plain").await.unwrap_err().code, Code::NotFound);

    let own = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    let mut twice = bring("LEGACY-0002", ID_CARD);
    twice.items.push(twice.items[0].clone());
    let uscc = v1::TokenizeItem { token: "LEGACY-9".to_owned(), ..item("company.uscc", "91350100M000100Y43", "co-1") };
    for (request, path, rule) in [
        (bring("LEGACY-0001", OTHER_ID_CARD), "items[0].token", "token_taken"),
        (twice, "items[1].token", "token_taken"),
        (bring(&own, OTHER_ID_CARD), "items[0].token", "token_opaque"),
        (bring("has a space", OTHER_ID_CARD), "items[0].token", "token_malformed"),
        (bring("srt1_tooshort", OTHER_ID_CARD), "items[0].token", "token_malformed"),
        (tokenize(vec![uscc]), "items[0].token", "token_not_allowed"),
    ] {
        let refused = told(request).await;
        assert_eq!(refused.code, Code::InvalidArgument, "{refused:?}");
        assert_eq!(refused.violations, [(path.to_owned(), rule.to_owned())]);
    }
    assert_eq!(lookup(&vault, "borrower.id_card", OTHER_ID_CARD).await, [""; 0]);

    // Deleting it frees its name.
    assert!(delete(&vault, "LEGACY-0001").await.is_ok());
    assert_eq!(read_one(&vault, "LEGACY-0001", "kyc_review", "plain").await.unwrap_err().code, Code::NotFound);
    client.tokenize(bring("LEGACY-0001", OTHER_ID_CARD)).await.unwrap();
    assert_eq!(read_one(&vault, "LEGACY-0001", "kyc_review", "plain").await.as_deref(), Ok(OTHER_ID_CARD));
    vault.verify_ledger();
}

fn micros_now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()
}

#[tokio::test]
async fn an_expired_value_answers_like_one_that_never_was() {
    let vault = TestVault::start();
    let expires = micros_now() + 1_500_000;
    let mut short = item("borrower.id_card", ID_CARD, "cust-1");
    let at = short.expire_time.get_or_insert_default();
    (at.seconds, at.nanos) = ((expires / 1_000_000) as i64, (expires % 1_000_000) as i32 * 1_000);
    let mut long = item("borrower.name", "Ann", "cust-1");
    long.expire_time.get_or_insert_default().seconds = (expires / 1_000_000) as i64 + 86_400;
    let tokens = vault.vault().await.tokenize(tokenize(vec![short, long])).await.unwrap().into_inner().tokens;
    let (mut reads, mut gone) = (0, None);
    while gone.is_none() {
        let before = micros_now();
        let answer = read_one(&vault, &tokens[0], "kyc_review", "plain").await;
        match answer {
            Ok(value) => {
                assert_eq!(value, ID_CARD);
                assert!(before < expires, "read after its expiry");
                reads += 1;
            }
            Err(told) => {
                assert!(micros_now() >= expires, "gone before its expiry: {told:?}");
                gone = Some(told);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(reads > 0, "it was never readable");
    let never = read_one(&vault, "LEGACY-0001", "kyc_review", "plain").await.unwrap_err();
    assert_eq!(gone, Some(never));
    assert_eq!(lookup(&vault, "borrower.id_card", ID_CARD).await, [""; 0]);
    assert_eq!(match_one(&vault, &tokens[0], ID_CARD, "kyc_review").await.unwrap_err().code, Code::NotFound);
    assert_eq!(replace(&vault, &tokens[0], OTHER_ID_CARD).await.unwrap_err().code, Code::NotFound);
    assert_eq!(read_one(&vault, &tokens[1], "kyc_review", "plain").await.as_deref(), Ok("Ann"));
    // The true reason is in the ledger only.
    let leaves = vault.leaves().await;
    assert!(leaves.iter().any(|leaf| leaf["items"][0]["outcome"] == "EXPIRED"), "{leaves:?}");
}

#[tokio::test]
async fn a_replaced_value_keeps_its_token_and_the_old_one_is_gone() {
    let vault = TestVault::start();
    let id_card = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    let nobodys = one_token(&vault, "borrower.id_card", ID_CARD, "").await;
    let card = one_token(&vault, "borrower.bank_card", CARD, "cust-1").await;
    assert_eq!(replace(&vault, &id_card, OTHER_ID_CARD).await.unwrap(), [2]);
    assert_eq!(replace(&vault, &nobodys, OTHER_ID_CARD).await.unwrap(), [2]);
    assert_eq!(lookup(&vault, "borrower.id_card", ID_CARD).await, [""; 0]);
    assert_eq!(lookup(&vault, "borrower.id_card", OTHER_ID_CARD).await, [id_card.clone(), nobodys.clone()]);
    assert_eq!(replace(&vault, &id_card, ID_CARD).await.unwrap(), [3]);
    assert_eq!(read_one(&vault, &id_card, "kyc_review", "plain").await.as_deref(), Ok(ID_CARD));
    assert_eq!(read_one(&vault, &nobodys, "kyc_review", "plain").await.as_deref(), Ok(OTHER_ID_CARD));
    assert_eq!(match_one(&vault, &id_card, OTHER_ID_CARD, "kyc_review").await, Ok(false));
    // A shaped token stays too, whatever the new value looks like.
    assert_eq!(replace(&vault, &card, "4111111111111111").await.unwrap(), [2]);
    assert_eq!(read_one(&vault, &card, "loan_servicing", "plain").await.as_deref(), Ok("4111111111111111"));

    // All or nothing.
    let item = |token: &str, value: &str| v1::ReplaceItem {
        token: token.to_owned(),
        value: value.to_owned().into(),
        expire_time: None,
    };
    for (second, code, path, rule) in [
        (item("LEGACY-0001", ID_CARD), Code::NotFound, "items[1].token", "not_found"),
        (item(&card, "4111111111111112"), Code::InvalidArgument, "items[1].value", "luhn"),
        (item(&id_card, ID_CARD), Code::InvalidArgument, "items[1].token", "repeated"),
    ] {
        let items = vec![item(&id_card, OTHER_ID_CARD), second];
        let request = v1::ReplaceRequest { items, idempotency_key: String::new() };
        let told = refused(vault.vault().await.replace(request).await);
        assert_eq!((told.code, told.violations), (code, vec![(path.to_owned(), rule.to_owned())]));
    }
    assert_eq!(read_one(&vault, &id_card, "kyc_review", "plain").await.as_deref(), Ok(ID_CARD));
    vault.verify_ledger();
}

#[tokio::test]
async fn a_deleted_value_is_gone_from_everywhere() {
    let vault = TestVault::start();
    let mut tokens = Vec::new();
    for subject in ["cust-1", "cust-2", "", "cust-1"] {
        tokens.push(one_token(&vault, "borrower.id_card", ID_CARD, subject).await);
    }
    // Oldest first; the normal form counts.
    assert_eq!(lookup(&vault, "borrower.id_card", "11010519491231002x").await, tokens);
    assert!(delete(&vault, &tokens[1]).await.is_ok());
    assert_eq!(lookup(&vault, "borrower.id_card", ID_CARD).await, [&*tokens[0], &tokens[2], &tokens[3]]);
    let never = read_one(&vault, "LEGACY-0001", "kyc_review", "plain").await.unwrap_err();
    assert_eq!(read_one(&vault, &tokens[1], "kyc_review", "plain").await, Err(never));
    assert_eq!(match_one(&vault, &tokens[1], ID_CARD, "kyc_review").await.unwrap_err().code, Code::NotFound);
    assert_eq!(replace(&vault, &tokens[1], ID_CARD).await.unwrap_err().code, Code::NotFound);

    // Item by item: what is there goes, what is not says so.
    let item = |token: &str| v1::DeleteItem { token: token.to_owned(), subject: String::new() };
    let request = v1::DeleteRequest { items: vec![item(&tokens[1]), item(&tokens[2])], idempotency_key: String::new() };
    let results = vault.vault().await.delete(request).await.unwrap().into_inner().results;
    assert_eq!(results[0].problem.as_ref().map(|problem| problem.reason.as_str()), Some("NOT_FOUND"));
    assert!(results[1].problem.is_none());
    assert_eq!(lookup(&vault, "borrower.id_card", ID_CARD).await, [&*tokens[0], &tokens[3]]);
    vault.verify_ledger();
}

#[tokio::test]
async fn a_value_is_matched_in_its_normal_form_or_refused_as_no_value() {
    let vault = TestVault::start();
    let id_card = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    let mobile = one_token(&vault, "borrower.mobile", "13812345678", "cust-1").await;
    let item = |token: &str, value: &str| v1::MatchItem {
        token: token.to_owned(),
        value: value.to_owned().into(),
        subject: String::new(),
    };
    let items = vec![
        item(&id_card, "11010519491231002x"),
        item(&id_card, "１１０１０５１９４９１２３１００２Ｘ"),
        item(&id_card, OTHER_ID_CARD),
        item(&id_card, "110105194912310021"),
        item(&mobile, "+86-138-1234-5678"),
        item("LEGACY-0001", ID_CARD),
        item("srt1_", ID_CARD),
    ];
    let request = v1::MatchRequest { items, purpose: "kyc_review".to_owned() };
    let results = vault.vault().await.r#match(request).await.unwrap().into_inner().results;
    let answers: Vec<_> = results.into_iter().map(matched).collect();
    assert_eq!(answers[..3], [Ok(true), Ok(true), Ok(false)]);
    let wrong = answers[3].as_ref().unwrap_err();
    assert_eq!(wrong.code, Code::InvalidArgument);
    assert_eq!(wrong.violations, [("items[3].value".to_owned(), "check_digit".to_owned())]);
    assert_eq!(answers[4], Ok(true));
    assert_eq!(answers[5].as_ref().unwrap_err().code, Code::NotFound);
    assert_eq!(
        answers[6].as_ref().unwrap_err().violations,
        [("items[6].token".to_owned(), "token_malformed".to_owned())]
    );
}

#[tokio::test]
async fn a_look_up_answers_each_item_and_says_what_it_can_not_look_for() {
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.mobile", "13812345678", "cust-1").await;
    let item = |field: &str, value: &str| v1::LookupItem { field: field.to_owned(), value: value.to_owned().into() };
    let items = vec![
        item("borrower.mobile", "0086 138 1234 5678"),
        item("borrower.mobile", "13800000000"),
        // The same value under another field is another value.
        item("company.contact_mobile", "13812345678"),
        item("borrower.name", "Ann"),
        item("borrower.mobile", "12345"),
        item("borrower.nickname", "Ann"),
    ];
    let request = v1::LookupRequest { items, purpose: "loan_origination".to_owned() };
    let results = vault.vault().await.lookup(request).await.unwrap().into_inner().results;
    let tokens: Vec<_> = results.iter().map(|result| result.tokens.clone()).collect();
    assert_eq!(tokens, [vec![token], vec![], vec![], vec![], vec![], vec![]]);
    let problem = |index: usize| Told::from(results[index].problem.clone().unwrap()).violations;
    assert!(results[..3].iter().all(|result| result.problem.is_none() && !result.more));
    assert_eq!(problem(3), [("items[3].field".to_owned(), "lookup_not_declared".to_owned())]);
    assert_eq!(problem(4), [("items[4].value".to_owned(), "mobile".to_owned())]);
    assert_eq!(problem(5), [("items[5].field".to_owned(), "field_unknown".to_owned())]);
}

#[tokio::test]
async fn a_subject_that_is_named_must_be_the_one_whose_value_it_is() {
    let vault = TestVault::start();
    let own = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    let nobodys = one_token(&vault, "borrower.id_card", ID_CARD, "").await;
    let shared = one_token(&vault, "company.uscc", "91350100M000100Y43", "co-1").await;
    assert_eq!(one_token(&vault, "company.uscc", "91350100M000100Y43", "co-2").await, shared);
    one_token(&vault, "borrower.name", "Bo", "cust-2").await;
    for (token, subject, found) in [
        (&own, "", true),
        (&own, "cust-1", true),
        (&own, "cust-2", false),
        (&own, "never-seen", false),
        (&nobodys, "", true),
        (&nobodys, "cust-1", false),
        (&shared, "", true),
        (&shared, "co-1", true),
        (&shared, "co-2", true),
        (&shared, "cust-1", false),
    ] {
        let mut request = detokenize(&[token], "kyc_review", "plain");
        request.items[0].subject = subject.to_owned();
        let result = vault.vault().await.detokenize(request).await.unwrap().into_inner().results.remove(0);
        let code = value(result).err().map(|told| told.code);
        assert_eq!(code, (!found).then_some(Code::NotFound), "{token} of {subject:?}");

        let stored = if token == &shared { "91350100M000100Y43" } else { ID_CARD };
        let item = v1::MatchItem { token: token.clone(), value: stored.into(), subject: subject.to_owned() };
        let request = v1::MatchRequest { items: vec![item], purpose: "kyc_review".to_owned() };
        let result = vault.vault().await.r#match(request).await.unwrap().into_inner().results.remove(0);
        assert_eq!(matched(result).is_ok(), found, "{token} of {subject:?}");
    }
    vault.verify_ledger();
}

fn matched(result: v1::MatchResult) -> Result<bool, Told> {
    match result.result.unwrap() {
        v1::match_result::Result::Matched(matched) => Ok(matched),
        v1::match_result::Result::Problem(problem) => Err(problem.into()),
    }
}

async fn match_one(vault: &TestVault, token: &str, value: &str, purpose: &str) -> Result<bool, Told> {
    let item = v1::MatchItem { token: token.to_owned(), value: value.to_owned().into(), subject: String::new() };
    let request = v1::MatchRequest { items: vec![item], purpose: purpose.to_owned() };
    matched(vault.vault().await.r#match(request).await.unwrap().into_inner().results.remove(0))
}

async fn lookup(vault: &TestVault, field: &str, value: &str) -> Vec<String> {
    let item = v1::LookupItem { field: field.to_owned(), value: value.to_owned().into() };
    let request = v1::LookupRequest { items: vec![item], purpose: "kyc_review".to_owned() };
    let result = vault.vault().await.lookup(request).await.unwrap().into_inner().results.remove(0);
    assert!(result.problem.is_none());
    result.tokens
}

async fn replace(vault: &TestVault, token: &str, value: &str) -> Result<Vec<u32>, Told> {
    let item = v1::ReplaceItem { token: token.to_owned(), value: value.to_owned().into(), expire_time: None };
    let request = v1::ReplaceRequest { items: vec![item], idempotency_key: String::new() };
    Ok(vault.vault().await.replace(request).await?.into_inner().versions)
}

async fn delete(vault: &TestVault, token: &str) -> Result<(), Told> {
    let item = v1::DeleteItem { token: token.to_owned(), subject: String::new() };
    let request = v1::DeleteRequest { items: vec![item], idempotency_key: String::new() };
    match vault.vault().await.delete(request).await.unwrap().into_inner().results.remove(0).problem {
        Some(problem) => Err(problem.into()),
        None => Ok(()),
    }
}
