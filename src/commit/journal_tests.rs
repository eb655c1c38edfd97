//! The journal, as commits, faults, crashes and older copies meet it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use strongroom_ids::TenantNo;
use strongroom_ledger::Timestamp;
use strongroom_ledger::head::Head;
use strongroom_ledger::journal::{Log, Record};
use strongroom_ledger::leaf::{self, LeafHeader, PreparedLeaf, sample::header};
use strongroom_storage::faulty::Fate;
use strongroom_storage::memory::MemoryStore;
use strongroom_storage::rows::{ArchiveRow, LaneHead};
use strongroom_storage::{Family, Mutation, Store, keys};
use tempfile::TempDir;

use crate::change::{CommitError, Committed};
use crate::committer::{Committer, CommitterState, Start};
use crate::journal::{FAR, Journal, JournalError, JournalPlace};
use crate::meter::Meters;
use crate::testing::{Disk, OTHER, Rig, TENANT, VAULT, clock_at, leaf, stored_lanes};

/// A leaf that restricts: its version is above that of all before it.
fn freeze(field: &str) -> PreparedLeaf {
    static VERSION: AtomicU32 = AtomicU32::new(1);
    let (version, hash) = (VERSION.fetch_add(1, Ordering::SeqCst).to_string(), "07".repeat(32));
    let header = LeafHeader {
        request: &[1; 16],
        principal: "officer/alice",
        action: "freeze",
        policy: 1,
        schema: 1,
        client: "",
        detail: &[("field", field), ("version", &version), ("sha256", &hash)],
        ..header()
    };
    leaf::prepare(&header, std::iter::empty()).remove(0)
}

fn place(folder: &TempDir) -> JournalPlace {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[7; 32]);
    let mac =
        move |parts: &[&[u8]]| -> [u8; 32] { ring::hmac::sign(&key, &parts.concat()).as_ref().try_into().unwrap() };
    JournalPlace { folder: folder.path().join("journal"), vault: VAULT, mac: Arc::new(mac) }
}

/// What stands in a journal: the fields of the leaves, each with its log, and up to where each log was seen, in their order.
fn written(place: &JournalPlace) -> Vec<(TenantNo, String)> {
    let mut all = vec![];
    place
        .read(None, |record| match record {
            Record::Leaf { log, line, .. } => {
                let field = leaf::parse(&line).unwrap().says("field").unwrap().to_owned();
                all.push((log.tenant, field));
            }
            Record::Seen { log, size, .. } => all.push((log.tenant, format!("seen {size}"))),
        })
        .unwrap();
    all
}

fn fields(place: &JournalPlace) -> Vec<String> {
    written(place).into_iter().map(|(_, what)| what).filter(|what| !what.starts_with("seen ")).collect()
}

/// A committer that keeps a journal, over a store that may be older.
async fn over(
    store: MemoryStore,
    journal: Journal,
) -> Result<(Rig, Arc<std::sync::atomic::AtomicUsize>), JournalError> {
    let (disk, clock) = (Arc::new(Disk::of(store)), clock_at(1_000));
    let mut journal = journal;
    let lanes = stored_lanes(&*disk).await;
    journal.follow(&lanes, &*disk).await?;
    let failing = Arc::clone(&journal.failing);
    let now = Arc::clone(&clock);
    let start = Start {
        lanes,
        head: None,
        journal: Some(journal),
        clock: Arc::new(move || now.load(Ordering::SeqCst)),
        queue: 64,
        table: 1 << 10,
        meters: Meters::new(),
    };
    let committer = Committer::start(Arc::clone(&disk), start).unwrap();
    Ok((Rig { disk, committer, clock }, failing))
}

async fn commit(rig: &Rig, leaves: Vec<(TenantNo, PreparedLeaf)>) -> Result<Committed, CommitError> {
    rig.committer.commit(rig.change(vec![], leaves)).await
}

async fn serving(rig: &Rig) {
    while rig.committer.state() != CommitterState::Serving {
        tokio::task::yield_now().await;
    }
}

fn said(all: &[(TenantNo, &str)]) -> Vec<(TenantNo, String)> {
    all.iter().map(|(tenant, what)| (*tenant, (*what).to_owned())).collect()
}

