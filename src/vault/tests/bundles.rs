//! A log in bundles of leaves and tiles, as callers read it.

use bytes::Bytes;
use strongroom_ledger::tiles::TileId;
use strongroom_ledger::{checkpoint, leaf_hash};
use strongroom_storage::{Family, Mutation, Store, keys as place};

use super::*;
use crate::ReadBundle;

const TENANT: TenantNo = TenantNo(1);

fn bundle(log: &str, index: u64, width: usize) -> ReadBundle {
    ReadBundle { log: log.to_owned(), index, width }
}

/// The leaves of a bundle.
fn entries(mut bundle: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Some((length, rest)) = bundle.split_first_chunk::<2>() {
        let (line, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)));
        lines.push(line);
        bundle = rest;
    }
    lines
}

/// A bundle of the tenant's log, as the auditor.
async fn read_bundle(vault: &Tested, index: u64, width: usize) -> Result<Bytes, Error> {
    vault.read_bundle(&caller(Role::Auditor), &bundle("", index, width)).await
}

#[tokio::test]
async fn the_leaves_of_a_bundle_hash_to_its_tile_and_whoever_reads_them_has_exported_them() {
    let (_bench, vault) = grown().await;
    let auditor = caller(Role::Auditor);
    vault.sign_anew(TENANT);
    let size = checkpoint::claimed_size(&vault.checkpoint(&auditor, "").await.unwrap().note).unwrap();
    assert!((300..512).contains(&size));
    for (index, width) in [(0, 256), (0, 255), (0, 1), (1, size as usize - 256), (1, 1)] {
        let leaves_of = vault.read_bundle(&auditor, &bundle("demo", index, width)).await.unwrap();
        let hashes = vault.read_tile(&auditor, "", TileId { level: 0, index }, width).await.unwrap();
        let lines = entries(&leaves_of);
        assert_eq!((lines.len(), hashes.len()), (width, width * 32));
        for (line, hash) in lines.iter().zip(hashes.chunks(32)) {
            assert_eq!(leaf_hash(line), hash);
        }
        let written = leaves(&vault).await;
        let [.., exported, proved] = &written[..] else { panic!("{written:?}") };
        assert_eq!((&exported["action"], &exported["decision"]), (&"export_ledger".into(), &"allow".into()));
        let (first, end) = (index * 256, index * 256 + width as u64);
        assert_eq!(exported["detail"], serde_json::json!({ "first": first.to_string(), "end": end.to_string() }));
        assert_eq!(proved["action"], "get_proof");
        assert_eq!(proved["detail"]["tile"], TileId { level: 0, index }.path(width));
        for (line, leaf) in lines.iter().zip(&written[first as usize..]) {
            assert_eq!(serde_json::from_slice::<serde_json::Value>(line).unwrap(), *leaf);
        }
    }
    // The tile above them.
    assert_eq!(vault.read_tile(&auditor, "", TileId { level: 1, index: 0 }, 1).await.unwrap().len(), 32);
}

#[tokio::test]
async fn it_ends_where_the_signed_head_does_and_is_for_those_who_may_export() {
    let (_bench, vault) = grown().await;
    let auditor = caller(Role::Auditor);
    for (index, width) in [(1, 256), (1, 255), (2, 1), (u64::MAX, 1), (u64::MAX / 256, 256), (0, 0), (0, 257)] {
        match read_bundle(&vault, index, width).await {
            Err(Error::Invalid(why)) => assert!(why[0].description.contains("tile/entries/001.p/"), "{why:?}"),
            other => panic!("{index} {width}: {other:?}"),
        }
    }
    for (level, index, width) in [(0, 1, 255), (0, 2, 1), (1, 0, 2), (2, 0, 1), (63, u64::MAX, 256)] {
        let refused = vault.read_tile(&auditor, "", TileId { level, index }, width).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{level} {index} {width}");
    }
    for (log, role) in [("", Role::App), ("", Role::Rotator), ("system", Role::Auditor)] {
        let refused = vault.read_bundle(&caller(role), &bundle(log, 0, 1)).await;
        assert!(matches!(refused, Err(Error::Denied { .. })), "{log} {role}");
        let refused = vault.read_tile(&caller(role), log, TileId { level: 0, index: 0 }, 1).await;
        assert!(matches!(refused, Err(Error::Denied { .. })), "{log} {role}");
    }
    assert!(matches!(vault.read_bundle(&auditor, &bundle("other", 0, 1)).await, Err(Error::Invalid(_))));
    let full = Caller { room: Some(Arc::new(Full)), ..auditor };
    assert!(matches!(vault.read_bundle(&full, &bundle("", 0, 1)).await, Err(Error::Overloaded { .. })));
    let leaves = leaves(&vault).await;
    let exports = |decision: &str| {
        leaves.iter().filter(|leaf| leaf["action"] == "export_ledger" && leaf["decision"] == decision).count()
    };
    assert_eq!((exports("deny"), exports("fail"), exports("allow")), (3, 8, 0));
}

#[tokio::test]
async fn leaves_that_were_changed_on_the_disk_are_named_and_not_released() {
    let (bench, vault) = grown().await;
    let good = read_bundle(&vault, 0, 256).await.unwrap();
    let key = || place::leaf(TENANT, 100);
    let line = bench.disk.get(Family::Leaves, key()).await.unwrap().unwrap().to_vec();
    let other = String::from_utf8(line.clone()).unwrap().replace("app/tester", "app/nobody");
    bench.disk.write(vec![Mutation::Put(Family::Leaves, key(), other.into_bytes())]).await.unwrap();
    assert!(matches!(read_bundle(&vault, 0, 256).await, Err(Error::LeafChanged(100))));
    assert!(read_bundle(&vault, 0, 100).await.is_ok(), "those before it are what they were");
    bench.disk.write(vec![Mutation::Delete(Family::Leaves, key())]).await.unwrap();
    assert!(matches!(read_bundle(&vault, 0, 256).await, Err(Error::DataLoss(_))));
    bench.disk.write(vec![Mutation::Put(Family::Leaves, key(), line)]).await.unwrap();
    // A tile is made anew for who may have it.
    bench.disk.write(vec![Mutation::Put(Family::Tiles, place::tile(TENANT, 0, 0), vec![7; 256 * 32])]).await.unwrap();
    assert_eq!(read_bundle(&vault, 0, 256).await.unwrap(), good);
}

/// Room for whoever asks first, and how often it was asked for.
#[derive(Default)]
struct Little(std::sync::atomic::AtomicUsize);

impl AnswerRoom for Little {
    fn reserve(&self, _: usize) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst) == 0
    }
}

#[tokio::test]
async fn no_more_leaves_are_read_than_there_is_room_for() {
    let (_bench, vault) = grown().await;
    let little = Arc::new(Little::default());
    let room: Arc<dyn AnswerRoom> = Arc::<Little>::clone(&little);
    let auditor = Caller { room: Some(room), ..caller(Role::Auditor) };
    let refused = vault.read_bundle(&auditor, &bundle("", 0, 256)).await;
    assert!(matches!(refused, Err(Error::Overloaded { .. })), "{refused:?}");
    assert_eq!(little.0.load(Ordering::SeqCst), 2, "a part was read, and no more");
}
