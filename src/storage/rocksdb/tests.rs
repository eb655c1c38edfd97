//! What the embedded store keeps beyond what every store must: on a folder that is missing, damaged or closed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rocksdb::{DB, Options};
use strongroom_storage::{Family, KeyRange, Mutation, Range, Snapshot, Store, StoreError, suite};
use tempfile::TempDir;

use crate::{RocksOptions, RocksReader, RocksStore};

fn small() -> RocksOptions {
    RocksOptions { block_cache: 1 << 20, write_buffers: 8 << 20, ..RocksOptions::default() }
}

fn fresh() -> (TempDir, RocksStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksStore::create(dir.path(), small()).unwrap();
    (dir, store)
}

fn put(family: Family, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Mutation {
    Mutation::Put(family, key.as_ref().to_vec(), value.as_ref().to_vec())
}

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = all.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    files.sort();
    files
}

fn contains(file: &Path, needle: &[u8]) -> bool {
    fs::read(file).unwrap().windows(needle.len()).any(|window| window == needle)
}

/// Values that no compression shrinks.
fn noise(n: u32) -> Vec<u8> {
    let mut state = u64::from(n) + 1;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..100).map(step).collect()
}

fn everything() -> Range {
    Range { from: vec![], to: vec![], limit: 100_000 }
}

#[tokio::test]
async fn it_keeps_what_every_store_must() {
    let mut folders = Vec::new();
    let folder = std::cell::RefCell::new(&mut folders);
    suite::run(async || {
        let (dir, store) = fresh();
        folder.borrow_mut().push(dir);
        store
    })
    .await;
}

#[tokio::test]
async fn a_key_that_is_nowhere_is_never_taken_for_an_empty_value() {
    let dir = tempfile::tempdir().unwrap();
    // Of many blocks few stay in memory, so a look-up that goes on in the next block seldom finds it there.
    let store = RocksStore::create(dir.path(), RocksOptions { block_cache: 64 << 10, ..small() }).unwrap();
    let key = |n: u32| n.to_be_bytes().to_vec();
    let batch = (0..20_000).map(|n| put(Family::Rows, key(2 * n), noise(n))).collect();
    store.write(batch).await.unwrap();
    store.flush_and_compact().await.unwrap();
    store.reopen().await.unwrap();
    let numbers: Vec<u32> = (0..40_000).collect();
    for some in numbers.chunks(200) {
        let values = store.multi_get(Family::Rows, some.iter().map(|n| key(*n)).collect()).await.unwrap();
        for (n, value) in some.iter().zip(values) {
            assert_eq!(value.as_deref(), n.is_multiple_of(2).then(|| noise(n / 2)).as_deref(), "{n}");
        }
    }
}

#[tokio::test]
async fn what_is_not_in_memory_is_read_from_disk() {
    let (_dir, store) = fresh();
    let batch = (0..5_000_u32).map(|n| put(Family::Rows, n.to_be_bytes(), noise(n))).collect();
    store.write(batch).await.unwrap();
    store.flush_and_compact().await.unwrap();
    store.reopen().await.unwrap();
    for n in [0, 17, 4_999_u32] {
        let value = store.get(Family::Rows, n.to_be_bytes().to_vec()).await.unwrap().unwrap();
        assert_eq!(value, noise(n));
    }
    assert_eq!(store.get(Family::Rows, vec![9]).await.unwrap(), None);
    store.reopen().await.unwrap();
    // Some of these are in memory by now, others not, others nowhere.
    store.get(Family::Rows, 40_u32.to_be_bytes().to_vec()).await.unwrap().unwrap();
    let keys = (0..200_u32).map(|n| (n * 40).to_be_bytes().to_vec()).collect();
    for (n, value) in store.multi_get(Family::Rows, keys).await.unwrap().into_iter().enumerate() {
        let n = n as u32 * 40;
        assert_eq!(value.map(|value| value.to_vec()), (n < 5_000).then(|| noise(n)), "{n}");
    }
    store.reopen().await.unwrap();
    let range = Range { from: 100_u32.to_be_bytes().to_vec(), to: 110_u32.to_be_bytes().to_vec(), limit: 100 };
    assert_eq!(store.scan(Family::Rows, range).await.unwrap().len(), 10);
    assert!(store.memory().block_cache > 0);
    assert!(store.disk_usage() > 500_000);
}

