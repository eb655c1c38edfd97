//! Data subjects that are erased: nothing of them is left, whatever goes wrong meanwhile, and the ledger still proves the rest.

use strongroom_commit::CommitError;
use strongroom_ledger::erasure::{self, ErasureReceipt};
use strongroom_storage::rows::{ErasureRow, JobKind, SubjectRecord};
use strongroom_storage::{Family, Mutation, Range, Store, keys as place};

use super::keys::TENANT;
use super::rolls::{all, are_dead, deks, proven, records};
use super::*;
use crate::road::Attempt;
use crate::verify::{Fault, Kind};
use crate::{EraseSubject, ErasureStatus, GetErasure, UndoErasure};

const DAY: u64 = 24 * 3_600;
const USCC: &str = "91350100M000100Y43";
/// Families in which nothing may be left of an erased subject.
pub(super) const STORED: [&str; 6] = ["rows", "row_deks", "subjects", "subject_rows", "holders", "index"];

pub(super) fn desk() -> Caller {
    caller(Role::Privacy)
}

pub(super) async fn erase_with(vault: &Tested, subject: &str, grace: u64, key: &str) -> Result<ErasureStatus, Error> {
    let request =
        EraseSubject { subject: subject.to_owned(), grace: grace * 1_000_000, idempotency_key: key.to_owned() };
    // Whose it is only this answer says: `get` has all the rest.
    vault.erase_subject(&desk(), &request).await.map(|told| ErasureStatus { salt: None, ..told })
}

pub(super) async fn erase(vault: &Tested, subject: &str) -> ErasureStatus {
    erase_with(vault, subject, 0, "").await.unwrap()
}

/// Does what the background does: all that can be done now. Says when there will be more.
pub(super) async fn go_on(vault: &Tested) -> Result<Option<u64>, Error> {
    let (open, next) = vault.open_erasures().await?;
    for (tenant, name) in open {
        while vault.erasure_step(tenant, &name).await? {}
    }
    Ok(next)
}

pub(super) async fn undo(vault: &Tested, subject: &str) -> Result<(), Error> {
    vault.undo_erasure(&desk(), &UndoErasure { subject: subject.to_owned() }).await
}

pub(super) async fn get(vault: &Tested, name: &str) -> Result<ErasureStatus, Error> {
    vault.get_erasure(&desk(), &GetErasure { erasure: name.to_owned() }).await
}

/// What a receipt says, once it is verified.
pub(super) async fn said(vault: &Tested, told: &ErasureStatus) -> ErasureReceipt {
    let keys = vault.checkpoint(&caller(Role::Auditor), "").await.unwrap().keys;
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    erasure::verify(&told.receipt, &keys).unwrap()
}

/// Values of every kind, with their tokens: plain, looked up, shaped, deterministic, and one that others share.
async fn everything_of(vault: &Tested, subject: &str, number: usize) -> Vec<String> {
    let items = vec![
        new_value("borrower.name", "张三", subject),
        new_value("borrower.id_card", ID_CARD, subject),
        new_value("borrower.mobile", "13800138000", subject),
        new_value("borrower.bank_card", "6222021234567890128", subject),
        new_value("borrower.email", &format!("m{number}@mail.example"), subject),
        new_value("borrower.address", "北京市东城区", subject),
        new_value("borrower.account_opened", "2020-01-02", subject),
        new_value("company.settlement_account", &format!("account-{number:08}"), subject),
        new_value("company.uscc", USCC, subject),
    ];
    vault.tokenize(&caller(Role::App), &tokenize(items, "")).await.unwrap()
}

async fn read_for(vault: &Tested, token: &str, subject: &str, purpose: &str) -> Result<Vec<u8>, Error> {
    let item = ReadItem { token: token.to_owned(), view: String::new(), subject: subject.to_owned() };
    let request = Detokenize { items: vec![item], purpose: purpose.to_owned(), view: "plain".to_owned() };
    let mut results = vault.detokenize(&caller(Role::App), &request).await?;
    results.remove(0).map(|released| released.value.as_bytes().to_vec())
}

