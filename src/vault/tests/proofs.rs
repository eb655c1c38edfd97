//! Proofs of the log while it grows, and tiles that somebody changed behind the vault's back.

use strongroom_ledger::proof::{Tree, verify_consistency, verify_inclusion};
use strongroom_ledger::{checkpoint, leaf_hash};
use strongroom_storage::{Family, Mutation, Range, Store, keys as place};

use super::*;
use crate::{Fault, Kind, Proof, ProveGrowth, ProveLeaf};

const TENANT: TenantNo = TenantNo(1);

fn prove_leaf(index: u64, size: u64) -> ProveLeaf {
    ProveLeaf { index, size, log: String::new() }
}

fn prove_growth(from: u64, to: u64) -> ProveGrowth {
    ProveGrowth { from, to, log: String::new() }
}

/// The tree that the checkpoint of a proof signs.
fn signed(proof: &Proof) -> Tree {
    let keys: Vec<&str> = proof.checkpoint.keys.iter().map(String::as_str).collect();
    let signed = checkpoint::verify(&proof.checkpoint.note, &keys).unwrap();
    Tree { size: signed.size, root: signed.root }
}

async fn line(bench: &Bench, index: u64) -> [u8; 32] {
    leaf_hash(&bench.disk.get(Family::Leaves, place::leaf(TENANT, index)).await.unwrap().unwrap())
}

async fn tiles(bench: &Bench) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (from, to) = place::tiles_range(TENANT);
    let page = bench.disk.scan(Family::Tiles, Range { from, to, limit: usize::MAX }).await.unwrap();
    page.into_iter().map(|(key, tile)| (key.to_vec(), tile.to_vec())).collect()
}

async fn put(bench: &Bench, key: Vec<u8>, tile: Vec<u8>) {
    bench.disk.write(vec![Mutation::Put(Family::Tiles, key, tile)]).await.unwrap();
}

