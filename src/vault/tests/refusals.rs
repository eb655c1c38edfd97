//! What is refused is in the ledger, one way or the other, and fills no disk.

use super::*;

#[tokio::test]
async fn invented_tokens_beside_a_good_one_cost_their_budget_too() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    let before = leaves(&vault).await.len();
    let item = |token: String| ReadItem { token, view: String::new(), subject: String::new() };
    let invented = (1..10_000).map(|number| item(format!("srt1_{number:022}")));
    let items = std::iter::once(item(token.clone())).chain(invented).collect();
    let many = Detokenize { items, ..read("", "plain") };
    for _ in 0..100 {
        let results = vault.detokenize(&caller(Role::App), &many).await.unwrap();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    }
    let all = leaves(&vault).await.split_off(before);
    assert!(all.len() < 400, "{} leaves for 100 requests", all.len());
    let count = |leaf: &serde_json::Value, outcome: &str| {
        let items = leaf["items"].as_array().into_iter().flatten();
        items.filter(|item| item["outcome"] == outcome).count()
    };
    let released: usize = all.iter().map(|leaf| count(leaf, "ok")).sum();
    assert_eq!(released, 100, "what was released is listed whatever else was asked");
    let listed: usize = all.iter().map(|leaf| count(leaf, "NOT_FOUND")).sum();
    let counted = all.iter().filter_map(|leaf| leaf["detail"]["refused"].as_str()?.strip_prefix("NOT_FOUND="));
    let counted: usize = counted.map(|count| count.parse::<usize>().unwrap()).sum();
    assert_eq!(listed + counted, 100 * 9_999, "every refusal is in the ledger, one way or the other");
    bench.pass(60);
    let few =
        Detokenize { items: vec![item(token), item("srt1_0000000000000000000000".to_owned())], ..read("", "plain") };
    vault.detokenize(&caller(Role::App), &few).await.unwrap();
    let last = leaves(&vault).await.into_iter().rfind(|leaf| leaf["action"] == "detokenize").unwrap();
    assert_eq!((count(&last, "ok"), count(&last, "NOT_FOUND")), (1, 1));
}

#[tokio::test]
async fn a_request_that_is_turned_back_for_good_is_in_the_ledger() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    // Policy was told the hour, and each time another one has come before the commit.
    bench.step.store(2 * 3_600_000_000, Ordering::Relaxed);
    assert!(matches!(read_one(&vault, &token, "plain").await, Err(Error::Conflict)));
    bench.step.store(1, Ordering::Relaxed);
    let all = leaves(&vault).await;
    let turned_back: Vec<_> = all.iter().filter(|leaf| leaf["reason"] == "CONFLICT").collect();
    assert_eq!(turned_back.len(), 1);
    assert_eq!(
        (turned_back[0]["action"].as_str(), turned_back[0]["decision"].as_str()),
        (Some("detokenize"), Some("fail"))
    );
}
