//! What anybody may read of a log that is published.

use bytes::Bytes;
use strongroom_ledger::checkpoint;
use strongroom_ledger::tiles::{Edge, TileId};
use strongroom_storage::{Family, Mutation, Store, keys as place};

use super::*;

const TENANT: TenantNo = TenantNo(1);
const NAME: &str = "demo";

/// How many leaves the published head has, and its root.
async fn head(vault: &Tested) -> (u64, [u8; 32]) {
    let note = vault.published_head(NAME).await.unwrap().unwrap();
    let keys = vault.checkpoint(&caller(Role::Auditor), "").await.unwrap().keys;
    let signed = checkpoint::verify(&note, &[keys[0].as_str()]).unwrap();
    (signed.size, signed.root)
}

async fn tile(vault: &Tested, level: u8, index: u64, width: usize) -> Option<Bytes> {
    vault.published_tile(NAME, TileId { level, index }, width).await.unwrap()
}

#[tokio::test]
async fn every_tile_of_the_published_head_is_there_and_leads_to_it() {
    let (_bench, vault) = grown().await;
    let (size, root) = head(&vault).await;
    assert!((300..512).contains(&size));
    let rest = size as usize - 256;
    let (first, last) = (tile(&vault, 0, 0, 256).await.unwrap(), tile(&vault, 0, 1, rest).await.unwrap());
    let above = tile(&vault, 1, 0, 1).await.unwrap();
    assert_eq!((first.len(), last.len(), above.len()), (256 * 32, rest * 32, 32));
    let given = |id: TileId| match (id.level, id.index) {
        (0, 1) => Some(&*last),
        (1, 0) => Some(&*above),
        _ => None,
    };
    let edge = Edge::open(size, given).unwrap();
    assert_eq!((edge.root(), Edge::root_of(&first).unwrap().as_slice()), (root, &*above));
    // Narrower ones are the beginnings of those, also of one that is complete by now.
    assert_eq!(tile(&vault, 0, 1, 7).await.unwrap(), last.slice(..7 * 32));
    assert_eq!(tile(&vault, 0, 0, 255).await.unwrap(), first.slice(..255 * 32));
}

#[tokio::test]
async fn what_is_not_in_the_tree_is_not_there() {
    let (_bench, vault) = grown().await;
    let (size, _) = head(&vault).await;
    for (level, index, width) in [
        (0, 1, 256),
        // Nor will it be while the log is as short as in this test.
        (0, 1, 255),
        (0, 2, 1),
        (1, 0, 2),
        (1, 1, 1),
        (2, 0, 1),
        (63, 0, 1),
        (0, u64::MAX, 1),
        (5, u64::MAX >> 8, 256),
        (63, u64::MAX, 256),
    ] {
        assert!(size < 500);
        assert_eq!(tile(&vault, level, index, width).await, None, "{level} {index} {width}");
    }
    for tenant in ["nobody", "", "Demo"] {
        assert!(vault.published_head(tenant).await.unwrap().is_none());
        assert!(vault.published_tile(tenant, TileId { level: 0, index: 0 }, 1).await.unwrap().is_none());
    }
    assert!(vault.published_head("system").await.unwrap().unwrap().starts_with("strongroom/"));
}

#[tokio::test]
async fn whoever_reads_it_leaves_nothing_in_the_log() {
    let (_bench, vault) = grown().await;
    let before = vault.committer.head(TENANT).unwrap().size;
    for _ in 0..50 {
        assert!(vault.published_head(NAME).await.unwrap().is_some());
        assert!(tile(&vault, 0, 0, 256).await.is_some());
    }
    assert_eq!(vault.committer.head(TENANT).unwrap().size, before);
}

