//! Races: what many do to the same thing at once ends as if they had done it one after the other.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use strongroom_proto::v1;
use strongroom_proto::v1::vault_client::VaultClient;
use tokio::sync::{Barrier, mpsc};
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::Channel;

use crate::approvals::with_approval;
use crate::deterministic::uscc;
use crate::harness::{TestVault, Told, detokenize, item, one_token, read_one, tokenize, value};

const POLICY: &str = include_str!("../../deploy/policies/default.cedar");
const LENDING: &str = include_str!("../../deploy/schemas/lending.toml");

type Client = VaultClient<Channel>;

/// Connections of their own, all made.
async fn connections(vault: &TestVault, count: usize) -> Vec<Client> {
    join_all((0..count).map(|_| vault.vault())).await
}

/// Lets every client do its work at the same moment; the answers are in the order of the clients.
async fn at_once<Work, Answer>(clients: Vec<Client>, work: impl Fn(usize, Client) -> Work) -> Vec<Answer>
where
    Work: Future<Output = Answer> + Send + 'static,
    Answer: Send + 'static,
{
    let start = Arc::new(Barrier::new(clients.len()));
    let tasks = clients.into_iter().enumerate().map(|(number, client)| {
        let (start, work) = (Arc::clone(&start), work(number, client));
        tokio::spawn(async move {
            start.wait().await;
            work.await
        })
    });
    join_all(tasks).await.into_iter().map(Result::unwrap).collect()
}

/// Reads one token, for one holder if one is named.
async fn read(client: &mut Client, token: &str, subject: &str) -> Result<String, Told> {
    let mut request = detokenize(&[token], "loan_servicing", "plain");
    request.items[0].subject = subject.to_owned();
    request.purpose = if subject.is_empty() { "loan_servicing" } else { "kyc_review" }.to_owned();
    let results = client.detokenize(request).await.map_err(Told::from)?.into_inner().results;
    value(results.into_iter().next().unwrap()).map(|bytes| String::from_utf8(bytes).unwrap())
}

/// Every item of the ledger with its leaf, in order.
fn items(leaves: &[Value]) -> impl Iterator<Item = (&Value, &Value)> {
    leaves.iter().flat_map(|leaf| leaf["items"].as_array().into_iter().flatten().map(move |item| (leaf, item)))
}

fn count(leaves: &[Value], action: &str, outcome: &str) -> usize {
    items(leaves).filter(|(leaf, item)| leaf["action"] == action && item["outcome"] == outcome).count()
}

fn index(leaf: &Value) -> u64 {
    leaf["index"].as_str().unwrap().parse().unwrap()
}

/// Every leaf after a change of rules was decided by the new ones. Returns how often they changed.
fn rules_hold_from_their_leaf_on(leaves: &[Value], action: &str, member: &str) -> usize {
    let mut in_force: Option<u64> = None;
    let mut changes = 0;
    for leaf in leaves {
        if let Some(version) = in_force {
            assert_eq!(leaf[member], version, "{member} in {leaf}");
        }
        // One that was only found to be approved puts nothing in force yet.
        let version = leaf["detail"]["version"].as_str().filter(|_| leaf["decision"] == "allow");
        if let Some(version) = version.filter(|_| leaf["action"] == action) {
            in_force = Some(version.parse().unwrap());
            changes += 1;
        }
    }
    changes
}

/// The default policies without the one that shows whole values to services.
fn without_plain() -> String {
    let from = POLICY.find("@id(\"app-plain-view\")").unwrap();
    let end = from + POLICY[from..].find("};\n").unwrap() + 3;
    format!("{}{}", &POLICY[..from], &POLICY[end..])
}

