//! The vault over a store in memory whose reads and writes fail on demand: what no test from outside can bring about.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use strongroom_access::{DEFAULT_POLICIES, Principal, Role};
use strongroom_ids::{TenantNo, VaultId};
use strongroom_keys::{Keystore, RootProvider};
use strongroom_storage::faulty::{Fate, FaultyStore};
use strongroom_storage::memory::MemoryStore;

use crate::{
    AnswerRoom, ApplyPolicy, ApplySchema, Caller, Delete, DeleteItem, Detokenize, Error, FoundTokens, Limits, Lookup,
    LookupItem, Match, MatchItem, NewValue, NewVersion, OpenError, Opening, ReadItem, Replace, Retention,
};

mod actors;
mod approvals;
mod archives;
mod asked_by;
mod bounds;
mod bundles;
mod changed_leaves;
mod classes;
mod consents;
mod copies;
mod damaged;
mod erasure_receipts;
mod erasures;
mod exports;
mod freezes;
mod full_disk;
mod hang_up;
mod holders;
mod holds;
mod honest;
mod keys;
mod ledger_keys;
mod locks;
mod moved;
mod officers;
mod own_keys;
mod policies;
mod processing;
mod proofs;
mod published;
mod questions;
mod quotas;
mod refusals;
mod refused;
mod reindex;
mod replaced;
mod restored_subjects;
mod restores;
mod retention;
pub(crate) mod rig;
mod rollback;
mod rolls;
mod root_key;
mod second_factors;
mod snapshot;
mod subject_access;
mod tenants;
mod unjournalled;
mod visible;
mod witnesses;

use rig::*;

const ID_CARD: &str = "11010519491231002X";

#[tokio::test]
async fn a_read_whose_leaf_cannot_be_written_releases_nothing() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    for fate in [Fate::Lost, Fate::Stored] {
        bench.faults.fail_write(fate);
        assert!(matches!(read_one(&vault, &token, "plain").await, Err(Error::Unknown)));
        recovered(&vault).await;
    }
    assert_eq!(read_one(&vault, &token, "plain").await.unwrap(), ID_CARD.as_bytes());
}

#[tokio::test]
async fn a_write_of_unknown_outcome_is_settled_by_its_idempotency_key() {
    for fate in [Fate::Lost, Fate::Stored, Fate::StoredAfterReopen] {
        let (bench, vault) = Bench::new().await;
        // Ids are reserved before, so that the failing write is the request's own.
        store_one(&vault, "borrower.name", "张三", "c-0").await;
        let request = tokenize(vec![new_value("borrower.id_card", ID_CARD, "c-1")], "once");
        bench.faults.fail_write(fate);
        assert!(matches!(vault.tokenize(&caller(Role::App), &request).await, Err(Error::Unknown)));
        recovered(&vault).await;
        let first = vault.tokenize(&caller(Role::App), &request).await.unwrap();
        let second = vault.tokenize(&caller(Role::App), &request).await.unwrap();
        assert_eq!(first, second);
        assert_eq!(read_one(&vault, &first[0], "plain").await.unwrap(), ID_CARD.as_bytes());
        let rows: HashSet<String> = leaves(&vault)
            .await
            .iter()
            .flat_map(|leaf| leaf["items"].as_array().cloned().unwrap_or_default())
            .filter(|item| item["field"] == "borrower.id_card" && item["version"] == 1)
            .map(|item| item["row"].to_string())
            .collect();
        assert_eq!(rows.len(), 1, "one row was made, whatever became of the first write");
    }
}

#[tokio::test]
async fn rules_of_unknown_outcome_are_read_again_before_anybody_relies_on_the_old_ones() {
    for fate in [Fate::Lost, Fate::Stored] {
        let (bench, vault) = Bench::new().await;
        let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
        let without_plain = DEFAULT_POLICIES.replace("context.view == \"plain\"", "context.view == \"nothing\"");
        assert_ne!(without_plain, DEFAULT_POLICIES);
        let request = ApplyPolicy { source: without_plain, tests: String::new(), dry_run: false };
        approved(&vault, TenantNo(1), vault.apply_policy(&caller(Role::Officer), &request).await).await;
        // That it is approved is recorded first.
        bench.faults.fail_writes_after(1, fate);
        assert!(vault.apply_policy(&caller(Role::Officer), &request).await.is_err());
        recovered(&vault).await;
        let plain = read_one(&vault, &token, "plain").await;
        match fate {
            Fate::Lost => assert!(plain.is_ok(), "the old policy stands"),
            _ => assert!(matches!(plain, Err(Error::ViewNotAllowed { .. })), "the new policy is on disk, so it holds"),
        }
    }
}

