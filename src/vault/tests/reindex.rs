//! Index keys that rotate: whatever is looked for is found, nothing gets a second token, and the old versions can go.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;

use strongroom_commit::CommitError;
use strongroom_storage::rows::{IndexKind, JobKind, SubjectRecord, ValueRow};
use strongroom_storage::{Entry, Family, Mutation, Range, Store};

use super::keys::{
    TENANT, all_read, destroy, filled, rotate, running, set_state, step, to_its_end, to_its_end_by_chance,
};
use super::rolls::{delete, proven, roll};
use super::*;
use crate::reindex::ReindexPage;
use crate::road::Attempt;
use crate::{CancelJob, Job, JobPage};

const KIND: JobKind = JobKind::Reindex;
const USCCS: [&str; 2] = ["91350100M000100Y43", "91110000600037341L"];
/// The index keys of what [`Stored`] holds: of fields, of subjects' ids, of tokens.
const INDEXES: [&str; 5] = ["index/field/3", "index/field/11", "index/field/14", "index/subject-id", "index/token"];

async fn start(vault: &Tested) -> Result<Job, Error> {
    vault.start_reindex(&caller(Role::Rotator)).await
}

async fn reindex(vault: &Tested, entries: usize) -> Job {
    start(vault).await.unwrap();
    to_its_end(vault, KIND, entries).await
}

async fn rotate_all(vault: &Tested) {
    for name in INDEXES {
        assert!(rotate(vault, name).await.unwrap().rotated, "{name}");
    }
}

/// How many entries depend on a version of any index key.
async fn dependants(vault: &Tested, version: u32) -> u64 {
    let mut all = 0;
    for name in INDEXES {
        all += destroy(vault, name, version, true).await.unwrap();
    }
    all
}

fn mobile(number: usize) -> String {
    format!("138{number:08}")
}

/// Values of all kinds of index, with the tokens that they have, and how they are stored and found once more.
struct Stored {
    /// Fields that give the same token for the same value: field, value, subject.
    once: HashMap<(&'static str, String, String), String>,
    /// Values that are looked up, several tokens each.
    looked_up: HashMap<String, Vec<String>>,
    /// Tokens with a shape, and the rest.
    tokens: Vec<(String, String)>,
}

impl Stored {
    async fn new(vault: &Tested) -> Self {
        let mut stored = Self { once: HashMap::new(), looked_up: HashMap::new(), tokens: filled(vault).await };
        for subject in 0..6 {
            for (field, value) in [
                ("company.settlement_account", format!("account-{:08}", subject % 2)),
                ("company.uscc", USCCS[subject % 2].to_owned()),
            ] {
                let subject = format!("co-{subject}");
                let token = store_one(vault, field, &value, &subject).await;
                stored.once.insert((field, value, subject), token);
            }
        }
        for number in 0..12 {
            let subject = if number % 3 == 0 { String::new() } else { format!("c-{number}") };
            let token = store_one(vault, "borrower.mobile", &mobile(number % 4), &subject).await;
            stored.looked_up.entry(mobile(number % 4)).or_default().push(token);
        }
        stored
    }

