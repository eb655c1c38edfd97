//! Deterministic fields: the same value, the same token; shared values and their holders.

use std::time::{Duration, SystemTime};

use strongroom_proto::v1;
use tonic::Code;

use crate::harness::{TestVault, Told, detokenize, item, one_token, read_one, tokenize, value};

const USCC: &str = "company.uscc";
const ACCOUNT: &str = "company.settlement_account";
const PURPOSE: &str = "kyc_review";
const LENDING: &str = include_str!("../../deploy/schemas/lending.toml");

/// Two more fields, of a type whose normal form differs from what people write.
const CARDS: &str = r#"
[field.company.director_card]
number = 90
type = "cn_id_card"
class = "c2"
retention = "10y"
lookup = true
deterministic = "tenant"
purposes = ["kyc_review"]
views = { plain = "plain" }

[field.borrower.spouse_card]
number = 91
type = "cn_id_card"
class = "c2"
retention = "10y"
lookup = true
deterministic = "per_subject"
purposes = ["kyc_review"]
views = { plain = "plain" }
"#;

/// A valid unified social credit code (GB 32100), another one for each number.
pub fn uscc(number: u64) -> String {
    const CHARACTERS: &[u8; 31] = b"0123456789ABCDEFGHJKLMNPQRTUWXY";
    let mut code = format!("91110{:011}", number % 100_000_000_000) + "M";
    let mut weight = 1;
    let mut sum = 0;
    for character in code.bytes() {
        sum += CHARACTERS.iter().position(|known| *known == character).unwrap() * weight;
        weight = weight * 3 % 31;
    }
    code.push(char::from(CHARACTERS[(31 - sum % 31) % 31]));
    code
}

/// Deletes one token, for one holder if one is named.
pub async fn delete(vault: &TestVault, token: &str, subject: &str) -> Result<(), Told> {
    let item = v1::DeleteItem { token: token.to_owned(), subject: subject.to_owned() };
    let request = v1::DeleteRequest { items: vec![item], idempotency_key: String::new() };
    let results = vault.vault().await.delete(request).await.unwrap().into_inner().results;
    results.into_iter().next().unwrap().problem.map_or(Ok(()), |problem| Err(problem.into()))
}

/// Reads one token in plain, as the value of one holder.
async fn read_as(vault: &TestVault, token: &str, subject: &str) -> Result<String, Told> {
    let mut request = detokenize(&[token], PURPOSE, "plain");
    request.items[0].subject = subject.to_owned();
    let results = vault.vault().await.detokenize(request).await.unwrap().into_inner().results;
    value(results.into_iter().next().unwrap()).map(|bytes| String::from_utf8(bytes).unwrap())
}

/// The tokens that stand for a value.
async fn lookup(vault: &TestVault, field: &str, value: &str) -> Vec<String> {
    let item = v1::LookupItem { field: field.to_owned(), value: value.to_owned().into() };
    let request = v1::LookupRequest { items: vec![item], purpose: PURPOSE.to_owned() };
    let result = vault.vault().await.lookup(request).await.unwrap().into_inner().results.remove(0);
    assert!(result.problem.is_none() && !result.more);
    result.tokens
}

/// How many items of the ledger ended so.
fn outcomes(leaves: &[serde_json::Value], action: &str, outcome: &str) -> usize {
    let of_action = leaves.iter().filter(|leaf| leaf["action"] == action);
    let items = of_action.filter_map(|leaf| leaf["items"].as_array()).flatten();
    items.filter(|item| item["outcome"] == outcome).count()
}

fn not_found(told: &Result<String, Told>) -> bool {
    matches!(told, Err(told) if told.code == Code::NotFound && told.reason == "NOT_FOUND")
}

