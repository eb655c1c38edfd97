//! Idempotency: a write that is sent again does nothing again.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use strongroom_proto::v1;
use strongroom_proto::v1::tokenize_stream_response::Result as Streamed;
use tonic::{Code, Status};

use crate::deterministic::{delete, uscc};
use crate::harness::{TestVault, Told, item, one_token, read_one};

const KEY: &str = "order-4711";

fn keyed(key: &str, items: Vec<v1::TokenizeItem>) -> v1::TokenizeRequest {
    v1::TokenizeRequest { items, idempotency_key: key.to_owned() }
}

fn replacement(key: &str, pairs: &[(&str, &str)]) -> v1::ReplaceRequest {
    let item = |(token, value): &(&str, &str)| v1::ReplaceItem {
        token: (*token).to_owned(),
        value: (*value).to_owned().into(),
        expire_time: None,
    };
    v1::ReplaceRequest { items: pairs.iter().map(item).collect(), idempotency_key: key.to_owned() }
}

fn deletion(key: &str, tokens: &[&str]) -> v1::DeleteRequest {
    let item = |token: &&str| v1::DeleteItem { token: (*token).to_owned(), subject: String::new() };
    v1::DeleteRequest { items: tokens.iter().map(item).collect(), idempotency_key: key.to_owned() }
}

async fn send(vault: &TestVault, request: v1::TokenizeRequest) -> Result<Vec<String>, Told> {
    vault.vault().await.tokenize(request).await.map(|answer| answer.into_inner().tokens).map_err(Told::from)
}

async fn replace(vault: &TestVault, request: v1::ReplaceRequest) -> Result<Vec<u32>, Told> {
    vault.vault().await.replace(request).await.map(|answer| answer.into_inner().versions).map_err(Told::from)
}

/// The reason of each item that was not deleted.
async fn delete_all(vault: &TestVault, principal: &str, request: v1::DeleteRequest) -> Result<Vec<String>, Status> {
    let results = vault.vault_as(principal).await.delete(request).await?.into_inner().results;
    Ok(results.into_iter().map(|one| one.problem.map(|problem| problem.reason).unwrap_or_default()).collect())
}

fn reused(told: Told) {
    assert_eq!((told.code, told.reason.as_str()), (Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED"), "{told:?}");
}

/// Rows of the items that ended so, in the ledger's order.
fn rows(leaves: &[Value], action: &str, outcome: &str) -> Vec<String> {
    let of_action = leaves.iter().filter(|leaf| leaf["action"] == action && leaf["decision"] == "allow");
    let items = of_action.filter_map(|leaf| leaf["items"].as_array()).flatten();
    let ended = items.filter(|item| item["outcome"] == outcome);
    ended.map(|item| item["row"].as_str().unwrap().to_owned()).collect()
}

fn people() -> Vec<v1::TokenizeItem> {
    let mut items = vec![
        item("borrower.name", "欧阳志远", "cust-1"),
        item("borrower.id_card", "11010519491231002X", "cust-1"),
        item("borrower.email", "ouyang@mail.example", "cust-2"),
        item("borrower.address", "北京市朝阳区建国路1号", ""),
        item("company.uscc", &uscc(1), "co-1"),
    ];
    items[0].expire_time = Some((SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000)).into());
    items
}

#[tokio::test]
async fn a_retry_returns_the_same_tokens_and_stores_nothing() {
    let mut vault = TestVault::start();
    let tokens = send(&vault, keyed(KEY, people())).await.unwrap();
    assert_eq!(send(&vault, keyed(KEY, people())).await.unwrap(), tokens);
    vault.kill();
    vault.up();
    assert_eq!(send(&vault, keyed(KEY, people())).await.unwrap(), tokens);
    assert!(vault.stop().success());
    vault.up();
    // A message of a stream is the same call.
    let messages = tokio_stream::iter([keyed(KEY, people()), keyed(KEY, vec![people().remove(0)])]);
    let mut answers = vault.vault().await.tokenize_stream(messages).await.unwrap().into_inner();
    match answers.message().await.unwrap().unwrap().result.unwrap() {
        Streamed::Response(response) => assert_eq!(response.tokens, tokens),
        Streamed::Problem(problem) => panic!("{}", problem.message),
    }
    match answers.message().await.unwrap().unwrap().result.unwrap() {
        Streamed::Response(_) => panic!("another request under the same key"),
        Streamed::Problem(problem) => reused(problem.into()),
    }
    let leaves = vault.leaves().await;
    let stored = rows(&leaves, "tokenize", "ok");
    assert_eq!(stored.len(), tokens.len());
    assert_eq!(rows(&leaves, "tokenize", "repeated"), [&stored[..], &stored[..], &stored[..]].concat());
    // A retry is no write: no hash of a row stands beside it.
    let items = leaves.iter().filter_map(|leaf| leaf["items"].as_array()).flatten();
    assert!(items.filter(|item| item["outcome"] == "repeated").all(|item| item.get("sha256").is_none()));

    // Without a key every call stores anew.
    let again = send(&vault, keyed("", people())).await.unwrap();
    assert!(again[..4].iter().all(|token| !tokens.contains(token)));
    vault.verify_ledger();
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused() {
    let vault = TestVault::start();
    let tokens = send(&vault, keyed(KEY, people())).await.unwrap();
    let change = |how: fn(&mut Vec<v1::TokenizeItem>)| {
        let mut items = people();
        how(&mut items);
        keyed(KEY, items)
    };
    let others = [
        change(|items| items[0].value = "欧阳志运".into()),
        change(|items| items[0].subject = "cust-2".into()),
        change(|items| items[0].field = "borrower.address".into()),
        change(|items| items[0].expire_time = None),
        change(|items| items[3].expire_time = Some((SystemTime::now() + Duration::from_secs(600)).into())),
        change(|items| items.swap(0, 1)),
        change(|items| drop(items.pop())),
        change(|items| items.push(items[0].clone())),
        // The same bytes, divided otherwise.
        change(|items| {
            items[3].value = "北京市朝阳区建国路1号c".into();
            items[3].subject = String::new();
        }),
    ];
    for other in others {
        reused(send(&vault, other).await.unwrap_err());
    }
    assert_eq!(send(&vault, keyed(KEY, people())).await.unwrap(), tokens);

    let longest = "k".repeat(128);
    let kept = send(&vault, keyed(&longest, people())).await.unwrap();
    assert_eq!(send(&vault, keyed(&longest, people())).await.unwrap(), kept);
    let told = send(&vault, keyed(&"k".repeat(129), people())).await.unwrap_err();
    assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "IDEMPOTENCY_KEY_INVALID"));
    assert_eq!(rows(&vault.leaves().await, "tokenize", "ok").len(), 2 * tokens.len() - 1, "the code had its token");
}

