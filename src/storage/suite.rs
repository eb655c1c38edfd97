//! What every store must keep, as tests that run over any of them. They panic where a store does not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{Entry, Family, KeyRange, Mutation, Range, Snapshot, Store};

/// Runs the whole suite; `fresh` makes an empty store each time.
pub async fn run<S: Store>(fresh: impl AsyncFn() -> S) {
    what_is_written_is_read(&fresh().await).await;
    a_batch_is_applied_in_order(&fresh().await).await;
    families_do_not_meet(&fresh().await).await;
    many_keys_are_answered_in_their_order(&fresh().await).await;
    a_scan_is_bounded_and_goes_on(&fresh().await).await;
    a_snapshot_does_not_change(&fresh().await).await;
    a_purged_range_is_gone_and_its_neighbours_are_not(&fresh().await).await;
    a_scrubbed_range_is_as_it_was(&fresh().await).await;
    what_was_written_is_there_after_reopening(&fresh().await).await;
    it_agrees_with_a_sorted_map(&fresh().await).await;
}

fn put(family: Family, key: &[u8], value: &[u8]) -> Mutation {
    Mutation::Put(family, key.to_vec(), value.to_vec())
}

fn delete(family: Family, key: &[u8]) -> Mutation {
    Mutation::Delete(family, key.to_vec())
}

fn range(from: &[u8], to: &[u8], limit: usize) -> Range {
    Range { from: from.to_vec(), to: to.to_vec(), limit }
}

async fn value(store: &impl Store, family: Family, key: &[u8]) -> Option<Bytes> {
    store.get(family, key.to_vec()).await.unwrap()
}

fn keys(entries: &[Entry]) -> Vec<&[u8]> {
    entries.iter().map(|(key, _)| &key[..]).collect()
}

async fn what_is_written_is_read(store: &impl Store) {
    assert_eq!(value(store, Family::Rows, b"a").await, None);
    store.write(vec![put(Family::Rows, b"a", b"1"), put(Family::Rows, b"empty", b"")]).await.unwrap();
    assert_eq!(value(store, Family::Rows, b"a").await.as_deref(), Some(&b"1"[..]));
    assert_eq!(value(store, Family::Rows, b"empty").await.as_deref(), Some(&b""[..]));
    assert_eq!(value(store, Family::Rows, b"").await, None);
    let large = vec![7; 200_000];
    store.write(vec![put(Family::Rows, b"a", &large), delete(Family::Rows, b"empty")]).await.unwrap();
    assert_eq!(value(store, Family::Rows, b"a").await.as_deref(), Some(&large[..]));
    assert_eq!(value(store, Family::Rows, b"empty").await, None);
    store.write(vec![delete(Family::Rows, b"never there")]).await.unwrap();
    store.write(vec![]).await.unwrap();
}

async fn a_batch_is_applied_in_order(store: &impl Store) {
    let family = Family::Meta;
    let batch = vec![
        put(family, b"a", b"1"),
        put(family, b"a", b"2"),
        put(family, b"b", b"1"),
        delete(family, b"b"),
        delete(family, b"c"),
        put(family, b"c", b"1"),
    ];
    store.write(batch).await.unwrap();
    assert_eq!(value(store, family, b"a").await.as_deref(), Some(&b"2"[..]));
    assert_eq!(value(store, family, b"b").await, None);
    assert_eq!(value(store, family, b"c").await.as_deref(), Some(&b"1"[..]));
}

async fn families_do_not_meet(store: &impl Store) {
    let batch = Family::ALL.iter().map(|family| put(*family, b"key", family.name().as_bytes())).collect();
    store.write(batch).await.unwrap();
    for family in Family::ALL {
        assert_eq!(value(store, family, b"key").await.as_deref(), Some(family.name().as_bytes()));
        assert_eq!(store.scan(family, range(b"", b"", 10)).await.unwrap().len(), 1);
    }
}

