//! Shared values: what their holders cost, and how long they are kept.

use strongroom_ids::RowId;
use strongroom_storage::rows::ValueRow;
use strongroom_storage::{Family, Range, Store, keys as place};

use super::*;

const USCC: &str = "91350100M000100Y43";
const DAY: u64 = 24 * 3_600;
const YEAR: u64 = 366 * DAY;

async fn hold(vault: &Tested, subjects: impl Iterator<Item = String>) -> String {
    let items: Vec<NewValue> = subjects.map(|subject| new_value("company.uscc", USCC, &subject)).collect();
    vault.tokenize(&caller(Role::App), &tokenize(items, "")).await.unwrap().remove(0)
}

async fn let_go(vault: &Tested, token: &str, subject: &str) -> Result<(), Error> {
    let items = vec![DeleteItem { token: token.to_owned(), subject: subject.to_owned() }];
    vault.delete(&caller(Role::App), &Delete { items, idempotency_key: String::new() }).await.unwrap().remove(0)
}

/// The only row of the tenant.
async fn row(bench: &Bench) -> (RowId, ValueRow) {
    let (from, to) = (place::row(TenantNo(1), RowId(0)), place::row(TenantNo(1), RowId(u64::MAX)));
    let rows = bench.disk.scan(Family::Rows, Range { from, to, limit: 10 }).await.unwrap();
    assert_eq!(rows.len(), 1);
    (place::decode_row(&rows[0].0).unwrap(), ValueRow::decode(&rows[0].1).unwrap())
}

#[tokio::test]
async fn letting_go_of_a_value_costs_the_same_however_many_hold_it() {
    let (bench, vault) = Bench::new().await;
    let token = hold(&vault, (0..3).map(|number| format!("c-{number}"))).await;
    let cost = async |subject: &str| {
        let before = bench.faults.asked();
        let_go(&vault, &token, subject).await.unwrap();
        bench.faults.asked() - before
    };
    let of_three = cost("c-0").await;
    hold(&vault, (0..3_500).map(|number| format!("d-{number}"))).await;
    assert_eq!(cost("d-3499").await, of_three);
    assert!(matches!(let_go(&vault, &token, "").await, Err(Error::SubjectRequired)));
    assert!(matches!(let_go(&vault, &token, "d-3499").await, Err(Error::NotFound)));
}

#[tokio::test]
async fn holders_of_all_items_are_looked_up_at_once() {
    let (bench, vault) = Bench::new().await;
    let token = hold(&vault, (0..100).map(|number| format!("c-{number}"))).await;
    let read = |count: usize| {
        let item =
            |number: usize| ReadItem { token: token.clone(), view: String::new(), subject: format!("c-{number}") };
        Detokenize { items: (0..count).map(item).collect(), ..super::read("", "plain") }
    };
    let cost = async |count: usize| {
        let before = bench.faults.asked();
        let results = vault.detokenize(&caller(Role::App), &read(count)).await.unwrap();
        assert!(results.iter().all(Result::is_ok));
        bench.faults.asked() - before
    };
    assert_eq!(cost(100).await, cost(1).await);
}

