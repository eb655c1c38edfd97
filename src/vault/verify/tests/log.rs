//! Leaves that were changed, moved or forged are named, and a log that was put back is: by its head, the head file, or a
//! checkpoint kept elsewhere.

use strongroom_ledger::leaf::{LeafHeader, LeafItem, prepare, sample::header};
use strongroom_ledger::{Frontier, NewRule, Rules, Timestamp, leaf};
use strongroom_storage::keys as place;
use strongroom_storage::memory::MemoryStore;
use strongroom_storage::rows::LaneHead;
use strongroom_storage::{Family, Store};

use super::rig::{Rig, copy, entries, put, remove};
use super::{SYSTEM, TENANT};
use crate::tests::rig::THREADS;
use crate::verify::HeadFile;
use crate::verify::finding::{Fault, Kind, Place};

#[tokio::test]
async fn a_changed_leaf_is_named_or_its_range_is() {
    let rig = Rig::loaded().await;
    let leaves = entries(&rig.store, Family::Leaves, TENANT).await;
    // The last is a subtree of its own if the log has an odd size; the load sees to that.
    assert_eq!(leaves.len() % 2, 1);
    let last = leaves.len() as u64 - 1;
    for index in [1, 5, last] {
        let (key, line) = &leaves[index as usize];
        let forged = String::from_utf8(line.to_vec()).unwrap().replacen("\"client\":\"", "\"client\":\"x", 1);
        leaf::parse(forged.as_bytes()).unwrap();
        let store = copy(&rig.store).await;
        put(&store, Family::Leaves, key.to_vec(), forged.into_bytes()).await;
        let said = rig.finds(&store).await;
        let named = (Kind::Leaf, Fault::Changed, Place::Leaf(last));
        let ranged = (Kind::Log, Fault::Changed, Place::Only);
        // And the log's head is not that of these leaves.
        assert_eq!(said, [if index == last { named } else { ranged.clone() }, ranged], "leaf {index}");

        let store = copy(&rig.store).await;
        let broken = [&line[..], b" "].concat();
        put(&store, Family::Leaves, key.to_vec(), broken).await;
        assert_eq!(rig.finds(&store).await[0], (Kind::Leaf, Fault::Changed, Place::Leaf(index)));
    }
}

#[tokio::test]
async fn leaves_that_are_missing_moved_or_added_are_named() {
    let rig = Rig::loaded().await;
    let leaves = entries(&rig.store, Family::Leaves, TENANT).await;
    let index = rig.leaf_of("detokenize").await;
    let store = copy(&rig.store).await;
    remove(&store, Family::Leaves, place::leaf(TENANT, index)).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Leaf, Fault::Missing, Place::Leaf(index))]);

    let next = index + 1;
    let store = copy(&rig.store).await;
    put(&store, Family::Leaves, place::leaf(TENANT, index), leaves[next as usize].1.to_vec()).await;
    put(&store, Family::Leaves, place::leaf(TENANT, next), leaves[index as usize].1.to_vec()).await;
    let said = rig.finds(&store).await;
    for moved in [index, next] {
        assert!(said.contains(&(Kind::Leaf, Fault::Changed, Place::Leaf(moved))), "{said:?}");
    }

    let end = leaves.len() as u64;
    let store = copy(&rig.store).await;
    let line = forged(end, "replace", &[], &[]);
    put(&store, Family::Leaves, place::leaf(TENANT, end), line).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Leaf, Fault::Added, Place::Leaf(end))]);

    let store = copy(&rig.store).await;
    remove(&store, Family::Leaves, place::leaf(TENANT, end - 1)).await;
    let said = rig.finds(&store).await;
    assert!(said.contains(&(Kind::Leaf, Fault::Missing, Place::Leaf(end - 1))), "{said:?}");
}

#[tokio::test]
async fn a_last_leaf_removed_together_with_the_logs_head_is_seen_by_the_head_file() {
    let rig = Rig::loaded().await;
    let store = copy(&rig.store).await;
    let leaves = entries(&rig.store, Family::Leaves, TENANT).await;
    let end = leaves.len() - 1;
    remove(&store, Family::Leaves, place::leaf(TENANT, end as u64)).await;
    let time = leaf::parse(&leaves[end - 1].1).unwrap().time.0;
    set_head(&store, leaves[..end].iter().map(|(_, line)| &line[..]), time).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Log, Fault::RolledBack, Place::Only)]);
}

#[tokio::test]
async fn a_logs_head_that_was_changed_or_removed_is_named() {
    let rig = Rig::loaded().await;
    let key = place::lane(TENANT, 0);
    let head = LaneHead::decode(&rig.store.get(Family::Meta, key.clone()).await.unwrap().unwrap()).unwrap();
    let mut frontier = head.frontier.clone();
    *frontier.last_mut().unwrap() ^= 1;
    let rules = Rules::default().to_bytes();
    for changed in [
        LaneHead { frontier, ..head.clone() },
        LaneHead { time: head.time + 1, ..head.clone() },
        LaneHead { rules, ..head.clone() },
    ] {
        let store = copy(&rig.store).await;
        put(&store, Family::Meta, key.clone(), changed.encode()).await;
        assert_eq!(rig.finds(&store).await, [(Kind::Log, Fault::Changed, Place::Only)]);
    }
    let store = copy(&rig.store).await;
    remove(&store, Family::Meta, key).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Log, Fault::Missing, Place::Only)]);
}

