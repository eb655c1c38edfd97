//! Leaves that somebody changed in good form, with and without the tiles over them: verification names each that it can.

use strongroom_ledger::leaf;
use strongroom_storage::rows::BLOCK;
use strongroom_storage::{Family, Mutation, Range, Store, keys as place};

use super::*;
use crate::{Fault, Finding, Kind, Place, ProveLeaf};

const TENANT: TenantNo = TenantNo(1);

/// A vault that is closed, with a log of some leaves more than a tile, all of them in tiles; and a checkpoint of an older state.
async fn closed() -> (Bench, String) {
    let (bench, vault) = grown().await;
    let auditor = caller(Role::Auditor);
    let checkpoint = vault.checkpoint(&auditor, "").await.unwrap().note;
    for number in 0..40 {
        store_one(&vault, "borrower.name", &format!("Bob {number}"), "").await;
    }
    vault.prove_leaf(&auditor, &ProveLeaf { index: 0, size: 0, log: String::new() }).await.unwrap();
    vault.follow_logs(None, u32::MAX).await.unwrap();
    vault.close().await;
    assert_eq!(findings(&bench, std::slice::from_ref(&checkpoint)).await, []);
    (bench, checkpoint)
}

async fn all(bench: &Bench, family: Family) -> Vec<(Vec<u8>, Vec<u8>)> {
    let from = TENANT.0.to_be_bytes().to_vec();
    let to = place::prefix_end(&from);
    let all = bench.disk.scan(family, Range { from, to, limit: usize::MAX }).await.unwrap();
    all.into_iter().map(|(key, row)| (key.to_vec(), row.to_vec())).collect()
}

async fn write(bench: &Bench, mutation: Mutation) {
    bench.disk.write(vec![mutation]).await.unwrap();
}

/// Changes a leaf in good form; answers how it is put back.
async fn change(bench: &Bench, index: u64) -> Mutation {
    let key = place::leaf(TENANT, index);
    let line = bench.disk.get(Family::Leaves, key.clone()).await.unwrap().unwrap().to_vec();
    let other = String::from_utf8(line.clone()).unwrap().replacen("\"client\":\"", "\"client\":\"x", 1);
    leaf::parse(other.as_bytes()).unwrap();
    write(bench, Mutation::Put(Family::Leaves, key.clone(), other.into_bytes())).await;
    Mutation::Put(Family::Leaves, key, line)
}

/// The leaves that are named as not those that were signed, and the ranges.
fn named(found: &[Finding]) -> (Vec<u64>, Vec<&str>) {
    let leaves = found.iter().filter_map(|one| match (one.kind, one.fault, &one.place) {
        (Kind::Leaf, Fault::Changed, Place::Leaf(leaf)) => Some(*leaf),
        _ => None,
    });
    let ranges = found.iter().filter(|one| one.kind == Kind::Log && one.what.contains("are not those that"));
    (leaves.collect(), ranges.map(|one| one.what.split(" are not").next().unwrap()).collect())
}

#[tokio::test]
async fn each_leaf_that_was_changed_is_named_once_whoever_signed_it() {
    let (bench, checkpoint) = closed().await;
    let last = all(&bench, Family::Leaves).await.len() as u64 - 1;
    assert!(last > BLOCK + 40);
    for leaves in [vec![0], vec![1], vec![255], vec![256], vec![last], vec![1, 2, 100, 255, 256, 300, last]] {
        let mut back = Vec::new();
        for leaf in &leaves {
            back.push(change(&bench, *leaf).await);
        }
        for checkpoints in [&[][..], std::slice::from_ref(&checkpoint)] {
            let found = findings(&bench, checkpoints).await;
            let (mut said, ranges) = named(&found);
            said.sort_unstable();
            assert_eq!((said, ranges), (leaves.clone(), vec![]), "{found:?}");
        }
        for mutation in back {
            write(&bench, mutation).await;
        }
    }
    assert_eq!(findings(&bench, &[checkpoint]).await, []);
}

