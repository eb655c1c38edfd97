//! Legal holds: what they keep is neither deleted, replaced, expired nor erased, and is read for their purpose alone once the rest
//! is gone.

use strongroom_ids::KeyringNo;
use strongroom_storage::rows::{SubjectRecord, SubjectState};

use super::erasures::{erase, erase_with, go_on, said};
use super::rolls::{proven, records};
use super::*;
use crate::{LiftHold, ListHolds, ListedHold, SetHold};

const DAY: u64 = 24 * 3_600;
const MICROS: u64 = 1_000_000;

pub(super) fn hold(bench: &Bench, fields: &[&str], purpose: &str, days: u64) -> SetHold {
    SetHold {
        subject: "c-1".to_owned(),
        fields: fields.iter().map(|field| (*field).to_owned()).collect(),
        reason: "case-2027/118".to_owned(),
        purpose: purpose.to_owned(),
        until: bench.now.load(Ordering::Relaxed) + days * DAY * MICROS,
    }
}

pub(super) async fn set(vault: &Tested, request: &SetHold) -> Result<u32, Error> {
    vault.set_hold(&caller(Role::Officer), request).await
}

pub(super) async fn lift(vault: &Tested, number: u32) -> Result<(), Error> {
    vault.lift_hold(&caller(Role::Officer), &LiftHold { subject: "c-1".to_owned(), number }).await
}

pub(super) async fn listed(vault: &Tested) -> Vec<ListedHold> {
    vault.list_holds(&caller(Role::Privacy), &ListHolds { subject: "c-1".to_owned() }).await.unwrap()
}

pub(super) async fn delete(vault: &Tested, token: &str, subject: &str) -> Result<(), Error> {
    let items = vec![DeleteItem { token: token.to_owned(), subject: subject.to_owned() }];
    vault.delete(&caller(Role::App), &Delete { items, idempotency_key: String::new() }).await.unwrap().remove(0)
}

async fn replace(vault: &Tested, token: &str, value: &str) -> Result<Vec<u32>, Error> {
    let items = vec![NewVersion { token: token.to_owned(), value: value.to_owned().into(), expires: None }];
    vault.replace(&caller(Role::App), &Replace { items, idempotency_key: String::new() }).await
}

pub(super) async fn read_for(vault: &Tested, token: &str, purpose: &str) -> Result<Vec<u8>, Error> {
    let request = Detokenize { purpose: purpose.to_owned(), ..read(token, "plain") };
    let mut results = vault.detokenize(&caller(Role::App), &request).await?;
    results.remove(0).map(|released| released.value.as_bytes().to_vec())
}

#[tokio::test]
async fn what_is_held_is_neither_deleted_nor_replaced_and_what_is_not_is() {
    let (bench, vault) = Bench::new().await;
    let card = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    let name = store_one(&vault, "borrower.name", "张三", "c-1").await;
    let shared = store_one(&vault, "company.uscc", "91350100M000100Y43", "c-1").await;
    let held = ["borrower.id_card", "company.uscc"];
    assert_eq!(set(&vault, &hold(&bench, &held, "collections", 10)).await.unwrap(), 1);
    assert!(matches!(delete(&vault, &card, "").await, Err(Error::LegalHold)));
    assert!(matches!(replace(&vault, &card, "110105194912310038").await, Err(Error::LegalHold)));
    assert!(matches!(delete(&vault, &shared, "c-1").await, Err(Error::LegalHold)));
    assert!(replace(&vault, &name, "李四").await.is_ok());
    assert!(delete(&vault, &name, "").await.is_ok());
    // While the subject is there, others read what is held as before.
    assert_eq!(read_for(&vault, &card, "kyc_review").await.unwrap(), ID_CARD.as_bytes());
    let vault = proven(&bench, vault).await;

    let [one]: [ListedHold; 1] = listed(&vault).await.try_into().unwrap();
    assert_eq!((one.number, one.reason.as_str(), one.purpose.as_str()), (1, "case-2027/118", "collections"));
    assert_eq!((one.fields, one.stands), (held.map(str::to_owned).to_vec(), true));
    lift(&vault, 1).await.unwrap();
    assert!(matches!(lift(&vault, 1).await, Err(Error::NotFoundAt(_))));
    assert!(!listed(&vault).await[0].stands);
    // None is used twice.
    assert_eq!(set(&vault, &hold(&bench, &["borrower.id_card"], "collections", 1)).await.unwrap(), 2);
    bench.pass(2 * DAY);
    assert!(replace(&vault, &card, "110105194912310038").await.is_ok());
    assert!(delete(&vault, &shared, "c-1").await.is_ok());
    assert!(delete(&vault, &card, "").await.is_ok());
    proven(&bench, vault).await;
}

