//! DEKs that have sealed what is gone: they roll, what lives on lives on, and nothing of the old version is left.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;

use strongroom_commit::CommitError;
use strongroom_ids::{DekVersion, KeyringNo, SubjectHandle};
use strongroom_keys::{DekOwner, DekPlace};
use strongroom_storage::keys::{self as place, DekMark};
use strongroom_storage::rows::{JobKind, RowDek, SubjectRecord, ValueRow, WrappedDek};
use strongroom_storage::{Entry, Family, Mutation, Range, Store};

use super::keys::{TENANT, all_read, filled, rotate, running, set_state, step, to_its_end, to_its_end_by_chance};
use super::*;
use crate::road::Attempt;
use crate::roll::RollPage;
use crate::{CancelJob, Job, JobPage, StartRewrap, StartRoll};

const KIND: JobKind = JobKind::Roll;

async fn start(vault: &Tested, name: &str, subject: &str) -> Result<Job, Error> {
    let request = StartRoll { name: name.to_owned(), subject: subject.to_owned() };
    vault.start_roll(&caller(Role::Rotator), &request).await
}

/// Rolls what is marked, in pages of so many entries.
pub(super) async fn roll(vault: &Tested, entries: usize) -> Job {
    let job = start(vault, "", "").await.unwrap();
    if job.is_running() { to_its_end(vault, KIND, entries).await } else { job }
}

pub(super) async fn delete(vault: &Tested, token: &str) {
    let items = vec![DeleteItem { token: token.to_owned(), subject: String::new() }];
    let request = Delete { items, idempotency_key: String::new() };
    vault.delete(&caller(Role::App), &request).await.unwrap().remove(0).unwrap();
}

async fn replace(vault: &Tested, token: &str, value: &str) {
    let items = vec![NewVersion { token: token.to_owned(), value: value.to_owned().into(), expires: None }];
    vault.replace(&caller(Role::App), &Replace { items, idempotency_key: String::new() }).await.unwrap();
}

pub(super) async fn all(bench: &Bench, family: Family) -> Vec<Entry> {
    bench.disk.scan(family, Range { from: vec![], to: vec![], limit: 1_000_000 }).await.unwrap()
}

async fn marks(bench: &Bench) -> Vec<DekMark> {
    let (from, to) = place::all_dek_marks_range(TENANT);
    let entries = bench.disk.scan(Family::Meta, Range { from, to, limit: 1_000_000 }).await.unwrap();
    entries.iter().map(|(key, _)| place::decode_dek_mark(key).unwrap()).collect()
}

pub(super) async fn records(bench: &Bench) -> Vec<SubjectRecord> {
    all(bench, Family::Subjects).await.iter().map(|(_, row)| SubjectRecord::decode(row).unwrap()).collect()
}

/// Every wrapped DEK of a subject.
pub(super) async fn deks(bench: &Bench) -> HashMap<(SubjectHandle, KeyringNo, DekVersion), WrappedDek> {
    let records = records(bench).await;
    let of = |record: SubjectRecord| record.deks.into_iter().map(move |dek| (record.handle, dek));
    records.into_iter().flat_map(of).map(|(handle, dek)| ((handle, dek.keyring, dek.version), dek)).collect()
}

/// The marked DEKs of those that there were.
fn of_marks(
    marks: &[DekMark],
    deks: &HashMap<(SubjectHandle, KeyringNo, DekVersion), WrappedDek>,
) -> Vec<(SubjectHandle, WrappedDek)> {
    let dek = |mark: &DekMark| deks[&(mark.subject, mark.keyring, mark.version)].clone();
    marks.iter().map(|mark| (mark.subject, dek(mark))).collect()
}

/// Nothing names these DEKs, nothing holds them, and memory has forgotten them.
pub(super) async fn are_dead(bench: &Bench, vault: &Tested, dead: &[(SubjectHandle, WrappedDek)]) {
    for (_, row) in all(bench, Family::Rows).await {
        let row = ValueRow::decode(&row).unwrap();
        let names = |(subject, dek): &(SubjectHandle, WrappedDek)| {
            (*subject, dek.keyring, dek.version) == (row.subject, row.keyring, row.dek_version)
        };
        assert!(!dead.iter().any(names), "a row names version {} of a DEK", row.dek_version);
    }
    for family in Family::ALL {
        for (_, row) in all(bench, family).await {
            let holds = |(_, dek): &(SubjectHandle, WrappedDek)| {
                row.windows(dek.blob.len()).any(|bytes| bytes == dek.blob.as_slice())
            };
            assert!(!dead.iter().any(holds), "{} holds a DEK that is dead", family.name());
        }
    }
    for (subject, dek) in dead {
        let (tenant, owner) = (vault.tenant(TENANT).unwrap().id, DekOwner::Subject(*subject));
        let at = DekPlace { tenant, keyring: dek.keyring, owner, version: dek.version };
        assert!(vault.deks.get(&at).is_none(), "memory holds a DEK that is dead");
    }
}