#[tokio::test]
async fn what_restricts_stands_in_the_journal_in_the_order_of_the_commits_before_anybody_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder);
    let (rig, _) = over(MemoryStore::default(), Journal::create(place.clone()).unwrap()).await.unwrap();
    commit(&rig, vec![(TENANT, leaf("tokenize")), (TENANT, freeze("one"))]).await.unwrap();
    assert_eq!(written(&place), said(&[(TENANT, "one"), (TENANT, "seen 2")]));
    commit(&rig, vec![(OTHER, freeze("two")), (TENANT, freeze("three"))]).await.unwrap();
    assert_eq!(fields(&place), ["one", "two", "three"]);
    let end = rig.committer.journal().unwrap();
    // What restricts nobody costs nothing.
    commit(&rig, vec![(TENANT, leaf("tokenize"))]).await.unwrap();
    assert_eq!(rig.committer.journal().unwrap(), end);
    rig.committer.shutdown().await;
    let sound = place.read(Some(end), |_| {}).unwrap();
    assert_eq!(sound.end.records, end.records + 1, "a stop notes how far the logs were looked at");
    assert_eq!(written(&place).pop(), Some((TENANT, "seen 4".to_owned())));
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_acknowledges_nothing_and_is_caught_up_before_anything_else() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder);
    let (rig, failing) = over(MemoryStore::default(), Journal::create(place.clone()).unwrap()).await.unwrap();
    commit(&rig, vec![(TENANT, freeze("one"))]).await.unwrap();
    // The append fails, and then the first two that would make up for it.
    failing.store(3, Ordering::SeqCst);
    assert_eq!(commit(&rig, vec![(TENANT, freeze("two"))]).await, Err(CommitError::Unknown));
    serving(&rig).await;
    assert_eq!(failing.load(Ordering::SeqCst), 0);
    assert_eq!(fields(&place), ["one", "two"], "what is stored restricts, so it stands there");
    commit(&rig, vec![(TENANT, freeze("three"))]).await.unwrap();
    assert_eq!(fields(&place), ["one", "two", "three"]);
}

#[tokio::test]
async fn a_write_that_failed_is_journalled_if_the_store_has_it() {
    for (fate, has) in [(Fate::Lost, false), (Fate::Stored, true)] {
        let folder = tempfile::tempdir().unwrap();
        let place = place(&folder);
        let (rig, _) = over(MemoryStore::default(), Journal::create(place.clone()).unwrap()).await.unwrap();
        rig.disk.faults.fail_write(fate);
        assert_eq!(commit(&rig, vec![(TENANT, freeze("one"))]).await, Err(CommitError::Unknown));
        serving(&rig).await;
        assert_eq!(fields(&place) == ["one"], has, "{fate:?}");
    }
}

#[tokio::test]
async fn a_start_after_a_crash_between_commit_and_journal_catches_up() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder);
    let store = MemoryStore::default();
    let (rig, _) = over(store.clone(), Journal::create(place.clone()).unwrap()).await.unwrap();
    commit(&rig, vec![(TENANT, freeze("one"))]).await.unwrap();
    let crashed = fs::read(place.path()).unwrap();
    commit(&rig, vec![(TENANT, leaf("tokenize")), (TENANT, freeze("two")), (OTHER, freeze("three"))]).await.unwrap();
    rig.committer.shutdown().await;
    // As if the process had died before it wrote; and with the beginning of what it wrote, and with zeros in its place.
    for tail in [&[][..], &[0, 0, 0, 90, 1, 0, 0][..], &[0; 300][..]] {
        fs::write(place.path(), [&crashed[..], tail].concat()).unwrap();
        let (rig, _) = over(store.clone(), Journal::open(place.clone(), None).unwrap()).await.unwrap();
        assert_eq!(fields(&place), ["one", "two", "three"]);
        rig.committer.shutdown().await;
    }
}

#[tokio::test]
async fn a_store_that_is_behind_its_journal_is_an_older_copy() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder);
    let (rig, _) = over(MemoryStore::default(), Journal::create(place.clone()).unwrap()).await.unwrap();
    commit(&rig, vec![(TENANT, freeze("one"))]).await.unwrap();
    rig.committer.shutdown().await;
    let refused = over(MemoryStore::default(), Journal::open(place, None).unwrap()).await;
    assert!(matches!(refused, Err(JournalError::StoreBehind { tenant: TENANT, known: 1, size: 0, .. })));
}

