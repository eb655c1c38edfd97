//! `strongroom verify`: a stopped vault is proven against its ledger. What somebody did to its files: see `tamper.rs`.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use strongroom_proto::v1;

use crate::harness::{BINARY, TestVault, detokenize, item, one_token, tokenize};

/// A vault after requests of all kinds, running.
async fn loaded() -> TestVault {
    let vault = TestVault::start();
    let mut client = vault.vault().await;
    let mut items = vec![
        item("borrower.name", "张三", "cust-1"),
        item("borrower.name", "李四", "cust-2"),
        item("borrower.id_card", "11010519491231002X", "cust-1"),
        item("borrower.mobile", "13812345678", "cust-1"),
        item("borrower.bank_card", "4111111111111111", "cust-1"),
        item("borrower.address", "北京市朝阳区", ""),
        item("company.uscc", "91350100M000100Y43", "cust-1"),
        item("company.uscc", "91350100M000100Y43", "cust-2"),
        item("company.uscc", "91350100M000100Y43", "cust-3"),
        item("company.settlement_account", "6222021234567890", "cust-1"),
    ];
    // Enough for a leaf in several parts, and for several pages.
    items
        .extend((0..700).map(|number| item("borrower.account_opened", "2020-01-02", &format!("many-{}", number % 50))));
    let request = v1::TokenizeRequest { items, idempotency_key: "load".to_owned() };
    let tokens = client.tokenize(request).await.unwrap().into_inner().tokens;
    let replaced = |token: &String, value: &str| v1::ReplaceItem {
        token: token.clone(),
        value: value.to_owned().into(),
        expire_time: None,
    };
    let items = vec![replaced(&tokens[2], "110105194912310038"), replaced(&tokens[5], "上海市浦东新区")];
    client.replace(v1::ReplaceRequest { items, idempotency_key: String::new() }).await.unwrap();
    let deleted = |token: &String, subject: &str| v1::DeleteItem { token: token.clone(), subject: subject.to_owned() };
    let items = vec![deleted(&tokens[3], ""), deleted(&tokens[8], "cust-3")];
    let results = client.delete(v1::DeleteRequest { items, idempotency_key: String::new() }).await.unwrap();
    assert!(results.into_inner().results.iter().all(|result| result.problem.is_none()));
    client.detokenize(detokenize(&[&tokens[0], &tokens[3]], "kyc_review", "")).await.unwrap();
    assert!(client.tokenize(tokenize(vec![item("no.such", "x", "")])).await.is_err());
    vault
}

/// Verifies a folder; the document and whether all holds.
pub fn verify(dir: &Path, more: &[&str]) -> (bool, Value) {
    let output = Command::new(BINARY)
        .args(["verify", "--output", "json", "--dir"])
        .arg(dir)
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let document = serde_json::from_slice(&output.stdout);
    (output.status.success(), document.unwrap_or_else(|_| panic!("no document: {}", said(&output))))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_nobody_touched_verifies_stopped_restarted_and_killed() {
    let mut vault = loaded().await;
    let output = vault.cli(&["verify"]);
    assert!(!output.status.success());
    assert!(said(&output).contains("a vault runs over"), "{}", said(&output));

    assert!(vault.stop().success());
    let (holds, document) = verify(&vault.dir(), &[]);
    assert!(holds, "{document:#}");
    assert_eq!(document["verified"], json!(true));
    assert_eq!(document["findings"], json!([]));
    let tenants = document["tenants"].as_array().unwrap();
    assert_eq!(tenants.iter().map(|one| one["tenant"].as_str().unwrap()).collect::<Vec<_>>(), ["system", "demo"]);
    // All but the deleted one, and the company's number is one value for all who hold it.
    assert_eq!(tenants[1]["values"], "707");
    assert_eq!(tenants[1]["subjects"], "53");
    assert_eq!(tenants[1]["leaves"], tenants[1]["signed_leaves"]);

    // For people: a table and a sentence; no value in it.
    let text = vault.cli_ok(&["verify"]);
    assert!(text.contains("the store is what the ledger says"), "{text}");
    for secret in ["张三", "110105194912310038", "91350100M000100Y43", "cust-1"] {
        assert!(!text.contains(secret) && !document.to_string().contains(secret), "{secret}");
    }

    vault.up();
    one_token(&vault, "borrower.name", "王五", "cust-4").await;
    vault.kill();
    let (holds, document) = verify(&vault.dir(), &[]);
    assert!(holds, "{document:#}");
    assert_eq!(document["tenants"][1]["values"], "708");
}