#[tokio::test]
async fn a_leaf_that_was_changed_is_named_beside_one_that_is_missing() {
    let (bench, _) = closed().await;
    change(&bench, 7).await;
    change(&bench, 290).await;
    write(&bench, Mutation::Delete(Family::Leaves, place::leaf(TENANT, 5))).await;
    let found = findings(&bench, &[]).await;
    assert_eq!(named(&found), (vec![7, 290], vec![]), "{found:?}");
    let missing: Vec<_> = found.iter().filter(|one| one.fault == Fault::Missing).map(|one| one.place.clone()).collect();
    assert_eq!(missing, [Place::Leaf(5)], "and nothing else is called missing for it");
}

#[tokio::test]
async fn where_the_tile_over_a_leaf_was_changed_as_well_its_leaves_are_named_as_a_range() {
    let (bench, _) = closed().await;
    let (first, above) = (place::tile(TENANT, 0, 0), place::tile(TENANT, 1, 0));
    let tile = bench.disk.get(Family::Tiles, first.clone()).await.unwrap().unwrap().to_vec();
    let mut other = tile.clone();
    other[40] ^= 1;
    write(&bench, Mutation::Put(Family::Tiles, first.clone(), other)).await;
    // Leaves that nobody changed are not called so, whatever their tile says.
    let found = findings(&bench, &[]).await;
    assert!(!found.is_empty() && found.iter().all(|one| one.kind == Kind::Tile), "{found:?}");
    let back = change(&bench, 1).await;
    change(&bench, 300).await;
    let found = findings(&bench, &[]).await;
    assert_eq!(named(&found), (vec![300], vec!["leaves 0 to 255"]), "{found:?}");
    assert!(found.iter().any(|one| one.kind == Kind::Tile), "the tile is named, too");
    write(&bench, back).await;
    assert_eq!(named(&findings(&bench, &[]).await), (vec![300], vec![]));

    // The tile above is not needed where the head file has the same hash.
    write(&bench, Mutation::Put(Family::Tiles, first, tile)).await;
    write(&bench, Mutation::Delete(Family::Tiles, above)).await;
    change(&bench, 1).await;
    assert_eq!(named(&findings(&bench, &[]).await), (vec![1, 300], vec![]));
}

#[tokio::test]
async fn that_a_log_was_changed_is_said_though_its_tiles_cannot_be_read() {
    let (bench, _) = closed().await;
    change(&bench, 1).await;
    change(&bench, 300).await;
    let found = findings_damaged(&bench, Family::Tiles, place::tile(TENANT, 0, 0)).await;
    assert_eq!(named(&found), (vec![], vec!["leaves 0 to 255"]), "{found:?}");
    let unreadable = |one: &Finding| one.fault == Fault::Unreadable && one.what.contains("damaged in tiles");
    assert!(found.iter().any(unreadable), "{found:?}");
    assert!(found.iter().any(|one| one.what.contains("the log's head is not the head of its leaves")), "{found:?}");
}

#[tokio::test]
async fn what_the_head_file_explains_is_not_said_again_of_a_checkpoint_of_the_same_leaves() {
    let (bench, vault) = grown().await;
    // The last of an odd number is proven without tiles; whoever asks for a checkpoint adds one.
    while !vault.committer.head(TENANT).unwrap().size.is_multiple_of(2) {
        store_one(&vault, "borrower.name", "Bob", "").await;
    }
    vault.sign_anew(TENANT);
    let checkpoint = vault.checkpoint(&caller(Role::Auditor), "").await.unwrap().note;
    vault.close().await;
    let last = all(&bench, Family::Leaves).await.len() as u64 - 1;
    assert_eq!(checkpoint.lines().nth(1), Some((last + 1).to_string().as_str()), "it signs all of them");
    for (key, _) in all(&bench, Family::Tiles).await {
        write(&bench, Mutation::Delete(Family::Tiles, key)).await;
    }
    change(&bench, last).await;
    let found = findings(&bench, &[checkpoint]).await;
    assert_eq!(named(&found), (vec![last], vec![]), "{found:?}");
}

#[tokio::test]
async fn without_any_tile_the_head_file_says_between_which_leaves() {
    let (bench, _) = closed().await;
    for (key, _) in all(&bench, Family::Tiles).await {
        write(&bench, Mutation::Delete(Family::Tiles, key)).await;
    }
    assert_eq!(findings(&bench, &[]).await, []);
    change(&bench, 1).await;
    assert_eq!(named(&findings(&bench, &[]).await), (vec![], vec!["leaves 0 to 255"]));
}