    /// Everything is found, and nothing gets a second token.
    async fn all_found(&self, bench: &Bench, vault: &Tested) {
        let subjects = subjects(bench).await.len();
        for ((field, value, subject), token) in &self.once {
            assert_eq!(store_one(vault, field, value, subject).await, *token, "{field} {subject}");
        }
        assert_eq!(super::rolls::all(bench, Family::Subjects).await.len(), subjects, "nobody is two subjects");
        for (value, tokens) in &self.looked_up {
            let mut tokens = tokens.clone();
            tokens.sort_unstable();
            assert_eq!(found(vault, "borrower.mobile", value).await, tokens);
        }
        for value in USCCS {
            assert_eq!(found(vault, "company.uscc", value).await.len(), 1);
        }
        all_read(vault, &self.tokens).await;
    }
}

async fn found(vault: &Tested, field: &str, value: &str) -> Vec<String> {
    let items = vec![LookupItem { field: field.to_owned(), value: value.to_owned().into() }];
    let request = Lookup { items, purpose: "kyc_review".to_owned() };
    let mut tokens = vault.lookup(&caller(Role::App), &request).await.unwrap().remove(0).unwrap().tokens;
    tokens.sort_unstable();
    tokens
}

async fn subjects(bench: &Bench) -> Vec<SubjectRecord> {
    let records = super::rolls::all(bench, Family::Subjects).await;
    records.iter().map(|(_, row)| SubjectRecord::decode(row).unwrap()).collect()
}

async fn index(bench: &Bench) -> Vec<Entry> {
    let (from, to) = (TENANT.0.to_be_bytes().to_vec(), (TENANT.0 + 1).to_be_bytes().to_vec());
    bench.disk.scan(Family::Index, Range { from, to, limit: 1_000_000 }).await.unwrap()
}

#[tokio::test]
async fn an_index_key_has_few_versions_that_every_look_up_asks() {
    let (_bench, vault) = Bench::new().await;
    for _ in 0..3 {
        assert!(rotate(&vault, "index/token").await.unwrap().rotated);
    }
    let refused = rotate(&vault, "index/token").await.err().unwrap();
    assert!(matches!(&refused, Error::KeyState(why) if why.contains("keys reindex")), "{refused}");
    reindex(&vault, 10).await;
    destroy(&vault, "index/token", 1, false).await.unwrap();
    assert!(rotate(&vault, "index/token").await.unwrap().rotated);
}

#[tokio::test]
async fn while_entries_move_all_is_found_and_nothing_twice_and_then_the_old_versions_can_go() {
    for entries in [1, 7, 1_000] {
        let (bench, vault) = Bench::new().await;
        let stored = Stored::new(&vault).await;
        rotate_all(&vault).await;
        stored.all_found(&bench, &vault).await;
        let before = index(&bench).await;
        let due = dependants(&vault, 1).await;
        assert!(due > 60, "{due}");
        let refused = destroy(&vault, "index/subject-id", 1, false).await;
        assert!(matches!(refused, Err(Error::KeyInUse { what, .. }) if what.contains("keys reindex")));

        let mut vault = vault;
        let mut job = start(&vault).await.unwrap();
        let mut steps = 0;
        while job.is_running() {
            job = step(&vault, &job, entries).await;
            assert_eq!((job.total, job.done), (due, due - dependants(&vault, 1).await), "its figures are exact");
            if steps % 40 == 1 {
                vault = proven(&bench, vault).await;
                stored.all_found(&bench, &vault).await;
            }
            steps += 1;
        }
        assert_eq!((job.state, job.done, job.skipped), ("done", due, 0));
        stored.all_found(&bench, &vault).await;
        let after = index(&bench).await;
        assert_eq!(after.len(), before.len());
        assert!(before.iter().all(|(key, _)| after.iter().all(|(other, _)| other != key)), "every entry has moved");
        for name in INDEXES {
            destroy(&vault, name, 1, false).await.unwrap();
        }
        let vault = proven(&bench, vault).await;
        stored.all_found(&bench, &vault).await;
        let again = reindex(&vault, entries).await;
        assert_eq!((again.name.as_str(), again.total, again.done), ("reindex/2", 0, 0), "nothing is left to do");
    }
}

#[tokio::test]
async fn several_versions_answer_at_once_and_all_of_them_are_left() {
    let (bench, vault) = Bench::new().await;
    let stored = Stored::new(&vault).await;
    rotate_all(&vault).await;
    start(&vault).await.unwrap();
    let mut job = running(&vault, KIND).await;
    for _ in 0..3 {
        job = step(&vault, &job, 5).await;
    }
    let cancel = CancelJob { name: "reindex".to_owned() };
    assert_eq!(vault.cancel_job(&caller(Role::Rotator), &cancel).await.unwrap().state, "cancelled");
    rotate_all(&vault).await;
    stored.all_found(&bench, &vault).await;
    assert!(dependants(&vault, 1).await > 0 && dependants(&vault, 2).await > 0);
    // What leaked still leads to what stands under it.
    set_state(&vault, "index/field/14", 1, "compromised").await.unwrap();
    stored.all_found(&bench, &vault).await;
    let vault = proven(&bench, vault).await;
    let job = reindex(&vault, 9).await;
    assert_eq!((job.state, job.skipped, job.done), ("done", 0, job.total));
    assert_eq!(dependants(&vault, 1).await + dependants(&vault, 2).await, 0);
    let vault = proven(&bench, vault).await;
    stored.all_found(&bench, &vault).await;
}

#[tokio::test]
async fn whatever_comes_between_no_value_and_no_subject_is_stored_twice() {
    let mut in_all = 0;
    for seed in 1..=6_u64 {
        let (bench, vault) = Bench::new().await;
        let at_work = AtomicUsize::new(3);
        let work = async |worker: u64| {
            let mut dice = seed * 1_000 + worker;
            let mut live = Vec::new();
            let mut known: HashMap<(&str, String, String), String> = HashMap::new();
            for number in 0..80 {
                // Knuth's: the same in every run.
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (what, which) = ((dice >> 33) % 8, (dice >> 40) as usize);
                let subject = format!("s-{}", which % 5);
                match what {
                    // The same values and subjects for all workers.
                    0..=2 => {
                        let value = format!("account-{:08}", which % 3);
                        let token = store_one(&vault, "company.settlement_account", &value, &subject).await;
                        let before = known.insert(("account", value, subject), token.clone());
                        assert!(before.is_none_or(|before| before == token), "a value has a second token");
                    }
                    3 => {
                        let token = store_one(&vault, "company.uscc", USCCS[which % 2], &subject).await;
                        let key = ("uscc", USCCS[which % 2].to_owned(), String::new());
                        let before = known.insert(key, token.clone());
                        assert!(before.is_none_or(|before| before == token), "a value has a second token");
                    }
                    4 | 5 => {
                        let value = format!("w{worker}.{number}@mail.example");
                        live.push((store_one(&vault, "borrower.email", &value, &subject).await, value));
                    }
                    6 if !live.is_empty() => delete(&vault, &live.remove(which % live.len()).0).await,
                    _ => all_read(&vault, &live).await,
                }
            }
            at_work.fetch_sub(1, Ordering::SeqCst);
            (live, known)
        };
        let reindexes = async {
            let (mut moved, mut old) = (0, 1);
            while at_work.load(Ordering::SeqCst) > 0 {
                rotate_all(&vault).await;
                let job = reindex(&vault, 3).await;
                assert_eq!(job.skipped, 0);
                moved += job.done;
                for name in INDEXES {
                    destroy(&vault, name, old, false).await.unwrap();
                }
                old += 1;
            }
            moved
        };
        let rolls = async {
            while at_work.load(Ordering::SeqCst) > 0 {
                roll(&vault, 4).await;
                tokio::task::yield_now().await;
            }
        };
        let (one, two, three, moved, ()) = tokio::join!(work(1), work(2), work(3), reindexes, rolls);
        in_all += moved;
        let mut all: HashMap<(&str, String, String), String> = HashMap::new();
        for (key, token) in [&one.1, &two.1, &three.1].into_iter().flatten() {
            let before = all.insert(key.clone(), token.clone());
            assert!(before.is_none_or(|before| before == *token), "two workers have two tokens for {key:?}");
        }
        assert_eq!(subjects(&bench).await.len(), 5, "nobody is two subjects");
        assert_eq!(vault.health(), "serving");
        let live = [one.0, two.0, three.0].concat();
        let vault = proven(&bench, vault).await;
        all_read(&vault, &live).await;
    }
    assert!(in_all > 0, "nothing moved while they were at work");
}

#[tokio::test]
async fn what_is_stored_between_the_reading_of_a_page_and_its_commit_turns_the_page_back() {
    let (bench, vault) = Bench::new().await;
    let stored = Stored::new(&vault).await;
    rotate_all(&vault).await;
    let job = start(&vault).await.unwrap();
    let page = ReindexPage(JobPage { kind: KIND, number: job.number, entries: 1_000, total: Some(1), of: 0, kept: 0 });
    let itself = caller(Role::Operator);
    let tenant = vault.tenant(TENANT).unwrap();
    // A new DEK in the record of a subject whose entry is about to move.
    let road = vault.road(&tenant, &itself, &page, [1; 16]).await.unwrap();
    let Ok(prepared) = page.attempt(&road).await else { panic!("the page can be prepared") };
    store_one(&vault, "borrower.account_opened", "2020-01-01", "co-1").await;
    let position = road.position;
    assert!(matches!(road.commit_at(position, prepared).await, Err(CommitError::Conflict(_))));
    drop(road);
    // And the other way round: who has looked before an entry moves looks again.
    let again = tokenize(vec![new_value("company.settlement_account", "account-00000001", "co-1")], "");
    let app = caller(Role::App);
    let road = vault.road(&tenant, &app, &again, [2; 16]).await.unwrap();
    let Ok(prepared) = again.attempt(&road).await else { panic!("the value can be stored") };
    to_its_end(&vault, KIND, 1_000).await;
    let position = road.position;
    assert!(matches!(road.commit_at(position, prepared).await, Err(CommitError::Conflict(_))));
    drop(road);
    stored.all_found(&bench, &vault).await;
    proven(&bench, vault).await;
}

#[tokio::test]
async fn a_reindex_whose_reads_and_writes_fail_goes_on_and_loses_nothing() {
    let (bench, vault) = Bench::new().await;
    let stored = Stored::new(&vault).await;
    rotate_all(&vault).await;
    let due = dependants(&vault, 1).await;
    let job = start(&vault).await.unwrap();
    let cut = to_its_end_by_chance(&bench, &vault, job, due, 11).await;
    assert!(cut > 3, "{cut}");
    let vault = proven(&bench, vault).await;
    assert_eq!(dependants(&vault, 1).await, 0);
    stored.all_found(&bench, &vault).await;
}

#[tokio::test]
async fn what_a_disabled_kek_keeps_shut_stays_where_it_is_and_is_found() {
    let (bench, vault) = Bench::new().await;
    let stored = Stored::new(&vault).await;
    rotate_all(&vault).await;
    set_state(&vault, "kek/0", 1, "disabled").await.unwrap();
    let due = subjects(&bench).await.len() as u64;
    let job = reindex(&vault, 9).await;
    assert_eq!((job.state, job.skipped, job.done), ("done", due, job.total - due));
    assert_eq!(destroy(&vault, "index/subject-id", 1, true).await.unwrap(), due);
    set_state(&vault, "kek/0", 1, "enabled").await.unwrap();
    assert_eq!(vault.health(), "serving");
    stored.all_found(&bench, &vault).await;
    let job = reindex(&vault, 9).await;
    assert_eq!((job.skipped, job.done), (0, due));
    let vault = proven(&bench, vault).await;
    stored.all_found(&bench, &vault).await;
}

#[tokio::test]
async fn an_entry_that_is_gone_or_a_value_that_cant_be_opened_stops_no_other() {
    let (bench, vault) = Bench::new().await;
    let stored = Stored::new(&vault).await;
    rotate_all(&vault).await;
    let due = dependants(&vault, 1).await;
    let gone = index(&bench).await.into_iter().find(|(key, _)| key[4] == IndexKind::Value.number()).unwrap();
    bench.disk.write(vec![Mutation::Delete(Family::Index, gone.0.to_vec())]).await.unwrap();
    let rows = super::rolls::all(&bench, Family::Rows).await;
    let shut = rows.iter().find(|(_, row)| ValueRow::decode(row).unwrap().sealed_token.is_some()).unwrap();
    let mut bytes = shut.1.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    bench.disk.write(vec![Mutation::Put(Family::Rows, shut.0.to_vec(), bytes)]).await.unwrap();
    let job = reindex(&vault, 20).await;
    assert_eq!((job.state, job.done, job.skipped), ("done", due - 2, 2));
    assert_eq!(vault.health(), "damaged");
    assert_eq!(dependants(&vault, 1).await, 2);
    // They are put right, and the next one moves them.
    bench.disk.write(vec![Mutation::Put(Family::Index, gone.0.to_vec(), gone.1.to_vec())]).await.unwrap();
    bench.disk.write(vec![Mutation::Put(Family::Rows, shut.0.to_vec(), shut.1.to_vec())]).await.unwrap();
    assert_eq!(reindex(&vault, 20).await.done, 2);
    let vault = proven(&bench, vault).await;
    stored.all_found(&bench, &vault).await;
}

#[tokio::test]
async fn what_has_expired_moves_as_well() {
    let (bench, vault) = Bench::new().await;
    let soon = Some(bench.now.load(Ordering::Relaxed) + 60_000_000);
    let account = |expires| NewValue { expires, ..new_value("company.settlement_account", "account-1", "co-1") };
    let first = vault.tokenize(&caller(Role::App), &tokenize(vec![account(soon)], "")).await.unwrap();
    bench.pass(120);
    rotate_all(&vault).await;
    assert_eq!(reindex(&vault, 9).await.done, 2);
    assert_eq!(dependants(&vault, 1).await, 0);
    let vault = proven(&bench, vault).await;
    let second = vault.tokenize(&caller(Role::App), &tokenize(vec![account(None)], "")).await.unwrap();
    assert_ne!(first, second, "it has made room");
    proven(&bench, vault).await;
}

#[tokio::test]
async fn who_may_not_starts_nothing_and_keys_that_do_not_rotate_say_why() {
    let (_bench, vault) = Bench::new().await;
    for role in [Role::App, Role::Privacy, Role::Auditor] {
        assert!(matches!(vault.start_reindex(&caller(role)).await, Err(Error::Denied { .. })));
    }
    let fingerprint = "index/fingerprint";
    let Err(Error::Invalid(wrong)) = rotate(&vault, fingerprint).await else { panic!("it rotates") };
    assert!(wrong[0].description.contains("rules in force"), "{}", wrong[0].description);
    assert!(matches!(destroy(&vault, fingerprint, 1, false).await, Err(Error::Invalid(_))));
    assert!(matches!(destroy(&vault, "index/token", 1, false).await, Err(Error::KeyState(_))), "it is the newest");
    let listed = vault.list_keys(&caller(Role::Rotator)).await.unwrap();
    let due: Vec<&str> = listed.iter().filter(|key| key.next_rotation.is_some()).map(|key| key.name.as_str()).collect();
    assert!(INDEXES.iter().all(|name| due.contains(name)) && !due.contains(&"index/fingerprint"), "{due:?}");
    start(&vault).await.unwrap();
    assert!(matches!(start(&vault).await, Err(Error::JobRunning { kind: "reindex", number: 1 })));
}