#[tokio::test]
async fn a_read_that_fails_says_so_and_the_next_succeeds() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    bench.faults.fail_reads(1);
    assert!(matches!(read_one(&vault, &token, "plain").await, Err(Error::Recovering)));
    assert_eq!(read_one(&vault, &token, "plain").await.unwrap(), ID_CARD.as_bytes());
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_under_random_faults() {
    let (bench, vault) = Bench::new().await;
    bench.faults.by_chance(42, 16, 8);
    let mut acknowledged = Vec::new();
    for number in 0..300 {
        let value = format!("{number:08}@mail.example");
        let request = tokenize(vec![new_value("borrower.email", &value, &format!("c-{}", number % 20))], "");
        if let Ok(mut tokens) = vault.tokenize(&caller(Role::App), &request).await {
            acknowledged.push((tokens.remove(0), value));
        }
        recovered(&vault).await;
    }
    assert!(bench.faults.failed() > 20, "faults were injected");
    bench.faults.heal();
    assert!(acknowledged.len() > 50);
    vault.close().await;
    let vault = bench.open().await;
    for (token, value) in acknowledged {
        let request = Detokenize { purpose: "loan_servicing".to_owned(), ..read(&token, "plain") };
        let results = vault.detokenize(&caller(Role::App), &request).await.unwrap();
        assert_eq!(results[0].as_ref().unwrap().value.as_bytes(), value.as_bytes());
    }
}

#[tokio::test]
async fn expired_idempotency_keys_are_forgotten_and_live_ones_stay() {
    let (bench, vault) = Bench::new().await;
    let request = tokenize(vec![new_value("borrower.name", "张三", "c-1")], "old");
    let first = vault.tokenize(&caller(Role::App), &request).await.unwrap();
    bench.pass(6 * 24 * 3600);
    vault.forget_expired_keys().await.unwrap();
    assert_eq!(vault.tokenize(&caller(Role::App), &request).await.unwrap(), first);
    bench.pass(2 * 24 * 3600);
    vault.forget_expired_keys().await.unwrap();
    assert_ne!(vault.tokenize(&caller(Role::App), &request).await.unwrap(), first);
}

#[tokio::test]
async fn a_clock_that_is_put_back_stops_nobody_and_brings_nothing_expired_back() {
    let (bench, vault) = Bench::new().await;
    let expires = Some(bench.now.load(Ordering::Relaxed) + 3_600_000_000);
    let mortal = NewValue { expires, ..new_value("borrower.id_card", ID_CARD, "cust-1") };
    let token = vault.tokenize(&caller(Role::App), &tokenize(vec![mortal], "")).await.unwrap().remove(0);
    bench.pass(2 * 3_600);
    let other = store_one(&vault, "borrower.name", "张伟", "cust-1").await;
    bench.now.fetch_sub(30 * 24 * 3_600 * 1_000_000, Ordering::Relaxed);
    let still_right = async |vault: &Tested| {
        assert!(read_one(vault, &other, "masked").await.is_ok());
        assert!(matches!(read_one(vault, &token, "masked").await, Err(Error::NotFound)));
        store_one(vault, "borrower.name", "李娜", "cust-2").await;
    };
    still_right(&vault).await;
    vault.close().await;
    still_right(&*bench.open().await).await;
}

/// No memory is left for any answer.
struct Full;

impl AnswerRoom for Full {
    fn reserve(&self, _: usize) -> bool {
        false
    }
}

