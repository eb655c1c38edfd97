//! Keys that change while values stay, and changes that a crash cuts off.

use strongroom_storage::rows::JobKind;
use strongroom_storage::{Family, Range, Store};

use super::*;
use crate::{CancelJob, Count, DestroyKeyVersion, GetJob, Job, JobPage, RotateKey, Rotated, SetKeyState, StartRewrap};

pub(super) const TENANT: TenantNo = TenantNo(1);

pub(super) async fn rotate(vault: &Tested, name: &str) -> Result<Rotated, Error> {
    vault.rotate_key(&caller(Role::Rotator), &RotateKey { name: name.to_owned(), from_version: 0 }).await
}

pub(super) async fn set_state(vault: &Tested, name: &str, version: u32, state: &str) -> Result<(), Error> {
    let request = SetKeyState { name: name.to_owned(), version, state: state.to_owned() };
    vault.set_key_state(&caller(Role::Officer), &request).await
}

pub(super) async fn destroy(vault: &Tested, name: &str, version: u32, dry_run: bool) -> Result<u64, Error> {
    let request = DestroyKeyVersion { name: name.to_owned(), version, dry_run };
    with_approval(vault, TENANT, async || vault.destroy_key_version(&caller(Role::Officer), &request).await).await
}

async fn start(vault: &Tested) -> Result<Job, Error> {
    vault.start_rewrap(&caller(Role::Rotator), &StartRewrap { name: String::new() }).await
}

/// Takes the running rewrap to its end, in pages of so many entries.
async fn rewrap(vault: &Tested, entries: usize) -> Job {
    to_its_end(vault, JobKind::Rewrap, entries).await
}

/// The running job of a kind.
pub(super) async fn running(vault: &Tested, kind: JobKind) -> Job {
    let jobs = vault.running_jobs().await.unwrap();
    jobs.into_iter().find(|(tenant, job)| (*tenant, job.kind) == (TENANT, kind)).unwrap().1
}

/// Does the next page of a job.
pub(super) async fn step(vault: &Tested, job: &Job, entries: usize) -> Job {
    let mut count = Count::default();
    if job.to_count {
        while vault.count_for_job(TENANT, job.kind, &mut count, entries).await.unwrap() {}
    }
    let (total, of) = (job.to_count.then_some(count.due), count.of);
    vault
        .job_page(TENANT, JobPage { kind: job.kind, number: job.number, entries, total, of, kept: count.kept })
        .await
        .unwrap()
}

/// Takes the running job of a kind to its end, in pages of so many entries.
pub(super) async fn to_its_end(vault: &Tested, kind: JobKind, entries: usize) -> Job {
    let mut job = running(vault, kind).await;
    while job.is_running() {
        job = step(vault, &job, entries).await;
    }
    job
}

/// Takes a job to its end while reads and writes fail by chance. Says how often it was cut off.
pub(super) async fn to_its_end_by_chance(bench: &Bench, vault: &Tested, mut job: Job, total: u64, seed: u64) -> u32 {
    bench.faults.by_chance(seed, 8, 4);
    let mut cut = 0;
    while job.is_running() {
        let total = job.to_count.then_some(total);
        let page = JobPage { kind: job.kind, number: job.number, entries: 5, total, of: 0, kept: 0 };
        match vault.job_page(TENANT, page).await {
            Ok(further) => job = further,
            // It was stored, and its answer was lost.
            Err(Error::JobEnded(_)) => break,
            Err(_) => {
                cut += 1;
                recovered(vault).await;
            }
        }
    }
    bench.faults.heal();
    cut
}

/// The versions and states of a key.
async fn states(vault: &Tested, name: &str) -> Vec<(u32, &'static str)> {
    let keys = vault.list_keys(&caller(Role::Rotator)).await.unwrap();
    keys.into_iter().filter(|key| key.name == name).map(|key| (key.version, key.state)).collect()
}