#[tokio::test]
async fn a_store_put_back_as_a_whole_is_seen_by_the_head_file_and_with_it_by_a_checkpoint_kept_elsewhere() {
    let rig = Rig::loaded().await;
    let rolled_back = [(Kind::Log, Fault::RolledBack, Place::Only)];
    assert_eq!(rig.finds(&rig.before).await, rolled_back);
    std::fs::write(rig.head(), &rig.head_before).unwrap();
    assert!(rig.finds(&rig.before).await.is_empty(), "from within, nobody can tell");
    let said = rig.checked(&rig.before, std::slice::from_ref(&rig.checkpoint)).await.unwrap();
    assert_eq!(said.findings.len(), 1);
    assert_eq!(said.findings[0].fault, Fault::RolledBack);
    let untouched = rig.checked(&rig.store, std::slice::from_ref(&rig.checkpoint)).await.unwrap();
    assert!(untouched.findings.is_empty(), "{:?}", untouched.findings);
    let unsigned = untouched.tenants.iter().find(|(name, _)| &**name == "demo").unwrap();
    assert!(unsigned.1.signed_leaves < unsigned.1.leaves, "the old head file signs fewer");
}

#[tokio::test]
async fn a_checkpoint_of_another_vault_is_refused() {
    let (rig, other) = (Rig::loaded().await, Rig::loaded().await);
    let error = rig.checked(&rig.store, std::slice::from_ref(&other.checkpoint)).await.unwrap_err().to_string();
    assert!(error.starts_with("checkpoint 1 of those given"), "{error}");
}

#[tokio::test]
async fn a_head_file_that_is_missing_changed_or_of_another_vault_is_named() {
    let (rig, other) = (Rig::loaded().await, Rig::loaded().await);
    std::fs::copy(other.head(), rig.head()).unwrap();
    assert_eq!(rig.finds(&rig.store).await, [(Kind::Log, Fault::Changed, Place::Only)]);
    std::fs::remove_file(rig.head()).unwrap();
    assert_eq!(rig.finds(&rig.store).await, [(Kind::Log, Fault::Missing, Place::Only)]);
}

#[tokio::test]
async fn a_store_that_says_it_has_never_had_a_leaf_is_not_new_but_emptied() {
    let rig = Rig::loaded().await;
    std::fs::remove_file(rig.head()).unwrap();
    let store = copy(&rig.store).await;
    for tenant in [SYSTEM, TENANT] {
        for family in [Family::Leaves, Family::Rows, Family::Subjects] {
            for (key, _) in entries(&store, family, tenant).await {
                remove(&store, family, key.to_vec()).await;
            }
        }
        let empty = LaneHead { incarnation: 1, size: 0, time: 0, frontier: vec![], rules: vec![] };
        put(&store, Family::Meta, place::lane(tenant, 0), empty.encode()).await;
    }
    let said = rig.finds(&store).await;
    assert!(said.contains(&(Kind::Log, Fault::Missing, Place::Only)), "the head file is missing: {said:?}");
    assert!(said.contains(&(Kind::Leaf, Fault::Missing, Place::Leaf(0))), "{said:?}");
}

#[tokio::test]
async fn a_forged_leaf_that_records_an_older_version_contradicts_the_log() {
    let rig = Rig::loaded().await;
    let row = rig.replaced("borrower.id_card").await;
    let old = rig.before.get(Family::Rows, row.key()).await.unwrap().unwrap();
    let hash = crate::values::row_hash(&old);
    let item = LeafItem {
        row: Some(row.id),
        outcome: "ok",
        version: Some(strongroom_ids::RowVersion(1)),
        hash: Some(&hash),
        ..LeafItem::default()
    };
    let store = copy(&rig.store).await;
    put(&store, Family::Rows, row.key(), old.to_vec()).await;
    let end = append(&store, "replace", &[], &[item]).await;
    let said = rig.finds(&store).await;
    assert_eq!(said[0], (Kind::Leaf, Fault::Changed, Place::Leaf(end)), "{said:?}");
}

#[tokio::test]
async fn a_leaf_in_good_form_that_came_after_an_orderly_stop_is_named_and_after_a_crash_it_is_counted() {
    let rig = Rig::loaded().await;
    let store = copy(&rig.store).await;
    let end = append(&store, "detokenize", &[], &[]).await;
    assert_eq!(rig.finds(&store).await, [(Kind::Leaf, Fault::Added, Place::Leaf(end))]);
    std::fs::write(rig.head(), &rig.head_before).unwrap();
    let report = rig.report(&store).await;
    let (_, counts) = report.tenants.iter().find(|(name, _)| &**name == "demo").unwrap();
    assert!(report.findings.is_empty() && counts.signed_leaves < counts.leaves, "{:?}", report.findings);
}