/// Closes the vault, proves its store against its ledger, and opens it again.
pub(super) async fn proven(bench: &Bench, vault: Arc<Tested>) -> Arc<Tested> {
    vault.close().await;
    let found = findings(bench, &[]).await;
    assert!(found.is_empty(), "{found:#?}");
    bench.open().await
}

/// So many values of one subject in one keyring.
async fn many(vault: &Tested, subject: &str, count: usize) -> Vec<(String, String)> {
    let values: Vec<String> = (0..count).map(|number| format!("{subject} lives at {number}")).collect();
    let items = values.iter().map(|value| new_value("borrower.address", value, subject)).collect();
    vault.tokenize(&caller(Role::App), &tokenize(items, "")).await.unwrap().into_iter().zip(values).collect()
}

#[tokio::test]
async fn the_dek_of_what_was_deleted_or_replaced_dies_and_the_others_values_live_on() {
    for entries in [1, 7, 1_000] {
        let (bench, vault) = Bench::new().await;
        let mut left = filled(&vault).await;
        let card = "6222021234567890128";
        left.push((store_one(&vault, "borrower.bank_card", card, "c-1").await, card.to_owned()));
        all_read(&vault, &left).await;
        let before = deks(&bench).await;
        for number in [40, 30, 20, 10] {
            let (token, _) = left.remove(number);
            delete(&vault, &token).await;
        }
        let (token, value) = left.iter_mut().find(|(_, value)| value == "address 3").unwrap();
        *value = "address 33".to_owned();
        replace(&vault, token, value).await;
        let marked = marks(&bench).await;
        let dead = of_marks(&marked, &before);
        assert!(dead.len() > 3, "{marked:?}");

        let job = roll(&vault, entries).await;
        let deks = marked.len() as u64;
        assert_eq!((job.state, job.done, job.total, job.skipped), ("done", deks, deks, 0));
        assert_eq!(marks(&bench).await, []);
        are_dead(&bench, &vault, &dead).await;
        all_read(&vault, &left).await;
        let again = roll(&vault, entries).await;
        assert_eq!((again.name.as_str(), again.state, again.total), ("roll/2", "done", 0), "nothing is left to do");

        let told = leaves(&vault).await;
        let items = told.iter().filter(|leaf| leaf["action"] == "roll").filter_map(|leaf| leaf["items"].as_array());
        let items: Vec<&serde_json::Value> = items.flatten().collect();
        assert_eq!(items.iter().filter(|item| item["outcome"] == "dek_rolled").count(), marked.len());
        assert!(items.iter().filter(|item| item["outcome"] == "resealed").count() > marked.len());
        let vault = proven(&bench, vault).await;
        all_read(&vault, &left).await;
    }
}

#[tokio::test]
async fn what_has_expired_and_made_room_is_dead_after_a_roll_as_well() {
    let (bench, vault) = Bench::new().await;
    let soon = Some(bench.now.load(Ordering::Relaxed) + 60_000_000);
    let account = |expires| NewValue { expires, ..new_value("company.settlement_account", "account-1", "co-1") };
    let kept = store_one(&vault, "company.settlement_account", "account-2", "co-1").await;
    vault.tokenize(&caller(Role::App), &tokenize(vec![account(soon)], "")).await.unwrap();
    bench.pass(120);
    vault.tokenize(&caller(Role::App), &tokenize(vec![account(None)], "")).await.unwrap();
    let dead = of_marks(&marks(&bench).await, &deks(&bench).await);
    assert_eq!(dead.len(), 1);
    assert_eq!(roll(&vault, 10).await.done, 1);
    are_dead(&bench, &vault, &dead).await;
    let same = store_one(&vault, "company.settlement_account", "account-2", "co-1").await;
    assert_eq!(same, kept, "its token stays what it is");
    proven(&bench, vault).await;
}

