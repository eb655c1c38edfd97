//! What requests may rely on, tested from outside the committer's thread.

use std::sync::atomic::Ordering;
use std::time::Duration;

use strongroom_ids::{RowId, TenantNo};
use strongroom_ledger::{Frontier, Rule, Rules, Timestamp};
use strongroom_storage::faulty::Fate;
use strongroom_storage::memory::MemoryStore;
use strongroom_storage::rows::LaneHead;
use strongroom_storage::{Family, Mutation, Store};
use tokio::task::{JoinHandle, yield_now};

use crate::change::{Change, CommitError, Committed, Guard};
use crate::committer::CommitterState;
use crate::fact::Fact;
use crate::lane::Lane;
use crate::testing::{Disk, OTHER, Rig, TENANT, clock_at, empty_head, leaf, put, start, stored_lanes, stored_leaves};

/// Sends a change and lets it reach the queue.
async fn send(rig: &Rig, change: Change) -> JoinHandle<Result<Committed, CommitError>> {
    let committer = rig.committer.clone();
    let sent = tokio::spawn(async move { committer.commit(change).await });
    yield_now().await;
    sent
}

async fn serving(rig: &Rig) {
    while rig.committer.state() != CommitterState::Serving {
        yield_now().await;
    }
}

#[tokio::test]
async fn what_was_committed_is_stored_with_its_leaf_and_head() {
    let rig = Rig::new().await;
    let change = rig.change(vec![put(1, 7)], vec![(TENANT, leaf("one")), (OTHER, leaf("two"))]);
    let committed = rig.committer.commit(change).await.unwrap();
    assert_eq!((committed.leaves, committed.time), (vec![0, 0], Timestamp(1_000)));
    assert_eq!(committed.position, rig.committer.position());
    assert_eq!(rig.disk.get(Family::Rows, vec![1]).await.unwrap().unwrap(), [7][..]);
    assert_eq!(stored_leaves(&*rig.disk, TENANT).await[0].action, "one");
    assert_eq!(stored_leaves(&*rig.disk, OTHER).await[0].action, "two");
    for (tenant, head) in stored_lanes(&*rig.disk).await {
        let view = rig.committer.head(tenant).unwrap();
        assert_eq!((head.size, head.time, head.incarnation), (1, 1_000, 1));
        assert_eq!((view.size, view.time, view.incarnation), (1, Timestamp(1_000), 1));
        assert_eq!(view.root, Frontier::from_bytes(&head.frontier).unwrap().root());
    }
    assert_eq!((rig.committer.head(TenantNo(99)), rig.committer.leaves()), (None, 2));
}

#[tokio::test]
async fn what_waits_becomes_one_write_and_nothing_shows_before_it_is_durable() {
    let rig = Rig::new().await;
    let before = rig.committer.position();
    rig.disk.shut();
    let first = send(&rig, rig.change(vec![put(0, 0)], vec![(TENANT, leaf("first"))])).await;
    rig.disk.wait_for_write(1).await;
    let mut others = Vec::new();
    for number in 1..20 {
        others.push(send(&rig, rig.change(vec![put(number, 0)], vec![(TENANT, leaf("more"))])).await);
    }
    assert_eq!((rig.committer.position(), rig.committer.head(TENANT).unwrap().size), (before, 0));
    assert!(!first.is_finished());
    rig.disk.open();
    assert_eq!(first.await.unwrap().unwrap().leaves, [0]);
    for (other, index) in others.into_iter().zip(1..) {
        assert_eq!(other.await.unwrap().unwrap().leaves, [index]);
    }
    assert_eq!(rig.disk.writes(), 2);
    assert_eq!(rig.committer.head(TENANT).unwrap().size, 20);
}

#[tokio::test]
async fn a_broken_guard_in_a_group_turns_back_only_its_own_request() {
    let rig = Rig::new().await;
    rig.disk.shut();
    let first = send(&rig, rig.change(vec![put(0, 0)], vec![])).await;
    rig.disk.wait_for_write(1).await;
    let row = Fact::row(TENANT, RowId(1));
    let writer = |value| Change {
        guards: vec![Guard::Unchanged(row)],
        changes: vec![row],
        ..rig.change(vec![put(1, value)], vec![(TENANT, leaf("write"))])
    };
    let (one, two) = (send(&rig, writer(1)).await, send(&rig, writer(2)).await);
    let three = send(&rig, rig.change(vec![put(3, 3)], vec![(TENANT, leaf("other"))])).await;
    rig.disk.open();
    first.await.unwrap().unwrap();
    assert_eq!(one.await.unwrap().unwrap().leaves, [0]);
    assert_eq!(two.await.unwrap(), Err(CommitError::Conflict(row)));
    assert_eq!(three.await.unwrap().unwrap().leaves, [1]);
    assert_eq!(rig.disk.get(Family::Rows, vec![1]).await.unwrap().unwrap(), [1][..]);
    // Whoever was turned back can go at once: what it must read is there.
    assert!(rig.committer.commit(writer(2)).await.is_ok());
}