#[tokio::test]
async fn damage_is_named_by_its_record_and_a_journal_that_lost_its_end_is_found_by_the_head_file() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder);
    let (rig, _) = over(MemoryStore::default(), Journal::create(place.clone()).unwrap()).await.unwrap();
    for field in ["one", "two", "three"] {
        commit(&rig, vec![(TENANT, freeze(field))]).await.unwrap();
    }
    rig.committer.shutdown().await;
    let (end, whole) = (rig.committer.journal().unwrap(), fs::read(place.path()).unwrap());
    place.read(Some(end), |_| {}).unwrap();

    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    fs::write(place.path(), changed).unwrap();
    let damaged = place.read(Some(end), |_| {}).err().unwrap();
    assert!(matches!(damaged, JournalError::Damaged { record: 2 | 3, .. }), "{damaged}");

    fs::write(place.path(), &whole[..whole.len() - 1]).unwrap();
    let cut = place.read(Some(end), |_| {}).err().unwrap();
    assert!(matches!(cut, JournalError::Behind { records: 5, known: 6, .. }), "{cut}");
    assert!(place.read(None, |_| {}).is_ok(), "without a head file a cut end is one of a write that was cut off");

    fs::write(place.path(), b"another file, that is long enough").unwrap();
    assert!(matches!(place.read(None, |_| {}), Err(JournalError::Foreign { .. })));
    fs::remove_file(place.path()).unwrap();
    assert!(matches!(Journal::open(place.clone(), None), Err(JournalError::Missing { .. })));
    Journal::create(place.clone()).unwrap();
    assert!(Journal::create(place.clone()).is_err(), "one that is there is never written over");
    assert!(matches!(place.read(Some(end), |_| {}), Err(JournalError::Behind { records: 0, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Each list is one life of the process. Its disk and its journal fail at random; what was acknowledged stands in the
    /// journal, once and in order, and the journal has nothing that the store has not.
    #[test]
    fn what_was_acknowledged_is_journalled_once_and_in_order(
        lives in proptest::collection::vec(proptest::collection::vec((any::<bool>(), 0..8_u8), 0..12), 1..4), seed in any::<u64>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (folder, store) = (tempfile::tempdir().unwrap(), MemoryStore::default());
            let place = place(&folder);
            drop(Journal::create(place.clone()).unwrap());
            let (mut acknowledged, mut number) = (vec![], 0);
            for (life, commits) in (0..).zip(lives) {
                let (rig, failing) = over(store.clone(), Journal::open(place.clone(), None).unwrap()).await.unwrap();
                rig.disk.faults.by_chance(seed.wrapping_add(life), 0, 2);
                for (restricts, fails) in commits {
                    serving(&rig).await;
                    failing.store(usize::from(fails == 0), Ordering::SeqCst);
                    number += 1;
                    let field = format!("{number:04}");
                    let leaf = if restricts { freeze(&field) } else { leaf("tokenize") };
                    if commit(&rig, vec![(TENANT, leaf)]).await.is_ok() && restricts {
                        acknowledged.push(field);
                    }
                }
                serving(&rig).await;
                failing.store(0, Ordering::SeqCst);
                rig.committer.shutdown().await;
            }
            let journalled = fields(&place);
            prop_assert!(journalled.is_sorted_by(|one, next| one < next), "{:?}", journalled);
            prop_assert!(acknowledged.iter().all(|field| journalled.contains(field)));
            let stored = crate::testing::stored_leaves(&store, TENANT).await;
            let stored: Vec<_> = stored.iter().filter_map(|leaf| leaf.says("field").map(str::to_owned)).collect();
            prop_assert_eq!(stored, journalled);
            Ok(())
        })?;
    }
}

#[test]
fn a_log_of_an_earlier_incarnation_is_not_missed() {
    let log = |incarnation| Log { tenant: TENANT, incarnation };
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(place(&folder)).unwrap();
    let seen = |incarnation, size| Record::Seen { log: log(incarnation), size, root: [1; 32] };
    journal.append(&[seen(1, 90), seen(2, 10)]).unwrap();
    let lane = |incarnation, size: u64| {
        let mut lane = crate::lane::Lane::open(&crate::testing::empty_head()).unwrap();
        lane.incarnation = incarnation;
        (0..size).for_each(|number| lane.frontier.push(&number.to_be_bytes()));
        std::collections::HashMap::from([(TENANT, lane)])
    };
    journal.is_followed(&lane(2, 10)).unwrap();
    journal.is_followed(&lane(3, 1)).unwrap();
    assert!(journal.is_followed(&lane(2, 9)).is_err());
    assert!(journal.is_followed(&lane(1, 95)).is_err(), "it was restored since");
    // One that has ended stays in its incarnation while others go on: it has all that it had.
    let beside = |size| {
        let mut all = lane(1, size);
        all.extend(lane(2, 10).remove(&TENANT).map(|other| (OTHER, other)));
        all
    };
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(place(&folder)).unwrap();
    journal.append(&[seen(1, 90)]).unwrap();
    journal.is_followed(&beside(90)).unwrap();
    assert!(journal.is_followed(&beside(89)).is_err());
}

/// A stopped vault's journal, and its store, with the heads of its logs: a leaf that restricts and one that does not.
async fn stopped(folder: &TempDir) -> (Journal, MemoryStore, Vec<(TenantNo, LaneHead)>) {
    let (place, store) = (place(folder), MemoryStore::default());
    let (rig, _) = over(store.clone(), Journal::create(place.clone()).unwrap()).await.unwrap();
    commit(&rig, vec![(TENANT, freeze("one")), (TENANT, leaf("tokenize"))]).await.unwrap();
    rig.committer.shutdown().await;
    let lanes = stored_lanes(&store).await;
    (Journal::open(place, None).unwrap(), store, lanes)
}

#[tokio::test]
async fn a_log_that_is_not_the_one_that_was_looked_at_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, store, lanes) = stopped(&folder).await;
    // A file from before the first leaf vouches for none.
    let head = Head { number: 0, closed: false, incarnation: 1, journal: None, lanes: vec![] };
    journal.knows(&lanes, &head, &store).await.unwrap();
    let other = leaf("detokenize").finish(1, Timestamp(1_000));
    store.write(vec![Mutation::Put(Family::Leaves, keys::leaf(TENANT, 1), other)]).await.unwrap();
    let known = journal.knows(&lanes, &head, &store).await;
    assert!(matches!(known, Err(JournalError::StoreDifferent { tenant: TENANT, size: 2 })), "{known:?}");
}