#[tokio::test]
async fn a_subject_with_many_values_moves_page_by_page_and_goes_on_where_it_was_cut_off() {
    let (bench, mut vault) = Bench::new().await;
    let mut left = many(&vault, "big", 60).await;
    left.extend(many(&vault, "other", 3).await);
    let before = deks(&bench).await;
    delete(&vault, &left.remove(7).0).await;
    let dead = of_marks(&marks(&bench).await, &before);
    let mut job = start(&vault, "", "").await.unwrap();
    let mut side_by_side = 0;
    while job.is_running() {
        job = step(&vault, &job, 16).await;
        vault = proven(&bench, vault).await;
        let (subject, dek) = &dead[0];
        let versions =
            deks(&bench).await.into_keys().filter(|(of, keyring, _)| (*of, *keyring) == (*subject, dek.keyring));
        if versions.count() == 2 {
            side_by_side += 1;
            // What comes meanwhile comes under the new version.
            let value = format!("while it moves {side_by_side}");
            left.push((store_one(&vault, "borrower.address", &value, "big").await, value));
        }
        all_read(&vault, &left).await;
        assert!(job.done <= job.total);
    }
    assert!(side_by_side >= 3, "{side_by_side}");
    assert_eq!((job.done, job.total, job.skipped), (1, 1, 0));
    are_dead(&bench, &vault, &dead).await;
    let moved: Vec<usize> = {
        let told = leaves(&vault).await;
        let pages = told.iter().filter(|leaf| leaf["action"] == "roll");
        pages.filter_map(|leaf| leaf["detail"]["values"].as_str()?.parse().ok()).collect()
    };
    assert_eq!(moved.iter().sum::<usize>(), 59);
    assert!(moved.iter().all(|values| *values <= 16), "{moved:?}");
}

#[tokio::test]
async fn what_a_cancelled_roll_has_left_and_what_was_deleted_since_is_done_by_the_next() {
    let (bench, vault) = Bench::new().await;
    let mut left = many(&vault, "big", 40).await;
    delete(&vault, &left.remove(0).0).await;
    let mut dead = of_marks(&marks(&bench).await, &deks(&bench).await);
    start(&vault, "", "").await.unwrap();
    let job = step(&vault, &running(&vault, KIND).await, 10).await;
    assert_eq!((job.done, job.is_running()), (0, true));
    let cancel = CancelJob { name: "roll".to_owned() };
    assert_eq!(vault.cancel_job(&caller(Role::Rotator), &cancel).await.unwrap().state, "cancelled");
    // One that has moved, and one that has not.
    delete(&vault, &left.remove(0).0).await;
    delete(&vault, &left.remove(37).0).await;
    let marked = marks(&bench).await;
    assert_eq!(marked.iter().map(|mark| mark.version).collect::<Vec<_>>(), [1, 2].map(DekVersion));
    let both = of_marks(&marked, &deks(&bench).await);
    dead.extend(both.into_iter().filter(|(_, dek)| dek.version == DekVersion(2)));
    let vault = proven(&bench, vault).await;
    all_read(&vault, &left).await;
    for entries in [1, 5] {
        let job = roll(&vault, entries).await;
        assert_eq!((job.state, job.skipped), ("done", 0));
    }
    assert_eq!(marks(&bench).await, []);
    are_dead(&bench, &vault, &dead).await;
    let vault = proven(&bench, vault).await;
    all_read(&vault, &left).await;
}