#[tokio::test]
async fn time_never_goes_backwards() {
    let rig = Rig::new().await;
    assert_eq!(rig.append(TENANT, "one").await.unwrap().time, Timestamp(1_000));
    rig.clock.store(5, Ordering::SeqCst);
    assert_eq!(rig.append(OTHER, "two").await.unwrap().time, Timestamp(1_000));
    rig.clock.store(2_000, Ordering::SeqCst);
    assert_eq!(rig.append(TENANT, "three").await.unwrap().time, Timestamp(2_000));
    rig.committer.shutdown().await;
    // Nor after a restart with a clock that is behind.
    let committer = start(rig.disk, None, clock_at(3)).await.unwrap();
    assert_eq!(committer.time(), Timestamp(2_000));
    let change = Change {
        position: committer.position(),
        guards: vec![],
        changes: vec![],
        mutations: vec![],
        leaves: vec![(OTHER, leaf("four"))],
        charge: None,
    };
    assert_eq!(committer.commit(change).await.unwrap().time, Timestamp(2_000));
}

#[tokio::test]
async fn a_full_queue_turns_back_at_once_and_stores_nothing() {
    let rig = Rig::new().await;
    rig.disk.shut();
    let first = send(&rig, rig.change(vec![put(0, 0)], vec![])).await;
    rig.disk.wait_for_write(1).await;
    let mut waiting = Vec::new();
    for _ in 0..64 {
        waiting.push(send(&rig, rig.change(vec![put(1, 1)], vec![])).await);
    }
    let refused = rig.committer.commit(rig.change(vec![put(2, 2)], vec![])).await;
    assert!(matches!(refused, Err(CommitError::Overloaded { .. })), "{refused:?}");
    rig.disk.open();
    for sent in waiting.into_iter().chain([first]) {
        sent.await.unwrap().unwrap();
    }
    assert_eq!(rig.disk.get(Family::Rows, vec![2]).await.unwrap(), None);
    assert!(rig.append(TENANT, "after").await.is_ok());
}

#[tokio::test]
async fn too_many_bytes_in_the_queue_turn_back_but_one_large_change_does_not() {
    let large = || Mutation::Put(Family::Rows, vec![9], vec![0; 200 << 20]);
    let rig = Rig::new().await;
    rig.disk.shut();
    let first = send(&rig, rig.change(vec![put(0, 0)], vec![])).await;
    rig.disk.wait_for_write(1).await;
    let second = send(&rig, rig.change(vec![large()], vec![])).await;
    let refused = rig.committer.commit(rig.change(vec![large()], vec![])).await;
    assert!(matches!(refused, Err(CommitError::Overloaded { .. })), "{refused:?}");
    rig.disk.open();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert!(rig.committer.commit(rig.change(vec![large()], vec![])).await.is_ok());
}

#[tokio::test]
async fn after_a_failed_write_the_committer_goes_on_from_what_is_really_stored() {
    for (fate, stored) in [(Fate::Lost, 0), (Fate::Stored, 1), (Fate::StoredAfterReopen, 1)] {
        let rig = Rig::new().await;
        rig.append(TENANT, "before").await.unwrap();
        let read = rig.committer.position();
        rig.disk.faults.fail_write(fate);
        assert_eq!(rig.append(TENANT, "unknown").await, Err(CommitError::Unknown));
        serving(&rig).await;
        assert_eq!(rig.committer.head(TENANT).unwrap().size, 1 + stored, "{fate:?}");
        // Whoever read before the failure must read again, even what nobody is known to have changed.
        let guards = vec![Guard::Unchanged(Fact::policy(TENANT))];
        let guarded = |position| Change { position, guards: guards.clone(), ..rig.change(vec![put(1, 1)], vec![]) };
        assert_eq!(rig.committer.commit(guarded(read)).await, Err(CommitError::TooOld));
        assert!(rig.committer.commit(guarded(rig.committer.position())).await.is_ok());
        assert_eq!(rig.append(TENANT, "after").await.unwrap().leaves, [1 + stored]);
        let leaves = stored_leaves(&*rig.disk, TENANT).await;
        assert!(leaves.iter().zip(0..).all(|(leaf, index)| leaf.index == index));
        assert_eq!(leaves.len() as u64, 2 + stored);
    }
}