async fn many_keys_are_answered_in_their_order(store: &impl Store) {
    let batch = (0..3_000_u32).filter(|n| n % 3 != 0).map(|n| put(Family::Rows, &n.to_be_bytes(), &n.to_le_bytes()));
    store.write(batch.collect()).await.unwrap();
    for count in [0, 1, 40, 3_000_u32] {
        // Not sorted, and each key twice.
        let wanted: Vec<u32> = (0..count).rev().chain(0..count).collect();
        let found =
            store.multi_get(Family::Rows, wanted.iter().map(|n| n.to_be_bytes().to_vec()).collect()).await.unwrap();
        assert_eq!(found.len(), wanted.len());
        for (n, found) in wanted.iter().zip(found) {
            let expected = (n % 3 != 0).then(|| Bytes::copy_from_slice(&n.to_le_bytes()));
            assert_eq!(found, expected);
        }
    }
}

async fn a_scan_is_bounded_and_goes_on(store: &impl Store) {
    let family = Family::SubjectRows;
    let batch = (0..1_000_u16).map(|n| put(family, &n.to_be_bytes(), b"")).collect();
    store.write(batch).await.unwrap();
    let page = store.scan(family, range(&[0, 10], &[0, 13], 100)).await.unwrap();
    assert_eq!(keys(&page), [[0, 10], [0, 11], [0, 12]]);
    assert_eq!(store.scan(family, range(&[0, 10], &[0, 13], 2)).await.unwrap().len(), 2);
    assert!(store.scan(family, range(&[0, 10], &[0, 13], 0)).await.unwrap().is_empty());
    assert!(store.scan(family, range(&[0, 10], &[0, 10], 9)).await.unwrap().is_empty());
    assert!(store.scan(family, range(&[0, 10], &[0, 9], 9)).await.unwrap().is_empty());
    assert!(store.scan(family, range(&[9], &[], 9)).await.unwrap().is_empty());
    let (mut from, mut seen) = (vec![], 0_u16);
    loop {
        let page = store.scan(family, range(&from, &[], 64)).await.unwrap();
        for key in keys(&page) {
            assert_eq!(key, seen.to_be_bytes());
            seen += 1;
        }
        let Some((last, _)) = page.last() else { break };
        from = [last, &[0][..]].concat();
    }
    assert_eq!(seen, 1_000);
}

