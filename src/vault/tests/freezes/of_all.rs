//! A freeze of everything: which tenants it holds for, and what goes on while it does.

use super::*;
use crate::tests::erasures::erase_with;
use crate::tests::tenants::{NUMBER, SAVINGS, fill, log, make, read_of};
use crate::{
    BackupKeystore, CreateTenant, DestroyTenant, LiftHold, RotateKey, SetHold, SetKeyState, SetLabels, StartRewrap,
};

#[tokio::test]
async fn all_tenants_are_frozen_one_made_later_too_and_every_log_says_so() {
    let (bench, vault) = Bench::new().await;
    let mut data = Data::of(&vault).await;
    make(&vault, SAVINGS).await.unwrap();
    let tokens = fill(&vault, NUMBER).await;
    freeze(&vault, FIELD, What::Reads).await;
    assert!(freeze_all(&vault, What::Reads).await.unwrap());
    assert!(data.reads_are_frozen(&vault).await && !data.writes_are_frozen(&vault).await);
    assert!(is_frozen(&read_of(&vault, NUMBER, &tokens[0]).await));
    // Neither can a tenant's officers end it, nor does the end of their own freeze.
    assert!(unfreeze(&vault, FIELD, What::Both).await);
    assert!(!unfreeze(&vault, "", What::Both).await);
    assert!(data.reads_are_frozen(&vault).await);
    make(&vault, "later").await.unwrap();
    let later = fill(&vault, TenantNo(3)).await;
    assert!(is_frozen(&read_of(&vault, TenantNo(3), &later[0]).await));
    vault.close().await;
    let vault = bench.open().await;
    for (tenant, token) in [(NUMBER, &tokens[0]), (TenantNo(3), &later[0])] {
        assert!(is_frozen(&read_of(&vault, tenant, token).await));
    }
    assert!(unfreeze_all(&vault, What::Reads).await.unwrap());
    assert!(!unfreeze_all(&vault, What::Reads).await.unwrap());
    assert!(!data.reads_are_frozen(&vault).await);
    for (tenant, token) in [(NUMBER, &tokens[0]), (TenantNo(3), &later[0])] {
        assert_eq!(read_of(&vault, tenant, token).await.unwrap(), ID_CARD.as_bytes());
    }
    let told = |leaves: Vec<serde_json::Value>| -> Vec<String> {
        let allowed = leaves.into_iter().filter(|leaf| leaf["decision"] == "allow");
        let actions = allowed.map(|leaf| leaf["action"].as_str().unwrap().to_owned());
        actions.filter(|action| action.ends_with("freeze_all")).collect()
    };
    assert_eq!(told(log(&vault, &operator(), "").await), ["freeze_all", "unfreeze_all", "unfreeze_all"]);
    assert_eq!(told(log(&vault, &of(DEMO, Role::Auditor), "").await), ["freeze_all", "unfreeze_all"]);
    assert_eq!(told(log(&vault, &of(NUMBER, Role::Auditor), "").await), ["freeze_all", "unfreeze_all"]);
    assert_eq!(told(log(&vault, &of(TenantNo(3), Role::Auditor), "").await), ["unfreeze_all"]);
    vault.close().await;
    assert_eq!(findings(&bench, &[]).await, []);
}

#[tokio::test]
async fn what_frees_protects_or_shows_goes_on_while_all_is_frozen() {
    let (_bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    freeze(&vault, "", What::Both).await;
    freeze_all(&vault, What::Both).await.unwrap();
    let officer = caller(Role::Officer);
    // What the table in SECURITY.md says is stopped.
    let schema = ApplySchema { source: LENDING.to_owned(), dry_run: false };
    assert!(is_frozen(&vault.apply_schema(&officer, &schema).await));
    let end = DestroyTenant { name: SAVINGS.to_owned(), dry_run: false };
    assert!(is_frozen(&vault.destroy_tenant(&operator(), &end).await));
    // And what goes on.
    put_in_force(&vault, &officer, DEFAULT_POLICIES).await;
    vault.status(&officer).await.unwrap();
    vault.list_keys(&officer).await.unwrap();
    vault.get_schema(&officer).await.unwrap();
    vault.checkpoint(&officer, "").await.unwrap();
    vault.rotate_key(&officer, &RotateKey { name: "kek/1".to_owned(), from_version: 0 }).await.unwrap();
    for state in ["disabled", "enabled"] {
        let request = SetKeyState { name: "kek/1".to_owned(), version: 2, state: state.to_owned() };
        vault.set_key_state(&officer, &request).await.unwrap();
    }
    vault.start_rewrap(&officer, &StartRewrap { name: String::new() }).await.unwrap();
    let create = CreateTenant { name: "later".to_owned(), officers: vec![("carol".to_owned(), [3; 32])] };
    vault.create_tenant(&operator(), &create).await.unwrap();
    vault.backup_keystore(&operator(), &BackupKeystore { label: "safe 3".to_owned() }).await.unwrap();
    assert!(!leaves(&vault).await.is_empty());
    assert!(suspend(&vault, &officer, "app/other").await.unwrap());
    assert!(unsuspend(&vault, &officer, "app/other").await.unwrap());
    assert!(unfreeze(&vault, "", What::Both).await);
    unfreeze_all(&vault, What::Both).await.unwrap();
    vault.apply_schema(&officer, &schema).await.unwrap();
}

#[tokio::test]
async fn no_subject_is_erased_while_all_is_frozen_and_what_is_said_of_it_goes_on() {
    let (bench, vault) = Bench::new().await;
    store_one(&vault, FIELD, ID_CARD, "c-1").await;
    freeze(&vault, "", What::Writes).await;
    assert!(is_frozen(&erase_with(&vault, "c-1", 0, "").await));
    let labels = SetLabels { subject: "c-1".to_owned(), labels: vec!["branch-12".to_owned()] };
    assert!(vault.set_labels(&caller(Role::Privacy), &labels).await.unwrap());
    let hold = SetHold {
        subject: "c-1".to_owned(),
        fields: vec![],
        reason: "case-7".to_owned(),
        purpose: "collections".to_owned(),
        until: bench.now.load(Ordering::Relaxed) + 1_000_000,
    };
    let officer = caller(Role::Officer);
    let number = vault.set_hold(&officer, &hold).await.unwrap();
    vault.lift_hold(&officer, &LiftHold { subject: "c-1".to_owned(), number }).await.unwrap();
    assert!(unfreeze(&vault, "", What::Writes).await);
    assert_eq!(erase_with(&vault, "c-1", 0, "").await.unwrap().state, "erased");
}
