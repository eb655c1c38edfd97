//! The ledger: who asked for what and what became of it, and that nobody can change it unnoticed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};
use serde_json::Value;
use strongroom_proto::v1;
use strongroom_proto::v1::audit_client::AuditClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::files::path;
use crate::harness::{TestVault, detokenize, grow, item, one_token, read_one, refused, tokenize};
use crate::patience::until;

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

/// An export with checkpoint and key, of a log with some leaves.
struct Exported {
    lines: Vec<String>,
    file: PathBuf,
}

impl Exported {
    fn of(vault: &TestVault, name: &str) -> Self {
        let file = vault.scratch().join(name);
        vault.cli_ok(&["audit", "export", "-o", file.to_str().unwrap()]);
        let text = fs::read_to_string(&file).unwrap();
        Self { lines: text.lines().map(str::to_owned).collect(), file }
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.file.clone().into_os_string();
        name.push(ending);
        name.into()
    }

    /// What `audit verify` says of other lines in the place of these: nothing if they hold.
    fn verify(&self, vault: &TestVault, text: &str, more: &[&str]) -> Result<(), String> {
        let changed = vault.scratch().join("changed.jsonl");
        fs::write(&changed, text).unwrap();
        let (note, key) = (self.beside(".checkpoint"), self.beside(".key"));
        let words = ["audit", "verify", path(&changed), "--checkpoint", path(&note), "--log-key", path(&key)];
        let output = vault.cli(&[&words[..], more].concat());
        match output.status.code() {
            Some(0) => Ok(()),
            Some(1) => Err(String::from_utf8(output.stderr).unwrap()),
            other => panic!("{other:?}: {output:?}"),
        }
    }
}

fn file(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn verification_names_the_place_of_what_was_changed() {
    let vault = TestVault::start();
    for n in 0..3 {
        let items = (0..400).map(|m| item("borrower.name", &format!("Ann {n} {m}"), "cust-1")).collect();
        vault.vault().await.tokenize(tokenize(items)).await.unwrap();
    }
    let older = Exported::of(&vault, "older.jsonl");
    for n in 0..6 {
        one_token(&vault, "borrower.name", &format!("Bob {n}"), "cust-2").await;
    }
    // A checkpoint is up to a second old.
    let whole = until(Duration::from_secs(10), "every leaf", async || {
        let exported = Exported::of(&vault, "whole.jsonl");
        let count = exported.lines.iter().filter(|line| line.contains("\"tokenize\"")).count();
        if count < 9 { Err(count) } else { Ok(exported) }
    })
    .await;
    let lines = &whole.lines;
    let count = lines.len();
    assert!(lines.iter().any(|line| line.contains("\"part\":\"2/")), "a large request has parts");
    assert_eq!(whole.verify(&vault, &file(lines), &[]), Ok(()));
    let older_note = older.beside(".checkpoint");
    let since = ["--older", path(&older_note)];
    assert_eq!(whole.verify(&vault, &file(lines), &since), Ok(()));
    assert!(older.lines.len() < count - 5);
    let expect = |what: &str, text: String, more: &[&str], hints: &[&str]| {
        let said = whole.verify(&vault, &text, more).expect_err(what);
        for hint in hints {
            assert!(said.contains(hint), "{what}: {hint:?} is not in: {said}");
        }
    };
    // One of several leaves of the application that follow each other.
    let at = lines.iter().rposition(|line| line.contains("\"tokenize\"")).unwrap() - 1;
    assert!(lines[at].contains("\"tokenize\"") && at > older.lines.len());
    let (line, leaf) = (format!("line {}", at + 1), format!("leaf {at}"));
    let edited = |edit: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.clone();
        edit(&mut lines);
        file(&lines)
    };

    // One letter: the form holds, the root does not; the older checkpoint says that it is in the newer half.
    let letter = edited(&|lines| lines[at] = lines[at].replace("\"app/app\"", "\"app/apq\""));
    assert!(letter != file(lines));
    expect("a letter", letter.clone(), &[], &["do not give the signed root", &format!("from 0 to {}", count - 1)]);
    let narrowed = format!("from {} to {}", older.lines.len(), count - 1);
    expect("a letter, narrowed", letter, &since, &["do not give the signed root", &narrowed]);
    let early = edited(&|lines| lines[1] = lines[1].replace("\"officer/officer-1\"", "\"officer/officer-2\""));
    expect("an early letter", early, &since, &[&format!("from 0 to {}", older.lines.len() - 1)]);
    // Any single bit of a line.
    for byte in (0..lines[at].len()).step_by(7) {
        let mut flipped = file(lines).into_bytes();
        let start = lines[..at].iter().map(|line| line.len() + 1).sum::<usize>();
        flipped[start + byte] ^= 1;
        expect("a bit", String::from_utf8(flipped).unwrap(), &[], &["does not hold"]);
    }
    // What is seen in the line itself is named by its line.
    expect(
        "a space",
        edited(&|lines| lines[at] = lines[at].replacen(",\"time\"", ", \"time\"", 1)),
        &[],
        &[&line, "was changed"],
    );
    expect("no JSON", edited(&|lines| lines[at].truncate(40)), &[], &[&line, "was changed"]);
    expect("an empty line", edited(&|lines| lines.insert(at, String::new())), &[], &[&line]);
    expect("carriage returns", file(lines).replace('\n', "\r\n"), &[], &["line 1 ends with a carriage return"]);

    expect(
        "dropped",
        edited(&|lines| drop(lines.remove(at))),
        &[],
        &[&line, &format!("leaf {at} is expected"), "was removed"],
    );
    expect(
        "several dropped",
        edited(&|lines| drop(lines.drain(at - 2..at))),
        &[],
        &[&format!("leaves {} to {} were removed", at - 2, at - 1)],
    );
    expect("the first dropped", edited(&|lines| drop(lines.remove(0))), &[], &["begins with leaf 1"]);
    expect("swapped", edited(&|lines| lines.swap(at, at + 1)), &[], &[&line, &leaf, "lines were moved"]);
    expect(
        "duplicated",
        edited(&|lines| lines.insert(at, lines[at].clone())),
        &[],
        &[&format!("line {}", at + 2), &leaf, "already"],
    );
    expect(
        "appended",
        edited(&|lines| lines.push(lines[at].replacen(&format!("\"{at}\""), &format!("\"{count}\""), 1))),
        &[],
        &[&format!("line {}", count + 1)],
    );
    expect(
        "the end dropped",
        edited(&|lines| lines.truncate(at)),
        &[],
        &[&format!("ends after {at} leaves"), &format!("leaves {at} to {} are missing", count - 1)],
    );
    expect(
        "cut within a line",
        file(lines)[..file(lines).len() - 20].to_owned(),
        &[],
        &[&format!("within line {count}"), &format!("leaf {}", count - 1)],
    );
    expect("nothing", String::new(), &[], &[]);
    // Two parts of a large request are not two requests.
    let part = lines.iter().position(|line| line.contains("\"part\":\"2/")).unwrap();
    expect(
        "a part changed",
        edited(&|lines| lines[part] = lines[part].replacen("\"part\":\"2/", "\"part\":\"1/", 1)),
        &[],
        &[&format!("leaf {part}"), "part"],
    );
}