#[tokio::test]
async fn a_forged_leaf_that_brings_an_older_policy_back_contradicts_the_log() {
    let rig = Rig::loaded().await;
    let key = place::policy(TENANT);
    let old = rig.before.get(Family::Meta, key.clone()).await.unwrap().unwrap();
    let hash = data_encoding::HEXLOWER.encode(&crate::values::row_hash(&old));
    let store = copy(&rig.store).await;
    put(&store, Family::Meta, key, old.to_vec()).await;
    let end = append(&store, "apply_policy", &[("version", "1"), ("sha256", &hash)], &[]).await;
    let named = [
        (Kind::Leaf, Fault::Changed, Place::Leaf(end)),
        (Kind::Leaf, Fault::Added, Place::Leaf(end)),
        (Kind::Policy, Fault::RolledBack, Place::Only),
    ];
    assert_eq!(rig.finds(&store).await, named);
}

#[tokio::test]
async fn a_copy_of_the_store_is_compared_to_its_own_head_file_and_without_one_to_none() {
    let rig = Rig::loaded().await;
    let of_then = rig.head().with_file_name("head-of-then");
    std::fs::write(&of_then, &rig.head_before).unwrap();
    let by = async |head: HeadFile, checkpoints: &[String]| {
        let report = rig.checked_by(&rig.before, &head, checkpoints, THREADS).await.unwrap();
        (report.findings.iter().map(|finding| finding.fault).collect::<Vec<_>>(), report.without_head)
    };
    assert_eq!(by(HeadFile::read(&rig.head()), &[]).await, (vec![Fault::RolledBack], false));
    assert_eq!(by(HeadFile::read_if_there(&rig.head()), &[]).await, (vec![Fault::RolledBack], false));
    assert_eq!(by(HeadFile::read(&of_then), &[]).await, (vec![], false));
    std::fs::remove_file(&of_then).unwrap();
    assert_eq!(by(HeadFile::read_if_there(&of_then), &[]).await, (vec![], true));
    assert_eq!(by(HeadFile::read(&of_then), &[]).await, (vec![Fault::Missing], false));
    // A checkpoint tells what a head file would have.
    let kept = std::slice::from_ref(&rig.checkpoint);
    assert_eq!(by(HeadFile::read_if_there(&of_then), kept).await, (vec![Fault::RolledBack], true));
}

#[tokio::test]
async fn only_a_head_file_that_is_still_the_same_once_the_store_was_opened_says_that_it_is_as_the_vault_left_it() {
    let rig = Rig::loaded().await;
    let store = copy(&rig.store).await;
    let end = append(&store, "detokenize", &[], &[]).await;
    let mut head = HeadFile::read(&rig.head());
    let by = async |head: &HeadFile| {
        let report = rig.checked_by(&store, head, &[], THREADS).await.unwrap();
        report.findings.into_iter().map(|finding| (finding.kind, finding.fault, finding.place)).collect::<Vec<_>>()
    };
    let added = [(Kind::Leaf, Fault::Added, Place::Leaf(end))];
    head.look_again();
    assert_eq!(by(&head).await, added);
    // The vault was started meanwhile.
    std::fs::write(rig.head(), &rig.head_before).unwrap();
    head.look_again();
    assert_eq!(by(&head).await, []);
}

const FORGED_AT: u64 = 1_900_000_000_000_000;

/// A leaf in good form that the vault never wrote.
fn forged(index: u64, action: &str, detail: &[(&str, &str)], items: &[LeafItem<'_>]) -> Vec<u8> {
    let header = LeafHeader {
        request: &[9; 16],
        principal: "app/app",
        action,
        policy: 1,
        schema: 1,
        client: "",
        detail,
        ..header()
    };
    prepare(&header, items.iter().copied()).remove(0).finish(index, Timestamp(FORGED_AT))
}

/// Appends a forged leaf, and makes the log's head fit it. Its index.
async fn append(store: &MemoryStore, action: &str, detail: &[(&str, &str)], items: &[LeafItem<'_>]) -> u64 {
    let leaves = entries(store, Family::Leaves, TENANT).await;
    let end = leaves.len() as u64;
    let line = forged(end, action, detail, items);
    put(store, Family::Leaves, place::leaf(TENANT, end), line.clone()).await;
    set_head(store, leaves.iter().map(|(_, line)| &line[..]).chain([&line[..]]), FORGED_AT).await;
    end
}

/// Makes the log's head fit these leaves, as whoever writes to the store can.
async fn set_head<'l>(store: &MemoryStore, lines: impl Iterator<Item = &'l [u8]>, time: u64) {
    let (mut frontier, mut rules) = (Frontier::new(), Rules::default());
    for line in lines {
        frontier.push(line);
        leaf::parse(line).ok().as_ref().and_then(NewRule::of).map(|new| rules.put(new));
    }
    let (size, frontier) = (frontier.size(), frontier.to_bytes());
    let head = LaneHead { incarnation: 1, size, time, frontier, rules: rules.to_bytes() };
    put(store, Family::Meta, place::lane(TENANT, 0), head.encode()).await;
}