#[tokio::test]
async fn what_is_held_does_not_go_when_it_expires_and_is_read_for_the_holds_purpose() {
    let (bench, vault) = Bench::new().await;
    let expires = Some(bench.now.load(Ordering::Relaxed) + DAY * MICROS);
    let account = || new_value("company.settlement_account", "account-00000001", "c-1");
    let mortal = NewValue { expires, ..account() };
    let token = vault.tokenize(&caller(Role::App), &tokenize(vec![mortal], "")).await.unwrap().remove(0);
    set(&vault, &hold(&bench, &[], "collections", 30)).await.unwrap();
    bench.pass(2 * DAY);
    assert!(matches!(read_for(&vault, &token, "loan_servicing").await, Err(Error::NotFound)));
    assert_eq!(read_for(&vault, &token, "collections").await.unwrap(), b"account-00000001");
    let again = tokenize(vec![account()], "");
    assert!(matches!(vault.tokenize(&caller(Role::App), &again).await, Err(Error::LegalHold)));
    bench.pass(30 * DAY);
    assert!(matches!(read_for(&vault, &token, "collections").await, Err(Error::NotFound)));
    assert_ne!(vault.tokenize(&caller(Role::App), &again).await.unwrap()[0], token);
    proven(&bench, vault).await;
}

#[tokio::test]
async fn erasure_takes_all_but_what_is_held_and_the_rest_when_the_hold_ends() {
    for by_time in [false, true] {
        let (bench, vault) = Bench::new().await;
        let card = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
        let mobile = store_one(&vault, "borrower.mobile", "13800138000", "c-1").await;
        let email = store_one(&vault, "borrower.email", "a@mail.example", "c-1").await;
        let opened = store_one(&vault, "borrower.account_opened", "2020-01-02", "c-1").await;
        set(&vault, &hold(&bench, &["borrower.id_card"], "collections", 30)).await.unwrap();
        let told = erase(&vault, "c-1").await;
        assert_eq!((told.state, told.kept.len()), ("held", 1));
        assert_eq!(told.kept[0].fields, ["borrower.id_card"]);
        let receipt = said(&vault, &told).await;
        assert_eq!((receipt.held, receipt.values), (1, 3));

        // To all others it is as if it never was.
        assert_eq!(read_for(&vault, &card, "collections").await.unwrap(), ID_CARD.as_bytes());
        for purpose in ["kyc_review", "loan_servicing", "loan_origination"] {
            assert!(matches!(read_for(&vault, &card, purpose).await, Err(Error::NotFound)), "{purpose}");
        }
        for token in [&mobile, &email, &opened] {
            assert!(matches!(read_for(&vault, token, "collections").await, Err(Error::NotFound)));
        }
        assert!(matches!(delete(&vault, &card, "").await, Err(Error::NotFound)));
        assert!(matches!(replace(&vault, &card, "110105194912310038").await, Err(Error::NotFoundAt(_))));
        let new = tokenize(vec![new_value("borrower.name", "张三", "c-1")], "");
        assert!(matches!(vault.tokenize(&caller(Role::App), &new).await, Err(Error::SubjectHeld)));
        let [record]: [SubjectRecord; 1] = records(&bench).await.try_into().ok().unwrap();
        assert_eq!(record.state, SubjectState::Held);
        let keyrings: Vec<KeyringNo> = record.deks.iter().map(|dek| dek.keyring).collect();
        assert_eq!(keyrings.len(), 2, "its id's DEK and the one of what is held: {keyrings:?}");
        assert_eq!(entries(&bench.disk)["rows"], 1);
        assert_eq!(erase_with(&vault, "c-1", 0, "").await.unwrap(), told, "asked for again it is the same");

        // A roll was asked for, so that what was erased under the same DEK opens no more.
        let job = vault.running_jobs().await.unwrap();
        assert_eq!((job.len(), job[0].1.name.as_str(), job[0].1.principal.as_str()), (1, "roll/1", "vault"));
        super::keys::to_its_end(&vault, strongroom_storage::rows::JobKind::Roll, 100).await;
        let [record]: [SubjectRecord; 1] = records(&bench).await.try_into().ok().unwrap();
        assert!(record.deks.iter().all(|dek| dek.version.0 == 2));
        let vault = proven(&bench, vault).await;
        assert_eq!(read_for(&vault, &card, "collections").await.unwrap(), ID_CARD.as_bytes());

        // Nothing else of it can be held: it is gone.
        let more = set(&vault, &hold(&bench, &["borrower.mobile"], "collections", 60)).await;
        assert!(matches!(more, Err(Error::Invalid(_))));
        match by_time {
            true => {
                assert!(go_on(&vault).await.unwrap().is_some());
                bench.pass(31 * DAY);
            }
            false => lift(&vault, 1).await.unwrap(),
        }
        assert!(matches!(read_for(&vault, &card, "collections").await, Err(Error::NotFound)));
        go_on(&vault).await.unwrap();
        let request = crate::GetErasure { erasure: told.erasure };
        let told = vault.get_erasure(&caller(Role::Privacy), &request).await.unwrap();
        let receipt = said(&vault, &told).await;
        assert_eq!((told.state, receipt.held, receipt.values), ("erased", 0, 4));
        for family in ["rows", "row_deks", "subjects", "subject_rows", "holders", "index"] {
            assert_eq!(entries(&bench.disk)[family], 0, "{family}");
        }
        proven(&bench, vault).await;
    }
}