async fn apply_policy(vault: &TestVault, source: String) -> u32 {
    let request = v1::ApplyPolicyRequest { source, tests: String::new(), dry_run: false };
    let apply = async || vault.access().await.apply_policy(request.clone()).await;
    with_approval(vault, apply).await.unwrap().into_inner().version
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_64_send_at_once_gets_one_token() {
    const MANY: usize = 64;
    let vault = TestVault::start();
    let clients = connections(&vault, MANY).await;
    for (round, (field, value, subjects)) in [
        ("company.settlement_account", "account-0001".to_owned(), 1),
        ("company.uscc", uscc(1), MANY),
        ("company.uscc", uscc(2), 1),
    ]
    .into_iter()
    .enumerate()
    {
        let answers = at_once(clients.clone(), |number, mut client| {
            let request = tokenize(vec![item(field, &value, &format!("round-{round}-{}", number % subjects))]);
            async move { client.tokenize(request).await.unwrap().into_inner().tokens.remove(0) }
        })
        .await;
        let distinct: BTreeSet<&String> = answers.iter().collect();
        assert_eq!(distinct.len(), 1, "round {round}");
        let leaves = vault.leaves().await;
        assert_eq!(count(&leaves, "tokenize", "ok"), round + 1);
        assert_eq!(count(&leaves, "tokenize", "existing"), (round + 1) * (MANY - 1));
        let expected = [1, 1 + MANY, 2 + MANY][round];
        assert_eq!(count(&leaves, "tokenize", "subject_created"), expected);
        if subjects == MANY {
            // Each of them holds it: all are heard, and the value goes with the last.
            let token = answers[0].clone();
            let answers = at_once(clients.clone(), |number, mut client| {
                let subject = format!("round-{round}-{number}");
                let item = v1::DeleteItem { token: token.clone(), subject };
                let request = v1::DeleteRequest { items: vec![item], idempotency_key: String::new() };
                async move { client.delete(request).await.unwrap().into_inner().results.remove(0).problem.is_none() }
            })
            .await;
            assert!(answers.into_iter().all(|deleted| deleted));
            let leaves = vault.leaves().await;
            assert_eq!(count(&leaves, "delete", "released"), MANY - 1);
            assert_eq!(count(&leaves, "delete", "deleted"), 1);
        }
    }
    vault.verify_ledger();
    vault.hides(["account-0001".to_owned(), uscc(1), uscc(2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_is_withdrawn_is_shown_to_nobody_from_then_on() {
    const READERS: usize = 6;
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.name", "欧阳志远", "cust-1").await;
    let clients = connections(&vault, READERS).await;
    let shown = Arc::new(AtomicUsize::new(0));
    for round in 0..5 {
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut readers = JoinSet::new();
        for mut client in clients.clone() {
            let (token, shown, tell) = (token.clone(), Arc::clone(&shown), tell.clone());
            readers.spawn(async move {
                loop {
                    match read(&mut client, &token, "").await {
                        Ok(value) => {
                            assert_eq!(value, "欧阳志远");
                            shown.fetch_add(1, Ordering::Relaxed);
                            let _ = tell.send(());
                        }
                        Err(refused) => {
                            assert_eq!(refused.reason, "VIEW_NOT_ALLOWED", "{refused:?}");
                            return;
                        }
                    }
                }
            });
        }
        for _ in 0..10 * READERS {
            told.recv().await.unwrap();
        }
        let version = apply_policy(&vault, without_plain()).await;
        let refused = read_one(&vault, &token, "loan_servicing", "plain").await.unwrap_err();
        assert_eq!((refused.code, refused.reason.as_str()), (Code::PermissionDenied, "VIEW_NOT_ALLOWED"));
        // Every reader meets the refusal; none would end otherwise.
        tokio::time::timeout(Duration::from_secs(30), readers.join_all()).await.unwrap();
        assert_eq!(version, 2 + 2 * round);
        assert_eq!(apply_policy(&vault, POLICY.to_owned()).await, version + 1);
        assert_eq!(read_one(&vault, &token, "loan_servicing", "plain").await.unwrap(), "欧阳志远");
        shown.fetch_add(1, Ordering::Relaxed);
    }
    let leaves = vault.leaves().await;
    assert_eq!(rules_hold_from_their_leaf_on(&leaves, "apply_policy", "policy"), 10);
    let plain = |item: &Value| item["view"] == "plain" && item["outcome"] == "ok";
    for (leaf, _) in items(&leaves).filter(|(_, item)| plain(item)) {
        assert_eq!(leaf["policy"].as_u64().unwrap() % 2, 1, "the even versions show no plain values: {leaf}");
    }
    assert_eq!(items(&leaves).filter(|(_, item)| plain(item)).count(), shown.load(Ordering::Relaxed));
    vault.verify_ledger();
    vault.hides(["欧阳志远"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_whose_officer_hangs_up_is_in_force_once_it_is_stored() {
    const TRIES: u32 = 40;
    let vault = TestVault::start();
    let token = one_token(&vault, "borrower.name", "欧阳志远", "cust-1").await;
    let mut app = vault.vault().await;
    let begun = Instant::now();
    apply_policy(&vault, POLICY.to_owned()).await;
    let whole = begun.elapsed();
    for number in 0..TRIES {
        let source = if number % 2 == 0 { without_plain() } else { POLICY.to_owned() };
        let mut officer = vault.access().await;
        let request = v1::ApplyPolicyRequest { source, tests: String::new(), dry_run: false };
        // It is approved beforehand, unless the one before was not in force when it was hung up on.
        let asked = Cell::new(false);
        let ask = async || match asked.replace(true) {
            false => vault.access().await.apply_policy(request.clone()).await.map(drop),
            true => Ok(()),
        };
        with_approval(&vault, ask).await.unwrap();
        // From before it arrives to about when it is answered.
        let patience = whole * number / TRIES;
        drop(tokio::time::timeout(patience, officer.apply_policy(request)).await);
        drop(officer);
        for _ in 0..3 {
            drop(read(&mut app, &token, "").await);
        }
        // What is left of approvals goes, used or not: a request that arrived without one waits, and so many may not wait.
        let mut second = vault.access_as("officer-2").await;
        let waiting = second.list_approvals(v1::ListApprovalsRequest::default()).await.unwrap().into_inner();
        for approval in waiting.approvals {
            drop(second.reject(v1::RejectRequest { name: approval.name }).await);
        }
    }
    let leaves = vault.leaves().await;
    let changes = rules_hold_from_their_leaf_on(&leaves, "apply_policy", "policy");
    assert!(changes > 1, "not one of them arrived before its officer hung up");
    let request = v1::GetPolicyRequest::default();
    let version = vault.access().await.get_policy(request).await.unwrap().into_inner().version;
    assert_eq!(version as usize, 1 + changes);
    vault.verify_ledger();
    vault.hides(["欧阳志远"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_sent_at_once_stores_once() {
    const MANY: usize = 16;
    let vault = TestVault::start();
    let clients = connections(&vault, MANY).await;
    let people = || {
        vec![
            item("borrower.name", "王伟", "cust-1"),
            item("borrower.email", "wang@mail.example", "cust-2"),
            item("borrower.mobile", "13800138000", ""),
        ]
    };
    for (round, together) in [2, MANY].into_iter().enumerate() {
        let answers = at_once(clients[..together].to_vec(), |_, mut client| {
            let request = v1::TokenizeRequest { items: people(), idempotency_key: format!("key-{together}") };
            async move { client.tokenize(request).await.unwrap().into_inner().tokens }
        })
        .await;
        assert!(answers.iter().all(|tokens| *tokens == answers[0]));
        let leaves = vault.leaves().await;
        assert_eq!(count(&leaves, "tokenize", "ok"), 3 * (round + 1));
    }
    assert_eq!(count(&vault.leaves().await, "tokenize", "repeated"), 3 * (1 + MANY - 1));

    // Different requests under one key: one of them has it.
    let answers = at_once(clients.clone(), |number, mut client| {
        let items = vec![item("borrower.name", &format!("name {number}"), "cust-3")];
        let request = v1::TokenizeRequest { items, idempotency_key: "contested".to_owned() };
        async move { client.tokenize(request).await.map(drop).map_err(|status| Told::from(status).reason) }
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    assert!(answers.iter().flat_map(|answer| answer.as_ref().err()).all(|reason| reason == "IDEMPOTENCY_KEY_REUSED"));

    let token = one_token(&vault, "borrower.name", "王伟", "cust-1").await;
    let versions = at_once(clients.clone(), |_, mut client| {
        let item = v1::ReplaceItem { token: token.clone(), value: "李娜".into(), expire_time: None };
        let request = v1::ReplaceRequest { items: vec![item], idempotency_key: "once".to_owned() };
        async move { client.replace(request).await.unwrap().into_inner().versions }
    })
    .await;
    assert!(versions.iter().all(|versions| *versions == [2]), "{versions:?}");
    let deleted = at_once(clients.clone(), |_, mut client| {
        let item = v1::DeleteItem { token: token.clone(), subject: String::new() };
        let request = v1::DeleteRequest { items: vec![item], idempotency_key: "once".to_owned() };
        async move { client.delete(request).await.unwrap().into_inner().results.remove(0).problem.is_none() }
    })
    .await;
    assert!(deleted.into_iter().all(|deleted| deleted));
    let leaves = vault.leaves().await;
    assert_eq!((count(&leaves, "replace", "ok"), count(&leaves, "delete", "deleted")), (1, 1));
    vault.verify_ledger();
    vault.hides(["wang@mail.example", "13800138000", "contested"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacements_at_once_are_versions_one_after_the_other() {
    const WRITERS: usize = 12;
    const EACH: usize = 4;
    let vault = TestVault::start();
    let clients = connections(&vault, WRITERS + 1).await;
    // A value under its subject's key, and one with a key of its own that every version replaces.
    for subject in ["cust-1", ""] {
        let before = vault.leaves().await.len();
        let token = one_token(&vault, "borrower.address", "version 1", subject).await;
        let done = Arc::new(AtomicBool::new(false));
        let (reader, writers) = clients.split_last().unwrap();
        let (mut reader, seen, over) = (reader.clone(), token.clone(), Arc::clone(&done));
        // One reader, one read after the other: its n-th answer belongs to its n-th leaf.
        let reading = tokio::spawn(async move {
            let mut values = Vec::new();
            while !over.load(Ordering::Relaxed) {
                values.push(read(&mut reader, &seen, "").await.unwrap());
            }
            values.push(read(&mut reader, &seen, "").await.unwrap());
            values
        });
        let answers = at_once(writers.to_vec(), |number, mut client| {
            let token = token.clone();
            async move {
                let mut versions = Vec::new();
                for round in 0..EACH {
                    let value = format!("writer {number} round {round}");
                    let item = v1::ReplaceItem { token: token.clone(), value: value.clone().into(), expire_time: None };
                    let request = v1::ReplaceRequest { items: vec![item], idempotency_key: String::new() };
                    let answer = client.replace(request).await.unwrap().into_inner().versions;
                    versions.push((u64::from(answer[0]), value));
                }
                versions
            }
        })
        .await;
        done.store(true, Ordering::Relaxed);
        let read = reading.await.unwrap();
        let mut values: HashMap<u64, String> = answers.into_iter().flatten().collect();
        values.insert(1, "version 1".to_owned());
        let last = (WRITERS * EACH + 1) as u64;
        assert!((1..=last).all(|version| values.contains_key(&version)), "each version is answered once");
        assert_eq!(read.last(), values.get(&last));

        // Each read saw what was newest at the place of its leaf.
        let leaves = vault.leaves().await.split_off(before);
        let mut newest = 0;
        let mut read = read.into_iter();
        for (leaf, item) in items(&leaves).filter(|(_, item)| item["outcome"] == "ok") {
            match leaf["action"].as_str().unwrap() {
                "detokenize" => assert_eq!(read.next().as_ref(), values.get(&newest), "{leaf}"),
                _ => {
                    assert_eq!(item["version"], newest + 1, "{leaf}");
                    newest += 1;
                }
            }
        }
        assert_eq!((read.next(), newest), (None, last));
    }
    vault.verify_ledger();
    vault.hides((0..WRITERS).map(|number| format!("writer {number} round")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_meet_at_a_new_key_all_open_after_a_restart() {
    const MANY: usize = 16;
    let mut vault = TestVault::start();
    let mut stored: HashMap<String, String> = HashMap::new();
    let clients = connections(&vault, MANY).await;
    for round in 0..8 {
        // The subject exists and has no key yet for values that are kept for three years: all of them make one.
        let subject = format!("cust-{round}");
        one_token(&vault, "borrower.name", "王伟", &subject).await;
        let answers = at_once(clients.clone(), |number, mut client| {
            let email = format!("r{round}n{number}@mail.example");
            let request = tokenize(vec![item("borrower.email", &email, &subject)]);
            async move { (client.tokenize(request).await.unwrap().into_inner().tokens.remove(0), email) }
        })
        .await;
        stored.extend(answers);
    }
    for restarted in [false, true] {
        if restarted {
            vault.kill();
            vault.up();
        }
        let mut client = vault.vault().await;
        for (token, email) in &stored {
            assert_eq!(read(&mut client, token, "").await.as_ref(), Ok(email), "restarted: {restarted}");
        }
    }
    vault.verify_ledger();
    vault.hides(stored.into_values());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_read_after_its_deletion() {
    const VALUES: usize = 24;
    let vault = TestVault::start();
    let clients = connections(&vault, 8).await;
    // A third belongs to a subject, a third to nobody, a third is shared with somebody whose hold goes on.
    let name = |number: usize| match number % 3 {
        0 => item("borrower.name", &format!("name {number}"), "cust-1"),
        1 => item("borrower.name", &format!("name {number}"), ""),
        _ => item("company.uscc", &uscc(number as u64), &format!("holder-{number}")),
    };
    let new: Vec<v1::TokenizeItem> = (0..VALUES).map(name).collect();
    let tokens = vault.vault().await.tokenize(tokenize(new.clone())).await.unwrap().into_inner().tokens;
    let other: Vec<v1::TokenizeItem> = new.iter().filter(|item| item.field == "company.uscc").cloned().collect();
    let other = other.into_iter().map(|item| v1::TokenizeItem { subject: "other".to_owned(), ..item }).collect();
    vault.vault().await.tokenize(tokenize(other)).await.unwrap();

    let mut work = JoinSet::new();
    for (number, token) in tokens.iter().enumerate() {
        let shared = number % 3 == 2;
        let subject = if shared { format!("holder-{number}") } else { String::new() };
        let (token, value) = (token.clone(), String::from_utf8(new[number].value.to_vec()).unwrap());
        let readers = [clients[number % 8].clone(), clients[(number + 1) % 8].clone()];
        let mut deleter = clients[(number + 2) % 8].clone();
        work.spawn(async move {
            let (first, second) = (AtomicUsize::new(0), tokio::sync::Notify::new());
            let reading = |mut client: Client| {
                let (token, subject, value, first, second) = (&token, &subject, &value, &first, &second);
                async move {
                    let mut answered = 0;
                    loop {
                        match read(&mut client, token, subject).await {
                            Ok(answer) => assert_eq!(answer, *value),
                            Err(told) => {
                                assert_eq!(told.code, Code::NotFound, "{told:?}");
                                return answered;
                            }
                        }
                        answered += 1;
                        if first.fetch_add(1, Ordering::Relaxed) == 4 {
                            second.notify_one();
                        }
                    }
                }
            };
            let deleting = async {
                second.notified().await;
                let item = v1::DeleteItem { token: token.clone(), subject: subject.clone() };
                let request = v1::DeleteRequest { items: vec![item], idempotency_key: String::new() };
                let result = deleter.delete(request).await.unwrap().into_inner().results.remove(0);
                assert!(result.problem.is_none());
                // Who hears of the deletion reads nothing any more.
                assert_eq!(read(&mut deleter, &token, &subject).await.unwrap_err().code, Code::NotFound);
            };
            let [one, two] = readers;
            let (one, two, ()) = tokio::join!(reading(one), reading(two), deleting);
            (number, one + two)
        });
    }
    let done = tokio::time::timeout(Duration::from_secs(60), work.join_all()).await.unwrap();
    let answered: HashMap<usize, usize> = done.into_iter().collect();

    let leaves = vault.leaves().await;
    let rows: Vec<(&Value, Option<&Value>)> = items(&leaves)
        .filter(|(leaf, item)| leaf["action"] == "tokenize" && item["outcome"] == "ok")
        .map(|(_, item)| (&item["row"], item.get("subject")))
        .collect();
    assert_eq!(rows.len(), VALUES);
    for (number, (row, holder)) in rows.into_iter().enumerate() {
        let own = |item: &Value| item["row"] == *row && item.get("subject") == holder;
        let reads: Vec<u64> = items(&leaves)
            .filter(|(leaf, item)| leaf["action"] == "detokenize" && item["outcome"] == "ok" && own(item))
            .map(|(leaf, _)| index(leaf))
            .collect();
        let deleted: Vec<u64> = items(&leaves)
            .filter(|(leaf, item)| leaf["action"] == "delete" && own(item))
            .map(|(leaf, _)| index(leaf))
            .collect();
        assert_eq!((deleted.len(), reads.len()), (1, answered[&number]), "value {number}");
        assert!(reads.iter().all(|read| *read < deleted[0]), "value {number}: {reads:?}, deleted at {deleted:?}");
    }
    let shared = tokens.iter().skip(2).step_by(3);
    for token in shared {
        assert!(read(&mut clients[0].clone(), token, "other").await.is_ok(), "the other holder still reads");
    }
    vault.verify_ledger();
    vault.hides((2..VALUES).step_by(3).map(|number| uscc(number as u64)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_is_applied_under_load_holds_from_its_leaf_on() {
    const FIELD: &str = "\n[field.borrower.nickname]\nnumber = 90\ntype = \"name\"\nclass = \"c2\"\nretention = \"10y\"\n\
                         purposes = [\"loan_servicing\"]\nviews = { plain = \"plain\" }\n";
    let vault = TestVault::start();
    // Odd versions show names in plain, even ones do not.
    let hidden = LENDING.replacen("views = { plain = \"plain\" }\n", "", 1);
    assert_ne!(hidden, LENDING);
    let over = Arc::new(AtomicBool::new(false));
    let shown = Arc::new(AtomicUsize::new(0));
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut load = JoinSet::new();
    for (number, mut client) in connections(&vault, 6).await.into_iter().enumerate() {
        let (over, shown, tell) = (Arc::clone(&over), Arc::clone(&shown), tell.clone());
        load.spawn(async move {
            let mut round = 0;
            while !over.load(Ordering::Relaxed) {
                let name = format!("name {number} {round}");
                let request = tokenize(vec![item("borrower.name", &name, &format!("cust-{number}"))]);
                let token = client.tokenize(request).await.unwrap().into_inner().tokens.remove(0);
                match read(&mut client, &token, "").await {
                    Ok(value) => {
                        assert_eq!(value, name);
                        shown.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(refused) => assert_eq!(refused.reason, "VIEW_UNKNOWN", "{refused:?}"),
                }
                round += 1;
                let _ = tell.send(());
            }
        });
    }
    let mut access = vault.access().await;
    let mut own = vault.vault().await;
    for version in 2..=7 {
        for _ in 0..20 {
            told.recv().await.unwrap();
        }
        let source = if version % 2 == 0 { &hidden } else { LENDING };
        // The keys for the new field are made while others work.
        let source = if version < 4 { source.to_owned() } else { format!("{source}{FIELD}") };
        let request = v1::ApplySchemaRequest { source, dry_run: false };
        assert_eq!(access.apply_schema(request).await.unwrap().into_inner().version, version);
        let answer = own.tokenize(tokenize(vec![item("borrower.nickname", "小王", "cust-0")])).await;
        assert_eq!(answer.is_ok(), version >= 4, "version {version}");
    }
    over.store(true, Ordering::Relaxed);
    tokio::time::timeout(Duration::from_secs(30), load.join_all()).await.unwrap();
    let leaves = vault.leaves().await;
    assert_eq!(rules_hold_from_their_leaf_on(&leaves, "apply_schema", "schema"), 7);
    let plain: Vec<&Value> = items(&leaves)
        .filter(|(_, item)| item["view"] == "plain" && item["outcome"] == "ok")
        .map(|(leaf, _)| leaf)
        .collect();
    assert_eq!(plain.len(), shown.load(Ordering::Relaxed));
    assert!(plain.iter().all(|leaf| leaf["schema"].as_u64().unwrap() % 2 == 1));
    vault.verify_ledger();
}
