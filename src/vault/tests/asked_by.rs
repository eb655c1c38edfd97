//! Questions by a token, a row, a handle, a field or a purpose: the index answers them as a look at every leaf does.

use super::questions::{found, size};
use super::*;
use crate::{Export, LeafFilter};

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Those that fit, by the index and by a look at every leaf, which must be the same; and whether the vault knew of whom.
async fn both(vault: &Tested, filter: impl Fn() -> LeafFilter, end: u64) -> (Vec<u64>, bool) {
    let (by_index, told) = found(vault, filter(), end, false).await;
    assert_eq!(found(vault, filter(), end, true).await.0, by_index);
    let told = told.unwrap();
    (by_index, !told.rows.is_some_and(|rows| rows.is_empty()))
}

#[tokio::test]
async fn all_that_was_done_to_one_token_is_found_and_by_its_row_when_it_is_gone() {
    let (_bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    let other = store_one(&vault, "borrower.name", "Ann", "c-1").await;
    let alone = store_one(&vault, "borrower.email", "a@mail.example", "").await;
    for token in [&token, &other, &token] {
        read_one(&vault, token, "plain").await.unwrap();
    }
    assert!(read_as(&vault, &caller(Role::Auditor), &token, "plain").await.is_err());
    for number in 0..300 {
        store_one(&vault, "borrower.name", "Ann", &format!("c-{}", number % 7)).await;
    }
    vault.index_logs(None, u32::MAX).await.unwrap();
    let by_token = |token: &String| {
        let token = token.clone();
        move || LeafFilter { token: token.clone(), ..LeafFilter::default() }
    };
    let end = size(&vault);
    let (of_token, _) = both(&vault, by_token(&token), end).await;
    assert_eq!(of_token.len(), 4, "stored, read twice, and refused");
    assert_eq!(both(&vault, by_token(&other), end).await.0.len(), 2);
    assert_eq!(both(&vault, by_token(&alone), end).await.0.len(), 1, "also of nobody");

    let all = leaves(&vault).await;
    let stored = &all[usize::try_from(of_token[0]).unwrap()]["items"][0];
    let number = |name: &str| -> u64 { text(&stored[name]).parse().unwrap() };
    let (row, handle) = (number("row"), number("subject"));
    let item = DeleteItem { token: token.clone(), subject: String::new() };
    let delete = Delete { items: vec![item], idempotency_key: String::new() };
    vault.delete(&caller(Role::App), &delete).await.unwrap().remove(0).unwrap();
    for _ in 0..300 {
        store_one(&vault, "borrower.name", "Eve", "").await;
    }
    vault.index_logs(None, u32::MAX).await.unwrap();
    let (all, end) = (leaves(&vault).await, size(&vault));
    assert_eq!(both(&vault, by_token(&token), end).await, (vec![], false), "it leads nowhere any more");
    let naive = |fits: &dyn Fn(&serde_json::Value) -> bool| -> Vec<u64> {
        let is = |leaf: &serde_json::Value| leaf["items"].as_array().into_iter().flatten().any(fits);
        (0..end).zip(&all).filter(|(_, leaf)| is(leaf)).map(|(index, _)| index).collect()
    };
    let by_row = || LeafFilter { row: Some(row), ..LeafFilter::default() };
    let of_row = both(&vault, by_row, end).await.0;
    assert_eq!(of_row, naive(&|item| text(&item["row"]) == row.to_string()));
    assert!(of_row.starts_with(&of_token) && of_row.len() > of_token.len());
    let by_handle = || LeafFilter { handle: Some(handle), ..LeafFilter::default() };
    let of_handle = both(&vault, by_handle, end).await.0;
    assert_eq!(of_handle, naive(&|item| text(&item["subject"]) == handle.to_string()));
    let by_field = || LeafFilter { field: "borrower.email".to_owned(), ..LeafFilter::default() };
    assert_eq!(both(&vault, by_field, end).await.0, naive(&|item| item["field"] == "borrower.email"));
    let by_purpose =
        |purpose: &'static str| move || LeafFilter { purpose: purpose.to_owned(), ..LeafFilter::default() };
    let of_purpose = (0..end).zip(&all).filter(|(_, leaf)| leaf["purpose"] == "kyc_review").map(|(index, _)| index);
    assert_eq!(both(&vault, by_purpose("kyc_review"), end).await.0, of_purpose.collect::<Vec<_>>());
    assert_eq!(both(&vault, by_purpose("marketing"), end).await.0, [0_u64; 0]);
    // Asked of both ways at once it would be unclear which is meant.
    let twice =
        [LeafFilter { token: token.clone(), ..by_row() }, LeafFilter { subject: "c-1".to_owned(), ..by_handle() }];
    for filter in twice {
        let asked = Export { filter, ..Export::default() };
        assert!(matches!(vault.export(&caller(Role::Auditor), &asked).await, Err(Error::Invalid(_))));
    }
    // A number that no leaf has is not repeated.
    let nobody = || LeafFilter { handle: Some(13_800_138_000), row: Some(13_800_138_001), ..LeafFilter::default() };
    assert_eq!(both(&vault, nobody, end).await.0, [0_u64; 0]);
    let asked: Vec<_> = leaves(&vault).await.into_iter().filter(|leaf| leaf["action"] == "export_ledger").collect();
    let (row, handle) = (row.to_string(), handle.to_string());
    assert!(asked.iter().any(|leaf| leaf["detail"]["row"] == row));
    assert!(asked.iter().any(|leaf| leaf["detail"]["handle"] == handle));
    assert!(asked.iter().any(|leaf| leaf["detail"]["purpose"] == "kyc_review"));
    assert!(asked.iter().all(|leaf| !leaf.to_string().contains("138001380")), "{asked:?}");
}