/// Values of all kinds, with their tokens: of subjects, of nobody, shaped, shared.
pub(super) async fn filled(vault: &Tested) -> Vec<(String, String)> {
    let mut stored = Vec::new();
    for number in 0..40 {
        let subject = if number % 4 == 0 { String::new() } else { format!("c-{}", number % 10) };
        for (field, value) in [
            ("borrower.address", format!("address {number}")),
            ("borrower.email", format!("m{number}@mail.example")),
            ("company.settlement_account", format!("account-{number:08}")),
        ] {
            if field != "company.settlement_account" || !subject.is_empty() {
                stored.push((store_one(vault, field, &value, &subject).await, value));
            }
        }
    }
    stored
}

pub(super) async fn all_read(vault: &Tested, stored: &[(String, String)]) {
    for (token, value) in stored {
        let request = Detokenize { purpose: "loan_servicing".to_owned(), ..read(token, "plain") };
        let results = vault.detokenize(&caller(Role::App), &request).await.unwrap();
        assert_eq!(results[0].as_ref().unwrap().value.as_bytes(), value.as_bytes());
    }
}

#[tokio::test]
async fn a_rotation_touches_no_value_and_seals_what_is_new_at_once() {
    let (_bench, vault) = Bench::new().await;
    let stored = filled(&vault).await;
    for key in ["kek/0", "kek/1", "token"] {
        let rotated = rotate(&vault, key).await.unwrap();
        assert_eq!((rotated.version, rotated.rotated), (2, true));
        assert_eq!(states(&vault, key).await, [(1, "decrypt-only"), (2, "enabled")]);
    }
    all_read(&vault, &stored).await;
    let new = store_one(&vault, "borrower.address", "new", "").await;
    assert_ne!(stored[0].0.split('_').next(), new.split('_').next(), "a token names the version of its key");
    assert_eq!(read_one(&vault, &new, "plain").await.unwrap(), b"new");
    let known = RotateKey { name: "kek/1".to_owned(), from_version: 1 };
    let again = vault.rotate_key(&caller(Role::Rotator), &known).await.unwrap();
    assert_eq!((again.version, again.rotated), (2, false), "a call may be repeated");
    let told: Vec<_> = leaves(&vault).await.into_iter().filter(|leaf| leaf["action"] == "rotate_key").collect();
    assert_eq!(told.iter().filter(|leaf| leaf["detail"]["stage"] == "intent").count(), 3);
    assert_eq!(told.iter().filter(|leaf| leaf["detail"]["stage"] == "done").count(), 3);
}

#[tokio::test]
async fn a_rewrap_moves_every_dek_and_then_the_old_versions_can_be_destroyed() {
    for entries in [1, 7, 1_000] {
        let (_bench, vault) = Bench::new().await;
        let stored = filled(&vault).await;
        let keks: Vec<String> = vault
            .list_keys(&caller(Role::Auditor))
            .await
            .unwrap()
            .into_iter()
            .map(|key| key.name)
            .filter(|name| name.starts_with("kek/"))
            .collect();
        let mut before = 0;
        for kek in &keks {
            rotate(&vault, kek).await.unwrap();
            before += destroy(&vault, kek, 1, true).await.unwrap();
        }
        assert!(before > 30, "{before}");
        start(&vault).await.unwrap();
        let job = rewrap(&vault, entries).await;
        assert_eq!((job.state, job.total, job.done, job.skipped), ("done", before, before, 0));
        for kek in &keks {
            assert_eq!(destroy(&vault, kek, 1, true).await.unwrap(), 0);
            assert_eq!(destroy(&vault, kek, 1, false).await.unwrap(), 0);
            assert_eq!(states(&vault, kek).await, [(1, "destroyed"), (2, "enabled")]);
        }
        all_read(&vault, &stored).await;
        // A second one finds nothing to do.
        start(&vault).await.unwrap();
        let job = rewrap(&vault, entries).await;
        assert_eq!((job.name.as_str(), job.total, job.done), ("rewrap/2", 0, 0));
    }
}