#[tokio::test]
async fn a_company_has_one_token_whoever_sends_it() {
    let mut vault = TestVault::start();
    let code = uscc(1);
    let token = one_token(&vault, USCC, &code, "co-1").await;
    for subject in ["co-1", "co-2", ""] {
        assert_eq!(one_token(&vault, USCC, &code, subject).await, token, "{subject}");
    }
    // Lower case, and full-width forms as Chinese keyboards write them, are the same code.
    let wide: String = code.chars().map(|c| char::from_u32(u32::from(c) + 0xfee0).unwrap()).collect();
    for form in [code.to_lowercase(), wide.clone()] {
        assert_eq!(one_token(&vault, USCC, &form, "co-3").await, token, "{form}");
    }
    assert_ne!(one_token(&vault, USCC, &uscc(2), "co-1").await, token);

    // The value of a batch counts as soon as its first item.
    let third = uscc(3);
    let items = vec![
        item(USCC, &third, "co-4"),
        item(USCC, &code, "co-4"),
        item(USCC, &third.to_lowercase(), "co-5"),
        item("company.name", "新希望", "co-4"),
        item(USCC, &third, ""),
    ];
    let tokens = vault.vault().await.tokenize(tokenize(items)).await.unwrap().into_inner().tokens;
    assert_eq!(tokens[1], token);
    assert!(tokens[0] == tokens[2] && tokens[2] == tokens[4] && tokens[0] != tokens[1], "{tokens:?}");

    for form in [&code, &code.to_lowercase(), &wide] {
        assert_eq!(lookup(&vault, USCC, form).await, [token.as_str()]);
    }
    assert!(lookup(&vault, USCC, &uscc(4)).await.is_empty());
    // What is kept is what came first, to the letter.
    assert_eq!(read_one(&vault, &tokens[0], PURPOSE, "plain").await.unwrap(), third);
    for subject in ["co-1", "co-2", "co-3", "co-4", ""] {
        assert_eq!(read_as(&vault, &token, subject).await.unwrap(), code, "{subject}");
    }
    assert!(not_found(&read_as(&vault, &token, "co-5").await), "it holds the other code only");

    vault.kill();
    vault.up();
    assert_eq!(one_token(&vault, USCC, &code, "co-6").await, token);
    let leaves = vault.leaves().await;
    // Three codes and a name were stored; all else led to what stood already.
    assert_eq!(outcomes(&leaves, "tokenize", "ok"), 4);
    assert_eq!(outcomes(&leaves, "tokenize", "existing"), 9);
    vault.verify_ledger();
}

#[tokio::test]
async fn an_account_has_one_token_for_each_subject() {
    let vault = TestVault::start();
    let composed = "Café account 0042";
    let token = one_token(&vault, ACCOUNT, composed, "co-1").await;
    assert_eq!(one_token(&vault, ACCOUNT, composed, "co-1").await, token);
    // The same text with the accent as a character of its own.
    assert_eq!(one_token(&vault, ACCOUNT, "Cafe\u{301} account 0042", "co-1").await, token);
    let other = one_token(&vault, ACCOUNT, composed, "co-2").await;
    assert_ne!(other, token);
    assert_ne!(one_token(&vault, ACCOUNT, "another account", "co-1").await, token);

    let batch = ["co-2", "co-3", "co-1", "co-3"].map(|subject| item(ACCOUNT, composed, subject)).to_vec();
    let tokens = vault.vault().await.tokenize(tokenize(batch)).await.unwrap().into_inner().tokens;
    assert_eq!((&tokens[0], &tokens[2]), (&other, &token));
    assert!(tokens[1] == tokens[3] && tokens[1] != token && tokens[1] != other, "{tokens:?}");

    let nobody = tokenize(vec![item(ACCOUNT, composed, "")]);
    let told = Told::from(vault.vault().await.tokenize(nobody).await.err().unwrap());
    assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "SUBJECT_INVALID"));
    assert_eq!(told.violations, [("items[0].subject".to_owned(), "subject_required".to_owned())]);

    // Each subject's value goes by itself, and makes room for itself only.
    delete(&vault, &token, "").await.unwrap();
    assert!(not_found(&read_one(&vault, &token, "loan_servicing", "plain").await));
    assert_eq!(read_one(&vault, &other, "loan_servicing", "plain").await.unwrap(), composed);
    let anew = one_token(&vault, ACCOUNT, composed, "co-1").await;
    assert!(anew != token && anew != other);
    assert!(delete(&vault, &other, "co-1").await.is_err(), "that one belongs to another subject");
    assert_eq!(one_token(&vault, ACCOUNT, composed, "co-2").await, other);
}