#[tokio::test]
async fn a_store_is_made_in_an_empty_folder_only() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("000004.sst"), b"what an accident left").unwrap();
    let error = RocksStore::create(dir.path(), small()).err().unwrap().to_string();
    assert!(error.contains("is not empty"), "{error}");
    let (dir, store) = fresh();
    drop(store);
    assert!(RocksStore::create(dir.path(), small()).is_err());
    let inside = dir.path().join("not/yet");
    drop(RocksStore::create(&inside, small()).unwrap());
    assert_eq!(fs::metadata(&inside).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_missing_folder_is_an_error_and_stays_missing() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("data");
    let error = RocksStore::open(&missing, small()).err().unwrap();
    assert!(matches!(error, StoreError::Corrupt { .. }));
    assert!(error.to_string().contains("holds no store"), "{error}");
    assert!(!missing.exists());
    let (dir, store) = fresh();
    drop(store);
    fs::remove_file(dir.path().join("CURRENT")).unwrap();
    assert!(matches!(RocksStore::open(dir.path(), small()), Err(StoreError::Corrupt { .. })));
    assert!(!dir.path().join("CURRENT").exists());
}

/// Drops a family of a store that is closed.
fn drop_family(dir: &TempDir, name: &str) {
    let mut db = DB::open_cf(&Options::default(), dir.path(), Family::ALL.map(Family::name)).unwrap();
    db.drop_cf(name).unwrap();
}

#[tokio::test]
async fn a_missing_family_is_an_error_that_names_it() {
    let (dir, store) = fresh();
    drop(store);
    drop_family(&dir, "holders");
    let error = RocksStore::open(dir.path(), small()).err().unwrap().to_string();
    assert!(error.contains("holders"), "{error}");
}

#[tokio::test]
async fn a_family_that_earlier_versions_did_not_have_is_made() {
    let (dir, store) = fresh();
    store.write(vec![put(Family::Leaves, b"1", noise(1))]).await.unwrap();
    drop(store);
    drop_family(&dir, "leaf_index");
    let store = RocksStore::open(dir.path(), small()).unwrap();
    assert!(store.scan(Family::LeafIndex, everything()).await.unwrap().is_empty());
    store.write(vec![put(Family::LeafIndex, b"1", b"")]).await.unwrap();
    assert_eq!(store.get(Family::Leaves, b"1".to_vec()).await.unwrap().unwrap(), noise(1));
    drop(store);
    let store = RocksStore::open(dir.path(), small()).unwrap();
    assert_eq!(store.scan(Family::LeafIndex, everything()).await.unwrap().len(), 1);
}

/// The names and bytes of all files of a folder.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    files(dir, "").into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

#[tokio::test]
async fn a_store_that_is_open_is_read_as_it_was_at_one_moment() {
    let (dir, store) = fresh();
    let all = |store: RocksReader| async move {
        let entries = Store::scan(&store, Family::Rows, everything()).await.unwrap();
        entries.into_iter().map(|(_, value)| value.to_vec()).collect::<Vec<_>>()
    };
    let mut expected = Vec::new();
    for n in 0..400_u32 {
        store.write(vec![put(Family::Rows, n.to_be_bytes(), noise(n))]).await.unwrap();
        expected.push(noise(n));
        // Some are in files, some in the log.
        if n == 200 {
            store.flush_and_compact().await.unwrap();
        }
    }
    let reader = RocksReader::open(dir.path(), &small()).unwrap();
    assert_eq!(all(reader.clone()).await, expected);
    // Files that it reads go, and others come.
    let before = files(dir.path(), ".sst");
    store.write((0..400_u32).map(|n| put(Family::Rows, n.to_be_bytes(), b"later")).collect()).await.unwrap();
    store.flush_and_compact().await.unwrap();
    assert!(files(dir.path(), ".sst").iter().all(|file| !before.contains(file)), "none is left");
    assert_eq!(all(reader.clone()).await, expected);
    let keys = (0..500_u32).map(|n| n.to_be_bytes().to_vec()).collect();
    let values = reader.multi_get(Family::Rows, keys).await.unwrap();
    assert!(values.iter().zip(0..).all(|(value, n)| value.as_deref() == (n < 400).then(|| noise(n)).as_deref()));
    let snapshot = reader.snapshot().await.unwrap();
    assert_eq!(Snapshot::get(&snapshot, Family::Rows, vec![0; 4]).await.unwrap().unwrap(), noise(0));
    assert_eq!(Store::get(&reader, Family::Rows, vec![9]).await.unwrap(), None);
    let newest = RocksReader::open(dir.path(), &small()).unwrap();
    assert_eq!(all(newest).await, vec![b"later".to_vec(); 400]);
    store.write(vec![put(Family::Rows, b"key", b"still written")]).await.unwrap();
}