#[tokio::test]
async fn every_leaf_is_proved_and_the_log_only_grows() {
    let (bench, mut vault) = grown().await;
    let auditor = caller(Role::Auditor);
    let mut before: Option<Tree> = None;
    for round in 0..6 {
        vault.sign_anew(TENANT);
        let proof = vault.prove_leaf(&auditor, &prove_leaf(17 * round, 0)).await.unwrap();
        let now = signed(&proof);
        assert_eq!(proof.size, now.size);
        verify_inclusion(&proof.hashes, &now, 17 * round, line(&bench, 17 * round).await).unwrap();
        if let Some(before) = before {
            let growth = vault.prove_growth(&auditor, &prove_growth(before.size, now.size)).await.unwrap();
            verify_consistency(&growth.hashes, &before, &now).unwrap();
            let old = vault.prove_leaf(&auditor, &prove_leaf(5, before.size)).await.unwrap();
            verify_inclusion(&old.hashes, &before, 5, line(&bench, 5).await).unwrap();
        }
        before = Some(now);
        for number in 0..40 {
            store_one(&vault, "borrower.name", &format!("Bob {round} {number}"), "").await;
        }
        if round == 2 {
            vault.close().await;
            vault = bench.open().await;
        }
    }
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_hold_the_head_where_it_is() {
    let (bench, vault) = Bench::new().await;
    let auditor = caller(Role::Auditor);
    let before = signed(&vault.prove_leaf(&auditor, &prove_leaf(0, 0)).await.unwrap());
    bench.now.fetch_sub(3_600_000_000, Ordering::Relaxed);
    let begun = std::time::Instant::now();
    while signed(&vault.prove_leaf(&auditor, &prove_leaf(0, 0)).await.unwrap()).size == before.size {
        assert!(begun.elapsed().as_secs() < 30, "it stands still");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_proof_is_for_those_who_may_have_it_and_of_what_is_there() {
    let (_bench, vault) = Bench::new().await;
    let auditor = caller(Role::Auditor);
    for (index, size) in [(1_000, 0), (0, 1_000), (3, 3), (u64::MAX, 0), (0, u64::MAX)] {
        let refused = vault.prove_leaf(&auditor, &prove_leaf(index, size)).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{index} {size}");
    }
    for (from, to) in [(0, 0), (0, 2), (3, 2), (1, 1_000), (u64::MAX, u64::MAX)] {
        let refused = vault.prove_growth(&auditor, &prove_growth(from, to)).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{from} {to}");
    }
    assert!(vault.prove_leaf(&auditor, &ProveLeaf { log: "system".to_owned(), ..prove_leaf(0, 0) }).await.is_err());
    for role in [Role::App, Role::Privacy, Role::Rotator] {
        let refused = vault.prove_leaf(&caller(role), &prove_leaf(0, 0)).await;
        assert!(matches!(refused, Err(Error::Denied { .. })), "{role}");
    }
    let leaves = leaves(&vault).await;
    let asked = |decision: &str| {
        leaves.iter().filter(|leaf| leaf["action"] == "get_proof" && leaf["decision"] == decision).count()
    };
    assert_eq!((asked("deny"), asked("allow")), (4, 10));
}

#[tokio::test]
async fn tiles_that_were_changed_are_named_and_made_anew() {
    let (bench, vault) = grown().await;
    let auditor = caller(Role::Auditor);
    vault.prove_leaf(&auditor, &prove_leaf(0, 0)).await.unwrap();
    vault.follow_logs(None, u32::MAX).await.unwrap();
    vault.close().await;
    let good = tiles(&bench).await;
    // Two of level zero, one above them, and how far it has come.
    assert_eq!(good.len(), 4);
    for (key, tile) in &good {
        for fault in [Fault::Changed, Fault::Missing] {
            match fault {
                Fault::Changed => {
                    let mut wrong = tile.clone();
                    wrong[8] ^= 1;
                    put(&bench, key.clone(), wrong).await;
                }
                _ => bench.disk.write(vec![Mutation::Delete(Family::Tiles, key.clone())]).await.unwrap(),
            }
            let found = findings(&bench, &[]).await;
            assert!(!found.is_empty() && found.iter().all(|one| one.kind == Kind::Tile), "{fault:?} {key:?} {found:?}");
            let vault = bench.open().await;
            let proof = vault.prove_leaf(&auditor, &prove_leaf(3, 0)).await.unwrap();
            verify_inclusion(&proof.hashes, &signed(&proof), 3, line(&bench, 3).await).unwrap();
            let proof = vault.prove_leaf(&auditor, &prove_leaf(299, 0)).await.unwrap();
            verify_inclusion(&proof.hashes, &signed(&proof), 299, line(&bench, 299).await).unwrap();
            vault.follow_logs(None, u32::MAX).await.unwrap();
            vault.close().await;
            assert_eq!(findings(&bench, &[]).await, [], "made anew");
        }
    }
    put(&bench, place::tile(TENANT, 1, 5), vec![0; 32]).await;
    let found = findings(&bench, &[]).await;
    assert_eq!(found.iter().map(|one| (one.kind, one.fault)).collect::<Vec<_>>(), [(Kind::Tile, Fault::Added)]);
}

#[tokio::test]
async fn a_step_that_is_not_written_is_made_again() {
    let (bench, vault) = grown().await;
    let auditor = caller(Role::Auditor);
    for fate in [Fate::Lost, Fate::Stored] {
        store_one(&vault, "borrower.name", "Ann", "").await;
        bench.faults.fail_write(fate);
        assert!(vault.follow_logs(None, u32::MAX).await.is_err());
        recovered(&vault).await;
        vault.sign_anew(TENANT);
        let proof = vault.prove_leaf(&auditor, &prove_leaf(250, 0)).await.unwrap();
        verify_inclusion(&proof.hashes, &signed(&proof), 250, line(&bench, 250).await).unwrap();
    }
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

/// How many leaves a log's tiles have.
async fn tiled(bench: &Bench, log: TenantNo) -> u64 {
    let row = bench.disk.get(Family::Tiles, place::tiled(log)).await.unwrap();
    row.map_or(0, |row| place::decode_tiled(&row).unwrap())
}

#[tokio::test]
async fn logs_are_followed_a_few_steps_at_a_time_and_in_turn() {
    let (bench, vault) = Bench::new().await;
    let system = TenantNo(0);
    assert_eq!(vault.follow_logs(None, 1).await.unwrap(), Some(system));
    assert!(tiled(&bench, system).await > 0 && tiled(&bench, TENANT).await == 0);
    assert_eq!(vault.follow_logs(Some(system), 1).await.unwrap(), Some(TENANT));
    let size = vault.committer.head(TENANT).unwrap().size;
    assert_eq!(tiled(&bench, TENANT).await, size);
    assert_eq!(vault.follow_logs(Some(TENANT), 1).await.unwrap(), None, "all is done");
}

#[tokio::test]
async fn no_tile_is_made_on_a_disk_that_is_nearly_full() {
    let (bench, vault) = Bench::new().await;
    bench.full.store(true, Ordering::Relaxed);
    vault.look_at_space();
    assert_eq!(vault.follow_logs(None, u32::MAX).await.unwrap(), None);
    assert!(tiles(&bench).await.is_empty());
    bench.full.store(false, Ordering::Relaxed);
    vault.look_at_space();
    vault.follow_logs(None, u32::MAX).await.unwrap();
    assert!(!tiles(&bench).await.is_empty());
}

#[tokio::test]
async fn a_proof_does_not_wait_for_the_tiles_of_another_log() {
    let (_bench, vault) = Bench::new().await;
    let _busy = vault.tiling.of(TenantNo(0)).await;
    let (auditor, asked) = (caller(Role::Auditor), prove_leaf(0, 0));
    let proof = vault.prove_leaf(&auditor, &asked);
    tokio::time::timeout(std::time::Duration::from_secs(60), proof).await.unwrap().unwrap();
}
