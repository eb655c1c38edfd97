//! What auditors ask, each in one command, on a terminal and as JSON.

use serde_json::Value;

use crate::approvals::command_with_approval;
use crate::deterministic::delete;
use crate::harness::{TestVault, detokenize, grow, one_token, read_one, value};

const ID_CARD: &str = "11010519491231002X";

/// The document that a question prints.
fn asked(vault: &TestVault, words: &[&str]) -> Value {
    vault.json(&[&["audit"], words].concat())
}

fn lines(document: &Value) -> &Vec<Value> {
    let lines = document["lines"].as_array().unwrap();
    assert_eq!(document["count"], lines.len().to_string());
    lines
}

/// Leaf and action of each line.
fn told(document: &Value) -> Vec<(String, String)> {
    let text = |line: &Value, member: &str| line[member].as_str().unwrap().to_owned();
    lines(document).iter().map(|line| (text(line, "leaf"), text(line, "action"))).collect()
}

fn items(leaf: &Value) -> impl Iterator<Item = &Value> {
    leaf["items"].as_array().into_iter().flatten()
}

/// A vault whose ledger has some of everything.
async fn vault() -> TestVault {
    let vault = TestVault::start();
    let id_card = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    let name = one_token(&vault, "borrower.name", "Ann", "cust-2").await;
    for _ in 0..3 {
        read_one(&vault, &id_card, "kyc_review", "plain").await.unwrap();
    }
    let both = detokenize(&[&id_card, &name], "loan_servicing", "masked");
    vault.vault().await.detokenize(both).await.unwrap();
    let denied = vault.vault_as("auditor").await.detokenize(detokenize(&[&id_card], "kyc_review", "plain")).await;
    value(denied.unwrap().into_inner().results.remove(0)).unwrap_err();
    vault
}

#[tokio::test]
async fn all_that_was_done_to_one_subject_is_shown_and_nothing_of_another() {
    let vault = vault().await;
    let all = vault.leaves().await;
    let stored = all.iter().find(|leaf| leaf["action"] == "tokenize").unwrap();
    let handle = &items(stored).find(|item| item["field"] == "borrower.id_card").unwrap()["subject"];
    let naive: usize = all.iter().map(|leaf| items(leaf).filter(|item| item["subject"] == *handle).count()).sum();
    let document = asked(&vault, &["subject", "cust-1"]);
    assert_eq!(lines(&document).len(), naive);
    assert!(lines(&document).iter().all(|line| line["subject"] == *handle));
    assert_eq!(document["known"], true);
    let read = lines(&document).iter().find(|line| line["view"] == "plain").unwrap();
    assert_eq!((&read["principal"], &read["purpose"]), (&"app/app".into(), &"kyc_review".into()));
    assert_eq!((&read["field"], &read["outcome"]), (&"borrower.id_card".into(), &"ok".into()));
    // That somebody asked is itself something that was done.
    let whole = asked(&vault, &["subject", "cust-1", "--every-leaf"]);
    assert_eq!(told(&whole)[..naive], told(&document));
    assert_eq!(told(&whole)[naive].1, "export_ledger");
    let table = vault.cli_ok(&["audit", "subject", "cust-1"]);
    let mut rows = table.lines();
    let header: Vec<&str> = rows.next().unwrap().split_whitespace().collect();
    assert_eq!(
        header,
        ["time", "principal", "actor", "action", "field", "view", "purpose", "decision", "outcome", "leaf"]
    );
    assert!(rows.any(|row| row.contains("detokenize") && row.contains("kyc_review") && row.contains("plain")));
    let none = asked(&vault, &["subject", "cust-1", "--to", "2020-01-01"]);
    assert!(lines(&none).is_empty());
    let nobody = asked(&vault, &["subject", "nobody"]);
    assert!(lines(&nobody).is_empty() && nobody["known"] == false);
    assert!(vault.cli_ok(&["audit", "subject", "nobody"]).contains("knows no such subject"));
}