#[tokio::test]
async fn who_only_reads_writes_nothing_and_refuses_to() {
    let (dir, store) = fresh();
    store.write(vec![put(Family::Rows, b"1", noise(1))]).await.unwrap();
    drop(store);
    let before = contents(dir.path());
    let reader = RocksReader::open(dir.path(), &small()).unwrap();
    assert_eq!(Store::get(&reader, Family::Rows, b"1".to_vec()).await.unwrap().unwrap(), noise(1));
    let refused = [
        reader.write(vec![put(Family::Rows, b"1", b"2")]).await,
        reader.purge(Family::Rows, vec![], vec![]).await,
        reader.reopen().await,
    ];
    for refused in refused {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("opened for reading only"), "{error}");
    }
    drop(reader);
    assert!(contents(dir.path()) == before, "files of the folder have changed");
    // It keeps nobody from opening the store, and nobody keeps it.
    let reader = RocksReader::open(dir.path(), &small()).unwrap();
    let store = RocksStore::open(dir.path(), small()).unwrap();
    drop(RocksReader::open(dir.path(), &small()).unwrap());
    drop((reader, store));
}

#[tokio::test]
async fn what_is_read_while_files_come_and_go_is_of_one_moment() {
    let (dir, store) = fresh();
    let last = |n: u32| {
        [Family::Meta, Family::Holders]
            .map(|family| put(family, b"last", n.to_be_bytes()))
            .into_iter()
            .chain([put(Family::Rows, n.to_be_bytes(), noise(n)), put(Family::Leaves, n.to_be_bytes(), noise(n))])
    };
    store.write(last(0).collect()).await.unwrap();
    let done = AtomicBool::new(false);
    let runtime = tokio::runtime::Handle::current();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            runtime.block_on(async {
                for n in 1.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    store.write(last(n).collect()).await.unwrap();
                    if n % 40 == 0 {
                        store.flush_and_compact().await.unwrap();
                    }
                }
            });
        });
        let reads = scope.spawn(|| {
            // However it ends, the other ends too.
            let _done = SetWhenDropped(&done);
            let mut seen = Vec::new();
            for _ in 0..40 {
                // It says so when files go faster than it can open them.
                let Ok(reader) = RocksReader::open(dir.path(), &small()) else { continue };
                seen.push(runtime.block_on(one_moment(&reader)));
            }
            seen
        });
        let seen = reads.join().unwrap();
        assert!(!seen.is_empty() && seen.is_sorted(), "{seen:?}");
    });
}

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Which write was the last, of which all must be there that went before.
async fn one_moment(reader: &RocksReader) -> u32 {
    let mut lasts = Vec::new();
    for family in [Family::Meta, Family::Holders] {
        let last = Store::get(reader, family, b"last".to_vec()).await.unwrap().unwrap();
        lasts.push(u32::from_be_bytes(last[..].try_into().unwrap()));
    }
    for family in [Family::Rows, Family::Leaves] {
        let all = Range { limit: usize::MAX, ..everything() };
        let entries = Store::scan(reader, family, all).await.unwrap();
        assert!(entries.iter().zip(0_u32..).all(|((key, _), n)| **key == n.to_be_bytes()), "one is missing");
        lasts.push(u32::try_from(entries.len()).unwrap() - 1);
    }
    assert!(lasts.iter().all(|last| *last == lasts[0]), "{lasts:?}");
    lasts[0]
}

#[tokio::test]
async fn a_family_that_earlier_versions_did_not_have_is_read_as_empty() {
    let (dir, store) = fresh();
    store.write(vec![put(Family::Leaves, b"1", noise(1))]).await.unwrap();
    drop(store);
    drop_family(&dir, "leaf_index");
    let reader = RocksReader::open(dir.path(), &small()).unwrap();
    assert!(Store::scan(&reader, Family::LeafIndex, everything()).await.unwrap().is_empty());
    assert_eq!(reader.multi_get(Family::LeafIndex, vec![vec![1], vec![2]]).await.unwrap(), [None, None]);
    assert_eq!(Store::get(&reader, Family::LeafIndex, vec![1]).await.unwrap(), None);
    assert_eq!(Store::get(&reader, Family::Leaves, b"1".to_vec()).await.unwrap().unwrap(), noise(1));
}

