//! What receipts of erasures promise is true of every backup and of every copy of the keystore.

use strongroom_ids::{DekVersion, KeyringNo};
use strongroom_ledger::erasure::{ErasureReceipt, commitment};
use strongroom_storage::rows::{JobKind, RowDek, SubjectRecord};
use strongroom_storage::{Family, Mutation, Range, Store, keys as place};

use super::erasures::{desk, erase, erase_with, get, go_on, said, undo};
use super::holds::{hold, set};
use super::keys::{TENANT, destroy, rotate, running, to_its_end};
use super::rolls::{all, proven, records};
use super::*;
use crate::{
    BackupKeystore, CancelJob, EraseSubject, Freeze, GetJob, JobPage, ListErasures, StartRewrap, StartRoll,
    StrikeKeystoreCopy,
};

const DAY: u64 = 24 * 3_600;

/// The versions of a KEK that a receipt names.
fn versions(receipt: &ErasureReceipt, keyring: KeyringNo) -> Vec<u32> {
    let name = format!("kek/{keyring}");
    receipt.keks.iter().filter(|(key, ..)| *key == name).map(|(_, version, _)| *version).collect()
}

async fn rewrap(vault: &Tested) {
    vault.start_rewrap(&caller(Role::Rotator), &StartRewrap { name: String::new() }).await.unwrap();
    to_its_end(vault, JobKind::Rewrap, 100).await;
}

#[tokio::test]
async fn what_shares_a_dek_with_what_is_held_is_named_with_its_keks_and_called_erased_once_it_is_rolled() {
    let (bench, vault) = Bench::new().await;
    store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    store_one(&vault, "borrower.mobile", "13800138000", "c-1").await;
    set(&vault, &hold(&bench, &["borrower.id_card"], "collections", 30)).await.unwrap();
    let told = erase(&vault, "c-1").await;
    let [record]: [SubjectRecord; 1] = records(&bench).await.try_into().ok().unwrap();
    let shared = record.deks.iter().map(|dek| dek.keyring).find(|keyring| *keyring != KeyringNo(0)).unwrap();
    let first = said(&vault, &told).await;
    assert_eq!((first.held, first.values, first.deks, first.unrolled), (1, 1, 0, 1));
    assert_eq!(versions(&first, shared), [1], "it wraps the DEK that sealed what is erased");
    assert!(versions(&first, KeyringNo(0)).is_empty(), "its id is held");

    // Until it is rolled every version that wraps that DEK counts, and nobody says that it is done.
    bench.pass(2 * DAY);
    rotate(&vault, &format!("kek/{shared}")).await.unwrap();
    rewrap(&vault).await;
    go_on(&vault).await.unwrap();
    assert_eq!(get(&vault, &told.erasure).await.unwrap(), told);
    to_its_end(&vault, JobKind::Roll, 100).await;
    go_on(&vault).await.unwrap();
    let told = get(&vault, &told.erasure).await.unwrap();
    let second = said(&vault, &told).await;
    assert_eq!((told.state, second.held, second.values, second.unrolled), ("held", 1, 1, 0));
    assert_eq!(versions(&second, shared), [1, 2]);
    assert_eq!(second.day, first.day + 2);
    go_on(&vault).await.unwrap();
    assert_eq!(get(&vault, &told.erasure).await.unwrap(), told, "it is signed once");
    proven(&bench, vault).await;
}

#[tokio::test]
async fn of_a_subject_with_many_values_and_a_hold_all_keks_are_named() {
    let (bench, vault) = Bench::new().await;
    let values = (0..1_100).map(|number| new_value("borrower.address", &format!("street {number}"), "c-1"));
    vault.tokenize(&caller(Role::App), &tokenize(values.collect(), "")).await.unwrap();
    store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    set(&vault, &hold(&bench, &["borrower.id_card"], "collections", 30)).await.unwrap();
    let receipt = said(&vault, &erase(&vault, "c-1").await).await;
    let [record]: [SubjectRecord; 1] = records(&bench).await.try_into().ok().unwrap();
    assert_eq!((receipt.held, receipt.unrolled), (1, record.deks.len() as u64 - 1));
    for dek in record.deks.iter().filter(|dek| dek.keyring != KeyringNo(0)) {
        assert_eq!(versions(&receipt, dek.keyring), [1]);
    }
}

