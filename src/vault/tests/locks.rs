//! Tenants whose own key is away, while others are served; and their coming back.

use strongroom_keys::{ArgonCost, OwnKey, Passphrase, PassphraseRoot};

use super::tenants::{NUMBER, SAVINGS, fill, log, make, of, operator, read_of};
use super::*;
use crate::{DestroyTenant, Export, RotateKey, StartRewrap, Verification, VerifyError, verify};

/// A key that one tenant keeps.
fn own(passphrase: &str) -> Arc<dyn RootProvider> {
    Arc::new(PassphraseRoot::new(Passphrase::new(passphrase.to_owned()).unwrap(), ArgonCost::LEAST))
}

fn theirs() -> Arc<dyn RootProvider> {
    own("what only the savings tenant knows")
}

/// Gives the tenant a key of its own.
fn give(vault: &Tested) {
    let id = vault.tenant(NUMBER).unwrap().id;
    vault.keystore.move_key(id, Some(OwnKey::Provider(&*theirs())), vault.now()).unwrap();
}

fn is_locked<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::TenantLocked))
}

#[tokio::test]
async fn nothing_of_a_locked_tenant_is_read_or_written_and_others_notice_nothing() {
    let (bench, vault) = Bench::new().await;
    let others = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    make(&vault, SAVINGS).await.unwrap();
    let tokens = fill(&vault, NUMBER).await;
    give(&vault);
    assert_eq!(read_of(&vault, NUMBER, &tokens[0]).await.unwrap(), ID_CARD.as_bytes());
    let held = vault.tenant(NUMBER).unwrap();

    vault.lock_tenant(NUMBER).await.unwrap();
    assert!(is_locked(read_of(&vault, NUMBER, &tokens[0]).await));
    let request = tokenize(vec![new_value("borrower.email", "b@mail.example", "")], "");
    assert!(is_locked(vault.tokenize(&of(NUMBER, Role::App), &request).await));
    assert!(is_locked(vault.status(&of(NUMBER, Role::App)).await));
    let export = Export { first: 0, end: 0, log: String::new() };
    assert!(is_locked(vault.export(&of(NUMBER, Role::Auditor), &export).await));
    let rotate = RotateKey { name: "kek/0".to_owned(), from_version: 0 };
    assert!(is_locked(vault.rotate_key(&of(NUMBER, Role::Officer), &rotate).await));
    let destroy = DestroyTenant { name: SAVINGS.to_owned(), dry_run: true };
    assert!(is_locked(vault.destroy_tenant(&operator(), &destroy).await));
    // Also for who had found it before.
    let app = of(NUMBER, Role::App);
    assert!(is_locked(vault.road(&held, &app, &request, [0; 16]).await));
    assert!(vault.keystore.kek(held.id, strongroom_ids::KeyringNo(0)).is_err(), "its keys are gone from memory");
    assert!(vault.directory().tenants.contains_key(SAVINGS));
    assert_eq!(read_one(&vault, &others, "plain").await.unwrap(), ID_CARD.as_bytes());
    make(&vault, "loans").await.unwrap();
    vault.lock_tenant(NUMBER).await.unwrap();

    vault.unlock_tenant(NUMBER, Some(theirs())).await.unwrap();
    assert_eq!(read_of(&vault, NUMBER, &tokens[0]).await.unwrap(), ID_CARD.as_bytes());
    vault.tokenize(&of(NUMBER, Role::App), &request).await.unwrap();
    assert!(is_locked(vault.road(&held, &app, &request, [0; 16]).await), "who was turned away finds it anew");
    let leaves = log(&vault, &of(NUMBER, Role::Auditor), "").await;
    let of_locks: Vec<_> = leaves.iter().filter(|leaf| leaf["principal"] == "vault").collect();
    let actions: Vec<_> = of_locks.iter().map(|leaf| leaf["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["lock_tenant", "unlock_tenant"]);
    assert_eq!(of_locks[0]["detail"]["own_key"], "passphrase");
    let id = held.id;
    vault.close().await;

    let keystore = Keystore::open(bench.folder.path(), &root()).unwrap();
    keystore.unlock_tenant(id, Some(&*theirs())).unwrap();
    let head_file = bench.folder.path().join("head");
    let verification =
        Verification { store: &bench.disk, keystore: &keystore, head_file: &head_file, checkpoints: &[] };
    assert_eq!(verify(&verification, &mut |_| {}).await.unwrap().findings, []);
}

#[tokio::test]
async fn a_start_leaves_a_tenant_locked_until_its_own_key_and_no_other_unlocks_it() {
    let (bench, vault) = Bench::new().await;
    let others = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    make(&vault, SAVINGS).await.unwrap();
    let tokens = fill(&vault, NUMBER).await;
    give(&vault);
    vault.close().await;

    let keystore = Keystore::open(bench.folder.path(), &root()).unwrap();
    let head_file = bench.folder.path().join("head");
    let verification =
        Verification { store: &bench.disk, keystore: &keystore, head_file: &head_file, checkpoints: &[] };
    let refused = verify(&verification, &mut |_| {}).await;
    assert!(matches!(refused, Err(VerifyError::Locked { tenant }) if tenant == SAVINGS));
    drop(keystore);

    let vault = bench.open().await;
    assert!(is_locked(read_of(&vault, NUMBER, &tokens[0]).await));
    assert_eq!(read_one(&vault, &others, "plain").await.unwrap(), ID_CARD.as_bytes());
    let other = vault.unlock_tenant(NUMBER, Some(own("what anybody might guess"))).await;
    assert!(matches!(other, Err(Error::KeyUnavailable(_))), "{other:?}");
    assert!(is_locked(read_of(&vault, NUMBER, &tokens[0]).await));
    vault.unlock_tenant(NUMBER, Some(theirs())).await.unwrap();
    vault.unlock_tenant(NUMBER, Some(theirs())).await.unwrap();
    assert_eq!(read_of(&vault, NUMBER, &tokens[0]).await.unwrap(), ID_CARD.as_bytes());
}

#[tokio::test]
async fn jobs_of_a_locked_tenant_wait_and_go_on() {
    let (_bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    fill(&vault, NUMBER).await;
    give(&vault);
    let officer = of(NUMBER, Role::Officer);
    let rotate = RotateKey { name: "kek/0".to_owned(), from_version: 0 };
    vault.rotate_key(&officer, &rotate).await.unwrap();
    vault.start_rewrap(&officer, &StartRewrap { name: String::new() }).await.unwrap();
    vault.job_started().await;
    assert_eq!(vault.running_jobs().await.unwrap().len(), 1);
    vault.lock_tenant(NUMBER).await.unwrap();
    assert!(vault.running_jobs().await.unwrap().is_empty());
    vault.unlock_tenant(NUMBER, Some(theirs())).await.unwrap();
    vault.job_started().await;
    assert_eq!(vault.running_jobs().await.unwrap().len(), 1);
}

#[tokio::test]
async fn who_has_no_key_of_its_own_is_not_locked_and_the_vault_itself_never() {
    let (_bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    for number in [TenantNo(0), TenantNo(1)] {
        assert!(matches!(vault.lock_tenant(number).await, Err(Error::KeyUnavailable(_))));
        assert!(matches!(vault.unlock_tenant(number, Some(theirs())).await, Err(Error::KeyUnavailable(_))));
    }
    assert!(matches!(vault.lock_tenant(TenantNo(9)).await, Err(Error::TenantNotFound)));
    assert_eq!(read_one(&vault, &token, "plain").await.unwrap(), ID_CARD.as_bytes());
}