#[tokio::test]
async fn while_the_store_does_not_open_again_everything_is_turned_away() {
    let rig = Rig::new().await;
    rig.disk.faults.fail_write(Fate::Lost);
    rig.disk.faults.fail_reopens(2);
    assert_eq!(rig.append(TENANT, "unknown").await, Err(CommitError::Unknown));
    assert_eq!(rig.committer.state(), CommitterState::Recovering);
    assert_eq!(rig.append(TENANT, "no").await, Err(CommitError::Closed));
    serving(&rig).await;
    assert_eq!(rig.append(TENANT, "yes").await.unwrap().leaves, [0]);
}

#[tokio::test]
async fn a_store_that_lost_acknowledged_leaves_is_not_written_any_more() {
    let memory = MemoryStore::default();
    let rig = Rig::over(Disk::of(memory.clone())).await;
    rig.append(TENANT, "one").await.unwrap();
    rig.disk.faults.fail_write(Fate::Lost);
    memory.write(vec![Mutation::Delete(Family::Meta, Lane::key(TENANT))]).await.unwrap();
    assert_eq!(rig.append(TENANT, "unknown").await, Err(CommitError::Unknown));
    assert_eq!(rig.append(TENANT, "no").await, Err(CommitError::Closed));
    rig.committer.shutdown().await;
    assert_eq!(rig.committer.state(), CommitterState::Stopped);
    assert_eq!(rig.committer.head(TENANT).unwrap().size, 1);
}

#[tokio::test]
async fn rules_that_somebody_wrote_into_a_head_while_the_store_was_closed_are_not_believed() {
    let memory = MemoryStore::default();
    let rig = Rig::over(Disk::of(memory.clone())).await;
    rig.append(TENANT, "one").await.unwrap();
    let bytes = memory.get(Family::Meta, Lane::key(TENANT)).await.unwrap().unwrap();
    let older = Rules { policy: Rule { version: 1, hash: [7; 32] }, ..Rules::default() };
    let head = LaneHead { rules: older.to_bytes(), ..LaneHead::decode(&bytes).unwrap() };
    rig.disk.faults.fail_write(Fate::Lost);
    memory.write(vec![Mutation::Put(Family::Meta, Lane::key(TENANT), head.encode())]).await.unwrap();
    assert_eq!(rig.append(TENANT, "unknown").await, Err(CommitError::Unknown));
    assert_eq!(rig.append(TENANT, "no").await, Err(CommitError::Closed));
    rig.committer.shutdown().await;
    assert_eq!(rig.committer.head(TENANT).unwrap().rules, Rules::default());
}

#[tokio::test]
async fn a_shutdown_stores_what_waits_and_takes_no_more() {
    let rig = Rig::new().await;
    rig.disk.shut();
    let first = send(&rig, rig.change(vec![], vec![(TENANT, leaf("first"))])).await;
    rig.disk.wait_for_write(1).await;
    let waiting = send(&rig, rig.change(vec![], vec![(TENANT, leaf("waits"))])).await;
    let (one, two) = (rig.committer.clone(), rig.committer.clone());
    let stops = [tokio::spawn(async move { one.shutdown().await }), tokio::spawn(async move { two.shutdown().await })];
    yield_now().await;
    rig.disk.open();
    for stop in stops {
        stop.await.unwrap();
    }
    assert_eq!(first.await.unwrap().unwrap().leaves, [0]);
    assert_eq!(waiting.await.unwrap().unwrap().leaves, [1]);
    assert_eq!(rig.append(TENANT, "late").await, Err(CommitError::Closed));
    assert_eq!(rig.committer.state(), CommitterState::Stopped);
    assert_eq!(stored_lanes(&*rig.disk).await[0].1.size, 2);
}

#[tokio::test]
async fn a_change_whose_caller_left_is_stored_all_the_same() {
    let rig = Rig::new().await;
    rig.disk.shut();
    let first = send(&rig, rig.change(vec![], vec![(TENANT, leaf("first"))])).await;
    rig.disk.wait_for_write(1).await;
    send(&rig, rig.change(vec![], vec![(TENANT, leaf("left"))])).await.abort();
    rig.disk.open();
    first.await.unwrap().unwrap();
    assert_eq!(rig.append(TENANT, "last").await.unwrap().leaves, [2]);
}