#[tokio::test]
async fn a_version_that_was_destroyed_is_named_while_a_copy_of_the_keystore_holds_it() {
    let (bench, vault) = Bench::new().await;
    let operator = Caller::new(Arc::new(Principal::new(TenantNo(0), Role::Operator, "sre-1")), "test");
    for subject in ["c-1", "c-2"] {
        store_one(&vault, "borrower.name", "张三", subject).await;
    }
    bench.pass(60);
    vault.backup_keystore(&operator, &BackupKeystore { label: String::new() }).await.unwrap();
    bench.pass(60);
    rotate(&vault, "kek/0").await.unwrap();
    rewrap(&vault).await;
    destroy(&vault, "kek/0", 1, false).await.unwrap();
    bench.pass(60);
    let receipt = said(&vault, &erase(&vault, "c-1").await).await;
    let first = ("kek/0".to_owned(), 1, "destroyed".to_owned());
    assert!(receipt.keks.contains(&first), "{:?}", receipt.keks);
    assert_eq!((versions(&receipt, KeyringNo(0)), receipt.copies), (vec![1, 2], vec!["copy/1".to_owned()]));

    vault.strike_keystore_copy(&operator, &StrikeKeystoreCopy { name: "copy/1".to_owned() }).await.unwrap();
    let receipt = said(&vault, &erase(&vault, "c-2").await).await;
    assert_eq!((versions(&receipt, KeyringNo(0)), receipt.copies), (vec![2], vec![]));
}

#[tokio::test]
async fn a_request_that_finds_an_erasure_under_way_is_remembered_under_its_own_key() {
    let (bench, vault) = Bench::new().await;
    store_one(&vault, "borrower.name", "张三", "c-1").await;
    store_one(&vault, "borrower.name", "李四", "c-2").await;
    let first = erase_with(&vault, "c-1", 30 * DAY, "first").await.unwrap();
    let sooner = erase_with(&vault, "c-1", 0, "second").await.unwrap();
    assert_eq!((&sooner.erasure, sooner.state), (&first.erasure, "erased"));
    assert!(!sooner.receipt.is_empty());
    // The subject is gone by now.
    assert_eq!(erase_with(&vault, "c-1", 0, "second").await.unwrap(), sooner);
    assert!(matches!(erase_with(&vault, "c-2", 0, "second").await, Err(Error::IdempotencyKeyReused)));
    assert!(matches!(erase_with(&vault, "c-1", DAY, "second").await, Err(Error::IdempotencyKeyReused)));
    let vault = proven(&bench, vault).await;

    // It is kept as long as what it leads to, and no longer.
    bench.pass(89 * DAY);
    vault.forget_old_erasures().await.unwrap();
    assert_eq!(erase_with(&vault, "c-1", 0, "second").await.unwrap(), sooner);
    bench.pass(2 * DAY);
    vault.forget_old_erasures().await.unwrap();
    assert!(matches!(erase_with(&vault, "c-1", 0, "second").await, Err(Error::NotFoundAt(_))));
    let (from, to) = place::erasures_range(TenantNo(1));
    assert!(bench.disk.scan(Family::Meta, Range { from, to, limit: 9 }).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_privacy_desk_sees_all_erasures_by_name_and_state() {
    let (bench, vault) = Bench::new().await;
    for number in 1..=5 {
        store_one(&vault, "borrower.id_card", ID_CARD, &format!("c-{number}")).await;
    }
    set(&vault, &hold(&bench, &[], "collections", 30)).await.unwrap();
    let mut asked = Vec::new();
    for (subject, grace, key) in [("c-1", 0, ""), ("c-2", DAY, ""), ("c-2", 9 * DAY, "another"), ("c-3", 0, "")] {
        let told = erase_with(&vault, subject, grace, key).await.unwrap();
        asked.push((told.erasure, told.state, told.due, told.receipt.is_empty()));
    }
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), 3, "a request that found one under way is no erasure");
    for size in [1, 2, 1_000] {
        let (mut listed, mut page_token) = (Vec::new(), String::new());
        loop {
            let page = vault.list_erasures(&desk(), &ListErasures { page_size: size, page_token }).await.unwrap();
            assert!(page.erasures.len() <= size);
            listed
                .extend(page.erasures.into_iter().map(|one| (one.erasure, one.state, one.due, one.receipt.is_empty())));
            page_token = page.next;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(listed, asked);
    }
    let wrong = ListErasures { page_size: 0, page_token: "no name".to_owned() };
    assert!(matches!(vault.list_erasures(&desk(), &wrong).await, Err(Error::Invalid(_))));
    let other =
        vault.list_erasures(&caller(Role::App), &ListErasures { page_size: 0, page_token: String::new() }).await;
    assert!(matches!(other, Err(Error::Denied { .. })));
}

#[tokio::test]
async fn what_is_due_and_could_not_be_closed_waits_and_can_be_undone() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.name", "张三", "c-1").await;
    let told = erase_with(&vault, "c-1", DAY, "").await.unwrap();
    let freeze = Freeze { field: String::new(), reads: false, writes: true, all_tenants: false };
    vault.freeze(&caller(Role::Officer), &freeze).await.unwrap();
    bench.pass(2 * DAY);
    assert!(matches!(go_on(&vault).await, Err(Error::Frozen { .. })));
    assert_eq!(get(&vault, &told.erasure).await.unwrap(), told);
    undo(&vault, "c-1").await.unwrap();
    assert_eq!(get(&vault, &told.erasure).await.unwrap().state, "undone");
    assert!(read_one(&vault, &token, "plain").await.is_ok());
}

