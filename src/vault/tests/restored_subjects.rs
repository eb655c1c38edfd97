//! An older copy of the data, and the journal: who was erased since stays gone, what was held stays, and a consent that was taken
//! back is no consent.

use strongroom_storage::rows::{ErasureRow, SubjectRecord, SubjectState};
use strongroom_storage::{Family, Range, Store, keys as place};

use super::consents::{all, field, give, listed as consents, seen, take};
use super::erasures::{STORED, erase, erase_with, get, go_on, undo};
use super::holds::{delete, hold, lift, listed as holds, read_for, set};
use super::keys::TENANT;
use super::restores::{copy, journal, proven as all_proven, restore};
use super::rolls::{are_dead, deks, proven, records};
use super::*;
use crate::{ListedConsent, ListedHold};

const DAY: u64 = 24 * 3_600;
const FIELD: &str = "borrower.id_card";
const MOBILE: &str = "borrower.mobile";

/// A stopped vault as it was after `first`, with head file, journal and keys as they were after `then`.
async fn older<T>(
    first: impl AsyncFnOnce(&Bench, &Tested) -> T,
    then: impl AsyncFnOnce(&Bench, &Tested),
) -> (Bench, T) {
    let (mut bench, vault) = Bench::new().await;
    let made = first(&bench, &vault).await;
    vault.close().await;
    drop(vault);
    let older = copy(&bench.disk).await;
    let vault = bench.open().await;
    then(&bench, &vault).await;
    vault.close().await;
    drop(vault);
    bench.disk = older;
    (bench, made)
}

/// A subject with an id card and a mobile, and their tokens.
async fn two_values(_: &Bench, vault: &Tested) -> [String; 2] {
    [store_one(vault, FIELD, ID_CARD, "c-1").await, store_one(vault, MOBILE, "13800138000", "c-1").await]
}

/// Restores, with so much done again, and nothing frozen.
async fn again(bench: &Bench, replayed: u64) -> Arc<Tested> {
    let restored = restore(bench).await.unwrap();
    assert_eq!((restored.replayed, restored.passed_over, restored.frozen), (replayed, 0, None));
    bench.open().await
}

async fn is_gone(vault: &Tested, token: &str) -> bool {
    matches!(read_one(vault, token, "masked").await, Err(Error::NotFound))
}

/// Nothing of any subject is left, and the vault, which is closed then, is what its ledger says.
async fn nothing_is_left(bench: &Bench, vault: Arc<Tested>) {
    for family in STORED {
        assert_eq!(entries(&bench.disk)[family], 0, "{family}");
    }
    let (from, to) = place::erasure_works_range(TENANT);
    assert!(bench.disk.scan(Family::Meta, Range { from, to, limit: 9 }).await.unwrap().is_empty());
    vault.close().await;
    all_proven(bench).await;
}

async fn erasure_rows(bench: &Bench) -> Vec<ErasureRow> {
    let (from, to) = place::erasures_range(TENANT);
    let rows = bench.disk.scan(Family::Meta, Range { from, to, limit: 9 }).await.unwrap();
    rows.iter().map(|(_, row)| ErasureRow::decode(row).unwrap()).collect()
}

#[tokio::test]
async fn who_was_erased_since_the_copy_stays_gone_and_what_is_left_is_cleared_and_signed() {
    let (bench, tokens) = older(two_values, async |_, vault| _ = erase(vault, "c-1").await).await;
    let dead: Vec<_> = deks(&bench).await.into_iter().map(|((handle, ..), dek)| (handle, dek)).collect();
    assert!(dead.len() >= 2);
    let vault = again(&bench, 1).await;
    assert!(is_gone(&vault, &tokens[0]).await && is_gone(&vault, &tokens[1]).await);
    assert!(matches!(erase_with(&vault, "c-1", 0, "").await, Err(Error::NotFoundAt(_))));
    let all = leaves(&vault).await;
    let leaf = all.iter().find(|leaf| leaf["action"] == "erase_subject").unwrap();
    assert_eq!((&leaf["principal"], &leaf["detail"]["by"]), (&"root".into(), &"privacy/tester".into()), "{leaf:#}");
    assert_eq!(leaf["items"][0]["outcome"], "subject_closed");
    // With its keys, before any row of it is.
    let vault = proven(&bench, vault).await;
    are_dead_but_for_rows(&bench, &dead).await;
    assert_eq!(go_on(&vault).await.unwrap(), None);
    are_dead(&bench, &vault, &dead).await;
    let [row]: [ErasureRow; 1] = erasure_rows(&bench).await.try_into().ok().unwrap();
    assert!(row.open.is_empty() && !row.receipt.is_empty());
    assert_eq!((row.erased.values, row.erased.deks), (2, dead.len() as u64));
    // Who comes back is somebody new.
    let back = store_one(&vault, FIELD, ID_CARD, "c-1").await;
    assert!(read_one(&vault, &back, "masked").await.is_ok());
    erase(&vault, "c-1").await;
    nothing_is_left(&bench, vault).await;
}