#[tokio::test]
async fn what_is_in_use_or_newest_is_not_destroyed_and_nothing_changes() {
    let (_bench, vault) = Bench::new().await;
    let stored = filled(&vault).await;
    assert!(matches!(destroy(&vault, "kek/1", 1, false).await, Err(Error::KeyState(_))));
    rotate(&vault, "kek/1").await.unwrap();
    rotate(&vault, "token").await.unwrap();
    for key in ["kek/1", "token"] {
        let count = destroy(&vault, key, 1, true).await.unwrap();
        let refused = destroy(&vault, key, 1, false).await;
        assert!(
            matches!(refused, Err(Error::KeyInUse { dependants, .. }) if dependants == count && count > 0),
            "{key}"
        );
        assert_eq!(states(&vault, key).await, [(1, "decrypt-only"), (2, "enabled")]);
    }
    all_read(&vault, &stored).await;
    let refused = leaves(&vault).await.into_iter().filter(|leaf| leaf["reason"] == "KEY_IN_USE").count();
    assert_eq!(refused, 2);
}

#[tokio::test]
async fn a_disabled_kek_opens_nothing_until_it_is_enabled_again() {
    let (_bench, vault) = Bench::new().await;
    let stored = filled(&vault).await;
    all_read(&vault, &stored).await;
    let keyring = vault.list_keys(&caller(Role::Rotator)).await.unwrap();
    for key in keyring.iter().filter(|key| key.name.starts_with("kek/")) {
        set_state(&vault, &key.name, 1, "disabled").await.unwrap();
    }
    for (token, _) in &stored {
        let request = Detokenize { purpose: "loan_servicing".to_owned(), ..read(token, "plain") };
        let refused = vault.detokenize(&caller(Role::App), &request).await;
        assert!(matches!(refused, Err(Error::KeyUnavailable(_))), "the cache is no way around");
    }
    let new = tokenize(vec![new_value("borrower.address", "new", "")], "");
    assert!(matches!(vault.tokenize(&caller(Role::App), &new).await, Err(Error::KeyUnavailable(_))));
    for key in keyring.iter().filter(|key| key.name.starts_with("kek/")) {
        set_state(&vault, &key.name, 1, "enabled").await.unwrap();
    }
    all_read(&vault, &stored).await;
}

#[tokio::test]
async fn a_rewrap_leaves_what_a_disabled_version_wraps_and_says_how_much() {
    let (_bench, vault) = Bench::new().await;
    filled(&vault).await;
    set_state(&vault, "kek/1", 1, "disabled").await.unwrap();
    // Who may not stop a key may not go around its stop.
    assert!(matches!(rotate(&vault, "kek/1").await, Err(Error::KeyState(_))));
    let request = RotateKey { name: "kek/1".to_owned(), from_version: 0 };
    vault.rotate_key(&caller(Role::Officer), &request).await.unwrap();
    start(&vault).await.unwrap();
    let job = rewrap(&vault, 10).await;
    assert_eq!((job.state, job.done), ("done", 0));
    assert!(job.skipped > 0 && job.skipped == job.total);
    set_state(&vault, "kek/1", 1, "decrypt-only").await.unwrap();
    start(&vault).await.unwrap();
    let again = rewrap(&vault, 10).await;
    assert_eq!((again.done, again.skipped), (job.skipped, 0));
}