#[tokio::test]
async fn an_erased_subject_leaves_nothing_but_its_leaves_and_a_receipt() {
    let (bench, vault) = Bench::new().await;
    let others = everything_of(&vault, "c-2", 2).await;
    let before = entries(&bench.disk);
    let tokens = everything_of(&vault, "c-1", 1).await;
    // One that is its own in the end.
    let alone = store_one(&vault, "company.uscc", "91110000600037341L", "c-1").await;
    let request = tokenize(vec![new_value("borrower.name", "李四", "c-1")], "once");
    let again = vault.tokenize(&caller(Role::App), &request).await.unwrap().remove(0);
    assert!(read_for(&vault, &again, "", "kyc_review").await.is_ok());
    let dead: Vec<_> = deks(&bench).await.into_iter().map(|((handle, ..), dek)| (handle, dek)).collect();
    let handle = dead.iter().map(|(handle, _)| *handle).max().unwrap();
    let dead: Vec<_> = dead.into_iter().filter(|(of, _)| *of == handle).collect();
    assert!(dead.len() >= 3);

    let told = erase(&vault, "c-1").await;
    assert_eq!((told.state, told.due, told.kept.as_slice()), ("erased", None, &[][..]));
    let after = entries(&bench.disk);
    for family in STORED {
        assert_eq!(after[family], before[family], "{family}");
    }
    are_dead(&bench, &vault, &dead).await;
    for token in tokens.iter().take(8).chain([&alone, &again]) {
        for purpose in ["kyc_review", "loan_servicing", "collections"] {
            assert!(matches!(read_for(&vault, token, "", purpose).await, Err(Error::NotFound)));
        }
    }
    // What it shared lives on for the other one.
    assert_eq!(tokens[8], others[8]);
    assert!(matches!(read_for(&vault, &others[8], "c-1", "kyc_review").await, Err(Error::NotFound)));
    assert_eq!(read_for(&vault, &others[8], "c-2", "kyc_review").await.unwrap(), USCC.as_bytes());
    assert!(matches!(vault.tokenize(&caller(Role::App), &request).await, Err(Error::NotFound)));

    let receipt = said(&vault, &told).await;
    assert_eq!((receipt.held, receipt.values, receipt.shares), (0, 10, 1));
    // Of id card, mobile, card, email, account, its own company's number; and of its id.
    assert_eq!((receipt.entries, receipt.consents), (7, 0));
    assert_eq!(receipt.deks, dead.len() as u64 + 1);
    assert!(
        receipt
            .keks
            .iter()
            .any(|(key, version, state)| (key.as_str(), *version, state.as_str()) == ("kek/0", 1, "enabled"))
    );
    assert_eq!((receipt.copies.as_slice(), receipt.backups), (&[][..], None));

    // The name of the erasure stands in no leaf, and what is known under it names nobody.
    let line = |leaf: &serde_json::Value| leaf.to_string().contains(&told.erasure);
    assert!(!leaves(&vault).await.iter().any(line));
    let (from, to) = place::erasures_range(TENANT);
    let rows = bench.disk.scan(Family::Meta, Range { from, to, limit: 9 }).await.unwrap();
    assert_eq!(rows.len(), 1);
    let row = ErasureRow::decode(&rows[0].1).unwrap();
    assert!(row.open.is_empty() && row.due == 0 && row.receipt == told.receipt);
    let (from, to) = place::erasure_works_range(TENANT);
    assert!(bench.disk.scan(Family::Meta, Range { from, to, limit: 9 }).await.unwrap().is_empty());

    let vault = proven(&bench, vault).await;
    assert_eq!(get(&vault, &told.erasure).await.unwrap(), told);
    // Who comes back is somebody new.
    let back = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    assert_eq!(read_for(&vault, &back, "", "kyc_review").await.unwrap(), ID_CARD.as_bytes());
    assert!(records(&bench).await.iter().all(|record| record.handle != handle));
    proven(&bench, vault).await;
}