#[tokio::test]
async fn a_log_begins_with_its_first_leaves_and_an_open_one_goes_on() {
    let new = TenantNo(3);
    let rig = Rig::new().await;
    assert_eq!(rig.append(new, "early").await, Err(CommitError::Closed));
    let begin = |action: &str| {
        let change = rig.change(vec![], vec![(TENANT, leaf("beside")), (new, leaf(action))]);
        rig.committer.begin_log(new, empty_head(), change)
    };
    assert_eq!(begin("first").await.unwrap().leaves, [0, 0]);
    assert_eq!(begin("second").await.unwrap().leaves, [1, 1]);
    assert_eq!(rig.append(new, "third").await.unwrap().leaves, [2]);
    rig.committer.shutdown().await;
    // Started without it, the stored log is continued.
    let committer = start(rig.disk, None, clock_at(1)).await.unwrap();
    let change = Change {
        position: committer.position(),
        guards: vec![],
        changes: vec![],
        mutations: vec![],
        leaves: vec![(new, leaf("fourth"))],
        charge: None,
    };
    assert_eq!(committer.begin_log(new, empty_head(), change).await.unwrap().leaves, [3]);
    assert_eq!(committer.head(new).unwrap().size, 4);
}

#[tokio::test]
async fn a_log_whose_first_change_is_not_stored_is_not_there() {
    let new = TenantNo(3);
    let rig = Rig::new().await;
    let late =
        Change { guards: vec![Guard::Before(Timestamp(1))], ..rig.change(vec![put(0, 0)], vec![(new, leaf("late"))]) };
    assert_eq!(rig.committer.begin_log(new, empty_head(), late).await, Err(CommitError::Expired));
    assert_eq!(rig.append(new, "early").await, Err(CommitError::Closed));
    assert!(rig.committer.head(new).is_none());
    for (fate, size) in [(Fate::Lost, None), (Fate::StoredAfterReopen, Some(1))] {
        rig.disk.faults.fail_write(fate);
        let change = rig.change(vec![], vec![(new, leaf("first"))]);
        assert_eq!(rig.committer.begin_log(new, empty_head(), change).await, Err(CommitError::Unknown));
        serving(&rig).await;
        // One more, so that what became of it is known.
        rig.append(TENANT, "after").await.unwrap();
        assert_eq!(rig.committer.head(new).map(|head| head.size), size, "{fate:?}");
    }
}

#[tokio::test]
async fn a_log_begun_amid_waiting_changes_is_open_for_those_behind_it() {
    let new = TenantNo(3);
    let rig = Rig::new().await;
    rig.disk.shut();
    let first = send(&rig, rig.change(vec![put(0, 0)], vec![])).await;
    rig.disk.wait_for_write(1).await;
    let before = send(&rig, rig.change(vec![], vec![(TENANT, leaf("before"))])).await;
    let committer = rig.committer.clone();
    let change = rig.change(vec![], vec![(new, leaf("first"))]);
    let begun = tokio::spawn(async move { committer.begin_log(new, empty_head(), change).await });
    yield_now().await;
    let behind = send(&rig, rig.change(vec![], vec![(new, leaf("behind"))])).await;
    rig.disk.open();
    first.await.unwrap().unwrap();
    before.await.unwrap().unwrap();
    assert_eq!(begun.await.unwrap().unwrap().leaves, [0]);
    assert_eq!(behind.await.unwrap().unwrap().leaves, [1]);
}

#[tokio::test]
async fn a_committer_does_not_start_on_a_head_that_contradicts_itself() {
    let rig = Rig::new().await;
    rig.append(TENANT, "one").await.unwrap();
    let mut head = stored_lanes(&*rig.disk).await.remove(0).1;
    head.size = 2;
    let row = Mutation::Put(Family::Meta, Lane::key(TENANT), head.encode());
    rig.disk.write(vec![row]).await.unwrap();
    let error = start(rig.disk, None, clock_at(1)).await.err().unwrap().to_string();
    assert!(error.contains("1 leaves") && error.contains('2'), "{error}");
}

#[tokio::test]
async fn refusals_say_when_to_come_back() {
    let error = CommitError::Overloaded { retry_after: Duration::from_millis(100) };
    assert!(error.to_string().contains("100ms"));
}