#[tokio::test]
async fn one_rewrap_runs_at_a_time_and_can_be_cancelled() {
    let (bench, vault) = Bench::new().await;
    filled(&vault).await;
    rotate(&vault, "kek/1").await.unwrap();
    let job = start(&vault).await.unwrap();
    assert!(matches!(start(&vault).await, Err(Error::JobRunning { number, .. }) if number == job.number));
    let page = JobPage { kind: JobKind::Rewrap, number: 1, entries: 2, total: Some(9), of: 0, kept: 0 };
    let stepped = vault.job_page(TENANT, page).await.unwrap();
    assert!(stepped.done > 0 && stepped.is_running());
    // It is still there after a restart, where it was.
    vault.close().await;
    let vault = bench.open().await;
    assert_eq!(vault.running_jobs().await.unwrap(), [(TENANT, stepped.clone())]);
    assert!(!stepped.to_count);
    let named = |name: &str| GetJob { name: name.to_owned() };
    let job = vault.get_job(&caller(Role::Auditor), &named("rewrap")).await.unwrap();
    assert_eq!((job.done, job.total, job.state), (stepped.done, 9, "running"));
    let cancel = CancelJob { name: "rewrap/1".to_owned() };
    assert_eq!(vault.cancel_job(&caller(Role::Rotator), &cancel).await.unwrap().state, "cancelled");
    assert!(matches!(vault.cancel_job(&caller(Role::Rotator), &cancel).await, Err(Error::JobEnded(_))));
    assert!(matches!(vault.job_page(TENANT, page).await, Err(Error::JobEnded(_))));
    for nobody in ["rewrap/2", "rewrap/", "rewrap/01", "rewrap/x", "roll", "roll/1", "job", ""] {
        let unknown = vault.get_job(&caller(Role::Rotator), &named(nobody)).await;
        assert!(matches!(unknown, Err(Error::JobUnknown(_))), "{nobody}");
    }
}

#[tokio::test]
async fn a_value_that_is_deleted_while_its_page_is_rewrapped_does_not_come_back() {
    let (_bench, vault) = Bench::new().await;
    let stored = filled(&vault).await;
    for kek in ["kek/0", "kek/1", "kek/2"] {
        rotate(&vault, kek).await.unwrap();
    }
    start(&vault).await.unwrap();
    let deletes = async {
        for (token, _) in stored.iter().step_by(2) {
            let items = vec![DeleteItem { token: token.clone(), subject: String::new() }];
            let request = Delete { items, idempotency_key: String::new() };
            vault.delete(&caller(Role::App), &request).await.unwrap().remove(0).unwrap();
            tokio::task::yield_now().await;
        }
    };
    let writes = async {
        for number in 0..30 {
            store_one(&vault, "borrower.address", &format!("while {number}"), &format!("c-{}", number % 10)).await;
        }
    };
    let (job, (), ()) = tokio::join!(rewrap(&vault, 3), deletes, writes);
    assert!(job.skipped == 0 && job.done > 20, "{job:?}");
    for (place, (token, value)) in stored.iter().enumerate() {
        let request = Detokenize { purpose: "loan_servicing".to_owned(), ..read(token, "plain") };
        let result = vault.detokenize(&caller(Role::App), &request).await.unwrap().remove(0);
        match place % 2 {
            0 => assert!(matches!(result, Err(Error::NotFound))),
            _ => assert_eq!(result.unwrap().value.as_bytes(), value.as_bytes()),
        }
    }
    let left = vault.store.scan(Family::RowDeks, Range { from: vec![], to: vec![], limit: 1_000 });
    let rows = vault.store.scan(Family::Rows, Range { from: vec![], to: vec![], limit: 1_000 });
    let rows: HashSet<_> = rows.await.unwrap().into_iter().map(|(key, _)| key).collect();
    assert!(left.await.unwrap().iter().all(|(key, _)| rows.contains(key)), "no DEK without its row");
}