#[tokio::test]
async fn whatever_comes_between_no_value_is_lost_and_no_dek_comes_back() {
    let mut in_all = 0;
    for seed in 1..=6_u64 {
        let (bench, vault) = Bench::new().await;
        let at_work = AtomicUsize::new(3);
        let work = async |worker: u64| {
            let mut dice = seed * 1_000 + worker;
            let mut live: Vec<(String, String)> = Vec::new();
            for number in 0..60 {
                // Knuth's: the same in every run.
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (what, which) = ((dice >> 33) % 10, (dice >> 40) as usize);
                let value = format!("value {worker}-{number}");
                if live.is_empty() || what < 4 {
                    let subject = format!("c-{}", which % 3);
                    live.push((store_one(&vault, "borrower.address", &value, &subject).await, value));
                    continue;
                }
                let place = which % live.len();
                match what {
                    4 | 5 => {
                        replace(&vault, &live[place].0, &value).await;
                        live[place].1 = value;
                    }
                    6 | 7 => delete(&vault, &live.remove(place).0).await,
                    _ => all_read(&vault, &live[place..=place]).await,
                }
            }
            at_work.fetch_sub(1, Ordering::SeqCst);
            live
        };
        let rolls = async {
            let mut rolled = 0;
            while at_work.load(Ordering::SeqCst) > 0 {
                rolled += roll(&vault, 4).await.done;
                tokio::task::yield_now().await;
            }
            rolled
        };
        let rewraps = async {
            while at_work.load(Ordering::SeqCst) > 0 {
                rotate(&vault, "kek/1").await.unwrap();
                vault.start_rewrap(&caller(Role::Rotator), &StartRewrap { name: String::new() }).await.unwrap();
                assert_eq!(to_its_end(&vault, JobKind::Rewrap, 3).await.skipped, 0);
            }
        };
        let (one, two, three, rolled, ()) = tokio::join!(work(1), work(2), work(3), rolls, rewraps);
        in_all += rolled;
        let last = roll(&vault, 4).await;
        assert_eq!((last.state, last.skipped), ("done", 0));
        assert_eq!(marks(&bench).await, []);
        for record in records(&bench).await {
            let keyrings: HashSet<KeyringNo> = record.deks.iter().map(|dek| dek.keyring).collect();
            assert_eq!(keyrings.len(), record.deks.len(), "one version of each DEK is left");
        }
        let live = [one, two, three].concat();
        assert_eq!(vault.health(), "serving");
        all_read(&vault, &live).await;
        let vault = proven(&bench, vault).await;
        all_read(&vault, &live).await;
    }
    assert!(in_all > 0, "nothing was rolled while they were at work");
}

#[tokio::test]
async fn a_roll_whose_reads_and_writes_fail_goes_on_and_loses_nothing() {
    let (bench, vault) = Bench::new().await;
    let mut left = many(&vault, "big", 50).await;
    for number in 0..10 {
        left.extend(many(&vault, &format!("c-{number}"), 3).await);
    }
    let before = deks(&bench).await;
    for _ in 0..5 {
        delete(&vault, &left.remove(45).0).await;
    }
    delete(&vault, &left.remove(60).0).await;
    let dead = of_marks(&marks(&bench).await, &before);
    let job = start(&vault, "", "").await.unwrap();
    let cut = to_its_end_by_chance(&bench, &vault, job, 2, 7).await;
    assert!(cut > 3, "{cut}");
    let vault = proven(&bench, vault).await;
    assert_eq!(marks(&bench).await, []);
    are_dead(&bench, &vault, &dead).await;
    all_read(&vault, &left).await;
}

#[tokio::test]
async fn who_asks_for_it_rolls_a_whole_keyring_one_subject_or_the_ids_of_all() {
    let (bench, vault) = Bench::new().await;
    let stored = filled(&vault).await;
    let versions = async |keyring: u16| {
        let mut versions: Vec<u32> = Vec::new();
        for ((_, of, version), _) in deks(&bench).await {
            versions.extend((of == KeyringNo(keyring)).then_some(version.0));
        }
        versions.sort_unstable();
        versions
    };
    let keyrings: HashSet<u16> = deks(&bench).await.into_keys().map(|(_, keyring, _)| keyring.0).collect();
    assert!(keyrings.len() > 2, "{keyrings:?}");
    for (turn, keyring) in (1..).zip(&keyrings) {
        let all = versions(*keyring).await.len();
        let before = of_keyring(&bench, *keyring).await;
        let name = format!("kek/{keyring}");
        assert_eq!(start(&vault, &name, "").await.unwrap().key, name);
        let job = to_its_end(&vault, KIND, 3).await;
        assert_eq!((job.number, job.done, job.total), (turn, all as u64, all as u64));
        assert_eq!(versions(*keyring).await, vec![2; all]);
        are_dead(&bench, &vault, &before).await;
    }
    // All of them in one commit, and in one record.
    start(&vault, "", "c-1").await.unwrap();
    let job = to_its_end(&vault, KIND, 1_000).await;
    let deks_of_one = job.done;
    let mut third = 0;
    for keyring in &keyrings {
        third += versions(*keyring).await.into_iter().filter(|version| *version == 3).count();
    }
    assert_eq!((deks_of_one, third as u64), (job.total, deks_of_one));
    assert!(deks_of_one > 1);
    // The one DEK of both.
    start(&vault, "kek/0", "c-1").await.unwrap();
    assert_eq!(to_its_end(&vault, KIND, 3).await.done, 1);
    let vault = proven(&bench, vault).await;
    all_read(&vault, &stored).await;
    // The same id still leads to the same subject.
    let subjects = records(&bench).await.len();
    store_one(&vault, "borrower.address", "again", "c-1").await;
    assert_eq!(records(&bench).await.len(), subjects);
    let told = serde_json::to_string(&leaves(&vault).await).unwrap();
    assert!(!told.contains("c-1\""), "no subject's id stands in the ledger");
}

