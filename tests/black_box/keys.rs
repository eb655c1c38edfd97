//! The life of keys over the wire and on the command line: rotation under load, rewraps that are killed, destruction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::Value;
use strongroom_proto::v1;
use strongroom_proto::v1::keys_client::KeysClient;
use tokio::sync::mpsc;
use tonic::Code;
use tonic::transport::Channel;

use crate::approvals::{command_with_approval, waiting};
use crate::harness::{TestVault, detokenize, item, read_one, refused, tokenize, value};

async fn keys_as(vault: &TestVault, principal: &str) -> KeysClient<Channel> {
    KeysClient::new(vault.channel(principal).await)
}

/// The names of the vault's KEKs that have a version.
fn keks(vault: &TestVault) -> Vec<String> {
    let listed = vault.json(&["keys", "list"]);
    let names = listed["keys"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("kek/")).collect();
    names.dedup();
    names
}

/// Stores so many values of their own and of subjects; tokens and values.
async fn fill(vault: &TestVault, count: usize) -> Vec<(String, String)> {
    let mut client = vault.vault().await;
    let mut stored = Vec::new();
    for batch in 0..count.div_ceil(500) {
        let values: Vec<String> = (0..500).map(|number| format!("address {batch}-{number}")).collect();
        let items = values.iter().enumerate().map(|(number, value)| {
            let subject = if number % 2 == 0 { String::new() } else { format!("s-{batch}-{}", number % 100) };
            item("borrower.address", value, &subject)
        });
        let answer = client.tokenize(tokenize(items.collect())).await.unwrap().into_inner();
        stored.extend(answer.tokens.into_iter().zip(values));
    }
    stored
}

async fn all_read(vault: &TestVault, stored: &[(String, String)]) {
    let mut client = vault.vault().await;
    for page in stored.chunks(500) {
        let tokens: Vec<&str> = page.iter().map(|(token, _)| token.as_str()).collect();
        let answer = client.detokenize(detokenize(&tokens, "loan_servicing", "plain")).await.unwrap().into_inner();
        for (result, (_, expected)) in answer.results.into_iter().zip(page) {
            assert_eq!(value(result).unwrap(), expected.as_bytes());
        }
    }
}