#[tokio::test]
async fn nothing_is_passed_over_but_what_is_archived() {
    let folder = tempfile::tempdir().unwrap();
    let (_, store, lanes) = stopped(&folder).await;
    store.write(vec![Mutation::Delete(Family::Leaves, keys::leaf(TENANT, 0))]).await.unwrap();
    let (folder, later) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut journal = Journal::create(place(&folder)).unwrap();
    for missing in [journal.lacks(&lanes, &store).await.map(drop), journal.follow(&lanes, &store).await] {
        assert!(matches!(missing, Err(JournalError::Store(_))), "{missing:?}");
    }
    let row = ArchiveRow { end: 1, ..ArchiveRow::default() };
    store.write(vec![Mutation::Put(Family::Archived, keys::archived(TENANT), row.encode())]).await.unwrap();
    let mut journal = Journal::create(place(&later)).unwrap();
    journal.follow(&lanes, &store).await.unwrap();
    assert_eq!(written(&place(&later)), said(&[(TENANT, "seen 2")]));
}

#[tokio::test]
async fn a_note_that_could_not_be_written_is_not_tried_again_at_each_commit() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder);
    let (rig, failing) = over(MemoryStore::default(), Journal::create(place.clone()).unwrap()).await.unwrap();
    failing.store(9, Ordering::SeqCst);
    for _ in 0..FAR + 5 {
        commit(&rig, vec![(TENANT, leaf("tokenize"))]).await.unwrap();
    }
    assert_eq!(failing.load(Ordering::SeqCst), 8);
    failing.store(0, Ordering::SeqCst);
    rig.committer.shutdown().await;
    assert_eq!(written(&place), said(&[(TENANT, &format!("seen {}", FAR + 5))]), "at the end it is");
}

#[tokio::test]
async fn a_journal_that_is_removed_or_replaced_while_it_is_written_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder);
    let mut journal = Journal::create(place.clone()).unwrap();
    let seen = |size| Record::Seen { log: Log { tenant: TENANT, incarnation: 1 }, size, root: [1; 32] };
    journal.append(&[seen(1)]).unwrap();
    let aside = place.folder.join("aside");
    fs::rename(place.path(), &aside).unwrap();
    journal.append(&[seen(2)]).unwrap_err();
    // A copy is another file.
    fs::copy(&aside, place.path()).unwrap();
    let whole = fs::read(place.path()).unwrap();
    journal.append(&[seen(2)]).unwrap_err();
    assert_eq!(fs::read(place.path()).unwrap(), whole);
    fs::rename(&aside, place.path()).unwrap();
    journal.append(&[seen(2)]).unwrap();
    assert_eq!(written(&place), said(&[(TENANT, "seen 1"), (TENANT, "seen 2")]));
}
