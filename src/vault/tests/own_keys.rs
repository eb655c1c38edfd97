//! A tenant's own key as its officers see to it, and what a crash leaves of that.

use strongroom_key_import as import;

use super::tenants::{NUMBER, SAVINGS, fill, log, make, of, read_of};
use super::*;
use crate::key_life::RemoveOwnKey;
use crate::{ImportOwnKey, MoveOwnKey};

/// A tenant's own key, and another one.
const OWN: [u8; 32] = [0x0a; 32];
const WRONG: [u8; 32] = [0x0b; 32];

fn officer() -> Caller {
    of(NUMBER, Role::Officer)
}

/// A key that was wrapped to a new import key, as the tenant does it.
async fn wrapped(vault: &Tested, key: [u8; 32]) -> ImportOwnKey {
    let public = vault.create_import_key(&officer()).await.unwrap();
    ImportOwnKey { wrapped: import::wrap(&public.der, &key).unwrap(), replace: false }
}

async fn bring(vault: &Tested, key: [u8; 32]) -> Result<(), Error> {
    let request = wrapped(vault, key).await;
    vault.import_own_key(&officer(), &request).await.map(drop)
}

/// A vault with a tenant that has brought a key of its own, and the tokens of what that tenant has stored.
async fn with_own_key() -> (Bench, Arc<Tested>, Vec<String>) {
    let (bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    let tokens = fill(&vault, NUMBER).await;
    bring(&vault, OWN).await.unwrap();
    (bench, vault, tokens)
}

/// What the tenant's log says of its own key: action, decision, stage.
async fn told(vault: &Tested) -> Vec<(String, String, String)> {
    let leaves = log(vault, &of(NUMBER, Role::Auditor), "").await;
    let of_own = leaves.iter().filter(|leaf| {
        let action = leaf["action"].as_str().unwrap();
        action.ends_with("_own_key") || action.ends_with("lock_tenant")
    });
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    of_own.map(|leaf| (word(&leaf["action"]), word(&leaf["decision"]), word(&leaf["detail"]["stage"]))).collect()
}

fn story(expected: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    expected.iter().map(|(action, decision, stage)| ((*action).into(), (*decision).into(), (*stage).into())).collect()
}

#[tokio::test]
async fn an_own_key_is_brought_taken_away_and_brought_again_and_the_log_tells_it() {
    let (_bench, vault) = Bench::new().await;
    let others = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    make(&vault, SAVINGS).await.unwrap();
    let tokens = fill(&vault, NUMBER).await;
    assert_eq!(vault.get_own_key(&officer()).await.unwrap(), None);
    bring(&vault, OWN).await.unwrap();
    assert_eq!(read_of(&vault, NUMBER, &tokens[0]).await.unwrap(), ID_CARD.as_bytes());
    // Another one only if that is meant.
    assert!(matches!(bring(&vault, WRONG).await, Err(Error::OwnKey(_))));

    let removed = vault.remove_own_key(&officer()).await.unwrap().unwrap();
    assert!(removed.removed && removed.locked);
    assert!(matches!(read_of(&vault, NUMBER, &tokens[0]).await, Err(Error::TenantLocked)));
    assert!(matches!(vault.list_keys(&officer()).await, Err(Error::TenantLocked)));
    assert!(matches!(vault.get_own_key(&of(NUMBER, Role::App)).await, Err(Error::TenantLocked)));
    assert_eq!(vault.get_own_key(&officer()).await.unwrap(), Some(removed));
    assert_eq!(read_one(&vault, &others, "plain").await.unwrap(), ID_CARD.as_bytes());
    assert!(matches!(bring(&vault, WRONG).await, Err(Error::OwnKey(_))));
    assert!(matches!(read_of(&vault, NUMBER, &tokens[0]).await, Err(Error::TenantLocked)));
    bring(&vault, OWN).await.unwrap();
    assert_eq!(read_of(&vault, NUMBER, &tokens[0]).await.unwrap(), ID_CARD.as_bytes());

    let request = MoveOwnKey { to: "none".to_owned(), provider: None };
    assert_eq!(vault.move_own_key(&officer(), request).await.unwrap(), None);
    let expected = [
        ("get_own_key", "allow", ""),
        ("import_own_key", "allow", "asked"),
        ("import_own_key", "allow", "intent"),
        ("import_own_key", "allow", "done"),
        ("import_own_key", "fail", ""),
        ("remove_own_key", "allow", "intent"),
        ("remove_own_key", "allow", "done"),
        ("get_own_key", "allow", ""),
        ("import_own_key", "allow", ""),
        ("import_own_key", "fail", ""),
        ("import_own_key", "allow", ""),
        ("unlock_tenant", "allow", ""),
        ("move_own_key", "allow", "asked"),
        ("move_own_key", "allow", "intent"),
        ("move_own_key", "allow", "done"),
    ];
    assert_eq!(told(&vault).await, story(&expected));
}

#[tokio::test]
async fn what_was_decided_and_not_made_is_found_out_at_the_next_start() {
    let (bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    let tokens = fill(&vault, NUMBER).await;
    // Decided, and cut off before it was made: nobody has any more what was brought.
    let request = wrapped(&vault, OWN).await;
    vault.travel(&officer(), &request).await.unwrap();
    vault.close().await;
    let vault = bench.open().await;
    assert_eq!(vault.get_own_key(&officer()).await.unwrap(), None);
    assert_eq!(read_of(&vault, NUMBER, &tokens[0]).await.unwrap(), ID_CARD.as_bytes());
    // The same after it was made, and before that was recorded.
    let request = wrapped(&vault, OWN).await;
    let decided = vault.travel(&officer(), &request).await.unwrap();
    let id = vault.tenant(NUMBER).unwrap().id;
    let brought = vault.keystore.open_brought(id, &request.wrapped, decided).unwrap();
    vault.keystore.move_key(id, Some(strongroom_keys::OwnKey::Imported(brought)), decided).unwrap();
    vault.close().await;
    let vault = bench.open().await;
    assert_eq!(vault.get_own_key(&officer()).await.unwrap().unwrap().changed, decided);
    assert_eq!(read_of(&vault, NUMBER, &tokens[0]).await.unwrap(), ID_CARD.as_bytes());
    // A removal that was decided is made.
    vault.travel(&officer(), &RemoveOwnKey).await.unwrap();
    vault.close().await;
    let vault = bench.open().await;
    assert!(matches!(read_of(&vault, NUMBER, &tokens[0]).await, Err(Error::TenantLocked)));
    bring(&vault, OWN).await.unwrap();
    // One that was made and not recorded does not take away what is brought later.
    let decided = vault.travel(&officer(), &RemoveOwnKey).await.unwrap();
    vault.keystore.remove_key(id, decided).unwrap();
    vault.close().await;
    let vault = bench.open().await;
    assert!(matches!(read_of(&vault, NUMBER, &tokens[0]).await, Err(Error::TenantLocked)));
    bring(&vault, OWN).await.unwrap();
    assert_eq!(read_of(&vault, NUMBER, &tokens[0]).await.unwrap(), ID_CARD.as_bytes());
    let all = told(&vault).await;
    let of = |action: &str| {
        all.iter()
            .filter(|(its, ..)| its == action)
            .map(|(_, decision, stage)| (&**decision, &**stage))
            .collect::<Vec<_>>()
    };
    // The key was back before the last one was recorded: the log does not say that it is gone.
    assert_eq!(of("remove_own_key"), [("allow", "intent"), ("allow", "done"), ("allow", "intent"), ("fail", "done")]);
    assert_eq!(
        of("import_own_key")[..4],
        [("allow", "intent"), ("fail", "done"), ("allow", "intent"), ("allow", "done")]
    );
}

#[tokio::test]
async fn a_keystore_from_before_the_removal_does_not_bring_a_tenant_back() {
    let (bench, vault, _) = with_own_key().await;
    let file = bench.folder.path().join("keys");
    let before = std::fs::read(&file).unwrap();
    vault.remove_own_key(&officer()).await.unwrap();
    vault.close().await;
    std::fs::write(&file, before).unwrap();
    assert!(bench.try_open().await.is_err());
}

#[tokio::test]
async fn only_officers_of_a_tenant_see_to_its_own_key() {
    let (_bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    let request = wrapped(&vault, OWN).await;
    for role in [Role::App, Role::Rotator, Role::Auditor, Role::Privacy] {
        let caller = of(NUMBER, role);
        assert!(matches!(vault.get_own_key(&caller).await, Err(Error::Denied { .. })), "{role}");
        assert!(matches!(vault.create_import_key(&caller).await, Err(Error::Denied { .. })), "{role}");
        assert!(matches!(vault.import_own_key(&caller, &request).await, Err(Error::Denied { .. })), "{role}");
        assert!(matches!(vault.remove_own_key(&caller).await, Err(Error::Denied { .. })), "{role}");
        let to_none = MoveOwnKey { to: "none".to_owned(), provider: None };
        assert!(matches!(vault.move_own_key(&caller, to_none).await, Err(Error::Denied { .. })), "{role}");
        let short = ImportOwnKey { wrapped: vec![1; 3], replace: false };
        assert!(matches!(vault.import_own_key(&caller, &short).await, Err(Error::Denied { .. })), "{role}");
    }
    assert!(matches!(vault.get_own_key(&super::tenants::operator()).await, Err(Error::Denied { .. })));
    vault.import_own_key(&officer(), &request).await.unwrap();
}

#[tokio::test]
async fn a_removal_that_fails_locks_at_once_and_can_be_asked_for_again() {
    let (bench, vault, tokens) = with_own_key().await;
    let file = bench.folder.path().join("keys");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, b"somebody else's").unwrap();
    assert!(matches!(vault.remove_own_key(&officer()).await, Err(Error::KeyUnavailable(_))));
    assert!(matches!(read_of(&vault, NUMBER, &tokens[0]).await, Err(Error::TenantLocked)));
    assert!(matches!(vault.remove_own_key(&officer()).await, Err(Error::KeyUnavailable(_))));
    std::fs::write(&file, &good).unwrap();
    assert!(vault.remove_own_key(&officer()).await.unwrap().unwrap().removed);
    assert!(vault.remove_own_key(&officer()).await.unwrap().unwrap().removed);
    vault.close().await;
    let vault = bench.open().await;
    assert!(matches!(read_of(&vault, NUMBER, &tokens[0]).await, Err(Error::TenantLocked)));
    bring(&vault, OWN).await.unwrap();
    assert_eq!(read_of(&vault, NUMBER, &tokens[0]).await.unwrap(), ID_CARD.as_bytes());
}

#[tokio::test]
async fn a_removal_that_failed_is_made_by_the_next_start() {
    let (bench, vault, tokens) = with_own_key().await;
    let file = bench.folder.path().join("keys");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, b"somebody else's").unwrap();
    assert!(vault.remove_own_key(&officer()).await.is_err());
    vault.close().await;
    std::fs::write(&file, &good).unwrap();
    let vault = bench.open().await;
    assert!(matches!(read_of(&vault, NUMBER, &tokens[0]).await, Err(Error::TenantLocked)));
    assert!(vault.get_own_key(&officer()).await.unwrap().unwrap().removed);
}

#[tokio::test]
async fn a_service_that_policy_permits_everything_does_not_change_the_own_key() {
    let (_bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    let all = "@id(\"all\") permit (principal, action, resource);".to_owned();
    put_in_force(&vault, &officer(), all).await;
    bring(&vault, OWN).await.unwrap();
    let app = of(NUMBER, Role::App);
    assert!(vault.get_own_key(&app).await.is_ok());
    assert!(matches!(vault.remove_own_key(&app).await, Err(Error::Denied { .. })));
    assert!(matches!(vault.create_import_key(&app).await, Err(Error::Denied { .. })));
    let to_none = MoveOwnKey { to: "none".to_owned(), provider: None };
    assert!(matches!(vault.move_own_key(&app, to_none).await, Err(Error::Denied { .. })));
}