#[tokio::test]
async fn a_refused_request_does_not_consume_its_key() {
    let vault = TestVault::start();
    let bad = |value: &str| keyed(KEY, vec![item("borrower.id_card", value, "cust-1")]);
    assert_eq!(send(&vault, bad("110105194912310021")).await.unwrap_err().reason, "VALUE_INVALID");
    let unknown = keyed(KEY, vec![item("borrower.shoe_size", "43", "cust-1")]);
    assert_eq!(send(&vault, unknown).await.unwrap_err().reason, "FIELD_UNKNOWN");
    let foreign = v1::TokenizeItem { token: "card-1".into(), ..item("borrower.name", "王伟", "cust-1") };
    assert_eq!(send(&vault, keyed(KEY, vec![foreign])).await.unwrap_err().reason, "DENIED");
    let tokens = send(&vault, bad("11010519491231002X")).await.unwrap();
    assert_eq!(send(&vault, bad("11010519491231002X")).await.unwrap(), tokens);

    let name = one_token(&vault, "borrower.name", "王伟", "cust-1").await;
    let nowhere = "srt1_0000000000000000000000";
    assert_eq!(replace(&vault, replacement(KEY, &[(nowhere, "李娜")])).await.unwrap_err().reason, "NOT_FOUND");
    let both = replacement(KEY, &[(&name, "李娜"), (nowhere, "李娜")]);
    assert_eq!(replace(&vault, both).await.unwrap_err().reason, "NOT_FOUND");
    let id_card = replacement(KEY, &[(&tokens[0], "李娜")]);
    assert_eq!(replace(&vault, id_card).await.unwrap_err().reason, "VALUE_INVALID");
    assert_eq!(replace(&vault, replacement(KEY, &[(&name, "李娜")])).await.unwrap(), [2]);

    // A Delete that removed nothing was refused, item by item.
    assert_eq!(delete_all(&vault, "app", deletion(KEY, &[nowhere])).await.unwrap(), ["NOT_FOUND"]);
    assert_eq!(delete_all(&vault, "app", deletion(KEY, &[&name])).await.unwrap(), [""]);
}

#[tokio::test]
async fn a_key_belongs_to_a_principal_and_a_method() {
    let vault = TestVault::start();
    let items = |name: &str| vec![item("borrower.name", name, "cust-1")];
    let first = send(&vault, keyed(KEY, items("王伟"))).await.unwrap().remove(0);
    let second = send(&vault, keyed("another key", items("李娜"))).await.unwrap().remove(0);
    assert_eq!(replace(&vault, replacement(KEY, &[(&first, "王芳")])).await.unwrap(), [2]);
    assert_eq!(delete_all(&vault, "app", deletion(KEY, &[&first])).await.unwrap(), [""]);
    assert_eq!(delete_all(&vault, "privacy", deletion(KEY, &[&second])).await.unwrap(), [""]);
    // Each has its own memory of the key.
    assert_eq!(delete_all(&vault, "app", deletion(KEY, &[&first])).await.unwrap(), [""]);
    assert_eq!(delete_all(&vault, "privacy", deletion(KEY, &[&second])).await.unwrap(), [""]);
    reused(delete_all(&vault, "app", deletion(KEY, &[&second])).await.unwrap_err().into());
    reused(delete_all(&vault, "privacy", deletion(KEY, &[&first])).await.unwrap_err().into());
    reused(send(&vault, keyed(KEY, items("王芳"))).await.unwrap_err());
}

