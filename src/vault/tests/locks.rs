//! Tenants whose own key is away, while others are served; and their coming back.

use strongroom_keys::{ArgonCost, OwnKey, Passphrase, PassphraseRoot, ProvidedKey};

use super::tenants::{NUMBER, SAVINGS, fill, listed, log, make, of, operator, read_of};
use super::*;
use crate::{Away, Back, DestroyTenant, Export, RotateKey, StartRewrap, TenantState, Verification, verify};

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
    let key = ProvidedKey::ask(vault.id, id, &*theirs()).unwrap();
    vault.keystore.move_key(id, Some(OwnKey::Provided(key)), vault.now()).unwrap();
}

/// Locks the tenant as one whose provider says no.
async fn lock(vault: &Tested) {
    vault.lock_tenant(NUMBER, Away::Denied).await.unwrap();
}

/// Unlocks the tenant by what its provider unwraps.
async fn unlock(vault: &Tested) -> Result<(), Error> {
    let [tenant] = &vault.provided_tenants().await?[..] else { panic!("one tenant has a provider") };
    let key = vault.own_key_probe(tenant.id).unwrap().ask(&*theirs())?;
    vault.unlock_tenant(tenant.number, Back::Unwrapped(key)).await
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

    lock(&vault).await;
    assert!(is_locked(read_of(&vault, NUMBER, &tokens[0]).await));
    let request = tokenize(vec![new_value("borrower.email", "b@mail.example", "")], "");
    assert!(is_locked(vault.tokenize(&of(NUMBER, Role::App), &request).await));
    assert!(is_locked(vault.status(&of(NUMBER, Role::App)).await));
    let export = Export { first: 0, end: 0, log: String::new() };
    assert!(is_locked(vault.export(&of(NUMBER, Role::Auditor), &export).await));
    let rotate = RotateKey { name: "kek/0".to_owned(), from_version: 0 };
    assert!(is_locked(vault.rotate_key(&of(NUMBER, Role::Officer), &rotate).await));
    // Also for who had found it before.
    let app = of(NUMBER, Role::App);
    assert!(is_locked(vault.road(&held, &app, &request, [0; 16]).await));
    assert!(vault.keystore.kek(held.id, strongroom_ids::KeyringNo(0)).is_err(), "its keys are gone from memory");
    assert!(vault.directory().tenants.contains_key(SAVINGS));
    assert_eq!(read_one(&vault, &others, "plain").await.unwrap(), ID_CARD.as_bytes());
    make(&vault, "loans").await.unwrap();
    lock(&vault).await;

    unlock(&vault).await.unwrap();
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
    let key = keystore.own_key_probe(id).unwrap().ask(&*theirs()).unwrap();
    keystore.unlock_tenant(id, Some(key)).unwrap();
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
    let report = verify(&verification, &mut |_| {}).await.unwrap();
    assert_eq!(report.findings, []);
    let counts = |name: &str| report.tenants.iter().find(|(known, _)| **known == *name).unwrap().1.clone();
    assert!(
        counts(SAVINGS).locked && counts(SAVINGS).leaves > 0 && counts(SAVINGS).values == 0,
        "only its log is proved"
    );
    assert!(!counts("acme").locked && counts("acme").values == 1);
    drop(keystore);

    let vault = bench.open().await;
    assert!(is_locked(read_of(&vault, NUMBER, &tokens[0]).await));
    assert_eq!(read_one(&vault, &others, "plain").await.unwrap(), ID_CARD.as_bytes());
    let [tenant] = &vault.provided_tenants().await.unwrap()[..] else { panic!("one tenant has a provider") };
    assert!(vault.own_key_probe(tenant.id).unwrap().ask(&*own("what anybody might guess")).is_err());
    assert!(is_locked(read_of(&vault, NUMBER, &tokens[0]).await));
    unlock(&vault).await.unwrap();
    unlock(&vault).await.unwrap();
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
    lock(&vault).await;
    assert!(vault.running_jobs().await.unwrap().is_empty());
    unlock(&vault).await.unwrap();
    vault.job_started().await;
    assert_eq!(vault.running_jobs().await.unwrap().len(), 1);
}

#[tokio::test]
async fn who_has_no_key_of_its_own_is_not_locked_and_the_vault_itself_never() {
    let (_bench, vault) = Bench::new().await;
    let token = store_one(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    for number in [TenantNo(0), TenantNo(1)] {
        assert!(matches!(vault.lock_tenant(number, Away::Denied).await, Err(Error::OwnKey(_))));
    }
    assert_eq!(vault.provided_tenants().await.unwrap(), []);
    assert!(matches!(vault.lock_tenant(TenantNo(9), Away::Denied).await, Err(Error::TenantNotFound)));
    assert_eq!(read_one(&vault, &token, "plain").await.unwrap(), ID_CARD.as_bytes());
}

#[tokio::test]
async fn a_locked_tenant_can_be_destroyed() {
    let (bench, vault) = Bench::new().await;
    make(&vault, SAVINGS).await.unwrap();
    fill(&vault, NUMBER).await;
    give(&vault);
    lock(&vault).await;
    let id = vault.provided_tenants().await.unwrap()[0].id;
    assert_eq!(listed(&vault, SAVINGS).await.unwrap().state, TenantState::Locked);
    let dry = vault.destroy_tenant(&operator(), &DestroyTenant { name: SAVINGS.to_owned(), dry_run: true }).await;
    assert!(dry.unwrap().values > 0);
    assert_eq!(listed(&vault, SAVINGS).await.unwrap().state, TenantState::Locked);
    let gone = vault.destroy_tenant(&operator(), &DestroyTenant { name: SAVINGS.to_owned(), dry_run: false }).await;
    assert!(gone.unwrap().receipt.contains(SAVINGS));
    assert!(vault.keystore.own_key(id).is_none() && vault.provided_tenants().await.unwrap().is_empty());
    assert!(matches!(vault.lock_tenant(NUMBER, Away::Denied).await, Err(Error::TenantDestroyed)));
    vault.close().await;
    let keystore = Keystore::open(bench.folder.path(), &root()).unwrap();
    let head_file = bench.folder.path().join("head");
    let verification =
        Verification { store: &bench.disk, keystore: &keystore, head_file: &head_file, checkpoints: &[] };
    assert_eq!(verify(&verification, &mut |_| {}).await.unwrap().findings, []);
}