#[tokio::test]
async fn a_value_that_comes_while_the_first_page_is_read_is_not_left_behind() {
    for entries in [3, 1_000] {
        let (bench, vault) = Bench::new().await;
        let mut left = many(&vault, "big", 10).await;
        delete(&vault, &left.remove(0).0).await;
        let dead = of_marks(&marks(&bench).await, &deks(&bench).await);
        let job = start(&vault, "", "").await.unwrap();
        let page = RollPage(JobPage { kind: KIND, number: job.number, entries, total: Some(1), of: 0, kept: 0 });
        let itself = caller(Role::Operator);
        let tenant = vault.tenant(TENANT).unwrap();
        let road = vault.road(&tenant, &itself, &page, [1; 16]).await.unwrap();
        let Ok(prepared) = page.attempt(&road).await else { panic!("the page can be prepared") };
        left.push((store_one(&vault, "borrower.address", "in between", "big").await, "in between".to_owned()));
        let position = road.position;
        assert!(matches!(road.commit_at(position, prepared).await, Err(CommitError::Conflict(_))));
        drop(road);
        assert_eq!(to_its_end(&vault, KIND, entries).await.done, 1);
        are_dead(&bench, &vault, &dead).await;
        let vault = proven(&bench, vault).await;
        all_read(&vault, &left).await;
    }
}

#[tokio::test]
async fn marks_that_nobody_can_read_stop_no_roll() {
    let (bench, vault) = Bench::new().await;
    let mut left = many(&vault, "big", 5).await;
    delete(&vault, &left.remove(0).0).await;
    let marked = marks(&bench).await;
    let (before, _) = place::all_dek_marks_range(TENANT);
    for number in 0..5_u8 {
        let mark = [&before[..], &[0, number]].concat();
        bench.disk.write(vec![Mutation::Put(Family::Meta, mark, vec![])]).await.unwrap();
    }
    start(&vault, "", "").await.unwrap();
    let job = to_its_end(&vault, KIND, 2).await;
    assert_eq!((job.state, job.done, job.total, job.skipped), ("done", 1, 6, 5));
    let (from, to) = place::dek_marks_range(TENANT, marked[0].subject, marked[0].keyring);
    assert_eq!(bench.disk.scan(Family::Meta, Range { from, to, limit: 10 }).await.unwrap().len(), 0);
    assert_eq!(vault.health(), "damaged");
    all_read(&vault, &left).await;
}

async fn of_keyring(bench: &Bench, keyring: u16) -> Vec<(SubjectHandle, WrappedDek)> {
    let deks = deks(bench).await.into_iter().filter(|((_, of, _), _)| *of == KeyringNo(keyring));
    deks.map(|((subject, ..), dek)| (subject, dek)).collect()
}

#[tokio::test]
async fn what_a_disabled_version_wraps_waits_with_its_mark() {
    let (bench, vault) = Bench::new().await;
    let mut left = many(&vault, "big", 10).await;
    delete(&vault, &left.remove(0).0).await;
    let marked = marks(&bench).await;
    let kek = format!("kek/{}", marked[0].keyring);
    set_state(&vault, &kek, 1, "disabled").await.unwrap();
    let job = roll(&vault, 3).await;
    assert_eq!((job.state, job.done, job.total, job.skipped), ("done", 0, 1, 1));
    assert_eq!(marks(&bench).await, marked);
    set_state(&vault, &kek, 1, "enabled").await.unwrap();
    assert_eq!(vault.health(), "serving");
    let job = roll(&vault, 3).await;
    assert_eq!((job.done, job.skipped), (1, 0));
    let vault = proven(&bench, vault).await;
    all_read(&vault, &left).await;
}