async fn a_snapshot_does_not_change(store: &impl Store) {
    let family = Family::Leaves;
    store.write(vec![put(family, b"a", b"1"), put(family, b"b", b"1")]).await.unwrap();
    let before = store.snapshot().await.unwrap();
    store.write(vec![put(family, b"a", b"2"), delete(family, b"b"), put(family, b"c", b"2")]).await.unwrap();
    let after = store.snapshot().await.unwrap();
    assert_eq!(before.get(family, b"a".to_vec()).await.unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(before.get(family, b"c".to_vec()).await.unwrap(), None);
    assert_eq!(keys(&before.scan(family, range(b"", b"", 9)).await.unwrap()), [b"a", b"b"]);
    assert_eq!(keys(&before.scan(family, range(b"", b"", 1)).await.unwrap()), [b"a"]);
    assert_eq!(keys(&before.scan(family, range(b"aa", b"c", 9)).await.unwrap()), [b"b"]);
    assert_eq!(keys(&after.scan(family, range(b"", b"", 9)).await.unwrap()), [b"a", b"c"]);
}

async fn a_purged_range_is_gone_and_its_neighbours_are_not(store: &impl Store) {
    let family = Family::Index;
    let batch = |family| (0..100_u8).map(move |n| put(family, &[n], &[n])).collect();
    store.write(batch(family)).await.unwrap();
    store.write(batch(Family::Rows)).await.unwrap();
    store.purge(family, vec![10], vec![20]).await.unwrap();
    store.purge(family, vec![30], vec![30]).await.unwrap();
    store.purge(family, vec![50], vec![40]).await.unwrap();
    store.purge(family, vec![90], vec![]).await.unwrap();
    let left = store.scan(family, range(b"", b"", 1_000)).await.unwrap();
    let expected: Vec<[u8; 1]> = (0..10).chain(20..90).map(|n| [n]).collect();
    assert_eq!(keys(&left), expected);
    assert_eq!(store.scan(Family::Rows, range(b"", b"", 1_000)).await.unwrap().len(), 100);
    store.write(vec![put(family, &[15], b"new")]).await.unwrap();
    assert_eq!(value(store, family, &[15]).await.as_deref(), Some(&b"new"[..]));
    store.purge(family, vec![], vec![]).await.unwrap();
    assert!(store.scan(family, range(b"", b"", 1)).await.unwrap().is_empty());
    store.purge(family, vec![], vec![]).await.unwrap();
}

async fn a_scrubbed_range_is_as_it_was(store: &impl Store) {
    let family = Family::Index;
    store.write((0..100_u8).map(|n| put(family, &[n], &[n])).collect()).await.unwrap();
    store.write((0..100_u8).step_by(2).map(|n| delete(family, &[n])).collect()).await.unwrap();
    let ranges = [(vec![10], vec![20]), (vec![30], vec![30]), (vec![50], vec![40]), (vec![90], vec![])];
    for (from, to) in ranges.clone() {
        store.scrub(vec![KeyRange { family, from, to }]).await.unwrap();
    }
    store.scrub(ranges.map(|(from, to)| KeyRange { family, from, to }).to_vec()).await.unwrap();
    store.scrub(vec![]).await.unwrap();
    let left = store.scan(family, range(b"", b"", 1_000)).await.unwrap();
    let expected: Vec<[u8; 1]> = (1..100).step_by(2).map(|n| [n]).collect();
    assert_eq!(keys(&left), expected);
}

async fn what_was_written_is_there_after_reopening(store: &impl Store) {
    for round in 0..3_u8 {
        store.write(vec![put(Family::Subjects, &[round], &[round])]).await.unwrap();
        store.reopen().await.unwrap();
        let entries = store.scan(Family::Subjects, range(b"", b"", 9)).await.unwrap();
        assert_eq!(entries.len(), usize::from(round) + 1);
    }
}

async fn it_agrees_with_a_sorted_map(store: &impl Store) {
    let family = Family::Holders;
    let mut map: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut seed = 1_u64;
    let mut roll = |sides: u64| {
        // The constants of Knuth's MMIX.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % sides
    };
    for step in 0..400 {
        let mut batch = Vec::new();
        for _ in 0..roll(20) {
            // Few short keys, so that they meet and are prefixes of one another.
            let key: Vec<u8> = (0..roll(4)).map(|_| [0, 1, 0x7f, 0xff][roll(4) as usize]).collect();
            if roll(3) == 0 {
                map.remove(&key);
                batch.push(Mutation::Delete(family, key));
            } else {
                let value = (step as u32).to_be_bytes().to_vec();
                map.insert(key.clone(), value.clone());
                batch.push(Mutation::Put(family, key, value));
            }
        }
        store.write(batch).await.unwrap();
        if step % 100 == 99 {
            store.reopen().await.unwrap();
        }
        let from: Vec<u8> = (0..roll(3)).map(|_| [0, 1, 0x7f, 0xff][roll(4) as usize]).collect();
        let limit = roll(30) as usize;
        let found = store.scan(family, Range { from: from.clone(), to: vec![], limit }).await.unwrap();
        let expected: Vec<(&Vec<u8>, &Vec<u8>)> = map.range(from..).take(limit).collect();
        assert_eq!(found.len(), expected.len());
        for ((key, value), (expected_key, expected_value)) in found.iter().zip(expected) {
            assert_eq!((&key[..], &value[..]), (&expected_key[..], &expected_value[..]));
        }
    }
}
