//! Who is suspended is answered nothing, and nobody suspends whom it should not.

use super::*;
use crate::tests::tenants::{NUMBER, SAVINGS};
use crate::{CreateTenant, Export};

#[tokio::test]
async fn whatever_a_suspended_principal_asks_is_refused_and_others_are_answered() {
    let (bench, vault) = Bench::new().await;
    let token = store_one(&vault, FIELD, ID_CARD, "c-1").await;
    let officer = caller(Role::Officer);
    let export = Export::default();
    let mut under_way = vault.export(&caller(Role::Auditor), &export).await.unwrap();
    for principal in ["app/tester", "auditor/tester"] {
        assert!(suspend(&vault, &officer, principal).await.unwrap());
        assert!(!suspend(&vault, &officer, principal).await.unwrap());
    }
    let app = caller(Role::App);
    let asked = async |vault: &Tested| {
        let stored = vault.tokenize(&app, &tokenize(vec![new_value(FIELD, ID_CARD, "c-2")], "")).await;
        let known = vault.status(&app).await;
        let schema = ApplySchema { source: LENDING.to_owned(), dry_run: true };
        let applied = vault.apply_schema(&app, &schema).await;
        let read = read_one(vault, &token, "masked").await;
        is_suspended(&read) && is_suspended(&stored) && is_suspended(&known) && is_suspended(&applied)
    };
    assert!(asked(&vault).await);
    assert!(is_suspended(&vault.checkpoint(&caller(Role::Auditor), "").await));
    assert!(is_suspended(&under_way.next().await), "an export ends at its next page");
    vault.detokenize(&caller(Role::Privacy), &read(&token, "masked")).await.unwrap().remove(0).unwrap();
    vault.close().await;
    let vault = bench.open().await;
    assert!(asked(&vault).await);
    let told = vault.list_freezes(&officer).await.unwrap().suspended;
    assert_eq!(told.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["app/tester", "auditor/tester"]);
    assert_eq!((&*told[0].1.since.by, &*told[0].1.reason), ("officer/alice", "its key was found on a laptop"));
    for principal in ["app/tester", "auditor/tester"] {
        assert!(unsuspend(&vault, &officer, principal).await.unwrap());
        assert!(!unsuspend(&vault, &officer, principal).await.unwrap());
    }
    assert_eq!(read_one(&vault, &token, "plain").await.unwrap(), ID_CARD.as_bytes());
    let leaves = leaves(&vault).await;
    let refused = leaves.iter().filter(|leaf| leaf["reason"] == "SUSPENDED");
    assert!(refused.clone().count() >= 8 && refused.clone().all(|leaf| leaf["decision"] == "deny"));
    assert!(!leaves.iter().any(|leaf| leaf.to_string().contains("laptop")), "a reason is in no log");
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn nobody_suspends_itself_and_only_officers_suspend_officers() {
    let (_bench, vault) = Bench::new().await;
    let mut officers = [("carol", 3), ("dave", 4)].map(|(name, key)| (name.to_owned(), [key; 32])).to_vec();
    officers.push((SECOND.to_owned(), key_of_second()));
    vault.create_tenant(&operator(), &CreateTenant { name: SAVINGS.to_owned(), officers }).await.unwrap();
    let named = |role, name| {
        let principal = Arc::new(Principal::new(NUMBER, role, name));
        Caller::new(principal, "test")
    };
    let (carol, dave) = (named(Role::Officer, "carol"), named(Role::Officer, "dave"));
    assert!(matches!(suspend(&vault, &carol, "officer/carol").await, Err(Error::SuspensionRefused(_))));
    assert!(matches!(suspend(&vault, &carol, "officer/nobody").await, Err(Error::Invalid(_))));
    assert!(matches!(suspend(&vault, &carol, "carol").await, Err(Error::Invalid(_))));
    let nothing_said = Suspend { principal: "app/x".to_owned(), reason: " ".to_owned() };
    assert!(matches!(vault.suspend(&carol, &nothing_said).await, Err(Error::Invalid(_))));
    // Another tenant's officer of that name is somebody else.
    assert!(matches!(suspend(&vault, &carol, "officer/alice").await, Err(Error::Invalid(_))));
    let app = named(Role::App, "app");
    assert!(matches!(suspend(&vault, &app, "officer/dave").await, Err(Error::Denied { .. })));
    // Not even if policy lets it suspend.
    let lets = "permit (principal in Role::\"app\", action == Action::\"suspend\", resource);";
    let source = format!("{DEFAULT_POLICIES}\n@id(\"x\") @why(\"x\")\n{lets}\n");
    put_in_force(&vault, &carol, source).await;
    assert!(matches!(suspend(&vault, &app, "app/other").await, Err(Error::Denied { .. })));
    assert!(matches!(suspend(&vault, &app, "officer/dave").await, Err(Error::Denied { .. })));

    assert!(suspend(&vault, &carol, "officer/dave").await.unwrap());
    assert!(is_suspended(&unsuspend(&vault, &dave, "officer/dave").await));
    assert!(is_suspended(&suspend(&vault, &dave, "officer/carol").await));
    // The last one stays.
    assert!(matches!(suspend(&vault, &carol, "officer/carol").await, Err(Error::SuspensionRefused(_))));
    assert!(unsuspend(&vault, &carol, "officer/dave").await.unwrap());
    assert!(suspend(&vault, &dave, "officer/carol").await.unwrap());
    assert!(matches!(suspend(&vault, &dave, "officer/dave").await, Err(Error::SuspensionRefused(_))));
}