#[tokio::test]
async fn a_small_x_gives_the_token_of_the_large_one() {
    let vault = TestVault::start();
    let source = format!("{LENDING}{CARDS}");
    vault.access().await.apply_schema(v1::ApplySchemaRequest { source, dry_run: false }).await.unwrap();
    let (small, large) = ("11010519491231002x", "11010519491231002X");

    let shared = one_token(&vault, "company.director_card", small, "co-1").await;
    assert_eq!(one_token(&vault, "company.director_card", large, "co-2").await, shared);
    assert_eq!(read_as(&vault, &shared, "co-2").await.unwrap(), small, "what came first is what is kept");
    assert_eq!(lookup(&vault, "company.director_card", large).await, [shared.as_str()]);

    let field = "borrower.spouse_card";
    let items = vec![item(field, large, "c-1"), item(field, small, "c-2"), item(field, small, "c-1")];
    let tokens = vault.vault().await.tokenize(tokenize(items)).await.unwrap().into_inner().tokens;
    assert!(tokens[0] == tokens[2] && tokens[0] != tokens[1]);
    assert_eq!(lookup(&vault, field, large).await, tokens[..2]);
    assert_eq!(lookup(&vault, field, small).await, tokens[..2]);
    assert_ne!(shared, tokens[0], "each field has an index key of its own");
}

#[tokio::test]
async fn a_shared_value_outlives_all_but_its_last_holder() {
    let vault = TestVault::start();
    let code = uscc(10);
    let token = one_token(&vault, USCC, &code, "a").await;
    one_token(&vault, USCC, &code, "b").await;
    one_token(&vault, "company.name", "有限公司", "not-a-holder").await;

    let unnamed = delete(&vault, &token, "").await.unwrap_err();
    assert_eq!((unnamed.code, unnamed.reason.as_str()), (Code::InvalidArgument, "SUBJECT_REQUIRED"));
    let stranger = delete(&vault, &token, "never-seen").await.unwrap_err();
    assert_eq!((stranger.code, stranger.reason.as_str()), (Code::NotFound, "NOT_FOUND"));
    // Who is no holder and who does not exist can't be told apart.
    assert_eq!(delete(&vault, &token, "not-a-holder").await.unwrap_err(), stranger);
    assert_eq!(read_as(&vault, &token, "never-seen").await, Err(stranger));
    assert_eq!(read_as(&vault, &token, "a").await.unwrap(), code);

    delete(&vault, &token, "a").await.unwrap();
    assert!(delete(&vault, &token, "a").await.is_err());
    assert!(not_found(&read_as(&vault, &token, "a").await));
    assert_eq!(read_as(&vault, &token, "b").await.unwrap(), code);
    assert_eq!(read_as(&vault, &token, "").await.unwrap(), code);
    assert_eq!(one_token(&vault, USCC, &code, "c").await, token);

    // Two of three hold it again; the value goes with the last.
    one_token(&vault, USCC, &code, "a").await;
    for subject in ["b", "a"] {
        delete(&vault, &token, subject).await.unwrap();
        assert_eq!(read_as(&vault, &token, "c").await.unwrap(), code);
    }
    delete(&vault, &token, "c").await.unwrap();
    for subject in ["a", "b", "c", ""] {
        assert!(not_found(&read_as(&vault, &token, subject).await), "{subject}");
    }
    assert!(lookup(&vault, USCC, &code).await.is_empty());

    let anew = one_token(&vault, USCC, &code, "b").await;
    assert_ne!(anew, token);
    assert!(not_found(&read_as(&vault, &token, "b").await));
    assert_eq!(lookup(&vault, USCC, &code).await, [anew.as_str()]);
    assert!(not_found(&read_as(&vault, &anew, "a").await), "it held the old value, not this one");
    let leaves = vault.leaves().await;
    assert_eq!(outcomes(&leaves, "delete", "released"), 3);
    assert_eq!(outcomes(&leaves, "delete", "deleted"), 1);
}