#[tokio::test]
async fn on_a_nearly_full_disk_the_roll_that_an_erasure_waits_for_goes_on_and_that_of_a_whole_kek_does_not() {
    let (bench, vault) = Bench::new().await;
    store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    store_one(&vault, "borrower.mobile", "13800138000", "c-1").await;
    set(&vault, &hold(&bench, &["borrower.id_card"], "collections", 30)).await.unwrap();
    let full = |full: bool| {
        bench.full.store(full, Ordering::Relaxed);
        vault.look_at_space();
    };
    vault
        .start_roll(&caller(Role::Rotator), &StartRoll { name: "kek/0".to_owned(), subject: String::new() })
        .await
        .unwrap();
    full(true);
    let job = running(&vault, JobKind::Roll).await;
    let page = JobPage { kind: JobKind::Roll, number: job.number, entries: 9, total: None, of: 0, kept: 0 };
    assert!(matches!(vault.job_page(TENANT, page).await, Err(Error::DiskFull)));
    full(false);
    vault.cancel_job(&caller(Role::Rotator), &CancelJob { name: job.name }).await.unwrap();
    // One that somebody has ended is not asked for again at once.
    bench.pass(2 * 3_600);

    full(true);
    let told = erase(&vault, "c-1").await;
    assert!(told.receipt.contains("\nunrolled 1\n"), "{}", told.receipt);
    to_its_end(&vault, JobKind::Roll, 100).await;
    go_on(&vault).await.unwrap();
    full(false);
    assert_eq!(said(&vault, &get(&vault, &told.erasure).await.unwrap()).await.unrolled, 0);
}

#[tokio::test]
async fn a_roll_that_left_a_mark_which_it_cannot_read_is_not_asked_for_again_at_once() {
    let (bench, vault) = Bench::new().await;
    store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    store_one(&vault, "borrower.mobile", "13800138000", "c-1").await;
    set(&vault, &hold(&bench, &["borrower.id_card"], "collections", 30)).await.unwrap();
    erase(&vault, "c-1").await;
    let [record]: [SubjectRecord; 1] = records(&bench).await.try_into().ok().unwrap();
    let shared = record.deks.iter().map(|dek| dek.keyring).find(|keyring| *keyring != KeyringNo(0)).unwrap();
    let no_mark = [place::dek_mark(TENANT, record.handle, shared, DekVersion(1)), vec![0]].concat();
    bench.disk.write(vec![Mutation::Put(Family::Meta, no_mark, vec![])]).await.unwrap();
    for number in 1..=3 {
        let job = to_its_end(&vault, JobKind::Roll, 100).await;
        assert_eq!((job.number, job.state, job.skipped), (number, "done", 1));
        go_on(&vault).await.unwrap();
        let last = vault.get_job(&caller(Role::Rotator), &GetJob { name: "roll".to_owned() }).await.unwrap();
        assert_eq!((last.number, last.state), (number, "done"));
        bench.pass(2 * 3_600);
        go_on(&vault).await.unwrap();
    }
}