#[tokio::test]
async fn an_erasure_that_is_cut_off_anywhere_goes_on_and_nothing_is_read_meanwhile() {
    for fate in [Fate::Lost, Fate::Stored] {
        for spared in 0..5 {
            let (bench, vault) = Bench::new().await;
            let others = everything_of(&vault, "c-2", 2).await;
            let before = entries(&bench.disk);
            let tokens = everything_of(&vault, "c-1", 1).await;
            bench.faults.fail_writes_after(spared, fate);
            let first = erase_with(&vault, "c-1", 0, "key").await;
            recovered(&vault).await;
            assert!(spared > 0 || first.is_err());
            let closed = spared > 0 || fate == Fate::Stored;
            let read = read_for(&vault, &tokens[0], "", "kyc_review").await;
            assert_eq!(read.is_err(), closed, "{fate:?} after {spared}");
            recovered(&vault).await;
            bench.faults.heal();
            // Wherever it stands, the ledger proves what there is.
            let vault = proven(&bench, vault).await;
            go_on(&vault).await.unwrap();
            let told = erase_with(&vault, "c-1", 0, "key").await.unwrap();
            assert_eq!(told.state, "erased");
            assert_eq!(said(&vault, &told).await.values, 8);
            assert_eq!(erase_with(&vault, "c-1", 0, "key").await.unwrap(), told);
            let after = entries(&bench.disk);
            for family in STORED {
                assert_eq!(after[family], before[family], "{family}, {fate:?} after {spared}");
            }
            assert!(read_for(&vault, &others[0], "", "kyc_review").await.is_ok());
            proven(&bench, vault).await;
        }
    }
}

#[tokio::test]
async fn a_time_of_grace_ends_earlier_and_never_later_when_it_is_asked_for_again() {
    let (bench, vault) = Bench::new().await;
    store_one(&vault, "borrower.name", "张三", "c-1").await;
    let told = erase_with(&vault, "c-1", 30 * DAY, "").await.unwrap();
    let sooner = erase_with(&vault, "c-1", 2 * DAY, "").await.unwrap();
    assert_eq!((&sooner.erasure, sooner.state), (&told.erasure, "waiting"));
    assert!(sooner.due.unwrap() < told.due.unwrap() - 27 * DAY * 1_000_000);
    let vault = proven(&bench, vault).await;
    assert_eq!(go_on(&vault).await.unwrap(), sooner.due);
    let now = erase_with(&vault, "c-1", 0, "").await.unwrap();
    assert_eq!((&now.erasure, now.state), (&told.erasure, "erased"));
    proven(&bench, vault).await;
}

#[tokio::test]
async fn a_receipt_names_the_versions_that_wrapped_a_dek_before_a_rewrap() {
    let (_bench, vault) = Bench::new().await;
    store_one(&vault, "borrower.name", "张三", "c-1").await;
    super::keys::rotate(&vault, "kek/0").await.unwrap();
    let request = crate::StartRewrap { name: String::new() };
    vault.start_rewrap(&caller(Role::Rotator), &request).await.unwrap();
    super::keys::to_its_end(&vault, JobKind::Rewrap, 100).await;
    super::keys::rotate(&vault, "kek/0").await.unwrap();
    let receipt = said(&vault, &erase(&vault, "c-1").await).await;
    let own: Vec<_> = receipt.keks.iter().filter(|(key, ..)| key == "kek/0").map(|(_, version, _)| *version).collect();
    assert_eq!(own, [1, 2], "the third is too new to have wrapped it");
}

#[tokio::test]
async fn a_row_that_cannot_be_read_stays_for_who_shares_it_and_goes_with_the_last_of_them() {
    let (bench, vault) = Bench::new().await;
    let empty = entries(&bench.disk);
    for subject in ["c-1", "c-2"] {
        store_one(&vault, "company.uscc", USCC, subject).await;
    }
    let (key, _) = all(&bench, Family::Rows).await.remove(0);
    bench.disk.write(vec![Mutation::Put(Family::Rows, key.to_vec(), b"damaged".to_vec())]).await.unwrap();
    assert_eq!(erase(&vault, "c-1").await.state, "erased");
    let left = entries(&bench.disk);
    for family in ["rows", "row_deks", "holders", "subject_rows"] {
        assert_eq!(left[family], empty[family] + 1, "{family}");
    }
    assert_eq!(erase(&vault, "c-2").await.state, "erased");
    let left = entries(&bench.disk);
    for family in ["rows", "row_deks", "holders", "subject_rows"] {
        assert_eq!(left[family], empty[family], "{family}");
    }
}