#[tokio::test]
async fn a_tile_that_was_changed_is_not_published_and_is_made_anew_by_the_vault_itself() {
    let (bench, vault) = grown().await;
    let good = tile(&vault, 0, 0, 256).await.unwrap();
    let key = || place::tile(TENANT, 0, 0);
    let mut wrong = good.to_vec();
    wrong[0] ^= 1;
    for mutation in [Mutation::Put(Family::Tiles, key(), wrong), Mutation::Delete(Family::Tiles, key())] {
        bench.disk.write(vec![mutation]).await.unwrap();
        let there = bench.disk.get(Family::Tiles, key()).await.unwrap();
        for _ in 0..2 {
            let refused = vault.published_tile(NAME, TileId { level: 0, index: 0 }, 256).await;
            assert!(matches!(refused, Err(Error::DataLoss(_))), "{refused:?}");
        }
        assert_eq!(bench.disk.get(Family::Tiles, key()).await.unwrap(), there, "a stranger has nothing written");
        vault.follow_logs(None, u32::MAX).await.unwrap();
        assert_eq!(tile(&vault, 0, 0, 256).await.unwrap(), good);
        assert_eq!(bench.disk.get(Family::Tiles, key()).await.unwrap().unwrap(), good);
    }
}

#[tokio::test]
async fn tiles_that_were_made_anew_in_vain_are_left_as_they_are() {
    let (bench, vault) = grown().await;
    tile(&vault, 0, 0, 256).await.unwrap();
    let leaf = place::leaf(TENANT, 5);
    let line = bench.disk.get(Family::Leaves, leaf.clone()).await.unwrap().unwrap();
    bench.disk.write(vec![Mutation::Put(Family::Leaves, leaf.clone(), b"{}".to_vec())]).await.unwrap();
    bench.disk.write(vec![Mutation::Delete(Family::Tiles, place::tile(TENANT, 0, 0))]).await.unwrap();
    let request = || crate::ProveLeaf { index: 9, size: 0, log: String::new() };
    let prove = async || vault.prove_leaf(&caller(Role::Auditor), &request()).await.map(drop);
    assert!(matches!(prove().await, Err(Error::DataLoss(_))));
    // What a purge would take away.
    let marked = || place::tile(TENANT, 40, 0);
    bench.disk.write(vec![Mutation::Put(Family::Tiles, marked(), vec![1])]).await.unwrap();
    for _ in 0..3 {
        store_one(&vault, "borrower.name", "Ann", "").await;
        assert!(matches!(prove().await, Err(Error::DataLoss(_))));
        assert!(vault.published_tile(NAME, TileId { level: 0, index: 0 }, 256).await.is_err());
        vault.follow_logs(None, u32::MAX).await.unwrap();
    }
    assert!(bench.disk.get(Family::Tiles, marked()).await.unwrap().is_some());
    // Whoever mends the leaf starts the vault again.
    bench.disk.write(vec![Mutation::Put(Family::Leaves, leaf, line.to_vec())]).await.unwrap();
    vault.close().await;
    let vault = bench.open().await;
    assert!(vault.prove_leaf(&caller(Role::Auditor), &request()).await.is_ok());
}

#[tokio::test]
async fn strangers_are_shown_what_is_tiled_and_have_no_tile_written() {
    let (bench, vault) = grown().await;
    let first = vault.published_head(NAME).await.unwrap();
    let tiled = async || bench.disk.get(Family::Tiles, place::tiled(TENANT)).await.unwrap();
    let before = tiled().await;
    for number in 0..20 {
        store_one(&vault, "borrower.name", &format!("Bob {number}"), "").await;
    }
    vault.sign_anew(TENANT);
    // Whoever makes proofs or tiles has these meanwhile.
    let held = vault.tiling.of(TENANT).await;
    assert_eq!(vault.published_head(NAME).await.unwrap(), first);
    assert!(tile(&vault, 0, 0, 256).await.is_some());
    assert_eq!(tiled().await, before);
    drop(held);
    vault.follow_logs(None, u32::MAX).await.unwrap();
    assert_ne!(vault.published_head(NAME).await.unwrap(), first);
    assert_ne!(tiled().await, before);
    // What is written can be read on a disk that is nearly full.
    bench.full.store(true, Ordering::Relaxed);
    vault.look_at_space();
    assert!(vault.published_head(NAME).await.is_ok() && tile(&vault, 0, 0, 256).await.is_some());
}

#[tokio::test]
async fn on_a_disk_that_is_nearly_full_strangers_have_nothing_written() {
    let (bench, vault) = grown().await;
    bench.full.store(true, Ordering::Relaxed);
    vault.look_at_space();
    assert!(matches!(vault.published_head(NAME).await, Err(Error::DiskFull)));
    let refused = vault.published_tile(NAME, TileId { level: 0, index: 0 }, 1).await;
    assert!(matches!(refused, Err(Error::DiskFull)));
}
