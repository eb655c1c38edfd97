//! What a small request may cost: rows read, leaves written, and decisions made.

use super::*;

fn seek(values: &[&str]) -> Lookup {
    let item = |value: &&str| LookupItem { field: "borrower.mobile".to_owned(), value: (*value).to_owned().into() };
    Lookup { items: values.iter().map(item).collect(), purpose: "loan_servicing".to_owned() }
}

#[tokio::test]
async fn a_lookup_asks_for_each_value_once_however_it_is_spelt() {
    let (_bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.mobile", "13812345678", "c-1").await;
    for twice in [["13812345678", "13812345678"], ["13812345678", "138 1234 5678"]] {
        let told = vault.lookup(&caller(Role::App), &seek(&twice)).await.unwrap_err();
        let Error::Invalid(violations) = told else { panic!("{told}") };
        assert_eq!(violations.len(), 1);
        assert_eq!((violations[0].path.as_str(), violations[0].rule), ("items[1].value", "repeated"));
    }
    let found = vault.lookup(&caller(Role::App), &seek(&["13812345678", "13812345679"])).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().tokens, [token]);
    assert!(found[1].as_ref().unwrap().tokens.is_empty());
}

#[tokio::test]
async fn a_lookup_answers_no_more_tokens_in_all_than_a_call_has_items() {
    let (_bench, vault) = Bench::new().await;
    let values: Vec<String> = (0..11).map(|number| format!("138123456{number:02}")).collect();
    for value in &values {
        let items = (0..1_000).map(|_| new_value("borrower.mobile", value, "c-1")).collect();
        vault.tokenize(&caller(Role::App), &tokenize(items, "")).await.unwrap();
    }
    let all: Vec<&str> = values.iter().map(String::as_str).collect();
    let told = vault.lookup(&caller(Role::App), &seek(&all)).await.unwrap_err();
    let Error::Invalid(violations) = told else { panic!("{told}") };
    assert_eq!((violations[0].path.as_str(), violations[0].rule), ("items", "too_many_found"));
    let found = vault.lookup(&caller(Role::App), &seek(&all[..10])).await.unwrap();
    assert!(found.iter().all(|found| found.as_ref().unwrap().tokens.len() == 1_000));
}

#[tokio::test]
async fn what_is_denied_is_decided_once_and_costs_what_an_unknown_token_does() {
    use strongroom_access::CaseLoad;

    use crate::reading::Denials;
    use crate::resolve::Resolved;
    let (_bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    let other = store_one(&vault, "borrower.id_card", ID_CARD, "c-2").await;
    let nobody = caller(Role::Rotator);
    let request = read(&token, "plain");
    let tenant = vault.tenant(TenantNo(1)).unwrap();
    let road = vault.road(&tenant, &nobody, &request, [0; 16]).await.unwrap();
    let resolved = road.resolve(&[&token, &other]).await.unwrap();
    let mut denials = Denials::default();
    for (resolved, token) in resolved.iter().zip([&token, &other]) {
        let Resolved::Value(found) = resolved else { panic!("it is there") };
        for view in ["plain", "plain", "no such view", "nor this"] {
            assert!(matches!(denials.refuse(&road, token, found, Some(view), CaseLoad::None).error, Error::NotFound));
        }
    }
    assert_eq!(denials.decided(), 2, "one view, and all that the field has not");
    let mut denials = Denials::default();
    let refusal = denials.not_found(&road, "srt1_0000000000000000000000", &Resolved::Nothing);
    assert!(matches!(refusal.error, Error::NotFound));
    assert_eq!(denials.decided(), 1, "as if a value had been denied");
}