/// Prepares a request, lets something else be done, and says whether the request is turned back then.
pub(super) async fn is_turned_back<A: Attempt<FaultyStore<MemoryStore>>>(
    vault: &Tested,
    by: &Caller,
    request: &A,
    meanwhile: impl AsyncFnOnce(),
) -> bool {
    let tenant = vault.tenant(TENANT).unwrap();
    let road = vault.road(&tenant, by, request, [1; 16]).await.unwrap();
    let Ok(prepared) = request.attempt(&road).await else { panic!("the request can be prepared") };
    meanwhile().await;
    let position = road.position;
    matches!(road.commit_at(position, prepared).await, Err(CommitError::Conflict(_)))
}

#[tokio::test]
async fn whoever_read_a_subject_before_its_erasure_is_turned_back_and_so_is_an_erasure_that_missed_a_value() {
    let (bench, vault) = Bench::new().await;
    let app = caller(Role::App);
    for round in 0..5 {
        let token = store_one(&vault, "borrower.name", "张三", "c-1").await;
        let erased = async || _ = erase(&vault, "c-1").await;
        let back = match round {
            0 => {
                let request = tokenize(vec![new_value("borrower.name", "李四", "c-1")], "");
                is_turned_back(&vault, &app, &request, erased).await
            }
            1 => is_turned_back(&vault, &app, &super::read(&token, "plain"), erased).await,
            2 => {
                let items = vec![DeleteItem { token, subject: String::new() }];
                let request = Delete { items, idempotency_key: String::new() };
                is_turned_back(&vault, &app, &request, erased).await
            }
            3 => {
                let items = vec![NewVersion { token, value: "李四".to_owned().into(), expires: None }];
                let request = Replace { items, idempotency_key: String::new() };
                is_turned_back(&vault, &app, &request, erased).await
            }
            _ => {
                let request = EraseSubject { subject: "c-1".to_owned(), grace: 0, idempotency_key: String::new() };
                let stored = async || _ = store_one(&vault, "borrower.name", "李四", "c-1").await;
                is_turned_back(&vault, &desk(), &request, stored).await
            }
        };
        assert!(back, "{round}");
    }
    assert_eq!(entries(&bench.disk)["rows"], 2);
    proven(&bench, vault).await;
}

#[tokio::test]
async fn many_values_are_cleared_page_by_page_and_are_gone_from_the_first_commit_on() {
    let (bench, vault) = Bench::new().await;
    let empty = entries(&bench.disk);
    let values = (0..600).map(|number| new_value("borrower.address", &format!("street {number}"), "c-1")).collect();
    let tokens = vault.tokenize(&caller(Role::App), &tokenize(values, "")).await.unwrap();
    // It closes, clears a page, and then the disk fails.
    bench.faults.fail_writes_after(2, Fate::Lost);
    let told = erase_with(&vault, "c-1", 0, "key").await.unwrap();
    assert_eq!((told.state, told.receipt.as_str()), ("clearing", ""));
    recovered(&vault).await;
    assert_eq!(entries(&bench.disk)["rows"], 600 - 256);
    for token in [&tokens[0], &tokens[599]] {
        assert!(matches!(read_for(&vault, token, "", "kyc_review").await, Err(Error::NotFound)));
    }
    assert!(matches!(erase_with(&vault, "c-1", 0, "").await, Err(Error::NotFoundAt(_))));
    let vault = proven(&bench, vault).await;
    assert_eq!(go_on(&vault).await.unwrap(), None);
    let told = get(&vault, &told.erasure).await.unwrap();
    assert_eq!((told.state, said(&vault, &told).await.values), ("erased", 600));
    for family in STORED {
        assert_eq!(entries(&bench.disk)[family], empty[family], "{family}");
    }
    proven(&bench, vault).await;
}