#[tokio::test]
async fn a_folder_without_a_store_or_with_a_damaged_one_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    for folder in [dir.path(), &missing] {
        let error = RocksReader::open(folder, &small()).err().unwrap().to_string();
        assert!(error.contains("holds no store"), "{error}");
    }
    assert!(!missing.exists());
    let (dir, store) = fresh();
    store.write(vec![put(Family::Rows, b"1", noise(1))]).await.unwrap();
    store.flush_and_compact().await.unwrap();
    drop(store);
    for file in files(dir.path(), ".sst") {
        fs::remove_file(file).unwrap();
    }
    assert!(matches!(RocksReader::open(dir.path(), &small()), Err(StoreError::Corrupt { .. })));
}

#[tokio::test]
async fn a_folder_is_opened_once_at_a_time() {
    let (dir, store) = fresh();
    assert!(matches!(RocksStore::open(dir.path(), small()), Err(StoreError::Io { doing: "open", .. })));
    drop(store);
    assert!(RocksStore::open(dir.path(), small()).is_ok());
}

#[tokio::test]
async fn a_torn_tail_of_the_log_loses_the_torn_write_only() {
    let (dir, store) = fresh();
    store.write(vec![put(Family::Leaves, b"1", noise(1))]).await.unwrap();
    store.write(vec![put(Family::Leaves, b"2", noise(2))]).await.unwrap();
    drop(store);
    let log = files(dir.path(), ".log").pop().unwrap();
    let bytes = fs::read(&log).unwrap();
    let at = bytes.windows(100).position(|window| window == noise(2)).unwrap();
    fs::write(&log, &bytes[..at + 50]).unwrap();
    let store = RocksStore::open(dir.path(), small()).unwrap();
    let left = store.scan(Family::Leaves, everything()).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].1, noise(1));
}

#[tokio::test]
async fn a_log_that_is_damaged_before_its_tail_is_refused() {
    let (dir, store) = fresh();
    for n in 0..100_u32 {
        store.write(vec![put(Family::Leaves, n.to_be_bytes(), noise(n))]).await.unwrap();
    }
    drop(store);
    let log = files(dir.path(), ".log").pop().unwrap();
    let mut bytes = fs::read(&log).unwrap();
    let at = bytes.windows(100).position(|window| window == noise(50)).unwrap();
    bytes[at] ^= 1;
    fs::write(&log, &bytes).unwrap();
    assert!(matches!(RocksStore::open(dir.path(), small()), Err(StoreError::Corrupt { .. })));
}

