//! Rules that this vault wrote once, put back by somebody who has the files and no keys.

use strongroom_ledger::leaf::{LeafHeader, LeafItem, prepare, sample::header};
use strongroom_ledger::{Frontier, Rules, Timestamp};
use strongroom_storage::rows::{LaneHead, SubjectRecord};
use strongroom_storage::{Family, Mutation, Range, Store, keys as place};

use super::*;

const TENANT: TenantNo = TenantNo(1);

/// A stopped vault with a second policy and a second schema, the rows of the first ones, and the head file of a vault that ran
/// with them.
async fn changed() -> (Bench, [(Vec<u8>, Vec<u8>); 2], Vec<u8>) {
    let (bench, vault) = Bench::new().await;
    vault.close().await;
    let mut first = [place::policy(TENANT), place::schema(TENANT)].map(|key| (key, vec![]));
    for (key, row) in &mut first {
        *row = bench.disk.get(Family::Meta, key.clone()).await.unwrap().unwrap().to_vec();
    }
    let vault = bench.open().await;
    let head = std::fs::read(bench.folder.path().join("head")).unwrap();
    let officer = caller(Role::Officer);
    let source = format!("// the second\n{DEFAULT_POLICIES}");
    let policy = ApplyPolicy { source, tests: String::new(), dry_run: false };
    with_approval(&vault, TENANT, async || vault.apply_policy(&officer, &policy).await).await.unwrap();
    let source = format!("# the second\n{LENDING}");
    vault.apply_schema(&officer, &ApplySchema { source, dry_run: false }).await.unwrap();
    vault.close().await;
    (bench, first, head)
}

async fn put(bench: &Bench, key: Vec<u8>, row: Vec<u8>) {
    bench.disk.write(vec![Mutation::Put(Family::Meta, key, row)]).await.unwrap();
}

#[tokio::test]
async fn an_older_policy_or_schema_that_is_put_back_does_not_start() {
    let (bench, first, head_before) = changed().await;
    let head = bench.folder.path().join("head");
    let head_now = std::fs::read(&head).unwrap();
    for ((key, older), what) in first.into_iter().zip(["policy", "schema"]) {
        let newest = bench.disk.get(Family::Meta, key.clone()).await.unwrap().unwrap().to_vec();
        put(&bench, key.clone(), older).await;
        for signed in [&head_now, &head_before] {
            std::fs::write(&head, signed).unwrap();
            let why = refused(&bench).await;
            assert!(why.contains(&format!("its {what} is version 1, and the log has version 2")), "{why}");
            assert!(why.contains("newest copy"), "{why}");
        }
        bench.disk.write(vec![Mutation::Delete(Family::Meta, key.clone())]).await.unwrap();
        let why = refused(&bench).await;
        assert!(why.contains(&format!("its {what} is missing")), "{why}");
        put(&bench, key, newest).await;
    }
    bench.open().await.close().await;
}

#[tokio::test]
async fn a_leaf_that_somebody_appends_brings_no_older_policy_back() {
    let (bench, [(key, older), _], head) = changed().await;
    // As after a crash: of a vault that was stopped in order no leaf at all is taken.
    std::fs::write(bench.folder.path().join("head"), head).unwrap();
    let hash = data_encoding::HEXLOWER.encode(&crate::values::row_hash(&older));
    put(&bench, key, older).await;
    let lane = place::lane(TENANT, 0);
    let head = LaneHead::decode(&bench.disk.get(Family::Meta, lane.clone()).await.unwrap().unwrap()).unwrap();
    for version in ["1", "3"] {
        let header = LeafHeader {
            request: &[9; 16],
            principal: "officer/alice",
            action: "apply_policy",
            policy: 2,
            schema: 2,
            client: "",
            detail: &[("version", version), ("sha256", &hash)],
            ..header()
        };
        let prepared = prepare(&header, std::iter::empty()).remove(0);
        let line = prepared.finish(head.size, Timestamp(head.time));
        let mut frontier = Frontier::from_bytes(&head.frontier).unwrap();
        frontier.push(&line);
        let mut rules = Rules::from_bytes(&head.rules).unwrap();
        rules.put(prepared.new_rule().unwrap());
        let (size, frontier, rules) = (frontier.size(), frontier.to_bytes(), rules.to_bytes());
        put(&bench, lane.clone(), LaneHead { size, frontier, rules, ..head.clone() }.encode()).await;
        bench.disk.write(vec![Mutation::Put(Family::Leaves, place::leaf(TENANT, head.size), line)]).await.unwrap();
        let why = refused(&bench).await;
        assert!(why.contains("rules"), "{version}: {why}");
    }
}