#[tokio::test]
async fn a_subject_with_many_values_makes_way_for_callers_and_its_receipt_says_that_all_is_gone() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.name", "张三", "c-2").await;
    let empty = entries(&bench.disk);
    let values = (0..1_500).map(|number| new_value("borrower.address", &format!("street {number}"), "c-1")).collect();
    vault.tokenize(&caller(Role::App), &tokenize(values, "")).await.unwrap();
    let request = EraseSubject { subject: "c-1".to_owned(), grace: 0, idempotency_key: String::new() };
    let name = vault.travel(&desk(), &request).await.unwrap().unwrap().unwrap();
    // To see what comes next takes two reads: somebody commits behind those, inside the first page.
    bench.faults.before_read(2, {
        let vault = Arc::clone(&vault);
        async move { _ = read_for(&vault, &token, "", "kyc_review").await.unwrap() }
    });
    while vault.erasure_step(TENANT, &name).await.unwrap() {}
    let told = get(&vault, &data_encoding::HEXLOWER.encode(&name)).await.unwrap();
    assert_eq!((told.state, said(&vault, &told).await.values), ("erased", 1_500));
    for family in STORED {
        assert_eq!(entries(&bench.disk)[family], empty[family], "{family}");
    }
    let all = leaves(&vault).await;
    let pages = all.iter().filter(|leaf| leaf["detail"]["stage"] == "clearing" && leaf["part"].is_null());
    let pages: Vec<usize> = pages.map(|leaf| leaf["items"].as_array().unwrap().len()).collect();
    assert_eq!(pages[0], 256, "somebody waits for it: {pages:?}");
    assert!(pages[1..].contains(&64), "it went on as if it were alone: {pages:?}");
    proven(&bench, vault).await;
}

#[tokio::test]
async fn a_key_names_one_erasure_and_without_one_a_second_finds_nobody() {
    let (_bench, vault) = Bench::new().await;
    store_one(&vault, "borrower.name", "张三", "c-1").await;
    store_one(&vault, "borrower.name", "李四", "c-2").await;
    let told = erase_with(&vault, "c-1", 0, "key").await.unwrap();
    assert_eq!(erase_with(&vault, "c-1", 0, "key").await.unwrap(), told);
    assert!(matches!(erase_with(&vault, "c-2", 0, "key").await, Err(Error::IdempotencyKeyReused)));
    assert!(matches!(erase_with(&vault, "c-1", 9, "key").await, Err(Error::IdempotencyKeyReused)));
    assert!(matches!(erase_with(&vault, "c-1", 0, "").await, Err(Error::NotFoundAt(_))));
    assert!(matches!(erase_with(&vault, "c-3", 0, "").await, Err(Error::NotFoundAt(_))));
    let other = Caller::new(Arc::new(Principal::new(TENANT, Role::Privacy, "another")), "test");
    let request = EraseSubject { subject: "c-2".to_owned(), grace: 0, idempotency_key: "key".to_owned() };
    assert_ne!(vault.erase_subject(&other, &request).await.unwrap().erasure, told.erasure);
}

#[tokio::test]
async fn an_erasure_is_forgotten_after_90_days() {
    let (bench, vault) = Bench::new().await;
    store_one(&vault, "borrower.name", "张三", "c-1").await;
    let told = erase(&vault, "c-1").await;
    bench.pass(89 * DAY);
    vault.forget_old_erasures().await.unwrap();
    assert_eq!(get(&vault, &told.erasure).await.unwrap(), told);
    bench.pass(2 * DAY);
    vault.forget_old_erasures().await.unwrap();
    assert!(matches!(get(&vault, &told.erasure).await, Err(Error::NotFoundAt(_))));
    for name in ["", "0", "zz", &"0".repeat(31), &"0".repeat(64), "天"] {
        assert!(matches!(get(&vault, name).await, Err(Error::NotFoundAt(_))), "{name}");
    }
}

