//! The ledger: who asked for what and what became of it. That nobody can change it unnoticed: see `tamper.rs`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};
use serde_json::Value;
use strongroom_proto::v1;
use strongroom_proto::v1::audit_client::AuditClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::files::path;
use crate::harness::{TestVault, detokenize, grow, item, one_token, read_one, refused, tokenize};

const ID_CARD: &str = "11010519491231002X";
const OTHER_ID_CARD: &str = "440524198801010011";

/// Members of a leaf that are there, in their order.
fn members(leaf: &Value) -> Vec<&str> {
    leaf.as_object().unwrap().keys().map(String::as_str).collect()
}

fn text<'a>(leaf: &'a Value, member: &str) -> &'a str {
    leaf[member].as_str().unwrap_or_else(|| panic!("{member} of {leaf}"))
}

fn is_hash(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

async fn raw(vault: &TestVault, first: u64, end: u64) -> Vec<Vec<u8>> {
    let request = v1::ExportRequest { first, end, ..Default::default() };
    let mut pages = vault.audit().await.export(request).await.unwrap().into_inner();
    let mut lines = Vec::new();
    while let Some(page) = pages.message().await.unwrap() {
        lines.extend(page.leaves.iter().map(|line| line.to_vec()));
    }
    lines
}

#[tokio::test]
async fn every_request_leaves_who_what_why_and_what_became_of_it() {
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.id_card", ID_CARD, "cust-1").await;
    one_token(&vault, "borrower.name", "Ann", "cust-1").await;
    let nobodys = one_token(&vault, "borrower.name", "Bob", "").await;
    read_one(&vault, &token, "kyc_review", "last4").await.unwrap();
    let mut app = vault.vault().await;
    let new = v1::ReplaceItem { token: token.clone(), value: OTHER_ID_CARD.into(), expire_time: None };
    app.replace(v1::ReplaceRequest { items: vec![new], idempotency_key: String::new() }).await.unwrap();
    let asked =
        |value: &str| v1::MatchItem { token: token.clone(), value: value.to_owned().into(), subject: String::new() };
    let request =
        v1::MatchRequest { items: vec![asked(ID_CARD), asked(OTHER_ID_CARD)], purpose: "collections".to_owned() };
    app.r#match(request).await.unwrap();
    let wanted = |value: &str| v1::LookupItem { field: "borrower.id_card".to_owned(), value: value.to_owned().into() };
    let request =
        v1::LookupRequest { items: vec![wanted(OTHER_ID_CARD), wanted(ID_CARD)], purpose: "kyc_review".to_owned() };
    app.lookup(request).await.unwrap();
    let gone = v1::DeleteItem { token: nobodys.clone(), subject: String::new() };
    app.delete(v1::DeleteRequest { items: vec![gone], idempotency_key: String::new() }).await.unwrap();

    let leaves = vault.leaves().await;
    // The first leaf names vault, tenant and officers; a later one puts the schema in force.
    assert_eq!((text(&leaves[0], "principal"), text(&leaves[0], "action")), ("vault", "create_vault"));
    let detail = leaves[0]["detail"].as_object().unwrap();
    assert!(
        is_hash(&detail["officer/officer-1"])
            && is_hash(&detail["officer/officer-2"])
            && is_hash(&detail["policy_sha256"])
    );
    let schema = leaves.iter().find(|leaf| leaf["action"] == "apply_schema").unwrap();
    assert_eq!((text(schema, "principal"), &schema["schema"]), ("officer/officer-1", &0.into()));
    assert!(schema["detail"]["version"] == "1" && is_hash(&schema["detail"]["sha256"]), "{schema}");
    for (index, leaf) in leaves.iter().enumerate() {
        assert_eq!(text(leaf, "index"), index.to_string());
        assert!(index == 0 || text(&leaves[index - 1], "time") <= text(leaf, "time"));
        assert_eq!(text(leaf, "time").len(), 27);
    }
    let requests: HashSet<_> = leaves.iter().map(|leaf| text(leaf, "request")).collect();
    assert_eq!(requests.len(), leaves.len());

    let of = |action: &str| leaves.iter().filter(|leaf| leaf["action"] == action).collect::<Vec<_>>();
    let [stored, named, other] = of("tokenize")[..] else { panic!("{leaves:?}") };
    assert_eq!(
        members(stored),
        ["index", "time", "request", "principal", "action", "decision", "policy", "schema", "keys", "client", "items"]
    );
    assert_eq!((text(stored, "principal"), text(stored, "decision")), ("app/app", "allow"));
    assert_eq!((&stored["policy"], &stored["schema"]), (&1.into(), &1.into()));
    assert!(text(stored, "client").starts_with("127.0.0.1"), "{stored}");
    assert!(stored["keys"].as_object().unwrap().contains_key("kek/1"), "{stored}");
    let value = &stored["items"][0];
    assert_eq!(members(value), ["field", "row", "outcome", "subject", "version", "sha256"]);
    assert_eq!(
        (text(value, "field"), text(value, "outcome"), &value["version"]),
        ("borrower.id_card", "ok", &1.into())
    );
    assert!(is_hash(&value["sha256"]));
    // One subject, one handle, which says nothing about the id; nobody's value has none.
    assert_eq!(value["subject"], named["items"][0]["subject"]);
    assert_ne!(value["row"], named["items"][0]["row"]);
    assert!(!members(&other["items"][0]).contains(&"subject"));

    let [read] = of("detokenize")[..] else { panic!("{leaves:?}") };
    assert_eq!((text(read, "purpose"), text(read, "decision")), ("kyc_review", "allow"));
    assert_eq!(members(&read["items"][0]), ["field", "row", "view", "outcome", "subject"]);
    assert_eq!((text(&read["items"][0], "view"), &read["items"][0]["row"]), ("last4", &value["row"]));

    let [replaced] = of("replace")[..] else { panic!("{leaves:?}") };
    let replaced = &replaced["items"][0];
    assert_eq!((&replaced["row"], &replaced["version"]), (&value["row"], &2.into()));
    assert!(is_hash(&replaced["sha256"]) && replaced["sha256"] != value["sha256"]);
    let outcomes = |leaf: &Value| -> Vec<String> {
        leaf["items"].as_array().unwrap().iter().map(|item| text(item, "outcome").to_owned()).collect()
    };
    let [matched] = of("match")[..] else { panic!("{leaves:?}") };
    assert_eq!(
        (outcomes(matched), text(matched, "purpose")),
        (vec!["not_matched".into(), "matched".into()], "collections")
    );
    let [found] = of("lookup")[..] else { panic!("{leaves:?}") };
    assert_eq!(outcomes(found), ["found", "none"]);
    assert_eq!((&found["items"][0]["row"], members(&found["items"][1])), (&value["row"], vec!["field", "outcome"]));
    let [deleted] = of("delete")[..] else { panic!("{leaves:?}") };
    assert_eq!((outcomes(deleted), &deleted["items"][0]["row"]), (vec!["deleted".into()], &other["items"][0]["row"]));
    vault.verify_ledger();
}

#[tokio::test]
async fn what_was_refused_is_in_the_ledger_and_what_the_vault_does_not_know_is_not_repeated_there() {
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.id_card", ID_CARD, "cust-77").await;
    let mut app = vault.vault().await;
    // Somebody sends ID numbers and names where tokens, fields, purposes and views belong.
    for _ in 0..2 {
        drop(app.detokenize(detokenize(&[OTHER_ID_CARD], "kyc_review", "plain")).await.unwrap());
    }
    drop(app.detokenize(detokenize(&["srt1_Peter-Pan"], "kyc_review", "")).await.unwrap());
    refused(app.detokenize(detokenize(&[&token], "PeterPan", "")).await);
    drop(app.detokenize(detokenize(&[&token], "kyc_review", "PeterPan")).await.unwrap());
    refused(app.tokenize(tokenize(vec![item("PeterPan.name", "PeterPan", "PeterPan")])).await);
    refused(app.tokenize(tokenize(vec![item("borrower.id_card", "PeterPan", "PeterPan")])).await);
    refused(
        vault.vault_as("auditor").await.tokenize(tokenize(vec![item("borrower.name", "PeterPan", "PeterPan")])).await,
    );
    let wanted = v1::LookupItem { field: "PeterPan.name".to_owned(), value: "PeterPan".into() };
    drop(app.lookup(v1::LookupRequest { items: vec![wanted], purpose: "kyc_review".to_owned() }).await.unwrap());
    refused(vault.audit_as("app").await.get_checkpoint(v1::GetCheckpointRequest::default()).await);

    let lines = raw(&vault, 0, 0).await;
    let leaves: Vec<Value> = lines.iter().map(|line| serde_json::from_slice(line).unwrap()).collect();
    let refusals: Vec<(&str, &str, &str, &str)> = leaves
        .iter()
        .filter(|leaf| leaf["decision"] != "allow")
        .map(|leaf| (text(leaf, "principal"), text(leaf, "action"), text(leaf, "decision"), text(leaf, "reason")))
        .collect();
    assert_eq!(
        refusals,
        [
            ("app/app", "detokenize", "fail", "NOT_FOUND"),
            ("app/app", "detokenize", "fail", "NOT_FOUND"),
            ("app/app", "detokenize", "fail", "INVALID"),
            ("app/app", "detokenize", "fail", "INVALID"),
            ("app/app", "detokenize", "fail", "VIEW_UNKNOWN"),
            ("app/app", "tokenize", "fail", "INVALID"),
            ("app/app", "tokenize", "fail", "INVALID"),
            ("auditor/auditor", "tokenize", "deny", "DENIED"),
            ("app/app", "lookup", "fail", "FIELD_UNKNOWN"),
            ("app/app", "get_checkpoint", "deny", "DENIED"),
        ]
    );
    let ledger = lines.concat();
    for secret in ["PeterPan", "Peter-Pan", OTHER_ID_CARD, ID_CARD, "cust-77", &token] {
        assert!(!contains(&ledger, secret.as_bytes()), "{secret} stands in the ledger");
    }
    // A keyed hash stands for an unknown token: the same one for the same token, and not one that anybody could compute.
    let sent: Vec<&str> = leaves
        .iter()
        .filter(|leaf| leaf["reason"] == "NOT_FOUND")
        .map(|leaf| {
            assert_eq!(members(&leaf["items"][0]), ["outcome", "sent"]);
            text(&leaf["items"][0], "sent")
        })
        .collect();
    assert!(sent[0] == sent[1] && is_hash(&Value::from(sent[0])));
    assert_ne!(sent[0], data_encoding::HEXLOWER.encode(digest(&SHA256, OTHER_ID_CARD.as_bytes()).as_ref()));
    let other = TestVault::start();
    drop(other.vault().await.detokenize(detokenize(&[OTHER_ID_CARD], "kyc_review", "plain")).await.unwrap());
    let elsewhere = other.leaves().await;
    assert_ne!(elsewhere.last().unwrap()["items"][0]["sent"], sent[0], "the hash is keyed by vault");
    vault.verify_ledger();
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn a_flood_of_refusals_is_counted_and_not_written_one_by_one() {
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.name", "Ann", "cust-1").await;
    const FLOOD: usize = 1_500;
    let mut app = vault.vault().await;
    let begun = Instant::now();
    let mut head = vault.audit_as("app").await;
    for n in 0..FLOOD {
        match n % 3 {
            0 => drop(app.detokenize(detokenize(&["never-was"], "curiosity", "")).await),
            1 => drop(app.detokenize(detokenize(&["never-was"], "kyc_review", "")).await),
            _ => drop(head.get_checkpoint(v1::GetCheckpointRequest::default()).await),
        }
        if n % 500 == 0 {
            // Others are recorded all the same, and so is what is allowed.
            refused(vault.vault_as("auditor").await.tokenize(tokenize(vec![item("borrower.name", "Bob", "")])).await);
            read_one(&vault, &token, "kyc_review", "").await.unwrap();
        }
    }
    let seconds = begun.elapsed().as_secs() as usize + 1;
    // What went beyond the budget is written within a second or so.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let leaves = vault.leaves().await;
        let of_app = |leaf: &&Value| leaf["principal"] == "app/app" && leaf["decision"] != "allow";
        let (mut own, mut counted, mut counted_leaves) = (0, BTreeMap::new(), 0);
        for leaf in leaves.iter().filter(of_app) {
            match leaf["detail"]["counted"].as_str() {
                None => own += 1,
                Some(count) => {
                    counted_leaves += 1;
                    *counted.entry(text(leaf, "reason").to_owned()).or_insert(0) += count.parse::<usize>().unwrap();
                    let expected = match text(leaf, "reason") {
                        "DENIED" => ("get_checkpoint", "deny"),
                        _ => ("detokenize", "fail"),
                    };
                    assert_eq!((text(leaf, "action"), text(leaf, "decision")), expected);
                    assert!(!members(leaf).contains(&"items"), "{leaf}");
                }
            }
        }
        assert!(own >= 200 && own <= 200 + 20 * (seconds + 1), "{own} leaves of their own in {seconds} s");
        let total = own + counted.values().sum::<usize>();
        if total < FLOOD {
            assert!(Instant::now() < deadline, "{total} of {FLOOD} are in the ledger");
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        assert_eq!(total, FLOOD, "every refusal is in the ledger once");
        assert_eq!(counted.keys().collect::<Vec<_>>(), ["DENIED", "INVALID", "NOT_FOUND"]);
        assert!(counted_leaves <= 3 * (seconds + 2), "{counted_leaves} leaves that count in {seconds} s");
        let others = leaves.iter().filter(|leaf| leaf["principal"] == "auditor/auditor" && leaf["decision"] == "deny");
        assert_eq!(others.count(), 3);
        let reads = leaves.iter().filter(|leaf| leaf["action"] == "detokenize" && leaf["decision"] == "allow");
        assert_eq!(reads.count(), 3);
        break;
    }
    vault.verify_ledger();
}

#[tokio::test]
async fn the_systems_log_is_for_its_operators() {
    let vault = TestVault::start();
    let ledger = vault.scratch().join("system.jsonl");
    vault.cli_ok(&["audit", "export", "--log", "system", "--as", "operator", "-o", path(&ledger)]);
    vault.cli_ok(&["audit", "verify", path(&ledger)]);
    let first: Value = serde_json::from_str(fs::read_to_string(&ledger).unwrap().lines().next().unwrap()).unwrap();
    assert_eq!((text(&first, "action"), text(&first["detail"], "tenant")), ("create_vault", "system"));
    let origin =
        |principal: &str| vault.cli_ok(&["audit", "key", "--as", principal]).split('+').next().unwrap().to_owned();
    assert_ne!(origin("operator"), origin("auditor"));

    let ask = async |principal: &str, log: &str| {
        let mut client = vault.audit_as(principal).await;
        let request = v1::ExportRequest { log: log.to_owned(), ..Default::default() };
        let export = client.export(request).await.map(drop);
        let note = client
            .get_checkpoint(v1::GetCheckpointRequest { log: log.to_owned(), ..Default::default() })
            .await
            .map(drop);
        (export.err().map(|told| told.code()), note.err().map(|told| told.code()))
    };
    let both = |code: Code| (Some(code), Some(code));
    assert_eq!(ask("operator", "system").await, (None, None));
    assert_eq!(ask("auditor", "").await, (None, None));
    assert_eq!(ask("auditor", "demo").await, (None, None));
    assert_eq!(ask("auditor", "system").await, both(Code::PermissionDenied));
    assert_eq!(ask("officer-1", "system").await, both(Code::PermissionDenied));
    assert_eq!(ask("operator", "demo").await, both(Code::InvalidArgument));
    assert_eq!(ask("auditor", "other").await, both(Code::InvalidArgument));
    for nobody in ["app", "rotator", "privacy"] {
        assert_eq!(ask(nobody, "").await, both(Code::PermissionDenied), "{nobody}");
    }
}

#[tokio::test]
async fn an_export_brings_the_leaves_that_were_asked_for() {
    let vault = TestVault::start();
    grow(&vault, "Ann", 10).await;
    let all = raw(&vault, 0, 0).await;
    assert_eq!(raw(&vault, 0, 5).await, all[..5]);
    assert_eq!(raw(&vault, 3, 5).await, all[3..5]);
    assert_eq!(raw(&vault, 7, 7).await, [[0; 0]; 0]);
    assert_eq!(raw(&vault, 4, 0).await[..4], all[4..8]);
    for (first, end) in [(0, 1_000_000), (9, 3), (u64::MAX, 0), (u64::MAX, u64::MAX)] {
        let request = v1::ExportRequest { first, end, ..Default::default() };
        let told = refused(vault.audit().await.export(request).await);
        assert_eq!(
            (told.code, told.violations[0].1.as_str()),
            (Code::InvalidArgument, "out_of_range"),
            "{first} to {end}"
        );
    }
    // Each line is written as the format says, which is what Python's json.dumps would write.
    for line in &all {
        let line = std::str::from_utf8(line).unwrap();
        let parsed: Value = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&parsed).unwrap(), line);
        assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
    }
}