#[tokio::test]
async fn another_vaults_key_or_checkpoint_proves_nothing() {
    let (vault, other) = (TestVault::start(), TestVault::start());
    one_token(&vault, "borrower.name", "Ann", "cust-1").await;
    let (own, foreign) = (Exported::of(&vault, "own.jsonl"), Exported::of(&other, "foreign.jsonl"));
    let verify = |export: &Path, note: PathBuf, key: PathBuf| {
        let words = ["audit", "verify", path(export), "--checkpoint", path(&note), "--log-key", path(&key)];
        let output = vault.cli(&words);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(verify(&own.file, own.beside(".checkpoint"), own.beside(".key")).0, 0);
    let (code, said) = verify(&own.file, own.beside(".checkpoint"), foreign.beside(".key"));
    assert!(code == 1 && said.contains("the checkpoint does not verify"), "{said}");
    let (code, said) = verify(&own.file, foreign.beside(".checkpoint"), own.beside(".key"));
    assert!(code == 1 && said.contains("the checkpoint does not verify"), "{said}");
    // All three from elsewhere hold among themselves; only the key that one keeps tells the difference.
    assert_eq!(verify(&foreign.file, foreign.beside(".checkpoint"), foreign.beside(".key")).0, 0);
    let (code, said) = verify(&foreign.file, own.beside(".checkpoint"), own.beside(".key"));
    assert!(code == 1 && said.contains("does not hold"), "{said}");
    // A forged checkpoint: other numbers under the old signature.
    let note = fs::read_to_string(own.beside(".checkpoint")).unwrap();
    let mut parts: Vec<&str> = note.lines().collect();
    let size = (parts[1].parse::<u64>().unwrap() - 1).to_string();
    parts[1] = &size;
    let forged = vault.scratch().join("forged.checkpoint");
    fs::write(&forged, parts.join("\n") + "\n").unwrap();
    assert_eq!(verify(&own.file, forged, own.beside(".key")).0, 1);
    // Without the key that was kept, the command says what that is worth.
    let said = vault.cli_ok(&["audit", "verify", path(&own.file)]);
    assert!(said.contains("came with the export"), "{said}");
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