#[tokio::test]
async fn a_night_of_maintenance_rotates_rewraps_and_destroys_what_officers_agree_to() {
    let vault = TestVault::start();
    let mut stored = fill(&vault, 1_000).await;
    for kek in keks(&vault) {
        assert_eq!(vault.json(&["keys", "rotate", &kek])["version"], 2);
        let again = vault.json(&["keys", "rotate", &kek, "--from-version", "1"]);
        assert_eq!((&again["version"], &again["rotated"]), (&2.into(), &false.into()));
    }
    assert_eq!(vault.json(&["keys", "rotate", "index/subject-id"])["version"], 2);
    let deleted = stored.remove(1);
    let items = vec![v1::DeleteItem { token: deleted.0, subject: String::new() }];
    let request = v1::DeleteRequest { items, idempotency_key: String::new() };
    vault.vault().await.delete(request).await.unwrap();
    // Nothing is old enough to be destroyed, so the night ends well.
    let night = vault.json(&["keys", "maintain"]);
    assert_eq!((&night["rolled"]["state"], &night["rolled"]["done"]), (&"done".into(), &"1".into()));
    assert_eq!(night["rewrapped"]["state"], "done");
    assert!(night["rewrapped"]["done"].as_str().unwrap().parse::<u64>().unwrap() >= 550);
    assert_eq!((&night["reindexed"]["state"], &night["reindexed"]["done"]), (&"done".into(), &"100".into()));
    assert_eq!(night["waiting"], Value::Array(vec![]));
    // With nothing kept, officers must agree to the last step.
    let night = vault.cli(&["keys", "maintain", "--keep", "0", "--output", "json"]);
    assert_eq!(night.status.code(), Some(3));
    let night: Value = serde_json::from_slice(&night.stdout).unwrap();
    let waiting = night["waiting"].as_array().unwrap();
    assert!(waiting.iter().all(|what| what.as_str().unwrap().contains("waits for approval (0 of 2)")), "{night}");
    assert_eq!(waiting.len(), keks(&vault).len() + 1);
    for one in vault.json(&["approvals"])["approvals"].as_array().unwrap() {
        for officer in ["officer-1", "officer-2"] {
            vault.cli_ok(&["approve", one["name"].as_str().unwrap(), "--as", officer]);
        }
    }
    let next = vault.json(&["keys", "maintain", "--keep", "0"]);
    assert_eq!(next["destroyed"].as_array().unwrap().len(), keks(&vault).len() + 1);
    // And again: nothing is left to do.
    let again = vault.json(&["keys", "maintain", "--keep", "0"]);
    assert_eq!((&again["rotated"], &again["destroyed"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    all_read(&vault, &stored).await;
    vault.verify_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_rotate_and_deks_move_while_everybody_works_and_nothing_fails() {
    let mut vault = TestVault::start();
    let stored = fill(&vault, 2_000).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (done, mut progress) = mpsc::unbounded_channel();
    let mut workers = Vec::new();
    for worker in 0..4 {
        let (mut client, stop, done) = (vault.vault().await, Arc::clone(&stop), done.clone());
        let known = stored.clone();
        workers.push(tokio::spawn(async move {
            let mut made = Vec::new();
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let expected = format!("while {worker}-{number}");
                let request = tokenize(vec![item("borrower.address", &expected, &format!("s-0-{}", number % 100))]);
                made.push((client.tokenize(request).await.unwrap().into_inner().tokens.remove(0), expected));
                let (token, expected) = &known[(worker * 131 + number * 7) % known.len()];
                let read = client.detokenize(detokenize(&[token], "loan_servicing", "plain")).await.unwrap();
                assert_eq!(value(read.into_inner().results.remove(0)).unwrap(), expected.as_bytes());
                // Whoever counts has counted enough.
                let _ = done.send(());
            }
            made
        }));
    }
    for round in 2..5 {
        for kek in keks(&vault) {
            assert_eq!(vault.json(&["keys", "rotate", &kek])["version"], round);
        }
        vault.json(&["keys", "rotate", "token"]);
        let job = vault.json(&["keys", "rewrap"]);
        assert_eq!((&job["state"], &job["skipped"]), (&"done".into(), &"0".into()));
        for _ in 0..40 {
            progress.recv().await.unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut all = stored;
    for worker in workers {
        all.extend(worker.await.unwrap());
    }
    all_read(&vault, &all).await;
    vault.stop();
    vault.cli_ok(&["verify"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn index_keys_rotate_while_everybody_works_and_all_is_found_and_nothing_twice() {
    let mut vault = TestVault::start();
    let mut client = vault.vault().await;
    let account = |number: usize| {
        item("company.settlement_account", &format!("account-{number:08}"), &format!("co-{}", number % 100))
    };
    let mut accounts = Vec::new();
    let mut emails = Vec::new();
    for batch in 0..2 {
        let items = (batch * 1_000..(batch + 1) * 1_000).map(account).collect();
        accounts.extend(client.tokenize(tokenize(items)).await.unwrap().into_inner().tokens);
        let email = |number: usize| item("borrower.email", &format!("m{batch}.{number}@mail.example"), "");
        emails.extend(client.tokenize(tokenize((0..1_000).map(email).collect())).await.unwrap().into_inner().tokens);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (done, mut progress) = mpsc::unbounded_channel();
    let mut workers = Vec::new();
    for worker in 0..4 {
        let (mut client, stop, done) = (vault.vault().await, Arc::clone(&stop), done.clone());
        let (accounts, emails) = (accounts.clone(), emails.clone());
        workers.push(tokio::spawn(async move {
            let mut made = Vec::new();
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // Known: the same token.
                let known = (worker * 131 + number * 7) % accounts.len();
                let tokens = client.tokenize(tokenize(vec![account(known)])).await.unwrap().into_inner().tokens;
                assert_eq!(tokens, accounts[known..=known]);
                // New, and wanted by all workers at once, of a subject that nobody knows either.
                let new = item("company.settlement_account", &format!("new-{number:08}"), &format!("new-{number}"));
                made.extend(client.tokenize(tokenize(vec![new])).await.unwrap().into_inner().tokens);
                let token = &emails[(worker * 17 + number * 5) % emails.len()];
                let read = client.detokenize(detokenize(&[token], "loan_servicing", "plain")).await.unwrap();
                value(read.into_inner().results.remove(0)).unwrap();
                // Whoever counts has counted enough.
                let _ = done.send(());
            }
            made
        }));
    }
    for round in 2..5 {
        for index in ["index/token", "index/field/14", "index/subject-id"] {
            assert_eq!(vault.json(&["keys", "rotate", index])["version"], round);
        }
        let job = vault.json(&["keys", "reindex"]);
        assert_eq!((&job["state"], &job["skipped"]), (&"done".into(), &"0".into()));
        for index in ["index/token", "index/field/14", "index/subject-id"] {
            command_with_approval(&vault, &["keys", "destroy", index, &(round - 1).to_string(), "--as", "officer-1"]);
        }
        for _ in 0..40 {
            progress.recv().await.unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut made: Vec<Vec<String>> = Vec::new();
    for worker in workers {
        made.push(worker.await.unwrap());
    }
    let longest = made.iter().max_by_key(|tokens| tokens.len()).unwrap();
    assert!(made.iter().all(|tokens| longest.starts_with(tokens)), "a value has two tokens");
    vault.stop();
    vault.cli_ok(&["verify"]);
}

#[tokio::test]
async fn a_rewrap_that_is_killed_goes_on_by_itself() {
    let mut vault = TestVault::start();
    let stored = fill(&vault, 3_000).await;
    for kek in keks(&vault) {
        vault.json(&["keys", "rotate", &kek]);
    }
    let started = vault.json(&["keys", "rewrap", "--detach"]);
    assert_eq!(started["state"], "running");
    let mut keys = keys_as(&vault, "rotator").await;
    let mut steps = keys.watch_job(v1::WatchJobRequest { name: "rewrap".to_owned() }).await.unwrap().into_inner();
    let mut before = 0;
    while let Some(job) = steps.message().await.unwrap() {
        before = job.done;
        if before > 0 {
            break;
        }
    }
    vault.kill();
    vault.up();
    let mut keys = keys_as(&vault, "rotator").await;
    let mut steps = keys.watch_job(v1::WatchJobRequest { name: "rewrap/1".to_owned() }).await.unwrap().into_inner();
    let mut last = None;
    while let Some(job) = steps.message().await.unwrap() {
        // What was done before the kill is still done.
        assert!(job.done >= before, "{} after {before}", job.done);
        assert!(job.done + job.skipped <= job.total || job.total == 0, "{} of {}", job.done, job.total);
        last = Some(job);
    }
    let last = last.unwrap();
    assert_eq!((last.state.as_str(), last.skipped, last.done), ("done", 0, last.total));
    assert!(last.done > 1_500);
    for kek in keks(&vault) {
        let dry = vault.json(&["keys", "destroy", &kek, "1", "--dry-run", "--as", "officer-1"]);
        assert_eq!(dry["dependants"], "0");
    }
    all_read(&vault, &stored).await;
}

#[tokio::test]
async fn a_roll_that_is_killed_goes_on_by_itself_and_the_ledger_tells_the_story() {
    let mut vault = TestVault::start();
    let mut client = vault.vault().await;
    let mut stored = fill(&vault, 500).await;
    for batch in 0..6 {
        let values: Vec<String> = (0..1_000).map(|number| format!("flat {batch}-{number}")).collect();
        let items = values.iter().map(|value| item("borrower.address", value, "big")).collect();
        stored.extend(client.tokenize(tokenize(items)).await.unwrap().into_inner().tokens.into_iter().zip(values));
    }
    let empty = vault.json(&["keys", "roll"]);
    assert_eq!((&empty["name"], &empty["state"], &empty["total"]), (&"roll/1".into(), &"done".into(), &"0".into()));
    let (gone, _) = stored.remove(700);
    let items = vec![v1::DeleteItem { token: gone.clone(), subject: String::new() }];
    client.delete(v1::DeleteRequest { items, idempotency_key: String::new() }).await.unwrap();

    let started = vault.json(&["keys", "roll", "--detach"]);
    assert_eq!((&started["name"], &started["state"]), (&"roll/2".into(), &"running".into()));
    let mut keys = keys_as(&vault, "rotator").await;
    let mut steps = keys.watch_job(v1::WatchJobRequest { name: "roll".to_owned() }).await.unwrap().into_inner();
    while let Some(job) = steps.message().await.unwrap() {
        // A page is done: some of the values have moved.
        if job.update_time != job.start_time {
            break;
        }
    }
    vault.kill();
    vault.up();
    let mut keys = keys_as(&vault, "rotator").await;
    let mut steps = keys.watch_job(v1::WatchJobRequest { name: "roll/2".to_owned() }).await.unwrap().into_inner();
    let mut last = None;
    while let Some(job) = steps.message().await.unwrap() {
        last = Some(job);
    }
    let last = last.unwrap();
    assert_eq!((last.state.as_str(), last.done, last.total, last.skipped), ("done", 1, 1, 0));
    all_read(&vault, &stored).await;
    assert_eq!(read_one(&vault, &gone, "loan_servicing", "plain").await.unwrap_err().reason, "NOT_FOUND");

    let leaves = vault.leaves().await;
    let rolls: Vec<&Value> = leaves.iter().filter(|leaf| leaf["detail"]["job"] == "roll/2").collect();
    let first = |leaf: &Value| leaf["part"].as_str().is_none_or(|part| part.starts_with("1/"));
    let pages = || rolls.iter().filter(|leaf| leaf["action"] == "roll" && leaf["principal"] == "vault");
    // Exact to the value, the kill notwithstanding.
    let values = pages().filter(|leaf| first(leaf)).filter_map(|leaf| leaf["detail"]["values"].as_str());
    assert_eq!(values.map(|values| values.parse::<u64>().unwrap()).sum::<u64>(), 5_999);
    let items: Vec<&Value> = pages().filter_map(|leaf| leaf["items"].as_array()).flatten().collect();
    assert_eq!(items.iter().filter(|item| item["outcome"] == "resealed").count(), 5_999);
    assert_eq!(items.iter().filter(|item| item["outcome"] == "dek_rolled").count(), 1);
    assert!(rolls[0]["principal"].as_str().unwrap().starts_with("rotator/"));
    assert_eq!(pages().next_back().unwrap()["detail"]["job_state"], "done");
    vault.verify_ledger();
    vault.stop();
    vault.cli_ok(&["verify"]);
}

#[tokio::test]
async fn a_reindex_that_is_killed_goes_on_by_itself_and_nothing_gets_a_second_token() {
    let mut vault = TestVault::start();
    let mut client = vault.vault().await;
    let items = |batch: usize| -> Vec<v1::TokenizeItem> {
        let one = |number: usize| {
            let (account, company) = (format!("account-{batch}-{number:06}"), format!("co-{batch}-{}", number % 100));
            item("company.settlement_account", &account, &company)
        };
        (0..1_000).map(one).collect()
    };
    let mut tokens = Vec::new();
    for batch in 0..6 {
        tokens.push(client.tokenize(tokenize(items(batch))).await.unwrap().into_inner().tokens);
    }
    for index in ["index/field/14", "index/subject-id"] {
        assert_eq!(vault.json(&["keys", "rotate", index])["version"], 2);
    }
    let started = vault.json(&["keys", "reindex", "--detach"]);
    assert_eq!((&started["name"], &started["state"]), (&"reindex/1".into(), &"running".into()));
    let mut keys = keys_as(&vault, "rotator").await;
    let mut steps = keys.watch_job(v1::WatchJobRequest { name: "reindex".to_owned() }).await.unwrap().into_inner();
    while let Some(job) = steps.message().await.unwrap() {
        // Subjects have moved, and some of their values.
        if job.done > 700 {
            break;
        }
    }
    vault.kill();
    vault.up();
    let mut client = vault.vault().await;
    for (batch, tokens) in tokens.iter().enumerate() {
        assert_eq!(client.tokenize(tokenize(items(batch))).await.unwrap().into_inner().tokens, *tokens);
    }
    let mut keys = keys_as(&vault, "rotator").await;
    let mut steps = keys.watch_job(v1::WatchJobRequest { name: "reindex/1".to_owned() }).await.unwrap().into_inner();
    let mut last = None;
    while let Some(job) = steps.message().await.unwrap() {
        last = Some(job);
    }
    let last = last.unwrap();
    assert_eq!((last.state.as_str(), last.done, last.total, last.skipped), ("done", 6_600, 6_600, 0));
    for index in ["index/field/14", "index/subject-id"] {
        command_with_approval(&vault, &["keys", "destroy", index, "1", "--as", "officer-1"]);
    }
    for (batch, tokens) in tokens.iter().enumerate() {
        assert_eq!(client.tokenize(tokenize(items(batch))).await.unwrap().into_inner().tokens, *tokens);
    }
    // Exact to the entry, the kill notwithstanding.
    let leaves = vault.leaves().await;
    let pages = leaves.iter().filter(|leaf| leaf["detail"]["job"] == "reindex/1" && leaf["principal"] == "vault");
    let items: Vec<&Value> = pages.filter_map(|leaf| leaf["items"].as_array()).flatten().collect();
    assert_eq!(items.iter().filter(|item| item["outcome"] == "resealed").count(), 6_000);
    assert_eq!(items.iter().filter(|item| item["outcome"] == "subject_resealed").count(), 600);
    let told = refused(keys_as(&vault, "app").await.start_reindex(v1::StartReindexRequest {}).await);
    assert_eq!(told.code, Code::PermissionDenied);
    vault.verify_ledger();
    vault.stop();
    vault.cli_ok(&["verify"]);
}

#[tokio::test]
async fn who_asks_rolls_the_deks_of_a_kek_or_of_a_subject() {
    let mut vault = TestVault::start();
    let stored = fill(&vault, 500).await;
    let subject = vault.json(&["keys", "roll", "--subject", "s-0-1"]);
    assert_eq!((&subject["state"], &subject["done"], &subject["key"]), (&"done".into(), &"2".into(), &"".into()));
    for kek in keks(&vault) {
        let job = vault.json(&["keys", "roll", &kek]);
        assert_eq!((&job["state"], &job["key"]), (&"done".into(), &kek.as_str().into()));
        assert_eq!(job["done"], job["total"]);
    }
    all_read(&vault, &stored).await;
    let mut rotator = keys_as(&vault, "rotator").await;
    let nobody = v1::StartRollRequest { name: String::new(), subject: "cust-unheard-of-77".to_owned() };
    let told = refused(rotator.start_roll(nobody).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::NotFound, "NOT_FOUND"));
    let told = refused(keys_as(&vault, "app").await.start_roll(v1::StartRollRequest::default()).await);
    assert_eq!(told.code, Code::PermissionDenied);
    vault.stop();
    vault.cli_ok(&["verify"]);
    vault.hides(["cust-unheard-of-77"]);
}

#[tokio::test]
async fn a_destroyed_version_is_in_no_file_and_stays_gone_after_a_kill() {
    let mut vault = TestVault::start();
    let stored = fill(&vault, 500).await;
    let keystore = || std::fs::read(vault.dir().join("keystore/keys")).unwrap();
    // A wrapped key is a blob of 62 bytes of format 3.
    let blobs = |bytes: &[u8]| -> Vec<Vec<u8>> {
        bytes.windows(63).filter(|at| at[..3] == [62, 3, 1]).map(|at| at[1..].to_vec()).collect()
    };
    let before = blobs(&keystore());
    for kek in keks(&vault) {
        vault.json(&["keys", "rotate", &kek]);
    }
    vault.json(&["keys", "rewrap"]);
    for kek in keks(&vault) {
        command_with_approval(&vault, &["keys", "destroy", &kek, "1", "--as", "officer-1"]);
    }
    let after = blobs(&keystore());
    let gone: Vec<&Vec<u8>> = before.iter().filter(|blob| !after.contains(blob)).collect();
    assert_eq!(gone.len(), keks(&vault).len());
    for entry in std::fs::read_dir(vault.dir().join("keystore")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(gone.iter().all(|blob| !bytes.windows(blob.len()).any(|window| window == blob.as_slice())));
    }
    vault.kill();
    vault.up();
    let listed = vault.json(&["keys", "list"]);
    let destroyed = listed["keys"].as_array().unwrap().iter().filter(|key| key["state"] == "destroyed").count();
    assert_eq!(destroyed, keks(&vault).len());
    all_read(&vault, &stored).await;
    let revived = refused(
        keys_as(&vault, "officer-1")
            .await
            .set_key_state(v1::SetKeyStateRequest {
                name: "kek/1".to_owned(),
                version: 1,
                state: "decrypt-only".to_owned(),
            })
            .await,
    );
    assert_eq!((revived.code, revived.reason.as_str()), (Code::FailedPrecondition, "KEY_STATE"));
}

#[tokio::test]
async fn a_version_whose_destruction_is_killed_is_destroyed_or_as_it_was() {
    const TRIES: u32 = 6;
    let mut vault = TestVault::start();
    let stored = fill(&vault, 200).await;
    for _ in 0..=TRIES {
        vault.json(&["keys", "rotate", "kek/1"]);
    }
    vault.json(&["keys", "rewrap"]);
    let request = |version: u32| v1::DestroyKeyVersionRequest { name: "kek/1".to_owned(), version, dry_run: false };
    let begun = Instant::now();
    command_with_approval(&vault, &["keys", "destroy", "kek/1", "1", "--as", "officer-1"]);
    let whole = begun.elapsed();
    let mut destroyed = vec![1];
    for version in 2..=TRIES {
        let told = refused(keys_as(&vault, "officer-1").await.destroy_key_version(request(version)).await);
        vault.cli_ok(&["approve", &waiting(&told), "--as", "officer-2"]);
        let mut officer = keys_as(&vault, "officer-1").await;
        // From before it arrives to about when it is answered.
        let patience = whole * (version - 2) / (4 * TRIES);
        drop(tokio::time::timeout(patience, officer.destroy_key_version(request(version))).await);
        vault.kill();
        vault.up();
        let listed = vault.json(&["keys", "list"]);
        let of = |key: &&Value| key["name"] == "kek/1" && key["version"] == version;
        let state = listed["keys"].as_array().unwrap().iter().find(of).unwrap()["state"].clone();
        assert!(state == "destroyed" || state == "decrypt-only", "{version}: {state}");
        if state == "destroyed" {
            destroyed.push(version);
        }
    }
    let leaves = vault.leaves().await;
    let done =
        leaves.iter().filter(|leaf| leaf["action"] == "destroy_key_version" && leaf["detail"]["stage"] == "done");
    let done: Vec<u32> = done.map(|leaf| leaf["detail"]["version"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(done, destroyed, "the ledger tells of just those");
    all_read(&vault, &stored).await;
    vault.stop();
    vault.cli_ok(&["verify"]);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_its_reason() {
    let vault = TestVault::start();
    let stored = fill(&vault, 500).await;
    let mut officer = keys_as(&vault, "officer-1").await;
    let mut rotate = async |name: &str, from_version: u32| {
        let told = refused(officer.rotate_key(v1::RotateKeyRequest { name: name.to_owned(), from_version }).await);
        (told.code, told.reason)
    };
    assert_eq!(rotate("kek/77", 0).await, (Code::InvalidArgument, "KEY_INVALID".to_owned()));
    assert_eq!(rotate("index/fingerprint", 0).await, (Code::InvalidArgument, "KEY_INVALID".to_owned()));
    assert_eq!(rotate("kek/1", 9).await, (Code::NotFound, "KEY_VERSION_UNKNOWN".to_owned()));
    vault.json(&["keys", "rotate", "kek/1"]);
    let mut destroy = async |version: u32| {
        let request = v1::DestroyKeyVersionRequest { name: "kek/1".to_owned(), version, dry_run: false };
        let told = refused(officer.destroy_key_version(request).await);
        (told.code, told.reason)
    };
    let in_use = fill(&vault, 500).await;
    let mut in_use_told = 0;
    for kek in keks(&vault).iter().filter(|kek| *kek != "kek/1") {
        vault.json(&["keys", "rotate", kek]);
        let refused = vault.cli(&["keys", "destroy", kek, "1", "--as", "officer-1", "--output", "json"]);
        in_use_told += usize::from(String::from_utf8_lossy(&refused.stderr).contains("KEY_IN_USE"));
    }
    assert!(in_use_told > 0);
    assert_eq!(destroy(2).await, (Code::FailedPrecondition, "KEY_STATE".to_owned()));
    assert_eq!(destroy(5).await, (Code::NotFound, "KEY_VERSION_UNKNOWN".to_owned()));
    for (principal, code) in [("app", Code::PermissionDenied), ("privacy", Code::PermissionDenied)] {
        let mut nobody = keys_as(&vault, principal).await;
        let told = refused(nobody.list_keys(v1::ListKeysRequest {}).await);
        assert_eq!(told.code, code, "{principal}");
    }
    let mut rotator = keys_as(&vault, "rotator").await;
    let unknown = refused(rotator.get_job(v1::GetJobRequest { name: "rewrap".to_owned() }).await);
    assert_eq!((unknown.code, unknown.reason.as_str()), (Code::NotFound, "JOB_UNKNOWN"));
    let name = "110105194912310\u{0}02X".to_owned();
    let told = refused(rotator.get_job(v1::GetJobRequest { name: name.clone() }).await);
    assert!(!told.message.contains(&name), "what was sent is not repeated: {}", told.message);
    for (token, expected) in stored.iter().chain(&in_use).step_by(97) {
        assert_eq!(&read_one(&vault, token, "loan_servicing", "plain").await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_copy_of_the_keystore_is_listed_and_put_back_opens_the_vault() {
    let mut vault = TestVault::start();
    let stored = fill(&vault, 500).await;
    let out = vault.scratch().join("keys.copy");
    let path = out.to_str().unwrap();
    let made = vault.json(&["keys", "backup", path, "--label", "safe 3"]);
    assert_eq!((&made["name"], &made["label"]), (&"copy/1".into(), &"safe 3".into()));
    let again = vault.cli(&["keys", "backup", path]);
    assert_eq!(again.status.code(), Some(1), "a file is never overwritten");
    assert_eq!(vault.json(&["keys", "copies"])["copies"].as_array().unwrap().len(), 1);
    let text = vault.cli_ok(&["keys", "copies"]);
    assert!(text.contains("copy/1") && text.contains("safe 3"), "{text}");
    vault.json(&["keys", "rotate", "kek/0"]);
    vault.json(&["keys", "rewrap"]);
    command_with_approval(&vault, &["keys", "destroy", "kek/0", "1", "--as", "officer-1"]);
    assert!(vault.cli_ok(&["keys", "list"]).contains("copy/1"));
    vault.json(&["keys", "copies", "strike", "copy/1"]);
    let listed = vault.json(&["keys", "list"]);
    let old = listed["keys"].as_array().unwrap().iter().find(|key| key["state"] == "destroyed").unwrap();
    assert!(old["death_time"].as_str().is_some() && old["copies"] == Value::Array(vec![]), "{old}");

    let newest = vault.scratch().join("keys.newest");
    vault.json(&["keys", "backup", newest.to_str().unwrap()]);
    assert!(vault.stop().success());
    vault.cli_ok(&["verify", "--passphrase-file", vault.dir().join("dev-passphrase").to_str().unwrap()]);
    std::fs::copy(&newest, vault.dir().join("keystore/keys")).unwrap();
    vault.up();
    all_read(&vault, &stored).await;
}