async fn are_dead_but_for_rows(
    bench: &Bench,
    dead: &[(strongroom_ids::SubjectHandle, strongroom_storage::rows::WrappedDek)],
) {
    for (_, row) in super::rolls::all(bench, Family::Subjects).await {
        let holds = |blob: &[u8]| row.windows(blob.len()).any(|bytes| bytes == blob);
        assert!(!dead.iter().any(|(_, dek)| holds(&dek.blob)));
    }
}

/// Whether two times are that of a request and that of its leaf.
fn same_moment(one: Option<u64>, other: Option<u64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.abs_diff(other) < 1_000,
        (one, other) => one == other,
    }
}

#[tokio::test]
async fn a_subject_that_came_after_the_copy_is_passed_over() {
    let (bench, ()) = older(
        async |_, _| (),
        async |bench, vault| {
            two_values(bench, vault).await;
            erase(vault, "c-1").await;
        },
    )
    .await;
    let restored = restore(&bench).await.unwrap();
    assert_eq!((restored.replayed, restored.frozen), (0, None));
    assert!(restored.passed_over > 0);
    all_proven(&bench).await;
}

#[tokio::test]
async fn what_was_held_at_the_erasure_is_kept_for_the_holds_purpose_and_the_rest_is_gone() {
    let (bench, [card, mobile]) = older(two_values, async |bench, vault| {
        set(vault, &hold(bench, &[FIELD], "collections", 30)).await.unwrap();
        assert_eq!(erase(vault, "c-1").await.state, "held");
    })
    .await;
    let vault = again(&bench, 2).await;
    let [record]: [SubjectRecord; 1] = records(&bench).await.try_into().ok().unwrap();
    assert_eq!((record.state, record.deks.len()), (SubjectState::Held, 2));
    assert_eq!(read_for(&vault, &card, "collections").await.unwrap(), ID_CARD.as_bytes());
    assert!(matches!(read_for(&vault, &card, "kyc_review").await, Err(Error::NotFound)));
    assert!(matches!(read_for(&vault, &mobile, "collections").await, Err(Error::NotFound)));
    let vault = proven(&bench, vault).await;
    go_on(&vault).await.unwrap();
    assert_eq!(entries(&bench.disk)["rows"], 1);
    // Its desk finds it by asking again.
    let told = erase_with(&vault, "c-1", 0, "").await.unwrap();
    assert_eq!((told.state, told.kept[0].hold), ("held", 1));
    let vault = proven(&bench, vault).await;
    lift(&vault, 1).await.unwrap();
    go_on(&vault).await.unwrap();
    assert_eq!(get(&vault, &told.erasure).await.unwrap().state, "erased");
    nothing_is_left(&bench, vault).await;
}

#[tokio::test]
async fn a_hold_that_has_ended_by_the_restore_kept_what_it_kept_until_then() {
    let (bench, [card, _]) = older(two_values, async |bench, vault| {
        set(vault, &hold(bench, &[FIELD], "collections", 10)).await.unwrap();
        erase(vault, "c-1").await;
        bench.pass(9 * DAY);
        // Another one goes on where the first one ends.
        set(vault, &hold(bench, &[FIELD], "collections", 30)).await.unwrap();
        bench.pass(2 * DAY);
    })
    .await;
    let vault = again(&bench, 3).await;
    go_on(&vault).await.unwrap();
    assert_eq!(read_for(&vault, &card, "collections").await.unwrap(), ID_CARD.as_bytes());
    bench.pass(30 * DAY);
    go_on(&vault).await.unwrap();
    nothing_is_left(&bench, vault).await;
}