#[tokio::test]
async fn a_shared_value_that_is_held_stays_and_a_hold_on_what_is_not_there_keeps_nobody() {
    let (bench, vault) = Bench::new().await;
    let uscc = "91350100M000100Y43";
    let token = store_one(&vault, "company.uscc", uscc, "c-1").await;
    let name = store_one(&vault, "borrower.name", "张三", "c-1").await;
    set(&vault, &hold(&bench, &["company.uscc"], "collections", 30)).await.unwrap();
    assert_eq!(erase(&vault, "c-1").await.state, "held");
    let read = async |purpose: &str| {
        let item = ReadItem { token: token.clone(), view: String::new(), subject: "c-1".to_owned() };
        let request = Detokenize { items: vec![item], purpose: purpose.to_owned(), view: "plain".to_owned() };
        vault.detokenize(&caller(Role::App), &request).await.unwrap().remove(0)
    };
    assert_eq!(read("collections").await.unwrap().value.as_bytes(), uscc.as_bytes());
    assert!(matches!(read("kyc_review").await, Err(Error::NotFound)));
    assert!(matches!(read_for(&vault, &name, "collections").await, Err(Error::NotFound)));
    assert_eq!((entries(&bench.disk)["rows"], entries(&bench.disk)["holders"]), (1, 1));
    let vault = proven(&bench, vault).await;
    lift(&vault, 1).await.unwrap();
    go_on(&vault).await.unwrap();
    assert_eq!((entries(&bench.disk)["rows"], entries(&bench.disk)["row_deks"]), (0, 0));

    store_one(&vault, "borrower.name", "张三", "c-1").await;
    set(&vault, &hold(&bench, &["borrower.id_card"], "collections", 30)).await.unwrap();
    assert_eq!(erase(&vault, "c-1").await.state, "erased");
    proven(&bench, vault).await;
}

#[tokio::test]
async fn the_second_of_two_holds_keeps_its_own_when_the_first_ends() {
    let (bench, vault) = Bench::new().await;
    let card = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    let opened = store_one(&vault, "borrower.account_opened", "2020-01-02", "c-1").await;
    set(&vault, &hold(&bench, &["borrower.id_card"], "collections", 60)).await.unwrap();
    set(&vault, &hold(&bench, &["borrower.account_opened"], "kyc_review", 30)).await.unwrap();
    assert_eq!(erase(&vault, "c-1").await.kept.len(), 2);
    assert!(read_for(&vault, &opened, "kyc_review").await.is_ok());
    assert!(matches!(read_for(&vault, &opened, "collections").await, Err(Error::NotFound)));
    let vault = proven(&bench, vault).await;
    bench.pass(31 * DAY);
    go_on(&vault).await.unwrap();
    assert_eq!(entries(&bench.disk)["rows"], 1);
    assert_eq!(read_for(&vault, &card, "collections").await.unwrap(), ID_CARD.as_bytes());
    assert!(matches!(read_for(&vault, &opened, "kyc_review").await, Err(Error::NotFound)));
    let vault = proven(&bench, vault).await;
    bench.pass(30 * DAY);
    go_on(&vault).await.unwrap();
    assert_eq!(entries(&bench.disk)["rows"], 0);
    proven(&bench, vault).await;
}

#[tokio::test]
async fn holds_that_are_none_are_refused() {
    let (bench, vault) = Bench::new().await;
    store_one(&vault, "borrower.name", "张三", "c-1").await;
    let right = || hold(&bench, &["borrower.name"], "collections", 30);
    let now = bench.now.load(Ordering::Relaxed);
    let wrong = [
        SetHold { reason: String::new(), ..right() },
        SetHold { reason: "Li Na's case".to_owned(), ..right() },
        SetHold { reason: "x".repeat(65), ..right() },
        SetHold { purpose: "no_such".to_owned(), ..right() },
        SetHold { purpose: String::new(), ..right() },
        SetHold { fields: vec!["no.such".to_owned()], ..right() },
        SetHold { until: 0, ..right() },
        SetHold { until: now, ..right() },
        SetHold { until: now + 31 * 366 * DAY * MICROS, ..right() },
        SetHold { subject: String::new(), ..right() },
    ];
    for request in wrong {
        assert!(matches!(set(&vault, &request).await, Err(Error::Invalid(_))));
    }
    let unknown = SetHold { subject: "c-9".to_owned(), ..right() };
    assert!(matches!(set(&vault, &unknown).await, Err(Error::NotFoundAt(_))));
    assert!(matches!(lift(&vault, 7).await, Err(Error::NotFoundAt(_))));
    for number in 1..=20 {
        assert_eq!(set(&vault, &right()).await.unwrap(), number);
    }
    assert!(matches!(set(&vault, &right()).await, Err(Error::Invalid(_))));
    lift(&vault, 3).await.unwrap();
    assert_eq!(set(&vault, &right()).await.unwrap(), 21);
    proven(&bench, vault).await;
}
