//! Tiers from outside: the same connection, a crash, the command line.

use std::time::Duration;

use serde_json::Value;
use strongroom_proto::v1;
use strongroom_proto::v1::vault_client::VaultClient;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{TestVault, detokenize, one_token, read_one, value};

const FIELD: &str = "borrower.id_card";
const ID_CARD: &str = "11010519491231002X";
const OTHER_CARD: &str = "110105194912310038";

async fn read(client: &mut VaultClient<Channel>, token: &str, view: &str) -> Result<String, Status> {
    let answer = client.detokenize(detokenize(&[token], "kyc_review", view)).await?;
    let bytes = value(answer.into_inner().results.remove(0)).unwrap();
    Ok(String::from_utf8(bytes).unwrap())
}

/// Sees that a call was refused for its quota, and says when to try again.
fn assert_quota<T>(answer: Result<T, Status>, what: &str) {
    let status = answer.err().expect("it was not refused");
    assert_eq!(status.code(), Code::ResourceExhausted);
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "QUOTA_EXCEEDED");
    let delay = details.retry_info().unwrap().retry_delay.unwrap();
    assert!(!delay.is_zero() && delay <= Duration::from_secs(86_400), "{delay:?}");
    let violations = &details.quota_failure().unwrap().violations;
    assert_eq!(violations[0].description, what);
    assert!(status.message().contains(what), "{}", status.message());
}

/// Puts the test's service into tier III, in which only what is named is limited.
fn narrow(vault: &TestVault, limits: &[&str]) {
    let mut all = vec!["principal", "limits", "III"];
    for open in [
        "--plain-per-minute",
        "--plain-per-day",
        "--masked-per-minute",
        "--masked-per-day",
        "--subjects-per-minute",
        "--subjects-per-day",
        "--misses-per-minute",
        "--misses-per-day",
        "--token-misses-per-minute",
        "--token-misses-per-day",
    ] {
        all.extend([open, "none"]);
    }
    vault.cli_ok(&all);
    vault.cli_ok(&[&["principal", "limits", "III"][..], limits].concat());
    vault.cli_ok(&["principal", "tier", "app/app", "III"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tier_holds_on_the_next_request_of_the_same_connection_and_after_a_crash() {
    let mut vault = TestVault::start();
    let token = one_token(&vault, FIELD, ID_CARD, "cust-1").await;
    let mut client = vault.vault().await;
    for _ in 0..5 {
        assert_eq!(read(&mut client, &token, "plain").await.unwrap(), ID_CARD);
    }
    narrow(&vault, &["--class", "c2", "--plain-per-day", "3"]);
    for _ in 0..3 {
        assert_eq!(read(&mut client, &token, "plain").await.unwrap(), ID_CARD);
    }
    let what = "at most 3 values of class c2 in plain a day";
    assert_quota(read(&mut client, &token, "plain").await, what);
    vault.kill();
    vault.up();
    let mut client = vault.vault().await;
    assert_quota(read(&mut client, &token, "plain").await, what);
    let refused = vault.cli(&["detokenize", &token, "--purpose", "kyc_review", "--view", "plain"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains(what) && said.contains("try: the same command again, after the delay"), "{said}");
    vault.cli_ok(&["principal", "tier", "app/app", "I"]);
    assert_eq!(read(&mut client, &token, "plain").await.unwrap(), ID_CARD);
    let leaves = vault.leaves().await;
    let denied: Vec<&Value> = leaves.iter().filter(|leaf| leaf["reason"] == "QUOTA_EXCEEDED").collect();
    assert!(!denied.is_empty() && denied.iter().all(|leaf| leaf["decision"] == "deny"), "{denied:?}");
    vault.verify_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_views_of_a_value_are_one_value_in_plain() {
    let vault = TestVault::start();
    let token = one_token(&vault, FIELD, ID_CARD, "cust-1").await;
    narrow(&vault, &["--class", "c2", "--plain-per-day", "0"]);
    let mut client = vault.vault().await;
    read(&mut client, &token, "last4").await.unwrap();
    assert_quota(read(&mut client, &token, "birth_year").await, "at most 0 values of class c2 in plain a day");
    read(&mut client, &token, "last4").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_guessed_at_so_often_and_no_more() {
    let vault = TestVault::start();
    let token = one_token(&vault, FIELD, ID_CARD, "cust-1").await;
    narrow(&vault, &["--token-misses-per-day", "2"]);
    let mut client = vault.vault().await;
    let mut guess = async |value: &'static str| {
        let item = v1::MatchItem { token: token.clone(), value: value.into(), subject: String::new() };
        let request = v1::MatchRequest { items: vec![item], purpose: "kyc_review".to_owned() };
        client.r#match(request).await
    };
    for _ in 0..2 {
        guess(ID_CARD).await.unwrap();
        guess(OTHER_CARD).await.unwrap();
    }
    let what = "at most 2 comparisons with one token that do not match a day";
    assert_quota(guess(OTHER_CARD).await, what);
    // The right one is told nothing either.
    assert_quota(guess(ID_CARD).await, what);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_in_no_tier_is_untouched_and_the_list_says_who_is() {
    let vault = TestVault::start();
    let token = one_token(&vault, FIELD, ID_CARD, "cust-1").await;
    vault.cli_ok(&["principal", "tier", "app/another", "III"]);
    for _ in 0..120 {
        read_one(&vault, &token, "kyc_review", "plain").await.unwrap();
    }
    let listed = vault.json(&["principal", "list", "--as", "auditor"]);
    assert_eq!(listed["principals"][0]["principal"], "app/another");
    assert_eq!(listed["principals"][0]["tier"], "III");
    assert_eq!(listed["tiers"][2]["limits"]["c2_plain"]["per_day"], 100);
    assert!(vault.cli_ok(&["principal", "list"]).contains("app/another"));
    assert_eq!(vault.json(&["principal", "tier", "app/another", "III"])["changed"], false);
    for wrong in [
        &["principal", "tier", "another", "III"][..],
        &["principal", "tier", "app/another", "III", "--as", "app"],
        &["principal", "limits", "III", "--plain-per-day", "1000001"],
        &["principal", "limits", "III"],
    ] {
        assert!(!vault.cli(wrong).status.success(), "{wrong:?}");
    }
}
