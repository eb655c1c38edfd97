//! Rules that this vault wrote once, put back by somebody who has the files and no keys.

use strongroom_ledger::leaf::{LeafHeader, prepare};
use strongroom_ledger::{Frontier, Rules, Timestamp};
use strongroom_storage::rows::LaneHead;
use strongroom_storage::{Family, Mutation, Store, keys as place};

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
            actor: None,
            action: "apply_policy",
            purpose: None,
            decision: "allow",
            reason: None,
            policy: 2,
            schema: 2,
            keys: &[],
            client: "",
            detail: &[("version", version), ("sha256", &hash)],
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
    let lane = place::lane(TENANT, 0);
    let head = LaneHead::decode(&bench.disk.get(Family::Meta, lane.clone()).await.unwrap().unwrap()).unwrap();
    let header = LeafHeader {
        request: &[9; 16],
        principal,
        actor: None,
        action,
        purpose: None,
        decision: "allow",
        reason: None,
        policy: 1,
        schema: 1,
        keys: &[],
        client: "",
        detail: &[],
    };
    let line = prepare(&header, std::iter::empty()).remove(0).finish(head.size, Timestamp(head.time));
    let mut frontier = Frontier::from_bytes(&head.frontier).unwrap();
    frontier.push(&line);
    let (size, frontier) = (frontier.size(), frontier.to_bytes());
    put(bench, lane, LaneHead { size, frontier, ..head.clone() }.encode()).await;
    bench.disk.write(vec![Mutation::Put(Family::Leaves, place::leaf(TENANT, head.size), line)]).await.unwrap();
    head.size
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