#[tokio::test]
async fn a_retried_replace_makes_no_further_version() {
    let mut vault = TestVault::start();
    let read = async |vault: &TestVault, token: &str| read_one(vault, token, "kyc_review", "plain").await;
    let one = one_token(&vault, "borrower.name", "王伟", "cust-1").await;
    let two = one_token(&vault, "borrower.name", "李娜", "").await;
    let request = || replacement(KEY, &[(&one, "王芳"), (&two, "李静")]);
    for _ in 0..3 {
        assert_eq!(replace(&vault, request()).await.unwrap(), [2, 2]);
    }
    vault.kill();
    vault.up();
    assert_eq!(replace(&vault, request()).await.unwrap(), [2, 2]);
    assert_eq!(read(&vault, &one).await.unwrap(), "王芳");
    assert_eq!(rows(&vault.leaves().await, "replace", "repeated").len(), 6);
    reused(replace(&vault, replacement(KEY, &[(&one, "王芳"), (&two, "李敏")])).await.unwrap_err());

    // A late retry does not bring back what it wrote at its time.
    assert_eq!(replace(&vault, replacement("later", &[(&one, "王敏")])).await.unwrap(), [3]);
    replace(&vault, request()).await.unwrap();
    assert_eq!(read(&vault, &one).await.unwrap(), "王敏");
    assert_eq!(replace(&vault, replacement("last", &[(&one, "王洋")])).await.unwrap(), [4]);

    delete(&vault, &two, "").await.unwrap();
    let told = replace(&vault, request()).await.unwrap_err();
    assert_eq!((told.code, told.reason.as_str()), (Code::NotFound, "NOT_FOUND"));
    assert!(read(&vault, &two).await.is_err());
    vault.verify_ledger();
}

#[tokio::test]
async fn a_retried_delete_answers_as_it_did() {
    let mut vault = TestVault::start();
    let one = one_token(&vault, "borrower.name", "王伟", "cust-1").await;
    let two = one_token(&vault, "borrower.name", "李娜", "").await;
    let nowhere = "srt1_0000000000000000000000";
    let request = || deletion(KEY, &[&one, nowhere, &two]);
    let answer = ["", "NOT_FOUND", ""];
    for _ in 0..2 {
        assert_eq!(delete_all(&vault, "app", request()).await.unwrap(), answer);
    }
    // The same without the key is told what is there now.
    assert_eq!(delete_all(&vault, "app", deletion("", &[&one, nowhere, &two])).await.unwrap(), ["NOT_FOUND"; 3]);
    vault.kill();
    vault.up();
    assert_eq!(delete_all(&vault, "app", request()).await.unwrap(), answer);
    reused(delete_all(&vault, "app", deletion(KEY, &[&one, &two])).await.unwrap_err().into());
    let leaves = vault.leaves().await;
    assert_eq!(rows(&leaves, "delete", "deleted").len(), 2);
    assert_eq!(rows(&leaves, "delete", "repeated").len(), 4);
}

#[tokio::test]
async fn what_was_deleted_since_is_not_found_by_a_retry() {
    let mut vault = TestVault::start();
    let tokens = send(&vault, keyed(KEY, people())).await.unwrap();
    delete(&vault, &tokens[3], "").await.unwrap();
    for restarted in [false, true] {
        if restarted {
            vault.kill();
            vault.up();
        }
        let told = send(&vault, keyed(KEY, people())).await.unwrap_err();
        assert_eq!((told.code, told.reason.as_str()), (Code::NotFound, "NOT_FOUND"));
        assert!(read_one(&vault, &tokens[3], "kyc_review", "plain").await.is_err(), "deleted is deleted");
        assert_eq!(read_one(&vault, &tokens[0], "kyc_review", "plain").await.unwrap(), "欧阳志远");
    }

    // The value is still there for another holder, but no longer for the one that the request named.
    let request = || keyed("a company", vec![item("company.uscc", &uscc(7), "co-7")]);
    let shared = send(&vault, request()).await.unwrap().remove(0);
    assert_eq!(one_token(&vault, "company.uscc", &uscc(7), "co-8").await, shared);
    assert_eq!(send(&vault, request()).await.unwrap(), [shared.as_str()]);
    delete(&vault, &shared, "co-7").await.unwrap();
    assert_eq!(send(&vault, request()).await.unwrap_err().reason, "NOT_FOUND");
    assert_eq!(read_one(&vault, &shared, "kyc_review", "plain").await.unwrap(), uscc(7));
    let request = || keyed("nobody's", vec![item("company.uscc", &uscc(7), "")]);
    assert_eq!(send(&vault, request()).await.unwrap(), [shared.as_str()]);
    assert_eq!(send(&vault, request()).await.unwrap(), [shared.as_str()]);
    delete(&vault, &shared, "").await.unwrap();
    assert_eq!(send(&vault, request()).await.unwrap_err().reason, "NOT_FOUND");
}