#[tokio::test]
async fn a_lack_of_memory_tells_nothing_of_what_the_caller_may_not_know() {
    let (_bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.name", "张伟", "cust-1").await;
    let one = read(&token, "plain");
    let again = || ReadItem { token: token.clone(), view: String::new(), subject: String::new() };
    let many = Detokenize { items: (0..3_000).map(|_| again()).collect(), ..one };
    let full = |role| Caller { room: Some(Arc::new(Full)), ..caller(role) };
    assert!(matches!(vault.detokenize(&full(Role::App), &many).await, Err(Error::Overloaded { .. })));
    let answers = vault.detokenize(&full(Role::Rotator), &many).await.unwrap();
    assert!(answers.iter().all(|answer| matches!(answer, Err(Error::NotFound))));
}

#[tokio::test]
async fn a_flood_of_refusals_is_counted_and_not_written_one_by_one() {
    let (bench, vault) = Bench::new().await;
    for _ in 0..1_000 {
        assert!(matches!(read_one(&vault, "srt1_0000000000000000000000", "plain").await, Err(Error::NotFound)));
    }
    let written = leaves(&vault).await.iter().filter(|leaf| leaf["reason"] == "NOT_FOUND").count();
    assert!((200..300).contains(&written), "{written} leaves for 1,000 refusals");
    vault.write_counted_refusals().await;
    let all = leaves(&vault).await;
    let counted: Vec<&serde_json::Value> = all.iter().filter(|leaf| !leaf["detail"]["counted"].is_null()).collect();
    assert_eq!(counted.len(), 1);
    let more: u64 = counted[0]["detail"]["counted"].as_str().unwrap().parse().unwrap();
    assert_eq!(written as u64 + more, 1_000, "every refusal is in the ledger, one way or the other");
    bench.pass(60);
    assert!(read_one(&vault, "srt1_0000000000000000000000", "plain").await.is_err());
    let after = leaves(&vault).await.iter().filter(|leaf| leaf["reason"] == "NOT_FOUND").count();
    assert_eq!(after, written + 2, "the counting leaf, and a leaf of its own again");
}

#[tokio::test]
async fn every_write_and_its_undoing_leaves_no_entry_behind() {
    let (bench, vault) = Bench::new().await;
    let empty = entries(&bench.disk);
    let app = caller(Role::App);
    let items = vec![
        new_value("borrower.id_card", ID_CARD, "c-1"),
        new_value("borrower.bank_card", "6222021234567890128", "c-1"),
        new_value("borrower.email", "someone@mail.example", ""),
        new_value("company.uscc", "91350100M000100Y43", "c-2"),
    ];
    let tokens = vault.tokenize(&app, &tokenize(items, "")).await.unwrap();
    let replace = Replace {
        items: vec![NewVersion {
            token: tokens[2].clone(),
            value: "other@mail.example".to_owned().into(),
            expires: None,
        }],
        idempotency_key: String::new(),
    };
    assert_eq!(vault.replace(&app, &replace).await.unwrap(), [2]);
    let delete = |subject: &'static str, tokens: &[String]| Delete {
        items: tokens.iter().map(|token| DeleteItem { token: token.clone(), subject: subject.to_owned() }).collect(),
        idempotency_key: String::new(),
    };
    assert!(vault.delete(&app, &delete("", &tokens[..3])).await.unwrap().iter().all(Result::is_ok));
    assert!(matches!(vault.delete(&app, &delete("", &tokens[3..])).await.unwrap()[0], Err(Error::SubjectRequired)));
    assert!(vault.delete(&app, &delete("c-2", &tokens[3..])).await.unwrap()[0].is_ok());
    let left = entries(&bench.disk);
    for family in ["rows", "row_deks", "subject_rows", "holders"] {
        assert_eq!(left[family], empty[family], "{family}");
    }
    // What stays is the way from the two subject ids to their records.
    assert_eq!(left["index"], empty["index"] + 2);
    assert_eq!(left["subjects"], empty["subjects"] + 2);
}

fn entries(disk: &MemoryStore) -> std::collections::HashMap<&'static str, usize> {
    use strongroom_storage::{Family, Range, Store};
    let all = Range { from: vec![], to: vec![], limit: 1_000_000 };
    Family::ALL
        .into_iter()
        .map(|family| {
            let scan = disk.scan(family, all.clone());
            (family.name(), futures_now(scan).unwrap().len())
        })
        .collect()
}

/// The store in memory answers at once.
fn futures_now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("the store in memory does not wait"),
    }
}