#[tokio::test]
async fn all_that_was_done_to_one_token_is_shown_and_by_its_row_when_it_is_gone() {
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    one_token(&vault, "borrower.name", "Ann", "cust-1").await;
    read_one(&vault, &token, "kyc_review", "plain").await.unwrap();
    let document = asked(&vault, &["token", &token]);
    assert_eq!(document["known"], true);
    let actions: Vec<String> = told(&document).into_iter().map(|(_, action)| action).collect();
    assert_eq!(actions, ["tokenize", "detokenize"]);
    let (row, handle) = (lines(&document)[0]["row"].clone(), lines(&document)[0]["subject"].clone());
    let (row, handle) = (row.as_str().unwrap(), handle.as_str().unwrap());
    delete(&vault, &token, "").await.unwrap();
    let gone = asked(&vault, &["token", &token]);
    assert!(gone["known"] == false && lines(&gone).is_empty());
    assert!(vault.cli_ok(&["audit", "token", &token]).contains("knows no such token"));
    let by_row = asked(&vault, &["token", "--row", row]);
    assert!(lines(&by_row).iter().all(|line| line["row"] == row));
    assert!(told(&by_row).iter().any(|(_, action)| action == "delete"));
    let by_handle = told(&asked(&vault, &["subject", "--handle", handle]));
    assert!(by_handle.starts_with(&told(&asked(&vault, &["subject", "cust-1"]))[..3]));
    let reads =
        asked(&vault, &["reads", "--subject", "cust-1", "--field", "borrower.id_card", "--purpose", "kyc_review"]);
    assert_eq!(lines(&reads).len(), 1);
    for wrong in [&["token"][..], &["token", &token, "--row", row], &["subject"], &["subject", "x", "--handle", handle]]
    {
        assert_eq!(vault.cli(&[&["audit"], wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
    let out = vault.scratch().join("row.jsonl");
    vault.cli_ok(&["audit", "export", "--row", row, "-o", out.to_str().unwrap()]);
    vault.cli_ok(&["audit", "verify", "--excerpt", out.to_str().unwrap()]);
}

#[tokio::test]
async fn what_somebody_saw_and_what_was_read_in_plain_is_shown_and_counted_by_purpose() {
    let vault = vault().await;
    let document = asked(&vault, &["reads", "--by", "app/app"]);
    assert_eq!(lines(&document).len(), 5);
    assert!(lines(&document).iter().all(|line| line["action"] == "detokenize" && line["outcome"] == "ok"));
    let counts = |document: &Value| -> Vec<[String; 3]> {
        let text = |one: &Value, member: &str| one[member].as_str().unwrap().to_owned();
        let all = document["by_purpose"].as_array().unwrap().iter();
        all.map(|one| ["purpose", "values", "requests"].map(|member| text(one, member))).collect()
    };
    assert_eq!(counts(&document), [["kyc_review", "3", "3"], ["loan_servicing", "2", "1"]]);
    let month = lines(&document)[0]["time"].as_str().unwrap()[..7].to_owned();
    let plain = asked(&vault, &["reads", "--class", "c2", "--month", &month]);
    assert_eq!(counts(&plain), [["kyc_review", "3", "3"]]);
    assert!(lines(&plain).iter().all(|line| line["view"] == "plain" && line["field"] == "borrower.id_card"));
    let masked = asked(&vault, &["reads", "--class", "c2", "--view", "masked", "--totals"]);
    assert!(lines(&masked).is_empty());
    assert_eq!(counts(&masked), [["loan_servicing", "2", "1"]]);
    assert_eq!(counts(&asked(&vault, &["reads", "--class", "c3"])), [[""; 3]; 0]);
    assert_eq!(counts(&asked(&vault, &["reads", "--by", "auditor/auditor"])), [[""; 3]; 0], "it was denied");
    // The same with proofs, for whoever does not take an auditor's word.
    let out = vault.scratch().join("plain.jsonl");
    let out = out.to_str().unwrap();
    vault.cli_ok(&["audit", "export", "--class", "c2", "--view", "plain", "--reads", "-o", out]);
    vault.cli_ok(&["audit", "verify", "--excerpt", out]);
    assert_eq!(std::fs::read_to_string(out).unwrap().lines().count(), 3);
    let table = vault.cli_ok(&["audit", "reads", "--class", "c2", "--month", &month, "--totals"]);
    let words: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(words, ["PURPOSE", "VALUES", "REQUESTS", "kyc_review", "3", "3"]);
    assert!(vault.cli_ok(&["audit", "reads", "--actor", "nobody"]).contains("nothing was read"));
    for wrong in [&["reads"][..], &["reads", "--class", "c4"], &["reads", "--class", "c2", "--month", "November"]] {
        let words: Vec<&str> = ["audit"].into_iter().chain(wrong.iter().copied()).collect();
        assert_eq!(vault.cli(&words).status.code(), Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn each_denied_request_is_shown_with_its_reason() {
    let vault = vault().await;
    let naive = vault.leaves().await.iter().filter(|leaf| leaf["decision"] == "deny").count();
    let document = asked(&vault, &["denied"]);
    assert_eq!(document["requests"], naive.to_string());
    assert!(lines(&document).iter().all(|line| line["decision"] == "deny"));
    let of_one = asked(&vault, &["denied", "--by", "auditor/auditor", "--from", "2020-01-01"]);
    let line = &lines(&of_one)[0];
    assert_eq!((&line["principal"], &line["action"]), (&"auditor/auditor".into(), &"detokenize".into()));
    assert!(!line["reason"].as_str().unwrap().is_empty());
    assert!(vault.cli_ok(&["audit", "denied"]).contains(&format!("{naive} requests refused")));
    assert_eq!(asked(&vault, &["denied", "--by", "app/nobody"])["requests"], "0");
    // Who may not read the ledger is not told, and is in the answer to the next such question.
    let refused = vault.cli(&["audit", "denied", "--as", "app"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(lines(&asked(&vault, &["denied"])).iter().any(|line| line["action"] == "export_ledger"));
}

#[tokio::test]
async fn what_was_denied_beside_a_good_token_is_shown_and_counted() {
    let vault = TestVault::start();
    let good = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    let forbidden = one_token(&vault, "borrower.email", "ann@mail.example", "cust-2").await;
    let mixed = detokenize(&[&good, &forbidden, &forbidden, "srt1_0000000000000000000000"], "kyc_review", "plain");
    let results = vault.vault().await.detokenize(mixed).await.unwrap().into_inner().results;
    assert_eq!(results.into_iter().filter(|result| value(result.clone()).is_ok()).count(), 1);
    let document = asked(&vault, &["denied", "--by", "app/app"]);
    assert_eq!(
        (&document["requests"], &document["items"], &document["counted"]),
        (&"1".into(), &"2".into(), &"0".into())
    );
    for line in lines(&document) {
        assert_eq!((&line["decision"], &line["outcome"]), (&"allow".into(), &"PURPOSE_NOT_ALLOWED".into()));
        assert_eq!((&line["field"], &line["refused"]), (&"borrower.email".into(), &"1".into()));
    }
    let failed = asked(&vault, &["denied", "--failed", "--by", "app/app"]);
    assert_eq!((&failed["items"], lines(&failed).len()), (&"3".into(), 3));
    let none = asked(&vault, &["denied", "--reason", "NOT_FOUND", "--by", "app/app"]);
    assert_eq!(lines(&none)[0]["outcome"], "NOT_FOUND");
    assert_eq!(asked(&vault, &["denied", "--actor", "hr/nobody"])["requests"], "0");
    let table = vault.cli_ok(&["audit", "denied", "--by", "app/app"]);
    assert!(table.contains("1 requests refused in whole or in part, 2 items of them"), "{table}");
    let out = vault.scratch().join("denied.jsonl");
    vault.cli_ok(&["audit", "export", "--denied", "-o", out.to_str().unwrap()]);
    vault.cli_ok(&["audit", "verify", "--excerpt", out.to_str().unwrap()]);
    assert!(std::fs::read_to_string(out).unwrap().contains("PURPOSE_NOT_ALLOWED"));
}

#[tokio::test]
async fn each_change_is_shown_with_who_approved_it() {
    let vault = TestVault::start();
    vault.cli_ok(&["keys", "rotate", "kek/1"]);
    command_with_approval(&vault, &["keys", "destroy", "kek/1", "1", "--as", "officer-1"]);
    let document = asked(&vault, &["changes"]);
    let of = |action: &str, decision: &str| {
        let found = lines(&document).iter().find(|line| line["action"] == action && line["decision"] == decision);
        found.unwrap_or_else(|| panic!("{decision} {action} in {document:#}"))
    };
    for first in ["apply_schema", "rotate_key"] {
        assert_eq!(of(first, "allow")["approvals"], Value::Array(vec![]), "nobody else was needed");
    }
    let (waited, approved) = (of("destroy_key_version", "deny"), of("approve", "allow"));
    assert_eq!((&waited["reason"], &waited["approvals"]), (&"APPROVAL_REQUIRED".into(), &Value::Array(vec![])));
    // The first leaf of it only asks whether it may be.
    let is_done = |line: &&Value| line["action"] == "destroy_key_version" && line["approvals"] != Value::Array(vec![]);
    let done = lines(&document).iter().find(is_done).unwrap();
    let by = &done["approvals"];
    assert_eq!(by[0]["by"], "officer/officer-2");
    assert_eq!((by.as_array().unwrap().len(), &by[0]["leaf"]), (1, &approved["leaf"]));
    assert!(lines(&document).iter().all(|line| line["action"] != "export_ledger" && line["action"] != "get_schema"));
    let (leaf, name) = (approved["leaf"].as_str().unwrap(), approved["detail"]["approval"].as_str().unwrap());
    let table = vault.cli_ok(&["audit", "changes"]);
    let row = table.lines().find(|row| row.contains("destroy_key_version") && row.contains(name)).unwrap();
    assert!(table.contains(&format!("officer/officer-2 ({leaf})")), "{row}");
    // What was approved before a time and done after it still says by whom.
    let since = done["time"].as_str().unwrap();
    let late = asked(&vault, &["changes", "--from", since]);
    assert_eq!(lines(&late)[0]["approvals"], *by);
    assert!(told(&late).iter().all(|(_, action)| action != "approve"));
    let system = asked(&vault, &["changes", "--log", "system", "--as", "operator"]);
    assert_eq!(lines(&system)[0]["action"], "create_vault");
}

#[tokio::test]
async fn after_an_archive_questions_answer_from_what_is_left_and_say_what_is_not() {
    let mut vault = TestVault::start();
    vault.stop();
    vault.configure("[ledger]\nkeep_days = 0\n");
    vault.up();
    one_token(&vault, "borrower.name", "Ann", "cust-1").await;
    grow(&vault, "Ann", 300).await;
    let folder = vault.scratch().join("archive");
    command_with_approval(&vault, &["audit", "archive", "-o", folder.to_str().unwrap(), "--place", "vault-archive/1"]);
    one_token(&vault, "borrower.name", "Eve", "cust-1").await;
    for words in [
        &["subject", "cust-1"][..],
        &["reads", "--by", "app/app"],
        &["denied"],
        &["changes"],
        &["changes", "--to", "2099-01-01"],
    ] {
        let document = asked(&vault, words);
        let archived = &document["archived"];
        assert_eq!((&archived["end"], &archived["place"]), (&"256".into(), &"vault-archive/1".into()), "{words:?}");
        assert!(told(&document).iter().all(|(leaf, _)| leaf.parse::<u64>().unwrap() >= 256), "{words:?}");
        let table = vault.cli_ok(&[&["audit"], words].concat());
        let first = table.lines().next().unwrap();
        assert!(first.contains("leaves before 256") && first.contains("vault-archive/1"), "{first}");
    }
    assert!(told(&asked(&vault, &["subject", "cust-1"])).iter().any(|(_, action)| action == "tokenize"));
    assert!(lines(&asked(&vault, &["changes"])).iter().any(|line| line["action"] == "archive_ledger"));
    // A time of which some is archived is refused, by an advice that works: for changes too, which look for approvals before it.
    for question in [&["changes"][..], &["denied"], &["subject", "cust-1"]] {
        let early = vault.cli(&[&["audit"], question, &["--from", "2026-01-01"]].concat());
        let said = String::from_utf8_lossy(&early.stderr).into_owned();
        assert!(early.status.code() == Some(1) && said.contains("vault-archive/1"), "{said}");
        let advised = said.split("--from ").nth(1).unwrap().split(',').next().unwrap();
        let document = asked(&vault, &[question, &["--from", advised]].concat());
        assert!(told(&document).iter().all(|(leaf, _)| leaf.parse::<u64>().unwrap() >= 256));
    }
}
