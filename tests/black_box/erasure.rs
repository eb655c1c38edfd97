//! Erasure: what is left of a data subject in files, what many who write, read and erase at once end with, and the commands.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use strongroom_ids::TenantNo;
use strongroom_proto::v1;
use strongroom_proto::v1::subjects_client::SubjectsClient;
use strongroom_rocksdb::{RocksOptions, RocksStore};
use strongroom_storage::rows::{RowDek, SubjectRecord, ValueRow};
use strongroom_storage::{Family, Range, Store, keys as place};
use tonic::Code;
use tonic::transport::Channel;

use crate::files::{copy, put};
use crate::harness::{TestVault, Told, detokenize, item, one_token, read_one, tokenize, value};
use crate::needles::{Needles, files, stored_files};
use crate::patience::until;

const TENANT: TenantNo = TenantNo(1);
/// In which the background has done what it does by itself.
const SOON: Duration = Duration::from_secs(60);

async fn desk(vault: &TestVault) -> SubjectsClient<Channel> {
    SubjectsClient::new(vault.channel("privacy").await)
}

fn erase(subject: &str) -> v1::EraseSubjectRequest {
    v1::EraseSubjectRequest { subject: subject.to_owned(), ..Default::default() }
}

/// Values of every kind of one subject.
fn everything_of(subject: &str, number: usize) -> Vec<v1::TokenizeItem> {
    vec![
        item("borrower.name", "张三", subject),
        item("borrower.id_card", ["11010519491231002X", "110105194912310038"][number % 2], subject),
        item("borrower.bank_card", "6222021234567890128", subject),
        item("borrower.email", &format!("m{number}@mail.example"), subject),
        item("borrower.account_opened", "2020-01-02", subject),
        item("company.settlement_account", &format!("account-{number:08}"), subject),
        item("company.uscc", ["91350100M000100Y43", "91110000600037341L"][number % 2], subject),
    ]
}

async fn entries(store: &RocksStore, family: Family) -> Vec<(bytes::Bytes, bytes::Bytes)> {
    let from = TENANT.0.to_be_bytes().to_vec();
    let to = place::prefix_end(&from);
    store.scan(family, Range { from, to, limit: 1_000_000 }).await.unwrap()
}

/// What the store has of the subject that came first: wrapped DEKs, ciphertexts, and the blind indexes that lead to it.
async fn all_of_the_first(vault: &TestVault) -> Needles {
    let store = RocksStore::open(&vault.dir().join("data"), RocksOptions::default()).unwrap();
    let records = entries(&store, Family::Subjects).await;
    let record = SubjectRecord::decode(&records[0].1).unwrap();
    let mut needles = Needles::new();
    // Without its beginning: a key may share that with its neighbour, and is written without it then.
    let mac = |needles: &mut Needles, name: &str, mac: &[u8; 32]| needles.bytes(name, &mac[2..]);
    mac(&mut needles, "the index of its id", &record.id_index.mac);
    needles.bytes("its sealed id", &record.sealed_id[2..]);
    for dek in &record.deks {
        needles.bytes("a wrapped DEK", &dek.blob[2..]);
    }
    let own = |row: &ValueRow| row.subject == record.handle;
    let (_, end) = place::subject_rows_after(TENANT, record.handle, strongroom_ids::RowId(0));
    let start = [&TENANT.0.to_be_bytes()[..], &record.handle.0.to_be_bytes()].concat();
    let range = Range { from: start, to: end, limit: 1_000 };
    let held = store.scan(Family::SubjectRows, range).await.unwrap();
    let mut kinds = 0;
    for (key, _) in &held {
        let id = place::decode_subject_row(key).unwrap();
        let row = store.get(Family::Rows, place::row(TENANT, id)).await.unwrap().unwrap();
        let row = ValueRow::decode(&row).unwrap();
        needles.bytes("a ciphertext", &row.sealed[2..]);
        if let Some(token) = &row.sealed_token {
            needles.bytes("a sealed token", &token[2..]);
        }
        for entry in &row.indexes {
            mac(&mut needles, "an index entry", &entry.mac);
        }
        if !own(&row) {
            let dek = store.get(Family::RowDeks, place::row_dek(TENANT, id)).await.unwrap().unwrap();
            needles.bytes("the wrapped DEK of a value", &RowDek::decode(&dek).unwrap().blob[2..]);
            kinds += 1;
        }
    }
    assert_eq!((held.len(), kinds, record.deks.len()), (7, 1, 4));
    needles
}

