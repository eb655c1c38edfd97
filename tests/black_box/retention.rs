//! What is due by retention, from the command line: when it falls due, that it goes, and what nobody does alone.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use strongroom_proto::v1;

use crate::approvals::command_with_approval;
use crate::harness::{TestVault, item, read_one, tokenize};
use crate::patience::until;

const FIELD: &str = "borrower.address";

/// Stores values that expire in three seconds, one of each subject.
async fn store_short(vault: &TestVault, subjects: &[&str]) -> Vec<String> {
    let soon = SystemTime::now() + Duration::from_secs(3);
    let expire_time = Some(prost_types::Timestamp::from(soon));
    let items = subjects.iter().map(|subject| v1::TokenizeItem { expire_time, ..item(FIELD, "a street", subject) });
    vault.vault().await.tokenize(tokenize(items.collect())).await.unwrap().into_inner().tokens
}

/// What the report says of the field.
fn reported(vault: &TestVault, name: &str) -> String {
    let report = vault.json(&["retention", "report"]);
    let fields = report["fields"].as_array().unwrap();
    let field = fields.iter().find(|field| field["field"] == FIELD).unwrap();
    field[name].as_str().unwrap().to_owned()
}

/// Waits until so many values of the field are due.
async fn due(vault: &TestVault, values: &str) {
    until(Duration::from_secs(20), "what is due", async || match reported(vault, "due") {
        due if due == values => Ok(()),
        due => Err(due),
    })
    .await;
}

#[tokio::test]
async fn what_is_due_is_reported_and_goes_and_the_rest_stays() {
    let mut vault = TestVault::start();
    let kept = vault.cli_ok(&["tokenize", FIELD, "a lasting street", "--subject", "c-1"]);
    let gone = store_short(&vault, &["c-1", "c-2"]).await;
    due(&vault, "2").await;
    for token in &gone {
        let told = read_one(&vault, token, "kyc_review", "plain").await.unwrap_err();
        assert_eq!(told.reason, "NOT_FOUND", "before the job has come by");
    }
    assert_eq!((reported(&vault, "values"), reported(&vault, "later")), ("3".to_owned(), "1".to_owned()));
    let table = vault.cli_ok(&["retention", "report", "--as", "auditor"]);
    assert!(table.contains(FIELD) && table.contains("10y") && table.contains("without approval"), "{table}");

    let job = vault.json(&["retention", "run"]);
    assert_eq!((&job["name"], &job["state"], &job["done"]), (&"expire/1".into(), &"done".into(), &"2".into()));
    assert_eq!((reported(&vault, "values"), reported(&vault, "due")), ("1".to_owned(), "0".to_owned()));
    let status = vault.cli_ok(&["retention", "run", "--status"]);
    assert!(status.contains("expire/1") && status.contains("2 of 2 values"), "{status}");
    assert_eq!(read_one(&vault, kept.trim(), "kyc_review", "plain").await.unwrap(), "a lasting street");
    let denied = vault.cli(&["retention", "run", "--as", "app"]);
    assert_eq!(denied.status.code(), Some(1));
    vault.verify_ledger();
    vault.stop();
    vault.cli_ok(&["verify"]);
}

#[tokio::test]
async fn more_than_the_cap_waits_and_goes_with_an_approval_for_just_so_many() {
    let mut vault = TestVault::start();
    vault.stop();
    vault.configure("[retention]\ncap_percent = 0\ncap_values = 1\n");
    vault.up();
    store_short(&vault, &["c-1", "c-2"]).await;
    due(&vault, "2").await;
    let waits = vault.cli(&["retention", "run", "--output", "json"]);
    assert_eq!(waits.status.code(), Some(3), "{waits:?}");
    let job: Value = serde_json::from_slice(&waits.stdout).unwrap();
    assert_eq!((&job["state"], &job["total"], &job["done"]), (&"waiting".into(), &"2".into(), &"0".into()));
    assert!(job["waits_for"].as_str().unwrap().contains("retention run --up-to 2"), "{job}");
    assert_eq!(reported(&vault, "values"), "2");
    let done = command_with_approval(&vault, &["retention", "run", "--up-to", "2"]);
    assert!(done.contains("2 of 2 values"), "{done}");
    assert_eq!(reported(&vault, "values"), "0");
    vault.verify_ledger();
    vault.stop();
    vault.cli_ok(&["verify"]);
}

#[test]
fn the_clock_is_confirmed_by_the_vaults_operator_alone() {
    let vault = TestVault::start();
    assert!(vault.json(&["retention", "confirm-clock"])["time"].is_string());
    let denied = vault.cli(&["retention", "confirm-clock", "--as", "officer-1"]);
    assert_eq!(denied.status.code(), Some(1));
    assert_eq!(vault.json(&["status"])["clock_problem"], "");
}

#[test]
fn a_configuration_of_retention_that_makes_no_sense_is_refused() {
    for (section, right) in [("cap_percent = 101", "0 to 100"), ("longest_stop_days = 0", "1 or more")] {
        let mut vault = TestVault::start();
        vault.stop();
        vault.configure(&format!("[retention]\n{section}\n"));
        let said = vault.refuses_to_start();
        assert!(said.contains(right), "{said}");
    }
}