#[tokio::test]
async fn match_compares_normal_forms_and_shows_nothing() {
    let (_bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    let ask = async |value: &str| {
        let items = vec![MatchItem { token: token.clone(), value: value.to_owned().into(), subject: String::new() }];
        let request = Match { items, purpose: "kyc_review".to_owned() };
        vault.matches(&caller(Role::App), &request).await.unwrap().remove(0)
    };
    assert!(ask("11010519491231002x").await.unwrap());
    assert!(!ask("440305199002180000").await.unwrap());
    assert!(matches!(ask("440305199002180001").await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn a_value_stored_under_other_bounds_is_compared_found_and_no_damage() {
    let (bench, vault) = Bench::new().await;
    let account = "6222021234567890";
    // Lookup can't be switched on for what may be stored, so the field gets a new number.
    let wide =
        LENDING.replace("number = 14", "number = 114").replace("min_length = 8", "min_length = 8\nlookup = true");
    let narrow = wide.replace("max_length = 40", "max_length = 10");
    let officer = caller(Role::Officer);
    vault.apply_schema(&officer, &ApplySchema { source: wide, dry_run: false }).await.unwrap();
    let token = store_one(&vault, "company.settlement_account", account, "co-1").await;
    vault.apply_schema(&officer, &ApplySchema { source: narrow, dry_run: false }).await.unwrap();
    for (value, same) in [(account, true), ("6222021234567891", false), ("short", false)] {
        let items = vec![MatchItem { token: token.clone(), value: value.to_owned().into(), subject: String::new() }];
        let request = Match { items, purpose: "loan_servicing".to_owned() };
        assert_eq!(vault.matches(&caller(Role::App), &request).await.unwrap().remove(0).unwrap(), same, "{value}");
    }
    assert_eq!(look_up(&vault, "company.settlement_account", account, "loan_servicing").await.tokens, [token]);
    let new = tokenize(vec![new_value("company.settlement_account", account, "co-2")], "");
    assert!(matches!(vault.tokenize(&caller(Role::App), &new).await, Err(Error::Invalid(_))));
    assert_eq!(vault.health(), "serving");
    vault.close().await;
    bench.open().await;
}

async fn look_up(vault: &Tested, field: &str, value: &str, purpose: &str) -> FoundTokens {
    let items = vec![LookupItem { field: field.to_owned(), value: value.to_owned().into() }];
    vault.lookup(&caller(Role::App), &Lookup { items, purpose: purpose.to_owned() }).await.unwrap().remove(0).unwrap()
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_takes_only_what_frees_space() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    bench.full.store(true, Ordering::Relaxed);
    vault.look_at_space();
    assert_eq!(vault.health(), "full");
    assert!(matches!(read_one(&vault, &token, "plain").await, Err(Error::DiskFull)));
    let request = tokenize(vec![new_value("borrower.name", "张三", "c-1")], "");
    assert!(matches!(vault.tokenize(&caller(Role::App), &request).await, Err(Error::DiskFull)));
    vault.status(&caller(Role::App)).await.unwrap();
    let items = vec![DeleteItem { token, subject: String::new() }];
    let delete = Delete { items, idempotency_key: String::new() };
    assert!(vault.delete(&caller(Role::App), &delete).await.unwrap()[0].is_ok());
    bench.full.store(false, Ordering::Relaxed);
    vault.look_at_space();
    store_one(&vault, "borrower.name", "张三", "c-1").await;
}

/// Opens the vault again and says why it does not.
async fn refused(bench: &Bench) -> String {
    let dir = bench.folder.path();
    let opening = Opening {
        store: FaultyStore::new(bench.disk.clone(), bench.faults.clone()),
        keystore: Keystore::open(dir, &root()).unwrap(),
        head_file: dir.join("head"),
        journal: dir.join("journal"),
        limits: Limits::MOST,
        hot_deks: 100,
        space: bench.space(),
        clock: bench.clock(),
        machine: bench.machine(),
        retention: Retention::default(),
    };
    match Tested::open(opening).await {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn rules_that_somebody_else_wrote_into_the_store_are_not_believed() {
    use strongroom_storage::{Family, Mutation, Store, keys as place};
    for key in [place::policy(TenantNo(1)), place::schema(TenantNo(1)), place::principals()] {
        let (bench, vault) = Bench::new().await;
        vault.close().await;
        let row = bench.disk.get(Family::Meta, key.clone()).await.unwrap().unwrap();
        // The text alone, as somebody without keys would change it.
        let forged = [&row[..], b" "].concat();
        bench.disk.write(vec![Mutation::Put(Family::Meta, key.clone(), forged)]).await.unwrap();
        let why = refused(&bench).await;
        assert!(why.contains("rules"), "{why}");
        bench.disk.write(vec![Mutation::Put(Family::Meta, key, row.to_vec())]).await.unwrap();
        bench.open().await.close().await;
    }
}

#[tokio::test]
async fn policies_of_one_tenant_do_not_hold_for_another() {
    use strongroom_storage::{Family, Mutation, Store, keys as place};
    let (bench, vault) = Bench::new().await;
    vault.close().await;
    let row = bench.disk.get(Family::Meta, place::policy(TenantNo(0))).await.unwrap().unwrap();
    bench.disk.write(vec![Mutation::Put(Family::Meta, place::policy(TenantNo(1)), row.to_vec())]).await.unwrap();
    refused(&bench).await;
}

#[tokio::test]
async fn only_enrolled_authorities_may_vouch_for_callers() {
    let (_bench, vault) = Bench::new().await;
    assert!(vault.check_trust_anchors(&[[2; 32]]).is_ok());
    assert!(vault.check_trust_anchors(&[[2; 32], [3; 32]]).is_err());
    assert!(vault.check_trust_anchors(&[]).is_err());
}

#[tokio::test]
async fn one_large_value_asked_for_often_is_read_once_and_refused_early() {
    let (_bench, vault) = Bench::new().await;
    let value = "x".repeat(60_000);
    let schema = LENDING.replace("max_length = 512", "max_length = 65536");
    vault.apply_schema(&caller(Role::Officer), &ApplySchema { source: schema, dry_run: false }).await.unwrap();
    let token = store_one(&vault, "borrower.address", &value, "c-1").await;
    let item = || ReadItem { token: token.clone(), view: String::new(), subject: String::new() };
    let many = Detokenize { items: (0..10_000).map(|_| item()).collect(), ..read(&token, "plain") };
    assert!(matches!(vault.detokenize(&caller(Role::App), &many).await, Err(Error::AnswerTooLarge { .. })));
    // Who may know nothing of it learns nothing, and costs no memory either.
    let results = vault.detokenize(&caller(Role::Rotator), &many).await.unwrap();
    assert!(results.iter().all(|result| matches!(result, Err(Error::NotFound))));
}

#[tokio::test]
async fn a_large_refused_request_costs_its_budget() {
    let (_bench, vault) = Bench::new().await;
    let before = leaves(&vault).await.len();
    let item =
        |number: usize| ReadItem { token: format!("srt1_{number:022}"), view: String::new(), subject: String::new() };
    let many = Detokenize { items: (0..10_000).map(item).collect(), ..read("", "plain") };
    for _ in 0..100 {
        vault.detokenize(&caller(Role::Rotator), &many).await.unwrap();
    }
    let after = leaves(&vault).await.len();
    assert!(after - before < 250, "{} leaves for 100 refused requests of 10,000 items", after - before);
    vault.write_counted_refusals().await;
    let counted: u64 =
        leaves(&vault).await.iter().filter_map(|leaf| leaf["detail"]["counted"].as_str()?.parse::<u64>().ok()).sum();
    assert!(counted > 800_000, "items are counted, not requests: {counted}");
}

#[tokio::test]
async fn a_token_has_one_spelling() {
    let (_bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    let strongroom_schema::token::ParsedToken::Opaque { version, block } =
        strongroom_schema::token::Token::parse(&token).unwrap()
    else {
        panic!("an opaque token")
    };
    let other =
        strongroom_schema::token::encode_opaque(version, block, strongroom_schema::token::OpaqueAlphabet::Base32);
    assert!(matches!(read_one(&vault, &other, "plain").await, Err(Error::NotFound)));
    assert!(read_one(&vault, &token, "plain").await.is_ok());
}

#[tokio::test]
async fn two_expiries_of_one_deterministic_value_are_refused() {
    let (bench, vault) = Bench::new().await;
    let app = caller(Role::App);
    let with = |expires, subject| {
        let item = NewValue { expires, ..new_value("company.uscc", "91350100M000100Y43", subject) };
        tokenize(vec![item], "")
    };
    let soon = Some(bench.now.load(Ordering::Relaxed) + 60_000_000);
    let token = vault.tokenize(&app, &with(soon, "a")).await.unwrap();
    assert!(matches!(vault.tokenize(&app, &with(None, "b")).await, Err(Error::Invalid(_))));
    assert_eq!(vault.tokenize(&app, &with(soon, "b")).await.unwrap(), token);
    bench.pass(120);
    assert_ne!(vault.tokenize(&app, &with(None, "b")).await.unwrap(), token);
}

#[tokio::test]
async fn who_may_not_change_the_rules_stops_nobody() {
    let (_bench, vault) = Bench::new().await;
    // Somebody is at work: a change of rules would have to wait.
    let _working = vault.turn.read().await;
    let request = ApplyPolicy { source: DEFAULT_POLICIES.to_owned(), tests: String::new(), dry_run: false };
    assert!(matches!(vault.apply_policy(&caller(Role::App), &request).await, Err(Error::Denied { .. })));
    // Nor do rules that can't be: they are read, compiled and tested while others work.
    let officer = caller(Role::Officer);
    let nonsense = ApplyPolicy { source: "permit everything".to_owned(), ..request };
    assert!(matches!(vault.apply_policy(&officer, &nonsense).await, Err(Error::SourceRefused(_))));
    let stranding = LENDING.replacen("type = \"cn_id_card\"", "type = \"text\"", 1);
    let nonsense = ApplySchema { source: stranding, dry_run: false };
    assert!(matches!(vault.apply_schema(&officer, &nonsense).await, Err(Error::SourceRefused(_))));
}

#[tokio::test]
async fn keys_of_a_new_schema_are_made_before_the_others_are_stopped() {
    let (_bench, vault) = Bench::new().await;
    let working = vault.turn.read().await;
    let number = vault.keystore.number();
    let source = LENDING.replacen("number = 1\n", "number = 101\n", 1).replacen("10y", "11y", 1);
    let request = ApplySchema { source, dry_run: false };
    let officer = caller(Role::Officer);
    let mut applying = std::pin::pin!(vault.apply_schema(&officer, &request));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(applying.as_mut().poll(&mut context).is_pending(), "it waits for who is at work");
    assert_eq!(vault.keystore.number(), number + 1);
    drop(working);
    assert_eq!(applying.await.unwrap().version, 2);
    assert_eq!(vault.keystore.number(), number + 1);
}

#[tokio::test]
async fn repeats_are_decided_anew() {
    let (_bench, vault) = Bench::new().await;
    let app = caller(Role::App);
    let token = store_one(&vault, "borrower.name", "张三", "c-1").await;
    let items = || vec![NewVersion { token: token.clone(), value: "李四".to_owned().into(), expires: None }];
    let replace = Replace { items: items(), idempotency_key: "r".to_owned() };
    assert_eq!(vault.replace(&app, &replace).await.unwrap(), [2]);
    assert_eq!(vault.replace(&app, &replace).await.unwrap(), [2]);
    // What came after it is not what it made.
    let later = Replace { items: items(), idempotency_key: "later".to_owned() };
    assert_eq!(vault.replace(&app, &later).await.unwrap(), [3]);
    assert_eq!(vault.replace(&app, &replace).await.unwrap(), [2]);
    let items = vec![DeleteItem { token: token.clone(), subject: String::new() }];
    let delete = Delete { items, idempotency_key: "d".to_owned() };
    let without =
        DEFAULT_POLICIES.replace("action in [Action::\"replace\", Action::\"delete\"]", "action == Action::\"status\"");
    assert_ne!(without, DEFAULT_POLICIES);
    let withdrawn = ApplyPolicy { source: without, tests: String::new(), dry_run: false };
    let permitted = ApplyPolicy { source: DEFAULT_POLICIES.to_owned(), tests: String::new(), dry_run: false };
    let apply = async |policy: &ApplyPolicy| {
        let apply = async || vault.apply_policy(&caller(Role::Officer), policy).await;
        with_approval(&vault, TenantNo(1), apply).await.unwrap();
    };
    apply(&withdrawn).await;
    assert!(matches!(vault.replace(&app, &replace).await, Err(Error::Denied { .. })));
    apply(&permitted).await;
    assert!(vault.delete(&app, &delete).await.unwrap()[0].is_ok());
    assert!(vault.delete(&app, &delete).await.unwrap()[0].is_ok());
    apply(&withdrawn).await;
    assert!(matches!(vault.delete(&app, &delete).await, Err(Error::Denied { .. })));
}

#[tokio::test]
async fn a_row_of_rules_reads_back_and_no_other_bytes_do() {
    use crate::source::{Source, SourceKind};
    let (_bench, vault) = Bench::new().await;
    let key = &vault.tenant(TenantNo(1)).unwrap().fingerprints;
    let row = Source::new(3, "permit nothing".to_owned()).unwrap().encode(SourceKind::Policy, key);
    let read = Source::decode(&row, SourceKind::Policy, key).unwrap();
    assert_eq!((read.version, read.body.as_str()), (3, "permit nothing"));
    assert!(Source::decode(&row, SourceKind::Schema, key).is_err(), "a policy is no schema");
    let other = &vault.tenant(TenantNo(0)).unwrap().fingerprints;
    assert!(Source::decode(&row, SourceKind::Policy, other).is_err(), "of another tenant");
    for place in 0..row.len() {
        let mut changed = row.clone();
        changed[place] ^= 1;
        assert!(Source::decode(&changed, SourceKind::Policy, key).is_err(), "byte {place} changed");
        assert!(Source::decode(&row[..place], SourceKind::Policy, key).is_err(), "cut at {place}");
    }
}