#[tokio::test]
async fn a_checkpoint_is_signed_at_most_once_a_second_and_grows_with_the_log() {
    let vault = TestVault::start();
    let mut audit: AuditClient<Channel> = vault.audit().await;
    let mut app = vault.vault().await;
    let begun = Instant::now();
    let mut notes: BTreeSet<(u64, String)> = BTreeSet::new();
    let mut asked = 0;
    let mut last = 0;
    while notes.len() < 3 {
        app.tokenize(tokenize(vec![item("borrower.name", "Ann", "")])).await.unwrap();
        let head = audit.get_checkpoint(v1::GetCheckpointRequest::default()).await.unwrap().into_inner();
        let mut lines = head.checkpoint.lines();
        assert_eq!(lines.next(), head.keys[0].split('+').next());
        let size: u64 = lines.next().unwrap().parse().unwrap();
        assert!(size >= last, "{size} after {last}");
        last = size;
        notes.insert((size, head.checkpoint));
        asked += 1;
        assert!(begun.elapsed() < Duration::from_secs(30), "{} notes", notes.len());
    }
    // The third was signed two seconds after the first, or more.
    assert!(begun.elapsed() >= Duration::from_millis(1_900), "three notes in {:?}", begun.elapsed());
    assert!(asked > 3 && notes.iter().map(|(size, _)| size).collect::<BTreeSet<_>>().len() == 3);
}