#[tokio::test]
async fn ids_of_any_characters_are_erased_and_those_that_are_none_are_refused() {
    let (bench, vault) = Bench::new().await;
    let longest = "x".repeat(128);
    for id in [" ", "a\nb", "..", "/", "\u{0}", "客户-1", "\"; drop", longest.as_str()] {
        let token = store_one(&vault, "borrower.name", "张三", id).await;
        assert_eq!(erase(&vault, id).await.state, "erased", "{id:?}");
        assert!(matches!(read_for(&vault, &token, "", "kyc_review").await, Err(Error::NotFound)));
    }
    for id in ["", &"x".repeat(129)] {
        assert!(matches!(erase_with(&vault, id, 0, "").await, Err(Error::Invalid(_))));
        assert!(matches!(undo(&vault, id).await, Err(Error::Invalid(_))));
    }
    assert!(matches!(erase_with(&vault, "c-1", 367 * DAY, "").await, Err(Error::Invalid(_))));
    proven(&bench, vault).await;
}

#[tokio::test]
async fn an_id_that_leads_to_several_subjects_takes_all_of_them_along() {
    let (bench, vault) = Bench::new().await;
    let one = store_one(&vault, "borrower.name", "张三", "c-1").await;
    let two = store_one(&vault, "borrower.name", "李四", "c-2").await;
    merge(&bench).await;
    let told = erase(&vault, "c-1").await;
    assert_eq!((told.state, said(&vault, &told).await.values), ("erased", 2));
    for token in [&one, &two] {
        assert!(matches!(read_for(&vault, token, "", "kyc_review").await, Err(Error::NotFound)));
    }
    for family in STORED {
        assert_eq!(entries(&bench.disk)[family], 0, "{family}");
    }
}

/// Has the id of the first of two subjects lead to both. Nobody merges subjects yet: this is what it would leave.
async fn merge(bench: &Bench) {
    let [first, second]: [SubjectRecord; 2] = records(bench).await.try_into().ok().unwrap();
    let entry = |record: &SubjectRecord| place::subject_id(TENANT, record.id_index.version, &record.id_index.mac);
    let merged = SubjectRecord { id_index: first.id_index, ..second.clone() };
    let batch = vec![
        Mutation::Put(Family::Index, entry(&first), place::encode_handles(&[first.handle, second.handle])),
        Mutation::Delete(Family::Index, entry(&second)),
        Mutation::Put(Family::Subjects, place::subject(TENANT, second.handle), merged.encode()),
    ];
    bench.disk.write(batch).await.unwrap();
}

#[tokio::test]
async fn nothing_is_signed_of_an_erasure_while_one_of_its_subjects_still_waits() {
    let (bench, vault) = Bench::new().await;
    for subject in ["c-1", "c-2"] {
        store_one(&vault, "borrower.name", "张三", subject).await;
    }
    merge(&bench).await;
    erase_with(&vault, "c-1", 3 * DAY, "").await.unwrap();
    // Both end earlier, which is said once.
    let told = erase_with(&vault, "c-1", DAY, "").await.unwrap();
    let lines = all(&bench, Family::Leaves).await;
    let told_due = |line: &[u8]| String::from_utf8_lossy(line).matches("\"due\"").count();
    assert_eq!(lines.iter().map(|(_, line)| told_due(line)).max(), Some(1));
    bench.pass(2 * DAY);
    let right = bench.now.load(Ordering::Relaxed);
    let name: [u8; 16] = data_encoding::HEXLOWER.decode(told.erasure.as_bytes()).unwrap().try_into().unwrap();
    assert!(vault.erasure_step(TENANT, &name).await.unwrap(), "the first is closed");
    bench.set_clock(right + 90 * DAY * 1_000_000);
    while vault.erasure_step(TENANT, &name).await.unwrap() {}
    let waits = get(&vault, &told.erasure).await.unwrap();
    assert_eq!((waits.state, waits.receipt.as_str()), ("waiting", ""));

    bench.set_clock(right);
    let operator = Caller::new(Arc::new(Principal::new(TenantNo(0), Role::Operator, "sre-1")), "test");
    vault.confirm_clock(&operator, &crate::ConfirmClock { time: right }).await.unwrap();
    go_on(&vault).await.unwrap();
    let told = get(&vault, &told.erasure).await.unwrap();
    assert_eq!((told.state, said(&vault, &told).await.values), ("erased", 2));
}