#[tokio::test]
async fn what_was_held_and_freed_since_the_copy_is_gone_wherever_the_copy_stood() {
    let held = async |bench: &Bench, vault: &Tested| {
        set(vault, &hold(bench, &[FIELD], "collections", 30)).await.unwrap();
        erase(vault, "c-1").await
    };
    let freed = async |vault: &Tested| {
        lift(vault, 1).await.unwrap();
        go_on(vault).await.unwrap();
    };
    let (bench, [card, _]) = older(two_values, async |bench, vault| {
        held(bench, vault).await;
        freed(vault).await;
    })
    .await;
    let files = [bench.folder.path().join("head"), journal(&bench)];
    let before = files.clone().map(|file| std::fs::read(file).unwrap());
    let vault = again(&bench, 4).await;
    vault.close().await;
    drop(vault);
    // A restore that was cut off before journal and head file is made again, and finds that all is so.
    for (file, bytes) in files.iter().zip(before) {
        std::fs::write(file, bytes).unwrap();
    }
    let vault = again(&bench, 0).await;
    assert!(is_gone(&vault, &card).await);
    go_on(&vault).await.unwrap();
    nothing_is_left(&bench, vault).await;

    let (bench, told) = older(
        async |bench, vault| {
            two_values(bench, vault).await;
            held(bench, vault).await
        },
        async |_, vault| freed(vault).await,
    )
    .await;
    let vault = again(&bench, 2).await;
    go_on(&vault).await.unwrap();
    assert_eq!(get(&vault, &told.erasure).await.unwrap().state, "erased", "its name is the copy's");
    nothing_is_left(&bench, vault).await;
}

#[tokio::test]
async fn a_time_of_grace_runs_on_and_can_be_undone() {
    let mut due = None;
    let (bench, [card, _]) = older(two_values, async |_, vault| {
        due = erase_with(vault, "c-1", 30 * DAY, "").await.unwrap().due;
    })
    .await;
    let first = copy(&bench.disk).await;
    let vault = again(&bench, 1).await;
    let read = read_one(&vault, &card, "masked").await;
    assert!(matches!(read, Err(Error::SubjectLeaving { due: at }) if Some(at) == due), "{:?}", read.err());
    let vault = proven(&bench, vault).await;
    let told = erase_with(&vault, "c-1", 40 * DAY, "").await.unwrap();
    assert_eq!((told.state, told.due), ("waiting", due));
    undo(&vault, "c-1").await.unwrap();
    assert!(read_one(&vault, &card, "masked").await.is_ok());
    assert!(erasure_rows(&bench).await.iter().all(|row| row.open.is_empty() && row.receipt.is_empty()));
    vault.close().await;
    drop(vault);
    all_proven(&bench).await;

    // The same copy once more, with what was done since: it is undone still.
    let bench = Bench { disk: first, ..bench };
    let vault = again(&bench, 2).await;
    assert!(read_one(&vault, &card, "masked").await.is_ok());
    erase_with(&vault, "c-1", DAY, "").await.unwrap();
    bench.pass(2 * DAY);
    go_on(&vault).await.unwrap();
    nothing_is_left(&bench, vault).await;
}

#[tokio::test]
async fn a_time_of_grace_that_ran_in_the_copy_has_ended_since_or_was_undone() {
    let waiting = async |bench: &Bench, vault: &Tested| {
        let [card, _] = two_values(bench, vault).await;
        (card, erase_with(vault, "c-1", 30 * DAY, "").await.unwrap().erasure)
    };
    let (bench, (card, name)) = older(waiting, async |bench, vault| {
        bench.pass(31 * DAY);
        go_on(vault).await.unwrap();
    })
    .await;
    let vault = again(&bench, 1).await;
    assert!(is_gone(&vault, &card).await);
    go_on(&vault).await.unwrap();
    assert_eq!(get(&vault, &name).await.unwrap().state, "erased");
    nothing_is_left(&bench, vault).await;

    let (bench, (card, name)) = older(waiting, async |_, vault| undo(vault, "c-1").await.unwrap()).await;
    let vault = again(&bench, 1).await;
    assert!(read_one(&vault, &card, "masked").await.is_ok());
    assert_eq!(get(&vault, &name).await.unwrap().state, "undone");
    vault.close().await;
    all_proven(&bench).await;
}