#[tokio::test]
async fn a_change_that_was_cut_off_is_finished_by_the_next_start() {
    // Before the keystore was written, and after.
    for written in [false, true] {
        let (bench, vault) = Bench::new().await;
        let stored = filled(&vault).await;
        let file = bench.folder.path().join("keys");
        let before = std::fs::read(&file).unwrap();
        bench.faults.fail_writes_after(1, Fate::Lost);
        assert!(rotate(&vault, "kek/1").await.is_err());
        recovered(&vault).await;
        vault.close().await;
        if !written {
            std::fs::write(&file, before).unwrap();
        }
        let vault = bench.open().await;
        assert_eq!(states(&vault, "kek/1").await, [(1, "decrypt-only"), (2, "enabled")]);
        all_read(&vault, &stored).await;

        start(&vault).await.unwrap();
        rewrap(&vault, 100).await;
        let before = std::fs::read(&file).unwrap();
        let request = DestroyKeyVersion { name: "kek/1".to_owned(), version: 1, dry_run: false };
        approved(&vault, TENANT, vault.destroy_key_version(&caller(Role::Officer), &request).await).await;
        // Three entries of the road come first: what is asked, that it is approved, and the intent.
        bench.faults.fail_writes_after(3, Fate::Lost);
        assert!(vault.destroy_key_version(&caller(Role::Officer), &request).await.is_err());
        recovered(&vault).await;
        vault.close().await;
        if !written {
            std::fs::write(&file, before).unwrap();
        }
        let vault = bench.open().await;
        assert_eq!(states(&vault, "kek/1").await, [(1, "destroyed"), (2, "enabled")]);
        all_read(&vault, &stored).await;
        let told = leaves(&vault).await;
        for action in ["rotate_key", "destroy_key_version"] {
            let done = told.iter().filter(|leaf| leaf["action"] == action && leaf["detail"]["stage"] == "done");
            assert_eq!(done.count(), 1, "{action}");
        }
    }
}

#[tokio::test]
async fn a_replaced_value_keeps_its_token_and_the_version_that_made_it() {
    let (_bench, vault) = Bench::new().await;
    let request = tokenize(vec![new_value("borrower.address", "old", "")], "once");
    let token = vault.tokenize(&caller(Role::App), &request).await.unwrap().remove(0);
    rotate(&vault, "token").await.unwrap();
    let items = vec![NewVersion { token: token.clone(), value: "new".to_owned().into(), expires: None }];
    vault.replace(&caller(Role::App), &Replace { items, idempotency_key: String::new() }).await.unwrap();
    assert!(matches!(destroy(&vault, "token", 1, false).await, Err(Error::KeyInUse { dependants: 1, .. })));
    let again = vault.tokenize(&caller(Role::App), &request).await.unwrap().remove(0);
    assert_eq!(again, token, "a repeat answers the same");
    all_read(&vault, &[(token, "new".to_owned())]).await;
}

#[tokio::test]
async fn changes_are_made_though_the_clock_stands_still() {
    let (bench, vault) = Bench::new().await;
    bench.step.store(0, Ordering::Relaxed);
    rotate(&vault, "kek/1").await.unwrap();
    set_state(&vault, "kek/1", 2, "disabled").await.unwrap();
    assert_eq!(states(&vault, "kek/1").await, [(1, "decrypt-only"), (2, "disabled")]);
    set_state(&vault, "kek/1", 2, "enabled").await.unwrap();
    set_state(&vault, "kek/1", 1, "compromised").await.unwrap();
    destroy(&vault, "kek/1", 1, false).await.unwrap();
    assert_eq!(states(&vault, "kek/1").await, [(1, "destroyed"), (2, "enabled")]);
}

#[tokio::test]
async fn a_change_that_the_keystore_cannot_take_is_told_as_failed_and_keeps_nobody_from_the_next() {
    let (bench, vault) = Bench::new().await;
    let (file, away) = (bench.folder.path().join("keys"), bench.folder.path().join("away"));
    std::fs::rename(&file, &away).unwrap();
    let refused = rotate(&vault, "kek/1").await;
    assert!(matches!(&refused, Err(Error::KeyUnavailable(why)) if !why.contains('/')), "no path is told");
    assert_eq!(states(&vault, "kek/1").await, [(1, "enabled")]);
    std::fs::rename(&away, &file).unwrap();
    rotate(&vault, "kek/1").await.unwrap();
    let told = leaves(&vault).await.into_iter().filter(|leaf| leaf["action"] == "rotate_key");
    let told: Vec<_> = told.map(|leaf| (leaf["decision"].clone(), leaf["detail"]["stage"].clone())).collect();
    assert_eq!(
        told,
        [("allow", "intent"), ("fail", "done"), ("allow", "intent"), ("allow", "done")]
            .map(|(a, b)| (a.into(), b.into()))
    );
}