#[tokio::test]
async fn a_missing_file_is_found_at_the_start() {
    let (dir, store) = fresh();
    store.write(vec![put(Family::Rows, b"1", noise(1))]).await.unwrap();
    store.flush_and_compact().await.unwrap();
    drop(store);
    for file in files(dir.path(), ".sst") {
        fs::remove_file(file).unwrap();
    }
    let error = RocksStore::open(dir.path(), small()).err().unwrap();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_block_is_data_loss_for_what_it_held_and_nothing_else() {
    let (dir, store) = fresh();
    let batch = (0..5_000_u32).map(|n| put(Family::Rows, n.to_be_bytes(), noise(n))).collect();
    store.write(batch).await.unwrap();
    store.flush_and_compact().await.unwrap();
    drop(store);
    let file = files(dir.path(), ".sst").pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(100).position(|window| window == noise(2_500)).unwrap();
    bytes[at + 10] ^= 0x10;
    fs::write(&file, &bytes).unwrap();
    let store = RocksStore::open(dir.path(), small()).unwrap();
    let lost = store.get(Family::Rows, 2_500_u32.to_be_bytes().to_vec()).await.err().unwrap();
    assert!(matches!(lost, StoreError::Corrupt { place: "rows", .. }), "{lost}");
    let keys = vec![1_u32.to_be_bytes().to_vec(), 2_500_u32.to_be_bytes().to_vec()];
    assert!(matches!(store.multi_get(Family::Rows, keys).await, Err(StoreError::Corrupt { .. })));
    assert!(matches!(store.scan(Family::Rows, everything()).await, Err(StoreError::Corrupt { .. })));
    assert_eq!(store.get(Family::Rows, 1_u32.to_be_bytes().to_vec()).await.unwrap().unwrap(), noise(1));
}

#[tokio::test]
async fn a_purged_range_leaves_no_byte_in_any_file() {
    let (dir, store) = fresh();
    let secret = b"a sealed value that must not outlive its erasure";
    let mut batch: Vec<Mutation> = (0..500_u32).map(|n| put(Family::Rows, n.to_be_bytes(), noise(n))).collect();
    batch.push(put(Family::Rows, 250_u32.to_be_bytes(), secret));
    store.write(batch).await.unwrap();
    assert!(files(dir.path(), "").iter().any(|file| contains(file, secret)));
    store.purge(Family::Rows, 250_u32.to_be_bytes().to_vec(), 251_u32.to_be_bytes().to_vec()).await.unwrap();
    assert_eq!(store.scan(Family::Rows, everything()).await.unwrap().len(), 499);
    let kept: Vec<PathBuf> = files(dir.path(), "").into_iter().filter(|file| contains(file, secret)).collect();
    assert!(kept.is_empty(), "{kept:?}");
}

#[tokio::test]
async fn what_was_removed_or_overwritten_in_a_scrubbed_range_is_in_no_file() {
    let (dir, store) = fresh();
    let secrets: [&[u8]; 2] = [b"a wrapped key that was destroyed", b"an index entry that led somewhere"];
    let at = |n: u32| n.to_be_bytes().to_vec();
    let mut batch: Vec<Mutation> = (0..500_u32).map(|n| put(Family::Subjects, at(n), noise(n))).collect();
    batch.extend([put(Family::Subjects, at(250), secrets[0]), put(Family::Subjects, at(251), secrets[1])]);
    store.write(batch).await.unwrap();
    // In a table of its own, below the one that the removals come into.
    store.flush_and_compact().await.unwrap();
    let removed = Mutation::Delete(Family::Subjects, at(251));
    store.write(vec![put(Family::Subjects, at(250), b"empty"), removed]).await.unwrap();
    let holds = |secret: &&[u8]| files(dir.path(), "").iter().any(|file| contains(file, secret));
    assert!(secrets.iter().all(holds));
    let range = KeyRange { family: Family::Subjects, from: at(250), to: at(252) };
    store.scrub(vec![range]).await.unwrap();
    assert!(!secrets.iter().any(holds));
    assert_eq!(store.scan(Family::Subjects, everything()).await.unwrap().len(), 499);
    assert_eq!(store.get(Family::Subjects, at(250)).await.unwrap().as_deref(), Some(&b"empty"[..]));
}

#[tokio::test]
async fn a_scrub_under_writes_and_of_many_ranges_ends_and_one_that_an_earlier_moment_sees_is_refused() {
    let (dir, store) = fresh();
    let at = |n: u32| n.to_be_bytes().to_vec();
    let secret = |n: u32| format!("a wrapped key that was destroyed {n:08}");
    let all = (0..300).step_by(7);
    store.write((0..300).map(|n| put(Family::Subjects, at(n), noise(n))).collect()).await.unwrap();
    store.write(all.clone().map(|n| put(Family::Subjects, at(n), secret(n))).collect()).await.unwrap();
    store.flush_and_compact().await.unwrap();
    let range = |n: u32| KeyRange { family: Family::Subjects, from: at(n), to: at(n + 1) };
    let before = store.snapshot().await.unwrap();
    store.write(all.clone().map(|n| put(Family::Subjects, at(n), b"empty")).collect()).await.unwrap();
    let refused = store.scrub(all.clone().map(range).collect()).await.err().unwrap();
    assert!(matches!(refused, StoreError::StillInFiles { .. }), "{refused}");
    assert!(before.get(Family::Subjects, at(7)).await.unwrap().is_some_and(|seen| *seen == *secret(7).as_bytes()));
    drop(before);
    let mut written = 1_000;
    let scrubbed = async {
        // The snapshot's thread hears a little later that it is dropped.
        for _ in 0..1_000 {
            match store.scrub(all.clone().map(range).collect()).await {
                Ok(()) => return,
                Err(error) => assert!(matches!(error, StoreError::StillInFiles { .. }), "{error}"),
            }
            tokio::task::yield_now().await;
        }
        panic!("nobody sees an earlier moment, and yet it is refused");
    };
    let writes = async {
        while written < u32::MAX {
            store.write(vec![put(Family::Rows, at(written), noise(written))]).await.unwrap();
            written += 1;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = scrubbed => {}
        () = writes => {}
    }
    // What is still compacted goes while it is looked at.
    let read: Vec<Vec<u8>> = files(dir.path(), "").iter().filter_map(|file| fs::read(file).ok()).collect();
    let is_there =
        |secret: &str| read.iter().any(|file| file.windows(secret.len()).any(|window| window == secret.as_bytes()));
    let kept: Vec<u32> = all.filter(|n| is_there(&secret(*n))).collect();
    assert!(kept.is_empty(), "{kept:?}");
}

#[tokio::test]
async fn reopening_ends_snapshots_and_waits_for_readers() {
    let (_dir, store) = fresh();
    store.write(vec![put(Family::Meta, b"a", b"1")]).await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    drop(store.snapshot().await.unwrap());
    store.reopen().await.unwrap();
    assert!(matches!(snapshot.get(Family::Meta, b"a".to_vec()).await, Err(StoreError::Closed)));
    assert!(store.get(Family::Meta, b"a".to_vec()).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_during_a_reopening_are_right_or_closed() {
    let (_dir, store) = fresh();
    let store = std::sync::Arc::new(store);
    store.write(vec![put(Family::Meta, b"a", b"1")]).await.unwrap();
    let reader = {
        let store = std::sync::Arc::clone(&store);
        tokio::spawn(async move {
            for _ in 0..20_000 {
                match store.get(Family::Meta, b"a".to_vec()).await {
                    Ok(value) => assert_eq!(value.as_deref(), Some(&b"1"[..])),
                    Err(error) => assert!(matches!(error, StoreError::Closed), "{error}"),
                }
                tokio::task::yield_now().await;
            }
        })
    };
    for _ in 0..5 {
        store.reopen().await.unwrap();
    }
    reader.await.unwrap();
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_again_stays_closed_until_it_can() {
    let (dir, store) = fresh();
    store.write(vec![put(Family::Meta, b"a", b"1")]).await.unwrap();
    let (current, aside) = (dir.path().join("CURRENT"), dir.path().join("aside"));
    fs::rename(&current, &aside).unwrap();
    assert!(store.reopen().await.is_err());
    assert!(matches!(store.get(Family::Meta, b"a".to_vec()).await, Err(StoreError::Closed)));
    assert!(matches!(store.write(vec![put(Family::Meta, b"b", b"1")]).await, Err(StoreError::Closed)));
    fs::rename(&aside, &current).unwrap();
    store.reopen().await.unwrap();
    assert!(store.get(Family::Meta, b"a".to_vec()).await.unwrap().is_some());
}

#[tokio::test]
async fn the_engines_log_holds_no_key() {
    let (dir, store) = fresh();
    let key = b"a key that belongs in no log";
    let hexadecimal: String = key.iter().map(|byte| format!("{byte:02X}")).collect();
    store.write(vec![put(Family::Index, key, b"1"), put(Family::Rows, key, noise(1))]).await.unwrap();
    store.flush_and_compact().await.unwrap();
    store.purge(Family::Index, key.to_vec(), vec![]).await.unwrap();
    drop(store);
    for file in files(dir.path(), "").iter().filter(|file| file.to_string_lossy().contains("LOG")) {
        assert!(!contains(file, key) && !contains(file, hexadecimal.as_bytes()), "{}", file.display());
    }
}

#[tokio::test]
async fn a_drained_store_has_all_in_files_and_nothing_under_way() {
    let (dir, store) = fresh();
    let background = store.background();
    assert_eq!(background.files(Family::Leaves).unwrap(), 0);
    for n in 0..200 {
        store.write(vec![put(Family::Leaves, n.to_string(), noise(n))]).await.unwrap();
    }
    background.drain().await.unwrap();
    let drained = background.files(Family::Leaves).unwrap();
    assert!(drained > 0);
    assert_eq!(background.files(Family::Rows).unwrap(), 0);
    background.compact().await.unwrap();
    assert!(background.files(Family::Leaves).unwrap() > 0);
    drop(store);
    assert!(matches!(background.drain().await, Err(StoreError::Closed)));
    RocksStore::open(dir.path(), small()).unwrap();
}