/// Appends a leaf to the tenant's log, and a head that fits it: whoever writes the files needs no key for either. Its index.
async fn append(bench: &Bench, principal: &str, action: &str) -> u64 {
    append_saying(bench, (principal, action), &[], None).await
}

/// The same with what it says, and with an item.
async fn append_saying(
    bench: &Bench,
    (principal, action): (&str, &str),
    detail: &[(&str, &str)],
    item: Option<LeafItem<'_>>,
) -> u64 {
    let lane = place::lane(TENANT, 0);
    let head = LaneHead::decode(&bench.disk.get(Family::Meta, lane.clone()).await.unwrap().unwrap()).unwrap();
    let header =
        LeafHeader { request: &[9; 16], principal, action, policy: 1, schema: 1, client: "", detail, ..header() };
    let prepared = prepare(&header, item.into_iter()).remove(0);
    let line = prepared.finish(head.size, Timestamp(head.time));
    let mut frontier = Frontier::from_bytes(&head.frontier).unwrap();
    frontier.push(&line);
    let mut rules = Rules::from_bytes(&head.rules).unwrap();
    prepared.new_rule().map(|rule| rules.put(rule));
    let (size, frontier, rules) = (frontier.size(), frontier.to_bytes(), rules.to_bytes());
    put(bench, lane, LaneHead { size, frontier, rules, ..head.clone() }.encode()).await;
    bench.disk.write(vec![Mutation::Put(Family::Leaves, place::leaf(TENANT, head.size), line)]).await.unwrap();
    head.size
}

#[tokio::test]
async fn a_leaf_that_somebody_appends_after_a_crash_is_journalled_only_if_the_rest_of_the_data_says_it_too() {
    let hash = "07".repeat(32);
    let number = u64::MAX.to_string();
    let keys = [("stage", "done"), ("keystore", &*number)];
    let principals = [("principals_version", "9"), ("principals_sha256", &*hash), ("stage", "intent")];
    for (action, detail, starts) in [
        ("erase_subject", &[][..], false),
        ("set_key_state", &keys[..], false),
        // No rules at all.
        ("unfreeze", &[("version", "x"), ("sha256", "y"), ("what", "reads")][..], true),
        // What only the log `system` can say.
        ("destroy_tenant", &principals[..], true),
        ("remove_officer", &principals[..], true),
    ] {
        let (bench, vault) = Bench::new().await;
        let [head, journal] = [bench.folder.path().join("head"), bench.folder.path().join("journal").join("journal")];
        let of_a_crash = std::fs::read(&head).unwrap();
        store_one(&vault, "borrower.name", "张三", "c-1").await;
        vault.close().await;
        drop(vault);
        std::fs::write(&head, of_a_crash).unwrap();
        let range = Range { from: vec![], to: vec![], limit: 1 };
        let (_, record) = bench.disk.scan(Family::Subjects, range).await.unwrap().remove(0);
        let subject = Some(SubjectRecord::decode(&record).unwrap().handle);
        let item = LeafItem { subject, outcome: "subject_closed", ..LeafItem::default() };
        let item = (action == "erase_subject").then_some(item);
        append_saying(&bench, ("officer/alice", action), detail, item).await;
        if starts {
            bench.open().await.close().await;
        } else {
            let why = refused(&bench).await;
            assert!(why.contains("is not journalled") && why.contains(action), "{why}");
        }
        let journalled = std::fs::read(&journal).unwrap();
        let name = format!("\"action\":\"{action}\"");
        assert!(!journalled.windows(name.len()).any(|part| part == name.as_bytes()), "{action}");
    }
}