#[tokio::test]
async fn erasures_that_are_due_together_are_scrubbed_at_once_and_none_is_signed_while_files_may_hold_its_keys() {
    let (bench, vault) = Bench::new().await;
    let mut names = Vec::new();
    for number in 0..20 {
        let subject = format!("c-{number}");
        store_one(&vault, "borrower.name", "张三", &subject).await;
        names.push(erase_with(&vault, &subject, DAY, "").await.unwrap().erasure);
    }
    bench.pass(2 * DAY);
    let before = bench.faults.scrubbed();
    bench.faults.fail_scrubs(1);
    // In turns, as the background does it.
    let (mut open, _) = vault.open_erasures().await.unwrap();
    let mut failed = 0;
    while !open.is_empty() {
        let mut left = open.clone();
        for (tenant, name) in open {
            match vault.erasure_step(tenant, &name).await {
                Ok(true) => {}
                Ok(false) => left.retain(|one| *one != (tenant, name)),
                Err(_) => {
                    failed += 1;
                    for name in &names {
                        let told = get(&vault, name).await.unwrap();
                        assert_eq!((told.state, told.receipt.as_str()), ("clearing", ""));
                    }
                }
            }
        }
        open = left;
    }
    assert_eq!(failed, 1);
    for name in &names {
        assert_eq!(get(&vault, name).await.unwrap().state, "erased");
    }
    assert_eq!(bench.faults.scrubbed() - before, 1);
    proven(&bench, vault).await;
}

#[tokio::test]
async fn an_erasure_that_cannot_be_read_keeps_no_other_from_being_signed() {
    let (bench, vault) = Bench::new().await;
    let mut names = Vec::new();
    // Both are cleared, and neither is signed.
    bench.faults.fail_scrubs(2);
    for subject in ["c-1", "c-2"] {
        store_one(&vault, "borrower.name", "张三", subject).await;
        let told = erase(&vault, subject).await;
        assert_eq!((told.state, told.receipt.as_str()), ("clearing", ""));
        names.push(<[u8; 16]>::try_from(data_encoding::HEXLOWER.decode(told.erasure.as_bytes()).unwrap()).unwrap());
    }
    let damaged = Mutation::Put(Family::Meta, place::erasure(TENANT, &names[0]), b"damaged".to_vec());
    bench.disk.write(vec![damaged]).await.unwrap();
    while vault.erasure_step(TENANT, &names[1]).await.unwrap() {}
    let told = get(&vault, &data_encoding::HEXLOWER.encode(&names[1])).await.unwrap();
    assert_eq!((told.state, said(&vault, &told).await.values), ("erased", 1));
    assert!(vault.erasure_step(TENANT, &names[0]).await.is_err());
}

#[tokio::test]
async fn a_receipt_counts_what_could_not_be_read_and_names_the_kek_of_its_own_dek() {
    for family in [Family::Rows, Family::RowDeks] {
        let (bench, vault) = Bench::new().await;
        store_one(&vault, "company.uscc", "91350100M000100Y43", "c-1").await;
        let (key, dek) = all(&bench, Family::RowDeks).await.remove(0);
        let keyring = RowDek::decode(&dek).unwrap().keyring;
        bench.disk.write(vec![Mutation::Put(family, key.to_vec(), b"damaged".to_vec())]).await.unwrap();
        let told = erase(&vault, "c-1").await;
        let receipt = said(&vault, &told).await;
        assert_eq!((told.state, receipt.unread), ("erased", 1), "{family:?}");
        let (values, named) = if family == Family::Rows { (0, vec![1]) } else { (1, vec![]) };
        assert_eq!((receipt.values, versions(&receipt, keyring)), (values, named), "{family:?}");
    }
}

#[tokio::test]
async fn a_receipt_is_one_persons_and_shows_whose_only_with_the_salt_of_the_answer() {
    let (_bench, vault) = Bench::new().await;
    let ask = async |subject: &str, grace: u64, key: &str| {
        let request = EraseSubject { subject: subject.to_owned(), grace, idempotency_key: key.to_owned() };
        vault.erase_subject(&desk(), &request).await.unwrap()
    };
    store_one(&vault, "borrower.name", "张三", "c-1").await;
    store_one(&vault, "borrower.name", "李四", "c-2").await;
    let waiting = ask("c-1", DAY * 1_000_000, "first").await;
    let told = ask("c-1", 0, "second").await;
    let salt = told.salt.unwrap();
    assert!(!format!("{told:?}").contains("salt") && !format!("{told:?}").contains(&told.erasure));
    assert_eq!(
        (waiting.salt, ask("c-1", 0, "second").await.salt),
        (Some(salt), Some(salt)),
        "of one erasure it is one"
    );
    assert_eq!(get(&vault, &told.erasure).await.unwrap().salt, None);
    let whose = said(&vault, &told).await.subject;
    assert_eq!(whose, Some(commitment(&salt, "c-1")));
    assert_ne!(whose, Some(commitment(&salt, "c-2")));
    let other = ask("c-2", 0, "").await;
    assert_ne!(other.salt, Some(salt));
    assert_ne!(said(&vault, &other).await.subject, whose);
}
