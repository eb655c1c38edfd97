//! Whatever requests do at once, and whatever the disk does: the ledger tells a serial history that explains it all.
//!
//! Each request reads some counters, guards them, adds one to some of them and writes a leaf. Afterwards the stored
//! leaves are replayed one by one. Every request must have read exactly what the replay holds at its leaf, so no
//! update was lost and no reader saw what was already gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use strongroom_ids::RowId;
use strongroom_ledger::leaf::{LeafHeader, prepare, sample::header};
use strongroom_storage::memory::MemoryStore;
use strongroom_storage::{Family, Mutation, Store};
use tokio::task::yield_now;

use crate::change::{Change, CommitError, Guard};
use crate::fact::Fact;
use crate::testing::{Disk, Rig, TENANT, stored_leaves};

/// Which counters a request reads, and which of these it raises.
#[derive(Clone, Debug)]
struct Request {
    number: u128,
    counters: Vec<(u8, bool)>,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Outcome {
    Stored,
    NotStored,
    Unknown,
}

/// What a request read, and whether it raised it.
type Seen = Vec<(u8, u64, bool)>;

/// Only the last attempt counts: those before it were turned back.
async fn run(rig: Arc<Rig>, request: Request) -> (Outcome, Seen) {
    let mut seen = Seen::new();
    for _ in 0..50 {
        let position = rig.committer.position();
        seen.clear();
        let mut change =
            Change { position, guards: vec![], changes: vec![], mutations: vec![], leaves: vec![], charge: None };
        for (counter, raises) in &request.counters {
            // Reads may come at any moment between others' commits.
            yield_now().await;
            let Ok(value) = rig.disk.get(Family::Rows, vec![*counter]).await else {
                return (Outcome::NotStored, seen);
            };
            let value = value.map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().unwrap()));
            let fact = Fact::row(TENANT, RowId((*counter).into()));
            change.guards.push(Guard::Unchanged(fact));
            seen.push((*counter, value, *raises));
            if *raises {
                change.changes.push(fact);
                change.mutations.push(Mutation::Put(Family::Rows, vec![*counter], (value + 1).to_be_bytes().into()));
            }
        }
        change.leaves.push((TENANT, leaf(request.number)));
        match rig.committer.commit(change).await {
            Ok(_) => return (Outcome::Stored, seen),
            Err(CommitError::Unknown) => return (Outcome::Unknown, seen),
            Err(CommitError::Conflict(_) | CommitError::TooOld) => {}
            Err(_) => yield_now().await,
        }
    }
    (Outcome::NotStored, seen)
}

fn leaf(number: u128) -> strongroom_ledger::leaf::PreparedLeaf {
    let header = LeafHeader {
        request: &number.to_be_bytes(),
        principal: "app",
        action: "count",
        policy: 1,
        schema: 1,
        client: "",
        ..header()
    };
    prepare(&header, std::iter::empty()).remove(0)
}

/// Runs the requests at once, and replays what is stored.
async fn check(lists: Vec<Vec<Vec<(u8, bool)>>>, faults: Option<u64>) -> Result<(), TestCaseError> {
    let memory = MemoryStore::default();
    let rig = Arc::new(Rig::over(Disk::of(memory.clone())).await);
    if let Some(seed) = faults {
        rig.disk.faults.by_chance(seed, 60, 8);
    }
    let mut tasks = Vec::new();
    for (client, list) in (1..).zip(lists) {
        let rig = Arc::clone(&rig);
        tasks.push(tokio::spawn(async move {
            let mut done = Vec::new();
            for (number, counters) in (1..).zip(list) {
                let counters: BTreeMap<u8, bool> = counters.into_iter().collect();
                let number = (client << 64) | number;
                let request = Request { number, counters: counters.into_iter().collect() };
                done.push((number, run(Arc::clone(&rig), request).await));
            }
            done
        }));
    }
    let mut requests: HashMap<u128, (Outcome, Seen)> = HashMap::new();
    for task in tasks {
        requests.extend(task.await.unwrap());
    }
    rig.disk.faults.heal();
    rig.committer.shutdown().await;

    let mut counters: HashMap<u8, u64> = HashMap::new();
    let mut time = 0;
    for (index, leaf) in (0..).zip(stored_leaves(&memory, TENANT).await) {
        prop_assert_eq!(leaf.index, index);
        prop_assert!(leaf.time.0 >= time);
        time = leaf.time.0;
        let (outcome, seen) = requests.remove(&u128::from_be_bytes(leaf.request)).expect("one leaf a request");
        prop_assert_ne!(outcome, Outcome::NotStored);
        for (counter, value, raises) in seen {
            let held = counters.entry(counter).or_default();
            prop_assert_eq!(*held, value, "counter {} at leaf {}", counter, index);
            *held += u64::from(raises);
        }
    }
    prop_assert!(requests.values().all(|(outcome, _)| *outcome != Outcome::Stored), "acknowledged, and not stored");
    for (counter, value) in counters {
        let stored = memory.get(Family::Rows, vec![counter]).await.unwrap();
        prop_assert_eq!(stored.map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().unwrap())), value);
    }
    Ok(())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

/// Up to six clients, each with a list of requests on few counters, so that they meet.
fn lists() -> impl Strategy<Value = Vec<Vec<Vec<(u8, bool)>>>> {
    vec(vec(vec((0..4u8, any::<bool>()), 1..4), 0..12), 1..7)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn all_that_was_acknowledged_fits_one_serial_history(lists in lists()) {
        runtime().block_on(check(lists, None))?;
    }

    #[test]
    fn so_it_does_when_reads_and_writes_fail(lists in lists(), seed in any::<u64>()) {
        runtime().block_on(check(lists, Some(seed)))?;
    }
}