#[tokio::test]
async fn a_time_of_grace_freezes_and_can_be_undone() {
    let (bench, vault) = Bench::new().await;
    let tokens = everything_of(&vault, "c-1", 1).await;
    let told = erase_with(&vault, "c-1", 30 * DAY, "key").await.unwrap();
    assert_eq!((told.state, told.receipt.as_str()), ("waiting", ""));
    let due = told.due.unwrap();
    let leaving = |result: &Error| matches!(result, Error::SubjectLeaving { due: at } if *at == due);
    let read = read_for(&vault, &tokens[0], "", "kyc_review").await.unwrap_err();
    assert!(leaving(&read) && read.reason() == "SUBJECT_LEAVING" && read.to_string().contains("undo-erasure"));
    assert!(leaving(&read_for(&vault, &tokens[8], "c-1", "kyc_review").await.unwrap_err()));
    let items = vec![MatchItem { token: tokens[1].clone(), value: ID_CARD.to_owned().into(), subject: String::new() }];
    let request = Match { items, purpose: "kyc_review".to_owned() };
    assert!(leaving(vault.matches(&caller(Role::App), &request).await.unwrap()[0].as_ref().unwrap_err()));
    let new = tokenize(vec![new_value("borrower.name", "李四", "c-1")], "");
    assert!(leaving(&vault.tokenize(&caller(Role::App), &new).await.unwrap_err()));
    let items = vec![DeleteItem { token: tokens[0].clone(), subject: String::new() }];
    let request = Delete { items, idempotency_key: String::new() };
    assert!(leaving(vault.delete(&caller(Role::App), &request).await.unwrap()[0].as_ref().unwrap_err()));
    let items = vec![NewVersion { token: tokens[0].clone(), value: "李四".to_owned().into(), expires: None }];
    let request = Replace { items, idempotency_key: String::new() };
    assert!(leaving(&vault.replace(&caller(Role::App), &request).await.unwrap_err()));
    let items = vec![LookupItem { field: "borrower.id_card".to_owned(), value: ID_CARD.to_owned().into() }];
    let request = Lookup { items, purpose: "kyc_review".to_owned() };
    assert!(vault.lookup(&caller(Role::App), &request).await.unwrap()[0].as_ref().unwrap().tokens.is_empty());
    // Who may not know of the value is told nothing of its subject.
    let unknowing = vault.detokenize(&caller(Role::Rotator), &super::read(&tokens[0], "plain")).await.unwrap();
    assert!(matches!(unknowing[0], Err(Error::NotFound)));
    // Asked for again it is the same.
    assert_eq!(erase_with(&vault, "c-1", 40 * DAY, "").await.unwrap(), told);

    let vault = proven(&bench, vault).await;
    assert_eq!(go_on(&vault).await.unwrap(), Some(due));
    undo(&vault, "c-1").await.unwrap();
    assert_eq!(read_for(&vault, &tokens[1], "", "kyc_review").await.unwrap(), ID_CARD.as_bytes());
    assert!(matches!(undo(&vault, "c-1").await, Err(Error::NothingToUndo)));
    assert!(matches!(undo(&vault, "c-9").await, Err(Error::NotFoundAt(_))));
    // A retry does not begin it again.
    let undone = erase_with(&vault, "c-1", 30 * DAY, "key").await.unwrap();
    assert_eq!((undone.erasure.as_str(), undone.state, undone.due), (told.erasure.as_str(), "undone", None));
    assert_eq!(get(&vault, &told.erasure).await.unwrap(), undone);
    assert!(read_for(&vault, &tokens[1], "", "kyc_review").await.is_ok());

    let vault = proven(&bench, vault).await;
    let told = erase_with(&vault, "c-1", 30 * DAY, "another").await.unwrap();
    bench.pass(30 * DAY);
    go_on(&vault).await.unwrap();
    let told = get(&vault, &told.erasure).await.unwrap();
    assert_eq!((told.state, said(&vault, &told).await.values), ("erased", 9));
    for family in STORED {
        assert_eq!(entries(&bench.disk)[family], 0, "{family}");
    }
    assert!(matches!(undo(&vault, "c-1").await, Err(Error::NotFoundAt(_))));
    proven(&bench, vault).await;
}