#[tokio::test]
async fn a_value_that_cant_be_opened_keeps_its_dek_and_stops_no_other() {
    for damaged in [2, 25] {
        let (bench, vault) = Bench::new().await;
        let mut big = many(&vault, "big", 40).await;
        let mut other = many(&vault, "other", 4).await;
        delete(&vault, &big.remove(0).0).await;
        delete(&vault, &other.remove(0).0).await;
        let marked = marks(&bench).await;
        let (key, row) = all(&bench, Family::Rows).await.remove(damaged);
        let mut bytes = row.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        bench.disk.write(vec![Mutation::Put(Family::Rows, key.to_vec(), bytes)]).await.unwrap();
        let job = roll(&vault, 10).await;
        assert_eq!((job.state, job.done, job.skipped), ("done", 1, 1));
        assert_eq!(vault.health(), "damaged");
        assert_eq!(marks(&bench).await, [marked[0]]);
        // It is put right, and all is there.
        bench.disk.write(vec![Mutation::Put(Family::Rows, key.to_vec(), row.to_vec())]).await.unwrap();
        all_read(&vault, &big).await;
        all_read(&vault, &other).await;
        assert_eq!(roll(&vault, 10).await.done, 1);
        assert_eq!(marks(&bench).await, []);
        let vault = proven(&bench, vault).await;
        all_read(&vault, &big).await;
    }
}

#[tokio::test]
async fn a_value_of_nobody_takes_its_dek_along_and_needs_no_roll() {
    let (bench, vault) = Bench::new().await;
    let mut tokens = Vec::new();
    for value in ["one@mail.example", "two@mail.example"] {
        tokens.push(store_one(&vault, "borrower.email", value, "").await);
    }
    let own = async || {
        let rows = all(&bench, Family::RowDeks).await;
        rows.iter().map(|(_, row)| RowDek::decode(row).unwrap().blob).collect::<Vec<_>>()
    };
    let before = own().await;
    delete(&vault, &tokens[0]).await;
    replace(&vault, &tokens[1], "three@mail.example").await;
    let after = own().await;
    assert_eq!((before.len(), after.len()), (2, 1));
    assert!(!before.contains(&after[0]));
    assert_eq!(marks(&bench).await, []);
    assert_eq!(roll(&vault, 10).await.total, 0);
}

#[tokio::test]
async fn a_dek_that_is_put_back_after_its_roll_is_named() {
    let (bench, vault) = Bench::new().await;
    let mut left = many(&vault, "big", 5).await;
    delete(&vault, &left.remove(0).0).await;
    let dead = of_marks(&marks(&bench).await, &deks(&bench).await);
    roll(&vault, 10).await;
    vault.close().await;
    let mut record = records(&bench).await.remove(0);
    record.deks.push(dead[0].1.clone());
    let key = place::subject(TENANT, record.handle);
    bench.disk.write(vec![Mutation::Put(Family::Subjects, key, record.encode())]).await.unwrap();
    let found = findings(&bench, &[]).await;
    let said: Vec<_> = found.iter().map(|finding| (finding.kind.as_str(), finding.fault.as_str())).collect();
    assert_eq!(said, [("dek", "added")], "{found:?}");
}

#[tokio::test]
async fn who_may_not_rolls_nothing_and_a_subject_that_nobody_knows_is_told_so() {
    let (_bench, vault) = Bench::new().await;
    let request = StartRoll { name: String::new(), subject: String::new() };
    for role in [Role::App, Role::Privacy, Role::Auditor] {
        assert!(matches!(vault.start_roll(&caller(role), &request).await, Err(Error::Denied { .. })));
    }
    assert!(matches!(start(&vault, "", "13800138000").await, Err(Error::NotFoundAt(_))));
    assert!(matches!(start(&vault, "token", "").await, Err(Error::Invalid(_))));
    assert!(matches!(start(&vault, "", &"x".repeat(200)).await, Err(Error::Invalid(_))));
    let told = serde_json::to_string(&leaves(&vault).await).unwrap();
    assert!(told.contains("\"sent\"") && !told.contains("13800138000"));
    many(&vault, "c-1", 2).await;
    let job = start(&vault, "", "c-1").await.unwrap();
    assert!(
        matches!(start(&vault, "", "").await, Err(Error::JobRunning { kind: "roll", number }) if number == job.number)
    );
}