/// The files of the store that hold entries.
fn tables_and_logs(data: &Path) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "sst" || ending == "log");
    files(data).into_iter().filter(holds).collect()
}

fn found(needles: &Needles, files: &[PathBuf]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for file in files {
        // A running vault removes files that it has compacted.
        let Ok(bytes) = std::fs::read(file) else { continue };
        all.extend(needles.found(&bytes).into_iter().map(str::to_owned));
    }
    all.sort_unstable();
    all.dedup();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_file_holds_what_an_erased_subject_had() {
    let mut vault = TestVault::start();
    let mut client = vault.vault().await;
    let first = client.tokenize(tokenize(everything_of("gone", 0))).await.unwrap().into_inner().tokens;
    let second = client.tokenize(tokenize(everything_of("stays", 1))).await.unwrap().into_inner().tokens;
    assert!(vault.stop().success());
    let data = vault.dir().join("data");
    // As it was written, before a start makes tables of it.
    let before: Vec<Vec<u8>> = tables_and_logs(&data).iter().map(|file| std::fs::read(file).unwrap()).collect();
    let needles = all_of_the_first(&vault).await;
    let mut before: Vec<&str> = before.iter().flat_map(|bytes| needles.found(bytes)).collect();
    before.sort_unstable();
    before.dedup();
    assert_eq!(before.len(), 7, "the search finds what is there: {before:?}");
    vault.up();

    let mut desk = desk(&vault).await;
    let told = desk.erase_subject(erase("gone")).await.unwrap().into_inner();
    assert_eq!((told.state.as_str(), told.receipt.is_empty()), ("erased", false));
    // The keys and what led from the id are out of the files when the receipt is signed; the rest follows by itself.
    let left = found(&needles, &tables_and_logs(&data));
    let keys = ["a wrapped DEK", "its sealed id", "the index of its id", "the wrapped DEK of a value"];
    assert!(!left.iter().any(|name| keys.contains(&name.as_str())), "{left:?}");
    until(SOON, "the end of what was left", async || {
        let left = found(&needles, &tables_and_logs(&data));
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    // A start writes the list of files anew, which names the first and the last key of each.
    assert!(vault.stop().success());
    vault.up();
    for token in &first {
        for purpose in ["loan_servicing", "kyc_review", "collections"] {
            assert_eq!(read_one(&vault, token, purpose, "plain").await.unwrap_err().code, Code::NotFound);
        }
    }
    assert_eq!(read_one(&vault, &second[0], "kyc_review", "plain").await.unwrap(), "张三");
    vault.verify_ledger();
    assert!(vault.stop().success());
    needles.absent_from(&stored_files(&vault.dir()), "after the erasure");
    vault.cli_ok(&["verify"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_the_data_does_not_bring_an_erased_subject_back() {
    let mut vault = TestVault::start();
    let mut client = vault.vault().await;
    let first = client.tokenize(tokenize(everything_of("gone", 0))).await.unwrap().into_inner().tokens;
    let second = client.tokenize(tokenize(everything_of("stays", 1))).await.unwrap().into_inner().tokens;
    assert!(vault.stop().success());
    let (data, older) = (vault.dir().join("data"), vault.scratch().join("older"));
    copy(&data, &older);
    let needles = all_of_the_first(&vault).await;
    vault.up();
    vault.cli_ok(&["subject", "erase", "gone", "--yes"]);
    assert!(vault.stop().success());

    put(&older, &data);
    let said = vault.refuses_to_start();
    assert!(said.contains("`strongroom restore`"), "{said}");
    let restored = vault.json(&["restore"]);
    assert_eq!((&restored["replayed"], &restored["frozen"]), (&"1".into(), &false.into()), "{restored:#}");
    // Its keys are gone before anything is cleared.
    assert_eq!(vault.json(&["verify"])["verified"], true);
    vault.up();
    assert_eq!(read_one(&vault, &first[0], "kyc_review", "plain").await.unwrap_err().code, Code::NotFound);
    assert_eq!(read_one(&vault, &second[0], "kyc_review", "plain").await.unwrap(), "张三");
    let again = vault.cli(&["subject", "erase", "gone", "--yes"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("no data subject of that id"), "{again:?}");
    until(SOON, "the end of what was left", async || {
        let left = found(&needles, &tables_and_logs(&data));
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    for token in &first {
        assert_eq!(read_one(&vault, token, "kyc_review", "plain").await.unwrap_err().code, Code::NotFound);
    }
    vault.verify_ledger();
    assert!(vault.stop().success());
    assert_eq!(vault.json(&["verify"])["verified"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasures_tokenizations_and_reads_at_once_seal_nothing_under_a_destroyed_dek() {
    const SUBJECTS: usize = 3;
    const WRITES: usize = 60;
    const ERASURES: usize = 20;
    let mut vault = TestVault::start();
    // Tokens that were given out.
    let given = Mutex::new(Vec::<String>::new());
    let begun = Mutex::new(BTreeSet::<String>::new());
    let (house, tokens, names) = (&vault, &given, &begun);
    let writers = (0..4).map(|writer| async move {
        let mut client = house.vault().await;
        for number in 0..WRITES {
            let subject = format!("s-{}", (writer + number) % SUBJECTS);
            let field = ["borrower.address", "company.settlement_account"][number % 2];
            let request = tokenize(vec![item(field, &format!("value {writer} {number}"), &subject)]);
            match client.tokenize(request).await {
                Ok(answer) => tokens.lock().unwrap().extend(answer.into_inner().tokens),
                Err(status) => assert_eq!(status.code(), Code::Aborted, "{status:?}"),
            }
        }
    });
    let readers = (0..2).map(|reader| async move {
        let mut client = house.vault().await;
        for number in 0..WRITES {
            let token = {
                let given = tokens.lock().unwrap();
                given.len().checked_sub(1 + (number * (reader + 1)) % 7).map(|place| given[place].clone())
            };
            let Some(token) = token else { continue };
            let answer = client.detokenize(detokenize(&[&token], "loan_servicing", "plain")).await;
            match answer {
                Ok(answer) => match value(answer.into_inner().results.remove(0)) {
                    Ok(value) => assert!(value.starts_with(b"value ")),
                    Err(told) => assert_eq!(told.code, Code::NotFound, "{told:?}"),
                },
                Err(status) => assert_eq!(status.code(), Code::Aborted, "{status:?}"),
            }
        }
    });
    let erasers = (0..2).map(|eraser| async move {
        let mut desk = desk(house).await;
        for number in 0..ERASURES {
            match desk.erase_subject(erase(&format!("s-{}", (number + eraser) % SUBJECTS))).await {
                // Another request may be in its way: then the rest is done in the background.
                Ok(answer) => {
                    let told = answer.into_inner();
                    assert!(["erased", "clearing"].contains(&told.state.as_str()), "{}", told.state);
                    names.lock().unwrap().insert(told.erasure);
                }
                Err(status) => assert!(matches!(status.code(), Code::NotFound | Code::Aborted), "{status:?}"),
            }
        }
    });
    tokio::join!(join_all(writers), join_all(readers), join_all(erasers));

    // Every token that was given out opens, or its subject was erased since, which the ledger says of its row.
    let given = given.lock().unwrap().clone();
    let mut open = 0;
    for token in &given {
        match read_one(&vault, token, "loan_servicing", "plain").await {
            Ok(_) => open += 1,
            Err(Told { code, .. }) => assert_eq!(code, Code::NotFound),
        }
    }
    // The ledger names the row of a value when it is cleared.
    let privacy = desk(&vault).await;
    until(SOON, "the end of all erasures", async || {
        let request = v1::ListErasuresRequest { page_size: 1_000, page_token: String::new() };
        let listed = privacy.clone().list_erasures(request).await.unwrap().into_inner();
        assert_eq!(listed.next_page_token, "");
        let erased = listed.erasures.into_iter().filter(|one| one.state == "erased").map(|one| one.erasure).collect();
        let left: Vec<String> = begun.lock().unwrap().difference(&erased).cloned().collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let leaves = vault.leaves().await;
    let rows = |action: &str, outcome: &str| {
        let leaves = leaves.iter().filter(|leaf| leaf["action"] == action && leaf["decision"] == "allow");
        let items = leaves.flat_map(|leaf| leaf["items"].as_array().into_iter().flatten());
        let rows = items.filter(|item| item["outcome"] == outcome && item["row"].is_string());
        rows.map(|item| item["row"].clone()).collect::<Vec<Value>>()
    };
    let (stored, erased) = (rows("tokenize", "ok"), rows("erase_subject", "deleted"));
    assert_eq!(stored.len(), given.len());
    assert_eq!(open, stored.len() - erased.len());
    assert!(erased.iter().all(|row| stored.contains(row)));
    assert!(!erased.is_empty());
    vault.verify_ledger();
    assert!(vault.stop().success());
    vault.cli_ok(&["verify"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_privacy_desk_erases_on_the_command_line_and_its_receipt_is_verified() {
    let vault = TestVault::start();
    one_token(&vault, "borrower.id_card", "11010519491231002X", "cust-1").await;
    assert_eq!(vault.json(&["subject", "erasures"])["erasures"].as_array().map(Vec::len), Some(0));
    let asked = vault.cli(&["subject", "erase", "cust-1"]);
    assert_eq!(asked.status.code(), Some(2), "nobody can be asked");
    let (receipt, keys) = (vault.scratch().join("cust-1.receipt"), vault.scratch().join("ledger.key"));
    let (receipt, keys) = (receipt.to_str().unwrap(), keys.to_str().unwrap());
    let told = vault.cli(&["subject", "erase", "cust-1", "--yes", "--receipt", receipt]);
    assert!(told.status.success(), "{told:?}");
    // Whose answer is lost asks again by the key that was told before.
    let hint = String::from_utf8(told.stderr).unwrap();
    let key = hint.split_whitespace().last().unwrap();
    let (told, name) = (String::from_utf8(told.stdout).unwrap(), "cust-1");
    let again = vault.json(&["subject", "erase", name, "--yes", "--idempotency-key", key]);
    assert!(told.contains(again["erasure"].as_str().unwrap()) && told.contains(again["receipt"].as_str().unwrap()));
    let listed = vault.json(&["subject", "erasures"]);
    assert_eq!(listed["erasures"][0]["erasure"], again["erasure"]);
    assert_eq!(
        (listed["erasures"][0]["state"].as_str(), listed["erasures"][0]["has_receipt"].as_bool()),
        (Some("erased"), Some(true))
    );
    assert!(told.contains("erased") && told.contains("strongroom-erasure/"), "{told}");
    std::fs::write(keys, vault.cli_ok(&["audit", "key"])).unwrap();
    let said = vault.json(&["subject", "verify-receipt", receipt, "--log-key", keys]);
    assert_eq!(
        (said["verified"].as_bool(), said["values"].as_str(), said["held"].as_str()),
        (Some(true), Some("1"), Some("0"))
    );
    let salt = again["salt"].as_str().unwrap();
    assert!(told.contains(salt), "{told}");
    let of = |id: &str, salt: &str| {
        vault
            .cli(&["subject", "verify-receipt", receipt, "--log-key", keys, "--subject", id, "--salt", salt])
            .status
            .code()
    };
    assert_eq!((of("cust-1", salt), of("cust-2", salt), of("cust-1", &"0".repeat(64))), (Some(0), Some(1), Some(1)));
    let text = std::fs::read_to_string(receipt).unwrap();
    std::fs::write(receipt, text.replace("values 1", "values 2")).unwrap();
    assert_eq!(vault.cli(&["subject", "verify-receipt", receipt, "--log-key", keys]).status.code(), Some(1));
    let again = vault.cli(&["subject", "erase", "cust-1", "--yes"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("no data subject of that id"), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grace_and_holds_are_seen_on_the_command_line() {
    let vault = TestVault::start();
    let card = one_token(&vault, "borrower.id_card", "11010519491231002X", "cust-1").await;
    one_token(&vault, "borrower.name", "张三", "cust-1").await;
    let told = vault.json(&["subject", "erase", "cust-1", "--yes", "--grace", "30d"]);
    assert_eq!(told["state"], "waiting");
    let frozen = read_one(&vault, &card, "kyc_review", "plain").await.unwrap_err();
    assert_eq!((frozen.code, frozen.reason.as_str()), (Code::FailedPrecondition, "SUBJECT_LEAVING"));
    let (name, out) = (told["erasure"].as_str().unwrap(), vault.scratch().join("cust-1.receipt"));
    assert!(vault.cli_ok(&["subject", "erasure", name]).contains("undo-erasure"));
    let early = vault.cli(&["subject", "erasure", name, "--receipt", out.to_str().unwrap()]);
    assert_eq!((early.status.code(), out.exists()), (Some(3), false));
    assert!(String::from_utf8_lossy(&early.stdout).contains("none yet"), "{early:?}");
    vault.cli_ok(&["subject", "undo-erasure", "cust-1"]);
    assert!(read_one(&vault, &card, "kyc_review", "plain").await.is_ok());

    let hold = ["subject", "hold", "cust-1", "--field", "borrower.id_card"];
    let more = ["--reason", "case-7", "--purpose", "collections", "--until", "2037-12-31"];
    assert_eq!(vault.json(&[&hold[..], &more].concat())["number"], 1);
    let holds = vault.json(&["subject", "holds", "cust-1"]);
    assert_eq!(
        (holds["holds"][0]["reason"].as_str(), holds["holds"][0]["stands"].as_bool()),
        (Some("case-7"), Some(true))
    );
    // What waits ends by itself, and keeps what is held.
    let told = vault.json(&["subject", "erase", "cust-1", "--yes", "--grace", "1s"]);
    let name = told["erasure"].as_str().unwrap().to_owned();
    let state = async |wanted: &str| {
        until(SOON, wanted, async || {
            let mut desk = desk(&vault).await;
            let request = v1::GetErasureRequest { erasure: name.clone() };
            let told = desk.get_erasure(request).await.unwrap().into_inner();
            if told.state == wanted { Ok(told) } else { Err(told.state) }
        })
        .await
    };
    let told = state("held").await;
    assert_eq!((told.kept[0].hold, told.kept[0].fields.as_slice()), (1, &["borrower.id_card".to_owned()][..]));
    assert!(told.receipt.contains("erased but 1"), "{}", told.receipt);
    assert_eq!(read_one(&vault, &card, "kyc_review", "plain").await.unwrap_err().code, Code::NotFound);
    assert!(read_one(&vault, &card, "collections", "plain").await.is_ok());
    let shown = vault.cli(&["subject", "erasure", &name]);
    assert_eq!(shown.status.code(), Some(3), "done in part");
    vault.cli_ok(&["subject", "lift", "cust-1", "1"]);
    let told = state("erased").await;
    assert!(told.receipt.contains("erased all"), "{}", told.receipt);
    vault.verify_ledger();
}
