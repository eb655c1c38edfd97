//! What was refused is found by whoever asks for it, however much of the same request was allowed.

use super::questions::{found, size};
use super::*;
use crate::{Export, LeafFilter};

fn denied() -> LeafFilter {
    LeafFilter { denied: true, ..LeafFilter::default() }
}

fn for_reason(reason: &str) -> LeafFilter {
    LeafFilter { reason: reason.to_owned(), ..LeafFilter::default() }
}

/// Whether a leaf says that something was refused with such a reason: so simply that it hides nothing.
fn says(leaf: &serde_json::Value, is: &dyn Fn(&str) -> bool) -> bool {
    let items = leaf["items"].as_array().into_iter().flatten();
    let outcomes = items.filter_map(|item| item["outcome"].as_str());
    let counts = leaf["detail"]["refused"].as_str().unwrap_or_default();
    let counted = counts.split(' ').filter_map(|one| one.split_once('=')).map(|(reason, _)| reason);
    leaf["reason"].as_str().into_iter().chain(outcomes).chain(counted).any(is)
}

/// Those that fit, by the index and by a look at every leaf, which must be the same.
async fn both(vault: &Tested, filter: impl Fn() -> LeafFilter, end: u64) -> Vec<u64> {
    let (by_index, _) = found(vault, filter(), end, false).await;
    assert_eq!(found(vault, filter(), end, true).await.0, by_index);
    by_index
}

#[tokio::test]
async fn one_good_token_hides_none_that_were_denied() {
    let (_bench, vault) = Bench::new().await;
    let good = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    // Nobody reads it for this purpose.
    let forbidden = store_one(&vault, "borrower.email", "a@mail.example", "c-2").await;
    let item = |token: &str| ReadItem { token: token.to_owned(), view: String::new(), subject: String::new() };
    let one_of_many = |count: usize| {
        let items = std::iter::once(&good).chain((0..count).map(|_| &forbidden)).map(|token| item(token)).collect();
        Detokenize { items, ..read("", "plain") }
    };
    // So many that its budget is spent, and what was refused is counted in the leaf of what was allowed.
    for count in std::iter::once(1).chain([9_999; 12]) {
        let results = vault.detokenize(&caller(Role::App), &one_of_many(count)).await.unwrap();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    }
    for number in 0..300 {
        store_one(&vault, "borrower.name", "Ann", &format!("c-{number}")).await;
    }
    vault.index_logs(None, u32::MAX).await.unwrap();
    let (all, end) = (leaves(&vault).await, size(&vault));
    let is_reason = |reason: &str| reason == "PURPOSE_NOT_ALLOWED";
    let naive: Vec<u64> = (0..end).zip(&all).filter(|(_, leaf)| says(leaf, &is_reason)).map(|(at, _)| at).collect();
    let unlisted = all.iter().filter(|leaf| leaf["detail"]["refused"].is_string()).count();
    assert!(naive.len() >= 10 && unlisted > 0, "{naive:?}, {unlisted}");
    assert!(all.iter().all(|leaf| leaf["decision"] == "allow"), "each was allowed as a whole");
    assert_eq!(both(&vault, denied, end).await, naive);
    assert_eq!(both(&vault, || for_reason("PURPOSE_NOT_ALLOWED"), end).await, naive);
    assert_eq!(both(&vault, || for_reason("FROZEN"), end).await, [0_u64; 0]);
    // Of whom: by an item that was refused itself, and not by another of the same request.
    let of = |subject: &'static str| move || LeafFilter { subject: subject.to_owned(), ..denied() };
    let of_two = both(&vault, of("c-2"), end).await;
    assert!(!of_two.is_empty() && of_two.iter().all(|leaf| naive.contains(leaf)));
    assert_eq!(both(&vault, of("c-1"), end).await, [0_u64; 0]);
    // The same with proofs.
    let request = Export { end, filter: denied(), proofs: true, ..Export::default() };
    let written = super::exports::export(&vault, &request).await.unwrap();
    assert_eq!(written.lines.lines().count(), naive.len());
}

#[tokio::test]
async fn a_flood_is_found_by_its_reason_and_by_none_in_particular() {
    let (_bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    for number in 0..600 {
        let (who, token) = match number % 2 {
            0 => (Role::Auditor, token.as_str()),
            _ => (Role::App, "srt1_0000000000000000000000"),
        };
        assert!(read_as(&vault, &caller(who), token, "plain").await.is_err());
    }
    vault.write_counted_refusals().await;
    vault.index_logs(None, u32::MAX).await.unwrap();
    let (all, end) = (leaves(&vault).await, size(&vault));
    let naive = |is: &dyn Fn(&str) -> bool| -> Vec<u64> {
        (0..end).zip(&all).filter(|(_, leaf)| says(leaf, is)).map(|(at, _)| at).collect()
    };
    let floods: Vec<_> = all.iter().filter(|leaf| leaf["detail"]["counted"].is_string()).collect();
    assert_eq!(floods.len(), 2);
    let of_auditor = naive(&|reason| reason == "DENIED");
    assert_eq!(both(&vault, denied, end).await, of_auditor);
    let of_app = naive(&|reason| reason == "NOT_FOUND");
    assert_eq!(both(&vault, || for_reason("NOT_FOUND"), end).await, of_app);
    for found in [&of_auditor, &of_app] {
        assert!(found.len() >= 200 && floods.iter().any(|leaf| found.contains(&leaf_index(leaf))));
    }
    let refused = || LeafFilter { refused: true, ..LeafFilter::default() };
    assert_eq!(both(&vault, refused, end).await, naive(&|reason| reason.starts_with(char::is_uppercase)));
    for wrong in [for_reason("no reason"), LeafFilter { denied: true, ..for_reason("NOT_FOUND") }] {
        let asked = Export { filter: wrong, ..Export::default() };
        assert!(matches!(vault.export(&caller(Role::Auditor), &asked).await, Err(Error::Invalid(_))));
    }
    let asked = leaves(&vault).await.into_iter().filter(|leaf| leaf["action"] == "export_ledger");
    let asked: Vec<_> = asked.map(|leaf| leaf["detail"].clone()).collect();
    assert!(asked.iter().any(|detail| detail["reason"] == "NOT_FOUND"), "what the ledger has, it has again");
    assert!(asked.iter().any(|detail| detail["denied"] == "true"));
    assert!(asked.iter().any(|detail| detail["any_reason"] == "true"));
}

fn leaf_index(leaf: &serde_json::Value) -> u64 {
    leaf["index"].as_str().unwrap().parse().unwrap()
}