#[tokio::test]
async fn a_dek_that_opens_nothing_keeps_no_other_from_being_rewrapped() {
    let (_bench, vault) = Bench::new().await;
    let stored = filled(&vault).await;
    let all = Range { from: vec![], to: vec![], limit: 1_000 };
    let (key, mut row) = {
        let page = vault.store.scan(Family::RowDeks, all).await.unwrap();
        (page[3].0.to_vec(), page[3].1.to_vec())
    };
    *row.last_mut().unwrap() ^= 1;
    vault.store.write(vec![strongroom_storage::Mutation::Put(Family::RowDeks, key, row)]).await.unwrap();
    for kek in ["kek/0", "kek/1", "kek/2"] {
        rotate(&vault, kek).await.unwrap();
    }
    start(&vault).await.unwrap();
    let job = rewrap(&vault, 4).await;
    assert_eq!((job.state, job.skipped, job.done), ("done", 1, job.total - 1));
    assert_eq!(vault.health(), "damaged");
    assert!(stored.len() > 50);
}

#[tokio::test]
async fn an_older_copy_of_the_keystore_is_refused() {
    let (bench, vault) = Bench::new().await;
    let file = bench.folder.path().join("keys");
    let older = std::fs::read(&file).unwrap();
    rotate(&vault, "kek/1").await.unwrap();
    vault.close().await;
    let newer = std::fs::read(&file).unwrap();
    std::fs::write(&file, older).unwrap();
    let refused = bench.try_open().await.err().unwrap();
    assert!(matches!(refused, OpenError::KeystoreOld { .. }), "{refused}");
    std::fs::write(&file, newer).unwrap();
    let vault = bench.open().await;
    assert_eq!(states(&vault, "kek/1").await.len(), 2);
}

#[tokio::test]
async fn who_may_not_changes_no_key_and_bad_requests_are_told_what_is_wrong() {
    let (_bench, vault) = Bench::new().await;
    let request = RotateKey { name: "kek/1".to_owned(), from_version: 0 };
    for role in [Role::App, Role::Privacy, Role::Auditor] {
        assert!(matches!(vault.rotate_key(&caller(role), &request).await, Err(Error::Denied { .. })));
    }
    let destroy_it = DestroyKeyVersion { name: "kek/1".to_owned(), version: 1, dry_run: true };
    let denied = vault.destroy_key_version(&caller(Role::Privacy), &destroy_it).await;
    assert!(matches!(denied, Err(Error::Denied { .. })));
    for name in ["", "kek", "kek/", "kek/01", "kek/99", "kek/1 ", "ledger/1", "index/fingerprint", "\u{0}"] {
        assert!(matches!(rotate(&vault, name).await, Err(Error::Invalid(_))), "{name:?}");
    }
    for (name, version, state) in [("kek/1", 1, "gone"), ("kek/1", 1, "destroyed"), ("token", 1, "disabled")] {
        assert!(matches!(set_state(&vault, name, version, state).await, Err(Error::Invalid(_))), "{name} {state}");
    }
    assert!(matches!(set_state(&vault, "kek/1", 9, "disabled").await, Err(Error::KeyVersionUnknown(_))));
    assert!(matches!(set_state(&vault, "kek/1", 1, "compromised").await, Err(Error::KeyState(_))));
    let ahead = RotateKey { name: "kek/1".to_owned(), from_version: 7 };
    assert!(matches!(vault.rotate_key(&caller(Role::Rotator), &ahead).await, Err(Error::KeyVersionUnknown(_))));
    assert_eq!(states(&vault, "kek/1").await, [(1, "enabled")]);
}