#[tokio::test]
async fn what_has_expired_lets_go_of_its_holders_page_by_page() {
    let (bench, vault) = Bench::new().await;
    let empty = entries(&bench.disk);
    let first = hold(&vault, (0..2_500).map(|number| format!("c-{number}"))).await;
    let before = leaves(&vault).await.len();
    bench.pass(10 * YEAR + DAY);
    let second = hold(&vault, std::iter::once("c-1".to_owned())).await;
    assert_ne!(first, second);
    let left = entries(&bench.disk);
    for family in ["rows", "row_deks", "holders", "subject_rows"] {
        assert_eq!(left[family], empty[family] + 1, "{family}");
    }
    let mut commits: Vec<usize> = Vec::new();
    let mut outcomes: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    for leaf in leaves(&vault).await.split_off(before) {
        let items = leaf["items"].as_array().cloned().unwrap_or_default();
        match leaf["part"].as_str() {
            Some(part) if !part.starts_with("1/") => *commits.last_mut().unwrap() += items.len(),
            _ => commits.push(items.len()),
        }
        for item in items {
            *outcomes.entry(item["outcome"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    assert!(commits.iter().all(|items| *items <= 1_000), "{commits:?}");
    assert_eq!((outcomes["released"], outcomes["expired_removed"], outcomes["ok"]), (2_000, 1, 1));
}

#[tokio::test]
async fn a_shared_value_is_kept_as_long_for_its_last_holder_as_for_its_first() {
    let (bench, vault) = Bench::new().await;
    let token = hold(&vault, std::iter::once("a".to_owned())).await;
    bench.pass(9 * YEAR);
    // Who holds it already only asks what its token is.
    assert_eq!(hold(&vault, std::iter::once("a".to_owned())).await, token);
    let (id, first) = row(&bench).await;
    assert_eq!(first.version.0, 1);
    let new = ["b", "a", "c"].map(str::to_owned).into_iter();
    assert_eq!(hold(&vault, new).await, token);
    let (same, second) = row(&bench).await;
    assert_eq!((same, second.version.0), (id, 2));
    assert_eq!((second.check, second.indexes.len()), (first.check, first.indexes.len()));
    bench.pass(9 * YEAR);
    assert_eq!(read_one(&vault, &token, "plain").await.unwrap(), USCC.as_bytes());
    assert_eq!(look_up(&vault, "company.uscc", USCC, "kyc_review").await.tokens, [token.as_str()]);
    assert_eq!(hold(&vault, std::iter::once("d".to_owned())).await, token);
    // Holders that come close after each other do not turn each other back for it.
    assert_eq!(hold(&vault, std::iter::once("e".to_owned())).await, token);
    assert_eq!(row(&bench).await.1.version.0, 3);
    let all = leaves(&vault).await;
    let items = all.iter().filter_map(|leaf| leaf["items"].as_array()).flatten();
    assert_eq!(items.filter(|item| item["outcome"] == "renewed").count(), 2);
    bench.pass(10 * YEAR);
    assert!(matches!(read_one(&vault, &token, "plain").await, Err(Error::NotFound)));
    vault.close().await;
}

#[tokio::test]
async fn two_expiries_are_refused_before_anything_is_reserved() {
    use strongroom_storage::rows::CounterRow;
    let (bench, vault) = Bench::new().await;
    hold(&vault, std::iter::once("a".to_owned())).await;
    let soon = Some(bench.now.load(Ordering::Relaxed) + 60_000_000);
    let other = NewValue { expires: soon, ..new_value("company.uscc", USCC, "a") };
    // More than a block, so that it would show.
    let many = (0..9_000).map(|number| new_value("borrower.email", &format!("{number}@mail.example"), ""));
    let request = tokenize(many.chain([other]).collect(), "");
    let reserved = async || {
        let key = place::counter(TenantNo(1), place::Counter::RowIds);
        let row = bench.disk.get(Family::Meta, key).await.unwrap().unwrap();
        CounterRow::decode(&row).unwrap().next
    };
    let before = reserved().await;
    for _ in 0..8 {
        let told = vault.tokenize(&caller(Role::App), &request).await.unwrap_err();
        let Error::Invalid(violations) = told else { panic!("{told}") };
        assert_eq!((violations[0].path.as_str(), violations[0].rule), ("items[9000].expire_time", "differs"));
    }
    assert_eq!(reserved().await, before);
    let twice =
        [None, soon].map(|expires| NewValue { expires, ..new_value("company.uscc", "91110000600037341L", "a") });
    assert!(matches!(vault.tokenize(&caller(Role::App), &tokenize(twice.into(), "")).await, Err(Error::Invalid(_))));
}