#[tokio::test]
async fn a_consent_that_was_taken_back_since_the_copy_is_so_since_then() {
    let mut before = vec![];
    let (bench, [name, mobile]) = older(
        async |_, vault| {
            let name = store_one(vault, "borrower.name", "张三", "c-1").await;
            let mobile = store_one(vault, MOBILE, "13800138000", "c-1").await;
            give(vault, "c-1", all()).await.unwrap();
            [name, mobile]
        },
        async |bench, vault| {
            bench.pass(DAY);
            take(vault, "c-1", field("borrower.name")).await.unwrap();
            before = consents(vault, "c-1").await.unwrap();
            bench.pass(DAY);
        },
    )
    .await;
    let first = copy(&bench.disk).await;
    let vault = again(&bench, 1).await;
    assert!(!seen(&vault, &name).await && seen(&vault, &mobile).await);
    let after = consents(&vault, "c-1").await.unwrap();
    assert_eq!(after.len(), 2);
    for (one, was) in after.into_iter().zip(before) {
        assert!(same_moment(one.withdrawn, was.withdrawn));
        assert_eq!(ListedConsent { withdrawn: was.withdrawn, ..one }, was);
    }
    // What is given anew after a withdrawal is not journalled: of the two the withdrawal is in force.
    take(&vault, "c-1", all()).await.unwrap();
    give(&vault, "c-1", all()).await.unwrap();
    assert!(seen(&vault, &mobile).await);
    vault.close().await;
    drop(vault);
    all_proven(&bench).await;

    let bench = Bench { disk: first, ..bench };
    let vault = again(&bench, 2).await;
    assert!(!seen(&vault, &name).await && !seen(&vault, &mobile).await);
    vault.close().await;
    all_proven(&bench).await;
}

#[tokio::test]
async fn a_hold_is_set_again_with_its_number_and_ends_when_it_ended() {
    let mut before = vec![];
    let (bench, [card, mobile]) = older(two_values, async |bench, vault| {
        set(vault, &hold(bench, &[FIELD, "borrower.name"], "collections", 30)).await.unwrap();
        set(vault, &hold(bench, &[], "kyc_review", 30)).await.unwrap();
        lift(vault, 2).await.unwrap();
        before = holds(vault).await;
        bench.pass(DAY);
    })
    .await;
    let vault = again(&bench, 3).await;
    let after = holds(&vault).await;
    assert_eq!(after.len(), 2);
    for (one, was) in after.into_iter().zip(before) {
        assert!(same_moment(Some(one.set), Some(was.set)) && same_moment(Some(one.until), Some(was.until)));
        assert_eq!(ListedHold { set: was.set, until: was.until, ..one }, was);
    }
    assert!(matches!(delete(&vault, &card, "").await, Err(Error::LegalHold)));
    delete(&vault, &mobile, "").await.unwrap();
    assert_eq!(set(&vault, &hold(&bench, &[FIELD], "collections", 30)).await.unwrap(), 3);
    vault.close().await;
    all_proven(&bench).await;
}

#[tokio::test]
async fn without_the_journal_nobody_knows_who_was_erased_and_nothing_is_read() {
    let (bench, tokens) = older(two_values, async |_, vault| _ = erase(vault, "c-1").await).await;
    std::fs::remove_file(journal(&bench)).unwrap();
    assert!(restore(&bench).await.unwrap().frozen.is_some());
    let vault = bench.open().await;
    for token in &tokens {
        assert!(matches!(read_one(&vault, token, "masked").await, Err(Error::Frozen { .. })));
    }
    vault.close().await;
    all_proven(&bench).await;
}