#[tokio::test]
async fn a_freeze_of_all_writes_keeps_erasures_waiting() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.name", "张三", "c-1").await;
    erase_with(&vault, "c-1", DAY, "").await.unwrap();
    let freeze = crate::Freeze { field: String::new(), reads: false, writes: true, all_tenants: false };
    vault.freeze(&caller(Role::Officer), &freeze).await.unwrap();
    assert!(matches!(erase_with(&vault, "c-1", 0, "").await, Err(Error::Frozen { .. })));
    bench.pass(2 * DAY);
    assert!(matches!(go_on(&vault).await, Err(Error::Frozen { .. })));
    assert!(matches!(read_for(&vault, &token, "", "kyc_review").await, Err(Error::SubjectLeaving { .. })));
}

#[tokio::test]
async fn what_is_put_back_after_an_erasure_is_named() {
    let (bench, vault) = Bench::new().await;
    everything_of(&vault, "c-1", 1).await;
    store_one(&vault, "borrower.name", "李四", "c-2").await;
    let (rows, subjects, index) =
        (all(&bench, Family::Rows).await, all(&bench, Family::Subjects).await, all(&bench, Family::Index).await);
    erase(&vault, "c-1").await;
    let vault = proven(&bench, vault).await;
    vault.close().await;
    let put = |family: Family, entries: &[(bytes::Bytes, bytes::Bytes)]| {
        entries.iter().map(|(key, row)| Mutation::Put(family, key.to_vec(), row.to_vec())).collect::<Vec<_>>()
    };
    for (family, entries, kind) in [
        (Family::Rows, &rows, Kind::Value),
        (Family::Subjects, &subjects, Kind::Subject),
        (Family::Index, &index, Kind::IndexEntry),
    ] {
        let before = all(&bench, family).await;
        bench.disk.write(put(family, entries)).await.unwrap();
        let found = findings(&bench, &[]).await;
        assert!(found.iter().any(|finding| finding.kind == kind && finding.fault == Fault::Added), "{found:?}");
        let gone = entries.iter().filter(|(key, _)| !before.iter().any(|(there, _)| there == key));
        bench.disk.write(gone.map(|(key, _)| Mutation::Delete(family, key.to_vec())).collect()).await.unwrap();
    }
    assert!(findings(&bench, &[]).await.is_empty());
}

#[tokio::test]
async fn pages_of_values_that_go_are_not_journalled() {
    let (bench, vault) = Bench::new().await;
    for page in 0..3 {
        let items = (0..200).map(|number| new_value("borrower.name", &format!("Ann {page} {number}"), "c-1"));
        vault.tokenize(&caller(Role::App), &tokenize(items.collect(), "")).await.unwrap();
    }
    erase(&vault, "c-1").await;
    go_on(&vault).await.unwrap();
    let all = leaves(&vault).await;
    let erased = all.iter().filter(|leaf| leaf["action"] == "erase_subject" && leaf["decision"] == "allow");
    let (pages, rest): (Vec<_>, Vec<_>) = erased.partition(|leaf| leaf["detail"]["stage"] == "clearing");
    assert!(pages.len() >= 2 && !rest.is_empty());
    let journal = std::fs::read(bench.folder.path().join("journal").join("journal")).unwrap();
    let name = b"\"action\":\"erase_subject\"";
    assert_eq!(journal.windows(name.len()).filter(|part| *part == name).count(), rest.len());
}