#[tokio::test]
async fn what_nobody_holds_is_deleted_without_a_name() {
    let vault = TestVault::start();
    let code = uscc(20);
    let token = one_token(&vault, USCC, &code, "").await;
    delete(&vault, &token, "").await.unwrap();
    assert!(not_found(&read_as(&vault, &token, "").await));

    // Sent without a subject and with one: both hold it, and each goes by itself.
    let token = one_token(&vault, USCC, &code, "").await;
    one_token(&vault, USCC, &code, "a").await;
    delete(&vault, &token, "").await.unwrap();
    assert_eq!(read_as(&vault, &token, "a").await.unwrap(), code);
    assert_eq!(delete(&vault, &token, "").await.unwrap_err().reason, "SUBJECT_REQUIRED");
    delete(&vault, &token, "a").await.unwrap();
    assert!(not_found(&read_as(&vault, &token, "a").await));
}

#[tokio::test]
async fn a_deterministic_value_is_never_replaced() {
    let vault = TestVault::start();
    let code = uscc(30);
    let shared = one_token(&vault, USCC, &code, "a").await;
    let own = one_token(&vault, ACCOUNT, "account-0001", "a").await;
    let name = one_token(&vault, "company.name", "新希望", "a").await;
    let replacement = |token: &str, value: String| v1::ReplaceItem {
        token: token.to_owned(),
        value: value.into(),
        expire_time: None,
    };
    let items = vec![
        replacement(&name, "旧希望".to_owned()),
        replacement(&shared, uscc(31)),
        replacement(&own, "account-0002".to_owned()),
    ];
    let request = v1::ReplaceRequest { items, idempotency_key: String::new() };
    let told = Told::from(vault.vault().await.replace(request).await.err().unwrap());
    assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "TOKEN_INVALID"));
    let rule = |index: usize| (format!("items[{index}].token"), "replace_not_allowed".to_owned());
    assert_eq!(told.violations, [rule(1), rule(2)]);
    assert_eq!(read_as(&vault, &shared, "a").await.unwrap(), code);
    assert_eq!(read_one(&vault, &own, "loan_servicing", "plain").await.unwrap(), "account-0001");
    assert_eq!(read_as(&vault, &name, "a").await.unwrap(), "新希望", "all or nothing");
}

#[tokio::test]
async fn an_expired_value_makes_room_for_a_new_token() {
    let vault = TestVault::start();
    let code = uscc(40);
    let soon = SystemTime::now() + Duration::from_secs(2);
    let mut items = vec![item(USCC, &code, "a"), item(USCC, &code, "b"), item(ACCOUNT, "account-0001", "a")];
    for item in &mut items {
        item.expire_time = Some(soon.into());
    }
    let old = vault.vault().await.tokenize(tokenize(items.clone())).await.unwrap().into_inner().tokens;
    assert_eq!(old[0], old[1]);
    loop {
        let gone = not_found(&read_as(&vault, &old[0], "a").await)
            && not_found(&read_one(&vault, &old[2], "loan_servicing", "plain").await);
        assert!(!gone || SystemTime::now() >= soon, "it went before its time");
        if gone {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(lookup(&vault, USCC, &code).await.is_empty());

    let told = Told::from(vault.vault().await.tokenize(tokenize(items.clone())).await.err().unwrap());
    assert_eq!(told.violations[0], ("items[0].expire_time".to_owned(), "expired".to_owned()));
    items.remove(0);
    for item in &mut items {
        item.expire_time = None;
    }
    let new = vault.vault().await.tokenize(tokenize(items)).await.unwrap().into_inner().tokens;
    assert!(new[0] != old[0] && new[1] != old[2]);
    assert_eq!(read_as(&vault, &new[0], "b").await.unwrap(), code);
    assert_eq!(read_one(&vault, &new[1], "loan_servicing", "plain").await.unwrap(), "account-0001");
    assert_eq!(lookup(&vault, USCC, &code).await, [new[0].as_str()]);
    // Whoever held the value that expired does not hold the new one, and the old token stays nobody's.
    assert!(not_found(&read_as(&vault, &new[0], "a").await));
    assert!(not_found(&read_as(&vault, &old[0], "b").await));
    assert!(delete(&vault, &old[0], "a").await.is_err());
    delete(&vault, &new[0], "b").await.unwrap();
    assert!(not_found(&read_as(&vault, &new[0], "b").await));
}