#[tokio::test]
async fn a_leaf_that_the_vault_wrote_before_it_died_is_journalled_at_the_next_start() {
    let (bench, vault) = Bench::new().await;
    let [head, journal] = [bench.folder.path().join("head"), bench.folder.path().join("journal").join("journal")];
    let before = [&head, &journal].map(|file| std::fs::read(file).unwrap());
    let request = crate::Suspend { principal: "app/other".to_owned(), reason: "its key was found".to_owned() };
    vault.suspend(&caller(Role::Officer), &request).await.unwrap();
    vault.close().await;
    drop(vault);
    for (file, bytes) in [&head, &journal].into_iter().zip(before) {
        std::fs::write(file, bytes).unwrap();
    }
    bench.open().await.close().await;
    let journalled = std::fs::read(&journal).unwrap();
    assert!(journalled.windows(9).any(|part| part == b"\"suspend\""));
    assert_eq!(findings(&bench, &[]).await, []);
    assert_eq!(journal_findings(&bench).await, []);
}

#[tokio::test]
async fn a_leaf_that_somebody_appends_to_a_vault_that_was_stopped_in_order_is_refused_and_named() {
    let (bench, vault) = Bench::new().await;
    vault.close().await;
    let index = append(&bench, "officer/alice", "detokenize").await;
    let why = refused(&bench).await;
    for says in ["1 leaves more", "stopped in order", "`strongroom verify`"] {
        assert!(why.contains(says), "{why}");
    }
    let found = findings(&bench, &[]).await;
    let added = |one: &crate::Finding| one.fault == crate::Fault::Added && one.place == crate::Place::Leaf(index);
    assert!(found.iter().any(added), "{found:?}");
}

#[tokio::test]
async fn a_vault_that_was_killed_after_its_start_or_its_first_commits_opens() {
    let (bench, vault) = Bench::new().await;
    vault.close().await;
    let head = bench.folder.path().join("head");
    for commits in [0, 2] {
        let vault = bench.open().await;
        for number in 0..commits {
            store_one(&vault, "borrower.name", "张三", &format!("c-{number}")).await;
        }
        let at_the_kill = std::fs::read(&head).unwrap();
        // It ends in order, and its file is the one that a kill would have left.
        vault.close().await;
        std::fs::write(&head, at_the_kill).unwrap();
        bench.open().await.close().await;
    }
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn what_is_done_offline_between_two_openings_leaves_a_vault_that_opens() {
    let (bench, vault) = Bench::new().await;
    vault.close().await;
    // Sealed, changed by break-glass, and unsealed, in turn.
    for anchor in [5, 6] {
        let offline = bench.open().await;
        offline.break_glass(&crate::BreakGlass::AddAnchor([anchor; 32]), "a new authority").await.unwrap();
        offline.close().await;
        let again = bench.open().await;
        store_one(&again, "borrower.name", "张三", "c-1").await;
        again.close().await;
    }
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn a_log_that_is_not_the_one_that_the_journal_knows_is_named() {
    let (bench, vault) = Bench::new().await;
    let of_a_crash = std::fs::read(bench.folder.path().join("head")).unwrap();
    store_one(&vault, "borrower.name", "张三", "c-1").await;
    vault.close().await;
    drop(vault);
    std::fs::write(bench.folder.path().join("head"), of_a_crash).unwrap();
    assert_eq!(findings_by_journal(&bench).await, []);
    // The last leaf, and a head that fits: the head file knows neither.
    let lane = place::lane(TENANT, 0);
    let head = LaneHead::decode(&bench.disk.get(Family::Meta, lane.clone()).await.unwrap().unwrap()).unwrap();
    let (from, to) = place::leaves_range(TENANT, 0, head.size - 1);
    let mut frontier = Frontier::new();
    for (_, line) in bench.disk.scan(Family::Leaves, Range { from, to, limit: usize::MAX }).await.unwrap() {
        frontier.push(&line);
    }
    let size = frontier.size();
    put(&bench, lane, LaneHead { size, frontier: frontier.to_bytes(), ..head }.encode()).await;
    append(&bench, "app/tester", "tokenize").await;
    let found = findings_by_journal(&bench).await;
    assert!(found.iter().any(|one| one.what.contains("the journal signs")), "{found:?}");
    let why = refused(&bench).await;
    assert!(why.contains("the one that its journal knows"), "{why}");
}
