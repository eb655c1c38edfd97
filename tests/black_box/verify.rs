//! `strongroom verify`: a vault, stopped or running, or a copy of it is proven against its ledger. What somebody did to the files of
//! one that is stopped: see `tamper.rs`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use strongroom_ids::TenantNo;
use strongroom_proto::v1;
use strongroom_proto::v1::vault_client::VaultClient;
use strongroom_rocksdb::{RocksOptions, RocksStore};
use strongroom_storage::rows::ValueRow;
use strongroom_storage::{Entry, Family, Mutation, Range, Store, keys as place};
use tonic::transport::Channel;

use crate::files::{copy, path};
use crate::harness::{BINARY, TestVault, detokenize, item, one_token, tokenize};
use crate::needles::files;

const TENANT: TenantNo = TenantNo(1);

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

/// All files of a folder.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all: Vec<PathBuf> = files(dir);
    all.sort();
    all.into_iter().map(|file| (file.clone(), std::fs::read(file).unwrap())).collect()
}

async fn entries(store: &RocksStore, family: Family) -> Vec<Entry> {
    let from = TENANT.0.to_be_bytes().to_vec();
    let to = place::prefix_end(&from);
    store.scan(family, Range { from, to, limit: 1_000_000 }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_nobody_touched_verifies_stopped_restarted_and_killed() {
    let mut vault = loaded().await;
    assert!(vault.stop().success());
    let before = contents(&vault.dir());
    let (holds, document) = verify(&vault.dir(), &[]);
    assert!(holds, "{document:#}");
    assert!(contents(&vault.dir()) == before, "it has written something");
    assert_eq!(document["verified"], json!(true));
    assert_eq!((&document["running"], &document["head_file"]), (&json!(false), &json!(true)));
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

/// Stores, replaces and deletes values until it is told to end; says how often it did.
async fn write_on(mut client: VaultClient<Channel>, writer: u32, done: Arc<AtomicBool>) -> u32 {
    let mut written = 0;
    while !done.load(Ordering::Relaxed) {
        let subject = format!("of-{writer}-{}", written % 20);
        let items = vec![
            item("borrower.name", "王五", &subject),
            item("borrower.id_card", "11010519491231002X", &subject),
            item("company.uscc", "91350100M000100Y43", &subject),
        ];
        let tokens = client.tokenize(tokenize(items)).await.unwrap().into_inner().tokens;
        let items = vec![v1::DeleteItem { token: tokens[0].clone(), subject: String::new() }];
        client.delete(v1::DeleteRequest { items, idempotency_key: String::new() }).await.unwrap();
        let value = "110105194912310038".to_owned().into();
        let items = vec![v1::ReplaceItem { token: tokens[1].clone(), value, expire_time: None }];
        client.replace(v1::ReplaceRequest { items, idempotency_key: String::new() }).await.unwrap();
        written += 1;
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_vault_that_runs_verifies_while_others_write_to_it() {
    let mut vault = loaded().await;
    let done = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..3 {
        writers.push(tokio::spawn(write_on(vault.vault().await, writer, Arc::clone(&done))));
    }
    let mut leaves = Vec::new();
    for threads in ["1", "4", "2"] {
        let dir = vault.dir();
        let verified = tokio::task::spawn_blocking(move || verify(&dir, &["--threads", threads]));
        let (holds, document) = verified.await.unwrap();
        assert!(holds, "{document:#}");
        assert_eq!((&document["verified"], &document["running"]), (&json!(true), &json!(true)));
        let demo = &document["tenants"][1];
        let number = |name: &str| demo[name].as_str().unwrap().parse::<u64>().unwrap();
        assert!(number("leaves") >= number("signed_leaves") && number("signed_leaves") > 0, "{demo:#}");
        leaves.push(number("leaves"));
    }
    assert!(leaves.is_sorted_by(|one, next| one < next), "nobody wrote: {leaves:?}");
    // A key changes, and the vault goes on.
    vault.cli_ok(&["keys", "rotate", "index/subject-id"]);
    assert!(verify(&vault.dir(), &[]).0);
    done.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.await.unwrap() > 0);
    }
    let text = vault.cli_ok(&["verify"]);
    assert!(text.contains("The vault runs: this is what it was at one moment"), "{text}");
    assert!(vault.stop().success());
    let (holds, document) = verify(&vault.dir(), &[]);
    assert!(holds && document["running"] == json!(false), "{document:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_to_the_store_is_named_while_the_vault_runs_and_in_the_same_order_by_any_number_of_threads() {
    let mut vault = loaded().await;
    assert!(vault.stop().success());
    let store = RocksStore::open(&vault.dir().join("data"), RocksOptions::default()).unwrap();
    let mut batch = Vec::new();
    for (key, row) in entries(&store, Family::Rows).await.iter().step_by(9) {
        let mut row = ValueRow::decode(row).unwrap();
        row.sealed[20] ^= 1;
        batch.push(Mutation::Put(Family::Rows, key.to_vec(), row.encode()));
    }
    for (key, _) in entries(&store, Family::SubjectRows).await.iter().skip(4).step_by(5) {
        batch.push(Mutation::Delete(Family::SubjectRows, key.to_vec()));
    }
    let changed = batch.len() / 2;
    store.write(batch).await.unwrap();
    drop(store);
    // Nobody looks at all rows when a vault starts.
    vault.up();
    let (holds, document) = verify(&vault.dir(), &["--threads", "3"]);
    assert!(!holds && document["running"] == json!(true), "{document:#}");
    assert!(document["findings"].as_array().unwrap().len() > changed, "{document:#}");
    assert!(vault.stop().success());
    let one = verify(&vault.dir(), &["--threads", "1"]);
    for threads in ["2", "4", "7"] {
        assert_eq!(verify(&vault.dir(), &["--threads", threads]), one, "by {threads}");
    }
    assert_eq!(one.1["findings"], document["findings"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_older_than_the_vault_is_compared_to_the_head_file_beside_it() {
    let mut vault = loaded().await;
    assert!(vault.stop().success());
    let copied = vault.scratch().join("copied");
    copy(&vault.dir().join("data"), &copied.join("data"));
    std::fs::copy(vault.dir().join("head"), copied.join("head")).unwrap();
    vault.up();
    one_token(&vault, "borrower.name", "王五", "cust-4").await;
    let data = copied.join("data");
    let data = path(&data);
    let keys = vault.scratch().join("keys");
    copy(&vault.dir().join("keystore"), &keys);

    // The vault runs, the copy does not; and nothing is written there.
    let before = contents(&copied);
    for more in [&[][..], &["--keystore", path(&keys)], &["--head", path(&copied.join("head"))]] {
        let (holds, document) = verify(&vault.dir(), &[&["--data", data], more].concat());
        assert!(holds, "{document:#}");
        assert_eq!((&document["running"], &document["head_file"]), (&json!(false), &json!(true)));
        assert_eq!(document["tenants"][1]["values"], "707");
    }
    assert!(contents(&copied) == before, "it has written something");

    // Compared to what the vault had later, it is an older one. A head file is signed at most every second, and at a stop.
    assert!(vault.stop().success());
    let later = vault.dir().join("head");
    let (holds, document) = verify(&vault.dir(), &["--data", data, "--head", path(&later)]);
    assert!(!holds && document["findings"][0]["fault"] == "rolled_back", "{document:#}");
    // Without a head file nothing says how far it had come, which is no sign that anybody did anything.
    std::fs::remove_file(copied.join("head")).unwrap();
    let output = vault.cli(&["verify", "--data", data]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("There is no head file") && !text.contains("NOT verified"), "{text}");
    // One that was named has to be there, and so has the vault's own.
    let gone = copied.join("head");
    let (holds, document) = verify(&vault.dir(), &["--data", data, "--head", path(&gone)]);
    assert!(!holds && document["findings"][0]["fault"] == "missing", "{document:#}");

    // What was changed in a copy is named like anything else.
    let store = RocksStore::open(Path::new(data), RocksOptions::default()).unwrap();
    let (key, row) = entries(&store, Family::Rows).await.remove(0);
    let mut row = ValueRow::decode(&row).unwrap();
    row.sealed[20] ^= 1;
    store.write(vec![Mutation::Put(Family::Rows, key.to_vec(), row.encode())]).await.unwrap();
    drop(store);
    let (holds, document) = verify(&vault.dir(), &["--data", data]);
    assert!(!holds && document["findings"][0]["fault"] == "changed", "{document:#}");
    assert!(verify(&vault.dir(), &[]).0, "and the vault has nothing to do with it");
}
